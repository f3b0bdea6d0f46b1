//! What strace wrote, as system calls in the order in which they began and ended; and the proof that hangs on it.

use std::collections::HashMap;

/// One system call.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// As strace writes them: strings quoted and escaped.
    pub arguments: String,
    /// What follows ` = `.
    pub result: String,
    /// Line at which it began.
    pub begins: usize,
    /// Line at which it ended.
    pub ends: usize,
}

impl Call {
    /// The first argument: a descriptor and what it stands for.
    fn descriptor(&self) -> &str {
        self.arguments
            .split_once('>')
            .map_or("", |(descriptor, _)| descriptor)
    }

    fn is_on_log(&self) -> bool {
        self.descriptor().ends_with("stampede.db-wal")
    }

    pub fn is_flush_of_log(&self) -> bool {
        matches!(self.name.as_str(), "fdatasync" | "fsync") && self.is_on_log()
    }

    fn is_write_of_log(&self) -> bool {
        self.name == "pwrite64" && self.is_on_log()
    }

    fn is_sent(&self) -> bool {
        matches!(
            self.name.as_str(),
            "write" | "writev" | "sendto" | "sendmsg"
        )
    }

    /// The header of a frame that ends a transaction: 24 bytes, of which the second four are not zero.
    fn is_commit_mark(&self) -> bool {
        let bytes = self.is_write_of_log().then(|| self.bytes());
        bytes.is_some_and(|bytes| bytes.len() == 24 && bytes[4..8] != [0; 4])
    }

    /// The first string among the arguments, unescaped.
    fn bytes(&self) -> Vec<u8> {
        let Some((_, quoted)) = self.arguments.split_once('"') else {
            return Vec::new();
        };
        unescape(quoted)
    }
}

fn unescape(quoted: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = quoted.bytes().peekable();
    while let Some(byte) = rest.next() {
        let plain = match byte {
            b'"' => break,
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 0x0b,
                Some(b'f') => 0x0c,
                Some(digit @ b'0'..=b'7') => {
                    let mut value = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(digit) = rest.next_if(|next| (b'0'..=b'7').contains(next)) else {
                            break;
                        };
                        value = value * 8 + u32::from(digit - b'0');
                    }
                    u8::try_from(value).unwrap()
                }
                Some(other) => other,
                None => break,
            },
            plain => plain,
        };
        bytes.push(plain);
    }
    bytes
}

/// Reads a trace. Calls that never ended are left out.
pub fn parse(text: &str) -> Vec<Call> {
    let mut open: HashMap<&str, (String, String, usize)> = HashMap::new();
    let mut calls = Vec::new();
    for (line_no, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        let (begun, tail) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((_, tail)) = resumed.split_once(" resumed>") else {
                continue;
            };
            match open.remove(thread) {
                Some(begun) => (begun, tail),
                None => continue,
            }
        } else if let Some((name, tail)) = rest.split_once('(') {
            ((name.to_owned(), String::new(), line_no), tail)
        } else {
            continue;
        };
        let (name, mut arguments, begins) = begun;
        if let Some(tail) = tail.strip_suffix("<unfinished ...>") {
            arguments.push_str(tail);
            open.insert(thread, (name, arguments, begins));
            continue;
        }
        let (tail, result) = tail.rsplit_once(" = ").unwrap_or((tail, "?"));
        arguments.push_str(tail);
        calls.push(Call {
            name,
            arguments,
            result: result.to_owned(),
            begins,
            ends: line_no,
        });
    }
    calls.sort_by_key(|call| call.begins);
    calls
}

/// Proves of every 201 in a trace: between the arrival of its request and the 201, the batch that holds its key was
/// written to the log, and a flush of the log that began after the last write of that batch ended well. Gives how
/// many 201 there were.
pub fn prove_flushed_before_201(calls: &[Call]) -> Result<usize, String> {
    let writes: Vec<&Call> = calls.iter().filter(|call| call.is_write_of_log()).collect();
    let flushes: Vec<&Call> = calls.iter().filter(|call| call.is_flush_of_log()).collect();
    let yeses = calls
        .iter()
        .filter(|call| call.is_sent() && call.arguments.contains("\"HTTP/1.1 201 "));
    let mut proved = 0;
    for yes in yeses {
        let request = calls.iter().rev().find(|call| {
            matches!(call.name.as_str(), "read" | "recvfrom")
                && call.ends < yes.begins
                && call.descriptor() == yes.descriptor()
                && call.arguments.contains("\"POST /v1/")
        });
        let Some(request) = request else {
            return Err(format!("line {}: a 201 without a request", yes.begins));
        };
        if !request.arguments.contains("/purchases ") {
            continue; // A sale that was made.
        }
        let key = request
            .arguments
            .split_once("Idempotency-Key: ")
            .and_then(|(_, rest)| rest.split_once('\\'))
            .map(|(key, _)| key)
            .ok_or_else(|| format!("line {}: a purchase without a key", request.begins))?;
        prove_one(key, request, yes, &writes, &flushes)?;
        proved += 1;
    }
    Ok(proved)
}

fn prove_one(
    key: &str,
    request: &Call,
    yes: &Call,
    writes: &[&Call],
    flushes: &[&Call],
) -> Result<(), String> {
    let why = |what: &str| format!("201 of {key} at line {}: {what}", yes.begins);
    let page = writes
        .iter()
        .position(|write| write.begins > request.ends && write.arguments.contains(key))
        .ok_or_else(|| why("its row was never written to the log"))?;
    // A frame is its header, then its page.
    let mark = (page.saturating_sub(1)..writes.len())
        .find(|index| writes[*index].is_commit_mark())
        .ok_or_else(|| why("its batch has no commit mark"))?;
    let last = writes
        .get(mark + 1)
        .ok_or_else(|| why("its last frame has no page"))?;
    let flush = flushes
        .iter()
        .find(|flush| flush.begins > last.ends)
        .ok_or_else(|| why("no flush began after its batch was written"))?;
    if flush.ends >= yes.begins {
        return Err(why("it left before the flush ended"));
    }
    if flush.result.trim() != "0" {
        return Err(why(&format!("the flush ended with {}", flush.result)));
    }
    Ok(())
}

#[test]
fn a_201_that_leaves_too_early_is_found() {
    let request = r#"1 recvfrom(9<socket:[5]>, "POST /v1/sales/s1/purchases HTTP/1.1\r\nIdempotency-Key: k1z\r\n\r\n", 99) = 9"#;
    let header = r#"2 pwrite64(5</d/stampede.db-wal>, "\0\0\0\2\0\0\0\7\1\2\3\4\1\2\3\4\1\2\3\4\1\2\3\4", 24, 32) = 24"#;
    let page = r#"2 pwrite64(5</d/stampede.db-wal>, "\1b1k1z\0", 4096, 56) = 4096"#;
    let flush = "2 fdatasync(5</d/stampede.db-wal>) = 0";
    let yes = r#"1 sendto(9<socket:[5]>, "HTTP/1.1 201 Created\r\n", 22, 0, NULL, 0) = 22"#;
    let prove = |lines: &[&str]| prove_flushed_before_201(&parse(&lines.join("\n")));
    assert_eq!(prove(&[request, header, page, flush, yes]), Ok(1));
    assert!(prove(&[request, flush, header, page, yes]).is_err());
    assert!(prove(&[request, header, page, yes, flush]).is_err());
    assert!(prove(&[request, header, flush, page, yes]).is_err());
    assert!(prove(&[header, page, flush, request, yes]).is_err());
    let failed = "2 fdatasync(5</d/stampede.db-wal>) = -1 EIO (Input/output error) (INJECTED)";
    assert!(prove(&[request, header, page, failed, yes]).is_err());
    let begun = "2 fdatasync(5</d/stampede.db-wal> <unfinished ...>";
    let ended = "2 <... fdatasync resumed>) = 0";
    assert_eq!(prove(&[request, header, page, begun, ended, yes]), Ok(1));
    assert!(prove(&[request, header, page, begun, yes, ended]).is_err());
}
