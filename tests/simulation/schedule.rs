//! One schedule from beginning to end: the gateway lives, dies and lives again among faults, then in peace until
//! nothing is left to do.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fieldbridge::config::{load, Config, Proxy};
use fieldbridge::exit::Exit;
use fieldbridge::gateway::{self, Reading, Reads, Source, World as Surroundings};
use fieldbridge::hub::transports::ways;
use fieldbridge::ledger::{Ledger, Life};
use fieldbridge::systemd::{Demand, Demands};
use fieldbridge::time::simulated::{clear_graves, simulate, Mortal};
use tokio::sync::Notify;
use tokio::time::{sleep, sleep_until, timeout, Instant};
use tokio_util::sync::CancellationToken;

use super::alarms;
use super::backups::Backups;
use super::calls;
use super::disk::{Mounted, Sickness, SimDisk};
use super::hub::{Hub, State, ToHub};
use super::instrument;
use super::judge::judge;
use super::ledger::{Lost, Row, Witness, PATH};
use super::lines::ToPlant;
use super::manners::Manner;
use super::plant::Plant;
use super::scenario::{Happening, Scenario};
use super::tunnel::PROXY;
use super::vfs;
use super::world::{Report, Seen, World};

/// How long what is left may take in peace. The longest deadline of a command is 10 minutes.
const REST: Duration = Duration::from_secs(3600);

/// Where a thread keeps the files that a configuration needs.
pub struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// An empty one.
    pub fn new() -> Desk {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // 32 zero bytes.
        std::fs::write(folder.path().join("key"), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
            .expect("it can be written");
        Desk { folder }
    }

    fn configuration(&self, text: &str) -> Config {
        let path = self.folder.path().join("fieldbridge.toml");
        std::fs::write(&path, text).expect("it can be written");
        load(&path, []).unwrap_or_else(|problems| panic!("{problems:?}\n{text}")).config
    }

    fn key_file(&self) -> String {
        self.folder.path().join("key").display().to_string()
    }
}

thread_local! {
    /// What has panicked on this thread.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A panic anywhere in a schedule is a violation, whoever catches it.
pub fn watch_for_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        PANICS.with(|panics| panics.borrow_mut().push(panic.to_string()));
    }));
}

thread_local! {
    /// The world whose story the gateway's own log belongs to.
    static TOLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// The gateway's log, as a part of the story.
struct Log;

impl std::io::Write for Log {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = || format!("log: {}", String::from_utf8_lossy(line).trim_end());
        TOLD.with_borrow(|world| world.iter().for_each(|world| world.tell(text)));
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// From now on the stories of schedules have the gateway's log in them.
pub fn tell_the_log() {
    let log = tracing_subscriber::fmt().without_time().with_ansi(false).with_max_level(tracing::Level::DEBUG);
    log.with_writer(|| Log).try_init().expect("nobody else logs");
}

/// Runs the schedule of a seed. With `story` it tells what happened.
pub fn run(seed: u64, desk: &Desk, story: bool) -> Report {
    fastrand::seed(seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().expect("a runtime");
    let mut report = runtime.block_on(async {
        let world = World::new(seed, story);
        simulate(Some(Rc::new(Seen(world.clone()))));
        TOLD.set(story.then(|| world.clone()));
        Schedule::new(&world, desk).run().await;
        world.report()
    });
    drop(runtime);
    let panics = PANICS.with(|panics| panics.take());
    report.violations.extend(panics.into_iter().map(|panic| format!("G8: {panic}")));
    simulate(None);
    vfs::mount("/sim", None);
    report
}

struct Schedule {
    world: Arc<World>,
    scenario: Scenario,
    settings: Arc<Settings>,
    disk: Arc<SimDisk>,
    witness: Arc<Witness>,
    hub: Arc<Hub>,
    plant: Arc<Plant>,
    backups: Arc<Backups>,
    lost: RefCell<Lost>,
}

/// The configurations of a schedule, as files are: whoever reads them gets what stands there then.
struct Settings {
    world: Arc<World>,
    configs: Vec<Config>,
    /// The last good one, which a new life begins with; and whether errors stand there now.
    present: Mutex<Result<usize, usize>>,
    /// Rings for the running process.
    changed: Notify,
    plant: Arc<Plant>,
}

impl Settings {
    fn lock(&self) -> MutexGuard<'_, Result<usize, usize>> {
        self.present.lock().expect("nobody panics while holding the settings")
    }

    fn change(&self, number: Option<usize>) {
        let mut present = self.lock();
        let last = present.unwrap_or_else(|last| last);
        *present = number.ok_or(last);
        self.changed.notify_one();
    }

    fn present(&self) -> Config {
        self.configs[self.number()].clone()
    }

    fn number(&self) -> usize {
        self.lock().unwrap_or_else(|last| last)
    }
}

impl Source for Settings {
    fn read(&self) -> Reads<'_> {
        Box::pin(async {
            sleep(self.world.time(0, 50)).await;
            let present = *self.lock();
            self.world.count("reloads");
            self.world.note(format_args!("the gateway reads the configuration: {present:?}"));
            match present {
                Ok(number) => {
                    self.plant.is_asked_under(number, false);
                    Ok(Reading { config: self.configs[number].clone(), notes: Vec::new(), trust: None })
                }
                Err(_) => {
                    self.world.count("reloads: refused");
                    Err(vec!["it has errors".into()])
                }
            }
        })
    }
}

/// What the process is told from outside.
struct Told {
    stop: CancellationToken,
    settings: Arc<Settings>,
}

impl Demands for Told {
    async fn next(&mut self) -> Demand {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Demand::Stop("the simulation says so"),
            () = self.settings.changed.notified() => Demand::Reload,
        }
    }
}

/// How a life of the process ended.
enum Ended {
    /// In the middle of something.
    Died,
    /// As it was told to.
    Stopped,
    /// By itself, with this error.
    Gave(Exit),
}

impl Schedule {
    fn new(world: &Arc<World>, desk: &Desk) -> Schedule {
        let scenario = Scenario::generate(world, &desk.key_file());
        let mut configs: Vec<Config> =
            scenario.configurations.iter().map(|one| desk.configuration(&one.text)).collect();
        if scenario.manners.have(Manner::Proxy) {
            // No file may say so: without TLS, which a simulation has not, a proxy is refused.
            let proxy = || Some(Proxy { address: PROXY.to_owned(), credentials: None });
            configs.iter_mut().for_each(|config| config.hub.proxy = proxy());
        }
        let disk = SimDisk::new(world);
        vfs::mount("/sim", Some(disk.clone()));
        let witness = Witness::new(world, &disk, scenario.witnessed);
        let hub = Hub::new(world, &witness, &scenario);
        let plant = Plant::new(world, &witness, &scenario);
        let settings = Arc::new(Settings {
            world: world.clone(),
            configs,
            present: Mutex::new(Ok(0)),
            changed: Notify::new(),
            plant: plant.clone(),
        });
        let (backups, lost) = (Backups::new(world, &disk, &witness, &scenario), RefCell::default());
        Schedule { world: world.clone(), scenario, settings, disk, witness, hub, plant, backups, lost }
    }

    async fn run(self) {
        let happenings = tokio::spawn(happen(
            self.world.clone(),
            self.hub.clone(),
            self.disk.clone(),
            self.settings.clone(),
            self.scenario.happenings.clone(),
            Sickness { write: self.scenario.faults.disk, sync: self.scenario.faults.disk },
        ));
        let instrument = tokio::spawn(instrument::live(self.plant.clone()));
        let alarms = tokio::spawn(alarms::live(self.plant.clone()));
        let backups = tokio::spawn(self.backups.clone().live());
        self.hub.calls(&self.scenario.calls);
        self.world.slow_down(self.scenario.faults.slowness);
        let chaos = Instant::now() + self.scenario.chaos;
        while Instant::now() < chaos {
            self.live(Some(chaos)).await;
            self.lose_the_ledger();
            self.restore_the_ledger();
            self.edit_the_configuration();
            let pause = if self.world.chance(500) { 300 } else { 3_000 };
            sleep(self.world.time(50, pause)).await;
        }
        happenings.abort();
        instrument.abort();
        alarms.abort();
        backups.abort();
        self.world.end_faults();
        self.disk.heal();
        self.hub.go_out(Instant::now());
        self.settings.change(Some(0));
        self.world.note(format_args!("peace"));
        self.live(None).await;
        match self.witness.all_remains() {
            Ok((rows, _)) => {
                let (called, rows): (Vec<Row>, Vec<Row>) = rows.into_iter().partition(|row| row.is_call);
                let record = self.plant.record();
                calls::judge(&self.world, &self.scenario, &self.hub, &called, &record);
                judge(&self.world, &self.scenario, &self.hub, &rows, &self.lost.borrow(), &record)
            }
            Err(error) => self.world.violate(format!("the ledger can't be read at the end: {error}")),
        }
    }

    /// Between two lives: the gateway's card is replaced by an empty one, perhaps.
    fn lose_the_ledger(&self) {
        if !self.scenario.manners.have(Manner::LostLedger) || !self.world.strikes("ledger: replaced by none", 400) {
            return;
        }
        self.world.note(format_args!("the ledger is lost"));
        self.note_lost(&[]);
        self.disk.wipe();
    }

    /// Between two lives: a ledger from a backup takes the place of the present one, or of none, perhaps.
    fn restore_the_ledger(&self) {
        let host = self.settings.present().hub.host;
        if let Some(restored) = self.backups.restored(&host) {
            self.note_lost(restored.rows());
            restored.put(&self.disk);
        }
    }

    /// Between two lives: the configuration becomes another one, perhaps.
    fn edit_the_configuration(&self) {
        if self.scenario.manners.have(Manner::OtherPatience) && self.world.chance(500) {
            let number = self.world.pick(0..self.settings.configs.len() as u64) as usize;
            self.world.note(format_args!("configuration no. {number} is in place for the next life"));
            self.settings.change(Some(number));
        }
    }

    /// The ledger is about to be replaced by one with these rows.
    fn note_lost(&self, by: &[Row]) {
        match self.witness.remains() {
            Ok((rows, _)) => {
                self.witness.note_lost(&rows);
                self.lost.borrow_mut().replaced(&rows, by);
            }
            Err(error) => self.world.violate(format!("the ledger can't be read before it is lost: {error}")),
        }
    }

    /// One life of the process: until the faults end, or without an end until nothing is left to do.
    async fn live(&self, chaos: Option<Instant>) {
        let world = &self.world;
        let crash = chaos.filter(|_| world.chance(self.scenario.faults.crashes)).map(|_| match world.pick(0..10) {
            0..3 => world.pick(0..80),
            3..7 => world.pick(0..500),
            _ => world.pick(0..4_000),
        });
        let life = world.begin_life(crash);
        world.note(format_args!("life {life} begins"));
        let ended = tokio::select! {
            biased;
            () = world.death() => Ended::Died,
            ended = Mortal::new(self.process(chaos)) => ended,
        };
        world.end_life();
        self.disk.process_ended();
        // What was spawned is dropped now; none of it runs any more.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        clear_graves();
        match ended {
            Ended::Died => {
                world.count("crashes");
                world.note(format_args!("life {life} is cut short"));
                if world.chance(500) {
                    world.count("power cuts");
                    self.disk.power_cut();
                }
            }
            Ended::Stopped => {
                world.count("ordered stops");
                world.note(format_args!("life {life} stopped"));
            }
            Ended::Gave(fatal) => {
                world.note(format_args!("life {life} gave up: {fatal}"));
                self.judge_fatal(&fatal, chaos.is_none());
            }
        }
    }

    fn judge_fatal(&self, fatal: &Exit, in_peace: bool) {
        let sick = self.scenario.faults.disk > 0;
        match fatal {
            Exit::Ledger(_) if sick && !in_peace => self.world.count("lives ended by the disk"),
            other => self.world.violate(format!("G8: the process ended by itself: {other}")),
        }
    }

    /// As `ledger new --trust` does. What the disk does not take is not trusted.
    async fn trust(&self, ledger: &Ledger) {
        let hub = self.settings.present().hub.host;
        for device in self.scenario.devices.iter().filter(|_| self.scenario.trusts) {
            if ledger.distrusts(&hub, device) && ledger.trust_device(&hub, device).await.is_ok() {
                self.world.count("ledger: trusted");
            }
        }
    }

    async fn process(&self, chaos: Option<Instant>) -> Ended {
        let disk = Arc::new(Mounted(self.disk.clone()));
        self.plant.is_asked_under(self.settings.number(), true);
        let present = self.settings.present();
        let ways = ways(present.devices.values());
        let life = Life { ways: &ways, late_window: gateway::late_window(&present) };
        let (ledger, writing) = match Ledger::open_on(disk, Path::new(PATH), &present.hub.host, life) {
            Ok(opened) => opened,
            // Whoever is dead has no say in it.
            Err(_) if !self.world.lives(self.world.life()) => std::future::pending().await,
            Err(error) => return Ended::Gave(error.into()),
        };
        let world = self.world.clone();
        let latency = move || world.time(0, 15);
        let writer = tokio::spawn(Mortal::new(writing.run_among_tasks(latency)));
        self.trust(&ledger).await;
        let surroundings = Surroundings {
            dial: Arc::new(ToHub(self.hub.clone())),
            trust: None,
            lines: Arc::new(ToPlant(self.plant.clone())),
            operators: None,
            source: self.settings.clone(),
        };
        let stop = CancellationToken::new();
        let told = Told { stop: stop.clone(), settings: self.settings.clone() };
        let running = gateway::run_in(surroundings, present, ledger.clone(), told);
        tokio::pin!(running);
        let ended = tokio::select! {
            ended = &mut running => ended,
            () = self.time_to_stop(chaos) => {
                stop.cancel();
                running.await
            }
        };
        drop(ledger);
        let abandoned = timeout(Duration::from_secs(60), writer).await.is_err();
        match ended {
            Ok(()) if abandoned => Ended::Gave(Exit::Internal("the ledger's writer does not end".into())),
            Ok(()) => Ended::Stopped,
            Err(fatal) => Ended::Gave(fatal),
        }
    }

    async fn time_to_stop(&self, chaos: Option<Instant>) {
        match chaos {
            Some(_) if self.world.chance(400) => sleep(self.world.time(0, 30_000)).await,
            Some(chaos) => sleep_until(chaos).await,
            None => {
                let done = async {
                    while !self.is_done() {
                        sleep(Duration::from_secs(1)).await;
                    }
                };
                if timeout(REST, done).await.is_err() {
                    self.world.violate("not everything came to an end".into());
                }
            }
        }
    }

    /// Whether nothing is left to do for anybody.
    fn is_done(&self) -> bool {
        self.hub.is_empty()
            && self.hub.callers_know()
            && self
                .witness
                .all_remains()
                .is_ok_and(|(rows, events)| events == 0 && rows.iter().all(|row| row.is_final()))
    }
}

/// Lets happen what is planned.
async fn happen(
    world: Arc<World>,
    hub: Arc<Hub>,
    disk: Arc<SimDisk>,
    settings: Arc<Settings>,
    happenings: Vec<(Duration, Happening)>,
    sickness: Sickness,
) {
    disk.sicken(sickness);
    let began = Instant::now();
    for (at, happening) in happenings {
        sleep_until(began + at).await;
        world.note(format_args!("{}", happening.word()));
        match happening {
            Happening::Send(message, life) => hub.send(message, life),
            Happening::DiskFull(room) => {
                world.count("disk: runs full");
                disk.leave_room(Some(room));
            }
            Happening::DiskFreed => disk.leave_room(None),
            Happening::Clock(error, synchronised) => {
                world.count("clock: jumps");
                world.set_clock(error, synchronised);
            }
            Happening::Outage(length) => {
                world.count("hub: an outage");
                hub.go_out(Instant::now() + length);
            }
            Happening::Reload(number) => {
                let before = settings.present();
                settings.change(number);
                note_moves(&world, &hub, &before, &settings.present());
            }
        }
    }
}

/// Notes what a device's messages meet that is to be reached by another transport from now on.
fn note_moves(world: &World, hub: &Hub, before: &Config, after: &Config) {
    let by = |config: &Config, id: &str| config.devices.get(id).map(|device| device.transport);
    let moves = |id: &str| by(after, id).is_some_and(|after| by(before, id).is_some_and(|before| before != after));
    hub.look(|sent, _| {
        for one in sent.iter().filter(|one| moves(&one.message.device)) {
            match one.state {
                State::Queued => world.count("reloads: another transport, while a message waits"),
                State::Delivered(..) => world.count("reloads: another transport, while a message is unsettled"),
                _ => {}
            }
        }
    });
}
