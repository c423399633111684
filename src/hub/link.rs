//! One identity's link: connect, serve, and when the connection ends, begin anew.
//!
//! Invariants
//! - Everything that belongs to a connection (session, settlement queue, packet ids) is made for it in `Link::serve`
//!   and dropped with it (G6).
//! - Nothing is read from the hub unless the ledger can be written (G9) and the clock could be believed; no token is
//!   made unless it can. A clock that is doubted later ends no connection: its token lives on.
//! - What a connection was made with stays as it is: who it is, and with which settings. If the configuration changes,
//!   the connection ends as for a new token, and the next one is made with what is configured then.
//! - A delivery that finds no room is never dropped silently: the connection is, and the hub keeps the message.
//! - One task, which reads while it waits for anything but its own bounded writes: a slow command never stops the
//!   keep-alive.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch, Mutex, Notify, Semaphore};
use tokio::time::{sleep, sleep_until, timeout, Instant};
use tokio_util::sync::CancellationToken;

use super::account::{Access, Account};
use super::backoff::Backoff;
use super::dial::Dial;
use super::mqtt::{Connection, Login, Received};
use super::outbox::Outbox;
use super::ping::Ping;
use super::remains::{Met, Remains};
use super::session::{self, Incoming, Session, WINDOW_MAX};
use super::tls;
use super::trouble::Trouble;
use super::{sas, topic, Delivery, Settlement, Settlements, Ticket};
use crate::clock::Timestamp;
use crate::config::Credential;
use crate::crash::{self, Part, Point};
use crate::health::{DeviceHealth, LinkState};
use crate::ledger::Ledger;
use crate::pulse;

/// Look-up, TCP and TLS together.
const REACH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long CONNACK may take. The hub throttles by delaying it; Microsoft's own client waits 60 s.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(60);
/// TLS handshakes at the same time: bounds their memory.
const HANDSHAKES_MAX: usize = 16;
/// How long one of them may take, so that a hub that says nothing does not hold up the others for long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a renewal waits for deliveries that are not settled.
const RENEWAL_PATIENCE: Duration = Duration::from_secs(10);
/// A connection that ends sooner than this did not stand.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// So many short connections in a row are a sign of a second client.
const SHORT_LIVES_SUSPICIOUS: u32 = 3;
/// How long a stop waits for the hub to take the last result events.
const EVENTS_PATIENCE: Duration = Duration::from_secs(2);
/// How often a clock that can't be believed is looked at again.
const CLOCK_PERIOD: Duration = Duration::from_secs(1);

/// What all links of a gateway share, for as long as it runs.
pub struct Shared {
    dial: Arc<dyn Dial>,
    next_connect: Mutex<Instant>,
    handshakes: Semaphore,
    /// Why the hub can't be reached, as it was logged last. It is the same for all identities.
    unreachable: std::sync::Mutex<Option<String>>,
}

impl Shared {
    /// For links that reach the hub in this way.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        let (next_connect, handshakes) = (Mutex::new(Instant::now()), Semaphore::new(HANDSHAKES_MAX));
        Shared { dial, next_connect, handshakes, unreachable: std::sync::Mutex::default() }
    }

    /// Waits for a connection's turn: at most `rate` a second over all identities.
    async fn pace(&self, rate: u32) {
        let turn = {
            let mut next = self.next_connect.lock().await;
            let turn = (*next).max(Instant::now());
            *next = turn + Duration::from_secs(1) / rate;
            turn
        };
        sleep_until(turn).await;
    }
}

impl Shared {
    /// Why the hub can't be reached, or that it can. Gives what was said of it before.
    fn replace_unreachable(&self, why: Option<&str>) -> Option<String> {
        let mut told = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *told, why.map(str::to_owned))
    }
}

/// One identity's link.
pub struct Link {
    /// What all links share.
    pub shared: Arc<Shared>,
    /// The device's id.
    pub id: String,
    /// What it connects as. A change that is notified ends the connection.
    pub account: watch::Receiver<Arc<Account>>,
    /// Where deliveries go. Full drops the connection.
    pub deliveries: mpsc::Sender<Delivery>,
    /// Where result events come from.
    pub ledger: Ledger,
    /// Rings when there is a new result event.
    pub event_bell: Arc<Notify>,
    /// What is known of the device.
    pub health: Arc<DeviceHealth>,
    /// Ends the link, after what is settled was acknowledged.
    pub stop: CancellationToken,
}

/// How making or serving a connection ended.
enum Ending {
    Stop,
    /// A new token is needed.
    Renew,
    /// The configuration has changed.
    Reconfigured,
    /// The ledger can't be written.
    LedgerUnwell,
    /// The clock can't be believed any more.
    ClockUnset,
    Trouble(Trouble),
}

impl From<Trouble> for Ending {
    fn from(trouble: Trouble) -> Self {
        Ending::Trouble(trouble)
    }
}

/// What is known of the run of connections so far.
#[derive(Default)]
struct Fortune {
    backoff: Backoff,
    short_lives: u32,
    /// The last trouble that was logged, so that a lasting one is logged once.
    told: Option<String>,
    /// The last connection ended for a new token.
    renewing: bool,
}

/// A connection that stands, and how long it may.
struct Established {
    connection: Connection,
    /// The hub knows a session of this identity.
    session_present: bool,
    /// When the token is renewed, and when it expires.
    token: Option<(Instant, Instant)>,
    since: Instant,
}

impl Link {
    /// Runs until it is stopped.
    pub async fn run(self) {
        let mut fortune = Fortune::default();
        let mut outbox = Outbox::new(&self.id, self.ledger.clone());
        let mut configured = self.account.clone();
        let mut met = Met::default();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.health.pulse.during(self.ready()) => {}
            }
            let account = configured.borrow_and_update().clone();
            let ending = tokio::select! {
                () = self.stop.cancelled() => break,
                Ok(()) = configured.changed() => Ending::Reconfigured,
                made = self.connect_and_meet(&account, &mut met) => match made {
                    Ok(established) => {
                        let since = established.since;
                        let token_end = established.token.map(|(_, end)| end);
                        let (ending, worked) = self.serve(established, &mut outbox, &fortune, &account).await;
                        fortune.renewing = matches!(ending, Ending::Renew);
                        fortune.judge(ending, worked, since, token_end)
                    }
                    Err(ending) => ending,
                }
            };
            self.health.set_link(LinkState::Waiting, None);
            match ending {
                Ending::Stop => break,
                Ending::Renew | Ending::LedgerUnwell | Ending::ClockUnset => {}
                // What kept it from connecting may be mended.
                Ending::Reconfigured => fortune = Fortune::default(),
                Ending::Trouble(trouble) => {
                    let wait = fortune.backoff.next(fastrand::f64());
                    self.tell(&trouble, wait, &mut fortune);
                    self.health.pulse.allow(wait);
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        Ok(()) = configured.changed() => {
                            configured.mark_changed();
                            fortune = Fortune::default();
                        }
                        () = sleep(wait) => {}
                    }
                }
            }
        }
        self.health.set_link(LinkState::Waiting, None);
        self.health.pulse.rest();
    }

    /// Waits until a connection makes sense.
    async fn ready(&self) {
        self.ledger.well().await;
        let mut told = None;
        while let Err(doubt) = self.ledger.belief().now() {
            let why = doubt.in_short();
            if told.as_ref() != Some(&why) {
                self.health.set_link(LinkState::Waiting, Some(doubt.to_string()));
                told = Some(why);
            }
            sleep(CLOCK_PERIOD).await;
        }
    }

    fn tell(&self, trouble: &Trouble, wait: Duration, fortune: &mut Fortune) {
        let text = trouble.to_string();
        let seconds = wait.as_secs_f32();
        self.health.set_link(LinkState::Waiting, Some(text.clone()));
        if trouble.is_common() {
            if self.shared.replace_unreachable(Some(&text)).as_ref() != Some(&text) {
                tracing::warn!("no identity can reach the hub: {text}");
            }
            return;
        }
        if fortune.told.as_ref() == Some(&text) {
            tracing::debug!(device = %self.id, seconds, "no connection to the hub: {text}");
        } else {
            tracing::warn!(device = %self.id, "no connection to the hub: {text}");
            fortune.told = Some(text);
        }
    }

    /// Connects, and looks at what CONNACK says of the time before.
    async fn connect_and_meet(&self, account: &Account, met: &mut Met) -> Result<Established, Ending> {
        let established = self.connect(account).await?;
        match met.hub(&self.ledger, &account.access.hub.host, &self.id, established.session_present).await? {
            true => Ok(established),
            false => Err(Ending::LedgerUnwell),
        }
    }

    async fn connect(&self, account: &Account) -> Result<Established, Ending> {
        let connection = {
            // In this order: whoever has had its turn connects at once, so that the rate is what was configured.
            let turn = async {
                let permit = self.shared.handshakes.acquire().await.expect("the semaphore is never closed");
                self.shared.pace(account.access.hub.connect_rate).await;
                permit
            };
            let _permit = self.health.pulse.during(turn).await;
            self.health.pulse.allow(REACH_TIMEOUT);
            self.health.set_link(LinkState::Connecting, None);
            let slow = |_| Trouble::Slow(REACH_TIMEOUT.as_secs());
            timeout(REACH_TIMEOUT, self.reach(account)).await.map_err(slow)??
        };
        self.health.pulse.allow(CONNACK_TIMEOUT);
        // A hub that throttles lets each CONNACK wait. They wait side by side, or a site would take hours to be back.
        timeout(CONNACK_TIMEOUT, self.log_in(connection, account))
            .await
            .map_err(|_| Trouble::Slow(CONNACK_TIMEOUT.as_secs()))?
    }

    /// TCP and TLS.
    async fn reach(&self, account: &Account) -> Result<Connection, Trouble> {
        let Access { hub, trust } = &*account.access;
        crash::point(Point::BeforeConnect);
        let tcp = self.shared.dial.dial(&hub.address).await?;
        if self.shared.replace_unreachable(None).is_some() {
            tracing::info!("the hub can be reached");
        }
        let Some(trust) = trust else { return Ok(Connection::new(tcp)) };
        let config = match &account.credential {
            Credential::Key(_) => trust.plain(),
            Credential::Certificate { cert_file, key_file, .. } => trust.with_certificate(cert_file, key_file)?,
        };
        let slow = |_| Trouble::Slow(HANDSHAKE_TIMEOUT.as_secs());
        let stream = timeout(HANDSHAKE_TIMEOUT, tls::handshake(config, &hub.host, tcp)).await.map_err(slow)??;
        Ok(Connection::new(Box::new(stream)))
    }

    /// CONNECT and CONNACK.
    async fn log_in(&self, mut connection: Connection, account: &Account) -> Result<Established, Ending> {
        let hub = &account.access.hub;
        let now = Instant::now();
        let id = &self.id;
        let (password, token) = match &account.credential {
            Credential::Certificate { .. } => (String::new(), None),
            Credential::Key(key) => {
                // The clock may have jumped since it was looked at, and a resumed TLS session checks no dates.
                let date = self.ledger.belief().now().map_err(|_| Ending::ClockUnset)?;
                let token = sas::device_token(&hub.host, id, key, date, hub.token_lifetime);
                let renewal = sas::renew_after(hub.token_lifetime, share_of(id));
                (token, Some((now + renewal, now + hub.token_lifetime)))
            }
        };
        connection.connect(&Login::of(hub, id, password)).await?;
        crash::point(Point::LoginSent);
        match connection.next().await? {
            Received::ConnAck { code: 0, session_present } => {
                crash::point(Point::LoginAccepted);
                tracing::debug!(device = %id, session_present, "the hub accepts the connection");
                Ok(Established { connection, session_present, token, since: Instant::now() })
            }
            Received::ConnAck { code, .. } => Err(Trouble::Refused(code).into()),
            _ => Err(Trouble::Protocol("something before CONNACK".into()).into()),
        }
    }

    /// Serves one connection to its end. Also tells whether a message was acknowledged on it.
    async fn serve(
        &self,
        established: Established,
        outbox: &mut Outbox,
        fortune: &Fortune,
        account: &Arc<Account>,
    ) -> (Ending, bool) {
        let (settlements, mut settled) = Settlements::new(WINDOW_MAX + 1);
        let mut serving = Serving {
            link: self,
            connection: established.connection,
            session: Session::default(),
            settlements,
            worked: false,
            subscribed: false,
            renewed: fortune.renewing,
            proven_at: (fortune.short_lives >= SHORT_LIVES_SUSPICIOUS).then(|| established.since + SHORT_LIFE),
            ping: Ping::new(account.access.hub.keepalive),
            renewal: established.token.map(|(renewal, _)| renewal),
            account: account.clone(),
            reconfigured: false,
            remains: Remains::new(&self.ledger, &account.access.hub.host, &self.id, established.since),
        };
        let ending = serving.run(&mut settled, outbox).await.unwrap_or_else(Ending::Trouble);
        // From here on every ticket of this connection is dead, however long the goodbye takes.
        settled.close();
        outbox.connection_ended();
        let worked = serving.worked;
        match ending {
            Ending::Trouble(Trouble::Closed | Trouble::Broken(_)) => {}
            _ => serving.connection.disconnect().await,
        }
        (ending, worked)
    }
}

impl Fortune {
    /// Judges how a connection that stood has ended.
    fn judge(&mut self, ending: Ending, worked: bool, since: Instant, token_end: Option<Instant>) -> Ending {
        let short = since.elapsed() < SHORT_LIFE;
        if worked || !short {
            self.backoff.reset();
            self.told = None;
        }
        let Ending::Trouble(trouble @ (Trouble::Closed | Trouble::Broken(_))) = ending else {
            self.short_lives = 0;
            return ending;
        };
        self.short_lives = if short && !worked { self.short_lives + 1 } else { 0 };
        if token_end.is_some_and(|end| Instant::now() >= end) {
            return Ending::Trouble(Trouble::TokenExpired);
        }
        if self.short_lives >= SHORT_LIVES_SUSPICIOUS {
            return Ending::Trouble(Trouble::Kicked);
        }
        Ending::Trouble(trouble)
    }
}

/// One connection while it is served.
struct Serving<'a> {
    link: &'a Link,
    connection: Connection,
    session: Session,
    settlements: Settlements,
    worked: bool,
    subscribed: bool,
    renewed: bool,
    /// The hub has closed the last ones soon after they were made: not to be called a connection before this.
    proven_at: Option<Instant>,
    ping: Ping,
    renewal: Option<Instant>,
    account: Arc<Account>,
    /// The configuration has changed, and with it whom to connect as.
    reconfigured: bool,
    remains: Remains,
}

impl Serving<'_> {
    async fn run(&mut self, settled: &mut mpsc::Receiver<Settlement>, outbox: &mut Outbox) -> Result<Ending, Trouble> {
        let link = self.link;
        self.connection.subscribe(&topic::c2d_filter(&link.id)).await?;
        let mut ledger_health = link.ledger.health();
        let mut configured = link.account.clone();
        loop {
            link.health.pulse.allow(Duration::ZERO);
            crash::stick(Part::Session).await;
            self.compare(&configured.borrow_and_update());
            if self.is_to_be_renewed() {
                return Ok(if self.reconfigured { Ending::Reconfigured } else { Ending::Renew });
            }
            let (ping_at, renewal_at) = (self.ping.next(), self.renewal_check());
            let proven_at = self.proven_at.unwrap_or(ping_at);
            tokio::select! {
                received = self.connection.next() => {
                    self.ping.heard();
                    self.on_received(received?, outbox).await?;
                }
                Some(settlement) = settled.recv() => self.on_settlement(settlement, settled).await?,
                () = link.event_bell.notified(), if self.subscribed => outbox.publish_more(&mut self.connection).await?,
                () = sleep_until(ping_at) => {
                    outbox.check()?;
                    if self.ping.is_overdue() {
                        return Err(Trouble::HalfOpen);
                    }
                    self.ping.sent();
                    self.connection.ping().await?;
                }
                () = self.remains.are_gone(self.session.waiting()), if self.subscribed => self.remains.trust().await?,
                () = sleep(pulse::TICK) => {}
                () = sleep_until(renewal_at), if self.renewal.is_some() => {}
                Ok(()) = configured.changed() => {}
                () = sleep_until(proven_at), if self.proven_at.is_some() => {
                    self.proven_at = None;
                    tracing::info!(device = %link.id, "connected to the hub");
                }
                changed = ledger_health.changed() => {
                    if changed.is_err() || !ledger_health.borrow().ok {
                        return Ok(Ending::LedgerUnwell);
                    }
                }
                () = link.stop.cancelled() => {
                    while let Ok(settlement) = settled.try_recv() {
                        self.on_settlement(settlement, settled).await?;
                    }
                    self.publish_the_last(outbox).await?;
                    return Ok(Ending::Stop);
                }
            }
        }
    }

    async fn on_received(&mut self, received: Received, outbox: &mut Outbox) -> Result<(), Trouble> {
        match received {
            Received::Publish { qos, packet_id, topic, payload } => self.on_publish(qos, packet_id, &topic, &payload),
            Received::PubAck(packet_id) => {
                outbox.acknowledged(packet_id).await?;
                outbox.publish_more(&mut self.connection).await
            }
            Received::SubAck { granted: true } => {
                crash::point(Point::SubscriptionGranted);
                self.subscribed = true;
                let device = &self.link.id;
                // A renewal is a matter of course: an hourly line for each device would hide what matters.
                match (self.renewed, self.proven_at) {
                    (true, _) => tracing::debug!(%device, "connected to the hub with a new token"),
                    (false, None) => tracing::info!(%device, "connected to the hub"),
                    (false, Some(_)) => tracing::debug!(%device, "connected to the hub, for now"),
                }
                self.link.health.set_link(LinkState::Connected, None);
                outbox.publish_more(&mut self.connection).await
            }
            Received::SubAck { granted: false } => Err(Trouble::NotGranted),
            Received::PingResp => {
                self.ping.answered();
                Ok(())
            }
            Received::ConnAck { .. } => Err(Trouble::Protocol("a second CONNACK".into())),
            Received::Unexpected(what) => Err(Trouble::Protocol(what.into())),
        }
    }

    /// Publishes the events of the last commands before a stop. What the hub does not take in time stays in the ledger.
    async fn publish_the_last(&mut self, outbox: &mut Outbox) -> Result<(), Trouble> {
        let publish = async {
            outbox.publish_more(&mut self.connection).await?;
            while !outbox.is_idle() {
                // Whatever else comes is left to the next connection.
                if let Received::PubAck(packet_id) = self.connection.next().await? {
                    outbox.acknowledged(packet_id).await?;
                    outbox.publish_more(&mut self.connection).await?;
                }
            }
            Ok(())
        };
        timeout(EVENTS_PATIENCE, publish).await.unwrap_or(Ok(()))
    }

    fn on_publish(&mut self, qos: u8, packet_id: u16, topic: &[u8], payload: &[u8]) -> Result<(), Trouble> {
        crash::point(Point::PublishRead);
        let device = &self.link.id;
        let ticket = match qos {
            1 => match self.session.on_publish(packet_id, session::identity(topic, payload)) {
                Incoming::New(number) => Ticket::new(number, self.settlements.clone()),
                Incoming::Repeated => return Ok(()),
                Incoming::Drop(why) => return Err(Trouble::Ambiguous(why)),
            },
            // The hub has forgotten this message already. It is run all the same: nobody else will.
            0 => {
                tracing::error!(device = %device, "the hub delivered a command with QoS 0, and can't be told what became of it");
                Ticket::of_the_only_delivery()
            }
            _ => return Err(Trouble::Protocol("a PUBLISH with QoS 2".into())),
        };
        self.link.health.received.add();
        self.remains.something_moved();
        let delivery = Delivery {
            hub: self.account.access.hub.host.as_str().into(),
            message: topic::parse_c2d(device, topic, payload),
            received_at: Timestamp::now(),
            received: Instant::now(),
            ticket,
        };
        match self.link.deliveries.try_send(delivery) {
            Ok(()) => {
                crash::point(Point::DeliveryPassedOn);
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(Trouble::Ambiguous("the hub sent more messages than can wait")),
            // Nothing new is begun during a stop; the hub keeps the message.
            Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// Acknowledges what is settled, and everything else that has been settled meanwhile, in one write.
    async fn on_settlement(
        &mut self,
        first: Settlement,
        settled: &mut mpsc::Receiver<Settlement>,
    ) -> Result<(), Trouble> {
        let mut ready = Vec::new();
        let mut abandoned = false;
        let mut next = Some(first);
        while let Some(settlement) = next {
            match settlement {
                Settlement::Complete(number) => ready.extend(self.session.on_complete(number)),
                Settlement::Abandon(_) => abandoned = true,
            }
            next = settled.try_recv().ok();
        }
        if !ready.is_empty() {
            crash::point(Point::SettlementTaken);
            self.remains.something_moved();
            self.connection.acknowledge(&ready).await?;
            self.worked = true;
        }
        if abandoned {
            Err(Trouble::Abandoned)
        } else {
            Ok(())
        }
    }

    /// A connection for another account is replaced like one whose token runs out: what is on its way is settled first.
    fn compare(&mut self, configured: &Account) {
        if !self.reconfigured && !configured.connects_as(&self.account) {
            self.reconfigured = true;
            self.renewal = Some(Instant::now());
            tracing::info!(device = %self.link.id, "the configuration has changed: connecting anew");
        }
    }

    /// A connection that stands is not given up for a new token that can't be made: the old one lives on for a while.
    fn is_to_be_renewed(&self) -> bool {
        let now = Instant::now();
        let due = self.renewal.is_some_and(|renewal| {
            now >= renewal + RENEWAL_PATIENCE || (now >= renewal && self.session.waiting() == 0)
        });
        due && self.link.ledger.belief().now().is_ok()
    }

    /// When the renewal is to be looked at next. While deliveries wait, their settlement wakes the loop.
    fn renewal_check(&self) -> Instant {
        let now = Instant::now();
        let renewal = self.renewal.unwrap_or(now);
        if now < renewal {
            return renewal;
        }
        // Whatever is due and not done waits for the clock.
        let settled_at = renewal + RENEWAL_PATIENCE;
        if now < settled_at && self.session.waiting() > 0 {
            settled_at
        } else {
            now + CLOCK_PERIOD
        }
    }
}

/// A number from 0 to 1 that is an identity's own, and the same at every start.
fn share_of(device: &str) -> f64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, device.as_bytes());
    f64::from(digest.as_ref()[0]) / 255.0
}
