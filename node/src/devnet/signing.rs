//! Who signed a payout: read from the witnesses on Bitcoin, so that nobody has to be believed.

use bitcoin::{ScriptBuf, Transaction, Witness};
use causeway_chainspec::ChainId;
use causeway_consensus::peg::script::{CoinScript, EpochScripts, SpendPath};
use serde::Serialize;

/// A path that members sign (PEG section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SigningPath {
    /// One signature of all members together (MuSig2).
    Key,
    /// One signature of a subset of `threshold` members together (MuSig2).
    Subset,
    /// One signature of each of `threshold` members.
    MultiA,
}

/// How an input was signed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signing {
    /// The path.
    pub path: SigningPath,
    /// Who signed: positions in the epoch's members, increasing.
    pub signers: Vec<u16>,
}

impl SigningPath {
    /// The name in PEG section 5.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key path",
            Self::Subset => "subset leaf",
            Self::MultiA => "multi_a leaf",
        }
    }
}

/// How the inputs of a transaction were signed, without repetition; None if one was signed otherwise: by the recovery keys,
/// or not by this epoch.
pub fn signing(scripts: &EpochScripts, chain: ChainId, transaction: &Transaction) -> Option<Vec<Signing>> {
    let mut all = Vec::new();
    for input in &transaction.input {
        all.push(signing_of(scripts, chain, &input.witness)?);
    }
    all.sort();
    all.dedup();
    Some(all)
}

fn signing_of(scripts: &EpochScripts, chain: ChainId, witness: &Witness) -> Option<Signing> {
    let members = u16::try_from(scripts.epoch().members().len()).ok()?;
    if witness.len() == 1 {
        return Some(Signing { path: SigningPath::Key, signers: (0..members).collect() });
    }
    let (script, signatures) = (witness.nth(witness.len().checked_sub(2)?)?, witness.len() - 2);
    let leaf = |path: &SpendPath| scripts.output(chain, &CoinScript::Main).leaf(path).map(|leaf| leaf.script);
    // The script of a leaf is the same in a main output and in a deposit.
    let is = |leaf: Option<ScriptBuf>| leaf.is_some_and(|leaf| leaf.as_bytes() == script);
    if is(leaf(&SpendPath::MultiA)) {
        if signatures != usize::from(members) {
            return None;
        }
        // The first key's signature is on top of the stack, which is last.
        let signed =
            |position: &u16| witness.nth(signatures - 1 - usize::from(*position)).is_some_and(|it| !it.is_empty());
        return Some(Signing { path: SigningPath::MultiA, signers: (0..members).filter(signed).collect() });
    }
    let (subset, _) = scripts.subsets().find(|(subset, _)| is(leaf(&SpendPath::Subset(subset.clone()))))?;
    Some(Signing { path: SigningPath::Subset, signers: subset })
}

#[cfg(test)]
mod tests {
    use bitcoin::TxIn;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use causeway_chainspec::ChainSpec;

    use super::*;

    fn transaction(witnesses: Vec<Witness>) -> Transaction {
        let input = witnesses.into_iter().map(|witness| TxIn { witness, ..TxIn::default() }).collect();
        Transaction { version: Version(3), lock_time: LockTime::ZERO, input, output: Vec::new() }
    }

    #[test]
    fn witnesses_tell_who_signed() {
        let spec = ChainSpec::built_in("devnet").unwrap();
        let (scripts, chain) = (EpochScripts::build(spec.federation()), spec.chain_id());
        let leaf = |path| scripts.output(chain, &CoinScript::Main).leaf(&path).unwrap();
        let witness = |elements: &[&[u8]], path| {
            let leaf = leaf(path);
            let control = leaf.control_block.serialize();
            Witness::from_slice(&[elements, &[leaf.script.as_bytes(), &control]].concat())
        };
        let read = |witnesses: Vec<Witness>| signing(&scripts, chain, &transaction(witnesses));
        let (signature, none): (&[u8], &[u8]) = (&[1; 64], &[]);

        let key = Signing { path: SigningPath::Key, signers: vec![0, 1, 2, 3, 4] };
        assert_eq!(read(vec![Witness::from_slice(&[signature])]), Some(vec![key.clone()]));
        let subset = Signing { path: SigningPath::Subset, signers: vec![0, 2, 4] };
        let by_subset = witness(&[signature], SpendPath::Subset(vec![0, 2, 4]));
        assert_eq!(read(vec![by_subset.clone(), by_subset.clone()]), Some(vec![subset.clone()]));
        assert_eq!(read(vec![by_subset, Witness::from_slice(&[signature])]), Some(vec![key, subset]));
        // Members 0, 3 and 4: the first key's signature stands last.
        let multi_a = witness(&[signature, signature, none, none, signature], SpendPath::MultiA);
        assert_eq!(read(vec![multi_a]), Some(vec![Signing { path: SigningPath::MultiA, signers: vec![0, 3, 4] }]));

        assert_eq!(read(vec![witness(&[signature, signature, none], SpendPath::Recovery)]), None);
        assert_eq!(read(vec![Witness::from_slice(&[signature, none])]), None);
        assert_eq!(read(vec![Witness::new()]), None);
        assert_eq!(read(vec![witness(&[signature], SpendPath::MultiA)]), None);
    }
}
