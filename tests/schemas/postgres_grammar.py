"""PostgreSQL's schemas.

Functions count rows of their own unit only where the count is compared (``log.n``, checks, exceptions); those of all
units go to ``log.every``.
"""

from tests.schemas.grammar import MISSING, Grammar
from tests.schemas.plan import KEYS, Column, Raw, Table

FUNCTIONS = {
    "f_pid": ("int LANGUAGE sql", "SELECT pg_backend_pid()"),
    "f_pid_hidden": ("int LANGUAGE plpgsql", "DECLARE n int; BEGIN EXECUTE 'SELECT pg_back' || 'end_pid()' INTO n; "
                                             "RETURN n; END"),
    "f_query": ("text LANGUAGE sql", "SELECT current_query()"),
    "f_every": ("bigint LANGUAGE sql", "SELECT count(*) FROM log"),
    "f_next": ("bigint LANGUAGE sql", "SELECT nextval('shared')"),
    "f_next_inner": ("bigint LANGUAGE plpgsql", "BEGIN RETURN f_next(); END"),
    "f_count": ("text LANGUAGE sql", "SELECT set_config('app.n', (coalesce(nullif(current_setting('app.n', true), ''), "
                                     "'0')::int + 1)::text, false)"),
    "f_local": ("text LANGUAGE sql", "SELECT coalesce(current_setting('app.here', true), '') || "
                                     "set_config('app.here', 'set', true)"),
    "f_xid": ("text LANGUAGE sql", "SELECT pg_current_xact_id()::text"),
    "f_notice": ("int LANGUAGE plpgsql", "BEGIN RAISE NOTICE 'a default'; RETURN 1; END"),
    "f_plain": ("int LANGUAGE sql IMMUTABLE", "SELECT 5"),
    "f_plain_pl": ("int LANGUAGE plpgsql", "BEGIN RETURN 6; END"),
    "f_tenant": ("text LANGUAGE sql STABLE", "SELECT current_setting('app.tenant', true)"),
    "f_temp": ("int LANGUAGE plpgsql", "BEGIN CREATE TEMP TABLE IF NOT EXISTS mine (a int) ON COMMIT PRESERVE ROWS; "
                                       "INSERT INTO mine VALUES (1); RETURN (SELECT count(*) FROM mine); END"),
}
OF_ROW = {
    "f_positive": ("(int) RETURNS boolean LANGUAGE sql IMMUTABLE", "SELECT $1 IS DISTINCT FROM 13"),
    "f_few": ("(int) RETURNS boolean LANGUAGE plpgsql",
              "BEGIN RETURN (SELECT count(*) FROM log WHERE o = $1) < 12; END"),
    "f_lies": ("(int) RETURNS int LANGUAGE plpgsql IMMUTABLE", "BEGIN RETURN pg_backend_pid(); END"),
    "f_twice": ("(int) RETURNS int LANGUAGE sql IMMUTABLE", "SELECT $1 * 2"),
    "f_set_tenant": ("(text) RETURNS text LANGUAGE sql", "SELECT set_config('app.tenant', $1, false)"),
}

# what a row trigger does with NEW (or OLD as r): (SQL, whether only before)
DEEDS = [
    ("INSERT INTO log (o, w, src) VALUES (r.o, r.w, 'plain');", False),
    ("INSERT INTO log (o, w, src, n) VALUES (r.o, r.w, 'count', (SELECT count(*) FROM log WHERE o = r.o));", False),
    ("INSERT INTO log (o, w, src, n) VALUES (r.o, r.w, 'rows', (SELECT count(*) FROM {table} WHERE o = r.o));", False),
    ("INSERT INTO log (o, w, src, every) VALUES (r.o, r.w, 'every', (SELECT count(*) FROM log));", False),
    ("INSERT INTO log (o, w, src, own) VALUES (r.o, r.w, 'pid', pg_backend_pid());", False),
    ("INSERT INTO log (o, w, src, own) VALUES (r.o, r.w, 'activity', (SELECT pid FROM pg_stat_activity "
     "WHERE pid = pg_backend_pid()));", False),
    ("INSERT INTO log (o, w, src, own) VALUES (r.o, r.w, 'port', inet_client_port());", False),
    ("INSERT INTO log (o, w, src, xid) VALUES (r.o, r.w, 'xid', txid_current());", False),
    ("INSERT INTO log (o, w, src, xid) SELECT r.o, r.w, 'xmin', xmin FROM {table} WHERE k = r.k AND "
     "pg_current_xact_id_if_assigned() IS NOT NULL;", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'query', current_query());", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'activity', (SELECT query FROM pg_stat_activity "
     "WHERE pid = pg_backend_pid()));", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'tenant', current_setting('app.tenant', true));", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'zone', current_setting('TimeZone'));", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'path', current_setting('search_path'));", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'user', current_user || session_user);", False),
    ("PERFORM set_config('app.last', r.w::text, false);", False),
    ("PERFORM set_config('app.here', r.w::text, true);", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'here', current_setting('app.here', true)); "
     "SET LOCAL app.here = 'seen';", False),
    ("INSERT INTO log (o, w, src, q) VALUES (r.o, r.w, 'mode', current_setting('lock_timeout')); ", False),
    ("INSERT INTO log (o, w, src, n) VALUES (r.o, r.w, 'time', "
     "(SELECT count(*) FROM log WHERE o = r.o AND at < now()));", False),
    ("INSERT INTO tally VALUES (r.o, 1) ON CONFLICT (o) DO UPDATE SET n = tally.n + 1;", False),
    ("PERFORM nextval('shared');", False),
    ("PERFORM pg_notify('changes', r.w::text);", False),
    ("RAISE NOTICE 'write %', r.w;", False),
    ("RAISE WARNING 'write %', r.w;", False),
    ("IF r.k % 7 = 0 THEN RAISE EXCEPTION 'no %', r.k USING HINT = 'seven', ERRCODE = 'P0007'; END IF;", False),
    ("IF (SELECT count(*) FROM log WHERE o = r.o) > 8 THEN RAISE EXCEPTION 'enough of %', r.o; END IF; "
     "INSERT INTO log (o, w, src) VALUES (r.o, r.w, 'enough');", False),
    ("BEGIN INSERT INTO tally VALUES (r.o, 1); EXCEPTION WHEN unique_violation THEN UPDATE tally SET n = n + 10 "
     "WHERE o = r.o; END;", False),
    ("EXECUTE 'INSERT INTO log (o, w, src, own) VALUES ($1, $2, ''dynamic'', pg_back' || 'end_pid())' USING r.o, r.w;",
     False),
    ("CREATE TEMP TABLE IF NOT EXISTS mine (w int); INSERT INTO mine VALUES (r.w); "
     "INSERT INTO log (o, w, src, n) SELECT r.o, r.w, 'temp', count(*) FROM mine;", False),
    ("IF r.k % 5 = 0 THEN RETURN NULL; END IF;", True),
    ("r.w := r.w + 0;", True),
    ("r.{given} := r.{given};", True),
]
STATEMENT_DEEDS = [
    "INSERT INTO log (src) VALUES ('statement');",
    "INSERT INTO log (src, q) VALUES ('statement', current_query());",
    "PERFORM set_config('app.last', 'statement', false);",
    "INSERT INTO log (src, q) VALUES ('statement', TG_OP);",
    "RAISE NOTICE 'a statement';",
]
TRANSITION_DEEDS = [
    "INSERT INTO log (o, w, src, n) SELECT min(o), min(w), 'statement of', count(*) FROM now_there;",
    "INSERT INTO log (o, w, src, q) SELECT o, w, 'each', current_query() FROM now_there;",
]

PROBES = (
    "SELECT current_setting('app.last', true), current_setting('app.n', true), current_setting('app.here', true)",
    "SELECT current_setting('app.tenant', true), current_setting('TimeZone'), current_setting('search_path')",
    "SHOW lock_timeout",
    "SELECT name, setting FROM pg_settings WHERE source = 'session' AND name NOT LIKE 'app%'",
    "SELECT pg_trigger_depth(), to_regclass('mine') IS NULL",
    "SELECT name FROM pg_prepared_statements WHERE name LIKE 'tqdb%'",
)
# asked last: a session that asks is relayed from then on
LAST_PROBES = ("SELECT lastval() AS last_id", "SELECT currval('shared') AS last_id")


class PostgresGrammar(Grammar):
    protocol = "postgres"
    probes = PROBES
    last_probes = LAST_PROBES
    forms = ("text", "extended", "prepared")

    def __init__(self, seed):
        super().__init__(seed)
        self.before = ["CREATE SEQUENCE once START 60000000",
                       "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
                       "CREATE DOMAIN positive AS int CHECK (VALUE > 0)"]
        for name, (kind, body) in FUNCTIONS.items():
            self.before.append(f"CREATE FUNCTION {name}() RETURNS {kind} AS $${body}$$")
        for name, (kind, body) in OF_ROW.items():
            self.before.append(f"CREATE FUNCTION {name}{kind} AS $${body}$$")
        self.before += ["CREATE DOMAIN checked AS int CHECK (f_positive(VALUE))",
                        "CREATE DOMAIN filled AS int DEFAULT pg_backend_pid()"]

    def given(self):
        return [
            ("int", (1, 2, 3, 7, 13, 49, 0, -1, None), (50, "x", 10**10)),
            ("text", ("a", "it's {key}", "", "Grüße 漢字", "back\\slash", None), ()),
            ("varchar(8)", ("a", "short", None), ("too long a text",)),
            ("numeric(6,2)", (1, "1.239", 7, None), ("99999.999",)),
            ("timestamptz", ("2024-02-29 12:00+00", "2024-02-29 12:00", "2024-02-29 12:00+05"), ("soon",)),
            ("jsonb", ("{}", '{"a": [1, null]}'), ("{broken",)),
            ("uuid", ("00000000-0000-0000-0000-000000{key:06}",), ("no uuid",)),
            ("mood", ("ok", "sad", "happy"), ("none",)),
            ("int[]", ("{}", "{1,2,NULL}"), ("{1,",)),
            ("positive", (1, 5, None), (0,)),
            ("checked", (1, 2, None), (13,)),
            ("int NOT NULL", (1, 2, 3), (None, 50)),
            ("text DEFAULT 'none'", ("a", "x", Raw("DEFAULT"), Raw("lower('ABC')")), ()),
            ("timestamptz DEFAULT now()", ("2024-01-01", "2024-01-02", Raw("DEFAULT"), Raw("now()")), (), "time"),
        ]

    def harmless(self):
        return [
            ("int DEFAULT 7", "exact"), ("text DEFAULT 'x'", "exact"), ("timestamptz DEFAULT now()", "time"),
            ("timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP", "time"), ("uuid DEFAULT gen_random_uuid()", "random"),
            ("bigserial", "id"), ("bigint GENERATED ALWAYS AS IDENTITY (START {start})", "id"), ("jsonb DEFAULT '{}'",
            "exact"),
            ("bigint GENERATED BY DEFAULT AS IDENTITY (START {start})", "id"), ("float DEFAULT random()", "random"),
            ("int CHECK (TRUE) DEFAULT 3", "exact"), ("int GENERATED ALWAYS AS (o * 2) STORED", "exact"),
            ("bigint DEFAULT nextval('once')", "id"), ("timestamptz DEFAULT clock_timestamp()", "time"),
        ]

    def made(self):
        return [
            *self.harmless(),
            ("bigint DEFAULT currval('shared')", "ref"), ("bigint DEFAULT lastval()", "ref"),
            ("bigint DEFAULT nextval('shared')", "id"), ("bigint DEFAULT f_next()", "id"),
            ("bigint DEFAULT f_next_inner()", "id"), ("int DEFAULT pg_backend_pid()", "own"),
            ("int DEFAULT inet_client_port()", "own"), ("int DEFAULT f_pid()", "own"),
            ("int DEFAULT f_pid_hidden()", "own"), ("filled", "own"),
            ("int GENERATED ALWAYS AS (f_lies(o)) STORED", "own"), ("bigint DEFAULT txid_current()", "xid"),
            ("text DEFAULT pg_current_xact_id()::text", "xid"), ("text DEFAULT f_xid()", "xid"),
            ("bigint DEFAULT (pg_current_xact_id()::text)::bigint", "xid"), ("text DEFAULT current_query()", "exact"),
            ("text DEFAULT f_query()", "exact"), ("text DEFAULT current_setting('app.tenant', true)", "exact"),
            ("text DEFAULT f_tenant()", "exact"), ("text DEFAULT current_user", "exact"),
            ("text DEFAULT session_user", "exact"), ("text DEFAULT current_schema()", "exact"),
            ("text DEFAULT current_setting('TimeZone')", "exact"), ("text DEFAULT current_setting('datestyle')",
            "exact"),
            ("text DEFAULT current_setting('lock_timeout')", "exact"),
            ("text DEFAULT current_setting('search_path')", "exact"), ("date DEFAULT '2024-02-03'", "exact"),
            ("text DEFAULT now()::date::text", "any"), ("bigint DEFAULT f_every()", "any"),
            ("text DEFAULT f_count()", "exact"), ("text DEFAULT f_local()", "exact"), ("int DEFAULT f_notice()",
            "exact"),
            ("int DEFAULT f_plain()", "exact"), ("int DEFAULT f_plain_pl()", "exact"), ("int DEFAULT f_temp()",
            "exact"),
            ("int GENERATED ALWAYS AS (f_twice(o)) STORED", "exact"), ("int DEFAULT pg_trigger_depth()", "exact"),
            ("text DEFAULT version()", "exact"), ("text DEFAULT pg_current_snapshot()::text", "any"),
            # assigned before by every 32nd nextval, whoever draws it
            ("text DEFAULT coalesce(pg_current_xact_id_if_assigned()::text, '-')", "any"),
            ("oid DEFAULT pg_my_temp_schema()", "exact"),
            ("timestamptz DEFAULT statement_timestamp()", "time"),
            ("text DEFAULT set_config('app.last', 'default', false)", "exact"),
            ("int DEFAULT (1 / (random() * 0 + 1))::int", "exact"), ("int DEFAULT length(current_query())", "exact"),
            ("int DEFAULT nullif(1, 1)", "exact"), ("text DEFAULT to_char(timestamptz '2024-01-01 00:00Z', 'HH24')",
            "exact"),
            ("text DEFAULT (timestamptz '2024-01-01 00:00Z')::text", "exact"),
            ("text DEFAULT inet_client_addr()::text", "exact"), ("text DEFAULT pg_conf_load_time()::text", "any"),
        ]

    def keys(self, table: Table) -> None:
        rng, name = self.rng, table.name
        table.tail = "".join(f";\nALTER SEQUENCE {name}_{c.name}_seq RESTART WITH {self.start()}"
                             for c in table.columns if c.sql == "bigserial")
        table.constraints.append("PRIMARY KEY (k)" if self.chance(0.9) else "UNIQUE (k)")
        if self.chance(0.5):
            table.columns.append(Column("u", "int", "exact", lambda r, u, k: (
                u * KEYS + 2 if r.random() < 0.02 else None if r.random() < 0.05 else k) if r else k))
            table.constraints.append(rng.choice((
                "UNIQUE (u)", "UNIQUE (u)", "UNIQUE (u) DEFERRABLE INITIALLY DEFERRED", "UNIQUE (u) DEFERRABLE",
                "EXCLUDE USING btree (u WITH =)", "EXCLUDE USING btree (u WITH =) DEFERRABLE INITIALLY DEFERRED",
                "EXCLUDE USING gist (int4range(u, u + 1) WITH &&) WHERE (u IS NOT NULL)",
                "UNIQUE NULLS NOT DISTINCT (u, o)")))
        if self.chance(0.4):
            table.columns.append(Column("p", "int", "exact", lambda r, u, k: r.choice(
                (None, u * KEYS + 1, u * KEYS + 2) if r.random() > 0.02 else (u * KEYS + MISSING,)) if r else None))
            target = name if self.chance(0.5) else self.tables[0].name if self.tables else name
            table.constraints.append(f"FOREIGN KEY (p) REFERENCES {target} (k)" + rng.choice(
                ("", "", " ON DELETE CASCADE", " ON DELETE SET NULL", " ON UPDATE CASCADE ON DELETE SET DEFAULT"))
                + rng.choice(("", "", " DEFERRABLE INITIALLY DEFERRED", " DEFERRABLE")))
        given = [c for c in table.columns if c.value is not None and c.sql.split()[0] in ("int", "positive", "checked")]
        for column in given:
            if self.chance(0.3) and column.name.startswith("c"):
                table.constraints.append(rng.choice((
                    f"CHECK ({column.name} < 50)", f"CHECK (f_positive({column.name}))", "CHECK (f_few(o))",
                    f"CONSTRAINT named CHECK ({column.name} <> 7) NO INHERIT", "CHECK (pg_backend_pid() > 0)",
                    f"CHECK ({column.name} IS NULL OR {column.name} <> length(current_query()))")))

    def furnish(self):
        rng = self.rng
        for table in self.tables:
            own = table.name
            if self.chance(0.12):
                self.partition(table)
            elif self.chance(0.08):
                self.after.append(f"CREATE TABLE {own}_child (more int DEFAULT pg_backend_pid()) INHERITS ({own})")
            for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
                self.trigger(table)
            if self.chance(0.12):
                event = rng.choice(("INSERT", "UPDATE"))
                # an UPDATE's rule reads the rows before it waits for any, so what it reads depends on timing
                row = "NEW.o, NEW.w, 'rule'" if event == "INSERT" else "NEW.o, -1, 'rule'"
                self.after.append(f"CREATE RULE also AS ON {event} TO {own} DO ALSO INSERT INTO log (o, w, src" +
                                  rng.choice((f") VALUES ({row})", f", own) VALUES ({row}, pg_backend_pid())",
                                              f", q) VALUES ({row}, current_query())")))
            elif self.chance(0.08):
                self.after.append(f"CREATE RULE less AS ON INSERT TO {own} WHERE NEW.k % 3 = 0 DO INSTEAD NOTHING")
            if self.chance(0.15):
                self.policies(own)
            if self.chance(0.2):
                self.after.append(self.index(table))
        if self.chance(0.12):
            self.view(rng.choice(self.tables))

    def index(self, table: Table) -> str:
        # unique for each write: ON CONFLICT (k) and another unique index on k race, direct as well
        return f"CREATE {self.rng.choice(('', 'UNIQUE '))}INDEX ON {table.name} " + self.rng.choice((
            "(w, f_twice(k))", "((k % 1000), w, o) WHERE k % 2 = 0", "(k, w) WHERE f_positive(o)", "(w, (k + 1))",
            "(f_lies(k), k, w)", "(k, w) INCLUDE (o)"))

    def policies(self, own: str) -> None:
        self.after += [f"ALTER TABLE {own} ENABLE ROW LEVEL SECURITY",
                       f"CREATE POLICY one ON {own} " + self.rng.choice((
                           "USING (true) WITH CHECK (current_setting('app.tenant', true) IS DISTINCT FROM 'b')",
                           "USING (coalesce(current_setting('app.tenant', true), 'a') <> 'b') WITH CHECK (true)",
                           "USING (k % 4 <> 0)", "USING (f_tenant() IS NULL) WITH CHECK (true)",
                           "USING (true) WITH CHECK (pg_backend_pid() > 0)", "USING (f_few(o))",
                           "USING (true) WITH CHECK (current_query() LIKE '%max_wait%')"))]

    def partition(self, table: Table) -> None:
        """Ten parts by key; constraints that a partitioned table cannot have are left out."""
        if table.tail or any(c.sql.startswith("bigint GENERATED") for c in table.columns):
            return
        table.constraints = [c for c in table.constraints if "EXCLUDE" not in c and "UNIQUE (u" not in c
                             and "NULLS" not in c and "NO INHERIT" not in c]
        table.tail = " PARTITION BY " + ("HASH (k)" if self.chance(0.5) else "RANGE (k)")
        for i in range(3):
            bounds = f"WITH (MODULUS 3, REMAINDER {i})" if "HASH" in table.tail else (
                "DEFAULT", "FROM (0) TO (5000)", "FROM (5000) TO (12000)")[i]
            values = bounds if bounds == "DEFAULT" else f"FOR VALUES {bounds}"
            table.tail += f";\nCREATE TABLE {table.name}_{i} PARTITION OF {table.name} {values}"

    def view(self, table: Table) -> None:
        table.made, table.name = table.name, f"v{table.name}"
        base = table.made
        kind = self.rng.choice(("", "", " WITH CHECK OPTION", "instead"))
        where = "" if kind in ("", "instead") and self.chance(0.5) else " WHERE k % 5 <> 0"
        self.after.append(f"CREATE VIEW {table.name} AS SELECT * FROM {base}{where}" +
                          ("" if kind == "instead" or (kind and not where) else kind))
        if kind == "instead":
            self.after.append(
                f"CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO {base} "
                "SELECT NEW.*; INSERT INTO log (o, w, src, own) VALUES (NEW.o, NEW.w, 'instead', pg_backend_pid()); "
                "RETURN NEW; END$$")
            self.after.append(f"CREATE TRIGGER instead INSTEAD OF INSERT ON {table.name} FOR EACH ROW "
                              "EXECUTE FUNCTION instead()")

    def trigger(self, table: Table) -> None:
        rng = self.rng
        number = len(self.after)
        when = rng.choice(("BEFORE", "AFTER"))
        events = rng.choice(("INSERT", "INSERT OR UPDATE", "INSERT OR UPDATE OR DELETE", "DELETE"))
        name = f"f_trigger{number}"
        if self.chance(0.25):
            deed, more = rng.choice(STATEMENT_DEEDS), ""
            if self.chance(0.5):
                when, events, more = "AFTER", "INSERT", " REFERENCING NEW TABLE AS now_there"
                deed = rng.choice(TRANSITION_DEEDS)
            self.after += [f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
                           f"$$BEGIN {deed} RETURN NULL; END$$",
                           f"CREATE TRIGGER g{number} {when} {events} ON {table.name}{more} FOR EACH STATEMENT "
                           f"EXECUTE FUNCTION {name}()"]
            return
        deeds = [deed for deed, before in DEEDS if when == "BEFORE" or not before]
        given = next((c.name for c in table.columns if c.value is not None), "o")
        body = " ".join(rng.sample(deeds, rng.choice((1, 1, 2)))).replace("{table}", table.name).replace(
            "{given}", given)
        deferred = when == "AFTER" and self.chance(0.3)
        condition = rng.choice(("", "", f" WHEN ({'OLD' if events == 'DELETE' else 'NEW'}.k % 2 = 0)")) \
            if "OR DELETE" not in events else ""
        self.after += [
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$DECLARE r {table.name}; BEGIN "
            f"IF TG_OP = 'DELETE' THEN r := OLD; ELSE r := NEW; END IF; {body} RETURN r; END$$",
            f"CREATE {'CONSTRAINT ' if deferred else ''}TRIGGER g{number} {when} {events} ON {table.name}"
            f"{' DEFERRABLE INITIALLY DEFERRED' if deferred else ''} FOR EACH ROW{condition} EXECUTE FUNCTION {name}()"]

    def settings(self):
        tenant = self.rng.choice(("a", "b"))
        return [self.rng.choice((
            "SET TIME ZONE 'Asia/Tokyo'", f"SET app.tenant = '{tenant}'",
            f"SELECT set_config('app.tenant', '{tenant}', false)",
            f"SELECT f_set_tenant('{tenant}')", f"SELECT \"set_config\"('app.tenant', '{tenant}', false)",
            f"DO $$BEGIN PERFORM set_config('app.tenant', '{tenant}', false); END$$",
            "SET search_path = playspare, play",
            f"SET app.tenant = '{tenant}'; UPDATE pg_settings SET setting = 'c' WHERE name = 'app.tenant'",
            "UPDATE pg_settings SET setting = 'Asia/Tokyo' WHERE name = 'TimeZone'", "SET datestyle = 'German'",
            "DO $$BEGIN EXECUTE 'SET search_path = playspare' || ', play'; END$$", "SET ROLE schemas_other",
            "SET client_min_messages = warning", "SET intervalstyle = iso_8601", "SET extra_float_digits = 0",
            "SET default_transaction_read_only = on", "SET statement_timeout = 60000", "SET lock_timeout = 30000",
            "SELECT nextval('shared')", "SELECT nextval('once')", "SET session_replication_role = replica",
            "CREATE TEMP TABLE t1 (k int PRIMARY KEY, o int, w int)", "SET enable_seqscan = off",
            "SELECT set_config('search_path', 'playspare', false) -- E'\\' \nFROM (SELECT 1) x",
            "SET bytea_output = escape; SET bytea_output = hex", "PREPARE mine AS SELECT 1",
            "SELECT pg_advisory_lock_shared(1)", "SET application_name = 'it''s me'"))]

    def upsert(self, table):
        given = [c.name for c in table.columns if c.value is not None and c.name != "u"]
        return self.rng.choice((
            " ON CONFLICT DO NOTHING", " ON CONFLICT (k) DO UPDATE SET w = excluded.w",
            " ON CONFLICT (k) DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in ("w", *given)),
            f" ON CONFLICT (k) DO UPDATE SET w = excluded.w WHERE {table.name}.k % 2 = 0"))
