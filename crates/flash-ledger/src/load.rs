//! Recovery: fills the maps from what the store has. The counters come from [`Ledger::new`].

use flash_types::{ItemIndex, PaymentRef, RefundRef, ReservationState, Serial};
use smallvec::SmallVec;

use crate::ledger::{record_ref, split};
use crate::payments::Status;
use crate::record::LineRecord;
use crate::shard::{NewRecord, RefundRecord};
use crate::{Ledger, LoadedReservation, PaymentDecision};

impl<F: Clone> Ledger<F> {
    /// Adds a stored reservation: its key is spent, its units count against its buyer's limits.
    ///
    /// # Panics
    /// If serials do not ascend, a key stands twice, or the row contradicts itself: books that do not
    /// balance are not loaded.
    pub fn load(&self, row: &LoadedReservation) {
        assert!(
            row.state != ReservationState::Unknown,
            "what is stored is decided"
        );
        assert!(!row.lines.is_empty(), "a reservation has a line");
        let lines: SmallVec<[LineRecord; 1]> = row
            .lines
            .iter()
            .map(|line| {
                LineRecord::new(line.item, line.units, line.unit_price_minor)
                    .with_refunded(line.refunded_units, line.restocked_units)
            })
            .collect();
        let hash = self.hashes.pair(&row.buyer, &row.key);
        let number = self.shard_of(hash.buyer);
        self.filter.insert(hash.pair);
        let record = {
            let mut shard = self.shards[number].lock();
            let (buyer, won) = shard.find_pair(hash, &row.buyer, &row.key);
            assert!(won.is_none(), "books broken: a key won twice");
            let new = NewRecord {
                hash,
                buyer: &row.buyer,
                key: &row.key,
                lines: &lines,
                serial: row.serial.0,
                state: row.state,
                created_at: row.created_at,
                expires_at: row.expires_at,
            };
            let slot = shard.insert(&new, buyer, &self.items);
            record_ref(&shard, number, slot)
        };
        self.serials.lock().push(row.serial.0, record.place);
        if row.is_extended {
            self.extensions.add(row.serial.0, row.expires_at);
        }
        if let Some(payment_ref) = &row.payment_ref {
            self.load_payment(payment_ref, row.serial, PaymentDecision::Taken);
        }
    }

    /// Adds a stored decision on a payment. The same decision may come again.
    ///
    /// # Panics
    /// If the payment was decided otherwise, or its reservation is not loaded.
    pub fn load_payment(
        &self,
        payment_ref: &PaymentRef,
        reservation: Serial,
        decision: PaymentDecision,
    ) {
        let hash = self.hashes.payment(payment_ref);
        let (number, slot) = self.loaded(reservation);
        let mut shard = self.shards[number].lock();
        let mut payments = self.payments.lock();
        if let Some(known) = payments.find(hash, payment_ref) {
            assert!(
                known == (reservation, Status::Decided(decision)),
                "books broken: a payment was decided twice"
            );
            return;
        }
        payments.hold(hash, payment_ref, reservation);
        let place = payments.decide(hash, payment_ref, decision);
        if decision == PaymentDecision::Taken {
            let other = shard.paid_by.insert(slot, place);
            assert!(
                other.is_none(),
                "books broken: a reservation was paid twice"
            );
        }
    }

    /// Adds a stored refund that has a name. Its units are in the reservation's lines already.
    ///
    /// # Panics
    /// If its reservation is not loaded.
    pub fn load_refund(
        &self,
        reservation: Serial,
        refund_ref: &RefundRef,
        restock: bool,
        lines: &[(ItemIndex, u32)],
    ) {
        let (number, slot) = self.loaded(reservation);
        let mut units = SmallVec::from_slice(lines);
        units.sort_unstable();
        self.shards[number]
            .lock()
            .refunds
            .entry(slot)
            .or_default()
            .push(RefundRecord {
                refund_ref: *refund_ref,
                restock,
                units,
            });
    }

    /// Adds a stored decision that a lower price was made good.
    pub fn load_protection(&self, reservation: Serial, item: ItemIndex) {
        self.protected.lock().insert((reservation.0, item.0));
    }

    /// Whether a lower price was made good for an item of a reservation.
    pub fn is_protected(&self, reservation: Serial, item: ItemIndex) -> bool {
        self.protected.lock().contains(&(reservation.0, item.0))
    }

    fn loaded(&self, reservation: Serial) -> (usize, u32) {
        let place = self.serials.lock().find(reservation.0);
        split(place.expect("books broken: a decision without its reservation"))
    }
}
