//! The daemon: opens everything in order, watches over it, takes up new configurations, stops it in order.
//!
//! Invariants
//! - The ledger is proven before anything connects.
//! - Every task is joined. One that ends before the stop ends the process: systemd begins anew, and the ledger knows
//!   what was on its way.
//! - A stop goes along the flow: no new commands, the one in hand to its outcome, its PUBACK to the hub, then buses,
//!   then the ledger.

mod assigning;
mod locking;
mod operators;
mod registry;
mod reload;
mod report;
mod seen;
mod ways;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{timeout, Instant};
use tokio_util::sync::CancellationToken;

pub use registry::{late_window, longest_timeout};
pub use reload::{trust, Changes, Files, Looks, Reading, Reads, Refusal, Source};

use crate::bus::{Lines, Owed, SystemLines};
use crate::certificate::Trust;
use crate::config::Config;
use crate::device::{lockout, Context, Intervals, Lockouts, Receipts};
use crate::exit::Exit;
use crate::handles::{self, Places};
use crate::health::meters::Histogram;
use crate::health::pulse;
use crate::hub::account::Access;
use crate::hub::dial::{Dial, Network};
use crate::hub::pace::Shared;
use crate::hub::transport::Rest;
use crate::hub::transports::{self, Transports};
use crate::ledger::row::Unfinished;
use crate::ledger::{Ledger, Legacy, Life, Locked};
use crate::log::throttle::EACH;
use crate::log::{self, events};
use crate::operate::admin::server::{self, Unbound};
use crate::operate::admin::Reply;
use crate::proof::crash::{self, Point};
use crate::systemd::{self, Demand, Demands, Signals};
use crate::telemetry::Store;
use crate::view::Views;
use assigning::Assigning;
use registry::{by_device, Begin, Registry};
use reload::Reload;
use seen::Stock;
use ways::Ways;

/// How long links get to acknowledge what was settled, and buses to end their exchange. The longest exchange is
/// bounded by its timeout.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Operators who wait for a new configuration to be taken up.
const RELOADS_MAX: usize = 4;
/// Commands of operators that run or wait for their bus at the same time.
const EXECUTIONS_MAX: u32 = 16;

/// What the daemon is made of.
struct Gateway {
    ledger: Ledger,
    shared: Arc<Shared>,
    /// Which hubs devices were assigned to.
    assigning: Assigning,
    lines: Arc<dyn Lines>,
    /// What the units at each port may still answer.
    owed: Owed,
    registry: Mutex<Registry>,
    /// Places for operators' commands.
    executions: Arc<Semaphore>,
    /// When messages came first: it outlives connections, and devices that leave and come back.
    receipts: Arc<Receipts>,
    /// Which devices are locked, whether they are configured or not.
    lockouts: Arc<Lockouts>,
    intervals: Arc<Intervals>,
    /// What polls have read, until the hub has it.
    telemetry: Store,
    /// From a message's first receipt to its settlement.
    completion: Arc<Histogram>,
    /// What lay in the ledger when that was last counted for those who look.
    stock: Mutex<Stock>,
    views: watch::Sender<Views>,
    retention: watch::Sender<Duration>,
    ways: Ways,
    /// Operators' wishes for a new configuration.
    reloads: mpsc::Sender<oneshot::Sender<Reply>>,
    /// Where that comes from.
    source: Arc<dyn Source>,
    started: Instant,
    stops: Stops,
}

/// The order of a stop.
struct Stops {
    /// No command is begun any more.
    executors: CancellationToken,
    /// What is settled is acknowledged, and identities take leave of the hub.
    links: CancellationToken,
    buses: CancellationToken,
    helpers: CancellationToken,
}

/// A task has ended.
struct Ended {
    name: String,
    /// Whether it was to.
    wanted: bool,
}

/// Tasks of one kind.
type Tasks = JoinSet<Ended>;

/// Everything that runs.
#[derive(Default)]
struct TaskGroups {
    /// Devices' intakes, too.
    executors: Tasks,
    /// One for each identity: its link to the hub.
    links: Tasks,
    buses: Tasks,
    helpers: Tasks,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Whatever keeps it from running, with its exit status.
pub async fn run(config: Config, files: Files) -> Result<(), Exit> {
    let ways = transports::ways(config.devices.values());
    let life = Life { ways: &ways, late_window: late_window(&config) };
    let ledger = Ledger::open_for(&config.ledger.path, &config.hub.host, life)?;
    let prepare = || {
        let world = World::of_the_system(&config, files)?;
        let signals = Signals::new().map_err(|error| Exit::Internal(format!("no signal handlers: {error}")))?;
        Ok((world, signals))
    };
    match prepare() {
        Ok((world, signals)) => run_in(world, config, ledger, signals).await,
        Err(exit) => {
            ledger.close_after_a_fault().await;
            Err(exit)
        }
    }
}

/// Runs the daemon on an open ledger until it is told to stop, and closes the ledger.
///
/// # Errors
/// Whatever keeps it from running on, with its exit status.
pub async fn run_in(world: World, config: Config, ledger: Ledger, demands: impl Demands) -> Result<(), Exit> {
    let ended = serve(config, ledger.clone(), world, demands).await;
    match ended {
        Ok(left) => ledger.close_leaving(left).await,
        Err(_) => ledger.close_after_a_fault().await,
    }
    crash::point(Point::LedgerClosed);
    ended.map(|_| ())
}

/// What the gateway reaches the outside through: the system, unless a simulation stands in for it.
pub struct World {
    /// The way to the hub.
    pub dial: Arc<dyn Dial>,
    /// TLS towards the hub.
    pub trust: Option<Trust>,
    /// The ways to the peripherals.
    pub lines: Arc<dyn Lines>,
    /// Where operators are answered.
    pub operators: Option<UnixListener>,
    /// Where new configurations come from.
    pub source: Arc<dyn Source>,
}

impl World {
    fn of_the_system(config: &Config, files: Files) -> Result<World, Exit> {
        let trust = reload::trust(config).map_err(match config.hub.ca_file {
            Some(_) => Exit::Setup,
            // The system's store may be whole again at the next start.
            None => Exit::Surroundings,
        })?;
        let operators = server::bind(&config.admin_socket).map_err(|unbound| match unbound {
            Unbound::Lasting(why) => Exit::Setup(why.to_string()),
            Unbound::Passing(why) => Exit::Surroundings(why.to_string()),
        })?;
        let (dial, lines) = (Arc::new(Network), Arc::new(SystemLines));
        Ok(World { dial, trust, lines, operators: Some(operators), source: Arc::new(files) })
    }
}

/// Serves until it is told to stop. Tells what is left then for the next daemon to wait for.
async fn serve(config: Config, ledger: Ledger, world: World, mut demands: impl Demands) -> Result<Legacy, Exit> {
    let World { dial, trust, lines, operators, source } = world;
    let left = by_device(ledger.unfinished(None).await?);
    crash::point(Point::UnfinishedRead);
    let mut tasks = TaskGroups::default();
    let (reloads, mut wishes) = mpsc::channel(RELOADS_MAX);
    let ways = Ways::since_the_start(&ledger, &config);
    let gateway = Arc::new(Gateway::new(config, ledger, dial, lines, (reloads, source.clone()), ways));
    gateway.start(trust, left, operators, &mut tasks);
    crash::point(Point::BeforeReady);
    systemd::ready();
    gateway.tell_ready();
    let mut ledger_health = gateway.ledger.health();
    let mut reload = Reload::of(&*source);
    let end = loop {
        tokio::select! {
            demand = demands.next() => match demand {
                Demand::Stop(reason) => {
                    crash::point(Point::StopAsked);
                    tracing::info!(reason, "stopping: commands on the wire are finished first");
                    break Ok(());
                }
                Demand::Reload => reload.begin(None),
            },
            Some(wish) = wishes.recv() => reload.begin(Some(wish)),
            read = reload.done() => {
                let reply = gateway.take_up(read, &mut tasks);
                reload.tell(&reply);
            }
            failed = ledger_health.wait_for(|health| health.failed.is_some()) => break Err(Exit::Ledger(match failed {
                Ok(health) => health.failed.clone().unwrap_or_default(),
                Err(_) => "the ledger's writer has ended".into(),
            })),
            exit = tasks.first_end() => break Err(exit),
        }
    };
    systemd::stopping();
    end?;
    let in_order = stop(&gateway, tasks).await;
    tracing::info!(name: events::STOPPED, "stopped");
    let rest = gateway.shared.rest();
    Ok(Legacy {
        // Also those of a bus that this life had no more.
        owed: !in_order || gateway.owed.is_any() || gateway.ledger.is_in_earlier_late_window(),
        locked: match rest {
            _ if !in_order => Locked::Something,
            Rest::Nothing => Locked::Nothing,
            Rest::ForOthers => Locked::ForOthers,
            Rest::Doubtful | Rest::Locked => Locked::Something,
        },
        by_any_way: rest == Rest::Locked,
    })
}

/// Stops along the flow. After a fault there is no order to keep: dropping the sets ends everything at its next
/// await, and the ledger knows.
async fn stop(gateway: &Gateway, mut tasks: TaskGroups) -> bool {
    let stops = &gateway.stops;
    // A device's link ends when its executor has; whoever is left after that is told so here.
    stops.executors.cancel();
    let executors_ended = join("executors", &mut tasks.executors).await;
    // Whoever has all places knows that no operator's command is under way.
    let executed = timeout(STOP_PATIENCE, gateway.executions.acquire_many(EXECUTIONS_MAX)).await;
    if executed.is_err() {
        tracing::warn!("a command of an operator did not end in time; the ledger knows what was on its way");
    }
    // Whoever comes next may lock devices by the file.
    gateway.lockouts.close().await;
    crash::point(Point::ExecutorsEnded);
    stops.links.cancel();
    let links_ended = join("links", &mut tasks.links).await;
    crash::point(Point::LinksEnded);
    stops.buses.cancel();
    let buses_ended = join("buses", &mut tasks.buses).await;
    crash::point(Point::BusesEnded);
    gateway.telemetry.finish().await;
    stops.helpers.cancel();
    executors_ended && executed.is_ok() && links_ended && buses_ended
}

async fn join(what: &str, tasks: &mut Tasks) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    let ended = timeout(STOP_PATIENCE, all).await.is_ok();
    if !ended {
        tracing::warn!("{what}: {} did not stop in time; the ledger knows what was on its way", tasks.len());
    }
    ended
}

impl TaskGroups {
    /// Waits for a task that ends without being told to.
    async fn first_end(&mut self) -> Exit {
        loop {
            let ended = tokio::select! {
                Some(ended) = self.executors.join_next() => ended,
                Some(ended) = self.links.join_next() => ended,
                Some(ended) = self.buses.join_next() => ended,
                Some(ended) = self.helpers.join_next() => ended,
            };
            return Exit::Internal(match ended {
                Ok(Ended { wanted: true, name }) => {
                    tracing::debug!(name, "has ended, as it was to");
                    continue;
                }
                Ok(Ended { name, .. }) => format!("{name} has ended by itself"),
                Err(error) => error.to_string(),
            });
        }
    }
}

impl Gateway {
    fn new(
        config: Config,
        ledger: Ledger,
        dial: Arc<dyn Dial>,
        lines: Arc<dyn Lines>,
        (reloads, source): (mpsc::Sender<oneshot::Sender<Reply>>, Arc<dyn Source>),
        ways: Ways,
    ) -> Gateway {
        let (retention, views) = (watch::Sender::new(config.ledger.retention), watch::Sender::new(Views::of(&config)));
        let stops = Stops {
            executors: CancellationToken::new(),
            links: CancellationToken::new(),
            buses: CancellationToken::new(),
            helpers: CancellationToken::new(),
        };
        let places = Places::new(handles::for_hub(handles::limit(), config.other_handles()));
        let pace = Arc::default();
        let transports = Arc::new(Transports::over(&dial, &pace, &places));
        let shared = Arc::new(Shared::new(transports, pace, places, ways.crash()));
        let telemetry = Store::new(config.telemetry.clone());
        let assigning = Assigning::beside(&config, dial);
        let lockouts = Arc::new(Lockouts::at(lockout::path_beside(&config.ledger.path)));
        let registry = Mutex::new(Registry::new(config));
        let (receipts, executions) = (Arc::default(), Arc::new(Semaphore::new(EXECUTIONS_MAX as usize)));
        let (started, owed) = (Instant::now(), Owed::default());
        Gateway {
            ledger,
            shared,
            assigning,
            lines,
            owed,
            registry,
            executions,
            receipts,
            lockouts,
            intervals: Arc::default(),
            telemetry,
            completion: Arc::default(),
            stock: Mutex::default(),
            views,
            retention,
            ways,
            reloads,
            source,
            started,
            stops,
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().expect("nobody panics while holding the registry")
    }

    /// Starts everything.
    fn start(
        self: &Arc<Self>,
        trust: Option<Trust>,
        mut left: BTreeMap<String, Vec<Unfinished>>,
        operators: Option<UnixListener>,
        tasks: &mut TaskGroups,
    ) {
        let mut registry = self.registry();
        let config = registry.config.clone();
        for name in config.buses.keys() {
            registry.add_bus(self, tasks, name);
        }
        let access = Arc::new(Access { hub: config.hub, trust });
        let mut locked_until = None;
        for device in config.devices.into_values().map(Arc::new) {
            let account = registry.account(self, &device, &access);
            self.shared.begins_with(&account, &device.id);
            locked_until = locked_until.max(self.shared.locked_until(&account, &device.id));
            let left = left.remove(&device.id).unwrap_or_default();
            registry.add_device(self, tasks, &access, &device, Begin::With(left));
        }
        for (device, left) in &left {
            tracing::warn!(%device, commands = left.len(), "unfinished commands of a device that is no longer configured stay in the ledger");
        }
        registry.let_poll(self);
        drop(registry);
        if let Some(until) = locked_until {
            let seconds = until.saturating_duration_since(self.started).as_secs();
            tracing::info!(
                seconds,
                "devices whose messages the hub may keep locked since the last run connect after that"
            );
        }
        self.spawn_helpers(tasks);
        self.assign(tasks);
        self.let_look(tasks);
        if let Some(listener) = operators {
            self.serve_operators(listener, tasks);
        }
    }

    fn tell_ready(&self) {
        let registry = self.registry();
        tracing::info!(
            name: events::READY,
            version = env!("CARGO_PKG_VERSION"),
            hub = %registry.hub_host(),
            devices = registry.devices.len(),
            buses = registry.buses.len(),
            "ready"
        );
    }

    /// Takes up a configuration that was read, if it is good.
    fn take_up(self: &Arc<Self>, read: Result<Reading, Refusal>, tasks: &mut TaskGroups) -> Reply {
        let mut registry = self.registry();
        let Reading { config, notes, trust } = match read {
            Ok(reading) => reading,
            Err(problems) => {
                problems.iter().for_each(|problem| tracing::error!(target: EACH, "{problem}"));
                tracing::error!(name: events::CONFIGURATION_REFUSED, target: EACH, "the new configuration has errors and changes nothing; the one before stays in force");
                registry.refused = problems.first().cloned();
                return Reply::Error(problems.join("\n"));
            }
        };
        let listener = match config.admin_socket == registry.config.admin_socket {
            true => None,
            false => match server::bind(&config.admin_socket) {
                Ok(listener) => Some(listener),
                Err(unbound) => {
                    let why = unbound.to_string();
                    tracing::error!(name: events::CONFIGURATION_REFUSED, target: EACH, "{why}; the new configuration changes nothing, the one before stays in force");
                    registry.refused = Some(why.clone());
                    return Reply::Error(why);
                }
            },
        };
        notes.iter().for_each(|note| tracing::warn!(target: EACH, "{note}"));
        let access = Arc::new(Access { hub: config.hub.clone(), trust });
        self.retention.send_replace(config.ledger.retention);
        let socket_before = registry.config.admin_socket.clone();
        self.shared.set_connections_max(handles::for_hub(handles::limit(), config.other_handles()));
        self.ways.change(&config);
        let changes = registry.change(self, tasks, &access, config);
        self.assigning.look_again();
        registry.refused = None;
        drop(registry);
        if let Some(listener) = listener {
            self.serve_operators(listener, tasks);
            // Nobody listens there any more. One that stays is taken for a dead daemon's.
            let _ = std::fs::remove_file(socket_before);
        }
        crash::point(Point::ConfigurationTakenUp);
        tracing::info!(name: events::CONFIGURATION_CHANGED, target: EACH, "the new configuration is in force: {changes}");
        Reply::Ok(changes.to_json(&notes))
    }

    fn spawn_helpers(self: &Arc<Self>, tasks: &mut TaskGroups) {
        let (ledger, retention) = (self.ledger.clone(), self.retention.subscribe());
        let stop = &self.stops.helpers;
        spawn_helper(tasks, "ledger keeper", stop.clone(), async move { ledger.keep(retention).await });
        spawn_helper(tasks, "log", stop.clone(), log::report());
        let telemetry = self.telemetry.clone();
        spawn_helper(tasks, "telemetry", stop.clone(), async move { telemetry.keep().await });
        let (ledger, ways) = (self.ledger.clone(), self.ways.to_be_noted());
        spawn_helper(tasks, "ways", stop.clone(), ways.note(ledger));
        let gateway = self.clone();
        spawn_helper(tasks, "status line", stop.clone(), async move { gateway.report_status().await });
        if let Some(period) = systemd::watchdog_period() {
            let gateway = self.clone();
            spawn_helper(tasks, "watchdog", stop.clone(), async move { gateway.feed_watchdog(period).await });
        }
    }

    /// Answers operators at a socket, for as long as the configuration names it.
    fn serve_operators(self: &Arc<Self>, listener: UnixListener, tasks: &mut TaskGroups) {
        let gateway = self.clone();
        let answer = move |operator, request| {
            let gateway = gateway.clone();
            async move { gateway.answer(operator, request).await }
        };
        let stop = self.stops.helpers.child_token();
        let before = self.registry().operators.replace(stop.clone());
        before.inspect(CancellationToken::cancel);
        spawn_helper(tasks, "admin socket", stop, server::serve(listener, answer));
    }

    fn context(&self, device: &str) -> Option<Context> {
        Some(self.registry().devices.get(device)?.context.clone())
    }

    /// Feeds systemd's watchdog as long as every part makes progress.
    async fn feed_watchdog(&self, period: Duration) {
        let mut ticks = tokio::time::interval(period);
        loop {
            ticks.tick().await;
            match self.stuck().await {
                None => systemd::alive(),
                Some(what) => {
                    tracing::error!(name: events::STUCK, "{what} is stuck: systemd's watchdog is not fed, so that the daemon begins anew")
                }
            }
        }
    }

    /// A part that has not moved in time.
    async fn stuck(&self) -> Option<String> {
        // One that answers with an error is at its end, and ends the process by itself.
        if timeout(pulse::PATIENCE, self.ledger.is_alive()).await.is_err() {
            return Some("the ledger".into());
        }
        let registry = self.registry();
        let devices = registry.devices.iter().map(|(id, served)| ("the identity", id, served.health.pulse.overdue()));
        let buses = registry.buses.iter().map(|(name, running)| ("bus", name, running.handle.pulse().overdue()));
        let stuck = devices.chain(buses).find_map(|(kind, name, overdue)| Some((kind, name, overdue?)));
        stuck.map(|(kind, name, overdue)| format!("{kind} {name} ({} s overdue)", overdue.as_secs()))
    }
}

/// Has a task run that knows of no end, until `stop`.
fn spawn_helper(
    tasks: &mut TaskGroups,
    name: &str,
    stop: CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let until_stopped = {
        let stop = stop.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        }
    };
    spawn(&mut tasks.helpers, name.to_owned(), stop, until_stopped);
}

/// Has a task run. Its end is a fault unless `leave` was cancelled.
fn spawn(tasks: &mut Tasks, name: String, leave: CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    // An async block that awaits what it has captured would have room for it twice.
    let task = work.map(move |()| Ended { name, wanted: leave.is_cancelled() });
    #[cfg(feature = "proof")]
    let task = crate::time::simulated::Mortal::new(task);
    tasks.spawn(task);
}
