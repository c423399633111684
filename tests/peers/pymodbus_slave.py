"""A Modbus slave that this project did not write: unit 7 of pymodbus, over TCP, RTU, ASCII, and the latter two in TCP.
Over TCP units 21 to 36 are there as well, each with registers of its own.

    pymodbus_slave.py RTU_PATH ASCII_PATH

Prints the ports of TCP, of RTU in TCP and of ASCII in TCP in a line once all are served, and ends when its standard input does.

Coils and holding registers are writable and begin as zero. Discrete inputs are set where the address is divisible by
three. Input registers hold the values below in every order, packed by Python's struct.
"""

import asyncio
import struct
import sys

from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

UNIT = 7
MORE_UNITS = range(21, 37)
VALUES = [
    (">H", 65535),
    (">h", -2),
    (">I", 4_000_000_001),
    (">i", -2_000_000_001),
    (">Q", 18_446_744_073_709_551_610),
    (">q", -9_223_372_036_854_775_807),
    (">f", 3.5),
    (">d", -0.1),
    (">H", 0x9876),  # decimal digits
    (">I", 0x12345678),
]


def words(fmt, value, word_order, byte_order):
    packed = struct.pack(fmt, value)
    pairs = [packed[i : i + 2] for i in range(0, len(packed), 2)]
    if word_order == "little":
        pairs.reverse()
    return [int.from_bytes(pair, byte_order) for pair in pairs]


def inputs():
    registers = []
    for word_order in ("big", "little"):
        for byte_order in ("big", "little"):
            for fmt, value in VALUES:
                registers += words(fmt, value, word_order, byte_order)
    text = "Grüezi".encode() + b"\0"
    return registers + [int.from_bytes(text[i : i + 2], "big") for i in range(0, len(text), 2)]


def device(unit=UNIT):
    return SimDevice(
        id=unit,
        simdata=(
            [SimData(0, values=[False] * 2000, datatype=DataType.BITS)],
            [SimData(0, values=[at % 3 == 0 for at in range(2000)], datatype=DataType.BITS)],
            [SimData(0, count=200, values=0, datatype=DataType.REGISTERS)],
            [SimData(0, values=inputs(), datatype=DataType.REGISTERS)],
        ),
    )


async def main():
    tcp = ModbusTcpServer([device(unit) for unit in (UNIT, *MORE_UNITS)], address=("127.0.0.1", 0))
    rtu = ModbusSerialServer(device(), port=sys.argv[1], baudrate=115_200)
    rtu_in_tcp = ModbusTcpServer(device(), framer=FramerType.RTU, address=("127.0.0.1", 0))
    ascii = ModbusSerialServer(device(), framer=FramerType.ASCII, port=sys.argv[2], baudrate=115_200)
    ascii_in_tcp = ModbusTcpServer(device(), framer=FramerType.ASCII, address=("127.0.0.1", 0))
    for server in (tcp, rtu, rtu_in_tcp, ascii, ascii_in_tcp):
        await server.serve_forever(background=True)
    print(*(server.transport.sockets[0].getsockname()[1] for server in (tcp, rtu_in_tcp, ascii_in_tcp)), flush=True)
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
