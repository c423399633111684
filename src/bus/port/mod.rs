//! Opening serial ports and TCP connections, moving bytes, and saying to a person what went wrong with either. What the
//! bytes mean is the framing's business: any framing runs on any port.
//!
//! Invariants
//! - Nothing here waits without a limit, and nothing blocks the runtime's threads.
//! - A write tells how many bytes were taken: that number decides between "not sent" and "perhaps done".

pub mod error;
mod latency;
pub mod owed;
mod rs485;
mod serial;
mod tcp;
pub(in crate::bus) mod timing;

use std::fmt;
use std::future::{poll_fn, Future};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::{timeout_at, Instant};

use crate::bus::call::Call;
use crate::bus::port::error::NotOpened;
use crate::bus::port::owed::Hardware;
use crate::config::{Endpoint, SerialPort};
use crate::net::Stream;
use crate::proof::crash::{self, Point};
use crate::time::alarm::Alarm;
use crate::time::until;

/// How long a connection may take to be made: a few repetitions of a lost SYN.
pub(in crate::bus) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Most bytes of a reply that a message to a person repeats.
const SHOWN_BYTES_MAX: usize = 24;

/// A byte stream that a line runs on.
pub trait Port: Stream {
    /// Throws away what was written and not sent. Closing a port with such bytes in it waits for them, for up to 30 s
    /// (`closing_wait` of the Linux serial core), and would hold up everything else.
    fn discard(&self);
    /// What ends pauses on the port to the microsecond. `None`: they end with the next millisecond, as tokio's timers
    /// do, by whatever clock those have.
    fn alarm(&self) -> Option<Arc<Alarm>> {
        None
    }
}

/// The end of opening something. The error is a sentence that names it and the remedy.
pub type Opening<'a, T> = Pin<Box<dyn Future<Output = Result<T, NotOpened>> + Send + 'a>>;

/// Where lines come from: the system, unless a simulation stands in for it.
pub trait Lines: fmt::Debug + Send + Sync {
    /// Connects to `HOST:PORT` within `limit`; a name is looked up now.
    fn connect<'a>(&'a self, address: &'a str, limit: Duration) -> Opening<'a, Box<dyn Stream>>;
    /// What opens one serial port, as often as it is needed.
    fn opener(&self, port: &SerialPort) -> Box<dyn Opener>;
    /// What a port is that was just opened by this path, beside its path.
    fn hardware(&self, path: &Path) -> Option<Hardware> {
        Hardware::of_device(path)
    }
    /// Who has answered at an address that was just connected to, beside that: a server may have several names.
    fn peer(&self, _address: &str) -> Option<Hardware> {
        None
    }
}

/// Opens one port, as often as it is needed.
pub trait Opener: Send {
    /// Opens the port, within seconds.
    fn open(&mut self) -> Opening<'_, Box<dyn Port>>;
}

/// The lines of the system.
#[derive(Debug)]
pub struct SystemLines;

impl Lines for SystemLines {
    fn connect<'a>(&'a self, address: &'a str, limit: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async move { Ok(Box::new(tcp::open(address, limit).await?) as Box<dyn Stream>) })
    }

    fn opener(&self, port: &SerialPort) -> Box<dyn Opener> {
        Box::new(serial::SerialOpener::new(port.clone()))
    }

    fn peer(&self, address: &str) -> Option<Hardware> {
        tcp::peer(address)
    }
}

/// The line of a bus that has one at a time, open or not.
pub(in crate::bus) struct Line {
    /// Where it is.
    pub(in crate::bus) endpoint: Endpoint,
    /// The open port.
    pub(in crate::bus) stream: Option<Box<dyn Port>>,
    opener: Box<dyn Opener>,
}

impl Line {
    /// A line that is not open yet.
    pub(in crate::bus) fn new(endpoint: Endpoint, lines: &Arc<dyn Lines>) -> Line {
        let opener = match &endpoint {
            Endpoint::Serial(port) => lines.opener(port),
            Endpoint::Tcp(address) => Box::new(tcp::Connector::new(address.clone(), lines.clone())),
        };
        Line { endpoint, stream: None, opener }
    }

    /// Opens the port. The error is a sentence that names the port and the remedy.
    pub(in crate::bus) async fn open(&mut self) -> Result<Box<dyn Port>, NotOpened> {
        self.opener.open().await
    }

    /// Closes the line.
    pub(in crate::bus) fn close(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.discard();
        }
    }
}

/// Lets the runtime ask the system what has arrived: before that, bytes that are there are not known to be.
pub(in crate::bus) async fn catch_up() {
    tokio::task::yield_now().await;
}

/// Reads what is there, or waits for it. An error, which is a sentence without subject, means that the line is gone.
/// Cancel-safe.
pub(in crate::bus) async fn read<S>(stream: &mut S, chunk: &mut [u8]) -> Result<usize, String>
where
    S: AsyncRead + Unpin + ?Sized,
{
    match stream.read(chunk).await {
        // A terminal that hung up reads as ended, at once and for ever.
        Ok(0) => Err("was closed from the other side, or unplugged".into()),
        Ok(len) => Ok(len),
        Err(error) => Err(format!("was lost: {error}")),
    }
}

/// The same until a moment, and `None` behind it. What is there by then is read first, also if the moment has passed.
pub(in crate::bus) async fn read_until(
    port: &mut Box<dyn Port>,
    chunk: &mut [u8],
    moment: Instant,
) -> Option<Result<usize, String>> {
    let alarm = port.alarm();
    let moment = async {
        match &alarm {
            Some(alarm) => alarm.until(moment).await,
            None => until(moment).await,
        }
        catch_up().await;
    };
    tokio::select! {
        biased;
        read = read(port, chunk) => Some(read),
        () = moment => None,
    }
}

/// A write that did not take all bytes.
#[derive(Debug)]
pub(in crate::bus) struct Cut {
    /// Bytes that were taken.
    pub(in crate::bus) sent: usize,
    /// Why no more, as a sentence without subject.
    pub(in crate::bus) why: String,
}

/// Writes all bytes of a call within the limit, or none if it is called off before the first has left. It returns when
/// they are in the system's buffer, which on a serial line is before they are on the wire: waiting for that would block
/// the thread.
pub(in crate::bus) async fn write_by<S>(stream: &mut S, bytes: &[u8], limit: Duration, call: &Call) -> Result<(), Cut>
where
    S: AsyncWrite + Unpin + ?Sized,
{
    let end = Instant::now() + limit;
    let mut sent = 0;
    crash::point(Point::BeforeFirstByte);
    while sent < bytes.len() {
        let piece = crash::piece(&bytes[sent..]);
        // The last look at the clock: whatever the thread did meanwhile, a timer may not have been seen to run out.
        let write = poll_fn(|cx| match sent {
            0 if call.is_called_off() => Poll::Ready(Ok(None)),
            0 => call.permit.offer(|| Pin::new(&mut *stream).poll_write(cx, piece)).map_ok(Some),
            _ => Pin::new(&mut *stream).poll_write(cx, piece).map_ok(Some),
        });
        let written = tokio::select! {
            biased;
            () = call.called_off(), if sent == 0 => Ok(Ok(None)),
            written = timeout_at(end, write) => written,
        };
        let why = match written {
            Ok(Ok(None)) => "was not free in time".into(),
            Ok(Ok(Some(0))) => "takes no more bytes".into(),
            Ok(Ok(Some(len))) => {
                sent += len;
                if sent < bytes.len() {
                    crash::point(Point::RequestHalfWritten);
                }
                continue;
            }
            Ok(Err(error)) => format!("was lost: {error}"),
            Err(_) => "takes no bytes: is it held up by the other side?".into(),
        };
        return Err(Cut { sent, why });
    }
    crash::point(Point::RequestWritten);
    Ok(())
}

/// Bytes as a person is shown them: `07 03 04 …`.
pub(in crate::bus) fn hex(bytes: &[u8]) -> String {
    let shown: Vec<_> = bytes.iter().take(SHOWN_BYTES_MAX).map(|b| format!("{b:02x}")).collect();
    let more = if bytes.len() > SHOWN_BYTES_MAX { " …" } else { "" };
    format!("{}{more}", shown.join(" "))
}

/// Text of a line as a person is shown it, with what is no text escaped: `:0703…\r\n`.
pub(in crate::bus) fn text(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 3 * SHOWN_BYTES_MAX;
    let more = if bytes.len() > SHOWN_MAX { " …" } else { "" };
    format!("{}{more}", bytes[..bytes.len().min(SHOWN_MAX)].escape_ascii())
}

/// A duration as it is written in the configuration.
pub(in crate::bus) fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::time::sleep;

    use super::*;
    use crate::peripheral::exchange::Request;

    fn call() -> Call {
        let request = Request::ReadWords { holding: true, address: 0, count: 1 };
        Call::new(7, request)
    }

    #[tokio::test]
    async fn what_the_thread_did_meanwhile_is_seen_by_the_last_look_at_the_clock() {
        let (mut near, mut far) = tokio::io::duplex(64);
        let moment = Instant::now() + Duration::from_micros(200);
        let call = Call { not_after: Some(moment), ..call() };
        // Another task has the thread: no timer can run out.
        while Instant::now() < moment {}
        let cut = write_by(&mut near, b"late", Duration::from_secs(9), &call).await.unwrap_err();
        assert_eq!(cut.sent, 0);
        drop(near);
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_is_taken_back_until_the_first_byte_has_left_and_no_longer() {
        let (near, mut far) = tokio::io::duplex(4);
        let (mut near, limit) = (near, Duration::from_secs(9));
        near.write_all(b"full").await.unwrap();
        // Nothing is taken yet.
        let call = call();
        let (began, write) = (Instant::now(), write_by(&mut near, b"first", limit, &call));
        let take_back = async {
            sleep(Duration::from_secs(2)).await;
            call.permit.take_back()
        };
        let (cut, taken_back) = tokio::join!(write, take_back);
        assert!(taken_back && cut.unwrap_err().sent == 0 && began.elapsed() == Duration::from_secs(2));
        let call = self::call();
        far.read_exact(&mut [0; 4]).await.unwrap();
        let write = write_by(&mut near, b"second", limit, &call);
        let take_back = async {
            sleep(Duration::from_secs(2)).await;
            let taken_back = call.permit.take_back();
            let mut request = [0; 6];
            far.read_exact(&mut request).await.unwrap();
            (taken_back, request)
        };
        let (written, (taken_back, request)) = tokio::join!(write, take_back);
        assert!(written.is_ok() && !taken_back && request == *b"second");
        let call = self::call();
        assert!(call.permit.take_back());
        assert_eq!(write_by(&mut near, b"third", limit, &call).await.unwrap_err().sent, 0);
        drop(near);
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0, "nothing of it has left");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_gets_stuck_says_how_much_was_taken() {
        let (call, (mut near, far)) = (call(), tokio::io::duplex(4));
        let cut = write_by(&mut near, b"123456", Duration::from_secs(1), &call).await.unwrap_err();
        assert_eq!(cut.sent, 4);
        drop(far);
        let cut = write_by(&mut near, b"1", Duration::from_secs(1), &call).await.unwrap_err();
        assert_eq!(cut.sent, 0);
    }

    #[test]
    fn long_replies_are_shown_short() {
        assert_eq!(hex(&[7, 0xFF]), "07 ff");
        assert!(hex(&[0; 100]).ends_with("00 …"));
        assert_eq!(text(b":07\r\n\xFF"), ":07\\r\\n\\xff");
        assert!(text(&[b'0'; 100]).ends_with("00 …"));
    }
}
