"""Servers, single connections and the proxy die under load; then every write is accounted for.

    python -m tests.ledger --protocol postgres|mariadb --rounds N

``book`` says what must hold, ``clients`` write in every form the protocols have, ``kills`` is what goes wrong,
``rounds`` plays it.
"""
