"""What can be done in the sandbox of fieldbridge.service: packaging/boot-walk.sh runs it with the directives of the unit."""
import ctypes
import errno
import os
import resource
import socket
import sys
import time


def is_refused(what, action):
    try:
        action()
    except OSError as error:
        known = (errno.EPERM, errno.EACCES, errno.EROFS, errno.EAFNOSUPPORT)
        assert error.errno in known, f"{what}: {error}"
    else:
        raise AssertionError(f"{what} is possible")


libc = ctypes.CDLL(None, use_errno=True)
may_ask = libc.adjtimex(ctypes.create_string_buffer(1024)) >= 0
assert may_ask == (sys.argv[1] == "ask"), f"asking for the clock's state: {os.strerror(ctypes.get_errno())}"
is_refused("setting the clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
for folder in ("/etc", "/usr", "/var", "/srv", "/etc/fieldbridge"):
    is_refused(f"writing to {folder}", lambda: open(f"{folder}/probe", "w"))
is_refused("looking into /root", lambda: os.listdir("/root"))
for family in (socket.AF_PACKET, socket.AF_NETLINK):
    is_refused(f"a socket of {family!r}", lambda: socket.socket(family, socket.SOCK_RAW))
assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
is_refused("changing its priority", lambda: os.nice(1))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, status["CapBnd"]
assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2"
open("/var/lib/fieldbridge/probe", "w").close()
os.remove("/var/lib/fieldbridge/probe")
