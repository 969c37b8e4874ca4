//! The outermost layer: limits, CORS, bodies.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use warp::http::{HeaderMap, HeaderValue, Method};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Buf, Filter, Rejection};

use super::answer::{Answer, Keep, Refusal};
use super::events::Limits;
use super::live::Live;
use super::routes::{Route, route};
use super::{App, v1};

/// The longest body of a request, in bytes. A block's worth of a transaction is four times that in hex, a standard one
/// 800,000.
pub(super) const MAX_BODY_BYTES: usize = 1_000_000;

/// Bodies up to this long are received however many others there are: the connections bound them.
const SMALL_BODY_BYTES: usize = 16_384;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// A body, to arrive.
    pub(super) body: Duration,
    /// An answer, from there on.
    pub(super) answer: Duration,
    /// The same and more of streams, which have no end by themselves.
    pub(super) events: Limits,
}

impl Default for Times {
    /// 30 seconds each: clients ask again after 10 to 60.
    fn default() -> Self {
        Self { body: Duration::from_secs(30), answer: Duration::from_secs(30), events: Limits::default() }
    }
}

/// Everything as one filter: it answers every request.
pub(super) fn filter<L: Live>(
    app: Arc<App<L>>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    // Of `CONNECT host:1` there is no path, which `full` does not stand.
    let no_path = warp::path::end().map(|| "/".to_owned());
    let path = no_path.or(warp::path::full().map(|path: FullPath| path.as_str().to_owned())).unify();
    let no_query = warp::any().map(String::new);
    let query = warp::query::raw().or(no_query).unify();
    let request = warp::method().and(path).and(query).and(warp::header::headers_cloned()).and(warp::body::stream());
    request.and_then(move |method: Method, path: String, query: String, headers: HeaderMap, body| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Rejection>(respond(app, method, &path, &query, &headers, body).await) }
    })
}

async fn respond<L: Live, B: Buf>(
    app: Arc<App<L>>,
    method: Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Response {
    let asked = app.meter.request(&method, path);
    if method == Method::OPTIONS {
        return asked.answered(preflight());
    }
    let answer = answer(app, &method, path, query, headers, body).await;
    asked.answered(answer.unwrap_or_else(|refusal| refusal.into_answer(path)).into_response())
}

async fn answer<L: Live, B: Buf>(
    app: Arc<App<L>>,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
) -> Result<Answer, Refusal> {
    let mut route = route(method, path, query)?;
    if let Route::Events(wanted) = &mut route {
        wanted.resume(headers)?;
    }
    if matches!(route, Route::Health) {
        // Whoever watches the node is answered however many others there are.
        return timeout(app.times.answer, v1::health(&app)).await.map_err(|_| Refusal::TooLate)?;
    }
    let body = if route.takes_body() {
        timeout(app.times.body, collect(body, &app.bodies)).await.map_err(|_| Refusal::BodyTooSlow)??
    } else {
        Vec::new()
    };
    let _permit = app.requests.try_acquire().map_err(|_| Refusal::Busy)?;
    timeout(app.times.answer, route.answer(&app, body)).await.map_err(|_| Refusal::TooLate)?
}

/// Receives a body. A large one needs a permit: whoever sends many of them slowly keeps others with large ones waiting,
/// nobody else.
async fn collect<B: Buf>(
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    large: &Semaphore,
) -> Result<Vec<u8>, Refusal> {
    let mut permit = None;
    let mut body = std::pin::pin!(body);
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| Refusal::BodyCutOff)?;
        while part.has_remaining() {
            let chunk = part.chunk();
            if bytes.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(Refusal::BodyTooLarge);
            }
            if permit.is_none() && bytes.len() + chunk.len() > SMALL_BODY_BYTES {
                permit = Some(large.try_acquire().map_err(|_| Refusal::Busy)?);
            }
            bytes.extend_from_slice(chunk);
            let length = chunk.len();
            part.advance(length);
        }
    }
    Ok(bytes)
}

/// What a browser asks before it sends a request with a content type of its own.
fn preflight() -> Response {
    let mut response = Answer::text("", Keep::Never).into_response();
    let headers = response.headers_mut();
    headers.insert("access-control-allow-methods", HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
    headers.insert("access-control-allow-headers", HeaderValue::from_static("*"));
    headers.insert("access-control-max-age", HeaderValue::from_static("86400"));
    response
}
