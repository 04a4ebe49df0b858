"""Fixtures by concern live in ``fix_*.py``."""

pytest_plugins = ["tests.fix_servers", "tests.fix_browser", "tests.fix_prometheus"]
