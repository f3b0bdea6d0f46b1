//! One request from its head to its answer: bounds, route, handler, headers of the answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flash_engine::Engine;
use flash_types::bounds;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::config::FrontConfig;
use crate::cors::Cors;
use crate::events::Hub;
use crate::identity::Identity;
use crate::metrics::{FrontMetrics, ThreadMetrics};
use crate::outcome::{Problem, Word};
use crate::reply::{Reply, ReplyBody, close_after, problem_response};
use crate::request::Head;
use crate::routes::{Found, Routes, purchase_path};
use crate::services::Services;
use crate::side::Side;
use crate::{admin, public, purchase};

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) config: FrontConfig,
    pub(crate) engine: Arc<Engine>,
    pub(crate) identity: Identity,
    pub(crate) public_routes: Routes,
    pub(crate) admin_routes: Routes,
    pub(crate) public_document: Bytes,
    pub(crate) admin_document: Bytes,
    pub(crate) cors: Cors,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: FrontMetrics,
    pub(crate) prometheus: PrometheusHandle,
    /// The secret that demo tokens are signed with.
    pub(crate) demo_secret: Option<Vec<u8>>,
    pub(crate) services: Services,
    /// The side services, where there are any.
    pub(crate) side: Option<Side>,
    pub(crate) is_stopping: AtomicBool,
}

/// What one thread has for itself.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<ThreadMetrics>,
    pub(crate) is_admin: bool,
    /// A coarse clock, see [`ConnectionState`].
    pub(crate) tick: AtomicU32,
}

impl Worker {
    /// Connections of this thread end as soon as they are idle. The admin port stays: it tells that we are stopping.
    pub(crate) fn is_draining(&self) -> bool {
        // Relaxed: set before the connections are notified, which orders it.
        !self.is_admin && self.shared.is_stopping.load(Ordering::Relaxed)
    }
}

/// What the two ends of one connection (its bytes, its requests) and its thread's sweep tell each other. All of it is
/// written and read on one thread: Relaxed everywhere.
pub(crate) struct ConnectionState {
    pub(crate) peer: IpAddr,
    /// The tick since which it waits for a head; [`BUSY`] while a request is being answered.
    waiting_since: AtomicU32,
    /// A first request has arrived with its whole head.
    was_asked: AtomicBool,
    /// Everything that the present request sends has arrived.
    pub(crate) is_request_here: AtomicBool,
}

/// A request is being answered: the connection waits for us.
pub(crate) const BUSY: u32 = u32::MAX;

impl ConnectionState {
    pub(crate) fn new(peer: IpAddr, tick: u32) -> Self {
        Self {
            peer,
            waiting_since: AtomicU32::new(tick),
            was_asked: AtomicBool::new(false),
            is_request_here: AtomicBool::new(false),
        }
    }

    /// Whether there was ever a request to answer.
    pub(crate) fn was_asked(&self) -> bool {
        self.was_asked.load(Ordering::Relaxed)
    }

    pub(crate) fn set_waiting(&self, since: u32) {
        self.waiting_since.store(since, Ordering::Relaxed);
    }

    /// Whether it has waited for a head for so many ticks.
    pub(crate) fn is_overdue(&self, tick: u32, ticks_max: u32) -> bool {
        let since = self.waiting_since.load(Ordering::Relaxed);
        since != BUSY && tick.wrapping_sub(since) >= ticks_max
    }
}

/// One request, and where it came in.
pub(crate) struct Call<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) parts: &'a Parts,
    pub(crate) head: Head<'a>,
    pub(crate) connection: &'a ConnectionState,
}

impl Call<'_> {
    pub(crate) fn shared(&self) -> &Shared {
        &self.worker.shared
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.worker.shared.engine
    }

    /// Reads the body of this request.
    pub(crate) async fn body(&self, body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
        self.head.check_body(bytes_max)?;
        let is_here = self.connection.is_request_here.load(Ordering::Relaxed);
        let timeout: Duration = self.shared().config.body_timeout;
        crate::request::read_body(body, bytes_max, is_here, timeout).await
    }

    /// The same, whatever its type.
    pub(crate) async fn raw_body(
        &self,
        body: Incoming,
        bytes_max: usize,
    ) -> Result<Bytes, Problem> {
        self.head.check_length(bytes_max)?;
        let is_here = self.connection.is_request_here.load(Ordering::Relaxed);
        let timeout: Duration = self.shared().config.body_timeout;
        crate::request::read_body(body, bytes_max, is_here, timeout).await
    }
}

/// Answers one request.
///
/// # Cancel safety
/// hyper drops it when the client leaves: what was handed to the committer goes on by itself.
pub(crate) async fn serve(
    worker: &Worker,
    connection: &ConnectionState,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    connection.was_asked.store(true, Ordering::Relaxed);
    connection.set_waiting(BUSY);
    let (parts, body) = request.into_parts();
    let call = Call {
        worker,
        parts: &parts,
        head: Head::of(&parts.headers),
        connection,
    };
    let (is_chunked, has_origin) = (call.head.is_chunked, call.head.has_origin);
    let served = std::panic::AssertUnwindSafe(answer(&call, body))
        .catch_unwind()
        .await;
    let answered = served.unwrap_or_else(|_| {
        worker.metrics.panic();
        tracing::error!(method = %parts.method, path = parts.uri.path(), "a handler panicked");
        Answered::Handler(Err(Problem::Internal))
    });
    let allowed = if worker.is_admin || !has_origin {
        None
    } else {
        worker.shared.cors.allowed(&parts.headers)
    };
    let count = |word| worker.metrics.purchase(word);
    let mut response = match answered {
        Answered::Purchase(Err(problem)) => {
            let (word, response) = problem_response(&problem, parts.headers);
            count(word);
            response
        }
        Answered::Purchase(Ok((reply, word))) => {
            count(word);
            reply.into_response(parts.headers)
        }
        Answered::Handler(Ok(reply)) => reply.into_response(parts.headers),
        Answered::Handler(Err(problem)) => problem_response(&problem, parts.headers).1,
        Answered::Preflight(methods) => Cors::preflight(methods, allowed.clone()),
    };
    // A chunked body has been read by rules that a proxy may not share: nothing may follow it.
    // Nor after events, which end when we say so.
    if is_chunked || matches!(response.body(), ReplyBody::Events(_)) {
        close_after(&mut response);
    }
    if let Some(allowed) = allowed {
        Cors::open(&mut response, allowed);
    }
    if matches!(response.body(), ReplyBody::Whole(_)) {
        connection.set_waiting(worker.tick.load(Ordering::Relaxed));
    }
    response
}

/// What a request came to, before it is written.
enum Answered {
    Handler(Result<Reply, Problem>),
    /// With the word that is counted.
    Purchase(Result<(Reply, Word), Problem>),
    Preflight(http::HeaderValue),
}

async fn answer(call: &Call<'_>, body: Incoming) -> Answered {
    let parts = call.parts;
    if let Err(problem) = check_head(parts) {
        return Answered::Handler(Err(problem));
    }
    let path = parts.uri.path();
    if call.worker.is_admin {
        return match call.shared().admin_routes.find(&parts.method, path) {
            // Boxed: the state of these must not weigh on every connection.
            Found::Endpoint(route, names) => {
                Answered::Handler(Box::pin(admin::handle(call, body, route, names)).await)
            }
            Found::OtherMethod(methods) => other_method(&parts.method, methods),
            Found::Nothing => Answered::Handler(Err(Problem::NoSuchPath)),
        };
    }
    let number = call.worker.metrics.request();
    if let Some(sale) = purchase_path(&parts.method, path) {
        return Answered::Purchase(purchase::purchase(call, body, sale, number).await);
    }
    match call.shared().public_routes.find(&parts.method, path) {
        Found::Endpoint(route, names) => {
            Answered::Handler(Box::pin(public::handle(call, body, route, names)).await)
        }
        Found::OtherMethod(methods) => other_method(&parts.method, methods),
        Found::Nothing => Answered::Handler(Err(Problem::NoSuchPath)),
    }
}

fn other_method(method: &Method, allow: http::HeaderValue) -> Answered {
    if *method == Method::OPTIONS {
        Answered::Preflight(allow)
    } else {
        Answered::Handler(Err(Problem::MethodNotAllowed { allow }))
    }
}

/// Bounds that the parser does not hold.
fn check_head(parts: &Parts) -> Result<(), Problem> {
    if parts.headers.len() > bounds::HEADERS_MAX {
        return Err(Problem::HeadersTooLarge);
    }
    let target_bytes = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target_bytes > bounds::URI_BYTES_MAX {
        return Err(Problem::UriTooLong);
    }
    Ok(())
}
