//! Endpoints of the life of campaigns.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::Value;
use side_books::command::{Take, take};
use side_books::sql::{SqlError, Tx};
use side_books::{SideError, wire};

use super::moves::{ByHand, by_hand};
use super::{publish, queries, schemas, versions, view};
use crate::shop::Shop;

/// Longest body that holds a definition.
const DEFINITION_BYTES_MAX: usize = 64 * 1024;

/// What an endpoint does, in the order of [`ENDPOINTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    List,
    Show,
    AdminList,
    AdminShow,
    Draft,
    Replace,
    Publish,
    ByHand(ByHand),
    Change,
    Versions,
    PlanB,
    Budget,
    AddToBudget,
    Notes,
}

const VERBS: [Verb; 19] = [
    Verb::List,
    Verb::Show,
    Verb::AdminList,
    Verb::AdminShow,
    Verb::Draft,
    Verb::Replace,
    Verb::Publish,
    Verb::ByHand(ByHand::Pause),
    Verb::ByHand(ByHand::Resume),
    Verb::ByHand(ByHand::End),
    Verb::ByHand(ByHand::Settle),
    Verb::ByHand(ByHand::Cancel),
    Verb::ByHand(ByHand::Archive),
    Verb::Change,
    Verb::Versions,
    Verb::PlanB,
    Verb::Budget,
    Verb::AddToBudget,
    Verb::Notes,
];

const LIST_QUERY: &[&str] = &["kind", "state", "cursor", "limit"];
const PAGE_QUERY: &[&str] = &["cursor", "limit"];
const NOT_FOUND: (u16, &str) = (404, "not_found");
const STATE: (u16, &str) = (409, "state_conflict");
const KEY: (u16, &str) = (422, "idempotency_key_reused");

const READ: SideEndpoint = SideEndpoint {
    port: SidePort::Admin,
    who: SideWho::Viewer,
    problems: &[NOT_FOUND],
    ..SideEndpoint::BASE
};

const WRITE: SideEndpoint = SideEndpoint {
    port: SidePort::Admin,
    method: "POST",
    who: SideWho::Merchant,
    // Each leaves things as it says, however often: a key is welcome where an answer may get lost.
    answers: &[(200, "AdminCampaign")],
    problems: &[NOT_FOUND, STATE, KEY],
    ..SideEndpoint::BASE
};

const MOVE: SideEndpoint = SideEndpoint {
    body: Some("CampaignMoveBody"),
    ..WRITE
};

pub(super) static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        path: "/v1/campaigns",
        summary: "Campaigns in public view, newest first",
        query: LIST_QUERY,
        answers: &[(200, "CampaignPage")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        path: "/v1/campaigns/{campaign}",
        summary: "A campaign: its rules, their hash, what its draws are committed to",
        answers: &[(200, "CampaignAnswer")],
        problems: &[NOT_FOUND],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns",
        summary: "All campaigns, newest first",
        query: LIST_QUERY,
        answers: &[(200, "CampaignPage")],
        problems: &[],
        ..READ
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}",
        summary: "A campaign with all its figures: worst case, budget, goal, commitments",
        answers: &[(200, "AdminCampaign")],
        ..READ
    },
    SideEndpoint {
        path: "/v1/admin/campaigns",
        summary: "Make a draft",
        body: Some("CampaignDefinition"),
        body_bytes_max: DEFINITION_BYTES_MAX,
        answers: &[(201, "AdminCampaign")],
        problems: &[STATE, KEY],
        ..WRITE
    },
    SideEndpoint {
        method: "PUT",
        path: "/v1/admin/campaigns/{campaign}",
        summary: "Replace a draft",
        body: Some("CampaignDefinition"),
        body_bytes_max: DEFINITION_BYTES_MAX,
        problems: &[NOT_FOUND, STATE],
        ..WRITE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/publish",
        summary: "Publish a draft: freezes its rules, commits to its seed, funds its budget; open at its start, at once if \
                  that has passed",
        body: Some("CampaignPublishBody"),
        problems: &[NOT_FOUND, STATE, (409, "solvency"), KEY],
        ..WRITE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/pause",
        summary: "Stop for a while: nothing new begins, the end stays",
        ..MOVE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/resume",
        summary: "Go on",
        ..MOVE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/end",
        summary: "End it now",
        ..MOVE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/settle",
        summary: "Settle what has ended now; it begins by itself otherwise",
        ..MOVE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/cancel",
        summary: "Cancel what has not begun; its budget goes back",
        ..MOVE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/archive",
        summary: "Take what is settled out of the lists",
        ..MOVE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/versions",
        summary: "Change what was published, for the better of buyers; what began keeps its version",
        body: Some("CampaignVersionBody"),
        body_bytes_max: DEFINITION_BYTES_MAX,
        problems: &[
            NOT_FOUND,
            STATE,
            (409, "not_better"),
            (409, "solvency"),
            KEY,
        ],
        ..WRITE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/versions",
        summary: "All versions of a campaign, the first one first",
        query: PAGE_QUERY,
        answers: &[(200, "CampaignVersionPage")],
        ..READ
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/plan-b",
        summary: "Switch the prepared rules on, once",
        body: Some("PlanBBody"),
        ..WRITE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/budget",
        summary: "How the budget of a campaign stands",
        answers: &[(200, "CampaignBudget")],
        ..READ
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/budget",
        summary: "Add to the budget of a campaign",
        body: Some("CampaignBudgetBody"),
        needs_key: true,
        answers: &[(200, "CampaignBudget")],
        ..WRITE
    },
    SideEndpoint {
        path: "/v1/admin/campaigns/{campaign}/audit-log",
        summary: "Who did what to a campaign, newest first",
        query: PAGE_QUERY,
        answers: &[(200, "CampaignNotePage")],
        ..READ
    },
];

/// Answers for the life of campaigns.
pub(super) struct Life {
    shop: Arc<Shop>,
}

impl Life {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn read_or_write(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let verb = VERBS.get(request.endpoint);
        let verb = *verb.ok_or_else(|| SqlError::Broken("no such endpoint".to_owned()))?;
        match verb {
            Verb::List
            | Verb::Show
            | Verb::AdminList
            | Verb::AdminShow
            | Verb::Versions
            | Verb::Budget
            | Verb::Notes => self.read(verb, request).await,
            Verb::Draft
            | Verb::Replace
            | Verb::Publish
            | Verb::ByHand(_)
            | Verb::Change
            | Verb::PlanB
            | Verb::AddToBudget => self.write(verb, request).await,
        }
    }

    async fn read(&self, verb: Verb, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let mut reader = self.shop.database.read().await?;
        let (id, now) = (&request.path[0], request.now);
        match verb {
            Verb::Show => Ok(SideAnswer::json(
                200,
                &view::public(&mut reader, id, now).await?,
            )),
            Verb::Budget => Ok(SideAnswer::json(200, &view::budget(&mut reader, id).await?)),
            Verb::List | Verb::AdminList => {
                let sql = if verb == Verb::List {
                    queries::LIST_PUBLIC
                } else {
                    queries::LIST_ALL
                };
                let limit = wire::limit(request)?;
                let lines = view::list(&mut reader, request, sql, limit).await?;
                Ok(wire::page(lines, limit, view::CampaignLine::cursor))
            }
            Verb::Versions => {
                let limit = wire::limit(request)?;
                let lines = view::versions(&mut reader, request, limit).await?;
                Ok(wire::page(lines, limit, |line| line.version.to_string()))
            }
            Verb::Notes => {
                let limit = wire::limit(request)?;
                let lines = view::notes(&mut reader, request, limit).await?;
                Ok(wire::page(lines, limit, |line| line.number.to_string()))
            }
            Verb::AdminShow
            | Verb::Draft
            | Verb::Replace
            | Verb::Publish
            | Verb::ByHand(_)
            | Verb::Change
            | Verb::PlanB
            | Verb::AddToBudget => Ok(SideAnswer::json(
                200,
                &view::admin(&mut reader, &self.shop, id, now).await?,
            )),
        }
    }

    /// A command in one transaction: done once per key, or not at all.
    async fn write(&self, verb: Verb, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let mut tx = self.shop.database.begin().await?;
        let answer = self.command(&mut tx, verb, request).await;
        tx.end(answer).await
    }

    async fn command(
        &self,
        tx: &mut Tx,
        verb: Verb,
        request: &SideRequest,
    ) -> Result<SideAnswer, SideError> {
        let endpoint = &ENDPOINTS[request.endpoint];
        if request.key.is_none() {
            return self.carry_out(tx, verb, request).await;
        }
        // The path is part of the scope: one key for two campaigns is two commands.
        let path = endpoint.path.replace("{campaign}", &request.path[0]);
        let scope = format!("{} {path}|{}", endpoint.method, wire::who(request));
        let key = wire::key(request)?;
        match take(tx, &scope, key, &request.body, request.now).await? {
            Take::Replay(answer) => Ok(answer),
            Take::Fresh(taken) => {
                let answer = self.carry_out(tx, verb, request).await?;
                taken.answered(tx, &answer).await?;
                Ok(answer)
            }
        }
    }

    async fn carry_out(
        &self,
        tx: &mut Tx,
        verb: Verb,
        request: &SideRequest,
    ) -> Result<SideAnswer, SideError> {
        let shop = &*self.shop;
        let (id, now) = (&request.path[0], request.now);
        match verb {
            Verb::Draft => {
                let id = publish::draft(tx, shop, request).await?;
                let view = view::admin(tx, shop, &id, now).await?;
                let mut answer = SideAnswer::json(201, &view);
                answer.location = Some(format!("/v1/admin/campaigns/{id}"));
                return Ok(answer);
            }
            Verb::Replace => publish::replace(tx, shop, request).await?,
            Verb::Publish => publish::publish(tx, shop, request).await?,
            Verb::ByHand(move_by_hand) => by_hand(tx, request, move_by_hand).await?,
            Verb::Change => versions::change(tx, shop, request).await?,
            Verb::PlanB => versions::plan_b(tx, shop, request).await?,
            Verb::AddToBudget => {
                versions::add_to_budget(tx, request).await?;
                return Ok(SideAnswer::json(200, &view::budget(tx, id).await?));
            }
            // Reads change nothing.
            Verb::List
            | Verb::Show
            | Verb::AdminList
            | Verb::AdminShow
            | Verb::Versions
            | Verb::Budget
            | Verb::Notes => {}
        }
        Ok(SideAnswer::json(
            200,
            &view::admin(tx, shop, id, now).await?,
        ))
    }
}

impl SideService for Life {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        schemas::all()
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move {
            let answered = self.read_or_write(&request).await;
            answered.map_err(SideError::into_problem)
        })
    }
}

const _: () = assert!(VERBS.len() == ENDPOINTS.len());
