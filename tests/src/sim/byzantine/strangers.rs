//! What those can do who have no key: send junk, take questions and not answer, and come back under another name.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Witness};
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::ChainView;
use causeway_consensus::bft::{Message, SignedVote, VoteType};
use causeway_node::wire::{
    BLOCK_BYTES_MAX, Response, TRANSACTIONS_MAX, Topic, decode_consensus, decode_transactions, encode_announcement,
    encode_body, encode_transactions,
};
use libp2p::PeerId;

use super::Strategy;
use crate::sim::world::World;

/// Junk of each kind that goes to everybody every 100 ms.
const BODIES: usize = 6;
const CERTIFICATES: usize = 300;
const FORGERIES: usize = 5;

/// Messages that get riders every 100 ms.
const RIDERS: usize = 4;

impl World {
    /// Headers that nobody has proposed, on the tip and above the next block.
    pub(super) fn send_junk_bodies(&mut self, index: usize) {
        let tip = self.hosts[index].chain.tip();
        let at = tip.height().to_u32();
        for _ in 0..BODIES {
            for (height, parent) in [(at + 1, tip.hash()), (at + 2, BlockHash::from_byte_array(self.bytes()))] {
                let junk = [&[0; 4], &parent.to_byte_array()[..], &self.bytes(), &[0; 200]].concat();
                self.lie_to_all(index, Topic::Bodies, &encode_body(Height(height), &junk));
            }
        }
    }

    fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.rng.number().to_le_bytes());
        bytes
    }

    /// Says that it has the block of a proposal that it has just heard of.
    pub(in crate::sim) fn announce_unseen(&mut self, index: usize, bytes: &Bytes) {
        let message = decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok());
        let Some(Message::Proposal(signed)) = message else { return };
        let (height, block, nonce) = (signed.message.height(), signed.message.block(), self.rng.number());
        let length = u32::try_from(BLOCK_BYTES_MAX).expect("4 MB");
        self.lie_to_all(index, Topic::Bodies, &encode_announcement(height, block, length, nonce));
    }

    /// Claims the greatest height, and does not answer.
    pub(super) fn claim_and_stall(truth: &Response) -> Option<Bytes> {
        match truth {
            Response::Status { hash, .. } => {
                Some(Response::Status { height: Height(u32::MAX), hash: *hash }.encode().into())
            }
            Response::Blocks(_) | Response::Body(_) => None,
        }
    }

    /// Claims the greatest height, and has an old block for every question.
    pub(super) fn claim_and_lie(&mut self, index: usize, truth: &Response) -> Option<Bytes> {
        match truth {
            Response::Blocks(_) => {
                let old = self.hosts[index].blocks.last().cloned()?;
                let stalls = self.rng.chance(20);
                (!stalls).then(|| Response::Blocks(vec![old]).encode().into())
            }
            _ => Self::claim_and_stall(truth),
        }
    }

    /// Leaves, and comes back as a stranger: now and then, and when somebody has had enough of it.
    pub(super) fn come_back(&mut self, index: usize, strategy: Strategy) {
        let banned = self.hosts.iter().any(|host| host.bans.contains_key(&index));
        let leaves = matches!(strategy, Strategy::Stall | Strategy::Announce);
        if !banned && (!leaves || !self.rng.chance(1)) {
            return;
        }
        self.disconnect_all(index);
        for host in &mut self.hosts {
            host.bans.remove(&index);
        }
        if let Some(liar) = &mut self.hosts[index].byzantine {
            liar.names = liar.names.wrapping_add(1);
            self.hosts[index].peer = stranger(index, liar.names);
        }
    }

    /// The transactions that were heard last, each with a child whose witness is wrong, to one peer after the other: who
    /// has the parent knows at once that the child is invalid, who has not can only wait for the parent.
    pub(super) fn send_riders(&mut self, index: usize) {
        let heard = self.hosts[index].byzantine.as_ref().into_iter().flat_map(|liar| liar.heard.iter().rev());
        let heard = heard.filter(|(topic, _)| *topic == Topic::Transactions).take(RIDERS).cloned().collect::<Vec<_>>();
        for (_, bytes) in heard {
            let Ok(parents) = decode_transactions(bytes) else { continue };
            let children: Vec<Bytes> = parents.iter().filter_map(|parent| wrong_child(parent)).collect();
            // A child before its parent is an orphan even where both arrive.
            let message: Vec<Bytes> = children.into_iter().chain(parents).take(TRANSACTIONS_MAX).collect();
            let peers = self.links.neighbours(index);
            let nonce = self.rng.number();
            if let Some(to) = self.rng.pick(&peers).copied() {
                self.lie_to(index, to, Topic::Transactions, &encode_transactions(&message, nonce));
            }
        }
    }

    /// Certificates of rounds from what validators signed, each of other votes, and forged votes of the height after the
    /// next.
    pub(super) fn flood_certificates(&mut self, index: usize) {
        let height = self.hosts[index].height().to_u32() + 1;
        let heard = self.hosts[index].byzantine.as_ref().into_iter().flat_map(|liar| &liar.heard);
        let heard = heard.filter(|(topic, _)| *topic == Topic::Consensus);
        let votes = heard.filter_map(|(_, bytes)| match Message::decode(decode_consensus(bytes).ok()?).ok()? {
            Message::Vote(vote) if vote.message.height() == Height(height) && vote.message.round() == Some(0) => {
                Some(vote)
            }
            _ => None,
        });
        let mut votes: Vec<SignedVote> = votes.collect();
        votes.sort_by_key(|vote| (vote.message.validator(), vote.message.kind() == VoteType::Precommit));
        votes.dedup_by_key(|vote| (vote.message.validator(), vote.message.kind() == VoteType::Precommit));
        for _ in 0..CERTIFICATES {
            let mut chosen: Vec<&SignedVote> = Vec::new();
            for vote in &votes {
                let again = chosen.last().is_some_and(|last| last.message.validator() == vote.message.validator());
                if !again && self.rng.chance(50) {
                    chosen.push(vote);
                }
            }
            // More than a third.
            if chosen.len() * 3 > self.plan.powers.len() {
                let certificate = skip_certificate(height, &chosen);
                self.lie_to_all(index, Topic::Consensus, &certificate);
            }
        }
        for _ in 0..FORGERIES {
            if let Some(vote) = self.rng.pick(&votes).cloned() {
                let mut bytes = Message::Vote(vote).encode();
                bytes[2..6].copy_from_slice(&(height + 1).to_le_bytes());
                let nonce = self.rng.number();
                let forged = Bytes::from([&nonce.to_le_bytes()[..], &bytes].concat());
                self.lie_to_all(index, Topic::Consensus, &forged);
            }
        }
    }
}

/// A transaction that pays well, and has no right to the output that it spends.
fn wrong_child(parent: &[u8]) -> Option<Bytes> {
    let parent: Transaction = deserialize(parent).ok()?;
    let value = parent.output.first()?.value.checked_sub(Amount::from_sat(20_000))?;
    let input = TxIn {
        previous_output: OutPoint { txid: parent.compute_txid(), vout: 0 },
        witness: Witness::from_slice(&[vec![7; 64]]),
        ..TxIn::default()
    };
    let output = TxOut { value, script_pubkey: ScriptBuf::from_bytes([&[0x00, 0x14][..], &[7; 20]].concat()) };
    let child =
        Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] };
    Some(serialize(&child).into())
}

/// A certificate that round 0 was entered, by these votes.
fn skip_certificate(height: u32, votes: &[&SignedVote]) -> Bytes {
    let mut bytes = vec![0; 8];
    bytes.push(4);
    bytes.extend_from_slice(&height.to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    bytes.push(1);
    bytes.extend_from_slice(&u16::try_from(votes.len()).expect("few").to_le_bytes());
    for signed in votes {
        let vote = &signed.message;
        bytes.push(if vote.kind() == VoteType::Prevote { 1 } else { 2 });
        match vote.block() {
            Some(block) => bytes.extend([&[1][..], block.as_byte_array()].concat()),
            None => bytes.extend([0; 33]),
        }
        bytes.extend_from_slice(&vote.validator().0);
        bytes.extend_from_slice(&signed.signature.0);
    }
    debug_assert!(Message::decode(&bytes[8..]).is_ok());
    bytes.into()
}

/// A name before those of all honest hosts: whoever asks the first of equals asks this.
fn stranger(index: usize, names: u8) -> PeerId {
    let index = u8::try_from(index).expect("few hosts");
    PeerId::from_bytes(&[0, 2, names & 0x7f, index]).expect("an identity multihash may be short")
}
