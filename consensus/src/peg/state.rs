//! The peg after a block: an immutable value, cheap to clone, that knows its records and its digest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Txid, XOnlyPublicKey};
use causeway_chainspec::{BitcoinHeight, ChainSpec, Height, SUPPLY, SatPerKvb, tagged_hash};

use super::batch::{Batch, BatchKind};
use super::codec::{Reader, Write};
use super::coin::{CoinPlace, PegCoin, PegOutRequest, RequestPlace};
use super::header_tree::HeaderTree;
use super::network::PegNetwork;
use super::record::{RecordChanges, RecordKey};
use crate::commitment::LtHash;

/// Kinds of records, the first byte of their keys. Those below belong to the header tree.
const COIN: u8 = 0x10;
const CREDITED: u8 = 0x11;
const REQUEST: u8 = 0x12;
const BATCH: u8 = 0x13;
const QUOTE: u8 = 0x14;
const SUMMARY: u8 = 0x15;

/// Seconds of block time that `value_per_day_max` bounds.
pub(super) const DAY_S: u32 = 86_400;

/// The state of the peg after a block.
#[derive(Clone)]
pub struct PegState {
    pub(super) network: Arc<PegNetwork>,
    pub(super) headers: HeaderTree,
    /// Coins that no open batch spends, oldest first.
    pub(super) free: Arc<BTreeMap<CoinPlace, PegCoin>>,
    /// Credited deposits that could still be claimed again, with the height of their blocks.
    pub(super) credited: Arc<BTreeMap<OutPoint, BitcoinHeight>>,
    /// Requests that were never opened in a batch, in their order.
    pub(super) waiting: Arc<BTreeMap<RequestPlace, PegOutRequest>>,
    /// Open batches by number.
    pub(super) open: Arc<BTreeMap<u32, Batch>>,
    /// The newest quote of each validator.
    pub(super) quotes: Arc<BTreeMap<XOnlyPublicKey, Quote>>,
    pub(super) summary: Summary,
    records: LtHash,
}

/// A validator's newest quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// The block that carried it.
    pub height: Height,
    /// The rate.
    pub rate: SatPerKvb,
}

/// Why the peg is frozen (PEG section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Freeze {
    /// Bitcoin's best chain switched below what counts as final.
    #[error("Bitcoin reorganised above height {fork_point}, {final_depth} or more below its highest tip {highest}")]
    Reorganisation {
        /// The last block that both chains have.
        fork_point: BitcoinHeight,
        /// The highest tip held until then.
        highest: BitcoinHeight,
        /// The parameter.
        final_depth: u32,
    },
    /// A coin of the peg was spent by something that is no batch.
    #[error("the peg's coin {outpoint} was spent on Bitcoin by {txid}, which is no batch")]
    CoinSpent {
        /// The coin.
        outpoint: OutPoint,
        /// What spent it.
        txid: Txid,
    },
}

/// The numbers of the peg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) reserve: OutPoint,
    pub(super) reserve_value: Amount,
    /// The fee account in satoshi: its positive part is the pot, its negative part the deficit.
    pub(super) fee_account: i64,
    pub(super) agreed: SatPerKvb,
    /// Batches opened so far.
    pub(super) batches: u32,
    /// The block that last opened a batch with payees, or a consolidation.
    pub(super) last_opening: Option<Height>,
    /// Time and gross value of the batches opened in the last [`DAY_S`] seconds.
    pub(super) batched: Vec<(u32, Amount)>,
    pub(super) frozen: Option<Freeze>,
}

/// The accounts of the peg (PEG section 9), all in one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounts {
    /// Bitcoin's tip in the state.
    pub bitcoin_height: BitcoinHeight,
    /// Free coins.
    pub free: Amount,
    /// Inputs of open batches.
    pub in_batches: Amount,
    /// Requests that were never opened in a batch.
    pub waiting: Amount,
    /// Gross amounts of open batches' payees.
    pub in_flight: Amount,
    /// What the reserve coin holds.
    pub reserve: Amount,
    /// The fee account, in satoshi.
    pub fee_account: i64,
    /// Charges of the newest versions of open batches.
    pub charges: Amount,
}

impl Accounts {
    /// What stands on Bitcoin: free coins and inputs of open batches.
    pub fn locked(&self) -> Amount {
        self.free + self.in_batches
    }

    /// What circulates on Causeway.
    pub fn circulating(&self) -> Amount {
        // Both are part of the supply.
        SUPPLY.checked_sub(self.reserve).and_then(|rest| rest.checked_sub(self.waiting)).unwrap_or(Amount::ZERO)
    }

    /// What the peg owes: what circulates, what waits and what is being paid.
    pub fn owed(&self) -> Amount {
        self.circulating() + self.waiting + self.in_flight
    }

    /// The fees that were taken in and not spent yet.
    pub fn fee_pot(&self) -> Amount {
        Amount::from_sat(u64::try_from(self.fee_account).unwrap_or(0))
    }

    /// The fees that were spent before they were taken in.
    pub fn deficit(&self) -> Amount {
        Amount::from_sat(u64::try_from(self.fee_account.saturating_neg()).unwrap_or(0))
    }

    /// Whether they add up: `locked + deficit = owed + fee_pot + charges`, exactly.
    pub fn balance(&self) -> bool {
        self.locked() + self.deficit() == self.owed() + self.fee_pot() + self.charges
    }
}

/// A record that is not what a [`PegState`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DamagedPeg;

impl PegState {
    /// Returns the peg of a new chain: after its derived blocks, nothing has happened.
    pub fn new(network: Arc<PegNetwork>, spec: &ChainSpec) -> Self {
        let block = spec.derived_block(Height(1)).expect("block 1 is derived");
        let summary = Summary {
            reserve: OutPoint { txid: block.txdata[0].compute_txid(), vout: 0 },
            reserve_value: block.txdata[0].output[0].value,
            fee_account: 0,
            agreed: spec.params().fee_rate_default,
            batches: 0,
            last_opening: None,
            batched: Vec::new(),
            frozen: None,
        };
        let headers = HeaderTree::new(network.start(), network.params().fork_depth);
        let mut state = Self {
            network,
            headers,
            free: Arc::default(),
            credited: Arc::default(),
            waiting: Arc::default(),
            open: Arc::default(),
            quotes: Arc::default(),
            summary,
            records: LtHash::empty(),
        };
        state.records = state.hash_records();
        state
    }

    /// The constants of its network.
    pub fn network(&self) -> &Arc<PegNetwork> {
        &self.network
    }

    /// Bitcoin's headers.
    pub fn headers(&self) -> &HeaderTree {
        &self.headers
    }

    /// Coins that no open batch spends, oldest first.
    pub fn free_coins(&self) -> impl ExactSizeIterator<Item = &PegCoin> {
        self.free.values()
    }

    /// Requests that were never opened in a batch, in their order.
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = &PegOutRequest> {
        self.waiting.values()
    }

    /// Open batches by number.
    pub fn open_batches(&self) -> impl ExactSizeIterator<Item = &Batch> {
        self.open.values()
    }

    /// An open batch.
    pub fn open_batch(&self, number: u32) -> Option<&Batch> {
        self.open.get(&number)
    }

    /// How many batches were opened so far.
    pub fn batches(&self) -> u32 {
        self.summary.batches
    }

    /// The feerate that the validators last agreed on.
    pub fn agreed_rate(&self) -> SatPerKvb {
        self.summary.agreed
    }

    /// A validator's newest quote.
    pub fn quote(&self, validator: &XOnlyPublicKey) -> Option<Quote> {
        self.quotes.get(validator).copied()
    }

    /// Why the peg is frozen; `None` if it is not.
    pub fn frozen(&self) -> Option<Freeze> {
        self.summary.frozen
    }

    /// The reserve coin.
    pub fn reserve(&self) -> (OutPoint, Amount) {
        (self.summary.reserve, self.summary.reserve_value)
    }

    /// Whether a deposit was credited. Answers for deposits within the claim window only; older ones are not credited anyway.
    pub fn is_credited(&self, outpoint: &OutPoint) -> bool {
        self.credited.contains_key(outpoint)
    }

    /// How many coins the peg holds: free ones and inputs of open batches.
    pub fn held(&self) -> usize {
        self.free.len() + self.open.values().map(|batch| batch.inputs.len()).sum::<usize>()
    }

    /// Every coin that the peg holds.
    pub fn coins(&self) -> impl Iterator<Item = &PegCoin> {
        self.free.values().chain(self.open.values().flat_map(|batch| &batch.inputs))
    }

    /// Open batches that use a payee slot, and those that do not: (payouts and consolidations, refreshes).
    pub(super) fn open_slots(&self) -> (usize, usize) {
        let refreshes = self.open.values().filter(|batch| batch.kind == BatchKind::Refresh).count();
        (self.open.len() - refreshes, refreshes)
    }

    /// The accounts.
    pub fn accounts(&self) -> Accounts {
        Accounts {
            bitcoin_height: self.headers.tip().height,
            free: self.free.values().map(|coin| coin.value).sum(),
            in_batches: self.open.values().map(Batch::input_value).sum(),
            waiting: self.waiting.values().map(|request| request.amount).sum(),
            in_flight: self.open.values().map(Batch::gross).sum(),
            reserve: self.summary.reserve_value,
            fee_account: self.summary.fee_account,
            charges: self.open.values().map(|batch| batch.newest().charge).sum(),
        }
    }

    /// What the fee account holds, if it holds anything.
    pub(super) fn accounts_pot(&self) -> Amount {
        Amount::from_sat(u64::try_from(self.summary.fee_account).unwrap_or(0))
    }

    /// The digest that the state commitment covers.
    pub fn digest(&self) -> [u8; 32] {
        tagged_hash("causeway/peg-state/v1", &[&self.records.digest()])
    }

    /// Every record, in no particular order.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> {
        let coins = self.free.values().map(coin_record);
        let credited = self.credited.iter().map(|(outpoint, height)| credited_record(outpoint, *height));
        let requests = self.waiting.values().map(request_record);
        let batches = self.open.values().map(batch_record);
        let quotes = self.quotes.iter().map(|(key, quote)| quote_record(key, *quote));
        let summary = std::iter::once(summary_record(&self.summary));
        self.headers.records().chain(coins).chain(credited).chain(requests).chain(batches).chain(quotes).chain(summary)
    }

    /// Returns the state whose [`PegState::records`] these are.
    ///
    /// # Errors
    /// If they are not those of one state whose accounts add up, or its digest is another.
    pub fn restore(
        network: Arc<PegNetwork>,
        digest: [u8; 32],
        records: impl IntoIterator<Item = (RecordKey, Vec<u8>)>,
    ) -> Result<Self, DamagedPeg> {
        let (mut free, mut credited, mut waiting, mut open) = Default::default();
        let mut quotes = BTreeMap::new();
        let (mut summary, mut headers) = (None, Vec::new());
        for (key, value) in records {
            let known = match key.first() {
                Some(&COIN) => keep(&mut free, decode(&value, PegCoin::decode).map(|coin| (coin.place, coin))),
                Some(&CREDITED) => keep(&mut credited, decode_credited(&key, &value)),
                Some(&REQUEST) => {
                    keep(&mut waiting, decode(&value, PegOutRequest::decode).map(|request| (request.place, request)))
                }
                Some(&BATCH) => keep(&mut open, Batch::decode(&value).map(|batch| (batch.number, batch))),
                Some(&QUOTE) => keep(&mut quotes, decode_quote(&key, &value)),
                Some(&SUMMARY) => {
                    summary = decode(&value, |reader| Summary::decode(reader, &network));
                    summary.is_some()
                }
                _ => {
                    headers.push((key, value));
                    true
                }
            };
            if !known {
                return Err(DamagedPeg);
            }
        }
        let headers = HeaderTree::restore(network.start(), network.params().fork_depth, headers);
        let mut state = Self {
            headers: headers.map_err(|_| DamagedPeg)?,
            network,
            free: Arc::new(free),
            credited: Arc::new(credited),
            waiting: Arc::new(waiting),
            open: Arc::new(open),
            quotes: Arc::new(quotes),
            summary: summary.ok_or(DamagedPeg)?,
            records: LtHash::empty(),
        };
        state.records = state.hash_records();
        let sound = state.digest() == digest && state.accounts().balance();
        if sound { Ok(state) } else { Err(DamagedPeg) }
    }

    fn hash_records(&self) -> LtHash {
        let mut hash = LtHash::empty();
        self.records().for_each(|(key, value)| hash.add_record(&key, &value));
        hash
    }

    /// Takes the noted changes into the digest.
    pub(super) fn hash_changes(&mut self, changes: &RecordChanges) {
        for (key, change) in changes.iter() {
            if let Some(before) = &change.before {
                self.records.remove_record(key, before);
            }
            if let Some(after) = &change.after {
                self.records.add_record(key, after);
            }
        }
    }
}

impl PartialEq for PegState {
    /// Whether both have the same records.
    fn eq(&self, other: &Self) -> bool {
        self.records == other.records
    }
}

impl Eq for PegState {}

impl std::fmt::Debug for PegState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PegState")
            .field("summary", &self.summary)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// Puts in what was decoded; false if it was not, or is there already.
fn keep<K: Ord, V>(map: &mut BTreeMap<K, V>, decoded: Option<(K, V)>) -> bool {
    decoded.is_some_and(|(key, value)| map.insert(key, value).is_none())
}

fn decode<'a, T>(bytes: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader)?;
    reader.is_empty().then_some(value)
}

/// `0x10 || height (u32 BE) || index (u32 BE) || vout (u32 BE)`.
pub(super) fn coin_record(coin: &PegCoin) -> (RecordKey, Vec<u8>) {
    let CoinPlace { height, index, vout } = coin.place;
    let mut value = Vec::new();
    coin.encode(&mut value);
    (place_key(COIN, height.0, index, vout), value)
}

/// `0x12 || height (u32 BE) || index (u32 BE) || vout (u32 BE)`.
pub(super) fn request_record(request: &PegOutRequest) -> (RecordKey, Vec<u8>) {
    let RequestPlace { height, index, vout } = request.place;
    let mut value = Vec::new();
    request.encode(&mut value);
    (place_key(REQUEST, height.0, index, vout), value)
}

fn place_key(kind: u8, height: u32, index: u32, vout: u32) -> RecordKey {
    let mut key = vec![kind];
    [height, index, vout].iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
    key
}

/// `0x11 || outpoint (36)`: the height of its block, u32.
pub(super) fn credited_record(outpoint: &OutPoint, height: BitcoinHeight) -> (RecordKey, Vec<u8>) {
    let mut key = vec![CREDITED];
    key.put(outpoint);
    (key, height.0.to_le_bytes().to_vec())
}

fn decode_credited(key: &[u8], value: &[u8]) -> Option<(OutPoint, BitcoinHeight)> {
    let outpoint = decode(key.get(1..)?, Reader::outpoint)?;
    Some((outpoint, BitcoinHeight(decode(value, Reader::u32)?)))
}

/// `0x13 || number (u32 BE)`: [`Batch::encode`].
pub(super) fn batch_record(batch: &Batch) -> (RecordKey, Vec<u8>) {
    ([&[BATCH], batch.number.to_be_bytes().as_slice()].concat(), batch.encode())
}

/// `0x14 || key (32)`: height (u32) || rate (u64).
pub(super) fn quote_record(key: &XOnlyPublicKey, quote: Quote) -> (RecordKey, Vec<u8>) {
    let value = [quote.height.0.to_le_bytes().as_slice(), &quote.rate.0.to_le_bytes()].concat();
    ([&[QUOTE], key.serialize().as_slice()].concat(), value)
}

fn decode_quote(key: &[u8], value: &[u8]) -> Option<(XOnlyPublicKey, Quote)> {
    let validator = XOnlyPublicKey::from_slice(key.get(1..)?).ok()?;
    let quote = decode(value, |reader| Some(Quote { height: Height(reader.u32()?), rate: SatPerKvb(reader.u64()?) }))?;
    Some((validator, quote))
}

/// `0x15`: [`Summary::encode`].
pub(super) fn summary_record(summary: &Summary) -> (RecordKey, Vec<u8>) {
    (vec![SUMMARY], summary.encode())
}

impl Summary {
    /// Reserve (outpoint) || its value (u64) || fee account (i64) || agreed rate (u64) || batches (u32) || height of the last
    /// opening (u32, 0 if there is none) || batched: time (u32) and value (u64) after their count || 0 if not frozen, 1 || fork
    /// point (u32) || highest (u32), or 2 || outpoint || txid.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put(&self.reserve);
        out.put(&self.reserve_value);
        out.put(&self.fee_account);
        out.put(&self.agreed.0);
        out.put(&self.batches);
        out.put(&self.last_opening.map_or(0, Height::to_u32));
        out.put_count(self.batched.len());
        for (time, value) in &self.batched {
            out.put(time);
            out.put(value);
        }
        match &self.frozen {
            None => out.push(0),
            Some(Freeze::Reorganisation { fork_point, highest, final_depth: _ }) => {
                out.push(1);
                out.put(&fork_point.0);
                out.put(&highest.0);
            }
            Some(Freeze::CoinSpent { outpoint, txid }) => {
                out.push(2);
                out.put(outpoint);
                out.put(txid);
            }
        }
        out
    }

    fn decode(reader: &mut Reader<'_>, network: &PegNetwork) -> Option<Self> {
        let (reserve, reserve_value) = (reader.outpoint()?, reader.amount()?);
        let fee_account = i64::from_le_bytes(reader.array()?);
        let (agreed, batches, last_opening) = (SatPerKvb(reader.u64()?), reader.u32()?, Height(reader.u32()?));
        let last_opening = (last_opening > Height(0)).then_some(last_opening);
        let count = reader.count(12)?;
        let batched = (0..count).map(|_| Some((reader.u32()?, reader.amount()?))).collect::<Option<Vec<_>>>()?;
        let frozen = match reader.u8()? {
            0 => None,
            1 => Some(Freeze::Reorganisation {
                fork_point: BitcoinHeight(reader.u32()?),
                highest: BitcoinHeight(reader.u32()?),
                final_depth: network.params().final_depth,
            }),
            2 => Some(Freeze::CoinSpent {
                outpoint: reader.outpoint()?,
                txid: bitcoin::hashes::Hash::from_byte_array(reader.array()?),
            }),
            _ => return None,
        };
        Some(Self { reserve, reserve_value, fee_account, agreed, batches, last_opening, batched, frozen })
    }
}
