"""The configuration's keys as a commented file (``tqdb config``) and as the tables of docs/configuration.md."""

from tqdb.config import Backend, Limits, Metrics, Protocol, Rule, WriteBatch, options

PORTS = {"postgres": {"own": "5433", "server": "5432", "socket": ".s.PGSQL.5433"},
         "mariadb": {"own": "3307", "server": "3306", "socket": "mariadb.sock"}}
SECTIONS = (("metrics", Metrics), ("writebatch", WriteBatch),
            ("postgres", Protocol), ("postgres.main", Backend), ("mariadb", Protocol), ("mariadb.main", Backend),
            ("rule.events", Rule), ("limits", Limits))
COLUMN = 40     # at which the comments of the file stand


def _example(section: str, option) -> str:
    example = option.metadata["example"].format(**PORTS.get(section.partition(".")[0], {}))
    return example or str(option.default)


def _allowed(option) -> str:
    try:
        option.metadata["parse"]("\0")
    except ValueError as e:
        return str(e).removeprefix("allowed: ")
    return "any text"


def ini() -> str:
    """Every key with its default, or an example where there is none."""
    lines = ["; tqdb: every key with its default, or an example where there is none. Take out the protocol that you do",
             "; not use. Each key can also be given in the environment as TQDB_<SECTION>_<KEY>, dots as underscores."]
    for section, cls in SECTIONS:
        example_only = cls is Rule
        lines += ["", f"{'; ' * example_only}[{section}]"]
        for key, option in options(cls).items():
            example = _example(section, option)
            off = example_only or example.startswith("; ")
            line = f"{'; ' if off else ''}{key} = {example.removeprefix('; ')}"
            # a comment begins behind a space
            lines.append(f"{line:<{COLUMN - 1}} ; {option.metadata['doc']}")
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """A table for each section: key, default, what is allowed, what it does."""
    lines = []
    for section, cls in SECTIONS:
        if section.startswith("mariadb"):
            continue
        name = section.replace("postgres", "PROTOCOL").replace("main", "NAME").replace("events", "NAME")
        lines += [f"### [{name}]", "", "| key | default | allowed | |", "| --- | --- | --- | --- |"]
        for key, option in options(cls).items():
            default = "" if option.default is None else f"`{option.default}`"
            lines.append(f"| `{key}` | {default} | {_allowed(option)} | {option.metadata['doc']} |")
        lines.append("")
    return "\n".join(lines)
