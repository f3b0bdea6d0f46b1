//! The accumulator against sums of its own, over made-up rows in any order.

use flash_store::AttemptCount;
use flash_types::bounds;
use flash_types::{Durability, Money, PaymentRef, ReservationId, ReservationLine, SaleId, SaleNo};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::json;

use super::*;

const START_MS: i64 = 1_794_268_800_000;

fn plan(hours: i64) -> Plan {
    let item = |name: &str| json!({"item": name, "title": "=1+1, \"x\"", "sale_price_minor": 100, "stock_units": 10});
    let definition = json!({
        "sale_id": "s", "title": "@t", "currency": "CNY", "goal": {"orders": 3},
        "starts_at": Timestamp(START_MS), "ends_at": Timestamp(START_MS + hours * 3_600_000),
        "items": [item("a"), item("b"), item("-c")],
    });
    let units = ItemUnits {
        stock: 10,
        sold: 5,
        available: 5,
        ..ItemUnits::default()
    };
    Plan {
        definition: serde_json::from_value(definition).unwrap(),
        prices_minor: vec![100; 3],
        state: SaleState::Closed,
        units: vec![units; 3],
        is_retired: false,
    }
}

const STATES: [ReservationState; 6] = [
    ReservationState::Unknown,
    ReservationState::Reserved,
    ReservationState::Confirmed,
    ReservationState::Released,
    ReservationState::Expired,
    ReservationState::Refunded,
];

fn reservation() -> impl Strategy<Value = Reservation> {
    let line = (0..3usize, 1..5u32, 90..93i64, 0..5u32);
    let lines = prop::collection::vec(line, 1..3);
    (0..8u32, 0..6usize, lines, 0..7_200_000i64, 1..99u64).prop_map(
        |(buyer, state, lines, after_ms, serial)| {
            let lines: Vec<_> = lines
                .into_iter()
                .map(|(item, quantity, price, back)| ReservationLine {
                    item: ItemId::parse(["a", "b", "-c"][item]).unwrap(),
                    quantity,
                    unit_price_minor: Money(price),
                    refunded_units: match STATES[state] {
                        ReservationState::Refunded => quantity,
                        ReservationState::Confirmed => back.min(quantity),
                        ReservationState::Unknown
                        | ReservationState::Reserved
                        | ReservationState::Released
                        | ReservationState::Expired => 0,
                    },
                })
                .collect();
            let amount = lines
                .iter()
                .map(|l| l.unit_price_minor.0 * i64::from(l.quantity));
            Reservation {
                reservation_id: ReservationId {
                    sale_no: SaleNo(1),
                    serial: Serial(serial),
                },
                sale_id: SaleId::parse("s").unwrap(),
                buyer_id: BuyerId::parse(&format!("b{buyer}")).unwrap(),
                state: STATES[state],
                amount_minor: Money(amount.sum()),
                lines: lines.into_iter().collect(),
                currency: plan(1).definition.currency,
                created_at: Timestamp(START_MS + after_ms),
                expires_at: Timestamp(START_MS),
                payment_ref: None::<PaymentRef>,
                durability: Durability::Memory,
            }
        },
    )
}

fn attempts() -> impl Strategy<Value = AttemptsRow> {
    let words = ["sold_out", "replayed", "unknown", "rate_limited"];
    let count = (prop::option::of(0..3u16), 0..4usize, 1..9u64);
    let counts = prop::collection::vec(count, 1..5);
    (0..720i64, counts).prop_map(move |(slot, counts)| AttemptsRow {
        from: Timestamp(START_MS + slot * 10_000),
        counts: counts
            .into_iter()
            .map(|(item, word, attempts)| AttemptCount {
                item: item.map(ItemIndex),
                outcome: words[word].into(),
                attempts,
            })
            .collect(),
    })
}

fn report(hours: i64, reservations: &[Reservation], attempts: &[AttemptsRow]) -> Report {
    let mut report = Accumulator::new(plan(hours));
    attempts.iter().for_each(|row| report.add_attempts(row));
    reservations
        .iter()
        .for_each(|one| report.add_reservation(one));
    report.finish(Timestamp(START_MS))
}

fn sum<T>(rows: &[T], figure: impl Fn(&T) -> u64) -> u64 {
    rows.iter().map(figure).sum()
}

proptest! {
    #[test]
    fn parts_sum_to_wholes_and_the_order_of_rows_changes_nothing(
        reservations in prop::collection::vec(reservation(), 0..40),
        attempts in prop::collection::vec(attempts(), 0..40),
        hours in 1..3i64,
    ) {
        let made = report(hours, &reservations, &attempts);
        let mut turned = (reservations.clone(), attempts.clone());
        turned.0.reverse();
        turned.1.reverse();
        prop_assert_eq!(&report(hours, &turned.0, &turned.1), &made);

        let funnel = &made.funnel;
        let counted: u64 = attempts.iter().flat_map(|row| &row.counts).map(|c| c.attempts).sum();
        let refused = funnel.refused_attempts;
        prop_assert_eq!(funnel.attempts, counted + reservations.len() as u64);
        prop_assert_eq!(funnel.attempts, funnel.reserved.orders + refused
            + funnel.replayed_attempts + funnel.unknown_attempts);
        let parts = [funnel.open, funnel.in_flight, funnel.paid, funnel.released, funnel.expired];
        for figure in [|s: &Stage| s.orders, |s: &Stage| s.units, |s: &Stage| s.amount_minor.unsigned_abs()] {
            prop_assert_eq!(sum(&parts, figure), figure(&funnel.reserved));
        }
        let slots = &made.slots;
        prop_assert_eq!(sum(slots, |s| s.attempts), funnel.attempts);
        prop_assert_eq!(sum(slots, |s| s.refused_attempts), refused);
        for (of_slots, whole) in [
            ((sum(slots, |s| s.reserved_orders), sum(slots, |s| s.reserved_units),
              sum(slots, |s| s.reserved_amount_minor as u64)), funnel.reserved),
            ((sum(slots, |s| s.paid_orders), sum(slots, |s| s.paid_units),
              sum(slots, |s| s.paid_amount_minor as u64)), funnel.paid),
        ] {
            prop_assert_eq!(of_slots, (whole.orders, whole.units, whole.amount_minor as u64));
        }
        prop_assert!(slots.len() <= slots::SLOTS_MAX && slots.is_sorted_by(|a, b| a.from < b.from));
        prop_assert_eq!(made.slot_s, if hours == 1 { 10 } else { 60 });
        let best = slots.iter().map(|s| s.paid_units).max().filter(|_| !reservations.is_empty());
        prop_assert_eq!(made.best_slot.map(|s| s.paid_units), best);

        let items = &made.items;
        prop_assert_eq!(sum(items, |i| i.reserved_units), funnel.reserved.units);
        prop_assert_eq!(sum(items, |i| i.paid_units), funnel.paid.units);
        prop_assert_eq!(sum(items, |i| i.refunded_units), funnel.refunded.units);
        prop_assert_eq!(sum(items, |i| i.revenue_gross_minor as u64), funnel.paid.amount_minor as u64);
        prop_assert_eq!(sum(items, |i| i.refunded_minor as u64), funnel.refunded.amount_minor as u64);
        for item in items {
            prop_assert_eq!(sum(&item.sold_at, |s| s.reserved_units), item.reserved_units);
            prop_assert_eq!(sum(&item.sold_at, |s| s.paid_units), item.paid_units);
            prop_assert_eq!(item.demand, item.reserved_units + item.refused_attempts);
            prop_assert_eq!(item.demand_over_stock_bp, Some(item.demand * 1_000));
        }
        prop_assert_eq!(sum(&made.refusals, |r| r.attempts), refused);
        for refusals in &made.refusals {
            prop_assert_eq!(sum(&refusals.items, |i| i.attempts), refusals.attempts);
        }
        let buyers = &made.buyers;
        prop_assert_eq!(buyers.new + buyers.returning, buyers.paid);
        prop_assert_eq!(made.goal.unwrap().paid_orders, funnel.paid.orders);
        // Whoever paid in an earlier sale is no new buyer.
        let mut again = Accumulator::new(plan(hours));
        reservations.iter().for_each(|one| again.add_reservation(one));
        reservations.iter().for_each(|one| again.add_earlier(one));
        let again = again.finish(Timestamp(START_MS)).buyers;
        prop_assert_eq!((again.new, again.returning), (0, buyers.paid));
    }
}

#[test]
fn a_long_sale_has_few_slots() {
    let row = |minute: i64| AttemptsRow {
        from: Timestamp(START_MS + minute * 60_000),
        counts: vec![AttemptCount {
            item: None,
            outcome: "sold_out".into(),
            attempts: 1,
        }],
    };
    let mut rows: Vec<_> = (0..1_440).map(row).collect();
    let orders: Vec<_> = (0..1_440)
        .map(|minute| {
            let mut one = reservation_of(1);
            one.state = ReservationState::Confirmed;
            one.created_at = row(minute).from;
            one
        })
        .collect();
    let made = report(24, &orders, &rows);
    assert_eq!((made.slot_s, made.slots.len()), (600, 144));
    let (units, minor) = (
        made.funnel.paid.units / 144,
        made.funnel.paid.amount_minor / 144,
    );
    for slot in &made.slots {
        let whole = Slot {
            from: slot.from,
            attempts: 20,
            refused_attempts: 10,
            reserved_orders: 10,
            reserved_units: units,
            reserved_amount_minor: minor,
            paid_orders: 10,
            paid_units: units,
            paid_amount_minor: minor,
        };
        assert_eq!(*slot, whole);
    }
    rows.extend((0..40_000).map(|hour| row(hour * 60)));
    let made = report(24, &[], &rows);
    assert!(made.slots.len() <= slots::SLOTS_MAX, "{}", made.slots.len());
    assert_eq!(sum(&made.slots, |slot| slot.attempts), 41_440);
    assert_eq!(made.best_slot, None, "nothing was reserved");
}

#[test]
fn an_item_is_sold_out_when_its_last_unit_is_taken_first() {
    let lines = |units: u32| json!({"lines": [{"item": "a", "quantity": units}]});
    let refund = |units: u32, restock: bool| {
        let refund = json!({"restock": restock, "lines": [{"item": "a", "quantity": units}]});
        json!({"lines": [{"item": "a", "quantity": 9}], "refund": refund})
    };
    let stock = |delta: i64| json!({"item": "a", "applied_delta_units": delta});
    let price = json!({"item": "a", "old_price_minor": 90, "sale_price_minor": 95});
    let steps = [
        ("sale.opened", 0, json!({})),
        ("reservation.reserved", 1, lines(6)),
        ("reservation.reserved", 2, lines(3)),
        ("reservation.expired", 2, lines(3)),
        ("sale.stock_changed", 0, stock(2)),
        ("sale.price_changed", 0, price),
        ("reservation.confirmed", 2, lines(3)), // late: 9 of 12
        ("reservation.confirmed", 1, lines(6)),
        ("reservation.refunded", 1, refund(1, true)), // 8 of 12
        ("reservation.refunded", 1, refund(1, false)),
        ("reservation.reserved", 3, lines(3)), // 11 of 12
        ("reservation.released", 3, lines(3)),
        ("reservation.reserved", 4, lines(4)), // 12 of 12
        ("reservation.released", 4, lines(4)),
        ("reservation.reserved", 5, lines(4)),
        ("sale.closed", 0, json!({})),
    ];
    let mut report = Accumulator::new(plan(1));
    for (second, (kind, serial, data)) in (0..).zip(&steps) {
        report.add_event(&Event {
            kind,
            at: Timestamp(START_MS + second * 1_000),
            reservation: (*serial > 0).then_some(Serial(*serial)),
            data,
        });
    }
    let report = report.finish(Timestamp(START_MS));
    let at = |second: i64| Some(Timestamp(START_MS + second * 1_000));
    let item = &report.items[0];
    assert_eq!(item.sold_out_at, at(12));
    assert_eq!(item.time_to_sell_out_ms, Some(12_000));
    assert_eq!(report.items[1].sold_out_at, None);
    let prices: Vec<_> = item
        .prices
        .iter()
        .map(|p| (p.from, p.unit_price_minor))
        .collect();
    assert_eq!(prices, [(None, 90), (at(5), 95)]);
    assert_eq!(
        (report.window.opened_at, report.window.closed_at),
        (at(0), at(15))
    );
}

#[test]
fn a_row_is_a_figure_and_no_formula() {
    let row = AttemptsRow {
        from: Timestamp(START_MS),
        counts: vec![AttemptCount {
            item: Some(ItemIndex(2)),
            outcome: "sold_out".into(),
            attempts: 7,
        }],
    };
    let text = csv(&report(1, &[], &[row]));
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines[0], "section,key,item,slot,value");
    for expected in [
        "sale,title,,,'@t",
        "items,title,a,,\"'=1+1, \"\"x\"\"\"",
        "items,stock_units,'-c,,10",
        "refusals,sold_out,,,7",
        "refusals_by_item,sold_out,'-c,,7",
        "slots,attempts,,2026-11-10T00:00:00.000Z,7",
    ] {
        assert!(lines.contains(&expected), "{expected}: {text}");
    }
    let is_whole =
        |line: &str| line.is_empty() || line.contains('"') || line.split(',').count() == 5;
    assert!(lines.iter().copied().all(is_whole), "{text}");
}

#[test]
fn what_cannot_be_told_is_said() {
    let mut plan = plan(1);
    plan.state = SaleState::Open;
    plan.is_retired = true;
    let mut made = Accumulator::new(plan);
    made.left_out_earlier(2);
    let mut one = reservation_of(1);
    made.add_reservation(&one);
    one.reservation_id.serial = Serial(bounds::SERIALS_PER_EPOCH * 3 + 1);
    one.state = ReservationState::Unknown;
    made.add_reservation(&one);
    let notes = made.finish(Timestamp(START_MS)).notes;
    let codes: Vec<_> = notes.iter().map(|note| note.code).collect();
    let told = [
        "not_over",
        "in_flight",
        "restarted",
        "no_counts",
        "retired",
        "earlier_left_out",
    ];
    assert_eq!(codes, told);
    let row = |outcome: &str| AttemptsRow {
        from: Timestamp(START_MS),
        counts: vec![AttemptCount {
            item: None,
            outcome: outcome.into(),
            attempts: 1,
        }],
    };
    let notes = report(1, &[], &[row("unknown")]).notes;
    assert_eq!(notes.len(), 1);
    assert_eq!(notes[0].code, "unknown_attempts");
    assert_eq!(report(1, &[], &[row("sold_out")]).notes, []);
}

fn reservation_of(serial: u64) -> Reservation {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut one = reservation().new_tree(&mut runner).unwrap().current();
    one.reservation_id.serial = Serial(serial);
    one.state = ReservationState::Reserved;
    one
}
