//! What the node says, as lines of the log.

use std::error::Error;

use tracing::{debug, error, info, warn};

use crate::machine::Report;

/// Writes a report.
pub(super) fn report(report: &Report) {
    match report {
        Report::Committed { height, hash, round, transactions, decided_in: Some(took) } => {
            let ms = format!("{:.2}", took.as_secs_f64() * 1e3);
            info!(height = height.to_u32(), %hash, round, transactions, ms, "block is final");
        }
        Report::Committed { height, hash, round, transactions, decided_in: None } => {
            debug!(height = height.to_u32(), %hash, round, transactions, "block fetched");
        }
        Report::Round { height, round, proposer } => {
            warn!(height = height.to_u32(), round, %proposer, "another round: a validator is slow or silent");
        }
        Report::Syncing { height, target } => {
            info!(height = height.to_u32(), target = target.to_u32(), "fetching blocks");
        }
        Report::Synced { height } => info!(height = height.to_u32(), "at the tip"),
        Report::InvalidProposal { height, hash, proposer, rule } => {
            warn!(height = height.to_u32(), %hash, %proposer, %rule, "a proposed block breaks a rule");
        }
        Report::Held { height, hash, ahead } => {
            let ahead_s = ahead.as_secs();
            warn!(height = height.to_u32(), %hash, ahead_s, "no vote yet: the block's time is ahead of this clock, check it");
        }
        Report::HeldByBitcoin { height, hash, answer } => {
            warn!(height = height.to_u32(), %hash, %answer, "no vote yet: this machine's Bitcoin node does not say the same");
        }
        Report::BitcoinLeftOut { height, proposer, until } => {
            let (height, until) = (height.to_u32(), until.to_u32());
            warn!(height, %proposer, until, "a round failed with news of Bitcoin, which this node's blocks leave out for a while: \
                  ask the validators whether their Bitcoin nodes are up");
        }
        Report::PegFrozen { height, why } => {
            error!(height = height.to_u32(), %why, "THE PEG IS FROZEN: nothing moves between the chains until people resolve it");
        }
        Report::Equivocation(evidence) => {
            let (height, validator) = (evidence.height().to_u32(), evidence.validator());
            error!(height, %validator, "a validator signed two contradictory messages; the proof is kept");
        }
        Report::Withheld { position, refusal } => warn!(%position, %refusal, "a message was not signed"),
        Report::TipUnconfirmed { height, power, total } => {
            let height = height.to_u32();
            warn!(
                height,
                power,
                total,
                "this validator signs nothing yet: more than two thirds of the power, its own included, have to say that its \
                 tip is not old; look whether the other validators run and are reached"
            );
        }
        Report::TipConfirmed { height } => {
            info!(height = height.to_u32(), "other validators have confirmed the tip: this one takes part");
        }
        Report::SignedElsewhere { height } => {
            let height = height.to_u32();
            error!(height, "ANOTHER MACHINE SIGNS WITH THIS NODE'S KEY: stop one of them at once");
        }
        Report::Misbehaved { peer, offence, score } => debug!(%peer, ?offence, score, "a peer misbehaved"),
        Report::Banned { peer, duration } => {
            let seconds = duration.as_secs();
            warn!(%peer, seconds, "a peer is banned");
        }
        Report::HungUp { peer, topic } => {
            warn!(%peer, topic = topic.name(), "a peer was disconnected: it has sent far more than is of use");
        }
        Report::OwnBlockInvalid { height, rule } => {
            error!(height = height.to_u32(), %rule, "our own block breaks a rule: this is a bug, please report it");
        }
    }
}

/// Writes an error with everything that led to it.
pub(super) fn log_error(what: &str, error: &dyn Error) {
    let mut chain = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push_str(": ");
        chain.push_str(&cause.to_string());
        source = cause.source();
    }
    error!(error = chain, "{what}");
}
