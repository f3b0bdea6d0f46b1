//! What the campaigns are made of, in one place: tables, kinds, who goes by facts and verdicts, services, steps, proofs.

use std::sync::Arc;

use flash_settle::outbox::Target;
use flash_types::side::SideService;
use side_books::audit::Prove;
use side_books::sql::Migration;
use side_books::step::Step;
use side_campaign::fact::React;
use side_campaign::kind::Kinds;
use side_campaign::notices::{FileNotifier, Follow, Notifier};
use side_campaign::risk::{OnVerdict, RefundRule};
use side_campaign::shop::Shop;
use side_rewards::giveaway::Giveaway;
use side_rewards::grants::Verdicts;

use super::standing::Standing;
use crate::config::Config;
use crate::notifier::WebhookNotifier;

/// Name of the file in the data folder.
const NOTICES_FILE: &str = "notifications.jsonl";

/// Tables, in the order in which they are made.
pub(crate) fn migrations() -> Vec<Migration> {
    [
        side_books::MIGRATIONS,
        side_campaign::MIGRATIONS,
        side_rewards::MIGRATIONS,
        side_report::MIGRATIONS,
    ]
    .concat()
}

/// What proves its own tables beside the books.
pub(crate) fn proofs() -> Vec<Box<dyn Prove>> {
    vec![
        Box::new(side_rewards::audit::Rewards),
        Box::new(crate::audit::Draws),
    ]
}

/// Kinds of campaigns.
pub(super) fn kinds() -> Kinds {
    Kinds::new(vec![Arc::new(Giveaway::default())])
}

/// Who goes by verdicts.
pub(super) fn verdict_listeners() -> Vec<Arc<dyn OnVerdict>> {
    vec![Arc::new(Verdicts)]
}

/// Who goes by facts of orders, in this order: verdicts first, since they hold the entries of a campaign, which everybody
/// holds before its budget.
pub(super) fn reactors() -> Vec<Arc<dyn React>> {
    vec![
        Arc::new(RefundRule::new(verdict_listeners())),
        Arc::new(Follow),
    ]
}

/// Where messages to buyers go: to the shop's webhook, without one into a file of the data folder.
pub(super) fn notifier(config: &Config) -> Result<Arc<dyn Notifier>, String> {
    let told = &config.campaigns.notifier;
    if told.url.is_empty() {
        let file = config.store.data.join(NOTICES_FILE);
        return Ok(Arc::new(FileNotifier::new(file)));
    }
    let target = Target {
        name: "notices".into(),
        url: told.url.clone(),
        secret: told.secret.clone(),
        secret_previous: Some(told.secret_previous.clone()).filter(|secret| !secret.is_empty()),
        allow_private: told.allow_private,
        sales: Vec::new(),
        types: Vec::new(),
    };
    let notifier =
        WebhookNotifier::new(target).map_err(|why| format!("campaigns.notifier.{why}"))?;
    Ok(Arc::new(notifier))
}

/// Everything that answers requests.
pub(super) fn services(shop: &Arc<Shop>) -> Vec<Arc<dyn SideService>> {
    let mut services: Vec<Arc<dyn SideService>> = vec![Arc::new(Standing::new(shop))];
    services.extend(side_campaign::services(shop));
    services.extend(side_rewards::services(shop));
    services.extend(side_report::services(shop));
    services
}

/// Everything that goes on by itself.
pub(super) fn steps(shop: &Arc<Shop>) -> Vec<Arc<dyn Step>> {
    let mut steps = side_campaign::steps(shop);
    steps.extend(side_rewards::steps(shop));
    steps.extend(side_report::steps(shop));
    steps
}
