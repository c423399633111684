//! `[provisioning]`: a hub that nobody writes down, and what is said of what can't be.

use super::{lines, Site, KEY};

const SCOPE: &str = "[provisioning]\nid_scope = \"0ne00123ABC\"\n";

/// The good configuration without its hub, and with more in front of its buses.
fn without_hub(more: &str) -> Site {
    let site = Site::good();
    let text = super::GOOD.replace("[hub]\nhost = \"contoso.azure-devices.net\"\n", more);
    site.write("fieldbridge.toml", text);
    site
}

#[test]
fn with_an_id_scope_no_hub_is_needed_and_every_device_with_a_key_is_registered() {
    for more in [SCOPE.to_owned(), format!("[hub]\nhost = \"\"\n{SCOPE}")] {
        let loaded = without_hub(&more).loaded();
        assert_eq!(lines(&loaded.notes), "");
        let config = loaded.config;
        let service = config.provisioning.as_ref().unwrap();
        assert_eq!(service.host, "global.azure-devices-provisioning.net");
        assert_eq!(service.address, "global.azure-devices-provisioning.net:443");
        assert_eq!(config.hub.host, "");
        assert!(config.devices.values().all(|device| device.registration.as_ref() == Some(&device.id)));
        let assigned = config.hub.assigned("fabrikam.azure-devices.net");
        assert_eq!(assigned.address(fieldbridge::config::TransportKind::Mqtt), "fabrikam.azure-devices.net:8883");
    }
    let elsewhere = without_hub(&format!("[hub]\naddress = \"127.0.0.1:8884\"\n{SCOPE}")).loaded().config;
    let assigned = elsewhere.hub.assigned("fabrikam.azure-devices.net");
    assert_eq!(assigned.address(fieldbridge::config::TransportKind::Mqtt), "127.0.0.1:8884");
}

#[test]
fn a_connection_string_keeps_its_hub_beside_devices_that_are_assigned() {
    let of = |head: &str| {
        let site = without_hub(head);
        site.write(
            "conf.d/9.toml",
            "[device.pump-9]\nbus = \"plant\"\nunit = 9\nprofile = \"pump\"\nconnection_string_file = \"9\"\n",
        );
        site.write("9", format!("HostName=contoso.azure-devices.net;DeviceId=pump-9;SharedAccessKey={KEY}"));
        site
    };
    let config = of(&format!("[hub]\nhost = \"contoso.azure-devices.net\"\n{SCOPE}")).loaded().config;
    assert_eq!(config.devices["pump-9"].registration, None);
    assert_eq!(config.devices["pump-8"].registration.as_deref(), Some("pump-8"));
    let said = lines(&of(SCOPE).problems());
    assert!(said.contains("names its hub, and [hub] does not; write the hub's host name as host in [hub]"), "{said}");
}

#[test]
fn what_is_wrong_with_it_is_told_with_what_to_write() {
    for (head, device, told) in [
        ("[provisioning]\n", "", "provisioning.id_scope: is missing; write the ID Scope"),
        ("[provisioning]\nid_scope = \"\"\n", "", "provisioning.id_scope: is empty"),
        ("[provisioning]\nid_scope = \"a b\"\n", "", "is no ID Scope"),
        ("[provisioning]\nscope = \"0ne1\"\n", "", "did you mean \"id_scope\"?"),
        ("[dps]\nid_scope = \"0ne1\"\n", "", "did you mean \"provisioning\"?"),
        ("[provisioning]\nid_scope = \"0ne1\"\nhost = \"a b\"\n", "", "the service's global device endpoint"),
        ("[provisioning]\nid_scope = \"0ne1\"\naddress = \"a:b\"\n", "", "write it as HOST:PORT"),
        ("[provisioning]\nid_scope = \"0ne1\"\nca_file = \"none.pem\"\n", "", "none.pem"),
        ("[provisioning]\nid_scope = \"0ne1\"\n", "registration_id = \"a b\"", "which no registration id holds"),
        ("[provisioning]\nid_scope = \"0ne1\"\n", "registration_id = \"a.\"", "ends with"),
        ("[hub]\nhost = \"h.example\"\n", "registration_id = \"a\"", "has no use without [provisioning]"),
    ] {
        let site = without_hub(head);
        if !device.is_empty() {
            site.write("conf.d/9.toml", format!("[device.pump-7]\n{device}\n"));
        }
        let said = lines(&site.problems());
        assert!(said.contains(told), "{head}{device}: {said}");
    }
    let site = without_hub(SCOPE);
    site.write(
        "conf.d/9.toml",
        "[device.\"pump'9\"]\nbus = \"plant\"\nunit = 9\nprofile = \"pump\"\nkey_file = \"keys/good.key\"\n",
    );
    let said = lines(&site.problems());
    assert!(said.contains("registration_id: is missing, and the device's id can't be one"), "{said}");
}
