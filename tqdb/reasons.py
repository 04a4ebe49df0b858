"""Why writes go alone and why batches leave, in words: for the dashboard, ``tqdb top``, the page and docs/reasons.md.

Texts are Markdown of which only `code` is used; ``words`` are plain.
"""

import html
import re
from importlib.resources import files
from typing import NamedTuple


class Reason(NamedTuple):
    """``name`` as counters and ``Last_batch_reason`` have it; ``pages`` of docs/ explain more."""

    name: str
    words: str      # fits beside its name and a number into a line of 80 columns
    means: str
    do: str
    pages: tuple[str, ...]


ALONE = (
    Reason("no_hint", "they did not ask, and no rule asks for them",
           "No hint, setting or rule asks for the write to be batched, or one of them says `0` or `off`, or `observe = "
           "yes` is set. Also counted here: a rule that may be meant, while it is not known yet in which schema the "
           "write's table is.",
           "Give a hint, a setting or a rule; `tqdb advise` and the page `/advice` have rules to paste. Where there is "
           "one: does `SHOW TQDB RULES` count hits? Does the comment reach the proxy? Some drivers and ORMs strip "
           "comments, or put them in the middle. Is the connection to the proxy's port?",
           ("advice.md", "rules.md", "hints.md")),
    Reason("in_transaction", "they stood in a transaction of their session",
           "A transaction is open, or autocommit is off. Not counted here: a write that came together with its BEGIN "
           "and COMMIT.",
           "Write what is its own transaction with autocommit. Some drivers have it off unless told (psycopg and "
           "PyMySQL, for instance), and some frameworks put a transaction around each write unless told.",
           ("frameworks.md", "hints.md")),
    Reason("not_batchable", "their answer could differ among others",
           "The statement's form: several statements in one message, functions that may not share a transaction, a "
           "cursor, parameters sent as long data, a named statement parsed and executed before one Sync, more than 2 "
           "KiB without its literals.",
           "`tqdb advise` and the page `/advice` name what it is, statement by statement.",
           ("exactness.md", "advice.md")),
    Reason("session_state", "their session is like no other: locks, …",
           "A server that is MySQL and not MariaDB, or is known to take no writes (a standby, `read_only`, a Galera "
           "node that is not ready), `default_transaction_read_only`; temporary tables, `LOCK TABLES`, "
           "`currval()`/`lastval()` used, `SET insert_id`, MariaDB's `SET TRANSACTION`, `standard_conforming_strings` "
           "off, `sql_mode` with ANSI_QUOTES or ORACLE, a statement that was prepared before a change of the session, "
           "a connection near its idle limit, a server that does not say what its session is like.",
           "Keep these out of sessions that write much: `RETURNING` instead of `currval()`, a connection of its own "
           "for what needs temporary tables or locks.",
           ("exactness.md",)),
    Reason("charset", "a character set that is not safe to read",
           "A client character set in which a byte of a character may look like a quote: sjis, cp932, big5, gbk, "
           "gb18030, uhc, johab.",
           "Use UTF-8 as client character set.",
           ("exactness.md",)),
    Reason("table", "their table does not allow it, or is looked at",
           "The table, or what hangs on it, does not allow it: a trigger that is not understood, a view, a temporary "
           "table, no TRIGGER privilege (MariaDB). Or what the catalogue says of it was not there in time.",
           "The log says why, once per table; `tqdb advise` and the page `/advice` say it for each statement. A few "
           "after a start or after DDL are nothing to mend.",
           ("exactness.md", "advice.md")),
    Reason("oversize", "beyond max_batch_size or max_batch_bytes",
           "The write alone is longer than `max_batch_bytes`, or has more rows than `max_batch_size`.",
           "Nothing: it is a batch of its own. Or raise the bound.",
           ("configuration.md",)),
    Reason("single", "nobody else came in time",
           "The write's window closed with nobody else in it.",
           "Nothing, if it is a quiet moment. Otherwise there are fewer than two writers at a time, or the wait is too "
           "short for their rate: `tqdb advise` says what a longer one would give.",
           ("hints.md", "how-it-works.md")),
    Reason("retry", "their batch failed: each got its own answer",
           "The batch failed and was rolled back, and the write was what was left when it had been taken apart.",
           "Look at the error that its client got. A lock that others hold is one cause, a duplicate key another.",
           ("exactness.md",)),
    Reason("draining", "the proxy is shutting down",
           "The proxy is about to end, and gathers nothing any more.",
           "Nothing.",
           ("operations.md",)),
)

LEFT = (
    Reason("full", "max_batch_size was reached",
           "As many rows had come as one batch may have.",
           "Nothing, or raise `max_batch_size` if the database takes larger ones gladly.",
           ("configuration.md",)),
    Reason("bytes", "max_batch_bytes was reached",
           "As many bytes had come as one batch may have.",
           "Nothing, or raise `max_batch_bytes`.",
           ("configuration.md",)),
    Reason("deadline", "the first member's time was up",
           "The write that came first had waited as long as its hint, setting or rule allows.",
           "If batches are small, a longer wait makes them larger: `tqdb advise` says what it would give.",
           ("hints.md", "how-it-works.md")),
    Reason("idle", "max_wait_ms is auto, and no batch was under way",
           "With `auto` nothing waits while the database is idle.",
           "Nothing.",
           ("hints.md",)),
    Reason("nobody_left", "nobody else is likely to come in time",
           "All sessions that write like that wait in this batch or in others, or have let two windows pass.",
           "Nothing: waiting on would have cost time and gained nothing.",
           ("how-it-works.md",)),
    Reason("together", "another statement left, and it would have soon",
           "Another kind of statement of sessions alike had to leave, and this one's time was nearly up: both went in "
           "one batch.",
           "Nothing.",
           ("how-it-works.md",)),
    Reason("drain", "the proxy is shutting down",
           "The proxy is about to end, and nothing waits any more.",
           "Nothing.",
           ("operations.md",)),
)

PARTS = (("Why writes went alone", ALONE), ("Why batches left", LEFT))
# by the name that /stats.json has for the counts
WORDS = {"individual": {r.name: r.words for r in ALONE}, "flush": {r.name: r.words for r in LEFT}}


def markdown() -> str:
    """The two parts of docs/reasons.md, a section for each reason."""
    lines = []
    for title, reasons in PARTS:
        lines += [f"## {title}", ""]
        for r in reasons:
            lines += [f"### `{r.name}`", "", f"**{r.words[0].upper()}{r.words[1:]}.** {r.means}", "", f"{r.do} More: "
                      + ", ".join(f"[{page.removesuffix('.md')}]({page})" for page in r.pages) + ".", ""]
    return "\n".join(lines)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def page() -> bytes:
    """The page ``/reasons``, whole: a section for each reason, whose name is its anchor."""
    parts = []
    for title, reasons in PARTS:
        parts.append(f"<h2>{title}</h2>\n<dl>")
        for r in reasons:
            pages = ", ".join(f"docs/{name}" for name in r.pages)
            parts.append(f'<dt id="{r.name}" tabindex="-1"><code>{r.name}</code> {_inline(r.words)}</dt>\n'
                         f"<dd><p>{_inline(r.means)}</p>\n<p><b>What to do:</b> {_inline(r.do)}</p>\n"
                         f'<p class="dim">More in tqdb\'s documentation: {pages}</p></dd>')
        parts.append("</dl>")
    template = (files("tqdb") / "reasons.html").read_text(encoding="utf-8")
    return template.replace("<!-- reasons -->", "\n".join(parts)).encode()
