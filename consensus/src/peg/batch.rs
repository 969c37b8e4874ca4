//! A batch: the Bitcoin transaction that pays requests or moves coins, in every version that consensus has fixed.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version as TransactionVersion;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Weight, Witness};
use causeway_chainspec::{BATCH_OVERHEAD_WEIGHT, BitcoinHeight, Height, SatPerKvb};

use super::codec::{Reader, Write};
use super::coin::{CoinPlace, PegCoin, PegOutRequest};

/// What a batch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchKind {
    /// It pays requests.
    Payout,
    /// It moves old coins to fresh main outputs, or many coins into one.
    Refresh,
    /// It makes one large coin of several, for a request that the largest coins together cannot pay yet.
    Consolidation,
}

/// A batch that consensus has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number, from 1 on.
    pub number: u32,
    /// What it is for.
    pub kind: BatchKind,
    /// The Causeway block that opened it.
    pub opened: Height,
    /// The coins that it spends, sorted as the transaction's inputs (BIP69).
    pub inputs: Vec<PegCoin>,
    /// The requests that it pays, in their order; none but for [`BatchKind::Payout`].
    pub payees: Vec<PegOutRequest>,
    /// The script of its change: the main output of the epoch in which it was opened.
    pub change_script: ScriptBuf,
    /// That epoch.
    pub change_epoch: u32,
    /// Its versions, oldest first; at least one. Any of them may confirm.
    pub versions: Vec<BatchVersion>,
}

/// One version of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchVersion {
    /// The id of its transaction, which no signature changes.
    pub txid: Txid,
    /// The feerate that it was made for.
    pub rate: SatPerKvb,
    /// What each payee pays toward the fee, in their order.
    pub shares: Vec<Amount>,
    /// The change outputs.
    pub change: Vec<Amount>,
    /// What the fee account pays: the pot's part of the fee and change that joined it (PEG section 9).
    pub charge: Amount,
    /// The Causeway block that fixed it.
    pub fixed: Height,
    /// Bitcoin's tip in the state when it was fixed.
    pub fixed_at: BitcoinHeight,
}

impl Batch {
    /// The sum of its inputs.
    pub fn input_value(&self) -> Amount {
        self.inputs.iter().map(|coin| coin.value).sum()
    }

    /// What its payees gave up on Causeway.
    pub fn gross(&self) -> Amount {
        self.payees.iter().map(|payee| payee.amount).sum()
    }

    /// The newest version.
    pub fn newest(&self) -> &BatchVersion {
        self.versions.last().expect("a batch has at least one version")
    }

    /// The version with this id.
    pub fn version(&self, txid: &Txid) -> Option<&BatchVersion> {
        self.versions.iter().find(|version| version.txid == *txid)
    }

    /// The absolute fee of a version: what its payees and the fee account pay.
    pub fn fee(&self, version: &BatchVersion) -> Amount {
        version.shares.iter().copied().sum::<Amount>() + version.charge
    }

    /// The unsigned transaction of a version (PEG section 2): version 3, locktime 0, every sequence 0xfffffffd, payees in
    /// their order, then the change.
    pub fn transaction(&self, version: &BatchVersion) -> Transaction {
        transaction(&self.inputs, &self.payees, &version.shares, &version.change, &self.change_script)
    }

    /// The coins that a version leaves once it stands in the block at `height` as its transaction `index`.
    pub fn change_coins(&self, version: &BatchVersion, height: BitcoinHeight, index: u32) -> Vec<PegCoin> {
        let first = u32::try_from(self.payees.len()).expect("payees are bounded");
        let coin = |(vout, value): (u32, &Amount)| PegCoin {
            place: CoinPlace { height, index, vout },
            outpoint: OutPoint { txid: version.txid, vout },
            value: *value,
            kind: super::coin::CoinKind::Main { epoch: self.change_epoch },
        };
        (first..).zip(&version.change).map(coin).collect()
    }

    /// Number (u32) || kind (u8: 0 payout, 1 refresh, 2 consolidation) || opened (u32) || inputs || payees || change script ||
    /// change epoch (u32) || versions, lists after their counts. A version: txid (32) || rate (u64) || one share (u64) for each
    /// payee || change values (u64) after their count || charge (u64) || fixed (u32) || fixed at (u32).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put(&self.number);
        out.push(match self.kind {
            BatchKind::Payout => 0,
            BatchKind::Refresh => 1,
            BatchKind::Consolidation => 2,
        });
        out.put(&self.opened.0);
        out.put_count(self.inputs.len());
        self.inputs.iter().for_each(|coin| coin.encode(&mut out));
        out.put_count(self.payees.len());
        self.payees.iter().for_each(|payee| payee.encode(&mut out));
        out.put_bytes(self.change_script.as_bytes());
        out.put(&self.change_epoch);
        out.put_count(self.versions.len());
        for version in &self.versions {
            out.put(&version.txid);
            out.put(&version.rate.0);
            version.shares.iter().for_each(|share| out.put(share));
            out.put_count(version.change.len());
            version.change.iter().for_each(|value| out.put(value));
            out.put(&version.charge);
            out.put(&version.fixed.0);
            out.put(&version.fixed_at.0);
        }
        out
    }

    /// Returns the batch that [`Batch::encode`] gave; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let batch = Self::read(&mut reader)?;
        reader.is_empty().then_some(batch)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let number = reader.u32()?;
        let kind = match reader.u8()? {
            0 => BatchKind::Payout,
            1 => BatchKind::Refresh,
            2 => BatchKind::Consolidation,
            _ => return None,
        };
        let opened = Height(reader.u32()?);
        let inputs = (0..reader.count(57)?).map(|_| PegCoin::decode(reader)).collect::<Option<Vec<_>>>()?;
        let payees = (0..reader.count(53)?).map(|_| PegOutRequest::decode(reader)).collect::<Option<Vec<_>>>()?;
        let (change_script, change_epoch) = (reader.script()?, reader.u32()?);
        let count = reader.count(57)?;
        let versions = (0..count).map(|_| BatchVersion::read(reader, payees.len())).collect::<Option<Vec<_>>>()?;
        let batch = Self { number, kind, opened, inputs, payees, change_script, change_epoch, versions };
        let sound = !batch.versions.is_empty()
            && batch.versions.iter().all(|version| batch.transaction(version).compute_txid() == version.txid);
        sound.then_some(batch)
    }
}

impl BatchVersion {
    fn read(reader: &mut Reader<'_>, payees: usize) -> Option<Self> {
        let txid = bitcoin::hashes::Hash::from_byte_array(reader.array()?);
        let rate = SatPerKvb(reader.u64()?);
        let shares = (0..payees).map(|_| reader.amount()).collect::<Option<Vec<_>>>()?;
        let change = (0..reader.count(8)?).map(|_| reader.amount()).collect::<Option<Vec<_>>>()?;
        let charge = reader.amount()?;
        let (fixed, fixed_at) = (Height(reader.u32()?), BitcoinHeight(reader.u32()?));
        Some(Self { txid, rate, shares, change, charge, fixed, fixed_at })
    }
}

/// Returns the unsigned transaction of a batch. The inputs are sorted; a share is at most its payee's amount.
pub(super) fn transaction(
    inputs: &[PegCoin],
    payees: &[PegOutRequest],
    shares: &[Amount],
    change: &[Amount],
    change_script: &Script,
) -> Transaction {
    let payout = |(payee, share): (&PegOutRequest, &Amount)| TxOut {
        value: payee.amount.checked_sub(*share).unwrap_or(Amount::ZERO),
        script_pubkey: payee.destination.script().to_owned(),
    };
    let change = change.iter().map(|value| TxOut { value: *value, script_pubkey: change_script.to_owned() });
    Transaction {
        version: TransactionVersion(3),
        lock_time: LockTime::ZERO,
        input: inputs
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                witness: Witness::new(),
            })
            .collect(),
        output: payees.iter().zip(shares).map(payout).chain(change).collect(),
    }
}

/// Sorts coins as the inputs of a transaction (BIP69: by txid as shown, then by output).
pub(super) fn sort_inputs(coins: &mut [PegCoin]) {
    coins.sort_by_key(|coin| {
        let mut txid: [u8; 32] = *coin.outpoint.txid.as_ref();
        txid.reverse();
        (txid, coin.outpoint.vout)
    });
}

/// What a batch weighs at most: its inputs by their heaviest path, of which the sum is given, and its outputs as they are.
pub(super) fn worst_weight(
    input_weight: Weight,
    payees: &[PegOutRequest],
    change: usize,
    change_script: &Script,
) -> Weight {
    let payees: Weight = payees.iter().map(|payee| output_weight(payee.destination.script())).sum();
    BATCH_OVERHEAD_WEIGHT + input_weight + payees + output_weight(change_script) * change as u64
}

/// Value (8), length (1: the scripts have at most 34 bytes) and script, four units a byte.
fn output_weight(script: &Script) -> Weight {
    Weight::from_wu(4 * (8 + 1 + script.len() as u64))
}
