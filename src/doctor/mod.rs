//! `check --live`: whether what the configuration names is there and works. Each thing that is looked at ends in one
//! [`Finding`], a line with its remedy.
//!
//! `files`, `ports`, `buses`, [`slave`], `clock`, `provisioning` and `hub` each look at one thing; `certificate` knows
//! dates, `account` permissions; `daemon` asks the running daemon where only one may act.
//!
//! Invariants
//! - Nothing is written to a peripheral: Modbus is only read, and to a line of text nothing is sent.
//! - What the running daemon holds is left to it: no port is opened a second time, and no identity is connected again,
//!   as the hub would end the daemon's connection.
//! - Nothing is subscribed to and nothing acknowledged: every message stays with the hub.
//! - It ends: buses are asked side by side, and each part has a limit.

mod around;
mod buses;
mod certificate;
mod clock;
mod daemon;
mod files;
mod hub;
mod ports;
mod provisioning;
pub mod slave;
mod socket;
mod unit;
mod user;

pub use around::{around, dates, refusals};
pub use buses::Alone;
pub use ports::{names_that_stay, BY_ID};

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{json, Value as Json};

use crate::complaint::Complaint;
use crate::config::{key_path, Config, Loaded, Origins, Problem, Severity};
use crate::operate::text::printable;

/// How long the buses may take, all of them side by side.
const BUSES_LIMIT: Duration = Duration::from_secs(60);

/// How much something that was found matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It works, and somebody should look at it; or it could not be looked at.
    Warn,
    /// It does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub verdict: Verdict,
    /// What was looked at, e.g. `bus line-a`.
    pub about: String,
    /// What was found.
    pub said: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, about: &str, said: impl Into<String>) -> Finding {
        Finding { verdict, about: about.to_owned(), said: said.into(), remedy: None }
    }

    fn ok(about: &str, said: impl Into<String>) -> Finding {
        Finding::new(Verdict::Ok, about, said)
    }

    fn warn(about: &str, said: impl Into<String>) -> Finding {
        Finding::new(Verdict::Warn, about, said)
    }

    fn fail(about: &str, said: impl Into<String>) -> Finding {
        Finding::new(Verdict::Fail, about, said)
    }

    /// A failure, with what to do.
    fn failed(about: &str, complaint: Complaint) -> Finding {
        Finding::of(Verdict::Fail, about, complaint)
    }

    /// A failure, as a status tells of it: in one sentence, which is the log's, too.
    fn heard(about: &str, sentence: &str) -> Finding {
        Finding::failed(about, Complaint::heard(sentence))
    }

    fn of(verdict: Verdict, about: &str, complaint: Complaint) -> Finding {
        let Complaint { what, remedy } = complaint;
        Finding { remedy: Some(remedy).filter(|remedy| !remedy.is_empty()), ..Finding::new(verdict, about, what) }
    }

    /// What was found and what to do, of what it is about.
    fn complaint(self) -> Complaint {
        Complaint::new(self.said, self.remedy.unwrap_or_default()).of(self.about)
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }

    /// As the daemon answers it.
    pub fn to_json(&self) -> Json {
        json!(self)
    }

    /// As `--json` prints it: with the members of a finding in the configuration beside its own.
    pub fn to_json_at(&self, origins: &Origins) -> Json {
        let key = self.key();
        let origin = key.as_ref().and_then(|key| origins.of(key));
        let mut json = self.to_json();
        json["file"] = json!(origin.map(|(source, _)| source));
        json["line"] = json!(origin.map(|(_, place)| place.line));
        json["column"] = json!(origin.map(|(_, place)| place.column));
        json["key"] = json!(key);
        json["severity"] = json!(match self.verdict {
            Verdict::Ok => Severity::Note,
            Verdict::Warn => Severity::Warning,
            Verdict::Fail => Severity::Error,
        }
        .as_str());
        json["message"] = json!(self.said);
        json
    }

    /// The table of the configuration that it is about.
    fn key(&self) -> Option<String> {
        let (kind, name) = self.about.split_once(' ').unwrap_or((&self.about, ""));
        match (kind, name) {
            ("certificate", "of provisioning.ca_file") => Some("provisioning.ca_file".to_owned()),
            ("certificate", "of hub.ca_file") => Some("hub.ca_file".to_owned()),
            ("hub", _) | ("certificate", "of the hub") => Some("hub".to_owned()),
            ("bus", name) => Some(key_path(&["bus", name])),
            ("provisioning", "") => Some("provisioning".to_owned()),
            ("peripheral" | "identity" | "certificate" | "provisioning", name) => Some(key_path(&["device", name])),
            ("ledger", _) => Some("ledger".to_owned()),
            _ => None,
        }
    }
}

/// A finding in the configuration as `check --live --json` prints it: with the members of the others beside its own.
pub fn problem_to_json(problem: &Problem) -> Json {
    let mut json = problem.to_json();
    json["verdict"] = json!(match problem.severity {
        Severity::Error => Verdict::Fail,
        Severity::Warning => Verdict::Warn,
        Severity::Note => Verdict::Ok,
    });
    json["about"] = json!("configuration");
    json["said"] = json!(problem.message());
    json
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        // What a hub or a peripheral has said stands in some of it.
        write!(f, "{word:<5} {}: {}", printable(&self.about), printable(&self.said))?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {}", printable(remedy)),
            None => Ok(()),
        }
    }
}

/// Looks at everything, and tells of each part when it is known. Returns every finding.
pub async fn check(loaded: Loaded, tell: impl Fn(&[Finding])) -> Vec<Finding> {
    let Loaded { config, files, .. } = loaded;
    let daemon = daemon::ask(&config).await;
    let hub = tokio::spawn(hubs(config.clone(), daemon.clone()));
    let buses = tokio::spawn(buses::check(config.clone(), daemon.clone()));
    let mut all = daemon.findings(&config);
    all.push(clock::check());
    all.extend(files::check(&config, &files, &daemon));
    tell(&all);
    for (about, part) in [("buses", buses), ("hub", hub)] {
        let found = part.await.unwrap_or_else(|error| vec![Finding::fail(about, format!("the check broke: {error}"))]);
        tell(&found);
        all.extend(found);
    }
    all
}

/// The hub that is configured, or those that devices are assigned to.
async fn hubs(config: Config, daemon: daemon::Daemon) -> Vec<Finding> {
    let (mut findings, each) = provisioning::check(&config, &daemon).await;
    for one in each {
        findings.extend(hub::check(one, &config.hub, &daemon).await);
    }
    findings
}

/// What comes of some work within a limit.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_remedy() {
        let finding = Finding::heard("hub", "no answer; check the uplink; or wait");
        assert_eq!(finding.to_string(), "FAIL  hub: no answer; check the uplink; or wait");
        assert_eq!(finding.remedy.as_deref(), Some("check the uplink; or wait"));
        assert_eq!(Finding::ok("bus a", "open\x1b[2J\n").to_string(), "ok    bus a: open [2J ");
        let warn = Finding::warn("clock", "late").remedy("set it");
        assert_eq!(warn.to_string(), "warn  clock: late; set it");
        let json = warn.to_json();
        assert_eq!(json, json!({"verdict": "warn", "about": "clock", "said": "late", "remedy": "set it"}));
        assert_eq!(serde_json::from_value::<Finding>(json).expect("it is one"), warn);
    }
}
