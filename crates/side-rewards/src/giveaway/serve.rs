//! What is asked of giveaways: joining, and one's own participation.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::{Value, json};
use side_books::command::{self, Take};
use side_books::{SideError, wire};
use side_campaign::entry::Entrant;
use side_campaign::life;
use side_campaign::shop::Shop;
use utoipa::PartialSchema as _;

use super::join::JoinRefusal;
use super::{Give, Joined, JoinedReward, join, joined};

/// Beside each line of [`ENDPOINTS`].
#[derive(Debug, Clone, Copy)]
enum Asked {
    Join,
    Own,
}

const ASKED: [Asked; 2] = [Asked::Join, Asked::Own];

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        method: "POST",
        path: "/v1/campaigns/{campaign}/participations",
        who: SideWho::Buyer,
        summary: "Join a giveaway, once; what joining gives is given at once",
        needs_key: true,
        answers: &[(201, "Joined"), (200, "Joined")],
        problems: &[
            (403, "blocked"),
            (403, "not_eligible"),
            (404, "not_found"),
            (409, "state_conflict"),
            (410, "campaign_ended"),
            (422, "idempotency_key_reused"),
            (423, "campaign_paused"),
            (425, "campaign_not_started"),
        ],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        path: "/v1/campaigns/{campaign}/participations",
        who: SideWho::Buyer,
        summary: "One's own participation in a giveaway",
        answers: &[(200, "Joined")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
];

/// Answers buyers about giveaways.
pub struct GiveawayService {
    shop: Arc<Shop>,
    give: Arc<dyn Give>,
}

impl GiveawayService {
    /// Of a shop.
    pub fn new(shop: Arc<Shop>, give: Arc<dyn Give>) -> Self {
        Self { shop, give }
    }

    async fn join(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let buyer = wire::buyer(request)?;
        let id = &request.path[0];
        let mut tx = self.shop.database.begin().await?;
        let scope = format!("POST /v1/campaigns/{id}/participations|{buyer}");
        let taken = command::take(&mut tx, &scope, wire::key(request)?, b"", request.now).await?;
        let taken = match taken {
            Take::Fresh(taken) => taken,
            Take::Replay(mut answer) => {
                // He is told how his rewards stand now: a person may have allowed them since.
                if let Some(joined) = joined(&mut tx, id, buyer).await? {
                    answer.body = json!(joined).to_string().into_bytes();
                }
                tx.rollback().await;
                return Ok(answer);
            }
        };
        let Some(campaign) = life::find(&mut tx, id).await? else {
            tx.rollback().await;
            return Err(SideProblem::not_found("campaign").into());
        };
        let entrant = Entrant {
            buyer,
            address: request.address,
            device: request.device.clone(),
        };
        let entered = join(
            &mut tx,
            &self.shop,
            &*self.give,
            &campaign,
            &entrant,
            request.now,
        )
        .await;
        let (joined, is_fresh) = match entered {
            Ok(joined) => joined,
            Err(SideError::Refused(problem)) => {
                tx.rollback().await;
                return Err(SideError::Refused(problem));
            }
            Err(error) => return Err(error),
        };
        let status = if is_fresh { 201 } else { 200 };
        let answer = SideAnswer::json(status, &json!(joined));
        taken.answered(&mut tx, &answer).await?;
        tx.commit().await?;
        Ok(answer)
    }

    async fn own(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let buyer = wire::buyer(request)?;
        let mut reads = self.shop.database.read().await?;
        let found = joined(&mut reads, &request.path[0], buyer).await?;
        let found = found.ok_or_else(|| SideProblem::from(JoinRefusal::NotIn))?;
        Ok(SideAnswer::json(200, &json!(found)))
    }
}

impl SideService for GiveawayService {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("Joined", json!(Joined::schema())),
            ("JoinedReward", json!(JoinedReward::schema())),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move {
            let answered = match ASKED[request.endpoint] {
                Asked::Join => self.join(&request).await,
                Asked::Own => self.own(&request).await,
            };
            answered.map_err(SideError::into_problem)
        })
    }
}
