//! Double entry: transfers between accounts, each under a key that is done once, the deltas of each summing to zero.
//!
//! The rules are in [`model`], which knows no database; here they are conditional statements, so that two transfers at once
//! cannot pass a check that only one of them may pass.

use flash_types::Timestamp;
use flash_types::side::SideProblem;

use crate::SideError;
use crate::sql::{Get as _, Reads, SqlError, Tx, query};

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
    /// Legs do not sum to zero, name an account twice, are fewer than two or zero.
    #[error("the legs do not make a transfer")]
    Unbalanced,
    /// The key belongs to a transfer with other legs.
    #[error("the key belongs to another transfer")]
    KeyReused,
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
            BooksError::Refused(refusal @ BooksRefusal::Insufficient { .. }) => {
                SideProblem::new(409, "insufficient_funds", refusal.to_string()).into()
            }
            BooksError::Refused(
                refusal @ (BooksRefusal::NoSuchAccount(_)
                | BooksRefusal::Unbalanced
                | BooksRefusal::KeyReused),
            ) => Self::Sql(SqlError::Broken(refusal.to_string())),
        }
    }
}

/// Opens an account.
///
/// # Errors
/// The database's.
pub async fn open(tx: &mut Tx, account: &Account<'_>) -> Result<(), SqlError> {
    let insert = query(
        "INSERT INTO account (id, owner, kind, currency, may_go_negative) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    );
    let insert = insert
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
    let insert = query(
        "INSERT INTO transfer (key, kind, reverses, rule_snapshot, at_ms) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (key) DO NOTHING RETURNING id",
    );
    let insert = insert
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
    for leg in legs {
        let update = query(
            "UPDATE account SET balance = balance + $1 \
             WHERE id = $2 AND (may_go_negative = 1 OR balance + $1 >= 0) RETURNING currency",
        );
        let update = update.bind(leg.delta).bind(leg.account.to_owned());
        let Some(row) = tx.row(update).await? else {
            return Err(why_not(tx, leg).await?.into());
        };
        let its = row.text("currency")?;
        if *currency.get_or_insert_with(|| its.clone()) != its {
            return Err(BooksRefusal::NoSuchAccount(leg.account.to_owned()).into());
        }
        let insert =
            query("INSERT INTO entry (transfer, account, currency, delta) VALUES ($1, $2, $3, $4)");
        let insert = insert
            .bind(id)
            .bind(leg.account.to_owned())
            .bind(its)
            .bind(leg.delta);
        tx.execute(insert).await?;
    }
    Ok(Transferred {
        id,
        is_replay: false,
    })
}

/// The balance of an account, from the cache; `None` if it is not open.
///
/// # Errors
/// The database's.
pub async fn balance(reads: &mut impl Reads, account: &str) -> Result<Option<i64>, SqlError> {
    let select = query("SELECT balance FROM account WHERE id = $1").bind(account.to_owned());
    reads
        .row(select)
        .await?
        .map(|row| row.int("balance"))
        .transpose()
}

fn check(legs: &[Leg<'_>]) -> Result<(), BooksRefusal> {
    let sum = legs
        .iter()
        .try_fold(0i64, |sum, leg| sum.checked_add(leg.delta));
    let is_twice = |leg: &Leg<'_>| {
        legs.iter()
            .filter(|other| other.account == leg.account)
            .count()
            > 1
    };
    if legs.len() < 2 || sum != Some(0) || legs.iter().any(|leg| leg.delta == 0 || is_twice(leg)) {
        return Err(BooksRefusal::Unbalanced);
    }
    Ok(())
}

async fn why_not(tx: &mut Tx, leg: Leg<'_>) -> Result<BooksRefusal, SqlError> {
    Ok(match balance(tx, leg.account).await? {
        None => BooksRefusal::NoSuchAccount(leg.account.to_owned()),
        Some(_) => BooksRefusal::Insufficient {
            account: leg.account.to_owned(),
            needed: leg.delta.saturating_neg(),
        },
    })
}

async fn replay(tx: &mut Tx, transfer: &Transfer<'_>) -> Result<Transferred, BooksError> {
    let select = query(
        "SELECT t.id, e.account, e.delta FROM transfer t JOIN entry e ON e.transfer = t.id WHERE t.key = $1",
    );
    let rows = tx.rows(select.bind(transfer.key.to_owned())).await?;
    let mut id = None;
    let mut count = 0;
    for row in &rows {
        let (account, delta) = (row.text("account")?, row.int("delta")?);
        let is_same = |leg: &&Leg<'_>| leg.account == account && leg.delta == delta;
        count += usize::from(transfer.legs.iter().find(is_same).is_some());
        id = Some(row.int("id")?);
    }
    match id {
        Some(id) if count == rows.len() && count == transfer.legs.len() => Ok(Transferred {
            id,
            is_replay: true,
        }),
        Some(_) => Err(BooksRefusal::KeyReused.into()),
        // Its entries are written with it.
        None => Err(SqlError::Conflict.into()),
    }
}
