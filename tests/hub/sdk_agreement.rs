//! Microsoft's own device SDKs work against the simulator. That is why it is believed.
//!
//! The SDKs connect to the ports of the hub and no others, so each test takes a loopback address of its own. With MQTT
//! they find it as a gateway's, while user names and tokens keep the hub's name; all else is led there by that name.
// The helpers are tests too, and clippy knows only functions marked as such.

mod methods;
mod provisioning;
mod service;
mod twins;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fieldbridge::demo::hub::{Ack, BagStyle, C2d, Effect, Fault, Feedback, Options, SimHub, Status, Wire, WireEvent};
use serde_json::{json, Value as Json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// An interpreter on a busy machine takes its time to start.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Language {
    Python,
    Node,
}

/// An SDK, and the transport that it uses.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sdk(Language, Way);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Mqtt,
    MqttWs,
    Amqp,
    AmqpWs,
    Http,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Mqtt => "mqtt",
            Way::MqttWs => "mqtt-ws",
            Way::Amqp => "amqp",
            Way::AmqpWs => "amqp-ws",
            Way::Http => "http",
        }
    }

    fn is_mqtt(self) -> bool {
        matches!(self, Way::Mqtt | Way::MqttWs)
    }
}

/// Where `tests/peers/setup.sh` puts the SDKs.
pub fn peers() -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/peers");
    std::env::var_os("FIELDBRIDGE_PEERS").map_or(cache, PathBuf::from)
}

impl Sdk {
    fn command(self) -> Command {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
        let (needed, program, script) = match self.0 {
            Language::Python => {
                let program = peers().join("python/bin/python");
                (program.clone(), program, scripts.join("python_sdk.py"))
            }
            Language::Node => {
                let needed = peers().join("node/node_modules/azure-iothub");
                (needed, "node".into(), scripts.join("node_sdk.js"))
            }
        };
        assert!(
            needed.exists(),
            "{} is missing: run tests/peers/setup.sh, which sets up the SDKs these tests need \
             (in $FIELDBRIDGE_PEERS, or else in .cache/peers)",
            needed.display()
        );
        let mut command = Command::new(program);
        command.arg(script).env("NODE_PATH", peers().join("node/node_modules"));
        command
    }
}

/// A process that holds one SDK client.
struct Peer {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Peer {
    fn start(sdk: Sdk) -> Peer {
        Peer::run(sdk.command())
    }

    fn run(mut command: Command) -> Peer {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("the interpreter is installed");
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Peer { input: child.stdin.take().unwrap(), output, _child: child }
    }

    async fn tell(&mut self, command: Json) {
        self.input.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    async fn next(&mut self) -> Json {
        let line = timeout(LIMIT, self.output.next_line()).await.expect("an event in time");
        let line = line.unwrap().expect("the peer runs until it is told to close");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the peer printed {line}"))
    }

    async fn expect(&mut self, event: &str) -> Json {
        let next = self.next().await;
        assert_eq!(next["event"], event, "{next}");
        next
    }
}

struct Setup {
    hub: SimHub,
    way: Way,
    folder: tempfile::TempDir,
}

impl Setup {
    /// A hub on a loopback address where the ports are free that the SDK insists on, with the device `d`.
    async fn new(way: Way, change: impl Fn(&mut Options)) -> Setup {
        let mut why = None;
        for _ in 0..20 {
            let octet = || fastrand::u8(1..255);
            let mut options = Options::default();
            options.bind.set_ip([127, octet(), octet(), octet()].into());
            match way {
                Way::Mqtt => options.bind.set_port(8883),
                Way::Amqp => options.amqp_port = 5671,
                Way::MqttWs | Way::AmqpWs | Way::Http => options.web_port = 443,
            }
            change(&mut options);
            match SimHub::start(options).await {
                Ok(hub) => {
                    hub.add_key_device("d");
                    return Setup { hub, way, folder: tempfile::tempdir().unwrap() };
                }
                Err(error) => why = Some(error),
            }
        }
        panic!(
            "no loopback address with free ports ({}); below 1024 they are for root, or for all after \
             `sysctl net.ipv4.ip_unprivileged_port_start=443`",
            why.unwrap()
        );
    }

    fn connect(&self, key: Option<String>) -> Json {
        let mut command = json!({
            "op": "connect",
            "gateway": self.hub.addr().ip(),
            "host": self.hub.host(),
            "device": "d",
            "way": self.way.name(),
            "caFile": self.hub.ca_file(self.folder.path()).unwrap(),
        });
        match key {
            Some(key) => command["key"] = key.into(),
            None => {
                let cert = self.hub.add_cert_device("d").unwrap();
                for (field, pem) in [("certFile", cert.cert_pem), ("keyFile", cert.key_pem)] {
                    let path = self.folder.path().join(field);
                    std::fs::write(&path, pem).unwrap();
                    command[field] = json!(path);
                }
            }
        }
        command
    }

    fn with_key(&self) -> Json {
        self.connect(self.hub.device_key_base64("d"))
    }

    async fn is_subscribed(&self) {
        let wanted = |event: &WireEvent| match &event.what {
            Wire::Subscribed { filter, .. } => filter.starts_with("devices/d/"),
            Wire::Attached { address } => address.ends_with("/messages/devicebound"),
            Wire::Request { what, .. } => what == "GET devicebound",
            _ => false,
        };
        self.hub.wait_wire(1, LIMIT, wanted).await.unwrap();
    }

    async fn feedback(&self, count: usize) -> Vec<(Option<String>, Status)> {
        let feedback = self.hub.wait_feedback(count, LIMIT).await.unwrap();
        let short = |f: Feedback| (f.original_message_id, f.status);
        feedback.into_iter().map(short).collect()
    }

    async fn connections(&self, count: usize) {
        let wanted = |event: &WireEvent| matches!(event.what, Wire::Connected { .. });
        self.hub.wait_wire(count, LIMIT, wanted).await.unwrap();
    }
}

async fn a_command_reaches_the_application_and_is_completed(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    peer.expect("connected").await;
    setup.is_subscribed().await;
    let mut message = C2d::new("My Message ID", r#"{"value":42.5}"#)
        .ack(Ack::Full)
        .ttl(Duration::from_secs(60))
        .property("command", "set speed")
        .property("odd & key=+%/", "ü + & = % / ' ( ) * !")
        .property("empty", "");
    message.properties.push(("null".into(), None));
    message.correlation_id = Some("fake+corid".into());
    message.content_type = Some("application/json".into());
    message.content_encoding = Some("utf-8".into());
    setup.hub.send("d", message).unwrap();
    let got = peer.expect("message").await;
    assert_eq!(got["messageId"], "My Message ID");
    assert_eq!(got["correlationId"], "fake+corid");
    let is_http = sdk.1 == Way::Http;
    // What the SDK makes nothing of over HTTP.
    if !is_http {
        assert_eq!(got["contentType"], "application/json");
        assert_eq!(got["contentEncoding"], "utf-8");
    }
    assert_eq!(got["body"], r#"{"value":42.5}"#);
    let properties = &got["properties"];
    assert_eq!(properties["command"], "set speed");
    assert_eq!(properties["empty"], "");
    // Known oddities of the SDKs; and a header can't have such a name, nor null.
    let null = match sdk {
        Sdk(Language::Node, way) if way.is_mqtt() => json!("undefined"),
        Sdk(_, Way::Http) => json!(""),
        _ => Json::Null,
    };
    assert_eq!(properties["null"], null);
    if !is_http {
        assert_eq!(properties["odd & key=+%/"], "ü + & = % / ' ( ) * !");
    }
    assert_eq!(setup.feedback(1).await, [(Some("My Message ID".into()), Status::Success)]);
    peer.tell(json!({"op": "close"})).await;
    peer.expect("closed").await;
}

async fn other_spellings_of_the_properties_are_understood(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    peer.expect("connected").await;
    setup.is_subscribed().await;
    let styles = [
        BagStyle { properties_first: true, lower_case_to: true, ..BagStyle::default() },
        BagStyle { raw_dollar: true, old_escapes: true, ..BagStyle::default() },
        BagStyle { always_exp: true, seven_decimals: true, ..BagStyle::default() },
    ];
    for style in styles {
        setup.hub.set_options(|options| options.bag = style);
        setup.hub.send("d", C2d::new("m 1", "").property("p'(q)", "*!")).unwrap();
        let got = peer.expect("message").await;
        assert_eq!(got["messageId"], "m 1");
        assert_eq!(got["properties"]["p'(q)"], "*!");
        assert_eq!(got["body"], "");
    }
}

async fn what_was_not_completed_comes_again(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    peer.expect("connected").await;
    setup.is_subscribed().await;
    for (count, fault) in [(2, Fault::LosePuback), (3, Fault::CutAfterPublish)] {
        setup.hub.fault("d", fault);
        setup.hub.send("d", C2d::new("m", "again").ack(Ack::Full)).unwrap();
        assert_eq!(peer.expect("message").await["body"], "again");
        assert_eq!(peer.expect("message").await["body"], "again", "{fault:?}");
        setup.connections(count).await;
        assert_eq!(setup.feedback(count - 1).await.len(), count - 1);
    }
    let is_unknown = |event: &WireEvent| matches!(event.what, Wire::Puback { effect: Effect::Unknown, .. });
    assert!(!setup.hub.wire().iter().any(is_unknown));
}

async fn what_waits_offline_is_delivered_when_the_device_is_back(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    peer.expect("connected").await;
    setup.is_subscribed().await;
    peer.tell(json!({"op": "close"})).await;
    peer.expect("closed").await;
    assert!(setup.hub.is_subscribed("d"), "the SDK keeps its session");
    setup.hub.send("d", C2d::new("m", "offline").ack(Ack::Full)).unwrap();
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    let two = [peer.next().await, peer.next().await];
    assert!(two.iter().any(|event| event["body"] == "offline"), "{two:?}");
    assert_eq!(setup.feedback(1).await[0].1, Status::Success);
}

async fn telemetry_arrives_as_it_was_sent(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    peer.expect("connected").await;
    // Over HTTP they are headers.
    let odd = if sdk.1 == Way::Http { ("odd-key", "+ = %") } else { ("odd & key", "ü + = %") };
    let properties = json!({odd.0: odd.1, "plain": "x"});
    let send = json!({"op": "send", "body": "21.5", "messageId": "t 1", "properties": properties});
    peer.tell(send).await;
    let stored = setup.hub.wait_telemetry(1, LIMIT).await.unwrap().remove(0);
    peer.expect("sent").await;
    assert_eq!(stored.device, "d");
    assert_eq!(stored.body, b"21.5");
    assert_eq!(stored.property("$.mid"), Some("t 1"));
    assert_eq!(stored.property(odd.0), Some(odd.1));
    assert_eq!(stored.property("plain"), Some("x"));
}

async fn a_wrong_key_is_told_as_the_sdks_own_error(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.connect(Some("d3Jvbmc=".into()))).await;
    assert_eq!(peer.expect("error").await["name"], "UnauthorizedError");
    // An untrusted certificate would give the same error in one of the SDKs.
    let refused = |event: &WireEvent| matches!(event.what, Wire::Refused { code: 5, .. });
    setup.hub.wait_wire(1, LIMIT, refused).await.unwrap();
}

async fn a_certificate_is_accepted(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.connect(None)).await;
    peer.expect("connected").await;
    setup.is_subscribed().await;
    setup.hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    peer.expect("message").await;
    assert_eq!(setup.feedback(1).await[0].1, Status::Success);
}

async fn what_is_rejected_or_abandoned_ends_as_that(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |options| options.max_delivery_count = 2).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    peer.expect("connected").await;
    setup.is_subscribed().await;
    setup.hub.send("d", C2d::new("no", "").ack(Ack::Full).property("settle", "reject")).unwrap();
    peer.expect("message").await;
    assert_eq!(peer.expect("settled").await["error"], Json::Null);
    assert_eq!(setup.feedback(1).await[0], (Some("no".into()), Status::Rejected));
    setup.hub.send("d", C2d::new("later", "").ack(Ack::Full).property("settle", "abandon")).unwrap();
    for _ in 0..2 {
        peer.expect("message").await;
        assert_eq!(peer.expect("settled").await["error"], Json::Null);
    }
    assert_eq!(setup.feedback(2).await[1], (Some("later".into()), Status::DeliveryCountExceeded));
}

async fn what_was_sent_before_the_device_came_waits_for_it(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |options| options.keeps_from_start = true).await;
    setup.hub.send("d", C2d::new("m", "early").ack(Ack::Full)).unwrap();
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    let two = [peer.next().await, peer.next().await];
    assert!(two.iter().any(|event| event["body"] == "early"), "{two:?}");
    assert_eq!(setup.feedback(1).await[0].1, Status::Success);
}

async fn a_lost_settlement_brings_the_message_again(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.with_key()).await;
    peer.expect("connected").await;
    setup.is_subscribed().await;
    setup.hub.fault("d", Fault::LoseSettlement);
    setup.hub.send("d", C2d::new("m", "again").ack(Ack::Full)).unwrap();
    assert_eq!(peer.expect("message").await["body"], "again");
    let lost = |event: &WireEvent| matches!(event.what, Wire::Settled { effect: Effect::Lost, .. });
    setup.hub.wait_wire(1, LIMIT, lost).await.unwrap();
    setup.hub.run_out_locks("d");
    assert_eq!(peer.expect("message").await["body"], "again");
    assert_eq!(setup.feedback(1).await[0].1, Status::Success);
}

async fn over_http_a_wrong_key_is_an_error_of_the_first_poll(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.connect(Some("d3Jvbmc=".into()))).await;
    peer.expect("connected").await;
    let refused = |event: &WireEvent| matches!(event.what, Wire::Request { status: 401, .. });
    setup.hub.wait_wire(1, LIMIT, refused).await.unwrap();
}

async fn a_refused_token_is_told_as_the_sdks_own_error(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let mut peer = Peer::start(sdk);
    peer.tell(setup.connect(Some("d3Jvbmc=".into()))).await;
    assert_eq!(peer.expect("error").await["name"], "UnauthorizedError");
    let refused = |event: &WireEvent| matches!(event.what, Wire::Token { status: 401, .. });
    setup.hub.wait_wire(1, LIMIT, refused).await.unwrap();
}

macro_rules! agreement {
    ($name:ident, $language:ident, $way:ident: $($test:ident)*) => {
        mod $name {
            const SDK: super::Sdk = super::Sdk(super::Language::$language, super::Way::$way);

            $(#[tokio::test] async fn $test() { super::$test(SDK).await })*
        }
    };
}

macro_rules! agreement_over_mqtt {
    ($($name:ident, $language:ident, $way:ident;)*) => {
        $(agreement! { $name, $language, $way:
            a_command_reaches_the_application_and_is_completed
            other_spellings_of_the_properties_are_understood
            what_was_not_completed_comes_again
            what_waits_offline_is_delivered_when_the_device_is_back
            telemetry_arrives_as_it_was_sent
            a_wrong_key_is_told_as_the_sdks_own_error
        })*
    };
}

agreement_over_mqtt! {
    python, Python, Mqtt;
    python_websocket, Python, MqttWs;
    node, Node, Mqtt;
    node_websocket, Node, MqttWs;
}

agreement! { python_x509, Python, Mqtt: a_certificate_is_accepted }
agreement! { node_x509, Node, Mqtt: a_certificate_is_accepted }

agreement! { node_http, Node, Http:
    a_command_reaches_the_application_and_is_completed
    what_is_rejected_or_abandoned_ends_as_that
    what_was_sent_before_the_device_came_waits_for_it
    a_lost_settlement_brings_the_message_again
    telemetry_arrives_as_it_was_sent
    over_http_a_wrong_key_is_an_error_of_the_first_poll
    a_certificate_is_accepted
}

macro_rules! agreement_over_amqp {
    ($($name:ident, $way:ident;)*) => {
        $(agreement! { $name, Node, $way:
            a_command_reaches_the_application_and_is_completed
            what_is_rejected_or_abandoned_ends_as_that
            what_was_sent_before_the_device_came_waits_for_it
            what_waits_offline_is_delivered_when_the_device_is_back
            a_lost_settlement_brings_the_message_again
            telemetry_arrives_as_it_was_sent
            a_refused_token_is_told_as_the_sdks_own_error
        })*
    };
}

agreement_over_amqp! {
    node_amqp, Amqp;
    node_amqp_websocket, AmqpWs;
}

agreement! { node_amqp_x509, Node, Amqp: a_certificate_is_accepted }
