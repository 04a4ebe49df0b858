"""PostgreSQL's plays, over libpq: whole answers, every field of an error, notices."""

import select

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, PGconn

from tests.schemas.plan import Plan, render
from tests.schemas.stage import HANG_SECONDS, SPARE, Answer, Broken, Client, Stage, Unsound

# where in the server's source an error came from is compared as well: it is the same server
FIELDS = {"severity": DiagnosticField.SEVERITY, "code": DiagnosticField.SQLSTATE,
          "message": DiagnosticField.MESSAGE_PRIMARY, "detail": DiagnosticField.MESSAGE_DETAIL,
          "hint": DiagnosticField.MESSAGE_HINT, "position": DiagnosticField.STATEMENT_POSITION,
          "context": DiagnosticField.CONTEXT, "table": DiagnosticField.TABLE_NAME,
          "column": DiagnosticField.COLUMN_NAME, "constraint": DiagnosticField.CONSTRAINT_NAME,
          "routine": DiagnosticField.SOURCE_FUNCTION}
TIMES = "YYYY-MM-DD HH24:MI:SS.US"
LOG = """
CREATE SEQUENCE shared START 50000000;
CREATE SEQUENCE log_k START 70000000;
CREATE TABLE log (k bigint DEFAULT nextval('log_k'), o int, w int, src text, own text, xid text, q text, n bigint,
 every bigint, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE tally (o int PRIMARY KEY, n int NOT NULL);
"""


def diagnosis(result) -> tuple:
    found = ((name, result.error_field(number)) for name, number in FIELDS.items())
    return tuple((name, value.decode()) for name, value in found if value is not None)


class PostgresClient(Client):
    def __init__(self, port: int, name: str):
        self.conn = PGconn.connect(f"host=127.0.0.1 port={port} user=schemas_writer dbname=schemas sslmode=disable "
                                   f"gssencmode=disable options='-c search_path={name}'".encode())
        if self.conn.status != ConnStatus.OK:
            raise Broken(f"login: {self.conn.error_message.decode()}")
        self.notices: list[tuple] = []
        self.conn.notice_handler = lambda result: self.notices.append(diagnosis(result))
        self.statements: dict[str, bytes] = {}

    def send(self, sql, values=(), form="text"):
        text = sql.encode()
        params = [None if v is None else str(v).encode() for v in values]
        if form == "text":
            self.conn.send_query(text)
        elif form == "extended":
            self.conn.send_query_params(text, params)
        elif sql in self.statements:
            self.conn.send_query_prepared(self.statements[sql], params)
        else:
            name = self.statements[sql] = b"s%d" % len(self.statements)
            self.conn.send_prepare(name, text)
            answer = self.receive()
            if answer.error:
                del self.statements[sql]
                # what Parse refuses the statement would have been refused for: it is sent to have an answer to read
                self.conn.send_query_params(text, params)
            else:
                self.conn.send_query_prepared(name, params)

    def receive(self):
        answer = Answer()
        while (result := self.result()) is not None:
            if result.status == ExecStatus.FATAL_ERROR:
                answer.error = diagnosis(result)
                if not answer.error:
                    raise Broken(self.conn.error_message.decode())
                continue
            answer.tag = result.command_status.decode()
            answer.columns = tuple(result.fname(i).decode() for i in range(result.nfields))
            answer.rows = [tuple(None if (v := result.get_value(row, i)) is None else v.decode()
                                 for i in range(result.nfields)) for row in range(result.ntuples)]
        answer.notices, self.notices = self.notices, []
        return answer

    def result(self):
        while self.conn.is_busy():
            if not select.select([self.conn.socket], [], [], HANG_SECONDS)[0]:
                raise Broken(f"no answer for {HANG_SECONDS} s")
            try:
                self.conn.consume_input()
            except psycopg.OperationalError as e:
                raise Broken(str(e)) from None
        return self.conn.get_result()

    def close(self):
        self.conn.finish()


class PostgresStage(Stage):
    own = "SELECT pg_backend_pid(), inet_client_port()"
    deadlocks = ("40P01",)
    cleared = ("55000",)

    def setup(self):
        with psycopg.connect(self.server.dsn(), autocommit=True) as first:
            first.execute("CREATE DATABASE schemas")
            first.execute("CREATE ROLE schemas_writer LOGIN")
            first.execute("CREATE ROLE schemas_other")
            first.execute("GRANT schemas_other TO schemas_writer")
            first.execute("GRANT SET ON PARAMETER session_replication_role TO schemas_writer")
        dsn = self.server.dsn().replace("dbname=postgres", "dbname=schemas")
        admin = psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor, options="-c TimeZone=UTC")
        admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        # seeds may make a temporary table: that they are the first to do so must not show
        admin.execute("CREATE TEMP TABLE first (a int)")
        return admin

    def run(self, sql: str) -> None:
        result = self.admin.pgconn.exec_(sql.encode())
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise Unsound(result.get_error_message())

    def build(self, plan, name):
        spare = plan.tables[0].made or plan.tables[0].name
        self.run("DISCARD ALL")         # what filled an earlier play's seeds must not show in this one's
        sql = [f"CREATE SCHEMA {name}", f"SET LOCAL search_path = {name}", LOG, "SELECT nextval('shared')",
               *plan.before, *(table.create() for table in plan.tables),
               *(render(plan, seed, hint=False)[0] for seed in plan.seeds if plan.table(seed.table)),
               "SET CONSTRAINTS ALL IMMEDIATE", *plan.after,
               f"CREATE SCHEMA {name}{SPARE}",
               f"CREATE TABLE {name}{SPARE}.{spare} (LIKE {spare} INCLUDING ALL EXCLUDING IDENTITY)"]
        for schema in (name, name + SPARE):
            sql += [f"GRANT ALL ON SCHEMA {schema} TO schemas_writer, schemas_other",
                    f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO schemas_writer, schemas_other",
                    f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO schemas_writer, schemas_other"]
        self.run("; ".join(sql))

    def drop(self, name):
        self.run(f"DROP SCHEMA {name}{SPARE} CASCADE; DROP SCHEMA {name} CASCADE")

    def client(self, port, name):
        return PostgresClient(port, name)

    def contents(self, plan: Plan, name):
        spare = plan.tables[0].made or plan.tables[0].name
        out = {}
        for table in (*(t.made or t.name for t in plan.tables), "log", "tally", f"{SPARE}.{spare}"):
            path = name + SPARE + table.removeprefix(SPARE) if table.startswith(SPARE) else f"{name}.{table}"
            result = self.admin.pgconn.exec_(f"SELECT * FROM {path}".encode())
            if result.status != ExecStatus.TUPLES_OK:
                raise Unsound(result.get_error_message())
            columns = tuple(result.fname(i).decode() for i in range(result.nfields))
            out[table] = columns, [tuple(
                None if (v := result.get_value(row, i)) is None else v.decode() for i in range(len(columns)))
                for row in range(result.ntuples)]
        return out

    def now(self):
        return self.admin.execute(f"SELECT to_char(clock_timestamp(), '{TIMES}')").fetchone()[0]

    def close(self):
        self.admin.close()
