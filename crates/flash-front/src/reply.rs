//! What goes back: a small value that handlers give, turned into headers and bytes in one place.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use crate::events::EventStream;
use crate::outcome::{Problem, Rendered, Word};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// All of it, taken once.
    Whole(Bytes),
    /// Server-sent events.
    Events(Box<EventStream>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Events(stream) => stream
                .poll_next(cx)
                .map(|event| event.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// A yes on its way out.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: HeaderValue,
    pub(crate) body: ReplyBody,
    pub(crate) extra: Option<(HeaderName, HeaderValue)>,
    pub(crate) cache_control: HeaderValue,
    pub(crate) is_replay: bool,
}

impl Reply {
    /// JSON that is already written; nobody may keep it.
    pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: JSON,
            body: ReplyBody::Whole(body.into()),
            extra: None,
            cache_control: NO_STORE,
            is_replay: false,
        }
    }

    /// JSON of a value.
    ///
    /// # Errors
    /// `internal` if it cannot be written, which does not happen with our own types.
    pub(crate) fn of(status: StatusCode, value: &impl serde::Serialize) -> Result<Self, Problem> {
        serde_json::to_vec(value)
            .map(|body| Self::json(status, body))
            .map_err(|_| Problem::Internal)
    }

    /// Something other than JSON.
    pub(crate) fn text(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: HeaderValue::from_static(content_type),
            ..Self::json(StatusCode::OK, body)
        }
    }

    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.extra = Some((name, value));
        self
    }

    /// Writes it into the request's own header map, whose memory is there already.
    pub(crate) fn into_response(self, mut headers: HeaderMap) -> Response<ReplyBody> {
        headers.clear();
        headers.insert(header::CONTENT_TYPE, self.content_type);
        headers.insert(header::CACHE_CONTROL, self.cache_control);
        if let Some((name, value)) = self.extra {
            headers.insert(name, value);
        }
        if self.is_replay {
            headers.insert(IDEMPOTENCY_REPLAYED, TRUE);
        }
        response(self.status, headers, self.body)
    }
}

/// Writes a problem into the request's own header map; gives its word for the counters.
pub(crate) fn problem_response(
    problem: &Problem,
    mut headers: HeaderMap,
) -> (Word, Response<ReplyBody>) {
    headers.clear();
    let rendered: Rendered = problem.render();
    headers.insert(header::CONTENT_TYPE, PROBLEM);
    if let Some(seconds) = rendered.retry_after {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    if let Some(allow) = rendered.allow {
        headers.insert(header::ALLOW, allow);
    }
    match rendered.status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, BEARER);
        }
        // Something of the request may be unread, or nobody knows what it did to us.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::URI_TOO_LONG
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        | StatusCode::INTERNAL_SERVER_ERROR => {
            headers.insert(header::CONNECTION, CLOSE);
        }
        _ => {}
    }
    let body = ReplyBody::Whole(rendered.body);
    (rendered.word, response(rendered.status, headers, body))
}

/// After this answer the connection is closed.
pub(crate) fn close_after(response: &mut Response<ReplyBody>) {
    response.headers_mut().insert(header::CONNECTION, CLOSE);
}

fn response(status: StatusCode, headers: HeaderMap, body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
