//! Looks at node and bitcoind, again and again, and sends what is signed.

use std::collections::BTreeMap;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bitcoin::{BlockHash, Txid};
use causeway_consensus::peg::batch::Batch;
use tokio::sync::Notify;

use super::board::Board;
use super::coins::{self, BitcoinAccess, BitcoinTip};
use super::node::{NodeError, NodeView};
use super::room::{Order, Survey};
use super::{Tempo, records::SignedRecord};
use crate::approve::{BitcoinFacts, BlockPoint, NodeFacts};
use crate::bitcoind::{Refusal, Sent};
use crate::command::one_line;

pub(crate) struct Surveyor {
    node: Arc<dyn NodeView>,
    bitcoin: Arc<dyn BitcoinAccess>,
    orders: SyncSender<Order>,
    board: Arc<Mutex<Board>>,
    nudged: Arc<Notify>,
    tempo: Tempo,
    /// What bitcoind said of each newest version, as long as its best block is this one.
    facts: BTreeMap<Txid, BitcoinFacts>,
    best: Option<BlockHash>,
    answered: Instant,
    /// At which best block, and when, a transaction was last sent.
    sent: BTreeMap<Txid, (Option<BlockHash>, Instant)>,
}

impl Surveyor {
    pub(crate) fn new(
        node: Arc<dyn NodeView>,
        bitcoin: Arc<dyn BitcoinAccess>,
        orders: SyncSender<Order>,
        board: Arc<Mutex<Board>>,
        nudged: Arc<Notify>,
        tempo: Tempo,
    ) -> Self {
        Self {
            node,
            bitcoin,
            orders,
            board,
            nudged,
            tempo,
            facts: BTreeMap::new(),
            best: None,
            answered: Instant::now(),
            sent: BTreeMap::new(),
        }
    }

    /// Runs for ever.
    pub(crate) async fn run(mut self) {
        loop {
            match self.look().await {
                Ok(survey) => {
                    self.answered = Instant::now();
                    self.send_signed(&survey).await;
                    // A busy room gets the next one.
                    let _ = self.orders.try_send(Order::Survey(Box::new(survey)));
                }
                Err(error) => {
                    let text = one_line(&error);
                    let mut board = self.board();
                    if board.status.node.error.as_ref() != Some(&text) {
                        tracing::warn!(error = %text, "the node gives no answer");
                    }
                    board.status.node.error = Some(text);
                    drop(board);
                    if self.answered.elapsed() >= self.tempo.stale_after {
                        let _ = self.orders.try_send(Order::GiveUp);
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.tempo.poll) => {}
                () = self.nudged.notified() => {}
            }
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look(&mut self) -> Result<Survey, NodeError> {
        let chain = self.node.chain().await?;
        let open = self.node.open_batches().await?;
        let acted_on = self.board().status.acted_on;
        let at_acted_on = match acted_on {
            Some(BlockPoint { height, .. }) => {
                let hash = self.node.block_hash(height).await?;
                hash.map(|hash| BlockPoint { height, hash })
            }
            None => None,
        };
        // Who shows another block than the one acted on must show why.
        let other = match acted_on.zip(at_acted_on) {
            Some((own, there)) if own != there => self.node.certificate(there.height).await?,
            _ => None,
        };
        let certificate = if open.batches.is_empty() { None } else { self.node.certificate(open.tip.height).await? };
        {
            let mut board = self.board();
            board.status.node.error = None;
            board.status.node.tip = Some(open.tip);
            board.status.node.frozen.clone_from(&open.frozen);
        }
        let mark = self.board().status.deposits;
        let peg_ins = self.node.peg_ins(mark.height).await?;
        let node = NodeFacts { chain, tip: open.tip, frozen: open.frozen, certificate, at_acted_on, other };
        let tip = self.look_at_bitcoin().await;
        let batches = self.look_at_batches(&tip, open.batches).await;
        let deposits = match &tip {
            Ok(tip) => {
                let facts = coins::deposit_facts(&*self.bitcoin, tip, &mark, peg_ins).await;
                facts.map_err(|error| one_line(&error))
            }
            Err(error) => Err(error.clone()),
        };
        Ok(Survey { node, batches, deposits })
    }

    async fn look_at_bitcoin(&mut self) -> Result<BitcoinTip, String> {
        let tip = self.bitcoin.tip().await.map_err(|error| one_line(&error));
        let mut board = self.board();
        let status = &mut board.status.bitcoin;
        match &tip {
            Ok(tip) => {
                (status.height, status.syncing) = (Some(tip.height.to_u32()), tip.syncing);
                status.error = None;
            }
            Err(error) => {
                if status.error.as_ref() != Some(error) {
                    tracing::warn!(%error, "bitcoind gives no answer");
                }
                status.error = Some(error.clone());
            }
        }
        tip
    }

    async fn look_at_batches(
        &mut self,
        tip: &Result<BitcoinTip, String>,
        batches: Vec<Batch>,
    ) -> Vec<(Batch, Result<BitcoinFacts, String>)> {
        let mut looked = Vec::with_capacity(batches.len());
        for batch in batches {
            let facts = match tip {
                Ok(tip) => self.facts_of(tip, &batch).await,
                Err(error) => Err(error.clone()),
            };
            looked.push((batch, facts));
        }
        let newest: Vec<Txid> = looked.iter().map(|(batch, _)| batch.newest().txid).collect();
        self.facts.retain(|txid, _| newest.contains(txid));
        looked
    }

    async fn facts_of(&mut self, tip: &BitcoinTip, batch: &Batch) -> Result<BitcoinFacts, String> {
        if self.best != Some(tip.best) {
            self.facts.clear();
            self.best = Some(tip.best);
        }
        let txid = batch.newest().txid;
        if let Some(facts) = self.facts.get(&txid) {
            return Ok(facts.clone());
        }
        let facts = coins::facts(&*self.bitcoin, tip, batch).await.map_err(|error| one_line(&error))?;
        let of_tip = facts.coins.iter().flatten().all(|coin| coin.as_of == tip.best);
        if of_tip && !facts.syncing {
            self.facts.insert(txid, facts.clone());
        }
        Ok(facts)
    }

    /// Sends the newest signed version of every open batch: at once, at every new best block, and from time to time.
    /// Nothing while the peg is frozen or an alarm stands. A paused member sends: every other member has the
    /// transaction too.
    async fn send_signed(&mut self, survey: &Survey) {
        if survey.node.frozen.is_some() || self.board().status.alarm.is_some() {
            return;
        }
        let mut due = Vec::new();
        for (batch, facts) in &survey.batches {
            let settled = facts.as_ref().map_or(true, |facts| facts.confirmed.is_some());
            if settled {
                continue;
            }
            let Some(record) = self.board().newest_signed(batch.number) else { continue };
            // A version that the node does not know is of another life of the chain.
            if batch.version(&record.txid).is_none() {
                continue;
            }
            let last = self.sent.get(&record.txid);
            if last.is_none_or(|(best, at)| *best != self.best || at.elapsed() >= self.tempo.resend) {
                due.push(record);
            }
        }
        let numbers: Vec<u32> = survey.batches.iter().map(|(batch, _)| batch.number).collect();
        for record in due {
            self.sent.insert(record.txid, (self.best, Instant::now()));
            self.send(&record).await;
        }
        if numbers.is_empty() {
            self.sent.clear();
        }
    }

    async fn send(&self, record: &SignedRecord) {
        let SignedRecord { batch, txid, .. } = *record;
        let (answer, is_well) = match self.bitcoin.send(&record.transaction).await {
            Ok(Sent::InMempool) => ("in the mempool".to_owned(), true),
            Ok(Sent::InChain) => ("in a block".to_owned(), true),
            Ok(Sent::Refused(refusal)) => (show_refusal(&refusal), false),
            Err(error) => (one_line(&error), false),
        };
        let is_new = self.board().set_sent(txid, &answer);
        match (is_new, is_well) {
            (true, true) => tracing::info!(batch, %txid, %answer, "sent to Bitcoin"),
            (true, false) => tracing::warn!(batch, %txid, %answer, "Bitcoin does not take it: trying again"),
            (false, _) => tracing::debug!(batch, %txid, %answer, "sent to Bitcoin again"),
        }
    }
}

fn show_refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::MissingInputs => {
            "an input is spent or unknown: a version has confirmed, or bitcoind is behind".to_owned()
        }
        Refusal::Fee(text) => format!("the fee is too low ({text}): the chain replaces it with a higher one"),
        Refusal::Conflict(text) => format!("it conflicts with the mempool ({text}): sent again after the next block"),
        Refusal::NotFinal(text) => format!("it is not final ({text})"),
        Refusal::Script(text) => format!("its scripts are refused ({text}): please report this"),
        Refusal::Other(text) => format!("refused ({text})"),
    }
}
