//! Notices on both databases.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

#[path = "notices/world.rs"]
mod world;

#[path = "notices/outbox.rs"]
mod outbox;
#[path = "notices/reminders.rs"]
mod reminders;
#[path = "notices/tracking.rs"]
mod tracking;
#[path = "notices/verification.rs"]
mod verification;
