"""The drivers that people use: the same work direct and through the proxy, on several connections at once."""

import threading

import pytest

from tests import drivers
from tests.crowd import together
from tests.drivers import DAY, MONEY, WHEN

HINT = "/* max_wait_ms=200 file=drivers.py line=1 */ "
SESSIONS = 6

COLUMNS = "id, n, b, g, q, e, f, k, h"
TABLE = {
    "postgres": "CREATE TABLE {t} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, b text, g bytea, q float8, "
                "e numeric(8,2), f timestamp, k date, h boolean)",
    "mariadb": "CREATE TABLE {t} (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, b text, g longblob, q double, "
               "e decimal(8,2), f datetime, k date, h boolean) DEFAULT CHARSET=utf8mb4",
}


def work(driver, dialect: str, t: str, k: int, step) -> list:
    """What one connection does: types, shapes of answers, errors, transactions; the answers."""
    base = k * 1000
    upsert = {"postgres": " ON CONFLICT (id) DO UPDATE SET n = {t}.n + 1",
              "mariadb": " ON DUPLICATE KEY UPDATE n = n + 1"}[dialect].format(t=t)
    insert = f"INSERT INTO {t} ({COLUMNS}) VALUES ({', '.join('?' * 9)})"
    rows = [(base + n, n, "Grüße 漢字 🙂" if n % 2 else None, b"\0\xff'\\" if n % 3 else None, n * 1.5, MONEY, WHEN,
             DAY, n % 2 == 0) for n in range(10)]
    out = []

    def run(sql, *params):
        step.wait()
        out.append(driver.run(HINT + sql if not sql.startswith(("SELECT", "BEGIN", "COMMIT", "ROLLBACK")) else sql,
                              params))

    for row in rows:
        run(insert, *row)
    for n in range(6):
        run(f"INSERT INTO {t} (id, b) VALUES (?, ?)", base + 100 + n, f"it's {n}\\")
    if dialect == "postgres":
        for n in range(4):
            run(f"INSERT INTO {t} (id, n) VALUES (?, ?) RETURNING id, n, b", base + 200 + n, n)
        run(f"UPDATE {t} SET n = n + ? WHERE id = ? RETURNING n", 5, base + 1)
    for n in range(6):
        run(f"UPDATE {t} SET n = n + ?, b = ? WHERE id = ?", 5, "changed", base + n)
    run(f"UPDATE {t} SET n = 1 WHERE id = ?", -1)
    for n in range(6):
        run(f"INSERT INTO {t} (id, n) VALUES (?, ?){upsert}", base + 300 + n % 2, n)
    for n in range(3):
        run(f"DELETE FROM {t} WHERE id = ?", base + n)
    run(f"INSERT INTO {t} (id) VALUES (?)", base + 5)                 # there already
    run(f"INSERT INTO {t} (id, n) VALUES (?, ?)", base + 900, None)   # may not be NULL
    run(f"INSERT INTO {t} (id, nothing) VALUES (?, ?)", base + 900, 1)
    run("INSERT INTO missing (id) VALUES (?)", base)
    run("BEGIN")
    run(f"INSERT INTO {t} (id, b) VALUES (?, ?)", base + 400, "rolled back")
    run("ROLLBACK")
    run("BEGIN")
    run(f"INSERT INTO {t} (id, b) VALUES (?, ?)", base + 401, "kept")
    run("COMMIT")
    step.wait()
    out.append(driver.many(f"{HINT}INSERT INTO {t} (id, n) VALUES (?, ?)", [(base + 500 + n, n) for n in range(20)]))
    for n in range(8):
        run(f"INSERT INTO {t} (id, n) VALUES (?, ?)", base + 600 + n, n)
    run(f"SELECT {COLUMNS} FROM {t} WHERE id >= ? AND id < ? ORDER BY id", base, base + 1000)
    return out


def compare(make, server, proxy, direct_port, through_port, dialect, table, database):
    results = {}
    for side, port in (("a", direct_port), ("b", through_port)):
        step = threading.Barrier(SESSIONS, timeout=60)
        before = proxy.stats()["batched_writes_total"]

        def session(k, side=side, port=port, step=step):
            driver = make(server, port, database)
            try:
                return work(driver, dialect, table + side, k, step)
            finally:
                driver.close()

        results[side] = together(SESSIONS, session)
    for direct, through in zip(results["a"], results["b"], strict=True):
        assert through == direct
    errors = [x for x in results["a"][0] if isinstance(x, tuple) and x[0] == "error"]
    assert len(errors) >= 4
    assert proxy.stats()["batched_writes_total"] - before >= SESSIONS * 20


@pytest.mark.parametrize("make", drivers.POSTGRES, ids=lambda m: m.__name__)
def test_postgres_driver(postgres, proxy, pg, table, make):
    admin = pg(through=False)
    for side in "ab":
        admin.execute(TABLE["postgres"].format(t=table + side))
    compare(make, postgres, proxy, postgres.port, proxy.postgres_port, "postgres", table, "postgres")


@pytest.mark.parametrize("make", drivers.MARIADB, ids=lambda m: m.__name__)
def test_mariadb_driver(mariadb, proxy, my, table, make):
    if make is drivers.mysqlclient:
        pytest.importorskip("MySQLdb", reason="mysqlclient needs libmariadb-dev to be built")
    admin = my(through=False).cursor()
    for side in "ab":
        admin.execute(TABLE["mariadb"].format(t=table + side))
    compare(make, mariadb, proxy, mariadb.port, proxy.mariadb_port, "mariadb", table, "d")
