"""MariaDB: facts from information_schema and session variables."""

from tqdb.analysis import Verdict
from tqdb.analysis.mariadb import safe_default, safe_trigger
from tqdb.catalog import Facts

# Names are compared as the columns compare them; the hex form needs no quoting under any sql_mode.
# TRIGGER privilege: without it information_schema.TRIGGERS shows none, so "no rows" would prove nothing.
_PROBE = """\
SELECT @@sql_mode, @@auto_increment_increment, @@max_allowed_packet, @@character_set_client,
 @@completion_type, @@session_track_transaction_info, @@session_track_system_variables,
 @@max_statement_time, t.ENGINE, t.TABLE_TYPE, t.CREATE_OPTIONS,
 (SELECT SUM(LENGTH(g.ACTION_STATEMENT)) FROM information_schema.TRIGGERS g
  WHERE g.EVENT_OBJECT_SCHEMA = t.TABLE_SCHEMA AND g.EVENT_OBJECT_TABLE = t.TABLE_NAME),
 (SELECT GROUP_CONCAT(HEX(g.ACTION_STATEMENT)) FROM information_schema.TRIGGERS g
  WHERE g.EVENT_OBJECT_SCHEMA = t.TABLE_SCHEMA AND g.EVENT_OBJECT_TABLE = t.TABLE_NAME),
 (SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES u WHERE u.PRIVILEGE_TYPE = 'TRIGGER')
 + (SELECT COUNT(*) FROM information_schema.SCHEMA_PRIVILEGES s
    WHERE s.PRIVILEGE_TYPE = 'TRIGGER' AND t.TABLE_SCHEMA LIKE s.TABLE_SCHEMA)
 + (SELECT COUNT(*) FROM information_schema.TABLE_PRIVILEGES p WHERE p.PRIVILEGE_TYPE = 'TRIGGER'
    AND p.TABLE_SCHEMA = t.TABLE_SCHEMA AND p.TABLE_NAME = t.TABLE_NAME),
 (SELECT GROUP_CONCAT(HEX(c.COLUMN_NAME)) FROM information_schema.COLUMNS c
  WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME
  AND c.EXTRA LIKE '%auto_increment%'),
 (SELECT GROUP_CONCAT(HEX(c.COLUMN_DEFAULT)) FROM information_schema.COLUMNS c
  WHERE c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME
  AND c.COLUMN_DEFAULT LIKE '%(%')
FROM information_schema.TABLES t
WHERE t.TABLE_SCHEMA = {schema} AND t.TABLE_NAME = {table}"""

UNSAFE_CHARSETS = frozenset(("sjis", "cp932", "gbk", "big5", "gb18030"))
STRICT = frozenset(("STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"))
PACKET_SLACK = 4096


def text(value: str) -> str:
    return f"CONVERT(0x{value.encode().hex()} USING utf8mb4)" if value else "''"


def probe_sql(verdict: Verdict) -> str:
    schema = "DATABASE()" if verdict.schema is None else text(verdict.schema)
    return _PROBE.format(schema=schema, table=text(verdict.table))


def _unhex(value: str | None) -> list[str]:
    return [bytes.fromhex(part).decode("utf-8", "replace") for part in value.split(",")] if value else []


def judge(verdict: Verdict, row: list[str | None]) -> Facts:
    (sql_mode, increment, packet, charset, completion, track_transaction, track_variables,
     max_statement_time, engine, kind, options, triggers_size, triggers, may_see_triggers, auto_columns,
     defaults) = row
    modes = set((sql_mode or "").split(","))
    if charset in UNSAFE_CHARSETS:
        return Facts(False, "charset", why=f"character_set_client is {charset}")
    sessions = (
        ("ANSI_QUOTES" in modes or "ORACLE" in modes, "sql_mode changes what a quote means"),
        (completion not in ("NO_CHAIN", "0"), "completion_type is not NO_CHAIN"),
        (track_transaction not in ("OFF", "0", None, ""), "session_track_transaction_info is on"),
        ("last_gtid" in (track_variables or "") or (track_variables or "").strip() == "*",
         "session_track_system_variables reports every write"),
    )
    for bad, why in sessions:
        if bad:
            return Facts(False, "session_state", why=why)
    bodies = _unhex(triggers)
    for bad, why in (
            (engine != "InnoDB", f"its engine is {engine}"),
            (kind != "BASE TABLE", f"it is a {kind}"),
            (may_see_triggers == "0",
             "this user may not see its triggers: grant the TRIGGER privilege on it to have its writes batched"),
            (sum(len(body.encode()) for body in bodies) != int(float(triggers_size or 0)),
             "its triggers are too long to be looked at"),
            (not all(safe_trigger(body) for body in bodies), "a trigger of it does more than compute with its row")):
        if bad:
            return Facts(False, "table", why=why)
    auto = _unhex(auto_columns)
    named = {c.lower() for c in verdict.columns} if verdict.columns is not None else None
    alone = (
        not verdict.multi_row,
        bool(bodies),
        not modes & STRICT,         # NULL into NOT NULL is an error alone and a default among several rows
        "partitioned" in (options or ""),
        len(auto) > 0 and (named is None or auto[0].lower() in named),
        any(not safe_default(d) for d in _unhex(defaults)),
    )
    return Facts(True, id_step=int(increment or 1) if auto else 0,
                 byte_limit=max(1024, int(packet or 1048576) - PACKET_SLACK),
                 multi_row=not any(alone), wait_limit=float(max_statement_time or 0) / 2)
