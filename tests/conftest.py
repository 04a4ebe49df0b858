"""Fixtures by concern live in ``fix_*.py``."""

pytest_plugins = ["tests.fix_servers", "tests.fix_tls", "tests.fix_own", "tests.fix_browser", "tests.fix_prometheus"]


def pytest_addoption(parser):
    parser.addoption("--sample", type=int, default=1, metavar="N", help="run every N-th test only, for slow builds")


def pytest_collection_modifyitems(config, items):
    items[:] = items[::config.getoption("--sample")]
