//! Daily reports 日报 of campaigns: read from the records in one snapshot, written down as a version, never overwritten.
//!
//! A version says until when the records were read (its watermark) and bears a hash over its figures. What arrives later
//! and belongs to that day makes a new version the next time somebody asks, or the night passes; both stay readable.

mod api;
mod day;
mod figures;
mod sources;
mod written;

pub use day::Day;
pub use figures::{Figures, Section};
pub use sources::common_figures;
pub use written::{Report, make};

use std::sync::Arc;
use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::{BoxFuture, SideService};
use side_books::SideError;
use side_books::sql::{Get as _, Reads as _, query};
use side_books::step::Step;
use side_campaign::life;
use side_campaign::shop::Shop;

/// The sources of all reports.
pub type Sources = Arc<Vec<Box<dyn Figures>>>;

/// Its endpoints.
pub fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    let sources = Arc::new(common_figures());
    vec![Arc::new(api::Reports::new(Arc::clone(shop), sources))]
}

/// Makes the report of each day once it is over.
pub fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    let sources = Arc::new(common_figures());
    vec![Arc::new(Nightly {
        shop: Arc::clone(shop),
        sources,
    })]
}

/// After midnight of a campaign's zone, the report of the day that ended.
struct Nightly {
    shop: Arc<Shop>,
    sources: Sources,
}

/// In: two days ago, now. Out: ids of campaigns that ran or still run since then.
const CAMPAIGNS_OF_LATE: &str = "SELECT id FROM campaign \
     WHERE state IN ('WARMUP', 'RUNNING', 'PAUSED', 'ENDED', 'SETTLING', 'SETTLED') \
     AND ends_at_ms >= $1 AND starts_at_ms <= $2 ORDER BY id";

impl Step for Nightly {
    fn name(&self) -> &'static str {
        "daily_report"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(60)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(async move {
            let two_days_ago = now.0.saturating_sub(48 * 3_600_000);
            let mut reader = self.shop.database.read().await?;
            let late = query(CAMPAIGNS_OF_LATE).bind(two_days_ago).bind(now.0);
            let rows = reader.rows(late).await?;
            drop(reader);
            let mut failed = None;
            for row in rows {
                let campaign = row.text("id")?;
                if let Err(error) = self.make_yesterdays(&campaign, now).await {
                    // One that cannot be read keeps no other from its report.
                    tracing::warn!(%campaign, %error, "a daily report cannot be made; tried again");
                    failed = Some(error);
                }
            }
            failed.map_or(Ok(false), Err)
        })
    }
}

impl Nightly {
    /// Does nothing where there is one already: later versions are made when somebody asks.
    async fn make_yesterdays(&self, campaign_id: &str, now: Timestamp) -> Result<(), SideError> {
        let mut reader = self.shop.database.read().await?;
        let Some(campaign) = life::find(&mut reader, campaign_id).await? else {
            return Ok(());
        };
        let zone = written::zone_of(&campaign);
        let today = Day::at(now, &zone);
        let yesterday = today.and_then(|day| Day::of(day.date.yesterday().ok()?, &zone));
        let Some(day) = yesterday.filter(|day| day.until.0 > campaign.definition.starts_at.0)
        else {
            return Ok(());
        };
        if written::last(&mut reader, campaign_id, &day)
            .await?
            .is_some()
        {
            return Ok(());
        }
        drop(reader);
        make(&self.shop, &self.sources, &campaign, &day, now).await?;
        Ok(())
    }
}
