//! Double entry: transfers between accounts, each under a key that is done once, the deltas of each summing to zero.
//!
//! The rules are in [`crate::model`], which knows no database; here they are conditional statements, so that two transfers at once
//! cannot pass a check that only one of them may pass.

use flash_types::Timestamp;
use flash_types::side::SideProblem;

use crate::SideError;
use crate::queries::{
    ACCOUNT, ADD_TO_ACCOUNT, FREEZE, FREEZE_FOR, FROZEN, INSERT_ENTRY, INSERT_THREE_ENTRIES,
    INSERT_TRANSFER, INSERT_TWO_ENTRIES, OPEN_ACCOUNT, REVERSED_BY, THAW, TRANSFER_BY_ID,
    TRANSFER_BY_KEY,
};
use crate::sql::{Get as _, Reads, SqlError, Tx, query};

/// Most legs of a transfer.
pub const LEGS_MAX: usize = 100;
/// Largest amount of a leg: sums of very many of them stay within `i64`.
pub const AMOUNT_MAX: i64 = 1_000_000_000_000_000;

/// An account to be opened; opening it again changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account<'a> {
    /// `budget:<campaign>:held`, `points:<buyer>:available` …
    pub id: &'a str,
    /// A buyer, a campaign, or `shop`.
    pub owner: &'a str,
    /// What it is for: a word.
    pub kind: &'a str,
    /// `CNY`, or `PTS` for points.
    pub currency: &'a str,
    /// Accounts of the world outside may; all others are guarded.
    pub may_go_negative: bool,
}

/// One leg of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg<'a> {
    /// An account that is open.
    pub account: &'a str,
    /// Minor units or points, not zero.
    pub delta: i64,
}

/// A transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer<'a> {
    /// Done once, for ever.
    pub key: &'a str,
    /// A word: `hold`, `post`, `void`, `fund` …
    pub kind: &'a str,
    /// At least two, of different accounts of one currency, summing to zero.
    pub legs: &'a [Leg<'a>],
    /// The transfer that this one undoes; each can be undone once.
    pub reverses: Option<i64>,
    /// The rule by which the amount was found, as JSON, where there is one.
    pub rule_snapshot: Option<&'a str>,
    /// When.
    pub at: Timestamp,
}

/// What became of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// Its number.
    pub id: i64,
    /// The key was used before; nothing was done now.
    pub is_replay: bool,
}

/// Why a transfer is refused. The transaction has to be rolled back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BooksRefusal {
    /// A guarded account would go below zero.
    #[error("{account} holds less than {needed}")]
    Insufficient {
        /// Which.
        account: String,
        /// How much was to be taken.
        needed: i64,
    },
    /// No such account, or of another currency than the first leg's.
    #[error("{0} is not an open account of this currency")]
    NoSuchAccount(String),
    /// Legs do not sum to zero, name an account twice, are zero or too large, fewer than two or more than [`LEGS_MAX`].
    #[error("the legs do not make a transfer")]
    Unbalanced,
    /// The key belongs to a transfer with other legs.
    #[error("the key belongs to another transfer")]
    KeyReused,
    /// No such transfer.
    #[error("there is no transfer {0}")]
    NoSuchTransfer(i64),
    /// It was reversed before, under another key.
    #[error("transfer {0} is reversed already")]
    AlreadyReversed(i64),
    /// It is a reversal itself, or a move of a promise, which a budget undoes in its own way.
    #[error("transfer {0} is not of those that are reversed")]
    NotReversible(i64),
}

/// A refusal of the books or a failure of the database.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// A value.
    #[error(transparent)]
    Refused(#[from] BooksRefusal),
    /// Somebody's job.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl From<BooksError> for SideError {
    fn from(error: BooksError) -> Self {
        match error {
            BooksError::Sql(error) => Self::Sql(error),
            BooksError::Refused(refusal) => {
                let (status, outcome) = match refusal {
                    BooksRefusal::Insufficient { .. } => (409, "insufficient_funds"),
                    BooksRefusal::KeyReused
                    | BooksRefusal::AlreadyReversed(_)
                    | BooksRefusal::NotReversible(_) => (409, "state_conflict"),
                    BooksRefusal::NoSuchTransfer(_) => (404, "not_found"),
                    BooksRefusal::NoSuchAccount(_) | BooksRefusal::Unbalanced => {
                        return Self::Sql(SqlError::Broken(refusal.to_string()));
                    }
                };
                SideProblem::new(status, outcome, refusal.to_string()).into()
            }
        }
    }
}

/// Opens an account.
///
/// # Errors
/// The database's.
pub async fn open(tx: &mut Tx, account: &Account<'_>) -> Result<(), SqlError> {
    let insert = query(OPEN_ACCOUNT)
        .bind(account.id.to_owned())
        .bind(account.owner.to_owned())
        .bind(account.kind.to_owned())
        .bind(account.currency.to_owned())
        .bind(i64::from(account.may_go_negative));
    tx.execute(insert).await?;
    Ok(())
}

/// Moves money, once per key.
///
/// # Errors
/// [`BooksRefusal`]; the database's. The transaction must not be committed then.
pub async fn transfer(tx: &mut Tx, transfer: &Transfer<'_>) -> Result<Transferred, BooksError> {
    check(transfer.legs)?;
    let insert = query(INSERT_TRANSFER)
        .bind(transfer.key.to_owned())
        .bind(transfer.kind.to_owned())
        .bind(transfer.reverses)
        .bind(transfer.rule_snapshot.map(str::to_owned))
        .bind(transfer.at.0);
    let Some(row) = tx.row(insert).await? else {
        return replay(tx, transfer).await;
    };
    let id = row.int("id")?;
    // In one order everywhere, so that two transfers over the same accounts never wait for each other in a circle.
    let mut legs = transfer.legs.to_vec();
    legs.sort_unstable_by(|a, b| a.account.cmp(b.account));
    let mut currency: Option<String> = None;
    for leg in &legs {
        let update = query(ADD_TO_ACCOUNT)
            .bind(leg.delta)
            .bind(leg.account.to_owned());
        let Some(row) = tx.row(update).await? else {
            return Err(why_not(tx, leg).await?.into());
        };
        let its = row.text("currency")?;
        if *currency.get_or_insert_with(|| its.clone()) != its {
            return Err(BooksRefusal::NoSuchAccount(leg.account.to_owned()).into());
        }
    }
    enter(tx, id, &currency.unwrap_or_default(), &legs).await?;
    Ok(Transferred {
        id,
        is_replay: false,
    })
}

/// Undoes a transfer: the same legs with the other sign, once for ever. Guarded accounts are guarded here too.
///
/// # Errors
/// [`BooksRefusal`]; the database's. The transaction must not be committed then.
pub async fn reverse(
    tx: &mut Tx,
    transfer_id: i64,
    key: &str,
    at: Timestamp,
) -> Result<Transferred, BooksError> {
    let rows = tx.rows(query(TRANSFER_BY_ID).bind(transfer_id)).await?;
    let first = rows
        .first()
        .ok_or(BooksRefusal::NoSuchTransfer(transfer_id))?;
    let is_promise = ["hold", "post", "void", "recover"].contains(&first.text("kind")?.as_str());
    if is_promise || first.int_or_null("reverses")?.is_some() {
        return Err(BooksRefusal::NotReversible(transfer_id).into());
    }
    let mut accounts = Vec::with_capacity(rows.len());
    for row in &rows {
        accounts.push((row.text("account")?, -row.int("delta")?));
    }
    let legs: Vec<Leg<'_>> = accounts
        .iter()
        .map(|(account, delta)| Leg {
            account,
            delta: *delta,
        })
        .collect();
    let reversal = Transfer {
        key,
        kind: "reversal",
        legs: &legs,
        reverses: Some(transfer_id),
        rule_snapshot: None,
        at,
    };
    transfer(tx, &reversal).await
}

/// Stops all moves of a campaign's budget until [`thaw`]; the first reason is kept. `true`: now, for this finding. One that
/// has frozen it before does not do so again, until the auditor has seen it put right.
///
/// `finding` names it for ever, `reason` tells it to people.
///
/// # Errors
/// The database's.
pub async fn freeze(
    tx: &mut Tx,
    campaign: &str,
    finding: &str,
    reason: &str,
    at: Timestamp,
) -> Result<bool, SqlError> {
    let insert = query(FREEZE_FOR)
        .bind(campaign.to_owned())
        .bind(finding.to_owned())
        .bind(at.0);
    if tx.execute(insert).await? == 0 {
        return Ok(false);
    }
    let insert = query(FREEZE)
        .bind(campaign.to_owned())
        .bind(reason.to_owned())
        .bind(at.0);
    Ok(tx.execute(insert).await? == 1)
}

/// Lets a campaign's budget move again; what was found of it until now does not freeze it a second time. `false`: it was not
/// frozen.
///
/// # Errors
/// The database's.
pub async fn thaw(tx: &mut Tx, campaign: &str) -> Result<bool, SqlError> {
    let delete = query(THAW).bind(campaign.to_owned());
    Ok(tx.execute(delete).await? == 1)
}

/// Whether the books of a campaign were found wrong, and nobody has put that right.
///
/// # Errors
/// The database's.
pub async fn is_frozen(reads: &mut impl Reads, campaign: &str) -> Result<bool, SqlError> {
    let select = query(FROZEN).bind(campaign.to_owned());
    Ok(reads.row(select).await?.is_some())
}

/// The balance of an account, from the cache; `None` if it is not open.
///
/// # Errors
/// The database's.
pub async fn balance(reads: &mut impl Reads, account: &str) -> Result<Option<i64>, SqlError> {
    let select = query(ACCOUNT).bind(account.to_owned());
    reads
        .row(select)
        .await?
        .map(|row| row.int("balance"))
        .transpose()
}

pub(crate) fn check(legs: &[Leg<'_>]) -> Result<(), BooksRefusal> {
    let sum = legs
        .iter()
        .try_fold(0i64, |sum, leg| sum.checked_add(leg.delta));
    let is_amount = |leg: &Leg<'_>| leg.delta != 0 && leg.delta.unsigned_abs() <= AMOUNT_MAX as u64;
    let is_twice = |(place, leg): (usize, &Leg<'_>)| {
        legs[..place]
            .iter()
            .any(|other| other.account == leg.account)
    };
    let is_good = (2..=LEGS_MAX).contains(&legs.len())
        && sum == Some(0)
        && legs.iter().all(is_amount)
        && !legs.iter().enumerate().any(is_twice);
    if is_good {
        Ok(())
    } else {
        Err(BooksRefusal::Unbalanced)
    }
}

/// Writes the legs: two or three, as nearly all have, in one statement.
async fn enter(tx: &mut Tx, id: i64, currency: &str, legs: &[Leg<'_>]) -> Result<(), SqlError> {
    let (sql, at_once) = match legs.len() {
        2 => (INSERT_TWO_ENTRIES, 2),
        3 => (INSERT_THREE_ENTRIES, 3),
        _ => (INSERT_ENTRY, 1),
    };
    for legs in legs.chunks(at_once) {
        let mut insert = query(sql).bind(id).bind(currency.to_owned());
        for leg in legs {
            insert = insert.bind(leg.account.to_owned()).bind(leg.delta);
        }
        tx.execute(insert).await?;
    }
    Ok(())
}

async fn why_not(tx: &mut Tx, leg: &Leg<'_>) -> Result<BooksRefusal, SqlError> {
    Ok(match balance(tx, leg.account).await? {
        None => BooksRefusal::NoSuchAccount(leg.account.to_owned()),
        Some(_) => BooksRefusal::Insufficient {
            account: leg.account.to_owned(),
            needed: leg.delta.saturating_neg(),
        },
    })
}

/// The key was used, or what is to be reversed was reversed.
async fn replay(tx: &mut Tx, transfer: &Transfer<'_>) -> Result<Transferred, BooksError> {
    let select = query(TRANSFER_BY_KEY).bind(transfer.key.to_owned());
    let rows = tx.rows(select).await?;
    let Some(first) = rows.first() else {
        if let Some(reversed) = transfer.reverses {
            let select = query(REVERSED_BY).bind(reversed);
            if tx.row(select).await?.is_some() {
                return Err(BooksRefusal::AlreadyReversed(reversed).into());
            }
        }
        // Its entries are written with it: it was there a moment ago, and was rolled back.
        return Err(SqlError::Conflict.into());
    };
    let mut is_same = rows.len() == transfer.legs.len()
        && first.text("kind")? == transfer.kind
        && first.int_or_null("reverses")? == transfer.reverses;
    for row in &rows {
        let (account, delta) = (row.text("account")?, row.int("delta")?);
        let mut legs = transfer.legs.iter();
        is_same &= legs.any(|leg| leg.account == account && leg.delta == delta);
    }
    if is_same {
        Ok(Transferred {
            id: first.int("id")?,
            is_replay: true,
        })
    } else {
        Err(BooksRefusal::KeyReused.into())
    }
}
