//! Opening a serial port of this machine.
//!
//! Opening one can take seconds when its adapter hangs, so it is done on a thread of its own: nothing here blocks the
//! runtime's threads.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_serial::{ClearBuffer, SerialPort as _, SerialStream};

use super::error::{Cause, NotOpened};
use super::{latency, rs485, Opener, Opening, Port};
use crate::config::{LowLatency, Parity, SerialPort};
use crate::time::alarm::Alarm;

/// A port that takes longer to open has a hanging driver.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// An open serial port, whose pauses are as short as its characters.
#[derive(Debug)]
struct OpenPort {
    stream: SerialStream,
    alarm: Option<Arc<Alarm>>,
}

impl OpenPort {
    fn new(stream: SerialStream) -> OpenPort {
        let alarm = Alarm::new().map_err(|error| tracing::debug!(%error, "no timer for a port: it is used without"));
        OpenPort { stream, alarm: alarm.ok().map(Arc::new) }
    }
}

impl Port for OpenPort {
    fn discard(&self) {
        if let Err(error) = self.stream.clear(ClearBuffer::All) {
            tracing::debug!(%error, "a port could not be emptied");
        }
    }

    fn alarm(&self) -> Option<Arc<Alarm>> {
        self.alarm.clone()
    }
}

impl AsyncRead for OpenPort {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for OpenPort {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Opens one serial port, on a thread of its own. An attempt that hangs in the driver is waited for by the next one
/// instead of being repeated: each would take another thread.
#[derive(Debug)]
pub(super) struct SerialOpener {
    port: SerialPort,
    pending: Option<oneshot::Receiver<Opened>>,
}

/// The port, or why there is none, with the remedy.
type Opened = Result<SerialStream, (Cause, String)>;

impl Opener for SerialOpener {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        Box::pin(async { Ok(Box::new(OpenPort::new(self.open_port().await?)) as Box<dyn Port>) })
    }
}

impl SerialOpener {
    /// Of a port that nothing was tried with.
    pub(super) fn new(port: SerialPort) -> SerialOpener {
        SerialOpener { port, pending: None }
    }

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
            Ok(Err((cause, remedy))) => Err(NotOpened::new(cause, format!("{name} can't be opened: {remedy}"))),
            Err(_) => Err(format!("{name} can't be opened: the attempt failed").into()),
        }
    }
}

fn begin_to_open(port: &SerialPort) -> io::Result<oneshot::Receiver<Opened>> {
    let (give, take) = oneshot::channel();
    let (settings, runtime) = (port.clone(), tokio::runtime::Handle::current());
    std::thread::Builder::new().name("open port".into()).spawn(move || {
        let _runtime = runtime.enter();
        // What the name leads to decides, not the name: people link to ports by names of their own.
        let opened = std::fs::canonicalize(&settings.path)
            .map_err(tokio_serial::Error::from)
            .and_then(|real| SerialStream::open(&builder(&settings, &real)))
            .map_err(|error| serial_remedy(&error))
            .and_then(|stream| match &settings.rs485 {
                None => Ok(stream),
                Some(wanted) => rs485::take(&stream, wanted).map(|()| stream).map_err(|remedy| (Cause::Other, remedy)),
            });
        if let Ok(stream) = &opened {
            ask_for_latency(stream, &settings);
        }
        // A bus that has ended meanwhile needs no port.
        let _ = give.send(opened);
    })?;
    Ok(take)
}

/// Has the adapter pass on at once what has come, or leave that. A port that can't is used as it is.
fn ask_for_latency(stream: &SerialStream, port: &SerialPort) {
    let (low, name) = (port.low_latency != LowLatency::Unwanted, port.path.display());
    match (latency::take(stream, low), port.low_latency) {
        (Ok(()), _) => {}
        (Err(error), LowLatency::Wanted) => tracing::info!(
            port = %name,
            %error,
            "its driver knows nothing of low latency (low_latency): it is used as it is; remove low_latency"
        ),
        (Err(error), _) => tracing::debug!(port = %name, %error, "its driver knows nothing of low latency"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rs485;

    fn opener(path: &Path) -> SerialOpener {
        SerialOpener::new(port(path, None))
    }

    fn port(path: &Path, rs485: Option<Rs485>) -> SerialPort {
        SerialPort {
            path: path.into(),
            baud: 9600,
            parity: Parity::None,
            data_bits: 8,
            stop_bits: 1,
            rs485,
            low_latency: LowLatency::IfPossible,
        }
    }

    #[tokio::test]
    async fn a_port_that_can_not_switch_the_direction_of_its_line_is_not_relied_on_and_it_is_said_what_to_do() {
        use tokio_serial::SerialPort as _;
        let (_master, slave) = SerialStream::pair().unwrap();
        let path = slave.name().unwrap();
        let rs485 = Rs485 { rts_on_send: true, delay_before: Duration::ZERO, delay_after: Duration::ZERO };
        let why = SerialOpener::new(port(Path::new(&path), Some(rs485))).open_port().await.unwrap_err().why;
        assert!(why.contains(&path) && why.contains("RS-485") && why.contains("remove rs485"), "{why}");
        // Without it, it opens.
        opener(Path::new(&path)).open_port().await.unwrap();
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
}
