//! The hot path: bytes of a purchase to the engine's outcome and back. Refusing allocates nothing.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use flash_engine::{Purchase, Reading};
use flash_types::{BuyerId, Outcome, Refusal, Reservation, SaleId, bounds};
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;

use crate::identity::{Credential, client_address};
use crate::outcome::{Problem, Word};
use crate::reply::Reply;
use crate::request::path_id;
use crate::service::Call;
use crate::{bodies, reservation_json};

/// One in so many admissions is measured.
const ADMIT_SAMPLE: u64 = 64;

/// Answers a purchase, with the word that is counted. `number` is that of the request on this thread.
///
/// What is told first, in this order: malformed, the address's rate, identity, everything that the engine knows.
///
/// # Cancel safety
/// That of [`flash_engine::Engine::purchase`].
pub(crate) async fn purchase(
    call: &Call<'_>,
    body: Incoming,
    sale: &str,
    number: u64,
) -> Result<(Reply, Word), Problem> {
    let sale_id = path_id("sale", sale, SaleId::parse)?;
    let key = call.head.idempotency_key()?;
    let for_buyer = call.head.buyer()?;
    let body = call.body(body, bounds::BODY_BYTES_MAX).await?;
    let lines = bodies::purchase(&body)?;
    let now = call.engine().clock().read();
    let buyer = admit(call, &sale_id, for_buyer, now)?;
    if number.is_multiple_of(ADMIT_SAMPLE) {
        call.worker.metrics.admit_seconds.record(now.at.elapsed());
    }
    let request = Purchase {
        sale_id,
        buyer,
        key,
        lines,
    };
    let mut decision = pin!(call.engine().purchase(&request, now));
    let seconds = &call.worker.metrics.purchase_seconds;
    let first = poll_fn(|cx| Poll::Ready(decision.as_mut().poll(cx))).await;
    let outcome = if let Poll::Ready(outcome) = first {
        seconds.record_instant();
        outcome
    } else {
        let outcome = decision.await;
        seconds.record(Instant::now().saturating_duration_since(now.at));
        outcome
    };
    match outcome {
        Outcome::Reserved(reservation) => {
            Ok((won(StatusCode::CREATED, &reservation), Word::Reserved))
        }
        Outcome::Stands(reservation) => {
            let mut reply = won(StatusCode::OK, &reservation);
            reply.is_replay = true;
            Ok((reply, Word::Replayed))
        }
        Outcome::Refused(refusal) => Err(Problem::Refused(refusal)),
        Outcome::Unknown(id) => Err(Problem::Unknown(Some(id))),
    }
}

/// Whose purchase it is, once the address (or the storefront's key) may ask at all.
fn admit(
    call: &Call<'_>,
    sale_id: &SaleId,
    for_buyer: Option<BuyerId>,
    now: Reading,
) -> Result<BuyerId, Problem> {
    let shared = call.shared();
    let credential = Credential::of(&call.head);
    let limited = |retry_after_ms| Problem::Refused(Refusal::RateLimited { retry_after_ms });
    match credential {
        Credential::Token(_) if for_buyer.is_some() => {
            return Err(Problem::malformed(
                "the header X-Buyer-Id stands beside a buyer's token: the token names the buyer",
            ));
        }
        Credential::Key(secret) => {
            if let Some(key) = shared.identity.storefront(secret) {
                let buyer = for_buyer.ok_or_else(|| {
                    Problem::malformed(
                        "the header X-Buyer-Id is missing: a storefront buys for a buyer",
                    )
                })?;
                shared
                    .identity
                    .storefront_rate(key, now.at)
                    .map_err(limited)?;
                return Ok(buyer);
            }
        }
        Credential::Token(_) | Credential::None => {}
    }
    let address = client_address(
        call.connection.peer,
        &call.parts.headers,
        &shared.config.trusted_proxies,
    );
    call.engine()
        .admit_address(sale_id, address, now.at)
        .map_err(limited)?;
    match credential {
        Credential::Token(token) => shared
            .identity
            .buyer(token, now.wall)
            .ok_or(Problem::Unauthenticated),
        Credential::Key(_) | Credential::None => Err(Problem::Unauthenticated),
    }
}

fn won(status: StatusCode, reservation: &Reservation) -> Reply {
    let reply = Reply::json(status, reservation_json::write(reservation));
    let location = format!("/v1/reservations/{}", reservation.reservation_id);
    match HeaderValue::try_from(location) {
        Ok(location) => reply.with(header::LOCATION, location),
        // Ids are digits and letters: always a header.
        Err(_) => reply,
    }
}
