//! What people write who know other programs, and what they are told to write: in place, all at once.

use super::{file_of, lines, Site};

fn places(site: &Site) -> Vec<(String, u32, u32)> {
    let problems = site.problems();
    let place = |problem: &fieldbridge::config::Problem| {
        let place = problem.place.unwrap_or_else(|| panic!("no place: {problem}"));
        (file_of(problem).to_owned(), place.line, place.column)
    };
    problems.iter().map(place).collect()
}

#[test]
fn every_problem_has_its_line_and_column() {
    let site = Site::good();
    site.write(
        "conf.d/10.toml",
        "# a comment\n[hub]\n  keepalive = '1s'\n\n[bus.line-a]\nbaud = '19200'\n[device.\"pump.9\"]\nbus = 'line-a'\n\
         [profile.pump.command.start]\nwrite = { table = 'coil', adress = 1 }\nidempotent = true\n",
    );
    let file = |line, column| ("10.toml".to_owned(), line, column);
    let expected = [file(3, 3), file(6, 1), file(10, 27), file(7, 9), file(7, 9), file(7, 9)];
    assert_eq!(places(&site), expected, "{}", lines(&site.problems()));
    let text = site.problems()[0].to_string();
    assert!(text.contains("10.toml:3:3: hub.keepalive: "), "{text}");
}

#[test]
fn every_syntax_error_of_every_file_is_told_at_once() {
    let site = Site::good();
    site.write("conf.d/10.toml", "[hub\nhost = yes\n[bus.b]\nbaud = 0,1\n\nparity = none # x\n[bus.c\nbaud = 07\n");
    site.write("conf.d/20.toml", "a = \"x\n");
    let of = |name: &str, line, column| (name.to_owned(), line, column);
    let expected = [
        of("10.toml", 1, 5),
        of("10.toml", 2, 8),
        of("10.toml", 4, 9),
        of("10.toml", 6, 10),
        of("10.toml", 7, 7),
        of("10.toml", 8, 8),
        of("20.toml", 1, 7),
    ];
    assert_eq!(places(&site), expected, "{}", lines(&site.problems()));
}

#[test]
fn each_slip_is_answered_with_what_to_write() {
    let site = Site::good();
    for (text, told) in [
        ("{ \"hub\": { \"host\": \"x\" } }", "this is JSON"),
        ("hub:\n  host: contoso.azure-devices.net\nbus:\n  line-a:\n    baud: 9600\n", "this is YAML"),
        ("[profile.pump.command.c]\nread = { table = 'holding', address = 0, scale = 0,1 }", "write scale = 0.1"),
        ("[bus.line-a]\nbaud = 0,1", "write baud = 0.1"),
        ("[device.pump-7]\nunit = 07", "write unit = 7"),
        ("[device.pump-7]\nunit = 7 // the second", "begins with #"),
        ("[profile.scale.command.c]\nsend = \"R\"\nexpect = \"(\\d+)\"", "expect = '…'"),
        ("[bus.line-a]\nparity = 8N1", "data_bits = 8, parity = \"none\" and stop_bits = 1"),
        ("[bus.line-a]\nresponse_timeout = 500ms", "response_timeout = \"500ms\""),
        ("[bus.line-a]\nparity = 'E'", "\"even\""),
        ("[bus.line-a]\nparity = '8N1'", "data_bits = 8, parity = \"none\" and stop_bits = 1"),
        ("[bus.line-a]\nmode = '8N1'", "parity"),
        ("[bus.line-a]\nbaudrate = 9600", "\"baud\""),
        ("[device.pump-7]\nslave_id = 7", "\"unit\""),
        ("[profile.pump.command.c]\nread = { register = 40001, type = 'float' }", "\"f32\""),
        ("[profile.pump.command.c]\nread = { register = 40001, word_order = 'CDAB' }", "write order = \"CDAB\""),
        ("[profile.pump.command.c]\nread = { register = 40001, byte_order = 'BADC' }", "write order = \"BADC\""),
        ("[profile.pump.command.c]\nread = { register = 40001, order = 'dcba' }", "did you mean \"DCBA\""),
        ("[profile.pump.command.c]\nread = { register = 40001, endianness = 'CDAB' }", "did you mean \"order\""),
        ("[profile.pump.command.c]\nread = { register = 40001, type = 'f32 CDAB' }", "write it by itself: order ="),
        ("[profile.pump.command.c]\nread = { table = 3, address = 0 }", "\"holding\""),
        ("[device.pump.7]\nbus = 'line-a'", "[device.\"pump.7\"]"),
        ("[bus.line.b]\nbaud = 9600", "[bus.\"line.b\"]"),
        ("[hub]\nport = 8883", "address, as HOST:PORT"),
        ("[hub]\nca_file = \"C:\\new\\ca.pem\"", "single quotes"),
        ("[device.pump-7]\nkey = 'x'", "name the file"),
        ("bus = 'line-a'", "[bus.NAME]"),
        ("[[device]]\nid = 'x'", "[device.ID]"),
    ] {
        site.write("conf.d/50-case.toml", text);
        let problems = site.problems();
        assert!(
            problems.iter().any(|problem| problem.complaint.to_string().contains(told)),
            "{text}: {told:?}\n{}",
            lines(&problems)
        );
        for problem in &problems {
            assert!(!problem.remedy().is_empty(), "{text}: no remedy: {problem}");
            assert!(!problem.complaint.to_string().contains("must be quoted"), "{text}: {problem}");
        }
    }
    // The part of a name that stands behind a dot is no missing key's reason.
    site.write("conf.d/50-case.toml", "[device.pump.7]\nbus = 'line-a'\nunit = 1\nprofile = 'pump'");
    assert_eq!(site.problems().len(), 1, "{}", lines(&site.problems()));
}

#[test]
fn a_function_that_does_not_fit_has_its_line_and_column() {
    let site = Site::good();
    let command =
        "[profile.pump.command.c]\nwrite = { register = 40001, type = 'u32' }\n  function = 6\nidempotent = true\n";
    site.write("conf.d/10.toml", command);
    assert_eq!(places(&site), [("10.toml".to_owned(), 3, 3)], "{}", lines(&site.problems()));
}

#[test]
fn what_is_passed_over_is_told() {
    let site = Site::good();
    site.write("conf.d/10-pump.TOML", "[hub]\nhost = 'other.azure-devices.net'");
    site.write("conf.d/20-pump.toml.bak", "");
    site.write("conf.d/README", "");
    let loaded = site.load_with(&[("FIELDBRIDGE_HUB_HOST", "other"), ("FIELDBRIDGE_LOG", "debug")]);
    let loaded = loaded.unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    assert_eq!(loaded.config.hub.host, "contoso.azure-devices.net");
    let told = lines(&loaded.notes);
    assert_eq!(loaded.notes.len(), 2, "{told}");
    assert!(told.contains("10-pump.TOML: is not read") && told.contains("rename it"), "{told}");
    assert!(told.contains("environment: FIELDBRIDGE_HUB_HOST: ") && told.contains("FIELDBRIDGE__HUB__HOST"), "{told}");
}
