//! The admin port while the store cannot be reached: it lives, it is not ready, and it says why.
//!
//! A thread that answers one short question at a time; the real admin port takes its place once there is a store.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

/// A caller that has not sent its question by then is left: nobody may keep the real port waiting.
const PATIENCE: Duration = Duration::from_millis(500);
/// A caller that sends nothing is looked at so often.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// How often the thread looks whether it is to end.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Answers until it is dropped; then the port is free.
pub(crate) struct Waiting {
    why: Arc<Mutex<String>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Waiting {
    /// Listens on the admin port.
    pub(crate) fn listen(admin: SocketAddr, why: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(admin)?;
        listener.set_nonblocking(true)?;
        let why = Arc::new(Mutex::new(why.to_owned()));
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name("waiting".into()).spawn({
            let (why, is_over) = (Arc::clone(&why), Arc::clone(&is_over));
            move || {
                // Relaxed: a flag that guards no other memory.
                while !is_over.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((caller, _)) => {
                            // A caller that is gone needs no answer.
                            let _ = answer(caller, &why.lock().clone());
                        }
                        Err(_) => std::thread::park_timeout(LOOK_INTERVAL),
                    }
                }
            }
        })?;
        Ok(Self {
            why,
            is_over,
            thread: Some(thread),
        })
    }

    /// What it says from now on.
    pub(crate) fn say(&self, why: &str) {
        why.clone_into(&mut self.why.lock());
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(mut caller: TcpStream, why: &str) -> std::io::Result<()> {
    caller.set_nonblocking(false)?;
    let until = Instant::now() + PATIENCE;
    caller.set_read_timeout(Some(READ_TIMEOUT))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut bytes = [0; 1_024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if Instant::now() > until {
            return Err(ErrorKind::TimedOut.into());
        }
        match caller.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => head.extend_from_slice(&bytes[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let path = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let reason = format!("store: {why}");
    let (status, media, body) = match path {
        b"/healthz" => (
            "200 OK",
            "application/json",
            json!({"status": "ok"}).to_string(),
        ),
        b"/metrics" => (
            "200 OK",
            "text/plain; version=0.0.4",
            "stampede_store_up 0\n".into(),
        ),
        b"/readyz" => {
            let body = json!({"ready": false, "reasons": [reason], "durability": "redis_memory"});
            (
                "503 Service Unavailable",
                "application/json",
                body.to_string(),
            )
        }
        _ => {
            let body = json!({
                "type": "urn:stampede:problem:store_unavailable", "title": "Store unavailable", "status": 503,
                "outcome": "store_unavailable", "detail": reason, "retry_after_ms": 1_000,
            });
            (
                "503 Service Unavailable",
                "application/problem+json",
                body.to_string(),
            )
        }
    };
    write!(
        caller,
        "HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn it_lives_and_says_why_it_is_not_ready_until_it_is_dropped() {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let waiting = Waiting::listen(address, "nobody there").unwrap();
        assert!(ask(address, "/healthz").starts_with("HTTP/1.1 200"));
        let ready = ask(address, "/readyz");
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("store: nobody there"));
        waiting.say("still nobody");
        assert!(ask(address, "/v1/admin/sales").contains("store: still nobody"));
        drop(waiting);
        TcpListener::bind(address).unwrap();
    }
}
