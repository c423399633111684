//! Proves what docs/PERFORMANCE.md says of the disk: how much is written for each command, and in an idle hour.
//! G1 costs its flushes; nothing else may cost any.
//!
//! Bytes are counted twice: as the daemon gives them to the system (`pwrite`, by strace), and as whole pages that the
//! system has to write for that (`write_bytes` of /proc/PID/io, on a file system with a disk under it; its own journal
//! is not counted there). Figures for docs/PERFORMANCE.md come from `cargo test --test ledger card:: -- --nocapture`;
//! `FIELDBRIDGE_ROUNDS=n` takes n times as many commands.

#[cfg(feature = "proof")]
use std::path::Path;
use std::process::Stdio;
#[cfg(feature = "proof")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "proof")]
use fieldbridge::{
    command::{outcome::Outcome, Envelope},
    ledger::{disk::SystemDisk, row::Source, Finish, Ledger, Life, NewRow},
    time::Timestamp,
};

use crate::support::broker::Broker;
use crate::support::slave::Slave;
use crate::support::wall::Wall;
use crate::support::{self, eventually, pump, signal, trace, Site};

/// Commands of each route. Enough that the ledger's log has come round.
const COMMANDS: u16 = 300;
const HOURS: u32 = 3;

/// Settle mode, command, most kB of pages for each command. The bounds are twice what was measured: they are to notice
/// a change of kind.
const ROUTES: [(&str, &str, f64); 3] =
    [("after-execution", "set", 56.0), ("after-execution", "pulse", 96.0), ("after-accept", "set", 96.0)];

/// Bytes of pages that a process has made the system write.
fn pages_written(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/io");
    let text = std::fs::read_to_string(path).expect("this test reads what a process has written: run it as root");
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).expect("it is counted");
    line.parse().expect("it is a number")
}

/// Commits that stand in a ledger's log: the last page of each says how long the file is by then ("WAL Frames",
/// "Database File Format", sqlite.org).
#[cfg(feature = "proof")]
fn commits(ledger: &Path) -> usize {
    let log = std::fs::read(ledger.with_extension("db-wal")).expect("there is a log");
    log[32..].chunks_exact(24 + 4096).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[cfg(feature = "proof")]
#[tokio::test(start_paused = true)]
async fn at_a_command_a_second_nothing_is_committed_for_what_can_wait_alone() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("ledger.db");
    let (ledger, writing) = Ledger::open_on(Arc::new(SystemDisk), &path, "hub.example", Life::default()).unwrap();
    tokio::spawn(writing.run_among_tasks(|| Duration::ZERO));
    let (_keeps, retention) = tokio::sync::watch::channel(Duration::from_secs(1_000_000));
    let keeping = ledger.clone();
    tokio::spawn(async move { keeping.keep(retention).await });
    // What a start writes.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = commits(&path);
    for number in 0..20 {
        let new = NewRow {
            hub: "hub.example".into(),
            source: Source::Hub,
            device: "pump".into(),
            message_id: Some(format!("m-{number}")),
            digest: [number; 32],
            command: Some("set".into()),
            value: Some(number.into()),
            received_at: Timestamp(1_800_000_000_000),
            expires_at: None,
            envelope: Envelope::default(),
        };
        let (outcome, finished_at) = (Outcome::succeeded(None), Timestamp(1_800_000_000_100));
        let receipt =
            ledger.finish(Finish { row: None, new, outcome, attempts: 1, sent_at: None, finished_at }).await.unwrap();
        ledger.settled(receipt.row(), "completed by mqtt".into());
        // The hub takes a moment to acknowledge it.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let events = ledger.events("pump", 0, 16).await.unwrap();
        ledger.event_acknowledged(events.last().expect("each has its event").seq).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(commits(&path) - before, 20, "each is one commit, with what was noted of the one before it");
    // The last one's event waits, and not for ever.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(commits(&path) - before, 20);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(commits(&path) - before, 21);
}

fn rounds() -> u16 {
    std::env::var("FIELDBRIDGE_ROUNDS").map_or(1, |text| text.parse().expect("FIELDBRIDGE_ROUNDS is a number"))
}

#[test]
fn each_command_writes_a_bounded_number_of_bytes() {
    let count = COMMANDS * rounds();
    println!("{count} commands, one after the other; bytes for each");
    println!("{:30} {:>8} {:>12} {:>16} {:>10}", "route", "flushes", "pwrite", "pages written", "ledger");
    for (settle, command, most) in ROUTES {
        let (broker, slave) = (Broker::new(), Slave::new());
        let site = Site::new(&broker.address(), &pump(slave.address(), settle, "retries = 0"));
        let output = site.path("trace");
        // The log goes to the journal, on a card or not.
        let calls = "trace=pwrite64,pwritev,write,fsync,fdatasync";
        let mut wrapper: Vec<&str> = trace::strace(output.to_str().expect("a path is UTF-8"), calls).into();
        wrapper.splice(1..1, ["--seccomp-bpf"]);
        let mut daemon = site.spawn_logging_to(Stdio::null(), &wrapper, &[]);
        daemon.wait_until_ready();
        let pid = daemon.inner_pid();
        let mut client = broker.serve();
        let mut deliver = |number: u16| {
            client.deliver(number, &format!("m-{number}"), &format!(r#"{{"command":"{command}","value":{number}}}"#));
            let mut events = Vec::new();
            assert_eq!(client.next_puback(&mut events), number);
            if events.is_empty() {
                client.next_event();
            }
        };
        deliver(1);
        let before = pages_written(pid);
        (2..=count + 1).for_each(&mut deliver);
        site.settled();
        let pages = pages_written(pid) - before;
        let length = std::fs::metadata(site.path("ledger.db")).expect("there is a ledger").len();
        signal(pid, "TERM");
        assert!(daemon.wait().success());

        let calls = trace::read(&output);
        let ledger: Vec<_> = calls.iter().filter(|call| call.file.contains("/ledger.db")).collect();
        // The ballast is laid once.
        let written: i64 = ledger
            .iter()
            .filter(|call| call.name.contains("write") && !call.file.ends_with(".ballast"))
            .map(|call| call.result)
            .sum();
        let flushes = ledger.iter().filter(|call| call.is_flush()).count();
        let each = |sum: f64| sum / f64::from(count);
        let pages = each(pages as f64);
        println!(
            "{:30} {:>8.2} {:>12.0} {:>16.0} {:>10.0}",
            format!("{command}, {settle}"),
            each(flushes as f64),
            each(written as f64),
            pages,
            each(length as f64),
        );
        assert!(pages > 0.0, "nothing was counted: does the folder for temporary files lie on a disk?");
        assert!(pages < most * 1024.0, "{pages} bytes for each command");
    }
}

#[test]
fn an_idle_gateway_writes_one_small_commit_an_hour() {
    // Nobody listens there: connections are tried, and cost no writing either.
    let (address, port) = support::free_address();
    let site = Site::new(&format!("{address}:{port}"), &pump(&format!("{address}:{port}"), "after-execution", ""));
    let clocks = Wall::with_monotonic(&site.path(""));
    let daemon = site.spawn_logging_to(Stdio::null(), &[], &clocks.environment());
    daemon.wait_until_ready();
    let daemon = daemon.unheard();
    // What a start writes is over when an hour has had its commit.
    let mut written = pages_written(daemon.pid());
    let mut hour = |number: u32| {
        clocks.shift(i64::from(number) * 3600 + 60);
        eventually("the hour's commit", || {
            let now = pages_written(daemon.pid());
            (now > written).then_some(())
        });
        // Whatever else the hour would write: a machine that is busy may take its time for it.
        let now = loop {
            let before = pages_written(daemon.pid());
            std::thread::sleep(Duration::from_secs(1));
            let now = pages_written(daemon.pid());
            if now == before {
                break now;
            }
        };
        now - std::mem::replace(&mut written, now)
    };
    hour(1);
    let bytes: Vec<u64> = (2..2 + HOURS).map(&mut hour).collect();
    println!("pages written in each idle hour, bytes: {bytes:?}");
    assert!(bytes.iter().sum::<u64>() <= u64::from(HOURS) * 16 * 1024, "{bytes:?}");
    assert!(daemon.terminate().success());
}
