"""Rules of the configuration: what they match, what wins over what, a reload under load; on real servers."""

import asyncio
import json
import re
import signal
import subprocess
import threading

import psycopg
import pytest
from tqdb._core import fingerprint_of, normal_text

from tests import wire
from tests.crowd import together
from tests.raw import RawPostgres
from tests.wait import wait_for

WRITERS = 8
SYNC = wire.pg(b"S")
EXECUTE = wire.pg(b"E", b"\0" * 5) + SYNC
BATCHED, ALONE = "together", "alone"


class Rig:
    """A proxy of the test's own before both servers, and writers through it."""

    def __init__(self, start_proxy, postgres, mariadb, rules: str, more: str = ""):
        self.postgres, self.mariadb = postgres, mariadb
        self.written = 0            # writes that ``fate`` has made
        self.proxy = start_proxy(postgres=postgres, mariadb=mariadb, config=rules)
        self.base = self.proxy.log_path.replace("proxy.log", "tqdb.ini")
        with open(self.base) as f:
            self.served = f.read().removesuffix(rules)

    def pg(self, **more):
        return psycopg.connect(self.postgres.dsn(self.proxy.postgres_port), autocommit=True,
                               **{"prepare_threshold": None, **more})

    def my(self, **more):
        return self.mariadb.connect(self.proxy.mariadb_port, **{"database": "d", **more})

    def reload(self, rules: str) -> str:
        """SIGHUP with other rules; what the log says then."""
        with open(self.base, "w") as f:
            f.write(self.served + rules)
        before = len(self.proxy.log())
        self.proxy.tell(signal.SIGHUP)
        said = lambda: re.search(r".*reload(ed /| refused).*", self.proxy.log()[before:])     # noqa: E731
        return wait_for(said, what="the reload") and self.proxy.log()[before:]

    def hits(self, rule: str) -> int:
        return int(self.proxy.metric("tqdbproxy_rule_hits_total", rule=rule))

    def refused(self) -> int:
        """Texts that were not looked at because parsers had used up their time."""
        return sum(text["over_budget"] for text in self.proxy.stats()["texts"].values())

    def fate(self, connect, write, writers: int = WRITERS) -> str:
        """Whether writes of several sessions at the same moment go together.

        What there is to be known of their sessions and tables is known behind the first round, unless parsers have
        used up their time, as they do on a busy machine: then it begins anew.
        """
        sessions = [connect() for _ in range(writers)]
        try:
            quiet, refused = 0, self.refused()
            for _ in range(100):
                before = self.proxy.batched()
                together(writers, lambda k: write(sessions[k], k))
                self.written += writers
                batched = self.proxy.batched() - before
                now = self.refused()
                quiet, refused = quiet + 1 if now == refused else 0, now
                if quiet == 3:
                    break
            assert batched in (0, writers) or batched > writers // 2, batched
            return BATCHED if batched else ALONE
        finally:
            for session in sessions:
                session.close()


@pytest.fixture
def rig(start_proxy, postgres, mariadb):
    def make(rules: str) -> Rig:
        return Rig(start_proxy, postgres, mariadb, rules)
    return make


@pytest.fixture
def tables(postgres, mariadb, table):
    """A table of one name on both servers, in PostgreSQL also in a schema of its own."""
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {table} (a int, b text)")
        connection.execute(f"CREATE SCHEMA s{table}; CREATE TABLE s{table}.{table} (a int, b text)")
    with mariadb.connect(database="d") as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {table} (a int, b text)")
        cursor.execute(f"CREATE DATABASE s{table}")
        cursor.execute(f"CREATE TABLE s{table}.{table} (a int, b text)")
    return table


def run(session, sql: str) -> None:
    if isinstance(session, psycopg.Connection):
        session.execute(sql)
    else:
        with session.cursor() as cursor:
            cursor.execute(sql)


def inserts(table: str, hint: str = "", name: str = ""):
    return lambda session, k: run(session, f"{hint}INSERT INTO {name or table} (a, b) VALUES ({k}, 'x')")


def rule(max_wait_ms: object, name: str = "r", **keys: str) -> str:
    lines = [f"[rule.{name}]", f"max_wait_ms = {max_wait_ms}", *(f"{key} = {value}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


# --- what matches -------------------------------------------------------------------------------------------------

NO = "nothing_is_called_so"
KEYS = [
    # key, glob, whether it matches on PostgreSQL, and on MariaDB
    ("protocol", "postgres", True, False), ("protocol", "m*", False, True), ("protocol", "*", True, True),
    ("backend", "main", True, True), ("backend", "ma?n", True, True), ("backend", NO, False, False),
    ("database", "postgres", True, False), ("database", "[d]", False, True), ("database", NO, False, False),
    ("user", "postgres", True, False), ("user", "r*t", False, True), ("user", NO, False, False),
    ("application", "worker*", True, True), ("application", NO, False, False),
    ("verb", "insert", True, True), ("verb", "*s*t", True, True), ("verb", "update", False, False),
    ("table", "{table}", True, True), ("table", "{table}*", True, True), ("table", "public.{table}", True, False),
    ("table", "d.{table}", False, True), ("table", "*.{table}", True, True), ("table", "s{table}.*", False, False),
    ("table", "s{table}.{table}", False, False), ("table", NO, False, False), ("table", "*", True, True),
    ("fingerprint", "{fingerprint}", True, True), ("fingerprint", "{short}*", True, True),
    ("fingerprint", "0123456789abcdef", False, False),
]


@pytest.mark.parametrize(("key", "glob", "postgres_too", "mariadb_too"), KEYS)
def test_each_key(rig, tables, key, glob, postgres_too, mariadb_too):
    print_ = fingerprint_of(normal_text(f"INSERT INTO {tables} (a, b) VALUES (1, 'x')".encode()))
    rig = rig(rule(300, **{key: glob.format(table=tables, fingerprint=print_, short=print_[:3])}))
    for connect, matches in ((lambda: rig.pg(application_name="worker 1"), postgres_too),
                             (lambda: rig.my(program_name="worker 1"), mariadb_too)):
        assert rig.fate(connect, inserts(tables)) == (BATCHED if matches else ALONE), connect
    assert (rig.hits("r") > 0) == (postgres_too or mariadb_too)


def test_all_keys_that_are_given_must_match_and_the_first_rule_that_does_decides(rig, tables):
    both = {"protocol": "postgres", "database": "postgres"}
    rig = rig(rule(300, "none", **both, user=NO) + rule(300, "verb", **both, verb="update")
              + rule("off", "first", **both, table=tables) + rule(300, "later", protocol="*"))
    assert rig.fate(rig.pg, inserts(tables)) == ALONE
    first = rig.written
    assert rig.fate(rig.my, inserts(tables)) == BATCHED
    assert [rig.hits(name) for name in ("none", "verb", "first", "later")] == [0, 0, first, rig.written - first]


def extended(session, table: str, k: int) -> None:
    session.execute(f"INSERT INTO {table} (a, b) VALUES (%s, %s)", (k, "x"))


def test_every_way_in_which_a_write_comes(rig, tables, connector_to):
    """As text, with parameters, prepared; INSERT, UPDATE, DELETE; a transaction of one write that comes whole."""
    rig = rig(rule(300, table=f"*.{tables}"))
    simple = {"cursor_factory": psycopg.ClientCursor}
    ways = {
        "text": (lambda: rig.pg(**simple), inserts(tables)),
        "unnamed": (rig.pg, lambda s, k: extended(s, tables, k)),
        "named": (lambda: rig.pg(prepare_threshold=0), lambda s, k: extended(s, tables, k)),
        "update": (rig.pg, lambda s, k: s.execute(f"UPDATE {tables} SET b = %s WHERE a = %s", ("y", k))),
        "delete": (rig.pg, lambda s, k: s.execute(f"DELETE FROM {tables} WHERE a = %s", (k,))),
        "whole": (lambda: rig.pg(**simple),
                  lambda s, k: s.execute(f"BEGIN; INSERT INTO {tables} (a, b) VALUES ({k}, 'x'); COMMIT")),
        "mariadb text": (rig.my, inserts(tables)),
        "mariadb update": (rig.my, lambda s, k: run(s, f"UPDATE {tables} SET b = 'y' WHERE a = {k}")),
        "mariadb prepared": (lambda: connector_to(rig.proxy), lambda s, k: s.cursor(prepared=True).execute(
            f"INSERT INTO {tables} (a, b) VALUES (?, ?)", (k, "x"))),
        "mariadb replace": (rig.my, lambda s, k: run(s, f"REPLACE INTO {tables} (a, b) VALUES ({k}, 'x')")),
    }
    for way, (connect, write) in ways.items():
        assert rig.fate(connect, write) == BATCHED, way


@pytest.fixture
def connector_to(mariadb):
    """MySQL's own connector, which prepares on the server."""
    import mysql.connector

    def connect(proxy):
        return mysql.connector.connect(host="127.0.0.1", port=proxy.mariadb_port, user="root", database="d",
                                       autocommit=True, use_pure=True, ssl_disabled=True)
    return connect


def test_asyncpg(rig, tables):
    """It prepares each statement with a name, and describes it, before it executes it."""
    import asyncpg
    rig = rig(rule(300, table=f"public.{tables}"))

    async def all_of_them():
        sessions = [await asyncpg.connect(host="127.0.0.1", port=rig.proxy.postgres_port, user="postgres",
                                          database="postgres") for _ in range(WRITERS)]
        for _ in range(4):
            before = rig.proxy.batched()
            await asyncio.gather(*(s.execute(f"INSERT INTO {tables} (a, b) VALUES ($1, $2)", k, "x")
                                   for k, s in enumerate(sessions)))
            batched = rig.proxy.batched() - before
        for session in sessions:
            await session.close()
        return batched

    assert asyncio.run(all_of_them()) == WRITERS


# --- where an unqualified table is ------------------------------------------------------------------------------------

def test_the_search_path_counts(rig, tables):
    rig = rig(rule(300, table=f"s{tables}.{tables}"))

    def along(path: str):
        return lambda: rig.pg(options=f"-c search_path={path}")

    assert rig.fate(along("public"), inserts(tables)) == ALONE
    assert rig.fate(along(f"s{tables}"), inserts(tables)) == BATCHED
    # with both in it the catalogue is asked which it is
    assert rig.fate(along(f"s{tables},public"), inserts(tables)) == BATCHED
    assert rig.fate(along(f"public,s{tables}"), inserts(tables)) == ALONE
    assert rig.fate(along("public"), inserts(tables, name=f"s{tables}.{tables}")) == BATCHED
    assert rig.fate(along(f"s{tables}"), inserts(tables, name=f"public.{tables}")) == ALONE


def test_a_search_path_that_changes(rig, tables):
    rig = rig(rule(300, table=f"s{tables}.{tables}"))

    def moved(session, k):
        session.execute(f"SET search_path = s{tables}")
        inserts(tables)(session, k)
        session.execute("RESET search_path")

    assert rig.fate(rig.pg, moved) == BATCHED
    assert rig.fate(rig.pg, inserts(tables)) == ALONE


def test_the_current_database_counts(rig, tables):
    rig = rig(rule(300, table=f"s{tables}.{tables}") + rule(300, "here", database="mysql"))

    def using(database: str, way):
        def connect():
            session = rig.my()
            way(session, database)
            return session
        return connect

    forms = ("USE `{}`;", "use {}", "USE {} ;", "USE/* a */{} -- x", "USE\t`{}` /* x */", "USE # x\n{}# ;")
    for way in (lambda s, name: s.select_db(name),
                *(lambda s, name, form=form: run(s, form.format(name)) for form in forms)):
        assert rig.fate(using("d", way), inserts(tables)) == ALONE
        assert rig.fate(using(f"s{tables}", way), inserts(tables)) == BATCHED
        assert rig.fate(using("mysql", way), inserts(tables, name=f"d.{tables}")) == BATCHED
    assert rig.fate(rig.my, inserts(tables, name=f"s{tables}.{tables}")) == BATCHED


def test_an_application_that_gives_itself_a_name(rig, tables):
    rig = rig(rule(300, application="late*"))

    def named(name: str):
        def connect():
            session = rig.pg()
            session.execute(f"SET application_name = '{name}'")
            return session
        return connect

    assert rig.fate(rig.pg, inserts(tables)) == ALONE
    assert rig.fate(named("latecomer"), inserts(tables)) == BATCHED and rig.fate(named("x"), inserts(tables)) == ALONE


# --- precedence -------------------------------------------------------------------------------------------------------

SAYS = {
    # what the hint, the session and the rule say, and whether the rule is forced -> what holds
    (None, None, "300", "no"): BATCHED, (None, None, "off", "no"): ALONE, (None, None, "auto", "no"): BATCHED,
    ("0", None, "300", "no"): ALONE, ("300", None, "off", "no"): BATCHED, ("soon", None, "300", "no"): ALONE,
    (None, "0", "300", "no"): ALONE, (None, "300", "off", "no"): BATCHED, ("300", "0", "off", "no"): BATCHED,
    ("0", "300", "300", "no"): ALONE,
    ("300", None, "off", "yes"): ALONE, (None, "300", "off", "yes"): ALONE, ("300", "300", "off", "yes"): ALONE,
    ("0", None, "300", "yes"): BATCHED, (None, "0", "300", "yes"): BATCHED, ("0", "0", "300", "yes"): BATCHED,
}


@pytest.mark.parametrize(("hint", "setting", "wait", "force"), SAYS)
def test_precedence(rig, tables, hint, setting, wait, force):
    """A statement's hint wins over its session's setting, that over a rule; a forced rule over all."""
    rig = rig(rule(wait, table=f"*.{tables}", force=force))

    def pg():
        return rig.pg(**({} if setting is None else {"options": f"-c tqdb.max_wait_ms={setting}"}))

    def my():
        session = rig.my()
        if setting is not None:
            run(session, f"SET @tqdb_max_wait_ms = {setting}")
        return session

    def crowded(session, k):
        # auto waits only behind a batch under way
        for _ in range(10 if wait == "auto" else 1):
            inserts(tables, "" if hint is None else f"/* max_wait_ms:{hint} */ ")(session, k)

    def with_parameters(session, k):
        said = "" if hint is None else f"/* max_wait_ms={hint} */ "
        for _ in range(10 if wait == "auto" else 1):
            session.execute(f"{said}INSERT INTO {tables} (a, b) VALUES (%s, %s)", (k, "x"))

    for connect, write in ((pg, crowded), (pg, with_parameters), (my, crowded)):
        if wait == "auto":
            before = rig.proxy.batched()
            sessions = [connect() for _ in range(WRITERS)]
            together(WRITERS, lambda k, s=sessions, w=write: w(s[k], k))
            together(WRITERS, lambda k, s=sessions, w=write: w(s[k], k))
            assert rig.proxy.batched() > before
        else:
            assert rig.fate(connect, write) == SAYS[hint, setting, wait, force], (connect, write)


def test_a_setting_that_is_taken_back_leaves_it_to_rules(rig, tables):
    rig = rig(rule(300, table=f"*.{tables}"))

    def pg():
        session = rig.pg()
        session.execute("SET tqdb.max_wait_ms = 0")
        session.execute("RESET tqdb.max_wait_ms")
        return session

    def my():
        session = rig.my()
        run(session, "SET @tqdb_max_wait_ms = 0")
        run(session, "SET @tqdb_max_wait_ms = NULL")
        return session

    assert rig.fate(pg, inserts(tables)) == BATCHED and rig.fate(my, inserts(tables)) == BATCHED


def test_a_rules_wait_is_cut_to_the_limit(rig, tables):
    rig = rig(rule(600_000, table=tables) + "[writebatch]\nmax_wait_ms_limit = 50\n")
    session = rig.pg()
    for _ in range(3):                  # would be half an hour
        inserts(tables)(session, 1)
    assert rig.hits("r") == 3


# --- what does not match is relayed as it comes ----------------------------------------------------------------------

def test_what_does_not_match_comes_to_the_server_as_it_was_sent(rig, tables, postgres):
    """Answers, byte for byte, of a session whose writes rules have to be asked about, and of one without rules."""
    rig = rig(rule(300, table="other.t*"))
    script = [
        wire.pg_query(f"INSERT INTO {tables} (a, b) VALUES (1, 'x')"),
        wire.pg_parse(b"", f"INSERT INTO {tables} (a) VALUES (2)".encode()) + wire.pg_bind(b"", b"") + EXECUTE,
        wire.pg_parse(b"n", f"UPDATE {tables} SET b = 'y'".encode()) + SYNC,
        wire.pg_bind(b"", b"n") + EXECUTE,
        wire.pg_query("BEGIN"), wire.pg_query(f"INSERT INTO {tables} (a) VALUES (3)"), wire.pg_query("COMMIT"),
        wire.pg_query(f"INSERT INTO {tables} (nothing) VALUES (1)"),
        wire.pg_query(f"BEGIN; DELETE FROM {tables}; COMMIT"),
    ]
    answers = []
    for port in (rig.proxy.postgres_port, postgres.port):
        session = RawPostgres(port, database="postgres")
        answers.append([session.say(message) for message in script])
        session.close()
    assert answers[0] == answers[1]
    assert rig.hits("r") == 0 and rig.proxy.batched() == 0


def test_nobody_waits_for_what_is_not_known_yet(rig, tables):
    """A session's first write goes at once, behind the proxy's question about the session."""
    rig = rig(rule(60_000, table=f"public.{tables}") + "[writebatch]\nmax_wait_ms_limit = 60000\n")
    session = rig.pg()
    inserts(tables)(session, 1)
    assert rig.proxy.counted("no_hint") == 1 and rig.hits("r") == 0


# --- reload ---------------------------------------------------------------------------------------------------------

def test_rules_are_read_again_under_load(rig, tables, postgres):
    rig = rig("")
    stop = threading.Event()
    written = [0] * WRITERS

    def write(k: int) -> None:
        session = rig.pg()
        while not stop.is_set():
            inserts(tables)(session, k)
            written[k] += 1
        session.close()

    threads = [threading.Thread(target=write, args=(k,), daemon=True) for k in range(WRITERS)]
    for thread in threads:
        thread.start()

    def grows(what) -> None:
        before = what()
        wait_for(lambda: what() > before, what="growth")

    def rests(what) -> None:
        """It stands still from some moment on, while writes go on."""
        def still() -> bool:
            before, so_far = what(), sum(written)
            wait_for(lambda: sum(written) > so_far + 20 * WRITERS, what="writes")
            return what() == before
        wait_for(still, what="rest")

    grows(lambda: sum(written))
    assert rig.proxy.batched() == 0
    for _ in range(3):
        said = rig.reload(rule("auto", table=f"public.{tables}"))
        assert "reload: rules, in order: r (new)" in said
        grows(rig.proxy.batched)
        hits = rig.hits("r")
        assert "rules, in order: r (changed)" in rig.reload(rule("off", table=f"public.{tables}"))
        rests(rig.proxy.batched)
        assert rig.hits("r") > hits             # it is the same rule
        said = rig.reload("[rule.r]\nmax_wait_ms = soon\n")
        assert re.search(r"refused, nothing changed: .*tqdb\.ini: section \[rule\.r\]: key 'max_wait_ms': 'soon'", said)
        grows(lambda: rig.hits("r"))
        assert "rules, in order: none; gone: r" in rig.reload("")
        rests(rig.proxy.batched)
    stop.set()
    for thread in threads:
        thread.join(30)
    with psycopg.connect(postgres.dsn()) as connection:
        assert connection.execute(f"SELECT count(*) FROM {tables}").fetchone() == (sum(written),)


def test_a_session_that_waits_when_its_rule_is_taken_away_gets_its_answer(rig, tables):
    rig = rig(rule(60_000, table=tables) + "[writebatch]\nmax_wait_ms_limit = 60000\n")
    sessions = [rig.pg(), rig.pg()]
    for session in sessions:                    # known, and awaited
        session.execute(f"/* max_wait_ms:1 */ INSERT INTO {tables} (a, b) VALUES (0, 'x')")
    waits = threading.Thread(target=lambda: inserts(tables)(sessions[0], 1))
    waits.start()
    rig.reload("")
    inserts(tables)(sessions[1], 2)
    sessions[1].execute(f"/* max_wait_ms:1 */ INSERT INTO {tables} (a, b) VALUES (3, 'x')")
    waits.join(70)
    assert not waits.is_alive()


# --- observation ----------------------------------------------------------------------------------------------------

def test_observation_relays_everything(rig, tables):
    rig = rig(rule(300, table=tables, force="yes"))
    served = rig.served
    rig.served = served.replace("[postgres]\n", "[postgres]\nobserve = yes\n")
    hinted = inserts(tables, "/* max_wait_ms:300 */ ")
    assert rig.fate(rig.pg, hinted) == BATCHED
    said = rig.reload(rule(300, table=tables))
    assert "[postgres] observe: no -> yes" in said
    before, written = rig.proxy.counted("no_hint"), rig.written
    assert rig.fate(rig.pg, hinted) == ALONE and rig.fate(rig.pg, inserts(tables)) == ALONE
    assert rig.fate(rig.pg, lambda s, k: extended(s, f"/* max_wait_ms=300 */ {tables}", k)) == ALONE
    assert rig.proxy.counted("no_hint") - before == rig.written - written
    assert rig.fate(rig.my, hinted) == BATCHED          # each protocol has its own
    rig.served = served
    rig.reload(rule(300, table=tables))
    assert rig.fate(rig.pg, hinted) == BATCHED


# --- what is shown --------------------------------------------------------------------------------------------------

COLUMNS = ["rule", "conditions", "max_wait_ms", "force", "hits"]


def test_show_tqdb_rules(rig, tables, connector_to):
    rig = rig(rule(5, "one", table=f"*.{tables}", verb="insert") + rule("off", "two", force="yes", user="nobody's"))
    session = rig.pg()
    for connect in (rig.pg, rig.my):
        inserts(tables)(connect(), 1)
    wanted = [("one", f"table=*.{tables} verb=insert", "5", "no", "2"), ("two", "user=nobody's", "off", "yes", "0")]
    cursor = session.execute("SHOW TQDB RULES")
    assert cursor.fetchall() == wanted and [c.name for c in cursor.description] == COLUMNS
    named = rig.pg(prepare_threshold=0)
    assert named.execute("show tqdb rules").fetchall() == wanted
    with rig.my().cursor() as cursor:
        cursor.execute("SHOW TQDB RULES;")
        assert [c[0] for c in cursor.description] == COLUMNS and list(cursor.fetchall()) == wanted
    connection = connector_to(rig.proxy)
    prepared = connection.cursor(prepared=True)

    def shown() -> list:
        prepared.execute("SHOW TQDB RULES")
        return prepared.fetchall()

    assert shown() == wanted
    inserts(tables)(session, 2)
    rig.reload(rule(5, "one", table=f"*.{tables}", verb="insert"))
    wanted = [(*wanted[0][:4], "3")]
    assert shown() == wanted == named.execute("show tqdb rules").fetchall()
    rig.reload("")
    assert shown() == [] == named.execute("show tqdb rules").fetchall() == session.execute("SHOW TQDB RULES").fetchall()
    with rig.my().cursor() as cursor:
        cursor.execute("SHOW TQDB RULES")
        assert [c[0] for c in cursor.description] == COLUMNS and not cursor.fetchall()
    assert session.execute("SHOW TQDB STATUS").fetchone()[0] == "Shard"


def test_check_explains_each_rule_and_warns_of_what_never_matches(rig, tables, command):
    rig = rig(rule(5, "one", verb="ins*") + rule("off", "two", verb="insert") + rule(5, "three", backend="elsewhere"))
    done = subprocess.run([*command, "check", "-c", rig.base], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("  one: INSERT that have no hint") for line in lines)
    warnings = [line for line in lines if "WARNING" in line]
    assert len(warnings) == 2 and "two can never match: the earlier rule one" in warnings[0]
    assert "three can never match: backend elsewhere: there is no such section" in warnings[1]
    assert "[rule.two] can never match" in rig.proxy.log()


def test_stats_json_has_the_rules(rig, tables):
    rig = rig(rule(5, "one", table=tables))
    inserts(tables)(rig.pg(), 1)
    assert json.loads(rig.proxy.get("/stats.json"))["rules"] == [
        {"rule": "one", "conditions": f"table={tables}", "max_wait_ms": "5", "force": "no", "hits": 1}]
