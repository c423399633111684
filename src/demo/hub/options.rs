//! What is not known of the real hub, as switches; and what goes wrong, as faults. A switch or fault that names a
//! packet of MQTT's is of MQTT alone, unless it says what it is elsewhere.
//!
//! Every switch stands for a question that Microsoft's documentation leaves open, or on which its sources disagree. A
//! client is right only if it is right at every setting. The defaults are the settings that the most sources speak for.
//!
//! | switch | the fact, or the open question (sections of the fact sheet IOTHUB) |
//! |---|---|
//! | `clock_skew`, `token_grace` | 1.3: five minutes either way; the exact grace is unknown |
//! | `discarded` | 1.6: nothing is kept before the first subscription; what the sender hears is unknown |
//! | `bag` | 1.7: captures and documents differ in every one of these |
//! | `lock`, `redelivery`, `late` | 1.8: one minute; whether it then comes on the same connection, and what a late PUBACK does, is unknown |
//! | `lock_outlives_connection` | 1.8: redelivery on reconnecting is reported, how soon is not |
//! | `out_of_order`, `window`, `packet_ids`, `dup` | 1.8: known of the protocol gateway only |
//! | `keeps_from_start` | 1.6 and 3: only MQTT has the rule, and a hub can't know which protocol a new device will speak |
//! | `max_delivery_count` | 2: the hub's default; only abandoning counts, over AMQP and HTTPS |
//! | `bare_etag`, `websocket_bytes_max` | 3: an ETag is quoted, and clients have met others; a packet may span messages |
//! | `uuid_message_ids`, `bearer` | 4: what a sender's SDK makes of ids; who may send |
//! | `feedback_max_delivery_count` | 2: the hub's default; its feedback counts what is given back as messages do |
//! | `queue_limit`, `default_ttl`, `feedback_interval` | 1.9 and 2: the hub's limits and defaults |
//! | `id_scope`, `registration_polls` | 6: chosen by the service; how often it says "assigning" depends on its load |
//! | `tls13` | 7: not at the classic host name |

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// When a message whose lock ran out is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redelivery {
    /// As soon as there is room in the window: the protocol gateway, from which the hub descends, does so.
    SameConnection,
    /// On a later connection only: what users of the hub and its C SDK's documentation report.
    OnReconnect,
    /// Not at all: it stays in the queue until it expires.
    Never,
}

/// How PUBLISH packets are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketIds {
    /// 1, 2, 3… on each connection: the worst case, since a stale PUBACK hits another message.
    PerConnection,
    /// From the message's sequence number, the same at each delivery, as the protocol gateway does.
    Sequence,
    /// The lowest one that is not in use.
    LowestFree,
}

/// What happens on a PUBACK that is not for the oldest message in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutOfOrder {
    /// It completes its message.
    Accept,
    /// It is dropped and its message stays in flight: the protocol gateway's default.
    Ignore,
    /// The connection is closed: the protocol gateway's other setting.
    Close,
}

/// What happens on a PUBACK for a message whose lock ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Late {
    /// Nothing: the message will be delivered again.
    Ignore,
    /// The connection is closed: the protocol gateway does so.
    Close,
}

/// What the sender hears of a message that the hub discards because there is no subscription, or no longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discarded {
    /// Nothing.
    Silently,
    /// Feedback `Rejected`, as the protocol gateway's source has it.
    Rejected,
}

/// How the topic of a delivery spells the message's properties. Every variant was seen, or is documented.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BagStyle {
    /// `$.mid` in place of `%24.mid`.
    pub raw_dollar: bool,
    /// A `?` before the first property, as in the documentation's example.
    pub leading_question: bool,
    /// A `/` after the last one.
    pub trailing_slash: bool,
    /// Application properties before system properties.
    pub properties_first: bool,
    /// `$.to` ends in `devicebound` in place of `deviceBound`.
    pub lower_case_to: bool,
    /// `$.exp` also for a message whose sender gave no expiry.
    pub always_exp: bool,
    /// Seven decimals in `$.exp`, as .NET prints them.
    pub seven_decimals: bool,
    /// `!*'()` stay as they are, as old versions of .NET leave them.
    pub old_escapes: bool,
}

/// How a simulator behaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// The hub's name: in user names, token audiences and the server's certificate.
    pub host: String,
    /// Where to listen for MQTT; port 0 takes a free one.
    pub bind: SocketAddr,
    /// The port, on the same address, for WebSockets and HTTPS; 0 takes a free one.
    pub web_port: u16,
    /// The port, on the same address, for AMQP; 0 takes a free one.
    pub amqp_port: u16,
    /// TLS, as the hub has it; without it only for tests that read the wire.
    pub tls: bool,
    /// TLS 1.3 beside 1.2. The classic host name has 1.2 only.
    pub tls13: bool,
    /// See [`Redelivery`].
    pub redelivery: Redelivery,
    /// How long a delivered message is locked: one minute at the hub, and not configurable there.
    #[serde(with = "millis")]
    pub lock: Duration,
    /// A lock holds although its connection ended, so that a new connection has to wait for it.
    pub lock_outlives_connection: bool,
    /// Most messages in flight on one connection, 1 to 50.
    pub window: usize,
    /// See [`PacketIds`].
    pub packet_ids: PacketIds,
    /// See [`OutOfOrder`].
    pub out_of_order: OutOfOrder,
    /// See [`Late`].
    pub late: Late,
    /// DUP is set on redeliveries.
    pub dup: bool,
    /// Messages are kept for a device that has not been seen yet. Without it the hub discards them until the device
    /// has subscribed over MQTT, or has used AMQP or HTTPS once. Either way those that came before a device's first
    /// subscription over MQTT are lost to it.
    pub keeps_from_start: bool,
    /// How often a message may be abandoned before it is given up: 10 by default at the hub.
    pub max_delivery_count: u32,
    /// A lock token comes as an ETag without quotes.
    pub bare_etag: bool,
    /// Most bytes in a WebSocket message that the hub sends; `None`: as many as it has.
    pub websocket_bytes_max: Option<usize>,
    /// Over AMQP an id that looks like a UUID goes out as the type `uuid`, as one of the vendor's SDKs sends it.
    pub uuid_message_ids: bool,
    /// A token that counts for the back end as `Bearer`, as those of Microsoft Entra do.
    pub bearer: Option<String>,
    /// See [`Discarded`].
    pub discarded: Discarded,
    /// See [`BagStyle`].
    pub bag: BagStyle,
    /// Life of a message whose sender gave none: one hour by default at the hub.
    #[serde(with = "millis")]
    pub default_ttl: Duration,
    /// Most messages in a device's queue: 50 at the hub.
    pub queue_limit: usize,
    /// How far a token's expiry may lie in the past at CONNECT.
    #[serde(with = "millis")]
    pub clock_skew: Duration,
    /// How long after its token's expiry a connection is closed, or an AMQP link detached; about five minutes were
    /// observed.
    #[serde(with = "millis")]
    pub token_grace: Duration,
    /// Longest wait for a batch of 64 feedback records to fill: 15 s at the hub; zero releases each at once.
    #[serde(with = "millis")]
    pub feedback_interval: Duration,
    /// The id scope of the provisioning service.
    pub id_scope: String,
    /// How often the provisioning service answers that a registration is not over yet.
    pub registration_polls: u32,
    /// How often a batch of feedback may be given back before it is lost: 10 by default at the hub.
    pub feedback_max_delivery_count: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            host: "hub.fieldbridge.test".into(),
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            web_port: 0,
            amqp_port: 0,
            tls: true,
            tls13: false,
            redelivery: Redelivery::OnReconnect,
            lock: Duration::from_secs(60),
            lock_outlives_connection: false,
            window: 10,
            packet_ids: PacketIds::PerConnection,
            out_of_order: OutOfOrder::Accept,
            late: Late::Ignore,
            dup: false,
            keeps_from_start: false,
            max_delivery_count: 10,
            bare_etag: false,
            websocket_bytes_max: None,
            uuid_message_ids: false,
            bearer: None,
            discarded: Discarded::Silently,
            bag: BagStyle::default(),
            default_ttl: Duration::from_secs(3600),
            queue_limit: 50,
            clock_skew: Duration::from_secs(300),
            token_grace: Duration::from_secs(300),
            feedback_interval: Duration::ZERO,
            feedback_max_delivery_count: 10,
            id_scope: "0ne00000000".into(),
            registration_polls: 1,
        }
    }
}

/// Something that goes wrong once, on the device's present connection or on a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The connection is cut when CONNECT has been read; over AMQP, when the device's token has been.
    CutBeforeConnack,
    /// The connection is cut in place of the next delivery.
    CutBeforePublish,
    /// The connection is cut right after the next delivery was written.
    CutAfterPublish,
    /// The next PUBACK, or settlement over AMQP, is read, not acted upon, and the connection is cut: what the client
    /// recorded comes again.
    LosePuback,
    /// The connection is cut when so many more PUBACKs, or settlements over AMQP, were acted upon.
    CutAfterPubacks(u32),
    /// The next telemetry is read, not stored, and the connection is cut.
    CutBeforeTelemetry,
    /// The next telemetry is stored, not acknowledged, and the connection is cut: it comes twice.
    CutAfterTelemetry,
    /// Half of the next delivery is written, and the connection is cut. Over HTTPS nothing of it is.
    CutInFrame,
    /// The next settlement over AMQP or HTTPS is read and not acted upon. An AMQP connection goes on; a request over
    /// HTTPS is not answered.
    LoseSettlement,
    /// The next settlement over AMQP or HTTPS is acted upon, and the connection is cut before it can be confirmed.
    CutAfterSettlement,
    /// The next token is refused, although it is good: CONNACK 5, status 401.
    RefuseToken,
    /// The next telemetry over AMQP is rejected, and the connection goes on.
    RejectTelemetry,
    /// The next token over AMQP is never answered, and does not count.
    IgnoreToken,
    /// The next answer to a direct method is lost: whoever called hears of no answer in time.
    LoseMethodAnswer,
    /// The next request for a device's twin is refused with this status.
    RefuseTwin(u16),
    /// The next request for a device's twin is acted upon, and never answered.
    LoseTwin,
}

/// When a hub that wants no connections ends each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kick {
    /// Right after CONNACK 0; over AMQP, as soon as a device's link to its messages is attached.
    AfterConnack,
    /// Right after SUBACK; over AMQP as the other.
    AfterSuback,
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// In order (TCP FIN).
    Fin,
    /// By a reset (TCP RST); what is under way is lost.
    Reset,
}

/// Durations as whole milliseconds.
mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
