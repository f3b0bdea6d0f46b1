//! TODO-OWNER

use std::sync::Arc;

use flash_types::side::SideService;
use side_books::step::Step;

use crate::shop::Shop;

/// Its endpoints.
pub fn services(_shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    Vec::new()
}

/// What goes on by itself.
pub fn steps(_shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    Vec::new()
}

use flash_types::Timestamp;
use side_books::SideError;
use side_books::sql::Reads;

use crate::definition::Definition;
use crate::state::State;

/// A campaign as it stands, with the version that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// The version in force: 1 at publish, 0 for a draft.
    pub version: i64,
    /// The definition of that version; of a draft, the draft.
    pub definition: Definition,
    /// SHA-256 of the canonical JSON of `definition`, hexadecimal; empty for a draft.
    pub rules_hash: String,
    /// When it was published.
    pub published_at: Option<Timestamp>,
}

/// A campaign by its id.
///
/// # Errors
/// The database's.
pub async fn find(
    _reads: &mut impl Reads,
    _campaign_id: &str,
) -> Result<Option<Campaign>, SideError> {
    Ok(None)
}
