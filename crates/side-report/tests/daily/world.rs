//! A shop whose rows are made up from a seed: not by the code that reads them, and not by rules, so that every combination
//! comes up.

use std::sync::Arc;

use flash_types::side::{BoxFuture, DeskEvent, DeskSale, SaleDesk};
use flash_types::{Refusal, SaleId, Timestamp};
use jiff::tz::TimeZone;
use serde_json::json;
use side_books::budget::{self, Hold};
use side_books::seal::Sealer;
use side_books::sql::{Database, Get as _, Reads as _, SqlOptions, query};
use side_campaign::kind::Kinds;
use side_campaign::life::Campaign;
use side_campaign::notices::FileNotifier;
use side_campaign::shop::Shop;
use side_campaign::state::State;
use side_report::daily::Report;

/// 2026-11-11 00:00 in Shanghai.
pub const MIDNIGHT: i64 = 1_794_326_400_000;
pub const DAY_MS: i64 = 24 * 3_600_000;

pub struct World {
    pub shop: Shop,
    pub campaign: Campaign,
}

struct Nobody;

impl SaleDesk for Nobody {
    fn events<'a>(
        &'a self,
        _after: Option<&'a str>,
        _limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn sale(&self, _sale_id: &SaleId) -> Option<DeskSale> {
        None
    }
}

/// A walk through numbers (Weyl sequence with a mix); the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^= mixed >> 27;
        i64::try_from(mixed % u64::try_from(bound).unwrap()).unwrap()
    }

    fn one_of(&mut self, words: &[&'static str]) -> &'static str {
        words[usize::try_from(self.below(i64::try_from(words.len()).unwrap())).unwrap()]
    }

    /// A moment from a day before the campaign to a day after the last report; often exactly at a midnight.
    fn moment(&mut self) -> i64 {
        match self.below(8) {
            0 => MIDNIGHT + self.below(4) * DAY_MS,
            1 => MIDNIGHT + self.below(4) * DAY_MS - 1,
            _ => MIDNIGHT - DAY_MS + self.below(5 * DAY_MS),
        }
    }

    fn moment_or_none(&mut self) -> Option<i64> {
        (self.below(3) > 0).then(|| self.moment())
    }
}

impl World {
    pub async fn make(url: &str, seed: u64) -> Self {
        let migrations = [
            side_books::MIGRATIONS,
            side_campaign::MIGRATIONS,
            side_rewards::MIGRATIONS,
            side_report::MIGRATIONS,
        ]
        .concat();
        let options = SqlOptions::default();
        let database = Database::open(&url.parse().unwrap(), options, &migrations)
            .await
            .unwrap();
        let folder = std::env::temp_dir();
        let world = Self {
            shop: Shop {
                database,
                sealer: Sealer::new(&[1; 32]),
                desk: Arc::new(Nobody),
                kinds: Kinds::default(),
                reactors: Vec::new(),
                sale_reminders: side_campaign::definition::Reminders {
                    before_s: vec![3_600, 600],
                    second_after_s: None,
                },
                verdict_listeners: Vec::new(),
                history: Vec::new(),
                notifier: Arc::new(FileNotifier::new(folder.join("never-written.jsonl"))),
                zone: TimeZone::UTC,
            },
            campaign: campaign(),
        };
        let mut dice = Dice(seed);
        world.people(&mut dice).await;
        world.rewards(&mut dice).await;
        world.trust(&mut dice).await;
        world.budget(&mut dice).await;
        world
    }

    async fn people(&self, dice: &mut Dice) {
        let mut tx = self.shop.database.begin().await.unwrap();
        for number in 0..40 {
            for campaign in ["c1", "c2"] {
                if dice.below(4) == 0 {
                    continue;
                }
                let insert = query(
                    "INSERT INTO participant (campaign, buyer, joined_at_ms, is_new, version) \
                     VALUES ($1, $2, $3, $4, 1)",
                );
                let insert = insert.bind(campaign).bind(format!("u{number}"));
                tx.execute(insert.bind(dice.moment()).bind(dice.below(2)))
                    .await
                    .unwrap();
            }
        }
        for number in 0..120 {
            let order = format!("o{number}");
            let paid = dice.below(10_000);
            let insert = query(
                "INSERT INTO shop_order (id, source, buyer, currency, paid_minor, refunded_minor, paid_at_ms, is_first) \
                 VALUES ($1, 'shop', $2, $3, $4, $5, $6, 0)",
            );
            let refunded = if dice.below(4) == 0 { paid / 2 } else { 0 };
            let insert = insert
                .bind(order.clone())
                .bind(format!("u{}", dice.below(50)))
                .bind(dice.one_of(&["CNY", "CNY", "CNY", "EUR"]))
                .bind(paid)
                .bind(refunded)
                .bind(dice.moment());
            tx.execute(insert).await.unwrap();
            for part in 0..(if refunded > 0 { 2 } else { 0 }) {
                let insert = query(
                    "INSERT INTO order_refund (order_id, refund_ref, amount_minor, at_ms, told_by) \
                     VALUES ($1, $2, $3, $4, 'shop')",
                );
                let amount = if part == 0 {
                    refunded / 3
                } else {
                    refunded - refunded / 3
                };
                let insert = insert.bind(order.clone()).bind(format!("r{part}"));
                tx.execute(insert.bind(amount).bind(dice.moment()))
                    .await
                    .unwrap();
            }
        }
        tx.commit().await.unwrap();
    }

    async fn rewards(&self, dice: &mut Dice) {
        let mut tx = self.shop.database.begin().await.unwrap();
        for number in 0..80 {
            let grant = format!("g{number}");
            let campaign = dice.one_of(&["c1", "c1", "c2"]);
            let is_coupon = dice.below(3) > 0;
            let at = dice.moment();
            let is_revoked = dice.below(5) == 0;
            let insert = query(
                "INSERT INTO reward_grant (id, campaign, source, reward, buyer, kind, state, cost_minor, rule_snapshot, \
                 at_ms, closed_at_ms) VALUES ($1, $2, $3, $4, 'u1', $5, $6, 0, '{}', $7, $8)",
            );
            let insert = insert
                .bind(grant.clone())
                .bind(campaign)
                .bind(format!("s{number}"))
                .bind(dice.one_of(&["welcome", "tablet"]))
                .bind(if is_coupon { "coupon" } else { "gift" })
                .bind(if is_revoked { "REVOKED" } else { "GIVEN" })
                .bind(at)
                .bind(is_revoked.then(|| dice.moment()));
            tx.execute(insert).await.unwrap();
            let given = if is_coupon {
                let state = dice.one_of(&["ISSUED", "USED", "EXPIRED", "REVOKED"]);
                let is_used = state == "USED";
                query(
                    "INSERT INTO coupon (id, campaign, reward, title, buyer, grant_id, source, face_minor, \
                     threshold_minor, currency, valid_from_ms, valid_until_ms, state, order_id, discount_minor, \
                     used_at_ms, issued_at_ms) \
                     VALUES ($1, $2, 'welcome', 't', 'u1', $3, 's', 500, 0, 'CNY', 0, $4, $5, $6, $7, $8, $9)",
                )
                .bind(format!("k{number}"))
                .bind(campaign)
                .bind(grant)
                .bind(dice.moment())
                .bind(state)
                .bind(is_used.then(|| "o1".to_owned()))
                .bind(is_used.then(|| dice.below(500)))
                .bind(is_used.then(|| dice.moment()))
                .bind(at)
            } else {
                query(
                    "INSERT INTO prize (id, campaign, reward, title, buyer, grant_id, source, cost_minor, state, \
                     claim_until_ms, drawn_at_ms) VALUES ($1, $2, 'tablet', 't', 'u1', $3, 's', 0, $4, 0, $5)",
                )
                .bind(format!("p{number}"))
                .bind(campaign)
                .bind(grant)
                .bind(dice.one_of(&["DRAWN", "FULFILLING", "DELIVERED", "EXPIRED"]))
                .bind(at)
            };
            tx.execute(given).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn trust(&self, dice: &mut Dice) {
        let mut tx = self.shop.database.begin().await.unwrap();
        for number in 0..60 {
            let campaign = dice.one_of(&["c1", "c1", "c2"]);
            let verdict = query(
                "INSERT INTO risk_verdict (id, campaign, rule, subject, verdict, is_shadow, evidence, found_at_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, '{}', $7)",
            );
            let verdict = verdict
                .bind(format!("v{number}"))
                .bind(campaign)
                .bind(dice.one_of(&["address_burst", "shared_device"]))
                .bind(format!("u{number}"))
                .bind(dice.one_of(&["REVIEW", "DENY"]))
                .bind(dice.below(2))
                .bind(dice.moment());
            tx.execute(verdict).await.unwrap();
            if dice.below(2) == 0 {
                let decision = query(
                    "INSERT INTO risk_decision (verdict, subject, campaign, rule, decision, reason, decided_by, at_ms) \
                     VALUES ($1, 'u', $2, 'r', $3, 'why', 'who', $4)",
                );
                let decision = decision.bind(format!("v{number}")).bind(campaign);
                let decision = decision.bind(dice.one_of(&["ALLOW", "DENY"]));
                tx.execute(decision.bind(dice.moment())).await.unwrap();
            }
            let refusal = query(
                "INSERT INTO refusal (buyer, campaign, endpoint, outcome, detail, at_ms) VALUES ('u', $1, 'e', $2, '', $3)",
            );
            let refusal = refusal.bind(campaign).bind(dice.one_of(&[
                "campaign_full",
                "blocked",
                "not_eligible",
            ]));
            tx.execute(refusal.bind(dice.moment())).await.unwrap();
            let notice = query(
                "INSERT INTO notice (id, key, kind, is_urgent, subject, state, due_at_ms, next_attempt_ms, made_at_ms, \
                 sent_at_ms, opened_at_ms) VALUES ($1, $1, $2, 0, $3, $4, $5, 0, 0, $6, $7)",
            );
            let notice = notice
                .bind(format!("n{number}"))
                .bind(dice.one_of(&["reminder", "order_care"]))
                .bind(dice.one_of(&["campaign:c1", "campaign:c2", "sale:c1"]))
                .bind(dice.one_of(&["WAITING", "SENT", "GIVEN_UP"]))
                .bind(dice.moment())
                .bind(dice.moment_or_none())
                .bind(dice.moment_or_none());
            tx.execute(notice).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn budget(&self, dice: &mut Dice) {
        let mut tx = self.shop.database.begin().await.unwrap();
        for campaign in ["c1", "c2"] {
            let key = format!("fund|{campaign}");
            budget::fund(
                &mut tx,
                campaign,
                "CNY",
                100_000,
                &key,
                Timestamp(MIDNIGHT - DAY_MS),
            )
            .await
            .unwrap();
        }
        for number in 0..60 {
            let key = format!("h{number}");
            let amount_minor = 1 + dice.below(900);
            let hold = Hold {
                key: &key,
                campaign: dice.one_of(&["c1", "c1", "c2"]),
                what: "coupon",
                amount_minor,
            };
            let at = Timestamp(dice.moment());
            budget::hold(&mut tx, &hold, at).await.unwrap();
            let later = Timestamp(dice.moment());
            match dice.below(3) {
                0 => budget::post(&mut tx, &key, dice.below(amount_minor + 1), later)
                    .await
                    .unwrap(),
                1 => budget::void(&mut tx, &key, later).await.unwrap(),
                _ => {}
            }
        }
        tx.commit().await.unwrap();
    }

    pub async fn late_order(&self, paid_at_ms: i64) {
        let mut tx = self.shop.database.begin().await.unwrap();
        let participant = query(
            "INSERT INTO participant (campaign, buyer, joined_at_ms, is_new, version) VALUES ('c1', 'late', $1, 1, 1)",
        );
        tx.execute(participant.bind(paid_at_ms)).await.unwrap();
        let order = query(
            "INSERT INTO shop_order (id, source, buyer, currency, paid_minor, refunded_minor, paid_at_ms, is_first) \
             VALUES ('late', 'shop', 'late', 'CNY', 700, 0, $1, 1)",
        );
        tx.execute(order.bind(paid_at_ms)).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The version as it lies in the table, read without the code that wrote it.
    pub async fn stored(&self, report: &Report) -> Report {
        let select = query(
            "SELECT watermark_ms, hash, figures, made_at_ms FROM daily_report \
             WHERE campaign = $1 AND date = $2 AND version = $3",
        );
        let select = select
            .bind(report.campaign_id.clone())
            .bind(report.date.clone())
            .bind(report.version);
        let row = self.shop.database.read().await.unwrap().row(select).await;
        let row = row.unwrap().unwrap();
        Report {
            watermark: Timestamp(row.int("watermark_ms").unwrap()),
            hash: row.text("hash").unwrap(),
            figures: serde_json::from_str(&row.text("figures").unwrap()).unwrap(),
            made_at: Timestamp(row.int("made_at_ms").unwrap()),
            ..report.clone()
        }
    }
}

fn campaign() -> Campaign {
    let definition = json!({
        "campaign_id": "c1", "kind": "giveaway", "title": "t",
        "starts_at": Timestamp(MIDNIGHT), "ends_at": Timestamp(MIDNIGHT + 5 * DAY_MS),
        "zone": "Asia/Shanghai", "currency": "CNY", "budget_minor": 100_000,
        "goal": {"new_buyers": 30, "turnover_minor": 100_000, "smiles": 7},
        "rules": {},
    });
    Campaign {
        id: "c1".to_owned(),
        state: State::Running,
        version: 1,
        definition: serde_json::from_value(definition).unwrap(),
        rules_hash: String::new(),
        published_at: None,
    }
}
