//! The checks of the peg: what honest hosts make final, what they vote for, and that nobody loses or gains a bitcoin.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bitcoin::{Amount, BlockHash, OutPoint, Txid};
use causeway_chainspec::{Height, PegOutDestination, PegScript};
use causeway_consensus::bft::{Message, VoteType};
use causeway_consensus::peg::history::PegEvent;
use causeway_consensus::{ChainView, ConnectedBlock};
use causeway_node::machine::peg::BitcoinQuestion;
use causeway_node::machine::{Event, Verdict};
use causeway_node::wire::decode_consensus;

use crate::sim::check::Check;
use crate::sim::world::World;

/// How long after its Bitcoin node has changed its mind a host may hold a block: it asks twice a second, and the answer
/// takes a while.
const RECONSIDERED: Duration = Duration::from_millis(500 + 100 + 100);

/// What was seen of votes and of Bitcoin.
#[derive(Debug, Default)]
pub(in crate::sim) struct Audit {
    /// Blocks that speak of Bitcoin, and what there is to be asked of each.
    questions: BTreeMap<BlockHash, (Height, BitcoinQuestion)>,
    /// Blocks that a host assembled.
    own: BTreeSet<(usize, BlockHash)>,
    /// What a host's Bitcoin node has said yes to.
    agreed: BTreeMap<usize, Vec<(Height, BitcoinQuestion)>>,
    /// Blocks that a host holds, and since when its Bitcoin node would say yes.
    held: BTreeMap<(usize, BlockHash), Option<Duration>>,
}

impl Audit {
    /// Something that a node is told.
    pub(in crate::sim) fn told(&mut self, index: usize, event: &Event) {
        let (Event::Validated { verdict: Verdict::Valid { connected, .. }, .. }
        | Event::Assembled { verdict: Verdict::Valid { connected, .. }, .. }) = event
        else {
            return;
        };
        let hash = connected.tip().hash();
        if matches!(event, Event::Assembled { .. }) {
            self.own.insert((index, hash));
        }
        let Some(evidence) = connected.evidence().filter(|evidence| evidence.speaks_of_bitcoin()) else { return };
        let tree = connected.tip().peg().headers();
        let peg_ins = evidence.peg_ins.iter();
        let proofs =
            evidence.confirmed.iter().chain(&evidence.spent).chain(peg_ins.clone().map(|peg_in| &peg_in.proof));
        let blocks = proofs.filter_map(|proof| tree.best_hash(proof.height));
        let headers = evidence.headers.iter().flat_map(|run| run.hashes()).chain(blocks).collect();
        let deposits = peg_ins.map(|peg_in| peg_in.outpoint()).collect();
        self.questions.insert(hash, (connected.tip().height(), BitcoinQuestion { headers, deposits }));
    }

    /// A host's Bitcoin node has said yes.
    pub(in crate::sim) fn agreed(&mut self, index: usize, height: Height, question: BitcoinQuestion) {
        self.agreed.entry(index).or_default().push((height, question));
    }

    /// A host says that its Bitcoin node does not speak for a block.
    pub(in crate::sim) fn held(&mut self, index: usize, block: BlockHash) {
        self.held.insert((index, block), None);
    }

    /// A process has ended, or has begun.
    pub(in crate::sim) fn forget_held(&mut self, index: usize) {
        self.held.retain(|(of, _), _| *of != index);
    }

    fn has_agreed(&self, index: usize, question: &BitcoinQuestion) -> bool {
        self.agreed.get(&index).is_some_and(|agreed| agreed.iter().any(|(_, of)| of == question))
    }

    /// Every honest host has this height.
    fn passed(&mut self, lowest: Height) {
        self.questions.retain(|_, (height, _)| *height >= lowest);
        let (questions, agreed) = (&self.questions, &mut self.agreed);
        self.own.retain(|(_, block)| questions.contains_key(block));
        self.held.retain(|(_, block), _| questions.contains_key(block));
        agreed.values_mut().for_each(|agreed| agreed.retain(|(height, _)| *height >= lowest));
    }
}

impl World {
    /// What an honest host publishes on the consensus topic.
    pub(in crate::sim) fn audit_vote(&mut self, index: usize, bytes: &[u8]) {
        let message = decode_consensus(bytes).ok().and_then(|content| Message::decode(content).ok());
        let Some(Message::Vote(signed)) = message else { return };
        let vote = &signed.message;
        let (Some(block), VoteType::Prevote) = (vote.block(), vote.kind()) else { return };
        let Some((height, question)) = self.audit.questions.get(&block) else { return };
        let spoken_for = self.audit.own.contains(&(index, block))
            || self.audit.has_agreed(index, question)
            || Some(vote.validator()) != self.hosts[index].address
            || self.watch.has_polka(*height, block);
        if !spoken_for {
            let what = format!("host {index} prevotes {block} in height {height}: its Bitcoin node never agreed");
            self.fail(Check::BitcoinVote, what);
        }
    }

    /// What is held for too long.
    pub(in crate::sim) fn audit_held(&mut self) {
        if let Some(lowest) = self.honest().map(|host| self.hosts[host].height()).min() {
            self.audit.passed(lowest);
        }
        let now = self.now;
        let slow = RECONSIDERED + self.plan.faults.disk * 2;
        let mut failed = Vec::new();
        for ((index, block), since) in &mut self.audit.held {
            let host = &self.hosts[*index];
            let Some((height, question)) = self.audit.questions.get(block) else { continue };
            let agreed = self.audit.agreed.get(index);
            let over = host.height() >= *height
                || agreed.is_some_and(|agreed| agreed.iter().any(|(_, of)| of == question))
                || self.watch.has_polka(*height, *block);
            let would =
                host.bitcoin.answer(&self.bitcoin, question) == causeway_node::machine::peg::BitcoinAnswer::Agrees;
            if over || !would || host.life.as_ref().is_none_or(|life| life.busy || life.committing) {
                *since = None;
            } else if now - *since.get_or_insert(now) > slow {
                failed.push(format!(
                    "host {index} holds {block} of height {height} against the word of its Bitcoin node"
                ));
                *since = None;
            }
        }
        for what in failed {
            self.fail(Check::BitcoinVote, what);
        }
    }

    /// What must hold on every honest host.
    pub(super) fn audit_commit(&mut self, index: usize, connected: &ConnectedBlock) {
        let accounts = connected.tip().peg().accounts();
        if !accounts.balance() {
            let height = connected.tip().height();
            self.fail(Check::Accounts, format!("host {index}, height {height}: {accounts:?} do not add up"));
        }
    }

    /// What must hold of every block that became final.
    pub(super) fn audit_block(&mut self, connected: &ConnectedBlock) {
        let height = connected.tip().height();
        self.audit_coins(height);
        let headers = connected.evidence().and_then(|evidence| evidence.headers.as_ref());
        for hash in headers.iter().flat_map(|run| run.hashes()) {
            if !self.bitcoin.chains.contains_key(&hash) {
                self.fail(Check::FalseEvidence, format!("height {height}: Bitcoin has no block {hash}"));
            }
        }
        for event in connected.peg_events() {
            match event {
                PegEvent::Credited { outpoint, credit } => {
                    let deposit = self.bitcoin.deposits.iter().find(|deposit| deposit.outpoint == *outpoint);
                    let output = connected.block().transactions().get(1).and_then(|transaction| {
                        transaction.transaction().output.get(usize::try_from(credit.vout).ok()?)
                    });
                    let trouble = match (deposit, output) {
                        (None, _) => Some("nobody made it"),
                        (Some(deposit), _) if deposit.credited.is_some() => Some("it was credited before"),
                        (Some(deposit), _) if self.bitcoin.best().place(&deposit.outpoint.txid).is_none() => {
                            Some("Bitcoin does not have it")
                        }
                        (Some(deposit), Some(output))
                            if output.script_pubkey == deposit.terms.destination
                                && output.value + credit.fee == deposit.transaction.output[0].value =>
                        {
                            None
                        }
                        (Some(_), _) => Some("not as its terms say"),
                    };
                    if let Some(trouble) = trouble {
                        self.fail(Check::PegIns, format!("height {height} credits {outpoint}: {trouble}"));
                    }
                }
                PegEvent::BatchConfirmed { batch, txid, height: at, index } => {
                    let place = usize::try_from(*index).ok().map(|index| (*at, index));
                    if self.bitcoin.best().place(txid) != place || batch.version(txid).is_none() {
                        let number = batch.number;
                        self.fail(Check::FalseEvidence, format!("height {height}: batch {number} is not in {at}"));
                    }
                }
                PegEvent::BatchFixed { .. } => {}
                PegEvent::Frozen(why) => self.fail(Check::FalseEvidence, format!("height {height}: {why}")),
            }
        }
    }

    /// PEG section 9, from the coins of Causeway.
    fn audit_coins(&mut self, height: Height) {
        let chain = self.watch.reference();
        if chain.tip().height() != height {
            return;
        }
        let accounts = chain.peg().accounts();
        let (mut reserve, mut waiting, mut others) = (Amount::ZERO, Amount::ZERO, Amount::ZERO);
        for coin in chain.coins_mut().values() {
            match PegScript::of(&coin.output.script_pubkey) {
                Some(Ok(PegScript::Reserve)) => reserve += coin.output.value,
                Some(_) => waiting += coin.output.value,
                None => others += coin.output.value,
            }
        }
        let same = (accounts.reserve, accounts.waiting, accounts.circulating()) == (reserve, waiting, others);
        if !same || reserve + waiting + others != Amount::MAX_MONEY {
            let what = format!("height {height}: coins of {reserve}, {waiting} and {others}, but {accounts:?}");
            self.fail(Check::Accounts, what);
        }
    }

    /// Whether every deposit is credited and every request paid, as every honest host knows.
    pub(in crate::sim) fn is_peg_settled(&self) -> bool {
        let bitcoin = &self.bitcoin;
        let settled = |host: usize| {
            let peg = self.hosts[host].chain.peg();
            peg.waiting().len() == 0 && peg.open_batches().len() == 0
        };
        bitcoin.deposits.iter().all(|deposit| deposit.lost || deposit.credited.is_some())
            && bitcoin.requests.keys().all(|request| bitcoin.paid.contains(request))
            && self.honest().all(settled)
    }

    /// That everybody was paid once, and what was asked for.
    pub(in crate::sim) fn last_audit(&mut self, bound: Duration) {
        if self.over || self.watch.has_failed() {
            return;
        }
        if !self.is_peg_settled() {
            let open =
                self.bitcoin.deposits.iter().filter(|deposit| !deposit.lost && deposit.credited.is_none()).count();
            let unpaid = self.bitcoin.requests.len() - self.bitcoin.paid.len();
            let batches: Vec<_> = self.watch.reference().peg().open_batches().map(|batch| batch.number).collect();
            let what = format!(
                "{bound:?} after the healing {open} deposits are not credited, {unpaid} requests not paid, batches {batches:?} \
                 open"
            );
            self.fail(Check::PegLiveness, what);
        }
        let mut paid: BTreeMap<OutPoint, Txid> = BTreeMap::new();
        let mut failed = Vec::new();
        for (txid, version) in &self.bitcoin.versions {
            let Some(transaction) = self.bitcoin.best().transaction(txid) else { continue };
            let batch = &self.bitcoin.batches[&version.batch];
            let Some(fixed) = batch.version(txid) else { continue };
            for ((payee, share), output) in batch.payees.iter().zip(&fixed.shares).zip(&transaction.output) {
                if let Some(other) = paid.insert(payee.outpoint, *txid) {
                    failed.push(format!("{} is paid by {other} and {txid}", payee.outpoint));
                }
                let Some(request) = self.bitcoin.requests.get(&payee.outpoint) else {
                    failed.push(format!("{} was never made, and is paid", payee.outpoint));
                    continue;
                };
                let to = PegOutDestination::from_bitcoin_script(&output.script_pubkey);
                let as_asked = to.is_ok_and(|to| to.to_script_pubkey() == request.script_pubkey);
                if !as_asked || output.value + *share != request.value {
                    failed.push(format!("{} is not paid as it asks", payee.outpoint));
                }
            }
        }
        for what in failed {
            self.fail(Check::PegOuts, what);
        }
    }
}
