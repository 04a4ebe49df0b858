"""What a statement's shape means, decided by a real parser once per shape.

The scanner cuts an INSERT into prefix, value tuples and suffix. ``analyze`` asks the dialect's parser whether
that cut is the statement's own: with one tuple and with two it must be the same plain ``INSERT … VALUES`` with
one and with two rows. Everything else is None: relay.
"""

from dataclasses import dataclass

from tqdb.analysis import mariadb, postgres

DIALECTS = ("postgres", "mariadb")


@dataclass(frozen=True)
class Verdict:
    """A shape that may be merged, as far as its text tells.

    ``schema`` and ``table`` are unquoted names (schema None: the session's own), ``columns`` the named columns
    or None for all; ``functions``, ``types`` and ``operators`` the names of those used in the values, which must
    be built-in ones; ``returning`` whether rows come back, ``nvalues`` the number of values in a tuple.
    """

    schema: str | None
    table: str
    columns: tuple[str, ...] | None
    functions: frozenset[str]
    returning: bool
    nvalues: int
    types: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()

    @property
    def facts_key(self) -> tuple:
        """What the catalogue's facts depend on: statements with the same key share them."""
        return self.schema, self.table, self.columns, self.functions, self.types, self.operators


def analyze(dialect: int, prefix: bytes, values: bytes, suffix: bytes) -> Verdict | None:
    """The verdict on one shape; ``values`` is one of its tuples with parentheses. None: not batchable."""
    try:
        parts = [part.decode() for part in (prefix, values, suffix)]
    except UnicodeDecodeError:
        # values in a one-byte client character set; names must be ASCII to be looked up
        if not (prefix + suffix).isascii():
            return None
        parts = [part.decode("latin-1") for part in (prefix, values, suffix)]
    found = (mariadb if DIALECTS[dialect] == "mariadb" else postgres).plain_insert(*parts)
    return Verdict(**found) if found else None
