//! Budgets: cap = available + held + spent, three guarded accounts of a campaign. A promise holds, keeping it posts, taking
//! it back voids; each once per key. The cap may be raised at any time, and lowered by what is available. A campaign whose
//! books were found wrong is frozen: its budget moves nothing.
// open -> posted | voided. Nothing leaves a closed hold.

use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::SideProblem;

use crate::SideError;
use crate::books::{
    Account, BooksError, BooksRefusal, Leg, Transfer, Transferred, open as open_account, transfer,
};
use crate::queries::{ACCOUNT, BUDGET, CLOSE_HOLD, FROZEN, HOLD, INSERT_HOLD, TRANSFER_BY_KEY};
use crate::sql::{Get as _, Reads, SqlError, Tx, query};

/// A person has to look.
const FROZEN_WAIT: Duration = Duration::from_secs(60);

/// A budget as it stands, minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Budget {
    /// All that was ever put in.
    pub cap_minor: i64,
    /// Free to be promised.
    pub available_minor: i64,
    /// Promised.
    pub held_minor: i64,
    /// Given.
    pub spent_minor: i64,
}

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold<'a> {
    /// Unique for ever: `grant:<grant>`, `cut:<session>` …
    pub key: &'a str,
    /// Whose budget.
    pub campaign: &'a str,
    /// What for: a word that the report groups by.
    pub what: &'a str,
    /// More than zero.
    pub amount_minor: i64,
}

/// What became of a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Held now, or it was before under this key.
    Held,
    /// The budget does not hold that much: nothing was changed, the transaction may go on.
    RunDry,
}

/// Opens the budget of a campaign, or adds to it: `key` is done once.
///
/// # Errors
/// The database's.
pub async fn fund(
    tx: &mut Tx,
    campaign: &str,
    currency: &str,
    amount_minor: i64,
    key: &str,
    at: Timestamp,
) -> Result<(), SideError> {
    if amount_minor < 0 {
        return Err(SqlError::Broken(format!("{key}: a cap is lowered by reduce")).into());
    }
    let world = format!("world:{currency}");
    open_account(
        tx,
        &Account {
            id: &world,
            owner: "shop",
            kind: "world",
            currency,
            may_go_negative: true,
        },
    )
    .await?;
    for part in ["available", "held", "spent"] {
        let id = account(campaign, part);
        open_account(
            tx,
            &Account {
                id: &id,
                owner: campaign,
                kind: "budget",
                currency,
                may_go_negative: false,
            },
        )
        .await?;
    }
    if amount_minor == 0 {
        return Ok(());
    }
    let available = account(campaign, "available");
    let legs = [(&*world, -amount_minor), (&*available, amount_minor)];
    move_between(tx, key, "fund", &legs, None, at).await?;
    Ok(())
}

/// Lowers the cap by what is available, at most: `key` is done once.
///
/// # Errors
/// 409 `insufficient_funds` where less is available, 404 `not_found` where there is no budget, 503 `campaign_frozen`; the
/// database's.
pub async fn reduce(
    tx: &mut Tx,
    campaign: &str,
    amount_minor: i64,
    key: &str,
    at: Timestamp,
) -> Result<(), SideError> {
    if amount_minor < 1 {
        return Err(SqlError::Broken(format!("{key}: a cap is raised by fund")).into());
    }
    refuse_frozen(tx, campaign).await?;
    let available = account(campaign, "available");
    let row = tx.row(query(ACCOUNT).bind(available.clone())).await?;
    let row = row.ok_or_else(|| SideProblem::not_found("budget"))?;
    let world = format!("world:{}", row.text("currency")?);
    let legs = [(&*available, -amount_minor), (&*world, amount_minor)];
    move_between(tx, key, "reduce", &legs, None, at).await?;
    Ok(())
}

/// Promises. The same key again changes nothing.
///
/// # Errors
/// 409 `state_conflict` where the key was voided, or used for another promise; 503 `campaign_frozen`; the database's.
pub async fn hold(tx: &mut Tx, hold: &Hold<'_>, at: Timestamp) -> Result<Held, SideError> {
    let (available, held) = (
        account(hold.campaign, "available"),
        account(hold.campaign, "held"),
    );
    if hold.amount_minor < 1 {
        return Err(SqlError::Broken(format!("{}: a promise of nothing", hold.key)).into());
    }
    // With a condition, so that a dry budget spoils nothing; the balance is asked again where it is changed.
    let insert = query(INSERT_HOLD)
        .bind(hold.key.to_owned())
        .bind(hold.what.to_owned())
        .bind(hold.amount_minor)
        .bind(at.0)
        .bind(available.clone());
    if tx.execute(insert).await? == 0 {
        return why_not_held(tx, hold).await;
    }
    let key = format!("hold|{}", hold.key);
    let legs = [
        (&*available, -hold.amount_minor),
        (&*held, hold.amount_minor),
    ];
    match move_between(tx, &key, "hold", &legs, None, at).await {
        Ok(_) => Ok(Held::Held),
        // Somebody was faster between the two: the whole transaction, tried again, finds the budget dry or not.
        Err(BooksError::Refused(BooksRefusal::Insufficient { .. })) => {
            Err(SqlError::Conflict.into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn why_not_held(tx: &mut Tx, hold: &Hold<'_>) -> Result<Held, SideError> {
    if let Some(row) = tx.row(query(HOLD).bind(hold.key.to_owned())).await? {
        let is_same =
            row.text("campaign")? == hold.campaign && row.int("amount")? == hold.amount_minor;
        return match (is_same, row.text("state")?.as_str()) {
            (true, "open" | "posted") => Ok(Held::Held),
            (_, state) => Err(conflict(hold.key, state)),
        };
    }
    refuse_frozen(tx, hold.campaign).await?;
    Ok(Held::RunDry)
}

/// Keeps a promise: `spent_minor` of it is spent, the rest goes back. The same again changes nothing.
///
/// # Errors
/// 409 `state_conflict` where it was voided, or posted otherwise; the database's.
pub async fn post(
    tx: &mut Tx,
    key: &str,
    spent_minor: i64,
    at: Timestamp,
) -> Result<(), SideError> {
    close(tx, key, "posted", Some(spent_minor), at).await
}

/// Takes a promise back. The same again changes nothing.
///
/// # Errors
/// 409 `state_conflict` where it was posted; the database's.
pub async fn void(tx: &mut Tx, key: &str, at: Timestamp) -> Result<(), SideError> {
    close(tx, key, "voided", None, at).await
}

/// Takes back what a posted promise has spent: it is available again. Once per promise; the same again changes nothing, and
/// neither does it where nothing was spent.
///
/// # Errors
/// 409 `state_conflict` where it is not posted, 404 `not_found`, 503 `campaign_frozen`; the database's.
pub async fn recover(tx: &mut Tx, key: &str, at: Timestamp) -> Result<(), SideError> {
    let row = tx.row(query(HOLD).bind(key.to_owned())).await?;
    let row = row.ok_or_else(|| SideProblem::not_found("promise"))?;
    let (campaign, state, posted) = (
        row.text("campaign")?,
        row.text("state")?,
        row.int("posted")?,
    );
    if state != "posted" {
        return Err(conflict(key, &state));
    }
    if posted == 0 {
        return Ok(());
    }
    refuse_frozen(tx, &campaign).await?;
    let select = query(TRANSFER_BY_KEY).bind(format!("post|{key}"));
    let row = tx.row(select).await?;
    let id = row.ok_or_else(|| SqlError::Broken(format!("{key} is posted without a transfer")))?;
    let id = id.int("id")?;
    let (available, spent) = (account(&campaign, "available"), account(&campaign, "spent"));
    let legs = [(&*available, posted), (&*spent, -posted)];
    let recover = format!("recover|{key}");
    move_between(tx, &recover, "recover", &legs, Some(id), at).await?;
    Ok(())
}

/// The budget of a campaign; `None` if it has none.
///
/// # Errors
/// The database's.
pub async fn read(reads: &mut impl Reads, campaign: &str) -> Result<Option<Budget>, SqlError> {
    let rows = reads.rows(query(BUDGET).bind(campaign.to_owned())).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut budget = Budget::default();
    for row in &rows {
        let (id, balance) = (row.text("id")?, row.int("balance")?);
        budget.cap_minor += balance;
        match id.rsplit(':').next() {
            Some("available") => budget.available_minor = balance,
            Some("held") => budget.held_minor = balance,
            _ => budget.spent_minor = balance,
        }
    }
    Ok(Some(budget))
}

/// The account of a part of a campaign's budget.
pub fn account(campaign: &str, part: &str) -> String {
    format!("budget:{campaign}:{part}")
}

async fn close(
    tx: &mut Tx,
    key: &str,
    state: &'static str,
    spent_minor: Option<i64>,
    at: Timestamp,
) -> Result<(), SideError> {
    let spent = spent_minor.unwrap_or(0);
    if spent < 0 {
        return Err(SqlError::Broken(format!("{key}: less than nothing is spent")).into());
    }
    let update = query(CLOSE_HOLD)
        .bind(state)
        .bind(spent)
        .bind(at.0)
        .bind(key.to_owned());
    let Some(row) = tx.row(update).await? else {
        return why_not_closed(tx, key, state, spent).await;
    };
    let (campaign, amount) = (row.text("campaign")?, row.int("amount")?);
    let (available, held, gone) = (
        account(&campaign, "available"),
        account(&campaign, "held"),
        account(&campaign, "spent"),
    );
    let mut legs = vec![(&*held, -amount)];
    if spent > 0 {
        legs.push((&*gone, spent));
    }
    if amount > spent {
        legs.push((&*available, amount - spent));
    }
    let kind = if state == "posted" { "post" } else { "void" };
    let transfer_key = format!("{kind}|{key}");
    match move_between(tx, &transfer_key, kind, &legs, None, at).await {
        Ok(_) => Ok(()),
        Err(BooksError::Refused(refusal @ BooksRefusal::Insufficient { .. })) => {
            // What is held is held: this is damage, not a refusal.
            Err(SqlError::Broken(refusal.to_string()).into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn why_not_closed(tx: &mut Tx, key: &str, state: &str, spent: i64) -> Result<(), SideError> {
    let row = tx.row(query(HOLD).bind(key.to_owned())).await?;
    let row = row.ok_or_else(|| SideProblem::not_found("promise"))?;
    let (was, posted) = (row.text("state")?, row.int("posted")?);
    if was == state && posted == spent {
        return Ok(());
    }
    if was == "open" {
        refuse_frozen(tx, &row.text("campaign")?).await?;
        if spent > row.int("amount")? {
            let detail = format!("the promise {key} holds less than {spent}");
            return Err(SideProblem::new(409, "state_conflict", detail).into());
        }
        // Frozen a moment ago, and no more.
        return Err(SqlError::Conflict.into());
    }
    Err(conflict(key, &was))
}

async fn move_between(
    tx: &mut Tx,
    key: &str,
    kind: &str,
    legs: &[(&str, i64)],
    reverses: Option<i64>,
    at: Timestamp,
) -> Result<Transferred, BooksError> {
    let legs: Vec<Leg<'_>> = legs
        .iter()
        .map(|&(account, delta)| Leg { account, delta })
        .collect();
    let moved = Transfer {
        key,
        kind,
        legs: &legs,
        reverses,
        rule_snapshot: None,
        at,
    };
    transfer(tx, &moved).await
}

async fn refuse_frozen(tx: &mut Tx, campaign: &str) -> Result<(), SideError> {
    if tx
        .row(query(FROZEN).bind(campaign.to_owned()))
        .await?
        .is_none()
    {
        return Ok(());
    }
    // The reason is for the admins: it may tell sums.
    let detail =
        "the books of this campaign are being looked at: nothing of its budget moves until then";
    let problem = SideProblem::new(503, "campaign_frozen", detail);
    Err(problem.retry_after(FROZEN_WAIT).into())
}

fn conflict(key: &str, state: &str) -> SideError {
    SideProblem::new(
        409,
        "state_conflict",
        format!("the promise {key} is {state}"),
    )
    .into()
}
