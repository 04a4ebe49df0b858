"""What rules have asked of a server, and answers under rules: the same as direct, whatever comes."""

import pytest

from tests import test_oracle as oracle
from tests.model import talk
from tests.sansio import Hooks
from tests.test_sans_io import logged_in
from tests.wire import COLUMNS, PG_FACTS, READY, pg, pg_alike, pg_fields, pg_query
from tqdb.config import Config, Rule

WRITE = pg_query("INSERT INTO t (a) VALUES (1)")
DONE = pg(b"C", b"INSERT 0 1\0") + READY
UNIT = talk.unit("INSERT INTO t (a) VALUES ($1)", (1,))
UNIT_DONE = pg(b"1") + pg(b"2") + pg(b"n") + DONE


def ruled(**keys):
    """A session under one rule, and its server."""
    hooks = Hooks()
    hooks.put_rules(Config(rules=(Rule("r", **{"max_wait_ms": "1000", **keys}),)))
    return hooks, *logged_in(hooks)


def alike(path: bytes) -> bytes:
    return pg_alike().replace(pg(b"D", pg_fields(b"u", b"u", b"2026-01-01", b"{pg_catalog,public}")),
                              pg(b"D", pg_fields(b"u", b"u", b"2026-01-01", path)))


@pytest.mark.parametrize(("write", "done"), [(WRITE, DONE), (UNIT, UNIT_DONE)], ids=["text", "unit"])
def test_the_question_goes_in_front_and_the_write_behind_it(write, done):
    """The first write is relayed at once; the second, whose rule is known, is held."""
    hooks, session, server = ruled(table="public.t")
    session.receive(write)
    sent = server.take_out()
    assert b"SHOW ALL" in sent and sent.endswith(write)
    server.receive(pg_alike() + READY + done)
    assert session.take_out() == done and hooks.engine.rule_hits() == {"r": 0}
    session.receive(write)
    # it is known by what its server has said; next the catalogue is asked, for it as for one with a hint
    assert b"pg_catalog" in server.take_out() and session.waits and hooks.engine.rule_hits() == {"r": 1}


def test_half_of_something_is_not_cut_by_a_second_question():
    """The session has a schema for temporary objects, and its client has sent the half of a unit behind the first."""
    _, session, server = ruled(table="other.t")
    session.receive(WRITE)
    server.take_out()
    session.receive(talk.parse("SELECT 1"))
    assert server.take_out() == talk.parse("SELECT 1")
    server.receive(alike(b"{pg_temp_3,pg_catalog,public}") + READY)
    assert server.take_out() == b""
    server.receive(DONE)
    session.receive(talk.bind() + talk.EXECUTE + talk.SYNC)
    assert server.take_out() == talk.bind() + talk.EXECUTE + talk.SYNC


@pytest.mark.parametrize("say", [b"B", b"S"], ids=["in a transaction", "in a segment"])
def test_nothing_is_asked_where_it_may_not_be(say):
    _, session, server = ruled(table="public.t")
    if say == b"B":
        session.receive(pg_query("BEGIN"))
        server.take_out()
        server.receive(pg(b"C", b"BEGIN\0") + pg(b"Z", b"T"))
    else:
        session.receive(talk.parse("SELECT 1"))
        server.take_out()
    session.receive(WRITE)
    assert server.take_out() == WRITE


def test_the_catalogue_is_asked_where_the_search_path_leaves_it_open():
    hooks, session, server = ruled(table="s.t")
    session.receive(WRITE)
    server.take_out()
    server.receive(alike(b'{pg_catalog,"s",public}') + READY + DONE)
    session.receive(WRITE)
    sent = server.take_out()
    assert b"'schema'" in sent and sent.endswith(WRITE)
    facts = PG_FACTS.replace(b'{"version"', b'{"schema": "s", "version"')
    body = facts[5:].replace(facts[7:11], (len(facts) - 11).to_bytes(4, "big"), 1)
    server.receive(COLUMNS + pg(b"D", body) + pg(b"C", b"SELECT 1\0") + READY + DONE)
    session.receive(WRITE)
    assert hooks.engine.rule_hits() == {"r": 1}


def test_a_new_session_of_a_login_for_which_a_rule_has_decided_is_asked_before_its_first_write():
    hooks, session, server = ruled(table="public.t")
    session.receive(WRITE)
    server.take_out()
    server.receive(pg_alike() + READY + DONE)
    other, server = logged_in(hooks)
    other.receive(WRITE)
    sent = server.take_out()
    assert b"SHOW ALL" in sent and WRITE not in sent
    # … and should its server say otherwise, the write goes as it came
    server.receive(alike(b"{pg_catalog,s}") + READY)
    assert server.take_out() == WRITE and hooks.engine.rule_hits() == {"r": 0}


def test_scopes_and_rulings_are_bounded():
    """Ten thousand shapes and more: what was found is found anew."""
    hooks, session, server = ruled(verb="update")
    hooks.engine.set_rules([("off", -1.0, False, ("update",))])
    for n in range(10_050):
        session.receive(pg_query(f"UPDATE t SET c{n} = 1"))
        server.receive(pg(b"C", b"UPDATE 0\0") + READY)
    server.take_out()
    assert hooks.engine.rule_hits() == {"off": 10_050}


RULES = {
    "a rule for all": ("", "[rule.all]\nmax_wait_ms = 60\n"),
    "a rule for a schema": ("", "[rule.t]\nmax_wait_ms = 60\ntable = *.t\nprotocol = mariadb\n"
                                "[rule.s]\nmax_wait_ms = 60\ntable = public.t\n"),
    "forced over hints": ("/* max_wait_ms:0 */ ", "[rule.all]\nmax_wait_ms = 60\nforce = yes\n"),
}


@pytest.mark.parametrize("rules", RULES)
def test_answers_under_rules_are_the_same(start_proxy, postgres, mariadb, table, monkeypatch, rules):
    hint, config = RULES[rules]
    monkeypatch.setattr(oracle, "HINT", hint)
    proxy = start_proxy(postgres=postgres, mariadb=mariadb, config=config)
    oracle.test_postgres_answers_are_the_same(postgres, proxy, oracle.SESSIONS, table)
    for flags in (0, oracle.CLIENT.FOUND_ROWS):
        oracle.test_mariadb_answers_are_the_same(mariadb, proxy, oracle.SESSIONS, flags, f"{table}m{flags}")
    assert proxy.metric("tqdbproxy_internal_errors_total") == 0
