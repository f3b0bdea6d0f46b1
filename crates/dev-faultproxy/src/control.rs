//! The faults, and the one decision about every piece of bytes: wait, swallow, pass, cut.
//!
//! The decision touches no socket: a function of the faults, the piece and the time.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::POLL;
use crate::link::{Fate, Link};

/// A throttled connection passes as many bytes at once as it may in this part of a second.
const THROTTLE_STEPS_PER_S: u64 = 100;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Bytes arrived late.
    Delay,
    /// Bytes waited for their turn.
    Throttle,
    /// Bytes were held.
    Pause,
    /// A connection was reset.
    Reset,
    /// Bytes disappeared in a half open connection.
    HalfOpen,
    /// A connection was closed within a request.
    CutRequests,
    /// A connection was closed within a reply.
    CutReplies,
    /// Bytes of a reply were swallowed.
    DropReplies,
    /// A new connection was closed at once.
    Refuse,
}

const FAULT_COUNT: usize = Fault::Refuse as usize + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Request,
    Reply,
}

#[derive(Debug, Default)]
pub struct Control {
    pub delay: Duration,
    pub throttle_bytes_per_s: Option<u64>,
    pub is_paused: bool,
    pub drops_replies: bool,
    pub refuses: bool,
    pub requests_cut_after_bytes: Option<u64>,
    pub replies_cut_after_bytes: Option<u64>,
    /// The proxy is being dropped.
    pub is_over: bool,
    pub connections: u64,
    /// Open and half open ones.
    pub links: Vec<Arc<Link>>,
    pub threads: Vec<JoinHandle<()>>,
    fired: [u64; FAULT_COUNT],
}

/// A piece that was read and has not been passed on.
#[derive(Debug)]
pub struct Piece {
    pub due: Instant,
    /// Empty at the end of the stream.
    pub bytes: Vec<u8>,
}

/// What one direction of one connection remembers.
#[derive(Debug)]
pub struct Flow {
    /// When the throttle lets the next byte pass.
    pub free_at: Instant,
    /// What holds it now. A fault that goes on holding the same piece has bitten once.
    pub held_by: Option<Fault>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again after this time or when there is more.
    Wait(Duration),
    /// The piece disappears.
    Swallow,
    /// So many bytes of the piece pass; then the connection is closed or not.
    Pass { bytes: usize, is_cut: bool },
    /// The end of the stream passes.
    End,
    /// Nothing more is to be done.
    Over,
}

impl Control {
    /// What happens to the first piece of a direction, if there is one.
    pub fn judge(
        &mut self,
        fate: Fate,
        way: Way,
        piece: Option<&Piece>,
        flow: &mut Flow,
        now: Instant,
    ) -> Verdict {
        if fate == Fate::Over {
            return Verdict::Over;
        }
        let Some(piece) = piece else {
            return Verdict::Wait(POLL);
        };
        let is_end = piece.bytes.is_empty();
        if fate == Fate::HalfOpen {
            self.fire(Fault::HalfOpen);
            return if is_end {
                Verdict::Over
            } else {
                Verdict::Swallow
            };
        }
        if now < piece.due {
            return Verdict::Wait(POLL.min(piece.due - now));
        }
        if self.is_paused {
            return self.hold(flow, Fault::Pause, POLL);
        }
        if is_end {
            return Verdict::End;
        }
        if way == Way::Reply && self.drops_replies {
            flow.held_by = None;
            self.fire(Fault::DropReplies);
            return Verdict::Swallow;
        }
        if self.throttle_bytes_per_s.is_some() && now < flow.free_at {
            return self.hold(flow, Fault::Throttle, POLL.min(flow.free_at - now));
        }
        flow.held_by = None;
        let bytes = self.throttled(piece.bytes.len(), flow, now);
        self.cut(way, bytes)
    }

    /// How late a piece is to be that arrives now.
    pub fn delay_of_arrival(&mut self) -> Duration {
        if !self.delay.is_zero() {
            self.fire(Fault::Delay);
        }
        self.delay
    }

    pub fn fire(&mut self, fault: Fault) {
        self.fired[fault as usize] += 1;
    }

    pub fn fired(&self) -> u64 {
        self.fired.iter().sum()
    }

    pub fn fired_by(&self, fault: Fault) -> u64 {
        self.fired[fault as usize]
    }

    fn hold(&mut self, flow: &mut Flow, fault: Fault, wait: Duration) -> Verdict {
        if flow.held_by != Some(fault) {
            flow.held_by = Some(fault);
            self.fire(fault);
        }
        Verdict::Wait(wait)
    }

    /// How many bytes may pass at once; moves the turn of the next.
    fn throttled(&self, bytes: usize, flow: &mut Flow, now: Instant) -> usize {
        let Some(bytes_per_s) = self.throttle_bytes_per_s.map(|rate| rate.max(1)) else {
            return bytes;
        };
        let step = usize::try_from(bytes_per_s / THROTTLE_STEPS_PER_S).unwrap_or(usize::MAX);
        let bytes = bytes.min(step.max(1));
        let takes = Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64);
        flow.free_at = now.max(flow.free_at) + takes;
        bytes
    }

    /// Lets bytes pass up to the one after which the connection is cut.
    fn cut(&mut self, way: Way, bytes: usize) -> Verdict {
        let (left, fault) = match way {
            Way::Request => (&mut self.requests_cut_after_bytes, Fault::CutRequests),
            Way::Reply => (&mut self.replies_cut_after_bytes, Fault::CutReplies),
        };
        let whole = Verdict::Pass {
            bytes,
            is_cut: false,
        };
        let Some(left_bytes) = *left else {
            return whole;
        };
        let more = left_bytes.saturating_sub(bytes as u64);
        if more > 0 {
            *left = Some(more);
            return whole;
        }
        *left = None;
        self.fire(fault);
        Verdict::Pass {
            bytes: usize::try_from(left_bytes).unwrap_or(bytes),
            is_cut: true,
        }
    }
}
