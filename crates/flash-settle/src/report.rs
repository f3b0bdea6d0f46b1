//! What an audit says: for people as text, for programs as JSON.

use std::fmt;

use flash_types::ItemUnits;
use serde::Serialize;

/// Findings that a report lists; more are counted.
pub const FINDINGS_MAX: usize = 1_000;

/// What an audit found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Nothing is wrong.
    pub ok: bool,
    /// Every sale that was ever made.
    pub sales: Vec<SaleReport>,
    /// What is wrong, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// Findings that were not listed.
    pub findings_left_out: u64,
    /// How much was looked at.
    pub counts: Counts,
}

/// One sale.
#[derive(Debug, Serialize)]
pub struct SaleReport {
    /// Its name.
    pub sale_id: String,
    /// Its state.
    pub state: String,
    /// Its items.
    pub items: Vec<ItemReport>,
}

/// The counters of one item.
#[derive(Debug, Serialize)]
pub struct ItemReport {
    /// Its name.
    pub item: String,
    /// Where its units are.
    #[serde(flatten)]
    pub units: ItemUnits,
}

/// How much was looked at.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Durable batches; in Redis those that changed something.
    pub batches: u64,
    /// Reservations, in any state.
    pub reservations: u64,
    /// Other events.
    pub events: u64,
    /// Decisions on references.
    pub decisions: u64,
    /// Lines of the admin log.
    pub notes: u64,
    /// Number of the last acknowledged batch, as the file `acked` has it; Redis has no such number for all sales.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acked: Option<u64>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub code: Code,
    /// The sale, where one is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sale: Option<String>,
    /// The item, where one is concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// What exactly.
    pub detail: String,
}

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// SQLite's own check found damage, or something that is stored cannot be read.
    Damaged,
    /// Acknowledged batches are not there.
    AckedMissing,
    /// A batch is not there.
    BatchMissing,
    /// A batch has fewer or more rows than were committed.
    BatchIncomplete,
    /// A batch's rows are not as they were committed.
    BatchAltered,
    /// Rows lie in no batch.
    RowWithoutBatch,
    /// A start of the process is not listed.
    StartMissing,
    /// An event, a decision or a row speaks of a sale or an item that is not there.
    SaleMissing,
    /// A sale is not as its events made it.
    SaleAltered,
    /// `stock != unreleased + available + reserved + sold`.
    Imbalance,
    /// Counters differ from the sums over reservations.
    CounterMismatch,
    /// Counters differ from the fold of the events.
    FoldMismatch,
    /// An event speaks of a reservation that is not there.
    ReservationMissing,
    /// A reservation is not as its events made it: one of them is missing, or the row was changed.
    ReservationAltered,
    /// An event does not fit the state before it.
    EventUnfit,
    /// An event recorded a decision that is not there, or reads otherwise.
    DecisionMissing,
    /// A decision that no event recorded.
    DecisionUnknown,
    /// One key won twice.
    KeyTwice,
    /// The index of the keys that won is not complete, or wrong.
    KeyIndex,
    /// The units that count against a buyer's limit differ from the sum over that buyer's reservations.
    BuyerSum,
    /// A key of Redis holds more or less than it should.
    SizeMismatch,
}

impl Code {
    /// The word in JSON and text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::AckedMissing => "acked_missing",
            Self::BatchMissing => "batch_missing",
            Self::BatchIncomplete => "batch_incomplete",
            Self::BatchAltered => "batch_altered",
            Self::RowWithoutBatch => "row_without_batch",
            Self::StartMissing => "start_missing",
            Self::SaleMissing => "sale_missing",
            Self::SaleAltered => "sale_altered",
            Self::Imbalance => "imbalance",
            Self::CounterMismatch => "counter_mismatch",
            Self::FoldMismatch => "fold_mismatch",
            Self::ReservationMissing => "reservation_missing",
            Self::ReservationAltered => "reservation_altered",
            Self::EventUnfit => "event_unfit",
            Self::DecisionMissing => "decision_missing",
            Self::DecisionUnknown => "decision_unknown",
            Self::KeyTwice => "key_twice",
            Self::KeyIndex => "key_index",
            Self::BuyerSum => "buyer_sum",
            Self::SizeMismatch => "size_mismatch",
        }
    }
}

impl Report {
    /// Says of findings from this place on, as far as they name none, that they concern this sale.
    pub(crate) fn name_sale(&mut self, from: usize, sale: &str) {
        for finding in self.findings.iter_mut().skip(from) {
            finding.sale.get_or_insert_with(|| sale.to_owned());
        }
    }

    pub(crate) fn add(&mut self, code: Code, detail: String) {
        self.add_of(code, None, None, detail);
    }

    pub(crate) fn add_of(
        &mut self,
        code: Code,
        sale: Option<&str>,
        item: Option<&str>,
        detail: String,
    ) {
        if self.findings.len() >= FINDINGS_MAX {
            self.findings_left_out += 1;
            return;
        }
        self.findings.push(Finding {
            code,
            sale: sale.map(str::to_owned),
            item: item.map(str::to_owned),
            detail,
        });
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.as_str())?;
        if let Some(sale) = &self.sale {
            write!(f, " sale {sale}")?;
        }
        if let Some(item) = &self.item {
            write!(f, " item {item}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items = self.sales.iter().flat_map(|sale| &sale.items);
        let width = items.map(|item| item.item.len()).max().unwrap_or(0).max(4);
        for sale in &self.sales {
            writeln!(f, "sale {} ({})", sale.sale_id, sale.state)?;
            writeln!(
                f,
                "  {:width$} {:>11} {:>11} {:>11} {:>11} {:>11}",
                "item", "stock", "unreleased", "available", "reserved", "sold"
            )?;
            for item in &sale.items {
                let units = &item.units;
                writeln!(
                    f,
                    "  {:width$} {:>11} {:>11} {:>11} {:>11} {:>11}",
                    item.item,
                    units.stock,
                    units.unreleased,
                    units.available,
                    units.reserved,
                    units.sold
                )?;
            }
        }
        let counts = &self.counts;
        let acked = counts.acked.map_or(String::new(), |acked| {
            format!(" (acknowledged up to {acked})")
        });
        writeln!(
            f,
            "{} batches{acked}, {} reservations, {} other events, {} decisions, {} notes",
            counts.batches, counts.reservations, counts.events, counts.decisions, counts.notes
        )?;
        for finding in &self.findings {
            writeln!(f, "WRONG {finding}")?;
        }
        if self.findings_left_out > 0 {
            writeln!(f, "WRONG and {} more", self.findings_left_out)?;
        }
        f.write_str(if self.ok {
            "ok: the books balance"
        } else {
            "NOT OK: the books do not balance, or the store is not complete"
        })
    }
}
