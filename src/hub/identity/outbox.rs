//! Events on their way to the hub. The queue of result events is the ledger's; here is only what is on the wire, and
//! what is about to be. The ledger is looked into beside the connection, which goes on meanwhile, and only when there
//! may be something.
//!
//! Invariants
//! - An event leaves the ledger only after the hub has acknowledged it (G7). What a connection leaves unacknowledged is
//!   published again on the next.
//! - Each event of the ledger is known here (on the wire, waiting, acknowledged, set aside), or `unread` says that the
//!   ledger is to be read from `cursor` on.
//! - Few events are unacknowledged at a time, and none for long.
//! - What a peripheral says by itself goes when no result event is left to be published, and behind that what polls
//!   have read.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{timeout, Instant};

use super::hurdles::Hurdles;
use super::readings::Readings;
use super::telling::Telling;
use crate::hub::news::News;
use crate::hub::transport::Attachment;
use crate::hub::trouble::Trouble;
use crate::hub::LEDGER_PATIENCE;
use crate::ledger::row::Event;
use crate::ledger::Ledger;
use crate::proof::crash::{self, Part, Point};
use crate::telemetry::Outlet;

/// Events on the wire that the hub has not acknowledged.
const IN_FLIGHT_MAX: usize = 16;
/// An acknowledgement that takes longer ends the connection.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long none is published where the hub takes none.
const PAUSE: Duration = Duration::from_secs(60);
/// Acknowledged events that are remembered: they leave the ledger a little later than the hub acknowledged them.
const DONE_MAX: usize = 256;

/// A look into the ledger that is under way.
type Reading = Pin<Box<dyn Future<Output = Read> + Send>>;

/// Why there may be something to publish.
enum Stirred {
    Bell,
    Read(Read),
    News,
    Readings,
}

enum Read {
    /// What was found, and whether there may be more.
    Events {
        is_full: bool,
        events: Vec<Event>,
    },
    Failed,
    /// The ledger did not answer in time.
    Slow,
}

/// The events of one device.
pub(in crate::hub) struct Outbox {
    device: String,
    ledger: Ledger,
    bell: Arc<Notify>,
    /// By their numbers.
    in_flight: HashMap<i64, OnTheWire>,
    /// Read, and not on the wire yet.
    waiting: VecDeque<Event>,
    /// Events up to this number are known here.
    cursor: i64,
    /// There may be others in the ledger after the cursor.
    unread: bool,
    reading: Option<Reading>,
    done: VecDeque<i64>,
    hurdles: Hurdles,
    /// The hub takes none before this.
    paused_until: Option<Instant>,
    has_told_of_a_pause: bool,
    telling: Telling,
    readings: Readings,
}

struct OnTheWire {
    sent: Instant,
    message_id: Option<String>,
}

impl Outbox {
    pub(in crate::hub) fn new(
        device: &str,
        ledger: Ledger,
        bell: Arc<Notify>,
        news: Arc<News>,
        outlet: Outlet,
    ) -> Self {
        Outbox {
            device: device.to_owned(),
            ledger,
            bell,
            in_flight: HashMap::new(),
            waiting: VecDeque::new(),
            cursor: 0,
            unread: true,
            reading: None,
            done: VecDeque::new(),
            hurdles: Hurdles::default(),
            paused_until: None,
            has_told_of_a_pause: false,
            telling: Telling::new(device, news),
            readings: Readings::new(device, outlet),
        }
    }

    /// Waits until there may be something more to publish. Cancel-safe.
    pub(in crate::hub) async fn stirred(&mut self) -> Result<(), Trouble> {
        let may_tell = self.may_tell();
        let Outbox { bell, reading, telling, readings, .. } = self;
        let read = tokio::select! {
            () = bell.notified() => Stirred::Bell,
            read = under_way(reading) => Stirred::Read(read),
            () = telling.stirred(), if may_tell => Stirred::News,
            () = readings.stirred(), if may_tell => Stirred::Readings,
        };
        match read {
            Stirred::News | Stirred::Readings => {}
            Stirred::Bell => self.look_again(),
            Stirred::Read(Read::Events { is_full, events }) => self.has_read(is_full, events),
            // The events stay in the ledger, and are looked for again with the next one or the next connection.
            Stirred::Read(Read::Failed) => {}
            Stirred::Read(Read::Slow) => return Err(Trouble::LedgerSlow),
        }
        Ok(())
    }

    /// Whether what the peripheral has said may go now: all result events that there are have gone.
    pub(in crate::hub) fn may_tell(&mut self) -> bool {
        let has_room = self.in_flight.len() < self.window();
        has_room && self.waiting.is_empty() && !self.unread && self.reading.is_none() && !self.is_paused()
    }

    /// From now on nothing is held back.
    pub(in crate::hub) fn hurry(&mut self) {
        self.telling.hurry();
        self.hold_readings();
    }

    /// What polls have read waits for the next connection: this one is about to end.
    pub(in crate::hub) fn hold_readings(&mut self) {
        self.readings.rest();
    }

    /// There may be new events.
    pub(in crate::hub) fn look_again(&mut self) {
        self.unread = true;
    }

    fn has_read(&mut self, is_full: bool, events: Vec<Event>) {
        self.unread |= is_full;
        for event in events {
            self.cursor = event.seq;
            self.put(event);
        }
    }

    /// Puts an event among those that wait, unless it is known.
    fn put(&mut self, event: Event) {
        let is_known =
            self.in_flight.contains_key(&event.seq) || self.waiting.iter().any(|other| other.seq == event.seq);
        if !is_known && !self.hurdles.is_aside(event.seq) {
            self.waiting.push_back(event);
        }
    }

    fn window(&self) -> usize {
        let tries_one = self.in_flight.keys().any(|seq| self.hurdles.is_aside(*seq));
        if tries_one || self.hurdles.one_at_a_time() {
            1
        } else {
            IN_FLIGHT_MAX
        }
    }

    /// Events that can be taken up now.
    fn room(&self) -> usize {
        self.window().saturating_sub(self.in_flight.len() + self.waiting.len())
    }

    /// Publishes what waits, as far as there is room on the wire, and has the ledger read if there may be more.
    pub(in crate::hub) async fn publish_more(&mut self, attachment: &mut dyn Attachment) -> Result<(), Trouble> {
        crash::stick(Part::Outbox).await;
        if self.is_paused() {
            return Ok(());
        }
        while self.in_flight.len() < self.window() {
            let Some(event) = self.waiting.pop_front() else { break };
            if self.done.contains(&event.seq) {
                // Its removal has not been committed yet, or was left out.
                self.remove(event.seq).await?;
                continue;
            }
            self.publish(attachment, event).await?;
        }
        if self.waiting.is_empty() && self.in_flight.is_empty() && !self.unread && self.reading.is_none() {
            self.try_one_that_was_set_aside(attachment).await?;
        }
        if self.unread && self.reading.is_none() && self.room() > 0 {
            self.read_on();
        }
        if self.may_tell() {
            if let Some(event) = self.telling.next(Instant::now()) {
                self.in_flight.insert(event.seq, OnTheWire { sent: Instant::now(), message_id: None });
                attachment.publish(event).await?;
            }
        }
        while self.may_tell() {
            let Some(event) = self.readings.next(Instant::now()) else { break };
            attachment.publish(event).await?;
            crash::point(Point::TelemetryPublished);
        }
        Ok(())
    }

    async fn publish(&mut self, attachment: &mut dyn Attachment, event: Event) -> Result<(), Trouble> {
        crash::point(Point::EventRead);
        // Before it is written: a hub may close the connection at its first bytes.
        self.in_flight.insert(event.seq, OnTheWire { sent: Instant::now(), message_id: event.message_id.clone() });
        attachment.publish(event).await?;
        crash::point(Point::EventPublished);
        Ok(())
    }

    /// Begins to read the ledger from the cursor on.
    fn read_on(&mut self) {
        let (ledger, device, after, most) = (self.ledger.clone(), self.device.clone(), self.cursor, self.room());
        // Whatever becomes durable from now on is rung for after this.
        self.unread = false;
        let read = async move {
            match timeout(LEDGER_PATIENCE, ledger.events(&device, after, most)).await {
                Err(_) => Read::Slow,
                Ok(Ok(events)) => Read::Events { is_full: events.len() == most, events },
                Ok(Err(error)) => {
                    tracing::warn!(device, %error, "result events can't be read");
                    Read::Failed
                }
            }
        };
        self.reading = Some(Box::pin(read));
    }

    /// When nothing else is to be published, one that the hub did not take is tried again, alone.
    async fn try_one_that_was_set_aside(&mut self, attachment: &mut dyn Attachment) -> Result<(), Trouble> {
        let Some(seq) = self.hurdles.due(Instant::now()) else { return Ok(()) };
        let read = self.ledger.events(&self.device, seq - 1, 1);
        let events = timeout(LEDGER_PATIENCE, read).await.map_err(|_| Trouble::LedgerSlow)?;
        match events.ok().and_then(|mut events| events.pop()) {
            Some(event) if event.seq == seq => self.publish(attachment, event).await,
            _ => {
                self.hurdles.forget(seq);
                Ok(())
            }
        }
    }

    /// The hub has the event with this number.
    pub(in crate::hub) async fn acknowledged(&mut self, seq: i64) -> Result<(), Trouble> {
        if Readings::is_of(seq) {
            crash::point(Point::TelemetryAcknowledged);
            self.readings.acknowledged(seq);
            return Ok(());
        }
        let Some(OnTheWire { message_id, .. }) = self.in_flight.remove(&seq) else { return Ok(()) };
        if Telling::is_of(seq) {
            self.telling.acknowledged();
            return Ok(());
        }
        crash::point(Point::EventAcknowledged);
        self.has_told_of_a_pause = false;
        if self.hurdles.taken(seq) {
            tracing::info!(device = %self.device, message_id, "the hub has taken a result event that was set aside");
        }
        self.done.push_back(seq);
        if self.done.len() > DONE_MAX {
            self.done.pop_front();
        }
        self.remove(seq).await?;
        crash::point(Point::EventRemovalAsked);
        Ok(())
    }

    /// The hub does not take the event with this number: others go before it, and it is tried again after a while. If
    /// as many are set aside as may be, it is for none of them.
    pub(in crate::hub) fn refused(&mut self, seq: i64, why: &str) {
        if Readings::is_of(seq) {
            return self.readings.refused(seq, why);
        }
        let Some(OnTheWire { message_id, .. }) = self.in_flight.remove(&seq) else { return };
        if Telling::is_of(seq) {
            return self.telling.give_up();
        }
        match self.hurdles.refused(seq, Instant::now()) {
            Some(true) => tracing::warn!(
                device = %self.device,
                message_id,
                event = seq,
                "the hub does not take this result event ({why}); others go before it, and it is tried again from time to time"
            ),
            Some(false) => tracing::debug!(device = %self.device, event = seq, "the hub does not take it still: {why}"),
            None => self.pause(why),
        }
    }

    /// The hub takes no events at present, or not this one: none is published for a while.
    pub(in crate::hub) fn postponed(&mut self, seq: i64, why: &str, is_suspect: bool) {
        if Readings::is_of(seq) {
            self.readings.again(seq, is_suspect);
            return self.pause(why);
        }
        if Telling::is_of(seq) {
            self.telling.again();
        } else if is_suspect && self.in_flight.contains_key(&seq) {
            self.suspect(&[seq]);
        }
        if self.in_flight.remove(&seq).is_some() {
            self.pause(why);
        }
    }

    fn pause(&mut self, why: &str) {
        self.paused_until = Some(Instant::now() + PAUSE);
        if !std::mem::replace(&mut self.has_told_of_a_pause, true) {
            let (device, seconds) = (&self.device, PAUSE.as_secs());
            tracing::warn!(%device, "the hub takes no result events at present ({why}); they stay in the ledger, and are tried each {seconds} s");
        }
        self.begin_anew();
    }

    /// Whether nothing is to be published at present.
    fn is_paused(&mut self) -> bool {
        self.paused_until = self.paused_until.filter(|until| *until > Instant::now());
        self.paused_until.is_some()
    }

    async fn remove(&mut self, seq: i64) -> Result<(), Trouble> {
        timeout(LEDGER_PATIENCE, self.ledger.event_acknowledged(seq)).await.map_err(|_| Trouble::LedgerSlow)
    }

    /// Whether there is something to publish, of which the ledger is asked without a connection. Where it gives no
    /// answer there may be. Cancel-safe.
    pub(in crate::hub) async fn has_something(&mut self) -> bool {
        loop {
            if !self.telling.is_idle() {
                return true;
            }
            while let Some(event) = self.waiting.front() {
                if !self.done.contains(&event.seq) {
                    return true;
                }
                // Its removal has not been committed yet.
                self.waiting.pop_front();
            }
            if self.unread && self.reading.is_none() {
                self.read_on();
            }
            if self.reading.is_none() {
                return false;
            }
            match under_way(&mut self.reading).await {
                Read::Events { is_full, events } => self.has_read(is_full, events),
                Read::Failed | Read::Slow => {
                    self.unread = true;
                    return true;
                }
            }
        }
    }

    /// Whether nothing is left to be published, as far as is known.
    pub(in crate::hub) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.waiting.is_empty()
            && !self.unread
            && self.reading.is_none()
            && self.telling.is_idle()
            && self.readings.is_idle()
    }

    /// When the hub must have acknowledged what is on the wire. `None`: nothing is.
    pub(in crate::hub) fn due(&self) -> Option<Instant> {
        let sent = self.in_flight.values().map(|event| event.sent);
        sent.chain(self.readings.since()).min().map(|sent| sent + PATIENCE)
    }

    /// Whether the hub acknowledges in time.
    pub(in crate::hub) fn check(&self) -> Result<(), Trouble> {
        match self.due().is_some_and(|due| due <= Instant::now()) {
            true => Err(Trouble::EventUnacknowledged(PATIENCE)),
            false => Ok(()),
        }
    }

    /// What was on the wire is published again on the next connection. `refused`: the hub has ended this one, or said
    /// nothing, perhaps for one of them.
    pub(in crate::hub) fn connection_ended(&mut self, refused: bool) {
        if refused {
            let seqs: Vec<i64> = self.in_flight.keys().copied().filter(|seq| !Telling::is_of(*seq)).collect();
            self.suspect(&seqs);
        }
        self.in_flight.clear();
        self.telling.again();
        self.readings.connection_ended(refused);
        self.begin_anew();
    }

    /// The hub may not have taken one of these.
    fn suspect(&mut self, seqs: &[i64]) {
        for seq in self.hurdles.ended_with(seqs, Instant::now()) {
            let message_id = self.in_flight.get(&seq).and_then(|event| event.message_id.as_deref());
            tracing::warn!(
                device = %self.device,
                message_id,
                event = seq,
                "time after time it ends badly when this result event is published; others go before it, and it is tried again \
                 from time to time"
            );
        }
    }

    /// The ledger is read from its first event on.
    fn begin_anew(&mut self) {
        self.waiting.clear();
        self.reading = None;
        (self.cursor, self.unread) = (0, true);
    }
}

/// Waits for a look into the ledger, if one is under way. Cancel-safe: it goes on with the next call.
async fn under_way(reading: &mut Option<Reading>) -> Read {
    let Some(under_way) = reading else { return std::future::pending().await };
    let read = under_way.await;
    *reading = None;
    read
}
