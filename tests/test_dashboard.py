"""What the dashboard and ``tqdb top`` say: shapes, reasons, rules, TLS; by keyboard, by role, at any width."""

import contextlib
import io
import os
import pty
import re
import subprocess

import psycopg
import pytest
from tqdb._core import FLUSH_REASONS, REASONS

from tests.fix_tls import to_clients, to_servers
from tests.test_metrics import load, trouble
from tests.test_operator import Dashboard, number
from tests.wait import wait_for
from tqdb import reasons

RULES = ("[rule.events]\ntable = *.nothing\nmax_wait_ms = auto\nforce = yes\n"
         "[rule.late]\nverb = insert\nmax_wait_ms = 5\n")


def crowded(answer: dict) -> dict:
    """``answer`` of ``/stats.json`` with as much as there may be of everything."""
    alone = {name: 1000 * n for n, name in enumerate(answer["words"]["individual"], 1)}
    shape = {"id": "", "protocol": "postgres", "database": "shop", "statement": "", "writes": 1_234_567, "batched": 9,
             "writes_per_second": 12_345.6, "batched_percent": 99.25, "alone": alone, "verdict": "pipelined",
             "why": "everybody's statement in one transaction", "origin": "app/models/event.py:123 web"}
    return {**answer, "individual": alone,
            "flush": {name: 1000 * n for n, name in enumerate(answer["words"]["flush"], 1)},
            "shapes_watched": 1000,
            "shapes": [{**shape, "id": f"{k:016x}", "statement": f"INSERT INTO t{k} ({'a_column, ' * 50}b) VALUES (?)"}
                       for k in range(10)],
            "rules": [{"rule": f"r{k}", "conditions": f"table=public.{'long' * 20}{k}* verb=insert",
                       "max_wait_ms": "1000", "force": "yes", "hits": 1_234_567 * k} for k in range(200)],
            "tls": {"asked": [
                {"side": "client", "protocol": "postgres", "backend": "", "mode": "require", "certificates": True},
                {"side": "server", "protocol": "postgres", "backend": "main", "mode": "verify-full",
                 "certificates": True}], "connections": [{"side": "client", "version": "TLSv1.3", "count": 12_345}]}}


class Crowded(Dashboard):
    """The page with a ``crowded`` answer in the place of the proxy's."""

    def __init__(self, page, proxy):
        answer = crowded(proxy.stats())
        page.route("**/stats.json", lambda route: route.fulfill(json=answer))
        super().__init__(page, proxy)


def test_every_reason_has_words():
    assert tuple(r.name for r in reasons.ALONE) == REASONS
    assert tuple(r.name for r in reasons.LEFT) == FLUSH_REASONS
    assert len({*REASONS, *FLUSH_REASONS}) == len(REASONS) + len(FLUSH_REASONS)       # a name is an anchor
    for r in (*reasons.ALONE, *reasons.LEFT):
        assert r.words and r.means and r.do and r.pages, r.name


def test_shapes_and_rules_are_those_of_stats_json(page, start_proxy, postgres, table):
    proxy = start_proxy(postgres=postgres, config=RULES)
    with load({"postgres": postgres}, proxy):
        trouble(proxy, postgres, table)
        with psycopg.connect(postgres.dsn(proxy.postgres_port), autocommit=True) as connection:
            for n in range(3):
                connection.execute(f"INSERT INTO {table} (a) VALUES ({n + 10})")
                connection.execute(f"UPDATE {table} SET a = a + 100 WHERE a = {n + 10}")
        shown, s = Dashboard(page, proxy).state(lambda s: any(
            x["batched"] and x["verdict"] == "merged" for x in s["shapes"]) and len(s["shapes"]) > 2)
        rows = shown["tables"]["shapes"][1:]
        for row, x in zip(rows, s["shapes"], strict=True):
            assert row[0].startswith(f"{x['statement']}{x['verdict']}: {x['why']}") and x["origin"] in row[0]
            assert all(reason in row[0] for reason in sorted(x["alone"], key=lambda k: -x["alone"][k])[:1])
            rate, count = number(row[1].split(".")[0]), number(row[1].partition(".")[2][1:])
            assert (rate, count) == (pytest.approx(x["writes_per_second"], abs=1), x["writes"])
            assert number(row[3]) == pytest.approx(x["batched_percent"], abs=0.051)
        assert [[*row[:1], number(row[2])] for row in shown["tables"]["rules"][1:]] == [
            [f"{r['rule']}{r['conditions']}", r["hits"]] for r in s["rules"]]
        assert [row[1] for row in shown["tables"]["rules"][1:]] == ["autoforce", "5"] and s["rules"][1]["hits"] >= 3
        assert shown["tables"]["rules"][2][0] == "lateverb=insert"
        # what alone and left say is in words
        for name in ("individual", "flush"):
            counted = [key for key, n in s[name].items() if n]
            text = str(shown["tables"]["alone" if name == "individual" else name])
            assert counted and all(s["words"][name][key] in text for key in counted)


def test_a_reason_leads_to_the_page_that_explains_it(page, proxy, pg, table):
    connection = pg()
    connection.execute(f"CREATE TABLE {table} (a int)")
    connection.execute(f"INSERT INTO {table} VALUES (1)")
    dashboard = Dashboard(page, proxy)
    dashboard.state(lambda s: s["individual"].get("no_hint"))
    page.locator("#alone a", has_text="no_hint").focus()
    # the rows that come and go under it do not take the focus away
    before = dashboard.state()[0]["shown"]
    wait_for(lambda: dashboard.state()[0]["shown"] != before)
    assert page.locator(":focus").text_content() == "no_hint"
    page.keyboard.press("Enter")
    page.wait_for_url("**/reasons#no_hint")
    assert page.locator("#no_hint:target").is_visible()
    assert [e.get_attribute("id") for e in page.locator("dt").all()] == [*REASONS, *FLUSH_REASONS]
    explained = page.locator("dt:target + dd").inner_text()
    assert "What to do:" in explained and "docs/rules.md" in explained and "`" not in page.locator("main").inner_text()


def test_the_page_by_role_and_by_keyboard(page, proxy):
    page.clock.install()
    Crowded(page, proxy).state()
    for name in ("Writes by shape", "Why writes went alone", "Why batches left", "Servers", "TLS", "Rules"):
        found = page.get_by_role("table", name=name)
        assert found.count() == 1, name
        assert found.get_by_role("columnheader").count() > 1 and found.get_by_role("rowheader").count() >= 1, name
    assert page.get_by_role("table", name="Writes by shape").get_by_role("rowheader").count() == 10
    assert page.get_by_role("link", name="all 1,000, with advice").get_attribute("href") == "advice"
    assert page.get_by_role("img", name="writes per second").count() == 1
    rules = page.get_by_role("table", name="Rules").get_by_role("rowheader")
    assert rules.count() == 20
    page.get_by_role("button", name="Show all 200").focus()
    page.keyboard.press("Enter")
    assert rules.count() == 200 and page.locator(":focus").get_attribute("id") == "rules"
    # who reads slowly lets it stand still
    page.get_by_role("checkbox", name="stand still").focus()
    page.keyboard.press("Space")
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.clock.run_for(10_000)
    assert asked == []
    with page.expect_request("**/stats.json"):
        page.keyboard.press("Space")
        page.clock.run_for(10_000)


@pytest.mark.parametrize(("name", "width", "scheme"), [("light", 1200, "light"), ("dark", 1200, "dark"),
                                                       ("phone", 390, "light")])
def test_whatever_there_is_fits(browser, proxy, name, width, scheme):
    """Nothing is wider than the window, and nothing comes from elsewhere."""
    folder = os.environ.get("TQDB_SCREENSHOTS")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    Crowded(page, proxy).state()
    for what in ("crowded", "reasons"):
        if what == "reasons":
            page.goto(f"http://127.0.0.1:{proxy.metrics_port}/reasons#in_transaction")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if folder:
            page.screenshot(path=os.path.join(folder, f"{what}-{name}.png"), full_page=True)
    assert all(url.startswith((f"http://127.0.0.1:{proxy.metrics_port}/", "data:,")) for url in asked)
    context.close()


def test_tls_is_shown(page, start_tls_proxy, certificates, tls_postgres, command):
    proxy = start_tls_proxy(
        postgres=tls_postgres, client=to_clients(certificates, "allow", tls_client_ca=certificates.ca),
        server=to_servers(certificates, "verify-full"))
    cert, key = certificates.client
    with psycopg.connect(f"{tls_postgres.dsn(proxy.postgres_port)} sslmode=require sslcert={cert} sslkey={key}"):
        shown, s = Dashboard(page, proxy).state(lambda s: s["tls"]["connections"])
        assert s["tls"]["asked"] == [
            {"side": "client", "protocol": "postgres", "backend": "", "mode": "allow", "certificates": True},
            {"side": "server", "protocol": "postgres", "backend": "main", "mode": "verify-full", "certificates": False}]
        assert shown["tables"]["tls"][1:] == [
            ["to clients, postgrescertificates of clients are asked for", "offered"],
            ["to servers, postgres main", "required, certificate and name verified"],
            ["connections of clients, TLSv1.3", "1"], ["connections of servers, TLSv1.3", "1"]]
        said = top(command, proxy, 80)
        assert "to servers, postgres main" in said and "verify-full" in said and "TLSv1.3" in said


def top(command, proxy, columns: int) -> str:
    done = subprocess.run([*command, "top", "--once", f"127.0.0.1:{proxy.metrics_port}"], capture_output=True,
                          text=True, timeout=60, env={**os.environ, "COLUMNS": str(columns)})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("columns", [80, 160])
def test_top_in_so_many_columns(command, start_proxy, postgres, mariadb, table, columns):
    proxy = start_proxy(postgres=postgres, mariadb=mariadb, config=RULES)
    with load({"postgres": postgres, "mariadb": mariadb}, proxy):
        trouble(proxy, postgres, table)
        wait_for(lambda: any(x["batched"] for x in proxy.stats()["shapes"]))
        s = proxy.stats()
        said = top(command, proxy, columns)
        assert max(map(len, said.splitlines())) <= columns
        lines = [" ".join(line.split()) for line in said.splitlines()]
        for name in ("individual", "flush"):
            for reason, n in s[name].items():
                if n and columns == 80:
                    assert any(line.startswith(f"{reason} {s['words'][name][reason]}") for line in lines), reason
        for words in (f"http://127.0.0.1:{proxy.metrics_port}/reasons", "writes by shape", "to clients, postgres",
                      "late", "verb=insert", s["shapes"][0]["statement"][:30]):
            assert words in said, said


def test_top_with_as_much_as_there_may_be(proxy):
    from rich.console import Console

    from tqdb.top import view
    for columns in (80, 120, 200):
        console = Console(width=columns, record=True, file=io.StringIO())
        console.print(view(crowded(proxy.stats()), "127.0.0.1:9090", columns))
        said = console.export_text()
        assert max(map(len, said.splitlines())) <= columns
        assert "10 of 200" in said and "5 of 1,000" in said and said.count("INSERT INTO t") == 5


def on_a_terminal(*words: str, columns: int = 80) -> tuple[int, str]:
    """Exit code and output, without colours, of a command whose output is a terminal."""
    own, its = pty.openpty()
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=its, stderr=its,
                               env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"})
    os.close(its)
    said = b""
    with contextlib.suppress(OSError):      # how the end of a terminal shows
        while part := os.read(own, 4096):
            said += part
    os.close(own)
    return process.wait(30), re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", said.decode()).replace("\r", "")


def test_check_and_top_on_a_terminal_of_80_columns(command, start_proxy, postgres, mariadb):
    proxy = start_proxy(postgres=postgres, mariadb=mariadb, config=RULES + "[rule.never]\nprotocol = mariadb\n"
                        "backend = elsewhere\ntable = audit.*\nuser = application_server\nmax_wait_ms = 1000\n")
    for words in (("check", "-c", proxy.path), ("top", "--once", "-c", proxy.path)):
        code, said = on_a_terminal(*command, *words)
        assert code == 0, said
        assert max(map(len, said.splitlines())) <= 80, said
        assert ("mariadb.main" if words[0] == "check" else "to clients, mariadb") in said
    # whole to a program
    done = subprocess.run([*command, "check", "-c", proxy.path], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "COLUMNS": "80"})
    assert any(len(line) > 80 for line in done.stdout.splitlines())
