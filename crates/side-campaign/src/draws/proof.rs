//! Pages of the proof file, made from the records.

use flash_types::side::SideProblem;
use serde_json::Value;
use side_books::SideError;
use side_books::sql::{Get as _, Reads, Row, SqlError, query};

use super::file::{FORMAT, ProofDraw, ProofFile, ProofRoot, ProofTicket, ProofVersion};
use super::{queries, winners};
use crate::life::{self, Campaign};

/// Where a page goes on: behind an element of a list. Written `<letter>~<name>~<number>`: ids have no `~`, and it needs no
/// encoding in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    part: Part,
    name: String,
    number: i64,
}

/// The lists of a file, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Tickets,
    Draws,
    Winners,
}

impl Cursor {
    fn start(part: Part) -> Self {
        Self {
            part,
            name: String::new(),
            number: -1,
        }
    }

    fn parse(text: &str) -> Result<Self, SideProblem> {
        let bad = || {
            SideProblem::malformed("the parameter cursor is none that a page gave as next_cursor")
        };
        let mut parts = text.split('~');
        let part = match parts.next() {
            Some("t") => Part::Tickets,
            Some("d") => Part::Draws,
            Some("w") => Part::Winners,
            Some(_) | None => return Err(bad()),
        };
        let (name, number) = parts.next().zip(parts.next()).ok_or_else(bad)?;
        let number = number.parse().ok().filter(|number| *number >= -1);
        let number = number.filter(|_| parts.next().is_none() && name.len() <= 64);
        Ok(Self {
            part,
            name: name.to_owned(),
            number: number.ok_or_else(bad)?,
        })
    }

    fn text(&self) -> String {
        let letter = match self.part {
            Part::Tickets => 't',
            Part::Draws => 'd',
            Part::Winners => 'w',
        };
        format!("{letter}~{}~{}", self.name, self.number)
    }
}

/// Campaigns after this one whose seed is revealed, by id, at most `limit`: their proofs are complete.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn revealed(
    reads: &mut impl Reads,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, SqlError> {
    let select = query(queries::REVEALED).bind(after.to_owned()).bind(limit);
    let rows = reads.rows(select).await?;
    rows.iter().map(|row| row.text("id")).collect()
}

/// A page of at most `limit` tickets, draws and winners. Without the seed until it is revealed, and without tickets until
/// then: those of a deck tell what comes.
///
/// # Errors
/// 400 for a cursor that is none; 404 where nothing was published; the database's.
///
/// # Cancel safety
/// A read.
pub async fn page(
    reads: &mut impl Reads,
    campaign: &Campaign,
    cursor: Option<&str>,
    limit: i64,
) -> Result<ProofFile, SideError> {
    let id = campaign.id.as_str();
    let after = cursor.map(Cursor::parse).transpose()?;
    let row = reads
        .row(query(queries::SEED).bind(id.to_owned()))
        .await?
        .ok_or_else(|| SideProblem::not_found("proof: the campaign was never published"))?;
    let mut file = ProofFile {
        format: FORMAT.to_owned(),
        campaign: id.to_owned(),
        kind: campaign.definition.kind.clone(),
        versions: Vec::new(),
        commitment: row.text("seed_hash")?,
        published_at_ms: row.int_or_null("published_at_ms")?.unwrap_or(0),
        root: row.text_or_null("root")?,
        seed: row.text_or_null("seed")?,
        roots: roots(reads, id).await?,
        tickets: Vec::new(),
        draws: Vec::new(),
        winners: Vec::new(),
        next_cursor: None,
    };
    if after.is_none() {
        file.versions = versions(reads, id).await?;
    }
    fill(
        reads,
        &mut file,
        after.unwrap_or(Cursor::start(Part::Tickets)),
        limit,
    )
    .await?;
    Ok(file)
}

/// List after list, until the page is full or the last has ended.
async fn fill(
    reads: &mut impl Reads,
    file: &mut ProofFile,
    mut at: Cursor,
    limit: i64,
) -> Result<(), SideError> {
    let mut room = limit;
    loop {
        // One more than there is room for tells whether the list goes on.
        let found = match at.part {
            Part::Tickets if file.seed.is_none() => 0,
            Part::Tickets => {
                let rows = list(reads, queries::TICKETS, &file.campaign, &at, room).await?;
                file.tickets = rows.iter().map(ticket).collect::<Result<_, _>>()?;
                rows.len()
            }
            Part::Draws => {
                let rows = list(reads, queries::DRAWS, &file.campaign, &at, room).await?;
                file.draws = rows.iter().map(draw).collect::<Result<_, _>>()?;
                rows.len()
            }
            Part::Winners => {
                let after = (at.name.as_str(), at.number);
                file.winners = winners::page(reads, &file.campaign, after, room + 1).await?;
                file.winners.len()
            }
        };
        let found = i64::try_from(found).unwrap_or(i64::MAX);
        if found > room {
            file.next_cursor = Some(cut(file, &at).text());
            return Ok(());
        }
        room -= found;
        at = match at.part {
            Part::Tickets => Cursor::start(Part::Draws),
            Part::Draws => Cursor::start(Part::Winners),
            Part::Winners => return Ok(()),
        };
    }
}

/// Takes off the one that was too many; where to go on is behind the last that stays, or where this list began.
fn cut(file: &mut ProofFile, began: &Cursor) -> Cursor {
    let last = match began.part {
        Part::Tickets => {
            file.tickets.pop();
            file.tickets.last().map(|it| (it.list.clone(), it.position))
        }
        Part::Draws => {
            file.draws.pop();
            file.draws.last().map(|it| (it.stream.clone(), it.sequence))
        }
        Part::Winners => {
            file.winners.pop();
            file.winners.last().map(|it| (it.list.clone(), it.rank))
        }
    };
    match last {
        Some((name, number)) => Cursor {
            part: began.part,
            name,
            number,
        },
        None => began.clone(),
    }
}

async fn list(
    reads: &mut impl Reads,
    sql: &'static str,
    campaign: &str,
    after: &Cursor,
    room: i64,
) -> Result<Vec<Row>, SideError> {
    let select = query(sql)
        .bind(campaign.to_owned())
        .bind(after.name.clone())
        .bind(after.number)
        .bind(room + 1);
    Ok(reads.rows(select).await?)
}

async fn versions(reads: &mut impl Reads, campaign: &str) -> Result<Vec<ProofVersion>, SideError> {
    let select = query(queries::VERSIONS).bind(campaign.to_owned());
    let rows = reads.rows(select).await?;
    let version = |row: &Row| {
        Ok(ProofVersion {
            version: row.int("version")?,
            at_ms: row.int("at_ms")?,
            definition: life::public_of_stored(
                &json(&row.text("definition")?)?,
                &row.text("private_hash")?,
            ),
            hash: row.text("rules_hash")?,
        })
    };
    Ok(rows.iter().map(version).collect::<Result<_, SqlError>>()?)
}

async fn roots(reads: &mut impl Reads, campaign: &str) -> Result<Vec<ProofRoot>, SideError> {
    let select = query(queries::ROOTS).bind(campaign.to_owned());
    let rows = reads.rows(select).await?;
    let root = |row: &Row| {
        Ok(ProofRoot {
            list: row.text("list")?,
            root: row.text("root")?,
            at_ms: row.int("at_ms")?,
        })
    };
    Ok(rows.iter().map(root).collect::<Result<_, SqlError>>()?)
}

fn ticket(row: &Row) -> Result<ProofTicket, SqlError> {
    Ok(ProofTicket {
        list: row.text("list")?,
        position: row.int("position")?,
        ticket: row.text("ticket")?,
        at_ms: row.int("at_ms")?,
    })
}

fn draw(row: &Row) -> Result<ProofDraw, SqlError> {
    Ok(ProofDraw {
        stream: row.text("stream")?,
        sequence: row.int("sequence")?,
        subject: row.text("subject")?,
        low: row.int("low")?,
        high: row.int("high")?,
        value: row.int("value")?,
        at_ms: row.int("at_ms")?,
        detail: json(&row.text("detail")?)?,
    })
}

fn json(text: &str) -> Result<Value, SqlError> {
    serde_json::from_str(text).map_err(|error| SqlError::Broken(format!("is no JSON: {error}")))
}
