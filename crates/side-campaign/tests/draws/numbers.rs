//! The pure part. Vectors come from a third implementation (Python's hmac and hashlib, 20 lines after the module's header).

use proptest::prelude::*;
use side_campaign::draws::{
    Draw, ListRoot, Seed, commitment, mask, participant, recompute, shuffle,
};

fn counting_seed() -> Seed {
    let mut seed = [0; 32];
    for (value, byte) in (0..).zip(&mut seed) {
        *byte = value;
    }
    Seed(seed)
}

/// A fixed seed of its own for each number.
fn seed_of(number: u64) -> Seed {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    Seed(seed)
}

#[test]
fn numbers_orders_and_roots_are_those_of_the_document() {
    let seed = counting_seed();
    assert_eq!(
        commitment(&seed),
        "630dcd2966c4336691125448bbb25b4ff412a49c732db2c8abc1b8581bd710dd"
    );
    for (campaign, stream, sequence, low, high, value) in [
        ("c1", "final", 1, 0, 9, 1),
        ("c1", "final", 2, 0, 9, 8),
        ("c1", "cut", 1, 100, 5_000, 3_614),
        ("c1", "cut", 7, -3, 3, -3),
        ("double-11", "final", 1, 0, 9_999, 6_374),
        ("c1", "big", 3, 0, i64::MAX, 900_994_136_710_053_127),
        (
            "c1",
            "big",
            4,
            i64::MIN,
            i64::MAX,
            1_213_197_702_317_182_986,
        ),
        (
            "c1",
            "x",
            5,
            -4_611_686_018_427_387_905,
            6_917_529_027_641_081_856,
            -3_086_135_604_084_439_189,
        ),
        // Its first word is passed over.
        (
            "c1",
            "reject",
            3,
            -4_611_686_018_427_387_904,
            4_611_686_018_427_387_904,
            3_728_401_144_695_806_470,
        ),
    ] {
        let drawn = Draw::new(&seed, campaign, stream, sequence).integer(low, high);
        assert_eq!(drawn, value, "{campaign} {stream} {sequence}");
        let again = recompute::integer(&seed.0, campaign, (stream, sequence), low, high);
        assert_eq!(again, value, "{campaign} {stream} {sequence}, recomputed");
    }
    let mut order: Vec<usize> = (0..8).collect();
    shuffle(&seed, "c1", "deck", &mut order);
    assert_eq!(order, [3, 4, 0, 2, 1, 7, 6, 5]);
    assert_eq!(recompute::order(&seed.0, "c1", "deck", 8), order);
    let mut root = ListRoot::new(&seed, "c1", "deck");
    let empty = "7a8d2914ee75c1ebc1d974d003aa56fe003faefa4c5d963236aff35e5e6bca73";
    let two = "87c84879de1a5ccbc9e27a1bba9726511c684f12ebfbc9fa8b2b463fdbe8b540";
    assert_eq!(root.hex(), empty);
    root.push(5, "tablet");
    // Put away and taken up again between two tickets.
    let mut root = ListRoot::parse(&root.hex()).unwrap();
    root.push(6, "none");
    assert_eq!(root.hex(), two);
    let tickets = [(5, "tablet"), (6, "none")];
    assert_eq!(recompute::root(&seed.0, "c1", "deck", &tickets), two);
    assert_eq!(
        participant("c1", "alice"),
        "e48190c13412317a4de448c29144fd7aafa26b26669b4d08f2bf2ef7be5e2f10"
    );
}

#[test]
fn names_that_read_the_same_when_put_together_draw_differently() {
    let seed = counting_seed();
    let drawn = |campaign, stream| Draw::new(&seed, campaign, stream, 1).integer(0, i64::MAX);
    assert_ne!(drawn("ab", "c"), drawn("a", "bc"));
    assert_ne!(drawn("a|b", "c"), drawn("a", "b|c"));
    assert_ne!(drawn("c1", "final"), drawn("c1", "final2"));
}

fn chi_square(counts: &[u32]) -> f64 {
    let sum: f64 = counts.iter().map(|count| f64::from(*count)).sum();
    let expected = sum / counts.len() as f64;
    let parts = counts
        .iter()
        .map(|count| (f64::from(*count) - expected).powi(2));
    parts.sum::<f64>() / expected
}

#[test]
fn no_outcome_is_likelier_than_another() {
    // 9 degrees of freedom: 33.7 is passed once in 10,000.
    for number in 0..20 {
        let seed = seed_of(number);
        let mut counts = [0; 10];
        for sequence in 1..=5_000 {
            let drawn = Draw::new(&seed, "c1", "final", sequence).integer(-4, 5);
            counts[usize::try_from(drawn + 4).unwrap()] += 1;
        }
        let found = chi_square(&counts);
        assert!(found < 33.7, "seed {number}: {found}, {counts:?}");
    }
    // A span of three quarters of all words: by the remainder alone the lowest third would come half of the time.
    let seed = seed_of(99);
    let mut counts = [0; 3];
    for sequence in 1..=6_000 {
        let drawn = Draw::new(&seed, "c1", "wide", sequence).integer(-(1 << 62), i64::MAX);
        counts[usize::try_from((i128::from(drawn) + (1 << 62)) >> 62).unwrap()] += 1;
    }
    let found = chi_square(&counts);
    // 2 degrees of freedom, once in 10,000.
    assert!(found < 18.4, "{found}, {counts:?}");
}

#[test]
fn streams_sequences_and_words_of_one_draw_tell_nothing_of_one_another() {
    let seed = seed_of(7);
    let pairs: [&dyn Fn(u64) -> (i64, i64); 3] = [
        &|sequence| {
            let of = |stream| Draw::new(&seed, "c1", stream, sequence).integer(0, 4);
            (of("a"), of("b"))
        },
        &|sequence| {
            let of = |sequence| Draw::new(&seed, "c1", "a", sequence).integer(0, 4);
            (of(2 * sequence), of(2 * sequence + 1))
        },
        &|sequence| {
            let mut draw = Draw::new(&seed, "c1", "a", sequence);
            (draw.integer(0, 4), draw.integer(0, 4))
        },
    ];
    for (index, pair) in pairs.iter().enumerate() {
        let mut counts = [0; 25];
        for sequence in 1..=10_000 {
            let (one, other) = pair(sequence);
            counts[usize::try_from(one * 5 + other).unwrap()] += 1;
        }
        let found = chi_square(&counts);
        // 24 degrees of freedom, once in 10,000.
        assert!(found < 58.6, "pair {index}: {found}, {counts:?}");
    }
}

#[test]
fn each_order_of_four_tickets_is_as_likely_as_the_others() {
    let mut counts = std::collections::BTreeMap::<[u8; 4], u32>::new();
    for number in 0..12_000 {
        let mut tickets = [0, 1, 2, 3];
        shuffle(&seed_of(number), "c1", "deck", &mut tickets);
        *counts.entry(tickets).or_default() += 1;
    }
    assert_eq!(counts.len(), 24);
    let counts: Vec<u32> = counts.into_values().collect();
    let found = chi_square(&counts);
    // 23 degrees of freedom, once in 10,000.
    assert!(found < 56.9, "{found}, {counts:?}");
}

#[test]
fn masks_show_the_ends_and_nothing_of_the_length() {
    for (buyer, masked) in [
        ("", "***"),
        ("a", "***"),
        ("bob", "***"),
        ("anna", "a***a"),
        ("wang.xiaoming-1990", "w***0"),
    ] {
        assert_eq!(mask(buyer), masked, "{buyer:?}");
    }
}

proptest! {
    #[test]
    fn draws_stay_in_their_bounds_and_are_recomputed(
        seed: [u8; 32],
        campaign in "[a-z0-9_.:-]{1,64}",
        stream in "[a-z0-9_.:-]{1,64}",
        sequence: u64,
        bounds: (i64, i64),
    ) {
        let (low, high) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
        let drawn = Draw::new(&Seed(seed), &campaign, &stream, sequence).integer(low, high);
        prop_assert!((low..=high).contains(&drawn));
        let again = Draw::new(&Seed(seed), &campaign, &stream, sequence).integer(low, high);
        prop_assert_eq!(drawn, again);
        let point = (stream.as_str(), sequence);
        prop_assert_eq!(drawn, recompute::integer(&seed, &campaign, point, low, high));
    }

    #[test]
    fn shuffling_loses_and_doubles_nothing(seed: [u8; 32], count in 0_usize..200) {
        let mut tickets: Vec<usize> = (0..count).collect();
        shuffle(&Seed(seed), "c1", "deck", &mut tickets);
        prop_assert_eq!(&recompute::order(&seed, "c1", "deck", count), &tickets);
        tickets.sort_unstable();
        prop_assert_eq!(tickets, (0..count).collect::<Vec<_>>());
    }
}
