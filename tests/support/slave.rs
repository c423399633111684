//! A Modbus TCP slave that counts what reaches it. Written out by hand (Modbus Messaging on TCP/IP V1.0b), so that it shares no code with
//! the daemon; it outlives the daemons of a test.

use std::collections::HashMap;
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
}

#[derive(Default)]
struct Inner {
    registers: HashMap<u16, u16>,
    /// (address, value) of each single-register write that was carried out, in order.
    writes: Vec<(u16, u16)>,
    /// When each of them was, in the same order.
    times: Vec<Instant>,
    requests: usize,
    mood: Option<Mood>,
    /// Answers that may go although the mood is to hold them.
    let_go: usize,
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
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
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

    /// Sets a holding register, as the machine behind it would.
    pub fn set_register(&self, address: u16, value: u16) {
        self.lock().registers.insert(address, value);
    }

    /// Every single-register write that was carried out.
    pub fn writes(&self) -> Vec<(u16, u16)> {
        self.lock().writes.clone()
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
            let (answer, delay) = self.answer(&pdu);
            std::thread::sleep(delay);
            if pdu[0] == 6 {
                self.wait_for_leave();
            }
            let Some(answer) = answer else { continue };
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

    fn answer(&self, pdu: &[u8]) -> (Option<Vec<u8>>, Duration) {
        let mut inner = self.lock();
        inner.requests += 1;
        self.changed.notify_all();
        let word = |at: usize| u16::from_be_bytes([pdu[at], pdu[at + 1]]);
        let mood = inner.mood.unwrap_or(Mood::Good);
        match (pdu[0], mood) {
            (3, _) => {
                let mut answer = vec![3, (word(3) * 2) as u8];
                for address in word(1)..word(1) + word(3) {
                    answer.extend(inner.registers.get(&address).copied().unwrap_or(0).to_be_bytes());
                }
                (Some(answer), Duration::ZERO)
            }
            (6, Mood::Refusing(code)) => (Some(vec![0x86, code]), Duration::ZERO),
            (6, Mood::Deaf) => (None, Duration::ZERO),
            (6, mood) => {
                inner.registers.insert(word(1), word(3));
                inner.writes.push((word(1), word(3)));
                inner.times.push(Instant::now());
                match mood {
                    Mood::Slow(time) => (Some(pdu.to_vec()), time),
                    Mood::Mute => (None, Duration::ZERO),
                    _ => (Some(pdu.to_vec()), Duration::ZERO),
                }
            }
            (function, _) => (Some(vec![function | 0x80, 1]), Duration::ZERO),
        }
    }
}
