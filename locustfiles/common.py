"""What the PostgreSQL and the MariaDB users have in common: tasks, timing, and the check of what was written."""

import random
import threading
import time
from urllib.parse import unquote, urlsplit

from locust import User, between, task

HINT = "/* max_wait_ms:10 file:{file} line:{line} */ "


def parts(url: str) -> dict:
    """``host``, ``port``, ``user``, ``password``, ``database`` of a database URL; parts not given are None."""
    found = urlsplit(url)
    return {"host": found.hostname or "127.0.0.1", "port": found.port, "user": unquote(found.username or "") or None,
            "password": unquote(found.password or "") or None, "database": found.path.lstrip("/") or None}


class DatabaseUser(User):
    """Inserts with and without a hint, updates, transactions, and reads its own rows back.

    A subclass has ``connect()``, which gives a DB-API connection in autocommit mode.
    """

    abstract = True
    wait_time = between(0, 0.01)
    table = "tqdb_locust"
    create = ""
    insert_id = ""              # how the id of the row just inserted is asked for
    creating = threading.Lock()
    created = False

    def on_start(self):
        self.connection = self.connect()
        self.cursor = self.connection.cursor()
        self.make_table()
        self.last = None

    def make_table(self):
        """Once per process; of two processes that do it at the same moment one may fail, and finds it made."""
        with self.creating:
            if type(self).created:
                return
            for attempt in (1, 2):
                try:
                    self.cursor.execute(self.create.format(t=self.table))
                    break
                except Exception:
                    if attempt == 2:
                        raise
            type(self).created = True

    def on_stop(self):
        self.connection.close()

    def timed(self, name: str, sql: str, values: tuple = ()):
        """Runs one statement and reports it to Locust; returns the rows, if there are any."""
        start = time.perf_counter()
        error, rows = None, None
        try:
            self.cursor.execute(sql, values)
            rows = self.cursor.fetchall() if self.cursor.description else None
        except Exception as e:
            error = e
        self.environment.events.request.fire(
            request_type="sql", name=name, response_time=(time.perf_counter() - start) * 1000,
            response_length=len(rows or ()), exception=error, context={})
        return rows

    def insert(self, name: str, hint: str):
        n = random.randrange(1_000_000)
        rows = self.timed(name, f"{hint}INSERT INTO {self.table} (n, note) VALUES (%s, %s){self.insert_id}",
                          (n, f"note {n}"))
        self.last = (rows[0][0] if rows else getattr(self.cursor, "lastrowid", None), n)

    @task(10)
    def hinted_insert(self):
        self.insert("insert, hinted", HINT.format(file="locust.py", line=1))

    @task(2)
    def plain_insert(self):
        self.insert("insert, not hinted", "")

    @task(2)
    def update(self):
        if self.last and self.last[0]:
            self.timed("update", f"UPDATE {self.table} SET note = 'seen' WHERE id = %s", (self.last[0],))

    @task(3)
    def read_back(self):
        if self.last and self.last[0]:
            rows = self.timed("read back", f"SELECT n FROM {self.table} WHERE id = %s", (self.last[0],))
            if rows is not None and [tuple(r) for r in rows] != [(self.last[1],)]:
                self.environment.events.request.fire(
                    request_type="check", name="own row", response_time=0, response_length=0, context={},
                    exception=AssertionError(f"row {self.last[0]} holds {rows}, not {self.last[1]}"))

    @task(1)
    def transaction(self):
        self.timed("begin", "BEGIN")
        self.insert("insert, in a transaction", HINT.format(file="locust.py", line=2))
        self.timed("commit", "COMMIT")
