//! Proves G11 and G16 for names, addresses and handles: an address that answers nothing, or a resolver that does not
//! answer, holds up nobody else; and the gateway connects over IPv6, and as soon as a name has an address.
//!
//! Names are of a file of the test's own, in a mount namespace: this needs root.

use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::disk::with_mounts;
use crate::support::hub::Hub;
use crate::support::process::Figures;
use crate::support::slave::Slave;
use crate::support::{self, eventually, pump, Daemon, Site};
use fieldbridge::demo::hub::{Ack, Auth, C2d, Options};
use serde_json::json;

/// A hub, a slave, and a site that knows them by these addresses.
struct Plant {
    site: Site,
    hub: Hub,
    slave: Slave,
}

impl Plant {
    fn new(hub: Hub, slave: Slave, hub_address: &str, slave_address: &str, more: &str) -> Plant {
        let head = format!("host = \"{}\"\naddress = \"{hub_address}\"\nca_file = \"hub-ca.pem\"\n", hub.host());
        let site = Site::with_hub(&head, &format!("{}\n{more}", pump(slave_address, "after-execution", "")));
        hub.ca_file(&site.path("")).expect("the certificate can be written");
        hub.add_device("pump", Auth::Key((0..32).collect()));
        Plant { site, hub, slave }
    }

    /// Starts the daemon with hosts and resolver of the test's own.
    fn start(&self, hosts: &str, resolver: &str) -> Daemon {
        let (hosts_file, resolver_file) = (self.site.path("hosts"), self.site.path("resolv.conf"));
        std::fs::write(&hosts_file, hosts).expect("a file can be written");
        std::fs::write(&resolver_file, resolver).expect("a file can be written");
        let mounts = with_mounts(&format!(
            "mount --bind {} /etc/hosts; mount --bind {} /etc/resolv.conf",
            hosts_file.display(),
            resolver_file.display()
        ));
        let wrapper: Vec<&str> = mounts.iter().map(String::as_str).collect();
        let daemon = self.site.spawn(&wrapper, &[]);
        daemon.wait_until_ready();
        daemon
    }

    /// Names get addresses.
    fn resolve(&self, hosts: &str) {
        // The file itself is mounted: it must not become another one.
        std::fs::write(self.site.path("hosts"), hosts).expect("a file can be written");
    }

    fn connected(&self, count: usize) {
        eventually("connections", || (self.site.status()["hub"]["connected"] == count).then_some(()));
    }

    /// A command comes through from the hub to the slave.
    fn works(&self, value: u16) {
        let body = json!({ "command": "pulse", "value": value }).to_string();
        self.hub.send("pump", C2d::new(value.to_string(), body).ack(Ack::Full)).expect("the hub takes it");
        eventually("the command completed", || (self.hub.queue_len("pump") == 0).then_some(()));
        assert_eq!(self.slave.writes().last(), Some(&(2, value)));
        self.site.settled();
    }
}

fn hub_at(bind: &str) -> Hub {
    Hub::start(Options { bind: bind.parse().expect("it is an address"), ..Options::default() })
}

/// Takes a port of `[::1]` so that whoever connects there hears nothing: its queue is full.
fn swallow(port: u16) -> impl Sized {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v6().expect("this machine has IPv6");
        socket.bind(format!("[::1]:{port}").parse().expect("an address")).expect("the port is free on ::1, too");
        socket.listen(1).expect("it can listen")
    });
    let address = listener.local_addr().expect("it has an address");
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        queue.push(stream);
    }
    (runtime, listener, queue)
}

#[test]
fn hub_and_slave_are_reached_over_ipv6() {
    let (hub, slave) = (hub_at("[::1]:0"), Slave::at("[::1]:0"));
    let (hub_address, slave_address) = (hub.addr().to_string(), slave.address().to_owned());
    assert!(hub_address.starts_with("[::1]:") && slave_address.starts_with("[::1]:"));
    let plant = Plant::new(hub, slave, &hub_address, &slave_address, "");
    let daemon = plant.site.spawn(&[], &[]);
    daemon.wait_until_ready();
    plant.connected(1);
    plant.works(1);
    assert!(daemon.terminate().success());
}

#[test]
fn an_ipv6_address_that_swallows_everything_costs_a_moment() {
    let (hub, slave) = (hub_at("127.0.0.1:0"), Slave::new());
    let ports = [hub.addr().port(), slave.address().rsplit_once(':').expect("a port").1.parse().expect("a number")];
    let _holes = ports.map(swallow);
    let [hub_name, slave_name] = ["hub.test", "plc.test"].map(str::to_owned);
    let plant = Plant::new(hub, slave, &format!("{hub_name}:{}", ports[0]), &format!("{slave_name}:{}", ports[1]), "");
    // The resolver's order has IPv6 first (RFC 6724).
    let hosts = format!("::1 {hub_name} {slave_name}\n127.0.0.1 {hub_name} {slave_name}\n");
    let daemon = plant.start(&hosts, "");
    plant.connected(1);
    plant.works(1);
    let status = plant.site.status();
    assert_eq!(status["buses"][0]["lastError"], json!(null), "{status}");
    assert!(!daemon.log().contains("no identity can reach the hub"), "it was reached at the first attempt");
    assert!(daemon.terminate().success());
}

#[test]
fn names_that_get_their_address_late_hold_up_nobody_and_are_waited_for() {
    const OTHERS: usize = 30;
    let (hub, slave, near) = (hub_at("127.0.0.1:0"), Slave::new(), Slave::new());
    let port = slave.address().rsplit_once(':').expect("a port").1.to_owned();
    let mut more = format!("[bus.near]\nkind = \"modbus-tcp\"\naddress = \"{}\"\n", near.address());
    for number in 0..OTHERS {
        let id = format!("near-{number}");
        more += &format!("[device.{id}]\nbus = \"near\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n");
        hub.add_device(&id, Auth::Key((0..32).collect()));
    }
    let hub_address = format!("hub.test:{}", hub.addr().port());
    let plant = Plant::new(hub, slave, &hub_address, &format!("plc.test:{port}"), &more);
    // A resolver that takes every question and answers none.
    let resolver = UdpSocket::bind(format!("127.{}.{}.{}:53", fastrand::u8(1..), fastrand::u8(1..), fastrand::u8(1..)))
        .expect("this test listens on port 53 of a loopback address of its own: run it as root");
    let ip = resolver.local_addr().expect("it has an address").ip();
    let daemon = plant.start("", &format!("nameserver {ip}\noptions timeout:1 attempts:2\n"));

    // Both names are asked for.
    let mut buffer = [0; 512];
    resolver.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    let mut asked = [false; 2];
    while asked != [true; 2] {
        let (length, _) = support::uninterrupted(|| resolver.recv_from(&mut buffer)).expect("it is asked");
        let question = String::from_utf8_lossy(&buffer[..length]).into_owned();
        asked = [asked[0] || question.contains("\u{3}hub"), asked[1] || question.contains("\u{3}plc")];
    }
    let mut most = 0;
    eventually("a look-up that failed", || {
        most = most.max(Figures::of(daemon.pid()).threads);
        daemon.log().contains("no identity can reach the hub: hub.test").then_some(())
    });
    // The daemon's own, the ledger's writer, reader and prover, the one that tells systemd, and one for each name.
    assert!(most <= 7, "{most} threads");
    println!("{most} threads while {} identities and a bus waited for the resolver", OTHERS + 1);
    let output = plant.site.command(&["exec", "near-0", "set", "7"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(near.writes(), [(0, 7)]);
    let failed = || daemon.log().matches("can't be reached: ").count();
    eventually("another look-up that failed", || (failed() > 1).then_some(()));

    plant.resolve("127.0.0.1 hub.test plc.test\n");
    plant.connected(OTHERS + 1);
    plant.works(1);
    let log = daemon.log();
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("hub.test")).count();
    assert_eq!(warned, 1, "said once for all identities\n{log}");
    assert!(log.contains("the hub can be reached"));
    assert!(daemon.terminate().success());
}

#[test]
fn identities_that_need_more_handles_than_there_are_leave_some_for_the_bus_and_the_operators() {
    const OTHERS: usize = 120;
    let (hub, slave) = (hub_at("127.0.0.1:0"), Slave::new());
    let mut more = String::new();
    for number in 0..OTHERS {
        let id = format!("other-{number}");
        more += &format!("[device.{id}]\nbus = \"plant\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n");
        hub.add_device(&id, Auth::Key((0..32).collect()));
    }
    let (hub_address, slave_address) = (hub.addr().to_string(), slave.address().to_owned());
    let plant = Plant::new(hub, slave, &hub_address, &slave_address, &more);
    plant.site.configure("ca_file", "connect_rate = 1000\nca_file");
    let daemon = plant.site.spawn(&["sh", "-c", "ulimit -n 128 && exec \"$@\"", "sh"], &[]);
    daemon.wait_until_ready();
    let connected = || plant.site.status()["hub"]["connected"].as_u64().expect("it is counted");
    eventually("as many connections as there are handles for", || (connected() >= 20).then_some(()));
    let log = || daemon.log();
    eventually("a line that says why there are no more", || {
        log().contains("limit of open files leaves room").then_some(())
    });
    println!("{} of {} connected, {:?}", connected(), OTHERS + 1, Figures::of(daemon.pid()));
    let output = plant.site.command(&["exec", "pump", "set", "7"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(plant.slave.writes(), [(0, 7)]);
    assert!(!log().contains("no identity can reach the hub") && !log().contains("the admin socket takes nobody"));
    let devices = plant.site.status()["devices"].as_array().expect("it lists them").clone();
    let waits =
        |device: &serde_json::Value| device["lastError"].as_str().is_some_and(|why| why.contains("LimitNOFILE"));
    assert!(devices.iter().any(waits), "who waits says why");
    assert!(daemon.terminate().success());
}
