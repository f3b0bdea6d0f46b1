//! The end of a giveaway, a bounded piece per call: tickets are listed in their order and the root published, then streams are
//! drawn one after another.
//!
//! Invariant: whatever a piece did is committed with how far it came, so a piece that is lost is made again as if it had never
//! begun, and none is made twice. Pieces of several workers wait for one another at the row of `giveaway_settling`.

use flash_types::{BuyerId, Timestamp};
use serde_json::json;
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, Row, SqlError, Tx, query};
use side_campaign::draws::{self, Draw, ListRoot, Record, Seed, Winner};
use side_campaign::entry;
use side_campaign::life::Campaign;

use super::join::state_of;
use super::rules::PrizeDraw;
use super::{Give, GiveawayRules, LIST, queries, reserve};
use crate::grants::Grant;

/// Most draws of a piece: each is about twenty statements.
pub(super) const DRAWS_PER_PIECE: i64 = 20;
/// How many tickets are listed in the time of a draw.
const TICKETS_PER_DRAW: i64 = 10;
/// Behind a ticket in the list whose participant was denied when it was listed, and so cannot win.
pub(super) const DENIED_MARK: &str = "-denied";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    List,
    Draw,
    Done,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::List => "LIST",
            Self::Draw => "DRAW",
            Self::Done => "DONE",
        }
    }

    fn parse(text: &str) -> Result<Self, SqlError> {
        let phase = [Self::List, Self::Draw, Self::Done]
            .into_iter()
            .find(|phase| phase.as_str() == text);
        phase.ok_or_else(|| SqlError::Broken(format!("{text:?} is no phase of a giveaway's end")))
    }
}

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    phase: Phase,
    listed: i64,
    /// Last ticket that was listed.
    last: (i64, String),
    root: ListRoot,
    /// Tickets that were drawn, of all streams.
    drawn: i64,
    stream_index: usize,
    /// Winners of that stream so far.
    stream_winners: i64,
}

/// A piece of at most `draws_max` draws, or the tickets that are listed in their time. `true`: there is nothing left to do.
///
/// # Cancel safety
/// The transaction is rolled back.
pub(super) async fn piece(
    tx: &mut Tx,
    give: &dyn Give,
    campaign: &Campaign,
    seed: &Seed,
    draws_max: i64,
    now: Timestamp,
) -> Result<bool, SideError> {
    // First of all in every piece, so that two of them never wait for one another. Who joins has this row to the end of his
    // transaction: he is in the list, or finds that the end has begun.
    entry::hold_entries(tx, &campaign.id).await?;
    let empty = ListRoot::new(seed, &campaign.id, LIST);
    let begin = query(queries::SETTLING_BEGIN)
        .bind(campaign.id.clone())
        .bind(empty.hex());
    if tx.execute(begin).await? == 1 {
        // From its commit on nobody joins.
        return Ok(false);
    }
    let mut progress = take(tx, &campaign.id).await?;
    match progress.phase {
        Phase::List => list(tx, campaign, &mut progress, draws_max, now).await?,
        Phase::Draw => {
            let progress = &mut progress;
            draw(tx, give, campaign, seed, (progress, draws_max), now).await?;
        }
        Phase::Done => return Ok(true),
    }
    put(tx, &campaign.id, &progress).await?;
    if progress.phase == Phase::Done {
        reserve::give_up(tx, &campaign.id, now).await?;
    }
    Ok(progress.phase == Phase::Done)
}

/// Lists tickets, and with each whether it may win: a verdict of later changes nothing in who does. The root is published
/// with the last of them, before anything is drawn.
async fn list(
    tx: &mut Tx,
    campaign: &Campaign,
    progress: &mut Progress,
    draws_max: i64,
    now: Timestamp,
) -> Result<(), SideError> {
    let tickets_max = draws_max.saturating_mul(TICKETS_PER_DRAW);
    let select = query(queries::TICKETS_AFTER)
        .bind(campaign.id.clone())
        .bind(progress.last.0)
        .bind(progress.last.1.clone())
        .bind(tickets_max);
    let rows = tx.rows(select).await?;
    for row in &rows {
        let (at_ms, ticket) = (row.int("joined_at_ms")?, row.text("ticket")?);
        let at = Timestamp(at_ms);
        let marked = if is_denied(row)? {
            format!("{ticket}{DENIED_MARK}")
        } else {
            ticket.clone()
        };
        draws::ticket(tx, &campaign.id, LIST, progress.listed, &marked, at).await?;
        progress.root.push(at_ms, &marked);
        progress.listed += 1;
        progress.last = (at_ms, ticket);
    }
    if i64::try_from(rows.len()).is_ok_and(|count| count == tickets_max) {
        return Ok(());
    }
    let row = tx
        .row(query(queries::COUNT).bind(campaign.id.clone()))
        .await?;
    let participations = row.ok_or(SqlError::Conflict)?.int("participations")?;
    if participations != progress.listed {
        let listed = progress.listed;
        let what = format!("{listed} of {participations} participants are in the list");
        return Err(SqlError::Broken(what).into());
    }
    let root = progress.root.hex();
    draws::publish_root(tx, &campaign.id, LIST, &root, now).await?;
    progress.phase = Phase::Draw;
    Ok(())
}

/// Draws of one stream, until it or the piece ends.
async fn draw(
    tx: &mut Tx,
    give: &dyn Give,
    campaign: &Campaign,
    seed: &Seed,
    (progress, draws_max): (&mut Progress, i64),
    now: Timestamp,
) -> Result<(), SideError> {
    let rules = GiveawayRules::parse(&campaign.definition.rules).map_err(SqlError::Broken)?;
    let Some(stream) = rules.draws.get(progress.stream_index) else {
        progress.phase = Phase::Done;
        return Ok(());
    };
    let reserved = reserve::take(tx, &campaign.id, &stream.stream, now).await?;
    let winners_before = progress.stream_winners;
    for _ in 0..draws_max {
        if is_over(progress, stream) {
            break;
        }
        draw_one(tx, give, campaign, seed, (stream, progress), now).await?;
    }
    let is_over = is_over(progress, stream);
    if let Some(reserved) = reserved {
        let given = progress.stream_winners - winners_before;
        let stream = &stream.stream;
        reserve::put_back(tx, &campaign.id, stream, reserved, given, is_over, now).await?;
    }
    if is_over {
        progress.stream_index += 1;
        progress.stream_winners = 0;
    }
    if progress.stream_index == rules.draws.len() {
        progress.phase = Phase::Done;
    }
    Ok(())
}

fn is_over(progress: &Progress, stream: &PrizeDraw) -> bool {
    progress.stream_winners >= stream.winners || progress.drawn >= progress.listed
}

/// Draws a ticket among those that are left: that of slot `drawn` and that of the drawn slot change places, so the first
/// `drawn` slots are those drawn so far (Fisher-Yates from the front).
async fn draw_one(
    tx: &mut Tx,
    give: &dyn Give,
    campaign: &Campaign,
    seed: &Seed,
    (stream, progress): (&PrizeDraw, &mut Progress),
    now: Timestamp,
) -> Result<(), SideError> {
    let sequence = draws::next(tx, &campaign.id, &stream.stream).await?;
    let (low, high) = (progress.drawn, progress.listed - 1);
    let value =
        Draw::new(seed, &campaign.id, &stream.stream, sequence.cast_unsigned()).integer(low, high);
    let position = swap(tx, &campaign.id, low, value).await?;
    progress.drawn += 1;
    let drawn = ticket_at(tx, &campaign.id, position).await?;
    let mut detail = json!({
        "version": campaign.version,
        "position": position,
        "reward": stream.reward,
    });
    if drawn.is_marked {
        detail["concluded"] = "passed_over".into();
        detail["reason"] = "denied".into();
    } else {
        // Who was denied since he was listed is a winner, whose prize is not given.
        let grant = Grant {
            source: &format!("draw:{}:{sequence}", stream.stream),
            reward: &stream.reward,
            buyer: drawn.buyer,
            order_id: None,
            verdict: drawn.verdict.as_deref(),
        };
        let granted = give.grant(tx, campaign, &grant, now).await?;
        progress.stream_winners += 1;
        detail["concluded"] = "winner".into();
        let winner = Winner {
            campaign: &campaign.id,
            list: &stream.stream,
            rank: progress.stream_winners,
            buyer: drawn.buyer.as_str(),
            score: None,
            reward: &stream.reward,
            state: state_of(&granted).0,
            proof: Some((&stream.stream, sequence)),
        };
        draws::announce(tx, &winner, now).await?;
    }
    let record = Record {
        campaign: &campaign.id,
        stream: &stream.stream,
        sequence,
        subject: &drawn.ticket,
        low,
        high,
        value,
        detail: &detail,
    };
    draws::record(tx, &record, now).await
}

/// What lies in slot `chosen` comes to `front` and the other way round; gives what came to the front.
async fn swap(tx: &mut Tx, campaign: &str, front: i64, chosen: i64) -> Result<i64, SideError> {
    let came = slot(tx, campaign, chosen).await?;
    let went = slot(tx, campaign, front).await?;
    if front != chosen {
        // The front is never looked at again.
        let put = query(queries::SLOT_PUT)
            .bind(campaign.to_owned())
            .bind(chosen)
            .bind(went);
        tx.execute(put).await?;
    }
    Ok(came)
}

async fn slot(tx: &mut Tx, campaign: &str, slot: i64) -> Result<i64, SideError> {
    let select = query(queries::SLOT).bind(campaign.to_owned()).bind(slot);
    match tx.row(select).await? {
        Some(row) => Ok(row.int("position")?),
        None => Ok(slot),
    }
}

struct Drawn {
    ticket: String,
    buyer: BuyerId,
    verdict: Option<String>,
    /// It was listed as one that cannot win.
    is_marked: bool,
}

fn is_denied(row: &Row) -> Result<bool, SqlError> {
    let verdict = row.text_or_null("verdict")?;
    Ok(verdict.is_some_and(|verdict| verdict.eq_ignore_ascii_case("deny")))
}

async fn ticket_at(tx: &mut Tx, campaign: &str, position: i64) -> Result<Drawn, SideError> {
    let select = query(queries::TICKET_AT)
        .bind(campaign.to_owned())
        .bind(LIST)
        .bind(position);
    let row = tx.row(select).await?;
    let row =
        row.ok_or_else(|| SqlError::Broken(format!("{campaign} has no ticket {position}")))?;
    let buyer = BuyerId::parse(&row.text("buyer")?)
        .map_err(|bad| SqlError::Broken(format!("a participant {bad}")))?;
    let ticket = row.text("ticket")?;
    Ok(Drawn {
        is_marked: ticket.ends_with(DENIED_MARK),
        ticket,
        buyer,
        verdict: row.text_or_null("verdict")?,
    })
}

async fn take(tx: &mut Tx, campaign: &str) -> Result<Progress, SideError> {
    let take = query(queries::SETTLING_TAKE).bind(campaign.to_owned());
    let row = tx.row(take).await?.ok_or(SqlError::Conflict)?;
    Ok(progress(&row)?)
}

fn progress(row: &Row) -> Result<Progress, SqlError> {
    let root = ListRoot::parse(&row.text("root")?);
    Ok(Progress {
        phase: Phase::parse(&row.text("phase")?)?,
        listed: row.int("listed")?,
        last: (row.int("listed_at_ms")?, row.text("listed_ticket")?),
        root: root.ok_or_else(|| SqlError::Broken("a root is none".to_owned()))?,
        drawn: row.int("drawn")?,
        stream_index: usize::try_from(row.int("stream_index")?).unwrap_or(usize::MAX),
        stream_winners: row.int("stream_winners")?,
    })
}

async fn put(tx: &mut Tx, campaign: &str, progress: &Progress) -> Result<(), SideError> {
    let update = query(queries::SETTLING_PUT)
        .bind(progress.phase.as_str())
        .bind(progress.listed)
        .bind(progress.last.0)
        .bind(progress.last.1.clone())
        .bind(progress.root.hex())
        .bind(progress.drawn)
        .bind(i64::try_from(progress.stream_index).unwrap_or(i64::MAX))
        .bind(progress.stream_winners)
        .bind(campaign.to_owned());
    tx.execute(update).await?;
    Ok(())
}
