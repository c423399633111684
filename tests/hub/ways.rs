//! The ways to the hub: through proxies that are not ours (Squid, tinyproxy), and to a gateway in the hub's place. What
//! is received is the hub's (before G1), and a proxy that is configured is never gone round.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use fieldbridge::demo::hub::{Ack, Auth, C2d, Options, Status};
use tempfile::TempDir;

use crate::support::hub::Hub;
use crate::support::slave::Slave;
use crate::support::tls::Server;
use crate::support::{self, eventually, free_address, require, Site};

/// A proxy of Debian's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Squid,
    Tinyproxy,
}

/// One that runs, with the ports that it lets through.
pub struct Proxy {
    kind: Kind,
    folder: TempDir,
    pub address: String,
    name: String,
    child: Option<Child>,
}

/// `squid` and `hush`, as Apache's MD5 has them (`openssl passwd -apr1 -salt fieldbrg hush`).
const PASSWORDS: &str = "squid:$apr1$fieldbrg$28WO7rUZla.KQkKLcWEMa.\n";

impl Proxy {
    /// One that lets connections to this port through; `asks` for the user `squid` with the password `hush`.
    pub fn start(kind: Kind, port: u16, asks: bool) -> Proxy {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        // Squid, started by root, changes to a user who writes here.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("its mode can be set");
        let (host, own) = free_address();
        let name = format!("fieldbridge{:x}", fastrand::u64(..));
        let mut proxy = Proxy { kind, folder, address: format!("{host}:{own}"), name, child: None };
        let path = |name: &str| proxy.folder.path().join(name).display().to_string();
        let text = match kind {
            Kind::Squid => {
                std::fs::write(path("passwords"), PASSWORDS).expect("a file can be written");
                let who = match asks {
                    true => format!(
                        "auth_param basic program /usr/lib/squid/basic_ncsa_auth {}\nacl known proxy_auth REQUIRED\n\
                         http_access deny !hub\nhttp_access allow known\n",
                        path("passwords")
                    ),
                    false => "http_access allow hub\n".to_owned(),
                };
                format!(
                    "http_port {host}:{own}\nacl hub port {port}\n{who}http_access deny all\npid_filename {}\n\
                     cache_log {}\naccess_log none\ncache_store_log none\ncache_effective_user proxy\n\
                     coredump_dir {}\nshutdown_lifetime 0 seconds\npinger_enable off\nmax_filedescriptors 1024\n\
                     cache_mem 1 MB\nnetdb_filename none\n",
                    path("pid"),
                    path("log"),
                    proxy.folder.path().display(),
                )
            }
            Kind::Tinyproxy => {
                let who = if asks { "BasicAuth squid hush\n" } else { "" };
                format!(
                    "Listen {host}\nPort {own}\nTimeout 600\nLogFile \"{}\"\nConnectPort {port}\n{who}",
                    path("log")
                )
            }
        };
        std::fs::write(path("conf"), text).expect("a configuration can be written");
        proxy.run();
        proxy
    }

    fn run(&mut self) {
        let conf = self.folder.path().join("conf");
        let mut command = match self.kind {
            Kind::Squid => {
                require("squid", "squid");
                let mut command = Command::new("/usr/sbin/squid");
                // Its shared memory goes by this name.
                command.args(["--foreground", "-N", "-n", &self.name, "-f"]).arg(conf);
                command
            }
            Kind::Tinyproxy => {
                require("tinyproxy", "tinyproxy");
                let mut command = Command::new("tinyproxy");
                command.args(["-d", "-c"]).arg(conf);
                command
            }
        };
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("the proxy can be started"));
        eventually("the proxy listens", || std::net::TcpStream::connect(&self.address).ok());
    }

    /// Ends it with everything that goes through it.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for left in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if left.file_name().to_string_lossy().contains(&self.name) {
                let _ = std::fs::remove_file(left.path());
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- the log of {:?} ---\n{log}", self.kind);
        }
    }
}

fn hub() -> Hub {
    let hub = Hub::start(Options::default());
    hub.add_device("pump", Auth::Key((0..32).collect()));
    hub
}

/// A site whose device is reached with these keys of `[hub]` beside the hub's name and authority.
fn site(hub: &Hub, slave: &Slave, hub_keys: &str) -> Site {
    let head = format!("host = \"{}\"\naddress = \"{}\"\nca_file = \"hub-ca.pem\"\n{hub_keys}", hub.host(), hub.addr());
    let site = Site::with_hub(&head, &support::pump(slave.address(), "after-execution", ""));
    site.write("hub-ca.pem", &hub.ca_pem());
    site
}

/// The transports beside MQTT.
const OTHERS: [&str; 4] = ["mqtt-ws", "amqp", "amqp-ws", "https"];

/// The hub's address for a transport.
fn address(hub: &Hub, by: &str) -> std::net::SocketAddr {
    match by {
        "amqp" => hub.amqp_addr(),
        "https" => hub.https_addr(),
        _ => hub.ws_addr(),
    }
}

/// A site whose device is reached by another transport, with these keys of `[hub]` beside.
fn site_by(by: &str, hub: &Hub, slave: &Slave, more: &str) -> Site {
    let poll = if by == "https" { "poll_interval = \"1s\"\n" } else { "" };
    let addresses = format!("addresses = {{ {by} = \"{}\" }}", address(hub, by));
    let site = site(hub, slave, &format!("transport = \"{by}\"\n{addresses}\n{poll}{more}"));
    site.write("proxy.user", "squid:a-guess\n");
    // Only MQTT's sessions show by themselves that nothing was before.
    assert!(site.command(&["ledger", "new", "--trust"]).status.success());
    site
}

/// A command comes, runs, and is completed, by a transport that has no subscriptions.
fn runs_by(by: &str, site: &Site, hub: &Hub, id: &str) {
    let is_connected = || site.device_status("pump")["hub"] == "connected";
    eventually(&format!("{by} is connected"), || is_connected().then_some(()));
    let before = hub.feedback().len();
    hub.send("pump", C2d::new(id, "7").property("command", "pulse").ack(Ack::Full)).unwrap();
    let feedback = eventually(&format!("feedback over {by}"), || hub.feedback().get(before).cloned());
    assert_eq!((feedback.status, feedback.original_message_id.as_deref()), (Status::Success, Some(id)), "{by}");
    site.wait_for_row(id, "succeeded");
}

/// A site behind a proxy.
fn site_behind(proxy: &Proxy, hub: &Hub, slave: &Slave, more: &str) -> Site {
    site(hub, slave, &format!("proxy = \"http://{}\"\n{more}", proxy.address))
}

fn command_runs(hub: &Hub, id: &str) {
    eventually("the device is subscribed", || hub.is_subscribed("pump").then_some(()));
    let before = hub.feedback().len();
    hub.send("pump", C2d::new(id, "7").property("command", "pulse").ack(Ack::Full)).unwrap();
    let feedback = eventually("feedback", || hub.feedback().get(before).cloned());
    assert_eq!((feedback.status, feedback.original_message_id.as_deref()), (Status::Success, Some(id)));
}

const CREDENTIALS: &str = "proxy_credentials_file = \"proxy.user\"\n";

#[test]
fn commands_come_through_each_proxy_with_and_without_credentials() {
    for kind in [Kind::Squid, Kind::Tinyproxy] {
        for asks in [false, true] {
            let (hub, slave) = (hub(), Slave::new());
            let proxy = Proxy::start(kind, hub.addr().port(), asks);
            let site = site_behind(&proxy, &hub, &slave, if asks { CREDENTIALS } else { "" });
            site.write("proxy.user", "squid:hush\n");
            let _daemon = site.start();
            command_runs(&hub, "m-1");
            assert_eq!(slave.writes(), [(2, 7)], "{kind:?}");
        }
    }
}

#[test]
fn a_proxy_that_wants_credentials_is_told_from_one_that_does_not_take_them() {
    for kind in [Kind::Squid, Kind::Tinyproxy] {
        let (hub, slave) = (hub(), Slave::new());
        let proxy = Proxy::start(kind, hub.addr().port(), true);
        let without = site_behind(&proxy, &hub, &slave, "");
        let daemon = without.start();
        without.wait_for_last_error("asks for credentials (40");
        drop(daemon);
        let site = site_behind(&proxy, &hub, &slave, CREDENTIALS);
        let file = site.write("proxy.user", "squid:a-secret-guess\n");
        let daemon = site.start();
        site.wait_for_last_error("does not take the credentials (40");
        assert!(!daemon.log().contains("guess"), "a password is in the log");
        let live = site.command(&["check", "--live"]);
        let said = String::from_utf8_lossy(&live.stdout).into_owned();
        assert!(said.contains("FAIL  hub proxy: the proxy"), "{said}");
        assert!(!said.contains("guess"), "{said}");
        // Corrected and read anew, without a restart.
        std::fs::write(file, "squid:hush\n").unwrap();
        assert!(site.command(&["reload"]).status.success());
        command_runs(&hub, "m-1");
        let live = site.command(&["check", "--live"]);
        let said = String::from_utf8_lossy(&live.stdout).into_owned();
        assert!(said.contains("ok    hub proxy: ") && live.status.success(), "{said}");
    }
}

#[test]
fn a_proxy_that_refuses_or_is_dead_is_named_and_never_gone_round() {
    for kind in [Kind::Squid, Kind::Tinyproxy] {
        let (hub, slave) = (hub(), Slave::new());
        // It lets another port through.
        let mut proxy = Proxy::start(kind, 1, false);
        let site = site_behind(&proxy, &hub, &slave, "");
        let daemon = site.start();
        site.wait_for_last_error("does not let connections to");
        proxy.kill();
        site.wait_for_last_error("can't be reached");
        let error = site.device_status("pump")["lastError"].clone();
        assert!(error.as_str().unwrap().starts_with("the proxy "), "{error}");
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(hub.wire().is_empty(), "the hub was reached: {:?}", hub.wire());
    }
}

#[test]
fn a_proxy_that_dies_in_the_middle_costs_a_connection_and_no_command() {
    for kind in [Kind::Squid, Kind::Tinyproxy] {
        let (hub, slave) = (hub(), Slave::new());
        let mut proxy = Proxy::start(kind, hub.addr().port(), false);
        let site = site_behind(&proxy, &hub, &slave, "");
        let _daemon = site.start();
        command_runs(&hub, "m-1");
        a_proxy_dies_and_costs_no_command(&mut proxy, &site, &hub, &slave);
    }
}

/// Behind a first command that ran.
fn a_proxy_dies_and_costs_no_command(proxy: &mut Proxy, site: &Site, hub: &Hub, slave: &Slave) {
    proxy.kill();
    site.wait_for_last_error("proxy");
    hub.send("pump", C2d::new("m-2", "8").property("command", "pulse").ack(Ack::Full)).unwrap();
    proxy.run();
    site.wait_for_row("m-2", "succeeded");
    eventually("feedback", || (hub.feedback().len() == 2).then_some(()));
    assert_eq!(slave.writes(), [(2, 7), (2, 8)]);
}

#[test]
fn what_is_no_proxy_is_called_so() {
    let (hub, slave) = (hub(), Slave::new());
    // The hub itself: it waits for a TLS handshake, and takes what comes for a broken one.
    let site = site(&hub, &slave, &format!("proxy = \"http://{}\"\n", hub.addr()));
    let _daemon = site.start();
    site.wait_for_last_error("proxy");
}

#[test]
fn a_log_in_page_that_answers_200_is_no_tunnel_and_the_hubs_tls_is_not_blamed() {
    let (hub, slave) = (hub(), Slave::new());
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 21\r\n\r\n<html>Log in.</html>\n";
    let bare = "HTTP/1.1 200 OK\r\n\r\n<html>Log in.</html>\n";
    for page in [page, bare] {
        let portal = Server::start(move |mut stream, _: &Mutex<Vec<u8>>| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(page.as_bytes());
            // It is held open, as pages are.
            while stream.read(&mut [0; 1024]).is_ok_and(|length| length > 0) {}
        });
        let site = site(&hub, &slave, &format!("proxy = \"http://{}\"\n", portal.address));
        let daemon = site.start();
        site.wait_for_last_error("answers with a page (200) in place of a connection; a log-in stands before");
        drop(daemon);
        let said = String::from_utf8_lossy(&site.command(&["check", "--live"]).stdout).into_owned();
        assert!(said.contains("answers with a page (200)") && !said.contains("intercept"), "{said}");
    }
}

#[test]
fn a_gateway_is_known_by_its_own_name_and_the_token_is_for_the_hub() {
    let (hub, slave) = (hub(), Slave::new());
    let right = site(&hub, &slave, "gateway = \"LocalHost\"\n");
    right.write("pump.connection", &format!("{};GatewayHostName=localhost", hub.connection_string("pump")));
    right.configure("key_file = \"device.key\"", "connection_string_file = \"pump.connection\"");
    let daemon = right.start();
    command_runs(&hub, "m-1");
    drop(daemon);
    let wrong = site(&hub, &slave, "gateway = \"edge.plant\"\n");
    let _daemon = wrong.start();
    wrong.wait_for_last_error("is not for edge.plant");
}

#[test]
fn the_second_key_is_tried_when_the_first_is_refused_and_kept_until_it_is_refused_itself() {
    let (hub, slave) = (hub(), Slave::new());
    let site = site(&hub, &slave, "");
    site.configure("key_file = \"device.key\"", "key_file = \"device.key\"\nsecondary_key_file = \"second.key\"");
    site.write("second.key", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n");
    // The operator of the hub renews the first key: the gateway's is wrong now, and its second one right.
    let second: Vec<u8> = (1..33).collect();
    hub.add_device("pump", Auth::Key(second));
    let _daemon = site.start();
    command_runs(&hub, "m-1");
    // Then the second one is renewed, and the first is what it was.
    hub.add_device("pump", Auth::Key((0..32).collect()));
    hub.cut("pump", fieldbridge::demo::hub::Cut::Fin);
    eventually("the device is away", || (!hub.is_connected("pump")).then_some(()));
    eventually("the device is back", || hub.is_connected("pump").then_some(()));
    command_runs(&hub, "m-2");
    assert_eq!(slave.writes(), [(2, 7), (2, 7)]);
}

#[test]
fn every_transport_goes_through_each_proxy() {
    for (by, kind) in OTHERS.into_iter().zip([Kind::Squid, Kind::Tinyproxy].into_iter().cycle()) {
        let (hub, slave) = (hub(), Slave::new());
        let proxy = Proxy::start(kind, address(&hub, by).port(), true);
        let site = site_by(by, &hub, &slave, &format!("proxy = \"http://{}\"\n{CREDENTIALS}", proxy.address));
        let daemon = site.start();
        site.wait_for_last_error("does not take the credentials (40");
        assert!(hub.wire().is_empty(), "{by}: it was gone round");
        // After a crash locks are waited for.
        assert!(daemon.terminate().success());
        site.write("proxy.user", "squid:hush\n");
        let _daemon = site.start();
        runs_by(by, &site, &hub, "m-1");
        assert_eq!(slave.writes(), [(2, 7)], "{by}");
    }
}

#[test]
fn a_proxy_that_dies_under_a_connection_of_many_costs_that_and_no_command() {
    let (hub, slave) = (hub(), Slave::new());
    let mut proxy = Proxy::start(Kind::Squid, hub.amqp_addr().port(), false);
    let site = site_by("amqp", &hub, &slave, &format!("proxy = \"http://{}\"\n", proxy.address));
    let _daemon = site.start();
    runs_by("amqp", &site, &hub, "m-1");
    a_proxy_dies_and_costs_no_command(&mut proxy, &site, &hub, &slave);
}

#[test]
fn a_gateway_is_known_by_its_own_name_whatever_it_is_reached_by() {
    for by in OTHERS {
        let (hub, slave) = (hub(), Slave::new());
        let site = site_by(by, &hub, &slave, "gateway = \"LocalHost\"\n");
        let daemon = site.start();
        runs_by(by, &site, &hub, "m-1");
        assert_eq!(slave.writes(), [(2, 7)], "{by}");
        assert!(daemon.terminate().success());
        site.configure("LocalHost", "edge.plant");
        let _daemon = site.start();
        site.wait_for_last_error("is not for edge.plant");
    }
}

#[test]
fn the_second_key_is_tried_by_other_transports_too() {
    for by in ["mqtt-ws", "amqp", "https"] {
        let (hub, slave) = (hub(), Slave::new());
        let site = site_by(by, &hub, &slave, "");
        site.configure("key_file = \"device.key\"", "key_file = \"device.key\"\nsecondary_key_file = \"second.key\"");
        site.write("second.key", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=\n");
        hub.add_device("pump", Auth::Key((1..33).collect()));
        let daemon = site.start();
        runs_by(by, &site, &hub, "m-1");
        assert!(daemon.log().contains("refuses the device's first key; the second one is tried"), "{by}");
        assert_eq!(slave.writes(), [(2, 7)], "{by}");
    }
}

#[test]
fn a_device_id_of_all_that_the_hub_allows_is_reached_where_no_topic_names_it() {
    let id = "p-1.+%_#*?!(),:=@;$'";
    for by in ["amqp", "amqp-ws", "https"] {
        let (hub, slave) = (hub(), Slave::new());
        hub.add_device(id, Auth::Key((0..32).collect()));
        let site = site_by(by, &hub, &slave, "");
        site.configure("[device.pump]", &format!("[device.\"{id}\"]"));
        let _daemon = site.start();
        eventually("it is connected", || (site.device_status(id)["hub"] == "connected").then_some(()));
        hub.send(id, C2d::new("m-1", "7").property("command", "pulse").ack(Ack::Full)).unwrap();
        let feedback = eventually("feedback", || hub.feedback().first().cloned());
        assert_eq!((feedback.status, feedback.original_message_id.as_deref()), (Status::Success, Some("m-1")), "{by}");
        let event = eventually("a result event", || hub.telemetry().first().cloned());
        assert_eq!((event.device.as_str(), slave.writes()), (id, vec![(2, 7)]), "{by}");
    }
}
