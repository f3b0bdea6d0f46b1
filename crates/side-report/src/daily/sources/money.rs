//! The budget by its entries, how long it lasts, and what was meant to be reached.

use flash_types::side::BoxFuture;
use serde_json::{Map, Value, json};
use side_books::budget;
use side_books::sql::{Get as _, Reader, Reads as _, SqlError, query};

use super::{Campaign, Day, Figures, Section, basis_points, begins_at, integers};

/// One day.
const DAY_MS: i64 = 24 * 3_600_000;

/// The budget at the end of the day, from the entries, not from the cached balances.
pub(super) struct Budget;

/// In: campaign, until, from. Out: a row for each account of the budget, with its balance then and its change that day.
const ENTRIES: &str = "SELECT e.account, CAST(SUM(e.delta) AS BIGINT) AS balance, \
     CAST(SUM(CASE WHEN t.at_ms >= $3 THEN e.delta ELSE 0 END) AS BIGINT) AS change \
     FROM account a JOIN entry e ON e.account = a.id JOIN transfer t ON t.id = e.transfer \
     WHERE a.owner = $1 AND a.kind = 'budget' AND t.at_ms < $2 GROUP BY e.account";

impl Figures for Budget {
    fn name(&self) -> &'static str {
        "budget"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let statement = query(ENTRIES)
                .bind(campaign.id.clone())
                .bind(day.until.0)
                .bind(day.from.0);
            let mut parts = Map::new();
            let mut section = Map::new();
            for row in reads.rows(statement).await? {
                let account = row.text("account")?;
                for part in ["available", "held", "spent"] {
                    if account == budget::account(&campaign.id, part) {
                        parts.insert(part.to_owned(), json!(row.int("balance")?));
                        section.insert(format!("{part}_change_minor"), json!(row.int("change")?));
                    }
                }
            }
            let part = |name: &str| parts.get(name).and_then(Value::as_i64).unwrap_or(0);
            let (available, held, spent) = (part("available"), part("held"), part("spent"));
            section.insert("available_minor".into(), json!(available));
            section.insert("held_minor".into(), json!(held));
            section.insert("spent_minor".into(), json!(spent));
            section.insert("cap_minor".into(), json!(available + held + spent));
            let promised = held + spent;
            section.insert(
                "promised_bp".into(),
                basis_points(promised, available + promised),
            );
            let ran_ms = day.until.0 - begins_at(campaign).0;
            section.insert("days_left".into(), days_left(available, promised, ran_ms));
            Ok(section)
        })
    }
}

/// Whole days that what is available lasts if it goes on as it went from the start on; nothing where nothing went.
fn days_left(available: i64, promised: i64, ran_ms: i64) -> Value {
    if promised <= 0 || ran_ms <= 0 {
        return Value::Null;
    }
    let left_ms = i128::from(available) * i128::from(ran_ms) / i128::from(promised);
    let days = left_ms / i128::from(DAY_MS);
    json!(i64::try_from(days).unwrap_or(i64::MAX))
}

/// What was meant to be reached beside what was: of the names that are known here.
pub(super) struct Goals;

/// In: campaign, until, currency. Out: what goals are measured by, from the start on.
const REACHED: &str = "SELECT \
     CAST((SELECT COUNT(*) FROM participant WHERE campaign = $1 AND joined_at_ms < $2) AS BIGINT) AS participants, \
     CAST((SELECT COUNT(*) FROM participant WHERE campaign = $1 AND joined_at_ms < $2 AND is_new = 1) AS BIGINT) \
       AS new_buyers, \
     CAST(COUNT(o.id) AS BIGINT) AS orders, \
     CAST(COALESCE(SUM(o.paid_minor), 0) AS BIGINT) AS turnover_minor \
     FROM participant p JOIN shop_order o ON o.buyer = p.buyer AND o.paid_at_ms >= p.joined_at_ms \
     WHERE p.campaign = $1 AND o.paid_at_ms < $2 AND o.currency = $3";

impl Figures for Goals {
    fn name(&self) -> &'static str {
        "goals"
    }

    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>> {
        Box::pin(async move {
            let goals = &campaign.definition.goal;
            let mut section = Map::new();
            if goals.is_empty() {
                return Ok(section);
            }
            let statement = query(REACHED)
                .bind(campaign.id.clone())
                .bind(day.until.0)
                .bind(campaign.definition.currency.as_str().to_owned());
            let names = ["participants", "new_buyers", "orders", "turnover_minor"];
            let reached = integers(reads, statement, &names).await?;
            for (name, goal) in goals {
                let actual = reached.get(name).cloned().unwrap_or(Value::Null);
                let share = actual
                    .as_i64()
                    .map_or(Value::Null, |actual| basis_points(actual, *goal));
                let shown = json!({"goal": goal, "actual": actual, "reached_bp": share});
                section.insert(name.clone(), shown);
            }
            Ok(section)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_lasts_as_long_as_it_went_so_far() {
        assert_eq!(days_left(100, 0, DAY_MS), Value::Null);
        assert_eq!(days_left(100, 50, 0), Value::Null);
        assert_eq!(days_left(100, 50, DAY_MS), json!(2));
        assert_eq!(days_left(99, 50, DAY_MS), json!(1));
        assert_eq!(days_left(0, 50, DAY_MS), json!(0));
        assert_eq!(days_left(i64::MAX, 1, 365 * DAY_MS), json!(i64::MAX));
    }
}
