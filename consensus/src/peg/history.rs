//! What happened to deposits, requests and batches: kept for those who ask, and read by no rule.
//!
//! A final block is never undone, so each record is written once or replaced by a later one.

use bitcoin::{Amount, OutPoint, Txid};
use causeway_chainspec::{BitcoinHeight, Height};

use super::batch::Batch;
use super::codec::{Reader, Write};
use super::state::Freeze;

/// Something that happened to the peg in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PegEvent {
    /// A deposit was credited.
    Credited {
        /// The deposit.
        outpoint: OutPoint,
        /// The credit.
        credit: Credit,
    },
    /// A batch was opened, or got a new version: it is the newest.
    BatchFixed {
        /// The batch after the block.
        batch: Box<Batch>,
    },
    /// A version of a batch is deep on Bitcoin: the batch is closed.
    BatchConfirmed {
        /// The batch as it was.
        batch: Box<Batch>,
        /// The version that confirmed.
        txid: Txid,
        /// The height of its block on Bitcoin.
        height: BitcoinHeight,
        /// Its place in that block.
        index: u32,
    },
    /// The peg froze.
    Frozen(Freeze),
}

/// The credit of a deposit. It stands in the peg transaction of its block, at index 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// The block.
    pub height: Height,
    /// The output of its peg transaction.
    pub vout: u32,
    /// What was deposited.
    pub amount: Amount,
    /// What the peg kept of it.
    pub fee: Amount,
    /// The height of the deposit's block on Bitcoin.
    pub bitcoin_height: BitcoinHeight,
    /// The deposit's place in that block.
    pub bitcoin_index: u32,
}

/// Deposits that were credited one after another, whole blocks of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreditPage {
    /// The deposits, in the order in which they were credited.
    pub credits: Vec<(OutPoint, Credit)>,
    /// Up to this block, none is missing.
    pub to: Height,
}

/// What is known of a batch, open or closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRecord {
    /// The batch with all its versions.
    pub batch: Batch,
    /// The version that confirmed, with its place on Bitcoin; `None` while the batch is open.
    pub confirmed: Option<Confirmed>,
}

/// Where a batch confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confirmed {
    /// The version.
    pub txid: Txid,
    /// The height of its block.
    pub height: BitcoinHeight,
    /// Its place in that block.
    pub index: u32,
    /// The Causeway block that closed the batch.
    pub closed: Height,
}

/// First bytes of the keys of history.
const CREDIT: u8 = 1;
const PAID_BY: u8 = 2;
const SWEPT_BY: u8 = 3;
const BATCH: u8 = 4;
const CREDITED_AT: u8 = 5;

/// A key and a value to be written.
pub type HistoryRecord = (Vec<u8>, Vec<u8>);

impl PegEvent {
    /// Returns what is written of it, in the block of this height.
    ///
    /// | key                     | value                                                                                  |
    /// |-------------------------|----------------------------------------------------------------------------------------|
    /// | `1`, deposit (36)       | height (u32) \|\| vout (u32) \|\| amount (u64) \|\| fee (u64) \|\| height on Bitcoin (u32) \|\| index there (u32) |
    /// | `2`, request (36)       | number of the batch that pays it, u32                                                  |
    /// | `3`, coin (36)          | number of the batch that spends it, u32                                                |
    /// | `4`, number (u32 BE)    | 0, or 1 \|\| txid (32) \|\| height (u32) \|\| index (u32) \|\| closed (u32); then the batch |
    /// | `5`, height (u32 BE), vout (u32 BE) | the deposit (36) that this output of the peg transaction credits          |
    pub fn records(&self, height: Height) -> Vec<HistoryRecord> {
        match self {
            Self::Credited { outpoint, credit } => {
                let mut value = Vec::new();
                value.put(&credit.height.0);
                value.put(&credit.vout);
                value.put(&credit.amount);
                value.put(&credit.fee);
                value.put(&credit.bitcoin_height.0);
                value.put(&credit.bitcoin_index);
                let mut deposit = Vec::new();
                deposit.put(outpoint);
                vec![(credit_key(outpoint), value), (credited_at_key(credit.height, credit.vout), deposit)]
            }
            Self::BatchFixed { batch } => {
                let number = batch.number.to_le_bytes().to_vec();
                let payees = batch.payees.iter().map(|payee| (paid_by_key(&payee.outpoint), number.clone()));
                let coins = batch.inputs.iter().map(|coin| (swept_by_key(&coin.outpoint), number.clone()));
                let record = BatchRecord { batch: (**batch).clone(), confirmed: None };
                // A new version has the payees and coins of the first.
                let first = batch.versions.len() == 1;
                let mut records = vec![(batch_key(batch.number), record.encode())];
                records.extend(payees.chain(coins).filter(|_| first));
                records
            }
            Self::BatchConfirmed { batch, txid, height: at, index } => {
                let confirmed = Some(Confirmed { txid: *txid, height: *at, index: *index, closed: height });
                let record = BatchRecord { batch: (**batch).clone(), confirmed };
                vec![(batch_key(batch.number), record.encode())]
            }
            Self::Frozen(_) => Vec::new(),
        }
    }
}

/// Key of the credit of a deposit.
pub fn credit_key(deposit: &OutPoint) -> Vec<u8> {
    outpoint_key(CREDIT, deposit)
}

/// Key of the deposit that an output of a peg transaction credits. Keys sort as the credits happened.
pub fn credited_at_key(height: Height, vout: u32) -> Vec<u8> {
    [&[CREDITED_AT], height.0.to_be_bytes().as_slice(), vout.to_be_bytes().as_slice()].concat()
}

/// Returns the block of a key that [`credited_at_key`] made; None for any other key.
pub fn decode_credited_at_key(key: &[u8]) -> Option<Height> {
    let (kind, rest) = key.split_first()?;
    let (height, rest) = rest.split_first_chunk::<4>()?;
    (*kind == CREDITED_AT && rest.len() == 4).then_some(Height(u32::from_be_bytes(*height)))
}

/// Returns the deposit that such a key's record holds.
pub fn decode_deposit(value: &[u8]) -> Option<OutPoint> {
    let mut reader = Reader::new(value);
    let (txid, vout) = (bitcoin::hashes::Hash::from_byte_array(reader.array()?), reader.u32()?);
    reader.is_empty().then_some(OutPoint { txid, vout })
}

/// Key of the batch that pays a request.
pub fn paid_by_key(request: &OutPoint) -> Vec<u8> {
    outpoint_key(PAID_BY, request)
}

/// Key of the batch that spends a coin of the peg.
pub fn swept_by_key(coin: &OutPoint) -> Vec<u8> {
    outpoint_key(SWEPT_BY, coin)
}

/// Key of a batch.
pub fn batch_key(number: u32) -> Vec<u8> {
    [&[BATCH], number.to_be_bytes().as_slice()].concat()
}

fn outpoint_key(kind: u8, outpoint: &OutPoint) -> Vec<u8> {
    let mut key = vec![kind];
    key.put(outpoint);
    key
}

impl Credit {
    /// Returns the credit that a record holds.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let (height, vout) = (Height(reader.u32()?), reader.u32()?);
        let (amount, fee) = (reader.amount()?, reader.amount()?);
        let (bitcoin_height, bitcoin_index) = (BitcoinHeight(reader.u32()?), reader.u32()?);
        reader.is_empty().then_some(Self { height, vout, amount, fee, bitcoin_height, bitcoin_index })
    }
}

/// Returns the number of a batch that a record holds.
pub fn decode_number(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.try_into().ok()?))
}

impl BatchRecord {
    fn encode(&self) -> Vec<u8> {
        let mut value = Vec::new();
        match &self.confirmed {
            None => value.push(0),
            Some(Confirmed { txid, height, index, closed }) => {
                value.push(1);
                value.put(txid);
                value.put(&height.0);
                value.put(index);
                value.put(&closed.0);
            }
        }
        value.extend(self.batch.encode());
        value
    }

    /// Returns the batch that a record holds.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value);
        let confirmed = match reader.u8()? {
            0 => None,
            1 => Some(Confirmed {
                txid: bitcoin::hashes::Hash::from_byte_array(reader.array()?),
                height: BitcoinHeight(reader.u32()?),
                index: reader.u32()?,
                closed: Height(reader.u32()?),
            }),
            _ => return None,
        };
        Some(Self { batch: Batch::decode(reader.rest())?, confirmed })
    }
}

#[cfg(test)]
mod tests;
