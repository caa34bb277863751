"""
A slow network between two network namespaces: latency and a rate, as a model of a data centre's.

::

    python -m tests.support.wire SERVERS-PID CLIENTS-PID --latency SECONDS --rate BYTES

Each namespace, that of a process, gets a point-to-point interface, and this process carries the
packets from one to the other: half of *latency* each way, each way no more than *rate* bytes a
second. The kernel's own netem does the same where it is built in. A packet is as large as a tun
device allows, so that carrying them costs little.

Prints a line when the wire is up, and carries until it is ended.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import struct
import subprocess
import time
from collections import deque

SERVER, CLIENT = "192.0.2.1", "192.0.2.2"
_NAME = "wire0"
_MTU = 65_535
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x0001 | 0x1000
_CLONE_NEWNET = 0x40000000
#: Packets on their way in one direction; more wait in the device, and then are dropped as a
#: router would.
_FULL = 1_000


class Lane:
    """One direction: packets that have left and not arrived."""

    def __init__(self, latency: float, rate: float) -> None:
        self._latency = latency
        self._rate = rate
        self._free = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()

    def send(self, packet: bytes, now: float) -> None:
        """A packet leaves when those before it have, and arrives its latency later."""
        self._free = max(now, self._free) + (len(packet) / self._rate if self._rate else 0.0)
        self._under_way.append((self._free + self._latency, packet))

    def arrived(self, now: float) -> list[bytes]:
        """Packets that have arrived by *now*, in their order."""
        packets = []
        while self._under_way and self._under_way[0][0] <= now:
            packets.append(self._under_way.popleft()[1])
        return packets

    @property
    def next(self) -> float:
        """When the next packet arrives; infinity if there is none."""
        return self._under_way[0][0] if self._under_way else float("inf")

    @property
    def full(self) -> bool:
        """Whether no more should be taken from the device now."""
        return len(self._under_way) >= _FULL


def carry(first: int, second: int, latency: float, rate: float) -> None:
    """Carry packets between two tun devices for ever."""
    lanes = {first: Lane(latency / 2, rate), second: Lane(latency / 2, rate)}
    other = {first: second, second: first}
    while True:
        now = time.monotonic()
        for source, lane in lanes.items():
            for packet in lane.arrived(now):
                try:
                    os.write(other[source], packet)
                except OSError:
                    pass  # as lost on a real one
        wait = min(lane.next for lane in lanes.values()) - time.monotonic()
        open_ = [source for source, lane in lanes.items() if not lane.full]
        ready = select.select(open_, [], [], min(max(wait, 0.0), 1.0))[0]
        now = time.monotonic()
        for source in ready:
            lanes[source].send(os.read(source, _MTU), now)


def _open(pid: int, own: str, peer: str) -> int:
    """A tun device in the namespace of process *pid*, up and routed."""
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _NAME.encode(), _IFF_TUN_NO_PI))
    for command in (
        f"ip address replace {own}/32 dev lo",
        f"ip link set {_NAME} mtu {_MTU} txqueuelen 2000 up",
        f"ip route replace {peer}/32 dev {_NAME} src {own}",
    ):
        subprocess.run(command.split(), check=True)
    return device


def main() -> None:
    """Open both ends and carry."""
    parser = argparse.ArgumentParser()
    parser.add_argument("servers", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("--latency", type=float, required=True, help="of a round trip, seconds")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes a second; 0: no limit")
    options = parser.parse_args()
    first = _open(options.servers, SERVER, CLIENT)
    second = _open(options.clients, CLIENT, SERVER)
    print("up", flush=True)
    carry(first, second, options.latency, options.rate)


if __name__ == "__main__":
    main()
