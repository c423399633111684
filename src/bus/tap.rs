//! What goes over a bus's line, for whoever watches: the pieces in which it was written and read, beneath all framing.
//!
//! Invariants
//! - The bus waits for no watcher: what went over the line is put into a queue that has a limit, and the oldest pieces
//!   make room for the next. They are numbered, so that whoever was too slow knows how many were lost.
//! - Where nobody watches nothing is kept.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{timeout, Instant};

use crate::bus::port::owed::Hardware;
use crate::bus::port::{Lines, Opener, Opening, Port};
use crate::config::SerialPort;
use crate::net::Stream;
use crate::time::alarm::Alarm;
use crate::time::Timestamp;

/// Pieces that are kept for those who watch.
const KEPT_MAX: usize = 4096;
/// Bytes in them.
const KEPT_BYTES_MAX: usize = 256 * 1024;
/// Pieces, and bytes in them, that are handed out at once: they must fit a line of the admin socket.
const AT_ONCE_MAX: (usize, usize) = (1000, 64 * 1024);
/// Who has not asked again for so long does not watch any more.
const WATCHED: Duration = Duration::from_secs(30);
/// How long is waited for the next piece.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes that went over a line in one piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// When, in microseconds since 1970.
    pub at: i64,
    /// Whether they were sent from here.
    pub sent: bool,
    /// Which opening of the line it was.
    pub opening: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What has gone over a line since a watcher asked before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// In order.
    pub pieces: Vec<Piece>,
    /// Pieces before these that were lost, because they were not asked for in time.
    pub lost: u64,
    /// What to ask with the next time.
    pub next: u64,
}

/// A place to watch one bus at. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Tap(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether anybody watches, as far as is known.
    is_watched: AtomicBool,
    /// The number of the next piece.
    next: AtomicU64,
    openings: AtomicU64,
    kept: Mutex<Kept>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    /// The last one's number is that of the next piece, less one.
    pieces: VecDeque<Piece>,
    bytes: usize,
    watched_until: Option<Instant>,
    /// The wall clock is read once, so that times keep their distance.
    clock: Option<(Timestamp, Instant)>,
}

impl Tap {
    /// What has gone over the line since what `after` was told with; waits a little if that is nothing. The first time
    /// there is no `after`, and nothing to be told yet.
    pub async fn since(&self, after: Option<u64>) -> Heard {
        let Some(after) = after else {
            drop(self.watch());
            return Heard { pieces: Vec::new(), lost: 0, next: self.0.next.load(Ordering::Acquire) };
        };
        let patience = async {
            loop {
                // Before it is looked: what comes in between wakes all the same.
                let rung = self.0.bell.notified();
                let heard = self.take(after);
                if heard.next > after {
                    return heard;
                }
                rung.await;
            }
        };
        match timeout(PATIENCE, patience).await {
            Ok(heard) => heard,
            Err(_) => self.take(after),
        }
    }

    /// From now on somebody watches, for a while.
    fn watch(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept();
        kept.watched_until = Some(Instant::now() + WATCHED);
        kept.clock.get_or_insert_with(|| (Timestamp::now(), Instant::now()));
        self.0.is_watched.store(true, Ordering::Release);
        kept
    }

    fn take(&self, after: u64) -> Heard {
        let kept = self.watch();
        let next = self.0.next.load(Ordering::Acquire);
        let first = next - kept.pieces.len() as u64;
        let from = after.clamp(first, next);
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        for piece in kept.pieces.iter().skip((from - first) as usize) {
            bytes += piece.bytes.len();
            if pieces.len() == AT_ONCE_MAX.0 || bytes > AT_ONCE_MAX.1 && !pieces.is_empty() {
                break;
            }
            pieces.push(piece.clone());
        }
        let next = from + pieces.len() as u64;
        Heard { pieces, lost: from.saturating_sub(after), next }
    }

    /// Something went over the line.
    fn note(&self, opening: u64, sent: bool, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if !self.0.is_watched.load(Ordering::Acquire) {
            self.0.next.fetch_add(1, Ordering::AcqRel);
            return;
        }
        let (mut kept, now) = (self.kept(), Instant::now());
        self.0.next.fetch_add(1, Ordering::AcqRel);
        if kept.watched_until.is_none_or(|until| until < now) {
            self.0.is_watched.store(false, Ordering::Release);
            *kept = Kept::default();
            return;
        }
        let (began, since) = kept.clock.unwrap_or((Timestamp::now(), now));
        let passed = i64::try_from(now.duration_since(since).as_micros()).unwrap_or(i64::MAX);
        let at = began.0.saturating_mul(1000).saturating_add(passed);
        kept.bytes += bytes.len();
        kept.pieces.push_back(Piece { at, sent, opening, bytes: bytes.to_vec() });
        while kept.pieces.len() > KEPT_MAX || kept.bytes > KEPT_BYTES_MAX {
            let Some(oldest) = kept.pieces.pop_front() else { break };
            kept.bytes -= oldest.bytes.len();
        }
        drop(kept);
        self.0.bell.notify_waiters();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // What is kept is right, whoever panicked while holding it.
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on<S>(&self, stream: S) -> Tapped<S> {
        let opening = self.0.openings.fetch_add(1, Ordering::Relaxed);
        Tapped { stream, tap: self.clone(), opening }
    }
}

/// Lines of which it is told what goes over them.
#[derive(Debug)]
pub(in crate::bus) struct TappedLines {
    lines: Arc<dyn Lines>,
    tap: Tap,
}

impl TappedLines {
    pub(in crate::bus) fn new(lines: Arc<dyn Lines>, tap: Tap) -> TappedLines {
        TappedLines { lines, tap }
    }
}

impl Lines for TappedLines {
    fn connect<'a>(&'a self, address: &'a str, limit: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async move {
            let stream = self.lines.connect(address, limit).await?;
            Ok(Box::new(self.tap.on(stream)) as Box<dyn Stream>)
        })
    }

    fn opener(&self, port: &SerialPort) -> Box<dyn Opener> {
        Box::new(TappedOpener { opener: self.lines.opener(port), tap: self.tap.clone() })
    }

    fn hardware(&self, path: &Path) -> Option<Hardware> {
        self.lines.hardware(path)
    }

    fn peer(&self, address: &str) -> Option<Hardware> {
        self.lines.peer(address)
    }
}

struct TappedOpener {
    opener: Box<dyn Opener>,
    tap: Tap,
}

impl Opener for TappedOpener {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        Box::pin(async {
            let port = self.opener.open().await?;
            Ok(Box::new(self.tap.on(port)) as Box<dyn Port>)
        })
    }
}

/// A line that tells what goes over it.
struct Tapped<S> {
    stream: S,
    tap: Tap,
    opening: u64,
}

impl Port for Tapped<Box<dyn Port>> {
    fn discard(&self) {
        self.stream.discard();
    }

    fn alarm(&self) -> Option<Arc<Alarm>> {
        self.stream.alarm()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Tapped<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            self.tap.note(self.opening, false, &buf.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tapped<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(taken)) = polled {
            self.tap.note(self.opening, true, &bytes[..taken]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_goes_over_a_line_is_told_in_order_and_before_anybody_watches_it_is_not_kept() {
        let tap = Tap::default();
        let (near, mut far) = tokio::io::duplex(64);
        let mut line = tap.on(near);
        line.write_all(b"unseen").await.unwrap();
        far.read_exact(&mut [0; 6]).await.unwrap();
        assert!(tap.kept().pieces.is_empty());
        let Heard { pieces, lost, next } = tap.since(None).await;
        assert_eq!((pieces.len(), lost, next), (0, 0, 1));
        let waiting = tokio::spawn({
            let tap = tap.clone();
            async move { tap.since(Some(next)).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        line.write_all(b"asked").await.unwrap();
        let first = waiting.await.unwrap();
        assert_eq!((first.pieces[0].sent, first.pieces[0].bytes.as_slice()), (true, &b"asked"[..]));
        tokio::time::sleep(Duration::from_millis(7)).await;
        far.write_all(b"answered").await.unwrap();
        line.read_exact(&mut [0; 8]).await.unwrap();
        let second = tap.since(Some(first.next)).await;
        assert_eq!((second.pieces[0].sent, second.pieces[0].bytes.as_slice()), (false, &b"answered"[..]));
        assert_eq!(second.pieces[0].at - first.pieces[0].at, 7_000);
        let silence = tap.since(Some(second.next)).await;
        assert_eq!((silence.pieces.len(), silence.lost, silence.next), (0, 0, second.next));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_too_slow_is_told_how_many_pieces_were_lost_and_memory_has_a_limit() {
        let tap = Tap::default();
        let start = tap.since(None).await.next;
        for n in 0..KEPT_MAX + 10 {
            tap.note(0, true, &[n as u8]);
        }
        assert_eq!(tap.kept().pieces.len(), KEPT_MAX);
        let heard = tap.since(Some(start)).await;
        assert_eq!((heard.lost, heard.pieces.len(), heard.pieces[0].bytes[0]), (10, AT_ONCE_MAX.0, 10));
        assert_eq!(heard.next, start + 10 + AT_ONCE_MAX.0 as u64);
        for _ in 0..100 {
            tap.note(0, false, &[0; 8192]);
        }
        let kept = tap.kept().pieces.len();
        assert!(tap.kept().bytes <= KEPT_BYTES_MAX && kept == KEPT_BYTES_MAX / 8192, "{kept}");
        let heard = tap.since(Some(heard.next)).await;
        assert_eq!(heard.pieces.len(), AT_ONCE_MAX.1 / 8192, "{heard:?}");
        // Who does not ask again does not watch, and what was kept is forgotten.
        tokio::time::sleep(WATCHED + Duration::from_secs(1)).await;
        tap.note(0, true, b"x");
        assert!(tap.kept().pieces.is_empty() && !tap.0.is_watched.load(Ordering::Acquire));
        let after = heard.next;
        let heard = tap.since(Some(after)).await;
        assert_eq!((heard.pieces.len(), heard.lost), (0, heard.next - after));
    }
}
