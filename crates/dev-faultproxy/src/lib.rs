//! A network that misbehaves on command: a TCP proxy for tests, in front of a TCP or unix socket.
//!
//! Owns: the sockets on both sides, the faults, the count of their bites. Does not know the protocol that it carries.
//! Invariant: without a fault every byte and every end of a stream arrives, in order; no buffer grows without bound.
//!
//! Every fault takes effect on live connections within a few milliseconds. A connection is live once the proxy has
//! reached the upstream for it, which is a moment after the client's connect: exchange a byte before you break it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

mod control;
mod link;
mod pump;

pub use control::Fault;
use pump::{Shared, accept};

/// How often a thread that waits for bytes looks for a change.
const POLL: Duration = Duration::from_millis(5);

/// Where the bytes go.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A proxy. Dropping it closes every connection and ends its threads.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Listens on a free port of 127.0.0.1, without any fault. The upstream is asked for by every connection anew, so
    /// it may start later and end in between; a client is closed if it is not there.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(upstream: Upstream) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        // A client that is gone again before it is accepted must not block the acceptor.
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || accept(&listener, &upstream, &shared))
        };
        Ok(Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every byte arrives so much later, in each direction. Does not limit how many are on the way.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.change(|control| control.delay = delay);
    }

    /// So many bytes a second pass, in each direction of each connection; 0 counts as 1.
    pub fn set_throttle(&self, bytes_per_s: Option<u64>) {
        self.shared
            .change(|control| control.throttle_bytes_per_s = bytes_per_s);
    }

    /// Holds all bytes and ends of streams. Connections stay open and new ones are accepted.
    pub fn pause(&self) {
        self.shared.change(|control| control.is_paused = true);
    }

    /// Lets go what was held.
    pub fn resume(&self) {
        self.shared.change(|control| control.is_paused = false);
    }

    /// Closes all connections by RST, on both sides; they are reset when this returns. New ones work.
    pub fn reset_all(&self) {
        let links = self.shared.change(|control| {
            let links = std::mem::take(&mut control.links);
            for link in &links {
                link.reset();
                control.fire(Fault::Reset);
            }
            links
        });
        // The RST is sent when the last of its owners drops it; here, that is us.
        self.shared.wait_for_last_owner(&links);
    }

    /// Makes the connections that are there swallow everything both ways, without ever closing; as if a firewall had
    /// forgotten them. New ones work.
    pub fn half_open(&self) {
        self.shared
            .change(|control| control.links.iter().for_each(|link| link.half_open()));
    }

    /// Closes the connection that carries the n-th reply byte from now on, right after that byte; with 0, the one that
    /// would carry the next, before it. The bytes of all connections count. It bites once.
    pub fn cut_replies_after(&self, bytes: u64) {
        self.shared
            .change(|control| control.replies_cut_after_bytes = Some(bytes));
    }

    /// The same for requests: the upstream gets a part, the client is closed.
    pub fn cut_requests_after(&self, bytes: u64) {
        self.shared
            .change(|control| control.requests_cut_after_bytes = Some(bytes));
    }

    /// Whether requests pass and replies are swallowed. A connection that has lost a reply is of no use afterwards:
    /// the next reply would be taken for the answer to an earlier request.
    pub fn drop_replies(&self, drops: bool) {
        self.shared.change(|control| control.drops_replies = drops);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuses: bool) {
        self.shared.change(|control| control.refuses = refuses);
    }

    /// How many connections were accepted so far, without those that were refused.
    pub fn connections(&self) -> u64 {
        self.shared.control.lock().connections
    }

    /// How many are there now; half open ones too.
    pub fn open_connections(&self) -> usize {
        self.shared.control.lock().links.len()
    }

    /// How many times a fault has bitten: held, swallowed or cut bytes, reset or refused a connection. A test of a fault
    /// that did not bite has tested nothing.
    pub fn fired(&self) -> u64 {
        self.shared.control.lock().fired()
    }

    /// How many times this one has.
    pub fn fired_by(&self, fault: Fault) -> u64 {
        self.shared.control.lock().fired_by(fault)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let links = self.shared.change(|control| {
            control.is_over = true;
            std::mem::take(&mut control.links)
        });
        for link in links {
            link.close();
        }
        if let Some(acceptor) = self.acceptor.take() {
            // A thread of the proxy that panicked has said so on stderr.
            let _ = acceptor.join();
        }
    }
}

#[cfg(test)]
mod tests;
