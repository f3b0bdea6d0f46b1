//! The way in to the side services: what HTTP has to say about a request is said here, then it is handed over.
//!
//! What is told first, in this order: malformed head, the address's rate, identity, the body, what the service says.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flash_admission::{HashKey, Limiter, Rate};
use flash_engine::Reading;
use flash_types::side::{SideAnswer, SideCaller, SideEndpoint, SideProblem, SideRequest, SideWho};
use flash_types::{ItemId, Refusal, SaleNo};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::body::Incoming;

use crate::bodies;
use crate::config::{FrontConfig, Role};
use crate::identity::{Credential, client_address};
use crate::outcome::Problem;
use crate::reply::Reply;
use crate::request::{Field, Query, path_id};
use crate::service::Call;
use crate::services::SideDoor;
use crate::side_table::SideTable;

const X_DEVICE_ID: HeaderName = HeaderName::from_static("x-device-id");

/// The side services as the front knows them.
pub(crate) struct Side {
    pub(crate) door: Arc<dyn SideDoor>,
    endpoints: Vec<&'static SideEndpoint>,
    addresses: Limiter,
    rate: Rate,
    started_at: Instant,
}

impl Side {
    pub(crate) fn new(
        door: &Arc<dyn SideDoor>,
        table: SideTable,
        config: &FrontConfig,
        hash_key: HashKey,
        started_at: Instant,
    ) -> Self {
        Self {
            door: Arc::clone(door),
            endpoints: table.endpoints,
            addresses: Limiter::new(config.side_addresses_max, hash_key),
            rate: config.side_address_rate,
            started_at,
        }
    }

    /// Takes one try of an address.
    fn admit(&self, address: IpAddr, now: Instant) -> Result<(), Problem> {
        let now_ns = now.saturating_duration_since(self.started_at).as_nanos();
        let now_ns = u64::try_from(now_ns).unwrap_or(u64::MAX);
        let hash = self.addresses.hash_address(SaleNo(0), address);
        self.addresses
            .check(hash, self.rate, now_ns)
            .map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms }.into())
    }
}

/// Answers a request for a side service.
///
/// # Cancel safety
/// That of [`SideDoor::answer`].
pub(crate) async fn handle(
    call: &Call<'_>,
    body: Incoming,
    index: usize,
    names: [&str; 3],
) -> Result<Reply, Problem> {
    let side = call.shared().side.as_ref().ok_or(Problem::NoSuchPath)?;
    let endpoint = side.endpoints.get(index).ok_or(Problem::NoSuchPath)?;
    let path = path_ids(endpoint, names)?;
    let query = Query::parse(call.parts.uri.query(), endpoint.query)?.into_pairs();
    let key = if endpoint.needs_key {
        Some(call.head.idempotency_key()?)
    } else {
        call.head.optional_idempotency_key()?
    };
    let device = device(call)?;
    let now = call.engine().clock().read();
    let (caller, address) = caller(call, side, endpoint, now)?;
    let (body, content_type) = body_of(call, endpoint, body).await?;
    let request = SideRequest {
        endpoint: index,
        path,
        query,
        body: body.into(),
        content_type,
        key,
        caller,
        address,
        device,
        now: now.wall,
    };
    match side.door.answer(request).await {
        Ok(answer) => reply(answer),
        Err(problem) => Err(Problem::Side(Box::new(problem))),
    }
}

/// What stands in the braces, as ids.
fn path_ids(endpoint: &SideEndpoint, names: [&str; 3]) -> Result<[String; 3], Problem> {
    let mut ids: [String; 3] = Default::default();
    let known = endpoint
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    for ((id, segment), name) in ids.iter_mut().zip(names).zip(known) {
        // An id of ours, whatever it names: they all look the same.
        let parsed = path_id(name, segment, ItemId::parse)?;
        *id = parsed.as_str().to_owned();
    }
    Ok(ids)
}

/// `X-Device-Id`, where given. Not found in the one pass over all headers, which is the purchase path's.
fn device(call: &Call<'_>) -> Result<Option<String>, Problem> {
    let mut field = Field::default();
    for value in call.parts.headers.get_all(X_DEVICE_ID) {
        field.add(value);
    }
    let Some(value) = field.single("X-Device-Id")? else {
        return Ok(None);
    };
    let device = ItemId::parse_bytes(value)
        .map_err(|bad| Problem::malformed(format!("the header X-Device-Id {bad}")))?;
    Ok(Some(device.as_str().to_owned()))
}

// ---- who

/// Who calls, and where from.
fn caller(
    call: &Call<'_>,
    side: &Side,
    endpoint: &SideEndpoint,
    now: Reading,
) -> Result<(SideCaller, Option<IpAddr>), Problem> {
    let needed = match endpoint.who {
        SideWho::All | SideWho::Buyer | SideWho::Storefront => {
            return outsider(call, side, endpoint.who, now);
        }
        SideWho::Viewer => Role::Viewer,
        SideWho::Merchant => Role::Merchant,
        SideWho::Reviewer => Role::Reviewer,
        SideWho::Operator => Role::Operator,
    };
    let command = format!("{} {}", endpoint.method, endpoint.path);
    let who = crate::admin::admin(call, needed, &command, None)?;
    // Behind a proxy it is the proxy's: the key names who it is.
    Ok((SideCaller::Admin(who.name), Some(call.connection.peer)))
}

/// Of the public port, and of what anyone may ask on the other.
fn outsider(
    call: &Call<'_>,
    side: &Side,
    who: SideWho,
    now: Reading,
) -> Result<(SideCaller, Option<IpAddr>), Problem> {
    let shared = call.shared();
    let credential = Credential::of(&call.head);
    let for_buyer = call.head.buyer()?;
    if matches!(credential, Credential::Token(_)) && for_buyer.is_some() {
        return Err(Problem::malformed(
            "the header X-Buyer-Id stands beside a buyer's token: the token names the buyer",
        ));
    }
    if let Credential::Key(secret) = credential
        && let Some(key) = shared.identity.storefront(secret)
    {
        let caller = match (who, for_buyer) {
            (SideWho::Buyer, Some(buyer)) => SideCaller::Buyer(buyer),
            (SideWho::Buyer, None) => {
                return Err(Problem::malformed(
                    "the header X-Buyer-Id is missing: a storefront acts for a buyer here",
                ));
            }
            (SideWho::Storefront, for_buyer) => SideCaller::Storefront(for_buyer),
            (
                SideWho::All
                | SideWho::Viewer
                | SideWho::Merchant
                | SideWho::Reviewer
                | SideWho::Operator,
                _,
            ) => SideCaller::Anyone,
        };
        // Its own rate, in place of the address's.
        shared
            .identity
            .storefront_rate(key, now.at)
            .map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })?;
        return Ok((caller, None));
    }
    let address = client_address(
        call.connection.peer,
        &call.parts.headers,
        &shared.config.trusted_proxies,
    );
    side.admit(address, now.at)?;
    let caller = match (who, credential) {
        (SideWho::All, _) => SideCaller::Anyone,
        (SideWho::Buyer, Credential::Token(token)) => {
            let buyer = shared.identity.buyer(token, now.wall);
            SideCaller::Buyer(buyer.ok_or(Problem::Unauthenticated)?)
        }
        (SideWho::Storefront, Credential::Token(token)) => {
            // Somebody whom we know, and who may not.
            let buyer = shared.identity.buyer(token, now.wall);
            return Err(buyer.map_or(Problem::Unauthenticated, |_| Problem::Forbidden));
        }
        (
            SideWho::Buyer
            | SideWho::Storefront
            | SideWho::Viewer
            | SideWho::Merchant
            | SideWho::Reviewer
            | SideWho::Operator,
            _,
        ) => return Err(Problem::Unauthenticated),
    };
    Ok((caller, Some(address)))
}

// ---- bodies

/// The body, and its type where the endpoint takes others than JSON.
async fn body_of(
    call: &Call<'_>,
    endpoint: &SideEndpoint,
    body: Incoming,
) -> Result<(Bytes, Option<String>), Problem> {
    let bytes_max = endpoint.body_bytes_max;
    let too_large = |problem| {
        if problem != Problem::TooLarge {
            return problem;
        }
        let detail = format!("a body of this path may have {bytes_max} bytes");
        Problem::Side(Box::new(SideProblem::new(413, "too_large", detail)))
    };
    match endpoint.body {
        // What a GET sends is not looked at.
        None if endpoint.method == "GET" => Ok((Bytes::new(), None)),
        None => {
            let body = call.body(body, bytes_max).await.map_err(too_large)?;
            if !body.is_empty() {
                bodies::nothing(&body)?;
            }
            Ok((Bytes::new(), None))
        }
        Some(taken) if taken.contains('/') => {
            let sent = call.head.content_type().unwrap_or_default();
            if !is_of_type(sent, taken) {
                let detail = format!("bodies of this path are {taken}: say so in Content-Type");
                let problem = SideProblem::new(415, "unsupported_media_type", detail);
                return Err(Problem::Side(Box::new(problem)));
            }
            let body = call.raw_body(body, bytes_max).await.map_err(too_large)?;
            Ok((body, Some(sent.to_owned())))
        }
        Some(_) => {
            let body = call.body(body, bytes_max).await.map_err(too_large)?;
            Ok((body, None))
        }
    }
}

/// Whether a `Content-Type` is `type/subtype`, or of `type/*`; its parameters do not matter.
fn is_of_type(sent: &str, taken: &str) -> bool {
    let sent = sent.split(';').next().unwrap_or_default().trim();
    match taken.strip_suffix('*') {
        Some(kind) => sent
            .get(..kind.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(kind) && sent.len() > kind.len()),
        None => sent.eq_ignore_ascii_case(taken),
    }
}

// ---- back

fn reply(answer: SideAnswer) -> Result<Reply, Problem> {
    let status = StatusCode::from_u16(answer.status).map_err(|_| Problem::Internal)?;
    let mut reply = Reply::json(status, answer.body);
    reply.content_type =
        HeaderValue::try_from(answer.content_type).map_err(|_| Problem::Internal)?;
    reply.is_replay = answer.is_replay;
    match answer.location {
        Some(location) => {
            let location = HeaderValue::try_from(location).map_err(|_| Problem::Internal)?;
            Ok(reply.with(header::LOCATION, location))
        }
        None => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_apart() {
        for (sent, taken, is_so) in [
            ("image/png", "image/*", true),
            ("Image/PNG; x=1", "image/*", true),
            ("image/", "image/*", false),
            ("imagex/png", "image/*", false),
            ("", "image/*", false),
            ("text/csv; charset=utf-8", "text/csv", true),
            ("text/html", "text/csv", false),
        ] {
            assert_eq!(is_of_type(sent, taken), is_so, "{sent} {taken}");
        }
    }
}
