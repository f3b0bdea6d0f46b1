//! The whole proof: five walks, each in the order of a key, each with a few numbers in memory.

use std::collections::BTreeMap;

use super::Report;
use super::queries::{
    ACCOUNTS, BUDGETS, ENTRIES_BY_ACCOUNT, HOLDS, LEGS_BY_TRANSFER, WITHOUT_ANSWER,
    WITHOUT_ENTRIES, WITHOUT_HOLD,
};
use crate::books::LEGS_MAX;
use crate::sql::{Get as _, Reads, Row, SqlError, query};

const PAGE: i64 = 1_000;
/// Each sums up all promises of a campaign.
const BUDGETS_PAGE: i64 = 20;
/// A page holds at least one whole transfer.
const _: () = assert!(LEGS_MAX < 1_000);
/// Rows of what should not be there at all are listed up to this many per kind.
const STRAYS_MAX: i64 = 100;

/// Proves the books. Codes of findings:
///
/// - `unbalanced_transfer`: the deltas of a transfer do not sum to zero in a currency;
/// - `few_entries`: a transfer has fewer than two legs;
/// - `wrong_currency`: an entry is not of its account's currency;
/// - `below_zero`: a guarded account is below zero, or was after one of its entries;
/// - `wrong_balance`: a balance is not the sum of its entries;
/// - `wrong_hold`: a promise does not say what its transfers moved;
/// - `stray_transfer`: a transfer of a promise that is not there;
/// - `wrong_held`, `wrong_spent`: a budget does not hold what its open promises, or has not spent what its posted ones say;
/// - `no_answer`: a command's key was taken and not answered.
///
/// Give it a [`crate::sql::Database::snapshot`]: what is read at different times does not balance.
///
/// # Errors
/// The database's.
///
/// # Cancel safety
/// A read.
pub async fn prove(reads: &mut impl Reads) -> Result<Report, SqlError> {
    let mut report = Report {
        ok: true,
        ..Report::default()
    };
    let row = reads.row(query(ACCOUNTS)).await?;
    report.accounts = count(row.map_or(Ok(0), |row| row.int("n"))?);
    balances(reads, &mut report).await?;
    transfers(reads, &mut report).await?;
    holds(reads, &mut report).await?;
    budgets(reads, &mut report).await?;
    for row in reads.rows(query(WITHOUT_ANSWER).bind(STRAYS_MAX)).await? {
        let subject = format!("{} {}", row.text("scope")?, row.text("key")?);
        report.find("no_answer", subject, "its key was taken and not answered");
    }
    Ok(report)
}

/// An account whose entries are being added up.
struct Running {
    account: String,
    balance: i64,
    sum: i64,
    is_guarded: bool,
    was_below: bool,
}

impl Running {
    fn end(self, report: &mut Report) {
        if self.sum != self.balance {
            let detail = format!("{} instead of {}", self.balance, self.sum);
            report.find("wrong_balance", self.account.clone(), detail);
        }
        if self.is_guarded && self.balance < 0 && !self.was_below {
            report.find("below_zero", self.account, self.balance.to_string());
        }
    }
}

async fn balances(reads: &mut impl Reads, report: &mut Report) -> Result<(), SqlError> {
    let mut running: Option<Running> = None;
    let (mut account, mut id) = (String::new(), 0);
    loop {
        let select = query(ENTRIES_BY_ACCOUNT).bind(account.clone()).bind(id);
        let rows = reads.rows(select.bind(PAGE)).await?;
        for row in &rows {
            (account, id) = (row.text("account")?, row.int("id")?);
            report.entries += 1;
            if running.as_ref().is_none_or(|it| it.account != account) {
                if let Some(before) = running.take() {
                    before.end(report);
                }
                running = Some(Running {
                    account: account.clone(),
                    balance: row.int("balance")?,
                    sum: 0,
                    is_guarded: !row.is("may_go_negative")?,
                    was_below: false,
                });
            }
            if let Some(running) = &mut running {
                step(running, id, row, report)?;
            }
        }
        if rows.len() < usize::try_from(PAGE).unwrap_or(0) {
            break;
        }
    }
    if let Some(last) = running {
        last.end(report);
    }
    for row in reads.rows(query(WITHOUT_ENTRIES).bind(STRAYS_MAX)).await? {
        let detail = format!("{} without an entry", row.int("balance")?);
        report.find("wrong_balance", row.text("id")?, detail);
    }
    Ok(())
}

fn step(running: &mut Running, id: i64, row: &Row, report: &mut Report) -> Result<(), SqlError> {
    let (currency, its) = (row.text("currency")?, row.text("its_currency")?);
    if currency != its {
        let detail = format!("entry {id} is in {currency} instead of {its}");
        report.find("wrong_currency", running.account.clone(), detail);
    }
    running.sum = running.sum.saturating_add(row.int("delta")?);
    if running.is_guarded && running.sum < 0 && !running.was_below {
        running.was_below = true;
        let detail = format!("{} after entry {id}", running.sum);
        report.find("below_zero", running.account.clone(), detail);
    }
    Ok(())
}

/// A transfer whose legs are being added up.
#[derive(Default)]
struct Legs {
    key: String,
    count: usize,
    sums: BTreeMap<String, i64>,
}

impl Legs {
    fn end(self, report: &mut Report) {
        report.transfers += 1;
        if self.count < 2 {
            let detail = format!("{} legs", self.count);
            report.find("few_entries", self.key.clone(), detail);
        }
        for (currency, sum) in self.sums.into_iter().filter(|(_, sum)| *sum != 0) {
            let detail = format!("{sum} {currency} too much");
            report.find("unbalanced_transfer", self.key.clone(), detail);
        }
    }
}

async fn transfers(reads: &mut impl Reads, report: &mut Report) -> Result<(), SqlError> {
    let mut after = 0;
    loop {
        let select = query(LEGS_BY_TRANSFER).bind(after).bind(PAGE);
        let rows = reads.rows(select).await?;
        let is_last = rows.len() < usize::try_from(PAGE).unwrap_or(0);
        let mut whole: BTreeMap<i64, Legs> = BTreeMap::new();
        for row in &rows {
            let legs = whole.entry(row.int("id")?).or_default();
            legs.key = row.text("key")?;
            if let (Some(currency), Some(delta)) =
                (row.text_or_null("currency")?, row.int_or_null("delta")?)
            {
                legs.count += 1;
                let sum = legs.sums.entry(currency).or_insert(0);
                *sum = sum.saturating_add(delta);
            }
        }
        if !is_last && whole.len() > 1 {
            // The rest of it is on the next page.
            whole.pop_last();
        }
        after = whole.last_key_value().map_or(after, |(id, _)| *id);
        for legs in whole.into_values() {
            legs.end(report);
        }
        if is_last {
            return Ok(());
        }
    }
}

async fn holds(reads: &mut impl Reads, report: &mut Report) -> Result<(), SqlError> {
    let mut after = String::new();
    loop {
        let select = query(HOLDS).bind(after.clone()).bind(PAGE);
        let rows = reads.rows(select).await?;
        for row in &rows {
            after = row.text("key")?;
            report.holds += 1;
            if let Some(detail) = wrong_hold(row)? {
                report.find("wrong_hold", after.clone(), detail);
            }
        }
        if rows.len() < usize::try_from(PAGE).unwrap_or(0) {
            break;
        }
    }
    for row in reads.rows(query(WITHOUT_HOLD).bind(STRAYS_MAX)).await? {
        report.find(
            "stray_transfer",
            row.text("key")?,
            "there is no such promise",
        );
    }
    Ok(())
}

fn wrong_hold(row: &Row) -> Result<Option<String>, SqlError> {
    let (amount, posted, state) = (row.int("amount")?, row.int("posted")?, row.text("state")?);
    let moved = (
        row.int_or_null("opened")?,
        row.int_or_null("kept")?,
        row.int_or_null("spent")?,
        row.int_or_null("voided")?,
    );
    let spent = (posted != 0).then_some(posted);
    let should = match state.as_str() {
        "posted" => (Some(amount), Some(-amount), spent, None),
        "voided" => (Some(amount), None, None, Some(-amount)),
        _ => (Some(amount), None, None, None),
    };
    let is_right = moved == should && (state == "posted" || posted == 0);
    Ok((!is_right).then(|| {
        format!(
            "{state}, {amount}, {posted} spent; its transfers held, posted, spent and voided {moved:?}"
        )
    }))
}

async fn budgets(reads: &mut impl Reads, report: &mut Report) -> Result<(), SqlError> {
    let mut after = String::new();
    loop {
        let select = query(BUDGETS).bind(after.clone()).bind(BUDGETS_PAGE);
        let rows = reads.rows(select).await?;
        for row in &rows {
            after = row.text("owner")?;
            let (held, open) = (row.int("held")?, row.int("open_holds")?);
            if held != open {
                let detail = format!("{held} held, {open} in open promises");
                report.find("wrong_held", after.clone(), detail);
            }
            let (spent, posted) = (row.int_or_null("spent")?, row.int("posted")?);
            let should = posted.saturating_add(row.int("recovered")?);
            if spent != Some(should) {
                let detail = format!("{} spent, {should} posted", spent.unwrap_or(0));
                report.find("wrong_spent", after.clone(), detail);
            }
        }
        if rows.len() < usize::try_from(BUDGETS_PAGE).unwrap_or(0) {
            return Ok(());
        }
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
