//! The ledger of one sale: counters, shards, keys; and the buying half of its life.
//!
//! Locks: a shard (by the buyer's hash), then one of payments, extensions and protected. The index of serials is never
//! locked together with any. A lock is held for one decision; handles of the engine are dropped after unlocking.

use std::collections::HashSet;

use crossbeam::utils::CachePadded;
use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, ItemUnits, Line, Lines, ReservationState, Serial, Timestamp,
};
use smallvec::SmallVec;

use crate::extensions::Extensions;
use crate::filter::Filter;
use crate::flights::Kind;
use crate::hash::{HashKey, Hashes, PairHash};
use crate::items::Items;
use crate::payments::Payments;
use crate::record::{LineRecord, NO_SERIAL};
use crate::serials::Serials;
use crate::shard::{NewRecord, Shard};
use crate::sync::Mutex;
use crate::{LedgerItem, PricedLine, RecordRef, Reserve, StockChange, View, ViewLine, Won};

/// Shards of a ledger.
const SHARDS: usize = 64;
/// Bits of a place that number the slot; the others number the shard.
const SLOT_BITS: u32 = u32::BITS - SHARDS.ilog2();

/// The stock ledger of one sale. `F` is the engine's handle on the outcome of what is in flight, opaque here.
pub struct Ledger<F> {
    pub(crate) items: Items,
    pub(crate) hashes: Hashes,
    pub(crate) filter: Filter,
    pub(crate) shards: Box<[CachePadded<Mutex<Shard<F>>>]>,
    pub(crate) serials: Mutex<Serials>,
    pub(crate) payments: Mutex<Payments>,
    pub(crate) extensions: Extensions,
    /// (reservation, item) of which a lower price was made good.
    pub(crate) protected: Mutex<HashSet<(u64, u16)>>,
}

impl<F: Clone> Ledger<F> {
    /// A ledger without reservations; the counters are taken from the items as they are.
    ///
    /// # Panics
    /// If an item has 2^32 units or more.
    pub fn new(items: &[LedgerItem], key: HashKey) -> Self {
        let stock = items.iter().map(|item| item.units.stock).sum();
        Self::with_sizes(items, key, SHARDS, Filter::buckets_for(stock))
    }

    /// The same with fewer shards (a power of two, at most 64) and another first segment of the filter: so
    /// small that a model can go through every interleaving.
    ///
    /// # Panics
    /// If the shards are no power of two, or more than 64.
    #[doc(hidden)]
    pub fn with_sizes(
        items: &[LedgerItem],
        key: HashKey,
        shards: usize,
        filter_buckets: usize,
    ) -> Self {
        assert!(
            shards.is_power_of_two() && shards <= SHARDS,
            "1-64 shards, a power of two"
        );
        Self {
            items: Items::new(items),
            hashes: Hashes::new(key),
            filter: Filter::new(filter_buckets),
            shards: (0..shards)
                .map(|_| CachePadded::new(Mutex::new(Shard::new())))
                .collect(),
            serials: Mutex::new(Serials::new()),
            payments: Mutex::new(Payments::new()),
            extensions: Extensions::new(),
            protected: Mutex::new(HashSet::new()),
        }
    }

    /// How many items the sale has.
    pub fn items_count(&self) -> usize {
        self.items.len()
    }

    /// Units of an item for sale now: one load (Acquire).
    pub fn available_units(&self, item: ItemIndex) -> u32 {
        self.items.word(item).load().available
    }

    /// Where the units of an item are. Exact while nothing is being moved.
    pub fn units(&self, item: ItemIndex) -> ItemUnits {
        self.items.units(item)
    }

    /// Nothing is left that could come back by itself: available, reserved and unreleased units are all 0.
    pub fn is_drained(&self, item: ItemIndex) -> bool {
        self.items.is_drained(item)
    }

    // ---- buying

    /// Whether this key has won. Lock-free where it has not; never a false `None` for a caller that was
    /// refused for want of units before it asks.
    ///
    /// `lines: None` says that the caller named an item that the sale does not have: never the same.
    pub fn won(
        &self,
        buyer: &BuyerId,
        key: &IdempotencyKey,
        lines: Option<&Lines>,
    ) -> Option<Won<F>> {
        let hash = self.hashes.pair(buyer, key);
        if !self.filter.may_contain(hash.pair) {
            return None;
        }
        let number = self.shard_of(hash.buyer);
        let shard = self.shards[number].lock();
        let slot = shard.find_pair(hash, buyer, key).1?;
        let is_same = lines.is_some_and(|lines| shard.are_same_lines(slot, lines.as_slice()));
        Some(won_at(&shard, number, slot, is_same))
    }

    /// Takes the units of all lines, or none: key, then limits, then stock.
    ///
    /// # Panics
    /// If the lines are not 1 or more of the sale's items, ascending, each once.
    pub fn reserve(
        &self,
        buyer: &BuyerId,
        key: &IdempotencyKey,
        lines: &[PricedLine],
        in_flight: F,
    ) -> Reserve<F> {
        self.check_lines(lines);
        let hash = self.hashes.pair(buyer, key);
        let number = self.shard_of(hash.buyer);
        let mut shard = self.shards[number].lock();
        // Under the lock of its buyer a miss proves that the key has not won; the processor fetches the
        // filter's line and the buyer's at the same time.
        let (known_buyer, won) = if self.filter.may_contain(hash.pair) {
            shard.find_pair(hash, buyer, key)
        } else {
            (shard.find_buyer(hash.buyer, buyer.as_bytes()), None)
        };
        if let Some(slot) = won {
            let is_same = shard.are_same_lines(slot, &unpriced(lines));
            return Reserve::Won(won_at(&shard, number, slot, is_same));
        }
        if let Some(item) = self.limit_reached(&shard, known_buyer, lines) {
            return Reserve::Limit(item);
        }
        if let Err((item, available_units)) = self.take(hash, lines) {
            return Reserve::Short {
                item,
                available_units,
            };
        }
        let lines: SmallVec<[LineRecord; 1]> = lines
            .iter()
            .map(|line| LineRecord::new(line.item, line.quantity.units(), line.unit_price_minor))
            .collect();
        let new = NewRecord {
            hash,
            buyer,
            key,
            lines: &lines,
            serial: NO_SERIAL,
            state: ReservationState::Unknown,
            created_at: Timestamp(0),
            expires_at: Timestamp(0),
        };
        let slot = shard.insert(&new, known_buyer, &self.items);
        shard.depart(slot, Kind::Reserve, in_flight);
        Reserve::Taken(record_ref(&shard, number, slot))
    }

    /// The reservation is being sent under this serial: from now on [`Ledger::find`] finds it.
    ///
    /// # Panics
    /// If serials do not ascend, or its reserve is not in flight.
    pub fn numbered(&self, record: RecordRef, serial: Serial) {
        let (number, slot) = split(record.place);
        {
            let mut shard = self.shards[number].lock();
            expect_undecided(&shard, record);
            shard.records.at_mut(slot).serial = serial.0;
        }
        self.serials.lock().push(serial.0, record.place);
    }

    /// The reserve is committed: `unknown -> reserved`.
    ///
    /// # Panics
    /// If its reserve is not in flight, or it has no serial.
    pub fn finish_reserve(&self, record: RecordRef, created_at: Timestamp, expires_at: Timestamp) {
        let (number, slot) = split(record.place);
        let mut shard = self.shards[number].lock();
        expect_undecided(&shard, record);
        let known = shard.records.at_mut(slot);
        assert!(known.serial != NO_SERIAL, "what is committed has a serial");
        (known.created_at, known.expires_at) = (created_at, expires_at);
        shard.set_state(slot, ReservationState::Reserved);
        let landed = shard.land(slot, Kind::Reserve);
        drop(shard);
        drop(landed);
    }

    /// The reserve was not applied: units and limit go back, record and key are gone.
    ///
    /// # Panics
    /// If its reserve is not in flight.
    pub fn abort_reserve(&self, record: RecordRef) {
        let (number, slot) = split(record.place);
        let mut shard = self.shards[number].lock();
        expect_undecided(&shard, record);
        let landed = shard.land(slot, Kind::Reserve);
        let units = shard.units(slot);
        shard.uncount(slot, &units, &self.items, &self.hashes);
        shard.remove(slot, &self.hashes);
        self.items.give_all(units.into_iter());
        drop(shard);
        drop(landed);
    }

    // ---- reading

    /// The reservation with this serial, also while it is undecided.
    pub fn find(&self, serial: Serial) -> Option<RecordRef> {
        let place = self.serials.lock().find(serial.0)?;
        let (number, slot) = split(place);
        let shard = self.shards[number].lock();
        shard.of_serial(slot, serial.0)?;
        Some(record_ref(&shard, number, slot))
    }

    /// The reservation as it stands; `None` if it is gone.
    pub fn view(&self, record: RecordRef) -> Option<View<F>> {
        let (number, slot) = split(record.place);
        let shard = self.shards[number].lock();
        let known = shard.of_generation(slot, record.generation)?;
        Some(View {
            serial: (known.serial != NO_SERIAL).then_some(Serial(known.serial)),
            buyer: shard.buyer(slot),
            key: shard.key(slot),
            state: known.state,
            lines: shard
                .lines(slot)
                .iter()
                .map(|line| ViewLine {
                    item: line.item(),
                    units: line.units(),
                    unit_price_minor: line.unit_price_minor,
                    refunded_units: line.refunded(),
                })
                .collect(),
            created_at: known.created_at,
            expires_at: known.expires_at,
            payment_ref: shard
                .paid_by
                .get(&slot)
                .map(|place| self.payments.lock().payment_ref(*place)),
            in_flight: shard.flight(slot).map(|flight| flight.handle.clone()),
        })
    }

    /// Reservations in the order of their serials, after this one, at most `limit`; undecided ones too.
    pub fn records_after(&self, after: Serial, limit: usize) -> Vec<RecordRef> {
        let mut index = self.serials.lock().index_after(after.0);
        let mut records = Vec::new();
        loop {
            let group = self.serials.lock().group(index);
            if group.is_empty() {
                return records;
            }
            index += group.len() as u32;
            for (serial, place) in group {
                let (number, slot) = split(place);
                let shard = self.shards[number].lock();
                // Undone ones left only their entry.
                if shard.of_serial(slot, serial).is_some() {
                    records.push(record_ref(&shard, number, slot));
                    if records.len() == limit {
                        return records;
                    }
                }
            }
        }
    }

    /// A buyer's reservations, newest first, at most `limit`; undecided ones too.
    pub fn records_of(&self, buyer: &BuyerId, limit: usize) -> Vec<RecordRef> {
        let hash = self.hashes.buyer(buyer.as_bytes());
        let number = self.shard_of(hash);
        let shard = self.shards[number].lock();
        shard
            .records_of(hash, buyer)
            .take(limit)
            .map(|slot| record_ref(&shard, number, slot))
            .collect()
    }

    // ---- stock

    /// All unreleased units become available, but for those held back (of some items; more than there are: all). After
    /// `open` was committed.
    pub fn release_all(&self, held: &[(ItemIndex, u32)]) {
        self.filter.prepare();
        for item in (0u16..).take(self.items.len()).map(ItemIndex) {
            let held = held.iter().find(|(known, _)| *known == item);
            let held = held.map_or(0, |(_, units)| *units);
            let units = self.items.unreleased(item).saturating_sub(held);
            self.items.release(item, units);
        }
    }

    /// Unreleased units become available. After the release was committed.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn release(&self, item: ItemIndex, units: u32) {
        self.filter.prepare();
        self.items.release(item, units);
    }

    /// Units of an item that are not yet for sale.
    pub fn unreleased_units(&self, item: ItemIndex) -> u32 {
        self.items.unreleased(item)
    }

    /// Decides a change of stock: growth as asked, or `None` if the stock would pass 2^32 - 1; shrinking at
    /// most by what is available, which nobody can buy from here on.
    pub fn begin_stock_change(&self, item: ItemIndex, delta_units: i64) -> Option<StockChange> {
        let asked = delta_units.unsigned_abs();
        let applied_delta_units = if delta_units >= 0 {
            self.items.claim_stock(item, asked).then_some(delta_units)?
        } else {
            -i64::from(self.items.word(item).take_up_to(asked))
        };
        Some(StockChange {
            item,
            applied_delta_units,
        })
    }

    /// The change of stock is committed.
    pub fn finish_stock_change(&self, change: &StockChange) {
        let (item, units) = (change.item, units_of(change));
        if change.applied_delta_units >= 0 {
            self.items.grow(item, units);
        } else {
            self.items.shrink(item, units);
        }
    }

    /// The change of stock was not applied: all is as before.
    pub fn abort_stock_change(&self, change: &StockChange) {
        let (item, units) = (change.item, units_of(change));
        if change.applied_delta_units >= 0 {
            self.items.unclaim_stock(item, units);
        } else {
            self.items.word(item).give(units);
        }
    }

    // ---- helpers

    fn check_lines(&self, lines: &[PricedLine]) {
        let last = lines.last().expect("a purchase has a line");
        assert!(
            usize::from(last.item.0) < self.items.len(),
            "lines are of the sale's items"
        );
        // Two lines of one item would pass two checks of one limit.
        assert!(
            lines.is_sorted_by(|one, next| one.item < next.item),
            "lines ascend by item, each once"
        );
    }

    fn limit_reached(
        &self,
        shard: &Shard<F>,
        buyer: Option<u32>,
        lines: &[PricedLine],
    ) -> Option<ItemIndex> {
        lines
            .iter()
            .map(|line| (line.item, line.quantity.units()))
            .find_map(|(item, wanted)| {
                let max = self.items.limit(item)?;
                let has = shard.counted(buyer, item);
                (u64::from(has) + u64::from(wanted) > u64::from(max)).then_some(item)
            })
    }

    fn take(&self, hash: PairHash, lines: &[PricedLine]) -> Result<(), (ItemIndex, u32)> {
        let units = lines.iter().map(|line| (line.item, line.quantity.units()));
        // Looked at first, so that tries in vain do not fill the filter.
        if let Some(short) = self.items.shortage(units.clone()) {
            return Err(short);
        }
        // Before the units: whoever then sees them gone finds the key.
        self.filter.insert(hash.pair);
        self.items.take_all(units)
    }

    pub(crate) fn shard_of(&self, buyer_hash: u64) -> usize {
        // The lower half of the hash places the buyer within the shard.
        (buyer_hash >> 32) as usize & (self.shards.len() - 1)
    }
}

/// Shard and slot of a place.
pub(crate) fn split(place: u32) -> (usize, u32) {
    (
        (place >> SLOT_BITS) as usize,
        place & ((1 << SLOT_BITS) - 1),
    )
}

pub(crate) fn record_ref<F>(shard: &Shard<F>, number: usize, slot: u32) -> RecordRef {
    assert!(
        slot < 1 << SLOT_BITS,
        "a shard holds less than 2^26 reservations"
    );
    RecordRef {
        place: (number as u32) << SLOT_BITS | slot,
        generation: shard.records.at(slot).generation,
    }
}

fn won_at<F: Clone>(shard: &Shard<F>, number: usize, slot: u32, is_same: bool) -> Won<F> {
    Won {
        record: record_ref(shard, number, slot),
        is_same,
        in_flight: shard
            .flight(slot)
            .filter(|flight| flight.kind == Kind::Reserve)
            .map(|flight| flight.handle.clone()),
    }
}

fn expect_undecided<F>(shard: &Shard<F>, record: RecordRef) {
    let (_, slot) = split(record.place);
    assert!(
        shard.of_generation(slot, record.generation).is_some(),
        "the reservation is there until its reserve is decided"
    );
    assert!(
        shard
            .flight(slot)
            .is_some_and(|flight| flight.kind == Kind::Reserve),
        "its reserve is in flight"
    );
}

fn unpriced(lines: &[PricedLine]) -> SmallVec<[Line; 1]> {
    lines
        .iter()
        .map(|line| Line {
            item: line.item,
            quantity: line.quantity,
        })
        .collect()
}

fn units_of(change: &StockChange) -> u32 {
    u32::try_from(change.applied_delta_units.unsigned_abs())
        .expect("no stock passes 2^32 - 1 units")
}
