//! What the figures do not tell.

use flash_types::{SaleState, Serial, Timestamp, bounds};

use super::view::{Funnel, Note};
use super::{Plan, view};

/// What may be missing, as far as rows show it.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    pub(super) has_counts: bool,
    /// Sales in which it was not looked for returning buyers.
    pub(super) earlier_left_out: usize,
    /// First and last start of the program that reserved.
    starts: Option<(u64, u64)>,
}

impl Doubts {
    pub(super) fn saw_serial(&mut self, serial: Serial) {
        let start = serial.0 / bounds::SERIALS_PER_EPOCH;
        let (first, last) = self.starts.unwrap_or((start, start));
        self.starts = Some((first.min(start), last.max(start)));
    }

    pub(super) fn notes(&self, plan: &Plan, funnel: &Funnel, made_at: Timestamp) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut note = |code, detail: String| notes.push(view::Note { code, detail });
        let is_over = plan.state == SaleState::Closed || made_at >= plan.definition.ends_at;
        if !is_over || funnel.open.orders > 0 {
            let detail = "Orders may still be made or paid: the figures move, and those of one report may be a moment \
                          apart. Tries of the last ten seconds are not in them.";
            note("not_over", detail.into());
        }
        if funnel.in_flight.orders > 0 {
            let detail = format!(
                "{} orders were being decided on: make the report again.",
                funnel.in_flight.orders
            );
            note("in_flight", detail);
        }
        if self.starts.is_some_and(|(first, last)| first != last) {
            let detail = "The program was started again during the sale. Where it had crashed, tries that reserved nothing \
                          of up to ten seconds before are not counted.";
            note("restarted", detail.into());
        }
        if !self.has_counts && funnel.reserved.orders > 0 {
            let detail = "No try is stored that reserved nothing: there was none, or the sale was made by a program that \
                          did not count them.";
            note("no_counts", detail.into());
        }
        if funnel.unknown_attempts > 0 {
            let detail = format!(
                "{} tries were told unknown; those that had reserved after all count twice among the tries.",
                funnel.unknown_attempts
            );
            note("unknown_attempts", detail);
        }
        if plan.is_retired {
            let detail = "The sale has left memory: tries since then are not counted.";
            note("retired", detail.into());
        }
        if self.earlier_left_out > 0 {
            let detail = format!(
                "{} earlier sales were not looked through in time: some returning buyers count as new.",
                self.earlier_left_out
            );
            note("earlier_left_out", detail);
        }
        notes
    }
}
