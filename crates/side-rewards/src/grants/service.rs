//! The endpoint by which a merchant gives a reward to many.

use std::sync::Arc;

use flash_types::BuyerId;
use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use side_books::command::{self, Take};
use side_books::note::{self, Note};
use side_books::sql::Tx;
use side_books::{SideError, wire};
use side_campaign::life;
use side_campaign::shop::Shop;
use side_campaign::state::State;
use utoipa::ToSchema;

use super::{Batch, BatchRefusal, Dry, grant_all};
use crate::input;

/// Most buyers in one call.
pub const BUYERS_MAX: usize = 200;

static ENDPOINTS: &[SideEndpoint] = &[SideEndpoint {
    port: SidePort::Admin,
    method: "POST",
    path: "/v1/admin/campaigns/{campaign}/grants",
    who: SideWho::Merchant,
    summary: "Gives a reward to up to 200 buyers: to all of them or to none",
    body: Some("GrantRewards"),
    needs_key: true,
    answers: &[(201, "GrantedRewards"), (200, "GrantedRewards")],
    problems: &[
        (404, "not_found"),
        (409, "state_conflict"),
        (409, "budget_exhausted"),
        (409, "reward_exhausted"),
        (409, "buyer_limit_reached"),
        (422, "idempotency_key_reused"),
    ],
    ..SideEndpoint::BASE
}];

/// A reward for many.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantBody {
    /// The reward's name in the campaign's definition.
    reward: String,
    /// 1-200, each once.
    #[schema(value_type = Vec<String>)]
    buyers: Vec<BuyerId>,
    /// For people: 1-256 characters, kept in the audit log.
    reason: String,
}

/// What was given.
#[derive(Debug, Serialize, ToSchema)]
struct GrantedView {
    /// In the order of the buyers.
    items: Vec<GrantedItem>,
}

/// One coupon or prize.
#[derive(Debug, Serialize, ToSchema)]
struct GrantedItem {
    /// To whom.
    #[schema(value_type = String)]
    buyer_id: BuyerId,
    /// Id of the coupon or prize.
    id: String,
}

/// A no.
enum GrantRefusal {
    NoSuchCampaign,
    NotInThisState(State),
    Batch(BatchRefusal),
}

impl From<GrantRefusal> for SideError {
    fn from(refusal: GrantRefusal) -> Self {
        problem(&refusal).into()
    }
}

fn problem(refusal: &GrantRefusal) -> SideProblem {
    let conflict = |detail: String| SideProblem::new(409, "state_conflict", detail);
    match refusal {
        GrantRefusal::NoSuchCampaign => SideProblem::not_found("campaign"),
        GrantRefusal::NotInThisState(state) => {
            let detail = "the campaign gives nothing now: publish it, or take one that is not over";
            conflict(detail.to_owned()).with("state", state.as_str())
        }
        GrantRefusal::Batch(BatchRefusal::NoSuchReward) => SideProblem::not_found("reward"),
        GrantRefusal::Batch(BatchRefusal::AgainFor(buyer)) => {
            conflict("the key gave this buyer something before: take a new one".to_owned())
                .with("buyer_id", buyer.as_str())
        }
        GrantRefusal::Batch(BatchRefusal::Dry(dry, buyer)) => {
            let problem = match dry {
                Dry::Budget => SideProblem::new(
                    409,
                    "budget_exhausted",
                    "the campaign's budget does not reach for all of them: raise it, or name fewer buyers",
                ),
                Dry::Stock => SideProblem::new(
                    409,
                    "reward_exhausted",
                    "there are not so many of this reward left: raise its total, or name fewer buyers",
                ),
                Dry::PerBuyer => SideProblem::new(
                    409,
                    "buyer_limit_reached",
                    "a buyer has as many of this reward as one may have: leave them out",
                ),
            };
            match buyer {
                Some(buyer) => problem.with("buyer_id", buyer.as_str()),
                None => problem,
            }
        }
    }
}

pub(super) struct Grants {
    shop: Arc<Shop>,
}

impl Grants {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let body: GrantBody = wire::body(request)?;
        check(&body)?;
        let mut tx = self.shop.database.begin().await?;
        let answer = give(&mut tx, request, &body).await;
        tx.end(answer).await
    }
}

async fn give(
    tx: &mut Tx,
    request: &SideRequest,
    body: &GrantBody,
) -> Result<SideAnswer, SideError> {
    let (who, key, now) = (wire::who(request), wire::key(request)?, request.now);
    let campaign_id = &request.path[0];
    let scope = format!("POST /v1/admin/campaigns/{campaign_id}/grants|{who}");
    let taken = match command::take(tx, &scope, key, &request.body, now).await? {
        Take::Fresh(taken) => taken,
        Take::Replay(answer) => return Ok(answer),
    };
    // Whoever ends or cancels it waits, or was here before.
    let campaign = life::hold(tx, campaign_id).await?;
    let campaign = campaign.ok_or(GrantRefusal::NoSuchCampaign)?;
    if !may_give(campaign.state) {
        return Err(GrantRefusal::NotInThisState(campaign.state).into());
    }
    let batch = Batch {
        key,
        reward: &body.reward,
        buyers: &body.buyers,
    };
    let ids = grant_all(tx, &campaign, &batch, now).await?;
    let ids = ids.map_err(GrantRefusal::Batch)?;
    let note = Note {
        who,
        what: "grants.give",
        campaign: Some(campaign_id),
        subject: Some(&body.reward),
        detail: &format!("{} buyers: {}", ids.len(), body.reason),
    };
    note::write(tx, &note, now).await?;
    let pairs = body.buyers.iter().zip(ids);
    let items = pairs.map(|(buyer_id, id)| GrantedItem {
        buyer_id: *buyer_id,
        id,
    });
    let view = GrantedView {
        items: items.collect(),
    };
    let answer = SideAnswer::json(201, &view);
    taken.answered(tx, &answer).await?;
    Ok(answer)
}

/// While there is a budget: from publish until everything is settled.
fn may_give(state: State) -> bool {
    match state {
        State::Published
        | State::Warmup
        | State::Running
        | State::Paused
        | State::Ended
        | State::Settling => true,
        State::Draft | State::Settled | State::Archived | State::Cancelled => false,
    }
}

fn check(body: &GrantBody) -> Result<(), SideProblem> {
    input::id("reward", &body.reward)?;
    input::text("reason", &body.reason, input::REASON_CHARS_MAX)?;
    if body.buyers.is_empty() || body.buyers.len() > BUYERS_MAX {
        let detail = format!("buyers are not 1-{BUYERS_MAX}: send them in several calls");
        return Err(SideProblem::malformed(detail));
    }
    let mut sorted = body.buyers.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(SideProblem::malformed("buyers names one of them twice"));
    }
    Ok(())
}

impl SideService for Grants {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<GrantBody>("GrantRewards"),
            wire::schema::<GrantedView>("GrantedRewards"),
            wire::schema::<GrantedItem>("GrantedItem"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}
