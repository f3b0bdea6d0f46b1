//! Money in minor units, with a currency of three letters.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in minor units (fen, cents).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Money(pub i64);

impl Money {
    /// The amount for so many units.
    ///
    /// # Panics
    /// If it does not fit an `i64`; `bounds.rs` proves that a purchase always does.
    pub fn times(self, units: u32) -> Self {
        Self(self.0 * i64::from(units))
    }

    /// The sum.
    ///
    /// # Panics
    /// If it does not fit an `i64`; `bounds.rs` proves that a purchase always does.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

/// Minor units, as a number.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// ISO 4217 code: three capital letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

impl Currency {
    /// Checks a code: three capital letters.
    pub fn parse(text: &str) -> Option<Self> {
        let code: [u8; 3] = text.as_bytes().try_into().ok()?;
        code.iter()
            .all(u8::is_ascii_uppercase)
            .then_some(Self(code))
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            serde::de::Error::custom("currency is not three capital letters (ISO 4217)")
        })
    }
}
