"""What systemd wants to know of a service of `Type=notify`: started, reloading, alive, stopping.

The protocol is that of sd_notify(3): a datagram of lines `KEY=value` to the Unix socket that $NOTIFY_SOCKET names.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping

from fleetmem.errors import reason_of

log = logging.getLogger(__name__)

_MICROSECONDS = 1_000_000


class ServiceManager:
    """Who started this process and wants reports of how it is; nobody, where the environment names no socket.

    Args:
        environment: its $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID are taken out, so that no child acts on them.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds, pid = environment.pop("WATCHDOG_USEC", ""), environment.pop("WATCHDOG_PID", "")
        is_ours = pid in ("", str(os.getpid()))
        self._watchdog_seconds = int(microseconds) / _MICROSECONDS if microseconds.isdecimal() and is_ours else 0.0
        self._is_lost = False

    def started(self, status: str) -> None:
        """Tells that the service is up, or that a reload is over."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Tells that a reload has begun; `started` ends it."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """Tells that the service is about to end."""
        self._tell("STOPPING=1")

    def show(self, status: str) -> None:
        """Sets the line that `systemctl status` shows."""
        self._tell(f"STATUS={status}")

    async def feed_watchdog(self, is_alive: Callable[[], bool]) -> None:
        """Gives a sign of life twice in the watchdog's time while `is_alive`; ends where there is no watchdog."""
        while self._watchdog_seconds:
            if is_alive():
                self._tell("WATCHDOG=1")
            else:
                log.error("stalled: no host had an outcome for too long; systemd's watchdog is not answered")
            await asyncio.sleep(self._watchdog_seconds / 2)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is abstract; the kernel has a zero byte for it (unix(7)).
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)  # the hosts do not wait for systemd
                sock.sendto("\n".join(lines).encode(), address)
            self._is_lost = False
        except OSError as error:
            if not self._is_lost:
                log.warning("systemd could not be notified: %s: %s", self._address, reason_of(error))
            self._is_lost = True
