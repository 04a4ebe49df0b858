"""The log: one line per event, as text or JSON. Lines that repeat are limited; the last warnings are kept."""

import json
import logging
import sys
import time
from collections import deque

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warning", "error")
REPEATS = 10                # lines of one event …
REPEAT_SECONDS = 10.0       # … in so many seconds; what is beyond is counted
MAX_EVENTS = 1000           # kinds of events that are told apart
KEPT_FRAMES = 8             # of a traceback's beginning, and of its end
KEPT = 50                   # warnings and errors that the dashboard can show

log = logging.getLogger("tqdb")


def event(level: int, name: str, message: str, **fields) -> None:
    """One event: ``name`` and ``fields`` are what JSON shows beside the message. Never SQL, values or passwords."""
    log.log(level, message, extra={"event": name, "fields": fields})


def internal_error(place: str, error: BaseException) -> None:
    """What should not have happened, without the error's own words: they may quote what a client sent."""
    frames = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{step.tb_lineno} {code.co_name}")
        step = step.tb_next
    trace = frames if len(frames) <= 2 * KEPT_FRAMES else [*frames[:KEPT_FRAMES], "…", *frames[-KEPT_FRAMES:]]
    event(logging.ERROR, "internal_error", f"internal error in {place}: {type(error).__name__}; Traceback: "
          + ", ".join(trace), place=place, error=type(error).__name__, trace=trace)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Limit(logging.Filter):
    """Lets ``REPEATS`` lines of an event through in ``REPEAT_SECONDS``; the next one then tells how many were not."""

    def __init__(self, clock=time.monotonic):
        super().__init__()
        self.clock = clock
        self.seen: dict[str, list] = {}         # event -> [begin of its window, lines let through, left out]

    def filter(self, record: logging.LogRecord) -> bool:
        name = getattr(record, "event", None) or str(record.msg)
        now = self.clock()
        window = self.seen.get(name)
        if window is None:
            if len(self.seen) >= MAX_EVENTS:
                self.seen.clear()
            window = self.seen[name] = [now, 0, 0]
        elif now - window[0] >= REPEAT_SECONDS:
            window[0], window[1] = now, 0
        window[1] += 1
        if window[1] > REPEATS:
            window[2] += 1
            return False
        record.left_out, window[2] = window[2], 0
        return True


def _message(record: logging.LogRecord) -> str:
    left_out = getattr(record, "left_out", 0)
    return record.getMessage() + (f" ({left_out} more like this were left out)" if left_out else "")


class Text(logging.Formatter):
    """``time LEVEL message``."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {_message(record)}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return _one_line(line)


class Json(logging.Formatter):
    """An object with ``time`` (UTC), ``level``, ``event``, ``message`` and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": stamp, "level": record.levelname.lower(),
                "event": getattr(record, "event", record.name), "message": record.getMessage(),
                **getattr(record, "fields", {})}
        if getattr(record, "left_out", 0):
            line["left_out"] = record.left_out
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class Recent(logging.Handler):
    """Keeps the last warnings and errors: ``{"time", "level", "event", "message"}``."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.records: deque[dict] = deque(maxlen=KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append({"time": record.created, "level": record.levelname.lower(),
                             "event": getattr(record, "event", record.name), "message": _one_line(_message(record))})


def set_up(form: str = "text", level: str = "info", stream=None) -> None:
    """Makes the log of this process; ``stream`` is standard error by default."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if form == "json" else Text())
    handler.addFilter(Limit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
