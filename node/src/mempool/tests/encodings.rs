//! Signed spends of the forms that wallets use, and what is valid and not standard about their encodings.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::opcodes::all::OP_CHECKMULTISIG;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{self, Message, SECP256K1};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TaprootBuilder};
use bitcoin::{Amount, PublicKey, Script, ScriptBuf, Transaction, TxIn, TxOut, Witness};

use crate::mempool::{Invalid, PolicyReject, Reject};
use crate::testing::{Bench, COIN, free_input, pay};

const HIGH_S: &str = "Non-canonical signature: S value is unnecessarily high";
const FAILED: &str = "Signature must be zero for failed CHECK(MULTI)SIG operation";
const EVALUATED_FALSE: &str = "Script evaluated without error but finished with a false/empty top stack element";
const HASH_TYPE: &str = "Signature hash type missing or not understood";

fn keypair(number: u8) -> Keypair {
    let seed = sha256::Hash::hash(&[number]);
    Keypair::from_seckey_slice(SECP256K1, seed.as_ref()).expect("a hash is a key")
}

fn compressed(number: u8) -> PublicKey {
    PublicKey::new(keypair(number).public_key())
}

fn uncompressed(number: u8) -> PublicKey {
    PublicKey::new_uncompressed(keypair(number).public_key())
}

fn push(builder: Builder, bytes: &[u8]) -> Builder {
    builder.push_slice(PushBytesBuf::try_from(bytes.to_vec()).expect("short"))
}

fn pushes(elements: &[&[u8]]) -> ScriptBuf {
    elements.iter().fold(Builder::new(), |builder, element| push(builder, element)).into_script()
}

/// An ECDSA signature with its hash type, in DER.
fn ecdsa(number: u8, message: Message, hash_type: u8) -> Vec<u8> {
    let signature = SECP256K1.sign_ecdsa(&message, &keypair(number).secret_key());
    [signature.serialize_der().as_ref(), &[hash_type]].concat()
}

/// The same signature with S taken from the group's order: as valid, and not standard.
fn with_high_s(signature: &[u8]) -> Vec<u8> {
    let (hash_type, der) = signature.split_last().expect("a hash type");
    let compact = secp256k1::ecdsa::Signature::from_der(der).expect("strict").serialize_compact();
    let s = secp256k1::SecretKey::from_slice(&compact[32..]).expect("in range").negate();
    let high = [&compact[..32], &s.secret_bytes()].concat();
    let der = secp256k1::ecdsa::Signature::from_compact(&high).expect("in range").serialize_der();
    [der.as_ref(), &[*hash_type]].concat()
}

/// One input, one output, and a coin of `script_pubkey` in the chain.
fn spending(bench: &mut Bench, script_pubkey: &Script) -> (Transaction, TxOut) {
    let output = TxOut { value: Amount::from_sat(COIN), script_pubkey: script_pubkey.to_owned() };
    let previous_output = bench.put_output(output.clone());
    let input = TxIn { witness: Witness::new(), ..free_input(previous_output) };
    (Transaction { input: vec![input], ..pay(&[], &[COIN - 1_000]) }, output)
}

fn legacy(transaction: &Transaction, script_code: &Script, hash_type: u8) -> Message {
    let hash = SighashCache::new(transaction).legacy_signature_hash(0, script_code, u32::from(hash_type));
    Message::from(hash.expect("the input is there"))
}

fn segwit(transaction: &Transaction, script_code: &Script, hash_type: u8) -> Message {
    let hash_type = EcdsaSighashType::from_consensus(u32::from(hash_type));
    let value = Amount::from_sat(COIN);
    let mut cache = SighashCache::new(transaction);
    let hash = cache.p2wsh_signature_hash(0, script_code, value, hash_type).expect("the input is there");
    Message::from(hash)
}

/// The failing input's words, and whether the transaction is held to be invalid.
fn failure(bench: &mut Bench, transaction: &Transaction) -> (&'static str, bool) {
    match bench.submit(transaction).expect_err("refused") {
        Reject::Invalid(Invalid::Script(failure)) => (failure.error, true),
        Reject::Policy(PolicyReject::Script(failure)) => (failure.error, false),
        other => panic!("{other}"),
    }
}

fn p2pkh(bench: &mut Bench, key: &PublicKey, sign: impl Fn(Message) -> Vec<u8>, hash_type: u8) -> Transaction {
    let script = ScriptBuf::new_p2pkh(&key.pubkey_hash());
    let (mut transaction, _) = spending(bench, &script);
    let signature = sign(legacy(&transaction, &script, hash_type));
    transaction.input[0].script_sig = pushes(&[&signature, &key.to_bytes()]);
    transaction
}

#[test]
fn p2pkh_signatures_keys_and_pushes() {
    let mut bench = Bench::new();
    for key in [compressed(1), uncompressed(1)] {
        let good = p2pkh(&mut bench, &key, |message| ecdsa(1, message, 1), 1);
        bench.add(&good);
    }
    let key = compressed(1);
    let high = p2pkh(&mut bench, &key, |message| with_high_s(&ecdsa(1, message, 1)), 1);
    assert_eq!(failure(&mut bench, &high), (HIGH_S, false));
    // It is valid all the same: a block may hold it.
    bench.commit_transactions(vec![high], 1_000);
    let odd = p2pkh(&mut bench, &key, |message| ecdsa(1, message, 4), 4);
    assert_eq!(failure(&mut bench, &odd), (HASH_TYPE, false));
    bench.commit_transactions(vec![odd], 1_000);
    let broken = p2pkh(&mut bench, &key, |message| [&ecdsa(1, message, 1)[..], &[1]].concat(), 1);
    assert_eq!(failure(&mut bench, &broken), ("Non-canonical DER signature", false));
    let forged = p2pkh(&mut bench, &key, |message| ecdsa(2, message, 1), 1);
    assert_eq!(failure(&mut bench, &forged), (FAILED, true));
    let empty = p2pkh(&mut bench, &key, |_| vec![], 1);
    assert_eq!(failure(&mut bench, &empty), (EVALUATED_FALSE, true));
    let mut bare = empty;
    bare.input[0].script_sig = ScriptBuf::new();
    assert_eq!(failure(&mut bench, &bare), ("Operation not valid with the current stack size", true));

    let good = p2pkh(&mut bench, &key, |message| ecdsa(1, message, 1), 1);
    let mut long_push = good.clone();
    let script_sig = good.input[0].script_sig.as_bytes();
    long_push.input[0].script_sig = ScriptBuf::from_bytes([&[0x4c], script_sig].concat());
    assert_eq!(failure(&mut bench, &long_push), ("Data push larger than necessary", false));
    let mut extra = good.clone();
    extra.input[0].script_sig = ScriptBuf::from_bytes([&[0x51], script_sig].concat());
    assert_eq!(failure(&mut bench, &extra), ("Stack size must be exactly one after execution", false));
    bench.commit_transactions(vec![extra], 1_000);
}

#[test]
fn hybrid_keys() {
    let mut bench = Bench::new();
    let mut hybrid = uncompressed(1).to_bytes();
    hybrid[0] = 6 + (hybrid[64] & 1);
    let script = ScriptBuf::from_bytes([&[65], hybrid.as_slice(), &[0xac]].concat());
    let (mut transaction, _) = spending(&mut bench, &script);
    let signature = ecdsa(1, legacy(&transaction, &script, 1), 1);
    transaction.input[0].script_sig = pushes(&[&signature]);
    assert_eq!(failure(&mut bench, &transaction), ("Public key is neither compressed or uncompressed", false));
    bench.commit_transactions(vec![transaction], 1_000);
}

fn p2wpkh(bench: &mut Bench, key: &PublicKey, nested: bool, edit: impl Fn(Vec<u8>) -> Vec<u8>) -> Transaction {
    let program = ScriptBuf::from_bytes([&[0, 20], key.pubkey_hash().as_byte_array().as_slice()].concat());
    let script = if nested { program.to_p2sh() } else { program.clone() };
    let (mut transaction, _) = spending(bench, &script);
    let message = segwit(&transaction, &ScriptBuf::new_p2pkh(&key.pubkey_hash()), 1);
    transaction.input[0].witness = Witness::from_slice(&[edit(ecdsa(1, message, 1)), key.to_bytes()]);
    if nested {
        transaction.input[0].script_sig = pushes(&[program.as_bytes()]);
    }
    transaction
}

#[test]
fn p2wpkh_bare_and_nested() {
    let mut bench = Bench::new();
    let key = compressed(1);
    for nested in [false, true] {
        let good = p2wpkh(&mut bench, &key, nested, |signature| signature);
        bench.add(&good);
        let high = p2wpkh(&mut bench, &key, nested, |signature| with_high_s(&signature));
        assert_eq!(failure(&mut bench, &high), (HIGH_S, false));
        bench.commit_transactions(vec![high], 1_000);
        let long_key = p2wpkh(&mut bench, &uncompressed(1), nested, |signature| signature);
        assert_eq!(failure(&mut bench, &long_key), ("Using non-compressed keys in segwit", false));
        bench.commit_transactions(vec![long_key], 1_000);
        let mut forged = p2wpkh(&mut bench, &key, nested, |signature| signature);
        forged.output[0].value -= Amount::ONE_SAT;
        assert_eq!(failure(&mut bench, &forged), (FAILED, true));
        let mut stripped = forged;
        stripped.input[0].witness.clear();
        assert_eq!(failure(&mut bench, &stripped), ("Witness program was passed an empty witness", true));
        let mut other_key = p2wpkh(&mut bench, &key, nested, |signature| signature);
        let signature = other_key.input[0].witness.nth(0).expect("there").to_vec();
        other_key.input[0].witness = Witness::from_slice(&[signature.clone(), compressed(2).to_bytes()]);
        assert_eq!(failure(&mut bench, &other_key), ("Script failed an OP_EQUALVERIFY operation", true));
        other_key.input[0].witness = Witness::from_slice(&[signature]);
        assert_eq!(failure(&mut bench, &other_key), ("Witness program hash mismatch", true));
        other_key.input[0].witness = Witness::from_slice(&[vec![], compressed(1).to_bytes()]);
        assert_eq!(failure(&mut bench, &other_key), (EVALUATED_FALSE, true));
        let redeem = other_key.input[0].script_sig.to_bytes();
        other_key.input[0].script_sig = ScriptBuf::from_bytes([&[2, 7, 7], redeem.as_slice()].concat());
        let malleated = match nested {
            false => "Witness requires empty scriptSig",
            true => "Witness requires only-redeemscript scriptSig",
        };
        assert_eq!(failure(&mut bench, &other_key), (malleated, true));
    }
}

#[test]
fn multisig_in_a_witness_script() {
    let mut bench = Bench::new();
    let script = |keys: [PublicKey; 3]| {
        let builder = keys.iter().fold(Builder::new().push_int(2), |builder, key| builder.push_key(key));
        builder.push_int(3).push_opcode(OP_CHECKMULTISIG).into_script()
    };
    let mut spend = |keys: [PublicKey; 3], edit: fn(Vec<u8>) -> Vec<u8>| {
        let script = script(keys);
        let (mut transaction, _) = spending(&mut bench, &script.to_p2wsh());
        let message = segwit(&transaction, &script, 1);
        let witness = vec![vec![], ecdsa(1, message, 1), edit(ecdsa(2, message, 1)), script.to_bytes()];
        transaction.input[0].witness = Witness::from_slice(&witness);
        transaction
    };
    let good = spend([1, 2, 3].map(compressed), |signature| signature);
    let high = spend([1, 2, 3].map(compressed), |signature| with_high_s(&signature));
    let long_key = spend([compressed(1), compressed(2), uncompressed(3)], |signature| signature);
    bench.add(&good);
    assert_eq!(failure(&mut bench, &high), (HIGH_S, false));
    assert_eq!(failure(&mut bench, &long_key), ("Using non-compressed keys in segwit", false));
    bench.commit_transactions(vec![high, long_key], 2_000);
}

#[test]
fn taproot_by_key() {
    let mut bench = Bench::new();
    let internal = keypair(1).x_only_public_key().0;
    let script = ScriptBuf::new_p2tr(SECP256K1, internal, None);
    let (mut transaction, output) = spending(&mut bench, &script);
    let prevouts = [output];
    let hash = SighashCache::new(&transaction)
        .taproot_key_spend_signature_hash(0, &Prevouts::All(&prevouts), TapSighashType::Default)
        .expect("the input is there");
    let tweaked = keypair(1).tap_tweak(SECP256K1, None).to_keypair();
    let signature = SECP256K1.sign_schnorr_no_aux_rand(&Message::from(hash), &tweaked);
    let mut forged = transaction.clone();
    forged.input[0].witness = Witness::from_slice(&[[1; 64]]);
    assert_eq!(failure(&mut bench, &forged), ("Invalid Schnorr signature", true));
    forged.input[0].witness = Witness::from_slice(&[[1; 63]]);
    assert_eq!(failure(&mut bench, &forged), ("Invalid Schnorr signature size", true));
    forged.input[0].witness = Witness::from_slice(&[[0; 65]]);
    assert_eq!(failure(&mut bench, &forged), ("Invalid Schnorr signature hash type", true));
    transaction.input[0].witness = Witness::from_slice(&[signature.as_ref()]);
    bench.add(&transaction);
    bench.mine();
}

#[test]
fn taproot_by_script_keeps_room_for_upgrades() {
    let mut bench = Bench::new();
    let internal = keypair(1).x_only_public_key().0;
    let mut spend = |leaf: &[u8], version: u8| {
        let leaf = ScriptBuf::from_bytes(leaf.to_vec());
        let version = LeafVersion::from_consensus(version).expect("a leaf version");
        let tree = TaprootBuilder::new().add_leaf_with_ver(0, leaf.clone(), version).expect("one leaf");
        let info = tree.finalize(SECP256K1, internal).expect("complete");
        let control = info.control_block(&(leaf.clone(), version)).expect("the leaf is there");
        let (mut transaction, _) = spending(&mut bench, &ScriptBuf::new_p2tr_tweaked(info.output_key()));
        transaction.input[0].witness = Witness::from_slice(&[leaf.to_bytes(), control.serialize()]);
        transaction
    };
    let good = spend(&[0x51], 0xc0);
    let success = spend(&[0x50], 0xc0);
    let nop = spend(&[0xb0, 0x51], 0xc0);
    let version = spend(&[0x51], 0xc2);
    bench.add(&good);
    assert_eq!(failure(&mut bench, &success), ("OP_SUCCESSx reserved for soft-fork upgrades", false));
    assert_eq!(failure(&mut bench, &nop), ("NOPx reserved for soft-fork upgrades", false));
    assert_eq!(failure(&mut bench, &version), ("Taproot version reserved for soft-fork upgrades", false));
    bench.commit_transactions(vec![success, nop, version], 3_000);
}

#[test]
fn scripts_in_script_hashes_keep_room_for_upgrades() {
    let mut bench = Bench::new();
    let mut p2sh = |redeem: &[u8]| {
        let redeem = ScriptBuf::from_bytes(redeem.to_vec());
        let (mut transaction, _) = spending(&mut bench, &redeem.to_p2sh());
        transaction.input[0].script_sig = pushes(&[redeem.as_bytes()]);
        transaction
    };
    let good = p2sh(&[0x61, 0x51]);
    let mut another = p2sh(&[0x61, 0x51]);
    let nop = p2sh(&[0xb9, 0x51]);
    let separator = p2sh(&[0xab, 0x51]);
    bench.add(&good);
    another.input[0].script_sig = pushes(&[&[0x52]]);
    assert_eq!(failure(&mut bench, &another), (EVALUATED_FALSE, true));
    assert_eq!(failure(&mut bench, &nop), ("NOPx reserved for soft-fork upgrades", false));
    assert_eq!(failure(&mut bench, &separator), ("Using OP_CODESEPARATOR in non-witness script", false));
    bench.commit_transactions(vec![nop, separator], 2_000);
}
