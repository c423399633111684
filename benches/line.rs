//! What the gateway makes of a line: commands a second beside what a serial line can carry at its rate, and beside bare
//! round trips on Modbus TCP.
//!
//! `cargo bench --bench line` prints the tables. The built daemon runs as a process of its own; a queue of commands
//! waits for it at the simulated hub, so that the line is all that there is to wait for. The serial line is a
//! pseudo-terminal whose far side keeps the time that its characters would take; it answers 3.5 characters (1.75 ms
//! above 19200 baud) behind a request, and what comes sooner than that behind its answer is counted (Modbus over Serial
//! Line V1.02, 2.5.1.1). `FIELDBRIDGE_TABLES=serial,tcp` leaves out the others; `FIELDBRIDGE_COMMANDS` is the number of
//! commands.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fieldbridge::demo::hub::{Auth, C2d, Options};
use support::hub::Hub;
use support::slave::{Reaction, Slave};
use support::{eventually_within, Site};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_serial::{SerialPort as _, SerialStream};

/// Rates of serial lines.
const RATES: [u32; 3] = [9600, 19_200, 115_200];
/// Start, eight data bits, even parity, stop.
const BITS: u32 = 11;
/// Devices that share a bus.
const DEVICES: [u8; 2] = [1, 4];
/// Registers of the longer answer.
const WORDS: u8 = 20;
/// Bare round trips that the limit of TCP is measured by.
const ROUNDS: u32 = 2000;
const PATIENCE: Duration = Duration::from_secs(600);

fn main() {
    // `cargo test --benches` runs a bench too; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    println!("build: {}\n", if cfg!(debug_assertions) { "DEBUG, not for quoting" } else { "release" });
    let tables: [(&str, fn()); 2] = [("serial", serial), ("tcp", tcp)];
    let wanted = std::env::var("FIELDBRIDGE_TABLES").ok();
    for (name, table) in tables {
        if wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|one| one == name)) {
            table();
        }
    }
}

fn commands(usual: u16) -> u16 {
    std::env::var("FIELDBRIDGE_COMMANDS").map_or(usual, |text| text.parse().expect("a number"))
}

/// Lets the daemon work off so many commands, which are all there when it begins.
fn work_off(bus: &str, devices: u8, command: &str, commands: u16) {
    let names: Vec<String> = (1..=devices).map(|unit| format!("d-{unit}")).collect();
    let each = commands / u16::from(devices);
    let day = Duration::from_secs(24 * 3600);
    let hub = Hub::start(Options {
        tls: false,
        queue_limit: usize::from(commands),
        default_ttl: day,
        feedback_interval: Duration::ZERO,
        ..Options::default()
    });
    let mut text = format!(
        "[bus.line]\n{bus}\n[profile.p.command.set]\nwrite = {{ table = \"holding\", address = 0 }}\nidempotent = true\n\
         deadline = \"1h\"\n[profile.p.command.read]\nread = {{ table = \"holding\", address = 0, count = {WORDS} }}\n\
         deadline = \"1h\"\n"
    );
    for (unit, name) in (1..).zip(&names) {
        hub.add_device(name, Auth::Key((0..32).collect()));
        text +=
            &format!("[device.{name}]\nbus = \"line\"\nunit = {unit}\nprofile = \"p\"\nkey_file = \"device.key\"\n");
    }
    let site = Site::at(&hub, &text);
    assert!(site.command(&["ledger", "new", "--trust"]).status.success());
    // By MQTT a hub keeps nothing for a device that has never subscribed.
    let daemon = site.start();
    eventually_within(PATIENCE, "every device connected", || {
        names.iter().all(|name| hub.is_subscribed(name)).then_some(())
    });
    assert!(daemon.terminate().success());
    for number in 1..=each {
        for name in &names {
            let body = if command == "set" { number.to_string() } else { String::new() };
            let message = C2d::new(format!("m-{number}"), body).property("command", command);
            hub.send(name, message).expect("the queue has room");
        }
    }
    let log = std::fs::File::create(site.path("daemon.log")).expect("a log can be made");
    let daemon = site.spawn_logging_to(log, &[], &[("FIELDBRIDGE_LOG", "warn")]);
    daemon.wait_until_ready();
    let _daemon = daemon.unheard();
    eventually_within(PATIENCE, "empty queues", || names.iter().all(|name| hub.queue_len(name) == 0).then_some(()));
}

/// What the far side of a serial line has seen.
#[derive(Default)]
struct Seen {
    /// When each request had come to its end on the wire, and how long it and its answer are.
    exchanges: Vec<(Instant, usize)>,
    /// What there was of silence between an answer and the next request.
    gaps: Vec<Duration>,
}

/// The far side of a serial line: units that answer as soon as they may.
struct Paced {
    folder: tempfile::TempDir,
    seen: Arc<Mutex<Seen>>,
    _held: tokio::sync::oneshot::Sender<()>,
}

/// How long things take on a line.
#[derive(Clone, Copy)]
struct Pace {
    character: Duration,
    silence: Duration,
}

impl Pace {
    fn of(baud: u32) -> Pace {
        let character = Duration::from_secs(1) * BITS / baud;
        let silence = if baud > 19_200 { Duration::from_micros(1750) } else { character * 7 / 2 };
        Pace { character, silence }
    }

    fn on_wire(self, bytes: usize) -> Duration {
        self.character * u32::try_from(bytes).expect("frames are short")
    }

    /// A request and its answer, and the silence behind each.
    fn exchange(self, bytes: usize) -> Duration {
        self.on_wire(bytes) + 2 * self.silence
    }
}

impl Paced {
    fn new(pace: Pace) -> Paced {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (held, dropped) = tokio::sync::oneshot::channel();
        let paced = Paced { folder, seen: Arc::default(), _held: held };
        let (path, seen) = (paced.path(), paced.seen.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let (mut far, near) = SerialStream::pair().expect("a pseudo-terminal can be made");
                let name = near.name().expect("a pseudo-terminal has a name");
                std::os::unix::fs::symlink(name, path).expect("it gets its name");
                tokio::select! {
                    () = answer(&mut far, pace, &seen) => {}
                    _ = dropped => {}
                }
            });
        });
        eventually_within(PATIENCE, "the line", || paced.path().exists().then_some(()));
        paced
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ttyUSB0")
    }
}

/// Serves a line, keeping the time of its characters.
async fn answer(far: &mut SerialStream, pace: Pace, seen: &Mutex<Seen>) {
    let slave = Slave::new();
    // Until when the wire is taken.
    let mut taken = Instant::now();
    let mut request = [0; 8];
    while far.read_exact(&mut request).await.is_ok() {
        let begun = Instant::now();
        let ended = begun.max(taken) + pace.on_wire(request.len());
        let content = &request[..6];
        assert_eq!(crc(content), request[6..], "the gateway's frames are intact");
        let Reaction::Answer(pdu, _) = slave.react(request[0], &content[1..]) else { unreachable!("its mood is good") };
        let frame = [&request[..1], &pdu].concat();
        let frame = [&frame[..], &crc(&frame)].concat();
        {
            let mut seen = seen.lock().expect("nobody panics while holding it");
            if !seen.exchanges.is_empty() {
                seen.gaps.push(begun.saturating_duration_since(taken));
            }
            seen.exchanges.push((ended, request.len() + frame.len()));
        }
        let first = ended + pace.silence;
        for (number, byte) in (1..).zip(&frame) {
            wait_until(first + pace.character * number);
            far.write_all(&[*byte]).await.expect("the line takes it");
        }
        taken = first + pace.on_wire(frame.len());
    }
}

/// To the microsecond, on a thread of its own.
fn wait_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    std::thread::sleep(left.saturating_sub(Duration::from_micros(150)));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

/// Modbus over Serial Line V1.02, 6.2.2, low byte first.
fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut crc = 0xffff_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
        }
    }
    crc.to_le_bytes()
}

fn serial() {
    println!("commands a second on a serial line, 8E1, of a queue that is never empty; after-execution, idempotent");
    println!(
        "{:>7} {:>8} {:>8} {:>9} {:>9} {:>7} {:>12} {:>12} {:>10}",
        "baud", "command", "devices", "a second", "limit", "share", "gap p50, ms", "gap p99, ms", "silence"
    );
    for baud in RATES {
        let pace = Pace::of(baud);
        for command in ["set", "read"] {
            for devices in DEVICES {
                let line = Paced::new(pace);
                let port = line.path().display().to_string();
                let bus = format!("kind = \"modbus-rtu\"\nport = \"{port}\"\nbaud = {baud}\nparity = \"even\"");
                work_off(&bus, devices, command, commands(u16::try_from(baud / 48).expect("a few hundred")));
                let mut seen = line.seen.lock().expect("nobody panics while holding it");
                let (first, last) = (seen.exchanges[0].0, seen.exchanges[seen.exchanges.len() - 1].0);
                let rate = (seen.exchanges.len() - 1) as f64 / (last - first).as_secs_f64();
                let limit = 1.0 / pace.exchange(seen.exchanges[0].1).as_secs_f64();
                println!(
                    "{baud:>7} {command:>8} {devices:>8} {rate:>9.1} {limit:>9.1} {:>6.1}% {:>12} {:>12} {:>10}",
                    100.0 * rate / limit,
                    millis(percentile(&mut seen.gaps, 50)),
                    millis(percentile(&mut seen.gaps, 99)),
                    millis(pace.silence),
                );
                let early = seen.gaps.iter().filter(|gap| **gap < pace.silence).count();
                if early > 0 {
                    println!("{early} requests came before the line had been silent for {} ms", millis(pace.silence));
                }
            }
        }
    }
    println!("limit: a request and its answer at the line's rate, and the silence behind each\n");
}

fn tcp() {
    println!(
        "commands a second on one Modbus TCP connection, of a queue that is never empty; after-execution, idempotent"
    );
    println!("{:>8} {:>9} {:>9} {:>7}", "devices", "a second", "limit", "share");
    for devices in [1, 8] {
        let slave = Slave::new();
        let limit = round_trips(slave.address());
        let bus = format!("kind = \"modbus-tcp\"\naddress = \"{}\"", slave.address());
        slave.take_writes();
        work_off(&bus, devices, "set", commands(10_000));
        let (first, last, count) = slave.first_and_last_write();
        let rate = (count - 1) as f64 / (last - first).as_secs_f64();
        println!("{devices:>8} {rate:>9.0} {limit:>9.0} {:>6.1}%", 100.0 * rate / limit);
    }
    println!("limit: bare round trips of the same request on one connection, one after the other, in the same run\n");
}

/// Round trips a second.
fn round_trips(address: &str) -> f64 {
    // Elsewhere the same names are tokio's.
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).expect("the slave listens");
    stream.set_nodelay(true).expect("an option can be set");
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        stream.write_all(&[0, 1, 0, 0, 0, 6, 1, 6, 0, 0, 0, 5]).expect("it is taken");
        stream.read_exact(&mut [0; 12]).expect("it is answered");
    }
    f64::from(ROUNDS) / begun.elapsed().as_secs_f64()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}
