//! One shard: the buyers whose hash falls here, their keys, their reservations.
//!
//! Plain single-threaded state; the ledger wraps it in a mutex. Invariants: a live record is in its buyer's
//! chain, and in the table of keys where its buyer has many; a record has at most one flight, and the state
//! `Unknown` always has one.

use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, Line, RefundRef, ReservationState, Timestamp,
};
use hashbrown::HashTable;

use crate::Units;
use crate::buyers::Buyers;
use crate::flights::{Flight, Flights, Kind};
use crate::hash::{Hashes, PairHash, PlaceMap, spread};
use crate::items::Items;
use crate::names::Names;
use crate::record::{LineRecord, NO_SERIAL, NONE, Record};
use crate::slab::Slab;

/// A refund that has a name.
pub(crate) struct RefundRecord {
    pub(crate) refund_ref: RefundRef,
    pub(crate) restock: bool,
    pub(crate) units: Units,
}

/// What a new record is made of.
pub(crate) struct NewRecord<'a> {
    pub(crate) hash: PairHash,
    pub(crate) buyer: &'a BuyerId,
    pub(crate) key: &'a IdempotencyKey,
    pub(crate) lines: &'a [LineRecord],
    pub(crate) serial: u64,
    pub(crate) state: ReservationState,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// One shard of a sale's reservations.
pub(crate) struct Shard<F> {
    pub(crate) records: Slab<Record, 256>,
    pub(crate) flights: Flights<F>,
    /// Place of the payment that confirmed the record.
    pub(crate) paid_by: PlaceMap<u32, u32>,
    pub(crate) refunds: PlaceMap<u32, Vec<RefundRecord>>,
    free: Vec<u32>,
    names: Names,
    /// Records of crowded buyers.
    by_key: HashTable<u32>,
    buyers: Buyers,
    /// Lines of records that have several.
    many_lines: PlaceMap<u32, Box<[LineRecord]>>,
    /// Live records by committed state.
    counts: [u64; STATES],
}

/// States of a reservation.
pub(crate) const STATES: usize = 6;

/// Place of a state in an array of counts.
pub(crate) fn state_index(state: ReservationState) -> usize {
    match state {
        ReservationState::Unknown => 0,
        ReservationState::Reserved => 1,
        ReservationState::Confirmed => 2,
        ReservationState::Released => 3,
        ReservationState::Expired => 4,
        ReservationState::Refunded => 5,
    }
}

impl<F> Shard<F> {
    pub(crate) fn new() -> Self {
        Self {
            records: Slab::new(),
            flights: Flights::new(),
            paid_by: PlaceMap::default(),
            refunds: PlaceMap::default(),
            free: Vec::new(),
            names: Names::new(),
            by_key: HashTable::new(),
            buyers: Buyers::new(),
            many_lines: PlaceMap::default(),
            counts: [0; STATES],
        }
    }

    // ---- look-ups

    /// The buyer's place, and the record that this key of theirs won.
    pub(crate) fn find_pair(
        &self,
        hash: PairHash,
        buyer: &BuyerId,
        key: &IdempotencyKey,
    ) -> (Option<u32>, Option<u32>) {
        let Some(known) = self.find_buyer(hash.buyer, buyer.as_bytes()) else {
            return (None, None);
        };
        let pair = hash.pair as u32;
        let slot = if self.buyers.is_crowded(known) {
            self.by_key
                .find(spread(pair), |slot| {
                    let record = self.records.at(*slot);
                    record.pair_hash == pair
                        && self.buyer_bytes(record) == buyer.as_bytes()
                        && self.key_bytes(record) == key.as_bytes()
                })
                .copied()
        } else {
            self.chain(Some(self.buyers.newest(known))).find(|slot| {
                let record = self.records.at(*slot);
                record.pair_hash == pair && self.key_bytes(record) == key.as_bytes()
            })
        };
        (Some(known), slot)
    }

    pub(crate) fn find_buyer(&self, hash: u64, buyer: &[u8]) -> Option<u32> {
        self.buyers.find(hash, |newest| {
            self.buyer_bytes(self.records.at(newest)) == buyer
        })
    }

    /// The record at a slot, if it still is the one meant.
    pub(crate) fn of_generation(&self, slot: u32, generation: u32) -> Option<&Record> {
        let record = self.records.at(slot);
        (record.is_live && record.generation == generation).then_some(record)
    }

    /// The record at a slot, if it still bears that serial.
    pub(crate) fn of_serial(&self, slot: u32, serial: u64) -> Option<&Record> {
        let record = self.records.at(slot);
        (record.is_live && record.serial == serial).then_some(record)
    }

    pub(crate) fn lines(&self, slot: u32) -> &[LineRecord] {
        let record = self.records.at(slot);
        if record.has_many_lines() {
            &self.many_lines[&slot]
        } else {
            std::slice::from_ref(&record.line)
        }
    }

    pub(crate) fn units(&self, slot: u32) -> Units {
        self.lines(slot)
            .iter()
            .map(|line| (line.item(), line.units()))
            .collect()
    }

    pub(crate) fn are_same_lines(&self, slot: u32, lines: &[Line]) -> bool {
        let known = self.lines(slot);
        known.len() == lines.len()
            && known.iter().zip(lines).all(|(known, line)| {
                known.item() == line.item && known.units() == line.quantity.units()
            })
    }

    pub(crate) fn flight(&self, slot: u32) -> Option<&Flight<F>> {
        self.flights.at(self.records.at(slot).flight)
    }

    pub(crate) fn buyer(&self, slot: u32) -> BuyerId {
        BuyerId::parse_bytes(self.buyer_bytes(self.records.at(slot)))
            .expect("it was a buyer's id when it came")
    }

    pub(crate) fn key(&self, slot: u32) -> IdempotencyKey {
        IdempotencyKey::parse_bytes(self.key_bytes(self.records.at(slot)))
            .expect("it was a key when it came")
    }

    /// A buyer's records, newest first.
    pub(crate) fn records_of(&self, hash: u64, buyer: &BuyerId) -> impl Iterator<Item = u32> {
        let newest = self
            .find_buyer(hash, buyer.as_bytes())
            .map(|place| self.buyers.newest(place));
        self.chain(newest)
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &Record)> {
        self.records.iter().filter(|(_, record)| record.is_live)
    }

    pub(crate) fn counts(&self) -> &[u64; STATES] {
        &self.counts
    }

    /// Units of a limited item that the buyer has.
    pub(crate) fn counted(&self, buyer: Option<u32>, item: ItemIndex) -> u32 {
        buyer.map_or(0, |buyer| self.buyers.counted(buyer, item))
    }

    // ---- changes

    /// Makes a record; `buyer` is its buyer's place where it is known. Its units count against limits at once.
    pub(crate) fn insert(&mut self, new: &NewRecord<'_>, buyer: Option<u32>, items: &Items) -> u32 {
        let is_single = new.lines.len() == 1;
        let record = Record {
            serial: new.serial,
            created_at: new.created_at,
            expires_at: new.expires_at,
            line: if is_single {
                new.lines[0]
            } else {
                LineRecord::default()
            },
            name: self.names.put(new.buyer.as_bytes(), new.key.as_bytes()),
            previous: buyer.map_or(NONE, |buyer| self.buyers.newest(buyer)),
            generation: 0,
            pair_hash: new.hash.pair as u32,
            flight: NONE,
            buyer_len: new.buyer.as_bytes().len() as u8,
            key_len: new.key.as_bytes().len() as u8,
            state: new.state,
            is_live: true,
        };
        let slot = self.place(record);
        if !is_single {
            self.many_lines.insert(slot, new.lines.into());
        }
        self.counts[state_index(new.state)] += 1;
        let buyer = match buyer {
            Some(buyer) => {
                self.buyers.set_newest(buyer, slot);
                buyer
            }
            None => self.buyers.insert(new.hash.buyer, slot),
        };
        self.index_key(slot, buyer);
        for line in new.lines {
            let units = match new.state {
                ReservationState::Released | ReservationState::Expired => 0,
                ReservationState::Unknown
                | ReservationState::Reserved
                | ReservationState::Confirmed
                | ReservationState::Refunded => line.not_restocked(),
            };
            if units > 0 && items.limit(line.item()).is_some() {
                self.buyers.count(buyer, line.item(), units);
            }
        }
        slot
    }

    /// Forgets a record. Its units must be uncounted before.
    pub(crate) fn remove(&mut self, slot: u32, hashes: &Hashes) {
        let buyer = self.buyer_of(slot, hashes);
        let hash = self.records.at(slot).pair_hash;
        if self.buyers.is_crowded(buyer) {
            match self.by_key.find_entry(spread(hash), |known| *known == slot) {
                Ok(entry) => entry.remove(),
                Err(_) => unreachable!("a crowded buyer's keys are in the table"),
            };
        }
        self.unchain(slot, buyer);
        let record = self.records.at_mut(slot);
        record.is_live = false;
        record.serial = NO_SERIAL;
        record.generation = record.generation.wrapping_add(1);
        let (name, len) = (record.name, record.name_len());
        self.counts[state_index(record.state)] -= 1;
        self.names.remove(name, len);
        self.many_lines.remove(&slot);
        self.free.push(slot);
    }

    pub(crate) fn set_state(&mut self, slot: u32, state: ReservationState) {
        let record = self.records.at_mut(slot);
        let before = std::mem::replace(&mut record.state, state);
        self.counts[state_index(before)] -= 1;
        self.counts[state_index(state)] += 1;
    }

    pub(crate) fn depart(&mut self, slot: u32, kind: Kind, handle: F) {
        assert!(
            self.flight(slot).is_none(),
            "one step of a reservation is in flight"
        );
        self.records.at_mut(slot).flight = self.flights.insert(Flight { kind, handle });
    }

    /// Ends what is in flight; the caller drops the handle after it has unlocked.
    ///
    /// # Panics
    /// If another step, or none, is in flight.
    pub(crate) fn land(&mut self, slot: u32, kind: Kind) -> Flight<F> {
        let place = std::mem::replace(&mut self.records.at_mut(slot).flight, NONE);
        let flight = self.flights.remove(place).expect("what ends was in flight");
        assert!(flight.kind == kind, "what ends is what was begun");
        flight
    }

    pub(crate) fn refund_line(&mut self, slot: u32, item: ItemIndex, units: u32, restock: bool) {
        let record = self.records.at_mut(slot);
        let lines = if record.has_many_lines() {
            self.many_lines
                .get_mut(&slot)
                .map_or(&mut [][..], |lines| lines)
        } else {
            std::slice::from_mut(&mut record.line)
        };
        lines
            .iter_mut()
            .find(|line| line.item() == item)
            .expect("a refund is of the reservation's items")
            .refund(units, restock);
    }

    /// Counts units against the limits of the record's buyer.
    pub(crate) fn count(&mut self, slot: u32, units: &Units, items: &Items, hashes: &Hashes) {
        self.recount(slot, units, items, hashes, Buyers::count);
    }

    /// Gives the limits of the record's buyer back.
    pub(crate) fn uncount(&mut self, slot: u32, units: &Units, items: &Items, hashes: &Hashes) {
        self.recount(slot, units, items, hashes, Buyers::uncount);
    }

    // ---- helpers

    fn recount(
        &mut self,
        slot: u32,
        units: &Units,
        items: &Items,
        hashes: &Hashes,
        step: fn(&mut Buyers, u32, ItemIndex, u32),
    ) {
        if !units.iter().any(|(item, _)| items.limit(*item).is_some()) {
            return;
        }
        let buyer = self.buyer_of(slot, hashes);
        for (item, units) in units {
            if items.limit(*item).is_some() {
                step(&mut self.buyers, buyer, *item, *units);
            }
        }
    }

    fn buyer_of(&self, slot: u32, hashes: &Hashes) -> u32 {
        let buyer = self.buyer_bytes(self.records.at(slot));
        self.find_buyer(hashes.buyer(buyer), buyer)
            .expect("a live record is in its buyer's chain")
    }

    fn place(&mut self, mut record: Record) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                let old = self.records.at_mut(slot);
                record.generation = old.generation;
                *old = record;
                slot
            }
            None => self.records.push(record),
        }
    }

    /// Puts the key of a new record, first in its buyer's chain, where `find_pair` looks for it.
    fn index_key(&mut self, slot: u32, buyer: u32) {
        if self.buyers.crowds(buyer) {
            let slots: Vec<u32> = self.chain(Some(slot)).collect();
            for slot in slots {
                self.put_in_table(slot);
            }
        } else if self.buyers.is_crowded(buyer) {
            self.put_in_table(slot);
        }
    }

    fn put_in_table(&mut self, slot: u32) {
        let records = &self.records;
        let hash_of = |slot: &u32| spread(records.at(*slot).pair_hash);
        self.by_key.insert_unique(hash_of(&slot), slot, hash_of);
    }

    /// A record and those of the same buyer before it.
    fn chain(&self, first: Option<u32>) -> impl Iterator<Item = u32> {
        std::iter::successors(first, |slot| {
            Some(self.records.at(*slot).previous).filter(|previous| *previous != NONE)
        })
    }

    fn unchain(&mut self, slot: u32, buyer: u32) {
        self.buyers.thin(buyer);
        let previous = self.records.at(slot).previous;
        let newest = self.buyers.newest(buyer);
        if newest != slot {
            let mut later = newest;
            while self.records.at(later).previous != slot {
                later = self.records.at(later).previous;
            }
            self.records.at_mut(later).previous = previous;
        } else if previous != NONE {
            self.buyers.set_newest(buyer, previous);
        } else {
            self.buyers.remove(buyer);
        }
    }

    fn buyer_bytes(&self, record: &Record) -> &[u8] {
        self.names.at(record.name, record.buyer_len.into())
    }

    fn key_bytes(&self, record: &Record) -> &[u8] {
        &self.names.at(record.name, record.name_len())[usize::from(record.buyer_len)..]
    }
}
