//! Proves G1, G2, G3, G4, G5, G7 and G9 against power cuts: the ledger lies on a disk that forgets what was not
//! synced. After each cut the next daemon must take the ledger as it finds it, and what became of the commands is
//! counted at the hub and on the peripherals.
//!
//! The disk is a FUSE file system of the test's own: it needs root and `/dev/fuse`. The seed is printed first;
//! `FIELDBRIDGE_SEED` plays a run's choices again, as far as the machine's timing lets them be the same.
//! `FIELDBRIDGE_ROUNDS` makes it longer: so many runs of each test, each with the next seed.

mod disk;
mod mount;

use std::path::PathBuf;

use crate::support::books::{modbus_buses, modbus_devices, patient_pump, with_seeds, Books, Device, Route};
use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::{eventually, Site};
use disk::{Disk, Kept};
use mount::{Cut, Mounted, Operation};

/// A cut while the ledger is made or a few commands run comes before this operation. There are about 250.
const OPERATIONS_MAX: usize = 1000;
/// Rounds of the cuts at random.
const ROUNDS: usize = 40;
/// A plant serves so many rounds, lest its books grow too long to be read again and again.
const ROUNDS_OF_A_PLANT: usize = 40;

/// What outlives the power.
struct Plant {
    site: Site,
    hub: Hub,
    slave: Slave,
    folder: PathBuf,
    devices: Vec<Device>,
    last_value: u16,
    trusted: Disk,
}

impl Plant {
    fn new(devices: Vec<Device>) -> Plant {
        let ids: Vec<&str> = devices.iter().map(|device| device.id.as_str()).collect();
        let hub = Hub::plain(&ids);
        let slave = Slave::new();
        let tables: String = devices.iter().map(|device| device.text.as_str()).collect();
        let buses = modbus_buses([slave.address()], "response_timeout = \"20s\"");
        let site = Site::at(&hub, &format!("{buses}{tables}{}", patient_pump()));
        site.configure("tls = false", "tls = false\nconnect_rate = 1000");
        let folder = site.path("disk");
        std::fs::create_dir(&folder).expect("a folder can be made");
        site.keep_ledger_in(&folder);
        let mut plant = Plant { site, hub, slave, folder, devices, last_value: 0, trusted: Disk::default() };
        plant.subscribe();
        plant
    }

    /// The hub keeps nothing for a device that has never subscribed. The ledger of this life knows of each device that
    /// nothing was before.
    fn subscribe(&mut self) {
        let mounted = Mounted::new(&self.folder, Disk::default(), None);
        let daemon = self.site.start();
        let all = || self.devices.iter().all(|device| self.hub.is_subscribed(&device.id));
        eventually("every device subscribed", || all().then_some(()));
        daemon.terminate();
        self.trusted = mounted.after_a_cut(Kept::Everything);
    }

    /// New commands, which the hub has.
    fn commands(&mut self, each: usize) -> Books {
        let mut books = Books::new(self.devices.clone(), each, self.last_value + 1);
        self.last_value += books.commands.len() as u16;
        books.send(&self.hub, usize::MAX);
        books
    }

    /// One life of the daemon, up to the cut or to its end in order.
    fn live(&self, disk: Disk, cut: Option<Cut>, books: &Books) -> Mounted {
        let mounted = Mounted::new(&self.folder, disk, cut);
        let mut daemon = self.site.spawn(&[], &[]);
        mounted.feeds(daemon.pid());
        if cut.is_none() {
            daemon.wait_until_ready();
        }
        let mut over = || mounted.is_off() || !daemon.is_running() || books.are_closed(&self.hub);
        eventually("the cut, or the end of the work", || over().then_some(()));
        let ended = if mounted.is_off() { daemon.wait() } else { daemon.terminate() };
        // Where nothing was left to do, the signal may come before the daemon minds it.
        let minded = cut.is_none() || ended.code().is_some();
        assert!(mounted.is_off() || ended.success() || !minded, "{ended}");
        mounted
    }

    /// The life after the last cut: it has all the time that it needs.
    fn finish(&self, disk: Disk, books: &Books) {
        let mounted = self.live(disk, None, books);
        let done: Vec<u16> = self.slave.writes().into_iter().map(|(_, value)| value).collect();
        let rows = self.site.rows();
        drop(mounted);
        for fate in books.check(&self.hub, &done) {
            let row = rows.iter().filter(|row| row["messageId"] == fate.command.id.as_str());
            let states: Vec<_> = row.map(|row| row["state"].as_str()).collect();
            assert_eq!(states, [Some(fate.status.as_str())], "the ledger knows it otherwise: {fate:?}");
            match (fate.command.route, fate.status.as_str(), fate.code.as_str()) {
                (_, "succeeded", _) => {}
                (Route::Pulse, "in_doubt", "interrupted") => {}
                // Nobody knows whether it is still to come.
                (Route::PulseVerified, "in_doubt", "interrupted") if fate.done == 0 => {}
                // The ledger was new, or the cut took the record that nothing was before it (G15).
                (Route::Pulse | Route::PulseVerified, "in_doubt", "unknown-history") if fate.done == 0 => {}
                _ => panic!("only a cut has disturbed it: {fate:?}"),
            }
        }
    }
}

/// A cut, and what it leaves.
type Blow = (Cut, Kept);

/// Plays rounds of cuts, each on a new disk, and says how many there were and how many of them struck.
fn play(devices: &[Device], each: usize, rounds: impl IntoIterator<Item = Vec<Blow>>) -> (usize, usize) {
    let (mut cuts, mut struck) = (0, 0);
    let mut plant = Plant::new(devices.to_vec());
    for (number, round) in rounds.into_iter().enumerate() {
        if number % ROUNDS_OF_A_PLANT == ROUNDS_OF_A_PLANT - 1 {
            plant = Plant::new(devices.to_vec());
        }
        let witness = Witness(&round);
        let books = plant.commands(each);
        // Now and then the ledger is a new one, which an earlier one may have gone before.
        let mut disk = if number % 4 == 3 { Disk::default() } else { plant.trusted.clone() };
        for (cut, kept) in &round {
            let mounted = plant.live(disk, Some(*cut), &books);
            cuts += 1;
            struck += usize::from(mounted.is_off());
            disk = mounted.after_a_cut(kept.clone());
        }
        plant.finish(disk, &books);
        drop(witness);
    }
    (cuts, struck)
}

/// Says which round it was that failed.
struct Witness<'a>(&'a [Blow]);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this failed with the cuts {:?}", self.0);
        }
    }
}

/// One device of each way to settle, with one command that must not repeat and one that may.
fn two_devices() -> Vec<Device> {
    let mut devices = modbus_devices(2, 1);
    devices[0].routes = &[Route::Pulse, Route::Set];
    devices[1].routes = &[Route::PulseVerified, Route::SetVerified];
    devices
}

#[test]
fn at_whatever_operation_the_power_goes_nothing_is_lost_repeated_or_falsely_reported() {
    with_seeds("power cuts at each operation", |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        // What an undisturbed life does, up to its end in order: the operations to cut at.
        let mut plant = Plant::new(two_devices());
        let books = plant.commands(2);
        let operations = plant.live(plant.trusted.clone(), None, &books).operations();
        drop(plant);
        assert!(operations.len() < OPERATIONS_MAX, "{}", operations.len());
        let mut rounds = Vec::new();
        for (index, kind) in operations.iter().enumerate() {
            let mut blow = |after, kept| rounds.push(vec![(Cut { operation: index + 1, after }, kept)]);
            // Everything but this one: so each prefix of what is between two syncs has its turn.
            blow(false, Kept::Everything);
            if *kind == Operation::Change && random.u32(..4) > 0 {
                continue;
            }
            blow(false, Kept::Nothing);
            if *kind == Operation::Sync {
                blow(false, Kept::Prefix(random.u32(1..100)));
                blow(true, Kept::Nothing);
            }
        }
        let syncs = operations.iter().filter(|kind| **kind == Operation::Sync).count();
        let (cuts, struck) = play(&two_devices(), 2, rounds);
        println!("{} operations, {syncs} of them syncs: {cuts} cuts, {struck} struck", operations.len());
        // How commands share commits, and so the number of operations, is a matter of chance.
        assert!(struck * 10 >= cuts * 7, "{struck} of {cuts}");
    });
}

#[test]
fn torn_and_reordered_writes_of_several_cuts_lose_repeat_or_falsely_report_nothing() {
    with_seeds("torn writes", |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut round = || {
            let lives = random.usize(1..=4);
            let mut blow = || {
                let most = [30, 120, 400][random.usize(..3)];
                let cut = Cut { operation: random.usize(1..most), after: random.bool() };
                (cut, Kept::Torn(fastrand::Rng::with_seed(random.u64(..))))
            };
            (0..lives).map(|_| blow()).collect()
        };
        let rounds: Vec<Vec<Blow>> = (0..ROUNDS).map(|_| round()).collect();
        let (cuts, struck) = play(&modbus_devices(3, 1), 4, rounds);
        println!("{ROUNDS} rounds: {cuts} cuts, {struck} struck");
        assert!(struck * 2 >= cuts, "{struck} of {cuts}");
    });
}
