# MariaDB/MySQL: what the proxy itself says around batches.

cdef bytes MY_BEGIN = my_command(COM_QUERY, b"BEGIN")
cdef bytes MY_LOCK_WAIT = b"innodb_lock_wait_timeout=1"
cdef bytes MY_NO_LOCK_WAIT = b"innodb_lock_wait_timeout=0"
# The ids of a merged INSERT are first + i * increment if the increment is what it was when the catalogue was asked. A
# Galera node sets it anew before each statement (wsrep_auto_increment_control, THD::reset_for_next_command). So the
# statement itself looks, and fails with an error (1690, out of range) if it is another. InnoDB gives a "simple insert",
# whose number of rows is known in advance, one consecutive run of ids in every innodb_autoinc_lock_mode (MariaDB:
# "AUTO_INCREMENT Handling in InnoDB"; MySQL 8.0 Reference Manual, 17.6.1.6).
cdef bytes MY_ID_STEP = (
    b"auto_increment_increment=%d + 18446744073709551615 * (@@auto_increment_increment <> %d)")
# In a batch of several groups one that is locked, or slow, fails at once, and goes with its like: those behind it run
# all the same, and would wait each for its own lock.
cdef bytes MY_MIXED = (b"innodb_lock_wait_timeout=0, lock_wait_timeout=0, max_statement_time=%d.%03d"
                       % (MIXED_MS // 1000, MIXED_MS % 1000))
cdef enum:
    MY_OUT_OF_RANGE = 1690
# A deadlock rolls back the whole transaction, and what has been sent behind it must not run outside of one:
# hence autocommit off instead of BEGIN. What is changed for the batch is put back behind it.
cdef bytes MY_PIPELINE_BEGIN = my_command(
    COM_QUERY, b"SET @tqdb_lock_wait = @@innodb_lock_wait_timeout, @tqdb_last_id = LAST_INSERT_ID(), "
    b"last_insert_id = 0, autocommit = 0, innodb_lock_wait_timeout = 1")
cdef bytes MY_PIPELINE_END = my_command(
    COM_QUERY, b"SET autocommit = 1, innodb_lock_wait_timeout = @tqdb_lock_wait, "
    b"@tqdb_last_id = LAST_INSERT_ID(@tqdb_last_id)")
# what OK packets say in words
cdef bytes INSERTED = b"Records: %d  Duplicates: 0  Warnings: 0"
cdef bytes MATCHED = b"Rows matched: %d  Changed: %d  Warnings: 0"
cdef bytes MY_COMMIT = my_command(COM_QUERY, b"COMMIT")
cdef bytes MY_ROLLBACK = my_command(COM_QUERY, b"ROLLBACK")
# VALUES leaves FOUND_ROWS() as it is
cdef bytes MY_LAST_ID = my_command(COM_QUERY, b"VALUES (LAST_INSERT_ID())")
# around a merged INSERT on the connection of a session whose LAST_INSERT_ID() only the server knows
cdef bytes MY_KEEP_ID = my_command(COM_QUERY, b"SET @tqdb_last_id = LAST_INSERT_ID()")
cdef bytes MY_GIVE_ID = my_command(COM_QUERY, b"DO LAST_INSERT_ID(@tqdb_last_id)")
# is answered also by a Galera node that takes no other statement, and tells in its flags whether a transaction is open
cdef bytes MY_CHECK = my_command(COM_QUERY, b"SET @tqdb_check = NULL")
