//! Orders and the inbox on both databases.

#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets the unexpected fails"
)]

#[path = "orders/events.rs"]
mod events;
#[path = "orders/http.rs"]
mod http;
#[path = "orders/once.rs"]
mod once;
#[path = "orders/shops.rs"]
mod shops;
