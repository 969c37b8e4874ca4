pub(crate) mod fake;

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, Transaction, Txid};
use causeway_chainspec::SatPerKvb;
use fake::{Asked, Fake, Reply, client};
use serde_json::json;

use super::*;
use causeway_chainspec::BitcoinHeight;

/// A fake that is honest but for one method.
async fn bends(method: &'static str, reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::start(move |asked| if asked.method() == method { reply(asked) } else { Reply::Honest }).await
}

/// What a client says of a bitcoind that answers `getbestblockhash` like this.
async fn problem(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Problem {
    let fake = bends("getbestblockhash", reply).await;
    client(vec![fake.config()]).best_block_hash().await.unwrap_err().problem
}

fn genesis() -> Block {
    genesis_block(Network::Regtest)
}

fn transaction() -> Transaction {
    genesis().txdata[0].clone()
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let fake = Fake::start(|_| Reply::Honest).await;
    let client = client(vec![fake.config()]);
    for _ in 0..5 {
        assert_eq!(client.best_block_hash().await.unwrap(), genesis().block_hash());
    }
    assert_eq!(client.network_info().await.unwrap().version, 310_000);
    let asked = fake.asked.lock().unwrap();
    assert!(asked.iter().all(|asked| asked.connection == 0));
    assert!(asked.iter().all(|asked| asked.authorization == "Basic X19jb29raWVfXzpvbmU="));
    assert_eq!(asked.iter().filter(|asked| asked.method() == "getblockhash").count(), 1, "checked once");
}

#[tokio::test]
async fn a_large_answer_is_cut_off() {
    let huge = problem(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000000\r\n\r\n{".to_vec())).await;
    assert!(matches!(huge, Problem::TooLarge { limit: 262_144 }), "{huge:?}");
    let endless = problem(|_| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
        Reply::Endless(head, chunk, Duration::ZERO)
    });
    assert!(matches!(endless.await, Problem::TooLarge { .. }));
    let headers = problem(|_| {
        Reply::Endless(
            b"HTTP/1.1 200 OK\r\n".to_vec(),
            b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(50),
            Duration::ZERO,
        )
    });
    assert!(matches!(headers.await, Problem::ConnectionLost(_)));
}

#[tokio::test]
async fn a_slow_answer_has_a_deadline() {
    let drip = problem(|_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec();
        Reply::Endless(head, b" ".to_vec(), Duration::from_millis(10))
    });
    assert!(matches!(drip.await, Problem::Deadline { .. }));
    assert!(matches!(problem(|_| Reply::Silence).await, Problem::Deadline { .. }));
}

#[tokio::test]
async fn what_is_no_json_rpc_answer_is_refused() {
    for body in ["", "<html>", "[]", "{", "null", "3", r#"{"result": 1}"#] {
        let got = problem(move |_| Reply::Body(body.into())).await;
        assert!(matches!(got, Problem::NotJsonRpc { status: 200 }), "{body} {got:?}");
    }
    let nested = problem(|_| Reply::Body(b"[".repeat(200_000))).await;
    assert!(matches!(nested, Problem::NotJsonRpc { .. }), "{nested:?}");
    for body in [
        r#"{"jsonrpc": "2.0", "result": "00", "id": 1000000}"#,
        r#"{"jsonrpc": "2.0", "result": "00", "id": "x"}"#,
        r#"{"jsonrpc": "1.1", "result": "00", "id": null}"#,
    ] {
        let got = problem(move |_| Reply::Body(body.into())).await;
        assert!(matches!(got, Problem::UnexpectedAnswer), "{body} {got:?}");
    }
    for result in [json!(null), json!(3), json!("00"), json!({})] {
        let got = problem(move |_| Reply::Result(result.clone())).await;
        assert!(matches!(got, Problem::UnexpectedAnswer), "{got:?}");
    }
    let half = problem(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"resu".to_vec())).await;
    assert!(matches!(half, Problem::ConnectionLost(_)), "{half:?}");
    let garbage = problem(|_| Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())).await;
    assert!(matches!(garbage, Problem::ConnectionLost(_)), "{garbage:?}");
}

/// What is not used is not read: it has another form in every version, and some options change it.
#[tokio::test]
async fn what_is_not_used_of_an_answer_may_have_any_form() {
    let best = genesis().block_hash();
    let forms = [
        json!("This is a pre-release test build"),
        json!(""),
        json!(["one", "two"]),
        json!([]),
        json!(null),
        json!({"x": 1}),
    ];
    for warnings in forms {
        let other = warnings.clone();
        let fake = Fake::start(move |asked| {
            let result = match asked.method() {
                "getblockchaininfo" => json!({
                    "chain": "regtest", "blocks": 7, "headers": 9, "bestblockhash": best, "difficulty": "1.5",
                    "time": null, "verificationprogress": 1, "initialblockdownload": false, "size_on_disk": -1,
                    "pruned": true, "pruneheight": 3, "softforks": {"bip34": []}, "warnings": other,
                }),
                "getnetworkinfo" => json!({
                    "version": 300_000, "subversion": "/Satoshi:30.0.0/", "connections": 4, "relayfee": "0",
                    "localservices": 5, "warnings": other,
                }),
                "getblockheader" => json!([{
                    "hash": best, "height": 5, "confirmations": -1, "version": "x", "nTx": null, "time": -5,
                    "warnings": other,
                }]),
                "getmempoolinfo" => serde_json::from_str(
                    r#"{"loaded": true, "size": 2, "mempoolminfee": 0.00001000, "incrementalrelayfee": 0.00001000,
                        "fullrbf": "yes", "limitclustercount": {}}"#,
                )
                .unwrap(),
                _ => return Reply::Honest,
            };
            Reply::Result(result)
        })
        .await;
        let client = client(vec![fake.config()]);
        let info = client.chain_info().await.unwrap();
        let heights = (info.blocks, info.headers, info.pruned_below);
        assert_eq!(heights, (BitcoinHeight(7), BitcoinHeight(9), Some(BitcoinHeight(3))), "{warnings}");
        assert_eq!((info.best, info.initial_block_download), (best, false));
        assert_eq!(client.network_info().await.unwrap().connections, 4);
        let places = client.header_places(&[best]).await.unwrap();
        assert_eq!(places, [Some(HeaderPlace { height: BitcoinHeight(5), confirmations: None })]);
        assert_eq!(client.mempool_info().await.unwrap().transactions, 2);
    }
}

/// And what is used has one form.
#[tokio::test]
async fn what_is_used_of_an_answer_has_its_form() {
    let best = genesis().block_hash();
    for (field, wrong) in [
        ("blocks", json!("7")),
        ("blocks", json!(-1)),
        ("blocks", json!(4_294_967_296_u64)),
        ("headers", json!(null)),
        ("bestblockhash", json!("00")),
        ("initialblockdownload", json!(0)),
        ("pruneheight", json!(-3)),
    ] {
        let mut answer = json!({"blocks": 7, "headers": 9, "bestblockhash": best, "initialblockdownload": false});
        answer[field] = wrong;
        let shown = answer.to_string();
        let fake = bends("getblockchaininfo", move |_| Reply::Result(answer.clone())).await;
        let refused = client(vec![fake.config()]).chain_info().await.unwrap_err();
        assert!(matches!(refused.problem, Problem::UnexpectedAnswer), "{shown}: {refused}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Fake::start(|_| Reply::Honest).await;
    let header: &'static str = Box::leak(format!("Location: http://{}/\r\n", other.endpoint).into_boxed_str());
    let got = problem(move |_| Reply::Status(307, header)).await;
    assert!(matches!(got, Problem::NotJsonRpc { status: 307 }), "{got:?}");
    assert_eq!(other.methods(), Vec::<String>::new());
}

#[tokio::test]
async fn http_statuses_have_their_problems() {
    assert!(matches!(problem(|_| Reply::Status(403, "")).await, Problem::Forbidden));
    assert!(matches!(problem(|_| Reply::Status(503, "")).await, Problem::Busy));
    assert!(matches!(problem(|_| Reply::Status(401, "")).await, Problem::Unauthorised { .. }));
    assert!(matches!(problem(|_| Reply::Status(204, "")).await, Problem::NotJsonRpc { status: 204 }));
    assert!(matches!(problem(|_| Reply::Status(500, "")).await, Problem::NotJsonRpc { status: 500 }));
}

#[tokio::test]
async fn a_new_cookie_is_read_when_the_old_one_is_refused() {
    let cookie = Arc::new(Mutex::new("Basic X19jb29raWVfXzpvbmU="));
    let wanted = Arc::clone(&cookie);
    let fake = Fake::start(move |asked| {
        if asked.authorization == *wanted.lock().unwrap() { Reply::Honest } else { Reply::Status(401, "") }
    })
    .await;
    let client = client(vec![fake.config()]);
    client.best_block_hash().await.unwrap();
    std::fs::write(fake.cookie_file(), "__cookie__:two").unwrap();
    client.best_block_hash().await.unwrap();
    *cookie.lock().unwrap() = "Basic X19jb29raWVfXzp0d28=";
    client.best_block_hash().await.unwrap();
    assert_eq!(fake.count("getblockhash"), 2, "the new connection is checked like the first");
    *cookie.lock().unwrap() = "another";
    let refused = client.best_block_hash().await.unwrap_err().problem;
    assert!(matches!(refused, Problem::Unauthorised { .. }), "{refused:?}");
    std::fs::remove_file(fake.cookie_file()).unwrap();
    let refused = client.best_block_hash().await.unwrap_err().problem;
    assert!(matches!(refused, Problem::Credentials { source: CredentialsError::Read(_), .. }), "{refused:?}");
}

#[tokio::test]
async fn a_connection_that_closes_is_replaced() {
    let fake = Fake::start(|_| Reply::LastHonest).await;
    let client = client(vec![fake.config()]);
    for _ in 0..20 {
        client.best_block_hash().await.unwrap();
    }
}

#[tokio::test]
async fn blocks_are_never_generated_twice() {
    let fake = bends("generatetoaddress", |_| Reply::Raw(Vec::new())).await;
    let client = client(vec![fake.config()]);
    client.best_block_hash().await.unwrap();
    let script = genesis().txdata[0].output[0].script_pubkey.clone();
    let address = bitcoin::Address::p2wsh(&script, Network::Regtest);
    let lost = client.generate(1, &address).await.unwrap_err().problem;
    assert!(matches!(lost, Problem::ConnectionLost(_)), "{lost:?}");
    assert_eq!(fake.count("generatetoaddress"), 1);

    let mut config = BitcoindConfig::new(Network::Bitcoin, vec![fake.config()]);
    config.deadlines.call = Duration::from_secs(1);
    let refused = Bitcoind::new(config).unwrap().generate(1, &address).await.unwrap_err().problem;
    assert!(matches!(refused, Problem::NotRegtest));
    assert_eq!(fake.count("generatetoaddress"), 1);
}

#[tokio::test]
async fn the_next_bitcoind_is_asked_until_it_fails_too() {
    let broken = Arc::new(AtomicUsize::new(0));
    let (first_broken, second_broken) = (Arc::clone(&broken), Arc::clone(&broken));
    let up = |broken: &AtomicUsize, me| {
        if broken.load(Ordering::SeqCst) == me { Reply::Status(503, "") } else { Reply::Honest }
    };
    let first = Fake::start(move |_| up(&first_broken, 1)).await;
    let second = Fake::start(move |_| up(&second_broken, 2)).await;
    let mut config = BitcoindConfig::new(Network::Regtest, vec![first.config(), second.config()]);
    config.retry_after = Duration::ZERO;
    let client = Bitcoind::new(config).unwrap();
    let calls = || (first.count("getbestblockhash"), second.count("getbestblockhash"));
    client.best_block_hash().await.unwrap();
    assert_eq!((client.endpoint(), calls()), (&first.endpoint, (1, 0)));
    broken.store(1, Ordering::SeqCst);
    client.best_block_hash().await.unwrap();
    assert_eq!((client.endpoint(), calls()), (&second.endpoint, (2, 1)));
    // Stays, though the first one is well again.
    broken.store(0, Ordering::SeqCst);
    client.best_block_hash().await.unwrap();
    assert_eq!((client.endpoint(), calls()), (&second.endpoint, (2, 2)));
    broken.store(2, Ordering::SeqCst);
    client.best_block_hash().await.unwrap();
    assert_eq!((client.endpoint(), calls()), (&first.endpoint, (3, 3)));
}

#[tokio::test]
async fn a_failed_bitcoind_is_left_alone_unless_all_failed() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Endpoint::loopback(listener.local_addr().unwrap().port())
    };
    let fake = bends("getbestblockhash", |_| Reply::Silence).await;
    let closed = EndpointConfig { endpoint: closed, credentials_file: fake.cookie_file() };
    let client = client(vec![closed.clone(), fake.config()]);
    let error = client.best_block_hash().await.unwrap_err();
    assert_eq!((&error.endpoint, error.method), (&fake.endpoint, "getbestblockhash"));
    assert!(matches!(error.problem, Problem::Deadline { .. }));
    // Now all are set aside: the current one alone is tried.
    let error = client.best_block_hash().await.unwrap_err();
    assert_eq!(error.endpoint, closed.endpoint);
    assert!(matches!(error.problem, Problem::Unreachable(_)));
}

#[tokio::test]
async fn the_wrong_network_and_an_old_version_are_named() {
    let other = genesis_block(Network::Bitcoin).block_hash();
    let fake = bends("getblockhash", move |_| Reply::Result(json!(other))).await;
    let got = client(vec![fake.config()]).best_block_hash().await.unwrap_err().problem;
    assert!(matches!(got, Problem::WrongNetwork { got, .. } if got == other));
    assert_eq!(fake.count("getbestblockhash"), 0);

    let old = json!({"version": 299_999, "subversion": "", "connections": 0});
    let fake = bends("getnetworkinfo", move |_| Reply::Result(old.clone())).await;
    let got = client(vec![fake.config()]).best_block_hash().await.unwrap_err().problem;
    assert!(matches!(got, Problem::TooOld { version: 299_999 }));

    let got = problem(|_| Reply::Error(-28, "Loading block index\u{2026}\n".repeat(1_000))).await;
    assert!(matches!(&got, Problem::WarmingUp(text) if text.as_str().chars().count() == 300), "{got:?}");
    assert!(!got.to_string().contains('\n'));
}

#[tokio::test]
async fn a_bitcoind_swapped_behind_a_new_connection_is_noticed() {
    let swapped = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&swapped);
    let other = genesis_block(Network::Signet).block_hash();
    let fake = Fake::start(move |asked| match seen.load(Ordering::SeqCst) {
        0 => Reply::Honest,
        // The old connection breaks; behind the new one is another network.
        _ if asked.connection == 0 => Reply::Raw(Vec::new()),
        _ if asked.method() == "getblockhash" => Reply::Result(json!(other)),
        _ => Reply::Honest,
    })
    .await;
    let client = client(vec![fake.config()]);
    client.best_block_hash().await.unwrap();
    swapped.store(1, Ordering::SeqCst);
    let got = client.best_block_hash().await.unwrap_err().problem;
    assert!(matches!(got, Problem::WrongNetwork { .. }), "{got:?}");
}

#[tokio::test]
async fn a_false_block_raises_the_alarm_and_another_bitcoind_serves() {
    let block = genesis();
    let hash = block.block_hash();
    let mut false_block = block.clone();
    false_block.txdata[0].output[0].value = Amount::from_sat(1);
    let (good, bad) = (serialize_hex(&block), serialize_hex(&false_block));
    let liar = bends("getblock", move |_| Reply::Result(json!(bad))).await;
    let honest = bends("getblock", move |_| Reply::Result(json!(good))).await;
    let alone = client(vec![liar.config()]);
    let error = alone.block(hash).await.unwrap_err();
    assert!(matches!(error.problem, Problem::FalseBlock(BlockFault::MerkleRoot { .. })));
    assert!(alone.alarm().is_some());

    let both = client(vec![liar.config(), honest.config()]);
    assert_eq!(both.block(hash).await.unwrap().block(), &block);
    assert_eq!(both.alarm().unwrap().endpoint, liar.endpoint);
    assert_eq!(both.endpoint(), &honest.endpoint);
    both.best_block_hash().await.unwrap();
    assert_eq!(liar.count("getbestblockhash"), 0);

    // Another block than the one asked for.
    let other = BlockHash::all_zeros();
    assert!(matches!(
        alone.block(other).await.unwrap_err().problem,
        Problem::FalseBlock(BlockFault::OtherHeader { .. })
    ));
}

#[tokio::test]
async fn a_header_without_proof_of_work_is_refused() {
    let mut header = genesis().header;
    header.nonce = (0..)
        .find(|nonce| {
            header.nonce = *nonce;
            !has_proof_of_work(Network::Regtest, &header)
        })
        .unwrap();
    let hex = serialize_hex(&header);
    let fake = bends("getblockheader", move |_| Reply::Result(json!([hex]))).await;
    let client = client(vec![fake.config()]);
    let got = client.header(header.block_hash()).await.unwrap_err().problem;
    assert!(matches!(got, Problem::FalseBlock(BlockFault::NoProofOfWork { .. })), "{got:?}");
    assert!(!has_proof_of_work(Network::Bitcoin, &genesis().header), "easier than the network allows");
}

#[tokio::test]
async fn a_batch_is_answered_one_to_one() {
    let hash = genesis().block_hash();
    let heights = [BitcoinHeight(0), BitcoinHeight(1), BitcoinHeight(2)];
    let envelope = move |id: &serde_json::Value| json!({"jsonrpc": "2.0", "result": hash, "id": id});
    let bent: [fn(Vec<serde_json::Value>) -> Vec<serde_json::Value>; 4] = [
        |mut answers| answers.split_off(1),
        |mut answers| {
            answers.push(answers[0].clone());
            answers
        },
        |mut answers| {
            answers[1] = answers[0].clone();
            answers
        },
        |mut answers| {
            answers[0]["id"] = json!(1_000_000);
            answers
        },
    ];
    for bend in bent {
        let fake = Fake::start(move |asked| match asked.body.as_array() {
            None => Reply::Honest,
            Some(calls) => {
                let answers = bend(calls.iter().map(|call| envelope(&call["id"])).collect());
                Reply::Body(json!(answers).to_string().into())
            }
        })
        .await;
        let got = client(vec![fake.config()]).block_hashes(&heights).await.unwrap_err().problem;
        assert!(matches!(got, Problem::UnexpectedAnswer), "{got:?}");
    }
    // In any order, by their ids.
    let fake = Fake::start(move |asked| match asked.body.as_array() {
        None => Reply::Honest,
        Some(calls) => {
            let answers = calls.iter().rev().map(|call| {
                let mut bytes = [0; 32];
                bytes[0] = u8::try_from(call["params"][0].as_u64().unwrap()).unwrap();
                json!({"jsonrpc": "2.0", "result": BlockHash::from_byte_array(bytes), "id": call["id"]})
            });
            Reply::Body(json!(answers.collect::<Vec<_>>()).to_string().into())
        }
    })
    .await;
    let hashes = client(vec![fake.config()]).block_hashes(&heights).await.unwrap();
    assert_eq!(hashes.iter().map(|hash| hash.to_byte_array()[0]).collect::<Vec<_>>(), [0, 1, 2]);
}

#[tokio::test]
async fn errors_about_blocks_have_their_names() {
    let hash = genesis().block_hash();
    for (code, message, pruned) in [
        (-5, "Block not found", false),
        (-1, "Block not available (not fully downloaded)", false),
        (-1, "Block not available (pruned data)", true),
    ] {
        let fake = bends("getblock", move |_| Reply::Error(code, message.to_owned())).await;
        let got = client(vec![fake.config()]).block(hash).await.unwrap_err().problem;
        assert_eq!(matches!(got, Problem::Pruned { .. }), pruned, "{got:?}");
        assert_eq!(matches!(got, Problem::NoSuchBlock { .. }), !pruned, "{got:?}");
    }
    let fake = bends("getblockheader", |_| Reply::Error(-5, "Block not found".to_owned())).await;
    assert_eq!(client(vec![fake.config()]).header_places(&[hash]).await.unwrap(), [None]);
}

#[tokio::test]
async fn amounts_are_exact() {
    let coin = |value: &str| {
        format!(
            r#"{{"bestblock": "{}", "confirmations": 2, "value": {value}, "scriptPubKey": {{"hex": "51"}}, "coinbase": false}}"#,
            genesis().block_hash()
        )
    };
    for (value, sat) in [
        ("20999999.97690000", Some(2_099_999_997_690_000)),
        ("0.00000001", Some(1)),
        ("0.30000000", Some(30_000_000)),
        ("50", Some(5_000_000_000)),
        ("1e-8", None),
        ("0.000000001", None),
        ("-1.00000000", None),
        ("\"1\"", None),
    ] {
        let body = coin(value);
        let fake = bends("gettxout", move |asked| {
            Reply::Body(format!(r#"{{"jsonrpc": "2.0", "result": {body}, "id": {}}}"#, asked.body["id"]).into())
        })
        .await;
        let got = client(vec![fake.config()]).coin(OutPoint::null()).await;
        match sat {
            Some(sat) => assert_eq!(got.unwrap().unwrap().value, Amount::from_sat(sat)),
            None => assert!(matches!(got.unwrap_err().problem, Problem::UnexpectedAnswer), "{value}"),
        }
    }
    let fake = bends("gettxout", |_| Reply::Result(json!(null))).await;
    assert_eq!(client(vec![fake.config()]).coin(OutPoint::null()).await.unwrap(), None);
    let fake = Fake::start(|asked| match asked.method() {
        "getmempoolinfo" => Reply::Body(
            format!(
                r#"{{"jsonrpc": "2.0", "id": {}, "result":
                {{"loaded": true, "size": 1, "mempoolminfee": 0.00000100, "incrementalrelayfee": 0.00001000}}}}"#,
                asked.body["id"]
            )
            .into(),
        ),
        _ => Reply::Honest,
    })
    .await;
    let info = client(vec![fake.config()]).mempool_info().await.unwrap();
    assert_eq!((info.feerate_min, info.feerate_increment), (SatPerKvb(100), SatPerKvb(1_000)));
}

#[tokio::test]
async fn every_end_of_a_transaction_has_its_name() {
    use Refusal::{Conflict, Fee, MissingInputs, NotFinal, Other, Script};
    let text = Text::of;
    for (code, message, sent) in [
        (-27, "Transaction outputs already in utxo set", Sent::InChain),
        (-25, "bad-txns-inputs-missingorspent", Sent::Refused(MissingInputs)),
        (-26, "txn-already-in-mempool", Sent::InMempool),
        (-26, "txn-already-known", Sent::InChain),
        (-26, "min relay fee not met, 0 < 11", Sent::Refused(Fee(text("min relay fee not met, 0 < 11")))),
        (-26, "insufficient fee, rejecting", Sent::Refused(Fee(text("insufficient fee, rejecting")))),
        (-26, "txn-mempool-conflict", Sent::Refused(Conflict(text("txn-mempool-conflict")))),
        (-26, "non-BIP68-final", Sent::Refused(NotFinal(text("non-BIP68-final")))),
        (
            -26,
            "mempool-script-verify-flag-failed (Invalid Schnorr signature)",
            Sent::Refused(Script(text("mempool-script-verify-flag-failed (Invalid Schnorr signature)"))),
        ),
        (-26, "dust", Sent::Refused(Other(text("dust")))),
    ] {
        let fake = bends("sendrawtransaction", move |_| Reply::Error(code, message.to_owned())).await;
        assert_eq!(client(vec![fake.config()]).send(&transaction()).await.unwrap(), sent, "{message}");
    }
    let txid = transaction().compute_txid();
    let fake = bends("sendrawtransaction", move |_| Reply::Result(json!(txid))).await;
    let one = client(vec![fake.config()]);
    assert_eq!(one.send(&transaction()).await.unwrap(), Sent::InMempool);
    assert_eq!(
        fake.asked.lock().unwrap().iter().find(|a| a.method() == "sendrawtransaction").unwrap().body["params"][1],
        0
    );
    let fake = bends("sendrawtransaction", |_| Reply::Result(json!(Txid::all_zeros()))).await;
    assert!(client(vec![fake.config()]).send(&transaction()).await.is_err());
    let fake = bends("sendrawtransaction", |_| Reply::Error(-22, "TX decode failed".to_owned())).await;
    assert!(matches!(client(vec![fake.config()]).send(&transaction()).await.unwrap_err().problem, Problem::Rpc(_)));
}

#[tokio::test]
async fn nothing_printed_tells_the_password() {
    let fake = Fake::start(|_| Reply::Status(401, "")).await;
    let client = client(vec![fake.config()]);
    let error = client.best_block_hash().await.unwrap_err();
    for text in [format!("{client:?}"), format!("{error:?}"), error.to_string(), error.problem.to_string()] {
        assert!(!text.contains("X19j") && !text.contains("one"), "{text}");
    }
}

/// Everything can be awaited in a task of its own.
#[test]
fn calls_can_be_spawned() {
    fn sendable<T: Send>(_: T) {}
    let config = EndpointConfig { endpoint: Endpoint::loopback(1), credentials_file: "none".into() };
    let client = Bitcoind::new(BitcoindConfig::new(Network::Regtest, vec![config])).unwrap();
    let hash = BlockHash::all_zeros();
    sendable(client.block(hash));
    sendable(client.standings(&[hash]));
    sendable(client.send(&transaction()));
    sendable(client.generate(1, &bitcoin::Address::p2wsh(&bitcoin::ScriptBuf::new(), Network::Regtest)));
    assert_eq!(
        Bitcoind::new(BitcoindConfig::new(Network::Regtest, vec![])).unwrap_err(),
        EndpointCountError { got: 0 }
    );
}
