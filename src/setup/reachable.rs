//! Which of the hub's ports are open from here: many networks let out 443 and nothing else.

use std::time::Duration;

use tokio::runtime::Builder;

use super::question::Asking;
use crate::config::{proxy_address, Proxy, TransportKind};
use crate::hub::dial::Network;
use crate::hub::way::connect_through;
use crate::net::{self, Failure};

/// How long a port may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// The answer of whoever has no proxy.
const NONE: &str = "none";

/// The transport to propose, if it is not the usual one: the port of MQTT is closed, and that of the web open.
pub(super) fn proposal(host: &str) -> Option<TransportKind> {
    // Without a runtime nothing is tried, and nothing proposed.
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let proposal = runtime.block_on(async {
        let (usual, web) = tokio::join!(is_open(host, TransportKind::Mqtt), is_open(host, TransportKind::MqttWs));
        (!usual && web && TransportKind::MqttWs.is_built()).then_some(TransportKind::MqttWs)
    });
    // A name that is still being looked up must not hold up a person.
    runtime.shutdown_background();
    proposal
}

/// The proxy that a person names where neither port can be reached, once it has led to the hub, and the transport that
/// goes through it.
///
/// # Errors
/// The person has left.
pub(super) fn by_proxy(asking: &Asking, host: &str) -> Result<(Option<TransportKind>, Option<String>), String> {
    if !TransportKind::MqttWs.is_built() || !are_closed(host) {
        return Ok((None, None));
    }
    let question = "Neither port 8883 nor 443 of the hub can be reached from here. The network's HTTP proxy, such as \
                    http://proxy:3128, or none";
    let wrong = |answer: &str| if answer == NONE { None } else { leads_to(answer, host).err() };
    match asking.judged("--proxy", None, question, Some(NONE), wrong)? {
        none if none == NONE => Ok((None, None)),
        url => Ok((Some(TransportKind::MqttWs), Some(url))),
    }
}

/// Whether the hub is known here, and lets nobody in from here. Where not even its name is known, nothing can be said.
fn are_closed(host: &str) -> bool {
    let Ok(runtime) = Builder::new_current_thread().enable_all().build() else { return false };
    let is_closed = |transport: TransportKind| async move {
        // A look-up has no limit of its own, and where it takes all of this nothing is known.
        let address = format!("{host}:{}", transport.port(true));
        let connected = tokio::time::timeout(LIMIT, net::connect(&address, LIMIT / 2)).await;
        matches!(connected, Ok(Err(Failure::Unreachable(_))))
    };
    let (usual, web) =
        runtime.block_on(async { tokio::join!(is_closed(TransportKind::Mqtt), is_closed(TransportKind::MqttWs)) });
    runtime.shutdown_background();
    usual && web
}

/// Whether a proxy lets through to the hub's port of the web.
fn leads_to(url: &str, host: &str) -> Result<(), String> {
    let address = proxy_address(url).map_err(|why| why.to_string())?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let proxy = Proxy { address, credentials: None };
    let target = format!("{host}:{}", TransportKind::MqttWs.port(true));
    let led = runtime.block_on(connect_through(&Network, Some(&proxy), &target));
    runtime.shutdown_background();
    led.map(drop).map_err(|trouble| format!("{trouble}; type another, or {NONE}"))
}

async fn is_open(host: &str, transport: TransportKind) -> bool {
    let address = format!("{host}:{}", transport.port(true));
    // A look-up has no limit of its own.
    let connected = tokio::time::timeout(LIMIT, net::connect(&address, LIMIT)).await;
    matches!(connected, Ok(Ok(_)))
}
