//! Outputs of every kind, and how to spend them. Signs with `bitcoin`'s own sighash code, not with ours.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_CHECKSIG};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::secp256k1::{self, Message, SECP256K1, SecretKey, XOnlyPublicKey, ecdsa, schnorr};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::{LeafVersion, TapLeafHash, TaprootBuilder, TaprootSpendInfo};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, PublicKey, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

/// How an output is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Taproot, key path.
    P2trKey,
    /// Taproot, script path: one leaf `<key> CHECKSIG`.
    P2trScript,
    /// Native segwit, one key.
    P2wpkh,
    /// Native segwit, 2-of-3.
    P2wsh,
    /// One key hash.
    P2pkh,
    /// One bare key.
    P2pk,
    /// Bare 2-of-3.
    BareMultisig,
    /// Script hash, 2-of-3.
    P2sh,
    /// P2WPKH in a script hash.
    P2shP2wpkh,
    /// 2-of-3 P2WSH in a script hash.
    P2shP2wsh,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::P2trKey,
        Self::P2trScript,
        Self::P2wpkh,
        Self::P2wsh,
        Self::P2pkh,
        Self::P2pk,
        Self::BareMultisig,
        Self::P2sh,
        Self::P2shP2wpkh,
        Self::P2shP2wsh,
    ];
}

/// The holder of three keys, derived from a number.
#[derive(Debug, Clone)]
pub struct Owner {
    keys: [Keypair; 3],
}

/// A signature, what it signs, and whose it is.
#[derive(Debug, Clone)]
pub enum Signature {
    /// BIP-0340.
    Schnorr(schnorr::Signature, Message, XOnlyPublicKey),
    /// ECDSA.
    Ecdsa(ecdsa::Signature, Message, secp256k1::PublicKey),
}

impl Owner {
    /// Returns the owner of a number.
    pub fn new(number: u64) -> Self {
        let keys = [0u8, 1, 2].map(|i| {
            let seed = sha256::Hash::hash(&[b"causeway test key".as_slice(), &number.to_le_bytes(), &[i]].concat());
            Keypair::from_seckey_slice(SECP256K1, seed.as_ref()).expect("a hash is a key")
        });
        Self { keys }
    }

    /// Returns the owner of one key, three times.
    pub fn of_key(key: &SecretKey) -> Self {
        Self { keys: [Keypair::from_secret_key(SECP256K1, key); 3] }
    }

    /// The first key.
    pub fn keypair(&self) -> &Keypair {
        &self.keys[0]
    }

    /// The script of an output of this owner.
    pub fn script_pubkey(&self, kind: Kind) -> ScriptBuf {
        let key = self.public_key(0);
        match kind {
            Kind::P2trKey => ScriptBuf::new_p2tr(SECP256K1, self.keys[0].x_only_public_key().0, None),
            Kind::P2trScript => ScriptBuf::new_p2tr_tweaked(self.taproot().output_key()),
            Kind::P2wpkh => ScriptBuf::new_p2wpkh(&key.wpubkey_hash().expect("compressed")),
            Kind::P2wsh => self.multisig().to_p2wsh(),
            Kind::P2pkh => ScriptBuf::new_p2pkh(&key.pubkey_hash()),
            Kind::P2pk => ScriptBuf::new_p2pk(&key),
            Kind::BareMultisig => self.multisig(),
            Kind::P2sh => self.multisig().to_p2sh(),
            Kind::P2shP2wpkh => self.script_pubkey(Kind::P2wpkh).to_p2sh(),
            Kind::P2shP2wsh => self.script_pubkey(Kind::P2wsh).to_p2sh(),
        }
    }

    /// The 2-of-3 script of this owner's keys.
    pub fn multisig(&self) -> ScriptBuf {
        let keys = [0, 1, 2].map(|i| self.public_key(i));
        keys.iter()
            .fold(Builder::new().push_int(2), |builder, key| builder.push_key(key))
            .push_int(3)
            .push_opcode(OP_CHECKMULTISIG)
            .into_script()
    }

    /// The leaf of this owner's Taproot script path: the second key signs.
    pub fn leaf(&self) -> ScriptBuf {
        let key = self.keys[1].x_only_public_key().0;
        Builder::new().push_x_only_key(&key).push_opcode(OP_CHECKSIG).into_script()
    }

    /// The tree of this owner's Taproot script path.
    pub fn taproot(&self) -> TaprootSpendInfo {
        let builder = TaprootBuilder::new().add_leaf(0, self.leaf()).expect("one leaf");
        builder.finalize(SECP256K1, self.keys[0].x_only_public_key().0).expect("complete")
    }

    /// Signs one input of `transaction`, which spends `spent`, with a hash type (0: the default, SIGHASH_ALL before
    /// Taproot). Returns the signatures that it put there.
    pub fn sign(
        &self,
        transaction: &mut Transaction,
        spent: &[TxOut],
        input: usize,
        kind: Kind,
        hash_type: u8,
    ) -> Vec<Signature> {
        let key = self.public_key(0).to_bytes();
        let mut signatures = Vec::new();
        let (script_sig, witness) = match kind {
            Kind::P2trKey => {
                let message = self.taproot_message(transaction, spent, input, None, hash_type);
                let tweaked = self.keys[0].tap_tweak(SECP256K1, None).to_keypair();
                let signature = schnorr(&mut signatures, message, &tweaked, hash_type);
                (ScriptBuf::new(), vec![signature])
            }
            Kind::P2trScript => {
                let (leaf, info) = (self.leaf(), self.taproot());
                let message = self.taproot_message(transaction, spent, input, Some(&leaf), hash_type);
                let signature = schnorr(&mut signatures, message, &self.keys[1], hash_type);
                let control = info.control_block(&(leaf.clone(), LeafVersion::TapScript)).expect("the leaf is there");
                (ScriptBuf::new(), vec![signature, leaf.to_bytes(), control.serialize()])
            }
            Kind::P2wpkh | Kind::P2shP2wpkh => {
                let program = self.script_pubkey(Kind::P2wpkh);
                let message = v0_message(transaction, spent, input, &program, hash_type);
                let witness = vec![self.ecdsa(&mut signatures, message, 0, hash_type), key];
                (if kind == Kind::P2wpkh { ScriptBuf::new() } else { pushes(&[program.as_bytes()]) }, witness)
            }
            Kind::P2wsh | Kind::P2shP2wsh => {
                let script = self.multisig();
                let message = v0_script_message(transaction, spent, input, &script, hash_type);
                let [first, second] = [0, 1].map(|i| self.ecdsa(&mut signatures, message, i, hash_type));
                let program = script.to_p2wsh();
                let script_sig = if kind == Kind::P2wsh { ScriptBuf::new() } else { pushes(&[program.as_bytes()]) };
                (script_sig, vec![vec![], first, second, script.to_bytes()])
            }
            Kind::P2pkh => {
                let message = legacy_message(transaction, &spent[input].script_pubkey, input, hash_type);
                (pushes(&[&self.ecdsa(&mut signatures, message, 0, hash_type), &key]), vec![])
            }
            Kind::P2pk => {
                let message = legacy_message(transaction, &spent[input].script_pubkey, input, hash_type);
                (pushes(&[&self.ecdsa(&mut signatures, message, 0, hash_type)]), vec![])
            }
            Kind::BareMultisig | Kind::P2sh => {
                let script = self.multisig();
                let message = legacy_message(transaction, &script, input, hash_type);
                let [first, second] = [0, 1].map(|i| self.ecdsa(&mut signatures, message, i, hash_type));
                let script_sig = match kind {
                    Kind::P2sh => pushes(&[&[], &first, &second, script.as_bytes()]),
                    _ => pushes(&[&[], &first, &second]),
                };
                (script_sig, vec![])
            }
        };
        transaction.input[input].script_sig = script_sig;
        transaction.input[input].witness = Witness::from_slice(&witness);
        signatures
    }

    fn public_key(&self, index: usize) -> PublicKey {
        PublicKey::new(self.keys[index].public_key())
    }

    fn ecdsa(&self, signatures: &mut Vec<Signature>, message: Message, index: usize, hash_type: u8) -> Vec<u8> {
        let signature = SECP256K1.sign_ecdsa(&message, &self.keys[index].secret_key());
        signatures.push(Signature::Ecdsa(signature, message, self.keys[index].public_key()));
        [signature.serialize_der().as_ref(), &[ecdsa_type(hash_type)]].concat()
    }

    fn taproot_message(
        &self,
        transaction: &Transaction,
        spent: &[TxOut],
        input: usize,
        leaf: Option<&Script>,
        hash_type: u8,
    ) -> Message {
        let hash_type = TapSighashType::from_consensus_u8(hash_type).expect("a Taproot hash type");
        let leaf = leaf.map(|script| TapLeafHash::from_script(script, LeafVersion::TapScript));
        let prevouts = Prevouts::All(spent);
        let mut cache = SighashCache::new(transaction);
        let hash = match leaf {
            None => cache.taproot_key_spend_signature_hash(input, &prevouts, hash_type),
            Some(leaf) => cache.taproot_script_spend_signature_hash(input, &prevouts, leaf, hash_type),
        };
        Message::from(hash.expect("input and outputs are there"))
    }
}

fn v0_message(tx: &Transaction, spent: &[TxOut], input: usize, program: &Script, hash_type: u8) -> Message {
    let hash_type = EcdsaSighashType::from_consensus(u32::from(ecdsa_type(hash_type)));
    let hash = SighashCache::new(tx).p2wpkh_signature_hash(input, program, spent[input].value, hash_type);
    Message::from(hash.expect("the input is there"))
}

fn v0_script_message(tx: &Transaction, spent: &[TxOut], input: usize, script: &Script, hash_type: u8) -> Message {
    let hash_type = EcdsaSighashType::from_consensus(u32::from(ecdsa_type(hash_type)));
    let hash = SighashCache::new(tx).p2wsh_signature_hash(input, script, spent[input].value, hash_type);
    Message::from(hash.expect("the input is there"))
}

fn legacy_message(transaction: &Transaction, script: &Script, input: usize, hash_type: u8) -> Message {
    let hash_type = u32::from(ecdsa_type(hash_type));
    let hash = SighashCache::new(transaction).legacy_signature_hash(input, script, hash_type);
    Message::from(hash.expect("the input is there"))
}

/// Zero is Taproot's default; before Taproot, SIGHASH_ALL says the same.
fn ecdsa_type(hash_type: u8) -> u8 {
    if hash_type == 0 { 1 } else { hash_type }
}

fn schnorr(signatures: &mut Vec<Signature>, message: Message, key: &Keypair, hash_type: u8) -> Vec<u8> {
    let signature = SECP256K1.sign_schnorr_no_aux_rand(&message, key);
    signatures.push(Signature::Schnorr(signature, message, key.x_only_public_key().0));
    let hash_type = (hash_type != 0).then_some(hash_type);
    signature.as_ref().iter().copied().chain(hash_type).collect()
}

/// Returns a script that pushes each element.
pub fn pushes(elements: &[&[u8]]) -> ScriptBuf {
    let push = |builder: Builder, element: &&[u8]| {
        builder.push_slice(PushBytesBuf::try_from(element.to_vec()).expect("a short element"))
    };
    elements.iter().fold(Builder::new(), push).into_script()
}

/// A coin that can be spent.
#[derive(Debug, Clone)]
pub struct Spendable {
    /// Where it is.
    pub outpoint: OutPoint,
    /// What it is worth, and its script.
    pub output: TxOut,
    /// Whose it is.
    pub owner: Owner,
    /// How it is spent.
    pub kind: Kind,
}

/// Returns the transaction that spends all `coins` to `outputs`, signed with the default hash type.
pub fn spend(coins: &[Spendable], outputs: Vec<TxOut>) -> Transaction {
    spend_with_signatures(coins, outputs).0
}

/// Returns what [`spend`] returns, and its signatures.
pub fn spend_with_signatures(coins: &[Spendable], outputs: Vec<TxOut>) -> (Transaction, Vec<Signature>) {
    let input = coins
        .iter()
        .map(|coin| TxIn { previous_output: coin.outpoint, sequence: Sequence::MAX, ..TxIn::default() })
        .collect();
    let mut transaction = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output: outputs };
    let signatures = sign_all(&mut transaction, coins, 0);
    (transaction, signatures)
}

/// Signs every input with a hash type (0: the default), and returns the signatures.
pub fn sign_all(transaction: &mut Transaction, coins: &[Spendable], hash_type: u8) -> Vec<Signature> {
    let spent: Vec<TxOut> = coins.iter().map(|coin| coin.output.clone()).collect();
    let sign = |(input, coin): (usize, &Spendable)| coin.owner.sign(transaction, &spent, input, coin.kind, hash_type);
    coins.iter().enumerate().flat_map(sign).collect()
}

/// Returns an output.
pub fn output(value: Amount, script_pubkey: ScriptBuf) -> TxOut {
    TxOut { value, script_pubkey }
}
