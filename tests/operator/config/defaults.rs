//! What holds where nothing is said, and how references are resolved.

use std::path::Path;
use std::time::Duration;

use fieldbridge::command::Form;
use fieldbridge::config::{
    BusKind, Credential, Cut, Endpoint, LowLatency, OnUnreachable, Parity, Patience, Rs485, Settle, TransportKind,
};
use fieldbridge::peripheral::registers::{DataType, Order, Table};
use fieldbridge::peripheral::{Action, Function};

use super::Site;

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = Site::good().loaded().config;
    assert_eq!(config.hub.address(TransportKind::Mqtt), "contoso.azure-devices.net:8883");
    assert!(config.hub.tls && config.hub.ca_file.is_none());
    assert_eq!(config.hub.keepalive, Duration::from_secs(60));
    assert_eq!(config.hub.connect_rate, 20);
    assert_eq!(config.hub.api_version, "2021-04-12");
    assert_eq!(config.hub.token_lifetime, Duration::from_secs(3600));
    assert_eq!(config.admin_socket, Path::new("/run/fieldbridge/admin.sock"));
    assert_eq!(config.ledger.path, Path::new("/var/lib/fieldbridge/ledger.db"));
    assert_eq!(config.telemetry.path, Path::new("/var/lib/fieldbridge/telemetry.db"));
    assert_eq!(config.ledger.retention, Duration::from_secs(7 * 86_400));

    let rtu = &config.buses["line-a"];
    assert_eq!((rtu.response_timeout, rtu.retries), (Duration::from_millis(500), 2));
    assert_eq!(rtu.turnaround, Duration::ZERO);
    assert_eq!((rtu.connect_pause, rtu.idle_close), (Duration::ZERO, None));
    assert_eq!((rtu.unreachable_after, rtu.probe_interval), (3, Duration::from_secs(10)));
    let BusKind::ModbusRtu(Endpoint::Serial(port)) = &rtu.kind else {
        panic!("{rtu:?}");
    };
    assert_eq!((port.parity, port.data_bits, port.stop_bits, port.rs485), (Parity::Even, 8, 1, None));
    assert_eq!(port.low_latency, LowLatency::IfPossible);
    let serial = &config.buses["scale-port"];
    assert_eq!(serial.response_timeout, Duration::from_secs(1));
    let BusKind::Serial { endpoint: Endpoint::Serial(port), cut, wake: None } = &serial.kind else {
        panic!("{serial:?}");
    };
    assert_eq!((port.parity, port.data_bits, port.stop_bits), (Parity::None, 8, 1));
    assert_eq!(*cut, Cut::Delimiter(b"\r\n".to_vec()));
    assert_eq!(config.buses["plant"].response_timeout, Duration::from_secs(1));

    let device = &config.devices["pump-7"];
    assert_eq!(device.settle, Settle::AfterExecution);
    assert!(matches!(&device.credential, Credential::Key(key) if key.len() == 32));
    assert_eq!(*device.form, Form::default());
    assert_eq!((device.form.command_field.as_str(), device.form.value_field.as_str()), ("command", "value"));
    let command = &device.commands["set-speed"];
    assert!(!command.numbers_as_text);
    assert_eq!((&command.read_back, command.timeout), (&None, None));
    assert_eq!(command.deadline, Duration::from_secs(30));
    assert_eq!((command.min_interval, command.latest_wins), (Duration::ZERO, false));
    assert!(device.commands["read-speed"].idempotent);
    assert_eq!(config.devices["scale"].unit, 0);
    assert_eq!((device.patience, device.on_unreachable), (Patience::default(), OnUnreachable::Fail));
    assert_eq!(device.method_timeout, Duration::from_secs(25));
}

#[test]
fn the_driver_of_a_port_switches_the_direction_of_its_line_where_that_is_said() {
    let site = Site::good();
    let ms = Duration::from_millis;
    for (said, rts_on_send, [delay_before, delay_after]) in [
        ("{}", true, [ms(0), ms(0)]),
        ("{ rts_on_send = false, delay_before = '2ms', delay_after = '100ms' }", false, [ms(2), ms(100)]),
    ] {
        for bus in ["line-a", "scale-port"] {
            site.write("conf.d/10.toml", format!("[bus.{bus}]\nrs485 = {said}"));
            let kind = &site.loaded().config.buses[bus].kind;
            let (BusKind::ModbusRtu(Endpoint::Serial(port)) | BusKind::Serial { endpoint: Endpoint::Serial(port), .. }) =
                kind
            else {
                panic!("{kind:?}");
            };
            assert_eq!(port.rs485, Some(Rs485 { rts_on_send, delay_before, delay_after }));
        }
    }
}

#[test]
fn every_kind_of_bus_may_be_left_alone_when_it_was_opened_and_be_closed_when_it_idles() {
    let site = Site::good();
    for bus in ["line-a", "plant", "scale-port"] {
        site.write("conf.d/10.toml", format!("[bus.{bus}]\nconnect_pause = '2s'\nidle_close = '0s'"));
        let bus = &site.loaded().config.buses[bus];
        assert_eq!((bus.connect_pause, bus.idle_close), (Duration::from_secs(2), Some(Duration::ZERO)));
    }
}

#[test]
fn every_kind_of_bus_says_when_a_unit_is_away_and_each_device_what_becomes_of_its_commands_then() {
    let site = Site::good();
    for bus in ["line-a", "plant", "scale-port"] {
        site.write("conf.d/10.toml", format!("[bus.{bus}]\nunreachable_after = 5\nprobe_interval = '90s'"));
        let bus = &site.loaded().config.buses[bus];
        assert_eq!((bus.unreachable_after, bus.probe_interval), (5, Duration::from_secs(90)));
    }
    for (word, expected) in
        [("fail", OnUnreachable::Fail), ("hold", OnUnreachable::Hold), ("mirror", OnUnreachable::Mirror)]
    {
        site.write("conf.d/10.toml", format!("[device.pump-7]\non_unreachable = '{word}'"));
        assert_eq!(site.loaded().config.devices["pump-7"].on_unreachable, expected);
    }
    site.write("conf.d/10.toml", "[bus.line-a]\nunreachable_after = 0\n[device.pump-7]\non_unreachable = 'hold'");
    let notes: Vec<String> = site.loaded().notes.iter().map(ToString::to_string).collect();
    assert!(notes.iter().any(|note| note.contains("no unit of it is ever away")), "{notes:?}");
}

#[test]
fn a_device_may_be_asked_otherwise_than_its_bus_says() {
    let site = Site::good();
    site.write("conf.d/10.toml", "[device.pump-7]\nresponse_timeout = '3s'\nretries = 0\nturnaround = '50ms'");
    let patience = site.loaded().config.devices["pump-7"].patience;
    let (timeout, turnaround) = (Duration::from_secs(3), Duration::from_millis(50));
    let own = Patience { response_timeout: Some(timeout), retries: Some(0), turnaround: Some(turnaround) };
    assert_eq!(patience, own);
}

#[test]
fn modbus_ascii_has_seven_data_bits_and_even_parity_as_the_specification_says_or_what_is_said() {
    let site = Site::good();
    for (said, data_bits, parity) in [
        ("", 7, Parity::Even),
        ("data_bits = 8\nparity = 'none'\nstop_bits = 2", 8, Parity::None),
        ("data_bits = 7\nparity = 'odd'", 7, Parity::Odd),
    ] {
        site.write("conf.d/10.toml", format!("[bus.line-a]\nkind = 'modbus-ascii'\n{said}"));
        let bus = &site.loaded().config.buses["line-a"];
        assert_eq!((bus.kind.as_str(), bus.response_timeout), ("modbus-ascii", Duration::from_secs(1)));
        let BusKind::ModbusAscii(Endpoint::Serial(port)) = &bus.kind else { panic!("{bus:?}") };
        assert_eq!((port.data_bits, port.parity), (data_bits, parity), "{said}");
    }
    let at_a_server = "[bus.far]\nkind = 'modbus-ascii'\naddress = '10.0.0.13:4001'\n[device.pump-7]\nbus = 'far'";
    site.write("conf.d/10.toml", at_a_server);
    let far = &site.loaded().config.buses["far"];
    assert_eq!(far.kind, BusKind::ModbusAscii(Endpoint::Tcp("10.0.0.13:4001".into())));
    assert_eq!((far.kind.place().as_str(), far.kind.serial_path()), ("10.0.0.13:4001", None));
}

#[test]
fn the_form_of_messages_is_a_profiles_and_the_usual_command_a_devices() {
    let site = Site::good();
    site.write(
        "conf.d/50-form.toml",
        "[profile.pump.message]\ncommand = 'Command'\nvalue = 'Value'\nnumbers_as_text = true\n\
         [device.pump-7]\ndefault_command = 'set-speed'\n",
    );
    let devices = site.loaded().config.devices;
    let form = |default_command: Option<&str>| Form {
        default_command: default_command.map(str::to_owned),
        command_field: "Command".into(),
        value_field: "Value".into(),
    };
    assert_eq!(*devices["pump-7"].form, form(Some("set-speed")));
    assert_eq!(*devices["pump-8"].form, form(None));
    assert_eq!(*devices["scale"].form, Form::default());
    assert!(devices["pump-8"].commands.values().all(|command| command.numbers_as_text));
    assert!(devices["scale"].commands.values().all(|command| !command.numbers_as_text));
}

#[test]
fn a_device_has_events_if_it_says_so() {
    let site = Site::good();
    let events = || site.load().unwrap().config.devices["scale"].events.clone();
    assert_eq!(events(), None);
    site.write("conf.d/10.toml", "[device.scale]\nevents = '^ALARM ([0-9]+)'\n");
    assert!(events().is_some_and(|events| events.has("ALARM 3") && !events.has("OK")));
}

#[test]
fn reference_notation_says_table_and_address() {
    let site = Site::good();
    for (register, table, address, kind) in [
        (1, Table::Coil, 0, DataType::Bool),
        (9_999, Table::Coil, 9_998, DataType::Bool),
        (10_001, Table::Discrete, 0, DataType::Bool),
        (30_001, Table::Input, 0, DataType::U16),
        (40_001, Table::Holding, 0, DataType::U16),
        (49_999, Table::Holding, 9_998, DataType::U16),
        (165_536, Table::Discrete, 65_535, DataType::Bool),
        (300_001, Table::Input, 0, DataType::U16),
        (465_536, Table::Holding, 65_535, DataType::U16),
    ] {
        let text = format!("[profile.pump.command.c]\nread = {{ register = {register} }}");
        site.write("conf.d/10.toml", text);
        let config = site.loaded().config;
        let Action::Read(point) = &config.devices["pump-7"].commands["c"].action else {
            panic!("{register}");
        };
        assert_eq!((point.table, point.address, point.kind), (table, address, kind), "{register}");
        assert_eq!((point.word_order, point.byte_order), (Order::Big, Order::Big));
        assert_eq!((point.scale, point.offset, point.count), (1.0, 0.0, None));
    }
}

#[test]
fn an_order_by_its_letters_says_what_two_keys_say_and_where_a_write_shows_has_the_writes() {
    let site = Site::good();
    for (order, word_order, byte_order) in
        [("ABCD", "big", "big"), ("CDAB", "little", "big"), ("BADC", "big", "little"), ("DCBA", "little", "little")]
    {
        let points = |order: &str| {
            let command = |name: &str, read_back: &str| {
                format!(
                    "[profile.pump.command.{name}]\nidempotent = true\n\
                     write = {{ register = 40001, type = 'f64', {order} }}\nread_back = {{ {read_back} }}\n"
                )
            };
            let own = command("own", &format!("register = 30001, type = 'i32', {order}"));
            site.write("conf.d/10.toml", own + &command("same", "register = 30001"));
            let commands = site.loaded().config.devices["pump-7"].commands.clone();
            ["own", "same"].map(|name| (commands[name].action.clone(), commands[name].read_back.clone()))
        };
        let by_letters = points(&format!("order = '{order}'"));
        assert_eq!(by_letters, points(&format!("word_order = '{word_order}', byte_order = '{byte_order}'")), "{order}");
        let [_, (Action::Write(write), Some(shown))] = by_letters else { panic!("{order}") };
        assert_eq!((shown.point.word_order, shown.point.byte_order), (write.word_order, write.byte_order), "{order}");
    }
}

#[test]
fn the_most_that_the_protocol_allows_is_allowed() {
    let site = Site::good();
    for body in [
        "read = { register = 40001, count = 125 }",
        "read = { register = 40001, type = 'f64', count = 31 }",
        "read = { register = 1, count = 2000 }",
        "write = { register = 40001, count = 123 }\nidempotent = true",
        "write = { register = 1, count = 1968 }\nidempotent = true",
        "read = { table = 'holding', address = 65534, type = 'u32' }",
        "write = { register = 40001, type = 'bool' }\nvalue = true\nidempotent = false",
        "write = { register = 40001, type = 'string', count = 2 }\nvalue = 'abcd'\nidempotent = true",
        "write = { table = 'holding', register = 40001, type = 'i64' }\nvalue = -9007199254740993\nidempotent = true",
    ] {
        site.write("conf.d/10.toml", format!("[profile.pump.command.c]\n{body}"));
        site.loaded();
    }
}

#[test]
fn one_coil_or_register_is_written_by_the_function_that_is_named() {
    let site = Site::good();
    use Function::{Mask, Multiple, Usual};
    for (write, function, by) in [
        ("register = 1", 5, Usual),
        ("register = 1", 15, Multiple),
        ("register = 1, count = 2", 15, Multiple),
        ("register = 40001", 6, Usual),
        ("register = 40001", 16, Multiple),
        ("register = 40001, type = 'f64'", 16, Multiple),
        ("register = 40001, type = 'string', count = 1", 6, Usual),
        ("register = 40001, bit = 15", 6, Usual),
        ("register = 40001, bit = 0", 16, Multiple),
        ("register = 40001, bit = 3, type = 'bool'", 22, Mask),
    ] {
        let text = format!(
            "[profile.pump.command.c]\nidempotent = true\nwrite = {{ {write} }}\nfunction = {function}\n\
             [profile.pump.command.d]\nidempotent = true\nwrite = {{ {write} }}"
        );
        site.write("conf.d/10.toml", text);
        let commands = &site.loaded().config.devices["pump-7"].commands;
        assert_eq!((commands["c"].function, commands["d"].function), (by, Usual), "{write}, {function}");
    }
    for read_back in ["verify = true", "read_back = { address = 9 }", "read_back = { within = '5s', tolerance = 1 }"] {
        let text = format!(
            "[profile.pump.command.c]\nidempotent = true\nwrite = {{ register = 40001 }}\nfunction = 23\n{read_back}"
        );
        site.write("conf.d/10.toml", text);
        assert_eq!(site.loaded().config.devices["pump-7"].commands["c"].function, Function::WithReadBack);
    }
}

#[test]
fn steps_are_not_idempotent_unless_it_is_said_and_each_has_what_stands_beside_it() {
    let site = Site::good();
    let steps = "[[profile.pump.command.c.steps]]\nwrite = { register = 40001, bit = 1 }\nvalue = true\nverify = true\n\
                 [[profile.pump.command.c.steps]]\nwrite = { register = 40001, bit = 2 }\nvalues = { off = 0, on = 1 }\n\
                 function = 22\n";
    for (said, idempotent) in [("", false), ("idempotent = false", false), ("idempotent = true", true)] {
        site.write("conf.d/10.toml", format!("[profile.pump.command.c]\n{said}\n{steps}"));
        let command = site.loaded().config.devices["pump-7"].commands["c"].clone();
        assert_eq!(command.idempotent, idempotent, "{said}");
        let [first, second] = command.each() else { panic!("{command:?}") };
        assert!(first.read_back.is_some() && first.fixed.is_some() && second.fixed.is_none());
        assert_eq!((first.function, second.function), (Function::Usual, Function::Mask));
    }
}

#[test]
fn devices_of_a_profile_share_its_commands() {
    let config = Site::good().loaded().config;
    let [a, b] = ["pump-7", "pump-8"].map(|id| &config.devices[id].commands);
    assert!(std::sync::Arc::ptr_eq(a, b));
}

#[test]
fn plain_text_is_allowed_to_this_machine_only() {
    let site = Site::good();
    for (address, full) in [
        ("127.0.0.1:1883", "127.0.0.1:1883"),
        ("localhost:1", "localhost:1"),
        ("[::1]:9", "[::1]:9"),
        ("::1", "[::1]:1883"),
    ] {
        site.write("conf.d/10.toml", format!("[hub]\ntls = false\naddress = '{address}'"));
        assert_eq!(site.loaded().config.hub.address(TransportKind::Mqtt), full);
    }
}
