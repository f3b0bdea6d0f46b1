//! A rate as GCRA wants it: how far apart tries lie, and how much earlier than that one may come.

use crate::slot::{AHEAD_UNITS_MAX, UNIT_NS};

/// A sustained rate and a burst, for the generic cell rate algorithm (ITU-T I.371, virtual scheduling).
///
/// Times are kept in steps of 100 ns: rates that divide 10,000,000 are exact, every rate up to 100,000 per second
/// is met within 0.5 %. A burst that takes longer than 5 days to win back counts as one that takes 5 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Time between two tries at the sustained rate, nanoseconds.
    pub emission_interval_ns: u64,
    /// How far ahead of the sustained rate a key may be, nanoseconds.
    pub burst_tolerance_ns: u64,
}

impl Rate {
    /// So many tries per second, `burst` of them at once. Zero counts as one.
    pub fn per_second(rate: u32, burst: u32) -> Self {
        let rate = u64::from(rate.max(1));
        let emission_interval_ns = (1_000_000_000 + rate / 2) / rate;
        let interval_units = to_units(emission_interval_ns).max(1);
        Self {
            emission_interval_ns: interval_units * UNIT_NS,
            burst_tolerance_ns: interval_units * UNIT_NS * u64::from(burst.max(1) - 1),
        }
    }

    /// In steps of the table: (emission interval, burst tolerance).
    pub(crate) fn units(self) -> (u64, u64) {
        (
            to_units(self.emission_interval_ns).clamp(1, AHEAD_UNITS_MAX / 2),
            to_units(self.burst_tolerance_ns).min(AHEAD_UNITS_MAX / 2),
        )
    }
}

/// The nearest whole step.
const fn to_units(ns: u64) -> u64 {
    ns.saturating_add(UNIT_NS / 2) / UNIT_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_become_intervals() {
        for (rate, burst, interval_ns, tolerance_ns) in [
            (5, 10, 200_000_000, 1_800_000_000),
            (1, 1, 1_000_000_000, 0),
            (10_000_000, 2, 100, 100),
            (0, 0, 1_000_000_000, 0),
            (3, 1, 333_333_300, 0),
        ] {
            let made = Rate::per_second(rate, burst);
            assert_eq!(
                (made.emission_interval_ns, made.burst_tolerance_ns),
                (interval_ns, tolerance_ns),
                "{rate}/{burst}"
            );
        }
        // The longest there is stays within what a slot can tell apart.
        let (interval, tolerance) = Rate::per_second(1, 10_000_000).units();
        assert!(interval + tolerance <= AHEAD_UNITS_MAX);
    }
}
