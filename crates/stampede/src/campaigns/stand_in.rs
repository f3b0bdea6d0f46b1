//! Plain parts that stand where fuller ones belong: the engine's desk, and messages to buyers as lines of a file.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flash_engine::{Engine, EventPlace};
use flash_types::side::{BoxFuture, DeskEvent, DeskSale, SaleDesk};
use flash_types::{Refusal, SaleId, SaleState};
use side_campaign::notices::{Notifier, Outgoing};

use crate::config::Config;

/// Name of the file in the data folder.
const FILE: &str = "notifications.jsonl";

/// The engine, as side services may ask it.
pub(super) struct EngineDesk(pub(super) Arc<Engine>);

impl SaleDesk for EngineDesk {
    fn events<'a>(
        &'a self,
        after: Option<&'a str>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<DeskEvent>, Refusal>> {
        Box::pin(async move {
            let after = match after {
                None => None,
                Some(id) => Some(EventPlace::parse_event_id(id).ok_or(Refusal::NotFound)?),
            };
            let events = self.0.all_events(after, limit).await?;
            let told = events.into_iter().map(|event| DeskEvent {
                id: event.id,
                kind: event.kind,
                at: event.at,
                sale_id: event.sale_id,
                data: event.data,
            });
            Ok(told.collect())
        })
    }

    fn sale(&self, sale_id: &SaleId) -> Option<DeskSale> {
        let sale = self.0.sale(sale_id)?;
        let state = sale.shown_state(self.0.clock().read().wall);
        if state == SaleState::Draft {
            return None;
        }
        let definition = sale.definition();
        Some(DeskSale {
            sale_id: definition.sale_id,
            title: definition.title.to_string(),
            starts_at: definition.starts_at,
            ends_at: definition.ends_at,
            state,
        })
    }
}

/// Where messages to buyers go.
pub(super) fn notifier(config: &Config) -> Result<Arc<dyn Notifier>, String> {
    if !config.campaigns.notifier.url.is_empty() {
        return Err(
            "campaigns.notifier.url: posting messages is not built yet; leave it empty".into(),
        );
    }
    Ok(Arc::new(Lines(config.store.data.join(FILE))))
}

/// Appends each to a file, readable by its owner alone.
struct Lines(PathBuf);

impl Notifier for Lines {
    fn notify<'a>(&'a self, notice: &'a Outgoing) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let mut line = serde_json::to_string(notice).map_err(|error| error.to_string())?;
            line.push('\n');
            let path = self.0.clone();
            let written = tokio::task::spawn_blocking(move || append(&path, &line)).await;
            written
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())
        })
    }
}

fn append(path: &Path, line: &str) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).mode(0o600).open(path)?;
    file.write_all(line.as_bytes())
}
