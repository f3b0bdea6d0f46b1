//! One delivery over HTTP: signed, bounded in time and size, never redirected, never to an address that is not allowed.
//!
//! Addresses are judged where the connection is made, after the name was looked up: a name that pointed elsewhere when it
//! was configured helps nobody, nor does an answer that changes between a check and its use.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::address::is_public;
use super::signature::signature;
use super::target::Target;

/// What of an answer's body is read; the rest goes with its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a connection without use is kept.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Who calls.
const USER_AGENT: &str = concat!("stampede/", env!("CARGO_PKG_VERSION"));
/// Longest part of a reason that is kept.
const WHY_BYTES_MAX: usize = 300;

/// How long a delivery may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// Until there is a connection, the look-up of the name included.
    pub connect: Duration,
    /// Altogether.
    pub whole: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            whole: Duration::from_secs(10),
        }
    }
}

/// Why a delivery was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Any answer but 2xx; redirects too.
    #[error("answered {0}")]
    Status(StatusCode),
    /// No whole answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The name leads to an address that is not allowed.
    #[error("{0} is no address of the open internet, and allow_private is not set")]
    Address(IpAddr),
    /// Name, connection, TLS or HTTP failed.
    #[error("{0}")]
    Connection(String),
}

impl Failed {
    /// Label of the counter.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Status(_) => "status",
            Self::TimedOut(_) => "timeout",
            Self::Address(_) => "address",
            Self::Connection(_) => "connection",
        }
    }
}

/// Delivers to one target.
#[derive(Debug)]
pub struct Deliverer {
    target: Target,
    uri: Uri,
    timeouts: Timeouts,
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
}

impl Deliverer {
    /// Connects to nobody yet.
    ///
    /// # Errors
    /// What is wrong with the target.
    pub fn new(target: Target, timeouts: Timeouts, tls: ClientConfig) -> Result<Self, String> {
        let uri = target.uri()?;
        let connector = Connector {
            allow_private: target.allow_private,
            timeout: timeouts.connect,
        };
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if target.allow_private {
            builder.https_or_http()
        } else {
            builder.https_only()
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(builder.enable_http1().wrap_connector(connector));
        Ok(Self {
            target,
            uri,
            timeouts,
            client,
        })
    }

    /// Posts an event.
    ///
    /// # Errors
    /// [`Failed`]; the target may have taken it all the same.
    ///
    /// # Cancel safety
    /// Dropped, the target may or may not have taken it.
    pub async fn deliver(&self, event_id: &str, body: &str, unix_s: i64) -> Result<(), Failed> {
        let signed = signature(self.target.secrets(), unix_s, body);
        let request = Request::post(&self.uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .header("Stampede-Signature", signed)
            .header("Stampede-Event-Id", event_id)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| Failed::Connection(error.to_string()))?;
        let whole = self.timeouts.whole;
        let end = Instant::now() + whole;
        let answered = timeout_at(end, self.client.request(request)).await;
        let answer = answered
            .map_err(|_| Failed::TimedOut(whole))?
            .map_err(|error| why(&error))?;
        let status = answer.status();
        // Read so that the connection can be used again; how and when it ends says nothing about the event.
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let _ = timeout_at(end, body.collect()).await;
        if status.is_success() {
            Ok(())
        } else {
            Err(Failed::Status(status))
        }
    }
}

/// The innermost reason that says something.
fn why(error: &hyper_util::client::legacy::Error) -> Failed {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(inner) = cause {
        // An I/O error keeps ours inside.
        let io = inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let refused = inner
            .downcast_ref::<Refused>()
            .or_else(|| io?.downcast_ref::<Refused>());
        if let Some(refused) = refused {
            return match refused {
                Refused::Address(address) => Failed::Address(*address),
                Refused::Late(connect) => Failed::TimedOut(*connect),
            };
        }
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text.truncate(text.floor_char_boundary(WHY_BYTES_MAX));
    Failed::Connection(text)
}

/// Trusts whom the system trusts; read once, for all targets.
///
/// # Errors
/// If the system's certificates cannot be read at all.
pub fn system_tls() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let errors = found.errors;
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::warn!(
            ?errors,
            "no certificate authority is known to this system: https targets will fail"
        );
    }
    tls_with(roots)
}

/// Trusts these.
///
/// # Errors
/// If the provider knows no protocol version.
pub fn tls_with(roots: RootCertStore) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Looks names up and connects, only to addresses that are allowed.
#[derive(Debug, Clone)]
struct Connector {
    allow_private: bool,
    timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0} is not allowed")]
    Address(IpAddr),
    #[error("no connection within {} ms", .0.as_millis())]
    Late(Duration),
}

impl Connector {
    async fn connect(self, uri: Uri) -> io::Result<TokioIo<TcpStream>> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the URL names no host");
        let host = uri.host().ok_or_else(invalid)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("http") => 80,
            _ => 443,
        });
        // What is an address already comes back as it is, so names and addresses are judged at one place.
        let addresses = tokio::net::lookup_host((host, port)).await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match self.connect_to(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<TokioIo<TcpStream>> {
        if !self.allow_private && !is_public(address.ip()) {
            return Err(io::Error::other(Refused::Address(address.ip())));
        }
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(TokioIo::new(stream))
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (timeout, connector) = (self.timeout, self.clone());
        Box::pin(async move {
            let connected = tokio::time::timeout(timeout, connector.connect(uri)).await;
            connected.unwrap_or_else(|_| Err(io::Error::other(Refused::Late(timeout))))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Answers one request with this head and never ends its body; gone with the test.
    fn receiver(head: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            let _ = stream.read(&mut bytes);
            stream.write_all(head.as_bytes()).unwrap();
            // Until the other side hangs up.
            while stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
        });
        url
    }

    async fn delivered(head: &'static str) -> Result<(), Failed> {
        let target = Target {
            name: "shop".into(),
            url: receiver(head),
            secret: "0123456789abcdef".into(),
            secret_previous: None,
            allow_private: true,
            sales: vec![],
            types: vec![],
        };
        let timeouts = Timeouts {
            connect: Duration::from_secs(10),
            whole: Duration::from_millis(300),
        };
        let tls = tls_with(RootCertStore::empty()).unwrap();
        let deliverer = Deliverer::new(target, timeouts, tls).unwrap();
        deliverer.deliver("e1-1-1", "{}", 1).await
    }

    #[tokio::test]
    async fn the_status_decides_however_the_body_ends() {
        let good = delivered("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx").await;
        assert!(good.is_ok(), "{good:?}");
        let bad = delivered("HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nx").await;
        assert!(matches!(bad, Err(Failed::Status(_))), "{bad:?}");
        let none = delivered("HTTP/1.1 200 OK\r\n").await;
        assert!(matches!(none, Err(Failed::TimedOut(_))), "{none:?}");
    }
}
