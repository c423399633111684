//! One case: a site with a slave and a hub, two commands, lives of the daemon that end at a point, and one that does
//! not; and what must hold after each.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fieldbridge::demo::hub::{Ack, Auth, C2d, Options, Status};
use fieldbridge::proof::crash::Point;
use serde_json::{json, Value as Json};

use crate::books::{self, Books};
use crate::cases::{Case, Kind, Life, Settle, Wiring};
use crate::support::books::is_foreign;
use crate::support::disk::SmallDisk;
use crate::support::hub::Hub;
use crate::support::instrument::{Instrument, Temper};
use crate::support::pty::{Port, Protocol};
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, signal, Daemon, Site, PUMP};
use crate::table::{end_of, left_at, phase, Durable, Phase, Wire};

/// How long one life may take on a loaded machine.
const LIFE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(25);

/// The commands, in the order in which they are sent, by message id, and the values that tell them apart.
const COMMANDS: [(&str, u16); 2] = [("first", 1001), ("second", 1002)];

/// The length by which the ledger knows its ballast.
const BALLAST_BYTES: u64 = 4 * 1024 * 1024;

/// The signal that ends a process at a point.
const SIGKILL: i32 = 9;

/// How a case has ended.
pub struct Told {
    /// The final state of each command.
    pub ends: Vec<String>,
    /// Lives that a point has ended.
    pub struck: usize,
    /// All lives.
    pub lives: usize,
}

/// Everything that outlives the daemons of one case.
pub struct Plant<'a> {
    case: &'a Case,
    site: Site,
    hub: Hub,
    slave: Slave,
    instrument: Option<Instrument>,
    /// The serial line with the slave on it.
    _port: Option<Port>,
    ledger: PathBuf,
    /// Where the ledger is, if it is to be full.
    disk: Option<SmallDisk>,
    /// What fills it.
    filler: Option<PathBuf>,
    sent: bool,
    /// What each life that ended early has left, and what was done at the slave then.
    left: Vec<(Books, [usize; 2])>,
}

impl<'a> Plant<'a> {
    pub fn new(case: &'a Case) -> Plant<'a> {
        let hub = Hub::start(Options { tls: false, lock: case.by.lock(), ..Options::default() });
        hub.add_device("pump", Auth::Key((0..32).collect()));
        let slave = Slave::new();
        let sound = Temper { slow: (0, Duration::ZERO), mute: 0, deaf: 0, refusing: 0 };
        let instrument = (case.wiring == Wiring::Text).then(|| Instrument::new(0, sound));
        let line = |port: &std::path::Path| {
            format!("port = \"{}\"\nbaud = 115200\nresponse_timeout = \"2s\"\nlate_window = \"2s\"", port.display())
        };
        let port = (case.wiring == Wiring::Rtu).then(|| Port::new(slave.clone(), Protocol::Rtu));
        let bus = match (case.wiring, &instrument, &port) {
            (Wiring::Tcp, ..) => {
                format!("kind = \"modbus-tcp\"\naddress = \"{}\"\nresponse_timeout = \"20s\"", slave.address())
            }
            (_, _, Some(port)) => format!("kind = \"modbus-rtu\"\n{}", line(&port.path())),
            (_, Some(instrument), _) => format!("kind = \"serial\"\n{}", line(instrument.path())),
            _ => unreachable!("one of them was made above"),
        };
        let unit = if case.wiring == Wiring::Text { "" } else { "unit = 1\n" };
        let settle = case.settle.word();
        let device =
            format!("bus = \"plant\"\n{unit}profile = \"pump\"\nkey_file = \"device.key\"\nsettle = \"{settle}\"");
        let text = format!("[bus.plant]\n{bus}\nretries = 4\n[device.pump]\n{device}\n{}", profile(case.wiring));
        let way = case.by.keys(case.by.address(&hub));
        let site = Site::with_hub(&format!("host = \"{}\"\n{way}tls = false\n", hub.host()), &text);
        let fills_up = |life: &Life| matches!(phase(life.point), Phase::DiskFull | Phase::DiskFree);
        let disk = case.lives.iter().any(fills_up).then(|| SmallDisk::new("8m"));
        let ledger = disk.as_ref().map_or(site.path("ledger.db"), |disk| disk.path().join("ledger.db"));
        if let Some(disk) = &disk {
            site.keep_ledger_in(disk.path());
        }
        if !case.is_new {
            std::fs::write(&ledger, trusted_ledger()).expect("a ledger can be copied");
        }
        if disk.is_none() && case.lives.iter().all(|life| life.point != Point::BallastWritten) {
            // A hole takes no time: the ballast is not what these cases are about.
            let ballast = std::fs::File::create(site.path("ledger.db.ballast"));
            ballast.and_then(|file| file.set_len(BALLAST_BYTES)).expect("a file can be made");
        }
        slave.set_take_up(case.take_up);
        if case.kind == Kind::SetRetried {
            slave.next_mood(Mood::Mute);
        }
        let left = Vec::new();
        Plant { case, site, hub, slave, instrument, _port: port, ledger, disk, filler: None, sent: false, left }
    }

    pub fn run(mut self) -> Told {
        let mut lives = 1;
        for life in &self.case.lives {
            lives += 1;
            let struck = self.live(life);
            let expected = life.strikes.unwrap_or(struck);
            assert_eq!(struck, expected, "{}: {} strikes", self.case, life.point.name());
        }
        let struck = self.left.len();
        self.live_in_peace();
        Told { ends: self.check_the_end(), struck, lives }
    }

    /// One life that is to end at a point. Tells whether it did.
    fn live(&mut self, life: &Life) -> bool {
        let is_stop = matches!(phase(life.point), Phase::StopAsked | Phase::Stopping);
        let is_reload = matches!(life.point, Point::ConfigurationRead | Point::ConfigurationTakenUp);
        let is_prune = matches!(life.point, Point::PruneUncommitted | Point::PruneCommitted);
        if is_prune && self.ledger.exists() {
            books::grow_old(&self.ledger);
        }
        if is_stop && self.case.kind != Kind::SetRetried {
            self.slave.set_mood(Mood::Held);
        }
        if life.point == Point::BeforeReadBackAgain && self.case.kind == Kind::PulseVerified {
            self.slave.set_unreadable(Some(6));
        }
        let log_before = std::fs::metadata(self.site.path("daemon.log")).map_or(0, |log| log.len() as usize);
        let at = format!("{}:{}", life.point.name(), life.nth);
        let environment = [&[("FIELDBRIDGE_CRASH_AT", &*at)], self.case.by.environment()].concat();
        let mut daemon = self.site.spawn(&[], &environment);
        if is_stop {
            daemon.wait_until_ready();
        }
        let mut stop_asked = false;
        let deadline = Instant::now() + LIFE;
        while daemon.is_running() {
            assert!(Instant::now() < deadline, "{}: nothing comes of it\n{}", self.case, daemon.log());
            self.send();
            if is_stop && !stop_asked && self.done() != [0, 0] {
                stop_asked = true;
                signal(daemon.pid(), if is_reload { "HUP" } else { "TERM" });
                let sign = match life.point {
                    _ if is_reload => Some("is in force"),
                    Point::StopAsked => None,
                    _ => Some("stopping: "),
                };
                if let Some(sign) = sign {
                    // Its log, for what it tells systemd comes from a thread that may be killed before it has spoken.
                    eventually("it strikes, or never will", || {
                        (daemon.log()[log_before..].contains(sign) || !daemon.is_running()).then_some(())
                    });
                    self.slave.set_mood(Mood::Good);
                }
            }
            // Connected, it also heeds signals.
            if phase(life.point) == Phase::DiskFree && daemon.log().contains("intake stops") {
                self.make_room();
            }
            // One that was struck meanwhile is nobody any more, whatever the hub has noticed of that.
            let is_done = (!is_stop || is_reload) && self.is_in_touch() && self.is_over();
            if is_done && daemon.is_running() {
                signal(daemon.pid(), "TERM");
                break;
            }
            std::thread::sleep(POLL);
        }
        self.make_room();
        let status = daemon.wait();
        self.slave.set_mood(Mood::Good);
        self.slave.set_unreadable(None);
        let struck = status.signal() == Some(SIGKILL);
        let said = daemon.log()[log_before..].contains(&format!("crash point {} is struck\n", life.point.name()));
        assert_eq!(said, struck, "{}: {status}\n{}", self.case, daemon.log());
        if struck {
            self.check_a_death(life);
        } else {
            assert!(status.success(), "{}: {status}", self.case);
        }
        struck
    }

    /// The last life, in which nothing happens but what the others have left to do.
    fn live_in_peace(&mut self) {
        let daemon: Daemon = self.site.spawn(&[], self.case.by.environment());
        daemon.wait_until_ready();
        let deadline = Instant::now() + LIFE;
        while !self.is_over() {
            assert!(Instant::now() < deadline, "{}: it never ends\n{}", self.case, daemon.log());
            self.send();
            std::thread::sleep(POLL);
        }
        assert!(daemon.terminate().success(), "{}", self.case);
    }

    /// Frees the disk, if it was filled.
    fn make_room(&mut self) {
        if let Some(filler) = self.filler.take() {
            std::fs::remove_file(filler).expect("the filler is there");
        }
    }

    /// Sends the commands, once, as soon as the hub keeps them.
    fn send(&mut self) {
        if self.sent || !self.hub.is_subscribed("pump") {
            return;
        }
        self.filler = self.disk.as_ref().map(SmallDisk::fill);
        for (id, value) in COMMANDS {
            let body = json!({ "command": self.case.kind.command(), "value": value }).to_string();
            self.hub.send("pump", C2d::new(id, body).ack(Ack::Full)).expect("the hub takes it");
        }
        self.sent = true;
    }

    /// Whether every message is completed, every result told, and nothing waits in the ledger.
    fn is_over(&self) -> bool {
        let told = || COMMANDS.iter().all(|(id, _)| self.told().contains_key(*id));
        self.sent && self.hub.queue_len("pump") == 0 && told() && books::is_settled(&self.ledger)
    }

    fn is_in_touch(&self) -> bool {
        self.case.by.are_in_touch(&self.hub, 2, ["pump"].into_iter())
    }

    /// How often each command was done.
    fn done(&self) -> [usize; 2] {
        let done = self.all_done();
        COMMANDS.map(|(_, value)| done.iter().filter(|one| **one == value).count())
    }

    fn all_done(&self) -> Vec<u16> {
        match &self.instrument {
            Some(instrument) => instrument.done(),
            None => self.slave.writes().into_iter().map(|(_, value)| value).collect(),
        }
    }

    /// The results at the hub: event ids and bodies by message id.
    fn told(&self) -> BTreeMap<String, BTreeSet<(String, String)>> {
        let mut told = BTreeMap::<_, BTreeSet<_>>::new();
        for event in self.hub.telemetry() {
            let property = |name: &str| event.property(name).expect("a result event has it").to_owned();
            let body = String::from_utf8(event.body.clone()).expect("an event is UTF-8");
            told.entry(property("$.cid")).or_default().insert((property("$.mid"), body));
        }
        told
    }

    /// Message ids in the order of their completion, or of their refusal.
    fn completed(&self) -> Vec<String> {
        let feedback = self.hub.feedback();
        let is_refused = self.case.kind == Kind::Unknown && self.case.by.rejects();
        let expected = if is_refused { Status::Rejected } else { Status::Success };
        assert!(feedback.iter().all(|record| record.status == expected), "{}: {feedback:?}", self.case);
        feedback.into_iter().filter_map(|record| record.original_message_id).collect()
    }

    /// What must hold whenever the daemon has died.
    fn check_a_death(&mut self, life: &Life) {
        let case = self.case;
        eventually("the hub knows that the connection is gone", || (!self.hub.is_connected("pump")).then_some(()));
        let books = Books::left_in(&self.ledger);
        for id in self.completed() {
            let least = match case.settle {
                Settle::AfterExecution => Durable::Final,
                Settle::AfterAccept => Durable::Accepted,
            };
            assert!(books.durable(&id) >= least, "{case}: {id} is completed without its record (G1): {books:?}");
        }
        let told = self.told();
        for (id, row) in &books.rows {
            let is_final = row.durable() == Durable::Final;
            let kept = books.outbox.contains(id) || told.contains_key(id);
            assert_eq!(is_final, kept, "{case}: {id}: outcome and event go together (G7): {books:?}");
            if is_final {
                told.get(id).into_iter().flatten().for_each(|(_, body)| self.check_event(id, body, &books));
            }
        }
        assert!(told.keys().all(|id| books.rows.contains_key(id)), "{case}: a result without its record: {books:?}");
        if let Some((earlier, _)) = self.left.last() {
            for (id, row) in &earlier.rows {
                let now = books.rows.get(id).unwrap_or_else(|| panic!("{case}: {id} is gone: {books:?}"));
                assert!(now.durable() >= row.durable(), "{case}: {id} went back: {books:?}");
                assert!(row.durable() < Durable::Final || now == row, "{case}: {id} ended twice (G2): {books:?}");
            }
        }
        if life.strikes == Some(true) {
            self.check_what_is_left(life, &books);
        }
        let done = self.done();
        for ((id, _), done) in COMMANDS.iter().zip(done) {
            let may_be_done = case.kind.is_idempotent() || books.durable(id) >= Durable::Executing;
            assert!(done == 0 || may_be_done, "{case}: {id} was on the wire before its record (G3): {books:?}");
        }
        self.left.push((books, done));
    }

    /// Holds what a crash at the point has left of the first command against the table.
    fn check_what_is_left(&self, life: &Life, books: &Books) {
        let case = self.case;
        let (id, _) = COMMANDS[0];
        let expected = left_at(life.point, case.kind, case.settle, case.is_new);
        let found = books.durable(id);
        let is_as_expected = expected.least <= found && found <= expected.most;
        assert!(is_as_expected, "{case}: {} leaves {found:?}, expected {expected:?}", life.point.name());
        match expected.wire {
            Wire::Untouched => assert_eq!(self.done()[0], 0, "{case}: nothing was sent yet"),
            // What is written is on its way, whoever has died.
            // It will be, when the next life has begun.
            Wire::Touched if !case.take_up.is_zero() => {}
            Wire::Touched => eventually("the slave does what was sent", || (self.done()[0] > 0).then_some(())),
            Wire::Maybe => {}
        }
    }

    fn check_event(&self, id: &str, body: &str, books: &Books) {
        let event: Json = serde_json::from_str(body).expect("an event is JSON");
        let row = &books.rows[id];
        let said = (event["status"].as_str(), event["error"]["code"].as_str());
        assert_eq!(said, (Some(row.state.as_str()), row.code.as_deref()), "{}: {id}: row and event", self.case);
    }

    /// What must hold in the end, and how the commands ended.
    fn check_the_end(&self) -> Vec<String> {
        let case = self.case;
        let ids: Vec<String> = COMMANDS.iter().map(|(id, _)| (*id).to_owned()).collect();
        assert_eq!(self.completed(), ids, "{case}: each completed once, in order (G2, G5)");
        for event in self.hub.wire() {
            assert!(!is_foreign(case.by, &event.what), "{case}: it does not belong there (G6): {event:?}");
        }
        let mut order = self.all_done();
        order.dedup();
        assert!(order.is_sorted(), "{case}: in order (G5): {order:?}");
        let (books, told, done) = (Books::left_in(&self.ledger), self.told(), self.done());
        // An answer that a serial line may still give is left to the next life, as after a crash.
        let may_owe = case.wiring != Wiring::Tcp && (case.kind == Kind::SetRetried || case.lives.len() > 1);
        let ended_well = books.ended_well || may_owe;
        assert!(books.outbox.is_empty() && ended_well, "{case}: {books:?}");
        let end = |(id, done): (&String, usize)| {
            let row = books.rows.get(id).unwrap_or_else(|| panic!("{case}: {id} has no row: {books:?}"));
            assert_eq!(told[id].len(), 1, "{case}: {id}: one result under one id (G7): {told:?}");
            told[id].iter().for_each(|(_, body)| self.check_event(id, body, &books));
            let caught = self.left.iter().any(|(left, _)| left.durable(id) == Durable::Executing);
            let expected = end_of(case.kind, caught, done, case.is_new);
            assert_eq!((row.state.as_str(), row.code.as_deref()), (expected.state, expected.code), "{case}: {id}");
            for (left, done_then) in &self.left {
                let i = usize::from(*id != ids[0]);
                let was_final = left.durable(id) == Durable::Final;
                assert!(!was_final || (left.rows[id] == *row && done_then[i] == done), "{case}: {id} ran again (G2)");
            }
            row.state.clone()
        };
        ids.iter().zip(done).map(end).collect()
    }
}

/// An empty ledger that is trusted.
fn trusted_ledger() -> &'static [u8] {
    static TRUSTED: OnceLock<Vec<u8>> = OnceLock::new();
    TRUSTED.get_or_init(|| {
        let site = Site::new("127.0.0.1:1", &profile(Wiring::Tcp));
        let made = site.command(&["ledger", "new", "--trust"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        std::fs::read(site.path("ledger.db")).expect("it was made")
    })
}

fn profile(wiring: Wiring) -> String {
    // No command is to expire while its daemon is dead.
    let deadline = "deadline = \"10m\"\n";
    if wiring == Wiring::Text {
        let command = |name: &str, idempotent: bool| {
            format!(
                "[profile.pump.command.{name}]\nsend = \"P{{value}}\\n\"\nexpect = \"^OK\"\nrefuse = \"^NO\"\n{deadline}\
                 idempotent = {idempotent}\n"
            )
        };
        return command("set", true) + &command("pulse", false);
    }
    let retried = format!(
        "[profile.pump.command.set-retried]\nwrite = {{ table = \"holding\", address = 4 }}\ntimeout = \"500ms\"\n{deadline}\
         idempotent = true\n"
    );
    let in_a_row = "[profile.pump.command.scaled]\nidempotent = false\n\
                    write = { table = \"holding\", address = 20, type = \"i16\", scale_register = { address = 21 } }\n\
                    [profile.pump.command.steps]\nidempotent = false\n\
                    steps = [{ write = { table = \"holding\", address = 22 } }, { write = { table = \"coil\", address = 9 }, value = true }]\n";
    PUMP.replace("idempotent", &format!("{deadline}idempotent"))
        + &retried
        + &in_a_row.replace("idempotent", &format!("{deadline}idempotent"))
}
