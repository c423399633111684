//! An instrument at the end of a serial line, on a pseudo-terminal: it does what lines of text ask for, and counts
//! that. It outlives the daemons of a test.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio_serial::{SerialPort as _, SerialStream};

/// A piece of a line after which nothing comes for so long is forgotten.
const FRAGMENT: Duration = Duration::from_secs(1);

/// How an instrument takes its commands, in percent. What is left of 100 it does and confirms at once.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    /// Does it, and confirms up to so much later.
    pub slow: (u32, Duration),
    /// Does it, and says nothing.
    pub mute: u32,
    /// Does nothing, and says nothing.
    pub deaf: u32,
    /// Does nothing, and says no.
    pub refusing: u32,
}

/// An instrument that knows one command: `P` with a number.
pub struct Instrument {
    path: PathBuf,
    done: Arc<Mutex<Vec<u16>>>,
}

impl Instrument {
    pub fn new(seed: u64, temper: Temper) -> Instrument {
        let done: Arc<Mutex<Vec<u16>>> = Arc::default();
        let (give, take) = std::sync::mpsc::channel();
        let serving = done.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                // The near end is held open, so that the instrument sees no hang-up while no daemon lives.
                let (far, near) = SerialStream::pair().expect("a pseudo-terminal can be made");
                give.send(near.name().expect("a pseudo-terminal has a name")).expect("the test waits for it");
                serve(far, fastrand::Rng::with_seed(seed), temper, serving).await;
            });
        });
        Instrument { path: take.recv().expect("the instrument starts").into(), done }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The numbers that were asked for and done, in order.
    pub fn done(&self) -> Vec<u16> {
        self.done.lock().unwrap().clone()
    }
}

/// One command after the other, in the order in which they come; what comes meanwhile waits.
async fn serve(far: SerialStream, mut random: fastrand::Rng, temper: Temper, done: Arc<Mutex<Vec<u16>>>) {
    let mut far = tokio::io::BufReader::new(far);
    let mut line = String::new();
    loop {
        // A piece of a line is lost with the future that has read it.
        match tokio::time::timeout(FRAGMENT, far.read_line(&mut line)).await {
            Ok(Ok(length)) if length > 0 => {}
            Ok(_) => return,
            Err(_) => {
                line.clear();
                continue;
            }
        }
        let number = line.trim_end().strip_prefix('P').and_then(|number| number.parse().ok());
        let number: u16 = number.unwrap_or_else(|| panic!("the instrument heard {line:?}"));
        line.clear();
        let chance = random.u32(..100);
        let (slow, mute, deaf) =
            (temper.slow.0, temper.slow.0 + temper.mute, temper.slow.0 + temper.mute + temper.deaf);
        let reply = match chance {
            _ if chance < mute || chance >= deaf + temper.refusing => {
                done.lock().unwrap().push(number);
                "OK\r\n"
            }
            _ => "NO\r\n",
        };
        match chance {
            _ if chance < slow => tokio::time::sleep(temper.slow.1.mul_f64(random.f64())).await,
            _ if chance < deaf => continue,
            _ => {}
        }
        far.get_mut().write_all(reply.as_bytes()).await.expect("a pseudo-terminal takes a reply");
    }
}
