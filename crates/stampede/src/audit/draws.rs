//! Draws of settled campaigns, recomputed from the records that `stampede verify-draws` gets as a file.

use flash_types::side::BoxFuture;
use serde_json::json;
use side_books::SideError;
use side_books::audit::{Finding, Prove};
use side_books::sql::{Reader, SqlError};
use side_campaign::draws::{proof_page, revealed, verify};
use side_campaign::life;

use crate::verify_draws::KINDS;

const CAMPAIGNS_PAGE: i64 = 100;
const PAGE: i64 = 1_000;

/// Recomputes them; one campaign at a time is in memory.
pub(crate) struct Draws;

impl Prove for Draws {
    fn name(&self) -> &'static str {
        "draws"
    }

    fn prove<'a>(&'a self, reads: &'a mut Reader) -> BoxFuture<'a, Result<Vec<Finding>, SqlError>> {
        Box::pin(async move {
            let mut findings = Vec::new();
            let mut after = String::new();
            loop {
                let campaigns = revealed(reads, &after, CAMPAIGNS_PAGE).await?;
                let Some(last) = campaigns.last() else {
                    return Ok(findings);
                };
                after.clone_from(last);
                for campaign in campaigns {
                    match recompute(reads, &campaign).await {
                        Ok(found) => findings.extend(found),
                        Err(SideError::Sql(error)) => return Err(error),
                        Err(SideError::Refused(problem)) => {
                            findings.push(finding(&campaign, problem.detail.to_string()));
                        }
                    }
                }
            }
        })
    }
}

fn finding(subject: &str, detail: String) -> Finding {
    Finding {
        code: "wrong_draw",
        subject: subject.to_owned(),
        detail,
    }
}

async fn recompute(reads: &mut Reader, id: &str) -> Result<Vec<Finding>, SideError> {
    let Some(campaign) = life::find(reads, id).await? else {
        return Ok(vec![finding(id, "the campaign is not there".into())]);
    };
    let mut file = proof_page(reads, &campaign, None, PAGE).await?;
    while let Some(cursor) = file.next_cursor.take() {
        let next = proof_page(reads, &campaign, Some(&cursor), PAGE).await?;
        if let Err(why) = file.join(next) {
            return Ok(vec![finding(id, why.into())]);
        }
    }
    let mismatches = verify(&json!(file), KINDS).err().unwrap_or_default();
    let told = mismatches.iter();
    Ok(told
        .map(|mismatch| finding(id, mismatch.to_string()))
        .collect())
}
