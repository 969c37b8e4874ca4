//! Votes and proposals that arrive one height too early, kept until it starts.
//!
//! Whoever finishes a height last gets the next one's first messages before it can use them. The engine would keep what
//! strangers send unread; here only what a validator of the current set signed is kept, and one message of a kind and
//! round of each: at most 256 x 3 x 4, some 500 kB. A validator that joins at the next height sends its votes again.

use std::collections::BTreeMap;

use causeway_chainspec::Height;

use super::context::{Address, Context};
use super::gossip::{Message, is_signed_proposal, is_signed_vote};
use super::signer::{Position, ToSign};
use super::validator_set::ValidatorSet;

/// Rounds of the next height of which messages are kept.
const ROUNDS: u32 = 4;

#[derive(Default)]
pub(super) struct Early {
    messages: BTreeMap<(Position, Address), Message>,
}

impl Early {
    /// Keeps a message for `next`, the height above the current one, if a validator of the current set signed it.
    pub(super) fn offer(&mut self, context: &Context, set: &ValidatorSet, next: Height, message: Message) {
        let chain = context.chain();
        let (to_sign, address) = match &message {
            Message::Vote(vote) => (ToSign::vote(chain, &vote.message), vote.message.validator()),
            Message::Proposal(proposal) => (ToSign::proposal(chain, &proposal.message), proposal.message.proposer()),
            Message::Polka(_) | Message::Round(_) => return,
        };
        let Some(position) = to_sign.map(|message| message.position()) else { return };
        if position.height != next || position.round >= ROUNDS || self.messages.contains_key(&(position, address)) {
            return;
        }
        let signed = match &message {
            Message::Vote(vote) => is_signed_vote(context, set, vote),
            Message::Proposal(proposal) => is_signed_proposal(context, set, proposal),
            Message::Polka(_) | Message::Round(_) => false,
        };
        if signed {
            self.messages.insert((position, address), message);
        }
    }

    /// Returns what was kept for this height, in order of round and step, and forgets everything else.
    pub(super) fn take(&mut self, height: Height) -> Vec<Message> {
        let kept = std::mem::take(&mut self.messages);
        kept.into_iter().filter(|((position, _), _)| position.height == height).map(|(_, message)| message).collect()
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
        assert_eq!(early.take(Height(102)), [proposal, vote(0, 102, 0, 1)]);
        early.offer(&context, &set, Height(102), vote(0, 102, 0, 1));
        assert_eq!(early.take(Height(103)), []);
        assert_eq!(early.take(Height(102)), []);
    }
}
