//! A command that is called off before its first byte, by its deadline or by whoever asked for it: whatever its line
//! waits for then, it is told at once, and never sent. Proves G13 on each kind of line.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Mutex;

use tokio::sync::watch;

use super::*;
use crate::bus::{Hardware, NotOpened, Owed};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Kinds of buses, with a command that may not be repeated and one that may.
const KINDS: [(&str, &str); 3] = [
    ("kind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"\nbaud = 19200\n", COIL),
    ("kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\n", COIL),
    ("kind = \"serial\"\nport = \"/dev/ttyUSB0\"\nbaud = 19200\n", TEXT),
];
const COIL: &str = "write = { table = \"coil\", address = 3 }";
const TEXT: &str = "send = \"GO {value}\\r\\n\"\nexpect = \"^OK\"";

/// A bus on which several units are asked at once.
const SIDE_BY_SIDE: (&str, &str) = ("kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\nmax_in_flight = 4\n", COIL);

/// Every command of every kind of bus, on a bus with these settings.
pub(super) fn plants(settings: &str) -> impl Iterator<Item = (&'static str, Device, config::Bus)> + '_ {
    plants_of(&KINDS, settings)
}

/// The same of a bus on which several units are asked at once.
pub(super) fn side_by_side(settings: &str) -> impl Iterator<Item = (&'static str, Device, config::Bus)> + '_ {
    plants_of(&[SIDE_BY_SIDE], settings)
}

fn plants_of<'a>(
    kinds: &'a [(&'a str, &'a str)],
    settings: &'a str,
) -> impl Iterator<Item = (&'static str, Device, config::Bus)> + 'a {
    let each = kinds.iter().flat_map(|kind| [(*kind, "once"), (*kind, "again")]);
    each.map(move |((bus, action), name)| {
        let command = format!("[profile.p.command.{name}]\n{action}\nidempotent = {}\n", name == "again");
        let (device, bus) = configured(&format!("{bus}response_timeout = \"1s\"\nretries = 1\n{settings}\n{command}"));
        (name, device, bus)
    })
}

/// The far ends of lines. They confirm what they hear, or say nothing. A register's write is confirmed by itself.
#[derive(Debug, Default)]
pub(super) struct Far {
    /// When something came.
    pub(super) heard: Arc<Mutex<Vec<Instant>>>,
    /// How long each opening takes; it fails if that is more than nothing, unless they are merely slow.
    opening: Mutex<VecDeque<Duration>>,
    slow: bool,
    pub(super) deaf: Arc<AtomicBool>,
    /// Until when nothing can be opened.
    away_until: Option<Instant>,
    /// Each line ends behind the first answer.
    hangs_up: bool,
    /// While it says so, nothing can be opened, and what was open ends.
    pub(super) lost: watch::Sender<bool>,
    /// What the port is known to be once it was opened.
    opened: Mutex<bool>,
}

impl Far {
    /// They hear everything, and say nothing.
    pub(super) fn deaf() -> Far {
        Far { deaf: Arc::new(true.into()), ..Far::default() }
    }

    /// Nothing leads to them before this.
    pub(super) fn away_until(until: Instant) -> Far {
        Far { away_until: Some(until), ..Far::default() }
    }

    pub(super) fn requests(&self) -> usize {
        self.heard.lock().unwrap().len()
    }

    fn open(&self) -> impl std::future::Future<Output = Result<DuplexStream, NotOpened>> + Send {
        *self.opened.lock().unwrap() = true;
        let (heard, takes) = (self.heard.clone(), self.opening.lock().unwrap().pop_front());
        let (deaf, hangs_up, slow) = (self.deaf.clone(), self.hangs_up, self.slow);
        let mut lost = self.lost.subscribe();
        let away = *lost.borrow() || self.away_until.is_some_and(|until| Instant::now() < until);
        async move {
            if let Some(takes) = takes.filter(|takes| !takes.is_zero()) {
                sleep(takes).await;
            }
            if away || takes.is_some_and(|takes| !takes.is_zero() && !slow) {
                return Err("it swallows everything".into());
            }
            let (near, mut far) = duplex(256);
            tokio::spawn(async move {
                let mut chunk = [0; 256];
                while let Some(len) = come(&mut far, &mut chunk, &mut lost).await {
                    heard.lock().unwrap().push(Instant::now());
                    if !deaf.load(Ordering::Relaxed) {
                        let is_text = chunk.starts_with(b"GO");
                        far.write_all(if is_text { b"OK\r\n" } else { &chunk[..len] }).await.unwrap();
                        if hangs_up {
                            return;
                        }
                    }
                }
            });
            Ok(near)
        }
    }
}

/// How many bytes have come; `None`: the line has ended, or was lost.
async fn come(far: &mut DuplexStream, chunk: &mut [u8], lost: &mut watch::Receiver<bool>) -> Option<usize> {
    let is_lost = async {
        let _ = lost.wait_for(|lost| *lost).await;
    };
    tokio::select! {
        biased;
        () = is_lost => None,
        read = far.read(chunk) => read.ok().filter(|len| *len > 0),
    }
}

/// The near ends.
#[derive(Debug)]
struct Near(Arc<Far>);

impl Lines for Near {
    fn connect<'a>(&'a self, _: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async { self.0.open().await.map(|stream| Box::new(stream) as Box<dyn Stream>) })
    }

    fn opener(&self, _: &SerialPort) -> Box<dyn Opener> {
        Box::new(Near(self.0.clone()))
    }

    fn hardware(&self, _: &std::path::Path) -> Option<Hardware> {
        self.0.opened.lock().unwrap().then_some(Hardware::Device(1))
    }
}

impl Opener for Near {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        Box::pin(async { self.0.open().await.map(|stream| Box::new(stream) as Box<dyn Port>) })
    }
}

/// A bus at work.
pub(super) struct Bench {
    pub(super) far: Arc<Far>,
    pub(super) bus: BusHandle,
    stop: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(super) fn bench(bus: &config::Bus, far: Arc<Far>, owed: Owed) -> Bench {
    let (handle, worker) = crate::bus::new("b", bus);
    let stop = CancellationToken::new();
    tokio::spawn(worker.on(Arc::new(Near(far.clone()))).sharing(owed).run(stop.clone()));
    Bench { far, bus: handle, stop }
}

impl Bench {
    pub(super) async fn run(&self, device: &Device, name: &str, gate: &mut TestGate) -> Ran {
        let value = Json::Bool(true);
        let plan = Plan::new(device, name, Some(&value)).unwrap();
        // As an operator's, which is recorded although it may be repeated.
        plan.run(&self.bus, Execution::on_the_record(plan.route(&self.bus)), gate).await
    }

    /// Lets everything happen that will, and tells how many requests came.
    async fn requests(&self) -> usize {
        sleep(300 * SECOND).await;
        self.far.requests()
    }

    /// Calls a command off while its line waits: by its deadline, and because whoever asked for it goes.
    async fn is_called_off(&self, device: &Device, name: &str, waits: Duration) {
        let kind = self.bus.status().kind;
        let began = Instant::now();
        let mut late = TestGate::new(waits / 4);
        let ran = self.run(device, name, &mut late).await;
        assert!(is_expired(&ran), "{kind} {name}: {ran:?}");
        assert_eq!(began.elapsed().as_millis(), (waits / 4).as_millis(), "{kind} {name} is told at its deadline");
        let mut given_up = TestGate::new(600 * SECOND);
        let gone = given_up.gone.clone();
        tokio::spawn(async move {
            sleep(waits / 4).await;
            gone.cancel();
        });
        let ran = self.run(device, name, &mut given_up).await;
        assert!(is_expired(&ran), "{kind} {name}: {ran:?}");
        assert_eq!(began.elapsed().as_millis(), (waits / 2).as_millis(), "{kind} {name} ends with whoever asked");
    }
}

pub(super) fn is_done(ran: &Ran) -> bool {
    matches!(ran, Ran::Finished(outcome, 1) if outcome.state == State::Succeeded)
}

#[tokio::test(start_paused = true)]
async fn while_the_line_is_turned_round() {
    for (name, device, bus) in plants("turnaround = \"8s\"") {
        let bench = bench(&bus, Arc::default(), Owed::default());
        let open = || TestGate::new(600 * SECOND);
        let ran = bench.run(&device, name, &mut open()).await;
        assert!(is_done(&ran), "{name}: {ran:?}");
        let ended = Instant::now();
        bench.is_called_off(&device, name, 8 * SECOND).await;
        assert_eq!(bench.far.requests(), 1);
        // The next one does not wait for longer because of them.
        let ran = bench.run(&device, name, &mut open()).await;
        assert!(is_done(&ran), "{name}: {ran:?}");
        let sent = bench.far.heard.lock().unwrap()[1];
        assert_eq!((sent - ended).as_secs(), 8, "{name}");
        bench.is_called_off(&device, name, 8 * SECOND).await;
        assert_eq!(bench.requests().await, 2, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_line_is_being_opened() {
    for (name, device, bus) in plants("") {
        let far = Far { opening: Mutex::new([4 * SECOND; 9].into()), ..Far::default() };
        let bench = bench(&bus, Arc::new(far), Owed::default());
        bench.is_called_off(&device, name, 4 * SECOND).await;
        assert!(bench.bus.tried().await.last_error.is_some(), "{name}: what is wrong is found out all the same");
        assert_eq!(bench.requests().await, 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_opening_comes_to_its_end_although_one_after_the_other_calls_it_off() {
    for (name, device, bus) in plants("") {
        let opening = Mutex::new([2 * SECOND; 9].into());
        let bench = bench(&bus, Arc::new(Far { opening, slow: true, ..Far::default() }), Owed::default());
        let began = Instant::now();
        // Somebody waits whenever one gives up.
        let each = (0..10).map(|number| {
            let (bench, device) = (&bench, &device);
            async move {
                sleep(SECOND * number * 3 / 4).await;
                let ran = bench.run(device, name, &mut TestGate::new(SECOND)).await;
                is_done(&ran).then(|| began.elapsed())
            }
        });
        let done = futures_util::future::join_all(each).await;
        let first = done.into_iter().flatten().min();
        assert!(first.is_some_and(|first| first < 5 * SECOND), "{name}: {first:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_have_reached_the_wire_is_not_told_to_be_undone_when_its_bus_ends() {
    for (name, device, bus) in plants("").filter(|(name, ..)| *name == "again") {
        let bench = bench(&bus, Arc::new(Far::deaf()), Owed::default());
        let (far, stop) = (bench.far.clone(), bench.stop.clone());
        tokio::spawn(async move {
            while far.requests() == 0 {
                sleep(SECOND / 100).await;
            }
            stop.cancel();
        });
        let ran = bench.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
        assert_eq!(ran, Ran::Interrupted(1), "{}", bus.kind.as_str());
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_line_is_being_opened_for_it() {
    for (name, device, bus) in plants("").filter(|(_, _, bus)| bus.kind.as_str() == "modbus-tcp") {
        // Servers end connections that idle: the next request makes a new one.
        let opening = Mutex::new([[Duration::ZERO].into(), vec![4 * SECOND; 9]].concat().into());
        let far = Far { opening, hangs_up: true, ..Far::default() };
        let bench = bench(&bus, Arc::new(far), Owed::default());
        let ran = bench.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
        assert!(is_done(&ran), "{name}: {ran:?}");
        sleep(SECOND).await;
        assert_eq!(bench.bus.status().state.as_str(), "closed");
        let mut gate = TestGate::new(600 * SECOND);
        let (began, gone) = (Instant::now(), gate.gone.clone());
        tokio::spawn(async move {
            sleep(SECOND).await;
            gone.cancel();
        });
        let ran = bench.run(&device, name, &mut gate).await;
        assert!(is_expired(&ran) && began.elapsed().as_secs() == 1, "{name}: {ran:?}");
        // What is wrong is found out all the same.
        sleep(5 * SECOND).await;
        assert!(bench.bus.status().last_error.is_some(), "{name}: {:?}", bench.bus.status());
        assert_eq!(bench.requests().await, 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_port_may_answer_what_another_bus_has_asked() {
    for (name, device, bus) in plants("late_window = \"20s\"").filter(|(_, _, bus)| bus.kind.as_str() != "modbus-tcp") {
        let (owed, far) = (Owed::default(), Arc::new(Far::deaf()));
        let other = bench(&bus, far.clone(), owed.clone());
        let ran = other.run(&device, name, &mut TestGate::new(600 * SECOND)).await;
        let asked = far.requests();
        assert!(matches!(ran, Ran::Finished(..)) && asked > 0, "{ran:?}");
        *far.opened.lock().unwrap() = false;
        let bench = bench(&at_another_path(&bus), far, owed);
        bench.is_called_off(&device, name, 12 * SECOND).await;
        assert_eq!(bench.requests().await, asked, "{name}");
    }
}

/// The same port by a path that does not tell so.
fn at_another_path(bus: &config::Bus) -> config::Bus {
    let mut bus = bus.clone();
    match &mut bus.kind {
        config::BusKind::ModbusRtu(config::Endpoint::Serial(port))
        | config::BusKind::Serial { endpoint: config::Endpoint::Serial(port), .. } => {
            port.path = "/dev/serial/by-id/x".into()
        }
        _ => unreachable!("it has a port"),
    }
    bus
}

#[tokio::test(start_paused = true)]
async fn not_once_the_first_byte_has_left() {
    for (name, device, bus) in plants("") {
        let bench = bench(&bus, Arc::new(Far::deaf()), Owed::default());
        let mut gate = TestGate::new(600 * SECOND);
        let (far, gone) = (bench.far.clone(), gate.gone.clone());
        tokio::spawn(async move {
            while far.requests() == 0 {
                sleep(SECOND / 100).await;
            }
            gone.cancel();
        });
        let ran = bench.run(&device, name, &mut gate).await;
        let state = if name == "once" { State::InDoubt } else { State::Failed };
        assert!(matches!(&ran, Ran::Finished(outcome, 1..) if outcome.state == state), "{name}: {ran:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_ends_what_waits_and_keeps_what_was_sent_from_being_repeated() {
    for after in [Duration::ZERO, 4 * SECOND] {
        for (name, device, bus) in plants("turnaround = \"8s\"") {
            let bench = bench(&bus, Arc::new(Far::deaf()), Owed::default());
            let mut gate = TestGate::new(600 * SECOND);
            let (far, locked, permit) = (bench.far.clone(), gate.locked.clone(), gate.permit.clone());
            tokio::spawn(async move {
                while far.requests() == 0 {
                    sleep(SECOND / 100).await;
                }
                sleep(after).await;
                locked.cancel();
                permit.lock().unwrap().take_back();
            });
            let ran = bench.run(&device, name, &mut gate).await;
            let Ran::Finished(outcome, 1) = &ran else { panic!("{name}: {ran:?}") };
            let fault = outcome.fault.clone().unwrap();
            let (state, told) = if name == "once" { (State::InDoubt, false) } else { (State::Failed, true) };
            assert_eq!((outcome.state, fault.code), (state, Code::Timeout), "{name}: {ran:?}");
            assert_eq!(fault.message.contains("not repeated: the device is locked"), told, "{}", fault.message);
            // The next one waits for its line, and is told at once.
            let ran = bench.run(&device, name, &mut gate).await;
            assert_eq!(ran, Ran::Finished(locked_out(), 0), "{name}");
            assert_eq!(bench.requests().await, 1, "{name}");
        }
    }
}
