//! Endpoints of verdicts: the list, and a person's word.

use std::sync::Arc;

use flash_types::Timestamp;
use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use side_books::command::{self, Take};
use side_books::sql::{Get as _, Reads as _, Row, SqlError, Tx, query};
use side_books::{SideError, wire};
use utoipa::ToSchema;

use super::{Decide, Decision, decide, queries};
use crate::shop::Shop;

/// In the order of [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    Verdicts,
    Decide,
}

const ORDER: [Endpoint; 2] = [Endpoint::Verdicts, Endpoint::Decide];

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/verdicts",
        who: SideWho::Viewer,
        summary: "What rules found of buyers, by time; verdict is what stands: ALLOW, REVIEW or DENY",
        query: &["cursor", "limit", "rule", "verdict"],
        answers: &[(200, "VerdictPage")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "POST",
        path: "/v1/admin/verdicts/{verdict}/decide",
        who: SideWho::Reviewer,
        summary: "A person's word about a verdict: rewards that wait are given or taken back; replaces corrects an \
                  earlier one",
        body: Some("VerdictDecide"),
        needs_key: true,
        answers: &[(200, "VerdictDecided")],
        problems: &[(409, "state_conflict"), (422, "idempotency_key_reused")],
        ..SideEndpoint::BASE
    },
];

/// A person's word.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct VerdictDecide {
    /// `ALLOW` or `DENY`.
    decision: String,
    /// Why: 1-500 characters.
    reason: String,
    /// The decision that it corrects: `ALLOW` or `DENY`; absent where there is none yet.
    #[serde(default)]
    replaces: Option<String>,
}

/// How the buyer stands after it.
#[derive(Serialize, ToSchema)]
struct VerdictDecided {
    verdict: String,
    campaign: String,
    buyer: String,
    decision: &'static str,
    /// By all verdicts together: `ALLOW`, `REVIEW` or `DENY`.
    standing: &'static str,
    /// Found in shadow mode: the decision is kept and changes nothing.
    is_shadow: bool,
}

/// A verdict.
#[derive(Serialize, ToSchema)]
struct VerdictItem {
    verdict: String,
    campaign: String,
    rule: String,
    buyer: String,
    /// As the rule found it: `REVIEW` or `DENY`.
    found: String,
    #[schema(value_type = String, format = DateTime)]
    found_at: Timestamp,
    is_shadow: bool,
    /// What the rule went by.
    #[schema(value_type = Object)]
    evidence: Value,
    /// A person's word: `ALLOW` or `DENY`.
    decision: Option<String>,
    decided_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    decided_at: Option<Timestamp>,
    reason: Option<String>,
}

/// A page.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct VerdictPage {
    items: Vec<VerdictItem>,
    next_cursor: Option<String>,
}

/// Answers them.
pub(super) struct RiskService {
    shop: Arc<Shop>,
}

impl RiskService {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint).copied();
        match endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))? {
            Endpoint::Verdicts => self.verdicts(request).await,
            Endpoint::Decide => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.decide(&mut tx, request).await;
                tx.end(answer).await
            }
        }
    }

    async fn verdicts(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let limit = wire::limit(request)?;
        let bad_cursor =
            || SideProblem::malformed("the parameter cursor is not one that this list gave");
        let (at_ms, id) = match request.parameter("cursor") {
            None => (-1_i64, ""),
            Some(cursor) => {
                let (at_ms, id) = cursor.split_once('~').ok_or_else(bad_cursor)?;
                (at_ms.parse().map_err(|_| bad_cursor())?, id)
            }
        };
        let stands = request.parameter("verdict").unwrap_or_default();
        if !matches!(stands, "" | "ALLOW" | "REVIEW" | "DENY") {
            let detail = "the parameter verdict is not ALLOW, REVIEW or DENY";
            return Err(SideProblem::malformed(detail).into());
        }
        let select = query(queries::LIST_VERDICTS)
            .bind(request.path[0].clone())
            .bind(at_ms)
            .bind(id.to_owned())
            .bind(request.parameter("rule").unwrap_or_default().to_owned())
            .bind(stands.to_owned())
            .bind(limit + 1);
        let rows = self.shop.database.read().await?.rows(select).await?;
        let items: Result<Vec<_>, SqlError> = rows.iter().map(verdict_item).collect();
        Ok(wire::page(items?, limit, |item| {
            format!("{}~{}", item.found_at.0, item.verdict)
        }))
    }

    async fn decide(&self, tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let body: VerdictDecide = wire::body(request)?;
        let decision = parse("decision", &body.decision)?;
        let replaces = body.replaces.as_deref();
        let replaces = replaces.map(|text| parse("replaces", text)).transpose()?;
        let length = i64::try_from(body.reason.chars().count()).unwrap_or(i64::MAX);
        wire::within("the length of reason", length, 1, 500)?;
        let who = wire::who(request);
        let scope = format!("POST verdicts/decide|{}|{who}", request.path[0]);
        let key = wire::key(request)?;
        let taken = match command::take(tx, &scope, key, &request.body, request.now).await? {
            Take::Fresh(taken) => taken,
            Take::Replay(answer) => return Ok(answer),
        };
        let order = Decide {
            verdict: &request.path[0],
            decision,
            replaces,
            reason: &body.reason,
            who,
        };
        let decided = decide(tx, &self.shop.verdict_listeners, &order, request.now).await?;
        let answer = VerdictDecided {
            verdict: request.path[0].clone(),
            campaign: decided.campaign,
            buyer: decided.buyer.as_str().to_owned(),
            decision: decision.as_str(),
            standing: decided.standing.as_verdict().unwrap_or("ALLOW"),
            is_shadow: decided.is_shadow,
        };
        let answer = SideAnswer::json(200, &answer);
        taken.answered(tx, &answer).await?;
        Ok(answer)
    }
}

impl SideService for RiskService {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<VerdictItem>("VerdictItem"),
            wire::schema::<VerdictPage>("VerdictPage"),
            wire::schema::<VerdictDecide>("VerdictDecide"),
            wire::schema::<VerdictDecided>("VerdictDecided"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}

fn parse(name: &str, text: &str) -> Result<Decision, SideProblem> {
    let decision = Decision::parse(text);
    decision.ok_or_else(|| SideProblem::malformed(format!("{name} is not ALLOW or DENY")))
}

fn verdict_item(row: &Row) -> Result<VerdictItem, SqlError> {
    let evidence = row.text("evidence")?;
    Ok(VerdictItem {
        verdict: row.text("id")?,
        campaign: row.text("campaign")?,
        rule: row.text("rule")?,
        buyer: row.text("subject")?,
        found: row.text("verdict")?,
        found_at: Timestamp(row.int("found_at_ms")?),
        is_shadow: row.is("is_shadow")?,
        evidence: serde_json::from_str(&evidence)
            .map_err(|error| SqlError::Broken(format!("evidence of a verdict: {error}")))?,
        decision: row.text_or_null("decision")?,
        decided_by: row.text_or_null("decided_by")?,
        decided_at: row.int_or_null("decided_at_ms")?.map(Timestamp),
        reason: row.text_or_null("reason")?,
    })
}
