//! `stampede verify-draws`: every draw of a campaign recomputed from its published file alone.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use side_campaign::draws::file::ProofFile;
use side_campaign::draws::{VerifyKind, verify};
use side_rewards::giveaway::GiveawayProof;

use crate::Failure;
use crate::admin_client::AdminClient;
use crate::cli::{AdminArgs, VerifyDrawsArgs};
use crate::logs::say;

/// Kinds whose rule is known.
pub(crate) const KINDS: &[&dyn VerifyKind] = &[&GiveawayProof];
/// Longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// Most pages that are fetched.
const PAGES_MAX: usize = 100_000;
/// Most mismatches that are printed.
const TOLD_MAX: usize = 20;

/// Checks; exit 3 where something does not follow, 2 where there is no file to check.
pub(crate) fn run(args: &VerifyDrawsArgs) -> Result<(), Failure> {
    let file = match (&args.file, &args.campaign) {
        (Some(file), _) => read(file).map_err(|error| {
            Failure::CannotStart(format!("cannot read {}: {error:#}", file.display()))
        })?,
        (None, Some(campaign)) => fetch(&args.admin, campaign)?,
        (None, None) => {
            return Err(Failure::CannotStart("name a FILE, or --campaign ID".into()));
        }
    };
    if let Some(path) = &args.save {
        std::fs::write(path, file.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if file["seed"].is_null() {
        return Err(Failure::CannotStart(
            "the seed is not revealed yet: it is when the campaign is SETTLED".into(),
        ));
    }
    match verify(&file, KINDS) {
        Ok(verified) => {
            say(&format!(
                "{}: {} draws recomputed, {} winners follow from them",
                file["campaign"].as_str().unwrap_or_default(),
                verified.draws,
                verified.winners
            ));
            Ok(())
        }
        Err(found) => {
            for mismatch in found.iter().take(TOLD_MAX) {
                say(&mismatch.to_string());
            }
            Err(Failure::Books(format!(
                "the file does not prove its draws: {} mismatches, the first {} above",
                found.len(),
                found.len().min(TOLD_MAX)
            )))
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Value> {
    let length = std::fs::metadata(path)?.len();
    anyhow::ensure!(length <= FILE_BYTES_MAX, "it is longer than 1 GiB");
    let file: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    anyhow::ensure!(
        file["format"].is_string(),
        "it is no proof file: it names no format"
    );
    Ok(file)
}

/// All pages, joined.
fn fetch(admin: &AdminArgs, campaign: &str) -> Result<Value, Failure> {
    flash_types::SaleId::parse(campaign)
        .map_err(|bad| Failure::CannotStart(format!("--campaign {bad}")))?;
    let mut client = AdminClient::new(admin)?;
    let mut page = |cursor: Option<&str>| -> anyhow::Result<ProofFile> {
        let cursor = cursor.map_or_else(String::new, |cursor| format!("&cursor={cursor}"));
        let path = format!("/v1/admin/campaigns/{campaign}/proofs?limit=200{cursor}");
        let page = client.call("GET", &path, None)?;
        serde_json::from_value(page).context("the answer is no page of a proof file")
    };
    let mut file = page(None)?;
    for _ in 0..PAGES_MAX {
        let Some(cursor) = file.next_cursor.take() else {
            return Ok(json!(file));
        };
        file.join(page(Some(&cursor))?)
            .map_err(anyhow::Error::msg)?;
    }
    Err(anyhow::anyhow!("the file has more than {PAGES_MAX} pages").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: &Path) -> VerifyDrawsArgs {
        VerifyDrawsArgs {
            file: Some(file.to_owned()),
            campaign: None,
            save: None,
            admin: AdminArgs {
                admin_url: String::new(),
                data: None,
            },
        }
    }

    #[test]
    fn a_file_that_is_none_is_told_from_one_that_does_not_prove() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proof.json");
        assert!(matches!(run(&args(&path)), Err(Failure::CannotStart(_))));
        for (text, is_read) in [
            ("nothing", false),
            ("{}", false),
            (r#"{"format":"stampede-proof-1","seed":null}"#, false),
            (r#"{"format":"stampede-proof-1","seed":"00"}"#, true),
            (r#"{"format":"stampede-proof-9","seed":"00"}"#, true),
        ] {
            std::fs::write(&path, text).unwrap();
            match run(&args(&path)) {
                Err(Failure::Books(_)) => assert!(is_read, "{text}"),
                Err(Failure::CannotStart(_)) => assert!(!is_read, "{text}"),
                Err(Failure::Other(_)) | Ok(()) => panic!("{text}"),
            }
        }
    }
}
