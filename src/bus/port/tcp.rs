//! Connecting to a peripheral, or to a server that has a line of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::{Cause, NotOpened};
use super::owed::Hardware;
use super::{shown, Lines, Opener, Opening, Port, CONNECT_TIMEOUT};
use crate::net::{self, Stream};

/// A peer that has not acknowledged what was sent for so long is gone: without a limit the system tries for a quarter
/// of an hour, and each command meanwhile would count as sent.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// A connection on which nothing was said for so long is asked whether it still stands, and again as often.
const IDLE_UNTIL_ASKED: Duration = Duration::from_secs(30);
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Connects to one server, as often as it is needed.
pub(super) struct Connector {
    address: String,
    lines: Arc<dyn Lines>,
}

impl Connector {
    /// To a server at `HOST:PORT`.
    pub(super) fn new(address: String, lines: Arc<dyn Lines>) -> Connector {
        Connector { address, lines }
    }
}

impl Opener for Connector {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        Box::pin(async {
            let stream = self.lines.connect(&self.address, CONNECT_TIMEOUT).await?;
            Ok(Box::new(stream) as Box<dyn Port>)
        })
    }
}

impl Port for Box<dyn Stream> {
    /// Closing a connection does not wait for what was written.
    fn discard(&self) {}
}

/// Who has answered last at each address: a server may have several names. Names are those of the configuration; of
/// these, more than so many are not kept.
static PEERS: Mutex<BTreeMap<String, SocketAddr>> = Mutex::new(BTreeMap::new());
const PEERS_MAX: usize = 4096;

/// Who has answered last at an address.
pub(super) fn peer(address: &str) -> Option<Hardware> {
    let peers = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
    let peer = peers.get(address)?;
    Some(Hardware::Address(SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()))
}

fn note_peer(address: &str, stream: &TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut peers = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
    if peers.len() >= PEERS_MAX && !peers.contains_key(address) {
        peers.pop_first();
    }
    peers.insert(address.to_owned(), peer);
}

/// Connects to `HOST:PORT`; a name is looked up now. The error is a sentence that names the address.
pub(super) async fn open(address: &str, limit: Duration) -> Result<TcpStream, NotOpened> {
    // The look-up has its part in the limit.
    let why = match timeout(limit, net::connect(address, limit)).await {
        Ok(Ok(stream)) => {
            note_peer(address, &stream);
            if let Err(error) = notice_its_end(&stream) {
                tracing::debug!(%address, %error, "a connection will not notice soon that its peer is gone");
            }
            return Ok(stream);
        }
        Ok(Err(failure)) if failure.is_refusal() => {
            "it refuses the connection: is its server switched on, and is the port right?".into()
        }
        Ok(Err(failure)) => failure.why(),
        Err(_) => format!("no connection within {}", shown(limit)),
    };
    Err(NotOpened::new(Cause::Unreachable, format!("{address} can't be reached: {why}")))
}

/// Has the system notice a peer that is gone without a word (tcp(7)).
fn notice_its_end(stream: &TcpStream) -> io::Result<()> {
    let milliseconds = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, milliseconds)?;
    sockopt::set_tcp_keepidle(stream, IDLE_UNTIL_ASKED)?;
    sockopt::set_tcp_keepintvl(stream, ASKED_AGAIN_AFTER)?;
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_can_not_be_reached_is_explained() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let why = open(&address, CONNECT_TIMEOUT).await.unwrap_err().why;
        assert!(why.contains(&address) && why.contains("refuses"), "{why}");
    }

    #[tokio::test]
    async fn a_connection_notices_a_peer_that_is_gone_without_a_word() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = open(&listener.local_addr().unwrap().to_string(), CONNECT_TIMEOUT).await.unwrap();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), IDLE_UNTIL_ASKED);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 10_000);
    }
}
