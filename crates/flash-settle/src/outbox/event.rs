//! What is relayed, and where it comes from.

use flash_store::EventPlace;
use flash_types::{SaleId, SaleNo, Serial, Timestamp};
use futures_util::future::BoxFuture;

/// An event on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutEvent {
    /// `e<sale number>-<generation>-<sequence>`, as [`event_id`] makes it.
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

/// The name of an event.
pub fn event_id(sale_no: SaleNo, place: EventPlace) -> String {
    format!("e{}-{}-{}", sale_no.0, place.generation, place.sequence)
}

/// What a name says, if it is one.
pub fn parse_event_id(id: &str) -> Option<(SaleNo, EventPlace)> {
    let mut parts = id.strip_prefix('e')?.split('-');
    let sale_no = SaleNo(parts.next()?.parse().ok()?);
    let place = EventPlace {
        generation: parts.next()?.parse().ok()?,
        sequence: parts.next()?.parse().ok()?,
    };
    // Leading zeros and signs would be other names of the same event.
    (parts.next().is_none() && event_id(sale_no, place) == id).then_some((sale_no, place))
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
    fn an_id_is_read_back_and_nothing_else_is() {
        let place = EventPlace {
            generation: 2,
            sequence: 4_294_967_297,
        };
        let id = event_id(SaleNo(7), place);
        assert_eq!(parse_event_id(&id), Some((SaleNo(7), place)));
        for bad in [
            "", "e", "e1-2", "e1-2-3-4", "e01-2-3", "e1-+2-3", "r1-2-3", "e-1-2-3", "e1-2-x",
        ] {
            assert_eq!(parse_event_id(bad), None, "{bad}");
        }
        assert!(before(place) < place);
        let first = EventPlace {
            generation: 3,
            sequence: 0,
        };
        assert!(before(first) < first && before(first) > place);
    }
}
