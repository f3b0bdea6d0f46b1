//! What may become of a sale besides being sold: waves, a pool, unpublishing, another price, more time, protection, counts;
//! and when the script does not take it.

use flash_store::*;
use flash_types::*;

use crate::common::redis::*;
use crate::common::{deltas, open, payment, reserve};
use crate::{is_frozen, one};

struct Scene {
    rig: Rig,
    node: Node,
}

impl Scene {
    /// A sale with items of 10 and 6 units, of which 4 and 6 wait for waves.
    fn new() -> Self {
        let rig = Rig::start();
        let node = rig.open();
        let scene = Self { rig, node };
        scene.must_take(vec![
            draft(&[10, 6]),
            Change::Publish,
            held(&[(0, 4), (1, 9)]),
        ]);
        scene
    }

    fn refused(&self, changes: Vec<Change>) -> Vec<(usize, EntryRefusal)> {
        self.node.commit(1, changes).unwrap().refused
    }

    /// Takes them; gives the serials.
    fn must_take(&self, changes: Vec<Change>) -> Vec<Serial> {
        let batch = self.node.batch(1, changes);
        assert_eq!(self.node.must_commit(&batch).refused, []);
        batch.entries.iter().map(|entry| entry.serial).collect()
    }

    /// Refused for this, and nothing is there of it.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a change is made for each call"
    )]
    fn must_refuse(&self, change: Change, why: EntryRefusal) {
        let there = |raw: Raw| (raw.meta, raw.resv, raw.reference, raw.buyer, raw.ev);
        let mut before = there(self.rig.raw(1));
        assert_eq!(self.refused(vec![change.clone()]), [(0, why)], "{change:?}");
        let mut after = there(self.rig.raw(1));
        // Time goes on.
        before.0.remove("clock_ms");
        after.0.remove("clock_ms");
        assert_eq!(after, before);
    }

    fn units(&self, item: u16) -> (u64, u64, u64) {
        let units = self.rig.raw(1).item(item);
        assert_eq!(units.imbalance(), 0);
        (units.unreleased, units.available, units.reserved)
    }

    fn advance(&self, ms: i64) {
        let clock_ms: i64 = self.rig.meta(1, "clock_ms").parse().unwrap();
        let clock_ms = (clock_ms + ms).to_string();
        self.rig
            .ask(&["HSET", "{s:s-1}:meta", "clock_ms", &clock_ms]);
    }

    fn clock_ms(&self) -> i64 {
        self.rig.meta(1, "clock_ms").parse().unwrap()
    }

    fn last_line(&self) -> String {
        self.rig.raw(1).ev.last().unwrap().lines[0].clone()
    }
}

fn draft(stock: &[u32]) -> Change {
    Change::PutDraft {
        definition: Box::new(plan(1, stock)),
    }
}

fn held(units: &[(u16, u32)]) -> Change {
    Change::Open {
        held: deltas(units),
    }
}

fn wave(item: u16, wave: WaveRef, due_ms: i64, units: u32) -> Change {
    Change::Wave {
        item: ItemIndex(item),
        wave,
        due_at: Timestamp(due_ms),
        units,
    }
}

fn stale(what: &str) -> EntryRefusal {
    EntryRefusal::Stale(what.into())
}

fn release(reservation: Serial, is_pooled: bool) -> Change {
    Change::Release {
        reservation,
        units: deltas(&[(0, 1)]),
        is_pooled,
    }
}

fn expire(reservation: Serial, is_pooled: bool) -> Change {
    Change::Expire {
        reservation,
        units: deltas(&[(0, 1)]),
        is_pooled,
    }
}

fn extend(reservation: Serial, ms: i64) -> Change {
    Change::Extend {
        reservation,
        expires_at: Timestamp(ms),
    }
}

fn protect(reservation: Serial, item: u16) -> Change {
    Change::ProtectPrice {
        reservation,
        item: ItemIndex(item),
        units: 1,
        paid_minor: Money(9_900),
        price_minor: Money(5_000),
        other: SaleId::parse("s-9").unwrap(),
        state: ReservationState::Confirmed,
        refunded: Deltas::new(),
    }
}

fn confirm(reservation: Serial) -> Change {
    Change::Confirm {
        reservation,
        payment_ref: payment(&format!("p-{}", reservation.0)),
        is_late: false,
        units: deltas(&[(0, 1)]),
    }
}

fn count() -> Change {
    Change::CountAttempts {
        from: Timestamp(10_000),
        counts: Vec::new(),
    }
}

fn price(to: i64) -> Change {
    let mut definition = Box::new(plan(1, &[10, 6]));
    definition.items[0].sale_price_minor = Money(to);
    Change::ChangePrice {
        item: ItemIndex(0),
        from: Money(9_900),
        to: Money(to),
        reason: "a slip".into(),
        definition,
    }
}

#[test]
fn an_opening_holds_back_what_it_is_told_to() {
    let scene = Scene::new();
    assert_eq!(scene.units(0), (4, 6, 0));
    // More than there are: all stay, and the event does not name the item.
    assert_eq!(scene.units(1), (6, 0, 0));
    let lines = scene.rig.raw(1).ev[0].lines.clone();
    assert!(
        lines[2].ends_with("|sale.opened|||{\"units\":[[0,6]]}"),
        "{lines:?}"
    );
}

#[test]
fn a_wave_happens_once_and_in_its_time() {
    let scene = Scene::new();
    let planned = WaveRef::Planned(0);
    let soon = scene.clock_ms() + 600_000;
    scene.must_refuse(wave(0, planned, soon, 2), EntryRefusal::Early);
    scene.must_refuse(wave(0, planned, 0, 5), stale("units"));
    scene.must_refuse(wave(2, planned, 0, 0), stale("item"));
    scene.must_take(vec![wave(0, planned, 0, 2)]);
    assert_eq!(scene.units(0), (2, 8, 0));
    scene.must_refuse(wave(0, planned, 0, 1), stale("reference"));
    // Another item has a wave of its own at that place.
    scene.must_take(vec![wave(1, planned, 0, 0)]);
    assert!(
        scene
            .last_line()
            .ends_with("|sale.wave||plan:0|{\"units\":[[1,0]]}")
    );
    // Twice in a batch; and by hand without a key as often as one likes.
    let by_key = WaveRef::Hand(IdempotencyKey::parse("k").ok());
    let twice = vec![wave(1, by_key, 0, 1), wave(1, by_key, 0, 1)];
    assert_eq!(scene.refused(twice), [(1, stale("reference"))]);
    let by_hand = wave(1, WaveRef::Hand(None), 0, 1);
    scene.must_take(vec![by_hand.clone(), by_hand]);
    assert_eq!(scene.units(1), (3, 3, 0));
    // The time of a wave comes.
    scene.advance(700_000);
    scene.must_take(vec![wave(0, WaveRef::Planned(1), soon, 2)]);
    assert_eq!(scene.units(0), (0, 10, 0));
}

#[test]
fn a_wave_needs_a_sale_that_runs() {
    let scene = Scene::new();
    let by_hand = |units| wave(0, WaveRef::Hand(None), 0, units);
    scene.must_take(vec![Change::Pause, by_hand(1), Change::Close]);
    scene.must_refuse(by_hand(1), stale("state"));
    let reason = "seen".into();
    let refused = scene.refused(vec![Change::Freeze { reason }, by_hand(1)]);
    assert_eq!(refused, [(1, stale("state"))]);
    assert!(is_frozen(&scene.node.commit(1, vec![by_hand(1)])));
    let definition = Box::new(plan(2, &[3]));
    let drafted = vec![
        Change::PutDraft { definition },
        by_hand(1),
        Change::Publish,
        by_hand(1),
    ];
    let refused = scene.node.commit(2, drafted).unwrap().refused;
    assert_eq!(refused, [(1, stale("state"))]);
}

#[test]
fn unpublishing_takes_everything_back_where_nothing_was_reserved() {
    let scene = Scene::new();
    scene.must_take(vec![wave(0, WaveRef::Planned(0), 0, 1), Change::Pause]);
    scene.must_take(vec![Change::Unpublish]);
    assert_eq!(scene.units(0), (10, 0, 0));
    assert_eq!(scene.rig.meta(1, "state"), "draft");
    assert!(
        scene
            .last_line()
            .ends_with("|sale.unpublished|||{\"units\":[[0,7]]}")
    );
    scene.must_refuse(Change::Unpublish, stale("state"));
    // With fewer items, and on from there.
    scene.must_take(vec![
        draft(&[3]),
        Change::Publish,
        Change::Unpublish,
        Change::Publish,
        open(),
    ]);
    let raw = scene.rig.raw(1);
    assert_eq!(raw.item(0).available, 3);
    assert!(!raw.meta.contains_key("i:1"));
    // After a reservation before it in the batch, of each kind.
    let refused = scene.refused(vec![one(1), Change::Unpublish]);
    assert_eq!(refused, [(1, stale("reservations"))]);
    scene.must_refuse(Change::Unpublish, stale("reservations"));
    let node = &scene.node;
    node.open_sale(2, &[5, 5]);
    let of_two_items = vec![reserve(1, &[(0, 1), (1, 1)]), Change::Unpublish];
    let refused = node.commit(2, of_two_items).unwrap().refused;
    assert_eq!(refused, [(1, stale("reservations"))]);
    // One that was refused reserved nothing.
    node.open_sale(3, &[1]);
    let committed = node.commit(3, vec![reserve(1, &[(0, 2)]), Change::Unpublish]);
    assert_eq!(committed.unwrap().refused, [(0, EntryRefusal::SoldOut(1))]);
    assert_eq!(scene.rig.meta(3, "state"), "draft");
    // A closed one stays closed.
    node.open_sale(4, &[1]);
    let committed = node.commit(4, vec![Change::Close, Change::Unpublish]);
    assert_eq!(committed.unwrap().refused, [(1, stale("state"))]);
}

#[test]
fn a_price_changes_only_while_the_sale_is_paused() {
    let scene = Scene::new();
    scene.must_refuse(price(5_000), stale("state"));
    let window = scene.rig.meta(1, "window_ms");
    scene.must_take(vec![
        Change::Pause,
        price(4_000),
        price(5_000),
        Change::Resume,
    ]);
    let content = scene
        .node
        .run(scene.node.store.content(SaleNo(1)))
        .unwrap()
        .unwrap();
    assert_eq!(
        content.sale.definition.items[0].sale_price_minor,
        Money(5_000)
    );
    assert_eq!(scene.rig.meta(1, "window_ms"), window);
    assert_eq!(scene.units(0), (4, 6, 0));
    scene.must_refuse(price(6_000), stale("state"));
    // A new plan in the same batch is the last word.
    scene.must_take(vec![
        Change::Pause,
        price(7_000),
        Change::Unpublish,
        draft(&[2]),
    ]);
    let content = scene
        .node
        .run(scene.node.store.content(SaleNo(1)))
        .unwrap()
        .unwrap();
    assert_eq!(content.sale.definition, plan(1, &[2]));
}

#[test]
fn an_extended_reservation_expires_later() {
    let scene = Scene::new();
    let serials = scene.must_take(vec![one(1), one(2), one(3)]);
    let [kept, other, paid] = serials[..] else {
        panic!()
    };
    let raw = scene.rig.raw(1);
    let expires_ms: i64 = raw.resv[&kept.0.to_string()]
        .split('|')
        .nth(2)
        .unwrap()
        .parse()
        .unwrap();
    scene.must_refuse(extend(Serial(1), NEVER.0), stale("reservation"));
    scene.must_refuse(extend(kept, expires_ms), stale("state"));
    scene.must_refuse(extend(kept, expires_ms - 1), stale("state"));
    scene.must_take(vec![extend(kept, expires_ms + 300_000), confirm(paid)]);
    scene.must_refuse(extend(paid, NEVER.0), stale("state"));
    scene.advance(301_000);
    scene.must_refuse(expire(kept, false), EntryRefusal::Early);
    // Within one batch too.
    let refused = scene.refused(vec![extend(other, NEVER.0), expire(other, false)]);
    assert_eq!(refused, [(1, EntryRefusal::Early)]);
    scene.advance(300_000);
    scene.must_take(vec![expire(kept, false)]);
    scene.must_refuse(extend(kept, NEVER.0), stale("state"));
}

#[test]
fn pooled_units_wait_for_their_wave() {
    let scene = Scene::new();
    let serials = scene.must_take(vec![one(1), one(2), one(3)]);
    scene.must_take(vec![release(serials[0], true)]);
    assert_eq!(scene.units(0), (5, 3, 2));
    scene.must_refuse(release(serials[0], true), stale("state"));
    scene.must_refuse(expire(serials[1], true), EntryRefusal::Early);
    scene.advance(400_000);
    scene.must_take(vec![expire(serials[1], true), release(serials[2], false)]);
    assert_eq!(scene.units(0), (6, 4, 0));
    scene.must_take(vec![wave(0, WaveRef::Pool(0), 0, 2)]);
    assert_eq!(scene.units(0), (4, 6, 0));
    assert!(scene.rig.raw(1).buyer.is_empty());
    scene.must_refuse(wave(0, WaveRef::Pool(0), 0, 1), stale("reference"));
}

#[test]
fn a_price_is_protected_once_for_each_item_of_what_was_paid() {
    let scene = Scene::new();
    let serial = scene.must_take(vec![one(1)])[0];
    scene.must_refuse(protect(serial, 0), stale("state"));
    scene.must_refuse(protect(Serial(1), 0), stale("reservation"));
    scene.must_take(vec![confirm(serial), protect(serial, 0)]);
    scene.must_refuse(protect(serial, 0), stale("reference"));
    scene.must_take(vec![protect(serial, 1)]);
    let of = scene.node.store.decisions_of(SaleNo(1), serial);
    let decisions: Vec<_> = scene.node.run(of).unwrap();
    let kinds: Vec<_> = decisions.iter().map(|row| row.decision.kind).collect();
    let protection = DecisionKind::PriceProtection;
    assert_eq!(kinds, [DecisionKind::PaymentTaken, protection, protection]);
    let detail = decisions[2].detail.as_deref();
    assert_eq!(detail, Some(r#"{"units":1,"paid":9900,"price":5000}"#));
    let records = scene.rig.raw(1).resv;
    assert!(
        records[&serial.0.to_string()].starts_with("c|"),
        "it stays as it is"
    );
}

#[test]
fn tries_are_counted_in_every_state_but_the_frozen_one() {
    let scene = Scene::new();
    scene.must_take(vec![
        count(),
        Change::Pause,
        count(),
        Change::Close,
        count(),
    ]);
    scene.must_take(vec![Change::Retire, count()]);
    let reason = "seen".into();
    let refused = scene.refused(vec![Change::Freeze { reason }, count()]);
    assert_eq!(refused, [(1, stale("state"))]);
    assert!(is_frozen(&scene.node.commit(1, vec![count()])));
}
