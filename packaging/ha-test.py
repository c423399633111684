#!/usr/bin/env -S python3 -B
"""docs/HIGH-AVAILABILITY.md, tried: two booted Debians that reach one disk, and Pacemaker with Corosync, which lets one of
them run the service and switches the other off before it takes over. The active one is killed, loses its daemon, hands over
in order, and is cut off from the other, with commands under way each time. One line a check. Status: 0, 1 if one failed, 77 if
this machine can't boot them.

Usage: packaging/ha-test.py [PACKAGE]     as root; without a package that of `make deb`. `make ha-test` does both

  FIELDBRIDGE_CACHE=DIR   keeps the base systems there; ~/.cache/fieldbridge if not set

They boot in systemd-nspawn, in a network of their own, and share a loop device in the place of a disk that DRBD keeps on
both: that needs a kernel module, which is not everywhere. What a fencing device does, here the test itself does: it kills
everything that runs in the other system, as a switched socket would take its power.
"""
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import traceback

from vm_machine import HERE, Hub, Peripherals, eventually, run

HOST = "contoso.azure-devices.net"
OUTSIDE = "192.168.77.254"
RING = {"node-a": "192.168.77.1", "node-b": "192.168.77.2"}
PACKAGES = ("pacemaker", "corosync", "crmsh", "resource-agents", "pacemaker-cli-utils", "psmisc", "iproute2", "udev",
            "kmod")
# Long for a busy machine; nothing that works takes so long.
PATIENCE = 180.0

# How often a command may have been done, by what is reported of it.
MAY_BE_DONE = {"succeeded": (1,), "in_doubt": (0, 1), "failed": (0,), "expired": (0,)}

SITE = """
[hub]
host = "{host}"
address = "{hub}"
ca_file = "/srv/hub-ca.pem"

[bus.plant]
kind = "modbus-tcp"
address = "{peripherals}"

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
action = asked.get("action", "off")
if action == "metadata":
    print(METADATA)
    sys.exit(0)
with socket.create_connection(("OUTSIDE", PORT), 20) as line:
    line.sendall(f"{action} {asked.get('plug', 'none')}\\n".encode())
    answer = line.makefile().readline().strip()
sys.exit({"ok": 0, "on": 0, "off": 2}.get(answer, 1))
"""


def document(name):
    """A file that docs/HIGH-AVAILABILITY.md shows: the block that begins with its path."""
    blocks = pathlib.Path("docs/HIGH-AVAILABILITY.md").read_text().split("```text\n")[1:]
    found = [block.split("```")[0] for block in blocks if block.startswith(f"# {name}\n")]
    assert len(found) == 1, f"docs/HIGH-AVAILABILITY.md has {len(found)} blocks {name}"
    return found[0]


def resources(device):
    """What the cluster runs, with a disk that both reach in the place of DRBD's."""
    text = document("cluster.crm").replace("\\\n", " ")
    kept = [line for line in text.splitlines() if "ledger-disk" not in line]
    assert len(kept) < len(text.splitlines()) and "/dev/drbd0" in text
    return "\n".join(kept).replace("/dev/drbd0", device) + "\n"


def tree_with_cluster(base):
    """The base system with what a cluster is made of; made once, only read here."""
    made = pathlib.Path(f"{base}-ha-1")
    if made.is_dir():
        return made
    part = pathlib.Path(f"{made}.part")
    print("== a base system with a cluster's parts", flush=True)
    shutil.rmtree(part, ignore_errors=True)
    run("cp", "-a", base, part)
    shutil.copy("/etc/resolv.conf", part / "etc/resolv.conf")
    (part / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (part / "usr/sbin/policy-rc.d").chmod(0o755)
    run("unshare", "--mount", "--pid", "--fork", "sh", "-ec", """
        root=$1; shift
        mount -t proc proc "$root/proc" && mount -t tmpfs tmpfs "$root/dev"
        mknod -m 666 "$root/dev/null" c 1 3 && mknod -m 666 "$root/dev/urandom" c 1 9
        chroot "$root" apt-get update -q
        DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get install -q -y --no-install-recommends "$@"
        chroot "$root" systemctl disable corosync pacemaker
        chroot "$root" systemctl enable systemd-networkd
        """, "sh", part, *PACKAGES)
    (part / "usr/sbin/policy-rc.d").unlink()
    part.rename(made)
    return made


class Node:
    """One of the two: its disk outlives its ends."""

    def __init__(self, name, tree, payload, folder, device):
        self.name, self.payload, self.device, self.process, self.leader = name, payload, device, None, None
        self.root = folder / name / "root"
        for part in ("upper", "work", "root"):
            (folder / name / part).mkdir(parents=True)
        run("mount", "-t", "overlay", "-o", f"lowerdir={tree},upperdir={folder / name}/upper,workdir={folder / name}/work",
            "overlay", self.root)
        (self.root / "etc/fstab").write_text("")
        (self.root / "etc/hostname").write_text(f"{name}\n")
        for left in (self.root / "etc/systemd/network").glob("*.network"):
            left.unlink()
        (self.root / "etc/systemd/network/10-ring.network").write_text(
            f"[Match]\nName=host0\n[Network]\nAddress={RING[name]}/24\n")
        self.console = folder / f"{name}.console"
        # The control groups that the booted system makes stay below these.
        self.groups = []
        for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
            if os.path.exists(f"{top}/cgroup.procs"):
                self.groups.append(pathlib.Path(top) / f"fieldbridge-ha-{os.getpid()}-{name}")

    def boot(self):
        for group in self.groups:
            group.mkdir(exist_ok=True)

        def joins():
            for group in self.groups:
                (group / "cgroup.procs").write_text(str(os.getpid()))

        words = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot", "--keep-unit", "--register=no",
                 "--network-bridge=ring", f"--bind-ro={self.payload}:/srv", f"--machine={self.name}", "--console=pipe"]
        with open(self.console, "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=joins,
                                            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"})
        eventually(f"{self.name} boots", self.has_booted, PATIENCE)
        # Bound into it, the disk would be a mount of its own, which the agent that unmounts would take away.
        number = os.stat(self.device).st_rdev
        self.must(f"mknod {self.device} b {os.major(number)} {os.minor(number)}")

    def has_booted(self):
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} does not boot: {self.console.read_text()[-2000:]}")
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.leader = children[0] if children else None
        return self.leader and self.ask("systemctl is-system-running")[1] in ("running", "degraded")

    def is_on(self):
        return self.process is not None

    def ask(self, command):
        """Runs a line of shell as root; its status and what it said."""
        words = ["nsenter", "-t", self.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
                 "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root",
                 "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", f"cd /root && {command}"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout.decode(errors="replace").strip()

    def at(self, command):
        """The same; what it said, or nothing if it failed."""
        status, said = self.ask(command)
        return (said or True) if status == 0 else None

    def must(self, command):
        """The same for what has to succeed."""
        status, said = self.ask(command)
        assert status == 0, f"{self.name}: {command}: status {status}: {said}"
        return said

    def put(self, path, text):
        encoded = base64.b64encode(text.encode()).decode()
        self.must(f"echo {encoded} | base64 --decode > {path}")

    def cut_power(self):
        """Everything in it is killed. On return nothing of it runs, and its disk is let go."""
        process, self.process = self.process, None
        if process is None:
            return
        # With its process 1 everything ends.
        for pid in filter(None, (self.leader, str(process.pid))):
            subprocess.run(["kill", "-9", pid], stderr=subprocess.DEVNULL)
        process.wait()
        left = [group for group in self.groups if group.is_dir()]
        eventually("it is gone", lambda: not any(self.processes(group) for group in left), 30)
        for group in left:
            subprocess.run(["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], stderr=subprocess.DEVNULL)

    @staticmethod
    def processes(group):
        found = []
        for procs in group.rglob("cgroup.procs"):
            try:
                found += procs.read_text().split()
            except OSError:
                pass
        for pid in found:
            subprocess.run(["kill", "-9", pid], stderr=subprocess.DEVNULL)
        return found

    def cut_ring(self):
        """From the other node, and not from the site."""
        other = next(address for name, address in RING.items() if name != self.name)
        self.must(f"ip route add blackhole {other}/32")

    def end(self):
        self.cut_power()
        subprocess.run(["umount", "--lazy", self.root], stderr=subprocess.DEVNULL)


class Plugs(socketserver.ThreadingTCPServer):
    """The switched sockets of both machines."""

    daemon_threads = allow_reuse_address = True

    def __init__(self):
        self.nodes, self.switched_off, self.lock = {}, [], threading.Lock()
        super().__init__((OUTSIDE, 0), Plug)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def end(self):
        self.shutdown()
        self.server_close()


class Plug(socketserver.StreamRequestHandler):
    def handle(self):
        action, name = self.rfile.readline().decode().split()
        node = self.server.nodes.get(name)
        answer = "ok"
        with self.server.lock:
            if action in ("off", "reboot") and node:
                node.cut_power()
                self.server.switched_off.append(name)
            elif action == "status":
                answer = "on" if node and node.is_on() else "off"
        try:
            self.wfile.write(answer.encode() + b"\n")
        except OSError:
            pass  # Who asked was switched off meanwhile.


class Forward(socketserver.BaseRequestHandler):
    """The site's network: to the peripherals, which listen on this machine only."""

    port = 0

    def handle(self):
        with socket.create_connection(("127.0.0.1", self.port)) as peripheral:
            back = threading.Thread(target=self.copy, args=(peripheral, self.request), daemon=True)
            back.start()
            self.copy(self.request, peripheral)
            back.join()

    @staticmethod
    def copy(source, target):
        try:
            while data := source.recv(4096):
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def other_than(name):
    return next(other for other in RING if other != name)


class Site:
    def __init__(self, nodes, hub, peripherals, plugs):
        self.nodes, self.hub, self.peripherals, self.plugs = nodes, hub, peripherals, plugs
        self.sent, self.passed = {}, 0

    def check(self, what, action):
        """Something that is true, or a text to show. What comes later builds on it."""
        try:
            found = action()
            assert found, f"it is not so: {found!r}"
        except AssertionError as error:
            print(f"FAIL  {what}\n      | " + "\n      | ".join(traceback.format_exc().splitlines()[-8:]), flush=True)
            for node in self.nodes.values():
                if node.is_on():
                    print(node.ask("crm_mon -1rfA; journalctl -n 40 --no-pager")[1][-6000:], flush=True)
            raise SystemExit(1) from error
        self.passed += 1
        print(f"ok    {what}", flush=True)
        if isinstance(found, str):
            print(f"      {found}", flush=True)

    def active(self):
        """The node whose service has its identity connected, if there is one."""
        found = []
        for name, node in self.nodes.items():
            said = node.at("timeout 10 fieldbridge status --json") if node.is_on() else None
            if isinstance(said, str) and json.loads(said)["hub"]["connected"] == 1:
                found.append(name)
        assert len(found) < 2, "both nodes are connected to the hub"
        return found[0] if found else None

    def becomes_active(self, name):
        began = time.monotonic()
        eventually(f"{name} serves", lambda: self.active() == name, PATIENCE)
        return f"after {time.monotonic() - began:.0f} s"

    def send(self, count):
        """Commands that must not be repeated, each with a value of its own."""
        for _ in range(count):
            value = len(self.sent) + 1
            self.hub.ask("send", device="valve-3", messageId=f"ha-{value}", body={"command": "dispense", "value": value},
                         ack="full")
            self.sent[f"ha-{value}"] = f"tcp 10 {value}"

    def send_and_wait_for_some(self):
        before = sum(self.peripherals.done().values())
        self.send(40)
        eventually("some are done", lambda: sum(self.peripherals.done().values()) >= before + 5)
        return sum(self.peripherals.done().values()) - before

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
        return f"lost 0, repeated 0 of {len(self.sent)}: " + ", ".join(f"{n} {what}" for what, n in count.items() if n)

    def check_account(self):
        self.check("nothing is lost, and nothing is done twice", self.account)

    # -- The walk.

    def prepare(self, package, addresses):
        """What the page says, on both."""
        key = self.hub.add_device("valve-3")
        for node in self.nodes.values():
            node.must(f"apt-get install -q --yes /srv/{package.name} && systemctl disable --now fieldbridge")
            node.put("/etc/fieldbridge/fieldbridge.toml", SITE.format(host=HOST, **addresses))
            node.put("/etc/fieldbridge/keys/valve-3.key", key + "\n")
            node.must("chown root:fieldbridge /etc/fieldbridge/keys/* && chmod 640 /etc/fieldbridge/keys/*")
            node.must("fieldbridge check && rm -rf /var/lib/fieldbridge/*")
            node.put("/etc/hosts", "127.0.0.1 localhost\n" + "".join(f"{ip} {name}\n" for name, ip in RING.items()))
            node.must("mkdir -p /etc/systemd/system/fieldbridge.service.d")
            for name in ("/etc/systemd/system/fieldbridge.service.d/cluster.conf", "/etc/corosync/corosync.conf"):
                node.put(name, document(name))
            plug = FENCE.replace("PORT", str(self.plugs.server_address[1])).replace("OUTSIDE", OUTSIDE)
            node.put("/usr/sbin/fence_plug", plug)
            node.must("chmod 755 /usr/sbin/fence_plug && systemctl daemon-reload")
        return True

    def makes_the_disk(self, device):
        first = next(iter(self.nodes.values()))
        run("mkfs.ext4", "-q", device)
        first.must(f"mount {device} /var/lib/fieldbridge && chown fieldbridge:fieldbridge /var/lib/fieldbridge")
        first.must("chmod 750 /var/lib/fieldbridge && umount /var/lib/fieldbridge")
        return True

    def forms_a_cluster(self, device):
        first, second = self.nodes.values()
        first.must("corosync-keygen -l")
        secret = first.must("base64 --wrap=0 /etc/corosync/authkey")
        second.must(f"echo {secret} | base64 --decode >/etc/corosync/authkey && chmod 400 /etc/corosync/authkey")
        for node in (first, second):
            node.must("systemctl enable --now corosync pacemaker")
        self.both_are_online()
        delays = {"node-a": "pcmk_delay_base=15s", "node-b": ""}
        plugs = "".join(f"primitive plug-{name} stonith:fence_plug params plug={name} pcmk_host_list={name} "
                        f"pcmk_host_check=static-list {delays[name]} op monitor interval=60s\n"
                        f"location plug-{name}-elsewhere plug-{name} -inf: {name}\n" for name in RING)
        first.put("/root/cluster.crm", resources(device) + plugs)
        first.must("crm -F configure load update /root/cluster.crm")
        return True

    def both_are_online(self):
        online = "crm_mon -1 | grep -F 'Online: [ node-a node-b ]'"
        eventually("both are online", lambda: all(node.at(online) for node in self.nodes.values()), PATIENCE)
        return True

    def guards_its_folder(self):
        """By hand on the one that must not: it has no ledger, and would begin with an empty one."""
        passive = self.nodes[other_than(self.active())]
        status, _ = passive.ask("systemctl start fieldbridge")
        return status != 0 and passive.at("! systemctl is-active --quiet fieldbridge")

    def comes_back(self, name):
        """A machine that was switched off is switched on again."""
        self.nodes[name].boot()
        return self.both_are_online()

    def killed(self):
        active = self.active()
        other = other_than(active)
        before = len(self.plugs.switched_off)
        done = self.send_and_wait_for_some()
        self.nodes[active].cut_power()
        self.check(f"{active} is killed with {done} of 40 done, and {other} takes over", lambda: self.becomes_active(other))
        self.check("it had the other switched off before", lambda: self.plugs.switched_off[before:] == [active])
        self.check_account()
        self.check(f"{active} comes back as the passive one", lambda: self.comes_back(active))
        self.check(f"and {other} stays active", lambda: self.active() == other)

    def daemon_killed(self):
        active = self.active()
        self.send_and_wait_for_some()
        self.nodes[active].must("systemctl kill --signal=KILL --kill-who=main fieldbridge")
        self.check("kill -9 of the daemon alone: it is started again where it was", lambda: self.becomes_active(active))
        self.check_account()

    def handed_over(self):
        active = self.active()
        other = other_than(active)
        self.send_and_wait_for_some()
        self.nodes[active].must(f"crm node standby {active}")
        self.check(f"{active} is to rest, and {other} takes over in order", lambda: self.becomes_active(other))
        self.check_account()
        self.nodes[active].must(f"crm node online {active}")

    def parted(self):
        before = len(self.plugs.switched_off)
        self.send_and_wait_for_some()
        for node in list(self.nodes.values()):
            node.cut_ring()
        eventually("one has the other switched off", lambda: len(self.plugs.switched_off) > before, PATIENCE)
        left = [name for name, node in self.nodes.items() if node.is_on()]
        self.check("they don't reach each other: one has the other switched off, and is left", lambda: len(left) == 1)
        self.check(f"{left[0]} serves", lambda: self.becomes_active(left[0]))
        self.check_account()


def main():
    os.environ["LC_ALL"] = "C.UTF-8"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.geteuid() != 0:
        print("packaging/ha-test.py needs root", file=sys.stderr)
        return 77
    os.chdir(HERE.parent)
    version = re.search('^version = "(.*)"', pathlib.Path("Cargo.toml").read_text(), re.MULTILINE)[1]
    arch = run("dpkg", "--print-architecture").strip()
    package = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else f"target/deb/fieldbridge_{version}_{arch}.deb").resolve()
    if "HA_TEST" not in os.environ:
        subprocess.run(["scripts/setup.sh", "boot"], check=True)
        base = subprocess.run(["packaging/base-system.sh", "bookworm"], check=True, stdout=subprocess.PIPE, text=True)
        # The mounts and the network end with it.
        os.environ["HA_TEST"] = str(tree_with_cluster(base.stdout.strip()))
        os.execvp("unshare", ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, "-B", __file__,
                              str(package)])
    for words in (["mount", "-t", "tmpfs", "tmpfs", "/run/systemd"], ["ip", "link", "set", "lo", "up"],
                  ["ip", "link", "add", "ring", "type", "bridge"], ["ip", "addr", "add", f"{OUTSIDE}/24", "dev", "ring"],
                  ["ip", "link", "set", "ring", "up"]):
        run(*words)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fieldbridge-ha-"))
    run("mount", "-t", "tmpfs", "tmpfs", folder)
    run("truncate", "--size", "64M", folder / "disk")
    device = run("losetup", "--find", "--show", folder / "disk").strip()
    ends = []
    try:
        return walk(pathlib.Path(os.environ["HA_TEST"]), package, folder, device, ends)
    finally:
        for part in reversed(ends):
            part.end()
        subprocess.run(["losetup", "--detach", device], check=False)
        subprocess.run(["umount", "--lazy", folder], check=False)
        folder.rmdir()


def walk(tree, package, folder, device, ends):
    began = time.monotonic()
    payload = folder / "srv"
    payload.mkdir()
    shutil.copy(package, payload)
    run("dpkg-deb", "--extract", package, folder / "package")
    hub = Hub(folder / "package/usr/bin/fieldbridge", "/", HOST, payload, bind=f"{OUTSIDE}:0")
    peripherals = Peripherals(folder)
    plugs = Plugs()
    Forward.port = peripherals.port
    forward = socketserver.ThreadingTCPServer((OUTSIDE, 0), Forward)
    forward.daemon_threads = True
    threading.Thread(target=forward.serve_forever, daemon=True).start()
    ends += [hub, peripherals, plugs]
    for name in RING:
        plugs.nodes[name] = Node(name, tree, payload, folder, device)
        ends.append(plugs.nodes[name])
    site = Site(plugs.nodes, hub, peripherals, plugs)
    for node in plugs.nodes.values():
        node.boot()
    print(f"== two systems, booted after {time.monotonic() - began:.0f} s", flush=True)
    addresses = {"hub": hub.address, "peripherals": f"{OUTSIDE}:{forward.server_address[1]}"}
    site.check("the package, the configuration and the cluster's files are on both",
               lambda: site.prepare(package, addresses))
    site.check("a disk is made that both reach", lambda: site.makes_the_disk(device))
    site.check("both form a cluster with fencing", lambda: site.forms_a_cluster(device))
    site.check("one of them serves", lambda: eventually("one serves", site.active, PATIENCE))
    site.check("on the other the service does not start", site.guards_its_folder)
    site.send(5)
    site.check("commands are done", site.account)
    for title, part in (("the active one is killed", site.killed), ("the daemon is killed", site.daemon_killed),
                        ("handed over", site.handed_over), ("killed again", site.killed), ("parted", site.parted)):
        print(f"== {title}", flush=True)
        part()
    print(f"== {site.passed} ok, 0 failed, {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
