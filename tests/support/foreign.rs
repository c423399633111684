//! Programs from Debian that this project did not write, as peers: a Modbus slave of libmodbus, mbpoll as another
//! master, socat as the server of a serial line, and a cable that leads from one to the other.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use tokio_serial::{SerialPort as _, SerialStream};

use super::process::Killed;
use super::{eventually, require};

/// A serial cable with a path at either end: two pseudo-terminals back to back, of which the ends stay open.
pub struct Cable {
    folder: tempfile::TempDir,
    _held: tokio::sync::oneshot::Sender<()>,
}

impl Cable {
    pub fn new() -> Cable {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (held, dropped) = tokio::sync::oneshot::channel();
        let cable = Cable { folder, _held: held };
        let ends = [cable.near(), cable.far()];
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let [mut one, mut other] = ends.map(|path| {
                    let (inner, outer) = SerialStream::pair().expect("a pseudo-terminal can be made");
                    let name = outer.name().expect("a pseudo-terminal has a name");
                    std::os::unix::fs::symlink(name, path).expect("it gets its name");
                    (inner, outer)
                });
                tokio::select! {
                    ended = tokio::io::copy_bidirectional(&mut one.0, &mut other.0) => drop(ended),
                    _ = dropped => {}
                }
            });
        });
        for end in [cable.near(), cable.far()] {
            eventually("the end of a cable", || end.exists().then_some(()));
        }
        cable
    }

    /// The gateway's end.
    pub fn near(&self) -> PathBuf {
        self.folder.path().join("near")
    }

    /// Its peer's.
    pub fn far(&self) -> PathBuf {
        self.folder.path().join("far")
    }
}

/// A line that a program says, and those behind it in the background.
fn lines_of(out: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = lines.clone();
    std::thread::spawn(move || {
        let said = BufReader::new(out).lines().map_while(Result::ok);
        said.for_each(|line| seen.lock().expect("nobody panics while holding it").push(line));
    });
    lines
}

/// The unit at which libmodbus answers.
pub const UNIT: u8 = 7;

/// A slave of libmodbus, as tests/foreign/libmodbus_server.c describes it.
pub struct Libmodbus {
    /// Its address by Modbus TCP.
    pub port: u16,
    served: Arc<Mutex<Vec<String>>>,
    _child: Killed,
}

impl Libmodbus {
    /// By TCP and at the far ends of these cables by RTU.
    pub fn start(cables: &[&Cable]) -> Libmodbus {
        let mut command = Command::new(built());
        command.args(cables.iter().map(|cable| cable.far()));
        let mut child = Killed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built"));
        let served = lines_of(child.0.stdout.take().expect("it is piped"));
        let port = eventually("libmodbus at work", || {
            assert!(child.0.try_wait().expect("a child can be asked").is_none(), "libmodbus' slave has ended");
            served.lock().expect("nobody panics while holding it").first().map(|line| line.parse().expect("a port"))
        });
        Libmodbus { port, served, _child: child }
    }

    /// Unit and PDU of each request so far, in hexadecimal, as it came to the slave.
    pub fn served(&self) -> Vec<String> {
        self.served.lock().expect("nobody panics while holding it")[1..].to_vec()
    }
}

/// The slave, built once for all tests of a program.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        require("cc", "gcc");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/libmodbus_server.c");
        // Programs that are run beside one another must not write to the same file.
        let name = format!("libmodbus_server-{}", std::process::id());
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"]).args([&program, &source]).arg("-lmodbus");
        let output = cc.output().expect("cc can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{said}\nlibmodbus' slave can't be built: install the package libmodbus-dev, or run scripts/setup.sh tests"
        );
        program
    })
}

/// A table as mbpoll numbers it (`-t`).
#[derive(Debug, Clone, Copy)]
pub enum Mbpoll {
    Coil,
    Holding,
    Float,
}

impl Mbpoll {
    fn word(self) -> &'static str {
        match self {
            Mbpoll::Coil => "0",
            Mbpoll::Holding => "4",
            Mbpoll::Float => "4:float",
        }
    }

    /// What another master reads.
    pub fn read(self, at: &Place, address: u16, count: u16) -> Vec<String> {
        let said = self.run(at, address, &["-c", &count.to_string()], &[]);
        let values = said.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: \t"));
        // Of what is negative it also says what it is without its sign: the latter in front.
        values.map(|(_, value)| value.split(' ').next().unwrap_or_default().to_owned()).collect()
    }

    /// Another master writes.
    pub fn write(self, at: &Place, address: u16, values: &[&str]) {
        let said = self.run(at, address, &[], values);
        assert!(said.contains(&format!("Written {} references", values.len())), "{said}");
    }

    fn run(self, at: &Place, address: u16, options: &[&str], values: &[&str]) -> String {
        require("mbpoll", "mbpoll");
        let mut command = Command::new("mbpoll");
        command.args(["-0", "-1", "-B", "-a", &UNIT.to_string(), "-o", "5", "-t", self.word()]);
        command.args(["-r", &address.to_string()]).args(options);
        match at {
            Place::Tcp(port) => command.args(["-p", &port.to_string(), "127.0.0.1"]),
            Place::Line(path) => command.args(["-m", "rtu", "-b", "115200", "-P", "none"]).arg(path),
        };
        command.arg("--").args(values);
        let output = command.stdin(Stdio::null()).output().expect("mbpoll can be run");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

/// Where a master finds the slave.
pub enum Place {
    Tcp(u16),
    Line(PathBuf),
}

/// socat as a serial server: whoever connects to it has the line, as from a box with RS-485 on one side and Ethernet on
/// the other.
pub struct SerialServer {
    child: Child,
    pub address: String,
}

impl SerialServer {
    /// Of a serial port, at an address of its own choice.
    pub fn of(port: &Path) -> SerialServer {
        SerialServer::at("127.0.0.1:0", port)
    }

    /// The same at an address that is free.
    pub fn at(address: &str, port: &Path) -> SerialServer {
        require("socat", "socat");
        let (host, number) = address.split_once(':').expect("an address has a port");
        let mut command = Command::new("socat");
        command.args(["-d", "-d"]).arg(format!("TCP-LISTEN:{number},bind={host},reuseaddr,fork"));
        command.arg(format!("FILE:{},raw,echo=0,b115200", port.display()));
        // Each connection has a process of its own: all of them are one group.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("socat can be run");
        let said = lines_of(child.stderr.take().expect("it is piped"));
        let address = eventually("a serial server that listens", || {
            let said = said.lock().expect("nobody panics while holding it");
            said.iter().find_map(|line| Some(line.split_once(" listening on AF=2 ")?.1.to_owned()))
        });
        SerialServer { child, address }
    }
}

impl Drop for SerialServer {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}
