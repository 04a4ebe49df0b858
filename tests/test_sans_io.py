"""Sessions without sockets: conversations fed whole, byte by byte and with more behind, give the same bytes."""

import struct

import pytest
from tqdb._core import MySession, PgSession

from tests.sansio import Hooks
from tests.wire import COLUMNS, GREETING, HANDSHAKE, MY_OK, PG_FACTS, PG_LOGIN, READY, STARTUP, my, pg, pg_alike

INSERT = b"/* max_wait_ms:5 */ INSERT INTO t (a) VALUES (1)"

# (from whom, bytes, what then lies ready for the client, what for the server)
PG_TALK = [
    ("client", struct.pack("!II", 8, 80877103), b"N", b""),
    ("client", struct.pack("!II", 8, 80877104), b"N", b""),
    ("client", STARTUP, b"", STARTUP),
    ("server", pg(b"R", b"\0\0\0\5salt"), pg(b"R", b"\0\0\0\5salt"), b""),
    ("client", pg(b"p", b"md5secret\0"), b"", pg(b"p", b"md5secret\0")),
    ("server", PG_LOGIN, PG_LOGIN, b""),
    ("client", pg(b"Q", b"SELECT 1\0"), b"", pg(b"Q", b"SELECT 1\0")),
    ("server", COLUMNS + pg(b"D", b"\0\1\0\0\0\0011") + pg(b"C", b"SELECT 1\0") + READY,
     COLUMNS + pg(b"D", b"\0\1\0\0\0\0011") + pg(b"C", b"SELECT 1\0") + READY, b""),
    ("client", pg(b"P", b"\0SELECT $1\0\0\0") + pg(b"B", b"\0\0\0\0\0\1\xff\xff\xff\xff\0\0") + pg(b"E", b"\0" * 5)
     + pg(b"S"), b"", None),
    ("server", pg(b"1") + pg(b"2") + pg(b"D", b"\0\1\xff\xff\xff\xff") + pg(b"C", b"SELECT 1\0") + READY, None, b""),
    ("client", pg(b"Q", b"COPY t FROM STDIN\0"), b"", None),
    ("server", pg(b"G", b"\0\0\0"), None, b""),
    ("client", pg(b"d", b"1\n") * 3 + pg(b"c"), b"", None),
    ("server", pg(b"C", b"COPY 3\0") + READY, None, b""),
    ("client", pg(b"X"), b"", pg(b"X")),
]

MASKED = GREETING.replace(b"\xfe\xff\x2d", b"\xde\xf7\x2d")
MY_ROWS = (my(1, b"\1") + my(2, b"\3def" + b"\0" * 10) + my(3, b"\xfe\0\0\2\0") + my(4, b"\x011") + my(5, b"\xfb")
           + my(6, b"\xfe\0\0\2\0"))
MY_TALK = [
    ("server", my(0, GREETING), my(0, MASKED), b""),
    ("client", my(1, HANDSHAKE), b"", my(1, HANDSHAKE)),
    ("server", my(2, b"\xfemysql_native_password\0salt\0"), None, b""),
    ("client", my(3, b"x" * 20), b"", None),
    ("server", my(4, b"\0\0\0\2\0\0\0"), None, b""),
    ("client", my(0, b"\x03SELECT 1"), b"", my(0, b"\x03SELECT 1")),
    ("server", MY_ROWS, MY_ROWS, b""),
    ("client", my(0, b"\x16SELECT ?"), b"", None),
    ("server", my(1, b"\0\1\0\0\0\1\0\1\0\0\0\0") + my(2, b"\3def") + my(3, b"\xfe\0\0\2\0") + my(4, b"\3def")
     + my(5, b"\xfe\0\0\2\0"), None, b""),
    ("client", my(0, b"\x18\1\0\0\0\0\0long") + my(0, b"\x17\1\0\0\0\0\1\0\0\0"), b"", None),
    ("server", my(1, b"\1") + my(2, b"\3def") + my(3, b"\xfe\0\0\2\0") + my(4, b"\0\0\1x") + my(5, b"\xfe\0\0\2\0"),
     None, b""),
    ("client", my(0, b"\x03ALTER TABLE t FORCE"), b"", None),
    # a progress report looks like an error and does not end the answer
    ("server", my(1, b"\xff\xff\xff\1\1\1\0\0\0\4copy") + my(2, b"\0\0\0\2\0\0\0"), None, b""),
    ("client", my(0, b"\x03LOAD DATA LOCAL INFILE 'x' INTO TABLE t"), b"", None),
    ("server", my(1, b"\xfbx"), None, b""),
    ("client", my(2, b"data") + my(3, b""), b"", None),
    ("server", my(4, b"\0\1\0\2\0\0\0"), None, b""),
    ("client", my(0, b"\x09"), b"", None),
    ("server", my(1, b"Uptime: 1"), None, b""),
    ("client", my(0, b"\x19\1\0\0\0") + my(0, b"\x0e"), b"", None),
    ("server", MY_OK, None, b""),
    ("client", my(0, b"\x01"), b"", None),
]


def converse(make, talk, size: int):
    """Plays the talk in pieces of ``size`` bytes (0: whole); returns what came out at each step."""
    hooks = Hooks()
    session = make(hooks.engine)
    if isinstance(session, MySession):
        session.connect()
    seen = []
    for who, data, _, _ in talk:
        to_client = to_server = b""
        for i in range(0, len(data), size or len(data)):
            piece = data[i:i + (size or len(data))]
            (session if who == "client" else hooks.server).receive(piece)
            to_client += session.take_out()
            if hooks.server is not None:
                to_server += hooks.server.take_out()
        seen.append((to_client, to_server))
    return seen


@pytest.mark.parametrize("make, talk", [(PgSession, PG_TALK), (MySession, MY_TALK)], ids=["postgres", "mariadb"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 7, 64])
def test_pieces_of_any_size(make, talk, size):
    seen = converse(make, talk, size)
    for (who, data, client, server), (to_client, to_server) in zip(talk, seen, strict=True):
        relayed = (b"", data) if who == "client" else (data, b"")
        assert to_client == (relayed[0] if client is None else client)
        assert to_server == (relayed[1] if server is None else server)


def logged_in(hooks, address="", version=b""):
    """A session with its server, which says its ``version`` if there is one."""
    session = PgSession(hooks.engine)
    session.address = address
    session.receive(STARTUP)
    server = hooks.server
    told = pg(b"S", b"server_version\0" + version + b"\0") if version else b""
    server.receive(PG_LOGIN.removesuffix(READY) + told + READY)
    session.take_out(), server.take_out()
    return session, server


def answer_session(server, like=b"u"):
    """A session's first write asks what it is like."""
    assert b"SHOW ALL" in server.take_out()
    server.receive(pg_alike(like) + READY)


def answer_probe(session, server):
    """The first write asks the catalogue; with nobody to wait for it then goes alone."""
    answer_session(server)
    assert b"pg_catalog" in server.take_out()
    server.receive(COLUMNS + PG_FACTS + pg(b"C", b"SELECT 1\0") + READY)
    assert server.take_out() == pg(b"Q", INSERT + b"\0")
    server.receive(pg(b"C", b"INSERT 0 1\0") + READY)
    assert session.take_out() == pg(b"C", b"INSERT 0 1\0") + READY


def two_in_a_batch():
    """Two sessions with their servers; a write of each is on its way in one batch."""
    hooks = Hooks()
    a, server_a = logged_in(hooks)
    a.receive(pg(b"Q", INSERT + b"\0"))
    answer_probe(a, server_a)
    b, server_b = logged_in(hooks)
    b.receive(pg(b"Q", INSERT + b"\0"))
    answer_session(server_b)
    a.receive(pg(b"Q", INSERT + b"\0"))
    return a, server_a, b, server_b


def who_leads(a, b):
    """The server connection that got the batch, and the other; the batch is taken from it."""
    sent_a, sent_b = a.take_out(), b.take_out()
    assert bool(sent_a) != bool(sent_b)
    return (a, b) if sent_a else (b, a)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_batch_byte_by_byte(size):
    """Two writes become one transaction; nobody is answered before the commit is."""
    hooks = Hooks()
    a, server_a = logged_in(hooks)
    a.receive(pg(b"Q", INSERT + b"\0"))
    answer_probe(a, server_a)
    b, server_b = logged_in(hooks)
    b.receive(pg(b"Q", INSERT + b"\0"))             # joins a's group, where a may still come: gathered
    answer_session(server_b)
    assert server_b.take_out() == b"" and b.waits
    a.receive(pg(b"Q", INSERT.replace(b"(1)", b"(2)") + b"\0"))
    sent = server_a.take_out()                      # a led nothing yet; the leader is a member either way
    leader = server_a if sent else server_b
    sent = sent or server_b.take_out()
    assert sent == pg(b"Q", b"BEGIN;SET LOCAL lock_timeout=100;" + INSERT + b",(2)\0")

    def feed(data):
        for i in range(0, len(data), size or len(data)):
            leader.receive(data[i:i + (size or len(data))])

    feed(pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0") + pg(b"C", b"INSERT 0 2\0") + pg(b"Z", b"T"))
    assert leader.take_out() == pg(b"Q", b"COMMIT\0")
    assert a.take_out() == b.take_out() == b""
    feed(pg(b"C", b"COMMIT\0") + READY)
    assert a.take_out() == b.take_out() == pg(b"C", b"INSERT 0 1\0") + READY
    assert not a.waits and not b.waits


def test_sessions_of_different_servers_share_no_batch():
    """A reload may point a backend's name to another server while old sessions go on."""
    hooks = Hooks()
    a, server_a = logged_in(hooks, "old")
    a.receive(pg(b"Q", INSERT + b"\0"))
    answer_probe(a, server_a)
    b, server_b = logged_in(hooks, "new")
    b.receive(pg(b"Q", INSERT + b"\0"))
    answer_probe(b, server_b)
    for session, server in ((a, server_a), (b, server_b)):
        session.receive(pg(b"Q", INSERT + b"\0"))
        assert server.take_out() == pg(b"Q", INSERT + b"\0")       # nobody to wait for: alone, at once


@pytest.mark.parametrize("answer, end", [
    (pg(b"C", b"BEGIN\0") + pg(b"E", b"SERROR\0C23505\0Mdup\0\0") + pg(b"Z", b"E"), b"ROLLBACK\0"),
    (pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0") + pg(b"C", b"INSERT 0 1\0") + pg(b"Z", b"T"), b"ROLLBACK\0"),
    (pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0") + pg(b"N", b"SWARNING\0\0") + pg(b"C", b"INSERT 0 2\0")
     + pg(b"Z", b"T"), b"ROLLBACK\0"),
])
def test_what_does_not_fit_is_rolled_back_and_goes_alone(answer, end):
    a, server_a, b, server_b = two_in_a_batch()
    leader, other = who_leads(server_a, server_b)
    leader.receive(answer)
    assert leader.take_out() == pg(b"Q", end)
    leader.receive(pg(b"C", b"ROLLBACK\0") + READY)
    assert a.take_out() == b.take_out() == b""
    assert leader.take_out() == pg(b"Q", b"DISCARD SEQUENCES\0") + pg(b"Q", INSERT + b"\0")
    assert other.take_out() == pg(b"Q", INSERT + b"\0")


@pytest.mark.parametrize("handed", [False, True])
def test_a_lost_connection(handed):
    """Before COMMIT was handed over nothing is kept: the other member goes alone. Afterwards nobody knows."""
    a, server_a, b, server_b = two_in_a_batch()
    leader, other = who_leads(server_a, server_b)
    leads, joined = (a, b) if leader is server_a else (b, a)
    leader.receive(pg(b"C", b"BEGIN\0") + pg(b"C", b"SET\0") + pg(b"C", b"INSERT 0 2\0") + pg(b"Z", b"T"))
    if handed:
        assert leader.take_out() == pg(b"Q", b"COMMIT\0")
    leader.receive_eof()
    said = leads.take_out()
    assert b"C08006\0" in said and leads.closing
    assert (b"outcome is not known" in said) is handed
    if handed:
        assert joined.take_out() == said and joined.closing
        assert other.take_out() == pg(b"X")
    else:
        assert joined.take_out() == b"" and not joined.closing
        assert other.take_out() == pg(b"Q", INSERT + b"\0")
