//! The bodies of requests: every field known, each once, each in its bounds.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use flash_engine::{PriceCode, RefundRequest};
use flash_types::{
    BuyerId, ItemId, Money, PaymentRef, Quantity, RefundRef, SaleDefinition, bounds,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, IgnoredAny, Visitor};
use serde::{Deserialize, Deserializer};
use smallvec::SmallVec;

use crate::outcome::Problem;

/// The lines of a purchase as the client wrote them.
pub(crate) type AskedLines = SmallVec<[(ItemId, Quantity); 1]>;

/// Reads a body; an empty one counts as `{}`.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice::<Object<T>>(body)
        .map(|object| object.0)
        .map_err(|error| Problem::malformed(format!("the body: {error}")))
}

/// A JSON object and nothing else: derived readers would take an array of the fields as well.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// An item's name, read in place: no text is allocated.
struct Item(ItemId);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Item;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an item")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Item, E> {
                ItemId::parse(text)
                    .map(Item)
                    .map_err(|bad| E::custom(format_args!("item {bad}")))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// 1-1,000 units.
struct Units(Quantity);

impl<'de> Deserialize<'de> for Units {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units = u64::deserialize(deserializer)?;
        Quantity::of_line(units)
            .map(Self)
            .ok_or_else(|| de::Error::custom("quantity is not 1-1000"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    item: Item,
    quantity: Units,
}

/// At most 20 lines are kept while reading; one more is an error at once.
struct SomeLines(AskedLines);

impl<'de> Deserialize<'de> for SomeLines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = SomeLines;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("1-20 lines")
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<SomeLines, A::Error> {
                let mut lines = AskedLines::new();
                while let Some(Object(line)) = seq.next_element::<Object<Line>>()? {
                    if lines.len() == bounds::LINES_MAX {
                        return Err(de::Error::custom("lines are more than 20"));
                    }
                    lines.push((line.item.0, line.quantity.0));
                }
                if lines.is_empty() {
                    return Err(de::Error::custom("lines are empty"));
                }
                Ok(SomeLines(lines))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PurchaseBody {
    item: Option<Item>,
    quantity: Option<Units>,
    lines: Option<SomeLines>,
    ticket: Option<IgnoredAny>,
}

/// The body of a purchase: one item, or lines.
pub(crate) fn purchase(body: &[u8]) -> Result<AskedLines, Problem> {
    match usual(body) {
        Some(line) => Ok(SmallVec::from_buf([line])),
        None => any_purchase(body),
    }
}

/// The spelling that most clients send, `{"item":"…","quantity":…}` without a space: read without a parser. Anything
/// else, right or wrong, is not this function's to judge.
fn usual(body: &[u8]) -> Option<(ItemId, Quantity)> {
    let rest = body.strip_prefix(b"{\"item\":\"")?;
    let (item, rest) = rest.split_at_checked(memchr::memchr(b'"', rest)?)?;
    let digits = rest.strip_prefix(b"\",\"quantity\":")?.strip_suffix(b"}")?;
    let is_plain = matches!(digits, [b'1'..=b'9', rest @ ..] if rest.len() < 4 && rest.iter().all(u8::is_ascii_digit));
    if !is_plain {
        return None;
    }
    let units = digits
        .iter()
        .fold(0, |units, digit| units * 10 + u64::from(digit - b'0'));
    Some((ItemId::parse_bytes(item).ok()?, Quantity::of_line(units)?))
}

fn any_purchase(body: &[u8]) -> Result<AskedLines, Problem> {
    let body: PurchaseBody = read(body)?;
    if body.ticket.is_some() {
        return Err(Problem::malformed(
            "ticket: this sale takes none; leave it out",
        ));
    }
    match body {
        PurchaseBody {
            item: Some(item),
            quantity: Some(units),
            lines: None,
            ..
        } => Ok(SmallVec::from_buf([(item.0, units.0)])),
        PurchaseBody {
            item: None,
            quantity: None,
            lines: Some(lines),
            ..
        } => Ok(lines.0),
        PurchaseBody {
            item: None,
            quantity: None,
            lines: None,
            ..
        } => Err(Problem::malformed(
            "item and quantity, or lines, are missing",
        )),
        PurchaseBody { lines: Some(_), .. } => Err(Problem::malformed(
            "lines stand beside item or quantity: give one or the other",
        )),
        PurchaseBody {
            item: None,
            lines: None,
            ..
        } => Err(Problem::malformed("item is missing")),
        PurchaseBody {
            quantity: None,
            lines: None,
            ..
        } => Err(Problem::malformed("quantity is missing")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmBody {
    payment_ref: PaymentRef,
    amount_minor: Option<Money>,
}

/// `{"payment_ref":"…","amount_minor":…?}`
pub(crate) fn confirm(body: &[u8]) -> Result<(PaymentRef, Option<Money>), Problem> {
    let body: ConfirmBody = read(body)?;
    if body.amount_minor.is_some_and(|amount| amount.0 < 0) {
        return Err(Problem::malformed("amount_minor is negative"));
    }
    Ok((body.payment_ref, body.amount_minor))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefundBody {
    refund_ref: Option<RefundRef>,
    restock: bool,
    lines: Option<SomeLines>,
}

/// `{"refund_ref":"…"?,"restock":true,"lines":[…]?}`
pub(crate) fn refund(body: &[u8]) -> Result<RefundRequest, Problem> {
    let body: RefundBody = read(body)?;
    Ok(RefundRequest {
        refund_ref: body.refund_ref,
        restock: body.restock,
        lines: body.lines.map(|lines| lines.0),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

/// `{}` or nothing.
pub(crate) fn nothing(body: &[u8]) -> Result<(), Problem> {
    read::<EmptyBody>(body).map(|_| ())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishBody {
    #[serde(default)]
    accept: Vec<String>,
}

/// `{"accept":["deep_discount"]?}`
pub(crate) fn publish(body: &[u8]) -> Result<Vec<PriceCode>, Problem> {
    let body: PublishBody = read(body)?;
    let codes = body.accept.iter().map(|code| {
        PriceCode::parse(code).ok_or_else(|| {
            let known = PriceCode::ALL.map(PriceCode::as_str).join(", ");
            Problem::malformed(format!("accept: {code:?} is not one of {known}"))
        })
    });
    codes.collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceBody {
    sale_price_minor: Money,
    reason: String,
}

/// `{"sale_price_minor":9900,"reason":"…"}`
pub(crate) fn price(body: &[u8]) -> Result<(Money, String), Problem> {
    let body: PriceBody = read(body)?;
    if !(0..=bounds::PRICE_MINOR_MAX).contains(&body.sale_price_minor.0) {
        return Err(Problem::malformed(format!(
            "sale_price_minor is not 0-{}",
            bounds::PRICE_MINOR_MAX
        )));
    }
    Ok((body.sale_price_minor, reason(body.reason)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseBody {
    units: u32,
}

/// `{"units":100}`
pub(crate) fn release(body: &[u8]) -> Result<u32, Problem> {
    let body: ReleaseBody = read(body)?;
    if body.units == 0 {
        return Err(Problem::malformed("units is not 1-4294967295"));
    }
    Ok(body.units)
}

/// Why, in the merchant's words.
fn reason(reason: String) -> Result<String, Problem> {
    let is_good = !reason.trim().is_empty()
        && reason.len() <= bounds::TITLE_BYTES_MAX
        && !reason.chars().any(char::is_control);
    if is_good {
        Ok(reason)
    } else {
        Err(Problem::malformed(
            "reason is not 1-256 bytes without control characters",
        ))
    }
}

/// Most buyers of one rehearsal.
const REHEARSAL_BUYERS_MAX: u32 = 200_000;
/// Shortest and longest sale of a rehearsal, seconds: all of it is over within a minute.
const REHEARSAL_SECONDS: std::ops::RangeInclusive<u32> = 3..=40;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RehearseBody {
    buyers: Option<u32>,
    seconds: Option<u32>,
    #[serde(default)]
    while_selling: bool,
}

/// `{"buyers":…?,"seconds":…?,"while_selling":…?}`
pub(crate) fn rehearse(body: &[u8]) -> Result<(Option<u32>, Option<u32>, bool), Problem> {
    let body: RehearseBody = read(body)?;
    let buyers_fit = body
        .buyers
        .is_none_or(|buyers| (1..=REHEARSAL_BUYERS_MAX).contains(&buyers));
    if !buyers_fit {
        return Err(Problem::malformed("buyers must be 1-200000"));
    }
    if body
        .seconds
        .is_some_and(|seconds| !REHEARSAL_SECONDS.contains(&seconds))
    {
        return Err(Problem::malformed("seconds must be 3-40"));
    }
    Ok((body.buyers, body.seconds, body.while_selling))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RedeliverBody {
    webhook: Option<String>,
}

/// `{}` or `{"webhook":"…"}`
pub(crate) fn redeliver(body: &[u8]) -> Result<Option<String>, Problem> {
    read::<RedeliverBody>(body).map(|body| body.webhook)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StockBody {
    delta_units: i64,
    reason: String,
}

/// `{"delta_units":100,"reason":"…"}`
pub(crate) fn stock(body: &[u8]) -> Result<(i64, String), Problem> {
    let body: StockBody = read(body)?;
    if body.delta_units == 0 || body.delta_units.unsigned_abs() > u64::from(u32::MAX) {
        return Err(Problem::malformed(
            "delta_units is not 1-4294967295, or as much below zero",
        ));
    }
    Ok((body.delta_units, reason(body.reason)?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginBody<'a> {
    #[serde(borrow)]
    buyer: Cow<'a, str>,
}

/// `{"buyer":"alice"}`
pub(crate) fn login(body: &[u8]) -> Result<BuyerId, Problem> {
    let body: LoginBody<'_> = read(body)?;
    BuyerId::parse(&body.buyer).map_err(|bad| Problem::malformed(format!("the body: buyer {bad}")))
}

/// The plan of a sale.
pub(crate) fn sale(body: &[u8]) -> Result<SaleDefinition, Problem> {
    let definition: SaleDefinition =
        read(body).map_err(|problem| not_built(body).unwrap_or(problem))?;
    definition.check().map_err(Problem::malformed)?;
    Ok(definition)
}

/// Names the field of a plan that is known but not taken here, if that is what is wrong.
fn not_built(body: &[u8]) -> Option<Problem> {
    let plan: serde_json::Value = serde_json::from_slice(body).ok()?;
    let ticket = &plan["admission"]["ticket"];
    if ticket.as_str().is_some_and(|rule| rule != "off") {
        return Some(Problem::malformed(
            "admission.ticket: only \"off\" is taken",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_purchase_is_one_item_or_lines() {
        let units = |body: &str| -> Vec<(String, u32)> {
            purchase(body.as_bytes())
                .unwrap()
                .iter()
                .map(|(item, quantity)| (item.to_string(), quantity.units()))
                .collect()
        };
        assert_eq!(units(r#"{"item":"a","quantity":1}"#), [("a".into(), 1)]);
        assert_eq!(
            units(r#" {"quantity":1000,"item":"\u0061","ticket":null} "#),
            [("a".into(), 1000)]
        );
        assert_eq!(
            units(r#"{"lines":[{"item":"a","quantity":1},{"quantity":2,"item":"a"}]}"#),
            [("a".into(), 1), ("a".into(), 2)]
        );
        let line = r#"{"item":"a","quantity":1}"#;
        assert_eq!(
            units(&format!("{{\"lines\":[{}]}}", [line; 20].join(","))).len(),
            20
        );
        let many = format!("{{\"lines\":[{}]}}", [line; 21].join(","));
        assert!(purchase(many.as_bytes()).is_err());
    }

    /// What no parser may take for a purchase.
    #[test]
    fn bad_json_is_malformed() {
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep_field = format!(r#"{{"ticket":{deep}}}"#);
        let good = r#"{"item":"a","quantity":1}"#;
        let bad: Vec<Vec<u8>> = [
            "",
            "null",
            "[]",
            "{}",
            "\"a\"",
            &deep,
            &deep_field,
            r#"{"item":"a","quantity":1"#,
            r#"{"item":"a","quantity":1}}"#,
            r#"{"item":"a","quantity":1} {"#,
            r#"{"item":"a","quantity":1,}"#,
            r#"{"item":"a","item":"a","quantity":1}"#,
            r#"{"item":"a","quantity":1,"quantity":1}"#,
            r#"{"item":"a","quantity":1,"color":"red"}"#,
            r#"{"item":"a","quantity":1,"ticket":"t"}"#,
            r#"{"item":"a","quantity":1,"lines":[{"item":"a","quantity":1}]}"#,
            r#"["a",1,null,null]"#,
            r#"{"lines":[["a",1]]}"#,
            r#"{"item":"a"}"#,
            r#"{"quantity":1}"#,
            r#"{"lines":[]}"#,
            r#"{"lines":{}}"#,
            r#"{"lines":[{"item":"a"}]}"#,
            r#"{"lines":[{"item":"a","quantity":1,"x":1}]}"#,
            r#"{"item":"\ud800","quantity":1}"#,
            r#"{"item":"","quantity":1}"#,
            r#"{"item":"a b","quantity":1}"#,
            r#"{"item":"{a}","quantity":1}"#,
            r#"{"item":"а","quantity":1}"#,
            r#"{"item":7,"quantity":1}"#,
            "{\"item\":\"a\0\",\"quantity\":1}",
            "\u{feff}{\"item\":\"a\",\"quantity\":1}",
            "{'item':'a','quantity':1}",
            "{\"item\":\"a\",\"quantity\":1}//",
        ]
        .into_iter()
        .map(|text| text.as_bytes().to_vec())
        .chain([
            b"{\"item\":\"\xff\",\"quantity\":1}".to_vec(),
            b"{\"item\":\"a\",\"quantity\":1,\"\xff\":1}".to_vec(),
            format!("{good}\0").into_bytes(),
        ])
        .collect();
        for body in bad {
            assert!(
                matches!(purchase(&body), Err(Problem::Malformed(_))),
                "{}",
                String::from_utf8_lossy(&body)
            );
        }
    }

    #[test]
    fn bad_quantities_are_malformed() {
        for quantity in [
            "-1",
            "0",
            "1.5",
            "1.0",
            "1e2",
            "\"1\"",
            "null",
            "true",
            "[1]",
            "1001",
            "2147483648",
            "9223372036854775808",
            "18446744073709551616",
            "1e999",
            "NaN",
            "Infinity",
            "01",
            "+1",
            "",
        ] {
            for body in [
                format!(r#"{{"item":"a","quantity":{quantity}}}"#),
                format!(r#"{{"lines":[{{"item":"a","quantity":{quantity}}}]}}"#),
            ] {
                assert!(
                    matches!(purchase(body.as_bytes()), Err(Problem::Malformed(_))),
                    "{body}"
                );
            }
        }
    }

    #[test]
    fn commands_take_their_fields_only() {
        assert!(confirm(br#"{"payment_ref":"p1"}"#).is_ok());
        assert_eq!(
            confirm(br#"{"payment_ref":"p1","amount_minor":5}"#)
                .unwrap()
                .1,
            Some(Money(5))
        );
        for bad in [
            "{}",
            r#"{"payment_ref":""}"#,
            r#"{"payment_ref":"p1","amount_minor":-1}"#,
            r#"{"payment_ref":"p1","amount_minor":1.5}"#,
            r#"{"payment_ref":"p1","x":1}"#,
        ] {
            assert!(confirm(bad.as_bytes()).is_err(), "{bad}");
        }
        let whole = refund(br#"{"restock":true}"#).unwrap();
        assert!(whole.restock && whole.refund_ref.is_none() && whole.lines.is_none());
        assert!(
            refund(br#"{"restock":false,"refund_ref":"r","lines":[{"item":"a","quantity":1}]}"#)
                .is_ok()
        );
        for bad in [
            "{}",
            r#"{"restock":"yes"}"#,
            r#"{"restock":true,"lines":[]}"#,
        ] {
            assert!(refund(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(nothing(b"").is_ok() && nothing(b"{}").is_ok());
        assert!(nothing(b"[]").is_err() && nothing(br#"{"x":1}"#).is_err());
        assert!(publish(br#"{"accept":[]}"#).is_ok() && publish(b"").is_ok());
        assert_eq!(
            publish(br#"{"accept":["deep_discount"]}"#),
            Ok(vec![PriceCode::DeepDiscount])
        );
        assert!(publish(br#"{"accept":["cheap"]}"#).is_err());
        assert!(publish(br#"{"accept":[1]}"#).is_err());
        for bad in [
            r#"{"sale_price_minor":-1,"reason":"r"}"#,
            r#"{"sale_price_minor":1000000000001,"reason":"r"}"#,
            r#"{"sale_price_minor":1}"#,
            r#"{"sale_price_minor":1.5,"reason":"r"}"#,
            r#"{"sale_price_minor":1,"reason":""}"#,
        ] {
            assert!(price(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(release(br#"{"units":3}"#), Ok(3));
        for bad in [
            "{}",
            r#"{"units":0}"#,
            r#"{"units":-1}"#,
            r#"{"units":4294967296}"#,
        ] {
            assert!(release(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(stock(br#"{"delta_units":-5,"reason":"broken"}"#).is_ok());
        for bad in [
            r#"{"delta_units":0,"reason":"r"}"#,
            r#"{"delta_units":4294967296,"reason":"r"}"#,
            r#"{"delta_units":1.5,"reason":"r"}"#,
            r#"{"delta_units":1,"reason":" "}"#,
            r#"{"delta_units":1}"#,
        ] {
            assert!(stock(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// The field that the client wrote, not a name of ours.
    #[test]
    fn a_bad_id_is_named_by_its_field() {
        let detail = |problem: Problem| {
            let Problem::Malformed(detail) = problem else {
                panic!("{problem:?}");
            };
            detail
        };
        let plan = |sale: &str, item: &str| {
            let plan = format!(
                r#"{{"sale_id":"{sale}","title":"T","starts_at":"2026-11-11T12:00:00Z",
                "ends_at":"2026-11-11T13:00:00Z","currency":"CNY",
                "items":[{{"item":"{item}","title":"A","sale_price_minor":1,"stock_units":5}}]}}"#
            );
            detail(super::sale(plan.as_bytes()).unwrap_err())
        };
        let of_ref = |body: &str| detail(confirm(body.as_bytes()).unwrap_err());
        for (told, field) in [
            (plan("a b", "a"), "sale_id has"),
            (plan("s1", ""), "item is empty"),
            (of_ref(r#"{"payment_ref":"a b"}"#), "payment_ref has"),
            (
                detail(refund(br#"{"restock":true,"refund_ref":"a b"}"#).unwrap_err()),
                "refund_ref has",
            ),
            (
                detail(purchase(br#"{"item":"a b","quantity":1}"#).unwrap_err()),
                "item has",
            ),
            (
                detail(login(br#"{"buyer":""}"#).unwrap_err()),
                "buyer is empty",
            ),
        ] {
            assert!(
                told.starts_with(&format!("the body: {field}")),
                "{told}, not {field}"
            );
        }
    }

    #[test]
    fn a_plan_is_checked_and_what_is_not_built_is_named() {
        let plan = |admission: &str, item: &str| {
            format!(
                r#"{{"sale_id":"s1","title":"T","starts_at":"2026-11-11T12:00:00Z",
                "ends_at":"2026-11-11T13:00:00+00:00","currency":"CNY","admission":{admission},
                "items":[{{"item":"a","title":"A","sale_price_minor":1,"stock_units":5{item}}}]}}"#
            )
        };
        assert!(sale(plan("{}", "").as_bytes()).is_ok());
        assert!(sale(plan(r#"{"ticket":"off"}"#, r#","waves":[]"#).as_bytes()).is_ok());
        let wave = r#","waves":[{"at":"2026-11-11T12:30:00Z","units":5}]"#;
        assert!(sale(plan("{}", wave).as_bytes()).is_ok());
        for (admission, item, named) in [
            (r#"{"ticket":"required"}"#, "", "ticket"),
            (
                "{}",
                r#","waves":[{"at":"2026-11-11T12:00:00Z","units":6}]"#,
                "waves",
            ),
            (
                "{}",
                r#","waves":[{"at":"2026-11-11T12:30:00Z","units":0}]"#,
                "waves",
            ),
            (
                "{}",
                r#","waves":[{"at":"2026-11-11T13:00:00Z","units":1}]"#,
                "ends_at",
            ),
            ("{}", r#","units_per_buyer_max":0"#, "units_per_buyer_max"),
            ("{}", r#","price_guard":1"#, "price_guard"),
            (r#"{"buyer_rate_per_s":0}"#, "", "buyer_rate_per_s"),
        ] {
            match sale(plan(admission, item).as_bytes()) {
                Err(Problem::Malformed(detail)) => assert!(detail.contains(named), "{detail}"),
                other => panic!("{other:?}"),
            }
        }
    }

    proptest! {
        /// The short way reads what the parser reads, and refuses nothing that the parser takes.
        #[test]
        fn the_usual_spelling_means_the_same(item in "[ -~]{0,5}|[a-z0-9.:_-]{1,66}", quantity in "[0-9]{0,5}|1e1|-1|1.0| 1") {
            let body = format!(r#"{{"item":"{item}","quantity":{quantity}}}"#);
            let parsed = any_purchase(body.as_bytes());
            if let Some(line) = usual(body.as_bytes()) {
                prop_assert_eq!(parsed.as_deref(), Ok(&[line][..]));
            }
            prop_assert_eq!(purchase(body.as_bytes()), any_purchase(body.as_bytes()));
        }

        /// Whatever comes in, a body is taken or refused; nothing panics.
        #[test]
        fn any_bytes_are_survived(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = purchase(&body);
            let _ = sale(&body);
            let _ = refund(&body);
        }
    }
}
