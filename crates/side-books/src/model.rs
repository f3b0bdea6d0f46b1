//! The rules of books and budgets without a database: what each command does to a state, and what it answers.
//!
//! Owns the meaning; [`crate::books`] and [`crate::budget`] say the same in SQL, and tests hold random histories of the two
//! against each other. It is written to be read, not to be fast.

use std::collections::{BTreeMap, BTreeSet};

use crate::books::{Leg, check};

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// [`crate::budget::fund`].
    Fund {
        /// Whose.
        campaign: String,
        /// Zero only opens it.
        amount: i64,
        /// Done once.
        key: String,
    },
    /// [`crate::budget::reduce`].
    Reduce {
        /// Whose.
        campaign: String,
        /// How much.
        amount: i64,
        /// Done once.
        key: String,
    },
    /// [`crate::budget::hold`].
    Hold {
        /// Whose.
        campaign: String,
        /// How much.
        amount: i64,
        /// Of the promise.
        key: String,
    },
    /// [`crate::budget::post`].
    Post {
        /// How much of it.
        spent: i64,
        /// Of the promise.
        key: String,
    },
    /// [`crate::budget::void`].
    Void {
        /// Of the promise.
        key: String,
    },
    /// [`crate::budget::recover`].
    Recover {
        /// Of the promise.
        key: String,
    },
    /// [`crate::books::transfer`].
    Transfer {
        /// Accounts and deltas.
        legs: Vec<(String, i64)>,
        /// Done once.
        key: String,
    },
    /// [`crate::books::reverse`].
    Reverse {
        /// Key of the transfer to be undone.
        of: String,
        /// Done once.
        key: String,
    },
    /// [`crate::books::freeze`].
    Freeze {
        /// Which.
        campaign: String,
    },
    /// [`crate::books::thaw`].
    Thaw {
        /// Which.
        campaign: String,
    },
}

/// What a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, now or before.
    Done,
    /// The budget does not hold that much.
    RunDry,
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is no transfer, or no promise.
    Unbalanced,
    /// The account is not open, or of another currency.
    NoSuchAccount,
    /// A guarded account would go below zero.
    Insufficient,
    /// The key belongs to something else, or what is there is in another state.
    StateConflict,
    /// There is no such budget, promise or transfer.
    NotFound,
    /// The books of the campaign are being looked at.
    Frozen,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// Transfers stay within one.
    pub currency: String,
    /// Never below zero.
    pub is_guarded: bool,
    /// Sum of its entries.
    pub balance: i64,
}

/// A promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldState {
    /// Whose budget.
    pub campaign: String,
    /// As promised.
    pub amount: i64,
    /// `open`, `posted` or `voided`.
    pub state: &'static str,
    /// Spent of it.
    pub posted: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Moved {
    kind: &'static str,
    reverses: Option<String>,
    legs: BTreeMap<String, i64>,
}

/// Everything there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// By id.
    pub accounts: BTreeMap<String, AccountState>,
    /// By key.
    pub holds: BTreeMap<String, HoldState>,
    transfers: BTreeMap<String, Moved>,
    frozen: BTreeSet<String>,
}

impl State {
    /// Opens an account; opening it again changes nothing.
    pub fn open(&mut self, id: &str, currency: &str, is_guarded: bool) {
        let account = AccountState {
            currency: currency.to_owned(),
            is_guarded,
            balance: 0,
        };
        self.accounts.entry(id.to_owned()).or_insert(account);
    }

    /// Applies a command, whole or not at all.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        let mut next = self.clone();
        match next.run(command) {
            Ok(outcome) => {
                *self = next;
                outcome
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Number of transfers.
    pub fn transfers(&self) -> usize {
        self.transfers.len()
    }

    fn run(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Fund {
                campaign,
                amount,
                key,
            } => self.fund(campaign, *amount, key),
            Command::Reduce {
                campaign,
                amount,
                key,
            } => {
                self.refuse_frozen(campaign)?;
                let available = part(campaign, "available");
                if !self.accounts.contains_key(&available) {
                    return Err(Refusal::NotFound);
                }
                let legs = [(available, -amount), (WORLD.to_owned(), *amount)];
                self.transfer(key, "reduce", &legs, None)
            }
            Command::Hold {
                campaign,
                amount,
                key,
            } => self.hold(campaign, *amount, key),
            Command::Post { spent, key } => self.close(key, "posted", *spent),
            Command::Void { key } => self.close(key, "voided", 0),
            Command::Recover { key } => self.recover(key),
            Command::Transfer { legs, key } => self.transfer(key, "move", legs, None),
            Command::Reverse { of, key } => self.reverse(of, key),
            Command::Freeze { campaign } => {
                self.frozen.insert(campaign.clone());
                Ok(Outcome::Done)
            }
            Command::Thaw { campaign } => {
                self.frozen.remove(campaign);
                Ok(Outcome::Done)
            }
        }
    }

    fn fund(&mut self, campaign: &str, amount: i64, key: &str) -> Result<Outcome, Refusal> {
        self.open(WORLD, CURRENCY, false);
        for name in ["available", "held", "spent"] {
            self.open(&part(campaign, name), CURRENCY, true);
        }
        if amount == 0 {
            return Ok(Outcome::Done);
        }
        let legs = [
            (WORLD.to_owned(), -amount),
            (part(campaign, "available"), amount),
        ];
        self.transfer(key, "fund", &legs, None)
    }

    fn hold(&mut self, campaign: &str, amount: i64, key: &str) -> Result<Outcome, Refusal> {
        if let Some(hold) = self.holds.get(key) {
            let is_same = hold.campaign == campaign && hold.amount == amount;
            return if is_same && hold.state != "voided" {
                Ok(Outcome::Done)
            } else {
                Err(Refusal::StateConflict)
            };
        }
        self.refuse_frozen(campaign)?;
        let (available, held) = (part(campaign, "available"), part(campaign, "held"));
        let free = self.accounts.get(&available).map(|it| it.balance);
        if free.is_none_or(|free| free < amount) {
            return Ok(Outcome::RunDry);
        }
        let hold = HoldState {
            campaign: campaign.to_owned(),
            amount,
            state: "open",
            posted: 0,
        };
        self.holds.insert(key.to_owned(), hold);
        let legs = [(available, -amount), (held, amount)];
        self.transfer(&format!("hold|{key}"), "hold", &legs, None)
    }

    fn close(&mut self, key: &str, state: &'static str, spent: i64) -> Result<Outcome, Refusal> {
        let hold = self.holds.get(key).cloned().ok_or(Refusal::NotFound)?;
        if hold.state != "open" {
            return if hold.state == state && hold.posted == spent {
                Ok(Outcome::Done)
            } else {
                Err(Refusal::StateConflict)
            };
        }
        self.refuse_frozen(&hold.campaign)?;
        if spent > hold.amount {
            return Err(Refusal::StateConflict);
        }
        let closed = HoldState {
            state,
            posted: spent,
            ..hold.clone()
        };
        self.holds.insert(key.to_owned(), closed);
        let mut legs = vec![(part(&hold.campaign, "held"), -hold.amount)];
        if spent > 0 {
            legs.push((part(&hold.campaign, "spent"), spent));
        }
        if hold.amount > spent {
            legs.push((part(&hold.campaign, "available"), hold.amount - spent));
        }
        let kind = if state == "posted" { "post" } else { "void" };
        self.transfer(&format!("{kind}|{key}"), kind, &legs, None)
    }

    fn recover(&mut self, key: &str) -> Result<Outcome, Refusal> {
        let hold = self.holds.get(key).cloned().ok_or(Refusal::NotFound)?;
        if hold.state != "posted" {
            return Err(Refusal::StateConflict);
        }
        if hold.posted == 0 {
            return Ok(Outcome::Done);
        }
        self.refuse_frozen(&hold.campaign)?;
        let legs = [
            (part(&hold.campaign, "available"), hold.posted),
            (part(&hold.campaign, "spent"), -hold.posted),
        ];
        let post = format!("post|{key}");
        self.transfer(&format!("recover|{key}"), "recover", &legs, Some(post))
    }

    fn reverse(&mut self, of: &str, key: &str) -> Result<Outcome, Refusal> {
        let moved = self.transfers.get(of).cloned().ok_or(Refusal::NotFound)?;
        let is_promise = ["hold", "post", "void", "recover"].contains(&moved.kind);
        if is_promise || moved.reverses.is_some() {
            return Err(Refusal::StateConflict);
        }
        let legs: Vec<(String, i64)> = moved
            .legs
            .into_iter()
            .map(|(id, delta)| (id, -delta))
            .collect();
        self.transfer(key, "reversal", &legs, Some(of.to_owned()))
    }

    fn transfer(
        &mut self,
        key: &str,
        kind: &'static str,
        legs: &[(String, i64)],
        reverses: Option<String>,
    ) -> Result<Outcome, Refusal> {
        let checked: Vec<Leg<'_>> = legs
            .iter()
            .map(|(account, delta)| Leg {
                account,
                delta: *delta,
            })
            .collect();
        check(&checked).map_err(|_| Refusal::Unbalanced)?;
        let moved = Moved {
            kind,
            reverses,
            legs: legs.iter().cloned().collect(),
        };
        if let Some(before) = self.transfers.get(key) {
            return if *before == moved {
                Ok(Outcome::Done)
            } else {
                Err(Refusal::StateConflict)
            };
        }
        let is_reversed = |before: &Moved| before.reverses == moved.reverses;
        if moved.reverses.is_some() && self.transfers.values().any(is_reversed) {
            return Err(Refusal::StateConflict);
        }
        let mut currency = None;
        for (id, delta) in &moved.legs {
            let account = self.accounts.get_mut(id).ok_or(Refusal::NoSuchAccount)?;
            account.balance += delta;
            if account.is_guarded && account.balance < 0 {
                return Err(Refusal::Insufficient);
            }
            if *currency.get_or_insert_with(|| account.currency.clone()) != account.currency {
                return Err(Refusal::NoSuchAccount);
            }
        }
        self.transfers.insert(key.to_owned(), moved);
        Ok(Outcome::Done)
    }

    fn refuse_frozen(&self, campaign: &str) -> Result<(), Refusal> {
        if self.frozen.contains(campaign) {
            return Err(Refusal::Frozen);
        }
        Ok(())
    }
}

/// All budgets of the model are in one currency.
pub const CURRENCY: &str = "CNY";
const WORLD: &str = "world:CNY";

fn part(campaign: &str, name: &str) -> String {
    crate::budget::account(campaign, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_or_taken_back_and_what_it_spent_comes_back_once() {
        let mut state = State::default();
        let key = || "k".to_owned();
        let campaign = || "c".to_owned();
        let hold = |amount| Command::Hold {
            campaign: campaign(),
            amount,
            key: key(),
        };
        let fund = Command::Fund {
            campaign: campaign(),
            amount: 10,
            key: "f".to_owned(),
        };
        assert_eq!(state.apply(&hold(7)), Outcome::RunDry);
        assert_eq!(state.apply(&fund), Outcome::Done);
        assert_eq!(state.apply(&fund), Outcome::Done);
        assert_eq!(state.apply(&hold(11)), Outcome::RunDry);
        assert_eq!(state.apply(&hold(7)), Outcome::Done);
        let post = |spent| Command::Post { spent, key: key() };
        let conflict = Outcome::Refused(Refusal::StateConflict);
        assert_eq!(state.apply(&post(8)), conflict);
        assert_eq!(state.apply(&post(5)), Outcome::Done);
        assert_eq!(state.apply(&Command::Void { key: key() }), conflict);
        let balance = |state: &State, name| state.accounts[&part("c", name)].balance;
        assert_eq!(
            (balance(&state, "available"), balance(&state, "spent")),
            (5, 5)
        );
        for _ in 0..2 {
            assert_eq!(state.apply(&Command::Recover { key: key() }), Outcome::Done);
            assert_eq!(
                (balance(&state, "available"), balance(&state, "spent")),
                (10, 0)
            );
        }
    }
}
