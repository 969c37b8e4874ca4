//! Too much of everything.

use std::time::Duration;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, ScriptBuf};
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::ChainView;
use causeway_consensus::assemble::assemble_block;
use causeway_node::machine::OutboundId;
use causeway_node::wire::{Request, Topic, encode_announcement, encode_body};

use super::{id, pushed, twin};
use crate::sim::world::{What, World};

impl World {
    /// Blocks that nobody has proposed, and wrong content under a header that somebody has.
    pub(super) fn flood_bodies(&mut self, index: usize) {
        let host = &self.hosts[index];
        let tip = host.chain.tip();
        let Some(height) = tip.height().next() else { return };
        let now = u32::try_from(host.unix(self.now).as_secs()).expect("before 2106");
        let time = now.max(tip.time()).max(tip.median_time_past() + 1);
        let block = serialize(&assemble_block(&tip, time, Amount::ZERO, ScriptBuf::new(), vec![]));
        for _ in 0..6 {
            let Some(other) = twin(&block, &mut self.rng) else { return };
            let claimed = if self.rng.chance(80) { height } else { Height(height.to_u32() + 1) };
            self.lie_to_all(index, Topic::Bodies, &encode_body(claimed, &other));
            let (Some(hash), nonce) = (id(&other), self.rng.number()) else { return };
            self.lie_to_all(index, Topic::Bodies, &encode_announcement(claimed, hash, 1_000, nonce));
        }
        let heard = self.hosts[index].byzantine.as_ref().and_then(|liar| {
            liar.heard.iter().rev().find(|(topic, _)| *topic == Topic::Bodies).map(|(_, bytes)| bytes.clone())
        });
        if let Some((height, block)) = heard.as_ref().and_then(pushed) {
            let mut altered = block.to_vec();
            let place = 80 + self.rng.index(altered.len().max(81) - 80);
            if let Some(byte) = altered.get_mut(place) {
                *byte ^= 1 << self.rng.below(8);
            }
            if self.rng.chance(30) {
                altered.truncate(place);
            }
            self.lie_to_all(index, Topic::Bodies, &encode_body(height, &altered));
        }
    }

    /// Nonsense on every topic, and more questions than anybody has.
    pub(super) fn spam(&mut self, index: usize) {
        for topic in Topic::ALL {
            let length = self.rng.index(300);
            let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(self.rng.below(256)).expect("a byte")).collect();
            self.lie_to_all(index, topic, &Bytes::from(bytes));
        }
        // A message with another signature than its own.
        let heard = self.hosts[index].byzantine.as_ref().and_then(|liar| {
            liar.heard.iter().rev().find(|(topic, _)| *topic == Topic::Consensus).map(|(_, bytes)| bytes.to_vec())
        });
        if let Some(mut forged) = heard.filter(|_| self.rng.chance(20)) {
            if let Some(last) = forged.last_mut() {
                *last ^= 1;
            }
            self.lie_to_all(index, Topic::Consensus, &forged.into());
        }
        let Some(life) = &self.hosts[index].life else { return };
        let (number, height) = (life.number, self.hosts[index].height());
        for to in self.links.neighbours(index) {
            for _ in 0..5 {
                let request = Request::Blocks {
                    from: Height(101 + u32::try_from(self.rng.below(40)).expect("small")),
                    count: 64,
                };
                let request = if self.rng.chance(50) { request } else { Request::Status { height } };
                let bytes = request.encode().into();
                // Nobody waits for the answer.
                let id = OutboundId(u64::MAX - self.rng.below(1 << 40));
                self.after(Duration::from_millis(10), What::Request { from: index, life: number, to, id, bytes });
            }
        }
    }
}
