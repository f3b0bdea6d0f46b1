//! Which payment was decided how: one decision per payment of the sale, never changed.
//!
//! Locked after a shard, never before one. A decision in flight holds its payment as pending, so that no
//! other reservation can begin one with it.

use flash_types::{PaymentRef, Serial};
use hashbrown::HashTable;

use crate::PaymentDecision;
use crate::hash::spread;
use crate::names::Names;
use crate::slab::Slab;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// In flight.
    Pending,
    Decided(PaymentDecision),
}

struct Payment {
    reservation: Serial,
    name: u32,
    hash: u32,
    len: u8,
    status: Status,
}

/// All payments of a sale.
pub(crate) struct Payments {
    by_hash: HashTable<u32>,
    payments: Slab<Payment, 256>,
    free: Vec<u32>,
    names: Names,
}

impl Payments {
    pub(crate) fn new() -> Self {
        Self {
            by_hash: HashTable::new(),
            payments: Slab::new(),
            free: Vec::new(),
            names: Names::new(),
        }
    }

    /// The reservation that a payment belongs to, and what became of it.
    pub(crate) fn find(&self, hash: u64, payment_ref: &PaymentRef) -> Option<(Serial, Status)> {
        self.place_of(hash, payment_ref).map(|place| {
            let payment = self.payments.at(place);
            (payment.reservation, payment.status)
        })
    }

    /// Holds a payment that was not found.
    pub(crate) fn hold(&mut self, hash: u64, payment_ref: &PaymentRef, reservation: Serial) {
        let text = payment_ref.as_bytes();
        let new = Payment {
            reservation,
            name: self.names.put(text, b""),
            hash: hash as u32,
            len: text.len() as u8,
            status: Status::Pending,
        };
        let place = match self.free.pop() {
            Some(place) => {
                *self.payments.at_mut(place) = new;
                place
            }
            None => self.payments.push(new),
        };
        let payments = &self.payments;
        self.by_hash
            .insert_unique(spread(hash as u32), place, |place| {
                spread(payments.at(*place).hash)
            });
    }

    /// Decides a payment that is held; gives its place.
    pub(crate) fn decide(
        &mut self,
        hash: u64,
        payment_ref: &PaymentRef,
        decision: PaymentDecision,
    ) -> u32 {
        let place = self
            .place_of(hash, payment_ref)
            .expect("a payment in flight is held");
        let payment = self.payments.at_mut(place);
        assert!(
            payment.status == Status::Pending,
            "books broken: a payment is decided once"
        );
        payment.status = Status::Decided(decision);
        place
    }

    /// Lets go of a payment that is held.
    pub(crate) fn let_go(&mut self, hash: u64, payment_ref: &PaymentRef) {
        let place = self
            .place_of(hash, payment_ref)
            .expect("a payment in flight is held");
        let Payment {
            name, len, status, ..
        } = *self.payments.at(place);
        assert!(
            status == Status::Pending,
            "books broken: a decision is never taken back"
        );
        match self
            .by_hash
            .find_entry(spread(hash as u32), |known| *known == place)
        {
            Ok(entry) => entry.remove(),
            Err(_) => unreachable!("found a moment ago"),
        };
        self.names.remove(name, len.into());
        self.free.push(place);
    }

    /// The name of the payment at a place that [`Self::decide`] gave.
    pub(crate) fn payment_ref(&self, place: u32) -> PaymentRef {
        let Payment { name, len, .. } = *self.payments.at(place);
        PaymentRef::parse_bytes(self.names.at(name, len.into()))
            .expect("it was a payment's name when it came")
    }

    fn place_of(&self, hash: u64, payment_ref: &PaymentRef) -> Option<u32> {
        let (hash, text) = (hash as u32, payment_ref.as_bytes());
        self.by_hash
            .find(spread(hash), |place| {
                let payment = self.payments.at(*place);
                payment.hash == hash && self.names.at(payment.name, payment.len.into()) == text
            })
            .copied()
    }
}
