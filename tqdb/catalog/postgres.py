"""PostgreSQL: what a write executes, read from the catalogue, and whether all of it may run among others.

The closure of a write: its table, what that inherits to, is rewritten to and cascades to, with defaults, constraints,
indexes, policies, rules and triggers; the functions, operators, casts and types of all these; what the functions'
bodies name; and again. Each thing is on a list (``postgres_allowed``) or has been read; else the write goes alone.
"""

import json
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tqdb.analysis import Verdict
from tqdb.analysis.postgres_bodies import plpgsql_body, sql_body
from tqdb.analysis.postgres_names import COMPARISONS, READ, WRITTEN, Names, Unknown
from tqdb.bounded import POSTGRES_PACE
from tqdb.catalog import Ask, Facts
from tqdb.catalog.postgres_allowed import (
    FUNCTION_SETTINGS,
    INDEX_METHODS,
    INTERNAL_SOURCES,
    MERGED,
    NODE_TAGS,
    PIPELINED,
    SETTINGS,
    UNREACHABLE,
    builtin,
    library,
)
from tqdb.catalog.postgres_probe import FIRST_USER_OID, probe

MAX_ROUNDS = 6              # questions about one write
MAX_OBJECTS = 500           # functions, types and tables that are named or met in one closure

# EXTRACT is a function of that name, which the parser calls so, from this version on; date_part() before
EXTRACT, EXTRACT_SINCE = ("pg_catalog", "extract"), 140000

_CONSTRAINTS = {"p": "primary key", "u": "unique constraint", "x": "exclusion constraint", "t": "constraint trigger",
                "f": "foreign key"}


@dataclass
class Closure:
    """What is known of a write so far, and what has been asked. Names are ``(schema or None, name)``."""

    strategy: int = MERGED
    version: int = 0            # of the server
    rounds: int = 0
    body_work: int = 0
    settings: set = field(default_factory=set)
    # where names without a schema are looked for: None as the session does, else schemas
    paths: dict = field(default_factory=lambda: {None: None})
    accesses: dict = field(default_factory=dict)
    perhaps: set = field(default_factory=set)
    functions: set = field(default_factory=set)
    fields: set = field(default_factory=set)
    calls: set = field(default_factory=set)
    type_names: set = field(default_factory=set)
    operators: set = field(default_factory=lambda: set(COMPARISONS))
    transitions: set = field(default_factory=set)       # names of transition tables
    relation_oids: dict = field(default_factory=dict)
    types: set = field(default_factory=set)             # OIDs of users' types
    classes: set = field(default_factory=set)           # OIDs of users' operator classes, and of operators
    known: set = field(default_factory=set)             # OIDs of functions that have been judged
    tree_oids: set = field(default_factory=set)         # of functions whose stored expressions are to be asked for
    found: set = field(default_factory=set)             # names of relations and functions that there are
    asked: dict = field(default_factory=dict)           # -> access, or anything
    schema: str | None = None                           # in which the statement's own table is
    refused: str = ""                                   # why what the statement names is not known
    question: tuple = ((), ())                          # relations and functions that are being asked about

    def add(self, names: Names) -> None:
        for relation, access in names.relations:
            self.accesses[relation] = max(access, self.accesses.get(relation, READ))
        self.perhaps |= names.perhaps
        self.functions |= names.functions
        self.fields |= names.fields
        self.calls |= names.calls
        # a type's name may stand where a function's does
        self.type_names |= names.types | names.fields | {name for _, name in names.functions}
        self.operators |= names.operators
        for name in names.settings:
            self.setting(name)

    def setting(self, name: str) -> None:
        if not name.isascii():
            raise Unknown("it reads a setting whose name is in no character set that is known")
        if "." not in name and name not in SETTINGS:
            raise Unknown(f"it reads the setting {name}")
        self.settings.add(name)
        self.lower(PIPELINED)

    def lower(self, strategy: int) -> None:
        self.strategy = min(self.strategy, strategy)

    # --- what is asked next -----------------------------------------------------------------------------------------

    def _places(self, schema: str | None):
        if schema is None:
            return self.paths
        if schema.startswith("pg_temp"):
            raise Unknown("it names a temporary schema")
        return ((schema,),)

    def next(self) -> str | None:
        """The query about all that has not been asked about; None: there is nothing."""
        relations, functions, oids = [], [], []
        wanted = [*self.accesses.items(), *((r, READ) for r in self.perhaps)]
        for relation, access in wanted:
            for path in self._places(relation[0]):
                key = ("relation", path, relation[1])
                if self.asked.get(key, -1) < access:
                    self.asked[key] = access
                    relations.append((path, relation[1], access, relation))
        for kind, names in ((0, self.functions), (1, self.fields), (0, self.calls)):
            for name in names:
                name = name if isinstance(name, tuple) else (None, name)
                for path in self._places(name[0]):
                    key = ("function", path, name[1], kind)
                    if key not in self.asked:
                        self.asked[key] = 0
                        functions.append((path, name[1], kind, name))
        for oid, access in self.relation_oids.items():
            if self.asked.get(("oid", oid), -1) < access:
                self.asked[("oid", oid)] = access
                oids.append((oid, access))
        types = sorted(t for t in self.type_names if ("type", t) not in self.asked)
        self.asked.update(dict.fromkeys((("type", t) for t in types), 0))
        trees = sorted(t for t in self.tree_oids if ("tree", t) not in self.asked)
        self.asked.update(dict.fromkeys((("tree", t) for t in trees), 0))
        operators = (frozenset(self.operators), frozenset(self.types))
        again = self.asked.get("operators") != operators
        classes = sorted(c for c in self.classes if ("class", c) not in self.asked)
        self.asked.update(dict.fromkeys((("class", c) for c in classes), 0))
        if not (relations or functions or oids or types or trees or classes or again):
            return None
        if len(self.asked) > MAX_OBJECTS * 2:
            raise Unknown("it executes too many things")
        self.asked["operators"] = operators
        self.question = (relations, functions)
        return probe([r[:3] for r in relations], oids, [f[:3] for f in functions], trees, types,
                     sorted(self.types) if again else (), sorted(self.operators) if again else (), classes)

    # --- what the answer says -----------------------------------------------------------------------------------------

    def learn(self, answer: dict) -> None:
        """Takes what one answer says; raises Unknown with the reason for going alone."""
        relations, functions = self.question
        self.version = answer["version"]
        missing = set(answer.get("missing") or ())
        self.found |= {r[3] for i, r in enumerate(relations) if i not in missing}
        self.found |= {functions[i][3] for i, _ in answer.get("calls") or ()}
        if len(missing) < len(relations) and not answer.get("relations"):
            raise Unknown("the catalogue does not show it")
        for relation in answer.get("relations") or ():
            self._relation(relation)
        for trigger in answer.get("triggers") or ():
            if trigger["deferrable"]:
                raise Unknown(f"its trigger {trigger['name']} is deferrable")
            self.lower(PIPELINED)
            self.transitions |= {t for t in (trigger["old"], trigger["new"]) if t}
        for constraint in answer.get("constraints") or ():
            self._constraint(constraint)
        for method in answer.get("methods") or ():
            if method not in INDEX_METHODS:
                raise Unknown(f"it has an index of the method {method}, which is not known")
        self.classes |= set(answer.get("classes") or ())
        self.types |= {t for key in ("columns", "types", "named_types") for t in answer.get(key) or ()}
        self.types |= {t for t, _, _ in answer.get("kinds") or ()}
        callers = self._trees(answer)
        for function in answer.get("functions") or ():
            if function[0] not in self.known:
                self._function(function, callers.get(function[0], "the statement, or an object that it uses,"))
        if len(self.types) + len(self.known) + len(self.relation_oids) > MAX_OBJECTS:
            raise Unknown("it executes too many things")

    def _relation(self, relation: dict) -> None:
        name, kind = relation["name"], relation["kind"]
        if relation["system"]:
            raise Unknown(f"it reads {name}, which is the server's own")
        if kind not in "rpvmS":
            raise Unknown(f"{name} is not an ordinary table")
        if relation["persistence"] not in "pu":
            raise Unknown(f"{name} is a temporary table")
        heap = relation["method"] == "heap" or (
            relation["method"] is None and (kind not in "rm" or self.version < 120000))
        if not heap and kind != "S":
            raise Unknown(f"{name} is stored by {relation['method']}, which is not known")
        if relation["named"] and (
                kind != "r" or relation["security"] or relation["rules"] or relation["partition"]):
            self.lower(PIPELINED)

    def _constraint(self, constraint: dict) -> None:
        kind = _CONSTRAINTS.get(constraint["kind"], "constraint")
        if constraint["kind"] != "f" or constraint["deferred"]:
            raise Unknown(f"its {kind} {constraint['name']} is "
                          f"{'deferred' if constraint['deferred'] else 'deferrable'}")
        # checked at the end of each statement, as any foreign key is; rows of one statement could satisfy each other
        self.lower(PIPELINED)

    def _trees(self, answer: dict) -> dict[int, str]:
        """Stored expressions; who calls which function."""
        callers: dict[int, str] = {}
        reached = set(answer.get("reached") or ())
        for tree in answer.get("trees") or ():
            what = tree["what"]
            access = WRITTEN if what.startswith(("the rule ", "the function ")) else READ
            for item in tree["items"]:
                if item[0] == "{":
                    if item[1:] not in NODE_TAGS:
                        raise Unknown(f"{what} has a {item[1:]}, which is not known to be the same among others")
                elif item.startswith(":varattno"):
                    raise Unknown(f"{what} reads a system column")
                elif item[0] == ":" and not item.startswith(":relid"):
                    self._call(what, item, callers)
                else:
                    oid = int(item.removeprefix(":relid "))
                    if 0 < oid < FIRST_USER_OID:
                        raise Unknown(f"{what} reads a table of the server's own")
                    callers[oid] = what
                    if oid in reached:
                        self.relation_oids[oid] = max(access, self.relation_oids.get(oid, READ))
        return callers

    def _call(self, what: str, item: str, callers: dict[int, str]) -> None:
        words = item.split(" ", 2)
        callers[int(words[1])] = what
        if words[1] in ("2077", "3294"):            # current_setting()
            if len(words) == 2:
                raise Unknown(f"{what} calls current_setting() of a name that is not written in it")
            try:
                self.setting(_constant(words[2]).lower())
            except Unknown as e:
                raise Unknown(f"{what}: {e}") from e

    def _function(self, function: list, caller: str) -> None:
        self.known.add(function[0])
        if len(function) == 5:
            _, name, arguments, volatility, is_set = function
            signature = f"{name}({arguments})"
            strategy = builtin(name, arguments, volatility)
            if not strategy and (signature not in UNREACHABLE or UNREACHABLE[signature] in self.type_names):
                raise Unknown(f"{caller} calls {name}()")
            self.lower(min(strategy or MERGED, PIPELINED if is_set else MERGED))
            return
        (oid, name, language, volatility, is_set, source, path, config, owner, types, trees, stored,
         definition) = function
        self.types |= set(types or ())
        if is_set:
            self.lower(PIPELINED)
        if language == "c":
            strategy = library(path or "", source, volatility)
            if not strategy:
                raise Unknown(f"{caller} calls {name}(), which is in C and not known")
            self.lower(strategy)
        elif language == "internal":
            if source not in INTERNAL_SOURCES or volatility == "v":
                raise Unknown(f"{caller} calls {name}(), which is not known")
        elif language in ("sql", "plpgsql"):
            self.lower(PIPELINED)
            self._configured(name, config, owner)
            if not stored:
                self._body(name, caller, source, definition if language == "plpgsql" else None, language)
        else:
            raise Unknown(f"{caller} calls {name}(), which is in {language}")
        if trees:
            self.tree_oids.add(oid)

    def _configured(self, name: str, config: list | None, owner: str | None) -> None:
        """The settings that a function has while it runs, and for whom it runs: where its names are looked for."""
        for entry in config or ():
            setting, _, value = entry.partition("=")
            if setting.lower() not in FUNCTION_SETTINGS:
                raise Unknown(f"the function {name} sets {setting}")
            if setting.lower() == "search_path":
                schemas = [s.strip().strip('"') for s in value.split(",")]
                if "$user" in schemas or any('"' in s for s in schemas):
                    raise Unknown(f"the function {name} has a search_path that is not known")
                self.paths[tuple(dict.fromkeys(("pg_catalog", *(s for s in schemas if s and s != "pg_temp"))))] = None
        if owner is not None:
            self.paths[(owner,)] = None         # what "$user" stands for then

    def _body(self, name: str, caller: str, source: str, definition: str | None, language: str) -> None:
        self.body_work += POSTGRES_PACE.work(source.encode())
        if self.body_work > POSTGRES_PACE.most or (language == "plpgsql" and definition is None):
            raise Unknown(f"{caller} calls {name}(), which is too long to be read")
        read = _read(source, definition)
        if isinstance(read, str):
            raise Unknown(f"{caller} calls {name}(): {read}")
        self.add(read)

    def complete(self) -> None:
        """All has been asked: whether all that was named is there."""
        for schema, name in self.accesses:
            if (schema, name) not in self.found and not (schema is None and name in self.transitions):
                raise Unknown(f"the table {name} is not there")
        for schema, name in self.functions:
            if (schema, name) == EXTRACT and self.version < EXTRACT_SINCE:
                self.lower(builtin("date_part", "", ""))
            elif (schema, name) not in self.found:
                raise Unknown(f"the function {name}() is not there")


@lru_cache(maxsize=256)
def _read(source: str, definition: str | None) -> Names | str:
    """What a body names, or why it is not known."""
    try:
        return sql_body(source) if definition is None else plpgsql_body(definition, source)
    except Unknown as e:
        return str(e)


_BYTES = re.compile(r"constvalue \d++ \[ ((?:-?\d++ )++)\]\Z")


def _constant(tree: str) -> str:
    """The text of a constant's tree: the bytes behind the four of its length."""
    found = _BYTES.search(tree)
    if found is None:
        raise Unknown("a setting's name is not known")
    return bytes(int(b) & 255 for b in found[1].split()[4:]).decode("utf-8", "replace")


def _ask(closure: Closure, verdict: Verdict) -> Ask | Facts:
    """The next question, or that there is none."""
    if closure.rounds >= MAX_ROUNDS:
        raise Unknown("what it executes goes too deep")
    sql = closure.next()
    if sql is None:
        closure.complete()
        return Facts(True, multi_row=verdict.multi_row and closure.strategy == MERGED,
                     settings=frozenset(closure.settings))
    closure.rounds += 1
    return Ask(sql, closure)


def _begin(verdict: Verdict) -> tuple[str, Closure]:
    closure = Closure()
    # its own table is the first
    closure.accesses[(verdict.schema, verdict.table)] = READ
    try:
        closure.add(verdict.names)
        return _ask(closure, verdict).sql, closure
    except Unknown as e:
        # asked all the same: the answer is where a refusal is told
        closure.refused = str(e)
        return probe(), closure


def probe_sql(verdict: Verdict) -> str:
    return _begin(verdict)[0]


def judge(verdict: Verdict, rows: list[list[str | None]], state: Closure | None = None) -> Facts | Ask:
    """What the answer means; ``state`` is that of the ``Ask`` whose answer it is, None for the first."""
    answer = json.loads(rows[0][0])
    if answer["messages"] not in ("notice", "warning", "error", "info"):
        return Facts(False, "session_state", why="client_min_messages asks for debug messages")
    closure = state or _begin(verdict)[1]
    if state is None:
        closure.schema = answer.get("schema")
    try:
        if closure.refused:
            raise Unknown(closure.refused)
        closure.learn(answer)
        found = _ask(closure, verdict)
    except Unknown as e:
        return Facts(False, "table", why=str(e), schema=closure.schema)
    if isinstance(found, Ask):
        return found
    return replace(found, wait_limit=float(answer["timeout"] or 0) / 2, schema=closure.schema)
