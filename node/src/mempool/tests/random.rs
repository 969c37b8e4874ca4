//! Random histories: whatever happens, the pool agrees with itself and all of it can be mined.

use bitcoin::consensus::serialize;
use bitcoin::{OutPoint, Transaction, Txid};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::assemble::{Selection, select};
use crate::mempool::snapshot::SNAPSHOT_OVERHEAD_BYTES;
use crate::mempool::{Departure, Limits, Mempool, Policy};
use crate::testing::{Bench, COIN, free_output, pay, pay_padded};

/// Something that happens to a pool.
#[derive(Debug, Clone)]
enum Event {
    /// A payment of confirmed and unconfirmed outputs, which may be spent already, with a fee and padding.
    Pay { spends: Vec<Index>, outputs: u8, fee: u16, padding: u16, truc: bool },
    /// A payment is sent again.
    Again { which: Index },
    /// The block that the pool gives.
    Mine,
    /// A block with a payment that the pool may never have seen.
    Foreign { spends: Index },
    /// Time passes, in seconds.
    Wait { seconds: u32 },
}

/// The transactions of the pool, in order.
fn txids(pool: &Mempool) -> Vec<Txid> {
    let mut txids: Vec<Txid> = pool.entries().map(|entry| entry.txid()).collect();
    txids.sort_unstable();
    txids
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (vec(any::<Index>(), 1..4), 1u8..5, 0u16..6_000, prop_oneof![3 => Just(0u16), 1 => 1u16..2_000], prop::bool::weighted(0.1))
            .prop_map(|(spends, outputs, fee, padding, truc)| Event::Pay { spends, outputs, fee, padding, truc }),
        1 => any::<Index>().prop_map(|which| Event::Again { which }),
        1 => Just(Event::Mine),
        1 => any::<Index>().prop_map(|spends| Event::Foreign { spends }),
        1 => (0u32..400_000).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

/// A small world, so that events meet: tight limits, few coins, little memory.
struct World {
    bench: Bench,
    /// Outputs that were ever there, with their values.
    outputs: Vec<(OutPoint, u64)>,
    sent: Vec<Transaction>,
}

impl World {
    fn new() -> Self {
        let limits = Limits { ancestors: 5, ancestors_vsize: 3_000, descendants: 6, descendants_vsize: 3_500 };
        let policy = Policy { limits, max_memory_bytes: 30_000, ..Policy::default() };
        let mut bench = Bench::with(policy);
        let outputs = (0..12).map(|_| (bench.coin(), COIN)).collect();
        Self { bench, outputs, sent: vec![] }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Pay { spends, outputs, fee, padding, truc } => {
                let mut spends: Vec<_> = spends.iter().map(|index| *index.get(&self.outputs)).collect();
                spends.sort_unstable();
                spends.dedup();
                let worth: u64 = spends.iter().map(|(_, worth)| worth).sum();
                let each = worth.saturating_sub(u64::from(*fee)) / u64::from(*outputs);
                let inputs: Vec<_> = spends.iter().map(|(outpoint, _)| *outpoint).collect();
                let values = vec![each; usize::from(*outputs)];
                let mut transaction = match padding {
                    0 => pay(&inputs, &values),
                    padding => pay_padded(&inputs, &values, usize::from(*padding)),
                };
                if *truc {
                    transaction.version = bitcoin::transaction::Version(3);
                }
                self.send(transaction);
            }
            Event::Again { which } if !self.sent.is_empty() => {
                let transaction = which.get(&self.sent).clone();
                self.send(transaction);
            }
            Event::Again { .. } => {}
            Event::Mine => {
                self.bench.mine();
            }
            Event::Foreign { spends } => {
                let (outpoint, worth) = *spends.get(&self.outputs);
                if self.bench.chain.coins.contains_key(&outpoint) {
                    let foreign = pay(&[outpoint], &[worth]);
                    self.outputs.push((OutPoint { txid: foreign.compute_txid(), vout: 0 }, worth));
                    self.bench.commit_transactions(vec![foreign], 0);
                }
            }
            Event::Wait { seconds } => {
                self.bench.now_s += u64::from(*seconds);
                let now_s = self.bench.now_s;
                self.bench.pool.expire(now_s);
            }
        }
    }

    fn send(&mut self, transaction: Transaction) {
        let txid = transaction.compute_txid();
        let before = txids(&self.bench.pool);
        match self.bench.submit(&transaction) {
            Ok(departed) => {
                // Who enters and who leaves is said exactly.
                let gone: Vec<Txid> = departed.iter().map(|departed| departed.txid).collect();
                let mut after: Vec<Txid> = before.iter().copied().filter(|txid| !gone.contains(txid)).collect();
                after.push(txid);
                after.sort_unstable();
                assert_eq!(txids(&self.bench.pool), after);
                assert!(gone.iter().all(|txid| before.contains(txid)));
                assert!(departed.iter().all(|departed| departed.why != Departure::Confirmed));
            }
            Err(reject) => assert_ne!(reject.reason(), "bad-txns"),
        }
        for (vout, output) in
            (0..).zip(&transaction.output).filter(|(_, output)| *output == &free_output(output.value.to_sat()))
        {
            self.outputs.push((OutPoint { txid, vout }, output.value.to_sat()));
        }
        self.sent.push(transaction);
    }

    fn check(&self) {
        let pool = &self.bench.pool;
        pool.graph.assert_consistent();
        let Policy { limits, max_memory_bytes, .. } = pool.policy();
        assert!(pool.memory() <= *max_memory_bytes);
        assert!(crate::mempool::snapshot::encode(pool).len() <= pool.memory() + SNAPSHOT_OVERHEAD_BYTES);
        for entry in pool.entries() {
            let (ancestors, descendants) = (entry.ancestors(), entry.descendants());
            assert!(ancestors.count <= limits.ancestors && ancestors.vsize <= limits.ancestors_vsize);
            assert!(descendants.count <= limits.descendants && descendants.vsize <= limits.descendants_vsize);
            for parent in entry.parents() {
                let parent = pool.get(parent).expect("there");
                let versions = [entry, parent].map(|entry| entry.transaction().version.0 == 3);
                assert_eq!(versions[0], versions[1], "TRUC and others do not mix");
                assert!(!versions[0] || (ancestors.count == 2 && parent.descendants().count == 2));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_pool_agrees_with_itself_and_all_of_it_can_be_mined(events in vec(event(), 1..120)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
            world.check();
        }
        // Everything fits into one block here, and the whole pipeline takes it.
        let selection = select(&world.bench.pool, &world.bench.room());
        prop_assert_eq!(selection.transactions.len(), world.bench.pool.len());
        prop_assert_eq!(selection.fees, world.bench.pool.fees());
        world.bench.commit(selection);
        prop_assert!(world.bench.pool.is_empty());
        world.check();
    }

    #[test]
    fn the_same_history_gives_the_same_block(events in vec(event(), 1..60)) {
        let run = || {
            let mut world = World::new();
            events.iter().for_each(|event| world.happen(event));
            let Selection { transactions, .. } = select(&world.bench.pool, &world.bench.room());
            let bytes = transactions.iter().flat_map(serialize).collect::<Vec<u8>>();
            (bytes, crate::mempool::snapshot::encode(&world.bench.pool))
        };
        prop_assert_eq!(run(), run());
    }
}
