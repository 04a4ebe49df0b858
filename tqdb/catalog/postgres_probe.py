"""PostgreSQL: the catalogue's question, one query and one row, for any set of names and OIDs.

The answer is one JSON object about everything that is directly attached to what was asked about: relations with those
that they inherit to, are rewritten to or cascade to; the stored expressions of defaults, constraints, indexes,
policies, rules and triggers, as the node tags and OIDs in their trees (so that nothing in them has to be looked up by
name); the functions, operators and types that these and the given names come to. What those call is asked about next.

Sources: manual, chapter "System Catalogs"; ``src/backend/nodes/outfuncs.c`` for the trees. Columns that came after
version 10 are read through ``to_jsonb``, which has no column to miss. Sets are handed on as arrays: what the planner
expects of them stays small, so that it neither scans whole catalogues nor compiles the query.

It runs with the rights of whoever writes, and others may have made operators in the schemas of its search_path: each
operator here has operands of the very types of one of pg_catalog's, for which then no other can stand in.
"""

FIRST_USER_OID = 16384          # FirstNormalObjectId: below it lies what initdb has made
_INITDB_XIDS = 1000             # transactions that initdb runs: a row of a later one has been changed since
_VIRTUAL = 180000               # the version from which columns may be generated when they are read
_MAX_SOURCE = 16000             # characters of a function's source that are looked at

# What is taken from a stored tree. A constant current_setting() brings its name's bytes along; the longest match wins.
_ITEMS = (r"[{][A-Z0-9_]+|:(?:funcid|aggfnoid|winfnoid|relid) [0-9]+|:varattno -[0-9]+|\m[0-9]{5,}\M|"
          r":funcid (?:2077|3294) [^{}]*[{]CONST :consttype 25 [^{}]*\]")

_RELATIONS = """\
wanted(i, a, p, n) AS (VALUES {relations}),
found AS (SELECT w.i, w.a, (SELECT c.oid FROM pg_catalog.pg_class c
   JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE c.relname = w.n
    AND s.nspname = ANY (coalesce(w.p, pg_catalog.current_schemas(true)))
   ORDER BY pg_catalog.array_position(coalesce(w.p, pg_catalog.current_schemas(true)), s.nspname) LIMIT 1) AS oid
 FROM wanted w),
reached(oid, a) AS (
 SELECT oid, a FROM found WHERE oid IS NOT NULL
 UNION SELECT o::pg_catalog.oid, a FROM (VALUES {relation_oids}) v(o, a) WHERE o <> 0
 UNION
 SELECT n.oid, n.a FROM reached r, LATERAL (
  SELECT i.inhrelid AS oid, r.a FROM pg_catalog.pg_inherits i WHERE i.inhparent = r.oid
  UNION ALL
  SELECT k.conrelid, 2 FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint
   WHERE r.a = 2 AND t.tgrelid = r.oid AND k.contype = 'f' AND k.confrelid = r.oid
    AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))
  UNION ALL
  SELECT d.refobjid, CASE WHEN w.rulename = '_RETURN' THEN r.a ELSE 2 END FROM pg_catalog.pg_rewrite w
   JOIN pg_catalog.pg_depend d ON d.objid = w.oid
    AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass::pg_catalog.oid
    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid
   WHERE w.ev_class = r.oid) n),
ids(v, w, u) AS (SELECT ARRAY(SELECT DISTINCT oid FROM reached),
  ARRAY(SELECT DISTINCT oid FROM reached WHERE a > 0), ARRAY(SELECT DISTINCT oid FROM reached WHERE a = 2)),
rels AS (SELECT c.oid, c.relname, c.relkind, c.relpersistence, c.relrowsecurity, c.relhasrules,
  c.relispartition, (SELECT m.amname FROM pg_catalog.pg_am m WHERE m.oid = c.relam) AS amname
 FROM pg_catalog.pg_class c WHERE c.oid = ANY ((SELECT v FROM ids)::pg_catalog.oid[])),
above(oid) AS (SELECT oid FROM rels WHERE relispartition
 UNION SELECT i.inhparent FROM above b JOIN pg_catalog.pg_inherits i ON i.inhrelid = b.oid),
triggers AS (SELECT t.oid, t.tgname, t.tgfoid, t.tgdeferrable, t.tgqual, t.tgconstraint,
  t.tgisinternal, t.tgoldtable, t.tgnewtable FROM pg_catalog.pg_trigger t
 WHERE t.tgrelid = ANY ((SELECT w FROM ids)::pg_catalog.oid[]) AND (t.tgenabled <> 'D' OR t.tgisinternal)),
constraints AS (SELECT k.conname, k.contype, k.condeferrable, k.condeferred,
  k.conrelid = k.confrelid AS self, k.conbin, k.conexclop
  FROM pg_catalog.pg_constraint k WHERE k.conrelid = ANY ((SELECT w FROM ids)::pg_catalog.oid[])
 UNION ALL
 SELECT k.conname, k.contype, k.condeferrable, k.condeferred, false, NULL, NULL FROM pg_catalog.pg_constraint k
  WHERE k.oid = ANY (ARRAY(SELECT tgconstraint FROM triggers WHERE tgisinternal)) AND k.contype = 'f'
   AND k.condeferred AND k.confrelid = ANY ((SELECT u FROM ids)::pg_catalog.oid[])),
indexes AS (SELECT x.indexrelid, x.indexprs, x.indpred, x.indclass FROM pg_catalog.pg_index x
 WHERE x.indrelid = ANY ((SELECT w FROM ids)::pg_catalog.oid[])),
"""

_RELATION_TREES = """\
 SELECT pg_catalog.concat('the default of column ', g.attname), d.adbin::text FROM pg_catalog.pg_attrdef d
  JOIN pg_catalog.pg_attribute g ON g.attrelid = d.adrelid AND g.attnum = d.adnum
  WHERE d.adrelid = ANY (CASE WHEN pg_catalog.current_setting('server_version_num')::int < {virtual}
   THEN (SELECT w FROM ids) ELSE (SELECT v FROM ids) END)
 UNION ALL SELECT pg_catalog.concat('the constraint ', conname), conbin::text FROM constraints WHERE conbin IS NOT NULL
 UNION ALL SELECT pg_catalog.concat('the index ', indexrelid::pg_catalog.regclass),
  pg_catalog.concat(indexprs::text, ' ', indpred::text)
  FROM indexes WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
 UNION ALL SELECT pg_catalog.concat('the trigger ', tgname), tgqual::text FROM triggers WHERE tgqual IS NOT NULL
 UNION ALL SELECT pg_catalog.concat('the policy ', q.polname),
  pg_catalog.concat(q.polqual::text, ' ', q.polwithcheck::text)
  FROM pg_catalog.pg_policy q WHERE q.polrelid = ANY (ARRAY(SELECT oid FROM rels WHERE relrowsecurity))
 UNION ALL SELECT CASE WHEN w.rulename = '_RETURN' THEN pg_catalog.concat('the view ',
   w.ev_class::pg_catalog.regclass) ELSE pg_catalog.concat('the rule ', w.rulename) END,
  pg_catalog.concat(w.ev_action::text, ' ', w.ev_qual::text)
  FROM pg_catalog.pg_rewrite w WHERE w.ev_class = ANY (ARRAY(SELECT oid FROM rels WHERE relhasrules AND relkind <> 'm'))
 UNION ALL SELECT pg_catalog.concat('the partition key of ', k.partrelid::pg_catalog.regclass), k.partexprs::text
  FROM pg_catalog.pg_partitioned_table k WHERE k.partexprs IS NOT NULL AND k.partrelid = ANY (ARRAY(
   SELECT oid FROM rels WHERE relkind = 'p' UNION ALL SELECT oid FROM above))"""

_FUNCTION_TREES = """\
 SELECT pg_catalog.concat('the function ', p.proname), pg_catalog.concat(p.proargdefaults::text, ' ',
   pg_catalog.to_jsonb(p) ->> 'prosqlbody'::text) FROM pg_catalog.pg_proc p
  WHERE p.oid = ANY ({function_trees}::pg_catalog.oid[])"""

# a domain's checks and default
_TYPE_TREES = """\
 SELECT pg_catalog.concat('the type ', t.typname), pg_catalog.concat(t.typdefaultbin::text, ' ', (SELECT
   pg_catalog.string_agg(k.conbin::text, ' ') FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid))
  FROM pg_catalog.pg_type t WHERE t.oid = ANY (ARRAY(SELECT oid FROM types)) AND t.typtype = 'd'"""

_TREES = """\
trees(what, tree) AS ({trees}),
items AS (SELECT DISTINCT t.what, x[1] AS item FROM (SELECT DISTINCT * FROM trees) t,
 LATERAL pg_catalog.regexp_matches(t.tree, {items}, 'g') AS x),
numbers(v) AS (SELECT ARRAY(SELECT DISTINCT n::pg_catalog.oid FROM (
  SELECT pg_catalog.substring(item, '^(?::relid )?([0-9]{{5,10}})$')::pg_catalog.int8 AS n FROM items) x
 WHERE n BETWEEN {first} AND 4294967295)),
"""

_TYPES = """\
types(oid) AS (SELECT pg_catalog.unnest({type_oids}::pg_catalog.oid[])
 UNION
 SELECT n.oid FROM types t JOIN pg_catalog.pg_type y ON y.oid = t.oid, LATERAL (
  SELECT y.typelem AS oid UNION ALL SELECT y.typbasetype
  UNION ALL SELECT g.atttypid FROM pg_catalog.pg_attribute g
   WHERE y.typtype = 'c' AND g.attrelid = y.typrelid AND g.attnum > 0
  UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = y.oid
  UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r
   WHERE (pg_catalog.to_jsonb(r) ->> 'rngmultitypid'::text)::pg_catalog.oid = y.oid) n WHERE n.oid >= {first}),
all_types(v) AS (SELECT ARRAY(SELECT oid FROM types)),
families(v) AS (SELECT ARRAY(SELECT o.opcfamily FROM pg_catalog.pg_opclass o WHERE o.oid >= {first}
 AND (o.opcintype = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]) OR o.oid = ANY (ARRAY(SELECT r.rngsubopc
  FROM pg_catalog.pg_range r WHERE r.rngtypid = ANY ((SELECT v FROM all_types)::pg_catalog.oid[])))))),
"""

# functions that may be called because of types of which users have made some
_TYPE_FUNCTIONS = """
 UNION SELECT o.oprcode FROM pg_catalog.pg_operator o WHERE o.oid >= {first}
  AND o.oprname = ANY ({operators}::pg_catalog.name[])
  AND (o.oprleft < {first} OR o.oprleft = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]))
  AND (o.oprright < {first} OR o.oprright = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]))
 UNION SELECT o.oprcode FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr
  WHERE a.amopfamily = ANY ((SELECT v FROM families)::pg_catalog.oid[])
 UNION SELECT a.amproc FROM pg_catalog.pg_amproc a
  WHERE a.amprocfamily = ANY ((SELECT v FROM families)::pg_catalog.oid[])
 UNION SELECT k.castfunc FROM pg_catalog.pg_cast k WHERE k.oid >= {first}
  AND (k.castsource < {first} OR k.castsource = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]))
  AND (k.casttarget < {first} OR k.casttarget = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]))
 UNION SELECT x FROM pg_catalog.pg_type y, LATERAL pg_catalog.unnest(ARRAY[
   y.typinput, y.typoutput, y.typreceive, y.typsend, y.typmodin, y.typmodout,
   (pg_catalog.to_jsonb(y) ->> 'typsubscript'::text)::pg_catalog.regproc]::pg_catalog.oid[]) x
  WHERE y.oid = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]) AND x >= {first}
 UNION SELECT x FROM pg_catalog.pg_range r, LATERAL pg_catalog.unnest(ARRAY[
   r.rngcanonical, r.rngsubdiff]::pg_catalog.oid[]) x
  WHERE r.rngtypid = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]) AND x >= {first}"""

_NO_TYPE_FUNCTIONS = """
 UNION SELECT o.oprcode FROM pg_catalog.pg_operator o WHERE o.oid >= {first} AND o.oprleft < {first}
  AND o.oprright < {first} AND o.oprname = ANY ({operators}::pg_catalog.name[])
 UNION SELECT k.castfunc FROM pg_catalog.pg_cast k
  WHERE k.oid >= {first} AND k.castsource < {first} AND k.casttarget < {first}"""

_RELATION_FUNCTIONS = """
 UNION SELECT tgfoid FROM triggers WHERE NOT tgisinternal"""

# those of operator classes that users have made, and of operators of exclusion constraints
_CLASS_FUNCTIONS = """
 UNION SELECT a.amproc FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_amproc a ON a.amprocfamily = o.opcfamily
  WHERE o.oid = ANY ({classes}::pg_catalog.oid[])
 UNION SELECT p.oprcode FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_amop a ON a.amopfamily = o.opcfamily
  JOIN pg_catalog.pg_operator p ON p.oid = a.amopopr WHERE o.oid = ANY ({classes}::pg_catalog.oid[])
 UNION SELECT o.oprcode FROM pg_catalog.pg_operator o WHERE o.oid = ANY ({classes}::pg_catalog.oid[])"""

_NAMED = """\
called(i, f, p, n) AS (VALUES {functions}),
named AS (SELECT v.i, f.oid FROM called v JOIN pg_catalog.pg_proc f ON f.proname = v.n
 WHERE (SELECT m.nspname FROM pg_catalog.pg_namespace m WHERE m.oid = f.pronamespace)
   = ANY (coalesce(v.p, pg_catalog.current_schemas(true)))
  AND (v.f = 0 OR (f.oid >= {first} AND f.pronargs > 0 AND f.pronargs - f.pronargdefaults < 2
   AND EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = f.proargtypes[0] AND t.typtype IN ('c', 'p', 'd'))))),
"""

_NAMED_ANSWERS = """,
 'calls', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(i, oid::pg_catalog.int8)) FROM named)"""

_FUNCTIONS = """\
functions(v) AS (SELECT ARRAY(
 SELECT pg_catalog.substring(item, '^:[a-z]+ ([0-9]+)')::pg_catalog.oid FROM items WHERE item ~ '^:(func|aggfn|winfn)'
 UNION SELECT pg_catalog.unnest(v) FROM numbers
 UNION SELECT o.oprcode FROM pg_catalog.pg_operator o
  WHERE o.oid = ANY ((SELECT v FROM numbers)::pg_catalog.oid[]){more}))
SELECT pg_catalog.json_build_object(
 'version', pg_catalog.current_setting('server_version_num')::int,
 'messages', pg_catalog.current_setting('client_min_messages'),
 'timeout', pg_catalog.date_part('epoch', pg_catalog.current_setting('statement_timeout')::pg_catalog.interval),
 'trees', (SELECT pg_catalog.json_agg(x) FROM (SELECT what, pg_catalog.array_agg(item) AS items FROM items
   GROUP BY what) x),
 'reached', (SELECT pg_catalog.json_agg(c.oid::pg_catalog.int8) FROM pg_catalog.pg_class c
   WHERE c.oid = ANY ((SELECT v FROM numbers)::pg_catalog.oid[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')),
 'types', (SELECT pg_catalog.json_agg(y.oid::pg_catalog.int8) FROM pg_catalog.pg_type y
   WHERE y.oid = ANY ((SELECT v FROM numbers)::pg_catalog.oid[])),
 'named_types', (SELECT pg_catalog.json_agg(t.oid::pg_catalog.int8) FROM pg_catalog.pg_type t
   WHERE t.oid >= {first} AND t.typname = ANY ({types}::pg_catalog.name[])),
 'functions', (SELECT pg_catalog.json_agg(CASE WHEN p.oid < {first} AND s.nspname = 'pg_catalog'
   AND (l.lanname = 'internal' OR (l.lanname = 'sql' AND p.xmin::text::pg_catalog.int8 < {initdb}))
   THEN pg_catalog.json_build_array(p.oid::pg_catalog.int8, p.proname, pg_catalog.oidvectortypes(p.proargtypes),
    p.provolatile, p.proretset)
   ELSE pg_catalog.json_build_array(p.oid::pg_catalog.int8, pg_catalog.concat(s.nspname, '.', p.proname),
    l.lanname, p.provolatile, p.proretset, p.prosrc, p.probin, p.proconfig,
    CASE WHEN p.prosecdef THEN pg_catalog.pg_get_userbyid(p.proowner) END,
    (SELECT pg_catalog.json_agg(DISTINCT o::pg_catalog.int8) FROM pg_catalog.unnest(pg_catalog.array_append(
      coalesce(p.proallargtypes, p.proargtypes::pg_catalog.oid[]), p.prorettype)) o WHERE o >= {first}),
    p.proargdefaults IS NOT NULL OR pg_catalog.to_jsonb(p) ->> 'prosqlbody'::text IS NOT NULL,
    pg_catalog.to_jsonb(p) ->> 'prosqlbody'::text IS NOT NULL,
    CASE WHEN l.lanname = 'plpgsql' AND pg_catalog.length(p.prosrc) < {source}
     THEN pg_catalog.pg_get_functiondef(p.oid) END
   ) END) FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace s ON s.oid = p.pronamespace
   JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  WHERE p.oid = ANY ((SELECT v FROM functions)::pg_catalog.oid[])){answers})"""

_RELATION_ANSWERS = """,
 'schema', (SELECT s.nspname FROM found f JOIN pg_catalog.pg_class c ON c.oid = f.oid
   JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace WHERE f.i = 0),
 'missing', (SELECT pg_catalog.json_agg(i) FROM found WHERE oid IS NULL),
 'relations', (SELECT pg_catalog.json_agg(x) FROM (SELECT relkind AS kind, relpersistence AS persistence,
   relrowsecurity AS security, relhasrules AS rules, relispartition AS partition, amname AS method,
   oid < {first} AS system, oid = (SELECT oid FROM found WHERE i = 0) AS named, pg_catalog.min(relname) AS name
   FROM rels GROUP BY 1, 2, 3, 4, 5, 6, 7, 8) x),
 'found', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(oid::pg_catalog.int8, a)) FROM found
   WHERE oid IS NOT NULL),
 'columns', (SELECT pg_catalog.json_agg(DISTINCT g.atttypid::pg_catalog.int8) FROM pg_catalog.pg_attribute g
   WHERE g.attrelid = ANY (ARRAY(SELECT oid FROM rels WHERE relkind <> 'S')) AND g.attnum > 0
    AND g.atttypid >= {first}),
 'triggers', (SELECT pg_catalog.json_agg(x) FROM (SELECT DISTINCT tgname AS name, tgdeferrable AS deferrable,
   tgoldtable AS old, tgnewtable AS new FROM triggers WHERE NOT tgisinternal) x),
 'constraints', (SELECT pg_catalog.json_agg(x) FROM (SELECT DISTINCT conname AS name, contype AS kind,
   condeferred AS deferred, self FROM constraints WHERE condeferrable OR self) x),
 'classes', (SELECT pg_catalog.json_agg(DISTINCT o::pg_catalog.int8) FROM (
   SELECT pg_catalog.unnest(indclass::pg_catalog.oid[]) AS o FROM indexes
   UNION ALL SELECT pg_catalog.unnest(conexclop) FROM constraints
   UNION ALL SELECT pg_catalog.unnest(k.partclass::pg_catalog.oid[]) FROM pg_catalog.pg_partitioned_table k
    WHERE k.partrelid = ANY (ARRAY(SELECT oid FROM rels WHERE relkind = 'p' UNION ALL SELECT oid FROM above))) x
   WHERE o >= {first}),
 'methods', (SELECT pg_catalog.json_agg(DISTINCT m.amname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_am m
   ON m.oid = c.relam WHERE c.oid = ANY (ARRAY(SELECT indexrelid FROM indexes)))"""

_TYPE_ANSWERS = """,
 'kinds', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(y.oid::pg_catalog.int8, y.typtype, y.typname))
   FROM pg_catalog.pg_type y WHERE y.oid = ANY ((SELECT v FROM all_types)::pg_catalog.oid[]))"""

_NO_TREES = " SELECT NULL::text, NULL::text WHERE false"


def quote(text: str) -> str:
    """A literal that is the same text whatever ``standard_conforming_strings`` is."""
    quoted = text.replace("'", "''")
    return "E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in text else f"'{quoted}'"


def _names(names) -> str:
    return "ARRAY[" + ",".join(map(quote, names)) + "]"


def _path(path) -> str:
    return "NULL::pg_catalog.name[]" if path is None else _names(path) + "::pg_catalog.name[]"


def _oids(oids) -> str:
    return "ARRAY[" + ",".join(str(int(o)) for o in oids) + "]"


def probe(relations=(), relation_oids=(), functions=(), function_trees=(), types=(), type_oids=(),
          operators=(), classes=()) -> str:
    """The query.

    ``relations``: ``(path, name, access)``, the number of each is its place; ``path``: schemas to look in, None for the
    session's own; ``access``: 0 read, 1 only inserted into, 2 written in any way; ``relation_oids``: ``(oid, access)``.
    ``functions``: ``(path, name, field)``; ``field``: only those that may be meant by ``row.name``. ``function_trees``:
    OIDs of those whose stored expressions are wanted. ``types``, ``operators``: names in any schema; operators are
    looked for among all types whenever ``type_oids``, all of users' types met so far, is given. ``classes``: OIDs of
    operator classes, or of operators.
    """
    parts, trees, more, answers = [], [], "", ""
    if relations or relation_oids:
        parts.append(_RELATIONS)
        trees.append(_RELATION_TREES)
        more += _RELATION_FUNCTIONS
        answers += _RELATION_ANSWERS
    if type_oids:
        parts.append(_TYPES)
        trees.append(_TYPE_TREES)
        answers += _TYPE_ANSWERS
    if functions:
        more += "\n UNION SELECT oid FROM named"
        answers += _NAMED_ANSWERS
    if classes:
        more += _CLASS_FUNCTIONS
    more += _TYPE_FUNCTIONS if type_oids else _NO_TYPE_FUNCTIONS
    if function_trees:
        trees.append(_FUNCTION_TREES)
    values = {
        "first": quote(str(FIRST_USER_OID)), "initdb": _INITDB_XIDS, "items": quote(_ITEMS), "source": _MAX_SOURCE,
        "virtual": _VIRTUAL,
        "relations": ",".join(f"({i},{a},{_path(p)},{quote(n)}::pg_catalog.name)"
                              for i, (p, n, a) in enumerate(relations)) or "(-1,0,ARRAY[]::pg_catalog.name[],'')",
        "relation_oids": ",".join(f"({int(o)}::pg_catalog.int8,{a})" for o, a in relation_oids) or "(0,0)",
        "functions": ",".join(f"({i},{int(f)},{_path(p)},{quote(n)}::pg_catalog.name)"
                              for i, (p, n, f) in enumerate(functions)),
        "classes": _oids(classes),
        "function_trees": _oids(function_trees), "types": _names(types), "type_oids": _oids(type_oids),
        "operators": _names(operators),
    }
    values["trees"] = "\n UNION ALL".join(trees or [_NO_TREES]).format(**values)
    values["more"] = more.format(**values)
    values["answers"] = answers.format(**values)
    return "WITH RECURSIVE " + "".join((*parts, _TREES, *[_NAMED] * bool(functions), _FUNCTIONS)).format(**values)
