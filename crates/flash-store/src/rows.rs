//! What is read back: rows of sales, items, reservations and decisions.

use flash_types::{
    BuyerId, IdempotencyKey, ItemId, ItemIndex, ItemUnits, Money, PaymentRef, ReservationState,
    SaleDefinition, SaleNo, SaleState, Serial, Timestamp,
};
use smallvec::SmallVec;

use crate::{AttemptCount, Decision};

/// A sale as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleRow {
    /// Its number.
    pub sale_no: SaleNo,
    /// Where it stands.
    pub state: SaleState,
    /// Its plan.
    pub definition: SaleDefinition,
    /// It left memory: not loaded at start, read through the store.
    pub is_retired: bool,
    /// Its items, by index.
    pub items: Vec<ItemRow>,
}

/// Counters of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRow {
    /// Place in the definition.
    pub index: ItemIndex,
    /// Its name.
    pub item: ItemId,
    /// Where its units are.
    pub units: ItemUnits,
}

/// One line of a stored reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredLine {
    /// Which item.
    pub item: ItemIndex,
    /// How many units.
    pub units: u32,
    /// Price of one unit.
    pub unit_price_minor: Money,
    /// Units refunded, restocked or not.
    pub refunded_units: u32,
    /// Of those, units that were restocked: they no longer count against the buyer's limit.
    pub restocked_units: u32,
}

/// A stored reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationRow {
    /// Its serial.
    pub serial: Serial,
    /// Its sale.
    pub sale_no: SaleNo,
    /// Who bought.
    pub buyer: BuyerId,
    /// The key that won.
    pub key: IdempotencyKey,
    /// Where it stands.
    pub state: ReservationState,
    /// What is set aside.
    pub lines: SmallVec<[StoredLine; 1]>,
    /// When it was reserved.
    pub created_at: Timestamp,
    /// Until when it is kept unpaid.
    pub expires_at: Timestamp,
    /// The payment that confirmed it.
    pub payment_ref: Option<PaymentRef>,
}

/// A stored decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionRow {
    /// The sale.
    pub sale_no: SaleNo,
    /// What was decided for which reference.
    pub decision: Decision,
    /// The change that recorded it, for refunds and stock changes: its facts as JSON.
    /// Refund: `{"restock":bool,"lines":[[item_index,units],…]}`.
    /// Stock change: `{"item":index,"asked":n,"applied":n}`.
    /// Wave: `{"item":index,"units":n}`. Price protection: `{"units":n,"paid":n,"price":n}`.
    pub detail: Option<String>,
}

/// All that is stored of one sale.
#[derive(Debug, Clone)]
pub struct SaleContent {
    /// Plan, state, counters.
    pub sale: SaleRow,
    /// The last event that is in it.
    pub ev: u64,
    /// Of a frozen sale the state before.
    pub thaw: Option<SaleState>,
    /// Ascending by serial.
    pub reservations: Vec<ReservationRow>,
    /// In no order.
    pub decisions: Vec<DecisionRow>,
}

/// Which reservations of a sale.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReservationFilter {
    /// Only this buyer's.
    pub buyer: Option<BuyerId>,
    /// Only in this state.
    pub state: Option<ReservationState>,
    /// Only those that changed after this time.
    pub updated_after: Option<Timestamp>,
}

/// Where an event stands in the line of its sale. The least one lies before the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventPlace {
    /// How often the line was broken before it: by a failover, or by an accepted loss.
    pub generation: u64,
    /// Ascends within the sale.
    pub sequence: u64,
}

impl EventPlace {
    /// The name of the event of a sale at this place: URL-safe, one for each event.
    pub fn event_id(self, sale_no: SaleNo) -> String {
        format!("e{}-{}-{}", sale_no.0, self.generation, self.sequence)
    }

    /// Reads the name of an event.
    pub fn parse_event_id(id: &str) -> Option<(SaleNo, Self)> {
        let mut parts = id.strip_prefix('e')?.split('-');
        let sale_no = SaleNo(parts.next()?.parse().ok()?);
        let place = Self {
            generation: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
        };
        // Signs and leading zeros would be other names of the same event.
        (parts.next().is_none() && place.event_id(sale_no) == id).then_some((sale_no, place))
    }
}

/// Which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventRange {
    /// Of one sale, after this place.
    OfSale(SaleNo, EventPlace),
    /// Of all sales, after this event (of this sale, at this place); from the first where there is none.
    OfAll(Option<(SaleNo, EventPlace)>),
}

/// An event as stored, with the reservation as it was left by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Its sale.
    pub sale_no: SaleNo,
    /// Its place in the sale's line.
    pub place: EventPlace,
    /// Its type, as on the wire.
    pub kind: String,
    /// When.
    pub at: Timestamp,
    /// The reservation that it is about, as it stood after it; but for `restocked_units`, which are those of now.
    pub reservation: Option<ReservationRow>,
    /// The reference that it answered: of a payment, a refund, a command.
    pub reference: Option<String>,
    /// Its facts, JSON as in the store's words; empty for `reservation.reserved`.
    pub data: Option<String>,
}

/// Tries that reserved nothing, of ten seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptsRow {
    /// Begin of the ten seconds.
    pub from: Timestamp,
    /// What was counted.
    pub counts: Vec<AttemptCount>,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only what comes after it.
    pub after: Serial,
    /// At most so many.
    pub limit: usize,
}

/// What a store hands over at start, one piece at a time: each sale before its reservations and decisions;
/// reservations (of all sales together) ascending by serial. Retired sales come without reservations and decisions.
pub trait Loaded {
    /// A sale with its items.
    fn sale(&mut self, sale: SaleRow);
    /// A reservation of a sale that was handed over before.
    fn reservation(&mut self, reservation: ReservationRow);
    /// A decision of a sale that was handed over before.
    fn decision(&mut self, decision: DecisionRow);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_one_name() {
        let place = EventPlace {
            generation: 2,
            sequence: 4_294_967_297,
        };
        let id = place.event_id(SaleNo(7));
        assert_eq!(id, "e7-2-4294967297");
        assert_eq!(EventPlace::parse_event_id(&id), Some((SaleNo(7), place)));
        for bad in [
            "", "e", "e7", "e7-2", "e7-2-3-4", "e07-2-3", "e+7-2-3", "e7-+2-3", "7-2-3", "r7-2-3",
            "e-7-2-3", "e7-2-x",
        ] {
            assert_eq!(EventPlace::parse_event_id(bad), None, "{bad}");
        }
    }
}
