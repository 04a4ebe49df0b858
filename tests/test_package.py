"""The Debian package in a minimal Debian: installs, starts, is upgraded under load without a lost write, goes away.

``TQDB_DEBIAN_ROOT`` names a root directory made by debootstrap, ``TQDB_DEB`` and ``TQDB_DEB_NEWER`` two packages
(``make test-package`` has all of them). systemd does not run in there: a script plays its part for one unit.
"""

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import psycopg
import pytest

from tests.roots import chrooted, kernels_files
from tests.wait import wait_for
from tqdb.load.servers import free_port

SYSTEMCTL = """#!/bin/sh
# the unit's ExecStart as its user; SIGTERM and waiting; a signal to the main process; what was asked for
echo "$*" >>/var/log/systemctl
alive() { [ -f /run/tqdb.pid ] && kill -0 "$(cat /run/tqdb.pid)" 2>/dev/null; }
start() {
    command=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/tqdb.service)
    export NOTIFY_SOCKET=/run/tqdb-notify
    setpriv --reuid tqdb --regid tqdb --clear-groups $command >>/var/log/tqdb 2>&1 </dev/null &
    echo $! >/run/tqdb.pid
}
stop() { alive || return 0; kill -TERM "$(cat /run/tqdb.pid)"; while alive; do sleep 0.05; done; }
case "$*" in
*is-active*) alive ;;
*restart*) stop; start ;;
*"kill --kill-who=main --signal=SIGUSR2 tqdb.service"*) kill -USR2 "$(cat /run/tqdb.pid)" ;;
*"disable --now"*) stop ;;
*"start tqdb.service"*) start ;;
esac
"""


@pytest.fixture
def debian(postgres):
    root = Path(os.environ.get("TQDB_DEBIAN_ROOT", ""))
    if not os.environ.get("TQDB_DEBIAN_ROOT") or os.geteuid() != 0:
        pytest.skip("TQDB_DEBIAN_ROOT names no root directory (make test-package)")

    def inside(*command: str) -> str:
        done = subprocess.run(chrooted(root, *command), capture_output=True, text=True, timeout=300,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    inside.root = root
    (root / "usr/bin/systemctl").write_text(SYSTEMCTL)
    (root / "usr/bin/systemctl").chmod(0o755)
    (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    (root / "run/tqdb-notify").unlink(missing_ok=True)
    told.bind(str(root / "run/tqdb-notify"))
    (root / "run/tqdb-notify").chmod(0o777)

    def follow_main_process() -> None:
        """What systemd does with MAINPID=; the last message is empty."""
        while message := told.recv(1000).decode():
            for line in message.splitlines():
                if line.startswith("MAINPID="):
                    (root / "run/tqdb.pid").write_text(line.removeprefix("MAINPID="))

    follower = threading.Thread(target=follow_main_process)
    follower.start()
    try:
        with kernels_files(root):
            try:
                yield inside
            finally:
                with contextlib.suppress(AssertionError):
                    inside("systemctl", "disable", "--now")
                subprocess.run(chrooted(root, "dpkg", "-P", "tqdb"), capture_output=True)
    finally:
        told.shutdown(socket.SHUT_RD)
        follower.join()
        told.close()


WRITES_IN_A_VISIT = 10


class Writer(threading.Thread):
    """Comes, writes some numbers of its own and goes, again and again; remembers which were acknowledged."""

    def __init__(self, dsn: str, table: str, first: int):
        super().__init__(daemon=True)
        self.dsn, self.table, self.next = dsn, table, first
        self.acknowledged: set[int] = set()
        self.errors: list[str] = []
        self.stopped = False

    def run(self):
        while not self.stopped:
            try:
                with psycopg.connect(self.dsn, autocommit=True) as connection:
                    for _ in range(WRITES_IN_A_VISIT):
                        self.next += 1
                        connection.execute(f"/* max_wait_ms=5 */ INSERT INTO {self.table} VALUES ({self.next})")
                        self.acknowledged.add(self.next)
            except psycopg.Error as e:
                self.errors.append(str(e))
                time.sleep(0.02)


def test_install_upgrade_remove(debian, postgres, pg, table):
    root, port = debian.root, free_port()
    for name in ("TQDB_DEB", "TQDB_DEB_NEWER"):
        package = Path(os.environ[name])
        (root / "tmp" / package.name).write_bytes(package.read_bytes())
    old, new = (f"/tmp/{Path(os.environ[name]).name}" for name in ("TQDB_DEB", "TQDB_DEB_NEWER"))

    debian("dpkg", "-i", old)
    assert debian("tqdb", "--version").startswith("tqdb ")
    assert debian("getent", "passwd", "tqdb").endswith(":/usr/sbin/nologin\n")
    wait_for(lambda: " ready " in (root / "var/log/tqdb").read_text())
    asked = (root / "var/log/systemctl").read_text()
    assert "enable tqdb.service" in asked and "start tqdb.service" in asked

    # an operator's configuration, which an upgrade must leave alone
    ini = root / "etc/tqdb/tqdb.ini"
    ini.write_text(f"[postgres]\nlisten = 127.0.0.1:{port}\n[postgres.main]\nprimary = {postgres.address}\n")
    debian("systemctl", "restart")
    wait_for(lambda: f"ready postgres=127.0.0.1:{port}" in (root / "var/log/tqdb").read_text())
    pg(through=False).execute(f"CREATE TABLE {table} (a bigint PRIMARY KEY)")
    writers = [Writer(postgres.dsn(port), table, n * 10**9) for n in range(8)]
    for writer in writers:
        writer.start()
    wait_for(lambda: all(len(w.acknowledged) > 50 for w in writers))
    debian("dpkg", "-i", new)
    wait_for(lambda: "took over from process" in (root / "var/log/tqdb").read_text())
    before = [len(w.acknowledged) for w in writers]
    wait_for(lambda: all(len(w.acknowledged) > n + 50 for w, n in zip(writers, before, strict=True)))
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join(30)
    kept = {a for a, in pg(through=False).execute(f"SELECT a FROM {table}").fetchall()}
    acknowledged = set().union(*(w.acknowledged for w in writers))
    assert acknowledged == kept
    assert not [e for w in writers for e in w.errors]
    wait_for(lambda: (root / "var/log/tqdb").read_text().endswith("drained\n"))
    assert f":{port}" in ini.read_text()

    debian("dpkg", "-r", "tqdb")
    assert ini.exists() and not (root / "usr/bin/tqdb").exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.dsn(port))
    debian("dpkg", "-P", "tqdb")
    assert not (root / "etc/tqdb").exists()
