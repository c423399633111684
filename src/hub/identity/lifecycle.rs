//! Connects an identity, serves it, and when the connection ends, begins anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, sleep_until, timeout, Instant};
use tokio_util::sync::CancellationToken;

use super::attached::{note_receipt, Serving};
use super::backoff::Backoff;
use super::outbox::Outbox;
use super::remains::{Met, Remains};
use super::token::{TokenLife, Which};
use super::twin::Twin;
use super::unheard::Unheard;
use super::{Ending, Identity, CLOCK_PERIOD};
use crate::config::TransportKind;
use crate::handles::Place;
use crate::health::LinkState;
use crate::hub::account::Account;
use crate::hub::call::Answers;
use crate::hub::transport::{Attachment, Entry, NoteLate, Reached};
use crate::hub::trouble::Trouble;
use crate::hub::{Settlements, WINDOW_MAX};
use crate::log::events;
use crate::time::Timestamp;

/// Look-up, TCP and TLS together.
const REACH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the hub's answer may take. It throttles by delaying it; Microsoft's own client waits 60 s.
const ENTRY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long taking leave may take.
const DETACH_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that ends sooner than this did not stand.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// So many short connections in a row are a sign of a second client.
const SHORT_LIVES_SUSPICIOUS: u32 = 3;

/// Why a device does not connect yet, before the time until when.
const WAITS_FOR_LOCKS: &str = "the hub may keep a message locked that would be overtaken, so that nothing is to be \
                               done but to wait until";

/// What is known of the run of connections so far.
#[derive(Default)]
struct Streak {
    backoff: Backoff,
    short_lives: u32,
    /// The last trouble that was logged, so that a lasting one is logged once.
    told: Option<String>,
    /// The last connection ended for a new token.
    renewing: bool,
    /// The last connection stood until the turn of the next one had come.
    has_turn: bool,
}

/// A connection that stands, and how long it may.
struct Established {
    attachment: Box<dyn Attachment>,
    token: Option<TokenLife>,
    since: Instant,
    /// It was made to publish only.
    held: bool,
    _place: Option<Place>,
}

impl Identity {
    /// Runs until it is stopped.
    pub async fn run(&self) {
        let mut streak = Streak::default();
        let (ledger, bell, news) = (self.ledger.clone(), self.event_bell.clone(), self.news.clone());
        let mut outbox = Outbox::new(&self.id, ledger, bell, news, self.telemetry.outlet(&self.id));
        let mut twin = Twin::new(&self.id, Instant::now());
        let mut configured = self.account.clone();
        let mut met = Met::default();
        let mut which = Which::default();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.health.pulse.during(async {
                    self.assigned(&mut configured).await;
                    let has_twin = configured.borrow().transport.has_twin();
                    self.held_back(&mut outbox, &mut twin, has_twin).await;
                    self.ready().await;
                }) => {}
            }
            let account = configured.borrow_and_update().clone();
            let ending = tokio::select! {
                () = self.stop.cancelled() => break,
                Ok(()) = configured.changed() => {
                    streak = Streak::default();
                    Ending::Reconfigured
                }
                made = Box::pin(self.connect_and_meet(&account, which, &mut met, std::mem::take(&mut streak.has_turn))) => match made {
                    Ok(established) => {
                        let served = self.serve(established, (&mut outbox, &mut twin), &streak, &account, which).await;
                        streak.after(served)
                    }
                    Err(ending) => ending,
                }
            };
            self.health.set_link(LinkState::Waiting, None);
            match ending {
                Ending::Stop => break,
                Ending::Renew | Ending::Held | Ending::LedgerUnwell | Ending::ClockUnset | Ending::Reconfigured => {}
                Ending::Trouble(trouble) => {
                    which = self.key_after(&trouble, &account, which);
                    if trouble.may_be_elsewhere() {
                        self.health.refusals.add();
                        self.shared.tell_refused();
                    }
                    let wait = streak.backoff.next(fastrand::f64()).max(trouble.retry_after().unwrap_or_default());
                    self.tell(account.transport, &trouble, wait, &mut streak);
                    self.health.pulse.allow(wait);
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        Ok(()) = configured.changed() => {
                            configured.mark_changed();
                            streak = Streak::default();
                        }
                        () = sleep(wait) => {}
                    }
                }
            }
        }
        self.health.set_link(LinkState::Waiting, None);
        self.health.pulse.rest();
    }

    /// The key to show after a trouble with one.
    fn key_after(&self, trouble: &Trouble, account: &Account, which: Which) -> Which {
        let next = which.after(trouble, account);
        if next != which {
            tracing::info!(device = %self.id, "the hub refuses the device's {which} key; the {next} one is tried");
        }
        next
    }

    /// Waits until it is known which hub it belongs to.
    async fn assigned(&self, configured: &mut watch::Receiver<Arc<Account>>) {
        while !configured.borrow_and_update().has_hub() {
            if configured.changed().await.is_err() {
                // Whoever says so has gone, and the identity is about to be stopped.
                return std::future::pending().await;
            }
        }
    }

    /// Waits while its messages are to stay at the hub, until there is something to publish, or to tell the twin.
    async fn held_back(&self, outbox: &mut Outbox, twin: &mut Twin, has_twin: bool) {
        let mut held = self.held.clone();
        loop {
            let is_held = *held.borrow_and_update();
            twin.note((self.stand)());
            let twin_at = twin.untold_at().filter(|_| has_twin);
            let tells_twin = twin_at.is_some_and(|at| at <= Instant::now());
            if !is_held || tells_twin || outbox.has_something().await {
                return;
            }
            self.health.set_link(LinkState::Held, None);
            tokio::select! {
                // Whoever says so has gone, and the identity is about to be stopped.
                changed = held.changed() => if changed.is_err() { return },
                // Nothing is being read: that can't be too slow.
                _ = outbox.stirred() => {}
                () = sleep_until(twin_at.unwrap_or_else(Instant::now)), if twin_at.is_some() => {}
            }
        }
    }

    /// Waits until a connection makes sense.
    async fn ready(&self) {
        self.ledger.well().await;
        let mut told = None;
        while let Err(doubt) = self.ledger.wall_clock().now() {
            let why = doubt.in_short();
            if told.as_ref() != Some(&why) {
                self.health.set_link(LinkState::Waiting, Some(doubt.to_string()));
                told = Some(why);
            }
            sleep(CLOCK_PERIOD).await;
        }
    }

    fn tell(&self, by: TransportKind, trouble: &Trouble, wait: Duration, streak: &mut Streak) {
        let text = trouble.to_string();
        let seconds = wait.as_secs_f32();
        self.health.set_link(LinkState::Waiting, Some(text.clone()));
        if trouble.is_common() {
            if self.shared.replace_unreachable(by, Some(&text)).as_ref() != Some(&text) {
                match trouble {
                    Trouble::NoHandles(_) => tracing::error!("{text}"),
                    _ => {
                        tracing::warn!(name: events::HUB_UNREACHABLE, transport = %by, "no identity can reach the hub: {text}")
                    }
                }
            }
            return;
        }
        if streak.told.as_ref() == Some(&text) {
            tracing::debug!(device = %self.id, seconds, "no connection to the hub: {text}");
        } else {
            tracing::warn!(name: events::DEVICE_DISCONNECTED, device = %self.id, "no connection to the hub: {text}");
            streak.told = Some(text);
        }
    }

    /// Connects, and looks at what the hub says of the time before.
    async fn connect_and_meet(
        &self,
        account: &Account,
        which: Which,
        met: &mut Met,
        has_turn: bool,
    ) -> Result<Established, Ending> {
        let connected = self.connect(account, which, has_turn).await;
        match &connected {
            Ok(_) => self.health.connects.add("ok"),
            Err(Ending::Trouble(trouble)) => self.health.connects.add(trouble.result()),
            Err(_) => {}
        }
        let established = connected?;
        match met.hub(&self.ledger, &account.access.hub.host, &self.id, established.attachment.was_known()).await? {
            true => Ok(established),
            false => Err(Ending::LedgerUnwell),
        }
    }

    /// Makes a connection. `has_turn`: its turn has come already.
    async fn connect(&self, account: &Account, which: Which, has_turn: bool) -> Result<Established, Ending> {
        self.let_locks_run_out(account).await;
        // A connection that identities share has one place, whoever makes it.
        let place = match self.shared.transport.has_own_connection(account) {
            true => Some(self.place().await),
            false => None,
        };
        let reached = {
            let turn = self.shared.pace.handshake(account.access.hub.connect_rate, has_turn);
            let _permit = self.health.pulse.during(turn).await;
            self.health.pulse.allow(REACH_TIMEOUT);
            self.health.set_link(LinkState::Connecting, None);
            let slow = |_| Trouble::Slow(REACH_TIMEOUT.as_secs());
            let reached = timeout(REACH_TIMEOUT, self.shared.transport.reach(account)).await.map_err(slow)?;
            let is_there = match &reached {
                Ok(_) => true,
                Err(trouble) => trouble.is_beyond_tcp(),
            };
            if is_there && self.shared.replace_unreachable(account.transport, None).is_some() {
                tracing::info!(name: events::HUB_REACHED, transport = %account.transport, "the hub can be reached");
            }
            reached?
        };
        self.health.pulse.allow(ENTRY_TIMEOUT);
        // A hub that throttles lets each answer wait. They wait side by side, or a site would take hours to be back.
        timeout(ENTRY_TIMEOUT, self.attach(reached, account, which))
            .await
            .map_err(|_| Trouble::Slow(ENTRY_TIMEOUT.as_secs()))?
            .map(|established| Established { _place: place, ..established })
    }

    /// Waits while messages may be locked at the hub that would be overtaken (G5).
    async fn let_locks_run_out(&self, account: &Account) {
        let Some(until) = self.shared.locked_until(account, &self.id) else { return };
        let left = until.duration_since(Instant::now());
        let at = Timestamp(Timestamp::now().0.saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX)));
        tracing::debug!(device = %self.id, seconds = left.as_secs(), "a message may be locked at the hub: it is waited for");
        self.health.set_link(LinkState::WaitingForLocks, Some(format!("{WAITS_FOR_LOCKS} {at}")));
        self.health.pulse.during(sleep_until(until)).await;
    }

    /// A place among the connections that the process has handles for.
    async fn place(&self) -> Place {
        let places = &self.shared.places;
        if let Some(place) = places.try_take() {
            return place;
        }
        let trouble = Trouble::NoPlace(places.most());
        if places.is_news() {
            tracing::error!("{trouble}");
        }
        self.health.set_link(LinkState::Waiting, Some(trouble.to_string()));
        self.health.pulse.during(places.take()).await
    }

    /// Shows the identity.
    async fn attach(&self, reached: Box<dyn Reached>, account: &Account, which: Which) -> Result<Established, Ending> {
        let (hub, device) = (&account.access.hub, self.id.as_str());
        // The clock may have jumped since it was looked at, and a resumed TLS session checks no dates.
        let date = self.ledger.wall_clock().now().map_err(|_| Ending::ClockUnset)?;
        let (token, life) = self.token(account, which, date).unzip();
        let held = *self.held.borrow();
        let wants_messages = !self.leaves.is_cancelled() && !held;
        let (settle, note_late) = (account.settle, self.note_late(&hub.host));
        let hears_desired = !account.desired.is_empty();
        let entry = Entry { hub, device, token, is_to_stay: true, wants_messages, hears_desired, settle, note_late };
        let attachment = reached.attach(entry).await?;
        self.ledger.wall_clock().hub_agrees(date);
        tracing::debug!(device, ?which, was_known = attachment.was_known(), "the hub lets the device in");
        Ok(Established { attachment, token: life, since: Instant::now(), held, _place: None })
    }

    /// Notes when a message of this hub came that nobody takes.
    fn note_late(&self, hub: &str) -> NoteLate {
        let (hub, receipts, account) = (hub.to_owned(), self.deliveries.receipts(), self.account.clone());
        Arc::new(move |message| {
            let form = account.borrow().form.clone();
            note_receipt(&*receipts, &hub, &form, message);
        })
    }

    /// Serves one connection to its end.
    async fn serve(
        &self,
        established: Established,
        (outbox, twin): (&mut Outbox, &mut Twin),
        streak: &Streak,
        account: &Arc<Account>,
        which: Which,
    ) -> Served {
        let Established { attachment, token, since, held, _place } = established;
        let (settlements, mut settled) = Settlements::new(WINDOW_MAX + 1);
        let (answers, mut answered) = Answers::new();
        let tells_enqueued_time = attachment.tells_enqueued_time();
        let mut serving = Serving {
            identity: self,
            attachment,
            settlements,
            answers,
            twin,
            wishes: CancellationToken::new(),
            worked: false,
            subscribed: false,
            renewed: streak.renewing,
            proven_at: (streak.short_lives >= SHORT_LIVES_SUSPICIOUS).then(|| since + SHORT_LIFE),
            renewal: token.map(|life| life.renewal),
            token_end: token.map(|life| life.end),
            former_end: None,
            account: account.clone(),
            which,
            reconfigured: false,
            remains: Remains::new(&self.ledger, &account.access.hub.host, &self.id, since, tells_enqueued_time),
            unheard: Unheard::default(),
            left: None,
            turn: None,
            has_turn: false,
            leaves: false,
            held,
        };
        let ending = serving.run(&mut settled, &mut answered, outbox).await.unwrap_or_else(Ending::Trouble);
        if !self.ledger.is_well() || matches!(ending, Ending::LedgerUnwell | Ending::Trouble(Trouble::LedgerSlow)) {
            serving.attachment.give_nothing_back();
        }
        serving.note_what_is_left_behind();
        // From here on every ticket and every reply of this connection is dead, however long the goodbye takes.
        settled.close();
        answered.close();
        serving.wishes.cancel();
        serving.twin.ended();
        self.deliveries.forget();
        outbox.connection_ended(matches!(&ending, Ending::Trouble(trouble) if trouble.may_be_of_an_event()));
        let lived = since.elapsed();
        // By HTTPS it is the first request that the hub says no to.
        let is_refused = matches!(&ending, Ending::Trouble(trouble) if trouble.may_be_elsewhere());
        if serving.subscribed && !(is_refused && lived < SHORT_LIFE) {
            self.health.refusals.forget();
        }
        let (worked, token_end, is_one_connection) =
            (serving.worked, serving.token_end, serving.attachment.is_one_connection());
        match ending {
            // Where a connection is all that there is, nobody is there to take leave of.
            Ending::Trouble(Trouble::Closed | Trouble::Broken(_)) if is_one_connection => {}
            _ => {
                self.health.pulse.allow(DETACH_TIMEOUT);
                serving.detach().await;
            }
        }
        Served { ending, lived, worked, token_end, is_one_connection }
    }
}

/// How a connection has ended.
struct Served {
    ending: Ending,
    /// How long it stood, without its leave-taking.
    lived: Duration,
    /// A message was acknowledged on it.
    worked: bool,
    /// When its last token expires.
    token_end: Option<Instant>,
    /// A second client could end it.
    is_one_connection: bool,
}

impl Streak {
    /// Goes on after a connection that stood, and judges how it has ended.
    fn after(&mut self, served: Served) -> Ending {
        self.renewing = matches!(served.ending, Ending::Renew);
        let has_turn = matches!(served.ending, Ending::Renew | Ending::Reconfigured);
        let ending = self.judge(served);
        if matches!(ending, Ending::Reconfigured) {
            // What kept it from connecting may be mended.
            *self = Streak::default();
        }
        self.has_turn = has_turn;
        ending
    }

    /// Judges how a connection that stood has ended.
    fn judge(&mut self, served: Served) -> Ending {
        let Served { ending, lived, worked, token_end, is_one_connection } = served;
        let has_expired = token_end.is_some_and(|end| Instant::now() >= end);
        let short = lived < SHORT_LIFE;
        if worked || !short {
            self.backoff.reset();
            self.told = None;
        }
        let Ending::Trouble(trouble @ (Trouble::Closed | Trouble::Broken(_))) = ending else {
            self.short_lives = 0;
            return match ending {
                Ending::Trouble(Trouble::Unauthorized(_)) if has_expired => Ending::Trouble(Trouble::TokenExpired),
                ending => ending,
            };
        };
        self.short_lives = if short && !worked && is_one_connection { self.short_lives + 1 } else { 0 };
        if has_expired {
            return Ending::Trouble(Trouble::TokenExpired);
        }
        if self.short_lives >= SHORT_LIVES_SUSPICIOUS {
            return Ending::Trouble(Trouble::Kicked);
        }
        Ending::Trouble(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_is_shut_out_after_its_token_has_expired_is_told_of_that() {
        let (since, mut streak) = (Instant::now(), Streak::default());
        let end = since + Duration::from_secs(3600);
        let mut judged = |trouble: Trouble| {
            let ending = Ending::Trouble(trouble);
            let lived = since.elapsed();
            match streak.judge(Served { ending, lived, worked: true, token_end: Some(end), is_one_connection: true }) {
                Ending::Trouble(trouble) => trouble,
                _ => panic!("a trouble"),
            }
        };
        let by_amqp = || Trouble::Unauthorized("Unauthorized".into());
        assert_eq!((judged(Trouble::Closed), judged(by_amqp())), (Trouble::Closed, by_amqp()));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!((judged(Trouble::Closed), judged(by_amqp())), (Trouble::TokenExpired, Trouble::TokenExpired));
        assert_eq!(judged(Trouble::Stolen), Trouble::Stolen);
    }
}
