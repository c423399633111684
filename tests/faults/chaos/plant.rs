//! Everything that outlives a daemon: the hub and the way to it, the peripherals, the disk of the ledger, the clock.

use std::time::Duration;

use fieldbridge::demo::hub::{Auth, Options, OutOfOrder, PacketIds};

use super::proxy::Proxy;
use crate::support::books::{modbus_buses, modbus_devices, Books, Device, Route, PUMP_ROUTES};
use crate::support::disk::{with_mounts, SmallDisk};
use crate::support::hub::Hub;
use crate::support::pty::{Port, Protocol};
use crate::support::slave::{Mood, Slave, Weather};
use crate::support::transports::By;
use crate::support::wall::Wall;
use crate::support::{Daemon, Site, PUMP};

/// Runs a program without what it would inherit: a daemon that holds the far end of a pseudo-terminal never sees it go.
const CLOSE_INHERITED: &str =
    r#"for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done; exec "$@""#;
/// The shortest that the configuration allows.
pub const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long an answer may take. A late one takes longer, and comes before the daemon has given it up for good.
pub const ANSWER: Duration = Duration::from_millis(400);
/// Over AMQP a settlement may be lost without its connection: the message comes again when its lock has run out.
const AMQP_LOCK: Duration = Duration::from_secs(5);
/// Polls within which each device was answered if it is in touch: on a machine that is busy, fewer than these never
/// bring an answer to all of them.
const POLLS: u32 = 5;
/// Messages of one device that wait at the hub.
const QUEUED_MAX: usize = 6;
/// Values are two bytes, and each is used once.
const COMMANDS_MAX: usize = 60_000;

pub struct Plant {
    pub site: Site,
    pub hub: Hub,
    pub proxy: Proxy,
    /// On Modbus TCP, Modbus RTU and a line protocol.
    pub slaves: [Slave; 3],
    /// Of the last two.
    pub ports: [Port; 2],
    pub disk: SmallDisk,
    pub books: Books,
    pub random: fastrand::Rng,
    pub wall: Wall,
}

impl Plant {
    pub fn new(by: By, seed: u64) -> Plant {
        let mut random = fastrand::Rng::with_seed(seed);
        let hub = Hub::start(Options {
            packet_ids: [PacketIds::PerConnection, PacketIds::Sequence, PacketIds::LowestFree][random.usize(..3)],
            out_of_order: OutOfOrder::Ignore,
            dup: random.bool(),
            lock: if by == By::Amqp { AMQP_LOCK } else { by.lock() },
            ..Options::default()
        });
        let proxy = Proxy::new(by.address(&hub));
        let slaves = [Slave::new(), Slave::new(), Slave::new()];
        let ports = [Port::new(slaves[1].clone(), Protocol::Rtu), Port::new(slaves[2].clone(), Protocol::Text)];
        let head = format!(
            "host = \"{}\"\n{}ca_file = \"hub-ca.pem\"\nkeepalive = \"{}s\"\ntoken_lifetime = \"1d\"\n",
            hub.host(),
            by.keys(proxy.address()),
            KEEPALIVE.as_secs()
        );
        let devices = devices();
        let tables: String = devices.iter().map(|device| device.text.as_str()).collect();
        let site = Site::with_hub(&head, &format!("{}{tables}{PUMP}", buses(&slaves[0], &ports)));
        hub.ca_file(&site.path("")).expect("the certificate can be written");
        for device in &devices {
            hub.add_device(&device.id, Auth::Key((0..32).collect()));
        }
        let disk = SmallDisk::new("12m");
        site.keep_ledger_in(disk.path());
        by.trust(&site);
        let books = Books { may_expire: true, by, ..Books::new(devices, 0, 1) };
        let wall = Wall::new(&site.path(""));
        let plant = Plant { site, hub, proxy, slaves, ports, disk, books, random, wall };
        plant.clear_up();
        plant.set_the_clock_right();
        plant
    }

    /// Starts a daemon, with the clock of the plant, and its word on whether that is synchronised.
    pub fn start(&self) -> Daemon {
        let mounts = with_mounts(&format!("mount --bind {} /run", self.site.path("run").display()));
        let close = ["bash", "-c", CLOSE_INHERITED, "bash"];
        let wrapper: Vec<&str> = mounts.iter().map(String::as_str).chain(close).collect();
        let environment = [&self.wall.environment()[..], self.books.by.environment()].concat();
        self.site.spawn(&wrapper, &environment)
    }

    /// Whether the hub can expect to hear every device soon.
    pub fn all_in_touch(&self) -> bool {
        self.books.by.are_in_touch(&self.hub, POLLS, self.books.devices.iter().map(|device| device.id.as_str()))
    }

    /// The clock shows the right time, and is synchronised: what it showed before was wrong.
    pub fn set_the_clock_right(&self) {
        self.wall.show_the_right_time();
        let folder = self.site.path("run/systemd/timesync");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        std::fs::write(folder.join("synchronized"), "now").expect("a file can be written");
    }

    /// Peripherals work, and take some time over it.
    pub fn clear_up(&self) {
        let seed = self.books.commands.len() as u64;
        for slave in &self.slaves {
            slave.set_weather(seed, vec![(60, Mood::Slow(ANSWER / 4))]);
        }
    }

    /// Another weather at one of the peripherals.
    pub fn set_weather(&mut self, slave: usize, weather: Weather) {
        self.slaves[slave].set_weather(self.random.u64(..), weather);
    }

    /// One more command to some device, unless that has enough to do.
    pub fn send_one(&mut self) {
        let device = self.random.usize(..self.books.devices.len());
        let Device { id, routes, .. } = &self.books.devices[device];
        let full = self.hub.queue_len(id) >= QUEUED_MAX || self.books.commands.len() >= COMMANDS_MAX;
        if full || !self.hub.is_subscribed(id) {
            return;
        }
        let route = routes[self.random.usize(..routes.len())];
        self.books.add(device, route, 1);
        self.books.send(&self.hub, 1);
    }

    /// How many lines of the daemons' log have this.
    pub fn log_lines(&self, what: &str) -> usize {
        let log = std::fs::read_to_string(self.site.path("daemon.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(what)).count()
    }

    /// What the peripherals have done.
    pub fn done(&self) -> Vec<u16> {
        self.slaves.iter().flat_map(Slave::writes).map(|(_, value)| value).collect()
    }
}

/// Two devices on each of the serial lines, four on Modbus TCP, of both ways to settle.
fn devices() -> Vec<Device> {
    let mut devices = modbus_devices(4, 1);
    let on_a_line = |bus: &str, n: usize, more: &str, routes| {
        let settle = ["after-execution", "after-accept"][n];
        let id = format!("{bus}-{n}");
        let text =
            format!("\n[device.{id}]\nbus = \"{bus}\"\n{more}\nkey_file = \"device.key\"\nsettle = \"{settle}\"\n");
        Device { id, text, routes }
    };
    for n in 0..2 {
        let unit = format!("unit = {}\nprofile = \"pump\"", n + 1);
        devices.push(on_a_line("rtu", n, &unit, &PUMP_ROUTES));
        devices.push(on_a_line("text", n, "profile = \"instrument\"", &[Route::Set, Route::Pulse]));
    }
    devices
}

fn buses(slave: &Slave, ports: &[Port; 2]) -> String {
    let timing = format!("response_timeout = \"{}ms\"\nretries = 1\nunreachable_after = 0", ANSWER.as_millis());
    let mut buses = modbus_buses([slave.address()], &timing);
    for (port, (name, kind)) in ports.iter().zip([("rtu", "modbus-rtu"), ("text", "serial")]) {
        let path = port.path().display().to_string();
        buses += &format!("\n[bus.{name}]\nkind = \"{kind}\"\nport = \"{path}\"\nbaud = 115200\n{timing}\n");
    }
    for (command, letter, idempotent) in [("set", 'S', true), ("pulse", 'P', false)] {
        buses += &format!(
            "\n[profile.instrument.command.{command}]\nsend = \"{letter}{{value}}\\n\"\nexpect = \"^OK\"\nrefuse = \"^NO\"\n\
             idempotent = {idempotent}\n"
        );
    }
    buses
}
