use std::num::NonZeroUsize;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid};
use causeway_chainspec::{BitcoinHeight, ChainSpec};

use super::*;
use crate::peg::history::{Credit, PegEvent};
use crate::state::{Index, StoreOptions};
use crate::workers::Workers;

/// A directory that is removed when this goes.
struct Home(std::path::PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store that holds credits at these heights, and other records around them.
fn store(name: &str, heights: &[(u32, u32)]) -> (Store, Home) {
    let home = Home(std::env::temp_dir().join(format!("causeway-credits-{name}-{}", std::process::id())));
    let _ = std::fs::remove_dir_all(&home.0);
    let spec = ChainSpec::built_in("devnet").unwrap();
    let options = StoreOptions {
        coin_cache_bytes: 1 << 20,
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 1 << 20,
        index: Index::None,
        index_batch_transactions: 1,
    };
    let store = Store::open(&home.0, &spec, options, &Workers::new(NonZeroUsize::MIN)).unwrap();
    let family = store.family(schema::PEG_HISTORY);
    for (key, value) in heights.iter().flat_map(|(height, vout)| credited(*height, *vout).records(Height(*height))) {
        store.db.put_cf(family, key, value).unwrap();
    }
    store.db.put_cf(family, history::batch_key(1), [0; 4]).unwrap();
    (store, home)
}

fn deposit(height: u32, vout: u32) -> OutPoint {
    let mut txid = [9; 32];
    // Outpoints that do not sort as the credits do.
    txid[..4].copy_from_slice(&(1_000_000 - height * 10 - vout).to_le_bytes());
    OutPoint { txid: Txid::from_byte_array(txid), vout: 1 }
}

fn credited(height: u32, vout: u32) -> PegEvent {
    let (amount, fee) = (Amount::from_sat(70_000), Amount::from_sat(1_000));
    let credit =
        Credit { height: Height(height), vout, amount, fee, bitcoin_height: BitcoinHeight(height), bitcoin_index: 1 };
    PegEvent::Credited { outpoint: deposit(height, vout), credit }
}

fn page(store: &Store, after: u32, last: u32, enough: usize) -> (Vec<OutPoint>, u32) {
    let page = store.credits(Height(after), Height(last), enough).unwrap();
    (page.credits.into_iter().map(|(deposit, _)| deposit).collect(), page.to.to_u32())
}

#[test]
fn credits_come_in_their_order_in_pages_of_whole_blocks() {
    let (store, _home) = store("pages", &[(110, 1), (120, 1), (120, 2), (120, 3), (300, 1), (300, 2)]);
    let at = |height, vouts: &[u32]| vouts.iter().map(|vout| deposit(height, *vout)).collect::<Vec<_>>();
    let all = [at(110, &[1]), at(120, &[1, 2, 3]), at(300, &[1, 2])].concat();
    assert_eq!(page(&store, 0, 400, 100), (all.clone(), 400));
    // A block is never cut, and what a page leaves out is above its end.
    assert_eq!(page(&store, 0, 400, 2), (all[..4].to_vec(), 120));
    assert_eq!(page(&store, 120, 400, 2), (all[4..].to_vec(), 400));
    assert_eq!(page(&store, 0, 400, 1), (all[..1].to_vec(), 110));
    // Nothing above the block that is asked for, though it is there.
    assert_eq!(page(&store, 0, 299, 100), (all[..4].to_vec(), 299));
    assert_eq!(page(&store, 109, 110, 100), (all[..1].to_vec(), 110));
    for after in [300, 400, u32::MAX] {
        assert_eq!(page(&store, after, 400, 100), (vec![], 400));
    }
}

#[test]
fn a_credit_that_is_missing_is_damage() {
    let (store, _home) = store("damage", &[(110, 1)]);
    store.db.delete_cf(store.family(schema::PEG_HISTORY), history::credit_key(&deposit(110, 1))).unwrap();
    let error = store.credits(Height(0), Height(200), 10).unwrap_err();
    assert!(matches!(error, StateFault::Damaged { record: RECORD }), "{error}");
}
