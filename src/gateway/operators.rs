//! What operators ask the daemon.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tokio::sync::oneshot;

use super::registry::longest_timeout;
use super::Gateway;
use crate::bus::BusHandle;
use crate::config::Fingerprints;
use crate::device::Context;
use crate::doctor;
use crate::ledger::row::Resolution;
use crate::ledger::LedgerError;
use crate::log;
use crate::log::throttle::EACH;
use crate::operate::admin::{self, Operator, Reply};
use crate::operate::exec;
use crate::operate::inspect::{self, Piece};
use crate::time::Timestamp;

impl Gateway {
    /// Does what an operator asks.
    pub(super) async fn answer(self: &Arc<Self>, operator: Operator, request: admin::Request) -> Reply {
        match request {
            admin::Request::Status {} => match serde_json::to_value(self.snapshot().await) {
                Ok(snapshot) => Reply::Ok(snapshot),
                Err(error) => Reply::Error(error.to_string()),
            },
            admin::Request::Metrics {} => self.metrics().await,
            admin::Request::Running {} => Reply::Ok(serde_json::json!(Fingerprints::of(&self.registry().config))),
            admin::Request::Reload {} => {
                tracing::info!(uid = operator.uid, "a local operator asks for the configuration to be read anew");
                let (wish, reply) = oneshot::channel();
                let stopping = || Reply::Error("the daemon is stopping".into());
                match self.reloads.send(wish).await {
                    Ok(()) => reply.await.unwrap_or_else(|_| stopping()),
                    Err(_) => stopping(),
                }
            }
            admin::Request::Probe { device } => {
                let Some(present) = self.context(&device).map(|context| context.present()) else {
                    return unknown(&device);
                };
                tracing::info!(%device, uid = operator.uid, "a local operator asks whether the peripheral answers");
                Reply::Ok(doctor::slave::ask(&present.device, &present.bus).await.to_json())
            }
            admin::Request::Read { device, table, address, count } => {
                self.read(operator, &device, Piece::of(&table, address, count)).await
            }
            admin::Request::Watch { bus, after } => self.watch(operator, &bus, after).await,
            admin::Request::Scan { bus, unit } => self.scan(operator, &bus, unit).await,
            admin::Request::Exec { device, command, value, overrides } => {
                let Some(context) = self.context(&device) else { return unknown(&device) };
                tracing::info!(target: EACH, %device, command, overrides, uid = operator.uid, "a local operator asks for a command");
                self.execute(context, exec::Asked { operator, command, value, overrides }).await
            }
            admin::Request::Lock { device, reason } => self.lock(device, operator.uid, reason).await,
            admin::Request::Unlock { device } => self.unlock(device, operator.uid).await,
            admin::Request::LogLevel { level } => match log::level::set(&level) {
                Ok(()) => {
                    tracing::info!(target: EACH, level, uid = operator.uid, "a local operator has set what the log says");
                    Reply::Ok(json!({ "level": level }))
                }
                Err(why) => Reply::Error(why),
            },
            admin::Request::Resolve { row, note } => self.resolve(operator, row, note).await,
        }
    }

    /// Runs an operator's command. It comes to its end, and its row too, if its operator goes away.
    async fn execute(&self, context: Context, asked: exec::Asked) -> Reply {
        let stopping = || Reply::Error("the daemon is stopping".into());
        let (hub, stop) = (self.registry().hub_of(&context.id), self.stops.executors.clone());
        let place = tokio::select! {
            biased;
            () = stop.cancelled() => return stopping(),
            place = self.executions.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let context = context.as_it_is(stop);
        let (answer, answered) = oneshot::channel();
        tokio::spawn(async move {
            exec::execute(context, hub, asked, answer).await;
            drop(place);
        });
        answered.await.map_or_else(|_| stopping(), Reply::from)
    }

    /// Notes that somebody has looked at what a command in doubt has done.
    async fn resolve(&self, operator: Operator, row: i64, note: Option<String>) -> Reply {
        let now = self.ledger.wall_clock().now().unwrap_or(Timestamp::UNKNOWN);
        let resolution = match Resolution::new(now, exec::user(operator.uid).await, note) {
            Ok(resolution) => resolution,
            Err(why) => return Reply::Error(why),
        };
        tracing::info!(target: EACH, row, uid = operator.uid, "a local operator has looked at what was in doubt");
        match self.ledger.resolve(row, resolution).await {
            Ok(()) => Reply::Ok(json!({ "row": row })),
            Err(LedgerError::Refused(why)) => Reply::Error(why),
            Err(error) => Reply::Unrecorded(error.to_string()),
        }
    }

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

pub(super) fn unknown(device: &str) -> Reply {
    Reply::Error(format!("no device is called {device:?}"))
}
