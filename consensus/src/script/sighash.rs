//! What a signature signs (BIP-0143, BIP-0341, and the first rule), from hashes computed once a transaction.
//!
//! `bitcoin::sighash::SighashCache` computes them too, but on first use through `&mut`, so that the inputs of one
//! transaction could not be verified on several threads; and it does not take every hash type that consensus takes.

use bitcoin::consensus::Encodable;
use bitcoin::hashes::{Hash, HashEngine, sha256, sha256d};
use bitcoin::sighash::TapSighash;
use bitcoin::{OutPoint, Script, Transaction, TxIn, TxOut, VarInt};

const ALL: u8 = 1;
const NONE: u8 = 2;
const SINGLE: u8 = 3;
const ANYONE_CAN_PAY: u8 = 0x80;

/// Bits of a hash type byte that choose the outputs, before Taproot.
const OUTPUT_MASK: u8 = 0x1f;

/// The hashes that all inputs of a transaction share, each over all inputs or outputs.
#[derive(Debug, Clone)]
pub struct Midstates {
    /// BIP-0143: double hashes.
    v0: Option<Shared>,
    /// BIP-0341: single hashes.
    v1: Option<TaprootShared>,
}

#[derive(Debug, Clone)]
struct Shared {
    prevouts: [u8; 32],
    sequences: [u8; 32],
    outputs: [u8; 32],
}

#[derive(Debug, Clone)]
struct TaprootShared {
    shared: Shared,
    amounts: [u8; 32],
    scripts: [u8; 32],
}

impl Midstates {
    /// Returns the hashes that the inputs spending `spent`, in their order, will need on the direct way.
    pub fn new(transaction: &Transaction, spent: &[&TxOut]) -> Self {
        let v0 = spent.iter().any(|output| output.script_pubkey.is_p2wpkh());
        let v1 = spent.iter().any(|output| output.script_pubkey.is_p2tr());
        let shared = (v0 || v1).then(|| Shared::new(transaction));
        Self {
            v0: shared.as_ref().filter(|_| v0).map(Shared::hashed_again),
            v1: shared.filter(|_| v1).map(|shared| TaprootShared {
                shared,
                amounts: sha256_of(|engine| spent.iter().for_each(|output| put(engine, &output.value))),
                scripts: sha256_of(|engine| spent.iter().for_each(|output| put(engine, &output.script_pubkey))),
            }),
        }
    }

    /// Returns the message of a P2WPKH input that spends `spent`, for any hash type byte (BIP-0143).
    ///
    /// # Panics
    /// If `spent` is no P2WPKH output, or was not among the outputs of [`Midstates::new`].
    pub fn p2wpkh(&self, transaction: &Transaction, spent: &TxOut, input: usize, hash_type: u8) -> [u8; 32] {
        let shared = self.v0.as_ref().expect("a P2WPKH output was there when the hashes were made");
        let txin = &transaction.input[input];
        let output_type = hash_type & OUTPUT_MASK;
        let anyone = hash_type & ANYONE_CAN_PAY != 0;
        let mut engine = sha256d::Hash::engine();
        put(&mut engine, &transaction.version);
        engine.input(if anyone { &[0; 32] } else { &shared.prevouts });
        let all_sequences = !anyone && output_type != SINGLE && output_type != NONE;
        engine.input(if all_sequences { &shared.sequences } else { &[0; 32] });
        put(&mut engine, &txin.previous_output);
        put_p2pkh_script(&mut engine, &spent.script_pubkey.as_bytes()[2..22]);
        put(&mut engine, &spent.value);
        put(&mut engine, &txin.sequence);
        match (output_type, transaction.output.get(input)) {
            (SINGLE, Some(output)) => engine.input(&sha256d_of(|engine| put(engine, output))),
            (SINGLE, None) | (NONE, _) => engine.input(&[0; 32]),
            _ => engine.input(&shared.outputs),
        }
        put(&mut engine, &transaction.lock_time);
        engine.input(&u32::from(hash_type).to_le_bytes());
        sha256d::Hash::from_engine(engine).to_byte_array()
    }

    /// Returns the message of a Taproot input spent by key path, or None if its hash type is not allowed (BIP-0341).
    ///
    /// # Panics
    /// If no Taproot output was among the outputs of [`Midstates::new`].
    pub fn key_path(
        &self,
        transaction: &Transaction,
        spent: &[&TxOut],
        input: usize,
        hash_type: u8,
        annex: Option<&[u8]>,
    ) -> Option<[u8; 32]> {
        let hashes = self.v1.as_ref().expect("a Taproot output was there when the hashes were made");
        if !matches!(hash_type, 0..=3 | 0x81..=0x83) {
            return None;
        }
        let output_type = if hash_type == 0 { ALL } else { hash_type & 3 };
        let anyone = hash_type & ANYONE_CAN_PAY != 0;
        let mut engine = TapSighash::engine();
        engine.input(&[0, hash_type]); // epoch, hash type
        put(&mut engine, &transaction.version);
        put(&mut engine, &transaction.lock_time);
        if !anyone {
            engine.input(&hashes.shared.prevouts);
            engine.input(&hashes.amounts);
            engine.input(&hashes.scripts);
            engine.input(&hashes.shared.sequences);
        }
        if output_type == ALL {
            engine.input(&hashes.shared.outputs);
        }
        engine.input(&[u8::from(annex.is_some())]); // spend type: key path
        if anyone {
            let txin = &transaction.input[input];
            put(&mut engine, &txin.previous_output);
            put(&mut engine, spent[input]);
            put(&mut engine, &txin.sequence);
        } else {
            engine.input(&u32::try_from(input).ok()?.to_le_bytes());
        }
        if let Some(annex) = annex {
            engine.input(&sha256_of(|engine| {
                put(engine, &VarInt(annex.len() as u64));
                engine.input(annex);
            }));
        }
        if output_type == SINGLE {
            let output = transaction.output.get(input)?;
            engine.input(&sha256_of(|engine| put(engine, output)));
        }
        Some(TapSighash::from_engine(engine).to_byte_array())
    }
}

impl Shared {
    /// Single hashes.
    fn new(transaction: &Transaction) -> Self {
        let (inputs, outputs) = (&transaction.input, &transaction.output);
        Self {
            prevouts: sha256_of(|engine| inputs.iter().for_each(|input| put(engine, &input.previous_output))),
            sequences: sha256_of(|engine| inputs.iter().for_each(|input| put(engine, &input.sequence))),
            outputs: sha256_of(|engine| outputs.iter().for_each(|output| put(engine, output))),
        }
    }

    fn hashed_again(&self) -> Self {
        let again = |hash: &[u8; 32]| sha256::Hash::hash(hash).to_byte_array();
        Self { prevouts: again(&self.prevouts), sequences: again(&self.sequences), outputs: again(&self.outputs) }
    }
}

/// Returns the message of an input before segregated witness, for a script without OP_CODESEPARATOR and without the
/// signature in it, and any hash type (Bitcoin Core: `SignatureHash`, `SigVersion::BASE`).
///
/// Linear in the size of the transaction, so quadratic in its inputs, as on Bitcoin.
///
/// # Panics
/// If there is no such input.
pub fn legacy(transaction: &Transaction, script: &Script, input: usize, hash_type: u32) -> [u8; 32] {
    let output_type = hash_type & u32::from(OUTPUT_MASK);
    let (single, none) = (output_type == u32::from(SINGLE), output_type == u32::from(NONE));
    if single && input >= transaction.output.len() {
        // The number one, little endian: a bug of the first release, kept by consensus.
        let mut one = [0; 32];
        one[0] = 1;
        return one;
    }
    let mut engine = sha256d::Hash::engine();
    put(&mut engine, &transaction.version);
    let put_input = |engine: &mut _, index: usize, txin: &TxIn| {
        put::<OutPoint>(engine, &txin.previous_output);
        if index == input {
            put(engine, script);
            put(engine, &txin.sequence);
        } else {
            put(engine, Script::from_bytes(&[]));
            if single || none { put(engine, &0u32) } else { put(engine, &txin.sequence) }
        }
    };
    if hash_type & u32::from(ANYONE_CAN_PAY) != 0 {
        put(&mut engine, &VarInt(1));
        put_input(&mut engine, input, &transaction.input[input]);
    } else {
        put(&mut engine, &VarInt(transaction.input.len() as u64));
        for (index, txin) in transaction.input.iter().enumerate() {
            put_input(&mut engine, index, txin);
        }
    }
    if none {
        put(&mut engine, &VarInt(0));
    } else if single {
        put(&mut engine, &VarInt(input as u64 + 1));
        for _ in 0..input {
            put(&mut engine, &TxOut::NULL);
        }
        put(&mut engine, &transaction.output[input]);
    } else {
        put(&mut engine, &transaction.output);
    }
    put(&mut engine, &transaction.lock_time);
    engine.input(&hash_type.to_le_bytes());
    sha256d::Hash::from_engine(engine).to_byte_array()
}

/// Puts the script that a P2WPKH program stands for (BIP-0143), with its length.
fn put_p2pkh_script(engine: &mut sha256::HashEngine, key_hash: &[u8]) {
    engine.input(&[25, 0x76, 0xa9, 20]);
    engine.input(key_hash);
    engine.input(&[0x88, 0xac]);
}

/// Puts a value in Bitcoin's serialisation.
fn put<T: Encodable + ?Sized>(engine: &mut sha256::HashEngine, value: &T) {
    value.consensus_encode(engine).expect("a hash engine takes all bytes");
}

fn sha256_of(write: impl FnOnce(&mut sha256::HashEngine)) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    write(&mut engine);
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn sha256d_of(write: impl FnOnce(&mut sha256::HashEngine)) -> [u8; 32] {
    let mut engine = sha256d::Hash::engine();
    write(&mut engine);
    sha256d::Hash::from_engine(engine).to_byte_array()
}
