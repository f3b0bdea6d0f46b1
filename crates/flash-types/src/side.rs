//! What the front and the side services say to each other: endpoints, requests, answers, problems; and what the side
//! services ask of the engine ([`SaleDesk`]).
//!
//! The front owns sockets, identity, roles and the limits of HTTP; a side service gets a request whose caller is known and
//! whose key, path and query are parsed, and gives bytes.

use std::borrow::Cow;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{BuyerId, Currency, IdempotencyKey, Refusal, SaleId, SaleState, Timestamp};

/// A future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which port an endpoint is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SidePort {
    /// Buyers and storefront.
    Public,
    /// Merchants, reviewers, operators.
    Admin,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideWho {
    /// Anyone.
    All,
    /// A buyer by a token, or the storefront for one (`X-Buyer-Id` is required then).
    Buyer,
    /// The storefront; `X-Buyer-Id` may say for whom.
    Storefront,
    /// An admin key that may read.
    Viewer,
    /// An admin key that runs campaigns.
    Merchant,
    /// An admin key that judges claims and verdicts.
    Reviewer,
    /// An admin key that runs the machine.
    Operator,
}

/// An endpoint: one line of a service's table. The router and the OpenAPI document are made from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideEndpoint {
    /// On which port.
    pub port: SidePort,
    /// `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// With names in braces, at most three of them.
    pub path: &'static str,
    /// Who may call.
    pub who: SideWho,
    /// What it does, for the document.
    pub summary: &'static str,
    /// Known parameters of the query; others are refused.
    pub query: &'static [&'static str],
    /// Schema of the body; `None` takes none, but for an empty object. With a slash it is the media type that is taken
    /// instead of JSON: `text/csv`, or all of a kind, `image/*`.
    pub body: Option<&'static str>,
    /// Longest body, bytes.
    pub body_bytes_max: usize,
    /// An `Idempotency-Key` is required.
    pub needs_key: bool,
    /// Status and schema of each yes; the schema is a name of [`SideService::schemas`] or a media type.
    pub answers: &'static [(u16, &'static str)],
    /// Status and outcome of each no that is its own, beyond those that every endpoint has.
    pub problems: &'static [(u16, &'static str)],
}

impl SideEndpoint {
    /// What a line of a table begins with: `SideEndpoint { method: "POST", path: "…", ..SideEndpoint::BASE }`.
    pub const BASE: Self = Self {
        port: SidePort::Public,
        method: "GET",
        path: "",
        who: SideWho::All,
        summary: "",
        query: &[],
        body: None,
        body_bytes_max: crate::bounds::BODY_BYTES_MAX,
        needs_key: false,
        answers: &[],
        problems: &[],
    };
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideCaller {
    /// Nobody said so.
    Anyone,
    /// A buyer, or the storefront for one.
    Buyer(BuyerId),
    /// The storefront, perhaps for a buyer.
    Storefront(Option<BuyerId>),
    /// An admin by the name of the key: the *who* of the audit log.
    Admin(String),
}

/// A request whose caller is known.
#[derive(Debug, Clone)]
pub struct SideRequest {
    /// Which endpoint, as an index into [`SideService::endpoints`].
    pub endpoint: usize,
    /// What stands in the path's braces, decoded and checked as ids, in their order; empty where there are none.
    pub path: [String; 3],
    /// Known parameters, each once, decoded.
    pub query: Vec<(&'static str, String)>,
    /// As sent; no longer than the endpoint takes. Not parsed.
    pub body: Vec<u8>,
    /// `Content-Type` as sent, where the endpoint takes other bodies than JSON.
    pub content_type: Option<String>,
    /// Present where the endpoint needs one.
    pub key: Option<IdempotencyKey>,
    /// Who calls.
    pub caller: SideCaller,
    /// Where from (behind trusted proxies, their word); absent where the storefront calls for a buyer and does not say.
    pub address: Option<IpAddr>,
    /// `X-Device-Id`, where the caller told one: 1-64 characters of an id.
    pub device: Option<String>,
    /// The wall clock.
    pub now: Timestamp,
}

impl SideRequest {
    /// A parameter of the query.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let pair = self.query.iter().find(|(known, _)| *known == name);
        pair.map(|(_, value)| value.as_str())
    }
}

/// A yes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideAnswer {
    /// 200, 201 or 202.
    pub status: u16,
    /// `application/json` or another.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
    /// This key was answered before: told in `Idempotency-Replayed`.
    pub is_replay: bool,
    /// Value of `Location`.
    pub location: Option<String>,
}

impl SideAnswer {
    /// JSON.
    ///
    /// # Panics
    /// For what JSON cannot hold: maps whose keys are not texts.
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: serde_json::to_vec(value).expect("an answer is plain JSON"),
            is_replay: false,
            location: None,
        }
    }
}

/// A no, on its way to `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideProblem {
    /// 400-504.
    pub status: u16,
    /// The word: last part of `type`, and `outcome`.
    pub outcome: &'static str,
    /// A sentence that names the fix.
    pub detail: Cow<'static, str>,
    /// When it may be worth another try.
    pub retry_after: Option<Duration>,
    /// Further members.
    pub more: Map<String, Value>,
    /// Another transaction was in the way and nothing was changed: the whole [`SideService::answer`] is tried again at
    /// once, and this is told only where that does not help.
    pub is_conflict: bool,
}

impl SideProblem {
    /// One without further members.
    pub fn new(status: u16, outcome: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            outcome,
            detail: detail.into(),
            retry_after: None,
            more: Map::new(),
            is_conflict: false,
        }
    }

    /// With a further member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// With a time to wait.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// 400: the body, a parameter or a header is wrong; `detail` says what and how to mend it.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "malformed", detail)
    }

    /// 404: nothing of that name, or not the caller's.
    pub fn not_found(what: &str) -> Self {
        Self::new(404, "not_found", format!("there is no such {what}"))
    }
}

/// A side service as the front sees it.
pub trait SideService: Send + Sync {
    /// Its endpoints.
    fn endpoints(&self) -> &'static [SideEndpoint];

    /// Schemas of bodies and answers, by name, as OpenAPI 3.1 wants them.
    fn schemas(&self) -> Vec<(&'static str, Value)>;

    /// Answers a request.
    ///
    /// # Cancel safety
    /// What was committed stays; everything else is undone. The same key gets the same answer.
    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>>;
}

/// An event of a sale, as told outside.
#[derive(Debug, Clone, PartialEq)]
pub struct DeskEvent {
    /// Names the sale and its place; [`SaleDesk::events`] goes on after it.
    pub id: String,
    /// `reservation.confirmed` and so on.
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// Of which sale.
    pub sale_id: SaleId,
    /// The reservation as it stood after it, as the contract's JSON; or what the sale tells.
    pub data: Value,
}

/// What is planned of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeskSale {
    /// Its id.
    pub sale_id: SaleId,
    /// For people.
    pub title: String,
    /// When it opens.
    pub starts_at: Timestamp,
    /// When it closes.
    pub ends_at: Timestamp,
    /// Of its prices.
    pub currency: Currency,
    /// What it does now.
    pub state: SaleState,
}

/// All that side services may ask of the engine.
pub trait SaleDesk: Send + Sync {
    /// Events of all sales after one of them (`None`: from the first), by time, at most `limit`. Ids of events that were
    /// lost in an accepted loss count as being where the one before them is.
    ///
    /// # Errors
    /// `malformed` ids are `not_found`; `store_unavailable`.
    ///
    /// # Cancel safety
    /// A read.
    fn events<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>>;

    /// A sale, unless it is a draft.
    fn sale(&self, sale_id: &SaleId) -> Option<DeskSale>;
}
