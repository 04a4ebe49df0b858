"""What a conversation is: sessions, each a list of steps, as plain data that is printed and played again as JSON.

A step is ``{"do": kind, …}``; its other keys belong to its kind (``postgres``, ``mariadb``). Two keys say how it is
sent: ``then`` is ``wait`` (default: send and await the answers), ``send`` (send and go on) or ``join`` (leave it for
the next step's send, so that both go in one); ``cuts`` are byte positions at which that send is divided.

Any sublist of a legal session's steps is legal too, which is what makes plans shrink: what must stay together
(COPY and its data) is one step, and what a protocol wants at the end (Sync) is added by whoever talks.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Session:
    """``key`` names the rows that are its own, 1000 key and up; ``options`` is what its login says."""

    key: int
    steps: list[dict]
    options: dict = field(default_factory=dict)


@dataclass
class Plan:
    """``order``: ``threads`` (all at once), ``rounds`` (every session sends once, then every session again, in an order
    drawn by the seed; batches form best so) or ``turns`` (who sends next is drawn)."""

    protocol: str
    seed: int
    batch_size: int
    order: str
    sessions: list[Session]
    why: str = ""               # of a plan that is kept: what it once showed

    def text(self) -> str:
        """JSON with one step on a line."""
        head = {k: v for k, v in asdict(self).items() if k != "sessions"}
        lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}," for k, v in head.items()]
        parts = []
        for session in self.sessions:
            steps = ",\n".join("   " + json.dumps(step, ensure_ascii=False) for step in session.steps)
            parts.append(f' {{"key": {session.key}, "options": {json.dumps(session.options)}, "steps": [\n{steps}]}}')
        return "{\n" + "\n".join(lines) + '\n"sessions": [\n' + ",\n".join(parts) + "]}\n"

    @staticmethod
    def read(path: Path) -> "Plan":
        data = json.loads(path.read_text())
        return Plan(**{**data, "sessions": [Session(**session) for session in data["sessions"]]})
