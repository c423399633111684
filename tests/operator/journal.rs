//! The journal has the device, the command, the message and the outcome of a line as fields, and an id for what is
//! worth an alert; what a peer says can add none (part of G8), and floods are thinned before it (part of G11). The
//! journal is a socket of the test's own; the boot test asks a real one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{channel, Receiver};
use std::time::Duration;

use fieldbridge::log::events::KINDS;
use fieldbridge::log::throttle::BURST;

use crate::support::broker::Broker;
use crate::support::slave::{Mood, Slave};
use crate::support::{pump, Daemon, Site};

type Line = BTreeMap<String, String>;

/// A journal that keeps what it is told.
struct Journal(Receiver<Line>);

impl Journal {
    /// It takes lines at once, as a journal does.
    fn at(path: &Path) -> Journal {
        let socket = UnixDatagram::bind(path).unwrap();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while let Ok(count) = socket.recv(&mut buffer) {
                if tell.send(fields(&buffer[..count])).is_err() {
                    return;
                }
            }
        });
        Journal(told)
    }

    fn next(&self) -> Line {
        self.0.recv_timeout(Duration::from_secs(60)).expect("a line comes")
    }

    /// The next line that has this in its message; and those before it.
    fn until(&self, what: &str) -> (Line, Vec<Line>) {
        let mut before = Vec::new();
        loop {
            let line = self.next();
            if line["MESSAGE"].contains(what) {
                return (line, before);
            }
            before.push(line);
        }
    }
}

/// The fields of an entry ("Native Journal Protocol").
fn fields(mut entry: &[u8]) -> Line {
    let mut found = Line::new();
    while !entry.is_empty() {
        let end = entry.iter().position(|byte| *byte == b'\n').expect("a line break ends each field");
        let line = std::str::from_utf8(&entry[..end]).unwrap();
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => {
                entry = &entry[end + 1..];
                (name.to_owned(), value.to_owned())
            }
            None => {
                let (length, rest) = entry[end + 1..].split_at(8);
                let length = usize::try_from(u64::from_le_bytes(length.try_into().unwrap())).unwrap();
                assert_eq!(rest[length], b'\n');
                entry = &rest[length + 1..];
                (line.to_owned(), String::from_utf8(rest[..length].to_vec()).unwrap())
            }
        };
        assert!(found.insert(name.clone(), value).is_none(), "{name} comes twice");
    }
    found
}

/// A daemon as systemd starts it: its standard error is the one that `JOURNAL_STREAM` names.
fn start(site: &Site) -> (Daemon, Journal) {
    let journal = Journal::at(&site.path("journal.sock"));
    let log = std::fs::File::create(site.path("daemon.log")).unwrap();
    let found = log.metadata().unwrap();
    let stream = format!("{}:{}", found.dev(), found.ino());
    let socket = site.path("journal.sock").display().to_string();
    let environment =
        [("JOURNAL_STREAM", &*stream), ("FIELDBRIDGE_JOURNAL_SOCKET", &*socket), ("FIELDBRIDGE_LOG", "info")];
    (site.spawn_logging_to(log, &[], &environment), journal)
}

fn id_of(name: &str) -> &'static str {
    KINDS.iter().find(|kind| kind.name == name).unwrap().id
}

#[test]
fn a_command_is_found_by_its_device_its_message_and_its_outcome() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", "response_timeout = \"200ms\""));
    let (daemon, journal) = start(&site);
    let mut client = broker.serve();
    let (ready, _) = journal.until("ready");
    assert_eq!((&*ready["MESSAGE_ID"], &*ready["FIELDBRIDGE_EVENT"]), (id_of("ready"), "ready"));
    client.deliver(1, "m-1", r#"{"command":"set","value":7}"#);
    let (line, _) = journal.until("command finished");
    for (name, value) in [
        ("FIELDBRIDGE_DEVICE", "pump"),
        ("FIELDBRIDGE_COMMAND", "set"),
        ("FIELDBRIDGE_MESSAGE_ID", "m-1"),
        ("FIELDBRIDGE_OUTCOME", "succeeded"),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "fieldbridge"),
    ] {
        assert_eq!(line.get(name).map(String::as_str), Some(value), "{name}: {line:?}");
    }
    assert!(line["MESSAGE"].contains("state=succeeded") && !line.contains_key("MESSAGE_ID"), "{line:?}");
    // Nobody knows what became of this one.
    slave.set_mood(Mood::Mute);
    client.deliver(2, "m-2", r#"{"command":"pulse","value":7}"#);
    let (line, _) = journal.until("command finished");
    assert_eq!((&*line["FIELDBRIDGE_OUTCOME"], &*line["PRIORITY"]), ("in_doubt", "4"), "{line:?}");
    assert_eq!(line["MESSAGE_ID"], id_of("command-in-doubt"));
    // Everything has gone there, and nothing beside it.
    assert_eq!(daemon.log(), "");
}

#[test]
fn what_a_sender_writes_is_one_value_and_adds_no_field() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let (_daemon, journal) = start(&site);
    let mut client = broker.serve();
    let forged = "%0APRIORITY=0%0AMESSAGE_ID=x%0A";
    let topic = format!("devices/pump/messages/devicebound/%24.mid=m{forged}&command=c{forged}");
    client.publish(1, topic.as_bytes(), b"\nPRIORITY=0\n");
    let (line, _) = journal.until("command finished");
    assert_eq!(line["PRIORITY"], "6");
    assert!(!line.contains_key("MESSAGE_ID"), "{line:?}");
    let known = |name: &str| {
        name == "MESSAGE" || name == "PRIORITY" || name == "SYSLOG_IDENTIFIER" || name.starts_with("FIELDBRIDGE_")
    };
    assert!(line.keys().all(|name| known(name)), "{line:?}");
    assert!(line["FIELDBRIDGE_MESSAGE_ID"].contains("PRIORITY=0"), "{line:?}");
}

#[test]
fn a_flood_is_thinned_before_the_journal() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let (daemon, journal) = start(&site);
    let mut client = broker.serve();
    for number in 1..=3 * u16::try_from(BURST).unwrap() {
        client.deliver(number, &format!("m-{number}"), r#"{"command":"nonsense"}"#);
        client.next_puback(&mut Vec::new());
    }
    assert!(daemon.terminate().success());
    let (_, lines) = journal.until("stopped");
    let told = lines.iter().filter(|line| line["MESSAGE"].contains("command finished")).count();
    // With those that are told of at the end.
    assert!(told >= BURST as usize && told <= BURST as usize + 3, "{told}: {lines:#?}");
}

#[test]
fn without_a_journal_that_listens_the_lines_go_to_standard_error() {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    let (daemon, journal) = start(&site);
    let mut client = broker.serve();
    journal.until("connected to the hub");
    drop(journal);
    std::fs::remove_file(site.path("journal.sock")).unwrap();
    client.deliver(1, "m-1", r#"{"command":"set","value":7}"#);
    let log = crate::support::eventually("it is logged", || {
        Some(daemon.log()).filter(|log| log.contains("command finished"))
    });
    assert!(log.lines().all(|line| line.starts_with("<6>")), "{log}");
    assert!(log.contains("message_id=\"m-1\""), "{log}");
}

#[test]
fn every_id_stands_in_the_documents_and_in_the_catalogue() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/JOURNAL.md")).unwrap();
    let source: String = [
        "src/device/conclude.rs",
        "src/gateway/mod.rs",
        "src/gateway/locking.rs",
        "src/ledger/condition.rs",
        "src/ledger/writer.rs",
        "src/hub/identity/lifecycle.rs",
        "src/time/trust.rs",
    ]
    .iter()
    .map(|name| std::fs::read_to_string(root.join(name)).unwrap())
    .collect();
    for kind in KINDS {
        assert!(page.contains(kind.id) && page.contains(&format!("`{}`", kind.name)), "docs/JOURNAL.md lacks {kind:?}");
        let constant = kind.name.to_uppercase().replace('-', "_");
        assert!(
            source.contains(&format!("name: events::{constant}")) || source.contains(&format!("name: {constant}")),
            "nobody logs {}",
            kind.name
        );
    }
}
