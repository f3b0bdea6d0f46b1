//! What a sale goes through beside buying and paying: waves, prices, more time, protection, tries; on every store.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod common;

use common::subject::*;
use common::*;
use flash_store::*;
use flash_types::*;

fn draft(stock: &[u32]) -> Change {
    Change::PutDraft {
        definition: Box::new(definition("s-1", stock)),
    }
}

fn held(units: &[(u16, u32)]) -> Change {
    Change::Open {
        held: deltas(units),
    }
}

fn wave(item: u16, wave: WaveRef, units: u32) -> Change {
    Change::Wave {
        item: ItemIndex(item),
        wave,
        due_at: Timestamp(1),
        units,
    }
}

fn extend(reservation: Serial, expires_ms: i64) -> Change {
    Change::Extend {
        reservation,
        expires_at: Timestamp(expires_ms),
    }
}

fn price(from: i64, to: i64, planned: i64) -> Change {
    let mut definition = Box::new(definition("s-1", &[10, 4]));
    definition.items[0].sale_price_minor = Money(planned);
    Change::ChangePrice {
        item: ItemIndex(0),
        from: Money(from),
        to: Money(to),
        reason: "a \"slip\"".into(),
        definition,
    }
}

fn protect(reservation: Serial, state: ReservationState) -> Change {
    Change::ProtectPrice {
        reservation,
        item: ItemIndex(0),
        units: 1,
        paid_minor: Money(9_900),
        price_minor: Money(9_000),
        other: SaleId::parse("s-9").unwrap(),
        state,
        refunded: deltas(&[(0, 1)]),
    }
}

fn tries(from: i64) -> Change {
    let count = |item, outcome: &str, attempts| AttemptCount {
        item,
        outcome: outcome.into(),
        attempts,
    };
    Change::CountAttempts {
        from: Timestamp(from),
        counts: vec![
            count(Some(ItemIndex(1)), "sold_out", u64::from(u32::MAX) + 1),
            count(None, "not_found", 1),
        ],
    }
}

fn confirm(reservation: Serial, units: &[(u16, u32)]) -> Change {
    Change::Confirm {
        reservation,
        payment_ref: payment("p-1"),
        is_late: false,
        units: deltas(units),
    }
}

fn refund(reservation: Serial) -> Change {
    Change::Refund {
        reservation,
        refund_ref: RefundRef::parse("f-1").ok(),
        restock: true,
        units: deltas(&[(0, 1)]),
        is_whole: false,
        refunded: deltas(&[(0, 1)]),
    }
}

fn units_of(store: &AnyStore, item: usize) -> [u64; 4] {
    let units = run(store.items(SaleNo(1))).unwrap()[item].units;
    assert_eq!(units.imbalance(), 0);
    [
        units.unreleased,
        units.available,
        units.reserved,
        units.sold,
    ]
}

#[test]
fn a_sale_with_all_of_it_is_read_back() {
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        let mut shop = Shop::new(1, opened);
        let mut put = |store: &AnyStore, changes: Vec<Change>| {
            let batch = shop.batch_of(1, changes);
            commit(store, &batch).unwrap();
            batch.entries[0].serial
        };
        // Unpublished and made anew, with what a wave had released in between.
        put(
            &store,
            vec![draft(&[6, 6]), Change::Publish, held(&[(0, 4), (1, 9)])],
        );
        assert_eq!(units_of(&store, 0), [4, 2, 0, 0]);
        assert_eq!(units_of(&store, 1), [6, 0, 0, 0]);
        put(
            &store,
            vec![
                wave(0, WaveRef::Hand(None), 1),
                Change::Pause,
                Change::Unpublish,
            ],
        );
        assert_eq!(units_of(&store, 0), [6, 0, 0, 0]);
        put(
            &store,
            vec![draft(&[10, 4]), Change::Publish, held(&[(0, 8)])],
        );
        assert_eq!(units_of(&store, 0), [8, 2, 0, 0]);

        let hand = WaveRef::Hand(IdempotencyKey::parse("w-1").ok());
        let first = put(&store, vec![wave(0, WaveRef::Planned(0), 5)]);
        put(
            &store,
            vec![
                wave(0, hand, 1),
                wave(1, hand, 0),
                wave(1, WaveRef::Pool(0), 0),
            ],
        );
        assert_eq!(units_of(&store, 0), [2, 8, 0, 0]);
        let r0 = put(&store, vec![reserve(0, &[(0, 2)])]);
        let r1 = put(&store, vec![reserve(1, &[(0, 1)])]);
        let r2 = put(&store, vec![reserve(2, &[(0, 1), (1, 1)])]);
        put(&store, vec![tries(10_000)]);
        put(
            &store,
            vec![extend(r0, 500_000), confirm(r0, &[(0, 2)]), refund(r0)],
        );
        let expire = Change::Expire {
            reservation: r1,
            units: deltas(&[(0, 1)]),
            is_pooled: true,
        };
        let release = Change::Release {
            reservation: r2,
            units: deltas(&[(0, 1), (1, 1)]),
            is_pooled: true,
        };
        let late = put(&store, vec![expire, release]);
        assert_eq!(units_of(&store, 0), [4, 5, 0, 1]);
        assert_eq!(units_of(&store, 1), [1, 3, 0, 0]);
        put(
            &store,
            vec![Change::Pause, price(9_900, 9_000, 9_000), tries(20_000)],
        );
        put(&store, vec![protect(r0, ReservationState::Confirmed)]);
        let before = told(&store, 1);
        drop(store);

        let (store, _, collected) = subject.start();
        assert_eq!(told(&store, 1_000), before);
        let sale = &collected.sales[0];
        assert_eq!(sale.state, SaleState::Paused);
        assert_eq!(sale.definition.items[0].sale_price_minor, Money(9_000));
        assert_eq!(collected.reservations[0].expires_at, Timestamp(500_000));
        let decided: Vec<_> = collected
            .decisions
            .iter()
            .filter(|row| {
                matches!(
                    row.decision.kind,
                    DecisionKind::Wave | DecisionKind::PriceProtection
                )
            })
            .map(|row| {
                let decision = &row.decision;
                let detail = row.detail.as_deref().unwrap_or_default();
                (decision.reference.as_str(), decision.reservation, detail)
            })
            .collect();
        let mut expected = [
            ("plan:0", None, r#"{"item":0,"units":5}"#),
            ("hand:w-1", None, r#"{"item":0,"units":1}"#),
            ("hand:w-1", None, r#"{"item":1,"units":0}"#),
            ("pool:0", None, r#"{"item":1,"units":0}"#),
            ("0", Some(r0), r#"{"units":1,"paid":9900,"price":9000}"#),
        ];
        let mut decided = decided;
        decided.sort_unstable();
        expected.sort_unstable();
        assert_eq!(decided, expected);

        let of_sale = |after: u64, limit| {
            let place = EventPlace {
                generation: u64::from(after > 0),
                sequence: after,
            };
            run(store.events(EventRange::OfSale(SaleNo(1), place), limit)).unwrap()
        };
        assert_eq!(of_sale(0, 1_000), before);
        let from_first: Vec<_> = before
            .iter()
            .filter(|row| row.place.sequence > first.0)
            .cloned()
            .collect();
        assert_eq!(of_sale(first.0, 1_000), from_first);
        assert_eq!(of_sale(first.0, 2), from_first[..2]);
        // A generation that never was lies before all, one to come behind all.
        let range = |generation: u64| {
            let place = EventPlace {
                generation,
                sequence: first.0,
            };
            run(store.events(EventRange::OfSale(SaleNo(1), place), 1_000)).unwrap()
        };
        assert_eq!(range(0), before);
        assert_eq!(range(2), []);
        let kinds: Vec<&str> = before.iter().map(|row| row.kind.as_str()).collect();
        assert!(
            !kinds
                .iter()
                .any(|kind| ["sale.drafted", "sale.attempts"].contains(kind))
        );
        check_history(&before, r0);

        let attempts = run(store.attempts(SaleNo(1))).unwrap();
        let begins: Vec<i64> = attempts.iter().map(|row| row.from.0).collect();
        assert_eq!(begins, [10_000, 20_000]);
        let Change::CountAttempts { counts, .. } = tries(0) else {
            unreachable!()
        };
        assert_eq!(attempts[0].counts, counts);
        let places = run(store.last_places()).unwrap();
        assert_eq!(places.len(), 1);
        assert_eq!(Some(places[0].1), before.last().map(|row| row.place));

        let changed = |time| {
            let filter = ReservationFilter {
                updated_after: Some(Timestamp(time)),
                ..ReservationFilter::default()
            };
            let page = Page {
                after: Serial(0),
                limit: 9,
            };
            let rows = run(store.reservations(SaleNo(1), filter, page)).unwrap();
            rows.iter().map(|row| row.serial).collect::<Vec<_>>()
        };
        let expired_at = before.iter().find(|row| row.place.sequence == late.0);
        let expired_at = expired_at.unwrap().at.0;
        assert_eq!(changed(0), [r0, r1, r2]);
        assert_eq!(changed(expired_at - 1), [r0, r1, r2]);
        assert_eq!(changed(expired_at), [r0]);
        assert_eq!(changed(expired_at + 1_000), []);
        run(store.close());
    }
}

/// Every event of a reservation shows it as it stood then, not as it stands now.
fn check_history(events: &[EventRow], of: Serial) {
    let rows: Vec<_> = events
        .iter()
        .filter_map(|event| Some((event.kind.as_str(), event.reservation.as_ref()?)))
        .filter(|(_, row)| row.serial == of)
        .map(|(kind, row)| {
            let paid = row.payment_ref.is_some();
            (
                kind,
                row.state,
                row.expires_at.0,
                paid,
                row.lines[0].refunded_units,
            )
        })
        .collect();
    use ReservationState::{Confirmed, Reserved};
    assert_eq!(
        rows,
        [
            ("reservation.reserved", Reserved, 302_000, false, 0),
            ("reservation.extended", Reserved, 500_000, false, 0),
            ("reservation.confirmed", Confirmed, 500_000, true, 0),
            ("reservation.refunded", Confirmed, 500_000, true, 1),
            ("reservation.refund_due", Confirmed, 500_000, true, 1),
        ]
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let r = Serial(bounds::SERIALS_PER_EPOCH + 5);
    let cases: Vec<(&str, Vec<Change>)> = vec![
        ("more than is held", vec![wave(0, WaveRef::Planned(0), 5)]),
        ("no such item", vec![wave(7, WaveRef::Planned(0), 0)]),
        (
            "a wave twice",
            vec![
                wave(0, WaveRef::Planned(0), 1),
                wave(0, WaveRef::Planned(0), 1),
            ],
        ),
        ("unpublished after a reservation", vec![Change::Unpublish]),
        ("a price while it is open", vec![price(9_900, 9_000, 9_000)]),
        (
            "a price from another one",
            vec![Change::Pause, price(9_800, 9_000, 9_000)],
        ),
        (
            "a price that the plan does not have",
            vec![Change::Pause, price(9_900, 9_000, 9_001)],
        ),
        (
            "extended twice",
            vec![extend(r, 400_000), extend(r, 500_000)],
        ),
        ("extended to before", vec![extend(r, 302_000)]),
        ("extended and not there", vec![extend(Serial(9), 400_000)]),
        (
            "extended after it was paid",
            vec![confirm(r, &[(0, 2)]), extend(r, 400_000)],
        ),
        (
            "protected twice",
            vec![
                confirm(r, &[(0, 2)]),
                protect(r, ReservationState::Confirmed),
                protect(r, ReservationState::Confirmed),
            ],
        ),
        (
            "protected in another state",
            vec![protect(r, ReservationState::Confirmed)],
        ),
    ];
    for (name, changes) in cases {
        for subject in Subject::all() {
            let (store, opened, _) = subject.start();
            let mut shop = Shop::new(1, opened);
            let open = held(&[(0, 4)]);
            let begin = vec![
                draft(&[10, 4]),
                Change::Publish,
                open,
                reserve(0, &[(0, 2)]),
            ];
            let batch = shop.batch_of(1, begin);
            assert_eq!(batch.entries[3].serial, r);
            commit(&store, &batch).unwrap();
            let verdict = commit(&store, &shop.batch_of(1, changes.clone()));
            assert!(
                matches!(verdict, Err(CommitError::Fatal(_))),
                "{name}: {verdict:?}"
            );
        }
    }
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        let verdict = commit(&store, &Shop::new(1, opened).batch_of(4, vec![tries(1)]));
        assert!(matches!(verdict, Err(CommitError::Fatal(_))), "{verdict:?}");
    }
}
