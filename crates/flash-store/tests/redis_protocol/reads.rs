//! What is read from the store: sales that left memory, and the admin log.

use dev_faultproxy::Fault;
use flash_store::*;
use flash_types::*;

use crate::common::redis::*;
use crate::common::{deltas, payment, reserve};
use crate::{is_unavailable, note};

/// A retired sale: 300 reservations, of which the first is released and the second confirmed and refunded in part.
fn retired(node: &Node) -> Vec<Serial> {
    node.open_sale(1, &[1_000]);
    let mut serials = Vec::new();
    for from in [0, 150] {
        let reserves = (from..from + 150).map(|number| reserve(number, &[(0, 2)]));
        let batch = node.batch(1, reserves.collect());
        node.commit_batch(&batch).unwrap();
        serials.extend(batch.entries.iter().map(|entry| entry.serial));
    }
    let changes = vec![
        Change::Release {
            reservation: serials[0],
            units: deltas(&[(0, 2)]),
            is_pooled: false,
        },
        Change::RefusePayment {
            reservation: serials[0],
            payment_ref: payment("p-0"),
            is_expired: false,
            state: ReservationState::Released,
            refunded: Deltas::new(),
        },
        Change::Confirm {
            reservation: serials[1],
            payment_ref: payment("p-1"),
            is_late: false,
            units: deltas(&[(0, 2)]),
        },
        Change::Refund {
            reservation: serials[1],
            refund_ref: RefundRef::parse("f-1").ok(),
            restock: true,
            units: deltas(&[(0, 1)]),
            is_whole: false,
            refunded: deltas(&[(0, 1)]),
        },
        Change::Close,
        Change::Retire,
    ];
    assert_eq!(node.commit(1, changes).unwrap().refused, []);
    serials
}

#[test]
fn a_retired_sale_is_read_one_by_one() {
    let rig = Rig::start();
    let serials = retired(&rig.open());
    let node = rig.open();
    assert!(node.loaded.sales[0].is_retired);
    assert_eq!(
        (node.loaded.reservations.len(), node.loaded.decisions.len()),
        (0, 0)
    );
    let sale_no = SaleNo(1);
    let read = |serial| node.run(node.store.reservation(sale_no, serial)).unwrap();
    let row = read(serials[1]).unwrap();
    assert_eq!(row.state, ReservationState::Confirmed);
    assert_eq!(row.payment_ref, Some(payment("p-1")));
    let line = row.lines[0];
    assert_eq!(
        (line.units, line.refunded_units, line.restocked_units),
        (2, 1, 1)
    );
    assert_eq!(read(serials[0]).unwrap().state, ReservationState::Released);
    assert_eq!(read(Serial(1)), None);

    let by_key = |buyer: &str, key: &str| {
        let buyer = BuyerId::parse(buyer).unwrap();
        let key = IdempotencyKey::parse(key).unwrap();
        let row = node.run(node.store.reservation_by_key(sale_no, buyer, key));
        row.unwrap().map(|row| row.serial)
    };
    assert_eq!(by_key("buyer-1", "key-1"), Some(serials[1]));
    assert_eq!(by_key("buyer-2", "key-1"), None);

    let decided = |name: &str| {
        let row = node.run(node.store.payment_decision(sale_no, payment(name)));
        row.unwrap()
            .map(|row| (row.decision.kind, row.decision.reservation))
    };
    let conflict = DecisionKind::PaymentRefusedConflict;
    assert_eq!(decided("p-0"), Some((conflict, Some(serials[0]))));
    assert_eq!(
        decided("p-1"),
        Some((DecisionKind::PaymentTaken, Some(serials[1])))
    );
    assert_eq!(decided("p-2"), None);

    let of = |serial| node.run(node.store.decisions_of(sale_no, serial)).unwrap();
    let kinds: Vec<_> = of(serials[1]).iter().map(|row| row.decision.kind).collect();
    assert_eq!(kinds, [DecisionKind::PaymentTaken, DecisionKind::Refund]);
    assert_eq!(
        of(serials[1])[1].detail.as_deref(),
        Some(r#"{"restock":true,"lines":[[0,1]]}"#)
    );
    assert_eq!(of(serials[2]), []);
    let units = node.run(node.store.items(sale_no)).unwrap()[0].units;
    assert_eq!((units.sold, units.reserved, units.available), (1, 596, 403));
    assert_eq!(units.imbalance(), 0);
}

#[test]
fn a_retired_sale_is_listed_in_pages() {
    let rig = Rig::start();
    let node = rig.open();
    let serials = retired(&node);
    let list = |buyer: Option<&str>, state, after, limit| -> Vec<Serial> {
        let filter = ReservationFilter {
            buyer: buyer.map(|buyer| BuyerId::parse(buyer).unwrap()),
            state,
            updated_after: None,
        };
        let page = Page { after, limit };
        let rows = node.run(node.store.reservations(SaleNo(1), filter, page));
        rows.unwrap().iter().map(|row| row.serial).collect()
    };
    assert_eq!(list(None, None, Serial(0), 400), serials);
    assert_eq!(list(None, None, serials[9], 3), serials[10..13]);
    assert_eq!(list(None, None, serials[299], 3), []);
    let released = Some(ReservationState::Released);
    assert_eq!(list(None, released, Serial(0), 9), serials[..1]);
    // Buyers go round by seven.
    assert_eq!(list(Some("buyer-3"), None, serials[290], 9), [serials[297]]);
    let reserved = Some(ReservationState::Reserved);
    assert_eq!(
        list(Some("buyer-0"), reserved, Serial(0), 2),
        [serials[7], serials[14]]
    );
    assert_eq!(list(Some("nobody"), None, Serial(0), 9), []);
}

#[test]
fn notes_of_all_sales_and_of_none_are_read_in_their_order() {
    let rig = Rig::start();
    let node = rig.open();
    node.open_sale(1, &[10]);
    node.open_sale(2, &[10]);
    let of = |detail: &str| Change::Note(note(detail));
    node.commit(0, vec![of("a"), of("b")]).unwrap();
    node.commit(1, vec![Change::Pause, of("c")]).unwrap();
    node.commit(0, vec![of("d")]).unwrap();
    node.commit(2, vec![Change::Pause, of("e")]).unwrap();
    // Nobody did what was refused.
    node.commit(2, vec![Change::Pause, of("refused")]).unwrap();
    let read = |after, limit| {
        let notes = node.run(node.store.admin_notes(after, limit)).unwrap();
        let details: Vec<String> = notes.iter().map(|(_, note)| note.detail.clone()).collect();
        (details, notes.last().map_or(0, |(number, _)| *number))
    };
    let (first, after) = read(0, 3);
    assert_eq!(first, ["a", "b", "c"]);
    let (rest, after) = read(after, 9);
    assert_eq!(rest, ["d", "e"]);
    assert_eq!(read(after, 9).0, Vec::<String>::new());
}

#[test]
fn a_note_whose_answer_was_lost_is_written_once() {
    let rig = Rig::start();
    let (proxy, config) = rig.proxied();
    let node = Node::open_when_there(&config);
    let mut lost = 0;
    for bytes in (0..120).step_by(6) {
        let notes = vec![Change::Note(note("a")), Change::Note(note("b"))];
        let batch = node.batch(0, notes);
        proxy.cut_replies_after(bytes);
        // As often as it takes: a part of the answer may be lost, and the connection with it.
        until("written", || {
            let verdict = node.commit_batch(&batch);
            assert!(
                !matches!(verdict, Err(CommitError::Fatal(_))),
                "{verdict:?}"
            );
            lost += u32::from(verdict.is_err());
            verdict.is_ok()
        });
    }
    assert!(proxy.fired_by(Fault::CutReplies) > 5 && lost > 3, "{lost}");
    // The last fault may still wait for its bite.
    let read = || node.run(node.store.admin_notes(0, 99));
    let notes = read().or_else(|_| read()).unwrap();
    assert_eq!(notes.len(), 2 * 20);
}

#[test]
fn an_empty_batch_asks_whether_writes_work() {
    let mut rig = Rig::start();
    let node = rig.open();
    assert!(node.commit(0, Vec::new()).is_ok());
    rig.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    let verdict = node.commit(0, Vec::new());
    let is_full = matches!(
        verdict,
        Err(CommitError::NotApplied(NotApplied::StorageFull(_)))
    );
    assert!(is_full, "{verdict:?}");
    rig.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    rig.server.kill().unwrap();
    let verdict = node.commit(0, Vec::new());
    assert!(
        matches!(verdict, Err(CommitError::NotApplied(_))),
        "{verdict:?}"
    );
    rig.server.restart().unwrap();
    assert!(node.commit(0, Vec::new()).is_ok());
    rig.ask(&["FLUSHALL"]);
    let verdict = node.commit(0, Vec::new());
    assert!(is_unavailable(&verdict, "emptied"), "{verdict:?}");
}

#[test]
fn what_is_not_there_is_told() {
    let rig = Rig::start();
    let node = rig.open();
    assert!(node.run(node.store.content(SaleNo(9))).is_err());
    assert!(
        node.run(node.store.reservation(SaleNo(9), Serial(1)))
            .is_err()
    );
}
