use std::io::Write;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::Layer as _;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    fn about(&self, what: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(what)).count()
    }
}

/// A quiet log on this thread, with its reports.
fn log() -> (Throttle, Written, tracing::subscriber::DefaultGuard) {
    let (quiet, written) = (Throttle::default(), Written::default());
    let out = written.clone();
    let writer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || out.clone());
    let level = tracing_subscriber::filter::LevelFilter::DEBUG;
    let subscriber = tracing_subscriber::registry().with(quiet.clone()).with(writer.with_filter(level));
    let guard = tracing::subscriber::set_default(subscriber);
    let reporting = quiet.clone();
    tokio::spawn(async move { reporting.report().await });
    (quiet, written, guard)
}

fn flaps(device: &str, number: u64) {
    tracing::warn!(device, "no connection to the hub: broken for the {number}th time");
}

#[tokio::test(start_paused = true)]
async fn a_week_of_flapping_is_a_few_lines_an_hour_that_count_the_others_and_hide_no_neighbour() {
    let (_, written, _guard) = log();
    let began = Instant::now();
    let mut said = 0;
    while began.elapsed() < WEEK {
        said += 1;
        flaps("sick", said);
        if said == 30_000 {
            flaps("sound", 1);
        }
        tokio::time::sleep(Duration::from_secs(11)).await;
    }
    // Longer than the last that was left out has to wait.
    tokio::time::sleep(2 * FEW.refill).await;
    let most = BURST as usize + PER_HOUR as usize * 24 * 7;
    let sick = written.about("sick");
    assert!((most - PER_HOUR as usize..=most + 1).contains(&sick), "{sick} of {said}");
    assert_eq!(written.about("sound"), 1);
    let lines = written.lines();
    assert!(lines.last().unwrap().contains(&format!("for the {said}th time")), "the last word is how it stands");
    let counted: u64 = lines
        .iter()
        .map(|line| match line.split_once("the last of ") {
            Some((_, rest)) => rest.split(' ').next().unwrap().parse().unwrap(),
            None => u64::from(line.contains("sick")),
        })
        .sum();
    assert_eq!(counted, said, "each is written or counted");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_behaves_again_has_its_whole_budget_again() {
    let (_, written, _guard) = log();
    (0..100).for_each(|number| flaps("pump", number));
    assert_eq!(written.about("pump"), BURST as usize);
    tokio::time::sleep(FEW.refill + REPORT_PERIOD).await;
    assert!(written.lines().last().unwrap().contains("for the 99th time"), "{:?}", written.lines());
    assert!(written.lines().last().unwrap().contains("the last of 90 like it since"));
    tokio::time::sleep(4 * HOUR).await;
    let before = written.about("pump");
    (0..BURST.into()).for_each(|number| flaps("pump", number));
    assert_eq!(written.about("pump"), before + BURST as usize);
}

#[tokio::test(start_paused = true)]
async fn what_is_worth_a_line_each_has_one_and_what_was_asked_for_too() {
    let (_, written, _guard) = log();
    for number in 0..1000 {
        tracing::info!(target: EACH, device = "pump", number, "command finished");
        tracing::debug!(device = "pump", "exchange");
    }
    assert_eq!((written.about("command finished"), written.about("exchange")), (1000, 1000));
}

#[tokio::test(start_paused = true)]
async fn a_command_a_second_that_is_done_has_its_line_for_hours_and_a_flood_is_counted() {
    let (_, written, _guard) = log();
    let done = |number: u64| tracing::info!(target: COMMANDS, device = "pump", number, "command finished");
    let seconds = 3 * HOUR.as_secs();
    for number in 0..seconds {
        done(number);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(written.about("command finished") as u64, seconds);
    (0..10_000).for_each(done);
    tokio::time::sleep(2 * REPORT_PERIOD).await;
    let lines = written.lines();
    assert_eq!(lines.len() as u64, seconds + 601);
    assert!(lines.last().is_some_and(|line| line.contains("the last of 9400 like it")), "{:?}", lines.last());
}

#[tokio::test(start_paused = true)]
async fn other_outcomes_and_other_people_are_other_matters() {
    let (_, written, _guard) = log();
    for _ in 0..1000 {
        for (state, code) in [("failed", "timeout"), ("failed", "exception"), ("rejected", "bad-value")] {
            tracing::info!(device = "pump", state, code, "command finished");
        }
        for uid in [1000, 1001] {
            tracing::info!(device = "pump", uid, "a local operator asks");
        }
    }
    assert_eq!(written.about("command finished"), 3 * BURST as usize);
    assert_eq!(written.about("asks"), 2 * BURST as usize);
}

#[tokio::test(start_paused = true)]
async fn the_memory_is_bounded_and_an_old_subject_keeps_its_budget() {
    let (quiet, written, _guard) = log();
    flaps("old", 0);
    (0..100_000).for_each(|number| flaps(&format!("made up {number}"), number));
    assert!(quiet.lock().len() <= BUDGETS_MAX + 1);
    assert_eq!(written.about("made up"), BUDGETS_MAX - 1 + BURST as usize);
    flaps("old", 1);
    assert_eq!(written.about("old"), 2);
    let long = "ä".repeat(100_000);
    (0..100).for_each(|_| tracing::error!(device = "long", "{long}"));
    let longest = quiet.lock().values().flat_map(|budget| &budget.held).map(|held| held.line.bytes()).max();
    assert!(longest.is_some_and(|longest| longest > 500 && longest <= LINE_BYTES_MAX), "{longest:?}");
    tokio::time::sleep(4 * HOUR).await;
    flaps("new", 1);
    assert!(quiet.lock().len() < 10, "what is idle is forgotten when there is no room");
}

/// The name of each event, and its fields but for the message.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> tracing_subscriber::Layer<S> for Heard {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line { metadata, message: String::new(), fields: Vec::new(), left: LINE_BYTES_MAX };
        event.record(&mut line);
        let fields = line.fields.iter().map(|(field, said)| format!(" {}={said:?}", field.name()));
        self.0.lock().unwrap().push(format!("{}{}", metadata.name(), fields.collect::<String>()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_later_is_the_same_event_with_its_name_and_its_fields() {
    let (quiet, heard) = (Throttle::default(), Heard::default());
    let subscriber = tracing_subscriber::registry().with(quiet.clone()).with(heard.clone());
    let _guard = tracing::subscriber::set_default(subscriber);
    let message_id: Option<&str> = Some("m-1");
    for n in 0..20_u32 {
        tracing::warn!(name: "command-in-doubt", device = %"pump", message_id, n, code = None::<&str>, "finished");
    }
    quiet.report_all();
    let heard = heard.0.lock().unwrap();
    assert_eq!(heard.len(), BURST as usize + 1);
    let at = |n: u32| format!("command-in-doubt device=Other(\"pump\") message_id=Text(\"m-1\") n=Other(\"{n}\")");
    assert_eq!((&*heard[0], heard.last()), (&*at(0), Some(&at(19))));
}

#[tokio::test(start_paused = true)]
async fn the_end_tells_what_was_left_out() {
    let (quiet, written, _guard) = log();
    (0..50).for_each(|number| flaps("pump", number));
    quiet.report_all();
    let last = written.lines().pop().unwrap();
    assert!(last.contains("for the 49th time") && last.contains("the last of 40 like it"), "{last}");
}
