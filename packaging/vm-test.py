#!/usr/bin/env -S python3 -B
"""What a container can't show of the package: a Debian with a kernel of its own, a USB adapter that is plugged in and
out, a limit on memory, a power cut, a clock that is wrong. One line a check. Status: 0, 1 if one failed.

Usage: packaging/vm-test.py [PACKAGE]     as root; without a package that of `make deb`. `make vm-test` does both

  ARCH=arm64              takes that package of `make deb`; the machine is always one for the package's architecture
  SUITE=trixie            boots that Debian in place of bookworm
  SEED=N                  cuts the power at the same moments again
  FIELDBRIDGE_CACHE=DIR   keeps the base systems there; ~/.cache/fieldbridge if not set

The adapter is QEMU's usb-serial, an FTDI chip, served by the kernel's ftdi_sio as a real one is.
"""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

from vm_machine import HERE, Hub, Machine, Peripherals, eventually, programs_of, run, tree_with_kernel

HOST = "contoso.azure-devices.net"
PORT = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_FB000001-if00-port0"
CONFIG = "/etc/fieldbridge/fieldbridge.toml"
# Identities for which 64 MB are enough (docs/PERFORMANCE.md).
IDENTITIES = 100
CUTS = 4

SITE = """
hub.address = "10.0.2.2:{hub}"
hub.ca_file = "/srv/hub-ca.pem"

[bus.plant]
kind = "modbus-tcp"
address = "10.0.2.2:{peripherals}"

[device.valve-3]
bus = "plant"
unit = 3
profile = "valve"
key_file = "keys/valve-3.key"

[profile.valve.command.dispense]
write = {{ table = "holding", address = 10 }}
idempotent = false

[profile.{profile}.command.set-speed]
write = {{ table = "holding", address = 0 }}
idempotent = false
"""

# How often a command may have been done, by what is reported of it.
MAY_BE_DONE = {"succeeded": (1,), "in_doubt": (0, 1), "failed": (0,), "expired": (0,)}

# Opens what it is given in the service's sandbox.
PROBE = """
import errno, os, sys
for wanted, path in (word.split(":") for word in sys.argv[1:]):
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
        found = "opens"
    except OSError as error:
        found = errno.errorcode[error.errno]
    assert found == wanted, f"{path}: {found} and not {wanted}"
"""


class Walk:
    def __init__(self, machine, hub, peripherals, package):
        self.machine, self.hub, self.peripherals, self.package = machine, hub, peripherals, package
        self.passed, self.failed, self.sent = 0, 0, {}

    # -- One line each.

    def check(self, what, action):
        """Something that is true, or a text to show. What comes later builds on it: the third failure is the last."""
        try:
            found = action()
            assert found, f"it is not so: {found!r}"
        except (AssertionError, EOFError, TimeoutError, subprocess.TimeoutExpired) as error:
            self.failed += 1
            print(f"FAIL  {what}\n      | " + "\n      | ".join(traceback.format_exc().splitlines()[-8:]), flush=True)
            if not isinstance(error, (EOFError, TimeoutError)):
                print(self.machine.ask("journalctl -u fieldbridge --no-pager --lines=12")[1], flush=True)
            if self.failed == 3:
                raise SystemExit(1) from error
        else:
            self.passed += 1
            print(f"ok    {what}", flush=True)
            if isinstance(found, str):
                print(f"      {found}", flush=True)

    def soon(self, what, probe):
        """What comes true in a while."""
        self.check(what, lambda: bool(eventually(what, probe, 300)))

    def does(self, what, command):
        """What succeeds there."""
        self.check(what, lambda: self.machine.must(command) is not None)

    # -- What is asked and told.

    def status(self):
        said = self.machine.at("timeout 10 fieldbridge status --json")
        return json.loads(said) if isinstance(said, str) else None

    def connected(self, identities=2):
        status = self.status()
        return status and status["hub"]["connected"] == status["hub"]["identities"] == identities

    def journal_has(self, text, more=""):
        return self.machine.at(f"journalctl -u fieldbridge --no-pager --output=cat {more} | grep -F -- '{text}'")

    def serial_bus(self):
        status = self.status()
        return status and next(bus["state"] for bus in status["buses"] if bus["kind"] == "modbus-rtu")

    def property(self, name):
        return self.machine.must(f"systemctl show --property={name} --value fieldbridge")

    # -- Messages, and the account of them.

    def send(self, device):
        """A command that must not be repeated, of which no other has the value."""
        value = len(self.sent) + 1
        command, effect = ("set-speed", f"rtu 0 {value}") if device == "pump-7" else ("dispense", f"tcp 10 {value}")
        message = f"vm-{value}"
        self.hub.ask("send", device=device, messageId=message, body={"command": command, "value": value}, ack="full")
        self.sent[message] = effect
        return message

    def send_to_both(self, count):
        """Returns once some are done."""
        before = self.done()
        for _ in range(count):
            self.send("pump-7")
            self.send("valve-3")
        eventually("some done", lambda: self.done() > before)
        return before

    def done(self):
        return sum(self.peripherals.done().values())

    def account(self):
        """Every message that was ever sent was completed once and reported in one way, which is true."""
        wanted = set(self.sent)
        eventually("every result at the hub", lambda: wanted <= set(self.hub.results()), 300)
        eventually("every message completed", lambda: wanted <= set(self.hub.completed()), 300)
        results, completed, done = self.hub.results(), self.hub.completed(), self.peripherals.done()
        count = dict.fromkeys(MAY_BE_DONE, 0)
        wrong = []
        for message, effect in self.sent.items():
            status, *more = results[message]
            if more or done.get(effect, 0) not in MAY_BE_DONE[status] or completed[message] != 1:
                times = f"done {done.get(effect, 0)}, completed {completed[message]}"
                wrong.append(f"{message}: {results[message]}, {times}")
            count[status] += 1
        assert not wrong, "\n".join(wrong)
        assert all(times == 1 for times in done.values()), done
        return f"of {len(self.sent)} sent so far: " + ", ".join(f"{n} {what}" for what, n in count.items())

    def check_account(self):
        self.check("each was done once, or not at all, as was reported", self.account)

    # -- The walk.

    def install(self):
        at = self.machine
        self.does("apt install, with no adapter plugged in", f"apt install --yes /srv/{self.package.name}")
        self.check("the user may use serial ports", lambda: at.must("id -nG fieldbridge") == "fieldbridge dialout")
        pump, valve = self.hub.add_device("pump-7"), self.hub.add_device("valve-3")
        flags = f"--host {HOST} --device pump-7 --port {PORT} --baud 19200 --parity even --unit 7 --key-file -"
        self.does("fieldbridge init", f"echo {pump} | fieldbridge init {flags}")
        at.put("/etc/fieldbridge/conf.d/site.toml", SITE.format(
            hub=self.hub.address.rsplit(":", 1)[1], peripherals=self.peripherals.port,
            profile=re.search('^profile = "(.*)"', at.must(f"cat {CONFIG}"), re.MULTILINE)[1]))
        at.put("/etc/fieldbridge/keys/valve-3.key", valve + "\n")
        at.must("chown root:fieldbridge /etc/fieldbridge/keys/* && chmod 640 /etc/fieldbridge/keys/*")
        self.does("fieldbridge check", "fieldbridge check")
        self.does("the service starts without the adapter", "systemctl restart fieldbridge")
        self.soon("both identities connect", self.connected)
        self.soon("the journal says what is missing", lambda: self.journal_has("is the adapter plugged in?"))

    def plug(self):
        at = self.machine
        at.plug()
        self.soon("an adapter that is plugged in after the service's start has its name", lambda: at.at(f"ls {PORT}"))
        self.soon("its bus opens by itself", lambda: self.serial_bus() == "open")
        self.does("fieldbridge exec reads from the slave", "fieldbridge exec pump-7 read-first")
        words = {"19200", "parenb", "-parodd", "cs8", "-cstopb", "-crtscts", "clocal"}
        self.check("the kernel's port has the line's parameters: 19200 8E1", lambda: words <= set(
            at.must(f"stty -a -F {PORT}").replace(";", " ").split()))
        self.check("ftdi_sio has taken low latency: 1 ms", lambda: at.must(
            f"cat /sys/bus/usb-serial/devices/$(basename $(readlink -f {PORT}))/latency_timer") == "1")
        self.does("fieldbridge check --live", "fieldbridge check --live")
        self.send("pump-7")
        self.check("a message is executed once on the line, reported and completed", self.account)

    def unplug(self):
        self.send_to_both(12)
        self.machine.unplug()
        self.soon("the adapter is pulled under way, and its bus is lost", lambda: self.serial_bus() == "opening")
        message = self.send("valve-3")
        self.soon("the other bus goes on", lambda: message in self.hub.results())
        self.send("pump-7")
        self.machine.plug()
        self.soon("it is plugged in again, and its bus opens", lambda: self.serial_bus() == "open")
        self.send("pump-7")
        self.check_account()

    def sandbox(self):
        at = self.machine
        at.put("/usr/local/sbin/probe", PROBE)
        at.must("systemctl stop fieldbridge; chmod 666 /dev/vda")
        runs = "systemctl start probe || { journalctl -u probe --no-pager --output=cat; false; }"

        def probe(more, wanted):
            unit = at.must("cat /usr/lib/systemd/system/fieldbridge.service")
            unit = re.sub("(?m)^(ExecReload|Restart.*|WatchdogSec|Runtime.*|StartLimit.*)=.*\n", "", unit)
            unit = re.sub("(?m)^Type=.*", "Type=oneshot", unit)
            start = f"{more}\nExecStart=/usr/bin/python3 /usr/local/sbin/probe {wanted}"
            at.put("/etc/systemd/system/probe.service", re.sub("(?m)^ExecStart=.*", start, unit))
            at.must("systemctl daemon-reload")

        probe("DeviceAllow=block-virtblk rw", f"opens:/dev/vda opens:{PORT}")
        self.does("with this disk among DeviceAllow= the service's user could open it", runs)
        probe("", f"EPERM:/dev/vda opens:{PORT}")
        self.does("with the unit as it is, serial ports can be opened, and the disk can't", runs)
        at.must("rm /etc/systemd/system/probe.service; chmod 660 /dev/vda; systemctl daemon-reload")
        at.must("systemctl start fieldbridge")
        self.soon("both identities connect", self.connected)

    def memory(self):
        at = self.machine
        more = [f"more-{n}" for n in range(IDENTITIES - 2)]
        at.put("/root/keys", "".join(f"{device} {self.hub.add_device(device)}\n" for device in more))
        at.must("""umask 077; cd /etc/fieldbridge/keys
            while read -r device key; do echo "$key" >"$device.key"; done </root/keys
            rm /root/keys; chown root:fieldbridge more-*; chmod 640 more-*""")
        at.put("/etc/fieldbridge/conf.d/more.toml", "".join(
            f'[device.{device}]\nbus = "plant"\nunit = {n + 10}\nprofile = "valve"\nkey_file = "keys/{device}.key"\n'
            for n, device in enumerate(more)))
        dropin = "/etc/systemd/system/fieldbridge.service.d/memory.conf"
        at.must(f"mkdir -p {os.path.dirname(dropin)}")
        at.put(dropin, "[Service]\nMemoryMax=64M\nMemorySwapMax=0\n")
        at.must("systemctl daemon-reload; systemctl restart fieldbridge")
        group = "/sys/fs/cgroup/system.slice/fieldbridge.service"
        limit = str(64 << 20)
        self.check("the kernel holds the service to MemoryMax=64M", lambda: at.must(f"cat {group}/memory.max") == limit)
        self.soon(f"{IDENTITIES} identities connect under it", lambda: self.connected(IDENTITIES))
        for device in more:
            self.send(device)
        self.check("each executes a command", self.account)
        self.does("nothing was killed for want of memory", f"grep -x 'oom_kill 0' {group}/memory.events")
        self.check("nor started again", lambda: self.property("NRestarts") == "0")
        self.check("its peak, the ledger's pages in the kernel's cache included", lambda: (
            f"{int(at.must(f'cat {group}/memory.peak')) // 1024} kB"))
        at.must(f"cd /etc/fieldbridge; rm conf.d/more.toml keys/more-* {dropin}; systemctl daemon-reload")
        at.must("systemctl restart fieldbridge")
        self.soon("both identities connect again without the others", self.connected)

    def power_off(self):
        self.send_to_both(15)
        self.check("systemctl poweroff, with commands under way, ends the machine", self.machine.power_off)
        self.machine.start(plugged=True)
        self.soon("the service was stopped in order", lambda: self.journal_has("Deactivated successfully", "--boot=-1"))
        self.soon("after booting both identities connect by themselves", self.connected)
        self.check_account()

    def power_cuts(self, dice):
        for cut in range(1, CUTS + 1):
            before = self.send_to_both(20)
            time.sleep(dice.uniform(0, 1.5))
            self.machine.cut_power()
            done = self.done() - before
            self.machine.start(plugged=True)
            what = f"cut {cut} of {CUTS}, with {done} of 40 commands done: both identities connect again"
            self.soon(what, self.connected)
            self.check_account()

    def wrong_clock(self):
        at = self.machine
        at.must("systemctl disable --now systemd-timesyncd; rm -rf /var/lib/systemd/timesync")
        at.power_off()
        at.start("-rtc", "base=2001-01-01T00:00:00", plugged=True)
        self.check("a machine that boots in the past", lambda: at.must("date --utc +%F"))
        self.soon("says that it waits for the time", lambda: "clock" in self.property("StatusText").lower())
        self.check("meanwhile nothing connects", lambda: self.status()["hub"]["connected"] == 0)
        self.check("and status says why", lambda: self.status()["clock"]["ok"] is False)
        self.soon("the buses open", lambda: self.serial_bus() == "open")
        self.does("and fieldbridge exec is served", "fieldbridge exec pump-7 read-first")
        self.hub.ask("send", device="pump-7", messageId="waits", body={"command": "read-first"}, ack="full")
        at.must(f"date --set=@{int(time.time())}")
        self.soon("once the time is set both identities connect", self.connected)
        self.soon("what waited is executed", lambda: self.hub.results().get("waits") == {"succeeded"})
        self.check_account()


def package_for(arch):
    version = re.search('^version = "(.*)"', pathlib.Path("Cargo.toml").read_text(), re.MULTILINE)[1]
    return sys.argv[1] if len(sys.argv) > 1 else f"target/deb/fieldbridge_{version}_{arch}.deb"


def main():
    os.environ["LC_ALL"] = "C.UTF-8"
    # Whatever ends this, nothing stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0:
        raise SystemExit("packaging/vm-test.py needs root")
    os.chdir(HERE.parent)
    package = pathlib.Path(package_for(os.environ.get("ARCH") or run("dpkg", "--print-architecture").strip())).resolve()
    arch = run("dpkg-deb", "--field", package, "Architecture").strip()
    subprocess.run(["scripts/setup.sh", "vm", arch], check=True)
    suite = os.environ.get("SUITE", "bookworm")
    seed = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"seed {seed}", flush=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fieldbridge-vm-"))
    ends = []
    try:
        with programs_of(arch):
            words = ["packaging/base-system.sh", suite, arch]
            base = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
            return walk(arch, tree_with_kernel(base, arch), package, seed, folder, ends)
    finally:
        for part in reversed(ends):
            part.end()
        shutil.rmtree(folder, ignore_errors=True)


def walk(arch, tree, package, seed, folder, ends):
    began = time.monotonic()
    payload = folder / "srv"
    payload.mkdir()
    shutil.copy(package, payload)
    # The hub is the same program's, on this side of the machine.
    run("dpkg-deb", "--extract", package, folder / "package")
    hub = Hub(folder / "package/usr/bin/fieldbridge", tree, HOST, payload)
    ends.append(hub)
    peripherals = Peripherals(folder)
    ends.append(peripherals)
    machine = Machine(arch, tree, payload, folder, peripherals.line)
    ends.append(machine)
    machine.start()
    system = machine.must(". /etc/os-release; echo $PRETTY_NAME, $(uname -sr)")
    print(f"== {system}, booted after {time.monotonic() - began:.0f} s", flush=True)
    site = Walk(machine, hub, peripherals, package)
    for title, part in (
        ("installed", site.install),
        ("an adapter is plugged in", site.plug),
        ("and out", site.unplug),
        ("devices in the sandbox", site.sandbox),
        (f"{IDENTITIES} identities in 64 MB", site.memory),
        ("powered off", site.power_off),
        ("the power is cut", lambda: site.power_cuts(random.Random(seed))),
        ("a wrong clock", site.wrong_clock),
    ):
        print(f"== {title}", flush=True)
        part()
    print(f"== {site.passed} ok, {site.failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if site.failed else 0


if __name__ == "__main__":
    sys.exit(main())
