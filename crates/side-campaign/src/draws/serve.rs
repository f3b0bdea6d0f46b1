//! What is asked about draws: the proof file, the winners.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::Value;
use side_books::{SideError, wire};

use super::{file, proof, winners};
use crate::life::{self, Campaign};
use crate::shop::Shop;
use crate::state::State;

/// In the order of [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    AdminProofs,
    Proofs,
    Winners,
}

const ORDER: [Endpoint; 3] = [Endpoint::AdminProofs, Endpoint::Proofs, Endpoint::Winners];

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/proofs",
        who: SideWho::Viewer,
        summary: "Everything that proves the draws, a page at a time; without the seed before the end",
        query: &["limit", "cursor"],
        answers: &[(200, "ProofFile")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        path: "/v1/campaigns/{campaign}/proofs",
        summary: "Everything that proves the draws of a settled campaign, a page at a time",
        query: &["limit", "cursor"],
        answers: &[(200, "ProofFile")],
        problems: &[(404, "not_found"), (409, "not_revealed")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        path: "/v1/campaigns/{campaign}/winners",
        summary: "Winners: masked buyer, rank, score, reward, and the draw that proves it",
        query: &["limit", "cursor"],
        answers: &[(200, "WinnerPage")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
];

/// Answers questions about draws.
pub struct DrawsService {
    shop: Arc<Shop>,
}

impl DrawsService {
    /// Of a shop.
    pub fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint).copied();
        let endpoint = endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))?;
        let mut reads = self.shop.database.read().await?;
        let campaign = life::find(&mut reads, &request.path[0]).await?;
        let campaign = campaign.ok_or_else(|| SideProblem::not_found("campaign"))?;
        let limit = wire::limit(request)?;
        let cursor = request.parameter("cursor");
        match endpoint {
            Endpoint::AdminProofs => {
                let file = proof::page(&mut reads, &campaign, cursor, limit).await?;
                Ok(SideAnswer::json(200, &file))
            }
            Endpoint::Proofs => {
                public(&campaign)?;
                if !is_over(campaign.state) {
                    return Err(not_revealed(&campaign).into());
                }
                let file = proof::page(&mut reads, &campaign, cursor, limit).await?;
                Ok(SideAnswer::json(200, &file))
            }
            Endpoint::Winners => {
                public(&campaign)?;
                let after = cursor.map(winner_cursor).transpose()?;
                let (list, rank) = after.unwrap_or(("", 0));
                let found =
                    winners::page(&mut reads, &campaign.id, (list, rank), limit + 1).await?;
                Ok(wire::page(found, limit, |it| {
                    format!("{}~{}", it.list, it.rank)
                }))
            }
        }
    }
}

impl SideService for DrawsService {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<file::ProofFile>("ProofFile"),
            wire::schema::<file::ProofVersion>("ProofVersion"),
            wire::schema::<file::ProofRoot>("ProofRoot"),
            wire::schema::<file::ProofTicket>("ProofTicket"),
            wire::schema::<file::ProofDraw>("ProofDraw"),
            wire::schema::<winners::WinnerView>("WinnerView"),
            wire::schema::<winners::WinnerPage>("WinnerPage"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}

/// Drafts are nobody's business.
fn public(campaign: &Campaign) -> Result<(), SideProblem> {
    if campaign.state == State::Draft {
        Err(SideProblem::not_found("campaign"))
    } else {
        Ok(())
    }
}

fn is_over(state: State) -> bool {
    matches!(state, State::Settled | State::Archived)
}

fn not_revealed(campaign: &Campaign) -> SideProblem {
    let detail = "the seed is revealed when the campaign is settled: ask again then";
    SideProblem::new(409, "not_revealed", detail).with("state", campaign.state.as_str())
}

fn winner_cursor(text: &str) -> Result<(&str, i64), SideProblem> {
    let parts = text.split_once('~');
    let parts = parts.and_then(|(list, rank)| Some((list, rank.parse().ok()?)));
    parts.ok_or_else(|| {
        SideProblem::malformed("the parameter cursor is none that a page gave as next_cursor")
    })
}
