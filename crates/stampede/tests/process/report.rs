//! The report of a sale, held against what its buyers were told: every figure is computed again from the log of the calls,
//! by code that shares nothing with the report.

use std::collections::{BTreeMap, BTreeSet};

use crowd::api;
use crowd::client::{Client, Request, Timeouts};
use crowd::log::now_ms;
use crowd::token::now_s;
use crowd::wait::poll_until_async;
use flash_types::Timestamp;
use serde_json::{Value, json};

use crate::rig::*;

mod again;
use again::*;

on_both_stores!(
    every_figure_is_what_the_calls_were_told,
    a_report_is_told_to_viewers_only_and_in_known_formats,
);

const EARLIER: &str = "s0";

/// A call that tried to buy, and its answer.
pub struct Try {
    pub sale: &'static str,
    /// When it was answered.
    pub at_ms: i64,
    pub item: &'static str,
    pub outcome: String,
}

/// A reservation, as the last answer about it has it; and when it was made, as the first one had it.
pub type Orders = BTreeMap<String, Value>;

/// All calls so far.
pub struct Calls {
    shop: Shop,
    client: Client,
    tries: Vec<Try>,
    orders: Orders,
}

impl Calls {
    async fn buy(
        &mut self,
        sale: &'static str,
        buyer: &str,
        key: &str,
        lines: &[(&'static str, u32)],
        outcome: &str,
    ) -> String {
        // Tries are counted by ten seconds: so that the test knows by which, none is made near their end.
        let is_inside = async || (300..9_000).contains(&(now() % 10_000)).then_some(());
        poll_until_async(BOUND, LOOK, is_inside).await.unwrap();
        let token = self.shop.keys.minter().mint(buyer, now_s() + 3_600);
        let asked: Vec<_> = lines
            .iter()
            .map(|(item, units)| ((*item).to_owned(), *units))
            .collect();
        let request = api::purchase(sale, &token, key, &asked);
        let answer = self.client.send(&request).await.unwrap();
        assert_eq!(answer.outcome(), outcome, "{buyer} {key}");
        self.tries.push(Try {
            sale,
            at_ms: now(),
            item: lines[0].0,
            outcome: outcome.to_owned(),
        });
        if outcome != "reserved" {
            return String::new();
        }
        let order = answer.json().unwrap();
        let id = order["reservation_id"].as_str().unwrap().to_owned();
        self.orders.insert(id.clone(), order);
        id
    }

    /// A command of the storefront on a reservation; holds its status.
    async fn tell(&mut self, id: &str, verb: &str, body: &Value, status: u16) {
        let request = Request::post(&format!("/v1/reservations/{id}/{verb}"))
            .bearer(&self.shop.keys.storefront_key)
            .json(&body.to_string());
        let answer = self.client.send(&request).await.unwrap();
        assert_eq!(answer.status, status, "{id} {verb} {}", answer.outcome());
        let told = answer.json().unwrap();
        if status == 200 {
            self.orders.insert(id.to_owned(), told);
        } else {
            assert_eq!(told["refund_due"], true);
        }
    }

    async fn pay(&mut self, id: &str) {
        self.tell(id, "confirm", &json!({"payment_ref": id}), 200)
            .await;
    }

    /// Buys and pays.
    async fn paid(
        &mut self,
        sale: &'static str,
        buyer: &str,
        key: &str,
        lines: &[(&'static str, u32)],
    ) -> String {
        let id = self.buy(sale, buyer, key, lines, "reserved").await;
        self.pay(&id).await;
        id
    }

    async fn until_expired(&mut self, id: &str) {
        let request = Request::get(&format!("/v1/reservations/{id}"))
            .bearer(&self.shop.keys.storefront_key)
            .bare();
        let mut client = self.shop.client();
        let expired = poll_until_async(BOUND, LOOK, async || {
            let order = client.send(&request).await.unwrap().json().unwrap();
            (order["state"] == "expired").then_some(order)
        });
        self.orders.insert(id.to_owned(), expired.await.unwrap());
    }

    async fn admin(&self, method: &str, target: &str, body: &Value) -> Value {
        let request = Request::draft(method, target)
            .bearer(&self.shop.keys.admin_key)
            .key("once")
            .json(&body.to_string());
        let mut client = Client::new(self.shop.server.admin, Timeouts::default());
        let answer = client.send(&request).await.unwrap();
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        assert!((200..300).contains(&answer.status), "{target}: {told}");
        answer.json().unwrap()
    }
}

fn now() -> i64 {
    i64::try_from(now_ms()).unwrap()
}

/// The answer to a report, as it came.
async fn asked(shop: &Shop, sale: &str, query: &str, key: &str) -> (u16, String) {
    let target = format!("/v1/admin/sales/{sale}/report{query}");
    let request = Request::get(&target).bearer(key).bare();
    let mut client = Client::new(shop.server.admin, Timeouts::default());
    let answer = client.send(&request).await.unwrap();
    (answer.status, String::from_utf8(answer.body).unwrap())
}

/// An earlier sale, in which ann and bob paid and fay gave up; and one with everything that can happen.
async fn sold(rig: Rig) -> Calls {
    let shop = Shop::start(rig);
    let mut earlier = sale(&[("a", 10)]);
    earlier["sale_id"] = json!(EARLIER);
    earlier["starts_at"] = json!(Timestamp(now() - 3_600_000));
    shop.api().publish(&earlier).await.unwrap();
    let mut plan = sale(&[("a", 5), ("b", 4), ("c", 0)]);
    plan["items"][0]["units_per_buyer_max"] = json!(2);
    plan["items"][1]["sale_price_minor"] = json!(500);
    plan["items"][1]["title"] = json!("=b, \"cheap\"");
    plan["starts_at"] = json!(Timestamp(now() + 2_000));
    plan["goal"] = json!({"orders": 10});
    plan["series"] = json!("1111");
    plan["payment_window_s"] = json!(2);
    plan["price_protection_days"] = json!(1);
    shop.api().publish(&plan).await.unwrap();
    let mut calls = Calls {
        client: shop.client(),
        shop,
        tries: Vec::new(),
        orders: Orders::new(),
    };
    early(&mut calls).await;
    late(&mut calls).await;
    calls
}

async fn early(calls: &mut Calls) {
    for (buyer, is_paid) in [("ann", true), ("bob", true), ("fay", false)] {
        let id = calls
            .buy(EARLIER, buyer, "k", &[("a", 1)], "reserved")
            .await;
        match is_paid {
            true => calls.pay(&id).await,
            false => calls.tell(&id, "cancel", &json!({}), 200).await,
        }
    }
    let request = Request::get(&format!("/v1/sales/{SALE}")).bare();
    let mut client = calls.shop.client();
    // Where the start has not passed meanwhile: near the end of ten seconds, tries wait.
    let shown = client.send(&request).await.unwrap().json().unwrap();
    if shown["state"] == "published" && now() % 10_000 < 8_000 {
        calls
            .buy(SALE, "eve", "k0", &[("a", 1)], "sale_not_started")
            .await;
    }
    let is_open = poll_until_async(BOUND, LOOK, async || {
        let shown = client.send(&request).await.unwrap().json().unwrap();
        (shown["state"] == "open").then_some(())
    });
    is_open.await.unwrap();
    let ann = calls.paid(SALE, "ann", "k1", &[("a", 2)]).await;
    calls.buy(SALE, "ann", "k1", &[("a", 2)], "replayed").await;
    calls
        .buy(SALE, "ann", "k1", &[("a", 1)], "idempotency_key_reused")
        .await;
    calls
        .buy(SALE, "ann", "k2", &[("a", 1)], "buyer_limit_reached")
        .await;
    calls
        .tell(&ann, "confirm", &json!({"payment_ref": "twice"}), 409)
        .await;
    calls.paid(SALE, "kim", "k", &[("b", 1)]).await;
    let bob = calls.paid(SALE, "bob", "k", &[("a", 1), ("b", 1)]).await;
    let whole = json!({"refund_ref": "f1", "restock": false});
    calls.tell(&bob, "refund", &whole, 200).await;
    let cara = calls.buy(SALE, "cara", "k", &[("b", 1)], "reserved").await;
    calls.tell(&cara, "cancel", &json!({}), 200).await;
}

async fn late(calls: &mut Calls) {
    let dan = calls.buy(SALE, "dan", "k", &[("a", 1)], "reserved").await;
    // The last unit of a.
    let eve = calls.buy(SALE, "eve", "k", &[("a", 1)], "reserved").await;
    for id in [&dan, &eve] {
        calls.until_expired(id).await;
    }
    calls.pay(&dan).await;
    calls.paid(SALE, "fay", "k", &[("a", 1)]).await;
    calls.buy(SALE, "gus", "k", &[("a", 1)], "sold_out").await;
    calls.buy(SALE, "gus", "k", &[("a", 1)], "sold_out").await;
    calls
        .tell(&eve, "confirm", &json!({"payment_ref": "late"}), 409)
        .await;
    let target = |what: &str| format!("/v1/admin/sales/{SALE}/{what}");
    calls.admin("POST", &target("pause"), &json!({})).await;
    calls
        .buy(SALE, "hal", "k", &[("b", 1)], "sale_paused")
        .await;
    let price = json!({"sale_price_minor": 450, "reason": "wrong"});
    calls.admin("PUT", &target("items/b/price"), &price).await;
    calls.admin("POST", &target("resume"), &json!({})).await;
    // The last unit of b.
    let hal = calls.paid(SALE, "hal", "k", &[("b", 2)]).await;
    let some =
        json!({"refund_ref": "f2", "restock": true, "lines": [{"item": "b", "quantity": 1}]});
    calls.tell(&hal, "refund", &some, 200).await;
    let more = json!({"delta_units": 1, "reason": "found"});
    calls.admin("POST", &target("items/b/stock"), &more).await;
    calls.paid(SALE, "ann", "k3", &[("b", 1)]).await;
    calls
        .buy(SALE, "gus", "k2", &[("zzz", 1)], "not_found")
        .await;
    let ivy = calls.buy(SALE, "ivy", "k", &[("b", 1)], "reserved").await;
    calls.until_expired(&ivy).await;
    let told = calls
        .admin("POST", &target("price-protection"), &json!({}))
        .await;
    assert_eq!(told["emitted"], 1, "kim's: {told}");
    calls.admin("POST", &target("close"), &json!({})).await;
    calls.buy(SALE, "gus", "k", &[("b", 1)], "sale_ended").await;
}

async fn every_figure_is_what_the_calls_were_told(rig: Rig) {
    let calls = sold(rig).await;
    let key = &calls.shop.keys.admin_key;
    let of_sale = calls.tries.iter().filter(|one| one.sale == SALE);
    let tries = of_sale.clone().count();
    let mut last = Value::Null;
    // Counts are stored once their ten seconds are over.
    let complete = poll_until_async(BOUND, LOOK, async || {
        let (status, text) = asked(&calls.shop, SALE, "", key).await;
        assert_eq!(status, 200, "{text}");
        last = serde_json::from_str(&text).unwrap();
        (last["funnel"]["attempts"] == tries).then(|| last.clone())
    });
    let complete = complete.await;
    let mut report = complete.unwrap_or_else(|| panic!("{last}\n{}", calls.shop.server.log()));
    let made_at = report["made_at"].take();
    assert!(made_at.as_str().unwrap() <= Timestamp(now()).to_string().as_str());

    let events = calls
        .admin(
            "GET",
            &format!("/v1/admin/events?sale={SALE}&limit=200"),
            &json!({}),
        )
        .await;
    let sale = calls
        .admin("GET", &format!("/v1/admin/sales/{SALE}"), &json!({}))
        .await;
    let of_sale: Vec<&Try> = of_sale.collect();
    let expected = expected(&calls.orders, &of_sale, &events, &sale);
    let (report, expected) = (report.as_object().unwrap(), expected.as_object().unwrap());
    for (figure, value) in report {
        assert_eq!(Some(value), expected.get(figure), "{figure}");
    }
    assert_eq!(report.len(), expected.len());
    if calls.shop.rig.durability() == "sqlite_fsync" {
        assert_as_stored(report, &calls.shop.rig.options.data);
    }
    holds_the_schema(&calls, report).await;
    as_rows_and_tables(&calls, report).await;
}

/// The document names exactly the fields that are written.
async fn holds_the_schema(calls: &Calls, report: &serde_json::Map<String, Value>) {
    fn holds(schemas: &Value, name: &str, written: &Value) {
        let Some(fields) = written.as_object() else {
            return;
        };
        let told = schemas[name]["properties"].as_object().unwrap();
        let names: BTreeSet<_> = told.keys().collect();
        assert_eq!(names, fields.keys().collect(), "{name}");
        for (field, value) in fields {
            let text = told[field].to_string();
            let Some((_, rest)) = text.split_once("#/components/schemas/") else {
                continue;
            };
            let inner = rest.split('"').next().unwrap();
            match value.as_array() {
                Some(list) => list.iter().for_each(|one| holds(schemas, inner, one)),
                None => holds(schemas, inner, value),
            }
        }
    }
    let document = calls.admin("GET", "/openapi.json", &json!({})).await;
    let schemas = &document["components"]["schemas"];
    holds(schemas, "SaleReport", &Value::Object(report.clone()));
}

/// As CSV, and as the command prints it.
async fn as_rows_and_tables(calls: &Calls, report: &serde_json::Map<String, Value>) {
    let shop = &calls.shop;
    let (status, rows) = asked(shop, SALE, "?format=csv", &shop.keys.admin_key).await;
    assert_eq!(status, 200);
    let funnel = &report["funnel"];
    let expected = [
        format!("funnel,attempts,,,{}", funnel["attempts"]),
        format!(
            "funnel,paid_amount_minor,,,{}",
            funnel["paid"]["amount_minor"]
        ),
        format!(
            "items,revenue_net_minor,b,,{}",
            report["items"][1]["revenue_net_minor"]
        ),
        "items,title,b,,\"'=b, \"\"cheap\"\"\"".into(),
        "refusals_by_item,sold_out,a,,2".into(),
        "buyers,returning,,,2".into(),
    ];
    for row in expected {
        assert!(rows.contains(&format!("\r\n{row}\r\n")), "{row}: {rows}");
    }
    let printed = good(&shop.sale(&["report", SALE, "--format", "csv"]));
    // The time at which they were made differs.
    let but_made = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("made_at"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(but_made(&printed), but_made(&rows));
    let printed = good(&shop.sale(&["report", SALE, "--format", "json"]));
    let mut printed: Value = serde_json::from_str(&printed).unwrap();
    printed["made_at"].take();
    assert_eq!(printed.as_object(), Some(report));
    let tables = good(&shop.sale(&["report", SALE]));
    for word in ["sold_out", "500 > 450", "2 returning", "70.00 %", "best"] {
        assert!(tables.contains(word), "{word}: {tables}");
    }
}

async fn a_report_is_told_to_viewers_only_and_in_known_formats(rig: Rig) {
    let shop = Shop::open(rig, &[("a", 1)]).await;
    let key = &shop.keys.admin_key;
    for (sale, query, key, status, word) in [
        (SALE, "", key, 200, "\"funnel\""),
        (SALE, "?format=json", key, 200, "\"not_over\""),
        (SALE, "?format=html", key, 400, "html is not built"),
        (SALE, "?format=xml", key, 400, "is not json or csv"),
        (SALE, "?from=now", key, 400, "from"),
        (SALE, "", &shop.keys.storefront_key, 401, "unauthenticated"),
        ("nothing", "", key, 404, "No such sale"),
    ] {
        let (told, text) = asked(&shop, sale, query, key).await;
        assert_eq!(told, status, "{query} {text}");
        assert!(text.contains(word), "{query} {text}");
    }
    assert!(failed(&shop.sale(&["report", "nothing"])).contains("not_found (404)"));
    assert!(good(&shop.sale(&["report", SALE])).contains("note: "));
}
