//! The ledger, read from outside with SQL of the simulation's own: what would be left of it if the power went now.

use std::path::Path;
use std::sync::{Arc, Mutex};

use fieldbridge::hub::mqtt::topic;
use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

use super::disk::{SimDisk, VFS};
use super::scenario::Message;
use super::vfs;
use super::world::World;

/// Where the gateway's ledger lies.
pub const PATH: &str = "/sim/ledger.db";
/// Where its remains are looked at.
const REMAINS: &str = "/remains/ledger.db";

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub hub: String,
    pub device: String,
    pub message_id: Option<String>,
    pub digest: Vec<u8>,
    pub state: String,
    pub error: Option<String>,
    /// A direct method asked for it.
    pub is_call: bool,
}

impl Row {
    /// Whether its state is a final one.
    pub fn is_final(&self) -> bool {
        !matches!(self.state.as_str(), "accepted" | "executing")
    }
}

impl Row {
    /// Whether it is of the same message.
    pub fn is_of_the_same(&self, other: &Row) -> bool {
        (&self.hub, &self.device, &self.message_id, &self.digest)
            == (&other.hub, &other.device, &other.message_id, &other.digest)
    }
}

/// What ledgers knew that the gateway no longer has.
#[derive(Debug, Default)]
pub struct Lost {
    /// Rows that the one in its place does not have, or has in another state.
    pub rows: Vec<Row>,
    /// Rows of messages that the one in its place knows nothing of.
    pub forgotten: Vec<Row>,
    /// Rows that the last backup had as accepted.
    pub accepted: Vec<Row>,
    known: Vec<Row>,
}

impl Lost {
    /// A ledger with these rows is replaced by one with those.
    pub fn replaced(&mut self, had: &[Row], by: &[Row]) {
        self.known.extend_from_slice(had);
        // Without an id one row may look like another.
        let mut kept = by.to_vec();
        let is_lost = |row: &&Row| match kept.iter().position(|kept| kept == *row) {
            Some(at) => {
                kept.swap_remove(at);
                false
            }
            None => true,
        };
        self.rows.extend(had.iter().filter(is_lost).cloned());
        let is_forgotten = |row: &&Row| !by.iter().any(|kept| kept.is_of_the_same(row));
        self.forgotten.extend(self.known.iter().filter(is_forgotten).cloned());
        self.accepted = by.iter().filter(|row| row.state == "accepted").cloned().collect();
    }
}

/// Who looks into the ledger behind the gateway's back.
pub struct Witness {
    world: Arc<World>,
    disk: Arc<SimDisk>,
    /// Whether it looks at every acknowledgement and effect: it costs time.
    looks: bool,
    /// The rows that the ledger had which was lost last, and when it was.
    lost: Mutex<Option<(Instant, Vec<Row>)>>,
}

impl Witness {
    /// Of a disk.
    pub fn new(world: &Arc<World>, disk: &Arc<SimDisk>, looks: bool) -> Arc<Witness> {
        Arc::new(Witness { world: world.clone(), disk: disk.clone(), looks, lost: Mutex::default() })
    }

    /// What would be left: the rows of messages, and the number of events in the outbox.
    pub fn remains(&self) -> Result<(Vec<Row>, i64), String> {
        let (mut rows, events) = self.all_remains()?;
        rows.retain(|row| !row.is_call);
        Ok((rows, events))
    }

    /// The same with the rows of calls.
    pub fn all_remains(&self) -> Result<(Vec<Row>, i64), String> {
        let log = self.disk.durable(Path::new(&format!("{PATH}-wal")));
        match self.disk.durable(Path::new(PATH)) {
            Some(file) => self.read(file, log),
            None => Ok((Vec::new(), 0)),
        }
    }

    /// What a ledger has, of which this is the file, and its log if it has one.
    pub fn read(&self, file: Vec<u8>, log: Option<Vec<u8>>) -> Result<(Vec<Row>, i64), String> {
        let scratch = SimDisk::new(&self.world_of_the_dead());
        scratch.place(Path::new(REMAINS), file);
        if let Some(log) = log {
            scratch.place(Path::new(&format!("{REMAINS}-wal")), log);
        }
        vfs::mount("/remains", Some(scratch));
        let read = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let db = Connection::open_with_flags_and_vfs(REMAINS, flags, VFS)?;
            let mut rows = db.prepare(
                "SELECT device, message_id, digest, state, error_code, host, source = 'method'
                     FROM command JOIN hub ON hub.id = hub WHERE source <> 'local' ORDER BY command.id",
            )?;
            let rows = rows.query_map([], |row| {
                Ok(Row {
                    device: row.get(0)?,
                    message_id: row.get(1)?,
                    digest: row.get(2)?,
                    state: row.get(3)?,
                    error: row.get(4)?,
                    hub: row.get(5)?,
                    is_call: row.get(6)?,
                })
            })?;
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            Ok((rows, db.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0))?))
        };
        let found = read().map_err(|error: rusqlite::Error| error.to_string());
        vfs::mount("/remains", None);
        found
    }

    /// A world in which the reader of the remains lives.
    fn world_of_the_dead(&self) -> Arc<World> {
        let world = World::new(0, false);
        world.begin_life(None);
        world
    }

    /// The ledger is lost now, with these rows.
    pub fn note_lost(&self, rows: &[Row]) {
        *self.lost.lock().expect("nobody panics") = Some((Instant::now(), rows.to_vec()));
    }

    /// What was durable of a message when something was sent for it. On its way that may outlive the ledger.
    fn rows_of(&self, message: &Message, sent: Instant) -> Vec<Row> {
        let digest = digest(message);
        let lost = self.lost.lock().expect("nobody panics").clone().filter(|(at, _)| sent <= *at);
        match lost.map_or_else(|| self.all_remains().map(|(rows, _)| rows), |(_, rows)| Ok(rows)) {
            Ok(rows) => rows
                .into_iter()
                .filter(|row| row.hub == message.hub && row.device == message.device && row.message_id == message.id)
                // No message has the id of a call.
                .filter(|row| row.is_call || row.digest == digest)
                .collect(),
            Err(error) => {
                self.world.violate(format!("G9: what is durable of the ledger can't be read: {error}"));
                Vec::new()
            }
        }
    }

    /// The gateway completes a message: the row that this stands on must be durable (G1).
    pub fn expect_settled(&self, message: &Message) {
        if !self.looks || message.id.is_none() {
            return;
        }
        self.world.count("witness: rows behind a PUBACK");
        let rows = self.rows_of(message, Instant::now());
        if !rows.iter().any(|row| row.is_final() || message.after_accept) {
            self.world.violate(format!("G1: PUBACK for {message:?}, and durable is {rows:?}"));
        }
    }

    /// The gateway answers a call, with its end or that this will be told: the row that this stands on must be durable.
    pub fn expect_answered(&self, message: &Message, is_end: bool) {
        if !self.looks {
            return;
        }
        self.world.count("witness: rows behind an answer");
        let rows = self.rows_of(message, Instant::now());
        if !rows.iter().any(|row| row.is_final() || !is_end) {
            self.world.violate(format!("G1: an answer to {message:?}, and durable is {rows:?}"));
        }
    }

    /// A peripheral does what it must not do twice: that it may have been done must be durable (G3).
    /// It may have been sent several times, and by several hubs. Where a report may have been taken for its answer, it
    /// may be over before it was done.
    pub fn expect_executing(&self, alike: &[&Message], sent: Instant, may_be_over: bool) {
        if !self.looks {
            return;
        }
        self.world.count("witness: rows behind an effect");
        let rows: Vec<Row> = alike.iter().flat_map(|message| self.rows_of(message, sent)).collect();
        if !rows.iter().any(|row| row.state == "executing" || may_be_over && row.is_final()) {
            self.world.violate(format!("G3: {alike:?} on the wire, and durable is {rows:?}"));
        }
    }
}

/// The digest under which a message stands in the ledger.
pub fn digest(message: &Message) -> Vec<u8> {
    topic::parse_c2d(&message.device, message.topic().as_bytes(), &message.body).digest().to_vec()
}
