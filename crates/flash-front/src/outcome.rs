//! The one table from what became of a request to status, body and headers.
//!
//! What has no variable part is rendered by the compiler: refusing costs no allocation. Everything else on the wire
//! that says no goes through [`Problem`].

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use flash_types::side::SideProblem;
use flash_types::{Refusal, ReservationId};
use http::{HeaderValue, StatusCode};
use serde_json::Value;

macro_rules! words {
    ($($variant:ident $word:literal)*) => {
        /// Every word that an answer can bear: the `outcome` of problems, the label of the counters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Word { $($variant),* }

        impl Word {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }
    };
}

words! {
    Reserved "reserved"
    Replayed "replayed"
    Malformed "malformed"
    Unauthenticated "unauthenticated"
    Forbidden "forbidden"
    NotFound "not_found"
    MethodNotAllowed "method_not_allowed"
    RequestTimeout "request_timeout"
    SoldOut "sold_out"
    BuyerLimitReached "buyer_limit_reached"
    InFlight "in_flight"
    ReservationExpired "reservation_expired"
    StateConflict "state_conflict"
    PriceGuard "price_guard"
    SaleEnded "sale_ended"
    TooLarge "too_large"
    UriTooLong "uri_too_long"
    UnsupportedMediaType "unsupported_media_type"
    IdempotencyKeyReused "idempotency_key_reused"
    PaymentRefReused "payment_ref_reused"
    SalePaused "sale_paused"
    SaleNotStarted "sale_not_started"
    RateLimited "rate_limited"
    HeadersTooLarge "headers_too_large"
    Internal "internal"
    Overloaded "overloaded"
    StoreUnavailable "store_unavailable"
    StorageFull "storage_full"
    SaleFrozen "sale_frozen"
    Stopping "stopping"
    Unknown "unknown"
}

/// Something that is not a yes: the engine's refusals and the front's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// 400, with what is wrong.
    Malformed(Cow<'static, str>),
    /// 409 `state_conflict`, with what stands against it.
    Conflict(String),
    /// 409 `price_guard`, with the findings as a JSON list.
    PriceGuard(String),
    /// 401.
    Unauthenticated,
    /// 403: known, but not allowed.
    Forbidden,
    /// 404: no such path.
    NoSuchPath,
    /// 404: no such sale, said to merchants.
    NoSuchSale,
    /// 404: no such event, or no webhook that wants it.
    NoSuchEvent,
    /// 405, with the methods there are.
    MethodNotAllowed {
        /// Value of `Allow`.
        allow: HeaderValue,
    },
    /// 408: the body did not arrive in time.
    RequestTimeout,
    /// 413.
    TooLarge,
    /// 414.
    UriTooLong,
    /// 415.
    UnsupportedMediaType,
    /// 431: too many headers.
    HeadersTooLarge,
    /// 500.
    Internal,
    /// What the engine refuses.
    Refused(Refusal),
    /// 504: sent to the store, fate not known.
    Unknown(Option<ReservationId>),
    /// What a side service says no with.
    Side(Box<SideProblem>),
}

/// A problem without variable parts, rendered by the compiler.
#[derive(Debug)]
pub(crate) struct Fixed {
    status: StatusCode,
    word: Word,
    body: &'static str,
    retry_after: Option<HeaderValue>,
}

/// A problem on its way out.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) status: StatusCode,
    pub(crate) word: Word,
    pub(crate) body: Bytes,
    /// Seconds.
    pub(crate) retry_after: Option<HeaderValue>,
    pub(crate) allow: Option<HeaderValue>,
}

/// `fixed!(status, Word, "word", "title", "detail" [, retry "seconds" "ms"] [, more "members"])`
macro_rules! fixed {
    ($status:literal, $word:ident, $text:literal, $title:literal, $detail:literal
        $(, retry $s:literal $ms:literal)? $(, more $more:literal)?) => {{
        static FIXED: Fixed = Fixed {
            status: match StatusCode::from_u16($status) {
                Ok(status) => status,
                Err(_) => panic!("not a status"),
            },
            word: Word::$word,
            body: concat!(
                "{\"type\":\"urn:stampede:problem:", $text, "\",\"title\":\"", $title,
                "\",\"status\":", $status, ",\"outcome\":\"", $text, "\",\"detail\":\"", $detail, "\""
                $(, ",\"retry_after_ms\":", $ms)? $(, $more)?, "}"
            ),
            retry_after: fixed!(@retry $($s)?),
        };
        &FIXED
    }};
    (@retry) => { None };
    (@retry $s:literal) => { Some(HeaderValue::from_static($s)) };
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Problem {
    /// A 400 with this detail.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed(detail.into())
    }

    /// The status and body of it: this is the table.
    pub(crate) fn render(&self) -> Rendered {
        let fixed = match self {
            Self::Refused(refusal) => match refusal_fixed(refusal) {
                Ok(fixed) => fixed,
                Err(rendered) => return rendered,
            },
            Self::Malformed(detail) => {
                return Variable::new(400, Word::Malformed, "Malformed request", detail).done();
            }
            Self::Conflict(detail) => {
                return Variable::new(409, Word::StateConflict, "State conflict", detail).done();
            }
            Self::PriceGuard(findings) => {
                let detail =
                    "Prices look like mistakes: correct them, or name the codes in accept.";
                return Variable::new(409, Word::PriceGuard, "Price guard", detail)
                    .member("findings", findings)
                    .done();
            }
            Self::Unknown(id) => return unknown(*id),
            Self::Side(problem) => return side(problem),
            Self::Unauthenticated => fixed!(
                401,
                Unauthenticated,
                "unauthenticated",
                "Not authenticated",
                "A valid credential is needed: Authorization: Bearer <token or key>."
            ),
            Self::Forbidden => fixed!(
                403,
                Forbidden,
                "forbidden",
                "Not allowed",
                "This credential does not allow it."
            ),
            Self::NoSuchPath => fixed!(
                404,
                NotFound,
                "not_found",
                "Not found",
                "There is nothing at this path."
            ),
            Self::NoSuchEvent => fixed!(
                404,
                NotFound,
                "not_found",
                "Not found",
                "No such event, or no webhook of that name wants it."
            ),
            Self::NoSuchSale => fixed!(404, NotFound, "not_found", "Not found", "No such sale."),
            Self::MethodNotAllowed { .. } => fixed!(
                405,
                MethodNotAllowed,
                "method_not_allowed",
                "Method not allowed",
                "The Allow header names the methods of this path."
            ),
            Self::RequestTimeout => fixed!(
                408,
                RequestTimeout,
                "request_timeout",
                "Request timed out",
                "The body did not arrive in time; nothing was done."
            ),
            Self::TooLarge => fixed!(
                413,
                TooLarge,
                "too_large",
                "Body too large",
                "A body may have 16 KiB."
            ),
            Self::UriTooLong => fixed!(
                414,
                UriTooLong,
                "uri_too_long",
                "URI too long",
                "A target may have 2 KiB."
            ),
            Self::UnsupportedMediaType => fixed!(
                415,
                UnsupportedMediaType,
                "unsupported_media_type",
                "Unsupported media type",
                "Bodies are application/json."
            ),
            Self::HeadersTooLarge => fixed!(
                431,
                HeadersTooLarge,
                "headers_too_large",
                "Too many headers",
                "A request may have 64 headers."
            ),
            Self::Internal => fixed!(
                500,
                Internal,
                "internal",
                "Internal error",
                "Something went wrong on our side; ask again with the same key."
            ),
        };
        let mut rendered = fixed.rendered();
        if let Self::MethodNotAllowed { allow } = self {
            rendered.allow = Some(allow.clone());
        }
        rendered
    }
}

impl Fixed {
    fn rendered(&self) -> Rendered {
        Rendered {
            status: self.status,
            word: self.word,
            body: Bytes::from_static(self.body.as_bytes()),
            // A static value is cloned without allocating.
            retry_after: self.retry_after.clone(),
            allow: None,
        }
    }
}

/// The engine's refusals: fixed where they can be.
fn refusal_fixed(refusal: &Refusal) -> Result<&'static Fixed, Rendered> {
    Ok(match *refusal {
        Refusal::NotFound => fixed!(
            404,
            NotFound,
            "not_found",
            "Not found",
            "No such sale, item or reservation is known here."
        ),
        Refusal::SaleFrozen => fixed!(503, SaleFrozen, "sale_frozen", "Sale frozen",
            "The sale stands still until an operator has looked; nothing was reserved.", retry "30" "30000"),
        Refusal::SalePaused => fixed!(423, SalePaused, "sale_paused", "Sale paused",
            "The merchant has paused the sale.", retry "5" "5000"),
        Refusal::SaleEnded => fixed!(
            410,
            SaleEnded,
            "sale_ended",
            "Sale ended",
            "The sale is over."
        ),
        Refusal::SoldOut {
            is_final: true,
            available_units: None,
        } => fixed!(409, SoldOut, "sold_out", "Sold out",
            "All units are sold.", more ",\"final\":true"),
        Refusal::SoldOut {
            is_final: false,
            available_units: None,
        } => fixed!(409, SoldOut, "sold_out", "Sold out",
            "All units are taken; unpaid ones may come back.", retry "1" "1000", more ",\"final\":false"),
        Refusal::BuyerLimitReached => fixed!(
            409,
            BuyerLimitReached,
            "buyer_limit_reached",
            "Limit reached",
            "This purchase would exceed units_per_buyer_max for this buyer."
        ),
        Refusal::InFlight => fixed!(409, InFlight, "in_flight", "In flight",
            "The first call with this key is not decided yet.", retry "1" "500"),
        Refusal::IdempotencyKeyReused => fixed!(
            422,
            IdempotencyKeyReused,
            "idempotency_key_reused",
            "Idempotency key reused",
            "The key was used with another body."
        ),
        Refusal::PaymentRefReused => fixed!(
            422,
            PaymentRefReused,
            "payment_ref_reused",
            "Payment reused",
            "The payment belongs to another reservation of this sale."
        ),
        Refusal::ReservationExpired => {
            fixed!(409, ReservationExpired, "reservation_expired", "Reservation expired",
            "It was paid after it had expired and its units are gone: the payment has to go back.",
            more ",\"refund_due\":true")
        }
        Refusal::StateConflict { refund_due: false } => fixed!(
            409,
            StateConflict,
            "state_conflict",
            "State conflict",
            "The state of the reservation or sale, its amount or its remaining units do not allow this."
        ),
        Refusal::StateConflict { refund_due: true } => fixed!(409, StateConflict, "state_conflict",
            "State conflict", "The present state does not take a payment: it has to go back.",
            more ",\"refund_due\":true"),
        Refusal::StoreUnavailable => {
            fixed!(503, StoreUnavailable, "store_unavailable", "Store unavailable",
            "The store takes nothing at the moment; nothing was reserved.", retry "1" "1000")
        }
        Refusal::StorageFull => fixed!(503, StorageFull, "storage_full", "Storage full",
            "The disk is full; nothing was reserved.", retry "5" "5000"),
        Refusal::Stopping => fixed!(503, Stopping, "stopping", "Stopping",
            "The process is on its way out; nothing was reserved.", retry "1" "1000"),
        Refusal::SoldOut {
            is_final,
            available_units: Some(units),
        } => {
            return Err(Variable::new(
                409,
                Word::SoldOut,
                "Sold out",
                "Fewer units are left than were asked for.",
            )
            .member("final", is_final)
            .member("available_units", units)
            .done());
        }
        Refusal::RateLimited { retry_after_ms } => {
            return Err(Variable::new(
                429,
                Word::RateLimited,
                "Too many requests",
                "Asked too often.",
            )
            .retry(retry_after_ms)
            .done());
        }
        Refusal::Overloaded { retry_after_ms } => {
            return Err(Variable::new(
                503,
                Word::Overloaded,
                "Overloaded",
                "More is asked for than can be done in time; nothing was reserved.",
            )
            .retry(retry_after_ms)
            .done());
        }
        Refusal::SaleNotStarted { starts_at } => {
            return Err(Variable::new(
                425,
                Word::SaleNotStarted,
                "Not started",
                "The sale has not started.",
            )
            .member("starts_at", format_args!("\"{starts_at}\""))
            .done());
        }
    })
}

fn unknown(id: Option<ReservationId>) -> Rendered {
    let variable = Variable::new(
        504,
        Word::Unknown,
        "Unknown",
        "Sent to the store, fate not known: ask again with the same key.",
    )
    .retry(1_000);
    match id {
        Some(id) => variable
            .member("reservation_id", format_args!("\"{id}\""))
            .done(),
        None => variable.done(),
    }
}

/// What a side service says, with further members where their names are free.
fn side(problem: &SideProblem) -> Rendered {
    const TAKEN: [&str; 6] = [
        "type",
        "title",
        "status",
        "outcome",
        "detail",
        "retry_after_ms",
    ];
    let outcome = problem.outcome;
    let mut title = outcome.replace('_', " ");
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    // The counters, which are those of purchases, never see it.
    let known = Word::ALL.iter().find(|word| word.as_str() == outcome);
    let word = known.copied().unwrap_or(Word::Internal);
    let mut variable = Variable::said(problem.status, word, outcome, &title, &problem.detail);
    for (name, value) in &problem.more {
        if !TAKEN.contains(&name.as_str()) {
            let name = Value::from(name.as_str());
            // Written by hand: a name may hold a quote.
            let _ = write!(variable.body, ",{name}:{value}");
        }
    }
    if let Some(wait) = problem.retry_after {
        let ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        variable = variable.retry(ms.max(1));
    }
    variable.done()
}

/// A body with variable parts.
struct Variable {
    status: u16,
    word: Word,
    body: String,
    retry_after_s: Option<u32>,
}

impl Variable {
    fn new(status: u16, word: Word, title: &str, detail: &str) -> Self {
        Self::said(status, word, word.as_str(), title, detail)
    }

    /// With an outcome that may be none of ours.
    fn said(status: u16, word: Word, text: &str, title: &str, detail: &str) -> Self {
        let mut body = String::with_capacity(256 + detail.len());
        let detail = Value::from(detail);
        // Writing to a String cannot fail.
        let _ = write!(
            body,
            "{{\"type\":\"urn:stampede:problem:{text}\",\"title\":\"{title}\",\"status\":{status},\
             \"outcome\":\"{text}\",\"detail\":{detail}"
        );
        Self {
            status,
            word,
            body,
            retry_after_s: None,
        }
    }

    fn member(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let _ = write!(self.body, ",\"{name}\":{value}");
        self
    }

    fn retry(mut self, ms: u32) -> Self {
        self.retry_after_s = Some(ms.div_ceil(1_000).max(1));
        self.member("retry_after_ms", ms)
    }

    fn done(mut self) -> Rendered {
        self.body.push('}');
        Rendered {
            status: StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            word: self.word,
            body: Bytes::from(self.body),
            retry_after: self.retry_after_s.map(HeaderValue::from),
            allow: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flash_types::{SaleNo, Serial, Timestamp};

    fn every_refusal() -> Vec<(Refusal, u16, &'static str)> {
        use Refusal::*;
        vec![
            (NotFound, 404, "not_found"),
            (SaleFrozen, 503, "sale_frozen"),
            (
                SaleNotStarted {
                    starts_at: Timestamp(0),
                },
                425,
                "sale_not_started",
            ),
            (SalePaused, 423, "sale_paused"),
            (SaleEnded, 410, "sale_ended"),
            (
                SoldOut {
                    is_final: true,
                    available_units: None,
                },
                409,
                "sold_out",
            ),
            (
                SoldOut {
                    is_final: false,
                    available_units: None,
                },
                409,
                "sold_out",
            ),
            (
                SoldOut {
                    is_final: false,
                    available_units: Some(2),
                },
                409,
                "sold_out",
            ),
            (RateLimited { retry_after_ms: 1 }, 429, "rate_limited"),
            (
                Overloaded {
                    retry_after_ms: 1_001,
                },
                503,
                "overloaded",
            ),
            (BuyerLimitReached, 409, "buyer_limit_reached"),
            (InFlight, 409, "in_flight"),
            (IdempotencyKeyReused, 422, "idempotency_key_reused"),
            (PaymentRefReused, 422, "payment_ref_reused"),
            (ReservationExpired, 409, "reservation_expired"),
            (StateConflict { refund_due: false }, 409, "state_conflict"),
            (StateConflict { refund_due: true }, 409, "state_conflict"),
            (StoreUnavailable, 503, "store_unavailable"),
            (StorageFull, 503, "storage_full"),
            (Stopping, 503, "stopping"),
        ]
    }

    #[test]
    fn every_problem_is_the_contracts_json() {
        let id = ReservationId {
            sale_no: SaleNo(1),
            serial: Serial(2),
        };
        let mut problems: Vec<(Problem, u16, &str)> = every_refusal()
            .into_iter()
            .map(|(refusal, status, word)| (Problem::from(refusal), status, word))
            .collect();
        problems.extend([
            (Problem::malformed("a \"quote\"\n"), 400, "malformed"),
            (Problem::Unauthenticated, 401, "unauthenticated"),
            (Problem::Forbidden, 403, "forbidden"),
            (Problem::NoSuchPath, 404, "not_found"),
            (Problem::NoSuchSale, 404, "not_found"),
            (Problem::NoSuchEvent, 404, "not_found"),
            (
                Problem::MethodNotAllowed {
                    allow: HeaderValue::from_static("GET"),
                },
                405,
                "method_not_allowed",
            ),
            (Problem::RequestTimeout, 408, "request_timeout"),
            (Problem::TooLarge, 413, "too_large"),
            (Problem::UriTooLong, 414, "uri_too_long"),
            (Problem::UnsupportedMediaType, 415, "unsupported_media_type"),
            (Problem::HeadersTooLarge, 431, "headers_too_large"),
            (Problem::Internal, 500, "internal"),
            (Problem::Unknown(Some(id)), 504, "unknown"),
            (Problem::Unknown(None), 504, "unknown"),
        ]);
        for (problem, status, word) in problems {
            let rendered = problem.render();
            let body: serde_json::Value = serde_json::from_slice(&rendered.body).unwrap();
            assert_eq!(rendered.status, status, "{problem:?}");
            assert_eq!(rendered.word.as_str(), word);
            assert_eq!(body["status"], status);
            assert_eq!(body["outcome"], word);
            assert_eq!(body["type"], format!("urn:stampede:problem:{word}"));
            assert!(body["title"].is_string() && body["detail"].is_string());
            // Seconds are the milliseconds, rounded up.
            let ms = body.get("retry_after_ms").map(|ms| ms.as_u64().unwrap());
            let seconds = rendered
                .retry_after
                .map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
            assert_eq!(seconds, ms.map(|ms| ms.div_ceil(1_000)), "{problem:?}");
            if word == "sold_out" {
                assert!(body["final"].is_boolean());
            }
        }
    }

    #[test]
    fn what_side_services_say_is_told_whole() {
        let mut problem = SideProblem::new(409, "not_eligible_yet", "a \"quote\"")
            .with("status", 1)
            .with("need\"ed", serde_json::json!({"points": 5}))
            .retry_after(std::time::Duration::from_millis(1_001));
        problem.is_conflict = true;
        let rendered = Problem::Side(Box::new(problem)).render();
        assert_eq!(rendered.status, 409);
        assert_eq!(rendered.retry_after.unwrap(), "2");
        let body: Value = serde_json::from_slice(&rendered.body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:stampede:problem:not_eligible_yet", "title": "Not eligible yet", "status": 409,
                "outcome": "not_eligible_yet", "detail": "a \"quote\"", "need\"ed": {"points": 5},
                "retry_after_ms": 1_001,
            })
        );
        let known = SideProblem::not_found("coupon");
        assert_eq!(Problem::Side(Box::new(known)).render().word, Word::NotFound);
    }

    #[test]
    fn what_varies_is_told() {
        let told = |problem: Problem| -> serde_json::Value {
            serde_json::from_slice(&problem.render().body).unwrap()
        };
        let short = Refusal::SoldOut {
            is_final: false,
            available_units: Some(2),
        };
        assert_eq!(told(short.into())["available_units"], 2);
        let early = Refusal::SaleNotStarted {
            starts_at: Timestamp(0),
        };
        assert_eq!(told(early.into())["starts_at"], "1970-01-01T00:00:00.000Z");
        let id = ReservationId {
            sale_no: SaleNo(1),
            serial: Serial(2),
        };
        assert_eq!(told(Problem::Unknown(Some(id)))["reservation_id"], "r1-2");
        assert_eq!(
            told(Refusal::StateConflict { refund_due: true }.into())["refund_due"],
            true
        );
        assert_eq!(told(Refusal::ReservationExpired.into())["refund_due"], true);
        assert_eq!(told(Problem::malformed("a \"b\""))["detail"], "a \"b\"");
    }

    #[test]
    fn words_are_numbered_in_order() {
        for (index, word) in Word::ALL.iter().enumerate() {
            assert_eq!(*word as usize, index);
        }
    }
}
