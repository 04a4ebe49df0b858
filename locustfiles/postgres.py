"""Locust users for PostgreSQL: ``tqdb locust --host postgresql://user@host:port/db``."""

import os
import sys

import psycopg

sys.path.insert(0, os.path.dirname(__file__))

from common import DatabaseUser, parts


class PostgresUser(DatabaseUser):
    host = "postgresql://postgres@127.0.0.1:5433/postgres"
    create = "CREATE TABLE IF NOT EXISTS {t} (id bigserial PRIMARY KEY, n int NOT NULL, note text)"
    insert_id = " RETURNING id"

    def connect(self):
        p = parts(self.host)
        return psycopg.connect(host=p["host"], port=p["port"] or 5432, user=p["user"], password=p["password"],
                               dbname=p["database"], autocommit=True, cursor_factory=psycopg.ClientCursor)
