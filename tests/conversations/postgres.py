"""PostgreSQL's steps: what they are as bytes, and where their answers end.

Kinds of steps: ``query`` (sql), ``parse`` (name, sql, types), ``bind`` (portal, name, values, results),
``describe`` / ``close`` (what: S or P, name), ``execute`` (portal, limit), ``executions`` (name, rows, times, describe:
a Bind, perhaps a Describe, and an Execute for each row), ``flush``, ``sync``, ``call`` (function, values) and ``copy``
(sql, blocks, end, form, awaited). A value is text, None, an integer (binary int4) or ``{"hex": …}`` (binary).

Masked: the process id in NotificationResponse; in errors the generated id of a row of ``log`` and the number of the
session's schema of temporary tables; the ids of relations made while the plan was played (RowDescription), as ranks of
their first appearance. What the login answers is not compared.
"""

import re
import socket
import struct

from tests.conversations.plan import Session
from tests.conversations.talk import Broken, Talk

# what answers a message: every message that may come, and those of them that end it
ANSWERS = {
    "parse": (b"1", b"1"), "bind": (b"2", b"2"), "close": (b"3", b"3"), "describe S": (b"tTn", b"Tn"),
    "describe P": (b"Tn", b"Tn"), "execute": (b"DCsIGHdc", b"CsI"), "sync": (b"Z", b"Z"), "call": (b"VZ", b"Z"),
    "query": (b"TDCIGHdcZ", b"Z"),
}
SKIPS_NOTHING = ("query", "sync", "call")       # after an error in these ReadyForQuery comes all the same
ASYNCHRONOUS = b"NSA"
BIND_COMPLETE = b"2\0\0\0\4"


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def _name(text: str) -> bytes:
    return text.encode() + b"\0"


def _values(values: list) -> bytes:
    """Formats and values, as Bind and FunctionCall carry them."""
    formats, out = [], b""
    for value in values:
        formats.append(int(isinstance(value, int | dict)))
        if value is None:
            out += struct.pack("!i", -1)
            continue
        data = (struct.pack("!i", value) if isinstance(value, int) else
                bytes.fromhex(value["hex"]) if isinstance(value, dict) else value.encode())
        out += struct.pack("!i", len(data)) + data
    formats = formats if any(formats) else []
    return struct.pack(f"!H{len(formats)}H", len(formats), *formats) + struct.pack("!H", len(values)) + out


def _bind(portal: str, name: str, values: list, results: list) -> bytes:
    return message(b"B", _name(portal) + _name(name) + _values(values)
                   + struct.pack(f"!H{len(results)}H", len(results), *results))


def _execute(portal: str, limit: int = 0) -> bytes:
    return message(b"E", _name(portal) + struct.pack("!I", limit))


class PostgresTalk(Talk):
    """``made_from``: the first id that relations get which are made from now on."""

    def __init__(self, port: int, session: Session, seconds: float, made_from: int):
        super().__init__(socket.create_connection(("127.0.0.1", port), timeout=seconds), seconds)
        self.made_from = made_from
        self.relations: dict[int, int] = {}
        self.answered = True        # nothing was said that the server answers only after Sync or Flush
        self.skipping = False       # an error was answered, and its Sync not said yet
        self.copying = False        # CopyInResponse has come
        body = struct.pack("!I", 196608)
        for name, value in {"user": "postgres", "database": "conv", **session.options}.items():
            body += _name(name) + _name(value)
        self.sock.sendall(struct.pack("!I", len(body) + 5) + body + b"\0")
        while (kind := self.one()[:1]) != b"Z":
            if kind == b"E":
                raise Broken("login refused")

    def one(self) -> bytes:
        head = self.read(5)
        return head + self.read(struct.unpack("!I", head[1:])[0] - 4)

    # --- what is said

    def add(self, index: int, what: str, data: bytes) -> None:
        """Adds a message. What stands behind an error is not owed an answer until Sync."""
        self.out += data
        self.answered = what in SKIPS_NOTHING
        if what == "sync":
            self.skipping = False
        if not self.skipping:
            self.owed.append((index, what))

    def say(self, index: int, step: dict) -> None:
        do = step["do"]
        if do == "query":
            self.add(index, do, message(b"Q", _name(step["sql"])))
        elif do == "parse":
            types = step.get("types", [])
            self.add(index, do, message(b"P", _name(step.get("name", "")) + _name(step["sql"])
                                        + struct.pack(f"!H{len(types)}I", len(types), *types)))
        elif do == "bind":
            self.add(index, do, _bind(step.get("portal", ""), step.get("name", ""), step.get("values", []),
                                      step.get("results", [])))
        elif do in ("describe", "close"):
            self.add(index, do if do == "close" else f"{do} {step['what']}",
                     message(b"D" if do == "describe" else b"C", step["what"].encode() + _name(step.get("name", ""))))
        elif do == "execute":
            self.add(index, do, _execute(step.get("portal", ""), step.get("limit", 0)))
        elif do == "executions":
            for row in step["rows"] * step.get("times", 1):
                self.add(index, "bind", _bind("", step.get("name", ""), row, step.get("results", [])))
                if step.get("describe"):
                    self.add(index, "describe P", message(b"D", b"P\0"))
                self.add(index, "execute", _execute(""))
        elif do == "flush":
            self.out += message(b"H")
            self.answered = True
        elif do == "sync":
            self.add(index, do, message(b"S"))
        elif do == "call":
            self.add(index, do, message(b"F", struct.pack("!I", step["function"]) + _values(step["values"]) + b"\0\1"))
        else:
            self.say_copy(index, step)

    def say_copy(self, index: int, step: dict) -> None:
        """COPY FROM STDIN with its data, as a Query or as P/B/E; ``blocks`` has the data of each COPY of the text.

        ``extended``: P B E, data, end, Sync. ``libpq``: P B E Sync, data, end, Sync; the server ignores the first
        Sync if it takes data. ``awaited``: data is sent only after CopyInResponse, else in the same send.
        """
        form, awaited = step["form"], step.get("awaited", False)
        self.copying = False
        if form == "query":
            self.add(index, "query", message(b"Q", _name(step["sql"])))
        else:
            self.add(index, "parse", message(b"P", _name("") + _name(step["sql"]) + b"\0\0"))
            self.add(index, "bind", _bind("", "", [], []))
            self.add(index, "execute", _execute(""))
            if form == "libpq":
                self.add(index, "sync", message(b"S"))
                self.owed[-1] = (index, "sync", "ignored by COPY")
            elif awaited:
                self.out += message(b"H")
        for block in step["blocks"]:
            if awaited:
                self.push()
                while self.owed and not self.copying:
                    self.take()
                if not self.copying:
                    break
                self.copying = False
            for data in block:
                self.out += message(b"d", data.encode())
            self.out += message(b"f", _name("taken back")) if step.get("end") == "fail" else message(b"c")
        else:
            if form == "libpq":
                self.add(index, "sync", message(b"S"))
        if form == "extended":
            self.add(index, "sync", message(b"S"))
        self.answered = True

    def may_wait(self) -> bool:
        return self.answered

    def finish(self, index: int) -> None:
        if self.skipping or not self.answered:
            self.say(index, {"do": "sync"})
        self.settle()
        self.say(index, {"do": "query", "sql": "SELECT 'the end'"})

    # --- what is answered

    def take(self) -> None:
        answer = self.one()
        kind = answer[:1]
        if not self.owed:
            raise Broken(f"surprise: {answer[:60]!r} answers nothing")
        index, what = self.owed[0][:2]
        kept = self.answers.get(index, b"")
        if kind == b"E" and kept.endswith(BIND_COMPLETE):
            # a wrong constant is found with Bind by a plan of its own, with Execute by a generic one: the server has
            # planned a statement anew that has been restored
            self.answers[index] = kept.removesuffix(BIND_COMPLETE)
        self.keep(index, self.masked(answer))
        if kind in ASYNCHRONOUS:
            return
        if kind == b"E":
            if what not in SKIPS_NOTHING:
                while self.owed and self.owed[0][1] != "sync":
                    self.owed.popleft()
                self.skipping = not self.owed
            return
        allowed, last = ANSWERS[what]
        if kind not in allowed:
            raise Broken(f"surprise: {answer[:60]!r} for {what} of step {index}")
        if kind == b"G":
            self.copying = True
            if len(self.owed) > 1 and self.owed[1][2:]:
                del self.owed[1]
        if kind in last:
            self.owed.popleft()

    def masked(self, answer: bytes) -> bytes:
        if answer[:1] == b"A":
            return answer[:5] + b"\0\0\0\0" + answer[9:]
        if answer[:1] == b"E":
            answer = re.sub(rb"\0spg_temp_\d+\0", b"\0spg_temp\0", b"E" + answer[5:])
            return re.sub(rb"row contains \(\d+,", b"row contains (#,", answer) if b"\0tlog\0" in answer else answer
        if answer[:1] != b"T":
            return answer
        out = bytearray(answer)
        at = 7
        for _ in range(struct.unpack("!H", answer[5:7])[0]):
            at = answer.index(b"\0", at) + 1
            relation = struct.unpack("!I", answer[at:at + 4])[0]
            if relation >= self.made_from:
                out[at:at + 4] = struct.pack("!I", self.relations.setdefault(relation, len(self.relations) + 1))
            at += 18
        return bytes(out)
