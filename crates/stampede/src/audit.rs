//! `stampede audit`: the books from the store alone.

use crate::Failure;
use crate::cli::AuditArgs;
use crate::logs::say;

/// Prints the report; exit 3 where the books do not balance.
pub(crate) fn run(args: &AuditArgs) -> Result<(), Failure> {
    let report = flash_settle::audit(&args.data).map_err(|error| {
        Failure::CannotStart(format!("cannot audit {}: {error}", args.data.display()))
    })?;
    if args.json {
        say(&serde_json::to_string(&report).map_err(anyhow::Error::from)?);
    } else {
        say(report.to_string().trim_end());
    }
    if report.ok {
        Ok(())
    } else {
        Err(Failure::Books(format!(
            "the books do not balance: {} findings, listed above",
            report.findings.len()
        )))
    }
}
