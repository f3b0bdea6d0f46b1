//! What looked wrong, what was refused, what buyers were told.

use flash_types::side::BoxFuture;
use serde_json::{Map, Value, json};
use side_books::sql::{Reader, SqlError, query};

use super::{Campaign, Day, Figures, Section, grouped, integers};

/// Verdicts by rule: those that count, and those of the shadow mode.
pub(super) struct Verdicts;

/// In: campaign, from, until, shadow or not. Out: verdicts found that day by rule and word.
const FOUND: &str = "SELECT rule || '.' || verdict AS name, COUNT(*) AS number FROM risk_verdict \
     WHERE campaign = $1 AND found_at_ms >= $2 AND found_at_ms < $3 AND is_shadow = $4 GROUP BY rule, verdict";
/// In: campaign, from, until. Out: words of people that day.
const DECIDED: &str = "SELECT decision AS name, COUNT(*) AS number FROM risk_decision \
     WHERE campaign = $1 AND at_ms >= $2 AND at_ms < $3 GROUP BY decision";

impl Figures for Verdicts {
    fn name(&self) -> &'static str {
        "verdicts"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let mut section = Map::new();
            for (name, is_shadow) in [("found", 0i64), ("found_in_shadow", 1)] {
                let statement = query(FOUND)
                    .bind(campaign.id.clone())
                    .bind(day.from.0)
                    .bind(day.until.0)
                    .bind(is_shadow);
                section.insert(name.to_owned(), grouped(reads, statement).await?);
            }
            let statement = query(DECIDED)
                .bind(campaign.id.clone())
                .bind(day.from.0)
                .bind(day.until.0);
            section.insert("decided".to_owned(), grouped(reads, statement).await?);
            Ok(section)
        })
    }
}

/// Refusals that were noted, by their outcome.
pub(super) struct Refusals;

/// In: campaign, from, until. Out: refusals of that day by outcome.
const REFUSED: &str = "SELECT outcome AS name, COUNT(*) AS number FROM refusal \
     WHERE campaign = $1 AND at_ms >= $2 AND at_ms < $3 GROUP BY outcome";

impl Figures for Refusals {
    fn name(&self) -> &'static str {
        "refusals"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let statement = query(REFUSED)
                .bind(campaign.id.clone())
                .bind(day.from.0)
                .bind(day.until.0);
            let mut section = Map::new();
            section.insert("by_outcome".to_owned(), grouped(reads, statement).await?);
            Ok(section)
        })
    }
}

/// Notices that left the house, by kind.
pub(super) struct Notices;

/// In: campaign, from, until. Out: notices sent that day by kind.
const SENT: &str = "SELECT kind AS name, COUNT(*) AS number FROM notice \
     WHERE subject = 'campaign:' || $1 AND sent_at_ms >= $2 AND sent_at_ms < $3 GROUP BY kind";
/// In: campaign, from, until. Out: notices opened that day by kind.
const OPENED: &str = "SELECT kind AS name, COUNT(*) AS number FROM notice \
     WHERE subject = 'campaign:' || $1 AND opened_at_ms >= $2 AND opened_at_ms < $3 GROUP BY kind";

impl Figures for Notices {
    fn name(&self) -> &'static str {
        "notices"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let mut section = Map::new();
            for (name, sql) in [("sent", SENT), ("opened", OPENED)] {
                let statement = query(sql)
                    .bind(campaign.id.clone())
                    .bind(day.from.0)
                    .bind(day.until.0);
                section.insert(name.to_owned(), grouped(reads, statement).await?);
            }
            Ok(section)
        })
    }
}

/// Figures that somebody should look at, each with its number; empty on a quiet day.
pub(super) struct Anomalies;

/// In: campaign, from, until. Out: what is judged.
const JUDGED: &str = "SELECT \
     CAST((SELECT COUNT(*) FROM participant WHERE campaign = $1 AND joined_at_ms >= $2 AND joined_at_ms < $3) AS BIGINT) \
       AS joined, \
     CAST((SELECT COUNT(*) FROM refusal WHERE campaign = $1 AND at_ms >= $2 AND at_ms < $3) AS BIGINT) AS refused, \
     CAST((SELECT COUNT(*) FROM risk_verdict WHERE campaign = $1 AND found_at_ms >= $2 AND found_at_ms < $3) AS BIGINT) \
       AS verdicts, \
     CAST((SELECT COUNT(*) FROM notice WHERE subject = 'campaign:' || $1 AND state = 'GIVEN_UP' AND due_at_ms >= $2 AND due_at_ms < $3) \
       AS BIGINT) AS notices_given_up";

impl Figures for Anomalies {
    fn name(&self) -> &'static str {
        "anomalies"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let statement = query(JUDGED)
                .bind(campaign.id.clone())
                .bind(day.from.0)
                .bind(day.until.0);
            let names = ["joined", "refused", "verdicts", "notices_given_up"];
            let judged = integers(reads, statement, &names).await?;
            let of = |name: &str| judged.get(name).and_then(Value::as_i64).unwrap_or(0);
            Ok(found(
                of("joined"),
                of("refused"),
                of("verdicts"),
                of("notices_given_up"),
            ))
        })
    }
}

/// More refusals than entries; a verdict for more than one entry in twenty; notices that could not be delivered.
fn found(joined: i64, refused: i64, verdicts: i64, notices_given_up: i64) -> Section {
    let mut section = Map::new();
    let mut add = |name: &str, is_so: bool, number: i64| {
        if is_so {
            section.insert(name.to_owned(), json!(number));
        }
    };
    add("more_refused_than_joined", refused > joined, refused);
    let is_often = verdicts > 0 && verdicts.saturating_mul(20) > joined;
    add("many_verdicts", is_often, verdicts);
    add("notices_given_up", notices_given_up > 0, notices_given_up);
    section
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_day_has_no_anomalies() {
        assert!(found(0, 0, 0, 0).is_empty());
        assert!(found(100, 100, 5, 0).is_empty());
        assert_eq!(found(100, 101, 6, 1).len(), 3);
    }
}
