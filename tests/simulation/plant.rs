//! The peripherals: slow, mute, late, garbled, refusing, or doing what they were told without saying so. What they have
//! done is counted here, and nowhere else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fieldbridge::bus::{Lines, Opener, Opening, Port};
use fieldbridge::config::SerialPort;
use fieldbridge::net::Stream;
use tokio::time::sleep;

use super::ledger::Witness;
use super::scenario::{Asks, Faults, Message};
use super::wire::{End, Wire};
use super::world::World;

/// The registers that the commands write.
pub const SET: u16 = 10;
pub const SET_VERIFIED: u16 = 11;
pub const PULSE: u16 = 12;
pub const PULSE_VERIFIED: u16 = 13;
/// The register that is read.
pub const READ: u16 = 20;

/// Latest answer after a request, ms. A serial line remembers for 2 s what it was asked; what comes later than that
/// can't be told from another answer.
const LATEST_MS: u64 = 1_800;

/// Something that a peripheral has done.
#[derive(Debug, Clone)]
pub struct Effect {
    /// The command's value.
    pub value: u16,
}

/// What speaks on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Rtu,
    Text,
}

/// The plant of a world.
pub struct Plant {
    world: Arc<World>,
    witness: Arc<Witness>,
    /// Chance in a thousand that a request goes wrong.
    trouble: u64,
    /// Two of the fates are all that goes wrong here: so they meet more often.
    habits: Option<[u64; 2]>,
    /// A request in a thousand cuts the process's life short.
    killing: u64,
    /// The line on which nobody answers.
    dead_line: Option<&'static str>,
    messages: Vec<Message>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    effects: Vec<Effect>,
    registers: BTreeMap<(String, u8, u16), u16>,
    /// The open wire of each serial line.
    open: BTreeMap<String, Wire>,
}

impl std::fmt::Debug for Plant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a simulated plant")
    }
}

/// Number of what can go wrong with a request.
const FATES: u64 = 10;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Mute,
    DoneAndMute,
    Late,
    Garbled,
    Refused(u8),
    Begun(u8),
    Cut,
    DoneAndCut,
    ConfirmedOnly,
    SaidTwice,
}

impl Plant {
    /// A plant that knows what it may be asked for.
    pub fn new(world: &Arc<World>, witness: &Arc<Witness>, faults: Faults, messages: Vec<Message>) -> Arc<Plant> {
        let (world, witness) = (world.clone(), witness.clone());
        let (trouble, dead_line, killing) = (faults.plant, faults.dead_line, faults.crashes / 5);
        let habits = world.chance(500).then(|| [world.pick(0..FATES), world.pick(0..FATES)]);
        Arc::new(Plant { world, witness, trouble, habits, killing, dead_line, messages, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nobody panics while holding the plant")
    }

    /// Everything that was done, in order.
    pub fn effects(&self) -> Vec<Effect> {
        self.lock().effects.clone()
    }

    fn fate(&self, is_write: bool, is_verified: bool, is_text: bool) -> Fate {
        let fates: [_; FATES as usize] = [
            ("slave: mute", Fate::Mute),
            ("slave: does it and is mute", Fate::DoneAndMute),
            ("slave: answers late", Fate::Late),
            ("slave: garbled answer", Fate::Garbled),
            ("slave: refuses", Fate::Refused(2 + self.world.pick(0..3) as u8)),
            ("slave: exception 5 or 11", Fate::Begun(if self.world.chance(500) { 5 } else { 11 })),
            ("slave: the line ends before an answer", Fate::Cut),
            ("slave: does it, and the line ends in the answer", Fate::DoneAndCut),
            ("slave: confirms and does nothing", Fate::ConfirmedOnly),
            ("slave: answers twice", Fate::SaidTwice),
        ];
        let number = match self.habits {
            Some(habits) => habits[self.world.pick(0..2) as usize],
            None => self.world.pick(0..FATES),
        };
        let (name, fate) = fates[number as usize];
        let possible = match fate {
            Fate::ConfirmedOnly => is_write && is_verified,
            Fate::Begun(_) => is_write && !is_text,
            _ => true,
        };
        match possible && self.world.strikes(name, self.trouble) {
            true => fate,
            false => Fate::Done,
        }
    }

    /// A value arrives where it does something.
    fn take_effect(&self, asks: Asks, value: u16) {
        let message = self.messages.iter().find(|message| message.value == value && message.asks == asks);
        self.world.note(format_args!("effect {value} {asks:?}"));
        match message {
            None => self.world.violate(format!("G8: nobody asked for {asks:?} with {value}")),
            Some(message) if asks.once() => self.witness.expect_executing(message),
            Some(_) => {}
        }
        self.world.count("effects");
        self.lock().effects.push(Effect { value });
    }

    /// Serves one opened wire to its end.
    async fn serve(self: Arc<Self>, line: String, protocol: Protocol, wire: Wire) {
        let mut heard = Vec::new();
        while let Some(bytes) = wire.receive().await {
            heard.extend(bytes);
            while let Some(request) = request(protocol, &mut heard) {
                self.clone().answer(&line, protocol, &wire, request).await;
            }
        }
    }

    async fn answer(self: Arc<Self>, line: &str, protocol: Protocol, wire: &Wire, request: Request) {
        let asks = request.asks();
        let is_verified = matches!(asks, Some(Asks::SetVerified | Asks::PulseVerified));
        let fate = match self.dead_line {
            Some(dead) if dead == line && !self.world.faults_are_over() => Fate::Mute,
            _ => self.fate(asks.is_some(), is_verified, protocol == Protocol::Text),
        };
        self.world.note(format_args!("{line} {request:?} {fate:?}"));
        if self.world.strikes("crash: while a peripheral works", self.killing) {
            self.world.die_within(self.world.time(0, 500));
        }
        let is_done = match fate {
            Fate::Mute | Fate::Refused(_) | Fate::Cut | Fate::ConfirmedOnly => false,
            Fate::Begun(_) => self.world.chance(500),
            _ => true,
        };
        if let (true, Some(asks)) = (is_done, asks) {
            self.take_effect(asks, request.value);
            self.lock().registers.insert((line.to_owned(), request.unit, request.address), request.value);
        }
        let stands = self.lock().registers.get(&(line.to_owned(), request.unit, request.address)).copied();
        let mut reply = match fate {
            Fate::Mute | Fate::DoneAndMute => return,
            Fate::Refused(code) | Fate::Begun(code) => request.refusal(protocol, code),
            _ => request.confirmation(protocol, stands.unwrap_or(0)),
        };
        let wait = match fate {
            Fate::Late => self.world.time(450, LATEST_MS),
            _ => self.world.time(2, 60),
        };
        match fate {
            Fate::Garbled => {
                let at = self.world.pick(0..reply.len() as u64) as usize;
                reply[at] ^= 1 << self.world.pick(0..8);
                // A flipped bit must not make one line of text out of another.
                if protocol == Protocol::Text {
                    reply[0] = b'#';
                    reply[1] = b'?';
                }
                // TCP has a checksum: what is garbled there is the frame's form.
                if protocol == Protocol::Tcp {
                    reply[2] = 0x55;
                }
            }
            Fate::SaidTwice if protocol != Protocol::Tcp => reply.extend(reply.clone()),
            _ => {}
        }
        let cut = matches!(fate, Fate::Cut | Fate::DoneAndCut);
        if fate == Fate::Cut {
            return wire.cut(End::Reset);
        }
        let (plant, line, wire) = (self.clone(), line.to_owned(), wire.clone());
        tokio::spawn(async move {
            sleep(wait).await;
            // A serial peripheral answers on the line, whoever has opened it meanwhile.
            let wire = plant.lock().open.get(&line).cloned().unwrap_or(wire);
            if cut {
                wire.send(&reply[..reply.len() / 2]);
                wire.cut(End::Closed);
            } else {
                wire.send(&reply);
            }
        });
    }

    fn open(self: &Arc<Self>, line: &str, protocol: Protocol) -> Result<Wire, String> {
        if self.world.strikes("line: can't be opened", self.trouble / 2) {
            return Err(format!("{line} can't be opened: it is not there"));
        }
        // A serial port is opened by one at a time.
        if protocol != Protocol::Tcp && self.lock().open.get(line).is_some_and(Wire::is_held) {
            self.world.count("line: held by another bus");
            return Err(format!("{line} can't be opened: it is in use"));
        }
        let wire = Wire::new(&self.world, (0, 5));
        if protocol != Protocol::Tcp {
            self.lock().open.insert(line.to_owned(), wire.clone());
        }
        tokio::spawn(self.clone().serve(line.to_owned(), protocol, wire.clone()));
        if self.world.strikes("line: is lost", self.trouble / 2) {
            let (wire, after) = (wire.clone(), self.world.time(0, 20_000));
            tokio::spawn(async move {
                sleep(after).await;
                wire.cut(End::Closed);
            });
        }
        Ok(wire)
    }
}

/// The lines of a plant.
#[derive(Debug)]
pub struct ToPlant(pub Arc<Plant>);

impl Lines for ToPlant {
    fn connect<'a>(&'a self, address: &'a str, _: Duration) -> Opening<'a, Box<dyn Stream>> {
        Box::pin(async move {
            sleep(self.0.world.time(0, 30)).await;
            Ok(Box::new(self.0.open(address, Protocol::Tcp)?.near()) as Box<dyn Stream>)
        })
    }

    fn opener(&self, port: &SerialPort) -> Box<dyn Opener> {
        Box::new(PortOpener { plant: self.0.clone(), path: port.path.display().to_string() })
    }
}

struct PortOpener {
    plant: Arc<Plant>,
    path: String,
}

impl Opener for PortOpener {
    fn open(&mut self) -> Opening<'_, Box<dyn Port>> {
        Box::pin(async move {
            let protocol = if self.path.ends_with("rtu") { Protocol::Rtu } else { Protocol::Text };
            sleep(self.plant.world.time(0, 30)).await;
            Ok(Box::new(self.plant.open(&self.path, protocol)?.near()) as Box<dyn Port>)
        })
    }
}

/// A request, as a peripheral understands it.
#[derive(Debug)]
struct Request {
    transaction: [u8; 2],
    unit: u8,
    function: u8,
    address: u16,
    value: u16,
}

/// The next whole request in what was heard.
fn request(protocol: Protocol, heard: &mut Vec<u8>) -> Option<Request> {
    match protocol {
        Protocol::Text => {
            let end = heard.windows(2).position(|two| two == b"\r\n")?;
            let line: Vec<u8> = heard.drain(..end + 2).collect();
            let text = std::str::from_utf8(&line[..end]).expect("the gateway sends text");
            let (word, value) = text.split_once(' ').expect("a word and a value");
            let address = if word == "D" { PULSE } else { SET };
            let value = value.parse().expect("a number");
            Some(Request { transaction: [0; 2], unit: 0, function: 6, address, value })
        }
        // Every request of these commands has six bytes: unit, function, address, value.
        Protocol::Rtu => {
            let frame: Vec<u8> = (heard.len() >= 8).then(|| heard.drain(..8).collect())?;
            assert_eq!(crc(&frame[..6]), frame[6..], "the gateway's own frames are intact");
            Some(Request::of([0; 2], &frame[..6]))
        }
        Protocol::Tcp => {
            let frame: Vec<u8> = (heard.len() >= 12).then(|| heard.drain(..12).collect())?;
            Some(Request::of([frame[0], frame[1]], &frame[6..]))
        }
    }
}

impl Request {
    fn of(transaction: [u8; 2], bytes: &[u8]) -> Request {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        Request { transaction, unit: bytes[0], function: bytes[1], address: number(2), value: number(4) }
    }

    /// What a write asks for. `None`: it reads.
    fn asks(&self) -> Option<Asks> {
        match (self.function, self.address) {
            (6, SET) => Some(Asks::Set),
            (6, SET_VERIFIED) => Some(Asks::SetVerified),
            (6, PULSE) => Some(Asks::Pulse),
            (6, PULSE_VERIFIED) => Some(Asks::PulseVerified),
            (3, _) => None,
            other => panic!("no command has {other:?}"),
        }
    }

    fn confirmation(&self, protocol: Protocol, stands: u16) -> Vec<u8> {
        let [high, low] = self.address.to_be_bytes();
        let [value_high, value_low] = self.value.to_be_bytes();
        let [stands_high, stands_low] = stands.to_be_bytes();
        match (protocol, self.function) {
            (Protocol::Text, _) => b"OK\r\n".to_vec(),
            (_, 3) => self.framed(protocol, &[self.unit, 3, 2, stands_high, stands_low]),
            _ => self.framed(protocol, &[self.unit, 6, high, low, value_high, value_low]),
        }
    }

    fn refusal(&self, protocol: Protocol, code: u8) -> Vec<u8> {
        match protocol {
            Protocol::Text => b"ERR busy\r\n".to_vec(),
            _ => self.framed(protocol, &[self.unit, self.function | 0x80, code]),
        }
    }

    fn framed(&self, protocol: Protocol, bytes: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        if protocol == Protocol::Tcp {
            frame.extend([self.transaction[0], self.transaction[1], 0, 0, 0, bytes.len() as u8]);
        }
        frame.extend(bytes);
        if protocol == Protocol::Rtu {
            frame.extend(crc(bytes));
        }
        frame
    }
}

/// Modbus over Serial Line V1.02, 6.2.2, low byte first.
fn crc(bytes: &[u8]) -> [u8; 2] {
    let mut crc = 0xffff_u16;
    for byte in bytes {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
        }
    }
    crc.to_le_bytes()
}
