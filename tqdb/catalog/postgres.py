"""PostgreSQL: facts from pg_class and its companions (manual, chapter "System Catalogs")."""

from tqdb.analysis import Verdict
from tqdb.analysis.postgres import safe_default
from tqdb.catalog import Facts

# Functions and operators that are no built-ins are recorded in pg_depend; compiled ones of extensions
# (language c) are trusted to be what their extension says, SQL and procedural ones may read anything.
_PROBE = """\
SELECT c.relkind, c.relpersistence, c.relrowsecurity, c.relhasrules, a.amname,
 EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
 EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND l.lanname NOT IN ('c', 'internal') AND (
   (d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
    AND d.objid IN (SELECT oid FROM pg_catalog.pg_attrdef WHERE adrelid = c.oid)) OR
   (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
    AND d.objid IN (SELECT oid FROM pg_catalog.pg_constraint WHERE conrelid = c.oid OR contypid IN
     (SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0))) OR
   (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    AND d.objid IN (SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = c.oid)))),
 EXISTS (SELECT FROM pg_catalog.pg_proc WHERE proname = ANY ({functions}::pg_catalog.name[])
  AND pronamespace <> 'pg_catalog'::pg_catalog.regnamespace AND prolang NOT IN
  (SELECT oid FROM pg_catalog.pg_language WHERE lanname IN ('c', 'internal'))),
 EXISTS (SELECT FROM pg_catalog.pg_type WHERE typname = ANY ({types}::pg_catalog.name[]) AND typtype = 'd'),
 EXISTS (SELECT FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE o.oprname = ANY ({operators}::pg_catalog.name[]) AND l.lanname NOT IN ('c', 'internal')
  AND o.oprnamespace <> 'pg_catalog'::pg_catalog.regnamespace),
 (SELECT pg_catalog.string_agg(pg_catalog.pg_get_expr(adbin, adrelid), E'\\n;\\n')
  FROM pg_catalog.pg_attrdef WHERE adrelid = c.oid),
 pg_catalog.current_setting('client_min_messages')
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
WHERE c.oid = pg_catalog.to_regclass({table})"""


def quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def array(names: frozenset[str]) -> str:
    return "array[" + ",".join(quote(n) for n in sorted(names)) + "]"


def probe_sql(verdict: Verdict) -> str:
    name = identifier(verdict.table)
    if verdict.schema is not None:
        name = identifier(verdict.schema) + "." + name
    return _PROBE.format(table=quote(name), functions=array(verdict.functions), types=array(verdict.types),
                         operators=array(verdict.operators))


def judge(verdict: Verdict, row: list[str | None]) -> Facts:
    (kind, persistence, security, rules, method, triggers, depends, shadowed, domains, operators, defaults,
     messages) = row
    refused = (
        (kind != "r", "it is not an ordinary table"),
        (persistence == "t", "it is a temporary table"),
        (security == "t", "it has row security"),
        (rules == "t", "it has rules"),
        (method != "heap", "its access method is not heap"),
        (triggers == "t", "it has triggers"),
        (depends == "t", "a default, constraint or index of it calls a user's function"),
        (shadowed == "t", "a function of the statement has a user's namesake"),
        (domains == "t", "the statement casts to a domain"),
        (operators == "t", "an operator of the statement has a user's namesake"),
        (any(not safe_default(d) for d in (defaults or "").split("\n;\n") if d),
         "a default of it reads more than the row"),
    )
    for bad, why in refused:
        if bad:
            return Facts(False, "table", why=why)
    if messages not in ("notice", "warning", "error", "info"):
        return Facts(False, "session_state", why="client_min_messages asks for debug messages")
    return Facts(True)
