"""``auth = own``: the client's login ends in the proxy, which logs in at the server with the key that it reveals."""

import os
import shutil
import signal
import socket
import struct
import subprocess
from base64 import b64encode

import psycopg
import pytest
from tqdb._core import PgServer, PgSession

from tests.crowd import together
from tests.fix_own import WRONG, RawLogin, verifiers, write_users
from tests.fix_servers import tqdb_command
from tests.fix_tls import PASSWORD, SERVERS, TlsProxy, to_clients, to_servers
from tests.raw_tls import to_the_end
from tests.sansio import Hooks
from tests.test_refusals import ERRORS, WITHOUT_SQLSTATE, last_words, startup
from tests.test_tls_matrix import by_asyncpg, by_pg8000, by_psycopg, libpq, psql
from tests.wait import wait_for
from tests.wire import PG_LOGIN, pg, pg_query, pg_split, pg_startup
from tqdb.config import Config, Protocol
from tqdb.errors import ConfigError
from tqdb.load.servers import Postgres
from tqdb.logins import Login
from tqdb.scram import PLAIN, Acceptor, Initiator, keys_of
from tqdb.userlist import MAX_FILE_BYTES, MAX_PASSWORDS, MAX_USERS, Known, entries, read_users
from tqdb.verifiers import Source

CONNECT = [psql, by_psycopg, by_asyncpg, by_pg8000]


@pytest.mark.parametrize("server", SERVERS)
def test_every_client(own_proxy, certificates, server):
    """Whatever is TLS and what is not; also those that could bind channels, as they now can."""
    proxy = own_proxy(server)
    for connect in CONNECT:
        if connect is psql and not shutil.which("psql"):
            continue
        for client in ("plain", "tls"):
            for user in ("u_scram", "u_trust"):
                assert connect(proxy.postgres_port, user, client, certificates) == 42, (connect, client, user)
        with pytest.raises(Exception, match=r"password authentication failed|28P01"):
            connect(proxy.postgres_port, "u_nobody", "tls", certificates)
    assert proxy.metric("tqdbproxy_internal_errors_total") == 0
    assert PASSWORD not in proxy.log() and "SCRAM-SHA-256$" not in proxy.log()


@pytest.mark.parametrize("server", SERVERS)
def test_channels_are_bound_to_the_proxys_certificate(own_proxy, certificates, server):
    port = own_proxy(server).postgres_port
    with psycopg.connect(libpq(port, "u_scram", "tls", certificates) + " channel_binding=require") as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("u_scram",)
    with psycopg.connect(libpq(port, "u_scram", "tls", certificates) + " channel_binding=disable") as connection:
        assert connection.execute("SELECT 42").fetchone() == (42,)
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        psycopg.connect(libpq(port, "u_scram", "plain", certificates) + " channel_binding=require")


def test_the_unix_socket(own_proxy):
    proxy = own_proxy()
    os.symlink(f"{proxy.directory}/postgres.sock", f"{proxy.directory}/.s.PGSQL.5432")
    with psycopg.connect(f"host={proxy.directory} port=5432 user=u_scram password={PASSWORD} dbname=postgres") as one:
        assert one.execute("SELECT 42").fetchone() == (42,)


def test_an_unknown_user_looks_like_a_wrong_password(own_proxy):
    """The same messages of the same lengths; the salt is the same each time, too."""
    port = own_proxy().postgres_port
    seen = []
    for user, password in (("u_scram", WRONG), ("u_scrum", PASSWORD), ("u_scrum", WRONG), ("u_scram", WRONG)):
        login = RawLogin(port, user, password).run()
        assert login.error[b"C"] == b"28P01"
        assert login.error[b"M"] == b'password authentication failed for user "%b"' % user.encode()
        seen.append([(kind, len(body), body.replace(user.encode(), b"") if kind == b"E" else body[:4])
                     for kind, body in login.said])
        with pytest.raises(ConnectionError):
            login.message()
        login.close()
    assert seen[0] == seen[1] == seen[2] == seen[3]
    challenges = [RawLogin(port, "u_scrum").challenge() for _ in range(2)]
    salts = {c.split(b",")[1] for c in challenges}
    assert len(salts) == 1 and challenges[0] != challenges[1]


def test_users_the_server_does_not_know(own_proxy):
    """The proxy knows them; what the server says of them is passed on."""
    error = RawLogin(own_proxy().postgres_port, "u_elsewhere").run().error
    assert error[b"C"] == b"28000" and b"u_elsewhere" in error[b"M"]


def test_a_database_that_is_not_there(own_proxy):
    error = RawLogin(own_proxy().postgres_port, "u_scram", database="nowhere").run().error
    assert error[b"C"] == b"3D000"


def test_a_verifier_that_is_not_the_servers(own_proxy, users, tls_postgres):
    """The same password with another salt: the proxy has no key that fits."""
    keys = keys_of(PASSWORD.encode(), b"another salt 16b", 4096)
    write_users(users, {"u_scram": keys.verifier.text(), "u_md5": keys.verifier.text(), "u_trust": PASSWORD})
    port = own_proxy().postgres_port
    error = RawLogin(port, "u_scram").run().error
    assert error[b"C"] == b"28000" and b"verifier of the user is another one" in error[b"M"]
    error = RawLogin(port, "u_md5").run().error
    assert error[b"C"] == b"28000" and b"asks for the password itself" in error[b"M"]


def test_passwords_in_the_file_answer_whatever_the_server_asks_for(own_proxy, users, certificates):
    write_users(users, dict.fromkeys(("u_scram", "u_md5", "u_password", "u_trust"), PASSWORD))
    proxy = own_proxy("require")
    for user in ("u_scram", "u_md5", "u_password", "u_trust"):
        for _ in range(2):
            assert by_psycopg(proxy.postgres_port, user, "tls", certificates) == 42
        assert RawLogin(proxy.postgres_port, user, WRONG).run().error[b"C"] == b"28P01"
    error = RawLogin(own_proxy("off").postgres_port, "u_password").run().error
    assert error[b"C"] == b"28000" and b"no TLS" in error[b"M"]


def test_entries_that_are_good_for_nothing(own_proxy, users):
    write_users(users, {"u_md5": "md5" + "0" * 32, "u_scram": "SCRAM-SHA-256$what", "u_trust": ""})
    proxy = own_proxy()
    assert "verifiers_unused" in proxy.log() or "3 users cannot log in" in proxy.log()
    for user in ("u_md5", "u_scram", "u_trust"):
        assert RawLogin(proxy.postgres_port, user).run().error[b"C"] == b"28P01"
    assert "md5 hash" in proxy.log()


def test_the_file_is_read_again(own_proxy, users, tls_postgres):
    proxy = own_proxy()
    port = proxy.postgres_port
    before = RawLogin(port, "u_scram").run()
    assert before.said[-1] == (b"Z", b"I")
    write_users(users, {"u_trust": "other"})
    proxy.tell(signal.SIGHUP)
    wait_for(lambda: RawLogin(port, "u_trust", "other").run().said[-1][0] == b"Z")
    assert RawLogin(port, "u_scram").run().error[b"C"] == b"28P01"
    users.write_text("u_trust other\n")
    proxy.tell(signal.SIGHUP)
    wait_for(lambda: "reload refused, nothing changed" in proxy.log())
    assert "line 1" in proxy.log()
    assert RawLogin(port, "u_trust", "other").run().said[-1][0] == b"Z"
    before.sock.sendall(pg_query("SELECT 1"))
    assert before.message()[0] == b"T"


def test_a_login_that_a_reload_comes_between(own_proxy, users):
    proxy = own_proxy()
    login = RawLogin(proxy.postgres_port, "u_scram")
    challenge = login.challenge()
    write_users(users, {})
    proxy.tell(signal.SIGHUP)
    wait_for(lambda: "reloaded " in proxy.log())
    login.sock.sendall(login.final(challenge))
    while login.message()[0] != b"Z":
        pass


FUNCTION = """
CREATE SCHEMA tqdb;
CREATE FUNCTION tqdb.verifier_of(INOUT name text, OUT verifier text, OUT valid_until timestamptz)
 LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
 $$ SELECT rolname::text, rolpassword, rolvaliduntil FROM pg_authid
    WHERE rolname = $1 AND rolcanlogin AND NOT rolsuper AND NOT rolreplication $$;
REVOKE ALL ON FUNCTION tqdb.verifier_of(text) FROM PUBLIC;
"""


@pytest.fixture
def until(tls_postgres):
    """Users with passwords that are valid until then, and a function that tells of them."""
    times = {"u_past": "2020-01-01", "u_future": "2999-01-01", "u_ever": "infinity", "u_never": "-infinity"}
    with psycopg.connect(tls_postgres.dsn(), autocommit=True) as connection:
        connection.execute(FUNCTION)
        with open(os.path.join(tls_postgres.data, "pg_hba.conf"), "a") as f:
            for user, time in times.items():
                connection.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}' VALID UNTIL '{time}'")
                f.write(f"host all {user} all scram-sha-256\n")
        connection.execute("CREATE ROLE u_none LOGIN")
        connection.execute("SELECT pg_reload_conf()")
        yield times
        for user in (*times, "u_none"):
            connection.execute(f"DROP ROLE {user}")
        connection.execute("DROP SCHEMA tqdb CASCADE")


@pytest.mark.parametrize("query", [
    "SELECT * FROM tqdb.verifier_of($1)", "SELECT usename, passwd, valuntil FROM pg_shadow WHERE usename = $1"])
def test_a_question_to_the_server(own_proxy, certificates, until, query):
    port = own_proxy("require", query).postgres_port
    for user in ("u_scram", "u_future", "u_ever"):
        with psycopg.connect(libpq(port, user, "tls", certificates) + " channel_binding=require") as connection:
            assert connection.execute("SELECT current_user").fetchone() == (user,)
    seen = []
    for user in ("u_past", "u_nobody", "u_never", "u_none", "u_md5", "u'; x"):
        login = RawLogin(port, user).run()
        assert login.error[b"C"] == b"28P01"
        assert login.error[b"M"] == b'password authentication failed for user "%b"' % user.encode()
        seen.append([(kind, body[:4]) for kind, body in login.said])
    assert all(s == seen[0] for s in seen)


def test_a_question_is_asked_for_each_login(own_proxy, until, tls_postgres):
    """A password that is changed counts from the next login on; and the connection it is asked on may be cut off."""
    port = own_proxy("off", "SELECT usename, passwd FROM pg_shadow WHERE usename = $1").postgres_port
    with psycopg.connect(tls_postgres.dsn(), autocommit=True) as admin:
        assert RawLogin(port, "u_ever").run().said[-1][0] == b"Z"
        admin.execute("ALTER ROLE u_ever PASSWORD 'changed'")
        assert RawLogin(port, "u_ever").run().error[b"C"] == b"28P01"
        assert RawLogin(port, "u_ever", "changed").run().said[-1][0] == b"Z"
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                      "WHERE application_name = 'tqdb auth_query'")
        assert RawLogin(port, "u_ever", "changed").run().said[-1][0] == b"Z"
    assert all(answer == b"Z" for answer in together(
        12, lambda k: RawLogin(port, *[("u_ever", "changed"), ("u_scram", PASSWORD)][k % 2]).run().said[-1][0]))


@pytest.mark.parametrize("query, words", [
    ("SELECT $1 FROM no_such_table", b"42P01"), ("SELECT $1::text", b"one row"),
    ("SELECT $1::text, 'x' FROM generate_series(1, 2)", b"one row"),
    ("SELECT $1::text, 'x', 'never'::text", b"22007"), ("DO $1", b"SQLSTATE")])
def test_questions_that_do_not_work(own_proxy, query, words):
    """Who is asked for does not matter; why is in the log, not told."""
    proxy = own_proxy("off", query)
    login = RawLogin(proxy.postgres_port, "u_scram")
    login.sock.sendall(login.startup)
    assert login.message()[0] == b"E"
    assert (login.error[b"C"], login.error[b"M"]) == (b"08001", b"could not look up how the user is known")
    assert words.decode() in proxy.log()


def test_a_server_that_cannot_be_asked(start_tls_proxy, certificates):
    with Postgres() as server:
        server.start()
        client = to_clients(certificates, auth="own", auth_query="SELECT $1, $1")
        proxy = start_tls_proxy(postgres=server, client=client,
                                server=to_servers(certificates, "off", monitor_user="postgres"))
    login = RawLogin(proxy.postgres_port, "u_scram")
    login.sock.sendall(login.startup)
    assert login.message()[0] == b"E" and login.error[b"C"] == b"08001"


def test_batches_of_sessions_that_have_logged_in_so(own_proxy, tls_postgres, certificates):
    """Sessions of the same user are alike, however they came."""
    proxy = own_proxy("verify-full")
    with psycopg.connect(tls_postgres.dsn(), autocommit=True) as admin:
        admin.execute("TRUNCATE shared")

        def session(k):
            dsn = libpq(proxy.postgres_port, "u_scram", ("plain", "tls")[k % 2], certificates)
            with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.ClientCursor) as connection:
                for n in range(6):
                    connection.execute(f"/* max_wait_ms:200 */ INSERT INTO shared (id, v) VALUES ({k * 100 + n}, 'x')")

        together(8, session)
        assert admin.execute("SELECT count(*) FROM shared").fetchone() == (48,)
    assert proxy.batched() > 24


def test_byte_by_byte(own_proxy):
    port = own_proxy().postgres_port
    login = RawLogin(port, "u_scram")
    login.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(data):
        for k in range(len(data)):
            login.sock.sendall(data[k:k + 1])

    send(login.startup)
    login.message()
    send(login.initial)
    send(login.final(login.message()[1][4:]) + pg_query("SELECT 1"))
    while login.message()[0] != b"D":
        pass


@pytest.mark.parametrize("query", [None, "SELECT usename, passwd FROM pg_shadow WHERE usename = $1"])
def test_sent_ahead(own_proxy, query):
    """The mechanism before it was offered, and a query with the proof."""
    login = RawLogin(own_proxy("off", query).postgres_port, "u_scram")
    login.sock.sendall(login.startup + login.initial)
    login.message()
    login.sock.sendall(login.final(login.message()[1][4:]) + pg_query("SELECT 'ahead'"))
    while login.message()[0] != b"D":
        pass
    assert b"ahead" in login.said[-1][1]


def test_a_mechanism_without_its_first_message(own_proxy):
    login = RawLogin(own_proxy().postgres_port, "u_scram")
    login.sock.sendall(login.startup + pg(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xff"))
    login.message()
    assert login.message() == (b"R", struct.pack("!I", 11))
    login.sock.sendall(pg(b"p", login.initiator.first()))
    login.sock.sendall(login.final(login.message()[1][4:]))
    while login.message()[0] != b"Z":
        pass


@pytest.mark.parametrize("message", [
    b"p\x80\0\0\0", b"p\xff\xff\xff\xff", b"p\x7f\xff\xff\xff", b"p\0\0\0\3", b"p\0\1\0\1",
    pg_startup(user="u_trust", database="postgres"), struct.pack("!II", 8, 80877103), b"\xff" * 20,
    pg(b"p", b"NOT-A-MECHANISM\0\0\0\0\0"), pg(b"p", b""), pg(b"p", b"SCRAM-SHA-256\0\x7f\xff\xff\xffn,,"),
    pg(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xfe"), pg(b"p", b"SCRAM-SHA-256\0\0\0\0\4n,,\0"),
    pg(b"p", b"SCRAM-SHA-256-PLUS\0\0\0\0\4n,,x")])
@pytest.mark.parametrize("when", ["at once", "asked", "challenged", "proved"])
def test_nonsense_at_every_step(own_proxies, message, when):
    """It ends that connection, as the protocol has it, and nobody else's."""
    proxy = own_proxies
    login = RawLogin(proxy.postgres_port, "u_scram")
    if when == "at once":
        login.sock.sendall(login.startup + message)
    elif when == "asked":
        login.sock.sendall(login.startup)
        login.message()
        login.sock.sendall(message)
    elif when == "challenged":
        login.challenge()
        login.sock.sendall(message)
    else:
        login.sock.sendall(login.final(login.challenge()) + message)
    messages, rest = pg_split(to_the_end(login.sock))
    login.close()
    assert not rest and messages[-1][0] == b"E" and b"C08P01\0" in messages[-1][1], messages
    assert RawLogin(proxy.postgres_port, "u_scram").run().said[-1] == (b"Z", b"I")
    assert proxy.metric("tqdbproxy_internal_errors_total") == 0


def test_a_query_before_the_proof(own_proxies):
    login = RawLogin(own_proxies.postgres_port, "u_trust")
    login.sock.sendall(login.startup + pg_query("SELECT 1"))
    messages, _ = pg_split(to_the_end(login.sock))
    assert messages[-1][0] == b"E" and b"C08P01\0" in messages[-1][1]


@pytest.fixture(scope="module")
def own_proxies(tls_postgres, certificates, tmp_path_factory):
    """One proxy for tests that only ask whether it stands."""
    path = tmp_path_factory.mktemp("own") / "users"
    write_users(path, verifiers(tls_postgres))
    with TlsProxy(tls_postgres, None, to_clients(certificates, auth="own", auth_file=str(path)),
                  command=tqdb_command()) as proxy:
        yield proxy.start()
        assert "Traceback" not in proxy.log(), proxy.log()


@pytest.mark.parametrize("body", [b"", b"\0user\0u_scram\0\0", b"user\0u_scram\0\0\0", b"user\0u_scram\0\0x\0y\0\0"])
def test_options_that_the_server_reads_otherwise(own_proxies, tls_postgres, body):
    said = last_words(own_proxies.postgres_port, startup(body))
    assert said[0] == b"08P01" and said == last_words(tls_postgres.port, startup(body))


def test_who_leaves_in_the_middle(own_proxies):
    login = RawLogin(own_proxies.postgres_port, "u_scram")
    login.challenge()
    login.sock.sendall(pg(b"X"))
    assert to_the_end(login.sock) == b""
    wait_for(lambda: own_proxies.clients() == 0)


def test_a_login_that_does_not_go_on(start_tls_proxy, tls_postgres, certificates, users):
    proxy = start_tls_proxy(postgres=tls_postgres, client=to_clients(certificates, auth="own", auth_file=str(users)),
                            config="[limits]\nclient_login_timeout = 0.2\n")
    login = RawLogin(proxy.postgres_port, "u_scram")
    login.challenge()
    assert login.message()[0] == b"E" and login.error[b"M"] == b"login took too long"


def test_cancel_requests_need_no_login(own_proxies, tls_postgres, certificates):
    dsn = libpq(own_proxies.postgres_port, "u_scram", "tls", certificates)
    with (psycopg.connect(dsn, autocommit=True) as connection,
          psycopg.connect(tls_postgres.dsn(), autocommit=True) as admin):
        def cancel(k):
            if k:
                wait_for(lambda: admin.execute("SELECT 1 FROM pg_stat_activity WHERE usename = 'u_scram' AND "
                                               "wait_event = 'PgSleep'").fetchone())
                connection.cancel()
            else:
                with pytest.raises(psycopg.errors.QueryCanceled):
                    connection.execute("SELECT pg_sleep(60)")
        together(2, cancel)


def test_replication(own_proxies, certificates, tls_postgres):
    with psycopg.connect(tls_postgres.dsn(), autocommit=True) as admin:
        admin.execute("ALTER ROLE u_scram REPLICATION")
        dsn = libpq(own_proxies.postgres_port, "u_scram", "tls", certificates)
        with psycopg.connect(f"{dsn} replication=database", autocommit=True) as connection:
            assert connection.execute("SELECT 42").fetchone() == (42,)
        admin.execute("ALTER ROLE u_scram NOREPLICATION")


def test_a_user_that_is_told_twice(own_proxies):
    """The last one counts, as for the server: nobody proves to be one and is let in as the other."""
    for users in (("u_scram", "u_trust"), ("u_trust", "u_scram")):
        login = RawLogin(own_proxies.postgres_port, "", PASSWORD)
        body = b"".join(b"user\0%b\0" % user.encode() for user in users) + b"database\0postgres\0\0"
        login.startup = startup(body)
        assert login.run().said[-1][0] == b"Z"
        login.sock.sendall(pg_query("SELECT current_user"))
        while login.message()[0] != b"D":
            pass
        assert login.said[-1][1].endswith(users[1].encode())
    login = RawLogin(own_proxies.postgres_port, "", WRONG)
    login.startup = startup(b"user\0u_scram\0user\0u_trust\0\0")
    assert login.run().error[b"M"] == b'password authentication failed for user "u_trust"'


def test_a_name_that_is_no_text(own_proxies):
    login = RawLogin(own_proxies.postgres_port, "")
    login.startup = startup(b"user\0\xff\xfe\0\0")
    assert login.run().error[b"C"] == b"28P01"


def test_a_protocol_that_is_not_there_yet(own_proxies, tls_postgres):
    """What the server says of it comes behind the proxy's own part of the login."""
    login = RawLogin(own_proxies.postgres_port, "u_scram")
    login.startup = pg_startup((3, 9), user="u_scram", database="postgres")
    kinds = [kind for kind, _ in login.run().said]
    assert kinds[:4] == [b"R", b"R", b"R", b"v"] and kinds[-1] == b"Z" and b"E" not in kinds


def test_from_own_to_relay(own_proxy, certificates):
    proxy = own_proxy("require")
    with open(proxy.path) as f:
        text = f.read()
    lines = [line for line in text.splitlines() if not line.startswith("auth")]
    for lines_now, works in ((lines, False), (text.splitlines(), True)):
        with open(proxy.path, "w") as f:
            f.write("\n".join(lines_now) + "\n")
        told = proxy.log().count("reloaded ")
        proxy.tell(signal.SIGHUP)
        wait_for(lambda told=told: proxy.log().count("reloaded ") > told)
        if works:
            assert by_psycopg(proxy.postgres_port, "u_scram", "tls", certificates) == 42
        else:
            with pytest.raises(psycopg.OperationalError, match="cannot be relayed"):
                by_psycopg(proxy.postgres_port, "u_scram", "tls", certificates)


def test_check_tells_whether_users_can_be_found(own_proxy, users, command, until):
    def check(path):
        done = subprocess.run([*command, "check", "-c", path], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    asks = own_proxy("off", "SELECT * FROM tqdb.verifier_of($1)").path
    assert check(asks)[0] == 0
    wrong = own_proxy("off", "SELECT * FROM tqdb.nothing($1)").path
    code, said = check(wrong)
    assert code == 1 and "auth_query" in said and "42883" in said
    reads = own_proxy().path
    assert check(reads)[0] == 0
    users.unlink()
    code, said = check(reads)
    assert code == 2 and "'auth_file'" in said and "No such file" in said


# --- the file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text, found", [
    ("", {}), ('"a" "b"', {"a": "b"}), ('  "a"\t"b" more\r\n', {"a": "b"}), ('; "a" "b"\n\n', {}),
    ('"a""b" "c""d"', {'a"b': 'c"d'}), ('"a" "b"\n"a" "c"', {"a": "c"}), ('"é" "ü ;"', {"é": "ü ;"}),
    ('"a" ""', {"a": ""}), ('"a" "x\u2028y"', {"a": "x\u2028y"})])
def test_the_files_form(text, found):
    assert entries(text.encode(), "f") == found


@pytest.mark.parametrize("data, words", [
    (b"a b", "line 1"), (b'"a" "b"\n"a"', "line 2"), (b'"a" b', "line 1"), (b'"" "b"', "line 1"),
    (b'"a" "b', "line 1"), (b'"a""b"', "line 1"), (b'"\xff" "b"', "UTF-8")])
def test_what_the_file_may_not_hold(data, words):
    with pytest.raises(ConfigError, match=words) as e:
        entries(data, "f")
    assert "\n" not in str(e.value) and '"b' not in str(e.value)


def a_file(tmp_path, data: bytes) -> Config:
    (tmp_path / "users").write_bytes(data)
    return Config("f", postgres=Protocol(auth="own", auth_file=str(tmp_path / "users")))


def test_the_files_bounds(tmp_path):
    for data in (b" " * (MAX_FILE_BYTES + 1), b"".join(b'"u%d" ""\n' % k for k in range(MAX_USERS + 1)),
                 b"".join(b'"u%d" "x"\n' % k for k in range(MAX_PASSWORDS + 1))):
        with pytest.raises(ConfigError, match="allowed"):
            read_users(a_file(tmp_path, data), {})


def test_keys_are_made_of_a_password_once(tmp_path):
    before = read_users(a_file(tmp_path, b'"a" "one"\n"b" "two"\n'), {})
    after = read_users(a_file(tmp_path, b'"a" "one"\n"b" "other"\n'), before)
    assert after["a"] is before["a"] and after["b"].verifier != before["b"].verifier
    assert "one" not in repr(before) and "other" not in repr(after)


# --- servers that do not keep to the protocol, without sockets --------------------------------------------------------

KEYS = keys_of(PASSWORD.encode(), b"0123456789abcdef", 4096)


class OneUser(Source):
    """Knows ``u_scram`` only."""

    def find(self, user, done):
        done(Known(KEYS.verifier if user == "u_scram" else None), "")

    def close(self):
        """Nothing is kept."""


def asks(code: int, data: bytes = b"") -> bytes:
    return pg(b"R", struct.pack("!I", code) + data)


def proved() -> tuple[PgSession, PgServer]:
    """A session whose client has logged in at the proxy, and its server, which has got the start-up message."""
    hooks = Hooks()
    session = PgSession(hooks.engine)
    session.proof = Login(session, OneUser(None, b"secret"), None)
    initiator = Initiator([PLAIN])
    session.receive(pg_startup(user="u_scram", database="postgres"))
    first = initiator.first()
    session.receive(pg(b"p", PLAIN.encode() + b"\0" + struct.pack("!I", len(first)) + first))
    initiator.challenged(pg_split(session.take_out())[0][-1][1][4:])
    session.receive(pg(b"p", initiator.proved(KEYS)))
    initiator.finished(pg_split(session.take_out())[0][0][1][4:])
    assert hooks.server.take_out() == pg_startup(user="u_scram", database="postgres")
    return session, hooks.server


def at_server(server) -> Acceptor:
    """The server has asked for SCRAM and sent its challenge."""
    server.receive(asks(10, b"SCRAM-SHA-256\0\0"))
    body = pg_split(server.take_out())[0][0][1]
    acceptor = Acceptor(KEYS.verifier, True)
    server.receive(asks(11, acceptor.first(PLAIN, body[len(PLAIN) + 5:])))
    return acceptor


def ended(session) -> bytes:
    said = session.take_out()
    assert session.closing and pg_split(said)[0][-1][0] == b"E", said
    assert not any(kind == b"R" for kind, _ in pg_split(said)[0])
    return said


def test_a_login_without_sockets():
    session, server = proved()
    signed, learnt = at_server(server).final(pg_split(server.take_out())[0][0][1])
    assert learnt == KEYS
    server.receive(asks(12, signed) + PG_LOGIN)
    assert session.take_out() == PG_LOGIN and session.logged_in


@pytest.mark.parametrize("said, words", [
    (asks(0), b"without having shown"), (asks(12, b"v=" + b64encode(b"x" * 32)), b"has not shown"),
    (asks(12, b"nonsense"), b"malformed"), (asks(10, b"SCRAM-SHA-256\0\0"), b"method 10"), (asks(3), b"method 3"),
    (asks(5, b"salt"), b"method 5"), (asks(7), b"method 7"), (asks(11, b"r=x,s=YQ==,i=1"), b"nonce does not match")])
def test_a_server_that_does_not_prove_itself(said, words):
    session, server = proved()
    at_server(server)
    server.take_out()
    server.receive(said + PG_LOGIN)
    assert words in ended(session)


@pytest.mark.parametrize("said, words", [
    (asks(10, b"OAUTHBEARER\0\0"), b"mechanisms"), (asks(10, b"\0"), b"mechanisms"), (asks(3), b"password itself"),
    (asks(5, b"salt"), b"password itself"), (asks(5), b"method 5"), (asks(7), b"method 7"), (asks(11), b"method 11"),
    (asks(12), b"method 12"), (pg(b"R"), b"without a code"), (pg(b"R", b"\0\0\0"), b"without a code")])
def test_what_a_server_may_not_ask_for(said, words):
    session, server = proved()
    server.receive(said)
    assert words in ended(session)
    assert server.closing


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_without_sqlstate(error):
    session, server = proved()
    server.receive(error)
    assert WITHOUT_SQLSTATE in ended(session)
    session, server = proved()
    at_server(server)
    server.receive(error)
    assert WITHOUT_SQLSTATE in ended(session)


def test_the_servers_error_is_the_clients():
    session, server = proved()
    error = pg(b"E", b"SFATAL\0VFATAL\0C53300\0Mtoo many\0\0")
    server.receive(error)
    assert ended(session) == error
