//! What the gateway makes of a line: commands a second beside what a serial line can carry at its rate, and beside bare
//! round trips on Modbus TCP.
//!
//! `cargo bench --bench line` prints the tables. The built daemon runs as a process of its own; a queue of commands
//! waits for it at the simulated hub, so that the line is all that there is to wait for. The serial line is a
//! pseudo-terminal whose far side keeps the time that its characters would take; it answers 3.5 characters (1.75 ms
//! above 19200 baud) behind a request, and what comes sooner than that behind its answer is counted (Modbus over Serial
//! Line V1.02, 2.5.1.1). Each row is the best of several runs: what else the machine does can only slow one down.
//!
//! `FIELDBRIDGE_TABLES=serial,tcp` leaves out the others; `FIELDBRIDGE_COMMANDS` is the number of commands of a run,
//! and `FIELDBRIDGE_RUNS` that of the runs. With `TMPDIR=/dev/shm` the ledger's flushes cost nothing.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crc::{Crc, CRC_16_MODBUS};
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

fn number(name: &str, usual: u16) -> u16 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

fn commands(usual: u16) -> u16 {
    number("FIELDBRIDGE_COMMANDS", usual)
}

/// The best of several runs, by the share that is their first.
fn best<T>(run: impl FnMut() -> (f64, T)) -> (f64, T) {
    let runs = std::iter::repeat_with(run).take(usize::from(number("FIELDBRIDGE_RUNS", 3)));
    runs.max_by(|(one, _), (other, _)| one.total_cmp(other)).expect("there is one at least")
}

/// The median time of appending 4 KiB to a file beside the ledgers and flushing it.
fn flush() -> Duration {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().expect("a file can be made");
    let mut times: Vec<Duration> = (0..300)
        .map(|_| {
            let begun = Instant::now();
            file.write_all(&[0x5a; 4096]).expect("the disk takes it");
            file.sync_data().expect("the disk flushes");
            begun.elapsed()
        })
        .collect();
    percentile(&mut times, 50)
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
        taken = first + pace.on_wire(frame.len());
        for (number, byte) in (1..).zip(&frame) {
            wait_until(first + pace.character * number, taken);
            far.write_all(&[*byte]).await.expect("the line takes it");
        }
    }
}

/// On a thread of its own. The last moment of an exchange is kept to the microsecond, as the silence counts from there.
fn wait_until(moment: Instant, last: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if moment < last {
        return std::thread::sleep(left);
    }
    std::thread::sleep(left.saturating_sub(Duration::from_micros(80)));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

/// Modbus over Serial Line V1.02, 6.2.2, low byte first.
fn crc(bytes: &[u8]) -> [u8; 2] {
    Crc::<u16>::new(&CRC_16_MODBUS).checksum(bytes).to_le_bytes()
}

fn serial() {
    println!("commands a second on a serial line, 8E1, of a queue that is never empty; after-execution, idempotent");
    println!("a flush of the disk that the ledgers are on takes {} ms, the median of 300", millis(flush()));
    println!(
        "{:>7} {:>8} {:>8} {:>9} {:>9} {:>7} {:>12} {:>12} {:>10}",
        "baud", "command", "devices", "a second", "limit", "share", "gap p50, ms", "gap p99, ms", "silence"
    );
    for baud in RATES {
        let pace = Pace::of(baud);
        for command in ["set", "read"] {
            for devices in DEVICES {
                let (share, (rate, mut gaps, early)) = best(|| on_a_line(baud, command, devices));
                println!(
                    "{baud:>7} {command:>8} {devices:>8} {rate:>9.1} {:>9.1} {:>6.1}% {:>12} {:>12} {:>10}",
                    rate / share,
                    100.0 * share,
                    millis(percentile(&mut gaps, 50)),
                    millis(percentile(&mut gaps, 99)),
                    millis(pace.silence),
                );
                if early > 0 {
                    println!("{early} requests came before the line had been silent for {} ms", millis(pace.silence));
                }
            }
        }
    }
    println!("limit: a request and its answer at the line's rate, and the silence behind each; the best of the runs\n");
}

/// The share of the limit, how many a second that is, the gaps between an answer and the next request, and how many of
/// these were too short.
fn on_a_line(baud: u32, command: &str, devices: u8) -> (f64, (f64, Vec<Duration>, usize)) {
    let pace = Pace::of(baud);
    let line = Paced::new(pace);
    let port = line.path().display().to_string();
    let bus = format!("kind = \"modbus-rtu\"\nport = \"{port}\"\nbaud = {baud}\nparity = \"even\"");
    work_off(&bus, devices, command, commands(u16::try_from(baud / 48).expect("a few hundred")));
    let seen = std::mem::take(&mut *line.seen.lock().expect("nobody panics while holding it"));
    let (last, bytes) = *seen.exchanges.last().expect("something was asked");
    // A read by which the line showed that it has no echo is not of the queue.
    let of_the_queue: Vec<Instant> =
        seen.exchanges.iter().filter(|(_, its)| *its == bytes).map(|(ended, _)| *ended).collect();
    let rate = (of_the_queue.len() - 1) as f64 / (last - of_the_queue[0]).as_secs_f64();
    let early = seen.gaps.iter().filter(|gap| **gap < pace.silence).count();
    (rate * pace.exchange(bytes).as_secs_f64(), (rate, seen.gaps, early))
}

fn tcp() {
    println!(
        "commands a second on one Modbus TCP connection, of a queue that is never empty; after-execution, idempotent"
    );
    println!("a flush of the disk that the ledgers are on takes {} ms, the median of 300", millis(flush()));
    println!("{:>8} {:>9} {:>9} {:>9} {:>7}", "devices", "in flight", "a second", "limit", "share");
    for (devices, in_flight) in [(1, 1), (8, 1), (8, 8)] {
        let (share, (rate, limit)) = best(|| {
            let slave = Slave::new();
            let limit = round_trips(slave.address(), in_flight);
            let bus = format!("kind = \"modbus-tcp\"\naddress = \"{}\"\nmax_in_flight = {in_flight}", slave.address());
            slave.take_writes();
            work_off(&bus, devices, "set", commands(10_000));
            let (first, last, count) = slave.first_and_last_write();
            let rate = (count - 1) as f64 / (last - first).as_secs_f64();
            (rate / limit, (rate, limit))
        });
        println!("{devices:>8} {in_flight:>9} {rate:>9.0} {limit:>9.0} {:>6.1}%", 100.0 * share);
    }
    println!(
        "limit: bare round trips of the same request on one connection, as many at once, in the same run; the best of \
         the runs\n"
    );
}

/// Round trips a second, so many requests at a time.
fn round_trips(address: &str, in_flight: usize) -> f64 {
    // Elsewhere the same names are tokio's.
    use std::io::{Read as _, Write as _};
    const REQUEST: [u8; 12] = [0, 1, 0, 0, 0, 6, 1, 6, 0, 0, 0, 5];
    let mut stream = std::net::TcpStream::connect(address).expect("the slave listens");
    stream.set_nodelay(true).expect("an option can be set");
    let (requests, mut answers) = (REQUEST.repeat(in_flight), vec![0; REQUEST.len() * in_flight]);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        stream.write_all(&requests).expect("they are taken");
        stream.read_exact(&mut answers).expect("they are answered");
    }
    f64::from(ROUNDS) * in_flight as f64 / begun.elapsed().as_secs_f64()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}
