//! The faults that the simulator plays, and what it refuses.

use std::io;
use std::time::Duration;

use fieldbridge::demo::hub::{Ack, Auth, BagStyle, C2d, Cut, Effect, End, Fault, Options, SimHub, Status, Wire};
use rumqttc::{Packet, PubAck, QoS, SubscribeReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{connect_packet, connected, effects, ends_by, hub, statuses, subscribed, Client, FILTER, LIMIT};

#[tokio::test]
async fn a_lost_puback_brings_the_message_again() {
    let hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    hub.fault("d", Fault::LosePuback);
    hub.send("d", C2d::new("m", "m").ack(Ack::Full)).unwrap();
    let (pkid, _) = client.delivery().await;
    client.puback(pkid).await;
    client.is_closed().await;
    assert_eq!(effects(&hub), [Effect::Lost]);
    let mut client = connected(&hub).await;
    let (pkid, body) = client.delivery().await;
    assert_eq!(body, "m");
    client.puback(pkid).await;
    assert_eq!(hub.wait_feedback(1, LIMIT).await.unwrap()[0].status, Status::Success);
}

#[tokio::test]
async fn the_connection_is_cut_where_the_fault_says() {
    let hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    hub.fault("d", Fault::CutBeforePublish);
    hub.send("d", C2d::new("m", "m")).unwrap();
    client.is_closed().await;
    hub.fault("d", Fault::CutAfterPublish);
    let mut client = connected(&hub).await;
    assert_eq!(client.delivery().await.1, "m");
    client.is_closed().await;
    hub.fault("d", Fault::CutBeforeConnack);
    let mut client = Client::open(&hub).await;
    client.send(Packet::Connect(connect_packet(&hub, "d", false))).await;
    client.is_closed().await;
    hub.fault("d", Fault::CutAfterPubacks(2));
    hub.send("d", C2d::new("n", "n")).unwrap();
    hub.send("d", C2d::new("o", "o")).unwrap();
    let mut client = connected(&hub).await;
    for pkid in 1..=3 {
        assert_eq!(client.delivery().await.0, pkid);
    }
    client.puback(1).await;
    client.settled().await;
    client.puback(2).await;
    client.is_closed().await;
    assert_eq!(connected(&hub).await.delivery().await.1, "o");
}

#[tokio::test]
async fn telemetry_is_stored_and_acknowledged_and_its_faults_show() {
    let hub = hub(|_| {}).await;
    let topic = "devices/d/messages/events/%24.cid=m%201&fieldbridge=command-result";
    let mut client = connected(&hub).await;
    client.telemetry(topic, QoS::AtLeastOnce).await;
    assert_eq!(client.next().await, Some(Packet::PubAck(PubAck::new(7))));
    let stored = &hub.telemetry()[0];
    assert_eq!(stored.property("$.cid"), Some("m 1"));
    assert_eq!(stored.property("fieldbridge"), Some("command-result"));
    for (fault, count) in [(Fault::CutBeforeTelemetry, 1), (Fault::CutAfterTelemetry, 2)] {
        let mut client = connected(&hub).await;
        hub.fault("d", fault);
        client.telemetry(topic, QoS::AtLeastOnce).await;
        client.is_closed().await;
        assert_eq!(hub.telemetry().len(), count);
    }
}

#[tokio::test]
async fn a_half_open_connection_is_alive_to_the_hub_and_dead_to_the_client() {
    let hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    hub.half_open("d");
    hub.send("d", C2d::new("m", "m")).unwrap();
    let is_publish = |event: &fieldbridge::demo::hub::WireEvent| matches!(event.what, Wire::Publish { .. });
    hub.wait_wire(1, LIMIT, is_publish).await.unwrap();
    client.send(Packet::PingReq).await;
    client.is_quiet().await;
    assert!(hub.is_connected("d"));
    let mut second = connected(&hub).await;
    assert_eq!(second.delivery().await.1, "m");
    client.is_quiet().await;
}

#[tokio::test]
async fn a_connection_is_cut_in_order_or_by_a_reset() {
    let hub = hub(|_| {}).await;
    for (cut, expected) in [(Cut::Fin, Ok(0)), (Cut::Reset, Err(io::ErrorKind::ConnectionReset))] {
        let mut client = connected(&hub).await;
        assert!(hub.cut("d", cut));
        assert!(!hub.is_connected("d"));
        let read = timeout(LIMIT, client.0.get_mut().read(&mut [0; 8])).await.unwrap();
        assert_eq!(read.map_err(|error| error.kind()), expected);
    }
}

#[tokio::test]
async fn silence_longer_than_the_keep_alive_and_a_half_ends_the_connection() {
    let hub = hub(|_| {}).await;
    let mut client = Client::open(&hub).await;
    let mut connect = connect_packet(&hub, "d", false);
    connect.keep_alive = 1;
    let begun = std::time::Instant::now();
    client.send(Packet::Connect(connect)).await;
    client.connack().await;
    client.is_closed().await;
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    ends_by(&hub, End::KeepAlive).await;
}

#[tokio::test]
async fn connects_are_refused_or_delayed_for_a_while() {
    let hub = hub(|_| {}).await;
    hub.refuse_for(LIMIT, 3);
    let mut client = Client::open(&hub).await;
    client.send(Packet::Connect(connect_packet(&hub, "d", false))).await;
    assert_eq!(client.connack().await.code as u8, 3);
    client.is_closed().await;
    hub.refuse_for(Duration::ZERO, 3);
    hub.delay_connack(Duration::from_millis(150));
    let begun = std::time::Instant::now();
    let mut client = connected(&hub).await;
    assert!(begun.elapsed() >= Duration::from_millis(150));
    hub.throttle(Duration::from_millis(150));
    let begun = std::time::Instant::now();
    client.telemetry("devices/d/messages/events/", QoS::AtLeastOnce).await;
    assert!(matches!(client.next().await, Some(Packet::PubAck(_))));
    assert!(begun.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_connection_ends_when_its_token_has_expired() {
    let hub = hub(|options| options.token_grace = Duration::ZERO).await;
    let mut client = Client::open(&hub).await;
    let mut connect = connect_packet(&hub, "d", false);
    let user = connect.login.clone().unwrap().username;
    connect.set_login(user, hub.token("d", 1).unwrap());
    client.send(Packet::Connect(connect)).await;
    client.connack().await;
    client.is_closed().await;
    ends_by(&hub, End::TokenExpired).await;
    let mut client = connected(&hub).await;
    assert!(hub.expire_token("d"));
    client.is_closed().await;
}

#[tokio::test]
async fn the_network_can_go_and_come_back_on_the_same_port() {
    let mut hub = hub(|_| {}).await;
    let mut client = subscribed(&hub).await;
    hub.stop_listening().await;
    client.is_closed().await;
    assert!(TcpStream::connect(hub.addr()).await.is_err());
    hub.send("d", C2d::new("m", "m")).unwrap();
    hub.resume_listening().await.unwrap();
    assert_eq!(connected(&hub).await.delivery().await.1, "m");
}

#[tokio::test]
async fn what_the_hub_does_not_allow_closes_the_connection() {
    let hub = hub(|_| {}).await;
    for filter in ["devices/other/messages/devicebound/#", "#", "devices/d/messages/events/#"] {
        let mut client = connected(&hub).await;
        client.subscribe(filter, QoS::AtLeastOnce).await;
        client.is_closed().await;
    }
    for (topic, qos) in [
        ("devices/d/messages/events/", QoS::ExactlyOnce),
        ("devices/other/messages/events/", QoS::AtLeastOnce),
        ("a/topic", QoS::AtMostOnce),
    ] {
        let mut client = connected(&hub).await;
        client.telemetry(topic, qos).await;
        client.is_closed().await;
    }
    let mut client = subscribed(&hub).await;
    for n in 0..4 {
        client.subscribe(&format!("$iothub/{n}/#"), QoS::AtMostOnce).await;
        assert!(matches!(client.next().await, Some(Packet::SubAck(_))));
    }
    client.subscribe("$iothub/5/#", QoS::AtMostOnce).await;
    client.is_closed().await;
    let mut client = connected(&hub).await;
    client.send_raw(&[0x30, 3, 0xFF, 0xFF, 0xFF]).await;
    client.is_closed().await;
    assert!(hub.telemetry().is_empty());
}

#[tokio::test]
async fn qos_2_is_granted_as_1_and_qos_0_completes_on_sending() {
    let hub = hub(|_| {}).await;
    let mut client = connected(&hub).await;
    for (asked, granted) in [(QoS::ExactlyOnce, QoS::AtLeastOnce), (QoS::AtMostOnce, QoS::AtMostOnce)] {
        client.subscribe(FILTER, asked).await;
        match client.next().await {
            Some(Packet::SubAck(suback)) => {
                assert_eq!(suback.return_codes, [SubscribeReasonCode::Success(granted)]);
            }
            other => panic!("{other:?} in place of SUBACK"),
        }
    }
    hub.send("d", C2d::new("m", "m").ack(Ack::Full)).unwrap();
    assert_eq!(client.publish().await.qos, QoS::AtMostOnce);
    assert_eq!(statuses(&hub), [("m".to_owned(), Status::Success)]);
}

#[tokio::test]
async fn any_bytes_can_be_sent_and_a_poisonous_topic_comes_again() {
    let hub = hub(|options| {
        options.bag = BagStyle { raw_dollar: true, ..BagStyle::default() };
    })
    .await;
    let mut client = subscribed(&hub).await;
    hub.send("d", C2d { bag: Some("a=%ZZ&=".into()), ..C2d::new("m", "") }).unwrap();
    assert_eq!(client.publish().await.topic, "devices/d/messages/devicebound/a=%ZZ&=");
    hub.inject("d", [0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert_eq!(client.raw(6).await, [0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]);
    hub.purge("d");
    let poison = C2d { topic: Some(b"\xFF\xFE".to_vec()), ..C2d::new("m", "x") };
    hub.send("d", poison).unwrap();
    for _ in 0..2 {
        let mut client = connected(&hub).await;
        assert_eq!(client.raw(9).await, b"\x32\x07\x00\x02\xFF\xFE\x00\x01x");
    }
}

#[tokio::test]
async fn a_device_with_a_certificate_needs_the_right_one_and_no_password() {
    let hub = SimHub::start(Options::default()).await.unwrap();
    let own = hub.add_cert_device("d").unwrap();
    let other = hub.issue_client_cert("d").unwrap();
    for (cert, password, code) in
        [(Some(&own), "", 0), (Some(&own), "SharedAccessSignature sr=x", 5), (Some(&other), "", 5), (None, "", 5)]
    {
        let mut client = Client::open_tls(&hub, cert).await.unwrap();
        let mut connect = connect_packet(&hub, "d", false);
        let user = connect.login.take().unwrap().username;
        connect.set_login(user, password);
        client.send(Packet::Connect(connect)).await;
        assert_eq!(client.connack().await.code as u8, code);
    }
    hub.add_device("d", Auth::Key(b"key".to_vec()));
    let mut client = Client::open_tls(&hub, None).await.unwrap();
    client.send(Packet::Connect(connect_packet(&hub, "d", false))).await;
    assert_eq!(client.connack().await.code as u8, 0);
}

#[tokio::test]
async fn as_a_process_it_takes_and_gives_lines_of_json() {
    use clap::{Args, FromArgMatches};
    use fieldbridge::demo::hub::cli::{serve, HubArgs};
    use serde_json::{json, Value as Json};
    use tokio::io::{AsyncBufReadExt, BufReader};

    let folder = tempfile::tempdir().unwrap();
    let mut line = vec!["hub", "--plain", "--options", r#"{"window":1}"#, "--dir"];
    line.push(folder.path().to_str().unwrap());
    let matches = HubArgs::augment_args(clap::Command::new("hub")).get_matches_from(line);
    let args = HubArgs::from_arg_matches(&matches).unwrap();
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (input, output) = tokio::io::split(theirs);
    let served = tokio::spawn(serve(args, BufReader::new(input), output));
    let (answers, mut commands) = tokio::io::split(ours);
    let mut answers = BufReader::new(answers).lines();
    let ready: Json = serde_json::from_str(&answers.next_line().await.unwrap().unwrap()).unwrap();
    assert!(folder.path().join("hub-ca.pem").exists());
    assert_eq!(ready["host"], "hub.fieldbridge.test");
    for address in ["address", "webAddress", "amqpAddress"] {
        assert!(ready[address].as_str().unwrap().starts_with("127.0.0.1:"), "{ready}");
    }
    assert!(ready["serviceConnectionString"].as_str().unwrap().contains("SharedAccessKeyName=service;"));

    let mut ask = async |command: Json| -> Json {
        commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        serde_json::from_str(&answers.next_line().await.unwrap().unwrap()).unwrap()
    };
    let added = ask(json!({"op": "addDevice", "device": "d"})).await;
    assert!(added["connectionString"].as_str().unwrap().contains("DeviceId=d;"));
    let sent = ask(json!({"op": "send", "device": "d", "messageId": "m", "body": {"value": 1},
        "properties": {"command": "x", "null": null}, "ack": "full", "ttlMs": 60000}))
    .await;
    assert_eq!(sent, json!({"ok": true, "seq": 1}));
    let refused = ask(json!({"op": "send", "device": "x"})).await;
    assert_eq!(refused, json!({"ok": false, "error": "the hub has no such device"}));
    let away = ask(json!({"op": "call", "device": "d", "method": "reset", "payload": 1, "timeout": 5})).await;
    assert_eq!((&away["ok"], &away["errorCode"]), (&json!(false), &json!(404_103)));
    let late = ask(json!({"op": "telemetry", "wait": 1, "timeoutMs": 1})).await;
    assert_eq!(late["ok"], false);
    for command in [
        json!({"op": "feedback"}),
        json!({"op": "wire"}),
        json!({"op": "purge", "device": "d"}),
        json!({"op": "cut", "device": "d"}),
        json!({"op": "fault", "device": "d", "fault": "lose-puback"}),
        json!({"op": "fault", "device": "d", "fault": {"cut-after-pubacks": 2}}),
        json!({"op": "halfOpen", "device": "d"}),
        json!({"op": "runOutLocks", "device": "d"}),
        json!({"op": "detachLink", "device": "d", "condition": "amqp:link:stolen"}),
        json!({"op": "refuseFor", "ms": 1}),
        json!({"op": "throttle", "ms": 1}),
        json!({"op": "stopListening"}),
        json!({"op": "resumeListening"}),
        json!({"op": "addDevice", "device": "c", "x509": true}),
    ] {
        assert_eq!(ask(command.clone()).await["ok"], true, "{command}");
    }
    assert_eq!(ask(json!({"op": "nonsense"})).await["ok"], false);
    commands.shutdown().await.unwrap();
    timeout(LIMIT, served).await.unwrap().unwrap().unwrap();
}
