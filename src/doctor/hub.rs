//! Whether the hub is reached, step by step, and lets each identity in.
//!
//! Invariants
//! - An identity that the running daemon has is never connected from here: the hub would end the daemon's connection.
//! - A session is kept (CleanSession=0), as without that the hub would throw away the messages that wait. Those that it
//!   sends right after CONNACK are not acknowledged, so it delivers them again.
//! - Where there is no ledger yet and the hub has no session, none is left behind: by its session the hub tells a first
//!   installation from one whose ledger was lost.
//! - By AMQP an identity is let in if a link to its messages stands; none is asked for over it.
//! - By HTTPS no message is asked for, as the hub would lock it: what is asked instead, and what becomes of a message
//!   where that does not do, is the transport's.
//! - What is wrong with one identity's certificate keeps nobody else from being tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at, Instant};

use super::certificate::Life;
use super::daemon::{Daemon, RELOAD_FIRST};
use super::{within, Finding};
use crate::certificate::Trust;
use crate::config::{Config, Credential, Device, Hub, Settle, TransportKind};
use crate::handles::Places;
use crate::health::LinkState;
use crate::hub::account::{Access, Account};
use crate::hub::auth::sas;
use crate::hub::auth::tls;
use crate::hub::dial::{Dial, Network};
use crate::hub::transport::{Entry, NoteLate, Transport};
use crate::hub::transports::Transports;
use crate::hub::trouble::Trouble;
use crate::hub::way;
use crate::net::Stream;
use crate::time::{Timestamp, EARLIEST_BELIEVABLE};

/// Look-up and TCP; TLS.
const STEP_LIMIT: Duration = Duration::from_secs(20);
/// How long CONNACK may take: the hub throttles by delaying it.
const CONNACK_LIMIT: Duration = Duration::from_secs(60);
/// How long all identities may take, beside their pace.
const IDENTITIES_LIMIT: Duration = Duration::from_secs(150);
/// How long one of them takes, where nothing is in its way: by AMQP it is seen whether the hub lets it stay.
const VISIT: Duration = Duration::from_secs(4);
/// Connections at the same time.
const CONNECTIONS_MAX: usize = 16;
/// Certificates that TLS is begun with, until the hub takes one.
const GUESTS_MAX: usize = 8;

/// A transport that is in use, and what its steps are called: those of `hub.transport` as if there were no other.
struct Route {
    transport: TransportKind,
    name: String,
    proxy: String,
    tcp: String,
    tls: String,
    websocket: String,
}

impl Route {
    fn new(transport: TransportKind, usual: TransportKind) -> Route {
        let behind = if transport == usual { String::new() } else { format!(" ({transport})") };
        let about = |step: &str| format!("hub {step}{behind}");
        Route {
            transport,
            name: about("name"),
            proxy: about("proxy"),
            tcp: about("TCP"),
            tls: about("TLS"),
            websocket: about("WebSocket"),
        }
    }

    /// Those that devices use; without any, the hub's own.
    fn of(config: &Config) -> Vec<Route> {
        let used: BTreeSet<_> = config.devices.values().map(|device| device.transport).collect();
        let usual = config.hub.transport;
        let first = Some(usual).filter(|usual| used.is_empty() || used.contains(usual));
        let others = used.into_iter().filter(|used| *used != usual);
        first.into_iter().chain(others).map(|transport| Route::new(transport, usual)).collect()
    }
}

/// Looks at a hub and its devices. `configured` is what the files say of the hub, which may be another one.
pub(super) async fn check(config: Config, configured: &Hub, daemon: &Daemon) -> Vec<Finding> {
    let mut findings = Vec::new();
    let trust = match (config.hub.tls, Trust::load(config.hub.ca_file.as_deref())) {
        (false, _) => None,
        (true, Ok(trust)) => Some(trust),
        (true, Err(why)) => {
            findings.push(Finding::failed("hub TLS", why));
            findings.extend(config.devices.values().map(|device| not_asked(device, "TLS can't begin")));
            return findings;
        }
    };
    let is_first = matches!(daemon, Daemon::Absent) && !config.ledger.path.exists();
    let access = Arc::new(Access { hub: config.hub.clone(), trust: trust.clone() });
    let dial: Arc<dyn Dial> = Arc::new(Network);
    let transport = Transports::over(&dial, &Arc::default(), &Places::new(usize::MAX));
    let hub = Arc::new(Means { hub: config.hub.clone(), trust, access, dial, transport, is_first });
    let mut reached = BTreeSet::new();
    for route in Route::of(&config) {
        let guests = hub.guests(&config, route.transport);
        if hub.reach_step_by_step(&route, &guests, &mut findings).await {
            reached.insert(route.transport);
        }
    }
    findings.extend(identities(&hub, (&config, configured), daemon, &reached).await);
    findings
}

fn about(device: &Device) -> String {
    format!("identity {}", device.id)
}

fn not_asked(device: &Device, why: &str) -> Finding {
    Finding::warn(&about(device), format!("not asked: {why}"))
}

/// What the hub is reached with.
struct Means {
    hub: Hub,
    trust: Option<Trust>,
    access: Arc<Access>,
    dial: Arc<dyn Dial>,
    transport: Transports,
    /// No daemon has run here yet.
    is_first: bool,
}

impl Means {
    /// What to begin TLS with, one after the other: without a certificate, and with some that devices have, as a hub
    /// that knows certificates only may want one.
    fn guests<'a>(&self, config: &'a Config, transport: TransportKind) -> Vec<Option<&'a Credential>> {
        let users = config.devices.values().filter(|device| device.transport == transport);
        let all = users.map(|device| &device.credential);
        let able = all.filter(|credential| match (credential, &self.trust) {
            (Credential::Certificate { cert_file, key_file, .. }, Some(trust)) => {
                trust.with_certificate(cert_file, key_file).is_ok()
            }
            _ => false,
        });
        std::iter::once(None).chain(able.take(GUESTS_MAX).map(Some)).collect()
    }

    /// One line for each step by a transport. Tells whether the last one was made.
    async fn reach_step_by_step(
        &self,
        route: &Route,
        guests: &[Option<&Credential>],
        findings: &mut Vec<Finding>,
    ) -> bool {
        let Some(stream) = self.connect_step_by_step(route, findings).await else { return false };
        if self.trust.is_none() {
            findings.push(Finding::ok(&route.tls, "not used, by `hub.tls`"));
            return self.websocket(route, None, stream, findings).await;
        }
        let mut secured = self.handshake(None, stream).await;
        let mut shown = None;
        for guest in guests.iter().flatten() {
            if secured.is_ok() {
                break;
            }
            // What the first one said is told, unless another gets through.
            if let Ok(stream) = within(STEP_LIMIT, self.connect(route.transport)).await.unwrap_or_else(slow) {
                secured = self.handshake(Some(guest), stream).await.or(secured);
                shown = Some(*guest);
            }
        }
        match secured {
            Err(trouble) => {
                findings.push(Finding::failed(&route.tls, way::through(&self.hub, trouble).complaint()));
                false
            }
            Ok((stream, chain)) => {
                findings.push(Finding::ok(&route.tls, format!("the server is {}", self.hub.server_name())));
                findings.push(judge_chain(&chain));
                self.websocket(route, shown, stream, findings).await
            }
        }
    }

    /// TCP, or a connection through the proxy.
    async fn connect_step_by_step(&self, route: &Route, findings: &mut Vec<Finding>) -> Option<Box<dyn Stream>> {
        let address = self.hub.address(route.transport);
        let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
        let has_address = || Finding::ok(&route.name, format!("{name} has an address"));
        // A proxy's connection has steps of its own, each with its limit.
        let steps = if self.hub.proxy.is_some() { 3 } else { 1 };
        let connected = within(steps * STEP_LIMIT, self.connect(route.transport)).await.unwrap_or_else(slow);
        match connected {
            Err(trouble) if self.hub.proxy.is_some() => {
                findings.push(Finding::failed(&route.proxy, trouble.complaint()));
                None
            }
            Err(trouble @ Trouble::Lookup { .. }) => {
                findings.push(Finding::failed(&route.name, trouble.complaint()));
                None
            }
            Err(trouble) => {
                findings.extend([has_address(), Finding::failed(&route.tcp, trouble.complaint())]);
                None
            }
            Ok(stream) => {
                match &self.hub.proxy {
                    // It looks the name up.
                    Some(proxy) => {
                        let said = format!("{} connects to {address}", proxy.address);
                        findings.push(Finding::ok(&route.proxy, said));
                    }
                    None => findings.push(has_address()),
                }
                findings.push(Finding::ok(&route.tcp, format!("{address} takes connections")));
                Some(stream)
            }
        }
    }

    async fn connect(&self, transport: TransportKind) -> Result<Box<dyn Stream>, Trouble> {
        way::connect(&*self.dial, &self.hub, transport).await
    }

    /// The WebSocket, where the transport goes through one.
    async fn websocket(
        &self,
        route: &Route,
        shown: Option<&Credential>,
        stream: Box<dyn Stream>,
        findings: &mut Vec<Finding>,
    ) -> bool {
        if !route.transport.is_websocket() {
            return true;
        }
        let account = Account {
            access: self.access.clone(),
            transport: route.transport,
            credential: shown.cloned().unwrap_or(Credential::Key(Vec::new())),
            secondary: None,
            settle: Settle::AfterExecution,
            form: Arc::default(),
            desired: Arc::default(),
        };
        match within(STEP_LIMIT, way::websocket(stream, &account)).await.unwrap_or_else(slow) {
            Ok(_) => {
                findings.push(Finding::ok(&route.websocket, "the hub opens one"));
                true
            }
            Err(trouble) => {
                findings.push(Finding::failed(&route.websocket, trouble.complaint()));
                false
            }
        }
    }

    /// TLS, and the certificates that the hub showed. Without trust anchors the bytes go as they are.
    async fn handshake(
        &self,
        credential: Option<&Credential>,
        stream: Box<dyn Stream>,
    ) -> Result<(Box<dyn Stream>, Vec<Vec<u8>>), Trouble> {
        let Some(trust) = &self.trust else { return Ok((stream, Vec::new())) };
        let settings = match credential {
            Some(Credential::Certificate { cert_file, key_file, .. }) => {
                trust.with_certificate(cert_file, key_file).map_err(Trouble::Credential)?
            }
            _ => trust.plain(),
        };
        let secured = tls::handshake(settings, self.hub.server_name(), stream);
        let secured = within(STEP_LIMIT, secured).await.unwrap_or_else(slow)?;
        let chain = tls::shown(&secured);
        Ok((Box::new(secured), chain))
    }

    /// Lets one identity in, and leaves at once. `again` is when it may connect a second time.
    async fn log_in(&self, device: &Device, again: Instant) -> Result<&'static str, Trouble> {
        let made = |key| {
            let lifetime = self.hub.token_lifetime;
            Some(sas::device_token(&self.hub.host, &device.id, key, Timestamp::now(), lifetime))
        };
        let (mut token, mut shown) = match &device.credential {
            Credential::Certificate { .. } => (None, "its certificate"),
            Credential::Key(key) => (made(key), "a token made now"),
        };
        let mut visited = self.visit(device, token.clone(), true).await;
        if let (Err(trouble), Some(second)) = (&visited, &device.secondary) {
            if trouble.is_refusal() {
                sleep_until(again).await;
                (token, shown) =
                    (made(second), "a token of its secondary key; it refuses the first one, which is to be renewed");
                visited = self.visit(device, token.clone(), true).await;
            }
        }
        let was_known = visited?;
        if self.is_first && !was_known {
            // Nothing waits for a session that was not there, so nothing is lost with it.
            sleep_until(again).await;
            self.visit(device, token, false).await?;
        }
        Ok(shown)
    }

    /// Connects and leaves. Tells whether the hub had a session.
    async fn visit(&self, device: &Device, token: Option<String>, is_to_stay: bool) -> Result<bool, Trouble> {
        let account = Account::of(device, &self.access);
        let reached = within(STEP_LIMIT, self.transport.reach(&account)).await.unwrap_or_else(slow)?;
        let (hub, device, settle) = (&self.hub, device.id.as_str(), device.settle);
        let note_late: NoteLate = Arc::new(drop);
        let (wants_messages, hears_desired) = (false, false);
        let entry = Entry { hub, device, token, is_to_stay, wants_messages, hears_desired, settle, note_late };
        let entered = within(CONNACK_LIMIT, reached.attach(entry)).await;
        let mut attachment = entered.unwrap_or_else(throttled)?;
        let was_known = attachment.was_known();
        let let_in = within(CONNACK_LIMIT, attachment.is_let_in()).await.unwrap_or_else(throttled);
        attachment.detach().await;
        let_in.map(|()| was_known)
    }
}

fn slow<T>() -> Result<T, Trouble> {
    Err(Trouble::Slow(STEP_LIMIT.as_secs()))
}

fn throttled<T>() -> Result<T, Trouble> {
    Err(Trouble::Slow(CONNACK_LIMIT.as_secs()))
}

fn judge_chain(chain: &[Vec<u8>]) -> Finding {
    let about = "certificate of the hub";
    let remedy = "whoever runs the hub renews it; nothing is to be done here unless it is yours";
    match Life::of_chain(chain.iter().map(Vec::as_slice)) {
        Ok(life) => life.judge(about, "what the hub shows", Timestamp::now(), remedy),
        Err(why) => Finding::warn(about, why),
    }
}

/// One line for each identity, in the order of their names; new connections at the rate that is configured.
async fn identities(
    means: &Arc<Means>,
    (config, configured): (&Config, &Hub),
    daemon: &Daemon,
    reached: &BTreeSet<TransportKind>,
) -> Vec<Finding> {
    let mut asked = JoinSet::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (began, pause) = (Instant::now(), Duration::from_secs(1) / config.hub.connect_rate);
    // Where no session is to be left behind, each connects twice.
    let visits = if means.is_first { 2 } else { 1 };
    let turns = |asked: usize| u32::try_from(asked * visits).unwrap_or(u32::MAX);
    let mut findings: BTreeMap<String, Finding> = BTreeMap::new();
    for device in config.devices.values() {
        if let Some(finding) = without_asking(configured, device, daemon, reached.contains(&device.transport)) {
            findings.insert(device.id.clone(), finding);
            continue;
        }
        let turn = began + pause * turns(asked.len());
        let (means, device, permits) = (means.clone(), device.clone(), permits.clone());
        asked.spawn(async move {
            sleep_until(turn).await;
            let _permit = permits.acquire().await;
            let finding = let_in(&means, &device, turn + pause).await;
            (device.id, finding)
        });
    }
    let end =
        began + IDENTITIES_LIMIT + pause * turns(asked.len()) + VISIT * turns(asked.len().div_ceil(CONNECTIONS_MAX));
    while let Ok(Some(ended)) = timeout_at(end, asked.join_next()).await {
        let (id, finding) = ended
            .unwrap_or_else(|error| (String::new(), Finding::fail("identities", format!("the check broke: {error}"))));
        findings.insert(id, finding);
    }
    let late: Vec<&Device> = config.devices.values().filter(|device| !findings.contains_key(&device.id)).collect();
    for device in late {
        let late = Finding::fail(&about(device), "no answer before the check's time was over");
        findings.insert(device.id.clone(), late.remedy("try again: the hub may be throttling"));
    }
    findings.into_values().collect()
}

/// What is said of an identity that is not to be connected.
fn without_asking(configured: &Hub, device: &Device, daemon: &Daemon, is_reached: bool) -> Option<Finding> {
    let needs_a_token = matches!(device.credential, Credential::Key(_));
    match daemon {
        Daemon::Mute { .. } => Some(not_asked(device, "the daemon, which can't be asked, may have it connected")),
        Daemon::Running { .. } if daemon.device(&device.id).is_some() => {
            let is_another = daemon.has_another_hub(configured) || daemon.has_another_device(device);
            Some(match is_another {
                true => not_asked(device, "the running daemon has it with other settings").remedy(RELOAD_FIRST),
                false => told_by_the_daemon(device, daemon),
            })
        }
        _ if !is_reached => Some(not_asked(device, "the hub is not reached")),
        _ if needs_a_token && Timestamp::now() < EARLIEST_BELIEVABLE => {
            Some(not_asked(device, "a token needs the right time"))
        }
        _ => None,
    }
}

async fn let_in(means: &Means, device: &Device, again: Instant) -> Finding {
    match means.log_in(device, again).await {
        Ok(shown) => Finding::ok(&about(device), format!("the hub accepts it, with {shown}")),
        Err(trouble) => Finding::failed(&about(device), trouble.complaint()),
    }
}

fn told_by_the_daemon(device: &Device, daemon: &Daemon) -> Finding {
    let about = about(device);
    let status = daemon.device(&device.id);
    let error = status.and_then(|status| status.last_error.as_deref());
    match (status.map(|status| status.hub).unwrap_or_default(), error) {
        (LinkState::Connected, _) => Finding::ok(&about, "connected, says the running fieldbridge"),
        (LinkState::Held, _) => {
            let said =
                "its unit is away, and its messages stay at the hub until that is back, says the running fieldbridge";
            Finding::ok(&about, said)
        }
        (LinkState::WaitingForLocks, Some(why)) => Finding::warn(&about, why).remedy("ask again then"),
        (_, Some(error)) => Finding::heard(&about, error),
        (state, None) => {
            let said = format!("{}, says the running fieldbridge", state.as_str());
            Finding::warn(&about, said).remedy("ask again")
        }
    }
}
