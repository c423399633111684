//! The operator's side of the admin socket.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use super::{Reply, Request, REPLY_BYTES_MAX};
use crate::exit::Exit;

/// A status is at hand; a command may wait for its bus and run through all its attempts.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks the running daemon.
///
/// # Errors
/// [`Exit::NotRunning`] if it can't be reached, [`Exit::No`] if it says no, [`Exit::Ledger`] if its ledger can't be
/// written.
pub fn ask(socket: &Path, request: &Request) -> Result<Json, Exit> {
    match exchange(socket, request).map_err(|error| unreachable(socket, &error))? {
        Reply::Ok(document) => Ok(document),
        Reply::Error(why) => Err(Exit::No(why)),
        Reply::Unrecorded(why) => Err(Exit::Ledger(why)),
    }
}

/// Whether a daemon listens at the socket.
///
/// # Errors
/// [`Exit::NotRunning`] if that can't be known: this user may not ask it.
pub fn is_served(socket: &Path) -> Result<bool, Exit> {
    match UnixStream::connect(socket) {
        Ok(_) => Ok(true),
        Err(error) if is_absence(&error) => Ok(false),
        Err(error) => Err(unreachable(socket, &error)),
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

fn unreachable(socket: &Path, error: &std::io::Error) -> Exit {
    let hint = match error.kind() {
        _ if is_absence(error) => "is the daemon running?",
        std::io::ErrorKind::PermissionDenied => "are you root, or in the group fieldbridge?",
        _ => "look at the daemon's log",
    };
    Exit::NotRunning(format!("{} can't be reached: {error}; {hint}", socket.display()))
}

fn exchange(socket: &Path, request: &Request) -> std::io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(REPLY_BYTES_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it closed the connection"));
    }
    Ok(serde_json::from_str(&answer)?)
}
