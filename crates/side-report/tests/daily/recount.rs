//! The same figures, counted from whole tables row by row, without any statement that counts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use side_books::sql::{Get as _, Reads as _, Row, query};

use crate::world::{DAY_MS, MIDNIGHT, World};

type Sections = BTreeMap<String, Value>;

/// Whole tables.
struct Rows {
    participants: Vec<Row>,
    orders: Vec<Row>,
    refunds: Vec<Row>,
    grants: Vec<Row>,
    coupons: Vec<Row>,
    prizes: Vec<Row>,
    verdicts: Vec<Row>,
    decisions: Vec<Row>,
    refusals: Vec<Row>,
    notices: Vec<Row>,
    transfers: Vec<Row>,
    entries: Vec<Row>,
}

fn int(row: &Row, column: &str) -> i64 {
    row.int(column).unwrap()
}

fn text(row: &Row, column: &str) -> String {
    row.text(column).unwrap()
}

/// A day, closed at its begin and open at its end.
#[derive(Clone, Copy)]
struct Bounds(i64, i64);

impl Bounds {
    fn has(self, at: i64) -> bool {
        at >= self.0 && at < self.1
    }

    fn has_some(self, row: &Row, column: &str) -> bool {
        row.int_or_null(column)
            .unwrap()
            .is_some_and(|at| self.has(at))
    }
}

pub async fn count(world: &World, from: i64, until: i64) -> Sections {
    let mut reader = world.shop.database.read().await.unwrap();
    let mut all = async |sql: &'static str| reader.rows(query(sql)).await.unwrap();
    let rows = Rows {
        participants: all("SELECT * FROM participant WHERE campaign = 'c1'").await,
        orders: all("SELECT * FROM shop_order").await,
        refunds: all("SELECT * FROM order_refund").await,
        grants: all("SELECT * FROM reward_grant WHERE campaign = 'c1'").await,
        coupons: all("SELECT * FROM coupon WHERE campaign = 'c1'").await,
        prizes: all("SELECT * FROM prize WHERE campaign = 'c1'").await,
        verdicts: all("SELECT * FROM risk_verdict WHERE campaign = 'c1'").await,
        decisions: all("SELECT * FROM risk_decision WHERE campaign = 'c1'").await,
        refusals: all("SELECT * FROM refusal WHERE campaign = 'c1'").await,
        notices: all("SELECT * FROM notice WHERE subject = 'campaign:c1'").await,
        transfers: all("SELECT * FROM transfer").await,
        entries: all("SELECT * FROM entry").await,
    };
    let day = Bounds(from, until);
    BTreeMap::from([
        ("participants".to_owned(), participants(&rows, day)),
        ("orders".to_owned(), orders(&rows, day)),
        ("budget".to_owned(), budget(&rows, day)),
        ("goals".to_owned(), goals(&rows, day)),
        ("coupons".to_owned(), coupons(&rows, day)),
        ("prizes".to_owned(), prizes(&rows, day)),
        ("verdicts".to_owned(), verdicts(&rows, day)),
        ("refusals".to_owned(), refusals(&rows, day)),
        ("notices".to_owned(), notices(&rows, day)),
        ("anomalies".to_owned(), anomalies(&rows, day)),
    ])
}

/// SHA-256 over the JSON with sorted keys and no spaces.
pub fn hash(figures: &Map<String, Value>) -> String {
    fn write(value: &Value, text: &mut String) {
        match value {
            Value::Object(members) => {
                let sorted: BTreeMap<_, _> = members.iter().collect();
                text.push('{');
                for (index, (name, value)) in sorted.into_iter().enumerate() {
                    text.push_str(if index > 0 { "," } else { "" });
                    text.push_str(&format!("{name:?}:"));
                    write(value, text);
                }
                text.push('}');
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                text.push_str(&value.to_string());
            }
        }
    }
    let mut text = String::new();
    write(&Value::Object(figures.clone()), &mut text);
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn participants(rows: &Rows, day: Bounds) -> Value {
    let (mut joined, mut joined_new, mut joined_old, mut so_far, mut so_far_new) = (0, 0, 0, 0, 0);
    for row in &rows.participants {
        let (at, is_new) = (int(row, "joined_at_ms"), int(row, "is_new") == 1);
        if day.has(at) {
            joined += 1;
            if is_new {
                joined_new += 1;
            } else {
                joined_old += 1;
            }
        }
        if at < day.1 {
            so_far += 1;
            so_far_new += i64::from(is_new);
        }
    }
    json!({
        "joined": joined, "joined_new": joined_new, "joined_old": joined_old,
        "participants": so_far, "participants_new": so_far_new,
    })
}

/// Orders in the campaign's currency that a participant paid from his joining on: amount, time, buyer, new or not, id.
fn bought(rows: &Rows) -> Vec<(i64, i64, String, bool, String)> {
    let joined: BTreeMap<String, (i64, bool)> = rows
        .participants
        .iter()
        .map(|row| {
            (
                text(row, "buyer"),
                (int(row, "joined_at_ms"), int(row, "is_new") == 1),
            )
        })
        .collect();
    let mut bought = Vec::new();
    for row in &rows.orders {
        let (buyer, at) = (text(row, "buyer"), int(row, "paid_at_ms"));
        match joined.get(&buyer) {
            Some((since, is_new)) if at >= *since && text(row, "currency") == "CNY" => {
                bought.push((int(row, "paid_minor"), at, buyer, *is_new, text(row, "id")));
            }
            Some(_) | None => {}
        }
    }
    bought
}

fn orders(rows: &Rows, day: Bounds) -> Value {
    let bought = bought(rows);
    let within = |bounds: Bounds| {
        let (mut orders, mut turnover) = (0, 0);
        let (mut buyers, mut new) = (BTreeSet::new(), BTreeSet::new());
        for (paid, at, buyer, is_new, _) in &bought {
            if bounds.has(*at) {
                orders += 1;
                turnover += paid;
                buyers.insert(buyer);
                if *is_new {
                    new.insert(buyer);
                }
            }
        }
        (orders, buyers.len(), new.len(), turnover)
    };
    let mut refunded = 0;
    for row in &rows.refunds {
        let order = text(row, "order_id");
        if day.has(int(row, "at_ms")) && bought.iter().any(|bought| bought.4 == order) {
            refunded += int(row, "amount_minor");
        }
    }
    let (today, so_far) = (within(day), within(Bounds(MIDNIGHT, day.1)));
    json!({
        "orders": today.0, "buyers": today.1, "buyers_new": today.2, "turnover_minor": today.3,
        "refunded_minor": refunded,
        "orders_so_far": so_far.0, "buyers_so_far": so_far.1, "buyers_new_so_far": so_far.2,
        "turnover_minor_so_far": so_far.3,
    })
}

fn budget(rows: &Rows, day: Bounds) -> Value {
    let times: BTreeMap<i64, i64> = rows
        .transfers
        .iter()
        .map(|row| (int(row, "id"), int(row, "at_ms")))
        .collect();
    let mut parts: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for row in &rows.entries {
        let account = text(row, "account");
        let at = times[&int(row, "transfer")];
        for part in ["available", "held", "spent"] {
            if account == format!("budget:c1:{part}") && at < day.1 {
                let (balance, change) = parts.entry(part).or_default();
                *balance += int(row, "delta");
                *change += if day.has(at) { int(row, "delta") } else { 0 };
            }
        }
    }
    let of = |part: &str| parts.get(part).copied().unwrap_or_default();
    let (available, held, spent) = (of("available").0, of("held").0, of("spent").0);
    let cap = available + held + spent;
    let promised = held + spent;
    let share = if cap > 0 {
        json!(promised * 10_000 / cap)
    } else {
        Value::Null
    };
    let left = if promised > 0 {
        json!(available * (day.1 - MIDNIGHT) / promised / DAY_MS)
    } else {
        Value::Null
    };
    let mut shown = json!({
        "available_minor": available, "held_minor": held, "spent_minor": spent, "cap_minor": cap,
        "promised_bp": share, "days_left": left,
    });
    for (part, (_, change)) in parts {
        shown[format!("{part}_change_minor")] = json!(change);
    }
    shown
}

fn goals(rows: &Rows, day: Bounds) -> Value {
    let before = |row: &&Row| int(row, "joined_at_ms") < day.1;
    let new = rows.participants.iter().filter(before);
    let new = new.filter(|row| int(row, "is_new") == 1).count();
    let turnover: i64 = bought(rows)
        .iter()
        .filter(|bought| bought.1 < day.1)
        .map(|bought| bought.0)
        .sum();
    json!({
        "new_buyers": {"goal": 30, "actual": new, "reached_bp": new * 10_000 / 30},
        "turnover_minor": {"goal": 100_000, "actual": turnover, "reached_bp": turnover * 10_000 / 100_000},
        "smiles": {"goal": 7, "actual": null, "reached_bp": null},
    })
}

/// Rows that pass, by a name.
fn tally(rows: &[Row], passes: impl Fn(&Row) -> bool, name: impl Fn(&Row) -> String) -> Value {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows.iter().filter(|row| passes(row)) {
        *counts.entry(name(row)).or_default() += 1;
    }
    json!(counts)
}

fn coupons(rows: &Rows, day: Bounds) -> Value {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for name in [
        "issued",
        "issued_so_far",
        "used",
        "used_so_far",
        "discount_minor",
        "expired",
    ] {
        counts.insert(name, 0);
    }
    let mut add = |name: &'static str, number: i64| *counts.entry(name).or_default() += number;
    for row in &rows.coupons {
        let issued = int(row, "issued_at_ms");
        if issued >= day.1 {
            continue;
        }
        add("issued_so_far", 1);
        add("issued", i64::from(day.has(issued)));
        if let Some(used) = row.int_or_null("used_at_ms").unwrap() {
            add("used_so_far", i64::from(used < day.1));
            if day.has(used) {
                add("used", 1);
                add("discount_minor", int(row, "discount_minor"));
            }
        }
        let is_expired = text(row, "state") == "EXPIRED" && day.has(int(row, "valid_until_ms"));
        add("expired", i64::from(is_expired));
    }
    let mut shown = json!(counts);
    let reward = |row: &Row| text(row, "reward");
    shown["granted"] = tally(&rows.grants, |row| day.has(int(row, "at_ms")), reward);
    let is_revoked =
        |row: &Row| text(row, "state") == "REVOKED" && day.has_some(row, "closed_at_ms");
    shown["revoked"] = tally(&rows.grants, is_revoked, reward);
    shown
}

fn prizes(rows: &Rows, day: Bounds) -> Value {
    let is_drawn = |row: &Row| int(row, "drawn_at_ms") < day.1;
    json!({"by_state": tally(&rows.prizes, is_drawn, |row| text(row, "state"))})
}

fn verdicts(rows: &Rows, day: Bounds) -> Value {
    let found = |is_shadow: i64| {
        let passes =
            |row: &Row| day.has(int(row, "found_at_ms")) && int(row, "is_shadow") == is_shadow;
        tally(&rows.verdicts, passes, |row| {
            format!("{}.{}", text(row, "rule"), text(row, "verdict"))
        })
    };
    let is_today = |row: &Row| day.has(int(row, "at_ms"));
    json!({
        "found": found(0), "found_in_shadow": found(1),
        "decided": tally(&rows.decisions, is_today, |row| text(row, "decision")),
    })
}

fn refusals(rows: &Rows, day: Bounds) -> Value {
    let is_today = |row: &Row| day.has(int(row, "at_ms"));
    json!({"by_outcome": tally(&rows.refusals, is_today, |row| text(row, "outcome"))})
}

fn notices(rows: &Rows, day: Bounds) -> Value {
    let by_kind = |column: &str| {
        tally(
            &rows.notices,
            |row| day.has_some(row, column),
            |row| text(row, "kind"),
        )
    };
    json!({"sent": by_kind("sent_at_ms"), "opened": by_kind("opened_at_ms")})
}

fn anomalies(rows: &Rows, day: Bounds) -> Value {
    let today =
        |rows: &[Row], column: &str| rows.iter().filter(|row| day.has(int(row, column))).count();
    let joined = today(&rows.participants, "joined_at_ms");
    let refused = today(&rows.refusals, "at_ms");
    let verdicts = today(&rows.verdicts, "found_at_ms");
    let is_lost = |row: &&Row| text(row, "state") == "GIVEN_UP" && day.has(int(row, "due_at_ms"));
    let lost = rows.notices.iter().filter(is_lost).count();
    let mut shown = json!({});
    if refused > joined {
        shown["more_refused_than_joined"] = json!(refused);
    }
    if verdicts > 0 && verdicts * 20 > joined {
        shown["many_verdicts"] = json!(verdicts);
    }
    if lost > 0 {
        shown["notices_given_up"] = json!(lost);
    }
    shown
}
