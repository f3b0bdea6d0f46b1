//! What a rehearsal showed: the report, the findings about the rules, the verdict about the machine.

use std::path::Path;

use crowd::behaviour::Summary;
use flash_front::{RehearsalReport, RehearsedItem};
use flash_types::SaleDefinition;

use super::Played;

/// The machine holds a crowd of which at most one call in so many was late, unanswered or sent away by overload.
const ONE_IN: u64 = 100;
/// Outcomes that tell of a machine at its end, not of a sale's rules.
const OVERLOADS: [&str; 4] = [
    "overloaded",
    "store_unavailable",
    "storage_full",
    "internal",
];

pub(super) fn report(
    played: &Played,
    summary: &Summary,
    items: Vec<RehearsedItem>,
    beside: &Path,
) -> RehearsalReport {
    let overloads = OVERLOADS.map(|word| summary.refused.get(word).copied().unwrap_or(0));
    let overloaded = overloads.iter().sum::<u64>() + summary.unknown;
    let calls = summary.answered + summary.unanswered;
    let in_time = summary.answered - summary.answered_late;
    let absent = u64::from(played.buyers).saturating_sub(summary.buyers);
    let deadline_ms = u64::try_from(played.deadline.as_millis()).unwrap_or(u64::MAX);
    let bad = summary.answered_late + summary.unanswered + overloaded;
    // Who never got to ask, although units were left, was kept from it by a generator that waited for answers.
    let is_sold_out = items.iter().all(|item| item.left_units == 0);
    let kept_away = if is_sold_out { 0 } else { absent };
    let holds = bad * ONE_IN <= calls && kept_away * ONE_IN <= u64::from(played.buyers);
    let mut findings = of_rules(&played.definition, played.buyers, &items);
    if summary.answered_late + summary.unanswered > 0 {
        findings.push(format!(
            "{in_time} of {calls} calls were answered within {deadline_ms} ms{}",
            if holds {
                ""
            } else {
                ": the crowd is larger than what this machine answers"
            }
        ));
    }
    let reason = if holds {
        format!(
            "{in_time} of {calls} calls were answered within {deadline_ms} ms, {overloaded} were sent away by overload"
        )
    } else {
        format!(
            "of {calls} calls {} were answered too late, {} not at all, {overloaded} were sent away by overload or left \
             unknown; {kept_away} buyers did not get to ask",
            summary.answered_late, summary.unanswered
        )
    };
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    RehearsalReport {
        sale_id: played.definition.sale_id.to_string(),
        holds,
        reason,
        buyers: summary.buyers,
        buyers_served: summary.buyers_served,
        seconds: played.seconds,
        attempts: summary.asked,
        refused: summary.refused.clone(),
        answered: summary.answered,
        answered_in_time: in_time,
        unanswered: summary.unanswered,
        deadline_ms,
        peak_per_s: summary.peak_per_s,
        mean_per_s: summary.rate_per_s,
        p50_ms: ms(summary.p50),
        p99_ms: ms(summary.p99),
        items,
        findings,
        disk: beside.display().to_string(),
    }
}

/// What the rules themselves say, whatever the machine does.
fn of_rules(sale: &SaleDefinition, buyers: u32, items: &[RehearsedItem]) -> Vec<String> {
    let mut findings = Vec::new();
    for item in &sale.items {
        let (name, stock) = (&item.item, u64::from(item.stock_units));
        match item.units_per_buyer_max {
            Some(max) => {
                let most = u64::from(max) * u64::from(buyers);
                if most < stock {
                    findings.push(format!(
                        "{name}: units_per_buyer_max {max} makes {} of {stock} units unsellable to {buyers} buyers",
                        stock - most
                    ));
                }
            }
            None => findings.push(format!(
                "{name}: no limit per buyer, one can take all of it"
            )),
        }
    }
    let length_s = (sale.ends_at.0 - sale.starts_at.0) / 1_000;
    if i64::from(sale.payment_window_s) >= length_s {
        findings.push(format!(
            "the payment window ({} s) is as long as the sale ({length_s} s) or longer: what is not paid comes back \
             after its end",
            sale.payment_window_s
        ));
    }
    for item in items.iter().filter(|item| item.left_units > 0) {
        findings.push(format!("{}: {} units are left", item.item, item.left_units));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_cannot_work_are_found() {
        let sale: SaleDefinition = serde_json::from_value(serde_json::json!({
            "sale_id": "s", "title": "S", "currency": "CNY", "payment_window_s": 60,
            "starts_at": "2026-11-11T12:00:00Z", "ends_at": "2026-11-11T12:01:00Z",
            "items": [
                {"item": "few", "title": "F", "sale_price_minor": 1, "stock_units": 10, "units_per_buyer_max": 2},
                {"item": "free", "title": "F", "sale_price_minor": 1, "stock_units": 10},
            ],
        }))
        .unwrap();
        let found = of_rules(&sale, 4, &[]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("makes 2 of 10 units unsellable"));
        assert!(found[1].contains("no limit per buyer"));
        assert!(found[2].contains("payment window"));
        assert_eq!(of_rules(&sale, 5, &[]).len(), 2);
    }
}
