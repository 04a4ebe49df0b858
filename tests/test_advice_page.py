"""The page of advice in a browser: what it shows, with the keyboard, narrow and wide, light and dark."""

import json
import os
import re
import threading

import pytest

ROWS = """() => ({
    shown: document.documentElement.dataset.shown,
    rows: [...document.querySelectorAll("#shapes tr")].map(tr => ({
        id: tr.dataset.id, rule: tr.dataset.rule,
        statement: tr.querySelector("th code").textContent, verdict: tr.querySelector(".verdict").textContent,
        why: tr.querySelector(".why").textContent,
        cells: [...tr.querySelectorAll("td.n")].map(td => [td.firstChild.textContent, td.lastChild.textContent]),
        button: !tr.querySelector("button").hidden}))})"""


def number(text: str) -> float:
    return float(re.search(r"-?[\d,]+(\.\d+)?", text)[0].replace(",", ""))


class Writing:
    """Unhinted writes of several shapes through a proxy, from ``connect()``, until the block ends."""

    def __init__(self, connect, table: str, shapes: int = 5):
        self.connections = [connect() for _ in range(6)]
        self.table = table
        self.shapes = shapes
        with self.connections[0].cursor() as cursor:
            cursor.execute(f"CREATE TABLE {table} (a int, b int)")
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(c,)) for c in self.connections]

    def _work(self, connection) -> None:
        k = 0
        with connection.cursor() as cursor:
            while not self.ended.is_set():
                k += 1
                cursor.execute(f"INSERT INTO {self.table} (a, b) VALUES ({k}, 1){', (2, 3)' * (k % self.shapes % 2)}")
                names = ", ".join(f"{k} AS c{i}" for i in range(k % self.shapes))
                cursor.execute(f"INSERT INTO {self.table} (a) SELECT 1 FROM (SELECT 1{', ' * bool(names)}{names}) AS t")
                self.ended.wait(0.002)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


class Page:
    """The page, and the ``/advice.json`` that each of its states shows."""

    def __init__(self, page, proxy):
        self.page = page
        self.answers: dict[str, dict] = {}
        page.on("response", self._keep)
        page.goto(f"http://127.0.0.1:{proxy.metrics_port}/advice")

    def _keep(self, response) -> None:
        if response.url.endswith("/advice.json"):
            body = response.json()
            self.answers[str(body["uptime_seconds"])] = body

    def state(self, enough=lambda answer: True) -> tuple[dict, dict]:
        for _ in range(600):
            self.page.wait_for_timeout(100)
            shown = self.page.evaluate(ROWS)
            answer = self.answers.get(shown["shown"])
            if answer is not None and enough(answer):
                return shown, answer
        raise AssertionError("the page never showed it")


def test_the_page_shows_what_advice_json_says(page, proxy, pg, table):
    with Writing(pg, table):
        shown, answer = Page(page, proxy).state(
            lambda a: len([s for s in a["shapes"] if table in s["statement"]]) > 4 and a["writes"] > 200)
        assert [row["id"] for row in shown["rows"]] == [s["id"] for s in answer["shapes"][:50]]
        for row, s in zip(shown["rows"], answer["shapes"][:50], strict=True):
            assert row["statement"] == s["statement"] and row["why"] == f": {s['why']}"
            assert row["verdict"] == s["verdict"] and row["rule"] == (s["rule"] or "")
            assert row["button"] == bool(s["rule"])
            assert number(row["cells"][0][0]) == pytest.approx(s["writes_per_second"], abs=0.051)
            assert number(row["cells"][0][1]) == s["writes"] and number(row["cells"][1][0]) == s["connections"]
            for cell, window in zip(row["cells"][2:], s["windows"], strict=True):
                assert number(cell[0]) == pytest.approx(100 * window["saved"] / s["writes"], abs=0.51)
                assert number(cell[1]) == pytest.approx(window["extra_latency_ms"], abs=0.051)


def many(count: int) -> dict:
    """An answer about so many shapes."""
    windows = [{"ms": ms, "operations": 10, "saved": 90, "extra_latency_ms": ms / 2} for ms in (1, 10, 50)]
    return {"version": "0", "uptime_seconds": 1.0, "writes": 100 * count, "unread": 0, "watched": count,
            "max_shapes_watched": count, "replaced": 0, "shapes": [
                {"id": f"{k:016x}", "fingerprint": f"{k:016x}", "protocol": "postgres", "backend": "main",
                 "database": "shop", "user": "app", "application": "web", "file": "app.py", "line": str(k),
                 "verb": "insert", "table": f"t{k}", "statement": f"INSERT INTO t{k} (a, b) VALUES (?, ?)",
                 "seconds": 60.0, "idle_seconds": 0.0, "writes": 100, "writes_per_second": 1.5, "connections": 9,
                 "in_transaction": 0, "unlike": 0, "batched": 0, "alone": {}, "windows": windows,
                 "outside_percent": 100.0, "batched_percent": 0.0, "verdict": "merged" if k % 2 else "alone",
                 "why": "many rows as one INSERT" if k % 2 else "the default of column tx calls txid_current()",
                 "max_wait_ms": 10 if k % 2 else None,
                 "rule": f"[rule.insert_t{k}]\nfingerprint = {k:016x}\nmax_wait_ms = 10\n" if k % 2 else None}
                for k in range(count)]}


def serve(page, proxy, answer: dict) -> None:
    """The page, with ``answer`` in the place of the proxy's."""
    page.route("**/advice.json", lambda route: route.fulfill(json=answer))
    page.goto(f"http://127.0.0.1:{proxy.metrics_port}/advice")
    page.locator("#shapes tr").first.wait_for()


def test_a_thousand_shapes_with_the_keyboard(browser, proxy):
    context = browser.new_context()
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    serve(page, proxy, many(1000))
    assert page.locator("#shapes tr").count() == 50
    page.locator("#search").focus()
    page.keyboard.type("t777")
    assert page.locator("#shapes tr").count() == 1
    # search, select, checkbox, the button for all, then the row's own
    for _ in range(4):
        page.keyboard.press("Tab")
    focused = page.locator(":focus")
    assert focused.get_attribute("aria-label") == "Copy the rule for INSERT INTO t777 (a, b) VALUES (?, ?)"
    page.keyboard.press("Enter")
    page.get_by_text("The rule is copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == many(778)["shapes"][777]["rule"]
    assert page.locator(":focus").get_attribute("aria-label").startswith("Copy the rule for INSERT INTO t777 ")
    page.locator("#search").fill("")
    page.locator("#which").select_option("alone")
    page.locator("#more").click()
    assert page.locator("#shapes tr").count() == 500
    assert page.get_by_role("rowheader").count() == 500 and page.get_by_role("columnheader").count() == 7
    context.close()


@pytest.mark.parametrize(("name", "width", "scheme"), [("light", 1200, "light"), ("dark", 1200, "dark"),
                                                       ("phone", 390, "light")])
def test_the_page_fits(browser, proxy, name, width, scheme):
    """Nothing is wider than the window, whatever it is; ``TQDB_SCREENSHOTS`` names a folder for pictures."""
    folder = os.environ.get("TQDB_SCREENSHOTS")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    answer = many(12)
    answer["shapes"][3]["statement"] = "INSERT INTO " + "x" * 300 + " VALUES (?)"
    if folder and os.path.exists(f"{folder}/advice.json"):
        with open(f"{folder}/advice.json") as f:
            answer = json.load(f)
    serve(page, proxy, answer)
    page.locator("details:not([hidden]) summary").first.click()
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], wide
    assert all(url.startswith(f"http://127.0.0.1:{proxy.metrics_port}/") for url in asked)
    if folder:
        page.screenshot(path=f"{folder}/advice-{name}.png", full_page=False)
    context.close()
