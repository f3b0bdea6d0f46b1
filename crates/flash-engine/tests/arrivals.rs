//! Every order in which payments, expiry, cancellation, extension, refunds and their retries can arrive, against a table.
//!
//! Each sequence of calls is a reservation of its own. Those in which time passes at the same places go through it
//! together, in one shop; each call is made twice. At one place, which differs from shop to shop, the process restarts.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;
mod arrivals {
    pub mod table;
}

use std::collections::HashMap;
use std::time::Duration;

use arrivals::table::{CALLS, Decision, Expected, Op, Told, UNITS, View, WINDOW, World};
use common::{Shop, id, sale, who};
use flash_engine::{Caller, RefundRequest, SaleCommand};
use flash_store::{DecisionKind, EventPlace};
use flash_types::*;
use futures_util::future::join_all;
use serde_json::json;

/// Calls of a sequence. Of those of five, each world goes through every ninth: every one of four, once continued, and every
/// choice of any four places. The ledger's own test goes through all of five.
const LENGTH: usize = 5;
/// Calls that are under way at once.
const AT_ONCE: usize = 2_000;

/// One sequence of calls on one reservation.
struct Story {
    number: usize,
    ops: [Op; LENGTH],
    id: ReservationId,
    expected: Expected,
}

impl Story {
    fn payment(&self, which: usize) -> PaymentRef {
        id(&format!("p{which}-{}", self.number))
    }
}

/// Sequences in which time passes at the places of the mask, and nowhere else: those with this remainder.
fn sequences(mask: usize, remainder: usize) -> Vec<[Op; LENGTH]> {
    let mut all = vec![([Op::Expire; LENGTH], 0)];
    for place in (0..LENGTH).filter(|place| mask & (1 << place) == 0) {
        let longer = all.iter().flat_map(|(sequence, sum)| {
            (1..).zip(CALLS).map(move |(code, call)| {
                let mut sequence = *sequence;
                sequence[place] = call;
                (sequence, sum + code)
            })
        });
        all = longer.collect();
    }
    let kinds = CALLS.len() + 1;
    let kept = all.into_iter().filter(|(_, sum)| sum % kinds == remainder);
    kept.map(|(sequence, _)| sequence).collect()
}

async fn call(shop: &Shop, story: &Story, op: Op, restock: bool) -> Told {
    let (engine, now, reservation) = (&shop.engine, shop.now(), story.id);
    let refund = |name: Option<usize>| RefundRequest {
        refund_ref: name.map(|name| id(&format!("r{name}"))),
        restock,
        lines: name.map(|_| {
            [(id("a"), Quantity::of_line(1).unwrap())]
                .into_iter()
                .collect()
        }),
    };
    let outcome = match op {
        Op::Pay(which) => {
            let amount = Some(Money(200));
            let payment = story.payment(which);
            engine.confirm(reservation, &payment, amount, now).await
        }
        Op::PayWrong => {
            let payment = story.payment(0);
            engine
                .confirm(reservation, &payment, Some(Money(199)), now)
                .await
        }
        Op::Cancel => engine.cancel(Caller::Storefront, reservation, now).await,
        Op::Extend => engine.extend(reservation, now).await,
        Op::RefundOne(name) => engine.refund(reservation, &refund(Some(name)), now).await,
        Op::RefundAll => engine.refund(reservation, &refund(None), now).await,
        Op::Expire => {
            let read = engine.reservation(Caller::Storefront, reservation).await;
            return read.map(|reservation| view(story, &reservation));
        }
    };
    match outcome {
        Outcome::Stands(reservation) => Ok(view(story, &reservation)),
        Outcome::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn view(story: &Story, reservation: &Reservation) -> View {
    let paid_by = reservation.payment_ref.map(|payment| {
        (0..2)
            .find(|which| story.payment(*which) == payment)
            .unwrap()
    });
    View {
        state: reservation.state,
        refunded: reservation.lines[0].refunded_units,
        paid_by,
        expires_at: reservation.expires_at,
    }
}

/// Makes the calls of one place in all sequences that `takes` picks, and compares the answers.
async fn make_calls(
    shop: &Shop,
    stories: &mut [Story],
    place: usize,
    world: World,
    takes: impl Fn(Op) -> bool,
) {
    for chunk in stories.chunks_mut(AT_ONCE) {
        let taken = chunk.iter().filter(|story| takes(story.ops[place]));
        let calls = taken.map(|story| call(shop, story, story.ops[place], world.restock));
        let told = join_all(calls).await;
        let taken = chunk.iter_mut().filter(|story| takes(story.ops[place]));
        for (story, told) in taken.zip(told) {
            let expected = story.expected.apply(story.ops[place], world);
            assert_eq!(told, expected, "call {place} of {:?}, {world:?}", story.ops);
        }
    }
}

async fn through_all(mask: usize, world: World) {
    let remainder = usize::from(world.has_units) * 2 + usize::from(world.restock);
    let restarts_at = (mask * 7 + remainder) % LENGTH;
    let sequences = sequences(mask, remainder);
    if sequences.is_empty() {
        return;
    }
    let mut shop = Shop::open();
    let units = sequences.len() as u32 * UNITS;
    let mut definition = sale(units);
    definition["payment_window_s"] = json!(WINDOW.as_secs());
    definition["items"][0]["units_per_buyer_max"] = json!(null);
    shop.publish(definition).await;
    let mut stories = Vec::new();
    for (chunk, sequences) in sequences.chunks(AT_ONCE).enumerate() {
        let names = (0..sequences.len()).map(|index| format!("u{}", chunk * AT_ONCE + index));
        let names: Vec<_> = names.collect();
        let lines = [("a", u64::from(UNITS))];
        let buying = names.iter().map(|name| shop.buy(name, "k", &lines));
        for (outcome, ops) in join_all(buying).await.into_iter().zip(sequences) {
            let Outcome::Reserved(won) = outcome else {
                panic!("{outcome:?}")
            };
            stories.push(Story {
                number: stories.len(),
                ops: *ops,
                id: won.reservation_id,
                expected: Expected::reserved(won.expires_at),
            });
        }
    }
    let mut stock = u64::from(units);
    for place in 0..LENGTH {
        if mask & (1 << place) != 0 {
            tokio::time::sleep(WINDOW * 2 + Duration::from_millis(500)).await;
        }
        // Payments first: what the others give back is not for them.
        let pays = |op| matches!(op, Op::Pay(_) | Op::PayWrong);
        make_calls(&shop, &mut stories, place, world, pays).await;
        make_calls(&shop, &mut stories, place, world, |op| !pays(op)).await;
        // Again: the same answers, also where units came back meanwhile.
        make_calls(&shop, &mut stories, place, world, |_| true).await;
        if !world.has_units {
            let key = id(&format!("away-{place}"));
            let all = -i64::from(u32::MAX);
            let taken = shop
                .engine
                .change_stock(&id("s1"), &id("a"), &key, all, "none is left", who())
                .await;
            stock = stock.checked_add_signed(taken.unwrap()).unwrap();
        }
        if place == restarts_at {
            shop = shop.restart();
            let kept_until = shop.now().steady.plus(WINDOW);
            for story in &mut stories {
                if story.expected.view.state == ReservationState::Reserved {
                    let view = &mut story.expected.view;
                    view.expires_at = view.expires_at.max(kept_until);
                }
            }
            // Whatever was answered is answered so again.
            make_calls(&shop, &mut stories, place, world, |_| true).await;
        }
        let sum = |of: fn(&Expected) -> u32| -> u64 {
            stories
                .iter()
                .map(|story| u64::from(of(&story.expected)))
                .sum()
        };
        let (reserved, sold) = (sum(Expected::reserved_units), sum(Expected::sold_units));
        assert_eq!(shop.units(0), [0, stock - reserved - sold, reserved, sold]);
    }
    shop.command(SaleCommand::Pause).await;
    shop.audited().await;
    check_decisions(&shop, &stories);
    check_events(&shop, &stories).await;
}

fn check_decisions(shop: &Shop, stories: &[Story]) {
    let mut decided: HashMap<Serial, Vec<(DecisionKind, String)>> = HashMap::new();
    for row in shop.store.all_decisions() {
        if let Some(serial) = row.decision.reservation {
            let of_one = decided.entry(serial).or_default();
            of_one.push((row.decision.kind, row.decision.reference));
        }
    }
    for story in stories {
        let mut expected = Vec::new();
        for which in 0..2 {
            if let Some(decision) = story.expected.payments[which] {
                let kind = match decision {
                    Decision::Taken => DecisionKind::PaymentTaken,
                    Decision::RefusedExpired => DecisionKind::PaymentRefusedExpired,
                    Decision::RefusedConflict => DecisionKind::PaymentRefusedConflict,
                };
                expected.push((kind, story.payment(which).as_str().to_owned()));
            }
            if story.expected.refunds[which] {
                expected.push((DecisionKind::Refund, format!("r{which}")));
            }
        }
        let mut stored = decided.remove(&story.id.serial).unwrap_or_default();
        expected.sort_by(|one, other| one.1.cmp(&other.1));
        stored.sort_by(|one, other| one.1.cmp(&other.1));
        assert_eq!(stored, expected, "{:?}", story.ops);
    }
    assert!(decided.is_empty(), "{decided:?}");
}

async fn check_events(shop: &Shop, stories: &[Story]) {
    let told = shop
        .engine
        .events(&id("s1"), EventPlace::default(), usize::MAX)
        .await
        .unwrap();
    let mut events: HashMap<Serial, Vec<_>> = HashMap::new();
    for event in told {
        if let Some(serial) = event.reservation {
            events.entry(serial).or_default().push(event);
        }
    }
    for story in stories {
        let told = events.remove(&story.id.serial).unwrap();
        let told = told.iter().map(|event| {
            let payment = |which: usize| json!(story.payment(which));
            let data = &event.data;
            let paid_by = (0..2).find(|which| data["payment_ref"] == payment(*which));
            let view = View {
                state: serde_json::from_value(data["state"].clone()).unwrap(),
                refunded: data["lines"][0]["refunded_units"].as_u64().unwrap() as u32,
                paid_by,
                expires_at: serde_json::from_value(data["expires_at"].clone()).unwrap(),
            };
            (
                event.kind.as_str(),
                view,
                data["refund_due"]["reason"].as_str(),
            )
        });
        let told: Vec<_> = told.collect();
        // A restart keeps open reservations longer in memory; the store learns of it with an extension only.
        let is_kept = |view: View| View {
            expires_at: Timestamp(0),
            ..view
        };
        let same = told.len() == story.expected.events.len()
            && told
                .iter()
                .zip(&story.expected.events)
                .all(|(told, expected)| {
                    (told.0, is_kept(told.1), told.2)
                        == (expected.0, is_kept(expected.1), expected.2)
                });
        assert!(
            same,
            "{:?}: {told:#?}, expected {:#?}",
            story.ops, story.expected.events
        );
        for ((kind, view, _), expected) in told.iter().zip(&story.expected.events) {
            if matches!(*kind, "reservation.reserved" | "reservation.extended") {
                assert_eq!(view.expires_at, expected.1.expires_at, "{kind}");
            }
        }
    }
}

async fn all(has_units: bool, restock: bool) {
    for mask in 0..1 << LENGTH {
        through_all(mask, World { has_units, restock }).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_order_of_arrival_with_units_left_and_restocked() {
    all(true, true).await;
}

#[tokio::test(start_paused = true)]
async fn every_order_of_arrival_with_units_left_and_not_restocked() {
    all(true, false).await;
}

#[tokio::test(start_paused = true)]
async fn every_order_of_arrival_with_nothing_left_and_restocked() {
    all(false, true).await;
}

#[tokio::test(start_paused = true)]
async fn every_order_of_arrival_with_nothing_left_and_not_restocked() {
    all(false, false).await;
}
