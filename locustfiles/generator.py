"""A Locust user that is many connections: tqdb's compiled generator, with Locust's start, stop, charts and reports.

``tqdb locust -f generator --host postgresql://user@host:port/db`` or ``mysql://…``; ``--processes`` spreads users over
processes. Every write counts once in Locust's statistics, with its latency as the generator measured it.
"""

import time

import gevent
from gevent.threadpool import ThreadPool
from locust import User, constant, events, task
from locust.runners import WorkerRunner
from locust.stats import StatsEntry, StatsError

from tqdb.load import messages
from tqdb.load.targets import Target
from tqdb.load.writers import Writers

REPORT_SECONDS = 0.5
FOR_EVER = 1e9


@events.init_command_line_parser.add_listener
def options(parser):
    parser.add_argument("--connections", type=int, default=64, help="connections of each user")
    parser.add_argument("--pipeline", type=int, default=1, help="outstanding writes on each connection")
    parser.add_argument("--per-second", type=float, default=0, help="writes per second of each user; 0: as many as go")
    parser.add_argument("--hint", default="max_wait_ms:10 file:locust.py line:1", help="the comment before each INSERT")
    parser.add_argument("--form", default="simple", choices=messages.FORMS, help="how the writes are sent")


@events.test_start.add_listener
def make_tables(environment, **_):
    if not isinstance(environment.runner, WorkerRunner):
        Target.from_url(environment.host).ensure()


def rounded(ms: float) -> int:
    """As Locust keeps response times: whole milliseconds, two digits from 100 on."""
    whole = round(ms)
    return whole if whole < 100 else int(round(whole, 2 - len(str(whole))))


def record(stats, name: str, answers: list[tuple[float, int]], errors: int, words: str) -> None:
    """Adds ``answers`` (microseconds, how many) to Locust's statistics in one go; ``errors`` of them failed."""
    now = time.time()
    part = StatsEntry(stats, name, "sql")
    part.start_time = part.last_request_timestamp = now
    for micros, count in answers:
        part.num_requests += count
        part.total_response_time += micros / 1000 * count
        part.response_times[rounded(micros / 1000)] += count
    if answers:
        part.min_response_time = answers[0][0] / 1000
        part.max_response_time = answers[-1][0] / 1000
        part.num_reqs_per_sec[int(now)] += part.num_requests
    if errors:
        part.num_failures = errors
        part.num_fail_per_sec[int(now)] += errors
        key = StatsError.create_key("sql", name, words)
        stats.errors.setdefault(key, StatsError("sql", name, words)).occurrences += errors
    for entry in (stats.entries[name, "sql"], stats.total):
        entry.extend(part)


class GeneratorUser(User):
    host = "postgresql://postgres@127.0.0.1:5433/postgres"
    wait_time = constant(0)

    def on_start(self):
        given = self.environment.parsed_options
        target = Target.from_url(self.environment.host or self.host)
        self.writers = Writers(target, None, given.connections)
        self.generator = self.writers.generator_for(
            messages.insert(target.protocol, given.hint, given.form), given.pipeline, given.per_second)
        self.name = f"insert, {given.form}" + ("" if given.hint else ", not hinted")
        self.errors = 0
        self.pool = ThreadPool(1)
        self.running = self.pool.spawn(self.generator.run, FOR_EVER)

    def report(self):
        answers, errors = self.generator.drain(), self.generator.errors
        failed, self.errors = errors - self.errors, errors
        if answers:
            record(self.environment.stats, self.name, answers, failed, self.generator.first_error)
        if self.generator.dead:
            words = f"{self.generator.dead} of {len(self.writers.fds)} connections broke"
            self.environment.events.request.fire(request_type="sql", name="connections", response_time=0,
                                                 response_length=0, exception=ConnectionError(words), context={})

    @task
    def watch(self):
        gevent.sleep(REPORT_SECONDS)
        self.report()

    def on_stop(self):
        self.generator.stop()
        self.running.wait()
        self.report()
        self.writers.close()
        self.pool.kill()
