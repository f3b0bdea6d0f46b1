//! The endpoints of coupons.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde_json::Value;
use side_books::note::{self, Note};
use side_books::sql::{Query, Reads as _, Tx, query};
use side_books::{SideError, wire};
use side_campaign::shop::Shop;

use super::model::CouponState;
use super::queries::{self, Coupon};
use super::refusal::CouponRefusal;
use super::view::{CouponPage, CouponView, LockBody, RevokeBody, UnlockBody, UseBody};
use super::{lock, rows, unlock, use_up};
use crate::{grants, input};

/// In the order of [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    List,
    Lock,
    Use,
    Unlock,
    Revoke,
    ListOfCampaign,
}

const ORDER: [Endpoint; 6] = [
    Endpoint::List,
    Endpoint::Lock,
    Endpoint::Use,
    Endpoint::Unlock,
    Endpoint::Revoke,
    Endpoint::ListOfCampaign,
];

const LIFE_PROBLEMS: &[(u16, &str)] = &[
    (404, "not_found"),
    (409, "below_threshold"),
    (409, "coupon_expired"),
    (409, "coupon_not_valid_yet"),
    (409, "state_conflict"),
];

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        path: "/v1/coupons",
        who: SideWho::Buyer,
        summary: "The buyer's coupons, the newest first",
        query: &["state", "cursor", "limit"],
        answers: &[(200, "CouponPage")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/coupons/{coupon}/lock",
        who: SideWho::Storefront,
        summary: "An order takes a coupon for 30 minutes; the same order again is answered the same",
        body: Some("LockCoupon"),
        answers: &[(200, "Coupon")],
        problems: LIFE_PROBLEMS,
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/coupons/{coupon}/use",
        who: SideWho::Storefront,
        summary: "A paid order uses a coupon up, once; a refund of the order does not bring it back",
        body: Some("UseCoupon"),
        answers: &[(200, "Coupon")],
        problems: LIFE_PROBLEMS,
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/coupons/{coupon}/unlock",
        who: SideWho::Storefront,
        summary: "An order lets go of a coupon",
        body: Some("UnlockCoupon"),
        answers: &[(200, "Coupon")],
        problems: &[(404, "not_found"), (409, "state_conflict")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "POST",
        path: "/v1/admin/coupons/{coupon}/revoke",
        who: SideWho::Merchant,
        summary: "Takes a coupon back that was not used; the budget gets its face value again",
        body: Some("RevokeCoupon"),
        answers: &[(200, "Coupon")],
        problems: &[(404, "not_found"), (409, "state_conflict")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/coupons",
        who: SideWho::Viewer,
        summary: "Coupons of a campaign, the newest first",
        query: &["buyer", "state", "cursor", "limit"],
        answers: &[(200, "CouponPage")],
        ..SideEndpoint::BASE
    },
];

pub(super) struct Coupons {
    shop: Arc<Shop>,
}

impl Coupons {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint).copied();
        let endpoint = endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))?;
        match endpoint {
            Endpoint::List => self.list(request).await,
            Endpoint::ListOfCampaign => self.list_of_campaign(request).await,
            Endpoint::Lock => {
                let mut tx = self.shop.database.begin().await?;
                let answer = lock_it(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Use => {
                let mut tx = self.shop.database.begin().await?;
                let answer = use_it(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Unlock => {
                let mut tx = self.shop.database.begin().await?;
                let answer = unlock_it(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Revoke => {
                let mut tx = self.shop.database.begin().await?;
                let answer = revoke_it(&mut tx, request).await;
                tx.end(answer).await
            }
        }
    }

    async fn list(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let (buyer, limit) = (wire::buyer(request)?, wire::limit(request)?);
        let select = query(queries::OF_BUYER)
            .bind(request.now.0)
            .bind(buyer.as_str().to_owned())
            .bind(state(request)?)
            .bind(input::id_parameter(request, "cursor")?)
            .bind(limit + 1);
        self.page(request, select, limit).await
    }

    async fn list_of_campaign(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let limit = wire::limit(request)?;
        let select = query(queries::OF_CAMPAIGN)
            .bind(request.now.0)
            .bind(request.path[0].clone())
            .bind(input::id_parameter(request, "buyer")?)
            .bind(state(request)?)
            .bind(input::id_parameter(request, "cursor")?)
            .bind(limit + 1);
        self.page(request, select, limit).await
    }

    async fn page(
        &self,
        request: &SideRequest,
        select: Query<'_>,
        limit: i64,
    ) -> Result<SideAnswer, SideError> {
        let rows = self.shop.database.read().await?.rows(select).await?;
        let coupons = rows
            .iter()
            .map(Coupon::read)
            .collect::<Result<Vec<_>, _>>()?;
        let views = coupons
            .into_iter()
            .map(|coupon| CouponView::of(coupon, request.now));
        Ok(wire::page(views.collect(), limit, |view| {
            view.coupon_id.clone()
        }))
    }
}

async fn lock_it(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let (body, buyer) = (wire::body::<LockBody>(request)?, wire::buyer(request)?);
    input::id("order_id", &body.order_id)?;
    let amount = input::money("order_amount_minor", body.order_amount_minor)?;
    let coupon = &request.path[0];
    let view = lock(
        tx,
        coupon,
        buyer.as_str(),
        &body.order_id,
        amount,
        request.now,
    )
    .await?;
    Ok(SideAnswer::json(200, &view))
}

async fn use_it(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let (body, buyer) = (wire::body::<UseBody>(request)?, wire::buyer(request)?);
    input::id("order_id", &body.order_id)?;
    let amount = body.order_amount_minor;
    let amount = amount
        .map(|amount| input::money("order_amount_minor", amount))
        .transpose()?;
    let coupon = &request.path[0];
    let view = use_up(
        tx,
        coupon,
        buyer.as_str(),
        &body.order_id,
        amount,
        request.now,
    )
    .await?;
    Ok(SideAnswer::json(200, &view))
}

async fn unlock_it(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let (body, buyer) = (wire::body::<UnlockBody>(request)?, wire::buyer(request)?);
    input::id("order_id", &body.order_id)?;
    let coupon = &request.path[0];
    let view = unlock(tx, coupon, buyer.as_str(), &body.order_id, request.now).await?;
    Ok(SideAnswer::json(200, &view))
}

async fn revoke_it(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let body: RevokeBody = wire::body(request)?;
    input::text("reason", &body.reason, input::REASON_CHARS_MAX)?;
    let coupon = rows::find(tx, &request.path[0]).await?;
    if coupon.life.state == CouponState::Revoked {
        return Ok(SideAnswer::json(200, &CouponView::of(coupon, request.now)));
    }
    // As written by a person: what verdicts write begins otherwise.
    let reason = format!("admin: {}", body.reason);
    let revoked = grants::revoke_given(tx, &coupon.grant_id, &reason, request.now).await?;
    if revoked.taken.is_empty() {
        return Err(CouponRefusal::NotRevocable(Box::new(coupon)).into());
    }
    let note = Note {
        who: wire::who(request),
        what: "coupon.revoke",
        campaign: Some(&coupon.campaign),
        subject: Some(&coupon.id),
        detail: &body.reason,
    };
    note::write(tx, &note, request.now).await?;
    let coupon = rows::find(tx, &coupon.id).await?;
    Ok(SideAnswer::json(200, &CouponView::of(coupon, request.now)))
}

fn state(request: &SideRequest) -> Result<String, SideProblem> {
    input::state_parameter(request, &CouponState::ALL.map(CouponState::as_str))
}

impl SideService for Coupons {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<CouponView>("Coupon"),
            wire::schema::<CouponPage>("CouponPage"),
            wire::schema::<LockBody>("LockCoupon"),
            wire::schema::<UseBody>("UseCoupon"),
            wire::schema::<UnlockBody>("UnlockCoupon"),
            wire::schema::<RevokeBody>("RevokeCoupon"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}
