//! The body of a 201, written by hand: the same bytes as the derived serializer's, for less.

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use flash_types::Reservation;

/// Writes a reservation as the contract's JSON. Every text in it is an id or a word: nothing needs escaping.
pub(crate) fn write(reservation: &Reservation) -> Bytes {
    let mut out = BytesMut::with_capacity(384 + 128 * reservation.lines.len());
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        "{{\"reservation_id\":\"{}\",\"sale_id\":\"{}\",\"buyer_id\":\"{}\",\"state\":\"{}\",\"lines\":[",
        reservation.reservation_id,
        reservation.sale_id,
        reservation.buyer_id,
        reservation.state.as_str()
    );
    for (index, line) in reservation.lines.iter().enumerate() {
        let _ = write!(
            out,
            "{}{{\"item\":\"{}\",\"quantity\":{},\"unit_price_minor\":{},\"refunded_units\":{}}}",
            if index == 0 { "" } else { "," },
            line.item,
            line.quantity,
            line.unit_price_minor.0,
            line.refunded_units
        );
    }
    let _ = write!(
        out,
        "],\"amount_minor\":{},\"currency\":\"{}\",\"created_at\":\"{}\",\"expires_at\":\"{}\",\"payment_ref\":",
        reservation.amount_minor.0,
        reservation.currency.as_str(),
        reservation.created_at,
        reservation.expires_at
    );
    let _ = match &reservation.payment_ref {
        Some(payment_ref) => write!(out, "\"{payment_ref}\""),
        None => write!(out, "null"),
    };
    let _ = write!(
        out,
        ",\"durability\":\"{}\"}}",
        reservation.durability.as_str()
    );
    out.freeze()
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
