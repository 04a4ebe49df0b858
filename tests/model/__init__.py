"""Servers in plain Python for conversations without sockets: what a client may see of PostgreSQL and MariaDB.

``store`` has tables, transactions and locks; ``sql`` reads a small language; ``postgres`` and ``mariadb`` speak the
protocols; ``wire`` joins them to the core in any order of deliveries; ``talk`` makes and reads client messages.
"""
