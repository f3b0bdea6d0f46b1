//! The figures of a report, computed again from what calls were told. Nothing here is shared with the report.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flash_types::Timestamp;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};

use super::{Orders, Try};
use crate::rig::SALE;

type Pick<'a> = &'a dyn Fn(&Value) -> bool;

fn ms(at: &Value) -> i64 {
    Timestamp::parse(at.as_str().unwrap()).unwrap().0
}

fn slot(at_ms: i64) -> i64 {
    // The sale lasts for a day: slots of a minute.
    at_ms / 60_000 * 60_000
}

fn is_paid(order: &Value) -> bool {
    order["state"] == "confirmed" || order["state"] == "refunded"
}

fn lines(order: &Value) -> impl Iterator<Item = &Value> {
    order["lines"].as_array().unwrap().iter()
}

fn units(order: &Value) -> i64 {
    lines(order)
        .map(|line| line["quantity"].as_i64().unwrap())
        .sum()
}

fn amount(order: &Value) -> i64 {
    let price = |line: &Value| {
        line["quantity"].as_i64().unwrap() * line["unit_price_minor"].as_i64().unwrap()
    };
    lines(order).map(price).sum()
}

fn stage(orders: &[&Value], pick: Pick<'_>) -> Value {
    let picked: Vec<_> = orders.iter().filter(|order| pick(order)).collect();
    json!({
        "orders": picked.len(),
        "units": picked.iter().map(|order| units(order)).sum::<i64>(),
        "amount_minor": picked.iter().map(|order| amount(order)).sum::<i64>(),
    })
}

fn in_state(state: &str) -> impl Fn(&Value) -> bool {
    move |order| order["state"] == state
}

fn bp(part: i64, whole: i64) -> Value {
    match whole {
        0 => Value::Null,
        whole => json!(part * 10_000 / whole),
    }
}

/// The whole report, but for the time at which it was made.
pub fn expected(orders: &Orders, tries: &[&Try], events: &Value, sale: &Value) -> Value {
    let all: Vec<&Value> = orders.values().collect();
    let (here, before): (Vec<&Value>, Vec<&Value>) =
        all.into_iter().partition(|order| order["sale_id"] == SALE);
    let event = |kind: &str| {
        let events = events["items"].as_array().unwrap();
        events
            .iter()
            .find(|event| event["type"] == kind)
            .unwrap()
            .clone()
    };
    let opened_at = event("sale.opened")["at"].clone();
    let price_changed_at = event("sale.price_changed")["at"].clone();
    let slots = slots(&here, tries);
    let best = slots
        .iter()
        .rev()
        .max_by_key(|slot| (slot["paid_units"].as_i64(), slot["reserved_units"].as_i64()));
    let paid = here.iter().filter(|order| is_paid(order)).count();
    let of_buyer = |buyer: &str| {
        let orders = here.iter();
        orders
            .filter(|order| order["buyer_id"] == buyer)
            .map(|order| amount(order))
            .sum::<i64>()
    };
    json!({
        "sale_id": SALE, "title": "A sale", "series": "1111", "state": "closed", "currency": "CNY",
        "made_at": null,
        "window": {
            "starts_at": sale["starts_at"], "ends_at": sale["ends_at"],
            "opened_at": opened_at, "closed_at": event("sale.closed")["at"],
        },
        "funnel": funnel(&here, tries),
        "refusals": refusals(tries),
        "slot_s": 60,
        "best_slot": best,
        "slots": slots,
        "items": [
            item("a", &here, tries, &opened_at, &json!([{"from": null, "unit_price_minor": 9_900}])),
            item("b", &here, tries, &opened_at, &json!([
                {"from": null, "unit_price_minor": 500},
                {"from": price_changed_at, "unit_price_minor": 450},
            ])),
            item("c", &here, tries, &opened_at, &json!([{"from": null, "unit_price_minor": 9_900}])),
        ],
        "buyers": buyers(&here, &before),
        "goal": {"orders": 10, "paid_orders": paid, "reached_bp": paid * 1_000},
        "refunds_due": {
            // eve paid too late, ann twice for her first order, kim the price before the change.
            "expired_payments": 1, "expired_amount_minor": of_buyer("eve"),
            "conflicting_payments": 1, "conflicting_amount_minor": 2 * 9_900,
            "protected_lines": 1, "protected_amount_minor": 50,
        },
        "notes": [],
    })
}

fn funnel(here: &[&Value], tries: &[&Try]) -> Value {
    let told = |outcome: &str| tries.iter().filter(|one| one.outcome == outcome).count();
    let paid = here.iter().filter(|order| is_paid(order)).count();
    let back = |order: &Value| -> (i64, i64) {
        let of_line = |line: &Value| {
            let units = line["refunded_units"].as_i64().unwrap();
            (units, units * line["unit_price_minor"].as_i64().unwrap())
        };
        let sums = lines(order).map(of_line);
        sums.fold((0, 0), |sum, line| (sum.0 + line.0, sum.1 + line.1))
    };
    let backs: Vec<_> = here
        .iter()
        .map(|order| back(order))
        .filter(|back| back.0 > 0)
        .collect();
    json!({
        "attempts": tries.len(),
        "refused_attempts": tries.len() - told("reserved") - told("replayed"),
        "replayed_attempts": told("replayed"),
        "unknown_attempts": 0,
        "reserved": stage(here, &|_| true),
        "open": stage(here, &in_state("reserved")),
        "in_flight": stage(here, &in_state("unknown")),
        "paid": stage(here, &is_paid),
        "released": stage(here, &in_state("released")),
        "expired": stage(here, &in_state("expired")),
        "refunded": {
            "orders": backs.len(),
            "units": backs.iter().map(|back| back.0).sum::<i64>(),
            "amount_minor": backs.iter().map(|back| back.1).sum::<i64>(),
        },
        "conversion_bp": bp(paid as i64, tries.len() as i64),
        "paid_bp": bp(paid as i64, here.len() as i64),
    })
}

fn is_refused(one: &Try) -> bool {
    one.outcome != "reserved" && one.outcome != "replayed"
}

fn refusals(tries: &[&Try]) -> Value {
    let refused: Vec<&&Try> = tries.iter().filter(|one| is_refused(one)).collect();
    let words: BTreeSet<&str> = refused.iter().map(|one| one.outcome.as_str()).collect();
    let mut all = Vec::new();
    for word in words {
        let of_word = || refused.iter().filter(|one| one.outcome == word);
        let mut items = Vec::new();
        for name in ["a", "b", "c", "zzz"] {
            let attempts = of_word().filter(|one| one.item == name).count();
            let item = if name == "zzz" {
                Value::Null
            } else {
                json!(name)
            };
            if attempts > 0 {
                items.push(json!({"item": item, "attempts": attempts}));
            }
        }
        all.push(json!({"outcome": word, "attempts": of_word().count(), "items": items}));
    }
    all.sort_by_key(|one| -one["attempts"].as_i64().unwrap());
    Value::Array(all)
}

fn slots(here: &[&Value], tries: &[&Try]) -> Vec<Value> {
    // A try that reserved counts when it did, another one when it was answered.
    let lost = || tries.iter().filter(|one| one.outcome != "reserved");
    let made = |order: &Value| slot(ms(&order["created_at"]));
    let mut begins: BTreeSet<i64> = here.iter().map(|order| made(order)).collect();
    begins.extend(lost().map(|one| slot(one.at_ms)));
    let of_slot = |begin: i64| {
        let inside: Vec<&Value> = here
            .iter()
            .copied()
            .filter(|one| made(one) == begin)
            .collect();
        let lost_here = || lost().filter(|one| slot(one.at_ms) == begin);
        let (reserved, paid) = (stage(&inside, &|_| true), stage(&inside, &is_paid));
        json!({
            "from": Timestamp(begin),
            "attempts": lost_here().count() + inside.len(),
            "refused_attempts": lost_here().filter(|one| is_refused(one)).count(),
            "reserved_orders": reserved["orders"],
            "reserved_units": reserved["units"],
            "reserved_amount_minor": reserved["amount_minor"],
            "paid_orders": paid["orders"],
            "paid_units": paid["units"],
            "paid_amount_minor": paid["amount_minor"],
        })
    };
    begins.into_iter().map(of_slot).collect()
}

fn item(name: &str, here: &[&Value], tries: &[&Try], opened_at: &Value, prices: &Value) -> Value {
    let of_item = |pick: Pick<'_>| -> Vec<(i64, i64, i64)> {
        let orders = here.iter().filter(|order| pick(order));
        let lines = orders
            .flat_map(|order| lines(order))
            .filter(|line| line["item"] == name);
        let figure = |line: &Value, name: &str| line[name].as_i64().unwrap();
        lines
            .map(|line| {
                let units = figure(line, "quantity");
                (
                    figure(line, "unit_price_minor"),
                    units,
                    figure(line, "refunded_units"),
                )
            })
            .collect()
    };
    let (reserved, paid) = (of_item(&|_| true), of_item(&is_paid));
    let units = |lines: &[(i64, i64, i64)]| lines.iter().map(|line| line.1).sum::<i64>();
    let refused = tries
        .iter()
        .filter(|one| is_refused(one) && one.item == name)
        .count();
    let gross: i64 = paid.iter().map(|(price, units, _)| price * units).sum();
    let refunded: i64 = paid.iter().map(|(price, _, back)| price * back).sum();
    // One of hal's units came back into stock, and one was added.
    let (title, stock, restocked) = match name {
        "a" => ("a", 5, 0),
        "b" => ("=b, \"cheap\"", 5, 1),
        _ => ("c", 0, 0),
    };
    let mut sold_at: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (price, units, _) in &reserved {
        sold_at.entry(*price).or_default().0 += units;
    }
    for (price, units, _) in &paid {
        sold_at.entry(*price).or_default().1 += units;
    }
    let sold_at: Vec<_> = sold_at
        .iter()
        .map(|(price, (reserved, paid))| {
            json!({"unit_price_minor": price, "reserved_units": reserved, "paid_units": paid})
        })
        .collect();
    // Who was told to have the last unit.
    let last = match name {
        "a" => Some("eve"),
        "b" => Some("hal"),
        _ => None,
    };
    let last = last.and_then(|buyer| here.iter().find(|order| order["buyer_id"] == buyer));
    let sold_out_at = last.map(|order| order["created_at"].clone());
    let sold = units(&paid) - restocked;
    let demand = units(&reserved) + refused as i64;
    json!({
        "item": name, "title": title,
        "stock_units": stock,
        "reserved_units": units(&reserved),
        "paid_units": units(&paid),
        "refunded_units": paid.iter().map(|line| line.2).sum::<i64>(),
        "sold_units": sold,
        "sell_through_bp": bp(sold, stock),
        "refused_attempts": refused,
        "demand": demand,
        "demand_over_stock_bp": bp(demand, stock),
        "revenue_gross_minor": gross,
        "refunded_minor": refunded,
        "revenue_net_minor": gross - refunded,
        "prices": prices,
        "sold_at": sold_at,
        "time_to_sell_out_ms": sold_out_at.as_ref().map(|at| ms(at) - ms(opened_at)),
        "sold_out_at": sold_out_at,
    })
}

fn buyers(here: &[&Value], before: &[&Value]) -> Value {
    let text = |name: &Value| name.as_str().unwrap().to_owned();
    let names = |orders: &[&Value], pick: Pick<'_>| -> BTreeSet<String> {
        let picked = orders.iter().filter(|order| pick(order));
        picked.map(|order| text(&order["buyer_id"])).collect()
    };
    let paid = names(here, &is_paid);
    let returning = paid.intersection(&names(before, &is_paid)).count();
    let orders_of = |buyer: &String| {
        let orders = here.iter().filter(|order| is_paid(order));
        orders.filter(|order| order["buyer_id"] == *buyer).count()
    };
    let orders: usize = paid.iter().map(orders_of).sum();
    json!({
        "reserved": names(here, &|_| true).len(),
        "paid": paid.len(),
        "new": paid.len() - returning,
        "returning": returning,
        "orders_per_buyer_hundredths": orders * 100 / paid.len(),
        "orders_of_one_buyer_max": paid.iter().map(orders_of).max(),
    })
}

/// Holds the funnel against plain SQL over the store.
pub fn assert_as_stored(report: &Map<String, Value>, data: &Path) {
    let file = data.join("stampede.db");
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let number = |sql: &str| -> i64 { database.query_row(sql, [SALE], |row| row.get(0)).unwrap() };
    let of_sale = "sale_no = (SELECT sale_no FROM sale WHERE sale_id = ?1)";
    let orders = |states: &str| {
        number(&format!(
            "SELECT count(*) FROM reservation WHERE {of_sale} AND state IN ({states})"
        ))
    };
    let funnel = &report["funnel"];
    for (stage, states) in [
        ("reserved", "1,2,3,4,5"),
        ("open", "1"),
        ("paid", "2,5"),
        ("released", "3"),
        ("expired", "4"),
    ] {
        assert_eq!(funnel[stage]["orders"], orders(states), "{stage}");
    }
    let counted = number(&format!(
        "SELECT sum(json_extract(value, '$[2]')) FROM event, json_each(data, '$.counts') \
         WHERE {of_sale} AND event.type = 'sale.attempts'"
    ));
    assert_eq!(funnel["attempts"], counted + orders("1,2,3,4,5"));
}
