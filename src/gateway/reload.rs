//! A new configuration for the running gateway: read and checked as a whole first, and taken up only then.
//!
//! Invariant: what is refused changes nothing.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use serde_json::{json, Value as Json};
use tokio::sync::oneshot;

use crate::certificate::Trust;
use crate::config::{self, Config, Problem};
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
}

/// The files of a main configuration file, with this environment.
pub struct Files {
    /// The main file.
    pub main: PathBuf,
    /// The environment, as it was when the daemon began.
    pub environment: Vec<(String, String)>,
}

impl Source for Files {
    fn read(&self) -> Reads<'_> {
        let (main, environment) = (self.main.clone(), self.environment.clone());
        // A thousand key files on a slow card take their time, and the buses must not wait for them.
        let read = move || {
            let told = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect::<Refusal>();
            let loaded = config::load(&main, environment).map_err(told)?;
            let trust = trust(&loaded.config).map_err(|why| vec![why])?;
            Ok(Reading { config: loaded.config, notes: loaded.notes, trust })
        };
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(read).await;
            done.unwrap_or_else(|error| Err(vec![format!("the configuration could not be read: {error}")]))
        })
    }
}

/// The trust anchors that a configuration names.
pub(super) fn trust(config: &Config) -> Result<Option<Trust>, String> {
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
pub(super) struct Changes {
    pub(super) devices: Names,
    pub(super) buses: Names,
    /// What else.
    pub(super) settings: Vec<&'static str>,
    /// What is taken up at the next start only.
    pub(super) at_restart: Vec<&'static str>,
}

/// Names of one kind of thing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) changed: Vec<String>,
}

impl Names {
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
    /// As `fieldbridge reload --json` prints it.
    pub(super) fn to_json(&self, notes: &[Problem]) -> Json {
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
