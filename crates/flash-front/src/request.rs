//! What comes in, parsed once: headers, path segments, queries and bodies.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flash_types::{BadId, BuyerId, IdempotencyKey, bounds};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::identity::X_BUYER_ID;
use crate::outcome::Problem;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A header that may stand there once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Field<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Field<'a> {
    pub(crate) fn add(&mut self, value: &'a HeaderValue) {
        *self = match self {
            Self::Absent => Self::Once(value.as_bytes()),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }

    /// The value, if it stands there once; a header of that name that stands there twice is refused.
    pub(crate) fn single(self, name: &str) -> Result<Option<&'a [u8]>, Problem> {
        match self {
            Self::Absent => Ok(None),
            Self::Once(value) => Ok(Some(value)),
            Self::Repeated => Err(Problem::malformed(format!(
                "the header {name} stands there twice"
            ))),
        }
    }
}

/// The headers that we go by, found in one pass over all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head<'a> {
    pub(crate) authorization: Field<'a>,
    idempotency_key: Field<'a>,
    buyer_id: Field<'a>,
    content_type: Field<'a>,
    content_length: Field<'a>,
    pub(crate) is_chunked: bool,
    pub(crate) has_origin: bool,
}

impl<'a> Head<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let mut head = Self::default();
        for (name, value) in headers {
            if *name == header::AUTHORIZATION {
                head.authorization.add(value);
            } else if *name == header::CONTENT_TYPE {
                head.content_type.add(value);
            } else if *name == header::CONTENT_LENGTH {
                head.content_length.add(value);
            } else if *name == IDEMPOTENCY_KEY {
                head.idempotency_key.add(value);
            } else if *name == X_BUYER_ID {
                head.buyer_id.add(value);
            } else if *name == header::TRANSFER_ENCODING {
                head.is_chunked = true;
            } else if *name == header::ORIGIN {
                head.has_origin = true;
            }
        }
        head
    }

    /// The `Idempotency-Key`.
    pub(crate) fn idempotency_key(&self) -> Result<IdempotencyKey, Problem> {
        match self.idempotency_key.single("Idempotency-Key")? {
            None => Err(Problem::malformed("the header Idempotency-Key is missing")),
            Some(value) => IdempotencyKey::parse_bytes(value)
                .map_err(|bad| Problem::malformed(format!("the header Idempotency-Key {bad}"))),
        }
    }

    /// The `Idempotency-Key`, where given.
    pub(crate) fn optional_idempotency_key(&self) -> Result<Option<IdempotencyKey>, Problem> {
        match self.idempotency_key.single("Idempotency-Key")? {
            None => Ok(None),
            Some(_) => self.idempotency_key().map(Some),
        }
    }

    /// The `X-Buyer-Id`, where given.
    pub(crate) fn buyer(&self) -> Result<Option<BuyerId>, Problem> {
        self.buyer_id
            .single("X-Buyer-Id")?
            .map(|value| {
                BuyerId::parse_bytes(value)
                    .map_err(|bad| Problem::malformed(format!("the header X-Buyer-Id {bad}")))
            })
            .transpose()
    }

    /// Refuses a body that is not JSON or too long, before any of it is read.
    pub(crate) fn check_body(&self, bytes_max: usize) -> Result<(), Problem> {
        match self.content_type {
            Field::Absent => {}
            Field::Once(value) if is_json(value) => {}
            Field::Once(_) | Field::Repeated => return Err(Problem::UnsupportedMediaType),
        }
        self.check_length(bytes_max)
    }

    /// The `Content-Type`, where it stands there once and is text.
    pub(crate) fn content_type(&self) -> Option<&'a str> {
        match self.content_type {
            Field::Once(value) => str::from_utf8(value).ok(),
            Field::Absent | Field::Repeated => None,
        }
    }

    /// Refuses a body that is too long, before any of it is read.
    pub(crate) fn check_length(&self, bytes_max: usize) -> Result<(), Problem> {
        if let Some(value) = self.content_length.single("Content-Length")? {
            let length = str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            // hyper has refused what is not a number.
            if length.is_none_or(|length: u64| length > bytes_max as u64) {
                return Err(Problem::TooLarge);
            }
        }
        Ok(())
    }
}

fn is_json(content_type: &[u8]) -> bool {
    const JSON: &[u8] = b"application/json";
    content_type == JSON || {
        let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        content_type[..end].trim_ascii().eq_ignore_ascii_case(JSON)
    }
}

/// A segment of the path as an id; percent signs are undone.
pub(crate) fn path_id<T>(
    name: &'static str,
    segment: &str,
    parse: impl FnOnce(&str) -> Result<T, BadId>,
) -> Result<T, Problem> {
    let bad = |bad: BadId| Problem::malformed(format!("{name} in the path {bad}"));
    if segment.contains('%') {
        let decoded = percent_decoded(segment, false)
            .ok_or_else(|| Problem::malformed(format!("{name} in the path is not UTF-8")))?;
        return parse(&decoded).map_err(bad);
    }
    parse(segment).map_err(bad)
}

/// Undoes percent signs (and, in queries, plus signs); `None` if what comes out is not UTF-8 or a sign is cut off.
fn percent_decoded(text: &str, is_query: bool) -> Option<Cow<'_, str>> {
    let is_coded = text.contains('%') || (is_query && text.contains('+'));
    if !is_coded {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| (byte? as char).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if is_query => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The parameters of a list or search: each known, each once.
#[derive(Debug)]
pub(crate) struct Query<'a>(Vec<(&'static str, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads them; a name that is not in `known` is refused.
    pub(crate) fn parse(query: Option<&'a str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(&'static str, Cow<'a, str>)> = Vec::new();
        for pair in query
            .unwrap_or("")
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(known) = known.iter().find(|known| **known == name) else {
                let name: String = name.chars().take(64).collect();
                return Err(Problem::malformed(format!(
                    "the parameter {name} is not known here; known are: {}",
                    known.join(", ")
                )));
            };
            if pairs.iter().any(|(earlier, _)| earlier == known) {
                return Err(Problem::malformed(format!(
                    "the parameter {known} stands there twice"
                )));
            }
            let value = percent_decoded(value, true)
                .ok_or_else(|| Problem::malformed(format!("the parameter {known} is not UTF-8")))?;
            pairs.push((known, value));
        }
        Ok(Self(pairs))
    }

    /// All of them, by name.
    pub(crate) fn into_pairs(self) -> Vec<(&'static str, String)> {
        let pairs = self.0.into_iter();
        pairs
            .map(|(name, value)| (name, value.into_owned()))
            .collect()
    }

    /// The text of a parameter.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().find(|(known, _)| *known == name);
        pair.map(|(_, value)| &**value)
    }

    /// A parameter read by `parse`, which says what is wrong with it.
    pub(crate) fn read<T, E: std::fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Problem> {
        self.text(name)
            .map(|text| {
                parse(text).map_err(|bad| Problem::malformed(format!("the parameter {name} {bad}")))
            })
            .transpose()
    }

    /// `limit`: 1-200, 50 where absent.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        let limit = self.read("limit", |text| {
            text.parse()
                .ok()
                .filter(|limit| (1..=bounds::PAGE_ITEMS_MAX).contains(limit))
                .ok_or("is not 1-200")
        })?;
        Ok(limit.unwrap_or(50))
    }

    /// `cursor`: a number that an earlier page gave; 0 where absent.
    pub(crate) fn cursor(&self) -> Result<u64, Problem> {
        let cursor = self.read("cursor", |text| {
            text.parse()
                .map_err(|_| "is not one that an earlier page gave")
        })?;
        Ok(cursor.unwrap_or(0))
    }
}

/// Reads a body whole: at most so many bytes, within the time-out. `is_here`: all of it has arrived, so no timer is needed.
///
/// # Cancel safety
/// What was read is lost; the connection is closed then.
pub(crate) async fn read_body(
    body: Incoming,
    bytes_max: usize,
    is_here: bool,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    let mut read = pin!(collect(body, bytes_max));
    if let Poll::Ready(read) = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        return read;
    }
    if is_here {
        return read.await;
    }
    tokio::time::timeout(timeout, read)
        .await
        .unwrap_or(Err(Problem::RequestTimeout))
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Problem> {
    let Some(first) = next_data(&mut body).await? else {
        return Ok(Bytes::new());
    };
    if body.is_end_stream() {
        return within_bounds(first.len(), bytes_max).map(|()| first);
    }
    let mut whole = BytesMut::from(first);
    within_bounds(whole.len(), bytes_max)?;
    while let Some(next) = next_data(&mut body).await? {
        within_bounds(whole.len() + next.len(), bytes_max)?;
        whole.extend_from_slice(&next);
    }
    Ok(whole.freeze())
}

async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, Problem> {
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| Problem::malformed("the body ended early or is badly framed"))?;
        // Trailers say nothing to us.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn within_bounds(length: usize, bytes_max: usize) -> Result<(), Problem> {
    if length > bytes_max {
        Err(Problem::TooLarge)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flash_types::SaleId;

    #[test]
    fn path_ids_are_decoded_and_checked() {
        let sale = |segment| path_id("sale", segment, SaleId::parse);
        assert_eq!(sale("s1").unwrap().as_str(), "s1");
        assert_eq!(sale("a%3Ab").unwrap().as_str(), "a:b");
        for bad in [
            "",
            "a b",
            "a%20b",
            "a%",
            "a%4",
            "a%zz",
            "a%ff",
            "%7B%7D",
            &"x".repeat(65),
        ] {
            assert!(matches!(sale(bad), Err(Problem::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn queries_hold_known_names_once() {
        let known = &["state", "limit", "cursor"];
        let query = Query::parse(Some("state=a%3Ab+c&limit=3"), known).unwrap();
        assert_eq!(query.text("state"), Some("a:b c"));
        assert_eq!(query.limit().unwrap(), 3);
        assert_eq!(query.cursor().unwrap(), 0);
        for bad in ["x=1", "state=1&state=2", "state=%ff"] {
            assert!(
                matches!(Query::parse(Some(bad), known), Err(Problem::Malformed(_))),
                "{bad}"
            );
        }
        for bad in [
            "limit=0",
            "limit=201",
            "limit=",
            "limit=-1",
            "cursor=x",
            "cursor=-1",
        ] {
            let query = Query::parse(Some(bad), known).unwrap();
            assert!(query.limit().is_err() || query.cursor().is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_and_buyers_stand_in_headers_once() {
        let mut headers = HeaderMap::new();
        assert!(Head::of(&headers).idempotency_key().is_err());
        assert_eq!(Head::of(&headers).buyer(), Ok(None));
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("k-1"));
        assert_eq!(
            Head::of(&headers).idempotency_key().unwrap().as_str(),
            "k-1"
        );
        headers.append(IDEMPOTENCY_KEY, HeaderValue::from_static("k-1"));
        assert!(Head::of(&headers).idempotency_key().is_err());
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(Head::of(&headers).idempotency_key().is_err());
        headers.insert(X_BUYER_ID, HeaderValue::from_static("{}"));
        assert!(Head::of(&headers).buyer().is_err());
    }

    #[test]
    fn bodies_are_json_and_short_by_their_headers() {
        for (name, value, expected) in [
            (header::CONTENT_TYPE, "application/json", Ok(())),
            (
                header::CONTENT_TYPE,
                "Application/JSON ; charset=utf-8",
                Ok(()),
            ),
            (
                header::CONTENT_TYPE,
                "text/plain",
                Err(Problem::UnsupportedMediaType),
            ),
            (
                header::CONTENT_TYPE,
                "application/jsonx",
                Err(Problem::UnsupportedMediaType),
            ),
            (header::CONTENT_LENGTH, "16384", Ok(())),
            (header::CONTENT_LENGTH, "16385", Err(Problem::TooLarge)),
            (
                header::CONTENT_LENGTH,
                "10000000000",
                Err(Problem::TooLarge),
            ),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            let checked = Head::of(&headers).check_body(bounds::BODY_BYTES_MAX);
            assert_eq!(checked, expected, "{value}");
        }
    }
}
