//! A store keeps the peg and its history, however it is flushed and whenever it is opened.

use causeway_consensus::ChainView;
use causeway_consensus::state::{CoinFlush, Store, StoreOptions};
use causeway_tests::replay::{connect, workers};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::for_seeds;
use crate::world::World;

#[test]
fn a_store_keeps_the_peg_and_what_happened_to_it() {
    for_seeds(3, 40, |seed| {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.act();
        }
        let spec = world.chain.spec.clone();
        let home = tempfile::TempDir::new().expect("a temporary directory");
        let open = || {
            let options = StoreOptions { coin_cache_bytes: 64 << 10, ..StoreOptions::default() };
            Store::open(home.path(), &spec, options, &workers()).expect("opens")
        };
        let mut rng = StdRng::seed_from_u64(seed);
        let mut store = open();
        for bytes in &world.blocks {
            let connected = connect(&store, &spec, &workers(), bytes.clone());
            let flush = if rng.random_bool(0.1) { CoinFlush::WithBlock } else { CoinFlush::Later };
            store.commit(&connected, b"", flush).expect("commits");
            if rng.random_bool(0.05) {
                store.flush_coins().expect("flushes");
            }
            if rng.random_bool(0.05) {
                drop(store);
                store = open();
                assert_eq!(store.tip().hash(), connected.tip().hash());
                assert_eq!(store.tip().peg(), connected.tip().peg());
            }
        }
        assert_eq!(store.tip().state_commitment(), world.chain.tip().state_commitment());
        assert_eq!(store.tip().peg().accounts(), world.peg().accounts());

        for deposit in &world.credited {
            let credit = store.peg_in(deposit).expect("readable").expect("it was credited");
            assert_eq!(credit.amount, world.deposited(deposit));
        }
        for (request, number) in &world.paid_by {
            assert_eq!(store.batch_of_request(request).expect("readable"), Some(*number));
        }
        for (number, batch) in &world.batches {
            let record = store.batch(*number).expect("readable").expect("it was opened");
            assert_eq!(record.batch, *batch);
            assert_eq!(record.confirmed.map(|confirmed| confirmed.txid), world.closed.get(number).copied());
            for coin in &batch.inputs {
                assert_eq!(store.batch_of_coin(&coin.outpoint).expect("readable"), Some(*number));
            }
        }
        assert_eq!(store.batch(world.peg().batches() + 1).expect("readable"), None);
    });
}
