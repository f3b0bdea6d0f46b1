//! Budgets: cap = available + held + spent, three guarded accounts of a campaign. A promise holds, keeping it posts, taking
//! it back voids; each once per key.
// open -> posted | voided. Nothing leaves a closed hold.

use flash_types::Timestamp;
use flash_types::side::SideProblem;

use crate::SideError;
use crate::books::{
    Account, BooksError, BooksRefusal, Leg, Transfer, open as open_account, transfer,
};
use crate::sql::{Get as _, Reads, SqlError, Tx, query};

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
    let legs = [
        Leg {
            account: &world,
            delta: -amount_minor,
        },
        Leg {
            account: &available,
            delta: amount_minor,
        },
    ];
    let fund = Transfer {
        key,
        kind: "fund",
        legs: &legs,
        reverses: None,
        rule_snapshot: None,
        at,
    };
    transfer(tx, &fund).await?;
    Ok(())
}

/// Promises. The same key again changes nothing.
///
/// # Errors
/// 409 `state_conflict` where the key was voided, or used for another amount; the database's.
pub async fn hold(tx: &mut Tx, hold: &Hold<'_>, at: Timestamp) -> Result<Held, SideError> {
    let available = account(hold.campaign, "available");
    let select = query("SELECT campaign, amount, state FROM hold WHERE key = $1");
    if let Some(row) = tx.row(select.bind(hold.key.to_owned())).await? {
        let is_same =
            row.text("campaign")? == hold.campaign && row.int("amount")? == hold.amount_minor;
        return match (is_same, row.text("state")?.as_str()) {
            (true, "open" | "posted") => Ok(Held::Held),
            (_, state) => Err(conflict(hold.key, state)),
        };
    }
    let held = account(hold.campaign, "held");
    let legs = [
        Leg {
            account: &available,
            delta: -hold.amount_minor,
        },
        Leg {
            account: &held,
            delta: hold.amount_minor,
        },
    ];
    // Asked first by a condition, so that a dry budget spoils nothing.
    let update = query(
        "UPDATE account SET balance = balance WHERE id = $1 AND balance >= $2 RETURNING currency",
    );
    let Some(row) = tx
        .row(update.bind(available.clone()).bind(hold.amount_minor))
        .await?
    else {
        return Ok(Held::RunDry);
    };
    let insert = query(
        "INSERT INTO hold (key, campaign, what, currency, amount, state, opened_at_ms) \
         VALUES ($1, $2, $3, $4, $5, 'open', $6) ON CONFLICT DO NOTHING",
    );
    let insert = insert
        .bind(hold.key.to_owned())
        .bind(hold.campaign.to_owned())
        .bind(hold.what.to_owned())
        .bind(row.text("currency")?)
        .bind(hold.amount_minor)
        .bind(at.0);
    if tx.execute(insert).await? == 0 {
        // The same key at the same moment.
        return Err(SqlError::Conflict.into());
    }
    let key = format!("hold|{}", hold.key);
    let moved = Transfer {
        key: &key,
        kind: "hold",
        legs: &legs,
        reverses: None,
        rule_snapshot: None,
        at,
    };
    transfer(tx, &moved).await?;
    Ok(Held::Held)
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

/// The budget of a campaign; `None` if it has none.
///
/// # Errors
/// The database's.
pub async fn read(reads: &mut impl Reads, campaign: &str) -> Result<Option<Budget>, SqlError> {
    let select = query("SELECT id, balance FROM account WHERE owner = $1 AND kind = 'budget'");
    let rows = reads.rows(select.bind(campaign.to_owned())).await?;
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
    let update = query(
        "UPDATE hold SET state = $1, posted = $2, closed_at_ms = $3 \
         WHERE key = $4 AND state = 'open' AND amount >= $2 RETURNING campaign, amount",
    );
    let spent = spent_minor.unwrap_or(0);
    let update = update
        .bind(state)
        .bind(spent)
        .bind(at.0)
        .bind(key.to_owned());
    let Some(row) = tx.row(update).await? else {
        let select = query("SELECT state, posted FROM hold WHERE key = $1").bind(key.to_owned());
        let row = tx.row(select).await?;
        let row = row.ok_or_else(|| SideProblem::not_found("promise"))?;
        let (was, posted) = (row.text("state")?, row.int("posted")?);
        return if was == state && posted == spent {
            Ok(())
        } else {
            Err(conflict(key, &was))
        };
    };
    let (campaign, amount) = (row.text("campaign")?, row.int("amount")?);
    let (available, held, gone) = (
        account(&campaign, "available"),
        account(&campaign, "held"),
        account(&campaign, "spent"),
    );
    let mut legs = vec![Leg {
        account: &held,
        delta: -amount,
    }];
    if spent > 0 {
        legs.push(Leg {
            account: &gone,
            delta: spent,
        });
    }
    if amount > spent {
        legs.push(Leg {
            account: &available,
            delta: amount - spent,
        });
    }
    let kind = if state == "posted" { "post" } else { "void" };
    let transfer_key = format!("{kind}|{key}");
    let moved = Transfer {
        key: &transfer_key,
        kind,
        legs: &legs,
        reverses: None,
        rule_snapshot: None,
        at,
    };
    match transfer(tx, &moved).await {
        Ok(_) => Ok(()),
        Err(BooksError::Refused(refusal @ BooksRefusal::Insufficient { .. })) => {
            // What is held is held: this is damage, not a refusal.
            Err(SqlError::Broken(refusal.to_string()).into())
        }
        Err(error) => Err(error.into()),
    }
}

fn conflict(key: &str, state: &str) -> SideError {
    SideProblem::new(
        409,
        "state_conflict",
        format!("the promise {key} is {state}"),
    )
    .into()
}
