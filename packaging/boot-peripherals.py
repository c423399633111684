#!/usr/bin/env python3
"""The peripherals of the tests that boot a Debian: a Modbus TCP slave on 127.0.0.1, and a Modbus RTU slave on a pseudo
terminal, which stands where an adapter, or the line behind one, would. It shares no code with fieldbridge.

Each write is appended to the file that the first argument names before it is confirmed: "tcp ADDRESS VALUE" or
"rtu ADDRESS VALUE". The second argument is the path that the serial port gets, the third the TCP port; 502 if there is none.
"""
import os
import select
import shutil
import socket
import struct
import sys
import threading
import time
import tty

effects = open(sys.argv[1], "a", buffering=1)
port = sys.argv[2]
lock = threading.Lock()
registers = {}
# How long a write takes: so long that commands wait while others are carried out.
WRITE_SECONDS = 0.05


def answer(line, pdu):
    """Of a request: function 3 (read holding registers) or 6 (write one)."""
    function, address, value = struct.unpack(">BHH", pdu[:5])
    if function == 3:
        with lock:
            found = [registers.get((line, address + n), 0) for n in range(value)]
        return struct.pack(f">BB{value}H", 3, 2 * value, *found)
    if function == 6:
        with lock:
            registers[line, address] = value
            effects.write(f"{line} {address} {value}\n")
        time.sleep(WRITE_SECONDS)
        return pdu[:5]
    return bytes([function | 0x80, 1])


def exactly(stream, size):
    data = b""
    while len(data) < size:
        more = stream(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def serve_tcp(connection):
    try:
        while True:
            transaction, protocol, length, unit = struct.unpack(">HHHB", exactly(connection.recv, 7))
            reply = answer("tcp", exactly(connection.recv, length - 1))
            connection.sendall(struct.pack(">HHHB", transaction, protocol, len(reply) + 1, unit) + reply)
    except (EOFError, OSError):
        connection.close()


def crc(data):
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return struct.pack("<H", value)


def serve_rtu(ours):
    frame = b""
    while True:
        # What stays without its rest was cut off, by an adapter that was unplugged.
        if frame and not select.select([ours], [], [], 0.05)[0]:
            frame = b""
        # Both functions have requests of eight bytes.
        frame += os.read(ours, 8 - len(frame))
        if len(frame) < 8:
            continue
        request, frame = frame, b""
        if crc(request[:6]) != request[6:]:
            continue
        reply = request[:1] + answer("rtu", request[1:6])
        os.write(ours, reply + crc(reply))


ours, theirs = os.openpty()
tty.setraw(theirs)
# As udev leaves a serial port.
shutil.chown(os.ttyname(theirs), "root", "dialout")
os.chmod(os.ttyname(theirs), 0o660)
os.makedirs(os.path.dirname(port), exist_ok=True)
os.symlink(os.ttyname(theirs), port)
threading.Thread(target=serve_rtu, args=(ours,), daemon=True).start()
listener = socket.create_server(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 502))
print("ready", listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve_tcp, args=(listener.accept()[0],), daemon=True).start()
