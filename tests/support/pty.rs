//! A [`Slave`] at the end of a serial line, on a pseudo-terminal that can be unplugged: with Modbus RTU or ASCII
//! (Modbus over Serial Line V1.02), or with a line protocol. It outlives the daemons of a test.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_serial::{SerialPort as _, SerialStream};

use super::eventually;
use super::slave::{Reaction, Slave, GARBAGE};

/// The requests that the daemon makes here, functions 3 and 6, are all of this length, CRC included.
const RTU_REQUEST_BYTES: usize = 8;

/// What is spoken on the line.
#[derive(Debug, Clone, Copy)]
pub enum Protocol {
    Rtu,
    Ascii,
    /// `P` (register 2) or `S` (register 0) with a value; `OK` or `NO` comes back.
    Text,
}

/// An adapter with a slave behind it.
pub struct Port {
    folder: tempfile::TempDir,
    plugged: watch::Sender<bool>,
}

impl Port {
    pub fn new(slave: Slave, protocol: Protocol) -> Port {
        Port::with(slave, protocol, true)
    }

    /// A port that only those have open who use it.
    pub fn that_nobody_holds(slave: Slave, protocol: Protocol) -> Port {
        // A process that another test started at the wrong moment has inherited the near end, and may live long.
        eventually("a port that nobody holds", || {
            let port = Port::with(slave.clone(), protocol, false);
            let real = port.path().canonicalize().expect("it is there");
            (!is_open(&real)).then_some(port)
        })
    }

    fn with(slave: Slave, protocol: Protocol, is_held: bool) -> Port {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (plugged, seen) = watch::channel(true);
        let port = Port { folder, plugged };
        let path = port.path();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(live(&path, slave, protocol, is_held, seen));
        });
        port.plug();
        port
    }

    /// What the daemon is to open.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("ttyUSB0")
    }

    /// Takes the adapter away.
    pub fn unplug(&self) {
        self.plugged.send_replace(false);
        eventually("the port gone", || (!self.path().is_symlink()).then_some(()));
    }

    /// Brings it back under the same name. The slave has lost nothing but what was on the line.
    pub fn plug(&self) {
        self.plugged.send_replace(true);
        eventually("the port there", || self.path().exists().then_some(()));
    }
}

/// Whether any process has a file open.
pub fn is_open(path: &Path) -> bool {
    let folders = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files = folders(Path::new("/proc")).flat_map(|process| folders(&process.join("fd")).collect::<Vec<_>>());
    // By its number too: a container's pseudo-terminals have the same names.
    let number = |path: &Path| std::fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    files.any(|file| std::fs::read_link(&file).is_ok_and(|target| target == path) && number(&file) == number(path))
}

/// Serves until the port is dropped.
async fn live(path: &Path, slave: Slave, protocol: Protocol, is_held: bool, mut plugged: watch::Receiver<bool>) {
    while plugged.wait_for(|plugged| *plugged).await.is_ok() {
        let (mut far, near) = SerialStream::pair().expect("a pseudo-terminal can be made");
        let name = near.name().expect("a pseudo-terminal has a name");
        std::os::unix::fs::symlink(name, path).expect("the port gets its name");
        // With the near end held open the slave sees no hang-up while no daemon lives.
        let held = Some(near).filter(|_| is_held);
        let serving = async {
            loop {
                serve(&mut far, &slave, protocol).await;
                if is_held {
                    return;
                }
                // Nobody has the port open: reading fails at once until somebody has.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            () = serving => {}
            _ = plugged.wait_for(|plugged| !plugged) => {}
        }
        drop(held);
        // The folder is gone when the test is at its end.
        let _ = std::fs::remove_file(path);
        if plugged.wait_for(|plugged| !plugged).await.is_err() {
            return;
        }
    }
}

/// Each answer is given so long after its request, whatever else is asked meanwhile.
async fn serve(far: &mut SerialStream, slave: &Slave, protocol: Protocol) {
    let mut heard = Vec::new();
    let mut due: Vec<(Instant, Vec<u8>)> = Vec::new();
    let mut chunk = [0; 256];
    loop {
        let next = due.iter().map(|(at, _)| *at).min();
        let waiting = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
        tokio::select! {
            read = far.read(&mut chunk) => match read {
                Ok(length) if length > 0 => heard.extend_from_slice(&chunk[..length]),
                _ => return,
            },
            () = tokio::time::sleep_until(waiting) => {
                let at = due.iter().position(|(at, _)| Some(*at) == next);
                let (_, answer) = due.remove(at.expect("it was found before"));
                if far.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
        while let Some((unit, request)) = protocol.next_request(&mut heard) {
            match slave.react(unit, &request) {
                // What goes to all units nobody answers. The text protocol has no units.
                _ if unit == 0 => {}
                Reaction::Answer(answer, delay) => due.push((Instant::now() + delay, protocol.frame(unit, &answer))),
                Reaction::Garbage => due.push((Instant::now(), GARBAGE.to_vec())),
                Reaction::Silence | Reaction::HangUp => {}
            }
        }
    }
}

impl Protocol {
    /// Takes the first whole request out of what was heard: its unit and its PDU.
    fn next_request(self, heard: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
        match self {
            Protocol::Rtu => loop {
                let frame = heard.get(..RTU_REQUEST_BYTES)?.to_vec();
                let (content, sum) = frame.split_at(RTU_REQUEST_BYTES - 2);
                if crc(content) == sum {
                    heard.drain(..RTU_REQUEST_BYTES);
                    return Some((content[0], content[1..].to_vec()));
                }
                heard.remove(0);
            },
            Protocol::Ascii => loop {
                let end = heard.iter().position(|byte| *byte == b'\n')?;
                let line: Vec<u8> = heard.drain(..=end).collect();
                let digits =
                    std::str::from_utf8(&line).ok().and_then(|line| line.strip_prefix(':')?.strip_suffix("\r\n"));
                let Some(digits) = digits else { continue };
                let pair = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
                let content: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(pair).collect();
                // All bytes and their LRC come to nothing.
                let content =
                    content.filter(|content| content.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0);
                if let Some([unit, pdu @ .., _]) = content.as_deref() {
                    return Some((*unit, pdu.to_vec()));
                }
            },
            Protocol::Text => loop {
                let end = heard.iter().position(|byte| *byte == b'\n')?;
                let line = String::from_utf8_lossy(&heard[..end]).into_owned();
                heard.drain(..=end);
                let register = if line.starts_with('P') { 2 } else { 0 };
                if let Ok(value) = line.trim_start_matches(['P', 'S']).parse::<u16>() {
                    return Some((1, [&[6, 0, register][..], &value.to_be_bytes()].concat()));
                }
            },
        }
    }

    fn frame(self, unit: u8, answer: &[u8]) -> Vec<u8> {
        match self {
            Protocol::Rtu => {
                let content = [&[unit], answer].concat();
                [&content[..], &crc(&content)].concat()
            }
            Protocol::Ascii => {
                let content = [&[unit], answer].concat();
                let sum = content.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
                let digits: String = content.iter().chain(&[sum]).map(|byte| format!("{byte:02X}")).collect();
                format!(":{digits}\r\n").into_bytes()
            }
            Protocol::Text if answer[0] & 0x80 == 0 => b"OK\r\n".to_vec(),
            Protocol::Text => b"NO\r\n".to_vec(),
        }
    }
}

/// The check sum of Modbus RTU, as its two bytes stand on the line.
fn crc(content: &[u8]) -> [u8; 2] {
    let mut sum = 0xFFFF_u16;
    for byte in content {
        sum ^= u16::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xA001 } else { sum >> 1 };
        }
    }
    sum.to_le_bytes()
}
