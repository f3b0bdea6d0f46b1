//! The load: keep-alive connections in turn, requests encoded beforehand, answers counted and not looked at
//! further. Blocking and on one thread: two system calls a round trip, so that it keeps up from one core.
//!
//! Latency is from the write of a request to the end of its answer, as this client sees it: with many connections
//! most of it is the wait for all the others.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crowd::client::Request;

/// An answer is awaited for so long.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One turn of one server.
pub struct Pass<'a> {
    pub address: SocketAddr,
    pub requests: &'a [Request],
    /// Times that they are sent.
    pub repeats: usize,
    pub connections: usize,
    /// Requests under way on a connection.
    pub pipeline: usize,
    /// What answers must be; these are timed.
    pub status: u16,
    /// What they may be instead.
    pub or_status: Option<u16>,
}

/// What a turn cost.
pub struct Measured {
    pub requests: u64,
    pub elapsed: Duration,
    /// Of each process that was watched.
    cpu: Vec<Duration>,
    /// Of the answers with the pass's status, ascending.
    latencies_us: Vec<u32>,
}

impl Measured {
    /// CPU of a process, in the order in which they were named.
    pub fn cpu(&self, process: usize) -> Duration {
        self.cpu.get(process).copied().unwrap_or_default()
    }

    /// The same for each request.
    pub fn cpu_us(&self, process: usize) -> f64 {
        self.cpu(process).as_secs_f64() * 1e6 / self.requests as f64
    }

    pub fn rate_per_s(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Answers with the pass's status.
    pub fn matched(&self) -> u64 {
        self.latencies_us.len() as u64
    }

    /// What this part of them (0-1) did not exceed.
    pub fn latency_ms(&self, part: f64) -> f64 {
        quantile(&self.latencies_us, part).map_or(f64::NAN, |us| f64::from(us) / 1e3)
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    under_way: usize,
    sent_at: Instant,
}

/// Sends all requests of a pass and measures these processes meanwhile.
pub fn run(pass: &Pass<'_>, pids: &[u32]) -> anyhow::Result<Measured> {
    let total = pass.requests.len() * pass.repeats;
    let mut connections = (0..pass.connections)
        .map(|_| Connection::open(pass.address))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut sent = 0;
    let mut answered = 0;
    let mut batch = Vec::new();
    let mut latencies_us = Vec::with_capacity(total);
    let cpu_now = || {
        pids.iter()
            .copied()
            .map(cpu_of)
            .collect::<Result<Vec<_>, _>>()
    };
    let cpu_before = cpu_now()?;
    let started = Instant::now();
    for connection in &mut connections {
        sent += connection.send(pass, sent, total, &mut batch)?;
    }
    while answered < total {
        for connection in &mut connections {
            while connection.under_way > 0 {
                let status = connection.next_status()?;
                if status == pass.status {
                    let us = connection.sent_at.elapsed().as_micros();
                    latencies_us.push(u32::try_from(us).unwrap_or(u32::MAX));
                } else if Some(status) != pass.or_status {
                    bail!(
                        "{} was answered with {status}, not {}: {}",
                        pass.address,
                        pass.status,
                        String::from_utf8_lossy(&connection.buffer)
                    );
                }
                connection.under_way -= 1;
                answered += 1;
            }
            sent += connection.send(pass, sent, total, &mut batch)?;
        }
    }
    let elapsed = started.elapsed();
    let cpu_after = cpu_now()?;
    latencies_us.sort_unstable();
    Ok(Measured {
        requests: total as u64,
        elapsed,
        cpu: cpu_after
            .iter()
            .zip(cpu_before)
            .map(|(after, before)| after.saturating_sub(before))
            .collect(),
        latencies_us,
    })
}

/// The value at this place (0-1) of an ascending list.
fn quantile(sorted: &[u32], part: f64) -> Option<u32> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * part).round() as usize).copied()
}

impl Connection {
    fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| address.to_string())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(32 * 1024),
            start: 0,
            under_way: 0,
            sent_at: Instant::now(),
        })
    }

    /// Writes as many as may be under way, in one piece; gives how many.
    fn send(
        &mut self,
        pass: &Pass<'_>,
        from: usize,
        total: usize,
        batch: &mut Vec<u8>,
    ) -> anyhow::Result<usize> {
        let count = pass.pipeline.min(total - from);
        let request = |number: usize| pass.requests[number % pass.requests.len()].as_bytes();
        self.sent_at = Instant::now();
        match count {
            0 => {}
            1 => self.stream.write_all(request(from))?,
            _ => {
                batch.clear();
                for number in from..from + count {
                    batch.extend_from_slice(request(number));
                }
                self.stream.write_all(batch)?;
            }
        }
        self.under_way += count;
        Ok(count)
    }

    /// Reads one answer to its end.
    fn next_status(&mut self) -> anyhow::Result<u16> {
        loop {
            if let Some((status, bytes)) = parse(&self.buffer[self.start..])? {
                self.start += bytes;
                if self.start == self.buffer.len() {
                    self.buffer.clear();
                    self.start = 0;
                }
                return Ok(status);
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => bail!("closed by the server"),
                Ok(bytes) => self.buffer.extend_from_slice(&piece[..bytes]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading an answer"),
            }
        }
    }
}

/// Status and length of the answer that stands in front, once it is there whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let status = bytes
        .get(9..12)
        .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok())
        .context("no status")?;
    let length = bytes[..head]
        .split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(15)?;
            name.eq_ignore_ascii_case(b"content-length:")
                .then_some(value)
        })
        .and_then(|value| str::from_utf8(value).ok()?.trim().parse::<usize>().ok())
        .context("no content-length")?;
    let whole = head + 4 + length;
    Ok((bytes.len() >= whole).then_some((status, whole)))
}

/// CPU that all threads of a process have used: the scheduler's own count, in nanoseconds.
fn cpu_of(pid: u32) -> anyhow::Result<Duration> {
    let mut total_ns = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(stat) = std::fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let on_cpu = stat.split_ascii_whitespace().next().context("schedstat")?;
        total_ns += on_cpu.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_when_they_are_whole() {
        let one = b"HTTP/1.1 409 Conflict\r\nContent-Type: x\r\nContent-Length: 2\r\n\r\n{}";
        for end in 0..one.len() {
            assert_eq!(parse(&one[..end]).unwrap(), None, "{end}");
        }
        let two = [one.as_slice(), b"HTTP/1.1"].concat();
        assert_eq!(parse(&two).unwrap(), Some((409, one.len())));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let sorted: Vec<u32> = (0..=100).collect();
        assert_eq!(quantile(&sorted, 0.5), Some(50));
        assert_eq!(quantile(&sorted, 0.99), Some(99));
        assert_eq!(quantile(&sorted, 1.0), Some(100));
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn the_cpu_of_a_process_is_read() {
        let before = cpu_of(std::process::id()).unwrap();
        let mut sum = 0_u64;
        for number in 0..5_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(cpu_of(std::process::id()).unwrap() >= before);
    }
}
