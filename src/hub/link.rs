//! One identity's link: connect, serve, and when the connection ends, begin anew.
//!
//! Invariants
//! - Everything that belongs to a connection (session, settlement queue, packet ids) is made for it in `Link::serve`
//!   and dropped with it (G6).
//! - Nothing is read from the hub unless the ledger can be written (G9) and the clock could be believed; no token is
//!   made unless it can. A clock that is doubted later ends no connection: its token lives on.
//! - What a connection was made with stays as it is: who it is, and with which settings. If the configuration changes,
//!   the connection ends as for a new token, and the next one is made with what is configured then.
//! - What waits for its turn when its connection ends is dropped at once: the hub delivers it again.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{watch, Notify, Semaphore, SemaphorePermit};
use tokio::time::{sleep, sleep_until, timeout, Instant};
use tokio_util::sync::CancellationToken;

use super::{Intake, Settlements};
use crate::config::Credential;
use crate::handles::{Place, Places};
use crate::health::{DeviceHealth, LinkState};
use crate::hub::account::{Access, Account};
use crate::hub::auth::sas;
use crate::hub::auth::tls;
use crate::hub::backoff::Backoff;
use crate::hub::dial::Dial;
use crate::hub::mqtt::ping::Ping;
use crate::hub::mqtt::session::{Session, WINDOW_MAX};
use crate::hub::mqtt::{Connection, Login, Received};
use crate::hub::outbox::Outbox;
use crate::hub::remains::{Met, Remains};
use crate::hub::room::{Common, Room};
use crate::hub::serving::Serving;
use crate::hub::trouble::Trouble;
use crate::ledger::Ledger;
use crate::proof::crash::{self, Point};

/// Look-up, TCP and TLS together.
const REACH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long CONNACK may take. The hub throttles by delaying it; Microsoft's own client waits 60 s.
const CONNACK_TIMEOUT: Duration = Duration::from_secs(60);
/// TLS handshakes at the same time: bounds their memory.
const HANDSHAKES_MAX: usize = 16;
/// How long one of them may take, so that a hub that says nothing does not hold up the others for long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that ends sooner than this did not stand.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// So many short connections in a row are a sign of a second client.
const SHORT_LIVES_SUSPICIOUS: u32 = 3;
/// How often a clock that can't be believed is looked at again.
pub(in crate::hub) const CLOCK_PERIOD: Duration = Duration::from_secs(1);

/// What all links of a gateway share, for as long as it runs.
pub struct Shared {
    dial: Arc<dyn Dial>,
    next_connect: std::sync::Mutex<Instant>,
    handshakes: Semaphore,
    /// Places for connections, so that handles are left for the rest.
    places: Arc<Places>,
    /// What all devices may keep of waiting messages beyond their shares.
    common: Arc<Common>,
    /// Why the hub can't be reached, as it was logged last. It is the same for all identities.
    unreachable: std::sync::Mutex<Option<String>>,
}

impl Shared {
    /// For links that reach the hub in this way, with so many connections at a time.
    pub fn new(dial: Arc<dyn Dial>, connections_max: usize) -> Self {
        let (next_connect, handshakes) = (std::sync::Mutex::new(Instant::now()), Semaphore::new(HANDSHAKES_MAX));
        Shared {
            dial,
            next_connect,
            handshakes,
            places: Places::new(connections_max),
            common: Arc::default(),
            unreachable: std::sync::Mutex::default(),
        }
    }

    /// From now on there may be so many connections at a time.
    pub fn set_connections_max(&self, most: usize) {
        self.places.set_most(most);
    }

    /// Room for one more device.
    pub fn room(&self) -> Arc<Room> {
        Room::new(self.common.clone())
    }

    /// Takes the next turn to connect, and says when it is: at most `rate` a second over all identities.
    pub(in crate::hub) fn turn(&self, rate: u32) -> Instant {
        let mut next = self.next_connect.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(Instant::now());
        *next = turn + Duration::from_secs(1) / rate;
        turn
    }

    /// Waits for a turn and a handshake. Nobody holds a handshake while it waits for its turn; and a turn that came
    /// when there was none is over, so that the rate is what was configured.
    async fn handshake(&self, rate: u32, mut has_turn: bool) -> SemaphorePermit<'_> {
        loop {
            if !has_turn {
                sleep_until(self.turn(rate)).await;
            }
            has_turn = false;
            if let Ok(permit) = self.handshakes.try_acquire() {
                return permit;
            }
            drop(self.handshakes.acquire().await.expect("the semaphore is never closed"));
        }
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
    /// Where deliveries go.
    pub deliveries: Box<dyn Intake>,
    /// What it may keep of messages that wait.
    pub room: Arc<Room>,
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
pub(in crate::hub) enum Ending {
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
    /// The last connection stood until the turn of the next one had come.
    has_turn: bool,
}

/// A connection that stands, and how long it may.
struct Established {
    connection: Connection,
    /// The hub knows a session of this identity.
    session_present: bool,
    /// When the token is renewed, and when it expires.
    token: Option<(Instant, Instant)>,
    since: Instant,
    _place: Option<Place>,
}

impl Link {
    /// Runs until it is stopped.
    pub async fn run(self) {
        let mut fortune = Fortune::default();
        let mut outbox = Outbox::new(&self.id, self.ledger.clone(), self.event_bell.clone());
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
                Ok(()) = configured.changed() => {
                    fortune = Fortune::default();
                    Ending::Reconfigured
                }
                made = self.connect_and_meet(&account, &mut met, std::mem::take(&mut fortune.has_turn)) => match made {
                    Ok(established) => {
                        let since = established.since;
                        let token_end = established.token.map(|(_, end)| end);
                        let (ending, worked) = self.serve(established, &mut outbox, &fortune, &account).await;
                        fortune.renewing = matches!(ending, Ending::Renew);
                        let has_turn = matches!(ending, Ending::Renew | Ending::Reconfigured);
                        let ending = fortune.judge(ending, worked, since, token_end);
                        if matches!(ending, Ending::Reconfigured) {
                            // What kept it from connecting may be mended.
                            fortune = Fortune::default();
                        }
                        fortune.has_turn = has_turn;
                        ending
                    }
                    Err(ending) => ending,
                }
            };
            self.health.set_link(LinkState::Waiting, None);
            match ending {
                Ending::Stop => break,
                Ending::Renew | Ending::LedgerUnwell | Ending::ClockUnset => {}
                Ending::Reconfigured => {}
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
                match trouble {
                    Trouble::NoHandles(_) => tracing::error!("{text}"),
                    _ => tracing::warn!("no identity can reach the hub: {text}"),
                }
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
    async fn connect_and_meet(&self, account: &Account, met: &mut Met, has_turn: bool) -> Result<Established, Ending> {
        let established = self.connect(account, has_turn).await?;
        match met.hub(&self.ledger, &account.access.hub.host, &self.id, established.session_present).await? {
            true => Ok(established),
            false => Err(Ending::LedgerUnwell),
        }
    }

    /// Makes a connection. `has_turn`: its turn has come already.
    async fn connect(&self, account: &Account, has_turn: bool) -> Result<Established, Ending> {
        let place = self.place().await;
        let connection = {
            let turn = self.shared.handshake(account.access.hub.connect_rate, has_turn);
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
            .map(|established| Established { _place: Some(place), ..established })
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
            Credential::Certificate { cert_file, key_file, .. } => {
                trust.with_certificate(cert_file, key_file).map_err(Trouble::Credential)?
            }
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
        // The clock may have jumped since it was looked at, and a resumed TLS session checks no dates.
        let date = self.ledger.belief().now().map_err(|_| Ending::ClockUnset)?;
        let (password, token) = match &account.credential {
            Credential::Certificate { .. } => (String::new(), None),
            Credential::Key(key) => {
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
                self.ledger.belief().hub_agrees(date);
                tracing::debug!(device = %id, session_present, "the hub accepts the connection");
                Ok(Established { connection, token, since: Instant::now(), session_present, _place: None })
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
        let Established { connection, token, since, _place, .. } = established;
        let (settlements, mut settled) = Settlements::new(WINDOW_MAX + 1);
        let mut serving = Serving {
            link: self,
            connection,
            session: Session::default(),
            settlements,
            worked: false,
            subscribed: false,
            renewed: fortune.renewing,
            proven_at: (fortune.short_lives >= SHORT_LIVES_SUSPICIOUS).then(|| since + SHORT_LIFE),
            ping: Ping::new(account.access.hub.keepalive),
            renewal: token.map(|(renewal, _)| renewal),
            account: account.clone(),
            reconfigured: false,
            remains: Remains::new(&self.ledger, &account.access.hub.host, &self.id, since),
            left: None,
            turn: None,
            has_turn: false,
        };
        let ending = serving.run(&mut settled, outbox).await.unwrap_or_else(Ending::Trouble);
        // From here on every ticket of this connection is dead, however long the goodbye takes.
        settled.close();
        self.deliveries.forget();
        outbox.connection_ended(matches!(
            &ending,
            Ending::Trouble(Trouble::Closed | Trouble::Broken(_) | Trouble::EventUnacknowledged(_))
        ));
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

/// A number from 0 to 1 that is an identity's own, and the same at every start.
fn share_of(device: &str) -> f64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, device.as_bytes());
    f64::from(digest.as_ref()[0]) / 255.0
}
