//! A simulator of Azure IoT Hub: its device side over every transport, and the back end's half over AMQP. For tests and
//! the demo; not part of the daemon.
//!
//! There is no emulator of the hub. This one is written from its documentation, from the sources of Microsoft's SDKs
//! and of the protocol gateway the hub descends from, and from what users reported; where these leave a question open
//! there is a switch ([`Options`]). It is believed only because Microsoft's own SDKs, for devices and for back ends,
//! work against it (`tests/hub/sdk_agreement.rs`).
//!
//! What it holds to:
//! - Over MQTT any failure at CONNECT is CONNACK 5; any later one closes the socket. A second connection of the same
//!   device ends the first without a word.
//! - MQTT's subscription belongs to the device. Before the first one, messages are discarded; once there is one, they
//!   are delivered right after CONNACK, before the client subscribes again.
//! - PUBACK completes a message. A message is locked when it is delivered, and comes again until it is completed or
//!   expires.
//! - A device's queue has 50 places; then the sender gets an error.
//! - Over AMQP and HTTPS a message is rejected or abandoned too; ten times abandoned it is given up. Their receivers
//!   see its sequence number, when it was enqueued, and how often it was abandoned.
//! - AMQP ends a link where MQTT ends the connection: an expired token, a second receiver, a disabled device.
//! - Feedback is one queue for the whole hub, in batches.
//! - A direct method goes to a device that listens for it, over MQTT or AMQP, and its answer back to whoever called;
//!   nothing of it is kept for later.
//! - A device's twin is asked for and reported to over MQTT; over AMQP nothing comes of that.
//! - What devices send is read over AMQP, as from an event hub, by whoever shows a token for it.
//! - The Device Provisioning Service answers at the same ports, over HTTPS and MQTT.
//!
//! Not modelled: wills, modules, batches of telemetry over HTTPS, shared access policies for devices, the REST calls of
//! the back end but for direct methods and twins, file notifications, certificate chains, quotas. Time is the
//! machine's.
//!
//! Inside, `state`, `device`, `queue`, `feedback`, `calls`, `twin`, `mqtt` and `amqp::peer` decide without I/O;
//! `listen`, `connection`, `web`, `websocket`, `https`, `twins` and `amqp` move the bytes.

mod amqp;
mod auth;
mod calls;
pub mod cli;
mod connection;
mod device;
mod feedback;
mod https;
mod listen;
mod message;
mod method;
mod mqtt;
mod options;
mod provisioning;
mod queue;
mod side;
mod site;
mod state;
mod stream;
mod tls;
mod topic;
mod twin;
mod twins;
mod web;
mod websocket;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::rustls::ServerConfig;

pub use auth::Auth;
pub use message::{Ack, C2d, D2c, Feedback, SendError, Seq, Status};
pub use method::{CallError, MethodAnswer, MethodCall};
pub use options::{BagStyle, Cut, Discarded, Fault, Kick, Late, Options, OutOfOrder, PacketIds, Redelivery};
pub use provisioning::{Enrollment, Outcome};
pub use tls::ClientCert;
pub use twin::TwinError;
pub use wire::{Effect, End, Settlement, Wire, WireEvent};

use device::Device;
use listen::{accept, Door};
use state::{new_key, Now, State};
use wire::Ring;

/// How often the hub looks at what happens with time.
const TICK: Duration = Duration::from_millis(10);

/// What a test waited for did not happen in time.
#[derive(Debug, thiserror::Error)]
#[error("after {limit:?} there are {found} of {wanted} {what}; the last events:\n{tail}")]
pub struct TimedOut {
    what: &'static str,
    wanted: usize,
    found: usize,
    limit: Duration,
    tail: String,
}

/// What the hub's tasks share.
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    authority: tls::Authority,
    tls: Option<Arc<ServerConfig>>,
}

impl Shared {
    /// Looks at the state or changes it. Nothing waits inside.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A test that panics in here has failed already; its other tasks may as well go on.
        let result = act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
        result
    }
}

/// A running simulator. It stops when it is dropped, and every connection with it.
pub struct SimHub {
    shared: Arc<Shared>,
    doors: Vec<(Door, SocketAddr)>,
    clockwork: JoinHandle<()>,
    listeners: Vec<JoinHandle<()>>,
}

impl Drop for SimHub {
    fn drop(&mut self) {
        self.clockwork.abort();
        self.listeners.iter().for_each(JoinHandle::abort);
    }
}

impl SimHub {
    /// Starts a hub without devices.
    ///
    /// # Errors
    /// A port is taken, or no certificate can be made.
    pub async fn start(options: Options) -> io::Result<Self> {
        let ip = options.bind.ip();
        let authority = tls::Authority::new()?;
        let tls = match options.tls {
            true => Some(authority.server(&options.host, ip, options.tls13)?),
            false => None,
        };
        let wanted: Vec<_> = Door::ALL.into_iter().map(|door| (door, door.address(&options))).collect();
        let state = Mutex::new(State::new(options));
        let shared = Arc::new(Shared { state, changed: Notify::new(), authority, tls });
        let clockwork = tokio::spawn(tick(shared.clone()));
        let mut hub = SimHub { shared, doors: Vec::new(), clockwork, listeners: Vec::new() };
        hub.doors = hub.open(wanted).await?;
        Ok(hub)
    }

    /// Listens at these addresses, and says which they are.
    async fn open(&mut self, wanted: Vec<(Door, SocketAddr)>) -> io::Result<Vec<(Door, SocketAddr)>> {
        let mut doors = Vec::new();
        for (door, address) in wanted {
            let listener = TcpListener::bind(address).await?;
            doors.push((door, listener.local_addr()?));
            self.listeners.push(tokio::spawn(accept(self.shared.clone(), listener, door)));
        }
        Ok(doors)
    }

    fn door(&self, wanted: Door) -> SocketAddr {
        let found = self.doors.iter().find(|(door, _)| *door == wanted);
        found.map(|(_, address)| *address).expect("a running hub has every door")
    }

    /// Where it listens for MQTT.
    pub fn addr(&self) -> SocketAddr {
        self.door(Door::Mqtt)
    }

    /// Where it listens for WebSockets, with MQTT or AMQP in them. The same as [`SimHub::https_addr`].
    pub fn ws_addr(&self) -> SocketAddr {
        self.door(Door::Web)
    }

    /// Where it listens for HTTPS.
    pub fn https_addr(&self) -> SocketAddr {
        self.door(Door::Web)
    }

    /// Where it listens for AMQP.
    pub fn amqp_addr(&self) -> SocketAddr {
        self.door(Door::Amqp)
    }

    /// Its name, as clients must give it.
    pub fn host(&self) -> String {
        self.look(|state| state.options.host.clone())
    }

    /// The certificate to trust.
    pub fn ca_pem(&self) -> String {
        self.shared.authority.pem()
    }

    /// The certificate to trust, written to `hub-ca.pem` in a folder.
    ///
    /// # Errors
    /// It can't be written.
    pub fn ca_file(&self, folder: &Path) -> io::Result<PathBuf> {
        let path = folder.join("hub-ca.pem");
        std::fs::write(&path, self.ca_pem())?;
        Ok(path)
    }

    /// Changes switches while it runs. The host, the address and TLS stay as they were.
    pub fn set_options(&self, change: impl FnOnce(&mut Options)) {
        self.shared.with(|state| change(Arc::make_mut(&mut state.options)));
    }

    /// Adds a device, or changes how it proves who it is.
    pub fn add_device(&self, device: &str, auth: Auth) {
        self.shared.with(|state| state.add_device(device, auth));
    }

    /// Adds a device with a key of its own, and gives the key in base64.
    pub fn add_key_device(&self, device: &str) -> String {
        let key = new_key();
        let encoded = BASE64_STANDARD.encode(&key);
        self.add_device(device, Auth::Key(key));
        encoded
    }

    /// Adds a device with a certificate, known by its thumbprint.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn add_cert_device(&self, device: &str) -> io::Result<ClientCert> {
        let cert = self.issue_client_cert(device)?;
        self.add_device(device, Auth::Thumbprints(vec![cert.thumbprint.clone()]));
        Ok(cert)
    }

    /// A certificate that the hub does not know yet.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn issue_client_cert(&self, device: &str) -> io::Result<ClientCert> {
        self.shared.authority.client(device)
    }

    /// Enables or disables a device; disabling ends its connection, or its links on one.
    pub fn set_enabled(&self, device: &str, enabled: bool) {
        self.shared.with(|state| {
            if let Some(device) = state.devices.get_mut(device) {
                device.enabled = enabled;
            }
            if !enabled {
                state.shut_out(device, Now::read());
            }
        });
    }

    fn key(&self, device: &str) -> Option<Vec<u8>> {
        self.look(|state| match state.devices.get(device).map(|device| &device.auth) {
            Some(Auth::Key(key)) => Some(key.clone()),
            _ => None,
        })
    }

    /// A device's key, if it has one.
    pub fn device_key_base64(&self, device: &str) -> Option<String> {
        self.key(device).map(|key| BASE64_STANDARD.encode(key))
    }

    /// A device's connection string, as the vendor's portal shows it.
    pub fn connection_string(&self, device: &str) -> String {
        let auth = match self.device_key_base64(device) {
            Some(key) => format!("SharedAccessKey={key}"),
            None => "x509=true".to_owned(),
        };
        format!("HostName={};DeviceId={device};{auth}", self.host())
    }

    /// A password for a device with a key. A negative life gives one that has expired.
    pub fn token(&self, device: &str, life_seconds: i64) -> Option<String> {
        let expires = crate::time::Timestamp(Now::read().wall.0 + life_seconds * 1000);
        Some(auth::token(&self.host(), device, &self.key(device)?, expires))
    }

    /// The connection string of the policy `service`, by which a back end sends and receives feedback.
    pub fn service_connection_string(&self) -> String {
        let key = self.look(|state| BASE64_STANDARD.encode(&state.policies["service"]));
        format!("HostName={};SharedAccessKeyName=service;SharedAccessKey={key}", self.host())
    }

    /// The connection string of the endpoint at which a back end reads what devices have sent: an event hub's.
    pub fn event_connection_string(&self) -> String {
        let key = self.look(|state| BASE64_STANDARD.encode(&state.policies["service"]));
        let (host, name) = (self.host(), auth::EVENTS_NAME);
        format!("Endpoint=sb://{host}/;SharedAccessKeyName=service;SharedAccessKey={key};EntityPath={name}")
    }

    /// A token of the policy `service`. A negative life gives one that has expired.
    pub fn service_token(&self, life_seconds: i64) -> String {
        let expires = crate::time::Timestamp(Now::read().wall.0 + life_seconds * 1000);
        self.look(|state| auth::policy_token(&state.options.host, "service", &state.policies["service"], expires))
    }

    /// A token for reading what devices have sent.
    pub fn event_token(&self, life_seconds: i64) -> String {
        let expires = crate::time::Timestamp(Now::read().wall.0 + life_seconds * 1000);
        let audience = format!("sb://{}/{}", self.host(), auth::EVENTS_NAME);
        // To an event hub a key is the text that it is shown as.
        let key = self.look(|state| BASE64_STANDARD.encode(&state.policies["service"]));
        auth::policy_token(&audience, "service", key.as_bytes(), expires)
    }

    /// Sends a message to a device.
    ///
    /// # Errors
    /// The hub does not take the message.
    pub fn send(&self, device: &str, message: C2d) -> Result<Seq, SendError> {
        self.shared.with(|state| state.send(device, message, Now::read()))
    }

    /// Empties a device's queue and says how many messages there were.
    pub fn purge(&self, device: &str) -> usize {
        self.shared.with(|state| state.purge(device, Now::read()))
    }

    /// How many messages are in a device's queue, those in flight included.
    pub fn queue_len(&self, device: &str) -> usize {
        self.look(|state| state.devices.get(device).map_or(0, |device| device.queue.len()))
    }

    /// Whether a device is connected, as far as the hub knows.
    pub fn is_connected(&self, device: &str) -> bool {
        self.look(|state| state.devices.get(device).is_some_and(|d| d.link.is_some() || d.receiver.is_some()))
    }

    /// Whether messages to a device are kept.
    pub fn is_subscribed(&self, device: &str) -> bool {
        self.look(|state| state.devices.get(device).is_some_and(|d| d.keeps(&state.options)))
    }

    /// Until when the token counts with which a device is connected.
    pub fn token_expiry(&self, device: &str) -> Option<crate::time::Timestamp> {
        self.look(|state| {
            let found = state.devices.get(device)?;
            let receiver = found.receiver.as_ref().map(|receiver| receiver.connection);
            let shown = receiver.and_then(|connection| state.sides.get(&connection)?.tokens.get(device).copied());
            found.link.as_ref().map_or(shown, |link| link.token_expires)
        })
    }

    /// Takes out all telemetry so far: what a hub keeps of it is limited.
    pub fn take_telemetry(&self) -> Vec<D2c> {
        self.shared.with(|state| state.telemetry.take())
    }

    /// Takes out all feedback so far.
    pub fn take_feedback(&self) -> Vec<Feedback> {
        self.shared.with(|state| state.feedback.take())
    }

    /// Takes out the wire log so far.
    pub fn take_wire(&self) -> Vec<WireEvent> {
        self.shared.with(|state| state.wire.take())
    }

    /// All feedback so far.
    pub fn feedback(&self) -> Vec<Feedback> {
        self.look(|state| state.feedback.iter().cloned().collect())
    }

    /// All telemetry so far.
    pub fn telemetry(&self) -> Vec<D2c> {
        self.look(|state| state.telemetry.iter().cloned().collect())
    }

    /// The wire log so far.
    pub fn wire(&self) -> Vec<WireEvent> {
        self.look(|state| state.wire.iter().cloned().collect())
    }

    /// Waits for so many feedback records, over all.
    ///
    /// # Errors
    /// They have not come within the limit.
    pub async fn wait_feedback(&self, count: usize, limit: Duration) -> Result<Vec<Feedback>, TimedOut> {
        self.wait("feedback records", |state| &state.feedback, count, limit, |_| true).await
    }

    /// Waits for so much telemetry, over all.
    ///
    /// # Errors
    /// It has not come within the limit.
    pub async fn wait_telemetry(&self, count: usize, limit: Duration) -> Result<Vec<D2c>, TimedOut> {
        self.wait("telemetry messages", |state| &state.telemetry, count, limit, |_| true).await
    }

    /// Waits until so many events of the wire log are as wanted, and gives all that are.
    ///
    /// # Errors
    /// They have not come within the limit.
    pub async fn wait_wire(
        &self,
        count: usize,
        limit: Duration,
        is_wanted: impl Fn(&WireEvent) -> bool,
    ) -> Result<Vec<WireEvent>, TimedOut> {
        self.wait("matching events", |state| &state.wire, count, limit, is_wanted).await
    }

    async fn wait<T: Clone>(
        &self,
        what: &'static str,
        records: fn(&State) -> &Ring<T>,
        wanted: usize,
        limit: Duration,
        is_wanted: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>, TimedOut> {
        let deadline = Instant::now() + limit;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let count = |state: &State| records(state).iter().filter(|r| is_wanted(r)).count();
            let found = self.look(count);
            if found >= wanted {
                let all = |state: &State| records(state).iter().filter(|r| is_wanted(r)).cloned().collect();
                return Ok(self.look(all));
            }
            if tokio::time::timeout_at(deadline, changed).await.is_err() {
                let events = self.wire();
                let tail = events[events.len().saturating_sub(20)..].iter();
                let tail = tail.map(|event| format!("{event:?}\n")).collect();
                return Err(TimedOut { what, wanted, found, limit, tail });
            }
        }
    }

    /// Looks at the state without waking those who wait for a change, of whom the caller may be one.
    fn look<T>(&self, find: impl Fn(&State) -> T) -> T {
        find(&self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Cuts a device's connection. When this returns, nothing more that it sent has an effect.
    pub fn cut(&self, device: &str, how: Cut) -> bool {
        self.shared.with(|state| state.end(device, End::Cut, how, Now::read()))
    }

    /// Lets the locks of a device's messages run out.
    pub fn run_out_locks(&self, device: &str) {
        self.shared.with(|state| state.run_out(device, Now::read()));
    }

    /// Lets something go wrong once.
    pub fn fault(&self, device: &str, fault: Fault) {
        self.shared.with(|state| {
            state.devices.get_mut(device).into_iter().for_each(|device| device.faults.push(fault));
        });
    }

    /// From now on nothing passes over a device's present connection in either direction, while its socket stays open.
    /// The hub takes it for alive until the keep-alive has run out; what it sends meanwhile is lost.
    pub fn half_open(&self, device: &str) {
        self.shared.with(|state| {
            if let Some(line) = state.devices.get(device).and_then(Device::line) {
                line.frozen.store(true, Ordering::Relaxed);
                line.wake.notify_one();
            }
        });
    }

    /// Sends bytes on a device's present connection as they are, and says whether there was one. They may be no packet.
    pub fn inject(&self, device: &str, bytes: impl Into<Vec<u8>>) -> bool {
        self.shared.with(|state| {
            let Some(found) = state.devices.get_mut(device) else { return false };
            let receiver = found.receiver.as_ref().map(|receiver| receiver.connection);
            let side = receiver.and_then(|connection| state.sides.get_mut(&connection));
            let to = found.link.as_mut().map(|link| (&mut link.injected, &link.line));
            let Some((injected, line)) = to.or(side.map(|side| (&mut side.injected, &side.line))) else {
                return false;
            };
            injected.push_back(bytes.into());
            line.wake.notify_one();
            true
        })
    }

    /// Ends a device's connection as at the expiry of its token; on an AMQP connection its links only.
    pub fn expire_token(&self, device: &str) -> bool {
        self.shared.with(|state| state.end(device, End::TokenExpired, Cut::Fin, Now::read()))
    }

    /// Detaches a device's AMQP link to its messages, with a condition such as `amqp:internal-error`, and says whether
    /// there was one.
    pub fn detach_link(&self, device: &str, condition: &str) -> bool {
        self.shared.with(|state| state.order_detach(device, condition))
    }

    /// Detaches the AMQP links that have this address at the hub's end, such as `/messages/devicebound`, to which back
    /// ends send, with a condition.
    pub fn detach_links_of(&self, address: &str, condition: &str) {
        self.shared.with(|state| state.order_detach_of(address, condition));
    }

    /// Feedback records that no back end has taken yet.
    pub fn feedback_waiting(&self) -> usize {
        self.look(|state| state.batches.len())
    }

    /// Refuses every CONNECT for a while, every token over AMQP (code 5: status 401, else 503), and every request over
    /// HTTPS (code 3: status 503, else 429). Over MQTT the hub itself knows no code but 5.
    pub fn refuse_for(&self, time: Duration, code: u8) {
        self.shared.with(|state| state.refusal = Some((Instant::now() + time, code)));
    }

    /// Ends every connection soon after it was made, until it is told otherwise.
    pub fn kick(&self, kick: Option<Kick>) {
        self.shared.with(|state| state.kick = kick);
    }

    /// Lets every CONNACK wait.
    pub fn delay_connack(&self, delay: Duration) {
        self.shared.with(|state| state.connack_delay = delay);
    }

    /// Lets every CONNACK and every PUBACK wait: how the hub throttles.
    pub fn throttle(&self, delay: Duration) {
        self.shared.with(|state| state.throttle = delay);
    }

    /// Takes connections and says nothing on them, not even a TLS handshake's first word.
    pub fn stall_handshakes(&self, stall: bool) {
        self.shared.with(|state| state.stall_handshakes = stall);
    }

    /// Loses the network: every connection ends, and new ones are refused by the system.
    pub async fn stop_listening(&mut self) {
        self.shared.with(|state| {
            let devices: Vec<String> = state.devices.keys().cloned().collect();
            for id in devices {
                state.end(&id, End::Cut, Cut::Reset, Now::read());
            }
            // The back end's, and those on which no device is attached.
            for connection in state.sides.keys().copied().collect::<Vec<_>>() {
                state.end_amqp(connection, &End::Cut, Cut::Reset);
            }
        });
        for listener in self.listeners.drain(..) {
            listener.abort();
            let _ = listener.await;
        }
    }

    /// Listens again, on the same ports.
    ///
    /// # Errors
    /// A port is taken.
    pub async fn resume_listening(&mut self) -> io::Result<()> {
        self.stop_listening().await;
        self.open(self.doors.clone()).await.map(drop)
    }
}

async fn tick(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        shared.with(|state| state.tick(Now::read()));
    }
}
