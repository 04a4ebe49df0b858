"""Rules of the configuration: which one decides about a write, once for each kind of session and each shape.

Globs are ``fnmatch``'s, upper and lower case as they stand.
"""

import fnmatch
import re
from functools import lru_cache

from tqdb.analysis import DIALECTS
from tqdb.bounded import Purpose, bounded
from tqdb.config import PROTOCOLS, VERBS, Config, Rule

MAX_NAMES = 4096            # characters of what sessions and tables are called, in all
MAX_KINDS = 1000            # of sessions for which it is remembered which rules may match
COLUMNS = ("rule", "conditions", "max_wait_ms", "force", "hits")    # in which rules are shown
NONE, UNDECIDED = -1, -2    # what ``first`` answers instead of a rule's number

PURPOSE = Purpose("rules", MAX_NAMES)
WILD = re.compile(r"[*?\[]")


def _matcher(glob: str | None):
    return None if glob is None else re.compile(fnmatch.translate(glob)).match


def verbs(rule: Rule) -> tuple[str, ...]:
    """The kinds of statements that it may match."""
    return tuple(v for v in VERBS if rule.verb is None or fnmatch.fnmatchcase(v, rule.verb))


def conditions(rule: Rule) -> str:
    """What it matches, as a line: ``table=public.events* verb=insert``."""
    return " ".join(f"{key}={glob}" for key, glob in rule.globs.items()) or "everything"


class _Globs:
    """A rule's globs, ready to be tried. ``schema`` is None where the table's is one name: in whatever schema."""

    def __init__(self, rule: Rule):
        self.verbs = frozenset(verbs(rule))
        self.session = tuple(map(_matcher, (rule.protocol, rule.backend, rule.database, rule.user, rule.application)))
        first, dot, rest = (rule.table or "").partition(".")
        self.table = _matcher(rule.table and (rest if dot else first))
        self.schema = _matcher(first) if dot and first != "*" else None
        self.fingerprint = _matcher(rule.fingerprint)

    def may_match(self, names: tuple[str, ...]) -> bool:
        return all(matches is None or matches(name) for matches, name in zip(self.session, names, strict=True))

    def matches(self, shape, schema: str | None) -> bool | None:
        """Whether a shape is meant; None: that depends on the schema in which its table is found."""
        if shape.query_type not in self.verbs:
            return False
        if self.fingerprint is not None and not self.fingerprint(shape.fingerprint):
            return False
        if self.table is None:
            return True
        if shape.table is None:
            return False
        said, table = shape.table
        schema = said or schema
        if not self.table(table) or (schema is not None and self.schema is not None and not self.schema(schema)):
            return False
        return True if schema is not None or self.schema is None else None


class Rules:
    """All rules of a configuration, in order."""

    def __init__(self, config: Config):
        self.rules = config.rules
        self.observed = tuple(DIALECTS.index(name) for name, protocol in config.protocols()
                              if protocol.observe == "yes")
        self.globs = tuple(map(_Globs, self.rules))
        self._candidates = lru_cache(MAX_KINDS)(self._may_match)

    def for_core(self) -> list[tuple[str, float, bool, tuple[str, ...]]]:
        """``(name, wait, force, verbs)`` of each; see ``Engine.set_rules``."""
        return [(rule.name, rule.wait, rule.force == "yes", verbs(rule)) for rule in self.rules]

    def candidates(self, session) -> tuple[int, ...]:
        """The numbers of the rules that may match in a session, in order."""
        names = (DIALECTS[session.dialect], session.backend.partition(".")[2], session.within, session.user,
                 session.application)
        found = bounded(PURPOSE, sum(map(len, names)), self._candidates, names)
        return () if found is NotImplemented else found

    def _may_match(self, names: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(number for number, globs in enumerate(self.globs) if globs.may_match(names))

    def first(self, numbers: tuple[int, ...], shape, schemas: tuple[str, ...] | None) -> int:
        """The number of the first of the rules that matches, ``NONE`` or ``UNDECIDED``.

        ``schemas``: where an unqualified table may be; None: not known.
        """
        size = sum(len(name) for name in (*(shape.table or ()), *(schemas or ())) if name)
        found = bounded(PURPOSE, size, self._first, numbers, shape, schemas)
        return NONE if found is NotImplemented else found

    def _first(self, numbers, shape, schemas) -> int:
        if schemas is None:
            return self._first_in(numbers, shape, None)
        found = {self._first_in(numbers, shape, schema) for schema in schemas}
        return found.pop() if len(found) == 1 else UNDECIDED if found else NONE

    def _first_in(self, numbers, shape, schema: str | None) -> int:
        for number in numbers:
            matches = self.globs[number].matches(shape, schema)
            if matches is None:
                return UNDECIDED
            if matches:
                return number
        return NONE


# --- what `tqdb check` and the log say of them ------------------------------------------------------------------

def explanation(rule: Rule, config: Config) -> str:
    """What a rule does, as a sentence."""
    limit = config.writebatch.max_wait_ms_limit
    said = rule.globs
    what = "/".join(v.upper() for v in verbs(rule)) if rule.verb is not None else "writes"
    of = [f"{words} {said[key]}" for key, words in (
        ("table", "to"), ("fingerprint", "of the fingerprint"), ("database", "in the database"),
        ("user", "by the user"), ("application", "from the application"), ("protocol", "over the protocol"),
        ("backend", "on the backend")) if key in said]
    over = ", whatever hints and sessions say" if rule.force == "yes" else " that have no hint or setting of their own"
    if rule.max_wait_ms == "off":
        does = "are not batched"
    elif rule.max_wait_ms == "auto":
        does = "are batched while others are under way"
    else:
        cut = f", cut to max_wait_ms_limit = {limit}" if rule.wait > limit else ""
        does = f"are batched, and wait up to {rule.max_wait_ms} ms{cut}"
    return f"{' '.join((what, *of))}{over}: {does}"


def changes(old: tuple[Rule, ...], new: tuple[Rule, ...]) -> str:
    """What a reload has made of the rules, as a line."""
    before = {rule.name: rule for rule in old}
    names = [rule.name + (" (new)" if rule.name not in before else " (changed)" if rule != before[rule.name] else "")
             for rule in new]
    gone = [name for name in before if name not in {rule.name for rule in new}]
    return f"rules, in order: {', '.join(names) or 'none'}" + (f"; gone: {', '.join(gone)}" if gone else "")


def _covers(wider: str | None, narrower: str | None) -> bool:
    """Whether whatever matches the one glob matches the other, as far as can be seen easily."""
    if wider is None or wider == narrower or wider == "*":
        return True
    if narrower is None:
        return False
    if not WILD.search(narrower):
        return fnmatch.fnmatchcase(narrower, wider)
    return wider.endswith("*") and not WILD.search(wider[:-1]) and WILD.split(narrower)[0].startswith(wider[:-1])


def _covers_table(wider: str | None, narrower: str | None) -> bool:
    if wider is None or narrower is None or "." in wider or "." not in narrower:
        return _covers(wider, narrower)
    return _covers(wider, narrower.partition(".")[2])


def unreachable(config: Config) -> dict[str, str]:
    """Rules that can never match, with the reason."""
    found: dict[str, str] = {}
    served = config.protocols()
    for number, rule in enumerate(config.rules):
        protocols = [(name, p) for name, p in served if fnmatch.fnmatchcase(name, rule.protocol or "*")]
        serving = [p.default for _, p in protocols]
        earlier = next((other.name for other in config.rules[:number] if _shadows(other, rule)), None)
        if not protocols:
            missing = next(name for name in PROTOCOLS if fnmatch.fnmatchcase(name, rule.protocol))
            found[rule.name] = f"protocol {rule.protocol}: there is no section [{missing}]"
        elif rule.backend is not None and not fnmatch.filter(serving, rule.backend):
            known = any(fnmatch.filter(p.backends, rule.backend) for _, p in protocols)
            found[rule.name] = (f"backend {rule.backend}: it is no protocol's default" if known else
                                f"backend {rule.backend}: there is no such section")
        elif verbs(rule) == ("replace",) and [name for name, _ in protocols] == ["postgres"]:
            found[rule.name] = "verb replace: PostgreSQL has no REPLACE"
        elif earlier is not None:
            found[rule.name] = f"the earlier rule {earlier} matches all that it matches"
    return found


def _shadows(earlier: Rule, later: Rule) -> bool:
    return set(verbs(later)) <= set(verbs(earlier)) and _covers_table(earlier.table, later.table) and all(
        _covers(getattr(earlier, key), getattr(later, key))
        for key in ("protocol", "backend", "database", "user", "application", "fingerprint"))
