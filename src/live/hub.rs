//! Whether the hub is reached, step by step, and lets each identity in.
//!
//! Invariants
//! - An identity that the running daemon has is never connected from here: the hub would end the daemon's connection.
//! - A session is kept (CleanSession=0), as without that the hub would throw away the messages that wait. Those that it
//!   sends right after CONNACK are not acknowledged, so it delivers them again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout_at, Instant};

use super::certificate::Life;
use super::daemon::Daemon;
use super::{within, Finding};
use crate::clock::{Timestamp, EARLIEST_BELIEVABLE};
use crate::config::{Config, Credential, Device, Hub};
use crate::hub::dial::{Dial as _, Network};
use crate::hub::mqtt::{Connection, Login, Received};
use crate::hub::sas;
use crate::hub::tls::{self, Trust};
use crate::hub::trouble::Trouble;
use crate::net::Stream;

/// Look-up and TCP; TLS.
const STEP_LIMIT: Duration = Duration::from_secs(20);
/// How long CONNACK may take: the hub throttles by delaying it.
const CONNACK_LIMIT: Duration = Duration::from_secs(60);
/// How long all identities may take, beside their pace.
const IDENTITIES_LIMIT: Duration = Duration::from_secs(150);
/// Connections at the same time.
const CONNECTIONS_MAX: usize = 16;
const ABOUT: [&str; 3] = ["hub name", "hub TCP", "hub TLS"];

pub(super) async fn check(config: Config, daemon: Daemon) -> Vec<Finding> {
    let mut findings = Vec::new();
    let trust = match (config.hub.tls, Trust::load(config.hub.ca_file.as_deref())) {
        (false, _) => None,
        (true, Ok(trust)) => Some(trust),
        (true, Err(why)) => {
            findings.push(Finding::failed(ABOUT[2], &why));
            findings.extend(config.devices.values().map(|device| not_asked(device, "TLS can't begin")));
            return findings;
        }
    };
    let hub = Arc::new(Way { hub: config.hub.clone(), trust });
    let is_reached = hub.reach_step_by_step(hub.guest(&config), &mut findings).await;
    findings.extend(identities(&hub, &config, &daemon, is_reached).await);
    findings
}

fn about(device: &Device) -> String {
    format!("identity {}", device.id)
}

fn not_asked(device: &Device, why: &str) -> Finding {
    Finding::warn(&about(device), format!("not asked: {why}"))
}

/// The way to the hub.
struct Way {
    hub: Hub,
    trust: Option<Trust>,
}

impl Way {
    /// The credential to begin TLS with: a hub that knows certificates only may want one.
    fn guest<'a>(&self, config: &'a Config) -> Option<&'a Credential> {
        let mut all = config.devices.values().map(|device| &device.credential);
        all.find(|credential| match (credential, &self.trust) {
            (Credential::Certificate { cert_file, key_file, .. }, Some(trust)) => {
                trust.with_certificate(cert_file, key_file).is_ok()
            }
            _ => true,
        })
    }

    /// One line for each step. Tells whether the last one was made.
    async fn reach_step_by_step(&self, guest: Option<&Credential>, findings: &mut Vec<Finding>) -> bool {
        let address = &self.hub.address;
        let name = address.rsplit_once(':').map_or(address.as_str(), |(name, _)| name);
        let has_address = Finding::ok(ABOUT[0], format!("{name} has an address"));
        let stream = match within(STEP_LIMIT, Network.dial(address)).await.unwrap_or_else(slow) {
            Err(trouble @ Trouble::Lookup { .. }) => {
                findings.push(Finding::failed(ABOUT[0], &trouble.to_string()));
                return false;
            }
            Err(trouble) => {
                findings.extend([has_address, Finding::failed(ABOUT[1], &trouble.to_string())]);
                return false;
            }
            Ok(stream) => stream,
        };
        findings.extend([has_address, Finding::ok(ABOUT[1], format!("{address} takes connections"))]);
        if self.trust.is_none() {
            findings.push(Finding::ok(ABOUT[2], "not used, by `hub.tls`"));
            return true;
        }
        match self.handshake(guest, stream).await {
            Err(trouble) => {
                findings.push(Finding::failed(ABOUT[2], &trouble.to_string()));
                false
            }
            Ok((_, chain)) => {
                findings.push(Finding::ok(ABOUT[2], format!("the server is {}", self.hub.host)));
                findings.push(judge_chain(&chain));
                true
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
            Some(Credential::Certificate { cert_file, key_file, .. }) => trust.with_certificate(cert_file, key_file)?,
            _ => trust.plain(),
        };
        let secured = tls::handshake(settings, &self.hub.host, stream);
        let secured = within(STEP_LIMIT, secured).await.unwrap_or_else(slow)?;
        let chain = tls::shown(&secured);
        Ok((Box::new(secured), chain))
    }

    /// Lets one identity in, and leaves at once.
    async fn log_in(&self, device: &Device) -> Result<&'static str, Trouble> {
        let stream = within(STEP_LIMIT, Network.dial(&self.hub.address)).await.unwrap_or_else(slow)?;
        let (stream, _) = self.handshake(Some(&device.credential), stream).await?;
        let (password, shown) = match &device.credential {
            Credential::Certificate { .. } => (String::new(), "its certificate"),
            Credential::Key(key) => {
                let lifetime = self.hub.token_lifetime;
                let token = sas::device_token(&self.hub.host, &device.id, key, Timestamp::now(), lifetime);
                (token, "a token made now")
            }
        };
        let mut connection = Connection::new(stream);
        connection.connect(&Login::of(&self.hub, &device.id, password)).await?;
        let answer = within(CONNACK_LIMIT, connection.next()).await;
        match answer.unwrap_or(Err(Trouble::Slow(CONNACK_LIMIT.as_secs())))? {
            Received::ConnAck { code: 0, .. } => {
                connection.disconnect().await;
                Ok(shown)
            }
            Received::ConnAck { code, .. } => Err(Trouble::Refused(code)),
            _ => Err(Trouble::Protocol("something before CONNACK".into())),
        }
    }
}

fn slow<T>() -> Result<T, Trouble> {
    Err(Trouble::Slow(STEP_LIMIT.as_secs()))
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
async fn identities(way: &Arc<Way>, config: &Config, daemon: &Daemon, is_reached: bool) -> Vec<Finding> {
    let mut asked = JoinSet::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (began, pause) = (Instant::now(), Duration::from_secs(1) / config.hub.connect_rate);
    let mut findings: BTreeMap<String, Finding> = BTreeMap::new();
    for device in config.devices.values() {
        if let Some(finding) = without_asking(device, daemon, is_reached) {
            findings.insert(device.id.clone(), finding);
            continue;
        }
        let turn = began + pause * u32::try_from(asked.len()).unwrap_or(u32::MAX);
        let (way, device, permits) = (way.clone(), device.clone(), permits.clone());
        asked.spawn(async move {
            sleep_until(turn).await;
            let _permit = permits.acquire().await;
            let finding = let_in(&way, &device).await;
            (device.id, finding)
        });
    }
    let end = began + IDENTITIES_LIMIT + pause * u32::try_from(asked.len()).unwrap_or(u32::MAX);
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
fn without_asking(device: &Device, daemon: &Daemon, is_reached: bool) -> Option<Finding> {
    let needs_a_token = matches!(device.credential, Credential::Key(_));
    match daemon {
        Daemon::Mute { .. } => Some(not_asked(device, "the daemon, which can't be asked, may have it connected")),
        Daemon::Running { .. } if daemon.status_of("devices", "id", &device.id).is_some() => {
            Some(told_by_the_daemon(device, daemon))
        }
        _ if !is_reached => Some(not_asked(device, "the hub is not reached")),
        _ if needs_a_token && Timestamp::now() < EARLIEST_BELIEVABLE => {
            Some(not_asked(device, "a token needs the right time"))
        }
        _ => None,
    }
}

async fn let_in(way: &Way, device: &Device) -> Finding {
    match way.log_in(device).await {
        Ok(shown) => Finding::ok(&about(device), format!("the hub accepts it, with {shown}")),
        Err(trouble) => Finding::failed(&about(device), &trouble.to_string()),
    }
}

fn told_by_the_daemon(device: &Device, daemon: &Daemon) -> Finding {
    let about = about(device);
    let status = daemon.status_of("devices", "id", &device.id);
    let text = |key: &str| status.and_then(|status| status[key].as_str());
    match (text("hub").unwrap_or_default(), text("lastError")) {
        ("connected", _) => Finding::ok(&about, "connected, says the running fieldbridge"),
        (_, Some(error)) => Finding::failed(&about, error),
        (state, None) => Finding::warn(&about, format!("{state}, says the running fieldbridge")).remedy("ask again"),
    }
}
