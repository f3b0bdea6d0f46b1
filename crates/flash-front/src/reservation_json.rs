//! The body of a 201, written by hand: the same bytes as the derived serializer's, for less.

use bytes::{Bytes, BytesMut};
use flash_types::Reservation;

/// A body as it grows: texts and numbers one after the other, without the machinery of formatting, which cost more than all the rest of an answer.
struct Body(BytesMut);

impl Body {
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: impl itoa::Integer) -> &mut Self {
        self.text(itoa::Buffer::new().format(number))
    }
}

/// Writes a reservation as the contract's JSON. Every text in it is an id or a word: nothing needs escaping.
pub(crate) fn write(reservation: &Reservation) -> Bytes {
    let mut body = Body(BytesMut::with_capacity(384 + 128 * reservation.lines.len()));
    body.text("{\"reservation_id\":\"r")
        .number(reservation.reservation_id.sale_no.0)
        .text("-")
        .number(reservation.reservation_id.serial.0)
        .text("\",\"sale_id\":\"")
        .text(reservation.sale_id.as_str())
        .text("\",\"buyer_id\":\"")
        .text(reservation.buyer_id.as_str())
        .text("\",\"state\":\"")
        .text(reservation.state.as_str())
        .text("\",\"lines\":[");
    for (index, line) in reservation.lines.iter().enumerate() {
        body.text(if index == 0 { "" } else { "," })
            .text("{\"item\":\"")
            .text(line.item.as_str())
            .text("\",\"quantity\":")
            .number(line.quantity)
            .text(",\"unit_price_minor\":")
            .number(line.unit_price_minor.0)
            .text(",\"refunded_units\":")
            .number(line.refunded_units)
            .text("}");
    }
    body.text("],\"amount_minor\":")
        .number(reservation.amount_minor.0)
        .text(",\"currency\":\"")
        .text(reservation.currency.as_str())
        .text("\",\"created_at\":\"")
        .text(reservation.created_at.text().as_str())
        .text("\",\"expires_at\":\"")
        .text(reservation.expires_at.text().as_str())
        .text("\",\"payment_ref\":");
    match &reservation.payment_ref {
        Some(payment_ref) => body.text("\"").text(payment_ref.as_str()).text("\""),
        None => body.text("null"),
    };
    body.text(",\"durability\":\"")
        .text(reservation.durability.as_str())
        .text("\"}");
    body.0.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flash_types::{
        BuyerId, Currency, Durability, ItemId, Money, PaymentRef, ReservationId, ReservationLine,
        ReservationState, SaleId, SaleNo, Serial, Timestamp,
    };
    use proptest::prelude::*;

    const STATES: [ReservationState; 6] = [
        ReservationState::Unknown,
        ReservationState::Reserved,
        ReservationState::Confirmed,
        ReservationState::Released,
        ReservationState::Expired,
        ReservationState::Refunded,
    ];

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_serializer(
            id in "[A-Za-z0-9_.:-]{1,64}",
            serial in 0u64..1 << 53,
            lines in prop::collection::vec(("[a-z]{1,64}", 1u32..20_000, 0i64..1_000_000_000_000, 0u32..9), 1..20),
            amount in 0i64..,
            ms in 0i64..Timestamp::MAX.0,
            state in 0usize..6,
            is_paid: bool,
        ) {
            let reservation = Reservation {
                reservation_id: ReservationId { sale_no: SaleNo(7), serial: Serial(serial) },
                sale_id: SaleId::parse(&id).unwrap(),
                buyer_id: BuyerId::parse(&id).unwrap(),
                state: STATES[state],
                lines: lines
                    .iter()
                    .map(|(item, quantity, price, refunded_units)| ReservationLine {
                        item: ItemId::parse(item).unwrap(),
                        quantity: *quantity,
                        unit_price_minor: Money(*price),
                        refunded_units: *refunded_units,
                    })
                    .collect(),
                amount_minor: Money(amount),
                currency: Currency::parse("CNY").unwrap(),
                created_at: Timestamp(ms),
                expires_at: Timestamp(ms + 1),
                payment_ref: is_paid.then(|| PaymentRef::parse(&id).unwrap()),
                durability: Durability::SqliteFsync,
            };
            prop_assert_eq!(&write(&reservation)[..], &serde_json::to_vec(&reservation).unwrap()[..]);
        }
    }
}
