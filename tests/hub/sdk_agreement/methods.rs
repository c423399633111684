//! Direct methods, from a back end to a device and back: Microsoft's SDKs and our own `fieldbridge call` at the one
//! end, Microsoft's SDKs at the other.

use std::path::Path;
use std::process::Output;

use fieldbridge::demo::hub::SimHub;
use serde_json::{json, Value as Json};
use tokio::process::Command;

use super::{peers, Language, Peer, Sdk, Setup, Way, LIMIT};

/// A hub on whose address every port is the one that the SDKs insist on and a device that listens for one method.
struct Plant {
    setup: Setup,
    device: Peer,
}

impl Plant {
    /// With a hub that is known by its address where a stack of the SDK's looks names up by itself.
    async fn new(sdk: Sdk, by_address: bool) -> Plant {
        let setup = Setup::new(sdk.1, |options| {
            options.bind.set_port(8883);
            (options.web_port, options.amqp_port) = (443, 5671);
            if by_address {
                options.host = options.bind.ip().to_string();
            }
        })
        .await;
        let mut device = Peer::start(sdk);
        device.tell(setup.with_key()).await;
        device.expect("connected").await;
        device.tell(json!({"op": "method", "name": "set-speed", "status": 202, "payload": {"done": [1, "ü"]}})).await;
        device.expect("answering").await;
        let listens = async {
            while !setup.hub.hears_methods("d") {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, listens).await.expect("the device listens for methods");
        Plant { setup, device }
    }

    fn hub(&self) -> &SimHub {
        &self.setup.hub
    }

    /// The back end's half, by an SDK.
    async fn service(&self, language: Language) -> Peer {
        let ca_file = self.hub().ca_file(self.setup.folder.path()).unwrap();
        let mut command = Sdk(Language::Node, Way::Http).command();
        if language == Language::Python {
            command = Command::new(peers().join("python/bin/python"));
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/python_service.py"));
        }
        let mut service = Peer::run({
            command.env("NODE_EXTRA_CA_CERTS", &ca_file);
            command
        });
        let connect = json!({
            "op": "service",
            "way": "http",
            "connectionString": self.hub().service_connection_string(),
            "address": self.hub().addr().ip(),
            "caFile": ca_file,
        });
        service.tell(connect).await;
        service.expect("connected").await;
        service
    }

    /// Our own, to its end.
    async fn call(&self, args: &[&str]) -> Output {
        let folder = self.setup.folder.path();
        let file = folder.join("service.connection");
        std::fs::write(&file, self.hub().service_connection_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldbridge"));
        command.arg("call").args(args).arg("--connection-string-file").arg(file);
        command.arg("--ca-file").arg(self.hub().ca_file(folder).unwrap());
        command.arg("--address").arg(self.hub().https_addr().to_string());
        command.output().await.unwrap()
    }

    async fn was_called(&mut self, payload: &Json) {
        let mut both = [self.device.next().await, self.device.next().await];
        both.sort_by_key(|event| event["event"] != "method");
        assert_eq!((&both[0]["name"], &both[0]["payload"]), (&json!("set-speed"), payload), "{both:?}");
        assert_eq!((&both[1]["event"], &both[1]["error"]), (&json!("answered"), &Json::Null));
    }
}

fn invoke(device: &str, payload: &Json) -> Json {
    json!({"op": "invoke", "device": device, "name": "set-speed", "payload": payload, "timeout": 30})
}

async fn a_method_is_called_by_an_sdk_and_by_the_program(sdk: Sdk) {
    let mut plant = Plant::new(sdk, false).await;
    let payload = json!({"messageId": "m-1", "value": 42.5});
    let mut service = plant.service(Language::Node).await;
    service.tell(invoke("d", &payload)).await;
    plant.was_called(&payload).await;
    let invoked = service.expect("invoked").await;
    assert_eq!((&invoked["status"], &invoked["payload"]), (&json!(202), &json!({"done": [1, "ü"]})));
    let ours = plant.call(&["d", "set-speed", "42.5", "--message-id", "m-1", "--json"]).await;
    plant.was_called(&payload).await;
    assert!(ours.status.success(), "{ours:?}");
    let answered: Json = serde_json::from_slice(&ours.stdout).unwrap();
    assert_eq!(answered, json!({"status": 202, "payload": {"done": [1, "ü"]}}));
}

macro_rules! called {
    ($($name:ident, $language:ident, $way:ident;)*) => {
        $(mod $name {
            #[tokio::test]
            async fn a_method_is_called_by_an_sdk_and_by_the_program() {
                let sdk = super::Sdk(super::Language::$language, super::Way::$way);
                super::a_method_is_called_by_an_sdk_and_by_the_program(sdk).await;
            }
        })*
    };
}

called! {
    node, Node, Mqtt;
    node_websocket, Node, MqttWs;
    node_amqp, Node, Amqp;
    node_amqp_websocket, Node, AmqpWs;
    python, Python, Mqtt;
}

#[tokio::test]
async fn the_sdk_for_python_calls_too() {
    let mut plant = Plant::new(Sdk(Language::Python, Way::Mqtt), true).await;
    let mut service = plant.service(Language::Python).await;
    service.tell(invoke("d", &json!(7))).await;
    plant.was_called(&json!(7)).await;
    let invoked = service.expect("invoked").await;
    assert_eq!((&invoked["status"], &invoked["payload"]), (&json!(202), &json!({"done": [1, "ü"]})));
}

#[tokio::test]
async fn where_nobody_answers_an_sdk_has_its_own_error_and_the_program_its_exit_status() {
    let plant = Plant::new(Sdk(Language::Node, Way::Mqtt), false).await;
    plant.hub().add_key_device("away");
    let mut service = plant.service(Language::Node).await;
    for device in ["away", "nobody"] {
        service.tell(invoke(device, &json!(1))).await;
        // The SDK finds no code that it knows in what the hub says, and has the status only.
        assert_eq!(service.expect("error").await["text"], "Not found");
    }
    let mut unanswered = invoke("d", &json!(1));
    (unanswered["name"], unanswered["timeout"]) = ("unknown-to-it".into(), 5.into());
    service.tell(unanswered).await;
    assert_eq!(service.expect("error").await["name"], "GatewayTimeoutError");
    for (args, status, said) in [
        (&["away", "m"][..], 75, "is not connected"),
        (&["nobody", "m"], 1, "has no device nobody"),
        (&["d", "not a name"], 1, "does not take the call (HTTP 400"),
        (&["d", "unknown-to-it", "--timeout", "5s"], 75, "before you call it again"),
    ] {
        let output = plant.call(args).await;
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {told}");
        assert!(told.contains(said) && output.stdout.is_empty(), "{args:?}: {told}");
    }
}
