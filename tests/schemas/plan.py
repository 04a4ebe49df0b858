"""A schema, the sessions and what they write, as values that a seed makes and a shrinker takes apart.

Every table has the columns ``k`` (key, given), ``o`` (the unit that a row belongs to) and ``w`` (the write that wrote
it last; 0: there before). A *unit* is what is compared as a whole: the rows and answers of one session (units 1 to 20),
or of a few sessions that clash in the last round (units above 100).
"""

import copy
from dataclasses import dataclass, field

SESSIONS = 20
CLASH = 100         # units above it belong to several sessions
KEYS = 1000         # the keys of unit u are u * KEYS + 1 and following
FIXED = ("k", "o", "w")


@dataclass(frozen=True)
class Raw:
    """SQL in the place of a value."""

    sql: str


@dataclass
class Column:
    """``kind`` says how its values are compared (see ``outcome``); ``value`` makes one that is given, or is None."""

    name: str
    sql: str
    kind: str = "exact"
    value: object = None            # (rng, unit, key) -> value


@dataclass
class Table:
    """``name`` is what is written to; ``made`` the table's own name, another where a view stands before it."""

    name: str
    columns: list[Column]
    constraints: list[str] = field(default_factory=list)
    tail: str = ""
    made: str = ""

    def create(self) -> str:
        parts = [f"{c.name} {c.sql}" for c in self.columns] + self.constraints
        return f"CREATE TABLE {self.made or self.name} (\n  " + ",\n  ".join(parts) + f"\n){self.tail}"

    def has(self, column: str) -> bool:
        return any(c.name == column for c in self.columns)


@dataclass
class Write:
    """One statement of one session. ``rows`` of an INSERT; ``sets`` and ``where`` (SQL or values) of the others."""

    number: int
    session: int
    unit: int
    verb: str
    table: str
    rows: list[dict] = field(default_factory=list)
    sets: dict = field(default_factory=dict)
    where: dict = field(default_factory=dict)
    into: str = "INSERT INTO"
    tail: str = ""
    returning: list[str] | None = None


@dataclass
class Session:
    """``form``: text, extended (PostgreSQL: unnamed statements with parameters) or prepared."""

    settings: list[str] = field(default_factory=list)
    form: str = "text"


@dataclass
class Plan:
    """``before`` and ``after`` the tables: functions, types; triggers, indexes, policies, seeds are written in between.

    ``rounds``: lists of writes, at most one of each session; ``clash``: those of the last round, whose order is free.
    ``probes``: for each round but the clash what sessions ask afterwards, "" for nothing; the last is the clash's.
    """

    protocol: str
    seed: int
    tables: list[Table]
    before: list[str]
    after: list[str]
    sessions: list[Session]
    seeds: list[Write]
    rounds: list[list[Write]]
    clash: list[Write]
    probes: list[str]
    wait: int = 50

    def table(self, name: str) -> Table | None:
        return next((t for t in self.tables if t.name == name), None)

    def kinds(self) -> dict[str, str]:
        return {c.name: c.kind for t in self.tables for c in t.columns}

    def units(self) -> dict[int, list[int]]:
        """Unit -> its sessions."""
        out: dict[int, list[int]] = {}
        for writes in (*self.rounds, self.clash):
            for write in writes:
                if write.session not in out.setdefault(write.unit, []):
                    out[write.unit].append(write.session)
        return out

    def changed(self, **more) -> "Plan":
        candidate = copy.copy(self)
        for name, value in more.items():
            setattr(candidate, name, value)
        return candidate

    def text(self) -> str:
        """All of it as SQL that a person can read and try."""
        lines = [f"-- {self.protocol}, seed {self.seed}"]
        lines += [sql + ";" for sql in self.before]
        lines += [table.create() + ";" for table in self.tables]
        lines += [render(self, seed, hint=False)[0] + ";" for seed in self.seeds if self.table(seed.table)]
        lines += [sql + ";" for sql in self.after]
        writing = {w.session for writes in (*self.rounds, self.clash) for w in writes}
        for k, session in enumerate(self.sessions):
            lines += [f"-- session {k + 1}: {sql};" for sql in session.settings if k in writing]
        for number, writes in enumerate([*self.rounds, self.clash], 1):
            lines.append(f"-- round {number}, all at once:")
            lines += [f"/* session {w.session + 1}, {self.sessions[w.session].form} */ {render(self, w)[0]};"
                      for w in writes if self.table(w.table)]
            if number <= len(self.probes) and self.probes[number - 1]:
                lines.append(f"-- then each: {self.probes[number - 1]};")
        return "\n".join(lines)


def literal(value, protocol: str) -> str:
    match value:
        case None:
            return "NULL"
        case Raw():
            return value.sql
        case int():
            return str(value)
    if protocol == "mariadb":
        value = value.replace("\\", "\\\\")
    return "'" + value.replace("'", "''") + "'"


def render(plan: Plan, write: Write, form: str = "text", hint: bool = True) -> tuple[str, list]:
    """The statement and its parameters. Columns that its table has no more are left out."""
    values: list = []
    table = plan.table(write.table)

    def put(value) -> str:
        if form == "text" or isinstance(value, Raw):
            return literal(value, plan.protocol)
        values.append(value)
        return "?" if plan.protocol == "mariadb" else f"${len(values)}"

    def kept(pairs: dict) -> dict:
        return {name: value for name, value in pairs.items() if table.has(name)}

    sql = f"/* max_wait_ms:{plan.wait} */ " if hint else ""
    if write.verb == "insert":
        columns = list(kept(write.rows[0]))
        rows = ", ".join("(" + ", ".join(put(row[c]) for c in columns) + ")" for row in write.rows)
        sql += f"{write.into} {table.name} ({', '.join(columns)}) VALUES {rows}{write.tail}"
    elif write.verb == "update":
        sets = ", ".join(f"{name} = {put(value)}" for name, value in kept(write.sets).items())
        sql += f"UPDATE {table.name} SET {sets}"
    else:
        sql += f"DELETE FROM {table.name}"
    if write.where:
        sql += " WHERE " + " AND ".join(f"{name} = {put(value)}" for name, value in write.where.items())
    if write.returning is not None:
        sql += " RETURNING " + (", ".join(c for c in write.returning if table.has(c)) or "*")
    return sql, values
