//! Proves G1 and the order of G3 from outside: what the kernel was asked to do between the arrival of a message and
//! its PUBACK. The daemon runs under strace, and its trace is read: which flushes of the ledger's files lie before
//! the Modbus frame, and which before the PUBACK.

use std::time::Duration;

use crate::support::broker::{Broker, Client};
use crate::support::slave::{Mood, Slave};
use crate::support::trace::{self, Call};
use crate::support::{eventually, pump, signal, Daemon, Site};

const CALLS: &str = "trace=read,recvfrom,recvmsg,readv,write,writev,sendto,sendmsg,fsync,fdatasync,pwrite64,pwritev";

/// A daemon under strace, with everything around it.
struct Traced {
    daemon: Daemon,
    site: Site,
    broker: Broker,
    inner: u32,
    packet_id: u16,
    slave: Slave,
}

/// What is known of a message that was delivered.
struct Sent {
    what: String,
    packet_id: u16,
    body: String,
    /// The request that puts it on the wire.
    frame: Option<[u8; 5]>,
}

impl Traced {
    fn start(settle: &str) -> (Traced, Client) {
        let (broker, slave) = (Broker::new(), Slave::new());
        let site = Site::new(&broker.address(), &pump(slave.address(), settle, "response_timeout = \"20s\""));
        let output = site.path("trace");
        let daemon = site.start_under(&trace::strace(output.to_str().expect("a path is UTF-8"), CALLS));
        let inner = daemon.inner_pid();
        let mut traced = Traced { daemon, site, broker, inner, packet_id: 0, slave };
        let mut client = traced.broker.serve();
        // The first commit after a start also flushes the log's new header.
        traced.deliver(&mut client, "set", 1);
        (traced, client)
    }

    fn deliver(&mut self, client: &mut Client, command: &str, value: u16) -> Sent {
        let sent = self.send(client, command, value);
        self.finish(client, &sent);
        sent
    }

    fn send(&mut self, client: &mut Client, command: &str, value: u16) -> Sent {
        self.packet_id += 1;
        let register = ["set", "set-verified", "pulse", "pulse-verified"].iter().position(|name| *name == command);
        let [high, low] = value.to_be_bytes();
        let sent = Sent {
            what: command.to_owned(),
            packet_id: self.packet_id,
            body: format!(r#"{{"command":"{command}","value":{value}}}"#),
            frame: register.map(|register| [6, 0, register as u8, high, low]),
        };
        client.deliver(sent.packet_id, &format!("m-{value}"), &sent.body);
        sent
    }

    /// Waits for the message's PUBACK, and until nothing is under way any more.
    fn finish(&self, client: &mut Client, sent: &Sent) {
        let mut events = Vec::new();
        assert_eq!(client.next_puback(&mut events), sent.packet_id);
        if events.is_empty() {
            client.next_event();
        }
        self.site.settled();
    }

    /// The same message again, under a new packet id.
    fn deliver_again(&mut self, client: &mut Client, first: &Sent, value: u16) -> Sent {
        self.packet_id += 1;
        let what = format!("{} again", first.what);
        let again = Sent { what, packet_id: self.packet_id, body: first.body.clone(), frame: None };
        let id = format!("m-{value}");
        let count = || {
            let rows = self.site.rows();
            let row = rows.iter().find(|row| row["messageId"] == id.as_str()).expect("the row is there");
            row["deliveries"].as_i64().expect("a count")
        };
        let before = count();
        client.deliver(again.packet_id, &id, &again.body);
        assert_eq!(client.next_puback(&mut Vec::new()), again.packet_id);
        eventually("the repetition counted", || (count() == before + 1).then_some(()));
        again
    }

    /// Ends the daemon and reads what was seen of it.
    fn end(mut self) -> Vec<Call> {
        signal(self.inner, "TERM");
        let status = self.daemon.wait();
        assert!(status.success(), "{status}");
        trace::read(&self.site.path("trace"))
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // A traced program outlives a strace that is killed.
        if self.daemon.is_running() {
            signal(self.inner, "KILL");
        }
    }
}

/// What the trace shows of one message.
struct Seen<'a> {
    calls: &'a [Call],
    what: &'a str,
    arrived: &'a Call,
    /// `None` if the daemon died before.
    puback: Option<&'a Call>,
    /// Its Modbus frame, and the answer to that.
    wire: Option<(&'a Call, Option<&'a Call>)>,
}

impl<'a> Seen<'a> {
    fn of(calls: &'a [Call], sent: &'a Sent) -> Seen<'a> {
        let what = &sent.what;
        let [high, low] = sent.packet_id.to_be_bytes();
        // A PUBLISH ends with its packet id and the body.
        let publish = [&[high, low], sent.body.as_bytes()].concat();
        let arrived = calls.iter().find(|call| call.is_socket() && call.is_read() && call.contains(&publish));
        let arrived = arrived.unwrap_or_else(|| panic!("{what}: its PUBLISH was never read"));
        let puback = calls
            .iter()
            .find(|call| call.file == arrived.file && call.is_write() && call.contains(&[0x40, 2, high, low]));
        assert!(puback.is_none_or(|puback| arrived.left < puback.entered), "{what}: acknowledged before it was read");
        let wire = sent.frame.map(|frame| {
            let on_wire = |call: &&Call| call.is_socket() && call.file != arrived.file && call.contains(&frame);
            let asked: Vec<&Call> = calls.iter().filter(on_wire).filter(|call| call.is_write()).collect();
            assert_eq!(asked.len(), 1, "{what}: its frame is written once");
            (asked[0], calls.iter().filter(on_wire).find(|call| call.is_read()))
        });
        Seen { calls, what, arrived, puback, wire }
    }

    /// Flushes of the ledger that were begun after one thing had ended, and that the disk had confirmed before the
    /// other began.
    fn flushes(&self, from: &Call, to: &Call) -> usize {
        let within = |call: &&Call| call.entered > from.left && call.left < to.entered && is_ledger(call);
        let flushed = self.calls.iter().filter(within).filter(|call| call.is_flush()).count();
        let written = self.calls.iter().filter(within).filter(|call| call.name.starts_with("pwrite")).count();
        assert!(flushed == 0 || written > 0, "{}: {flushed} flushes of nothing", self.what);
        flushed
    }

    fn before_puback(&self) -> usize {
        self.flushes(self.arrived, self.puback.expect("its PUBACK was written"))
    }

    fn before_frame(&self) -> usize {
        self.flushes(self.arrived, self.wire.expect("it was on the wire").0)
    }

    fn between_answer_and_puback(&self) -> usize {
        let answered = self.wire.expect("it was on the wire").1.expect("it was answered");
        self.flushes(answered, self.puback.expect("its PUBACK was written"))
    }
}

fn is_ledger(call: &Call) -> bool {
    call.file.ends_with("/ledger.db") || call.file.ends_with("/ledger.db-wal")
}

#[test]
fn after_execution_the_outcome_is_flushed_before_puback_and_a_command_that_must_not_repeat_before_the_wire_too() {
    let (mut traced, mut client) = Traced::start("after-execution");
    let mut delivered = Vec::new();
    // Flushes before the frame, and between its answer and PUBACK.
    for (command, value, before, after) in
        [("set", 1001, 0, 1), ("pulse", 1002, 1, 1), ("set-verified", 1003, 0, 1), ("pulse-verified", 1004, 1, 1)]
    {
        let sent = traced.deliver(&mut client, command, value);
        let again = traced.deliver_again(&mut client, &sent, value);
        delivered.push((sent, again, before, after));
    }
    let read = traced.deliver(&mut client, "read", 1005);
    let unknown = traced.deliver(&mut client, "no-such-command", 1006);
    let calls = traced.end();
    for (sent, again, before, after) in &delivered {
        let seen = Seen::of(&calls, sent);
        println!("{:16} {} before its frame, {} before PUBACK", sent.what, seen.before_frame(), seen.before_puback());
        assert_eq!(seen.before_frame(), *before, "{}: before its frame", sent.what);
        assert_eq!(seen.between_answer_and_puback(), *after, "{}: between its answer and PUBACK", sent.what);
        assert_eq!(seen.before_puback(), before + after, "{}: before PUBACK", sent.what);
        assert_eq!(Seen::of(&calls, again).before_puback(), 0, "{}", again.what);
    }
    for sent in [&read, &unknown] {
        assert_eq!(Seen::of(&calls, sent).before_puback(), 1, "{}: before PUBACK", sent.what);
    }
}

#[test]
fn after_accept_puback_waits_for_one_flush_and_the_wire_for_a_second_where_it_must_not_repeat() {
    let (mut traced, mut client) = Traced::start("after-accept");
    let mut delivered = Vec::new();
    for (command, value, before_frame) in
        [("set", 2001, 1), ("pulse", 2002, 2), ("set-verified", 2003, 1), ("pulse-verified", 2004, 2)]
    {
        let sent = traced.deliver(&mut client, command, value);
        let again = traced.deliver_again(&mut client, &sent, value);
        delivered.push((sent, again, before_frame));
    }
    let unknown = traced.deliver(&mut client, "no-such-command", 2005);
    let calls = traced.end();
    for (sent, again, before_frame) in &delivered {
        let seen = Seen::of(&calls, sent);
        println!("{:16} {} before its frame, {} before PUBACK", sent.what, seen.before_frame(), seen.before_puback());
        assert!(seen.before_puback() >= 1, "{}: before PUBACK", sent.what);
        assert_eq!(seen.before_frame(), *before_frame, "{}: before its frame", sent.what);
        assert_eq!(Seen::of(&calls, again).before_puback(), 0, "{}", again.what);
    }
    assert_eq!(Seen::of(&calls, &unknown).before_puback(), 1, "{}", unknown.what);
}

#[test]
fn in_a_burst_every_puback_has_its_own_record_before_it() {
    for settle in ["after-execution", "after-accept"] {
        let (mut traced, mut client) = Traced::start(settle);
        let commands = ["set", "pulse", "read", "pulse-verified", "no-such-command"];
        let sent: Vec<Sent> =
            (0..60).map(|i| traced.send(&mut client, commands[i % commands.len()], 3000 + i as u16)).collect();
        let mut events = Vec::new();
        for message in &sent {
            assert_eq!(client.next_puback(&mut events), message.packet_id, "in the order of receipt");
        }
        while events.len() < sent.len() {
            events.push(client.next_event());
        }
        traced.site.settled();
        let calls = traced.end();
        for message in &sent {
            let wanted = if settle == "after-execution" && message.what.starts_with("pulse") { 2 } else { 1 };
            let found = Seen::of(&calls, message).before_puback();
            assert!(found >= wanted, "{} ({settle}): {found} flushes before PUBACK", message.what);
        }
    }
}

#[test]
fn what_is_on_the_wire_when_the_daemon_is_killed_was_on_the_disk_first() {
    let (mut traced, mut client) = Traced::start("after-execution");
    traced.slave.set_mood(Mood::Slow(Duration::from_secs(60)));
    let sent = traced.send(&mut client, "pulse", 4001);
    eventually("a write on the slave", || (traced.slave.count(2, 4001) == 1).then_some(()));
    signal(traced.inner, "KILL");
    traced.daemon.wait();
    let calls = trace::read(&traced.site.path("trace"));
    let seen = Seen::of(&calls, &sent);
    assert_eq!(seen.before_frame(), 1, "flushes before its frame");
    assert!(seen.puback.is_none(), "nothing was promised to the hub");
    let rows = traced.site.rows();
    let row = rows.iter().find(|row| row["messageId"] == "m-4001").expect("it has a row");
    assert_eq!(row["state"], "executing");
}
