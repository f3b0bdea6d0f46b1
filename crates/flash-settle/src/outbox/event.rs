//! What is relayed, and where it comes from.

use flash_store::EventPlace;
use flash_types::{SaleId, SaleNo, Serial, Timestamp};
use futures_util::future::BoxFuture;

/// An event on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutEvent {
    /// `e<sale number>-<generation>-<sequence>`, as [`EventPlace::event_id`] makes it.
    pub id: String,
    /// Where it stands in its sale's order.
    pub place: EventPlace,
    /// Whose it is; `None`: the sale's own.
    pub reservation: Option<Serial>,
    /// Its type, such as `reservation.confirmed`.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// What is sent: JSON.
    pub body: String,
}

/// Where events come from.
pub trait EventSource: Send + Sync + 'static {
    /// Every sale that has or may get events.
    fn sales(&self) -> Vec<(SaleNo, SaleId)>;

    /// Its newest event, where that is known without reading: sales that have nothing new are not read then.
    fn newest(&self, _sale_no: SaleNo) -> Option<EventPlace> {
        None
    }

    /// The next durable events of a sale, ascending by place. What was handed over once is handed over again, the same, when asked
    /// for again.
    ///
    /// # Errors
    /// Why they cannot be read now; asked again later.
    fn events(
        &self,
        sale_no: SaleNo,
        after: EventPlace,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<OutEvent>, String>>;
}

/// The last place before this one.
pub(super) fn before(place: EventPlace) -> EventPlace {
    match place.sequence.checked_sub(1) {
        Some(sequence) => EventPlace { sequence, ..place },
        None => EventPlace {
            generation: place.generation.saturating_sub(1),
            sequence: u64::MAX,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lies_between_a_place_and_the_one_before_it() {
        let place = EventPlace {
            generation: 2,
            sequence: 4_294_967_297,
        };
        assert!(before(place) < place);
        let first = EventPlace {
            generation: 3,
            sequence: 0,
        };
        assert!(before(first) < first && before(first) > place);
    }
}
