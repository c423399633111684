//! Whether each bus's line can be opened, and each peripheral on it answers. Buses are tried side by side, the
//! peripherals of one bus one after the other.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::daemon::{self, exchange, Daemon, RELOAD_FIRST};
use super::user::{User, Wish, SERVICE};
use super::{ports, slave, within, Finding, BUSES_LIMIT};
use crate::bus::{self, BusHandle, BusStatus, Cause, Owed, SystemLines};
use crate::complaint::Complaint;
use crate::config::{Bus, Config, Device};
use crate::health::snapshot::{BusState, Snapshot};
use crate::operate::admin::{Reply, Request};

pub(super) async fn check(config: Config, daemon: Daemon) -> Vec<Finding> {
    let (config, daemon) = (Arc::new(config), Arc::new(daemon));
    let mut tasks = JoinSet::new();
    for name in config.buses.keys().cloned() {
        let (config, daemon) = (config.clone(), daemon.clone());
        tasks.spawn(async move {
            let mut found = Vec::new();
            if within(BUSES_LIMIT, one(&config, &daemon, &name, &mut found)).await.is_none() {
                let rest =
                    on_bus(&config, &name).filter(|device| !found.iter().any(|f| f.about == slave::about(device)));
                let said = format!("not asked: the bus took longer than {} s", BUSES_LIMIT.as_secs());
                let rest: Vec<Finding> =
                    rest.map(|device| Finding::fail(&slave::about(device), said.clone())).collect();
                found.extend(rest);
            }
            (name, found)
        });
    }
    let mut all = BTreeMap::new();
    while let Some(ended) = tasks.join_next().await {
        let (name, found) = ended
            .unwrap_or_else(|error| (String::new(), vec![Finding::fail("buses", format!("the check broke: {error}"))]));
        all.insert(name, found);
    }
    all.into_values().flatten().collect()
}

fn on_bus<'a>(config: &'a Config, bus: &'a str) -> impl Iterator<Item = &'a Device> {
    config.devices.values().filter(move |device| device.bus == bus)
}

/// One bus, and everything on it.
async fn one(config: &Config, daemon: &Daemon, name: &str, found: &mut Vec<Finding>) {
    let about = format!("bus {name}");
    let settings = &config.buses[name];
    match daemon {
        Daemon::Mute { .. } => {
            found.push(Finding::warn(&about, "not tried: the daemon, which can't be asked, may use it"));
            return;
        }
        Daemon::Running { .. } if daemon.has_another_bus(name, settings) => {
            let said = "not tried: the running daemon has it with other settings";
            found.push(Finding::warn(&about, said).remedy(RELOAD_FIRST));
            found.extend(on_bus(config, name).map(|device| not_asked(device, "its bus was not tried")));
            return;
        }
        Daemon::Running { .. } if daemon.bus(name).is_some() => {
            through_the_daemon(config, daemon, name, found).await;
            return;
        }
        Daemon::Running { .. } | Daemon::Absent => {}
    }
    if let Some(port) = settings.kind.serial_path() {
        if let Some(finding) = held(&about, port, daemon) {
            found.push(finding);
            found.extend(on_bus(config, name).map(|device| not_asked(device, "its bus can't be used")));
            return;
        }
        found.extend(closed_to_the_service(&about, port));
    }
    from_here(config, name, found).await;
}

fn not_asked(device: &Device, why: &str) -> Finding {
    Finding::warn(&slave::about(device), format!("not asked: {why}"))
}

/// What another program's hold on a port means. Two on one line take each other's bytes, so its port is not opened.
fn held(about: &str, port: &Path, daemon: &Daemon) -> Option<Finding> {
    let holders = ports::holders(port);
    let holder = holders.first()?;
    let named: Vec<String> = holders.iter().map(ToString::to_string).collect();
    let said = format!("{} is held by {}", port.display(), named.join(" and "));
    Some(match Some(holder.pid) == daemon.pid() {
        true => {
            Finding::warn(about, format!("{said}, the running daemon, under another bus's name")).remedy(RELOAD_FIRST)
        }
        false => Finding::fail(about, said).remedy("end that program, or keep it away from this port"),
    })
}

/// Root opens what the service's user can't.
fn closed_to_the_service(about: &str, port: &Path) -> Option<Finding> {
    if !rustix::process::geteuid().is_root() || !port.exists() {
        return None;
    }
    let why = User::of_the_service()?.may(Wish::Change, port).err()?;
    let remedy = format!("let the port belong to the group dialout, and {SERVICE} to that group");
    Some(Finding::fail(about, format!("{} {why}", port.display())).remedy(remedy))
}

/// What the running daemon knows of its bus, and what its peripherals answer to it.
async fn through_the_daemon(config: &Config, daemon: &Daemon, name: &str, found: &mut Vec<Finding>) {
    let about = format!("bus {name}");
    let Some(status) = daemon.bus(name) else { return };
    let place = config.buses[name].kind.place();
    found.push(match (status.state, status.last_error.as_deref()) {
        // A connection that nothing was asked on for a while may be closed by the other side.
        (state @ (BusState::Open | BusState::Closed), _) => {
            let state = state.as_str();
            let counts = format!("{} exchanges, {} without an answer", status.exchanges, status.timeouts);
            Finding::ok(&about, format!("{place} is held by the running fieldbridge: {state}, {counts}"))
        }
        (_, Some(error)) => blamed(&about, &config.buses[name], daemon, error, status.cause),
        (BusState::Opening, None) => {
            Finding::warn(&about, format!("the running fieldbridge is opening {place}")).remedy("ask again")
        }
        (BusState::Unknown, None) => {
            let said = format!("what the running fieldbridge says of {place} is not known to this program");
            Finding::warn(&about, said).remedy("check with the program of the daemon's version")
        }
    });
    let bus = found.len() - 1;
    for device in on_bus(config, name) {
        found.push(ask_the_daemon(config, daemon, device).await);
    }
    // By its answers the line has shown how it behaves.
    if let Ok((Reply::Ok(status), _)) = exchange(&config.admin_socket, &Request::Status {}).await {
        let status: Snapshot = serde_json::from_value(status).unwrap_or_default();
        let trouble =
            status.bus(name).filter(|bus| bus.state == BusState::Open).and_then(|bus| bus.last_error.as_deref());
        found[bus] = trouble.map_or(found[bus].clone(), |trouble| behaves_badly(&about, &place, trouble));
    }
}

/// A line that is open, and not right.
fn behaves_badly(about: &str, place: &str, trouble: &str) -> Finding {
    Finding::warn(about, format!("{place} opens, but {trouble}"))
}

async fn ask_the_daemon(config: &Config, daemon: &Daemon, device: &Device) -> Finding {
    if daemon.device(&device.id).is_none() {
        return not_asked(device, "the running daemon does not have it yet").remedy(RELOAD_FIRST);
    }
    if daemon.has_another_device(device) {
        return not_asked(device, "the running daemon has it with other settings").remedy(RELOAD_FIRST);
    }
    let request = Request::Probe { device: device.id.clone() };
    let unanswered = |why: String| not_asked(device, &format!("the running daemon says: {why}"));
    match exchange(&config.admin_socket, &request).await {
        Ok((Reply::Ok(answer), _)) => {
            serde_json::from_value(answer).unwrap_or_else(|error| unanswered(error.to_string()))
        }
        Ok((Reply::Error(why) | Reply::Unrecorded(why), _)) => unanswered(why),
        Err(error) => unanswered(error.to_string()),
    }
}

/// Opens the bus as the daemon would, and asks what is on it.
async fn from_here(config: &Config, name: &str, found: &mut Vec<Finding>) {
    let about = format!("bus {name}");
    let settings = &config.buses[name];
    let alone = match Alone::open(name, settings).await {
        Ok(alone) => alone,
        Err(finding) => {
            found.push(finding);
            found.extend(on_bus(config, name).map(|device| not_asked(device, "its bus can't be used")));
            return;
        }
    };
    found.push(Finding::ok(&about, format!("{} opens", settings.kind.place())));
    let bus = found.len() - 1;
    for device in on_bus(config, name) {
        found.push(slave::ask(device, &alone.bus).await);
    }
    if let Some(trouble) = Some(alone.bus.status()).filter(BusStatus::is_open).and_then(|status| status.last_error) {
        found[bus] = behaves_badly(&about, &settings.kind.place(), &trouble);
    }
    alone.close().await;
}

/// A bus that this process has, and no daemon.
pub struct Alone {
    /// The bus.
    pub bus: BusHandle,
    owed: Owed,
    /// What was told to be wrong with it.
    told: Option<String>,
    working: JoinHandle<()>,
    /// The worker ends with it, however that comes.
    stop: DropGuard,
}

impl Alone {
    /// Takes a bus, unless the daemon runs or somebody else has its port.
    ///
    /// # Errors
    /// Who has it, or why it can't be opened.
    pub async fn take(config: &Config, name: &str) -> Result<Alone, Complaint> {
        let daemon = daemon::ask(config).await;
        match &daemon {
            Daemon::Absent => {}
            Daemon::Running { .. } => return Err(Complaint::new("the daemon has just been started", "ask again")),
            Daemon::Mute { why, .. } => {
                let what = format!("the daemon runs, may use the bus, and can't be asked: {why}");
                return Err(Complaint::new(what, "run this as root or in the group fieldbridge"));
            }
        }
        let settings = &config.buses[name];
        let about = format!("bus {name}");
        let held = settings.kind.serial_path().and_then(|port| held(&about, port, &daemon));
        match held {
            Some(finding) => Err(finding.complaint()),
            None => Alone::open(name, settings).await.map_err(Finding::complaint),
        }
    }

    /// Opens a bus as the daemon would, but for good: who only listens asks nothing, and would hear nothing of a line
    /// that is closed since nothing is asked. The finding says why it can't be.
    async fn open(name: &str, settings: &Bus) -> Result<Alone, Finding> {
        let settings = &Bus { idle_close: None, ..settings.clone() };
        let (bus, worker) = bus::new(name, settings);
        let (stop, owed) = (CancellationToken::new(), Owed::default());
        let worker = worker.on(Arc::new(SystemLines)).sharing(owed.clone());
        let working = tokio::spawn(worker.run(stop.clone()));
        let alone = Alone { bus, owed, told: None, working, stop: stop.drop_guard() };
        let BusStatus { last_error, cause, .. } = alone.bus.tried().await;
        match last_error {
            Some(error) => Err(blamed(&format!("bus {name}"), settings, &Daemon::Absent, &error, cause)),
            None => Ok(alone),
        }
    }

    /// What is wrong with the bus, where that is new.
    pub fn trouble(&mut self) -> Option<String> {
        let now = self.bus.status().last_error;
        let is_new = now != self.told;
        self.told.clone_from(&now);
        now.filter(|_| is_new)
    }

    /// For how long an answer may still come to what was asked.
    pub fn owed_for(&self) -> Duration {
        self.owed.lasts()
    }

    /// Gives the port back, when no answer can come any more: a daemon that is started right after this must not hear
    /// what was meant for us.
    pub async fn close(self) {
        let Alone { owed, working, stop, .. } = self;
        tokio::time::sleep(owed.lasts()).await;
        drop(stop);
        // A worker that broke has told what it was asked for by its bus's status.
        let _ = working.await;
    }
}

/// A line that can't be opened; if another program has it, by whom.
fn blamed(about: &str, settings: &Bus, daemon: &Daemon, error: &str, cause: Option<Cause>) -> Finding {
    if let Some(port) = settings.kind.serial_path() {
        let others = ports::holders(port).into_iter().filter(|holder| Some(holder.pid) != daemon.pid());
        let others: Vec<String> = others.map(|holder| holder.to_string()).collect();
        if !others.is_empty() {
            let said = format!("{} is held by {}", port.display(), others.join(" and "));
            return Finding::fail(about, said).remedy("end that program, or keep it away from this port");
        }
        if cause == Some(Cause::Held) {
            return Finding::fail(about, error).remedy("run this as root to learn which");
        }
        if !port.exists() {
            let there = ports::names_that_stay(Path::new(ports::BY_ID));
            let names: Vec<String> = there.iter().map(|port| port.display().to_string()).collect();
            let remedy = match names.is_empty() {
                true => format!("{} lists no adapter: check its plug and `dmesg`", ports::BY_ID),
                false => format!("there are: {}", names.join(", ")),
            };
            return Finding::fail(about, error).remedy(remedy);
        }
    }
    Finding::heard(about, error)
}
