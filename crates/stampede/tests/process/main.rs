//! The process from outside: the real binary on real sockets and files, and what is done to it.
//!
//! Every fault test fails if its fault did not fire. Needs Debian's redis-server, strace, libfaketime and curl; where the system
//! does not let a test mount a file system, the test says so and passes.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod backup;
mod books;
mod campaign;
mod campaigns;
mod commands;
mod crash;
mod disk;
mod flush;
mod integrating;
mod machine;
mod mistakes;
#[cfg(feature = "faults")]
mod points;
mod redis;
mod rehearsal;
mod report;
mod retired;
mod rig;
mod start;
mod stop;
mod storefront;
mod trace;
mod watching;
mod webhooks;
