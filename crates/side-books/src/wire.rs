//! Requests of side services, read with the same strictness everywhere; lists, written in the same form.

use flash_types::side::{SideAnswer, SideCaller, SideProblem, SideRequest};
use flash_types::{BuyerId, bounds};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

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
    let limit = text.parse::<usize>().ok();
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
