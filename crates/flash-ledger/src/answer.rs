//! The words of the ledger: what is asked of it, and what it answers.

use std::time::Duration;

use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, ItemUnits, Lines, Money, PaymentRef, Quantity, RefundRef,
    Refusal, ReservationState, SaleId, Serial, Timestamp,
};
use smallvec::SmallVec;

/// One item as the ledger needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerItem {
    /// Where its units are.
    pub units: ItemUnits,
    /// Most units for one buyer over the whole sale.
    pub units_per_buyer_max: Option<u32>,
}

/// One line of a purchase with its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PricedLine {
    /// Which item.
    pub item: ItemIndex,
    /// How many units.
    pub quantity: Quantity,
    /// Price of one unit.
    pub unit_price_minor: Money,
}

/// Where a reservation lies in its ledger. A reference to one that is gone finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordRef {
    /// Shard and slot.
    pub(crate) place: u32,
    pub(crate) generation: u32,
}

/// So many units of each item, ascending by item.
pub type Units = SmallVec<[(ItemIndex, u32); 1]>;

/// A key that won.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Won<F> {
    /// Its reservation.
    pub record: RecordRef,
    /// It won with the same lines.
    pub is_same: bool,
    /// Set while its *reserve* is not decided.
    pub in_flight: Option<F>,
}

/// What became of a try to reserve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reserve<F> {
    /// The units are taken; ends by `finish_reserve` or `abort_reserve`.
    Taken(RecordRef),
    /// The key has won before.
    Won(Won<F>),
    /// The buyer may not have so many units of this item.
    Limit(ItemIndex),
    /// Too few units; nothing was taken.
    Short {
        /// The first item that is short.
        item: ItemIndex,
        /// Units of it that are left.
        available_units: u32,
    },
}

/// A command on one reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Paid.
    Confirm {
        /// By which payment.
        payment_ref: PaymentRef,
        /// How much, where it is told.
        amount: Option<Money>,
    },
    /// Given up.
    Cancel,
    /// Not paid in time.
    Expire,
    /// More time to pay, once.
    Extend {
        /// By so much.
        by: Duration,
    },
    /// The item became cheaper: the difference is due, once.
    ProtectPrice {
        /// Which item.
        item: ItemIndex,
        /// What it costs now.
        price_minor: Money,
        /// In which sale.
        other: SaleId,
    },
    /// Money back.
    Refund {
        /// Named by the storefront; may be left out when refunding all.
        refund_ref: Option<RefundRef>,
        /// The units become available again.
        restock: bool,
        /// Which units; all that is left where absent.
        lines: Option<Lines>,
    },
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Begin<F> {
    /// In flight from here on; ends by `finish` or `abort`.
    Start(Transition),
    /// Its effect stands already.
    Stands(RecordRef),
    /// A no.
    Refused(Refusal),
    /// Another step of this reservation is in flight: wait for it, then ask again.
    Wait(F),
}

/// A step of one reservation on its way to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Where the reservation lies.
    pub record: RecordRef,
    /// Its serial.
    pub reservation: Serial,
    /// The step.
    pub step: Step,
    /// Units that come back wait for an announced time: they go to what is unreleased. Said by whoever sends the step.
    pub is_pooled: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// `reserved -> confirmed`; `expired -> confirmed` if late.
    Confirm {
        /// By which payment.
        payment_ref: PaymentRef,
        /// It had expired; its units were taken again.
        is_late: bool,
        /// Its units.
        units: Units,
    },
    /// The payment has to go back; the reservation stays as it is.
    RefusePayment {
        /// Which payment.
        payment_ref: PaymentRef,
        /// It had expired and its units are gone; else its state forbids it.
        is_expired: bool,
    },
    /// `reserved` is kept until then.
    Extend {
        /// Until when.
        expires_at: Timestamp,
    },
    /// The difference to a lower price is due; the reservation stays as it is.
    ProtectPrice {
        /// Which item.
        item: ItemIndex,
        /// Units of it that are not refunded.
        units: u32,
        /// What was paid for one.
        paid_minor: Money,
        /// What it costs now.
        price_minor: Money,
        /// In which sale.
        other: SaleId,
    },
    /// `reserved -> released`.
    Release {
        /// Its units.
        units: Units,
    },
    /// `reserved -> expired`.
    Expire {
        /// Its units.
        units: Units,
    },
    /// Money back; `confirmed -> refunded` if whole.
    Refund {
        /// Named by the storefront.
        refund_ref: Option<RefundRef>,
        /// The units become available again.
        restock: bool,
        /// The units of this refund.
        units: Units,
        /// Nothing is left afterwards.
        is_whole: bool,
    },
}

/// A reservation as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View<F> {
    /// Its serial, once it is being sent.
    pub serial: Option<Serial>,
    /// Who bought.
    pub buyer: BuyerId,
    /// The key that won.
    pub key: IdempotencyKey,
    /// The committed state; `Unknown` while its reserve is in flight.
    pub state: ReservationState,
    /// What is set aside, ascending by item.
    pub lines: SmallVec<[ViewLine; 1]>,
    /// When it was reserved (0 while `Unknown`).
    pub created_at: Timestamp,
    /// Until when it is kept unpaid (0 while `Unknown`).
    pub expires_at: Timestamp,
    /// The payment that confirmed it.
    pub payment_ref: Option<PaymentRef>,
    /// Set while any step is in flight.
    pub in_flight: Option<F>,
}

/// One line of a reservation as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewLine {
    /// Which item.
    pub item: ItemIndex,
    /// How many units.
    pub units: u32,
    /// Price of one unit.
    pub unit_price_minor: Money,
    /// Units refunded, restocked or not.
    pub refunded_units: u32,
}

/// A change of an item's stock on its way to the store; ends by `finish_stock_change` or `abort_stock_change`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StockChange {
    /// Which item.
    pub item: ItemIndex,
    /// What is done: as asked where positive, at most what was available where negative.
    pub applied_delta_units: i64,
}

/// A reservation read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedReservation {
    /// Its serial.
    pub serial: Serial,
    /// Who bought.
    pub buyer: BuyerId,
    /// The key that won.
    pub key: IdempotencyKey,
    /// Where it stands; never `Unknown`.
    pub state: ReservationState,
    /// What is set aside, ascending by item.
    pub lines: SmallVec<[LoadedLine; 1]>,
    /// When it was reserved.
    pub created_at: Timestamp,
    /// Until when it is kept unpaid.
    pub expires_at: Timestamp,
    /// It was given more time before.
    pub is_extended: bool,
    /// The payment that confirmed it.
    pub payment_ref: Option<PaymentRef>,
}

/// One line of a reservation read from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadedLine {
    /// Which item.
    pub item: ItemIndex,
    /// How many units.
    pub units: u32,
    /// Price of one unit.
    pub unit_price_minor: Money,
    /// Units refunded, restocked or not.
    pub refunded_units: u32,
    /// Of those, units that were restocked.
    pub restocked_units: u32,
}

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentDecision {
    /// It confirmed its reservation.
    Taken,
    /// Its reservation had expired and the units were gone.
    RefusedExpired,
    /// The reservation's state forbade it.
    RefusedConflict,
}

/// Units of one item summed over all reservations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordSums {
    /// Of reservations in `reserved` with nothing in flight that moves their units.
    pub reserved: u64,
    /// Confirmed or refunded, less what was restocked.
    pub sold: u64,
    /// Taken by a reserve or a late confirm that is not committed, or about to leave `reserved`.
    /// The item's reserved counter is `reserved + in_flight`, plus stock that is being taken away.
    pub in_flight: u64,
}

/// How many reservations are in which committed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateCounts {
    /// Their reserve is not decided.
    pub unknown: u64,
    /// Waiting for payment.
    pub reserved: u64,
    /// Paid.
    pub confirmed: u64,
    /// Given up.
    pub released: u64,
    /// Not paid in time.
    pub expired: u64,
    /// All money back.
    pub refunded: u64,
}
