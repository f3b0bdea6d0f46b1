//! A receiver of webhooks on a free port, as good or bad as a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What it does with a request.
pub enum Answer {
    Status(u16),
    Redirect(String),
    /// Takes the request and says nothing.
    Never,
    /// Takes the request and closes the connection.
    Cut,
}

#[derive(Clone, Default)]
pub struct Received {
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map_or("", |(_, value)| value)
    }
}

#[derive(Default)]
struct Seen {
    received: Vec<Received>,
    acknowledged: Vec<String>,
}

pub struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    /// Dropped, it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// On a thread of its own, so that tests with and without an event loop can have it.
    pub fn start(behave: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (behave, all) = (Arc::new(behave), Arc::clone(&seen));
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        tokio::spawn(serve(stream, Arc::clone(&behave), Arc::clone(&all)));
                    }
                });
                // An error is the end as well.
                let _ = stopped.await;
            });
        });
        Self {
            address,
            seen,
            _stop: stop,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.seen.lock().received.clone()
    }

    /// Ids of the events that were answered with 2xx, in that order.
    pub fn acknowledged(&self) -> Vec<String> {
        self.seen.lock().acknowledged.clone()
    }
}

async fn serve(
    stream: TcpStream,
    behave: Arc<impl Fn(&Received) -> Answer>,
    seen: Arc<Mutex<Seen>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = read(&mut stream).await?;
        let answer = behave(&request);
        let (status, location) = match answer {
            Answer::Status(status) => (status, String::new()),
            Answer::Redirect(to) => (302, format!("Location: {to}\r\n")),
            Answer::Cut => {
                seen.lock().received.push(request);
                return None;
            }
            Answer::Never => {
                seen.lock().received.push(request);
                std::future::pending::<()>().await;
                return None;
            }
        };
        {
            let mut seen = seen.lock();
            if (200..300).contains(&status) {
                seen.acknowledged
                    .push(request.header("stampede-event-id").into());
            }
            seen.received.push(request);
        }
        let length = if status == 204 {
            ""
        } else {
            "Content-Length: 0\r\n"
        };
        let head = format!("HTTP/1.1 {status} X\r\n{length}{location}\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
    }
}

/// `None`: the connection ended, or what came is no HTTP.
async fn read(stream: &mut BufReader<TcpStream>) -> Option<Received> {
    let mut request = Received::default();
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    request.path = line.split(' ').nth(1)?.into();
    loop {
        line.clear();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else {
            break;
        };
        request
            .headers
            .push((name.to_ascii_lowercase(), value.into()));
    }
    let length = request.header("content-length").parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
