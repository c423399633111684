//! The device interface over HTTPS, request by request.

use std::time::Duration;

use fieldbridge::demo::hub::{Ack, C2d, Discarded, Effect, Fault, Settlement, SimHub, Status, Wire, WireEvent};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{hub, LIMIT, SHORT_LOCK};

const VERSION: &str = "api-version=2021-04-12";
const RECEIVE: &str = "GET /devices/d/messages/deviceBound";

#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn lock(&self) -> String {
        self.header("etag").unwrap().trim_matches('"').to_owned()
    }
}

pub(super) async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Option<Answer> {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut bytes)).await.unwrap().ok()?;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())).unwrap();
    Some(Answer { status, headers: lines.map(header).collect(), body: body.to_owned() })
}

/// `None` where the hub ends the connection without an answer.
async fn ask_as(hub: &SimHub, token: &str, line: &str, query: &str, headers: &str, body: &str) -> Option<Answer> {
    let stream = TcpStream::connect(hub.https_addr()).await.unwrap();
    let request = format!(
        "{line}?{VERSION}{query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: {token}\r\n\
         Content-Length: {}\r\n{headers}\r\n{body}",
        hub.host(),
        body.len(),
    );
    exchange(stream, &request).await
}

async fn ask(hub: &SimHub, line: &str, query: &str, headers: &str) -> Option<Answer> {
    ask_as(hub, &hub.token("d", 3600).unwrap(), line, query, headers, "").await
}

async fn receive(hub: &SimHub) -> Answer {
    ask(hub, RECEIVE, "", "").await.unwrap()
}

async fn complete(hub: &SimHub, lock: &str) -> Option<Answer> {
    let if_match = format!("If-Match: {lock}\r\n");
    ask(hub, &format!("DELETE /devices/d/messages/devicebound/{lock}"), "", &if_match).await
}

/// A hub of which `d` has asked once, so that its messages are kept.
async fn polled(change: impl FnOnce(&mut fieldbridge::demo::hub::Options)) -> SimHub {
    let hub = hub(change).await;
    assert_eq!(receive(&hub).await.status, 204);
    hub
}

#[tokio::test]
async fn a_message_comes_with_all_its_headers_and_is_completed_by_its_etag() {
    let hub = polled(|_| {}).await;
    let mut message = C2d::new("m 1", r#"{"value":42.5}"#)
        .ack(Ack::Full)
        .ttl(Duration::from_secs(60))
        .property("command", "set speed")
        .property("ünknown", "a header can't have that name");
    message.correlation_id = Some("c".into());
    message.user_id = Some("u".into());
    message.content_type = Some("application/json".into());
    message.content_encoding = Some("utf-8".into());
    hub.send("d", message).unwrap();
    let answer = receive(&hub).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"value":42.5}"#));
    for (name, value) in [
        ("iothub-messageid", "m 1"),
        ("iothub-correlationid", "c"),
        ("iothub-userid", "u"),
        ("iothub-to", "/devices/d/messages/deviceBound"),
        ("iothub-ack", "full"),
        ("iothub-contenttype", "application/json"),
        ("iothub-contentencoding", "utf-8"),
        ("iothub-sequencenumber", "1"),
        ("iothub-deliverycount", "0"),
        ("iothub-app-command", "set speed"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("iothub-expiry").is_some() && answer.header("iothub-enqueuedtime").is_some());
    assert!(answer.header("etag").unwrap().starts_with('"'));
    assert_eq!(receive(&hub).await.status, 204, "it is locked");
    assert_eq!(complete(&hub, &answer.lock()).await.unwrap().status, 204);
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::Success);
    assert_eq!(complete(&hub, &answer.lock()).await.unwrap().status, 412);
}

#[tokio::test]
async fn a_lock_runs_out_and_is_then_lost() {
    let hub = polled(|options| (options.lock, options.bare_etag) = (SHORT_LOCK, true)).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    let first = receive(&hub).await;
    assert_eq!(first.header("etag"), Some(first.lock().as_str()));
    let second = loop {
        let answer = receive(&hub).await;
        if answer.status == 200 {
            break answer;
        }
    };
    assert_eq!(second.header("iothub-deliverycount"), Some("0"), "a lock that runs out is no attempt");
    assert_eq!(complete(&hub, &first.lock()).await.unwrap().status, 412);
    assert_eq!(effects(&hub), [Effect::Late]);
    hub.set_options(|options| options.lock = LIMIT);
    hub.run_out_locks("d");
    let third = receive(&hub).await;
    assert_eq!(complete(&hub, &third.lock()).await.unwrap().status, 204);
}

#[tokio::test]
async fn what_is_abandoned_comes_again_until_it_was_too_often() {
    let hub = polled(|options| options.max_delivery_count = 2).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    for count in ["0", "1"] {
        let answer = receive(&hub).await;
        assert_eq!(answer.header("iothub-deliverycount"), Some(count));
        let line = format!("POST /devices/d/messages/devicebound/{}/abandon", answer.lock());
        assert_eq!(ask(&hub, &line, "", "").await.unwrap().status, 204);
    }
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::DeliveryCountExceeded);
    assert_eq!(receive(&hub).await.status, 204);
}

#[tokio::test]
async fn what_is_rejected_is_told_to_the_sender() {
    let hub = polled(|_| {}).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Negative)).unwrap();
    let line = format!("DELETE /devices/d/messages/devicebound/{}", receive(&hub).await.lock());
    assert_eq!(ask(&hub, &line, "&reject", "If-Match: \"other\"\r\n").await.unwrap().status, 412);
    assert_eq!(ask(&hub, &line, "&reject", "").await.unwrap().status, 204);
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::Rejected);
}

#[tokio::test]
async fn who_shows_nothing_good_is_not_let_in() {
    let hub = polled(|_| {}).await;
    for token in ["", "SharedAccessSignature nonsense", &hub.token("d", -3600).unwrap()] {
        let refused = ask_as(&hub, token, RECEIVE, "", "", "").await.unwrap();
        assert_eq!(refused.status, 401);
        assert!(refused.header("www-authenticate").is_some());
        assert!(refused.body.contains("ErrorCode:IotHubUnauthorizedAccess"));
    }
    let unknown = RECEIVE.replace("/d/", "/nobody/");
    assert_eq!(ask(&hub, &unknown, "", "").await.unwrap().status, 404);
    hub.fault("d", Fault::RefuseToken);
    assert_eq!(receive(&hub).await.status, 401);
    assert_eq!(receive(&hub).await.status, 204, "a fault happens once");
    hub.set_enabled("d", false);
    assert_eq!(receive(&hub).await.status, 401);
    hub.set_enabled("d", true);
    hub.refuse_for(LIMIT, 5);
    assert_eq!(receive(&hub).await.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_certificate_lets_in_without_a_token() {
    let hub = SimHub::start(fieldbridge::demo::hub::Options::default()).await.unwrap();
    let cert = hub.add_cert_device("d").unwrap();
    let request = format!("{RECEIVE}?{VERSION} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let own = super::tls(&hub, hub.https_addr(), Some(&cert)).await.unwrap();
    assert_eq!(exchange(own, &request).await.unwrap().status, 204);
    let none = super::tls(&hub, hub.https_addr(), None).await.unwrap();
    assert_eq!(exchange(none, &request).await.unwrap().status, 401);
}

#[tokio::test]
async fn telemetry_is_stored_with_its_properties() {
    let hub = hub(|_| {}).await;
    let token = hub.token("d", 3600).unwrap();
    let events = "POST /devices/d/messages/events";
    let headers = "iothub-messageid: e-1\r\niothub-correlationid: m-1\r\niothub-contenttype: application/json\r\n\
                   iothub-app-outcome: done\r\n";
    assert_eq!(ask_as(&hub, &token, events, "", headers, "21.5").await.unwrap().status, 204);
    let stored = hub.take_telemetry().remove(0);
    assert_eq!(stored.body, b"21.5");
    let found = ["$.mid", "$.cid", "$.ct", "outcome"].map(|name| stored.property(name).unwrap());
    assert_eq!(found, ["e-1", "m-1", "application/json", "done"]);
    let large = "x".repeat(256 * 1024 + 1);
    assert_eq!(ask_as(&hub, &token, events, "", "", &large).await.unwrap().status, 413);
    hub.fault("d", Fault::CutBeforeTelemetry);
    assert!(ask_as(&hub, &token, events, "", "", "lost").await.is_none());
    hub.fault("d", Fault::CutAfterTelemetry);
    assert!(ask_as(&hub, &token, events, "", "", "stored").await.is_none());
    assert_eq!(hub.take_telemetry().remove(0).body, b"stored");
}

#[tokio::test]
async fn a_fault_loses_a_settlement_or_its_confirmation() {
    let hub = polled(|_| {}).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    let lock = receive(&hub).await.lock();
    hub.fault("d", Fault::LoseSettlement);
    assert!(complete(&hub, &lock).await.is_none());
    assert_eq!(hub.queue_len("d"), 1);
    hub.fault("d", Fault::CutAfterSettlement);
    assert!(complete(&hub, &lock).await.is_none());
    assert_eq!(hub.queue_len("d"), 0);
    assert_eq!(effects(&hub), [Effect::Lost, Effect::Completed]);
}

fn effects(hub: &SimHub) -> Vec<Effect> {
    hub.wire().into_iter().filter_map(settled).collect()
}

fn settled(event: WireEvent) -> Option<Effect> {
    match event.what {
        Wire::Settled { settlement: Settlement::Complete, effect, .. } => Some(effect),
        _ => None,
    }
}

#[tokio::test]
async fn a_delivery_may_be_lost_before_and_after_its_lock() {
    let hub = polled(|_| {}).await;
    hub.send("d", C2d::new("m", "x")).unwrap();
    hub.fault("d", Fault::CutBeforePublish);
    assert!(ask(&hub, RECEIVE, "", "").await.is_none());
    hub.fault("d", Fault::CutInFrame);
    assert!(ask(&hub, RECEIVE, "", "").await.is_none());
    assert_eq!(receive(&hub).await.status, 204, "it is locked for whom it did not reach");
    hub.run_out_locks("d");
    assert_eq!(receive(&hub).await.status, 200);
}

#[tokio::test]
async fn nothing_is_kept_for_a_device_that_was_never_seen_unless_so_asked() {
    let hub = hub(|_| {}).await;
    hub.send("d", C2d::new("m", "x")).unwrap();
    assert_eq!(receive(&hub).await.status, 204);
    hub.send("d", C2d::new("m", "x")).unwrap();
    assert_eq!(receive(&hub).await.status, 200);
    let hub = super::hub(|options| options.keeps_from_start = true).await;
    hub.send("d", C2d::new("m", "x")).unwrap();
    assert_eq!(receive(&hub).await.status, 200);
}

#[tokio::test]
async fn what_was_kept_before_the_first_subscription_over_mqtt_is_lost_to_it() {
    let change = |options: &mut fieldbridge::demo::hub::Options| {
        (options.keeps_from_start, options.discarded) = (true, Discarded::Rejected);
    };
    let hub = hub(change).await;
    hub.send("d", C2d::new("m", "x").ack(Ack::Full)).unwrap();
    assert_eq!(hub.queue_len("d"), 1);
    let mut client = super::subscribed(&hub).await;
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::Rejected);
    client.is_quiet().await;
}

#[tokio::test]
async fn a_lock_that_the_hub_never_gave_out_says_whether_it_lets_the_device_in_and_changes_nothing() {
    let hub = polled(|_| {}).await;
    hub.send("d", C2d::new("m", "x")).unwrap();
    let unknown = "9c1f4b7e-0b7c-4d5e-8f3a-52d1a2b3c4d5";
    let line = format!("DELETE /devices/d/messages/devicebound/{unknown}");
    assert_eq!(complete(&hub, unknown).await.unwrap().status, 412);
    assert_eq!(ask_as(&hub, "no token", &line, "", "", "").await.unwrap().status, 401);
    let stranger = line.replace("/d/", "/nobody/");
    assert_eq!(ask(&hub, &stranger, "", "").await.unwrap().status, 404);
    let answer = receive(&hub).await;
    assert_eq!((answer.status, answer.header("iothub-deliverycount")), (200, Some("0")));
    // The lock of one device's message completes nothing of another's.
    hub.add_key_device("e");
    let line = format!("DELETE /devices/e/messages/devicebound/{}", answer.lock());
    let token = hub.token("e", 3600).unwrap();
    assert_eq!(ask_as(&hub, &token, &line, "", "", "").await.unwrap().status, 412);
    assert_eq!(effects(&hub), [Effect::Unknown, Effect::Foreign]);
}
