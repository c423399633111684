//! Watching a line with the built program: through the daemon, and at a serial port that it only listens to. Proves G11
//! where it is the watcher's: whoever does not read holds up no command.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::peers::{rtu, Peer as _};
use crate::support::pty::is_open;
use crate::support::slave::Slave;
use crate::support::{eventually, program, pump, Site, PATIENCE, PUMP};
use tokio_serial::{SerialPort as _, SerialStream};

/// A watcher, whose lines are read.
pub struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    pub fn begin(site: &Site, args: &[&str]) -> Watching {
        let mut child = spawn(site, args);
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Watching { child, lines }
    }

    /// The next line, without its time.
    pub fn next(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).expect("something is said");
        without_time(&line)
    }

    pub fn end(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

fn without_time(line: &str) -> String {
    let (time, rest) = line.split_once(' ').expect("a line begins with its time");
    assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 24, "{line}");
    rest.to_owned()
}

fn spawn(site: &Site, args: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.arg("watch").args(args).arg("--config").arg(site.path("fieldbridge.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it can be run")
}

fn watch(site: &Site, args: &[&str]) -> Output {
    spawn(site, args).wait_with_output().expect("it ends")
}

fn says(output: &Output, fragment: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains(fragment), "{fragment:?} is missing: {said}");
}

/// The link type of a capture, and what stands in each of its packets.
fn packets(file: &Path) -> (u8, Vec<Vec<u8>>) {
    let bytes = std::fs::read(file).expect("it was written");
    assert_eq!(bytes[..4], 0xA1B2_C3D4_u32.to_le_bytes());
    let (mut at, mut packets) = (24, Vec::new());
    while at < bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        packets.push(bytes[at + 16..at + 16 + length].to_vec());
        at += 16 + length;
    }
    (bytes[20], packets)
}

#[test]
fn what_the_daemon_sends_and_hears_is_told_in_lines_and_captured() {
    let slave = Slave::new();
    slave.set_register(0, 42);
    let site = Site::new("127.0.0.1:1", &pump(slave.address(), "after-execution", ""));
    let daemon = site.start();
    let file = site.path("plant.pcap");
    let watching = Watching::begin(&site, &["plant", "--pcap", file.to_str().unwrap()]);
    eventually("a watcher", || daemon.log().contains("begins to watch").then_some(()));
    assert!(site.command(&["exec", "pump", "read"]).status.success());
    assert_eq!(watching.next(), "> unit 1: read holding 0");
    let answer = watching.next();
    assert!(answer.starts_with("< unit 1 has holding 0 = 42, after ") && answer.ends_with(" ms"), "{answer}");
    slave.set_unreadable(Some(2));
    assert!(!site.command(&["exec", "pump", "read"]).status.success());
    assert_eq!(watching.next(), "> unit 1: read holding 0");
    let answer = watching.next();
    assert!(answer.starts_with("< unit 1 refuses function 3 by exception 2: illegal data address, after "), "{answer}");
    watching.end();
    let (link, packets) = packets(&file);
    assert_eq!((link, packets.len()), (101, 4));
    // Behind the headers of IP and TCP, and behind the transaction.
    assert_eq!(packets[0][42..], [0, 0, 0, 6, 1, 3, 0, 0, 0, 1]);
    assert_eq!(packets[1][42..], [0, 0, 0, 5, 1, 3, 2, 0, 42]);
    assert_eq!(packets[0][40..42], packets[1][40..42]);
    // It is not written over, and a bus that there isn't is said to be none.
    says(&watch(&site, &["plant", "--pcap", file.to_str().unwrap()]), "is not overwritten");
    says(&watch(&site, &["attic"]), "there are: plant");
    drop(daemon);
    eventually("no daemon", || {
        let output = watch(&site, &["plant"]);
        String::from_utf8_lossy(&output.stderr).contains("the daemon does not run").then_some(())
    });
}

#[test]
fn a_watcher_that_reads_nothing_holds_up_no_command() {
    let slave = Slave::new();
    let site = Site::new("127.0.0.1:1", &pump(slave.address(), "after-execution", ""));
    let daemon = site.start();
    // Nobody reads what it prints: its pipe fills, and it asks the daemon no more.
    let mut stuck = spawn(&site, &["plant"]);
    eventually("a watcher", || daemon.log().contains("begins to watch").then_some(()));
    for _ in 0..50 {
        assert!(site.command(&["read", "pump", "holding", "0", "1250"]).status.success());
    }
    assert_eq!(slave.requests(), 500);
    stuck.kill().expect("it runs");
    stuck.wait().expect("it ends");
}

#[tokio::test]
async fn a_serial_port_is_listened_to_where_no_daemon_runs_and_nothing_is_sent() {
    // Whoever has a port open besides is told, and the port left alone.
    let (mut peer, port) = eventually("a port that nobody holds", || {
        let (peer, near) = SerialStream::pair().unwrap();
        let port = near.name().expect("a pseudo-terminal has a name");
        drop(near);
        (!is_open(Path::new(&port))).then_some((peer, port))
    });
    let config = format!(
        "[bus.line]\nkind = \"modbus-rtu\"\nport = \"{port}\"\nbaud = 115200\nidle_close = \"10ms\"\n[device.pump]\n\
         bus = \"line\"\nunit = 7\nprofile = \"pump\"\nkey_file = \"device.key\"\n{PUMP}"
    );
    let site = Site::new("127.0.0.1:1", &config);
    let file = site.path("line.pcap");
    let watching = Watching::begin(&site, &["line", "--pcap", file.to_str().unwrap()]);
    let (asked, answered) = (rtu(&[7, 3, 0, 16, 0, 2]), rtu(&[7, 3, 4, 0, 1, 0, 2]));
    // Until it listens, nobody hears this.
    let first = loop {
        peer.say(&asked).await;
        match watching.lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => break line,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("it has ended"),
        }
    };
    assert_eq!(without_time(&first), "> unit 7: read holding 16 to 17");
    peer.say(&answered).await;
    let answer = loop {
        let line = watching.next();
        if line != "> unit 7: read holding 16 to 17" {
            break line;
        }
    };
    assert!(answer.starts_with("< unit 7 has holding 16 to 17 = 1 2, after "), "{answer}");
    peer.hear_nothing().await;
    watching.end();
    let (link, packets) = packets(&file);
    assert_eq!(link, 250);
    let (last, before) = (&packets[packets.len() - 1], &packets[packets.len() - 2]);
    assert_eq!((&last[8..12], &last[12..]), (&[2, 0, 0, 0][..], &answered[..]));
    assert_eq!((&before[8..12], &before[12..]), (&[1, 0, 0, 0][..], &asked[..]));
}
