//! Buyers: what a crowd does to a real server over HTTP, what it was told, and whether the books agree.
//!
//! Owns: the load (open and closed loop), the client log, the checker. Does not know the engine: everything
//! here goes over the wire, as a storefront would. Invariant: what was sent is in the log before it is sent.

pub mod api;
pub mod behaviour;
pub mod check;
pub mod client;
pub mod driver;
pub mod log;
pub mod random;
pub mod server;
pub mod token;
pub mod wait;

pub use api::Api;
pub use behaviour::{Progress, SaleParams, Summary, run_sale};
pub use client::{Client, Request, Response, SendError, Timeouts};
pub use log::ClientLog;
pub use server::{Server, ServerOptions};
pub use token::Keys;
