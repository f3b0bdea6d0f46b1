//! The endpoints: codes, reminders, care messages, what was opened, figures.

use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use flash_types::{SaleId, Timestamp};
use serde::Serialize;
use serde_json::Value;
use side_books::command::{self, Take};
use side_books::sql::{Get as _, Reads as _, Tx};
use side_books::{SideError, wire};
use utoipa::ToSchema;

use super::calendar::{Calendar, Subject};
use super::care::{self, Care, CareBody};
use super::figures::{Figures, KindFigures, figures};
use super::queries;
use super::refusal::Refusal;
use super::reminders::{ReminderCancelled, ReminderSubscription, subscribe, unsubscribe};
use super::verification::{self, CodeBody, Confirmed, PhoneBody, Verification, Verified};
use crate::life;
use crate::shop::Shop;

/// Which endpoint, by its place in [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    Ask,
    Confirm,
    Remind(Of),
    Forget(Of),
    Care,
    Opened,
    Figures(Of),
}

#[derive(Clone, Copy)]
enum Of {
    Campaign,
    Sale,
}

const ORDER: [Endpoint; 10] = [
    Endpoint::Ask,
    Endpoint::Confirm,
    Endpoint::Remind(Of::Campaign),
    Endpoint::Forget(Of::Campaign),
    Endpoint::Remind(Of::Sale),
    Endpoint::Forget(Of::Sale),
    Endpoint::Care,
    Endpoint::Opened,
    Endpoint::Figures(Of::Campaign),
    Endpoint::Figures(Of::Sale),
];
const _: () = assert!(ORDER.len() == ENDPOINTS.len());

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        method: "POST",
        path: "/v1/verifications",
        who: SideWho::Buyer,
        summary: "Sends a code to a telephone number, to be confirmed within five minutes",
        body: Some("VerificationRequest"),
        body_bytes_max: 256,
        answers: &[(202, "Verification")],
        problems: &[(429, "rate_limited")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/verifications/{verification}/confirm",
        who: SideWho::Buyer,
        summary: "Confirms a telephone number by the code that was sent to it",
        body: Some("VerificationCode"),
        body_bytes_max: 256,
        answers: &[(200, "Verified")],
        problems: &[
            (403, "code_wrong"),
            (403, "too_many_tries"),
            (404, "not_found"),
            (409, "phone_in_use"),
            (410, "code_expired"),
        ],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/campaigns/{campaign}/reminders",
        who: SideWho::Buyer,
        summary: "Reminds the buyer of the start of a campaign",
        answers: &[(200, "ReminderSubscription"), (201, "ReminderSubscription")],
        problems: &[
            (404, "not_found"),
            (409, "state_conflict"),
            (410, "campaign_ended"),
        ],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "DELETE",
        path: "/v1/campaigns/{campaign}/reminders",
        who: SideWho::Buyer,
        summary: "Reminds the buyer of it no more",
        answers: &[(200, "ReminderCancelled")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/sales/{sale}/reminders",
        who: SideWho::Buyer,
        summary: "Reminds the buyer of the start of a sale",
        answers: &[(200, "ReminderSubscription"), (201, "ReminderSubscription")],
        problems: &[
            (404, "not_found"),
            (409, "state_conflict"),
            (410, "sale_ended"),
        ],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "DELETE",
        path: "/v1/sales/{sale}/reminders",
        who: SideWho::Buyer,
        summary: "Reminds the buyer of it no more",
        answers: &[(200, "ReminderCancelled")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "POST",
        path: "/v1/admin/campaigns/{campaign}/care",
        who: SideWho::Merchant,
        summary: "Tells the buyers of certain orders something, each once",
        body: Some("CareRequest"),
        needs_key: true,
        answers: &[(202, "Care")],
        problems: &[(404, "not_found"), (422, "idempotency_key_reused")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        method: "POST",
        path: "/v1/notices/{notice}/opened",
        who: SideWho::Storefront,
        summary: "Reports that a notice was opened",
        answers: &[(200, "NoticeOpened")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/notices",
        who: SideWho::Viewer,
        summary: "What became of the notices of a campaign: sent, opened, bought, ROI, repurchase",
        answers: &[(200, "NoticeFigures")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/sales/{sale}/notices",
        who: SideWho::Viewer,
        summary: "What became of the notices of a sale: sent, opened, bought, repurchase",
        answers: &[(200, "NoticeFigures")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
];

/// When it was opened first.
#[derive(Serialize, ToSchema)]
struct NoticeOpened {
    #[schema(value_type = String, format = DateTime)]
    opened_at: Timestamp,
}

/// Answers for notices.
pub struct NoticeService {
    shop: Arc<Shop>,
    calendar: Arc<dyn Calendar>,
}

impl NoticeService {
    /// Of a shop, by its calendar.
    pub fn new(shop: Arc<Shop>, calendar: Arc<dyn Calendar>) -> Self {
        Self { shop, calendar }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint);
        let endpoint = *endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))?;
        if let Endpoint::Figures(of) = endpoint {
            return self.figures(of, &request.path[0]).await;
        }
        let mut tx = self.shop.database.begin().await?;
        let answer = self.answer_in(&mut tx, endpoint, request).await;
        // A no that is written down is committed too: a try was used.
        Ok(tx.end(answer).await??)
    }

    async fn answer_in(
        &self,
        tx: &mut Tx,
        endpoint: Endpoint,
        request: &SideRequest,
    ) -> Result<Result<SideAnswer, Refusal>, SideError> {
        let (shop, now, [name, ..]) = (&self.shop, request.now, &request.path);
        match endpoint {
            Endpoint::Ask => {
                let (buyer, body) = (wire::buyer(request)?, wire::body::<PhoneBody>(request)?);
                let asked = verification::ask(tx, shop, &buyer, request.address, &body, now);
                Ok(Ok(asked.await?))
            }
            Endpoint::Confirm => {
                let (buyer, body) = (wire::buyer(request)?, wire::body::<CodeBody>(request)?);
                match verification::confirm(tx, shop, &buyer, name, &body, now).await? {
                    Confirmed::Yes(answer) => Ok(Ok(answer)),
                    Confirmed::No(refusal) => Ok(Err(refusal)),
                    Confirmed::Refused(refusal) => Err(refusal.into()),
                }
            }
            Endpoint::Remind(of) => {
                let (buyer, subject) = (wire::buyer(request)?, of.subject(name));
                let calendar = &*self.calendar;
                Ok(Ok(subscribe(tx, calendar, &subject, &buyer, now).await?))
            }
            Endpoint::Forget(of) => {
                let (buyer, subject) = (wire::buyer(request)?, of.subject(name));
                Ok(Ok(unsubscribe(tx, &subject, &buyer).await?))
            }
            Endpoint::Care => Ok(Ok(self.care(tx, name, request).await?)),
            Endpoint::Opened => {
                let row = tx.row(queries::open(name, now.0)).await?;
                let row = row.ok_or(Refusal::NotFound("notice"))?;
                let opened = NoticeOpened {
                    opened_at: Timestamp(row.int("opened_at_ms")?),
                };
                Ok(Ok(SideAnswer::json(200, &opened)))
            }
            Endpoint::Figures(of) => Ok(Ok(self.figures(of, name).await?)),
        }
    }

    /// Outside of a transaction: the one writer of a SQLite file is not taken for a read.
    async fn figures(&self, of: Of, id: &str) -> Result<SideAnswer, SideError> {
        let mut reader = self.shop.database.read().await?;
        let (subject, currency) = match of {
            Of::Campaign => {
                let campaign = life::find(&mut reader, id).await?;
                let campaign = campaign.ok_or(Refusal::NotFound("campaign"))?;
                (Subject::Campaign(campaign.id), campaign.definition.currency)
            }
            Of::Sale => {
                let sale = SaleId::parse(id)
                    .ok()
                    .and_then(|id| self.shop.desk.sale(&id));
                let sale = sale.ok_or(Refusal::NotFound("sale"))?;
                (Subject::Sale(id.to_owned()), sale.currency)
            }
        };
        let counted = figures(&mut reader, &subject, currency.as_str()).await?;
        Ok(SideAnswer::json(200, &counted))
    }

    async fn care(
        &self,
        tx: &mut Tx,
        campaign: &str,
        request: &SideRequest,
    ) -> Result<SideAnswer, SideError> {
        let body: CareBody = wire::body(request)?;
        body.check()?;
        let who = wire::who(request);
        let scope = format!("POST /v1/admin/campaigns/{campaign}/care|{who}");
        let key = wire::key(request)?;
        let taken = match command::take(tx, &scope, key, &request.body, request.now).await? {
            Take::Fresh(taken) => taken,
            Take::Replay(answer) => return Ok(answer),
        };
        let subject = Subject::Campaign(campaign.to_owned());
        let planned = self.calendar.planned(tx, &subject).await?;
        let planned = planned.ok_or(Refusal::NotFound("campaign"))?;
        let answer = care::begin(tx, campaign, &planned, &body, who, request.now).await?;
        taken.answered(tx, &answer).await?;
        Ok(answer)
    }
}

impl Of {
    fn subject(self, id: &str) -> Subject {
        match self {
            Self::Campaign => Subject::Campaign(id.to_owned()),
            Self::Sale => Subject::Sale(id.to_owned()),
        }
    }
}

impl SideService for NoticeService {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<PhoneBody>("VerificationRequest"),
            wire::schema::<Verification>("Verification"),
            wire::schema::<CodeBody>("VerificationCode"),
            wire::schema::<Verified>("Verified"),
            wire::schema::<ReminderSubscription>("ReminderSubscription"),
            wire::schema::<ReminderCancelled>("ReminderCancelled"),
            wire::schema::<CareBody>("CareRequest"),
            wire::schema::<Care>("Care"),
            wire::schema::<NoticeOpened>("NoticeOpened"),
            wire::schema::<Figures>("NoticeFigures"),
            wire::schema::<KindFigures>("KindFigures"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}
