//! A run in words, for whoever looks for the reason of a failed check.

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::hashes::Hash;
use causeway_consensus::bft::{Message, SignedTipStatement, TipStatement, VoteType};
use causeway_node::machine::{Action, Event, Verdict};
use causeway_node::wire::{BodyMessage, Response, Topic, decode_body, decode_consensus};

/// What happens to a node.
pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Gossip { id, topic, bytes, .. } => format!("gossip {} {}", id.0, gossip(*topic, bytes)),
        Event::Response { id, result, .. } => match result {
            Ok(answer) => format!("answer {} {}", id.0, response(answer)),
            Err(error) => format!("answer {} {error:?}", id.0),
        },
        Event::Verified { ticket, result } => format!("verified {} {:?}", ticket.0, result.as_ref().err()),
        Event::Read { ticket, .. } => format!("read {}", ticket.0),
        Event::Validated { ticket, verdict: of } => format!("validated {} {}", ticket.0, verdict(of)),
        Event::Assembled { ticket, verdict: of } => format!("assembled {} {}", ticket.0, verdict(of)),
        Event::Checked { ticket, results } => {
            format!("checked {} {}", ticket.0, results.iter().filter(|result| result.is_ok()).count())
        }
        Event::PackageChecked { ticket, .. } => format!("package checked {}", ticket.0),
        Event::Bitcoin { offer } => match offer {
            Some(offer) => {
                let (first, count) = (offer.first, offer.headers.len());
                format!("bitcoin: {count} headers from {first}, {} confirmed", offer.confirmed.len())
            }
            None => "bitcoin: absent".to_owned(),
        },
        Event::Claim { peg_in, .. } => format!("claim {}", peg_in.outpoint()),
        Event::Submit { id, transaction } => format!("submit {} {}", id.0, transaction.compute_txid()),
        other => format!("{other:?}"),
    }
}

/// What a node says is to be done.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Log { height, entries, mark, writing } => {
            let mark = mark.as_ref().and_then(|mark| mark.position()).map(|position| position.to_string());
            format!("log {height}: {} entries, mark {mark:?}, {writing:?}", entries.len())
        }
        Action::KeepBody { height, bytes } => format!("keep body {height} {}", block(bytes)),
        Action::Publish { topic, bytes } => format!("publish {}", gossip(*topic, bytes)),
        Action::Relay { id, verdict } => format!("relay {} {verdict:?}", id.0),
        Action::Respond { id, response: answer } => format!("respond {} {}", id.0, response(answer)),
        Action::Prefetch { block: of } => format!("prefetch {}", block(of)),
        Action::Validate { ticket, job } => {
            let proof = if job.proof.is_some() { " with proof" } else { "" };
            format!("validate {} {}{proof}", ticket.0, block(&job.bytes))
        }
        Action::Assemble { ticket, job } => {
            format!("assemble {} on {}, {} transactions", ticket.0, short(&job.parent.hash()), job.transactions.len())
        }
        Action::Verify { ticket, .. } => format!("verify {}", ticket.0),
        Action::Read { ticket, .. } => format!("read {}", ticket.0),
        Action::Check { ticket, .. } => format!("check {}", ticket.0),
        Action::CheckPackage { ticket, .. } => format!("check package {}", ticket.0),
        Action::Commit { connected, certificate, .. } => {
            let tip = connected.tip();
            format!("commit {} {} of round {}", tip.height(), short(&tip.hash()), certificate.round())
        }
        other => format!("{other:?}"),
    }
}

fn gossip(topic: Topic, bytes: &bytes::Bytes) -> String {
    match topic {
        Topic::Consensus => match decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok()) {
            Some(Message::Vote(signed)) => {
                let vote = &signed.message;
                let kind = if vote.kind() == VoteType::Prevote { "prevote" } else { "precommit" };
                let of = vote.block().map_or_else(|| "nil".to_owned(), |hash| short(&hash));
                format!("{kind} {}/{} {of} by {}", vote.height(), vote.round().unwrap_or(0), head(&vote.validator()))
            }
            Some(Message::Proposal(signed)) => {
                let proposal = &signed.message;
                let (height, round) = (proposal.height(), proposal.round().unwrap_or(0));
                let of = short(&proposal.block());
                format!(
                    "proposal {height}/{round} {of} pol {:?} by {}",
                    proposal.pol_round(),
                    head(&proposal.proposer())
                )
            }
            Some(Message::Polka(_)) => "polka".to_owned(),
            Some(Message::Round(_)) => "round certificate".to_owned(),
            None => tip_statement(bytes),
        },
        Topic::Bodies => match decode_body(bytes.clone()) {
            Ok(BodyMessage::Pushed { height, block: bytes }) => format!("body {height} {}", block(&bytes)),
            Ok(BodyMessage::Announced { height, hash, bytes }) => {
                format!("has body {height} {} of {bytes} bytes", short(&hash))
            }
            Err(_) => "nonsense as a body".to_owned(),
        },
        Topic::Transactions => format!("transaction of {} bytes", bytes.len()),
        Topic::Claims => format!("claim of {} bytes", bytes.len()),
    }
}

fn tip_statement(bytes: &[u8]) -> String {
    match decode_consensus(bytes).ok().and_then(|content| SignedTipStatement::decode(content).ok()) {
        Some(told) => match told.statement {
            TipStatement::Question { .. } => format!("question for tips by {}", head(&told.validator)),
            TipStatement::Answer { height, .. } => format!("tip {height} of {}", head(&told.validator)),
        },
        None => "nonsense".to_owned(),
    }
}

fn response(response: &Response) -> String {
    match response {
        Response::Status { height, .. } => format!("status {height}"),
        Response::Blocks(blocks) => format!("{} blocks", blocks.len()),
        Response::Body(bytes) => format!("body {:?}", bytes.as_ref().map(|bytes| block(bytes))),
    }
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Valid { connected, .. } => format!("{} valid", short(&connected.tip().hash())),
        Verdict::Invalid(rule) => format!("invalid: {rule}"),
        Verdict::Unproven(error) => format!("unproven: {error}"),
        Verdict::NotReady(why) => format!("not ready: {why}"),
    }
}

fn block(bytes: &[u8]) -> String {
    bytes.get(..Header::SIZE).map_or_else(|| "none".to_owned(), |header| short(&BlockHash::hash(header)))
}

fn short(hash: &BlockHash) -> String {
    head(hash)
}

fn head(of: &impl std::fmt::Display) -> String {
    of.to_string().chars().take(6).collect()
}
