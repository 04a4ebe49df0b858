# The compiled core: one extension, its rooms included in the order in which they depend on each other.
# One namespace keeps calls between them at C speed and leaves one file to freeze.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove

import hashlib
import heapq
import logging
from collections import OrderedDict, deque

log = logging.getLogger("tqdb.core")

include "core/buffer.pxi"
include "core/stats.pxi"
include "core/exposition.pxi"
include "core/sqlwords.pxi"
include "core/sqlscan.pxi"
include "core/endpoint.pxi"
include "core/fingerprint.pxi"
include "core/batch.pxi"
include "core/session.pxi"
include "core/pgwire.pxi"
include "core/pgsession.pxi"
include "core/pgserver.pxi"
include "core/mywire.pxi"
include "core/mysession.pxi"
include "core/myserver.pxi"
