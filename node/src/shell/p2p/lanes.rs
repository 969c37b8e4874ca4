//! A queue in lanes: what is urgent overtakes what is not, and nobody's flood stands before another's message.
//!
//! ```text
//! push   into the lane of the item, behind what the same source has there; a full lane drops, and only of itself
//! recv   from the most urgent lane; in a lane, the sources take turns
//! ```
//!
//! A lane that waits while `PASSED_MAX` items of others are taken has its turn then: urgent work that never ends does not
//! stop the rest, which may hold up a vote by one item.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::wire::Topic;

/// Items of other lanes that may be taken in a row while a lane waits.
const PASSED_MAX: u32 = 32;

/// The lanes, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// What is never dropped: bounded by whoever causes it.
    Kept,
    /// Votes, proposals and certificates.
    Consensus,
    /// Proposed blocks, and what fetches them.
    Bodies,
    /// Transactions and claims.
    Transactions,
    /// Requests of peers and their answers.
    Requests,
}

impl Lane {
    const ALL: [Self; 5] = [Self::Kept, Self::Consensus, Self::Bodies, Self::Transactions, Self::Requests];

    /// The lane of the gossip of a topic.
    pub(super) fn of(topic: Topic) -> Self {
        match topic {
            Topic::Consensus => Self::Consensus,
            Topic::Bodies => Self::Bodies,
            Topic::Transactions | Topic::Claims => Self::Transactions,
        }
    }
}

/// Most items that wait in each lane but the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// See [`Lane::Consensus`].
    pub consensus: usize,
    /// See [`Lane::Bodies`].
    pub bodies: usize,
    /// See [`Lane::Transactions`].
    pub transactions: usize,
    /// See [`Lane::Requests`].
    pub requests: usize,
}

impl Bounds {
    fn of(&self, lane: Lane) -> usize {
        match lane {
            Lane::Kept => usize::MAX,
            Lane::Consensus => self.consensus,
            Lane::Bodies => self.bodies,
            Lane::Transactions => self.transactions,
            Lane::Requests => self.requests,
        }
    }
}

/// What can stand in a queue with lanes.
pub trait Laned {
    /// Whose items take turns.
    type Source: Copy + Debug + Eq + Hash;

    /// Where it stands.
    fn lane(&self) -> Lane;

    /// Whose it is.
    fn source(&self) -> Self::Source;
}

/// Makes a queue.
pub fn channel<T: Laned>(bounds: Bounds) -> (Sender<T>, Receiver<T>) {
    let (bell, rings) = mpsc::channel(1);
    let lanes = Arc::new(Mutex::new(Lanes::new(bounds)));
    (Sender { lanes: Arc::clone(&lanes), bell }, Receiver { lanes, rings })
}

/// The end that items are put into. Never waits.
#[derive(Debug)]
pub struct Sender<T: Laned> {
    lanes: Arc<Mutex<Lanes<T>>>,
    /// Rung after every item, and closed when one of the ends is gone.
    bell: mpsc::Sender<()>,
}

impl<T: Laned> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { lanes: Arc::clone(&self.lanes), bell: self.bell.clone() }
    }
}

impl<T: Laned> Sender<T> {
    /// Puts an item into its lane. Returns what its lane has no room for, if it is full: this item, or the last one of the
    /// source that has more waiting there than any other.
    pub fn push(&self, item: T) -> Option<T> {
        let dropped = locked(&self.lanes).push(item);
        // A bell that has been rung already is as good, and nobody may be there to hear it.
        let _ = self.bell.try_send(());
        dropped
    }

    /// How many wait that are never dropped.
    pub fn kept(&self) -> usize {
        locked(&self.lanes).waiting(Lane::Kept)
    }

    /// Ready when nobody takes any more.
    pub async fn closed(&self) {
        self.bell.closed().await;
    }
}

/// The end that items are taken from.
#[derive(Debug)]
pub struct Receiver<T: Laned> {
    lanes: Arc<Mutex<Lanes<T>>>,
    rings: mpsc::Receiver<()>,
}

impl<T: Laned> Receiver<T> {
    /// The next item; nothing once none is left and nobody can put one in any more. Loses nothing if it is not waited for
    /// to the end.
    pub async fn recv(&mut self) -> Option<T> {
        // Whoever takes one after the other lets others of his thread have theirs.
        tokio::task::consume_budget().await;
        loop {
            if let Some(item) = self.try_recv() {
                return Some(item);
            }
            if self.rings.recv().await.is_none() {
                // Something may have come right before the end.
                return self.try_recv();
            }
        }
    }

    /// The next item, if one is there.
    pub fn try_recv(&mut self) -> Option<T> {
        locked(&self.lanes).pop()
    }

    /// Whether something waits that is at least as urgent as proposed blocks.
    pub fn has_urgent(&self) -> bool {
        let lanes = locked(&self.lanes);
        [Lane::Kept, Lane::Consensus, Lane::Bodies].into_iter().any(|lane| lanes.waiting(lane) > 0)
    }

    /// How many wait in a lane.
    #[cfg(test)]
    pub(super) fn waiting(&self, lane: Lane) -> usize {
        locked(&self.lanes).waiting(lane)
    }
}

fn locked<T: Laned>(lanes: &Mutex<Lanes<T>>) -> MutexGuard<'_, Lanes<T>> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What waits.
#[derive(Debug)]
struct Lanes<T: Laned> {
    bounds: Bounds,
    /// By [`Lane::ALL`].
    queues: [Turns<T::Source, T>; 5],
    /// Items taken from other lanes since each has had a turn, or was empty.
    passed: [u32; 5],
}

impl<T: Laned> Lanes<T> {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, queues: Default::default(), passed: [0; 5] }
    }

    fn waiting(&self, lane: Lane) -> usize {
        self.queues[lane as usize].len
    }

    fn push(&mut self, item: T) -> Option<T> {
        let (lane, source) = (item.lane(), item.source());
        self.queues[lane as usize].push(source, item, self.bounds.of(lane))
    }

    fn pop(&mut self) -> Option<T> {
        let waits = |lane: &usize| self.queues[*lane].len > 0;
        let mut lanes = (0..Lane::ALL.len()).filter(waits);
        let first = lanes.next()?;
        let lane = lanes.find(|lane| self.passed[*lane] >= PASSED_MAX).unwrap_or(first);
        for (other, queue) in self.queues.iter().enumerate() {
            self.passed[other] = if other == lane || queue.len == 0 { 0 } else { self.passed[other] + 1 };
        }
        self.queues[lane].pop()
    }
}

/// One lane: what each source has waiting, in its order, and whose turn it is.
#[derive(Debug)]
struct Turns<S, T> {
    /// Each with something.
    waiting: HashMap<S, VecDeque<T>>,
    /// The same sources, by turns.
    next: VecDeque<S>,
    len: usize,
}

impl<S, T> Default for Turns<S, T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), next: VecDeque::new(), len: 0 }
    }
}

impl<S: Copy + Eq + Hash, T> Turns<S, T> {
    fn push(&mut self, source: S, item: T, max: usize) -> Option<T> {
        let mut dropped = None;
        if self.len >= max {
            let own = self.waiting.get(&source).map_or(0, VecDeque::len);
            let longest = self.next.iter().copied().max_by_key(|other| self.waiting[other].len());
            match longest.filter(|other| self.waiting[other].len() > own + 1) {
                Some(other) => dropped = self.drop_last(other),
                None => return Some(item),
            }
        }
        let queue = self.waiting.entry(source).or_default();
        if queue.is_empty() {
            self.next.push_back(source);
        }
        queue.push_back(item);
        self.len += 1;
        dropped
    }

    /// Drops the last item of a source that has several.
    fn drop_last(&mut self, source: S) -> Option<T> {
        let dropped = self.waiting.get_mut(&source)?.pop_back();
        self.len -= 1;
        dropped
    }

    fn pop(&mut self) -> Option<T> {
        let source = self.next.pop_front()?;
        let queue = self.waiting.get_mut(&source)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&source);
        } else {
            self.next.push_back(source);
        }
        self.len -= 1;
        item
    }
}

#[cfg(test)]
mod tests;
