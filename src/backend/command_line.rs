//! The options of `fieldbridge send`, `call` and `feedback`, and what they mean. Whatever would change a message in
//! silence is wrong usage.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{json, Value as Json};

use super::entra::Entra;
use super::message::{new_id, Ack, Outgoing, ID_CHARS_MAX, MESSAGE_BYTES_MAX, TTL_MAX};
use super::method::{Call, PAYLOAD_BYTES_MAX, TIMEOUT_MAX, TIMEOUT_MIN};
use super::sentences::in_options;
use super::who::{Policy, Who};
use super::{Backend, BackendError, Place};
use crate::certificate::{pem, Trust};
use crate::complaint::Complaint;
use crate::config::{Proxy, TransportKind};
use crate::exit::Exit;
use crate::operate::text::printable;

/// The application properties that have arguments of their own.
const COMMAND: &str = "command";
const ACK: &str = "iothub-ack";

/// By what right, and where.
#[derive(Debug, Args)]
pub struct Access {
    /// File with the connection string of a shared access policy that has the right ServiceConnect.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["hub", "entra"])]
    connection_string_file: Option<PathBuf>,
    /// Host name of the hub, with --entra.
    #[arg(long, value_name = "HOST", requires = "entra")]
    hub: Option<String>,
    /// Act as an identity of Microsoft Entra: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, else the
    /// machine's managed identity, else whoever is logged in to az.
    #[arg(long, requires = "hub")]
    entra: bool,
    /// How the hub is reached; direct methods go by HTTPS, whatever is said here.
    #[arg(long, value_name = "NAME", default_value = "amqp")]
    transport: Transport,
    /// Where to connect in place of the hub's own address.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Trust anchors to use instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// HTTP proxy to go through, such as http://proxy:3128.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// File with user:password for the proxy.
    #[arg(long, value_name = "FILE", requires = "proxy")]
    proxy_credentials_file: Option<PathBuf>,
}

/// The transports of a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// AMQP, port 5671.
    Amqp,
    /// AMQP in a WebSocket, port 443.
    AmqpWs,
}

/// What the sender wants to hear of a message's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// Nothing.
    None,
    /// That it was completed.
    Positive,
    /// Every other end.
    Negative,
    /// Every end.
    Full,
}

/// What is to be sent.
#[derive(Debug, Args)]
pub struct SendOptions {
    /// Device id at the hub.
    device: String,
    /// The command's name: the application property `command`.
    #[arg(conflicts_with_all = ["data", "data_file"])]
    command: Option<String>,
    /// The command's value, which becomes the body: JSON if it parses, else text.
    #[arg(allow_negative_numbers = true)]
    value: Option<String>,
    /// The message's id; without it a new UUID, which is printed before it is sent.
    #[arg(long, value_name = "ID", value_parser = message_id)]
    message_id: Option<String>,
    /// An id of the sender's own, that comes back in the result event.
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// Who sends it.
    #[arg(long, value_name = "ID")]
    user_id: Option<String>,
    /// How long it may wait for the device, at most 48h.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    ttl: Option<Duration>,
    /// Of which ends the hub is to say something: all of them with --wait, else none.
    #[arg(long)]
    ack: Option<Wanted>,
    /// An application property; may be given again and again.
    #[arg(long, value_name = "NAME=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// The body, in place of a command.
    #[arg(long, value_name = "TEXT", conflicts_with = "data_file")]
    data: Option<String>,
    /// File with the body, in place of a command.
    #[arg(long, value_name = "FILE")]
    data_file: Option<PathBuf>,
    /// What the body is, such as application/json.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// How the body is encoded, such as utf-8.
    #[arg(long, value_name = "NAME")]
    content_encoding: Option<String>,
    /// Wait for the hub's feedback on this message, 2m unless said otherwise.
    #[arg(
        long,
        value_name = "DURATION",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "2m",
        value_parser = duration
    )]
    pub(super) wait: Option<Duration>,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) access: Access,
}

/// What is to be called.
#[derive(Debug, Args)]
pub struct CallOptions {
    /// Device id at the hub.
    device: String,
    /// The direct method: of a device behind fieldbridge, the command's name.
    method: String,
    /// What it is called with: JSON if it parses, else text.
    #[arg(allow_hyphen_values = true, value_parser = payload)]
    payload: Option<String>,
    /// The id by which the gateway knows the call again; the payload becomes {"messageId": ID, "value": PAYLOAD}.
    #[arg(long, value_name = "ID", value_parser = message_id)]
    message_id: Option<String>,
    /// How long the device may take, 5s to 5m in whole seconds.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = patience)]
    timeout: Duration,
    /// Print the answer as one JSON document.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    access: Access,
}

/// Which feedback is to be printed.
#[derive(Debug, Args)]
pub struct FeedbackOptions {
    /// Go on until this is ended.
    #[arg(long)]
    pub(super) follow: bool,
    /// Print the hub's records, one JSON object a line.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) access: Access,
}

/// A payload. Some begin with a hyphen, such as `-ON`; one with two is a slip of the pen in an option.
fn payload(text: &str) -> Result<String, String> {
    match text.starts_with("--") {
        true => Err("there is no such option; a text that begins so is written as JSON: '\"--text\"'".into()),
        false => Ok(text.to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) => Err("it must be longer than nothing".into()),
        Err(error) => Err(format!("{error}; write it as 30s, 2m or 1h")),
    }
}

fn patience(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|patience| match (TIMEOUT_MIN..=TIMEOUT_MAX).contains(&patience) {
        true if patience.subsec_nanos() == 0 => Ok(patience),
        true => Err("the hub counts whole seconds".into()),
        false => Err("the hub lets a device have 5s to 5m".into()),
    })
}

fn ttl(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|ttl| match ttl > TTL_MAX {
        true => Err("the hub keeps no message longer than 48h".into()),
        false => Ok(ttl),
    })
}

fn message_id(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0 => Err("an empty one is none; leave it out for a new one".into()),
        1..=ID_CHARS_MAX => Ok(text.to_owned()),
        length => Err(format!("it has {length} characters, and may have {ID_CHARS_MAX}")),
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}

impl From<BackendError> for Exit {
    fn from(error: BackendError) -> Exit {
        match error {
            BackendError::Nobody(why) => Exit::Usage(why),
            BackendError::Refused(why) => Exit::No(why),
            BackendError::Unreachable(_) | BackendError::Unknown(_) => Exit::NotRunning(error.to_string()),
        }
    }
}

impl Access {
    fn who(&self) -> Result<Who, BackendError> {
        if let Some(file) = &self.connection_string_file {
            return Policy::read(file).map(Who::Policy).map_err(BackendError::Nobody);
        }
        let Some(host) = self.hub.as_ref().filter(|_| self.entra) else {
            let why = "nothing says by what right: give --connection-string-file FILE, or --hub HOST --entra";
            return Err(BackendError::Nobody(why.into()));
        };
        // Entra is no hub: a hub's own authority does not sign its certificate.
        let trust = || {
            Trust::load(None).map_err(|why| {
                let remedy = "install the package ca-certificates, or set SSL_CERT_FILE to a file with CA certificates";
                Complaint::new(format!("Entra is reached by TLS, and {}", why.what), remedy)
            })
        };
        let entra = Entra::of(|name| std::env::var(name).ok(), trust, self.proxy()?)?;
        Ok(Who::Entra { host: host.to_lowercase(), entra: Box::new(entra) })
    }

    fn place(&self, transport: TransportKind) -> Result<Place, BackendError> {
        let usage = |option: &str, why: String| BackendError::Nobody(format!("{option} {why}"));
        if !transport.is_built() {
            return Err(usage("--transport", format!("{transport} is not in this program")));
        }
        let address = self.address.as_deref().map(|text| crate::config::address(text, transport));
        let address = address.transpose().map_err(|why| usage("--address", why.to_string()))?;
        Ok(Place { transport, address, ca_file: self.ca_file.clone(), proxy: self.proxy()? })
    }

    fn proxy(&self) -> Result<Option<Proxy>, BackendError> {
        let Some(url) = &self.proxy else { return Ok(None) };
        let address = crate::config::proxy_address(url);
        let address =
            address.map_err(|why| BackendError::Nobody(format!("--proxy {}", in_options(&why.to_string()))))?;
        let credentials = self.proxy_credentials_file.as_deref().map(|file| {
            let read = pem::read(file).and_then(|bytes| crate::config::proxy_credentials(&bytes));
            read.map_err(|why| BackendError::Nobody(format!("{}: {why}", file.display())))
        });
        Ok(Some(Proxy { address, credentials: credentials.transpose()? }))
    }

    pub(super) async fn connect(&self) -> Result<Backend, BackendError> {
        let transport = match self.transport {
            Transport::Amqp => TransportKind::Amqp,
            Transport::AmqpWs => TransportKind::AmqpWs,
        };
        Backend::connect(self.who()?, &self.place(transport)?).await
    }
}

impl CallOptions {
    pub(super) fn call(&self) -> Result<Call, Exit> {
        let json = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Json::from(text.as_str()));
        let value = self.payload.as_ref().map(json);
        let payload = match &self.message_id {
            None => value,
            Some(id) => {
                let mut envelope = json!({ "messageId": id });
                value.into_iter().for_each(|value| envelope["value"] = value);
                Some(envelope)
            }
        };
        let length = payload.as_ref().map_or(0, |payload| payload.to_string().len());
        if length > PAYLOAD_BYTES_MAX {
            let why = format!("the payload has {length} bytes, and a call has at most {PAYLOAD_BYTES_MAX}");
            return Err(Exit::Usage(why));
        }
        let (device, method) = (self.device.clone(), self.method.clone());
        Ok(Call { device, method, payload, timeout: self.timeout })
    }

    /// By what right, and where. By HTTPS in any case: a hub has methods for back ends in no other way.
    pub(super) fn place(&self) -> Result<(Who, Place), BackendError> {
        Ok((self.access.who()?, self.access.place(TransportKind::Https)?))
    }
}

impl SendOptions {
    pub(super) fn outgoing(&self) -> Result<Outgoing, Exit> {
        let body = match (&self.value, &self.data, &self.data_file) {
            (Some(value), _, _) => value.clone().into_bytes(),
            (None, Some(data), _) => data.clone().into_bytes(),
            (None, None, Some(file)) => {
                let read = File::open(file).and_then(|file| {
                    let (mut bytes, most) = (Vec::new(), MESSAGE_BYTES_MAX as u64 + 1);
                    file.take(most).read_to_end(&mut bytes).map(|_| bytes)
                });
                read.map_err(|error| Exit::Usage(format!("{} can't be read: {error}", file.display())))?
            }
            (None, None, None) => Vec::new(),
        };
        if body.len() > MESSAGE_BYTES_MAX {
            let what = match (&self.value, &self.data_file) {
                (None, Some(file)) => file.display().to_string(),
                (None, None) => "--data".to_owned(),
                (Some(_), _) => "VALUE".to_owned(),
            };
            return Err(Exit::Usage(format!(
                "{what} is longer than the {MESSAGE_BYTES_MAX} bytes that a message to a device may have; send less"
            )));
        }
        let ack = self.acknowledged()?;
        let command = self.command.iter().map(|name| (COMMAND.to_owned(), name.clone()));
        Ok(Outgoing {
            device: self.device.clone(),
            message_id: self.message_id.clone().unwrap_or_else(new_id),
            correlation_id: self.correlation_id.clone(),
            user_id: self.user_id.clone(),
            ttl: self.ttl,
            ack,
            properties: command.chain(self.properties()?).collect(),
            content_type: self.content_type.clone(),
            content_encoding: self.content_encoding.clone(),
            body,
        })
    }

    fn acknowledged(&self) -> Result<Ack, Exit> {
        let (wanted, is_waited_for) = (self.ack, self.wait.is_some());
        if is_waited_for && wanted == Some(Wanted::None) {
            let why = "--wait waits for what --ack none asks not to be told; leave one of the two out";
            return Err(Exit::Usage(why.into()));
        }
        Ok(match wanted {
            Some(Wanted::Positive) => Ack::Positive,
            Some(Wanted::Negative) => Ack::Negative,
            Some(Wanted::Full) => Ack::Full,
            None if is_waited_for => Ack::Full,
            Some(Wanted::None) | None => Ack::None,
        })
    }

    /// The properties that were given: each once, and none that another argument says.
    fn properties(&self) -> Result<Vec<(String, String)>, Exit> {
        let mut seen = BTreeSet::new();
        for (name, _) in &self.property {
            let twice = match name.as_str() {
                COMMAND if self.command.is_some() => "COMMAND says it, too; leave one of the two out",
                ACK if self.ack.is_some() || self.wait.is_some() => "--ack and --wait say it, too; leave it out",
                name if !seen.insert(name) => "it stands there twice; leave one of them out",
                _ => continue,
            };
            return Err(Exit::Usage(format!("--property {}: {twice}", printable(name))));
        }
        Ok(self.property.clone())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: SendOptions,
    }

    fn parsed(args: &[&str]) -> Result<SendOptions, String> {
        let line = Line::try_parse_from([&["send"], args].concat());
        line.map(|line| line.options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_command_is_a_property_and_its_value_the_body() {
        let options =
            parsed(&["pump-7", "set-speed", "-4.5", "--ttl", "30s", "--property", "a=b=c", "--wait"]).unwrap();
        let outgoing = options.outgoing().unwrap();
        assert_eq!((outgoing.device.as_str(), &outgoing.body[..]), ("pump-7", &b"-4.5"[..]));
        let pairs: Vec<(&str, &str)> = outgoing.properties.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("command", "set-speed"), ("a", "b=c")]);
        assert_eq!((outgoing.ttl, outgoing.ack), (Some(Duration::from_secs(30)), Ack::Full));
        assert_eq!((outgoing.message_id.len(), options.wait), (36, Some(Duration::from_secs(120))));
        let data = parsed(&["pump-7", "--data", "bare text", "--message-id", "m", "--ack", "negative"]).unwrap();
        let outgoing = data.outgoing().unwrap();
        assert_eq!((&outgoing.body[..], outgoing.message_id.as_str()), (&b"bare text"[..], "m"));
        assert_eq!((outgoing.ack, outgoing.properties.len()), (Ack::Negative, 0));
    }

    #[test]
    fn a_body_that_no_message_has_is_wrong_usage_wherever_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        let (file, most) = (folder.path().join("body"), MESSAGE_BYTES_MAX);
        for (length, is_sent) in [(most, true), (most + 1, false)] {
            let text = "x".repeat(length);
            std::fs::write(&file, &text).unwrap();
            let file = file.to_str().unwrap();
            for (args, what) in [
                (&["d", "print", &text][..], "VALUE"),
                (&["d", "--data", &text], "--data"),
                (&["d", "--data-file", file], file),
            ] {
                match parsed(args).unwrap().outgoing() {
                    Ok(outgoing) => assert!(is_sent && outgoing.body.len() == length, "{what}"),
                    Err(exit) => {
                        assert!(!is_sent && exit.exit_status() == 2, "{what}");
                        assert!(exit.to_string().starts_with(&format!("{what} is longer than the {most}")), "{exit}");
                    }
                }
            }
        }
        let endless = parsed(&["d", "--data-file", "/dev/zero"]).unwrap().outgoing();
        assert_eq!(endless.unwrap_err().exit_status(), 2);
    }

    #[test]
    fn a_call_is_made_of_its_arguments() {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            options: CallOptions,
        }
        let parsed = |args: &[&str]| Line::try_parse_from([&["call"], args].concat()).map(|line| line.options);
        let call = |args: &[&str]| parsed(args).unwrap().call().unwrap();
        for (text, payload) in [("-ON", json!("-ON")), ("-4.5", json!(-4.5)), ("-", json!("-"))] {
            assert_eq!(call(&["pump-7", "set", text]).payload, Some(payload), "{text}");
        }
        assert!(parsed(&["pump-7", "set", "-ON", "--json"]).unwrap().json);
        assert!(parsed(&["pump-7", "set", "--jsn"]).unwrap_err().to_string().contains("no such option"));
        let bare = call(&["pump-7", "reset"]);
        assert_eq!((bare.payload.clone(), bare.timeout.as_secs(), bare.has_id()), (None, 30, false));
        assert_eq!(call(&["d", "m", "-4.5", "--timeout", "5m"]).payload, Some(json!(-4.5)));
        assert_eq!(call(&["d", "m", "bare text"]).payload, Some(json!("bare text")));
        assert!(call(&["d", "m", r#"{"messageId":"a","value":1}"#]).has_id());
        let wrapped = call(&["d", "m", "on", "--message-id", "c-1"]);
        assert_eq!(wrapped.payload, Some(json!({"messageId": "c-1", "value": "on"})));
        assert_eq!(call(&["d", "m", "--message-id", "c-1"]).payload, Some(json!({"messageId": "c-1"})));
        for wrong in
            [&["d"][..], &["d", "m", "--timeout", "4s"], &["d", "m", "--timeout", "301s"], &["d", "m", "--wait"]]
        {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        assert!(parsed(&["d", "m", "--timeout", "5500ms"]).is_err());
        let long = "x".repeat(PAYLOAD_BYTES_MAX);
        assert_eq!(parsed(&["d", "m", &long]).unwrap().call().unwrap_err().exit_status(), 2);
    }

    #[test]
    fn what_does_not_go_together_is_wrong_usage() {
        for args in [
            &["d", "c", "--data", "x"][..],
            &["d", "--data", "x", "--data-file", "y"],
            &["d", "c", "--ttl", "49h"],
            &["d", "c", "--property", "novalue"],
            &["d", "c", "--wait=0s"],
            &["d", "c", "--hub", "h"],
            &["d", "c", "--entra"],
            &["d", "c", "--transport", "mqtt"],
            &["d", "c", "--message-id", ""],
            &["d", "c", "--message-id", &"é".repeat(129)],
            // A slip of the pen is no value.
            &["d", "c", "--wiat"],
            &["d", "c", "-w"],
            &[],
        ] {
            assert!(parsed(args).is_err(), "{args:?}");
        }
        for args in [
            &["--wait=30s", "--ack", "none"][..],
            &["--property", "command=d"],
            &["--property", "iothub-ack=full", "--wait"],
            &["--property", "iothub-ack=full", "--ack", "none"],
            &["--property", "a=1", "--property", "a=2"],
        ] {
            let options = parsed(&[&["d", "c"], args].concat()).unwrap();
            assert_eq!(options.outgoing().unwrap_err().exit_status(), 2, "{args:?}");
        }
        let some = parsed(&["d", "c", "--wait", "--ack", "negative"]).unwrap();
        assert_eq!(some.outgoing().unwrap().ack, Ack::Negative);
        let longest = "é".repeat(ID_CHARS_MAX);
        assert!(parsed(&["d", "c", "--message-id", &longest, "--", "-x"]).is_ok());
        let bare = parsed(&["d", "--data", "1", "--property", "command=c", "--property", "iothub-ack=full"]).unwrap();
        assert!(bare.outgoing().is_ok(), "nothing else says it");
        let nobody = parsed(&["d", "c"]).unwrap().access.who().err().unwrap();
        assert_eq!(Exit::from(nobody).exit_status(), 2);
    }
}
