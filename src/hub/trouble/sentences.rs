//! What is said of a trouble: what is wrong, and what to do about it.

use std::borrow::Cow;
use std::fmt;

use tokio_rustls::rustls::{AlertDescription, CertificateError};

use super::{is_passing, Trouble};
use crate::complaint::Complaint;

impl Trouble {
    /// What is wrong, and what to do.
    pub fn complaint(&self) -> Complaint {
        Complaint::new(self.what(), self.remedy())
    }

    fn what(&self) -> String {
        match self {
            Self::Lookup { address, error } => format!("{address} can't be looked up: {error}"),
            Self::Unreachable { address, error } => format!("{address} can't be reached: {error}"),
            Self::NoHandles(why) => {
                format!("no connection to the hub can be made, as the limit of open files is reached ({why})")
            }
            Self::NoPlace(most) => {
                format!("the limit of open files leaves room for {most} connections to the hub, and others have them")
            }
            Self::Proxy(why) => why.complaint().what,
            Self::WebSocket(why) => format!("no WebSocket to the hub: {}", why.what),
            Self::Tls(why) | Self::CertificateRefused(why) => format!("TLS failed: {}", why.what),
            Self::Credential(why) => why.what.clone(),
            Self::Slow(seconds) => format!("the hub did not answer within {seconds} s"),
            Self::Refused(code) => format!("the hub refused the connection: {}", refusal(*code).0),
            Self::NotGranted => {
                "the hub did not grant the subscription with QoS 1, without which messages would be lost".into()
            }
            Self::Closed => "the hub closed the connection".into(),
            Self::TokenExpired => "the hub does not let the device in, as its token has expired".into(),
            Self::Kicked => "the hub keeps closing the connection soon after it is made".into(),
            Self::Broken(why) => format!("the connection broke: {why}"),
            Self::HalfOpen => "the hub did not answer within the keep-alive time".into(),
            Self::EventUnacknowledged(time) => {
                format!("the hub did not acknowledge a result event for {} s", time.as_secs())
            }
            Self::Http { status, said, retry_after } => {
                let wait = retry_after.map(|seconds| format!(", for {seconds} s")).unwrap_or_default();
                format!("the hub {} (HTTP {status}{said}{wait})", no_by_http(*status).0)
            }
            Self::NotTheHub(what) => format!("something between answers in the hub's place ({what})"),
            Self::LedgerSlow => "the ledger does not answer".into(),
            Self::Protocol(what) => format!("the hub sent something that is not understood: {what}"),
            Self::Ambiguous(what) => (*what).into(),
            Self::LeftBehind => "more messages wait for this device than the gateway keeps".into(),
            Self::Abandoned => "a message was left with the hub".into(),
            Self::NotLetIn(why) => format!("the hub lets nobody in: {why}"),
            Self::TokenRefused { status, description } => {
                let verb = if is_passing(*status) { "can't take" } else { "refuses" };
                let (now, with, end) = if is_passing(*status) { (" now", "(", ")") } else { ("", "with ", "") };
                format!("the hub {verb} the device's token{now} {with}{status}{}{end}", beside(description))
            }
            Self::TokenUnanswered(seconds) => {
                format!("the hub did not answer to the device's token within {seconds} s")
            }
            Self::Unauthorized(said) => format!("the hub does not let the device in any more{}", beside(said)),
            Self::NotFound(said) => format!("the hub does not know the device{}", beside(said)),
            Self::Stolen => "somebody else receives this device's messages now (amqp:link:stolen)".into(),
            Self::Throttled(said) => format!("the hub is throttling{}", beside(said)),
            Self::Detached { condition, description } => {
                format!("the hub ended the device's link with {condition}{}", beside(description))
            }
            Self::Dismissed { condition, description } => {
                format!("the hub closed the connection with {condition}{}", beside(description))
            }
            Self::Lost(why) => format!("the connection to the hub is lost: {why}"),
            Self::NoSession => "the hub takes no more devices on this connection".into(),
            Self::EventRefused(why) => format!("the hub does not take a result event ({why})"),
        }
    }

    fn remedy(&self) -> Cow<'_, str> {
        let remedy = match self {
            Self::Lookup { .. } => "check DNS, the uplink, and `hub.host`",
            Self::Unreachable { address, .. } => return open_outwards(address).into(),
            Self::NoHandles(_) | Self::NoPlace(_) => {
                "raise it: LimitNOFILE= in a file of /etc/systemd/system/fieldbridge.service.d/"
            }
            Self::Proxy(why) => return why.complaint().remedy.into(),
            Self::WebSocket(why) | Self::Tls(why) | Self::CertificateRefused(why) | Self::Credential(why) => &why.remedy,
            Self::Slow(_) | Self::TokenUnanswered(_) => "it may be throttling, or the uplink is bad",
            Self::Refused(code) => refusal(*code).1,
            Self::NotGranted => "check that `hub.host` names an IoT Hub; the daemon tries again",
            Self::Closed => {
                "it gives no reason over MQTT; the daemon connects anew. If this comes again and again, look whether another \
                 client uses the device id"
            }
            Self::TokenExpired => "is the clock right? `timedatectl` shows it",
            Self::Kicked => "look for another client with this device id, and end it",
            Self::HalfOpen => "the connection is dead, and is made anew; if this comes again and again, check the uplink",
            Self::Broken(_) | Self::EventUnacknowledged(_) | Self::Protocol(_) => "",
            Self::Http { status, .. } => no_by_http(*status).1,
            Self::NotTheHub(_) => {
                "look for a log-in page of the network or for a proxy, and let connections to `hub.host` through"
            }
            Self::LedgerSlow => "look at the disk: it may be full, slow or failing",
            Self::Ambiguous(_) => "the connection is made anew",
            Self::LeftBehind => "the connection is made anew to get the rest",
            Self::Abandoned => "the connection is made anew to get it again",
            Self::NotLetIn(_) => "check `hub.host`, and that nothing between here and there answers in its place",
            Self::TokenRefused { status, .. } if is_passing(*status) => "the daemon tries again",
            Self::TokenRefused { .. } => {
                "check that the device exists at this hub and is enabled, that its key is the right one, and that the clock is \
                 right"
            }
            Self::Unauthorized(_) => "check that it exists at this hub and is enabled, and that the clock is right",
            Self::NotFound(_) => "check its name, and `hub.host`",
            Self::Stolen => "a device must be on one gateway only, so take it away from the other",
            Self::Throttled(_) => "the daemon tries again, with growing waits",
            Self::Detached { .. } => "the daemon attaches it anew",
            Self::Dismissed { .. } | Self::Lost(_) => "the daemon connects anew",
            Self::NoSession => "the daemon makes another",
            Self::EventRefused(_) => "it stays in the ledger, and others go before it",
        };
        remedy.into()
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.complaint().fmt(f)
    }
}

impl std::error::Error for Trouble {}

/// What a hub says beside a condition or a status, if anything.
pub fn beside(description: &str) -> String {
    if description.is_empty() {
        String::new()
    } else {
        format!(": {description}")
    }
}

/// What a CONNACK return code means (MQTT 3.1.1, 3.2.2.3) and what to check.
fn refusal(code: u8) -> (&'static str, &'static str) {
    match code {
        1 => ("unacceptable protocol version", ""),
        2 => ("client id rejected", "check the device id"),
        3 => ("server unavailable", "it may be throttling, the daemon tries again"),
        4 => ("bad user name or password", "check `hub.host` and the device key"),
        5 => (
            "not authorized",
            "check that the device exists at this hub and is enabled, that its key or certificate is the right one, that the \
             clock is right, and that the hub's quota is not used up",
        ),
        _ => ("unknown return code", ""),
    }
}

/// What a status of HTTP means ("Understand error codes", Microsoft) and what to check.
fn no_by_http(status: u16) -> (&'static str, &'static str) {
    match status {
        400 => ("does not understand the request", "check `hub.api_version` and the device id"),
        401 => (
            "does not let the device in",
            "check that its key or certificate is the right one, that it is enabled at this hub, and that the clock is right",
        ),
        403 => (
            "forbids what the device asks for",
            "check the hub's daily quota and its IP filter, and that its tier is not Basic, which has no messages for devices",
        ),
        404 => ("does not know the device", "check the device id, capitals too, and `hub.host`"),
        429 => ("is asked too often", "the daemon tries again later; if that lasts, raise `hub.poll_interval`"),
        500..=599 => ("has a trouble of its own", "the daemon tries again; if that lasts, see the status page of Azure"),
        _ => ("gave an answer that it never gives", "check `hub.host`, `hub.address` and `hub.api_version`"),
    }
}

/// What is to be open outwards for `HOST:PORT`, and the way out where only the ports of the web are.
fn open_outwards(address: &str) -> String {
    let port = address.rsplit_once(':').map(|(_, port)| port);
    let named = port.map_or_else(|| "its port".into(), |port| format!("port {port}"));
    let instead = match port {
        Some("8883") => "; where only 443 is, set `hub.transport` to \"mqtt-ws\"",
        Some("5671") => "; where only 443 is, set `hub.transport` to \"amqp-ws\"",
        _ => "",
    };
    format!("check the uplink, and that {named} is open outwards{instead}")
}

/// Why the hub's certificate is not believed.
pub(super) fn certificate(error: &CertificateError, server_name: &str) -> Complaint {
    match error {
        // An authority of the same name with another key ends in a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Complaint::new(
            "the hub's certificate is not signed by a trusted authority",
            "check the system's CA certificates or `hub.ca_file`, and whether a proxy intercepts TLS",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Complaint::new(format!("the certificate is not for {server_name}"), "check `hub.host` and `hub.address`")
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Complaint::new("the hub's certificate has expired", "is the clock right? `timedatectl` shows it")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Complaint::new("the hub's certificate is not valid yet", "is the clock right? `timedatectl` shows it")
        }
        other => Complaint::bare(format!("the hub's certificate is refused: {other}")),
    }
}

/// That the hub does not take this identity's certificate, if an alert says so.
pub(super) fn own_certificate(alert: AlertDescription) -> Option<Complaint> {
    let is_of_it = matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
    );
    is_of_it.then(|| {
        let what = format!("the hub does not take this device's certificate ({alert:?})");
        Complaint::new(what, "check `cert_file`, its dates, and the thumbprint or CA at the hub")
    })
}
