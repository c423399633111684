//! What can be wrong in a poll, in `[telemetry]`, and in both together.

use fieldbridge::config::messages_a_day;

use super::wrong::{Bench, Case};
use super::{lines, Site};

const POLLS: &[Case] = &[
    ("every = '1s'", "", "asks nothing"),
    ("read = { register = 40001 }", "", "is missing; say how often"),
    ("read = { register = 40001 }\nsend = 'a'\nevery = '1s'", ".read", "stands beside send"),
    ("read = { register = 40001 }\nevery = '10ms'", ".every", "out of range"),
    ("read = { register = 40001 }\nevery = 10", ".every", "add its unit"),
    (
        "read = { register = 40001 }\nevery = '1s'\nexpect = 'a'",
        ".expect",
        "belongs to a send, and this poll is a read",
    ),
    ("read = { register = 40001 }\nevery = '1s'\ndeadband = 1", ".deadband", "write report = \"change\""),
    ("read = { register = 40001 }\nevery = '1s'\nreport = 'changes'", ".report", "did you mean \"change\"?"),
    (
        "read = { register = 1 }\nevery = '1s'\nreport = 'change'\ndeadband = 1",
        ".deadband",
        "is for numbers, and this poll reads none",
    ),
    (
        "read = { register = 40001 }\nevery = '1s'\nreport = 'change'\ndeadband = -1",
        ".deadband",
        "must not be negative",
    ),
    ("read = { register = 40001 }\nevery = '1s'\nidempotent = true", ".idempotent", "unknown key"),
    ("read = { register = 40001 }\ninterval = '1s'\nevery = '1s'", ".interval", "did you mean \"every\"?"),
];

#[test]
fn each_key_of_a_poll_is_checked() {
    let bench = Bench::new();
    for (poll, key, fragment) in POLLS {
        let text = format!("[profile.pump.poll.p]\n{poll}");
        let key = if poll.contains("every") { (*key).to_owned() } else { ".every".to_owned() };
        bench.makes_one_problem(&text, &format!("profile.pump.poll.p{key}"), fragment);
    }
}

#[test]
fn what_is_asked_carries_no_value_and_goes_over_the_bus_that_its_device_has() {
    let bench = Bench::new();
    let poll = |of: &str, poll: &str| format!("[profile.{of}.poll.p]\nevery = '1s'\n{poll}");
    bench.makes_one_problem(
        &poll("scale", "send = \"W {value}\\r\\n\""),
        "profile.scale.poll.p.send",
        "without a value",
    );
    let site = Site::good();
    site.write("conf.d/50-case.toml", poll("scale", "read = { register = 40001 }"));
    let problems = lines(&site.problems());
    assert!(problems.contains("its poll \"p\" reads registers, and bus \"scale-port\" is a serial line"), "{problems}");
}

const TELEMETRY: &[Case] = &[
    ("max_size = 64", ".max_size", "add its unit, in quotes"),
    ("max_size = '64 apples'", ".max_size", "is no size"),
    ("max_size = '1KiB'", ".max_size", "it must be 1MiB to 64GiB"),
    ("batch_size = '1MiB'", ".batch_size", "it must be 512B to 256KiB"),
    ("batch_delay = '2d'", ".batch_delay", "out of range"),
    ("daily_messages = -1", ".daily_messages", "out of range"),
    ("path = '/'", ".path", "is a folder"),
    ("path = '/var/lib/fieldbridge/ledger.db'", ".path", "is the ledger's"),
    ("linger = '1s'", ".linger", "did you mean \"batch_delay\"?"),
];

#[test]
fn each_key_of_telemetry_is_checked() {
    let bench = Bench::new();
    for (keys, key, fragment) in TELEMETRY {
        bench.makes_one_problem(&format!("[telemetry]\n{keys}"), &format!("telemetry{key}"), fragment);
    }
}

#[test]
fn a_day_has_as_many_messages_as_the_polls_make_and_more_than_are_sent_is_a_warning() {
    let site = Site::good();
    let of_a_day = |text: &str| {
        site.write("conf.d/50-case.toml", text);
        let loaded = site.loaded();
        let config = &loaded.config;
        (messages_a_day(&config.telemetry, config.devices.values()), lines(&loaded.notes))
    };
    let poll = |every: &str| format!("[profile.pump.poll.p]\nread = {{ register = 40001 }}\nevery = '{every}'\n");
    // Two devices have the profile.
    assert_eq!(of_a_day(&poll("10s")), (2 * 8_640, String::new()));
    assert_eq!(of_a_day(&poll("1s")).0, 2 * 8_640, "ten samples are one message");
    assert_eq!(of_a_day(&(poll("1m") + "[telemetry]\nbatch_delay = '0s'")).0, 2 * 1_440);
    assert!(of_a_day(&poll("100ms")).0 > 2 * 8_640, "a message is full before it is old");
    // Each message counts as often as it has units of 4 KiB: one that is full as two, and one that is old soon as one.
    let large = "[telemetry]\nbatch_size = '6KiB'\n";
    let (full, old) = (of_a_day(&(poll("100ms") + large + "batch_delay = '1d'")).0, of_a_day(&(poll("10s") + large)).0);
    let of_4_kib = of_a_day(&(poll("100ms") + "[telemetry]\nbatch_delay = '1d'")).0;
    assert!(full > of_4_kib * 5 / 4 && full < of_4_kib * 3 / 2, "{full} of 6 KiB, {of_4_kib} of 4 KiB");
    assert_eq!(old, 2 * 8_640);
    assert_eq!(of_a_day("").0, 0);
    let (_, notes) = of_a_day(&(poll("10s") + "[telemetry]\ndaily_messages = 5000"));
    assert!(notes.contains("up to 17280 messages a day, and 5000 are sent"), "{notes}");
}
