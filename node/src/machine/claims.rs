//! Deposits that wait to be credited.
//!
//! Anybody may claim one, here or at another node; claims travel to every validator, and whoever proposes puts in what the
//! rules permit. Each stands for a real deposit on Bitcoin, so their number is bounded by what depositors pay, and by
//! [`CLAIMS_MAX`].

use std::collections::BTreeMap;

use bitcoin::{Amount, BlockHash, OutPoint};
use causeway_chainspec::{BitcoinHeight, Height};
use causeway_consensus::Tip;
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::peg::proof::InvalidProof;
use causeway_consensus::peg::{InvalidPeg, PegContext, PegState, Step};

use super::action::{Action, RelayVerdict};
use super::event::{Now, SubmitId};
use super::report::Offence;
use super::{Node, Reading};
use crate::news::Change;
use crate::wire::{Topic, encode_claim};

/// Most deposits that wait, and most bytes of their proofs.
pub const CLAIMS_MAX: usize = 1_000;
const CLAIM_BYTES: usize = 16 << 20;

/// Most deposits that a proposer looks at for one block.
const READY_MAX: usize = 100;

/// Deposits that are known and not credited.
#[derive(Debug, Default)]
pub(super) struct Claims {
    claims: BTreeMap<OutPoint, Claim>,
    bytes: usize,
}

#[derive(Debug)]
struct Claim {
    peg_in: PegIn,
    /// The block of the proof: on another branch of Bitcoin it proves nothing, and the deposit may be claimed anew.
    block: Option<BlockHash>,
    bytes: usize,
    /// Whether it was claimed here: then it is sent again until it is credited.
    own: bool,
}

/// A claim was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The deposit.
    pub outpoint: OutPoint,
    /// Why it cannot be credited yet; `None` if it can.
    pub waits: Option<InvalidPeg>,
}

/// Why a claim was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefusal {
    /// It breaks a rule that no waiting mends.
    #[error("the deposit cannot be credited")]
    Invalid(#[source] InvalidPeg),
    /// The proof is in a block that this chain does not know yet, or that is not on its best chain.
    #[error("the deposit's block is not known to the chain yet: claim it again in a few minutes")]
    NotYet(#[source] InvalidPeg),
    /// There is no room.
    #[error("{CLAIMS_MAX} deposits are waiting already: claim it again later")]
    Full,
}

/// What the rules say of a deposit before it is in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The next block may credit it.
    Ready,
    /// Its proof is right, and something else stands in the way.
    Waits(InvalidPeg),
    /// Its proof is in a block that this chain does not know.
    Unknown(InvalidPeg),
    /// It breaks a rule.
    Invalid(InvalidPeg),
}

impl Claims {
    /// The deposits for the block of this height, as far as a proposer looks. Where there are more, every height begins with
    /// others, so that none that has to wait keeps the rest waiting.
    pub(super) fn ready(&self, height: Height, peg: &PegState) -> Vec<PegIn> {
        let pages = self.claims.len().div_ceil(READY_MAX).max(1);
        let page = usize::try_from(height.to_u32()).unwrap_or(0) % pages;
        let page = self.claims.values().skip(page * READY_MAX).take(READY_MAX);
        page.filter(|claim| claim.stands(peg)).map(|claim| claim.peg_in.clone()).collect()
    }

    /// How many deposits wait.
    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    /// Whether a deposit is known, with a proof that stands.
    fn knows(&self, outpoint: &OutPoint, peg: &PegState) -> bool {
        self.claims.get(outpoint).is_some_and(|claim| claim.stands(peg))
    }

    /// Takes a claim, in the place of one of the same deposit whose proof does not stand. False if there is no room.
    fn insert(&mut self, peg: &PegState, peg_in: PegIn, bytes: usize, own: bool) -> bool {
        let outpoint = peg_in.outpoint();
        let known = self.claims.get_mut(&outpoint).map(|known| {
            known.own |= own;
            (known.stands(peg), known.bytes, known.own)
        });
        let (before, own) = match known {
            Some((true, ..)) => return true,
            Some((false, bytes, own)) => (bytes, own),
            None if self.claims.len() >= CLAIMS_MAX => return false,
            None => (0, own),
        };
        if self.bytes - before + bytes > CLAIM_BYTES {
            return false;
        }
        self.bytes = self.bytes - before + bytes;
        let block = peg.headers().best_hash(peg_in.proof.height);
        self.claims.insert(outpoint, Claim { peg_in, block, bytes, own });
        true
    }

    /// Forgets what is credited, and what is too old to be.
    pub(super) fn committed(&mut self, peg: &PegState) {
        let window = u32::from(peg.network().current().epoch().timelocks().claim_window);
        let tip = peg.headers().tip().height;
        let over = |claim: &Claim| tip.blocks_since(claim.peg_in.proof.height).is_some_and(|age| age > window);
        self.claims.retain(|outpoint, claim| {
            let stays = !peg.is_credited(outpoint) && !over(claim);
            if !stays {
                self.bytes -= claim.bytes;
            }
            stays
        });
    }
}

impl Claim {
    /// Whether the block of its proof is on the best chain.
    fn stands(&self, peg: &PegState) -> bool {
        self.block.is_some() && self.block == peg.headers().best_hash(self.peg_in.proof.height)
    }
}

/// What is told of a claim.
fn claim_news(peg_in: &PegIn, deposit: OutPoint) -> impl FnOnce() -> Change + use<> {
    let output = usize::try_from(peg_in.vout).ok().and_then(|vout| peg_in.proof.transaction.output.get(vout));
    let amount = output.map_or(Amount::ZERO, |output| output.value);
    let (destination, bitcoin_height) = (peg_in.terms.destination.clone(), peg_in.proof.height);
    move || Change::Claimed { deposit, amount, destination, bitcoin_height }
}

impl Node {
    /// A deposit is claimed here.
    pub(super) fn claimed(&mut self, now: Now, id: Option<SubmitId>, peg_in: PegIn) {
        let outpoint = peg_in.outpoint();
        let result = match standing(&self.tip, self.time(now), &peg_in) {
            Standing::Ready => Ok(None),
            Standing::Waits(why) => Ok(Some(why)),
            Standing::Unknown(why) => Err(ClaimRefusal::NotYet(why)),
            Standing::Invalid(why) => Err(ClaimRefusal::Invalid(why)),
        };
        let result = result.and_then(|waits| {
            let known = self.claims.knows(&outpoint, self.tip.peg());
            let message = encode_claim(&peg_in, now.nonce());
            let news = claim_news(&peg_in, outpoint);
            if !self.claims.insert(self.tip.peg(), peg_in, message.len(), true) {
                return Err(ClaimRefusal::Full);
            }
            if !known {
                self.mempool.news().tell(news);
                self.actions.push(Action::Publish { topic: Topic::Claims, bytes: message });
            }
            Ok(Claimed { outpoint, waits })
        });
        if let Some(id) = id {
            self.actions.push(Action::ClaimReply { id, result });
        }
    }

    /// A peer sends on a claim.
    pub(super) fn gossiped_claim(&mut self, now: Now, reading: Reading, peg_in: PegIn, standing: Standing) {
        let Reading { peer, id, bytes, .. } = reading;
        let outpoint = peg_in.outpoint();
        if self.claims.knows(&outpoint, self.tip.peg()) {
            // Whoever claimed it sends it again until it is credited.
            self.peers.end(&peer, Topic::Claims, reading.cost(), 0);
            return self.of_no_use(peer, Topic::Claims, id);
        }
        let verdict = match standing {
            // Of a frozen peg nothing more is asked than that the proof is right.
            Standing::Unknown(_) | Standing::Waits(InvalidPeg::Frozen) => RelayVerdict::Ignore,
            Standing::Ready | Standing::Waits(_) => {
                let news = claim_news(&peg_in, outpoint);
                let taken = self.claims.insert(self.tip.peg(), peg_in, bytes, false);
                if taken {
                    self.mempool.news().tell(news);
                }
                if taken { RelayVerdict::Accept } else { RelayVerdict::Ignore }
            }
            // A peer that is ahead or behind may know another fee, and with it another credit, and epochs that this node does not.
            Standing::Invalid(
                InvalidPeg::UnknownEpoch { .. }
                | InvalidPeg::CreditedBefore { .. }
                | InvalidPeg::ClaimWindowOver { .. }
                | InvalidPeg::RequestOutOfRange { .. },
            ) => RelayVerdict::Ignore,
            Standing::Invalid(_) => RelayVerdict::Reject,
        };
        let wasted = if verdict == RelayVerdict::Accept { 0 } else { reading.cost() };
        self.peers.end(&peer, Topic::Claims, reading.cost(), wasted);
        self.relay(id, verdict);
        if verdict == RelayVerdict::Reject {
            self.punish(now, peer, Offence::InvalidClaim);
        }
    }

    /// Sends the claims made here again.
    pub(super) fn rebroadcast_claims(&mut self, now: Now) {
        let peg = self.tip.peg();
        for claim in self.claims.claims.values().filter(|claim| claim.own && claim.stands(peg)).take(READY_MAX) {
            let bytes = encode_claim(&claim.peg_in, now.nonce());
            self.actions.push(Action::Publish { topic: Topic::Claims, bytes });
        }
    }

    /// The height of the block of a deposit that waits to be credited.
    pub fn claim_height(&self, deposit: &OutPoint) -> Option<BitcoinHeight> {
        self.claims.claims.get(deposit).map(|claim| claim.peg_in.proof.height)
    }

    /// This machine's clock for what the next block may hold, in seconds of Unix time.
    pub(super) fn time(&self, now: Now) -> u32 {
        u32::try_from(now.unix.as_secs()).unwrap_or(u32::MAX).max(self.tip.time())
    }
}

/// What the rules say of a deposit on top of a tip: its proof is hashed once.
pub(super) fn standing(tip: &Tip, time: u32, peg_in: &PegIn) -> Standing {
    let Some(height) = tip.height().next() else {
        return Standing::Waits(InvalidPeg::Frozen);
    };
    let mut step = Step::new(tip.peg(), PegContext { height, time });
    let least = tip.peg().network().params().peg_in_min;
    match step.peg_in(peg_in.clone()) {
        Ok(()) => Standing::Ready,
        // Of another branch of Bitcoin, perhaps, which a peer that is ahead or behind takes for the best.
        Err(why @ (InvalidPeg::UnknownBlock { .. } | InvalidPeg::Proof { source: InvalidProof::Root { .. }, .. })) => {
            Standing::Unknown(why)
        }
        Err(why @ InvalidPeg::DepositTooSmall { amount, .. }) if amount >= least => Standing::Waits(why),
        // A lower fee leaves more.
        Err(why @ InvalidPeg::RequestOutOfRange { amount, min, .. }) if amount < min => Standing::Waits(why),
        Err(
            why @ (InvalidPeg::TooShallow { .. }
            | InvalidPeg::StaleTip { .. }
            | InvalidPeg::TooManyCoins { .. }
            | InvalidPeg::ReserveTooSmall { .. }
            | InvalidPeg::Frozen),
        ) => Standing::Waits(why),
        Err(why) => Standing::Invalid(why),
    }
}
