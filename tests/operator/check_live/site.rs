//! Ports, peripherals, files and the ledger's disk: what is told of each, right and wrong.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use fieldbridge::demo::hub::{Auth, Options, Wire};

use super::{live, live_under, plant, plant_with, serial_plant};
use crate::support::disk::SmallDisk;
use crate::support::process::Killed;
use crate::support::pty::{Port, Protocol};
use crate::support::slave::{Mood, Slave};
use crate::support::{self, pump, PUMP};

#[test]
fn a_port_that_is_missing_or_held_is_named_with_its_holder() {
    let slave = Slave::new();
    let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
    let plant = serial_plant(&port);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(port.path()).expect("a port can be opened");
    // The command has the file as well, until it is dropped.
    let holder = Killed(Command::new("sleep").arg("600").stdin(file).spawn().expect("sleep can be run"));
    let found = live(&plant.site);
    found.says("fail", "bus line", &format!("is held by sleep (pid {})", holder.0.id()));
    found.says("warn", "peripheral pump", "not asked: its bus can't be used");
    assert_eq!(slave.requests(), 0, "its line was used");
    drop(holder);
    live(&plant.site).says("ok", "peripheral pump", "answers");

    port.unplug();
    let found = live(&plant.site);
    found.says("fail", "bus line", "is the adapter plugged in?");
    found.says("fail", "bus line", "/dev/serial/by-id");
    let file = plant.site.write("no-port", "");
    plant.site.configure(&port.path().display().to_string(), &file.display().to_string());
    live(&plant.site).says("fail", "bus line", "is it a serial port");
}

#[test]
fn a_slave_that_says_nothing_fails_and_one_that_refuses_answers() {
    let slave = Slave::new();
    let port = Port::that_nobody_holds(slave.clone(), Protocol::Rtu);
    let plant = serial_plant(&port);
    for exception in [1, 2, 3, 4, 6] {
        slave.set_unreadable(Some(exception));
        live(&plant.site).says("ok", "peripheral pump", &format!("answers, by Modbus exception {exception}"));
    }
    for exception in [10, 11] {
        slave.set_unreadable(Some(exception));
        live(&plant.site).says("fail", "peripheral pump", "the gateway before it answers");
    }
    // One that is switched off, beside one that answers. Its line is left only when nothing late can come of it.
    let two = "[device.off]\nbus = \"line\"\nunit = 9\nprofile = \"pump\"\nkey_file = \"device.key\"\n";
    plant.site.configure("[profile.pump.command.set]", &format!("{two}[profile.pump.command.set]"));
    slave.set_unreadable(None);
    slave.silence(9);
    let began = Instant::now();
    let found = live(&plant.site);
    assert!(began.elapsed() > Duration::from_secs(2), "the line was left after {:?}", began.elapsed());
    found.says("fail", "peripheral off", "A and B (swapped?)");
    found.says("ok", "peripheral pump", "unit 1 answers");
    // A device that only takes writes is read all the same, and never written.
    plant.site.configure("[profile.pump.command.read]\nread = { table = \"holding\", address = 0 }\n", "");
    live(&plant.site).says("ok", "peripheral pump", "holding register 3 of pulse-verified is ");
    plant.site.configure("verify = true", "verify = false");
    live(&plant.site).says("ok", "peripheral pump", "holding register 2 of pulse is ");
    assert_eq!((slave.writes(), slave.met()), (vec![], 0));

    // Two that take connections: one says nothing, the other what nobody understands.
    let answers: [(&str, &'static [u8]); 2] = [("no answer", b""), ("what comes back", support::slave::GARBAGE)];
    for (said, answer) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address").to_string();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                        assert!([1, 2, 3, 4].contains(&buffer[7]), "function {} changes something", buffer[7]);
                        std::io::Write::write_all(&mut stream, answer).expect("it listens");
                    }
                });
            }
        });
        let plant =
            plant_with(Options::default(), |_| pump(&address, "after-execution", "response_timeout = \"200ms\""));
        live(&plant.site).says("fail", "peripheral pump", said);
    }
    let (host, free) = support::free_address();
    let address = format!("{host}:{free}");
    let plant = plant_with(Options::default(), |_| pump(&address, "after-execution", ""));
    live(&plant.site).says("fail", "bus plant", "refuses the connection");
}

#[test]
fn buses_are_asked_side_by_side_and_the_pace_to_the_hub_is_kept() {
    let mute: Vec<TcpListener> = (0..8).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
    let plant = plant_with(Options::default(), |_| {
        let one = |(n, listener): (usize, &TcpListener)| {
            let address = listener.local_addr().expect("it has an address");
            format!(
                "[bus.b{n}]\nkind = \"modbus-tcp\"\naddress = \"{address}\"\nresponse_timeout = \"4s\"\n\
                 [device.d{n}]\nbus = \"b{n}\"\nunit = 1\nprofile = \"pump\"\nkey_file = \"device.key\"\n"
            )
        };
        mute.iter().enumerate().map(one).collect::<String>() + PUMP
    });
    (0..8).for_each(|n| plant.hub.add_device(&format!("d{n}"), Auth::Key((0..32).collect())));
    plant.site.configure("ca_file", "connect_rate = 4\nca_file");
    let began = Instant::now();
    let found = live(&plant.site);
    // Two attempts of 4 s at each: 64 s if they were asked one after the other.
    assert!(began.elapsed() < Duration::from_secs(45), "{:?}", began.elapsed());
    (0..8).for_each(|n| found.says("fail", &format!("peripheral d{n}"), "no answer"));
    (0..8).for_each(|n| found.says("ok", &format!("identity d{n}"), "accepts it"));
    let at: Vec<_> =
        plant.hub.wire().into_iter().filter(|event| matches!(event.what, Wire::Connected { .. })).collect();
    let span = at[7].at.duration_since(at[0].at);
    assert!(span > Duration::from_millis(1200), "8 connections within {span:?} at 4 a second");
}

#[test]
fn a_ledger_that_cant_be_used_is_told_before_the_daemon_starts() {
    let plant = plant();
    live(&plant.site).says("ok", "ledger", "is not there yet; the daemon makes it");
    plant.site.write("ledger.db", "no ledger at all, but long enough to be one".repeat(99).as_str());
    live(&plant.site).says("fail", "ledger", "ledger.db");
    let disk = SmallDisk::new("40m");
    plant.site.keep_ledger_in(disk.path());
    live(&plant.site).says("warn", "ledger", "MiB free");
    disk.fill_but(8 << 20);
    live(&plant.site).says("fail", "ledger", "make room");
    disk.clear();
    disk.remount("ro");
    live(&plant.site).says("fail", "ledger", "mounted read-only");
    let missing = disk.path().join("missing").join("ledger.db").display().to_string();
    plant.site.configure(&disk.path().join("ledger.db").display().to_string(), &missing);
    live(&plant.site).says("warn", "ledger", "is not there yet");
}

#[test]
fn files_that_the_services_user_cant_read_are_told_to_root() {
    let own = std::fs::metadata("/proc/self").map(|found| std::os::unix::fs::MetadataExt::uid(&found));
    if own.expect("there is a process") != 0 {
        eprintln!("SKIPPED: this test needs root, to give this machine another list of users for a moment");
        return;
    }
    use std::os::unix::fs::{chown, PermissionsExt as _};
    let port = Port::that_nobody_holds(Slave::new(), Protocol::Rtu);
    let plant = serial_plant(&port);
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode can be set");
    };
    let users = plant.site.write("passwd", "root:x:0:0::/:/bin/sh\nfieldbridge:x:64321:64322::/:/bin/false\n");
    let groups = plant.site.write("group", "root:x:0:\nfieldbridge:x:64322:\ndialout:x:20:\n");
    let script = format!(
        "mount --bind {} /etc/passwd && mount --bind {} /etc/group && exec \"$@\"",
        users.display(),
        groups.display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
    let key = plant.site.path("device.key");
    for name in ["hub-ca.pem", "fieldbridge.toml"] {
        mode(&plant.site.path(name), 0o644);
    }
    mode(&plant.site.path(""), 0o755);
    let found = live_under(&plant.site, &wrapper, &[]);
    found.says("fail", "files", &format!("chmod 0640 {}", key.display()));
    found.says("ok", "files", "2 files of the configuration can be read by fieldbridge");
    found.says("fail", "ledger", "is closed to the user fieldbridge");
    found.says("fail", "bus line", "let the port belong to the group dialout");
    let port = port.path().canonicalize().expect("it is there");
    // As the remedies say.
    chown(&key, None, Some(64322)).expect("root can give files away");
    mode(&key, 0o640);
    chown(&port, None, Some(20)).expect("root can give ports away");
    mode(&port, 0o660);
    chown(plant.site.path(""), Some(64321), None).expect("root can give folders away");
    let found = live_under(&plant.site, &wrapper, &[]);
    found.is_good();
    found.says("ok", "files", "3 files of the configuration can be read by fieldbridge");
    mode(&plant.site.path(""), 0o600);
    live_under(&plant.site, &wrapper, &[]).says("fail", "files", "by the folder");
}

#[test]
fn a_slave_in_a_bad_mood_for_writes_is_not_met_at_all() {
    let plant = plant();
    plant.slave.set_mood(Mood::Deaf);
    live(&plant.site).says("ok", "peripheral pump", "answers");
    assert_eq!(plant.slave.met(), 0);
}
