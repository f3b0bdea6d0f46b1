//! Versions of reports: made from one snapshot, found again.

use flash_types::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use side_books::SideError;
use side_books::command::hex;
use side_books::sql::{Get as _, Reads, SqlError, query};
use side_campaign::life::Campaign;
use side_campaign::shop::Shop;

use super::{Day, Sources};

/// A version of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Of which campaign.
    pub campaign_id: String,
    /// Of which day in its zone.
    pub date: String,
    /// 1, 2, 3 …
    pub version: i64,
    /// Records up to here are in it.
    pub watermark: Timestamp,
    /// SHA-256 of the figures as JSON with sorted keys and no spaces, hexadecimal.
    pub hash: String,
    /// By section.
    pub figures: Map<String, Value>,
    /// When it was made.
    pub made_at: Timestamp,
}

/// In: campaign, date, version, watermark, hash, figures, made at. Out: touched rows.
const INSERT: &str = "INSERT INTO daily_report \
     (campaign, date, version, watermark_ms, hash, figures, made_at_ms) \
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
/// In: campaign, date. Out: the latest version.
const LAST: &str = "SELECT version, watermark_ms, hash, figures, made_at_ms FROM daily_report \
     WHERE campaign = $1 AND date = $2 ORDER BY version DESC LIMIT 1";
/// In: campaign, date, version. Out: that version.
const OF_VERSION: &str = "SELECT version, watermark_ms, hash, figures, made_at_ms FROM daily_report \
     WHERE campaign = $1 AND date = $2 AND version = $3";

/// Reads the figures of a day and writes them down as a new version, unless they are those of the last one, which is given
/// then with the watermark that it has.
///
/// # Errors
/// The database's; a conflict where another one wrote the same version at the same moment.
///
/// # Cancel safety
/// A version is written or not.
pub async fn make(
    shop: &Shop,
    sources: &Sources,
    campaign: &Campaign,
    day: &Day,
    now: Timestamp,
) -> Result<Report, SideError> {
    let mut figures = Map::new();
    let mut snapshot = shop.database.snapshot().await?;
    for source in sources.iter() {
        let section = source.figures(&mut snapshot, campaign, day).await?;
        figures.insert(source.name().to_owned(), Value::Object(section));
    }
    let last = last(&mut snapshot, &campaign.id, day).await?;
    drop(snapshot);
    let text = Value::Object(figures.clone()).to_string();
    let hash = hex(&Sha256::digest(text.as_bytes()));
    if let Some(last) = last.as_ref().filter(|last| last.hash == hash) {
        return Ok(last.clone());
    }
    let report = Report {
        campaign_id: campaign.id.clone(),
        date: day.date.to_string(),
        version: last.map_or(1, |last| last.version + 1),
        watermark: now,
        hash,
        figures,
        made_at: now,
    };
    let mut tx = shop.database.begin().await?;
    let insert = query(INSERT)
        .bind(report.campaign_id.clone())
        .bind(report.date.clone())
        .bind(report.version)
        .bind(report.watermark.0)
        .bind(report.hash.clone())
        .bind(text)
        .bind(now.0);
    if tx.execute(insert).await? == 0 {
        tx.rollback().await;
        return Err(SqlError::Conflict.into());
    }
    tx.commit().await?;
    Ok(report)
}

/// The latest version of a day's report.
pub(super) async fn last(
    reads: &mut impl Reads,
    campaign_id: &str,
    day: &Day,
) -> Result<Option<Report>, SideError> {
    let date = day.date.to_string();
    let select = query(LAST).bind(campaign_id.to_owned()).bind(date.clone());
    let row = reads.row(select).await?;
    row.map(|row| of_row(campaign_id, &date, &row)).transpose()
}

/// A version of a day's report.
pub(super) async fn of_version(
    reads: &mut impl Reads,
    campaign_id: &str,
    date: &str,
    version: i64,
) -> Result<Option<Report>, SideError> {
    let select = query(OF_VERSION)
        .bind(campaign_id.to_owned())
        .bind(date.to_owned())
        .bind(version);
    let row = reads.row(select).await?;
    row.map(|row| of_row(campaign_id, date, &row)).transpose()
}

fn of_row(campaign_id: &str, date: &str, row: &side_books::sql::Row) -> Result<Report, SideError> {
    let figures = serde_json::from_str(&row.text("figures")?);
    Ok(Report {
        campaign_id: campaign_id.to_owned(),
        date: date.to_owned(),
        version: row.int("version")?,
        watermark: Timestamp(row.int("watermark_ms")?),
        hash: row.text("hash")?,
        figures: figures
            .map_err(|error| SqlError::Broken(format!("a report's figures: {error}")))?,
        made_at: Timestamp(row.int("made_at_ms")?),
    })
}

/// The zone of a campaign's days; it was checked when the campaign was written.
pub(super) fn zone_of(campaign: &Campaign) -> TimeZone {
    TimeZone::get(&campaign.definition.zone).unwrap_or(TimeZone::UTC)
}
