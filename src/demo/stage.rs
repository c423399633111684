//! What the demo plays on: a folder, the hub, the peripherals' processes, the daemon's process.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::demo::hub::{C2d, Feedback, Options, SimHub, Status};

/// How long anything may take before the demo gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The devices of the demo and the buses that they are on.
pub const DEVICES: [&str; 4] = ["pump-7", "dispenser-1", "valve-3", "scale-1"];

const CONFIG: &str = r#"[hub]
host = "HOST"
addresses = { mqtt = "MQTT", amqp = "AMQP" }
ca_file = "hub-ca.pem"

[admin]
socket = "admin.sock"

[ledger]
path = "ledger.db"

[telemetry]
path = "telemetry.db"
batch_delay = "0s"

[bus.line-a]
kind = "modbus-rtu"
port = "RTU"
baud = 19200

[bus.plant]
kind = "modbus-tcp"
address = "TCP"
response_timeout = "4s"

[bus.scale-port]
kind = "serial"
port = "SCALE"
baud = 9600

[device.pump-7]
transport = "amqp"
bus = "line-a"
unit = 7
profile = "pump"
key_file = "pump-7.key"

[device.dispenser-1]
bus = "plant"
unit = 1
profile = "dispenser"
key_file = "dispenser-1.key"

[device.valve-3]
bus = "plant"
unit = 3
profile = "valve"
key_file = "valve-3.key"
settle = "after-accept"

[device.scale-1]
bus = "scale-port"
profile = "scale"
key_file = "scale-1.key"

[profile.pump.command.set-speed]
write = { table = "holding", address = 0, scale = 0.1 }
range = [0, 100]
idempotent = true
verify = true

[profile.pump.command.read-speed]
read = { table = "holding", address = 0, scale = 0.1 }

[profile.pump.command.read-nothing]
read = { table = "holding", address = 4000 }

[profile.dispenser.command.dispense]
write = { table = "holding", address = 10 }
idempotent = false

[profile.dispenser.command.dispense-slowly]
write = { table = "holding", address = 20 }
idempotent = false

[profile.dispenser.command.dispense-and-check]
write = { table = "holding", address = 20 }
idempotent = false
verify = true

[profile.dispenser.poll.dose]
read = { table = "holding", address = 10 }
every = "250ms"
report = "change"

[profile.valve.command.open]
write = { table = "coil", address = 3 }
value = true
idempotent = false

[profile.scale.command.weigh]
send = "W\r\n"
expect = "^OK (.*)"
idempotent = true

[profile.scale.command.label]
send = "P {value}\r\n"
pattern = "[ -~]{1,40}"
expect = "^OK"
refuse = "^ERR ?(.*)"
idempotent = false
"#;

/// A child process that does not outlive the demo.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything that the demo plays on.
pub struct Stage {
    folder: PathBuf,
    program: PathBuf,
    /// The hub.
    pub hub: SimHub,
    peripherals: Vec<(Process, PathBuf)>,
    daemon: Option<Process>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.daemon = None;
        self.peripherals.clear();
        // A folder that stays behind in /tmp does no harm.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Stage {
    /// Sets everything up but the daemon.
    pub async fn set() -> Result<Stage, String> {
        let folder = std::env::temp_dir().join(format!("fieldbridge-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let program = std::env::current_exe().map_err(|error| format!("the program can't find itself: {error}"))?;
        let hub = SimHub::start(Options::default()).await.map_err(|error| format!("no hub: {error}"))?;
        let mut stage = Stage { folder, program, hub, peripherals: Vec::new(), daemon: None };
        stage.hub.ca_file(&stage.folder).map_err(|error| error.to_string())?;
        for device in DEVICES {
            let key = stage.hub.add_key_device(device);
            stage.write_secret(&format!("{device}.key"), &key)?;
        }
        let tcp = stage.peripheral("tcp")?;
        let rtu = stage.peripheral("rtu")?;
        let scale = stage.peripheral("scale")?;
        let config = CONFIG
            .replace("HOST", &stage.hub.host())
            .replace("MQTT", &stage.hub.addr().to_string())
            .replace("AMQP", &stage.hub.amqp_addr().to_string())
            .replace("RTU", &rtu)
            .replace("TCP", &tcp)
            .replace("SCALE", &scale);
        stage.write_secret("fieldbridge.toml", &config)?;
        stage.write_secret("service.connection", &stage.hub.service_connection_string())?;
        Ok(stage)
    }

    /// Starts the daemon and waits until it is ready and every device is connected.
    pub async fn start_daemon(&mut self) -> Result<(), String> {
        let notify = self.folder.join("notify.sock");
        let _ = std::fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).map_err(|error| format!("no notify socket: {error}"))?;
        ready.set_nonblocking(true).map_err(|error| error.to_string())?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("daemon.log"))
            .map_err(|error| error.to_string())?;
        let child = Command::new(&self.program)
            .args(["run", "--config"])
            .arg(self.config())
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("the daemon can't be started: {error}"))?;
        self.daemon = Some(Process(child));
        let mut buffer = [0; 512];
        self.wait("the daemon is ready", |_| {
            let length = ready.recv(&mut buffer).unwrap_or(0);
            buffer[..length].windows(7).any(|word| word == b"READY=1")
        })
        .await?;
        self.wait("every device is subscribed", |stage| {
            DEVICES.iter().all(|device| stage.hub.is_connected(device) && stage.hub.is_subscribed(device))
        })
        .await
    }

    /// SIGKILL.
    pub fn kill_daemon(&mut self) {
        self.daemon = None;
    }

    /// Asks the daemon to stop, and gives its exit status.
    pub async fn stop_daemon(&mut self) -> Result<Option<i32>, String> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(None) };
        let killed = Command::new("kill").arg(daemon.0.id().to_string()).status();
        killed.map_err(|error| format!("kill can't be run: {error}"))?;
        let mut status = None;
        self.wait("the daemon has stopped", |_| {
            status = daemon.0.try_wait().ok().flatten();
            status.is_some()
        })
        .await?;
        Ok(status.and_then(|status| status.code()))
    }

    /// Sends a message to a device.
    pub fn send(&self, device: &str, id: &str, command: &str, body: &str) -> Result<(), String> {
        let message = C2d::new(id, body).property("command", command).ack(crate::demo::hub::Ack::Full);
        self.hub.send(device, message).map(|_| ()).map_err(|error| format!("{id}: {error}"))
    }

    /// The result events of a message.
    pub fn events(&self, id: &str) -> Vec<Json> {
        let about = |event: &&crate::demo::hub::D2c| event.property("$.cid") == Some(id);
        self.hub.telemetry().iter().filter(about).map(|event| event.json()).collect()
    }

    /// The values of a poll that the hub has of a device, in the order in which they came.
    #[cfg(feature = "backend")]
    pub fn values(&self, device: &str, poll: &str) -> Vec<Json> {
        let is_own = |event: &&crate::demo::hub::D2c| {
            event.device == device && event.property("fieldbridge") == Some("telemetry")
        };
        let samples = self.hub.telemetry().iter().filter(is_own).map(|event| event.json()).collect::<Vec<_>>();
        let samples = samples.iter().filter_map(Json::as_array).flatten();
        samples.filter_map(|sample| sample["values"].get(poll).cloned()).collect()
    }

    /// How often the hub has completed messages with this id.
    pub fn completions(&self, id: &str) -> usize {
        self.ended_as(id, &[Status::Success])
    }

    /// How often messages with this id were settled: completed, or rejected by the gateway.
    pub fn settlements(&self, id: &str) -> usize {
        self.ended_as(id, &[Status::Success, Status::Rejected])
    }

    fn ended_as(&self, id: &str, statuses: &[Status]) -> usize {
        let feedback = self.hub.feedback();
        let is_own = |record: &&Feedback| record.original_message_id.as_deref() == Some(id);
        feedback.iter().filter(is_own).filter(|record| statuses.contains(&record.status)).count()
    }

    /// What the hub's feedback says of a message.
    pub fn feedback(&self, id: &str) -> String {
        let feedback = self.hub.feedback();
        let record = feedback.iter().find(|record| record.original_message_id.as_deref() == Some(id));
        record.map_or_else(|| "none".to_owned(), |record| format!("{:?}", record.status))
    }

    /// Every effect on any peripheral, as they recorded them.
    pub fn effects(&self) -> Vec<String> {
        let read = |(_, path): &(Process, PathBuf)| std::fs::read_to_string(path).unwrap_or_default();
        self.peripherals.iter().map(read).flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    /// Waits until a message was settled so often and its event has come.
    pub async fn settled(&self, id: &str, settlements: usize) -> Result<Json, String> {
        let what = format!("{id} is settled and reported");
        self.wait(&what, |stage| stage.settlements(id) >= settlements && !stage.events(id).is_empty()).await?;
        Ok(self.events(id).swap_remove(0))
    }

    /// Waits until something is so.
    pub async fn wait(&self, what: &str, mut probe: impl FnMut(&Stage) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !probe(self) {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default();
                return Err(format!("this never happened: {what}\nthe daemon's log:\n{log}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Runs an operator's command and gives what it prints.
    pub fn operator(&self, args: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.program)
            .args(args)
            .arg("--config")
            .arg(self.config())
            .output()
            .map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
    }

    /// Runs a command of the back end's, beside the hub, and gives its exit status and what it prints. A direct method
    /// is called over HTTPS, all else is AMQP.
    #[cfg(feature = "backend")]
    pub async fn back_end(&self, args: &[&str]) -> Result<(Option<i32>, String), String> {
        let address = if args.starts_with(&["call"]) { self.hub.https_addr() } else { self.hub.amqp_addr() };
        let output = tokio::process::Command::new(&self.program)
            .args(args)
            .arg("--connection-string-file")
            .arg(self.folder.join("service.connection"))
            .arg("--ca-file")
            .arg(self.folder.join("hub-ca.pem"))
            .args(["--address", &address.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PATIENCE, output).await;
        let output = output.map_err(|_| format!("{args:?} did not end"))?.map_err(|error| error.to_string())?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&printed).into_owned()))
    }

    fn config(&self) -> PathBuf {
        self.folder.join("fieldbridge.toml")
    }

    /// Starts a peripheral and gives the place that it announces.
    fn peripheral(&mut self, kind: &str) -> Result<String, String> {
        let effects = self.folder.join(format!("{kind}.effects"));
        let trouble = |error: std::io::Error| format!("the peripheral {kind} can't be started: {error}");
        let mut child = Command::new(&self.program)
            .args(["demo", "peripheral", kind])
            .arg(&effects)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(trouble)?;
        let output = child.stdout.take().ok_or_else(|| format!("the peripheral {kind} has no output"))?;
        self.peripherals.push((Process(child), effects));
        let mut place = String::new();
        BufReader::new(output).read_line(&mut place).map_err(trouble)?;
        Ok(place.trim().to_owned())
    }

    fn write_secret(&self, name: &str, content: &str) -> Result<(), String> {
        use std::os::unix::fs::PermissionsExt as _;
        let path: &Path = &self.folder.join(name);
        std::fs::write(path, content)
            .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)))
            .map_err(|error| format!("{}: {error}", path.display()))
    }
}
