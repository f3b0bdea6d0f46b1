//! The checksum chain of batches: what never changes of every row, hashed in order, so that a missing or altered row shows.
//!
//! Owns the canonical bytes of a row. Does not read or write rows. It finds accidents (lost frames, flipped bits, a
//! careless hand), not forgery: XXH3 has no key. What later changes of a reservation (its state, what was refunded)
//! is not hashed here; the events that changed it are.

use xxhash_rust::xxh3::xxh3_64;

/// What never changes of a row of `reservation`.
#[derive(Debug, Clone, Copy)]
pub struct ReservationFacts<'a> {
    /// Its serial.
    pub serial: u64,
    /// Its sale.
    pub sale_no: u32,
    /// Who bought.
    pub buyer: &'a str,
    /// The key that won.
    pub key: &'a str,
    /// When, milliseconds.
    pub created_ms: i64,
    /// Until when it was kept unpaid, milliseconds.
    pub expires_ms: i64,
}

/// A row of `event`.
#[derive(Debug, Clone, Copy)]
pub struct EventFacts<'a> {
    /// Its serial.
    pub serial: u64,
    /// Its sale.
    pub sale_no: u32,
    /// Its type.
    pub kind: &'a str,
    /// When, milliseconds.
    pub at_ms: i64,
    /// The reservation that it changed.
    pub reservation: Option<u64>,
    /// The reference that it answered.
    pub reference: Option<&'a str>,
    /// Its facts, JSON.
    pub data: Option<&'a str>,
}

/// A row of `note`.
#[derive(Debug, Clone, Copy)]
pub struct NoteFacts<'a> {
    /// Its number.
    pub serial: u64,
    /// Its sale, or 0.
    pub sale_no: u32,
    /// When, milliseconds.
    pub at_ms: i64,
    /// Who, command, outcome, detail.
    pub texts: [&'a str; 4],
    /// The sale's name.
    pub sale_id: Option<&'a str>,
}

/// Hashes rows; keeps its buffer.
#[derive(Debug, Default)]
pub struct Canon {
    bytes: Vec<u8>,
}

impl Canon {
    /// The hash of a reservation; `lines` are (item_index, units, unit_price_minor).
    pub fn reservation(
        &mut self,
        facts: &ReservationFacts<'_>,
        lines: impl Iterator<Item = (u16, u32, i64)>,
    ) -> u64 {
        self.start(b'R', facts.serial, facts.sale_no);
        self.text(facts.buyer);
        self.text(facts.key);
        self.bytes.extend(facts.created_ms.to_le_bytes());
        self.bytes.extend(facts.expires_ms.to_le_bytes());
        for (item, units, price) in lines {
            self.bytes.extend(item.to_le_bytes());
            self.bytes.extend(units.to_le_bytes());
            self.bytes.extend(price.to_le_bytes());
        }
        xxh3_64(&self.bytes)
    }

    /// The hash of an event.
    pub fn event(&mut self, facts: &EventFacts<'_>) -> u64 {
        self.start(b'E', facts.serial, facts.sale_no);
        self.text(facts.kind);
        self.bytes.extend(facts.at_ms.to_le_bytes());
        // A serial is never 0.
        self.bytes
            .extend(facts.reservation.unwrap_or(0).to_le_bytes());
        self.optional(facts.reference);
        self.optional(facts.data);
        xxh3_64(&self.bytes)
    }

    /// The hash of a line of the admin log.
    pub fn note(&mut self, facts: &NoteFacts<'_>) -> u64 {
        self.start(b'N', facts.serial, facts.sale_no);
        self.bytes.extend(facts.at_ms.to_le_bytes());
        for text in facts.texts {
            self.text(text);
        }
        self.optional(facts.sale_id);
        xxh3_64(&self.bytes)
    }

    /// The chain value of a batch: over the value before it, its number and time, and the hashes of its rows in order.
    pub fn batch(&mut self, before: u64, number: u64, at_ms: i64, rows: &[u64]) -> u64 {
        self.bytes.clear();
        self.bytes.extend(before.to_le_bytes());
        self.bytes.extend(number.to_le_bytes());
        self.bytes.extend(at_ms.to_le_bytes());
        for hash in rows {
            self.bytes.extend(hash.to_le_bytes());
        }
        xxh3_64(&self.bytes)
    }

    fn start(&mut self, tag: u8, serial: u64, sale_no: u32) {
        self.bytes.clear();
        self.bytes.push(tag);
        self.bytes.extend(serial.to_le_bytes());
        self.bytes.extend(sale_no.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        // Lengths keep ("ab", "c") and ("a", "bc") apart; bounds.rs keeps every text below 4 GiB.
        self.bytes.extend((text.len() as u32).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.bytes.extend(u32::MAX.to_le_bytes()),
        }
    }
}
