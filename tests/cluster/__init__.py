"""Three Galera nodes that come, go, crash and are cut off, and writers before two of them.

``nodes`` is the cluster, ``writers`` are clients that note what they are told. Played by ``tests/test_cluster.py``
(``make test-cluster``).
"""
