//! Every no of the life of campaigns, and the one table that turns it into an answer.

use flash_types::side::SideProblem;
use serde_json::json;
use side_books::SideError;

use super::solvency::Worst;
use crate::kind::Finding;
use crate::state::State;

/// Why something is not done to a campaign.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No such campaign, or not for this caller.
    NotFound,
    /// The id is taken.
    Exists,
    /// It stands where this cannot be done.
    State { is: State, wanted: &'static str },
    /// The definition is wrong.
    Malformed(Vec<Finding>),
    /// Its end has passed.
    EndPassed,
    /// Another one of its kind is open at that time.
    NotAlone { other: String },
    /// It may cost more than its budget.
    Solvency {
        findings: Vec<Finding>,
        worst: Box<Worst>,
        budget_minor: i64,
    },
    /// A version that is not better for buyers.
    NotBetter(Vec<Finding>),
    /// A version that changes nothing.
    NoChange,
    /// Buyers have rewards of it that they may still use.
    HasGiven,
    /// There is no plan B.
    NoPlanB,
    /// Plan B is on.
    PlanBIsOn,
}

impl From<Refusal> for SideProblem {
    fn from(refusal: Refusal) -> Self {
        let conflict = |detail: String| Self::new(409, "state_conflict", detail);
        match refusal {
            Refusal::NotFound => Self::not_found("campaign"),
            Refusal::Exists => conflict(
                "there is a campaign of that id: PUT replaces it while it is a draft, or choose another id".to_owned(),
            ),
            Refusal::State { is, wanted } => conflict(format!(
                "the campaign is {}, and this needs {wanted}",
                is.as_str()
            ))
            .with("state", is.as_str()),
            Refusal::Malformed(findings) => {
                let told: Vec<&str> = findings.iter().map(|found| &*found.detail).collect();
                Self::malformed(told.join("; ")).with("findings", json!(findings))
            }
            Refusal::EndPassed => conflict(
                "its end has passed: PUT a later ends_at first".to_owned(),
            ),
            Refusal::NotAlone { other } => conflict(format!(
                "{other} of the same kind is open at that time, and only one may be: end that one, or begin after its end"
            ))
            .with("campaign_id", other),
            Refusal::Solvency {
                findings,
                worst,
                budget_minor,
            } => {
                let mut codes: Vec<&str> = findings.iter().map(|found| found.code).collect();
                codes.dedup();
                let detail = format!(
                    "it may cost more than its budget of {budget_minor}: change rules or budget, or accept {}",
                    codes.join(", ")
                );
                Self::new(409, "solvency", detail)
                    .with("worst_case", json!(worst))
                    .with("budget_minor", budget_minor)
                    .with("findings", json!(findings))
            }
            Refusal::NotBetter(findings) => {
                let fields: Vec<&str> = findings.iter().map(|found| &*found.field).collect();
                let detail = format!(
                    "what was published changes only for the better of buyers: leave {} as it is",
                    fields.join(", ")
                );
                Self::new(409, "not_better", detail).with("findings", json!(findings))
            }
            Refusal::NoChange => Self::malformed(
                "this version changes nothing: name a field beside reason",
            ),
            Refusal::HasGiven => conflict(
                "buyers have coupons or prizes of it: revoke them first, or let it begin and end it".to_owned(),
            ),
            Refusal::NoPlanB => conflict(
                "no plan B was published: it must stand in the definition as plan_b".to_owned(),
            ),
            Refusal::PlanBIsOn => conflict("plan B is on already".to_owned()),
        }
    }
}

impl From<Refusal> for SideError {
    fn from(refusal: Refusal) -> Self {
        SideProblem::from(refusal).into()
    }
}
