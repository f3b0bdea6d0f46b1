//! The threads: one accepts, two a connection carry bytes, one for each direction.
//!
//! A pump reads ahead while it holds pieces, so that a delay delays and does not throttle.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use parking_lot::{Condvar, Mutex};
use socket2::Socket;

use crate::control::{Control, Fault, Flow, Piece, Verdict, Way};
use crate::link::{Fate, Link};
use crate::{POLL, Upstream};

const PIECE_BYTES_MAX: usize = 16 << 10;
/// A direction that holds more does not read: the sender feels it, as it would a full network.
const HELD_BYTES_MAX: usize = 4 << 20;

/// What the test's thread and the proxy's threads share. No byte is read or written under the lock.
#[derive(Debug, Default)]
pub struct Shared {
    pub control: Mutex<Control>,
    changed: Condvar,
}

impl Shared {
    /// Changes the faults and tells the threads.
    pub fn change<T>(&self, change: impl FnOnce(&mut Control) -> T) -> T {
        let changed = change(&mut self.control.lock());
        self.changed.notify_all();
        changed
    }

    /// Waits until the threads of these connections have let go of them.
    pub fn wait_for_last_owner(&self, links: &[Arc<Link>]) {
        let mut control = self.control.lock();
        while links.iter().any(|link| Arc::strong_count(link) > 1) {
            self.changed.wait_for(&mut control, POLL);
        }
    }

    fn wait_for_change(&self, within: Duration) {
        self.changed.wait_for(&mut self.control.lock(), within);
    }
}

/// Accepts until the proxy is over; then waits for the threads of its connections.
pub fn accept(listener: &TcpListener, upstream: &Upstream, shared: &Arc<Shared>) {
    while !shared.control.lock().is_over {
        if !is_readable(listener, POLL) {
            continue;
        }
        let Ok((client, _)) = listener.accept() else {
            // The client is gone, or there are too many open files.
            shared.wait_for_change(POLL);
            continue;
        };
        let mut control = shared.control.lock();
        control.threads.retain(|thread| !thread.is_finished());
        if control.refuses {
            control.fire(Fault::Refuse);
            continue;
        }
        control.connections += 1;
        let (upstream, shared) = (upstream.clone(), Arc::clone(shared));
        let thread = std::thread::spawn(move || serve(client, &upstream, &shared));
        control.threads.push(thread);
    }
    let threads = std::mem::take(&mut shared.control.lock().threads);
    for thread in threads {
        // A thread that panicked has said so on stderr.
        let _ = thread.join();
    }
}

fn serve(client: TcpStream, upstream: &Upstream, shared: &Shared) {
    // Without an upstream the client is dropped, and so closed.
    let Ok(link) = Link::connect(client, upstream).map(Arc::new) else {
        return;
    };
    {
        let mut control = shared.control.lock();
        if control.is_over {
            return;
        }
        control.links.push(Arc::clone(&link));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| pump(shared, &link, Way::Reply));
        pump(shared, &link, Way::Request);
    });
    if link.fate() != Fate::HalfOpen {
        let is_other = |other: &Arc<Link>| !Arc::ptr_eq(other, &link);
        shared.control.lock().links.retain(is_other);
    }
    drop(link);
    shared.changed.notify_all();
}

/// Carries one direction until it ends, the connection is over, or a half open one has nothing more to swallow.
fn pump(shared: &Shared, link: &Link, way: Way) {
    let (source, sink) = link.ends(way);
    let mut held: VecDeque<Piece> = VecDeque::new();
    let mut flow = Flow {
        free_at: Instant::now(),
        held_by: None,
    };
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    loop {
        let verdict =
            shared
                .control
                .lock()
                .judge(link.fate(), way, held.front(), &mut flow, Instant::now());
        match verdict {
            Verdict::Over => return,
            Verdict::End => {
                // It fails only if the receiver is gone.
                let _ = sink.shutdown(Shutdown::Write);
                return;
            }
            Verdict::Swallow => {
                held.pop_front();
            }
            Verdict::Pass { bytes, is_cut } => {
                if !pass_on(link, sink, &mut held, bytes) || is_cut {
                    return link.close();
                }
            }
            Verdict::Wait(wait) => {
                let has_ended = held.back().is_some_and(|piece| piece.bytes.is_empty());
                let held_bytes: usize = held.iter().map(|piece| piece.bytes.len()).sum();
                if has_ended || held_bytes >= HELD_BYTES_MAX {
                    shared.wait_for_change(wait);
                } else if is_readable(source, wait) {
                    held.extend(read_piece(shared, source, &mut buffer));
                }
            }
        }
    }
}

/// What has arrived. A broken connection looks like the end of its stream.
fn read_piece(shared: &Shared, mut source: &Socket, buffer: &mut [u8]) -> Option<Piece> {
    let bytes = match source.read(buffer) {
        Ok(bytes) => bytes,
        Err(error) if is_passing(error.kind()) => return None,
        Err(_) => 0,
    };
    let delay = shared.control.lock().delay_of_arrival();
    Some(Piece {
        due: Instant::now() + delay,
        bytes: buffer[..bytes].to_vec(),
    })
}

/// Writes the first bytes of the first piece; whether the connection can carry more.
fn pass_on(link: &Link, mut sink: &Socket, held: &mut VecDeque<Piece>, bytes: usize) -> bool {
    let Some(piece) = held.front_mut() else {
        return true;
    };
    let mut rest = &piece.bytes[..bytes];
    while !rest.is_empty() {
        match link.fate() {
            Fate::Open => (),
            Fate::HalfOpen => break,
            Fate::Over => return false,
        }
        match sink.write(rest) {
            Ok(written) => rest = &rest[written..],
            // The receiver does not read; the write has timed out, so that the fate is seen.
            Err(error) if is_passing(error.kind()) => (),
            // Not the end of a connection that never closes.
            Err(_) => return link.fate() == Fate::HalfOpen,
        }
    }
    piece.bytes.drain(..bytes);
    if piece.bytes.is_empty() {
        held.pop_front();
    }
    true
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Finer than a time-out for reading, which the kernel rounds to its ticks.
fn is_readable(socket: &impl AsFd, within: Duration) -> bool {
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    // An interrupted wait is a short one; the caller asks again.
    ppoll(&mut fds, Some(TimeSpec::from_duration(within)), None).is_ok_and(|ready| ready > 0)
}
