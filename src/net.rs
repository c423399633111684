//! TCP to a host by its name or its address: every address of a name is tried.
//!
//! Invariants
//! - A name is looked up at most once at a time, however many ask: the system's resolver takes a helper thread for each
//!   look-up, and may take a minute.
//! - An address that swallows everything costs the others `STAGGER`, and not its own time limit (after RFC 8305).
//! - The first connection is the one. What the others come to is dropped.

#[cfg(feature = "https")]
pub mod http;
#[cfg(feature = "web")]
pub mod served;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout, Instant};

use crate::handles;

/// After so long without an answer of one address the next is tried beside it (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// A byte stream of any kind.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a look-up came to.
type Found = Result<Vec<SocketAddr>, String>;

/// The names that are being looked up.
static UNDER_WAY: Mutex<BTreeMap<String, watch::Receiver<Option<Found>>>> = Mutex::new(BTreeMap::new());

/// Why there is no connection.
#[derive(Debug)]
pub enum Failure {
    /// The name has no address now.
    Lookup(String),
    /// No handle is left for a socket: that says nothing of the address.
    NoHandles(io::Error),
    /// Nothing can be reached at any of its addresses.
    Unreachable(Vec<(SocketAddr, io::Error)>),
}

impl Failure {
    /// Whether each address has refused the connection.
    pub fn is_refusal(&self) -> bool {
        match self {
            Failure::Lookup(_) | Failure::NoHandles(_) => false,
            Failure::Unreachable(errors) => {
                errors.iter().all(|(_, error)| error.kind() == io::ErrorKind::ConnectionRefused)
            }
        }
    }

    /// What went wrong, without the address where there is only one.
    pub fn why(&self) -> String {
        match self {
            Failure::Lookup(why) => why.clone(),
            Failure::NoHandles(error) => error.to_string(),
            Failure::Unreachable(errors) => match errors.as_slice() {
                [(_, error)] => error.to_string(),
                errors => {
                    let each: Vec<_> = errors.iter().map(|(address, error)| format!("{address}: {error}")).collect();
                    each.join("; ")
                }
            },
        }
    }
}

/// Connects to `HOST:PORT`, with so much time for each of its addresses.
///
/// # Errors
/// What each address came to.
pub async fn connect(address: &str, limit: Duration) -> Result<TcpStream, Failure> {
    let candidates = match address.parse::<SocketAddr>() {
        Ok(only) => vec![only],
        Err(_) => in_turn(look_up(address).await.map_err(Failure::Lookup)?),
    };
    if candidates.is_empty() {
        return Err(Failure::Lookup("it has no address".into()));
    }
    let stream = connect_to_any(&candidates, limit).await.map_err(unreachable)?;
    // Requests and acknowledgements are small, and wait for nothing: Nagle's algorithm would hold them back.
    stream.set_nodelay(true).map_err(|error| Failure::Unreachable(vec![(candidates[0], error)]))?;
    Ok(stream)
}

fn unreachable(mut errors: Vec<(SocketAddr, io::Error)>) -> Failure {
    match errors.iter().position(|(_, error)| handles::are_used_up(error)) {
        Some(place) => Failure::NoHandles(errors.swap_remove(place).1),
        None => Failure::Unreachable(errors),
    }
}

async fn look_up(address: &str) -> Found {
    let mut found = join_look_up(address);
    let found = match found.wait_for(Option::is_some).await {
        Ok(found) => (*found).clone(),
        Err(_) => None,
    };
    found.unwrap_or_else(|| Err("the look-up was broken off".into()))
}

/// A look-up that is under way, or a new one. It goes on if those who wait for it give up.
fn join_look_up(address: &str) -> watch::Receiver<Option<Found>> {
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    // One whose runtime was shut down has ended without a word.
    if let Some(joined) = under_way.get(address).filter(|joined| joined.has_changed().is_ok()) {
        return joined.clone();
    }
    let (tell, told) = watch::channel(None);
    under_way.insert(address.to_owned(), told.clone());
    let address = address.to_owned();
    tokio::spawn(async move {
        let found = tokio::net::lookup_host(&address).await;
        UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
        // Whoever waited may be gone.
        tell.send_replace(Some(found.map(Iterator::collect).map_err(|error| error.to_string())));
    });
    told
}

/// The addresses in the resolver's order, but those of one family not before all of the other (RFC 8305, 4).
fn in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let longer = first.len().max(second.len());
    let mut turns = Vec::new();
    for place in 0..longer {
        for address in first.get(place).into_iter().chain(second.get(place)) {
            if !turns.contains(address) {
                turns.push(*address);
            }
        }
    }
    turns
}

/// Connects to the first of these that answers. The errors are in the order of the addresses.
async fn connect_to_any(candidates: &[SocketAddr], limit: Duration) -> Result<TcpStream, Vec<(SocketAddr, io::Error)>> {
    let mut attempts = JoinSet::new();
    let mut errors = Vec::new();
    let mut left = candidates.iter().copied().enumerate();
    let mut next = left.next();
    let mut next_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            Some(ended) = attempts.join_next() => match ended {
                Ok((_, Ok(stream))) => return Ok(stream),
                Ok((place, Err(error))) => {
                    errors.push((place, error));
                    next_at = Instant::now();
                }
                // A task of this set is neither aborted nor does it panic.
                Err(_) => {}
            },
            () = sleep_until(next_at), if next.is_some() => {
                if let Some((place, address)) = next {
                    attempts.spawn(async move { (place, connect_to(address, limit).await) });
                }
                next = left.next();
                next_at = Instant::now() + STAGGER;
            }
            else => break,
        }
    }
    errors.sort_by_key(|(place, _)| *place);
    Err(errors.into_iter().map(|(place, error)| (candidates[place], error)).collect())
}

async fn connect_to(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    timeout(limit, TcpStream::connect(address)).await.unwrap_or_else(|_| {
        let why = format!("no answer within {}", humantime::format_duration(limit));
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn addresses(text: &[&str]) -> Vec<SocketAddr> {
        text.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// An address that swallows whoever knocks: its queue is full, and nobody takes from it.
    async fn black_hole() -> (SocketAddr, impl Sized) {
        let socket = TcpSocket::new_v6().unwrap();
        socket.bind("[::1]:0".parse().unwrap()).expect("this test needs the IPv6 loopback address");
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            queue.push(connected.unwrap());
        }
        (address, (listener, queue))
    }

    #[test]
    fn families_take_turns_and_no_address_comes_twice() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "10.0.0.1:1"]);
        assert_eq!(in_turn(found), addresses(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"]));
        assert_eq!(in_turn(Vec::new()), []);
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_cost_its_time_limit() {
        let (hole, _kept) = black_hole().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let stream = timeout(LIMIT, connect_to_any(&[hole, there], 2 * LIMIT)).await.expect("long before the limit");
        assert_eq!(stream.unwrap().peer_addr().unwrap(), there);
    }

    #[tokio::test]
    async fn each_address_is_tried_and_named_when_none_answers() {
        let (hole, _kept) = black_hole().await;
        let gone = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        let errors = connect_to_any(&[hole, gone], Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(errors.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [hole, gone]);
        let failure = Failure::Unreachable(errors);
        assert!(!failure.is_refusal());
        let why = failure.why();
        assert!(why.contains(&format!("{hole}: no answer within 1s; {gone}: Connection refused")), "{why}");
    }

    #[tokio::test]
    async fn many_who_ask_for_a_name_share_one_look_up() {
        let name = "shared.invalid:1";
        let first = join_look_up(name);
        let second = join_look_up(name);
        assert!(first.same_channel(&second));
        let Failure::Lookup(why) = connect(name, LIMIT).await.unwrap_err() else { panic!("it has no address") };
        assert!(!why.is_empty());
        assert!(!UNDER_WAY.lock().unwrap().contains_key(name), "it has ended");
    }
}
