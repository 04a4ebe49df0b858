"""MariaDB: statements, definitions of tables and bodies of triggers as tokens, each word held against the lists.

All that is read must be on a list of ``mariadb_allowed``; what cannot be read is not known. ``why`` names what is not.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from tqdb.analysis.mariadb_allowed import (
    COLUMN_WORDS,
    FUNCTIONS,
    KEY_WORDS,
    MERGED,
    OPTION_WORDS,
    PIPELINED,
    RESERVED,
    SIGNAL_ITEMS,
    TRIGGER_WORDS,
    TYPES,
)

# Linear: what repeats is possessive. Blanks and letters are the server's own: U+00A0 and its like are letters to it.
_TOKEN = re.compile(
    r"(?P<blank>[ \t\n\r\f\v]++|/\*(?!M?!)(?:[^*]++|\*(?!/))*+\*/|--[\x00-\x20][^\n]*+|#[^\n]*+)|"
    r"(?P<mark>/\*M?!\d*+|\*/)|"
    r"(?P<string>'(?:[^'\\]++|''|\\.)*+'|\"(?:[^\"\\]++|\"\"|\\.)*+\")|"
    r"(?P<name>`(?:[^`]++|``)*+`)|"
    r"(?P<number>(?:0x[0-9a-fA-F]++|\d++(?:\.\d*+)?+(?:[eE][-+]?+\d++)?+|\.\d++(?:[eE][-+]?+\d++)?+)(?![\w$]))|"
    r"(?P<word>[0-9A-Za-z_$\x80-\U0010ffff]++)|"
    r"(?P<char>[(),;.=<>!+\-*%&|^~:?]|/(?!\*))|"
    r"(?P<open>(?:['\"`]|/\*).*+)", re.DOTALL)
_HIDDEN_QUOTE = re.compile(r"\\['\"]")
MAX_SHOWN = 64              # characters of a name in a reason


class Token(NamedTuple):
    """``kind``: word, name (without its quotes), string, number, char, mark of an executable comment; ``near``: nothing
    stands between it and the token before; ``key``: the text of a word, in lower case if it is ASCII, or of a char.
    """

    kind: str
    text: str
    near: bool
    key: str


_END = Token("end", "", False, "")


def read(text: str, escapes: bool | None = None) -> list[Token] | None:
    """The tokens of ``text``; None if there is something that the server knows and this does not, such as ``@``.

    ``escapes``: whether a backslash is one; None: not known, so that a quote behind one is not understood.
    """
    found = []
    at = 0
    near = False
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup == "open":
            return None
        kind, part, at = match.lastgroup, match[0], match.end()
        if kind == "blank":
            near = False
            continue
        if kind == "string" and not escapes and _HIDDEN_QUOTE.search(part):
            return None
        if kind == "name":
            part = part[1:-1].replace("``", "`")
        elif kind == "word" and part.isascii():
            part = part.lower()
        found.append(Token(kind, part, near, part if kind in ("word", "char") else ""))
        near = True
    return found


def parameters(text: str) -> list[int] | None:
    """Where a tuple of values has its parameters; None: one is not a value by itself, or the text is not understood."""
    found = []
    at = depth = 0
    before = ""
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup in ("open", "mark"):
            return None
        part, at = match[0], match.end()
        if match.lastgroup == "blank":
            continue
        if match.lastgroup == "string" and _HIDDEN_QUOTE.search(part):
            return None
        if before == "?" and part not in (",", ")"):
            return None
        if part == "?" and match.lastgroup == "char":
            if depth != 1 or before not in ("(", ","):
                return None
            found.append(match.start())
        depth += (part == "(") - (part == ")")
        before = part if match.lastgroup == "char" else ""
    return found


def _at(tokens: list[Token], i: int) -> Token:
    return tokens[i] if 0 <= i < len(tokens) else _END


def shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"


@dataclass
class Judgement:
    """``why`` it goes alone, "" if it need not, at token ``at``; ``where`` it may run then."""

    why: str = ""
    at: int = 0
    where: int = MERGED


def judge(tokens: list[Token], words: frozenset[str] | set[str], types_at: frozenset[int] | set[int] = frozenset(),
          free: bool = False) -> Judgement:
    """Whether every call is on the list of functions, and every other word in ``words``.

    ``types_at``: where the name of a type stands; ``free``: words that are no reserved ones are names.
    """
    found = Judgement()
    for i, token in enumerate(tokens):
        if token.kind not in ("word", "name"):
            continue
        why = _call(tokens, i, words, types_at, found) if _at(tokens, i + 1).key == "(" else _word(
            tokens, i, words, free)
        if why:
            found.why, found.at = why, i
            return found
    return found


def _call(tokens: list[Token], i: int, words, types_at, found: Judgement) -> str:
    """Words before a parenthesis: functions, whose parenthesis follows at once, words of the grammar, types."""
    token = tokens[i]
    qualified = _at(tokens, i - 1).key == "."
    if token.kind == "word" and not qualified:
        if token.text in FUNCTIONS and (tokens[i + 1].near or (token.text in words and token.text in RESERVED)):
            where = FUNCTIONS[token.text]
            # a seed makes a sequence within one statement
            if token.text == "rand" and _at(tokens, i + 2).key != ")":
                where = PIPELINED
            found.where = min(found.where, where)
            return ""
        if token.text in words and (token.text in RESERVED or token.text == "value"):
            return ""
        if token.text in TYPES and (token.text in RESERVED or i in types_at or _at(tokens, i - 1).key == "as"):
            return ""
        if token.text in OPTION_WORDS and words is OPTION_WORDS:
            return ""
    return f"calls {shown(token.text)}()"


_NAME_FOLLOWS = ("collate", "charset", "using")


def _word(tokens: list[Token], i: int, words, free: bool) -> str:
    token = tokens[i]
    before, after = _at(tokens, i - 1), _at(tokens, i + 1)
    if token.kind == "name" or before.key == "." or after.key == ".":
        return ""
    if after.kind == "string" and (token.text.startswith("_") or (after.near and token.text in ("x", "b", "n"))):
        return ""
    if token.text in words:
        return ""
    if before.key == "=":
        before = _at(tokens, i - 2)
    if before.kind == "word" and (before.text in _NAME_FOLLOWS or (before.text == "set" and (
            _at(tokens, i - 2).key == "character" or _at(tokens, i - 3).key == "character"))):
        return ""
    if free and token.text not in RESERVED:
        return ""
    return f"names {shown(token.text)}"


# --- tables -----------------------------------------------------------------------------------------------------------

@dataclass
class Table:
    """What SHOW CREATE TABLE tells. ``why`` writes to it go alone, "" if they need not; ``where`` they may run."""

    why: str = ""
    where: int = MERGED
    columns: list[str] = field(default_factory=list)
    auto: str | None = None         # the auto-increment column
    primary: str | None = None      # the primary key, if it is one whole column …
    types: dict[str, str] = field(default_factory=dict)     # … and the name of each column's type


_UNREADABLE = "its definition is not understood"


def read_table(ddl: str, escapes: bool) -> Table:
    """The table that ``ddl`` makes: all that its columns, keys, constraints and options execute is judged."""
    tokens = [t for t in read(ddl, escapes) or () if t.kind != "mark"]
    if ddl.startswith("CREATE TEMPORARY TABLE "):
        return Table("it is a temporary table")
    if not ddl.startswith("CREATE TABLE ") or len(tokens) < 5 or tokens[2].kind != "name" or tokens[3].key != "(":
        return Table(_UNREADABLE)
    parts, end = _parts(tokens, 4)
    if end >= len(tokens):
        return Table(_UNREADABLE)
    table = Table()
    options = tokens[end + 1:]
    engines = [_at(options, i + 2).text for i, t in enumerate(options) if t.key == "engine"]
    other = next((e for e in engines if e != "innodb"), None)
    if other is not None or not engines:
        table.why = f"its engine is {shown(other or 'not told')}"
    elif any(t.key == "versioning" for t in options):
        table.why = "it keeps its history (SYSTEM VERSIONING)"
    else:
        found = judge(options, OPTION_WORDS)
        table.why = f"its definition {found.why}" if found.why else ""
    if any(t.key == "partition" for t in options):
        table.where = PIPELINED
    for part in parts:
        if not table.why:
            _read_part(part, tokens[2].text, table)
    return table


def _parts(tokens: list[Token], at: int) -> tuple[list[list[Token]], int]:
    """What commas part up to the closing parenthesis, and where that is."""
    parts, depth = [[]], 0
    while at < len(tokens):
        token = tokens[at]
        if token.key == ")" and depth == 0:
            break
        depth += (token.key == "(") - (token.key == ")")
        if token.key == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
        at += 1
    return parts, at


def _read_part(part: list[Token], own: str, table: Table) -> None:
    first = _at(part, 0)
    if first.kind == "name":
        table.columns.append(first.text)
        table.types[first.text] = _at(part, 1).key
        found = judge(part, COLUMN_WORDS, {1})
        what = f"{_region(part, found.at)} of column {shown(first.text)}"
        if any(t.key == "auto_increment" for t in part):
            table.auto = first.text
    elif first.kind == "word" and first.text in KEY_WORDS:
        constraint = _at(part, 1).text if first.key == "constraint" else ""
        checks = any(t.key == "check" for t in part[:3])
        # a key's name stands before its parenthesis; within it only an expression calls anything
        found = judge(part if checks else _without_names(part), KEY_WORDS)
        what = f"the constraint {shown(constraint)}" if constraint else "a key of it"
        if [t.key or t.kind for t in part] == ["primary", "key", "(", "name", ")"]:
            table.primary = part[3].text
        if first.key == "unique" and any(t.key == "hash" for t in part):
            table.where = PIPELINED         # it is looked up row by row in what the statement has written
        for i, token in enumerate(part):
            if token.key == "references":
                target = part[i + 1:i + 4]
                name = target[2] if _at(target, 1).key == "." else _at(target, 0)
                if name.text.lower() == own.lower():
                    table.where = PIPELINED     # rows that refer to each other
    else:
        table.why = _UNREADABLE
        return
    if found.why:
        table.why = f"{what} {found.why}"
    table.where = min(table.where, found.where)


def _without_names(part: list[Token]) -> list[Token]:
    depth, kept = 0, []
    for token in part:
        depth += (token.key == "(") - (token.key == ")")
        if token.kind != "name" or depth > 1:
            kept.append(token)
    return kept


def _region(part: list[Token], at: int) -> str:
    for i in range(at, 0, -1):
        if part[i].key == "default":
            return "the default"
        if part[i].key == "check":
            return "the CHECK"
        if part[i].key == "as" and _at(part, i + 1).key == "(":
            return "the generated value"
    return "the definition"


# --- triggers ---------------------------------------------------------------------------------------------------------

def read_trigger(body: str) -> str:
    """Why a trigger's body does more than compute with its row and refuse it; "" if it does not.

    It assigns to columns of its new row and to variables of its one block; no other block, so that each name means one
    thing. It has no handler, so that errors reach the statement.
    """
    tokens = read(body, True)
    if tokens is None or any(t.kind == "mark" for t in tokens):
        return "is not understood"
    if sum(t.key == "begin" for t in tokens) > 1:
        return "has a block in a block"
    own: set[str] = set()
    types_at: set[int] = set()
    for i, token in enumerate(tokens):
        if token.key == "declare":
            k = i + 1
            while _at(tokens, k).kind in ("word", "name") and _at(tokens, k + 1).key == ",":
                own.add(tokens[k].text.lower())
                k += 2
            own.add(_at(tokens, k).text.lower())
            types_at.add(k + 1)
        elif token.kind == "word" and _at(tokens, i + 1).key == ":" and _at(tokens, i + 2).key != "=":
            own.add(token.text)
    found = judge(tokens, TRIGGER_WORDS | own, types_at)
    return found.why or _assigns(tokens, own)


def _assigns(tokens: list[Token], own: set[str]) -> str:
    """What a trigger sets that is neither its row nor a variable of its own."""
    expected = setting = signal = False
    depth = 0
    for i, token in enumerate(tokens):
        if token.key == ";":
            setting = signal = False
        elif token.key == "signal":
            signal = True
        elif token.key == "set" and _at(tokens, i - 1).key != "character" and not setting:
            setting, expected, depth = True, True, 0
            continue
        depth += (token.key == "(") - (token.key == ")")
        if setting and token.key == "," and depth == 0:
            expected = True
        elif expected:
            expected = False
            column = token.key == "new" and not signal and _at(tokens, i + 1).key == "."
            after = _at(tokens, i + 3 if column else i + 1)
            known = column or token.text.lower() in (SIGNAL_ITEMS if signal else own)
            if not known or after.key not in ("=", ":"):
                return f"sets {shown(token.text)}"
    return ""
