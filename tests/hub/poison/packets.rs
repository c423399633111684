//! Packets that no hub should send. The connection ends, nothing was acknowledged on it that had not been, and the
//! next one serves.

use super::command;
use crate::support::broker::{Broker, Client, Packet};
use crate::support::slave::Slave;
use crate::support::{pump, times_said, Daemon, Site};

fn stage() -> (Site, Broker, Slave) {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    (site, broker, slave)
}

/// Executes one command, which also has the daemon come back soon when its connection is cut next.
fn work(client: &mut Client, number: u16) {
    client.deliver(1, &format!("good-{number}"), &command("set", number));
    let (pubacks, events) = client.collect(1, 1);
    assert_eq!((pubacks.as_slice(), &events[0].1["status"]), (&[1][..], &"succeeded".into()));
}

#[test]
fn a_packet_that_is_malformed_or_has_no_business_here_ends_the_connection_and_the_next_one_serves() {
    let packets: [&[u8]; 22] = [
        b"\x00\x00",                                     // type 0
        b"\xf0\x00",                                     // type 15
        b"\x30\xff\xff\xff\xff\x7f",                     // a remaining length of five bytes
        b"\x32\xff\xff\xff\x7f",                         // 256 MB
        b"\x32\x00",                                     // a PUBLISH of nothing
        b"\x32\x01\x00",                                 // half a topic length
        b"\x32\x03\x00\x09a",                            // a topic that is longer than its packet
        b"\x32\x03\x00\x01a",                            // no packet id
        b"\x32\x04\x00\x01a\x00",                        // half a packet id
        b"\x32\x05\x00\x01a\x00\x00",                    // packet id 0
        b"\x36\x05\x00\x01a\x00\x01",                    // QoS 3
        b"\x34\x05\x00\x01a\x00\x01",                    // QoS 2
        b"\x20\x02\x00\x00",                             // a second CONNACK
        b"\x20\x00",                                     // a CONNACK of nothing
        b"\x40\x00",                                     // a PUBACK of nothing
        b"\x90\x03\x00\x01\x63",                         // a SUBACK with an unknown code
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", // CONNECT
        b"\x82\x06\x00\x01\x00\x01#\x00",                // SUBSCRIBE
        b"\x50\x02\x00\x01",                             // PUBREC
        b"\x62\x02\x00\x01",                             // PUBREL
        b"\xc0\x00",                                     // PINGREQ
        b"\xe0\x00",                                     // DISCONNECT
    ];
    let (site, broker, slave) = stage();
    let daemon = site.start();
    let mut client = broker.serve();
    for (number, bytes) in (1..).zip(packets) {
        work(&mut client, number);
        client.write(bytes);
        client.closes();
        client = broker.serve();
    }
    work(&mut client, 100);
    assert_eq!(slave.requests(), packets.len() + 1);
    let log = site.path("daemon.log");
    assert!(daemon.terminate().success());
    let log = std::fs::read_to_string(log).expect("there is a log");
    assert_eq!(times_said(&log, "the hub sent something that is not understood"), packets.len());
}

#[test]
fn packets_that_mean_nothing_are_passed_over() {
    let (site, broker, slave) = stage();
    let _daemon = site.start();
    let mut client = broker.serve();
    client.puback(77);
    client.puback(0xffff);
    client.write(b"\xd0\x00\xd0\x00");
    client.suback(1, 1);
    work(&mut client, 1);
    assert_eq!(slave.requests(), 1);
}

#[test]
fn a_message_in_pieces_is_put_together() {
    let (site, broker, slave) = stage();
    let _daemon = site.start();
    let mut client = broker.serve();
    let topic = b"devices/pump/messages/devicebound/%24.mid=m-1";
    let body = command("pulse", 7);
    let packet =
        [&[0x32, (2 + topic.len() + 2 + body.len()) as u8, 0, topic.len() as u8][..], topic, &[0, 9], body.as_bytes()];
    for byte in packet.concat() {
        client.write(&[byte]);
    }
    let (pubacks, events) = client.collect(1, 1);
    assert_eq!((pubacks.as_slice(), &events[0].1["status"]), (&[9][..], &"succeeded".into()));
    assert_eq!(slave.writes(), [(2, 7)]);
}

#[test]
fn a_message_that_is_cut_in_the_middle_never_was() {
    let (site, broker, slave) = stage();
    let _daemon = site.start();
    let mut client = broker.serve();
    for length in [1, 2, 5, 20, 60] {
        let topic = b"devices/pump/messages/devicebound/%24.mid=m-1";
        let body = command("pulse", 7);
        let length_byte = (2 + topic.len() + 2 + body.len()) as u8;
        let packet = [&[0x32, length_byte, 0, topic.len() as u8][..], topic, &[0, 9], body.as_bytes()].concat();
        work(&mut client, length);
        client.write(&packet[..usize::from(length)]);
        drop(client);
        client = broker.serve();
    }
    work(&mut client, 100);
    assert_eq!(slave.count(2, 7), 0);
}

#[test]
fn an_answer_to_connect_that_is_none_is_tried_again() {
    let (site, broker, slave) = stage();
    let _daemon = site.start();
    for bytes in [b"\x20\x02\x00\x2a".as_slice(), b"\x32\x05\x00\x01a\x00\x01"] {
        let mut client = broker.accept();
        client.write(bytes);
        client.closes();
    }
    // The first letters read like the beginning of a long PUBACK.
    broker.accept().write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    work(&mut broker.serve(), 1);
    assert_eq!(slave.requests(), 1);
}

#[test]
fn random_bytes_in_place_of_packets_do_not_take_the_daemon_down() {
    let seed = std::env::var("FIELDBRIDGE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    println!("FIELDBRIDGE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (site, broker, _slave) = stage();
    let mut daemon = Some(site.start());
    let mut client = broker.serve();
    for number in 1..=15 {
        work(&mut client, number);
        let bytes: Vec<u8> = (0..random.usize(1..300)).map(|_| random.u8(..)).collect();
        client.write(&bytes);
        // What was sent may be the beginning of a long packet: the daemon waits for the rest then, until the
        // connection ends.
        drop(client);
        client = broker.serve();
    }
    work(&mut client, 100);
    let ended = daemon.take().map(Daemon::terminate).unwrap();
    assert_eq!(ended.code(), Some(0), "it was the same process all along");
    while client.next() != Packet::Closed {}
}
