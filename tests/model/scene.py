"""Clients before the core with tables behind it, what they may say, and the comparison with the direct way.

Every client writes keys of its own, and ``c`` only by adding to it: so neither answers nor tables depend on whose turn
came first, and what a client says can be said once more to a server of its own.
"""

import itertools
from collections.abc import Callable

from tests.model import talk
from tests.model.store import Store
from tests.model.wire import Direct, Link, Wire

HINT = "/* max_wait_ms:5 */ "
WIDE = 100                          # columns of the table ``wide``
PROTOCOLS = ("postgres", "mariadb")
PLAIN, TRIGGER = "t", "p"           # rows of the first are merged, those of the second go as they are


def tables(protocol: str) -> Store:
    store = Store()
    for schema in ("public", "x") if protocol == "postgres" else ("d", "x"):
        for name in (PLAIN, TRIGGER):
            store.create(name, "k a b:text", schema=schema, key="k", least={"a": 0}, trigger=name == TRIGGER)
    schema = "public" if protocol == "postgres" else "d"
    store.create("n", "a", schema=schema)
    store.create("wide", " ".join(f"c{i}" for i in range(WIDE)), schema=schema)
    store.create("c", "k a", schema=schema, key="k").rows[0] = {"k": 0, "a": 0, "~": ""}
    return store


def insert(table: str = PLAIN, *, places: str, more: str = "", hint: str = HINT) -> str:
    return f"{hint}INSERT INTO {table} (k, a) VALUES {places}{more}"


# --- one write in every form that may be gathered: ``FORMS[protocol][name](k, a, table)`` ---------------------------

def pg_text(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    return talk.query(insert(table, places=f"({k}, {a})"))


def pg_returning(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    return talk.query(insert(table, places=f"({k}, {a})", more=" RETURNING k, a"))


def pg_unnamed(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    return talk.unit(insert(table, places="($1, $2)"), (k, a))


def pg_literal(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    return talk.unit(insert(table, places=f"({k}, {a})"))


def pg_named(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    """``Scene`` has prepared it."""
    return talk.unit("", (k, a), "s" + table)


def my_text(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    return talk.com_query(insert(table, places=f"({k}, {a})"))


def my_returning(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    return talk.com_query(insert(table, places=f"({k}, {a})", more=" RETURNING k, a"))


def my_prepared(k: int, a: int = 1, table: str = PLAIN) -> bytes:
    """``Scene`` has prepared it: ``t`` first, then ``p``."""
    return talk.com_execute((PLAIN, TRIGGER).index(table) + 1, (k, a))


FORMS: dict[str, dict[str, Callable[..., bytes]]] = {
    "postgres": {"text": pg_text, "returning": pg_returning, "unnamed": pg_unnamed, "literal": pg_literal,
                 "named": pg_named},
    "mariadb": {"text": my_text, "returning": my_returning, "prepared": my_prepared}}
ALL_FORMS = [(protocol, form) for protocol in PROTOCOLS for form in FORMS[protocol]]
# with the table: merged or as they are
ALL_WAYS = [(*form, table) for form in ALL_FORMS for table in (PLAIN, TRIGGER)]


def query(protocol: str, sql: str) -> bytes:
    return talk.query(sql) if protocol == "postgres" else talk.com_query(sql)


class Scene:
    """``clients`` that have logged in, prepared their statements, and written once in each form."""

    def __init__(self, protocol: str, clients: int = 2, warm: bool = True, **limits):
        self.protocol = protocol
        self.wire = Wire(protocol, tables(protocol), **limits)
        self.numbers = itertools.count(1)
        self.said: dict[Link, bytearray] = {}
        self.links = [self.login() for _ in range(clients)]
        if warm:
            for form in FORMS[protocol].values():
                for table in (PLAIN, TRIGGER):
                    for link in self.links:
                        self.say(link, form(self.key(), 1, table))
                    self.wire.finish()

    def login(self) -> Link:
        link = self.wire.login()
        self.said[link] = bytearray()
        for table in (PLAIN, TRIGGER):
            if self.protocol == "postgres":
                self.say(link, talk.parse(insert(table, places="($1, $2)"), "s" + table) + talk.SYNC)
            else:
                self.say(link, talk.com_prepare(insert(table, places="(?, ?)")))
            self.wire.run([link])
        return link

    def key(self) -> int:
        return next(self.numbers)

    def query(self, sql: str) -> bytes:
        return query(self.protocol, sql)

    def write(self) -> bytes:
        """A hinted write of a new key, as text."""
        return FORMS[self.protocol]["text"](self.key())

    def say(self, link: Link, data: bytes) -> None:
        """The client sends it, now."""
        self.said[link] += data
        link.send(data, 0 if self.wire.amount == 1 << 30 else self.wire.amount)

    def ready(self, size: int = 0) -> "Scene":
        """What was said so far is answered; from here on ``sent`` is anew, and bytes come in pieces of ``size``."""
        self.wire.finish()
        self.wire.amount = size or 1 << 30
        assert not self.wire.stuck()
        for link in self.links:
            link.sent.clear()
        return self

    def leader(self) -> Link:
        """Whose server connection got a batch since ``ready``."""
        found = [link for link in self.links if b"BEGIN" in link.sent or b"autocommit = 0" in link.sent]
        assert len(found) == 1, [bytes(link.sent[:80]) for link in self.links]
        return found[0]

    def go_on(self) -> None:
        """Everybody who is still there writes and reads once more: nothing is left behind."""
        text = FORMS[self.protocol]["text"]
        for table in (PLAIN, TRIGGER):
            for link in self.links:
                if not link.ended:
                    self.say(link, text(self.key(), 7, table))
            self.wire.finish()
        for link in self.links:
            if not link.ended:
                self.say(link, self.query("SELECT 7"))
        self.wire.finish()

    def direct(self, link: Link) -> bytes:
        """What a server of its own answers to all that this client has said."""
        alone = Direct(self.protocol, tables(self.protocol)).login()
        alone.receive(bytes(self.said[link]))
        return alone.take_out()

    def check(self) -> None:
        """Every client's answers, and what is stored, are those of the direct way."""
        direct = Direct(self.protocol, tables(self.protocol))
        for i, link in enumerate(self.links):
            alone = direct.login()
            alone.receive(bytes(self.said[link]))
            expected = alone.take_out()
            assert readable(self.protocol, link.answers) == readable(self.protocol, expected), f"client {i}"
            assert bytes(link.answers) == expected, f"client {i}"
            assert link.ended == alone.closed, f"client {i}"
            alone.kill()
        for link in self.links:
            link.kill_client()
        self.wire.finish()
        assert self.wire.store.stored() == direct.store.stored()
        assert self.wire.engine.gathered == self.wire.engine.batches_running == 0

    def finish(self) -> None:
        self.wire.finish()
        self.go_on()
        self.check()


def readable(protocol: str, data: bytes) -> list[str]:
    """Messages as a test's report shows them best."""
    if protocol == "postgres":
        return [f"{kind.decode()} {body[:60]!r}" for kind, body in talk.messages(bytes(data))]
    return [repr(payload[:60]) for payload in talk.packets(bytes(data))]
