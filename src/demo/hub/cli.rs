//! The simulator as a process of its own: one JSON command a line on standard input, one JSON answer a line on standard
//! output. It ends with its input.
//!
//! The first line it prints has `ok`, `host`, `caFile`, and where it listens: `address` for MQTT, `webAddress` for
//! WebSockets and HTTPS, `amqpAddress` for AMQP; and what a back end shows, `serviceConnectionString` to send and
//! `eventConnectionString` to read events. The ports of the latter two are chosen by switches,
//! `{"web-port":443,"amqp-port":5671}`. `idScope` is that of the provisioning service, which answers at the addresses
//! for MQTT and HTTPS. Every answer has `ok`, and where that is false `error`. For example:
//!
//! ```text
//! {"op":"addDevice","device":"pump-7"}
//! {"op":"send","device":"pump-7","messageId":"m-1","properties":{"command":"set-speed"},"body":{"value":42.5},"ack":"full"}
//! {"op":"feedback","wait":1,"timeoutMs":5000}
//! {"op":"telemetry","wait":1,"timeoutMs":5000}
//! {"op":"call","device":"pump-7","method":"read-speed","payload":{"messageId":"m-2"},"timeout":10}
//! {"op":"desire","device":"pump-7","desired":{"speed":42.5}}
//! {"op":"twin","device":"pump-7"}
//! {"op":"fault","device":"pump-7","fault":"lose-puback"}
//! {"op":"cut","device":"pump-7"}
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use clap::Args;
use serde::Deserialize;
use serde_json::{json, Map, Value as Json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::{Ack, C2d, ClientCert, Cut, Fault, MethodCall, Options, SimHub};

/// The command line of the simulator.
#[derive(Debug, Args)]
pub struct HubArgs {
    /// Where to listen; the vendor's SDKs insist on port 8883.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub bind: SocketAddr,
    /// The hub's name.
    #[arg(long, default_value = "hub.fieldbridge.test")]
    pub host: String,
    /// The folder to write certificates to.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// No TLS.
    #[arg(long)]
    pub plain: bool,
    /// Switches, as a JSON object, such as {"redelivery":"same-connection","lock":500}.
    #[arg(long, default_value = "{}")]
    pub options: String,
}

/// A command.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Command {
    /// Answers with its key and connection string, or with `certFile` and `keyFile`.
    AddDevice {
        device: String,
        #[serde(default)]
        x509: bool,
    },
    /// Lets a device register with the provisioning service. Answers with `key`, or with `certFile` and `keyFile`.
    Enroll {
        registration_id: String,
        #[serde(default)]
        x509: bool,
    },
    /// Lets all devices register whose keys are derived from the one that it answers with.
    EnrollGroup,
    Send {
        device: String,
        #[serde(flatten)]
        message: Box<Message>,
    },
    /// All so far, once there are as many as `wait` says.
    Feedback {
        #[serde(flatten)]
        wait: Wait,
    },
    Telemetry {
        #[serde(flatten)]
        wait: Wait,
    },
    Wire {
        #[serde(flatten)]
        wait: Wait,
    },
    /// Calls a direct method, and answers with its `status` and `payload`, or with the hub's `errorCode` beside the
    /// error.
    Call {
        device: String,
        method: String,
        #[serde(default)]
        payload: Json,
        /// In seconds, as is `connectTimeout`.
        #[serde(default = "thirty")]
        timeout: f64,
        #[serde(default)]
        connect_timeout: f64,
    },
    /// Answers with the device's `twin`.
    Twin {
        device: String,
    },
    /// Changes what is desired of a device by a patch, and answers with its `version` after it.
    Desire {
        device: String,
        desired: Json,
    },
    Purge {
        device: String,
    },
    Cut {
        device: String,
        #[serde(default)]
        reset: bool,
    },
    Fault {
        device: String,
        fault: Fault,
    },
    HalfOpen {
        device: String,
    },
    RunOutLocks {
        device: String,
    },
    DetachLink {
        device: String,
        condition: String,
    },
    RefuseFor {
        ms: u64,
        #[serde(default = "not_authorized")]
        code: u8,
    },
    Throttle {
        ms: u64,
    },
    StopListening,
    ResumeListening,
}

fn not_authorized() -> u8 {
    5
}

fn thirty() -> f64 {
    30.0
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wait {
    wait: usize,
    timeout_ms: u64,
}

impl Wait {
    fn limit(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Message {
    message_id: Option<String>,
    correlation_id: Option<String>,
    user_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    properties: Map<String, Json>,
    /// Text as it is; anything else as JSON.
    body: Json,
    body_base64: Option<String>,
    ack: Ack,
    ttl_ms: Option<u64>,
}

impl Message {
    fn into_c2d(self) -> Result<C2d, String> {
        let text = |value: Json| match value {
            Json::Null => None,
            Json::String(text) => Some(text),
            other => Some(other.to_string()),
        };
        let body = match self.body_base64 {
            Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|e| e.to_string())?,
            None => text(self.body).unwrap_or_default().into_bytes(),
        };
        Ok(C2d {
            message_id: self.message_id,
            correlation_id: self.correlation_id,
            user_id: self.user_id,
            content_type: self.content_type,
            content_encoding: self.content_encoding,
            properties: self.properties.into_iter().map(|(n, v)| (n, text(v))).collect(),
            body,
            ack: self.ack,
            ttl: self.ttl_ms.map(Duration::from_millis),
            ..C2d::default()
        })
    }
}

/// Runs the simulator on standard input and output until the input ends.
///
/// # Errors
/// The options are no options, a port is taken, or a stream ended in the middle.
pub async fn run(args: HubArgs) -> io::Result<()> {
    serve(args, BufReader::new(tokio::io::stdin()), tokio::io::stdout()).await
}

/// Runs the simulator on any pair of streams.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    args: HubArgs,
    input: impl AsyncBufRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut options: Options = serde_json::from_str(&args.options)?;
    options.bind = args.bind;
    options.host = args.host.clone();
    options.tls = !args.plain;
    let id_scope = options.id_scope.clone();
    let mut hub = SimHub::start(options).await?;
    let ca_file = hub.ca_file(&args.dir)?;
    let ready = json!({
        "address": hub.addr(),
        "webAddress": hub.https_addr(),
        "amqpAddress": hub.amqp_addr(),
        "host": hub.host(),
        "idScope": id_scope,
        "caFile": ca_file,
        "serviceConnectionString": hub.service_connection_string(),
        "eventConnectionString": hub.event_connection_string(),
    });
    answer(&mut output, Ok(ready)).await?;
    let mut lines = input.lines();
    while let Some(line) = lines.next_line().await? {
        let result = match serde_json::from_str(&line) {
            Ok(command) => act(&mut hub, &args, command).await,
            Err(error) => Err(error.to_string()),
        };
        answer(&mut output, result).await?;
    }
    Ok(())
}

async fn answer(output: &mut (impl AsyncWrite + Unpin), result: Result<Json, String>) -> io::Result<()> {
    let mut answer = match result {
        Ok(answer) => answer,
        Err(error) => json!({ "error": error }),
    };
    answer["ok"] = answer.get("error").is_none().into();
    output.write_all(format!("{answer}\n").as_bytes()).await?;
    output.flush().await
}

async fn act(hub: &mut SimHub, args: &HubArgs, command: Command) -> Result<Json, String> {
    let done = json!({});
    match command {
        Command::AddDevice { device, x509 } => add_device(hub, args, &device, x509),
        Command::Enroll { registration_id, x509 } => enroll(hub, args, &registration_id, x509),
        Command::EnrollGroup => Ok(json!({ "key": hub.enroll_group() })),
        Command::Send { device, message } => {
            let sent = hub.send(&device, message.into_c2d()?);
            sent.map(|seq| json!({ "seq": seq })).map_err(|error| error.to_string())
        }
        Command::Feedback { wait } => {
            let found = hub.wait_feedback(wait.wait, wait.limit()).await;
            let found = found.map_err(|error| error.to_string())?;
            Ok(json!({"feedback": found.iter().map(super::Feedback::to_json).collect::<Json>()}))
        }
        Command::Telemetry { wait } => {
            let found = hub.wait_telemetry(wait.wait, wait.limit()).await;
            let found = found.map_err(|error| error.to_string())?;
            Ok(json!({"telemetry": found.iter().map(super::D2c::to_json).collect::<Json>()}))
        }
        Command::Wire { wait } => {
            let found = hub.wait_wire(wait.wait, wait.limit(), |_| true).await;
            let found = found.map_err(|error| error.to_string())?;
            Ok(json!({"wire": found.iter().map(super::WireEvent::to_json).collect::<Json>()}))
        }
        Command::Call { device, method, payload, timeout, connect_timeout } => {
            let call = MethodCall::new(&method, payload).within(seconds(timeout)?);
            call_method(hub, &device, call.once_there_within(seconds(connect_timeout)?)).await
        }
        Command::Twin { device } => twin(hub, &device),
        Command::Desire { device, desired } => desire(hub, &device, desired),
        Command::Purge { device } => Ok(json!({ "totalMessagesPurged": hub.purge(&device) })),
        Command::Cut { device, reset } => {
            let how = if reset { Cut::Reset } else { Cut::Fin };
            Ok(json!({ "wasConnected": hub.cut(&device, how) }))
        }
        Command::Fault { device, fault } => {
            hub.fault(&device, fault);
            Ok(done)
        }
        Command::HalfOpen { device } => {
            hub.half_open(&device);
            Ok(done)
        }
        Command::RunOutLocks { device } => {
            hub.run_out_locks(&device);
            Ok(done)
        }
        Command::DetachLink { device, condition } => Ok(json!({ "wasAttached": hub.detach_link(&device, &condition) })),
        Command::RefuseFor { ms, code } => {
            hub.refuse_for(Duration::from_millis(ms), code);
            Ok(done)
        }
        Command::Throttle { ms } => {
            hub.throttle(Duration::from_millis(ms));
            Ok(done)
        }
        Command::StopListening => {
            hub.stop_listening().await;
            Ok(done)
        }
        Command::ResumeListening => {
            hub.resume_listening().await.map_err(|error| error.to_string())?;
            Ok(done)
        }
    }
}

async fn call_method(hub: &SimHub, device: &str, call: MethodCall) -> Result<Json, String> {
    Ok(hub.call(device, call).await.map_or_else(
        |error| json!({"error": error.to_string(), "errorCode": error.number()}),
        |answer| answer.to_json(),
    ))
}

fn seconds(of: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(of).map_err(|error| error.to_string())
}

fn twin(hub: &SimHub, device: &str) -> Result<Json, String> {
    let twin = hub.twin(device).ok_or_else(|| format!("there is no device {device}"))?;
    Ok(json!({ "twin": twin }))
}

fn desire(hub: &SimHub, device: &str, desired: Json) -> Result<Json, String> {
    let version = hub.desire(device, desired).map_err(|error| error.to_string())?;
    Ok(json!({ "version": version }))
}

fn add_device(hub: &SimHub, args: &HubArgs, device: &str, x509: bool) -> Result<Json, String> {
    let mut made = match x509 {
        false => json!({ "key": hub.add_key_device(device) }),
        true => written(args, device, hub.add_cert_device(device))?,
    };
    made["connectionString"] = hub.connection_string(device).into();
    Ok(made)
}

fn enroll(hub: &SimHub, args: &HubArgs, registration_id: &str, x509: bool) -> Result<Json, String> {
    match x509 {
        false => Ok(json!({ "key": hub.enroll_key(registration_id) })),
        true => written(args, registration_id, hub.enroll_cert(registration_id)),
    }
}

/// Where a certificate is that was made, if it was.
fn written(args: &HubArgs, device: &str, made: io::Result<ClientCert>) -> Result<Json, String> {
    let write = |cert: ClientCert| {
        let cert_file = args.dir.join(format!("{device}-cert.pem"));
        let key_file = args.dir.join(format!("{device}-key.pem"));
        std::fs::write(&cert_file, &cert.cert_pem)?;
        std::fs::write(&key_file, &cert.key_pem)?;
        Ok(json!({ "certFile": cert_file, "keyFile": key_file, "thumbprint": cert.thumbprint }))
    };
    made.and_then(write).map_err(|error: io::Error| error.to_string())
}
