//! The network between the daemon and the hub: a TCP proxy that can be cut, half-open, slow and petty.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fieldbridge::demo::hub::Cut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};

/// How the line carries what it carries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    Fair,
    /// So much later, and so many bytes a second.
    Slow(Duration, u32),
    /// Byte by byte.
    Split,
}

/// How a connection stands.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Standing {
    Open,
    /// Both ends believe that it is open, and nothing arrives any more, the end included.
    HalfOpen,
    Cut(Cut),
}

struct Shared {
    target: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: Mutex<Vec<watch::Sender<Standing>>>,
    /// Bytes that were carried in other than fair weather, or swallowed.
    suffered: AtomicU64,
}

/// A running proxy. It ends when it is dropped, and every connection with it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

impl Proxy {
    /// To this address.
    pub fn new(target: SocketAddr) -> Proxy {
        let shared = Arc::new(Shared {
            target,
            weather: watch::Sender::new(Weather::Fair),
            connections: Mutex::default(),
            suffered: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let (give, take) = std::sync::mpsc::channel();
        let serving = shared.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
                give.send(listener.local_addr().expect("a listener has an address")).expect("the test waits for it");
                tokio::select! {
                    () = accept(listener, serving) => {}
                    // An error is the test's end too.
                    _ = stopped => {}
                }
            });
        });
        Proxy { address: take.recv().expect("the proxy starts"), shared, _stop: stop }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_weather(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Cuts every connection, and says how many there were.
    pub fn cut(&self, how: Cut) -> usize {
        self.shared.set(Standing::Open, Standing::Cut(how))
    }

    /// Cuts those that are half-open, and says how many there were.
    pub fn cut_half_open(&self, how: Cut) -> usize {
        self.shared.set(Standing::HalfOpen, Standing::Cut(how))
    }

    /// From now on nothing arrives over any present connection. Says how many there are.
    pub fn half_open(&self) -> usize {
        self.shared.set(Standing::Open, Standing::HalfOpen)
    }

    /// Bytes so far that have suffered.
    pub fn suffered(&self) -> u64 {
        self.shared.suffered.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Says how many there were of those that stood so.
    fn set(&self, present: Standing, standing: Standing) -> usize {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|connection| !connection.is_closed());
        let mut count = 0;
        for connection in connections.iter().filter(|connection| *connection.borrow() == present) {
            connection.send_replace(standing);
            count += 1;
        }
        count
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((near, _)) = listener.accept().await else { continue };
        let (standing, seen) = watch::channel(Standing::Open);
        shared.connections.lock().unwrap_or_else(PoisonError::into_inner).push(standing);
        tokio::spawn(connection(near, seen, shared.clone()));
    }
}

async fn connection(mut near: TcpStream, mut standing: watch::Receiver<Standing>, shared: Arc<Shared>) {
    // A hub that is down refuses; the daemon sees the connection end.
    let Ok(mut far) = TcpStream::connect(shared.target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (from_near, to_near) = near.split();
    let (from_far, to_far) = far.split();
    let up = pump(from_near, to_far, standing.clone(), &shared);
    let down = pump(from_far, to_near, standing.clone(), &shared);
    let how = tokio::select! {
        _ = async { tokio::join!(up, down) } => return,
        how = standing.wait_for(|standing| matches!(standing, Standing::Cut(_))) => how.is_ok_and(|how| *how == Standing::Cut(Cut::Reset)),
    };
    if how {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    standing: watch::Receiver<Standing>,
    shared: &Shared,
) {
    let mut buffer = [0; 1024];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        let carried = carry(&buffer[..length], &mut to, &standing, shared).await;
        if length == 0 && *standing.borrow() == Standing::HalfOpen {
            return std::future::pending().await;
        }
        if length == 0 || carried.is_err() {
            // The other side is gone, or goes: nobody is there to be told.
            let _ = to.shutdown().await;
            return;
        }
    }
}

/// Carries some bytes, as the weather is.
async fn carry(
    bytes: &[u8],
    to: &mut (impl AsyncWrite + Unpin),
    standing: &watch::Receiver<Standing>,
    shared: &Shared,
) -> std::io::Result<()> {
    let weather = *shared.weather.borrow();
    if let Weather::Slow(delay, rate) = weather {
        tokio::time::sleep(delay + Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate))).await;
    }
    let swallowed = *standing.borrow() == Standing::HalfOpen;
    if swallowed || weather != Weather::Fair {
        shared.suffered.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
    match weather {
        _ if swallowed => Ok(()),
        Weather::Split => {
            for byte in bytes {
                to.write_all(&[*byte]).await?;
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        _ => to.write_all(bytes).await,
    }
}
