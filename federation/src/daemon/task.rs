//! The transaction of a batch as a signing session takes it, and the way back: from its signatures to its witnesses.

use std::collections::BTreeMap;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Transaction, Txid};
use causeway_chainspec::tagged_hash;
use causeway_consensus::peg::script::SpendPath;

use crate::approve::Approved;
use crate::session::{self, Path, Signed, SigningTask, TaskId};
use crate::spend::{Signatures, Spend};

/// Signatures that do not make the witnesses of their transaction: a bug, since sessions check every signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signatures of input {input} make no witness: this is a bug, please report it; nothing was sent")]
pub struct AssembleError {
    /// The first such input.
    pub input: usize,
}

/// An approved transaction, to be signed.
#[derive(Clone, Debug)]
pub struct BatchTask {
    id: TaskId,
    approved: Approved,
    /// For each input: the root of its tree, and its sighashes on the key path and for `multi_a`.
    inputs: Vec<([u8; 32], [u8; 32], [u8; 32])>,
    threshold: usize,
}

impl BatchTask {
    /// The task of an approved transaction. Tweaks, trees and sighashes are made here.
    pub fn new(approved: Approved) -> Self {
        let spend = approved.spend();
        let chain = spend.chain().to_byte_array();
        let number = approved.batch().to_le_bytes();
        let txid = approved.txid();
        let id = TaskId(tagged_hash("causeway/signing-task/v1", &[&chain, &number, AsRef::<[u8; 32]>::as_ref(&txid)]));
        let inputs = (0..spend.coins().len())
            .map(|input| {
                let coin = &spend.coins()[input];
                let root = coin.scripts.output(spend.chain(), &coin.coin).merkle_root();
                let root: &[u8; 32] = root.as_ref();
                (*root, sighash(spend, input, &SpendPath::Key), sighash(spend, input, &SpendPath::MultiA))
            })
            .collect();
        let threshold = spend.coins().first().map_or(0, |coin| coin.scripts.epoch().threshold());
        let threshold = usize::try_from(threshold).expect("an epoch has at most 100 members");
        Self { id, approved, inputs, threshold }
    }

    /// What was approved.
    pub fn approved(&self) -> &Approved {
        &self.approved
    }

    /// The transaction with its witnesses; every signature is checked against the key of its output or leaf.
    ///
    /// # Errors
    /// [`AssembleError`].
    pub fn assemble(&self, signed: &Signed) -> Result<Transaction, AssembleError> {
        let spend = self.approved.spend();
        let path = spend_path(&signed.path);
        let witness = |input: usize| {
            let signatures = match &signed.signatures {
                session::Signatures::One(each) => Signatures::Group(*each.get(input)?),
                session::Signatures::Each(members) => {
                    let one = |(member, each): &(u16, Vec<_>)| Some((*member, *each.get(input)?));
                    Signatures::Each(members.iter().map(one).collect::<Option<BTreeMap<_, _>>>()?)
                }
            };
            spend.to_sign(input, &path).ok()?.witness(&signatures).ok()
        };
        let witnesses: Result<Vec<_>, _> =
            (0..self.inputs.len()).map(|input| witness(input).ok_or(AssembleError { input })).collect();
        spend.signed(witnesses?).map_err(|_| AssembleError { input: 0 })
    }
}

fn spend_path(path: &Path) -> SpendPath {
    match path {
        Path::Key => SpendPath::Key,
        Path::Subset(subset) => SpendPath::Subset(subset.clone()),
        Path::MultiA => SpendPath::MultiA,
    }
}

fn sighash(spend: &Spend, input: usize, path: &SpendPath) -> [u8; 32] {
    let to_sign = spend.to_sign(input, path).expect("the coin has the path, which has no timelock");
    *AsRef::<[u8; 32]>::as_ref(&to_sign.sighash())
}

impl SigningTask for BatchTask {
    fn task_id(&self) -> TaskId {
        self.id
    }

    fn txid(&self) -> Txid {
        self.approved.txid()
    }

    fn members(&self) -> &[PublicKey] {
        self.approved.spend().coins().first().map_or(&[], |coin| coin.scripts.epoch().members())
    }

    fn threshold(&self) -> usize {
        self.threshold
    }

    fn input_count(&self) -> usize {
        self.inputs.len()
    }

    fn merkle_root(&self, input: usize) -> [u8; 32] {
        self.inputs[input].0
    }

    fn message(&self, input: usize, path: &Path) -> [u8; 32] {
        match path {
            Path::Key => self.inputs[input].1,
            Path::MultiA => self.inputs[input].2,
            Path::Subset(_) => sighash(self.approved.spend(), input, &spend_path(path)),
        }
    }
}
