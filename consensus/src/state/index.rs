//! What is kept for those who ask and never for validation: where each transaction stands, what every script received and
//! spent, and who spent each output. All of it follows from the blocks.

mod build;
mod entries;
mod statistics;
mod view;

use std::sync::atomic::AtomicBool;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, Script};
use causeway_chainspec::Height;
use rocksdb::WriteBatch;

use super::store::Store;
use super::{damage, schema};
use crate::block::Block;
use crate::connect::ConnectedBlock;
use crate::error::StateFault;

pub(super) use build::{IndexFault, catch_up, catch_up_soon, drop_index};
pub use statistics::{Flow, Statistics};
pub(super) use statistics::{Parts, merge};
pub use view::{IndexView, SpendPlace, Unspent};

use entries::{Entry, SpentOutputs, Touch, entries};

/// Whether the indexes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// All of them: about 300 bytes for a payment of two coins to two others, nearly what it takes in its block. Where
    /// something of them is missing or damaged, opening drops them and reads every block.
    All,
    /// None. Opening drops what there is.
    None,
}

/// What there is of the indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// Everything, up to the tip.
    Whole,
    /// Nothing: they are not kept.
    Off,
    /// Not up to the tip: [`Store::build_index`] brings them there.
    Building,
    /// Nothing that can be read: they are built again when the store is opened next. All else goes on.
    Damaged,
}

/// Bytes of a [`ScriptId`].
pub(super) const SCRIPT_ID_BYTES: usize = 16;

/// The first 16 bytes of the SHA-256 of an output's script: a script's name in the index.
///
/// To find a second script with the name of a given one takes 2^128 tries, so nobody can add to the history of another's
/// script. Whoever makes two scripts of his own with one name, with 2^64 tries, sees both of them in the answers to either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScriptId([u8; SCRIPT_ID_BYTES]);

impl ScriptId {
    /// Returns the name of a script.
    pub fn of(script: &Script) -> Self {
        Self::of_hash(sha256::Hash::hash(script.as_bytes()).as_byte_array())
    }

    /// Returns the name of the script with this SHA-256.
    pub fn of_hash(hash: &[u8; 32]) -> Self {
        let mut id = [0; SCRIPT_ID_BYTES];
        id.copy_from_slice(&hash[..SCRIPT_ID_BYTES]);
        Self(id)
    }

    pub(super) fn of_bytes(bytes: [u8; SCRIPT_ID_BYTES]) -> Self {
        Self(bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8; SCRIPT_ID_BYTES] {
        &self.0
    }
}

/// Where a transaction stands in the chain. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxPlace {
    /// The block's height.
    pub height: Height,
    /// The place in the block; the coinbase is at 0.
    pub index: u32,
}

/// How far the indexes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Indexed {
    /// The height up to which everything is in them. None before block 0.
    height: Option<Height>,
    /// How many transactions are in them.
    count: u64,
}

impl Indexed {
    const NONE: Self = Self { height: None, count: 0 };

    /// The height that comes next; None after the last one.
    fn next(self) -> Option<Height> {
        self.height.map_or(Some(Height(0)), Height::next)
    }
}

/// An output that an input spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SpentOutput {
    pub(super) id: ScriptId,
    pub(super) value: Amount,
}

impl Store {
    /// Puts all that the index holds of a block into a batch but for the sums of its scripts, which are handed to `sum`, and
    /// returns how far the index goes with it. `spent` are the outputs that the inputs after the coinbase's spend, in block
    /// order.
    fn put_index(
        &self,
        batch: &mut WriteBatch,
        before: Indexed,
        height: Height,
        block: &Block,
        spent: &[SpentOutput],
        sum: impl FnMut(&mut WriteBatch, ScriptId, Statistics) -> Result<(), StateFault>,
    ) -> Result<Indexed, StateFault> {
        let transactions = self.family(schema::TRANSACTIONS);
        let mut count = before.count;
        for (index, tx) in (0u32..).zip(block.transactions()) {
            let place = TxPlace { height, index };
            batch.put_cf(transactions, tx.txid().to_byte_array(), schema::encode_place(place));
            count += 1;
        }
        self.put_scripts(batch, height, block, spent, sum)?;
        self.put_spends(batch, height, block);
        for family in [schema::TRANSACTIONS, schema::SCRIPTS, schema::SPENDS] {
            batch.put_cf(self.family(family), schema::block_key(height), []);
        }
        Ok(Indexed { height: Some(height), count })
    }

    /// Puts all that the index holds of a connected block into an empty batch, the only one since the last that was written,
    /// and returns how far the index goes with it. None, and nothing in the batch, if there is no index, or none any more:
    /// a block is committed whatever the index says.
    pub(super) fn put_index_if_whole(
        &self,
        batch: &mut WriteBatch,
        connected: &ConnectedBlock,
        parts: &mut Parts,
    ) -> Option<Indexed> {
        let before = self.read_state().indexed?;
        match self.put_connected(batch, before, connected, parts) {
            Ok(indexed) => Some(indexed),
            Err(fault) => {
                batch.clear();
                self.give_up_index(&fault);
                None
            }
        }
    }

    /// Builds the indexes where opening has left them to be built ([`build_index_later`](super::StoreOptions::build_index_later)), while blocks are
    /// committed; returns what there is of them when they are whole, cannot be built now, or `stop` says so.
    ///
    /// # Errors
    /// If nothing can be written.
    pub fn build_index(&self, stop: &AtomicBool) -> Result<IndexState, StateFault> {
        if self.index_state() != IndexState::Building {
            return Ok(self.index_state());
        }
        match build::catch_up(self, Some(stop)) {
            Ok(()) => {}
            Err(IndexFault::Write(fault)) => return Err(fault),
            // It is noted, and comes back.
            Err(IndexFault::Block(fault)) => log_fault(&fault, "the indexes wait for a block that is missing"),
            Err(IndexFault::Damaged(fault)) => {
                log_fault(&fault, "the indexes are damaged: they are built again when the node is started next");
                damage::note(&self.path, &fault);
                self.write_state().no_index = IndexState::Damaged;
            }
        }
        Ok(self.index_state())
    }

    /// Counts all that the indexes hold, reading all of it, and gives them up if it is not what they say.
    ///
    /// # Errors
    /// If the store cannot be read. That what is read is damaged is no error.
    pub fn check_index(&self) -> Result<IndexState, StateFault> {
        let Some(indexed) = self.read_state().indexed else { return Ok(self.index_state()) };
        match build::recount(self, indexed) {
            Ok(true) => {}
            Ok(false) => self.give_up_index(&damaged("number of records in the indexes")),
            Err(fault @ (StateFault::Damaged { .. } | StateFault::DamagedDatabase(_))) => self.give_up_index(&fault),
            Err(fault) => return Err(fault),
        }
        Ok(self.index_state())
    }

    /// Neither reads nor writes the indexes any more, and sees to it that they are built again when the store is opened next.
    fn give_up_index(&self, fault: &StateFault) {
        let mut state = self.write_state();
        if state.indexed.take().is_some() {
            state.no_index = IndexState::Damaged;
            drop(state);
            log_fault(
                fault,
                "the indexes are damaged: all but wallets' requests goes on without them; they are built again from the \
                 blocks when the node is started next",
            );
            damage::note(&self.path, fault);
        }
    }

    fn put_connected(
        &self,
        batch: &mut WriteBatch,
        before: Indexed,
        connected: &ConnectedBlock,
        parts: &mut Parts,
    ) -> Result<Indexed, StateFault> {
        let (height, block) = (connected.tip().height(), connected.block());
        let spent = SpentOutputs::of(connected);
        let indexed = self.put_index(batch, before, height, block, &spent.0, |batch, id, sums| {
            if !parts.add(&id) {
                self.put_part(batch, &id, sums);
                return Ok(());
            }
            let before = self.db.get_cf(self.family(schema::SCRIPTS), schema::statistics_key(&id))?;
            let before = before.map_or(Some(Statistics::default()), |before| Statistics::decode(&before));
            let all = before.and_then(|before| before.checked_add(sums));
            let all = all.ok_or(damaged("statistics of a script"))?;
            batch.put_cf(self.family(schema::SCRIPTS), schema::statistics_key(&id), all.encode());
            Ok(())
        })?;
        self.put_indexed(batch, indexed);
        Ok(indexed)
    }

    /// Puts what is to be added to a script's sums into a batch.
    fn put_part(&self, batch: &mut WriteBatch, id: &ScriptId, sums: Statistics) {
        batch.merge_cf(self.family(schema::SCRIPTS), schema::statistics_key(id), sums.encode());
    }

    /// In the order of their keys, which the database takes in faster than any other.
    fn put_scripts(
        &self,
        batch: &mut WriteBatch,
        height: Height,
        block: &Block,
        spent: &[SpentOutput],
        mut sum: impl FnMut(&mut WriteBatch, ScriptId, Statistics) -> Result<(), StateFault>,
    ) -> Result<(), StateFault> {
        let family = self.family(schema::SCRIPTS);
        let mut touches = entries(height, block, spent);
        touches.sort_unstable_by_key(Touch::order);
        for of_script in touches.chunk_by(|one, next| one.id == next.id) {
            let id = of_script[0].id;
            let mut statistics = Statistics::default();
            // Newest first, as the keys.
            let by_transaction = || of_script.chunk_by(|one, next| one.index == next.index);
            for of_transaction in by_transaction() {
                statistics.transactions += 1;
                of_transaction.iter().for_each(|touch| statistics.count(touch.entry, touch.value));
            }
            sum(batch, id, statistics)?;
            for of_transaction in by_transaction() {
                let place = TxPlace { height, index: of_transaction[0].index };
                batch.put_cf(family, schema::history_key(&id, place), []);
            }
            // One that this block creates and spends is in neither.
            for touch in of_script {
                match touch.entry {
                    Entry::Created { outpoint, spent: false } => {
                        let value = schema::encode_unspent(height, touch.value);
                        batch.put_cf(family, schema::unspent_key(&id, &outpoint), value);
                    }
                    Entry::Spent { outpoint, created: false } => {
                        batch.delete_cf(family, schema::unspent_key(&id, &outpoint));
                    }
                    Entry::Created { .. } | Entry::Spent { .. } => {}
                }
            }
        }
        Ok(())
    }

    fn put_spends(&self, batch: &mut WriteBatch, height: Height, block: &Block) {
        let family = self.family(schema::SPENDS);
        let transactions = (0u32..).zip(block.transactions()).skip(1);
        let mut keys: Vec<_> = transactions
            .flat_map(|(index, tx)| {
                let place = TxPlace { height, index };
                let inputs = (0u32..).zip(&tx.transaction().input);
                inputs.map(move |(vin, input)| schema::spend_key(&input.previous_output, SpendPlace { place, vin }))
            })
            .collect();
        keys.sort_unstable();
        for key in keys {
            batch.put_cf(family, key, []);
        }
    }

    /// Puts into a batch how far the index goes.
    fn put_indexed(&self, batch: &mut WriteBatch, indexed: Indexed) {
        if let Some(height) = indexed.height {
            let value = schema::encode_indexed(height, indexed.count);
            batch.put_cf(self.family(schema::TRANSACTIONS), schema::TRANSACTIONS_INDEXED, value);
        }
    }
}

/// Logs a fault with everything that led to it.
pub(super) fn log_fault(fault: &StateFault, what: &str) {
    let error = fault as &dyn std::error::Error;
    tracing::error!(error, "{what}");
}

/// Whether an output of a block at this height is in the histories: those that are coins are. Block 0's coinbase is none,
/// as on Bitcoin.
fn is_indexed(height: Height, script: &Script) -> bool {
    height > Height(0) && !crate::coin::is_unspendable(script)
}

fn damaged(record: &'static str) -> StateFault {
    StateFault::Damaged { record }
}
