//! The calls, typed.

use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{Address, BlockHash, Network, OutPoint, Transaction, Txid};
use causeway_chainspec::{BitcoinHeight, SatPerKvb};

use super::answers::{self, RawAcceptance, RawChainTip, RawHeaderPlace};
use super::block::check_header;
use super::error::{BitcoindError, Problem};
use super::{
    Acceptance, Bitcoind, ChainInfo, ChainTip, FullBlock, HeaderPlace, MempoolEntry, MempoolInfo, NetworkInfo, Refusal,
    Sent, UnspentCoin, code, raw, read_block,
};

/// Most headers or hashes asked for in one request.
pub const BATCH_MAX: usize = 200;

/// Most blocks that one call generates.
const GENERATE_MAX: u32 = 1_000;

const NO_PARAMS: [(); 0] = [];

impl Bitcoind {
    /// Where the best chain and its download stand (`getblockchaininfo`).
    pub async fn chain_info(&self) -> Result<ChainInfo, BitcoindError> {
        self.ask("getblockchaininfo", &NO_PARAMS, |info: answers::RawChainInfo| Ok(info.into())).await
    }

    /// The version and the peers (`getnetworkinfo`).
    pub async fn network_info(&self) -> Result<NetworkInfo, BitcoindError> {
        self.ask("getnetworkinfo", &NO_PARAMS, |info: answers::RawNetworkInfo| Ok(info.into())).await
    }

    /// The tip of the best chain (`getbestblockhash`).
    pub async fn best_block_hash(&self) -> Result<BlockHash, BitcoindError> {
        self.ask("getbestblockhash", &NO_PARAMS, Ok).await
    }

    /// The block of the best chain at this height (`getblockhash`); `None` above its tip.
    pub async fn block_hash(&self, height: BitcoinHeight) -> Result<Option<BlockHash>, BitcoindError> {
        let asked = self.ask("getblockhash", &(height.0,), |hash: BlockHash| Ok(Some(hash))).await;
        none_if(asked, code::INVALID_PARAMETER)
    }

    /// The blocks of the best chain at these heights, as far as it reaches: at most [`BATCH_MAX`] are asked for.
    ///
    /// The chain may change while bitcoind answers, so that two of them need not be of one chain.
    pub async fn block_hashes(&self, heights: &[BitcoinHeight]) -> Result<Vec<BlockHash>, BitcoindError> {
        let params: Vec<_> = heights.iter().take(BATCH_MAX).map(|height| raw(&(height.0,))).collect();
        let mut tries = self.tries("getblockhash");
        loop {
            let node = tries.next().await?;
            let answer = node.call_each("getblockhash", &params).await.and_then(read_hashes);
            if let Some(end) = tries.end(answer).await {
                return end;
            }
        }
    }

    /// The header of this hash, proof of work checked (`getblockheader`).
    ///
    /// # Errors
    ///
    /// Also [`Problem::NoSuchBlock`].
    pub async fn header(&self, hash: BlockHash) -> Result<Header, BitcoindError> {
        let headers = self.headers(&[hash]).await?;
        headers.into_iter().next().ok_or_else(|| self.error("getblockheader", Problem::UnexpectedAnswer))
    }

    /// The headers of these hashes, at most [`BATCH_MAX`], in their order, proof of work checked.
    ///
    /// # Errors
    ///
    /// Also [`Problem::NoSuchBlock`], for the first that bitcoind does not know.
    pub async fn headers(&self, hashes: &[BlockHash]) -> Result<Vec<Header>, BitcoindError> {
        let hashes = &hashes[..hashes.len().min(BATCH_MAX)];
        let params: Vec<_> = hashes.iter().map(|hash| raw(&(hash, false))).collect();
        let network = self.network();
        let mut tries = self.tries("getblockheader");
        loop {
            let node = tries.next().await?;
            let answers = node.call_each::<String>("getblockheader", &params).await;
            let answer = answers.and_then(|answers| {
                answers.into_iter().zip(hashes).map(|(answer, hash)| read_header(network, *hash, answer)).collect()
            });
            if let Some(end) = tries.end(answer).await {
                return end;
            }
        }
    }

    /// Where these headers, at most [`BATCH_MAX`], stand for bitcoind; `None` for one that it does not know.
    pub async fn header_places(&self, hashes: &[BlockHash]) -> Result<Vec<Option<HeaderPlace>>, BitcoindError> {
        let hashes = &hashes[..hashes.len().min(BATCH_MAX)];
        let params: Vec<_> = hashes.iter().map(|hash| raw(&(hash, true))).collect();
        let mut tries = self.tries("getblockheader");
        loop {
            let node = tries.next().await?;
            let answers = node.call_each::<RawHeaderPlace>("getblockheader", &params).await;
            let answer = answers.and_then(|answers| {
                answers.into_iter().zip(hashes).map(|(answer, hash)| read_place(*hash, answer)).collect()
            });
            if let Some(end) = tries.end(answer).await {
                return end;
            }
        }
    }

    /// The block of this hash, all of it proven by the hash (`getblock`). The checks run off the async threads.
    ///
    /// # Errors
    ///
    /// Also [`Problem::NoSuchBlock`], [`Problem::Pruned`] and [`Problem::FalseBlock`].
    pub async fn block(&self, hash: BlockHash) -> Result<FullBlock, BitcoindError> {
        let network = self.network();
        let params = raw(&(hash, 0));
        let mut tries = self.tries("getblock");
        loop {
            let node = tries.next().await?;
            let answer = match absent(node.call::<String>("getblock", &params).await, hash) {
                Ok(hex) => {
                    let checked = tokio::task::spawn_blocking(move || read_block(network, hash, &hex)).await;
                    checked.unwrap_or(Err(Problem::UnexpectedAnswer))
                }
                Err(problem) => Err(problem),
            };
            if let Some(end) = tries.end(answer).await {
                return end;
            }
        }
    }

    /// Every branch that bitcoind knows (`getchaintips`).
    pub async fn chain_tips(&self) -> Result<Vec<ChainTip>, BitcoindError> {
        let read = |tips: Vec<RawChainTip>| Ok(tips.into_iter().map(ChainTip::from).collect());
        self.ask("getchaintips", &NO_PARAMS, read).await
    }

    /// A transaction of the mempool, or of `block` if that is given (`getrawtransaction`); `None` if it is not there.
    pub async fn transaction(
        &self,
        txid: Txid,
        block: Option<BlockHash>,
    ) -> Result<Option<Transaction>, BitcoindError> {
        let read = |hex: String| {
            let transaction: Transaction = expected(deserialize_hex(&hex).ok())?;
            expected((transaction.compute_txid() == txid).then_some(Some(transaction)))
        };
        let asked = match block {
            Some(block) => self.ask("getrawtransaction", &(txid, false, block), read).await,
            None => self.ask("getrawtransaction", &(txid, false), read).await,
        };
        none_if(asked, code::NOT_FOUND)
    }

    /// The coin at this outpoint in the coin set of the best chain, whatever the mempool does with it (`gettxout`);
    /// `None` if it is spent or never was.
    pub async fn coin(&self, outpoint: OutPoint) -> Result<Option<UnspentCoin>, BitcoindError> {
        let params = (outpoint.txid, outpoint.vout, false);
        self.ask("gettxout", &params, |coin: Option<answers::RawUnspentCoin>| Ok(coin.map(UnspentCoin::from))).await
    }

    /// Which of these outpoints, at most [`BATCH_MAX`], transactions of the mempool spend (`gettxspendingprevout`), in their
    /// order.
    pub async fn spent_in_mempool(&self, outpoints: &[OutPoint]) -> Result<Vec<bool>, BitcoindError> {
        let asked = &outpoints[..outpoints.len().min(BATCH_MAX)];
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let params: Vec<_> = asked.iter().map(|it| serde_json::json!({ "txid": it.txid, "vout": it.vout })).collect();
        let read = |answers: Vec<answers::RawSpending>| {
            let same = answers.len() == asked.len();
            expected(same.then(|| answers.iter().map(|answer| answer.spendingtxid.is_some()).collect()))
        };
        self.ask("gettxspendingprevout", &(params,), read).await
    }

    /// Sends a transaction to the network, whatever fee it pays (`sendrawtransaction`).
    pub async fn send(&self, transaction: &Transaction) -> Result<Sent, BitcoindError> {
        let txid = transaction.compute_txid();
        let read = |got: Txid| expected((got == txid).then_some(Sent::InMempool));
        let params = (serialize_hex(transaction), 0);
        match self.ask("sendrawtransaction", &params, read).await {
            Err(BitcoindError { problem: Problem::Rpc(error), .. }) if error.code == code::ALREADY_IN_CHAIN => {
                Ok(Sent::InChain)
            }
            Err(BitcoindError { problem: Problem::Rpc(error), .. })
                if matches!(error.code, code::TRANSACTION_ERROR | code::TRANSACTION_REJECTED) =>
            {
                Ok(sent_of(error.message.as_str()))
            }
            answer => answer,
        }
    }

    /// Whether the mempool would take a transaction, whatever fee it pays (`testmempoolaccept`).
    pub async fn test_accept(&self, transaction: &Transaction) -> Result<Acceptance, BitcoindError> {
        let txid = transaction.compute_txid();
        let read = |answers: Vec<RawAcceptance>| {
            let answer = expected(answers.into_iter().next().filter(|answer| answer.txid == txid))?;
            match (answer.allowed, answer.vsize, answer.fees, answer.reject_reason) {
                (Some(true), Some(vsize), Some(fees), _) => Ok(Acceptance::Allowed { vsize, fee: fees.base.0 }),
                (Some(false), _, _, Some(reason)) => Ok(acceptance_of(&reason)),
                _ => Err(Problem::UnexpectedAnswer),
            }
        };
        self.ask("testmempoolaccept", &([serialize_hex(transaction)], 0), read).await
    }

    /// A transaction that waits in the mempool (`getmempoolentry`); `None` if it is not there.
    pub async fn mempool_entry(&self, txid: Txid) -> Result<Option<MempoolEntry>, BitcoindError> {
        let read = |entry: answers::RawMempoolEntry| Ok(Some(entry.into()));
        none_if(self.ask("getmempoolentry", &(txid,), read).await, code::NOT_FOUND)
    }

    /// The state of the mempool (`getmempoolinfo`).
    pub async fn mempool_info(&self) -> Result<MempoolInfo, BitcoindError> {
        self.ask("getmempoolinfo", &NO_PARAMS, |info: answers::RawMempoolInfo| Ok(info.into())).await
    }

    /// What bitcoind expects a transaction to need to confirm within `blocks`, 1 to 1,008 (`estimatesmartfee`); `None`
    /// if it has seen too little.
    pub async fn estimate_feerate(&self, blocks: u16) -> Result<Option<SatPerKvb>, BitcoindError> {
        let read = |estimate: answers::RawFeeEstimate| Ok(estimate.feerate.map(answers::Btc::to_feerate));
        self.ask("estimatesmartfee", &(blocks.clamp(1, 1_008), "economical"), read).await
    }

    /// Mines up to 1,000 blocks that pay `address` (`generatetoaddress`).
    ///
    /// # Errors
    ///
    /// Also [`Problem::NotRegtest`].
    pub async fn generate(&self, blocks: u32, address: &Address) -> Result<Vec<BlockHash>, BitcoindError> {
        if self.network() != Network::Regtest {
            return Err(self.error("generatetoaddress", Problem::NotRegtest));
        }
        self.ask("generatetoaddress", &(blocks.min(GENERATE_MAX), address.to_string()), Ok).await
    }

    fn error(&self, method: &'static str, problem: Problem) -> BitcoindError {
        BitcoindError { endpoint: self.endpoint().clone(), method, problem }
    }
}

fn expected<T>(value: Option<T>) -> Result<T, Problem> {
    value.ok_or(Problem::UnexpectedAnswer)
}

/// The hashes up to the first height above the best chain.
fn read_hashes(answers: Vec<Result<BlockHash, Problem>>) -> Result<Vec<BlockHash>, Problem> {
    let mut hashes = Vec::with_capacity(answers.len());
    for answer in answers {
        match answer {
            Ok(hash) => hashes.push(hash),
            Err(Problem::Rpc(error)) if error.code == code::INVALID_PARAMETER => break,
            Err(problem) => return Err(problem),
        }
    }
    Ok(hashes)
}

fn read_header(network: Network, hash: BlockHash, answer: Result<String, Problem>) -> Result<Header, Problem> {
    let header: Header = expected(deserialize_hex(&absent(answer, hash)?).ok())?;
    check_header(network, hash, &header).map_err(Problem::FalseBlock)?;
    Ok(header)
}

fn read_place(hash: BlockHash, answer: Result<RawHeaderPlace, Problem>) -> Result<Option<HeaderPlace>, Problem> {
    match absent(answer, hash) {
        Ok(raw) if raw.hash == hash => expected(raw.place()).map(Some),
        Ok(_) => Err(Problem::UnexpectedAnswer),
        Err(Problem::NoSuchBlock { .. }) => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn none_if<T>(answer: Result<Option<T>, BitcoindError>, none: i32) -> Result<Option<T>, BitcoindError> {
    match answer {
        Err(BitcoindError { problem: Problem::Rpc(error), .. }) if error.code == none => Ok(None),
        answer => answer,
    }
}

/// Gives the errors about a block that is not there their own names.
fn absent<T>(answer: Result<T, Problem>, block: BlockHash) -> Result<T, Problem> {
    answer.map_err(|problem| match problem {
        Problem::Rpc(error) if error.code == code::NOT_FOUND => Problem::NoSuchBlock { block },
        Problem::Rpc(error) if error.code == code::MISC && error.message.as_str().contains("pruned") => {
            Problem::Pruned { block }
        }
        Problem::Rpc(error) if error.code == code::MISC && error.message.as_str().contains("not available") => {
            Problem::NoSuchBlock { block }
        }
        problem => problem,
    })
}

fn sent_of(reason: &str) -> Sent {
    match acceptance_of(reason) {
        Acceptance::InMempool | Acceptance::Allowed { .. } => Sent::InMempool,
        Acceptance::InChain => Sent::InChain,
        Acceptance::Refused(refusal) => Sent::Refused(refusal),
    }
}

fn acceptance_of(reason: &str) -> Acceptance {
    match reason {
        "txn-already-in-mempool" | "txn-same-nonwitness-data-in-mempool" => Acceptance::InMempool,
        "txn-already-known" => Acceptance::InChain,
        _ => Acceptance::Refused(Refusal::of(reason)),
    }
}
