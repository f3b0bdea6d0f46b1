//! Endpoints of entries: sign-ups, block lists, participants.

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

use super::blocklist::checked_reason;
use super::{Block, BlockList, EntryRefusal, block, queries, sign_up, unblock};
use crate::life;
use crate::shop::Shop;

/// In the order of [`ENDPOINTS`].
#[derive(Clone, Copy)]
enum Endpoint {
    SignUp,
    Block,
    Unblock,
    Blocks,
    Participants,
}

const ORDER: [Endpoint; 5] = [
    Endpoint::SignUp,
    Endpoint::Block,
    Endpoint::Unblock,
    Endpoint::Blocks,
    Endpoint::Participants,
];

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        method: "POST",
        path: "/v1/campaigns/{campaign}/sign-ups",
        who: SideWho::Storefront,
        summary: "Reports that a buyer did the task that the campaign asks for before one may take part",
        body: Some("SignUp"),
        needs_key: true,
        answers: &[(201, "SignUpDone"), (200, "SignUpDone")],
        problems: &[(410, "campaign_ended"), (422, "idempotency_key_reused")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "PUT",
        path: "/v1/admin/campaigns/{campaign}/blocklist/{list}/{value}",
        who: SideWho::Merchant,
        summary: "Keeps a buyer, an address (IPv6: its /64) or a device out of a campaign; list is buyers, addresses \
                  or devices",
        body: Some("BlockReason"),
        answers: &[(201, "Blocked"), (200, "Blocked")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "DELETE",
        path: "/v1/admin/campaigns/{campaign}/blocklist/{list}/{value}",
        who: SideWho::Merchant,
        summary: "Lets it in again",
        answers: &[(200, "Blocked")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/blocklist",
        who: SideWho::Viewer,
        summary: "Who is kept out, and why; addresses and devices only as keyed hashes",
        query: &["cursor", "limit"],
        answers: &[(200, "BlockPage")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/participants",
        who: SideWho::Viewer,
        summary: "Who takes part, by time; verdict is ALLOW, REVIEW or DENY",
        query: &["cursor", "limit", "verdict"],
        answers: &[(200, "ParticipantPage")],
        ..SideEndpoint::BASE
    },
];

/// A task that was done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignUp {
    /// The word of the campaign's definition.
    task: String,
}

/// It is written down.
#[derive(Serialize, ToSchema)]
struct SignUpDone {
    campaign: String,
    task: String,
    #[schema(value_type = String, format = DateTime)]
    done_at: Timestamp,
}

/// Why, for people.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BlockReason {
    /// At most 500 characters.
    #[serde(default)]
    reason: Option<String>,
}

/// Where a value of a block list stands now.
#[derive(Serialize, ToSchema)]
struct Blocked {
    list: &'static str,
    is_blocked: bool,
}

/// A line of the block lists.
#[derive(Serialize, ToSchema)]
struct BlockItem {
    list: String,
    /// A buyer's id, or a keyed hash.
    value: String,
    reason: String,
    who: String,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// A page.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct BlockPage {
    items: Vec<BlockItem>,
    next_cursor: Option<String>,
}

/// Who takes part.
#[derive(Serialize, ToSchema)]
struct ParticipantItem {
    buyer: String,
    #[schema(value_type = String, format = DateTime)]
    joined_at: Timestamp,
    /// Never paid an order before the campaign's start.
    is_new: bool,
    /// Under which version of the rules.
    version: i64,
    /// `ALLOW`, `REVIEW` or `DENY`: what verdicts say together.
    verdict: String,
    is_address_known: bool,
    is_device_known: bool,
    is_phone_verified: bool,
}

/// A page.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct ParticipantPage {
    items: Vec<ParticipantItem>,
    next_cursor: Option<String>,
}

/// Answers them.
pub(super) struct EntryService {
    shop: Arc<Shop>,
}

impl EntryService {
    pub(super) fn new(shop: Arc<Shop>) -> Self {
        Self { shop }
    }

    async fn run(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let endpoint = ORDER.get(request.endpoint).copied();
        match endpoint.ok_or_else(|| SideProblem::not_found("endpoint"))? {
            Endpoint::Blocks => self.blocks(request).await,
            Endpoint::Participants => self.participants(request).await,
            Endpoint::SignUp => {
                let mut tx = self.shop.database.begin().await?;
                let answer = sign_it_up(&mut tx, request).await;
                tx.end(answer).await
            }
            Endpoint::Block => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.block(&mut tx, request, true).await;
                tx.end(answer).await
            }
            Endpoint::Unblock => {
                let mut tx = self.shop.database.begin().await?;
                let answer = self.block(&mut tx, request, false).await;
                tx.end(answer).await
            }
        }
    }

    async fn block(
        &self,
        tx: &mut Tx,
        request: &SideRequest,
        is_on: bool,
    ) -> Result<SideAnswer, SideError> {
        let [campaign, list, value] = &request.path;
        let list = BlockList::parse(list)?;
        let reason: BlockReason = if is_on && !request.body.is_empty() {
            wire::body(request)?
        } else {
            BlockReason::default()
        };
        let (stored, reason) = (
            list.stored(&self.shop.sealer, value)?,
            checked_reason(reason.reason)?,
        );
        if life::find(tx, campaign).await?.is_none() {
            return Err(EntryRefusal::NoSuchCampaign.into());
        }
        let what = Block {
            campaign,
            list,
            stored: &stored,
            who: wire::who(request),
            reason: &reason,
        };
        let is_changed = if is_on {
            block(tx, &what, request.now).await?
        } else {
            unblock(tx, &what, request.now).await?
        };
        let blocked = Blocked {
            list: list.as_str(),
            is_blocked: is_on,
        };
        let status = if is_on && is_changed { 201 } else { 200 };
        Ok(SideAnswer::json(status, &blocked))
    }

    async fn blocks(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let limit = wire::limit(request)?;
        let (list, value) = match request.parameter("cursor") {
            None => ("", ""),
            Some(cursor) => cursor.split_once('~').ok_or_else(bad_cursor)?,
        };
        let select = query(queries::LIST_BLOCKS)
            .bind(request.path[0].clone())
            .bind(list.to_owned())
            .bind(value.to_owned())
            .bind(limit + 1);
        let rows = self.shop.database.read().await?.rows(select).await?;
        let items: Result<Vec<_>, SqlError> = rows.iter().map(block_item).collect();
        Ok(wire::page(items?, limit, |item| {
            format!("{}~{}", item.list, item.value)
        }))
    }

    async fn participants(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let limit = wire::limit(request)?;
        let (at_ms, buyer) = match request.parameter("cursor") {
            None => (-1_i64, ""),
            Some(cursor) => {
                let (at_ms, buyer) = cursor.split_once('~').ok_or_else(bad_cursor)?;
                (at_ms.parse().map_err(|_| bad_cursor())?, buyer)
            }
        };
        let verdict = request.parameter("verdict");
        let sql = match verdict {
            None => queries::LIST_PARTICIPANTS,
            Some("ALLOW") => queries::LIST_PARTICIPANTS_CLEAR,
            Some("REVIEW" | "DENY") => queries::LIST_PARTICIPANTS_OF,
            Some(_) => {
                let detail = "the parameter verdict is not ALLOW, REVIEW or DENY";
                return Err(SideProblem::malformed(detail).into());
            }
        };
        let mut select = query(sql)
            .bind(request.path[0].clone())
            .bind(at_ms)
            .bind(buyer.to_owned())
            .bind(limit + 1);
        if let Some(verdict @ ("REVIEW" | "DENY")) = verdict {
            select = select.bind(verdict.to_owned());
        }
        let rows = self.shop.database.read().await?.rows(select).await?;
        let items: Result<Vec<_>, SqlError> = rows.iter().map(participant_item).collect();
        Ok(wire::page(items?, limit, |item| {
            format!("{}~{}", item.joined_at.0, item.buyer)
        }))
    }
}

async fn sign_it_up(tx: &mut Tx, request: &SideRequest) -> Result<SideAnswer, SideError> {
    let body: SignUp = wire::body(request)?;
    let buyer = wire::buyer(request)?;
    let scope = format!("POST sign-ups|{}|{}", request.path[0], buyer.as_str());
    let key = wire::key(request)?;
    let taken = match command::take(tx, &scope, key, &request.body, request.now).await? {
        Take::Fresh(taken) => taken,
        Take::Replay(answer) => return Ok(answer),
    };
    let campaign = life::find(tx, &request.path[0]).await?;
    let campaign = campaign.ok_or(SideError::from(EntryRefusal::NoSuchCampaign))?;
    let (is_first, done_at) = sign_up(tx, &campaign, buyer, &body.task, request.now).await?;
    let done = SignUpDone {
        campaign: campaign.id,
        task: body.task,
        done_at,
    };
    let answer = SideAnswer::json(if is_first { 201 } else { 200 }, &done);
    taken.answered(tx, &answer).await?;
    Ok(answer)
}

impl SideService for EntryService {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<SignUp>("SignUp"),
            wire::schema::<SignUpDone>("SignUpDone"),
            wire::schema::<BlockReason>("BlockReason"),
            wire::schema::<Blocked>("Blocked"),
            wire::schema::<BlockItem>("BlockItem"),
            wire::schema::<BlockPage>("BlockPage"),
            wire::schema::<ParticipantItem>("ParticipantItem"),
            wire::schema::<ParticipantPage>("ParticipantPage"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move { self.run(&request).await.map_err(SideError::into_problem) })
    }
}

fn bad_cursor() -> SideProblem {
    SideProblem::malformed("the parameter cursor is not one that this list gave")
}

fn block_item(row: &Row) -> Result<BlockItem, SqlError> {
    Ok(BlockItem {
        list: row.text("list")?,
        value: row.text("value")?,
        reason: row.text("reason")?,
        who: row.text("who")?,
        at: Timestamp(row.int("at_ms")?),
    })
}

fn participant_item(row: &Row) -> Result<ParticipantItem, SqlError> {
    Ok(ParticipantItem {
        buyer: row.text("buyer")?,
        joined_at: Timestamp(row.int("joined_at_ms")?),
        is_new: row.is("is_new")?,
        version: row.int("version")?,
        verdict: row
            .text_or_null("verdict")?
            .unwrap_or_else(|| "ALLOW".to_owned()),
        is_address_known: row.text_or_null("address_hash")?.is_some(),
        is_device_known: row.text_or_null("device_hash")?.is_some(),
        is_phone_verified: row.text_or_null("phone_hash")?.is_some(),
    })
}
