//! The bytes of one connection on their way to hyper and back, and the life of a connection.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use flash_types::bounds;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::Notify;

use crate::framing::{Ambiguous, Scanner};
use crate::outbox::Outbox;
use crate::service::{ConnectionState, Worker, serve};

/// Most bytes that are read at once, and that hyper keeps of a connection.
const READ_BYTES: usize = 16 * 1024;
/// Ends a head that hyper has to refuse: no name, method or value may hold a NUL.
const POISON: &[u8] = b"\0\r\n\r\n";
/// How long, and over how many reads, what a client still sends is thrown away after the last answer: without
/// that the kernel resets the connection and the client may never see the answer.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_READS: usize = 64;

thread_local! {
    /// Where bytes are read to before hyper gets a copy: one per thread.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// A socket whose heads are looked at on the way in, and whose answers are gathered on the way out.
pub(crate) struct WatchedIo {
    inbox: OwnedReadHalf,
    outbox: Arc<Outbox>,
    scanner: Scanner,
    is_poisoned: bool,
    state: Arc<ConnectionState>,
}

impl WatchedIo {
    fn new(inbox: OwnedReadHalf, outbox: Arc<Outbox>, state: Arc<ConnectionState>) -> Self {
        Self {
            inbox,
            outbox,
            scanner: Scanner::new(),
            is_poisoned: false,
            state,
        }
    }

    /// Hands over what was read; after an ambiguous byte, something that is refused.
    fn hand_over(&mut self, bytes: &[u8], buffer: &mut ReadBufCursor<'_>) {
        match self.scanner.feed(bytes) {
            Ok(()) => buffer.put_slice(bytes),
            Err(Ambiguous { good }) => {
                self.is_poisoned = true;
                buffer.put_slice(&bytes[..good]);
                // Without room for it the stream just ends, in the middle of a head.
                if buffer.remaining() >= POISON.len() {
                    buffer.put_slice(POISON);
                }
            }
        }
        // Relaxed: written and read on this thread.
        self.state
            .is_request_here
            .store(self.scanner.is_between_requests(), Ordering::Relaxed);
    }
}

impl Read for WatchedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_poisoned {
            return Poll::Ready(Ok(()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let length = scratch.len().min(buffer.remaining());
            let mut read = ReadBuf::new(&mut scratch[..length]);
            ready!(Pin::new(&mut this.inbox).poll_read(cx, &mut read))?;
            this.hand_over(read.filled(), &mut buffer);
            Poll::Ready(Ok(()))
        })
    }
}

impl Write for WatchedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.outbox.poll_put(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is flushed whenever hyper pauses: see `run`.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.outbox.poll_flush(cx))?;
        Poll::Ready(self.outbox.shutdown())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.outbox.poll_put(cx, parts)
    }
}

/// How every connection is parsed. Time-outs are not hyper's: a timer per request costs more than the sweep of a thread.
pub(crate) fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(READ_BYTES)
        .max_header_size(bounds::HEAD_BYTES_MAX)
        .header_read_timeout(None);
    builder
}

/// Serves one connection until it is closed, or, once the worker stops, until its requests are answered.
pub(crate) async fn run(
    stream: TcpStream,
    state: Arc<ConnectionState>,
    worker: Arc<Worker>,
    http: Arc<http1::Builder>,
    stop: Arc<Notify>,
) {
    let (inbox, outbox) = stream.into_split();
    let outbox = Arc::new(Outbox::new(outbox));
    let io = WatchedIo::new(inbox, Arc::clone(&outbox), Arc::clone(&state));
    let service = service_fn({
        let (worker, state) = (Arc::clone(&worker), Arc::clone(&state));
        move |request| {
            let (worker, state) = (Arc::clone(&worker), Arc::clone(&state));
            async move { Ok::<_, std::convert::Infallible>(serve(&worker, &state, request).await) }
        }
    });
    let mut connection = http.serve_connection(io, service);
    let mut stopped = pin!(stop.notified());
    let mut is_told = false;
    let (mut is_listening, mut is_over) = (false, false);
    // A task keeps its waker: asking once to be woken for the stop is enough.
    poll_fn(|cx| {
        if !is_listening {
            is_listening = true;
            let _ = stopped.as_mut().poll(cx);
        }
        if !is_told && worker.is_draining() {
            is_told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        // How it ended makes no difference: whatever was answered is sent.
        is_over = is_over || Pin::new(&mut connection).poll(cx).is_ready();
        // hyper would wait for the rest of a first head, but nobody has asked for anything yet.
        is_over = is_over || (is_told && !state.was_asked());
        match outbox.poll_flush(cx) {
            Poll::Ready(Ok(())) if !is_over => Poll::Pending,
            Poll::Ready(Ok(()) | Err(_)) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if outbox.shutdown().is_ok() && !is_told {
        linger(&mut connection.into_parts().io.inbox).await;
    }
}

/// Listens for a moment to what the client still sends.
async fn linger(inbox: &mut OwnedReadHalf) {
    let drain = async {
        let mut thrown_away = [0; 1_024];
        for _ in 0..LINGER_READS {
            match inbox.read(&mut thrown_away).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    // A client that does not close by itself is closed on.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
