"""Locust: the shipped files, exact statistics, and its web page in a browser."""

import contextlib
import csv
import os
import subprocess
import sys

import pytest

from tqdb.errors import TqdbError
from tqdb.load.locust import arguments
from tqdb.load.servers import dying_with_parent, free_port
from tqdb.load.targets import Target

SECONDS = 60_000        # milliseconds that the page may take


def test_the_locustfile_fits_the_host():
    assert arguments(["--host", "mysql://root@h/d"])[1].endswith("locustfiles/mariadb.py")
    assert arguments(["--host=postgresql://u@h/d", "-u", "5"])[1].endswith("locustfiles/postgres.py")
    assert arguments(["-f", "mine.py"]) == ["-f", "mine.py"]
    both = arguments(["-f", "generator,steps", "-u", "1"])[1].split(",")
    assert both[0].endswith("locustfiles/generator.py") and both[1].endswith("locustfiles/steps.py")
    with pytest.raises(TqdbError, match="not a database URL"):
        arguments(["--host", "http://x"])


def test_response_times_are_kept_as_locust_keeps_them():
    """The generator's statistics arrive in Locust's with the same counts and the same rounding."""
    code = (
        "import sys; sys.argv = ['x']\n"
        "from locust.stats import RequestStats\n"
        "import importlib.util\n"
        "spec = importlib.util.spec_from_file_location('g', 'locustfiles/generator.py')\n"
        "g = importlib.util.module_from_spec(spec); spec.loader.exec_module(g)\n"
        "ours, theirs = RequestStats(), RequestStats()\n"
        "for ms, n in ((0.4, 3), (7.2, 2), (147.0, 4), (3432.0, 1)):\n"
        "    g.record(ours, 'w', [(ms * 1000, n)], 0, '')\n"
        "    for _ in range(n): theirs.log_request('sql', 'w', ms, 0)\n"
        "a, b = ours.total, theirs.total\n"
        "assert a.num_requests == b.num_requests == 10\n"
        "assert dict(a.response_times) == dict(b.response_times), (a.response_times, b.response_times)\n"
        "assert abs(a.total_response_time - b.total_response_time) < 1e-6\n"
        "assert (a.min_response_time, a.max_response_time) == (b.min_response_time, b.max_response_time)\n"
        "g.record(ours, 'w', [(1000.0, 5)], 2, 'boom')\n"
        "assert ours.total.num_failures == 2 and [e.occurrences for e in ours.errors.values()] == [2]\n")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def headless(command, host, folder, *args):
    done = subprocess.run([*command, "locust", "--host", host, "--headless", "--only-summary", "--csv",
                           str(folder / "out"), *args], capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    with open(folder / "out_stats.csv") as f:
        return {row["Name"]: row for row in csv.DictReader(f)}


@pytest.mark.parametrize("protocol", ["postgres", "mariadb"])
def test_the_generator_user_counts_every_write(command, request, proxy, tmp_path, protocol):
    target = Target.of(request.getfixturevalue(protocol))
    port = getattr(proxy, f"{protocol}_port")
    host = {"postgres": f"postgresql://postgres@127.0.0.1:{port}/postgres",
            "mariadb": f"mysql://root@127.0.0.1:{port}"}[protocol]
    try:
        rows = headless(command, host, tmp_path, "-f", "generator", "-u", "2", "-r", "10", "-t", "2s", "--processes",
                        "2", "--connections", "8", "--form", "prepared")
        total = rows["Aggregated"]
        assert int(total["Request Count"]) == target.rows() > 0
        assert int(total["Failure Count"]) == 0
    finally:
        target.made = True
        target.drop()


def test_users_read_their_own_rows_back(command, postgres, proxy, tmp_path):
    host = f"postgresql://postgres@127.0.0.1:{proxy.postgres_port}/postgres"
    rows = headless(command, host, tmp_path, "-u", "5", "-r", "10", "-t", "3s", "--html", str(tmp_path / "out.html"))
    assert {"insert, hinted", "insert, not hinted", "update", "read back"} <= rows.keys()
    assert int(rows["Aggregated"]["Failure Count"]) == 0
    assert "tqdb locust" in (tmp_path / "out.html").read_text() or (tmp_path / "out.html").stat().st_size > 10_000


@contextlib.contextmanager
def web_page(command, host):
    port = free_port()
    process = subprocess.Popen(
        dying_with_parent(*command, "locust", "--host", host, "--web-host", "127.0.0.1", "--web-port", str(port)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(30)


def test_the_web_page_starts_a_test_and_shows_it(command, postgres, proxy, page):
    """A person's way: open the page, press start, see requests rise without failures, and the charts drawn."""
    host = f"postgresql://postgres@127.0.0.1:{proxy.postgres_port}/postgres"
    with web_page(command, host) as url:
        for _ in range(200):
            try:
                page.goto(url)
                break
            except Exception:
                page.wait_for_timeout(100)
        page.get_by_label("Number of users").fill("10")
        page.get_by_label("Ramp up").fill("10")
        page.get_by_role("button", name="Start").click()
        page.get_by_text("insert, hinted").first.wait_for(timeout=SECONDS)

        def requests() -> tuple[int, int]:
            stats = page.request.get(f"{url}stats/requests").json()
            total = next(s for s in stats["stats"] if s["name"] == "Aggregated")
            return total["num_requests"], total["num_failures"]

        first, _ = requests()
        while True:
            now, failures = requests()
            assert failures == 0
            if now > first > 0:
                break
            page.wait_for_timeout(200)
            first = first or now
        page.get_by_role("tab", name="Charts").click()
        chart = page.locator("canvas, svg").first
        chart.wait_for(timeout=SECONDS)
        assert chart.bounding_box()["width"] > 100
        folder = os.environ.get("TQDB_SCREENSHOTS")
        if folder:
            page.wait_for_timeout(3000)
            page.screenshot(path=os.path.join(folder, "locust.png"))
