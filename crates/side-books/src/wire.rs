//! Requests of side services, read with the same strictness everywhere; lists, written in the same form.

use flash_types::side::{SideAnswer, SideCaller, SideProblem, SideRequest};
use flash_types::{BuyerId, bounds};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use utoipa::PartialSchema;

/// Reads a JSON body; unknown and duplicate fields are refused by the type (`deny_unknown_fields`).
///
/// # Errors
/// 400 `malformed` with what is wrong and where.
pub fn body<T: DeserializeOwned>(request: &SideRequest) -> Result<T, SideProblem> {
    serde_json::from_slice(&request.body)
        .map_err(|error| SideProblem::malformed(format!("the body: {error}")))
}

/// The buyer who calls, or for whom the storefront does.
///
/// # Errors
/// 400 `malformed` where the storefront does not say for whom. Others never get here.
pub fn buyer(request: &SideRequest) -> Result<BuyerId, SideProblem> {
    match &request.caller {
        SideCaller::Buyer(buyer) | SideCaller::Storefront(Some(buyer)) => Ok(*buyer),
        SideCaller::Storefront(None) | SideCaller::Anyone | SideCaller::Admin(_) => Err(
            SideProblem::malformed("the header X-Buyer-Id says for whom"),
        ),
    }
}

/// Name of the admin who calls; `storefront` or `buyer` for others.
pub fn who(request: &SideRequest) -> &str {
    match &request.caller {
        SideCaller::Admin(name) => name,
        SideCaller::Storefront(_) => "storefront",
        SideCaller::Buyer(_) | SideCaller::Anyone => "buyer",
    }
}

/// The idempotency key; the front has seen to it that there is one where the endpoint needs it.
///
/// # Errors
/// 400 `malformed` where it is missing.
pub fn key(request: &SideRequest) -> Result<&str, SideProblem> {
    let key = request
        .key
        .as_ref()
        .map(flash_types::IdempotencyKey::as_str);
    key.ok_or_else(|| SideProblem::malformed("the header Idempotency-Key is missing"))
}

/// `limit`: 1-200, 50 where absent.
///
/// # Errors
/// 400 `malformed`.
pub fn limit(request: &SideRequest) -> Result<i64, SideProblem> {
    let Some(text) = request.parameter("limit") else {
        return Ok(50);
    };
    // Digits alone: `parse` takes a sign as well.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let limit = text.parse::<usize>().ok().filter(|_| is_number);
    let limit = limit.filter(|limit| (1..=bounds::PAGE_ITEMS_MAX).contains(limit));
    let limit = limit.and_then(|limit| i64::try_from(limit).ok());
    limit.ok_or_else(|| SideProblem::malformed("the parameter limit is not 1-200"))
}

/// A number that must lie within bounds.
///
/// # Errors
/// 400 `malformed`, naming the field.
pub fn within(name: &str, value: i64, least: i64, most: i64) -> Result<i64, SideProblem> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(SideProblem::malformed(format!(
            "{name} is not {least}-{most}"
        )))
    }
}

/// A page of a list, in the contract's form. Ask the database for one row more than `limit`: it tells whether there is a
/// next page, and `cursor` makes the cursor of the last one shown.
pub fn page<T: Serialize>(
    mut items: Vec<T>,
    limit: i64,
    cursor: impl Fn(&T) -> String,
) -> SideAnswer {
    let limit = usize::try_from(limit).unwrap_or(0);
    let is_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| is_more).map(cursor);
    SideAnswer::json(200, &json!({"items": items, "next_cursor": next}))
}

/// A schema under its name, for the document.
///
/// # Panics
/// Never: a schema is made of maps and texts.
pub fn schema<T: PartialSchema>(name: &'static str) -> (&'static str, Value) {
    let schema = serde_json::to_value(T::schema());
    (name, schema.expect("a schema is plain JSON"))
}

#[cfg(test)]
mod tests {
    use flash_types::Timestamp;
    use serde::Deserialize;

    use super::*;

    fn request(caller: SideCaller, body: &[u8], limit: Option<&str>) -> SideRequest {
        SideRequest {
            endpoint: 0,
            path: Default::default(),
            query: limit
                .map(|limit| ("limit", limit.to_owned()))
                .into_iter()
                .collect(),
            body: body.to_vec(),
            content_type: None,
            key: None,
            caller,
            address: None,
            device: None,
            now: Timestamp(1),
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        n: i64,
    }

    #[test]
    fn bodies_are_read_strictly() {
        let read = |text: &str| body::<Body>(&request(SideCaller::Anyone, text.as_bytes(), None));
        assert_eq!(read("{\"n\": 5}").unwrap().n, 5);
        let deep = "[".repeat(10_000);
        for bad in [
            "",
            "null",
            "[]",
            "{}",
            "{\"n\":1,\"n\":2}",
            "{\"n\":1,\"m\":2}",
            "{\"n\":1.5}",
            "{\"n\":\"1\"}",
            "{\"n\":1e999}",
            "{\"n\":9223372036854775808}",
            "{\"n\":1} x",
            "\u{feff}{\"n\":1}",
            &deep,
        ] {
            let problem = read(bad).unwrap_err();
            assert_eq!(
                (problem.status, problem.outcome),
                (400, "malformed"),
                "{bad}"
            );
        }
    }

    #[test]
    fn limits_are_digits_within_bounds() {
        let read = |text| limit(&request(SideCaller::Anyone, b"", text));
        assert_eq!(read(None), Ok(50));
        assert_eq!(read(Some("1")), Ok(1));
        assert_eq!(read(Some("200")), Ok(200));
        for bad in [
            "0",
            "201",
            "+5",
            "-1",
            "",
            "5 ",
            "1e2",
            "99999999999999999999",
        ] {
            assert!(read(Some(bad)).is_err(), "{bad}");
        }
        assert_eq!(within("n", 5, 5, 5), Ok(5));
        let problem = within("n", 6, 1, 5).unwrap_err();
        assert!(problem.detail.contains("n is not 1-5"));
    }

    #[test]
    fn callers_are_told_apart() {
        let of = |caller| request(caller, b"", None);
        let admin = of(SideCaller::Admin("ann".to_owned()));
        assert_eq!(who(&admin), "ann");
        assert_eq!(who(&of(SideCaller::Storefront(None))), "storefront");
        for nobody in [
            SideCaller::Anyone,
            SideCaller::Storefront(None),
            SideCaller::Admin("ann".to_owned()),
        ] {
            assert!(buyer(&of(nobody)).is_err());
        }
        assert!(key(&admin).is_err());
    }

    #[test]
    fn a_page_tells_whether_there_is_a_next_one() {
        let shown = |count: i64| {
            let answer = page((0..count).collect(), 2, |last| format!("after-{last}"));
            serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()
        };
        assert_eq!(shown(0), json!({"items": [], "next_cursor": null}));
        assert_eq!(shown(2), json!({"items": [0, 1], "next_cursor": null}));
        assert_eq!(shown(3), json!({"items": [0, 1], "next_cursor": "after-1"}));
    }
}
