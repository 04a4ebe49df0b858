"""What both databases' grammars share: how many of what, the rounds of writes, the clash."""

import random
import re
from abc import ABC, abstractmethod

from tests.schemas.plan import CLASH, KEYS, SESSIONS, Column, Plan, Raw, Session, Table, Write

ROUNDS = 4
SEEDED = 3          # rows of each unit that are there before
MISSING = 990       # no row has this key
FAILING = 0.02      # of values: a batch with one of them fails, and its other members go again


def chosen(good: tuple, bad: tuple):
    """A column's value maker; ``{key}`` in a text is the row's key."""
    def value(rng, unit: int, key: int):
        given = good[0] if rng is None else rng.choice(bad if bad and rng.random() < FAILING else good)
        return re.sub(r"\{key(:\d+)?\}", lambda m: format(key, (m[1] or ":")[1:]), given) if isinstance(given, str) \
            else given
    return value


class Grammar(ABC):
    """One seed's plan. Subclasses fill ``before``, ``after``, and tables' columns and constraints."""

    protocol = ""
    forms: tuple[str, ...] = ("text",)
    probes: tuple[str, ...] = ()            # what sessions ask after a round
    last_probes: tuple[str, ...] = ()       # those after which a session's writes go alone

    def __init__(self, seed: int):
        self.rng = random.Random(seed)
        self.seed = seed
        self.before: list[str] = []
        self.after: list[str] = []
        self.tables: list[Table] = []
        self.next_key: dict[tuple[str, int], int] = {}
        self.writes = 0
        self.starts = 0

    # --- what subclasses say

    @abstractmethod
    def given(self) -> list[tuple]:
        """(SQL of a column, values, the first for seeds, values that fail, its kind if not exact) to choose from."""

    @abstractmethod
    def made(self) -> list[tuple[str, str]]:
        """(SQL of a column with what the server fills it with, kind) to choose from."""

    @abstractmethod
    def harmless(self) -> list[tuple[str, str]]:
        """Those of ``made`` that ordinary tables have."""

    @abstractmethod
    def furnish(self) -> None:
        """Functions, triggers, policies and so on; may change ``self.tables``."""

    @abstractmethod
    def keys(self, table: Table) -> None:
        """Primary key, and constraints of ``table``."""

    @abstractmethod
    def settings(self) -> list[str]:
        """Of one session."""

    @abstractmethod
    def upsert(self, table: Table) -> str:
        """The clause behind the rows."""

    # --- the plan

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def plan(self) -> Plan:
        plain = self.chance(0.3)            # ordinary tables must be right, and be batched, as well
        for number in range(1, self.rng.choice((1, 1, 2, 3)) + 1):
            self.tables.append(self.table(f"t{number}", plain))
        if not plain:
            self.furnish()
        varied = self.chance(0.3)
        sessions = [Session(self.settings() if varied and self.chance(0.5) else []) for _ in range(SESSIONS)]
        form = self.rng.choice(self.forms)
        for session in sessions:
            session.form = self.rng.choice(self.forms) if self.chance(0.2) else form
        seeds = [self.seed_row(table, unit, i) for table in self.tables
                 for unit in (*range(1, SESSIONS + 1), *range(CLASH + 1, CLASH + SESSIONS // 2 + 1))
                 for i in range(1, SEEDED + 1)]
        rounds = [self.round() for _ in range(ROUNDS)]
        clash = self.clash()
        probes = [self.rng.choice(self.probes) if self.chance(0.5) else "" for _ in range(ROUNDS + 1)]
        if self.last_probes and self.chance(0.2):
            probes[ROUNDS - 1] = self.rng.choice(self.last_probes)
        return Plan(self.protocol, self.seed, self.tables, self.before, self.after, sessions, seeds, rounds, clash,
                    probes)

    def table(self, name: str, plain: bool) -> Table:
        prefix = name.replace("t", "c")
        columns = [Column("k", "int NOT NULL"), Column("o", "int NOT NULL"), Column("w", "int NOT NULL")]
        table = Table(name, columns)
        for i in range(self.rng.randint(1, 3)):
            sql, good, bad, *kind = self.rng.choice(self.given())
            columns.append(Column(f"{prefix}g{i}", sql, *(kind or ["exact"]), chosen(good, bad)))
        menu = self.harmless() if plain else self.made()
        for i in range(self.rng.randint(0, 3)):
            sql, kind = self.rng.choice(menu)
            columns.append(Column(f"{prefix}m{i}", sql.replace("{start}", str(self.start())), kind))
        if not plain:
            self.rng.shuffle(columns)
        self.keys(table)
        return table

    # --- writes

    def seed_row(self, table: Table, unit: int, i: int) -> Write:
        key = unit * KEYS + i
        return Write(0, 0, unit, "insert", table.made or table.name, [self.row(table, unit, key, 0, True)])

    def row(self, table: Table, unit: int, key: int, number: int, safe: bool = False) -> dict:
        row: dict[str, object] = {"k": key, "o": unit, "w": number}
        for column in table.columns:
            if column.value is not None:
                value = column.value(self.rng, unit, key)
                row[column.name] = column.value(None, unit, key) if safe else value
        return row

    def fresh(self, table: Table, unit: int) -> int:
        at = self.next_key[table.name, unit] = self.next_key.get((table.name, unit), 10) + 1
        return unit * KEYS + at

    def start(self) -> int:
        """Of a sequence; no two give the same numbers."""
        self.starts += 1
        return self.starts * 10**6

    def numbered(self) -> int:
        self.writes += 1
        return self.writes

    def round(self) -> list[Write]:
        """One or two kinds of writes for all sessions."""
        kinds = [(self.rng.choice(self.tables), self.rng.choice(
            ("insert", "insert", "insert", "insert", "rows", "returning", "upsert", "update", "update all",
             "delete"))) for _ in range(self.rng.choice((1, 1, 2)))]
        left_out = {table.name: [c.name for c in table.columns if c.value is not None and self.chance(0.1)]
                    for table in self.tables}
        out = []
        failing = self.chance(0.4)
        for k in range(SESSIONS):
            table, kind = self.rng.choice(kinds)
            if failing and self.chance(0.15):
                kind = "duplicate"
            write = self.write(table, kind, k, k + 1)
            for row in write.rows:
                for name in left_out[table.name]:
                    row.pop(name, None)
            out.append(write)
        return out

    def write(self, table: Table, kind: str, k: int, unit: int) -> Write:
        number = self.numbered()
        write = Write(number, k, unit, "insert", table.name)
        base = unit * KEYS
        match kind:
            case "update" | "update all":
                write.verb = "update"
                write.where = {"k": base + 1} if kind == "update" else {"o": unit}
                write.sets = {"w": number, **{
                    c.name: c.value(self.rng, unit, base + 1) for c in table.columns
                    if c.value is not None and c.name not in ("u", "p") and self.chance(0.6)}}
                if table.has("u") and kind == "update" and self.chance(0.3):
                    write.sets["u"] = base + self.rng.choice((2, MISSING))
            case "delete":
                write.verb, write.where = "delete", {"k": base + self.rng.randint(1, SEEDED)}
            case "upsert":
                write.rows = [self.row(table, unit, base + self.rng.choice((2, MISSING + 1)), number)]
                write.tail = self.upsert(table)
            case "duplicate":
                write.rows = [self.row(table, unit, base + 3, number)]
            case _:
                count = self.rng.randint(2, 3) if kind == "rows" else 1
                write.rows = [self.row(table, unit, self.fresh(table, unit), number) for _ in range(count)]
        if self.may_return(write) and (kind == "returning" or self.chance(0.15)):
            names = [c.name for c in table.columns]
            write.returning = [] if self.chance(0.4) else self.rng.sample(names, self.rng.randint(1, len(names)))
        return write

    def may_return(self, write: Write) -> bool:
        return True

    def clash(self) -> list[Write]:
        """Teams of two, sometimes three, each with one thing to quarrel about."""
        size = 3 if self.chance(0.2) else 2
        table = self.rng.choice(self.tables)
        kinds = ["same key", "same row", "upsert", "delete and insert"]
        if table.has("u"):
            kinds += ["swap", "same unique", "swap"]
        if table.has("p"):
            kinds += ["each other's parent", "each other's parent", "parent and child", "child of the gone"]
        kind = self.rng.choice(kinds)
        out: list[Write] = []
        for team in range(SESSIONS // size):
            unit = CLASH + 1 + team
            members = range(team * size, team * size + size)
            out += [self.quarrel(table, kind, k, unit, i, size) for i, k in enumerate(members)]
        return out

    def quarrel(self, table: Table, kind: str, k: int, unit: int, i: int, size: int) -> Write:
        number = self.numbered()
        base = unit * KEYS
        write = Write(number, k, unit, "insert", table.name)
        key, other = base + 11 + i, base + 11 + (i + 1) % size
        row = self.row(table, unit, key, number)
        match kind:
            case "same key":
                row["k"] = base + 11
            case "same unique":
                row["u"] = base + 11
            case "each other's parent":
                row["p"] = other
            case "parent and child":
                row["p"] = base + 1 if i == 0 else base + 11
            case "swap":
                write.verb, write.where = "update", {"k": base + 1 + i}
                write.sets = {"u": base + 1 + (i + 1) % size, "w": number}
            case "same row":
                write.verb, write.where = "update", {"k": base + 1}
                write.sets = {"w": Raw(f"w * 1000 + {number}")} if self.chance(0.5) else {"w": number}
            case "upsert":
                row["k"] = base + 11
                write.tail = self.upsert(table)
            case "delete and insert" | "child of the gone" if i == 0:
                write.verb, write.where = "delete", {"k": base + 1}
            case "delete and insert":
                row["k"] = base + 1
            case "child of the gone":
                row["p"] = base + 1
        if write.verb == "insert":
            write.rows = [row]
        if self.may_return(write) and self.chance(0.3):
            write.returning = ["w", "k"]
        return write
