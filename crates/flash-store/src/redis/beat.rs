//! The heartbeat: says that this node lives, keeps the store's clock, and looks what the server promises.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::EMPTIED;
use super::link::{Link, LinkError};
use super::shared::{Beat, Shared};

/// How often a node says that it lives.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(3);
/// After so many beats the server's settings are looked at again.
const BEATS_PER_LOOK: u32 = 5;

/// Says that this node lives until it is told to stop, keeps the clock, and looks what the server promises.
pub async fn keep_alive(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut link: Option<Link> = None;
    let mut beats = 0_u32;
    loop {
        tokio::select! {
            () = tokio::time::sleep(BEAT_INTERVAL) => {}
            _ = stop.wait_for(|is_stopped| *is_stopped) => return,
        }
        beats += 1;
        if link.is_none() || beats.is_multiple_of(BEATS_PER_LOOK) {
            match shared.link().await {
                Ok(fresh) => {
                    shared.set_unfit(None);
                    link = Some(fresh);
                }
                Err(error) => {
                    if matches!(error, LinkError::Unfit(_)) {
                        shared.set_unfit(Some(error.to_string()));
                    }
                    shared.node_is_unwell(&error.to_string());
                    link = None;
                    continue;
                }
            }
        }
        let Some(fresh) = &mut link else { continue };
        match shared.beat(&mut fresh.connection, false).await {
            Ok(Beat::Lives(now)) => {
                shared.time.observe(now, Instant::now());
                shared.node_is_well();
            }
            Ok(Beat::Fenced) => {
                let why = shared.fence(&"heartbeat");
                tracing::error!(why, "fenced");
                return;
            }
            Ok(Beat::Gone) => shared.node_is_unwell(EMPTIED),
            Err(error) => {
                shared.node_is_unwell(&error.to_string());
                link = None;
            }
        }
    }
}
