use bitcoin::hashes::Hash;
use bitcoin::{Txid, consensus};
use causeway_chainspec::{EpochParts, Timelocks, devnet};
use causeway_consensus::peg::script::DepositTerms;
use secp256k1::{Keypair, SecretKey};

use super::*;

const DELAYS: Timelocks = Timelocks { claim_window: 5, sweep_age: 8, recovery_delay: 300, refund_delay: 400 };

fn chain() -> ChainId {
    ChainId::from_byte_array([3; 32])
}

fn scripts(n: u32, t: u32) -> Arc<EpochScripts> {
    let epoch = Epoch::new(EpochParts {
        number: 1,
        members: (0..n).map(|index| devnet::secret_key("member", index).public_key(SECP256K1)).collect(),
        threshold: t,
        recovery_keys: (0..3).map(|index| keypair("recovery", index).x_only_public_key().0).collect(),
        recovery_threshold: 2,
        timelocks: DELAYS,
    });
    Arc::new(EpochScripts::build(&epoch.unwrap()))
}

fn keypair(role: &str, index: u32) -> Keypair {
    Keypair::from_secret_key(SECP256K1, &devnet::secret_key(role, index))
}

/// The pair of an x-only or full key of the tests.
fn pair_of(key: &XOnlyPublicKey) -> Keypair {
    ["member", "recovery", "refund"]
        .into_iter()
        .flat_map(|role| (0..20).map(move |index| keypair(role, index)))
        .find(|pair| pair.x_only_public_key().0 == *key)
        .unwrap()
}

fn deposit() -> CoinScript {
    CoinScript::Deposit(DepositTerms {
        epoch: 1,
        destination: destination(),
        refund_key: keypair("refund", 0).x_only_public_key().0,
    })
}

fn destination() -> ScriptBuf {
    ScriptBuf::new_p2tr(SECP256K1, keypair("destination", 0).x_only_public_key().0, None)
}

fn coin(scripts: &Arc<EpochScripts>, coin: CoinScript) -> SpentCoin {
    let script_pubkey = scripts.output(chain(), &coin).script_pubkey();
    let prevout = TxOut { value: Amount::from_sat(100_000), script_pubkey };
    let outpoint = OutPoint { txid: Txid::hash(prevout.script_pubkey.as_bytes()), vout: 0 };
    SpentCoin { outpoint, scripts: scripts.clone(), coin, prevout }
}

fn sweep(coins: Vec<SpentCoin>, path: &SpendPath) -> Result<Spend, SpendError> {
    Spend::sweep(chain(), coins, path, destination(), FeeRate::from_sat_per_vb_u32(3))
}

fn schnorr(pair: &Keypair, message: Message) -> Signature {
    SECP256K1.sign_schnorr_no_aux_rand(&message, pair)
}

/// Signs as one who has every secret key.
fn sign(to_sign: &ToSign) -> Signatures {
    let message = Message::from(to_sign.sighash());
    match to_sign.signers() {
        Signers::Group(group) => {
            let keys = group.keys.iter().map(|key| musig2::secp::Point::from_slice(&key.serialize()).unwrap());
            let mut context = musig2::KeyAggContext::new(keys).unwrap();
            if let Some(root) = group.merkle_root {
                context = context.with_taproot_tweak(&root.to_byte_array()).unwrap();
            }
            let secrets = group.keys.iter().map(|key| {
                let secret = pair_of(&key.x_only_public_key().0).secret_key();
                let secret = if secret.public_key(SECP256K1) == *key { secret } else { secret.negate() };
                musig2::secp::Scalar::from_slice(&secret.secret_bytes()).unwrap()
            });
            let secret: musig2::secp::Scalar = context.aggregated_seckey(secrets).unwrap();
            let secret = SecretKey::from_slice(&secret.serialize()).unwrap();
            Signatures::Group(schnorr(&Keypair::from_secret_key(SECP256K1, &secret), message))
        }
        Signers::Each { threshold, keys } => Signatures::Each(
            (0..).zip(keys).take(*threshold as usize).map(|(key, k)| (key, schnorr(&pair_of(k), message))).collect(),
        ),
    }
}

fn paths() -> [SpendPath; 5] {
    [SpendPath::Key, SpendPath::Subset(vec![0, 2, 4]), SpendPath::MultiA, SpendPath::Recovery, SpendPath::Refund]
}

#[test]
fn every_path_is_signed_at_the_weight_that_pays_its_fee() {
    let scripts = scripts(5, 3);
    let other_epoch = self::scripts(4, 3);
    for path in paths() {
        let coins = if path == SpendPath::Refund {
            vec![coin(&scripts, deposit())]
        } else if matches!(path, SpendPath::Subset(_)) {
            vec![coin(&scripts, CoinScript::Main), coin(&scripts, deposit())]
        } else {
            vec![coin(&scripts, CoinScript::Main), coin(&other_epoch, deposit()), coin(&scripts, deposit())]
        };
        let value = Amount::from_sat(100_000) * coins.len() as u64;
        let spend = sweep(coins, &path).unwrap();
        let witnesses = (0..spend.coins().len())
            .map(|input| {
                let to_sign = spend.to_sign(input, &path).unwrap();
                let witness = to_sign.witness(&sign(&to_sign)).unwrap();
                assert_eq!(witness.size(), to_sign.witness_size());
                witness
            })
            .collect();
        let signed = spend.signed(witnesses).unwrap();
        assert_eq!(signed.weight(), spend.signed_weight(&path).unwrap(), "{path:?}");
        assert_eq!(signed.compute_txid(), spend.transaction().compute_txid());
        let fee = value - signed.output[0].value;
        let exact = signed.weight().to_wu() * 3;
        assert_eq!(fee.to_sat(), exact.div_ceil(4));
    }
}

#[test]
fn inputs_weigh_no_more_than_the_worst_of_their_epoch() {
    let scripts = scripts(5, 3);
    for coin_script in [CoinScript::Main, deposit()] {
        let spend = sweep(vec![coin(&scripts, coin_script.clone())], &SpendPath::Key).unwrap();
        let weights =
            paths().map(|path| spend.to_sign(0, &path).ok().map(|to_sign| 164 + to_sign.witness_size() as u64));
        let epoch = scripts.epoch();
        let worst = match coin_script {
            CoinScript::Main => epoch.worst_main_input_weight(),
            CoinScript::Deposit(_) => epoch.worst_deposit_input_weight(),
        };
        assert_eq!(weights[..3].iter().flatten().max(), Some(&worst.to_wu()));
        let mut signed = spend.transaction().input[0].clone();
        let to_sign = spend.to_sign(0, &SpendPath::MultiA).unwrap();
        signed.witness = to_sign.witness(&sign(&to_sign)).unwrap();
        let weight = 4 * consensus::serialize(&signed).len() + consensus::serialize(&signed.witness).len();
        assert_eq!(weight as u64, worst.to_wu());
    }
}

#[test]
fn the_first_key_signs_the_last_element() {
    let spend = sweep(vec![coin(&scripts(5, 3), CoinScript::Main)], &SpendPath::MultiA).unwrap();
    let to_sign = spend.to_sign(0, &SpendPath::MultiA).unwrap();
    let Signers::Each { keys, threshold: 3 } = to_sign.signers() else { panic!("one signature each") };
    let message = Message::from(to_sign.sighash());
    let signatures: BTreeMap<u16, Signature> =
        [0, 1, 4].map(|key| (key, schnorr(&pair_of(&keys[usize::from(key)]), message))).into();
    let witness = to_sign.witness(&Signatures::Each(signatures.clone())).unwrap();
    let element = |key: u16| signatures[&key].serialize().to_vec();
    let expected = vec![element(4), vec![], vec![], element(1), element(0)];
    assert_eq!(witness.to_vec()[..5], expected);
    assert_eq!(witness.len(), 7);
}

#[test]
fn signatures_that_the_script_would_refuse_make_no_witness() {
    let scripts = scripts(5, 3);
    let spend = sweep(vec![coin(&scripts, CoinScript::Main), coin(&scripts, deposit())], &SpendPath::Recovery).unwrap();
    let multi_a = spend.to_sign(0, &SpendPath::MultiA).unwrap();
    let key_path = spend.to_sign(0, &SpendPath::Key).unwrap();
    let Signatures::Each(each) = sign(&multi_a) else { panic!("one signature each") };
    let Signatures::Group(group) = sign(&key_path) else { panic!("one signature") };

    assert_eq!(key_path.witness(&Signatures::Each(each.clone())), Err(SignatureError::OtherPath));
    assert_eq!(multi_a.witness(&Signatures::Group(group)), Err(SignatureError::OtherPath));

    let mut few = each.clone();
    few.pop_first();
    assert_eq!(multi_a.witness(&Signatures::Each(few)), Err(SignatureError::Count { got: 2, needed: 3 }));
    // One valid signature too many makes the script false.
    let mut many = each.clone();
    let Signers::Each { keys, .. } = multi_a.signers() else { panic!("one signature each") };
    many.insert(3, schnorr(&pair_of(&keys[3]), Message::from(multi_a.sighash())));
    assert!(multi_a.is_signed_by(3, &many[&3]));
    assert_eq!(multi_a.witness(&Signatures::Each(many)), Err(SignatureError::Count { got: 4, needed: 3 }));
    // Another's, and one of a key that there is not.
    for key in [4, 5, u16::MAX] {
        let mut wrong = each.clone();
        let signature = wrong.remove(&2).unwrap();
        wrong.insert(key, signature);
        assert_eq!(multi_a.witness(&Signatures::Each(wrong)), Err(SignatureError::Invalid { key }));
    }
    // A signature of another input, of another path, of another subset.
    let others = [
        spend.to_sign(1, &SpendPath::Key).unwrap(),
        spend.to_sign(0, &SpendPath::Subset(vec![0, 1, 2])).unwrap(),
        spend.to_sign(0, &SpendPath::Subset(vec![0, 1, 3])).unwrap(),
    ];
    for (at, to_sign) in others.iter().enumerate() {
        assert!(to_sign.witness(&sign(to_sign)).is_ok());
        assert_eq!(to_sign.witness(&Signatures::Group(group)), Err(SignatureError::Invalid { key: 0 }));
        assert!(!to_sign.is_signed_by(1, &group));
        for other in others.iter().skip(at + 1) {
            assert_eq!(other.witness(&sign(to_sign)), Err(SignatureError::Invalid { key: 0 }));
        }
    }
}

#[test]
fn what_is_no_spend_of_these_coins_is_refused() {
    let scripts = scripts(5, 3);
    let spent = || vec![coin(&scripts, CoinScript::Main), coin(&scripts, deposit())];
    let spend = sweep(spent(), &SpendPath::Key).unwrap();
    let transaction = spend.transaction().clone();
    assert!(Spend::new(chain(), transaction.clone(), spent()).is_ok());

    let error = |chain, transaction, coins| Spend::new(chain, transaction, coins).unwrap_err();
    let one = spent()[..1].to_vec();
    assert_eq!(error(chain(), transaction.clone(), one), SpendError::Count { got: 1, inputs: 2 });
    let swapped = spent().into_iter().rev().collect();
    assert_eq!(error(chain(), transaction.clone(), swapped), SpendError::OutPoint { input: 0 });
    let mut other_script = spent();
    other_script[1].coin = CoinScript::Main;
    assert_eq!(error(chain(), transaction.clone(), other_script), SpendError::Script { input: 1 });
    let other_chain = ChainId::from_byte_array([4; 32]);
    assert_eq!(error(other_chain, transaction.clone(), spent()), SpendError::Script { input: 1 });
    let mut signed = transaction.clone();
    signed.input[1].witness.push([0; 64]);
    assert_eq!(error(chain(), signed, spent()), SpendError::Signed { input: 1 });

    assert_eq!(spend.to_sign(2, &SpendPath::Key).unwrap_err(), SpendError::NoInput { input: 2, inputs: 2 });
    let short = SpendPath::Subset(vec![0, 1]);
    assert_eq!(spend.to_sign(0, &short).unwrap_err(), SpendError::NoPath { input: 0 });
    assert_eq!(sweep(spent(), &SpendPath::Refund).unwrap_err(), SpendError::NoPath { input: 0 });
    assert_eq!(spend.signed(vec![Witness::new()]).unwrap_err(), SpendError::Count { got: 1, inputs: 2 });

    let dear = Spend::sweep(chain(), spent(), &SpendPath::Key, destination(), FeeRate::MAX).unwrap_err();
    assert!(matches!(dear, SpendError::Dust { .. }));
    let all = FeeRate::from_sat_per_vb_u32(1_230);
    let dust = Spend::sweep(chain(), spent(), &SpendPath::Key, destination(), all).unwrap_err();
    assert!(matches!(dust, SpendError::Dust { .. }), "{dust}");
}

#[test]
fn timelocked_paths_want_the_sequence_that_bitcoin_enforces() {
    let scripts = scripts(5, 3);
    let coin = coin(&scripts, deposit());
    for (path, delay) in [(SpendPath::Recovery, 300), (SpendPath::Refund, 400)] {
        let spend = sweep(vec![coin.clone()], &path).unwrap();
        assert_eq!(spend.transaction().input[0].sequence, Sequence::from_height(delay));
        let judged = |version, sequence: u32| {
            let mut transaction = spend.transaction().clone();
            transaction.version = version;
            transaction.input[0].sequence = Sequence(sequence);
            Spend::new(chain(), transaction, vec![coin.clone()]).unwrap().to_sign(0, &path).map(|_| ())
        };
        let locked = Err(SpendError::Locked { input: 0, blocks: delay });
        let delay = u32::from(delay);
        assert_eq!(judged(Version::TWO, delay), Ok(()));
        assert_eq!(judged(Version(3), u32::from(u16::MAX)), Ok(()));
        assert_eq!(judged(Version::ONE, delay), locked);
        assert_eq!(judged(Version::TWO, delay - 1), locked);
        // Seconds; switched off; more than 16 bits count for nothing.
        assert_eq!(judged(Version::TWO, delay | 1 << 22), locked);
        assert_eq!(judged(Version::TWO, delay | 1 << 31), locked);
        assert_eq!(judged(Version::TWO, 1 << 16), locked);
        assert_eq!(judged(Version::TWO, 0xffff_fffd), locked);
    }
}
