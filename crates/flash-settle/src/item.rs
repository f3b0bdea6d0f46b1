//! The three accounts of one item: its counters, the sum over reservations, the fold of the events.

use flash_types::ItemUnits;

use crate::fold::{Account, CONFIRMED, REFUNDED, RESERVED};
use crate::report::{Code, ItemReport, Report};

/// Units of an item over reservations, by their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    pub reserved: i64,
    pub sold: i64,
}

impl Sum {
    /// Adds a line of a reservation in this state, or with `sign` -1 takes it away.
    pub fn add(&mut self, state: u8, units: u32, restocked: u32, sign: i64) {
        match state {
            RESERVED => self.reserved += sign * i64::from(units),
            CONFIRMED | REFUNDED => self.sold += sign * (i64::from(units) - i64::from(restocked)),
            _ => {}
        }
    }
}

/// What each account says of an item.
#[derive(Debug, Clone, Copy)]
pub struct Accounts {
    pub stored: Account,
    pub sum: Sum,
    pub folded: Option<Account>,
}

impl Accounts {
    /// Holds them against each other.
    pub fn check(&self, sale_id: &str, item: &str, report: &mut Report) -> ItemReport {
        let Self {
            stored,
            sum,
            folded,
        } = self;
        let mut add = |code, detail| report.add_of(code, Some(sale_id), Some(item), detail);
        let placed = stored.unreleased + stored.available + stored.reserved + stored.sold;
        if stored.stock != placed {
            add(
                Code::Imbalance,
                format!("stock is {}, its units sum to {placed}", stored.stock),
            );
        }
        if (stored.reserved, stored.sold) != (sum.reserved, sum.sold) {
            let detail = format!(
                "counters say {} reserved and {} sold, reservations sum to {} and {}",
                stored.reserved, stored.sold, sum.reserved, sum.sold
            );
            add(Code::CounterMismatch, detail);
        }
        match folded {
            Some(folded) if folded == stored => {}
            Some(folded) => add(
                Code::FoldMismatch,
                format!(
                    "counters say {}, events fold to {}",
                    in_words(stored),
                    in_words(folded)
                ),
            ),
            None => add(Code::SaleMissing, "no event made this item".into()),
        }
        ItemReport {
            item: item.to_owned(),
            units: ItemUnits {
                stock: stored.stock.max(0).cast_unsigned(),
                unreleased: stored.unreleased.max(0).cast_unsigned(),
                available: stored.available.max(0).cast_unsigned(),
                reserved: stored.reserved.max(0).cast_unsigned(),
                sold: stored.sold.max(0).cast_unsigned(),
            },
        }
    }
}

fn in_words(account: &Account) -> String {
    format!(
        "stock {} = unreleased {} + available {} + reserved {} + sold {}",
        account.stock, account.unreleased, account.available, account.reserved, account.sold
    )
}
