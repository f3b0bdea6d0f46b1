//! Bytes in and out: HTTP/1.1 on a public and an admin port, in front of one engine.
//!
//! Owns: sockets, framing, credentials, the one table from outcomes to answers ([`Problem`]), event streams, the
//! OpenAPI document. Decides nothing about stock: every answer of business is the engine's.
//! Invariant: what the framing or the credentials leave in doubt is refused, never guessed.
//!
//! A request: `server` (socket) -> `connection` (bytes, `framing`) -> `service` (bounds, `routes`) -> `purchase`, the
//! hot path, or `public` / `admin` -> `reply` or `outcome`.

mod admin;
mod bodies;
mod config;
mod connection;
mod cors;
mod demo;
mod events;
mod framing;
mod identity;
mod jwt;
mod metrics;
mod openapi;
mod outbox;
mod outcome;
mod public;
mod purchase;
mod rehearsal;
mod reply;
mod request;
mod reservation_csv;
mod reservation_json;
mod routes;
mod sale_view;
mod server;
mod service;
mod services;
mod side;
mod side_table;
mod token_cache;
mod webhooks;

pub use config::{
    AdminKey, BadNet, FrontConfig, IpNet, JwtKey, JwtMaterial, KeyHash, Keys, NamedKey, Role,
};
pub use jwt::{BadJwtKey, Verified, Verifier, sign_hs256};
pub use outcome::{Problem, Word};
pub use rehearsal::{RehearsalPlan, RehearsalReport, RehearsedItem};
pub use server::{Beside, BindError, Ended, Front};
pub use services::{
    DeadLetterView, Rehearsals, Rehearsing, ReportFormat, Reports, Services, SideDoor,
    WebhookRefusal, WebhookView, Webhooks,
};
pub use side_table::BadSideTable;
pub use token_cache::TokenCache;

/// The OpenAPI document of the public (`false`) or the admin port, as it is served.
pub fn openapi_document(is_admin: bool) -> bytes::Bytes {
    let port = if is_admin {
        routes::Listener::Admin
    } else {
        routes::Listener::Public
    };
    // Without side services there is nothing that could contradict.
    openapi::document(port, false, &side_table::SideTable::default()).unwrap_or_default()
}

/// Reads the body of a purchase as the hot path does; gives the number of its lines. For measuring.
///
/// # Errors
/// `malformed`, with what is wrong.
pub fn purchase_lines_count(body: &[u8]) -> Result<usize, Problem> {
    bodies::purchase(body).map(|lines| lines.len())
}
