"""MariaDB and MySQL: what may run where, as data. What is in no list makes the write that executes it go alone.

A write shares a statement (MERGED) or a transaction on another session's connection (PIPELINED) only if all that runs
because of it depends on nothing but its own arguments, rows of the tables concerned, the time, chance, and what
sessions of one class have in common: user, database, settings. Native functions win over stored ones of the same name
(MariaDB's manual, "Function Name Resolution") if the parenthesis follows at once, so such a name tells which runs.

Judged, and on no list, so alone:
connection_id, last_insert_id, row_count, found_rows, lastval: the connection, and what it did last;
nextval, setval: they leave a value behind that ``LASTVAL()`` tells on the same connection;
user, session_user, system_user, current_role: what one login was given, by its address and by grants of that moment;
get_lock, release_lock and their like, sleep, benchmark, *_wait: they hold, or keep waiting, who has to do with it;
load_file, gtid and wsrep functions, convert_tz: files, replication, the server's own tables;
extractvalue, updatexml: an XPath may name a user variable; name_const, rownum, window functions: places in a statement;
password, encrypt, des_*, encode: settings and salts of servers past; every variable, ``@x`` or ``@@x``.
"""

from typing import NamedTuple

PIPELINED, MERGED = 1, 2


class Group(NamedTuple):
    """Names that are alike, ``where`` they may run at most (PIPELINED, MERGED), and ``why``."""

    where: int
    why: str
    names: frozenset[str]


def _group(where: int, why: str, names: str) -> Group:
    return Group(where, why, frozenset(names.split()))


FUNCTION_GROUPS = (
    _group(MERGED, "the time: that of the statement, or of the call", """
        now current_timestamp localtime localtimestamp sysdate curdate current_date curtime current_time
        utc_timestamp utc_date utc_time unix_timestamp"""),
    _group(MERGED, "chance, or a number that the server gives once: nobody can expect a certain value", """
        rand random_bytes uuid sys_guid uuid_short"""),
    _group(MERGED, "the same for all sessions of a class", "database schema current_user version"),
    _group(MERGED, "arithmetic on its arguments", """
        abs acos asin atan atan2 bit_count ceil ceiling conv cos cot crc32 crc32c degrees exp floor greatest
        least ln log log10 log2 mod pi pow power radians round sign sin sqrt tan truncate"""),
    _group(MERGED, "its arguments, chosen or converted", """
        if ifnull nullif coalesce isnull nvl nvl2 interval cast convert binary char date time timestamp"""),
    _group(MERGED, "text made of its arguments", """
        ascii bin bit_length char_length character_length charset chr collation concat concat_ws elt
        export_set field find_in_set format from_base64 hex insert instr lcase left length locate lower lpad
        ltrim make_set mid oct octet_length ord position quote repeat replace reverse right rpad rtrim
        soundex space strcmp substr substring substring_index to_base64 trim ucase unhex upper regexp_instr
        regexp_replace regexp_substr"""),
    _group(MERGED, "digests and compression of its arguments", """
        md5 sha sha1 sha2 compress uncompress uncompressed_length"""),
    _group(MERGED, "dates computed from its arguments, in the time zone and language that a class shares", """
        adddate addtime date_add date_format date_sub datediff day dayname dayofmonth dayofweek dayofyear
        extract from_days from_unixtime hour last_day makedate maketime microsecond minute month monthname
        period_add period_diff quarter sec_to_time second str_to_date subdate subtime time_format
        time_to_sec timediff timestampadd timestampdiff to_days to_seconds week weekday weekofyear year
        yearweek"""),
    _group(MERGED, "JSON made of its arguments", """
        json_array json_array_append json_array_insert json_compact json_contains json_contains_path
        json_depth json_exists json_extract json_insert json_keys json_length json_merge_patch
        json_merge_preserve json_object json_query json_quote json_remove json_replace json_search json_set
        json_type json_unquote json_valid json_value"""),
    _group(MERGED, "addresses and points, as their arguments say", """
        inet6_aton inet6_ntoa inet_aton inet_ntoa is_ipv4 is_ipv6 point st_geometryfromtext st_geomfromtext
        st_pointfromtext"""),
    _group(PIPELINED, "the cipher's mode is a setting, and a key an argument", "aes_decrypt aes_encrypt"),
    _group(PIPELINED, "the values that an upsert was given, and rows that the statement itself reads", """
        values value count sum avg min max group_concat std stddev variance bit_and bit_or bit_xor"""),
)
FUNCTIONS = {name: group.where for group in FUNCTION_GROUPS for name in group.names}

# what has a value without parentheses (``SELECT word``)
VALUE_WORDS = frozenset("""
    true false null current_date current_time current_timestamp localtime localtimestamp utc_date utc_time
    utc_timestamp current_user default""".split())
UNITS = frozenset("""
    microsecond second minute hour day week month quarter year second_microsecond minute_microsecond
    minute_second hour_microsecond hour_second hour_minute day_microsecond day_second day_minute day_hour
    year_month""".split())
TYPES = frozenset("""
    bit tinyint smallint mediumint int integer bigint bool boolean decimal dec numeric fixed float double
    real precision date time datetime timestamp year char varchar binary varbinary tinyblob blob mediumblob
    longblob tinytext text mediumtext longtext enum set json uuid inet4 inet6 signed unsigned zerofill
    character charset point geometry linestring polygon multipoint multilinestring multipolygon
    geometrycollection""".split())
# operators, and words that only part an expression; what follows COLLATE, USING, CHARSET and CHARACTER SET is a name
EXPRESSION_WORDS = frozenset("""
    and or not xor is in like between div mod rlike regexp escape case when then else end interval as binary
    collate using character set charset from both leading trailing unknown distinct""".split())
EXPRESSION_WORDS |= VALUE_WORDS | UNITS | TYPES

# words of a statement beside expressions: clauses whose meaning lies in rows and columns alone
STATEMENT_WORDS = EXPRESSION_WORDS | frozenset("""
    insert replace update delete ignore into values value set where order group by asc desc limit offset
    having on duplicate key select all exists union except intersect join inner left right outer
    cross straight_join natural partition returning row""".split())

# words with a meaning of their own, which can be no name without quotes (MariaDB's SQL/lex.h, MySQL's "Keywords and
# Reserved Words"); one that is on no list above makes its statement go alone
RESERVED = frozenset("""
    accessible add all alter analyze and as asc asensitive before between bigint binary blob both by call
    cascade case change char character check collate column condition constraint continue convert create
    cross current_date current_role current_time current_timestamp current_user cursor databases day_hour
    day_microsecond day_minute day_second dec decimal declare default delayed delete delete_domain_id desc
    describe deterministic distinct distinctrow div do_domain_ids double drop dual each else elseif enclosed
    escaped except exists exit explain false fetch float float4 float8 for force foreign from fulltext grant
    group having high_priority hour_microsecond hour_minute hour_second if ignore ignore_domain_ids in index
    infile inner inout insensitive insert int int1 int2 int3 int4 int8 integer intersect interval into is
    iterate join key keys kill lateral leading leave left like limit linear lines load localtime
    localtimestamp lock long longblob longtext loop low_priority master_demote_to_replica
    master_demote_to_slave master_ssl_verify_server_cert match maxvalue mediumblob mediumint mediumtext
    middleint minute_microsecond minute_second mod modifies natural no_write_to_binlog not null numeric
    offset on optimize optionally or order out outer outfile over page_checksum parse_vcol_expr partition
    portion precision primary procedure purge range read read_write reads real recursive ref_system_id
    references regexp release rename repeat replace require resignal restrict return returning revoke right
    rlike row_number rows schemas second_microsecond select sensitive separator session_user set show signal
    smallint spatial specific sql sql_after_gtids sql_before_gtids sql_big_result sql_buffer_result sql_cache
    sql_calc_found_rows sql_no_cache sql_small_result sqlexception sqlstate sqlwarning ssl starting stats_auto_recalc
    stats_persistent stats_sample_pages straight_join system_user table terminated then tinyblob tinyint
    tinytext to trailing trigger true undo union unique unlock unsigned update usage use using utc_date
    utc_time utc_timestamp values varbinary varchar varcharacter varying when where while with write xor
    year_month zerofill""".split())

# SHOW CREATE TABLE beside expressions: columns and their attributes, keys, constraints, options of InnoDB's tables
COLUMN_WORDS = EXPRESSION_WORDS | frozenset("""
    not null default on update auto_increment comment generated always as virtual stored persistent
    invisible check collate character set charset compressed unique primary key enforced visible""".split())
KEY_WORDS = EXPRESSION_WORDS | frozenset("""
    primary unique key fulltext spatial constraint foreign references on delete update cascade restrict set
    null no action default using btree hash comment asc desc ignored visible invisible check enforced not
    key_block_size""".split())
OPTION_WORDS = EXPRESSION_WORDS | frozenset("""
    engine innodb auto_increment avg_row_length default charset character set collate checksum comment
    compression row_format dynamic compact redundant compressed fixed key_block_size max_rows min_rows
    pack_keys stats_persistent stats_auto_recalc stats_sample_pages page_compressed page_compression_level
    encrypted encryption_key_id data index directory delay_key_write transactional page_checksum yes no on
    off zlib lz4 none partition by range list hash key linear columns partitions subpartition subpartitions
    values less than in maxvalue algorithm nodegroup tablespace""".split())

# bodies of triggers: they compute with their row and local variables, or refuse it; they reach no table
TRIGGER_WORDS = EXPRESSION_WORDS | frozenset("""
    begin end if then elseif else case when while do repeat until loop leave iterate declare default set
    signal sqlstate value message_text mysql_errno constraint_name column_name table_name""".split())
SIGNAL_ITEMS = frozenset("message_text mysql_errno constraint_name column_name table_name".split())
