//! A store with every kind of entry, and how to damage it.

use dev_servers::RedisOptions;
use flash_settle::{Report, audit_redis};
use flash_store::*;
use flash_types::*;

use super::common::redis::*;
use super::common::*;

pub const META: &str = "{s:s-1}:meta";
pub const RESV: &str = "{s:s-1}:resv";
/// Before the names of the copies that a fault is undone with.
const COPY: &str = "sound:";

pub fn quick() -> Rig {
    Rig::with(RedisOptions::default().appendonly(false))
}

pub fn commit(node: &Node, sale_no: u32, changes: Vec<Change>) -> Vec<u64> {
    let batch = node.batch(sale_no, changes);
    let committed = node.commit_batch(&batch).unwrap();
    assert_eq!(committed.refused, []);
    batch.entries.iter().map(|entry| entry.serial.0).collect()
}

pub fn pair() -> Deltas {
    deltas(&[(0, 1), (1, 1)])
}

pub fn confirm(reservation: u64, payment_ref: &str, is_late: bool) -> Change {
    Change::Confirm {
        reservation: Serial(reservation),
        payment_ref: payment(payment_ref),
        is_late,
        units: pair(),
    }
}

pub fn refund(reservation: u64, reference: &str, units: &[(u16, u32)], is_whole: bool) -> Change {
    Change::Refund {
        reservation: Serial(reservation),
        refund_ref: RefundRef::parse(reference).ok(),
        restock: !is_whole,
        units: deltas(units),
        is_whole,
        refunded: deltas(units),
    }
}

pub fn note(detail: &str) -> AdminNote {
    AdminNote {
        at: Timestamp(5),
        who: "ops".into(),
        command: "sale.pause".into(),
        sale_id: SaleId::parse("s-1").ok(),
        outcome: "ok".into(),
        detail: detail.into(),
    }
}

/// A store with every kind of entry, stopped. Sale 1 is open, 2 retired, 3 a draft that was replaced, 4 was frozen and
/// taken as it is.
pub struct Sound {
    pub rig: Rig,
    /// Of sale 1: refunded whole, refunded in part, released, paid late, expired and refused, reserved.
    pub serials: Vec<u64>,
}

impl Sound {
    pub fn make() -> Self {
        let rig = quick();
        let node = rig.open();
        node.open_sale(1, &[10, 10]);
        let reserves = (0..6).map(|number| reserve(number, &[(0, 1), (1, 1)]));
        let serials = commit(&node, 1, reserves.collect());
        let of = |index: usize| serials[index];
        let released = Change::Release {
            reservation: Serial(of(2)),
            units: pair(),
            is_pooled: false,
        };
        let changes = vec![
            confirm(of(0), "p-0", false),
            confirm(of(1), "p-1", false),
            released,
        ];
        commit(&node, 1, changes);
        // The payment window passes.
        let clock_ms: i64 = rig.meta(1, "clock_ms").parse().unwrap();
        rig.ask(&["HSET", META, "clock_ms", &(clock_ms + 400_000).to_string()]);
        let expire = |index: usize| Change::Expire {
            reservation: Serial(of(index)),
            units: pair(),
            is_pooled: false,
        };
        commit(&node, 1, vec![expire(3), expire(4)]);
        let refused = Change::RefusePayment {
            reservation: Serial(of(4)),
            payment_ref: payment("p-4"),
            is_expired: true,
            state: ReservationState::Expired,
            refunded: Deltas::new(),
        };
        let changes = vec![
            confirm(of(3), "p-3", true),
            refused,
            refund(of(1), "f-1", &[(1, 1)], false),
            refund(of(0), "f-0", &[(0, 1), (1, 1)], true),
        ];
        commit(&node, 1, changes);
        let stock = Change::ChangeStock {
            item: ItemIndex(0),
            key: IdempotencyKey::parse("stock-1").unwrap(),
            asked_delta_units: 5,
            applied_delta_units: 5,
            reason: "found | \"behind\"\nthe shelf".into(),
        };
        let changes = vec![stock, Change::Pause, Change::Note(note("")), Change::Resume];
        commit(&node, 1, changes);
        node.open_sale(2, &[3]);
        commit(&node, 2, vec![reserve(0, &[(0, 1)])]);
        commit(&node, 2, vec![Change::Close, Change::Retire]);
        for stock in [&[5, 5, 5][..], &[7]] {
            let definition = Box::new(plan(3, stock));
            commit(&node, 3, vec![Change::PutDraft { definition }]);
        }
        node.open_sale(4, &[4]);
        let reason = "seen".into();
        commit(
            &node,
            4,
            vec![reserve(0, &[(0, 2)]), Change::Freeze { reason }],
        );
        let serials_of_two = [node.serial(), node.serial()];
        let note = note("as it is");
        let content = node.run(node.store.content(SaleNo(4))).unwrap().unwrap();
        let loss = AcceptedLoss {
            serials: serials_of_two,
            note: &note,
            lost: 0,
            ev: content.ev,
            is_rest_whole: true,
        };
        let accepted = node.store.accept(SaleNo(4), &loss);
        assert_eq!(node.run(accepted).unwrap(), SaleState::Open);
        commit(&node, 0, vec![Change::Note(note)]);
        Self::stopped(rig, node, serials)
    }

    /// The store as it is now.
    pub fn stopped(rig: Rig, node: Node, serials: Vec<u64>) -> Self {
        node.run(node.store.close());
        drop(node);
        for key in rig.ask(&["KEYS", "*"]).lines() {
            rig.ask(&["COPY", key, &format!("{COPY}{key}")]);
        }
        Self { rig, serials }
    }

    /// Audits the sound store with these commands done to it.
    #[track_caller]
    pub fn with(&self, commands: &[&[&str]]) -> Report {
        self.restore();
        for words in commands {
            self.rig.ask(words);
        }
        audit_redis(&self.rig.server.url(), None).unwrap()
    }

    fn restore(&self) {
        let keys = self.rig.ask(&["KEYS", "*"]);
        for key in keys.lines().filter(|key| !key.starts_with(COPY)) {
            self.rig.ask(&["DEL", key]);
        }
        for copy in keys.lines().filter(|key| key.starts_with(COPY)) {
            self.rig.ask(&["COPY", copy, &copy[COPY.len()..]]);
        }
    }

    /// The record of the reservation in this place.
    pub fn record(&self, index: usize) -> (String, String) {
        self.restore();
        let serial = self.serials[index].to_string();
        let record = self.rig.ask(&["HGET", RESV, &serial]);
        (serial, record)
    }

    /// The id of the event in this place of sale 1, from 0.
    pub fn event(&self, index: usize) -> String {
        self.restore();
        self.rig.raw(1).ev[index].id.clone()
    }
}
