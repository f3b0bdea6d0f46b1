//! Parts of the front's hot path: the token, seen before or not, and the body of a purchase.
#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use flash_front::{JwtKey, JwtMaterial, TokenCache, Verifier, purchase_lines_count, sign_hs256};
use flash_types::BuyerId;

const SECRET: &[u8] = b"a secret of forty characters or thereabouts";
const NOW_S: i64 = 1_800_000_000;
const TOKENS: usize = 100_000;

fn tokens(criterion: &mut Criterion) {
    let key = JwtKey {
        kid: None,
        material: JwtMaterial::Hs256(SECRET.to_vec()),
    };
    let verifier = Verifier::new(&[key], None, None).expect("a usable key");
    let tokens: Vec<String> = (0..TOKENS)
        .map(|number| {
            let buyer = BuyerId::parse(&format!("buyer-{number:014}")).expect("an id");
            sign_hs256(SECRET, &buyer, NOW_S + 3_600)
        })
        .collect();
    let cache = TokenCache::new(131_072, (1, 2));
    let mut group = criterion.benchmark_group("token");
    let mut number = 0;
    let mut next = || {
        number = (number + 1) % TOKENS;
        tokens[number].as_bytes()
    };
    group.bench_function("verify", |bencher| {
        bencher.iter(|| verifier.verify(black_box(next()), NOW_S));
    });
    group.bench_function("cold_verify_and_keep", |bencher| {
        bencher.iter(|| {
            let token = black_box(next());
            let hash = cache.hash(token);
            let verified = verifier.verify(token, NOW_S).expect("a good token");
            cache.keep(hash, token, &verified);
        });
    });
    group.bench_function("warm_100k", |bencher| {
        bencher.iter(|| {
            let token = black_box(next());
            cache.find(cache.hash(token), token, NOW_S)
        });
    });
    let one = tokens[7].as_bytes();
    group.bench_function("warm_same", |bencher| {
        bencher.iter(|| {
            let token = black_box(one);
            cache.find(cache.hash(token), token, NOW_S)
        });
    });
    group.finish();
}

fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("purchase_body");
    let one = br#"{"item":"sku-1","quantity":1}"#;
    group.bench_function("one_item", |bencher| {
        bencher.iter(|| purchase_lines_count(black_box(one)));
    });
    let line = r#"{"item":"sku-1","quantity":1}"#;
    let many = format!(r#"{{"lines":[{}]}}"#, [line; 20].join(","));
    group.bench_function("twenty_lines", |bencher| {
        bencher.iter(|| purchase_lines_count(black_box(many.as_bytes())));
    });
    group.finish();
}

criterion_group!(benches, tokens, bodies);
criterion_main!(benches);
