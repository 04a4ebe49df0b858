"""What a person sees of a running proxy: the dashboard in a browser, ``tqdb top``, the log."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from tests.crowd import together
from tests.raw import RawPostgres
from tests.test_metrics import load, trouble
from tqdb.load.servers import Postgres, Proxy, free_port
from tqdb.log import REPEATS, Limit, Recent, set_up

FIGURES = """() => ({
    shown: document.documentElement.dataset.shown,
    figures: Object.fromEntries([...document.querySelectorAll("[data-figure]")].map(
        e => [e.dataset.figure, e.textContent])),
    tables: Object.fromEntries([...document.querySelectorAll("table")].map(
        t => [t.id, [...t.rows].map(r => [...r.cells].map(c => c.textContent))])),
    texts: Object.fromEntries(["state", "about", "listen"].map(k => [k, document.getElementById(k).textContent])),
    empty: !document.getElementById("empty").hidden,
    lines: document.querySelectorAll("#rate path").length,
})"""


def wait_for(condition, timeout: float = 30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


class Dashboard:
    """The page in a browser, and the ``/stats.json`` that each of its states shows."""

    def __init__(self, page, proxy):
        self.page = page
        self.answers: dict[str, dict] = {}
        page.on("response", self._keep)
        page.goto(f"http://127.0.0.1:{proxy.metrics_port}/")

    def _keep(self, response) -> None:
        if response.url.endswith("/stats.json"):
            body = response.json()
            self.answers[str(body["uptime_seconds"])] = body

    def state(self, enough=lambda answer: True) -> tuple[dict, dict]:
        """What stands on the page, and the answer it shows, once ``enough`` holds for that."""
        for _ in range(300):
            self.page.wait_for_timeout(100)
            shown = self.page.evaluate(FIGURES)
            answer = self.answers.get(shown["shown"])
            if answer is not None and enough(answer):
                return shown, answer
        raise AssertionError("the page never showed it")


def number(text: str) -> float | None:
    found = re.search(r"-?[\d,]+(\.\d+)?", text)
    return float(found[0].replace(",", "")) if found else None


def test_the_dashboard_shows_what_stats_json_says(page, proxy, postgres, mariadb, table):
    with load({"postgres": postgres, "mariadb": mariadb}, proxy):
        trouble(proxy, postgres, table)
        dashboard = Dashboard(page, proxy)
        shown, s = dashboard.state(lambda s: s["writes_per_second"] > 100 and s["latency_ms"]["batched"]["p99"])
        figures = {k: number(v) for k, v in shown["figures"].items()}
        assert figures["writes_per_second"] == round(s["writes_per_second"])
        assert figures["operations_per_second"] == round(s["operations_per_second"])
        assert figures["aggregation_factor"] == pytest.approx(s["aggregation_factor"], abs=0.06)
        assert figures["effectiveness_percent"] == pytest.approx(s["effectiveness_percent"], abs=0.06)
        assert figures["writes_total"] == s["writes_total"]
        assert figures["batched_p99"] == pytest.approx(s["latency_ms"]["batched"]["p99"], abs=0.6)
        assert shown["lines"] == 3 and not shown["empty"]
        assert shown["texts"]["state"] == "ready"

        tables = shown["tables"]

        def counts(name: str, words: int = 0, value: int = -1) -> list[tuple[str, float]]:
            return [(row[words], number(row[value])) for row in tables[name][1:]]

        for name, key in (("alone", "individual"), ("flush", "flush")):
            wanted = {k: n for k, n in s[key].items() if n}
            found = counts(name)
            assert len(found) == len(wanted)
            assert all(any(text.startswith(k) and n == value for text, value in found) for k, n in wanted.items())
        assert [n for _, n in counts("sizes")] == [b["batches"] for b in s["batch_sizes"]]
        for row, kind in zip(tables["latency"][1:], ("batched", "alone", "rest"), strict=True):
            for cell, p in zip(row[1:], ("p50", "p95", "p99"), strict=True):
                wanted = s["latency_ms"][kind][p]
                assert number(cell) == (wanted if wanted is None else pytest.approx(wanted, rel=0.01, abs=0.5))
        places = [":".join(filter(None, (x["file"], x["line"]))) or "(no hint)" for x in s["sources"]]
        assert [row[0] for row in tables["sources"][1:]] == places
        assert [number(row[1]) for row in tables["sources"][1:]] == [x["writes"] for x in s["sources"]]
        assert [number(row[2]) for row in tables["sources"][1:]] == [
            pytest.approx(100 * x["batched"] / x["writes"], abs=0.06) for x in s["sources"]]
        connections = {f"{side}, {c['protocol']}, {c['state']}": c["count"]
                       for side in ("client", "server") for c in s[f"{side}_connections"] if c["count"]}
        assert dict(counts("connections")) == connections
        assert [row[1] for row in tables["backends"][1:]] == ["up, primary", "up"]
        assert any(text.startswith("batches taken apart") for text, _ in counts("trouble"))
        longest, most = (row[1] for row in tables["loop"])
        assert number(longest) == pytest.approx(s["loop_turn_ms"]["longest"], rel=0.01, abs=0.5)
        assert number(most) == pytest.approx(s["loop_turn_ms"]["p99"], rel=0.01, abs=0.01)


def test_the_dashboard_before_the_first_write_and_without_a_backend(page, start_proxy):
    class Nowhere:
        address = f"127.0.0.1:{free_port()}"

    proxy = start_proxy(postgres=Nowhere())
    shown, s = Dashboard(page, proxy).state(lambda s: s["events"])
    assert shown["empty"] and page.get_by_text("No write has come through yet").is_visible()
    assert shown["texts"]["state"].startswith("not ready: postgres backend")
    assert shown["texts"]["listen"] == f"postgres 127.0.0.1:{proxy.postgres_port}"
    assert shown["tables"]["backends"][1][1].startswith("down")
    assert s["events"][0]["message"] in shown["tables"]["events"][0][1]
    proxy.process.kill()
    page.get_by_text("The proxy does not answer").wait_for(timeout=30_000)


@pytest.mark.parametrize(("name", "width", "scheme"), [("light", 1200, "light"), ("dark", 1200, "dark"),
                                                       ("phone", 390, "light")])
def test_the_dashboard_fits(browser, start_proxy, postgres, mariadb, table, name, width, scheme):
    """Nothing is wider than the window, whatever it is; ``TQDB_SCREENSHOTS`` names a folder for pictures."""
    folder = os.environ.get("TQDB_SCREENSHOTS")
    proxy = start_proxy(postgres=postgres, mariadb=mariadb)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    with load({"postgres": postgres, "mariadb": mariadb}, proxy, 64, 4000.0):
        trouble(proxy, postgres, table)
        dashboard = Dashboard(context.new_page(), proxy)
        dashboard.state(lambda s: s["writes_total"] > (200_000 if folder else 1000))
        wide = dashboard.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width
        background = dashboard.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background))) < 200) == (scheme == "dark")
        if folder:
            dashboard.page.screenshot(path=os.path.join(folder, f"dashboard-{name}.png"), full_page=True)
    context.close()


def test_top(command, proxy, postgres, tmp_path):
    with load({"postgres": postgres}, proxy):
        wait_for(lambda: proxy.stats()["writes_per_second"] > 100)
        address = f"127.0.0.1:{proxy.metrics_port}"
        done = subprocess.run([*command, "top", "--once", address], capture_output=True, text=True, timeout=60,
                              env={**os.environ, "COLUMNS": "160"})
        assert done.returncode == 0, done.stderr
        for words in ("ready", "writes per operation", "app.py:1", "deadline", "p99", "longest turn", postgres.address):
            assert words in done.stdout, done.stdout
        total = re.search(r"writes +[\d,]+ +([\d,]+)", done.stdout)
        assert 0 < number(total[1]) <= proxy.stats()["writes_total"]
        # the address from the configuration, as whoever runs it on that machine would
        done = subprocess.run([*command, "top", "--once", "-c", proxy.path], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "ready" in done.stdout
        # live, until it is told to end
        live = subprocess.Popen([*command, "top", address], stdout=subprocess.PIPE, text=True)
        for line in live.stdout:
            if "writes per operation" in line:
                break
        live.send_signal(signal.SIGINT)
        live.communicate(timeout=30)
        assert live.returncode == 0
    done = subprocess.run([*command, "top", "--once", f"127.0.0.1:{free_port()}"], capture_output=True, text=True)
    assert done.returncode == 1 and "no tqdb answers" in done.stderr


# --- the log --------------------------------------------------------------------------------------------------

def events(proxy, name: str) -> list[dict]:
    """The log's lines of JSON about one kind of event."""
    return [e for e in map(json.loads, proxy.log().splitlines()) if e["event"] == name]


JSON = ("--log-format", "json")


def test_one_line_of_json_per_event(start_proxy, mariadb):
    with Postgres() as server:
        server.start()
        proxy = start_proxy(postgres=server, mariadb=mariadb, options=JSON,
                            config="[limits]\nclient_login_timeout = 1\n")
        ready = events(proxy, "ready")[0]
        assert ready["postgres"].endswith(f":{proxy.postgres_port}") and ready["level"] == "info"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ready["time"])

        # a stranger, and one who says nothing
        with socket.create_connection(("127.0.0.1", proxy.postgres_port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert stranger.recv(1000)
            wait_for(lambda: events(proxy, "refused"))
            refused = events(proxy, "refused")[0]
            assert refused["peer"] == "{}:{}".format(*stranger.getsockname()) and refused["reason"] == "protocol"
        with socket.create_connection(("127.0.0.1", proxy.postgres_port)):
            wait_for(lambda: any(e["reason"] == "timeout" for e in events(proxy, "refused")))

        # a table whose writes go alone, told once
        session = RawPostgres(proxy.postgres_port)
        session.query("CREATE TABLE secret (a text); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS "
                      "'BEGIN NOTIFY x; RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON secret FOR EACH ROW "
                      "EXECUTE FUNCTION f()")
        for _ in range(3):
            session.query("/* max_wait_ms:5 */ INSERT INTO secret VALUES ('hush')")
        assert [e["table"] for e in events(proxy, "goes_alone")] == ["secret"]
        session.close()

        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn(proxy.postgres_port))
        down = events(proxy, "backend_down")
        assert len(down) == 1 and down[0]["address"] == server.address and down[0]["level"] == "error"
        server.start()
        psycopg.connect(server.dsn(proxy.postgres_port), password="swordfish").close()
        assert [e["address"] for e in events(proxy, "backend_up")] == [server.address]

        text = Path(proxy.path).read_text()
        Path(proxy.path).write_text(text + "drain_timeout = 7\n")
        proxy.process.send_signal(signal.SIGHUP)
        wait_for(lambda: events(proxy, "reloaded"))
        changed = events(proxy, "setting_changed")
        assert [(e["key"], e["before"], e["after"]) for e in changed] == [("[limits] drain_timeout", "30", "7")]

        session = RawPostgres(proxy.postgres_port)
        session.query("BEGIN")
        proxy.process.send_signal(signal.SIGTERM)
        wait_for(lambda: events(proxy, "drain_progress"))
        assert events(proxy, "drain_progress")[0]["sessions"] == 1
        session.query("COMMIT")
        assert proxy.process.wait(20) == 0
        assert events(proxy, "drained")
        assert "hush" not in proxy.log() and "swordfish" not in proxy.log() and "INSERT" not in proxy.log()


def test_a_failed_hook_is_told_and_counted_without_the_statement(monkeypatch, caplog):
    """An error's own words may quote what was being read."""
    from tqdb import policy
    from tqdb.config import from_arguments
    from tqdb.server import Server

    def fail(*_):
        raise KeyError("hush")

    server = Server(from_arguments(f"127.0.0.1:{free_port()}", None, None, None, None))
    monkeypatch.setattr(policy.analysis, "analyze_statement", fail)
    try:
        assert server.analyze_statement(0, b"UPDATE t SET a = 'hush'") is None
    finally:
        server.close()
    assert server.engine.stats.internal_errors == {"analyze_statement": 1}
    assert "internal error in analyze_statement: KeyError; Traceback: " in caplog.text and " fail" in caplog.text
    assert "hush" not in caplog.text


def test_a_slow_batch_is_told(start_proxy, postgres, pg, table):
    proxy = start_proxy(postgres=postgres, options=JSON)
    pg(through=False).execute(
        f"CREATE TABLE {table} (a int); CREATE FUNCTION {table}f() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$BEGIN WHILE clock_timestamp() < now() + NEW.a * interval '1.2 s' LOOP NULL; END LOOP; RETURN NEW; "
        f"END$$; CREATE TRIGGER slow BEFORE INSERT ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}f()")
    sessions = [RawPostgres(proxy.postgres_port) for _ in range(2)]
    taken = []          # by each of the two batches, as the metric has it
    for seconds in (0, 1):
        before = proxy.metric("tqdbproxy_write_batch_latency_seconds_sum")
        sql = f"/* max_wait_ms:5000 */ INSERT INTO {table} VALUES ({seconds})"
        together(2, lambda i, sql=sql: sessions[i].query(sql))
        taken.append(proxy.metric("tqdbproxy_write_batch_latency_seconds_sum") - before)
    slow = [(e["writes"], e["seconds"]) for e in events(proxy, "slow_batch")]
    assert slow == [(2, pytest.approx(seconds, abs=0.001)) for seconds in taken if seconds > 1]
    assert taken[0] < taken[1] and (2, pytest.approx(taken[1], abs=0.001)) in slow


def test_the_level_is_kept(start_proxy, postgres):
    proxy = start_proxy(postgres=postgres, options=("--log-level", "debug"))
    proxy.process.send_signal(signal.SIGHUP)
    wait_for(lambda: " INFO reloaded" in proxy.log())
    proxy = Proxy(postgres=postgres, options=("--log-level", "error"))
    with open(proxy.log_path, "ab") as log:
        proxy.process = subprocess.Popen(proxy.command, stdout=log, stderr=log)

    def answers() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", proxy.postgres_port)) == 0

    wait_for(answers)
    log = proxy.log()
    assert proxy.stop() == 0 and log == ""


class Line:
    """A log that writes into a list."""

    def __init__(self):
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines += [line for line in text.split("\n") if line]

    def flush(self) -> None:
        pass


@pytest.fixture
def logger():
    import logging
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield logging.getLogger("tqdb.test")
    root.handlers[:], root.level = handlers, level


def test_lines_that_repeat_are_limited(logger):
    out, now = Line(), [0.0]
    set_up("text", "info", out)
    import logging
    handler = logging.getLogger().handlers[0]
    handler.filters[:] = [Limit(clock=lambda: now[0])]
    for n in range(3 * REPEATS):
        logger.warning("session %d ended", n, extra={"event": "refused"})
    logger.warning("something else", extra={"event": "other"})
    assert len(out.lines) == REPEATS + 1
    now[0] = 11.0
    logger.warning("session again", extra={"event": "refused"})
    logger.warning("session again", extra={"event": "refused"})
    assert out.lines[-2].endswith(f"session again ({2 * REPEATS} more like this were left out)")
    assert out.lines[-1].endswith("session again")


def test_a_line_stays_a_line(logger):
    out = Line()
    set_up("text", "warning", out)
    recent = Recent()
    import logging
    logging.getLogger().addHandler(recent)
    logger.info("not at this level")
    logger.warning("two\nlines\x1b[31m and a colour")
    try:
        raise ValueError("boom")
    except ValueError:
        logger.exception("failed")
    assert len(out.lines) == 2 and "two\\nlines\\x1b[31m" in out.lines[0] and "ValueError: boom" in out.lines[1]
    assert [r["level"] for r in recent.records] == ["warning", "error"]
