"""MariaDB's schemas. What triggers count is of their row's own unit."""

from tests.schemas.grammar import MISSING, Grammar
from tests.schemas.plan import KEYS, Column, Raw, Table, Write

BEFORE = [
    "CREATE SEQUENCE shared START WITH 50000000", "CREATE SEQUENCE once START WITH 60000000",
    "CREATE FUNCTION f_last() RETURNS bigint READS SQL DATA RETURN LAST_INSERT_ID()",
    "CREATE FUNCTION f_connection() RETURNS bigint NO SQL RETURN CONNECTION_ID()",
    "CREATE FUNCTION f_found(v int) RETURNS bigint READS SQL DATA RETURN (SELECT COUNT(*) FROM log WHERE o = v)",
    "CREATE FUNCTION f_count() RETURNS int NO SQL BEGIN SET @n = COALESCE(@n, 0) + 1; RETURN @n; END",
    "CREATE FUNCTION f_twice(v int) RETURNS int DETERMINISTIC RETURN v * 2",
    "CREATE PROCEDURE p_log(o int, w int) INSERT INTO log (o, w, src, own) VALUES (o, w, 'procedure', CONNECTION_ID())",
    "CREATE PROCEDURE p_zone() SET time_zone = '+09:00'",
    "CREATE VIEW last AS SELECT LAST_INSERT_ID() AS last_id",
]
DEEDS = [
    ("INSERT INTO log (o, w, src) VALUES (r.o, r.w, 'plain');", False),
    ("INSERT INTO log (o, w, src, n) VALUES (r.o, r.w, 'count', f_found(r.o));", False),
    ("INSERT INTO log (o, w, src, own) VALUES (r.o, r.w, 'connection', CONNECTION_ID());", False),
    ("INSERT INTO log (o, w, src, own) VALUES (r.o, r.w, 'function', f_connection());", False),
    ("INSERT INTO log (o, w, src, own) VALUES (r.o, r.w, 'variable', @@pseudo_thread_id);", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'user', CONCAT(USER(), CURRENT_USER()));", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'database', DATABASE());", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'variable', @tenant);", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'mode', @@sql_mode);", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'zone', @@time_zone);", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'autocommit', @@autocommit);", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'locks', @@innodb_lock_wait_timeout);", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'in', @@in_transaction);", False),
    # a count above 1 cannot be set for a trigger to read, and is -1 (docs/exactness.md)
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'count', IF(ROW_COUNT() > 1, -1, ROW_COUNT()));", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'warnings', @@warning_count);", False),
    ("INSERT INTO log (o, w, src, q) SELECT r.o, r.w, 'query', info FROM information_schema.processlist "
     "WHERE id = CONNECTION_ID();", False),
    ("SET @last = r.w;", False), ("SET @n = COALESCE(@n, 0) + 1;", False),
    ("SET @n = COALESCE(@n, 0) + 1; INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'number', @n);", False),
    ("INSERT INTO log (o, w, src, n) VALUES (r.o, r.w, 'number', f_count());", False),
    ("INSERT INTO tally VALUES (r.o, 1) ON DUPLICATE KEY UPDATE n = n + 1;", False),
    ("UPDATE tally SET n = n + 1 WHERE o = r.o;", False),
    ("DO NEXTVAL(shared);", False), ("CALL p_log(r.o, r.w);", False),
    ("IF r.k % 7 = 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no seven'; END IF;", False),
    ("IF r.k % 7 = 0 THEN SIGNAL SQLSTATE '01000' SET MESSAGE_TEXT = 'a warning'; END IF;", False),
    ("IF f_found(r.o) > 8 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'enough'; END IF; "
     "INSERT INTO log (o, w, src) VALUES (r.o, r.w, 'enough');", False),
    ("BEGIN DECLARE CONTINUE HANDLER FOR 1062 UPDATE tally SET n = n + 10 WHERE o = r.o; "
     "INSERT INTO tally VALUES (r.o, 1); END;", False),
    ("SET r.w = r.w + 0;", True), ("SET r.{given} = r.{given};", True),
]
# LAST_INSERT_ID() inside a trigger is what the session's earlier statement left
LAST_DEEDS = ["INSERT INTO last_ids (o, w, last_id) VALUES (r.o, r.w, LAST_INSERT_ID());",
              "INSERT INTO last_ids (o, w, last_id) VALUES (r.o, r.w, f_last());"]

PROBES = (
    "SELECT LAST_INSERT_ID() AS last_id", "SELECT LAST_INSERT_ID() AS last_id", "SELECT @@identity AS last_id",
    "SELECT ROW_COUNT() AS n", "SHOW WARNINGS", "SHOW WARNINGS", "SELECT @last, @n, @tenant",
    "SELECT @@last_insert_id AS last_id", "SELECT f_last() AS last_id", "SELECT * FROM last",
    "EXECUTE IMMEDIATE 'SELECT LAST_INSERT_ID() AS last_id'", "SELECT @@warning_count, @@error_count",
    "SELECT @@sql_mode, @@time_zone, DATABASE(), @@autocommit, @@innodb_lock_wait_timeout, @@timestamp < 1800000000",
    "SELECT LASTVAL(once) AS last_id", "SELECT LASTVAL(shared) AS last_id", "SHOW COUNT(*) WARNINGS",
    "SHOW ERRORS", "SELECT @@in_transaction, @@auto_increment_increment", "GET DIAGNOSTICS @n = NUMBER",
    "BEGIN NOT ATOMIC SELECT LAST_INSERT_ID() AS last_id; END"
)


class MariaDBGrammar(Grammar):
    protocol = "mariadb"
    probes = PROBES
    forms = ("text", "text", "prepared")

    def __init__(self, seed):
        super().__init__(seed)
        self.before = list(BEFORE)

    def given(self):
        return [
            ("int", (1, 2, 3, 7, 13, 49, 0, -1, None), (50, "x", 10**10)),
            ("text", ("a", "it's {key}", "", "Grüße 漢字", "back\\slash", None), ()),
            ("varchar(8)", ("a", "long", None), ("short", "too long a text")),
            ("decimal(6,2)", (1, "1.23", 7, None), ("1.239", "99999.999")),
            ("datetime", ("2024-02-29 12:00:00", "2024-02-28 12:00:00"), ("2024-02-30 12:00:00", "soon")),
            ("timestamp NULL", (None, "2024-02-29 12:00:00"), ()),
            ("json", ("{}", '{"a": [1, null]}'), ("{broken",)),
            ("uuid", ("00000000-0000-0000-0000-000000{key:06}",), ("no uuid",)),
            ("enum('sad','ok','happy')", ("ok", "sad", "happy"), ("none",)),
            ("set('a','b')", ("a", "a,b", ""), ("c",)),
            ("tinyint unsigned", (1, 49), (50, 256, -1)),
            ("int NOT NULL", (1, 2, 3), (None, 50)),
            ("varchar(20) DEFAULT 'none'", ("a", "x", Raw("DEFAULT"), Raw("LOWER('ABC')")), ("short",)),
            ("int INVISIBLE DEFAULT 4", (1, 13), (50,)),
            ("inet6", ("::1", "::2"), ("no address",)),
        ]

    def harmless(self):
        return [
            ("int DEFAULT 7", "exact"), ("varchar(9) DEFAULT 'x'", "exact"),
            ("datetime DEFAULT CURRENT_TIMESTAMP", "time"), ("timestamp DEFAULT CURRENT_TIMESTAMP", "time"),
            ("datetime(6) DEFAULT NOW(6) ON UPDATE NOW(6)", "time"), ("uuid DEFAULT UUID()", "random"),
            ("bigint AUTO_INCREMENT UNIQUE", "id"), ("bigint AUTO_INCREMENT UNIQUE", "id"),
            ("int AS (o * 2) PERSISTENT", "exact"), ("int AS (o * 2) VIRTUAL", "exact"),
            ("double DEFAULT (RAND())", "random"), ("int DEFAULT (1 + 2) CHECK (TRUE)", "exact"),
        ]

    def made(self):
        # no @@variables and no LASTVAL(): the server (10.11) crashes on such defaults now and then; no CURRENT_USER():
        # it and @variables may be another session's
        return [
            *self.harmless(),
            ("bigint DEFAULT (NEXTVAL(once))", "id"), ("bigint DEFAULT NEXT VALUE FOR shared", "id"),
            ("bigint DEFAULT (CONNECTION_ID())", "own"),
            ("bigint DEFAULT (CONNECTION_ID() + 0)", "own"),
            ("varchar(80) DEFAULT (DATABASE())", "exact"),
            ("bigint DEFAULT (UUID_SHORT())", "random"),
            ("varchar(40) DEFAULT (FROM_UNIXTIME(0))", "exact"), ("datetime DEFAULT (SYSDATE())", "time"),
            ("int DEFAULT (CHAR_LENGTH(DATE_FORMAT('2024-05-01', '%M')))", "exact"),
            ("varchar(40) DEFAULT (DAYNAME('2024-05-01'))", "exact"), ("varchar(40) DEFAULT (1 / 3)", "exact"),
            ("varchar(90) DEFAULT (COLLATION('a'))", "exact"), ("varchar(9) DEFAULT (CHARSET('a'))", "exact"),
            ("int AS (CHAR_LENGTH(USER())) VIRTUAL", "exact"),
        ]

    def plan(self):
        plan = super().plan()
        if any("NEXT" in column.sql for table in plan.tables for column in table.columns):
            for session in plan.sessions:
                session.form = "text"           # prepared, the server (10.11) crashes on such defaults now and then
        return plan

    def table(self, name, plain):
        table = super().table(name, plain)
        auto = [c for c in table.columns if "AUTO_INCREMENT" in c.sql]
        table.columns = [c for c in table.columns if c not in auto[1:]]
        engine = "InnoDB"
        if not plain and self.chance(0.1) and not any("FOREIGN" in c for c in table.constraints):
            engine = self.rng.choice(("MyISAM", "Aria", "Aria TRANSACTIONAL=0"))
        table.tail += f" ENGINE={engine} AUTO_INCREMENT={self.start()} DEFAULT CHARSET=utf8mb4"
        if not plain and self.chance(0.08):
            table.tail += " WITH SYSTEM VERSIONING"
        elif not plain and self.chance(0.1) and not auto and not any(
                "FOREIGN" in c or "UNIQUE" in c for c in table.constraints):
            table.tail += self.rng.choice((
                " PARTITION BY HASH (k) PARTITIONS 3",
                " PARTITION BY RANGE (k) (PARTITION a VALUES LESS THAN (5000), PARTITION b VALUES LESS THAN MAXVALUE)"))
        return table

    def keys(self, table: Table) -> None:
        rng, name = self.rng, table.name
        table.constraints.append("PRIMARY KEY (k)" if self.chance(0.9) else "UNIQUE (k)")
        if self.chance(0.5):
            table.columns.append(Column("u", "int", "exact", lambda r, u, k: (
                u * KEYS + 2 if r.random() < 0.02 else None if r.random() < 0.05 else k) if r else k))
            table.constraints.append(rng.choice(("UNIQUE (u)", "UNIQUE (u)", "UNIQUE (u, o)", "UNIQUE (o, u)")))
        if self.chance(0.4):
            table.columns.append(Column("p", "int", "exact", lambda r, u, k: r.choice(
                (None, u * KEYS + 1, u * KEYS + 2) if r.random() > 0.02 else (u * KEYS + MISSING,)) if r else None))
            target = name if self.chance(0.5) else self.tables[0].name if self.tables else name
            table.constraints.append(f"FOREIGN KEY (p) REFERENCES {target} (k)" + rng.choice(
                ("", "", " ON DELETE CASCADE", " ON DELETE SET NULL")))
        for column in table.columns:
            if column.name.startswith("c") and column.value is not None and self.chance(0.25):
                table.constraints.append(
                    f"CHECK ({column.name} < 50)" if column.sql.startswith(("int", "tiny")) else
                    rng.choice((f"UNIQUE ({column.name}, k)", "CHECK (o > 0)", f"CHECK ({column.name} <> 'short')"))
                    if column.sql.startswith(("varchar", "text")) else "CHECK (k > o)")

    def furnish(self):
        for table in self.tables:
            for _ in range(self.rng.choice((0, 0, 1, 1, 2))):
                self.trigger(table)
        if self.chance(0.08):
            table = self.rng.choice(self.tables)
            table.made, table.name = table.name, f"v{table.name}"
            self.after.append(f"CREATE VIEW {table.name} AS SELECT * FROM {table.made}" + self.rng.choice(
                ("", " WHERE k % 5 <> 0", " WHERE k % 5 <> 0 WITH CHECK OPTION")))

    def trigger(self, table: Table) -> None:
        rng = self.rng
        when = rng.choice(("BEFORE", "AFTER"))
        event = rng.choice(("INSERT", "INSERT", "UPDATE", "DELETE"))
        row = "OLD" if event == "DELETE" else "NEW"
        deeds = [deed for deed, before in DEEDS if not before or (when == "BEFORE" and row == "NEW")]
        body = " ".join(rng.sample(deeds, rng.choice((1, 1, 2))))
        if self.chance(0.1):
            body += f" {rng.choice(LAST_DEEDS)}"
        given = next((c.name for c in table.columns if c.value is not None), "o")
        body = body.replace("r.", f"{row}.").replace("{given}", given)
        self.after.append(f"CREATE TRIGGER g{len(self.after)} {when} {event} ON {table.made or table.name} "
                          f"FOR EACH ROW BEGIN {body} END")

    def settings(self):
        return self.rng.choice((
            ["SET time_zone = '+09:00'"], ["SET sql_mode = ''"],
            ["SET sql_mode = 'NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES'"],
            ["SET sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES'"],
            ["SET auto_increment_increment = 7, auto_increment_offset = 3"],
            ["SET @tenant = 'a'"], ["SET @tenant = 'b'"], ["SELECT @tenant := 'b'"], ["SET timestamp = 1700000000"],
            ["USE playspare"], ["SET foreign_key_checks = 0"], ["SET check_constraint_checks = 0"],
            ["CALL p_zone()"], ["EXECUTE IMMEDIATE 'SET time_zone = ''+09:00'''"], ["SELECT f_count()"],
            ["PREPARE s FROM 'SET sql_mode = '''''", "EXECUTE s"], ["SET lc_time_names = 'de_DE'"],
            ["SELECT LAST_INSERT_ID(77)"], ["SET last_insert_id = 5"], ["SELECT NEXTVAL(once)"],
            ["SELECT NEXTVAL(shared)"],
            ["SET NAMES latin1"], ["SET NAMES utf8mb4 COLLATE utf8mb4_bin"], ["SET div_precision_increment = 8"],
            ["CREATE TEMPORARY TABLE t1 (k int PRIMARY KEY, o int, w int)"], ["SET innodb_lock_wait_timeout = 20"],
            ["DO GET_LOCK('mine', 0)"], ["BEGIN NOT ATOMIC SET @@session.time_zone = '+09:00'; END"],
            ["SET STATEMENT sql_mode = '' FOR SELECT 1"], ["SET ROLE NONE"], ["SET sql_log_bin = 0"],
            ["/*!50000 SET sql_mode = '' */"], ["/*M! SET time_zone = '+09:00' */"],
            ["SET SESSION TRANSACTION READ ONLY"],
            # its own: values that two sessions have in common are told from those that one row has
            [f"SET rand_seed1 = {self.rng.randrange(10**6)}, rand_seed2 = 2"], ["SET old_mode = ''"],
            ["SET sql_auto_is_null = 1"],
        ))

    def upsert(self, table):
        given = [c.name for c in table.columns if c.value is not None and c.name != "u"]
        return self.rng.choice((
            " ON DUPLICATE KEY UPDATE w = VALUES(w)",
            " ON DUPLICATE KEY UPDATE " + ", ".join(f"{name} = VALUES({name})" for name in ("w", *given))))

    def write(self, table, kind, k, unit):
        write = super().write(table, kind, k, unit)
        if write.verb == "insert" and not write.tail and self.chance(0.1):
            write.into = self.rng.choice(("INSERT IGNORE INTO", "REPLACE INTO"))
        return write

    def may_return(self, write: Write) -> bool:
        return write.verb != "update" and "DUPLICATE" not in write.tail
