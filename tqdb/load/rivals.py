"""What people put before their database today, for comparison where it is installed."""

import os
import subprocess
from pathlib import Path

from tqdb.load.servers import ThrowawayServer, which
from tqdb.load.targets import Target


class Rival(ThrowawayServer):
    """A pooler or balancer before ``target``; use ``available`` before making one."""

    program_name = ""
    protocols: tuple[str, ...] = ()

    def __init__(self, target: Target):
        self.name = self.program_name
        super().__init__()
        self.target = target
        self.program = which(self.program_name)

    @classmethod
    def available(cls, protocol: str) -> bool:
        return protocol in cls.protocols and which(cls.program_name) is not None

    def _write(self, name: str, text: str) -> str:
        path = os.path.join(self.directory, name)
        Path(path).write_text(text)
        return path

    def _answers(self) -> bool:
        try:
            self.target.connect(self.port).close()
        except Exception:
            return False
        return True


class PgBouncer(Rival):
    """Session mode: what a session is stays what it is, as through tqdb."""

    program_name = "pgbouncer"
    protocols = ("postgres",)
    pool_mode = "session"
    pool_size = 1050

    def _launch(self) -> None:
        users = self._write("users.txt", f'"{self.target.user}" "{self.target.password}"\n')
        self._spawn(self.program, "-q", self._write("pgbouncer.ini", (
            f"[databases]\n* = host={self.target.host} port={self.target.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {self.pool_mode}\n"
            f"max_client_conn = 2000\ndefault_pool_size = {self.pool_size}\nlogfile =\npidfile =\n"
            f"ignore_startup_parameters = extra_float_digits,options\n")))


class HAProxy(Rival):
    """A TCP proxy that knows no protocol: the price of a hop."""

    program_name = "haproxy"
    protocols = ("postgres", "mariadb")
    servers = ""            # lines of its backend; by default the target

    def _launch(self) -> None:
        self._spawn(self.program, "-f", self._write("haproxy.cfg", (
            "global\n  maxconn 4000\n  nbthread 1\n"
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
            f"frontend f\n  bind 127.0.0.1:{self.port}\n  default_backend b\n"
            f"backend b\n{self.servers or f'  server s {self.target.address}'}\n")))


class ProxySQL(Rival):
    """Multiplexing as it comes."""

    program_name = "proxysql"
    protocols = ("mariadb",)

    def _launch(self) -> None:
        t = self.target
        self._spawn(self.program, "-f", "-c", self._write("proxysql.cnf", (
            f'datadir="{self.directory}"\n'
            f'admin_variables={{ mysql_ifaces="{self.directory}/admin.sock" }}\n'
            f'mysql_variables={{ threads=1 max_connections=2000 interfaces="127.0.0.1:{self.port}" '
            f'monitor_enabled=false default_charset="utf8mb4" }}\n'
            f'mysql_servers=( {{ address="{t.host}" port={t.port} hostgroup=0 max_connections=1050 }} )\n'
            f'mysql_users=( {{ username="{t.user}" password="{t.password}" default_hostgroup=0 }} )\n')),
            "-D", self.directory)


RIVALS = (PgBouncer, HAProxy, ProxySQL)


def versions() -> dict[str, str]:
    """Of those that are installed, as they tell it."""
    found = {}
    for rival in RIVALS:
        program = which(rival.program_name)
        if program:
            flag = "-v" if rival is HAProxy else "--version"
            done = subprocess.run([program, flag], capture_output=True, text=True)
            found[rival.program_name] = (done.stdout or done.stderr).strip().splitlines()[0]
    return found
