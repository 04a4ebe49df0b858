"""SCRAM by itself: the RFC's example, both sides against each other, and what is tampered with."""

import base64
import hashlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tqdb import scram
from tqdb.scram import PLAIN, PLUS, Acceptor, BindingFailed, Failed, Initiator, Malformed, Verifier, keys_of

# RFC 7677, section 3: user "user", password "pencil"
SALT, ITERATIONS = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096
CLIENT_NONCE, NONCE = b"rOprNGfwEbeRWgbNEkqO", b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FIRST = b"n,,n=user,r=" + CLIENT_NONCE
CHALLENGE = b"r=" + NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = b"c=biws,r=" + NONCE + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SIGNED = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_rfcs_example_accepted(monkeypatch):
    monkeypatch.setattr(scram, "_nonce", lambda: NONCE.removeprefix(CLIENT_NONCE))
    keys = keys_of(b"pencil", SALT, ITERATIONS)
    acceptor = Acceptor(keys.verifier, True)
    assert acceptor.first(PLAIN, FIRST) == CHALLENGE
    assert acceptor.final(FINAL) == (SIGNED, keys)


def test_the_rfcs_example_initiated(monkeypatch):
    monkeypatch.setattr(scram, "_nonce", lambda: CLIENT_NONCE)
    initiator = Initiator([PLAIN])
    initiator.bare = FIRST.removeprefix(b"n,,")
    assert initiator.challenged(CHALLENGE) == (SALT, ITERATIONS)
    assert initiator.proved(keys_of(b"pencil", SALT, ITERATIONS)) == FINAL
    initiator.finished(SIGNED)


KEYS = keys_of(b"sesame", b"0123456789abcdef", 2)
END_POINT = hashlib.sha256(b"certificate").digest()


def exchange(initiator, acceptor, keys, tamper=lambda step, data: data):
    """Both sides to the end; what the acceptor has learnt."""
    first = tamper(0, initiator.first())
    challenge = tamper(1, acceptor.first(initiator.mechanism, first))
    initiator.challenged(challenge)
    signed, learnt = acceptor.final(tamper(2, initiator.proved(keys)))
    initiator.finished(tamper(3, signed))
    return learnt


@pytest.mark.parametrize("end_point", [None, END_POINT])
def test_what_is_learnt_logs_in_elsewhere(end_point):
    """A chain: each acceptor has the verifier only, and logs in at the next with what the one before it has shown."""
    keys = KEYS
    for _ in range(3):
        initiator = Initiator([PLAIN, PLUS], end_point, end_point is not None)
        assert initiator.mechanism == (PLUS if end_point else PLAIN)
        keys = exchange(initiator, Acceptor(Verifier.parse(KEYS.verifier.text()), True, end_point), keys)
        assert keys == KEYS


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40), st.integers(1, 20), st.booleans())
def test_any_password(password, salt, iterations, bound):
    end_point = END_POINT if bound else None
    keys = keys_of(password, salt, iterations)
    assert exchange(Initiator([PLUS, PLAIN], end_point, bound), Acceptor(keys.verifier, True, end_point), keys) == keys
    assert Verifier.parse(keys.verifier.text()) == keys.verifier
    with pytest.raises(Failed):
        exchange(Initiator([PLAIN]), Acceptor(keys.verifier, True), keys_of(password + b"x", salt, iterations))


@given(st.integers(0, 3), st.data(), st.booleans())
def test_a_byte_that_is_changed_on_the_way(step, data, bound):
    """Anywhere in any message: one of the two ends sees it."""
    def tamper(at, message):
        if at != step:
            return message
        i = data.draw(st.integers(0, len(message) - 1))
        return message[:i] + bytes((message[i] ^ data.draw(st.integers(1, 255)),)) + message[i + 1:]

    end_point = END_POINT if bound else None
    with pytest.raises((Failed, Malformed)):
        exchange(Initiator([PLUS], end_point, True) if bound else Initiator([PLAIN]),
                 Acceptor(KEYS.verifier, True, end_point), KEYS, tamper)


@given(st.binary(max_size=200))
def test_nonsense_from_either_side(data):
    with pytest.raises((Failed, Malformed)):
        Acceptor(KEYS.verifier, True).first(PLAIN, data)
    initiator, acceptor = Initiator([PLAIN]), Acceptor(KEYS.verifier, True)
    acceptor.first(PLAIN, initiator.first())
    with pytest.raises((Failed, Malformed)):
        acceptor.final(data)
    for step in (initiator.challenged, initiator.finished):
        with pytest.raises((Failed, Malformed)):
            step(data)


def test_another_tls_connection():
    other = hashlib.sha256(b"another").digest()
    with pytest.raises(BindingFailed, match="check failed"):
        exchange(Initiator([PLUS], other, True), Acceptor(KEYS.verifier, True, END_POINT), KEYS)


def test_an_offer_that_was_taken_away():
    """The client could bind, and has been told that the server could not."""
    with pytest.raises(BindingFailed, match="negotiation"):
        exchange(Initiator([PLAIN], END_POINT, True), Acceptor(KEYS.verifier, True, END_POINT), KEYS)
    assert exchange(Initiator([PLAIN], END_POINT, True), Acceptor(KEYS.verifier, True), KEYS) == KEYS
    assert exchange(Initiator([PLAIN], None, True), Acceptor(KEYS.verifier, True, END_POINT), KEYS) == KEYS


@pytest.mark.parametrize("first", [
    b"", b"n", b"n,,", b"n,,n=,r=", b"n,a=admin,n=,r=abc", b"p=tls-unique,,n=,r=abc",
    b"p=tls-server-end-point,,n=,r=abc", b"x,,n=,r=abc", b"n,,m=ext,n=,r=abc", b"n,,r=abc,n=",
    b"n,,n=,r=a\0c", b"n,,n=,r=\xff", b"n,,n=,r=abc,"])
def test_first_messages_that_are_none(first):
    with pytest.raises(Malformed):
        Acceptor(KEYS.verifier, True).first(PLAIN, first)


def test_a_mechanism_that_was_not_offered():
    with pytest.raises(Malformed):
        Acceptor(KEYS.verifier, True).first(PLUS, b"p=tls-server-end-point,,n=,r=abc")
    with pytest.raises(Failed):
        Initiator(["OAUTHBEARER"])
    with pytest.raises(Failed):
        Initiator([PLUS])


def test_a_stand_in_is_the_same_each_time_and_fits_nothing():
    secret = b"s" * 32
    one = scram.stand_in(secret, "nobody", 4096)
    assert one == scram.stand_in(secret, "nobody", 4096) != scram.stand_in(secret, "somebody", 4096)
    assert len(one.salt) == len(KEYS.verifier.salt)
    with pytest.raises(Failed):
        exchange(Initiator([PLAIN]), Acceptor(one, False), KEYS)
    # not even who knows what it is made of
    with pytest.raises(Failed):
        exchange(Initiator([PLAIN]), Acceptor(KEYS.verifier, False), KEYS)


def test_a_server_that_does_not_know_the_verifier():
    initiator, acceptor = Initiator([PLAIN]), Acceptor(KEYS.verifier, True)
    initiator.challenged(acceptor.first(PLAIN, initiator.first()))
    initiator.proved(KEYS)
    with pytest.raises(Failed):
        initiator.finished(b"v=" + base64.b64encode(b"x" * 32))
    with pytest.raises(Malformed):
        initiator.finished(b"e=other-error")
    with pytest.raises(Malformed):
        Initiator([PLAIN]).finished(b"v=" + base64.b64encode(b""))


@pytest.mark.parametrize("text", [
    "", "md5" + "0" * 32, "SCRAM-SHA-256$4096:$", KEYS.verifier.text() + "x",
    KEYS.verifier.text().replace("$2:", "$0:"),
    KEYS.verifier.text().replace("$2:", "$99999999:"), KEYS.verifier.text().replace("$2:", "$\u0662:"),
    "SCRAM-SHA-256$2:abc$abc:abc", "SCRAM-SHA-256$2:YQ==$YQ==:YQ=="])
def test_verifiers_that_are_none(text):
    with pytest.raises(ValueError, match="not a SCRAM verifier"):
        Verifier.parse(text)


def test_nothing_secret_is_shown():
    assert repr(KEYS) == "Keys(verifier=Verifier(iterations=2))"


@pytest.mark.parametrize(("password", "used"), [
    ("sesame", b"sesame"), ("I\u00adX", b"IX"), ("\u00aa", b"a"), ("\u2168", b"IX"), ("a\u00a0b", b"a b"),
    ("a\u0007", b"a\x07"), ("\u0627\u0031", "\u0627\u0031".encode()), ("\u00e9", "\u00e9".encode()),
    ("e\u0301", "\u00e9".encode()), ("\u00ad", "\u00ad".encode())])
def test_passwords_are_prepared(password, used):
    """RFC 4013, section 3; what that forbids is used as it is, as PostgreSQL does."""
    assert scram.prepared(password) == used


@pytest.mark.parametrize(("options", "name"), [
    (["rsa:2048", "-sha256"], "sha256"), (["rsa:2048", "-sha1"], "sha256"), (["rsa:2048", "-sha384"], "sha384"),
    (["rsa:2048", "-sha512"], "sha512"), (["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-sha384"], "sha384"),
    (["rsa:2048", "-sha512", "-sigopt", "rsa_padding_mode:pss"], "sha512"), (["ed25519"], None)],
    ids=lambda v: str(v[:2]) if isinstance(v, list) else "")
def test_certificates_are_told_by_their_signatures_hash(tmp_path, options, name):
    der = tmp_path / "cert.der"
    subprocess.run(["openssl", "req", "-x509", "-newkey", *options, "-nodes", "-keyout", tmp_path / "key", "-outform",
                    "DER", "-out", der, "-subj", "/CN=x", "-days", "2"], check=True, capture_output=True)
    data = der.read_bytes()
    assert scram.end_point(data) == (hashlib.new(name, data).digest() if name else None)


@given(st.binary(max_size=60))
def test_what_is_no_certificate(data):
    assert scram.end_point(data) is None
    assert scram.end_point(None) is None
