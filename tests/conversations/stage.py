"""Where conversations are played: a server with tables that are the same before every play, and read after it.

Keys 1000 k + 1 to 1000 k + 999 belong to session k; rows at 1000 k stand between them, so that locks on gaps of one
session's keys do not reach another's. ``own_k`` is session k's table, ``made_k`` a table that it may make.
"""

import time
from abc import ABC, abstractmethod
from contextlib import closing, suppress

import psycopg
import pymysql

from tests.conversations.mariadb import FIRST_ID, MariaDBTalk
from tests.conversations.plan import Session
from tests.conversations.postgres import PostgresTalk
from tests.conversations.talk import Talk

SESSIONS = range(1, 13)
IDLE_SECONDS = 10

PG_SETUP = """
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 7 CHECK (a < 1000), b text, c varchar(10),
 p int REFERENCES parent);
CREATE SCHEMA other;
CREATE TABLE other.t (id int PRIMARY KEY, a int NOT NULL DEFAULT 8 CHECK (a < 1000), b text, c varchar(10),
 p int REFERENCES parent);
CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL);
CREATE TABLE log (id bigserial PRIMARY KEY, owner int NOT NULL, v int NOT NULL);
CREATE TABLE late (id int PRIMARY KEY, p int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE changed (id int PRIMARY KEY, v int, who text);
CREATE FUNCTION before_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
 IF NEW.v % 3 = 0 THEN RETURN NULL; END IF;
 IF NEW.v = 500 THEN RAISE EXCEPTION 'five hundred' USING HINT = 'take another'; END IF;
 IF NEW.v = 400 THEN RAISE NOTICE 'four hundred'; END IF;
 NEW.who = 'trigger'; RETURN NEW;
END $$;
CREATE TRIGGER before_change BEFORE INSERT ON changed FOR EACH ROW EXECUTE FUNCTION before_change();
CREATE ROLE writer;
GRANT ALL ON SCHEMA public, other TO writer;
GRANT ALL ON ALL TABLES IN SCHEMA public, other TO writer;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public, other TO writer;
"""

MY_TABLE = ("CREATE TABLE {}.t (id int PRIMARY KEY, a int NOT NULL DEFAULT 7 CHECK (a < 1000), b longtext, "
            "c varchar(10), e decimal(8,2), p int REFERENCES conv.parent (id)) DEFAULT CHARSET=utf8mb4")
MY_SETUP = (
    "CREATE DATABASE conv", "CREATE DATABASE other", "CREATE USER conv@'%'", "CREATE USER writer@'%'",
    "GRANT ALL ON *.* TO conv@'%'", "GRANT ALL ON conv.* TO writer@'%'",
    "GRANT ALL ON other.* TO writer@'%'", "USE conv", "CREATE TABLE parent (id int PRIMARY KEY)",
    "INSERT INTO parent VALUES (1)", MY_TABLE.format("conv"), MY_TABLE.format("other"),
    "CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL)",
    "CREATE TABLE auto (id bigint AUTO_INCREMENT PRIMARY KEY, owner int NOT NULL, v int NOT NULL) "
    f"AUTO_INCREMENT={FIRST_ID}",
    "CREATE TABLE changed (id int PRIMARY KEY, v int, who varchar(20))",
    "CREATE TRIGGER before_change BEFORE INSERT ON changed FOR EACH ROW BEGIN IF NEW.v = 500 THEN SIGNAL SQLSTATE "
    "'45000' SET MESSAGE_TEXT = 'five hundred'; END IF; SET NEW.who = CONCAT('trigger ', NEW.v); END",
    "CREATE TABLE isam (id int PRIMARY KEY, v int) ENGINE=MyISAM",
)
SHARED = ("t", "other.t", "counters", "changed")
OWN = [f"own_{k}" for k in SESSIONS]
FENCES = ", ".join(f"({1000 * k}, 7)" for k in [*SESSIONS, 13])


class Stage(ABC):
    """``server`` is a started throwaway server, and made ready here."""

    tables: dict[str, str]          # name -> query of its contents, in an order that no timing changes
    seeds: tuple[str, ...] = (f"INSERT INTO counters (id, n) VALUES {FENCES}",)

    def __init__(self, server):
        self.server = server
        self.admin = self.setup()

    @abstractmethod
    def setup(self):
        """Makes the tables; a connection for everything else."""

    @abstractmethod
    def talk(self, port: int, session: Session, seconds: float) -> Talk:
        """A session, logged in."""

    @abstractmethod
    def sessions(self, end: bool = False) -> int:
        """How many sessions but this one the server has; ``end`` ends them."""

    @abstractmethod
    def leftovers(self) -> list[str]:
        """Tables that plans have made and not dropped."""

    def rows(self, sql: str) -> list[tuple]:
        with self.admin.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall() if cursor.description else ())

    def idle(self) -> int:
        """Waits until nobody else is connected; how many had to be ended."""
        deadline = time.monotonic() + IDLE_SECONDS
        while (left := self.sessions()) and time.monotonic() < deadline:
            time.sleep(0.002)
        if left:
            self.end_all()
        return left

    def end_all(self) -> None:
        while self.sessions(end=True):
            time.sleep(0.01)

    def reset(self) -> None:
        for name in self.tables:
            self.rows(f"DELETE FROM {name}")
        for name in self.leftovers():
            self.rows(f"DROP TABLE {name}")
        for sql in self.seeds:
            self.rows(sql)

    def contents(self) -> dict[str, list[tuple]]:
        return {name: self.rows(sql) for name, sql in self.tables.items()}

    def close(self) -> None:
        self.admin.close()


class PostgresStage(Stage):
    tables = {"log": "SELECT owner, v FROM log ORDER BY owner, id",
              **{name: f"SELECT * FROM {name} ORDER BY id" for name in (*SHARED, "late", *OWN)}}

    def setup(self):
        with closing(psycopg.connect(self.server.dsn(), autocommit=True)) as first:
            first.execute("CREATE DATABASE conv")
        dsn = self.server.dsn().replace("dbname=postgres", "dbname=conv")
        admin = psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor)
        admin.execute(PG_SETUP + "".join(
            f"CREATE TABLE {name} (id int PRIMARY KEY, a int, b text DEFAULT 'own'); GRANT ALL ON {name} TO writer;"
            for name in OWN))
        self.made_from = admin.execute("SELECT max(oid)::bigint + 1 FROM pg_class").fetchone()[0]
        return admin

    def talk(self, port, session, seconds):
        return PostgresTalk(port, session, seconds, self.made_from)

    def sessions(self, end=False):
        what = "pg_terminate_backend(pid)" if end else "1"
        return len(self.rows(f"SELECT {what} FROM pg_stat_activity WHERE datname = 'conv' AND pid <> pg_backend_pid() "
                             "AND backend_type = 'client backend'"))

    def leftovers(self):
        return [name for (name,) in self.rows(
            f"SELECT oid::regclass::text FROM pg_class WHERE oid >= {self.made_from} AND relkind = 'r' "
            "AND relname LIKE 'made%' AND relpersistence = 'p'")]


class MariaDBStage(Stage):
    tables = {"auto": "SELECT owner, v FROM auto ORDER BY owner, id",
              **{name: f"SELECT * FROM {name} ORDER BY id" for name in (*SHARED, "isam", *OWN)}}
    seeds = (*Stage.seeds, f"INSERT INTO t (id, a) VALUES {FENCES}", f"INSERT INTO other.t (id, a) VALUES {FENCES}")

    def setup(self):
        admin = self.server.connect(charset="utf8mb4")
        with admin.cursor() as cursor:
            for sql in (*MY_SETUP, *(f"CREATE TABLE {name} (id int PRIMARY KEY, a int NOT NULL, b text DEFAULT 'own')"
                                     for name in OWN)):
                cursor.execute(sql)
        return admin

    def talk(self, port, session, seconds):
        return MariaDBTalk(port, session, seconds)

    def sessions(self, end=False):
        others = self.rows("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() "
                           "AND user IN ('conv', 'writer')")
        for (number,) in others if end else ():
            with suppress(pymysql.err.OperationalError):        # it has ended by itself
                self.rows(f"KILL {number}")
        return len(others)

    def leftovers(self):
        return [f"{schema}.{name}" for schema, name in self.rows(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema IN ('conv', 'other') AND table_name LIKE 'made%'")]


STAGES = {"postgres": PostgresStage, "mariadb": MariaDBStage}
