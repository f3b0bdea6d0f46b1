//! What can be made durable: every change of a sale is one [`Change`], and goes into the store in the order of its batch.
//!
//! A change carries the facts of the decision (which units, which reference), so that a retry after a crash gets
//! the same decision, and so that the fold of all changes gives the counters again.

use flash_types::{
    BuyerId, IdempotencyKey, ItemIndex, Money, PaymentRef, RefundRef, ReservationState,
    SaleDefinition, SaleId, SaleNo, SaleState, Serial, Timestamp,
};
use smallvec::SmallVec;

/// Changes that become durable together.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Ascending by one, over all starts of the process.
    pub number: u64,
    /// When it was built.
    pub at: Timestamp,
    /// In the order in which they take effect; serials ascend.
    pub entries: Vec<Entry>,
}

/// One change, its number and its sale.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Number of the event that this change is.
    pub serial: Serial,
    /// The sale that it changes.
    pub sale_no: SaleNo,
    /// What changes.
    pub change: Change,
}

/// One line of a new reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReserveLine {
    /// Which item.
    pub item: ItemIndex,
    /// How many units.
    pub units: u32,
    /// Price of one unit.
    pub unit_price_minor: Money,
}

/// So many units of an item, within a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta {
    /// Which item.
    pub item: ItemIndex,
    /// How many units.
    pub units: u32,
}

/// The small list of units that a change moves.
pub type Deltas = SmallVec<[Delta; 1]>;

/// A change of a sale. Where a variant speaks of a reservation, `reservation` is its serial.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new draft, or a draft replaced. Items and their counters follow the definition (all units unreleased).
    PutDraft {
        /// The plan.
        definition: Box<SaleDefinition>,
    },
    /// `draft -> published`. Event `sale.published`.
    Publish,
    /// `published -> open`: unreleased units become available, but for those held back. Event `sale.opened`.
    Open {
        /// Units that stay unreleased, ascending by item: later waves bring them. More than there are: all stay.
        held: Deltas,
    },
    /// `open -> paused`. Event `sale.paused`.
    Pause,
    /// `paused -> open`. Event `sale.resumed`.
    Resume,
    /// `published | open | paused -> closed`. Event `sale.closed`.
    Close,
    /// `published | open | paused -> draft`, where nothing was ever reserved: all that was available is unreleased again.
    /// Event `sale.unpublished`.
    Unpublish,
    /// Another price for new reservations; the sale is paused. Event `sale.price_changed`.
    ChangePrice {
        /// Which item.
        item: ItemIndex,
        /// The price until now.
        from: Money,
        /// The price from now on.
        to: Money,
        /// Why, in the merchant's words.
        reason: String,
        /// The plan with the new price, which is stored in place of the old one.
        definition: Box<SaleDefinition>,
    },
    /// Units unreleased -> available. Event `sale.wave`.
    Wave {
        /// Which item.
        item: ItemIndex,
        /// Which release: each happens once.
        wave: WaveRef,
        /// Not before this, by the store's clock.
        due_at: Timestamp,
        /// How many units; 0 where nothing is left to release.
        units: u32,
    },
    /// Tries at the sale that reserved nothing, counted. Event `sale.attempts`, which is told to nobody outside.
    CountAttempts {
        /// Begin of the ten seconds.
        from: Timestamp,
        /// What was counted.
        counts: Vec<AttemptCount>,
    },
    /// Any state -> frozen. Event `sale.frozen`.
    Freeze {
        /// What was found.
        reason: String,
    },
    /// The sale left memory: its keys are indexed for reads from here on. No event.
    Retire,
    /// Units available -> reserved. The reservation's serial is the entry's. Event `reservation.reserved`.
    Reserve {
        /// Who buys.
        buyer: BuyerId,
        /// The key that won.
        key: IdempotencyKey,
        /// What is set aside.
        lines: SmallVec<[ReserveLine; 1]>,
        /// When.
        created_at: Timestamp,
        /// Until when it is kept unpaid.
        expires_at: Timestamp,
    },
    /// Units reserved -> sold; if `is_late` (it had expired) available -> sold. Event `reservation.confirmed`.
    Confirm {
        /// Which.
        reservation: Serial,
        /// By which payment.
        payment_ref: PaymentRef,
        /// It had expired before.
        is_late: bool,
        /// Its units.
        units: Deltas,
    },
    /// A payment that has to go back; the reservation stays as it is. Event `reservation.refund_due`.
    RefusePayment {
        /// Which.
        reservation: Serial,
        /// The payment.
        payment_ref: PaymentRef,
        /// `true`: it had expired and its units are gone (`reservation_expired`); `false`: `state_conflict`.
        is_expired: bool,
        /// The state that the reservation stays in.
        state: ReservationState,
        /// Units refunded of it so far, ascending by item; items without are left out.
        refunded: Deltas,
    },
    /// Money that has to go back since the item became cheaper; the reservation stays as it is, and an item of it gets
    /// this once. Event `reservation.refund_due`.
    ProtectPrice {
        /// Which.
        reservation: Serial,
        /// The item.
        item: ItemIndex,
        /// Units of it that the buyer still has.
        units: u32,
        /// What was paid for one unit.
        paid_minor: Money,
        /// The lower price.
        price_minor: Money,
        /// The sale with the lower price.
        other: SaleId,
        /// The state that the reservation stays in.
        state: ReservationState,
        /// Units refunded of it so far, ascending by item; items without are left out.
        refunded: Deltas,
    },
    /// `reserved` is kept longer, once. Event `reservation.extended`.
    Extend {
        /// Which.
        reservation: Serial,
        /// Until when it is kept unpaid from now on.
        expires_at: Timestamp,
    },
    /// Units reserved -> available, or -> unreleased where the sale pools them. Event `reservation.released`.
    Release {
        /// Which.
        reservation: Serial,
        /// Its units.
        units: Deltas,
        /// They wait for an announced time.
        is_pooled: bool,
    },
    /// Units reserved -> available, or -> unreleased where the sale pools them. Event `reservation.expired`.
    Expire {
        /// Which.
        reservation: Serial,
        /// Its units.
        units: Deltas,
        /// They wait for an announced time.
        is_pooled: bool,
    },
    /// Money back for some units; if `restock`, units sold -> available. Event `reservation.refunded`.
    Refund {
        /// Which.
        reservation: Serial,
        /// Named by the storefront; absent where all was refunded without one.
        refund_ref: Option<RefundRef>,
        /// The units become available again.
        restock: bool,
        /// The units refunded by this refund.
        units: Deltas,
        /// `true`: nothing is left, the reservation ends `refunded`.
        is_whole: bool,
        /// Units refunded by this and all refunds before, ascending by item; items without are left out.
        refunded: Deltas,
    },
    /// Stock changed: positive, stock and available grow; negative, both shrink. Event `sale.stock_changed`.
    ChangeStock {
        /// Which item.
        item: ItemIndex,
        /// The command's key: a retry gets the same answer.
        key: IdempotencyKey,
        /// What was asked for.
        asked_delta_units: i64,
        /// What was done.
        applied_delta_units: i64,
        /// Why, in the merchant's words.
        reason: String,
    },
    /// Who did what through the admin API. No event; `sale_no` is 0 where no sale is meant.
    Note(AdminNote),
}

/// Which release of further units: each has a name under which it happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaveRef {
    /// The planned one at this place in the item's plan, from 0.
    Planned(u16),
    /// What came back unpaid, at this place in the sale's list of times, from 0.
    Pool(u16),
    /// By hand; with the command's key it happens once, without one each time.
    Hand(Option<IdempotencyKey>),
}

impl WaveRef {
    /// The name under which it happens once.
    pub fn reference(self) -> Option<String> {
        match self {
            Self::Planned(index) => Some(format!("plan:{index}")),
            Self::Pool(index) => Some(format!("pool:{index}")),
            Self::Hand(key) => key.map(|key| format!("hand:{key}")),
        }
    }

    /// Reads a name.
    pub fn parse(reference: &str) -> Option<Self> {
        let (kind, name) = reference.split_once(':')?;
        match kind {
            "plan" => name.parse().ok().map(Self::Planned),
            "pool" => name.parse().ok().map(Self::Pool),
            "hand" => IdempotencyKey::parse(name)
                .ok()
                .map(|key| Self::Hand(Some(key))),
            _ => None,
        }
    }
}

/// How often tries at an item came to the same no within ten seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptCount {
    /// The first item of the try, by place in the plan; `None` where it named none of this sale.
    pub item: Option<ItemIndex>,
    /// What it was answered: an outcome of the contract, or `replayed`.
    pub outcome: String,
    /// How often.
    pub attempts: u64,
}

/// One line of the append-only log of admin commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminNote {
    /// When.
    pub at: Timestamp,
    /// Name of the admin key.
    pub who: String,
    /// The command, e.g. `sale.pause`.
    pub command: String,
    /// What it was done to.
    pub sale_id: Option<SaleId>,
    /// What became of it: `ok` or the refusal's word.
    pub outcome: String,
    /// The command's body, shortened.
    pub detail: String,
}

/// How a change moves the units of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ItemMove {
    /// Change of `stock`.
    pub stock: i64,
    /// Change of `unreleased`.
    pub unreleased: i64,
    /// Change of `available`.
    pub available: i64,
    /// Change of `reserved`.
    pub reserved: i64,
    /// Change of `sold`.
    pub sold: i64,
}

/// What a reference was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Which kind of reference.
    pub kind: DecisionKind,
    /// The reference.
    pub reference: String,
    /// The reservation, where one is meant.
    pub reservation: Option<Serial>,
}

/// Which kind of reference a decision was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecisionKind {
    /// A payment that confirmed its reservation.
    PaymentTaken,
    /// A payment refused since its reservation had expired and the units were gone.
    PaymentRefusedExpired,
    /// A payment refused by the reservation's state.
    PaymentRefusedConflict,
    /// A refund.
    Refund,
    /// A change of stock.
    StockChange,
    /// A release of further units.
    Wave,
    /// A price that fell after an item was bought.
    PriceProtection,
}

impl Change {
    /// How this change moves units: (item, move). `Open` and `Unpublish` move what is there then, which the store knows.
    pub fn moves(&self) -> SmallVec<[(ItemIndex, ItemMove); 2]> {
        let of = |units: &Deltas, step: fn(i64) -> ItemMove| {
            units
                .iter()
                .map(|delta| (delta.item, step(i64::from(delta.units))))
                .collect()
        };
        match self {
            Self::Reserve { lines, .. } => lines
                .iter()
                .map(|line| {
                    let n = i64::from(line.units);
                    (
                        line.item,
                        ItemMove {
                            available: -n,
                            reserved: n,
                            ..ItemMove::default()
                        },
                    )
                })
                .collect(),
            Self::Confirm {
                units,
                is_late: false,
                ..
            } => of(units, |n| ItemMove {
                reserved: -n,
                sold: n,
                ..ItemMove::default()
            }),
            Self::Confirm {
                units,
                is_late: true,
                ..
            } => of(units, |n| ItemMove {
                available: -n,
                sold: n,
                ..ItemMove::default()
            }),
            Self::Release {
                units,
                is_pooled: false,
                ..
            }
            | Self::Expire {
                units,
                is_pooled: false,
                ..
            } => of(units, |n| ItemMove {
                reserved: -n,
                available: n,
                ..ItemMove::default()
            }),
            Self::Release {
                units,
                is_pooled: true,
                ..
            }
            | Self::Expire {
                units,
                is_pooled: true,
                ..
            } => of(units, |n| ItemMove {
                reserved: -n,
                unreleased: n,
                ..ItemMove::default()
            }),
            Self::Wave { item, units, .. } => SmallVec::from_iter([(
                *item,
                ItemMove {
                    unreleased: -i64::from(*units),
                    available: i64::from(*units),
                    ..ItemMove::default()
                },
            )]),
            Self::Refund {
                units,
                restock: true,
                ..
            } => of(units, |n| ItemMove {
                sold: -n,
                available: n,
                ..ItemMove::default()
            }),
            Self::ChangeStock {
                item,
                applied_delta_units: n,
                ..
            } => SmallVec::from_iter([(
                *item,
                ItemMove {
                    stock: *n,
                    available: *n,
                    ..ItemMove::default()
                },
            )]),
            Self::Refund { restock: false, .. }
            | Self::RefusePayment { .. }
            | Self::ProtectPrice { .. }
            | Self::Extend { .. }
            | Self::PutDraft { .. }
            | Self::Publish
            | Self::Open { .. }
            | Self::Pause
            | Self::Resume
            | Self::Close
            | Self::Unpublish
            | Self::ChangePrice { .. }
            | Self::CountAttempts { .. }
            | Self::Freeze { .. }
            | Self::Retire
            | Self::Note(_) => SmallVec::new(),
        }
    }

    /// The state that a sale is in after this change, where it sets one.
    pub fn sale_state(&self) -> Option<SaleState> {
        match self {
            Self::PutDraft { .. } | Self::Unpublish => Some(SaleState::Draft),
            Self::Publish => Some(SaleState::Published),
            Self::Open { .. } | Self::Resume => Some(SaleState::Open),
            Self::Pause => Some(SaleState::Paused),
            Self::Close => Some(SaleState::Closed),
            Self::Freeze { .. } => Some(SaleState::Frozen),
            Self::Retire
            | Self::ChangePrice { .. }
            | Self::Wave { .. }
            | Self::CountAttempts { .. }
            | Self::Reserve { .. }
            | Self::Confirm { .. }
            | Self::RefusePayment { .. }
            | Self::ProtectPrice { .. }
            | Self::Extend { .. }
            | Self::Release { .. }
            | Self::Expire { .. }
            | Self::Refund { .. }
            | Self::ChangeStock { .. }
            | Self::Note(_) => None,
        }
    }

    /// The state that the reservation is in after this change, where it sets one.
    pub fn reservation_state(&self) -> Option<ReservationState> {
        match self {
            Self::Reserve { .. } => Some(ReservationState::Reserved),
            Self::Confirm { .. } => Some(ReservationState::Confirmed),
            Self::Release { .. } => Some(ReservationState::Released),
            Self::Expire { .. } => Some(ReservationState::Expired),
            Self::Refund { is_whole: true, .. } => Some(ReservationState::Refunded),
            Self::Refund {
                is_whole: false, ..
            }
            | Self::RefusePayment { .. }
            | Self::ProtectPrice { .. }
            | Self::Extend { .. }
            | Self::PutDraft { .. }
            | Self::Publish
            | Self::Open { .. }
            | Self::Pause
            | Self::Resume
            | Self::Close
            | Self::Unpublish
            | Self::ChangePrice { .. }
            | Self::Wave { .. }
            | Self::CountAttempts { .. }
            | Self::Freeze { .. }
            | Self::Retire
            | Self::ChangeStock { .. }
            | Self::Note(_) => None,
        }
    }

    /// The type of the event on the wire, where the change is one.
    pub fn event_type(&self) -> Option<&'static str> {
        match self {
            Self::Publish => Some("sale.published"),
            Self::Open { .. } => Some("sale.opened"),
            Self::Pause => Some("sale.paused"),
            Self::Resume => Some("sale.resumed"),
            Self::Close => Some("sale.closed"),
            Self::Unpublish => Some("sale.unpublished"),
            Self::ChangePrice { .. } => Some("sale.price_changed"),
            Self::Wave { .. } => Some("sale.wave"),
            Self::Freeze { .. } => Some("sale.frozen"),
            Self::ChangeStock { .. } => Some("sale.stock_changed"),
            Self::Reserve { .. } => Some("reservation.reserved"),
            Self::Confirm { .. } => Some("reservation.confirmed"),
            Self::RefusePayment { .. } | Self::ProtectPrice { .. } => {
                Some("reservation.refund_due")
            }
            Self::Extend { .. } => Some("reservation.extended"),
            Self::Release { .. } => Some("reservation.released"),
            Self::Expire { .. } => Some("reservation.expired"),
            Self::Refund { .. } => Some("reservation.refunded"),
            Self::PutDraft { .. } | Self::Retire | Self::CountAttempts { .. } | Self::Note(_) => {
                None
            }
        }
    }
}
