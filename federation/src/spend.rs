//! Spending the federation's coins: what an input's signatures sign, and the witness that they make.
//!
//! Every signature is BIP340 over BIP341's default signature hash, 64 bytes, which covers the whole transaction and every
//! coin that it spends. How members come to a MuSig2 signature is not here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bitcoin::absolute;
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::taproot::TapNodeHash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Sequence, TapSighash, Transaction, TxIn, TxOut, Weight, Witness};
use causeway_chainspec::{ChainId, Epoch};
use causeway_consensus::peg::script::{CoinOutput, CoinScript, EpochScripts, Leaf, SpendPath};
use secp256k1::schnorr::Signature;
use secp256k1::{Message, PublicKey, SECP256K1, XOnlyPublicKey};
use thiserror::Error;

/// A coin that a transaction spends.
#[derive(Clone, Debug)]
pub struct SpentCoin {
    /// Where the coin stands on Bitcoin.
    pub outpoint: OutPoint,
    /// The scripts of the coin's epoch.
    pub scripts: Arc<EpochScripts>,
    /// Which output of that epoch it is.
    pub coin: CoinScript,
    /// The output itself.
    pub prevout: TxOut,
}

/// Why coins cannot be spent this way: a mistake of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpendError {
    /// A list has another length than the transaction's inputs.
    #[error("{got} coins or witnesses for {inputs} inputs: give one for each input, in order")]
    Count {
        /// Length of the list.
        got: usize,
        /// Inputs of the transaction.
        inputs: usize,
    },
    /// The transaction has a scriptSig or a witness.
    #[error("input {input} is already signed: give the unsigned transaction")]
    Signed {
        /// Position of the input.
        input: usize,
    },
    /// An input spends another coin than the list says.
    #[error("input {input} spends another coin: give the coins in the order of the inputs")]
    OutPoint {
        /// Position of the input.
        input: usize,
    },
    /// The coin's script is not what the epoch and the terms make.
    #[error("the coin of input {input} has another script than its epoch and terms make: look its terms up again")]
    Script {
        /// Position of the input.
        input: usize,
    },
    /// The transaction has no such input.
    #[error("input {input} of {inputs} inputs: name one of them, counted from 0")]
    NoInput {
        /// Position asked for.
        input: usize,
        /// Inputs of the transaction.
        inputs: usize,
    },
    /// The coin has no such path.
    #[error(
        "the coin of input {input} has no such path: a subset is t members in order, and only deposits have a refund"
    )]
    NoPath {
        /// Position of the input.
        input: usize,
    },
    /// The path is locked for longer than the input's sequence says (BIP68), or the transaction's version is 1.
    #[error("input {input} is locked for {blocks} blocks: set its sequence to that and the version to 2")]
    Locked {
        /// Position of the input.
        input: usize,
        /// Bitcoin blocks that the coin must be old.
        blocks: u16,
    },
    /// What is left after the fee is no output that Bitcoin nodes relay, or the sum overflows.
    #[error("{value} do not pay a fee of {fee} and an output of {dust} or more: add coins, or wait for lower fees")]
    Dust {
        /// Sum of the coins.
        value: Amount,
        /// The fee at the rate asked for.
        fee: Amount,
        /// The smallest output to this destination.
        dust: Amount,
    },
}

/// Why signatures make no witness: somebody else's fault, or too few so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// One signature of a group where each key signs, or the other way round.
    #[error("signatures of another path: sign what this path asks for")]
    OtherPath,
    /// Not exactly as many signatures as the leaf counts.
    #[error("{got} signatures where the script wants exactly {needed}")]
    Count {
        /// Signatures given.
        got: usize,
        /// Signatures that the script counts.
        needed: usize,
    },
    /// A signature is not that of its key over this input.
    #[error("the signature of key {key} is invalid: leave its signer out")]
    Invalid {
        /// Position among [`Signers::Each`]'s keys; 0 for a group.
        key: u16,
    },
}

/// A transaction that spends coins of the federation, with what every input is.
#[derive(Clone, Debug)]
pub struct Spend {
    chain: ChainId,
    transaction: Transaction,
    coins: Vec<SpentCoin>,
}

impl Spend {
    /// An unsigned transaction with the coins of its inputs, in order.
    ///
    /// # Errors
    ///
    /// Another number of coins than inputs, another order, an input that is signed, or a coin whose script is not that of
    /// its epoch and terms.
    pub fn new(chain: ChainId, transaction: Transaction, coins: Vec<SpentCoin>) -> Result<Self, SpendError> {
        let inputs = transaction.input.len();
        if coins.len() != inputs {
            return Err(SpendError::Count { got: coins.len(), inputs });
        }
        for (input, (spending, coin)) in transaction.input.iter().zip(&coins).enumerate() {
            if !spending.script_sig.is_empty() || !spending.witness.is_empty() {
                return Err(SpendError::Signed { input });
            }
            if spending.previous_output != coin.outpoint {
                return Err(SpendError::OutPoint { input });
            }
            if coin.scripts.output(chain, &coin.coin).script_pubkey() != coin.prevout.script_pubkey {
                return Err(SpendError::Script { input });
            }
        }
        Ok(Self { chain, transaction, coins })
    }

    /// A transaction of version 2 that spends all of `coins` by one path to one destination, as a depositor takes a refund
    /// or the recovery keys take what is left. Every sequence is the least that the path allows; it may be replaced by fee.
    ///
    /// At most about 1,000 inputs make a transaction that Bitcoin nodes relay (400,000 weight).
    ///
    /// # Errors
    ///
    /// A coin without that path, or too little value for the fee.
    pub fn sweep(
        chain: ChainId,
        coins: Vec<SpentCoin>,
        path: &SpendPath,
        destination: ScriptBuf,
        fee_rate: FeeRate,
    ) -> Result<Self, SpendError> {
        let input = coins.iter().map(|coin| TxIn {
            previous_output: coin.outpoint,
            sequence: sequence(coin.scripts.epoch(), path),
            ..TxIn::default()
        });
        let value = coins.iter().try_fold(Amount::ZERO, |sum, coin| sum.checked_add(coin.prevout.value));
        let dust = destination.minimal_non_dust();
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: input.collect(),
            output: vec![TxOut { value: dust, script_pubkey: destination }],
        };
        let mut spend = Self::new(chain, transaction, coins)?;
        let fee = fee_rate.checked_mul_by_weight(spend.signed_weight(path)?).unwrap_or(Amount::MAX_MONEY);
        let left = value.and_then(|value| value.checked_sub(fee)).filter(|left| *left >= dust);
        spend.transaction.output[0].value =
            left.ok_or(SpendError::Dust { value: value.unwrap_or(Amount::MAX_MONEY), fee, dust })?;
        Ok(spend)
    }

    /// The chain whose deposits these coins may be.
    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// The unsigned transaction.
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// The coins of the inputs, in order.
    pub fn coins(&self) -> &[SpentCoin] {
        &self.coins
    }

    /// What is to be signed for an input to be spent by a path.
    ///
    /// # Errors
    ///
    /// No such input, no such path, or a timelock that the input's sequence does not meet.
    pub fn to_sign(&self, input: usize, path: &SpendPath) -> Result<ToSign, SpendError> {
        let inputs = self.coins.len();
        let coin = self.coins.get(input).ok_or(SpendError::NoInput { input, inputs })?;
        let epoch = coin.scripts.epoch();
        if let Some(blocks) = timelock(epoch, path)
            && !self.waits(input, blocks)
        {
            return Err(SpendError::Locked { input, blocks });
        }
        let output = coin.scripts.output(self.chain, &coin.coin);
        let leaf = output.leaf(path);
        let signers = signers(coin, &output, path);
        // Every path but the key path has a leaf.
        let signers =
            signers.filter(|_| leaf.is_some() || *path == SpendPath::Key).ok_or(SpendError::NoPath { input })?;
        let prevouts: Vec<&TxOut> = self.coins.iter().map(|coin| &coin.prevout).collect();
        let (prevouts, kind) = (Prevouts::All(&prevouts), TapSighashType::Default);
        let mut cache = SighashCache::new(&self.transaction);
        let sighash = match &leaf {
            None => cache.taproot_key_spend_signature_hash(input, &prevouts, kind),
            Some(leaf) => cache.taproot_script_spend_signature_hash(input, &prevouts, leaf.hash(), kind),
        }
        .expect("there is a coin for every input, and the input exists");
        Ok(ToSign { sighash, signers, leaf })
    }

    /// What the transaction weighs when every input is spent by this path: the fee is paid by this weight.
    ///
    /// # Errors
    ///
    /// As [`Spend::to_sign`], for the first input that cannot be spent so.
    pub fn signed_weight(&self, path: &SpendPath) -> Result<Weight, SpendError> {
        // Segwit's marker and flag, and the witnesses; the unsigned transaction has neither.
        let witnesses = (0..self.coins.len())
            .map(|input| Ok(Weight::from_wu_usize(self.to_sign(input, path)?.witness_size())))
            .sum::<Result<Weight, SpendError>>()?;
        Ok(self.transaction.weight() + Weight::from_wu(2) + witnesses)
    }

    /// The transaction with these witnesses of its inputs, in order.
    ///
    /// # Errors
    ///
    /// Another number of witnesses than inputs.
    pub fn signed(&self, witnesses: Vec<Witness>) -> Result<Transaction, SpendError> {
        if witnesses.len() != self.coins.len() {
            return Err(SpendError::Count { got: witnesses.len(), inputs: self.coins.len() });
        }
        let mut transaction = self.transaction.clone();
        for (input, witness) in transaction.input.iter_mut().zip(witnesses) {
            input.witness = witness;
        }
        Ok(transaction)
    }

    /// Whether an input says that its coin is at least this many blocks old, in the way that Bitcoin enforces (BIP68).
    fn waits(&self, input: usize, blocks: u16) -> bool {
        let sequence = self.transaction.input[input].sequence;
        // Bit 22 set is seconds; only the lowest 16 bits count.
        let locked_by_height = sequence.is_height_locked();
        let version_counts = self.transaction.version >= Version::TWO;
        version_counts && locked_by_height && sequence.to_consensus_u32() & 0xffff >= u32::from(blocks)
    }
}

/// The sequence of an input that is spent by a path, in a transaction of its own: the timelock of the path, or
/// 0xfffffffd; both allow replacement by fee.
pub fn sequence(epoch: &Epoch, path: &SpendPath) -> Sequence {
    timelock(epoch, path).map_or(Sequence::ENABLE_RBF_NO_LOCKTIME, Sequence::from_height)
}

/// How many Bitcoin blocks old a coin must be for a path.
fn timelock(epoch: &Epoch, path: &SpendPath) -> Option<u16> {
    match path {
        SpendPath::Key | SpendPath::Subset(_) | SpendPath::MultiA => None,
        SpendPath::Recovery => Some(epoch.timelocks().recovery_delay),
        SpendPath::Refund => Some(epoch.timelocks().refund_delay),
    }
}

/// Whose signatures an input needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signers {
    /// One MuSig2 signature of a group.
    Group(Group),
    /// One signature each of exactly `threshold` of these keys.
    Each {
        /// Signatures that the script counts.
        threshold: u32,
        /// The keys, in the order of the script.
        keys: Vec<XOnlyPublicKey>,
    },
}

/// A group that makes one MuSig2 signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Who signs: positions in [`Epoch::members`], strictly increasing.
    pub members: Vec<u16>,
    /// Their public keys, in that order, which is that of the aggregation.
    pub keys: Vec<PublicKey>,
    /// The tree by whose root Taproot tweaks the aggregate (BIP341): the key path has one, a leaf none.
    pub merkle_root: Option<TapNodeHash>,
    /// The key under which the signature is valid: the tweaked aggregate.
    pub key: XOnlyPublicKey,
}

/// `None` if the subset is none.
fn signers(coin: &SpentCoin, output: &CoinOutput<'_>, path: &SpendPath) -> Option<Signers> {
    let epoch = coin.scripts.epoch();
    let members = epoch.members();
    Some(match path {
        SpendPath::Key => Signers::Group(Group {
            members: (0..).zip(members).map(|(index, _)| index).collect(),
            keys: members.to_vec(),
            merkle_root: Some(output.merkle_root()),
            key: output.output_key(),
        }),
        SpendPath::Subset(subset) => Signers::Group(Group {
            key: coin.scripts.subset_key(subset)?,
            members: subset.clone(),
            keys: subset.iter().map(|index| members[usize::from(*index)]).collect(),
            merkle_root: None,
        }),
        SpendPath::MultiA => Signers::Each {
            threshold: epoch.threshold(),
            keys: members.iter().map(|key| key.x_only_public_key().0).collect(),
        },
        SpendPath::Recovery => {
            Signers::Each { threshold: epoch.recovery_threshold(), keys: epoch.recovery_keys().to_vec() }
        }
        SpendPath::Refund => match &coin.coin {
            CoinScript::Deposit(terms) => Signers::Each { threshold: 1, keys: vec![terms.refund_key] },
            CoinScript::Main => return None,
        },
    })
}

/// Signatures of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signatures {
    /// The group's.
    Group(Signature),
    /// By the position of the key in [`Signers::Each`].
    Each(BTreeMap<u16, Signature>),
}

/// What is to be signed for one input by one path.
#[derive(Clone, Debug)]
pub struct ToSign {
    sighash: TapSighash,
    signers: Signers,
    leaf: Option<Leaf>,
}

impl ToSign {
    /// The 32 bytes that every signature signs.
    pub fn sighash(&self) -> TapSighash {
        self.sighash
    }

    /// Whose signatures are needed.
    pub fn signers(&self) -> &Signers {
        &self.signers
    }

    /// The leaf that is shown; the key path has none.
    pub fn leaf(&self) -> Option<&Leaf> {
        self.leaf.as_ref()
    }

    /// Whether a signature is that of a key over this input: the key's position in [`Signers::Each`], 0 for a group.
    pub fn is_signed_by(&self, key: u16, signature: &Signature) -> bool {
        let key = match &self.signers {
            Signers::Group(group) => (key == 0).then_some(&group.key),
            Signers::Each { keys, .. } => keys.get(usize::from(key)),
        };
        let message = Message::from(self.sighash);
        key.is_some_and(|key| SECP256K1.verify_schnorr(signature, &message, key).is_ok())
    }

    /// The witness of the input. Every signature is verified.
    ///
    /// # Errors
    ///
    /// Signatures of another kind of path, too few or too many of them, or one that is invalid.
    pub fn witness(&self, signatures: &Signatures) -> Result<Witness, SignatureError> {
        let verified = |key: u16, signature: &Signature| {
            if self.is_signed_by(key, signature) { Ok(()) } else { Err(SignatureError::Invalid { key }) }
        };
        let elements = match (&self.signers, signatures) {
            (Signers::Group(_), Signatures::Group(signature)) => {
                verified(0, signature)?;
                vec![signature.serialize().to_vec()]
            }
            (Signers::Each { threshold, keys }, Signatures::Each(signatures)) => {
                let needed = *threshold as usize;
                if signatures.len() != needed {
                    return Err(SignatureError::Count { got: signatures.len(), needed });
                }
                signatures.iter().try_for_each(|(key, signature)| verified(*key, signature))?;
                stack((0..).zip(keys).map(|(key, _)| signatures.get(&key).map(|signature| signature.serialize())))
            }
            (Signers::Group(_), Signatures::Each(_)) | (Signers::Each { .. }, Signatures::Group(_)) => {
                return Err(SignatureError::OtherPath);
            }
        };
        Ok(self.with_leaf(elements))
    }

    /// Size of the witness in bytes. Signatures are always 64 bytes, so it does not depend on them.
    pub fn witness_size(&self) -> usize {
        let signature = Some([0; 64]);
        let elements = match &self.signers {
            Signers::Group(_) => stack([signature].into_iter()),
            Signers::Each { threshold, keys } => {
                stack((0..*threshold).map(|_| signature).chain(std::iter::repeat(None)).take(keys.len()))
            }
        };
        self.with_leaf(elements).size()
    }

    fn with_leaf(&self, mut elements: Vec<Vec<u8>>) -> Witness {
        if let Some(leaf) = &self.leaf {
            elements.extend([leaf.script.to_bytes(), leaf.control_block.serialize()]);
        }
        Witness::from_slice(&elements)
    }
}

/// Signatures as elements of a witness, which are those of a stack: the first key's is taken first, so it stands last. A
/// key that does not sign has an empty one.
fn stack(signatures: impl Iterator<Item = Option<[u8; 64]>>) -> Vec<Vec<u8>> {
    let mut elements: Vec<Vec<u8>> =
        signatures.map(|signature| signature.map(|signature| signature.to_vec()).unwrap_or_default()).collect();
    elements.reverse();
    elements
}

#[cfg(test)]
mod tests;
