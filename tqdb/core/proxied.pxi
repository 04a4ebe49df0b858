# The PROXY protocol, versions 1 and 2: what a balancer says of its client in front of everything else.
# https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt

cdef enum:
    PROXY_V1_BYTES = 107            # the longest line of version 1, its end included
    PROXY_V2_HEAD = 16              # signature, version and command, family and transport, length
    PROXY_V2_BYTES = 4096           # of addresses and what follows them (TLVs) that are taken

cdef bytes PROXY_V1 = b"PROXY "
cdef bytes PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"


cdef bint begins_as(const char* p, Py_ssize_t n, bytes expected) noexcept:
    return memcmp(p, PyBytes_AS_STRING(expected), min(n, PyBytes_GET_SIZE(expected))) == 0


cdef Py_ssize_t proxy_header(const char* p, Py_ssize_t n, list origin) except -1:
    """Reads a header: its length, or NEED_MORE. ValueError: it is none.

    ``origin`` gets ``(host, port)`` of the client and of where it connected to; nothing, where the header says that
    the connection is the balancer's own, or is silent about the client.
    """
    if begins_as(p, n, PROXY_V1):
        return proxy_line(p, n, origin)
    if begins_as(p, n, PROXY_V2):
        return proxy_binary(p, n, origin)
    raise ValueError("a header is needed here, in front of everything else")


cdef Py_ssize_t proxy_line(const char* p, Py_ssize_t n, list origin) except -1:
    """Version 1: ``PROXY TCP4 source destination port port``, or ``PROXY UNKNOWN`` and anything."""
    cdef const char* end = <const char*>memchr(p, b"\n", min(n, PROXY_V1_BYTES))
    cdef list words
    if end == NULL:
        if n >= PROXY_V1_BYTES:
            raise ValueError("the header's line does not end")
        return NEED_MORE
    if (end - 1)[0] != b"\r":
        raise ValueError("the header's line does not end as it should")
    words = (p[:end - 1 - p]).split(b" ")
    if words[1] == b"UNKNOWN":
        return end - p + 1
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ValueError("the header's line is none of PROXY TCP4, TCP6 or UNKNOWN")
    version = 4 if words[1] == b"TCP4" else 6
    try:
        hosts = [ipaddress.ip_address(word.decode("ascii")) for word in words[2:4]]
    except ValueError:
        raise ValueError("the header's addresses are none") from None
    if any([host.version != version or b"%" in word for host, word in zip(hosts, words[2:4])]):
        raise ValueError("the header's addresses are of another family than it says, or have a zone")
    for word in words[4:]:
        if not word.isdigit() or len(word) > 5 or int(word) > 65535 or (word[:1] == b"0" and len(word) > 1):
            raise ValueError("the header's ports are none")
    origin += [(str(hosts[0]), int(words[4])), (str(hosts[1]), int(words[5]))]
    return end - p + 1


cdef Py_ssize_t proxy_binary(const char* p, Py_ssize_t n, list origin) except -1:
    """Version 2: a head, addresses by family, and what nobody here reads (TLVs)."""
    cdef Py_ssize_t length
    cdef int command, family, size
    if n < PROXY_V2_HEAD:
        return NEED_MORE
    command = <uint8_t>p[12]
    family = <uint8_t>p[13]
    length = <uint8_t>p[14] << 8 | <uint8_t>p[15]
    if command >> 4 != 2 or command & 15 > 1:
        raise ValueError("the header is of an unknown version or command")
    if length > PROXY_V2_BYTES:
        raise ValueError("the header is too long")
    if n < PROXY_V2_HEAD + length:
        return NEED_MORE
    if command & 15 == 0 or family >> 4 == 0:
        return PROXY_V2_HEAD + length           # LOCAL: the balancer itself; UNSPEC: it does not say
    if family & 15 != 1 or family >> 4 > 3:
        raise ValueError("the header's connection is no stream, or of an unknown family")
    size = (4, 16, 108)[(family >> 4) - 1]
    if length < 2 * size + (4 if size < 108 else 0):
        raise ValueError("the header is shorter than its addresses")
    if size == 108:
        return PROXY_V2_HEAD + length           # a Unix socket has no address to tell
    body = p[PROXY_V2_HEAD:PROXY_V2_HEAD + length]
    for k in range(2):
        port = body[2 * size + 2 * k:2 * size + 2 * k + 2]
        origin.append((str(ipaddress.ip_address(body[k * size:(k + 1) * size])), int.from_bytes(port, "big")))
    return PROXY_V2_HEAD + length


def read_proxy_header(bytes data):
    """``(bytes taken, origin)``: see ``make_proxy_header``, None where it is not told. None: more is needed."""
    cdef list origin = []
    cdef Py_ssize_t taken = proxy_header(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), origin)
    return None if taken == NEED_MORE else (taken, tuple(origin) or None)


def make_proxy_header(str version, origin):
    """A header of version ``v1`` or ``v2``. ``origin``: ``(host, port)`` of the client and of where it connected to.

    None: a client without an address (Unix socket).
    """
    if origin is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else PROXY_V2 + b"\x20\0\0\0"
    hosts = [ipaddress.ip_address(host.partition("%")[0]) for host, _ in origin]
    hosts = [getattr(host, "ipv4_mapped", None) or host for host in hosts]
    if hosts[0].version != hosts[1].version:
        hosts = [host if host.version == 6 else ipaddress.ip_address(f"::ffff:{host}") for host in hosts]
    ports = [port for _, port in origin]
    if version == "v1":
        return f"PROXY TCP{hosts[0].version} {hosts[0]} {hosts[1]} {ports[0]} {ports[1]}\r\n".encode()
    body = hosts[0].packed + hosts[1].packed + b"".join([port.to_bytes(2, "big") for port in ports])
    return (PROXY_V2 + bytes((0x21, 0x11 if hosts[0].version == 4 else 0x21)) + len(body).to_bytes(2, "big") + body)
