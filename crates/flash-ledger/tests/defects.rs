//! Defects that other systems shipped, as far as stock, keys, payments and limits are concerned: none of them here.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;

use std::time::Duration;

use common::{KEY, buyer, counters, key, ledger, merged, price, priced, released, reserved, take};
use flash_ledger::{
    Begin, Command, Ledger, LedgerItem, LoadedLine, LoadedReservation, PaymentDecision, Reserve,
    Step, Transition,
};
use flash_types::{
    ItemIndex, ItemUnits, Money, PaymentRef, RefundRef, Refusal, ReservationState, Serial,
    Timestamp,
};

const ITEM: ItemIndex = ItemIndex(0);
const CONFLICT: Begin<u32> = Begin::Refused(Refusal::StateConflict { refund_due: false });
const REFUND_DUE: Begin<u32> = Begin::Refused(Refusal::StateConflict { refund_due: true });

fn payment(name: &str) -> PaymentRef {
    PaymentRef::parse(name).unwrap()
}

fn confirm(name: &str) -> Command {
    Command::Confirm {
        payment_ref: payment(name),
        amount: None,
    }
}

fn refund(name: Option<&str>, restock: bool, lines: Option<&[(u16, u32)]>) -> Command {
    Command::Refund {
        refund_ref: name.map(|name| RefundRef::parse(name).unwrap()),
        restock,
        lines: lines.map(merged),
    }
}

fn begun(ledger: &Ledger<u32>, serial: Serial, command: &Command) -> Transition {
    match ledger.begin(serial, command, 9) {
        Begin::Start(transition) => transition,
        refused @ (Begin::Stands(_) | Begin::Refused(_) | Begin::Wait(_)) => panic!("{refused:?}"),
    }
}

/// Begins and commits.
fn done(ledger: &Ledger<u32>, serial: Serial, command: &Command) {
    ledger.finish(&begun(ledger, serial, command));
}

fn state(ledger: &Ledger<u32>, serial: Serial) -> ReservationState {
    ledger.view(ledger.find(serial).unwrap()).unwrap().state
}

#[test]
fn a_refused_duplicate_burns_no_stock() {
    let ledger = ledger(&[released(5, None)]);
    reserved(&ledger, 1, "a", "k", &[(0, 2)]);
    for lines in [[(0, 2)], [(0, 3)]] {
        let answer = ledger.reserve(&buyer("a"), &key("k"), &priced(&lines), 2);
        let Reserve::Won(won) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!((won.is_same, won.in_flight), (lines == [(0, 2)], None));
    }
    assert_eq!(counters(&ledger, 0), [5, 0, 3, 2, 0]);
}

#[test]
fn a_call_before_the_opening_burns_no_stock() {
    let ledger = ledger(&[LedgerItem {
        units: ItemUnits {
            stock: 3,
            unreleased: 3,
            ..ItemUnits::default()
        },
        units_per_buyer_max: None,
    }]);
    let early = ledger.reserve(&buyer("a"), &key("k"), &priced(&[(0, 1)]), 1);
    assert_eq!(
        early,
        Reserve::Short {
            item: ITEM,
            available_units: 0
        }
    );
    assert!(
        !ledger.is_drained(ITEM),
        "what is not released yet may still come"
    );
    ledger.release_all(&[]);
    assert_eq!(counters(&ledger, 0), [3, 0, 3, 0, 0]);
    // Refusals are not remembered: the same key may win later.
    take(&ledger, "a", "k", &[(0, 1)]);
}

#[test]
fn sold_out_does_not_stick_after_units_came_back() {
    let ledger = ledger(&[released(1, None)]);
    let record = take(&ledger, "a", "k", &[(0, 1)]);
    let refused = ledger.reserve(&buyer("b"), &key("k"), &priced(&[(0, 1)]), 2);
    assert!(matches!(refused, Reserve::Short { .. }));
    assert_eq!(
        ledger.won(&buyer("b"), &key("k"), Some(&merged(&[(0, 1)]))),
        None
    );
    ledger.abort_reserve(record);
    take(&ledger, "b", "k", &[(0, 1)]);
}

#[test]
fn the_counter_does_not_pass_zero_and_a_large_order_does_not_end_the_sale() {
    let ledger = ledger(&[released(2, None)]);
    let answer = ledger.reserve(&buyer("a"), &key("k"), &priced(&[(0, 3)]), 1);
    assert_eq!(
        answer,
        Reserve::Short {
            item: ITEM,
            available_units: 2
        }
    );
    take(&ledger, "b", "k", &[(0, 2)]);
    assert_eq!(counters(&ledger, 0), [2, 0, 0, 2, 0]);
}

#[test]
fn a_reservation_that_was_not_applied_leaves_nothing() {
    let ledger = ledger(&[released(2, Some(1))]);
    let record = take(&ledger, "a", "k", &[(0, 1)]);
    ledger.numbered(record, Serial(4));
    assert_eq!(ledger.find(Serial(4)), Some(record));
    ledger.abort_reserve(record);
    assert_eq!((ledger.find(Serial(4)), ledger.view(record)), (None, None));
    assert_eq!(
        ledger.begin(Serial(4), &confirm("p"), 1),
        Begin::Refused(Refusal::NotFound)
    );
    assert_eq!(ledger.won(&buyer("a"), &key("k"), None), None);
    assert_eq!(counters(&ledger, 0), [2, 0, 2, 0, 0]);
    // Neither the key nor the limit is spent; the old reference does not find the new reservation.
    take(&ledger, "a", "k", &[(0, 1)]);
    assert_eq!(ledger.view(record), None);
}

#[test]
fn an_undecided_winner_is_neither_lost_nor_told_as_failed() {
    let ledger = ledger(&[released(1, None)]);
    let record = take(&ledger, "a", "k", &[(0, 1)]);
    ledger.numbered(record, Serial(1));
    let won = ledger
        .won(&buyer("a"), &key("k"), Some(&merged(&[(0, 1)])))
        .unwrap();
    assert_eq!(
        (won.record, won.is_same, won.in_flight),
        (record, true, Some(1))
    );
    assert_eq!(state(&ledger, Serial(1)), ReservationState::Unknown);
    for command in [confirm("p"), Command::Cancel, Command::Expire] {
        assert_eq!(ledger.begin(Serial(1), &command, 2), Begin::Wait(1));
    }
    assert!(
        !ledger.is_drained(ITEM),
        "an unanswered unit may still come back"
    );
}

#[test]
fn paid_late_takes_the_units_again_or_is_refused_for_ever() {
    let ledger = ledger(&[released(1, Some(1))]);
    let first = reserved(&ledger, 1, "a", "k1", &[(0, 1)]);
    done(&ledger, first, &Command::Expire);
    let second = reserved(&ledger, 2, "b", "k", &[(0, 1)]);
    let refused = begun(&ledger, first, &confirm("late"));
    assert!(matches!(
        refused.step,
        Step::RefusePayment {
            is_expired: true,
            ..
        }
    ));
    ledger.finish(&refused);
    done(&ledger, second, &Command::Cancel);
    // The units are back, the decision stays; another payment may try.
    assert_eq!(
        ledger.begin(first, &confirm("late"), 1),
        Begin::Refused(Refusal::ReservationExpired)
    );
    done(&ledger, first, &confirm("later"));
    assert_eq!(state(&ledger, first), ReservationState::Confirmed);
    assert_eq!(counters(&ledger, 0), [1, 0, 0, 0, 1]);
    // It counts against the limit again.
    assert_eq!(
        ledger.reserve(&buyer("a"), &key("k2"), &priced(&[(0, 1)]), 1),
        Reserve::Limit(ITEM)
    );
}

#[test]
fn a_late_payment_does_not_ask_for_the_limit() {
    let ledger = ledger(&[released(5, Some(1))]);
    let first = reserved(&ledger, 1, "a", "k1", &[(0, 1)]);
    done(&ledger, first, &Command::Expire);
    let second = reserved(&ledger, 2, "a", "k2", &[(0, 1)]);
    done(&ledger, first, &confirm("p1"));
    done(&ledger, second, &confirm("p2"));
    assert_eq!(counters(&ledger, 0), [5, 0, 3, 0, 2]);
    done(&ledger, first, &refund(None, true, None));
    assert_eq!(
        ledger.reserve(&buyer("a"), &key("k3"), &priced(&[(0, 1)]), 1),
        Reserve::Limit(ITEM)
    );
}

#[test]
fn a_late_payment_of_several_items_takes_all_or_none() {
    let ledger = ledger(&[released(2, None), released(1, None)]);
    let first = reserved(&ledger, 1, "a", "k", &[(0, 1), (1, 1)]);
    done(&ledger, first, &Command::Expire);
    reserved(&ledger, 2, "b", "k", &[(1, 1)]);
    done(&ledger, first, &confirm("p"));
    assert_eq!(state(&ledger, first), ReservationState::Expired);
    assert_eq!(counters(&ledger, 0), [2, 0, 2, 0, 0]);
    assert_eq!(counters(&ledger, 1), [1, 0, 0, 1, 0]);
}

#[test]
fn cancel_and_payment_at_once_end_in_one_of_them() {
    let ledger = ledger(&[released(1, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 1)]);
    let cancel = begun(&ledger, serial, &Command::Cancel);
    assert_eq!(ledger.begin(serial, &confirm("p"), 2), Begin::Wait(9));
    assert_eq!(state(&ledger, serial), ReservationState::Reserved);
    ledger.finish(&cancel);
    let refused = begun(&ledger, serial, &confirm("p"));
    assert!(matches!(
        refused.step,
        Step::RefusePayment {
            is_expired: false,
            ..
        }
    ));
    ledger.finish(&refused);
    assert_eq!(ledger.begin(serial, &confirm("p"), 2), REFUND_DUE);
    assert_eq!(counters(&ledger, 0), [1, 0, 1, 0, 0]);
}

#[test]
fn units_are_given_back_once() {
    let ledger = ledger(&[released(1, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 1)]);
    done(&ledger, serial, &Command::Cancel);
    assert!(matches!(
        ledger.begin(serial, &Command::Cancel, 1),
        Begin::Stands(_)
    ));
    assert_eq!(ledger.begin(serial, &Command::Expire, 1), CONFLICT);
    let other = reserved(&ledger, 2, "b", "k", &[(0, 1)]);
    done(&ledger, other, &Command::Expire);
    assert_eq!(ledger.begin(other, &Command::Cancel, 1), CONFLICT);
    assert_eq!(counters(&ledger, 0), [1, 0, 1, 0, 0]);
}

#[test]
fn a_released_key_stays_spent() {
    let ledger = ledger(&[released(1, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 1)]);
    done(&ledger, serial, &Command::Cancel);
    let answer = ledger.reserve(&buyer("a"), &key("k"), &priced(&[(0, 1)]), 1);
    assert!(matches!(answer, Reserve::Won(won) if won.is_same && won.in_flight.is_none()));
}

#[test]
fn a_payment_belongs_to_one_reservation() {
    let ledger = ledger(&[released(3, None)]);
    let reused = Begin::Refused(Refusal::PaymentRefReused);
    let [first, second] = [1, 2].map(|n| reserved(&ledger, n, "a", &n.to_string(), &[(0, 1)]));
    let paying = begun(&ledger, first, &confirm("p"));
    assert_eq!(
        ledger.begin(second, &confirm("p"), 1),
        reused,
        "while it is in flight"
    );
    ledger.abort(&paying);
    let paying = begun(&ledger, second, &confirm("p"));
    ledger.finish(&paying);
    assert_eq!(ledger.begin(first, &confirm("p"), 1), reused);
    assert!(matches!(
        ledger.begin(second, &confirm("p"), 1),
        Begin::Stands(_)
    ));
    // Paid twice: the second payment has to go back, for ever.
    done(&ledger, second, &confirm("q"));
    assert_eq!(ledger.begin(second, &confirm("q"), 1), REFUND_DUE);
    assert_eq!(ledger.begin(first, &confirm("q"), 1), reused);
    assert_eq!(counters(&ledger, 0), [3, 0, 1, 1, 1]);
}

#[test]
fn another_amount_records_nothing() {
    let ledger = ledger(&[released(3, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 2)]);
    let paid = |amount| Command::Confirm {
        payment_ref: payment("p"),
        amount: Some(amount),
    };
    assert_eq!(ledger.begin(serial, &paid(price(0)), 1), CONFLICT);
    done(&ledger, serial, &paid(price(0).times(2)));
    // Decided: the amount is not looked at again.
    assert!(matches!(
        ledger.begin(serial, &paid(Money(1)), 1),
        Begin::Stands(_)
    ));
}

#[test]
fn a_payment_stays_taken_after_a_refund() {
    let ledger = ledger(&[released(1, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 1)]);
    done(&ledger, serial, &confirm("p"));
    done(&ledger, serial, &refund(Some("r"), true, None));
    assert_eq!(state(&ledger, serial), ReservationState::Refunded);
    assert!(matches!(
        ledger.begin(serial, &confirm("p"), 1),
        Begin::Stands(_)
    ));
    assert!(matches!(
        ledger.begin(serial, &refund(Some("r"), true, None), 1),
        Begin::Stands(_)
    ));
    assert_eq!(
        ledger.begin(serial, &refund(Some("r"), false, None), 1),
        Begin::Refused(Refusal::IdempotencyKeyReused)
    );
    assert_eq!(
        ledger.begin(serial, &refund(Some("s"), true, None), 1),
        CONFLICT
    );
    assert!(matches!(
        ledger.begin(serial, &refund(None, true, None), 1),
        Begin::Stands(_)
    ));
    assert_eq!(counters(&ledger, 0), [1, 0, 1, 0, 0]);
}

#[test]
fn no_more_is_refunded_than_was_bought() {
    let ledger = ledger(&[released(9, None), released(9, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 3), (1, 1)]);
    assert_eq!(
        ledger.begin(serial, &refund(Some("r"), true, None), 1),
        CONFLICT,
        "not paid"
    );
    done(&ledger, serial, &confirm("p"));
    done(&ledger, serial, &refund(Some("r1"), false, Some(&[(0, 2)])));
    assert_eq!(
        counters(&ledger, 0),
        [9, 0, 6, 0, 3],
        "refunded units stay sold without restock"
    );
    let refused: [&[(u16, u32)]; 3] = [&[(0, 2)], &[(0, 1), (1, 2)], &[(2, 1)]];
    for lines in refused {
        assert_eq!(
            ledger.begin(serial, &refund(Some("r2"), true, Some(lines)), 1),
            CONFLICT
        );
    }
    assert_eq!(
        ledger.begin(serial, &refund(None, true, Some(&[(0, 1)])), 1),
        CONFLICT
    );
    done(
        &ledger,
        serial,
        &refund(None, true, Some(&[(0, 1), (1, 1)])),
    );
    assert_eq!(state(&ledger, serial), ReservationState::Refunded);
    assert_eq!(counters(&ledger, 0), [9, 0, 7, 0, 2]);
    assert_eq!(counters(&ledger, 1), [9, 0, 9, 0, 0]);
}

#[test]
fn a_part_is_not_told_as_the_whole_nor_kept_as_restocked() {
    let ledger = ledger(&[released(3, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 3)]);
    done(&ledger, serial, &confirm("p"));
    done(&ledger, serial, &refund(Some("r1"), false, Some(&[(0, 1)])));
    assert_eq!(
        ledger.begin(serial, &refund(Some("r1"), false, None), 1),
        Begin::Refused(Refusal::IdempotencyKeyReused),
        "one of three is not all"
    );
    done(&ledger, serial, &refund(None, false, None));
    assert!(matches!(
        ledger.begin(serial, &refund(None, false, None), 1),
        Begin::Stands(_)
    ));
    assert_eq!(
        ledger.begin(serial, &refund(None, true, None), 1),
        CONFLICT,
        "nothing came back on sale"
    );
}

#[test]
fn a_limit_counts_over_the_whole_sale_and_what_is_in_flight() {
    let ledger = ledger(&[released(9, Some(2)), released(9, None)]);
    let full = Reserve::Limit(ITEM);
    let ask =
        |name: &str, units| ledger.reserve(&buyer("a"), &key(name), &priced(&[(0, units)]), 1);
    assert_eq!(ask("k0", 3), full);
    let flying = take(&ledger, "a", "k1", &[(0, 1)]);
    assert_eq!(ask("k2", 2), full, "the first is in flight");
    ledger.abort_reserve(flying);
    let serial = reserved(&ledger, 1, "a", "k2", &[(0, 2), (1, 5)]);
    assert_eq!(ask("k3", 1), full);
    done(&ledger, serial, &confirm("p"));
    assert_eq!(ask("k3", 1), full);
    done(&ledger, serial, &refund(Some("r1"), false, Some(&[(0, 1)])));
    assert_eq!(ask("k3", 1), full, "refunded without restock");
    done(&ledger, serial, &refund(Some("r2"), true, Some(&[(0, 1)])));
    let again = reserved(&ledger, 2, "a", "k3", &[(0, 1)]);
    assert_eq!(ask("k4", 1), full);
    done(&ledger, again, &Command::Expire);
    reserved(&ledger, 3, "a", "k4", &[(0, 1)]);
    take(&ledger, "b", "k", &[(0, 2)]);
}

#[test]
#[should_panic(expected = "lines ascend by item, each once")]
fn two_lines_of_one_item_cannot_pass_two_checks() {
    let ledger = ledger(&[released(9, Some(1))]);
    let _ = ledger.reserve(&buyer("a"), &key("k"), &priced(&[(0, 1), (0, 1)]), 1);
}

#[test]
fn an_order_of_several_items_is_not_half_reserved() {
    let ledger = ledger(&[released(5, None), released(5, None), released(1, None)]);
    let answer = ledger.reserve(
        &buyer("a"),
        &key("k"),
        &priced(&[(0, 1), (1, 1), (2, 2)]),
        1,
    );
    assert_eq!(
        answer,
        Reserve::Short {
            item: ItemIndex(2),
            available_units: 1
        }
    );
    assert_eq!([0, 1, 2].map(|item| counters(&ledger, item)[2]), [5, 5, 1]);
}

#[test]
fn everything_is_remembered_after_a_restart() {
    let units = ItemUnits {
        stock: 9,
        available: 5,
        reserved: 2,
        sold: 2,
        unreleased: 0,
    };
    let ledger: Ledger<u32> = Ledger::new(
        &[LedgerItem {
            units,
            units_per_buyer_max: Some(4),
        }],
        KEY,
    );
    let row = |serial, name: &str, state, refunded_units, restocked_units, paid: Option<&str>| {
        ledger.load(&LoadedReservation {
            serial: Serial(serial),
            buyer: buyer("a"),
            key: key(name),
            state,
            lines: [LoadedLine {
                item: ITEM,
                units: 2,
                unit_price_minor: price(0),
                refunded_units,
                restocked_units,
            }]
            .into_iter()
            .collect(),
            created_at: Timestamp(0),
            expires_at: Timestamp(50),
            is_extended: false,
            payment_ref: paid.map(payment),
        });
    };
    row(1, "k1", ReservationState::Reserved, 0, 0, None);
    row(2, "k2", ReservationState::Confirmed, 1, 0, Some("p2"));
    row(3, "k3", ReservationState::Expired, 0, 0, None);
    ledger.load_payment(&payment("p2"), Serial(2), PaymentDecision::Taken);
    ledger.load_payment(&payment("p3"), Serial(3), PaymentDecision::RefusedExpired);
    ledger.load_refund(
        Serial(2),
        &RefundRef::parse("r").unwrap(),
        false,
        &[(ITEM, 1)],
    );
    ledger.extend_expiry(Timestamp(80));

    for name in ["k1", "k2", "k3"] {
        assert!(
            ledger
                .won(&buyer("a"), &key(name), Some(&merged(&[(0, 2)])))
                .unwrap()
                .is_same
        );
    }
    let more = ledger.reserve(&buyer("a"), &key("k4"), &priced(&[(0, 1)]), 1);
    assert_eq!(more, Reserve::Limit(ITEM));
    assert!(matches!(
        ledger.begin(Serial(2), &confirm("p2"), 1),
        Begin::Stands(_)
    ));
    assert_eq!(
        ledger.begin(Serial(3), &confirm("p3"), 1),
        Begin::Refused(Refusal::ReservationExpired)
    );
    let replay = refund(Some("r"), false, Some(&[(0, 1)]));
    assert!(matches!(
        ledger.begin(Serial(2), &replay, 1),
        Begin::Stands(_)
    ));
    assert_eq!(ledger.next_due_at(), Some(Timestamp(80)));
    let mut due = Vec::new();
    ledger.due(Timestamp(79), 9, &mut due);
    assert_eq!(due, []);
    ledger.due(Timestamp(80), 9, &mut due);
    assert_eq!(due, [Serial(1)]);
    let sums = ledger.sums()[0];
    assert_eq!((sums.reserved, sums.sold, sums.in_flight), (2, 2, 0));
}

#[test]
fn what_was_in_flight_when_due_is_found_later() {
    let ledger = ledger(&[released(3, None)]);
    let [first, second, third] =
        [1, 2, 3].map(|n| reserved(&ledger, n, "a", &n.to_string(), &[(0, 1)]));
    let paying = begun(&ledger, second, &confirm("p"));
    let due = |limit| {
        let mut due = Vec::new();
        ledger.due(Timestamp(5_000), limit, &mut due);
        due
    };
    assert_eq!(due(9), [first, third]);
    assert_eq!(due(1), [first]);
    done(&ledger, first, &Command::Expire);
    done(&ledger, third, &Command::Expire);
    assert_eq!(due(9), []);
    assert_eq!(ledger.next_due_at(), Some(Timestamp(1_002)));
    ledger.abort(&paying);
    assert_eq!(due(9), [second]);
}

fn due_at(ledger: &Ledger<u32>, now: i64, limit: usize) -> Vec<Serial> {
    let mut due = Vec::new();
    ledger.due(Timestamp(now), limit, &mut due);
    due
}

const EXTEND: Command = Command::Extend {
    by: Duration::from_millis(1_000),
};

#[test]
fn an_extended_reservation_neither_expires_early_nor_holds_up_the_others() {
    let ledger = ledger(&[released(9, None)]);
    let [first, second, third] =
        [1, 2, 3].map(|n| reserved(&ledger, n, "a", &n.to_string(), &[(0, 1)]));
    // While it is on its way it is not due, and the others are.
    let extending = begun(&ledger, first, &EXTEND);
    assert_eq!(due_at(&ledger, 1_500, 9), [second, third]);
    ledger.abort(&extending);
    assert_eq!(due_at(&ledger, 1_500, 9), [first, second, third]);
    done(&ledger, first, &EXTEND);
    done(&ledger, third, &EXTEND);
    assert!(
        matches!(ledger.begin(first, &EXTEND, 1), Begin::Stands(_)),
        "once"
    );
    assert_eq!(ledger.next_due_at(), Some(Timestamp(1_002)));
    assert_eq!(due_at(&ledger, 1_001, 9), []);
    assert_eq!(due_at(&ledger, 2_000, 9), [second]);
    done(&ledger, second, &Command::Expire);
    assert_eq!(ledger.next_due_at(), Some(Timestamp(2_001)));
    assert_eq!(due_at(&ledger, 2_000, 9), []);
    assert_eq!(due_at(&ledger, 2_002, 9), [first], "at its own time");
    assert_eq!(due_at(&ledger, 2_003, 9), [first, third], "each stays due");
    assert_eq!(due_at(&ledger, 2_003, 1), [first]);
    done(&ledger, third, &confirm("p"));
    done(&ledger, first, &Command::Expire);
    assert_eq!(due_at(&ledger, 9_000, 9), []);
    assert_eq!(
        ledger.next_due_at(),
        None,
        "nobody is woken for what is over"
    );
    assert_eq!(ledger.begin(first, &EXTEND, 1), CONFLICT);
}

#[test]
fn more_time_to_pay_takes_nothing_from_a_grace_that_came_meanwhile() {
    let ledger = ledger(&[released(9, None)]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 1)]);
    let extending = begun(&ledger, serial, &EXTEND);
    // The store was away, and took it after it had come back: nobody could pay meanwhile.
    ledger.extend_expiry(Timestamp(60_000));
    ledger.finish(&extending);
    assert_eq!(due_at(&ledger, 59_999, 9), []);
    assert_eq!(due_at(&ledger, 60_000, 9), [serial]);
}

#[test]
fn the_cursor_does_not_walk_extended_reservations_again_and_again() {
    const OPEN: u64 = 20_000;
    const LOOKS: u32 = 2_000;
    let ledger = ledger(&[released(OPEN + 1, None)]);
    let time_of_looks = |ledger: &Ledger<u32>| {
        let began = std::time::Instant::now();
        for _ in 0..LOOKS {
            assert_eq!(due_at(ledger, 0, 9), []);
        }
        began.elapsed()
    };
    for n in 1..=OPEN {
        let serial = reserved(&ledger, n, "a", &n.to_string(), &[(0, 1)]);
        done(&ledger, serial, &EXTEND);
    }
    reserved(&ledger, OPEN + 1, "b", "k", &[(0, 1)]);
    // The first look moves the cursor; then a look is one look, however many wait before it.
    assert_eq!(due_at(&ledger, 0, 9), []);
    let time = time_of_looks(&ledger);
    // A walk over all of them would be 40 million looks: minutes in this build.
    assert!(time < Duration::from_secs(2), "{time:?}");
    // It is the same after a restart with an expiry that was put off.
    ledger.extend_expiry(Timestamp(5_000_000));
    assert_eq!(due_at(&ledger, 4_999_999, 9), []);
    assert_eq!(
        due_at(&ledger, 5_000_000, usize::MAX).len() as u64,
        OPEN + 1
    );
}

#[test]
fn an_extended_reservation_is_known_as_one_after_a_restart() {
    let units = ItemUnits {
        stock: 3,
        reserved: 3,
        ..ItemUnits::default()
    };
    let ledger: Ledger<u32> = Ledger::new(
        &[LedgerItem {
            units,
            units_per_buyer_max: None,
        }],
        KEY,
    );
    for (serial, expires_at) in [(1, 2_001), (2, 1_002), (3, 1_003)] {
        ledger.load(&LoadedReservation {
            serial: Serial(serial),
            buyer: buyer("a"),
            key: key(serial),
            state: ReservationState::Reserved,
            lines: [LoadedLine {
                item: ITEM,
                units: 1,
                unit_price_minor: price(0),
                refunded_units: 0,
                restocked_units: 0,
            }]
            .into_iter()
            .collect(),
            created_at: Timestamp(0),
            expires_at: Timestamp(expires_at),
            is_extended: serial == 1,
            payment_ref: None,
        });
    }
    assert!(matches!(
        ledger.begin(Serial(1), &EXTEND, 1),
        Begin::Stands(_)
    ));
    assert_eq!(due_at(&ledger, 1_500, 9), [Serial(2), Serial(3)]);
    assert_eq!(due_at(&ledger, 2_001, 9), [Serial(1), Serial(2), Serial(3)]);
    // What was given more time still keeps the grace of the restart.
    ledger.extend_expiry(Timestamp(3_000));
    assert_eq!(due_at(&ledger, 2_999, 9), []);
    assert_eq!(due_at(&ledger, 3_000, 9).len(), 3);
}

#[test]
fn pooled_units_wait_unreleased_and_the_limit_comes_back() {
    let ledger = ledger(&[released(2, Some(2))]);
    let serial = reserved(&ledger, 1, "a", "k", &[(0, 2)]);
    let mut expiring = begun(&ledger, serial, &Command::Expire);
    expiring.is_pooled = true;
    ledger.abort(&expiring);
    assert_eq!(counters(&ledger, 0), [2, 0, 0, 2, 0]);
    let mut expiring = begun(&ledger, serial, &Command::Expire);
    expiring.is_pooled = true;
    ledger.finish(&expiring);
    assert_eq!(counters(&ledger, 0), [2, 2, 0, 0, 0]);
    assert!(!ledger.is_drained(ITEM), "they will be for sale again");
    assert_eq!(ledger.unreleased_units(ITEM), 2);
    // A late payment does not take what is announced for others.
    let late = begun(&ledger, serial, &confirm("p"));
    assert!(matches!(
        late.step,
        Step::RefusePayment {
            is_expired: true,
            ..
        }
    ));
    ledger.finish(&late);
    ledger.release(ITEM, 1);
    assert_eq!(counters(&ledger, 0), [2, 1, 1, 0, 0]);
    reserved(&ledger, 2, "a", "k2", &[(0, 1)]);
}

#[test]
#[should_panic(expected = "released units were unreleased")]
fn more_than_is_unreleased_is_never_released() {
    let ledger = ledger(&[released(2, None)]);
    ledger.release(ITEM, 1);
}

#[test]
fn a_change_of_stock_is_seen_once_and_takes_only_what_is_there() {
    let ledger = ledger(&[released(3, None)]);
    let more = ledger.begin_stock_change(ITEM, 4).unwrap();
    assert_eq!(counters(&ledger, 0), [3, 0, 3, 0, 0]);
    ledger.finish_stock_change(&more);
    assert_eq!(counters(&ledger, 0), [7, 0, 7, 0, 0]);
    reserved(&ledger, 1, "a", "k", &[(0, 5)]);
    let less = ledger.begin_stock_change(ITEM, i64::MIN).unwrap();
    assert_eq!(less.applied_delta_units, -2);
    assert_eq!(
        ledger.available_units(ITEM),
        0,
        "nobody buys what is being taken away"
    );
    ledger.abort_stock_change(&less);
    assert_eq!(counters(&ledger, 0), [7, 0, 2, 5, 0]);
    let less = ledger.begin_stock_change(ITEM, -9).unwrap();
    ledger.finish_stock_change(&less);
    assert_eq!(counters(&ledger, 0), [5, 0, 0, 5, 0]);
}

#[test]
fn stock_does_not_pass_32_bits_even_by_two_changes_at_once() {
    let ledger = ledger(&[released(1 << 31, None)]);
    assert_eq!(ledger.begin_stock_change(ITEM, i64::MAX), None);
    let half = i64::from(1 << 30);
    let first = ledger.begin_stock_change(ITEM, half).unwrap();
    assert_eq!(ledger.begin_stock_change(ITEM, half), None);
    ledger.abort_stock_change(&first);
    let second = ledger.begin_stock_change(ITEM, half).unwrap();
    ledger.finish_stock_change(&second);
    assert_eq!(counters(&ledger, 0), [3 << 30, 0, 3 << 30, 0, 0]);
}

#[test]
fn keys_are_the_buyers_own() {
    let ledger = ledger(&[released(9, None)]);
    let first = take(&ledger, "a", "k", &[(0, 1)]);
    let second = take(&ledger, "b", "k", &[(0, 1)]);
    assert_ne!(first, second);
    assert_eq!(ledger.records_of(&buyer("a"), 9), [first]);
    assert_eq!(ledger.records_of(&buyer("c"), 9), []);
}
