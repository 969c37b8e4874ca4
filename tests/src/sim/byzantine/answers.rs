//! Wrong answers.

use bitcoin::consensus::serialize;
use bitcoin::{Amount, ScriptBuf};
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::ChainView;
use causeway_consensus::assemble::assemble_block;
use causeway_consensus::bft::{CommitCertificate, Key, Signature, Vote, VoteType};
use causeway_node::wire::{FinalBlock, Response};

use super::{Strategy, twin};
use crate::sim::world::World;

impl World {
    /// What a host answers, which is the truth if it is honest; `None` for no answer.
    pub(in crate::sim) fn lie(&mut self, index: usize, truth: Response) -> Option<Bytes> {
        if self.has_strategy(index, Strategy::Stall) {
            return Self::claim_and_stall(&truth);
        }
        if self.has_strategy(index, Strategy::Decoy) {
            return self.claim_and_lie(index, &truth);
        }
        let answer = match &truth {
            Response::Body(Some(_)) if self.withholds_bodies(index) => {
                if self.rng.chance(50) {
                    return None;
                }
                Response::Body(None)
            }
            Response::Body(_) if self.has_strategy(index, Strategy::Announce) => return None,
            _ if !self.has_strategy(index, Strategy::LyingSync) => truth,
            Response::Status { height, hash } => {
                let height = match self.rng.below(4) {
                    0 => *height,
                    1 => Height(height.to_u32() + 1),
                    2 => Height(height.to_u32() + 1 + u32::try_from(self.rng.below(2_000)).expect("small")),
                    _ => Height(u32::MAX),
                };
                Response::Status { height, hash: *hash }
            }
            Response::Blocks(blocks) => return self.lie_about_blocks(index, blocks.clone()),
            Response::Body(Some(block)) => {
                let mut altered = block.to_vec();
                if let Some(last) = altered.last_mut() {
                    *last ^= 1;
                }
                Response::Body(Some(altered.into()))
            }
            Response::Body(None) => Response::Body(None),
        };
        Some(answer.encode().into())
    }

    fn lie_about_blocks(&mut self, index: usize, mut blocks: Vec<FinalBlock>) -> Option<Bytes> {
        if blocks.is_empty() || self.rng.chance(30) {
            // A fork of its own, after its tip.
            blocks.extend(self.forge(index));
        }
        let place = self.rng.index(blocks.len());
        match self.rng.below(7) {
            0 => return None,
            1 => return Some(Bytes::from(vec![2, 200, 200, 0, 1, 2, 3])),
            2 => blocks.clear(),
            3 => blocks[place].block = twin(&blocks[place].block, &mut self.rng)?,
            4 => {
                let mut altered = blocks[place].block.to_vec();
                *altered.last_mut()? ^= 1;
                blocks[place].block = altered.into();
            }
            5 => blocks[place].certificate = blocks[0].certificate.clone(),
            _ => {}
        }
        Some(Response::Blocks(blocks).encode().into())
    }

    /// A valid block on the liar's tip with a certificate that is none.
    fn forge(&mut self, index: usize) -> Option<FinalBlock> {
        let host = &self.hosts[index];
        let tip = host.chain.tip();
        let (height, key) = (tip.height().next()?, host.key?);
        let now = u32::try_from(host.unix(self.now).as_secs()).expect("before 2106");
        let time = now.max(tip.time()).max(tip.median_time_past() + 1);
        let block = serialize(&assemble_block(&tip, time, Amount::ZERO, ScriptBuf::new(), vec![]));
        let block = twin(&block, &mut self.rng)?;
        let (set, hash) = (self.schedule.set(height), super::id(&block)?);
        let own = Vote::new(VoteType::Precommit, height, 0, Some(hash), Key::address(&key));
        let own = Key::sign(&key, &own.digest(self.spec.chain_id()))?;
        // Its own signature alone, or in the name of everybody.
        let alone = self.rng.chance(50);
        let signers = set.members().iter().map(|member| member.address());
        let signers = signers.filter(|address| !alone || *address == Key::address(&key));
        let signatures: Vec<_> = signers.map(|address| (address, Signature(own.0))).collect();
        let certificate = CommitCertificate::new(&set, height, 0, hash, signatures).ok()?;
        Some(FinalBlock { certificate: certificate.encode().into(), block })
    }
}
