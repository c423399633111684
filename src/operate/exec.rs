//! `exec`: a configured command, run now for a person at the site, through the daemon's bus like any other
//! ([`crate::device::Order`]).

use serde_json::Value as Json;
use tokio::sync::oneshot;

use crate::command::excerpt::truncated;
use crate::device::{self, Context, Order, Told};
use crate::operate::admin::{Operator, Reply};

/// What a person asks for.
pub struct Asked {
    /// Who asks.
    pub operator: Operator,
    /// Name of the command.
    pub command: String,
    /// Its value.
    pub value: Option<Json>,
    /// It is to be run also if the device is locked.
    pub overrides: bool,
}

/// Runs a command, and returns when its row is at its end. What is told of it comes at once to `answer`.
pub async fn execute(context: Context, hub: String, asked: Asked, answer: oneshot::Sender<Told>) {
    let Asked { operator, command, value, overrides } = asked;
    let user = user(operator.uid).await;
    let operator = device::Operator::new(operator.uid, operator.gone, answer).overriding(overrides);
    context.execute(hub, Order { operator, user, command, value }).await;
}

/// What the person is answered.
impl From<Told> for Reply {
    fn from(told: Told) -> Reply {
        match told {
            Told::Ended(event) => Reply::Ok(event),
            Told::Unrecorded(why) => Reply::Unrecorded(why),
        }
    }
}

/// A user's name, or the number where it has none on this machine.
pub async fn user(uid: u32) -> String {
    // It is read on a thread that may wait.
    let read = move || name_of(uid, &std::fs::read_to_string("/etc/passwd").ok()?);
    let name = tokio::task::spawn_blocking(read).await.ok().flatten();
    name.unwrap_or_else(|| format!("uid {uid}"))
}

/// The name of the user who runs this program, as it is kept.
pub fn user_here() -> String {
    let uid = rustix::process::getuid().as_raw();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(uid, &users).unwrap_or_else(|| format!("uid {uid}"))
}

/// Looks a name up in passwd(5).
fn name_of(uid: u32, users: &str) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| truncated(name, NAME_BYTES_MAX).to_owned())
    })
}

/// Longest name of a user that is kept.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_called_by_the_name_in_passwd() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\nx::y\npi:x:1000:1000:,,,:/home/pi:/bin/bash\n";
        assert_eq!(name_of(1000, users).as_deref(), Some("pi"));
        assert_eq!(name_of(0, users).as_deref(), Some("root"));
        assert_eq!(name_of(1, users), None);
        assert_eq!(name_of(1, ""), None);
    }
}
