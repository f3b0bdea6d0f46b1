//! The OpenAPI documents against what is really sent and answered: no field more, none less, none of another kind.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may")]

mod common;

use common::*;
use flash_types::Timestamp;
use serde_json::{Map, Value, json};

on_both_stores!(bodies_are_as_the_documents_tell);

/// Holds a value against a schema of a document.
fn hold(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = &document["components"]["schemas"][name.rsplit('/').next().unwrap()];
        assert!(schema.is_object(), "{at}: no schema {name}");
        return hold(document, schema, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let is_null = |choice: &&Value| (choice["type"] == "null") == value.is_null();
        let choice = choices.iter().find(is_null);
        return hold(document, choice.expect(at), value, at);
    }
    if let Some(all) = schema["allOf"].as_array() {
        return hold(document, &merged(document, all), value, at);
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds = &schema["type"];
    let is_told = kinds == kind
        || kinds
            .as_array()
            .is_some_and(|all| all.contains(&json!(kind)));
    assert!(is_told, "{at} is {value}, and not {kinds}");
    match value {
        Value::Array(items) => {
            let held = items.iter().enumerate();
            held.for_each(|(index, item)| {
                hold(document, &schema["items"], item, &format!("{at}[{index}]"))
            });
        }
        // An object of no told fields may hold any.
        Value::Object(fields) if schema["properties"].is_object() => {
            for (name, field) in fields {
                let told = &schema["properties"][name];
                if told.is_null() && schema["additionalProperties"] == true {
                    continue;
                }
                assert!(!told.is_null(), "{at}.{name} is not told of");
                hold(document, told, field, &format!("{at}.{name}"));
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(
                    fields.contains_key(name.as_str().unwrap()),
                    "{at} lacks {name}"
                );
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {}
    }
}

/// Schemas that hold together, as one.
fn merged(document: &Value, parts: &[Value]) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        let part = match part["$ref"].as_str() {
            Some(name) => &document["components"]["schemas"][name.rsplit('/').next().unwrap()],
            None => part,
        };
        properties.extend(part["properties"].as_object().unwrap().clone());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    json!({"type": "object", "properties": properties, "required": required})
}

/// A shop whose every call is held against its documents.
struct Told {
    shop: Shop,
    documents: [Value; 2],
}

impl Told {
    /// Calls `path`, whose names in braces are given in order.
    fn call(&self, method: &str, path: &str, names: &[&str], query: &str, body: &Value) -> Answer {
        let is_admin = path.starts_with("/v1/admin");
        let document = &self.documents[usize::from(is_admin)];
        let operation = &document["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{method} {path} is not told of");
        let mut real = path.to_owned();
        for name in names {
            let (open, close) = (real.find('{').unwrap(), real.find('}').unwrap());
            real.replace_range(open..=close, name);
        }
        assert!(!real.contains('{'), "{real}");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap();
            let mut parameters = operation["parameters"].as_array().into_iter().flatten();
            let is_told = parameters.any(|one| one["in"] == "query" && one["name"] == name);
            assert!(is_told, "{path}: {name} is not told of");
        }
        let at = format!("{method} {path}");
        let told_body = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(told_body.is_object(), !body.is_null(), "{at}");
        let body = if body.is_null() {
            String::new()
        } else {
            hold(document, told_body, body, &format!("{at}: the body sent"));
            body.to_string()
        };
        let headers = if is_admin {
            vec![bearer(ADMIN), key("k1")]
        } else {
            vec![bearer(STOREFRONT), key("k1"), "X-Buyer-Id: u1".into()]
        };
        let mut client = if is_admin {
            self.shop.admins()
        } else {
            self.shop.buyers()
        };
        let answer = client.call(method, &format!("{real}?{query}"), &headers, &body);
        let is_yes = answer.status < 300;
        let (status, media) = if is_yes {
            (answer.status.to_string(), "application/json")
        } else {
            ("default".to_owned(), "application/problem+json")
        };
        let told_answer = &operation["responses"][&status]["content"][media]["schema"];
        assert!(told_answer.is_object(), "{at} answers {status}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some(media), "{at}");
        hold(
            document,
            told_answer,
            &answer.json(),
            &format!("{at}: {status}"),
        );
        answer
    }

    fn yes(&self, method: &str, path: &str, names: &[&str], query: &str, body: &Value) -> Value {
        let answer = self.call(method, path, names, query, body);
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        answer.json()
    }

    fn no(&self, method: &str, path: &str, names: &[&str], body: &Value) {
        let answer = self.call(method, path, names, "", body);
        assert!(answer.status >= 400, "{method} {path}: {answer:?}");
    }
}

fn bodies_are_as_the_documents_tell(on: On) {
    let shop = Shop::serving(on, side::services(), |_| {});
    let documents =
        [shop.buyers(), shop.admins()].map(|mut client| client.get("/openapi.json").json());
    let told = Told { shop, documents };
    let (nothing, empty) = (Value::Null, json!({}));
    let at = |ms: i64| json!(Timestamp(now().0 + ms));

    // Planned with every field there is.
    let mut whole = plan("s1", 10);
    whole["goal"] = json!({"orders": 5});
    whole["price_protection_days"] = json!(7);
    whole["re_release_at"] = json!([at(3_000_000)]);
    whole["items"][0]["floor_price_minor"] = json!(101);
    whole["items"][0]["waves"] = json!([{"at": at(2_000_000), "units": 3}]);
    let sale = "/v1/admin/sales/{sale}";
    told.yes("POST", "/v1/admin/sales", &[], "", &whole);
    told.yes("PUT", sale, &["s1"], "", &whole);
    told.no("POST", &format!("{sale}/publish"), &["s1"], &empty);
    let accept = json!({"accept": ["below_floor_price"]});
    told.yes("POST", &format!("{sale}/publish"), &["s1"], "", &accept);
    told.yes("POST", &format!("{sale}/unpublish"), &["s1"], "", &empty);
    told.yes("POST", &format!("{sale}/publish"), &["s1"], "", &accept);
    told.yes("GET", "/v1/sales/{sale}", &["s1"], "", &nothing);
    told.yes("GET", "/v1/sales", &[], "limit=1", &nothing);
    let of_item = format!("{sale}/items/{{item}}");
    told.yes(
        "POST",
        &format!("{of_item}/release"),
        &["s1", "a"],
        "",
        &json!({"units": 1}),
    );
    let stock = json!({"delta_units": 1, "reason": "a pallet"});
    told.yes(
        "POST",
        &format!("{of_item}/stock"),
        &["s1", "a"],
        "",
        &stock,
    );

    // Bought, extended, paid, refunded.
    let won = told.yes(
        "POST",
        "/v1/sales/{sale}/purchases",
        &["s1"],
        "",
        &json!({"lines": [{"item": "a", "quantity": 2}]}),
    );
    told.no(
        "POST",
        "/v1/sales/{sale}/purchases",
        &["s1"],
        &json!({"item": "b", "quantity": 1}),
    );
    let id = won["reservation_id"].as_str().unwrap();
    let reservation = "/v1/reservations/{id}";
    told.yes("POST", &format!("{reservation}/extend"), &[id], "", &empty);
    let paid = json!({"payment_ref": "p1", "amount_minor": 200});
    told.yes("POST", &format!("{reservation}/confirm"), &[id], "", &paid);
    told.no(
        "POST",
        &format!("{reservation}/confirm"),
        &[id],
        &json!({"payment_ref": "p2"}),
    );

    // Corrected, and what is due for it.
    let price = json!({"sale_price_minor": 70, "reason": "a digit"});
    told.no("PUT", &format!("{of_item}/price"), &["s1", "a"], &price);
    told.yes("POST", &format!("{sale}/pause"), &["s1"], "", &empty);
    let changed = told.yes("PUT", &format!("{of_item}/price"), &["s1", "a"], "", &price);
    assert_eq!(changed["reservations"].as_array().unwrap().len(), 1);
    told.yes("POST", &format!("{sale}/resume"), &["s1"], "", &empty);
    let protection = format!("{sale}/price-protection");
    for method in ["GET", "POST"] {
        let body = if method == "GET" { &nothing } else { &empty };
        let due = told.yes(method, &protection, &["s1"], "limit=10", body);
        assert_eq!(due["items"].as_array().unwrap().len(), 1);
    }
    let refund =
        json!({"refund_ref": "f1", "restock": true, "lines": [{"item": "a", "quantity": 1}]});
    told.yes("POST", &format!("{reservation}/refund"), &[id], "", &refund);

    // Read.
    let log = told.yes(
        "GET",
        "/v1/sales/{sale}/events/log",
        &["s1"],
        "limit=2",
        &nothing,
    );
    let after = format!("limit=200&after={}", log["next_cursor"].as_str().unwrap());
    told.yes(
        "GET",
        "/v1/sales/{sale}/events/log",
        &["s1"],
        &after,
        &nothing,
    );
    told.yes(
        "GET",
        "/v1/admin/events",
        &[],
        &format!("sale=s1&{after}"),
        &nothing,
    );
    let query = "updated_after=2020-01-01T00:00:00Z&payment_ref=p1&state=confirmed";
    told.yes(
        "GET",
        "/v1/sales/{sale}/reservations",
        &["s1"],
        query,
        &nothing,
    );
    let query = "item=a&not_at_price_minor=70";
    told.yes(
        "GET",
        &format!("{sale}/reservations"),
        &["s1"],
        query,
        &nothing,
    );
    told.yes("GET", &format!("{sale}/audit"), &["s1"], "", &nothing);
    told.yes("GET", sale, &["s1"], "", &nothing);
    told.yes("GET", "/v1/admin/sales", &[], "limit=1", &nothing);
    told.yes("GET", "/v1/admin/audit-log", &[], "limit=1", &nothing);
    told.yes("GET", "/v1/reservations", &[], "sale=s1", &nothing);
    told.yes("POST", &format!("{sale}/close"), &["s1"], "", &empty);

    // Beside the purchase path.
    let take = "/v1/toys/{campaign}/boxes/{prize}/takes/{notice}";
    let names = ["c1", "p1", "n1"];
    told.yes("GET", "/v1/toys", &[], "colour=red", &nothing);
    told.yes("POST", take, &names, "", &json!({"toy": "bear"}));
    told.no("POST", take, &names, &json!({"toy": "none"}));
    let judge = "/v1/admin/toys/{campaign}/judge";
    told.yes("POST", judge, &["c1"], "", &nothing);
    let operation = &told.documents[0]["paths"][take]["post"];
    assert_eq!(
        operation["responses"]["409"]["description"],
        "`no_more_toys`, `toy_broken`"
    );
    let headers = operation["parameters"].as_array().unwrap().iter();
    let headers = headers.filter(|one| one["in"] == "header");
    let headers: Vec<_> = headers
        .map(|one| (&one["name"], &one["required"]))
        .collect();
    let [yes, no] = [json!(true), json!(false)];
    let expected = [
        json!("Idempotency-Key"),
        json!("X-Buyer-Id"),
        json!("X-Device-Id"),
    ];
    assert_eq!(
        headers,
        [
            (&expected[0], &yes),
            (&expected[1], &no),
            (&expected[2], &no)
        ]
    );
}
