//! What is asked of giveaways: joining, and one's own participation.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::Value;
use side_books::command::{self, Take};
use side_books::sql::Tx;
use side_books::{SideError, wire};
use side_campaign::entry::Entrant;
use side_campaign::life;
use side_campaign::shop::Shop;

use super::join::JoinRefusal;
use super::{Give, Joined, JoinedReward, join, joined};

/// In the order of [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    Join,
    Own,
}

const ORDER: [Endpoint; 2] = [Endpoint::Join, Endpoint::Own];

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

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint).copied();
        match endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))? {
            Endpoint::Join => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.join(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Own => self.own(request).await,
        }
    }

    async fn join(&self, tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let (buyer, id, now) = (wire::buyer(request)?, &request.path[0], request.now);
        let scope = format!("POST /v1/campaigns/{id}/participations|{buyer}");
        let taken = match command::take(tx, &scope, wire::key(request)?, b"", now).await? {
            Take::Fresh(taken) => taken,
            Take::Replay(answer) => {
                // He is told how his rewards stand now: a person may have allowed them since.
                return Ok(match joined(tx, id, buyer).await? {
                    Some(joined) => SideAnswer {
                        body: SideAnswer::json(answer.status, &joined).body,
                        ..answer
                    },
                    None => answer,
                });
            }
        };
        let campaign = life::find(tx, id).await?;
        let campaign = campaign.ok_or_else(|| SideProblem::not_found("campaign"))?;
        let entrant = Entrant {
            buyer,
            address: request.address,
            device: request.device.clone(),
        };
        let (shop, give) = (&self.shop, &*self.give);
        let (joined, is_fresh) = join(tx, shop, give, &campaign, &entrant, now).await?;
        let answer = SideAnswer::json(if is_fresh { 201 } else { 200 }, &joined);
        taken.answered(tx, &answer).await?;
        Ok(answer)
    }

    async fn own(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let buyer = wire::buyer(request)?;
        let mut reads = self.shop.database.read().await?;
        let found = joined(&mut reads, &request.path[0], buyer).await?;
        let found = found.ok_or_else(|| SideProblem::from(JoinRefusal::NotIn))?;
        Ok(SideAnswer::json(200, &found))
    }
}

impl SideService for GiveawayService {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<Joined>("Joined"),
            wire::schema::<JoinedReward>("JoinedReward"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}
