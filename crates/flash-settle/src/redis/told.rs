//! What the events of one sale tell, and which of it was found in the other keys so far.
//!
//! Reads nothing by itself. Invariant: an entry of another key is held against it as of one and the same moment of the
//! store, that is when all events before that moment were taken and none after it.

use std::collections::{BTreeMap, HashMap};

use flash_types::SaleDefinition;
use xxhash_rust::xxh3::xxh3_64;

use super::text::{
    Batch, Change, Entry, EventLine, Record, Reserved, decision_field, decision_of, facts,
    facts_of, number, reserved_lines,
};
use crate::fold::{Event, Fold, RESERVED, Reservation, payment_hash, state_word};
use crate::item::Sum;
use crate::report::{Code, Report};

/// Which key is being read. What is made while it is read, or later, need not be found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Events,
    Records,
    Keys,
    Sums,
    Decisions,
}

/// Of a reservation: hashes of what has to stand in its record and elsewhere, and what was found.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    pub facts: u64,
    /// Until when it is kept unpaid, by its events.
    pub expires_ms: i64,
    pub buyer: u64,
    /// Of its field in `key`.
    pub key: u64,
    /// Of its list in `ref`; 0 for none.
    pub list: u64,
    pub has_record: bool,
    pub has_key: bool,
    pub has_list: bool,
}

/// Units of one item that count against one buyer's limit.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    pub units: i64,
    /// One of the buyer's reservations.
    pub serial: u64,
    pub is_found: bool,
}

/// A decision that an event recorded.
#[derive(Debug, Clone, Copy)]
pub struct Decided {
    pub content: u64,
    /// The event.
    pub serial: u64,
    pub is_found: bool,
}

/// The account of one sale's events.
#[derive(Debug)]
pub struct Told {
    pub sale_no: u32,
    /// Of this sale alone.
    pub fold: Fold,
    /// Of each reservation of the fold, in the same order.
    pub marks: Vec<Mark>,
    /// By hash of the buyer, and item.
    pub held: HashMap<(u64, u16), Held>,
    pub decisions: HashMap<u64, Decided>,
    /// Reservations with a list in `ref`.
    pub lists: u64,
    /// Units of each item over the records that were read, moved on by later events.
    pub sums: BTreeMap<u16, Sum>,
    /// The plan of the last draft.
    pub definition: Option<SaleDefinition>,
    /// Serial of the first draft.
    pub serial_first: u64,
    pub serial_max: u64,
    /// The state before a freeze.
    pub thaw: Option<&'static str>,
    /// The last entry: its id, and the numbers in it.
    pub id: Option<String>,
    pub generation: u64,
    pub number: u64,
    pub at_ms: i64,
    stage: Stage,
}

impl Told {
    pub fn of(sale_no: u32) -> Self {
        Self {
            sale_no,
            fold: Fold::default(),
            marks: Vec::new(),
            held: HashMap::new(),
            decisions: HashMap::new(),
            lists: 0,
            sums: BTreeMap::new(),
            definition: None,
            serial_first: 0,
            serial_max: 0,
            thaw: None,
            id: None,
            generation: 0,
            number: 0,
            at_ms: 0,
            stage: Stage::Events,
        }
    }

    /// From here on this key is read.
    pub fn begin(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Takes the next entry of `ev`.
    pub fn take(&mut self, entry: &Entry, report: &mut Report) {
        report.counts.batches += 1;
        self.id = Some(entry.0.clone());
        let Some(batch) = Batch::of(entry) else {
            let detail = format!("the entry {} of ev cannot be read", entry.0);
            return report.add(Code::Damaged, detail);
        };
        self.follow(&batch, report);
        for line in batch.lines.split('\n') {
            let unreadable = || format!("batch {}: {line:?} cannot be read", batch.number);
            match Change::of(line) {
                Some(Change::Reserved(reserved)) => self.reserved(&reserved, report),
                Some(Change::Event(event)) => self.event(&event, report),
                Some(Change::Run(run)) => {
                    for reserved in run.reservations() {
                        match reserved {
                            Some(reserved) => self.reserved(&reserved, report),
                            None => report.add(Code::Damaged, unreadable()),
                        }
                    }
                }
                None => report.add(Code::Damaged, unreadable()),
            }
        }
    }

    /// Batches are numbered without gaps, and time does not go back.
    fn follow(&mut self, batch: &Batch<'_>, report: &mut Report) {
        let expected = self.number + 1;
        let number = batch.number;
        if number == expected + 1 {
            report.add(Code::BatchMissing, format!("batch {expected} is not there"));
        } else if number > expected {
            let detail = format!("batches {expected} to {} are not there", number - 1);
            report.add(Code::BatchMissing, detail);
        } else if number < expected {
            let detail = format!("batch {number} follows batch {}", self.number);
            report.add(Code::BatchAltered, detail);
        }
        if batch.generation < self.generation || batch.at_ms < self.at_ms {
            let detail = format!("batch {number} is older than the one before it");
            report.add(Code::BatchAltered, detail);
        }
        (self.generation, self.number, self.at_ms) = (batch.generation, number, batch.at_ms);
    }

    fn reserved(&mut self, reserved: &Reserved<'_>, report: &mut Report) {
        report.counts.reservations += 1;
        let serial = reserved.serial;
        self.serial_max = self.serial_max.max(serial);
        let last = self.fold.reservations.last();
        if last.is_some_and(|last| last.serial >= serial) {
            if self.place_of(serial).is_some() {
                let detail = format!("reservation {serial} was made twice");
                return report.add(Code::EventUnfit, detail);
            }
            let detail = format!("reservation {serial} was made after one with a greater number");
            report.add(Code::EventUnfit, detail);
        }
        let lines = reserved_lines(reserved.lines).map(Vec::into_iter);
        let Some((Some(first), more)) = lines.map(|mut lines| (lines.next(), lines)) else {
            let detail = format!("the lines of reservation {serial} cannot be read");
            return report.add(Code::Damaged, detail);
        };
        let expires_ms = self.at_ms + self.window_ms();
        let facts = facts(
            &self.at_ms.to_string(),
            reserved.buyer,
            reserved.key,
            reserved.lines,
        );
        let mark = Mark {
            facts: xxh3_64(facts.as_bytes()),
            expires_ms,
            buyer: xxh3_64(reserved.buyer.as_bytes()),
            key: key_hash(reserved.buyer, reserved.key),
            list: 0,
            has_record: self.stage >= Stage::Records,
            has_key: self.stage >= Stage::Keys,
            has_list: false,
        };
        let reservation = Reservation {
            serial,
            sale_no: self.sale_no,
            // What its record says is held against the events when it is read.
            state: RESERVED,
            folded_state: RESERVED,
            first,
            more: more.collect(),
            payment: 0,
            folded_payment: 0,
            expires_ms,
            folded_extension: None,
        };
        let place = self.fold.reserve(reservation, report);
        self.marks.insert(place, mark);
        self.count(place, 1);
    }

    fn event(&mut self, line: &EventLine<'_>, report: &mut Report) {
        report.counts.events += 1;
        self.serial_max = self.serial_max.max(line.serial);
        let event = Event {
            serial: line.serial,
            sale_no: self.sale_no,
            kind: line.kind,
            reservation: line.reservation,
            reference: line.reference,
            data: line.data,
        };
        let place = line.reservation.and_then(|serial| self.place_of(serial));
        let state_before = self.state();
        if let Some(place) = place {
            self.count(place, -1);
        }
        self.fold.event(&event, report);
        if let Some(place) = place {
            self.count(place, 1);
        }
        self.take_decision(&event, place, report);
        if let Some(place) = place {
            self.check_time(&event, place, report);
        }
        match event.kind {
            "sale.drafted" => self.drafted(&event),
            "sale.price_changed" => self.replanned(),
            "sale.frozen" if state_before != Some("frozen") => self.thaw = state_before,
            "sale.thawed" => {
                let before = self.thaw.take();
                // An open sale may come back paused, for somebody to look at it.
                let is_paused = (before, self.state()) == (Some("open"), Some("paused"));
                if before != self.state() && !is_paused {
                    let detail = format!(
                        "event {} (sale.thawed) makes the sale {}, before its freeze it was {}",
                        event.serial,
                        self.state().unwrap_or("nothing"),
                        before.unwrap_or("nothing")
                    );
                    report.add(Code::EventUnfit, detail);
                }
            }
            _ => {}
        }
    }

    fn drafted(&mut self, event: &Event<'_>) {
        if self.serial_first == 0 {
            self.serial_first = event.serial;
        }
        // What cannot be read was told by the fold.
        self.definition = event.data.and_then(|data| serde_json::from_str(data).ok());
    }

    /// The fold has put the price into the plan.
    fn replanned(&mut self) {
        let sale = self.fold.sales.get(&self.sale_no);
        self.definition = sale.and_then(|sale| serde_json::from_str(&sale.definition).ok());
    }

    /// An extension ends later than what it extends, and nothing expires before its time.
    fn check_time(&mut self, event: &Event<'_>, place: usize, report: &mut Report) {
        let before = self.marks[place].expires_ms;
        let name = self.fold.reservations[place].name();
        let told = |what: String| {
            let (serial, kind) = (event.serial, event.kind);
            format!("event {serial} ({kind}) of {name}, kept until {before}, {what}")
        };
        match event.kind {
            "reservation.extended" => {
                let until = facts_of(event.data).until;
                if until <= before {
                    let detail = told(format!("keeps it until {until}"));
                    report.add(Code::EventUnfit, detail);
                }
                self.marks[place].expires_ms = until;
            }
            "reservation.expired" if self.at_ms < before => {
                let detail = told(format!("is of {}", self.at_ms));
                report.add(Code::EventUnfit, detail);
            }
            _ => {}
        }
    }

    fn take_decision(&mut self, event: &Event<'_>, place: Option<usize>, report: &mut Report) {
        let Some(told) = self.fold.decisions.pop() else {
            return;
        };
        let is_found = self.stage >= Stage::Decisions;
        let decided = Decided {
            content: told.content,
            serial: told.serial,
            is_found,
        };
        if self.decisions.insert(told.place, decided).is_some() {
            let detail = format!(
                "event {} ({}) decides on {} once more",
                event.serial,
                event.kind,
                decided_on(event.reference, event.data)
            );
            report.add(Code::EventUnfit, detail);
        }
        if let Some(place) = place {
            let serial = self.fold.reservations[place].serial;
            let field = decision_field(event, serial);
            let mark = &mut self.marks[place];
            self.lists += u64::from(mark.list == 0);
            mark.list = chained(mark.list, &field);
            mark.has_list |= is_found;
        }
    }

    /// Adds what a reservation counts for to the sums, or with `sign` -1 takes it away.
    fn count(&mut self, place: usize, sign: i64) {
        let (reservation, mark) = (&self.fold.reservations[place], &self.marks[place]);
        for line in reservation.lines() {
            let state = reservation.folded_state;
            let mut sum = Sum::default();
            sum.add(state, line.units, line.folded_restocked, sign);
            let held = self.held.entry((mark.buyer, line.item)).or_default();
            held.units += sum.reserved + sum.sold;
            held.serial = reservation.serial;
            held.is_found |= self.stage >= Stage::Sums;
            // A record that is still to be read is counted then, as it will be.
            if mark.has_record {
                let sum = self.sums.entry(line.item).or_default();
                sum.add(state, line.units, line.folded_restocked, sign);
            }
        }
    }

    /// A record of `resv`.
    pub fn record(&mut self, field: &str, text: &str, report: &mut Report) {
        let place = number(field).and_then(|serial| self.place_of(serial));
        let Some(record) = Record::of(text) else {
            if let Some(place) = place {
                self.marks[place].has_record = true;
            }
            let detail = format!("reservation {field} cannot be read: {text:?}");
            return report.add(Code::Damaged, detail);
        };
        if place.is_none_or(|place| !self.marks[place].has_record) {
            for line in &record.lines {
                let sum = self.sums.entry(line.item).or_default();
                sum.add(record.state, line.units, line.restocked, 1);
            }
        }
        let Some(place) = place else {
            let detail = format!("reservation {field} is there, no event made it");
            return report.add(Code::RowWithoutBatch, detail);
        };
        self.marks[place].has_record = true;
        let differences = self.differences(place, &record);
        if !differences.is_empty() {
            let name = self.fold.reservations[place].name();
            let detail = format!("{name} {}", differences.join(" and "));
            report.add(Code::ReservationAltered, detail);
        }
    }

    fn differences(&self, place: usize, record: &Record<'_>) -> Vec<String> {
        let (reservation, mark) = (&self.fold.reservations[place], &self.marks[place]);
        let mut differences = Vec::new();
        if record.state != reservation.folded_state {
            differences.push(format!(
                "is {}, its events made it {}",
                state_word(record.state),
                state_word(reservation.folded_state)
            ));
        }
        if payment_hash(record.payment) != reservation.folded_payment {
            differences.push("has another payment than its events".into());
        }
        if xxh3_64(record.buyer.as_bytes()) != mark.buyer {
            differences.push(format!("is of {}, its event names another", record.buyer));
        } else if key_hash(record.buyer, record.key) != mark.key {
            let key = record.key;
            differences.push(format!("was won by {key}, its event names another key"));
        } else if xxh3_64(record.facts.as_bytes()) != mark.facts {
            differences.push("has other times, units or prices than its event".into());
        }
        if record.expires_ms != mark.expires_ms {
            let (found, told) = (record.expires_ms, mark.expires_ms);
            differences.push(format!("is kept until {found}, its events say {told}"));
        }
        let lines = record.lines.iter().zip(reservation.lines());
        let is_refunded_otherwise = lines.into_iter().any(|(line, told)| {
            (line.refunded, line.restocked) != (told.folded_refunded, told.folded_restocked)
        });
        if is_refunded_otherwise {
            differences.push("has other refunded units than its events".into());
        }
        differences
    }

    /// An entry of `key`.
    pub fn key(&mut self, field: &str, value: &str, report: &mut Report) {
        let Some(place) = number(value).and_then(|serial| self.place_of(serial)) else {
            let detail = format!("key {field} points at {value}, which no event made");
            return report.add(Code::KeyIndex, detail);
        };
        if self.marks[place].key == xxh3_64(field.as_bytes()) {
            self.marks[place].has_key = true;
        } else {
            let name = self.fold.reservations[place].name();
            let detail = format!("key {field} points at {name}, which another key won");
            report.add(Code::KeyIndex, detail);
        }
    }

    /// An entry of `buyer`.
    pub fn sum(&mut self, field: &str, value: &str, report: &mut Report) {
        let place = field
            .rsplit_once('|')
            .and_then(|(buyer, item)| Some((xxh3_64(buyer.as_bytes()), number(item)?)));
        let told = place.and_then(|place| self.held.get_mut(&place));
        let units = told.map_or(0, |held| {
            held.is_found = true;
            held.units
        });
        // No entry stays at 0.
        if units == 0 || number(value) != Some(units) {
            let detail = format!("{field} holds {value}, its reservations sum to {units}");
            report.add(Code::BuyerSum, detail);
        }
    }

    /// An entry of `ref`.
    pub fn decision(&mut self, field: &str, value: &str, report: &mut Report) {
        if let Some(serial) = field.strip_prefix("of|") {
            return self.list(serial, value, report);
        }
        let Some((place, content)) = decision_of(self.sale_no, field, value) else {
            let detail = format!("the decision {field} cannot be read: {value:?}");
            return report.add(Code::Damaged, detail);
        };
        match self.decisions.get_mut(&place) {
            Some(decided) => {
                decided.is_found = true;
                if decided.content != content {
                    let detail = format!(
                        "event {} decided otherwise on {field} than {value:?}",
                        decided.serial
                    );
                    report.add(Code::DecisionMissing, detail);
                }
            }
            None => report.add(
                Code::DecisionUnknown,
                format!("no event recorded what is decided for {field}"),
            ),
        }
    }

    /// An entry of `ref` that lists the decisions on a reservation.
    fn list(&mut self, serial: &str, value: &str, report: &mut Report) {
        let place = number(serial).and_then(|serial| self.place_of(serial));
        let mark = place.map(|place| &mut self.marks[place]);
        let Some(mark) = mark.filter(|mark| mark.list != 0) else {
            let detail = format!("of|{serial} lists decisions, no event recorded one");
            return report.add(Code::DecisionUnknown, detail);
        };
        mark.has_list = true;
        if value.split(' ').fold(0, chained) != mark.list {
            let detail = format!("of|{serial} lists other decisions than its events: {value:?}");
            report.add(Code::DecisionMissing, detail);
        }
    }

    /// The state that the sale is in by its events.
    pub fn state(&self) -> Option<&'static str> {
        let sale = self.fold.sales.get(&self.sale_no);
        sale.map(|sale| sale.state)
    }

    /// Entries that `buyer` has to hold.
    pub fn held_count(&self) -> u64 {
        let held = self.held.values().filter(|held| held.units > 0);
        held.count() as u64
    }

    /// How long a reservation made now is kept unpaid.
    pub fn window_ms(&self) -> i64 {
        let definition = self.definition.as_ref();
        definition.map_or(0, |definition| {
            i64::from(definition.payment_window_s) * 1_000
        })
    }

    fn place_of(&self, serial: u64) -> Option<usize> {
        self.fold
            .reservations
            .binary_search_by_key(&serial, |reservation| reservation.serial)
            .ok()
    }
}

/// In words.
pub fn decided_on(reference: Option<&str>, data: Option<&str>) -> String {
    reference.map_or_else(
        || format!("the price of item {}", facts_of(data).item),
        str::to_owned,
    )
}

fn key_hash(buyer: &str, key: &str) -> u64 {
    xxh3_64(format!("{buyer}|{key}").as_bytes())
}

/// The hash of a list with one more field; never 0.
fn chained(before: u64, field: &str) -> u64 {
    let mut bytes = before.to_le_bytes().to_vec();
    bytes.extend(field.as_bytes());
    xxh3_64(&bytes).max(1)
}
