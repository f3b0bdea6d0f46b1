//! One buyer's whole history, for who answers questions: everything that concerns him over all campaigns, by time, each
//! with its reason.
//!
//! What the engine refused or reserved on the purchase path is not in it: what was paid there is, as an order.

mod rewards;

use std::sync::Arc;

use flash_types::BuyerId;
use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::{Value, json};
use side_books::sql::Reader;
use side_books::{SideError, wire};
use side_campaign::history::{self, After, Cursor, HistoryEntry, HistorySource};
use side_campaign::shop::Shop;
use utoipa::ToSchema;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    vec![Arc::new(SupportService::new(shop.clone()))]
}

static ENDPOINTS: &[SideEndpoint] = &[SideEndpoint {
    port: SidePort::Admin,
    path: "/v1/admin/buyers/{buyer}/history",
    who: SideWho::Viewer,
    summary: "Everything that concerns a buyer over all campaigns, by time, each with its reason",
    query: &["cursor", "limit"],
    answers: &[(200, "HistoryPage")],
    ..SideEndpoint::BASE
}];

/// Something that concerns a buyer.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct HistoryItem {
    #[schema(value_type = String, format = DateTime)]
    at: String,
    /// A word: `joined`, `refused`, `order_paid`.
    what: String,
    /// Of which campaign, where it is of one.
    campaign: Option<String>,
    /// Amounts, names, states.
    #[schema(value_type = Object)]
    detail: Value,
    /// Why; every amount has one.
    reason: Option<String>,
}

/// A page.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct HistoryPage {
    items: Vec<HistoryItem>,
    next_cursor: Option<String>,
}

/// Answers it.
struct SupportService {
    shop: Arc<Shop>,
    sources: Vec<Arc<dyn HistorySource>>,
}

impl SupportService {
    fn new(shop: Arc<Shop>) -> Self {
        let mut sources = history::sources();
        sources.extend(rewards::sources());
        sources.extend(shop.history.iter().cloned());
        Self { shop, sources }
    }

    async fn history(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let buyer = BuyerId::parse(&request.path[0])
            .map_err(|bad| SideProblem::malformed(format!("the buyer {bad}")))?;
        let limit = wire::limit(request)?;
        let cursor = request.parameter("cursor").map(|text| {
            let cursor = Cursor::parse(text);
            cursor.ok_or_else(|| {
                SideProblem::malformed("the parameter cursor is not one that this list gave")
            })
        });
        let cursor = cursor.transpose()?;
        let mut reads = self.shop.database.read().await?;
        let (items, next) = page(&mut reads, &self.sources, buyer, cursor.as_ref(), limit).await?;
        let next = next.map(|next| next.to_string());
        Ok(SideAnswer::json(
            200,
            &json!({"items": items, "next_cursor": next}),
        ))
    }
}

/// A page of the merged list.
async fn page(
    reads: &mut Reader,
    sources: &[Arc<dyn HistorySource>],
    buyer: BuyerId,
    cursor: Option<&Cursor>,
    limit: i64,
) -> Result<(Vec<HistoryEntry>, Option<Cursor>), SideError> {
    let mut given = Vec::with_capacity(sources.len());
    for source in sources {
        let after = cursor.map_or_else(After::default, |cursor| cursor.of_source(source.name()));
        let entries = source.entries(reads, buyer, &after, limit + 1).await?;
        given.push((source.name(), entries));
    }
    Ok(history::merge(given, usize::try_from(limit).unwrap_or(0)))
}

impl SideService for SupportService {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<HistoryItem>("HistoryItem"),
            wire::schema::<HistoryPage>("HistoryPage"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move {
            self.history(&request)
                .await
                .map_err(SideError::into_problem)
        })
    }
}
