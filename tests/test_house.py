"""The house keeps its order: imports point down, names of the contract are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

METRICS = """
tqdbproxy_query_total tqdbproxy_query_latency_seconds_count tqdbproxy_database_queries_total
tqdbproxy_backend_write_queries_total tqdbproxy_batched_writes_total tqdbproxy_individual_writes_total
tqdbproxy_write_excluded_total tqdbproxy_write_batch_size_count tqdbproxy_write_batch_delay_seconds_count
tqdbproxy_write_batch_latency_seconds_count tqdbproxy_write_batch_flush_total tqdbproxy_write_batch_method_total
tqdbproxy_write_batch_retries_total tqdbproxy_write_aggregation_factor tqdbproxy_batch_effectiveness_percent
tqdbproxy_write_ops_per_second tqdbproxy_write_current_delay_seconds tqdbproxy_client_connections
tqdbproxy_server_connections tqdbproxy_hint_errors_total tqdbproxy_protocol_errors_total
tqdbproxy_tls_connections
tqdbproxy_label_sets_dropped_total tqdbproxy_loop_turn_seconds_count tqdbproxy_internal_errors_total
""".split()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_imports_point_down():
    done = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout


def test_the_core_checks_its_indexes():
    """What a peer's message makes wrong is an exception for the guard, and not a segmentation fault of the process."""
    assert (ROOT / "tqdb/_core.pyx").read_text().startswith("# cython: boundscheck=True\n")


def test_the_core_imports_no_room_above_it():
    rooms = [ROOT / "tqdb/_core.pyx", *(ROOT / "tqdb/core").glob("*.pxi")]
    assert len(rooms) > 5
    for room in rooms:
        imported = re.findall(r"^\s*(?:from|import|cimport)\s+([\w.]+)", room.read_text(), re.MULTILINE)
        assert not [name for name in imported if name.startswith("tqdb")], room


def core_rooms() -> dict[str, str]:
    """The core's rooms in the order in which they are included, without comments and texts."""
    order = re.findall(r'^include "(core/\w+\.pxi)"', (ROOT / "tqdb/_core.pyx").read_text(), re.MULTILINE)
    code = {}
    for room in order:
        text = re.sub(r'""".*?"""', "", (ROOT / "tqdb" / room).read_text(), flags=re.DOTALL)
        code[room] = re.sub(r"#.*|b?f?'[^'\\n]*'|b?f?\"[^\"\\n]*\"", "", text)
    return code


def defined_in(code: str) -> set[str]:
    """Names that a room gives to those behind it: classes, functions, enum members, constants."""
    names = set(re.findall(r"^(?:cdef|cpdef)?\s*class (\w+)[(:]", code, re.MULTILINE))
    names |= set(re.findall(r"^(?:cdef|cpdef|def)\s[^=\n]*?(\w+)\(", code, re.MULTILINE))
    names |= set(re.findall(r"^(?:cdef\s+[\w*\[\]]+\s+)?([A-Z][A-Z0-9_]+)(?:\[\d+\])*\s*(?:=|$)", code, re.MULTILINE))
    for body in re.findall(r"^cdef enum[^\n]*:\n((?:[ ]+\w[^\n]*\n|\s*\n)+)", code, re.MULTILINE):
        names |= set(re.findall(r"^\s+([A-Z]\w+)", body, re.MULTILINE))
    return names


def test_the_core_uses_only_rooms_below():
    rooms = core_rooms()
    assert len(rooms) > 20
    assert {f"core/{room.name}" for room in (ROOT / "tqdb/core").glob("*.pxi")} == set(rooms)
    announced = [(room, name) for room, code in rooms.items()
                 for name in re.findall(r"^cdef class (\w+)$", code, re.MULTILINE)]
    assert all(re.search(rf"^cdef class {name}[(:]", rooms[room], re.MULTILINE) for room, name in announced), announced
    home = {name: i for i, code in enumerate(rooms.values()) for name in defined_in(code)}
    assert {"Buffer", "Expectations", "Held", "Batch", "Engine", "PgSession", "MyServer", "WAIT", "mix"} <= home.keys()
    for i, (room, code) in enumerate(rooms.items()):
        used = set(re.findall(r"(?<![.\w])[A-Za-z_]\w*", code))
        assert sorted(name for name in used if home.get(name, 0) > i) == [], room


def test_every_metric_of_the_contract(proxy, pg, my, table):
    connection = pg()
    connection.execute(f"CREATE TABLE {table} (a int)")
    connection.execute(f"/* max_wait_ms:5 file:x.py line:7 */ INSERT INTO {table} (a) VALUES (1)")
    connection.execute(f"/* max_wait_ms:what */ INSERT INTO {table} (a) VALUES (1)")
    text = proxy.get("/metrics")
    assert [name for name in METRICS if not re.search(rf"^{name}[ {{]", text, re.MULTILINE)] == []
    assert proxy.metric("tqdbproxy_write_excluded_total", file="x.py", line="7", query_type="insert") == 1
    assert proxy.metric("tqdbproxy_hint_errors_total", protocol="postgres") >= 1


def test_every_write_is_counted_once(proxy):
    batched = proxy.metric("tqdbproxy_batched_writes_total")
    alone = proxy.metric("tqdbproxy_individual_writes_total")
    writes = sum(proxy.metric("tqdbproxy_query_total", query_type=q)
                 for q in ("insert", "update", "delete", "replace"))
    assert batched + alone == writes
