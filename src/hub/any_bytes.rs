//! What must hold for any bytes from a hub, and for any of the daemon's own that go there.

use std::collections::HashMap;

use base64::engine::general_purpose::STANDARD as BASE64;
use base64::Engine as _;
use bytes::BytesMut;
use ring::hmac;
use tokio_util::codec::Decoder as _;

use super::{Settled, Settlement, Settlements, Ticket, WINDOW_MAX};
use crate::hub::auth::sas;
use crate::hub::mqtt::connection::{Codec, Received};
use crate::hub::mqtt::session::{Incoming, Session};
use crate::hub::mqtt::topic::{self, c2d_filter, parse_c2d, AboutTwin};
use crate::ledger::row::EventKind;
use crate::proof::bytes::Source;

const DEVICE: &str = "pump.7";
const PREFIX: &str = "devices/pump.7/messages/devicebound/";

/// A topic is read or called malformed; what was read is read again from a topic written anew; properties are read as
/// they were written, in any spelling and order; a result event carries the message's id whole.
pub fn topic(bytes: &[u8]) {
    any_topic(bytes);
    any_topic(&[PREFIX.as_bytes(), bytes].concat());
    any_call(&[b"$iothub/methods/POST/", bytes].concat());
    any_word_about_a_twin(&[b"$iothub/twin/", bytes].concat());
    written_properties_are_read(&mut Source::new(bytes));
    a_result_event_is_whole(&mut Source::new(bytes));
}

fn any_topic(topic: &[u8]) {
    let message = parse_c2d(DEVICE, topic, b"body");
    assert_eq!(message.body, b"body");
    if let Some(why) = &message.malformed {
        assert!(!why.is_empty() && why.len() < 2000);
        assert_eq!((message.id, message.command, message.expires_at), (None, None, None));
        return;
    }
    for text in [&message.id, &message.command].into_iter().flatten() {
        assert!(!text.is_empty() && text.len() <= 3 * topic.len());
    }
    assert!(message.unread_expiry.as_ref().is_none_or(|text| text.len() <= 60));
    let part = |name: &str, value: Option<String>| value.map(|value| format!("{name}={}&", encoded(&value, |_| 1)));
    let years = 0..=253_402_300_799_999;
    let expiry = message.expires_at.filter(|at| years.contains(&at.0)).map(|at| at.to_string());
    let parts =
        [part("%24.mid", message.id.clone()), part("command", message.command.clone()), part("$.exp", expiry.clone())];
    let again = parse_c2d(DEVICE, (PREFIX.to_owned() + &parts.map(Option::unwrap_or_default).concat()).as_bytes(), b"");
    assert_eq!((again.malformed, again.id, again.command), (None, message.id, message.command));
    assert_eq!(again.expires_at, message.expires_at.filter(|_| expiry.is_some()));
}

/// A call is answered under the request id that it came with, or not at all.
fn any_call(topic: &[u8]) {
    let Some(Ok((id, name))) = topic::called(topic) else { return };
    assert!(!name.is_empty() && name.len() <= 3 * topic.len() && id.iter().all(u8::is_ascii_graphic));
    let answer = topic::answer(200, &id);
    assert!(
        answer.is_ascii() && answer.strip_prefix("$iothub/methods/res/200/?$rid=") == std::str::from_utf8(&id).ok()
    );
}

/// An answer about a twin is known by the same number and status when it is written anew, or is none.
fn any_word_about_a_twin(topic: &[u8]) {
    let about = topic::about_twin(topic).expect("the topic is a twin's");
    if let Some(AboutTwin::Answer { number, status }) = about {
        assert_eq!(topic::about_twin(format!("$iothub/twin/res/{status}/?$rid={number}").as_bytes()), Some(about));
    }
}

/// Writes text for a bag: each byte as `%XX` (1), as `%xx` (2), or as it is where that means the same (0).
fn encoded(text: &str, mut how: impl FnMut(u8) -> u8) -> String {
    let mut out = Vec::new();
    for byte in text.bytes() {
        let is_special = matches!(byte, b'%' | b'&' | b'=' | b'/' | b'?' | b'$' | b'+') || !byte.is_ascii_graphic();
        match how(byte) {
            0 if !is_special => out.push(byte),
            1 => out.extend(format!("%{byte:02X}").bytes()),
            _ => out.extend(format!("%{byte:02x}").bytes()),
        }
    }
    String::from_utf8(out).expect("all of it is ASCII")
}

fn written_properties_are_read(source: &mut Source) {
    let names = ["$.mid", "command", "$.to", "note", "iothub-ack", "commander", "$.cid"];
    let mut bag = String::new();
    let mut first = HashMap::new();
    for number in 0..source.within(0..=8) {
        let name = *source.pick(&names);
        bag.push_str(if number == 0 { ["", "?", "&"][source.within(0..=2)] } else { "&" });
        bag.push_str(&encoded(name, |_| source.u8() % 3));
        if source.u8() % 8 == 7 {
            continue; // the key alone is null
        }
        let value = source.text(40);
        bag.push('=');
        bag.push_str(&encoded(&value, |_| source.u8() % 3));
        if !value.is_empty() {
            first.entry(name).or_insert(value);
        }
    }
    let word = if source.flag() { "devicebound" } else { "deviceBound" };
    let end = if source.flag() { "/" } else { "" };
    let message = parse_c2d(DEVICE, format!("devices/{DEVICE}/messages/{word}/{bag}{end}").as_bytes(), b"");
    assert_eq!(message.malformed, None);
    assert_eq!(message.id.as_ref(), first.get("$.mid"), "{bag}");
    assert_eq!(message.command.as_ref(), first.get("command"), "{bag}");
}

fn a_result_event_is_whole(source: &mut Source) {
    let (event, message) = (source.text(40), source.text(200));
    let topic = topic::event(DEVICE, EventKind::Result, &event, Some(&message));
    let bag = topic.strip_prefix("devices/pump.7/messages/events/").expect("it is the device's own topic");
    // A topic to publish on holds no wildcard, and a bag no more levels (MQTT 3.1.1, 4.7.1).
    assert!(bag.bytes().all(|byte| byte.is_ascii_graphic() && !b"+#/".contains(&byte)), "{bag}");
    let parts: HashMap<String, String> = bag
        .split('&')
        .map(|pair| pair.split_once('=').expect("a property has a value"))
        .map(|(key, value)| (decoded(key), decoded(value)))
        .collect();
    assert_eq!((&parts["$.mid"], &parts["$.cid"]), (&event, &message));
    assert_eq!(parts.len(), 5);
    assert!(!c2d_filter(DEVICE).contains("//"));
}

fn decoded(text: &str) -> String {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).expect("two digits"));
        bytes.extend(piece[2..].bytes());
    }
    String::from_utf8(bytes).expect("what was text is text")
}

/// Packets are the same however the stream is cut into pieces, take bounded memory, and a PUBLISH is read as it was
/// written.
pub fn mqtt(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let step = source.within(1..=17);
    let stream = source.rest();
    let (whole, ended) = packets([stream].into_iter());
    assert_eq!((whole, ended), packets(stream.chunks(step)));

    let mut source = Source::new(bytes);
    let qos = source.u8() % 3;
    let packet_id = if qos == 0 { 0 } else { source.u16().max(1) };
    let topic = source.piece(300).to_vec();
    let payload = source.rest();
    let id = packet_id.to_be_bytes();
    let id = if qos == 0 { &[][..] } else { &id[..] };
    let body = [&(topic.len() as u16).to_be_bytes()[..], &topic, id, payload].concat();
    let mut frame = vec![0x30 | qos << 1];
    let mut length = body.len();
    loop {
        let more = if length >= 128 { 0x80 } else { 0 };
        frame.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    frame.extend(body);
    let expected =
        Received::Publish { qos, packet_id, topic: topic.into(), payload: bytes::Bytes::copy_from_slice(payload) };
    assert_eq!(packets([&frame[..]].into_iter()), (vec![expected], false));
}

/// What a stream says, and whether it is then malformed.
fn packets<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Received>, bool) {
    let mut buffer = BytesMut::new();
    let mut found = Vec::new();
    for chunk in chunks {
        buffer.extend_from_slice(chunk);
        loop {
            match Codec.decode(&mut buffer) {
                Ok(Some(received)) => found.push(received),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
        assert!(buffer.capacity() <= 4 * 1024 * 1024, "{} bytes are held", buffer.capacity());
    }
    (found, false)
}

/// A token names the resource and the expiry it was made for, is signed with the key, and does not hold it.
pub fn sas(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let resource = source.text(100);
    let expires = source.u64() as i64;
    let key = source.rest();
    let token = sas::token(&resource, key, expires);
    let fields = token.strip_prefix("SharedAccessSignature ").expect("the name of the scheme");
    let fields: HashMap<&str, &str> = fields.split('&').map(|pair| pair.split_once('=').expect("a field")).collect();
    assert_eq!(decoded(fields["sr"]), resource);
    assert_eq!(fields["se"].parse(), Ok(expires));
    let signature = BASE64.decode(decoded(fields["sig"])).expect("a signature is base64");
    let signed = format!("{}\n{expires}", fields["sr"]);
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes(), &signature).expect("it is signed");
    let secret = BASE64.encode(key);
    // As it is written there: what stands for a character may lengthen a run of letters behind it.
    assert!(key.len() < 16 || fields["sr"].contains(&secret) || !token.contains(&secret));
}

/// One delivery of the connection that is served.
struct Row {
    number: u64,
    packet_id: u16,
    identity: [u8; 32],
    settled: bool,
    acked: bool,
}

/// A session against the plain rules, over several connections: a PUBACK is for a delivery of this connection that was
/// settled, goes out once and in order; a packet id that could mean two messages ends the connection (G5, G6).
pub fn session(bytes: &[u8]) {
    let mut source = Source::new(bytes);
    let mut stale: Vec<Ticket> = Vec::new();
    while !source.is_empty() {
        let (settlements, mut settled) = Settlements::new(WINDOW_MAX + 1);
        let (mut session, mut rows, mut tickets) = (Session::default(), Vec::new(), Vec::new());
        while !source.is_empty() {
            match source.u8() % 16 {
                0..=7 => match publish(&mut session, &mut rows, source.u8()) {
                    Some(number) => tickets.push(Ticket::new(number, settlements.clone())),
                    None => continue,
                },
                8..=12 if !tickets.is_empty() => {
                    let ticket = tickets.swap_remove(source.within(0..=tickets.len() - 1));
                    assert!(ticket.is_live());
                    ticket.settle(Settlement::Complete(ticket.number), None);
                }
                // One that outlived its connection.
                13 if !stale.is_empty() => {
                    let ticket = stale.swap_remove(source.within(0..=stale.len() - 1));
                    assert!(!ticket.is_live());
                    ticket.settle(Settlement::Complete(ticket.number), None);
                }
                14 => complete(&mut session, &mut rows, u64::from(source.u8()) + 300),
                15 => break,
                _ => {}
            }
            while let Ok(Settled { settlement: Settlement::Complete(number), .. }) = settled.try_recv() {
                complete(&mut session, &mut rows, number);
            }
            assert_eq!(session.waiting(), rows.iter().filter(|row| !row.acked).count());
        }
        drop(settled);
        stale.append(&mut tickets);
    }
}

/// Gives the number of a new delivery.
fn publish(session: &mut Session, rows: &mut Vec<Row>, choice: u8) -> Option<u64> {
    // Few packet ids and fewer messages, so that they meet; or as many as it takes to fill the window.
    let next = rows.len() as u16 + 100;
    let packet_id = if choice & 0x80 != 0 { next } else { u16::from(choice & 7) + 1 };
    let identity = [choice >> 3 & 3; 32];
    let waiting: Vec<&Row> = rows.iter().filter(|row| !row.acked).collect();
    let same = waiting.iter().find(|row| row.packet_id == packet_id);
    let last_acked = rows.iter().rfind(|row| row.acked && row.packet_id == packet_id);
    let repeated = same.map(|row| row.identity == identity);
    let crossed = last_acked.is_some_and(|row| row.identity == identity);
    let full = waiting.len() >= WINDOW_MAX;
    match session.on_publish(packet_id, identity) {
        Incoming::Repeated => assert_eq!(repeated, Some(true)),
        Incoming::Drop(_) => assert!(repeated == Some(false) || repeated.is_none() && (crossed || full)),
        Incoming::New(number) => {
            assert!(repeated.is_none() && !crossed && !full);
            assert!(rows.iter().all(|row| row.number < number));
            rows.push(Row { number, packet_id, identity, settled: false, acked: false });
            return Some(number);
        }
    }
    None
}

fn complete(session: &mut Session, rows: &mut [Row], number: u64) {
    if let Some(row) = rows.iter_mut().find(|row| row.number == number) {
        row.settled = true;
    }
    let ready = session.on_complete(number);
    let due = rows.iter_mut().filter(|row| !row.acked);
    let due: Vec<u16> = due.map_while(|row| row.settled.then(|| (row.acked = true, row.packet_id).1)).collect();
    assert_eq!(ready, due);
}
