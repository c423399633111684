mod away;
mod called_off;
mod patience;
mod row;
mod share;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{duplex, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::bus::{Lines, Opener, Opening, Port};
use crate::command::outcome::State;
use crate::config::{self, SerialPort};
use crate::net::Stream;

#[test]
fn an_exception_is_a_refusal_unless_it_leaves_open_what_was_done() {
    for (code, owes) in (0..=255).flat_map(|code| [(code, false), (code, true)]) {
        let attempt = refused(Refusal::Exception(code), owes);
        let (fault, kind) = match (code, attempt) {
            (5, Attempt::Unconfirmed(fault)) | (11, Attempt::Unclear(fault)) => (fault, Code::Exception),
            (6, Attempt::Busy { fault, certain }) if certain != owes => (fault, Code::Exception),
            (10, Attempt::NoPath(fault)) => (fault, Code::BusUnavailable),
            (5 | 6 | 10 | 11, other) => panic!("{code}: {other:?}"),
            (_, Attempt::Refused(fault)) => (fault, Code::Exception),
            (_, other) => panic!("{code}: {other:?}"),
        };
        assert_eq!((fault.code, fault.modbus_exception), (kind, Some(code)));
    }
}

#[test]
fn a_device_without_the_command_that_is_asked_for_says_which_it_has_or_that_it_has_none() {
    let told = |commands: &str| {
        let poll = "[profile.p.poll.x]\nread = { table = \"holding\", address = 0 }\nevery = \"1s\"\n";
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        std::fs::write(folder.path().join("k"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let bus = "[hub]\nhost = \"h.example\"\n[bus.b]\nkind = \"modbus-tcp\"\naddress = \"127.0.0.1:502\"\n";
        let device = "[device.d]\nbus = \"b\"\nunit = 1\nprofile = \"p\"\nkey_file = \"k\"\n";
        std::fs::write(&main, format!("{bus}{device}{poll}{commands}")).unwrap();
        let config = config::load(&main, []).unwrap_or_else(|problems| panic!("{problems:?}")).config;
        Plan::new(&config.devices["d"], "stop", None).map(drop).unwrap_err().message
    };
    assert_eq!(told(""), "d has no command \"stop\"; it has none");
    let read = "[profile.p.command.look]\nread = { table = \"holding\", address = 0 }\n";
    assert_eq!(told(read), "d has no command \"stop\"; it has look");
}

/// A gate of which a test says what it does.
struct TestGate {
    deadline: Instant,
    /// Whether the daemon stops.
    stops: bool,
    /// Whoever asked for the command has gone.
    gone: CancellationToken,
    /// How long the ledger takes.
    ledger: Duration,
    recorded: bool,
    /// Somebody has locked the device.
    locked: CancellationToken,
    /// A person waits for the command.
    insists: bool,
    /// The permit that was given last.
    permit: Arc<Mutex<Permit>>,
    /// When something of it has left.
    sent_at: Option<Timestamp>,
}

impl TestGate {
    fn new(deadline: Duration) -> TestGate {
        let (deadline, gone) = (Instant::now() + deadline, CancellationToken::new());
        let (locked, permit) = (CancellationToken::new(), Arc::default());
        TestGate {
            deadline,
            stops: false,
            gone,
            ledger: Duration::ZERO,
            recorded: false,
            locked,
            insists: false,
            permit,
            sent_at: None,
        }
    }
}

impl Gate for TestGate {
    fn may_go(&mut self) -> Go {
        match Instant::now() >= self.deadline {
            _ if self.locked.is_cancelled() => Go::End(locked_out()),
            _ if self.gone.is_cancelled() => Go::End(Outcome::ended(State::Expired, Fault::new(Code::Expired, "gone"))),
            true => Go::End(self.expired()),
            false if self.stops => Go::No,
            false => Go::Yes,
        }
    }

    fn not_after(&self) -> Instant {
        self.deadline
    }

    fn expired(&self) -> Outcome {
        Outcome::ended(State::Expired, Fault::new(Code::Expired, "too late"))
    }

    async fn called_off(&self) {
        tokio::select! {
            () = tokio::time::sleep_until(self.deadline) => {}
            () = self.gone.cancelled() => {}
            () = self.locked.cancelled() => {}
        }
    }

    async fn withdrawn(&self) {
        tokio::select! {
            () = self.gone.cancelled() => {}
            () = self.locked.cancelled() => {}
        }
    }

    fn insists(&self) -> bool {
        self.insists
    }

    fn has_left(&mut self, at: Timestamp) {
        self.sent_at.get_or_insert(at);
    }

    fn permit(&self) -> Permit {
        let mut last = self.permit.lock().unwrap();
        *last = Permit::default();
        if self.locked.is_cancelled() {
            last.take_back();
        }
        last.clone()
    }

    fn locked_out(&self) -> Option<Outcome> {
        self.locked.is_cancelled().then(locked_out)
    }

    async fn record_executing(&mut self) -> bool {
        sleep(self.ledger).await;
        self.recorded = true;
        true
    }
}

fn locked_out() -> Outcome {
    Outcome::ended(State::Rejected, Fault::new(Code::LockedOut, "the device is locked"))
}

/// Lines that can't be opened.
#[derive(Debug)]
struct NoLines;

impl Lines for NoLines {
    fn connect<'a>(&'a self, _: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async { Err("nobody is there".into()) })
    }

    fn opener(&self, _: &SerialPort) -> Box<dyn Opener> {
        unreachable!("no test has a serial port")
    }
}

/// A device with the commands `once` and `again`, and its bus.
fn plant() -> (Device, config::Bus) {
    let command = |name: &str, idempotent: bool| {
        format!("[profile.p.command.{name}]\nwrite = {{ table = \"coil\", address = 3 }}\nidempotent = {idempotent}\n")
    };
    let text = format!(
        "kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\nretries = 2\n{}{}",
        command("once", false),
        command("again", true)
    );
    configured(&text)
}

/// A device `d` on the bus `b` of the profile `p`.
fn configured(bus_and_profile: &str) -> (Device, config::Bus) {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("main.toml");
    let unit = if bus_and_profile.contains("kind = \"serial\"") { "" } else { "unit = 7\n" };
    let text = format!(
        "[hub]\nhost = \"h.example\"\n[device.d]\nbus = \"b\"\n{unit}profile = \"p\"\nkey_file = \"k\"\n[bus.b]\n\
         {bus_and_profile}"
    );
    std::fs::write(folder.path().join("k"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
    std::fs::write(&main, text).unwrap();
    let config = config::load(&main, []).unwrap().config;
    (config.devices["d"].clone(), config.buses["b"].clone())
}

/// Runs a command on a bus that can't be opened, while somebody else has it for so long.
async fn run(name: &str, gate: &mut TestGate, held: Duration) -> Ran {
    let (device, bus) = plant();
    let (bus, worker) = crate::bus::new("b", &bus);
    let stop = CancellationToken::new();
    let worker = tokio::spawn(worker.on(Arc::new(NoLines)).run(stop.clone()));
    let turn = bus.turn().await.unwrap();
    let holder = tokio::spawn(async move {
        sleep(held).await;
        drop(turn);
    });
    let plan = Plan::new(&device, name, Some(&Json::Bool(true))).unwrap();
    let ran = plan.run(&bus, Execution::new(plan.route(&bus)), gate).await;
    holder.abort();
    stop.cancel();
    worker.await.unwrap();
    ran
}

fn is_expired(ran: &Ran) -> bool {
    matches!(ran, Ran::Finished(Outcome { state: State::Expired, .. }, 0))
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_late_once_executing_is_durable_is_not_sent() {
    let mut gate = TestGate { ledger: Duration::from_secs(2), ..TestGate::new(Duration::from_secs(1)) };
    let ran = run("once", &mut gate, Duration::ZERO).await;
    assert!(is_expired(&ran) && gate.recorded, "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_for_its_bus_is_told_when_its_deadline_passes() {
    for name in ["once", "again"] {
        let begun = Instant::now();
        let mut gate = TestGate::new(Duration::from_secs(3));
        let ran = run(name, &mut gate, Duration::from_secs(100)).await;
        assert!(is_expired(&ran) && !gate.recorded, "{ran:?}");
        assert_eq!(begun.elapsed().as_secs(), 3, "not when the bus is free");
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_sent_in_time_is_expired_and_what_could_not_be_sent_failed() {
    for (deadline, state) in [(Duration::from_secs(60), State::Failed), (Duration::ZERO, State::Expired)] {
        for name in ["once", "again"] {
            let ran = run(name, &mut TestGate::new(deadline), Duration::ZERO).await;
            assert!(matches!(&ran, Ran::Finished(outcome, _) if outcome.state == state), "{name}: {ran:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_leaves_alone_what_was_not_recorded() {
    for name in ["once", "again"] {
        let mut gate = TestGate { stops: true, ..TestGate::new(Duration::from_secs(60)) };
        assert_eq!(run(name, &mut gate, Duration::ZERO).await, Ran::NotNow);
        assert!(!gate.recorded);
    }
}

/// A serial line with a slave at its far end.
struct Wired(std::sync::Mutex<Option<DuplexStream>>);

impl std::fmt::Debug for Wired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wired")
    }
}

impl Lines for Wired {
    fn connect<'a>(&'a self, _: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
        unreachable!("the bus is a serial line")
    }

    fn opener(&self, _: &SerialPort) -> Box<dyn Opener> {
        Box::new(WiredOpener(self.0.lock().unwrap().take()))
    }
}

struct WiredOpener(Option<DuplexStream>);

impl Opener for WiredOpener {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        let stream = self.0.take();
        Box::pin(async { stream.map(|stream| Box::new(stream) as Box<dyn Port>).ok_or_else(|| "it is gone".into()) })
    }
}

/// Confirms a write at once. What was written shows half a second later, and the first look is answered so late that
/// the next one is under way: with what stood there when it came.
async fn late_looks(mut far: DuplexStream) {
    let mut written: Option<(Instant, [u8; 2])> = None;
    let (mut looks, mut frame) = (0, [0; 8]);
    let (say, mut said) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(8);
    loop {
        tokio::select! {
            read = far.read_exact(&mut frame) => if read.is_err() { return },
            Some((at, answer)) = said.recv() => {
                tokio::time::sleep_until(at).await;
                far.write_all(&answer).await.unwrap();
                continue;
            }
        }
        let (delay, answer) = match frame[1] {
            6 => {
                written = Some((Instant::now(), [frame[4], frame[5]]));
                (Duration::from_millis(10), frame.to_vec())
            }
            _ => {
                // The line may be tried by a read before the write.
                looks += i32::from(written.is_some());
                let shown = written.filter(|(at, _)| at.elapsed() >= Duration::from_millis(500));
                let [high, low] = shown.map_or([0, 0], |(_, word)| word);
                let delay = if looks == 1 { Duration::from_millis(1200) } else { Duration::from_millis(10) };
                (delay, crate::bus::sealed(&[7, 3, 2, high, low]))
            }
        };
        say.send((Instant::now() + delay, answer)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_one_look_does_not_answer_the_next() {
    let bus = "kind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"\nbaud = 19200\nresponse_timeout = \"1s\"\n";
    let command = "[profile.p.command.open]\nwrite = { table = \"holding\", address = 3 }\nidempotent = false\n\
                   read_back = { within = \"1200ms\" }\n";
    let (device, bus) = configured(&format!("{bus}{command}"));
    let (near, far) = duplex(256);
    let slave = tokio::spawn(late_looks(far));
    let (bus, worker) = crate::bus::new("b", &bus);
    let stop = CancellationToken::new();
    let worker = tokio::spawn(worker.on(Arc::new(Wired(std::sync::Mutex::new(Some(near))))).run(stop.clone()));
    let plan = Plan::new(&device, "open", Some(&Json::from(5))).unwrap();
    let gate = &mut TestGate::new(Duration::from_secs(60));
    let ran = plan.run(&bus, Execution::new(plan.route(&bus)), gate).await;
    stop.cancel();
    worker.await.unwrap();
    slave.abort();
    assert!(matches!(&ran, Ran::Finished(outcome, 1) if outcome.state == State::Succeeded), "{ran:?}");
}
