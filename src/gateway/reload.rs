//! A new configuration for the running gateway: read and checked as a whole first, and taken up only then.
//!
//! Invariant: what is refused changes nothing.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{json, Value as Json};
use tokio::sync::oneshot;

use crate::certificate::Trust;
use crate::config::{self, Config, Fingerprints, Problem, Standing};
use crate::log::throttle::EACH;
use crate::operate::admin::Reply;
use crate::proof::crash::{self, Point};
use crate::systemd;

/// What is to become the configuration.
pub struct Reading {
    /// It, checked.
    pub config: Config,
    /// What is suspicious in it, but no error.
    pub notes: Vec<Problem>,
    /// TLS towards the hub, if it is reached with it.
    pub trust: Option<Trust>,
}

/// Why there is no new configuration: a sentence for each problem.
pub type Refusal = Vec<String>;

/// A configuration that is being read.
pub type Reads<'a> = Pin<Box<dyn Future<Output = Result<Reading, Refusal>> + Send + 'a>>;

/// Where the configuration comes from, each time that it is asked for.
pub trait Source: Send + Sync {
    /// Reads and checks everything.
    fn read(&self) -> Reads<'_>;

    /// What it is called, and which parts of it may be other ones than those that were read last.
    fn changed(&self) -> Looks<'_> {
        Box::pin(std::future::ready((String::new(), Vec::new())))
    }
}

/// A look at whether the configuration has changed.
pub type Looks<'a> = Pin<Box<dyn Future<Output = (String, Vec<String>)> + Send + 'a>>;

/// The files of a main configuration file, with this environment.
pub struct Files {
    main: PathBuf,
    environment: Vec<(String, String)>,
    /// As they were when they were read last.
    standing: Arc<Mutex<Standing>>,
}

impl Files {
    /// Of a main file that is about to be read, and the environment of the daemon.
    pub fn new(main: PathBuf, environment: Vec<(String, String)>) -> Files {
        let standing = Arc::new(Mutex::new(Standing::of(&main)));
        Files { main, environment, standing }
    }

    /// All that the configuration was read from.
    pub fn are_read(&self, files: &[PathBuf]) {
        locked(&self.standing).add(files);
    }
}

fn locked(standing: &Mutex<Standing>) -> MutexGuard<'_, Standing> {
    standing.lock().expect("nobody panics while holding how files stand")
}

impl Source for Files {
    fn read(&self) -> Reads<'_> {
        let (main, environment, standing) = (self.main.clone(), self.environment.clone(), self.standing.clone());
        // A thousand key files on a slow card take their time, and the buses must not wait for them.
        let read = move || {
            let told = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Refusal>();
            let mut as_read = Standing::of(&main);
            let loaded = config::load_telling(&main, environment);
            as_read.add(loaded.as_ref().map_or_else(|refused| &refused.files, |loaded| &loaded.files));
            *locked(&standing) = as_read;
            let loaded = loaded.map_err(|refused| told(refused.problems))?;
            let trust = trust(&loaded.config).map_err(|why| vec![why])?;
            Ok(Reading { config: loaded.config, notes: loaded.notes, trust })
        };
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(read).await;
            done.unwrap_or_else(|error| Err(vec![format!("the configuration could not be read: {error}")]))
        })
    }

    fn changed(&self) -> Looks<'_> {
        let (main, standing) = (self.main.clone(), locked(&self.standing).clone());
        let name = main.display().to_string();
        Box::pin(async move {
            // As many files as devices, on a slow card.
            let look = move || standing.changed(&main);
            let changed = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            (name, changed.iter().map(|file| file.display().to_string()).collect())
        })
    }
}

/// The trust anchors that a configuration names.
///
/// # Errors
/// What is wrong with them, in a sentence.
pub fn trust(config: &Config) -> Result<Option<Trust>, String> {
    let trust = config.hub.tls.then(|| Trust::load(config.hub.ca_file.as_deref())).transpose();
    trust.map_err(|why| why.to_string())
}

/// The reload in hand. One at a time: a wish that comes while the files are read has them read once more.
pub(super) struct Reload<'a> {
    source: &'a dyn Source,
    reading: Option<Reads<'a>>,
    again: bool,
    waiting: Vec<oneshot::Sender<Reply>>,
}

impl<'a> Reload<'a> {
    /// None yet.
    pub(super) fn of(source: &'a dyn Source) -> Self {
        Reload { source, reading: None, again: false, waiting: Vec::new() }
    }

    /// Reads the configuration; `wish`: who is to be told what came of it.
    pub(super) fn begin(&mut self, wish: Option<oneshot::Sender<Reply>>) {
        self.waiting.extend(wish);
        match self.reading {
            Some(_) => self.again = true,
            None => {
                tracing::info!(target: EACH, "reading the configuration anew");
                systemd::reloading();
                self.reading = Some(self.source.read());
            }
        }
    }

    /// Waits for what is being read. Cancel-safe.
    pub(super) async fn done(&mut self) -> Result<Reading, Refusal> {
        loop {
            let Some(reading) = &mut self.reading else { return std::future::pending().await };
            let read = reading.await;
            crash::point(Point::ConfigurationRead);
            self.reading = self.again.then(|| self.source.read());
            if !std::mem::take(&mut self.again) {
                return read;
            }
        }
    }

    /// Tells whoever waits for it what came of it.
    pub(super) fn tell(&mut self, reply: &Reply) {
        // Who has gone away does not want to know.
        self.waiting.drain(..).for_each(|waiting| drop(waiting.send(reply.clone())));
        systemd::ready();
    }
}

/// What a new configuration has changed, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Devices, by id.
    pub devices: Names,
    /// Buses, by name.
    pub buses: Names,
    /// What else.
    pub settings: Vec<&'static str>,
    /// What is taken up at the next start only.
    pub at_restart: Vec<&'static str>,
}

/// Names of one kind of thing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Those that are new.
    pub added: Vec<String>,
    /// Those that are gone.
    pub removed: Vec<String>,
    /// Those that stay, with other settings.
    pub changed: Vec<String>,
}

impl Names {
    fn between(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Names {
        let only_in = |some: &BTreeMap<String, String>, others: &BTreeMap<String, String>| {
            some.keys().filter(|name| !others.contains_key(*name)).cloned().collect()
        };
        let is_changed = |(name, print): &(&String, &String)| before.get(*name).is_some_and(|other| other != *print);
        let changed = after.iter().filter(is_changed).map(|(name, _)| name.clone()).collect();
        Names { added: only_in(after, before), removed: only_in(before, after), changed }
    }

    fn to_json(&self) -> Json {
        json!({ "added": self.added, "removed": self.removed, "changed": self.changed })
    }

    fn tell(&self, what: &str, told: &mut Vec<String>) {
        for (names, done) in [(&self.added, "added"), (&self.removed, "removed"), (&self.changed, "changed")] {
            if !names.is_empty() {
                told.push(format!("{what} {done}: {}", shown(names)));
            }
        }
    }
}

/// Names of a list that are shown.
const SHOWN_MAX: usize = 5;

fn shown(names: &[String]) -> String {
    let mut text = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX {
        text += &format!(" and {} more", names.len() - SHOWN_MAX);
    }
    text
}

impl Changes {
    /// Between what a daemon runs on and another configuration.
    pub fn between(before: &Fingerprints, after: &Fingerprints) -> Changes {
        let settings = [
            ("hub", before.hub != after.hub),
            ("provisioning", before.provisioning != after.provisioning),
            ("ledger", before.ledger != after.ledger),
        ];
        Changes {
            devices: Names::between(&before.devices, &after.devices),
            buses: Names::between(&before.buses, &after.buses),
            settings: settings.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect(),
            at_restart: Vec::new(),
        }
    }

    /// As `fieldbridge reload --json` prints it.
    pub fn to_json(&self, notes: &[Problem]) -> Json {
        json!({
            "devices": self.devices.to_json(),
            "buses": self.buses.to_json(),
            "settings": self.settings,
            "atRestart": self.at_restart,
            "notes": notes.iter().map(Problem::to_string).collect::<Vec<_>>(),
            "summary": self.to_string(),
        })
    }
}

impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut told = Vec::new();
        self.devices.tell("devices", &mut told);
        self.buses.tell("buses", &mut told);
        if !self.settings.is_empty() {
            told.push(format!("changed: {}", self.settings.join(", ")));
        }
        if !self.at_restart.is_empty() {
            told.push(format!("{} is taken up at the next start only", self.at_restart.join(", ")));
        }
        match told.is_empty() {
            true => f.write_str("nothing has changed"),
            false => f.write_str(&told.join("; ")),
        }
    }
}
