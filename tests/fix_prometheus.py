"""A throwaway Prometheus before a proxy's metrics, and what of its tools is there."""

import contextlib
import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from tests.wait import wait_for
from tqdb.load.servers import dying_with_parent, free_port

ROOT = Path(__file__).parent.parent
RULES = ROOT / "packaging/prometheus-rules.yml"


def prometheus_tool(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``, installed or unpacked by ``scripts/ensure-system prometheus``."""
    found = shutil.which(name, path=f"{ROOT}/build/prometheus/usr/bin") or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


class Prometheus:
    """The server's HTTP API."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> dict:
        """The ``data`` of an answer; ValueError with Prometheus' own words if it refuses."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as e:
            raise ValueError(e.read().decode()) from None

    def query(self, expression: str) -> list:
        return self.get("/api/v1/query", query=expression)["result"]

    def wait_for(self, condition, seconds: float = 60) -> None:
        def shown() -> bool:
            with contextlib.suppress(OSError, ValueError):
                return bool(condition())
            return False
        wait_for(shown, seconds, "what Prometheus is to show")


@pytest.fixture
def start_prometheus(tmp_path):
    """``start_prometheus(metrics_port)`` scrapes that proxy, and evaluates the shipped rules, once a second."""
    processes = []

    def start(metrics_port: int) -> Prometheus:
        program, port = prometheus_tool("prometheus"), free_port()
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}\n"
            f"rule_files: ['{RULES}']\n"
            "scrape_configs:\n"
            f"  - {{job_name: tqdb, static_configs: [{{targets: ['127.0.0.1:{metrics_port}']}}]}}\n")
        with open(tmp_path / "prometheus.log", "wb") as log:
            processes.append(subprocess.Popen(dying_with_parent(
                program, f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}"), stdout=log, stderr=log))
        found = Prometheus(port)
        found.wait_for(lambda: found.query('up{job="tqdb"} == 1'))
        return found

    yield start
    for process in processes:
        process.terminate()
        process.wait(30)
