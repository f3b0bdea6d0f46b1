//! One sale as the store has to keep it, in the plainest form there is: a list of what was reserved and of what was decided.
//!
//! Keeps no sums: what is available, sold, or held by a buyer is counted anew each time it is asked. Knows what a change
//! means (docs/ARCHITECTURE.md, "Redis: the protocol"), and how it lies in Redis; shares no code with the store.

use std::collections::BTreeMap;

use flash_store::*;
use flash_types::*;

use super::redis::Raw;

type Verdict = Result<(), EntryRefusal>;

/// One line of a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub item: u16,
    pub units: u64,
    pub price: i64,
    pub refunded: u64,
    pub restocked: u64,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    pub state: ReservationState,
    pub created_ms: i64,
    pub expires_ms: i64,
    pub buyer: BuyerId,
    pub key: IdempotencyKey,
    pub payment: Option<PaymentRef>,
    pub lines: Vec<Line>,
}

/// For what something was decided: kind, where the reference is unique, reference.
pub type Reference = (&'static str, u64, String);

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub kind: DecisionKind,
    pub reservation: Option<u64>,
    pub detail: String,
}

/// An entry of the event stream; of each change what comes before its facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub at_ms: i64,
    pub heads: Vec<String>,
}

/// One sale.
#[derive(Debug, Clone)]
pub struct Model {
    pub sale_no: u32,
    pub first_serial: u64,
    pub definition: SaleDefinition,
    pub state: SaleState,
    /// Its state before it was frozen for the first time.
    pub thaws_to: Option<SaleState>,
    pub is_retired: bool,
    /// What stock changes added, by item.
    pub added: Vec<i64>,
    /// Units of an item that became available by an opening or a wave; below zero: that an unpublishing took back.
    pub released: Vec<(u16, i64)>,
    /// Units that came back and waited for a wave.
    pub pooled: Vec<(u16, u64)>,
    pub reservations: BTreeMap<u64, Reserved>,
    pub decisions: BTreeMap<Reference, Decided>,
    /// References in the order of their decisions.
    pub decisions_of: BTreeMap<u64, Vec<Reference>>,
    pub notes: BTreeMap<u64, AdminNote>,
    pub events: Vec<Event>,
    /// What is told to the outside, without its facts.
    pub told: Vec<EventRow>,
    pub generation: u64,
    pub clock_ms: i64,
    /// Batches since the node joined.
    pub seq: u64,
    pub last_refused: Vec<(usize, EntryRefusal)>,
}

impl Model {
    /// A sale whose first batch begins with this draft.
    pub fn new(sale_no: u32, first_serial: u64, definition: &SaleDefinition) -> Self {
        Self {
            sale_no,
            first_serial,
            definition: definition.clone(),
            state: SaleState::Draft,
            thaws_to: None,
            is_retired: false,
            added: Vec::new(),
            released: Vec::new(),
            pooled: Vec::new(),
            reservations: BTreeMap::new(),
            decisions: BTreeMap::new(),
            decisions_of: BTreeMap::new(),
            notes: BTreeMap::new(),
            events: Vec::new(),
            told: Vec::new(),
            generation: 1,
            clock_ms: 0,
            seq: 0,
            last_refused: Vec::new(),
        }
    }

    /// A frozen sale takes nothing but another freeze, and notes.
    pub fn refuses_whole(&self, batch: &Batch) -> bool {
        let is_let_through =
            |entry: &Entry| matches!(entry.change, Change::Freeze { .. } | Change::Note(_));
        self.state == SaleState::Frozen && !batch.entries.iter().all(is_let_through)
    }

    /// Takes a batch at a time of the store's clock; gives what is refused of it.
    pub fn commit(&mut self, batch: &Batch, now_ms: i64) -> Vec<(usize, EntryRefusal)> {
        self.clock_ms = now_ms;
        self.seq += 1;
        let mut refused = Vec::new();
        let mut heads = Vec::new();
        let mut is_told_of = true;
        for (index, entry) in batch.entries.iter().enumerate() {
            if let Change::Note(note) = &entry.change {
                if is_told_of {
                    self.notes.insert(entry.serial.0, note.clone());
                }
                continue;
            }
            let is_frozen_again =
                matches!(entry.change, Change::Freeze { .. }) && self.state == SaleState::Frozen;
            let verdict = self.take(entry, now_ms);
            is_told_of = verdict.is_ok();
            match verdict {
                Ok(()) if is_frozen_again => {}
                Ok(()) => {
                    self.tell(entry, heads.len(), now_ms);
                    heads.push(head_of(entry));
                }
                Err(why) => refused.push((index, why)),
            }
        }
        if !heads.is_empty() {
            let id = format!("{}-{}", self.generation, self.events.len() + 1);
            self.events.push(Event {
                id,
                at_ms: now_ms,
                heads,
            });
        }
        self.last_refused.clone_from(&refused);
        refused
    }

    /// An operator takes the frozen sale as it is.
    pub fn accept(&mut self, serials: [Serial; 2], note: &AdminNote, now_ms: i64) {
        assert_eq!(self.state, SaleState::Frozen);
        self.state = self.thaws_to.take().unwrap();
        self.generation += 1;
        self.clock_ms = now_ms;
        self.seq = 0;
        self.last_refused.clear();
        self.notes.insert(serials[1].0, note.clone());
        self.told.push(EventRow {
            sale_no: SaleNo(self.sale_no),
            place: self.next_place(0),
            kind: "sale.thawed".into(),
            at: Timestamp(now_ms),
            reservation: None,
            reference: None,
            data: None,
        });
        self.events.push(Event {
            id: format!("{}-{}", self.generation, self.events.len() + 1),
            at_ms: now_ms,
            heads: vec![format!("E|{}|sale.thawed|||", serials[0].0)],
        });
    }

    fn next_place(&self, line: usize) -> EventPlace {
        EventPlace {
            generation: self.generation,
            sequence: (self.events.len() as u64 + 1) * 4_096 + line as u64,
        }
    }

    /// Keeps what a change tells, with its reservation as it is now.
    fn tell(&mut self, entry: &Entry, line: usize, now_ms: i64) {
        let head = head_of(entry);
        let parts: Vec<&str> = head.split('|').collect();
        let (kind, of, reference) = match parts[0] {
            "R" => ("reservation.reserved", parts[1], parts[3]),
            _ => (parts[2], parts[3], parts[4]),
        };
        if ["sale.drafted", "sale.retired", "sale.attempts"].contains(&kind) {
            return;
        }
        let reservation = of.parse().ok().map(|serial| self.row(serial));
        // Of these the change says by itself how it left the reservation.
        let reservation = reservation.map(|row| {
            if let Change::Refund { refunded, .. } = &entry.change {
                stood(row, None, refunded)
            } else if let Change::RefusePayment {
                state, refunded, ..
            }
            | Change::ProtectPrice {
                state, refunded, ..
            } = &entry.change
            {
                stood(row, Some(*state), refunded)
            } else {
                row
            }
        });
        self.told.push(EventRow {
            sale_no: SaleNo(self.sale_no),
            place: self.next_place(line),
            kind: kind.into(),
            at: Timestamp(now_ms),
            reservation,
            reference: Some(reference.to_owned()).filter(|text| !text.is_empty()),
            data: None,
        });
    }

    /// Takes one change that is no note, or says why not.
    pub fn take(&mut self, entry: &Entry, now_ms: i64) -> Verdict {
        match &entry.change {
            Change::PutDraft { definition } => self.draft(definition),
            Change::Publish => self.turn(SaleState::Published, &[SaleState::Draft]),
            Change::Open { held } => self.open(held, now_ms),
            Change::Unpublish => self.unpublish(),
            Change::ChangePrice { definition, .. } => {
                self.must_be_any(&[SaleState::Paused])?;
                self.definition = (**definition).clone();
                Ok(())
            }
            Change::Wave {
                item,
                wave,
                due_at,
                units,
            } => self.wave(item.0, *wave, due_at.0, *units, now_ms),
            Change::CountAttempts { .. } if self.state == SaleState::Frozen => stale("state"),
            Change::CountAttempts { .. } => Ok(()),
            Change::Pause => self.turn(SaleState::Paused, &[SaleState::Open]),
            Change::Resume => self.turn(SaleState::Open, &[SaleState::Paused]),
            Change::Close => {
                let from = [SaleState::Published, SaleState::Open, SaleState::Paused];
                self.turn(SaleState::Closed, &from)
            }
            Change::Retire if self.state != SaleState::Closed || self.is_retired => stale("state"),
            Change::Retire => {
                self.is_retired = true;
                Ok(())
            }
            Change::Freeze { .. } => {
                if self.state != SaleState::Frozen {
                    self.thaws_to = Some(self.state);
                }
                self.state = SaleState::Frozen;
                Ok(())
            }
            Change::Reserve {
                buyer, key, lines, ..
            } => self.reserve(entry.serial.0, *buyer, *key, lines, now_ms),
            Change::Confirm {
                reservation,
                payment_ref,
                is_late,
                units,
            } => self.confirm(reservation.0, *payment_ref, *is_late, units),
            Change::RefusePayment {
                reservation,
                payment_ref,
                is_expired,
                ..
            } => self.refuse_payment(reservation.0, *payment_ref, *is_expired),
            Change::ProtectPrice {
                reservation,
                item,
                units,
                paid_minor,
                price_minor,
                ..
            } => {
                let (paid, price) = (paid_minor.0, price_minor.0);
                let detail = format!(r#"{{"units":{units},"paid":{paid},"price":{price}}}"#);
                let reference = ("price_protection", reservation.0, item.0.to_string());
                self.owe(
                    reference,
                    reservation.0,
                    DecisionKind::PriceProtection,
                    detail,
                )
            }
            Change::Extend {
                reservation,
                expires_at,
            } => {
                let reserved = self.reservation(reservation.0)?;
                let is_longer = reserved.expires_ms < expires_at.0;
                if reserved.state != ReservationState::Reserved || !is_longer {
                    return stale("state");
                }
                reserved.expires_ms = expires_at.0;
                Ok(())
            }
            Change::Release {
                reservation,
                units,
                is_pooled,
            } => {
                self.must_be(reservation.0, ReservationState::Reserved, units)?;
                self.reservation(reservation.0)?.state = ReservationState::Released;
                self.pool(units, *is_pooled);
                Ok(())
            }
            Change::Expire {
                reservation,
                units,
                is_pooled,
            } => {
                self.must_be(reservation.0, ReservationState::Reserved, units)?;
                let reserved = self.reservation(reservation.0)?;
                if reserved.expires_ms > now_ms {
                    return Err(EntryRefusal::Early);
                }
                reserved.state = ReservationState::Expired;
                self.pool(units, *is_pooled);
                Ok(())
            }
            Change::Refund {
                reservation,
                refund_ref,
                restock,
                units,
                is_whole,
                ..
            } => self.refund(reservation.0, *refund_ref, *restock, units, *is_whole),
            Change::ChangeStock {
                item,
                key,
                asked_delta_units,
                applied_delta_units,
                ..
            } => self.change_stock(item.0, *key, *asked_delta_units, *applied_delta_units),
            Change::Note(_) => unreachable!("notes are no changes"),
        }
    }

    fn draft(&mut self, definition: &SaleDefinition) -> Verdict {
        if self.state != SaleState::Draft {
            return stale("state");
        }
        self.definition = definition.clone();
        self.added = vec![0; definition.items.len()];
        self.released.clear();
        self.pooled.clear();
        Ok(())
    }

    fn turn(&mut self, to: SaleState, from: &[SaleState]) -> Verdict {
        if !from.contains(&self.state) {
            return stale("state");
        }
        self.state = to;
        Ok(())
    }

    fn open(&mut self, held: &[Delta], now_ms: i64) -> Verdict {
        if self.state != SaleState::Published {
            return stale("state");
        }
        if now_ms < self.definition.starts_at.0 {
            return Err(EntryRefusal::Early);
        }
        self.state = SaleState::Open;
        for item in 0..self.definition.items.len() as u16 {
            let held = held.iter().find(|delta| delta.item.0 == item);
            let held = held.map_or(0, |delta| u64::from(delta.units));
            let units = self.units(item).unreleased.saturating_sub(held);
            self.released.push((item, units.cast_signed()));
        }
        Ok(())
    }

    fn unpublish(&mut self) -> Verdict {
        self.must_be_any(&[SaleState::Published, SaleState::Open, SaleState::Paused])?;
        if !self.reservations.is_empty() {
            return stale("reservations");
        }
        self.state = SaleState::Draft;
        for item in 0..self.definition.items.len() as u16 {
            let units = self.units(item).available;
            self.released.push((item, -units.cast_signed()));
        }
        Ok(())
    }

    fn wave(&mut self, item: u16, wave: WaveRef, due_ms: i64, units: u32, now_ms: i64) -> Verdict {
        self.must_be_any(&[SaleState::Published, SaleState::Open, SaleState::Paused])?;
        if usize::from(item) >= self.definition.items.len() {
            return stale("item");
        }
        let reference = name_of(wave).map(|name| ("wave", u64::from(item), name));
        if let Some(reference) = &reference {
            self.must_be_new(reference)?;
        }
        if now_ms < due_ms {
            return Err(EntryRefusal::Early);
        }
        if self.units(item).unreleased < u64::from(units) {
            return stale("units");
        }
        self.released.push((item, i64::from(units)));
        if let Some(reference) = reference {
            let detail = format!(r#"{{"item":{item},"units":{units}}}"#);
            self.decide(reference, DecisionKind::Wave, None, detail);
        }
        Ok(())
    }

    fn must_be_any(&self, states: &[SaleState]) -> Verdict {
        if states.contains(&self.state) {
            return Ok(());
        }
        stale("state")
    }

    fn pool(&mut self, units: &[Delta], is_pooled: bool) {
        let units = units.iter().filter(|_| is_pooled);
        let units = units.map(|delta| (delta.item.0, u64::from(delta.units)));
        self.pooled.extend(units);
    }

    fn reserve(
        &mut self,
        serial: u64,
        buyer: BuyerId,
        key: IdempotencyKey,
        lines: &[ReserveLine],
        now_ms: i64,
    ) -> Verdict {
        let mut all = self.reservations.iter();
        if let Some((known, _)) = all.find(|(_, of)| (of.buyer, of.key) == (buyer, key)) {
            return Err(EntryRefusal::KeyKnown(Serial(*known)));
        }
        match self.state {
            SaleState::Open if now_ms < self.definition.ends_at.0 => {}
            SaleState::Draft | SaleState::Published => {
                return Err(EntryRefusal::State(SaleState::Published));
            }
            SaleState::Paused => return Err(EntryRefusal::State(SaleState::Paused)),
            SaleState::Open | SaleState::Closed | SaleState::Frozen => {
                return Err(EntryRefusal::State(SaleState::Closed));
            }
        }
        if self.reservations.contains_key(&serial) {
            return stale("serial");
        }
        if !lines.is_sorted_by(|one, next| one.item < next.item) {
            return stale("lines");
        }
        for line in lines {
            let Some(item) = self.definition.items.get(usize::from(line.item.0)) else {
                return stale("item");
            };
            let held = self.held(&buyer, line.item.0) + u64::from(line.units);
            if item
                .units_per_buyer_max
                .is_some_and(|limit| held > u64::from(limit))
            {
                return Err(EntryRefusal::Limit);
            }
        }
        for line in lines {
            let available = self.units(line.item.0).available;
            if available < u64::from(line.units) {
                return Err(EntryRefusal::SoldOut(available as u32));
            }
        }
        let window_ms = i64::from(self.definition.payment_window_s) * 1_000;
        let lines = lines.iter().map(|line| Line {
            item: line.item.0,
            units: u64::from(line.units),
            price: line.unit_price_minor.0,
            refunded: 0,
            restocked: 0,
        });
        let reserved = Reserved {
            state: ReservationState::Reserved,
            created_ms: now_ms,
            expires_ms: now_ms + window_ms,
            buyer,
            key,
            payment: None,
            lines: lines.collect(),
        };
        self.reservations.insert(serial, reserved);
        Ok(())
    }

    fn confirm(
        &mut self,
        serial: u64,
        payment: PaymentRef,
        is_late: bool,
        units: &[Delta],
    ) -> Verdict {
        self.reservation(serial)?;
        let reference = ("payment", 0, payment.as_str().to_owned());
        self.must_be_new(&reference)?;
        let from = if is_late {
            ReservationState::Expired
        } else {
            ReservationState::Reserved
        };
        self.must_be(serial, from, units)?;
        let is_short = |delta: &Delta| self.units(delta.item.0).available < u64::from(delta.units);
        if is_late && units.iter().any(is_short) {
            return stale("units");
        }
        let reserved = self.reservation(serial)?;
        reserved.state = ReservationState::Confirmed;
        reserved.payment = Some(payment);
        self.decide(
            reference,
            DecisionKind::PaymentTaken,
            Some(serial),
            String::new(),
        );
        Ok(())
    }

    fn refuse_payment(&mut self, serial: u64, payment: PaymentRef, is_expired: bool) -> Verdict {
        let reference = ("payment", 0, payment.as_str().to_owned());
        let kind = if is_expired {
            DecisionKind::PaymentRefusedExpired
        } else {
            DecisionKind::PaymentRefusedConflict
        };
        self.owe(reference, serial, kind, String::new())
    }

    /// Money has to go back, and the reservation stays as it is.
    fn owe(
        &mut self,
        reference: Reference,
        serial: u64,
        kind: DecisionKind,
        detail: String,
    ) -> Verdict {
        let state = self.reservation(serial)?.state;
        self.must_be_new(&reference)?;
        // Nothing was paid for one that is reserved.
        if state == ReservationState::Reserved {
            return stale("state");
        }
        self.decide(reference, kind, Some(serial), detail);
        Ok(())
    }

    fn refund(
        &mut self,
        serial: u64,
        refund_ref: Option<RefundRef>,
        restock: bool,
        units: &[Delta],
        is_whole: bool,
    ) -> Verdict {
        self.reservation(serial)?;
        let reference = refund_ref.map(|name| ("refund", serial, name.as_str().to_owned()));
        if let Some(reference) = &reference {
            self.must_be_new(reference)?;
        }
        let reserved = self.reservation(serial)?;
        if reserved.state != ReservationState::Confirmed {
            return stale("state");
        }
        if !units.is_sorted_by(|one, next| one.item < next.item) {
            return stale("lines");
        }
        let mut after = reserved.clone();
        let mut placed = 0;
        for line in &mut after.lines {
            for delta in units.iter().filter(|delta| delta.item.0 == line.item) {
                placed += 1;
                line.refunded += u64::from(delta.units);
                line.restocked += if restock { u64::from(delta.units) } else { 0 };
            }
            if line.refunded > line.units {
                return stale("units");
            }
        }
        let leaves_nothing = after.lines.iter().all(|line| line.refunded == line.units);
        if placed != units.len() || leaves_nothing != is_whole {
            return stale("lines");
        }
        if is_whole {
            after.state = ReservationState::Refunded;
        }
        *reserved = after;
        if let Some(reference) = reference {
            let detail = format!(r#"{{"restock":{restock},"lines":{}}}"#, pairs(units));
            self.decide(reference, DecisionKind::Refund, Some(serial), detail);
        }
        Ok(())
    }

    fn change_stock(
        &mut self,
        item: u16,
        key: IdempotencyKey,
        asked: i64,
        applied: i64,
    ) -> Verdict {
        if usize::from(item) >= self.definition.items.len() {
            return stale("item");
        }
        let reference = ("stock_change", u64::from(item), key.as_str().to_owned());
        self.must_be_new(&reference)?;
        let units = self.units(item);
        let stock = units.stock.cast_signed() + applied;
        if units.available.cast_signed() + applied < 0 || stock > i64::from(u32::MAX) {
            return stale("units");
        }
        self.added[usize::from(item)] += applied;
        let detail = format!(r#"{{"item":{item},"asked":{asked},"applied":{applied}}}"#);
        self.decide(reference, DecisionKind::StockChange, None, detail);
        Ok(())
    }

    fn reservation(&mut self, serial: u64) -> Result<&mut Reserved, EntryRefusal> {
        let known = self.reservations.get_mut(&serial);
        known.ok_or_else(|| EntryRefusal::Stale("reservation".into()))
    }

    /// It is in this state, and these are its units.
    fn must_be(&mut self, serial: u64, state: ReservationState, units: &[Delta]) -> Verdict {
        let reserved = self.reservation(serial)?;
        let has_units = reserved.lines.len() == units.len()
            && reserved.lines.iter().zip(units).all(|(line, delta)| {
                line.item == delta.item.0 && line.units == u64::from(delta.units)
            });
        if reserved.state == state && has_units {
            Ok(())
        } else {
            stale("state")
        }
    }

    fn must_be_new(&self, reference: &Reference) -> Verdict {
        if self.decisions.contains_key(reference) {
            return stale("reference");
        }
        Ok(())
    }

    fn decide(
        &mut self,
        reference: Reference,
        kind: DecisionKind,
        reservation: Option<u64>,
        detail: String,
    ) {
        if let Some(serial) = reservation {
            let of = self.decisions_of.entry(serial).or_default();
            of.push(reference.clone());
        }
        let decided = Decided {
            kind,
            reservation,
            detail,
        };
        self.decisions.insert(reference, decided);
    }

    /// Units of an item that count against a buyer's limit.
    pub fn held(&self, buyer: &BuyerId, item: u16) -> u64 {
        let counts = |of: &&Reserved| {
            of.buyer == *buyer
                && !matches!(
                    of.state,
                    ReservationState::Released | ReservationState::Expired
                )
        };
        let of_buyer = self.reservations.values().filter(counts);
        of_buyer
            .flat_map(|of| &of.lines)
            .filter(|line| line.item == item)
            .map(|line| line.units - line.restocked)
            .sum()
    }

    /// Where the units of an item are.
    pub fn units(&self, item: u16) -> ItemUnits {
        let index = usize::from(item);
        let planned = u64::from(self.definition.items[index].stock_units);
        let sum = |states: &[ReservationState], of: fn(&Line) -> u64| -> u64 {
            let counted = self.reservations.values();
            counted
                .filter(|reserved| states.contains(&reserved.state))
                .flat_map(|reserved| &reserved.lines)
                .filter(|line| line.item == item)
                .map(of)
                .sum()
        };
        let stock = planned.strict_add_signed(self.added[index]);
        let of_item = |list: &&(u16, i64)| list.0 == item;
        let released: i64 = self.released.iter().filter(of_item).map(|of| of.1).sum();
        let pooled = self.pooled.iter().filter(|of| of.0 == item);
        let pooled: u64 = pooled.map(|of| of.1).sum();
        let unreleased = (planned + pooled).strict_sub_signed(released);
        let reserved = sum(&[ReservationState::Reserved], |line| line.units);
        let sold = sum(
            &[ReservationState::Confirmed, ReservationState::Refunded],
            |line| line.units - line.restocked,
        );
        let placed = unreleased + reserved + sold;
        let available = stock.checked_sub(placed).expect("never more than there is");
        ItemUnits {
            stock,
            unreleased,
            available,
            reserved,
            sold,
        }
    }

    /// Holds what lies in Redis against this: everything but names and numbers of processes.
    pub fn must_lie_in(&self, raw: &Raw) {
        self.must_be_in_meta(&raw.meta);
        let records: BTreeMap<String, String> = self
            .reservations
            .iter()
            .map(|(serial, reserved)| (serial.to_string(), record_of(reserved)))
            .collect();
        assert_eq!(raw.resv, records, "resv");
        let keys: BTreeMap<String, String> = self
            .reservations
            .iter()
            .map(|(serial, of)| (format!("{}|{}", of.buyer, of.key), serial.to_string()))
            .collect();
        assert_eq!(raw.key, keys, "key");
        assert_eq!(raw.buyer, self.buyer_sums(), "buyer");
        assert_eq!(raw.reference, self.references(), "ref");
        let notes: Vec<(String, String)> = raw.note.clone();
        assert_eq!(notes.len(), self.notes.len(), "note");
        for ((id, text), (serial, note)) in notes.iter().zip(&self.notes) {
            assert_eq!(*id, format!("{serial}-0"));
            assert!(text.contains(&note.detail), "{text}");
        }
        self.must_be_in_events(raw);
        let last = raw.w.values().next().unwrap();
        let refused: Vec<String> = self
            .last_refused
            .iter()
            .map(|(index, why)| format!("{index}:{}", spelled(why)))
            .collect();
        let parts: Vec<&str> = last.splitn(5, '|').collect();
        assert_eq!(parts[1], self.seq.to_string(), "w: {last}");
        assert_eq!(parts[2], self.clock_ms.to_string(), "w: {last}");
        assert_eq!(parts[3], self.events.len().to_string(), "w: {last}");
        assert_eq!(parts[4], refused.join(","), "w: {last}");
        assert_eq!(raw.w.len(), 1, "w");
    }

    fn must_be_in_meta(&self, meta: &BTreeMap<String, String>) {
        let definition: SaleDefinition = serde_json::from_str(&meta["def"]).unwrap();
        assert_eq!(definition, self.definition);
        let window_ms = i64::from(self.definition.payment_window_s) * 1_000;
        let references = self.decisions.len() + self.decisions_of.len();
        let mut wanted: BTreeMap<String, String> = [
            ("gen", self.generation.to_string()),
            ("state", self.state.as_str().to_owned()),
            ("ev", self.events.len().to_string()),
            ("clock_ms", self.clock_ms.to_string()),
            ("starts_ms", self.definition.starts_at.0.to_string()),
            ("ends_ms", self.definition.ends_at.0.to_string()),
            ("window_ms", window_ms.to_string()),
            ("sale_no", self.sale_no.to_string()),
            ("first_serial", self.first_serial.to_string()),
            ("retired", u8::from(self.is_retired).to_string()),
            ("n_resv", self.reservations.len().to_string()),
            ("n_key", self.reservations.len().to_string()),
            ("n_buyer", self.buyer_sums().len().to_string()),
            ("n_ref", references.to_string()),
            ("n_note", self.notes.len().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if let Some(state) = self.thaws_to {
            wanted.insert("thaw".into(), state.as_str().into());
        }
        for (index, item) in (0_u16..).zip(&self.definition.items) {
            let units = self.units(index);
            let limit = item
                .units_per_buyer_max
                .map_or(String::new(), |limit| limit.to_string());
            let text = format!(
                "{},{},{},{},{},{limit}",
                units.stock, units.unreleased, units.available, units.reserved, units.sold
            );
            wanted.insert(format!("i:{index}"), text);
        }
        let mut there = meta.clone();
        there.remove("def");
        // Of an accepted loss and of a moved home: the histories here have no say in them.
        there.remove("thawed");
        there.remove("grace_ms");
        assert!(there.remove("home").is_some_and(|home| home.len() == 40));
        assert_eq!(there, wanted, "meta");
    }

    fn buyer_sums(&self) -> BTreeMap<String, String> {
        let mut sums = BTreeMap::new();
        for of in self.reservations.values() {
            for line in &of.lines {
                let held = self.held(&of.buyer, line.item);
                if held > 0 {
                    sums.insert(format!("{}|{}", of.buyer, line.item), held.to_string());
                }
            }
        }
        sums
    }

    fn references(&self) -> BTreeMap<String, String> {
        let field = |(kind, scope, name): &Reference| format!("{kind}|{scope}|{name}");
        let decisions = self.decisions.iter().map(|(reference, decided)| {
            let outcome = match decided.kind {
                DecisionKind::PaymentTaken => "taken",
                DecisionKind::PaymentRefusedExpired => "refused_expired",
                DecisionKind::PaymentRefusedConflict => "refused_conflict",
                DecisionKind::Refund
                | DecisionKind::StockChange
                | DecisionKind::Wave
                | DecisionKind::PriceProtection => "done",
            };
            let serial = decided.reservation.unwrap_or(0);
            let value = format!("{outcome}|{serial}|{}", decided.detail);
            (field(reference), value)
        });
        let by_reservation = self.decisions_of.iter().map(|(serial, references)| {
            let fields: Vec<String> = references.iter().map(field).collect();
            (format!("of|{serial}"), fields.join(" "))
        });
        decisions.chain(by_reservation).collect()
    }

    fn must_be_in_events(&self, raw: &Raw) {
        assert_eq!(raw.ev.len(), self.events.len(), "ev");
        for (there, wanted) in raw.ev.iter().zip(&self.events) {
            assert_eq!(there.id, wanted.id, "{there:?}");
            assert_eq!(there.at, wanted.at_ms.to_string(), "{there:?}");
            assert_eq!(there.lines.len(), wanted.heads.len(), "{there:?}");
            for (line, head) in there.lines.iter().zip(&wanted.heads) {
                assert!(line.starts_with(head), "{line} should begin with {head}");
            }
        }
        let folded = folded(raw);
        let units: Vec<ItemUnits> = (0..self.definition.items.len())
            .map(|index| self.units(index as u16))
            .collect();
        assert_eq!(folded, units, "what a reader of the events makes of them");
    }

    /// Holds what the store reads back against this.
    pub fn must_be_read_as(&self, content: &SaleContent) {
        assert_eq!(content.sale.sale_no, SaleNo(self.sale_no));
        assert_eq!(content.sale.state, self.state);
        assert_eq!(content.sale.is_retired, self.is_retired);
        assert_eq!(content.sale.definition, self.definition);
        for (index, item) in (0_u16..).zip(&content.sale.items) {
            assert_eq!(item.index, ItemIndex(index));
            assert_eq!(item.units, self.units(index));
            assert_eq!(item.units.imbalance(), 0);
        }
        if self.is_retired {
            assert!(content.reservations.is_empty() && content.decisions.is_empty());
            return;
        }
        assert_eq!(content.reservations, self.rows());
        let order = |row: &DecisionRow| format!("{row:?}");
        let (mut there, mut wanted) = (content.decisions.clone(), self.decision_rows());
        there.sort_by_key(order);
        wanted.sort_by_key(order);
        assert_eq!(there, wanted);
    }

    /// All reservations as the store hands them over.
    pub fn rows(&self) -> Vec<ReservationRow> {
        self.reservations
            .keys()
            .map(|serial| self.row(*serial))
            .collect()
    }

    fn row(&self, serial: u64) -> ReservationRow {
        let of = &self.reservations[&serial];
        ReservationRow {
            serial: Serial(serial),
            sale_no: SaleNo(self.sale_no),
            buyer: of.buyer,
            key: of.key,
            state: of.state,
            lines: of
                .lines
                .iter()
                .map(|line| StoredLine {
                    item: ItemIndex(line.item),
                    units: line.units as u32,
                    unit_price_minor: Money(line.price),
                    refunded_units: line.refunded as u32,
                    restocked_units: line.restocked as u32,
                })
                .collect(),
            created_at: Timestamp(of.created_ms),
            expires_at: Timestamp(of.expires_ms),
            payment_ref: of.payment,
        }
    }

    /// All decisions as the store hands them over, in an order of their own.
    pub fn decision_rows(&self) -> Vec<DecisionRow> {
        self.decisions
            .keys()
            .map(|name| self.row_of(name))
            .collect()
    }

    /// Those of one reservation, as they were decided.
    pub fn decision_rows_of(&self, serial: u64) -> Vec<DecisionRow> {
        let of = self.decisions_of.get(&serial);
        let references = of.into_iter().flatten();
        references.map(|name| self.row_of(name)).collect()
    }

    fn row_of(&self, reference: &Reference) -> DecisionRow {
        let decided = &self.decisions[reference];
        DecisionRow {
            sale_no: SaleNo(self.sale_no),
            decision: Decision {
                kind: decided.kind,
                reference: reference.2.clone(),
                reservation: decided.reservation.map(Serial),
            },
            detail: Some(decided.detail.clone()).filter(|detail| !detail.is_empty()),
        }
    }
}

/// A reservation as a change says that it left it.
fn stood(
    mut row: ReservationRow,
    state: Option<ReservationState>,
    refunded: &[Delta],
) -> ReservationRow {
    row.state = state.unwrap_or(row.state);
    for line in &mut row.lines {
        let of = refunded.iter().find(|delta| delta.item == line.item);
        line.refunded_units = of.map_or(0, |delta| delta.units);
    }
    row
}

/// Under which a release of further units happens once.
fn name_of(wave: WaveRef) -> Option<String> {
    match wave {
        WaveRef::Planned(place) => Some(format!("plan:{place}")),
        WaveRef::Pool(place) => Some(format!("pool:{place}")),
        WaveRef::Hand(key) => key.map(|key| format!("hand:{key}")),
    }
}

fn stale(what: &str) -> Verdict {
    Err(EntryRefusal::Stale(what.into()))
}

fn spelled(why: &EntryRefusal) -> String {
    match why {
        EntryRefusal::KeyKnown(serial) => format!("KNOWN:{}", serial.0),
        EntryRefusal::Limit => "LIMIT:".into(),
        EntryRefusal::SoldOut(available) => format!("SOLD:{available}"),
        EntryRefusal::State(SaleState::Published) => "NOTSTARTED:".into(),
        EntryRefusal::State(SaleState::Paused) => "PAUSED:".into(),
        EntryRefusal::State(_) => "ENDED:".into(),
        EntryRefusal::Early => "EARLY:".into(),
        EntryRefusal::Stale(what) => format!("STALE:{what}"),
    }
}

fn record_of(of: &Reserved) -> String {
    let state = match of.state {
        ReservationState::Reserved => 'r',
        ReservationState::Confirmed => 'c',
        ReservationState::Released => 'l',
        ReservationState::Expired => 'e',
        ReservationState::Refunded => 'f',
        ReservationState::Unknown => '?',
    };
    let payment = of.payment.map_or(String::new(), |name| name.to_string());
    let lines: Vec<String> = of.lines.iter().map(line_of).collect();
    format!(
        "{state}|{}|{}|{}|{}|{payment}|{}",
        of.created_ms,
        of.expires_ms,
        of.buyer,
        of.key,
        lines.join(";")
    )
}

fn line_of(line: &Line) -> String {
    let sold = format!("{},{},{}", line.item, line.units, line.price);
    if line.refunded == 0 {
        return sold;
    }
    format!("{sold},{},{}", line.refunded, line.restocked)
}

/// What stands in the event stream of a change, up to its facts.
fn head_of(entry: &Entry) -> String {
    let serial = entry.serial.0;
    let sale = |kind: &str| format!("E|{serial}|sale.{kind}|||");
    let of = |kind: &str, reservation: &Serial, reference: &str| {
        let reservation = reservation.0;
        format!("E|{serial}|reservation.{kind}|{reservation}|{reference}|")
    };
    match &entry.change {
        Change::Reserve {
            buyer, key, lines, ..
        } => {
            let lines: Vec<String> = lines
                .iter()
                .map(|line| format!("{},{},{}", line.item.0, line.units, line.unit_price_minor.0))
                .collect();
            format!("R|{serial}|{buyer}|{key}|{}", lines.join(";"))
        }
        Change::PutDraft { .. } => sale("drafted"),
        Change::Publish => sale("published"),
        Change::Open { .. } => sale("opened"),
        Change::Unpublish => sale("unpublished"),
        Change::ChangePrice { .. } => sale("price_changed"),
        Change::Wave { wave, .. } => {
            let name = name_of(*wave).unwrap_or_default();
            format!("E|{serial}|sale.wave||{name}|")
        }
        Change::CountAttempts { .. } => sale("attempts"),
        Change::ProtectPrice { reservation, .. } => of("refund_due", reservation, ""),
        Change::Extend { reservation, .. } => of("extended", reservation, ""),
        Change::Pause => sale("paused"),
        Change::Resume => sale("resumed"),
        Change::Close => sale("closed"),
        Change::Retire => sale("retired"),
        Change::Freeze { .. } => sale("frozen"),
        Change::Confirm {
            reservation,
            payment_ref,
            ..
        } => of("confirmed", reservation, payment_ref.as_str()),
        Change::RefusePayment {
            reservation,
            payment_ref,
            ..
        } => of("refund_due", reservation, payment_ref.as_str()),
        Change::Release { reservation, .. } => of("released", reservation, ""),
        Change::Expire { reservation, .. } => of("expired", reservation, ""),
        Change::Refund {
            reservation,
            refund_ref,
            ..
        } => {
            let reference = refund_ref.map_or(String::new(), |name| name.to_string());
            of("refunded", reservation, &reference)
        }
        Change::ChangeStock { key, .. } => format!("E|{serial}|sale.stock_changed||{key}|"),
        Change::Note(_) => unreachable!("notes are no events"),
    }
}

fn pairs(units: &[Delta]) -> String {
    let pairs: Vec<String> = units
        .iter()
        .map(|delta| format!("[{},{}]", delta.item.0, delta.units))
        .collect();
    format!("[{}]", pairs.join(","))
}

/// The counters, made of nothing but the events.
fn folded(raw: &Raw) -> Vec<ItemUnits> {
    let mut items: Vec<ItemUnits> = Vec::new();
    for line in raw.ev.iter().flat_map(|event| &event.lines) {
        let parts: Vec<&str> = line.splitn(6, '|').collect();
        if parts[0] == "R" {
            for text in parts[4].split(';') {
                let numbers: Vec<u64> = text.split(',').map(|n| n.parse().unwrap()).collect();
                let item = &mut items[numbers[0] as usize];
                item.available -= numbers[1];
                item.reserved += numbers[1];
            }
            continue;
        }
        let facts: serde_json::Value = serde_json::from_str(parts[5]).unwrap_or_default();
        let is = |name: &str| facts[name] == true;
        let units = facts["units"].as_array().into_iter().flatten();
        let units = units.map(|pair| {
            (
                pair[0].as_u64().unwrap() as usize,
                pair[1].as_u64().unwrap(),
            )
        });
        match parts[2] {
            "sale.drafted" => {
                let plan: SaleDefinition = serde_json::from_str(parts[5]).unwrap();
                let drafted = plan.items.iter().map(|item| ItemUnits {
                    stock: u64::from(item.stock_units),
                    unreleased: u64::from(item.stock_units),
                    ..ItemUnits::default()
                });
                items = drafted.collect();
            }
            "sale.stock_changed" => {
                let item = &mut items[facts["item"].as_u64().unwrap() as usize];
                let applied = facts["applied"].as_i64().unwrap();
                item.stock = item.stock.strict_add_signed(applied);
                item.available = item.available.strict_add_signed(applied);
            }
            kind => {
                for (index, n) in units {
                    let item = &mut items[index];
                    match kind {
                        "sale.opened" | "sale.wave" => {
                            item.unreleased -= n;
                            item.available += n;
                        }
                        "sale.unpublished" => {
                            item.available -= n;
                            item.unreleased += n;
                        }
                        "reservation.released" | "reservation.expired" if is("pooled") => {
                            item.reserved -= n;
                            item.unreleased += n;
                        }
                        "reservation.confirmed" if is("late") => {
                            item.available -= n;
                            item.sold += n;
                        }
                        "reservation.confirmed" => {
                            item.reserved -= n;
                            item.sold += n;
                        }
                        "reservation.released" | "reservation.expired" => {
                            item.reserved -= n;
                            item.available += n;
                        }
                        "reservation.refunded" if is("restock") => {
                            item.sold -= n;
                            item.available += n;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    items
}
