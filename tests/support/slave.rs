//! A Modbus TCP slave that counts what reaches it. Written out by hand (Modbus Messaging on TCP/IP V1.0b), so that it
//! shares no code with the daemon; it outlives the daemons of a test. Module `pty` puts it on a serial line as well.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// What the slave does with its next write requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    /// Does it and confirms.
    Good,
    /// Does it, takes so long to confirm.
    Slow(Duration),
    /// Does it, and confirms when the test lets one answer go, or sets another mood.
    Held,
    /// Does it and says nothing.
    Mute,
    /// Does nothing, and answers with this exception.
    Refusing(u8),
    /// Does nothing and says nothing.
    Deaf,
    /// Confirms and does nothing, or not yet.
    Lying,
    /// Does it and closes the connection.
    HangUp,
    /// Does it and answers with what nobody understands.
    Garbling,
}

/// Requests that a slave remembers: a test that asks what came last asks for fewer.
const ASKED_MAX: usize = 1000;

/// An answer that is none, in any protocol.
pub const GARBAGE: &[u8] = b"\0\xff\x80garbage\r\n";

/// How likely a mood is, in percent, with the largest delay where it takes one. What is left of 100 is [`Mood::Good`].
pub type Weather = Vec<(u32, Mood)>;

#[derive(Default)]
struct Inner {
    /// By unit and address.
    registers: HashMap<(u8, u16), u16>,
    /// By unit and address.
    coils: HashMap<(u8, u16), bool>,
    /// Each write that was carried out and is not of a single register, in order: its function and data.
    other_writes: Vec<Vec<u8>>,
    /// The last requests of any kind, as many as [`ASKED_MAX`].
    asked: VecDeque<Vec<u8>>,
    /// (address, value) of each register that function 6 or 23 has written, in order.
    writes: Vec<(u16, u16)>,
    /// When each of them was, in the same order.
    times: Vec<Instant>,
    requests: usize,
    /// Write requests since the weather changed.
    met: usize,
    mood: Option<Mood>,
    /// The moods of the next write requests, before any other.
    next_moods: VecDeque<Mood>,
    /// How long it takes to take a write request up.
    take_up: Duration,
    /// Units that are switched off.
    silent: Vec<u8>,
    /// Reads are answered with this exception.
    unreadable: Option<u8>,
    /// Reads of more registers than this are not answered.
    longest_read: Option<u16>,
    /// Answers that may go although the mood is to hold them.
    let_go: usize,
    weather: Option<(fastrand::Rng, Weather)>,
}

/// A slave on a port of its own.
#[derive(Clone)]
pub struct Slave {
    address: String,
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Condvar>,
}

impl Slave {
    pub fn new() -> Slave {
        Slave::at("127.0.0.1:0")
    }

    /// A slave that listens there.
    pub fn at(address: &str) -> Slave {
        let listener = TcpListener::bind(address).expect("a port is free");
        let slave = Slave {
            address: listener.local_addr().expect("a listener has an address").to_string(),
            inner: Arc::default(),
            changed: Arc::default(),
        };
        let serving = slave.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let slave = serving.clone();
                std::thread::spawn(move || slave.serve(stream));
            }
        });
        slave
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn set_mood(&self, mood: Mood) {
        self.lock().mood = Some(mood);
        self.changed.notify_all();
    }

    /// The next write request meets this mood, once.
    pub fn next_mood(&self, mood: Mood) {
        self.lock().next_moods.push_back(mood);
    }

    /// From now on every write request that comes by TCP waits for so long before anything is done about it.
    pub fn set_take_up(&self, time: Duration) {
        self.lock().take_up = time;
    }

    /// From now on every read request is answered with this exception, or again with what stands there.
    pub fn set_unreadable(&self, exception: Option<u8>) {
        self.lock().unreadable = exception;
    }

    /// From now on a read of more registers is not answered, as some peripherals have it.
    pub fn set_longest_read(&self, registers: u16) {
        self.lock().longest_read = Some(registers);
    }

    /// From now on nothing answers as this unit.
    pub fn silence(&self, unit: u8) {
        self.lock().silent.push(unit);
    }

    /// From now on something answers as this unit again.
    pub fn wake(&self, unit: u8) {
        self.lock().silent.retain(|silent| *silent != unit);
    }

    /// Lets one held answer go.
    pub fn let_one_go(&self) {
        self.lock().let_go += 1;
        self.changed.notify_all();
    }

    /// Waits until so many requests of any kind have come.
    pub fn wait_for_requests(&self, count: usize) {
        let enough = |inner: &mut Inner| inner.requests < count;
        let (inner, waited) =
            self.changed.wait_timeout_while(self.lock(), PATIENCE, enough).expect("no thread panics here");
        assert!(!waited.timed_out(), "only {} of {count} requests came", inner.requests);
    }

    /// Sets a holding register of unit 1, as the machine behind it would.
    pub fn set_register(&self, address: u16, value: u16) {
        self.lock().registers.insert((1, address), value);
    }

    /// From now on every write request meets a mood by chance.
    pub fn set_weather(&self, seed: u64, weather: Weather) {
        let mut inner = self.lock();
        inner.weather = Some((fastrand::Rng::with_seed(seed), weather));
        inner.met = 0;
    }

    /// How many write requests have met this weather.
    pub fn met(&self) -> usize {
        self.lock().met
    }

    /// Every single-register write that was carried out.
    pub fn writes(&self) -> Vec<(u16, u16)> {
        self.lock().writes.clone()
    }

    /// Every write of coils or of several registers that was carried out, as it was asked for: function and data.
    pub fn other_writes(&self) -> Vec<Vec<u8>> {
        self.lock().other_writes.clone()
    }

    /// Takes out the writes so far, so that a slave may serve for days.
    pub fn take_writes(&self) -> Vec<(u16, u16)> {
        let mut inner = self.lock();
        inner.times.clear();
        std::mem::take(&mut inner.writes)
    }

    /// When the first and the last of the single-register writes was carried out, and how many there were.
    pub fn first_and_last_write(&self) -> (Instant, Instant, usize) {
        let inner = self.lock();
        (inner.times[0], inner.times[inner.times.len() - 1], inner.times.len())
    }

    /// How often this value was written to this register.
    pub fn count(&self, address: u16, value: u16) -> usize {
        self.lock().writes.iter().filter(|write| **write == (address, value)).count()
    }

    /// Waits until this value was written anywhere, and says when.
    pub fn wait_for_write(&self, value: u16) -> Instant {
        super::eventually("the write reaches the slave", || {
            let inner = self.lock();
            let at = inner.writes.iter().rposition(|write| write.1 == value)?;
            Some(inner.times[at])
        })
    }

    /// The last requests of any kind, in order: function and data.
    pub fn asked(&self) -> Vec<Vec<u8>> {
        self.lock().asked.iter().cloned().collect()
    }

    /// What stands in a holding register of unit 1.
    pub fn register(&self, address: u16) -> u16 {
        self.lock().registers.get(&(1, address)).copied().unwrap_or_default()
    }

    /// Requests of any kind.
    pub fn requests(&self) -> usize {
        self.lock().requests
    }

    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut header = [0; 7];
        while stream.read_exact(&mut header).is_ok() {
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let mut pdu = vec![0; length - 1];
            if stream.read_exact(&mut pdu).is_err() {
                return;
            }
            if matches!(pdu[0], 6 | 23) {
                let take_up = self.lock().take_up;
                std::thread::sleep(take_up);
            }
            let (answer, delay) = match self.react(header[6], &pdu) {
                Reaction::Answer(answer, delay) => (answer, delay),
                Reaction::Silence => continue,
                Reaction::HangUp => return,
                Reaction::Garbage => match stream.write_all(GARBAGE) {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            std::thread::sleep(delay);
            if matches!(pdu[0], 6 | 23) {
                self.wait_for_leave();
            }
            let mut frame = header[..4].to_vec();
            frame.extend((answer.len() as u16 + 1).to_be_bytes());
            frame.push(header[6]);
            frame.extend(answer);
            if stream.write_all(&frame).is_err() {
                return;
            }
        }
    }

    /// While the mood is to hold answers, each waits for its leave.
    fn wait_for_leave(&self) {
        let held = |inner: &mut Inner| inner.mood == Some(Mood::Held) && inner.let_go == 0;
        let mut inner = self.changed.wait_while(self.lock(), held).expect("no thread panics here");
        inner.let_go = inner.let_go.saturating_sub(1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panics here")
    }

    /// Does what a request asks for, as far as the mood lets it.
    pub fn react(&self, unit: u8, pdu: &[u8]) -> Reaction {
        let mut inner = self.lock();
        inner.requests += 1;
        if inner.asked.len() == ASKED_MAX {
            inner.asked.pop_front();
        }
        inner.asked.push_back(pdu.to_vec());
        self.changed.notify_all();
        if inner.silent.contains(&unit) {
            return Reaction::Silence;
        }
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        if pdu[0] == 3 && inner.longest_read.is_some_and(|most| word(3) > most) {
            return Reaction::Silence;
        }
        let at_once = |answer| Reaction::Answer(answer, Duration::ZERO);
        match (pdu[0], inner.unreadable) {
            (1 | 3, Some(exception)) => at_once(vec![pdu[0] | 0x80, exception]),
            (1, None) => {
                let is_on = |at: u16| inner.coils.get(&(unit, word(1) + at)).copied().unwrap_or(false);
                let mut bytes = vec![0; usize::from(word(3).div_ceil(8))];
                (0..word(3)).filter(|at| is_on(*at)).for_each(|at| bytes[usize::from(at / 8)] |= 1 << (at % 8));
                at_once([&[1, bytes.len() as u8], &bytes[..]].concat())
            }
            (3, None) => at_once(inner.held(unit, 3, word(1), word(3))),
            (6 | 23, _) => {
                let mood = inner.next_mood();
                inner.met += 1;
                let does = !matches!(mood, Mood::Refusing(_) | Mood::Deaf | Mood::Lying);
                if does {
                    inner.write_words(unit, pdu);
                }
                let answer = match pdu[0] {
                    6 => pdu.to_vec(),
                    // What stands there when it is written (6.17).
                    _ => inner.held(unit, 23, word(1), word(3)),
                };
                match mood {
                    Mood::Refusing(code) => at_once(vec![pdu[0] | 0x80, code]),
                    Mood::Slow(time) => Reaction::Answer(answer, time),
                    Mood::Mute | Mood::Deaf => Reaction::Silence,
                    Mood::HangUp => Reaction::HangUp,
                    Mood::Garbling => Reaction::Garbage,
                    Mood::Good | Mood::Held | Mood::Lying => at_once(answer),
                }
            }
            (5 | 15 | 16, _) => {
                inner.write(unit, pdu);
                at_once(pdu[..5].to_vec())
            }
            (22, _) => {
                let place = (unit, word(1));
                let before = inner.registers.get(&place).copied().unwrap_or_default();
                inner.registers.insert(place, before & word(3) | word(5) & !word(3));
                inner.other_writes.push(pdu.to_vec());
                at_once(pdu.to_vec())
            }
            (function, _) => at_once(vec![function | 0x80, 1]),
        }
    }
}

/// What comes of a request.
pub enum Reaction {
    /// This answer, so much later.
    Answer(Vec<u8>, Duration),
    Silence,
    HangUp,
    Garbage,
}

impl Inner {
    /// The answer to a read of registers.
    fn held(&self, unit: u8, function: u8, address: u16, count: u16) -> Vec<u8> {
        let mut answer = vec![function, (count * 2) as u8];
        for at in address..address + count {
            answer.extend(self.registers.get(&(unit, at)).copied().unwrap_or(0).to_be_bytes());
        }
        answer
    }

    /// One register by function 6, or those that function 23 writes before it reads.
    fn write_words(&mut self, unit: u8, pdu: &[u8]) {
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        let (address, first, count) = if pdu[0] == 6 { (word(1), 3, 1) } else { (word(5), 10, word(7)) };
        for at in 0..count {
            let value = word(first + 2 * usize::from(at));
            self.registers.insert((unit, address + at), value);
            self.writes.push((address + at, value));
            self.times.push(Instant::now());
        }
    }

    /// Coils, or several registers.
    fn write(&mut self, unit: u8, pdu: &[u8]) {
        let address = u16::from_be_bytes([pdu[1], pdu[2]]);
        let count = u16::from_be_bytes([pdu[3], pdu[4]]);
        for at in 0..if pdu[0] == 5 { 1 } else { count } {
            let (place, n) = ((unit, address + at), usize::from(at));
            match pdu[0] {
                5 => drop(self.coils.insert(place, pdu[3] == 0xFF)),
                15 => drop(self.coils.insert(place, pdu[6 + n / 8] >> (n % 8) & 1 == 1)),
                _ => drop(self.registers.insert(place, u16::from_be_bytes([pdu[6 + 2 * n], pdu[7 + 2 * n]]))),
            }
        }
        self.other_writes.push(pdu.to_vec());
    }

    fn next_mood(&mut self) -> Mood {
        if let Some(next) = self.next_moods.pop_front() {
            return next;
        }
        let Some((random, weather)) = &mut self.weather else { return self.mood.unwrap_or(Mood::Good) };
        let mut left = random.u32(..100);
        for (percent, mood) in weather {
            if left < *percent {
                return match *mood {
                    Mood::Slow(most) => Mood::Slow(most.mul_f64(random.f64())),
                    other => other,
                };
            }
            left -= *percent;
        }
        Mood::Good
    }
}
