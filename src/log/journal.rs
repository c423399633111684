//! The journal, spoken to in its own protocol ("Native Journal Protocol" of systemd), so that it has the device, the
//! bus, the command, the message and the outcome of a line as fields: `journalctl FIELDBRIDGE_DEVICE=pump-7`.
//!
//! Invariants
//! - What somebody else has named or said is one value of one field, whatever it holds: it can't add another field.
//! - A journal that takes nothing holds things up once, for [`PATIENCE`]: that line is lost, and so are those after it
//!   until it takes one again.
//! - Where there is no journal, lines go to standard error as they would without this.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::FormatFields as _;
use tracing_subscriber::layer::{Context, Layer};

use super::events;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Names another, for a test.
const SOCKET_VARIABLE: &str = "FIELDBRIDGE_JOURNAL_SOCKET";
/// How long a line waits for the journal.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a value: a datagram of all of them stays below what a socket takes at once.
const VALUE_BYTES_MAX: usize = 8 << 10;
/// Fields of a line.
const FIELDS_MAX: usize = 16;

/// A layer that sends each line to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    /// Whether it has not taken the last line.
    is_deaf: AtomicBool,
}

impl Journal {
    /// The journal, if standard error goes there, and it listens.
    pub(super) fn of_this_service() -> Option<Journal> {
        // systemd sets JOURNAL_STREAM to device and inode of what it gave, and what is inherited by others may have
        // been led elsewhere since (systemd.exec(5)).
        let given = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
        if given != format!("{}:{}", stderr.dev(), stderr.ino()) {
            return None;
        }
        let path = std::env::var_os(SOCKET_VARIABLE).map_or_else(|| PathBuf::from(SOCKET), PathBuf::from);
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        path.exists().then_some(Journal { socket, path, is_deaf: AtomicBool::new(false) })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let entry = entry(event);
        match self.socket.send_to(&entry.bytes, &self.path) {
            Ok(_) if self.is_deaf.swap(false, Relaxed) => drop(self.socket.set_nonblocking(false)),
            Ok(_) => {}
            // It is being started anew, or gone: whoever holds the other end of standard error may keep it.
            Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                let _ = writeln!(io::stderr(), "<{}>{}", priority(*event.metadata().level()), entry.message);
            }
            Err(_) if !self.is_deaf.swap(true, Relaxed) => drop(self.socket.set_nonblocking(true)),
            Err(_) => {}
        }
    }
}

/// The priorities of syslog(3).
pub(super) fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

/// A line in the journal's protocol.
#[derive(Default)]
struct Entry {
    bytes: Vec<u8>,
    message: String,
    fields: usize,
}

fn entry(event: &Event<'_>) -> Entry {
    let metadata = event.metadata();
    let mut entry = Entry::default();
    // As it stands everywhere else, so that who reads it needs no fields. Writing to a string does not fail.
    let mut message = String::new();
    let _ = DefaultFields::new().format_fields(Writer::new(&mut message), event);
    entry.put("MESSAGE", &message);
    entry.message = message.replace('\n', " ");
    entry.put("PRIORITY", &priority(*metadata.level()).to_string());
    entry.put("SYSLOG_IDENTIFIER", "fieldbridge");
    if let Some(id) = events::id(metadata.name()) {
        entry.put("MESSAGE_ID", id);
        entry.put("FIELDBRIDGE_EVENT", metadata.name());
    }
    event.record(&mut entry);
    entry
}

impl Entry {
    /// Adds a field. A value with a line break goes with its length before it, and no value can end early.
    fn put(&mut self, name: &str, value: &str) {
        let end = (0..=VALUE_BYTES_MAX.min(value.len())).rev().find(|end| value.is_char_boundary(*end));
        let value = &value.as_bytes()[..end.unwrap_or_default()];
        self.bytes.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            self.bytes.push(b'\n');
            self.bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.bytes.push(b'=');
        }
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    /// Adds what a line says of itself.
    fn say(&mut self, field: &Field, value: &str) {
        let name = match field.name() {
            "message" => return,
            // What it is called where outcomes are told.
            "state" => "OUTCOME".to_owned(),
            name => name.to_uppercase(),
        };
        // Names of fields come from this source, and the journal takes no others.
        let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if is_name && self.fields < FIELDS_MAX {
            self.fields += 1;
            self.put(&format!("FIELDBRIDGE_{name}"), value);
        }
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.say(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.say(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_line_breaks_is_one_value() {
        let mut entry = Entry::default();
        entry.put("A", "one");
        entry.put("B", "two\nPRIORITY=0");
        assert_eq!(entry.bytes, b"A=one\nB\n\x0e\0\0\0\0\0\0\0two\nPRIORITY=0\n");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let mut entry = Entry::default();
        entry.put("A", &"é".repeat(VALUE_BYTES_MAX));
        assert_eq!(entry.bytes.len(), VALUE_BYTES_MAX + 3);
        assert!(std::str::from_utf8(&entry.bytes).is_ok());
    }
}
