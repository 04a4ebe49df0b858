"""What a connection shows after its session's writes ran elsewhere, or others' on it; time limits of transactions."""

import re
import signal
import threading

import psycopg
import pytest
from tqdb._core import PgSession

from tests.crowd import together
from tests.raw import RawMariaDB, RawPostgres
from tests.sansio import Hooks
from tests.test_sans_io import INSERT, answer_session, two_in_a_batch, who_leads
from tests.wait import wait_for
from tests.wire import (
    COLUMNS,
    PG_FACTS,
    PG_LOGIN,
    READY,
    STARTUP,
    pg_bind,
    pg_error,
    pg_fields,
    pg_parse,
    pg_query,
    pg_split,
)
from tests.wire import pg as message

HINT = "/* max_wait_ms:50 */ "
SYNC = message(b"S")
EXECUTE = message(b"E", b"\0" * 5)
DISCARD = pg_query("DISCARD SEQUENCES")
DISCARDED = message(b"C", b"DISCARD SEQUENCES\0") + READY
WRITE = pg_query(INSERT)
ONE_ROW = message(b"C", b"INSERT 0 1\0")
OPEN = message(b"Z", b"T")


def selected(value: bytes) -> bytes:
    return message(b"D", pg_fields(value)) + message(b"C", b"SELECT 1\0")


def opened(statements: int) -> bytes:
    """The answers to what opens a batch's transaction."""
    return message(b"C", b"BEGIN\0") + message(b"C", b"SET\0") * (statements - 1)


def keep(leader) -> None:
    """The server of a batch of two answers that all is well."""
    leader.receive(opened(2) + message(b"C", b"INSERT 0 2\0") + OPEN)
    assert leader.take_out() == pg_query("COMMIT")
    leader.receive(message(b"C", b"COMMIT\0") + READY)


# --- sequences: against a server ----------------------------------------------------------------------------------

@pytest.fixture
def sequence(pg, table):
    """A table with a sequence, and ways to ask for its last value that no text tells."""
    pg(through=False).execute(f"""
        CREATE TABLE {table} (id serial PRIMARY KEY, who int);
        CREATE FUNCTION {table}_last() RETURNS bigint LANGUAGE sql AS 'SELECT lastval()';
        CREATE VIEW {table}_view AS SELECT currval('{table}_id_seq')""")
    return table


@pytest.mark.parametrize("question, prepare", [
    ("SELECT {}_last()", False), ("SELECT {}_last()", True), ("SELECT * FROM {}_view", False),
    ("SELECT * FROM {}_view", True), ("EXECUTE asked", False)],
    ids=["function", "function, prepared", "view", "view, prepared", "prepared in SQL"])
def test_last_values_are_never_another_sessions(pg, proxy, sequence, question, prepare):
    """Nobody is relayed because of such a question: each of them finds what a batch has left behind."""
    question = question.format(sequence)
    sessions = [pg() for _ in range(8)]
    for connection in sessions:
        connection.execute(f"PREPARE asked AS SELECT {sequence}_last()")
    before = proxy.batched()

    def work(i):
        errors = []
        for _ in range(15):
            own, = sessions[i].execute(f"{HINT}INSERT INTO {sequence} (who) VALUES ({i}) RETURNING id").fetchone()
            try:
                found, = sessions[i].execute(question, prepare=prepare).fetchone()
            except psycopg.errors.ObjectNotInPrerequisiteState as e:
                errors.append(e.sqlstate)
            else:
                assert found == own
        return errors

    errors = [e for part in together(8, work) for e in part]
    assert proxy.batched() > before
    assert set(errors) == {"55000"}


def test_the_last_value_of_a_write_that_goes_alone_is_there(pg, proxy, sequence):
    sessions = [pg() for _ in range(4)]
    before = proxy.batched()
    together(4, lambda i: [sessions[i].execute(f"{HINT}INSERT INTO {sequence} (who) VALUES ({i})") for _ in range(5)])
    assert proxy.batched() > before
    for connection in sessions:
        own, = connection.execute(f"INSERT INTO {sequence} (who) VALUES (9) RETURNING id").fetchone()
        assert connection.execute(f"SELECT {sequence}_last()").fetchone() == (own,)
        assert connection.execute(f"SELECT * FROM {sequence}_view").fetchone() == (own,)


def test_a_session_seen_to_ask_is_relayed_and_right(pg, proxy, sequence):
    sessions = [pg() for _ in range(4)]
    for connection in sessions:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            connection.execute("SELECT lastval()")

    def work(i):
        for _ in range(10):
            own, = sessions[i].execute(f"{HINT}INSERT INTO {sequence} (who) VALUES ({i}) RETURNING id").fetchone()
            assert sessions[i].execute("SELECT lastval()").fetchone() == (own,)

    before = proxy.batched()
    together(4, work)
    assert proxy.batched() == before


def test_everything_goes_on_behind_a_batch(proxy, pg, sequence):
    """Unnamed and named statements, transactions and copies, by turns with batched writes of both protocols."""
    pg(through=False).execute(f"CREATE TABLE {sequence}_copied (a int)")
    before = proxy.batched()

    def work(i):
        insert = f"{HINT}INSERT INTO {sequence} (who) VALUES ({i})"
        session = RawPostgres(proxy.postgres_port)

        say = session.say
        parsed, bound = message(b"1"), message(b"2")
        assert say(pg_parse(b"named", b"SELECT 7") + SYNC) == parsed + READY
        for n in range(5):
            assert say(pg_parse(b"", insert.encode()) + pg_bind(b"", b"") + EXECUTE + SYNC) == (
                parsed + bound + ONE_ROW + READY)
            # the unnamed statement is the write: it is the client's to use once more, alone or with others
            assert say(pg_bind(b"", b"") + EXECUTE + SYNC) == bound + ONE_ROW + READY
            assert say(pg_bind(b"", b"named") + EXECUTE + SYNC) == bound + selected(b"7") + READY
            assert say(pg_parse(b"", b"SELECT 8") + SYNC) == parsed + READY
            assert say(pg_query(insert)) == ONE_ROW + READY
            error = say(pg_bind(b"", b"") + EXECUTE + SYNC)     # a Query takes the unnamed statement away
            assert error[:1] == b"E" and b"C26000\0" in error and error.endswith(READY)
            assert say(pg_query(insert)) == ONE_ROW + READY
            assert say(pg_query("BEGIN")) == message(b"C", b"BEGIN\0") + OPEN
            assert say(pg_query("COMMIT")) == message(b"C", b"COMMIT\0") + READY
            assert say(pg_query(insert)) == ONE_ROW + READY
            assert say(pg_query(f"COPY {sequence}_copied FROM STDIN") + message(b"d", b"%d\n" % n) + message(b"c")
                       ).endswith(message(b"C", b"COPY 1\0") + READY)
        session.close()

    together(6, work)
    assert proxy.batched() > before
    admin = pg(through=False)
    assert admin.execute(f"SELECT count(*) FROM {sequence}_copied").fetchone() == (30,)
    assert admin.execute(f"SELECT count(*) FROM {sequence}").fetchone() == (150,)


# --- sequences: what is sent --------------------------------------------------------------------------------------

def after_a_batch():
    """The two sessions of a batch that is over, with their servers: who led, and who did not."""
    a, server_a, b, server_b = two_in_a_batch()
    leader, _ = who_leads(server_a, server_b)
    keep(leader)
    assert a.take_out() == b.take_out() == ONE_ROW + READY
    return ((a, server_a), (b, server_b)) if leader is server_a else ((b, server_b), (a, server_a))


@pytest.mark.parametrize("data", [
    pg_query("SELECT 1"), pg_parse(b"s", b"SELECT 1") + SYNC, message(b"D", b"Ss\0") + SYNC,
    pg_bind(b"", b"s") + SYNC, message(b"C", b"Ss\0") + SYNC, message(b"F", b"\0" * 12)],
    ids=["query", "parse", "describe", "bind", "close", "function"])
@pytest.mark.parametrize("led", [True, False], ids=["leader", "member"])
def test_cleared_once_in_front_of_what_may_see(data, led):
    session, server = after_a_batch()[0 if led else 1]
    session.receive(data)
    assert server.take_out() == DISCARD + data
    server.receive(DISCARDED[:7])
    server.receive(DISCARDED[7:] + message(b"E", b"SERROR\0C26000\0\0") + READY)
    assert session.take_out() == message(b"E", b"SERROR\0C26000\0\0") + READY
    session.receive(data)
    assert server.take_out() == data


@pytest.mark.parametrize("data", [SYNC, message(b"X"), message(b"H")], ids=["sync", "terminate", "flush"])
def test_not_cleared_for_what_cannot_see(data):
    for session, server in after_a_batch():
        session.receive(data)
        assert server.take_out() == data


def test_not_cleared_between_batches():
    (a, server_a), (b, server_b) = after_a_batch()
    for session in (a, b):
        session.receive(WRITE)
    leader, _ = who_leads(server_a, server_b)
    assert leader is server_a           # the one that led before, with nothing in front
    keep(leader)
    assert a.take_out() == b.take_out() == ONE_ROW + READY


def test_the_unnamed_statement_is_put_back_behind_it():
    """Clearing takes a Query, which takes the unnamed statement away: the client keeps its own."""
    (a, server_a), (b, server_b) = after_a_batch()
    parse, named = pg_parse(b"", b"SELECT 5"), pg_parse(b"w", INSERT)
    for session, server in ((a, server_a), (b, server_b)):
        session.receive(parse + named + SYNC)
        assert server.take_out() == DISCARD + parse + named + SYNC
        server.receive(DISCARDED + message(b"1") * 2 + READY)
        assert session.take_out() == message(b"1") * 2 + READY
    segment = pg_bind(b"", b"w") + EXECUTE + SYNC
    a.receive(segment)
    b.receive(segment)
    leader, _ = who_leads(server_a, server_b)
    leader.receive(opened(2) + message(b"1") + message(b"2") + message(b"n") + message(b"C", b"INSERT 0 2\0") + OPEN)
    assert leader.take_out() == pg_query("COMMIT")
    leader.receive(message(b"C", b"COMMIT\0") + READY)
    for session, server in ((a, server_a), (b, server_b)):
        assert session.take_out() == message(b"2") + ONE_ROW + READY
        session.receive(pg_bind(b"", b"") + SYNC)
        assert server.take_out() == DISCARD + parse + pg_bind(b"", b"") + SYNC
        server.receive(DISCARDED + message(b"1") + message(b"2") + READY)
        assert session.take_out() == message(b"2") + READY


def test_what_is_told_meanwhile_is_relayed():
    (session, server), _ = after_a_batch()
    session.receive(pg_query("SELECT 1"))
    told = message(b"S", b"TimeZone\0UTC\0") + message(b"A", b"\0\0\0\1c\0p\0")
    server.receive(told + message(b"N", b"SNOTICE\0\0") + DISCARDED)
    assert session.take_out() == told


def test_a_connection_that_does_not_clear_ends():
    """What was sent behind it would see another session's values."""
    (session, server), (other, other_server) = after_a_batch()
    session.receive(pg_query("SELECT lastval()"))
    server.receive(pg_error(b"57014") + READY + selected(b"7") + READY)
    told = session.take_out()
    assert b"VFATAL\0C08006\0" in told and selected(b"7") not in told
    assert session.closing and server.closed
    other.receive(pg_query("SELECT 1"))
    assert other_server.take_out() == DISCARD + pg_query("SELECT 1")


# --- time limits of transactions ----------------------------------------------------------------------------------

IDLE_OFF = "SET LOCAL idle_in_transaction_session_timeout=0"
TRANSACTION_OFF = "SET LOCAL transaction_timeout=0"


@pytest.mark.parametrize("version, limits", [
    (b"", []), (b"9.5.25", []), (b"9.6.24", [IDLE_OFF]), (b"15.4 (Debian 15.4-1)", [IDLE_OFF]),
    (b"16beta1", [IDLE_OFF]), (b"17.2", [IDLE_OFF, TRANSACTION_OFF]), (b"18devel", [IDLE_OFF, TRANSACTION_OFF])])
@pytest.mark.parametrize("extended", [False, True], ids=["query", "extended"])
def test_limits_that_end_the_connection_are_off_in_a_batch(version, limits, extended):
    """The batch's transaction has limits that the server knows switched off, and its answer is understood."""
    hooks = Hooks()
    sessions = []
    write = pg_parse(b"", INSERT) + pg_bind(b"", b"") + EXECUTE + SYNC if extended else WRITE
    answer = (message(b"1") + message(b"2") if extended else b"") + ONE_ROW + READY
    for i in range(2):
        session = PgSession(hooks.engine)
        session.receive(STARTUP)
        server = hooks.server
        server.receive(PG_LOGIN[:-len(READY)] + message(b"S", b"server_version\0" + version + b"\0") + READY)
        session.take_out(), server.take_out()
        sessions.append((session, server))
        if i == 0:
            session.receive(write)
            answer_session(server)
            assert b"pg_catalog" in server.take_out()
            server.receive(COLUMNS + PG_FACTS + message(b"C", b"SELECT 1\0") + READY)
            assert server.take_out() == write
            server.receive(answer)
            assert session.take_out() == answer
    for session, server in reversed(sessions):       # the one that has not written yet is not waited for
        session.receive(write)
        if session is not sessions[0][0]:
            answer_session(server)
    (leader, sent), = [(server, sent) for _, server in sessions if (sent := server.take_out())]
    statements = ["BEGIN", "SET LOCAL lock_timeout=100", *limits]
    if extended:
        at = [sent.index(pg_parse(b"", text.encode())) for text in statements]
        assert at == sorted(at) and sent.count(b"SET LOCAL") == len(statements) - 1
    else:
        assert sent[5:].startswith((";".join(statements) + ";/*").encode())
    leader.receive(opened(len(statements)) + (message(b"1") + message(b"2") + message(b"n") if extended else b"")
                   + message(b"C", b"INSERT 0 2\0") + OPEN)
    assert leader.take_out() == pg_query("COMMIT")
    leader.receive(message(b"C", b"COMMIT\0") + READY)
    assert [session.take_out() for session, _ in sessions] == [answer] * 2


def test_a_batch_is_not_ended_as_idle(postgres, pg, table, start_proxy):
    """The proxy's own turn in front of COMMIT takes longer than its sessions may idle in a transaction."""
    proxy = start_proxy(postgres=postgres)
    admin, other = pg(through=False), pg(through=False)
    admin.execute(f"CREATE TABLE {table} (k int PRIMARY KEY)")
    sessions = [psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True, application_name=table,
                                options="-c idle_in_transaction_session_timeout=20") for _ in range(4)]
    sessions[0].execute(f"{HINT}INSERT INTO {table} (k) VALUES (0)")
    keys = iter(range(100, 10_000, 10))
    kept = []

    def batches(condition: str) -> int:
        return admin.execute(f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{table}' AND "
                             + condition).fetchone()[0]

    def stopped_behind_its_answer() -> bool:
        """A batch waits for a lock; the proxy is stopped, the lock given: is its transaction left open, and well?"""
        key = next(keys)
        done = threading.Event()

        def work(i):
            if i < 4:
                sessions[i].execute(f"{HINT}INSERT INTO {table} (k) VALUES ({key + i})")
                return
            try:
                wait_for(lambda: batches("wait_event_type = 'Lock'"))
                proxy.tell(signal.SIGSTOP)
            finally:
                other.execute("ROLLBACK")
                done.set()

        other.execute("BEGIN")
        other.execute(f"INSERT INTO {table} (k) VALUES ({key})")
        found = []

        def look():
            assert done.wait(60)
            try:
                # a batch that has met its lock's time-out shows as aborted: it is tried again
                wait_for(lambda: not batches("state = 'active'"))
                found.append(batches("state = 'idle in transaction'") == 1)
                if found[0]:
                    wait_for(lambda: batches("state_change < clock_timestamp() - interval '0.2 s'") == 4)
            finally:
                proxy.tell(signal.SIGCONT)

        looks = threading.Thread(target=look, daemon=True)
        looks.start()
        together(5, work)
        looks.join(60)
        kept.extend(key + i for i in range(4))
        return found[0]

    assert any(stopped_behind_its_answer() for _ in range(20))
    assert admin.execute(f"SELECT array_agg(k ORDER BY k) FROM {table}").fetchone() == ([0, *kept],)
    assert proxy.batched() > 0
    for connection in sessions:
        connection.close()


def test_the_time_limit_of_a_statement_is_its_own(proxy, pg, table):
    """A batch that its leader's statement_timeout ends is divided: only the write that waits is ended by it."""
    admin = pg(through=False)
    admin.execute(f"CREATE TABLE {table} (k int PRIMARY KEY)")
    sessions = [pg(options="-c statement_timeout=90") for _ in range(6)]
    sessions[0].execute(f"{HINT}INSERT INTO {table} (k) VALUES (0)")
    before, retries = proxy.batched(), proxy.metric("tqdbproxy_write_batch_retries_total", cause="timeout")
    admin.execute("BEGIN")
    admin.execute(f"INSERT INTO {table} (k) VALUES (1)")

    def work(i):
        try:
            sessions[i].execute(f"{HINT}INSERT INTO {table} (k) VALUES ({i + 1})")
        except psycopg.errors.QueryCanceled as e:
            return e.diag.message_primary
        return None

    ended = together(6, work)
    admin.execute("COMMIT")
    assert ended == ["canceling statement due to statement timeout", *[None] * 5]
    assert proxy.metric("tqdbproxy_write_batch_retries_total", cause="timeout") > retries
    assert proxy.batched() > before
    assert admin.execute(f"SELECT array_agg(k ORDER BY k) FROM {table}").fetchone() == ([*range(7)],)


# --- the proxy's status, prepared -----------------------------------------------------------------------------------

def figure(answer: bytes) -> int:
    """The number of batched writes in a status of either protocol: behind its name, with its length in front."""
    found = re.search(rb"Batched_writes_total(?:\0\0\0)?[\1-\x10](\d+)", answer)
    assert found, answer
    return int(found[1])


def follows_batches(ask, write) -> None:
    """``ask()``'s figure goes up with every batch that ``write()`` has made."""
    for _ in range(3):
        last = ask()
        wait_for(lambda last=last: write() or ask() > last, what="a newer figure")


@pytest.mark.parametrize("way", ["named", "unnamed", "described", "select"])
def test_a_prepared_status_is_fresh_on_postgres(proxy, pg, table, way):
    pg(through=False).execute(f"CREATE TABLE {table} (a int)")
    session = RawPostgres(proxy.postgres_port)
    others = [pg() for _ in range(3)]
    name = b"" if way == "unnamed" else b"status"
    text, values = b"SHOW TQDB STATUS", ()
    if way == "select":
        text, values = b"SELECT variable_name, value FROM pg_tqdb_status WHERE value <> $1", (b"x",)
    insert = f"{HINT}INSERT INTO {table} (a) VALUES (1)"

    say = session.say
    def ask() -> int:
        answer = say((message(b"D", b"S" + name + b"\0") if way == "described" else b"")
                     + pg_bind(b"", name, *values) + message(b"D", b"P\0") + EXECUTE + SYNC)
        kinds = bytes(kind[0] for kind, _ in pg_split(answer)[0])
        assert re.fullmatch(b"(tT)?2TD+CZ" if way == "described" else b"2TD+CZ", kinds)
        return figure(answer)

    def write() -> None:
        together(4, lambda i: others[i].execute(insert) if i < 3 else say(pg_bind(b"", b"w") + EXECUTE + SYNC))

    assert say(pg_parse(b"w", insert.encode()) + pg_parse(name, text) + SYNC) == message(b"1") * 2 + READY
    follows_batches(ask, write)
    session.close()


def test_a_prepared_status_in_a_failed_transaction(proxy):
    """It fails as any statement does, and is there again afterwards."""
    session = RawPostgres(proxy.postgres_port)

    say = session.say
    ask = pg_bind(b"", b"status") + EXECUTE + SYNC
    assert say(pg_parse(b"status", b"SHOW TQDB STATUS") + SYNC) == message(b"1") + READY
    say(pg_query("BEGIN; SELECT 1 / 0"))
    for _ in range(2):
        answer = say(ask)
        assert b"C25P02\0" in answer and answer.count(b"C25P02") == 1 and answer.endswith(message(b"Z", b"E"))
    say(pg_query("ROLLBACK"))
    assert figure(say(ask)) >= 0
    session.close()


def test_a_name_that_was_taken_by_another_statement_is_left_to_it(proxy):
    session = RawPostgres(proxy.postgres_port)

    say = session.say
    ask = pg_bind(b"", b"status") + EXECUTE + SYNC
    assert say(pg_parse(b"status", b"SHOW TQDB STATUS") + SYNC) == message(b"1") + READY
    assert figure(say(ask)) >= 0
    say(pg_query("DEALLOCATE ALL"))
    assert b"C26000\0" in say(ask)
    say(pg_query("PREPARE status AS SELECT 7"))
    assert say(ask) == message(b"2") + selected(b"7") + READY
    session.close()


def test_a_prepared_status_is_fresh_on_mariadb(proxy, my, table):
    my(through=False).cursor().execute(f"CREATE TABLE {table} (a int) ENGINE=InnoDB")
    session = RawMariaDB(my())
    others = [my() for _ in range(3)]
    insert = f"{HINT}INSERT INTO {table} (a) VALUES (1)"

    def write() -> None:
        together(4, lambda i: others[i].cursor().execute(insert) if i < 3 else session.execute(insert, ()))

    follows_batches(lambda: figure(session.execute("SHOW TQDB STATUS", ())), write)
