//! The endpoints of Esplora, as its clients know them.

use super::super::json::{
    BlockJson, BlockStatusJson, MerkleProofJson, ScriptJson, SpendJson, StatusJson, TransactionJson, UnspentJson,
};
use super::super::package::{PackageJson, PackageLimits};
use super::super::pool::{RecentJson, SummaryJson};
use super::super::problem::Code;
use super::super::schema::{Decimal, Hash, HeaderHex, HexBytes};
use super::super::v1::HealthJson;
use super::endpoint::{Content, Endpoint, Given, Parameter, schema_of};
use super::{Key, OfBlock, OfScript, OfTransaction, Refusal, Route};

/// What is asked by the hash of a block may miss it.
const OF_HASH: &[Code] = &[Code::InvalidHex, Code::BlockNotFound];

/// What is asked by an address may be none, and takes the index.
const OF_ADDRESS: &[Code] = &[Code::InvalidAddress, Code::OtherNetwork, Code::NoIndex, Code::AnswerTooLarge];
const OF_SCRIPT_HASH: &[Code] = &[Code::InvalidScriptHash, Code::NoIndex, Code::AnswerTooLarge];
const UNSPENT_OF_ADDRESS: &[Code] =
    &[Code::InvalidAddress, Code::OtherNetwork, Code::NoIndex, Code::TooManyUnspent, Code::TooManyWaiting];
const UNSPENT_OF_SCRIPT_HASH: &[Code] =
    &[Code::InvalidScriptHash, Code::NoIndex, Code::TooManyUnspent, Code::TooManyWaiting];

/// A transaction in hex.
const TRANSACTION: Content = Content { media_type: "text/plain", schema: schema_of::<HexBytes> };

/// Transactions in hex.
const PACKAGE: Content = Content { media_type: "application/json", schema: schema_of::<Vec<HexBytes>> };

const PACKAGE_LIMITS: &[Parameter] = &[
    Parameter {
        name: "maxfeerate",
        description: "Take no transaction of a higher feerate than this, in BTC/kvB; 0 for no limit.",
        required: false,
        schema: schema_of::<f64>,
    },
    Parameter {
        name: "maxburnamount",
        description: "Take no transaction that makes more unspendable in an output than this, in BTC.",
        required: false,
        schema: schema_of::<f64>,
    },
];

const BROADCAST: &[Parameter] =
    &[Parameter { name: "tx", description: "The transaction in hex.", required: true, schema: schema_of::<HexBytes> }];

fn block(given: &Given<'_>, what: OfBlock) -> Result<Route, Refusal> {
    Ok(Route::Block(given.hash(0)?, what))
}

fn transaction(given: &Given<'_>, what: OfTransaction) -> Result<Route, Refusal> {
    Ok(Route::Transaction(given.hash(0)?, what))
}

fn address(given: &Given<'_>, what: OfScript) -> Result<Route, Refusal> {
    Ok(Route::Script(Key::Address(given.text(0).to_owned()), what))
}

fn script_hash(given: &Given<'_>, what: OfScript) -> Result<Route, Refusal> {
    Ok(Route::Script(Key::ScriptHash(given.text(0).to_owned()), what))
}

/// Every one.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    // ---- blocks ----
    Endpoint::get("/blocks/tip/height", "The height of the tip.", |_| Ok(Route::TipHeight)).text::<Decimal>(),
    Endpoint::get("/blocks/tip/hash", "The hash of the tip.", |_| Ok(Route::TipHash)).text::<Hash>(),
    Endpoint::get("/blocks", "The last ten blocks, newest first.", |_| Ok(Route::Blocks(None)))
        .json::<Vec<BlockJson>>(),
    Endpoint::get("/blocks/{start_height}", "Ten blocks from a height down, newest first.", |given| {
        Ok(Route::Blocks(given.number(0).ok()))
    })
    .json::<Vec<BlockJson>>()
    .refuses(&[Code::BlockNotFound]),
    Endpoint::get("/block-height/{height}", "The hash of the block at a height.", |given| {
        Ok(Route::BlockHeight(given.number(0)?))
    })
    .text::<Hash>()
    .refuses(&[Code::InvalidNumber, Code::BlockNotFound]),
    Endpoint::get("/block/{hash}", "A block in sums.", |given| block(given, OfBlock::Summary))
        .json::<BlockJson>()
        .refuses(OF_HASH),
    Endpoint::get("/block/{hash}/header", "A block's header in hex.", |given| block(given, OfBlock::Header))
        .text::<HeaderHex>()
        .refuses(OF_HASH),
    Endpoint::get("/block/{hash}/raw", "A block, serialised.", |given| block(given, OfBlock::Raw))
        .binary()
        .refuses(OF_HASH),
    Endpoint::get("/block/{hash}/status", "Whether a block is final. Of an unknown one: that it is not.", |given| {
        block(given, OfBlock::Status)
    })
    .json::<BlockStatusJson>()
    .refuses(&[Code::InvalidHex]),
    Endpoint::get("/block/{hash}/txids", "The ids of a block's transactions.", |given| block(given, OfBlock::Txids))
        .json::<Vec<Hash>>()
        .refuses(OF_HASH),
    Endpoint::get("/block/{hash}/txid/{index}", "The id of the transaction at a place of a block.", |given| {
        block(given, OfBlock::Txid(given.number(1)?))
    })
    .text::<Hash>()
    .refuses(&[Code::InvalidHex, Code::InvalidNumber, Code::BlockNotFound, Code::NoSuchPlace]),
    Endpoint::get("/block/{hash}/txs", "The first 25 transactions of a block.", |given| {
        block(given, OfBlock::Transactions(0))
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(&[Code::InvalidHex, Code::BlockNotFound, Code::NoIndex, Code::AnswerTooLarge]),
    Endpoint::get("/block/{hash}/txs/{start_index}", "25 transactions of a block, from a place on.", |given| {
        block(given, OfBlock::Transactions(given.number(1).unwrap_or_default()))
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(&[
        Code::InvalidHex,
        Code::BlockNotFound,
        Code::StartNotOnPage,
        Code::StartOutOfRange,
        Code::NoIndex,
        Code::AnswerTooLarge,
    ]),
    // ---- transactions ----
    Endpoint::get("/tx/{txid}", "A transaction.", |given| transaction(given, OfTransaction::Whole))
        .json::<TransactionJson<'static>>()
        .refuses(&[Code::InvalidHex, Code::TransactionNotFound, Code::NoIndex, Code::AnswerTooLarge]),
    Endpoint::get("/tx/{txid}/hex", "A transaction, serialised, in hex.", |given| {
        transaction(given, OfTransaction::Hex)
    })
    .text::<HexBytes>()
    .refuses(&[Code::InvalidHex, Code::TransactionNotFound, Code::NoIndex]),
    Endpoint::get("/tx/{txid}/raw", "A transaction, serialised.", |given| transaction(given, OfTransaction::Raw))
        .binary()
        .refuses(&[Code::InvalidHex, Code::TransactionNotFound, Code::NoIndex]),
    Endpoint::get("/tx/{txid}/status", "Whether a transaction is final. Of an unknown one: that it is not.", |given| {
        transaction(given, OfTransaction::Status)
    })
    .json::<StatusJson>()
    .refuses(&[Code::InvalidHex, Code::NoIndex]),
    Endpoint::get("/tx/{txid}/merkle-proof", "The proof that a transaction stands in its block.", |given| {
        transaction(given, OfTransaction::MerkleProof)
    })
    .json::<MerkleProofJson>()
    .refuses(&[Code::InvalidHex, Code::NotConfirmed, Code::NoIndex]),
    Endpoint::get("/tx/{txid}/merkleblock-proof", "The same proof as BIP-0037's merkleblock, in hex.", |given| {
        transaction(given, OfTransaction::MerkleBlockProof)
    })
    .text::<HexBytes>()
    .refuses(&[Code::InvalidHex, Code::NotConfirmed, Code::NoIndex]),
    Endpoint::get(
        "/tx/{txid}/outspend/{vout}",
        "Who spends an output. Of an unknown one: that nobody does.",
        |given| {
            let txid = given.hash(0)?;
            Ok(Route::Outspend(bitcoin::OutPoint { txid, vout: given.number(1)? }))
        },
    )
    .json::<SpendJson>()
    .refuses(&[Code::InvalidHex, Code::InvalidNumber, Code::NoIndex]),
    Endpoint::get("/tx/{txid}/outspends", "Who spends each output of a transaction.", |given| {
        Ok(Route::Outspends(given.hash(0)?))
    })
    .json::<Vec<SpendJson>>()
    .refuses(&[Code::InvalidHex, Code::TransactionNotFound, Code::NoIndex]),
    Endpoint::post("/tx", "Hands in a transaction, and answers with its id.", TRANSACTION, |_| Ok(Route::Broadcast))
        .text::<Hash>()
        .refuses(&[Code::TransactionRejected, Code::ChainMoved]),
    Endpoint::get("/broadcast", "Hands in a transaction, and answers with its id.", |given| {
        Ok(Route::BroadcastQuery(given.parameter("tx").ok_or(Refusal::MissingTx)?.to_owned()))
    })
    .query(BROADCAST)
    .text::<Hash>()
    .refuses(&[Code::MissingTx, Code::TransactionRejected, Code::ChainMoved]),
    Endpoint::post(
        "/txs/package",
        "Hands in a transaction, or a child with parents that it pays for, parents first: up to 25.",
        PACKAGE,
        |given| PackageLimits::of_query(given.query).map(Route::Package),
    )
    .query(PACKAGE_LIMITS)
    .json::<PackageJson>()
    .refuses(&[
        Code::InvalidPackage,
        Code::PackageTooLong,
        Code::PackageItemSize,
        Code::PackageItemHex,
        Code::InvalidMaxFeerate,
        Code::InvalidMaxBurn,
        Code::PackageRejected,
        Code::ChainMoved,
    ]),
    // ---- addresses and scripts ----
    Endpoint::get("/address/{address}", "What an address received and spent.", |given| {
        address(given, OfScript::Summary)
    })
    .json::<ScriptJson<'static>>()
    .refuses(OF_ADDRESS),
    Endpoint::get("/address/{address}/txs", "The newest 50 transactions that wait, and 25 final ones.", |given| {
        address(given, OfScript::Transactions)
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_ADDRESS),
    Endpoint::get("/address/{address}/txs/chain", "The newest 25 final transactions.", |given| {
        address(given, OfScript::Final(None))
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_ADDRESS),
    Endpoint::get("/address/{address}/txs/chain/{last_seen_txid}", "The next 25 final transactions.", |given| {
        address(given, OfScript::Final(Some(given.text(1).to_owned())))
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_ADDRESS),
    Endpoint::get("/address/{address}/txs/mempool", "The newest 50 transactions that wait.", |given| {
        address(given, OfScript::Waiting)
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_ADDRESS),
    Endpoint::get("/address/{address}/utxo", "What can be spent of an address.", |given| {
        address(given, OfScript::Unspent)
    })
    .json::<Vec<UnspentJson>>()
    .refuses(UNSPENT_OF_ADDRESS),
    Endpoint::get("/scripthash/{scripthash}", "What a script received and spent.", |given| {
        script_hash(given, OfScript::Summary)
    })
    .json::<ScriptJson<'static>>()
    .refuses(OF_SCRIPT_HASH),
    Endpoint::get(
        "/scripthash/{scripthash}/txs",
        "The newest 50 transactions that wait, and 25 final ones.",
        |given| script_hash(given, OfScript::Transactions),
    )
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_SCRIPT_HASH),
    Endpoint::get("/scripthash/{scripthash}/txs/chain", "The newest 25 final transactions.", |given| {
        script_hash(given, OfScript::Final(None))
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_SCRIPT_HASH),
    Endpoint::get("/scripthash/{scripthash}/txs/chain/{last_seen_txid}", "The next 25 final transactions.", |given| {
        script_hash(given, OfScript::Final(Some(given.text(1).to_owned())))
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_SCRIPT_HASH),
    Endpoint::get("/scripthash/{scripthash}/txs/mempool", "The newest 50 transactions that wait.", |given| {
        script_hash(given, OfScript::Waiting)
    })
    .json::<Vec<TransactionJson<'static>>>()
    .refuses(OF_SCRIPT_HASH),
    Endpoint::get("/scripthash/{scripthash}/utxo", "What can be spent of a script.", |given| {
        script_hash(given, OfScript::Unspent)
    })
    .json::<Vec<UnspentJson>>()
    .refuses(UNSPENT_OF_SCRIPT_HASH),
    Endpoint::get("/address-prefix/{prefix}", "Always refused: this node has no index of addresses' letters.", |_| {
        Ok(Route::AddressPrefix)
    })
    .json::<Vec<String>>()
    .refuses(&[Code::NoAddressSearch]),
    // ---- mempool and fees ----
    Endpoint::get("/mempool", "The mempool in sums.", |_| Ok(Route::Mempool)).json::<SummaryJson>(),
    Endpoint::get("/mempool/txids", "The ids of the transactions that wait.", |_| Ok(Route::MempoolTxids))
        .json::<Vec<Hash>>()
        .refuses(&[Code::AnswerTooLarge]),
    Endpoint::get("/mempool/recent", "The ten transactions that came last.", |_| Ok(Route::MempoolRecent))
        .json::<Vec<RecentJson>>(),
    Endpoint::get("/fee-estimates", "Feerates in sat/vB by blocks to wait, for 28 targets.", |_| {
        Ok(Route::FeeEstimates)
    })
    .json::<std::collections::BTreeMap<String, f64>>(),
    // ---- the node ----
    Endpoint::get("/health", "200 if the node can answer, 503 with the same object while it stops.", |_| {
        Ok(Route::Health)
    })
    .json::<HealthJson>(),
];
