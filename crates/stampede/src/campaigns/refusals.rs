//! What buyers were refused, written down for whoever answers their questions; after the answer, never before it.

use std::sync::Arc;

use flash_types::side::{SideCaller, SideEndpoint, SideProblem};
use flash_types::{BuyerId, Timestamp};
use side_campaign::entry::{Refused, note_refusal};
use side_campaign::shop::Shop;

use super::door::Job;

/// A command of a buyer that may be refused.
pub(super) struct Refusals {
    shop: Arc<Shop>,
    buyer: BuyerId,
    /// Empty where the path names none.
    campaign: String,
    endpoint: &'static SideEndpoint,
    now: Timestamp,
}

impl Refusals {
    /// `None` for reads, and where no buyer is known.
    pub(super) fn of(shop: Arc<Shop>, job: &Job) -> Option<Self> {
        let (endpoint, request) = (job.endpoint, &job.request);
        let buyer = match &request.caller {
            SideCaller::Buyer(buyer) | SideCaller::Storefront(Some(buyer)) => *buyer,
            SideCaller::Storefront(None) | SideCaller::Anyone | SideCaller::Admin(_) => {
                return None;
            }
        };
        let is_command = endpoint.method != "GET";
        let mut names = endpoint
            .path
            .split('/')
            .filter(|part| part.starts_with('{'));
        let place = names.position(|name| name == "{campaign}");
        let campaign = place.and_then(|place| request.path.get(place)).cloned();
        is_command.then(|| Self {
            shop,
            buyer,
            campaign: campaign.unwrap_or_default(),
            endpoint,
            now: request.now,
        })
    }

    /// Writes it down, if it is a refusal: not what was wrong with the request, nor with us.
    ///
    /// # Cancel safety
    /// Written or not.
    pub(super) async fn note(&self, problem: &SideProblem) {
        if !matches!(problem.status, 402..=499) {
            return;
        }
        let endpoint = format!("{} {}", self.endpoint.method, self.endpoint.path);
        let refused = Refused {
            buyer: self.buyer,
            campaign: &self.campaign,
            endpoint: &endpoint,
            outcome: problem.outcome,
            detail: &problem.detail,
        };
        if let Err(error) = note_refusal(&self.shop, &refused, self.now).await {
            tracing::warn!(%error, "a refusal was not written down");
        }
    }
}
