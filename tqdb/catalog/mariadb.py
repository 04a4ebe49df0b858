"""MariaDB: facts from SHOW CREATE TABLE, information_schema and session variables, judged by lists of what is known.

Two questions: the session with the table's triggers, then the table's definition; and one more for each other table
that the statement reads. Tables are named by constants in information_schema's conditions, so that the server opens
these and no others (MariaDB's manual, "Optimizations for Information Schema").
"""

from typing import NamedTuple

from tqdb.analysis import Verdict
from tqdb.analysis.mariadb_allowed import MERGED
from tqdb.analysis.mariadb_read import Table, read_table, read_trigger
from tqdb.catalog import Ask, Facts

# What a server does not have is in comments that it does not execute ("Comment Syntax" in both manuals).
# TRIGGER privilege: without it information_schema.TRIGGERS shows none, so "no rows" would prove nothing.
_PROBE = """\
SELECT @@sql_mode, @@auto_increment_increment, @@max_allowed_packet, @@character_set_client, @@completion_type,
 CONCAT('' /*M!100202 , @@session_track_transaction_info */ /*!50708 , @@session_track_transaction_info */),
 CONCAT('' /*M!100202 , @@session_track_system_variables */ /*!50704 , @@session_track_system_variables */),
 CONCAT('' /*!50706 , @@session_track_gtids */),
 0 /*M!100101 + @@max_statement_time */,
 (SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES u WHERE u.PRIVILEGE_TYPE = 'TRIGGER'
  AND u.GRANTEE = {grantee}) * (1 /*!80016 - @@partial_revokes */)
 + (SELECT COUNT(*) FROM information_schema.SCHEMA_PRIVILEGES s WHERE s.PRIVILEGE_TYPE = 'TRIGGER'
    AND s.GRANTEE = {grantee} AND {schema} LIKE s.TABLE_SCHEMA)
 + (SELECT COUNT(*) FROM information_schema.TABLE_PRIVILEGES p WHERE p.PRIVILEGE_TYPE = 'TRIGGER'
    AND p.GRANTEE = {grantee} AND p.TABLE_SCHEMA = {schema} AND p.TABLE_NAME = {table}),
 (SELECT SUM(LENGTH(g.SQL_MODE) + LENGTH(g.ACTION_STATEMENT)) FROM information_schema.TRIGGERS g
  WHERE g.EVENT_OBJECT_SCHEMA = {schema} AND g.EVENT_OBJECT_TABLE = {table}),
 (SELECT GROUP_CONCAT(HEX(g.SQL_MODE), '.', HEX(g.ACTION_STATEMENT)) FROM information_schema.TRIGGERS g
  WHERE g.EVENT_OBJECT_SCHEMA = {schema} AND g.EVENT_OBJECT_TABLE = {table})"""
_GRANTEE = ("CONCAT('''', SUBSTRING(CURRENT_USER(), 1, CHAR_LENGTH(CURRENT_USER()) - 1 - CHAR_LENGTH("
            "SUBSTRING_INDEX(CURRENT_USER(), '@', -1))), '''@''', SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''')")

UNSAFE_CHARSETS = frozenset(("sjis", "cp932", "gbk", "big5", "gb18030"))
STRICT = frozenset(("STRICT_TRANS_TABLES", "STRICT_ALL_TABLES"))
OTHER_QUOTES = frozenset(("ANSI_QUOTES", "ORACLE"))
# what servers and drivers have reported in OK packets: no write and nothing around a batch changes these
_TRACKED = frozenset((
    "", "autocommit", "character_set_client", "character_set_connection", "character_set_results", "redirect_url",
    "sql_mode", "time_zone", "transaction_isolation", "tx_isolation"))
PACKET_SLACK = 4096
# of the literals that a column of such a type is compared with as with any value of its own
_KEY_TYPES = {"tinyint": "number", "smallint": "number", "mediumint": "number", "int": "number", "bigint": "number",
              "char": "string", "varchar": "string"}


class _State(NamedTuple):
    """What the answers so far have told, and the tables that are still to be asked about."""

    modes: frozenset[str]
    increment: int
    byte_limit: int
    wait_limit: float
    triggers: bool
    table: Table | None
    left: tuple[tuple[str | None, str], ...]


def text(value: str) -> str:
    return f"CONVERT(0x{value.encode().hex()} USING utf8mb4)" if value else "''"


def _quote(name: str) -> str:
    """A name as a string in the client's own bytes, right under any sql_mode (``judge`` refuses backslashes)."""
    return "'" + name.replace("\\", "").replace("'", "''") + "'"


def probe_sql(verdict: Verdict) -> str:
    schema = "DATABASE()" if verdict.schema is None else _quote(verdict.schema)
    return _PROBE.format(schema=schema, table=_quote(verdict.table), grantee=_GRANTEE)


def judge(verdict: Verdict, rows: list[list[str | None]], state: _State | None) -> Facts | Ask:
    found = _judge_session(verdict, rows[0]) if state is None else _judge_table(verdict, rows[0], state)
    if isinstance(found, _State):
        schema, table = found.left[0]
        name = "`" + table.replace("`", "``") + "`"
        if schema is not None:
            name = "`" + schema.replace("`", "``") + "`." + name
        return Ask("SHOW CREATE TABLE " + name, found)
    return found


def _judge_session(verdict: Verdict, row: list[str | None]) -> Facts | _State:
    (sql_mode, increment, packet, charset, completion, track_transaction, track_variables, track_gtids,
     max_statement_time, may_see_triggers, triggers_size, triggers) = row
    modes = frozenset((sql_mode or "").split(","))
    if charset in UNSAFE_CHARSETS:
        return Facts(False, "charset", why=f"character_set_client is {charset}")
    for bad, why in (
            (modes & OTHER_QUOTES, "sql_mode changes what a quote means"),
            (completion not in ("NO_CHAIN", "0"), "completion_type is not NO_CHAIN"),
            (track_transaction not in ("OFF", "0", None, ""), "session_track_transaction_info is on"),
            (track_gtids not in ("OFF", "0", None, ""), "session_track_gtids is on"),
            ({name.strip().lower() for name in (track_variables or "").split(",")} - _TRACKED,
             "session_track_system_variables names one that a batch may set")):
        if bad:
            return Facts(False, "session_state", why=why)
    if may_see_triggers == "0":
        return Facts(False, why="this user may not see its triggers: grant the TRIGGER privilege on it to have its "
                                "writes batched")
    if any("\\" in part for part in (verdict.schema or "", verdict.table)):
        return Facts(False, why="its name has a backslash")
    bodies = [[bytes.fromhex(part).decode("utf-8", "replace") for part in pair.split(".")]
              for pair in (triggers or "").split(",") if pair]
    if sum(len(bytes.fromhex(part)) for pair in (triggers or "").split(",") for part in pair.split(".")) != int(
            float(triggers_size or 0)):
        return Facts(False, why="its triggers are too long to be looked at")
    for mode, body in bodies:
        if {"NO_BACKSLASH_ESCAPES", *OTHER_QUOTES} & set(mode.split(",")):
            return Facts(False, why="a trigger of it was made under a sql_mode that changes what a quote means")
        why = read_trigger(body)
        if why:
            return Facts(False, why=f"a trigger of it {why}")
    return _State(modes, int(increment or 1), max(1024, int(packet or 1048576) - PACKET_SLACK),
                  float(max_statement_time or 0) / 2, bool(bodies), None,
                  ((verdict.schema, verdict.table), *verdict.relations))


def _judge_table(verdict: Verdict, row: list[str | None], state: _State) -> Facts | _State:
    # of a view, two columns more are told
    table = Table("it is a VIEW") if len(row) > 2 else read_table(
        row[1] or "", "NO_BACKSLASH_ESCAPES" not in state.modes)
    if table.why:
        other = "" if state.table is None else f"of {state.left[0][1]}, which it reads: "
        return Facts(False, why=other + table.why)
    if state.table is None:
        state = state._replace(table=table)
    state = state._replace(left=state.left[1:])
    if state.left:
        return state
    table = state.table
    alone = (
        not verdict.multi_row,
        state.triggers,
        not state.modes & STRICT,         # NULL into NOT NULL is an error alone and a default among several rows
        table.where != MERGED,
        table.auto is not None and _may_give(verdict.columns, table),
    )
    return Facts(True, id_step=state.increment if table.auto else 0, byte_limit=state.byte_limit,
                 multi_row=not any(alone), wait_limit=state.wait_limit, key=_key(verdict, table, state))


def _key(verdict: Verdict, table: Table, state: _State) -> str:
    """See ``Facts.key``. What one statement does to rows one by one in the order of the key, statements would do."""
    if (verdict.key is None or table.primary is None or verdict.key.lower() != table.primary.lower()
            or verdict.relations or state.triggers or not state.modes & STRICT or table.where != MERGED):
        return ""
    return _KEY_TYPES.get(table.types[table.primary], "")


def _may_give(columns: tuple[str, ...] | None, table: Table) -> bool:
    """Whether the auto-increment column may be among ``columns``.

    Names are compared without case and accents, so beside ASCII a name is another one only if another column has it.
    """
    if columns is None:
        return True
    others = {c for c in table.columns if c != table.auto and "\ufffd" not in c}
    return any(c not in others and not (c.isascii() and table.auto.isascii() and c.lower() != table.auto.lower())
               for c in columns)
