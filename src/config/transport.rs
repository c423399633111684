//! The ways by which a device's messages come from the hub: their names, their ports, and what each can carry.

use std::fmt;

/// A protocol of the hub's, and what it goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// MQTT 3.1.1 over TLS.
    Mqtt,
    /// MQTT in a WebSocket over TLS.
    MqttWs,
    /// AMQP 1.0 over TLS.
    Amqp,
    /// AMQP in a WebSocket over TLS.
    AmqpWs,
    /// HTTPS, by polling.
    Https,
}

impl TransportKind {
    /// All of them.
    pub const ALL: [TransportKind; 5] = [Self::Mqtt, Self::MqttWs, Self::Amqp, Self::AmqpWs, Self::Https];

    /// Its name in the configuration and in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
            Self::Amqp => "amqp",
            Self::AmqpWs => "amqp-ws",
            Self::Https => "https",
        }
    }

    /// The port at the hub; without TLS, which is only for what stays on the machine, the protocol's plain one.
    pub fn port(self, tls: bool) -> u16 {
        match (self, tls) {
            (Self::Mqtt, true) => 8883,
            (Self::Mqtt, false) => 1883,
            (Self::Amqp, true) => 5671,
            (Self::Amqp, false) => 5672,
            (Self::MqttWs | Self::AmqpWs | Self::Https, true) => 443,
            (Self::MqttWs | Self::AmqpWs | Self::Https, false) => 80,
        }
    }

    /// Whether each message says when the hub took it, so that an old one is told from a new one.
    pub fn tells_enqueued_time(self) -> bool {
        !matches!(self, Self::Mqtt | Self::MqttWs)
    }

    /// Whether the device's twin is read and reported to by it.
    pub fn has_twin(self) -> bool {
        matches!(self, Self::Mqtt | Self::MqttWs)
    }

    /// Whether it goes through a WebSocket.
    pub fn is_websocket(self) -> bool {
        matches!(self, Self::MqttWs | Self::AmqpWs)
    }

    /// Whether this program was built with it.
    pub fn is_built(self) -> bool {
        match self {
            Self::Mqtt => true,
            Self::MqttWs => cfg!(feature = "websocket"),
            Self::Amqp => cfg!(feature = "amqp"),
            Self::AmqpWs => cfg!(all(feature = "amqp", feature = "websocket")),
            Self::Https => cfg!(feature = "https"),
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
