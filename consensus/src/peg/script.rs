//! The federation's scripts on Bitcoin: the outputs that hold the peg's coins, and the leaves that spend them (PEG
//! section 5).
//!
//! Nothing here signs: `causeway-federation` does, by the leaves that stand here.

mod cache;
mod fold;
mod key_agg;
mod subsets;

use std::fmt;

use bitcoin::consensus::serialize;
use bitcoin::opcodes::all::{
    OP_CHECKSIG, OP_CHECKSIGADD, OP_CHECKSIGVERIFY, OP_CSV, OP_EQUAL, OP_EQUALVERIFY, OP_NUMEQUAL, OP_NUMEQUALVERIFY,
    OP_SHA256, OP_SIZE,
};
use bitcoin::script::Builder;
use bitcoin::taproot::{ControlBlock, LeafVersion, TapLeafHash, TapNodeHash, TapTweakHash, TaprootMerkleBranch};
use bitcoin::{Opcode, Script, ScriptBuf, VarInt, WitnessProgram, WitnessVersion};
use causeway_chainspec::{ChainId, Epoch, tagged_hash};
use rayon::prelude::*;
use secp256k1::{Parity, PublicKey, SECP256K1, XOnlyPublicKey};

pub use cache::CachedScriptsError;
pub use fold::left_half;
pub use key_agg::{KeyAggError, key_agg};

use fold::Fold;
use subsets::Subsets;

/// The x coordinate of BIP341's H, a point whose secret key nobody knows.
const NUMS: [u8; 32] = [
    0x50, 0x92, 0x9b, 0x74, 0xc1, 0xa0, 0x49, 0x54, 0xb7, 0x8b, 0x4b, 0x60, 0x35, 0xe9, 0x7a, 0x5e, 0x07, 0x8a, 0x5a,
    0x0f, 0x28, 0xec, 0x96, 0xd5, 0x47, 0xbf, 0xee, 0x9a, 0xce, 0x80, 0x3a, 0xc0,
];

/// The key of the leaf that nobody can spend: BIP341's H.
pub fn nums_key() -> XOnlyPublicKey {
    XOnlyPublicKey::from_slice(&NUMS).expect("a point of the curve (BIP341)")
}

/// What a deposit address commits to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DepositTerms {
    /// The epoch whose members hold the deposit.
    pub epoch: u32,
    /// The script pubkey on Causeway that is credited.
    pub destination: ScriptBuf,
    /// The depositor's key, which takes the deposit back after the epoch's `refund_delay`.
    pub refund_key: XOnlyPublicKey,
}

impl DepositTerms {
    /// D of PEG section 5: the tagged hash of chain, epoch and destination. The refund key stands in a leaf of its own.
    pub fn commitment(&self, chain: ChainId) -> [u8; 32] {
        let destination = self.destination.as_bytes();
        tagged_hash(
            "causeway/peg-in/v1",
            &[
                &chain.to_byte_array(),
                &self.epoch.to_le_bytes(),
                &serialize(&VarInt::from(destination.len())),
                destination,
            ],
        )
    }
}

/// Which output of an epoch a coin is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CoinScript {
    /// The main output: change, and what was swept.
    Main,
    /// A deposit.
    Deposit(DepositTerms),
}

/// How a coin is spent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpendPath {
    /// One MuSig2 signature of all members under the output key.
    Key,
    /// One MuSig2 signature of exactly these t members: positions in [`Epoch::members`], strictly increasing.
    Subset(Vec<u16>),
    /// One signature of each of t members.
    MultiA,
    /// One signature of each of `recovery_threshold` recovery keys, after `recovery_delay`.
    Recovery,
    /// The depositor's signature, after `refund_delay`. Only a deposit has this path.
    Refund,
}

/// The scripts of one epoch. Costs C(n, t) key aggregations to build, once: hold it in an `Arc`.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochScripts {
    epoch: Epoch,
    internal_key: XOnlyPublicKey,
    /// The aggregate key of every subset, in order.
    subset_keys: Vec<XOnlyPublicKey>,
    subset_fold: Fold,
    multi_a: TapScript,
    recovery: TapScript,
    main_root: TapNodeHash,
    main_script: ScriptBuf,
}

impl EpochScripts {
    /// The scripts of an epoch. Runs on the pool of the caller (rayon).
    pub fn build(epoch: &Epoch) -> Self {
        let subsets: Vec<Vec<u16>> = subsets_of(epoch).collect();
        let subset_keys = subsets.par_iter().map(|subset| subset_key(epoch, subset)).collect();
        Self::from_subset_keys(epoch, subset_keys)
    }

    fn from_subset_keys(epoch: &Epoch, subset_keys: Vec<XOnlyPublicKey>) -> Self {
        let leaves: Vec<TapNodeHash> = subset_keys.iter().map(|key| TapScript::new(subset_script(key)).hash).collect();
        let subset_fold = Fold::new(&leaves);
        let members: Vec<XOnlyPublicKey> = epoch.members().iter().map(|key| key.x_only_public_key().0).collect();
        let multi_a = TapScript::new(multi_a(epoch.threshold(), &members, OP_NUMEQUAL).into_script());
        let recovery = multi_a_recovery(epoch);
        let fallback = TapNodeHash::from_node_hashes(multi_a.hash, recovery.hash);
        let main_root = TapNodeHash::from_node_hashes(subset_fold.root(), fallback);
        let internal_key = aggregate(epoch.members());
        let (output_key, _) = tweaked(internal_key, main_root);
        let main_script = p2tr(output_key);
        Self { epoch: epoch.clone(), internal_key, subset_keys, subset_fold, multi_a, recovery, main_root, main_script }
    }

    /// The epoch whose scripts these are.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The aggregate key of all members (BIP327), before Taproot's tweak.
    pub fn internal_key(&self) -> XOnlyPublicKey {
        self.internal_key
    }

    /// The root of MAIN_TREE.
    pub fn main_root(&self) -> TapNodeHash {
        self.main_root
    }

    /// The script pubkey of the main output: P2TR, 34 bytes.
    pub fn main_script(&self) -> &Script {
        &self.main_script
    }

    /// The script pubkey of a deposit with these terms, which name this epoch: P2TR, 34 bytes.
    ///
    /// Terms that name another epoch give a script that no depositor was told, and that these members can spend.
    pub fn deposit_script(&self, chain: ChainId, terms: &DepositTerms) -> ScriptBuf {
        p2tr(self.deposit(chain, terms).output_key())
    }

    /// Every subset of t members with its aggregate key, in the order of the leaves.
    pub fn subsets(&self) -> impl Iterator<Item = (Vec<u16>, XOnlyPublicKey)> {
        subsets_of(&self.epoch).zip(self.subset_keys.iter().copied())
    }

    /// The aggregate key of t members (positions in [`Epoch::members`], strictly increasing), under which the subset's
    /// leaf is signed; `None` if they are no such subset.
    pub fn subset_key(&self, subset: &[u16]) -> Option<XOnlyPublicKey> {
        self.subset_position(subset).map(|position| self.subset_keys[position])
    }

    /// What spends a coin. The terms of a deposit name this epoch.
    pub fn output(&self, chain: ChainId, coin: &CoinScript) -> CoinOutput<'_> {
        match coin {
            CoinScript::Main => self.coin_output(self.main_root, None),
            CoinScript::Deposit(terms) => self.deposit(chain, terms),
        }
    }

    fn deposit(&self, chain: ChainId, terms: &DepositTerms) -> CoinOutput<'_> {
        let commitment = TapScript::new(commitment_script(terms.commitment(chain)));
        let refund = TapScript::new(refund_script(&terms.refund_key, self.epoch.timelocks().refund_delay));
        let side = TapNodeHash::from_node_hashes(commitment.hash, refund.hash);
        let root = TapNodeHash::from_node_hashes(self.main_root, side);
        self.coin_output(root, Some(DepositSide { commitment, refund, hash: side }))
    }

    fn coin_output(&self, merkle_root: TapNodeHash, side: Option<DepositSide>) -> CoinOutput<'_> {
        let (output_key, parity) = tweaked(self.internal_key, merkle_root);
        CoinOutput { scripts: self, merkle_root, output_key, parity, side }
    }

    fn subset_position(&self, subset: &[u16]) -> Option<usize> {
        if subset.len() != threshold(&self.epoch).into() {
            return None;
        }
        subsets::position(subset, member_count(&self.epoch))
    }
}

/// The epoch and its main output: the leaves are too many to print.
impl fmt::Debug for EpochScripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochScripts")
            .field("epoch", &self.epoch.number())
            .field("main_script", &self.main_script)
            .finish_non_exhaustive()
    }
}

/// A coin's output, with all that is needed to spend it.
#[derive(Clone, Debug)]
pub struct CoinOutput<'a> {
    scripts: &'a EpochScripts,
    merkle_root: TapNodeHash,
    output_key: XOnlyPublicKey,
    parity: Parity,
    side: Option<DepositSide>,
}

/// The half of a deposit's tree that a main output does not have.
#[derive(Clone, Debug)]
struct DepositSide {
    commitment: TapScript,
    refund: TapScript,
    hash: TapNodeHash,
}

impl CoinOutput<'_> {
    /// The script pubkey: P2TR, 34 bytes.
    pub fn script_pubkey(&self) -> ScriptBuf {
        p2tr(self.output_key)
    }

    /// The root of the output's tree, by which the internal key is tweaked (BIP341).
    pub fn merkle_root(&self) -> TapNodeHash {
        self.merkle_root
    }

    /// The tweak of the key path: what is added to the internal key (BIP341), as MuSig2 takes it (x-only).
    pub fn tap_tweak(&self) -> TapTweakHash {
        TapTweakHash::from_key_and_tweak(self.scripts.internal_key, Some(self.merkle_root))
    }

    /// The key of the output, under which the key path is signed.
    pub fn output_key(&self) -> XOnlyPublicKey {
        self.output_key
    }

    /// The parity of the output key's y coordinate, as control blocks hold it.
    pub fn output_key_parity(&self) -> Parity {
        self.parity
    }

    /// The leaf of a path: `None` for the key path, for a subset that is not t members in increasing order, and for the
    /// refund of a main output.
    pub fn leaf(&self, path: &SpendPath) -> Option<Leaf> {
        let scripts = self.scripts;
        let fallback_branch = |sibling: &TapScript| vec![sibling.hash, scripts.subset_fold.root()];
        let (script, mut branch) = match path {
            SpendPath::Key => return None,
            SpendPath::Subset(subset) => {
                let position = scripts.subset_position(subset)?;
                let mut branch = scripts.subset_fold.branch(position);
                branch.push(TapNodeHash::from_node_hashes(scripts.multi_a.hash, scripts.recovery.hash));
                (subset_script(&scripts.subset_keys[position]), branch)
            }
            SpendPath::MultiA => (scripts.multi_a.script.clone(), fallback_branch(&scripts.recovery)),
            SpendPath::Recovery => (scripts.recovery.script.clone(), fallback_branch(&scripts.multi_a)),
            SpendPath::Refund => {
                let side = self.side.as_ref()?;
                (side.refund.script.clone(), vec![side.commitment.hash])
            }
        };
        branch.extend(match (&self.side, path) {
            (None, _) => None,
            (Some(_), SpendPath::Refund) => Some(scripts.main_root),
            (Some(side), _) => Some(side.hash),
        });
        let control_block = ControlBlock {
            leaf_version: LeafVersion::TapScript,
            output_key_parity: self.parity,
            internal_key: scripts.internal_key,
            merkle_branch: TaprootMerkleBranch::try_from(branch).expect("5,000 subsets are at most 15 levels deep"),
        };
        Some(Leaf { script, control_block })
    }
}

/// A leaf of an output, as a witness shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The script.
    pub script: ScriptBuf,
    /// The proof that the output commits to the script.
    pub control_block: ControlBlock,
}

impl Leaf {
    /// The hash of the leaf, which a signature commits to (BIP342).
    pub fn hash(&self) -> TapLeafHash {
        TapLeafHash::from_script(&self.script, LeafVersion::TapScript)
    }
}

/// A script and its node in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TapScript {
    script: ScriptBuf,
    hash: TapNodeHash,
}

impl TapScript {
    fn new(script: ScriptBuf) -> Self {
        let hash = TapNodeHash::from_script(&script, LeafVersion::TapScript);
        Self { script, hash }
    }
}

fn member_count(epoch: &Epoch) -> u16 {
    u16::try_from(epoch.members().len()).expect("an epoch has at most 100 members")
}

fn threshold(epoch: &Epoch) -> u16 {
    u16::try_from(epoch.threshold()).expect("an epoch has at most 100 members")
}

fn subsets_of(epoch: &Epoch) -> Subsets {
    Subsets::new(member_count(epoch), threshold(epoch))
}

fn subset_key(epoch: &Epoch, subset: &[u16]) -> XOnlyPublicKey {
    let keys: Vec<PublicKey> = subset.iter().map(|index| epoch.members()[usize::from(*index)]).collect();
    aggregate(&keys)
}

fn aggregate(keys: &[PublicKey]) -> XOnlyPublicKey {
    let key = key_agg(keys).expect("nobody can find keys whose aggregate is the point at infinity");
    key.x_only_public_key().0
}

fn tweaked(internal_key: XOnlyPublicKey, merkle_root: TapNodeHash) -> (XOnlyPublicKey, Parity) {
    let tweak = TapTweakHash::from_key_and_tweak(internal_key, Some(merkle_root)).to_scalar();
    internal_key.add_tweak(SECP256K1, &tweak).expect("nobody can find a tree that cancels the internal key")
}

fn p2tr(output_key: XOnlyPublicKey) -> ScriptBuf {
    let program = WitnessProgram::new(WitnessVersion::V1, &output_key.serialize()).expect("32 bytes");
    ScriptBuf::new_witness_program(&program)
}

/// `pk(key)`.
fn subset_script(key: &XOnlyPublicKey) -> ScriptBuf {
    Builder::new().push_x_only_key(key).push_opcode(OP_CHECKSIG).into_script()
}

/// `multi_a(threshold, keys)`, with the opcode that compares the number of signatures (BIP387).
fn multi_a(threshold: u32, keys: &[XOnlyPublicKey], compare: Opcode) -> Builder {
    let keys = keys.iter().enumerate().fold(Builder::new(), |script, (index, key)| {
        script.push_x_only_key(key).push_opcode(if index == 0 { OP_CHECKSIG } else { OP_CHECKSIGADD })
    });
    keys.push_int(threshold.into()).push_opcode(compare)
}

/// `and_v(v:multi_a(k, recovery keys), older(recovery_delay))`.
fn multi_a_recovery(epoch: &Epoch) -> TapScript {
    let keys = multi_a(epoch.recovery_threshold(), epoch.recovery_keys(), OP_NUMEQUALVERIFY);
    let delay = epoch.timelocks().recovery_delay;
    TapScript::new(keys.push_int(delay.into()).push_opcode(OP_CSV).into_script())
}

/// `and_v(v:pk(NUMS), sha256(D))`: a commitment that nobody can spend.
fn commitment_script(commitment: [u8; 32]) -> ScriptBuf {
    Builder::new()
        .push_x_only_key(&nums_key())
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_opcode(OP_SIZE)
        .push_int(32)
        .push_opcode(OP_EQUALVERIFY)
        .push_opcode(OP_SHA256)
        .push_slice(commitment)
        .push_opcode(OP_EQUAL)
        .into_script()
}

/// `and_v(v:pk(R), older(refund_delay))`.
fn refund_script(key: &XOnlyPublicKey, delay: u16) -> ScriptBuf {
    Builder::new()
        .push_x_only_key(key)
        .push_opcode(OP_CHECKSIGVERIFY)
        .push_int(delay.into())
        .push_opcode(OP_CSV)
        .into_script()
}

#[cfg(test)]
mod tests;
