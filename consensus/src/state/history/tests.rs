use std::num::NonZeroUsize;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid};
use causeway_chainspec::{BitcoinHeight, ChainSpec};

use super::*;
use crate::peg::history::PegEvent;
use crate::resolve::ChainView;
use crate::state::{Index, StoreOptions};
use crate::tip::Tip;
use crate::workers::Workers;

/// A directory that is removed when this goes.
struct Home(std::path::PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A store that holds credits at these heights, up to its tip or not, and other records around them.
fn store(name: &str, heights: &[(u32, u32)]) -> (Store, Home) {
    let home = Home(std::env::temp_dir().join(format!("causeway-credits-{name}-{}", std::process::id())));
    let _ = std::fs::remove_dir_all(&home.0);
    let spec = ChainSpec::built_in("devnet").unwrap();
    let options = StoreOptions {
        coin_cache_bytes: 1 << 20,
        block_cache_bytes: 1 << 20,
        write_buffer_bytes: 1 << 20,
        index: Index::None,
        ..StoreOptions::default()
    };
    let store = Store::open(&home.0, &spec, options, &Workers::new(NonZeroUsize::MIN)).unwrap();
    let family = store.family(schema::PEG_HISTORY);
    for (key, value) in heights.iter().flat_map(|(height, vout)| credited(*height, *vout).records(Height(*height))) {
        store.db.put_cf(family, key, value).unwrap();
    }
    store.db.put_cf(family, history::batch_key(1), [0; 4]).unwrap();
    set_tip(&store, &spec, Height(400));
    (store, home)
}

/// As if so many blocks were committed.
fn set_tip(store: &Store, spec: &ChainSpec, height: Height) {
    let tip = store.tip();
    let restored = Tip::restored(spec, height, tip.hash(), vec![tip.time()], tip.coins().clone(), tip.peg().clone());
    store.write_state().tip = Arc::new(restored);
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

/// The disk is a block ahead between a write and the moment at which its block is the tip.
#[test]
fn what_a_block_adds_to_the_history_is_not_there_before_it_is_the_tip() {
    let (store, _home) = store("ahead", &[(110, 1)]);
    let spec = ChainSpec::built_in("devnet").unwrap();
    set_tip(&store, &spec, Height(119));
    let event = credited(120, 1);
    let family = store.family(schema::PEG_HISTORY);
    let records = event.records(Height(120));
    let batch_of = |number: u32| (history::swept_by_key(&deposit(110, 1)), number.to_le_bytes().to_vec());
    store.db.put_cf(family, batch_of(1).0, batch_of(1).1).unwrap();
    let records = records.into_iter().chain([batch_of(2)]);
    let records: Vec<_> = records.collect();

    // What a commit notes before it writes.
    let before = records.iter().map(|(key, _)| (key.clone(), store.db.get_cf(family, key).unwrap()));
    let before = before.collect();
    store.write_state().history = before;
    records.iter().for_each(|(key, value)| store.db.put_cf(family, key, value).unwrap());
    assert_eq!(store.peg_in(&deposit(120, 1)).unwrap(), None);
    assert_eq!(store.batch_of_coin(&deposit(110, 1)).unwrap(), Some(1));
    assert_eq!(page(&store, 0, 400, 100), (vec![deposit(110, 1)], 119));

    store.write_state().history.clear();
    set_tip(&store, &spec, Height(120));
    assert_eq!(store.peg_in(&deposit(120, 1)).unwrap().map(|credit| credit.height), Some(Height(120)));
    assert_eq!(store.batch_of_coin(&deposit(110, 1)).unwrap(), Some(2));
    assert_eq!(page(&store, 0, 400, 100), (vec![deposit(110, 1), deposit(120, 1)], 120));
}
