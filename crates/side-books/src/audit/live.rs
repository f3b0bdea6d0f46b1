//! The auditor of a store at work: what has changed since it last looked, a bounded piece at a time.
//!
//! Owns what it has found, in memory; a campaign whose budget is among it is frozen in the database. Changes that went past the
//! books, in rows that no transfer touches, are left to the whole proof.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use tokio::sync::Mutex;

use super::queries::{BALANCE_SINCE, ENTRIES_SINCE, FORGET_FINDING, FROZEN_FINDINGS, HELD};
use super::{FINDINGS_MAX, Finding};
use crate::SideError;
use crate::books;
use crate::note::{self, Note};
use crate::sql::{Database, Get as _, Reader, Reads as _, SqlError, query};
use crate::step::Step;

const REST: Duration = Duration::from_secs(30);
/// Entries of a step.
const PAGE: usize = 4_000;
/// So many transfers are looked at again: on PostgreSQL one may be seen later than others with higher numbers.
const OVERLAP: i64 = 500;
/// A guarded account holds less than nothing.
const BELOW_ZERO: &str = "below_zero";
/// Accounts whose sum is remembered; beyond it all are forgotten and counted from their first entry again.
const SUMS_MAX: usize = 20_000;

/// Holds balances against entries and promises against budgets.
#[derive(Debug)]
pub struct Auditor {
    database: Database,
    imbalance_minor: AtomicI64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The last transfer that was looked at.
    after: i64,
    /// Per account: the last entry that was counted, and the sum up to it.
    sums: HashMap<String, (i64, i64)>,
    wrong: BTreeMap<Found, Wrong>,
}

/// Code and subject.
type Found = (&'static str, String);

#[derive(Debug, Clone)]
struct Wrong {
    detail: String,
    by: i64,
    campaigns: BTreeSet<String>,
}

/// What a finding is called: it stays so while the books go on around it, which sums do not.
fn name((code, subject): &Found, wrong: &Wrong) -> String {
    if *code == BELOW_ZERO {
        format!("{code} {subject}")
    } else {
        format!("{code} {subject} {}", wrong.by)
    }
}

/// What a step looks at.
#[derive(Default)]
struct Changed {
    after: i64,
    is_more: bool,
    accounts: BTreeSet<String>,
    /// Number of a transfer -> what it has too much, and its accounts.
    unbalanced: Vec<(i64, i64, BTreeSet<String>)>,
}

impl Auditor {
    /// One that begins with the first transfer.
    pub fn new(database: Database) -> Self {
        Self {
            database,
            imbalance_minor: AtomicI64::new(0),
            seen: Mutex::default(),
        }
    }

    /// By how much the books are wrong, as far as it is known: 0 is good. For a gauge.
    pub fn imbalance(&self) -> i64 {
        // Relaxed: a number on its own.
        self.imbalance_minor.load(Ordering::Relaxed)
    }

    /// What is wrong now.
    ///
    /// # Cancel safety
    /// A read.
    pub async fn findings(&self) -> Vec<Finding> {
        let seen = self.seen.lock().await;
        let wrong = seen.wrong.iter();
        wrong
            .map(|((code, subject), wrong)| Finding {
                code,
                subject: subject.clone(),
                detail: wrong.detail.clone(),
            })
            .collect()
    }

    async fn look(&self, now: Timestamp) -> Result<bool, SideError> {
        let mut seen = self.seen.lock().await;
        let mut reads = self.database.snapshot().await?;
        let mut changed = changed_since(&mut reads, seen.after).await?;
        // What was wrong is looked at again: it may have been put right.
        for (code, subject) in seen.wrong.keys() {
            if *code == "wrong_balance" || *code == BELOW_ZERO {
                changed.accounts.insert(subject.clone());
            }
        }
        let mut wrong = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for account in &changed.accounts {
            balance(&mut reads, account, &mut seen, &mut wrong, &mut owners).await?;
        }
        let mut campaigns: BTreeSet<&String> = owners.values().collect();
        let before = seen.wrong.keys();
        campaigns.extend(before.filter(|key| key.0 == "wrong_held").map(|key| &key.1));
        for campaign in campaigns {
            held(&mut reads, campaign, &mut wrong).await?;
        }
        for (transfer, by, accounts) in changed.unbalanced {
            let of_budgets = accounts.iter().filter_map(|id| owners.get(id).cloned());
            let found = Wrong {
                detail: format!("{by} too much"),
                by,
                campaigns: of_budgets.collect(),
            };
            wrong.insert(("unbalanced_transfer", transfer.to_string()), found);
        }
        drop(reads);
        self.freeze(&seen, &wrong, now).await?;
        seen.after = seen.after.max(changed.after);
        self.remember(&mut seen, wrong);
        if !changed.is_more {
            self.forget_what_is_right(&seen).await?;
        }
        Ok(changed.is_more)
    }

    /// Freezes what is newly found; what a person has let go on is not frozen for the same again.
    async fn freeze(
        &self,
        seen: &Seen,
        wrong: &BTreeMap<Found, Wrong>,
        now: Timestamp,
    ) -> Result<(), SideError> {
        for (key, found) in wrong {
            let finding = name(key, found);
            let was = seen.wrong.get(key).map(|was| name(key, was));
            if was.as_ref() == Some(&finding) {
                continue;
            }
            let reason = format!("{} {}: {}", key.0, key.1, found.detail);
            tracing::error!(
                code = key.0,
                subject = key.1,
                detail = found.detail,
                "the books do not balance"
            );
            if found.campaigns.is_empty() {
                continue;
            }
            let mut tx = self.database.begin().await?;
            for campaign in &found.campaigns {
                if books::freeze(&mut tx, campaign, &finding, &reason, now).await? {
                    let note = Note {
                        who: "system",
                        what: "campaign.freeze",
                        campaign: Some(campaign),
                        subject: None,
                        detail: &reason,
                    };
                    note::write(&mut tx, &note, now).await?;
                }
            }
            tx.commit().await?;
        }
        Ok(())
    }

    /// What was put right freezes its campaign again, should it ever be wrong in the same way.
    async fn forget_what_is_right(&self, seen: &Seen) -> Result<(), SideError> {
        let select = query(FROZEN_FINDINGS).bind(FINDINGS_MAX as i64);
        let rows = self.database.read().await?.rows(select).await?;
        let wrong: BTreeSet<String> = seen.wrong.iter().map(|(key, it)| name(key, it)).collect();
        for row in &rows {
            let (campaign, finding) = (row.text("campaign")?, row.text("finding")?);
            if wrong.contains(&finding) {
                continue;
            }
            let mut tx = self.database.begin().await?;
            let delete = query(FORGET_FINDING).bind(campaign).bind(finding);
            tx.execute(delete).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    fn remember(&self, seen: &mut Seen, wrong: BTreeMap<Found, Wrong>) {
        // Entries are never changed: a transfer that does not balance stays so.
        seen.wrong.retain(|key, _| key.0 == "unbalanced_transfer");
        for (key, found) in wrong {
            if seen.wrong.len() < FINDINGS_MAX {
                seen.wrong.insert(key, found);
            }
        }
        let sum = |sum: i64, wrong: &Wrong| sum.saturating_add(wrong.by.saturating_abs());
        let imbalance = seen.wrong.values().fold(0, sum);
        // Relaxed: a number on its own.
        self.imbalance_minor.store(imbalance, Ordering::Relaxed);
    }
}

impl Step for Auditor {
    fn name(&self) -> &'static str {
        "auditor"
    }

    fn rest(&self) -> Duration {
        REST
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(self.look(now))
    }
}

async fn changed_since(reads: &mut Reader, after: i64) -> Result<Changed, SqlError> {
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let from = (after - OVERLAP).max(0);
    let mut changed = Changed::default();
    for from in [from, after] {
        let select = query(ENTRIES_SINCE).bind(from).bind(limit);
        let rows = reads.rows(select).await?;
        changed.is_more = rows.len() == PAGE;
        let mut transfers: BTreeMap<i64, (BTreeMap<String, i64>, BTreeSet<String>)> =
            BTreeMap::new();
        for row in &rows {
            let (sums, accounts) = transfers.entry(row.int("transfer")?).or_default();
            accounts.insert(row.text("account")?);
            let sum = sums.entry(row.text("currency")?).or_insert(0);
            *sum = sum.saturating_add(row.int("delta")?);
        }
        if changed.is_more && transfers.len() > 1 {
            // The rest of it is on the next page.
            transfers.pop_last();
        }
        for (id, (sums, accounts)) in transfers {
            changed.after = changed.after.max(id);
            let by = sums.into_values().find(|sum| *sum != 0);
            changed
                .unbalanced
                .extend(by.map(|by| (id, by, accounts.clone())));
            changed.accounts.extend(accounts);
        }
        // Long transfers may fill a page with what was looked at before.
        if !changed.is_more || changed.after > after {
            break;
        }
    }
    Ok(changed)
}

async fn balance(
    reads: &mut Reader,
    account: &str,
    seen: &mut Seen,
    wrong: &mut BTreeMap<Found, Wrong>,
    owners: &mut BTreeMap<String, String>,
) -> Result<(), SqlError> {
    let remembered = seen.sums.get(account).copied().unwrap_or_default();
    // From the first entry where what is remembered does not fit.
    for (last, sum) in [remembered, (0, 0)] {
        let select = query(BALANCE_SINCE).bind(account.to_owned()).bind(last);
        let Some(row) = reads.row(select).await? else {
            return Ok(());
        };
        let sum = sum.saturating_add(row.int("since")?);
        let balance = row.int("balance")?;
        let mut campaigns = BTreeSet::new();
        if row.text("kind")? == "budget" {
            owners.insert(account.to_owned(), row.text("owner")?);
            campaigns.insert(row.text("owner")?);
        }
        if sum != balance && last != 0 {
            continue;
        }
        let mut find = |code, detail, by| {
            let campaigns = campaigns.clone();
            let found = Wrong {
                detail,
                by,
                campaigns,
            };
            wrong.insert((code, account.to_owned()), found);
        };
        if balance < 0 && !row.is("may_go_negative")? {
            find(BELOW_ZERO, balance.to_string(), balance);
        }
        if sum == balance {
            if seen.sums.len() >= SUMS_MAX {
                seen.sums.clear();
            }
            let last = row.int_or_null("last_id")?.unwrap_or(0);
            seen.sums.insert(account.to_owned(), (last, sum));
        } else {
            seen.sums.remove(account);
            let by = balance.saturating_sub(sum);
            find("wrong_balance", format!("{balance} instead of {sum}"), by);
        }
        return Ok(());
    }
    Ok(())
}

async fn held(
    reads: &mut Reader,
    campaign: &str,
    wrong: &mut BTreeMap<Found, Wrong>,
) -> Result<(), SqlError> {
    let Some(row) = reads.row(query(HELD).bind(campaign.to_owned())).await? else {
        return Ok(());
    };
    let (held, open) = (row.int("held")?, row.int("open_holds")?);
    if held != open {
        let found = Wrong {
            detail: format!("{held} held, {open} in open promises"),
            by: held.saturating_sub(open),
            campaigns: BTreeSet::from([campaign.to_owned()]),
        };
        wrong.insert(("wrong_held", campaign.to_owned()), found);
    }
    Ok(())
}
