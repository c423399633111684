//! The ledger against a plain model of it: random steps through its public handle, with closing, crashes (the files
//! as a kill -9 leaves them) and passing time between any two. What it has confirmed it knows (G2, G7), in the order
//! of receipt (G5), and no row is forgotten before its time (G10). Notes, of deliveries counted and of events
//! acknowledged, may be lost in a crash until something else is committed, and only until then.
//!
//! `FIELDBRIDGE_SEED` repeats a run; `FIELDBRIDGE_ROUNDS` (60 by default) is the number of sequences. A sequence that
//! fails is shrunk to the steps that it takes.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldbridge::command::decide::Known;
use fieldbridge::command::outcome::{Code, Fault, Outcome, State};
use fieldbridge::command::Envelope;
use fieldbridge::ledger::row::{RowId, Source, Unfinished};
use fieldbridge::ledger::{Finish, Ledger, Lookup, NewRow, Reader};
use fieldbridge::time::Timestamp;
use serde_json::json;

const HUB: &str = "a.azure-devices.net";
const STEPS: usize = 80;
const DEVICES: [&str; 2] = ["pump", "valve"];
const IDS: [Option<&str>; 4] = [None, Some("m-1"), Some("M-1"), Some("m-1 ")];
const DIGESTS: u8 = 3;
const RETENTION: Duration = Duration::from_secs(2 * 86_400);

/// One step; the number chooses what it is done to.
#[derive(Debug, Clone, Copy)]
enum Step {
    Accept(u8),
    Begin(u8),
    Finish(u8),
    DeliverAgain(u8),
    AcknowledgeEvent(u8),
    Wait(u8),
    Prune,
    Reopen,
    Crash,
}

/// A message of the few that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    device: usize,
    id: usize,
    digest: u8,
}

impl Message {
    fn of(choice: u8) -> Message {
        let choice = usize::from(choice);
        Message { device: choice % 2, id: choice / 2 % 4, digest: (choice / 8 % usize::from(DIGESTS)) as u8 }
    }

    fn all() -> impl Iterator<Item = Message> {
        (0..2 * 4 * DIGESTS).map(Message::of)
    }
}

/// A row as the ledger ought to have it.
#[derive(Debug, Clone)]
struct Row {
    id: RowId,
    message: Message,
    number: i64,
    state: State,
    attempts: u32,
    /// What is certain, and what was noted beyond that.
    deliveries: (i64, i64),
    /// When it was delivered last, likewise, in seconds.
    seen: (u64, u64),
}

/// An event that the hub has not acknowledged.
#[derive(Debug, Clone, PartialEq)]
struct Pending {
    device: usize,
    seq: i64,
    id: String,
    body: String,
    /// Noted as acknowledged, and perhaps removed.
    acknowledged: bool,
}

#[derive(Debug, Default)]
struct Counters {
    steps: u64,
    crashes: u64,
    reopened: u64,
    pruned: u64,
    lost_notes: u64,
    unfinished_at_crash: u64,
}

/// The ledger and its model.
struct Pair<'a> {
    folder: PathBuf,
    lives: u32,
    ledger: Ledger,
    rows: Vec<Row>,
    events: Vec<Pending>,
    event_ids: BTreeSet<String>,
    received: i64,
    now: u64,
    counters: &'a mut Counters,
}

impl Pair<'_> {
    fn path(&self) -> PathBuf {
        self.folder.join(format!("life-{}", self.lives)).join("ledger.db")
    }

    fn new_row(&mut self, message: Message) -> NewRow {
        self.received += 1;
        new_row(message, self.received)
    }

    /// The row that a message without another body is found by, unless it has no id.
    fn find(&self, message: Message) -> Option<&Row> {
        self.rows.iter().find(|row| row.message == message).filter(|_| IDS[message.id].is_some())
    }

    fn unfinished(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| !row.state.is_final()).collect()
    }

    fn insert(&mut self, id: RowId, message: Message, state: State, attempts: u32) {
        self.flushed();
        let (number, seen) = (self.received, (self.now, self.now));
        self.rows.push(Row { id, message, number, state, attempts, deliveries: (1, 1), seen });
    }

    /// Something was committed, and every note before it.
    fn flushed(&mut self) {
        for row in &mut self.rows {
            row.deliveries.0 = row.deliveries.1;
            row.seen.0 = row.seen.1;
        }
        self.events.retain(|event| !event.acknowledged);
    }

    async fn take(&mut self, step: Step) {
        self.counters.steps += 1;
        match step {
            Step::Accept(choice) => {
                let message = Message::of(choice);
                if self.find(message).is_none() {
                    let new = self.new_row(message);
                    let (id, _receipt) = self.ledger.accept(new).await.unwrap();
                    self.insert(id, message, State::Accepted, 0);
                }
            }
            Step::Begin(choice) => self.begin(choice).await,
            Step::Finish(choice) => self.finish(choice).await,
            Step::DeliverAgain(choice) => {
                if let Some(row) = pick(&mut self.rows, choice) {
                    self.ledger.delivered_again(row.id);
                    row.deliveries.1 += 1;
                    row.seen.1 = self.now;
                }
            }
            Step::AcknowledgeEvent(choice) => {
                if let Some(event) = pick(&mut self.events, choice) {
                    self.ledger.event_acknowledged(event.seq).await;
                    event.acknowledged = true;
                }
            }
            Step::Wait(hours) => {
                let time = Duration::from_secs(u64::from(hours) * 1200);
                tokio::time::advance(time).await;
                self.now += time.as_secs();
            }
            Step::Prune => self.prune().await,
            Step::Reopen => self.reopen().await,
            Step::Crash => self.crash().await,
        }
        self.compare().await;
    }

    async fn begin(&mut self, choice: u8) {
        let accepted: Vec<Row> = self.rows.iter().filter(|row| row.state == State::Accepted).cloned().collect();
        if choice & 0x80 != 0 && !accepted.is_empty() {
            let row = &accepted[usize::from(choice) % accepted.len()];
            let id = self.ledger.begin(Some(row.id), new_row(row.message, row.number)).await.unwrap();
            assert_eq!(id, row.id);
            self.flushed();
            let row = self.rows.iter_mut().find(|row| row.id == id).unwrap();
            (row.state, row.attempts) = (State::Executing, 1);
        } else if self.find(Message::of(choice)).is_none() {
            let message = Message::of(choice);
            let new = self.new_row(message);
            let id = self.ledger.begin(None, new).await.unwrap();
            self.insert(id, message, State::Executing, 1);
        }
    }

    async fn finish(&mut self, choice: u8) {
        let (state, attempts) = (State::ALL[2 + usize::from(choice) % 5], u32::from(choice % 4));
        let outcome = match state {
            State::Succeeded => Outcome::succeeded(Some(json!({ "a": [1.5, "ä\n"] }))),
            state => Outcome::ended(state, Fault::new(Code::Timeout, "no answer\n\"in time\"")),
        };
        let finish =
            |row, new| Finish { row, new, outcome, attempts, sent_at: None, finished_at: Timestamp(1_800_000_000_999) };
        let open: Vec<Row> = self.unfinished().into_iter().cloned().collect();
        let message = if choice & 0x80 != 0 && !open.is_empty() {
            let row = &open[usize::from(choice) % open.len()];
            let finish = finish(Some(row.id), new_row(row.message, row.number));
            let _receipt = self.ledger.finish(finish).await.unwrap();
            self.flushed();
            let row = self.rows.iter_mut().find(|other| other.id == row.id).unwrap();
            (row.state, row.attempts) = (state, attempts);
            row.message
        } else if self.find(Message::of(choice)).is_none() {
            let message = Message::of(choice);
            let new = self.new_row(message);
            let _receipt = self.ledger.finish(finish(None, new)).await.unwrap();
            // Its number is told by nobody but a look at it, and without a message id by none.
            let found =
                self.ledger.lookup(HUB, DEVICES[message.device], IDS[message.id], [message.digest; 32]).await.unwrap();
            if let Some(id) = found.row {
                self.insert(id, message, state, attempts);
            } else {
                self.flushed();
            }
            message
        } else {
            return;
        };
        // Outcome and event are there together.
        let found = self.ledger.events(DEVICES[message.device], 0, 1000).await.unwrap();
        let event = found.last().expect("an outcome has an event").clone();
        assert!(self.event_ids.insert(event.id.clone()), "{} was used before", event.id);
        let body: serde_json::Value = serde_json::from_str(&event.body).unwrap();
        assert_eq!((&body["status"], &body["messageId"]), (&json!(state.as_str()), &json!(IDS[message.id])));
        assert_eq!(event.message_id.as_deref(), IDS[message.id]);
        let (device, acknowledged) = (message.device, false);
        self.events.push(Pending { device, seq: event.seq, id: event.id, body: event.body, acknowledged });
    }

    async fn prune(&mut self) {
        self.ledger.prune(RETENTION).await;
        self.flushed();
        let mut kept = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            // Without an id it can't be looked up; the list below tells.
            let found = match IDS[row.message.id] {
                Some(_) => self.look(row.message).await.row == Some(row.id),
                None => !row.state.is_final() || self.now.saturating_sub(row.seen.0) <= RETENTION.as_secs(),
            };
            if found {
                kept.push(row);
                continue;
            }
            assert!(row.state.is_final(), "{row:?} was forgotten and is not final");
            let age = self.now - row.seen.0;
            assert!(age > RETENTION.as_secs(), "{row:?} was forgotten {age} s after its last delivery");
            self.counters.pruned += 1;
        }
        self.rows = kept;
    }

    async fn reopen(&mut self) {
        self.ledger.close().await;
        self.flushed();
        self.ledger = Ledger::open(&self.path(), HUB, &[]).unwrap();
        assert!(self.ledger.ended_well());
        self.counters.reopened += 1;
    }

    /// The files as they are at this moment are all that the next life has.
    async fn crash(&mut self) {
        let old = self.path();
        self.lives += 1;
        copy_ledger(&old, &self.path());
        self.ledger.close().await;
        std::fs::remove_dir_all(old.parent().unwrap()).unwrap();
        self.counters.crashes += 1;
        self.counters.unfinished_at_crash += self.unfinished().len() as u64;
        self.ledger = Ledger::open(&self.path(), HUB, &[]).unwrap();
        assert!(!self.ledger.ended_well());
        let records = Reader::open(&self.path()).unwrap().list(None, None, 1000).unwrap().rows;
        for row in &mut self.rows {
            let record = records.iter().find(|record| is(record, row));
            let deliveries = record.expect("a row that was confirmed is there").deliveries;
            assert!((row.deliveries.0..=row.deliveries.1).contains(&deliveries), "{deliveries} of {row:?}");
            self.counters.lost_notes += u64::from(deliveries < row.deliveries.1);
            row.seen = if deliveries < row.deliveries.1 { (row.seen.0, row.seen.0) } else { (row.seen.1, row.seen.1) };
            row.deliveries = (deliveries, deliveries);
        }
        for (number, device) in DEVICES.iter().enumerate() {
            let found = self.ledger.events(device, 0, 1000).await.unwrap();
            let is_there = |event: &Pending| found.iter().any(|other| other.seq == event.seq);
            self.events.retain(|event| event.device != number || !event.acknowledged || is_there(event));
        }
        for event in self.events.iter_mut().filter(|event| event.acknowledged) {
            event.acknowledged = false;
            self.counters.lost_notes += 1;
        }
    }

    async fn look(&self, message: Message) -> Lookup {
        self.ledger.lookup(HUB, DEVICES[message.device], IDS[message.id], [message.digest; 32]).await.unwrap()
    }

    /// Everything that can be asked, against the model.
    async fn compare(&self) {
        for message in Message::all() {
            let expected = match self.find(message) {
                Some(row) => Lookup { known: Known::Row(row.state), row: Some(row.id), elsewhere: None },
                None => {
                    let same = |row: &&Row| (row.message.device, row.message.id) == (message.device, message.id);
                    let other = IDS[message.id].is_some() && self.rows.iter().any(|row| same(&row));
                    Lookup { known: if other { Known::OtherBody } else { Known::New }, row: None, elsewhere: None }
                }
            };
            assert_eq!(self.look(message).await, expected, "{message:?}");
        }
        let expected: Vec<Unfinished> = self.unfinished().into_iter().map(unfinished).collect();
        assert_eq!(self.ledger.unfinished(None).await.unwrap(), expected);
        for (number, device) in DEVICES.iter().enumerate() {
            let found = self.ledger.events(device, 0, 1000).await.unwrap();
            let found: BTreeMap<i64, _> = found.into_iter().map(|event| (event.seq, event)).collect();
            let expected: Vec<&Pending> = self.events.iter().filter(|event| event.device == number).collect();
            for event in &expected {
                match found.get(&event.seq) {
                    Some(found) => assert_eq!((&found.id, &found.body), (&event.id, &event.body)),
                    None => assert!(event.acknowledged, "{event:?} is lost"),
                }
            }
            assert!(found.len() <= expected.len(), "an event that was removed is back: {found:?}");
        }
        let records = Reader::open(&self.path()).unwrap().list(None, None, 1000).unwrap().rows;
        for row in &self.rows {
            let record = records.iter().find(|record| is(record, row)).expect("the row is listed");
            assert_eq!((record.state, record.attempts), (row.state, row.attempts), "{row:?}");
            assert!((row.deliveries.0..=row.deliveries.1).contains(&record.deliveries), "{record:?} and {row:?}");
            assert_eq!(record.finished_at.is_some(), row.state.is_final());
            assert_eq!(record.envelope, new_row(row.message, row.number).envelope);
            assert!(record.history.iter().all(|entry| entry["at"].is_string()));
        }
    }
}

fn new_row(message: Message, number: i64) -> NewRow {
    NewRow {
        hub: HUB.into(),
        source: Source::Hub,
        device: DEVICES[message.device].into(),
        message_id: IDS[message.id].map(str::to_owned),
        digest: [message.digest; 32],
        command: Some("set".into()),
        value: Some(json!({ "number": number, "value": 4.35 })),
        // A number that no other row has.
        received_at: Timestamp(1_800_000_000_000 + number),
        expires_at: (number % 2 == 0).then_some(Timestamp(1_900_000_000_000)),
        envelope: Envelope {
            correlation_id: (number % 3 == 0).then(|| format!("order {number}")),
            sequence_number: (number % 3 == 1).then_some(number as u64),
            enqueued_at: (number % 2 == 1).then_some(Timestamp(1_799_999_999_000 + number)),
            delivery_count: (number % 5 != 0).then_some(number as u32 % 5),
        },
    }
}

fn unfinished(row: &Row) -> Unfinished {
    let new = new_row(row.message, row.number);
    Unfinished {
        row: row.id,
        hub: new.hub,
        source: new.source,
        device: new.device,
        message_id: new.message_id,
        command: "set".into(),
        value: new.value,
        state: row.state,
        restored: false,
        attempts: row.attempts,
        received_at: new.received_at,
        expires_at: new.expires_at,
        envelope: new.envelope,
    }
}

fn is(record: &fieldbridge::ledger::row::Record, row: &Row) -> bool {
    record.received_at == new_row(row.message, row.number).received_at
}

fn pick<T>(of: &mut [T], choice: u8) -> Option<&mut T> {
    let at = usize::from(choice).checked_rem(of.len())?;
    of.get_mut(at)
}

fn copy_ledger(from: &Path, to: &Path) {
    std::fs::create_dir(to.parent().unwrap()).unwrap();
    for entry in std::fs::read_dir(from.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.parent().unwrap().join(path.file_name().unwrap())).unwrap();
    }
}

/// Takes the steps; panics where ledger and model disagree.
fn run(steps: &[Step], counters: &mut Counters) {
    // Memory: nothing here is about the disk.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        std::fs::create_dir(folder.path().join("life-0")).unwrap();
        let ledger = Ledger::open(&folder.path().join("life-0/ledger.db"), HUB, &[]).unwrap();
        let mut pair = Pair {
            folder: folder.path().to_owned(),
            lives: 0,
            ledger,
            rows: Vec::new(),
            events: Vec::new(),
            event_ids: BTreeSet::new(),
            received: 0,
            now: 0,
            counters,
        };
        for step in steps {
            pair.take(*step).await;
        }
        pair.ledger.close().await;
    });
}

fn steps(random: &mut fastrand::Rng) -> Vec<Step> {
    let step = |random: &mut fastrand::Rng| match random.u8(..20) {
        0..=3 => Step::Accept(random.u8(..)),
        4..=6 => Step::Begin(random.u8(..)),
        7..=11 => Step::Finish(random.u8(..)),
        12..=13 => Step::DeliverAgain(random.u8(..)),
        14..=15 => Step::AcknowledgeEvent(random.u8(..)),
        16 => Step::Wait(random.u8(..)),
        17 => Step::Prune,
        18 => Step::Reopen,
        _ => Step::Crash,
    };
    (0..STEPS).map(|_| step(random)).collect()
}

/// Fewer steps that fail as well.
fn shrunk(mut steps: Vec<Step>) -> Vec<Step> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let fails = |steps: &[Step]| catch_unwind(AssertUnwindSafe(|| run(steps, &mut Counters::default()))).is_err();
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + piece).min(steps.len()));
            match fails(&fewer) {
                true => steps = fewer,
                false => at += piece,
            }
        }
        piece /= 2;
    }
    std::panic::set_hook(hook);
    steps
}

#[test]
fn the_ledger_knows_what_it_has_confirmed_whatever_happens_to_it() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("FIELDBRIDGE_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("FIELDBRIDGE_ROUNDS").unwrap_or(60);
    println!("seed {seed}, {rounds} sequences");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counters = Counters::default();
    for round in 0..rounds {
        let steps = steps(&mut random);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&steps, &mut counters))) {
            eprintln!("seed {seed}, sequence {round} fails; it takes only {:?}", shrunk(steps));
            std::panic::resume_unwind(panic);
        }
    }
    println!("{counters:?}");
    if rounds >= 60 {
        let Counters { crashes, reopened, pruned, lost_notes, unfinished_at_crash, .. } = counters;
        assert!([crashes, reopened, pruned, lost_notes, unfinished_at_crash].iter().all(|count| *count > 0));
    }
}

#[test]
fn a_row_that_was_just_delivered_again_is_not_pruned() {
    let mut counters = Counters::default();
    let steps = [Step::Finish(2), Step::Finish(4), Step::Wait(200), Step::DeliverAgain(0), Step::Prune, Step::Crash];
    run(&steps, &mut counters);
    assert_eq!(counters.pruned, 1, "the other one is");
}
