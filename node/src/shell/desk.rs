//! The desk: what a node makes of its own Bitcoin node.
//!
//! It tells the watcher what to look for (the peg's coins, the versions of open batches, the deposit addresses handed out
//! here), turns what is seen into proofs, and hands them to the node: as an offer for its next block, and as claims. It also
//! answers what the node asks before it votes (PEG section 7).

mod book;
mod proofs;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use bitcoin::{Amount, BlockHash, OutPoint, Script, ScriptBuf, Txid};
use causeway_chainspec::{BitcoinHeight, ChainSpec};
use causeway_consensus::peg::PegState;
use causeway_consensus::peg::batch::Batch;
use causeway_consensus::peg::evidence::PegIn;
use causeway_consensus::peg::proof::InclusionProof;
use causeway_consensus::peg::propose::HEADERS_MAX;
use causeway_consensus::peg::script::DepositTerms;
use causeway_federation::bitcoind::{Bitcoind, BitcoindError};
use causeway_federation::watcher::{
    BitcoinView, FileError, Place, State, Watch, WatchError, Watcher, WatcherConfig, WatcherHandle,
};

use super::handle::{Handle, Stopped};
use super::reports::log_error;
use super::run::AskBitcoin;
use crate::machine::claims::ClaimRefusal;
use crate::machine::peg::{BitcoinAnswer, BitcoinOffer, BitcoinQuestion};
use crate::rest::peg::{BitcoinSource, SourceStanding};
use book::Book;
use proofs::Proofs;

pub use book::BookError;

/// How often the chain is looked at, if Bitcoin does not move.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a question may take.
const ASK_MAX: Duration = Duration::from_secs(5);

/// Headers of which it is remembered when they were first seen.
const SEEN_MAX: usize = 1_000;

/// What a desk needs besides its Bitcoin node.
#[derive(Clone, Debug)]
pub struct DeskConfig {
    /// Where the watcher keeps its state.
    pub watcher: PathBuf,
    /// Where the deposit addresses handed out here are kept.
    pub book: PathBuf,
    /// How often Bitcoin is asked for its best block.
    pub poll: Duration,
    /// How long after it was first seen a header is proposed: the others shall have it by then (PEG section 7).
    pub header_delay: Duration,
}

/// Why a desk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The watcher's file.
    #[error(transparent)]
    Watcher(#[from] FileError),
    /// The book of deposit addresses.
    #[error(transparent)]
    Book(#[from] BookError),
}

/// Why no deposit address is handed out.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The Bitcoin node cannot be relied on.
    #[error("the Bitcoin node cannot be relied on: {0}")]
    NotFollowing(String),
    /// There is no room for more, or the book cannot be written.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The watcher refuses.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// The desk, for those who ask it. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    watcher: WatcherHandle,
    book: Arc<Mutex<Book>>,
}

/// The desk's own task. See [`Clerk::run`].
pub struct Clerk {
    desk: Desk,
    /// The watcher's task.
    task: Watcher,
    header_delay: Duration,
    floor: BitcoinHeight,
}

impl Desk {
    /// Opens the desk of a node whose Bitcoin node this is.
    ///
    /// # Errors
    /// A file is there and cannot be read.
    pub fn open(client: Bitcoind, spec: &ChainSpec, config: DeskConfig) -> Result<(Self, Clerk), DeskError> {
        let DeskConfig { watcher, book, poll, header_delay } = config;
        let mut watching = WatcherConfig::new(spec, watcher);
        watching.poll = poll;
        let (task, watcher) = Watcher::open(client, watching)?;
        let desk = Self { watcher, book: Arc::new(Mutex::new(Book::open(&book)?)) };
        let clerk = Clerk { desk: desk.clone(), task, header_delay, floor: spec.bitcoin().height() };
        Ok((desk, clerk))
    }

    /// What is known of Bitcoin at this moment.
    pub fn view(&self) -> BitcoinView {
        self.watcher.view()
    }

    /// The client of the Bitcoin node.
    pub fn client(&self) -> &Bitcoind {
        self.watcher.client()
    }

    /// Writes down a deposit address, of which `script` is the script, and looks for what is paid to it from here on.
    ///
    /// # Errors
    /// See [`RegisterError`]. Then the address must not be shown to anybody.
    pub async fn register(&self, script: ScriptBuf, terms: DepositTerms) -> Result<(), RegisterError> {
        let view = self.view();
        if !relies_on(&view.state) {
            return Err(RegisterError::NotFollowing(describe(&view.state)));
        }
        // A block may have come while the address was on its way to somebody.
        let from = BitcoinHeight(view.tip.0.0.saturating_sub(2));
        let (book, entry) = (Arc::clone(&self.book), (script.clone(), terms, from));
        let written = tokio::task::spawn_blocking(move || {
            let (script, terms, from) = entry;
            lock(&book).add(script, terms, from)
        });
        written.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        Ok(self.watcher.watch(vec![(Watch::Script(script), from)]).await?)
    }

    /// The terms of a deposit address that was handed out here.
    pub fn terms(&self, script: &ScriptBuf) -> Option<DepositTerms> {
        lock(&self.book).get(script).map(|(terms, _)| terms.clone())
    }
}

#[async_trait::async_trait]
impl AskBitcoin for Desk {
    async fn ask(&self, question: BitcoinQuestion) -> BitcoinAnswer {
        match tokio::time::timeout(ASK_MAX, self.answer(question)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(%error, "Bitcoin was asked about a block");
                BitcoinAnswer::Absent
            }
            Err(_) => BitcoinAnswer::Absent,
        }
    }
}

#[async_trait::async_trait]
impl BitcoinSource for Desk {
    fn standing(&self) -> SourceStanding {
        let view = self.view();
        SourceStanding { reliable: relies_on(&view.state), words: describe(&view.state), tip: view.tip }
    }

    async fn register(&self, script: ScriptBuf, terms: DepositTerms) -> Result<(), String> {
        Desk::register(self, script, terms).await.map_err(|error| error.to_string())
    }

    fn deposit(&self, outpoint: &OutPoint) -> Option<(BitcoinHeight, Amount)> {
        let view = self.view();
        view.facts.deposits().get(outpoint).map(|deposit| (deposit.place.height, deposit.value))
    }

    fn deposits_to(&self, script: &Script) -> Vec<(OutPoint, BitcoinHeight, Amount)> {
        if lock(&self.book).get(script).is_none() {
            return Vec::new();
        }
        let view = self.view();
        let to_it = view.facts.deposits().iter().filter(|(_, deposit)| *deposit.script_pubkey == *script);
        to_it.map(|(outpoint, deposit)| (*outpoint, deposit.place.height, deposit.value)).collect()
    }

    fn confirmed(&self, txid: &Txid) -> Option<BitcoinHeight> {
        self.view().facts.confirmed().get(txid).map(|place| place.height)
    }

    async fn prove(&self, block: BlockHash, txid: Txid) -> Result<Option<InclusionProof>, String> {
        let words = |error: BitcoindError| error.to_string();
        let places = self.client().header_places(&[block]).await.map_err(words)?;
        let Some(place) = places.first().copied().flatten() else {
            return Err("it does not know this block".to_owned());
        };
        let full = self.client().block(block).await.map_err(words)?;
        let index = full.block().txdata.iter().position(|transaction| transaction.compute_txid() == txid);
        Ok(index.and_then(|index| InclusionProof::of_block(full.block(), place.height, index)))
    }
}

impl Desk {
    async fn answer(&self, question: BitcoinQuestion) -> Result<BitcoinAnswer, BitcoindError> {
        let view = self.view();
        if !relies_on(&view.state) {
            return Ok(BitcoinAnswer::Absent);
        }
        let outside = |hash: &&BlockHash| view.headers.height_of(hash).is_none();
        let others: Vec<BlockHash> = question.headers.iter().filter(outside).copied().collect();
        if !others.is_empty() {
            let standings = self.client().standings(&others).await?;
            let unknown = others.iter().zip(standings).find(|(_, standing)| !standing.is_known());
            if let Some((hash, _)) = unknown {
                return Ok(BitcoinAnswer::UnknownHeader(*hash));
            }
        }
        for outpoint in question.deposits {
            if self.client().coin(outpoint).await?.is_none() {
                return Ok(BitcoinAnswer::SpentDeposit(outpoint));
            }
        }
        Ok(BitcoinAnswer::Agrees)
    }
}

impl Clerk {
    /// Works until the node stops. Trouble with Bitcoin is logged and tried again.
    pub async fn run(self, node: Handle) {
        let Self { desk, task, header_delay, floor } = self;
        let watching = tokio::spawn(task.run());
        let mut round = Round {
            desk,
            header_delay,
            floor,
            watched: HashMap::new(),
            seen: HashMap::new(),
            proofs: Proofs::default(),
            claimed: HashSet::new(),
            last: None,
            trouble: None,
        };
        round.watch_book().await;
        let mut views = round.desk.watcher.subscribe();
        loop {
            tokio::select! {
                changed = views.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if round.look(&node).await.is_err() {
                break;
            }
        }
        watching.abort();
    }
}

/// What the clerk remembers from one look to the next.
struct Round {
    desk: Desk,
    header_delay: Duration,
    /// The chainspec's starting height.
    floor: BitcoinHeight,
    /// What the watcher looks for because of the peg's state.
    watched: HashMap<Watch, BitcoinHeight>,
    /// When headers near the tip were first seen.
    seen: HashMap<BlockHash, Instant>,
    proofs: Proofs,
    /// Deposits that were handed to the node.
    claimed: HashSet<OutPoint>,
    /// What the last look saw: Bitcoin's tip as offered, and the peg.
    last: Option<(BlockHash, [u8; 32], bool)>,
    /// The last trouble, so that it is logged once.
    trouble: Option<String>,
}

impl Round {
    /// Asks the watcher for every address of the book: its file is a cache.
    async fn watch_book(&mut self) {
        let watches = lock(&self.desk.book).scripts();
        if let Err(error) = self.desk.watcher.watch(watches).await {
            log_error("deposit addresses are not watched", &error);
        }
    }

    async fn look(&mut self, node: &Handle) -> Result<(), Stopped> {
        let peg = node.look(|node| node.tip().peg().clone()).await?;
        let view = self.desk.view();
        if !relies_on(&view.state) {
            self.complain(describe(&view.state));
            self.last = None;
            return node.bitcoin(None).await;
        }
        let Some(tip) = self.ripe_tip(&view) else { return Ok(()) };
        let stamp = (tip.1, peg.digest(), view.rescan_next.is_some());
        if self.last == Some(stamp) {
            return Ok(());
        }
        match self.work(node, &view, &peg, tip.0).await? {
            Ok(()) => {
                self.last = Some(stamp);
                self.trouble = None;
            }
            Err(trouble) => self.complain(trouble),
        }
        Ok(())
    }

    async fn work(
        &mut self,
        node: &Handle,
        view: &BitcoinView,
        peg: &PegState,
        tip: BitcoinHeight,
    ) -> Result<Result<(), String>, Stopped> {
        if let Err(error) = self.watch(peg).await {
            return Ok(Err(error.to_string()));
        }
        match self.offer(view, peg, tip).await {
            Ok(offer) => node.bitcoin(Some(Arc::new(offer))).await?,
            Err(error) => return Ok(Err(error.to_string())),
        }
        let deposits = match self.deposits(view, peg).await {
            Ok(deposits) => deposits,
            Err(error) => return Ok(Err(error.to_string())),
        };
        for peg_in in deposits {
            let outpoint = peg_in.outpoint();
            match node.claim(peg_in).await? {
                Ok(_) => {
                    self.claimed.insert(outpoint);
                }
                // The chain knows its block soon.
                Err(ClaimRefusal::NotYet(_) | ClaimRefusal::Full) => {}
                Err(refusal @ ClaimRefusal::Invalid(_)) => {
                    self.claimed.insert(outpoint);
                    log_error(&format!("deposit {outpoint} is not credited"), &refusal);
                }
            }
        }
        Ok(Ok(()))
    }

    /// The highest header that may be proposed by now.
    fn ripe_tip(&mut self, view: &BitcoinView) -> Option<(BitcoinHeight, BlockHash)> {
        let now = Instant::now();
        let first_look = self.seen.is_empty();
        let lowest = BitcoinHeight(view.tip.0.0.saturating_sub(100));
        let recent: Vec<_> =
            view.headers.from(lowest).filter_map(|(height, _)| Some((height, view.headers.hash(height)?))).collect();
        for (_, hash) in &recent {
            // What is there when the node starts has been there for a while.
            let since = if first_look { now.checked_sub(self.header_delay).unwrap_or(now) } else { now };
            self.seen.entry(*hash).or_insert(since);
        }
        if self.seen.len() > SEEN_MAX {
            let kept: HashSet<_> = recent.iter().map(|(_, hash)| *hash).collect();
            self.seen.retain(|hash, _| kept.contains(hash));
        }
        let ripe =
            |hash: &BlockHash| self.seen.get(hash).is_some_and(|seen| now.duration_since(*seen) >= self.header_delay);
        recent.into_iter().rev().find(|(_, hash)| ripe(hash))
    }

    /// Has the watcher look for the peg's coins and the versions of open batches, and for nothing that is over.
    async fn watch(&mut self, peg: &PegState) -> Result<(), WatchError> {
        let coins = peg.coins().map(|coin| (Watch::Outpoint(coin.outpoint), coin.place.height));
        let versions = peg.open_batches().flat_map(|batch| &batch.versions);
        let versions = versions.map(|version| (Watch::Txid(version.txid), version.fixed_at));
        let wanted: HashMap<Watch, BitcoinHeight> = coins.chain(versions).collect();
        let new: Vec<_> = wanted.iter().filter(|(watch, _)| !self.watched.contains_key(watch)).collect();
        let new: Vec<_> = new.into_iter().map(|(watch, from)| (watch.clone(), *from)).collect();
        let gone: Vec<_> = self.watched.keys().filter(|watch| !wanted.contains_key(watch)).cloned().collect();
        if !new.is_empty() {
            self.desk.watcher.watch(new).await?;
        }
        if !gone.is_empty() {
            self.desk.watcher.unwatch(gone).await?;
        }
        self.watched = wanted;
        Ok(())
    }

    async fn offer(
        &mut self,
        view: &BitcoinView,
        peg: &PegState,
        tip: BitcoinHeight,
    ) -> Result<BitcoinOffer, BitcoindError> {
        let (first, headers) = self.headers(view, peg, tip).await?;
        let mut confirmed = Vec::new();
        let mut spent = Vec::new();
        let versions = peg.open_batches().flat_map(|batch| &batch.versions);
        for (txid, place) in
            versions.filter_map(|version| Some((version.txid, view.facts.confirmed().get(&version.txid)?)))
        {
            if is_deep(peg, place)
                && let Some(proof) = self.proofs.get(self.desk.client(), txid, *place).await?
            {
                confirmed.push(proof);
            }
        }
        let is_version = |txid| peg.open_batches().any(|batch| batch.version(txid).is_some());
        for coin in peg.coins() {
            let Some(spend) = view.facts.spends().get(&coin.outpoint) else { continue };
            if !is_version(&spend.by)
                && is_deep(peg, &spend.place)
                && let Some(proof) = self.proofs.get(self.desk.client(), spend.by, spend.place).await?
            {
                spent.push(proof);
            }
        }
        let seen =
            |batch: &&Batch| batch.versions.iter().any(|version| view.facts.confirmed().contains_key(&version.txid));
        let in_block = peg.open_batches().filter(seen).map(|batch| batch.number).collect();
        Ok(BitcoinOffer { first, headers, confirmed, spent, in_block, fee_rate: view.feerate })
    }

    /// The end of the best chain up to `tip`, from below every fork that the chain may follow.
    async fn headers(
        &self,
        view: &BitcoinView,
        peg: &PegState,
        tip: BitcoinHeight,
    ) -> Result<(BitcoinHeight, Arc<[Header]>), BitcoindError> {
        let tree = peg.headers();
        let first = tree.highest().0.saturating_sub(peg.network().params().fork_depth).max(self.floor.0);
        let reach =
            tree.tip().height.0.saturating_add(u32::try_from(HEADERS_MAX).unwrap_or(u32::MAX)).saturating_add(100);
        let last = BitcoinHeight(tip.0.min(reach));
        let first = BitcoinHeight(first);
        if view.headers.bottom().0 <= first {
            let headers = view.headers.from(first).take_while(|(height, _)| *height <= last).map(|(_, header)| *header);
            return Ok((first, headers.collect()));
        }
        // The chain is further behind than the watcher remembers.
        let heights: Vec<_> = (first.0..=last.0).map(BitcoinHeight).collect();
        let mut headers = Vec::new();
        for heights in heights.chunks(causeway_federation::bitcoind::BATCH_MAX) {
            let hashes = self.desk.client().block_hashes(heights).await?;
            headers.extend(self.desk.client().headers(&hashes).await?);
        }
        Ok((first, headers.into()))
    }

    /// The deposits to addresses of the book that are deep and not credited.
    async fn deposits(&mut self, view: &BitcoinView, peg: &PegState) -> Result<Vec<PegIn>, BitcoindError> {
        let window = u32::from(peg.network().current().epoch().timelocks().claim_window);
        let tip = peg.headers().tip().height;
        let mut found = Vec::new();
        for (outpoint, deposit) in view.facts.deposits() {
            let open = !self.claimed.contains(outpoint)
                && !peg.is_credited(outpoint)
                && !view.facts.spends().contains_key(outpoint)
                && tip.blocks_since(deposit.place.height).is_some_and(|age| age <= window)
                && is_deep(peg, &deposit.place);
            let Some(terms) = self.desk.terms(&deposit.script_pubkey).filter(|_| open) else { continue };
            if let Some(proof) = self.proofs.get(self.desk.client(), outpoint.txid, deposit.place).await? {
                found.push(PegIn { terms, vout: outpoint.vout, proof });
            }
        }
        Ok(found)
    }

    fn complain(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(trouble, "the Bitcoin node");
            self.trouble = Some(trouble);
        }
    }
}

/// Whether the chain holds a block of Bitcoin deep enough for what it proves.
fn is_deep(peg: &PegState, place: &Place) -> bool {
    let tree = peg.headers();
    tree.best_hash(place.height) == Some(place.block)
        && place.height.confirmations(tree.tip().height) >= peg.network().params().final_depth
}

/// Whether a view's tip is Bitcoin's.
pub fn relies_on(state: &State) -> bool {
    matches!(state, State::Following | State::Rescanning { .. })
}

/// What is wrong, in a few words.
pub fn describe(state: &State) -> String {
    match state {
        State::Starting => "it was not asked yet".to_owned(),
        State::Following => "it is followed".to_owned(),
        State::Syncing { at, of } => format!("block {at} of {of} is done"),
        State::Rescanning { next, of } => format!("block {next} of {of} is looked through again"),
        State::Behind { at } => format!("it has fallen back to block {at}"),
        State::Unavailable { error, .. } | State::Pruned { error, .. } | State::Distrusted { error } => {
            error.to_string()
        }
        State::Stuck { error } => error.to_string(),
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
