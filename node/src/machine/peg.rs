//! The peg as a validator sees it: what it puts into its blocks, and what its own Bitcoin node says of the blocks of others
//! (PEG section 7). What the rules say is consensus' business.

mod back_off;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint, Transaction};
use causeway_chainspec::{BitcoinHeight, Height, SatPerKvb};
use causeway_consensus::ConnectedBlock;
use causeway_consensus::bft::ValidatorSet;
use causeway_consensus::peg::evidence::FeeRateQuote;
use causeway_consensus::peg::history::PegEvent;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_consensus::peg::propose::{Candidates, HEADERS_MAX};
use causeway_consensus::peg::state::Quote;
use causeway_consensus::peg::{Evidence, PegContext, propose};

use super::Node;
use super::action::Action;
use super::event::{Now, Ticket};
use super::report::Report;
use super::timers::Alarm;
use crate::mempool::PegStatus;

use back_off::BackOff;

/// How long after an answer that speaks against a block Bitcoin is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Least distance between two of a validator's quotes, in blocks, however much the rate moves.
const QUOTE_EVERY: u32 = 20;

/// What this machine's Bitcoin node offers for the next blocks.
#[derive(Debug, Clone)]
pub struct BitcoinOffer {
    /// The height of the first header.
    pub first: BitcoinHeight,
    /// The end of its best chain, as far as it may be proposed: linked, at least one.
    pub headers: Arc<[Header]>,
    /// Versions of open batches that stand in blocks.
    pub confirmed: Vec<InclusionProof>,
    /// Foreign spends of the peg's coins.
    pub spent: Vec<InclusionProof>,
    /// Open batches, by number, of which a version stands in a block: they need no higher fee.
    pub in_block: BTreeSet<u32>,
    /// What a transaction should pay; `None` if it does not know.
    pub fee_rate: Option<SatPerKvb>,
}

/// What is asked about a block before it is voted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoinQuestion {
    /// Is each of them a valid block? A valid fork is one too.
    pub headers: Vec<BlockHash>,
    /// Is each of them unspent in the best chain?
    pub deposits: Vec<OutPoint>,
}

/// What this machine's Bitcoin node says of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BitcoinAnswer {
    /// The same as the block.
    Agrees,
    /// It cannot be asked, or has still to catch up.
    Absent,
    /// It does not know a header, or not as that of a valid block.
    UnknownHeader(BlockHash),
    /// A deposit is spent.
    SpentDeposit(OutPoint),
}

impl std::fmt::Display for BitcoinAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agrees => f.write_str("the Bitcoin node agrees"),
            Self::Absent => f.write_str("no Bitcoin node can be asked"),
            Self::UnknownHeader(hash) => write!(f, "the Bitcoin node does not know {hash} as a valid block"),
            Self::SpentDeposit(outpoint) => write!(f, "deposit {outpoint} is spent"),
        }
    }
}

/// What is known of the proposed blocks of this height from Bitcoin.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub(super) offer: Option<Arc<BitcoinOffer>>,
    judged: BTreeMap<BlockHash, Judged>,
    back_off: BackOff,
}

#[derive(Debug, Clone, Copy)]
enum Judged {
    Asked(Ticket),
    Answered { answer: BitcoinAnswer, at: Duration },
}

impl Node {
    /// The peg transaction of our block, if there is something to say.
    pub(super) fn peg_transaction(&mut self, height: Height, round: u32, time: u32) -> Option<Transaction> {
        // After a round that failed nothing goes in that others might hold: a race of Bitcoin blocks costs one round, and
        // validators without a Bitcoin node cost few heights one.
        let may_be_held = round == 0 && !self.outside.back_off.leaves_out(height);
        let offer = self.outside.offer.clone();
        let mut candidates = match &offer {
            Some(offer) if may_be_held => self.candidates(offer, height, time),
            _ => Candidates::default(),
        };
        // Who does not see Bitcoin cannot know which batch waits for a higher fee.
        candidates.keep = match &offer {
            Some(offer) => offer.in_block.clone(),
            None => self.tip.peg().open_batches().map(|batch| batch.number).collect(),
        };
        candidates.fee_rate = offer.and_then(|offer| self.quote(height, offer.fee_rate?));
        propose(self.tip.peg(), PegContext { height, time }, candidates)
    }

    fn candidates(&self, offer: &BitcoinOffer, height: Height, time: u32) -> Candidates {
        let tree = self.tip.peg().headers();
        let header = |height: BitcoinHeight| {
            let index = usize::try_from(height.blocks_since(offer.first)?).ok()?;
            offer.headers.get(index).copied()
        };
        let last = offer.headers.len().checked_sub(1).and_then(|count| u32::try_from(count).ok());
        let tip = last.and_then(|last| offer.first.checked_add(last));
        // A run that cannot be made is one that is not needed, or will come with the next offer.
        let run = tip.and_then(|tip| tree.run_towards(tip, time, HEADERS_MAX, header).ok());
        Candidates {
            headers: run,
            confirmed: offer.confirmed.clone(),
            spent: offer.spent.clone(),
            peg_ins: self.claims.ready(height, self.tip.peg()),
            fee_rate: None,
            keep: BTreeSet::new(),
        }
    }

    /// This validator's quote, if its last one is old or far off.
    fn quote(&self, height: Height, rate: SatPerKvb) -> Option<FeeRateQuote> {
        let peg = self.tip.peg();
        let validator =
            self.engine.address().and_then(|address| bitcoin::XOnlyPublicKey::from_slice(&address.0).ok())?;
        let wanted = match peg.quote(&validator) {
            None => true,
            Some(Quote { height: at, rate: last }) => {
                let age = height.blocks_since(at).unwrap_or(0);
                let moved = rate.0.abs_diff(last.0) > last.0 / 10;
                age >= peg.network().params().quote_age / 2 || (moved && age >= QUOTE_EVERY)
            }
        };
        if wanted { self.engine.sign_fee_rate(height, rate) } else { None }
    }

    /// Whether this machine's Bitcoin node speaks for a block, or need not: only voters ask. Asks it, if it was not asked yet,
    /// or a while ago.
    pub(super) fn bitcoin_agrees(&mut self, now: Now, hash: BlockHash, connected: &ConnectedBlock) -> bool {
        let Some(evidence) = connected.evidence().filter(|evidence| evidence.speaks_of_bitcoin()) else { return true };
        if self.engine.address().is_none() {
            return true;
        }
        match self.outside.judged.get(&hash) {
            Some(Judged::Answered { answer: BitcoinAnswer::Agrees, .. }) => return true,
            Some(Judged::Asked(_)) => return false,
            Some(Judged::Answered { at, .. }) if now.uptime < *at + ASK_AGAIN => {
                let at = *at + ASK_AGAIN;
                self.timers.set_at_latest(Alarm::Judge, at);
                return false;
            }
            Some(Judged::Answered { .. }) | None => {}
        }
        let tree = connected.tip().peg().headers();
        let mut headers: Vec<BlockHash> = evidence.headers.iter().flat_map(|run| run.hashes()).collect();
        let proofs =
            evidence.confirmed.iter().chain(&evidence.spent).chain(evidence.peg_ins.iter().map(|peg_in| &peg_in.proof));
        headers.extend(proofs.filter_map(|proof| tree.best_hash(proof.height)));
        let deposits = evidence.peg_ins.iter().map(|peg_in| peg_in.outpoint()).collect();
        let ticket = self.ticket();
        self.outside.judged.insert(hash, Judged::Asked(ticket));
        self.actions.push(Action::AskBitcoin { ticket, question: BitcoinQuestion { headers, deposits } });
        false
    }

    /// This machine's Bitcoin node has answered.
    pub(super) fn bitcoin_judged(&mut self, now: Now, ticket: Ticket, answer: BitcoinAnswer) {
        let asked = |judged: &Judged| matches!(judged, Judged::Asked(of) if *of == ticket);
        // Of an earlier height, otherwise.
        let Some(hash) = self.outside.judged.iter().find(|(_, judged)| asked(judged)).map(|(hash, _)| *hash) else {
            return;
        };
        self.outside.judged.insert(hash, Judged::Answered { answer, at: now.uptime });
        if answer != BitcoinAnswer::Agrees
            && let Some(height) = self.tip.height().next()
        {
            self.actions.push(Action::Report(Report::HeldByBitcoin { height, hash, answer }));
        }
        // `drain` looks at what is held.
    }

    /// A block has become final in this round: what is known of its height is void. `set` are the validators of the height.
    pub(super) fn peg_committed(&mut self, connected: &ConnectedBlock, round: u32, set: &ValidatorSet) {
        self.outside.judged.clear();
        let height = connected.tip().height();
        if speaks_of_bitcoin(connected) {
            self.outside.back_off.succeeded();
        } else if let Some(proposer) = self.bodies.proposed_before(round, speaks_of_bitcoin) {
            let until = self.outside.back_off.failed(height, proposer, set);
            if let Some(until) = until.filter(|_| self.engine.address().is_some()) {
                self.actions.push(Action::Report(Report::BitcoinLeftOut { height, proposer, until }));
            }
        }
        for event in connected.peg_events() {
            if let PegEvent::Frozen(why) = event {
                self.actions.push(Action::Report(Report::PegFrozen { height, why: *why }));
            }
        }
        self.claims.committed(self.tip.peg());
        let status = if self.tip.peg().frozen().is_some() { PegStatus::Frozen } else { PegStatus::Open };
        let departed = self.mempool.set_peg(status);
        self.intake.departed(&departed);
    }
}

/// Whether others may hold a block because of its evidence.
fn speaks_of_bitcoin(connected: &ConnectedBlock) -> bool {
    connected.evidence().is_some_and(Evidence::speaks_of_bitcoin)
}
