//! `stampede audit`: the books from the store alone.

use crate::Failure;
use crate::cli::AuditArgs;
use crate::logs::say;

/// Prints the report; exit 3 where the books do not balance.
pub(crate) fn run(args: &AuditArgs) -> Result<(), Failure> {
    let report = match (&args.store.data, &args.store.redis) {
        (_, Some(url)) => flash_settle::audit_redis(url, args.redis_ca.as_deref())
            // It names the Redis by itself, without the password.
            .map_err(|error| Failure::CannotStart(format!("cannot audit: {error}")))?,
        (Some(data), None) => flash_settle::audit(data).map_err(|error| {
            Failure::CannotStart(format!("cannot audit {}: {error}", data.display()))
        })?,
        (None, None) => return Err(Failure::CannotStart("one of --data, --redis".into())),
    };
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
