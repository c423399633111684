//! The way to the hub: name, address, TCP.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::mqtt::BoxStream;
use super::trouble::Trouble;

/// One address of several gets this long.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(15);

/// A byte stream to the hub that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<BoxStream, Trouble>> + Send + 'a>>;

/// How the hub is reached: over the network, unless a simulation stands in for it.
pub trait Dial: Send + Sync {
    /// Connects to `HOST:PORT`; a name is looked up now, each of its addresses tried.
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a>;
}

/// The network of the system.
pub struct Network;

impl Dial for Network {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move { Ok(Box::pin(connect(address).await?) as BoxStream) })
    }
}

async fn connect(address: &str) -> Result<TcpStream, Trouble> {
    let lookup = |error: std::io::Error| Trouble::Lookup { address: address.to_owned(), error: error.to_string() };
    let mut last = Trouble::Lookup { address: address.to_owned(), error: "it has no address".into() };
    for candidate in tokio::net::lookup_host(address).await.map_err(lookup)? {
        let unreachable = |error: String| Trouble::Unreachable { address: candidate.to_string(), error };
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(candidate)).await {
            Ok(Ok(tcp)) => {
                // Acknowledgements are tiny and wait for nothing: Nagle's algorithm would hold them back.
                tcp.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
                return Ok(tcp);
            }
            Ok(Err(error)) => last = unreachable(error.to_string()),
            Err(_) => last = unreachable(format!("no answer within {} s", ADDRESS_TIMEOUT.as_secs())),
        }
    }
    Err(last)
}
