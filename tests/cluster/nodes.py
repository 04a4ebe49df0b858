"""MariaDB servers as nodes of one Galera cluster, each on ports of its own of 127.0.0.1.

States and status variables: https://galeracluster.com/documentation/html_docs/Documentation/node-states.html.
"""

import os
import shutil
import signal
from pathlib import Path

import pymysql

from tests.throwaway import AskedMariaDB, crash
from tests.wait import wait_for
from tqdb.load.servers import free_port, which

PROVIDERS = ("/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so",
             "/usr/lib64/galera/libgalera_smm.so")
# where scripts/ensure-system unpacks the package whose installation would start a service
UNPACKED = Path(__file__).parents[2] / "build/mariadb-server/usr/bin"
SCRIPTS = ("wsrep_sst_rsync", "wsrep_sst_common")
SETTLES = 120       # seconds for a node to come, to go, or to be found missing

# A node that says nothing is given up after seconds, not after a quarter of a minute: a crash is what is tested, and
# its peers' commits wait that long. The write-set cache is small; what it has lost costs a whole copy (rsync).
PROVIDER = {"evs.keepalive_period": "PT0.5S", "evs.suspect_timeout": "PT3S", "evs.inactive_timeout": "PT8S",
            "gcache.size": "32M"}
SETTINGS = {"wsrep_on": "ON", "binlog_format": "ROW", "innodb_autoinc_lock_mode": "2", "wsrep_sst_method": "rsync",
            "wsrep_cluster_name": "tqdb", "wsrep_node_address": "127.0.0.1",
            # what is killed loses nothing that it handed to the system
            "innodb_flush_log_at_trx_commit": "2"}


def missing() -> str:
    """What a cluster needs and is not here; empty if all is."""
    found = {"galera-4": any(map(os.path.exists, PROVIDERS)), "rsync": which("rsync"),
             "wsrep_sst_rsync": which("wsrep_sst_rsync", str(UNPACKED))}
    return ", ".join(name for name, path in found.items() if not path)


class Node(AskedMariaDB):
    """A node; ``peers`` are all nodes of its cluster, itself among them."""

    def __init__(self, peers: list["Node"]):
        self.peers = peers
        self.gcomm, self.ist, self.sst = free_port(), free_port(), free_port()
        super().__init__(**SETTINGS)
        # the server's account may not read the checkout
        scripts = Path(self.directory, "bin")
        scripts.mkdir()
        for name in SCRIPTS:
            shutil.copy(which(name, str(UNPACKED)), scripts)
            (scripts / name).chmod(0o755)
        self.environment["PATH"] = f"{scripts}:{os.environ['PATH']}:/usr/sbin:/sbin"
        provider = PROVIDER | {"gmcast.listen_addr": f"tcp://127.0.0.1:{self.gcomm}",
                               "ist.recv_addr": f"127.0.0.1:{self.ist}"}
        self.settings |= {
            "wsrep_provider": next(filter(os.path.exists, PROVIDERS)),
            "wsrep_provider_options": ";".join(f"{k}={v}" for k, v in provider.items()),
            "wsrep_node_name": f"node{self.port}", "wsrep_sst_receive_address": f"127.0.0.1:{self.sst}"}

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def bootstrap(self) -> None:
        """The first node of a new cluster."""
        self.settings["wsrep_cluster_address"] = "gcomm://"
        self.start()
        self.synced()

    def join(self) -> None:
        """Becomes a member, with the missing write sets or a whole copy; returns once it takes writes."""
        others = ",".join(f"127.0.0.1:{node.gcomm}" for node in self.peers if node is not self)
        self.settings["wsrep_cluster_address"] = f"gcomm://{others}"
        self.start()
        self.synced()

    def stands_at(self, cluster: str, position: str) -> None:
        """Before its first start: that its data are those of ``cluster`` at ``position``, so that nothing is copied."""
        state = Path(self.data, "grastate.dat")
        state.write_text(f"# GALERA saved state\nversion: 2.1\nuuid: {cluster}\nseqno: {position}\n"
                         "safe_to_bootstrap: 0\n")
        if self.account is not None:
            os.chown(state, self.account.pw_uid, self.account.pw_gid)

    def leave(self) -> None:
        """An orderly end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """A crash. The scripts and copies it has started go with it."""
        crash(self, super().kill)

    def stop(self) -> None:
        self.kill()
        super().stop()

    def status(self) -> dict[str, str]:
        return dict(self.ask("SHOW STATUS LIKE 'wsrep\\_%'"))

    def read(self, sql: str) -> list[tuple]:
        """Rows, with all that any node has committed before."""
        return self.ask("SET SESSION wsrep_sync_wait = 1", sql)

    def isolate(self, on: bool) -> None:
        """Cuts its network, or mends it."""
        self.ask(f"SET GLOBAL wsrep_provider_options = 'gmcast.isolate={int(on)}'")

    def synced(self) -> None:
        self._settles("to take writes", lambda s: s["wsrep_ready"] == "ON" and
                      s["wsrep_local_state_comment"] == "Synced")

    def sees(self, members: int) -> None:
        """Returns once the node is one of so many, and they are the cluster."""
        self._settles(f"to see {members} members", lambda s: s["wsrep_cluster_size"] == str(members) and
                      s["wsrep_cluster_status"] == "Primary")

    def cut_off(self) -> None:
        """Returns once the node knows that it is not of the cluster."""
        self._settles("to be cut off", lambda s: s["wsrep_cluster_status"] != "Primary" and s["wsrep_ready"] == "OFF")

    def _settles(self, what: str, condition) -> None:
        def reached() -> bool:
            assert self.alive, f"node {self.port} ended:\n{self.tail(40)}"
            try:
                return condition(self.status())
            except pymysql.OperationalError:
                return False            # it refuses connections while it changes state
        wait_for(reached, SETTLES, lambda: f"node {self.port} was {what}:\n{self.tail(40)}\nwhich")


class Cluster:
    """Three nodes with a database ``d``."""

    def __init__(self):
        self.nodes: list[Node] = []
        for _ in range(3):
            self.nodes.append(Node(self.nodes))

    def start(self) -> "Cluster":
        first, *others = self.nodes
        first.bootstrap()
        for node in others:
            # all three have just been made in the same way, and nothing has been written since
            status = first.status()
            node.stands_at(status["wsrep_cluster_state_uuid"], status["wsrep_last_committed"])
            node.join()
        self.whole()
        first.ask("CREATE DATABASE d")
        return self

    def whole(self) -> None:
        """Returns once all nodes are members that take writes; those that are down come back."""
        for node in self.nodes:
            if not node.alive:
                node.join()
        for node in self.nodes:
            node.sees(len(self.nodes))
            node.synced()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
