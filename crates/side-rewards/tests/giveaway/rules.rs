//! Rules: what is wrong, what it costs, what is better.

use serde_json::json;
use side_campaign::kind::CampaignKind as _;
use side_rewards::giveaway::Giveaway;

use crate::doubles::{coupon, definition, prizes};

#[test]
fn the_worst_case_is_counted_and_mistakes_are_named() {
    let kind = Giveaway::default();
    let mut planned = definition(prizes(&["welcome"], &[("final", "big", 3)]));
    let worst = kind.check(&planned).unwrap();
    assert_eq!((worst.total_minor, worst.unbounded.len()), (30_000, 1));
    planned.eligibility.participants_max = Some(100);
    assert_eq!(kind.check(&planned).unwrap().total_minor, 50_000 + 30_000);
    planned.rewards[0] = coupon("welcome", 500, Some(40));
    assert_eq!(kind.check(&planned).unwrap().total_minor, 20_000 + 30_000);
    planned.eligibility.participants_max = None;
    let worst = kind.check(&planned).unwrap();
    assert_eq!((worst.total_minor, worst.unbounded.len()), (50_000, 0));
    // No more winners than participants.
    planned.eligibility.participants_max = Some(2);
    assert_eq!(kind.check(&planned).unwrap().total_minor, 1_000 + 20_000);

    for (rules, code) in [
        (json!({}), "empty"),
        (json!({"per_participant": ["none"]}), "unknown_reward"),
        (json!({"per_participant": ["big", "big"]}), "duplicate"),
        (json!({"prizes": []}), "malformed"),
        (prizes(&[], &[("final", "none", 1)]), "unknown_reward"),
        (prizes(&[], &[("final", "big", 0)]), "out_of_range"),
        (prizes(&[], &[("final", "big", 10_001)]), "out_of_range"),
        (
            prizes(&[], &[("a", "big", 9_000), ("b", "big", 9_000)]),
            "out_of_range",
        ),
        (
            prizes(&[], &[("a", "big", 1), ("a", "big", 1)]),
            "duplicate",
        ),
        (prizes(&[], &[("a b", "big", 1)]), "malformed"),
        (prizes(&["big"], &[("a", "big", 1)]), "shared_reward"),
        (prizes(&[], &[("a", "welcome", 41)]), "too_few"),
    ] {
        planned.rules = rules;
        let found = kind.check(&planned).unwrap_err();
        assert!(
            found.iter().any(|finding| finding.code == code),
            "{code}: {found:?}"
        );
    }
}

#[test]
fn rules_change_only_for_the_better() {
    let kind = Giveaway::default();
    let from = prizes(&["welcome"], &[("final", "big", 3)]);
    for (to, is_better) in [
        (from.clone(), true),
        (prizes(&["welcome", "more"], &[("final", "big", 3)]), true),
        (prizes(&["welcome"], &[("final", "big", 4)]), true),
        (
            prizes(&["welcome"], &[("final", "big", 3), ("second", "small", 9)]),
            true,
        ),
        (prizes(&[], &[("final", "big", 3)]), false),
        (prizes(&["welcome"], &[("final", "big", 2)]), false),
        (prizes(&["welcome"], &[("final", "small", 3)]), false),
        (
            prizes(&["welcome"], &[("second", "small", 9), ("final", "big", 3)]),
            false,
        ),
        (prizes(&["welcome"], &[]), false),
        (json!({"unknown": 1}), false),
    ] {
        assert_eq!(kind.improves(&from, &to).is_ok(), is_better, "{to}");
    }
    // Who wins in a stream cannot win in those behind it.
    let from = prizes(&[], &[("a", "big", 3), ("b", "small", 3)]);
    for (draws, is_better) in [
        (vec![("a", "big", 4), ("b", "small", 3)], false),
        (vec![("a", "big", 3), ("b", "small", 4)], true),
        (
            vec![("a", "big", 3), ("b", "small", 4), ("c", "big", 1)],
            true,
        ),
        (
            vec![("a", "big", 4), ("b", "small", 3), ("c", "big", 1)],
            false,
        ),
    ] {
        let to = prizes(&[], &draws);
        assert_eq!(kind.improves(&from, &to).is_ok(), is_better, "{to}");
    }
}
