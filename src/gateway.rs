//! The daemon: opens everything in order, watches over it, stops it in order.
//!
//! Invariants
//! - The ledger is proven before anything connects.
//! - Every task is joined. One that ends before the stop ends the process: systemd begins anew, and the ledger knows
//!   what was on its way.
//! - A stop goes along the flow: no new commands, the one in hand to its outcome, its PUBACK to the hub, then buses,
//!   then the ledger.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value as Json};
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{timeout, Instant};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, server, Operator, Reply};
use crate::bus::{self, BusHandle, Lines, SystemLines};
use crate::clock::Timestamp;
use crate::config::{Config, Device};
use crate::crash::{self, Point};
use crate::fatal::Fatal;
use crate::health::{DeviceHealth, LinkState};
use crate::hub::dial::{Dial, Network};
use crate::hub::link::{Link, Shared};
use crate::hub::tls::Trust;
use crate::lane::{self, Station};
use crate::ledger::row::Unfinished;
use crate::ledger::Ledger;
use crate::local;
use crate::logging;
use crate::service::{self, Signals};

/// How long links get to acknowledge what was settled, and buses to end their exchange. The longest exchange is
/// bounded by its timeout.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How often the status line is written, if it has changed.
const STATUS_PERIOD: Duration = Duration::from_secs(2);

/// What the daemon is made of.
struct Gateway {
    config: Config,
    ledger: Ledger,
    devices: BTreeMap<String, Arc<Device>>,
    health: BTreeMap<String, Arc<DeviceHealth>>,
    buses: BTreeMap<String, BusHandle>,
    started: Instant,
    /// No command is begun any more.
    stop: CancellationToken,
}

/// The order of a stop.
struct Stops {
    lanes: CancellationToken,
    links: CancellationToken,
    buses: CancellationToken,
    helpers: CancellationToken,
}

/// Tasks of one kind; each gives its name when it ends.
type Tasks = JoinSet<String>;

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Whatever keeps it from running, with its exit status.
pub async fn run(config: Config) -> Result<(), Fatal> {
    let ledger = Ledger::open(&config.ledger.path)?;
    let prepare = || {
        let world = World::of_the_system(&config)?;
        let signals = Signals::new().map_err(|error| Fatal::Internal(format!("no signal handlers: {error}")))?;
        Ok((world, signals))
    };
    match prepare() {
        Ok((world, mut signals)) => run_in(world, config, ledger, signals.stop()).await,
        Err(fatal) => {
            ledger.close_after_a_fault().await;
            Err(fatal)
        }
    }
}

/// Runs the daemon on an open ledger until `stop` gives the reason to stop, and closes the ledger.
///
/// # Errors
/// Whatever keeps it from running on, with its exit status.
pub async fn run_in(
    world: World,
    config: Config,
    ledger: Ledger,
    stop: impl Future<Output = &'static str>,
) -> Result<(), Fatal> {
    let ended = serve(config, ledger.clone(), world, stop).await;
    match ended {
        Ok(true) => ledger.close().await,
        _ => ledger.close_after_a_fault().await,
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
}

impl World {
    fn of_the_system(config: &Config) -> Result<World, Fatal> {
        let trust = match config.hub.tls {
            true => Some(Trust::load(config.hub.ca_file.as_deref()).map_err(match config.hub.ca_file {
                Some(_) => Fatal::Setup,
                // The system's store may be whole again at the next start.
                None => Fatal::Surroundings,
            })?),
            false => None,
        };
        let operators = server::bind(&config.admin_socket).map_err(Fatal::Setup)?;
        Ok(World { dial: Arc::new(Network), trust, lines: Arc::new(SystemLines), operators: Some(operators) })
    }
}

/// Serves until `stop_reason` comes. Tells whether everything has stopped in order then.
async fn serve(
    config: Config,
    ledger: Ledger,
    world: World,
    stop_reason: impl Future<Output = &'static str>,
) -> Result<bool, Fatal> {
    let mut left = by_device(ledger.unfinished().await?);
    crash::point(Point::UnfinishedRead);
    let stops = Stops {
        lanes: CancellationToken::new(),
        links: CancellationToken::new(),
        buses: CancellationToken::new(),
        helpers: CancellationToken::new(),
    };
    let (mut lanes, mut links, mut buses, mut helpers) = (Tasks::new(), Tasks::new(), Tasks::new(), Tasks::new());
    let gateway = Arc::new(Gateway::build(config, ledger, &world.lines, &stops, &mut buses));
    let shared = Arc::new(Shared::new(gateway.config.hub.clone(), world.trust, world.dial));
    for device in gateway.devices.values() {
        let left = left.remove(&device.id).unwrap_or_default();
        gateway.spawn_device(device, left, &shared, &stops, &mut lanes, &mut links);
    }
    for (device, left) in &left {
        tracing::warn!(%device, commands = left.len(), "unfinished commands of a device that is no longer configured stay in the ledger");
    }
    gateway.spawn_helpers(world.operators, &stops, &mut helpers);
    crash::point(Point::BeforeReady);
    service::ready();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        hub = %gateway.config.hub.host,
        devices = gateway.devices.len(),
        buses = gateway.buses.len(),
        "ready"
    );
    let mut ledger_health = gateway.ledger.health();
    let end = tokio::select! {
        reason = stop_reason => {
            crash::point(Point::StopAsked);
            tracing::info!(reason, "stopping: commands on the wire are finished first");
            Ok(())
        }
        failed = ledger_health.wait_for(|health| health.failed.is_some()) => Err(Fatal::Ledger(match failed {
            Ok(health) => health.failed.clone().unwrap_or_default(),
            Err(_) => "the ledger's writer has ended".into(),
        })),
        fatal = first_end(&mut lanes, &mut links, &mut buses, &mut helpers) => Err(fatal),
    };
    service::stopping();
    end?;
    let in_order = stop(&stops, lanes, links, buses).await;
    tracing::info!("stopped");
    Ok(in_order)
}

/// Stops along the flow. After a fault there is no order to keep: dropping the sets ends everything at its next
/// await, and the ledger knows.
async fn stop(stops: &Stops, mut lanes: Tasks, mut links: Tasks, mut buses: Tasks) -> bool {
    stops.lanes.cancel();
    let lanes_ended = join("lanes", &mut lanes).await;
    crash::point(Point::LanesEnded);
    stops.links.cancel();
    join("links", &mut links).await;
    crash::point(Point::LinksEnded);
    stops.buses.cancel();
    let buses_ended = join("buses", &mut buses).await;
    crash::point(Point::BusesEnded);
    stops.helpers.cancel();
    lanes_ended && buses_ended
}

async fn join(what: &str, tasks: &mut Tasks) -> bool {
    let all = async { while tasks.join_next().await.is_some() {} };
    let ended = timeout(STOP_PATIENCE, all).await.is_ok();
    if !ended {
        tracing::warn!("{what}: {} did not stop in time; the ledger knows what was on its way", tasks.len());
    }
    ended
}

/// Waits for a task that ends without being told to.
async fn first_end(lanes: &mut Tasks, links: &mut Tasks, buses: &mut Tasks, helpers: &mut Tasks) -> Fatal {
    let ended = tokio::select! {
        Some(ended) = lanes.join_next() => ended,
        Some(ended) = links.join_next() => ended,
        Some(ended) = buses.join_next() => ended,
        Some(ended) = helpers.join_next() => ended,
    };
    Fatal::Internal(match ended {
        Ok(name) => format!("{name} has ended by itself"),
        Err(error) => error.to_string(),
    })
}

/// The longest that any command on a bus waits for its answer.
fn longest_timeout(config: &Config, bus: &str) -> Duration {
    let devices = config.devices.values().filter(|device| device.bus == bus);
    let commands = devices.flat_map(|device| device.commands.values().filter_map(|command| command.timeout));
    commands.chain([config.buses[bus].response_timeout]).max().unwrap_or_default()
}

fn by_device(unfinished: Vec<Unfinished>) -> BTreeMap<String, Vec<Unfinished>> {
    let mut left = BTreeMap::<String, Vec<Unfinished>>::new();
    for command in unfinished {
        left.entry(command.device.clone()).or_default().push(command);
    }
    left
}

impl Gateway {
    fn build(config: Config, ledger: Ledger, lines: &Arc<dyn Lines>, stops: &Stops, tasks: &mut Tasks) -> Gateway {
        let mut buses = BTreeMap::new();
        for (name, settings) in &config.buses {
            let (handle, worker) = bus::new(name, settings);
            buses.insert(name.clone(), handle);
            let worker = worker.on(lines.clone());
            let worker = match ledger.ended_well() {
                true => worker,
                false => worker.after_an_earlier_life(longest_timeout(&config, name)),
            };
            spawn(tasks, format!("bus {name}"), worker.run(stops.buses.clone()));
        }
        let devices = config.devices.iter().map(|(id, device)| (id.clone(), Arc::new(device.clone()))).collect();
        let health = config
            .devices
            .iter()
            .map(|(id, device)| (id.clone(), Arc::new(DeviceHealth::new(id, &device.bus))))
            .collect();
        Gateway { config, ledger, devices, health, buses, started: Instant::now(), stop: stops.lanes.clone() }
    }

    fn spawn_device(
        &self,
        device: &Arc<Device>,
        left: Vec<Unfinished>,
        shared: &Arc<Shared>,
        stops: &Stops,
        lanes: &mut Tasks,
        links: &mut Tasks,
    ) {
        let event_bell = Arc::new(Notify::new());
        let health = self.health[&device.id].clone();
        let (deliveries, inbox, offer, jobs) = lane::channels();
        let station = Station {
            device: device.clone(),
            ledger: self.ledger.clone(),
            bus: self.buses[&device.bus].clone(),
            health: health.clone(),
            event_bell: event_bell.clone(),
            stop: stops.lanes.clone(),
        };
        spawn(lanes, format!("intake of {}", device.id), station.clone().run_intake(inbox, offer));
        spawn(lanes, format!("lane of {}", device.id), station.run_lane(left, jobs));
        let link = Link {
            shared: shared.clone(),
            device: device.clone(),
            deliveries,
            ledger: self.ledger.clone(),
            event_bell,
            health,
            stop: stops.links.clone(),
        };
        spawn(links, format!("link of {}", device.id), link.run());
    }

    fn spawn_helpers(self: &Arc<Self>, operators: Option<UnixListener>, stops: &Stops, tasks: &mut Tasks) {
        let (ledger, retention) = (self.ledger.clone(), self.config.ledger.retention);
        let until_stopped = |stop: CancellationToken, work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        };
        let helper = |work| until_stopped(stops.helpers.clone(), work);
        spawn(tasks, "ledger keeper".into(), helper(Box::pin(async move { ledger.keep(retention).await })));
        spawn(tasks, "log".into(), helper(Box::pin(logging::report())));
        let gateway = self.clone();
        spawn(tasks, "status line".into(), helper(Box::pin(async move { gateway.report_status().await })));
        if let Some(period) = service::watchdog_period() {
            let gateway = self.clone();
            spawn(tasks, "watchdog".into(), helper(Box::pin(async move { gateway.feed_watchdog(period).await })));
        }
        let Some(listener) = operators else { return };
        let gateway = self.clone();
        let answer = move |operator, request| {
            let gateway = gateway.clone();
            async move { gateway.answer(operator, request).await }
        };
        spawn(tasks, "admin socket".into(), helper(Box::pin(server::serve(listener, answer))));
    }

    async fn answer(&self, operator: Operator, request: admin::Request) -> Reply {
        match request {
            admin::Request::Status {} => Reply::Ok(self.status().await),
            admin::Request::Exec { device, command, value } => {
                let Some(device) = self.devices.get(&device) else {
                    return Reply::Error(format!("no device is called {device:?}"));
                };
                let bus = &self.buses[&device.bus];
                tracing::info!(device = %device.id, command, uid = operator.uid, "a local operator asks for a command");
                local::execute(device, bus, &self.ledger, &self.stop, &command, value.as_ref()).await
            }
        }
    }

    async fn status(&self) -> Json {
        let health = self.ledger.health().borrow().clone();
        let (rows, pending) = self.ledger.counts().await.unwrap_or((0, 0));
        let doubt = self.ledger.belief().now().err();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeSeconds": self.started.elapsed().as_secs(),
            "clock": {
                "ok": doubt.is_none(), "now": Timestamp::now().to_string(), "lastError": doubt.map(|doubt| doubt.to_string())
            },
            "hub": { "host": self.config.hub.host, "connected": self.connected(), "identities": self.devices.len() },
            "devices": self.health.values().map(|device| device.to_json()).collect::<Vec<_>>(),
            "buses": self.buses.values().map(|bus| bus.status().to_json()).collect::<Vec<_>>(),
            "ledger": { "ok": health.ok, "rows": rows, "lastError": health.last_error },
            "outbox": { "pending": pending },
        })
    }

    fn connected(&self) -> usize {
        self.health.values().filter(|device| device.link() == LinkState::Connected).count()
    }

    async fn report_status(&self) {
        let mut told = String::new();
        let mut period = tokio::time::interval(STATUS_PERIOD);
        loop {
            period.tick().await;
            let line = self.status_line();
            if line != told {
                service::status(&line);
                told = line;
            }
        }
    }

    fn status_line(&self) -> String {
        let open = self.buses.values().filter(|bus| bus.status().is_open()).count();
        let in_doubt: u64 = self.health.values().map(|device| device.in_doubt.get()).sum();
        let ledger = match self.ledger.is_well() {
            true => "",
            false => ", THE LEDGER CAN'T BE WRITTEN",
        };
        let doubt = self.ledger.belief().now().err();
        let clock = doubt.map(|doubt| format!(", {}", doubt.in_short().to_uppercase())).unwrap_or_default();
        format!(
            "{} of {} identities connected, {open} of {} buses open, {in_doubt} commands in doubt since the start{ledger}{clock}",
            self.connected(),
            self.devices.len(),
            self.buses.len(),
        )
    }

    /// Feeds systemd's watchdog as long as this thread and the ledger's make progress.
    async fn feed_watchdog(&self, period: Duration) {
        let mut period = tokio::time::interval(period);
        loop {
            period.tick().await;
            if self.ledger.is_alive().await {
                service::alive();
            }
        }
    }
}

fn spawn(tasks: &mut Tasks, name: String, work: impl Future<Output = ()> + Send + 'static) {
    let task = async move {
        work.await;
        name
    };
    #[cfg(feature = "proof")]
    let task = crate::simulated::Mortal::new(task);
    tasks.spawn(task);
}
