//! What a final block says about deposits and requests, in one order on every node: credits by output, requests by place,
//! then what the evidence confirms, replaces and opens.

use bitcoin::{Address, Network, OutPoint, Script};
use causeway_chainspec::{BitcoinHeight, Height, reserve_script};
use causeway_consensus::peg::batch::Batch;
use causeway_consensus::peg::coin::PegOutRequest;
use causeway_consensus::peg::evidence::Evidence;
use causeway_consensus::peg::history::BatchRecord;
use causeway_consensus::peg::step::requests_of;
use causeway_consensus::{Block, StateFault, Tx};

use super::frame::{self, InBlock, PayoutJson, PegInJson, PegOutJson};
use super::query::Topic;
use crate::rest::answer::Refusal;
use crate::rest::reader::Reader;

/// The place of the peg transaction in a block that has one (PEG section 2).
const PEG_TRANSACTION_INDEX: usize = 1;

const DAMAGED_BATCH: Refusal = Refusal::Fault(StateFault::Damaged { record: "batch" });

/// An event without its number.
type Event = (Topic, String);

/// Returns all events about the peg of a block up to the tip.
pub(super) fn of_block(reader: &Reader, block: &Block, in_block: InBlock) -> Result<Vec<Event>, Refusal> {
    let mut events = Vec::new();
    let peg_tx = peg_transaction(block);
    if let Some(tx) = peg_tx {
        credits(reader, tx, in_block, &mut events)?;
    }
    let network = reader.tip().peg().network().start().network();
    // A coinbase makes no requests.
    for (index, tx) in (0..).zip(block.transactions()).skip(1) {
        for request in requests_of(tx.transaction(), tx.txid(), Height(in_block.height), index) {
            let json = PegOutJson { state: "requested", block: Some(in_block), ..asked(&request, network) };
            events.push((Topic::PegOut, frame::json(&json)));
        }
    }
    if let Some((tx, evidence)) = peg_tx.and_then(|tx| Some((tx, evidence(tx)?))) {
        batches(reader, tx, &evidence, in_block, &mut events)?;
    }
    Ok(events)
}

/// Only a peg transaction creates the reserve coin at that place.
fn peg_transaction(block: &Block) -> Option<&Tx> {
    let tx = block.transactions().get(PEG_TRANSACTION_INDEX)?;
    let first = tx.transaction().output.first()?;
    (first.script_pubkey == reserve_script()).then_some(tx)
}

fn evidence(tx: &Tx) -> Option<Evidence> {
    Evidence::decode(tx.transaction().input.first()?.witness.nth(0)?)
}

fn credits(reader: &Reader, tx: &Tx, in_block: InBlock, events: &mut Vec<Event>) -> Result<(), Refusal> {
    let Some(before) = Height(in_block.height).prev() else { return Ok(()) };
    let page = reader.store().credits(before, Height(in_block.height), usize::MAX)?;
    for (deposit, credit) in page.credits {
        let output = usize::try_from(credit.vout).ok().and_then(|vout| tx.transaction().output.get(vout));
        let json = PegInJson {
            deposit: deposit.to_string(),
            state: "credited",
            amount: credit.amount.to_sat(),
            fee: Some(credit.fee.to_sat()),
            destination: output.and_then(|output| address(&output.script_pubkey, reader.network())),
            bitcoin_height: credit.bitcoin_height.to_u32(),
            txid: Some(tx.txid()),
            vout: Some(credit.vout),
            block: Some(in_block),
        };
        events.push((Topic::PegIn, frame::json(&json)));
    }
    Ok(())
}

/// The batches that a peg transaction closes, replaces and opens.
fn batches(
    reader: &Reader,
    tx: &Tx,
    evidence: &Evidence,
    in_block: InBlock,
    events: &mut Vec<Event>,
) -> Result<(), Refusal> {
    let network = reader.tip().peg().network().start().network();
    let inputs = &tx.transaction().input;
    for proof in &evidence.confirmed {
        let spent = proof.transaction.input.first().map(|input| input.previous_output);
        let number = spent.map(|coin| reader.store().batch_of_coin(&coin)).transpose()?.flatten();
        let BatchRecord { batch, .. } = record(reader, number)?;
        let txid = proof.transaction.compute_txid();
        let version = batch.versions.iter().position(|version| version.txid == txid).ok_or(DAMAGED_BATCH)?;
        let of = OfBatch { state: "confirmed", bitcoin_height: Some(proof.height), block: Some(in_block) };
        events.extend(of.events(&batch, version, network));
    }
    // The inputs after the reserve coin are the requests of the batch that is opened. One without any pays nobody.
    let opened = inputs.get(1).filter(|_| evidence.open).map(|input| input.previous_output);
    let opened = opened.map(|request: OutPoint| reader.store().batch_of_request(&request)).transpose()?.flatten();
    for number in evidence.replace.iter().copied().chain(opened) {
        let BatchRecord { batch, .. } = record(reader, Some(number))?;
        let fixed = |version: &causeway_consensus::peg::batch::BatchVersion| version.fixed == Height(in_block.height);
        let version = batch.versions.iter().position(fixed).ok_or(DAMAGED_BATCH)?;
        let of = OfBatch { state: "batched", bitcoin_height: None, block: Some(in_block) };
        events.extend(of.events(&batch, version, network));
    }
    Ok(())
}

fn record(reader: &Reader, number: Option<u32>) -> Result<BatchRecord, Refusal> {
    let record = number.map(|number| reader.store().batch(number)).transpose()?.flatten();
    record.ok_or(DAMAGED_BATCH)
}

/// What happened to a version of a batch.
pub(super) struct OfBatch {
    pub(super) state: &'static str,
    pub(super) bitcoin_height: Option<BitcoinHeight>,
    pub(super) block: Option<InBlock>,
}

impl OfBatch {
    /// One event for each request that the version pays.
    pub(super) fn events(&self, batch: &Batch, version: usize, network: Network) -> Vec<Event> {
        let Some(fixed) = batch.versions.get(version) else { return Vec::new() };
        let payees = batch.payees.iter().zip(&fixed.shares).enumerate();
        let event = |(vout, (payee, share)): (usize, (&PegOutRequest, &bitcoin::Amount))| {
            let payout = PayoutJson {
                batch: batch.number,
                version: version + 1,
                txid: fixed.txid,
                vout,
                payout: payee.amount.checked_sub(*share).map_or(0, |payout| payout.to_sat()),
                fee: share.to_sat(),
            };
            let json = PegOutJson {
                state: self.state,
                payout: Some(payout),
                bitcoin_height: self.bitcoin_height.map(|height| height.to_u32()),
                block: self.block,
                ..asked(payee, network)
            };
            (Topic::PegOut, frame::json(&json))
        };
        payees.map(event).collect()
    }
}

fn asked(request: &PegOutRequest, network: Network) -> PegOutJson {
    PegOutJson {
        request: request.outpoint.to_string(),
        amount: request.amount.to_sat(),
        bitcoin_address: address(request.destination.script(), network),
        ..PegOutJson::default()
    }
}

/// The address of a script; None if it has none.
pub(super) fn address(script: &Script, network: Network) -> Option<String> {
    Address::from_script(script, network).ok().map(|address| address.to_string())
}
