//! The back end's half, by Microsoft's service SDKs: they send commands through the simulator and receive the feedback.

use std::path::Path;

use fieldbridge::demo::hub::{Options, SimHub, Wire, WireEvent};
use serde_json::{json, Value as Json};
use tokio::process::Command;

use super::{peers, Language, Peer, Sdk, Setup, Way, LIMIT};

/// What the back end sends comes to a device of the same vendor's, whose messages are kept from the start.
struct Site {
    setup: Setup,
    service: Peer,
}

impl Site {
    async fn new(sdk: Sdk, change: impl Fn(&mut Options)) -> Site {
        let setup = Setup::new(sdk.1, |options| {
            options.keeps_from_start = true;
            change(options);
        })
        .await;
        let ca_file = setup.hub.ca_file(setup.folder.path()).unwrap();
        let mut command = sdk.command();
        if sdk.0 == Language::Python {
            command = Command::new(peers().join("python/bin/python"));
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/python_service.py"));
        }
        // The Node SDK takes no authority of a caller's; Node itself does.
        command.env("NODE_EXTRA_CA_CERTS", ca_file);
        Site { setup, service: Peer::run(command) }
    }

    fn hub(&self) -> &SimHub {
        &self.setup.hub
    }

    fn service(&self) -> Json {
        json!({
            "op": "service",
            "way": self.setup.way.name(),
            "connectionString": self.hub().service_connection_string(),
            "host": self.hub().host(),
            "address": self.hub().addr().ip(),
            "caFile": self.hub().ca_file(self.setup.folder.path()).unwrap(),
        })
    }

    async fn connect(&mut self) {
        let service = self.service();
        self.service.tell(service).await;
        self.service.expect("connected").await;
    }

    async fn send(&mut self, device: &str, id: &str) {
        let properties = json!({"command": "set-speed", "odd & key": "ü"});
        let command = json!({"op": "command", "device": device, "messageId": id, "body": "42",
            "ack": "full", "properties": properties});
        self.service.tell(command).await;
    }

    /// A device of the vendor's, and the message that it gets.
    async fn message(&self) -> (Peer, Json) {
        let mut device = Peer::start(Sdk(Language::Node, self.setup.way));
        device.tell(self.setup.with_key()).await;
        let two = [device.next().await, device.next().await];
        let message = two.into_iter().find(|event| event["event"] == "message");
        (device, message.expect("a message beside the connection"))
    }
}

async fn a_command_goes_to_a_device_and_its_feedback_comes_back(way: Way) {
    let mut site = Site::new(Sdk(Language::Node, way), |_| {}).await;
    site.connect().await;
    site.service.tell(json!({"op": "feedback", "release": true})).await;
    site.service.expect("receiving").await;
    // The SDK makes a UUID of what looks like one.
    let id = "0a1b2c3d-0000-4000-8000-000000000001";
    site.send("d", id).await;
    site.service.expect("sent").await;
    let (_device, message) = site.message().await;
    assert_eq!(message["messageId"], id);
    assert_eq!(message["body"], "42");
    assert_eq!(message["properties"]["command"], "set-speed");
    assert_eq!(message["properties"]["odd & key"], "ü");
    // The first time it gives the batch back, and has it again.
    for released in [true, false] {
        let (mut batch, mut settled) = (site.service.next().await, site.service.next().await);
        if batch["event"] != "feedback" {
            std::mem::swap(&mut batch, &mut settled);
        }
        assert_eq!(batch["contentType"], "application/vnd.microsoft.iothub.feedback.json");
        assert_eq!(batch["records"][0]["originalMessageId"], id);
        assert_eq!(batch["records"][0]["statusCode"], "Success");
        assert_eq!(batch["released"], released);
        assert_eq!(settled["error"], Json::Null);
    }
    site.service.tell(json!({"op": "close"})).await;
    site.service.expect("closed").await;
    assert_eq!(site.hub().feedback_waiting(), 0);
}

async fn what_the_hub_does_not_take_is_the_sdks_own_error(way: Way) {
    let mut site = Site::new(Sdk(Language::Node, way), |options| options.queue_limit = 1).await;
    site.connect().await;
    site.send("nobody", "m").await;
    assert_eq!(site.service.expect("error").await["name"], "DeviceNotFoundError");
    site.send("d", "1").await;
    site.service.expect("sent").await;
    site.send("d", "2").await;
    assert_eq!(site.service.expect("error").await["name"], "DeviceMaximumQueueDepthExceededError");
}

async fn a_bearer_token_lets_in_and_a_wrong_one_does_not(way: Way) {
    let mut site = Site::new(Sdk(Language::Node, way), |options| options.bearer = Some("entra".into())).await;
    let mut service = site.service();
    service["bearer"] = "other".into();
    site.service.tell(service.clone()).await;
    site.service.expect("error").await;
    let refused = |event: &WireEvent| matches!(event.what, Wire::Token { status: 401, .. });
    site.hub().wait_wire(1, LIMIT, refused).await.unwrap();
    service["bearer"] = "entra".into();
    site.service.tell(service).await;
    site.service.expect("connected").await;
    site.send("d", "m").await;
    site.service.expect("sent").await;
    assert_eq!(site.hub().queue_len("d"), 1);
}

/// The SDK for Python sends only. Its stack in C looks the hub's name up by itself, so that is an address here.
async fn the_python_sdk_sends(way: Way) {
    let mut site = Site::new(Sdk(Language::Python, way), |options| options.host = options.bind.ip().to_string()).await;
    site.connect().await;
    site.send("d", "m-1").await;
    site.service.expect("sent").await;
    let (_device, message) = site.message().await;
    assert_eq!((&message["messageId"], &message["body"]), (&json!("m-1"), &json!("42")));
    assert_eq!(message["properties"]["odd & key"], "ü");
    let feedback = site.hub().wait_feedback(1, LIMIT).await.unwrap();
    assert_eq!(feedback[0].original_message_id.as_deref(), Some("m-1"));
    site.send("nobody", "m-2").await;
    site.service.expect("error").await;
}

macro_rules! service_agreement {
    ($($test:ident)*) => {
        mod amqp {
            $(#[tokio::test] async fn $test() { super::$test(super::Way::Amqp).await })*
        }
        mod amqp_websocket {
            $(#[tokio::test] async fn $test() { super::$test(super::Way::AmqpWs).await })*
        }
    };
}

service_agreement! {
    a_command_goes_to_a_device_and_its_feedback_comes_back
    what_the_hub_does_not_take_is_the_sdks_own_error
    a_bearer_token_lets_in_and_a_wrong_one_does_not
    the_python_sdk_sends
}
