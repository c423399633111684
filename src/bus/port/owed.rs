//! What the units at each port may still answer, kept by what the port really is.
//!
//! A bus is a name in the configuration; a port is a piece of hardware. The name can change, another bus can come in
//! its place, and the units behind the port answer all the same.
//!
//! Invariants
//! - Every bus of a daemon notes its requests in one book before their first byte leaves, and asks it before each of
//!   its own: what one bus has asked keeps every other bus on the same port silent until it can't be answered any more.
//! - A serial port is known by its device number and by the path that leads to it, a server's line by the address in
//!   the configuration and by who has answered there: it is the same port under another path or name, and an adapter
//!   that was pulled and came back under another number is the same by its path.
//! - What has lapsed is forgotten: the book holds no more than what was asked within one window.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What a port is, whatever a bus on it is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hardware {
    /// The device number of a character device.
    Device(u64),
    /// The path in the configuration, which may be of a port that isn't there.
    Path(PathBuf),
    /// `HOST:PORT` of a server that has a line of its own.
    Address(String),
}

impl Hardware {
    /// What a path of the system leads to now, if that is a device.
    pub fn of_device(path: &Path) -> Option<Hardware> {
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
        let found = std::fs::metadata(path).ok()?;
        found.file_type().is_char_device().then(|| Hardware::Device(found.rdev()))
    }
}

/// Who has asked: one bus with one set of settings.
type Asker = u64;

#[derive(Debug, Default)]
struct Book {
    /// Until when answers may come at a port to what somebody has asked.
    owed: BTreeMap<(Hardware, Asker), Instant>,
    askers: Asker,
}

/// The book of what is owed, shared by all buses of a daemon.
#[derive(Debug, Clone, Default)]
pub struct Owed(Arc<Mutex<Book>>);

impl Owed {
    /// Whether an answer may still come at any port.
    pub fn is_any(&self) -> bool {
        let now = Instant::now();
        self.book().owed.values().any(|until| *until > now)
    }

    /// For how long one may still come, to what was asked so far.
    pub fn lasts(&self) -> Duration {
        let now = Instant::now();
        self.book().owed.values().max().map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The page of somebody who will ask at one port.
    pub(in crate::bus) fn page(&self) -> Page {
        let mut book = self.book();
        book.askers += 1;
        Page { owed: self.clone(), asker: book.askers, port: Vec::new() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // What was noted is right, whoever panicked while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one bus notes and asks.
#[derive(Debug)]
pub(in crate::bus) struct Page {
    owed: Owed,
    asker: Asker,
    /// Everything that its port was known by since it began.
    port: Vec<Hardware>,
}

impl Page {
    /// The port is known by this too.
    pub(in crate::bus) fn is_at(&mut self, hardware: Hardware) {
        /// One port has a path, and a number each time it is plugged in: older ones are forgotten.
        const KNOWN_BY_MAX: usize = 8;
        if !self.port.contains(&hardware) {
            if self.port.len() == KNOWN_BY_MAX {
                self.port.remove(1);
            }
            self.port.push(hardware);
        }
    }

    /// Notes until when answers may come to what was asked here.
    pub(in crate::bus) fn note(&self, until: Option<Instant>) {
        let (mut book, now) = (self.owed.book(), Instant::now());
        book.owed.retain(|_, until| *until > now);
        for hardware in &self.port {
            let at = (hardware.clone(), self.asker);
            match until {
                Some(until) => book.owed.insert(at, until),
                None => book.owed.remove(&at),
            };
        }
    }

    /// Until when answers may come to what others have asked at this port.
    pub(in crate::bus) fn others_until(&self) -> Option<Instant> {
        let (book, now) = (self.owed.book(), Instant::now());
        let others = book
            .owed
            .iter()
            .filter(|((hardware, asker), until)| *asker != self.asker && **until > now && self.port.contains(hardware));
        others.map(|(_, until)| *until).max()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(owed: &Owed, hardware: &[Hardware]) -> Page {
        let mut page = owed.page();
        hardware.iter().for_each(|hardware| page.is_at(hardware.clone()));
        page
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_bus_is_owed_keeps_every_other_on_its_port_silent_and_no_one_else() {
        let owed = Owed::default();
        let (path, device) = (Hardware::Path("/dev/by-id/a".into()), Hardware::Device(4));
        let first = at(&owed, &[path.clone(), device.clone()]);
        let until = Instant::now() + 2 * SECOND;
        first.note(Some(until));
        assert!(owed.is_any());
        let renumbered = at(&owed, &[path, Hardware::Device(5)]);
        let by_another_name = at(&owed, &[Hardware::Path("/dev/ttyUSB0".into()), device]);
        let elsewhere = at(&owed, &[Hardware::Path("/dev/ttyUSB1".into()), Hardware::Device(6)]);
        assert_eq!(renumbered.others_until(), Some(until));
        assert_eq!(by_another_name.others_until(), Some(until));
        assert_eq!((elsewhere.others_until(), first.others_until()), (None, None));
        // It is owed whether or not there is a bus that was asked.
        drop(first);
        assert_eq!(renumbered.others_until(), Some(until));
        advance(2 * SECOND).await;
        assert_eq!((renumbered.others_until(), owed.is_any()), (None, false));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_paid_holds_nobody_and_the_book_forgets_what_has_lapsed() {
        let owed = Owed::default();
        let port = Hardware::Device(4);
        let other = at(&owed, std::slice::from_ref(&port));
        let page = at(&owed, std::slice::from_ref(&port));
        page.note(Some(Instant::now() + SECOND));
        page.note(None);
        assert_eq!(other.others_until(), None);
        for _ in 0..1000 {
            at(&owed, std::slice::from_ref(&port)).note(Some(Instant::now() + SECOND));
            advance(SECOND / 10).await;
        }
        assert!(owed.book().owed.len() <= 10, "{}", owed.book().owed.len());
    }

    #[tokio::test]
    async fn a_port_has_one_number_under_each_of_its_names() {
        use tokio_serial::SerialPort as _;
        let (_far, near) = tokio_serial::SerialStream::pair().unwrap();
        let port = PathBuf::from(near.name().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("adapter");
        std::os::unix::fs::symlink(&port, &link).unwrap();
        let device = Hardware::of_device(&port);
        assert!(device.is_some());
        assert_eq!(Hardware::of_device(&link), device);
        assert_ne!(Hardware::of_device(Path::new("/dev/null")), device);
        assert_eq!(Hardware::of_device(folder.path()), None);
        assert_eq!(Hardware::of_device(&folder.path().join("absent")), None);
    }
}
