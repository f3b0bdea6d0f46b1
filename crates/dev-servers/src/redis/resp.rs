//! One command and its reply in the protocol of Redis (RESP 2), by the standard library alone.
//!
//! Kept apart from the client that the project uses, so that a test does not ask the thing that it tests.

use std::io::{BufRead, Read, Write};

use anyhow::{Context, bail};

/// A bulk string longer than this is no reply to a test.
const BULK_BYTES_MAX: usize = 64 << 20;

/// What a missing value reads like.
const NIL: &str = "(nil)";

/// Writes a command.
pub fn send(stream: &mut impl Write, words: &[&str]) -> anyhow::Result<()> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream
        .write_all(request.as_bytes())
        .context("sending a command")
}

/// Reads one reply as text: strings as they are, integers as digits, arrays one element a line, `(nil)`.
///
/// # Errors
/// If the server answers with an error, which is then the whole message; if it does not answer.
pub fn receive(stream: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).context("reading a reply")?;
    let Some(line) = line.strip_suffix("\r\n") else {
        bail!("the reply broke off after {line:?}");
    };
    let Some((kind, rest)) = line.split_at_checked(1) else {
        bail!("an empty reply");
    };
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => bail!("{rest}"),
        "$" => bulk(stream, rest.parse().context("the length of a string")?),
        "*" => {
            let elements: i64 = rest.parse().context("the length of an array")?;
            if elements < 0 {
                return Ok(NIL.to_owned());
            }
            let lines: Vec<_> = (0..elements)
                .map(|_| receive(stream))
                .collect::<anyhow::Result<_>>()?;
            Ok(lines.join("\n"))
        }
        _ => bail!("not a reply: {line:?}"),
    }
}

fn bulk(stream: &mut impl Read, bytes: i64) -> anyhow::Result<String> {
    if bytes < 0 {
        return Ok(NIL.to_owned());
    }
    let bytes = usize::try_from(bytes)?;
    if bytes > BULK_BYTES_MAX {
        bail!("a reply of {bytes} bytes");
    }
    let mut text = vec![0; bytes + "\r\n".len()];
    stream
        .read_exact(&mut text)
        .context("reading the rest of a reply")?;
    text.truncate(bytes);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut reply: &[u8]) -> Result<String, String> {
        receive(&mut reply).map_err(|error| error.to_string())
    }

    #[test]
    fn replies_are_rendered_as_text() {
        assert_eq!(read(b"+OK\r\n"), Ok("OK".into()));
        assert_eq!(read(b":-7\r\n"), Ok("-7".into()));
        assert_eq!(read(b"$4\r\na\r\nb\r\n"), Ok("a\r\nb".into()));
        assert_eq!(read(b"$-1\r\n"), Ok("(nil)".into()));
        assert_eq!(read(b"*0\r\n"), Ok(String::new()));
        assert_eq!(
            read(b"*3\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n$-1\r\n"),
            Ok("a\n1\n2\n(nil)".into())
        );
        assert_eq!(read(b"-ERR no\r\n"), Err("ERR no".into()));
        assert!(read(b"$4\r\nab").is_err());
        assert!(read(b"").is_err());
    }
}
