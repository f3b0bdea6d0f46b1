//! How the database of the campaigns stands, for operators; and letting a frozen campaign go on.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde::Deserialize;
use serde_json::{Value, json};
use side_books::note::{self, Note};
use side_books::sql::{Database, DatabaseKind, Get as _, Reads as _, query};
use side_books::{SideError, books, wire};
use side_campaign::shop::Shop;

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns-database",
        who: SideWho::Operator,
        summary: "Which database the campaigns have, its tables, which campaigns are frozen; answers only while it takes writes",
        answers: &[(200, "CampaignsDatabase")],
        problems: &[(503, "store_unavailable")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "POST",
        path: "/v1/admin/campaigns/{campaign}/thaw",
        who: SideWho::Operator,
        summary: "Lets a campaign go on whose books were found wrong; the same finding does not freeze it again",
        body: Some("CampaignThawBody"),
        answers: &[(200, "CampaignThawed")],
        problems: &[(409, "state_conflict")],
        ..SideEndpoint::BASE
    },
];

/// Longest reason, bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// Why it may go on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ThawBody {
    reason: String,
}

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
        let frozen =
            query("SELECT campaign, reason, at_ms FROM frozen ORDER BY campaign LIMIT 200");
        let mut stopped = Vec::new();
        for row in &tx.rows(frozen).await? {
            let (campaign, reason) = (row.text("campaign")?, row.text("reason")?);
            stopped
                .push(json!({"campaign": campaign, "reason": reason, "at_ms": row.int("at_ms")?}));
        }
        tx.commit().await?;
        let kind = match self.database.kind() {
            DatabaseKind::Sqlite => "sqlite",
            DatabaseKind::Postgres => "postgres",
        };
        Ok(json!({"kind": kind, "tables": tables, "frozen": stopped}))
    }

    async fn thaw(&self, request: &SideRequest) -> Result<Value, SideError> {
        let body: ThawBody = wire::body(request)?;
        if body.reason.is_empty() || body.reason.len() > REASON_BYTES_MAX {
            return Err(SideProblem::malformed("reason is not 1-1000 bytes").into());
        }
        let (campaign, who) = (&request.path[0], wire::who(request));
        let mut tx = self.database.begin().await?;
        if !books::thaw(&mut tx, campaign).await? {
            tx.rollback().await;
            let why = "this campaign is not frozen";
            return Err(SideProblem::new(409, "state_conflict", why).into());
        }
        let note = Note {
            who,
            what: "campaign.thaw",
            campaign: Some(campaign),
            subject: None,
            detail: &body.reason,
        };
        note::write(&mut tx, &note, request.now).await?;
        tx.commit().await?;
        Ok(json!({"campaign": campaign, "thawed": true}))
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
            "type": "object", "required": ["kind", "tables", "frozen"],
            "properties": {
                "kind": {"type": "string", "enum": ["sqlite", "postgres"]},
                "tables": {"type": "array", "items": {"$ref": "#/components/schemas/CampaignsTables"}},
                "frozen": {"type": "array", "items": {"$ref": "#/components/schemas/CampaignFrozen"}},
            },
        });
        let frozen = json!({
            "type": "object", "required": ["campaign", "reason", "at_ms"],
            "properties": {
                "campaign": {"type": "string"},
                "reason": {"type": "string"},
                "at_ms": {"type": "integer", "format": "int64"},
            },
        });
        let body = json!({
            "type": "object", "required": ["reason"], "additionalProperties": false,
            "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": REASON_BYTES_MAX}},
        });
        let thawed = json!({
            "type": "object", "required": ["campaign", "thawed"],
            "properties": {"campaign": {"type": "string"}, "thawed": {"type": "boolean"}},
        });
        vec![
            ("CampaignsTables", tables),
            ("CampaignsDatabase", database),
            ("CampaignFrozen", frozen),
            ("CampaignThawBody", body),
            ("CampaignThawed", thawed),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move {
            let told = match request.endpoint {
                0 => self.told().await,
                _ => self.thaw(&request).await,
            };
            Ok(SideAnswer::json(
                200,
                &told.map_err(SideError::into_problem)?,
            ))
        })
    }
}
