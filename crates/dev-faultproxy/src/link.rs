//! One connection of a client and the one to the upstream that belongs to it.
// Open -> (HalfOpen | Over), HalfOpen -> Over. Nothing leaves Over.

use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::control::Way;
use crate::{POLL, Upstream};

/// An upstream that stands still may not answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Open,
    /// Swallows everything and stays.
    HalfOpen,
    /// Its pumps end.
    Over,
}

/// Closes both sockets when its last owner drops it.
#[derive(Debug)]
pub struct Link {
    client: Socket,
    upstream: Socket,
    fate: Mutex<Fate>,
}

impl Link {
    pub fn connect(client: TcpStream, upstream: &Upstream) -> anyhow::Result<Self> {
        let (domain, address) = match upstream {
            Upstream::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Upstream::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let client = Socket::from(client);
        let upstream = Socket::new(domain, Type::STREAM, None)?;
        // The kernel bounds a connect, too, by the time-out for writing.
        upstream.set_write_timeout(Some(CONNECT_WITHIN))?;
        upstream.connect(&address).context("the upstream")?;
        client.set_tcp_nodelay(true)?;
        if domain != Domain::UNIX {
            upstream.set_tcp_nodelay(true)?;
        }
        for socket in [&client, &upstream] {
            socket.set_write_timeout(Some(POLL))?;
        }
        Ok(Self {
            client,
            upstream,
            fate: Mutex::new(Fate::Open),
        })
    }

    /// Where bytes of a direction come from, and where they go.
    pub fn ends(&self, way: Way) -> (&Socket, &Socket) {
        match way {
            Way::Request => (&self.client, &self.upstream),
            Way::Reply => (&self.upstream, &self.client),
        }
    }

    pub fn fate(&self) -> Fate {
        *self.fate.lock()
    }

    pub fn half_open(&self) {
        let mut fate = self.fate.lock();
        if *fate == Fate::Open {
            *fate = Fate::HalfOpen;
        }
    }

    /// Ends it; what was written still arrives.
    pub fn close(&self) {
        *self.fate.lock() = Fate::Over;
        for socket in [&self.client, &self.upstream] {
            // It fails only if the other side has closed it already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Ends it by RST, as soon as its last owner has dropped it.
    pub fn reset(&self) {
        *self.fate.lock() = Fate::Over;
        for socket in [&self.client, &self.upstream] {
            // A unix socket takes it and has no RST.
            let _ = socket.set_linger(Some(Duration::ZERO));
        }
    }
}
