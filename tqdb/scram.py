"""SCRAM-SHA-256 and -PLUS, both sides of the exchange, without I/O: RFC 5802, 5929, 7677.

Who accepts a login learns the client's key from its proof. With it, and the verifier, ``Initiator`` logs in wherever
the same verifier is kept; the password is not needed.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata
from dataclasses import dataclass, field

PLAIN, PLUS = "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"
BINDING = b"p=tls-server-end-point"
ITERATIONS = 4096           # PostgreSQL's own
MAX_ITERATIONS = 10_000_000
SALT_BYTES = 16
NONCE_BYTES = 18
MAX_MESSAGE = 4096
KEY_BYTES = 32
# of certificates' signatures, by the algorithm's identifier; MD5 and SHA-1 become SHA-256: RFC 5929, 4.1
_RSA, _ECDSA = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01", b"\x2a\x86\x48\xce\x3d\x04"
_HASHES = {
    _RSA + b"\x04": "sha256", _RSA + b"\x05": "sha256", _RSA + b"\x0b": "sha256", _RSA + b"\x0c": "sha384",
    _RSA + b"\x0d": "sha512", _RSA + b"\x0e": "sha224", _ECDSA + b"\x01": "sha256", _ECDSA + b"\x03\x01": "sha224",
    _ECDSA + b"\x03\x02": "sha256", _ECDSA + b"\x03\x03": "sha384", _ECDSA + b"\x03\x04": "sha512"}


class Malformed(Exception):
    """The peer does not keep to the protocol; the text says how and holds nothing of what it sent."""


class Failed(Exception):
    """The peer keeps to the protocol, and has not shown what it should: the text says what."""


class BindingFailed(Failed):
    """The two ends do not see the same TLS connection."""


def _hmac(key: bytes, text: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Malformed("malformed SCRAM message: not Base64") from None


def prepared(password: str) -> bytes:
    """The password as both ends use it: SASLprep (RFC 4013), or as it is where that does not allow it."""
    if password.isascii() and password.isprintable():
        return password.encode()
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    text = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    forbidden = (stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
                 stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
                 stringprep.in_table_c9, stringprep.in_table_a1)
    from_right = [stringprep.in_table_d1(c) for c in text]
    if not text or any(table(c) for c in text for table in forbidden) or (any(from_right) and (
            not from_right[0] or not from_right[-1] or any(stringprep.in_table_d2(c) for c in text))):
        return password.encode()
    return text.encode()


@dataclass(frozen=True)
class Verifier:
    """What a server keeps in place of a password."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """From ``SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY``; ValueError: it is none."""
        match = re.fullmatch(r"SCRAM-SHA-256\$(\d{1,8}):([\w+/=]+)\$([\w+/=]+):([\w+/=]+)", text, re.ASCII)
        if match is None:
            raise ValueError("not a SCRAM verifier")
        try:
            found = cls(int(match[1]), *map(_decoded, match.group(2, 3, 4)))
        except Malformed:
            raise ValueError("not a SCRAM verifier") from None
        sizes = {len(found.stored_key), len(found.server_key)}
        if not 1 <= found.iterations <= MAX_ITERATIONS or sizes != {KEY_BYTES}:
            raise ValueError("not a SCRAM verifier")
        return found

    def text(self) -> str:
        """As ``parse`` reads it."""
        salt, stored, server = (base64.b64encode(b).decode() for b in (self.salt, self.stored_key, self.server_key))
        return f"{PLAIN}${self.iterations}:{salt}${stored}:{server}"


@dataclass(frozen=True)
class Keys:
    """All that is needed to log in where ``verifier`` is kept."""

    verifier: Verifier
    client_key: bytes = field(repr=False)


def keys_of(password: bytes, salt: bytes, iterations: int) -> Keys:
    """From a ``prepared`` password. It takes as long as ``iterations`` says: 1 ms for 4,096."""
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, iterations)
    client_key = _hmac(salted, b"Client Key")
    return Keys(Verifier(iterations, salt, _hash(client_key), _hmac(salted, b"Server Key")), client_key)


def stand_in(secret: bytes, user: str, iterations: int) -> Verifier:
    """For a user whom nobody knows: always the same, as a verifier would be, and no password fits it."""
    def some(what: bytes) -> bytes:
        return _hmac(secret, what + user.encode("utf-8", "surrogateescape"))
    return Verifier(iterations, some(b"salt\0")[:SALT_BYTES], some(b"stored\0"), some(b"server\0"))


def _nonce() -> bytes:
    return base64.b64encode(secrets.token_bytes(NONCE_BYTES))


def _attributes(data: bytes) -> list[tuple[bytes, bytes]]:
    """``a=value`` parted by commas, in order."""
    if len(data) > MAX_MESSAGE:
        raise Malformed("malformed SCRAM message: too long")
    found = []
    for part in data.split(b","):
        if len(part) < 2 or part[1:2] != b"=" or not part[:1].isalpha():
            raise Malformed("malformed SCRAM message: attribute expected")
        found.append((part[:1], part[2:]))
    return found


def _is_nonce(text: bytes) -> bool:
    return bool(text) and all(0x21 <= c <= 0x7e and c != 0x2c for c in text)


class Acceptor:
    """The server's side of one login. ``end_point``: of the TLS connection, None where nothing is to be bound.

    ``known`` says whether the verifier is a user's; a stand-in's exchange looks like any other, and fails.
    """

    def __init__(self, verifier: Verifier, known: bool, end_point: bytes | None = None):
        self.verifier = verifier
        self.known = known
        self.end_point = end_point
        self.header = b""           # what the client said of channel binding
        self.said = b""             # client-first-message-bare, server-first-message
        self.nonce = b""

    def first(self, mechanism: str, data: bytes) -> bytes:
        """Answers the client's first message with the server's."""
        if mechanism not in mechanisms(self.end_point):
            raise Malformed("client selected an invalid SASL authentication mechanism")
        flag, _, rest = data.partition(b",")
        identity, _, bare = rest.partition(b",")
        self.header = data[:len(data) - len(bare)]
        if self.header.count(b",") != 2 or b"\0" in data:
            raise Malformed("malformed SCRAM message: header expected")
        if identity:
            raise Malformed("client uses authorization identity, but it is not supported")
        self._check_flag(mechanism, flag)
        attributes = _attributes(bare)
        # the name is empty in PostgreSQL's protocol, or of no importance: the start-up message has it
        if [name for name, _ in attributes[:2]] != [b"n", b"r"]:
            raise Malformed("malformed SCRAM message: user name and nonce expected")
        if not _is_nonce(attributes[1][1]):
            raise Malformed("malformed SCRAM message: non-printable characters in the nonce")
        self.nonce = attributes[1][1] + _nonce()
        answer = b"r=%b,s=%b,i=%d" % (self.nonce, base64.b64encode(self.verifier.salt), self.verifier.iterations)
        self.said = bare + b"," + answer
        return answer

    def _check_flag(self, mechanism: str, flag: bytes) -> None:
        if mechanism == PLUS:
            if flag != BINDING:
                raise Malformed("unsupported SCRAM channel-binding type" if flag[:2] == b"p=" else
                                "malformed SCRAM message: channel binding expected")
        elif flag == b"y" and self.end_point is not None:
            # it could bind and has not seen that it may: somebody between has taken the offer away
            raise BindingFailed("SCRAM channel binding negotiation error")
        elif flag not in (b"n", b"y"):
            raise Malformed("malformed SCRAM message: unexpected channel-binding flag")

    def final(self, data: bytes) -> tuple[bytes, Keys]:
        """Answers the client's last message; with what logs in elsewhere. ``Failed``: the password is wrong."""
        without, _, last = data.rpartition(b",")
        attributes = _attributes(data)
        if len(attributes) < 3 or [name for name, _ in attributes[:2]] != [b"c", b"r"] or attributes[-1][0] != b"p":
            raise Malformed("malformed SCRAM message: channel binding, nonce and proof expected")
        proof = _decoded(last[2:])
        if len(proof) != KEY_BYTES:
            raise Malformed("malformed SCRAM message: malformed proof")
        bound = self.header + (self.end_point or b"" if self.header.startswith(b"p=") else b"")
        if not hmac.compare_digest(_decoded(attributes[0][1]), bound):
            raise BindingFailed("SCRAM channel binding check failed")
        if not hmac.compare_digest(attributes[1][1], self.nonce):
            raise Malformed("invalid SCRAM response: nonce does not match")
        said = self.said + b"," + without
        client_key = _xor(proof, _hmac(self.verifier.stored_key, said))
        signature = _hmac(self.verifier.server_key, said)
        fits = hmac.compare_digest(_hash(client_key), self.verifier.stored_key)
        if not fits or not self.known:
            raise Failed("the proof does not fit")
        return b"v=" + base64.b64encode(signature), Keys(self.verifier, client_key)


class Initiator:
    """The client's side of one login: ``first``, ``challenged``, ``proved`` with the keys, ``finished``."""

    def __init__(self, offered: list[str], end_point: bytes | None = None, secure: bool = False):
        """``offered`` mechanisms; ``end_point`` of the TLS connection, if there is one (``secure``) that can be bound.

        ``Failed``: none of them is one of these.
        """
        usable = [m for m in mechanisms(end_point) if m in offered]
        if not usable:
            raise Failed("none of the authentication mechanisms that it offers can be used")
        self.mechanism = usable[0]
        if self.mechanism == PLUS:
            self.header, self.bound = BINDING + b",,", end_point
        else:
            self.header, self.bound = b"y,," if secure and end_point is not None else b"n,,", b""
        self.nonce = _nonce()
        self.bare = b"n=,r=" + self.nonce
        self.challenge = b""
        self.signature = b""

    def first(self) -> bytes:
        return self.header + self.bare

    def challenged(self, data: bytes) -> tuple[bytes, int]:
        """Salt and iterations of the server's verifier."""
        attributes = _attributes(data)
        if [name for name, _ in attributes[:3]] != [b"r", b"s", b"i"]:
            raise Malformed("malformed SCRAM message: nonce, salt and iterations expected")
        nonce, salt, iterations = (value for _, value in attributes[:3])
        if not _is_nonce(nonce) or not nonce.startswith(self.nonce) or len(nonce) == len(self.nonce):
            raise Malformed("invalid SCRAM response: nonce does not match")
        if not re.fullmatch(rb"[1-9]\d{0,7}", iterations) or int(iterations) > MAX_ITERATIONS:
            raise Malformed("malformed SCRAM message: invalid iteration count")
        self.challenge, self.nonce = data, nonce
        return _decoded(salt), int(iterations)

    def proved(self, keys: Keys) -> bytes:
        """The client's last message."""
        without = b"c=%b,r=%b" % (base64.b64encode(self.header + self.bound), self.nonce)
        said = b",".join((self.bare, self.challenge, without))
        self.signature = _hmac(keys.verifier.server_key, said)
        proof = _xor(keys.client_key, _hmac(keys.verifier.stored_key, said))
        return without + b",p=" + base64.b64encode(proof)

    def finished(self, data: bytes) -> None:
        """``Failed``: the server does not have the verifier."""
        attributes = _attributes(data)
        if attributes[0][0] != b"v" or not self.signature:
            raise Malformed("malformed SCRAM message: signature expected")
        if not hmac.compare_digest(_decoded(attributes[0][1]), self.signature):
            raise Failed("it has not shown that it knows the verifier")


def mechanisms(end_point: bytes | None) -> list[str]:
    """What is offered over a connection, the better one first."""
    return [PLUS, PLAIN] if end_point is not None else [PLAIN]


def _der(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the contents of the element at ``at``; ValueError, IndexError: there is none."""
    tag, size, start = data[at], data[at + 1], at + 2
    if size & 0x80:
        count = size & 0x7f
        size, start = int.from_bytes(data[start:start + count], "big"), start + count
    if start + size > len(data):
        raise ValueError("truncated")
    return tag, start, start + size


def end_point(certificate: bytes | None) -> bytes | None:
    """``tls-server-end-point`` of a certificate in DER; None where its signature has no hash by which it is told."""
    if certificate is None:
        return None
    try:
        _, start, _ = _der(certificate, 0)
        _, _, start = _der(certificate, start)              # behind what is signed
        _, start, end = _der(certificate, start)
        _, first, last = _der(certificate, start)
        name = _HASHES.get(certificate[first:last])
        if certificate[first:last] == _RSA + b"\x0a":
            name = _pss_hash(certificate[last:end])
    except (ValueError, IndexError):
        return None
    return hashlib.new(name, certificate).digest() if name is not None else None


# hashAlgorithm of RSASSA-PSS-params, by the last byte of the identifier 2.16.840.1.101.3.4.2
_PSS = {1: "sha256", 2: "sha384", 3: "sha512", 4: "sha224"}


def _pss_hash(params: bytes) -> str | None:
    """RFC 4055: the hash is the first parameter, SHA-1 if there is none."""
    _, start, end = _der(params, 0)
    if start == end or params[start] != 0xa0:
        return "sha256"
    _, start, _ = _der(params, start)
    _, start, _ = _der(params, start)
    _, first, last = _der(params, start)
    if params[first:last - 1] == b"\x60\x86\x48\x01\x65\x03\x04\x02":
        return _PSS.get(params[last - 1])
    return "sha256" if params[first:last] == b"\x2b\x0e\x03\x02\x1a" else None
