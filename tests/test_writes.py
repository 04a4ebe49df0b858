"""Every kind of write in every form, from 20 sessions at once: each answer is byte for byte the direct one.

And at least four of five hinted writes went out in batches, errors and all.
"""

import itertools
import threading

import pytest
from pymysql.constants import CLIENT

from tests.crowd import together
from tests.raw import RawMariaDB, RawPostgres
from tests.statements import MY_SCHEMA, PG_SCHEMA, literal, my_statements, pg_statements
from tests.wait import nobody_in

SESSIONS = 20
HINT = "/* max_wait_ms:200 file:writes.py line:1 */ "
SHARE = 0.8


def hinted(sql: str) -> str:
    return sql if sql.startswith(("SELECT", "SHOW")) else HINT + sql


def compare(scripts, direct, through, normalise=lambda x: x):
    different = [
        (k, literal(*step)[:200], a[-300:], b[-300:])
        for k, script in enumerate(scripts)
        for step, a, b in zip(script, direct[k], through[k], strict=True) if normalise(a) != normalise(b)]
    assert not different, f"{len(different)} answers differ, the first: {different[0]}"


def read_all(proxy, play):
    """Parsers get a tenth of the time only: ``play()`` until none of the statements is refused for that."""
    def refused():
        texts = proxy.stats()["texts"]
        return sum(texts[purpose]["over_budget"] for purpose in ("shape", "statement"))

    before = None
    while before != (before := refused()):
        play()


def share_batched(proxy, scripts, run):
    before = proxy.stats()["batched_writes_total"]
    result = run()
    writes = sum(hinted(sql) != sql for script in scripts for sql, _ in script)
    return result, (proxy.stats()["batched_writes_total"] - before) / writes


@pytest.mark.parametrize("form", ["text", "unnamed", "named"])
def test_postgres_writes(postgres, proxy, table, form):
    import psycopg
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {table}a")
        setup = RawPostgres(postgres.port, f"{table}a")
        assert b"E\0" not in setup.query(PG_SCHEMA)[:2]
        setup.close()
        nobody_in(admin, f"{table}a")
        for side in "bw":
            admin.execute(f"CREATE DATABASE {table}{side} TEMPLATE {table}a")
    scripts = [pg_statements(k) for k in range(1, SESSIONS + 1)]
    assert len(scripts[0]) >= 150

    def run(side, port, sessions=SESSIONS):
        step = threading.Barrier(sessions, timeout=60)

        def work(k):
            session = RawPostgres(port, f"{table}{side}")

            def answer(sql, params):
                step.wait()
                if form == "text":
                    return session.query(literal(hinted(sql), params))
                return session.execute(hinted(sql), params, form == "named", form == "named")

            try:
                return [answer(*statement) for statement in scripts[k]]
            finally:
                session.close()

        return together(sessions, work)

    direct = run("a", postgres.port)
    read_all(proxy, lambda: run("w", proxy.postgres_port, 1))
    through, share = share_batched(proxy, scripts, lambda: run("b", proxy.postgres_port))
    compare(scripts, direct, through)
    codes = {a.split(b"\0C", 1)[1][:5] for answers in direct for a in answers if a[:1] == b"E" or b"\0C" in a[:60]}
    assert len(codes) >= 25, codes
    assert share >= SHARE


@pytest.mark.parametrize("form", ["text", "prepared"])
@pytest.mark.parametrize("flags", [0, CLIENT.FOUND_ROWS], ids=["changed", "found_rows"])
def test_mariadb_writes(mariadb, proxy, table, form, flags):
    scripts = [my_statements(k) for k in range(1, SESSIONS + 1)]
    assert len(scripts[0]) >= 150

    def run(side, port, sessions=SESSIONS):
        step = threading.Barrier(sessions, timeout=60)
        with mariadb.connect() as setup, setup.cursor() as cursor:
            for sql in (f"CREATE DATABASE {table}{side}", f"USE {table}{side}", *MY_SCHEMA):
                cursor.execute(sql)

        def work(k):
            with mariadb.connect(port, database=f"{table}{side}", charset="utf8mb4", client_flag=flags) as connection:
                session = RawMariaDB(connection)

                def answer(sql, params):
                    step.wait()
                    if form == "text" or sql.startswith("SHOW"):
                        return session.query(literal(hinted(sql), params))
                    return session.execute(hinted(sql), params)

                return [answer(*statement) for statement in scripts[k]]

        return together(sessions, work)

    direct = run("a", mariadb.port)
    turn = itertools.count()
    read_all(proxy, lambda: run(f"w{next(turn)}", proxy.mariadb_port, 1))
    through, share = share_batched(proxy, scripts, lambda: run("b", proxy.mariadb_port))
    compare(scripts, direct, through, lambda x: x.replace(f"{table}b".encode(), f"{table}a".encode()))
    codes = {a[5:7] for answers in direct for a in answers if a[4] == 0xFF}
    assert len(codes) >= 25, sorted(int.from_bytes(c, "little") for c in codes)
    assert share >= SHARE
