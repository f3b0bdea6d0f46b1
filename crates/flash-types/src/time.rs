//! Points in time as milliseconds since the Unix epoch; RFC 3339 in UTC outside.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// A text that is no time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an RFC 3339 time such as 2026-11-11T12:00:00Z, from 1970 to 9998")]
pub struct BadTimestamp;

impl Timestamp {
    /// The last millisecond of the year 9998, within what every RFC 3339 library reads.
    pub const MAX: Self = Self(253_370_764_799_999);

    /// Reads an RFC 3339 time with any offset.
    ///
    /// # Errors
    /// [`BadTimestamp`] if it is none, or lies before 1970 or after 9998.
    pub fn parse(text: &str) -> Result<Self, BadTimestamp> {
        let at: jiff::Timestamp = text.parse().map_err(|_| BadTimestamp)?;
        let ms = at.as_millisecond();
        if (0..=Self::MAX.0).contains(&ms) {
            Ok(Self(ms))
        } else {
            Err(BadTimestamp)
        }
    }

    /// So much later, ending at [`Timestamp::MAX`].
    pub fn plus(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(ms).min(Self::MAX.0))
    }

    /// How long until `later`; zero if it has passed.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

/// A time as text, `2026-11-11T12:00:00.000Z`, in place.
#[derive(Debug, Clone, Copy)]
pub struct TimestampText([u8; 24]);

impl TimestampText {
    /// The text.
    pub fn as_str(&self) -> &str {
        // Digits and marks only.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Timestamp {
    /// The time as text: every answer bears two, so its digits are set one by one, without the machinery of formatting.
    pub fn text(self) -> TimestampText {
        // Civil date from days since 1970, after Howard Hinnant, "chrono-compatible low-level date algorithms".
        let ms = self.0.clamp(0, Self::MAX.0);
        let (days, ms_of_day) = (ms / 86_400_000, ms % 86_400_000);
        let shifted = days + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let (hour, minute) = (ms_of_day / 3_600_000, ms_of_day / 60_000 % 60);
        let (second, milli) = (ms_of_day / 1_000 % 60, ms_of_day % 1_000);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        for (number, at, digits) in [
            (year, 0, 4),
            (month, 5, 2),
            (day, 8, 2),
            (hour, 11, 2),
            (minute, 14, 2),
            (second, 17, 2),
            (milli, 20, 3),
        ] {
            let mut rest = number as u32;
            for place in (at..at + digits).rev() {
                text[place] = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        TimestampText(text)
    }
}

impl fmt::Display for Timestamp {
    /// `2026-11-11T12:00:00.000Z`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text().as_str())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text().as_str())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|bad| serde::de::Error::custom(format_args!("time {bad}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_times_are_read_back_as_the_library_reads_them() {
        for ms in [
            0,
            1,
            951_782_400_000,
            1_709_164_799_999,
            1_794_268_800_123,
            Timestamp::MAX.0,
        ] {
            let text = Timestamp(ms).to_string();
            assert_eq!(
                text.parse::<jiff::Timestamp>().unwrap().as_millisecond(),
                ms,
                "{text}"
            );
            assert_eq!(Timestamp::parse(&text), Ok(Timestamp(ms)));
        }
        for bad in [
            "",
            "now",
            "2026-11-11",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1e9",
        ] {
            assert_eq!(Timestamp::parse(bad), Err(BadTimestamp), "{bad}");
        }
        assert_eq!(
            Timestamp::parse("1970-01-01T08:00:00+08:00"),
            Ok(Timestamp(0))
        );
    }
}
