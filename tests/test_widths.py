"""What people read in a terminal of 80 columns has no cut word."""

import pytest
from rich.console import Console

from tqdb.check import _show
from tqdb.load.demo import Row, _table


@pytest.fixture
def narrow():
    return Console(width=80, record=True)


def test_the_demonstration(narrow):
    narrow.print(_table([
        Row("PostgreSQL", "direct", 116_675, 113.86, 141.34, 13_334_000, 13_334_000, "done"),
        Row("PostgreSQL", "batched", 163_030, 3.67, 10.98, 11_504_200, 12_205, "writes"),
        Row("MariaDB", "direct", state="connects"), Row("MariaDB", "batched")], "256 connections"))
    text = narrow.export_text()
    assert "…" not in text
    for words in ("PostgreSQL  batched", "13,334,000", "942.6", "connects", "waits", "per op."):
        assert words in text


@pytest.mark.parametrize("address", ["127.0.0.1:5432", "writer.cluster-c0ffee.eu-central-1.rds.example.com:5432"])
def test_check(narrow, address):
    found = ["PostgreSQL, asks to log in", "MariaDB 10.11.19", address, "127.0.0.1:6432, /run/tqdb/.s.PGSQL.6432",
             "TLSv1.3, name verified"]
    _show(narrow, "configuration: /etc/tqdb/tqdb.ini [1]", [
        ("postgres.default", address, found[3], "ok", "primary", found[4], found[0]),
        ("mariadb.default", "[::1]:3306", "", "ok", "", "", found[1])])
    text = narrow.export_text()
    for words in (*found, "[::1]:3306", "tqdb.ini [1]", "postgres.default"):
        assert words in text
