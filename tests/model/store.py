"""Tables, transactions that roll back, and row locks, shared by all connections of a model server."""

import itertools
from dataclasses import dataclass, field

MESSAGE = object()          # a conversation wants the next message; else it waits for a transaction to end


class Failure(Exception):
    """A constraint broken or a value refused: ``kind`` names it, each protocol has its own code for it."""

    def __init__(self, kind: str, detail: str = ""):
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class Busy(Exception):
    """A row is locked by ``holder``, another transaction."""

    def __init__(self, holder):
        super().__init__()
        self.holder = holder


@dataclass(eq=False)
class Table:
    """``key``: unique column or None; ``auto``: column that counts by itself; ``least``: CHECK (column >= n).

    ``trigger``: the catalogue tells of one, so that rows are not merged. ``engine``: what MariaDB's catalogue says.
    """

    name: str
    columns: dict[str, str]
    key: str | None = None
    auto: str | None = None
    required: frozenset[str] = frozenset()
    least: dict[str, int] = field(default_factory=dict)
    trigger: bool = False
    engine: str = "InnoDB"
    rows: dict = field(default_factory=dict)
    next_id: int = 1


class Transaction:
    """Changes not yet visible to others; ``over`` once it has ended either way."""

    def __init__(self, store: "Store"):
        self.store = store
        self.changes: dict[Table, dict] = {}
        self.locks: set = set()
        self.waits_for: Transaction | None = None
        self.over = False

    def rows(self, table: Table) -> dict:
        """What this transaction sees."""
        merged = {**table.rows, **self.changes.get(table, {})}
        return {key: row for key, row in merged.items() if row is not None}

    def sees(self, table: Table, key) -> bool:
        """Whether a row of that key is among them."""
        changed = self.changes.get(table, {})
        return changed[key] is not None if key in changed else key in table.rows

    def mark(self) -> dict:
        return {table: dict(changed) for table, changed in self.changes.items()}

    def back_to(self, mark: dict) -> None:
        """Takes changes back to ``mark``; locks stay, as on the real servers."""
        self.changes = mark

    def lock(self, table: Table, key) -> None:
        holder = self.store.locks.setdefault((table, key), self)
        if holder is not self:
            raise Busy(holder)
        self.locks.add((table, key))

    def may_wait_for(self, holder: "Transaction") -> bool:
        """False: it waits for this one, directly or not."""
        other: Transaction | None = holder
        while other is not None:
            if other is self:
                return False
            other = other.waits_for
        return True

    def insert(self, table: Table, row: dict) -> None:
        for name in table.required:
            if row.get(name) is None:
                raise Failure("null", name)
        for name, least in table.least.items():
            if row.get(name) is not None and row[name] < least:
                raise Failure("check", name)
        key = ("row", next(self.store.serial)) if table.key is None else row[table.key]
        self.lock(table, key)
        if self.sees(table, key):
            raise Failure("unique", str(key))
        self.changes.setdefault(table, {})[key] = row

    def replace(self, table: Table, key, row: dict | None) -> None:
        """A row changed (its key stays) or, with None, deleted."""
        self.lock(table, key)
        if row is not None:
            for name in table.required:
                if row.get(name) is None:
                    raise Failure("null", name)
            for name, least in table.least.items():
                if row.get(name) is not None and row[name] < least:
                    raise Failure("check", name)
        self.changes.setdefault(table, {})[key] = row

    def end(self, keep: bool) -> None:
        if keep:
            for table, changed in self.changes.items():
                for key, row in changed.items():
                    if row is None:
                        table.rows.pop(key, None)
                    else:
                        table.rows[key] = row
        for lock in self.locks:
            del self.store.locks[lock]
        self.over = True


class Store:
    """``faults`` are ``[part of a statement, error code, times]``: the statement fails although nothing is wrong.

    ``max_packet``: MariaDB's max_allowed_packet.
    """

    def __init__(self):
        self.max_packet = 16_777_216
        self.tables: dict[tuple[str, str], Table] = {}
        self.locks: dict = {}
        self.serial = itertools.count(1)
        self.connections: list = []
        self.faults: list[list] = []
        self.heard: list[tuple[int, str]] = []      # (connection number, statement) as they were run
        self.settling = False

    def create(self, name: str, columns: str, schema: str = "public", **more) -> Table:
        """``columns``: names, each with ``:text`` behind it if it is no number."""
        kinds = dict(part.split(":") if ":" in part else (part, "int") for part in columns.split())
        table = self.tables[schema, name] = Table(name, kinds, **more)
        return table

    def fault(self, text: str):
        """The error code that is due for this statement, or None."""
        for entry in self.faults:
            part, code, times = entry
            if times and part in text:
                entry[2] -= 1
                return code
        return None

    def settle(self) -> None:
        """Lets connections go on whose lock has become free, until none can."""
        if self.settling:
            return
        self.settling = True
        moved = True
        while moved:
            moved = False
            for connection in self.connections:
                moved = connection.pump() or moved
        self.settling = False

    def stored(self) -> dict[str, list]:
        """Every table's rows, in an order of their own."""
        return {f"{schema}.{name}": sorted((tuple(sorted(row.items(), key=repr)) for row in table.rows.values()),
                                           key=repr)
                for (schema, name), table in sorted(self.tables.items())}
