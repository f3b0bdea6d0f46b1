//! Random histories of coupons against a model of their own, on both databases; every answer, the budget, the proof.

use std::collections::{BTreeMap, BTreeSet};

use dev_servers::Databases;
use flash_types::Timestamp;
use serde_json::{Value, json};
use side_rewards::grants::{self, Granted};

use crate::common::{DAY_MS, NOW, buyer, call, campaign, fund, proved, shop, stands, step};

const FACE: i64 = 700;
const THRESHOLD: i64 = 500;
const CAP: i64 = 3_500;
const TOTAL: usize = 7;
const PER_BUYER: usize = 3;
const TERM: i64 = DAY_MS;
const LOCK: i64 = 30 * 60 * 1_000;

/// What is known of a coupon: what happened to it, not what state it is in.
#[derive(Debug, Clone)]
struct Told {
    id: String,
    of: usize,
    until: i64,
    /// Order, what it takes off, until when.
    lock: Option<(usize, i64, i64)>,
    /// Order, what it took off.
    used: Option<(usize, i64)>,
    is_revoked: bool,
    /// Its budget came back.
    is_tidied: bool,
}

impl Told {
    fn has(&self, now: i64) -> Option<(usize, i64)> {
        let lock = self.lock.filter(|(_, _, until)| now < *until);
        lock.map(|(order, off, _)| (order, off))
    }

    fn remembered(&self, order: usize) -> Option<i64> {
        let lock = self.lock.filter(|(by, _, _)| *by == order);
        lock.map(|(_, off, _)| off)
    }

    fn is_over(&self, now: i64) -> bool {
        self.is_tidied || (now >= self.until && self.has(now).is_none())
    }

    fn held(&self) -> i64 {
        let is_open = self.used.is_none() && !self.is_revoked && !self.is_tidied;
        if is_open { FACE } else { 0 }
    }

    /// The word that a lock or use by this order is told, `ok` for a yes.
    fn wants(&mut self, order: usize, amount: Option<i64>, is_use: bool, now: i64) -> &'static str {
        if let Some((by, _)) = self.used {
            return if is_use && by == order {
                "ok"
            } else {
                "state_conflict"
            };
        }
        if self.is_revoked {
            return "state_conflict";
        }
        let mut until = now + LOCK;
        // What its lock said holds, also one that has lapsed.
        let remembered = self
            .remembered(order)
            .filter(|_| is_use && amount.is_none());
        let mut off = remembered.or(amount.map(|amount| amount.min(FACE)));
        match self.has(now) {
            Some((by, _)) if by != order => return "state_conflict",
            Some((_, was)) if is_use => off = Some(was),
            Some(_) => until = self.lock.map_or(until, |(_, _, until)| until),
            None if self.is_over(now) => return "coupon_expired",
            None => {}
        }
        let is_kept = is_use && (self.has(now).is_some() || remembered.is_some());
        match amount {
            Some(amount) if amount < THRESHOLD && !is_kept => return "below_threshold",
            None if !is_kept => return "malformed",
            Some(_) | None => {}
        }
        let off = off.unwrap_or(FACE);
        if is_use {
            self.used = Some((order, off));
            self.lock = None;
        } else {
            self.lock = Some((order, off, until));
        }
        "ok"
    }

    fn lets_go(&mut self, order: usize, now: i64) -> &'static str {
        if self.used.is_some() || self.has(now).is_some_and(|(by, _)| by != order) {
            return "state_conflict";
        }
        let is_others = self.lock.is_some_and(|(by, _, _)| by != order);
        if !self.is_revoked && (self.is_over(now) || !is_others) {
            self.lock = None;
            self.is_tidied |= now >= self.until;
        }
        "ok"
    }

    fn state(&self, now: i64) -> &'static str {
        match (self.used, self.is_revoked) {
            (Some(_), _) => "USED",
            (None, true) => "REVOKED",
            (None, false) if self.is_over(now) => "EXPIRED",
            (None, false) if self.has(now).is_some() => "LOCKED",
            (None, false) => "ISSUED",
        }
    }
}

/// splitmix64: the seed is the whole history.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

fn word(
    answer: Result<flash_types::side::SideAnswer, flash_types::side::SideProblem>,
) -> &'static str {
    answer.map_or_else(|problem| problem.outcome, |_| "ok")
}

/// Gives what happened, by command and answer.
async fn history(url: &str, seed: u64) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let shop = shop(url).await;
    let campaign = campaign(
        &json!([{"reward": "r", "title": "t", "type": "coupon", "face_minor": FACE,
        "threshold_minor": THRESHOLD, "term_days": 1, "total": TOTAL, "per_buyer": PER_BUYER}]),
    );
    fund(&shop, CAP).await;
    let mut random = Random(seed);
    let mut told: BTreeMap<usize, Told> = BTreeMap::new();
    let mut now = NOW.0;
    for turn in 0..300 {
        let why = format!("{url} seed {seed} turn {turn}");
        now += [0, 0, 0, 1_000, 60_000, LOCK / 3, LOCK, TERM / 8][random.below(8)];
        let at = Timestamp(now);
        let held: i64 = told.values().map(Told::held).sum();
        let spent: i64 = told
            .values()
            .filter_map(|one| one.used)
            .map(|(_, off)| off)
            .sum();
        let (source, order) = (random.below(12), random.below(2));
        let amounts = [
            None,
            None,
            Some(0),
            Some(499),
            Some(500),
            Some(699),
            Some(9_000),
        ];
        let amount = amounts[random.below(amounts.len())];
        let verbs = [
            "grant", "lock", "lock", "lock", "use", "unlock", "revoke", "tidy", "look", "look",
        ];
        let verb = verbs[random.below(verbs.len())];
        let one = told.get_mut(&source);
        let body = match (verb, amount) {
            ("lock" | "use", Some(amount)) => {
                json!({"order_id": format!("o{order}"), "order_amount_minor": amount})
            }
            ("lock", None) => json!({"order_id": format!("o{order}"), "order_amount_minor": 9_000}),
            ("revoke", _) => json!({"reason": "why not"}),
            _ => json!({"order_id": format!("o{order}")}),
        };
        let amount = if verb == "lock" {
            amount.or(Some(9_000))
        } else {
            amount
        };
        let does = |id: &str, of: usize| {
            let path = format!("/v1/coupons/{{coupon}}/{verb}");
            call(&shop, "POST", &path, id)
                .storefront(&format!("u{of}"))
                .body(&body)
                .at(at)
        };
        match (verb, one) {
            ("grant", _) => {
                let of = source % 3;
                let count = told.values().filter(|one| !one.is_revoked).count();
                let own = told
                    .values()
                    .filter(|one| !one.is_revoked && one.of == of)
                    .count();
                let is_dry = CAP - held - spent < FACE || count == TOTAL || own == PER_BUYER;
                let mut tx = shop.database.begin().await.unwrap();
                let (name, to) = (format!("s{source}"), buyer(&format!("u{of}")));
                let grant = grants::Grant {
                    source: &name,
                    reward: "r",
                    buyer: to,
                    order_id: None,
                    verdict: None,
                };
                let granted = grants::grant(&mut tx, &campaign, &grant, at).await.unwrap();
                tx.commit().await.unwrap();
                match told.get(&source) {
                    Some(one) if one.is_revoked => {
                        assert_eq!(granted, Granted::Denied, "{why}");
                        seen.insert("grant denied".to_owned());
                    }
                    Some(one) => {
                        assert_eq!(granted, Granted::Given { id: one.id.clone() }, "{why}")
                    }
                    None if is_dry => {
                        assert_eq!(granted, Granted::RunDry, "{why}");
                        seen.insert("grant dry".to_owned());
                    }
                    None => {
                        let Granted::Given { id } = granted else {
                            panic!("{why}: {granted:?}")
                        };
                        let (until, lock, used) = (now + TERM, None, None);
                        told.insert(
                            source,
                            Told {
                                id,
                                of,
                                until,
                                lock,
                                used,
                                is_revoked: false,
                                is_tidied: false,
                            },
                        );
                    }
                }
            }
            ("tidy", _) => {
                step(&shop, "coupons", at).await;
                for one in told.values_mut() {
                    let is_open = one.used.is_none() && !one.is_revoked;
                    one.is_tidied |= is_open && one.is_over(now);
                }
            }
            (_, None) => {}
            ("lock" | "use", Some(one)) => {
                let has_lapsed = one.has(now).is_none() && one.remembered(order).is_some();
                let expected = one.wants(order, amount, verb == "use", now);
                if verb == "use" && has_lapsed && amount.is_none() {
                    seen.insert(format!("use {expected} lapsed"));
                }
                let is_part = one.used.is_some_and(|(_, off)| off < FACE);
                let part = if is_part { " part" } else { "" };
                seen.insert(format!("{verb} {expected}{part}"));
                assert_eq!(
                    word(does(&one.id, one.of).raw().await),
                    expected,
                    "{why} {one:?}"
                );
            }
            ("unlock", Some(one)) => {
                let expected = one.lets_go(order, now);
                seen.insert(format!("{verb} {expected}"));
                assert_eq!(
                    word(does(&one.id, one.of).raw().await),
                    expected,
                    "{why} {one:?}"
                );
            }
            ("revoke", Some(one)) => {
                let is_gone = one.used.is_none() && !one.is_tidied;
                let path = "/v1/admin/coupons/{coupon}/revoke";
                let answer = call(&shop, "POST", path, &one.id)
                    .body(&body)
                    .at(at)
                    .raw()
                    .await;
                let expected = if is_gone { "ok" } else { "state_conflict" };
                assert_eq!(word(answer), expected, "{why} {one:?}");
                seen.insert(format!("{verb} {expected}"));
                one.is_revoked |= is_gone;
            }
            (_, Some(one)) => {
                let who = format!("u{}", one.of);
                let list = call(&shop, "GET", "/v1/coupons", "")
                    .buyer(&who)
                    .query("limit", "200");
                let page: Value = list.at(at).yes().await;
                let mut items = page["items"].as_array().unwrap().iter();
                let item = items.find(|item| item["coupon_id"] == one.id).unwrap();
                assert_eq!(item["state"], one.state(now), "{why} {one:?}");
                seen.insert(format!("look {}", one.state(now)));
            }
        }
        let left = stands(&shop).await;
        let held: i64 = told.values().map(Told::held).sum();
        let spent: i64 = told
            .values()
            .filter_map(|one| one.used)
            .map(|(_, off)| off)
            .sum();
        assert_eq!(
            (left.held_minor, left.spent_minor, left.cap_minor),
            (held, spent, CAP),
            "{why}"
        );
    }
    proved(&shop).await;
    seen
}

/// What the histories must have met, or they prove little.
const MET: &[&str] = &[
    "grant denied",
    "grant dry",
    "lock ok",
    "lock below_threshold",
    "lock coupon_expired",
    "lock state_conflict",
    "use ok",
    "use ok part",
    "use ok lapsed",
    "use below_threshold",
    "use coupon_expired",
    "use malformed",
    "use state_conflict",
    "unlock ok",
    "unlock state_conflict",
    "revoke ok",
    "revoke state_conflict",
    "look ISSUED",
    "look LOCKED",
    "look USED",
    "look EXPIRED",
    "look REVOKED",
];

#[tokio::test]
async fn coupons_do_what_their_model_does() {
    let servers = Databases::start().unwrap();
    let mut seen = BTreeSet::new();
    for seed in 0..8 {
        // Each history on one of the two, and the first on both.
        for (at, url) in servers.urls().unwrap().iter().enumerate() {
            if seed == 0 || seed % 2 == at as u64 {
                seen.extend(history(url, seed).await);
            }
        }
    }
    let missed: Vec<_> = MET.iter().filter(|met| !seen.contains(**met)).collect();
    assert!(missed.is_empty(), "{missed:?} of {seen:?}");
}
