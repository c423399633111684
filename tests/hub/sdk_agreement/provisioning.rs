//! Microsoft's clients of the Device Provisioning Service register with the simulator.

use base64::prelude::{Engine as _, BASE64_STANDARD};
use fieldbridge::demo::hub::{Auth, Enrollment, Outcome, Wire};
use fieldbridge::provisioning::group;
use serde_json::{json, Value as Json};

use super::{Peer, Sdk, Setup};

const ID: &str = "sn-007";

/// Has the SDK register, and gives what it says of that.
async fn registered(sdk: Sdk, setup: &Setup, credential: Json) -> Json {
    let ca_file = setup.hub.ca_file(setup.folder.path()).unwrap();
    let mut command = sdk.command();
    // The Node SDK takes no authority of a caller's; Node itself does.
    command.env("NODE_EXTRA_CA_CERTS", &ca_file);
    let mut peer = Peer::run(command);
    let mut register = json!({
        "op": "register",
        "gateway": setup.hub.addr().ip(),
        "host": setup.hub.host(),
        "idScope": "0ne00000000",
        "registrationId": ID,
        "way": setup.way.name(),
        "caFile": ca_file,
    });
    register.as_object_mut().unwrap().extend(credential.as_object().unwrap().clone());
    peer.tell(register).await;
    peer.next().await
}

fn assert_assigned(said: &Json, setup: &Setup) {
    let expected = json!({ "event": "registered", "status": "assigned", "hub": setup.hub.host(), "device": ID });
    assert_eq!(*said, expected);
}

async fn a_device_with_a_key_is_assigned(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |options| options.registration_polls = 2).await;
    let key = setup.hub.enroll_key(ID);
    let said = registered(sdk, &setup, json!({ "key": key })).await;
    assert_assigned(&said, &setup);
    assert_eq!(setup.hub.device_key_base64(ID), Some(key), "the hub has the device");
    assert_eq!(setup.hub.registrations(ID), 1);
}

async fn a_derived_key_is_known_by_its_group(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let group = BASE64_STANDARD.decode(setup.hub.enroll_group()).unwrap();
    let said = registered(sdk, &setup, json!({ "key": group::device_key(&group, ID) })).await;
    assert_assigned(&said, &setup);
}

async fn a_certificate_is_assigned(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let cert = setup.hub.enroll_cert(ID).unwrap();
    let mut credential = json!({});
    for (field, pem) in [("certFile", cert.cert_pem), ("keyFile", cert.key_pem)] {
        let path = setup.folder.path().join(field);
        std::fs::write(&path, pem).unwrap();
        credential[field] = json!(path);
    }
    let said = registered(sdk, &setup, credential).await;
    assert_assigned(&said, &setup);
}

async fn a_wrong_key_and_a_failed_assignment_are_errors(sdk: Sdk) {
    let setup = Setup::new(sdk.1, |_| {}).await;
    let key = setup.hub.enroll_key(ID);
    let said = registered(sdk, &setup, json!({ "key": "d3Jvbmc=" })).await;
    assert_eq!(said["event"], "error", "{said}");
    let refused = |what: &Wire| matches!(what, Wire::Refused { .. });
    assert!(setup.hub.wire().iter().any(|event| refused(&event.what)));
    let auth = Auth::Key(BASE64_STANDARD.decode(&key).unwrap());
    setup.hub.enroll(ID, Enrollment { outcome: Outcome::Failed, ..Enrollment::new(auth) });
    let said = registered(sdk, &setup, json!({ "key": key })).await;
    assert!(said["event"] == "error" || said["status"] == "failed", "{said}");
    assert_eq!(setup.hub.device_key_base64(ID), None);
}

macro_rules! agreement {
    ($($name:ident, $language:ident, $way:ident;)*) => {
        $(mod $name {
            use super::super::{Language, Way};

            const SDK: super::Sdk = super::Sdk(Language::$language, Way::$way);

            #[tokio::test]
            async fn a_device_with_a_key_is_assigned() {
                super::a_device_with_a_key_is_assigned(SDK).await;
            }

            #[tokio::test]
            async fn a_derived_key_is_known_by_its_group() {
                super::a_derived_key_is_known_by_its_group(SDK).await;
            }

            #[tokio::test]
            async fn a_certificate_is_assigned() {
                super::a_certificate_is_assigned(SDK).await;
            }

            #[tokio::test]
            async fn a_wrong_key_and_a_failed_assignment_are_errors() {
                super::a_wrong_key_and_a_failed_assignment_are_errors(SDK).await;
            }
        })*
    };
}

agreement! {
    python, Python, Mqtt;
    python_websocket, Python, MqttWs;
    node_http, Node, Http;
    node_mqtt, Node, Mqtt;
    node_mqtt_websocket, Node, MqttWs;
}
