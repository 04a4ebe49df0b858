"""PostgreSQL: which conversations are made.

Left out, with reasons: ``lastval()``/``currval()`` (documented as not promised), ``now()`` and everything that tells
times, process or transaction ids, ``ctid``, generated ids (batches that fail leave gaps), several rows returned by one
UPDATE or DELETE (their order is the table's), updates of several rows of which one fails (which comes first is the
table's order), SERIALIZABLE (its failures depend on the others), functions of users that change their session, LOCK
TABLE on shared tables (in turns a session would wait for one that is not its turn), ``pg_terminate_backend`` and
cancels (when they arrive is no property of the plan).
"""

from tests.conversations.grammar import Grammar
from tests.statements import literal

OPTIONS = [{}, {}, {"options": "-c tqdb.max_wait_ms=5"}, {"application_name": "conversations"}]
INT4, TEXT = 23, 25
READS = (
    "SELECT 1", "SELECT 'a'::text AS b, NULL, 1.5", "SELECT * FROM t WHERE id BETWEEN {low} AND {high} ORDER BY id",
    "SELECT n FROM counters WHERE id = {low}", "SELECT count(*), sum(a) FROM t WHERE id BETWEEN {low} AND {high}",
    "SHOW search_path", "SELECT current_setting('DateStyle'), current_setting('conv.x', true)", "VALUES (1, 2), (3, 4)",
    "SELECT * FROM own_{key} ORDER BY id", "", "-- nothing", "SELECT v FROM log WHERE owner = {key} ORDER BY id",
    "SELECT pg_sleep(0.03)", "SELECT 1; SELECT pg_sleep(0.03)",     # what is sent ahead waits for these
)
ERRORS = (
    "SELEC 1", "SELECT 1/0", "SELECT * FROM missing", "INSERT INTO t (id, a) VALUES ({low}, 5000)",
    "INSERT INTO t (id, p) VALUES ({low}, 99)", "SELECT no_function()", "INSERT INTO t (id, a) VALUES ({low}, 1/0)",
    "ROLLBACK TO SAVEPOINT missing", "DEALLOCATE missing", "SELECT 'x'::int", "FETCH 1 FROM missing",
)
SETS = (
    "SET search_path = other", "SET search_path = public", "SET search_path = other, public", "RESET search_path",
    "SET DateStyle = 'German'", "SET bytea_output = escape", "RESET ALL", "SET standard_conforming_strings = off",
    "SET standard_conforming_strings = on", "SELECT set_config('search_path', 'other', false)",
    "SELECT set_config('conv.x', 'y', true)", "SET LOCAL search_path = other", "SET conv.x = 'z'", "DISCARD ALL",
    "DISCARD TEMP", "DISCARD PLANS", "DEALLOCATE ALL", "SET tqdb.max_wait_ms = 5", "RESET tqdb.max_wait_ms",
    "SET application_name = 'other'", "SET nothing = 1", "SET lock_timeout = '20s'", "SET ROLE writer", "RESET ROLE",
    "SET SESSION AUTHORIZATION DEFAULT", "SET client_encoding = 'LATIN1'", "SET client_encoding = 'UTF8'",
    "SET TIME ZONE 'UTC'", "SET statement_timeout = '30s'", "SET default_transaction_isolation = 'repeatable read'",
    "SET default_transaction_read_only = on", "SET default_transaction_read_only = off",
    "SET extra_float_digits = 0", "SET synchronous_commit = off", "SET plan_cache_mode = force_generic_plan",
)


class PostgresGrammar(Grammar):
    ALWAYS = ("hinted", "hinted_pipeline")
    KINDS = {
        "hinted": 12, "hinted_pipeline": 8, "hinted_executions": 5, "read": 4, "plain": 4, "several": 3, "error": 3,
        "pipeline": 5, "failing_pipeline": 4, "query_inside": 3, "named": 3, "portals": 3, "syncs": 2, "transaction": 4,
        "opening": 2, "setting": 5, "reset_and_set": 2, "copy_in": 5, "copy_out": 2, "temporary": 2, "notify": 2,
        "cursor": 2, "call": 1, "ddl": 1, "wide": 1, "block": 6,
    }

    # --- pieces

    def place(self, sql: str) -> str:
        return sql.format(key=self.key, low=self.id(), high=self.base + 999)

    def query(self, sql: str) -> dict:
        return {"do": "query", "sql": sql}

    def write(self, shape: int | None = None) -> tuple[str, list]:
        """A write of one of the plan's shapes and its values: text, None or integer."""
        shapes = self.shapes if shape is None else [shape]
        key, n = self.key, self.id
        forms = (
            lambda: ("INSERT INTO t (id, a, b) VALUES ($1, $2, $3)", [n(), self.number(), self.word()]),
            lambda: ("INSERT INTO t (id, a, b) VALUES ($1, $2, $3) RETURNING id, b", [n(), self.number(), self.word()]),
            lambda: ("INSERT INTO log (owner, v) VALUES ($1, $2)", [key, self.number()]),
            lambda: ("INSERT INTO t (id, a) VALUES ($1, $2), ($3, $4)", [n(), self.number(), n(), self.number()]),
            lambda: ("INSERT INTO t (id, a, b) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET b = excluded.b "
                     "|| '!' RETURNING b", [n(), self.number(), self.word()]),
            lambda: ("INSERT INTO t (id, a) VALUES ($1, $2) ON CONFLICT DO NOTHING", [n(), self.number()]),
            lambda: ("UPDATE counters SET n = n + $1 WHERE id = $2", [self.rng.randint(1, 9), self.base]),
            lambda: ("UPDATE counters SET n = n + 1 WHERE id = $1 RETURNING n", [self.base]),
            lambda: ("DELETE FROM t WHERE id = $1", [n()]),
            lambda: ("DELETE FROM t WHERE id = $1 RETURNING a, b", [n()]),
            lambda: ("INSERT INTO changed (id, v) VALUES ($1, $2)", [n(), self.rng.choice((1, 2, 3, 4, 400, 500))]),
            lambda: (f"INSERT INTO own_{key} (id, a) VALUES ($1, $2) RETURNING *", [n(), self.number()]),
            lambda: ("INSERT INTO t (id, a) SELECT $1::int, 3", [n()]),
            lambda: ("INSERT INTO t (id, p) VALUES ($1, $2)", [n(), self.rng.choice((1, 1, 1, 99))]),
            lambda: ("INSERT INTO t (id, c) VALUES ($1, $2)", [n(), self.rng.choice(("ten", "longer than ten"))]),
            lambda: ("INSERT INTO late (id, p) VALUES ($1, $2)", [n(), self.rng.choice((1, 1, 99))]),
            lambda: ("INSERT INTO missing (id) VALUES ($1)", [n()]),
            lambda: ("UPDATE t SET a = $1 WHERE id = $2", [self.number(), n()]),
            lambda: ("INSERT INTO t (id, b) VALUES ($1, lower($2) || 'd') RETURNING b", [n(), self.word()]),
            lambda: ("WITH w AS (INSERT INTO t (id, a) VALUES ($1, $2) RETURNING id) SELECT id + 1 FROM w",
                     [n(), self.number()]),
            lambda: ("INSERT INTO other.t (id, a) VALUES ($1, $2)", [n(), self.number()]),
        )
        # the first three are what batches are made of
        choice = self.rng.choice(shapes)
        return forms[choice % 3 if choice % 2 else choice % len(forms)]()

    def values(self, values: list) -> list:
        """As Bind carries them: text, or integers as binary int4 where they are."""
        return [v if v is None or isinstance(v, str) else str(v) for v in values]

    def unit(self, sql: str, values: list, name: str = "", parse: bool = True, sync: bool = True) -> list[dict]:
        """[Parse] Bind [Describe] Execute [Sync]."""
        steps: list[dict] = []
        binary = parse and bool(values) and self.chance(0.2) and all(isinstance(v, int) for v in values)
        if parse:
            steps.append({"do": "parse", "name": name, "sql": sql, "types": [INT4] * len(values) if binary else []})
            if self.chance(0.1):
                steps.append({"do": "describe", "what": "S", "name": name})
        steps.append({"do": "bind", "name": name, "values": values if binary else self.values(values),
                      "results": [1] if self.chance(0.1) else []})
        if self.chance(0.7):
            steps.append({"do": "describe", "what": "P"})
        steps.append({"do": "execute"})
        return [*steps, {"do": "sync"}] if sync else steps

    # --- kinds

    def hinted(self) -> list[dict]:
        out = []
        for _ in range(self.rng.choice((1, 1, 1, 2, 5))):
            sql, values = self.write()
            sql = self.hint(sql)
            out += [self.query(literal(sql, tuple(values)))] if self.chance(self.textual) else self.unit(sql, values)
        return out

    def hinted_pipeline(self) -> list[dict]:
        """Units, each with its Sync or several behind one, hinted or not."""
        out = []
        for _ in range(self.rng.randint(1, 6)):
            sql, values = self.write()
            out += self.unit(self.hint(sql) if self.chance(0.8) else sql, values, sync=self.chance(0.8))
        return [*out, {"do": "sync"}]

    def hinted_executions(self) -> list[dict]:
        """A statement parsed once, then 1 to 30 executions behind one Sync."""
        shape = self.rng.choice(self.shapes)
        sql, _ = self.write(shape)
        sql = self.hint(sql)
        name = self.rng.choice(("", f"h{shape}"))
        out: list[dict] = [{"do": "parse", "name": name, "sql": sql}]
        if self.chance(0.7):
            out.append({"do": "sync"})
        for _ in range(self.rng.choice((1, 2, 3))):
            rows = [self.values(self.write(shape)[1]) for _ in range(self.rng.choice((1, 2, 3, 8, 30)))]
            out += [{"do": "executions", "name": name, "rows": rows, "describe": self.chance(0.3)}, {"do": "sync"}]
        return [*out, {"do": "close", "what": "S", "name": name}, {"do": "sync"}] if self.chance(0.5) else out

    def wide(self) -> list[dict]:
        """More rows, parameters or executions than small batches hold."""
        if self.chance(0.2):
            many = {"do": "executions", "rows": [[str(self.key), "5"]], "times": self.rng.choice((100, 300, 1000))}
            parse = {"do": "parse", "name": "", "sql": self.hint("INSERT INTO log (owner, v) VALUES ($1, $2)")}
            return [parse, many, {"do": "sync"}, many, {"do": "sync"}]
        n = self.rng.choice((4, 8, 120))
        sql = "INSERT INTO log (owner, v) VALUES " + ", ".join(f"(${2 * i + 1}, ${2 * i + 2})" for i in range(n))
        rows = [[v for i in range(n) for v in (str(self.key), str(i))] for _ in range(self.rng.choice((1, 3, 10)))]
        return [{"do": "parse", "name": "", "sql": self.hint(sql)}, {"do": "executions", "rows": rows}, {"do": "sync"}]

    def read(self) -> list[dict]:
        sql = self.place(self.rng.choice(READS))
        return [self.query(self.maybe_hint(sql))] if self.chance(0.7) or ";" in sql else self.unit(sql, [])

    def plain(self) -> list[dict]:
        sql, values = self.write(self.rng.randint(0, 100))
        return [self.query(literal(sql, tuple(values)))] if self.chance(0.6) else self.unit(sql, values)

    def several(self) -> list[dict]:
        parts = [literal(sql, tuple(values)) for sql, values in (self.write(), self.write())]
        parts.insert(self.rng.randint(0, 2), self.place(self.rng.choice(READS[:7] + ERRORS[:3])))
        return [self.query(self.maybe_hint("; ".join(parts)))]

    def error(self) -> list[dict]:
        sql = self.maybe_hint(self.place(self.rng.choice(ERRORS)))
        return [self.query(sql)] if self.chance(0.6) else self.unit(sql, [])

    def pipeline(self) -> list[dict]:
        """Units behind one Sync, answers awaited at a Flush."""
        out: list[dict] = []
        for _ in range(self.rng.randint(1, 4)):
            sql, values = self.write() if self.chance(0.5) else (self.place(self.rng.choice(READS)), [])
            out += self.unit(self.maybe_hint(sql), values, sync=False)
            if self.chance(0.3):
                out.append({"do": "flush"})
        return [*out, {"do": "sync"}]

    def failing_pipeline(self) -> list[dict]:
        """An error in the middle; what stands behind it is skipped up to Sync."""
        sql, values = self.write()
        bad = self.rng.choice((
            lambda: self.unit(self.place(self.rng.choice(ERRORS)), [], sync=False),
            lambda: [{"do": "bind", "name": "missing"}], lambda: [{"do": "execute", "portal": "missing"}],
            lambda: [{"do": "describe", "what": "S", "name": "missing"}],
            lambda: [{"do": "parse", "sql": self.hint("INSERT INTO t (id, a) VALUES (1, 1), (2)")}]))()
        front = self.unit(self.hint(sql), values, sync=False) if self.chance(0.5) else []
        sql, values = self.write()
        back = self.rng.choice((
            lambda: self.unit(self.hint(sql), values, sync=False),
            lambda: [self.query(self.hint(literal(sql, tuple(values))))], lambda: [self.query("BEGIN")],
            lambda: [{"do": "flush"}], lambda: self.copying(), lambda: self.call()))()
        return [*front, *bad, *back, {"do": "sync"}, *self.hinted()]

    def query_inside(self) -> list[dict]:
        """A Query before the Sync of what stands in front of it."""
        sql, values = self.write()
        inside, more = self.write()
        out = self.unit(self.maybe_hint(sql), values, sync=False)
        out.append(self.query(self.maybe_hint(literal(inside, tuple(more)))))
        return [*out, *(self.unit("SELECT 3", []) if self.chance(0.5) else [{"do": "sync"}])]

    def named(self) -> list[dict]:
        """A named statement made once, or again, which is an error; executed, closed, or not."""
        name = self.rng.choice(("s1", "s2"))
        shape = self.rng.choice(self.shapes)
        sql, values = self.write(shape)
        out: list[dict] = []
        if self.chance(0.6):
            out += [{"do": "parse", "name": name, "sql": self.maybe_hint(sql)}]
            out += [{"do": "sync"}] if self.chance(0.5) else []
        out += self.unit("", values, name, parse=False)
        if self.chance(0.3):
            out.append({"do": "close", "what": "S", "name": name})
        return [*out, {"do": "sync"}]

    def portals(self) -> list[dict]:
        portal = self.rng.choice(("", "p1"))
        out: list[dict] = [{"do": "parse", "sql": "SELECT * FROM generate_series(1, 5)"},
                           {"do": "bind", "portal": portal, "results": [self.rng.choice((0, 1))]}]
        for limit in self.rng.choice(((2, 2, 0), (1,), (5, 0), (0,))):
            out.append({"do": "execute", "portal": portal, "limit": limit})
            if self.chance(0.3):
                out.append({"do": self.rng.choice(("flush", "sync"))})
        if self.chance(0.5):
            out.append({"do": "close", "what": "P", "name": portal})
        return [*out, {"do": "sync"}]

    def syncs(self) -> list[dict]:
        return [{"do": self.rng.choice(("sync", "sync", "flush"))} for _ in range(3)] + [{"do": "sync"}]

    def transaction(self) -> list[dict]:
        begin = self.rng.choice(("BEGIN", "START TRANSACTION READ WRITE",
                                 "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1"))
        end = self.rng.choice(("COMMIT", "ROLLBACK", "END", "COMMIT AND CHAIN"))
        body = self.hinted()
        if self.chance(0.4):
            body += [self.query("SAVEPOINT s"), *self.error(), self.query("ROLLBACK TO s"), *self.hinted()]
        if self.chance(0.3):
            return [*self.unit(begin.split(";")[0], []), *body, *self.unit(end, [])]
        return [self.query(begin), *body, self.query(end)]

    def block(self) -> list[dict]:
        """Transactions of one write, each in one message or in several that are sent together."""
        out: list[dict] = []
        for _ in range(self.rng.choice((1, 1, 2, 4))):
            sql, values = self.write()
            begin = self.rng.choice(("BEGIN", "BEGIN", "START TRANSACTION", "BEGIN WORK", "BEGIN READ WRITE"))
            end = self.rng.choice(("COMMIT", "COMMIT", "COMMIT", "END", "ROLLBACK"))
            text = self.hint(literal(sql, tuple(values)))
            if self.chance(0.4):
                out += [self.query(f"{begin}; {text}; {end}")]
                continue
            if self.chance(0.5):
                steps = [self.query(begin), self.query(text), self.query(end)]
            else:
                syncs = self.chance(0.5)
                steps = [*self.unit(begin, [], sync=syncs and self.chance(0.9)),
                         *self.unit(self.hint(sql), values, sync=syncs), *self.unit(end, [], sync=self.chance(0.9))]
            out += [*({**step, "then": "join"} for step in steps[:-1]), steps[-1]]
        return [*out, {"do": "sync"}]

    def opening(self) -> list[dict]:
        return [self.query(self.rng.choice(("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a")))]

    def setting(self) -> list[dict]:
        sql = self.rng.choice(SETS)
        return [self.query(sql)] if self.chance(0.7) else self.unit(sql, [])

    def reset_and_set(self) -> list[dict]:
        """Both in one send: what was reset before does not undo what was set behind."""
        pair = [self.query(self.rng.choice(("DISCARD ALL", "RESET ALL", "RESET search_path"))),
                self.query(self.rng.choice(("SET search_path = other", "SET search_path = public")))]
        if self.chance(0.3):
            pair.reverse()
        return [{**pair[0], "then": "join"}, pair[1], *self.hinted()]

    def copying(self) -> list[dict]:
        """COPY FROM STDIN whose data may be wrong."""
        form = self.rng.choice(("query", "query", "extended", "libpq"))
        table = self.rng.choice(("t", f"own_{self.key}", "missing", "log"))
        columns = "owner, v" if table == "log" else "id, a"
        copy = f"COPY {table} ({columns}) FROM STDIN"
        count = 2 if form == "query" and self.chance(0.3) else 1
        sql = "; ".join([copy] * count)
        if form == "query" and self.chance(0.3):
            sql += "; SELECT 5"
        blocks = []
        for _ in range(count):
            lines = [f"{self.key if table == 'log' else self.id()}\t{self.rng.choice((1, 2, 3, 4, 5, 6, 'wrong'))}\n"
                     for _ in range(self.rng.randint(0, 5))]
            text = "".join(lines)
            middle = self.rng.randint(0, len(text))
            blocks.append(lines if self.chance(0.5) else [text[:middle], text[middle:]])
        return [{"do": "copy", "form": form, "sql": sql, "blocks": blocks, "awaited": self.chance(0.3),
                 "end": "fail" if self.chance(0.15) else "done"}]

    def copy_in(self) -> list[dict]:
        return [*self.copying(), *(self.hinted() if self.chance(0.7) else self.read())]

    def copy_out(self) -> list[dict]:
        sql = self.place("COPY (SELECT id, a, b FROM t WHERE id BETWEEN {low} AND {high} ORDER BY id) TO STDOUT")
        sql = self.rng.choice((sql, "COPY missing TO STDOUT", "COPY (SELECT 1/0) TO STDOUT", f"{sql}; SELECT 2"))
        return [self.query(sql)] if ";" in sql or self.chance(0.6) else self.unit(sql, [])

    def temporary(self) -> list[dict]:
        name = self.rng.choice(("t", "mine"))
        make = self.query(f"CREATE TEMPORARY TABLE {name} (id int PRIMARY KEY, a int, b text)")
        use = self.query(self.hint(f"INSERT INTO {name} (id, a, b) VALUES ({self.id()}, 1, 'x') RETURNING *"))
        end = self.query(self.rng.choice((f"DROP TABLE pg_temp.{name}", "DISCARD TEMP", "DISCARD ALL")))
        return [make, use, *self.hinted(), *([end] if self.chance(0.7) else [])]

    def notify(self) -> list[dict]:
        channel = f"channel_{self.key}"
        listen = [self.query(f"LISTEN {channel}")] if self.chance(0.7) else []
        return [*listen, *self.hinted(), self.query(f"NOTIFY {channel}, 'x'"), *self.hinted(),
                *([self.query("UNLISTEN *")] if self.chance(0.3) else [])]

    def cursor(self) -> list[dict]:
        held = self.rng.choice(("WITH HOLD ", ""))
        open_ = f"DECLARE c CURSOR {held}FOR SELECT * FROM generate_series(1, 4)"
        use = [self.query(open_), self.query("FETCH 2 FROM c"), *self.hinted(),
               self.query("MOVE 1 IN c; FETCH ALL FROM c"), self.query("CLOSE c")]
        return use if held else [self.query("BEGIN"), *use, self.query("COMMIT")]

    def call(self) -> list[dict]:
        """FunctionCall of int4pl and int4div; the second fails."""
        return [{"do": "call", "function": self.rng.choice((177, 154)), "values": [4, 0]}]

    def ddl(self) -> list[dict]:
        name = f"made_{self.key}"
        return [self.query(sql) for sql in (
            f"CREATE TABLE {name} (id int PRIMARY KEY, a int)", self.hint(f"INSERT INTO {name} (id, a) VALUES (1, 1)"),
            f"ALTER TABLE {name} ADD b text DEFAULT 'new'",
            self.hint(f"INSERT INTO {name} (id, a) VALUES (2, 1) RETURNING *"), f"DROP TABLE {name}")]
