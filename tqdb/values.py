"""Values of the configuration: an address, a password, and what reads each kind of value from its text.

A reader answers the value; a ValueError of one line tells what is allowed.
"""

import fnmatch
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_SERVERS = 16            # of a backend
MAX_GLOB = 200              # characters


@dataclass(frozen=True)
class Address:
    """``host:port``, ``[ipv6]:port`` or ``unix:/path`` (then ``port`` is 0 and ``host`` the path)."""

    host: str
    port: int = 0
    unix: bool = False

    def __str__(self) -> str:
        if self.unix:
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """An ``Address`` from its text; ValueError tells what is allowed."""
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            raise ValueError("allowed: unix:/absolute/path")
        return Address(text[5:], unix=True)
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]]+)):(\d+)", text)
    if not match or not 0 <= int(match[3]) <= 65535:
        raise ValueError("allowed: host:port, [ipv6]:port or unix:/path, port 0 to 65535")
    return Address(match[1] or match[2], int(match[3]))


class Addresses(tuple[Address, ...]):
    """Servers, in the order in which they are preferred."""

    def __str__(self) -> str:
        return ", ".join(map(str, self))


def parse_addresses(text: str) -> Addresses:
    """One address or several with commas between; ValueError tells what is allowed."""
    try:
        found = Addresses(parse_address(part.strip()) for part in text.split(","))
    except ValueError as e:
        raise ValueError(f"{e}; several with commas between") from None
    if len(found) > MAX_SERVERS:
        raise ValueError(f"allowed: {MAX_SERVERS} servers at most")
    if len(set(found)) < len(found):
        raise ValueError("allowed: each server once")
    return found


class Secret:
    """A password: ``text`` is what it is; nothing shows it."""

    def __init__(self, text: str):
        self.text = text

    def __eq__(self, other) -> bool:
        return isinstance(other, Secret) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__


def parse_secret(text: str) -> Secret:
    """A password: any text without a zero byte."""
    if "\0" in text:
        raise ValueError("allowed: any text")
    return Secret(text)


def parse_user(text: str) -> str:
    """Who logs in at a server: any text without a zero byte, and not none."""
    if not text or "\0" in text:
        raise ValueError("allowed: any text")
    return text


def parse_url(text: str) -> str:
    """An address of HTTP in which ``{host}`` and ``{port}`` stand for a server's, as it was written."""
    allowed = "allowed: http:// or https://, {host} and {port} for the server's"
    try:
        filled = text.format(host="127.0.0.1", port=1)
        parts = urlsplit(filled)
        port = parts.port
    except (ValueError, IndexError, KeyError, AttributeError):
        raise ValueError(allowed) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not filled.isprintable() or (
            " " in filled or not filled.isascii()):
        raise ValueError(allowed)
    return text


def parse_listen(text: str) -> Address:
    """An address of TCP."""
    address = parse_address(text)
    if address.unix:
        raise ValueError("allowed: host:port or [ipv6]:port (a Unix socket goes into the key 'socket')")
    return address


def parse_path(text: str) -> str:
    """An absolute path; whether anything is there is not looked at."""
    if not text.startswith("/"):
        raise ValueError("allowed: an absolute path")
    return text


def parse_query(text: str) -> str:
    """A query with one parameter."""
    if not re.search(r"\$1(?!\d)", text) or "\0" in text:
        raise ValueError("allowed: a query of PostgreSQL's with $1")
    return text


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number, bounds included."""
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or not low <= int(text) <= high:
            raise ValueError(f"allowed: a whole number from {low} to {high}")
        return int(text)
    return parse


def seconds(low: float, high: float) -> Callable[[str], float]:
    """Reads seconds as a decimal fraction, bounds included."""
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d+(\.\d+)?", text) or not low <= float(text) <= high:
            raise ValueError(f"allowed: seconds from {low} to {high}")
        return float(text)
    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """Reads one of these words."""
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"allowed: {', '.join(words)}")
        return text
    return parse


def parse_authorities(text: str) -> str:
    """An absolute path, or ``system``."""
    if text != "system" and not text.startswith("/"):
        raise ValueError("allowed: an absolute path, or system")
    return text


def parse_balancers(text: str) -> str:
    """``off``, ``require``, or networks with commas between, as they were written."""
    if text not in ("off", "require"):
        try:
            for part in text.split(","):
                ipaddress.ip_network(part.strip())
        except ValueError:
            raise ValueError("allowed: off, require, or networks separated by commas (10.0.0.0/8, fd00::/8)") from None
    return text


def parse_name(text: str) -> str:
    """The NAME of a backend's section."""
    if not re.fullmatch(r"[A-Za-z0-9_]+", text):
        raise ValueError("allowed: letters, digits and _")
    return text


def parse_glob(text: str) -> str:
    """A name with wildcards, as ``fnmatch`` takes them."""
    if not 0 < len(text) <= MAX_GLOB or not text.isprintable():
        raise ValueError(f"allowed: a name, with * ? [abc] as wildcards, up to {MAX_GLOB} characters")
    return text


def glob_of(*words: str) -> Callable[[str], str]:
    """Reads a glob that at least one of these words matches."""
    def parse(text: str) -> str:
        if len(text) > MAX_GLOB or not fnmatch.filter(words, text):
            raise ValueError(f"allowed: {', '.join(words)}, or a pattern with * ? [abc] that one of them matches")
        return text
    return parse


def parse_fingerprint(text: str) -> str:
    """A glob of fingerprints."""
    if not re.fullmatch(r"[0-9a-f*?]{1,16}", text):
        raise ValueError("allowed: 16 hexadecimal digits in lower case, or fewer with * or ?")
    return text


def parse_wait(text: str) -> str:
    """Milliseconds, ``auto`` or ``off``, as it was written."""
    if text in ("auto", "off"):
        return text
    if not re.fullmatch(r"\d{1,7}(\.\d{1,6})?", text) or not 0 < float(text) <= 3600000:
        raise ValueError("allowed: milliseconds above 0, up to 3600000; auto; off")
    return text
