//! What a report tells of one matter: read by one source, in one snapshot.

use flash_types::side::BoxFuture;
use serde_json::{Map, Value};
use side_books::sql::{Reader, SqlError};
use side_campaign::life::Campaign;

use super::day::Day;

/// Figures by name; of one level, or two where they are grouped.
pub type Section = Map<String, Value>;

/// A source of figures. Each kind of campaign adds its own.
pub trait Figures: Send + Sync {
    /// Name of the section: a word.
    fn name(&self) -> &'static str;

    /// The figures of a day: `day` counts what happened in it, `so_far` everything up to its end.
    ///
    /// # Errors
    /// The database's.
    ///
    /// # Cancel safety
    /// A read.
    fn figures<'a>(
        &'a self,
        reads: &'a mut Reader,
        campaign: &'a Campaign,
        day: &'a Day,
    ) -> BoxFuture<'a, Result<Section, SqlError>>;
}
