//! Reading the coins of a block into memory before it is judged.
//!
//! Only of blocks that are judged soon: those whose proposal the engine accepted, and those of a peer that was asked for
//! them. Anybody can send other bodies, and would have thousands of cold coins read with each.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bitcoin::OutPoint;
use bitcoin::consensus::deserialize;
use bytes::Bytes;
use causeway_consensus::ChainView;
use causeway_consensus::state::Store;

/// Most coins that are read for one block. No valid block spends more: an input weighs at least 164 of 4,000,000.
const COINS_MAX: usize = 24_390;

/// The thread that reads ahead: one block, and one that waits.
pub(super) struct Prefetcher(SyncSender<Bytes>);

impl Prefetcher {
    /// Starts the thread, which ends when this is dropped.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(store: Arc<Store>) -> io::Result<Self> {
        // Whoever judges the block finds what is wrong with the store, and stops the node.
        Self::with(move |coins| drop(store.coins(&coins)))
    }

    fn with(read: impl Fn(Vec<OutPoint>) + Send + 'static) -> io::Result<Self> {
        let (blocks, taken): (_, Receiver<Bytes>) = sync_channel(1);
        let work = move || taken.iter().map(|block| spent_by(&block)).for_each(read);
        std::thread::Builder::new().name("prefetch".into()).spawn(work)?;
        Ok(Self(blocks))
    }

    /// Has the coins of a block read, unless another one waits already. Never waits itself.
    pub(super) fn prefetch(&self, block: &Bytes) {
        // Without it the block is judged all the same, a little later.
        let _ = self.0.try_send(block.clone());
    }
}

/// What a block spends, as far as it can be read. Coins that it creates itself are among them: there are none on disk, which
/// the filters of its tables know.
fn spent_by(block: &[u8]) -> Vec<OutPoint> {
    let Ok(block) = deserialize::<bitcoin::Block>(block) else { return Vec::new() };
    let inputs = block.txdata.iter().skip(1).flat_map(|transaction| &transaction.input);
    inputs.map(|input| input.previous_output).take(COINS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    use bitcoin::consensus::serialize;
    use bitcoin::{Transaction, TxIn};
    use causeway_chainspec::{ChainSpec, Height};

    /// A derived block with a transaction of so many inputs more.
    fn block(inputs: u32) -> Bytes {
        let mut block = ChainSpec::built_in("devnet").unwrap().derived_block(Height(1)).unwrap();
        let input = |vout| TxIn { previous_output: OutPoint { vout, ..OutPoint::null() }, ..TxIn::default() };
        block.txdata.push(Transaction { input: (0..inputs).map(input).collect(), ..block.txdata[0].clone() });
        serialize(&block).into()
    }

    #[test]
    fn while_a_disk_is_slow_nobody_waits_for_it_and_nothing_piles_up() {
        let ((go, wait), (says, reads)) = (channel::<()>(), channel());
        let prefetcher = Prefetcher::with(move |coins| {
            says.send(coins.len()).unwrap();
            // Until the test lets go of it.
            let _ = wait.recv();
        })
        .unwrap();
        prefetcher.prefetch(&block(5));
        assert_eq!(reads.recv(), Ok(5));
        for inputs in 6..100 {
            prefetcher.prefetch(&block(inputs));
        }
        drop(go);
        drop(prefetcher);
        assert_eq!(reads.iter().collect::<Vec<_>>(), [6], "one waits, the others are judged without");
    }

    #[test]
    fn what_is_read_for_one_block_is_bounded() {
        assert_eq!(spent_by(&block(30_000)).len(), COINS_MAX);
        assert_eq!(spent_by(&block(3)), (0..3).map(|vout| OutPoint { vout, ..OutPoint::null() }).collect::<Vec<_>>());
        assert!(spent_by(&block(3)[..200]).is_empty());
    }
}
