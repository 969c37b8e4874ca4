//! An open wallet: its file, its keys, and what it knows of the chain.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bdk_wallet::chain::{ChainPosition, Merge as _};
use bdk_wallet::keys::bip39::Mnemonic;
use bdk_wallet::{AddressInfo, Balance, KeychainKind, Update, Wallet as Coins};
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, ScriptBuf, SignedAmount, Transaction, Txid};
use causeway_chainspec::{ChainSpec, PegScript};
use causeway_consensus::peg::script::EpochScripts;
use causeway_federation::keystore::{Passphrase, SealedFile};
use zeroize::Zeroizing;

use super::WalletError;
use super::content::{Content, MAGIC, VERSION, prune};
use super::keys::{Keys, parse_mnemonic};
use super::node::Node;

/// Addresses in a row that nobody paid, after which a mnemonic is taken to have no more; and as many as this wallet shows,
/// deposit addresses too, so that a search with the words alone finds everything. BIP44's 20 would be too few for somebody
/// who gives a new address to each who asks.
pub const GAP: u32 = 1_000;

/// The widest gap that is searched through: for words of another wallet, which kept to no such number.
pub const GAP_MAX: u32 = 100_000;

/// Which addresses a node is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Those that this wallet has shown.
    Shown,
    /// Every one, up to so many in a row that nobody paid behind those that were shown.
    All {
        /// How many, at most [`GAP_MAX`].
        gap: u32,
    },
}

/// An open wallet. No other process opens its file while this is kept.
#[derive(Debug)]
pub struct Wallet {
    file: SealedFile,
    pub(super) content: Content,
    pub(super) spec: ChainSpec,
    pub(super) keys: Keys,
    pub(super) coins: Coins,
    scripts: OnceLock<Arc<EpochScripts>>,
}

/// A transaction of the wallet.
#[derive(Clone, Debug)]
pub struct HistoryEntry {
    /// Its id.
    pub txid: Txid,
    /// The block that holds it, and its time; None while it waits.
    pub place: Option<(u32, u64)>,
    /// What it changed.
    pub delta: SignedAmount,
    /// Its fee, if the wallet paid it.
    pub fee: Option<Amount>,
    /// What it is.
    pub kind: HistoryKind,
}

/// What a transaction is to the wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryKind {
    /// The credit of a deposit.
    PegIn,
    /// A request to be paid on Bitcoin.
    PegOut,
    /// Somebody paid.
    Received,
    /// The wallet paid somebody.
    Sent,
    /// The wallet paid itself.
    Moved,
}

impl HistoryKind {
    /// Its name, in JSON too.
    pub fn name(self) -> &'static str {
        match self {
            Self::PegIn => "peg_in",
            Self::PegOut => "peg_out",
            Self::Received => "received",
            Self::Sent => "sent",
            Self::Moved => "moved",
        }
    }
}

impl Wallet {
    /// Makes a new wallet file. With `to_scan` the next sync looks for the coins that the mnemonic has already.
    ///
    /// # Errors
    /// There is a file already, or it cannot be made.
    pub fn create(
        path: &Path,
        passphrase: &Passphrase,
        mnemonic: &Mnemonic,
        spec: ChainSpec,
        node: &Node,
        to_scan: bool,
    ) -> Result<Self, WalletError> {
        let keys = Keys::new(mnemonic, spec.identity());
        let (external, internal) = (keys.descriptor(KeychainKind::External), keys.descriptor(KeychainKind::Internal));
        let coins = Coins::create(external, internal).network(spec.identity()).create_wallet_no_persist();
        let mut coins = coins.map_err(|source| WalletError::Descriptor(Box::new(source)))?;
        let content = Content {
            version: VERSION,
            mnemonic: mnemonic.to_string(),
            chain: spec.to_toml(),
            node: node.url().to_owned(),
            to_scan,
            state: coins.take_staged().unwrap_or_default(),
            deposits: Vec::new(),
        };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)
                .map_err(|source| WalletError::Directory { path: path.to_owned(), source })?;
        }
        let file = SealedFile::create(path, MAGIC, passphrase, &json(path, &content)?)?;
        Ok(Self { file, content, spec, keys, coins, scripts: OnceLock::new() })
    }

    /// Takes a wallet file for this process, and opens it.
    ///
    /// # Errors
    /// Another process uses it, it cannot be read, or the passphrase is wrong.
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, WalletError> {
        let (file, bytes) = SealedFile::open(path, MAGIC, passphrase)?;
        let of_another = |source| WalletError::Content { path: path.to_owned(), source };
        let content: Content = serde_json::from_slice(&bytes).map_err(|source| of_another(Some(source)))?;
        if content.version != VERSION {
            return Err(of_another(None));
        }
        let spec = ChainSpec::from_toml(&content.chain)
            .map_err(|source| WalletError::ChainSpec { path: path.to_owned(), source: Box::new(source) })?;
        let keys = Keys::new(&parse_mnemonic(&content.mnemonic)?, spec.identity());
        let other_state = |source| WalletError::State { path: path.to_owned(), source };
        let coins = Coins::load()
            .descriptor(KeychainKind::External, Some(keys.descriptor(KeychainKind::External)))
            .descriptor(KeychainKind::Internal, Some(keys.descriptor(KeychainKind::Internal)))
            .check_network(spec.identity())
            .load_wallet_no_persist(content.state.clone())
            .map_err(|source| other_state(Some(Box::new(source))))?
            .ok_or_else(|| other_state(None))?;
        Ok(Self { file, content, spec, keys, coins, scripts: OnceLock::new() })
    }

    /// Writes what has changed to the file.
    ///
    /// # Errors
    /// The disk's. The old content stays.
    pub fn save(&mut self) -> Result<(), WalletError> {
        if let Some(changes) = self.coins.take_staged() {
            self.content.state.merge(changes);
        }
        prune(&mut self.content.state);
        Ok(self.file.save(&json(self.file.path(), &self.content)?)?)
    }

    /// Where its file is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The chain.
    pub fn spec(&self) -> &ChainSpec {
        &self.spec
    }

    /// REST of the node that it was made with.
    pub fn node(&self) -> &str {
        &self.content.node
    }

    /// The words that all keys come from.
    pub fn mnemonic(&self) -> &str {
        &self.content.mnemonic
    }

    /// The federation's scripts. They take a moment, once.
    pub(super) fn scripts(&self) -> &Arc<EpochScripts> {
        self.scripts.get_or_init(|| Arc::new(EpochScripts::build(self.spec.federation())))
    }

    /// Whether no other address is shown until one of the last [`GAP`] is paid.
    pub(super) fn is_gap_full(&self) -> bool {
        let paid = self.coins.spk_index().last_used_index(KeychainKind::External);
        let end = paid.map_or(0, |paid| paid.saturating_add(1)).saturating_add(GAP);
        self.coins.next_derivation_index(KeychainKind::External) >= end
    }

    /// The next address that was never shown. It is not in the file yet.
    ///
    /// # Errors
    /// [`WalletError::GapFull`].
    pub(super) fn reveal(&mut self) -> Result<AddressInfo, WalletError> {
        if self.is_gap_full() {
            return Err(WalletError::GapFull { gap: GAP });
        }
        Ok(self.coins.reveal_next_address(KeychainKind::External))
    }

    /// The next address that was not paid to yet, or with `fresh` one that was never shown; with its number.
    ///
    /// # Errors
    /// [`WalletError::GapFull`], or the disk's: an address that is not on disk would not be watched.
    pub fn address(&mut self, fresh: bool) -> Result<(u32, Address), WalletError> {
        let held: Vec<u32> = self.content.deposits.iter().map(|deposit| deposit.index).collect();
        let info = if fresh {
            self.reveal()?
        } else {
            // The address of a deposit is for its credit, which would be hard to tell from a payment.
            let unused = self.coins.list_unused_addresses(KeychainKind::External);
            let unused = unused.into_iter().find(|info| !held.contains(&info.index));
            unused.map_or_else(|| self.reveal(), Ok)?
        };
        self.save()?;
        Ok((info.index, info.address))
    }

    /// The address of this number.
    pub fn address_at(&self, index: u32) -> Address {
        self.coins.peek_address(KeychainKind::External, index).address
    }

    /// An address of the wallet's chain.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_address(&self, given: &str) -> Result<Address, WalletError> {
        let network = self.spec.identity();
        let address = given.trim().parse::<Address<NetworkUnchecked>>().ok();
        let address = address.and_then(|address| address.require_network(network).ok());
        address.ok_or_else(|| WalletError::Address { given: given.to_owned(), network })
    }

    /// An address of the Bitcoin network that the chain is pegged to.
    ///
    /// # Errors
    /// It is none.
    pub fn parse_bitcoin_address(&self, given: &str) -> Result<Address, WalletError> {
        let network = self.spec.bitcoin().network();
        let address = given.trim().parse::<Address<NetworkUnchecked>>().ok();
        let address = address.and_then(|address| address.require_network(network).ok());
        address.ok_or_else(|| WalletError::BitcoinAddress { given: given.to_owned(), network })
    }

    /// Asks the node for what has happened, and writes it to the file.
    ///
    /// # Errors
    /// The node is of another chain, does not answer, or keeps no index.
    pub fn sync(&mut self, node: &Node, look: Look) -> Result<(), WalletError> {
        node.check_chain(&self.spec)?;
        let gap = match look {
            Look::All { gap } => Some(gap.min(GAP_MAX)),
            Look::Shown => self.content.to_scan.then_some(GAP),
        };
        let update = match gap {
            Some(gap) => Update::from(node.full_scan(self.coins.start_full_scan().build(), gap)?),
            None => Update::from(node.sync(self.coins.start_sync_with_revealed_spks().build())?),
        };
        let applied = self.coins.apply_update(update);
        applied.map_err(|_| WalletError::Disconnected { url: node.url().to_owned() })?;
        self.content.to_scan = false;
        self.save()
    }

    /// What it has.
    pub fn balance(&self) -> Balance {
        self.coins.balance()
    }

    /// The height that it knows of.
    pub fn height(&self) -> u32 {
        self.coins.latest_checkpoint().height()
    }

    /// Its transactions, newest first: those that wait, then by height.
    pub fn history(&self) -> Vec<HistoryEntry> {
        let txids: Vec<Txid> = self.coins.transactions().map(|transaction| transaction.tx_node.txid).collect();
        let mut entries: Vec<HistoryEntry> = txids.into_iter().filter_map(|txid| self.entry(txid)).collect();
        entries.sort_by_key(|entry| {
            std::cmp::Reverse((entry.place.map_or((u32::MAX, u64::MAX), |place| place), entry.txid))
        });
        entries
    }

    fn entry(&self, txid: Txid) -> Option<HistoryEntry> {
        let details = self.coins.tx_details(txid)?;
        let place = match details.chain_position {
            ChainPosition::Confirmed { anchor, .. } => Some((anchor.block_id.height, anchor.confirmation_time)),
            ChainPosition::Unconfirmed { .. } => None,
        };
        let paid = details.sent > Amount::ZERO;
        let kind = self.kind(&details.tx, paid);
        let fee = details.fee.filter(|_| paid);
        Some(HistoryEntry { txid, place, delta: details.balance_delta, fee, kind })
    }

    fn kind(&self, transaction: &Transaction, paid: bool) -> HistoryKind {
        let peg_script = |script: &ScriptBuf| PegScript::of(script).and_then(Result::ok);
        let mut outputs = transaction.output.iter().map(|output| &output.script_pubkey);
        // A peg transaction makes the reserve coin anew.
        if outputs.clone().any(|script| peg_script(script) == Some(PegScript::Reserve)) {
            return HistoryKind::PegIn;
        }
        if !paid {
            return HistoryKind::Received;
        }
        if outputs.clone().any(|script| matches!(peg_script(script), Some(PegScript::Request(_)))) {
            return HistoryKind::PegOut;
        }
        if outputs.all(|script| self.coins.is_mine(script.clone())) {
            return HistoryKind::Moved;
        }
        HistoryKind::Sent
    }
}

/// The content as it is sealed.
fn json(path: &Path, content: &Content) -> Result<Zeroizing<Vec<u8>>, WalletError> {
    // Room for all of it at once: growing would leave parts of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size_of(content)));
    let written = serde_json::to_writer(&mut *bytes, content);
    written.map_err(|source| WalletError::Content { path: path.to_owned(), source: Some(source) })?;
    Ok(bytes)
}

/// Bytes of the content's JSON.
fn size_of(content: &Content) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written is told by the writing itself.
    let _ = serde_json::to_writer(&mut count, content);
    count.0
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
