//! What an honest host may send on of others: what is signed, and bodies that are proposed and whole.

use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use bytes::Bytes;
use causeway_chainspec::Height;
use causeway_consensus::bft::{Message, SignedTipStatement};
use causeway_consensus::{check_block, parse_block};
use causeway_node::wire::{Topic, decode_consensus};

use super::Watch;
use crate::sim::byzantine::pushed;
use crate::sim::check::Check;

impl Watch {
    /// A node has something of another sent on.
    pub(in crate::sim) fn relayed(
        &mut self,
        now: Duration,
        (index, from): (usize, usize),
        tip: Height,
        topic: Topic,
        bytes: &Bytes,
    ) {
        match topic {
            Topic::Consensus => {
                let Ok(content) = decode_consensus(bytes) else { return };
                if Message::decode(content).is_ok_and(|message| message.signer().is_none()) {
                    self.relayed_certificate(now, index, from, tip);
                }
                let Some(set) = tip.next().map(|height| self.set(height)) else { return };
                let chain = self.chain;
                let key = [&tip.to_u32().to_le_bytes()[..], content].concat();
                let is_signed = || match SignedTipStatement::decode(content) {
                    Ok(told) => {
                        let (digest, member) = (told.statement.digest(chain), set.get(&told.validator));
                        member.is_some_and(|member| told.signature.verifies(&digest, member.key()))
                    }
                    Err(_) => Message::decode(content).is_ok_and(|message| message.is_signed(chain, &set)),
                };
                let signed = *self.signatures.entry(key).or_insert_with(is_signed);
                if !signed {
                    self.fail(
                        now,
                        Check::RelayAfterCheck,
                        format!("host {index} sends on a message without signatures"),
                    );
                }
            }
            Topic::Bodies => {
                let Some((height, block)) = pushed(bytes) else {
                    let what = format!("host {index} sends on what another says that it has");
                    return self.fail(now, Check::RelayAfterCheck, what);
                };
                let hash = block.get(..Header::SIZE).map(BlockHash::hash);
                // An empty block of its own may be the same as one that came: it is about to propose it.
                let is_its_own = |hash: &BlockHash| self.valid.get(&index).is_some_and(|valid| valid.contains(hash));
                let is_proposed =
                    hash.is_some_and(|hash| self.proposed.contains_key(&(height, hash)) || is_its_own(&hash));
                let is_whole =
                    || parse_block(block.to_vec()).and_then(|block| check_block(block, &self.params)).is_ok();
                if !is_proposed || !is_whole() {
                    let what = format!("host {index} sends on a body that nobody has proposed, or that is altered");
                    self.fail(now, Check::RelayAfterCheck, what);
                }
            }
            Topic::Transactions | Topic::Claims => {}
        }
    }

    /// Certificates that everybody can put together are not sent on in any number.
    fn relayed_certificate(&mut self, now: Duration, index: usize, from: usize, tip: Height) {
        let since = now.saturating_sub(self.since.get(&index).copied().unwrap_or_default());
        let max = 128 + 16 * usize::try_from(since.as_secs()).unwrap_or(usize::MAX);
        let count = self.certificates.entry((tip, index, from)).or_insert(0);
        *count += 1;
        if *count > max {
            let what = format!("host {index} sends on {count} certificates of host {from} in a height, at most {max}");
            self.fail(now, Check::BoundedQueues, what);
        }
    }
}
