# Names that may stand before a parenthesis in any statement without its session being another afterwards.
#
# It is an allow-list: a call of any other name makes the proxy ask the server what the session has become. Functions
# that are on it read, compute, wait, draw random numbers or advance a sequence; words and types are no calls at all.

cdef enum:
    CALL_SLOTS = 2048               # a power of two, several times the number of names
    MAX_CALL_NAME = 24

ctypedef struct CallName:
    char[24] text
    int length
    int dialects            # 1 << Dialect, of each that has it

cdef CallName[2048] CALL_TABLE

_CALLS_BOTH = """
    abs acos all and any as ascii asin atan atan2 avg between bigint binary bit bit_and bit_count bit_length bit_or
    by case cast ceil ceiling char char_length character character_length chr coalesce concat concat_ws convert cos
    cot count cume_dist current_date current_time current_timestamp current_user date decimal decode degrees
    dense_rank distinct div else encode every except exists exp extract first_value float floor format from greatest
    group having host in int integer intersect interval is join json json_object key lag last_value lastval lead
    least left length like limit ln localtime localtimestamp log log10 lower lpad ltrim max md5 min mod mode nextval
    not now nth_value ntile nullif numeric octet_length offset on only or order over partition percent_rank
    percentile_cont percentile_disc pi position pow power radians rank real regexp_instr regexp_replace
    regexp_substr repeat replace returning reverse right round row row_number rpad rtrim select session_user set
    setval sign sin smallint some sqrt stddev stddev_pop stddev_samp substr substring sum tan text then time
    timestamp to_char trim union update upper user using uuid value values var_pop var_samp varchar variance version
    when where with within
"""

_CALLS_POSTGRES = """
    age array array_agg array_append array_cat array_length array_lower array_ndims array_position array_positions
    array_prepend array_remove array_replace array_to_json array_to_string array_upper bool_and bool_or btrim
    cardinality cbrt cidr clock_timestamp col_description conflict corr covar_pop covar_samp current_database
    current_schema current_setting currval date_bin date_part date_trunc daterange factorial filter format_type gcd
    gen_random_uuid generate_series generate_subscripts grouping has_table_privilege ilike inet initcap int4range
    int8range isempty isfinite json_agg json_array_elements json_array_elements_text json_array_length
    json_build_array json_build_object json_each json_each_text json_extract_path json_object_agg json_object_keys
    json_to_recordset json_typeof jsonb jsonb_agg jsonb_array_elements jsonb_array_elements_text jsonb_array_length
    jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_insert jsonb_object_agg
    jsonb_object_keys jsonb_path_exists jsonb_path_query jsonb_pretty jsonb_set jsonb_strip_nulls jsonb_to_recordset
    jsonb_typeof justify_days justify_hours justify_interval lateral lcm lower_inc make_date make_interval make_time
    make_timestamp make_timestamptz numrange obj_description overlay pg_advisory_lock pg_advisory_unlock
    pg_advisory_xact_lock pg_backend_pid pg_cancel_backend pg_column_size pg_encoding_to_char pg_get_constraintdef
    pg_get_expr pg_get_indexdef pg_get_userbyid pg_get_viewdef pg_is_in_recovery pg_notify pg_relation_size
    pg_size_pretty pg_sleep pg_table_is_visible pg_table_size pg_terminate_backend pg_total_relation_size
    pg_try_advisory_lock pg_try_advisory_xact_lock pg_type_is_visible pg_typeof phraseto_tsquery plainto_tsquery
    point quote_ident quote_literal quote_nullable random regexp_count regexp_like regexp_match regexp_matches
    regexp_split_to_array regexp_split_to_table regr_slope row_to_json sha224 sha256 sha384 sha512 split_part
    starts_with statement_timestamp string_agg string_to_array strpos timeofday timestamptz timetz to_date to_hex
    to_json to_jsonb to_number to_timestamp to_tsquery to_tsvector transaction_timestamp translate trunc ts_headline
    ts_rank ts_rank_cd tsrange tstzrange txid_current unnest upper_inc websearch_to_tsquery width_bucket
"""

_CALLS_MARIADB = """
    adddate addtime aes_decrypt aes_encrypt against bin compress connection_id conv crc32 curdate curtime database
    date_add date_format date_sub datediff datetime day dayname dayofmonth dayofweek dayofyear double elt enum
    export_set field find_in_set found_rows from_base64 from_days from_unixtime get_lock group_concat hex hour if
    ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa instr is_free_lock json_array json_array_append
    json_array_insert json_arrayagg json_compact json_contains json_contains_path json_depth json_detailed
    json_exists json_extract json_insert json_keys json_length json_merge_patch json_merge_preserve json_objectagg
    json_query json_quote json_remove json_replace json_search json_set json_table json_type json_unquote json_valid
    json_value last_day last_insert_id lcase locate log2 make_set makedate maketime match mediumint microsecond mid
    minute month monthname nvl oct ord period_add period_diff quarter quote rand release_lock row_count schema
    sec_to_time second sha sha1 sha2 signed sleep soundex space str_to_date strcmp subdate substring_index subtime
    sys_guid sysdate time_format time_to_sec timediff timestampadd timestampdiff tinyint to_base64 to_days
    to_seconds truncate ucase uncompress unhex unix_timestamp unsigned utc_date utc_time utc_timestamp uuid_short
    varbinary varying week weekday weekofyear xor year yearweek
"""


cdef inline unsigned int _call_slot(const uint8_t* p, Py_ssize_t n) noexcept nogil:
    cdef unsigned int h = <unsigned int>n
    cdef Py_ssize_t i
    for i in range(n):
        h = h * 31 + (p[i] | 0x20)
    return (h ^ (h >> 11)) & (CALL_SLOTS - 1)


def _fill_call_table():
    cdef unsigned int slot
    for name, dialects in (
            *((name, 1 << PG | 1 << MY) for name in _CALLS_BOTH.split()),
            *((name, 1 << PG) for name in _CALLS_POSTGRES.split()),
            *((name, 1 << MY) for name in _CALLS_MARIADB.split())):
        raw = name.encode()
        slot = _call_slot(<const uint8_t*>PyBytes_AS_STRING(raw), len(raw))
        while CALL_TABLE[slot].length:
            slot = (slot + 1) & (CALL_SLOTS - 1)
        memcpy(CALL_TABLE[slot].text, PyBytes_AS_STRING(raw), len(raw))
        CALL_TABLE[slot].length = len(raw)
        CALL_TABLE[slot].dialects = dialects


_fill_call_table()


cdef bint is_harmless_call(const uint8_t* p, Py_ssize_t start, Py_ssize_t end, int dialect) noexcept nogil:
    """Whether the name p[start:end] is on the list, and nothing in front of it says whose it is."""
    cdef Py_ssize_t n = end - start
    cdef unsigned int slot
    if n < 1 or n > MAX_CALL_NAME:
        return False
    if start > 0 and (p[start - 1] == b"." or CHAR_CLASS[p[start - 1]] == CC_SPACE):
        end = start - 1
        while end > 0 and CHAR_CLASS[p[end]] == CC_SPACE:
            end -= 1
        if p[end] == b".":
            return False
    slot = _call_slot(p + start, n)
    while CALL_TABLE[slot].length:
        if CALL_TABLE[slot].length == n and same_word(p + start, CALL_TABLE[slot].text, n):
            return CALL_TABLE[slot].dialects >> dialect & 1
        slot = (slot + 1) & (CALL_SLOTS - 1)
    return False
