"""A call of every function that ``tqdb.analysis.mariadb_allowed`` lists, over an integer ``a``."""

# what gives another value each time, or at another time
CHANGING = """
now() current_timestamp() localtime() localtimestamp() sysdate() curdate() current_date() curtime()
current_time() utc_timestamp() utc_date() utc_time() unix_timestamp() rand() random_bytes(4) uuid() sys_guid()
uuid_short()
""".split()

FIXED = """
database() schema() current_user() version() abs(-a) acos(1/(a+2)) asin(1/(a+2)) atan(a) atan2(a,2) bit_count(a)
ceil(a/3) ceiling(a/3) conv(a,10,2) cos(a) cot(a+1) crc32(a) crc32c(a) degrees(a) exp(a/999) floor(a/3)
greatest(a,5) least(a,5) ln(a+1) log(a+1) log10(a+1) log2(a+1) mod(a,3) pi() pow(a,2) power(a,2) radians(a)
round(a/3,1) sign(a) sin(a) sqrt(a) tan(a) truncate(a/3,1) if(a>3,'x','y') ifnull(a,1) nullif(a,5)
coalesce(null,a) isnull(a) nvl(a,1) nvl2(a,1,2) interval(a,1,5) cast(a~as~char(9)) convert(a,char) binary(a)
char(65+mod(a,20)~using~ascii) date('2024-02-29') time('12:00:01') timestamp('2024-02-29') ascii(a) bin(a)
bit_length(a) char_length(a) character_length(a) charset('a') chr(65+mod(a,20)) collation('a') concat('x',a)
concat_ws('-',a,a) elt(1,a,2) export_set(a,'y','n',',',8) field(a,1,2) find_in_set(a,'1,2,3') format(a,2)
from_base64('YWJj') hex(a) insert('abcd',2,1,a) instr('abc','b') lcase('ABC') left('abc',2) length(a)
locate('b','abc') lower('ABC') lpad(a,9,'0') ltrim('~x') make_set(a,'p','q') mid('abc',2) oct(a) octet_length(a)
ord(a) position('b'~in~'abc') quote('it') repeat('x',3) replace('abc','b',a) reverse('abc') right('abc',2)
rpad(a,9,'0') rtrim('x~') soundex('hello') space(3) strcmp('a','b') substr('abc',2) substring('abc',2,1)
substring_index('a.b','.',1) to_base64('abc') trim('~x~') ucase('abc') unhex('4142') upper('abc')
regexp_instr('abc','b') regexp_replace('abc','b','x') regexp_substr('abc','b') md5(a) sha(a) sha1(a) sha2(a,256)
hex(compress('abc')) uncompress(compress('abc')) uncompressed_length(compress('abc')) adddate('2024-02-28',2)
addtime('10:00:00','1:00:00') date_add('2024-02-28',interval~1~day) date_format('2024-02-29','%Y')
date_sub('2024-02-28',interval~a~day) datediff('2024-03-01','2024-02-01') day('2024-02-29')
dayname('2024-02-29') dayofmonth('2024-02-29') dayofweek('2024-02-29') dayofyear('2024-02-29')
extract(year~from~'2024-02-29') from_days(738000+a) from_unixtime(1700000000+a) hour('10:11:12')
last_day('2024-02-01') makedate(2024,a+1) maketime(10,11,12) microsecond('10:11:12.5') minute('10:11:12')
month('2024-02-29') monthname('2024-02-29') period_add(202401,a) period_diff(202402,202401)
quarter('2024-02-29') sec_to_time(a) second('10:11:12') str_to_date('2024','%Y') subdate('2024-02-28',2)
subtime('10:00:00','1:00:00') time_format('10:11:12','%H') time_to_sec('10:11:12')
timediff('10:00:00','09:00:00') timestampadd(day,a,'2024-02-28') timestampdiff(day,'2024-02-01','2024-02-28')
to_days('2024-02-28') to_seconds('2024-02-28') week('2024-02-28') weekday('2024-02-28') weekofyear('2024-02-28')
year('2024-02-28') yearweek('2024-02-28') json_array(a,'x') json_array_append('[1]','$',a)
json_array_insert('[1]','$[0]',a) json_compact('[1,~2]') json_contains('[1]','1')
json_contains_path('{"a":1}','one','$.a') json_depth('[1]') json_exists('{"a":1}','$.a')
json_extract('{"a":1}','$.a') json_insert('{}','$.a',a) json_keys('{"a":1}') json_length('[1]')
json_merge_patch('{}','{"a":1}') json_merge_preserve('[1]','[2]') json_object('a',a)
json_query('{"a":[1]}','$.a') json_quote('x') json_remove('[1,2]','$[0]') json_replace('{"a":1}','$.a',a)
json_search('["x"]','one','x') json_set('{}','$.a',a) json_type('[1]') json_unquote('"x"') json_valid('[1]')
json_value('{"a":1}','$.a') hex(inet6_aton('::1')) inet6_ntoa(unhex('7F000001')) inet_aton('127.0.0.1')
inet_ntoa(2130706433+a) is_ipv4('127.0.0.1') is_ipv6('::1') hex(point(a,1)) hex(st_geomfromtext('POINT(1~2)'))
hex(st_geometryfromtext('POINT(1~2)')) hex(st_pointfromtext('POINT(1~2)'))
""".split()

# only as the statement that they are: UPDATE t SET v = …
STATEMENT_ONLY = """
hex(aes_encrypt(a,'k')) aes_decrypt(aes_encrypt(a,'k'),'k') (select~count(*)~from~r) (select~sum(n)~from~r)
(select~avg(n)~from~r) (select~min(n)~from~r) (select~max(n)~from~r) (select~group_concat(n~order~by~n)~from~r)
(select~std(n)~from~r) (select~stddev(n)~from~r) (select~variance(n)~from~r) (select~bit_and(n)~from~r)
(select~bit_or(n)~from~r) (select~bit_xor(n)~from~r)
""".split()

FIXED = [e.replace("~", " ") for e in FIXED]
STATEMENT_ONLY = [e.replace("~", " ") for e in STATEMENT_ONLY]

# built-in functions of MySQL and MariaDB that their own catalogue does not list, and that are on no list here either
MORE_FUNCTIONS = """
area asbinary asgeojson astext aswkb aswkt binlog_gtid_pos bin_to_uuid boundary buffer can_access_column
can_access_database can_access_table centroid contains convexhull crosses current_role cursor_rowcount dimension
disjoint distance encrypt endpoint envelope equals exteriorring format_bytes format_pico_time geomcollfromtext
geomcollfromwkb geometrycollectionfromtext geometryfromtext geometryfromwkb geometryn geometrytype geomfromtext
geomfromwkb get_dd_column_privileges glength grouping gtid_subset gtid_subtract icu_version
internal_auto_increment intersects is_uuid isclosed isempty isring issimple json_merge_preserve_all json_pretty
json_schema_valid json_schema_validation_report json_storage_free json_storage_size lastval linefromtext
linefromwkb linestringfromtext linestringfromwkb mbrcontains mbrcoveredby mbrcovers mbrdisjoint mbrequal
mbrequals mbrintersects mbroverlaps mbrtouches mbrwithin mlinefromtext mlinefromwkb mpointfromtext mpointfromwkb
mpolyfromtext mpolyfromwkb nextval numgeometries numinteriorrings numpoints overlaps pointfromtext pointfromwkb
pointn pointonsurface polyfromtext polyfromwkb polygonfromtext polygonfromwkb ps_current_thread_id ps_thread_id
regexp_like roles_graphml row_number rownum setval source_pos_wait srid st_area st_asbinary st_asgeojson
st_astext st_aswkb st_boundary st_buffer st_centroid st_contains st_convexhull st_crosses st_difference
st_dimension st_disjoint st_distance st_distance_sphere st_endpoint st_envelope st_equals st_exteriorring
st_geohash st_geomcollfromtext st_geometryn st_geometrytype st_geomfromgeojson st_geomfromwkb st_interiorringn
st_intersection st_intersects st_isclosed st_isempty st_isring st_issimple st_isvalid st_latfromgeohash
st_length st_linefromtext st_makeenvelope st_numgeometries st_numinteriorrings st_numpoints st_overlaps
st_pointfromgeohash st_pointn st_pointonsurface st_polyfromtext st_relate st_simplify st_srid st_startpoint
st_swapxy st_symdifference st_touches st_transform st_union st_validate st_within st_x st_y startpoint
statement_digest statement_digest_text touches user uuid_to_bin validate_password_strength
wait_for_executed_gtid_set wait_until_sql_thread_after_gtids weight_string within json_table member_of
""".split()
