//! What units that are away cost those that share a line with them. Proves G11 as docs/PERFORMANCE.md has it: the
//! bound, and the worst that was met, which `--nocapture` prints.

use std::collections::BTreeSet;

use super::called_off::SECOND;
use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);
/// How long a unit takes that answers.
const TAKES: Duration = Duration::from_millis(10);
/// A request and its answer at 19,200 Bd, the unit's time, the silence between frames, and ticks of the clock.
const EXCHANGE: Duration = Duration::from_millis(26);
/// A request that is left unanswered, likewise: the answer's own time on the wire does not count against the timeout.
const SILENCE: Duration = Duration::from_millis(520);

/// The same on Modbus TCP on a network that takes no time.
const EXCHANGE_BY_TCP: Duration = Duration::from_millis(12);
const SILENCE_BY_TCP: Duration = Duration::from_millis(505);

const SERIAL: &str = "kind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"\nbaud = 19200\nparity = \"even\"\n";
const NETWORK: &str = "kind = \"modbus-tcp\"\naddress = \"10.0.0.1:502\"\n";

/// A line with units, of which some say nothing.
#[derive(Debug, Clone)]
struct Crowd {
    dead: BTreeSet<u8>,
    /// When each unit was asked.
    asked: Arc<Mutex<Vec<(Instant, u8)>>>,
}

impl Crowd {
    /// Whether a unit that is asked answers.
    fn answers(&self, unit: u8) -> bool {
        self.asked.lock().unwrap().push((Instant::now(), unit));
        !self.dead.contains(&unit)
    }
}

impl Lines for Crowd {
    fn connect<'a>(&'a self, _: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
        let (near, far) = duplex(4096);
        let (mut hears, says) = tokio::io::split(far);
        let (crowd, says) = (self.clone(), Arc::new(tokio::sync::Mutex::new(says)));
        tokio::spawn(async move {
            let mut frame = [0; 12];
            while hears.read_exact(&mut frame).await.is_ok() {
                if crowd.answers(frame[6]) {
                    let says = says.clone();
                    tokio::spawn(async move {
                        sleep(TAKES).await;
                        // Nobody may want to hear it any more.
                        let _ = says.lock().await.write_all(&frame).await;
                    });
                }
            }
        });
        Box::pin(async { Ok(Box::new(near) as Box<dyn Stream>) })
    }

    fn opener(&self, _: &SerialPort) -> Box<dyn Opener> {
        Box::new(self.clone())
    }
}

impl Opener for Crowd {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        let (near, mut far) = duplex(256);
        let crowd = self.clone();
        tokio::spawn(async move {
            let mut frame = [0; 8];
            while far.read_exact(&mut frame).await.is_ok() {
                if crowd.answers(frame[0]) {
                    sleep(TAKES).await;
                    far.write_all(&frame).await.unwrap();
                }
            }
        });
        Box::pin(async { Ok(Box::new(near) as Box<dyn Port>) })
    }
}

/// Commands without end for each of `n` units, of which `dead` never answer, for so long. How long a command for a unit
/// that answers took at most: before the dead ones were known, and since; and when the dead ones were asked.
async fn worst(line: &str, n: u8, dead: u8, lasts: Duration) -> ([Duration; 2], Vec<(Instant, u8)>) {
    let (device, bus) = configured(&format!(
        "{line}response_timeout = \"500ms\"\nretries = 0\n\
         [profile.p.command.set]\nwrite = {{ table = \"coil\", address = 3 }}\nidempotent = true\n",
    ));
    assert_eq!((bus.response_timeout, bus.unreachable_after), (TIMEOUT, 3));
    let crowd = Crowd { dead: (1..=dead).collect(), asked: Arc::default() };
    let (handle, worker) = crate::bus::new("b", &bus);
    let stop = CancellationToken::new();
    tokio::spawn(worker.on(Arc::new(crowd.clone())).run(stop.clone()));
    let (began, mut tasks) = (Instant::now(), tokio::task::JoinSet::new());
    let known_by = began + bus.unreachable_after * (u32::from(dead) * SILENCE + u32::from(n) * EXCHANGE);
    for unit in 1..=n {
        let device = Device { id: format!("d{unit}"), unit, ..device.clone() };
        let (handle, is_dead) = (handle.clone(), unit <= dead);
        tasks.spawn(async move {
            let (mut dice, mut worst) = (fastrand::Rng::with_seed(unit.into()), [Duration::ZERO; 2]);
            while began.elapsed() < lasts {
                let asked = Instant::now();
                let plan = Plan::new(&device, "set", Some(&Json::Bool(true))).unwrap();
                let ran =
                    plan.run(&handle, Execution::new(plan.route(&handle)), &mut TestGate::new(600 * SECOND)).await;
                if !is_dead {
                    assert!(matches!(&ran, Ran::Finished(outcome, 1) if outcome.state == State::Succeeded), "{ran:?}");
                    let since = usize::from(asked > known_by);
                    worst[since] = worst[since].max(asked.elapsed());
                }
                sleep(Duration::from_millis(dice.u64(1..if is_dead { 2_000 } else { 40 }))).await;
            }
            worst
        });
    }
    let all = tasks.join_all().await;
    stop.cancel();
    let most = |at: usize| all.iter().map(|worst| worst[at]).max().unwrap_or_default();
    let asked = crowd.asked.lock().unwrap().iter().filter(|(_, unit)| *unit <= dead).copied().collect();
    ([most(0), most(1)], asked)
}

#[tokio::test(start_paused = true)]
async fn what_a_command_waits_for_does_not_grow_with_the_units_that_are_away() {
    // The attempts 10, 30 and 70 s after the dead ones are known.
    let lasts = 85 * SECOND;
    println!("| units | away | bound at first, ms | met | bound since, ms | met |");
    for (n, dead) in [(8, 4), (32, 8), (32, 16), (32, 31)] {
        let live = u32::from(n - dead);
        // Until they are known, the dead take turns with the others; and those that are may be tried between these.
        let at_first = live * EXCHANGE + (1 + u32::from(dead) + u32::from(n - 1) / 8) * SILENCE;
        // Since then one goes before a command, and one more behind each eight of the other devices' commands.
        let attempts = if dead == 0 { 0 } else { (1 + (live - 1) / 8).min(dead.into()) };
        let since = live * EXCHANGE + attempts * SILENCE;
        let ([first, then], asked) = worst(SERIAL, n, dead, lasts).await;
        let ms = |duration: Duration| duration.as_millis();
        println!("| {n} | {dead} | {} | {} | {} | {} |", ms(at_first), ms(first), ms(since), ms(then));
        assert!(first <= at_first && then <= since, "{n} units, {dead} away: {first:?} {then:?}");
        are_tried_now_and_then(dead, &asked);
    }
}

/// Each of the dead ones is asked until it is known to be away, and then less and less often.
fn are_tried_now_and_then(dead: u8, asked: &[(Instant, u8)]) {
    for unit in 1..=dead {
        let own: Vec<Instant> = asked.iter().filter(|(_, of)| *of == unit).map(|(at, _)| *at).collect();
        assert!((5..=6).contains(&own.len()), "unit {unit} was asked {} times", own.len());
        assert!(own[2..].windows(2).all(|pair| pair[1] - pair[0] >= 10 * SECOND), "{own:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_several_are_asked_at_once_those_that_are_away_hold_up_a_command_for_one_silence_at_most() {
    const E: Duration = EXCHANGE_BY_TCP;
    const S: Duration = SILENCE_BY_TCP;
    println!("| n | k | m | bound at first, ms | met | bound since, ms | met |");
    for (n, dead, most) in [(8, 4, 2), (32, 31, 8), (32, 31, 16)] {
        let others = u32::from(n - dead - 1);
        // All that are under way may be silent ones; what is ahead then goes side by side.
        let at_first = S + E + (others * E + (u32::from(dead) + u32::from(n - 1) / 8) * S) / most;
        let since = S + E + (others * E + others / 8 * S) / most;
        let line = format!("{NETWORK}max_in_flight = {most}\n");
        let ([first, then], asked) = worst(&line, n, dead, 85 * SECOND).await;
        let ms = |duration: Duration| duration.as_millis();
        println!("| {n} | {dead} | {most} | {} | {} | {} | {} |", ms(at_first), ms(first), ms(since), ms(then));
        assert!(first <= at_first && then <= since, "{n} units, {dead} away, {most} at once: {first:?} {then:?}");
        are_tried_now_and_then(dead, &asked);
    }
}
