//! Each refusal, by its reason.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_CHECKSIG;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use causeway_chainspec::{Height, PegOutDestination, SatPerKvb, reserve_script};
use causeway_consensus::Coin;

use crate::mempool::policy::BareMultisig;
use crate::mempool::standard::dust_threshold;
use crate::mempool::{NotYet, PegStatus, Policy, Reject};
use crate::testing::{Bench, COIN, first_output, free_input, free_output, free_script, pay, pay_padded, vsize};

fn edited(transaction: &Transaction, edit: impl FnOnce(&mut Transaction)) -> Transaction {
    let mut transaction = transaction.clone();
    edit(&mut transaction);
    transaction
}

fn script(bytes: &[u8]) -> ScriptBuf {
    ScriptBuf::from_bytes(bytes.to_vec())
}

fn output(sat: u64, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey }
}

fn request(sat: u64) -> TxOut {
    let destination = PegOutDestination::from_bitcoin_script(&free_script()).expect("P2WSH");
    output(sat, destination.to_script_pubkey())
}

#[test]
fn a_plain_payment_is_accepted() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let payment = pay(&[coin], &[COIN - 1_000]);
    bench.add(&payment);
    let entry = bench.pool.get(&payment.compute_txid()).expect("in the pool");
    assert_eq!((entry.fee(), entry.vsize()), (Amount::from_sat(1_000), vsize(&payment)));
    assert_eq!(bench.pool.get_by_wtxid(&payment.compute_wtxid()).map(|entry| entry.txid()), Some(entry.txid()));
    assert_eq!(bench.pool.spender(&coin), Some(entry.txid()));
    assert_eq!((bench.pool.len(), bench.pool.fees()), (1, Amount::from_sat(1_000)));
}

#[test]
fn rules_without_the_chain() {
    let mut bench = Bench::new();
    let (first, second) = (bench.coin(), bench.coin());
    let good = pay(&[first], &[COIN - 1_000]);
    let max = Amount::MAX_MONEY.to_sat();
    let peg_out_min = bench.chain.spec.params().peg_out_min.to_sat();
    let null = free_input(OutPoint::null());
    let cases: [(&str, Transaction); 11] = [
        ("bad-txns-vin-empty", edited(&good, |tx| tx.input.clear())),
        ("bad-txns-vout-empty", edited(&good, |tx| tx.output.clear())),
        ("bad-txns-oversize", pay_padded(&[first], &[], 1_000_000)),
        ("bad-txns-vout-toolarge", pay(&[first], &[max + 1])),
        ("bad-txns-txouttotal-toolarge", pay(&[first], &[max, 1])),
        ("bad-txns-inputs-duplicate", pay(&[first, second, first], &[COIN])),
        ("bad-txns-prevout-null", edited(&good, |tx| tx.input.push(null.clone()))),
        ("bad-peg-script", edited(&good, |tx| tx.output[0].script_pubkey = script(&[0x60, 2, 1, 1]))),
        ("bad-peg-reserve", edited(&good, |tx| tx.output[0].script_pubkey = reserve_script())),
        ("bad-peg-out-amount", edited(&good, |tx| tx.output[0] = request(peg_out_min - 1))),
        ("coinbase", edited(&good, |tx| tx.input = vec![null])),
    ];
    for (reason, transaction) in cases {
        let reject = bench.submit(&transaction).expect_err(reason);
        assert_eq!(reject.reason(), reason);
        assert!(matches!(reject, Reject::Invalid(_)), "{reason}");
    }
}

#[test]
fn rules_with_the_coins() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let max = Amount::MAX_MONEY.to_sat();
    let rich = [bench.put_output(free_output(max)), bench.put_output(free_output(max))];
    let reserve = bench.put_output(output(COIN, reserve_script()));
    let wrong = edited(&pay(&[coin], &[COIN - 1_000]), |tx| tx.input[0].witness = Witness::from_slice(&[[0x52]]));
    let mismatch = "mempool-script-verify-flag-failed (Witness program hash mismatch)";
    let cases = [
        ("bad-txns-inputvalues-outofrange", pay(&rich, &[COIN])),
        ("bad-txns-in-belowout", pay(&[coin], &[COIN + 1])),
        ("bad-peg-spend", pay(&[reserve], &[COIN - 1_000])),
        (mismatch, wrong.clone()),
    ];
    for (reason, transaction) in cases {
        let reject = bench.submit(&transaction).expect_err(reason);
        assert_eq!(reject.reason(), reason);
        assert!(matches!(reject, Reject::Invalid(_)), "{reason}");
    }
    let (txid, wtxid) = (wrong.compute_txid(), wrong.compute_wtxid());
    let detail = format!("{mismatch}, input 0 of {txid} (wtxid {wtxid}), spending {coin}");
    assert_eq!(bench.refusal(&wrong).1, detail);
}

#[test]
fn what_is_not_ready_is_nobodys_fault() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let good = pay(&[coin], &[COIN - 1_000]);
    let height = bench.chain.tip.height().to_u32();
    let locked = |lock: u32| {
        edited(&good, |tx| {
            tx.lock_time = LockTime::from_consensus(lock);
            tx.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
        })
    };
    let relative = |sequence: u32| edited(&good, |tx| tx.input[0].sequence = Sequence(sequence));
    let young = Coin { output: free_output(COIN), height: Height(2), coinbase: true };
    let young = bench.put(young);
    let nowhere = OutPoint { txid: Txid::all_zeros(), vout: 7 };
    let median = bench.chain.tip.median_time_past();
    let cases = [
        ("bad-txns-inputs-missingorspent", pay(&[coin, nowhere], &[COIN])),
        ("non-final", locked(height + 1)),
        ("non-final", locked(median)),
        // The coin is of height 1: 101 blocks later is one after the next.
        ("non-BIP68-final", relative(height + 1)),
        ("non-BIP68-final", relative(1 << 22 | 1)),
        ("bad-txns-premature-spend-of-coinbase", pay(&[young], &[COIN - 1_000])),
    ];
    for (reason, transaction) in cases {
        let reject = bench.submit(&transaction).expect_err(reason);
        assert_eq!(reject.reason(), reason);
        assert!(matches!(reject, Reject::NotYet(_)), "{reason}");
    }
    // One block earlier each of them stands.
    bench.check(&locked(height)).expect("final in the next block");
    bench.check(&locked(median - 1)).expect("final in the next block");
    bench.check(&relative(height)).expect("unlocked in the next block");
    bench.commit_transactions(vec![], 0);
    bench.submit(&pay(&[young], &[COIN - 1_000])).expect("mature in the next block");
}

#[test]
fn an_unspendable_or_absent_output_of_the_pool_is_missing() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let parent = pay_padded(&[coin], &[COIN - 1_000], 40);
    let txid = first_output(&parent).txid;
    bench.add(&parent);
    for vout in [1, 2, u32::MAX] {
        let outpoint = OutPoint { txid, vout };
        let missing = Reject::NotYet(NotYet::MissingInput { outpoint });
        assert_eq!(bench.submit(&pay(&[outpoint], &[1_000])), Err(missing));
    }
}

#[test]
fn forms_that_are_not_standard() {
    let mut bench = Bench::with(Policy { max_datacarrier_bytes: 100, ..Policy::default() });
    let coin = bench.coin();
    let good = pay(&[coin], &[COIN / 2, COIN / 2 - 1_000]);
    let key = [vec![33, 2], vec![7; 32]].concat();
    let multisig = |required: u8, keys: u8| {
        let keys: Vec<u8> = [vec![0x50 + required], key.repeat(usize::from(keys)), vec![0x50 + keys, 0xae]].concat();
        edited(&good, |tx| tx.output[0].script_pubkey = ScriptBuf::from_bytes(keys))
    };
    let paying = |bytes: &[u8]| edited(&good, |tx| tx.output[0].script_pubkey = script(bytes));
    let signed_with = |bytes: Vec<u8>| edited(&good, |tx| tx.input[0].script_sig = ScriptBuf::from_bytes(bytes));
    let data = |bytes: usize| pay_padded(&[coin], &[COIN - 1_000], bytes);
    let small = edited(&good, |tx| tx.output = vec![output(0, script(&[0x6a, 2, 0, 0]))]);
    let enough = edited(&small, |tx| tx.output = vec![output(0, script(&[0x6a, 3, 0, 0, 0]))]);
    assert_eq!((small.base_size(), enough.base_size()), (64, 65));
    let threshold = dust_threshold(&free_output(0), SatPerKvb(3_000)).to_sat();
    let cases = [
        ("version", edited(&good, |tx| tx.version = Version(0))),
        ("version", edited(&good, |tx| tx.version = Version(4))),
        ("version", edited(&good, |tx| tx.version = Version(-1))),
        ("tx-size", pay_padded(&[coin], &[COIN - 1_000], 100_000)),
        ("scriptsig-size", signed_with(vec![0; 1_651])),
        ("scriptsig-not-pushonly", signed_with(vec![0x61])),
        ("scriptpubkey", paying(&[0x51])),
        ("scriptpubkey", paying(&[0x00, 3, 1, 2, 3])),
        ("scriptpubkey", paying(&[0x6a, 2, 1])),
        ("scriptpubkey", paying(&[&[33][..], &[4; 65], &[OP_CHECKSIG.to_u8()]].concat())),
        ("scriptpubkey", paying(&[&[33][..], &[5; 33], &[OP_CHECKSIG.to_u8()]].concat())),
        ("scriptpubkey", paying(&[&[0x61][..], &[2; 33], &[OP_CHECKSIG.to_u8()]].concat())),
        ("scriptpubkey", multisig(1, 4)),
        ("scriptpubkey", multisig(3, 2)),
        ("datacarrier", data(101)),
        ("dust", pay(&[coin], &[COIN - 1_000, threshold - 1])),
        ("tx-size-small", small),
    ];
    for (reason, transaction) in cases {
        let reject = bench.submit(&transaction).expect_err(reason);
        assert_eq!(reject.reason(), reason);
        assert!(matches!(reject, Reject::Policy(_)), "{reason}");
    }
    for transaction in [
        paying(&[0x51, 2, 0x4e, 0x73]),
        paying(&[0x52, 2, 1, 1]),
        paying(&[&[33][..], &[2; 33], &[OP_CHECKSIG.to_u8()]].concat()),
        multisig(1, 1),
        multisig(3, 3),
        data(100),
        edited(&good, |tx| tx.version = Version(3)),
        edited(&good, |tx| tx.version = Version(1)),
        pay(&[coin], &[COIN - 1_000, threshold]),
        enough,
    ] {
        bench.check(&transaction).expect("standard");
    }
    let mut strict = Bench::with(Policy { bare_multisig: BareMultisig::Refused, ..Policy::default() });
    strict.coin();
    assert_eq!(strict.reason(&multisig(1, 1)), "bare-multisig");
}

#[test]
fn dust_by_kind_of_output() {
    let rate = SatPerKvb(3_000);
    let dust = |bytes: &[u8]| dust_threshold(&output(0, script(bytes)), rate).to_sat();
    assert_eq!(dust(&[&[0x76, 0xa9, 20][..], &[0; 20], &[0x88, 0xac]].concat()), 546);
    assert_eq!(dust(&[&[0xa9, 20][..], &[0; 20], &[0x87]].concat()), 540);
    assert_eq!(dust(&[&[0, 20][..], &[0; 20]].concat()), 294);
    assert_eq!(dust(&[&[0, 32][..], &[0; 32]].concat()), 330);
    assert_eq!(dust(&[&[0x51, 32][..], &[0; 32]].concat()), 330);
    assert_eq!(dust(&[0x51, 2, 0x4e, 0x73]), 240);
    assert_eq!(dust(&[0x6a]), 0);
}

#[test]
fn requests_wait_while_the_peg_is_frozen() {
    let mut bench = Bench::new();
    let (first, second) = (bench.coin(), bench.coin());
    let asks = edited(&pay(&[first], &[100_000]), |tx| {
        tx.output.insert(0, request(COIN / 2));
        tx.output[1].value = Amount::from_sat(COIN / 2 - 1_000);
    });
    let child = pay(&[OutPoint { txid: asks.compute_txid(), vout: 1 }], &[COIN / 2 - 2_000]);
    let other = pay(&[second], &[COIN - 1_000]);
    for transaction in [&asks, &child, &other] {
        bench.add(transaction);
    }
    let late = bench.check(&edited(&asks, |tx| tx.output[0] = request(COIN / 2 - 5_000))).expect("the peg is open");
    let gone: Vec<_> = bench.pool.set_peg(PegStatus::Frozen).iter().map(|departed| departed.txid).collect();
    assert!(gone.contains(&asks.compute_txid()) && gone.contains(&child.compute_txid()) && gone.len() == 2);
    assert_eq!(bench.reason(&asks), "peg-frozen");
    let finish = bench.pool.finish(late, bench.now_s);
    assert!(matches!(finish.outcome, crate::mempool::Outcome::Rejected(reject) if reject.reason() == "peg-frozen"));
    assert_eq!(bench.pool.set_peg(PegStatus::Open), []);
    bench.add(&asks);
}

#[test]
fn inputs_that_are_not_standard() {
    let mut bench = Bench::new();
    let mut spend = |script_pubkey: ScriptBuf, script_sig: ScriptBuf, witness: Witness| {
        let previous_output = bench.put_output(output(COIN, script_pubkey));
        let input = TxIn { previous_output, script_sig, sequence: Sequence::MAX, witness };
        bench.refusal(&edited(&pay(&[], &[COIN - 100_000]), |tx| tx.input.push(input))).1
    };
    let none = Witness::new;
    let nonstandard = |detail: &str| format!("bad-txns-nonstandard-inputs, {detail}");
    let push = |bytes: &[u8]| {
        let bytes = bitcoin::script::PushBytesBuf::try_from(bytes.to_vec()).expect("short");
        Builder::new().push_slice(bytes).into_script()
    };
    assert_eq!(spend(script(&[0x51]), ScriptBuf::new(), none()), nonstandard("input 0 script unknown"));
    assert_eq!(
        spend(script(&[0x52, 2, 1, 1]), ScriptBuf::new(), none()),
        nonstandard("input 0 witness program is undefined")
    );
    let redeem = script(&[0x51]);
    assert_eq!(spend(redeem.to_p2sh(), ScriptBuf::new(), none()), nonstandard("input 0 P2SH redeemscript missing"));
    let heavy = script(&[&[0x51][..], &[0x00, 0x63], &[0xac; 16], &[0x68]].concat());
    assert_eq!(
        spend(heavy.to_p2sh(), push(heavy.as_bytes()), none()),
        nonstandard("p2sh redeemscript sigops exceed limit (input 0: 16 > 15)")
    );
    // 2,501 operations in the scriptSigs' redeem scripts need many inputs; one bare script can hold them as well.
    let bare = script(&[0xac; 2_501]);
    assert_eq!(spend(bare, ScriptBuf::new(), none()), nonstandard("non-witness sigops exceed bip54 limit"));

    let witness = "bad-witness-nonstandard";
    assert_eq!(spend(redeem.to_p2sh(), push(redeem.as_bytes()), Witness::from_slice(&[[1]])), witness);
    assert_eq!(spend(script(&[0x51, 2, 0x4e, 0x73]), ScriptBuf::new(), Witness::from_slice(&[[1]])), witness);
    let long = ScriptBuf::from_bytes([vec![0x51], vec![0x61; 3_600]].concat());
    assert_eq!(spend(long.to_p2wsh(), ScriptBuf::new(), Witness::from_slice(&[long.as_bytes()])), witness);
    let items = |count: usize, bytes: usize| {
        let mut items = vec![vec![0; bytes]; count];
        items.push(vec![0x51]);
        Witness::from_slice(&items)
    };
    assert_eq!(spend(free_script(), ScriptBuf::new(), items(101, 1)), witness);
    assert_eq!(spend(free_script(), ScriptBuf::new(), items(1, 81)), witness);
    let taproot = script(&[&[0x51, 32][..], &[2; 32]].concat());
    let taproot_with = |items: &[&[u8]]| Witness::from_slice(items);
    assert_eq!(spend(taproot.clone(), ScriptBuf::new(), taproot_with(&[&[1; 64], &[0x50, 1]])), witness);
    assert_eq!(spend(taproot.clone(), ScriptBuf::new(), taproot_with(&[&[0; 81], &[0x51], &[0xc0; 33]])), witness);
    assert_eq!(spend(taproot, ScriptBuf::new(), taproot_with(&[&[0x51], &[]])), witness);
}

#[test]
fn an_anchor_is_spent_with_nothing() {
    let mut bench = Bench::new();
    let anchor = bench.put_output(output(COIN, script(&[0x51, 2, 0x4e, 0x73])));
    bench.add(&edited(&pay(&[anchor], &[COIN - 1_000]), |tx| tx.input[0].witness.clear()));
}

#[test]
fn too_many_signature_operations() {
    let mut bench = Bench::new();
    // 1 0 IF (CHECKSIG)* ENDIF: 3,590 operations a script.
    let witness_script = script(&[&[0x51, 0x00, 0x63][..], &[0xac; 190], &[0x68]].concat());
    let heavy = |bench: &mut Bench, inputs: usize| {
        let input = (0..inputs).map(|_| {
            let previous_output = bench.put_output(output(COIN, witness_script.to_p2wsh()));
            TxIn { witness: Witness::from_slice(&[witness_script.as_bytes()]), ..free_input(previous_output) }
        });
        let input = input.collect();
        Transaction { input, ..pay(&[], &[COIN / 2]) }
    };
    let (within, beyond) = (heavy(&mut bench, 84), heavy(&mut bench, 85));
    bench.add(&within);
    // 84 x 190 operations count 20 units each, 5 virtual bytes.
    assert_eq!(bench.pool.get(&within.compute_txid()).map(|entry| entry.vsize()), Some(84 * 190 * 5));
    assert_eq!(bench.refusal(&beyond).1, format!("bad-txns-too-many-sigops, {}", 85 * 190));
}

#[test]
fn what_the_pool_and_the_chain_know() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let payment = pay(&[coin], &[COIN - 1_000]);
    bench.add(&payment);
    assert_eq!(bench.reason(&payment), "txn-already-in-mempool");
    let other_witness = edited(&payment, |tx| tx.input[0].witness = Witness::from_slice(&[[0x52]]));
    assert_eq!(bench.reason(&other_witness), "txn-same-nonwitness-data-in-mempool");
    bench.mine();
    assert_eq!(bench.reason(&payment), "txn-already-known");
    // Its output spent, it is as unknown as any other.
    let spend = pay(&[first_output(&payment)], &[COIN - 2_000]);
    bench.commit_transactions(vec![spend], 1_000);
    assert_eq!(bench.reason(&payment), "bad-txns-inputs-missingorspent");
}

#[test]
fn a_fee_below_the_minimum() {
    let mut bench = Bench::new();
    let coin = bench.coin();
    let size = vsize(&pay(&[coin], &[COIN]));
    let need = size.div_ceil(10);
    let message = format!("min relay fee not met, {} < {need}", need - 1);
    assert_eq!(bench.refusal(&pay(&[coin], &[COIN - need + 1])).1, message);
    // Said before a signature is looked at, and before the pool is asked.
    let mut forged = pay(&[coin], &[COIN - need + 1]);
    forged.input[0].witness = Witness::from_slice(&[[0x52]]);
    assert_eq!(bench.check(&forged).expect_err("poor").reason(), "min relay fee not met");
    bench.add(&pay(&[coin], &[COIN - need]));
}

#[test]
fn what_needs_no_coins_is_said_at_once() {
    let mut bench = Bench::new();
    let mut locked = pay(&[bench.coin()], &[COIN - 1_000]);
    locked.lock_time = LockTime::from_consensus(bench.chain.tip.height().to_u32() + 1);
    locked.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    assert_eq!(bench.pool.begin(locked, bench.now_s).expect_err("locked").reason(), "non-final");
    let mut tip = bench.coin();
    for i in 1..=25 {
        tip = bench.add(&pay(&[tip], &[COIN - i * 100]));
    }
    let reject = bench.pool.begin(pay(&[tip], &[1_000]), bench.now_s).expect_err("too long");
    assert_eq!(reject.reason(), "too-long-mempool-chain");
}
