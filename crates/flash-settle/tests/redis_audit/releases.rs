//! Waves, unpublishing, prices, extensions and price protection: what is planted is found.

use flash_settle::Code;
use flash_store::*;
use flash_types::*;

use super::common::redis::*;
use super::common::*;
use super::sound::*;
use super::{EV, REF, found, found_of, must_be_ok};

/// In each entry of `ev` the first such text becomes another.
const REWRITE: &str = "local entries = redis.call('XRANGE', KEYS[1], '-', '+') \
    redis.call('DEL', KEYS[1]) \
    for _, entry in ipairs(entries) do \
        local lines = entry[2][4] \
        local from, to = string.find(lines, ARGV[1], 1, true) \
        if from then lines = string.sub(lines, 1, from - 1) .. ARGV[2] .. string.sub(lines, to + 1) end \
        redis.call('XADD', KEYS[1], entry[1], 'at', entry[2][2], 'c', lines) \
    end";

fn rewrite<'a>(from: &'a str, to: &'a str) -> [&'a str; 6] {
    ["EVAL", REWRITE, "1", EV, from, to]
}

fn wave(item: u16, wave: WaveRef, units: u32) -> Change {
    Change::Wave {
        item: ItemIndex(item),
        wave,
        due_at: Timestamp(0),
        units,
    }
}

/// Sale 1 was opened, taken back and opened again, has had waves, and is sold at another price; of its reservations the
/// first is paid and protected, the second released to the pool, the third extended, the fourth expired to the pool.
/// Sale 2 was taken back.
fn scene() -> Sound {
    let rig = quick();
    let node = rig.open();
    let held = || Change::Open {
        held: deltas(&[(0, 4), (1, 3)]),
    };
    let draft = |sale_no| Change::PutDraft {
        definition: Box::new(plan(sale_no, &[10, 10])),
    };
    for sale_no in [1, 2] {
        commit(
            &node,
            sale_no,
            vec![draft(sale_no), Change::Publish, held()],
        );
        commit(&node, sale_no, vec![Change::Unpublish]);
    }
    commit(&node, 1, vec![draft(1), Change::Publish, held()]);
    let waves = vec![
        wave(0, WaveRef::Planned(0), 2),
        wave(1, WaveRef::Hand(None), 1),
    ];
    commit(&node, 1, waves);
    let reserves = (0..4).map(|number| reserve(number, &[(0, 1), (1, 1)]));
    let serials = commit(&node, 1, reserves.collect());
    let of = |index: usize| Serial(serials[index]);
    let changes = vec![
        confirm(serials[0], "p-0", false),
        Change::Release {
            reservation: of(1),
            units: pair(),
            is_pooled: true,
        },
        Change::Extend {
            reservation: of(2),
            expires_at: NEVER,
        },
    ];
    commit(&node, 1, changes);
    let mut cheaper = plan(1, &[10, 10]);
    let (from, to) = (cheaper.items[0].sale_price_minor, Money(5_000));
    cheaper.items[0].sale_price_minor = to;
    let price = Change::ChangePrice {
        item: ItemIndex(0),
        from,
        to,
        reason: "a \"slip\"".into(),
        definition: Box::new(cheaper),
    };
    commit(&node, 1, vec![Change::Pause, price, Change::Resume]);
    let protected = Change::ProtectPrice {
        reservation: of(0),
        item: ItemIndex(0),
        units: 1,
        paid_minor: from,
        price_minor: to,
        other: SaleId::parse("s-1").unwrap(),
        state: ReservationState::Confirmed,
        refunded: Deltas::new(),
    };
    let counted = Change::CountAttempts {
        from: Timestamp(10_000),
        counts: vec![AttemptCount {
            item: None,
            outcome: "sold_out".into(),
            attempts: 7,
        }],
    };
    commit(&node, 1, vec![protected, counted]);
    let clock_ms: i64 = rig.meta(1, "clock_ms").parse().unwrap();
    rig.ask(&["HSET", META, "clock_ms", &(clock_ms + 400_000).to_string()]);
    let expired = Change::Expire {
        reservation: of(3),
        units: pair(),
        is_pooled: true,
    };
    commit(&node, 1, vec![expired]);
    Sound::stopped(rig, node, serials)
}

#[test]
fn books_with_releases_are_ok() {
    let report = scene().with(&[]);
    must_be_ok(&report);
    // Payment, protection and the planned wave; one by hand without a key is none.
    assert_eq!(report.counts.decisions, 3);
    let units: Vec<_> = report.sales[0]
        .items
        .iter()
        .map(|item| (item.units.unreleased, item.units.available))
        .collect();
    assert_eq!(units, [(4, 4), (4, 4)]);
    assert_eq!(report.sales[1].state, "draft");
}

#[test]
fn wrong_waves_are_named() {
    let sound = scene();
    let report = sound.with(&[&rewrite(
        "plan:0|{\"units\":[[0,2]]}",
        "plan:0|{\"units\":[[0,3]]}",
    )]);
    found(&report, Code::FoldMismatch, "");
    found(&report, Code::DecisionMissing, "wave|0|plan:0");
    let report = sound.with(&[&rewrite("plan:0|{\"units\":[[0,2]]}", "plan:0|{}")]);
    found(&report, Code::Damaged, "sale.wave");
    let report = sound.with(&[&rewrite("sale.opened", "sale.closed")]);
    found(&report, Code::EventUnfit, "(sale.wave) does not fit sale 1");
    let report = sound.with(&[&["HDEL", REF, "wave|0|plan:0"]]);
    found(&report, Code::DecisionMissing, "plan:0");
    let report = sound.with(&[&["HSET", REF, "wave|0|plan:1", "done|0|"]]);
    found(&report, Code::DecisionUnknown, "plan:1");
    let report = sound.with(&[&["HSET", META, "i:0", "10,3,5,1,1,"]]);
    found(&report, Code::FoldMismatch, "");
    // Twice.
    let report = sound.with(&[&rewrite(
        "sale.wave|||{\"units\":[[1,",
        "sale.wave||plan:0|{\"units\":[[0,",
    )]);
    found(&report, Code::EventUnfit, "decides on plan:0 once more");
}

#[test]
fn a_wrong_unpublishing_is_named() {
    let sound = scene();
    let ev = "{s:s-2}:ev";
    let rewrite_of_two = ["EVAL", REWRITE, "1", ev, "[0,6],[1,7]", "[0,5],[1,7]"];
    let report = sound.with(&[&rewrite_of_two]);
    // Of the opening and of the unpublishing alike.
    must_be_ok(&report);
    let only_back = "sale.unpublished|||{\"units\":[[0,";
    let report = sound.with(&[&[
        "EVAL",
        REWRITE,
        "1",
        ev,
        &format!("{only_back}6"),
        &format!("{only_back}5"),
    ]]);
    found_of("s-2", &report, Code::FoldMismatch, "");
    let report = sound.with(&[&["HSET", "{s:s-2}:meta", "state", "open"]]);
    found_of("s-2", &report, Code::SaleAltered, "state is ");
    let report = sound.with(&[&rewrite("sale.paused", "sale.unpublished")]);
    found(
        &report,
        Code::EventUnfit,
        "something of sale 1 was reserved",
    );
}

#[test]
fn a_wrong_pool_is_named() {
    let sound = scene();
    let report = sound.with(&[&rewrite("\"pooled\":true,", "")]);
    for item in ["sku-0", "sku-1"] {
        let of_item = |finding: &&flash_settle::Finding| finding.item.as_deref() == Some(item);
        let found = report.findings.iter().find(of_item).unwrap();
        assert_eq!(found.code, Code::FoldMismatch, "{report}");
    }
}

#[test]
fn a_wrong_price_is_named() {
    let sound = scene();
    let report = sound.with(&[&rewrite("\"to\":5000", "\"to\":5001")]);
    found(&report, Code::SaleAltered, "def is ");
    let report = sound.with(&[&rewrite("\"from\":9900,\"to\"", "\"from\":1,\"to\"")]);
    found(&report, Code::EventUnfit, "item 0 was not sold at 1");
    let report = sound.with(&[&rewrite("sale.paused", "sale.closed")]);
    found(
        &report,
        Code::EventUnfit,
        "(sale.price_changed) does not fit",
    );
    let report = sound.with(&[&rewrite("\"to\":5000", "\"to\":\"x\"")]);
    found(&report, Code::Damaged, "sale.price_changed");
}

#[test]
fn a_wrong_extension_is_named() {
    let sound = scene();
    let (serial, record) = sound.record(2);
    let shorter = record.replacen(&NEVER.0.to_string(), "3000000000000", 1);
    assert_ne!(shorter, record);
    let report = sound.with(&[&["HSET", RESV, &serial, &shorter]]);
    found(
        &report,
        Code::ReservationAltered,
        "is kept until 3000000000000",
    );
    let until = format!("\"until\":{}", NEVER.0);
    let report = sound.with(&[&rewrite(&until, "\"until\":1")]);
    found(&report, Code::EventUnfit, "keeps it until 1");
    found(&report, Code::ReservationAltered, "its events say 1");
    let another = sound.serials[3].to_string();
    let (from, to) = (
        format!("extended|{serial}|"),
        format!("extended|{another}|"),
    );
    let report = sound.with(&[&rewrite(&from, &to)]);
    found(&report, Code::EventUnfit, "(reservation.expired)");
    found(
        &report,
        Code::ReservationAltered,
        &format!("r1-{serial} is kept until"),
    );
    let paid = format!("extended|{}|", sound.serials[0]);
    let report = sound.with(&[&rewrite(&from, &paid)]);
    found(&report, Code::EventUnfit, "which was confirmed then");
}

#[test]
fn a_wrong_price_protection_is_named() {
    let sound = scene();
    let serial = sound.serials[0].to_string();
    let field = format!("price_protection|{serial}|0");
    let report = sound.with(&[&["HDEL", REF, &field]]);
    found(
        &report,
        Code::DecisionMissing,
        "decided on the price of item 0",
    );
    let report = sound.with(&[&["HSET", REF, &field, &format!("done|{serial}|")]]);
    found(&report, Code::DecisionMissing, &field);
    let report = sound.with(&[&rewrite("\"price\":5000", "\"price\":1")]);
    found(&report, Code::DecisionMissing, &field);
    let list = format!("of|{serial}");
    let report = sound.with(&[&["HSET", REF, &list, "payment|0|p-0"]]);
    found(&report, Code::DecisionMissing, &list);
    let reserved = sound.serials[2].to_string();
    let unknown = format!("price_protection|{reserved}|0");
    let report = sound.with(&[&["HSET", REF, &unknown, &format!("done|{reserved}|")]]);
    found(&report, Code::DecisionUnknown, &unknown);
    let (from, to) = (
        format!("refund_due|{serial}|"),
        format!("refund_due|{reserved}|"),
    );
    let report = sound.with(&[&rewrite(&from, &to)]);
    found(&report, Code::EventUnfit, "which was reserved then");
}
