//! Webhooks: started beside the front, answered to operators, and `stampede webhook …`.

use std::path::Path;
use std::sync::Arc;

use comfy_table::{Table, presets};
use flash_front::{DeadLetterView, WebhookRefusal, WebhookView, Webhooks};
use flash_settle::outbox::{
    DeadLetter, EventSource, Limits, Now, Outbox, OutboxConfig, RedeliverError, WebhookStatus,
    system_tls,
};
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::Failure;
use crate::admin_client::AdminClient;
use crate::cli::{WebhookCommand, WebhookVerb};
use crate::config::Config;
use crate::logs::say;

/// Name of the outbox file in the data folder.
const FILE: &str = "outbox.db";

/// The relays as the admin port asks them.
struct Served(Outbox);

/// No webhooks are configured: there is nothing to relay, and nothing is made in the data folder.
struct Idle;

/// Starts the relays that are configured, over the events of `source`. They run until the last clone of what this returns
/// is dropped.
///
/// # Errors
/// What stands against it: a target, or the outbox file.
pub(crate) fn start(
    config: &Config,
    data: &Path,
    source: Arc<dyn EventSource>,
    now: &Now,
) -> Result<Arc<dyn Webhooks>, String> {
    let targets = config.targets()?;
    if targets.is_empty() {
        return Ok(Arc::new(Idle));
    }
    let config = OutboxConfig {
        file: data.join(FILE),
        targets,
        timeouts: config.webhook_timeouts(),
        limits: Limits::default(),
        tls: system_tls()?,
    };
    let outbox = Outbox::start(config, source, now).map_err(|error| error.to_string())?;
    Ok(Arc::new(Served(outbox)))
}

impl Webhooks for Idle {
    fn list(&self) -> Vec<WebhookView> {
        Vec::new()
    }

    fn dead(
        &self,
        _after: u64,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetterView>, WebhookRefusal>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn redeliver(
        &self,
        _event_id: String,
        _webhook: Option<String>,
    ) -> BoxFuture<'_, Result<Vec<String>, WebhookRefusal>> {
        Box::pin(async { Err(WebhookRefusal::NotFound) })
    }
}

impl Webhooks for Served {
    fn list(&self) -> Vec<WebhookView> {
        self.0.webhooks().into_iter().map(view).collect()
    }

    fn dead(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeadLetterView>, WebhookRefusal>> {
        Box::pin(async move {
            let letters = self.0.dead_letters(after, limit).await;
            let letters = letters.map_err(|error| {
                tracing::warn!(%error, "the outbox file cannot be read");
                WebhookRefusal::Unavailable
            })?;
            Ok(letters.into_iter().map(letter_view).collect())
        })
    }

    fn redeliver(
        &self,
        event_id: String,
        webhook: Option<String>,
    ) -> BoxFuture<'_, Result<Vec<String>, WebhookRefusal>> {
        Box::pin(async move {
            let told = self.0.redeliver(&event_id, webhook.as_deref()).await;
            told.map_err(|error| match error {
                RedeliverError::NotFound | RedeliverError::NoSuchWebhook => {
                    WebhookRefusal::NotFound
                }
                RedeliverError::Busy(_) => WebhookRefusal::Busy(error.to_string()),
                RedeliverError::Unavailable(why) => {
                    tracing::warn!(why, "an event cannot be read");
                    WebhookRefusal::Unavailable
                }
            })
        })
    }
}

fn view(status: WebhookStatus) -> WebhookView {
    let progress = status.progress;
    let state = match () {
        () if progress.stopped.is_some() => "stopped",
        () if progress.counts.is_down => "down",
        () if progress.is_failing => "failing",
        () => "ok",
    };
    let (last_error_at, last_error) = progress.last_error.unzip();
    WebhookView {
        name: status.name,
        url: status.url,
        state,
        waiting_events: progress.counts.waiting,
        parked_events: progress.counts.parked,
        dead_letters: progress.counts.dead,
        oldest_at: progress.counts.oldest,
        last_success_at: progress.last_success,
        last_error_at,
        last_error: progress.stopped.or(last_error),
    }
}

fn letter_view(letter: DeadLetter) -> DeadLetterView {
    DeadLetterView {
        number: letter.number,
        event_id: letter.parked.place.event_id(letter.parked.sale_no),
        webhook: letter.webhook,
        at: letter.parked.at,
        attempts: letter.parked.attempts,
        dead_at: letter.died,
        last_error: letter.parked.last_error,
    }
}

/// `stampede webhook …`
pub(crate) fn run(command: &WebhookCommand) -> Result<(), Failure> {
    let mut client = AdminClient::new(&command.admin)?;
    match &command.verb {
        WebhookVerb::List { dead: false } => list(&mut client)?,
        WebhookVerb::List { dead: true } => dead(&mut client)?,
        WebhookVerb::Redeliver { event, webhook } => {
            let body = match webhook {
                Some(name) => json!({"webhook": name}),
                None => json!({}),
            };
            let path = format!("/v1/admin/webhooks/{event}/redeliver");
            let done = client.call("POST", &path, Some(&body))?;
            let names = done["webhooks"].as_array().into_iter().flatten();
            let names: Vec<&str> = names.filter_map(|name| name.as_str()).collect();
            say(&format!(
                "{event} will be delivered again: {}",
                names.join(" ")
            ));
        }
    }
    Ok(())
}

const COLUMNS: [&str; 8] = [
    "name",
    "url",
    "state",
    "waiting_events",
    "parked_events",
    "dead_letters",
    "last_success_at",
    "last_error",
];

fn list(client: &mut AdminClient) -> anyhow::Result<()> {
    let page = client.call("GET", "/v1/admin/webhooks", None)?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(COLUMNS.map(|name| {
        let words = name.trim_end_matches("_at").trim_end_matches("_events");
        words.replace('_', " ")
    }));
    for webhook in page["items"].as_array().into_iter().flatten() {
        table.add_row(COLUMNS.map(|name| {
            let value = &webhook[name];
            let text = value.as_str().map(str::to_owned);
            text.unwrap_or_else(|| {
                if value.is_null() {
                    "-".into()
                } else {
                    value.to_string()
                }
            })
        }));
    }
    say(&table.to_string());
    Ok(())
}

/// One JSON line each.
fn dead(client: &mut AdminClient) -> anyhow::Result<()> {
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/admin/webhooks?dead=true&limit=200{cursor}");
        let page = client.call("GET", &path, None)?;
        let items = page["items"].as_array().into_iter().flatten();
        items.for_each(|letter| say(&letter.to_string()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(()),
        }
    }
}
