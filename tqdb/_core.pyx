# cython: boundscheck=True
# The compiled core: one extension, its rooms included in the order in which they depend on each other.
# One namespace keeps calls between them at C speed and leaves one file to freeze.
#
# Indexes of lists, tuples and bytes are checked: what a peer's message made wrong is an exception, which the guard
# turns into the end of one connection, and not the end of the process.

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport log1p
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc, realloc, strtoll
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

import hashlib
import heapq
import ipaddress
import logging
import re
import ssl
import sys
from collections import OrderedDict, deque
from weakref import WeakValueDictionary

log = logging.getLogger("tqdb.core")

include "core/buffer.pxi"
include "core/stats.pxi"
include "core/exposition.pxi"
include "core/sqlwords.pxi"
include "core/sqltokens.pxi"
include "core/sqlcalls.pxi"
include "core/sqltuples.pxi"
include "core/sqlscan.pxi"
include "core/sqlnormal.pxi"
include "core/sqlblocks.pxi"
include "core/sqlnumber.pxi"
include "core/expect.pxi"
include "core/endpoint.pxi"
include "core/tls.pxi"
include "core/proxied.pxi"
include "core/shapes.pxi"
include "core/rules.pxi"
include "core/crowd.pxi"
include "core/watch.pxi"
include "core/awaited.pxi"
include "core/classes.pxi"
include "core/held.pxi"
include "core/batch.pxi"
include "core/peers.pxi"
include "core/gather.pxi"
include "core/asking.pxi"
include "core/depart.pxi"
include "core/engine.pxi"
include "core/history.pxi"
include "core/counted.pxi"
include "core/alike.pxi"
include "core/ruled.pxi"
include "core/watched.pxi"
include "core/session.pxi"
include "core/server.pxi"
include "core/pgwire.pxi"
include "core/pgexpect.pxi"
include "core/pgstatements.pxi"
include "core/pgsegment.pxi"
include "core/pgblocks.pxi"
include "core/pglogin.pxi"
include "core/pgextended.pxi"
include "core/pgsession.pxi"
include "core/pgnumbered.pxi"
include "core/pgbatch.pxi"
include "core/pgserver.pxi"
include "core/mywire.pxi"
include "core/mybound.pxi"
include "core/myanswer.pxi"
include "core/mylogin.pxi"
include "core/mybehind.pxi"
include "core/myblocks.pxi"
include "core/mycommands.pxi"
include "core/mysession.pxi"
include "core/mytexts.pxi"
include "core/mykeyed.pxi"
include "core/mysplit.pxi"
include "core/mybatch.pxi"
include "core/myserver.pxi"
