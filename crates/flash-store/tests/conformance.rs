//! One suite for every store: what was committed is read back, and what does not fit is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod common;

use common::subject::*;
use common::*;
use flash_store::*;
use flash_types::*;
use proptest::prelude::*;
use tempfile::TempDir;

#[test]
fn every_change_is_read_back() {
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        assert_eq!((opened.epoch, opened.last_batch), (1, 0));
        let mut shop = Shop::new(1, opened);
        let draft = |stock: &[u32]| Change::PutDraft {
            definition: Box::new(definition("s-1", stock)),
        };
        let first = shop.batch_of(1, vec![draft(&[5]), draft(&[10, 3]), Change::Publish]);
        commit(&store, &first).unwrap();
        commit(&store, &shop.batch_of(1, vec![open()])).unwrap();
        let reserves = shop.batch_of(
            1,
            vec![
                reserve(0, &[(0, 2)]),
                reserve(1, &[(0, 1), (1, 3)]),
                reserve(2, &[(0, 1)]),
                reserve(3, &[(0, 1)]),
            ],
        );
        let [r0, r1, r2, r3] = [0, 1, 2, 3].map(|index| reserves.entries[index].serial);
        commit(&store, &reserves).unwrap();
        let confirm = |reservation, payment_ref, is_late, units| Change::Confirm {
            reservation,
            payment_ref: payment(payment_ref),
            is_late,
            units: deltas(units),
        };
        let steps = shop.batch_of(
            1,
            vec![
                confirm(r0, "p0", false, &[(0, 2)]),
                confirm(r1, "p1", false, &[(0, 1), (1, 3)]),
                Change::Release {
                    reservation: r2,
                    units: deltas(&[(0, 1)]),
                    is_pooled: false,
                },
                Change::Expire {
                    reservation: r3,
                    units: deltas(&[(0, 1)]),
                    is_pooled: false,
                },
                Change::RefusePayment {
                    reservation: r2,
                    payment_ref: payment("p2"),
                    is_expired: false,
                    state: ReservationState::Released,
                    refunded: Deltas::new(),
                },
                Change::RefusePayment {
                    reservation: r3,
                    payment_ref: payment("p3"),
                    is_expired: true,
                    state: ReservationState::Expired,
                    refunded: Deltas::new(),
                },
                confirm(r3, "p3b", true, &[(0, 1)]),
                Change::Refund {
                    reservation: r1,
                    refund_ref: RefundRef::parse("f1").ok(),
                    restock: true,
                    units: deltas(&[(1, 2)]),
                    is_whole: false,
                    refunded: deltas(&[(1, 2)]),
                },
                Change::Refund {
                    reservation: r0,
                    refund_ref: None,
                    restock: false,
                    units: deltas(&[(0, 2)]),
                    is_whole: true,
                    refunded: deltas(&[(0, 2)]),
                },
                Change::ChangeStock {
                    item: ItemIndex(1),
                    key: IdempotencyKey::parse("k").unwrap(),
                    asked_delta_units: -5,
                    applied_delta_units: -2,
                    reason: "broken".into(),
                },
                Change::Pause,
                Change::Resume,
                Change::Close,
            ],
        );
        commit(&store, &steps).unwrap();
        drop(store);

        let (store, opened, collected) = subject.start();
        assert_eq!(opened.epoch, 2);
        assert_eq!(opened.last_batch, 4);
        assert_eq!(opened.last_at, steps.at);
        let sale = &collected.sales[0];
        assert_eq!(sale.state, SaleState::Closed);
        assert_eq!(sale.definition, definition("s-1", &[10, 3]));
        let units = |stock, available, reserved, sold| ItemUnits {
            stock,
            unreleased: 0,
            available,
            reserved,
            sold,
        };
        // Item 0: 2 sold (refunded, not restocked), 1 of r1, 1 of r3. Item 1: 3 sold, 2 restocked, 2 taken off.
        assert_eq!(sale.items[0].units, units(10, 6, 0, 4));
        assert_eq!(sale.items[1].units, units(1, 0, 0, 1));
        assert_eq!(run(store.items(SaleNo(1))).unwrap(), sale.items);
        let states: Vec<_> = collected.reservations.iter().map(|row| row.state).collect();
        assert_eq!(
            states,
            [
                ReservationState::Refunded,
                ReservationState::Confirmed,
                ReservationState::Released,
                ReservationState::Confirmed
            ]
        );
        let r1_row = &collected.reservations[1];
        assert_eq!(r1_row.lines[1].refunded_units, 2);
        assert_eq!(r1_row.lines[1].restocked_units, 2);
        assert_eq!(r1_row.payment_ref, Some(payment("p1")));
        let read = run(store.reservation(SaleNo(1), r1)).unwrap();
        assert_eq!(read.as_ref(), Some(r1_row));
        assert_eq!(run(store.reservation(SaleNo(2), r1)).unwrap(), None);

        let decided = |reference: &str| {
            run(store.payment_decision(SaleNo(1), payment(reference)))
                .unwrap()
                .map(|row| (row.decision.kind, row.decision.reservation))
        };
        assert_eq!(decided("p0"), Some((DecisionKind::PaymentTaken, Some(r0))));
        assert_eq!(
            decided("p2"),
            Some((DecisionKind::PaymentRefusedConflict, Some(r2)))
        );
        assert_eq!(
            decided("p3"),
            Some((DecisionKind::PaymentRefusedExpired, Some(r3)))
        );
        assert_eq!(decided("p9"), None);
        let of_r1 = run(store.decisions_of(SaleNo(1), r1)).unwrap();
        let details: Vec<_> = of_r1
            .iter()
            .map(|row| (row.decision.kind, row.detail.as_deref()))
            .collect();
        assert_eq!(
            details,
            [
                (DecisionKind::PaymentTaken, None),
                (
                    DecisionKind::Refund,
                    Some(r#"{"restock":true,"lines":[[1,2]]}"#)
                )
            ]
        );
        let stock = collected
            .decisions
            .iter()
            .find(|row| row.decision.kind == DecisionKind::StockChange)
            .unwrap();
        assert_eq!(
            stock.detail.as_deref(),
            Some(r#"{"item":1,"asked":-5,"applied":-2}"#)
        );
        run(store.close());
    }
}

#[test]
fn lists_are_filtered_and_paged() {
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        let mut shop = Shop::new(1, opened);
        for sale_no in [1, 2] {
            let drafted = Change::PutDraft {
                definition: Box::new(definition(&format!("s-{sale_no}"), &[100])),
            };
            let batch = shop.batch_of(sale_no, vec![drafted, Change::Publish, open()]);
            commit(&store, &batch).unwrap();
        }
        let mut serials = Vec::new();
        for number in 0..30 {
            let batch = shop.batch_of(1 + number as u32 % 2, vec![reserve(number, &[(0, 1)])]);
            serials.push(batch.entries[0].serial);
            commit(&store, &batch).unwrap();
        }
        let release = Change::Release {
            reservation: serials[0],
            units: deltas(&[(0, 1)]),
            is_pooled: false,
        };
        commit(&store, &shop.batch_of(1, vec![release, Change::Close])).unwrap();
        let list = |buyer: Option<&str>, state, after, limit| -> Vec<Serial> {
            let filter = ReservationFilter {
                buyer: buyer.map(|buyer| BuyerId::parse(buyer).unwrap()),
                state,
                updated_after: None,
            };
            let page = Page { after, limit };
            let rows = run(store.reservations(SaleNo(1), filter, page)).unwrap();
            rows.iter().map(|row| row.serial).collect()
        };
        let of_sale: Vec<_> = serials.iter().copied().step_by(2).collect();
        for is_retired in [false, true] {
            if is_retired {
                commit(&store, &shop.batch_of(1, vec![Change::Retire])).unwrap();
            }
            assert_eq!(list(None, None, Serial(0), 100), of_sale);
            assert_eq!(list(None, None, of_sale[2], 2), of_sale[3..5]);
            assert_eq!(
                list(None, Some(ReservationState::Released), Serial(0), 9),
                of_sale[..1]
            );
            // Buyers go round by seven: 2 is that of 2, 16 of this sale.
            assert_eq!(
                list(Some("buyer-2"), None, Serial(0), 9),
                [serials[2], serials[16]]
            );
            assert_eq!(list(Some("nobody"), None, Serial(0), 9), []);
            let by_key = |sale_no, buyer: &str, key: &str| {
                let buyer = BuyerId::parse(buyer).unwrap();
                let key = IdempotencyKey::parse(key).unwrap();
                run(store.reservation_by_key(SaleNo(sale_no), buyer, key))
                    .unwrap()
                    .map(|row| row.serial)
            };
            assert_eq!(by_key(1, "buyer-2", "key-16"), Some(serials[16]));
            assert_eq!(by_key(2, "buyer-2", "key-16"), None);
            assert_eq!(by_key(1, "buyer-3", "key-16"), None);
            assert_eq!(by_key(9, "buyer-2", "key-16"), None);
        }
        drop(store);
        // A retired sale is named, its content is not loaded.
        let (store, _, collected) = subject.start();
        assert!(collected.sales[0].is_retired);
        assert!(
            collected
                .reservations
                .iter()
                .all(|row| row.sale_no == SaleNo(2))
        );
        run(store.close());
    }
}

#[test]
fn notes_are_kept_in_order() {
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        let mut shop = Shop::new(1, opened);
        let note = |detail: &str| AdminNote {
            at: Timestamp(7),
            who: "ops".into(),
            command: "sale.publish".into(),
            sale_id: None,
            outcome: "not_found".into(),
            detail: detail.into(),
        };
        let notes = ["a", "b", "c"].map(|detail| Change::Note(note(detail)));
        commit(&store, &shop.batch_of(0, notes.to_vec())).unwrap();
        let read = run(store.admin_notes(0, 2)).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0].1, note("a"));
        let rest = run(store.admin_notes(read[1].0, 9)).unwrap();
        assert_eq!(rest.len(), 1);
        assert_eq!(rest[0].1, note("c"));
    }
}

#[test]
fn batches_out_of_order_are_refused_and_leave_nothing() {
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        let mut shop = Shop::new(1, opened);
        let good = shop.batch_of(0, Vec::new());
        commit(&store, &good).unwrap();
        let next = shop.batch(5);
        let gap = Batch {
            number: next.number + 1,
            ..next.clone()
        };
        let refused = |verdict| {
            assert!(matches!(
                verdict,
                Err(CommitError::NotApplied(NotApplied::Unavailable(_)))
            ));
        };
        refused(commit(&store, &gap));
        let mut backwards = next.clone();
        backwards.entries.push(next.entries[0].clone());
        refused(commit(&store, &backwards));
        commit(&store, &next).unwrap();
        let mut behind = shop.batch(5);
        behind.entries[0].serial = next.entries[0].serial;
        refused(commit(&store, &behind));
        // A number that is durable already is never called "not applied".
        assert!(matches!(commit(&store, &next), Err(CommitError::Fatal(_))));
        let after = shop.batch(5);
        assert!(matches!(commit(&store, &after), Err(CommitError::Fatal(_))));
    }
}

#[test]
fn the_books_refuse_what_does_not_fit() {
    let cases: Vec<(&str, Vec<Change>)> = vec![
        ("oversell", vec![reserve(1, &[(0, 6)])]),
        ("no such item", vec![reserve(1, &[(7, 1)])]),
        ("publish twice", vec![Change::Publish]),
        (
            "confirm what is not there",
            vec![Change::Confirm {
                reservation: Serial(1),
                payment_ref: payment("p"),
                is_late: false,
                units: deltas(&[(0, 1)]),
            }],
        ),
        (
            "stock below zero",
            vec![Change::ChangeStock {
                item: ItemIndex(0),
                key: IdempotencyKey::parse("k").unwrap(),
                asked_delta_units: -6,
                applied_delta_units: -6,
                reason: String::new(),
            }],
        ),
    ];
    for (name, changes) in cases {
        for subject in Subject::all() {
            let (store, opened, _) = subject.start();
            let mut shop = Shop::new(1, opened);
            let drafted = Change::PutDraft {
                definition: Box::new(definition("s-1", &[5])),
            };
            let batch = shop.batch_of(1, vec![drafted, Change::Publish, open()]);
            commit(&store, &batch).unwrap();
            let verdict = commit(&store, &shop.batch_of(1, changes.clone()));
            assert!(
                matches!(verdict, Err(CommitError::Fatal(_))),
                "{name}: {verdict:?}"
            );
            // Nothing is taken after it.
            let verdict = commit(&store, &shop.batch(1));
            assert!(
                matches!(verdict, Err(CommitError::Fatal(_))),
                "{name}: {verdict:?}"
            );
        }
    }
}

#[test]
fn units_that_were_not_reserved_cannot_be_confirmed() {
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        let mut shop = Shop::new(1, opened);
        let drafted = Change::PutDraft {
            definition: Box::new(definition("s-1", &[5])),
        };
        let reserve = reserve(1, &[(0, 2)]);
        let batch = shop.batch_of(1, vec![drafted, Change::Publish, open(), reserve]);
        commit(&store, &batch).unwrap();
        let confirm = Change::Confirm {
            reservation: batch.entries[3].serial,
            payment_ref: payment("p"),
            is_late: false,
            units: deltas(&[(0, 1)]),
        };
        let verdict = commit(&store, &shop.batch_of(1, vec![confirm]));
        assert!(matches!(verdict, Err(CommitError::Fatal(_))));
    }
}

#[test]
fn a_closed_store_takes_nothing() {
    for subject in Subject::all() {
        let (store, opened, _) = subject.start();
        let mut shop = Shop::new(1, opened);
        run(store.close());
        run(store.close());
        let verdict = commit(&store, &shop.batch(3));
        assert!(
            matches!(verdict, Err(CommitError::NotApplied(_))),
            "{verdict:?}"
        );
    }
}

#[test]
fn memory_holds_and_fails_as_asked() {
    let memory = MemoryStore::new();
    let mut shop = Shop::new(1, memory.opened().unwrap());
    let batch = shop.batch(4);
    memory.hold();
    run(async {
        let waiting = memory.commit(batch.clone());
        tokio::pin!(waiting);
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(waiting.as_mut().poll(context).is_ready())
        });
        assert!(!polled.await);
        assert!(memory.entries().is_empty());
        memory.release();
        waiting.await.unwrap();
    });
    assert_eq!(memory.entries().len(), batch.entries.len());
    let full = NotApplied::StorageFull("asked for".into());
    memory.fail_next(MemoryFault::NotApplied(full));
    memory.fail_next(MemoryFault::FatalApplied("asked for".into()));
    let next = shop.batch(4);
    let verdict = run(memory.commit(next.clone()));
    assert!(matches!(
        verdict,
        Err(CommitError::NotApplied(NotApplied::StorageFull(_)))
    ));
    let verdict = run(memory.commit(next.clone()));
    assert!(matches!(verdict, Err(CommitError::Fatal(_))));
    assert_eq!(memory.opened().unwrap().last_batch, next.number);
}

/// Counters by folding the changes, in the test's own words.
fn folded(entries: &[(u64, Entry)], sale: &SaleRow) -> Vec<ItemUnits> {
    let mut items: Vec<ItemUnits> = Vec::new();
    for (_, entry) in entries
        .iter()
        .filter(|(_, entry)| entry.sale_no == sale.sale_no)
    {
        if let Change::PutDraft { definition } = &entry.change {
            let drafted = definition.items.iter().map(|item| ItemUnits {
                stock: u64::from(item.stock_units),
                unreleased: u64::from(item.stock_units),
                ..ItemUnits::default()
            });
            items = drafted.collect();
        }
        if let Change::Open { held } = &entry.change {
            for (index, item) in items.iter_mut().enumerate() {
                let held = held.iter().find(|delta| usize::from(delta.item.0) == index);
                let stays = held.map_or(0, |delta| u64::from(delta.units));
                let units = item.unreleased.saturating_sub(stays);
                item.available += units;
                item.unreleased -= units;
            }
        }
        if entry.change == Change::Unpublish {
            for item in &mut items {
                item.unreleased += std::mem::take(&mut item.available);
            }
        }
        for (item, step) in entry.change.moves() {
            let units = &mut items[usize::from(item.0)];
            units.stock = units.stock.strict_add_signed(step.stock);
            units.unreleased = units.unreleased.strict_add_signed(step.unreleased);
            units.available = units.available.strict_add_signed(step.available);
            units.reserved = units.reserved.strict_add_signed(step.reserved);
            units.sold = units.sold.strict_add_signed(step.sold);
        }
    }
    items
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_batches_are_reloaded_as_committed(seed in any::<u64>()) {
        let dir = TempDir::new().unwrap();
        let sqlite = Subject::Sqlite(dir);
        let memory = MemoryStore::new();
        let (mut store, opened, _) = sqlite.start();
        memory.opened().unwrap();
        let mut shop = Shop::new(seed, opened);
        for round in 0..3 {
            for _ in 0..8 {
                let batch = shop.batch(24);
                let verdict = commit(&store, &batch);
                prop_assert!(verdict.is_ok(), "{:?}", verdict);
                prop_assert!(run(memory.commit(batch)).is_ok());
            }
            drop(store);
            let expected = collect(&AnyStore::Memory(memory.clone())).unwrap();
            let (again, _, collected) = sqlite.start();
            prop_assert_eq!(&collected, &expected, "round {}", round);
            let memory_any = AnyStore::Memory(memory.clone());
            prop_assert_eq!(told(&again, 7), told(&memory_any, 1_000_000));
            for sale in &collected.sales {
                let attempts = run(again.attempts(sale.sale_no)).unwrap();
                prop_assert_eq!(attempts, run(memory.attempts(sale.sale_no)).unwrap());
                let filter = ReservationFilter {
                    updated_after: Some(Timestamp(1_000_000 + shop.next_batch as i64 - 6)),
                    ..ReservationFilter::default()
                };
                let page = Page { after: Serial(0), limit: 1_000_000 };
                let changed = run(again.reservations(sale.sale_no, filter, page)).unwrap();
                prop_assert_eq!(changed, run(memory.reservations(sale.sale_no, filter, page)).unwrap());
            }
            prop_assert_eq!(run(again.last_places()).unwrap(), run(memory.last_places()).unwrap());
            let entries = memory.entries();
            for sale in &collected.sales {
                let units: Vec<_> = sale.items.iter().map(|item| item.units).collect();
                prop_assert_eq!(&units, &folded(&entries, sale));
                for item in units {
                    prop_assert_eq!(item.imbalance(), 0);
                }
            }
            store = again;
        }
    }
}
