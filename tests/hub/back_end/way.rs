//! The back end's ways to the hub: through a proxy, and by an identity of Microsoft Entra.

use std::io::Write as _;
use std::sync::Mutex;

use fieldbridge::demo::hub::Options;

use super::{back_end, plant, plant_of, prepared, said};
use crate::support::eventually;
use crate::support::hub::Hub;
use crate::support::tls::Server;
use crate::ways::{Kind, Proxy};

#[test]
fn through_a_proxy_a_command_goes_out_and_its_feedback_comes_back() {
    for kind in [Kind::Squid, Kind::Tinyproxy] {
        let (hub, slave, site) = plant("");
        let _daemon = site.start();
        eventually("the device is attached", || hub.is_connected("pump").then_some(()));
        let proxy = Proxy::start(kind, hub.amqp_addr().port(), true);
        let (url, file) = (format!("http://{}", proxy.address), site.path("proxy.user").display().to_string());
        let through = ["--proxy", &url, "--proxy-credentials-file", &file];
        site.write("proxy.user", "squid:a-secret-guess\n");
        let refused = back_end(&hub, &site, &[&["send", "pump", "set", "7"], &through[..]].concat());
        assert_eq!(refused.status.code(), Some(75), "{}", said(&refused));
        let text = said(&refused);
        assert!(text.contains("`--proxy-credentials-file`") && !text.contains("guess"), "{text}");
        site.write("proxy.user", "squid:hush\n");
        let sent = back_end(&hub, &site, &[&["send", "pump", "set", "7", "--wait=30s"], &through[..]].concat());
        assert!(sent.status.success() && said(&sent).contains("Success"), "{kind:?}: {}", said(&sent));
        let taken = back_end(&hub, &site, &[&["feedback"], &through[..]].concat());
        assert!(taken.status.success() && taken.stdout.is_empty(), "{}", said(&taken));
        assert_eq!(slave.writes(), [(0, 7)]);
    }
}

/// What answers in the place of the machine's metadata.
fn metadata(status: &'static str, token: &'static str) -> Server {
    Server::start(move |mut stream, heard: &Mutex<Vec<u8>>| {
        let asked = crate::entra::request(&mut stream);
        heard.lock().expect("nothing panics with it").extend(asked.bytes());
        let body = format!(r#"{{"access_token":"{token}","expires_in":"86400","resource":"x"}}"#);
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    })
}

#[test]
fn the_machines_identity_sends_and_hears_feedback_and_one_without_a_role_is_told_what_it_lacks() {
    let options = Options { bearer: Some("eyJ.good".into()), ..Options::default() };
    let (hub, slave, site) = plant_of(Hub::start(options), "");
    let _daemon = site.start();
    eventually("the device is attached", || hub.is_connected("pump").then_some(()));
    let host = hub.host();
    let send = ["send", "pump", "set", "7", "--wait=30s", "--hub", &host, "--entra"];
    for (status, token, code, told) in [
        ("200 OK", "eyJ.good", 0, "Success"),
        ("200 OK", "eyJ.other", 1, "IoT Hub Data Contributor"),
        ("503 No", "", 75, "HTTP 503"),
    ] {
        let metadata = metadata(status, token);
        let mut command = prepared(&hub, &site, &send);
        for name in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"] {
            command.env_remove(name);
        }
        command.env("AZURE_POD_IDENTITY_AUTHORITY_HOST", format!("http://{}", metadata.address));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(told) && !said(&output).contains("eyJ"), "{}", said(&output));
        assert!(metadata.heard().starts_with(b"GET /metadata/identity/oauth2/token?"));
    }
    assert_eq!(slave.writes(), [(0, 7)]);
}
