//! Commands that are done once: the answer to an idempotency key is written with its effects, and given again for ever.

use flash_types::Timestamp;
use flash_types::side::{SideAnswer, SideProblem};
use sha2::{Digest as _, Sha256};

use crate::SideError;
use crate::sql::{Get as _, Reads as _, Tx, query};

/// A key that was taken in a transaction; [`Taken::answered`] writes the answer into the same one.
#[derive(Debug)]
pub struct Taken {
    scope: String,
    key: String,
}

/// What [`take`] found.
#[derive(Debug)]
pub enum Take {
    /// Go on.
    Fresh(Taken),
    /// It was done: its answer.
    Replay(SideAnswer),
}

/// Takes a key. Two calls with one key: the second waits for the first (or is told to try again) and finds its answer.
/// A refusal is not remembered, since its transaction is rolled back: the same key may win later.
///
/// `scope` tells whose key it is and for what: `POST /v1/orders|storefront`. `body` is what must not differ.
///
/// # Errors
/// 422 `idempotency_key_reused` for another body; the database's.
pub async fn take(
    tx: &mut Tx,
    scope: &str,
    key: &str,
    body: &[u8],
    now: Timestamp,
) -> Result<Take, SideError> {
    let fingerprint = hex(&Sha256::digest(body));
    let insert = query(
        "INSERT INTO command (scope, key, fingerprint, at_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    );
    let insert = insert
        .bind(scope.to_owned())
        .bind(key.to_owned())
        .bind(fingerprint.clone())
        .bind(now.0);
    if tx.execute(insert).await? == 1 {
        let (scope, key) = (scope.to_owned(), key.to_owned());
        return Ok(Take::Fresh(Taken { scope, key }));
    }
    let select =
        query("SELECT fingerprint, status, answer FROM command WHERE scope = $1 AND key = $2");
    let row = tx
        .row(select.bind(scope.to_owned()).bind(key.to_owned()))
        .await?;
    // It was there a moment ago and nothing removes it.
    let row = row.ok_or(crate::sql::SqlError::Conflict)?;
    if row.text("fingerprint")? != fingerprint {
        return Err(SideProblem::new(
            422,
            "idempotency_key_reused",
            "this Idempotency-Key was used with another body: take a new one",
        )
        .into());
    }
    let (status, answer) = (row.int_or_null("status")?, row.text_or_null("answer")?);
    let answered = status.zip(answer).ok_or(crate::sql::SqlError::Conflict)?;
    Ok(Take::Replay(SideAnswer {
        // What was done is not made again: 201 becomes 200.
        status: if answered.0 == 201 {
            200
        } else {
            u16::try_from(answered.0).unwrap_or(200)
        },
        content_type: "application/json",
        body: answered.1.into_bytes(),
        is_replay: true,
        location: None,
    }))
}

impl Taken {
    /// Writes the answer down; the caller commits.
    ///
    /// # Errors
    /// The database's.
    pub async fn answered(self, tx: &mut Tx, answer: &SideAnswer) -> Result<(), SideError> {
        let update =
            query("UPDATE command SET status = $1, answer = $2 WHERE scope = $3 AND key = $4");
        let update = update
            .bind(i64::from(answer.status))
            .bind(String::from_utf8_lossy(&answer.body).into_owned())
            .bind(self.scope)
            .bind(self.key);
        tx.execute(update).await?;
        Ok(())
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes from what [`hex`] made of them.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    // Signs, capitals and another length do not come back the same.
    (hex(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_come_back_as_the_bytes_that_they_are() {
        let mut bytes = [7; 32];
        bytes[31] = 0xff;
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        let digits = hex(&bytes);
        for bad in [
            "".to_owned(),
            digits[..62].to_owned(),
            format!("{digits}0"),
            digits.to_uppercase(),
            digits.replacen("07", "+7", 1),
            digits.replacen('0', "é", 1),
        ] {
            assert_eq!(unhex(&bad), None, "{bad}");
        }
    }
}
