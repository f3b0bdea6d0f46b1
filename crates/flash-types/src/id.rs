//! Ids: checked once, then copied by value; no allocation to carry one through a request.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds::ID_BYTES_MAX;

/// Why a text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadId {
    /// There is nothing in it.
    #[error("is empty; 1-64 characters of A-Z a-z 0-9 _ . : - are taken")]
    Empty,
    /// More than 64 bytes.
    #[error("is longer than 64 characters")]
    TooLong,
    /// A character outside of `A-Z a-z 0-9 _ . : -`.
    #[error("has a character outside of A-Z a-z 0-9 _ . : -")]
    BadCharacter,
    /// Not of the form `r<sale>-<serial>`.
    #[error("is not of the form r<sale>-<serial>")]
    NotAReservation,
}

/// 1-64 characters of `A-Z a-z 0-9 _ . : -`, held in place.
#[derive(Clone, Copy)]
struct Name {
    len: u8,
    bytes: [u8; ID_BYTES_MAX],
}

const fn is_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-')
}

impl Name {
    fn parse(text: &[u8]) -> Result<Self, BadId> {
        if text.is_empty() {
            return Err(BadId::Empty);
        }
        if text.len() > ID_BYTES_MAX {
            return Err(BadId::TooLong);
        }
        if !text.iter().copied().all(is_id_byte) {
            return Err(BadId::BadCharacter);
        }
        let mut bytes = [0; ID_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Ok(Self {
            len: text.len() as u8,
            bytes,
        })
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    fn as_str(&self) -> &str {
        // Only ASCII gets past `parse`.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

// With the name that it has in JSON, which is what a client can look for.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident $field:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(Name);

        impl $name {
            /// Checks a text from outside: 1-64 characters of `A-Z a-z 0-9 _ . : -`.
            ///
            /// # Errors
            /// [`BadId`] says what is wrong with it.
            pub fn parse(text: &str) -> Result<Self, BadId> {
                Name::parse(text.as_bytes()).map(Self)
            }

            /// The same for bytes that may not be UTF-8.
            ///
            /// # Errors
            /// [`BadId`] says what is wrong with it.
            pub fn parse_bytes(text: &[u8]) -> Result<Self, BadId> {
                Name::parse(text).map(Self)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The id as bytes (ASCII).
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_bytes() == other.as_bytes()
            }
        }
        impl Eq for $name {}
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.as_bytes().cmp(other.as_bytes())
            }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_bytes().hash(state);
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.as_str())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::parse(text)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text)
                    .map_err(|bad| serde::de::Error::custom(format_args!(concat!($field, " {}"), bad)))
            }
        }
    };
}

id!(
    /// One flash-sale event, named by the merchant.
    SaleId "sale_id"
);
id!(
    /// One product line of a sale, named by the merchant.
    ItemId "item"
);
id!(
    /// Who buys, named by the storefront.
    BuyerId "buyer_id"
);
id!(
    /// The client's key for one purchase or one command; scoped to (sale, buyer) for purchases.
    IdempotencyKey "idempotency_key"
);
id!(
    /// The storefront's name for one payment.
    PaymentRef "payment_ref"
);
id!(
    /// The storefront's name for one refund.
    RefundRef "refund_ref"
);

/// The store's number for a sale: small, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SaleNo(pub u32);

/// Number of an event; a reservation bears the number of the event that made it.
///
/// Epoch (the count of starts of the process) times 2^32 plus a count: ascending in commit order, and
/// never used twice, even where a batch was numbered and then lost with the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Serial(pub u64);

/// Public name of a reservation, `r<sale number>-<serial>`: it names its sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReservationId {
    /// The sale.
    pub sale_no: SaleNo,
    /// The event that made it.
    pub serial: Serial,
}

impl fmt::Display for ReservationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}-{}", self.sale_no.0, self.serial.0)
    }
}

impl FromStr for ReservationId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let (sale_no, serial) = text
            .strip_prefix('r')
            .and_then(|rest| rest.split_once('-'))
            .ok_or(BadId::NotAReservation)?;
        let id = Self {
            sale_no: SaleNo(sale_no.parse().map_err(|_| BadId::NotAReservation)?),
            serial: Serial(serial.parse().map_err(|_| BadId::NotAReservation)?),
        };
        // One spelling only: no plus sign, no leading zeros.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(BadId::NotAReservation)
        }
    }
}

impl Serialize for ReservationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReservationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_by_length_and_charset() {
        for good in ["a", "A-Z_0.9:x", &"x".repeat(64)] {
            assert_eq!(
                BuyerId::parse(good).map(|id| id.as_str().to_owned()),
                Ok(good.to_owned())
            );
        }
        for (bad, why) in [
            ("", BadId::Empty),
            ("x".repeat(65).as_str(), BadId::TooLong),
            ("x".repeat(10_000).as_str(), BadId::TooLong),
            ("a b", BadId::BadCharacter),
            ("a\0", BadId::BadCharacter),
            ("a\n", BadId::BadCharacter),
            ("{a}", BadId::BadCharacter),
            ("\u{430}dmin", BadId::BadCharacter),
            ("a/b", BadId::BadCharacter),
        ] {
            assert_eq!(BuyerId::parse(bad).map(|_| ()), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_reservation_id_has_one_spelling() {
        let id = ReservationId {
            sale_no: SaleNo(7),
            serial: Serial((3 << 32) | 42),
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in [
            "",
            "r",
            "r1",
            "r1-",
            "r-1",
            "r01-2",
            "r+1-2",
            "r1-2 ",
            "x1-2",
            "r1-99999999999999999999",
        ] {
            assert_eq!(
                bad.parse::<ReservationId>(),
                Err(BadId::NotAReservation),
                "{bad:?}"
            );
        }
    }
}
