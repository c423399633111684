//! The page for whoever opens the cabinet, as a browser has it.

use std::net::TcpStream;
use std::process::Command;

use serde_json::Value as Json;

use super::{at_port, body, plant, status};
use crate::support::slave::{Mood, Slave};
use crate::support::{eventually, free_address, Daemon, Site};

/// A daemon with a page, and where that is.
fn shown() -> (Slave, Site, Daemon, String) {
    let (host, port) = free_address();
    let address = format!("{host}:{port}");
    let (slave, site, daemon) = plant(&format!("[web]\nlisten = \"{address}\"\n"));
    (slave, site, daemon, address)
}

fn get(address: &str, path: &str) -> String {
    at_port(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn the_page_says_how_the_gateway_is_and_the_same_to_a_program() {
    let (slave, site, _daemon, address) = shown();
    assert!(site.command(&["exec", "pump", "set", "42"]).status.success());
    slave.set_mood(Mood::Mute);
    assert!(!site.command(&["exec", "pump", "pulse", "1"]).status.success());
    let page = eventually("the last commands", || {
        let page = get(&address, "/");
        (page.contains("in_doubt") && page.contains("need")).then_some(page)
    });
    for told in [
        "<h2>In doubt</h2>",
        "pulse 1",
        "fieldbridge ledger show ",
        "succeeded",
        "set 42",
        "plant",
        "can&#39;t be reached",
    ] {
        assert!(page.contains(told), "{told} is missing in {page}");
    }
    assert!(page.contains("content-type: text/html; charset=utf-8\r\n"), "{page}");
    let answer = get(&address, "/api/status");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    let told: Json = serde_json::from_str(body(&answer)).expect("it is JSON");
    let names = |of: &Json| of.as_object().expect("a status").keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&told), names(&site.status()));
    assert_eq!(told["devices"][0]["id"], "pump");
}

#[test]
fn a_browser_may_show_the_page_and_nothing_else_with_it() {
    let (_slave, _site, _daemon, address) = shown();
    let page = get(&address, "/");
    for header in [
        "content-security-policy: default-src 'none'; style-src 'sha256-",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(page.contains(header), "{header} is missing in {page}");
    }
    let refused = at_port(&address, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(status(&refused) == "421" && !refused.contains("pump"), "{refused}");
    let posted = at_port(&address, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(status(&posted), "405");
    for path in ["/metrics", "/api", "/../ledger.db", "/%2e%2e/device.key", "/index.html"] {
        assert_eq!(status(&get(&address, path)), "404", "{path}");
    }
}

#[test]
fn a_thousand_loads_hold_up_no_command() {
    let (_slave, site, _daemon, address) = shown();
    let loads: Vec<_> = (0..4)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || (0..250).filter(|_| status(&get(&address, "/")) == "200").count())
        })
        .collect();
    for value in ["1", "2", "3", "4", "5"] {
        assert!(site.command(&["exec", "pump", "set", value]).status.success());
    }
    let served: usize = loads.into_iter().map(|one| one.join().expect("it does not fail")).sum();
    assert_eq!(served, 1000);
}

/// What Chromium makes of the page. It is large: `scripts/setup.sh browser` gets it.
#[test]
fn a_real_browser_shows_the_page_with_its_script_and_without() {
    let chromium =
        ["/usr/bin/chromium", "/usr/bin/chromium-browser"].into_iter().find(|path| std::path::Path::new(path).exists());
    let Some(chromium) = chromium else {
        eprintln!("!! the page was not shown by a real browser: scripts/setup.sh browser gets one");
        return;
    };
    let (_slave, site, _daemon, address) = shown();
    eventually("the port", || TcpStream::connect(&address).ok());
    let show = |more: &[&str]| {
        let profile = site.path("browser");
        let output = Command::new(chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(more)
            .arg(format!("http://{address}/"))
            .output()
            .expect("it can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("Content Security Policy"), "the browser refuses something: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let live = show(&["--virtual-time-budget=12000", "--dump-dom"]);
    assert!(live.contains("data-live=\"yes\"") && live.contains(">pump<"), "its script has not said it anew: {live}");
    let picture = site.path("page.png");
    for scripts in ["true", "false"] {
        let scripts = format!("--blink-settings=scriptEnabled={scripts}");
        show(&[&scripts, "--window-size=400,1200", &format!("--screenshot={}", picture.display())]);
        let bytes = std::fs::read(&picture).expect("there is a picture");
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 10_000, "{scripts}: {} bytes", bytes.len());
    }
}
