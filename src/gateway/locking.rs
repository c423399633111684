//! The locking of devices for operators, by the daemon that runs.

use serde_json::json;

use super::operators::unknown;
use super::Gateway;
use crate::device::Lock;
use crate::log::events;
use crate::log::throttle::EACH;
use crate::operate::admin::Reply;
use crate::operate::exec;

impl Gateway {
    /// Locks a device: once that is answered, nothing is written to it any more that has not begun.
    pub(super) async fn lock(&self, device: String, uid: u32, reason: Option<String>) -> Reply {
        // A slip of the pen must not be taken for a lock.
        if !self.registry().knows(&device) && !self.lockouts.has(&device) {
            return unknown(&device);
        }
        let since = self.ledger.wall_clock().now().ok().map(|now| now.to_string());
        let lock = Lock::new(since, &exec::user(uid).await, reason.as_deref());
        tracing::warn!(name: events::DEVICE_LOCKED, target: EACH, %device, uid, "a local operator locks the device {lock}");
        match self.lockouts.lock(&device, lock).await {
            Ok(()) => Reply::Ok(json!({ "device": device, "locked": self.lockouts.shown(&device) })),
            Err(why) => refused(&device, why),
        }
    }

    /// Unlocks a device: what came before is not begun all the same.
    pub(super) async fn unlock(&self, device: String, uid: u32) -> Reply {
        let user = exec::user(uid).await;
        tracing::warn!(target: EACH, %device, uid, user, "a local operator unlocks the device");
        match self.lockouts.unlock(&device, self.ledger.wall_clock().now().ok()).await {
            Ok(()) => Reply::Ok(json!({ "device": device, "locked": null })),
            Err(why) => refused(&device, why),
        }
    }
}

fn refused(device: &str, why: String) -> Reply {
    tracing::warn!(target: EACH, %device, "that was refused: {why}");
    Reply::Error(why)
}
