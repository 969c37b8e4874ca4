//! What became of the wallet's scripts: read from a node page by page, as every client of Esplora does.
//!
//! The wallet keeps what it needs of a transaction and no more. A stranger who pays the wallet decides how long his witnesses
//! are; long ones are thrown away as they arrive, since no txid depends on them. The node tells where a transaction stands,
//! and that it has left nothing out; what the transaction is, its txid proves.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::BufReader;
use std::sync::Arc;
use std::time::Duration;

use bdk_wallet::KeychainKind;
use bdk_wallet::chain::spk_client::{FullScanRequest, FullScanResponse, SyncRequest, SyncResponse};
use bdk_wallet::chain::{BlockId, CheckPoint, ConfirmationBlockTime, TxUpdate};
use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::hex::FromHex as _;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::WalletError;
use super::node::Node;
use crate::ask::{Answer, Bounds};

/// Transactions on a full page: a shorter one is the last.
const PAGE: usize = 25;

/// Most transactions on a page: of the mempool and of the chain, and room for other servers.
const PAGE_MAX: usize = 200;

/// What a page may take. The longest: 25 blocks, each filled with one transaction, of which JSON makes four times as many
/// bytes.
const BOUNDS: Bounds = Bounds { bytes: 512 << 20, silence: Duration::from_secs(30), total: Duration::from_secs(600) };

/// Most transactions of one script: the wallet's file has room for no more.
const HISTORY_MAX: usize = 500_000;

/// Longest witness of an input that is kept, in hex digits. Those of this wallet have 130.
const WITNESS_MAX: usize = 20_000;

/// Scripts that are asked for at once: half of what a node allows one address.
const PARALLEL: usize = 16;

/// How often a node that is overloaded is asked again.
const TRIES: u32 = 4;

/// How long is waited for it at first; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);

/// A transaction, as far as it is read.
#[derive(Deserialize)]
struct Entry {
    txid: Txid,
    version: i32,
    locktime: u32,
    vin: Vec<Input>,
    vout: Vec<Output>,
    status: Status,
}

#[derive(Deserialize)]
struct Input {
    txid: Txid,
    vout: u32,
    scriptsig: ScriptBuf,
    #[serde(default)]
    witness: ShortWitness,
    sequence: u32,
}

#[derive(Deserialize)]
struct Output {
    scriptpubkey: ScriptBuf,
    value: u64,
}

#[derive(Deserialize)]
struct Status {
    block_height: Option<u32>,
    block_hash: Option<BlockHash>,
    block_time: Option<u64>,
}

#[derive(Deserialize)]
struct BlockEntry {
    id: BlockHash,
    height: u32,
}

/// A witness of at most [`WITNESS_MAX`] digits; empty in place of a longer one.
#[derive(Default)]
struct ShortWitness(Witness);

impl<'de> Deserialize<'de> for ShortWitness {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = ShortWitness;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of hex")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ShortWitness, A::Error> {
                let (mut witness, mut digits) = (Witness::new(), 0_usize);
                while let Some(item) = items.next_element::<String>()? {
                    digits = digits.saturating_add(item.len());
                    if digits <= WITNESS_MAX {
                        witness.push(Vec::from_hex(&item).map_err(de::Error::custom)?);
                    }
                }
                Ok(if digits <= WITNESS_MAX { ShortWitness(witness) } else { ShortWitness::default() })
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// A page of a history.
struct Page(Vec<Entry>);

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Page;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of transactions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Page, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = items.next_element()? {
                    if entries.len() == PAGE_MAX {
                        return Err(de::Error::custom("more transactions than a page has"));
                    }
                    entries.push(entry);
                }
                Ok(Page(entries))
            }
        }
        deserializer.deserialize_seq(Entries)
    }
}

impl Entry {
    /// The transaction, if it is the one of its txid, and where it stands.
    fn read(self) -> Option<Seen> {
        let input = |input: Input| TxIn {
            previous_output: OutPoint { txid: input.txid, vout: input.vout },
            script_sig: input.scriptsig,
            sequence: Sequence(input.sequence),
            witness: input.witness.0,
        };
        let output =
            |output: Output| TxOut { value: Amount::from_sat(output.value), script_pubkey: output.scriptpubkey };
        let transaction = Transaction {
            version: bitcoin::transaction::Version(self.version),
            lock_time: bitcoin::absolute::LockTime::from_consensus(self.locktime),
            input: self.vin.into_iter().map(input).collect(),
            output: self.vout.into_iter().map(output).collect(),
        };
        let place = match self.status {
            Status { block_height: Some(height), block_hash: Some(hash), block_time: Some(confirmation_time) } => {
                Some(ConfirmationBlockTime { block_id: BlockId { height, hash }, confirmation_time })
            }
            _ => None,
        };
        (transaction.compute_txid() == self.txid).then_some(Seen { txid: self.txid, transaction, place })
    }
}

/// A transaction of a history, and the block that holds it.
struct Seen {
    txid: Txid,
    transaction: Transaction,
    place: Option<ConfirmationBlockTime>,
}

/// What was found, in the form that bdk takes.
struct Found {
    start_s: u64,
    known: HashSet<Txid>,
    update: TxUpdate<ConfirmationBlockTime>,
}

impl Found {
    fn new(start_s: u64) -> Self {
        Self { start_s, known: HashSet::new(), update: TxUpdate::default() }
    }

    /// Adds the history of a script, of which these were expected.
    fn add(&mut self, history: Vec<Seen>, mut expected: HashSet<Txid>) {
        for Seen { txid, transaction, place } in history {
            expected.remove(&txid);
            match place {
                Some(place) => {
                    self.update.anchors.insert((place, txid));
                }
                None => {
                    self.update.seen_ats.insert((txid, self.start_s));
                }
            }
            if self.known.insert(txid) {
                self.update.txs.push(Arc::new(transaction));
            }
        }
        self.update.evicted_ats.extend(expected.into_iter().map(|txid| (txid, self.start_s)));
    }
}

impl Node {
    /// What became of the scripts of a request.
    ///
    /// # Errors
    /// The node does not answer, or with something else, or keeps no index.
    pub(super) fn sync<I: 'static>(&self, mut request: SyncRequest<I>) -> Result<SyncResponse, WalletError> {
        let latest = self.latest_blocks()?;
        let mut found = Found::new(request.start_time());
        let scripts: Vec<_> = request.iter_spks_with_expected_txids().collect();
        for group in scripts.chunks(PARALLEL) {
            let histories = self.histories(group.iter().map(|asked| &asked.spk))?;
            for (history, asked) in histories.into_iter().zip(group) {
                found.add(history, asked.expected_txids.clone());
            }
        }
        let chain_update = request.chain_tip().map(|tip| self.chain(&latest, &tip, &found.update)).transpose()?;
        Ok(SyncResponse { tx_update: found.update, chain_update })
    }

    /// What became of every script of a request's keychains, up to `gap` in a row that nobody paid.
    ///
    /// # Errors
    /// The node does not answer, or with something else, or keeps no index.
    pub(super) fn full_scan(
        &self,
        mut request: FullScanRequest<KeychainKind>,
        gap: u32,
    ) -> Result<FullScanResponse<KeychainKind>, WalletError> {
        let latest = self.latest_blocks()?;
        let mut found = Found::new(request.start_time());
        let mut last_active_indices = BTreeMap::new();
        for keychain in request.keychains() {
            let revealed = request.last_revealed(&keychain);
            let mut scripts = request.iter_spks(keychain);
            let mut unused = 0_u32;
            while unused < gap {
                let left = usize::try_from(gap - unused).unwrap_or(usize::MAX);
                let group: Vec<(u32, ScriptBuf)> = scripts.by_ref().take(left.min(PARALLEL)).collect();
                if group.is_empty() {
                    break;
                }
                let histories = self.histories(group.iter().map(|(_, script)| script))?;
                for ((index, _), history) in group.iter().zip(histories) {
                    if !history.is_empty() {
                        unused = 0;
                        last_active_indices.insert(keychain, *index);
                    } else if revealed.is_none_or(|revealed| *index > revealed) {
                        unused += 1;
                    }
                    found.add(history, HashSet::new());
                }
            }
        }
        let chain_update = request.chain_tip().map(|tip| self.chain(&latest, &tip, &found.update)).transpose()?;
        Ok(FullScanResponse { tx_update: found.update, last_active_indices, chain_update })
    }

    /// The histories of some scripts, in their order.
    fn histories<'a>(&self, scripts: impl Iterator<Item = &'a ScriptBuf>) -> Result<Vec<Vec<Seen>>, WalletError> {
        std::thread::scope(|scope| {
            let asking: Vec<_> = scripts.map(|script| scope.spawn(move || self.history(script))).collect();
            asking.into_iter().map(|asking| asking.join().expect("asking does not panic")).collect()
        })
    }

    fn history(&self, script: &ScriptBuf) -> Result<Vec<Seen>, WalletError> {
        let base = format!("/scripthash/{}/txs", sha256::Hash::hash(script.as_bytes()));
        let mut path = base.clone();
        let (mut history, mut txids) = (Vec::new(), HashSet::new());
        loop {
            let Page(page) = self.page(&path)?;
            let is_last = page.len() < PAGE;
            let before = txids.len();
            for entry in page {
                let seen = entry.read().ok_or_else(|| self.unreadable(&path))?;
                path = format!("{base}/chain/{}", seen.txid);
                txids.insert(seen.txid);
                history.push(seen);
            }
            if is_last {
                return Ok(history);
            }
            // Pages that bring nothing new would never end.
            if txids.len() == before || txids.len() > HISTORY_MAX {
                return Err(self.unreadable(&path));
            }
        }
    }

    /// A page, read as it comes: its text is never held whole.
    fn page(&self, path: &str) -> Result<Page, WalletError> {
        let answer = self.patiently(path).map_err(|error| match error {
            WalletError::Answer { status: 400, .. } => {
                WalletError::Sync { url: self.url().to_owned(), source: Box::new(error) }
            }
            error => error,
        })?;
        serde_json::from_reader(BufReader::with_capacity(64 << 10, answer)).map_err(|error| {
            if error.is_io() {
                return self.cut(path, error.into());
            }
            WalletError::Unreadable { url: self.at(path), source: Some(error) }
        })
    }

    /// An answer with status 200; a node that is overloaded is asked some times.
    fn patiently(&self, path: &str) -> Result<Answer, WalletError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.answer(path, self.base().get(path, BOUNDS)) {
                Err(WalletError::Answer { status: 429 | 500 | 503, .. }) => std::thread::sleep(pause),
                other => return other,
            }
            pause *= 2;
        }
        self.answer(path, self.base().get(path, BOUNDS))
    }

    /// The last blocks, all of one moment.
    fn latest_blocks(&self) -> Result<BTreeMap<u32, BlockHash>, WalletError> {
        let path = "/blocks";
        let blocks: Vec<BlockEntry> = self.json(path)?;
        let blocks: BTreeMap<u32, BlockHash> = blocks.into_iter().map(|block| (block.height, block.id)).collect();
        if blocks.is_empty() { Err(self.unreadable(path)) } else { Ok(blocks) }
    }

    /// The block at a height up to the highest of the latest; None above it.
    fn block_at(&self, latest: &BTreeMap<u32, BlockHash>, height: u32) -> Result<Option<BlockHash>, WalletError> {
        if let Some(hash) = latest.get(&height) {
            return Ok(Some(*hash));
        }
        if latest.last_key_value().is_none_or(|(tip, _)| height > *tip) {
            return Ok(None);
        }
        self.block_hash(height).map(Some)
    }

    /// The known chain, with the latest blocks and those that hold what was found.
    fn chain(
        &self,
        latest: &BTreeMap<u32, BlockHash>,
        known: &CheckPoint,
        found: &TxUpdate<ConfirmationBlockTime>,
    ) -> Result<CheckPoint, WalletError> {
        let mut common = None;
        let mut others = Vec::new();
        for block in known.iter() {
            // A node that is behind is on no other chain.
            let Some(hash) = self.block_at(latest, block.height())? else { continue };
            if hash == block.hash() {
                common = Some(block);
                break;
            }
            // Blocks are final: what another node said of this height was a lie.
            others.push(BlockId { height: block.height(), hash });
        }
        let common = common.ok_or_else(|| WalletError::Disconnected { url: self.url().to_owned() })?;
        let mut tip = common.extend(others.into_iter().rev()).expect("heights above the common one, upwards");
        // Block 0 is known, and is not replaced.
        let heights: BTreeSet<u32> = found.anchors.iter().map(|(anchor, _)| anchor.block_id.height).collect();
        for height in heights {
            if height > 0
                && tip.get(height).is_none()
                && let Some(hash) = self.block_at(latest, height)?
            {
                tip = tip.insert(BlockId { height, hash });
            }
        }
        for (height, hash) in latest.iter().filter(|(height, _)| **height > 0) {
            tip = tip.insert(BlockId { height: *height, hash: *hash });
        }
        Ok(tip)
    }
}
