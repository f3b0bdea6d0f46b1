//! Watches the bytes of a connection for heads that two parsers could read differently.
//!
//! hyper frames correctly, but forgives a line that ends without a carriage return, two Content-Lengths of one
//! value, and a Content-Length beside a Transfer-Encoding. Behind a proxy that reads them otherwise each of these
//! smuggles requests. The scanner follows the same stream and names the first such byte; whoever reads then hands
//! hyper a byte that it refuses with 400. It also knows whether a request is there as a whole.
//!
//! Invariant: it never lets through what it does not understand; after a chunked body it stops looking, since the
//! answer to such a request closes the connection.

use flash_types::bounds;

/// Where the stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a head, or before one.
    Head,
    /// So many bytes of a body are still to come.
    Body(u64),
    /// Nothing that follows is looked at.
    Blind,
}

/// Follows one connection.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    /// The beginning of a line whose end has not arrived.
    carry: Vec<u8>,
    head_bytes: usize,
    content_length: Option<u64>,
    is_chunked: bool,
}

/// The place in what was fed from which on nothing may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous {
    /// Bytes before it are good.
    pub(crate) good: usize,
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            carry: Vec::new(),
            head_bytes: 0,
            content_length: None,
            is_chunked: false,
        }
    }

    /// Everything that was begun has arrived.
    pub(crate) fn is_between_requests(&self) -> bool {
        self.state == State::Head && self.head_bytes == 0
    }

    /// Takes the next bytes of the stream.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Blind => return Ok(()),
                State::Body(missing) => {
                    let here = missing.min((bytes.len() - at) as u64);
                    at += here as usize;
                    self.state = match missing - here {
                        0 => State::Head,
                        left => State::Body(left),
                    };
                }
                State::Head => at = self.lines(bytes, at)?,
            }
        }
        Ok(())
    }

    /// Takes lines up to the end of a head, or what there is; gives how far it came.
    fn lines(&mut self, bytes: &[u8], mut at: usize) -> Result<usize, Ambiguous> {
        let from = at;
        for length in memchr::memchr_iter(b'\n', &bytes[from..]) {
            let end = from + length;
            self.head_bytes += end + 1 - at;
            let line = &bytes[at..end];
            // Most lines are whole, end well and are none of those that frame a body.
            let is_plain = self.carry.is_empty()
                && matches!(line, [first, .., b'\r'] if !matches!(first, b'c' | b'C' | b't' | b'T'));
            if !is_plain {
                self.line(line).ok_or(Ambiguous { good: at })?;
            }
            at = end + 1;
            if self.head_bytes == 0 {
                return Ok(at);
            }
        }
        self.keep(&bytes[at..]);
        Ok(bytes.len())
    }

    /// Keeps the beginning of a line. A head longer than the parser takes is its to refuse: nothing more is looked at.
    fn keep(&mut self, part: &[u8]) {
        self.head_bytes += part.len();
        if self.head_bytes > 2 * bounds::HEAD_BYTES_MAX {
            self.state = State::Blind;
            self.carry = Vec::new();
        } else {
            self.carry.extend_from_slice(part);
        }
    }

    /// One more line of the head, its line feed left out; `None` if it is ambiguous.
    fn line(&mut self, end: &[u8]) -> Option<()> {
        if self.carry.is_empty() {
            return self.whole_line(end);
        }
        let mut line = std::mem::take(&mut self.carry);
        line.extend_from_slice(end);
        self.whole_line(&line)
    }

    fn whole_line(&mut self, line: &[u8]) -> Option<()> {
        let line = line.strip_suffix(b"\r")?;
        match line.first() {
            None => self.blank_line(),
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length:") {
                    // Whether it is a number is the parser's to judge; here it has to be the only one.
                    let length = str::from_utf8(value.trim_ascii()).ok()?.parse().ok()?;
                    if self.is_chunked || self.content_length.replace(length).is_some() {
                        return None;
                    }
                }
            }
            Some(b't' | b'T') => {
                if value_of(line, b"transfer-encoding:").is_some() {
                    if self.content_length.is_some() {
                        return None;
                    }
                    self.is_chunked = true;
                }
            }
            Some(_) => {}
        }
        Some(())
    }

    fn blank_line(&mut self) {
        // Empty lines before a request line are skipped, as the parser does.
        if self.head_bytes > 2 {
            self.state = match (self.is_chunked, self.content_length.take()) {
                (true, _) => State::Blind,
                (false, Some(length)) if length > 0 => State::Body(length),
                (false, _) => State::Head,
            };
        }
        self.head_bytes = 0;
        self.is_chunked = false;
    }
}

/// The value of a header line of that name (lower case, with its colon).
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds it whole and cut at every place: the verdict may not depend on the cut.
    fn verdict(stream: &[u8]) -> Option<usize> {
        let whole = Scanner::new().feed(stream).err().map(|bad| bad.good);
        for cut in 0..stream.len() {
            let mut scanner = Scanner::new();
            let first = scanner.feed(&stream[..cut]);
            let is_bad = first.is_err() || scanner.feed(&stream[cut..]).is_err();
            assert_eq!(is_bad, whole.is_some(), "cut at {cut}");
        }
        whole
    }

    #[test]
    fn good_streams_pass() {
        for good in [
            "GET / HTTP/1.1\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\n\nxx\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\nxx",
        ] {
            assert_eq!(verdict(good.as_bytes()), None, "{good:?}");
        }
    }

    #[test]
    fn ambiguous_heads_are_named() {
        for (bad, good) in [
            ("GET / HTTP/1.1\n\r\n", 0),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 16),
            ("GET / HTTP/1.1\r\n\n", 16),
            ("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n", 18),
            (
                "P / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
                33,
            ),
            (
                "P / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                33,
            ),
            (
                "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
                42,
            ),
            ("P / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", 14),
            ("P / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 14),
            ("P / HTTP/1.1\r\nContent-Length: \r\n\r\n", 14),
        ] {
            assert_eq!(verdict(bad.as_bytes()), Some(good), "{bad:?}");
        }
    }

    #[test]
    fn it_knows_when_a_request_is_whole() {
        let mut scanner = Scanner::new();
        for (part, is_whole) in [
            ("POST / HT", false),
            ("TP/1.1\r\nContent-Length: 3\r\n\r\n", false),
            ("ab", false),
            ("c", true),
            ("\r\n", true),
            ("GET / HTTP/1.1\r\n\r\n", true),
        ] {
            assert_eq!(scanner.feed(part.as_bytes()), Ok(()));
            assert_eq!(scanner.is_between_requests(), is_whole, "{part:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept_for_ever() {
        let mut scanner = Scanner::new();
        for _ in 0..1_000 {
            assert_eq!(scanner.feed(&[b'x'; 1_000]), Ok(()));
        }
        assert!(scanner.carry.capacity() < 64 * 1024);
    }
}
