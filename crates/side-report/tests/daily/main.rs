//! Daily reports on both databases: every figure equals what is counted from the raw rows by code of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test stands on fails like a test"
)]

mod recount;
mod world;

use std::sync::Arc;

use dev_servers::Databases;
use flash_types::Timestamp;
use jiff::tz::TimeZone;
use side_report::daily::{Day, common_figures, make};

use world::{DAY_MS, MIDNIGHT, World};

#[tokio::test]
async fn every_figure_is_recomputed_from_the_raw_rows() {
    let servers = Databases::start().unwrap();
    for seed in [1, 2, 3] {
        for url in servers.urls().unwrap() {
            let world = World::make(&url, seed).await;
            let sources = Arc::new(common_figures());
            for days in 0..3 {
                let now = Timestamp(MIDNIGHT + days * DAY_MS + DAY_MS / 2);
                let day = Day::at(now, &TimeZone::get("Asia/Shanghai").unwrap()).unwrap();
                assert_eq!(day.from.0, MIDNIGHT + days * DAY_MS);
                let report = make(&world.shop, &sources, &world.campaign, &day, now)
                    .await
                    .unwrap();
                let counted = recount::count(&world, day.from.0, day.until.0).await;
                for (section, figures) in &counted {
                    assert_eq!(
                        report.figures.get(section),
                        Some(figures),
                        "{section} of day {days}, seed {seed}, {url}"
                    );
                }
                assert_eq!(
                    counted.len(),
                    report.figures.len(),
                    "a section is not counted"
                );
                assert_eq!(report.hash, recount::hash(&report.figures));
            }
        }
    }
}

#[tokio::test]
async fn what_comes_late_makes_a_version_and_overwrites_none() {
    let servers = Databases::start().unwrap();
    for url in servers.urls().unwrap() {
        let world = World::make(&url, 9).await;
        let sources = Arc::new(common_figures());
        let day = Day::at(
            Timestamp(MIDNIGHT),
            &TimeZone::get("Asia/Shanghai").unwrap(),
        )
        .unwrap();
        let made = async |now: i64| {
            make(&world.shop, &sources, &world.campaign, &day, Timestamp(now))
                .await
                .unwrap()
        };
        let first = made(day.until.0 + 1).await;
        assert_eq!((first.version, first.watermark.0), (1, day.until.0 + 1));
        // Nothing happened: the same, with the watermark that it had.
        assert_eq!(made(day.until.0 + 2).await, first, "{url}");
        // An order of that day is told a day later.
        world.late_order(day.from.0 + 1_000).await;
        let second = made(day.until.0 + DAY_MS).await;
        assert_eq!(second.version, 2, "{url}");
        assert_ne!(second.hash, first.hash);
        assert_eq!(world.stored(&first).await, first, "the first one stays");
    }
}
