//! The thread that alone touches the file: it opens it, writes what waits, loads what goes next.
//!
//! Invariants
//! - What is wrong with the file is said once, and once more when it is right again: when something could be written,
//!   or nothing was to be and it could have been. What can be read on a full disk shows nothing.
//! - A file that can't be had now is tried again with each writing: what waits meanwhile stays in memory, bounded.
//! - After the last writing the file is closed, and others may have it.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use tokio::sync::oneshot;

use super::file::{move_aside, File, Trouble};
use super::life::{self, Before, Owed};
use super::shelf::Load;
use super::store::Inner;

/// What it is asked for.
pub(super) enum Job {
    /// To write what waits.
    Write,
    Load(Load),
    /// To write what waits, and say that it has: nothing more is asked for.
    Finish(oneshot::Sender<()>),
}

/// Its work.
pub(super) struct Keeper {
    inner: Weak<Inner>,
    path: PathBuf,
    file: Option<File>,
    /// What is wrong, as it was said.
    said: Option<String>,
    /// The mark of this life was made.
    has_begun: bool,
    /// Devices that were polled when it began: what a crash before has lost may be theirs.
    polled: Vec<Arc<str>>,
}

impl Keeper {
    pub(super) fn new(inner: Weak<Inner>, path: PathBuf, polled: Vec<Arc<str>>) -> Keeper {
        Keeper { inner, path, file: None, said: None, has_begun: false, polled }
    }

    /// Works until nobody is left who could ask for something.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let Some(inner) = self.inner.upgrade() else { return };
            match job {
                Job::Write => self.write(&inner),
                Job::Load(load) => self.load(&inner, &load),
                Job::Finish(done) => {
                    self.write(&inner);
                    self.end_life(&inner);
                    drop(self.file.take());
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn write(&mut self, inner: &Arc<Inner>) {
        inner.note_written();
        let is_in_trouble = self.said.is_some();
        let outcome = self.opened(inner).and_then(|file| {
            let (plan, max_size) = {
                let shelf = inner.shelf();
                (shelf.plan(), shelf.settings.max_size)
            };
            if !plan.is_empty() {
                let dropped = file.write(&plan, max_size)?;
                let stored = file.stored()?;
                inner.shelf().written(&plan, &dropped, stored);
            } else if is_in_trouble {
                file.try_out()?;
            }
            Ok(())
        });
        self.judge(inner, outcome);
    }

    fn load(&mut self, inner: &Arc<Inner>, load: &Load) {
        match self.opened(inner).and_then(|file| file.load(load)) {
            Ok(found) => inner.shelf().loaded(load, Some(found)),
            Err(trouble) => {
                inner.shelf().loaded(load, None);
                self.judge(inner, Err(trouble));
            }
        }
    }

    /// The file, opened if it is not yet.
    fn opened(&mut self, inner: &Arc<Inner>) -> Result<&mut File, Trouble> {
        if self.file.is_none() {
            let file = File::open(&self.path)?;
            let contents = file.contents()?;
            let mut shelf = inner.shelf();
            shelf.begin_with(contents.last, contents.stored, contents.gaps);
            drop(shelf);
            self.file = Some(file);
            if !std::mem::replace(&mut self.has_begun, true) {
                let owed = match life::begin(&self.path) {
                    Before::InOrder => Owed::new(),
                    Before::Owing(owed) => owed,
                    Before::WithoutAWord => self.polled.drain(..).map(|device| (device, None)).collect(),
                };
                inner.shelf().owe_word_of_a_crash(owed);
            }
        }
        self.file.as_mut().ok_or_else(|| Trouble::Passing("it is not open".into()))
    }

    /// Nothing that was read is in memory only: what could not be written leaves the mark as after a crash. Who could
    /// not be told of an earlier one is noted in it.
    fn end_life(&self, inner: &Inner) {
        let shelf = inner.shelf();
        if self.has_begun && !shelf.has_to_write() {
            life::end(&self.path, &shelf.owes_word_of_a_crash());
        }
    }

    /// Says what is wrong, once, and moves a damaged file aside.
    fn judge(&mut self, inner: &Arc<Inner>, outcome: Result<(), Trouble>) {
        inner.shelf().note_known();
        let Err(trouble) = outcome else {
            if self.said.take().is_some() {
                tracing::info!(path = %self.path.display(), "the store of telemetry can be written again");
            }
            return inner.set_trouble(None);
        };
        let why = trouble.told(&self.path);
        if let Trouble::Damaged(_) = trouble {
            self.file = None;
            inner.shelf().file_is_lost();
            match move_aside(&self.path) {
                Ok(aside) => {
                    let aside = aside.display();
                    tracing::warn!(
                        "{why}: it is moved to {aside}, and what it held of telemetry does not get to the hub"
                    );
                    return;
                }
                Err(error) => {
                    let why = format!("{why}, and can't be moved aside ({error}); remove it");
                    return self.say(inner, why);
                }
            }
        }
        self.say(inner, why);
    }

    fn say(&mut self, inner: &Arc<Inner>, why: String) {
        inner.set_trouble(Some(why.clone()));
        if self.said.is_none() {
            tracing::warn!(
                "{why}; telemetry waits in memory meanwhile, as far as there is room; commands go on as ever"
            );
            self.said = Some(why);
        }
    }
}
