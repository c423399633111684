//! What is not run by the tests of the documents, and where it is run.

const HA: &str = "packaging/ha-test.py, by hand, before a release";
const DRBD: &str = "on two virtual machines, by hand; docs/HIGH-AVAILABILITY.md says what was tried";

/// Commands that are not run here, by how they begin, and where they are run.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("apt install ./fieldbridge_", "the boot test installs the package"),
    ("apt install fieldbridge", "the boot test installs it from a repository"),
    ("apt install drbd-utils corosync pacemaker", HA),
    ("modprobe drbd", DRBD),
    ("drbdadm ", DRBD),
    ("mkfs.ext4 /dev/drbd0", DRBD),
    ("mount /dev/drbd0 ", DRBD),
    ("umount /var/lib/fieldbridge", HA),
    ("chown fieldbridge:fieldbridge /var/lib/fieldbridge", HA),
    ("chmod 750 /var/lib/fieldbridge", HA),
    ("systemctl enable --now corosync pacemaker", HA),
    ("crm ", HA),
    ("crm_mon ", HA),
    ("make ha-test", "by hand, before a release; docs/HIGH-AVAILABILITY.md has the outcome"),
    ("usermod --append --groups fieldbridge", "of the system; tests/operator/cli has who may reach the daemon"),
    ("apt update", "the boot test"),
    ("apt upgrade", "the boot test"),
    ("apt install --allow-downgrades fieldbridge=", "packaging/boot-walk.sh is refused, and goes back where it may"),
    ("curl --fail --output-dir", "of curl; packaging/boot-walk.sh puts the same files into the same places"),
    ("sha256sum --check", "packaging/test-repo.sh"),
    ("gpg --quick-generate-key", "packaging/test-repo.sh"),
    ("dpkg --print-architecture", "of the system, to be looked at by a person"),
    ("systemctl stop fieldbridge", "the boot test; the story does in its place what it does"),
    ("systemctl disable --now fieldbridge", "the boot test; the story does in its place what it does"),
    ("tar --create --gzip --file", "the boot test"),
    ("tar --extract --gzip --file", "the boot test"),
    ("mv /var/lib/fieldbridge/ledger.db ", "packaging/boot-walk.sh"),
    ("make repo", "packaging/test-repo.sh, with packages that are built already"),
    ("make debs", "by hand, before a release"),
    ("make deb", "make boot-test begins with it"),
    ("make boot-test", "scripts/test.sh runs the boot test with the program of the tests"),
    ("make reproducible", "by hand, before a release"),
    ("make vm-test", "by hand, before a release; docs/RELIABILITY.md has the outcome"),
    ("apt remove fieldbridge", "the boot test"),
    ("apt purge fieldbridge", "the boot test"),
    ("systemctl enable --now fieldbridge", "the boot test; the story does in its place what it does"),
    ("systemctl restart fieldbridge", "the boot test; the story does in its place what it does"),
    ("journalctl -u fieldbridge", "the boot test"),
    ("systemctl reload fieldbridge", "the boot test"),
    ("timedatectl", "of systemd, to be looked at by a person"),
    ("ls -l /dev/serial/by-id", "of the system, to be looked at by a person"),
    ("scripts/demo.sh", "tests/operator/demo.rs runs what it runs"),
    ("scripts/test.sh", "CI is this command"),
    ("scripts/simulate.sh", "scripts/test.sh"),
    ("scripts/fuzz.sh", "scripts/test.sh"),
    ("scripts/mutants.sh", "by hand, when a guarantee's proof was changed; docs/RELIABILITY.md has the outcome"),
    ("cargo test", "CI runs every test"),
    ("scripts/proof.sh", "scripts/test.sh runs all tests by it"),
    ("cargo bench --bench gateway", "by hand; docs/PERFORMANCE.md has the outcome"),
    ("cargo bench --bench line", "by hand, on a machine that does nothing else"),
    ("cargo bench --bench transports", "by hand; docs/PERFORMANCE.md has the outcome"),
    ("cargo test --test", "by hand for its figures; CI runs it with all others"),
    ("FIELDBRIDGE_ROUNDS=", "a longer run, by hand, of a test that CI runs shorter"),
    ("FIELDBRIDGE_SEED=", "one run again, by hand, of a test that CI runs"),
];

/// The options of `az` by command: azure-cli-extension `azure-iot` 0.25, azext_iot/_params.py and azext_iot/_help.py;
/// `--query` and `--output` are those of every command of `az`.
pub const AZ: &[(&str, &[&str])] = &[
    ("az iot hub device-identity create", &["--hub-name", "--device-id"]),
    ("az iot hub device-identity show", &["--hub-name", "--device-id", "--query", "--output"]),
    (
        "az iot hub invoke-device-method",
        &["--hub-name", "--device-id", "--method-name", "--method-payload", "--timeout"],
    ),
    ("az iot hub monitor-events", &["--hub-name", "--device-id", "--properties"]),
    (
        "az iot hub invoke-device-method",
        &["--hub-name", "--device-id", "--method-name", "--method-payload", "--timeout"],
    ),
    ("az iot device c2d-message send", &["--hub-name", "--device-id", "--message-id", "--properties", "--data"]),
];
