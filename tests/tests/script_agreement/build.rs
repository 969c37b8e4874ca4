//! From a plan to a signed transaction and the outputs it spends.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use causeway_tests::wallet::{Kind, Owner};

use crate::plan::{Dress, Form, Input, KeyForm, Place, Plan, SchnorrForm};
use crate::{ecdsa, messages, taproot};

/// The message of SIGHASH_SINGLE without its output, before segregated witness.
const ONE: [u8; 32] = {
    let mut one = [0; 32];
    one[0] = 1;
    one
};

/// Owners that hold no coin: their keys are the wrong ones.
const STRANGER: u64 = 1000;

/// Returns a plan's transaction and the outputs that it spends.
pub(crate) fn build(plan: &Plan) -> (Transaction, Vec<TxOut>) {
    let spent: Vec<TxOut> = plan
        .inputs
        .iter()
        .map(|input| TxOut { value: Amount::from_sat(input.value), script_pubkey: script_pubkey(input) })
        .collect();
    let unsigned = |(i, input): (usize, &Input)| TxIn {
        previous_output: OutPoint { txid: Txid::hash(&i.to_le_bytes()), vout: input.vout },
        sequence: Sequence(input.sequence),
        ..TxIn::default()
    };
    let output = |(value, script): &(u64, Vec<u8>)| TxOut {
        value: Amount::from_sat(*value),
        script_pubkey: ScriptBuf::from_bytes(script.clone()),
    };
    let mut transaction = Transaction {
        version: Version(plan.version),
        lock_time: LockTime::from_consensus(plan.lock_time),
        input: plan.inputs.iter().enumerate().map(unsigned).collect(),
        output: plan.outputs.iter().map(output).collect(),
    };
    for (i, input) in plan.inputs.iter().enumerate() {
        if let Form::Wallet { kind, hash_type } = input.form {
            // The wallet does not sign what cannot be valid.
            let taproot = matches!(kind, Kind::P2trKey | Kind::P2trScript);
            let unmatched = taproot && hash_type & 3 == 3 && i >= transaction.output.len();
            let hash_type = if unmatched { 0 } else { hash_type };
            Owner::new(input.owner).sign(&mut transaction, &spent, i, kind, hash_type);
        } else {
            let (script_sig, witness) = satisfaction(input, &transaction, &spent, i);
            transaction.input[i].script_sig = script_sig;
            transaction.input[i].witness = Witness::from_slice(&witness);
        }
    }
    (transaction, spent)
}

fn script_pubkey(input: &Input) -> ScriptBuf {
    let owner = Owner::new(input.owner);
    match &input.form {
        Form::Wallet { kind, .. } => owner.script_pubkey(*kind),
        Form::KeyHash { place, key, .. } => {
            let hash = hash160(&keys(input, key).0);
            match place {
                Place::P2wpkh => ScriptBuf::from_bytes(p2wpkh(&hash)),
                Place::P2pkh => p2pkh(&hash),
                Place::P2shP2wpkh => ScriptBuf::from_bytes(p2wpkh(&hash)).to_p2sh(),
            }
        }
        Form::KeyPath { program, .. } => taproot::output(&taproot::program(owner.keypair(), program)),
        Form::ScriptPath { .. } => taproot::output(&tree(input).output),
        Form::SmallSignature { nested, .. } => {
            let script = p2pkh(&hash160(&small_signature(input).1));
            if *nested { script.to_p2sh() } else { script }
        }
        Form::Witness { version, program, nested, .. } => {
            let script = ScriptBuf::from_bytes(witness_program(*version, program));
            if *nested { script.to_p2sh() } else { script }
        }
        Form::Bytes { script_pubkey, .. } => ScriptBuf::from_bytes(script_pubkey.clone()),
    }
}

/// Returns the scriptSig and the witness that spend an input.
fn satisfaction(input: &Input, transaction: &Transaction, spent: &[TxOut], i: usize) -> (ScriptBuf, Vec<Vec<u8>>) {
    let owner = Owner::new(input.owner);
    match &input.form {
        Form::Wallet { .. } => unreachable!("the wallet signs these"),
        Form::KeyHash { place, key, signature, hash_type, dress } => {
            let (committed, presented) = keys(input, key);
            let hash = hash160(&committed);
            let message = |hash_type| match place {
                Place::P2pkh => messages::legacy(transaction, &p2pkh(&hash), i, hash_type),
                _ => messages::p2wpkh(transaction, &spent[i], &hash, i, hash_type),
            };
            let elements = vec![ecdsa::signature(owner.keypair(), message, *hash_type, signature), presented];
            match place {
                Place::P2wpkh => in_witness(elements, vec![], dress),
                Place::P2pkh => in_script_sig(elements, dress),
                Place::P2shP2wpkh => in_witness(elements, push(&p2wpkh(&hash), 0), dress),
            }
        }
        Form::KeyPath { signature, hash_type, annex, dress, .. } => {
            let signing = taproot::Signing { transaction, spent, input: i, hash_type: *hash_type, annex, leaf: None };
            let mut elements = vec![signing.signature(owner.keypair(), signature)];
            elements.extend(taproot::annex(annex));
            in_witness(elements, vec![], dress)
        }
        Form::ScriptPath { leaf, control, hash_type, annex, .. } => {
            let tree = tree(input);
            let leaf_hash = Some(tree.leaf_hash);
            let signing =
                taproot::Signing { transaction, spent, input: i, hash_type: *hash_type, annex, leaf: leaf_hash };
            let mut elements = vec![];
            if taproot::takes_signature(leaf) {
                elements.push(signing.signature(owner.keypair(), &SchnorrForm::Right));
            }
            elements.extend([tree.script, taproot::control(tree.control, control)]);
            elements.extend(taproot::annex(annex));
            (ScriptBuf::new(), elements)
        }
        Form::SmallSignature { hash_type, nested, .. } => {
            let (signature, key) = small_signature(input);
            let mut elements = vec![[signature, vec![*hash_type]].concat(), key.clone()];
            if *nested {
                elements.push(p2pkh(&hash160(&key)).into_bytes());
            }
            in_script_sig(elements, &Dress::Plain)
        }
        Form::Witness { version, program, nested, elements } => {
            let script_sig = if *nested { push(&witness_program(*version, program), 0) } else { vec![] };
            (ScriptBuf::from_bytes(script_sig), elements.clone())
        }
        Form::Bytes { script_sig, witness, .. } => (ScriptBuf::from_bytes(script_sig.clone()), witness.clone()),
    }
}

fn keys(input: &Input, form: &KeyForm) -> (Vec<u8>, Vec<u8>) {
    ecdsa::keys(Owner::new(input.owner).keypair(), Owner::new(STRANGER).keypair(), form)
}

fn tree(input: &Input) -> taproot::Tree {
    let Form::ScriptPath { leaf, version, path, .. } = &input.form else { panic!("no script path") };
    let internal = Owner::new(STRANGER).keypair().x_only_public_key().0;
    taproot::tree(Owner::new(input.owner).keypair(), internal, leaf, *version, *path)
}

/// Returns the signature without its hash type, and the key.
fn small_signature(input: &Input) -> (Vec<u8>, Vec<u8>) {
    let Form::SmallSignature { r_bytes, s_bytes, .. } = input.form else { panic!("no small signature") };
    let (signature, key) = ecdsa::small_signature(input.owner, r_bytes, s_bytes, ONE);
    (signature, key.serialize().to_vec())
}

/// Puts elements into a witness, and dresses them.
fn in_witness(elements: Vec<Vec<u8>>, script_sig: Vec<u8>, dress: &Dress) -> (ScriptBuf, Vec<Vec<u8>>) {
    let script_sig = if let Dress::OtherSide(bytes) = dress { bytes.clone() } else { script_sig };
    (ScriptBuf::from_bytes(script_sig), dressed(elements, dress))
}

/// Pushes elements in a scriptSig, and dresses them.
fn in_script_sig(elements: Vec<Vec<u8>>, dress: &Dress) -> (ScriptBuf, Vec<Vec<u8>>) {
    let forms = if let Dress::Pushes(forms) = dress { *forms } else { [0; 2] };
    let forms = forms.into_iter().chain(std::iter::repeat(0));
    let pushes = dressed(elements, dress).into_iter().zip(forms).flat_map(|(element, form)| push(&element, form));
    let mut script: Vec<u8> = pushes.collect();
    if let Dress::Code(code) = dress {
        script.extend(code);
    }
    let witness = if let Dress::OtherSide(element) = dress { vec![element.clone()] } else { vec![] };
    (ScriptBuf::from_bytes(script), witness)
}

fn dressed(mut elements: Vec<Vec<u8>>, dress: &Dress) -> Vec<Vec<u8>> {
    match dress {
        Dress::Plain | Dress::Pushes(_) | Dress::Code(_) | Dress::OtherSide(_) => {}
        Dress::First(element) => elements.insert(0, element.clone()),
        Dress::Last(element) => elements.push(element.clone()),
        Dress::WithoutFirst => drop(elements.remove(0)),
        Dress::WithoutLast => drop(elements.pop()),
        Dress::Swapped => elements.reverse(),
        Dress::Nothing => elements.clear(),
    }
    elements
}

/// A push with OP_PUSHDATA and a length in 1, 2 or 4 bytes, or with the least operation.
fn push(element: &[u8], length_bytes: u8) -> Vec<u8> {
    let length = u32::try_from(element.len()).expect("a short element").to_le_bytes();
    let head = match length_bytes {
        0 if element.len() <= 75 => vec![length[0]],
        0 | 1 => vec![0x4c, length[0]],
        2 => vec![0x4d, length[0], length[1]],
        _ => [&[0x4e], length.as_slice()].concat(),
    };
    [head.as_slice(), element].concat()
}

fn p2wpkh(hash: &[u8]) -> Vec<u8> {
    [&[0, 20], hash].concat()
}

fn p2pkh(hash: &[u8]) -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x76, 0xa9, 20], hash, &[0x88, 0xac]].concat())
}

fn witness_program(version: u8, program: &[u8]) -> Vec<u8> {
    let operation = if version == 0 { 0 } else { 0x50 + version };
    [&[operation], push(program, 0).as_slice()].concat()
}

fn hash160(bytes: &[u8]) -> Vec<u8> {
    hash160::Hash::hash(bytes).to_byte_array().to_vec()
}
