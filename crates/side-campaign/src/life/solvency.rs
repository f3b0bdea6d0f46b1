//! What a campaign can cost at most, held against its budget.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::refusal::Refusal;
use crate::definition::Definition;
use crate::kind::{Finding, Kinds, WorstCase};

/// Words by which a merchant lets a publish through that the check refuses.
pub(super) const ACCEPTABLE: [&str; 2] = ["insolvent", "unbounded"];

/// The worst case of the rules, and of plan B. They are not summed: the budget ends both, and what they can give is mostly
/// the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worst {
    /// Of the rules.
    #[serde(flatten)]
    pub rules: WorstCase,
    /// Of plan B, where there is one.
    pub plan_b: Option<WorstCase>,
}

/// Checks a whole definition, its rules and plan B by its kind.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn check(kinds: &Kinds, definition: &Definition) -> Result<Worst, Refusal> {
    let mut findings = definition.check();
    let Some(kind) = kinds.find(&definition.kind) else {
        let names = kinds.names().join(", ");
        let detail = format!("kind is none of {names}");
        findings.push(Finding::new("unknown_kind", "kind", detail));
        return Err(Refusal::Malformed(findings));
    };
    let rules = match kind.check(definition) {
        Ok(worst) => worst,
        Err(wrong) => {
            findings.extend(wrong);
            WorstCase::default()
        }
    };
    let plan_b = definition.plan_b.as_ref().map(|plan_b| {
        let mut switched = definition.clone();
        switched.rules = plan_b.clone();
        switched.plan_b = None;
        kind.check(&switched)
    });
    let plan_b = match plan_b {
        None => None,
        Some(Ok(worst)) => Some(worst),
        Some(Err(wrong)) => {
            for mut finding in wrong {
                if let Some(rest) = finding.field.strip_prefix("rules") {
                    finding.field = format!("plan_b{rest}");
                    finding.detail = format!("plan B: {}", finding.detail);
                } else if findings.contains(&finding) {
                    continue;
                }
                findings.push(finding);
            }
            Some(WorstCase::default())
        }
    };
    if findings.is_empty() {
        Ok(Worst { rules, plan_b })
    } else {
        Err(Refusal::Malformed(findings))
    }
}

/// Holds a worst case against a budget. Gives what was accepted, for the audit log.
///
/// # Errors
/// What is neither covered nor accepted.
pub(super) fn cover(
    worst: &Worst,
    budget_minor: i64,
    accept: &[String],
) -> Result<Vec<String>, Refusal> {
    if let Some(unknown) = accept
        .iter()
        .find(|code| !ACCEPTABLE.contains(&code.as_str()))
    {
        let detail = format!("accept: {unknown} is none of {}", ACCEPTABLE.join(", "));
        let finding = Finding::new("unknown_code", "accept", detail);
        return Err(Refusal::Malformed(vec![finding]));
    }
    let mut findings = Vec::new();
    let cases = [
        ("rules", Some(&worst.rules)),
        ("plan_b", worst.plan_b.as_ref()),
    ];
    for (field, case) in cases {
        let Some(case) = case else { continue };
        // Never less than its lines: a kind that sums wrongly does not get past this.
        let lines = case.lines.iter();
        let sum = lines.fold(0i64, |sum, line| sum.saturating_add(line.total_minor));
        let total = case.total_minor.max(sum);
        if total > budget_minor {
            let detail = format!(
                "{field} may cost {total}, {} more than the budget of {budget_minor}",
                total.saturating_sub(budget_minor)
            );
            findings.push(Finding::new("insolvent", field, detail));
        }
        for what in &case.unbounded {
            let detail = format!("nothing bounds it but the budget of {budget_minor}: {what}");
            findings.push(Finding::new("unbounded", field, detail));
        }
    }
    findings.sort_by_key(|finding| finding.code);
    let is_accepted = |finding: &Finding| accept.iter().any(|code| code == finding.code);
    if findings.iter().all(is_accepted) {
        let told = findings.iter();
        return Ok(told
            .map(|finding| format!("accepted {}: {}", finding.code, finding.detail))
            .collect());
    }
    Err(Refusal::Solvency {
        findings,
        worst: Box::new(worst.clone()),
        budget_minor,
    })
}
