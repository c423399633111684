//! Opening serial ports and TCP connections, moving bytes, and saying to a person what went wrong with either.
//!
//! Invariants
//! - Nothing here waits without a limit, and nothing blocks the runtime's threads: opening a port can take seconds when
//!   an adapter hangs, so it is done on a thread of its own.
//! - A write tells how many bytes were taken: that number decides between "not sent" and "perhaps done".

pub mod error;
pub mod owed;
pub(in crate::bus) mod timing;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at, Instant};
use tokio_serial::{ClearBuffer, SerialPort as _, SerialStream};

use crate::bus::call::Wire;
use crate::bus::link::{Ended, Lost};
use crate::bus::port::error::{Cause, NotOpened};
use crate::bus::port::owed::Identity;
use crate::config::{Parity, SerialPort};
use crate::net::{self, Stream};
use crate::proof::crash::{self, Point};

/// A port that takes longer to open has a hanging driver.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Most bytes of a reply that a message to a person repeats.
const SHOWN_BYTES_MAX: usize = 24;

/// A byte stream that a serial bus runs on.
pub trait Port: Stream {
    /// Throws away what was written and not sent. Closing a port with such bytes in it waits for them, for up to 30 s
    /// (`closing_wait` of the Linux serial core), and would hold up everything else.
    fn discard(&self);
}

impl Port for SerialStream {
    fn discard(&self) {
        if let Err(error) = self.clear(ClearBuffer::All) {
            tracing::debug!(%error, "a port could not be emptied");
        }
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
    fn identity(&self, path: &Path) -> Option<Identity> {
        Identity::of_device(path)
    }
}

/// Opens one serial port.
pub trait Opener: Send {
    /// Opens the port, within seconds.
    fn open(&mut self) -> Opening<'_, Box<dyn Port>>;
}

/// The lines of the system.
#[derive(Debug)]
pub struct SystemLines;

impl Lines for SystemLines {
    fn connect<'a>(&'a self, address: &'a str, limit: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async move { Ok(Box::new(open_tcp(address, limit).await?) as Box<dyn Stream>) })
    }

    fn opener(&self, port: &SerialPort) -> Box<dyn Opener> {
        Box::new(SystemOpener { port: port.clone(), pending: None })
    }
}

/// The serial line of a bus, open or not.
pub(in crate::bus) struct Line {
    /// The port and its settings.
    pub(in crate::bus) port: SerialPort,
    /// The open port.
    pub(in crate::bus) stream: Option<Box<dyn Port>>,
    opener: Box<dyn Opener>,
}

impl Line {
    /// A line that is not open yet.
    pub(in crate::bus) fn new(port: SerialPort, lines: &dyn Lines) -> Line {
        let opener = lines.opener(&port);
        Line { port, stream: None, opener }
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

    /// Closes the line that was lost, for this reason and with this end of the exchange.
    pub(in crate::bus) fn lost(&mut self, why: &str, wire: fn(String) -> Wire) -> Ended {
        self.close();
        let why = format!("{} {why}", self.port.path.display());
        Ended { wire: wire(why.clone()), lost: Some(Lost::Gone(why)) }
    }
}

/// Opens one serial port, on a thread of its own. An attempt that hangs in the driver is waited for by the next one
/// instead of being repeated: each would take another thread.
#[derive(Debug)]
struct SystemOpener {
    port: SerialPort,
    pending: Option<oneshot::Receiver<tokio_serial::Result<SerialStream>>>,
}

impl Opener for SystemOpener {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        Box::pin(async { Ok(Box::new(self.open_port().await?) as Box<dyn Port>) })
    }
}

impl SystemOpener {
    /// Opens the port. The error is a sentence that names the port and the remedy.
    async fn open_port(&mut self) -> Result<SerialStream, NotOpened> {
        let name = self.port.path.display();
        if self.pending.is_none() {
            self.pending = Some(begin_to_open(&self.port).map_err(|error| format!("{name} can't be opened: {error}"))?);
        }
        let Some(pending) = &mut self.pending else { return Err(format!("{name} can't be opened").into()) };
        let opened = match timeout(OPEN_TIMEOUT, pending).await {
            Err(_) => {
                return Err(NotOpened::new(
                    Cause::Hung,
                    format!("{name} can't be opened: its driver does not respond"),
                ));
            }
            Ok(opened) => opened,
        };
        self.pending = None;
        match opened {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => {
                let (cause, remedy) = serial_remedy(&error);
                Err(NotOpened::new(cause, format!("{name} can't be opened: {remedy}")))
            }
            Err(_) => Err(format!("{name} can't be opened: the attempt failed").into()),
        }
    }
}

fn begin_to_open(port: &SerialPort) -> io::Result<oneshot::Receiver<tokio_serial::Result<SerialStream>>> {
    let (give, take) = oneshot::channel();
    let (settings, runtime) = (port.clone(), tokio::runtime::Handle::current());
    std::thread::Builder::new().name("open port".into()).spawn(move || {
        let _runtime = runtime.enter();
        // What the name leads to decides, not the name: people link to ports by names of their own.
        let opened = std::fs::canonicalize(&settings.path)
            .map_err(tokio_serial::Error::from)
            .and_then(|real| SerialStream::open(&builder(&settings, &real)));
        // A bus that has ended meanwhile needs no port.
        let _ = give.send(opened);
    })?;
    Ok(take)
}

fn builder(port: &SerialPort, real: &Path) -> tokio_serial::SerialPortBuilder {
    use tokio_serial::{DataBits, FlowControl, StopBits};
    // A port of ours is nobody else's. A pseudo-terminal is not locked: its lock would outlive a holder that was
    // killed, for as long as the other end keeps it, and it would never open again.
    let is_pseudo = real.starts_with("/dev/pts");
    tokio_serial::new(real.to_string_lossy(), port.baud)
        .exclusive(!is_pseudo)
        .flow_control(FlowControl::None)
        .parity(match port.parity {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        })
        .data_bits(match port.data_bits {
            5 => DataBits::Five,
            6 => DataBits::Six,
            7 => DataBits::Seven,
            _ => DataBits::Eight,
        })
        .stop_bits(match port.stop_bits {
            2 => StopBits::Two,
            _ => StopBits::One,
        })
}

fn serial_remedy(error: &tokio_serial::Error) -> (Cause, String) {
    use tokio_serial::ErrorKind;
    match error.kind {
        ErrorKind::Io(io::ErrorKind::NotFound) => (Cause::Missing, "no such file: is the adapter plugged in?".into()),
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
            (Cause::Denied, "permission denied: is the user in group dialout?".into())
        }
        // The library's word for EBUSY and for a lock that another program holds.
        ErrorKind::NoDevice => (Cause::Held, "another program holds it".into()),
        _ => (Cause::Other, format!("{}: is it a serial port, and is its adapter working?", error.description)),
    }
}

/// Connects to `HOST:PORT`; a name is looked up now. The error is a sentence that names the address.
async fn open_tcp(address: &str, limit: Duration) -> Result<TcpStream, NotOpened> {
    // The look-up has its part in the limit.
    let why = match timeout(limit, net::connect(address, limit)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(failure)) if failure.is_refusal() => {
            "it refuses the connection: is its Modbus server switched on, and is the port right?".into()
        }
        Ok(Err(failure)) => failure.why(),
        Err(_) => format!("no connection within {}", shown(limit)),
    };
    Err(NotOpened::new(Cause::Unreachable, format!("{address} can't be reached: {why}")))
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

/// A write that did not take all bytes.
#[derive(Debug)]
pub(in crate::bus) struct Cut {
    /// Bytes that were taken.
    pub(in crate::bus) sent: usize,
    /// Why no more, as a sentence without subject.
    pub(in crate::bus) why: String,
}

/// Writes all bytes within the limit, the first of them before `not_after`, or none. It returns when they are in the
/// system's buffer, which on a serial line is before they are on the wire: waiting for that would block the thread.
pub(in crate::bus) async fn write_by<S>(
    stream: &mut S,
    bytes: &[u8],
    limit: Duration,
    not_after: Option<Instant>,
) -> Result<(), Cut>
where
    S: AsyncWrite + Unpin + ?Sized,
{
    let end = Instant::now() + limit;
    let mut sent = 0;
    crash::point(Point::BeforeFirstByte);
    while sent < bytes.len() {
        let first_by = not_after.filter(|_| sent == 0);
        if first_by.is_some_and(|last| Instant::now() >= last) {
            return Err(Cut { sent, why: "was not free in time".into() });
        }
        let until = first_by.map_or(end, |last| last.min(end));
        let why = match timeout_at(until, stream.write(crash::piece(&bytes[sent..]))).await {
            Ok(Ok(0)) => "takes no more bytes".into(),
            Ok(Ok(len)) => {
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

/// A duration as it is written in the configuration.
pub(in crate::bus) fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opener(path: &Path) -> SystemOpener {
        let port = SerialPort { path: path.into(), baud: 9600, parity: Parity::None, data_bits: 8, stop_bits: 1 };
        SystemOpener { port, pending: None }
    }

    #[tokio::test]
    async fn a_port_that_can_not_be_opened_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("ttyUSB0");
        let why = opener(&missing).open_port().await.unwrap_err().why;
        assert!(why.contains("ttyUSB0") && why.contains("is the adapter plugged in?"), "{why}");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let why = opener(&file).open_port().await.unwrap_err().why;
        assert!(why.contains("is it a serial port"), "{why}");
        for (kind, remedy) in
            [(io::ErrorKind::PermissionDenied, "group dialout"), (io::ErrorKind::NotFound, "plugged in")]
        {
            let error = tokio_serial::Error::from(io::Error::from(kind));
            assert!(serial_remedy(&error).1.contains(remedy));
        }
    }

    #[tokio::test]
    async fn a_held_port_is_explained_and_a_pseudo_terminal_is_never_locked() {
        use tokio_serial::SerialPort as _;
        let (_master, mut slave) = SerialStream::pair().unwrap();
        let path = slave.name().unwrap();
        let opened = opener(Path::new(&path)).open_port().await.unwrap();
        assert!(!opened.exclusive());
        drop(opened);
        slave.set_exclusive(true).unwrap();
        let why = opener(Path::new(&path)).open_port().await.unwrap_err().why;
        assert!(why.contains("another program holds it"), "{why}");
    }

    #[tokio::test]
    async fn an_address_that_can_not_be_reached_is_explained() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let why = open_tcp(&address, OPEN_TIMEOUT).await.unwrap_err().why;
        assert!(why.contains(&address) && why.contains("refuses"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_gets_stuck_says_how_much_was_taken() {
        let (mut near, far) = tokio::io::duplex(4);
        let cut = write_by(&mut near, b"123456", Duration::from_secs(1), None).await.unwrap_err();
        assert_eq!(cut.sent, 4);
        drop(far);
        let cut = write_by(&mut near, b"1", Duration::from_secs(1), None).await.unwrap_err();
        assert_eq!(cut.sent, 0);
    }

    #[test]
    fn long_replies_are_shown_short() {
        assert_eq!(hex(&[7, 0xFF]), "07 ff");
        assert!(hex(&[0; 100]).ends_with("00 …"));
    }
}
