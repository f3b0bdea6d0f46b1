//! The endpoints of prizes.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::Value;
use side_books::command::{self, Take};
use side_books::note::{self, Note};
use side_books::sql::{Query, Reads as _, Tx, query};
use side_books::{SideError, wire};
use side_campaign::shop::Shop;

use super::model::PrizeState;
use super::queries::{self, Prize};
use super::view::{PrizePage, PrizeView, ShipBody};
use super::{Claim, address, claim, erase_address, receive, ship};
use crate::input;

/// In the order of [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    List,
    Claim,
    Received,
    ListOfCampaign,
    Address,
    EraseAddress,
    Ship,
}

const ORDER: [Endpoint; 7] = [
    Endpoint::List,
    Endpoint::Claim,
    Endpoint::Received,
    Endpoint::ListOfCampaign,
    Endpoint::Address,
    Endpoint::EraseAddress,
    Endpoint::Ship,
];

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        path: "/v1/prizes",
        who: SideWho::Buyer,
        summary: "The buyer's prizes, the newest first",
        query: &["state", "cursor", "limit"],
        answers: &[(200, "PrizePage")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/prizes/{prize}/claim",
        who: SideWho::Buyer,
        summary: "Says where a prize goes; may be changed until it is shipped",
        body: Some("ClaimPrize"),
        needs_key: true,
        answers: &[(200, "Prize")],
        problems: &[
            (404, "not_found"),
            (409, "prize_expired"),
            (409, "state_conflict"),
            (422, "idempotency_key_reused"),
        ],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/prizes/{prize}/received",
        who: SideWho::Buyer,
        summary: "Says that a prize arrived",
        answers: &[(200, "Prize")],
        problems: &[(404, "not_found"), (409, "state_conflict")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/prizes",
        who: SideWho::Viewer,
        summary: "Prizes of a campaign, the newest first",
        query: &["state", "cursor", "limit"],
        answers: &[(200, "PrizePage")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/prizes/{prize}/address",
        who: SideWho::Merchant,
        summary: "Where a prize goes; who looked is written down",
        answers: &[(200, "ClaimPrize")],
        problems: &[(404, "not_found"), (409, "state_conflict")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "DELETE",
        path: "/v1/admin/prizes/{prize}/address",
        who: SideWho::Merchant,
        summary: "Erases an address; before shipping the prize waits to be claimed again",
        answers: &[(200, "Prize")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "POST",
        path: "/v1/admin/prizes/{prize}/ship",
        who: SideWho::Merchant,
        summary: "A claimed prize is on its way: its cost is spent; again, it corrects the tracking",
        body: Some("ShipPrize"),
        answers: &[(200, "Prize")],
        problems: &[(404, "not_found"), (409, "state_conflict")],
        ..SideEndpoint::BASE
    },
];

pub(super) struct Prizes {
    shop: Arc<Shop>,
}

impl Prizes {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint).copied();
        match endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))? {
            Endpoint::List => self.list(request).await,
            Endpoint::ListOfCampaign => self.list_of_campaign(request).await,
            Endpoint::Claim => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.claim_it(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Received => {
                let mut tx = self.shop.database.begin().await?;
                let answer = receive_it(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Address => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.show_address(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::EraseAddress => {
                let mut tx = self.shop.database.begin().await?;
                let answer = erase_it(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Ship => {
                let mut tx = self.shop.database.begin().await?;
                let answer = ship_it(&mut tx, request).await;
                tx.end(answer).await
            }
        }
    }

    async fn list(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let buyer = wire::buyer(request)?;
        self.page(request, query(queries::OF_BUYER), buyer.as_str())
            .await
    }

    async fn list_of_campaign(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        self.page(request, query(queries::OF_CAMPAIGN), &request.path[0])
            .await
    }

    async fn page(
        &self,
        request: &SideRequest,
        select: Query<'_>,
        of: &str,
    ) -> Result<SideAnswer, SideError> {
        let limit = wire::limit(request)?;
        let words = PrizeState::ALL.map(PrizeState::as_str);
        let select = select
            .bind(request.now.0)
            .bind(of.to_owned())
            .bind(input::state_parameter(request, &words)?)
            .bind(input::id_parameter(request, "cursor")?)
            .bind(limit + 1);
        let rows = self.shop.database.read().await?.rows(select).await?;
        let prizes = rows
            .iter()
            .map(Prize::read)
            .collect::<Result<Vec<_>, _>>()?;
        let views = prizes
            .into_iter()
            .map(|prize| PrizeView::of(prize, request.now));
        Ok(wire::page(views.collect(), limit, |view| {
            view.prize_id.clone()
        }))
    }

    async fn claim_it(&self, tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let (body, buyer) = (wire::body::<Claim>(request)?, wire::buyer(request)?);
        check(&body)?;
        let (prize, now) = (&request.path[0], request.now);
        let scope = format!("POST /v1/prizes/{prize}/claim|{buyer}");
        let key = wire::key(request)?;
        // The fingerprint stays when the address is erased: nobody may find the address from it.
        let body_text = String::from_utf8_lossy(&request.body);
        let fingerprint = self.shop.sealer.keyed_hash("prize claim", &body_text);
        let taken = match command::take(tx, &scope, key, fingerprint.as_bytes(), now).await? {
            Take::Fresh(taken) => taken,
            Take::Replay(answer) => return Ok(answer),
        };
        let view = claim(tx, &self.shop.sealer, prize, buyer.as_str(), &body, now).await?;
        let answer = SideAnswer::json(200, &view);
        taken.answered(tx, &answer).await?;
        Ok(answer)
    }

    async fn show_address(
        &self,
        tx: &mut Tx,
        request: &SideRequest,
    ) -> Result<SideAnswer, SideError> {
        let (campaign, claim) = address(tx, &self.shop.sealer, &request.path[0]).await?;
        note_it(tx, request, "prize.address_read", &campaign, "").await?;
        Ok(SideAnswer::json(200, &claim))
    }
}

async fn receive_it(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let buyer = wire::buyer(request)?;
    let view = receive(tx, &request.path[0], buyer.as_str(), request.now).await?;
    Ok(SideAnswer::json(200, &view))
}

async fn erase_it(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let (campaign, view) = erase_address(tx, &request.path[0], request.now).await?;
    note_it(tx, request, "prize.address_erase", &campaign, "").await?;
    Ok(SideAnswer::json(200, &view))
}

async fn ship_it(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let body: ShipBody = wire::body(request)?;
    input::text("carrier", &body.carrier, 64)?;
    input::text("tracking", &body.tracking, 64)?;
    let prize = &request.path[0];
    let view = ship(tx, prize, &body.carrier, &body.tracking, request.now).await?;
    let detail = format!("{} {}", body.carrier, body.tracking);
    note_it(tx, request, "prize.ship", &view.campaign_id, &detail).await?;
    Ok(SideAnswer::json(200, &view))
}

/// Who did it to which prize; never where the prize goes.
async fn note_it(
    tx: &mut Tx,
    request: &SideRequest,
    what: &str,
    campaign: &str,
    detail: &str,
) -> Result<(), SideError> {
    let note = Note {
        who: wire::who(request),
        what,
        campaign: Some(campaign),
        subject: Some(&request.path[0]),
        detail,
    };
    note::write(tx, &note, request.now).await
}

fn check(claim: &Claim) -> Result<(), SideProblem> {
    input::text("name", &claim.name, 64)?;
    input::text("address", &claim.address, 512)?;
    let phone = &claim.phone;
    let is_phone_byte = |byte: u8| byte.is_ascii_digit() || b" +-()".contains(&byte);
    let digits = phone.bytes().filter(u8::is_ascii_digit).count();
    if phone.len() > 32 || digits < 5 || !phone.bytes().all(is_phone_byte) {
        return Err(SideProblem::malformed(
            "phone is not 5-32 characters of digits, spaces, + - ( ), with at least 5 digits",
        ));
    }
    Ok(())
}

impl SideService for Prizes {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<PrizeView>("Prize"),
            wire::schema::<PrizePage>("PrizePage"),
            wire::schema::<Claim>("ClaimPrize"),
            wire::schema::<ShipBody>("ShipPrize"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}
