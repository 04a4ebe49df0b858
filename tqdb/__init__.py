"""tqdb: a transparent proxy for PostgreSQL and MariaDB that turns many small writes into few."""

__version__ = "0.1.0"
