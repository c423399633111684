//! The thread that owns a connection for all that only reads: it waits for no commit, and no commit waits for it.
//!
//! Invariants
//! - It sees every commit that somebody was told of: SQLite shows a reader that begins what was committed before.
//! - What it reads is one state of the ledger, and never for longer than one question takes: the log can be emptied.
//! - An error that damage may be behind ends the process, like the writer's (G9).

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::condition::{classify, Condition};
use super::LedgerError;

/// What is asked, and answers its caller by itself.
pub(super) type Question = Box<dyn FnOnce(&Connection) -> Result<(), LedgerError> + Send>;

/// A question, which tells its caller the answer by itself.
pub(super) enum Look {
    Question(Question),
    /// Close the connection.
    Stop(oneshot::Sender<()>),
}

impl Look {
    /// A question, and where its answer will be.
    pub(super) fn new<T: Send + 'static>(
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> (Look, oneshot::Receiver<Result<T, LedgerError>>) {
        let (reply, answer) = oneshot::channel();
        let question = move |db: &Connection| {
            let read = || {
                let state = db.unchecked_transaction()?;
                let answer = work(&state)?;
                state.commit()?;
                Ok(answer)
            };
            let found = read().map_err(|error: rusqlite::Error| classify("reading", &error));
            let outcome = found.as_ref().map(|_| ()).map_err(LedgerError::clone);
            // A caller that is gone does not want to know.
            let _ = reply.send(found);
            outcome
        };
        (Look::Question(Box::new(question)), answer)
    }
}

/// The reader and its queue.
pub(super) struct Reading {
    pub(super) db: Connection,
    pub(super) queue: mpsc::Receiver<Look>,
    pub(super) condition: Condition,
}

impl Reading {
    /// Serves on this thread until it is told to stop, every handle is gone, or the file can't be trusted any more.
    pub(super) fn run(mut self) {
        while let Some(look) = self.queue.blocking_recv() {
            let Some(goes_on) = self.serve(look) else { return };
            self = goes_on;
        }
    }

    /// The same among the other tasks of a simulation, whose disk takes `latency` for each question.
    #[cfg(feature = "proof")]
    pub(super) async fn run_among_tasks(mut self, latency: impl Fn() -> std::time::Duration) {
        while let Some(look) = self.queue.recv().await {
            tokio::time::sleep(latency()).await;
            let Some(goes_on) = self.serve(look) else { return };
            self = goes_on;
        }
    }

    fn serve(self, look: Look) -> Option<Reading> {
        match look {
            Look::Question(question) => match question(&self.db) {
                Ok(()) => Some(self),
                Err(error) => {
                    self.condition.tell(&error);
                    (!matches!(error, LedgerError::Failed(_))).then_some(self)
                }
            },
            Look::Stop(done) => {
                drop(self);
                let _ = done.send(());
                None
            }
        }
    }
}
