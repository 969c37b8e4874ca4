//! What the peg holds on Bitcoin, and whom it owes: coins and requests.

use bitcoin::{Amount, OutPoint, ScriptBuf, Weight};
use causeway_chainspec::{BitcoinHeight, Epoch, Height, PegOutDestination};

use super::codec::{Reader, Write};
use super::script::DepositTerms;

/// Where an output stands on Bitcoin's best chain. Its order is the age of the peg's coins, oldest first (PEG section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoinPlace {
    /// Height of its block.
    pub height: BitcoinHeight,
    /// The transaction's place in the block; the coinbase is at 0.
    pub index: u32,
    /// The output's place in the transaction.
    pub vout: u32,
}

/// A coin of the peg: an unspent output of the federation on Bitcoin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PegCoin {
    /// Where it stands.
    pub place: CoinPlace,
    /// Which output it is.
    pub outpoint: OutPoint,
    /// What it is worth.
    pub value: Amount,
    /// What spends it.
    pub kind: CoinKind,
}

/// Which script a coin of the peg has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoinKind {
    /// The main output of an epoch.
    Main {
        /// The epoch.
        epoch: u32,
    },
    /// A deposit, to the epoch of its terms.
    Deposit(DepositTerms),
}

impl PegCoin {
    /// The epoch whose members can spend it.
    pub fn epoch(&self) -> u32 {
        match &self.kind {
            CoinKind::Main { epoch } => *epoch,
            CoinKind::Deposit(terms) => terms.epoch,
        }
    }

    /// What spending it weighs at most; `epoch` is its own.
    pub fn worst_input_weight(&self, epoch: &Epoch) -> Weight {
        match self.kind {
            CoinKind::Main { .. } => epoch.worst_main_input_weight(),
            CoinKind::Deposit(_) => epoch.worst_deposit_input_weight(),
        }
    }

    /// Height (u32) || index (u32) || vout (u32) || txid (32) || value (u64) || epoch (u32) || 0 for a main output, or 1 ||
    /// destination (with its length) || refund key (32).
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.place.height.0);
        out.put(&self.place.index);
        out.put(&self.place.vout);
        out.put(&self.outpoint.txid);
        out.put(&self.value);
        out.put(&self.epoch());
        match &self.kind {
            CoinKind::Main { .. } => out.push(0),
            CoinKind::Deposit(terms) => {
                out.push(1);
                out.put_bytes(terms.destination.as_bytes());
                out.extend_from_slice(&terms.refund_key.serialize());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let height = BitcoinHeight(reader.u32()?);
        let (index, vout) = (reader.u32()?, reader.u32()?);
        let txid = bitcoin::hashes::Hash::from_byte_array(reader.array()?);
        let (value, epoch) = (reader.amount()?, reader.u32()?);
        let kind = match reader.u8()? {
            0 => CoinKind::Main { epoch },
            1 => CoinKind::Deposit(DepositTerms {
                epoch,
                destination: reader.script()?,
                refund_key: bitcoin::XOnlyPublicKey::from_slice(reader.take(32)?).ok()?,
            }),
            _ => return None,
        };
        Some(Self { place: CoinPlace { height, index, vout }, outpoint: OutPoint { txid, vout }, value, kind })
    }
}

/// Where a peg-out request was made. Its order is the order in which requests are paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestPlace {
    /// Height of its block.
    pub height: Height,
    /// The transaction's place in the block.
    pub index: u32,
    /// The output's place in the transaction.
    pub vout: u32,
}

/// A peg-out request: an unspent output of witness version 16 on Causeway, or the payee of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PegOutRequest {
    /// Where it was made.
    pub place: RequestPlace,
    /// Which output it is.
    pub outpoint: OutPoint,
    /// What it is worth. The fee is taken out of it.
    pub amount: Amount,
    /// Whom to pay on Bitcoin.
    pub destination: PegOutDestination,
}

impl PegOutRequest {
    /// Height (u32) || index (u32) || vout (u32) || txid (32) || amount (u64) || Bitcoin script (with its length).
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.place.height.0);
        out.put(&self.place.index);
        out.put(&self.place.vout);
        out.put(&self.outpoint.txid);
        out.put(&self.amount);
        out.put_bytes(self.destination.script().as_bytes());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let height = Height(reader.u32()?);
        let (index, vout) = (reader.u32()?, reader.u32()?);
        let txid = bitcoin::hashes::Hash::from_byte_array(reader.array()?);
        let amount = reader.amount()?;
        let script: ScriptBuf = reader.script()?;
        let destination = PegOutDestination::from_bitcoin_script(&script).ok()?;
        let place = RequestPlace { height, index, vout };
        Some(Self { place, outpoint: OutPoint { txid, vout }, amount, destination })
    }
}
