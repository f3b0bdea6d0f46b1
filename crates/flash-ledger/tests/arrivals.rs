//! Every order of five calls in which payments, expiry, cancellation, extension and refunds can arrive, each made twice, with
//! a restart at a place that differs from one to the next, against the table of the contract.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

mod common;
/// The engine's test goes by the same table.
#[path = "../../flash-engine/tests/arrivals/table.rs"]
mod table;

use common::{KEY, buyer, key, merged, reserved};
use flash_ledger::{
    Begin, Command, Ledger, LedgerItem, LoadedLine, LoadedReservation, PaymentDecision,
};
use flash_types::{
    ItemIndex, ItemUnits, Money, PaymentRef, RefundRef, Refusal, ReservationState, Serial,
    Timestamp,
};
use table::{CALLS, Decision, Expected, Op, Told, UNITS, View, WINDOW, World};

const LENGTH: usize = 5;
const ITEM: ItemIndex = ItemIndex(0);
const SERIAL: Serial = Serial(1);

fn payment(which: usize) -> PaymentRef {
    PaymentRef::parse(["p0", "p1"][which]).unwrap()
}

fn refund_ref(which: usize) -> RefundRef {
    RefundRef::parse(["r0", "r1"][which]).unwrap()
}

fn ledger(units: ItemUnits) -> Ledger<u32> {
    let item = LedgerItem {
        units,
        units_per_buyer_max: None,
    };
    Ledger::with_sizes(&[item], KEY, 1, 1)
}

fn command(op: Op, restock: bool) -> Command {
    let refund = |name: Option<usize>| Command::Refund {
        refund_ref: name.map(refund_ref),
        restock,
        lines: name.map(|_| merged(&[(0, 1)])),
    };
    match op {
        Op::Pay(which) => Command::Confirm {
            payment_ref: payment(which),
            amount: Some(Money(200)),
        },
        Op::PayWrong => Command::Confirm {
            payment_ref: payment(0),
            amount: Some(Money(199)),
        },
        Op::Expire => Command::Expire,
        Op::Cancel => Command::Cancel,
        Op::Extend => Command::Extend { by: WINDOW },
        Op::RefundOne(name) => refund(Some(name)),
        Op::RefundAll => refund(None),
    }
}

fn view(ledger: &Ledger<u32>) -> View {
    let view = ledger.view(ledger.find(SERIAL).unwrap()).unwrap();
    View {
        state: view.state,
        refunded: view.lines[0].refunded_units,
        paid_by: view
            .payment_ref
            .map(|paid| (0..2).find(|which| payment(*which) == paid).unwrap()),
        expires_at: view.expires_at,
    }
}

/// What the engine tells of a command once it is durable.
fn call(ledger: &Ledger<u32>, op: Op, world: World) -> Told {
    match ledger.begin(SERIAL, &command(op, world.restock), 0) {
        Begin::Start(transition) => {
            ledger.finish(&transition);
            match transition.step {
                flash_ledger::Step::RefusePayment {
                    is_expired: true, ..
                } => Err(Refusal::ReservationExpired),
                flash_ledger::Step::RefusePayment { .. } => {
                    Err(Refusal::StateConflict { refund_due: true })
                }
                _ => Ok(view(ledger)),
            }
        }
        Begin::Stands(_) => Ok(view(ledger)),
        // Nobody asks for an expiry: where there is nothing to expire, nothing happens.
        Begin::Refused(_) if op == Op::Expire => Ok(view(ledger)),
        Begin::Refused(refusal) => Err(refusal),
        Begin::Wait(_) => panic!("nothing is in flight"),
    }
}

/// A ledger of what a store holds by the table alone.
fn restarted(expected: &Expected, units: ItemUnits) -> Ledger<u32> {
    let ledger = ledger(units);
    let View {
        state,
        refunded,
        paid_by,
        expires_at,
    } = expected.view;
    ledger.load(&LoadedReservation {
        serial: SERIAL,
        buyer: buyer("a"),
        key: key("k"),
        state,
        lines: [LoadedLine {
            item: ITEM,
            units: UNITS,
            unit_price_minor: Money(100),
            refunded_units: refunded,
            restocked_units: expected.restocked,
        }]
        .into_iter()
        .collect(),
        created_at: Timestamp(1),
        expires_at,
        is_extended: expected.is_extended,
        payment_ref: paid_by.map(payment),
    });
    for which in 0..2 {
        if let Some(decision) = expected.payments[which] {
            let decision = match decision {
                Decision::Taken => PaymentDecision::Taken,
                Decision::RefusedExpired => PaymentDecision::RefusedExpired,
                Decision::RefusedConflict => PaymentDecision::RefusedConflict,
            };
            ledger.load_payment(&payment(which), SERIAL, decision);
        }
        if expected.refunds[which] {
            let restock = expected.restocked > 0;
            ledger.load_refund(SERIAL, &refund_ref(which), restock, &[(ITEM, 1)]);
        }
    }
    ledger
}

fn sequence(mut number: usize) -> [Op; LENGTH] {
    [(); LENGTH].map(|()| {
        let op = number % (CALLS.len() + 1);
        number /= CALLS.len() + 1;
        CALLS.get(op).copied().unwrap_or(Op::Expire)
    })
}

fn go_through(number: usize, world: World) {
    let ops = sequence(number);
    let stock = ItemUnits {
        stock: UNITS.into(),
        available: UNITS.into(),
        ..ItemUnits::default()
    };
    let mut ledger = ledger(stock);
    reserved(&ledger, SERIAL.0, "a", "k", &[(0, UNITS)]);
    let mut expected = Expected::reserved(view(&ledger).expires_at);
    for (place, op) in ops.into_iter().enumerate() {
        let told = call(&ledger, op, world);
        assert_eq!(
            told,
            expected.apply(op, world),
            "call {place} of {ops:?}, {world:?}"
        );
        let again = call(&ledger, op, world);
        assert_eq!(again, told, "call {place} of {ops:?} again, {world:?}");
        assert_eq!(again, expected.apply(op, world), "by the table");
        assert_eq!(view(&ledger), expected.view, "after {place} of {ops:?}");
        let units = ledger.units(ITEM);
        assert_eq!(units.imbalance(), 0);
        assert_eq!(units.reserved, u64::from(expected.reserved_units()));
        assert_eq!(units.sold, u64::from(expected.sold_units()));
        if !world.has_units {
            let away = ledger.begin_stock_change(ITEM, -9).unwrap();
            ledger.finish_stock_change(&away);
        }
        if place == number % LENGTH {
            ledger = restarted(&expected, ledger.units(ITEM));
        }
    }
    let counts = ledger.reservations_by_state();
    let count = match expected.view.state {
        ReservationState::Unknown => counts.unknown,
        ReservationState::Reserved => counts.reserved,
        ReservationState::Confirmed => counts.confirmed,
        ReservationState::Released => counts.released,
        ReservationState::Expired => counts.expired,
        ReservationState::Refunded => counts.refunded,
    };
    assert_eq!(count, 1);
}

fn all(has_units: bool, restock: bool) {
    for number in 0..(CALLS.len() + 1).pow(LENGTH as u32) {
        go_through(number, World { has_units, restock });
    }
}

#[test]
fn every_order_with_units_left_and_restocked() {
    all(true, true);
}

#[test]
fn every_order_with_units_left_and_not_restocked() {
    all(true, false);
}

#[test]
fn every_order_with_nothing_left_and_restocked() {
    all(false, true);
}

#[test]
fn every_order_with_nothing_left_and_not_restocked() {
    all(false, false);
}
