//! Real servers of others for tests: started on free ports in temporary folders, killed, frozen and stopped.
//!
//! Owns: their processes and folders. Does not know what the project does with them.
//! Invariant: whoever drops a server leaves neither its process nor, unless the folder was named, its files.

pub mod redis;

pub use redis::{AppendFsync, RedisOptions, RedisServer};
