//! The hub simulator on a thread of its own, for tests that are not asynchronous themselves.

use std::ops::Deref;
use std::thread::JoinHandle;

use fieldbridge::demo::hub::{Auth, CallError, MethodAnswer, MethodCall, Options, SimHub};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::eventually;

/// The name of its thread.
pub const THREAD: &str = "simulated hub";

/// A running hub. It ends when it is dropped.
pub struct Hub {
    hub: Option<SimHub>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    runtime: Handle,
}

impl Hub {
    /// One without TLS that knows these devices, all by the key that a site has.
    pub fn plain(devices: &[&str]) -> Hub {
        let hub = Hub::start(Options { tls: false, ..Options::default() });
        devices.iter().for_each(|id| hub.add_device(id, Auth::Key((0..32).collect())));
        hub
    }

    pub fn start(options: Options) -> Hub {
        let (stop, stopped) = oneshot::channel::<()>();
        let (give, take) = std::sync::mpsc::channel();
        let name = std::thread::Builder::new().name(THREAD.into());
        let thread = name.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let hub = SimHub::start(options).await.expect("the simulator starts");
                give.send((hub, Handle::current())).expect("the test waits for it");
                // An error is the test's end too.
                let _ = stopped.await;
            });
        });
        let thread = thread.expect("a thread can be started");
        let (hub, runtime) = take.recv().expect("the simulator starts");
        Hub { hub: Some(hub), stop: Some(stop), thread: Some(thread), runtime }
    }

    /// A hub that is found by its name, which is an address: its ports are those of a hub.
    pub fn found_by_its_name() -> Hub {
        for _ in 0..20 {
            let octet = || fastrand::u8(1..255);
            let host = format!("127.{}.{}.{}", octet(), octet(), octet());
            let address: std::net::IpAddr = host.parse().unwrap();
            if [8883, 5671, 443].iter().all(|port| std::net::TcpListener::bind((address, *port)).is_ok()) {
                let bind = (address, 8883).into();
                return Hub::start(Options { host, bind, amqp_port: 5671, web_port: 443, ..Options::default() });
            }
        }
        panic!(
            "no loopback address where a hub's ports are free; below 1024 they are for root, or for all after `sysctl \
             net.ipv4.ip_unprivileged_port_start=443`"
        );
    }

    /// Calls a device's direct method, and waits for the answer.
    ///
    /// # Errors
    /// The device has not answered.
    pub fn calls(&self, device: &str, call: MethodCall) -> Result<MethodAnswer, CallError> {
        self.runtime.block_on(self.call(device, call))
    }

    /// The same beside the test.
    pub fn begins_to_call(&self, device: &str, call: MethodCall) -> JoinHandle<Result<MethodAnswer, CallError>> {
        let (runtime, device) = (self.runtime.clone(), device.to_owned());
        let call = self.hub.as_ref().expect("it is there until it is dropped").calling(&device, call);
        std::thread::spawn(move || runtime.block_on(call))
    }

    /// Loses the network: every connection ends, and new ones are refused by the system.
    pub fn unplug(&mut self) {
        let hub = self.hub.as_mut().expect("it is there until it is dropped");
        self.runtime.block_on(hub.stop_listening());
    }

    /// The network is there again.
    pub fn plug_in(&mut self) {
        let hub = self.hub.as_mut().expect("it is there until it is dropped");
        eventually("the hub's address is free", || self.runtime.block_on(hub.resume_listening()).ok());
    }
}

impl Deref for Hub {
    type Target = SimHub;

    fn deref(&self) -> &SimHub {
        self.hub.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.hub.take());
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
