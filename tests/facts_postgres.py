"""What the catalogue of a real PostgreSQL says of a statement, without a proxy."""

from tqdb.analysis import analyze, analyze_statement
from tqdb.catalog import Ask, Facts, postgres

MERGED, PIPELINED, ALONE = "merged", "pipelined", "alone"


def facts(connection, verdict) -> tuple[Facts, int]:
    """What is found, and after how many questions on ``connection`` (psycopg, autocommit)."""
    sql, state, asked = postgres.probe_sql(verdict), (), 0
    while True:
        row = connection.execute(f"SELECT ({sql})::text".encode()).fetchone()
        found, asked = postgres.judge(verdict, [list(row)], *state), asked + 1
        if not isinstance(found, Ask):
            return found, asked
        sql, state = found.sql, (found.state,)


def verdict(sql: str):
    """That of an INSERT of one tuple, as the core has it taken apart, or of any other write."""
    head, values, tail = sql.partition(" VALUES ")
    if values and sql.startswith("INSERT"):
        at, depth = 0, 0
        while at < len(tail) and (at == 0 or depth):
            depth += {"(": 1, ")": -1}.get(tail[at:at + 1], 0)
            at += 1
        found = analyze(0, (head + values).encode(), tail[:at].encode(), tail[at:].encode())
        if found is not None:
            return found
    return analyze_statement(0, sql.encode())


def strategy(connection, sql: str) -> tuple[str, str]:
    """How it may be sent, and why alone."""
    read = verdict(sql)
    if read is None:
        return ALONE, "its text"
    found, _ = facts(connection, read)
    return (MERGED if found.multi_row else PIPELINED) if found.ok else ALONE, found.why
