"""In a batch of several shapes no client harms another's: who fails it, is slow or locked leaves the others."""

import threading

import psycopg
import pytest

from tests.crowd import together
from tests.model import talk
from tests.moment import Moment
from tests.raw import RawPostgres

HINT = "/* max_wait_ms:40 */ "
INNOCENTS = 8
STEPS = 20
LONG = "x" * 70             # longer than a name may be: the parser says so in a NOTICE

# What a ninth client does in the beginning, four times. A NOTICE of the parser comes before any statement is run, and
# an answer too long to be kept is nobody's in particular until it is looked at.
HARM = {
    "nothing": "SELECT 1", "notice": f"{HINT}UPDATE {{t}}big SET s = 'y' WHERE id = 2 RETURNING id AS {LONG}",
    "large": f"{HINT}UPDATE {{t}}big SET s = s WHERE id = 1 RETURNING s",
    "slow": f"{HINT}UPDATE {{t}}big SET s = s WHERE id IN (SELECT 2 FROM generate_series(1, 1000000))",
    "bad": f"{HINT}UPDATE {{t}}big SET s = s WHERE id = 1 / 0",
}


@pytest.fixture
def table(postgres):
    name = "harm_"
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        for i in range(INNOCENTS):
            admin.execute(f"CREATE TABLE {name}{i} (id int PRIMARY KEY, v int)")
        admin.execute(f"CREATE TABLE {name}big (id int PRIMARY KEY, s text)")
        admin.execute(f"INSERT INTO {name}big VALUES (1, repeat('x', 9000000)), (2, 'y')")
        yield name
        admin.execute("DROP TABLE " + ", ".join(f"{name}{i}" for i in [*range(INNOCENTS), "big"]))


@pytest.mark.parametrize("harm", HARM)
def test_others_go_on_sharing_batches(postgres, start_proxy, table, harm):
    """Each of them writes to a table of its own, so that it has company of other shapes only."""
    proxy = start_proxy(postgres=postgres)
    step = threading.Barrier(INNOCENTS + 1, timeout=60)

    def work(i: int) -> None:
        client = RawPostgres(proxy.postgres_port)
        for j in range(STEPS):
            step.wait()
            if i < INNOCENTS:
                assert b"INSERT 0 1" in client.query(f"{HINT}INSERT INTO {table}{i} VALUES ({j}, 1)")
            else:
                client.query(HARM[harm if 0 < j < 5 else "nothing"].format(t=table))
        client.close()

    together(INNOCENTS + 1, work)
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        assert all(admin.execute(f"SELECT count(*) FROM {table}{i}").fetchone() == (STEPS,) for i in range(INNOCENTS))
    batched = proxy.metric("tqdbproxy_batched_writes_total", query_type="insert", file="", line="")
    # what met the harm itself, and the first that asked for facts, went alone; hardly more did
    assert batched >= INNOCENTS * STEPS // 2


@pytest.mark.parametrize("named", [False, True])
def test_a_notice_of_parse_is_told_to_whom_it_is_due(postgres, start_proxy, table, named):
    """A batch of executions parses their statement once, and its NOTICE is one: they go alone."""
    def run(port: int) -> list[list[str]]:
        step = threading.Barrier(4, timeout=60)

        def work(i: int) -> list[str]:
            client = RawPostgres(port)
            found = []
            for _ in range(3):
                step.wait()
                answer = client.execute(
                    f"{HINT}UPDATE {table}big SET s = s WHERE id = $1 RETURNING id AS {LONG}", (i + 2,), named=named)
                found.append(talk.kinds(answer))
            client.close()
            return found

        return together(4, work)

    proxy = start_proxy(postgres=postgres)
    assert run(proxy.postgres_port) == run(postgres.port)


def test_mariadb_nobody_waits_for_locks_one_behind_the_other():
    """Statements behind one that fails run all the same there: none of them may wait, be it for a row or for DDL."""
    moment = Moment("mariadb", "t t! t t!")
    moment.write_all()
    moment.run()
    [leader] = moment.sent()
    limits = b"SET STATEMENT innodb_lock_wait_timeout=0, lock_wait_timeout=0, max_statement_time=0.050"
    assert bytes(leader.sent).count(limits) == bytes(leader.sent).count(b"INSERT INTO t") == 2
    moment.finish()
    moment = Moment("mariadb", "t t")
    moment.write_all()
    moment.run()
    [leader] = moment.sent()
    assert bytes(leader.sent).count(b"SET STATEMENT innodb_lock_wait_timeout=1 FOR ") == 1
    moment.finish()
