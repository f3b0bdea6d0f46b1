use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixListener;
use std::time::Instant;

use parking_lot::Mutex;

use super::*;

/// Long enough for every thread of the proxy to have had its turn.
const SILENCE: Duration = Duration::from_millis(60);
const BOUND: Duration = Duration::from_secs(20);

/// Sends back what it gets, and remembers it.
#[derive(Clone, Default)]
struct Echo {
    received: Arc<Mutex<Vec<u8>>>,
    /// One for each connection that has ended.
    ended: Arc<Mutex<Vec<Option<ErrorKind>>>>,
}

impl Echo {
    fn start() -> (Self, Upstream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let upstream = Upstream::Tcp(listener.local_addr().unwrap());
        let echo = Self::default();
        let served = echo.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let echo = served.clone();
                std::thread::spawn(move || echo.serve(stream));
            }
        });
        (echo, upstream)
    }

    fn serve(&self, mut stream: impl Read + Write) {
        let mut buffer = [0; 1 << 16];
        let end = loop {
            match stream.read(&mut buffer) {
                Ok(0) => break None,
                Ok(bytes) => {
                    self.received.lock().extend(&buffer[..bytes]);
                    if let Err(error) = stream.write_all(&buffer[..bytes]) {
                        break Some(error.kind());
                    }
                }
                Err(error) => break Some(error.kind()),
            }
        };
        self.ended.lock().push(end);
    }

    fn received(&self) -> usize {
        self.received.lock().len()
    }
}

fn start() -> (Echo, FaultProxy) {
    let (echo, upstream) = Echo::start();
    (echo, FaultProxy::start(upstream).unwrap())
}

fn connect(proxy: &FaultProxy) -> TcpStream {
    let client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(BOUND)).unwrap();
    client
}

/// A connection that is known to the proxy.
fn connect_live(proxy: &FaultProxy) -> TcpStream {
    let mut client = connect(proxy);
    assert_eq!(ask(&mut client, b"hello"), b"hello");
    client
}

fn ask(client: &mut TcpStream, request: &[u8]) -> Vec<u8> {
    client.write_all(request).unwrap();
    let mut reply = vec![0; request.len()];
    client.read_exact(&mut reply).unwrap();
    reply
}

fn is_silent(client: &mut TcpStream) -> bool {
    client.set_read_timeout(Some(SILENCE)).unwrap();
    let read = client.read(&mut [0; 64]);
    client.set_read_timeout(Some(BOUND)).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn until(mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < BOUND, "it never came true");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

#[test]
fn without_a_fault_everything_arrives() {
    let (echo, proxy) = start();
    let mut client = connect(&proxy);
    let sent: Vec<u8> = (0..3_000_000_u32)
        .map(|index| index.to_le_bytes()[1])
        .collect();
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn({
        let sent = sent.clone();
        move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        }
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent);
    assert_eq!(*echo.ended.lock(), [None]);
    assert_eq!(proxy.connections(), 1);
    until(|| proxy.open_connections() == 0);
    assert_eq!(proxy.fired(), 0);
}

#[test]
fn an_upstream_may_be_a_unix_socket_and_may_be_absent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("echo.sock");
    let proxy = FaultProxy::start(Upstream::Unix(path.clone())).unwrap();
    assert_eq!(connect(&proxy).read(&mut [0; 8]).unwrap(), 0);
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        Echo::default().serve(stream);
    });
    connect_live(&proxy);
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn a_delay_delays_both_directions_and_does_not_throttle() {
    let (_echo, proxy) = start();
    let mut client = connect_live(&proxy);
    let delay = Duration::from_millis(30);
    proxy.set_delay(delay);
    let started = Instant::now();
    ask(&mut client, b"late");
    assert!(started.elapsed() >= 2 * delay);
    assert_eq!(proxy.fired_by(Fault::Delay), 2);
    // Many pieces are on the way at once.
    let sent = vec![7; 40 * (16 << 10)];
    let started = Instant::now();
    ask(&mut client, &sent);
    assert!(started.elapsed() < 20 * delay, "{:?}", started.elapsed());
    proxy.set_delay(Duration::ZERO);
    let fired = proxy.fired();
    ask(&mut client, b"at once");
    assert_eq!(proxy.fired(), fired);
}

#[test]
fn a_throttle_throttles() {
    let (_echo, proxy) = start();
    let mut client = connect_live(&proxy);
    proxy.set_throttle(Some(10_000));
    let started = Instant::now();
    ask(&mut client, &[7; 2_000]);
    assert!(started.elapsed() >= Duration::from_millis(180));
    assert!(proxy.fired_by(Fault::Throttle) > 10);
    proxy.set_throttle(Some(0));
    client.write_all(&[7; 100]).unwrap();
    proxy.set_throttle(None);
    client.read_exact(&mut [0; 100]).unwrap();
}

#[test]
fn a_pause_holds_bytes_and_ends_until_it_is_over() {
    let (echo, proxy) = start();
    let mut client = connect_live(&proxy);
    proxy.pause();
    client.write_all(b"held").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut other = connect(&proxy);
    other.write_all(b"new").unwrap();
    assert!(is_silent(&mut client));
    assert!(is_silent(&mut other));
    until(|| proxy.fired_by(Fault::Pause) == 2);
    assert_eq!(echo.received(), b"hello".len());
    assert_eq!(proxy.open_connections(), 2);
    proxy.resume();
    let mut reply = Vec::new();
    client.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"held");
    other.read_exact(&mut [0; 3]).unwrap();
}

#[test]
fn a_reset_is_a_reset_on_both_sides() {
    let (echo, proxy) = start();
    let mut clients = [connect_live(&proxy), connect_live(&proxy)];
    proxy.reset_all();
    for client in &mut clients {
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    until(|| *echo.ended.lock() == [Some(ErrorKind::ConnectionReset); 2]);
    assert_eq!(proxy.fired_by(Fault::Reset), 2);
    assert_eq!(proxy.open_connections(), 0);
    connect_live(&proxy);
}

#[test]
fn half_open_connections_swallow_and_stay() {
    let (echo, proxy) = start();
    let mut old = connect_live(&proxy);
    proxy.half_open();
    old.write_all(b"into nothing").unwrap();
    assert!(is_silent(&mut old));
    until(|| proxy.fired_by(Fault::HalfOpen) == 1);
    connect_live(&proxy);
    drop(old);
    until(|| proxy.fired_by(Fault::HalfOpen) == 2);
    until(|| proxy.open_connections() == 1);
    assert_eq!(*echo.ended.lock(), [None], "the upstream knows of one end");
    assert_eq!(echo.received(), 2 * b"hello".len());
    proxy.reset_all();
    until(|| echo.ended.lock().len() == 2);
}

#[test]
fn a_reply_is_cut_after_so_many_bytes_of_all_connections() {
    let (echo, proxy) = start();
    let mut first = connect_live(&proxy);
    let mut second = connect_live(&proxy);
    proxy.cut_replies_after(6);
    assert_eq!(ask(&mut first, b"four"), b"four");
    second.write_all(b"four").unwrap();
    let mut reply = Vec::new();
    second.read_to_end(&mut reply).unwrap();
    assert_eq!(reply, b"fo");
    assert_eq!(proxy.fired_by(Fault::CutReplies), 1);
    assert_eq!(ask(&mut first, b"goes on"), b"goes on");
    assert_eq!(echo.received(), 10 + 4 + 4 + 7, "the request had arrived");
    proxy.cut_replies_after(0);
    first.write_all(b"no reply").unwrap();
    assert_eq!(first.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(proxy.fired_by(Fault::CutReplies), 2);
}

#[test]
fn a_request_is_cut_after_so_many_bytes() {
    let (echo, proxy) = start();
    let mut client = connect_live(&proxy);
    proxy.cut_requests_after(3);
    client.write_all(b"request").unwrap();
    let mut reply = Vec::new();
    // The few bytes may be answered before the end, and the rest of the request may turn the end into a reset.
    let _ = client.read_to_end(&mut reply);
    until(|| echo.ended.lock().len() == 1);
    assert_eq!(*echo.received.lock(), b"helloreq");
    assert_eq!(proxy.fired(), 1);
    assert_eq!(proxy.fired_by(Fault::CutRequests), 1);
}

#[test]
fn dropped_replies_are_silence() {
    let (echo, proxy) = start();
    let mut client = connect_live(&proxy);
    proxy.drop_replies(true);
    client.write_all(b"lost").unwrap();
    until(|| echo.received() == b"hellolost".len());
    assert!(is_silent(&mut client));
    until(|| proxy.fired_by(Fault::DropReplies) == 1);
    proxy.drop_replies(false);
    assert_eq!(ask(&mut client, b"again"), b"again");
}

#[test]
fn refused_connections_are_closed_at_once() {
    let (_echo, proxy) = start();
    let mut old = connect_live(&proxy);
    proxy.refuse(true);
    assert_eq!(connect(&proxy).read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(proxy.fired_by(Fault::Refuse), 1);
    assert_eq!(ask(&mut old, b"stays"), b"stays");
    proxy.refuse(false);
    connect_live(&proxy);
    assert_eq!(proxy.connections(), 2);
}

#[test]
fn a_dropped_proxy_closes_everything() {
    let (echo, proxy) = start();
    let mut clients = [connect_live(&proxy), connect_live(&proxy)];
    proxy.half_open();
    let mut open = connect_live(&proxy);
    proxy.pause();
    open.write_all(b"held").unwrap();
    let addr = proxy.addr();
    drop(proxy);
    for client in clients.iter_mut().chain([&mut open]) {
        match client.read(&mut [0; 8]) {
            Ok(bytes) => assert_eq!(bytes, 0),
            // What nobody had read yet turns the end into a reset.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    until(|| echo.ended.lock().len() == 3);
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn a_receiver_that_does_not_read_does_not_block_a_reset() {
    let (echo, proxy) = start();
    let mut client = connect_live(&proxy);
    client.set_write_timeout(Some(SILENCE)).unwrap();
    // Nobody reads the replies: all buffers fill up.
    while client.write(&[7; 1 << 16]).is_ok() {}
    proxy.reset_all();
    until(|| echo.ended.lock().len() == 1);
    until(|| client.write(&[7; 8]).is_err());
}
