//! What an instrument says by itself, and who hears it. Proves G12 where an event meets an answer: an event confirms
//! and refuses nothing, and what may be an answer is no event.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::modbus_tcp::Server;
use crate::peers::{self, hasty, listening, patient, Peer, Pty, Running, PATIENCE, SHORT};
use crate::support::{eventually, Site};
use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::bus::{Hearing, Overheard};
use fieldbridge::config::{BusKind, Cut, Endpoint, Wake};
use fieldbridge::peripheral::exchange::{Answer, Request};
use fieldbridge::peripheral::frame::{Ends, Frame};
use fieldbridge::peripheral::Events;
use regex_lite::Regex;

/// Longer than a line is waited for until it is quiet, several times over.
const CALM: Duration = Duration::from_secs(3);

/// What was heard for a device: lines, and `?` for what may be an answer.
struct Heard {
    all: Arc<Mutex<Vec<String>>>,
    _hearing: Hearing,
}

impl Heard {
    fn by(line: &Running, device: &str, events: &str) -> Heard {
        let all = Arc::<Mutex<Vec<String>>>::default();
        let told = all.clone();
        let hearing = line.bus.listen(device, &Events::new(events).unwrap(), move |heard| {
            told.lock().unwrap().push(match heard {
                Overheard::Line { text, .. } => text.to_owned(),
                Overheard::Doubtful => "?".to_owned(),
            });
        });
        Heard { all, _hearing: hearing }
    }

    /// These were heard by now, and nothing else.
    async fn are(&self, expected: &[&str]) {
        patient(async {
            while self.all.lock().unwrap().len() < expected.len() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        assert_eq!(*self.all.lock().unwrap(), expected);
    }
}

fn kind(pty: &Pty) -> BusKind {
    BusKind::Serial { endpoint: pty.port(115_200), cut: b"\r\n".to_vec().into(), wake: None }
}

/// A line that is open and quiet, so that what comes next begins a line.
async fn start() -> (Running, Pty) {
    let pty = Pty::new();
    let line = Running::with_timeout(kind(&pty), SHORT);
    is_quiet(&line).await;
    (line, pty)
}

/// Waits until the line may be asked, which it may when it has been quiet since its opening.
async fn is_quiet(line: &Running) {
    let mut turn = patient(line.bus.turn()).await.unwrap();
    patient(turn.clear(&send("T\r\n", "^OK"))).await;
}

fn request(text: &str, expect: Option<&str>) -> Request {
    let regex = |pattern: &str| Regex::new(pattern).unwrap();
    Request::line(text.as_bytes().to_vec(), expect.map(regex), None)
}

/// A command that is sure to be answered in time.
fn send(text: &str, expect: &str) -> Call {
    Call { timeout: Some(PATIENCE), ..peers::call(0, request(text, Some(expect))) }
}

fn said(text: &str) -> Wire {
    Wire::Answered(Answer::Line(text.into()))
}

#[tokio::test]
async fn what_comes_while_nothing_is_asked_is_heard_by_those_whose_event_it_is() {
    let (line, mut pty) = start().await;
    let (alarms, doors) = (Heard::by(&line, "alarms", "^ALARM"), Heard::by(&line, "doors", "DOOR"));
    pty.peer.say(b"ALARM 1\r\nnoise\r\nALARM ").await;
    pty.peer.say(b"DOOR\r\nDOOR 2\r\n").await;
    alarms.are(&["ALARM 1", "ALARM DOOR"]).await;
    doors.are(&["ALARM DOOR", "DOOR 2"]).await;
    // It costs a command nothing.
    let asking = line.call_meanwhile(send("T\r\n", "^OK (.*)"));
    pty.peer.hear(b"T\r\n").await;
    pty.peer.say(b"OK 1\r\n").await;
    assert_eq!(patient(asking).await.unwrap(), said("1"));
    alarms.are(&["ALARM 1", "ALARM DOOR"]).await;
}

#[tokio::test]
async fn an_event_in_the_middle_of_an_exchange_is_no_answer_even_where_any_line_is_one() {
    let (line, mut pty) = start().await;
    let heard = Heard::by(&line, "d", "^ALARM");
    for expect in [None, Some("^OK (.*)")] {
        let call = Call { timeout: Some(PATIENCE), ..peers::call(0, request("T\r\n", expect)) };
        let asking = line.call_meanwhile(call);
        pty.peer.hear(b"T\r\n").await;
        pty.peer.say(b"ALARM 3\r\nOK 7\r\nALARM 4\r\n").await;
        assert_eq!(patient(asking).await.unwrap(), said(if expect.is_some() { "7" } else { "OK 7" }));
    }
    heard.are(&["ALARM 3", "ALARM 4", "ALARM 3", "ALARM 4"]).await;
    // And nothing but events is no answer at all.
    let asking = line.call_meanwhile(listening(0, request("T\r\n", None)));
    pty.peer.hear(b"T\r\n").await;
    pty.peer.say(b"ALARM 5\r\n").await;
    let Wire::BadReply(why) = patient(asking).await.unwrap() else { panic!("an event has confirmed it") };
    assert!(why.contains("give the command an `expect`") && why.contains("ALARM 5"), "{why}");
}

#[tokio::test]
async fn what_may_be_the_answer_is_no_event_and_confirms_nothing_and_a_reading_takes_it() {
    let (line, mut pty) = start().await;
    let heard = Heard::by(&line, "d", "^OK");
    let asking = line.call_meanwhile(listening(0, request("T\r\n", Some("^OK (.*)"))));
    pty.peer.hear(b"T\r\n").await;
    pty.peer.say(b"OK 1\r\n").await;
    assert!(matches!(patient(asking).await.unwrap(), Wire::BadReply(_)));
    heard.are(&["?"]).await;
    let Request::Line { bytes, expect, picture, refuse, until, .. } = request("R\r\n", Some("^OK (.*)")) else {
        unreachable!()
    };
    let reading = Request::Line { bytes, expect, picture, refuse, until, is_reading: true };
    let asking = line.call_meanwhile(Call { timeout: Some(PATIENCE), ..peers::call(0, reading) });
    // What is owed to the first one has to lapse before.
    pty.peer.hear(b"R\r\n").await;
    pty.peer.say(b"OK 2\r\n").await;
    assert_eq!(patient(asking).await.unwrap(), said("2"));
    heard.are(&["?", "?"]).await;
}

#[tokio::test]
async fn a_late_answer_and_the_rest_of_one_are_no_events_and_what_answers_nothing_is() {
    let (line, mut pty) = start().await;
    let heard = Heard::by(&line, "d", "^(OK|ALARM)");
    let asking = line.call_meanwhile(hasty(0, request("T\r\n", Some("^OK"))));
    pty.peer.hear(b"T\r\n").await;
    assert!(matches!(patient(asking).await.unwrap(), Wire::NoAnswer(_)));
    pty.peer.say(b"ALARM 1\r\nOK late\r\n").await;
    heard.are(&["ALARM 1", "?"]).await;
    // The next goes out when nothing is owed any more.
    let asking = line.call_meanwhile(send("N\r\n", "^YES"));
    pty.peer.hear(b"N\r\n").await;
    pty.peer.say(b"YES\r\nYES indeed\r\nALARM 2\r\nOK 3\r\n").await;
    assert_eq!(patient(asking).await.unwrap(), said("YES"));
    heard.are(&["ALARM 1", "?", "ALARM 2", "OK 3"]).await;
}

#[tokio::test]
async fn the_lines_of_a_reply_that_has_several_are_no_events() {
    let (line, mut pty) = start().await;
    let heard = Heard::by(&line, "d", "^ALARM");
    let Request::Line { bytes, expect, picture, refuse, is_reading, .. } = request("INFO\r\n", None) else {
        unreachable!()
    };
    let until = Some(Regex::new("^END").unwrap());
    let several = Request::Line { bytes, expect, picture, refuse, until, is_reading };
    let asking = line.call_meanwhile(Call { timeout: Some(PATIENCE), ..peers::call(0, several) });
    pty.peer.hear(b"INFO\r\n").await;
    pty.peer.say(b"TEMP 20\r\nALARM 0\r\nEND\r\n").await;
    assert!(matches!(patient(asking).await.unwrap(), Wire::Answered(_) | Wire::BadReply(_)));
    heard.are(&["?"]).await;
    is_quiet(&line).await;
    pty.peer.say(b"ALARM 1\r\n").await;
    heard.are(&["?", "ALARM 1"]).await;
}

#[tokio::test]
async fn what_an_earlier_life_may_have_asked_for_is_no_event() {
    let pty = Pty::new();
    let line = Running::after_an_earlier_life(kind(&pty), CALM);
    line.until("open").await;
    let heard = Heard::by(&line, "d", "^ALARM");
    let mut peer = pty.peer;
    // Its beginning was not heard, perhaps.
    peer.say(b"\r\nALARM 1\r\n").await;
    heard.are(&["?"]).await;
}

#[tokio::test]
async fn what_an_instrument_says_when_it_is_woken_is_no_event() {
    let pty = Pty::new();
    let wake = Some(Wake { bytes: b"\r".to_vec(), after: Duration::ZERO });
    let kind = BusKind::Serial { endpoint: pty.port(115_200), cut: b"\r\n".to_vec().into(), wake };
    let line = Running::with_timeout(kind, SHORT);
    is_quiet(&line).await;
    let heard = Heard::by(&line, "d", "^READY");
    let mut peer = pty.peer;
    let asking = line.call_meanwhile(send("T\r\n", "^OK"));
    peer.hear(b"\r").await;
    peer.say(b"READY\r\n").await;
    peer.hear(b"T\r\n").await;
    peer.say(b"READY\r\nOK\r\n").await;
    assert_eq!(patient(asking).await.unwrap(), said("OK"));
    heard.are(&["?", "READY"]).await;
}

#[tokio::test]
async fn frames_that_come_by_themselves_are_heard_and_flawed_ones_are_not() {
    let pty = Pty::new();
    let frame = Frame { start: vec![2], end: vec![3], ends: Ends::AtItsEnd, escape: None, checksum: None };
    let kind = BusKind::Serial { endpoint: pty.port(115_200), cut: Cut::Frame(frame), wake: None };
    let line = Running::with_timeout(kind, SHORT);
    is_quiet(&line).await;
    let heard = Heard::by(&line, "d", "^ALARM");
    let mut peer = pty.peer;
    peer.say(b"ALARM 0\x03\x02ALARM 1\x03ALARM 2\x03\x02ALARM 3\x03").await;
    heard.are(&["ALARM 1", "ALARM 3"]).await;
}

#[tokio::test]
async fn a_connection_that_ends_while_somebody_listens_is_made_again_without_a_command() {
    let server = Server::bind().await;
    let endpoint = Endpoint::Tcp(server.address());
    let kind = BusKind::Serial { endpoint, cut: b"\r\n".to_vec().into(), wake: None };
    let line = Running::with_timeout(kind, SHORT);
    let first = server.accept().await;
    drop(first);
    line.until("closed").await;
    // Somebody wants to know from now on.
    let heard = Heard::by(&line, "d", "^ALARM");
    for n in 1..=2 {
        let mut peer = server.accept().await;
        line.until("open").await;
        peer.say(format!("\r\nALARM {n}\r\n").as_bytes()).await;
        let expected: Vec<String> = (1..=n).map(|n| format!("ALARM {n}")).collect();
        heard.are(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
        drop(peer);
        line.until("closed").await;
    }
}

#[tokio::test]
async fn who_listens_does_so_through_new_settings_of_the_bus() {
    let (line, mut pty) = start().await;
    let heard = Heard::by(&line, "d", "^ALARM");
    pty.peer.say(b"ALARM 1\r\n").await;
    heard.are(&["ALARM 1"]).await;
    let settings = line.bus.settings();
    line.bus.configure(&fieldbridge::config::Bus { retries: 5, ..settings });
    is_quiet(&line).await;
    pty.peer.say(b"ALARM 2\r\n").await;
    heard.are(&["ALARM 1", "ALARM 2"]).await;
    drop(heard);
    assert_eq!(line.status().state.as_str(), "open");
}

#[test]
fn status_counts_what_instruments_say_by_themselves_and_what_finds_no_room() {
    let instrument = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let site = Site::new(
        "127.0.0.1:1",
        &format!(
            "[bus.scale-port]\nkind = \"serial\"\naddress = \"{}\"\n[device.scale]\nbus = \"scale-port\"\n\
             profile = \"scale\"\nkey_file = \"device.key\"\nevents = \"^ALARM\"\n\
             [profile.scale.command.tare]\nsend = \"T\\r\\n\"\nexpect = \"^OK\"\nidempotent = true\n",
            instrument.local_addr().unwrap()
        ),
    );
    let _daemon = site.start();
    let (mut line, _) = instrument.accept().unwrap();
    let answering = std::thread::spawn(move || {
        let mut asked = [0; 3];
        std::io::Read::read_exact(&mut line, &mut asked).unwrap();
        std::io::Write::write_all(&mut line, b"OK\r\n").unwrap();
        line
    });
    // By then the line is quiet, and what comes begins a line.
    let tare = site.command(&["exec", "scale", "tare"]);
    assert!(tare.status.success(), "{tare:?}");
    let mut line = answering.join().unwrap();
    assert_eq!(site.status()["buses"][0]["events"], serde_json::json!({ "heard": 0, "dropped": 0 }));
    // The hub is not reached, and keeps none of them.
    std::io::Write::write_all(&mut line, "ALARM\r\nnoise\r\n".repeat(70).as_bytes()).unwrap();
    eventually("all are counted", || {
        let events = &site.status()["buses"][0]["events"];
        (events["heard"] == 70).then(|| assert_eq!(events["dropped"], 6))
    });
}
