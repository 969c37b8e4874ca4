//! Blocks that no honest validator would propose, and proposals out of turn.

use std::time::Duration;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Block, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, absolute};
use bytes::Bytes;
use causeway_consensus::ChainView;
use causeway_consensus::assemble::{assemble_block, seal};
use causeway_consensus::bft::{Message, Proposal};
use causeway_node::wire::{Topic, decode_consensus, encode_body};

use super::{Strategy, pushed, sign_proposal};
use crate::sim::rng::Rng;
use crate::sim::world::World;

impl World {
    /// Another block in the place of its node's. Returns whether the truth is still to be told.
    pub(super) fn propose_instead(&mut self, index: usize, strategy: Strategy, topic: Topic, bytes: &Bytes) -> bool {
        match topic {
            Topic::Bodies => {
                let Some((height, block)) = pushed(bytes) else { return true };
                let Ok(truth) = deserialize::<Block>(&block) else { return true };
                let mut lie = truth.clone();
                let unix = self.hosts[index].unix(self.now);
                match strategy {
                    Strategy::FutureBlocks => push_ahead(&mut lie, unix, &mut self.rng),
                    Strategy::Censor => lie = self.without_evidence(index, truth.clone()),
                    Strategy::FalseEvidence => lie = self.with_false_headers(index, truth.clone()),
                    _ => spoil(&mut lie, &mut self.rng),
                }
                if let Some(liar) = &mut self.hosts[index].byzantine {
                    liar.instead.insert(truth.block_hash(), lie.block_hash());
                }
                self.lie_to_all(index, topic, &encode_body(height, &serialize(&lie)));
                false
            }
            Topic::Consensus => {
                let message = decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok());
                let Some(Message::Proposal(signed)) = message else { return true };
                let truth = &signed.message;
                let liar = self.hosts[index].byzantine.as_ref();
                let lie = liar.and_then(|liar| liar.instead.get(&truth.block())).copied();
                let (Some(lie), Some(round), Some(key)) = (lie, truth.round(), self.hosts[index].key) else {
                    return true;
                };
                let proposal = Proposal::new(truth.height(), round, lie, truth.pol_round(), truth.proposer());
                let bytes = sign_proposal(&key, self.spec.chain_id(), proposal, 0);
                self.lie_to_all(index, topic, &bytes);
                false
            }
            Topic::Transactions | Topic::Claims => true,
        }
    }

    /// A valid block, proposed for a round of somebody else.
    pub(super) fn propose_out_of_turn(&mut self, index: usize) {
        if !self.rng.chance(20) {
            return;
        }
        let host = &self.hosts[index];
        let (Some(key), Some(address), Some(life)) = (host.key, host.address, &host.life) else { return };
        let tip = host.chain.tip();
        let Some(height) = tip.height().next() else { return };
        let round = life.node.status().round;
        let set = self.schedule.set(height);
        if set.proposer(self.spec.chain_id(), height, round).address() == address {
            return;
        }
        let now = u32::try_from(host.unix(self.now).as_secs()).expect("before 2106");
        let time = now.max(tip.time()).max(tip.median_time_past() + 1);
        let block = assemble_block(&tip, time, Amount::ZERO, ScriptBuf::new(), vec![]);
        let proposal = Proposal::new(height, round, block.block_hash(), None, address);
        let nonce = self.rng.number();
        let proposal = sign_proposal(&key, self.spec.chain_id(), proposal, nonce);
        self.lie_to_all(index, Topic::Consensus, &proposal);
        self.lie_to_all(index, Topic::Bodies, &encode_body(height, &serialize(&block)));
    }
}

/// Sets the time of a block ahead: by as much as is voted for, or by more.
fn push_ahead(block: &mut Block, unix: Duration, rng: &mut Rng) {
    let ahead = match rng.below(5) {
        0 => 5,
        1 => 10,
        2 => 11 + rng.below(10),
        3 => 60,
        _ => 3_600,
    };
    let time = u32::try_from(unix.as_secs() + ahead).expect("before 2106");
    block.header.time = time.max(block.header.time);
    seal(block);
}

/// Breaks one rule.
fn spoil(block: &mut Block, rng: &mut Rng) {
    let coinbase = &mut block.txdata[0];
    match rng.below(5) {
        0 => {
            let last = coinbase.output.len() - 1;
            let mut script = coinbase.output[last].script_pubkey.to_bytes();
            let end = script.len() - 1;
            script[end] ^= 1;
            coinbase.output[last].script_pubkey = ScriptBuf::from_bytes(script);
        }
        1 => coinbase.output.insert(0, TxOut { value: Amount::from_sat(1), script_pubkey: ScriptBuf::new() }),
        2 => block.header.time = 1_000_000_000,
        3 => coinbase.lock_time = absolute::LockTime::from_consensus(7),
        _ => {
            // Coins that nobody has.
            let outpoint = OutPoint { txid: block.txdata[0].compute_txid(), vout: 9 };
            block.txdata.push(Transaction {
                version: Version::TWO,
                lock_time: absolute::LockTime::ZERO,
                input: vec![TxIn { previous_output: outpoint, ..TxIn::default() }],
                output: vec![TxOut {
                    value: Amount::from_sat(1_000),
                    script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
                }],
            });
        }
    }
    seal(block);
}
