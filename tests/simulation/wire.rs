//! A byte stream between the gateway and something outside, with delays and cuts.
//!
//! Invariants
//! - Bytes arrive in order and late. A cut keeps a prefix of what was under way, in each direction for itself.
//! - What a dead process writes goes nowhere; what it wrote before may still arrive.

use std::collections::VecDeque;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fieldbridge::bus::Port;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::tunnel::{self, Unframer};
use super::world::World;

/// Bytes that a direction holds before a writer must wait.
const HOLD_MAX: usize = 256 * 1024;

/// Told when the last of some bytes was read.
type OnRead = Box<dyn FnOnce() + Send>;

/// Bytes under way.
struct Piece {
    /// When they were written.
    written: Instant,
    /// From when on they can be read.
    at: Instant,
    bytes: Vec<u8>,
    on_read: Option<OnRead>,
}

/// One direction.
#[derive(Default)]
struct Way {
    under_way: VecDeque<Piece>,
    end: Option<End>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Bytes vanish from here on, and nobody is told.
    swallows: bool,
}

/// How a direction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order.
    Closed,
    /// Not.
    Reset,
}

impl Way {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn held(&self) -> usize {
        self.under_way.iter().map(|piece| piece.bytes.len()).sum()
    }
}

/// What is told of everything that the gateway writes, at the moment it does.
type Overhear = Box<dyn FnMut(&[u8]) + Send>;

struct Inner {
    to_gateway: Way,
    from_gateway: Way,
    overhear: Option<Overhear>,
    /// What the gateway writes comes back to it.
    echoes: bool,
    /// It goes through a WebSocket: what is made of what the gateway writes when it does, and when that arrives.
    websocket: Option<[Unframer; 2]>,
}

/// The stream, as the outside holds it.
#[derive(Clone)]
pub struct Wire {
    world: Arc<World>,
    /// The life of the process that opened it.
    pub life: u64,
    /// Shortest and longest delay of bytes, ms.
    delay: (u64, u64),
    inner: Arc<Mutex<Inner>>,
}

impl Wire {
    /// A stream that the present life of the process has opened.
    pub fn new(world: &Arc<World>, delay: (u64, u64)) -> Wire {
        let (to_gateway, from_gateway) = Default::default();
        let inner = Inner { to_gateway, from_gateway, overhear: None, echoes: false, websocket: None };
        Wire { world: world.clone(), life: world.life(), delay, inner: Arc::new(Mutex::new(inner)) }
    }

    /// The gateway's end.
    pub fn near(&self) -> Near {
        Near { wire: self.clone(), timer: None }
    }

    /// Whether the gateway holds its end, and it is whole.
    pub fn is_held(&self) -> bool {
        let inner = self.lock();
        self.world.lives(self.life) && inner.from_gateway.end.is_none() && inner.to_gateway.end.is_none()
    }

    /// Everything that the gateway writes is told at once.
    pub fn overhear(&self, told: impl FnMut(&[u8]) + Send + 'static) {
        self.lock().overhear = Some(Box::new(told));
    }

    /// From now on what the gateway writes comes back to it, as from a two-wire adapter that hears itself.
    pub fn echo(&self) {
        self.lock().echoes = true;
    }

    /// From now on what goes through it is in a WebSocket's frames.
    pub fn is_websocket(&self) {
        self.lock().websocket = Some(Default::default());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding a wire")
    }

    fn arrival(&self, way: &Way) -> Instant {
        let delay = Duration::from_millis(self.world.pick(self.delay.0..self.delay.1 + 1));
        let earliest = way.under_way.back().map_or_else(Instant::now, |piece| piece.at);
        earliest.max(Instant::now() + delay)
    }

    /// Sends to the gateway.
    pub fn send(&self, bytes: &[u8]) {
        self.put(bytes, None);
    }

    /// Sends to the gateway a few bytes at a time, at 1 ms a byte, and tells when the first arrive.
    pub fn trickle(&self, bytes: &[u8]) -> Instant {
        let mut inner = self.lock();
        let way = &mut inner.to_gateway;
        let (written, first) = (Instant::now(), self.arrival(way));
        if way.end.is_none() && !way.swallows {
            let mut at = first;
            for piece in bytes.chunks(1 + self.world.pick(0..6) as usize) {
                way.under_way.push_back(Piece { written, at, bytes: piece.to_vec(), on_read: None });
                at += Duration::from_millis(piece.len() as u64);
            }
            way.wake();
        }
        first
    }

    /// Sends to the gateway, and has it told when all was read.
    pub fn send_and_tell(&self, bytes: &[u8], on_read: impl FnOnce() + Send + 'static) {
        self.put(bytes, Some(Box::new(on_read)));
    }

    /// Sends to the gateway, and tells when the bytes arrive there if they do.
    pub fn say(&self, bytes: &[u8]) -> Instant {
        self.put(bytes, None)
    }

    fn put(&self, bytes: &[u8], on_read: Option<OnRead>) -> Instant {
        let mut inner = self.lock();
        let bytes = match inner.websocket {
            Some(_) => tunnel::framed(&self.world, bytes),
            None => bytes.to_vec(),
        };
        let way = &mut inner.to_gateway;
        let (written, at) = (Instant::now(), self.arrival(way));
        if way.end.is_none() && !way.swallows {
            way.under_way.push_back(Piece { written, at, bytes, on_read });
            way.wake();
        }
        at
    }

    /// What the gateway has sent, as soon as there is something, and when it was written. `None`: that was all.
    pub async fn receive(&self) -> Option<(Instant, Vec<u8>)> {
        loop {
            let wait = {
                let mut inner = self.lock();
                let gone = !self.world.lives(self.life);
                let Inner { from_gateway: way, websocket, .. } = &mut *inner;
                match way.under_way.front() {
                    Some(piece) if piece.at <= Instant::now() => {
                        let Piece { written, mut bytes, .. } = way.under_way.pop_front().expect("there is one");
                        way.wake();
                        if let Some([_, arrived]) = websocket {
                            bytes = arrived.take(&bytes);
                        }
                        // A part of a frame, or one that carries nothing.
                        if bytes.is_empty() {
                            continue;
                        }
                        return Some((written, bytes));
                    }
                    Some(piece) => Some(piece.at),
                    None if way.end.is_some() || gone => return None,
                    None => None,
                }
            };
            match wait {
                Some(until) => tokio::time::sleep_until(until).await,
                None => self.woken().await,
            }
        }
    }

    /// Waits until something has happened to what the gateway sends.
    async fn woken(&self) {
        let mut waits = false;
        std::future::poll_fn(|context| {
            let way = &mut self.lock().from_gateway;
            if waits && way.reader.is_none() {
                return Poll::Ready(());
            }
            waits = true;
            way.reader = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ends the stream from outside. Of what is under way a prefix arrives.
    pub fn cut(&self, end: End) {
        let mut inner = self.lock();
        let Inner { to_gateway, from_gateway, websocket, .. } = &mut *inner;
        let is_websocket = websocket.is_some();
        for way in [to_gateway, from_gateway] {
            if way.end.is_none() {
                let mut kept = self.world.pick(0..way.held() as u64 + 1) as usize;
                for piece in &mut way.under_way {
                    if kept < piece.bytes.len() {
                        piece.on_read = None;
                        if is_websocket && kept > 0 {
                            self.world.count("websocket: cut within a frame");
                        }
                    }
                    piece.bytes.truncate(kept);
                    kept -= piece.bytes.len();
                }
                way.under_way.retain(|piece| !piece.bytes.is_empty());
                way.end = Some(end);
            }
            way.wake();
        }
    }

    /// From now on bytes vanish in both directions, and nobody is told.
    pub fn go_half_open(&self) {
        let mut inner = self.lock();
        inner.to_gateway.swallows = true;
        inner.from_gateway.swallows = true;
    }

    /// Whether either side has ended it.
    pub fn is_over(&self) -> bool {
        let inner = self.lock();
        inner.from_gateway.end.is_some() || inner.to_gateway.end.is_some() || !self.world.lives(self.life)
    }
}

/// The gateway's end of a wire.
pub struct Near {
    wire: Wire,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Near {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.wire.world.lives(this.wire.life) {
            return Poll::Pending;
        }
        let pieces = this.wire.world.chance(100);
        let mut inner = this.wire.lock();
        let way = &mut inner.to_gateway;
        if let Some(Piece { at, bytes, on_read, .. }) = way.under_way.front_mut() {
            if *at > Instant::now() {
                let mut timer = Box::pin(tokio::time::sleep_until(*at));
                let _ = timer.as_mut().poll(context);
                this.timer = Some(timer);
                way.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            let most = if pieces { 1 } else { buffer.remaining() };
            let rest = bytes.split_off(bytes.len().min(most));
            buffer.put_slice(bytes);
            match rest.is_empty() {
                true => {
                    let on_read = on_read.take();
                    way.under_way.pop_front();
                    drop(inner);
                    if let Some(tell) = on_read {
                        tell();
                    }
                }
                false => *bytes = rest,
            }
            return Poll::Ready(Ok(()));
        }
        match way.end {
            Some(End::Closed) => Poll::Ready(Ok(())),
            Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            None => {
                way.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Near {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &self.wire;
        if !wire.world.step_of(wire.life) {
            return Poll::Pending;
        }
        let mut inner = wire.lock();
        if inner.from_gateway.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if inner.from_gateway.held() > HOLD_MAX {
            inner.from_gateway.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let Inner { overhear, websocket, .. } = &mut *inner;
        if let Some(overhear) = overhear {
            match websocket {
                Some([written, _]) => overhear(&written.take(bytes)),
                None => overhear(bytes),
            }
        }
        let written = Instant::now();
        if !inner.from_gateway.swallows {
            let at = wire.arrival(&inner.from_gateway);
            inner.from_gateway.under_way.push_back(Piece { written, at, bytes: bytes.to_vec(), on_read: None });
            inner.from_gateway.wake();
        }
        if inner.echoes && inner.to_gateway.end.is_none() {
            let at = wire.arrival(&inner.to_gateway);
            inner.to_gateway.under_way.push_back(Piece { written, at, bytes: bytes.to_vec(), on_read: None });
            inner.to_gateway.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Port for Near {
    fn discard(&self) {}
}

impl Drop for Near {
    fn drop(&mut self) {
        let mut inner = self.wire.lock();
        let Inner { to_gateway, from_gateway, .. } = &mut *inner;
        for way in [to_gateway, from_gateway] {
            way.end.get_or_insert(End::Closed);
            way.wake();
        }
    }
}
