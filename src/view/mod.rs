//! The gateway as it is seen from outside, over HTTP: metrics for a machine, a page for a person. Nothing is changed
//! from here.
//!
//! Invariants
//! - What is told is rendered from the daemon's snapshot, by functions that ask nobody.
//! - Whoever looks costs the command path nothing that grows with how often: a picture is taken at most once a second,
//!   connections are few, they are served by a thread of their own, and all together are answered at a pace
//!   ([`pace`]).
//! - Whatever goes wrong here is logged, and nothing else ends by it.

pub mod host;
pub mod metrics;
pub mod pace;
pub mod page;
#[cfg(feature = "web")]
pub mod server;

use std::future::Future;
use std::pin::Pin;

use crate::config::{self, Config};
use crate::health::meters::Readings;
use crate::health::snapshot::Snapshot;
use page::Seen;

/// Where the daemon listens for those who look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Views {
    /// `[metrics]`
    pub metrics: Option<config::View>,
    /// `[web]`
    pub web: Option<config::View>,
}

impl Views {
    /// Of a configuration.
    pub fn of(config: &Config) -> Views {
        Views { metrics: config.metrics.clone(), web: config.web.clone() }
    }
}

/// A daemon that is looked at.
pub trait Source: Send + Sync + 'static {
    /// Its picture and what it has counted. It asks nobody, and takes no longer than the number of devices and buses
    /// needs.
    fn figures(&self) -> (Snapshot, Readings);

    /// What the page shows, with what lies in the ledger. It takes no longer than a few seconds.
    fn seen(&self) -> Pin<Box<dyn Future<Output = Seen> + Send + '_>>;
}
