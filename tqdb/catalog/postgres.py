"""PostgreSQL: facts from pg_class and its companions (manual, chapter "System Catalogs")."""

from tqdb.analysis import Verdict
from tqdb.analysis.postgres import safe_defaults
from tqdb.catalog import Ask, Facts

# What a function's source may not mention where many statements share a transaction: what is visible to others
# at commit only, what belongs to the connection, and SQL that is put together at run time.
_HAZARD = (r"notify|set_config|\mset\M\s+(local|session)|advisory|txid_|xact_id|\mtemp(orary)?\M|dblink|"
           r"pg_backend_pid|inet_client|lastval|currval|\mexecute\M")

# Functions and operators that are no built-ins are recorded in pg_depend; compiled ones of extensions
# (language c) are trusted to be what their extension says, SQL and procedural ones may read anything.
_PROBE = """\
WITH RECURSIVE named(oid) AS (SELECT unnest({relations}::pg_catalog.regclass[])::pg_catalog.oid),
rels(oid) AS (
 SELECT oid FROM named
 UNION
 SELECT n.oid FROM rels r, LATERAL (
  SELECT i.inhrelid AS oid FROM pg_catalog.pg_inherits i WHERE i.inhparent = r.oid
  UNION ALL
  SELECT d.refobjid FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d ON d.objid = w.oid
   AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
   AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass WHERE w.ev_class = r.oid) n)
SELECT c.relkind, c.relrowsecurity, c.relhasrules, a.amname,
 (SELECT pg_catalog.string_agg(DISTINCT k.relkind::text || k.relpersistence::text, ',')
  FROM rels r JOIN pg_catalog.pg_class k ON k.oid = r.oid),
 (SELECT pg_catalog.count(*) FROM named WHERE oid IS NULL),
 EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
 EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
  WHERE t.tgrelid IN (SELECT oid FROM rels) AND NOT t.tgisinternal AND (t.tgdeferrable OR p.prosrc ~* {hazard})),
 EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class IN (SELECT oid FROM rels)
  AND w.rulename <> '_RETURN' AND pg_catalog.pg_get_ruledef(w.oid) ~* {hazard}),
 (SELECT pg_catalog.max(CASE WHEN p.prosrc ~* {hazard} THEN 2 ELSE 1 END)
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.refobjid
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
 (SELECT pg_catalog.string_agg(pg_catalog.pg_get_expr(d.adbin, d.adrelid), E'\\n;\\n')
  FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute g ON g.attrelid = d.adrelid AND g.attnum = d.adnum
  WHERE d.adrelid = c.oid AND g.attgenerated = ''),
 pg_catalog.current_setting('client_min_messages'),
 pg_catalog.date_part('epoch', pg_catalog.current_setting('statement_timeout')::pg_catalog.interval)
FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
WHERE c.oid = pg_catalog.to_regclass({table})"""


def quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def array(names: frozenset[str]) -> str:
    return "array[" + ",".join(quote(n) for n in sorted(names)) + "]"


def _regclass(schema: str | None, table: str) -> str:
    name = identifier(table)
    return quote(name if schema is None else identifier(schema) + "." + name)


def probe_sql(verdict: Verdict) -> str:
    relations = ((verdict.schema, verdict.table), *verdict.relations)
    return _PROBE.format(
        table=_regclass(verdict.schema, verdict.table),
        relations="array[" + ",".join(f"pg_catalog.to_regclass({_regclass(*r)})" for r in relations) + "]",
        hazard=quote(_HAZARD), functions=array(verdict.functions), types=array(verdict.types),
        operators=array(verdict.operators))


def judge(verdict: Verdict, rows: list[list[str | None]], state: object) -> Facts | Ask:
    (kind, security, rules, method, kinds, missing, triggers, bad_triggers, bad_rules, depends, shadowed, domains,
     operators, defaults, messages, timeout) = rows[0]
    for bad, why in (
            (missing != "0", "it, or another table of the statement, does not exist"),
            (any(k[0] not in "rpvmiS" for k in (kinds or "").split(",")), "not all it touches are ordinary tables"),
            (any(k[1] == "t" for k in (kinds or "").split(",")), "it is a temporary table"),
            (bad_triggers == "t", "a trigger of it is deferred, notifies, or has to do with its connection"),
            (bad_rules == "t", "a rule of it notifies, or has to do with its connection"),
            (depends == "2", "a function that it calls has to do with its connection"),
            (shadowed == "t", "a function of the statement has a user's namesake")):
        if bad:
            return Facts(False, "table", why=why)
    if messages not in ("notice", "warning", "error", "info"):
        return Facts(False, "session_state", why="client_min_messages asks for debug messages")
    alone = (
        not verdict.multi_row, kind != "r", security == "t", rules == "t", method != "heap", triggers == "t",
        depends is not None, domains == "t", operators == "t",
        not safe_defaults([d for d in (defaults or "").split("\n;\n") if d]),
    )
    return Facts(True, multi_row=not any(alone), wait_limit=float(timeout or 0) / 2)
