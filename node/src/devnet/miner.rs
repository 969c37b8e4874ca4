//! Bitcoin on regtest, as whoever mines it: blocks on demand, and payments from the first blocks' coins.

use std::time::{Duration, Instant};

use bitcoin::{Address, Amount, Network, OutPoint, Transaction, TxOut, Txid};
use causeway_chainspec::BitcoinHeight;
use causeway_federation::bitcoind::{
    BATCH_MAX, Bitcoind, BitcoindConfig, EndpointConfig, FoundCoin, Problem, Sent, UnspentCoin,
};
use tokio::runtime::{Builder, Runtime};

use super::bitcoind::DevBitcoin;
use super::key::{Coin, DevKey, MINER, SINK, TooLittle};
use super::process::Daemon;
use super::{DevnetError, io_error};

/// Blocks that pay the miner's key. Regtest halves its subsidy every 150 blocks, and a coinbase can be spent once 100 blocks
/// stand on it: 50 of them pay 50 BTC at once, the others later.
const FIRST_BLOCKS: u32 = 150;

/// Confirmations of a coinbase that can be spent in the next block.
const COINBASE_CONFIRMATIONS: u32 = 100;

/// Most blocks that one call of bitcoind mines.
const CALL_BLOCKS_MAX: u32 = 1_000;

/// Whoever mines the devnet's Bitcoin.
#[derive(Debug)]
pub struct Miner {
    runtime: Runtime,
    client: Bitcoind,
    key: DevKey,
}

impl Miner {
    /// The miner at this Bitcoin Core, which need not run yet.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn new(bitcoin: &DevBitcoin) -> Result<Self, DevnetError> {
        // A thread of its own notices what bitcoind does between two calls.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|source| io_error(&bitcoin.directory, "watched", source))?;
        let endpoint = EndpointConfig { endpoint: bitcoin.endpoint(), credentials_file: bitcoin.cookie.clone() };
        let config = BitcoindConfig::new(Network::Regtest, vec![endpoint]);
        let client = Bitcoind::new(config).expect("one is a number of endpoints that it takes");
        Ok(Self { runtime, client, key: DevKey::of(MINER, Network::Regtest) })
    }

    /// Waits until bitcoind answers.
    ///
    /// # Errors
    /// It ends, stays silent, or something else answers.
    pub fn wait_ready(&self, daemon: &mut Daemon, timeout: Duration) -> Result<(), DevnetError> {
        let started = Instant::now();
        loop {
            daemon.check()?;
            match self.runtime.block_on(self.client.chain_info()) {
                Ok(_) => return Ok(()),
                Err(error) if matches!(error.problem, Problem::TooOld { .. } | Problem::WrongNetwork { .. }) => {
                    return Err(error.into());
                }
                Err(error) if started.elapsed() > timeout => return Err(error.into()),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Mines the first blocks of a new chain; on an old one a single block, so that its tip is not old.
    ///
    /// # Errors
    /// bitcoind does not answer.
    pub fn prepare(&self) -> Result<BitcoinHeight, DevnetError> {
        let height = self.height()?;
        match FIRST_BLOCKS.checked_sub(height.0) {
            Some(missing) if missing > 0 => self.mine_to(missing, &self.key.address()),
            _ => self.mine(1),
        }
    }

    /// Mines so many blocks, and returns the height of the last.
    ///
    /// # Errors
    /// bitcoind does not answer, or refuses: blocks whose time is two hours ahead.
    pub fn mine(&self, blocks: u32) -> Result<BitcoinHeight, DevnetError> {
        self.mine_to(blocks, &DevKey::of(SINK, Network::Regtest).address())
    }

    fn mine_to(&self, blocks: u32, address: &Address) -> Result<BitcoinHeight, DevnetError> {
        let mut left = blocks;
        while left > 0 {
            let mined = self.runtime.block_on(self.client.generate(left.min(CALL_BLOCKS_MAX), address))?;
            let mined = u32::try_from(mined.len()).unwrap_or(u32::MAX);
            if mined == 0 {
                return Err(DevnetError::BitcoinRefused { reason: "it mines no block".to_owned() });
            }
            left = left.saturating_sub(mined);
        }
        // A scan makes bitcoind write its state to disk: killed, it would come back without the blocks since the last time,
        // and the peg freezes when Bitcoin goes back so far.
        self.balance(&self.key.address())?;
        self.height()
    }

    /// The height of Bitcoin's tip.
    ///
    /// # Errors
    /// bitcoind does not answer.
    pub fn height(&self) -> Result<BitcoinHeight, DevnetError> {
        Ok(self.runtime.block_on(self.client.chain_info())?.blocks)
    }

    /// Bitcoin Core's name and version, as it tells its peers.
    ///
    /// # Errors
    /// bitcoind does not answer.
    pub fn user_agent(&self) -> Result<String, DevnetError> {
        Ok(self.runtime.block_on(self.client.network_info())?.user_agent.to_string())
    }

    /// Pays an address from the miner's coins, and returns the output. No block is mined.
    ///
    /// # Errors
    /// There are too few coins, or bitcoind refuses the payment: an amount below dust.
    pub fn pay(&self, address: &Address, amount: Amount) -> Result<OutPoint, DevnetError> {
        let coins = self.coins()?;
        let outputs = [TxOut { value: amount, script_pubkey: address.script_pubkey() }];
        let transaction = self.key.pay(&coins, &outputs).map_err(|TooLittle { available }| DevnetError::TooLittle {
            needed: amount,
            available,
            advice: "mine blocks for more, up to 100, with \"causeway devnet mine\"",
        })?;
        match self.runtime.block_on(self.client.send(&transaction))? {
            Sent::InMempool | Sent::InChain => Ok(OutPoint { txid: transaction.compute_txid(), vout: 0 }),
            Sent::Refused(refusal) => Err(DevnetError::BitcoinRefused { reason: refusal.to_string() }),
        }
    }

    /// The miner's coins that a transaction may spend at this moment.
    fn coins(&self) -> Result<Vec<Coin>, DevnetError> {
        let (found, tip) = self.runtime.block_on(self.client.scan(&[self.key.script()]))?;
        let is_ripe = |coin: &FoundCoin| !coin.coinbase || coin.height.confirmations(tip) >= COINBASE_CONFIRMATIONS;
        let ripe: Vec<FoundCoin> = found.into_iter().filter(is_ripe).collect();
        let mut coins = Vec::new();
        for chunk in ripe.chunks(BATCH_MAX) {
            let outpoints: Vec<OutPoint> = chunk.iter().map(|coin| coin.outpoint).collect();
            let spent = self.runtime.block_on(self.client.spent_in_mempool(&outpoints))?;
            let free = chunk.iter().zip(spent).filter(|(_, spent)| !spent);
            coins.extend(free.map(|(coin, _)| Coin { outpoint: coin.outpoint, value: coin.value }));
        }
        Ok(coins)
    }

    /// What an address has in blocks.
    ///
    /// # Errors
    /// bitcoind does not answer.
    pub fn balance(&self, address: &Address) -> Result<Amount, DevnetError> {
        let (coins, _) = self.runtime.block_on(self.client.scan(&[address.script_pubkey()]))?;
        Ok(coins.iter().map(|coin| coin.value).sum())
    }

    /// A transaction that bitcoind knows: of its mempool, or of a block.
    ///
    /// # Errors
    /// bitcoind does not answer.
    pub fn transaction(&self, txid: Txid) -> Result<Option<Transaction>, DevnetError> {
        Ok(self.runtime.block_on(self.client.transaction(txid, None))?)
    }

    /// A coin of the best chain.
    ///
    /// # Errors
    /// bitcoind does not answer.
    pub fn coin(&self, outpoint: OutPoint) -> Result<Option<UnspentCoin>, DevnetError> {
        Ok(self.runtime.block_on(self.client.coin(outpoint))?)
    }
}
