# MariaDB/MySQL: what a session's statements have left behind, and putting it right where batches ran meanwhile.
#
# LAST_INSERT_ID(), ROW_COUNT(), FOUND_ROWS() and the list of warnings are asked on the client's own connection, which
# did not run its batched writes, or ran others'. What may ask is not to be told from a text (views, routines, triggers,
# prepared statements), so all of it is put right in front of whatever the session itself sends next.

# commands that neither show nor change any of it, or end it
MY_BLIND = frozenset((COM_QUIT, COM_STATISTICS, COM_PING, COM_CHANGE_USER, COM_RESET_CONNECTION, COM_SET_OPTION,
                      COM_STMT_CLOSE, COM_STMT_SEND_LONG_DATA, COM_BINLOG_DUMP, COM_BINLOG_DUMP_GTID,
                      COM_TABLE_DUMP))


cdef class MyBehind(MyLogin):
    """A session, as far as it knows what its last statement has left behind."""
    cdef bint mariadb                   # and not MySQL
    cdef int64_t row_count              # what ROW_COUNT() has to answer
    cdef uint64_t insert_id             # what LAST_INSERT_ID() has to answer, …
    cdef bint insert_id_known           # … unless the server alone knows
    cdef bint insert_id_due             # the server would answer something else
    cdef bint telling                   # a write is under way whose OK packet tells what LAST_INSERT_ID() becomes
    cdef bint stale                     # the connection's last statement was not this session's last
    cdef bint id_was_known              # ``insert_id_known`` when it was last put right, …
    cdef bint id_kept                   # … and otherwise MY_KEEP_ID holds the id
    cdef bint adrift                    # the server has refused that, and not done it since
    cdef bint counts                    # … it is a question of the proxy's, and met the session's own count

    def __init__(self, Engine engine):
        MyLogin.__init__(self, engine)
        self.insert_id_known = True

    cdef bint comparable(self) noexcept:
        """MySQL does not say what its sessions are compared by, nor knows the statements that batches are made of."""
        return self.mariadb

    cdef inline bint to_put_right(self) noexcept:
        return self.stale or self.insert_id_due

    cdef bytes id_to_give(self):
        """The expression that makes LAST_INSERT_ID() what the session has to find."""
        if self.insert_id_known:
            return b"LAST_INSERT_ID(%d)" % self.insert_id
        return b"LAST_INSERT_ID(@tqdb_last_id)" if self.id_kept else b"0"

    cdef bytes put_right(self, bint counted):
        """The statement behind which a session finds what it has left behind; ``counted``: it is told ROW_COUNT().

        The list of warnings is empty, as behind every batched write. Only what uses a table empties it, or a handler
        of what it holds. LAST_INSERT_ID() is set by the function. ROW_COUNT() is 1 behind SELECT … INTO one variable,
        which is a compound statement's own and gone with it; -1 behind a SELECT, for what gave rows and for counts
        that no statement gives; 0 behind the others. FOUND_ROWS() stays in the last case and becomes 1 in the others;
        no write changes it. LIMIT stands against sql_select_limit = 0.
        """
        cdef bytes value = self.id_to_give()
        cdef bytes source = b" FROM (SELECT 1) AS t LIMIT 1"
        if not self.stale:
            # the session's own last write has failed here: what it left stands, but for the id
            return b"VALUES (" + value + b")"
        if self.row_count == 1 and not counted:
            return b"BEGIN NOT ATOMIC DECLARE v BIGINT UNSIGNED; SELECT " + value + b" INTO v" + source + b"; END"
        if self.row_count != 0 and not counted:
            return b"SELECT " + value + source
        return (b"BEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR SQLWARNING BEGIN END; DO " + value
                + b"; SIGNAL SQLSTATE '01000'; END")

    cdef inline int restore(self) except -1:
        """What is not as the session has left it is put right. Nothing else may be under way."""
        if self.to_put_right():
            return self.send_in_front(self.put_right(False))
        return 0

    cdef int send_in_front(self, bytes sql) except -1:
        self.insert_id_due = self.stale = False
        self.id_was_known = self.insert_id_known
        self.server.queue.push(X_IGNORE, COM_QUERY, XF_AGAIN)
        self.server.out.append_bytes(my_command(COM_QUERY, sql))
        return self.server.mark()

    cdef int not_put_right(self) except -1:
        """The server refuses it, as it then most often does what the client has sent behind it.

        An error is the client's own, whatever others have left there. So the client hears of it, and what it sends
        next is tried the same way. Behind its error the count and the warnings are its own, but for the insert id.
        """
        self.adrift = True
        self.insert_id_due = True
        self.insert_id_known = self.id_was_known and not self.id_kept
        return 0

    cdef int put_right_again(self) except -1:
        """It is done."""
        self.adrift = False
        self.id_kept = False
        return 0

    cdef inline bint may_hear(self, int command, int kind) except -1:
        """Whether an answer's packet is the same whatever others have left behind."""
        return not self.adrift or kind == PK_ERR or command == COM_STMT_PREPARE or command in MY_BLIND

    cdef bytes restore_and_count(self, bytes sql):
        """As ``restore``, in front of a text with ROW_COUNT() or FOUND_ROWS(): the text to be sent, None: as it is.

        A count that cannot be set is written into the text.
        """
        cdef bytes text = None
        cdef bint found_rows
        if not self.to_put_right():
            return None
        found_rows = b"found_rows" in sql.lower()
        if self.row_count > 1 or found_rows:
            text = self.engine.hooks.row_count_sql(sql, self.row_count)
        self.send_in_front(self.put_right(text is not None or found_rows))
        return text

    cdef int restore_for(self, bint own, bint tells) except -1:
        """Held writes are about to go alone; ``own``: their table's facts are not known, ``tells``: see ``telling``.

        Whatever else a write whose table is known could find, it replaces.
        """
        if own or self.adrift:
            self.restore()
        elif self.insert_id_due and not tells:
            self.send_in_front(b"DO " + self.id_to_give())
        self.insert_id_known = self.insert_id_known and tells
        self.telling = tells
        self.stale = False
        return 0

    cdef inline int sends_own(self) except -1:
        """A statement of its own goes: the server alone knows the id from then on, whatever is answered before it."""
        self.insert_id_known = self.telling = False
        return 0

    cdef inline int answered_id(self, uint64_t insert_id) except -1:
        """The insert id of an OK packet, which need not be the function's: ids that clients give show there, too."""
        if self.telling and insert_id:
            self.insert_id = insert_id
            self.insert_id_known = True
            self.insert_id_due = False
        return 0

    cdef inline int question_goes(self) except -1:
        """A question of the proxy's goes."""
        self.counts = not self.stale
        self.stale = True
        return 0

    cdef int overhear(self, rows) except -1:
        """ROW_COUNT() is the first column; only the first question finds the session's own."""
        if self.counts and rows and rows[0] and rows[0][0] is not None:
            self.row_count = strtoll(PyBytes_AS_STRING(rows[0][0]), NULL, 10)
        return 0

    cdef inline int was_batched(self, int64_t row_count) except -1:
        self.row_count = row_count
        self.stale = True
        return 0

    cdef inline int new_id(self, uint64_t insert_id) except -1:
        """A batched write has changed what LAST_INSERT_ID() answers."""
        self.insert_id = insert_id
        self.insert_id_known = self.insert_id_due = True
        return 0

    cdef int forget(self) except -1:
        """The session is as after its login."""
        self.insert_id = 0
        self.insert_id_known = True
        self.insert_id_due = self.stale = self.telling = False
        return self.put_right_again()
