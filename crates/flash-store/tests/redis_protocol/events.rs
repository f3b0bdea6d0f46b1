//! Events as they are read back: of one sale, and of all sales merged by time.

use std::collections::BTreeMap;

use flash_store::*;
use flash_types::*;

use crate::common::random::Random;
use crate::common::redis::*;
use crate::common::{deltas, open, payment, reserve};
use crate::{note, one};

/// Every entry of a stream gets another time, and another generation.
const RETIME: &str = "local entries = redis.call('XRANGE', KEYS[1], '-', '+') \
    redis.call('DEL', KEYS[1]) \
    for i, entry in ipairs(entries) do \
        redis.call('XADD', KEYS[1], ARGV[2 * i] .. '-' .. i, 'at', ARGV[2 * i - 1], 'c', entry[2][4]) \
    end";

fn read(node: &Node, range: EventRange, limit: usize) -> Vec<EventRow> {
    node.run(node.store.events(range, limit)).unwrap()
}

/// All events of a sale, in pages.
fn of_sale(node: &Node, sale_no: u32, limit: usize) -> Vec<EventRow> {
    let (mut all, mut after) = (Vec::new(), EventPlace::default());
    loop {
        let page = read(node, EventRange::OfSale(SaleNo(sale_no), after), limit);
        let Some(last) = page.last() else { return all };
        after = last.place;
        all.extend(page);
    }
}

fn of_all(node: &Node, limit: usize) -> Vec<EventRow> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = read(node, EventRange::OfAll(after), limit);
        assert!(page.len() <= limit);
        let Some(last) = page.last() else { return all };
        after = Some((last.sale_no, last.place));
        all.extend(page);
    }
}

#[test]
fn events_are_told_with_their_reservations_as_they_stood() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    let of_one = || deltas(&[(0, 1)]);
    let run = node.batch(
        1,
        vec![
            one(1),
            one(2),
            reserve(3, &[(0, 2)]),
            Change::Note(note("x")),
        ],
    );
    node.commit_batch(&run).unwrap();
    let serials: Vec<Serial> = run.entries.iter().map(|entry| entry.serial).collect();
    let row = node.run(node.store.reservation(SaleNo(1), serials[0]));
    let made_with = row.unwrap().unwrap().expires_at;
    let refund = |refund_ref: &str, refunded: &[(u16, u32)], is_whole| Change::Refund {
        reservation: serials[2],
        refund_ref: RefundRef::parse(refund_ref).ok(),
        restock: false,
        units: of_one(),
        is_whole,
        refunded: deltas(refunded),
    };
    let changes = vec![
        Change::Extend {
            reservation: serials[0],
            expires_at: NEVER,
        },
        Change::CountAttempts {
            from: Timestamp(20_000),
            counts: vec![AttemptCount {
                item: Some(ItemIndex(0)),
                outcome: "sold_out".into(),
                attempts: 3,
            }],
        },
        Change::Release {
            reservation: serials[0],
            units: of_one(),
            is_pooled: true,
        },
        Change::Confirm {
            reservation: serials[2],
            payment_ref: payment("p-3"),
            is_late: false,
            units: deltas(&[(0, 2)]),
        },
        refund("f-1", &[(0, 1)], false),
        refund("f-2", &[(0, 2)], true),
        Change::RefusePayment {
            reservation: serials[0],
            payment_ref: payment("p-1"),
            is_expired: false,
            state: ReservationState::Released,
            refunded: Deltas::new(),
        },
        Change::Close,
        Change::Retire,
    ];
    assert_eq!(node.commit(1, changes).unwrap().refused, []);
    let events = of_sale(&node, 1, 100);
    use ReservationState::{Confirmed, Refunded, Released, Reserved};
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let of = event.reservation.as_ref();
            let of = of.map(|row| (row.state, row.lines[0].refunded_units));
            (event.place.sequence, event.kind.as_str(), of)
        })
        .collect();
    // One place for each change, also for those that are told to nobody; 4096 for a batch; none for a note.
    let wanted = [
        (4_097, "sale.published", None),
        (4_098, "sale.opened", None),
        (8_192, "reservation.reserved", Some((Reserved, 0))),
        (8_193, "reservation.reserved", Some((Reserved, 0))),
        (8_194, "reservation.reserved", Some((Reserved, 0))),
        (12_288, "reservation.extended", Some((Reserved, 0))),
        (12_290, "reservation.released", Some((Released, 0))),
        (12_291, "reservation.confirmed", Some((Confirmed, 0))),
        (12_292, "reservation.refunded", Some((Confirmed, 1))),
        (12_293, "reservation.refunded", Some((Refunded, 2))),
        (12_294, "reservation.refund_due", Some((Released, 0))),
        (12_295, "sale.closed", None),
    ];
    assert_eq!(told, wanted);
    let of = |index: usize| events[index].reservation.clone().unwrap();
    assert_eq!((of(2).serial, of(3).serial), (serials[0], serials[1]));
    assert_eq!((of(2).expires_at, of(5).expires_at), (made_with, NEVER));
    assert_eq!(
        (of(4).payment_ref, of(7).payment_ref),
        (None, Some(payment("p-3")))
    );
    assert_eq!(events[2].reference.as_deref(), Some("key-1"));
    assert_eq!(
        (events[0].data.as_deref(), events[2].data.as_deref()),
        (None, None)
    );
    assert_eq!(
        events[6].data.as_deref(),
        Some(r#"{"pooled":true,"units":[[0,1]]}"#)
    );
    assert!(
        events
            .iter()
            .all(|event| event.place.generation == 1 && event.at.0 > 0)
    );
    for limit in [1, 2, 5] {
        assert_eq!(of_sale(&node, 1, limit), events);
    }
    assert_eq!(
        read(
            &node,
            EventRange::OfSale(SaleNo(1), EventPlace::default()),
            0
        ),
        []
    );
    let last = EventPlace {
        generation: 1,
        sequence: 12_295,
    };
    let places = node.run(node.store.last_places()).unwrap();
    assert_eq!(places, [(SaleNo(1), last)]);
    let attempts = node.run(node.store.attempts(SaleNo(1))).unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        (attempts[0].from, attempts[0].counts[0].attempts),
        (Timestamp(20_000), 3)
    );
}

/// Three sales of 45 batches each, with times that meet, in several generations; each sale as it is read.
fn timed(rig: &Rig, node: &Node) -> Vec<EventRow> {
    let mut random = Random(11);
    let mut all = Vec::new();
    for sale_no in [2, 1, 3] {
        node.open_sale(sale_no, &[50]);
        for number in 0..22 {
            node.commit(sale_no, vec![Change::Pause, Change::Resume])
                .unwrap();
            node.commit(sale_no, vec![one(number), one(number + 100)])
                .unwrap();
        }
        let ev = format!("{{s:s-{sale_no}}}:ev");
        let mut words = vec!["EVAL".to_owned(), RETIME.into(), "1".into(), ev];
        let (mut at, mut generation) = (1_000, 1);
        for number in 1..=45 {
            at += random.pick(&[0, 0, 0, 1, 1, 7]);
            generation += u64::from(random.percent(10));
            // All end at the same moment.
            at = if number == 45 { 2_000 } else { at };
            words.extend([at.to_string(), generation.to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        rig.ask(&words);
        let meta = format!("{{s:s-{sale_no}}}:meta");
        rig.ask(&["HSET", &meta, "clock_ms", "2000"]);
        let events = of_sale(node, sale_no, 1_000);
        assert_eq!(events.len(), 2 + 22 * 4);
        all.extend(events);
    }
    all.sort_by_key(|event| (event.at, event.sale_no, event.place));
    all
}

#[test]
fn events_of_all_sales_are_merged_by_time() {
    let rig = Rig::start();
    let node = rig.open();
    let all = timed(&rig, &node);
    for limit in [1_000, 64, 7, 1] {
        assert_eq!(of_all(&node, limit), all, "in pages of {limit}");
    }
    // From every event on.
    for (index, event) in all.iter().enumerate() {
        let after = EventRange::OfAll(Some((event.sale_no, event.place)));
        let next: Vec<EventRow> = all[index + 1..].iter().take(2).cloned().collect();
        assert_eq!(read(&node, after, 2), next, "after {event:?}");
    }
    // By sale it is the same.
    let mut by_sale: BTreeMap<u32, Vec<EventRow>> = BTreeMap::new();
    for event in all {
        by_sale.entry(event.sale_no.0).or_default().push(event);
    }
    for (sale_no, events) in by_sale {
        assert_eq!(of_sale(&node, sale_no, 1), events);
    }
}

#[test]
fn a_lost_event_leaves_no_gap() {
    let rig = Rig::start();
    let node = rig.open();
    let all = timed(&rig, &node);
    let (index, lost) = all
        .iter()
        .enumerate()
        .rfind(|(index, event)| event.sale_no == SaleNo(2) && *index < all.len() / 2)
        .unwrap();
    let id = format!("{}-{}", lost.place.generation, lost.place.sequence / 4_096);
    assert_eq!(rig.ask(&["XDEL", "{s:s-2}:ev", &id]), "1");
    let after = EventRange::OfAll(Some((lost.sale_no, lost.place)));
    let told = read(&node, after, 1_000);
    for event in &all[index + 1..] {
        assert!(
            told.contains(event) || event.place.sequence / 4_096 == lost.place.sequence / 4_096
        );
    }
    assert!(told.len() < all.len());
}

#[test]
fn nothing_slips_in_before_what_was_told() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.open_sale(2, &[10]);
    until("told", || of_all(&node, 9).len() == 4);
    // The clock of a sale may lie ahead: what happens under it is told when that time has come.
    let clock_ms: i64 = rig.meta(2, "clock_ms").parse().unwrap();
    let ahead = clock_ms + 600_000;
    rig.ask(&["HSET", "{s:s-2}:meta", "clock_ms", &ahead.to_string()]);
    node.commit(2, vec![one(1)]).unwrap();
    assert_eq!(of_all(&node, 9).len(), 4);
    node.commit(1, vec![one(1)]).unwrap();
    until("told", || of_all(&node, 9).len() == 5);
    assert_eq!(of_all(&node, 9)[4].sale_no, SaleNo(1));
    assert_eq!(of_sale(&node, 2, 9).len(), 3);
    assert_eq!(of_sale(&node, 2, 9)[2].at, Timestamp(ahead));
}

#[test]
fn a_place_in_a_sale_that_is_not_there_is_an_error() {
    let rig = Rig::start();
    let node = rig.open();
    assert_eq!(of_all(&node, 9), []);
    assert_eq!(node.run(node.store.last_places()).unwrap(), []);
    let unknown = (SaleNo(7), EventPlace::default());
    let all = node.store.events(EventRange::OfAll(Some(unknown)), 9);
    assert!(node.run(all).is_err());
    let of_one = node
        .store
        .events(EventRange::OfSale(unknown.0, unknown.1), 9);
    assert!(node.run(of_one).is_err());
}

#[test]
fn what_changed_after_a_time_is_listed() {
    let rig = Rig::start();
    let node = rig.open();
    let definition = Box::new(plan(1, &[20]));
    node.commit(
        1,
        vec![Change::PutDraft { definition }, Change::Publish, open()],
    )
    .unwrap();
    let mut serials = Vec::new();
    let step = |changes: Vec<Change>| {
        let clock_ms: i64 = rig.meta(1, "clock_ms").parse().unwrap();
        let clock_ms = (clock_ms + 1_000).to_string();
        rig.ask(&["HSET", "{s:s-1}:meta", "clock_ms", &clock_ms]);
        let batch = node.batch(1, changes);
        let at = node.commit_batch(&batch).unwrap().at.unwrap();
        (at, batch.entries[0].serial)
    };
    let mut times = Vec::new();
    for number in 0..5 {
        let (at, serial) = step(vec![one(number)]);
        serials.push(serial);
        times.push(at);
    }
    let release = Change::Release {
        reservation: serials[1],
        units: deltas(&[(0, 1)]),
        is_pooled: false,
    };
    let (released_at, _) = step(vec![release]);
    let list = |time, state, after, limit| -> Vec<Serial> {
        let filter = ReservationFilter {
            buyer: None,
            state,
            updated_after: Some(time),
        };
        let page = Page { after, limit };
        let rows = node.run(node.store.reservations(SaleNo(1), filter, page));
        rows.unwrap().iter().map(|row| row.serial).collect()
    };
    let none = Serial(0);
    assert_eq!(list(Timestamp(0), None, none, 9), serials);
    assert_eq!(
        list(times[2], None, none, 9),
        [serials[1], serials[3], serials[4]]
    );
    assert_eq!(list(times[2], None, none, 2), [serials[1], serials[3]]);
    assert_eq!(list(times[2], None, serials[3], 2), [serials[4]]);
    assert_eq!(
        list(Timestamp(times[2].0 - 1), None, serials[1], 9),
        serials[2..]
    );
    let released = Some(ReservationState::Released);
    assert_eq!(list(times[2], released, none, 9), [serials[1]]);
    assert_eq!(list(times[4], None, none, 9), [serials[1]]);
    assert_eq!(list(released_at, None, none, 9), []);
}

#[test]
fn a_line_ends_with_what_is_told() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    let last = of_sale(&node, 1, 100).pop().unwrap().place;
    let counted = || Change::CountAttempts {
        from: Timestamp(20_000),
        counts: Vec::new(),
    };
    for _ in 0..40 {
        assert_eq!(node.commit(1, vec![counted()]).unwrap().refused, []);
    }
    let places = node.run(node.store.last_places()).unwrap();
    assert_eq!(places, [(SaleNo(1), last)]);
    let batch = vec![counted(), Change::Close, counted(), Change::Retire];
    assert_eq!(node.commit(1, batch).unwrap().refused, []);
    let last = of_sale(&node, 1, 100).pop().unwrap();
    assert_eq!(last.kind, "sale.closed");
    let places = node.run(node.store.last_places()).unwrap();
    assert_eq!(places, [(SaleNo(1), last.place)]);
}
