"""Locust users for MariaDB: ``tqdb locust --host mysql://user@host:port/db``."""

import os
import sys

import pymysql

sys.path.insert(0, os.path.dirname(__file__))

from common import DatabaseUser, parts


class MariaDBUser(DatabaseUser):
    host = "mysql://root@127.0.0.1:3307/test"
    create = "CREATE TABLE IF NOT EXISTS {t} (id bigint AUTO_INCREMENT PRIMARY KEY, n int NOT NULL, note text)"

    def connect(self):
        p = parts(self.host)
        return pymysql.connect(host=p["host"], port=p["port"] or 3306, user=p["user"], password=p["password"] or "",
                               database=p["database"], autocommit=True)
