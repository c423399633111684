//! Every transport that this program was built with, and which of them an account takes.

use std::sync::Arc;

#[cfg(feature = "https")]
use tokio::time::Instant;

use super::account::Account;
#[cfg(feature = "amqp")]
use super::amqp::Amqp;
use super::dial::Dial;
#[cfg(feature = "https")]
use super::https::Https;
use super::mqtt::Mqtt;
use super::transport::{Pending, Reached, Transport};
use super::trouble::Trouble;
use crate::config::TransportKind;

/// All transports, over streams that are dialled in one way.
pub struct Transports {
    mqtt: Mqtt,
    #[cfg(feature = "amqp")]
    amqp: Amqp,
    #[cfg(feature = "https")]
    https: Https,
}

impl Transports {
    /// Over streams that are dialled so.
    pub fn over(dial: &Arc<dyn Dial>) -> Transports {
        Transports {
            mqtt: Mqtt::over(dial.clone()),
            #[cfg(feature = "amqp")]
            amqp: Amqp::over(dial.clone()),
            #[cfg(feature = "https")]
            https: Https::over(dial.clone()),
        }
    }
}

impl Transport for Transports {
    #[cfg(feature = "https")]
    fn locked_until(&self, account: &Account, device: &str, crashed: Option<Instant>) -> Option<Instant> {
        match account.transport {
            TransportKind::Https => self.https.locked_until(account, device, crashed),
            _ => None,
        }
    }

    fn reach<'a>(&'a self, account: &'a Account) -> Pending<'a, Result<Box<dyn Reached>, Trouble>> {
        match account.transport {
            TransportKind::Mqtt | TransportKind::MqttWs => self.mqtt.reach(account),
            #[cfg(feature = "amqp")]
            TransportKind::Amqp | TransportKind::AmqpWs => self.amqp.reach(account),
            #[cfg(feature = "https")]
            TransportKind::Https => self.https.reach(account),
            // The configuration refuses what is not built.
            #[cfg(not(all(feature = "amqp", feature = "https")))]
            other => Box::pin(async move { Err(Trouble::Protocol(format!("{other} is not in this program"))) }),
        }
    }
}
