//! Proves G2, G3, G4, G5, G6 and G7 against `kill -9` at random moments, over every transport: commands go through the
//! simulated hub, over TLS, to a daemon that is killed and started again and again. What became of them is counted
//! where it counts, on the peripherals and at the hub.
//!
//! The seed is printed first; `FIELDBRIDGE_SEED` plays a run's choices again, as far as the machine's timing lets
//! them be the same. `FIELDBRIDGE_ROUNDS` makes it longer: so many runs of each test, each with the next seed.
//! `FIELDBRIDGE_LIFE` lets each daemon live so many times as long, where a start takes longer, as under an emulator.

use std::time::{Duration, Instant};

use crate::support::books::{
    modbus_buses, modbus_devices, number, patient_pump, with_seeds, Books, Device, Fate, Route,
};
use crate::support::hub::Hub;
use crate::support::instrument::{Instrument, Temper};
use crate::support::slave::{Mood, Slave};
use crate::support::transports::By;
use crate::support::{eventually, eventually_within, Daemon, Site};
use fieldbridge::demo::hub::{Auth, Cut, Options, OutOfOrder, PacketIds, Redelivery, Wire};

/// How often the daemon is killed in a run.
const KILLS: u32 = 30;
/// How long what the kills have left may take, undisturbed.
const REST: Duration = Duration::from_secs(120);

/// One run: everything that outlives the daemons, and what is still to be sent.
struct Run {
    random: fastrand::Rng,
    site: Site,
    hub: Hub,
    books: Books,
    /// How many kills struck a daemon that the hub had heard.
    struck: u32,
}

impl Run {
    fn new(by: By, seed: u64, options: Options, buses: &str, devices: Vec<Device>, commands_each: usize) -> Run {
        let hub = Hub::start(options);
        let tables: String = devices.iter().map(|device| device.text.as_str()).collect();
        let way = by.keys(by.address(&hub));
        let head = format!("host = \"{}\"\n{way}ca_file = \"hub-ca.pem\"\n", hub.host());
        // No command is to expire while its daemon is dead.
        let site = Site::with_hub(&head, &format!("{buses}{tables}{}", patient_pump()));
        hub.ca_file(&site.path("")).expect("the certificate can be written");
        by.trust(&site);
        for device in &devices {
            hub.add_device(&device.id, Auth::Key((0..32).collect()));
        }
        Run {
            random: fastrand::Rng::with_seed(seed),
            site,
            hub,
            books: Books { by, ..Books::new(devices, commands_each, 1) },
            struck: 0,
        }
    }

    fn spawn(&self) -> Daemon {
        self.site.spawn(&[], self.books.by.environment())
    }

    /// Whether a daemon was heard by the hub since the wire log was so long.
    fn is_heard(&self, since: usize) -> bool {
        let wire = self.hub.wire();
        let is_heard =
            |what: &Wire| matches!(what, Wire::Connected { .. } | Wire::Attached { .. } | Wire::Request { .. });
        wire.iter().skip(since).any(|event| is_heard(&event.what))
    }

    fn send(&mut self, count: usize) {
        self.books.send(&self.hub, count);
    }

    /// The hub keeps nothing for a device that has never subscribed.
    fn subscribe(&self) {
        let daemon = self.spawn();
        eventually("every device subscribed", || self.books.all_subscribed(&self.hub).then_some(()));
        daemon.kill();
    }

    /// Starts and kills the daemon again and again while commands come, and lets something else go wrong in the
    /// middle of each life.
    fn kill_again_and_again(&mut self, mut mishap: impl FnMut(&Hub, &mut fastrand::Rng, &[Device])) {
        let portion = self.books.commands.len().div_ceil(KILLS as usize * 2);
        let times = number("FIELDBRIDGE_LIFE").unwrap_or(1);
        for _ in 0..KILLS {
            let life = times
                * match self.random.u32(..4) {
                    0 => self.random.u64(5..200),
                    _ => self.random.u64(200..1500),
                };
            let until_mishap = self.random.u64(..life);
            self.send(portion);
            let heard = self.hub.wire().len();
            let daemon = self.spawn();
            std::thread::sleep(self.books.by.pause_after_a_crash() + Duration::from_millis(until_mishap));
            self.send(portion);
            mishap(&self.hub, &mut self.random, &self.books.devices);
            std::thread::sleep(Duration::from_millis(life - until_mishap));
            self.struck += u32::from(self.is_heard(heard));
            daemon.kill();
        }
    }

    /// Lets the last daemon do what is left, in peace.
    fn finish(&mut self) {
        let daemon = self.spawn();
        daemon.wait_until_ready();
        let began = Instant::now();
        eventually_within(REST, "every message completed, every result at the hub", || {
            self.send(usize::MAX);
            self.books.are_closed(&self.hub).then_some(())
        });
        self.site.settled();
        println!("what the kills have left took {:?}", began.elapsed());
        assert!(daemon.terminate().success());
    }

    fn check(&self, done: &[u16]) -> Vec<Fate<'_>> {
        self.books.print(&self.hub, &self.books.fates(&self.hub, done));
        println!("{KILLS} kills, {} of them of a daemon that the hub had heard", self.struck);
        assert!(self.struck > 0, "every daemon was killed before it did anything: FIELDBRIDGE_LIFE=5 gives them time");
        self.books.check(&self.hub, done)
    }
}

/// The buses of these slaves.
fn buses(slaves: &[Slave], keys: &str) -> String {
    modbus_buses(slaves.iter().map(Slave::address), keys)
}

fn written(slaves: &[Slave]) -> Vec<u16> {
    slaves.iter().flat_map(Slave::writes).map(|(_, value)| value).collect()
}

fn among_sound_peripherals(by: By) {
    with_seeds("sound peripherals", |seed| {
        let slaves = [Slave::new(), Slave::new()];
        for (n, slave) in slaves.iter().enumerate() {
            slave.set_weather(seed + n as u64, vec![(80, Mood::Slow(Duration::from_millis(150)))]);
        }
        let mut random = fastrand::Rng::with_seed(seed);
        let options = Options {
            redelivery: Redelivery::OnReconnect,
            packet_ids: [PacketIds::PerConnection, PacketIds::Sequence, PacketIds::LowestFree][random.usize(..3)],
            out_of_order: OutOfOrder::Ignore,
            dup: random.bool(),
            lock: by.lock(),
            ..Options::default()
        };
        let tables = buses(&slaves, "response_timeout = \"20s\"");
        let mut run = Run::new(by, seed, options, &tables, modbus_devices(8, 2), 24);
        run.subscribe();
        run.kill_again_and_again(|_, _, _| {});
        run.finish();
        run.books.check_order_of_settling(&run.hub);
        for fate in run.check(&written(&slaves)) {
            match (fate.command.route, fate.status.as_str(), fate.code.as_str()) {
                (_, "succeeded", _) => {}
                (Route::Pulse, "in_doubt", "interrupted") => {}
                // Nobody knows whether it is still to come.
                (Route::PulseVerified, "in_doubt", "interrupted") if fate.done == 0 => {}
                _ => panic!("only a kill has disturbed it: {fate:?}"),
            }
        }
    });
}

fn among_bad_peripherals_and_a_bad_hub(by: By) {
    with_seeds("bad peripherals, bad hub", |seed| {
        let slaves = [Slave::new(), Slave::new()];
        let weather = || {
            let slow = (50, Mood::Slow(Duration::from_millis(100)));
            vec![
                slow,
                (3, Mood::Mute),
                (3, Mood::Deaf),
                (4, Mood::Refusing(4)),
                (3, Mood::Refusing(5)),
                (4, Mood::HangUp),
            ]
        };
        for (n, slave) in slaves.iter().enumerate() {
            slave.set_weather(seed + n as u64, weather());
        }
        // Bound and never listening: it refuses every connection, and nobody else can have the port.
        let dead = tokio::net::TcpSocket::new_v4().expect("a socket can be made");
        dead.bind("127.0.0.1:0".parse().expect("an address")).expect("a port is free");
        let dead_address = dead.local_addr().expect("it has an address");

        let options = Options {
            redelivery: Redelivery::SameConnection,
            lock: Duration::from_millis(120),
            out_of_order: OutOfOrder::Ignore,
            ..Options::default()
        };
        let mut tables = buses(&slaves, "response_timeout = \"250ms\"\nunreachable_after = 0");
        tables += &format!("\n[bus.bus-2]\nkind = \"modbus-tcp\"\naddress = \"{dead_address}\"\n");
        // One of three buses is dead.
        let mut run = Run::new(by, seed, options, &tables, modbus_devices(9, 3), 18);
        run.subscribe();
        run.kill_again_and_again(|hub, random, devices| {
            let device = &devices[random.usize(..devices.len())].id;
            let faults = by.faults();
            match random.usize(..faults.len() + 2) {
                0 => drop(hub.cut(device, Cut::Reset)),
                1 => drop(hub.cut(device, Cut::Fin)),
                which => hub.fault(device, faults[which - 2]),
            }
        });
        run.finish();
        let fates = run.check(&written(&slaves));
        for fate in fates.iter().filter(|fate| run.books.devices[fate.command.device].text.contains("bus-2")) {
            let nothing_sent = fate.status == "failed" && fate.code == "bus-unavailable";
            // Killed between its record and the attempt: even this one can't be told from one that was sent.
            let interrupted = fate.status == "in_doubt" && fate.code == "interrupted";
            assert!(nothing_sent || interrupted, "nobody listens there: {fate:?}");
        }
    });
}

fn on_a_serial_line(by: By) {
    with_seeds("serial line", |seed| {
        // Slow enough to answer a daemon that was killed meanwhile, deaf often enough for that answer to be a false
        // success.
        let slow = (60, Duration::from_millis(250));
        let instrument = Instrument::new(seed, Temper { slow, mute: 2, deaf: 6, refusing: 6 });
        let bus = format!(
            "\n[bus.line]\nkind = \"serial\"\nport = \"{}\"\nbaud = 115200\nresponse_timeout = \"400ms\"\nunreachable_after = 0\n\
             [profile.instrument.command.pulse]\nsend = \"P{{value}}\\n\"\nexpect = \"^OK\"\nrefuse = \"^NO\"\nidempotent = false\n\
             deadline = \"10m\"\n",
            instrument.path().display()
        );
        let device = |id: &str, settle: &str| {
            let text = format!(
                "\n[device.{id}]\nbus = \"line\"\nprofile = \"instrument\"\nkey_file = \"device.key\"\nsettle = \"{settle}\"\n"
            );
            Device { id: id.into(), text, routes: &[Route::Pulse] }
        };
        let devices = vec![device("scale-0", "after-execution"), device("scale-1", "after-accept")];
        let options = Options { lock: by.lock(), ..Options::default() };
        let mut run = Run::new(by, seed, options, &bus, devices, 25);
        run.subscribe();
        run.kill_again_and_again(|_, _, _| {});
        run.finish();
        let heard = || {
            run.books.fates(&run.hub, &instrument.done()).iter().all(|fate| fate.status != "succeeded" || fate.done > 0)
        };
        eventually("the instrument done with what it has heard", || heard().then_some(()));
        run.check(&instrument.done());
    });
}

/// Each of these tests for each transport.
macro_rules! by_each_transport {
    ($($test:ident: $play:ident,)+) => {
        mod by_mqtt {
            $(#[test] fn $test() { super::$play(super::By::Mqtt); })+
        }
        mod by_amqp {
            $(#[test] fn $test() { super::$play(super::By::Amqp); })+
        }
        #[cfg(feature = "proof")] // without it a lock is waited for a minute
        mod by_https {
            $(#[test] fn $test() { super::$play(super::By::Https); })+
        }
    };
}

by_each_transport! {
    with_sound_peripherals_only_what_was_interrupted_and_has_no_verify_is_in_doubt: among_sound_peripherals,
    with_bad_peripherals_a_bad_hub_and_redelivery_on_the_same_connection_nothing_is_repeated_or_falsely_reported:
        among_bad_peripherals_and_a_bad_hub,
    on_a_serial_line_a_command_that_must_not_repeat_is_sent_once: on_a_serial_line,
}
