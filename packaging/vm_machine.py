"""What packaging/vm-test.py walks on: a Debian with a kernel and a USB bus of its own in QEMU, and outside of it, where
no crash of the machine reaches them, the simulated hub and packaging/boot-peripherals.py.

Nothing here needs a processor's help with virtual machines: everything is emulated, and boots in less than a minute.
"""
import base64
import contextlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
# Long for an emulated processor on a busy machine; nothing that works takes so long.
PATIENCE = 120.0

# By Debian's name of an architecture: its kernel, what QEMU calls it, the machine (with the processor of a Pi 4, and of
# a Pi 2), the console.
KINDS = {
    "amd64": ("amd64", "x86_64", ("-cpu", "max"), "ttyS0"),
    "arm64": ("arm64", "aarch64", ("-machine", "virt", "-cpu", "cortex-a72"), "ttyAMA0"),
    "armhf": ("armmp", "arm", ("-machine", "virt,highmem=off", "-cpu", "cortex-a7"), "ttyAMA0"),
}

# What stands between them and their disks.
MODULES = "pci_host_generic\nvirtio_pci\nvirtio_blk\next4\ncrc32c_generic\n"

# What QEMU calls a USB adapter with an FTDI chip; the kernel's driver is ftdi_sio.
ADAPTER = {"driver": "usb-serial", "id": "adapter", "chardev": "line", "serial": "FB000001", "bus": "usb.0"}

# Runs what comes through the port: a line of JSON with a shell's command, answered by its status and what it said.
AGENT = """
import json, subprocess, time
port = open("/dev/virtio-ports/control", "r+b", buffering=0)
pending = b""
while True:
    more = port.read(4096)
    if not more:
        time.sleep(0.1)
        continue
    pending += more
    while b"\\n" in pending:
        line, pending = pending.split(b"\\n", 1)
        asked = json.loads(line)
        done = subprocess.run(["sh", "-c", asked["command"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, cwd="/root")
        answer = {"id": asked["id"], "status": done.returncode, "said": done.stdout.decode(errors="replace")}
        answer = json.dumps(answer).encode() + b"\\n"
        while answer:
            answer = answer[port.write(answer):]
"""

UNIT = """
[Unit]
Description=Runs what the test asks for
RequiresMountsFor=/srv
[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/agent
Environment=DEBIAN_FRONTEND=noninteractive
[Install]
WantedBy=multi-user.target
"""

NETWORK = """
[Match]
Name=en* eth*
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
"""


def run(*words, **more):
    """Runs a program; what it says is shown only if it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    if done.returncode:
        said = done.stdout.decode(errors="replace")
        raise SystemExit(f"{' '.join(map(str, words))}: status {done.returncode}\n{said}")
    return done.stdout.decode()


def eventually(what, probe, patience=PATIENCE):
    """What the probe gives once that is true."""
    end = time.monotonic() + patience
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what}; last: {found!r}")
        time.sleep(0.2)


@contextlib.contextmanager
def programs_of(arch):
    """Meanwhile programs for that architecture run here, also in a folder that is another system's root."""
    cpu = KINDS[arch][1]
    if arch == run("dpkg", "--print-architecture").strip():
        yield
        return
    registry = pathlib.Path("/proc/sys/fs/binfmt_misc")
    mounted = not (registry / "register").exists()
    if mounted:
        run("mount", "-t", "binfmt_misc", "binfmt_misc", registry)
    # Under a name of its own, so that it disturbs no other user of qemu.
    name = f"fieldbridge-vm-{os.getpid()}"
    rule = pathlib.Path(f"/usr/lib/binfmt.d/qemu-{cpu}.conf").read_text().strip().split(":")
    (registry / "register").write_text(":".join(["", name, *rule[2:]]))
    try:
        yield
    finally:
        (registry / name).write_text("-1")
        if mounted:
            run("umount", registry)


def tree_with_kernel(base, arch):
    """The base system with Debian's kernel and the agent, made once; only read here."""
    tree = pathlib.Path(f"{base}-vm-1")
    if tree.is_dir():
        return tree
    part = pathlib.Path(f"{tree}.part")
    print("== a base system with a kernel", flush=True)
    shutil.rmtree(part, ignore_errors=True)
    run("cp", "-a", base, part)
    shutil.copy("/etc/resolv.conf", part / "etc/resolv.conf")
    # The initramfs finds this machine's disk; to look for all others takes long where every program is emulated.
    for path, text in (("etc/initramfs-tools/conf.d/vm", "MODULES=list\n"),
                       ("usr/share/initramfs-tools/modules.d/vm", MODULES)):
        (part / path).parent.mkdir(parents=True)
        (part / path).write_text(text)
    # In a mount namespace that ends with the command.
    run("unshare", "--mount", "--pid", "--fork", "sh", "-ec", """
        mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/dev" && mknod -m 666 "$1/dev/null" c 1 3
        chroot "$1" apt-get update -q
        DEBIAN_FRONTEND=noninteractive chroot "$1" apt-get install -q -y --no-install-recommends \
            "linux-image-$2" initramfs-tools udev kmod fdisk
        chroot "$1" systemctl enable systemd-networkd
        """, "sh", part, KINDS[arch][0])
    (part / "usr/local/sbin/agent").write_text(AGENT)
    (part / "etc/systemd/system/agent.service").write_text(UNIT)
    (part / "etc/systemd/network/80-vm.network").write_text(NETWORK)
    (part / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 1\n/dev/vdb /srv ext4 ro 0 0\n")
    (part / "etc/hostname").write_text("gateway\n")
    (part / "var/log/journal").mkdir(exist_ok=True)
    run("chroot", part, "systemctl", "enable", "agent")
    part.rename(tree)
    return tree


class Machine:
    """A gateway: its disk outlives its crashes. At most one runs at a time."""

    def __init__(self, arch, tree, payload, folder, line):
        """`payload`: a folder that it sees as /srv. `line`: the serial port here that its adapter leads to, if any."""
        self.kind = KINDS[arch]
        self.folder, self.line, self.process, self.last_id = folder, line, None, 0
        self.kernel = sorted(tree.glob("boot/vmlinuz-*"))[-1], sorted(tree.glob("boot/initrd.img-*"))[-1]
        self.disks = [folder / "disk", folder / "payload"]
        for disk, content, size in zip(self.disks, (tree, payload), ("3G", "256M")):
            run("truncate", "--size", size, disk)
            run("mke2fs", "-q", "-F", "-t", "ext4", "-d", content, disk)

    def start(self, *options, plugged=False):
        """Boots, with the adapter or without; on return it takes commands."""
        for name in ("control", "monitor"):
            (self.folder / name).unlink(missing_ok=True)
        _, cpu, machine, console = self.kind
        words = [f"qemu-system-{cpu}", *machine, "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024"]
        words += ["-no-reboot", "-display", "none", "-serial", f"file:{self.folder / 'console'}"]
        words += ["-kernel", self.kernel[0], "-initrd", self.kernel[1]]
        words += ["-append", f"console={console} root=/dev/vda rw quiet"]
        for disk in self.disks:
            words += ["-drive", f"file={disk},if=virtio,format=raw"]
        words += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]
        words += ["-device", "qemu-xhci,id=usb"]
        if self.line:
            words += ["-chardev", f"serial,id=line,path={self.line}"]
        words += ["-chardev", f"socket,id=control,path={self.folder / 'control'},server=on,wait=off"]
        words += ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=control,name=control"]
        words += ["-qmp", f"unix:{self.folder / 'monitor'},server=on,wait=off", *options]
        if plugged:
            words += ["-device", json.dumps(ADAPTER)]
        with open(self.folder / "qemu.log", "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.control = eventually("QEMU listens", lambda: self.connect("control"))
        self.monitor = eventually("QEMU listens", lambda: self.connect("monitor"))
        json.loads(self.monitor.readline())
        self.ask_monitor("qmp_capabilities")
        assert self.at("systemctl is-system-running --wait; true"), "it boots"

    def connect(self, name):
        if self.process.poll() is not None:
            raise SystemExit("QEMU has ended: " + (self.folder / "qemu.log").read_text())
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(str(self.folder / name))
        except OSError:
            return None
        stream.settimeout(300)
        return stream.makefile("rwb", buffering=0)

    def ask_monitor(self, command, event=None, **arguments):
        """A command to QEMU; with an event, returns once that has happened."""
        request = {"execute": command, "arguments": arguments}
        self.monitor.write(json.dumps(request).encode() + b"\n")
        wanted = {"return", event} - {None}
        while wanted:
            answer = json.loads(self.monitor.readline())
            assert "error" not in answer, answer
            wanted -= {"return"} if "return" in answer else {answer.get("event")}

    def plug(self):
        self.ask_monitor("device_add", **ADAPTER)

    def unplug(self):
        self.ask_monitor("device_del", event="DEVICE_DELETED", id="adapter")

    def ask(self, command):
        """Runs a line of shell as root; its status and what it said."""
        self.last_id += 1
        self.control.write(json.dumps({"id": self.last_id, "command": command}).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            more = self.control.read(65536)
            if not more:
                raise EOFError(f"the machine is gone, asked for: {command}")
            answer += more
        answer = json.loads(answer)
        assert answer["id"] == self.last_id, answer
        return answer["status"], answer["said"].strip()

    def at(self, command):
        """The same; what it said, or nothing if it failed."""
        status, said = self.ask(command)
        return (said or True) if status == 0 else None

    def must(self, command):
        """The same for what has to succeed."""
        status, said = self.ask(command)
        assert status == 0, f"{command}: status {status}: {said}"
        return said

    def put(self, path, text):
        encoded = base64.b64encode(text.encode()).decode()
        self.must(f"echo {encoded} | base64 --decode > {path}")

    def cut_power(self):
        """What the kernel has not written is gone."""
        self.process.kill()
        self.process.wait()

    def power_off(self):
        """In order, by the system's own command. On return it is off."""
        self.control.write(json.dumps({"id": 0, "command": "systemctl poweroff"}).encode() + b"\n")
        return self.process.wait(PATIENCE) == 0

    def end(self):
        if self.process:
            self.cut_power()


class Hub:
    """The simulated hub."""

    def __init__(self, program, libraries, host, folder, bind="127.0.0.1:0"):
        words = [program, "demo", "hub", "--bind", bind, "--host", host, "--dir", folder]
        environment = {**os.environ, "QEMU_LD_PREFIX": str(libraries)}
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        self.address = self.answer()["address"]

    def answer(self):
        answer = json.loads(self.process.stdout.readline())
        assert answer["ok"], answer
        return answer

    def ask(self, op, **arguments):
        self.process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        self.process.stdin.flush()
        return self.answer()

    def add_device(self, device):
        """The key of a new one."""
        return self.ask("addDevice", device=device)["key"]

    def results(self):
        """What was reported of each message: statuses by message id."""
        found = {}
        for event in self.ask("telemetry")["telemetry"]:
            body = json.loads(event["body"])
            found.setdefault(body["messageId"], set()).add(body["status"])
        return found

    def completed(self):
        """How often each message was completed, by message id."""
        found = {}
        for record in self.ask("feedback")["feedback"]:
            assert record["statusCode"] == "Success", record
            found[record["originalMessageId"]] = found.get(record["originalMessageId"], 0) + 1
        return found

    def end(self):
        self.process.kill()


class Peripherals:
    """The slaves, and what they have done."""

    def __init__(self, folder):
        self.effects, self.line = folder / "effects", folder / "line" / "port"
        words = ["python3", HERE / "boot-peripherals.py", self.effects, self.line, "0"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C.UTF-8"})
        ready = self.process.stdout.readline().split()
        assert ready[0] == b"ready", ready
        self.port = int(ready[1])

    def done(self):
        """How often each write was carried out: by "tcp ADDRESS VALUE" or "rtu ADDRESS VALUE"."""
        found = {}
        for line in self.effects.read_text().splitlines():
            found[line] = found.get(line, 0) + 1
        return found

    def end(self):
        self.process.kill()
