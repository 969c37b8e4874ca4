//! A chain with histories, written into the homes of nodes that do not run.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::{Keypair, SECP256K1};
use bitcoin::{Amount, Block, OutPoint, Script, ScriptBuf, Transaction, Txid};
use causeway_chainspec::devnet;
use causeway_consensus::bft::{CommitCertificate, Key, ValidatorSet, Vote, VoteType};
use causeway_consensus::state::{CoinFlush, Store};
use causeway_consensus::{ChainView, Workers};
use causeway_node::home::Home;
use causeway_tests::chain::MemoryChain;
use causeway_tests::nodes::{Nodes, config, split};
use causeway_tests::parent::fund;
use causeway_tests::wallet::{Kind, Owner, Spendable, output, spend};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

/// Entries of a short history, and of a long one.
pub(super) const SHORT: usize = 25;
pub(super) const LONG: usize = 2_500;

/// What a payment to a history is worth, and what each transaction pays.
const PAID: Amount = Amount::from_sat(1_000);
const FEE: Amount = Amount::from_sat(1_000);

/// Whose coins are spent over and over.
const SPENDERS: u64 = 500;

/// Coins that each of the last coins is split into, and transactions of a block that does.
const PARTS: u64 = 16;
const SPLITS_PER_BLOCK: usize = 1_000;

/// How much there is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Payments; those that come before and after are not counted.
    pub(super) transactions: usize,
    per_block: usize,
    short: usize,
    long: usize,
}

impl Shape {
    pub(super) const FULL: Self = Self { transactions: 200_000, per_block: 5_000, short: 400, long: 8 };
    pub(super) const QUICK: Self = Self { transactions: 20_000, per_block: 1_000, short: 100, long: 2 };
}

/// What was made.
pub(super) struct Made {
    /// The payments.
    pub(super) txids: Vec<Txid>,
    /// Script hashes with [`SHORT`] entries, hex.
    pub(super) short: Vec<String>,
    /// Script hashes with [`LONG`] entries, hex.
    pub(super) long: Vec<String>,
    /// Coins that nobody has spent.
    pub(super) coins: Vec<Spendable>,
    /// Height of the last block.
    pub(super) height: u32,
}

/// A store that takes blocks which the validators have signed.
struct Writer {
    chain: MemoryChain,
    store: Store,
    set: ValidatorSet,
    keys: Vec<Keypair>,
}

/// Makes the chain, and writes it into the homes of all nodes.
pub(super) fn make(nodes: &Nodes, shape: Shape) -> Result<Made, Box<dyn std::error::Error>> {
    let homes: Vec<Home> = nodes.devnet.nodes.iter().map(|node| Home::at(&node.home)).collect();
    let mut writer = Writer::open(nodes, &homes[0])?;
    let (blocks, funds) = fund(&mut writer.chain.clone());
    blocks.iter().try_for_each(|block| writer.add(block))?;

    let owners: Vec<Owner> = (0..SPENDERS).map(Owner::new).collect();
    let mut coins = writer.first_coins(&funds, &owners, shape.per_block)?;
    let scripts = |count: usize, kind: u8| -> Vec<ScriptBuf> {
        (0..).take(count).map(|number: u64| script(&[[kind].as_slice(), &number.to_le_bytes()].concat())).collect()
    };
    let (short, long) = (scripts(shape.short, 1), scripts(shape.long, 2));
    let payees = payees(shape, &short, &long);
    let mut txids = Vec::with_capacity(payees.len());
    for part in payees.chunks(shape.per_block) {
        let paid: Vec<(Transaction, Spendable)> = coins.par_iter().zip(part).map(|(coin, to)| pay(coin, to)).collect();
        let (transactions, changes): (Vec<_>, Vec<_>) = paid.into_iter().unzip();
        coins = changes;
        txids.extend(transactions.iter().map(Transaction::compute_txid));
        let fees = FEE * u64::try_from(transactions.len())?;
        writer.add_transactions(fees, transactions)?;
    }
    let mut parts = Vec::new();
    for some in coins.chunks(SPLITS_PER_BLOCK) {
        let part = |coin: &Spendable| split(coin, &coin.owner, Kind::P2trKey, PARTS, FEE);
        let (transactions, new): (Vec<_>, Vec<_>) = some.par_iter().map(part).unzip();
        let spent: Amount = some.iter().map(|coin| coin.output.value).sum();
        let paid: Amount = new.iter().flatten().map(|coin: &Spendable| coin.output.value).sum();
        writer.add_transactions(spent - paid, transactions)?;
        parts.extend(new.into_iter().flatten());
    }
    let height = writer.end()?;
    for home in &homes[1..] {
        copy(&homes[0].store(), &home.store())?;
    }
    let hashes = |scripts: &[ScriptBuf]| scripts.iter().map(|script| script_hash(script)).collect();
    Ok(Made { txids, short: hashes(&short), long: hashes(&long), coins: parts, height })
}

impl Writer {
    fn open(nodes: &Nodes, home: &Home) -> Result<Self, Box<dyn std::error::Error>> {
        let spec = nodes.spec.clone();
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let workers = Arc::new(Workers::new(threads));
        let store = Store::open(&home.store(), &spec, config().store_options(), &workers)?;
        let set = ValidatorSet::new(spec.validators())?;
        let count = u32::try_from(spec.validators().len())?;
        let keys = (0..count).map(|index| devnet::secret_key(devnet::VALIDATOR, index).keypair(SECP256K1)).collect();
        Ok(Self { chain: MemoryChain::with_workers(spec, workers), store, set, keys })
    }

    /// Validates a block, lets every validator sign it, and writes it.
    fn add(&mut self, block: &Block) -> Result<(), Box<dyn std::error::Error>> {
        let connected = self.chain.accept(block)?;
        let (height, hash) = (connected.tip().height(), connected.tip().hash());
        let mut signatures = Vec::new();
        for key in &self.keys {
            let vote = Vote::new(VoteType::Precommit, height, 0, Some(hash), Key::address(key));
            let signature = Key::sign(key, &vote.digest(self.chain.spec.chain_id())).ok_or("a key signs")?;
            signatures.push((Key::address(key), signature));
        }
        let certificate = CommitCertificate::new(&self.set, height, 0, hash, signatures)?;
        self.store.commit(&connected, &certificate.encode(), CoinFlush::Later)?;
        Ok(())
    }

    /// The same with the next block, of transactions that pay `fees` together.
    fn add_transactions(
        &mut self,
        fees: Amount,
        transactions: Vec<Transaction>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let block = self.chain.next_block(fees, transactions);
        self.add(&block)
    }

    /// Splits the funds into coins of many owners.
    fn first_coins(
        &mut self,
        funds: &Spendable,
        owners: &[Owner],
        count: usize,
    ) -> Result<Vec<Spendable>, Box<dyn std::error::Error>> {
        let value = (funds.output.value - FEE) / u64::try_from(count)?;
        let owners: Vec<&Owner> = owners.iter().cycle().take(count).collect();
        let outputs = owners.iter().map(|owner| output(value, owner.script_pubkey(Kind::P2trKey))).collect();
        let transaction = spend(std::slice::from_ref(funds), outputs);
        let txid = transaction.compute_txid();
        let paid: Amount = transaction.output.iter().map(|output| output.value).sum();
        let coins = (0..).zip(&transaction.output).zip(owners).map(|((vout, output), owner)| Spendable {
            outpoint: OutPoint { txid, vout },
            output: output.clone(),
            owner: owner.clone(),
            kind: Kind::P2trKey,
        });
        let coins = coins.collect();
        self.add_transactions(funds.output.value - paid, vec![transaction])?;
        Ok(coins)
    }

    /// Leaves everything on disk, and returns the height of the last block.
    fn end(self) -> Result<u32, Box<dyn std::error::Error>> {
        self.store.flush_coins()?;
        Ok(self.store.tip().height().to_u32())
    }
}

/// Whom each payment goes to: the entries of all histories in an order of chance, and scripts that are used once.
fn payees(shape: Shape, short: &[ScriptBuf], long: &[ScriptBuf]) -> Vec<ScriptBuf> {
    let entries = |scripts: &[ScriptBuf], count: usize| -> Vec<ScriptBuf> {
        scripts.iter().flat_map(|script| std::iter::repeat_n(script.clone(), count)).collect()
    };
    let mut payees = [entries(short, SHORT), entries(long, LONG)].concat();
    let once = (0u64..).map(|number| script(&number.to_be_bytes()));
    payees.extend(once.take(shape.transactions.saturating_sub(payees.len())));
    payees.shuffle(&mut StdRng::seed_from_u64(1));
    payees
}

/// A Taproot script that nobody can spend.
fn script(seed: &[u8]) -> ScriptBuf {
    let key = sha256::Hash::hash(seed);
    ScriptBuf::from_bytes([&[0x51, 0x20], key.as_byte_array().as_slice()].concat())
}

fn script_hash(script: &Script) -> String {
    sha256::Hash::hash(script.as_bytes()).to_byte_array().to_lower_hex_string()
}

/// Pays somebody from a coin, and returns the change.
fn pay(coin: &Spendable, to: &Script) -> (Transaction, Spendable) {
    let change = output(coin.output.value - PAID - FEE, coin.output.script_pubkey.clone());
    let transaction = spend(std::slice::from_ref(coin), vec![output(PAID, to.into()), change.clone()]);
    let outpoint = OutPoint { txid: transaction.compute_txid(), vout: 1 };
    (transaction, Spendable { outpoint, output: change, ..coin.clone() })
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
