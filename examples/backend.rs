//! A back end: sends one command to a device, and learns what the hub says of it.
//!
//! `cargo run --example backend -- POLICY-FILE DEVICE COMMAND [VALUE]`
//!
//! The file holds the connection string of a shared access policy with the right ServiceConnect. The gateway's result
//! event, which says what became of the command, comes as the device's telemetry, for which the library has no reader:
//! the examples in other languages in this folder show how it is told by its correlation id. It ends with 0 if the
//! gateway has settled the message, whatever came of the command.
//!
//! MESSAGE_ID is the id of a command that may have been sent before, to send it again; without it the command is a new
//! one.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fieldbridge::backend::message::{new_id, Ack, Outgoing};
use fieldbridge::backend::{Backend, BackendError, Place, Policy, Who};
use tokio::time::sleep;

/// How long the command may wait for the device. After that the hub drops it, and the gateway does not begin it.
const LIFE: Duration = Duration::from_secs(120);
/// Feedback comes in batches, and so may be a while behind the end of the message.
const PATIENCE: Duration = Duration::from_secs(180);

/// How often a command is sent at most.
const ATTEMPTS: u32 = 3;

/// Sends a command. While nobody knows whether the hub has it, it is sent again: what has the same id is run once.
async fn send(policy: &Policy, command: &Outgoing) -> Result<Backend, BackendError> {
    let mut attempt = 1;
    loop {
        let sent = async {
            let mut backend = Backend::connect(Who::Policy(policy.clone()), &Place::default()).await?;
            backend.send(command).await.map(|()| backend)
        };
        match sent.await {
            Err(error @ (BackendError::Unreachable(_) | BackendError::Unknown(_))) if attempt < ATTEMPTS => {
                eprintln!("{error}; trying again");
            }
            ended => return ended,
        }
        sleep(Duration::from_secs(attempt.into())).await;
        attempt += 1;
    }
}

async fn run(policy: &str, device: String, command: String, value: String) -> Result<bool, BackendError> {
    let policy = Policy::read(Path::new(policy)).map_err(BackendError::Nobody)?;
    let known = std::env::var("MESSAGE_ID").ok().filter(|id| !id.is_empty());
    let command = Outgoing {
        device,
        // One id for each command, for ever: by it the gateway knows what comes twice.
        message_id: known.unwrap_or_else(new_id),
        correlation_id: Some("order-4711".into()),
        ttl: Some(LIFE),
        ack: Ack::Full,
        properties: vec![("command".into(), command)],
        body: value.into_bytes(),
        ..Outgoing::default()
    };
    // Before it is sent: whoever is interrupted in between needs it.
    println!("message id {}", command.message_id);
    let mut backend = send(&policy, &command).await?;
    println!("sent");
    let record = backend.wait_for(&command.device, &command.message_id, PATIENCE).await?;
    println!("feedback: {}", record.as_ref().map_or("none in time", |record| record.status()));
    backend.close().await;
    Ok(record.is_some_and(|record| record.is_success()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(policy), Some(device), Some(command)) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: backend POLICY-FILE DEVICE COMMAND [VALUE]");
        return ExitCode::from(2);
    };
    match run(&policy, device, command, args.next().unwrap_or_default()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
