"""What a client's text may cost: every pattern is linear, every call has a bound, what is refused is said."""

import ast
import importlib
import itertools
import pkgutil
import re
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

import tqdb
from tqdb import analysis, bounded, policy, status
from tqdb.analysis import mariadb
from tqdb.bounded import MAX_BYTES, MAX_WORK, MIN_WORK, Budget, Pace, Purpose
from tqdb.config import Config, Rule
from tqdb.rules import Rules

PG, MY = 0, 1
SIZE = 4096             # bytes of the texts that patterns are tried on …
LINEAR = 0.01           # … and the seconds that one may take
ROOT = Path(tqdb.__file__).parent
# whose patterns read other texts than a client's: the user's own command line and configuration
OTHERS = ("tqdb.load", "tqdb.locustfiles", "tqdb.licenses", "tqdb.config", "tqdb.values",
          "tqdb.__main__")
CATEGORIES = {"CATEGORY_SPACE": r"\s", "CATEGORY_NOT_SPACE": r"\S", "CATEGORY_WORD": r"\w", "CATEGORY_DIGIT": r"\d"}


def patterns() -> dict[str, re.Pattern]:
    """Every compiled pattern that a module of the package holds, by its name."""
    found = {}
    for module in pkgutil.walk_packages(tqdb.__path__, "tqdb."):
        if module.name.startswith(OTHERS):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            for n, one in enumerate(value if isinstance(value, tuple) else (value,)):
                if isinstance(one, re.Pattern):
                    found[f"{module.name}.{name}#{n}"] = one
    return found


def samples(tree, letter: str) -> list[str]:
    """Texts that parts of a parsed pattern match; ``letter`` is taken for a class if it is in it."""
    out = []

    def one(nodes) -> str:
        text = ""
        for kind, value in nodes:
            kind = str(kind)
            if kind == "LITERAL":
                text += chr(value)
            elif kind in ("NOT_LITERAL", "ANY"):
                text += letter
            elif kind == "IN":
                text += next((c for c in [letter, "a", "1", " ", "'", *map(chr, range(33, 127))]
                              if re.match(inside(value), c)), "a")
            elif kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
                part = one(value[2])
                text += part * max(1, min(value[0], 100))
            elif kind == "SUBPATTERN":
                text += one(value[3])
            elif kind == "ATOMIC_GROUP":
                text += one(value)
            elif kind == "BRANCH":
                text += max((one(branch) for branch in value[1]), key=len)
                out.extend(one(branch) for branch in value[1])
        if text:
            out.append(text)
        return text

    def inside(parts) -> str:
        text = ""
        for kind, value in parts:
            kind = str(kind)
            if kind == "NEGATE":
                text += "^"
            elif kind == "LITERAL":
                text += re.escape(chr(value))
            elif kind == "RANGE":
                text += f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
            elif kind == "CATEGORY":
                text += CATEGORIES[str(value)]
        return f"[{text}]"

    one(tree)
    return list(filter(None, dict.fromkeys(out)))


def hostile(pattern: re.Pattern, size: int):
    """Texts of ``size`` made of the pattern's own parts: a beginning, a part over and over, an end that fails."""
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    tree = re._parser.parse(text, pattern.flags & ~re.UNICODE)
    parts = list(dict.fromkeys(part for letter in ("a", "'", "\\") for part in samples(tree, letter)))
    parts = [*sorted(parts, key=len)[:24], "/*", "*", "`", '"', "\\'", "''", "a ", ". a", "set ", ";"]
    heads = ["", max(parts, key=len), *parts[:6]]
    for head, part, more in itertools.product(heads, parts, ("", *parts[:6])):
        unit = part + more
        yield (head + unit * (size // len(unit)))[:size] + "\0"


def seconds(call, *args) -> float:
    """CPU time of this thread alone: others may have the machine."""
    began = time.thread_time()
    call(*args)
    return time.thread_time() - began


@pytest.mark.parametrize(("name", "pattern"), patterns().items(), ids=patterns())
def test_every_pattern_is_linear(name, pattern):
    """4 KiB take 130 ns a byte, half a millisecond, at most; quadratic would be 30 ms and more."""
    def work(text):
        text = text.encode("latin-1") if isinstance(pattern.pattern, bytes) else text
        pattern.match(text)
        deque(pattern.finditer(text), 0)

    for text in hostile(pattern, SIZE):
        if seconds(work, text) > LINEAR:        # once more, for who met a collection of garbage
            assert min(seconds(work, text) for _ in range(3)) < LINEAR, (name, text[:100])


def test_a_quadratic_pattern_would_be_found():
    # with 4 KiB the first would never end
    for text, size in ((r"(?:\s|/\*.*?\*/)*show", 100), (r"([\w$]+)\s*\(", SIZE), (r"\bset\b[^;]*?@x", SIZE),
                       (r"'(?:[^'\\]|''|\\.)*'", SIZE)):
        find = re.compile(text, re.DOTALL).finditer
        assert any(seconds(deque, find(text), 0) > LINEAR for text in hostile(re.compile(text, re.DOTALL), size)), text


def test_patterns_are_compiled_where_they_are_found():
    """A pattern inside a function would escape the test above."""
    assert len(patterns()) > 20
    for path in [ROOT / "policy.py", ROOT / "http.py", ROOT / "bounded.py", ROOT / "server.py",
                 ROOT / "status.py",
                 *(ROOT / "analysis").glob("*.py"), *(ROOT / "catalog").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name) and node.func.value.id == "re"):
                assert node.func.attr == "compile", f"{path}:{node.lineno}"


def statements(size: int) -> dict[str, str]:
    """Writes of about ``size`` bytes that parsers find hard."""
    def times(text: str, room: int = 0) -> str:
        return text * max(1, (size - 40 - room) // len(text))

    return {
        "and": "UPDATE t SET a=1 WHERE " + times("a=1 AND ") + "1=1",
        "set": "UPDATE t SET " + times("a=1,") + "a=1",
        "plus": "UPDATE t SET a=" + times("1+") + "1",
        "in": "UPDATE t SET a=1 WHERE a IN (" + times("1,") + "1)",
        "parentheses": "UPDATE t SET a=" + times("(", size // 2) + "1" + times(")", size // 2),
        "brackets": "UPDATE t SET a=a" + times("[1]"),
        "not": "UPDATE t SET a=1 WHERE " + times("not ") + "1",
        "case": "UPDATE t SET a=" + times("case when 1 then ", size // 4) + "1" + times(" end", 3 * size // 4),
        "operators": "UPDATE t SET a=" + times("@ ") + "1",
        "calls": "UPDATE t SET a=" + times("abs(", size // 5) + "1" + times(")", 4 * size // 5),
        "selects": "INSERT INTO t SELECT 1 " + times("UNION SELECT 1 "),
        "word": "UPDATE t SET " + times("a") + "=1",
        "number": "UPDATE t SET a=" + times("1"),
        "string": "UPDATE t SET a='" + times("x") + "'",
        "quotes": "UPDATE t SET a='" + times("''") + "'",
        "backslashes": "UPDATE t SET a='" + times("\\\\") + "'",
        "backticks": "UPDATE t SET a=`" + times("``") + "`",
        "comments": "UPDATE t SET a=1 " + times("/**/"),
        "open comment": "UPDATE t SET a=1 /*" + times("*"),
        "semicolons": "UPDATE t SET a=1" + times(";a"),
        "between": "UPDATE t SET a=1 WHERE " + times("a between 1 and ") + "1",
        "casts": "UPDATE t SET a=" + times("cast(", size // 2) + "1" + times(" as int)", size // 2),
        "dollars": "UPDATE t SET a=$" + times("a$ $"),
        "dots": "UPDATE t SET a=a" + times(".a"),
        "rows": "INSERT INTO t VALUES " + times("(1),") + "(1)",
        "open parentheses": "UPDATE t SET a=" + times("("),
        "open brackets": "UPDATE t SET a=" + times("["),
    }


@pytest.mark.parametrize("name", statements(100))
@pytest.mark.parametrize("dialect", [PG, MY], ids=["postgres", "mariadb"])
def test_no_statement_holds_the_parsers_for_long(dialect, name):
    """30 ms on an idle core; what is asserted leaves room for a slow one. Work, not bytes, is the bound."""
    for size in (4096, 2 * MAX_WORK, MAX_BYTES):
        text = statements(size)[name].encode()[:MAX_BYTES]
        assert min(seconds(analysis.analyze_statement, dialect, text) for _ in range(2)) < 0.2
        values = text.partition(b"=")[2]
        assert min(seconds(analysis.analyze, dialect, b"INSERT INTO t (a) VALUES ", b"(" + values + b")", b"")
                   for _ in range(2)) < 0.2
        assert seconds(policy.pieces, dialect, values, 3) < 0.2


def test_how_fast_parsers_are_decides_what_they_are_given(monkeypatch):
    pace, now = Pace(nested=1), iter([0, 1, 1, 1.005, 2, 9, 0, 1e-7, 0, 1e-7, 0, 1e-7, 0, 1, 1, 2, 2, 3])
    monkeypatch.setattr(bounded, "process_time", lambda: next(now))
    pace.measure(300, lambda: None)         # 5 ms at best
    assert pace.most == 1800
    pace.measure(300, lambda: None)
    assert pace.most == MAX_WORK
    pace.measure(300, lambda: None)
    assert pace.most == MIN_WORK


@pytest.mark.parametrize("dialect", [PG, MY], ids=["postgres", "mariadb"])
def test_a_slow_machine_gives_its_parsers_less(monkeypatch, dialect):
    usual = analysis.PACES[dialect].most
    monkeypatch.setattr(analysis.PACES[dialect], "most", MIN_WORK)

    def read(columns: int):
        names = ", ".join(f"c{i}" for i in range(columns))
        row = b"(" + b", ".join([b"1"] * columns) + b")"
        return analysis.analyze(dialect, f"INSERT INTO t ({names}) VALUES ".encode(), row, b"")

    def summed(terms: int):
        return analysis.analyze_statement(dialect, b"UPDATE t SET a = 1" + b" + 1" * terms)

    assert read(40) and read(100) is None and summed(20) and summed(320) is None
    monkeypatch.setattr(analysis.PACES[dialect], "most", usual)
    assert read(100) and summed(320)


def test_wide_inserts_are_still_read():
    columns = ", ".join(f"c{i}" for i in range(400))
    for dialect in (PG, MY):
        found = analysis.analyze(dialect, f"INSERT INTO t ({columns}) VALUES ".encode(),
                                 b"(" + b", ".join([b"'" + b"x" * 20 + b"'"] * 400) + b")", b"")
        assert found and len(found.columns) == 400


def test_a_text_is_refused_for_its_size_and_not_kept():
    long = b"x" * (MAX_BYTES + 1)
    before = [p.too_long for p in policy.PURPOSES]
    for dialect in (PG, MY):
        assert policy.analyze(dialect, b"INSERT INTO t VALUES ", b"('" + long + b"')", b"") is NotImplemented
        assert policy.analyze_statement(dialect, b"UPDATE t SET a='" + long + b"'") is NotImplemented
        assert policy.pieces(dialect, b"('" + long + b"')", 1) is NotImplemented
        assert policy.explain(dialect, b"UPDATE t SET a='" + long + b"'") is NotImplemented
        assert status.Views(None, 0.0, {}).sql(dialect, b"SHOW TQDB STATUS /*" + long + b"*/", None) is None
        assert policy.session_wait(dialect, b"SET x = '" + long + b"'") is None
    assert policy.session_wait(PG, b"SET TQDB.max_wait_ms = 5 /*" + long + b"*/") == "unreadable"
    assert policy.session_wait(MY, b"SET @TQDB_max_wait_ms = 5 /*" + long + b"*/") == "unreadable"
    assert policy.killed_query(b"KILL QUERY 1 /*" + long + b"*/") is None
    assert policy.row_count_sql(b"SELECT ROW_COUNT() /*" + long + b"*/", 1) is None
    assert policy.startup_wait([b"options", b"-ctqdb.max_wait_ms=5" + long]) is None
    everything = Config(rules=(Rule("all", max_wait_ms="5"),))
    assert Rules(everything).candidates(SimpleNamespace(
        dialect=0, backend="postgres.main", within="", user="", application="x" * 100_000)) == ()
    verdict = analysis.analyze(PG, b"INSERT INTO t VALUES ", b"(1)", b"")
    assert policy.judge(PG, verdict, [[b"x" * 100_000]])[:2] == (False, "table")
    assert all(p.too_long > n for p, n in zip(policy.PURPOSES, before, strict=True))


def test_what_the_catalogue_says_is_not_read_when_the_budget_is_used_up(monkeypatch):
    verdict = analysis.analyze(PG, b"INSERT INTO t VALUES ", b"(1)", b"")
    monkeypatch.setattr(policy._FACTS, "budget", Budget(0.0, 0.0))
    assert policy.judge(PG, verdict, [[b"{}"]]) is NotImplemented
    assert policy.judge(PG, verdict, None)[:2] == (False, "table")


def test_the_budget_is_of_time_measured():
    now = [100.0]
    budget = Budget(0.02, 0.1, clock=lambda: now[0])
    purpose = Purpose("x", 10, budget)
    assert budget.open()
    budget.spend(0.015)
    assert budget.open()            # what is left is enough to begin
    budget.spend(1.0)               # the machine let it wait: that is not held against it for ever
    assert bounded.bounded(purpose, 1, lambda: "done") is NotImplemented and purpose.over_budget == 1
    now[0] += 0.19
    assert not budget.open()
    now[0] += 0.02
    assert bounded.bounded(purpose, 1, lambda: "done") == "done" and purpose.calls == 1
    now[0] += 1000
    assert budget.open() and budget.left == 0.02
    assert bounded.bounded(purpose, 11, lambda: "done") is NotImplemented and purpose.too_long == 1


def test_what_is_raised_is_measured_too():
    purpose = Purpose("x")
    with pytest.raises(ZeroDivisionError):
        bounded.bounded(purpose, 1, lambda: 1 / 0)
    assert purpose.calls == 1 and 0 < purpose.longest == purpose.seconds


@pytest.mark.parametrize(("dialect", "sql", "wait"), [
    (PG, "SET tqdb.max_wait_ms = 5", 5.0), (PG, "set session tqdb . max_wait_ms to '7.5'", 7.5),
    (PG, "SET tqdb.max_wait_ms = auto", -2.0), (PG, "SET tqdb.max_wait_ms TO DEFAULT", "startup"),
    (PG, "SELECT set_config('tqdb.max_wait_ms', '12', false)", 12.0), (PG, "RESET ALL", "startup"),
    (PG, "DISCARD ALL", "startup"), (PG, "SET tqdb.max_wait_ms=5;SET tqdb.max_wait_ms=.5", 0.5),
    (PG, "SET x = 1", None), (PG, "SET tqdb.max_wait_ms = 'what'", "unreadable"),
    (PG, "SET tqdb.max_wait_ms = " + "1" * 5000, "unreadable"), (PG, "SET tqdb.max_wait_ms = 5.", 5.0),
    (PG, "SET tqdb.max_wait_ms = -1", -1.0), (PG, "SET tqdb.max_wait_ms = .", "unreadable"),
    (MY, "SET @tqdb_max_wait_ms = 5", 5.0), (MY, "SET x = 1, @`tqdb_max_wait_ms` := '9'", 9.0),
    (MY, "SET @tqdb_max_wait_ms = 1, @tqdb_max_wait_ms = 2", 2.0), (MY, "SET @tqdb_max_wait_ms = NULL", -3.0),
    (MY, "SELECT @tqdb_max_wait_ms = 1", None), (MY, "SET x = 1; SELECT @tqdb_max_wait_ms = 1", None),
    (MY, 'SET @tqdb_max_wait_ms = "auto"', -2.0), (MY, "SET @tqdb_max_wait_ms", None),
])
def test_what_settings_say(dialect, sql, wait):
    assert policy.session_wait(dialect, sql.encode()) == wait


@pytest.mark.parametrize(("sql", "number"), [
    ("KILL QUERY 5", 5), ("/* a */ /*b*/\n kill soft query 7 ;", 7), ("KILL 5", None), ("KILL QUERY x", None),
    ("/**/" * 30 + "KILL 1 x", None), ("/*/KILL QUERY 5", None), ("KILL QUERY " + "9" * 5000, None),
])
def test_what_kill_names(sql, number):
    assert policy.killed_query(sql.encode()) == number


@pytest.mark.parametrize(("sql", "changed"), [
    ("SELECT ROW_COUNT()", "SELECT COALESCE(3, ROW_COUNT()) AS `ROW_COUNT()`"),
    ("SELECT row_count ( ), 'row_count()'", "SELECT COALESCE(3, ROW_COUNT()) AS `row_count ( )`, 'row_count()'"),
    ("SELECT f(1, ROW_COUNT(), 2), ROW_COUNT() FROM t ORDER BY 1, ROW_COUNT()",
     "SELECT f(1, COALESCE(3, ROW_COUNT()), 2), COALESCE(3, ROW_COUNT()) AS `ROW_COUNT()` FROM t "
     "ORDER BY 1, COALESCE(3, ROW_COUNT())"),
    ("DO 1, ROW_COUNT()", "DO 1, COALESCE(3, ROW_COUNT())"),
    ("SELECT 'it''s row_count()', `row_count()`, \"\\\"row_count()\" /* row_count() */", None),
    ("SELECT 'open row_count()", None), ("SELECT row_count() 'open\\", "SELECT COALESCE(3, ROW_COUNT()) 'open\\"),
    ("SELECT /* open row_count()", None), ("SELECT my_row_count()", None),
])
def test_row_counts_put_in(sql, changed):
    found = policy.row_count_sql(sql.encode(), 3)
    assert (found and found.decode()) == changed


@pytest.mark.parametrize(("sql", "wanted"), [
    ("SHOW TQDB STATUS", "status"), ("/* x */ show  tqdb status ;", "status"), ("SHOW TQDB STATUS x", None),
    ("select * from pg_tqdb_status", "pg_tqdb_status"), ("SELECT tqdb", None), ("/**/" * 30 + "SELECT tqdb", None),
])
def test_status_queries(sql, wanted):
    assert status._wanted(PG, sql.encode()) == wanted


@pytest.mark.parametrize(("values", "nparams", "found"), [
    (b"($1, 'a$2', \"$3\", $2)", 2, ((b"(", 1), (b", 'a$2', \"$3\", ", 2), (b")", 0))),
    (b"($1, 'it''s')", 1, ((b"(", 1), (b", 'it''s')", 0))), (b"($1, 'a\\'b')", 1, None), (b"($1, 'open)", 1, None),
    (b"($1, $$x$$)", 1, None), (b"($1 /* $2 */)", 1, None), (b"($1)", 2, None), (b"($123456)", 1, None),
    (b"($1, a$1)", 1, ((b"(", 1), (b", a$1)", 0))),
])
def test_pieces(values, nparams, found):
    assert policy.pieces(PG, values, nparams) == found


@pytest.mark.parametrize(("sql", "table"), [
    ("insert into t(a)values(1)", "t"), ("INSERT t SET a = 1", "t"), ("insert into `a``b` . `c` (x) select 1", "c"),
    ("update t as x set a = 1", "t"), ("delete from t where a = 1", "t"), ("delete from t", "t"),
    ("replace into t   values (1)", "t"), ("update t set a = f(1)", None), ("update t set a = @x", None),
    ("update t set a = 'open", None), ("update t set a = " + "1" * 81, None),
    ("update t set a = '" + "1" * 81 + "'", "t"),
])
def test_mariadb_writes(sql, table):
    found = mariadb.plain_statement(sql)
    assert (found and found["table"]) == table


def test_mariadb_tokens():
    assert [t.text for t in mariadb.read("A 'b''c\\'' \"d\"/**/`E``f`. 1.5e3 x", True)] == [
        "a", "'b''c\\''", '"d"', "E`f", ".", "1.5e3", "x"]
    assert [mariadb.read(text) for text in ("a 'open", "a `open", "a /* open", "@x", "a \\ b", "'a\\'b'")] == [None] * 6
