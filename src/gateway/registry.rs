//! Who is served at present: the devices and the buses, added and removed one by one.
//!
//! Invariants
//! - A device has one executor and one link. One that comes back begins after its earlier ones have ended, and after
//!   their unfinished commands were read from the ledger.
//! - A device that leaves finishes its command in hand and acknowledges what is settled before it disconnects.
//! - For how long peripherals may owe answers stands in the ledger when they may: a daemon with another configuration
//!   waits for them all the same, if this one does not end well (G12).
//! - A bus that is not configured any more ends when nobody who was given it has a command in hand.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{watch, Notify};
use tokio_util::sync::CancellationToken;

use super::reload::Changes;
use super::{spawn, Gateway, TaskGroups};
use crate::bus::{self, BusHandle, Hearing};
use crate::config::{self, of_device_and_bus, Config};
use crate::device::{self, events, queue, Arrival, Assignment, Context, Job};
use crate::health::DeviceHealth;
use crate::hub::account::{Access, Account};
use crate::hub::identity::Identity;
use crate::hub::news::News;
use crate::ledger::row::{Source, Unfinished};
use crate::ledger::LedgerError;
use crate::polling::latest::Latest;
use crate::polling::{Polled, Poller};
use crate::view::Views;

/// Who is served.
pub(super) struct Registry {
    /// The configuration in force.
    pub(super) config: Config,
    /// Why the last one that was to be taken up was refused.
    pub(super) refused: Option<String>,
    /// Where the ledger is, which no reload moves.
    ledger_path: PathBuf,
    /// Ends the answering of operators at the present socket.
    pub(super) operators: Option<CancellationToken>,
    /// By id.
    pub(super) devices: BTreeMap<String, Served>,
    /// By name.
    pub(super) buses: BTreeMap<String, Running>,
    /// Devices that leave or have left, and whether they are gone.
    leaving: BTreeMap<String, CancellationToken>,
}

/// A device that is served.
pub(super) struct Served {
    assignment: watch::Sender<Arc<Assignment>>,
    pub(super) context: Context,
    account: watch::Sender<Arc<Account>>,
    pub(super) news: Arc<News>,
    /// Its bus tells what its instrument says by itself.
    hearing: Option<Hearing>,
    pub(super) health: Arc<DeviceHealth>,
    /// Its executor ends after the command in hand, and its link then.
    leave: CancellationToken,
    /// Both have ended.
    gone: CancellationToken,
}

/// A bus that runs.
pub(super) struct Running {
    pub(super) handle: BusHandle,
    /// Its end is no fault.
    leave: CancellationToken,
    /// Ends its polls, and with them a handle that keeps it.
    ends_polls: CancellationToken,
    /// Devices that are polled on it.
    polled: watch::Sender<Polled>,
    /// What its polls came to last.
    pub(super) latest: Latest,
}

impl Running {
    /// Nobody is given it any more.
    fn let_go(&self) {
        self.leave.cancel();
        self.ends_polls.cancel();
    }
}

/// What a device begins with.
pub(super) enum Begin {
    /// With the daemon: its unfinished commands were read.
    With(Vec<Unfinished>),
    /// Later, after its earlier executor and link have ended, if it had some.
    After(Option<CancellationToken>),
}

/// What each device has left.
pub(super) fn by_device(unfinished: Vec<Unfinished>) -> BTreeMap<String, Vec<Unfinished>> {
    let mut left = BTreeMap::<String, Vec<Unfinished>>::new();
    for command in unfinished {
        left.entry(command.device.clone()).or_default().push(command);
    }
    left
}

impl Registry {
    pub(super) fn new(config: Config) -> Registry {
        Registry {
            ledger_path: config.ledger.path.clone(),
            config,
            refused: None,
            operators: None,
            devices: BTreeMap::new(),
            buses: BTreeMap::new(),
            leaving: BTreeMap::new(),
        }
    }

    /// Whether a device is configured, or was until lately and may have a command in hand.
    pub(super) fn knows(&self, device: &str) -> bool {
        self.devices.contains_key(device) || self.leaving.contains_key(device)
    }

    /// Starts a bus.
    pub(super) fn add_bus(&mut self, gateway: &Gateway, tasks: &mut TaskGroups, name: &str) {
        let (handle, worker) = bus::new(name, &self.config.buses[name]);
        let worker = worker.on(gateway.lines.clone()).sharing(gateway.owed.clone());
        let worker = match gateway.ledger.late_window_at_start() {
            None => worker,
            Some(before) => worker.after_an_earlier_life(gateway.started, longest_timeout(&self.config, name), before),
        };
        let leave = gateway.stops.buses.child_token();
        spawn(&mut tasks.buses, format!("bus {name}"), leave.clone(), worker.run(gateway.stops.buses.clone()));
        let (polled, devices) = watch::channel(Polled::default());
        let (store, ledger, latest) = (gateway.telemetry.clone(), gateway.ledger.clone(), Latest::default());
        let poller = Poller { bus: handle.clone(), devices, store, latest: latest.clone(), ledger };
        let ends_polls = gateway.stops.executors.child_token();
        let run = poller.run(ends_polls.clone());
        spawn(&mut tasks.executors, format!("polls on bus {name}"), ends_polls.clone(), run);
        self.buses.insert(name.to_owned(), Running { handle, leave, ends_polls, polled, latest });
    }

    /// Tells each bus whom to poll.
    pub(super) fn let_poll(&self, gateway: &Gateway) {
        let polled = |device: &&config::Device| !device.polls.is_empty();
        let all: Vec<&str> = self.config.devices.values().filter(polled).map(|device| device.id.as_str()).collect();
        if !all.is_empty() {
            gateway.telemetry.begin(all);
        }
        for (name, running) in &self.buses {
            let devices = self.config.devices.values().filter(polled).filter(|device| device.bus == *name);
            let devices: Vec<Arc<config::Device>> = devices.cloned().map(Arc::new).collect();
            running.polled.send_if_modified(|polled| {
                let is_changed = **polled != devices;
                *polled = Arc::new(devices);
                is_changed
            });
        }
    }

    /// Starts a device that is configured, on a bus that runs.
    pub(super) fn add_device(
        &mut self,
        gateway: &Gateway,
        tasks: &mut TaskGroups,
        access: &Arc<Access>,
        device: &Arc<config::Device>,
        begin: Begin,
    ) {
        let (assignment, assigned) = watch::channel(Arc::new(self.assignment(device)));
        let account = self.account(gateway, device, access);
        let (account, configured) = watch::channel(Arc::new(account));
        let event_bell = Arc::new(Notify::new());
        let health = Arc::new(DeviceHealth::new(&device.id, gateway.completion.clone()));
        let leave = gateway.stops.executors.child_token();
        let gone = CancellationToken::new();
        let (deliveries, inbox, offer, jobs) = device::channels(&device.id, &gateway.receipts);
        let news = Arc::<News>::default();
        let hearing = events::listen(device, &self.buses[&device.bus].handle, &news, &gateway.ledger);
        let held = Arc::new(watch::Sender::new(false));
        let context = Context {
            id: device.id.clone(),
            assignment: assigned,
            held: held.clone(),
            ledger: gateway.ledger.clone(),
            health: health.clone(),
            receipts: gateway.receipts.clone(),
            lockouts: gateway.lockouts.clone(),
            intervals: gateway.intervals.clone(),
            event_bell: event_bell.clone(),
            ended: deliveries.ended(),
            stop: leave.clone(),
        };
        let link = Identity {
            shared: gateway.shared.clone(),
            id: device.id.clone(),
            account: configured,
            deliveries: Box::new(deliveries),
            held: held.subscribe(),
            room: gateway.shared.room(),
            ledger: gateway.ledger.clone(),
            event_bell,
            news: news.clone(),
            board: Arc::default(),
            stand: Box::new({
                let context = context.clone();
                move || context.facts()
            }),
            telemetry: gateway.telemetry.clone(),
            health: health.clone(),
            leaves: leave.clone(),
            stop: gateway.stops.links.child_token(),
        };
        start(tasks, &context, (inbox, offer, jobs), link, begin, gone.clone());
        let served = Served { assignment, context, account, news, hearing, health, leave, gone };
        self.devices.insert(device.id.clone(), served);
    }

    /// Whom a device connects as, at the hub that it was assigned to if it is to be assigned to one.
    pub(super) fn account(&self, gateway: &Gateway, device: &config::Device, access: &Arc<Access>) -> Account {
        let account = Account::of(device, access);
        match &device.registration {
            Some(_) => account.assigned(gateway.assigning.hub_of(&self.config, device).as_deref()),
            None => account,
        }
    }

    /// The hub that a device belongs to; empty while it is assigned to none.
    pub(super) fn hub_of(&self, device: &str) -> String {
        let served = self.devices.get(device);
        served.map_or_else(String::new, |served| served.account.borrow().access.hub.host.clone())
    }

    /// The hub that is configured, or the only one that devices were assigned to; else empty.
    pub(super) fn hub_host(&self) -> String {
        if !self.config.hub.host.is_empty() {
            return self.config.hub.host.clone();
        }
        let hubs: BTreeSet<String> = self.devices.keys().map(|id| self.hub_of(id)).collect();
        let mut hubs = hubs.into_iter().filter(|host| !host.is_empty());
        hubs.next().filter(|_| hubs.next().is_none()).unwrap_or_default()
    }

    /// A device was assigned to a hub. If that is another one, it connects there.
    #[cfg(feature = "https")]
    pub(super) fn move_to(&self, device: &str, hub: &str) {
        let Some(served) = self.devices.get(device) else { return };
        served.account.send_if_modified(|present| {
            let account = Account::clone(present).assigned(Some(hub));
            let is_another = present.access.hub.host != hub;
            *present = Arc::new(account);
            is_another
        });
    }

    fn assignment(&self, device: &Arc<config::Device>) -> Assignment {
        let configuration = of_device_and_bus(device, &self.config.buses[&device.bus]).into();
        Assignment { device: device.clone(), bus: self.buses[&device.bus].handle.clone(), configuration }
    }

    /// Takes up a configuration: touches what it changes, and nothing else.
    pub(super) fn change(
        &mut self,
        gateway: &Gateway,
        tasks: &mut TaskGroups,
        access: &Arc<Access>,
        config: Config,
    ) -> Changes {
        let mut changes = Changes::default();
        let old = std::mem::replace(&mut self.config, config);
        self.change_settings(gateway, &old, &mut changes);
        self.leaving.retain(|_, gone| !gone.is_cancelled());
        self.take_leave(&mut changes);
        self.change_buses(gateway, tasks, &old, &mut changes);
        self.change_devices(gateway, tasks, access, &old, &mut changes);
        self.let_buses_go(&mut changes);
        self.let_poll(gateway);
        changes
    }

    /// What is neither a bus nor a device.
    fn change_settings(&self, gateway: &Gateway, old: &Config, changes: &mut Changes) {
        if old.hub != self.config.hub {
            changes.settings.push("hub");
        }
        if old.provisioning != self.config.provisioning {
            changes.settings.push("provisioning");
        }
        if old.hub.host != self.config.hub.host {
            gateway.ledger.moved_to(&self.config.hub.host);
        }
        if old.ledger.retention != self.config.ledger.retention {
            changes.settings.push("ledger.retention");
        }
        if old.telemetry != self.config.telemetry {
            changes.settings.push("telemetry");
            gateway.telemetry.configure(&self.config.telemetry);
        }
        if old.telemetry.path != self.config.telemetry.path {
            changes.at_restart.push("telemetry.path");
        }
        if old.admin_socket != self.config.admin_socket {
            changes.settings.push("admin.socket");
        }
        for (is_same, name) in [(old.metrics == self.config.metrics, "metrics"), (old.web == self.config.web, "web")] {
            if !is_same {
                changes.settings.push(name);
                gateway.views.send_replace(Views::of(&self.config));
            }
        }
        if self.ledger_path != self.config.ledger.path {
            changes.at_restart.push("ledger.path");
        }
        if late_window(old) < late_window(&self.config) {
            gateway.ledger.grow_late_window(late_window(&self.config));
        }
    }

    fn change_buses(&mut self, gateway: &Gateway, tasks: &mut TaskGroups, old: &Config, changes: &mut Changes) {
        let names: Vec<String> = self.config.buses.keys().cloned().collect();
        for name in names {
            let (Some(running), Some(before)) = (self.buses.get(&name), old.buses.get(&name)) else {
                self.add_bus(gateway, tasks, &name);
                changes.buses.added.push(name);
                continue;
            };
            let now = &self.config.buses[&name];
            if before == now {
                continue;
            }
            match before.kind.speaks_as(&now.kind) {
                true => running.handle.configure(now),
                // What a command in hand still has to say there, this one does not understand: it is another bus.
                false => {
                    running.let_go();
                    self.add_bus(gateway, tasks, &name);
                }
            }
            changes.buses.changed.push(name);
        }
    }

    /// Adds and changes devices, on buses that run by now.
    fn change_devices(
        &mut self,
        gateway: &Gateway,
        tasks: &mut TaskGroups,
        access: &Arc<Access>,
        old: &Config,
        changes: &mut Changes,
    ) {
        let devices: Vec<Arc<config::Device>> = self.config.devices.values().cloned().map(Arc::new).collect();
        for device in &devices {
            let assigned = self.devices.contains_key(&device.id).then(|| self.assignment(device));
            let account = self.account(gateway, device, access);
            let Some((served, assignment)) = self.devices.get_mut(&device.id).zip(assigned) else {
                let after = self.leaving.remove(&device.id);
                gateway.shared.goes_on_with(&account, &device.id);
                self.add_device(gateway, tasks, access, device, Begin::After(after));
                changes.devices.added.push(device.id.clone());
                continue;
            };
            let is_changed = old.devices.get(&device.id) != Some(&**device);
            // That of its bus is a part of it.
            let is_configured_anew = served.assignment.borrow().configuration != assignment.configuration;
            if is_changed || is_configured_anew {
                served.hearing = events::listen(device, &assignment.bus, &served.news, &gateway.ledger);
                served.assignment.send_replace(Arc::new(assignment));
            }
            if is_changed {
                changes.devices.changed.push(device.id.clone());
            }
            if served.account.borrow().access.hub.host != account.access.hub.host {
                // At another hub, too, an earlier life may have left something, a moment ago.
                gateway.shared.goes_on_with(&account, &device.id);
            }
            served.account.send_if_modified(|present| {
                let ends_the_connection = !account.connects_as(present);
                *present = Arc::new(account);
                ends_the_connection
            });
        }
    }

    /// Nobody is given a bus that is not configured any more; who has a command on it ends that.
    fn let_buses_go(&mut self, changes: &mut Changes) {
        let configured = &self.config.buses;
        self.buses.retain(|name, running| {
            let stays = configured.contains_key(name);
            if !stays {
                running.let_go();
                changes.buses.removed.push(name.clone());
            }
            stays
        });
    }

    fn take_leave(&mut self, changes: &mut Changes) {
        let Registry { config, devices, leaving, .. } = self;
        devices.retain(|id, served| {
            let stays = config.devices.contains_key(id);
            if !stays {
                served.leave.cancel();
                leaving.insert(id.clone(), served.gone.clone());
                changes.devices.removed.push(id.clone());
            }
            stays
        });
    }
}

/// What a device's intake and executor take their work from: deliveries, and where to and from where jobs go.
type Queues = (queue::Receiver<Arrival>, queue::Sender<Job>, queue::Receiver<Job>);

/// Starts a device's three tasks. The last of them to end says that the device is gone.
fn start(
    tasks: &mut TaskGroups,
    context: &Context,
    (inbox, offer, jobs): Queues,
    link: Identity,
    begin: Begin,
    gone: CancellationToken,
) {
    let (id, leave, link_leaves) = (context.id.clone(), context.stop.clone(), link.stop.clone());
    let (left, after) = match begin {
        Begin::With(left) => (Some(left), None),
        Begin::After(after) => (None, after),
    };
    // The link ends when intake and executor have: what they settled is acknowledged still.
    let ends_link = Arc::new(link_leaves.clone().drop_guard());
    let intake = {
        let (context, ends_link) = (context.clone(), ends_link.clone());
        async move {
            context.run_intake(inbox, offer).await;
            drop(ends_link);
        }
    };
    let has_read = CancellationToken::new();
    let executor = {
        let (context, after, reads) = (context.clone(), after.clone(), has_read.clone().drop_guard());
        async move {
            let left = begin_with(&context, left, after).await;
            drop(reads);
            if let Some(left) = left {
                context.run_executor(left, jobs).await;
            }
            drop(ends_link);
        }
    };
    let is_gone = gone.drop_guard();
    let link = async move {
        // Even if it is to leave again meanwhile: who comes after it waits for all before.
        if let Some(after) = after {
            after.cancelled().await;
        }
        // What it accepts before is unfinished, too, and would be run twice.
        has_read.cancelled().await;
        link.run().await;
        drop(is_gone);
    };
    spawn(&mut tasks.executors, format!("intake of {id}"), leave.clone(), intake);
    spawn(&mut tasks.executors, format!("executor of {id}"), leave, executor);
    spawn(&mut tasks.links, format!("identity {id}"), link_leaves, link);
}

/// How long a ledger that another program holds is left alone.
const LOCKED_PAUSE: Duration = Duration::from_secs(1);

/// A device's unfinished commands, once nobody else has them in hand. `None`: it is to end before that.
async fn begin_with(
    context: &Context,
    left: Option<Vec<Unfinished>>,
    after: Option<CancellationToken>,
) -> Option<Vec<Unfinished>> {
    if left.is_some() {
        return left;
    }
    if let Some(after) = after {
        tokio::select! {
            () = context.stop.cancelled() => return None,
            () = after.cancelled() => {}
        }
    }
    loop {
        match context.ledger.unfinished(Some(&context.id)).await {
            Ok(mut left) => {
                // An operator's command of this life goes on by itself, whatever becomes of its device meanwhile.
                let is_operators = |one: &Unfinished| matches!(one.source, Source::Local { .. });
                left.retain(|one| !is_operators(one) || !context.ledger.is_of_this_life(one.row));
                return Some(left);
            }
            Err(LedgerError::Full(_) | LedgerError::Locked(_)) => {}
            // A ledger that can't be read ends the process.
            Err(_) => {
                context.stop.cancelled().await;
                return None;
            }
        }
        tokio::select! {
            () = context.stop.cancelled() => return None,
            () = context.ledger.well() => {}
        }
        tokio::time::sleep(LOCKED_PAUSE).await;
    }
}

/// The longest that any peripheral may owe an answer that could be taken for another's.
pub fn late_window(config: &Config) -> Duration {
    let windows = config.buses.iter().map(|(name, bus)| bus::late_window(bus, longest_timeout(config, name)));
    windows.max().unwrap_or_default()
}

/// The longest that any command on a bus waits for its answer.
pub fn longest_timeout(config: &Config, bus: &str) -> Duration {
    let devices = config.devices.values().filter(|device| device.bus == bus);
    let own = devices.flat_map(|device| {
        let commands = device.commands.values().filter_map(|command| command.timeout);
        commands.chain(device.patience.response_timeout)
    });
    own.chain([config.buses[bus].response_timeout]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::SystemLines;
    use crate::gateway::ways::Ways;
    use crate::hub::dial::{Dial, Dialing};
    use crate::hub::trouble::Trouble;
    use crate::ledger::disk::SystemDisk;
    use crate::ledger::{Ledger, Life};

    /// Rings when somebody wants to reach the hub.
    struct Bell(Notify);

    impl Dial for Bell {
        fn dial<'a>(&'a self, _: &'a str) -> Dialing<'a> {
            self.0.notify_one();
            Box::pin(async { Err(Trouble::Closed) })
        }
    }

    #[test]
    fn answers_may_be_late_by_what_the_slowest_command_or_device_of_a_line_needs() {
        let folder = tempfile::tempdir().unwrap();
        let main = folder.path().join("main.toml");
        std::fs::write(folder.path().join("k"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let longest = |device: &str, command: &str| {
            let text = format!(
                "[hub]\nhost = \"h.example\"\n[bus.b]\nkind = \"modbus-rtu\"\nport = \"/dev/ttyUSB0\"\nbaud = 9600\n\
                 [device.d]\nbus = \"b\"\nunit = 1\nprofile = \"p\"\nkey_file = \"k\"\n{device}\n\
                 [profile.p.command.c]\nread = {{ table = \"input\", address = 7 }}\n{command}\n"
            );
            std::fs::write(&main, text).unwrap();
            late_window(&config::load(&main, []).unwrap().config).as_secs()
        };
        assert_eq!(longest("", ""), 2);
        assert_eq!(longest("response_timeout = \"2s\"", ""), 8);
        assert_eq!(longest("response_timeout = \"2s\"", "timeout = \"20s\""), 22);
        assert_eq!(longest("response_timeout = \"30s\"", "timeout = \"20s\""), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_is_added_takes_no_message_before_its_unfinished_commands_were_read() {
        let folder = tempfile::tempdir().unwrap();
        let (main, path) = (folder.path().join("main.toml"), folder.path().join("ledger.db"));
        let text = "[hub]\nhost = \"localhost\"\naddress = \"localhost:1\"\ntls = false\n\
                    [bus.b]\nkind = \"modbus-tcp\"\naddress = \"127.0.0.1:1\"\n\
                    [device.d]\nbus = \"b\"\nunit = 1\nprofile = \"p\"\nkey_file = \"k\"\n\
                    [profile.p.command.c]\nread = { table = \"input\", address = 7 }\n";
        std::fs::write(folder.path().join("k"), "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        std::fs::write(&main, text).unwrap();
        let config = config::load(&main, []).unwrap().config;
        let (ledger, writing) =
            Ledger::open_on(Arc::new(SystemDisk), &path, &config.hub.host, Life::default()).unwrap();
        let (bell, ways) = (Arc::new(Bell(Notify::new())), Ways::since_the_start(&ledger, &config));
        let (reloads, _wishes) = tokio::sync::mpsc::channel(1);
        let source = Arc::new(crate::gateway::Files::new(main, Vec::new()));
        let gateway =
            Gateway::new(config.clone(), ledger, bell.clone(), Arc::new(SystemLines), (reloads, source), ways);
        let mut tasks = TaskGroups::default();
        let access = Arc::new(Access { hub: config.hub.clone(), trust: None });
        let device = Arc::new(config.devices["d"].clone());
        {
            let mut registry = gateway.registry();
            registry.add_bus(&gateway, &mut tasks, "b");
            registry.add_device(&gateway, &mut tasks, &access, &device, Begin::After(None));
        }
        // The ledger answers to nobody yet.
        let is_dialled = |within| tokio::time::timeout(Duration::from_secs(within), bell.0.notified());
        assert!(is_dialled(10).await.is_err());
        tokio::time::resume();
        writing.start().unwrap();
        assert!(is_dialled(60).await.is_ok());
    }
}
