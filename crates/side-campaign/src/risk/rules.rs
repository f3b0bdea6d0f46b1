//! The rules, each a function of what is known and of the thresholds of the campaign. A threshold below 1 turns its rule off.

use std::collections::{HashMap, HashSet};

use flash_types::{BuyerId, Timestamp};

use crate::definition::RiskRules;

/// Many participants from one address within a while.
pub const ADDRESS_BURST: &str = "address_burst";
/// Many participants on one device.
pub const SHARED_DEVICE: &str = "shared_device";
/// Buyers who help each other in a ring.
pub const HELP_RING: &str = "help_ring";
/// Money went back soon after a reward for the order.
pub const REFUND_AFTER_REWARD: &str = "refund_after_reward";

/// A participant who came from the same place as an entrant, earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub buyer: BuyerId,
    /// When.
    pub joined_at: Timestamp,
    /// The rule found it before.
    pub is_marked: bool,
}

/// Most participants that one entry is compared with: a higher threshold turns bursts and shared devices off.
pub const COMPARED_MAX: i64 = 1_000;

/// Whether an entrant at `now` completes a burst: gives the others of it. The window is closed at both ends.
pub fn address_burst(rules: &RiskRules, others: &[Seen], now: Timestamp) -> Option<Vec<Seen>> {
    let since_ms = window_begin(rules, now).0;
    let within = others.iter().filter(|seen| seen.joined_at.0 >= since_ms);
    hit(rules.address_burst, within.copied().collect())
}

/// The earliest time of entry that counts for a burst at `now`.
pub fn window_begin(rules: &RiskRules, now: Timestamp) -> Timestamp {
    Timestamp(
        now.0
            .saturating_sub(rules.address_window_s.max(0).saturating_mul(1_000)),
    )
}

/// Whether an entrant makes a device a shared one: gives the others on it.
pub fn shared_device(rules: &RiskRules, others: &[Seen]) -> Option<Vec<Seen>> {
    hit(rules.device_shared, others.to_vec())
}

/// Whether a rule that compares entries is on.
pub fn is_on(threshold: i64) -> bool {
    (1..=COMPARED_MAX).contains(&threshold)
}

fn hit(threshold: i64, others: Vec<Seen>) -> Option<Vec<Seen>> {
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    (is_on(threshold) && count.saturating_add(1) >= threshold).then_some(others)
}

/// Whether a refund came within the time after a reward for its order; both ends count.
pub fn refund_after_reward(
    rules: &RiskRules,
    granted_at: Timestamp,
    refunded_at: Timestamp,
) -> bool {
    let after_ms = refunded_at.0.saturating_sub(granted_at.0);
    let most_ms = rules.refund_after_reward_s.saturating_mul(1_000);
    rules.refund_after_reward_s > 0 && (0..=most_ms).contains(&after_ms)
}

/// Who helped (first) whom (second).
pub type Help = (BuyerId, BuyerId);

/// The ring that a buyer is in: all from whom help leads to him and to whom his help leads (his strongly connected part
/// of the graph), in order of their ids, if they are as many as the threshold says.
///
/// Whoever helps the owner of a session and is not helped back, however indirectly, is in no ring.
pub fn ring_around(rules: &RiskRules, helps: &[Help], buyer: BuyerId) -> Option<Vec<BuyerId>> {
    let forward = reach(helps.iter().copied(), buyer);
    let backward = reach(helps.iter().map(|(helper, owner)| (*owner, *helper)), buyer);
    let mut ring: Vec<BuyerId> = forward.intersection(&backward).copied().collect();
    ring.sort_unstable();
    let size = i64::try_from(ring.len()).unwrap_or(i64::MAX);
    // One who is alone is no ring, whatever the threshold.
    (rules.ring > 0 && size >= rules.ring.max(2)).then_some(ring)
}

/// All that can be reached from `start`, with itself.
fn reach(edges: impl Iterator<Item = Help>, start: BuyerId) -> HashSet<BuyerId> {
    let mut next: HashMap<BuyerId, Vec<BuyerId>> = HashMap::new();
    for (from, to) in edges {
        next.entry(from).or_default().push(to);
    }
    let mut reached = HashSet::from([start]);
    let mut waiting = vec![start];
    while let Some(buyer) = waiting.pop() {
        for to in next.get(&buyer).into_iter().flatten() {
            if reached.insert(*to) {
                waiting.push(*to);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buyer(number: usize) -> BuyerId {
        BuyerId::parse(&format!("b{number}")).unwrap()
    }

    fn seen(times: &[i64]) -> Vec<Seen> {
        let seen = times.iter().enumerate().map(|(number, at_ms)| Seen {
            buyer: buyer(number),
            joined_at: Timestamp(*at_ms),
            is_marked: false,
        });
        seen.collect()
    }

    fn rules() -> RiskRules {
        RiskRules {
            address_burst: 3,
            address_window_s: 10,
            device_shared: 3,
            ring: 3,
            refund_after_reward_s: 10,
            ..RiskRules::default()
        }
    }

    #[test]
    fn a_burst_is_as_many_as_the_threshold_within_the_window() {
        let now = Timestamp(60_000);
        let all = seen(&[50_000, 55_000]);
        assert_eq!(address_burst(&rules(), &all, now), Some(all.clone()));
        assert_eq!(address_burst(&rules(), &seen(&[49_999, 55_000]), now), None);
        assert_eq!(address_burst(&rules(), &seen(&[55_000]), now), None);
        let off = RiskRules {
            address_burst: 0,
            ..rules()
        };
        assert_eq!(address_burst(&off, &seen(&[55_000; 9]), now), None);
        let high = RiskRules {
            address_burst: COMPARED_MAX + 1,
            ..rules()
        };
        let many = seen(&[55_000; 1_000]);
        assert_eq!(address_burst(&high, &many, now), None);
    }

    #[test]
    fn a_device_is_shared_by_as_many_as_the_threshold_at_any_time() {
        assert_eq!(
            shared_device(&rules(), &seen(&[1, 2])).map(|others| others.len()),
            Some(2)
        );
        assert_eq!(shared_device(&rules(), &seen(&[1])), None);
    }

    #[test]
    fn a_refund_counts_within_its_time_after_the_reward() {
        let granted = Timestamp(1_000);
        for (refunded, is_hit) in [(999, false), (1_000, true), (11_000, true), (11_001, false)] {
            let found = refund_after_reward(&rules(), granted, Timestamp(refunded));
            assert_eq!(found, is_hit, "{refunded}");
        }
    }

    #[test]
    fn rings_are_cycles_and_mutual_help_but_not_stars() {
        let ring = |edges: &[(usize, usize)], of: usize| {
            let edges: Vec<Help> = edges.iter().map(|(a, b)| (buyer(*a), buyer(*b))).collect();
            ring_around(&rules(), &edges, buyer(of)).map(|ring| ring.len())
        };
        assert_eq!(ring(&[(0, 1), (1, 2), (2, 0)], 0), Some(3));
        assert_eq!(ring(&[(0, 1), (1, 0), (1, 2), (2, 1)], 2), Some(3));
        assert_eq!(ring(&[(0, 1), (1, 0)], 0), None);
        assert_eq!(ring(&[(0, 1), (1, 2), (2, 3)], 0), None);
        assert_eq!(ring(&[(1, 0), (2, 0), (3, 0), (4, 0)], 0), None);
        // One who only helps the ring is not of it.
        assert_eq!(ring(&[(0, 1), (1, 2), (2, 0), (3, 0)], 3), None);
    }

    proptest! {
        #[test]
        fn a_ring_is_whoever_reaches_and_is_reached(
            edges in proptest::collection::vec((0usize..7, 0usize..7), 0..20),
            least in 2i64..5,
            of in 0usize..7,
        ) {
            let mut reaches = [[false; 7]; 7];
            for (from, to) in &edges {
                reaches[*from][*to] = true;
            }
            for via in 0..7 {
                for from in 0..7 {
                    for to in 0..7 {
                        reaches[from][to] |= reaches[from][via] && reaches[via][to];
                    }
                }
            }
            let expected: Vec<BuyerId> = (0..7)
                .filter(|other| *other == of || (reaches[of][*other] && reaches[*other][of]))
                .map(buyer)
                .collect();
            let helps: Vec<Help> = edges.iter().map(|(a, b)| (buyer(*a), buyer(*b))).collect();
            let rules = RiskRules { ring: least, ..rules() };
            let found = ring_around(&rules, &helps, buyer(of));
            let is_ring = i64::try_from(expected.len()).unwrap() >= least;
            prop_assert_eq!(found, is_ring.then_some(expected));
        }
    }
}
