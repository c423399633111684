//! Direct methods: who hears them, whose answer is whose, and what the back end is told by the REST call.

use std::sync::Arc;
use std::time::Duration;

use fieldbridge::demo::hub::{CallError, Fault, MethodAnswer, MethodCall, Options, SimHub, Wire, WireEvent};
use rumqttc::{Packet, Publish, QoS, Unsubscribe};
use serde_json::{json, Value as Json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::https::{exchange, Answer};
use super::{connected, hub, Client, LIMIT};

const FILTER: &str = "$iothub/methods/POST/#";
/// A caller's patience that is to run out.
const BRIEF: Duration = Duration::from_secs(2);

/// A hub that a test's tasks share, and its device `d`, which listens.
async fn listening(change: impl FnOnce(&mut Options)) -> (Arc<SimHub>, Client) {
    let hub = hub(change).await;
    let mut client = connected(&hub).await;
    listen(&mut client).await;
    (Arc::new(hub), client)
}

async fn listen(client: &mut Client) {
    client.subscribe(FILTER, QoS::AtMostOnce).await;
    assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
}

fn call(hub: &Arc<SimHub>, call: MethodCall) -> JoinHandle<Result<MethodAnswer, CallError>> {
    let hub = hub.clone();
    tokio::spawn(async move { hub.call("d", call).await })
}

/// The topic and the payload of the request that comes.
async fn request(client: &mut Client) -> (String, String) {
    let Some(Packet::Publish(publish)) = client.next().await else { panic!("a request should have come") };
    assert_eq!((publish.qos, publish.pkid, publish.retain), (QoS::AtMostOnce, 0, false));
    (publish.topic, String::from_utf8(publish.payload.to_vec()).unwrap())
}

async fn answer(client: &mut Client, status: &str, request: &str, body: &str) {
    let topic = format!("$iothub/methods/res/{status}/?$rid={request}");
    client.send(Packet::Publish(Publish::new(topic, QoS::AtMostOnce, body.to_owned()))).await;
}

/// The REST call, over a connection of its own.
async fn invoke(hub: &SimHub, token: &str, device: &str, body: &Json) -> Answer {
    let stream = TcpStream::connect(hub.https_addr()).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "POST /twins/{device}/methods?api-version=2021-04-12 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Authorization: {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        hub.host(),
        body.len(),
    );
    exchange(stream, &request).await.unwrap()
}

/// What stands as JSON in the text of an error.
fn said(answer: &Answer) -> Json {
    let outer: Json = serde_json::from_str(&answer.body).unwrap();
    serde_json::from_str(outer["Message"].as_str().unwrap()).unwrap()
}

fn is_passed_over(event: &WireEvent) -> bool {
    matches!(event.what, Wire::Answered { known: false, .. })
}

#[tokio::test]
async fn a_call_reaches_a_device_that_listens_and_its_answer_comes_back() {
    let (hub, mut client) = listening(|_| {}).await;
    let calling = call(&hub, MethodCall::new("set-speed", json!({"messageId": "m-1", "value": 42.5})));
    let (topic, payload) = request(&mut client).await;
    assert_eq!(topic, "$iothub/methods/POST/set-speed/?$rid=1");
    assert_eq!(payload, r#"{"messageId":"m-1","value":42.5}"#);
    answer(&mut client, "202", "1", r#"{"status":"pending"}"#).await;
    let answered = calling.await.unwrap().unwrap();
    assert_eq!(answered, MethodAnswer { status: 202, payload: json!({"status": "pending"}) });
    let is_answer = |what: &Wire| *what == Wire::Answered { request: Some(1), status: 202, known: true };
    assert!(hub.wire().iter().any(|event| is_answer(&event.what)));
}

#[tokio::test]
async fn a_device_that_does_not_listen_is_not_online() {
    let hub = hub(|_| {}).await;
    let calls = |device: &'static str| hub.call(device, MethodCall::new("m", 1));
    assert_eq!(calls("nobody").await, Err(CallError::UnknownDevice));
    assert_eq!(calls("d").await, Err(CallError::NotOnline));
    let mut client = connected(&hub).await;
    assert_eq!(calls("d").await, Err(CallError::NotOnline), "it is there, and has not subscribed");
    listen(&mut client).await;
    assert!(hub.hears_methods("d"));
    let mut unsubscribe = Unsubscribe::new(FILTER);
    unsubscribe.pkid = 10;
    client.send(Packet::Unsubscribe(unsubscribe)).await;
    assert!(matches!(client.next().await, Some(Packet::UnsubAck(_))));
    assert_eq!(calls("d").await, Err(CallError::NotOnline));
}

#[tokio::test]
async fn a_patient_caller_waits_for_the_device_to_come() {
    let hub = Arc::new(hub(|_| {}).await);
    let calling = call(&hub, MethodCall::new("m", 1).once_there_within(LIMIT));
    let mut client = connected(&hub).await;
    listen(&mut client).await;
    assert_eq!(request(&mut client).await.0, "$iothub/methods/POST/m/?$rid=1");
    answer(&mut client, "200", "1", "").await;
    assert_eq!(calling.await.unwrap(), Ok(MethodAnswer { status: 200, payload: Json::Null }));
}

#[tokio::test]
async fn a_call_that_is_over_takes_no_answer_and_is_not_made_again() {
    let (hub, mut client) = listening(|_| {}).await;
    let calling = call(&hub, MethodCall::new("slow", 1).within(BRIEF));
    assert_eq!(request(&mut client).await.0, "$iothub/methods/POST/slow/?$rid=1");
    assert_eq!(calling.await.unwrap(), Err(CallError::NoAnswer));
    answer(&mut client, "200", "1", "").await;
    hub.wait_wire(1, LIMIT, is_passed_over).await.unwrap();
    client.is_quiet().await;
    hub.fault("d", Fault::LoseMethodAnswer);
    let calling = call(&hub, MethodCall::new("m", 1).within(BRIEF));
    request(&mut client).await;
    answer(&mut client, "200", "2", "").await;
    assert_eq!(calling.await.unwrap(), Err(CallError::NoAnswer));
}

#[tokio::test]
async fn requests_are_numbered_anew_on_each_connection_and_answered_on_their_own() {
    let (hub, mut client) = listening(|_| {}).await;
    let first = call(&hub, MethodCall::new("m", 1));
    request(&mut client).await;
    let mut second_client = connected(&hub).await;
    listen(&mut second_client).await;
    // The answer to what went over the first connection.
    answer(&mut second_client, "200", "1", "").await;
    hub.wait_wire(1, LIMIT, is_passed_over).await.unwrap();
    assert!(!first.is_finished());
    let second = call(&hub, MethodCall::new("m", 2));
    assert_eq!(request(&mut second_client).await, ("$iothub/methods/POST/m/?$rid=1".into(), "2".into()));
    answer(&mut second_client, "200", "1", "").await;
    assert_eq!(second.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_the_devices_fault() {
    let (hub, mut client) = listening(|_| {}).await;
    for (number, body) in [("1", "{"), ("2", &"x".repeat(128 * 1024 + 1))] {
        let calling = call(&hub, MethodCall::new("m", 1));
        request(&mut client).await;
        answer(&mut client, "200", number, body).await;
        assert_eq!(calling.await.unwrap(), Err(CallError::BadAnswer));
    }
    client.send(Packet::Publish(Publish::new("$iothub/methods/res/fine/?$rid=3", QoS::AtMostOnce, ""))).await;
    client.is_closed().await;
}

#[tokio::test]
async fn the_rest_call_passes_on_status_and_payload() {
    let (hub, mut client) = listening(|_| {}).await;
    let calling = {
        let hub = hub.clone();
        tokio::spawn(async move {
            let body = json!({"methodName": "reset", "responseTimeoutInSeconds": 30});
            invoke(&hub, &hub.service_token(60), "d", &body).await
        })
    };
    assert_eq!(request(&mut client).await, ("$iothub/methods/POST/reset/?$rid=1".into(), String::new()));
    answer(&mut client, "404", "1", r#"["no such"]"#).await;
    let answered = calling.await.unwrap();
    assert_eq!(answered.status, 200, "what the device means by its status is not the hub's");
    assert_eq!(serde_json::from_str::<Json>(&answered.body).unwrap(), json!({"status": 404, "payload": ["no such"]}));
}

#[tokio::test]
async fn the_rest_call_says_what_is_wrong_as_the_hub_does() {
    let hub = hub(|options| options.bearer = Some("entra".into())).await;
    let reset = json!({"methodName": "reset"});
    for token in ["", "Bearer other", &hub.token("d", 60).unwrap(), &hub.service_token(-3600)] {
        assert_eq!(invoke(&hub, token, "d", &reset).await.status, 401, "{token}");
    }
    let token = hub.service_token(60);
    for token in ["Bearer entra", &token] {
        let away = invoke(&hub, token, "d", &reset).await;
        assert_eq!((away.status, away.header("iothub-errorcode")), (404, Some("DeviceNotOnline")));
        assert_eq!(said(&away)["errorCode"], 404_103);
    }
    assert_eq!(said(&invoke(&hub, &token, "nobody", &reset).await)["errorCode"], 404_001);
    let hasty = json!({"methodName": "reset", "responseTimeoutInSeconds": 1});
    assert_eq!(invoke(&hub, &token, "d", &hasty).await.status, 400);
    let long = json!({"methodName": "reset", "payload": "x".repeat(128 * 1024)});
    assert_eq!(invoke(&hub, &token, "d", &long).await.status, 413);
    hub.refuse_for(LIMIT, 5);
    assert_eq!(invoke(&hub, &token, "d", &reset).await.header("retry-after"), Some("1"));
}
