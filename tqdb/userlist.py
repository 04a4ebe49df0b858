"""What is known of users where the proxy authenticates them, and the file that says so, as PgBouncer's userlist.txt."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from logging import WARNING

from tqdb import scram
from tqdb.config import Config
from tqdb.errors import ConfigError
from tqdb.log import event
from tqdb.scram import Keys, Verifier

MAX_FILE_BYTES = 8388608
MAX_USERS = 20000
MAX_PASSWORDS = 1000        # that stand in the file as they are: each takes 1 ms when it is read
_LINE = re.compile(r'\A\s*+"((?:[^"]++|"")*+)"\s++"((?:[^"]++|"")*+)"')


class Password:
    """One that is known as it is: it can answer whatever a server asks for."""

    def __init__(self, text: str):
        self.prepared = scram.prepared(text)
        self.text = text
        self.keys: Keys | None = None       # for the salt that a server has asked with last

    def has(self, text: str) -> bool:
        return hmac.compare_digest(self.text.encode(), text.encode())

    def keys_for(self, salt: bytes, iterations: int) -> Keys:
        """It may take long: not for the loop."""
        self.keys = scram.keys_of(self.prepared, salt, iterations)
        return self.keys

    def kept_for(self, salt: bytes, iterations: int) -> Keys | None:
        """What ``keys_for`` has made, if it was for these."""
        kept = self.keys
        fits = kept is not None and (kept.verifier.salt, kept.verifier.iterations) == (salt, iterations)
        return kept if fits else None

    def md5(self, user: bytes, salt: bytes) -> bytes:
        """The answer to a request for md5."""
        inner = hashlib.md5(self.text.encode() + user, usedforsecurity=False).hexdigest().encode()
        return b"md5" + hashlib.md5(inner + salt, usedforsecurity=False).hexdigest().encode()


@dataclass(frozen=True)
class Known:
    """What was found of a user. ``verifier``: None if nobody may log in so, ``why`` says why not, for the log.

    ``iterations``: what a stand-in is to have.
    """

    verifier: Verifier | None
    password: Password | None = None
    why: str = ""
    iterations: int = scram.ITERATIONS


def read_users(config: Config, known: dict[str, Known]) -> dict[str, Known]:
    """Of ``auth_file``; ConfigError: it cannot be used. ``known``: of before, whose passwords have their keys."""
    path = config.postgres.auth_file
    where = f"{config.source}: section [postgres]: key 'auth_file': '{path}'"
    try:
        with open(path, "rb") as f:
            data = f.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise ConfigError(f"{where} cannot be read: {e.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{where} is too long; allowed: {MAX_FILE_BYTES} bytes")
    found = entries(data, where)
    passwords = sum(map(_is_password, found.values()))
    if len(found) > MAX_USERS or passwords > MAX_PASSWORDS:
        raise ConfigError(f"{where} has {len(found)} users, {passwords} with a password as it is; "
                          f"allowed: {MAX_USERS}, {MAX_PASSWORDS}")
    users = {user: _known(secret, known.get(user)) for user, secret in found.items()}
    useless = [user for user, k in users.items() if k.verifier is None]
    if useless:
        event(WARNING, "verifiers_unused", f"{path}: {len(useless)} users cannot log in, their entries being "
              f"neither a SCRAM verifier nor a password; the first: {useless[0]}", file=path, users=len(useless))
    return users


def entries(data: bytes, where: str) -> dict[str, str]:
    """Secrets by user, the last one of each; ConfigError: a line is neither an entry nor a comment."""
    try:
        lines = data.decode().split("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"{where} is not UTF-8 text") from None
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        match = _LINE.match(line)
        if match is None or not match[1]:
            raise ConfigError(f'{where}, line {number} is not valid; allowed: "user" "verifier or password"')
        found[match[1].replace('""', '"')] = match[2].replace('""', '"')
    return found


def _is_hash(secret: str) -> bool:
    return re.fullmatch(r"md5[0-9a-f]{32}", secret) is not None


def _is_password(secret: str) -> bool:
    return bool(secret) and not secret.startswith(f"{scram.PLAIN}$") and not _is_hash(secret)


def _known(secret: str, before: Known | None) -> Known:
    """What an entry of the file is good for; ``before``: the user's until now."""
    if not _is_password(secret):
        return of_verifier(secret)
    if before is not None and before.password is not None and before.password.has(secret):
        return before
    password = Password(secret)
    salt = secrets.token_bytes(scram.SALT_BYTES)
    return Known(scram.keys_of(password.prepared, salt, scram.ITERATIONS).verifier, password)


def of_verifier(text: str | None, iterations: int = scram.ITERATIONS) -> Known:
    """What a server's verifier is good for."""
    if not text:
        return Known(None, why="has no password", iterations=iterations)
    if _is_hash(text):
        return Known(None, why="has an md5 hash, which cannot serve for SCRAM", iterations=iterations)
    try:
        return Known(Verifier.parse(text), iterations=iterations)
    except ValueError:
        return Known(None, why="has no SCRAM verifier", iterations=iterations)
