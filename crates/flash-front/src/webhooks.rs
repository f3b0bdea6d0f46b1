//! Webhooks on the admin port: how they stand, what was given up, delivery on demand.

use std::sync::Arc;

use flash_types::Refusal;
use http::StatusCode;
use serde_json::json;

use crate::bodies;
use crate::outcome::Problem;
use crate::reply::Reply;
use crate::request::Query;
use crate::sale_view::PageView;
use crate::service::Call;
use crate::services::{WebhookRefusal, Webhooks};

/// All webhooks, or with `dead=true` a page of what was given up.
pub(crate) async fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    let webhooks = service(call)?;
    let query = Query::parse(call.parts.uri.query(), &["dead", "cursor", "limit"])?;
    let is_dead = query.read("dead", |text| match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("is not true or false"),
    })?;
    let (after, limit) = (query.cursor()?, query.limit()?);
    if is_dead != Some(true) {
        // At most 16 are configured.
        let page = PageView {
            items: webhooks.list(),
            next_cursor: None,
        };
        return Reply::of(StatusCode::OK, &page);
    }
    let mut letters = webhooks.dead(after, limit + 1).await.map_err(problem)?;
    let is_more = letters.len() > limit;
    letters.truncate(limit);
    let last = letters.last().filter(|_| is_more);
    let page = PageView {
        next_cursor: last.map(|letter| letter.number.to_string()),
        items: letters,
    };
    Reply::of(StatusCode::OK, &page)
}

/// Takes an event for another delivery: 202, since it is made later.
pub(crate) async fn redeliver(
    call: &Call<'_>,
    event_id: &str,
    body: &[u8],
) -> Result<Reply, Problem> {
    let webhooks = service(call)?;
    let webhook = bodies::redeliver(body)?;
    let told = webhooks.redeliver(event_id.to_owned(), webhook).await;
    let view = json!({"event_id": event_id, "webhooks": told.map_err(problem)?});
    Reply::of(StatusCode::ACCEPTED, &view)
}

fn service<'c>(call: &'c Call<'_>) -> Result<&'c Arc<dyn Webhooks>, Problem> {
    let webhooks = &call.shared().services.webhooks;
    webhooks.as_ref().ok_or(Problem::NoSuchPath)
}

fn problem(refusal: WebhookRefusal) -> Problem {
    match refusal {
        WebhookRefusal::NotFound => Problem::NoSuchEvent,
        WebhookRefusal::Busy(why) => Problem::Conflict(why),
        WebhookRefusal::Unavailable => Refusal::StoreUnavailable.into(),
    }
}
