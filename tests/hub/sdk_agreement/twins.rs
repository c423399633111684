//! Device twins, from a back end to a device and back: Microsoft's SDKs for devices at the one end, their SDK for back
//! ends at the other.

use fieldbridge::demo::hub::Fault;
use serde_json::{json, Value as Json};
use tokio::process::Command;

use super::{Language, Peer, Sdk, Setup, Way, LIMIT};

/// A hub on whose address every port is the one that the SDKs insist on.
async fn setup(way: Way) -> Setup {
    Setup::new(way, |options| {
        options.bind.set_port(8883);
        (options.web_port, options.amqp_port) = (443, 5671);
    })
    .await
}

async fn connected(sdk: Sdk, setup: &Setup) -> Peer {
    let mut device = Peer::start(sdk);
    device.tell(setup.with_key()).await;
    device.expect("connected").await;
    device
}

/// The back end's half: the registry of devices.
async fn registry(setup: &Setup) -> Peer {
    let ca_file = setup.hub.ca_file(setup.folder.path()).unwrap();
    let mut command: Command = Sdk(Language::Node, Way::Http).command();
    command.env("NODE_EXTRA_CA_CERTS", ca_file);
    let mut registry = Peer::run(command);
    let to = setup.hub.service_connection_string();
    registry.tell(json!({"op": "registry", "connectionString": to, "address": setup.hub.addr().ip()})).await;
    registry.expect("connected").await;
    registry
}

/// The properties of a section, without what the hub puts there.
fn plain(section: &Json) -> Json {
    let properties = section.as_object().unwrap().iter().filter(|(name, _)| !name.starts_with('$'));
    properties.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>().into()
}

/// The next event of a kind that is not about what is there already.
async fn delta(device: &mut Peer, version: u64) -> Json {
    loop {
        let told = device.expect("desired").await["delta"].clone();
        if told["$version"] == version {
            return told;
        }
    }
}

async fn a_twin_goes_from_a_back_end_to_a_device_and_back(sdk: Sdk) {
    let setup = setup(sdk.1).await;
    setup.hub.desire("d", json!({"speed": 1, "mode": {"of": ["a", 2]}})).unwrap();
    let mut device = connected(sdk, &setup).await;
    device.tell(json!({"op": "twin"})).await;
    let twin = device.expect("twin").await;
    assert_eq!(plain(&twin["desired"]), json!({"speed": 1, "mode": {"of": ["a", 2]}}));
    assert_eq!((&twin["desired"]["$version"], &twin["reported"]["$version"]), (&json!(2), &json!(1)));
    let listens = async {
        while !setup.hub.hears_desired("d") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, listens).await.expect("the device hears of what is desired");

    let mut registry = registry(&setup).await;
    registry.tell(json!({"op": "getTwin", "device": "d"})).await;
    let got = registry.expect("got").await;
    assert_eq!(got["properties"]["desired"]["speed"], 1);
    let patch = json!({"properties": {"desired": {"speed": 42.5, "mode": null}}});
    let update = |etag: &Json| json!({"op": "updateTwin", "device": "d", "patch": patch, "etag": etag});
    registry.tell(update(&got["etag"])).await;
    let updated = registry.expect("updated").await;
    assert_eq!(plain(&updated["properties"]["desired"]), json!({"speed": 42.5}));
    let told = delta(&mut device, 3).await;
    assert_eq!(told["speed"], 42.5);
    assert_eq!(told.get("mode"), Some(&Json::Null));
    // Whoever has seen an older one does not change it.
    registry.tell(update(&got["etag"])).await;
    let refused = registry.expect("error").await;
    assert_eq!(refused["name"], "InvalidEtagError", "{refused}");

    let acknowledgement = json!({"speed": {"value": 42.5, "ac": 200, "av": 3, "ad": "ü"}});
    device.tell(json!({"op": "report", "patch": acknowledgement})).await;
    device.expect("reported").await;
    registry.tell(json!({"op": "getTwin", "device": "d"})).await;
    let got = registry.expect("got").await;
    assert_eq!(plain(&got["properties"]["reported"]), acknowledgement);
    assert_eq!(got["properties"]["reported"]["$version"], 2);
    registry.tell(json!({"op": "getTwin", "device": "nobody"})).await;
    assert_eq!(registry.expect("error").await["name"], "DeviceNotFoundError");
}

macro_rules! agreed {
    ($($name:ident, $language:ident, $way:ident;)*) => {
        $(mod $name {
            #[tokio::test]
            async fn a_twin_goes_from_a_back_end_to_a_device_and_back() {
                let sdk = super::Sdk(super::Language::$language, super::Way::$way);
                super::a_twin_goes_from_a_back_end_to_a_device_and_back(sdk).await;
            }
        })*
    };
}

agreed! {
    node, Node, Mqtt;
    node_websocket, Node, MqttWs;
    python, Python, Mqtt;
}

#[tokio::test]
async fn what_the_hub_refuses_an_sdk_tells_as_its_own_error() {
    // The SDK for Node passes over the status.
    let setup = setup(Way::Mqtt).await;
    let mut device = connected(Sdk(Language::Python, Way::Mqtt), &setup).await;
    device.tell(json!({"op": "twin"})).await;
    device.expect("twin").await;
    for status in [429, 503, 400] {
        setup.hub.fault("d", Fault::RefuseTwin(status));
        device.tell(json!({"op": "report", "patch": {"a": 1}})).await;
        device.expect("error").await;
    }
    device.tell(json!({"op": "report", "patch": {"a": 2}})).await;
    device.expect("reported").await;
    assert_eq!(setup.hub.reported("d"), json!({"a": 2}));
}
