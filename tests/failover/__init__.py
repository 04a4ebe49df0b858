"""A PostgreSQL primary and its standby, a MariaDB primary and its replica: one goes, the other is promoted, under load.

``pairs`` are the servers, ``rounds`` the play. ``python -m tests.failover`` (``make test-failover``) for many rounds.
"""
