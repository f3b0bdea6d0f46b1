//! A lean HTTP/1.1 client: one keep-alive connection, requests encoded once, answers parsed by hand.
//!
//! The generator shares its cores with the server that it measures, so it does as little as it can.
//! It says apart what never left from what may have arrived: that is what *unknown* hangs on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest head of an answer that is read.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Longest body of an answer that is read.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A connection that was idle for longer is looked at before it is used again.
const IDLE_UNCHECKED: Duration = Duration::from_secs(1);

/// A request, encoded.
#[derive(Debug, Clone)]
pub struct Request(Vec<u8>);

impl Request {
    /// Begins a request; `target` is path and query, already encoded.
    pub fn draft(method: &str, target: &str) -> Draft {
        Draft(format!("{method} {target} HTTP/1.1\r\nHost: stampede\r\n"))
    }

    /// Begins a GET.
    pub fn get(target: &str) -> Draft {
        Self::draft("GET", target)
    }

    /// Begins a POST.
    pub fn post(target: &str) -> Draft {
        Self::draft("POST", target)
    }

    /// What goes over the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A request that still takes headers.
#[derive(Debug, Clone)]
pub struct Draft(String);

impl Draft {
    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        for part in [name, ": ", value, "\r\n"] {
            self.0.push_str(part);
        }
        self
    }

    /// Adds `Authorization: Bearer`.
    pub fn bearer(self, credential: &str) -> Self {
        self.header("Authorization", "Bearer ").amend(credential)
    }

    /// Adds `Idempotency-Key`.
    pub fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    /// Ends it with a JSON body.
    pub fn json(self, body: &str) -> Request {
        let length = body.len().to_string();
        let mut draft = self
            .header("Content-Type", "application/json")
            .header("Content-Length", &length);
        draft.0.push_str("\r\n");
        draft.0.push_str(body);
        Request(draft.0.into_bytes())
    }

    /// Ends it without a body.
    pub fn bare(mut self) -> Request {
        self.0.push_str("\r\n");
        Request(self.0.into_bytes())
    }

    // Appends to the value of the header just written.
    fn amend(mut self, text: &str) -> Self {
        self.0.truncate(self.0.len() - 2);
        self.0.push_str(text);
        self.0.push_str("\r\n");
        self
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The body, chunks joined.
    pub body: Vec<u8>,
    head: Vec<u8>,
}

impl Response {
    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header_lines(&self.head)
            .find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
            .and_then(|(_, value)| str::from_utf8(value).ok())
    }

    /// Whether this is the answer of an earlier call with the same key.
    pub fn is_replay(&self) -> bool {
        self.header("Idempotency-Replayed") == Some("true")
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// A text field of the body; the first of that name at any depth.
    pub fn text_field(&self, name: &str) -> Option<&str> {
        let rest = &self.body[after_field(&self.body, name)?..];
        let rest = rest.strip_prefix(b"\"")?;
        let end = rest.iter().position(|byte| *byte == b'"')?;
        str::from_utf8(&rest[..end]).ok()
    }

    /// The body begins, at this field, with this text (`true`, `12` …).
    pub fn field_is(&self, name: &str, text: &str) -> bool {
        after_field(&self.body, name).is_some_and(|at| self.body[at..].starts_with(text.as_bytes()))
    }

    /// What was decided, in one word: `reserved` (201), `replayed` (200 to a purchase), the outcome of a
    /// problem, else the status.
    pub fn outcome(&self) -> String {
        match self.status {
            201 => "reserved".into(),
            200 if self.is_replay() => "replayed".into(),
            200 => "ok".into(),
            status => self
                .text_field("outcome")
                .map_or_else(|| format!("status_{status}"), str::to_owned),
        }
    }

    /// When it is worth asking again, if the server said.
    pub fn retry_after(&self) -> Option<Duration> {
        let at = after_field(&self.body, "retry_after_ms");
        let in_body = at.and_then(|at| {
            let digits = self.body[at..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit());
            digits
                .copied()
                .map(char::from)
                .collect::<String>()
                .parse()
                .ok()
        });
        in_body.map(Duration::from_millis).or_else(|| {
            let seconds = self.header("Retry-After")?.parse().ok()?;
            Some(Duration::from_secs(seconds))
        })
    }
}

/// Where the value of a field begins, spaces skipped.
fn after_field(body: &[u8], name: &str) -> Option<usize> {
    let (name, quoted_bytes) = (name.as_bytes(), name.len() + 2);
    let at = body.windows(quoted_bytes).position(|window| {
        window[0] == b'"' && window[quoted_bytes - 1] == b'"' && &window[1..=name.len()] == name
    })?;
    let mut at = at + quoted_bytes;
    for wanted in [Some(b':'), None] {
        while body.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        if let Some(wanted) = wanted {
            if body.get(at) != Some(&wanted) {
                return None;
            }
            at += 1;
        }
    }
    Some(at)
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendError {
    /// No connection: the server has not seen the request.
    NotSent(String),
    /// The connection went while the answer was awaited: the server may have seen it.
    Lost(String),
    /// No answer in time: the server may have seen it.
    TimedOut,
    /// Something came that is not HTTP/1.1.
    Garbled(&'static str),
}

impl SendError {
    /// Whether the server may have acted on the request.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::NotSent(_) => false,
            Self::Lost(_) | Self::TimedOut | Self::Garbled(_) => true,
        }
    }

    /// One word for counting.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "not_sent",
            Self::Lost(_) => "connection_lost",
            Self::TimedOut => "timed_out",
            Self::Garbled(_) => "garbled",
        }
    }
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "not sent: {why}"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Garbled(why) => write!(f, "not an HTTP/1.1 answer: {why}"),
        }
    }
}

impl std::error::Error for SendError {}

/// How long a client waits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For an answer, from the first byte sent.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
        }
    }
}

/// One keep-alive connection; it is made when first needed and again after it went.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    timeouts: Timeouts,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    used_at: Instant,
}

impl Client {
    /// For a server; connects at the first request.
    pub fn new(address: SocketAddr, timeouts: Timeouts) -> Self {
        Self {
            address,
            timeouts,
            stream: None,
            buffer: Vec::with_capacity(2048),
            used_at: Instant::now(),
        }
    }

    /// Connects now, so that the first request does not pay for it.
    ///
    /// # Errors
    /// [`SendError::NotSent`] if there is nobody.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the client without a connection.
    pub async fn connect(&mut self) -> Result<(), SendError> {
        if let Some(stream) = &self.stream {
            let is_stale = self.used_at.elapsed() > IDLE_UNCHECKED && has_ended(stream);
            if !is_stale {
                return Ok(());
            }
            self.stream = None;
        }
        let stream = timeout(self.timeouts.connect, TcpStream::connect(self.address))
            .await
            .map_err(|_| SendError::NotSent("no connection in time".into()))?
            .map_err(|error| SendError::NotSent(error.to_string()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| SendError::NotSent(error.to_string()))?;
        self.buffer.clear();
        self.stream = Some(stream);
        Ok(())
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`SendError`] says whether the server may have seen the request; the connection is then given up.
    ///
    /// # Cancel safety
    /// Dropping the future gives the connection up; the fate of the request is then unknown.
    pub async fn send(&mut self, request: &Request) -> Result<Response, SendError> {
        self.connect().await?;
        let mut stream = self
            .stream
            .take()
            .ok_or(SendError::Garbled("no connection"))?;
        let exchange = async {
            stream
                .write_all(&request.0)
                .await
                .map_err(|error| SendError::Lost(error.to_string()))?;
            read_response(&mut stream, &mut self.buffer).await
        };
        let (response, is_reusable) = timeout(self.timeouts.answer, exchange)
            .await
            .map_err(|_| SendError::TimedOut)
            .flatten()?;
        if is_reusable {
            self.stream = Some(stream);
            self.used_at = Instant::now();
        }
        Ok(response)
    }

    /// Sends a request that may be sent twice (a read, or one with a key), once more if the connection went.
    ///
    /// # Errors
    /// As [`Client::send`], of the second try.
    ///
    /// # Cancel safety
    /// As [`Client::send`].
    pub async fn send_again(&mut self, request: &Request) -> Result<Response, SendError> {
        match self.send(request).await {
            Err(SendError::Lost(_)) => self.send(request).await,
            other => other,
        }
    }

    /// Closes the connection, if there is one.
    pub fn disconnect(&mut self) {
        self.stream = None;
    }
}

fn has_ended(stream: &TcpStream) -> bool {
    let mut byte = [0; 1];
    match stream.try_read(&mut byte) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

async fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), SendError> {
    match stream.read_buf(buffer).await {
        Ok(0) => Err(SendError::Lost("closed by the server".into())),
        Ok(_) => Ok(()),
        Err(error) => Err(SendError::Lost(error.to_string())),
    }
}

async fn read_response(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<(Response, bool), SendError> {
    let (head, parsed) = loop {
        let Some(head_bytes) = head_end(buffer) else {
            if buffer.len() > HEAD_BYTES_MAX {
                return Err(SendError::Garbled("the head does not end"));
            }
            fill(stream, buffer).await?;
            continue;
        };
        let head: Vec<u8> = buffer.drain(..head_bytes).collect();
        let parsed = Head::parse(&head).ok_or(SendError::Garbled("a head that is none"))?;
        // 100 Continue and its like come before the answer.
        if parsed.status >= 200 {
            break (head, parsed);
        }
    };
    let body = match parsed.length {
        Length::Bytes(bytes) if bytes <= BODY_BYTES_MAX => {
            while buffer.len() < bytes {
                fill(stream, buffer).await?;
            }
            buffer.drain(..bytes).collect()
        }
        Length::Bytes(_) => return Err(SendError::Garbled("a body beyond all bounds")),
        Length::Chunked => read_chunks(stream, buffer).await?,
        Length::ToEnd => {
            while fill(stream, buffer).await.is_ok() && buffer.len() <= BODY_BYTES_MAX {}
            std::mem::take(buffer)
        }
    };
    let response = Response {
        status: parsed.status,
        body,
        head,
    };
    Ok((response, parsed.is_kept))
}

async fn read_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Vec<u8>, SendError> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream, buffer).await?;
        let size = str::from_utf8(&line)
            .ok()
            .and_then(|text| usize::from_str_radix(text.split(';').next()?.trim(), 16).ok())
            .filter(|size| body.len() + size <= BODY_BYTES_MAX)
            .ok_or(SendError::Garbled("a bad chunk"))?;
        if size == 0 {
            while !read_line(stream, buffer).await?.is_empty() {}
            return Ok(body);
        }
        while buffer.len() < size + 2 {
            fill(stream, buffer).await?;
        }
        body.extend(buffer.drain(..size));
        buffer.drain(..2);
    }
}

async fn read_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Vec<u8>, SendError> {
    loop {
        if let Some(end) = buffer.windows(2).position(|pair| pair == b"\r\n") {
            let line = buffer.drain(..end).collect();
            buffer.drain(..2);
            return Ok(line);
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(SendError::Garbled("a line that does not end"));
        }
        fill(stream, buffer).await?;
    }
}

enum Length {
    Bytes(usize),
    Chunked,
    ToEnd,
}

struct Head {
    status: u16,
    length: Length,
    is_kept: bool,
}

impl Head {
    fn parse(head: &[u8]) -> Option<Self> {
        let rest = head.strip_prefix(b"HTTP/1.1 ")?;
        let status = str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
        let mut parsed = Self {
            status,
            length: Length::ToEnd,
            is_kept: true,
        };
        for (name, value) in header_lines(head) {
            if name.eq_ignore_ascii_case(b"content-length") {
                parsed.length = Length::Bytes(str::from_utf8(value).ok()?.parse().ok()?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                parsed.length = Length::Chunked;
            } else if name.eq_ignore_ascii_case(b"connection")
                && value.eq_ignore_ascii_case(b"close")
            {
                parsed.is_kept = false;
            }
        }
        if matches!(status, 100..=199 | 204 | 304) {
            parsed.length = Length::Bytes(0);
        }
        if matches!(parsed.length, Length::ToEnd) {
            parsed.is_kept = false;
        }
        Some(parsed)
    }
}

/// Where the head ends, its blank line included.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn header_lines(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|byte| *byte == b'\n')
        .skip(1)
        .filter_map(|line| {
            let colon = line.iter().position(|byte| *byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
}

#[cfg(test)]
mod tests;
