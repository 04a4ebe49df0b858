"""What a session is like, as its server says: sessions that get the same answer would do the same with any write.

The question is to be cheap, for short connections ask it for each: on a new connection every function and every table
that is named costs more than what is answered.

PostgreSQL: all settings that it shows but for the application's name, which no write that is batched reads; users, the
resolved ``search_path``, and which server it is. ``SHOW ALL`` and four values cost a quarter of what pg_settings does.
MariaDB: the variables that can change what a write does or answers, database, user and role, and which server it is.
Left out are variables that only concern speed, memory and logs, and what the proxy looks after itself (last insert id,
warnings, transactions). Reading the variables by name costs a third of what information_schema does; which of them
there are is asked once for each version of a server.
"""

import hashlib
import re

from tqdb.analysis import DIALECTS
from tqdb.catalog.postgres_probe import quote

# Of MariaDB's and MySQL's session variables those that can change what a write does, answers, or replicates.
MARIADB_VARIABLES = tuple("""
    alter_algorithm auto_increment_increment auto_increment_offset autocommit binlog_format
    binlog_direct_non_transactional_updates binlog_row_image block_encryption_mode character_set_client
    character_set_collations character_set_connection character_set_database character_set_filesystem
    character_set_results character_set_server check_constraint_checks collation_connection collation_database
    collation_server column_compression_threshold completion_type default_regex_flags default_storage_engine
    default_tmp_storage_engine default_week_format div_precision_increment enforce_storage_engine
    explicit_defaults_for_timestamp foreign_key_checks group_concat_max_len gtid_domain_id
    idle_readonly_transaction_timeout idle_transaction_timeout idle_write_transaction_timeout
    innodb_lock_wait_timeout innodb_snapshot_isolation innodb_strict_mode innodb_table_locks lc_messages
    lc_time_names lock_wait_timeout low_priority_updates max_allowed_packet max_error_count max_join_size
    max_recursive_iterations max_session_mem_used max_sort_length max_sp_recursion_depth max_statement_time
    max_execution_time note_verbosity old old_mode pseudo_slave_mode server_id session_track_schema
    session_track_state_change session_track_system_variables session_track_transaction_info skip_replication
    sql_auto_is_null sql_big_selects sql_if_exists sql_log_bin sql_mode sql_notes sql_safe_updates sql_select_limit
    sql_warnings standard_compliant_cte system_versioning_alter_history system_versioning_asof
    system_versioning_insert_history time_zone transaction_isolation transaction_read_only tx_isolation tx_read_only
    unique_checks updatable_views_with_limit wsrep_causal_reads wsrep_dirty_reads wsrep_on wsrep_retry_autocommit
    wsrep_sync_wait wsrep_trx_fragment_size wsrep_trx_fragment_unit
""".split())
# which server it is, and settings of the whole server that decide what its sessions do
_MARIADB_SERVER = ("hostname", "port", "datadir", "server_uid", "server_uuid", "innodb_autoinc_lock_mode")

MAX_VERSIONS = 64               # of servers whose variables are remembered

_MARIADB_NAMES = """\
SELECT ROW_COUNT(), VARIABLE_NAME FROM information_schema.SYSTEM_VARIABLES WHERE VARIABLE_NAME IN ({names})
LIMIT 1000"""
# Created temporary objects are counted; SET timestamp shows in the difference of two clocks. QUOTE tells NULL from
# 'NULL'. The LIMIT is there for sql_select_limit.
_MARIADB = """\
SELECT ROW_COUNT(), ABS(@@timestamp - UNIX_TIMESTAMP(SYSDATE(6))) > 2 OR VARIABLE_VALUE > 0, @@session.wait_timeout,
 CONCAT({values}), DATABASE(), CURRENT_USER(), CURRENT_ROLE()
FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'COM_CREATE_TEMPORARY_TABLE' LIMIT 1"""

# Nothing is cast, for on a new connection every function is looked up, those of casts too.
_POSTGRES = """\
SHOW ALL;SELECT current_user, session_user, pg_catalog.pg_postmaster_start_time(), pg_catalog.current_schemas(true)"""
_POSTGRES_SCHEMAS = 3           # the place of the resolved search path; behind it are the custom settings
# of a session that has a schema for temporary objects: whether there are any
_POSTGRES_TEMP = b"""\
SELECT '~alone', (EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema())
 OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()))::pg_catalog.text"""
# A user's schema in front of pg_catalog would let functions of users stand in for the server's. One for temporary
# objects is in the list as soon as the session has it.
_CATALOG_FIRST = re.compile(rb"\{(?:pg_temp_\d+,)*pg_catalog[,}]").match
_HAS_TEMPORARY = re.compile(rb"[{,]pg_temp_\d+[,}]").search
_DURATION = re.compile(rb"(\d+)(ms|s|min|h|d)?\Z").match        # as SHOW gives it, in the largest unit that fits
_SECONDS = {None: 0.001, b"ms": 0.001, b"s": 1.0, b"min": 60.0, b"h": 3600.0, b"d": 86400.0}

_FALSE = (b"false", b"0")
Next = tuple[bytes, object]                     # what is asked next, and what it is to be judged with
Judgement = tuple[bool, bytes, bytes, float, tuple[str, ...]]    # refused, digest, reading, idle_limit, schemas
UNLIKE: Judgement = (True, b"", b"", 0.0, ())       # like no other


class Questions:
    """What one process asks sessions' servers, and reads of their answers."""

    def __init__(self):
        self.variables: dict[bytes, tuple[str, ...]] = {}   # of MariaDB: version -> those of ours that it has

    def first(self, dialect: int, settings: tuple[str, ...], version: bytes) -> Next:
        """The first question, and the state to be judged with.

        ``settings`` are custom ones of PostgreSQL (lower case) whose values count, too, and that SHOW ALL hides;
        ``version`` is what a MariaDB calls itself.
        """
        if DIALECTS[dialect] == "mariadb":
            names = self.variables.get(version)
            if names is not None:
                return _mariadb_values(names), version
            names = ", ".join(f"'{name.upper()}'" for name in (*MARIADB_VARIABLES, *_MARIADB_SERVER))
            return _MARIADB_NAMES.format(names=names).encode(), (version,)
        sql = _POSTGRES
        for name in settings:
            sql += f", pg_catalog.current_setting({quote(name)}, true)"
        return sql.encode(), None

    def judge(self, dialect: int, rows: list[list[bytes | None]] | None, state: object) -> Judgement | Next:
        """``(refused, digest, reading, idle_limit, schemas)`` from the answer, or the next question and its state.

        ``refused``: like no other, and without an answer that is understood nothing else is known. ``digest`` is of
        everything, ``reading`` leaves out custom settings: nothing of theirs is in a prepared statement.
        ``idle_limit``: seconds, 0 for none. ``schemas``: PostgreSQL's resolved search path, but for its own schemas.
        """
        if DIALECTS[dialect] == "postgres":
            return _judge_temporary(rows, state) if state is not None else _judge_postgres(rows)
        if isinstance(state, tuple):
            return self._judge_names(rows, state[0])
        if rows is None:
            self.variables.pop(state, None)         # it may be another server that calls itself so, and has not all
        return _judge_mariadb(rows)

    def _judge_names(self, rows, version: bytes) -> Judgement | Next:
        there = {row[1].lower() for row in rows or () if len(row) == 2 and row[1]}
        names = tuple(n for n in (*MARIADB_VARIABLES, *_MARIADB_SERVER) if n.encode() in there)
        if len(names) < len(there) or "sql_mode" not in names:
            return UNLIKE
        if len(self.variables) >= MAX_VERSIONS:
            self.variables.clear()
        self.variables[version] = names
        return _mariadb_values(names), version


def _mariadb_values(names: tuple[str, ...]) -> bytes:
    return _MARIADB.format(values=", ".join(f"QUOTE(@@{name})" for name in names)).encode()


def _judge_mariadb(rows) -> Judgement:
    if not rows or len(rows) != 1 or len(rows[0]) != 7 or rows[0][3] is None:
        return UNLIKE
    _, alone, idle, *values = rows[0]
    digest = _digest(values)
    refused = alone not in _FALSE   # or names in a character set unlike ASCII
    return refused, digest, digest, (
        float(idle) if idle is not None and idle.isdigit() else 0.0), ()


def _judge_postgres(rows) -> Judgement | Next:
    if not rows or len(rows[-1]) <= _POSTGRES_SCHEMAS or None in rows[-1][:_POSTGRES_SCHEMAS + 1]:
        return UNLIKE
    *shown, own = rows
    try:
        settings = {name: value for name, value, _ in shown}
    except ValueError:
        return UNLIKE
    # in the order in which every server shows them, by name
    if None in settings or b"DateStyle" not in settings:
        return UNLIKE
    settings.pop(b"application_name", None)
    schemas = own[_POSTGRES_SCHEMAS]
    read = _digest(own[:_POSTGRES_SCHEMAS + 1], settings, settings.values())
    refused = not _CATALOG_FIRST(schemas)
    idle = _DURATION(settings.get(b"idle_session_timeout") or b"")
    found = (refused, _digest([read], own[_POSTGRES_SCHEMAS + 1:]), read,
             int(idle[1]) * _SECONDS[idle[2]] if idle else 0.0, _users_schemas(schemas))
    return (_POSTGRES_TEMP, found) if _HAS_TEMPORARY(schemas) and not refused else found


_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_ELEMENT = re.compile(rb'"((?:[^"\\]++|\\.)*+)(?:"|\\?\Z)|([^{},"]++)', re.DOTALL)


def _users_schemas(text: bytes) -> tuple[str, ...]:
    """The names in an array's text, without pg_catalog and those for temporary objects."""
    names = (_ESCAPED.sub(rb"\1", quoted) if quoted else plain
             for quoted, plain in _ELEMENT.findall(text))
    return tuple(name.decode("utf-8", "replace") for name in names
                 if name != b"pg_catalog" and not name.startswith(b"pg_temp_"))


def _judge_temporary(rows, found: Judgement) -> Judgement:
    return rows != [[b"~alone", b"false"]], *found[1:]


def _digest(*lists) -> bytes:
    """16 bytes of values and of their places."""
    values = [value for some in lists for value in some]
    lengths = repr([len(some) for some in lists] + [-1 if value is None else len(value) for value in values])
    return hashlib.blake2b(lengths.encode() + b"".join(filter(None, values)), digest_size=16).digest()
