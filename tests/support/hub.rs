//! The hub simulator on a thread of its own, for tests that are not asynchronous themselves.

use std::ops::Deref;
use std::thread::JoinHandle;

use fieldbridge::sim::{Options, SimHub};
use tokio::sync::oneshot;

use super::eventually;

/// A running hub. It ends when it is dropped.
pub struct Hub {
    hub: Option<SimHub>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    runtime: tokio::runtime::Handle,
}

impl Hub {
    pub fn start(options: Options) -> Hub {
        let (stop, stopped) = oneshot::channel::<()>();
        let (give, take) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let hub = SimHub::start(options).await.expect("the simulator starts");
                give.send((hub, tokio::runtime::Handle::current())).expect("the test waits for it");
                // An error is the test's end too.
                let _ = stopped.await;
            });
        });
        let (hub, runtime) = take.recv().expect("the simulator starts");
        Hub { hub: Some(hub), stop: Some(stop), thread: Some(thread), runtime }
    }

    /// Goes down. It keeps its queues, and nobody can connect.
    pub fn go_down(&mut self) {
        self.runtime.block_on(self.hub.as_mut().expect("it is there until it is dropped").stop_listening());
    }

    /// Comes back, at the same address.
    pub fn come_back(&mut self) {
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
