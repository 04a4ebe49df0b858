"""How a running proxy gives way: it starts the one that takes its place, and serves on what is connected to it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from logging import ERROR, INFO, WARNING

from tqdb.log import event

STEP_SECONDS = 0.2          # between looks whether a successor still runs, or the last session has left


def successors_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, as somebody else would have started it."""
    found = {key: value for key, value in environ.items() if key != "WATCHDOG_PID"}
    if getattr(sys, "frozen", False):
        # the executable's loader would take what its predecessor has unpacked for its own
        found["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
        found.pop("LD_LIBRARY_PATH", None)
        if "LD_LIBRARY_PATH_ORIG" in found:
            found["LD_LIBRARY_PATH"] = found.pop("LD_LIBRARY_PATH_ORIG")
    return found


class Succession:
    """Of a ``server.Server``. ``command`` starts a successor; None: this one starts none."""

    def __init__(self, server, command: list[str] | None):
        self.server = server
        self.command = command
        self.process: subprocess.Popen | None = None    # started, and about to take over
        self.happened = False                           # another process accepts in this one's place

    def start(self) -> None:
        """Starts this program again, as it is on disk now, to take over. Until it accepts, nothing changes."""
        if self.server.draining_until is not None or self.happened or self.command is None:
            return
        if self.process is not None:
            event(WARNING, "successor_exists", f"process {self.process.pid} is about to take over already",
                  process=self.process.pid)
            return
        if os.getpid() == 1:
            event(ERROR, "successor_failed", "process 1 cannot be replaced: everything ends with it")
            return
        try:
            self.process = subprocess.Popen(self.command, env=successors_environment(os.environ),
                                            stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError as e:
            event(ERROR, "successor_failed", f"cannot start {self.command[0]}: {e.strerror}", error=e.strerror)
            return
        event(INFO, "successor_started", f"started process {self.process.pid} to take over: "
              + " ".join(self.command), process=self.process.pid)
        self._watch()

    def _watch(self) -> None:
        code = self.process.poll()
        if self.happened or code is None:
            if not self.happened:
                self.server.loop.call_later(STEP_SECONDS, self._watch)
            return
        event(ERROR, "successor_failed", f"process {self.process.pid} has ended with {code} and not taken over; "
              "this one goes on", process=self.process.pid, code=code)
        self.process = None

    def replaced(self, process: int, addresses: list[str]) -> None:
        """A successor accepts on ``addresses``. What is connected here is served on, and told nothing.

        After ``drain_timeout`` those that are left are drained as after SIGTERM.
        """
        server = self.server
        limit = server.config.limits.drain_timeout
        event(INFO, "replaced", f"process {process} has taken over; {len(server.sessions)} sessions are served on, up "
              f"to {limit:g} s", process=process, sessions=len(server.sessions), seconds=limit)
        self.happened = True
        server.notifier.resign()
        server.stop_listening(addresses)
        if server.http is not None:
            server.http.retire()
        server.loop.call_later(limit, lambda: server.draining_until is None and server.shut_down())
        server.loop.call_later(STEP_SECONDS, self._leave_step)

    def _leave_step(self) -> None:
        server = self.server
        if server.draining_until is not None:
            return
        if server.sessions or (server.http is not None and server.http.is_answering()):
            server.loop.call_later(STEP_SECONDS, self._leave_step)
        else:
            event(INFO, "drained", "drained")
            server.loop.stop()
