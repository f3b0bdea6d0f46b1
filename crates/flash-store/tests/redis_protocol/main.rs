//! The Redis store where something breaks: network, server, data, another process. One test for each line of the tables in
//! docs/ARCHITECTURE.md, "Redis: the protocol".
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "../common/mod.rs"]
mod common;

mod accept;
mod damage;
mod events;
mod network;
mod nodes;
mod reads;
mod refusals;
mod releases;
mod restarts;
mod start;
mod unfit;

use common::redis::*;
use common::reserve;
use flash_store::*;

/// One unit of item 0, for one buyer and key.
fn one(number: u64) -> Change {
    reserve(number, &[(0, 1)])
}

fn note(detail: &str) -> AdminNote {
    AdminNote {
        at: flash_types::Timestamp(7),
        who: "ops".into(),
        command: "sale.accept_loss".into(),
        sale_id: None,
        outcome: "ok".into(),
        detail: detail.into(),
    }
}

fn is_unavailable(verdict: &Result<Committed, CommitError>, told: &str) -> bool {
    matches!(verdict, Err(CommitError::NotApplied(NotApplied::Unavailable(why))) if why.contains(told))
}

fn is_frozen(verdict: &Result<Committed, CommitError>) -> bool {
    matches!(verdict, Err(CommitError::Frozen { .. }))
}

/// What is told of a start that must not succeed.
fn refusal(config: &RedisConfig) -> String {
    match Node::open(config) {
        Err(OpenError::Redis(why)) => why,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("it started"),
    }
}
