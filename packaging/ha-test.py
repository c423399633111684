#!/usr/bin/env -S python3 -B
"""docs/HIGH-AVAILABILITY.md, tried: two virtual machines with Debian, one ledger on a disk that DRBD keeps on both, and
Pacemaker with Corosync, which lets one of them run the service and switches the other off before it takes over. The active
one is killed, cut off from the other, and left in order, with commands under way each time. One line a check. Status: 0,
1 if one failed, 77 if this machine can't run them.

Usage: packaging/ha-test.py [PACKAGE]     as root; without a package that of `make deb`. `make ha-test` does both

  SUITE=trixie            boots that Debian in place of bookworm
  FIELDBRIDGE_CACHE=DIR   keeps the base systems there; ~/.cache/fieldbridge if not set

Everything is emulated, and needs no processor's help with virtual machines. What a fencing device does, here the test
itself does: it kills the other machine's QEMU, as a switched socket would take its power.
"""
import json
import os
import pathlib
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from vm_machine import HERE, Hub, Machine, Peripherals, eventually, run, tree_with_kernel

HOST = "contoso.azure-devices.net"
NODES = ("node-a", "node-b")
RING = {"node-a": "192.168.77.1", "node-b": "192.168.77.2"}
PACKAGES = ("drbd-utils", "pacemaker", "corosync", "crmsh", "resource-agents", "pacemaker-cli-utils", "psmisc", "iproute2")
# Long for an emulated cluster on a busy machine; nothing that works takes so long.
PATIENCE = 600.0

# How often a command may have been done, by what is reported of it.
MAY_BE_DONE = {"succeeded": (1,), "in_doubt": (0, 1), "failed": (0,), "expired": (0,)}

SITE = """
[hub]
host = "{host}"
address = "10.0.2.2:{hub}"
ca_file = "/srv/hub-ca.pem"

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
"""

# The plug of a machine, as Pacemaker wants it (the Fence Agent API of ClusterLabs).
FENCE = """#!/usr/bin/python3
import socket, sys
METADATA = '''<?xml version="1.0" ?>
<resource-agent name="fence_plug" shortdesc="A switched socket of the test">
<longdesc>Takes the power from a machine.</longdesc><vendor-url/>
<parameters><parameter name="action" unique="0" required="1"><getopt mixed="-o"/><content type="string" default="off"/>
</parameter><parameter name="plug" unique="0" required="1"><getopt mixed="-n"/><content type="string"/></parameter></parameters>
<actions><action name="on" automatic="0"/><action name="off"/><action name="reboot"/><action name="status"/>
<action name="list"/><action name="monitor"/><action name="metadata"/></actions></resource-agent>'''
asked = dict(line.strip().split("=", 1) for line in sys.stdin if "=" in line) if len(sys.argv) == 1 else {}
for option, value in zip(sys.argv[1:], sys.argv[2:]):
    asked.update({"-o": {"action": value}, "-n": {"plug": value}}.get(option, {}))
action = asked.get("action", asked.get("option", "off"))
if action == "metadata":
    print(METADATA)
    sys.exit(0)
plug = asked.get("plug") or asked.get("port") or asked.get("nodename") or "none"
with socket.create_connection(("10.0.2.2", PORT), 20) as line:
    line.sendall(f"{action} {plug}\\n".encode())
    answer = line.makefile().readline().strip()
sys.exit({"ok": 0, "on": 0, "off": 2}.get(answer, 1))
"""


def document(name):
    """A file that docs/HIGH-AVAILABILITY.md shows: the block that begins with its path."""
    blocks = pathlib.Path("docs/HIGH-AVAILABILITY.md").read_text().split("```text\n")[1:]
    found = [block.split("```")[0] for block in blocks if block.startswith(f"# {name}\n")]
    assert len(found) == 1, f"docs/HIGH-AVAILABILITY.md has {len(found)} blocks {name}"
    return found[0]


def tree_with_cluster(tree):
    """The system with a kernel, and what a cluster is made of; made once, only read here."""
    made = pathlib.Path(f"{tree}-ha-1")
    if made.is_dir():
        return made
    part = pathlib.Path(f"{made}.part")
    print("== a base system with a cluster's parts", flush=True)
    shutil.rmtree(part, ignore_errors=True)
    run("cp", "-a", tree, part)
    shutil.copy("/etc/resolv.conf", part / "etc/resolv.conf")
    (part / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (part / "usr/sbin/policy-rc.d").chmod(0o755)
    run("unshare", "--mount", "--pid", "--fork", "sh", "-ec", """
        root=$1; shift
        mount -t proc proc "$root/proc" && mount -t tmpfs tmpfs "$root/dev"
        mknod -m 666 "$root/dev/null" c 1 3 && mknod -m 666 "$root/dev/urandom" c 1 9
        DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -q -y --no-install-recommends "$@"
        chroot "$root" systemctl disable corosync pacemaker drbd
        """, "sh", part, *PACKAGES)
    (part / "usr/sbin/policy-rc.d").unlink()
    for node, address in RING.items():
        # Before the network that is matched by name.
        (part / f"etc/systemd/network/70-{node}.network").write_text(
            f"[Match]\nMACAddress={mac(node)}\n[Network]\nAddress={address}/24\n")
    part.rename(made)
    return made


def mac(node):
    return f"52:54:00:77:00:0{NODES.index(node) + 1}"


class Node(Machine):
    """One of the two, with a disk of its own for DRBD and a line to the other."""

    def __init__(self, name, tree, payload, folder):
        place = folder / name
        place.mkdir()
        super().__init__("amd64", tree, payload, place, None)
        self.name, self.wires = name, folder
        self.data = place / "data"
        run("truncate", "--size", "64M", self.data)

    def boot(self):
        other = NODES[1 - NODES.index(self.name)]
        (self.wires / f"{self.name}.ring").unlink(missing_ok=True)
        self.start(
            "-drive", f"file={self.data},if=virtio,format=raw",
            "-netdev", f"dgram,id=ring,local.type=unix,local.path={self.wires}/{self.name}.ring,"
            f"remote.type=unix,remote.path={self.wires}/{other}.ring",
            "-device", f"virtio-net-pci,netdev=ring,id=ringcard,mac={mac(self.name)},romfile=")
        self.must(f"hostname {self.name} && echo {self.name} >/etc/hostname")

    def is_on(self):
        return self.process is not None and self.process.poll() is None

    def cut_ring(self):
        self.ask_monitor("set_link", name="ringcard", up=False)


class Plugs(socketserver.ThreadingTCPServer):
    """The switched sockets of both machines."""

    daemon_threads = allow_reuse_address = True

    def __init__(self):
        self.nodes, self.switched_off = {}, []
        super().__init__(("127.0.0.1", 0), Plug)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self):
        self.shutdown()
        self.server_close()


class Plug(socketserver.StreamRequestHandler):
    def handle(self):
        action, name = self.rfile.readline().decode().split()
        node = self.server.nodes.get(name)
        if action in ("off", "reboot") and node:
            # Killed, and waited for: what it has sent to its disk is there, and it does nothing more.
            node.cut_power()
            self.server.switched_off.append(name)
        answer = "ok" if action != "status" else ("on" if node and node.is_on() else "off")
        self.wfile.write(answer.encode() + b"\n")


class Site:
    def __init__(self, nodes, hub, peripherals, plugs):
        self.nodes, self.hub, self.peripherals, self.plugs = nodes, hub, peripherals, plugs
        self.sent, self.passed, self.failed = {}, 0, 0

    def check(self, what, action):
        try:
            found = action()
            assert found, f"it is not so: {found!r}"
        except (AssertionError, EOFError, TimeoutError) as error:
            self.failed += 1
            print(f"FAIL  {what}\n      | " + "\n      | ".join(traceback.format_exc().splitlines()[-8:]), flush=True)
            for node in self.nodes.values():
                if node.is_on():
                    print(node.ask("crm_mon -1rfA; drbdadm status; journalctl -n 40 --no-pager")[1][-6000:], flush=True)
            raise SystemExit(1) from error
        self.passed += 1
        print(f"ok    {what}", flush=True)
        if isinstance(found, str):
            print(f"      {found}", flush=True)

    def active(self):
        """The node whose service has its identity connected, if there is exactly one."""
        found = []
        for name, node in self.nodes.items():
            if node.is_on() and isinstance(said := node.at("timeout 10 fieldbridge status --json"), str):
                if json.loads(said)["hub"]["connected"] == 1:
                    found.append(name)
        assert len(found) < 2, "both nodes are connected to the hub"
        return found[0] if found else None

    def becomes_active(self, name, patience=PATIENCE):
        began = time.monotonic()
        eventually(f"{name} serves", lambda: self.active() == name, patience)
        return f"after {time.monotonic() - began:.0f} s"

    def send(self, count):
        """Commands that must not be repeated, each with a value of its own."""
        for _ in range(count):
            value = len(self.sent) + 1
            self.hub.ask("send", device="valve-3", messageId=f"ha-{value}", body={"command": "dispense", "value": value},
                         ack="full")
            self.sent[f"ha-{value}"] = f"tcp 10 {value}"

    def send_and_wait_for_some(self, count):
        before = sum(self.peripherals.done().values())
        self.send(count)
        eventually("some are done", lambda: sum(self.peripherals.done().values()) >= before + 5)

    def account(self):
        """Every message that was ever sent was completed once, and reported in one way, which is true."""
        wanted = set(self.sent)
        eventually("every result", lambda: wanted <= set(self.hub.results()), PATIENCE)
        eventually("every completion", lambda: wanted <= set(self.hub.completed()), PATIENCE)
        results, completed, done = self.hub.results(), self.hub.completed(), self.peripherals.done()
        count, wrong = dict.fromkeys(MAY_BE_DONE, 0), []
        for message, effect in self.sent.items():
            status, *more = results[message]
            if more or done.get(effect, 0) not in MAY_BE_DONE[status] or completed[message] != 1:
                wrong.append(f"{message}: {results[message]}, done {done.get(effect, 0)}, completed {completed[message]}")
            count[status] += 1
        assert not wrong, "\n".join(wrong)
        assert all(times == 1 for times in done.values()), done
        return f"lost 0, repeated 0 of {len(self.sent)}: " + ", ".join(f"{n} {what}" for what, n in count.items())

    # -- The walk.

    def prepare(self, package, ports):
        """What the page says, on both machines."""
        key = self.hub.add_device("valve-3")
        for node in self.nodes.values():
            node.must(f"apt-get install -q --yes /srv/{package.name} && systemctl disable --now fieldbridge")
            node.put("/etc/fieldbridge/fieldbridge.toml", SITE.format(host=HOST, **ports))
            node.put("/etc/fieldbridge/keys/valve-3.key", key + "\n")
            node.must("chown root:fieldbridge /etc/fieldbridge/keys/* && chmod 640 /etc/fieldbridge/keys/*")
            node.must("fieldbridge check && rm -rf /var/lib/fieldbridge/*")
            node.put("/etc/hosts", "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in RING.items()))
            node.must("mkdir -p /etc/systemd/system/fieldbridge.service.d")
            for name in ("/etc/systemd/system/fieldbridge.service.d/cluster.conf", "/etc/drbd.d/ledger.res",
                         "/etc/corosync/corosync.conf"):
                node.put(name, document(name))
            node.put("/usr/sbin/fence_plug", FENCE.replace("PORT", str(self.plugs.server_address[1])))
            node.must("chmod 755 /usr/sbin/fence_plug && systemctl daemon-reload")
        return True

    def makes_the_disk(self):
        first, second = self.nodes.values()
        for node in (first, second):
            node.must("modprobe drbd && drbdadm create-md --force ledger && drbdadm up ledger")
        eventually("they meet", lambda: first.at("drbdadm cstate ledger | grep -x Connected"))
        first.must("drbdadm primary --force ledger && mkfs.ext4 -q /dev/drbd0")
        first.must("mount /dev/drbd0 /var/lib/fieldbridge && chown fieldbridge:fieldbridge /var/lib/fieldbridge")
        first.must("chmod 750 /var/lib/fieldbridge && rmdir /var/lib/fieldbridge/lost+found && umount /var/lib/fieldbridge")
        first.must("drbdadm secondary ledger")
        eventually("both have the same", lambda: first.at("drbdadm dstate ledger | grep -x UpToDate/UpToDate"))
        return True

    def forms_a_cluster(self):
        first, second = self.nodes.values()
        first.must("corosync-keygen -l -k /etc/corosync/authkey >/dev/null 2>&1 || corosync-keygen -l")
        secret = first.must("base64 --wrap=0 /etc/corosync/authkey")
        second.must(f"echo {secret} | base64 --decode >/etc/corosync/authkey && chmod 400 /etc/corosync/authkey")
        for node in (first, second):
            node.must("systemctl enable --now corosync pacemaker")
        eventually("both are online", lambda: first.at("crm_mon -1 | grep -F 'Online: [ node-a node-b ]'"), PATIENCE)
        plugs = "".join(f"primitive plug-{name} stonith:fence_plug params plug={name} pcmk_host_list={name} "
                        f"pcmk_host_check=static-list op monitor interval=60s\n"
                        f"location plug-{name}-elsewhere plug-{name} -inf: {name}\n" for name in NODES)
        first.put("/root/cluster.crm", document("cluster.crm") + plugs)
        first.must("crm -F configure load update /root/cluster.crm")
        return True

    def guards_its_folder(self):
        """By hand on the one that must not: it has no ledger, and would begin with an empty one."""
        passive = self.nodes[NODES[1 - NODES.index(self.active())]]
        status, _ = passive.ask("systemctl start fieldbridge")
        return status != 0 and passive.at("! systemctl is-active --quiet fieldbridge")

    def comes_back(self, name):
        """A machine that was switched off is switched on again."""
        node = self.nodes[name]
        node.boot()
        other = self.nodes[NODES[1 - NODES.index(name)]]
        online = "crm_mon -1 | grep -F 'Online: [ node-a node-b ]'"
        eventually("both are online", lambda: other.at(online), PATIENCE)
        eventually("both have the same", lambda: other.at("drbdadm dstate ledger | grep -x UpToDate/UpToDate"), PATIENCE)
        return True

    def killed(self):
        active = self.active()
        other = NODES[1 - NODES.index(active)]
        self.send_and_wait_for_some(40)
        done = sum(self.peripherals.done().values())
        self.nodes[active].cut_power()
        self.check(f"{active} is killed, with {done} of {len(self.sent)} done: {other} takes over",
                   lambda: self.becomes_active(other))
        self.check("it had seen to it that the other is off", lambda: self.plugs.switched_off[-1:] == [active])
        self.check("nothing is lost, nothing repeated", self.account)
        self.check(f"{active} comes back as the passive one", lambda: self.comes_back(active))
        self.check(f"and {other} stays active", lambda: self.active() == other)

    def daemon_killed(self):
        active = self.active()
        self.send_and_wait_for_some(40)
        self.nodes[active].must("systemctl kill --signal=KILL --kill-who=main fieldbridge")
        self.check("kill -9 of the daemon alone: it is started again where it was", lambda: self.becomes_active(active))
        self.check("nothing is lost, nothing repeated", self.account)

    def parted(self):
        active = self.active()
        self.send_and_wait_for_some(40)
        before = len(self.plugs.switched_off)
        self.nodes[active].cut_ring()
        eventually("one has switched the other off", lambda: len(self.plugs.switched_off) > before, PATIENCE)
        self.check("cut off from each other, one switches the other off", lambda: True)
        left = [name for name in NODES if self.nodes[name].is_on()]
        self.check("one is left", lambda: len(left) == 1)
        self.check(f"{left[0]} serves", lambda: self.becomes_active(left[0]))
        self.check("nothing is lost, nothing repeated", self.account)

    def handed_over(self):
        active = self.active()
        other = NODES[1 - NODES.index(active)]
        self.send_and_wait_for_some(40)
        self.nodes[active].must(f"crm node standby {active}")
        self.check(f"{active} is to rest, and {other} takes over in order", lambda: self.becomes_active(other))
        self.check("nothing is lost, nothing repeated", self.account)
        self.nodes[active].must(f"crm node online {active}")


def main():
    os.environ["LC_ALL"] = "C.UTF-8"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0 or os.uname().machine != "x86_64":
        print("packaging/ha-test.py needs root, on a PC", file=sys.stderr)
        return 77
    os.chdir(HERE.parent)
    version = next(line.split('"')[1] for line in open("Cargo.toml") if line.startswith("version = "))
    package = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else f"target/deb/fieldbridge_{version}_amd64.deb").resolve()
    subprocess.run(["scripts/setup.sh", "vm", "amd64"], check=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fieldbridge-ha-"))
    ends = []
    try:
        words = ["packaging/base-system.sh", os.environ.get("SUITE", "bookworm"), "amd64"]
        base = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        return walk(tree_with_cluster(tree_with_kernel(base, "amd64")), package, folder, ends)
    finally:
        for part in reversed(ends):
            part.end()
        shutil.rmtree(folder, ignore_errors=True)


def walk(tree, package, folder, ends):
    began = time.monotonic()
    payload = folder / "srv"
    payload.mkdir()
    shutil.copy(package, payload)
    run("dpkg-deb", "--extract", package, folder / "package")
    hub = Hub(folder / "package/usr/bin/fieldbridge", tree, HOST, payload)
    peripherals = Peripherals(folder)
    plugs = Plugs()
    ends += [hub, peripherals, plugs]
    for name in NODES:
        plugs.nodes[name] = Node(name, tree, payload, folder)
        ends.append(plugs.nodes[name])
    site = Site(plugs.nodes, hub, peripherals, plugs)
    for node in plugs.nodes.values():
        node.boot()
    print(f"== two machines, booted after {time.monotonic() - began:.0f} s", flush=True)
    ports = {"hub": hub.address.rsplit(":", 1)[1], "peripherals": peripherals.port}
    site.check("the package, the configuration and the cluster's files are on both", lambda: site.prepare(package, ports))
    site.check("a disk is kept on both by DRBD", site.makes_the_disk)
    site.check("both form a cluster with fencing", site.forms_a_cluster)
    site.check("one of them serves", lambda: eventually("one serves", site.active, PATIENCE))
    site.check("on the other the service does not start", site.guards_its_folder)
    site.send(5)
    site.check("commands are done", site.account)
    for title, part in (("the active one is killed", site.killed), ("the daemon is killed", site.daemon_killed),
                        ("handed over", site.handed_over), ("killed again", site.killed), ("parted", site.parted)):
        print(f"== {title}", flush=True)
        part()
    print(f"== {site.passed} ok, {site.failed} failed, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
