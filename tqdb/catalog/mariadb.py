"""MariaDB: facts from information_schema and session variables."""

from tqdb.analysis import Verdict
from tqdb.analysis.mariadb import safe_default
from tqdb.catalog import Facts

# Names are compared as the columns compare them; the hex form needs no quoting under any sql_mode.
# TRIGGER privilege: without it information_schema.TRIGGERS shows none, so "no rows" would prove nothing.
_PROBE = """\
SELECT @@sql_mode, @@auto_increment_increment, @@max_allowed_packet, @@character_set_client,
 @@completion_type, @@session_track_transaction_info, @@session_track_system_variables,
 t.ENGINE, t.TABLE_TYPE, t.CREATE_OPTIONS,
 (SELECT COUNT(*) FROM information_schema.TRIGGERS g
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
    (sql_mode, increment, packet, charset, completion, track_transaction, track_variables, engine, kind,
     options, triggers, may_see_triggers, auto_columns, defaults) = row
    modes = set((sql_mode or "").split(","))
    if charset in UNSAFE_CHARSETS:
        return Facts(False, "charset", why=f"character_set_client is {charset}")
    sessions = (
        (not modes & STRICT, "sql_mode is not strict"),
        ("ANSI_QUOTES" in modes or "ORACLE" in modes, "sql_mode changes what a quote means"),
        (completion not in ("NO_CHAIN", "0"), "completion_type is not NO_CHAIN"),
        (track_transaction not in ("OFF", "0", None, ""), "session_track_transaction_info is on"),
        ("last_gtid" in (track_variables or "") or (track_variables or "").strip() == "*",
         "session_track_system_variables reports every write"),
    )
    for bad, why in sessions:
        if bad:
            return Facts(False, "session_state", why=why)
    auto = _unhex(auto_columns)
    named = {c.lower() for c in verdict.columns} if verdict.columns is not None else None
    tables = (
        (engine != "InnoDB", f"its engine is {engine}"),
        (kind != "BASE TABLE", f"it is a {kind}"),
        ("partitioned" in (options or ""), "it is partitioned"),
        (triggers != "0", "it has triggers"),
        (may_see_triggers == "0",
         "this user may not see its triggers: grant the TRIGGER privilege on it to have its writes batched"),
        (len(auto) > 0 and (named is None or auto[0].lower() in named),
         "the statement gives the auto-increment column"),
        (any(not safe_default(d) for d in _unhex(defaults)), "a default of it reads more than the row"),
    )
    for bad, why in tables:
        if bad:
            return Facts(False, "table", why=why)
    return Facts(True, id_step=int(increment or 1) if auto else 0,
                 byte_limit=max(1024, int(packet or 1048576) - PACKET_SLACK))
