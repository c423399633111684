//! Which of the hub's ports are open from here: many networks let out 443 and nothing else.

use std::time::Duration;

use tokio::runtime::Builder;

use crate::config::TransportKind;
use crate::net;

/// How long a port may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

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

async fn is_open(host: &str, transport: TransportKind) -> bool {
    let address = format!("{host}:{}", transport.port(true));
    // A look-up has no limit of its own.
    let connected = tokio::time::timeout(LIMIT, net::connect(&address, LIMIT)).await;
    matches!(connected, Ok(Ok(_)))
}
