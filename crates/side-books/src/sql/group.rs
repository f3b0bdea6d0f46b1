//! Group commit on SQLite: transactions that wait for their turn to write share one flush.
//!
//! There is one writer. Whoever has the turn runs its statements; done, it leaves them uncommitted and waits, and the turn
//! goes to the next in line. A finisher, which queued when the first of them was done, commits when its turn comes, so a
//! group is whoever was in line by then: one alone commits at once, many share a flush, and nobody lingers. Each but the
//! first is a savepoint, so one that is rolled back takes nobody along.
//!
//! Nobody is told that it is committed before the one `COMMIT` came back. A connection that is given up before it was sent
//! changed nothing: all of the group are told [`SqlError::Conflict`], and try again.
// closed -> open (the first unit) -> closed (committed, rolled back alone, or given up).

use std::sync::Arc;

use sqlx::AnyPool;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::{Instant, timeout_at};

use super::SqlError;
use super::doubt::Doubt;
use super::transaction::{Bound, Ground, Held, ROLLBACK_LONGEST};

/// Longest that a commit may take after the last statement before it.
const COMMIT_LONGEST: std::time::Duration = std::time::Duration::from_secs(5);

/// The line of those who want to write.
#[derive(Clone)]
pub(super) struct Writer {
    turn: Arc<Mutex<Group>>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer(..)")
    }
}

/// What was done since the last commit.
struct Group {
    pool: AnyPool,
    doubt: Arc<Doubt>,
    open: Option<Open>,
    /// Counts groups: a finisher knows its own.
    number: u64,
}

struct Open {
    held: Held,
    /// Who is done and waits for the commit.
    members: Vec<oneshot::Sender<Fate>>,
}

/// What became of a group. [`SqlError`] cannot be told twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    NotDone,
    Full,
    Unknown,
}

impl Fate {
    fn told(self) -> Result<(), SqlError> {
        match self {
            Self::Committed => Ok(()),
            Self::NotDone => Err(SqlError::Conflict),
            Self::Full => Err(SqlError::Full),
            Self::Unknown => Err(SqlError::Unknown),
        }
    }
}

impl Open {
    fn tell(&mut self, fate: Fate) {
        for member in self.members.drain(..) {
            // Whoever waited may have left; the commit stands.
            let _ = member.send(fate);
        }
    }
}

/// Given up on any way: nobody waits for ever.
impl Drop for Open {
    fn drop(&mut self) {
        self.tell(Fate::NotDone);
    }
}

/// The turn to write.
pub(super) struct Turn {
    /// There until the turn is given on.
    group: Option<OwnedMutexGuard<Group>>,
    is_first: bool,
    deadline: Instant,
}

impl Writer {
    pub(super) fn new(pool: AnyPool, doubt: Arc<Doubt>) -> Self {
        Self {
            turn: Arc::new(Mutex::new(Group {
                pool,
                doubt,
                open: None,
                number: 0,
            })),
        }
    }

    /// Waits for the turn until `patience`, and opens a group where none is open.
    pub(super) async fn begin(
        &self,
        patience: Instant,
        deadline: Instant,
    ) -> Result<Turn, SqlError> {
        let mut group = timeout_at(patience, Arc::clone(&self.turn).lock_owned())
            .await
            .map_err(|_| SqlError::Unavailable("all of its time is taken by others".to_owned()))?;
        let is_first = group.open.is_none();
        if is_first {
            let connection = group.pool.acquire().await?;
            let mut held = Held::new(connection, Bound::Until(deadline), Arc::clone(&group.doubt));
            held.say("BEGIN IMMEDIATE").await?;
            held.ground = Ground::Open;
            group.number += 1;
            group.open = Some(Open {
                held,
                members: Vec::new(),
            });
        }
        let mut turn = Turn {
            group: Some(group),
            is_first,
            deadline,
        };
        if !is_first {
            turn.held()?.say("SAVEPOINT unit").await?;
        }
        Ok(turn)
    }

    /// Commits the group of that number when the turn comes, unless another end came first.
    async fn finish(self, number: u64) {
        let mut group = self.turn.lock_owned().await;
        if group.number != number {
            return;
        }
        let Some(mut open) = group.open.take() else {
            return;
        };
        open.held.bound = Bound::Each(COMMIT_LONGEST);
        let fate = match open.held.say("COMMIT").await {
            Ok(()) => {
                open.held.ground = Ground::Clean;
                Fate::Committed
            }
            Err(SqlError::TimedOut | SqlError::Unavailable(_) | SqlError::Unknown) => Fate::Unknown,
            Err(SqlError::Full) => Fate::Full,
            Err(SqlError::Conflict | SqlError::Violated(_) | SqlError::Broken(_)) => Fate::NotDone,
        };
        open.tell(fate);
    }
}

impl Turn {
    /// The connection; what fails on it so that it is given up ends the group.
    pub(super) fn held(&mut self) -> Result<&mut Held, SqlError> {
        let deadline = self.deadline;
        let open = self.group.as_mut().and_then(|group| group.open.as_mut());
        let held = &mut open.ok_or(SqlError::TimedOut)?.held;
        held.bound = Bound::Until(deadline);
        Ok(held)
    }

    /// After a failure: where the connection was given up, so is the group.
    pub(super) fn look(&mut self) {
        if let Some(group) = &mut self.group
            && group.open.as_ref().is_some_and(|open| open.held.is_gone())
        {
            group.open = None;
        }
    }

    /// Leaves what was done to the group, and waits for its commit.
    pub(super) async fn commit(mut self, writer: &Writer) -> Result<(), SqlError> {
        if !self.is_first {
            let released = self.held()?.say("RELEASE unit").await;
            self.look();
            released?;
        }
        let Some(mut group) = self.group.take() else {
            return Err(SqlError::TimedOut);
        };
        let number = group.number;
        let open = group.open.as_mut().ok_or(SqlError::TimedOut)?;
        let (member, fate) = oneshot::channel();
        open.members.push(member);
        if open.members.len() == 1 {
            // A task of its own: whoever waits may leave.
            tokio::spawn(writer.clone().finish(number));
        }
        drop(group);
        match timeout_at(self.deadline, fate).await {
            Ok(Ok(fate)) => fate.told(),
            // It is always told, but for a runtime that ends.
            Ok(Err(_)) | Err(_) => Err(SqlError::Unknown),
        }
    }

    /// Takes back what was done, and nothing of the others.
    pub(super) async fn rollback(mut self) {
        if let Some(group) = self.group.take() {
            undo(group, self.is_first).await;
        }
    }
}

/// Dropped: rolled back in a task of its own, which keeps the turn until then.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut group) = self.group.take() else {
            return;
        };
        let is_doubtful = |open: &Open| open.held.ground == Ground::Doubtful;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            group.open = None;
            return;
        };
        if group.open.as_ref().is_some_and(is_doubtful) {
            // In the middle of a statement: nobody knows what of it happened.
            group.open = None;
        } else {
            runtime.spawn(undo(group, self.is_first));
        }
    }
}

async fn undo(mut group: OwnedMutexGuard<Group>, is_first: bool) {
    let Some(open) = group.open.as_mut() else {
        return;
    };
    open.held.bound = Bound::Each(ROLLBACK_LONGEST);
    let undone = if is_first {
        open.held.say("ROLLBACK").await
    } else {
        match open.held.say("ROLLBACK TO unit").await {
            Ok(()) => open.held.say("RELEASE unit").await,
            failed => failed,
        }
    };
    if undone.is_err() {
        // SQLite may have rolled back everything by itself (no space, an input or output error).
        open.held.give_up();
        group.open = None;
    } else if is_first {
        open.held.ground = Ground::Clean;
        group.open = None;
    }
}
