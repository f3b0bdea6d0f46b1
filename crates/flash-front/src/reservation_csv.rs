//! A page of reservations as CSV (RFC 4180), for shipping: one row for each line of a reservation.
//!
//! Every cell is an id, a word, a number or a time: none holds a quote, a comma or a line's end. An id may begin with
//! `-`, and such a cell would be a formula to a spreadsheet: it gets an apostrophe before it.

use flash_types::Reservation;

const HEADER: &str = "reservation_id,sale_id,buyer_id,state,item,quantity,refunded_units,unit_price_minor,currency,\
                      created_at,payment_ref\r\n";

/// Writes the rows, a header first.
pub(crate) fn write(reservations: &[Reservation]) -> String {
    let mut text = String::with_capacity(HEADER.len() + 192 * reservations.len());
    text.push_str(HEADER);
    for reservation in reservations {
        for line in &reservation.lines {
            let cells: [&str; 11] = [
                &reservation.reservation_id.to_string(),
                reservation.sale_id.as_str(),
                reservation.buyer_id.as_str(),
                reservation.state.as_str(),
                line.item.as_str(),
                &line.quantity.to_string(),
                &line.refunded_units.to_string(),
                &line.unit_price_minor.0.to_string(),
                reservation.currency.as_str(),
                &reservation.created_at.to_string(),
                reservation
                    .payment_ref
                    .as_ref()
                    .map_or("", |payment| payment.as_str()),
            ];
            for (index, cell) in cells.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                push(&mut text, cell);
            }
            text.push_str("\r\n");
        }
    }
    text
}

fn push(text: &mut String, cell: &str) {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        text.push('\'');
    }
    if !cell.contains(['"', ',', '\r', '\n']) {
        text.push_str(cell);
        return;
    }
    // No id has these; should one ever, the row stays whole.
    text.push('"');
    text.push_str(&cell.replace('"', "\"\""));
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_no_formulas_and_stay_in_their_row() {
        let written = |cell| {
            let mut text = String::new();
            push(&mut text, cell);
            text
        };
        for (cell, expected) in [
            ("b-1", "b-1"),
            ("", ""),
            ("-1+2", "'-1+2"),
            ("=HYPERLINK", "'=HYPERLINK"),
            ("@sum", "'@sum"),
            ("+1", "'+1"),
            ("a,b", "\"a,b\""),
            ("a\"b\n", "\"a\"\"b\n\""),
        ] {
            assert_eq!(written(cell), expected);
        }
    }
}
