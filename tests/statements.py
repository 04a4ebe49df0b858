"""The oracle's scripts: every kind of write, type, result shape and error, as ``(statement, parameters)``.

Session k works on rows of its own, n = 1000 k and up, so that what it is told does not depend on the others.
Statements are in the dialect's own parameter style; ``literal`` puts the values into the text.
"""

import re

BIG = "x" * 1048576


def literal(sql: str, params: tuple) -> str:
    """The statement with its parameters as literals: ``$1`` or ``?`` replaced in order."""
    def text(value):
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        if isinstance(value, bytes):
            return "'\\x" + value.hex() + "'" if "$" in sql else "x'" + value.hex() + "'"
        escaped = value.replace("'", "''")
        return "'" + (escaped if "$" in sql else escaped.replace("\\", "\\\\")) + "'"

    if "$" in sql:
        return re.sub(r"\$(\d+)", lambda m: text(params[int(m[1]) - 1]), sql)
    values = iter(params)
    return re.sub(r"\?", lambda m: text(next(values)), sql)


PG_SCHEMA = """
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN even AS int CHECK (VALUE % 2 = 0);
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1);
CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 7 CHECK (a < 1000), b text, c varchar(10), d jsonb,
 e numeric(8,2), f timestamptz, g bytea, h boolean, i int[], j uuid, p int REFERENCES parent, k date, l time,
 m interval, n inet, o real, q double precision, r bigint, s smallint, v char(5), w int4range, x bit(4), y mood,
 z point, dom even, ts timestamp, js json, twice int GENERATED ALWAYS AS (a * 2) STORED, u int UNIQUE);
CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text);
CREATE TABLE slots (id int PRIMARY KEY, during int4range, EXCLUDE USING gist (during WITH &&));
CREATE TABLE changed (id int PRIMARY KEY, v int, who text);
CREATE FUNCTION before_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
 IF NEW.v % 3 = 0 THEN RETURN NULL; END IF;
 IF NEW.v = 500 THEN RAISE EXCEPTION 'five hundred' USING HINT = 'take another'; END IF;
 IF NEW.v = 400 THEN RAISE NOTICE 'four hundred'; END IF;
 NEW.who = 'trigger'; RETURN NEW;
END $$;
CREATE TRIGGER before_change BEFORE INSERT OR UPDATE ON changed FOR EACH ROW EXECUTE FUNCTION before_change();
CREATE TABLE journal (op text, rows bigint, first int);
CREATE TABLE watched (id int PRIMARY KEY, v int);
CREATE FUNCTION after_watched() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO journal SELECT TG_OP, count(*), min(id) FROM fresh; RETURN NULL; END $$;
CREATE TRIGGER after_watched AFTER INSERT ON watched REFERENCING NEW TABLE AS fresh
 FOR EACH STATEMENT EXECUTE FUNCTION after_watched();
CREATE VIEW small AS SELECT id, n, note FROM counters WHERE n < 100 WITH CHECK OPTION;
CREATE VIEW grouped AS SELECT n, count(*) FROM counters GROUP BY n;
CREATE TABLE ruled (id int PRIMARY KEY, v int);
CREATE RULE redirect AS ON INSERT TO ruled WHERE NEW.v < 0 DO INSTEAD INSERT INTO counters VALUES (NEW.id, NEW.v);
CREATE TABLE parts (id int, v int) PARTITION BY RANGE (v);
CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (200);
"""

PG_VALUES = {
    "a": (5, -1, 0), "b": ("one", "", None, "a'b\\c", "Grüße 漢字 🙂", "line\nline\ttab", "y" * 60000),
    "c": ("ten chars!", None), "d": ('{"k": [1, null, "v"]}', "null", None), "e": ("1.239", "-99999.99", None),
    "f": ("2024-02-29 12:00+02", "infinity", None), "g": (b"\xde\xad\x00\xff", b"", None), "h": (True, False, None),
    "i": ("{1,2,NULL}", "{}", None), "j": ("00000000-0000-0000-0000-00000000000a", None), "p": (1, None),
    "k": ("2024-02-29", "4713-01-01 BC"), "l": ("23:59:59.5",), "m": ("1 day 02:03:04", "-1 mon"),
    "n": ("10.0.0.0/8", "::1"), "o": (1.5, "NaN"), "q": (1e300, -0.0), "r": (2**62, -2**62), "s": (32767,),
    "v": ("ab",), "w": ("[1,5)", "empty"), "x": ("1010",), "y": ("happy", None), "z": ("(1,2)",), "dom": (4, None),
    "ts": ("2024-01-01 00:00:00.123456",), "js": ('{"a":  1}',),
}


def pg_statements(k: int) -> list[tuple[str, tuple]]:
    n = 1000 * k
    key = iter(range(n + 1, n + 900))
    out = []
    for column, values in PG_VALUES.items():
        for number, value in enumerate(values):
            returning = f" RETURNING id, {column}" if number % 2 else ""
            out.append((f"INSERT INTO t (id, {column}) VALUES ($1, $2){returning}", (next(key), value)))
    first, second, third = n + 1, n + 2, n + 3
    out += [
        # shapes of inserts and of results
        ("INSERT INTO t (id) VALUES ($1) RETURNING *", (next(key),)),
        ("INSERT INTO t (id, a, b) VALUES ($1, DEFAULT, $2) RETURNING a, b AS text", (next(key), "default")),
        ("INSERT INTO t (id, a) VALUES ($1, $2), ($3, $4)", (next(key), 1, next(key), 2)),
        ("INSERT INTO t (id, a) VALUES ($1, $2), ($3, $4) RETURNING id", (next(key), 1, next(key), 2)),
        ("INSERT INTO t (id, b) VALUES ($1, lower($2) || '!') RETURNING b", (next(key), "ABC")),
        ("INSERT INTO t (id, b) VALUES ($1, $2::text || $2::text) RETURNING b", (next(key), "ab")),
        ("INSERT INTO t (b, id) VALUES ($2, $1)", (next(key), "swapped")),
        ("INSERT INTO t (id, a) SELECT $1, 3", (next(key),)),
        ("INSERT INTO t (id, a) SELECT id + 500, a FROM t WHERE id IN ($1, $2)", (first, second)),
        ("INSERT INTO t (id, a) SELECT 1, 1 WHERE $1 = 0", (7,)),
        ("INSERT INTO t (id, b) VALUES ($1, (SELECT b FROM t WHERE id = $2)) RETURNING b", (next(key), first + 3)),
        ("INSERT INTO t (id, a) VALUES ($1, $2) RETURNING id, a * 2 AS double, twice", (next(key), 9)),
        ("INSERT INTO t VALUES ($1, $2)", (next(key), 1)),
        # upserts
        ("INSERT INTO counters (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = counters.n + 1", (n,)),
        ("INSERT INTO counters (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = counters.n + 1", (n,)),
        ("INSERT INTO counters (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = counters.n + excluded.n "
         "RETURNING n", (n,)),
        ("INSERT INTO counters (id, n) VALUES ($1, 1) ON CONFLICT DO NOTHING", (n,)),
        ("INSERT INTO counters (id, n) VALUES ($1, 1) ON CONFLICT DO NOTHING RETURNING n", (n,)),
        ("INSERT INTO counters (id, n, note) VALUES ($1, $2, $3), ($4, $5, $6) ON CONFLICT (id) DO UPDATE "
         "SET note = excluded.note WHERE counters.n < 10", (n, 5, "again", n + 1, 6, "new")),
        # updates
        ("UPDATE counters SET n = n + $1 WHERE id = $2", (5, n)),
        ("UPDATE counters SET n = n + $1 WHERE id = $2 RETURNING id, n", (5, n)),
        ("UPDATE counters SET n = $1, note = $2 WHERE id = $3", (7, "Grüße", n + 1)),
        ("UPDATE counters SET n = n WHERE id BETWEEN $1 AND $2 RETURNING *", (n, n + 9)),
        ("UPDATE counters SET n = 1 WHERE id = $1", (-5,)),
        ("UPDATE counters SET n = 1 WHERE id = $1 RETURNING n", (-5,)),
        ("UPDATE counters SET note = NULL WHERE id = $1 AND note IS NOT NULL", (n,)),
        ("UPDATE counters SET n = counters.n + t.a FROM t WHERE t.id = $1 AND counters.id = $2", (first, n)),
        ("UPDATE t SET b = upper(b), h = NOT coalesce(h, false) WHERE id = $1 RETURNING b, h", (first + 3,)),
        ("UPDATE t SET d = jsonb_set(coalesce(d, '{}'), '{x}', $1) WHERE id = $2 RETURNING d", ('"y"', second)),
        ("WITH old AS (SELECT id, n FROM counters WHERE id = $1) UPDATE counters c SET n = old.n + 1 FROM old "
         "WHERE c.id = old.id RETURNING c.n", (n,)),
        ("WITH gone AS (DELETE FROM t WHERE id = $1 RETURNING id, a) INSERT INTO counters (id, n) "
         "SELECT id + 500, a FROM gone", (third,)),
        ("WITH made AS (INSERT INTO counters (id, n) VALUES ($1, 3) RETURNING id, n) SELECT n FROM made", (n + 600,)),
        # deletes
        ("DELETE FROM t WHERE id = $1", (second,)),
        ("DELETE FROM t WHERE id = $1 RETURNING id, b", (first + 4,)),
        ("DELETE FROM t WHERE id = $1", (-1,)),
        ("DELETE FROM t USING counters c WHERE t.id = c.id AND c.id = $1", (n + 1,)),
        # tables that are not plain
        *[("INSERT INTO changed (id, v) VALUES ($1, $2)", (next(key), v)) for v in (1, 2, 3, 400)],
        *[("INSERT INTO changed (id, v) VALUES ($1, $2) RETURNING id, who", (n + 900 + v, v)) for v in (1, 3)],
        ("UPDATE changed SET v = $1 WHERE id = $2", (4, n + 901)),
        ("UPDATE changed SET v = $1 WHERE id = $2", (6, n + 901)),
        *[("INSERT INTO watched (id, v) VALUES ($1, $2)", (next(key), v)) for v in (1, 2)],
        ("INSERT INTO small (id, n) VALUES ($1, $2)", (n + 700, 5)),
        ("UPDATE small SET n = n + 1 WHERE id = $1", (n + 700,)),
        ("UPDATE small SET n = 5000 WHERE id = $1", (n + 700,)),
        *[("INSERT INTO ruled (id, v) VALUES ($1, $2)", (n + 800 + v, v)) for v in (1, -1, 2)],
        *[("INSERT INTO parts (id, v) VALUES ($1, $2)", (n, v)) for v in (1, 150)],
        ("UPDATE parts SET v = v + 100 WHERE id = $1 AND v < 100", (n,)),
        # errors, each its own
        ("INSERT INTO t (id, a) VALUES ($1, $2)", (first, 1)),                          # 23505
        ("INSERT INTO t (id, a) VALUES ($1, $2)", (n + 990, 1000)),                     # 23514
        ("INSERT INTO t (id, a) VALUES ($1, $2)", (n + 990, None)),                     # 23502
        ("INSERT INTO t (id, p) VALUES ($1, $2)", (n + 990, 99)),                       # 23503
        ("INSERT INTO t (id, r) VALUES ($1, $2)", (n + 990, "abc")),                    # 22P02
        ("INSERT INTO t (id, s) VALUES ($1, $2)", (n + 990, 70000)),                    # 22003
        ("INSERT INTO t (id, c) VALUES ($1, $2)", (n + 990, "longer than ten")),        # 22001
        ("INSERT INTO t (id, f) VALUES ($1, $2)", (n + 990, "no date")),                # 22007
        ("INSERT INTO t (id, f) VALUES ($1, $2)", (n + 990, "2024-13-01")),             # 22008
        ("INSERT INTO t (id, x) VALUES ($1, $2)", (n + 990, "10101")),                  # 22026
        ("INSERT INTO t (id, a) VALUES ($1, 1 / $2)", (n + 990, 0)),                    # 22012
        ("INSERT INTO t (id, q) VALUES ($1, ln($2::float8))", (n + 990, 0)),            # 2201E
        ("INSERT INTO t (id, q) VALUES ($1, sqrt($2::float8))", (n + 990, -1)),         # 2201F
        ("INSERT INTO t (id, g) VALUES ($1, decode($2, 'nothing'))", (n + 990, "x")),   # 22023
        ("INSERT INTO t (id, w) VALUES ($1, int4range($2, $3))", (n + 990, 5, 1)),      # 22000
        ("INSERT INTO t (id, dom) VALUES ($1, $2)", (n + 990, 3)),                      # 23514 of a domain
        ("INSERT INTO t (id, y) VALUES ($1, $2)", (n + 990, "grumpy")),                 # 22P02 of an enum
        ("INSERT INTO t (id, twice) VALUES ($1, $2)", (n + 990, 3)),                    # 428C9
        ("INSERT INTO t (id, nothing) VALUES ($1, $2)", (n + 990, 3)),                  # 42703
        ("INSERT INTO missing (id) VALUES ($1)", (n + 990,)),                           # 42P01
        ("INSERT INTO t (id, id) VALUES ($1, $2)", (n + 990, 3)),                       # 42701
        ("INSERT INTO t (id a) VALUES ($1, $2)", (n + 990, 3)),                         # 42601
        ("INSERT INTO t (id, a) VALUES ($1, no_function($2))", (n + 990, 3)),           # 42883
        ("INSERT INTO t (id, h) VALUES ($1, $2::date)", (n + 990, "2024-01-01")),       # 42804
        ("INSERT INTO t (id, a) VALUES ($1, (SELECT a FROM t WHERE id > $2))", (n + 990, 0)),   # 21000
        ("INSERT INTO counters (id, n) VALUES ($1, 1), ($1, 2) ON CONFLICT (id) DO UPDATE SET n = 0", (n,)),  # 21000
        ("INSERT INTO counters (id, n) VALUES ($1, 1) ON CONFLICT (n) DO NOTHING", (n,)),   # 42P10
        ("INSERT INTO slots (id, during) VALUES ($1, $2)", (n, f"[{n},{n + 5})")),
        ("INSERT INTO slots (id, during) VALUES ($1, $2)", (n + 1, f"[{n + 4},{n + 6})")),  # 23P01
        ("INSERT INTO changed (id, v) VALUES ($1, $2)", (n + 990, 500)),                # P0001
        ("UPDATE grouped SET n = 1 WHERE n = $1", (1,)),                                # 55000
        ("INSERT INTO parts (id, v) VALUES ($1, $2)", (n, 500)),                        # 23514: no partition
        ("UPDATE t SET a = a + $1 WHERE id = $2", (5000, first)),                       # 23514
        ("UPDATE t SET id = $1 WHERE id = $2", (first, first + 5)),                     # 23505
        ("UPDATE counters SET n = NULL WHERE id = $1", (n,)),                           # 23502
        ("DELETE FROM parent WHERE id = $1", (1,)),                                     # 23503
        ("INSERT INTO t (id, m) VALUES ($1, $2)", (n + 990, "9999999999 years")),       # 22015
        ("INSERT INTO t (id, l) VALUES ($1, $2)", (n + 990, "25:61:00")),               # 22008
        ("INSERT INTO t (id, b) VALUES ($1, chr($2))", (n + 990, -1)),                  # 54000
        ("UPDATE t SET b = 'x' FROM counters WHERE id = $1", (n,)),                     # 42702
        # a good one behind the bad ones
        *[("INSERT INTO t (id, a, b) VALUES ($1, $2, $3)", (next(key), v, f"after {v}")) for v in range(60)],
        *[("UPDATE counters SET n = n + 1 WHERE id = $1", (n,)) for _ in range(40)],
        *[("INSERT INTO counters (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = counters.n + 1", (n,))
          for _ in range(20)],
        ("INSERT INTO t (id, b) VALUES ($1, $2) RETURNING length(b)", (next(key), BIG)),
        ("SELECT * FROM t WHERE id BETWEEN $1 AND $2 AND (b IS NULL OR length(b) < 100000) ORDER BY id",
         (n + 1, n + 999)),
        ("SELECT * FROM counters WHERE id BETWEEN $1 AND $2 ORDER BY id", (n, n + 999)),
        ("SELECT * FROM changed WHERE id BETWEEN $1 AND $2 ORDER BY id", (n, n + 999)),
        ("SELECT op, rows, first FROM journal WHERE first BETWEEN $1 AND $2 ORDER BY first", (n, n + 999)),
        ("SELECT * FROM parts WHERE id = $1 ORDER BY v", (n,)),
        ("SELECT * FROM ruled WHERE id BETWEEN $1 AND $2 ORDER BY id", (n, n + 999)),
    ]
    return out


MY_SCHEMA = (
    "CREATE TABLE parent (id int PRIMARY KEY)", "INSERT INTO parent VALUES (1)",
    "CREATE TABLE t (id int PRIMARY KEY, a int NOT NULL DEFAULT 7 CHECK (a < 1000), b longtext, c varchar(10), "
    "d json, e decimal(8,2), f datetime(3), g longblob, h boolean, p int REFERENCES parent (id), k date, l time, "
    "n timestamp NULL, o float, q double, r bigint, s smallint, v char(5), w bit(4), x enum('sad', 'ok'), "
    "y set('a', 'b'), z year, u bigint unsigned, twice int AS (a * 2) STORED) DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note varchar(40)) DEFAULT CHARSET=utf8mb4",
    "CREATE TABLE needs (id int PRIMARY KEY, must int NOT NULL)",
    "CREATE TABLE changed (id int PRIMARY KEY, v int, who varchar(20))",
    "CREATE TRIGGER before_change BEFORE INSERT ON changed FOR EACH ROW SET NEW.who = CONCAT('trigger ', NEW.v)",
    "CREATE TABLE strict (id int PRIMARY KEY, v int)",
    "CREATE TRIGGER before_strict BEFORE INSERT ON strict FOR EACH ROW BEGIN IF NEW.v = 500 THEN "
    "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'five hundred'; END IF; END",
    "CREATE VIEW small AS SELECT id, n FROM counters WHERE n < 100 WITH CHECK OPTION",
    "CREATE TABLE parts (id int, v int) PARTITION BY RANGE (v) (PARTITION low VALUES LESS THAN (100), "
    "PARTITION high VALUES LESS THAN (200))",
    "CREATE TABLE isam (id int PRIMARY KEY, v int) ENGINE=MyISAM",
)

MY_VALUES = {
    "a": (5, -1, 0), "b": ("one", "", None, "a'b\\c", "Grüße 漢字 🙂", "line\nline\ttab", "y" * 60000),
    "c": ("ten chars!", None), "d": ('{"k": [1, null, "v"]}', None), "e": ("1.23", "-99999.99", None),
    "f": ("2024-02-29 12:00:00.125", None), "g": (b"\xde\xad\x00\xff", b"", None), "h": (1, 0, None), "p": (1, None),
    "k": ("2024-02-29", None), "l": ("23:59:59", "-01:00:00"), "n": ("2024-01-01 00:00:00", None), "o": (1.5, None),
    "q": (1e300, -0.5), "r": (2**62, -2**62), "s": (32767, -1), "v": ("ab", None), "w": (5, None), "x": ("ok", None),
    "y": ("a,b", ""), "z": (2024,), "u": (2**63,),
}


def my_statements(k: int) -> list[tuple[str, tuple]]:
    n = 1000 * k
    key = iter(range(n + 1, n + 900))
    out = []
    for column, values in MY_VALUES.items():
        for number, value in enumerate(values):
            returning = f" RETURNING id, {column}" if number % 2 else ""
            out.append((f"INSERT INTO t (id, {column}) VALUES (?, ?){returning}", (next(key), value)))
    first, second, third = n + 1, n + 2, n + 3
    upsert = "INSERT INTO counters (id, n) VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + VALUES(n)"
    out += [
        ("INSERT INTO t (id) VALUES (?) RETURNING *", (next(key),)),
        ("INSERT INTO t (id, a, b) VALUES (?, DEFAULT, ?)", (next(key), "default")),
        ("INSERT INTO t (id, a) VALUES (?, ?), (?, ?)", (next(key), 1, next(key), 2)),
        ("INSERT INTO t (id, a) VALUES (?, ?), (?, ?) RETURNING id", (next(key), 1, next(key), 2)),
        ("INSERT INTO t (id, b) VALUES (?, CONCAT(LOWER(?), '!'))", (next(key), "ABC")),
        ("INSERT INTO t SET id = ?, a = ?", (next(key), 3)),
        ("INSERT INTO t (id, a) SELECT ?, 3", (next(key),)),
        ("INSERT INTO t (id, a) SELECT id + 500, a FROM t AS o WHERE id IN (?, ?)", (first, second)),
        ("INSERT INTO t (id, a) SELECT 1, 1 FROM parent WHERE id = ?", (7,)),
        ("INSERT INTO t (id, b) VALUES (?, (SELECT o.b FROM t AS o WHERE o.id = ?))", (next(key), first + 3)),
        *[(upsert, (n,)) for _ in range(3)],
        ("INSERT INTO counters (id, n, note) VALUES (?, ?, ?), (?, ?, ?) ON DUPLICATE KEY UPDATE note = 'again'",
         (n, 5, "a", n + 1, 6, "b")),
        ("INSERT INTO counters (id, n) VALUES (?, 3) ON DUPLICATE KEY UPDATE n = n", (n,)),
        ("INSERT IGNORE INTO counters (id, n) VALUES (?, 1)", (n + 2,)),
        ("INSERT IGNORE INTO counters (id, n) VALUES (?, 1)", (n + 2,)),             # a warning
        ("SHOW WARNINGS", ()),
        ("REPLACE INTO counters (id, n) VALUES (?, ?)", (n + 2, 9)),
        ("REPLACE INTO counters (id, n) VALUES (?, ?)", (n + 3, 9)),
        ("REPLACE INTO counters SET id = ?, n = 4", (n + 3,)),
        ("UPDATE counters SET n = n + ? WHERE id = ?", (5, n)),
        ("UPDATE counters SET n = n WHERE id = ?", (n,)),                            # matched, not changed
        ("UPDATE counters SET n = ?, note = ? WHERE id = ?", (7, "Grüße", n + 1)),
        ("UPDATE counters SET n = n + 1 WHERE id BETWEEN ? AND ?", (n, n + 9)),
        ("UPDATE counters SET n = 1 WHERE id = ?", (-5,)),
        ("UPDATE counters SET n = n + 1 WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", (n, n + 10)),
        ("UPDATE IGNORE counters SET n = 3 WHERE id = ?", (n + 2,)),
        ("UPDATE t SET b = UPPER(b), h = NOT IFNULL(h, 0) WHERE id = ?", (first + 3,)),
        ("UPDATE t SET d = JSON_SET(IFNULL(d, '{}'), '$.x', ?) WHERE id = ?", ("y", first + 12)),
        ("DELETE FROM t WHERE id = ?", (second,)),
        ("DELETE FROM t WHERE id = ? RETURNING id, b", (first + 4,)),
        ("DELETE FROM t WHERE id = ?", (-1,)),
        ("DELETE FROM t WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", (third, n + 10)),
        *[("INSERT INTO changed (id, v) VALUES (?, ?)", (next(key), v)) for v in (1, 2)],
        ("INSERT INTO changed (id, v) VALUES (?, ?) RETURNING who", (next(key), 3)),
        ("INSERT INTO small (id, n) VALUES (?, ?)", (n + 700, 5)),
        *[("INSERT INTO parts (id, v) VALUES (?, ?)", (n, v)) for v in (1, 150)],
        ("UPDATE parts SET v = v + 100 WHERE id = ? AND v < 100", (n,)),
        ("INSERT INTO isam (id, v) VALUES (?, ?)", (n, 1)),
        ("INSERT INTO strict (id, v) VALUES (?, ?)", (n, 1)),
        # errors, each its own
        ("INSERT INTO t (id, a) VALUES (?, ?)", (first, 1)),                            # 1062
        ("INSERT INTO t (id, a) VALUES (?, ?)", (n + 990, 1000)),                       # 4025
        ("INSERT INTO t (id, a) VALUES (?, ?)", (n + 990, None)),                       # 1048
        ("INSERT INTO t (id, p) VALUES (?, ?)", (n + 990, 99)),                         # 1452
        ("INSERT INTO t (id, r) VALUES (?, ?)", (n + 990, "abc")),                      # 1366
        ("INSERT INTO t (id, s) VALUES (?, ?)", (n + 990, 70000)),                      # 1264
        ("INSERT INTO t (id, c) VALUES (?, ?)", (n + 990, "longer than ten")),          # 1406
        ("INSERT INTO t (id, f) VALUES (?, ?)", (n + 990, "no date")),                  # 1292
        ("INSERT INTO t (id, x) VALUES (?, ?)", (n + 990, "grumpy")),                   # 1265
        ("INSERT INTO t (id, a) VALUES (?, 1 / ?)", (n + 990, 0)),                      # 1365
        ("INSERT INTO t (id, r) VALUES (?, 9223372036854775807 + ?)", (n + 990, 1)),    # 1690
        ("INSERT INTO t (id, f) VALUES (?, STR_TO_DATE(?, '%Y'))", (n + 990, "x")),     # 1411
        ("INSERT INTO t (id, twice) VALUES (?, ?)", (n + 990, 3)),                      # 1906
        ("INSERT INTO t (id, nothing) VALUES (?, ?)", (n + 990, 3)),                    # 1054
        ("INSERT INTO missing (id) VALUES (?)", (n + 990,)),                            # 1146
        ("INSERT INTO nowhere.missing (id) VALUES (?)", (n + 990,)),                    # 1146 or 1049
        ("INSERT INTO t (id, id) VALUES (?, ?)", (n + 990, 3)),                         # 1110
        ("INSERT INTO t (id a) VALUES (?, ?)", (n + 990, 3)),                           # 1064
        ("INSERT INTO t (id, a) VALUES (?)", (n + 990,)),                               # 1136
        ("INSERT INTO t (id, a) VALUES (?, no_function(?))", (n + 990, 3)),             # 1305
        ("INSERT INTO t (id, a) VALUES (?, ABS(?, 1))", (n + 990, 3)),                  # 1582
        ("INSERT INTO t (id, a) VALUES (?, (SELECT o.id FROM t AS o WHERE o.id > ?))", (n + 990, 0)),   # 1242
        ("INSERT INTO t (id, a) VALUES (?, (SELECT 1, ?))", (n + 990, 0)),              # 1241
        ("INSERT INTO t (id, a) VALUES (?, COUNT(?))", (n + 990, 0)),                   # 1111
        ("INSERT INTO needs (id) VALUES (?)", (n + 990,)),                              # 1364
        ("INSERT INTO strict (id, v) VALUES (?, ?)", (n + 990, 500)),                   # 1644
        ("INSERT INTO parts (id, v) VALUES (?, ?)", (n, 500)),                          # 1526
        ("INSERT INTO small (id, n) VALUES (?, ?)", (n + 990, 500)),                    # 1369
        ("INSERT INTO t (id, e) VALUES (?, ?)", (n + 990, "12345678.9")),               # 1264
        ("UPDATE t SET a = a + ? WHERE id = ?", (5000, first)),                         # 4025
        ("UPDATE t SET id = ? WHERE id = ?", (first, first + 5)),                       # 1062
        ("UPDATE counters SET n = NULL WHERE id = ?", (n,)),                            # 1048
        ("DELETE FROM parent WHERE id = ?", (1,)),                                      # 1451
        ("UPDATE t, counters SET id = 1 WHERE id = ?", (n,)),                           # 1052
        *[("INSERT INTO t (id, a, b) VALUES (?, ?, ?)", (next(key), v, f"after {v}")) for v in range(60)],
        *[("UPDATE counters SET n = n + 1 WHERE id = ?", (n,)) for _ in range(40)],
        *[(upsert, (n,)) for _ in range(20)],
        ("INSERT INTO t (id, b) VALUES (?, ?)", (next(key), BIG)),
        ("SELECT * FROM t WHERE id BETWEEN ? AND ? AND (b IS NULL OR LENGTH(b) < 100000) ORDER BY id",
         (n + 1, n + 999)),
        ("SELECT * FROM counters WHERE id BETWEEN ? AND ? ORDER BY id", (n, n + 999)),
        ("SELECT * FROM changed WHERE id BETWEEN ? AND ? ORDER BY id", (n, n + 999)),
        ("SELECT * FROM parts WHERE id = ? ORDER BY v", (n,)),
    ]
    return out
