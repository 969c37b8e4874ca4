//! The wallet against nodes that answer what a test wants, and without any.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bdk_wallet::KeychainKind;
use bitcoin::hashes::Hash as _;
use bitcoin::{Address, Amount, FeeRate, OutPoint, Transaction, TxIn, TxOut, Txid};
use causeway_chainspec::{BitcoinHeight, ChainSpec};
use causeway_consensus::peg::script::{DepositTerms, EpochScripts};
use causeway_federation::bitcoind::FoundCoin;
use causeway_federation::keystore::{Passphrase, SealedFileError};
use serde_json::json;
use zeroize::Zeroizing;

use super::keys::parse_mnemonic;
use super::node::Node;
use super::open::{GAP, HistoryKind, Look, now_s};
use super::{Wallet, WalletError};

const MNEMONIC: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

/// Answers by method and path; everything else is 404.
struct FakeNode {
    url: String,
    answers: Arc<Mutex<HashMap<String, (u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeNode {
    fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<Mutex<HashMap<String, (u16, String)>>> = Arc::default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (of_thread, told) = (Arc::clone(&answers), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut bytes = Vec::new();
                let mut byte = [0; 1];
                while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                    bytes.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&bytes).into_owned();
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")
                        .and_then(|value| value.trim().parse().ok())
                });
                let mut body = vec![0; length.unwrap_or(0)];
                stream.read_exact(&mut body).unwrap();
                let request = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
                told.lock().unwrap().push(format!("{request} {}", String::from_utf8_lossy(&body)));
                let answer = of_thread.lock().unwrap().get(&request).cloned();
                // Of a script that nobody used there is nothing to tell.
                let none = request.starts_with("GET /scripthash/").then(|| (200, "[]".to_owned()));
                let (status, text) = answer.or(none).unwrap_or((404, "nothing here".to_owned()));
                let answer =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let node = Self { url, answers, asked };
        node.answer("GET /block-height/1", 200, spec().chain_id().block_hash());
        node
    }

    fn answer(&self, request: &str, status: u16, body: impl ToString) {
        self.answers.lock().unwrap().insert(request.to_owned(), (status, body.to_string()));
    }

    fn node(&self) -> Node {
        Node::new(&self.url, false).unwrap()
    }
}

struct Scene {
    _directory: tempfile::TempDir,
    path: PathBuf,
    node: FakeNode,
}

fn spec() -> ChainSpec {
    ChainSpec::built_in("devnet").unwrap()
}

fn passphrase() -> Passphrase {
    Passphrase::new(Zeroizing::new("a passphrase of tests".to_owned())).unwrap()
}

fn scene() -> (Scene, Wallet) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("of/a user/wallet");
    let node = FakeNode::new();
    let mnemonic = parse_mnemonic(MNEMONIC).unwrap();
    let wallet = Wallet::create(&path, &passphrase(), &mnemonic, spec(), &node.node(), false).unwrap();
    (Scene { _directory: directory, path, node }, wallet)
}

/// A payment of somebody else to the wallet, final or not.
fn receive(wallet: &mut Wallet, value: u64, is_final: bool) -> Txid {
    let script_pubkey = wallet.coins.reveal_next_address(KeychainKind::External).address.script_pubkey();
    let previous_output = OutPoint { txid: Txid::from_byte_array([7; 32]), vout: u32::try_from(value).unwrap() };
    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output, ..TxIn::default() }],
        output: vec![TxOut { value: Amount::from_sat(value), script_pubkey }],
    };
    let txid = transaction.compute_txid();
    if is_final {
        let mut update = bdk_wallet::chain::TxUpdate::default();
        update.txs.push(Arc::new(transaction));
        let block_id = bdk_wallet::chain::BlockId { height: 150, hash: bitcoin::BlockHash::from_byte_array([9; 32]) };
        let anchor = bdk_wallet::chain::ConfirmationBlockTime { block_id, confirmation_time: 5 };
        update.anchors.insert((anchor, txid));
        let chain = wallet.coins.latest_checkpoint().insert(block_id);
        let update = bdk_wallet::Update { tx_update: update, chain: Some(chain), ..Default::default() };
        wallet.coins.apply_update(update).unwrap();
    } else {
        wallet.coins.apply_unconfirmed_txs([(transaction, now_s())]);
    }
    txid
}

fn rate(sat_per_vb: u64) -> FeeRate {
    FeeRate::from_sat_per_vb(sat_per_vb).unwrap()
}

fn somebody() -> Address {
    crate::devnet::key::DevKey::of("somebody", bitcoin::Network::Regtest).address()
}

#[test]
fn a_wallet_comes_back_from_its_file_and_shows_nothing_there() {
    let (scene, mut wallet) = scene();
    let (index, address) = wallet.address(false).unwrap();
    assert_eq!((index, wallet.address(false).unwrap()), (0, (0, address.clone())), "the same until it is paid");
    assert_eq!(wallet.address(true).unwrap().0, 1);
    receive(&mut wallet, 70_000, true);
    wallet.save().unwrap();
    let shown = format!("{wallet:?}");
    assert!(!shown.contains("abandon") && !shown.contains("prv"));

    let again = Wallet::open(&scene.path, &passphrase());
    assert!(matches!(again, Err(WalletError::File(SealedFileError::InUse { .. }))));
    drop(wallet);
    let bytes = std::fs::read(&scene.path).unwrap();
    let shows = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(!shows("abandon") && !shows("tpub") && !shows(&address.to_string()));

    let wallet = Wallet::open(&scene.path, &passphrase()).unwrap();
    assert_eq!(wallet.balance().confirmed.to_sat(), 70_000);
    assert_eq!(wallet.mnemonic(), MNEMONIC);
    assert_eq!(wallet.node(), scene.node.url);
    assert_eq!(wallet.spec().chain_id(), spec().chain_id());
    assert_eq!(wallet.address_at(0), address);
    let mnemonic = parse_mnemonic(MNEMONIC).unwrap();
    let second = Wallet::create(&scene.path, &passphrase(), &mnemonic, spec(), &scene.node.node(), false);
    assert!(matches!(second, Err(WalletError::File(SealedFileError::Exists { .. }))));
}

#[test]
fn blocks_that_nothing_needs_are_forgotten() {
    let (_scene, mut wallet) = scene();
    receive(&mut wallet, 70_000, true);
    for height in 1_000_u32..1_100 {
        let hash = bitcoin::BlockHash::from_byte_array([u8::try_from(height % 250).unwrap(); 32]);
        let chain = wallet.coins.latest_checkpoint().insert(bdk_wallet::chain::BlockId { height, hash });
        wallet.coins.apply_update(bdk_wallet::Update { chain: Some(chain), ..Default::default() }).unwrap();
    }
    wallet.save().unwrap();
    let heights: Vec<u32> = wallet.content.state.local_chain.blocks.keys().copied().collect();
    assert_eq!(heights[..2], [0, 150], "the first block, and the one that holds a transaction");
    assert_eq!(heights[2..], (1_088..1_100).collect::<Vec<u32>>());
}

#[test]
fn a_payment_is_what_was_asked_for() {
    let (scene, mut wallet) = scene();
    receive(&mut wallet, 100_000, true);
    let unsure = receive(&mut wallet, 500_000, false);
    let draft = wallet.draft(&somebody(), Amount::from_sat(30_000), rate(2)).unwrap();
    assert_eq!(draft.payments.len(), 1);
    assert_eq!(draft.payments[0].address, somebody());
    assert_eq!(draft.payments[0].amount.to_sat(), 30_000);
    assert_eq!(draft.payments[0].amount + draft.fee + draft.change, Amount::from_sat(100_000));
    assert!(draft.fee_rate >= rate(2) && draft.fee_rate < FeeRate::from_sat_per_kwu(520), "{}", draft.fee_rate);
    assert!(draft.replaces.is_none());

    // What its sender may still take back is not spent.
    let refused = wallet.draft(&somebody(), Amount::from_sat(200_000), rate(1)).unwrap_err();
    assert!(matches!(refused, WalletError::TooLittle { available, .. } if available.to_sat() == 100_000), "{refused}");
    assert!(matches!(wallet.draft(&somebody(), Amount::from_sat(100), rate(1)), Err(WalletError::Dust { .. })));
    let theirs = wallet.replace(unsure, None, rate(1)).unwrap_err();
    assert!(matches!(theirs, WalletError::Bump { .. }), "{theirs}");

    // A node that refuses it is told of, and nothing has changed.
    let json = r#"sendrawtransaction RPC error: {"code":-26,"message":"dust"}"#;
    scene.node.answer("POST /tx", 400, json);
    let refused = wallet.send(&scene.node.node(), &draft).unwrap_err();
    assert!(matches!(&refused, WalletError::Refused { reason } if reason == "dust"), "{refused}");
    scene.node.answer("POST /tx", 504, "overloaded");
    let unknown = wallet.send(&scene.node.node(), &draft).unwrap_err();
    assert!(matches!(unknown, WalletError::Unknown { txid, .. } if txid == draft.txid()), "{unknown}");
    assert_eq!(wallet.history().len(), 2);

    scene.node.answer("POST /tx", 200, draft.txid());
    let txid = wallet.send(&scene.node.node(), &draft).unwrap();
    assert_eq!(wallet.balance().trusted_pending, draft.change);
    let entry = wallet.history().into_iter().find(|entry| entry.txid == txid).unwrap();
    assert_eq!((entry.kind, entry.fee, entry.place), (HistoryKind::Sent, Some(draft.fee), None));

    let too_low = wallet.replace(txid, Some(rate(2)), FeeRate::ZERO).unwrap_err();
    assert!(matches!(too_low, WalletError::FeeRateTooLow { .. }), "{too_low}");
    let replacement = wallet.replace(txid, None, rate(1)).unwrap();
    assert_eq!(replacement.payments[0].address, somebody());
    assert_eq!(replacement.payments[0].amount.to_sat(), 30_000);
    assert_eq!(replacement.replaces, Some(txid));
    // BIP125: 1 sat for each virtual byte more.
    assert!(replacement.fee_rate >= rate(3), "{}", replacement.fee_rate);
    scene.node.answer("POST /tx", 200, replacement.txid());
    let second = wallet.send(&scene.node.node(), &replacement).unwrap();
    let pending: Vec<Txid> = wallet
        .history()
        .iter()
        .filter(|entry| entry.place.is_none() && entry.fee.is_some())
        .map(|it| it.txid)
        .collect();
    assert_eq!(pending, [second], "the replaced payment is gone");
    assert!(matches!(wallet.replace(txid, None, rate(9)), Err(WalletError::Bump { .. })));
}

#[test]
fn a_peg_out_pays_the_address_that_the_chainspec_says() {
    let (_scene, mut wallet) = scene();
    receive(&mut wallet, 500_000, true);
    let bitcoin = somebody().to_string();
    let amount = Amount::from_sat(40_000);
    let address = wallet.peg_out_address(&bitcoin, amount).unwrap();
    assert_eq!(address, spec().peg_out_address(somebody().into_unchecked()).unwrap());
    let draft = wallet.draft(&address, amount, rate(1)).unwrap();
    assert_eq!(draft.payments[0].bitcoin_address, Some(somebody()));
    assert_eq!(draft.outpoint(), Some(OutPoint { txid: draft.txid(), vout: draft.payments[0].vout }));

    for (sat, given) in [(19_999, bitcoin.as_str()), (10_000_000_001, &bitcoin)] {
        let refused = wallet.peg_out_address(given, Amount::from_sat(sat)).unwrap_err();
        assert!(matches!(refused, WalletError::PegOutAmount { .. }), "{refused}");
    }
    for given in ["bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "x", ""] {
        assert!(matches!(wallet.peg_out_address(given, amount), Err(WalletError::BitcoinAddress { .. })), "{given}");
    }
    // A peg-out address is none of Bitcoin.
    let refused = wallet.peg_out_address(&address.to_string(), amount).unwrap_err();
    assert!(matches!(refused, WalletError::PegOutAddress { .. }), "{refused}");
}

/// A payment to a script as Esplora tells of it, but for its txid.
fn told(script: &bitcoin::ScriptBuf, number: u32) -> serde_json::Value {
    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint { txid: Txid::from_byte_array([7; 32]), vout: number },
            ..TxIn::default()
        }],
        output: vec![TxOut { value: Amount::from_sat(5_000), script_pubkey: script.clone() }],
    };
    json!({
        "txid": transaction.compute_txid(), "version": 2, "locktime": 0, "size": 1, "weight": 4, "fee": 0,
        "vin": [{
            "txid": "07".repeat(32), "vout": number, "prevout": null, "scriptsig": "", "is_coinbase": false,
            "sequence": 4_294_967_295_u32, "witness": ["ab".repeat(20_000), "zz"],
        }],
        "vout": [{ "scriptpubkey": script, "value": 5_000, "scriptpubkey_type": "v1_p2tr" }],
        "status": { "confirmed": true, "block_height": 150, "block_hash": "09".repeat(32), "block_time": 5 },
    })
}

/// Makes a fake node answer for the last blocks, and for no history but those that are given.
fn answer_blocks(node: &FakeNode) {
    let genesis = spec().derived_block(causeway_chainspec::Height(0)).unwrap().block_hash();
    let blocks = json!([{ "height": 150, "id": "09".repeat(32) }, { "height": 0, "id": genesis }]);
    node.answer("GET /blocks", 200, blocks);
}

fn histories_of(address: &Address) -> String {
    use bitcoin::hashes::{Hash as _, sha256};
    format!("GET /scripthash/{}/txs", sha256::Hash::hash(address.script_pubkey().as_bytes()))
}

#[test]
fn a_history_is_read_to_its_end_and_no_further() {
    let (scene, mut wallet) = scene();
    let address = wallet.address(true).unwrap().1;
    let (script, node) = (address.script_pubkey(), scene.node.node());
    answer_blocks(&scene.node);
    let path = histories_of(&address);
    let page = |numbers: std::ops::Range<u32>| numbers.map(|number| told(&script, number)).collect::<Vec<_>>();
    let full = page(0..25);
    let after = |page: &[serde_json::Value]| format!("{path}/chain/{}", page.last().unwrap()["txid"].as_str().unwrap());

    // A full page again and again.
    scene.node.answer(&path, 200, json!(full));
    scene.node.answer(&after(&full), 200, json!(full));
    let refused = wallet.sync(&node, Look::Shown).unwrap_err();
    assert!(matches!(refused, WalletError::Unreadable { .. }), "{refused}");
    // More than any page has.
    scene.node.answer(&path, 200, json!(page(0..201)));
    assert!(matches!(wallet.sync(&node, Look::Shown), Err(WalletError::Unreadable { .. })));
    // Another transaction than the txid's.
    let mut other = page(0..1);
    other[0]["vout"][0]["value"] = json!(5_001);
    scene.node.answer(&path, 200, json!(other));
    assert!(matches!(wallet.sync(&node, Look::Shown), Err(WalletError::Unreadable { .. })));
    // No index.
    scene.node.answer(&path, 400, "this node keeps no index of transactions and addresses: ask another one");
    let refused = wallet.sync(&node, Look::Shown).unwrap_err();
    assert!(matches!(refused, WalletError::Sync { .. }), "{refused}");
    // Another block 0.
    scene.node.answer("GET /blocks", 200, json!([{ "height": 0, "id": "11".repeat(32) }]));
    scene.node.answer(&path, 200, json!([]));
    assert!(matches!(wallet.sync(&node, Look::Shown), Err(WalletError::Disconnected { .. })));
    assert_eq!(wallet.history().len(), 0);

    // The whole of it. A witness that is long is not even read.
    answer_blocks(&scene.node);
    let rest = page(25..28);
    scene.node.answer(&path, 200, json!(full));
    scene.node.answer(&after(&full), 200, json!(rest));
    wallet.sync(&node, Look::Shown).unwrap();
    assert_eq!((wallet.history().len(), wallet.balance().confirmed.to_sat()), (28, 28 * 5_000));
    assert!(std::fs::metadata(&scene.path).unwrap().len() < 100_000);
    // A lie about a block is made good by an honest node.
    scene.node.answer("GET /blocks", 200, json!([{ "height": 151, "id": "0b".repeat(32) }]));
    scene.node.answer("GET /block-height/150", 200, "09".repeat(32));
    wallet.sync(&node, Look::Shown).unwrap();
    scene.node.answer("GET /blocks", 200, json!([{ "height": 151, "id": "0c".repeat(32) }]));
    wallet.sync(&node, Look::Shown).unwrap();
    assert_eq!((wallet.height(), wallet.balance().confirmed.to_sat()), (151, 28 * 5_000));
}

#[test]
fn words_alone_find_every_coin_that_the_wallet_could_have_received() {
    let (scene, wallet) = scene();
    let node = scene.node.node();
    answer_blocks(&scene.node);
    let directory = tempfile::tempdir().unwrap();
    let restored = |name: &str| {
        let mnemonic = parse_mnemonic(MNEMONIC).unwrap();
        Wallet::create(&directory.path().join(name), &passphrase(), &mnemonic, spec(), &node, true).unwrap()
    };
    // Whose only coin is behind addresses that nobody paid: deposit addresses, say.
    for (index, gap, is_found) in
        [(69, None, true), (999, None, true), (1_000, None, false), (1_000, Some(1_500), true)]
    {
        let address = wallet.address_at(index);
        scene.node.answer(&histories_of(&address), 200, json!([told(&address.script_pubkey(), index)]));
        let mut wallet = restored(&format!("{index} {gap:?}"));
        wallet.sync(&node, gap.map_or(Look::Shown, |gap| Look::All { gap })).unwrap();
        let expected = if is_found { 5_000 } else { 0 };
        assert_eq!(wallet.balance().confirmed.to_sat(), expected, "{index} {gap:?}");
        if is_found {
            assert_eq!(wallet.address(true).unwrap().0, index + 1);
        }
        scene.node.answer(&histories_of(&address), 200, "[]");
    }
    // Coins one behind the other, each as far as can be.
    for index in [999, 1_999] {
        let address = wallet.address_at(index);
        scene.node.answer(&histories_of(&address), 200, json!([told(&address.script_pubkey(), index)]));
    }
    let mut wallet = restored("both");
    wallet.sync(&node, Look::Shown).unwrap();
    assert_eq!(wallet.balance().confirmed.to_sat(), 10_000);
}

#[test]
fn no_address_is_shown_that_the_words_alone_would_not_find() {
    let (scene, mut wallet) = scene();
    let node = scene.node.node();
    answer_blocks(&scene.node);
    let _ = wallet.coins.reveal_addresses_to(KeychainKind::External, GAP - 2).last();
    assert_eq!(wallet.address(true).unwrap().0, GAP - 1);
    let refused = wallet.address(true).unwrap_err();
    assert!(matches!(refused, WalletError::GapFull { gap: GAP }), "{refused}");
    assert!(refused.to_string().contains("wallet balance"));
    assert_eq!(wallet.address(false).unwrap().0, 0, "one that was shown");
    // A deposit address that is asked for is looked for first: perhaps somebody has paid.
    assert!(matches!(wallet.new_deposit(&node), Err(WalletError::GapFull { .. })));
    let paid = wallet.address_at(4);
    scene.node.answer(&histories_of(&paid), 200, json!([told(&paid.script_pubkey(), 4)]));
    let next = wallet.deposit_address(GAP);
    scene.node.answer("POST /v1/peg-in/address", 200, offer(&next.address.to_string(), 1));
    assert_eq!(wallet.new_deposit(&node).unwrap().0.index, GAP);
    assert_eq!(wallet.address(true).unwrap().0, GAP + 1);
}

fn offer(address: &str, epoch: u32) -> String {
    json!({ "address": address, "epoch": epoch, "min_amount": 50_000, "fee": 1_000, "more": true }).to_string()
}

#[test]
fn a_deposit_address_is_shown_only_if_the_federations_keys_make_it() {
    let (scene, mut wallet) = scene();
    let node = scene.node.node();
    let expected = wallet.deposit_address(0);
    // By another way than the wallet's: what anybody would work out from the chainspec.
    let terms = DepositTerms {
        epoch: 1,
        destination: wallet.address_at(0).script_pubkey(),
        refund_key: wallet.keys.refund_key(0),
    };
    let script = EpochScripts::build(spec().federation()).deposit_script(spec().chain_id(), &terms);
    assert_eq!(expected.address.script_pubkey(), script);

    let request = "POST /v1/peg-in/address";
    let frozen =
        json!({ "code": "peg_frozen", "message": "the peg is frozen: a coin was\u{1b}[2J stolen", "hint": "wait" });
    scene.node.answer(request, 503, frozen);
    let refused = wallet.new_deposit(&node).unwrap_err().to_string();
    assert!(refused.ends_with("status 503: the peg is frozen: a coin was[2J stolen: wait"), "{refused}");
    drop(wallet);
    for (answer, wrong) in [
        (offer(&somebody().to_string(), 1), "DO NOT PAY"),
        (offer("\u{1b}[2Jbcrt1", 1), "DO NOT PAY"),
        (offer(&expected.address.to_string(), 2), "epoch 2"),
        ("{}".to_owned(), "something else"),
        ("[".repeat(1_000_000), "something else"),
    ] {
        let mut wallet = Wallet::open(&scene.path, &passphrase()).unwrap();
        scene.node.answer(request, 200, answer);
        let refused = wallet.new_deposit(&node).unwrap_err().to_string();
        assert!(refused.contains(wrong), "{refused}");
        assert!(!refused.contains('\u{1b}'));
        assert!(wallet.deposits().is_empty());
    }
    scene.node.answer("GET /block-height/1", 200, bitcoin::BlockHash::from_byte_array([1; 32]));
    let mut wallet = Wallet::open(&scene.path, &passphrase()).unwrap();
    scene.node.answer(request, 200, offer(&expected.address.to_string(), 1));
    assert!(matches!(wallet.new_deposit(&node), Err(WalletError::OtherChain { .. })));

    scene.node.answer("GET /block-height/1", 200, spec().chain_id().block_hash());
    drop(wallet);
    let mut wallet = Wallet::open(&scene.path, &passphrase()).unwrap();
    let (deposit, offer) = wallet.new_deposit(&node).unwrap();
    assert_eq!((deposit.index, deposit.address.clone(), offer.min_amount), (0, expected.address, 50_000));
    let body = json!({ "destination": deposit.destination, "refund_key": terms.refund_key.to_string() });
    let asked = scene.node.asked.lock().unwrap().last().unwrap().clone();
    let asked: serde_json::Value = serde_json::from_str(asked.strip_prefix(request).unwrap()).unwrap();
    assert_eq!(asked, body);

    // It is in the file before it is shown, and no payment gets the same address.
    drop(wallet);
    let mut wallet = Wallet::open(&scene.path, &passphrase()).unwrap();
    assert_eq!(wallet.deposits()[0].address, deposit.address.to_string());
    assert_eq!(wallet.find_deposit(&deposit.address.to_string()).unwrap().terms, terms);
    assert!(matches!(wallet.find_deposit(&somebody().to_string()), Err(WalletError::NoDeposit { .. })));
    assert_ne!(wallet.address(false).unwrap().1, deposit.destination);
}

#[test]
fn a_credit_is_believed_only_if_it_pays_the_wallet() {
    let (scene, wallet) = scene();
    let deposit = wallet.deposit_address(3);
    let output = TxOut { value: Amount::from_sat(69_000), script_pubkey: deposit.terms.destination.clone() };
    let other = TxOut { value: Amount::from_sat(69_000), script_pubkey: somebody().script_pubkey() };
    let transaction = Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![TxIn::default()],
        output: vec![other, output],
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bytes = bitcoin::consensus::encode::serialize(&transaction);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 4_096];
            let _ = stream.read(&mut head);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(&bytes));
        }
    });
    let node = Node::new(&url, false).unwrap();
    let credit = |txid, vout, amount| crate::devnet::client::Credit { txid, vout, height: 105, amount, fee: 1_000 };
    let txid = transaction.compute_txid();
    deposit.check_credit(&node, &credit(txid, 1, 69_000)).unwrap();
    for wrong in [credit(txid, 0, 69_000), credit(txid, 1, 69_001), credit(txid, 2, 69_000)] {
        assert!(matches!(deposit.check_credit(&node, &wrong), Err(WalletError::WrongCredit { .. })));
    }
    let other_txid = Txid::from_byte_array([3; 32]);
    let refused = deposit.check_credit(&node, &credit(other_txid, 1, 69_000)).unwrap_err();
    assert!(matches!(refused, WalletError::Unreadable { .. }), "{refused}");
    drop(scene);
}

#[test]
fn a_refund_takes_the_deposits_of_the_mnemonic_alone() {
    let (_scene, wallet) = scene();
    let candidates = wallet.deposit_candidates(GAP);
    assert!(candidates.len() > 1_000);
    let coin = |script_pubkey, vout| FoundCoin {
        outpoint: OutPoint { txid: Txid::from_byte_array([1; 32]), vout },
        value: Amount::from_sat(60_000),
        script_pubkey,
        height: BitcoinHeight(200),
        coinbase: false,
    };
    let found = [
        coin(candidates[999].address.script_pubkey(), 0),
        coin(somebody().script_pubkey(), 1),
        coin(candidates[2].address.script_pubkey(), 2),
    ];
    let deposits = wallet.deposits_among(&candidates, &found);
    let delay = u32::from(spec().federation().timelocks().refund_delay);
    assert_eq!(deposits.iter().map(|deposit| deposit.address.index).collect::<Vec<_>>(), [999, 2]);
    assert!(deposits.iter().all(|deposit| deposit.from == Some(BitcoinHeight(200 + delay))));
    let refund = wallet.refund(&deposits, somebody().script_pubkey(), rate(3)).unwrap();
    assert_eq!(refund.input.len(), 2);
    assert!(refund.input.iter().all(|input| input.sequence.to_consensus_u32() == delay));
    assert_eq!(refund.output[0].script_pubkey, somebody().script_pubkey());
    let fee = 120_000 - refund.output[0].value.to_sat();
    assert_eq!(fee, (refund.weight() * rate(3)).to_sat());
    let dust = wallet.refund(&deposits[..1], somebody().script_pubkey(), rate(600)).unwrap_err();
    assert!(matches!(dust, WalletError::Refund(_)), "{dust}");
}
