//! One stream: what it sends, and why it ends.

use std::sync::Arc;

use bytes::Bytes;
use causeway_chainspec::Height;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::blocks::Scope;
use super::frame::{self, LastJson, ScriptJson};
use super::line::{Item, Told};
use super::position::Position;
use super::query::Topic;
use crate::rest::App;
use crate::rest::answer::Refusal;
use crate::rest::live::Live;

/// Why a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client has gone.
    Gone,
    /// It does not read as fast as things happen.
    TooSlow,
    /// The server stops.
    Stopping,
    /// This node has lost the thread, or cannot read its disk.
    Interrupted,
}

impl End {
    /// The last event; None if nobody would read it.
    pub(super) fn words(self) -> Option<String> {
        let (code, message, hint) = match self {
            Self::Gone => return None,
            Self::TooSlow => (
                "too_slow",
                "too slow: more happened than this client has read",
                "connect again with the last event id; ask for fewer topics if it happens again",
            ),
            Self::Stopping => {
                ("stopping", "the node is stopping", "connect again with the last event id, or to another node")
            }
            Self::Interrupted => {
                ("interrupted", "the node cannot go on with this stream", "connect again with the last event id")
            }
        };
        Some(frame::last(&LastJson { code, message, hint }))
    }
}

/// What makes a stream.
pub(super) struct Feed<L> {
    pub(super) app: Arc<App<L>>,
    pub(super) wanted: Arc<Scope>,
    pub(super) told: broadcast::Receiver<Told>,
    /// The last block that was told.
    pub(super) known: Height,
    /// What the client has.
    pub(super) at: Position,
    pub(super) out: mpsc::Sender<Bytes>,
    /// When the client was sent something last.
    pub(super) sent: Instant,
    pub(super) stop: watch::Receiver<bool>,
}

impl<L: Live> Feed<L> {
    /// Sends `first`, and then events until there is a reason to end.
    pub(super) async fn run(mut self, first: String) -> End {
        match self.go_on(first).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn go_on(&mut self, first: String) -> Result<std::convert::Infallible, End> {
        self.send(first).await?;
        let (out, stop) = (self.out.clone(), self.stop.clone());
        loop {
            while let Some(height) = self.at.next_block().filter(|height| *height <= self.known) {
                tokio::select! {
                    biased;
                    () = out.closed() => return Err(End::Gone),
                    () = stopped(stop.clone()) => return Err(End::Stopping),
                    told = self.block(height) => told?,
                }
                // A client for whom many blocks hold nothing goes on from here if it loses the stream.
                if Instant::now() >= self.silent_until() {
                    self.send(frame::heartbeat(&self.at)).await?;
                }
            }
            let silent_until = self.silent_until();
            let told = tokio::select! {
                told = self.told.recv() => told,
                () = stopped(stop.clone()) => return Err(End::Stopping),
                () = out.closed() => return Err(End::Gone),
                () = sleep_until(silent_until) => {
                    self.send(frame::heartbeat(&self.at)).await?;
                    continue;
                }
            };
            match told {
                Ok(Told::Block(height)) => self.known = self.known.max(height),
                Ok(Told::Now(items)) => {
                    let events = self.events(&items);
                    self.send(events).await?;
                }
                // Blocks are told again; what else happened is not.
                Err(RecvError::Lagged(_)) if self.wants_blocks_only() => {
                    self.known = self.known.max(self.app.chain.store_tip().height());
                }
                Err(RecvError::Lagged(_)) => return Err(End::TooSlow),
                Err(RecvError::Closed) if *self.stop.borrow() => return Err(End::Stopping),
                Err(RecvError::Closed) => return Err(End::Interrupted),
            }
        }
    }

    /// Sends what a final block has for this client, after what it has already.
    async fn block(&mut self, height: Height) -> Result<(), End> {
        let mut next = Some(self.at.next_in(height));
        while let Some(first) = next {
            let page = self.app.page(height, &self.wanted, first).await.map_err(interrupted)?;
            for part in page.parts {
                self.send(part).await?;
            }
            next = page.next;
        }
        self.at = Position::whole(height);
        Ok(())
    }

    /// When a sign of life is due.
    fn silent_until(&self) -> Instant {
        self.sent + self.app.times.events.heartbeat
    }

    /// Whether nothing is for this client but what has its place in the chain.
    fn wants_blocks_only(&self) -> bool {
        self.wanted.topics.iter().all(|topic| *topic == Topic::Block)
    }

    /// What happened at this node, as far as it is for this client. It has the id of the last event before it, so that who
    /// goes on from there misses nothing of the chain.
    fn events(&self, items: &[Item]) -> String {
        let mut events = String::new();
        for item in items {
            if self.wanted.topics.contains(&item.topic) {
                frame::push(&mut events, item.topic, &self.at, &item.json);
            }
            let Some((txid, standing, touched)) = &item.touches else { continue };
            let scripthashes: Vec<&str> =
                touched.iter().filter_map(|id| self.wanted.scripts.get(id)).map(String::as_str).collect();
            if !scripthashes.is_empty() {
                let json = frame::json(&ScriptJson { txid: *txid, scripthashes: &scripthashes, standing });
                frame::push(&mut events, Topic::Script, &self.at, &json);
            }
        }
        events
    }

    /// Waits while the client reads, but not for ever.
    async fn send(&mut self, bytes: impl Into<Bytes>) -> Result<(), End> {
        let bytes = bytes.into();
        if self.out.is_closed() {
            return Err(End::Gone);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        tokio::select! {
            biased;
            sent = timeout(self.app.times.events.stall, self.out.send(bytes)) => match sent {
                Ok(sent) => sent.map_err(|_| End::Gone)?,
                Err(_) => return Err(End::TooSlow),
            },
            () = stopped(self.stop.clone()) => return Err(End::Stopping),
        }
        self.sent = Instant::now();
        Ok(())
    }
}

/// Waits for the end of the server.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // If nobody can say so any more, it has ended.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// The log says what is our own failure.
fn interrupted(refusal: Refusal) -> End {
    if let Refusal::Stopped(_) = refusal {
        return End::Stopping;
    }
    drop(refusal.into_answer("/v1/events"));
    End::Interrupted
}
