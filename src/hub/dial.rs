//! The way to the hub: name, address, TCP.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::hub::trouble::Trouble;
use crate::net::{self, Failure, Stream};

/// One address of several gets this long.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(15);

/// A byte stream to the hub that is being made.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, Trouble>> + Send + 'a>>;

/// How the hub is reached: over the network, unless a simulation stands in for it.
pub trait Dial: Send + Sync {
    /// Connects to `HOST:PORT`; a name is looked up now, each of its addresses tried.
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a>;
}

/// The network of the system.
pub struct Network;

impl Dial for Network {
    fn dial<'a>(&'a self, address: &'a str) -> Dialing<'a> {
        Box::pin(async move { Ok(Box::new(connect(address).await?) as Box<dyn Stream>) })
    }
}

async fn connect(address: &str) -> Result<TcpStream, Trouble> {
    net::connect(address, ADDRESS_TIMEOUT).await.map_err(|failure| {
        let (address, error) = (address.to_owned(), failure.why());
        match failure {
            Failure::Lookup(_) => Trouble::Lookup { address, error },
            Failure::NoHandles(_) => Trouble::NoHandles(error),
            Failure::Unreachable(_) => Trouble::Unreachable { address, error },
        }
    })
}
