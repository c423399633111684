//! Twins: what a device is answered and told, and what the back end is by the REST calls.

use fieldbridge::demo::hub::{Fault, SimHub};
use rumqttc::{Packet, Publish, QoS};
use serde_json::{json, Value as Json};
use tokio::net::TcpStream;

use super::https::{exchange, Answer};
use super::{connected, hub, Client};

const ANSWERS: &str = "$iothub/twin/res/#";
const CHANGES: &str = "$iothub/twin/PATCH/properties/desired/#";
const GET: &str = "$iothub/twin/GET/?$rid=";
const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=";

async fn listen(client: &mut Client, filter: &str) {
    client.subscribe(filter, QoS::AtMostOnce).await;
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
}

async fn ask(client: &mut Client, topic: String, body: impl Into<Vec<u8>>) {
    client.send(Packet::Publish(Publish::new(topic, QoS::AtMostOnce, body.into()))).await;
}

/// The topic and the payload of what comes.
async fn told(client: &mut Client) -> (String, Json) {
    let publish = client.publish().await;
    assert_eq!((publish.qos, publish.retain), (QoS::AtMostOnce, false));
    (publish.topic, serde_json::from_slice(&publish.payload).unwrap_or(Json::Null))
}

/// A REST call, over a connection of its own.
async fn rest(hub: &SimHub, method: &str, device: &str, etag: &str, body: &Json) -> Answer {
    let stream = TcpStream::connect(hub.https_addr()).await.unwrap();
    let (token, body) = (hub.service_token(60), body.to_string());
    let request = format!(
        "{method} /twins/{device}?api-version=2021-04-12 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Authorization: {token}\r\nIf-Match: {etag}\r\nContent-Length: {}\r\n\r\n{body}",
        hub.host(),
        body.len(),
    );
    exchange(stream, &request).await.unwrap()
}

#[tokio::test]
async fn a_device_reads_its_twin_and_reports_to_it() {
    let hub = hub(|_| {}).await;
    hub.desire("d", json!({"speed": 1})).unwrap();
    let mut client = connected(&hub).await;
    listen(&mut client, ANSWERS).await;
    ask(&mut client, format!("{GET}abc"), "").await;
    let (topic, twin) = told(&mut client).await;
    assert_eq!(topic, "$iothub/twin/res/200/?$rid=abc");
    assert_eq!(twin, json!({"desired": {"speed": 1, "$version": 2}, "reported": {"$version": 1}}));
    ask(&mut client, format!("{REPORT}1"), json!({"a": {"b": 1}}).to_string()).await;
    assert_eq!(told(&mut client).await, ("$iothub/twin/res/204/?$rid=1&$version=2".into(), Json::Null));
    assert_eq!(hub.reported("d"), json!({"a": {"b": 1}}));
    for (body, status) in
        [("[1]", 400), ("{", 400), ("{\"a.b\":1}", 400), (&json!({"a": vec!["x"; 9000]}).to_string(), 413)]
    {
        ask(&mut client, format!("{REPORT}2"), body).await;
        assert_eq!(told(&mut client).await.0, format!("$iothub/twin/res/{status}/?$rid=2"));
    }
    hub.fault("d", Fault::RefuseTwin(429));
    ask(&mut client, format!("{GET}3"), "").await;
    assert_eq!(told(&mut client).await.0, "$iothub/twin/res/429/?$rid=3");
    hub.fault("d", Fault::LoseTwin);
    ask(&mut client, format!("{GET}4"), "").await;
    client.is_quiet().await;
    ask(&mut client, "$iothub/twin/GET/".into(), "").await;
    client.is_closed().await;
}

#[tokio::test]
async fn whoever_does_not_listen_hears_no_answer_and_of_no_change_and_nothing_is_kept() {
    let hub = hub(|_| {}).await;
    let mut client = connected(&hub).await;
    ask(&mut client, format!("{GET}1"), "").await;
    hub.desire("d", json!({"speed": 1})).unwrap();
    client.is_quiet().await;
    listen(&mut client, CHANGES).await;
    client.is_quiet().await;
    hub.desire("d", json!({"speed": 2, "gone": null})).unwrap();
    let (topic, patch) = told(&mut client).await;
    assert_eq!(topic, "$iothub/twin/PATCH/properties/desired/?$version=3");
    assert_eq!(patch, json!({"speed": 2, "gone": null, "$version": 3}));
    drop(client);
    let mut client = connected(&hub).await;
    hub.desire("d", json!({"speed": 3})).unwrap();
    client.is_quiet().await;
}

#[tokio::test]
async fn a_back_end_reads_and_changes_a_twin_unless_it_has_changed_since() {
    let hub = hub(|_| {}).await;
    let read = rest(&hub, "GET", "d", "*", &Json::Null).await;
    let twin: Json = serde_json::from_str(&read.body).unwrap();
    let etag = twin["etag"].to_string();
    let patch = json!({"properties": {"desired": {"speed": 1}}, "tags": {"hall": 3}});
    let changed = rest(&hub, "PATCH", "d", &etag, &patch).await;
    let changed: Json = serde_json::from_str(&changed.body).unwrap();
    assert_eq!((&changed["tags"]["hall"], &changed["properties"]["desired"]["speed"]), (&json!(3), &json!(1)));
    assert_eq!(rest(&hub, "PATCH", "d", &etag, &patch).await.status, 412);
    let whole = json!({"properties": {"desired": {"mode": "a"}}, "tags": {}});
    let replaced: Json = serde_json::from_str(&rest(&hub, "PUT", "d", "*", &whole).await.body).unwrap();
    assert_eq!(replaced["properties"]["desired"]["speed"], Json::Null);
    assert_eq!((&replaced["properties"]["desired"]["mode"], &replaced["tags"]), (&json!("a"), &json!({})));
    for (method, device, body, status) in [
        ("GET", "nobody", json!({}), 404),
        ("DELETE", "d", json!({}), 405),
        ("PATCH", "d", json!({"properties": {"desired": {"a b": 1}}}), 400),
        ("PATCH", "d", json!({"properties": {"desired": 7}}), 400),
    ] {
        assert_eq!(rest(&hub, method, device, "*", &body).await.status, status, "{method} {device} {body}");
    }
}
