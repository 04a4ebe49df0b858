"""A reload: what of a configuration read again takes effect in a running proxy, and what is told of it."""

from dataclasses import dataclass, replace
from logging import INFO, WARNING

from tqdb import rules
from tqdb.config import PROTOCOLS, Config, differences
from tqdb.log import event

# What is made once, when the proxy starts. A protocol's section as a whole cannot come or go either.
NEEDS_RESTART = {**dict.fromkeys(PROTOCOLS, ("listen", "socket")),
                 "metrics": ("listen",), "writebatch": ("max_label_sets",)}


@dataclass(frozen=True)
class Plan:
    """``config`` is in force once the reload is over."""

    config: Config
    kept: tuple[str, ...]           # what the file has otherwise: ``[section] key``, or ``[section]`` of a whole one
    changing: tuple[str, ...]       # protocols whose sections are the file's now, but for what is kept


def plan(old: Config, new: Config) -> Plan:
    """What becomes of ``old``, which is in force, when ``new`` has been read."""
    parts: dict[str, object] = {}
    kept: list[str] = []
    changing: list[str] = []
    for section, keys in NEEDS_RESTART.items():
        before, after = getattr(old, section), getattr(new, section)
        if before is None or after is None:
            parts[section] = before
            if before is not after:
                kept.append(f"[{section}]")
            continue
        stays = {key: getattr(before, key) for key in keys if getattr(before, key) != getattr(after, key)}
        parts[section] = replace(after, **stays)
        kept += [f"[{section}] {key}" for key in stays]
        if section in PROTOCOLS:
            changing.append(section)
    return Plan(replace(new, **parts), tuple(kept), tuple(changing))


def tell(old: Config, planned: Plan) -> None:
    """Logs what is different from ``old`` now, and what is not; last of all that the reload is over."""
    new = planned.config
    for name in planned.changing:
        before, after = getattr(old, name).backend, getattr(new, name).backend
        if before != after:
            event(INFO, "backend_changed", f"reload: {name} backend is now {after.primary}", protocol=name,
                  address=str(after.primary))
    for key, values in differences(old, new).items():
        before, after = (f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        event(INFO, "setting_changed", f"reload: {key}: {before} -> {after}", key=key, before=before, after=after)
    if old.rules != new.rules:
        event(INFO, "rules_changed", f"reload: {rules.changes(old.rules, new.rules)}",
              rules=[rule.name for rule in new.rules])
    if planned.kept:
        event(WARNING, "restart_needed", "reload: these need a restart and stay as they are: "
              + ", ".join(planned.kept), keys=list(planned.kept))
    event(INFO, "reloaded", f"reloaded {new.source}", file=new.source)
