"""What is fuzzed: functions of bytes that raise AssertionError, or crash, where the core breaks a promise."""

from collections.abc import Callable

from tqdb._core import scan

from tests.fuzz.programs import run_program, serve_garbage

LABEL_BYTES = 1024          # a hint's file and line are cut; the scanner's own bound is lower


def _scan(dialect: str, data: bytes) -> None:
    """The first byte's last bit says whether a backslash escapes."""
    sql = data[1:]
    found = scan(sql, dialect, bool(data[:1] and data[0] & 1))
    a, b = found["text"]
    assert 0 <= a <= b <= len(sql), found
    if found["values"] is not None:
        start, end = found["values"]
        assert a <= start < end <= b and sql[start:start + 1] == b"(" and sql[end - 1:end] == b")", found
        assert 1 <= found["ntuples"] <= end - start and found["ncols"] >= 0, found
    assert len(found["skeleton"]) <= 4 * len(sql) + 16, found
    for name in ("file", "line"):
        assert len(found[name]) <= LABEL_BYTES and found[name] in sql, found
    wait = found["wait_ms"]
    assert wait is None or wait == "auto" or 0 < wait < 1e12, found


def scan_postgres(data: bytes) -> None:
    _scan("postgres", data)


def scan_mariadb(data: bytes) -> None:
    _scan("mariadb", data)


def pg_session(data: bytes) -> None:
    run_program("postgres", data)


def my_session(data: bytes) -> None:
    run_program("mariadb", data)


def pg_server(data: bytes) -> None:
    serve_garbage("postgres", data)


def my_server(data: bytes) -> None:
    serve_garbage("mariadb", data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (scan_postgres, scan_mariadb, pg_session, my_session, pg_server, my_server)}
