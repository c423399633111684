//! Proves G8 and G11 for the log: a hub and a serial line that misbehave in every way they can, for a week, leave a
//! log that a person can read, and hide no neighbour. The gateway is the real one, the week passes in seconds, and the
//! peers are this file's: they follow no rules.
//!
//! It has a process of its own: the log of a thread is not to be had beside threads without one. `scripts/simulate.sh`
//! runs it. The seed is printed first and taken from `FIELDBRIDGE_SEED`.

use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fieldbridge::bus::{Lines, Opener, Opening, Port};
use fieldbridge::config::{load, SerialPort};
use fieldbridge::gateway::{self, Files, World};
use fieldbridge::hub::dial::{Dial, Dialing};
use fieldbridge::hub::transports::ways;
use fieldbridge::hub::trouble::Trouble;
use fieldbridge::ledger::disk::SystemDisk;
use fieldbridge::ledger::{Ledger, Life};
use fieldbridge::log::throttle::{Throttle, BURST, PER_HOUR};
use fieldbridge::net::Stream;
use fieldbridge::systemd::{Demand, Demands};
use fieldbridge::time::simulated::{clear_graves, simulate, Simulation};
use fieldbridge::time::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::{sleep, sleep_until, timeout, Instant};
use tracing_subscriber::layer::SubscriberExt as _;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longer than a connection has to stand to count as one that stood.
const STANDS: Duration = Duration::from_secs(11);

/// What was written to the log.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics while writing").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Misdeeds so far.
#[derive(Debug, Clone, Default)]
struct Deeds(Arc<AtomicU64>);

impl Deeds {
    fn one_more(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A hub that is good to `calm`, and bad to `sick` in one way after the other.
struct Hostile(Deeds);

/// The ways.
const WAYS: u64 = 12;

impl Dial for Hostile {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        let deeds = self.0.clone();
        Box::pin(async move {
            if fastrand::u8(..) < 40 {
                let error = format!("made up {}", deeds.one_more());
                return Err(match fastrand::bool() {
                    true => Trouble::Unreachable { address: address.into(), error },
                    false => Trouble::Lookup { address: address.into(), error },
                });
            }
            let (near, far) = tokio::io::duplex(1 << 20);
            tokio::spawn(async move {
                // Its end is the connection's.
                let _ = serve(far, deeds).await;
            });
            Ok(Box::new(near) as _)
        })
    }
}

/// The next packet: its first byte and its content.
async fn packet(stream: &mut DuplexStream) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut content = vec![0; length];
    stream.read_exact(&mut content).await?;
    Ok((kind, content))
}

fn publish(first: u8, device: &str, properties: &str, packet_id: Option<u16>, body: &[u8]) -> Vec<u8> {
    let topic = format!("devices/{device}/messages/devicebound/{properties}");
    let mut content = (topic.len() as u16).to_be_bytes().to_vec();
    content.extend(topic.as_bytes());
    content.extend(packet_id.into_iter().flat_map(u16::to_be_bytes));
    content.extend(body);
    let length = content.len();
    let mut packet = vec![first, (length % 128) as u8 | 0x80, (length / 128) as u8];
    packet.extend(content);
    packet
}

/// Answers pings and subscriptions for a time, and takes everything else.
async fn be_good(stream: &mut DuplexStream, time: Duration) -> std::io::Result<()> {
    let good = async {
        loop {
            match packet(stream).await? {
                (0xc0, _) => stream.write_all(&[0xd0, 0]).await?,
                (0x82, content) => stream.write_all(&[0x90, 3, content[0], content[1], 1]).await?,
                (first, content) if first & 0xf0 == 0x30 => {
                    let topic = usize::from(u16::from_be_bytes([content[0], content[1]]));
                    stream.write_all(&[0x40, 2, content[2 + topic], content[3 + topic]]).await?;
                }
                _ => {}
            }
        }
    };
    timeout(time, good).await.unwrap_or(Ok(()))
}

async fn serve(mut stream: DuplexStream, deeds: Deeds) -> std::io::Result<()> {
    let (_, connect) = packet(&mut stream).await?;
    if connect.windows(4).any(|word| word == b"calm") {
        stream.write_all(&[0x20, 2, 0, 0]).await?;
        return be_good(&mut stream, 2 * WEEK).await;
    }
    let deed = deeds.one_more();
    let way = deed % WAYS;
    match way {
        0 => return Ok(()),
        1..=3 => return stream.write_all(&[0x20, 2, 0, [3, 5, 77][way as usize - 1]]).await,
        4 => return stream.write_all(format!("HTTP/1.1 400 {deed}\r\n").as_bytes()).await,
        _ => stream.write_all(&[0x20, 2, 0, 0]).await?,
    }
    if way == 5 {
        let (_, content) = packet(&mut stream).await?;
        return stream.write_all(&[0x90, 3, content[0], content[1], 0x80]).await;
    }
    be_good(&mut stream, Duration::from_secs(1)).await?;
    let id = format!("%24.mid=m{deed}");
    let bad = match way {
        6 => publish(0x30, "sick", &id, None, b"{\"command\":\"none\"}"),
        7 => publish(0x34, "sick", &id, Some(1), b"{}"),
        8 => publish(0x32, "sick", &id, Some(1), format!("{{\"command\":\"none {deed}\"}}").as_bytes()),
        9 => publish(0x32, "sick", &format!("{id}&%24.exp=never-{deed}"), Some(1), b"{\"command\":\"go\"}"),
        10 => publish(0x32, "sick", &id, Some(1), b"{\"command\":\"go\"}"),
        _ => vec![0xff; 64],
    };
    stream.write_all(&bad).await?;
    be_good(&mut stream, if deed.is_multiple_of(2) { STANDS } else { Duration::from_secs(1) }).await
}

/// A serial line that comes and goes.
#[derive(Debug)]
struct Flapping(Deeds);

impl Lines for Flapping {
    fn connect<'a>(&'a self, _: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async { Err("there is no network here".into()) })
    }

    fn opener(&self, _: &SerialPort) -> Box<dyn Opener> {
        Box::new(Flapping(self.0.clone()))
    }
}

impl Opener for Flapping {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        let deed = self.0.one_more();
        Box::pin(async move {
            if deed.is_multiple_of(3) {
                return Err(format!("it can't be opened for the {deed}th time").into());
            }
            let (near, mut far) = tokio::io::duplex(4096);
            tokio::spawn(async move {
                sleep(Duration::from_millis(fastrand::u64(0..20_000))).await;
                let _ = far.write_all(b"noise").await;
            });
            Ok(Box::new(near) as Box<dyn Port>)
        })
    }
}

const SITE: &str = r#"
[hub]
host = "hub.example"
address = "127.0.0.1:1883"
tls = false
[bus.line]
kind = "serial"
port = "/dev/line"
baud = 9600
delimiter = "\r\n"
response_timeout = "100ms"
[profile.p.command.go]
send = "GO\r\n"
expect = "^OK"
idempotent = true
[device.sick]
bus = "line"
profile = "p"
key_file = "key"
[device.calm]
bus = "line"
profile = "p"
key_file = "key"
"#;

/// A wall clock that goes as the week does. One that stood still would be doubted after two minutes.
struct Clock {
    begin: (Timestamp, Instant),
}

impl Simulation for Clock {
    fn now(&self) -> Timestamp {
        let (shown, at) = self.begin;
        shown.plus(at.elapsed())
    }

    fn synchronised(&self) -> bool {
        false
    }

    fn step(&self) -> bool {
        true
    }

    fn delay(&self) -> Option<Duration> {
        None
    }
}

/// Nothing is asked of the daemon until the week is over.
struct AWeek(Instant);

impl Demands for AWeek {
    async fn next(&mut self) -> Demand {
        sleep_until(self.0).await;
        Demand::Stop("the week is over")
    }
}

async fn week(folder: &std::path::Path, hub: Deeds, line: Deeds) {
    let file = folder.join("fieldbridge.toml");
    let more = format!("[ledger]\npath = \"{}\"\n", folder.join("ledger.db").display());
    std::fs::write(&file, format!("{SITE}{more}")).expect("it can be written");
    std::fs::write(folder.join("key"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("it can be written");
    let config = load(&file, []).unwrap_or_else(|problems| panic!("{problems:?}")).config;
    let ways = ways(config.devices.values());
    let life = Life { ways: &ways, late_window: gateway::late_window(&config) };
    let (ledger, writing) = Ledger::open_on(Arc::new(SystemDisk), &config.ledger.path, &config.hub.host, life)
        .expect("the ledger can be made");
    tokio::spawn(writing.run_among_tasks(|| Duration::ZERO));
    let (dial, lines) = (Arc::new(Hostile(hub)), Arc::new(Flapping(line)));
    let source = Arc::new(Files::new(file, Vec::new()));
    let world = World { dial, trust: None, lines, operators: None, source };
    gateway::run_in(world, config, ledger, AWeek(Instant::now() + WEEK)).await.expect("it lives through the week");
}

#[test]
fn a_week_of_every_misdeed_of_a_hub_and_a_line_leaves_a_log_that_can_be_read() {
    let seed = std::env::var("FIELDBRIDGE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("FIELDBRIDGE_SEED={seed}");
    fastrand::seed(seed);
    // Nothing here is about a disk.
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let (hub, line, written) = (Deeds::default(), Deeds::default(), Written::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        simulate(Some(Rc::new(Clock { begin: (Timestamp::now(), Instant::now()) })));
        let (quiet, out) = (Throttle::default(), written.clone());
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || out.clone());
        let level = tracing_subscriber::filter::LevelFilter::INFO;
        let _guard = tracing::subscriber::set_default(
            tracing_subscriber::registry().with(level).with(quiet.clone()).with(lines),
        );
        let reports = quiet.clone();
        tokio::spawn(async move { reports.report().await });
        week(folder.path(), hub.clone(), line.clone()).await;
        quiet.report_all();
        simulate(None);
        clear_graves();
    });
    let text = String::from_utf8(written.0.lock().expect("nobody writes now").clone()).expect("it is UTF-8");
    let (hub, line) = (hub.0.load(Ordering::Relaxed), line.0.load(Ordering::Relaxed));
    println!("{hub} misdeeds of the hub, {line} of the line, {} lines, {} bytes", text.lines().count(), text.len());
    assert!(hub > 10_000 && line > 10_000);

    // One budget for each kind of line, its outcome, and whom it is about; the last one is for the end.
    let most = BURST as usize + PER_HOUR as usize * 24 * 7 + 2;
    for (kind, of) in [
        ("no connection to the hub", "sick"),
        ("connected to the hub", "sick"),
        ("no identity can reach the hub", ""),
        ("the hub can be reached", ""),
        ("delivered a command with QoS 0", "sick"),
        ("expiry can't be read", "sick"),
        ("state=rejected", "sick"),
        ("bus lost", "line"),
        ("bus can't be opened", "line"),
        ("bus open", "line"),
    ] {
        let lines = text.lines().filter(|line| line.contains(kind) && line.contains(of)).count();
        println!("{lines:>6}  {kind}");
        assert!(lines > BURST as usize, "{kind}: it never happened often");
        assert!(lines <= most, "{kind}: {lines}");
    }
    // A unit that is away has commands end otherwise than one that is only slow: each code has its budget.
    let mut failed: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("state=failed")) {
        let code = line.split("code=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        *failed.entry(code).or_default() += 1;
    }
    println!("failed: {failed:?}");
    assert!(failed.values().any(|lines| *lines > BURST as usize) && failed.values().all(|lines| *lines <= most));
    assert!(text.lines().count() < 13 * most, "{}", text.lines().count());
    // What was left out is counted: together it is the whole.
    let counted: u64 = text.lines().filter(|line| line.contains("bus open ")).map(stands_for).sum();
    assert_eq!(counted, line - line.div_ceil(3), "every third attempt fails");
    // The neighbour is seen as if it were alone.
    let calm: Vec<_> = text.lines().filter(|line| line.contains("calm")).collect();
    assert!(calm.iter().any(|line| line.contains("connected to the hub")), "{calm:?}");
}

/// How many lines one stands for.
fn stands_for(line: &str) -> u64 {
    line.split_once("the last of ")
        .map_or(1, |(_, rest)| rest.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(1))
}
