//! What the gateway costs: latency from the hub's PUBLISH to the frame on the wire and to the PUBACK, beside the
//! flush of the same disk; what those who look at the gateway add to that; flushes for each command; resident memory
//! over TLS.
//!
//! `cargo bench --bench gateway` prints the tables of docs/PERFORMANCE.md. The built daemon runs as a process of its
//! own; hub and slave are scripted here, so their own time is a few microseconds. `FIELDBRIDGE_TABLES=latency,flushes`
//! leaves out the others.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fieldbridge::demo::hub::{Options, SimHub};
use support::broker::{Broker, Client, Packet};
use support::slave::Slave;
use support::{pump, Site};

/// Commands of one kind that are measured, and those before them that are not.
const COMMANDS: u16 = 1000;
const WARM_UP: u16 = 50;

/// A route: settle mode, command, flushes before the PUBACK.
const ROUTES: [(&str, &str, u32); 3] =
    [("after-execution", "set", 1), ("after-execution", "pulse", 2), ("after-accept", "set", 1)];

fn main() {
    // `cargo test --benches` runs a bench too; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    machine();
    let tables: [(&str, fn()); 5] =
        [("latency", latency), ("lookers", lookers), ("flushes", flushes), ("years", years), ("memory", memory)];
    let wanted = std::env::var("FIELDBRIDGE_TABLES").ok();
    for (name, table) in tables {
        if wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|one| one == name)) {
            table();
        }
    }
}

fn machine() {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("machine: {} x {}", cores, model.trim_start_matches([' ', '\t', ':']));
    println!("build: {}\n", if cfg!(debug_assertions) { "DEBUG, not for quoting" } else { "release" });
}

fn latency() {
    println!("latency in ms over {COMMANDS} commands, one after the other, plain MQTT on loopback, Modbus TCP");
    println!(
        "{:34} {:>9} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "route", "wire p50", "wire p99", "ack p50", "ack p99", "limit", "ack/limit"
    );
    for (settle, command, commits) in ROUTES {
        let (broker, slave) = (Broker::new(), Slave::new());
        let site = Site::new(&broker.address(), &pump(slave.address(), settle, ""));
        let flush_before = flush(&site.path("probe"));
        let _daemon = site.start();
        let mut client = broker.serve();
        let (mut wire, mut ack) = commanded(&mut client, &slave, command, 1..=WARM_UP + COMMANDS);
        let flush = (flush_before + flush(&site.path("probe"))) / 2;
        let limit = flush * commits + Duration::from_micros(500);
        let p50 = percentile(&mut ack, 50);
        println!(
            "{:34} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9.2}x",
            format!("{settle}, {}", if command == "set" { "idempotent" } else { "non-idempotent" }),
            millis(percentile(&mut wire, 50)),
            millis(percentile(&mut wire, 99)),
            millis(p50),
            millis(percentile(&mut ack, 99)),
            millis(limit),
            p50.as_secs_f64() / limit.as_secs_f64()
        );
        println!("{:34} append of 4 KiB and fdatasync on the same disk, same run: p50 {} ms", "", millis(flush));
    }
    println!("limit: the route's commits x that flush + 0.5 ms\n");
}

/// What commands of these numbers take, one after the other, but for the first few: to the wire, and to the PUBACK.
fn commanded(
    client: &mut Client,
    slave: &Slave,
    command: &str,
    numbers: RangeInclusive<u16>,
) -> (Vec<Duration>, Vec<Duration>) {
    let (mut wire, mut ack) = (Vec::new(), Vec::new());
    let counts_from = numbers.start() + WARM_UP;
    for number in numbers {
        let sent = Instant::now();
        client.deliver(number, &format!("m-{number}"), &format!(r#"{{"command":"{command}","value":{number}}}"#));
        let acked = wait_for_end(client, number);
        let written = slave.wait_for_write(number);
        if number >= counts_from {
            wire.push(written.duration_since(sent));
            ack.push(acked.duration_since(sent));
        }
    }
    (wire, ack)
}

/// What those who look cost a command: the page and the metrics, asked for as somebody in a cabinet and a Prometheus
/// do, and again and again by several at once.
fn lookers() {
    println!("to PUBACK in ms over {COMMANDS} commands that must not be repeated, beside those who look");
    println!("{:52} {:>9} {:>9} {:>10} {:>9}", "who looks", "p50", "p99", "p99/alone", "answers/s");
    let (broker, slave) = (Broker::new(), Slave::new());
    let (page, metrics) = (listener(), listener());
    let more = format!("[web]\nlisten = \"{page}\"\n[metrics]\nlisten = \"{metrics}\"\n");
    let site = Site::new(&broker.address(), &(pump(slave.address(), "after-execution", "") + &more));
    let _daemon = site.start();
    let mut client = broker.serve();
    let (mut next, mut alone) = (1, None);
    let kinds: [(&str, usize, Duration); 3] = [
        ("nobody", 0, Duration::ZERO),
        ("1 page and 1 scrape, each every second", 1, Duration::from_secs(1)),
        ("4 pages and 4 scrapes, each without a pause", 4, Duration::ZERO),
    ];
    for (name, each, pause) in kinds {
        let (is_over, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let looking: Vec<_> = [(&page, "/"), (&metrics, "/metrics")]
            .into_iter()
            .flat_map(|place| std::iter::repeat_n(place, each))
            .map(|(address, path)| {
                let (address, is_over) = (address.clone(), is_over.clone());
                std::thread::spawn(move || look(&address, path, pause, &is_over))
            })
            .collect();
        let (_, mut ack) = commanded(&mut client, &slave, "pulse", next..=next + WARM_UP + COMMANDS - 1);
        next += WARM_UP + COMMANDS;
        let took = begun.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let answers: u32 = looking.into_iter().map(|one| one.join().expect("it is answered")).sum();
        let (p50, p99) = (percentile(&mut ack, 50), percentile(&mut ack, 99));
        let alone = alone.get_or_insert(p99);
        println!(
            "{name:52} {:>9} {:>9} {:>9.2}x {:>9.0}",
            millis(p50),
            millis(p99),
            p99.as_secs_f64() / alone.as_secs_f64(),
            f64::from(answers) / took.as_secs_f64()
        );
    }
    println!();
}

/// A loopback address that nobody listens at.
fn listener() -> String {
    let (host, port) = support::free_address();
    format!("{host}:{port}")
}

/// Asks for a page until it is over. How often it was given.
fn look(address: &str, path: &str, pause: Duration, is_over: &AtomicBool) -> u32 {
    let mut answers = 0;
    while !is_over.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).expect("the gateway listens there");
        let asked = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).expect("it takes the request");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("it answers to the end");
        assert!(said.starts_with("HTTP/1.1 200"), "{said:.200}");
        answers += 1;
        std::thread::sleep(pause);
    }
    answers
}

/// When the PUBACK came; events before it are acknowledged.
fn wait_for_ack(client: &mut Client, number: u16) -> Instant {
    loop {
        match client.next() {
            Packet::PubAck(id) if id == number => return Instant::now(),
            Packet::Publish { packet_id, .. } => client.puback(packet_id),
            other => panic!("{other:?}"),
        }
    }
}

/// When the PUBACK came. On return the command's event has come too: the next one shares nothing with it.
fn wait_for_end(client: &mut Client, number: u16) -> Instant {
    let (mut acked, mut is_told) = (None, false);
    loop {
        match client.next() {
            Packet::PubAck(id) if id == number => acked = Some(Instant::now()),
            Packet::Publish { packet_id, .. } => {
                client.puback(packet_id);
                is_told = true;
            }
            other => panic!("{other:?}"),
        }
        if let Some(acked) = acked.filter(|_| is_told) {
            return acked;
        }
    }
}

/// The median time of appending 4 KiB and flushing it.
fn flush(path: &Path) -> Duration {
    let file = File::create(path).expect("a file can be made");
    let mut times: Vec<Duration> = (0..300u64)
        .map(|number| {
            let begun = Instant::now();
            file.write_all_at(&[0x5a; 4096], number * 4096).expect("the disk takes it");
            file.sync_data().expect("the disk flushes");
            begun.elapsed()
        })
        .collect();
    percentile(&mut times, 50)
}

/// Flushes of the ledger for each command, counted by strace.
fn flushes() {
    support::require("strace", "strace");
    println!("flushes of the ledger for each command, counted by strace; 200 commands one after the other, and 20 at one a second");
    for (settle, command, commits) in ROUTES {
        let at_full_speed = flushes_of(settle, command, 200, Duration::ZERO);
        let at_one_a_second = flushes_of(settle, command, 20, Duration::from_secs(1));
        println!(
            "{settle}, {command}: {at_full_speed:.2} at full speed, {at_one_a_second:.2} at one a second (needed before \
             the PUBACK: {commits})"
        );
    }
    println!();
}

fn flushes_of(settle: &str, command: &str, commands: u16, pause: Duration) -> f64 {
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), settle, ""));
    let trace = site.path("trace");
    let strace = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", &trace.display().to_string()];
    let daemon = site.start_under(&strace);
    let mut client = broker.serve();
    let count = || std::fs::read_to_string(&trace).unwrap_or_default().matches("ledger.db-wal").count();
    let before = count();
    for number in 1..=commands {
        client.deliver(number, &format!("m-{number}"), &format!(r#"{{"command":"{command}","value":{number}}}"#));
        let begun = Instant::now();
        match pause.is_zero() {
            true => drop(wait_for_ack(&mut client, number)),
            false => drop(client.collect(1, 1)),
        }
        slave.wait_for_write(number);
        std::thread::sleep(pause.saturating_sub(begun.elapsed()));
    }
    let flushes = (count() - before) as f64 / f64::from(commands);
    drop(daemon);
    flushes
}

/// What a start and a look cost over the rows of years.
fn years() {
    const ROWS: u32 = 5_000_000;
    let (broker, slave) = (Broker::new(), Slave::new());
    let site = Site::new(&broker.address(), &pump(slave.address(), "after-execution", ""));
    drop(site.start());
    support::many::fill(&site.path("ledger.db"), ROWS);
    // The first start proves the whole file, if it has to; the second is the one that counts.
    for which in ["first", "second"] {
        let begun = Instant::now();
        let daemon = site.start();
        let ready = begun.elapsed();
        let mut asked: Vec<Duration> = (0..20)
            .map(|_| {
                let begun = Instant::now();
                site.status();
                begun.elapsed()
            })
            .collect();
        println!(
            "{ROWS} rows, {which} start: READY after {:.2} s, `status` p50 {} ms, most {} ms",
            ready.as_secs_f64(),
            millis(percentile(&mut asked, 50)),
            millis(percentile(&mut asked, 99))
        );
        daemon.terminate();
    }
    println!();
}

fn memory() {
    println!("resident memory of the daemon, TLS, every identity connected and idle, one Modbus TCP bus");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for identities in [1, 10, 100] {
        runtime.block_on(async {
            let hub = SimHub::start(Options::default()).await.expect("the simulator starts");
            let slave = Slave::new();
            let mut more = format!("[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"{}\"\n", slave.address());
            more += "[profile.p.command.read]\nread = { table = \"holding\", address = 0 }\n";
            let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
            for number in 0..identities {
                let id = format!("d-{number}");
                hub.add_device(&id, fieldbridge::demo::hub::Auth::Key((0..32).collect()));
                more +=
                    &format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"p\"\nkey_file = \"device.key\"\n");
            }
            let head = format!(
                "host = \"{}\"\naddress = \"{}\"\nca_file = \"hub-ca.pem\"\nconnect_rate = 100\n",
                hub.host(),
                hub.addr()
            );
            let site = Site::with_hub(&head, &more);
            site.write("device.key", key);
            site.write("hub-ca.pem", &hub.ca_pem());
            let daemon = tokio::task::block_in_place(|| site.start());
            let deadline = Instant::now() + Duration::from_secs(60);
            while (0..identities).any(|number| !hub.is_subscribed(&format!("d-{number}"))) {
                assert!(Instant::now() < deadline, "not everybody connected");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a process has a status");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
            };
            println!(
                "{identities:>4} identities: {:.1} MB resident, of it {:.1} MB anonymous",
                field("VmRSS"),
                field("RssAnon")
            );
        });
    }
    std::io::stdout().flush().expect("output can be flushed");
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}
