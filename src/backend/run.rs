//! `fieldbridge send`, `call` and `feedback`: what they do with the hub, and what they say of it.
//!
//! Invariants
//! - A message's id is told before the message is sent. Once the hub has it, nothing asks to send it again: what comes
//!   of waiting is feedback, or that there is none.
//! - A batch of feedback is completed when all of it was written, and not before: what nobody got stays at the hub.

use std::io;
use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout, timeout_at, Instant};

use super::command_line::{CallOptions, FeedbackOptions, SendOptions};
use super::feedback::{End, Record};
use super::message::{Ack, Outgoing};
use super::method::{self, Answered, Call, CallError};
use super::{Backend, BackendError};
use crate::exit::Exit;
use crate::hub::identity::backoff::Backoff;
use crate::operate::text::printable;

/// How long an empty queue of feedback is listened to before it counts as empty: longer than the hub takes to hand out
/// what it has.
const NOTHING_LEFT: Duration = Duration::from_secs(5);

/// Sends a message, and waits for its feedback if that is asked for. `print` is for data, `tell` for messages to a
/// person.
///
/// # Errors
/// The hub says no, or the feedback is not Success; nothing says by what right; the hub can't be reached; what is to be
/// printed can't be.
pub async fn send(
    options: &SendOptions,
    print: impl Fn(&str) -> io::Result<()>,
    tell: impl Fn(&str),
) -> Result<(), Exit> {
    let outgoing = options.outgoing()?;
    let id = printable(&outgoing.message_id);
    let mut backend = options.access.connect().await?;
    match options.json {
        true => tell(&format!("message id {id}")),
        false => print(&format!("message id {id}")).map_err(|error| unprinted(&error, "nothing was sent"))?,
    }
    let sent = backend.send(&outgoing).await;
    let (Ok(()), Some(limit)) = (&sent, options.wait) else {
        backend.close().await;
        sent.map_err(|error| unsent(error, &id))?;
        let text = match options.json {
            true => document(&outgoing, None),
            false => "sent".to_owned(),
        };
        return print(&text).map_err(|error| unprinted(&error, &format!("sent as {id}")));
    };
    let heard = wait(options, backend, &outgoing, limit, &tell).await;
    let text = match (options.json, &heard) {
        (true, heard) => Some(document(&outgoing, heard.as_ref().ok())),
        (false, Ok(record)) => Some(shown(record)),
        (false, Err(_)) => None,
    };
    if let Some(text) = text {
        print(&text).map_err(|error| unprinted(&error, &format!("sent as {id}")))?;
    }
    match heard {
        Ok(record) if record.is_success() => Ok(()),
        Ok(record) => Err(Exit::No(format!("the message ended as {}", printable(record.status())))),
        Err(why) => Err(Exit::No(format!("sent as {id}; no feedback{why}"))),
    }
}

/// Calls a direct method, and prints the device's answer.
///
/// # Errors
/// The hub says no, or the device by its status; nothing says by what right; the hub or the device can't be reached, or
/// nobody knows whether it was; what is to be printed can't be.
pub async fn call(options: &CallOptions, print: impl Fn(&str) -> io::Result<()>) -> Result<(), Exit> {
    let call = options.call()?;
    let (who, place) = options.place()?;
    let answered = method::call(&who, &place, &call).await.map_err(|error| uncalled(error, &call))?;
    let text = match options.json {
        true => answered.to_json().to_string(),
        false => answer_shown(&answered),
    };
    print(&text).map_err(|error| unprinted(&error, &format!("the device has answered with {}", answered.status)))?;
    match answered.is_success() {
        true => Ok(()),
        false => Err(Exit::No(format!("{}{}", not_done(&answered), what_to_do(&answered, &call)))),
    }
}

/// An answer, on one line or two.
fn answer_shown(answered: &Answered) -> String {
    let status = answered.status;
    match answered.payload.is_null() {
        true => format!("status {status}"),
        false => format!("status {status}\n{}", printable(&answered.payload.to_string())),
    }
}

/// What a device's no says: a gateway's has the reason with it.
fn not_done(answered: &Answered) -> String {
    let reason = answered.payload.pointer("/error/message").and_then(serde_json::Value::as_str);
    let reason = reason.map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    format!("the device answers with status {}{reason}", answered.status)
}

fn what_to_do(answered: &Answered, call: &Call) -> &'static str {
    match answered.payload.pointer("/error/code").and_then(serde_json::Value::as_str) {
        Some("no-message-id") if !call.has_id() => "; give it one: `--message-id ID`",
        _ => "",
    }
}

/// Why a call has no answer.
fn uncalled(error: CallError, call: &Call) -> Exit {
    match error {
        CallError::Undone(error) => error.into(),
        CallError::Garbled(why) => Exit::No(why),
        CallError::Unknown(_) => Exit::NotRunning(match call.has_id() {
            true => format!(
                "{error}; call it again with the same message id: a gateway runs it once, and says how it ended"
            ),
            false => format!("{error}; look at the result event before you call it again, and give a `--message-id`"),
        }),
    }
}

/// Why a message was not sent, or may have been.
fn unsent(error: BackendError, id: &str) -> Exit {
    match error {
        BackendError::Unknown(_) => Exit::NotRunning(format!(
            "{error}; send it again with `--message-id {id}`: whatever comes twice is run once"
        )),
        error => error.into(),
    }
}

fn document(outgoing: &Outgoing, record: Option<&Record>) -> String {
    json!({ "messageId": outgoing.message_id, "feedback": record.map(Record::to_json) }).to_string()
}

fn unprinted(error: &io::Error, what: &str) -> Exit {
    Exit::Surroundings(format!("standard output can't be written ({error}); {what}"))
}

/// Waits for the record of a message that the hub has, on this connection and those after it. An error ends a sentence
/// that says there is no feedback.
async fn wait(
    options: &SendOptions,
    mut backend: Backend,
    outgoing: &Outgoing,
    limit: Duration,
    tell: &impl Fn(&str),
) -> Result<Record, String> {
    let deadline = Instant::now() + limit;
    let mut backoff = Backoff::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = backend.wait_for(&outgoing.device, &outgoing.message_id, left).await;
        backend.close().await;
        let why = match waited {
            Ok(Some(record)) => return Ok(record),
            Ok(None) => {
                let limit = humantime::format_duration(limit);
                // Where the hub is to be silent on some ends, its silence may mean one of these.
                let or_else = match outgoing.ack {
                    Ack::Full => "",
                    _ => ", or have ended as --ack wants no feedback on",
                };
                return Err(format!(
                    " within {limit}; the message may still wait for the device{or_else}: look at the result event, or for \
                     feedback later"
                ));
            }
            Err(BackendError::Unreachable(why) | BackendError::Unknown(why)) => why,
            Err(BackendError::Refused(why) | BackendError::Nobody(why)) => return Err(format!(": {why}")),
        };
        tell(&format!("the connection is lost, and made anew: {why}"));
        backend = match timeout_at(deadline, again(options, &mut backoff)).await {
            Ok(Ok(backend)) => backend,
            Ok(Err(why)) => return Err(format!(": {why}")),
            Err(_) => {
                return Err(format!(
                    ": the connection is lost ({why}); look at the result event, or for feedback later"
                ))
            }
        };
    }
}

/// Another connection, however often that has to be tried.
async fn again(options: &SendOptions, backoff: &mut Backoff) -> Result<Backend, String> {
    loop {
        sleep(backoff.next(fastrand::f64())).await;
        match options.access.connect().await {
            Ok(backend) => return Ok(backend),
            Err(BackendError::Unreachable(_) | BackendError::Unknown(_)) => {}
            Err(BackendError::Refused(why) | BackendError::Nobody(why)) => return Err(why),
        }
    }
}

/// A record, on a line.
pub(super) fn shown(record: &Record) -> String {
    let text = |text: Option<&str>| printable(text.unwrap_or("-"));
    let at = record.to_json().get("enqueuedTimeUtc").and_then(serde_json::Value::as_str);
    format!("{}  {}  {}  {}", text(at), text(record.device()), text(record.message_id()), printable(record.status()))
}

/// Why feedback is not followed any more.
enum Stop {
    Hub(BackendError),
    Output(io::Error),
}

/// Prints feedback, and takes it from the hub's one queue.
///
/// # Errors
/// As [`send`].
pub async fn feedback(
    options: &FeedbackOptions,
    print: impl Fn(&str) -> io::Result<()>,
    tell: impl Fn(&str),
) -> Result<(), Exit> {
    let (mut backoff, mut has_stood) = (Backoff::default(), false);
    loop {
        match follow(options, &print, (&mut backoff, &mut has_stood)).await {
            Ok(()) => return Ok(()),
            // What has never been reached is more likely another place than one that is away for a while.
            Err(Stop::Hub(BackendError::Unreachable(why))) if options.follow && has_stood => {
                tell(&why);
                sleep(backoff.next(fastrand::f64())).await;
            }
            Err(Stop::Hub(error)) => return Err(error.into()),
            Err(Stop::Output(error)) => return Err(unprinted(&error, "what was not printed stays at the hub")),
        }
    }
}

async fn follow(
    options: &FeedbackOptions,
    print: &impl Fn(&str) -> io::Result<()>,
    (backoff, has_stood): (&mut Backoff, &mut bool),
) -> Result<(), Stop> {
    let mut backend = options.access.connect().await.map_err(Stop::Hub)?;
    *has_stood = true;
    let ended = loop {
        let next = match options.follow {
            true => backend.next_batch().await,
            false => match backend.listen().await {
                Err(error) => Err(error),
                Ok(()) => match timeout(NOTHING_LEFT, backend.next_batch()).await {
                    Ok(next) => next,
                    Err(_) => break Ok(()),
                },
            },
        };
        let delivered = match next {
            Ok(delivered) => delivered,
            Err(error) => break Err(Stop::Hub(error)),
        };
        backoff.reset();
        let mut lines = delivered.batch.records.iter().map(|record| match options.json {
            true => record.to_json().to_string(),
            false => shown(record),
        });
        // Whoever is interrupted here gets all of it again.
        if let Err(error) = lines.try_for_each(|line| print(&line)) {
            break Err(Stop::Output(error));
        }
        backend.settle(&delivered, End::Complete);
    };
    backend.close().await;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_to_be_called_again_under_its_id_only() {
        let timeout = Duration::from_secs(30);
        let of = |payload| Call { device: "d".into(), method: "m".into(), payload, timeout };
        let unknown = || CallError::Unknown("it did not answer".into());
        let with_id = uncalled(unknown(), &of(Some(json!({"messageId": "c-1"}))));
        assert_eq!(with_id.exit_status(), 75);
        assert!(with_id.to_string().contains("with the same message id"), "{with_id}");
        let bare = uncalled(unknown(), &of(None));
        assert!(bare.to_string().contains("before you call it again"), "{bare}");
        assert_eq!(uncalled(CallError::Garbled("no JSON".into()), &of(None)).exit_status(), 1);
    }

    #[test]
    fn a_devices_no_is_shown_with_its_reason_and_what_to_do() {
        let (status, code) = (400, "no-message-id");
        let payload = json!({"error": {"code": code, "message": "it has\u{9b}2J no id"}});
        let answered = Answered { status, payload };
        assert!(answer_shown(&answered).starts_with("status 400\n{"));
        assert!(!answer_shown(&answered).contains('\u{9b}'), "nothing steers the terminal");
        assert!(not_done(&answered).starts_with("the device answers with status 400: it has"));
        let timeout = Duration::from_secs(30);
        let call = Call { device: "d".into(), method: "m".into(), payload: None, timeout };
        assert!(what_to_do(&answered, &call).contains("`--message-id ID`"));
    }

    #[test]
    fn what_may_have_been_sent_is_to_be_sent_again_under_its_id() {
        let exit = unsent(BackendError::Unknown("the connection is lost".into()), "m-1");
        assert_eq!(exit.exit_status(), 75);
        assert!(exit.to_string().contains("`--message-id m-1`"), "{exit}");
        let refused = unsent(BackendError::Refused("no".into()), "m-1");
        assert_eq!((refused.exit_status(), refused.to_string().as_str()), (1, "no"));
    }
}
