"""Two proxies before two of three Galera nodes that come, go, crash and are cut off (``make test-cluster``)."""

import os
import signal
from collections import Counter
from types import SimpleNamespace

import pymysql
import pytest

from tests.cluster.nodes import SETTLES, Cluster, missing
from tests.cluster.writers import HINT, CounterWriter, IdWriter, LedgerClient, PreparedIdWriter
from tests.crowd import together
from tests.ledger.book import Book, account
from tests.wait import wait_for
from tests.wire import my, my_query, my_split
from tqdb.load.rivals import HAProxy

pytestmark = pytest.mark.skipif("TQDB_CLUSTER" not in os.environ, reason="make test-cluster runs it")

EACH = 10           # writers of a kind before each proxy
PREPARED = 3
HOT_TOO = 4         # writers before each proxy that add to counters while nodes crash
ROUND = 15          # writes of each writer between one event and the next
TOLD = 400          # answers of a proxy's clients between one event and the next
HOT = 100           # increments of each writer, direct and again through the proxies
QUOTA = 1_000_000   # keys a client may write, which is more than it can
DEADLOCK = 1213
NOT_READY = 1047


@pytest.fixture(scope="module")
def cluster():
    assert not missing(), f"scripts/ensure-system cluster installs what is missing: {missing()}"
    cluster = Cluster()
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def proxies(cluster, start_proxy):
    """Before the first and the second node, which are members like the third."""
    cluster.whole()
    return [start_proxy(mariadb=node) for node in cluster.nodes[:2]]


def ended(threads) -> None:
    for thread in threads:
        thread.stopped.set()
    for thread in threads:
        thread.join(SETTLES)
        assert not thread.is_alive(), "a client never got its answer"


def progress(writers, count: int) -> None:
    """Returns once each of the writers has had ``count`` more writes acknowledged."""
    goals = [(w, w.done + count) for w in writers]

    def lag() -> list[str]:
        return [w.label for w, goal in goals if w.done < goal]

    def reached() -> bool:
        for w in writers:
            assert w.failure is None, repr(w.failure)
        return not lag()
    wait_for(reached, SETTLES, lambda: f"{count} writes of {lag()}")


def totals(writers) -> Counter:
    return sum((w.errors for w in writers), Counter())


def test_ids_while_a_node_comes_and_goes(cluster, proxies):
    """The number of nodes is the step between ids, which changes under the writers, for old sessions and new ones."""
    first, second, third = cluster.nodes
    first.ask("CREATE TABLE d.ids (id bigint AUTO_INCREMENT PRIMARY KEY, tag varchar(40) NOT NULL UNIQUE)")
    writers = []
    for i, (node, proxy) in enumerate(zip((first, second), proxies, strict=True)):
        def through(node=node, proxy=proxy):
            return node.connect(proxy.mariadb_port, database="d")
        writers += [IdWriter(through, f"{i}-{k}", "d.ids") for k in range(EACH)]
        writers += [PreparedIdWriter(lambda proxy=proxy: proxy.mariadb_port, f"{i}-p{k}", "d.ids")
                    for k in range(PREPARED)]
    for w in writers:
        w.start()
    try:
        progress(writers, ROUND)
        for goes in (third.leave, third.kill):
            goes()
            first.sees(2)
            progress(writers, ROUND)
            third.join()
            first.sees(3)
            progress(writers, ROUND)
    finally:
        ended(writers)
    print(f"{sum(w.done for w in writers)} writes, {[p.batched() for p in proxies]} batched, errors {totals(writers)}")
    stored = dict(first.read("SELECT tag, id FROM d.ids"))
    wrong = [(*claim, stored.get(claim[0])) for w in writers for claim in w.claims if stored.get(claim[0]) != claim[1]]
    assert not wrong, f"{len(wrong)} of {sum(len(w.claims) for w in writers)}: {wrong[:5]} (tag, told, by what, is)"
    assert not [tag for w in writers for tag in w.gone if tag in stored]
    # two nodes that do not yet agree on the number of nodes may give the same id: so it is without a proxy
    assert totals(writers).keys() <= {DEADLOCK}, totals(writers)
    assert sum(proxy.batched() for proxy in proxies) > sum(w.done for w in writers) / 2


class Ledger:
    """Clients of the ledger before two ports, and a table that takes a key twice, so that it shows."""

    def __init__(self, node, table: str, ports: list[int], each: int):
        self.node, self.table = node, f"d.{table}"
        node.ask(f"CREATE TABLE {self.table} (id bigint AUTO_INCREMENT PRIMARY KEY, k bigint NOT NULL,"
                 " v bigint NOT NULL CHECK (v >= 0))")
        self.groups = []
        for i, port in enumerate(ports):
            self.groups.append([LedgerClient(lambda port=port: port, self.table, (i * each + k) * QUOTA, QUOTA, k)
                                for k in range(each)])
        self.clients = [client for group in self.groups for client in group]
        for client in self.clients:
            client.connector = node.connect
            client.start()

    def acknowledged(self, *groups: int) -> None:
        """Returns once clients of each of the groups have been told of so many more successes."""
        for i in groups:
            goal = self.count(i) + TOLD
            wait_for(lambda i=i, goal=goal: self.count(i) >= goal, SETTLES, f"{TOLD} writes of group {i}")

    def count(self, group: int) -> int:
        return sum(len(client.book.acknowledged) for client in self.groups[group])

    def words(self, group: int) -> Counter:
        return sum((client.book.words for client in self.groups[group]), Counter())

    def right(self, cluster) -> None:
        """Every write is accounted for, on every node alike."""
        assert not any(client.stuck for client in self.clients), "a client waited for an answer for ever"
        book = Book()
        for client in self.clients:
            book.add(client.book)
        stored = [sorted(k for k, in node.read(f"SELECT k FROM {self.table}")) for node in cluster.nodes]
        assert stored[0] == stored[1] == stored[2]
        tally = account(book, stored[0])
        print(f"{self.table}: {tally}; errors {[dict(self.words(i)) for i in range(len(self.groups))]}")
        assert tally.wrong == 0, (tally, book.odd[:5])


def counters(cluster, table: str, ports: list[int], each: int, hint: str) -> list[CounterWriter]:
    """A table of counters, and so many writers before each port that have begun to add to them."""
    node = cluster.nodes[0]
    node.ask(f"CREATE TABLE d.{table} (id int PRIMARY KEY, n int NOT NULL)",
             f"INSERT INTO d.{table} VALUES {', '.join(f'({i}, 0)' for i in range(CounterWriter.ROWS))}")
    for other in cluster.nodes:
        assert len(other.read(f"SELECT id FROM d.{table}")) == CounterWriter.ROWS
    writers = [CounterWriter(lambda port=port: node.connect(port, database="d"), f"{i}-{k}", f"d.{table}", hint)
               for i, port in enumerate(ports) for k in range(each)]
    for w in writers:
        w.start()
    return writers


def sums_are_right(cluster, table: str, writers) -> None:
    """On every node: what was acknowledged, and of what nobody can know no more than was tried."""
    assert [w.failure for w in writers if w.failure] == []
    added, unknown = (sum((getattr(w, name) for w in writers), Counter()) for name in ("added", "unknown"))
    print(f"{table}: {sum(w.number for w in writers)} tried, {sum(added.values())} acknowledged, "
          f"{sum(unknown.values())} unknown, errors {dict(totals(writers))}")
    for node in cluster.nodes:
        for row, n in node.read(f"SELECT id, n FROM d.{table}"):
            assert added[row] <= n <= added[row] + unknown[row], (row, n, added[row], unknown[row])


def test_nodes_that_crash_under_load(cluster, proxies):
    """What was acknowledged is there once, also when the node that acknowledged it is gone a moment later."""
    first, second, _ = cluster.nodes
    ports = [proxy.mariadb_port for proxy in proxies]
    ledger = Ledger(first, "crashes", ports, EACH)
    adding = counters(cluster, "sums", ports, HOT_TOO, HINT)
    try:
        progress(adding, ROUND)
        ledger.acknowledged(0, 1)
        second.kill()
        ledger.acknowledged(0)
        second.join()
        ledger.acknowledged(0, 1)
        first.kill()
        ledger.acknowledged(1)
        first.join()
        ledger.acknowledged(0, 1)
        progress(adding, ROUND)
    finally:
        ended([*ledger.clients, *adding])
    cluster.whole()
    ledger.right(cluster)
    sums_are_right(cluster, "sums", adding)
    assert all(proxy.batched() > TOLD for proxy in proxies)


def test_a_node_that_is_cut_off_under_load(cluster, proxies):
    """Its clients, through the proxy and direct, are refused or told nothing; what they were told holds."""
    first, second, _ = cluster.nodes
    ledger = Ledger(first, "cut", [proxies[0].mariadb_port, proxies[1].mariadb_port, second.port], EACH)
    try:
        ledger.acknowledged(0, 1, 2)
        second.isolate(True)
        second.cut_off()
        ledger.acknowledged(0)
        second.isolate(False)
        cluster.whole()
        ledger.acknowledged(0, 1, 2)
    finally:
        ended(ledger.clients)
    ledger.right(cluster)
    assert NOT_READY in ledger.words(1) and NOT_READY in ledger.words(2)


USED = "SELECT COUNT(*) > 0 FROM information_schema.PROCESSLIST WHERE DB = 'd'"
MONITORED = "target = read-write\nmonitor_user = root\n"


def listed(cluster) -> SimpleNamespace:
    """One backend of all nodes."""
    return SimpleNamespace(address=", ".join(node.address for node in cluster.nodes))


def serving(proxy) -> list[str]:
    """Addresses of the servers that may serve, in their order."""
    return [b["address"] for b in proxy.stats()["backends"] if b["serves"] and b["role"] == "primary"]


def test_a_proxy_that_knows_all_nodes(cluster, start_proxy):
    """The node that it writes to is killed, comes back, and is cut off: nobody edits a file."""
    cluster.whole()
    first = cluster.nodes[0]
    proxy = start_proxy(mariadb=listed(cluster), config=MONITORED)
    everywhere = [node.address for node in cluster.nodes]
    wait_for(lambda: serving(proxy) == everywhere, SETTLES)
    ledger = Ledger(first, "listed", [proxy.mariadb_port], EACH)
    try:
        ledger.acknowledged(0)
        assert first.ask(USED) == [(1,)]
        first.kill()
        ledger.acknowledged(0)
        first.join()
        wait_for(lambda: serving(proxy) == everywhere, SETTLES)
        proxy.tell(signal.SIGUSR1)              # back to the first
        wait_for(lambda: first.ask(USED) == [(1,)], SETTLES)
        ledger.acknowledged(0)
        first.isolate(True)
        first.cut_off()
        wait_for(lambda: serving(proxy) == everywhere[1:], SETTLES)
        ledger.acknowledged(0)
        wait_for(lambda: proxy.stats()["backends"][1]["galera"] == "Synced, 2 nodes", SETTLES)
        assert "not of the primary component" in proxy.stats()["backends"][0]["galera"]
    finally:
        if first.alive:
            first.isolate(False)
        ended(ledger.clients)
    cluster.whole()
    ledger.right(cluster)
    assert proxy.batched() > TOLD


def test_what_sessions_meet_of_a_node_that_is_not_ready(cluster, start_proxy):
    """Without a monitor: the first 1047 tells, and who comes then comes to the next node."""
    cluster.whole()
    first, second, _ = cluster.nodes
    proxy = start_proxy(mariadb=listed(cluster))

    def port() -> int | None:
        connection = second.connect(proxy.mariadb_port)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@port")         # a node that is not ready answers this
                found = cursor.fetchone()[0]
                cursor.execute("SELECT COUNT(*) FROM mysql.user")
                return found
        except pymysql.err.OperationalError as e:
            assert e.args[0] == NOT_READY, e
            return None
        finally:
            connection.close()

    assert port() == first.port
    first.isolate(True)
    try:
        first.cut_off()
        assert port() is None
        assert port() == second.port
        assert proxy.stats()["backends"][0]["role"] == "not ready"
    finally:
        first.isolate(False)
        cluster.whole()
    wait_for(lambda: port() == first.port, SETTLES)


def test_nodes_behind_haproxy(cluster, start_proxy):
    """Sessions behind one address are on three nodes: a batch stays on one, and what is told is right when one dies."""
    cluster.whole()
    first, second, _ = cluster.nodes
    balancer = HAProxy(SimpleNamespace(user="root", password="", connect=lambda port: first.connect(port)))
    balancer.servers = "  balance roundrobin\n" + "\n".join(
        f"  server n{i} {node.address} check inter 500 on-marked-down shutdown-sessions"
        for i, node in enumerate(cluster.nodes))
    with balancer:
        proxy = start_proxy(mariadb=balancer.start())
        ledger = Ledger(first, "balanced", [proxy.mariadb_port], 2 * EACH)
        try:
            ledger.acknowledged(0)
            second.kill()
            ledger.acknowledged(0)
        finally:
            ended(ledger.clients)
        cluster.whole()
        ledger.right(cluster)
        assert proxy.batched() > TOLD


def test_hot_rows_on_two_nodes(cluster, proxies):
    """Sums are what was acknowledged. Galera tells a write that lost against another node's 1213, single or not."""
    share = {}
    for table, ports, hint in (("hot_direct", [node.port for node in cluster.nodes[:2]], ""),
                               ("hot_through", [proxy.mariadb_port for proxy in proxies], HINT)):
        writers = counters(cluster, table, ports, EACH, hint)
        try:
            progress(writers, HOT)
        finally:
            ended(writers)
        sums_are_right(cluster, table, writers)
        assert not any(w.unknown for w in writers)
        assert totals(writers).keys() <= {DEADLOCK}
        share[table] = totals(writers)[DEADLOCK] / sum(w.number for w in writers)
    # a batch that loses is tried again, and each write's own statement is told what it meets
    assert 0 < share["hot_direct"] >= share["hot_through"], share
    assert all(proxy.batched() > HOT for proxy in proxies)


def first_packet(connection, data: bytes) -> bytes:
    """Of the answer; an error has no more."""
    connection._sock.sendall(data)
    received = b""
    while not my_split(received)[0]:
        more = connection._sock.recv(65536)
        assert more, "closed"
        received += more
    return my_split(received)[0][0][1]


def test_a_node_that_is_not_ready_says_so_itself(cluster, proxies):
    """Byte for byte what it says to a direct client, to writes that are known and to such as never came before."""
    _, second, _ = cluster.nodes
    second.ask("CREATE TABLE d.known (id bigint AUTO_INCREMENT PRIMARY KEY, v int)",
               "CREATE TABLE d.other (id bigint AUTO_INCREMENT PRIMARY KEY, v int)")
    insert = f"{HINT}INSERT INTO d.known (v) VALUES (1)"
    writes = [insert, f"{HINT}UPDATE d.known SET v = v + 1 WHERE id = 1", f"{HINT}DELETE FROM d.known WHERE id = 1",
              f"{HINT}INSERT INTO d.other (v) VALUES (2)", "INSERT INTO d.known (v) VALUES (3)",
              "SELECT v FROM d.known"]
    through = [second.connect(proxies[1].mariadb_port, database="d") for _ in range(EACH)]
    direct = second.connect(database="d")
    execute = {}
    for connection in (direct, *through):
        prepared = first_packet(connection, my(0, b"\x16" + insert.encode()))
        assert prepared[:1] == b"\0"
        execute[connection] = my(0, b"\x17" + prepared[1:5] + b"\0\1\0\0\0")

    def everything(connection) -> list[bytes]:
        return [first_packet(connection, data) for data in [*map(my_query, writes), execute[connection]]]

    written = 0

    def batches() -> bool:
        """Whether writes of all sessions at once have shared a batch."""
        nonlocal written
        before = proxies[1].batched()
        together(EACH, lambda k: through[k].query(insert))
        written += EACH
        return proxies[1].batched() > before

    wait_for(batches, what="a batch")
    batched = proxies[1].batched()
    second.isolate(True)
    try:
        second.cut_off()
        expected = everything(direct)
        assert {int.from_bytes(p[1:3], "little") for p in expected if p[:1] == b"\xff"} == {NOT_READY}, expected
        assert len(expected) == sum(p[:1] == b"\xff" for p in expected)
        assert together(EACH, lambda k: everything(through[k])) == [expected] * EACH
        assert proxies[1].batched() == batched
    finally:
        second.isolate(False)
        cluster.whole()
    wait_for(batches, what="a batch after the node has come back")
    assert len(second.read("SELECT id FROM d.known")) == written
    for connection in (direct, *through):
        connection.close()
