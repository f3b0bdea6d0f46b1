//! Removing what counts nowhere any more: asks for codes older than the longest limit, verifications of long ago.

use std::sync::Arc;
use std::time::Duration;

use flash_types::Timestamp;
use flash_types::side::BoxFuture;
use side_books::SideError;
use side_books::step::Step;

use super::queries;
use crate::shop::Shop;

/// Rows of each table in one step.
const PIECE: i64 = 500;
/// Longer than the longest limit.
const ASKS_FOR_MS: i64 = 25 * 3_600 * 1_000;
/// A verification answers for so long after its end.
const VERIFICATIONS_FOR_MS: i64 = 30 * 24 * 3_600 * 1_000;

pub(super) struct Tidy(pub(super) Arc<Shop>);

impl Step for Tidy {
    fn name(&self) -> &'static str {
        "notices-tidy"
    }

    fn rest(&self) -> Duration {
        Duration::from_secs(600)
    }

    fn step(&self, now: Timestamp) -> BoxFuture<'_, Result<bool, SideError>> {
        Box::pin(async move {
            let mut tx = self.0.database.begin().await?;
            let mut removed = 0;
            for delete in [
                queries::delete_asks(now.0 - ASKS_FOR_MS, PIECE),
                queries::delete_scopes(now.0 - ASKS_FOR_MS, PIECE),
                queries::delete_verifications(now.0 - VERIFICATIONS_FOR_MS, PIECE),
            ] {
                removed += tx.execute(delete).await?;
            }
            tx.commit().await?;
            Ok(removed > 0)
        })
    }
}
