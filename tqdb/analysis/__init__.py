"""What a statement's shape means, decided by a real parser once per shape.

The scanner cuts an INSERT into prefix, value tuples and suffix. ``analyze`` asks the dialect's parser whether
that cut is the statement's own: with one tuple and with two it must be the same plain ``INSERT … VALUES`` with
one and with two rows. Any other write goes as it is, in one transaction with its like: ``analyze_statement``
says whether nothing in it could tell. Everything else is None: relay.
"""

from dataclasses import dataclass

from tqdb.analysis import mariadb, postgres
from tqdb.analysis.postgres_names import Names
from tqdb.bounded import PACES

DIALECTS = ("postgres", "mariadb")


@dataclass(frozen=True)
class Verdict:
    """A shape that may be batched, as far as its text tells.

    ``multi_row``: its rows may be merged into one INSERT. ``schema`` and ``table`` are unquoted names (schema
    None: the session's own), ``columns`` the named columns or None for all; ``functions``, ``types`` and
    ``operators`` the names of those used, which must be built-in ones; ``returning`` whether rows come back;
    ``relations`` what else it names, as ``(schema, table)``. PostgreSQL: all that it names is in ``names`` instead;
    ``literals``: how many it has if each may as well be a parameter, else 0. ``key``: of an UPDATE that ends in
    ``WHERE key = value`` and computes from its own row only, that column, else None.
    """

    schema: str | None
    table: str
    columns: tuple[str, ...] | None
    functions: frozenset[str]
    returning: bool
    multi_row: bool = True
    relations: tuple[tuple[str | None, str], ...] = ()
    types: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    names: Names = Names()
    literals: int = 0
    key: str | None = None

    @property
    def facts_key(self) -> tuple:
        """What the catalogue's facts depend on: statements with the same key share them."""
        return (self.schema, self.table, self.columns, self.functions, self.types, self.operators,
                self.multi_row, self.relations, self.names, self.key)


def analyze(dialect: int, prefix: bytes, values: bytes, suffix: bytes) -> Verdict | None:
    """The verdict on one shape; ``values`` is one of its tuples with parentheses. None: not batchable."""
    # it is parsed with the row once and twice
    if not PACES[dialect].takes(*(prefix, suffix, values) * 2, values):
        return None
    try:
        parts = [part.decode() for part in (prefix, values, suffix)]
    except UnicodeDecodeError:
        # values in a one-byte client character set; names must be ASCII to be looked up
        if not (prefix + suffix).isascii():
            return None
        parts = [part.decode("latin-1") for part in (prefix, values, suffix)]
    found = (mariadb if DIALECTS[dialect] == "mariadb" else postgres).plain_insert(*parts)
    return Verdict(**found) if found else None


def analyze_statement(dialect: int, sql: bytes) -> Verdict | None:
    """The verdict on one statement that is to run as it is, in a transaction with others of its shape."""
    if not PACES[dialect].takes(sql):
        return None
    try:
        text = sql.decode()
    except UnicodeDecodeError:
        return None
    found = (mariadb if DIALECTS[dialect] == "mariadb" else postgres).plain_statement(text)
    return Verdict(multi_row=False, **found) if found else None


def explain(dialect: int, sql: bytes) -> str:
    """Why a write's text keeps it from being batched, in words; ``sql`` is one that has no verdict."""
    if not PACES[dialect].takes(sql):
        return "it is too long to be read"
    try:
        text = sql.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8 text"
    return (mariadb if DIALECTS[dialect] == "mariadb" else postgres).explain(text)


def pieces(dialect: int, values: bytes, nparams: int) -> tuple[tuple[bytes, int], ...] | None:
    """A tuple of values at its parameters: ``((text, number of the parameter behind it or 0), …)``.

    None where its rows cannot be numbered through: a parameter that it does not use. MariaDB: where one is not a value
    by itself, for in an expression a literal may be of another type.
    """
    return (mariadb if DIALECTS[dialect] == "mariadb" else postgres).pieces(values, nparams)
