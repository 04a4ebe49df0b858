"""The core without sockets: the cold side for sessions whose servers are there at once."""

from functools import cached_property

from tqdb._core import Engine, MyServer, PgServer, PgSession

from tests.wire import MY_VERSION
from tqdb import policy
from tqdb.catalog import sessions
from tqdb.rules import Rules

# tests make the statements of many connections' lives in a moment: what parsers may cost is not theirs to bound
policy._parsers.burst = policy._parsers.left = 3600.0


class Hooks:
    """What ``Engine`` asks of the cold side; connecting is at once. ``server``: the connection made last.

    ``options`` are the engine's.
    """

    analyze = staticmethod(policy.analyze)
    analyze_statement = staticmethod(policy.analyze_statement)
    pieces = staticmethod(policy.pieces)
    session_wait = staticmethod(policy.session_wait)
    startup_wait = staticmethod(policy.startup_wait)
    killed_query = staticmethod(policy.killed_query)
    row_count_sql = staticmethod(policy.row_count_sql)
    probe_sql = staticmethod(policy.probe_sql)
    judge = staticmethod(policy.judge)
    explain = staticmethod(policy.explain)

    def __init__(self, **options):
        self.engine = Engine(self, **options)
        self.server = None

    @cached_property
    def questions(self):
        questions = sessions.Questions()
        questions.variables[MY_VERSION] = ("sql_mode",)
        return questions

    def put_rules(self, config):
        self.rules = Rules(config)
        self.candidates, self.first_rule = self.rules.candidates, self.rules.first
        self.engine.set_rules(self.rules.for_core(), self.rules.observed)

    def session_sql(self, *args):
        return self.questions.first(*args)

    def judge_session(self, *args):
        return self.questions.judge(*args)

    def connect(self, session):
        self.server = (PgServer if isinstance(session, PgSession) else MyServer)(self.engine)
        session.attach(self.server)

    def cancel(self, session, packet, key):
        session.abort()

    def status_sql(self, dialect, sql, session):
        return None

    def status_variables(self, sql, session):
        return None

    def session_closed(self, session):
        pass

    def server_closed(self, server):
        pass

    def refused(self, session, kind, message):
        pass

    def server_says(self, session, what):
        pass

    def slow_batch(self, leader, writes, seconds):
        pass
