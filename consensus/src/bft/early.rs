//! Votes and proposals that arrive one height too early, kept until it starts.
//!
//! Whoever finishes a height last gets the next one's first messages before it can use them. The engine would keep what
//! strangers send unread; here only what a validator of the current set signed is kept, and one message of a kind and
//! round of each: at most 256 x 3 x 4, some 500 kB. A validator that joins at the next height sends its votes again.

use std::collections::BTreeMap;

use causeway_chainspec::Height;

use super::context::{Address, Context};
use super::gossip::{CheckedMessage, Message};
use super::signer::{Position, ToSign};
use super::validator_set::ValidatorSet;

/// Rounds of the next height of which messages are kept.
const ROUNDS: u32 = 4;

#[derive(Default)]
pub(super) struct Early {
    messages: BTreeMap<(Position, Address), CheckedMessage>,
}

impl Early {
    /// Keeps a message for `next`, the height above the current one, if a validator of the current set signed it.
    pub(super) fn offer(&mut self, context: &Context, set: &ValidatorSet, next: Height, message: Message) {
        if let Some(place) = self.place(context, next, &message)
            && let Ok(checked) = message.check(context.chain(), set)
        {
            self.messages.insert(place, checked);
        }
    }

    /// The same for a message that the current set is known to have signed.
    pub(super) fn offer_checked(&mut self, context: &Context, next: Height, checked: CheckedMessage) {
        if let Some(place) = self.place(context, next, checked.message()) {
            self.messages.insert(place, checked);
        }
    }

    /// Where a message belongs that is worth keeping, and not kept yet.
    fn place(&self, context: &Context, next: Height, message: &Message) -> Option<(Position, Address)> {
        let chain = context.chain();
        let (to_sign, address) = match message {
            Message::Vote(vote) => (ToSign::vote(chain, &vote.message), vote.message.validator()),
            Message::Proposal(proposal) => (ToSign::proposal(chain, &proposal.message), proposal.message.proposer()),
            Message::Polka(_) | Message::Round(_) => return None,
        };
        let place = (to_sign?.position(), address);
        let wanted = place.0.height == next && place.0.round < ROUNDS && !self.messages.contains_key(&place);
        wanted.then_some(place)
    }

    /// Returns what was kept for this height, in order of round and step, and forgets everything else.
    pub(super) fn take(&mut self, height: Height) -> Vec<CheckedMessage> {
        let kept = std::mem::take(&mut self.messages);
        kept.into_iter().filter(|((position, _), _)| position.height == height).map(|(_, checked)| checked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bft::message::{Proposal, Vote};
    use crate::bft::testing::{address, block, chain, set, sign_proposal, sign_vote};
    use arc_malachitebft_core_types::VoteType;

    #[test]
    fn only_signed_messages_of_the_next_height_are_kept() {
        let (context, set) = (Context::new(chain(1)), set(&[1, 1]));
        let vote = |index: u32, height: u32, round: u32, fill: u8| {
            let vote = Vote::new(VoteType::Prevote, Height(height), round, Some(block(fill)), address(index));
            Message::Vote(sign_vote(index, vote))
        };
        let proposal = Proposal::new(Height(102), 0, block(1), None, address(0));
        let proposal = Message::Proposal(sign_proposal(0, proposal));
        let mut forged = vote(1, 102, 0, 1);
        if let Message::Vote(vote) = &mut forged {
            vote.signature.0[0] ^= 1;
        }
        let mut early = Early::default();
        let offered = [
            vote(0, 102, 0, 1),
            vote(0, 102, 0, 2),
            forged,
            vote(1, 102, 4, 1),
            vote(1, 103, 0, 1),
            vote(1, 101, 0, 1),
            vote(2, 102, 0, 1),
            proposal.clone(),
        ];
        for message in offered {
            early.offer(&context, &set, Height(102), message);
        }
        let kept: Vec<Message> = early.take(Height(102)).into_iter().map(CheckedMessage::into_message).collect();
        assert_eq!(kept, [proposal, vote(0, 102, 0, 1)]);
        early.offer(&context, &set, Height(102), vote(0, 102, 0, 1));
        assert_eq!(early.take(Height(103)), []);
        assert_eq!(early.take(Height(102)), []);
    }
}
