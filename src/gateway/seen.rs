//! The gateway as those see it who look from outside: nobody who looks asks the ledger; that is done now and then.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{spawn_helper, Gateway, TaskGroups};
use crate::health::meters::Readings;
use crate::health::snapshot::Snapshot;
use crate::operate::admin::Reply;
use crate::view::page::Seen;
#[cfg(feature = "web")]
use crate::view::server;
use crate::view::{metrics, Source, Views};

/// How often what lies in the ledger is counted, while somebody may look.
const COUNT_PERIOD: Duration = Duration::from_secs(10);

/// Rows of the ledger that the page shows of each kind.
const ROWS_SHOWN: u32 = 20;
/// How long the page waits for the ledger.
const LEDGER_PATIENCE: Duration = Duration::from_secs(3);

/// What lies in the ledger, and what stands in the files.
#[derive(Debug, Clone, Default)]
pub(super) struct Stock {
    pub(super) rows: i64,
    /// Events that the hub does not have yet, and those of them whose devices are not configured any more.
    pub(super) events: i64,
    pub(super) of_removed_devices: i64,
    /// Commands in doubt that nobody has dealt with, by device.
    pub(super) in_doubt: BTreeMap<String, u64>,
    /// The main file of the configuration, and those files of it that have changed since they were read.
    pub(super) file: String,
    pub(super) changed_files: Vec<String>,
}

impl Gateway {
    /// Counts what lies in the ledger, and looks at the files. One that can't be read is told of by what reads it, or
    /// ends the process.
    pub(super) async fn stock_taken(&self) -> Stock {
        let (rows, events) = self.ledger.counts().await.unwrap_or_default();
        let configured = self.registry().devices.keys().cloned().collect();
        let of_removed_devices = self.ledger.events_of_others(configured).await.unwrap_or_default();
        let in_doubt = self.ledger.open_doubts().await.unwrap_or_default().into_iter().collect();
        let (file, changed_files) = self.source.changed().await;
        Stock { rows, events, of_removed_devices, in_doubt, file, changed_files }
    }

    async fn take_stock(&self) {
        let stock = self.stock_taken().await;
        *self.stock.lock().unwrap_or_else(PoisonError::into_inner) = stock;
    }

    /// Lets those look for whom the configuration has a place.
    pub(super) fn let_look(self: &Arc<Self>, tasks: &mut TaskGroups) {
        let (gateway, mut views) = (self.clone(), self.views.subscribe());
        spawn_helper(tasks, "count of what lies in the ledger", self.stops.helpers.clone(), async move {
            // An error means that the daemon ends.
            while views.wait_for(|views| *views != Views::default()).await.is_ok() {
                gateway.take_stock().await;
                sleep(COUNT_PERIOD).await;
            }
        });
        #[cfg(feature = "web")]
        {
            let look = server::watch_over(self.views.subscribe(), self.clone());
            spawn_helper(tasks, "views", self.stops.helpers.clone(), look);
        }
    }

    /// The metrics, as an operator asks for them.
    pub(super) async fn metrics(&self) -> Reply {
        self.take_stock().await;
        let (snapshot, readings) = self.figures();
        Reply::Ok(metrics::render(&snapshot, &readings).into())
    }

    fn readings(&self, in_doubt: &BTreeMap<String, u64>) -> Readings {
        let registry = self.registry();
        let devices = registry.devices.iter().map(|(id, served)| (id.clone(), served.health.readings()));
        let buses = registry.buses.iter().map(|(name, running)| (name.clone(), running.handle.readings()));
        let mut readings = Readings {
            devices: devices.collect(),
            buses: buses.collect(),
            completion: self.completion.reading(),
            commits: self.ledger.commits(),
        };
        for (id, device) in &mut readings.devices {
            device.in_doubt_open = in_doubt.get(id).copied().unwrap_or(0);
        }
        readings
    }
}

impl Source for Gateway {
    fn figures(&self) -> (Snapshot, Readings) {
        let stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.picture(&stock), self.readings(&stock.in_doubt))
    }

    fn seen(&self) -> Pin<Box<dyn Future<Output = Seen> + Send + '_>> {
        Box::pin(async move {
            let told = async { (self.snapshot().await, self.ledger.last_and_in_doubt(ROWS_SHOWN).await) };
            let (status, rows) = match timeout(LEDGER_PATIENCE, told).await {
                Ok((status, rows)) => (status, rows.map_err(|error| error.to_string())),
                Err(_) => (self.figures().0, Err("it does not answer in time; the disk may be failing".to_owned())),
            };
            let (rows, untold) = match rows {
                Ok(rows) => (rows, None),
                Err(why) => (Default::default(), Some(why)),
            };
            let (last, in_doubt) = rows;
            Seen { machine: String::new(), status, last, in_doubt, untold }
        })
    }
}
