//! What the black-box tests share: the built daemon as a process, a broker that does just what a test says, a slave
//! that counts.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used)] // clippy knows only functions that are marked as tests

pub mod books;
pub mod broker;
pub mod disk;
pub mod fleet;
pub mod foreign;
pub mod hub;
pub mod instrument;
pub mod many;
pub mod old_ledger;
pub mod person;
pub mod process;
pub mod profiles;
pub mod pty;
pub mod puppet;
pub mod rows;
pub mod slave;
pub mod tls;
pub mod trace;
pub mod transports;
pub mod visitor;
pub mod wall;

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

/// How long anything may take that ought to be quick. Generous: two cores are shared by many tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with a configuration, a ledger and keys: what outlives a daemon.
pub struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    /// A site whose hub is at `address`, without TLS, with more configuration after that.
    pub fn new(address: &str, more: &str) -> Site {
        Site::with_hub(&format!("host = \"hub.example\"\naddress = \"{address}\"\ntls = false\n"), more)
    }

    /// A site of a hub simulator without TLS.
    pub fn at(hub: &hub::Hub, more: &str) -> Site {
        let head = format!("host = \"{}\"\naddress = \"{}\"\ntls = false\n", hub.host(), hub.addr());
        Site::with_hub(&head, more)
    }

    /// A site with all of `[hub]` as given.
    pub fn with_hub(hub: &str, more: &str) -> Site {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let site = Site { folder };
        let text = format!(
            "[hub]\n{hub}\n[admin]\nsocket = \"{}\"\n[ledger]\npath = \"{}\"\n{more}",
            site.path("admin.sock").display(),
            site.path("ledger.db").display(),
        );
        std::fs::write(site.path("fieldbridge.toml"), text).expect("the configuration can be written");
        // The key 00 01 .. 1f, which the simulator and the vectors use.
        site.write("device.key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
        site
    }

    /// A path in the site's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner reads.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(name);
        std::fs::write(&path, content).expect("a file can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        path
    }

    /// Puts other text in the place of some in the configuration.
    pub fn configure(&self, from: &str, to: &str) {
        let config = self.path("fieldbridge.toml");
        let text = std::fs::read_to_string(&config).expect("there is a configuration");
        assert!(text.contains(from), "{from:?} is not in the configuration");
        std::fs::write(config, text.replace(from, to)).expect("the configuration can be written");
    }

    /// Has the ledger kept in another folder.
    pub fn keep_ledger_in(&self, folder: &Path) {
        let [here, there] = [self.path("ledger.db"), folder.join("ledger.db")].map(|path| path.display().to_string());
        self.configure(&here, &there);
    }

    /// Runs an operator's command to its end.
    pub fn command(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(args).arg("--config").arg(self.path("fieldbridge.toml"));
        command.stdin(Stdio::null()).output().expect("the built program can be run")
    }

    /// The rows of the ledger, oldest first.
    pub fn rows(&self) -> Vec<Json> {
        let output = self.command(&["ledger", "list", "--json", "--limit", "1000000"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("rows are UTF-8");
        let mut rows: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).expect("a row is JSON")).collect();
        rows.reverse();
        rows
    }

    /// The row of a message, once it is in this state.
    pub fn wait_for_row(&self, message_id: &str, state: &str) -> Json {
        eventually(&format!("a row of {message_id} that is {state}"), || {
            self.rows().into_iter().find(|row| row["messageId"] == message_id && row["state"] == state)
        })
    }

    /// What the hub was told of a message, and how, once that stands in its row.
    pub fn settled_how(&self, message_id: &str) -> String {
        eventually(&format!("what the hub was told of {message_id}"), || {
            let row = self.rows().into_iter().find(|row| row["messageId"] == message_id)?;
            let shown = self.command(&["ledger", "show", &row["row"].to_string(), "--json"]);
            let shown: Json = serde_json::from_slice(&shown.stdout).ok()?;
            let entry = shown["history"].as_array()?.iter().find(|entry| entry["event"] == "settled")?;
            entry["detail"].as_str().map(str::to_owned)
        })
    }

    /// What `status` says of a device of the running daemon.
    pub fn device_status(&self, id: &str) -> Json {
        let status = self.status();
        let devices = status["devices"].as_array().expect("a status has devices");
        devices.iter().find(|device| device["id"] == id).expect("the device is there").clone()
    }

    /// Waits until `status` gives a reason with these words for the pump's being without a connection.
    pub fn wait_for_last_error(&self, fragment: &str) {
        eventually(&format!("lastError says {fragment:?}"), || {
            let error = self.device_status("pump")["lastError"].as_str().unwrap_or_default().to_owned();
            error.contains(fragment).then_some(())
        });
    }

    /// Starts the daemon and waits until it says that it is ready.
    pub fn start(&self) -> Daemon {
        self.start_under(&[])
    }

    /// Starts the daemon under another program, such as strace, and waits until it says that it is ready.
    pub fn start_under(&self, wrapper: &[&str]) -> Daemon {
        let daemon = self.spawn(wrapper, &[]);
        daemon.wait_until_ready();
        daemon
    }

    /// Starts the daemon under another program, if any, with more in its environment, and waits for nothing.
    pub fn spawn(&self, wrapper: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(self.path("daemon.log")).expect("a log can be opened");
        self.spawn_logging_to(log, wrapper, environment)
    }

    /// The same with another place for its log.
    pub fn spawn_logging_to(&self, log: impl Into<Stdio>, wrapper: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let notify = self.path("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).expect("a notify socket can be made");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let program = program();
        let mut words = wrapper.iter().copied().chain([program.as_str()]);
        let mut command = Command::new(words.next().expect("there is a program"));
        command.args(words).args(["run", "--config"]).arg(self.path("fieldbridge.toml"));
        command.env("NOTIFY_SOCKET", &notify).env("FIELDBRIDGE_LOG", "debug");
        command.env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID").envs(environment.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("it can be started");
        Daemon { child, log: self.path("daemon.log"), socket }
    }

    /// What `status --json` says.
    pub fn status(&self) -> Json {
        let output = self.command(&["status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a status is JSON")
    }

    /// Waits until every command has ended, the hub has acknowledged every result event, and the ledger has noted it:
    /// nothing is under way any more.
    pub fn settled(&self) {
        let have_ended = |status: &Json| {
            let devices = status["devices"].as_array().cloned().unwrap_or_default();
            devices.iter().all(|device| device["pending"] == 0)
        };
        eventually("no command under way", || have_ended(&self.status()).then_some(()));
        eventually("an empty outbox", || (self.status()["outbox"]["pending"] == 0).then_some(()));
    }
}

/// The program under test: the one that was built with the tests, or another in its place, such as one for another
/// architecture under an emulator (packaging/test-foreign.sh).
pub fn program() -> String {
    std::env::var("FIELDBRIDGE_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_fieldbridge").to_owned())
}

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
    socket: UnixDatagram,
}

impl Daemon {
    /// Waits until it says that it is ready.
    pub fn wait_until_ready(&self) {
        self.told("READY=1");
    }

    /// Waits until it tells systemd this, and returns everything that it said up to then.
    pub fn told(&self, what: &str) -> Vec<String> {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = match uninterrupted(|| self.socket.recv(&mut buffer)) {
                Ok(length) => length,
                Err(error) => panic!("the daemon did not say {what}: {error}; it said {said:?}\n{}", self.log()),
            };
            said.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if said.last().is_some_and(|line| line.contains(what)) {
                return said;
            }
        }
    }

    /// Takes what it has told systemd so far, then listens for so long, and returns what it says in that time.
    pub fn silent_for(&self, time: Duration) -> Vec<String> {
        let mut buffer = [0; 4096];
        self.socket.set_nonblocking(true).expect("a socket can be told not to block");
        while self.socket.recv(&mut buffer).is_ok() {}
        std::thread::sleep(time);
        let said = std::iter::from_fn(|| self.socket.recv(&mut buffer).ok().map(|length| (length, buffer)));
        let said = said.map(|(length, buffer)| String::from_utf8_lossy(&buffer[..length]).into_owned()).collect();
        self.socket.set_nonblocking(false).expect("a socket can be told to block");
        said
    }

    /// From now on nobody reads what it tells systemd. One that is not read would hold it up in the end.
    pub fn unheard(mut self) -> Daemon {
        self.socket = UnixDatagram::unbound().expect("a socket can be made");
        self
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The number of the daemon itself where it runs under another program.
    pub fn inner_pid(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        eventually("a child of the wrapper", || {
            std::fs::read_to_string(&children).expect("a process has a list of children").trim().parse().ok()
        })
    }

    /// SIGKILL: no chance to put anything in order.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// SIGTERM, and the end of it.
    pub fn terminate(mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        self.wait()
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it logged. Nothing where the site is gone already: a panic in here would hide the one that led to it.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

/// How often a log says something. Lines that it has left out are in it as a number.
pub fn times_said(log: &str, what: &str) -> usize {
    let stands_for = |line: &str| -> usize {
        let number = line.split_once("the last of ").and_then(|(_, rest)| rest.split(' ').next());
        number.map_or(1, |number| number.parse().expect("lines are counted"))
    };
    log.lines().filter(|line| line.contains(what)).map(stands_for).sum()
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill can be run");
    assert!(status.success(), "kill -{name} {pid} failed");
}

/// Waits until something is so, and says what was missing if it never is.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, probe)
}

/// What a call gives that a signal does not end. A socket with a time limit is not taken up again after SIGCONT or a
/// thaw (signal(7), "Interruption of system calls by signal handlers and stop signals").
pub fn uninterrupted<T>(mut call: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The same for what takes longer.
pub fn eventually_within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The profile of a pump, with a command of each kind: `set` (idempotent, holding register 0), `set-verified`
/// (register 1), `pulse` (not idempotent, register 2), `pulse-verified` (not idempotent, register 3, read back),
/// `read` (register 0).
pub const PUMP: &str = r#"
[profile.pump.command.set]
write = { table = "holding", address = 0 }
idempotent = true

[profile.pump.command.set-verified]
write = { table = "holding", address = 1 }
idempotent = true
verify = true

[profile.pump.command.pulse]
write = { table = "holding", address = 2 }
idempotent = false

[profile.pump.command.pulse-verified]
write = { table = "holding", address = 3 }
idempotent = false
verify = true

[profile.pump.command.read]
read = { table = "holding", address = 0 }
"#;

/// The configuration of one device, a [`PUMP`] on a Modbus TCP bus.
pub fn pump(slave: &str, settle: &str, timing: &str) -> String {
    format!(
        r#"
[bus.plant]
kind = "modbus-tcp"
address = "{slave}"
{timing}

[device.pump]
bus = "plant"
unit = 1
profile = "pump"
key_file = "device.key"
settle = "{settle}"
{PUMP}"#
    )
}

/// A loopback address that nobody listens at, for a program that can't choose a port by itself. The host is random,
/// so that nobody else on this machine comes across it in the meantime.
pub fn free_address() -> (String, u16) {
    let part = || fastrand::u8(1..=254);
    let host = format!("127.{}.{}.{}", part(), part(), part());
    let listener = std::net::TcpListener::bind((host.as_str(), 0)).expect("a loopback address can be bound");
    let port = listener.local_addr().expect("a listener has an address").port();
    (host, port)
}

/// Whether a program is there; a test that needs it says how to get it.
pub fn require(program: &str, package: &str) {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|folder| is_file(&folder.join(program)))
    });
    assert!(found, "this test needs {program}: install the package {package}, or run scripts/setup.sh tests");
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}
