//! A row of the ledger as people and scripts see it, and the two things that are read back of it to act on.

use rusqlite::{Row, ToSql};
use serde_json::{json, Value as Json};

use crate::command::outcome::{Code, Fault, Outcome, Report, State};
use crate::command::Envelope;
use crate::time::Timestamp;

/// What a person may say of one, bytes.
const NOTE_BYTES_MAX: usize = 1000;

/// Number of a row; grows in the order of first receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId(pub(super) i64);

impl RowId {
    /// Of a number that a person says.
    pub fn of(number: i64) -> RowId {
        RowId(number)
    }

    /// The number, as `list` shows it and `show` takes it.
    pub fn number(self) -> i64 {
        self.0
    }
}

/// That somebody has looked at what a command in doubt has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// When. [`Timestamp::UNKNOWN`]: the clock was not believed.
    pub at: Timestamp,
    /// The user who says so.
    pub by: String,
    /// What the user has found.
    pub note: Option<String>,
}

impl Resolution {
    /// That this user says so now.
    ///
    /// # Errors
    /// What is wrong with the note, in a sentence.
    pub fn new(at: Timestamp, by: String, note: Option<String>) -> Result<Resolution, String> {
        match note.as_ref().map(String::len) {
            Some(length) if length > NOTE_BYTES_MAX => {
                Err(format!("the note has {length} bytes, and {NOTE_BYTES_MAX} are kept; say it shorter"))
            }
            _ => Ok(Resolution { at, by, note }),
        }
    }
}

/// Who asked for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A message from the hub.
    Hub,
    /// A direct method.
    Method,
    /// A desired property of the device's twin.
    Twin,
    /// An operator at the gateway.
    Local {
        /// Who that was.
        user: String,
    },
}

impl Source {
    /// The word that stands for it everywhere.
    pub fn as_str(&self) -> &'static str {
        match self {
            Source::Hub => "hub",
            Source::Method => "method",
            Source::Twin => "twin",
            Source::Local { .. } => "local",
        }
    }

    /// Who the operator was.
    pub fn user(&self) -> Option<&str> {
        match self {
            Source::Local { user } => Some(user),
            Source::Hub | Source::Method | Source::Twin => None,
        }
    }
}

/// One command in the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its row.
    pub row: RowId,
    /// Host name of the hub, lower case.
    pub hub: String,
    /// Who asked for it.
    pub source: Source,
    /// Device id at the hub.
    pub device: String,
    /// The message's id.
    pub message_id: Option<String>,
    /// The command's name.
    pub command: Option<String>,
    /// The value that was asked for. Ledgers of before version 0.2 forgot it at the end of a command.
    pub requested: Option<Json>,
    /// Where it stands.
    pub state: State,
    /// Attempts on the wire that were begun.
    pub attempts: u32,
    /// How often the hub has delivered it.
    pub deliveries: i64,
    /// When it came first. [`Timestamp::UNKNOWN`]: the clock was not believed.
    pub received_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// What its message says of itself.
    pub envelope: Envelope,
    /// Its result.
    pub value: Option<Json>,
    /// Why it did not succeed.
    pub fault: Option<Fault>,
    /// That somebody has looked at what it has done, if it is in doubt.
    pub resolved: Option<Resolution>,
    /// What happened to it, oldest first.
    pub history: Vec<Json>,
}

/// A command that is not final: what must be known to go on with it after a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfinished {
    /// Its row.
    pub row: RowId,
    /// Host name of the hub, lower case.
    pub hub: String,
    /// Who asked for it.
    pub source: Source,
    /// Device id at the hub.
    pub device: String,
    /// The message's id.
    pub message_id: Option<String>,
    /// The command's name.
    pub command: String,
    /// Its value.
    pub value: Option<Json>,
    /// `accepted` or `executing`.
    pub state: State,
    /// A backup had it as accepted: it may have been executed since that was made.
    pub restored: bool,
    /// Attempts on the wire that were begun.
    pub attempts: u32,
    /// When it came first.
    pub received_at: Timestamp,
    /// `$.exp`.
    pub expires_at: Option<Timestamp>,
    /// What its message says of itself.
    pub envelope: Envelope,
}

/// What an event is of, as its property `fieldbridge` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The end of a command.
    Result,
    /// What a peripheral has said by itself. No ledger holds it.
    News,
    /// What polls have read. A store of its own holds it.
    Telemetry,
    /// That some of that is lost.
    TelemetryGap,
}

impl EventKind {
    /// Its name at the hub.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Result => "command-result",
            EventKind::News => "event",
            EventKind::Telemetry => "telemetry",
            EventKind::TelemetryGap => "telemetry-gap",
        }
    }
}

/// The first number of what no ledger holds: the ledger's own never come so far.
pub const NEWS_FROM: i64 = 1 << 62;

/// An event that the hub has not acknowledged yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What it is of.
    pub kind: EventKind,
    /// Its number; grows, from 1 on. Of what no ledger holds it begins at [`NEWS_FROM`].
    pub seq: i64,
    /// The id under which it is published: the same however often that happens.
    pub id: String,
    /// The command's message id, if it is of one.
    pub message_id: Option<String>,
    /// The body, JSON.
    pub body: String,
}

impl Record {
    /// The columns that [`Record::from_row`] reads, in its order.
    pub const COLUMNS: &str =
        "device, message_id, name, state, attempts, deliveries, received_at, finished_at, value, \
                               error_code, error_message, modbus_exception, history, id, \
                               (SELECT host FROM hub WHERE hub.id = command.hub), source, user, requested, \
                               correlation_id, sequence_number, enqueued_at, delivery_count, \
                               resolved_at, resolved_by, resolution";

    /// Reads a row of [`Record::COLUMNS`].
    ///
    /// # Errors
    /// A column holds what no ledger of ours has written there.
    pub fn from_row(row: &Row) -> rusqlite::Result<Record> {
        let fault = match row.get::<_, Option<String>>(9)? {
            None => None,
            Some(code) => Some(Fault {
                code: known(9, &code, Code::from_name)?,
                message: row.get::<_, Option<String>>(10)?.unwrap_or_default(),
                modbus_exception: row.get(11)?,
            }),
        };
        let history: String = row.get(12)?;
        Ok(Record {
            row: RowId(row.get(13)?),
            hub: row.get(14)?,
            source: source(row, 15, 16)?,
            requested: json_column(row, 17)?,
            envelope: envelope(row, 18)?,
            device: row.get(0)?,
            message_id: row.get(1)?,
            command: row.get(2)?,
            state: state(row, 3)?,
            attempts: row.get(4)?,
            deliveries: row.get(5)?,
            received_at: Timestamp(row.get(6)?),
            finished_at: row.get::<_, Option<i64>>(7)?.map(Timestamp),
            value: json_column(row, 8)?,
            resolved: resolution(row, 22)?,
            fault,
            history: history.lines().filter_map(|line| serde_json::from_str(line).ok()).collect(),
        })
    }

    /// How it ended, and the result event of that. `None`: it has not.
    pub fn end(&self) -> Option<(Outcome, Json)> {
        let finished_at = self.finished_at?;
        let outcome = Outcome { state: self.state, value: self.value.clone(), fault: self.fault.clone() };
        let report = Report {
            message_id: self.message_id.as_deref(),
            command: self.command.as_deref(),
            requested: self.requested.as_ref(),
            envelope: &self.envelope,
            attempts: self.attempts,
            received_at: self.received_at,
            finished_at,
        };
        let event = report.to_event(&outcome);
        Some((outcome, event))
    }

    /// As `ledger list --json` prints it.
    pub fn to_json(&self) -> Json {
        json!({
            "row": self.row.0,
            "hub": self.hub,
            "device": self.device,
            "messageId": self.message_id,
            "source": self.source.as_str(),
            "user": self.source.user(),
            "command": self.command,
            "requested": self.requested,
            "state": self.state.as_str(),
            "attempts": self.attempts,
            "deliveries": self.deliveries,
            "receivedAt": self.received_at.known().map(|at| at.to_string()),
            "finishedAt": self.finished_at.map(|at| at.to_string()),
            "correlationId": self.envelope.correlation_id,
            "sequenceNumber": self.envelope.sequence_number,
            "enqueuedAt": self.envelope.enqueued_at.map(|at| at.to_string()),
            "deliveryCount": self.envelope.delivery_count,
            "value": self.value,
            "error": self.fault.as_ref().map(Fault::to_json),
            "resolved": self.resolved.as_ref().map(|resolved| {
                let at = resolved.at.known().map(|at| at.to_string());
                json!({ "at": at, "by": resolved.by, "note": resolved.note })
            }),
        })
    }

    /// As `ledger show --json` prints it: the row and its history.
    pub fn to_json_with_history(&self) -> Json {
        let mut json = self.to_json();
        json["history"] = self.history.clone().into();
        json
    }
}

impl Unfinished {
    /// The columns that [`Unfinished::from_row`] reads, in its order.
    pub const COLUMNS: &str = "id, device, message_id, name, requested, state, attempts, received_at, expires_at, \
                               (SELECT host FROM hub WHERE hub.id = command.hub), source, user, \
                               correlation_id, sequence_number, enqueued_at, delivery_count, \
                               state = 'accepted' AND id <= (SELECT restored FROM ledger)";

    /// Reads a row of [`Unfinished::COLUMNS`].
    ///
    /// # Errors
    /// A column holds what no ledger of ours has written there.
    pub fn from_row(row: &Row) -> rusqlite::Result<Unfinished> {
        Ok(Unfinished {
            row: RowId(row.get(0)?),
            hub: row.get(9)?,
            source: source(row, 10, 11)?,
            device: row.get(1)?,
            message_id: row.get(2)?,
            command: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
            value: json_column(row, 4)?,
            state: state(row, 5)?,
            restored: row.get(16)?,
            attempts: row.get(6)?,
            received_at: Timestamp(row.get(7)?),
            expires_at: row.get::<_, Option<i64>>(8)?.map(Timestamp),
            envelope: envelope(row, 12)?,
        })
    }
}

impl ToSql for RowId {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

/// The four columns of an envelope, in a row.
pub(super) fn envelope(row: &Row, first: usize) -> rusqlite::Result<Envelope> {
    let number: Option<i64> = row.get(first + 1)?;
    let number = number.map(|n| u64::try_from(n).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(first + 1, n)));
    Ok(Envelope {
        correlation_id: row.get(first)?,
        sequence_number: number.transpose()?,
        enqueued_at: row.get::<_, Option<i64>>(first + 2)?.map(Timestamp),
        delivery_count: row.get(first + 3)?,
    })
}

fn resolution(row: &Row, first: usize) -> rusqlite::Result<Option<Resolution>> {
    let Some(at) = row.get::<_, Option<i64>>(first)?.map(Timestamp) else { return Ok(None) };
    let by: Option<String> = row.get(first + 1)?;
    Ok(Some(Resolution { at, by: by.unwrap_or_default(), note: row.get(first + 2)? }))
}

fn state(row: &Row, column: usize) -> rusqlite::Result<State> {
    known(column, &row.get::<_, String>(column)?, State::from_name)
}

fn source(row: &Row, column: usize, user: usize) -> rusqlite::Result<Source> {
    let user: Option<String> = row.get(user)?;
    known(column, &row.get::<_, String>(column)?, |name| match name {
        "hub" => Some(Source::Hub),
        "method" => Some(Source::Method),
        "twin" => Some(Source::Twin),
        "local" => Some(Source::Local { user: user.clone().unwrap_or_default() }),
        _ => None,
    })
}

fn json_column(row: &Row, column: usize) -> rusqlite::Result<Option<Json>> {
    match row.get::<_, Option<String>>(column)? {
        None => Ok(None),
        Some(text) => known(column, &text, |text| serde_json::from_str(text).ok()).map(Some),
    }
}

/// What we wrote is one of ours; anything else is damage, and is said so with its column.
fn known<T>(column: usize, text: &str, parse: impl Fn(&str) -> Option<T>) -> rusqlite::Result<T> {
    parse(text).ok_or_else(|| {
        let why = format!("column {column} holds {text:?}, which no fieldbridge wrote");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
    })
}
