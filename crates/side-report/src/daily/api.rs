//! Reports over HTTP: one day, one version, as JSON or CSV; notes beside them.

use std::fmt::Write as _;
use std::sync::Arc;

use flash_types::side::{
    BoxFuture, SideAnswer, SideEndpoint, SidePort, SideProblem, SideRequest, SideService, SideWho,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use side_books::SideError;
use side_books::note::{self, Note};
use side_books::sql::{Get as _, Reads as _, query};
use side_books::wire;
use side_campaign::life::{self, Campaign};
use side_campaign::shop::Shop;
use side_campaign::state::State;
use utoipa::ToSchema;

use super::{Day, Report, Sources, make, written};

/// Longest note, bytes.
const NOTE_BYTES_MAX: usize = 4_000;
/// Most notes of a day.
const NOTES_MAX: i64 = 200;

static ENDPOINTS: &[SideEndpoint] = &[
    SideEndpoint {
        port: SidePort::Admin,
        path: "/v1/admin/campaigns/{campaign}/report",
        who: SideWho::Viewer,
        summary: "Figures of a day, today where none is named; with version as they were told then; \
                  format=csv gives one figure a row: section,figure,group,value",
        query: &["date", "version", "format"],
        answers: &[(200, "DailyReport")],
        problems: &[(404, "not_found"), (409, "state_conflict")],
        ..SideEndpoint::BASE
    },
    SideEndpoint {
        port: SidePort::Admin,
        method: "POST",
        path: "/v1/admin/campaigns/{campaign}/report-notes",
        who: SideWho::Merchant,
        summary: "Writes a note beside the report of a day, for the next one",
        body: Some("DailyReportNoteBody"),
        answers: &[(201, "DailyReportNote")],
        problems: &[(404, "not_found")],
        ..SideEndpoint::BASE
    },
];

/// A report with the notes of its day.
#[derive(Debug, Serialize, ToSchema)]
struct DailyReport {
    campaign_id: String,
    /// Day in the campaign's zone.
    date: String,
    /// Ascends whenever the figures of that day became others.
    version: i64,
    /// RFC 3339: records up to here are in it.
    watermark: String,
    /// SHA-256 of the figures as JSON with sorted keys and no spaces.
    hash: String,
    /// Section, figure, value; amounts end with `_minor`.
    figures: serde_json::Map<String, Value>,
    made_at: String,
    notes: Vec<DailyReportNote>,
}

/// A note beside a report.
#[derive(Debug, Serialize, ToSchema)]
struct DailyReportNote {
    date: String,
    who: String,
    text: String,
    at: String,
}

/// A note to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DailyReportNoteBody {
    /// `2026-11-11`.
    date: String,
    /// 1-4,000 bytes.
    text: String,
}

/// The reports of all campaigns.
pub(super) struct Reports {
    shop: Arc<Shop>,
    sources: Sources,
}

impl SideService for Reports {
    fn endpoints(&self) -> &'static [SideEndpoint] {
        ENDPOINTS
    }

    fn schemas(&self) -> Vec<(&'static str, Value)> {
        vec![
            wire::schema::<DailyReport>("DailyReport"),
            wire::schema::<DailyReportNote>("DailyReportNote"),
            wire::schema::<DailyReportNoteBody>("DailyReportNoteBody"),
        ]
    }

    fn answer(&self, request: SideRequest) -> BoxFuture<'_, Result<SideAnswer, SideProblem>> {
        Box::pin(async move {
            let answered = match request.endpoint {
                0 => self.report(&request).await,
                _ => self.write_note(&request).await,
            };
            answered.map_err(SideError::into_problem)
        })
    }
}

impl Reports {
    pub(super) fn new(shop: Arc<Shop>, sources: Sources) -> Self {
        Self { shop, sources }
    }

    async fn report(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let is_csv = match request.parameter("format") {
            None | Some("json") => false,
            Some("csv") => true,
            Some(_) => {
                return Err(
                    SideProblem::malformed("the parameter format is not json or csv").into(),
                );
            }
        };
        let campaign = self.campaign(&request.path[0]).await?;
        if matches!(campaign.state, State::Draft | State::Cancelled) {
            let why = "a campaign that was never published has no report";
            return Err(SideProblem::new(409, "state_conflict", why).into());
        }
        let zone = written::zone_of(&campaign);
        let day = match request.parameter("date") {
            Some(text) => day_of(text, &zone)?,
            None => Day::at(request.now, &zone).ok_or_else(bad_date)?,
        };
        if day.from > request.now {
            return Err(SideProblem::malformed("the parameter date lies in the future").into());
        }
        let report = match request.parameter("version") {
            Some(text) => self.version(&campaign, &day, text).await?,
            None => make(&self.shop, &self.sources, &campaign, &day, request.now).await?,
        };
        if is_csv {
            return Ok(SideAnswer {
                status: 200,
                content_type: "text/csv; charset=utf-8",
                body: csv(&report).into_bytes(),
                is_replay: false,
                location: None,
            });
        }
        let notes = self.notes(&campaign.id, &report.date).await?;
        let shown = DailyReport {
            campaign_id: report.campaign_id,
            date: report.date,
            version: report.version,
            watermark: report.watermark.to_string(),
            hash: report.hash,
            figures: report.figures,
            made_at: report.made_at.to_string(),
            notes,
        };
        Ok(SideAnswer::json(200, &shown))
    }

    async fn campaign(&self, campaign_id: &str) -> Result<Campaign, SideError> {
        let mut reader = self.shop.database.read().await?;
        let campaign = life::find(&mut reader, campaign_id).await?;
        Ok(campaign.ok_or_else(|| SideProblem::not_found("campaign"))?)
    }

    async fn version(
        &self,
        campaign: &Campaign,
        day: &Day,
        text: &str,
    ) -> Result<Report, SideError> {
        let version = text.parse().ok().filter(|version| *version >= 1);
        let bad = || SideProblem::malformed("the parameter version is not a number from 1");
        let version: i64 = version.ok_or_else(bad)?;
        let mut reader = self.shop.database.read().await?;
        let date = day.date.to_string();
        let report = written::of_version(&mut reader, &campaign.id, &date, version).await?;
        Ok(report.ok_or_else(|| SideProblem::not_found("version of this report"))?)
    }

    async fn notes(
        &self,
        campaign_id: &str,
        date: &str,
    ) -> Result<Vec<DailyReportNote>, SideError> {
        let select = query(
            "SELECT who, text, at_ms FROM report_note WHERE campaign = $1 AND date = $2 ORDER BY id LIMIT $3",
        );
        let select = select
            .bind(campaign_id.to_owned())
            .bind(date.to_owned())
            .bind(NOTES_MAX);
        let mut notes = Vec::new();
        for row in self.shop.database.read().await?.rows(select).await? {
            notes.push(DailyReportNote {
                date: date.to_owned(),
                who: row.text("who")?,
                text: row.text("text")?,
                at: flash_types::Timestamp(row.int("at_ms")?).to_string(),
            });
        }
        Ok(notes)
    }

    async fn write_note(&self, request: &SideRequest) -> Result<SideAnswer, SideError> {
        let body: DailyReportNoteBody = wire::body(request)?;
        let campaign = self.campaign(&request.path[0]).await?;
        let day = day_of(&body.date, &written::zone_of(&campaign))?;
        if body.text.is_empty() || body.text.len() > NOTE_BYTES_MAX {
            return Err(SideProblem::malformed("text is not 1-4000 bytes").into());
        }
        let mut tx = self.shop.database.begin().await?;
        let who = wire::who(request);
        // The bound is a condition of the insert, so that many at once cannot pass it together.
        let insert = query(
            "INSERT INTO report_note (campaign, date, who, text, at_ms) \
             SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS BIGINT) \
             WHERE (SELECT COUNT(*) FROM report_note WHERE campaign = $1 AND date = $2) < $6",
        );
        let insert = insert
            .bind(campaign.id.clone())
            .bind(day.date.to_string())
            .bind(who.to_owned())
            .bind(body.text.clone())
            .bind(request.now.0)
            .bind(NOTES_MAX);
        if tx.execute(insert).await? == 0 {
            tx.rollback().await;
            let why = "this day has 200 notes already";
            return Err(SideProblem::new(409, "state_conflict", why).into());
        }
        let written = Note {
            who,
            what: "report.note",
            campaign: Some(&campaign.id),
            subject: Some(&body.date),
            detail: "",
        };
        note::write(&mut tx, &written, request.now).await?;
        tx.commit().await?;
        let shown = DailyReportNote {
            date: day.date.to_string(),
            who: who.to_owned(),
            text: body.text,
            at: request.now.to_string(),
        };
        Ok(SideAnswer::json(201, &shown))
    }
}

fn day_of(text: &str, zone: &jiff::tz::TimeZone) -> Result<Day, SideError> {
    let date: jiff::civil::Date = text.parse().map_err(|_| bad_date())?;
    // `2026-11-11T10:00` is a date to jiff, but not to us.
    if text.len() != 10 {
        return Err(bad_date().into());
    }
    Ok(Day::of(date, zone).ok_or_else(bad_date)?)
}

fn bad_date() -> SideProblem {
    SideProblem::malformed("date is not a day such as 2026-11-11")
}

/// One figure a row; what is grouped has the group's name in the third column.
fn csv(report: &Report) -> String {
    let mut text = String::from("section,figure,group,value\n");
    // Writing to a text cannot fail.
    let mut row = |section: &str, figure: &str, group: &str, value: &Value| {
        let text_of = |text: &str| text.to_owned();
        let value = value.as_str().map_or_else(|| value.to_string(), text_of);
        let cells = [section, figure, group, &value].map(quoted);
        let _ = writeln!(text, "{}", cells.join(","));
    };
    let version = json!(report.version);
    row("report", "campaign_id", "", &json!(report.campaign_id));
    row("report", "date", "", &json!(report.date));
    row("report", "version", "", &version);
    row("report", "watermark", "", &json!(report.watermark));
    row("report", "hash", "", &json!(report.hash));
    for (section, figures) in &report.figures {
        for (figure, value) in figures.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(groups) => {
                    for (group, value) in groups {
                        row(section, figure, group, value);
                    }
                }
                None => row(section, figure, "", value),
            }
        }
    }
    text
}

/// A cell; what a spreadsheet would take for a formula or a separator is quoted.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '@', '\t'])
        || (cell.starts_with('-') && cell.parse::<i64>().is_err());
    let guard = if is_formula { "'" } else { "" };
    if is_formula || cell.contains([',', '"', '\n', '\r']) {
        format!("\"{guard}{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}
