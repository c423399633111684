//! What operators ask the daemon's buses, beside commands.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;

use super::registry::longest_timeout;
use super::{unknown, Gateway};
use crate::bus::BusHandle;
use crate::operate::admin::{Operator, Reply};
use crate::operate::inspect::{self, Piece};

impl Gateway {
    /// Reads what stands in a table of a device.
    pub(super) async fn read(&self, operator: Operator, device: &str, piece: Result<Piece, String>) -> Reply {
        let Some(present) = self.context(device).map(|context| context.present()) else { return unknown(device) };
        let piece = match piece {
            Ok(piece) => piece,
            Err(why) => return Reply::Error(why),
        };
        let Piece { address, count, .. } = piece;
        tracing::info!(
            device,
            table = piece.table_name(),
            address,
            count,
            uid = operator.uid,
            "a local operator reads"
        );
        self.seen(&operator, inspect::read(&present.device, &present.bus, piece)).await
    }

    /// Asks a unit whether it is there.
    pub(super) async fn scan(&self, operator: Operator, bus: &str, unit: u8) -> Reply {
        let (handle, slowest) = match self.bus(bus) {
            Ok(found) => found,
            Err(why) => return Reply::Error(why),
        };
        tracing::info!(bus, unit, uid = operator.uid, "a local operator asks whether a unit is there");
        self.seen(&operator, inspect::scan::ask(&handle, unit, slowest)).await
    }

    /// Tells what has gone over a bus's line.
    pub(super) async fn watch(&self, operator: Operator, bus: &str, after: Option<u64>) -> Reply {
        let handle = match self.bus(bus) {
            Ok((handle, _)) => handle,
            Err(why) => return Reply::Error(why),
        };
        if after.is_none() {
            tracing::info!(bus, uid = operator.uid, "a local operator begins to watch");
        }
        let heard = async {
            let heard = handle.tap().since(after).await;
            Ok(inspect::Watched { kind: handle.settings().kind.as_str().to_owned(), heard })
        };
        self.seen(&operator, heard).await
    }

    /// A bus that is configured, and the longest that any command on it waits for its answer.
    fn bus(&self, name: &str) -> Result<(BusHandle, Duration), String> {
        let registry = self.registry();
        match registry.buses.get(name).filter(|_| registry.config.buses.contains_key(name)) {
            Some(running) => Ok((running.handle.clone(), longest_timeout(&registry.config, name))),
            None => Err(inspect::no_bus(name, registry.config.buses.keys())),
        }
    }

    /// Looks, as long as somebody waits for it and the daemon is not to stop. For whoever does not wait any more
    /// nothing is sent: what is dropped gives up its turn, and takes back what has not begun.
    async fn seen<T: Serialize>(&self, operator: &Operator, look: impl Future<Output = Result<T, String>>) -> Reply {
        let seen = tokio::select! {
            biased;
            () = self.stops.executors.cancelled() => Err("the daemon is stopping".to_owned()),
            () = operator.gone.cancelled() => {
                tracing::debug!(uid = operator.uid, "a local operator went away before the bus was asked, or answered");
                Err("nobody waits for it".to_owned())
            }
            seen = look => seen,
        };
        match seen.map(|seen| serde_json::to_value(seen)) {
            Ok(Ok(document)) => Reply::Ok(document),
            Ok(Err(error)) => Reply::Error(error.to_string()),
            Err(why) => Reply::Error(why),
        }
    }
}
