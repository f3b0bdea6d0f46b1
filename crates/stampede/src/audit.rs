//! `stampede audit`: the books from the stores alone, those of the sales and those of the campaigns.

mod campaigns;
mod draws;

use flash_settle::{Counts, Finding, Report, SaleReport};
use serde::Serialize;

pub(crate) use campaigns::{FILE as CAMPAIGNS_FILE, proved as prove_campaigns};
pub(crate) use draws::Draws;

use crate::Failure;
use crate::cli::AuditArgs;
use crate::logs::say;
use campaigns::Campaigns;

/// Both, as JSON.
#[derive(Serialize)]
struct Told<'a> {
    ok: bool,
    sales: &'a [SaleReport],
    findings: &'a [Finding],
    findings_left_out: u64,
    counts: Counts,
    /// `null`: nothing is known of campaigns here.
    campaigns: Option<&'a Campaigns>,
}

/// Prints the report; exit 3 where the books do not balance.
pub(crate) fn run(args: &AuditArgs) -> Result<(), Failure> {
    let (data, redis) = (&args.store.data, &args.store.redis);
    let place = campaigns::place(args.database.as_deref(), data.as_deref())
        .map_err(Failure::CannotStart)?;
    let sales = match (data, redis) {
        (_, Some(url)) => flash_settle::audit_redis(url, args.redis_ca.as_deref())
            // It names the Redis by itself, without the password.
            .map_err(|error| Failure::CannotStart(format!("cannot audit: {error}")))?,
        (Some(data), None) => flash_settle::audit(data).map_err(|error| {
            Failure::CannotStart(format!("cannot audit {}: {error}", data.display()))
        })?,
        (None, None) => return Err(Failure::CannotStart("one of --data, --redis".into())),
    };
    let campaigns = match place.as_ref().map(campaigns::audit).transpose() {
        // What is wrong with the sales is told all the same.
        Err(Failure::CannotStart(why)) if !sales.ok => {
            eprintln!("stampede: {why}");
            None
        }
        campaigns => campaigns?,
    };
    if place.is_none() {
        eprintln!("stampede: {}", left_out(args));
    }
    tell(&sales, campaigns.as_ref(), args.json)?;
    let found = campaigns.map_or(0, |campaigns| campaigns.report.findings.len());
    if sales.ok && found == 0 {
        return Ok(());
    }
    Err(Failure::Books(format!(
        "the books do not balance: {} findings, listed above",
        sales.findings.len() + found
    )))
}

fn tell(sales: &Report, campaigns: Option<&Campaigns>, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let told = Told {
            ok: sales.ok && campaigns.is_none_or(|campaigns| campaigns.report.ok),
            sales: &sales.sales,
            findings: &sales.findings,
            findings_left_out: sales.findings_left_out,
            counts: sales.counts,
            campaigns,
        };
        say(&serde_json::to_string(&told).map_err(anyhow::Error::from)?);
        return Ok(());
    }
    say(sales.to_string().trim_end());
    if let Some(campaigns) = campaigns {
        say(&campaigns.to_string());
    }
    Ok(())
}

/// Why there is no word of campaigns.
fn left_out(args: &AuditArgs) -> String {
    let found = match &args.store.data {
        Some(data) => format!(
            "there is no {} in {}; if they are elsewhere",
            campaigns::FILE,
            data.display()
        ),
        None => "where they are, Redis does not know; if there are any".into(),
    };
    format!("the campaigns were not audited: {found}, name their database by --database")
}
