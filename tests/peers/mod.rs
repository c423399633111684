//! Peers written at byte level, and buses to put them on.

#![allow(dead_code, reason = "each test crate uses its part")]
#![allow(clippy::unwrap_used, reason = "a peer that fails fails its test")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fieldbridge::bus::call::{Call, Wire};
use fieldbridge::bus::{self, BusHandle, BusStatus, Owed, Worker};
use fieldbridge::config::{Bus, BusKind, Endpoint, LowLatency, Parity, SerialPort};
use fieldbridge::peripheral::exchange::Request;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_serial::{SerialPort as _, SerialStream};
use tokio_util::sync::CancellationToken;

/// Long enough for anything that must happen, on a machine however busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Short enough to wait out often, long enough that nothing real is waited for with it.
pub const SHORT: Duration = Duration::from_millis(60);

/// A bus with its worker.
pub struct Running {
    pub bus: BusHandle,
    pub stop: CancellationToken,
    pub worker: JoinHandle<()>,
}

/// A bus that waits long for an answer.
fn settings(kind: BusKind) -> Bus {
    let (turnaround, retry_pause) = (Duration::ZERO, Duration::ZERO);
    let (retries, late_window, strips_echo) = (2, None, false);
    let (response_timeout, connect_pause, idle_close) = (PATIENCE, Duration::ZERO, None);
    let (unreachable_after, probe_interval) = (3, Duration::from_secs(10));
    Bus {
        kind,
        response_timeout,
        retries,
        turnaround,
        retry_pause,
        late_window,
        strips_echo,
        connect_pause,
        idle_close,
        max_in_flight: 1,
        unreachable_after,
        probe_interval,
    }
}

impl Running {
    pub fn start(kind: BusKind) -> Running {
        Running::with_turnaround(kind, Duration::ZERO)
    }

    pub fn with_turnaround(kind: BusKind, turnaround: Duration) -> Running {
        Running::with(kind, turnaround, |worker| worker)
    }

    /// As in a daemon that may have had an earlier life, whose commands had timeouts of up to `longest`.
    pub fn after_an_earlier_life(kind: BusKind, longest: Duration) -> Running {
        let now = tokio::time::Instant::now();
        Running::with(kind, Duration::ZERO, |worker| worker.after_an_earlier_life(now, longest, Duration::ZERO))
    }

    /// A bus that waits so long for an answer.
    pub fn with_timeout(kind: BusKind, response_timeout: Duration) -> Running {
        Running::of(Bus { response_timeout, ..settings(kind) }, |worker| worker)
    }

    /// A bus whose adapter is said to echo.
    pub fn that_strips_echoes(kind: BusKind) -> Running {
        Running::of(Bus { strips_echo: true, ..settings(kind) }, |worker| worker)
    }

    /// A bus that is closed after each turn, on which answers may be late for so long.
    pub fn that_closes_after_each_turn(kind: BusKind, late_window: Duration) -> Running {
        let (idle_close, late_window) = (Some(Duration::ZERO), Some(late_window));
        Running::of(Bus { idle_close, late_window, ..settings(kind) }, |worker| worker)
    }

    /// A bus whose peripherals are deaf for so long after each opening.
    pub fn with_connect_pause(kind: BusKind, connect_pause: Duration) -> Running {
        Running::of(Bus { connect_pause, ..settings(kind) }, |worker| worker)
    }

    /// A bus that asks so many units at once, and waits so long for an answer.
    pub fn side_by_side(kind: BusKind, max_in_flight: usize, response_timeout: Duration) -> Running {
        Running::of(Bus { max_in_flight, response_timeout, ..settings(kind) }, |worker| worker)
    }

    /// One of several buses of a daemon.
    pub fn sharing(kind: BusKind, owed: &Owed) -> Running {
        Running::of(settings(kind), |worker| worker.sharing(owed.clone()))
    }

    fn with(kind: BusKind, turnaround: Duration, adjust: impl FnOnce(Worker) -> Worker) -> Running {
        Running::of(Bus { turnaround, ..settings(kind) }, adjust)
    }

    fn of(config: Bus, adjust: impl FnOnce(Worker) -> Worker) -> Running {
        let (bus, worker) = bus::new("line-a", &config);
        let worker = adjust(worker);
        let stop = CancellationToken::new();
        let worker = tokio::spawn(worker.run(stop.clone()));
        Running { bus, stop, worker }
    }

    /// One exchange in a turn of its own.
    pub async fn call(&self, call: Call) -> Wire {
        let mut turn = patient(self.bus.turn()).await.unwrap();
        patient(turn.exchange(&call)).await
    }

    /// The same, by somebody else.
    pub fn call_meanwhile(&self, call: Call) -> JoinHandle<Wire> {
        let bus = self.bus.clone();
        tokio::spawn(async move { bus.turn().await.unwrap().exchange(&call).await })
    }

    /// As `status` shows it.
    pub fn snapshot(&self) -> fieldbridge::health::snapshot::Bus {
        self.bus.snapshot()
    }

    pub fn status(&self) -> BusStatus {
        self.bus.status()
    }

    /// Waits until the bus is in a state.
    pub async fn until(&self, state: &str) -> BusStatus {
        patient(async {
            while self.status().state.as_str() != state {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        self.status()
    }
}

pub async fn patient<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it should have happened by now")
}

/// A call that is sure to be answered in time.
pub fn call(unit: u8, request: Request) -> Call {
    Call::new(unit, request)
}

/// A call that gives up soon.
pub fn hasty(unit: u8, request: Request) -> Call {
    Call { timeout: Some(SHORT), ..Call::new(unit, request) }
}

/// A call that nothing will answer, though it must hear what is said to it meanwhile, however busy the machine is.
pub fn listening(unit: u8, request: Request) -> Call {
    Call { timeout: Some(Duration::from_secs(1)), ..Call::new(unit, request) }
}

pub fn read(address: u16, count: u16) -> Request {
    Request::ReadWords { holding: true, address, count }
}

pub fn write(address: u16, word: u16) -> Request {
    Request::WriteWords { address, words: vec![word], multiple: false }
}

/// A pseudo-terminal whose far end is the peer, reached by a path that can be unplugged and plugged in again.
pub struct Pty {
    pub peer: SerialStream,
    /// Held open, so that the peer sees no hang-up while the bus has the port closed.
    near: SerialStream,
    folder: tempfile::TempDir,
}

impl Pty {
    pub fn new() -> Pty {
        let (peer, near) = SerialStream::pair().unwrap();
        let pty = Pty { peer, near, folder: tempfile::tempdir().unwrap() };
        pty.link();
        pty
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ttyUSB0")
    }

    pub fn port(&self, baud: u32) -> Endpoint {
        port(&self.path(), baud)
    }

    /// Takes the adapter away.
    pub fn unplug(self) -> tempfile::TempDir {
        std::fs::remove_file(self.path()).unwrap();
        self.folder
    }

    /// Brings another one, under the same name.
    pub fn plug(folder: tempfile::TempDir) -> Pty {
        let (peer, near) = SerialStream::pair().unwrap();
        let pty = Pty { peer, near, folder };
        pty.link();
        pty
    }

    fn link(&self) {
        std::os::unix::fs::symlink(self.near.name().unwrap(), self.path()).unwrap();
    }
}

pub fn port(path: &Path, baud: u32) -> Endpoint {
    Endpoint::Serial(SerialPort {
        path: path.into(),
        baud,
        parity: Parity::None,
        data_bits: 8,
        stop_bits: 1,
        rs485: None,
        low_latency: LowLatency::IfPossible,
    })
}

/// What a peer does.
pub trait Peer: AsyncReadExt + AsyncWriteExt + Unpin {
    /// Hears exactly these bytes.
    async fn hear(&mut self, expected: &[u8]) {
        let mut heard = vec![0; expected.len()];
        patient(self.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, expected, "heard {heard:02x?}");
    }

    async fn say(&mut self, bytes: &[u8]) {
        patient(self.write_all(bytes)).await.unwrap();
    }

    /// Hears that the other side has closed, and nothing before that.
    async fn ends(&mut self) {
        let mut rest = Vec::new();
        patient(self.read_to_end(&mut rest)).await.unwrap();
        assert!(rest.is_empty(), "heard {rest:02x?}");
    }

    /// Hears nothing for a while.
    async fn hear_nothing(&mut self) {
        let mut chunk = [0; 64];
        if let Ok(heard) = timeout(SHORT, self.read(&mut chunk)).await {
            panic!("heard {:02x?}", &chunk[..heard.unwrap()]);
        }
    }
}

impl<S: AsyncRead + AsyncWriteExt + Unpin> Peer for S {}

/// An RTU frame with its CRC, computed apart from the code under test.
pub fn rtu(content: &[u8]) -> Vec<u8> {
    let mut sum = 0xFFFF_u32;
    for byte in content {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xA001 * (sum & 1));
        }
    }
    let [low, high, ..] = sum.to_le_bytes();
    [content, &[low, high]].concat()
}

/// An ASCII frame with its LRC, computed apart from the code under test.
pub fn ascii(content: &[u8]) -> Vec<u8> {
    let sum: u32 = content.iter().map(|byte| u32::from(*byte)).sum();
    let digits: String = content.iter().map(|byte| format!("{byte:02X}")).collect();
    format!(":{digits}{:02X}\r\n", (1000 * 256 - sum) % 256).into_bytes()
}
