//! The client log: what was sent, what was told, and what was seen afterwards. Append-only.
//!
//! Every attempt is noted before it is sent; one without an answer is *unknown*. In memory for the checker, and,
//! where a file is named, one JSON object a line for people.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::client::{Response, SendError};

/// One line of a purchase: item and units, lines of one item summed, sorted by item.
pub type Line = (String, u32);

/// What was attempted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Attempt {
    /// A purchase.
    Purchase {
        /// The sale.
        sale: String,
        /// Who bought.
        buyer: String,
        /// Under which key.
        key: String,
        /// What.
        lines: Vec<Line>,
    },
    /// A payment.
    Confirm {
        /// Of which reservation.
        reservation: String,
        /// Under which name.
        payment_ref: String,
    },
    /// Giving up.
    Cancel {
        /// Which reservation.
        reservation: String,
    },
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// 201 or 200: from now on it must be there.
    Yes {
        /// 201 or 200.
        status: u16,
        /// The reservation.
        reservation: String,
    },
    /// A no: this attempt changed nothing.
    No {
        /// The status.
        status: u16,
        /// The outcome of the problem.
        outcome: String,
    },
    /// 504, a time-out, a lost connection, an answer that is none: applied or not.
    Unknown {
        /// Which of them.
        why: String,
        /// The reservation that a 504 named.
        reservation: Option<String>,
    },
    /// Never left: no connection.
    NotSent,
}

impl Answer {
    /// Reads an answer of the server, or its absence.
    pub fn of(result: &Result<Response, SendError>) -> Self {
        let unknown = |why: &str, response: Option<&Response>| Self::Unknown {
            why: why.to_owned(),
            reservation: response
                .and_then(|response| response.text_field("reservation_id"))
                .map(str::to_owned),
        };
        let response = match result {
            Ok(response) => response,
            Err(SendError::NotSent(_)) => return Self::NotSent,
            Err(error) => return unknown(error.word(), None),
        };
        match (response.status, response.text_field("reservation_id")) {
            (200 | 201, Some(reservation)) => Self::Yes {
                status: response.status,
                reservation: reservation.to_owned(),
            },
            // A yes that names nothing is no yes; a 5xx without a problem of ours says nothing.
            (200..=399, _) => unknown("no_reservation", Some(response)),
            (504, _) => unknown("504", Some(response)),
            (500.., _)
                if response
                    .text_field("outcome")
                    .is_none_or(|word| word == "internal") =>
            {
                unknown("bare_5xx", Some(response))
            }
            (status, _) => Self::No {
                status,
                outcome: response.outcome(),
            },
        }
    }
}

/// What a read by key showed: whether the key won, and what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// The sale.
    pub sale: String,
    /// The buyer.
    pub buyer: String,
    /// The key.
    pub key: String,
    /// The reservation, if the key won.
    pub reservation: Option<String>,
    /// How many attempts had been noted when it was read.
    pub after_attempts: usize,
}

/// An attempt and what came of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Milliseconds since the Unix epoch.
    pub sent_at_ms: u64,
    /// What was attempted.
    pub attempt: Attempt,
    /// What came of it; `None` while, or for ever if, unanswered.
    pub answer: Option<Answer>,
}

impl Entry {
    /// Whether the server may or may not have acted on it.
    pub fn is_unknown(&self) -> bool {
        match &self.answer {
            None | Some(Answer::Unknown { .. }) => true,
            Some(Answer::Yes { .. } | Answer::No { .. } | Answer::NotSent) => false,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Written<'a> {
    Sent(&'a Attempt),
    Answered(&'a Answer),
    Seen(&'a Sight),
}

#[derive(Serialize)]
struct WrittenLine<'a> {
    at_ms: u64,
    number: usize,
    #[serde(flatten)]
    written: Written<'a>,
}

#[derive(Default)]
struct Inner {
    is_off: bool,
    entries: Vec<Entry>,
    sights: Vec<Sight>,
    file: Option<std::io::BufWriter<std::fs::File>>,
    file_error: Option<String>,
}

impl Inner {
    fn write(&mut self, number: usize, at_ms: u64, written: Written<'_>) {
        let Some(file) = &mut self.file else { return };
        let line = WrittenLine {
            at_ms,
            number,
            written,
        };
        let written = serde_json::to_writer(&mut *file, &line)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"));
        if let Err(error) = written {
            self.file_error = Some(error.to_string());
            self.file = None;
        }
    }
}

/// The log of one crowd; shared by all its connections.
#[derive(Default)]
pub struct ClientLog(Mutex<Inner>);

impl ClientLog {
    /// In memory alone.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Keeps nothing: for crowds whose answers nobody holds against the books.
    pub fn off() -> Self {
        Self(Mutex::new(Inner {
            is_off: true,
            ..Inner::default()
        }))
    }

    /// In memory and, line by line, in a file that is made anew.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn in_file(path: &Path) -> std::io::Result<Self> {
        let file = std::io::BufWriter::new(std::fs::File::create(path)?);
        Ok(Self(Mutex::new(Inner {
            file: Some(file),
            ..Inner::default()
        })))
    }

    /// Notes an attempt that is about to be sent; gives its number.
    pub fn sent(&self, attempt: Attempt) -> usize {
        let at_ms = now_ms();
        let mut inner = self.0.lock();
        if inner.is_off {
            return 0;
        }
        let number = inner.entries.len();
        inner.write(number, at_ms, Written::Sent(&attempt));
        inner.entries.push(Entry {
            sent_at_ms: at_ms,
            attempt,
            answer: None,
        });
        number
    }

    /// Notes what came of an attempt.
    pub fn answered(&self, number: usize, answer: Answer) {
        let mut inner = self.0.lock();
        inner.write(number, now_ms(), Written::Answered(&answer));
        if let Some(entry) = inner.entries.get_mut(number) {
            entry.answer = Some(answer);
        }
    }

    /// Notes what a read by key showed; fills in after how many attempts.
    pub fn seen(&self, sale: &str, buyer: &str, key: &str, reservation: Option<String>) {
        let mut inner = self.0.lock();
        let sight = Sight {
            sale: sale.to_owned(),
            buyer: buyer.to_owned(),
            key: key.to_owned(),
            reservation,
            after_attempts: inner.entries.len(),
        };
        let number = inner.sights.len();
        inner.write(number, now_ms(), Written::Seen(&sight));
        inner.sights.push(sight);
    }

    /// Attempts so far.
    pub fn len(&self) -> usize {
        self.0.lock().entries.len()
    }

    /// Whether nothing was attempted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the attempts from a number on.
    pub fn entries_from(&self, number: usize) -> Vec<Entry> {
        self.0
            .lock()
            .entries
            .get(number..)
            .unwrap_or_default()
            .to_vec()
    }

    /// A copy of all attempts.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries_from(0)
    }

    /// A copy of all reads by key.
    pub fn sights(&self) -> Vec<Sight> {
        self.0.lock().sights.clone()
    }

    /// Purchases that are sent and not answered.
    pub fn unanswered_purchases(&self) -> usize {
        let inner = self.0.lock();
        let is_open = |entry: &&Entry| {
            entry.answer.is_none() && matches!(entry.attempt, Attempt::Purchase { .. })
        };
        inner.entries.iter().filter(is_open).count()
    }

    /// Brings the file up to date.
    ///
    /// # Errors
    /// Of this or an earlier write.
    pub fn flush(&self) -> std::io::Result<()> {
        let mut inner = self.0.lock();
        if let Some(error) = &inner.file_error {
            return Err(std::io::Error::other(error.clone()));
        }
        inner.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_without_an_answer_is_unknown_and_the_file_tells_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.jsonl");
        let log = ClientLog::in_file(&path).unwrap();
        let purchase = |key: &str| Attempt::Purchase {
            sale: "s".into(),
            buyer: "b".into(),
            key: key.into(),
            lines: vec![("i".into(), 2)],
        };
        let first = log.sent(purchase("k1"));
        let second = log.sent(purchase("k2"));
        log.answered(
            second,
            Answer::No {
                status: 409,
                outcome: "sold_out".into(),
            },
        );
        assert_eq!(log.unanswered_purchases(), 1);
        let entries = log.entries();
        assert!(entries[first].is_unknown() && !entries[second].is_unknown());
        log.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["sent"]["key"], "k1");
        assert_eq!(lines[2]["answered"]["outcome"], "sold_out");
        assert_eq!(lines[2]["number"], 1);
    }

    #[test]
    fn only_a_problem_of_ours_is_a_no() {
        let lost = Answer::of(&Err(SendError::Lost("reset".into())));
        assert!(matches!(lost, Answer::Unknown { .. }));
        assert_eq!(
            Answer::of(&Err(SendError::NotSent("refused".into()))),
            Answer::NotSent
        );
    }
}
