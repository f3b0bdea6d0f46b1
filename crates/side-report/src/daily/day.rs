//! A day of a campaign: from midnight to midnight in its zone, which may be 23 or 25 hours.

use flash_types::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A day with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Which.
    pub date: Date,
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment of the next.
    pub until: Timestamp,
}

impl Day {
    /// The day of that date; `None` where a bound is out of what times can say.
    pub fn of(date: Date, zone: &TimeZone) -> Option<Self> {
        let begin = |date: Date| {
            let zoned = date.to_zoned(zone.clone()).ok()?;
            Some(Timestamp(zoned.timestamp().as_millisecond()))
        };
        Some(Self {
            date,
            from: begin(date)?,
            until: begin(date.tomorrow().ok()?)?,
        })
    }

    /// The day in which a moment lies.
    pub fn at(moment: Timestamp, zone: &TimeZone) -> Option<Self> {
        let moment = jiff::Timestamp::from_millisecond(moment.0).ok()?;
        Self::of(moment.to_zoned(zone.clone()).date(), zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_follow_their_zone_and_its_clock_changes() {
        let hours = |date: &str, zone: &str| {
            let day = Day::of(date.parse().unwrap(), &TimeZone::get(zone).unwrap()).unwrap();
            let noon = Timestamp((day.from.0 + day.until.0) / 2);
            let zone = TimeZone::get(zone).unwrap();
            assert_eq!(Day::at(noon, &zone), Some(day));
            assert_eq!(Day::at(day.from, &zone), Some(day));
            assert_ne!(Day::at(day.until, &zone), Some(day));
            (day.until.0 - day.from.0) / 3_600_000
        };
        assert_eq!(hours("2026-11-11", "Asia/Shanghai"), 24);
        assert_eq!(hours("2026-03-29", "Europe/Berlin"), 23);
        assert_eq!(hours("2026-10-25", "Europe/Berlin"), 25);
        assert_eq!(hours("2028-02-29", "UTC"), 24);
    }
}
