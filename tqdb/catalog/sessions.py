"""What a session is like, as its server says: sessions that get the same answer would do the same with any write.

The question has two columns, a name and a value, and as many rows as there are settings. Names that begin with ``~``
are for the proxy; the others, with their values, are what sessions must have in common.

PostgreSQL: settings that do not come from the server's own configuration with what a RESET would make of them, but for
the application's name, which no write that is batched reads; users, the resolved ``search_path``, and which server it
is. MariaDB: the variables that can change what a write does or answers, database, user and role, and which server it
is. Left out are variables that only concern speed, memory and logs, and what the proxy looks after itself (last insert
id, warnings, transactions).
"""

import hashlib

from tqdb.analysis import DIALECTS

# Of MariaDB's and MySQL's session variables those that can change what a write does, answers, or replicates.
MARIADB_VARIABLES = tuple("""
    alter_algorithm auto_increment_increment auto_increment_offset autocommit binlog_format
    binlog_direct_non_transactional_updates binlog_row_image character_set_client character_set_connection
    character_set_database character_set_filesystem character_set_results character_set_server check_constraint_checks
    collation_connection collation_database collation_server column_compression_threshold completion_type
    default_regex_flags default_storage_engine default_tmp_storage_engine default_week_format div_precision_increment
    enforce_storage_engine explicit_defaults_for_timestamp foreign_key_checks group_concat_max_len gtid_domain_id
    idle_readonly_transaction_timeout idle_transaction_timeout idle_write_transaction_timeout
    innodb_lock_wait_timeout innodb_snapshot_isolation innodb_strict_mode innodb_table_locks lc_messages lc_time_names
    lock_wait_timeout low_priority_updates max_allowed_packet max_error_count max_join_size max_recursive_iterations
    max_session_mem_used max_sort_length max_sp_recursion_depth max_statement_time max_execution_time note_verbosity
    old old_mode pseudo_slave_mode server_id session_track_schema session_track_state_change
    session_track_system_variables session_track_transaction_info skip_replication sql_auto_is_null sql_big_selects
    sql_if_exists sql_log_bin sql_mode sql_notes sql_safe_updates sql_select_limit sql_warnings
    system_versioning_alter_history system_versioning_asof system_versioning_insert_history time_zone
    transaction_isolation transaction_read_only tx_isolation tx_read_only unique_checks updatable_views_with_limit
    wsrep_causal_reads wsrep_dirty_reads wsrep_on wsrep_retry_autocommit wsrep_sync_wait wsrep_trx_fragment_size
    wsrep_trx_fragment_unit
""".split())
# which server it is, and settings of the whole server that decide what its sessions do
_MARIADB_SERVER = ("hostname", "port", "datadir", "server_uid", "server_uuid", "innodb_autoinc_lock_mode")

# Created temporary objects are counted; SET timestamp shows in the difference of two clocks. The LIMIT is there for
# sql_select_limit.
_MARIADB = """\
SELECT VARIABLE_NAME AS name, COALESCE(SESSION_VALUE, GLOBAL_VALUE) AS value FROM information_schema.SYSTEM_VARIABLES
 WHERE VARIABLE_NAME IN ({names})
UNION ALL SELECT 'database', DATABASE() UNION ALL SELECT 'user', CURRENT_USER() UNION ALL SELECT 'role', CURRENT_ROLE()
UNION ALL SELECT '~idle', @@session.wait_timeout UNION ALL SELECT '~rows', ROW_COUNT()
UNION ALL SELECT '~alone', ABS(@@timestamp - UNIX_TIMESTAMP(SYSDATE(6))) > 2 OR VARIABLE_VALUE > 0
 FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'COM_CREATE_TEMPORARY_TABLE'
LIMIT 1000"""

# pg_temp is in front of pg_catalog where a session has made temporary objects; a user's schema in front of it would let
# functions of users stand in for the server's.
_POSTGRES = """\
SELECT name, setting || E'\\n' || COALESCE(reset_val, '') AS value FROM pg_catalog.pg_settings
 WHERE source NOT IN ('default', 'override', 'configuration file', 'command line', 'environment variable')
 AND name <> 'application_name'
UNION ALL SELECT 'user', pg_catalog.quote_ident(current_user) || ' ' || pg_catalog.quote_ident(session_user)
UNION ALL SELECT 'schemas', pg_catalog.current_schemas(true)::pg_catalog.text
UNION ALL SELECT 'server', pg_catalog.concat_ws(' ', pg_catalog.pg_postmaster_start_time()::pg_catalog.text,
 pg_catalog.inet_server_addr()::pg_catalog.text, pg_catalog.inet_server_port(), pg_catalog.pg_is_in_recovery())
UNION ALL SELECT '~idle', (pg_catalog.date_part('epoch', NULLIF(pg_catalog.current_setting(
 'idle_session_timeout', true), '')::pg_catalog.interval))::pg_catalog.text
UNION ALL SELECT '~alone', (pg_catalog.pg_my_temp_schema() <> 0::pg_catalog.oid AND (
 EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = pg_catalog.pg_my_temp_schema()) OR
 EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = pg_catalog.pg_my_temp_schema()))
 OR COALESCE((SELECT schema FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) AS s(schema)
 WHERE schema::pg_catalog.text NOT LIKE 'pg_temp%' LIMIT 1), '') <> 'pg_catalog')::pg_catalog.text"""

_FALSE = (b"false", b"0")
_CUSTOM = b"custom "            # in front of the names of custom settings


def session_sql(dialect: int, settings: tuple[str, ...]) -> bytes:
    """The question; ``settings`` are custom ones (lower case) whose values count, too, and that pg_settings hides."""
    if DIALECTS[dialect] == "mariadb":
        names = ", ".join(f"'{name.upper()}'" for name in (*MARIADB_VARIABLES, *_MARIADB_SERVER))
        return _MARIADB.format(names=names).encode()
    sql = _POSTGRES
    for name in settings:
        quoted = name.replace("'", "''")
        sql += f"\nUNION ALL SELECT '{_CUSTOM.decode()}{quoted}', pg_catalog.current_setting('{quoted}', true)"
    return sql.encode()


def judge_session(dialect: int, rows: list[list[bytes | None]] | None) -> tuple[bool, bytes, bytes, float]:
    """``(refused, digest, reading, idle_limit)`` from the answer; without one that is understood: like no other.

    ``digest`` is of everything, ``reading`` leaves out custom settings: nothing of theirs is in a prepared statement.
    """
    if not rows or any(len(row) != 2 or row[0] is None for row in rows):
        return True, b"", b"", 0.0
    refused, idle = True, 0.0       # names in a character set unlike ASCII are not known
    reading = hashlib.blake2b(digest_size=16)
    custom = hashlib.blake2b(digest_size=16)
    for name, value in sorted(rows, key=lambda row: (row[0], row[1] or b"")):
        if name == b"~alone":
            refused = value not in _FALSE
        elif name == b"~rows":
            continue
        elif name == b"~idle":
            idle = float(value) if value is not None and value.replace(b".", b"", 1).isdigit() else 0.0
        else:
            kind = custom if name.startswith(_CUSTOM) else reading
            kind.update(b"%d %d " % (len(name), -1 if value is None else len(value)) + name + (value or b""))
    read = reading.digest()
    custom.update(read)
    return refused, custom.digest(), read, idle
