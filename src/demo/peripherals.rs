//! The demo's peripherals, each a process of its own: a Modbus TCP slave and a Modbus RTU slave on tokio-modbus's
//! server, and an instrument with a line protocol. Each says on its first line of output where it is, and appends
//! every effect to a file, before it confirms it.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use clap::ValueEnum;
use tokio::io::AsyncReadExt as _;
use tokio_modbus::server::{rtu, tcp, Service};
use tokio_modbus::{ExceptionCode, Request, Response, SlaveRequest};
use tokio_serial::{SerialPort as _, SerialStream};

/// Writing this register takes the peripheral a while, like a dispenser that runs: it has begun long before it
/// confirms.
pub const SLOW_REGISTER: u16 = 20;
const SLOW: Duration = Duration::from_millis(1500);
/// Registers that exist: 0 up to this one.
const LAST_REGISTER: u16 = 63;

/// Which peripheral.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// Modbus TCP.
    Tcp,
    /// Modbus RTU on a PTY.
    Rtu,
    /// A scale with a line protocol on a PTY.
    Scale,
}

/// What a peripheral's process takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    kind: Kind,
    /// The file that effects are appended to.
    effects: PathBuf,
}

/// Runs a peripheral until its process is ended.
pub async fn run(args: Args) -> io::Result<()> {
    let plant = Plant::new(File::options().create(true).append(true).open(args.effects)?);
    match args.kind {
        Kind::Tcp => {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            announce(&listener.local_addr()?.to_string())?;
            let connected = |stream, _| {
                let plant = plant.clone();
                async move { Ok(Some((plant, stream))) }
            };
            tcp::Server::new(listener).serve(&connected, |_| {}).await
        }
        Kind::Rtu => {
            let (ours, _theirs) = pty()?;
            rtu::Server::new(ours).serve_forever(plant).await
        }
        Kind::Scale => {
            let (ours, _theirs) = pty()?;
            weigh(ours, plant).await
        }
    }
}

/// A PTY whose far side is announced. The far side must stay open here, or ours ends when the daemon does.
fn pty() -> io::Result<(SerialStream, SerialStream)> {
    let (ours, theirs) = SerialStream::pair()?;
    announce(&theirs.name().ok_or_else(|| io::Error::other("the PTY has no name"))?)?;
    Ok((ours, theirs))
}

fn announce(place: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{place}")?;
    io::stdout().flush()
}

/// The registers of a slave, and the record of what was done to them.
#[derive(Clone)]
struct Plant(Arc<Mutex<Inner>>);

struct Inner {
    registers: HashMap<u16, u16>,
    effects: File,
}

impl Plant {
    fn new(effects: File) -> Plant {
        Plant(Arc::new(Mutex::new(Inner { registers: HashMap::new(), effects })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics while holding the plant")
    }

    fn write(&self, what: &str, address: u16, value: u16) -> Result<(), ExceptionCode> {
        if address > LAST_REGISTER {
            return Err(ExceptionCode::IllegalDataAddress);
        }
        let mut inner = self.lock();
        writeln!(inner.effects, "{what} {address} {value}").map_err(|_| ExceptionCode::ServerDeviceFailure)?;
        inner.registers.insert(address, value);
        Ok(())
    }

    fn answer(&self, request: &Request<'static>) -> Result<Response, ExceptionCode> {
        match request {
            Request::WriteSingleRegister(address, value) => {
                self.write("register", *address, *value)?;
                Ok(Response::WriteSingleRegister(*address, *value))
            }
            Request::WriteSingleCoil(address, on) => {
                self.write("coil", *address, (*on).into())?;
                Ok(Response::WriteSingleCoil(*address, *on))
            }
            Request::ReadHoldingRegisters(address, count) => {
                let inner = self.lock();
                let last = u32::from(*address) + u32::from(*count);
                if last > u32::from(LAST_REGISTER) + 1 {
                    return Err(ExceptionCode::IllegalDataAddress);
                }
                let read = |address| inner.registers.get(&address).copied().unwrap_or(0);
                Ok(Response::ReadHoldingRegisters((*address..*address + *count).map(read).collect()))
            }
            _ => Err(ExceptionCode::IllegalFunction),
        }
    }
}

impl Service for Plant {
    type Request = SlaveRequest<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Pin<Box<dyn Future<Output = Result<Response, ExceptionCode>> + Send>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        let answer = self.answer(&request.request);
        let slow = matches!(request.request, Request::WriteSingleRegister(SLOW_REGISTER, _));
        Box::pin(async move {
            if slow {
                tokio::time::sleep(SLOW).await;
            }
            answer
        })
    }
}

/// The scale: `W` weighs, `T` tares, `P <text>` prints a label; anything else is an error.
async fn weigh(mut port: SerialStream, plant: Plant) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        match port.read_u8().await? {
            b'\n' => {
                let text = String::from_utf8_lossy(&line).trim().to_owned();
                let reply = match text.split_once(' ').unwrap_or((&text, "")) {
                    ("W", _) => "OK 12.5".to_owned(),
                    ("P", label) if label.len() > 20 => "ERR label too long".to_owned(),
                    ("T" | "P", _) => {
                        writeln!(plant.lock().effects, "line {text}")?;
                        "OK".to_owned()
                    }
                    _ => "ERR unknown".to_owned(),
                };
                tokio::io::AsyncWriteExt::write_all(&mut port, format!("{reply}\r\n").as_bytes()).await?;
                line.clear();
            }
            byte if line.len() < 256 => line.push(byte),
            _ => line.clear(),
        }
    }
}
