//! What is known of a message or a call by what stands in the file: the SQL of a look-up. It writes nothing.

use rusqlite::{params, Connection, OptionalExtension};
use serde_json::Value as Json;

use super::row::RowId;
use super::Lookup;
use crate::command::decide::Known;
use crate::command::message::Digest;
use crate::command::method;
use crate::command::outcome::State;

/// As long as a hub keeps a message at most, s.
const MESSAGE_LIFE: i64 = 2 * 86_400;

/// What is asked for, where it may be known otherwise than by its bytes.
#[derive(Default)]
pub struct Asked {
    /// By a direct method.
    pub is_call: bool,
    /// The command's name.
    pub command: Option<String>,
    /// Its value.
    pub value: Option<Json>,
}

/// What the ledger knows of a message, or of a call: by its digest, and of what the other of the two has asked for
/// under its id by command and value.
pub fn lookup(
    db: &Connection,
    (hub, device): (&str, &str),
    (message_id, digest): (&str, &Digest),
    asked: Option<&Asked>,
    age: i64,
) -> rusqlite::Result<Lookup> {
    let mut found = Lookup { known: Known::New, row: None, elsewhere: None };
    let home: Option<(i64, i64)> = db
        .prepare_cached("SELECT id, since FROM hub WHERE host = ?1")?
        .query_row([hub], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((hub, _)) = home {
        let same: Option<(i64, String)> = db
            .prepare_cached(
                "SELECT id, state FROM command WHERE hub = ?1 AND device = ?2 AND message_id = ?3 AND digest = ?4",
            )?
            .query_row(params![hub, device, message_id, digest], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((row, state)) = same {
            return Ok(Lookup { known: Known::Row(known_state(1, &state)?), row: Some(RowId(row)), elsewhere: None });
        }
        let is_reused = db
            .prepare_cached("SELECT 1 FROM command WHERE hub = ?1 AND device = ?2 AND message_id = ?3 LIMIT 1")?
            .exists(params![hub, device, message_id])?;
        if is_reused {
            let same = asked.map(|asked| same_otherwise(db, hub, (device, message_id), asked)).transpose()?.flatten();
            let other = Lookup { known: Known::OtherBody, row: None, elsewhere: None };
            return Ok(same.map_or(other, |(row, state)| Lookup { known: Known::Row(state), row: Some(row), ..found }));
        }
    }
    // One hub can have two names, and a gateway can be moved. What may have been on the wire counts most.
    let (hub, since) = home.unwrap_or((0, age));
    let has_moved = since > 0 && age - since < MESSAGE_LIFE || hub == 0;
    let elsewhere: Option<String> = db
        .prepare_cached(
            "SELECT command.state FROM hub CROSS JOIN command
             WHERE hub.id <> ?1 AND command.hub = hub.id AND device = ?2 AND message_id = ?3 AND digest = ?4
                AND (?5 OR seen > ?6)
             ORDER BY command.state IN ('accepted', 'rejected', 'expired') LIMIT 1",
        )?
        .query_row(params![hub, device, message_id, digest, has_moved, age - MESSAGE_LIFE], |row| row.get(0))
        .optional()?;
    found.elsewhere = elsewhere.map(|state| known_state(0, &state)).transpose()?;
    Ok(found)
}

/// The row of this id that a call made, where a message is asked for, or the other way round: of the same command and
/// the same value. What came under the id of another is none that it could be, and so there is one such row at most.
fn same_otherwise(
    db: &Connection,
    hub: i64,
    (device, message_id): (&str, &str),
    asked: &Asked,
) -> rusqlite::Result<Option<(RowId, State)>> {
    let of_a_call = first(db, OF_A_CALL, params![hub, device, message_id])?;
    let first = match (asked.is_call, of_a_call) {
        (false, of_a_call) => of_a_call,
        // Its id is that of another call.
        (true, Some(_)) => None,
        (true, None) => first(db, OF_A_MESSAGE, params![hub, device, message_id, LOOKED_AT_MAX])?,
    };
    let same = first.filter(|first| {
        let requested = first.requested.as_deref().and_then(|text| serde_json::from_str::<Json>(text).ok());
        first.name == asked.command && method::is_same_value(requested.as_ref(), asked.value.as_ref())
    });
    same.map(|same| Ok((RowId(same.row), known_state(1, &same.state)?))).transpose()
}

/// How many rows of one id are looked at for the message that was the first: a call under an id that more messages have
/// shared is refused as one under the id of another, whatever it asks for.
const LOOKED_AT_MAX: i64 = 256;

/// Found by an index of its own, for messages ask this too, under ids that they use again and again.
const OF_A_CALL: &str = "SELECT id, state, name, requested FROM command INDEXED BY command_called
    WHERE source = 'method' AND error_code IS NOT 'message-id-reused' AND hub = ?1 AND device = ?2 AND message_id = ?3";

const OF_A_MESSAGE: &str = "SELECT id, state, name, requested FROM
    (SELECT id, state, name, requested, source, error_code FROM command
        WHERE hub = ?1 AND device = ?2 AND message_id = ?3 LIMIT ?4)
    WHERE source <> 'method' AND error_code IS NOT 'message-id-reused' LIMIT 1";

/// What was the first under an id.
struct First {
    row: i64,
    state: String,
    name: Option<String>,
    requested: Option<String>,
}

fn first(db: &Connection, sql: &str, of: impl rusqlite::Params) -> rusqlite::Result<Option<First>> {
    let read = |row: &rusqlite::Row| {
        Ok(First { row: row.get(0)?, state: row.get(1)?, name: row.get(2)?, requested: row.get(3)? })
    };
    db.prepare_cached(sql)?.query_row(of, read).optional()
}

fn known_state(column: usize, name: &str) -> rusqlite::Result<State> {
    State::from_name(name).ok_or_else(|| {
        let why = format!("no state is called {name:?}");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, why.into())
    })
}
