//! What each transport costs, beside MQTT: latency to the wire and to the settlement, the rate at which a full queue is
//! worked off, resident memory for each identity, processor time of many that are idle.
//!
//! `cargo bench --bench transports` prints the tables of docs/PERFORMANCE.md. The built daemon runs as a process of its
//! own, over TLS; the simulator of the hub runs here, the same for each transport. `FIELDBRIDGE_COMMANDS` is the length
//! of the queue, in place of 50,000; `FIELDBRIDGE_TRANSPORTS=mqtt,amqp` leaves out the others.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use fieldbridge::demo::hub::{Auth, C2d, Options};
use support::hub::Hub;
use support::slave::Slave;
use support::{eventually_within, pump, Daemon, Site};

const TRANSPORTS: [&str; 5] = ["mqtt", "mqtt-ws", "amqp", "amqp-ws", "https"];
/// Commands of which the latency is measured, and those before them of which it is not.
const COMMANDS: u16 = 300;
const WARM_UP: u16 = 20;
/// By HTTPS each waits for the next poll.
const POLLED_COMMANDS: u16 = 30;
const IDENTITIES: [usize; 4] = [1, 10, 100, 900];
/// How long idle identities are watched.
const WATCH: Duration = Duration::from_secs(30);
/// Ticks of the clock that the kernel counts processor time by, a second (`proc_pid_stat(5)`).
const TICKS: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(1800);

fn main() {
    // `cargo test --benches` runs a bench too; there is nothing to test here.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    // A connection for each of 900 identities ends here too.
    fieldbridge::handles::raise();
    println!("build: {}\n", if cfg!(debug_assertions) { "DEBUG, not for quoting" } else { "release" });
    latency();
    drain();
    memory();
}

/// Those that are to be measured.
fn transports() -> Vec<&'static str> {
    let wanted = std::env::var("FIELDBRIDGE_TRANSPORTS").unwrap_or_else(|_| TRANSPORTS.join(","));
    TRANSPORTS.into_iter().filter(|transport| wanted.split(',').any(|one| one == *transport)).collect()
}

fn hub(queue_limit: usize) -> Hub {
    let day = Duration::from_secs(24 * 3600);
    Hub::start(Options {
        keeps_from_start: true,
        queue_limit,
        default_ttl: day,
        feedback_interval: Duration::ZERO,
        ..Options::default()
    })
}

fn head(hub: &Hub, transport: &str) -> String {
    let (web, amqp) = (hub.https_addr(), hub.amqp_addr());
    format!(
        "host = \"{}\"\ntransport = \"{transport}\"\npoll_interval = \"1s\"\nca_file = \"hub-ca.pem\"\nconnect_rate = 100\n\
         addresses = {{ mqtt = \"{}\", mqtt-ws = \"{web}\", amqp = \"{amqp}\", amqp-ws = \"{web}\", https = \"{web}\" }}\n",
        hub.host(),
        hub.addr()
    )
}

/// A site with one device, `pump`, whose messages are all trusted.
fn site(hub: &Hub, slave: &Slave, transport: &str, settle: &str) -> Site {
    hub.add_device("pump", Auth::Key((0..32).collect()));
    let site = Site::with_hub(&head(hub, transport), &pump(slave.address(), settle, ""));
    site.write("hub-ca.pem", &hub.ca_pem());
    assert!(site.command(&["ledger", "new", "--trust"]).status.success());
    site
}

fn spawn(site: &Site) -> Daemon {
    let log = std::fs::File::create(site.path("daemon.log")).expect("a log can be made");
    let daemon = site.spawn_logging_to(log, &[], &[("FIELDBRIDGE_LOG", "warn")]);
    daemon.wait_until_ready();
    daemon
}

fn start(site: &Site, devices: usize) -> Daemon {
    let daemon = spawn(site);
    eventually_within(PATIENCE, "every device connected", || {
        (site.status()["hub"]["connected"].as_u64() == Some(devices as u64)).then_some(())
    });
    daemon.unheard()
}

fn command(number: u16) -> C2d {
    C2d::new(format!("m-{number}"), number.to_string()).property("command", "set")
}

fn latency() {
    println!("latency in ms of one command after the other, after-execution, idempotent, TLS on loopback, Modbus TCP");
    println!(
        "{:10} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "transport", "wire p50", "wire p99", "told p50", "told p99", "to mqtt"
    );
    let mut by_mqtt = None;
    for transport in transports() {
        let (hub, slave) = (hub(50), Slave::new());
        let site = site(&hub, &slave, transport, "after-execution");
        let _daemon = start(&site, 1);
        let (mut wire, mut told) = (Vec::new(), Vec::new());
        let commands = if transport == "https" { POLLED_COMMANDS } else { COMMANDS };
        for number in 1..=WARM_UP + commands {
            let sent = Instant::now();
            hub.send("pump", command(number)).expect("the queue has room");
            while hub.queue_len("pump") > 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
            let ended = Instant::now();
            let written = slave.wait_for_write(number);
            if number > WARM_UP {
                wire.push(written.duration_since(sent));
                told.push(ended.duration_since(sent));
            }
        }
        let p50 = percentile(&mut told, 50);
        let ratio = p50.as_secs_f64() / by_mqtt.get_or_insert(p50).as_secs_f64();
        println!(
            "{transport:10} {:>9} {:>9} {:>9} {:>9} {ratio:>9.2}x",
            millis(percentile(&mut wire, 50)),
            millis(percentile(&mut wire, 99)),
            millis(p50),
            millis(percentile(&mut told, 99)),
        );
    }
    println!("told: the hub has taken the message out of its queue. https asks once a second here, so half a second is the poll's\n");
}

fn drain() {
    let commands: u16 = std::env::var("FIELDBRIDGE_COMMANDS").map_or(50_000, |text| text.parse().expect("a number"));
    println!("{commands} messages that wait for one device, worked off, after-accept, idempotent");
    let mut by_mqtt = None;
    for transport in transports() {
        let (hub, slave) = (hub(usize::from(commands)), Slave::new());
        let site = site(&hub, &slave, transport, "after-accept");
        // By MQTT a hub keeps nothing for a device that has never subscribed.
        assert!(start(&site, 1).terminate().success());
        for number in 1..=commands {
            hub.send("pump", command(number)).expect("the queue has room");
        }
        let daemon = spawn(&site);
        let are_left = |most: u16| hub.queue_len("pump") <= usize::from(most);
        eventually_within(PATIENCE, "a beginning", || are_left(commands - 1).then_some(()));
        let begun = Instant::now();
        eventually_within(PATIENCE, "an empty queue", || are_left(0).then_some(()));
        let rate = f64::from(commands) / begun.elapsed().as_secs_f64();
        let ratio = rate / *by_mqtt.get_or_insert(rate);
        println!(
            "{transport:10} {rate:>8.0} a second, {ratio:.2} x mqtt, {:.1} MB resident at the end",
            resident(&daemon)
        );
    }
    println!();
}

fn memory() {
    println!("resident memory in MB with so many identities, connected and idle; processor time of the most, idle for {WATCH:?}");
    println!("{:10} {:>8} {:>8} {:>8} {:>8} {:>14} {:>10}", "transport", 1, 10, 100, 900, "kB for each", "processor");
    for transport in transports() {
        let (mut megabytes, mut processor) = (Vec::new(), 0.0);
        for identities in IDENTITIES {
            let (hub, slave) = (hub(50), Slave::new());
            let mut text = format!("[bus.plant]\nkind = \"modbus-tcp\"\naddress = \"{}\"\n", slave.address());
            text += "[profile.p.command.read]\nread = { table = \"holding\", address = 0 }\n";
            for number in 0..identities {
                let id = format!("d-{number}");
                hub.add_device(&id, Auth::Key((0..32).collect()));
                text +=
                    &format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"p\"\nkey_file = \"device.key\"\n");
            }
            let head = head(&hub, transport).replace("\"1s\"", "\"25m\"");
            let site = Site::with_hub(&head, &text);
            site.write("hub-ca.pem", &hub.ca_pem());
            let daemon = start(&site, identities);
            megabytes.push(resident(&daemon));
            if identities == IDENTITIES[3] {
                let before = ticks(&daemon);
                std::thread::sleep(WATCH);
                processor = (ticks(&daemon) - before) / TICKS / WATCH.as_secs_f64() * 100.0;
            }
        }
        let each = (megabytes[3] - megabytes[1]) * 1024.0 / (IDENTITIES[3] - IDENTITIES[1]) as f64;
        println!(
            "{transport:10} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {each:>14.1} {processor:>9.2}%",
            megabytes[0], megabytes[1], megabytes[2], megabytes[3]
        );
    }
}

fn resident(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}

/// Processor time so far, in ticks (fields 14 and 15 of `proc_pid_stat(5)`).
fn ticks(daemon: &Daemon) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).expect("a process has a stat");
    let behind_the_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    behind_the_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}
