//! Seeded numbers for plans: the same seed gives the same crowd. Not for secrets.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own per seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence that belongs to one member of a crowd, whatever the others do.
    pub fn of(seed: u64, member: u64) -> Self {
        let mut mixed = Self(seed ^ member.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        mixed.bits();
        mixed
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Whether a thing happens that happens in so many of a hundred cases.
    pub fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }

    /// A time between two others, to the microsecond.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span_us = to.saturating_sub(from).as_micros() as u64;
        from + Duration::from_micros(self.below(span_us + 1))
    }

    /// The gap to the next arrival of a Poisson process of this rate.
    pub fn gap(&mut self, rate_per_s: f64) -> Duration {
        let u = 1.0 - self.unit();
        Duration::from_secs_f64((-u.ln() / rate_per_s.max(1e-6)).min(3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence_and_members_differ() {
        let draw = |mut random: Random| (0..5).map(|_| random.bits()).collect::<Vec<_>>();
        assert_eq!(draw(Random::of(7, 1)), draw(Random::of(7, 1)));
        assert_ne!(draw(Random::of(7, 1)), draw(Random::of(7, 2)));
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn gaps_average_to_the_rate() {
        let mut random = Random::new(3);
        let total: Duration = (0..10_000).map(|_| random.gap(1000.0)).sum();
        assert!((9.0..11.0).contains(&total.as_secs_f64()), "{total:?}");
    }
}
