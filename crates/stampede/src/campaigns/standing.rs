//! How the database of the campaigns stands, for operators.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::{Value, json};
use side_books::SideError;
use side_books::sql::{Database, DatabaseKind, Get as _, Reads as _, query};
use side_campaign::shop::Shop;

static ENDPOINTS: &[SideEndpoint] = &[SideEndpoint {
    port: SidePort::Admin,
    path: "/v1/admin/campaigns-database",
    who: SideWho::Operator,
    summary: "Which database the campaigns have, and its tables; answers only while it takes writes",
    answers: &[(200, "CampaignsDatabase")],
    problems: &[(503, "store_unavailable")],
    ..SideEndpoint::BASE
}];

/// Tells it.
pub(super) struct Standing {
    database: Database,
}

impl Standing {
    pub(super) fn new(shop: &Arc<Shop>) -> Self {
        Self {
            database: shop.database.clone(),
        }
    }

    async fn told(&self) -> Result<Value, SideError> {
        // A transaction takes the right to write where that is a thing of its own.
        let mut tx = self.database.begin().await?;
        let rows = tx
            .rows(query(
                "SELECT name, at_ms FROM migration ORDER BY at_ms, name LIMIT 200",
            ))
            .await?;
        let mut tables = Vec::new();
        for row in &rows {
            tables.push(json!({"name": row.text("name")?, "at_ms": row.int("at_ms")?}));
        }
        tx.commit().await?;
        let kind = match self.database.kind() {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "postgres",
        };
        Ok(json!({"kind": kind, "tables": tables}))
    }
}

impl SideService for Standing {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        let tables = json!({
            "type": "object", "required": ["name", "at_ms"],
            "properties": {"name": {"type": "string"}, "at_ms": {"type": "integer", "format": "int64"}},
        });
        let database = json!({
            "type": "object", "required": ["kind", "tables"],
            "properties": {
                "kind": {"type": "string", "enum": ["sqlite", "postgres"]},
                "tables": {"type": "array", "items": {"$ref": "#/components/schemas/CampaignsTables"}},
            },
        });
        vec![("CampaignsTables", tables), ("CampaignsDatabase", database)]
    }

    fn answer(&self, _: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move {
            let told = self.told().await.map_err(SideError::into_problem)?;
            Ok(SideAnswer::json(200, &told))
        })
    }
}
