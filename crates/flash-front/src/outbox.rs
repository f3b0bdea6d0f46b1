//! The answers of one connection on their way out: gathered while hyper works, written when it pauses.
//!
//! hyper flushes after every answer, or, told to gather, not at all while anything of a next request has arrived:
//! then a last answer before a refusal is lost and one before half a head waits for the other half. So gathering
//! happens here: answers to requests that came together leave together, and nothing is ever kept back once hyper
//! has to wait for anything.
//!
//! Bounded: beyond [`GATHERED_BYTES_MAX`] hyper itself has to wait for the peer.

use std::io;
use std::net::Shutdown;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;

/// More than this is not gathered: the peer has to take some of it first.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// What a quiet connection may keep for its next answers.
const KEPT_BYTES_MAX: usize = 2 * 1024;

pub(crate) struct Outbox {
    socket: OwnedWriteHalf,
    /// Locked by one thread only, never across a wait.
    gathered: Mutex<Gathered>,
}

#[derive(Default)]
struct Gathered {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    pub(crate) fn new(socket: OwnedWriteHalf) -> Self {
        Self {
            socket,
            gathered: Mutex::default(),
        }
    }

    /// Gathers some bytes; waits for the peer where too many wait already.
    pub(crate) fn poll_put(
        &self,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gathered.lock().bytes.len() >= GATHERED_BYTES_MAX {
            ready!(self.poll_flush(cx))?;
        }
        let mut gathered = self.gathered.lock();
        let before = gathered.bytes.len();
        for part in parts {
            gathered.bytes.extend_from_slice(part);
        }
        Poll::Ready(Ok(gathered.bytes.len() - before))
    }

    /// Writes what was gathered.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gathered = self.gathered.lock();
        while gathered.written < gathered.bytes.len() {
            match self.socket.try_write(&gathered.bytes[gathered.written..]) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => gathered.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.as_ref().poll_write_ready(cx))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        gathered.written = 0;
        gathered.bytes.clear();
        if gathered.bytes.capacity() > KEPT_BYTES_MAX {
            gathered.bytes = Vec::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that nothing more comes.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        socket2::SockRef::from(self.socket.as_ref()).shutdown(Shutdown::Write)
    }
}
