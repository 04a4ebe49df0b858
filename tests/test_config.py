"""Configuration: every error names file, section and key, and says what is allowed."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tqdb import tls
from tqdb.config import differences, find_file, read_file
from tqdb.errors import ConfigError
from tqdb.rules import explanation, unreachable
from tqdb.values import Address, parse_address

GOOD = "[postgres]\nlisten = 127.0.0.1:5433\n[postgres.main]\nprimary = [::1]:5432   ; the server\n"


def read(tmp_path, text, environ=None):
    path = tmp_path / "tqdb.ini"
    path.write_text(text)
    return read_file(path, environ or {})


def test_defaults_and_comments(tmp_path):
    config = read(tmp_path, GOOD + "[writebatch]\nmax_batch_size = 7          ; rows\n# a comment\n")
    assert config.postgres.backend.primary == (Address("::1", 5432),)
    assert config.writebatch.max_batch_size == 7 and config.writebatch.max_wait_ms_limit == 1000
    assert config.limits.max_client_connections == 10000 and config.limits.drain_timeout == 30
    assert config.mariadb is None and config.metrics.listen is None


def test_environment_wins(tmp_path):
    config = read(tmp_path, GOOD, {"TQDB_WRITEBATCH_MAX_BATCH_SIZE": "9", "TQDB_POSTGRES_LISTEN": "0.0.0.0:1",
                                   "TQDB_POSTGRES_MAIN_PRIMARY": "unix:/run/x", "TQDB_BIN": "ignored"})
    assert config.writebatch.max_batch_size == 9
    assert config.postgres.backend.primary == (Address("/run/x", unix=True),)
    assert str(config.postgres.listen) == "0.0.0.0:1"


@pytest.mark.parametrize("text, words", [
    (GOOD + "[nonsense]\n", ["[nonsense]", "allowed"]),
    (GOOD + "[limits]\nnonsense = 1\n", ["[limits]", "'nonsense'", "drain_timeout"]),
    (GOOD + "[limits]\ndrain_timeout = soon\n", ["[limits]", "'drain_timeout'", "'soon'", "seconds from"]),
    (GOOD + "[writebatch]\nmax_batch_size = 0\n", ["[writebatch]", "'max_batch_size'", "whole number"]),
    (GOOD + "[postgres.x]\n", ["[postgres.x]", "'primary'"]),
    (GOOD + "[mariadb.main]\nprimary = a:1\n", ["[mariadb]", "missing"]),
    ("[postgres]\nlisten = a:1\n", ["[postgres]", "'default'", "[postgres.main]"]),
    ("[postgres]\nlisten = unix:/x\n[postgres.main]\nprimary = a:1\n", ["'listen'", "socket"]),
    ("[postgres]\n[postgres.main]\nprimary = a:1\n", ["'listen'", "missing"]),
    ("[postgres]\nlisten = a:1\n[postgres.main]\nprimary = a\n", ["[postgres.main]", "'primary'", "host:port"]),
    ("[postgres]\nlisten = a:99999\n[postgres.main]\nprimary = a:1\n", ["'listen'", "65535"]),
    (GOOD.replace(":5432 ", ":5432, b ;"), ["[postgres.main]", "'primary'", "several with commas"]),
    (GOOD.replace(":5432 ", ":5432, [::1]:5432 ;"), ["[postgres.main]", "'primary'", "each server once"]),
    (GOOD.replace(":5432 ", ":5432" + "".join(f", a:{n}" for n in range(1, 17)) + " ;"),
     ["[postgres.main]", "'primary'", "16 servers at most"]),
    (GOOD + "target = primary\n", ["[postgres.main]", "'target'", "any, read-write"]),
    (GOOD + "monitor_password = x\n", ["[postgres.main]", "'monitor_user'", "missing"]),
    (GOOD + "monitor_user = x\ncheck_url = http://{host}/\n", ["[postgres.main]", "'check_url'", "one of them"]),
    (GOOD + "check_url = {host}:8008\n", ["[postgres.main]", "'check_url'", "http://"]),
    (GOOD + "check_url = http://{name}/\n", ["[postgres.main]", "'check_url'", "{host} and {port}"]),
    (GOOD.replace("[::1]:5432", "[::1]:5432, unix:/s") + "tls = require\n", ["'tls'", "Unix socket"]),
    (GOOD + "tls = on\n", ["[postgres.main]", "'tls'", "verify-full"]),
    (GOOD + "tls_ca = ca.crt\n", ["[postgres.main]", "'tls_ca'", "absolute path, or system"]),
    (GOOD + "tls_key = /k\n", ["[postgres.main]", "'tls_cert'", "missing"]),
    (GOOD.replace("[::1]:5432", "unix:/s") + "tls = require\n", ["[postgres.main]", "'tls'", "Unix socket"]),
    (GOOD.replace("5433\n", "5433\ntls = require\n"), ["[postgres]", "'tls_cert'", "missing"]),
    (GOOD + "[rule.r]\n", ["[rule.r]", "'max_wait_ms'", "missing", "auto, off"]),
    (GOOD + "[rule.r-s]\nmax_wait_ms = 1\n", ["[rule.r-s]", "letters, digits"]),
    (GOOD + "[rule.r]\nmax_wait_ms = soon\n", ["[rule.r]", "'max_wait_ms'", "'soon'", "milliseconds above 0"]),
    (GOOD + "[rule.r]\nmax_wait_ms = 0\n", ["[rule.r]", "'max_wait_ms'", "off"]),
    (GOOD + "[rule.r]\nmax_wait_ms = 1\ntables = x\n", ["[rule.r]", "'tables'", "fingerprint"]),
    (GOOD + "[rule.r]\nmax_wait_ms = 1\nverb = select\n", ["[rule.r]", "'verb'", "insert, update"]),
    (GOOD + "[rule.r]\nmax_wait_ms = 1\nprotocol = mysql\n", ["[rule.r]", "'protocol'", "postgres, mariadb"]),
    (GOOD + "[rule.r]\nmax_wait_ms = 1\nfingerprint = XYZ\n", ["[rule.r]", "'fingerprint'", "hexadecimal"]),
    (GOOD + "[rule.r]\nmax_wait_ms = 1\nforce = maybe\n", ["[rule.r]", "'force'", "no, yes"]),
    (GOOD + "[rule.r]\nmax_wait_ms = 1\nuser =\n", ["[rule.r]", "'user'", "wildcards"]),
    (GOOD + "".join(f"[rule.r{n}]\nmax_wait_ms = 1\n" for n in range(201)), ["[rule.r200]", "201", "allowed: 200"]),
    (GOOD.replace("5433\n", "5433\nobserve = maybe\n"), ["[postgres]", "'observe'", "no, yes"]),
    (GOOD.replace("5433\n", "5433\nauth = pam\n"), ["[postgres]", "'auth'", "relay, own"]),
    (GOOD.replace("5433\n", "5433\nauth = own\n"), ["[postgres]", "'auth'", "'auth_file'", "'auth_query'"]),
    (GOOD.replace("5433\n", "5433\nauth_file = /f\n"), ["[postgres]", "'auth_file'", "'auth' is not own"]),
    (GOOD.replace("5433\n", "5433\nauth = own\nauth_file = f\n"), ["'auth_file'", "absolute path"]),
    (GOOD.replace("5433\n", "5433\nauth = own\nauth_file = /f\nauth_query = SELECT $1\n"), ["one of"]),
    (GOOD.replace("5433\n", "5433\nauth = own\nauth_query = SELECT $1\n"), ["'auth_query'", "'monitor_user'"]),
    (GOOD.replace("5433\n", "5433\nauth = own\nauth_query = SELECT $11\n"), ["'auth_query'", "with $1"]),
    (GOOD + "[mariadb]\nlisten = 127.0.0.1:1\nauth = own\n[mariadb.main]\nprimary = 127.0.0.1:2\n",
     ["[mariadb]", "'auth'", "PostgreSQL only"]),
    ("", ["neither"]), ("nonsense", ["tqdb.ini"]), ("[a]\nx=1\nx=2\n", ["tqdb.ini", "x"]),
])
def test_errors_tell_where_and_what_is_allowed(tmp_path, text, words):
    with pytest.raises(ConfigError) as e:
        read(tmp_path, text)
    message = str(e.value)
    assert "\n" not in message and "tqdb.ini" in message
    assert all(word in message for word in words), message


def test_environment_errors_name_the_variable(tmp_path):
    with pytest.raises(ConfigError, match="TQDB_LIMITS_DRAIN_TIMEOUT"):
        read(tmp_path, GOOD, {"TQDB_LIMITS_DRAIN_TIMEOUT": "x"})


def test_keys_and_names_of_backends_with_underscores(tmp_path):
    text = GOOD.replace("[postgres.main]", "default = far_away\n[postgres.far_away]")
    config = read(tmp_path, text, {"TQDB_POSTGRES_FAR_AWAY_TLS": "verify-ca", "TQDB_POSTGRES_FAR_AWAY_TLS_CA": "/ca",
                                   "TQDB_POSTGRES_TLS_CERT": "/cert"})
    assert (config.postgres.backend.tls, config.postgres.backend.tls_ca) == ("verify-ca", "/ca")
    assert config.postgres.tls_cert == "/cert"


def test_servers_of_a_backend(tmp_path):
    text = GOOD.replace("[::1]:5432 ", "[::1]:5432,db2:5433 , unix:/s ")
    config = read(tmp_path, text + "target = read-write\nmonitor_user = m\nmonitor_password = a;b\n")
    backend = config.postgres.backend
    assert str(backend.primary) == "[::1]:5432, db2:5433, unix:/s" and len(backend.primary) == 3
    assert (backend.target, backend.monitor_user, backend.monitor_password.text) == ("read-write", "m", "a;b")


def test_a_password_is_not_shown(tmp_path):
    old = read(tmp_path, GOOD + "monitor_user = m\nmonitor_password = hush\n")
    new = read(tmp_path, GOOD + "monitor_user = m\nmonitor_password = quiet\n")
    changed = differences(old, new)
    assert list(changed) == ["[postgres.main] monitor_password"]
    assert "hush" not in str(changed) + str(old) + repr(old) and "quiet" not in str(changed)


def test_a_name_that_tls_cannot_tell(tmp_path):
    config = read(tmp_path, GOOD.replace("[::1]:5432", ".db:5432") + "tls = require\n")
    with pytest.raises(ConfigError, match=r"\[postgres.main\]: key 'primary': '.db:5432'"):
        tls.demands(config)


@pytest.mark.parametrize("section, key, words", [
    ("postgres", "tls_cert", ["No such file"]), ("postgres", "tls_key", ["No such file"]),
    ("postgres", "tls_client_ca", ["No such file"]), ("postgres.main", "tls_ca", ["No such file"]),
    ("postgres.main", "tls_cert", ["No such file"])])
def test_certificates_that_cannot_be_used(tmp_path, certificates, section, key, words):
    """Each file that is missing, and each that is no certificate or asks for a passphrase, is one line with its key."""
    cert, private = certificates.proxy
    files = {"postgres": {"tls_cert": cert, "tls_key": private, "tls_client_ca": certificates.ca},
             "postgres.main": {"tls_ca": certificates.ca, "tls_cert": cert, "tls_key": private}}
    plain = serialization.load_pem_private_key(Path(private).read_bytes(), None)
    secret = tmp_path / "secret"
    secret.write_bytes(plain.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")))
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    for path, said in (("/nonexistent", words), (str(nonsense), ["cannot be used", "PEM"]),
                       (str(secret), ["cannot be used", "PEM"])):
        files[section][key] = path
        text = GOOD.replace("5433\n", "5433\ntls = allow\n" + "".join(
            f"{k} = {v}\n" for k, v in files["postgres"].items()))
        config = read(tmp_path, text + "tls = verify-ca\n" + "".join(
            f"{k} = {v}\n" for k, v in files["postgres.main"].items()))
        with pytest.raises(ConfigError) as e:
            tls.offers(config)
            tls.demands(config)
        message = str(e.value)
        assert f"section [{section}]" in message and path in message and "\n" not in message
        assert all(word in message for word in said), message


@pytest.mark.parametrize("text", ["localhost:5432", "[fe80::1%eth0]:5432", "unix:/tmp/x", "10.0.0.1:0"])
def test_addresses_print_as_they_are_read(text):
    assert str(parse_address(text)) == text


@pytest.mark.parametrize("text", ["", "host", ":5", "::1:5432", "host:port", "unix:x", "a b:1", "host:-1"])
def test_addresses_that_are_none(text):
    with pytest.raises(ValueError):
        parse_address(text)


def test_where_the_file_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_file("given.ini", {"TQDB_CONFIG": "x.ini"}) == "given.ini"
    assert find_file(None, {"TQDB_CONFIG": "x.ini"}) == "x.ini"
    (tmp_path / "tqdb.ini").write_text("")
    assert find_file(None, {}) == "tqdb.ini"


# --- rules -----------------------------------------------------------------------------------------------------------

def rules(tmp_path, *sections: str, more: str = "", environ=None):
    return read(tmp_path, GOOD + more + "".join(
        f"[rule.{name}]\n{keys.replace('; ', chr(10))}\n" for name, _, keys in (s.partition(": ") for s in sections)),
        environ)


def test_rules_stand_in_the_files_order_and_the_environments_behind_them(tmp_path):
    config = rules(tmp_path, "b: max_wait_ms = 5; table = x*", "a: max_wait_ms = auto", environ={
        "TQDB_RULE_B_MAX_WAIT_MS": "2.5", "TQDB_RULE_MY_OWN_MAX_WAIT_MS": "off", "TQDB_RULE_MY_OWN_USER": "me"})
    assert [(r.name, r.wait, r.globs) for r in config.rules] == [
        ("b", 2.5, {"table": "x*"}), ("a", -2.0, {}), ("my_own", -1.0, {"user": "me"})]


def test_a_rule_of_the_environment_names_its_key(tmp_path):
    with pytest.raises(ConfigError, match=r"TQDB_RULE_X.*max_wait_ms"):
        rules(tmp_path, environ={"TQDB_RULE_X": "1"})


@pytest.mark.parametrize(("earlier", "later", "shadowed"), [
    ("", "", True), ("", "table = t", True), ("table = t", "", False), ("table = t*", "table = t1", True),
    ("table = t*", "table = s.t1", True), ("table = s.t*", "table = t1", False), ("table = s.*", "table = s.t?", True),
    ("table = t?", "table = t*", False), ("table = *", "table = a.b", True), ("user = a", "table = t", False),
    ("user = a", "user = b", False), ("user = a*", "user = ab*; table = t", True), ("verb = *", "verb = insert", True),
    ("verb = insert", "verb = *t*", False), ("verb = *t*", "verb = insert", True),
    ("fingerprint = 0*", "fingerprint = 00000000000000ff", True), ("max_wait_ms = off", "user = x", True),
])
def test_rules_behind_which_nothing_is_left(tmp_path, earlier, later, shadowed):
    def keys(text: str) -> str:
        return text if "max_wait_ms" in text else f"max_wait_ms = 5; {text}"

    config = rules(tmp_path, f"one: {keys(earlier)}", f"two: {keys(later)}")
    found = unreachable(config)
    assert found == ({"two": "the earlier rule one matches all that it matches"} if shadowed else {})


@pytest.mark.parametrize(("keys", "why"), [
    ("protocol = mariadb", "protocol mariadb: there is no section [mariadb]"),
    ("protocol = m*", "protocol m*: there is no section [mariadb]"), ("protocol = *", None),
    ("backend = other", "backend other: there is no such section"),
    ("backend = spare", "backend spare: it is no protocol's default"), ("backend = m*", None),
    ("verb = replace", "verb replace: PostgreSQL has no REPLACE"), ("verb = *e", None),
])
def test_rules_that_can_never_match(tmp_path, keys, why):
    config = rules(tmp_path, f"r: max_wait_ms = 5; {keys}", more="[postgres.spare]\nprimary = a:1\n")
    assert unreachable(config) == ({"r": why} if why else {})


@pytest.mark.parametrize(("keys", "words"), [
    ("max_wait_ms = 10; table = public.e*; verb = insert",
     "INSERT to public.e* that have no hint or setting of their own: are batched, and wait up to 10 ms"),
    ("max_wait_ms = auto", "writes that have no hint or setting of their own: are batched while others are under way"),
    ("max_wait_ms = off; force = yes; user = x",
     "writes by the user x, whatever hints and sessions say: are not batched"),
    ("max_wait_ms = 5000", "writes that have no hint or setting of their own: are batched, and wait up to 5000 ms, "
     "cut to max_wait_ms_limit = 1000"),
])
def test_what_a_rule_does_in_words(tmp_path, keys, words):
    config = rules(tmp_path, f"r: {keys}")
    assert explanation(config.rules[0], config) == words
