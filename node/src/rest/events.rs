//! `GET /v1/events`: what happens, as it happens, by server-sent events.
//!
//! ```text
//! query       topics, scripts, last event id -> Wanted
//! position    ids: how far a stream has come
//! line        the running node's news -> all streams: which block is next, what happens meanwhile
//! blocks      a final block -> its events, once for all streams; peg what it says about deposits and requests
//! feed        one stream: the blocks after what the client has, then what the line tells
//! frame       the words on the wire
//! ```
//!
//! | event     | what is told                                                                                              |
//! |-----------|-----------------------------------------------------------------------------------------------------------|
//! | `block`   | a block is final; everything else of it was told before                                                    |
//! | `tx`      | a transaction is in this node's mempool, has left it without being final, or is final                      |
//! | `script`  | the same, of transactions that touch scripts that were asked for                                           |
//! | `peg-in`  | a deposit is claimed here, or credited                                                                     |
//! | `peg-out` | a request is made, batched (again with each version), paid (in a block of Bitcoin), or confirmed (deep)    |
//! | `reset`   | the client has missed more than 1,000 blocks: it asks REST, and the stream goes on at the height told      |
//! | `error`   | the last event: why the stream ends, and what to do                                                        |
//!
//! What follows from final blocks has its place in one sequence that is the same on every node and at every time: whoever
//! comes back with the id of the last event that he has gets exactly what comes after it. An id that is a height alone
//! stands for all of that block, so whoever has asked REST about all up to a height goes on from there. What has no place in
//! the chain (mempool, claims, payments that are not deep) carries the id of the event before it and is never told again.
//!
//! Bounds: streams and scripts, each and in all; a client holds up nobody else and costs a few parts of 64 KiB: near the tip
//! it reads what all read, and deeper it takes its turn. One that falls behind is told so and let go.

mod blocks;
mod feed;
mod frame;
mod line;
mod peg;
mod position;
mod query;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causeway_chainspec::Height;
use futures::Stream;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::App;
use super::answer::{Answer, Refusal};
use super::live::Live;

pub(super) use query::{EventsRefusal, Wanted};

use blocks::Scope;
use feed::Feed;
use frame::ResetJson;
use position::Position;

/// Parts of a stream that wait for its client to read, each of some 64 KiB at most.
const PARTS: usize = 4;

/// How much, how many, how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Streams at once.
    pub(super) streams: usize,
    /// Scripts of all streams together. Each costs a look-up with each block.
    pub(super) scripts: usize,
    /// Blocks that are told again to a client that comes back.
    pub(super) replay: u32,
    /// Things told that a client may leave waiting: at 50 a second, which is the most, for ten seconds.
    pub(super) waiting: usize,
    /// Silence after which there is a sign of life.
    pub(super) heartbeat: Duration,
    /// How long a client may read nothing while there is something to read.
    pub(super) stall: Duration,
    /// The least time between two things told, unless the later is a block.
    pub(super) gather: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 256,
            scripts: 10_000,
            replay: 1_000,
            waiting: 512,
            heartbeat: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            gather: Duration::from_millis(20),
        }
    }
}

/// What the streams share.
pub(super) struct Hub {
    streams: Arc<Semaphore>,
    scripts: Arc<Semaphore>,
    /// While somebody listens.
    line: Mutex<Option<line::Line>>,
    kept: blocks::Kept,
}

impl Hub {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            streams: Arc::new(Semaphore::new(limits.streams)),
            scripts: Arc::new(Semaphore::new(limits.scripts)),
            line: Mutex::new(None),
            kept: blocks::Kept::default(),
        }
    }
}

/// `GET /v1/events`.
pub(super) async fn events<L: Live>(app: &Arc<App<L>>, wanted: Wanted) -> Result<Answer, Refusal> {
    Ok(Answer::events(open(app, wanted).await?))
}

/// Opens a stream.
pub(super) async fn open<L: Live>(
    app: &Arc<App<L>>,
    wanted: Wanted,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + Sync + use<L>, Refusal> {
    let limits = app.times.events;
    let scripts = query::scripts_of(&wanted.scripts, app.chain.network())?;
    if !scripts.is_empty() && !app.chain.store.has_index() {
        return Err(Refusal::NoIndex);
    }
    let place = Arc::clone(&app.events.streams).try_acquire_owned();
    let place = place.map_err(|_| EventsRefusal::Full { max: limits.streams })?;
    let count = u32::try_from(scripts.len()).unwrap_or(u32::MAX);
    let followed = Arc::clone(&app.events.scripts).try_acquire_many_owned(count);
    let followed = followed.map_err(|_| EventsRefusal::FullOfScripts { max: limits.scripts })?;
    let (told, known) = app.listen().await?;
    let (at, first) = begin(wanted.after, known, limits.replay)?;
    let (out, mut parts) = mpsc::channel(PARTS);
    let (last, mut last_words) = oneshot::channel();
    let stop = app.stop.clone();
    // Held as long as the client is connected, and as long as anything is done for it.
    let held = Arc::new((place, followed, app.meter.stream()));
    let wanted = Arc::new(Scope { topics: wanted.topics, scripts });
    let feed = Feed { app: Arc::clone(app), wanted, told, known, at, out: out.clone(), sent: Instant::now(), stop };
    let held_by_feed = Arc::clone(&held);
    tokio::spawn(async move {
        let _held = held_by_feed;
        let end = feed.run(first).await;
        tracing::debug!(?end, "a stream of events has ended");
        if let Some(words) = end.words() {
            // Nobody hears them if the client has gone.
            let _ = last.send(Bytes::from(words));
        }
        // The parts end after the words are there.
        drop(out);
    });
    let mut held = Some(held);
    Ok(futures::stream::poll_fn(move |context| {
        parts.poll_recv(context).map(|part| {
            let part = part.or_else(|| last_words.try_recv().ok());
            if part.is_none() {
                held = None;
            }
            part.map(Ok)
        })
    }))
}

/// Where a stream begins, and its first words.
fn begin(after: Option<Position>, known: Height, replay: u32) -> Result<(Position, String), EventsRefusal> {
    let Some(after) = after else {
        let at = Position::whole(known);
        return Ok((at, frame::hello(&at)));
    };
    // A node that is a little behind another one waits for what comes after the id.
    if after.height.blocks_since(known).is_some_and(|ahead| ahead > replay) {
        return Err(EventsRefusal::Ahead { id: after.height, tip: known });
    }
    if known.blocks_since(after.height).is_none_or(|missed| missed <= replay) {
        return Ok((after, frame::hello(&after)));
    }
    let at = Position::whole(known);
    let message = "too many blocks were missed: ask REST for all up to this height, the stream goes on after it";
    let reset = ResetJson { after: after.to_string(), height: known.to_u32(), message };
    Ok((at, frame::hello(&after) + &frame::reset(&at, &reset)))
}
