"""What systemd is told (sd_notify(3)): ready, reloading, stopping, and that the loop still turns."""

import os
import socket
import sys


class Notifier:
    """Sends to ``$NOTIFY_SOCKET``; without one nothing is sent.

    ``watchdog_seconds``: how often WATCHDOG=1 is due, half of ``$WATCHDOG_USEC``; None without a watchdog.
    """

    def __init__(self, environ: dict[str, str] | None = None):
        environ = dict(os.environ) if environ is None else environ
        path = environ.get("NOTIFY_SOCKET", "")
        # a leading @ stands for the abstract namespace's zero byte
        self.address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_seconds: float | None = None
        usec = environ.get("WATCHDOG_USEC", "")
        # the frozen executable is the child of its loader, which is what systemd has started
        ours = {str(os.getpid()), str(os.getppid())}
        if self.address and usec.isdigit() and int(usec) and environ.get("WATCHDOG_PID", str(os.getpid())) in ours:
            self.watchdog_seconds = int(usec) / 2e6

    def ready(self) -> None:
        """Everything is listened on, by this process: that it replaces another one is what MAINPID says."""
        # the frozen executable's loader is what has to be signalled and waited for
        process = os.getppid() if getattr(sys, "frozen", False) else os.getpid()
        self.tell("READY=1", f"MAINPID={process}")

    def resign(self) -> None:
        """Another process speaks for the service from now on."""
        self.address = ""
        self.watchdog_seconds = None

    def tell(self, *lines: str) -> None:
        """Assignments such as ``READY=1``; that nobody listens is no reason to fail."""
        if not self.address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self.address)
        except OSError:
            pass
