"""What of PostgreSQL's own may run because of a batched write, and how: the reviewed lists, each group with its reason.

A built-in function is one of ``pg_catalog`` with an OID below 16384, in C inside of the server, or in SQL and unchanged
since initdb. If it is immutable (``provolatile``), it may run anywhere: its result is its arguments' alone, which is
what immutable means, and nobody but PostgreSQL's authors has said so; ``NOT_IMMUTABLE`` has those for which it is not
so. Stable and volatile ones may run only as they are listed here. The functions of built-in operators, casts, types,
operator classes and aggregates are not volatile, which a test asks of the server, and the stable ones depend on
settings that sessions of a class share (``DateStyle``, ``TimeZone``, …) or on the time: they may run anywhere.
"""

PIPELINED, MERGED = 1, 2        # as a statement of its own in a shared transaction; in one statement with others

# (strategy, why, names for all overloads or signatures as oidvectortypes() writes them)
FUNCTIONS = (
    (MERGED, "the time, which is that of the batch's transaction or the clock's", """
        now transaction_timestamp statement_timestamp clock_timestamp timeofday"""),
    (MERGED, "chance: any value is as good as another", """
        random random_normal gen_random_uuid uuidv4 uuidv7"""),
    (MERGED, "a sequence's next value, which nobody can foresee", "nextval"),
    (MERGED, "arguments, the time, and settings of time that the sessions of a class share (TimeZone, DateStyle)", """
        age(timestamp without time zone); age(timestamp with time zone); date_trunc; date_part; extract; timezone
        to_char; to_date; to_timestamp; make_timestamptz; date; time; timetz; timestamp; timestamptz; overlaps
        date_add; date_subtract; interval_pl_timestamptz; timestamptz_pl_interval; timestamptz_mi_interval
        date_cmp_timestamptz; date_eq_timestamptz; date_ge_timestamptz; date_gt_timestamptz; date_le_timestamptz
        date_lt_timestamptz; date_ne_timestamptz; timestamp_cmp_timestamptz; timestamp_eq_timestamptz
        timestamp_ge_timestamptz; timestamp_gt_timestamptz; timestamp_le_timestamptz; timestamp_lt_timestamptz
        timestamp_ne_timestamptz; timestamptz_cmp_date; timestamptz_eq_date; timestamptz_ge_date; timestamptz_gt_date
        timestamptz_le_date; timestamptz_lt_date; timestamptz_ne_date; timestamptz_cmp_timestamp
        timestamptz_eq_timestamp; timestamptz_ge_timestamp; timestamptz_gt_timestamp; timestamptz_le_timestamp
        timestamptz_lt_timestamp; timestamptz_ne_timestamp; in_range; jsonb_path_exists_tz; jsonb_path_match_tz
        jsonb_path_query_array_tz; jsonb_path_query_first_tz"""),
    (MERGED, "arguments and settings of money and numbers (lc_monetary, lc_numeric)", "to_number money numeric"),
    (MERGED, "arguments as text or JSON, by settings of output that the sessions of a class share", """
        concat concat_ws format quote_literal quote_nullable array_to_string array_to_json row_to_json to_json to_jsonb
        json_build_array json_build_object jsonb_build_array jsonb_build_object textanycat anytextcat
        json_populate_record jsonb_populate_record pg_typeof pg_collation_for format_type"""),
    (MERGED, "arguments and conversions between encodings", "convert convert_from convert_to length(bytea, name)"),
    (MERGED, "an enumeration's values", "enum_first enum_last enum_range"),
    (MERGED, "arguments and a text search configuration, which the sessions of a class share", """
        to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery json_to_tsvector jsonb_to_tsvector
        ts_headline get_current_ts_config"""),
    (MERGED, "the user, the database and the server, which the sessions of a class share", """
        current_user session_user getpgusername current_database current_schema getdatabaseencoding
        pg_client_encoding version"""),
    (PIPELINED, "sets of rows made of arguments", """
        generate_series json_populate_recordset jsonb_populate_recordset json_to_record jsonb_to_record
        json_to_recordset jsonb_to_recordset jsonb_path_query_tz"""),
    (PIPELINED, "aggregates of the statement's own rows, as JSON", """
        json_agg jsonb_agg json_object_agg jsonb_object_agg json_agg_strict jsonb_agg_strict json_object_agg_strict
        jsonb_object_agg_strict json_object_agg_unique jsonb_object_agg_unique json_object_agg_unique_strict
        jsonb_object_agg_unique_strict"""),
    (PIPELINED, "a setting: which one is written there, and compared between the sessions", "current_setting"),
    (PIPELINED, "the catalogue, as the user sees it", """
        regclass to_regclass to_regtype to_regproc to_regprocedure to_regoper to_regoperator to_regnamespace to_regrole
        to_regcollation has_table_privilege has_column_privilege has_any_column_privilege has_schema_privilege
        has_database_privilege has_function_privilege has_sequence_privilege has_type_privilege pg_has_role
        row_security_active pg_get_serial_sequence current_schemas"""),
    (PIPELINED, "how deep triggers are nested, which a statement of its own does not change", "pg_trigger_depth"),
    (PIPELINED, "triggers that look at their row only", """
        suppress_redundant_updates_trigger tsvector_update_trigger tsvector_update_trigger_column"""),
)

# A name's overloads that a text cannot come to by mistake: an argument of that type is never taken from a literal that
# also fits the others, and its values come from system columns, which are not allowed, or from a cast, which is seen.
UNREACHABLE = {"age(xid)": "xid"}

# Immutable as the catalogue says, but about transactions or the log.
NOT_IMMUTABLE = frozenset("""
    pg_walfile_name pg_walfile_name_offset pg_visible_in_snapshot txid_visible_in_snapshot
    pg_current_xact_id txid_current pg_backend_pid currval lastval setval current_query inet_client_addr
    inet_client_port set_config pg_notify
""".split())

# Functions in C of extensions that come with PostgreSQL, by library: those that it declares immutable, for the same
# reason as built-in ones, and others by name. Only superusers make such functions.
_PURE = (MERGED, "")
LIBRARIES = {
    "citext": _PURE, "_int": _PURE, "cube": _PURE, "seg": _PURE, "ltree": _PURE, "fuzzystrmatch": _PURE, "isn": _PURE,
    "btree_gist": _PURE, "btree_gin": _PURE,
    "hstore": (MERGED, "hstore_to_json hstore_to_json_loose hstore_to_jsonb hstore_to_jsonb_loose"),
    "uuid-ossp": (MERGED, "uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4"),
    "pgcrypto": (MERGED, "gen_random_uuid gen_random_bytes gen_salt"),
    # thresholds are settings
    "pg_trgm": (MERGED, """similarity_op word_similarity_op word_similarity_commutator_op strict_word_similarity_op
                strict_word_similarity_commutator_op"""),
    "unaccent": (PIPELINED, "unaccent"),            # a dictionary
    # triggers that set a column of their row to the time, or to the user
    "moddatetime": (PIPELINED, "moddatetime"), "insert_username": (PIPELINED, "insert_username"),
}

# What functions of language ``internal`` that extensions make are: built-in ones by another name (citext),
# and what the server makes with each range type.
INTERNAL_SOURCES = frozenset("""
    textin textout textrecv textsend booltext network_show texteq textne text_lt text_le text_gt text_ge textlike
    textnlike texticlike texticnlike textregexeq textregexne texticregexeq texticregexne hashtext text_larger
    text_smaller bpchareq bpcharne rtrim1 texttrim range_constructor2 range_constructor3 multirange_constructor0
    multirange_constructor1 multirange_constructor2
""".split())

INDEX_METHODS = frozenset(("btree", "hash", "gin", "gist", "spgist", "brin"))

# Settings without a dot that current_setting() may ask for: the batch does not change them, and the sessions of a class
# have them in common. Those with a dot are the application's own.
SETTINGS = frozenset("""
    timezone datestyle intervalstyle search_path server_version server_version_num server_encoding client_encoding
    lc_messages lc_monetary lc_numeric lc_time lc_collate lc_ctype default_text_search_config bytea_output
    extra_float_digits block_size max_identifier_length
""".split())

# Settings that a function may have for the time that it runs.
FUNCTION_SETTINGS = frozenset("""
    search_path timezone datestyle intervalstyle bytea_output extra_float_digits default_text_search_config row_security
    work_mem plan_cache_mode enable_seqscan enable_nestloop enable_hashjoin enable_mergejoin xmloption
    plpgsql.variable_conflict statement_timeout
""".split())

# Kinds of nodes of stored expressions and queries, as outfuncs.c writes them, of versions to 15 and from 16 on. What
# they compute with is a function, an operator, a type or a relation, which are looked at.
NODE_TAGS = frozenset("""
    CONST VAR PARAM FUNCEXPR OPEXPR DISTINCTEXPR NULLIFEXPR SCALARARRAYOPEXPR BOOLEXPR RELABELTYPE COERCEVIAIO
    ARRAYCOERCEEXPR CONVERTROWTYPEEXPR COLLATE COLLATEEXPR CASE CASEEXPR WHEN CASEWHEN CASETESTEXPR ARRAY ARRAYEXPR
    ARRAYREF SUBSCRIPTINGREF ROW ROWEXPR ROWCOMPARE ROWCOMPAREEXPR COALESCE COALESCEEXPR MINMAX MINMAXEXPR
    SQLVALUEFUNCTION NULLTEST BOOLEANTEST COERCETODOMAIN COERCETODOMAINVALUE SETTODEFAULT NEXTVALUEEXPR NAMEDARGEXPR
    FIELDSELECT FIELDSTORE INFERENCEELEM TARGETENTRY FROMEXPR JOINEXPR RANGETBLREF ALIAS QUERY RTE RANGETBLENTRY
    RTEPERMISSIONINFO RANGETBLFUNCTION SORTGROUPCLAUSE GROUPINGSET WINDOWCLAUSE ROWMARKCLAUSE WITHCLAUSE
    COMMONTABLEEXPR SETOPERATIONSTMT SUBLINK AGGREF GROUPINGFUNC WINDOWFUNC ONCONFLICTEXPR WITHCHECKOPTION
    PLACEHOLDERVAR RETURNINGEXPR
""".split())


def _strategies() -> dict[str, int]:
    found = {}
    for strategy, _, text in FUNCTIONS:
        for entry in _entries(text):
            found[entry] = strategy
    return found


def _entries(text: str) -> list[str]:
    """Names between blanks or semicolons; a signature has both in its parentheses."""
    entries, depth = [""], 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if depth == 0 and (c.isspace() or c == ";"):
            entries.append("")
        else:
            entries[-1] += c
    return [e for e in entries if e]


STRATEGIES = _strategies()


def builtin(name: str, arguments: str, volatility: str) -> int:
    """The strategy of a built-in function, 0 for alone."""
    listed = STRATEGIES.get(f"{name}({arguments})", STRATEGIES.get(name))
    if listed is not None:
        return listed
    return MERGED if volatility == "i" and name not in NOT_IMMUTABLE else 0


def library(path: str, symbol: str, volatility: str) -> int:
    """The strategy of a function in C of an extension, 0 for alone; ``path``: ``probin``."""
    name = path.removeprefix("$libdir/").removesuffix(".so")
    strategy, others = LIBRARIES.get(name, (0, ""))
    return strategy if strategy and (volatility == "i" or symbol in others.split()) else 0
