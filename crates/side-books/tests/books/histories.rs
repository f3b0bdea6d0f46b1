//! Random histories on a database and on the model: each command answers the same, and leaves the same balances.

use std::collections::BTreeSet;

use dev_servers::Databases;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use side_books::SideError;
use side_books::books::{self, Account, BooksError, Leg, Transfer};
use side_books::budget::{self, Held, Hold};
use side_books::model::{CURRENCY, Command, Outcome, Refusal, State};
use side_books::sql::{Database, Get as _, Reads as _, Tx, query};

use crate::{AT, assert_balanced, opened};

const COMMANDS: usize = 60;
/// A guarded one, one of another currency, one that may go negative, and one that is not open.
const ACCOUNTS: [&str; 4] = ["a", "b", "usd", "nobody"];

fn command() -> impl Strategy<Value = Command> {
    let campaign = || prop_oneof![Just("c1".to_owned()), Just("c2".to_owned())];
    let key = || (0..8u8).prop_map(|n| format!("k{n}"));
    // Of a transfer by its own key, and of those that a budget makes.
    let kinds =
        prop_oneof![6 => Just(""), 1 => Just("hold|"), 1 => Just("post|"), 1 => Just("recover|")];
    let of = (kinds, key()).prop_map(|(kind, key)| format!("{kind}{key}"));
    let amount = || prop_oneof![4 => 1..400i64, 1 => Just(0i64)];
    let account = || {
        prop_oneof![
            6 => Just("a"), 6 => Just("b"), 1 => Just("usd"), 1 => Just("nobody"),
            2 => Just("budget:c1:available"), 6 => Just("world:CNY"),
        ]
    };
    let legs = (
        account(),
        account(),
        1..300i64,
        prop_oneof![9 => Just(0), 1 => Just(1)],
    );
    let legs = legs.prop_map(|(from, to, amount, off)| {
        vec![(from.to_owned(), -amount), (to.to_owned(), amount + off)]
    });
    prop_oneof![
        2 => (campaign(), amount(), key()).prop_map(|(campaign, amount, key)| Command::Fund { campaign, amount, key }),
        1 => (campaign(), 1..400i64, key()).prop_map(|(campaign, amount, key)| Command::Reduce { campaign, amount, key }),
        6 => (campaign(), 1..400i64, key()).prop_map(|(campaign, amount, key)| Command::Hold { campaign, amount, key }),
        4 => (amount(), key()).prop_map(|(spent, key)| Command::Post { spent, key }),
        2 => key().prop_map(|key| Command::Void { key }),
        2 => key().prop_map(|key| Command::Recover { key }),
        5 => (legs, key()).prop_map(|(legs, key)| Command::Transfer { legs, key }),
        3 => (of, key()).prop_map(|(of, key)| Command::Reverse { of, key }),
        1 => campaign().prop_map(|campaign| Command::Freeze { campaign }),
        2 => campaign().prop_map(|campaign| Command::Thaw { campaign }),
    ]
}

fn guarded(id: &str) -> Account<'_> {
    let currency = if id == "usd" { "USD" } else { CURRENCY };
    Account {
        id,
        owner: "x",
        kind: "test",
        currency,
        may_go_negative: false,
    }
}

/// What it says, as a word.
async fn run(tx: &mut Tx, command: &Command) -> Result<Outcome, SideError> {
    match command {
        Command::Fund {
            campaign,
            amount,
            key,
        } => budget::fund(tx, campaign, CURRENCY, *amount, key, AT).await?,
        Command::Reduce {
            campaign,
            amount,
            key,
        } => budget::reduce(tx, campaign, *amount, key, AT).await?,
        Command::Hold {
            campaign,
            amount,
            key,
        } => {
            let hold = Hold {
                key,
                campaign,
                what: "test",
                amount_minor: *amount,
            };
            return Ok(match budget::hold(tx, &hold, AT).await? {
                Held::Held => Outcome::Done,
                Held::RunDry => Outcome::RunDry,
            });
        }
        Command::Post { spent, key } => budget::post(tx, key, *spent, AT).await?,
        Command::Void { key } => budget::void(tx, key, AT).await?,
        Command::Recover { key } => budget::recover(tx, key, AT).await?,
        Command::Transfer { legs, key } => {
            let legs: Vec<Leg<'_>> = legs
                .iter()
                .map(|(account, delta)| Leg {
                    account,
                    delta: *delta,
                })
                .collect();
            let transfer = Transfer {
                key,
                kind: "move",
                legs: &legs,
                reverses: None,
                rule_snapshot: None,
                at: AT,
            };
            books::transfer(tx, &transfer).await?;
        }
        Command::Reverse { of, key } => {
            let select = query("SELECT id FROM transfer WHERE key = $1").bind(of.clone());
            let row = tx.row(select).await?;
            let id = row.map_or(Ok(-1), |row| row.int("id"))?;
            let done: Result<_, BooksError> = books::reverse(tx, id, key, AT).await;
            done?;
        }
        Command::Freeze { campaign } => {
            // What was let go on is not frozen again for the same finding.
            let finding = side_books::id::fresh("f", AT);
            books::freeze(tx, campaign, &finding, "wrong", AT).await?;
        }
        Command::Thaw { campaign } => {
            books::thaw(tx, campaign).await?;
        }
    }
    Ok(Outcome::Done)
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::RunDry => "run_dry",
        Outcome::Refused(refusal) => match refusal {
            Refusal::Unbalanced | Refusal::NoSuchAccount => "internal",
            Refusal::Insufficient => "insufficient_funds",
            Refusal::StateConflict => "state_conflict",
            Refusal::NotFound => "not_found",
            Refusal::Frozen => "campaign_frozen",
        },
    }
}

/// Gives the words that were said.
async fn play(database: &Database, commands: &[Command], of: &str) -> BTreeSet<&'static str> {
    let mut words = BTreeSet::new();
    let mut state = State::default();
    let mut tx = database.begin().await.unwrap();
    for id in ACCOUNTS.into_iter().take(3) {
        let account = guarded(id);
        books::open(&mut tx, &account).await.unwrap();
        state.open(id, account.currency, true);
    }
    tx.commit().await.unwrap();
    for (number, command) in commands.iter().enumerate() {
        let expected = word(state.apply(command));
        let mut tx = database.begin().await.unwrap();
        let said = match run(&mut tx, command).await {
            Ok(outcome) => {
                tx.commit().await.unwrap();
                word(outcome)
            }
            Err(error) => {
                tx.rollback().await;
                error.into_problem().outcome
            }
        };
        assert_eq!(said, expected, "{of}: command {number}, {command:?}");
        words.insert(said);
    }
    let mut reads = database.read().await.unwrap();
    for (id, account) in &state.accounts {
        let balance = books::balance(&mut reads, id).await.unwrap();
        assert_eq!(balance, Some(account.balance), "{of}: {id}");
    }
    let report = assert_balanced(database, of).await;
    assert_eq!(report.transfers, state.transfers() as u64, "{of}");
    assert_eq!(report.holds, state.holds.len() as u64, "{of}");
    assert_eq!(report.accounts, state.accounts.len() as u64, "{of}");
    // The caches, made again from nothing, are what they were.
    let mut tx = database.begin().await.unwrap();
    tx.execute(query("UPDATE account SET balance = 7"))
        .await
        .unwrap();
    side_books::audit::rebuild(&mut tx).await.unwrap();
    for (id, account) in &state.accounts {
        let balance = books::balance(&mut tx, id).await.unwrap();
        assert_eq!(balance, Some(account.balance), "{of}: rebuilt {id}");
    }
    tx.rollback().await;
    words
}

fn histories(seed: u8, count: usize) -> Vec<Vec<Command>> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = proptest::collection::vec(command(), COMMANDS);
    (0..count)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

/// Clears what the last history left, which is quicker than a new database.
async fn clear(database: &Database) {
    let mut tx = database.begin().await.unwrap();
    for sql in [
        "DELETE FROM entry",
        "UPDATE transfer SET reverses = NULL",
        "DELETE FROM transfer",
        "DELETE FROM hold",
        "DELETE FROM account",
        "DELETE FROM frozen",
    ] {
        tx.execute(query(sql)).await.unwrap();
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn random_histories_are_as_in_the_model() {
    let seed = 7;
    let servers = Databases::start().unwrap();
    // In memory: thousands of commits need not wait for a disk.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let folder = folder.unwrap();
    let file = format!("sqlite:{}", folder.path().join("d.db").display());
    for (url, count) in [(file, 200), (servers.postgres.database().unwrap(), 20)] {
        let database = opened(&url).await;
        let mut words = BTreeSet::new();
        for (number, commands) in histories(seed, count).iter().enumerate() {
            let of = format!("{url}, seed {seed}, history {number}");
            words.append(&mut play(&database, commands, &of).await);
            clear(&database).await;
        }
        // Everything that can be said was said.
        assert_eq!(words.len(), 7, "{words:?}");
    }
}
