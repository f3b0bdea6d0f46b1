//! Which browsers may call from another origin. Everything but the origin itself is written beforehand.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::reply::ReplyBody;

const EXPOSED: HeaderValue =
    HeaderValue::from_static("Location, Retry-After, Idempotency-Replayed");
const ALLOWED: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Device-Id",
);
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const ANY: HeaderValue = HeaderValue::from_static("*");

/// The configured origins.
pub(crate) struct Cors {
    is_any: bool,
    origins: Vec<HeaderValue>,
}

impl Cors {
    /// Origins that cannot stand in a header match nothing.
    pub(crate) fn new(origins: &[String]) -> Self {
        Self {
            is_any: origins.iter().any(|origin| origin == "*"),
            origins: origins
                .iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok())
                .collect(),
        }
    }

    /// What to answer the origin of a request with, if it is one that may call.
    pub(crate) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.is_any && self.origins.is_empty() {
            return None;
        }
        let origin = headers.get(header::ORIGIN)?;
        if self.is_any {
            return Some(ANY);
        }
        self.origins.contains(origin).then(|| origin.clone())
    }

    /// Lets the browser show an answer to its page.
    pub(crate) fn open(response: &mut Response<ReplyBody>, allowed: HeaderValue) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.insert(header::VARY, ORIGIN);
    }

    /// The answer to OPTIONS.
    pub(crate) fn preflight(
        methods: HeaderValue,
        allowed: Option<HeaderValue>,
    ) -> Response<ReplyBody> {
        let mut response = Response::new(ReplyBody::Whole(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ALLOW, methods.clone());
        if let Some(allowed) = allowed {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
            headers.insert(header::VARY, ORIGIN);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_configured_origins_may_call() {
        let from = |origin: &'static str| {
            HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))])
        };
        let shop = Cors::new(&["https://shop.example".into()]);
        assert_eq!(
            shop.allowed(&from("https://shop.example")).unwrap(),
            "https://shop.example"
        );
        assert_eq!(shop.allowed(&from("https://shop.example.evil")), None);
        assert_eq!(shop.allowed(&from("null")), None);
        assert_eq!(shop.allowed(&HeaderMap::new()), None);
        assert_eq!(Cors::new(&[]).allowed(&from("https://shop.example")), None);
        assert_eq!(
            Cors::new(&["*".into()]).allowed(&from("null")).unwrap(),
            "*"
        );
    }
}
