//! A Modbus TCP slave on strings: for each request the test says what comes back, byte by byte if it wants to.
//! Written out by hand (Modbus Messaging on TCP/IP V1.0b), so that it shares no code with the daemon. It knows
//! functions 3 and 6.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::PATIENCE;

/// What comes back on one request, given the request and its right answer, both as whole frames.
pub enum Act {
    /// These bytes.
    Bytes(fn(&[u8], &[u8]) -> Vec<u8>),
    /// These bytes, then the end of the connection.
    BytesAndClose(fn(&[u8], &[u8]) -> Vec<u8>),
    /// The right answer, so much later; it reads on meanwhile.
    Late(Duration),
    /// The right answer, as soon as so many late answers were given in all.
    AfterLate(usize),
    /// Nothing.
    Silence,
}

#[derive(Default)]
struct Inner {
    registers: HashMap<u16, u16>,
    writes: Vec<(u16, u16)>,
    script: VecDeque<Act>,
    /// Late answers that were handed to the connection on which their request came.
    late_answers: usize,
}

/// A scripted slave. Without a script it does what it is asked for; with one it does that, too, but its answer is the
/// script's.
#[derive(Clone)]
pub struct Puppet {
    address: String,
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Condvar>,
}

impl Puppet {
    pub fn new() -> Puppet {
        Puppet::at("127.0.0.1:0")
    }

    /// A puppet at an address of the test's choice.
    pub fn at(address: &str) -> Puppet {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("a listener has an address").to_string();
        let puppet = Puppet { address, inner: Arc::default(), changed: Arc::default() };
        let serving = puppet.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let puppet = serving.clone();
                std::thread::spawn(move || puppet.serve(stream));
            }
        });
        puppet
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// What comes back on the next request that has no act yet.
    pub fn next(&self, act: Act) {
        self.lock().script.push_back(act);
    }

    /// Acts that no request has come for.
    pub fn acts_left(&self) -> usize {
        self.lock().script.len()
    }

    pub fn set_register(&self, address: u16, value: u16) {
        self.lock().registers.insert(address, value);
    }

    /// How often this value was written to this register.
    pub fn count(&self, address: u16, value: u16) -> usize {
        self.lock().writes.iter().filter(|write| **write == (address, value)).count()
    }

    /// Late answers that were given so far.
    pub fn late_answers(&self) -> usize {
        self.lock().late_answers
    }

    /// Waits until so many late answers were given.
    pub fn wait_for_late_answers(&self, count: usize) {
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, |inner| inner.late_answers < count);
        assert!(!waited.expect("no thread panics here").1.timed_out(), "only {} late answers", self.late_answers());
    }

    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        while let Some(request) = read_frame(&mut stream) {
            let answer = self.answer(&request);
            let act = self.lock().script.pop_front();
            let (bytes, ends) = match act {
                None => (answer, false),
                Some(Act::Bytes(bytes)) => (bytes(&request, &answer), false),
                Some(Act::BytesAndClose(bytes)) => (bytes(&request, &answer), true),
                Some(Act::Silence) => continue,
                Some(Act::AfterLate(count)) => {
                    self.wait_for_late_answers(count);
                    (answer, false)
                }
                Some(Act::Late(time)) => {
                    self.answer_later(&stream, answer, time);
                    continue;
                }
            };
            if stream.write_all(&bytes).is_err() || ends {
                return;
            }
        }
    }

    fn answer_later(&self, stream: &TcpStream, answer: Vec<u8>, time: Duration) {
        let (puppet, mut stream) = (self.clone(), stream.try_clone().expect("a stream can be cloned"));
        std::thread::spawn(move || {
            std::thread::sleep(time);
            let _ = stream.write_all(&answer);
            puppet.lock().late_answers += 1;
            puppet.changed.notify_all();
        });
    }

    /// Does what the request asks for, and makes the right answer.
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let word = |at: usize| u16::from_be_bytes([request[at], request[at + 1]]);
        let mut inner = self.lock();
        let pdu = match request[7] {
            3 => {
                let words = (word(8)..word(8) + word(10)).map(|at| inner.registers.get(&at).copied().unwrap_or(0));
                let bytes: Vec<u8> = words.flat_map(u16::to_be_bytes).collect();
                [&[3, bytes.len() as u8][..], &bytes].concat()
            }
            6 => {
                inner.registers.insert(word(8), word(10));
                inner.writes.push((word(8), word(10)));
                request[7..].to_vec()
            }
            function => vec![function | 0x80, 1],
        };
        frame(&request[..4], request[6], &pdu)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panics here")
    }
}

/// A frame: transaction and protocol, length, unit, function and data.
pub fn frame(start: &[u8], unit: u8, pdu: &[u8]) -> Vec<u8> {
    let length = (pdu.len() as u16 + 1).to_be_bytes();
    [start, &length, &[unit], pdu].concat()
}

fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; 6];
    stream.read_exact(&mut frame).ok()?;
    frame.resize(6 + usize::from(u16::from_be_bytes([frame[4], frame[5]])), 0);
    stream.read_exact(&mut frame[6..]).ok()?;
    Some(frame)
}
