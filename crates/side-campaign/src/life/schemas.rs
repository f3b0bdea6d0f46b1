//! Schemas of bodies and answers, for the OpenAPI document.

use serde_json::{Value, json};
use side_books::wire::schema;
use utoipa::ToSchema;

use super::moves::CampaignMoveBody;
use super::publish::CampaignPublishBody;
use super::solvency::Worst;
use super::versions::{CampaignBudgetBody, PlanBBody};
use super::view::{
    AdminCampaign, CampaignAnswer, CampaignBudget, CampaignLine, CampaignNote, CampaignVersion,
};
use crate::definition::{Definition, Eligibility, Reminders, RiskAction, RiskRules};
use crate::kind::{Finding, WorstCase, WorstLine};
use crate::reward::{RewardType, WrittenReward};

/// A page of campaigns.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only its schema is used: pages are written by side_books::wire"
)]
struct CampaignPage {
    items: Vec<CampaignLine>,
    next_cursor: Option<String>,
}

/// A page of versions.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only its schema is used: pages are written by side_books::wire"
)]
struct CampaignVersionPage {
    items: Vec<CampaignVersion>,
    next_cursor: Option<String>,
}

/// A page of the audit log.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only its schema is used: pages are written by side_books::wire"
)]
struct CampaignNotePage {
    items: Vec<CampaignNote>,
    next_cursor: Option<String>,
}

/// All of them, by name.
pub(super) fn all() -> Vec<(&'static str, Value)> {
    vec![
        schema::<Definition>("CampaignDefinition"),
        schema::<Eligibility>("Eligibility"),
        schema::<Reminders>("Reminders"),
        schema::<RiskRules>("RiskRules"),
        schema::<RiskAction>("RiskAction"),
        schema::<WrittenReward>("WrittenReward"),
        schema::<RewardType>("RewardType"),
        schema::<Finding>("CampaignFinding"),
        schema::<WorstLine>("WorstLine"),
        schema::<WorstCase>("WorstCase"),
        schema::<Worst>("Worst"),
        schema::<CampaignPublishBody>("CampaignPublishBody"),
        schema::<CampaignMoveBody>("CampaignMoveBody"),
        schema::<PlanBBody>("PlanBBody"),
        schema::<CampaignBudgetBody>("CampaignBudgetBody"),
        ("CampaignVersionBody", version_body()),
        schema::<CampaignAnswer>("CampaignAnswer"),
        schema::<AdminCampaign>("AdminCampaign"),
        schema::<CampaignBudget>("CampaignBudget"),
        schema::<CampaignLine>("CampaignLine"),
        schema::<CampaignVersion>("CampaignVersion"),
        schema::<CampaignNote>("CampaignNote"),
        schema::<CampaignPage>("CampaignPage"),
        schema::<CampaignVersionPage>("CampaignVersionPage"),
        schema::<CampaignNotePage>("CampaignNotePage"),
    ]
}

/// Fields of a definition beside a reason: what is not there stays.
fn version_body() -> Value {
    json!({
        "type": "object",
        "description": "Fields of the definition that change, each as a whole; of eligibility and reminders only the \
                        members that are named, null to remove one",
        "required": ["reason"],
        "properties": {
            "reason": {"type": "string", "description": "Why; told in the list of versions"},
            "accept": {"type": "array", "items": {"type": "string", "enum": super::solvency::ACCEPTABLE}},
            "title": {"type": "string"},
            "ends_at": {"type": "string", "format": "date-time", "description": "Later"},
            "budget_minor": {"type": "integer", "format": "int64", "description": "Larger"},
            "eligibility": {"type": "object", "description": "participants_max: larger, or null"},
            "reminders": {"type": "object"},
            "rewards": {"type": "array", "items": {"$ref": "#/components/schemas/WrittenReward"}},
            "rules": {"type": "object", "description": "As its kind allows"},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_is_named_is_there() {
        let all = all();
        for (name, schema) in &all {
            let text = schema.to_string();
            for part in text.split("#/components/schemas/").skip(1) {
                let named = part.split('"').next().unwrap();
                assert!(
                    all.iter().any(|(known, _)| *known == named),
                    "{named}, which {name} speaks of"
                );
            }
        }
        for endpoint in crate::life::service::ENDPOINTS {
            let answers = endpoint.answers.iter().map(|(_, schema)| *schema);
            for named in endpoint.body.into_iter().chain(answers) {
                assert!(all.iter().any(|(known, _)| *known == named), "{named}");
            }
        }
    }
}
