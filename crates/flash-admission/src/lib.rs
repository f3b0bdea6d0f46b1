//! Who may try: the rates of buyers and addresses, in memory that never grows.
//!
//! Owns: the table of theoretical arrival times. Does not know a clock (the caller says what time it is), nor
//! randomness (the caller gives the hash key), nor what a sale is.
//! Invariant: a limiter takes the memory it was made with, however many keys come by.

mod hash;
mod limiter;
mod rate;
mod slot;
mod sync;

pub use hash::{HashKey, hash_address, hash_buyer};
pub use limiter::Limiter;
pub use rate::Rate;
