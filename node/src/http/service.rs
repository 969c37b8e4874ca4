//! From one request to one answer.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::Request;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::Service;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::header::{CONNECTION, HeaderValue};
use warp::http::{Response as Message, StatusCode};
use warp::reply::Response;

use super::encoding::{self, Coding};
use super::hosts::{Seat, Shares};
use super::line::Line;
use super::refusal::Refusal;
use super::{REQUESTS_PER_CONNECTION, Shared};

/// Answers of up to this many bytes take no part of the memory for large ones.
const SMALL_ANSWER: u64 = 64 << 10;

/// What answers the requests of one connection.
pub(super) struct Answerer<S> {
    shared: Arc<Shared<S>>,
    shares: Shares,
    line: Arc<Line>,
    asked: AtomicU64,
}

impl<S> Answerer<S> {
    pub(super) fn new(shared: Arc<Shared<S>>, seat: &Seat, line: Arc<Line>) -> Self {
        Self { shared, shares: seat.shares.clone(), line, asked: AtomicU64::new(0) }
    }
}

impl<S> Service<Request<Incoming>> for Answerer<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    type Response = Message<Answer<BodyOf<Response>>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.line.asked(!request.body().is_end_stream());
        let mut under_way = UnderWay { line: Arc::clone(&self.line), held: Held::default() };
        let is_last = self.asked.fetch_add(1, Ordering::Relaxed) + 1 >= REQUESTS_PER_CONNECTION;
        let (shared, shares) = (Arc::clone(&self.shared), self.shares.clone());
        async move {
            let Ok(turn) = Arc::clone(&shares.requests).try_acquire_owned() else {
                let response = shared.host.refuse(Refusal::Requests, request.uri().path());
                return Ok(close(response, is_last).map(|body| Answer { body, _under_way: under_way }));
            };
            let path = request.uri().path().to_owned();
            let response = match answer(&shared, &shares, request).await {
                Ok((response, memory)) => {
                    under_way.held.memory = memory;
                    response
                }
                Err(refusal) => shared.host.refuse(refusal, &path),
            };
            // A stream may go on for ever, and has limits of its own.
            under_way.held.turn = response.body().size_hint().exact().map(|_| turn);
            Ok(close(response, is_last).map(|body| Answer { body, _under_way: under_way }))
        }
        .boxed()
    }
}

/// Returns the filter's answer, and the memory that it holds.
async fn answer<S>(
    shared: &Shared<S>,
    shares: &Shares,
    request: Request<Incoming>,
) -> Result<(Response, Option<Memory>), Refusal>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    if request.body().size_hint().lower() > shared.limits.body_bytes {
        return Err(Refusal::BodyTooLarge);
    }
    let coding = Coding::wanted(request.headers());
    let path = request.uri().path().to_owned();
    let made = AssertUnwindSafe(async { shared.service.call(request).await }).catch_unwind().await;
    let response = made.map(|Ok(response)| response).map_err(|_| {
        tracing::error!(path, "an answer panicked: this is a bug, please report it");
        Refusal::Failed
    })?;
    let response = encoding::encode(response, coding, &shared.encoders).await?;
    let memory = match response.body().size_hint().exact() {
        Some(bytes) if bytes > SMALL_ANSWER => {
            let kib = u32::try_from(bytes >> 10).map_err(|_| Refusal::Answers)?;
            let take = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(kib).map_err(|_| Refusal::Answers);
            Some((take(&shares.answers)?, take(&shared.answers)?))
        }
        _ => None,
    };
    Ok((response, memory))
}

/// Tells the client that this is the last answer, if it is: when it has sent too many requests, and when the rest of its
/// body is not going to be read.
fn close(mut response: Response, is_last: bool) -> Response {
    let is_unread = matches!(response.status(), StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT);
    if is_last || is_unread {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Part of what an address, and all of them, may have of large answers.
type Memory = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// The body of a message.
pub(super) type BodyOf<M> = <M as Carries>::Body;

/// See [`BodyOf`]: warp does not name the type of its bodies.
pub(super) trait Carries {
    type Body;
}

impl<B> Carries for Message<B> {
    type Body = B;
}

/// What an answer holds.
#[derive(Default)]
pub(super) struct Held {
    /// One of the requests of its address.
    turn: Option<OwnedSemaphorePermit>,
    memory: Option<Memory>,
}

/// The body of an answer. hyper drops it when all of it is in its buffers.
pub(super) struct Answer<B> {
    body: B,
    _under_way: UnderWay,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Tells the line when the answer is complete.
struct UnderWay {
    line: Arc<Line>,
    held: Held,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.line.answered(std::mem::take(&mut self.held));
    }
}
