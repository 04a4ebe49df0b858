"""A proxy takes over from another and nobody is refused: ``tests.rolling`` in short, and what else may happen."""

import os
import pwd
import re
import signal
import socket
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.raw import RawPostgres
from tests.rolling import KINDS, Play
from tests.wait import wait_for
from tqdb.handover import Meetings, Taken
from tqdb.listening import identity
from tqdb.load.servers import free_port
from tqdb.loop import Loop


@pytest.mark.parametrize("protocol", KINDS)
def test_nobody_is_refused_and_no_write_fails(protocol):
    with Play(protocol) as play:
        play.load()
        for n in range(3):
            play.replace(by_signal=n == 1)
        play.stop_load()
        play.old_ones_end()
        writes, connections, exact = play.account()
        assert exact and writes and connections
        assert not play.errors()
        assert len(play.events("replaced")) == 3


def test_the_rounds_see_what_a_restart_does():
    with Play("postgres") as play:
        play.load()
        play.restart()
        play.stop_load()
        assert any("Connection refused" in error for error in play.errors()), play.errors()


@pytest.fixture
def replace(command):
    """``replace(proxy)`` starts one that takes its place, and answers its process and its log so far."""
    started = []

    def start(proxy, *prefix: str) -> tuple[subprocess.Popen, str]:
        process = subprocess.Popen([*prefix, *proxy.command, "--replace"], stderr=subprocess.PIPE, text=True)
        started.append(process)
        log = ""
        for line in process.stderr:
            log += line
            if " ready " in line:
                break
        return process, log

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        process.stderr.close()


def test_sessions_are_served_on_and_then_drained(start_proxy, postgres, replace):
    """Up to ``drain_timeout`` nothing is told to them; then those that are idle are closed as by a server."""
    proxy = start_proxy(postgres=postgres, config="[limits]\ndrain_timeout = 1.5\n")
    idle, busy = RawPostgres(proxy.postgres_port), RawPostgres(proxy.postgres_port)
    assert busy.query("BEGIN")
    replace(proxy)
    wait_for(lambda: "has taken over; 2 sessions" in proxy.log(), what=proxy.log)
    assert proxy.process.poll() is None
    assert idle.query("SELECT 1") and busy.query("SELECT 1")
    assert b"57P01" in idle.sock.recv(1000)
    assert busy.query("SELECT 1") and busy.query("COMMIT")
    assert proxy.process.wait(20) == 0
    assert "second signal" not in proxy.log()


def test_sigterm_drains_one_that_was_replaced(start_proxy, postgres, replace):
    proxy = start_proxy(postgres=postgres, config="[limits]\ndrain_timeout = 600\n")
    session = RawPostgres(proxy.postgres_port)
    replace(proxy)
    wait_for(lambda: "has taken over" in proxy.log())
    session.query("BEGIN")
    proxy.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "draining" in proxy.log())
    assert session.query("COMMIT")
    assert proxy.process.wait(20) == 0


def test_a_successor_that_does_not_start_changes_nothing(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres)
    text = Path(proxy.path).read_text()
    Path(proxy.path).write_text(text + "[nonsense]\n")
    proxy.process.send_signal(signal.SIGUSR2)
    wait_for(lambda: "has ended with 2 and not taken over" in proxy.log(), what=proxy.log)
    assert RawPostgres(proxy.postgres_port).query("SELECT 1")
    assert proxy.stats()
    # and the next one may
    Path(proxy.path).write_text(text)
    proxy.process.send_signal(signal.SIGUSR2)
    assert proxy.process.wait(30) == 0
    assert RawPostgres(proxy.postgres_port).query("SELECT 1")
    started = re.findall(r"started process (\d+)", proxy.log())
    os.kill(int(started[-1]), signal.SIGTERM)
    wait_for(lambda: not Path(proxy.directory, "postgres.sock").exists())


def test_what_the_configuration_no_longer_names_is_closed(start_proxy, postgres, mariadb, replace):
    proxy = start_proxy(postgres=postgres, mariadb=mariadb)
    path, other = Path(proxy.path), free_port()
    sections = path.read_text().split("[mariadb]")
    path.write_text(sections[0].replace(f"127.0.0.1:{proxy.metrics_port}", f"127.0.0.1:{other}"))
    old = RawPostgres(proxy.postgres_port)
    _, log = replace(proxy)
    assert f"metrics=127.0.0.1:{other}" in log and "mariadb" not in log
    wait_for(lambda: "has taken over" in proxy.log())
    for port in (proxy.mariadb_port, proxy.metrics_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
    assert not Path(proxy.directory, "mariadb.sock").exists()
    assert RawPostgres(proxy.postgres_port).query("SELECT 1")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.connect(f"{proxy.directory}/postgres.sock")
    assert old.query("SELECT 1")


def test_replacing_nobody_is_starting(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres, options=("--replace",))
    assert "took over" not in proxy.log()
    assert RawPostgres(proxy.postgres_port).query("SELECT 1")


def test_without_being_told_to_nobody_takes_over(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres)
    done = subprocess.run(proxy.command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "cannot listen" in done.stderr
    assert RawPostgres(proxy.postgres_port).query("SELECT 1")
    assert "taken over" not in proxy.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="a process of another user can be started by root only")
def test_another_users_proxy_gives_nothing():
    """Neither does it give its sockets to another user, nor are a stranger's taken."""
    loop, told = Loop(), []
    listener = socket.create_server(("127.0.0.1", 0))
    meetings = Meetings(loop, lambda process, addresses: told.append(process))
    nobody = pwd.getpwnam("nobody").pw_uid
    os.seteuid(nobody)
    try:
        assert meetings.hold([listener], Taken()) == []
    finally:
        os.seteuid(0)
    try:
        with pytest.raises(Exception, match="belongs to another user"):
            Taken().ask(identity(listener))
    finally:
        meetings.close()
        listener.close()
        loop.close()
    assert not told


def test_a_successor_that_goes_without_a_word(start_proxy, postgres):
    """It has had the sockets; the old one still accepts, and gives them again."""
    proxy = start_proxy(postgres=postgres)
    for _ in range(2):
        taken = Taken()
        taken.ask(f"127.0.0.1:{proxy.postgres_port}")
        assert sorted(taken.listeners) == sorted((
            f"127.0.0.1:{proxy.postgres_port}", f"127.0.0.1:{proxy.metrics_port}",
            f"unix:{proxy.directory}/postgres.sock"))
        for sock in (*taken.givers, *taken.listeners.values(), *taken.meetings.values()):
            sock.close()
    assert RawPostgres(proxy.postgres_port).query("SELECT 1")
    with psycopg.connect(postgres.dsn(proxy.postgres_port)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
