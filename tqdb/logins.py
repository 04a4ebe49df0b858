"""A login that ends in the proxy: the client proves who it is, then the proxy logs in at the server with its key.

The core hands over what the two say and sends what they are told; see ``PgLogin`` in ``core/pglogin``.
"""

from logging import INFO, WARNING

from tqdb import scram
from tqdb.log import event
from tqdb.scram import Acceptor, Initiator, Keys
from tqdb.userlist import Known
from tqdb.verifiers import Source

OK, CLEARTEXT, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 3, 5, 10, 11, 12       # authentication requests
MD5_SALT_BYTES = 4
REPLACED = "\ufffd"


class Login:
    """Of one session. ``certificate``: what the proxy shows; ``server_certificate``: what it is shown; in DER."""

    def __init__(self, session, source: Source, certificate: bytes | None):
        self.session = session
        self.source = source
        self.certificate = certificate
        self.server_certificate: bytes | None = None
        self.end_point: bytes | None = None
        self.known: Known | None = None
        self.acceptor: Acceptor | None = None
        self.keys: Keys | None = None
        self.initiator: Initiator | None = None
        self.mechanism = ""         # that the client has chosen
        self.begun = False          # … and has said the first of
        self.proves = False         # the server has yet to prove what it knows

    # --- the client ---------------------------------------------------------------------------------

    def begin(self, secure: bool) -> None:
        """The start-up message has come, by TLS or not."""
        self.end_point = scram.end_point(self.certificate) if secure else None
        # a name that is no UTF-8 has become another one: it is nobody's
        self.source.find("" if REPLACED in self.session.user else self.session.user, self._found)

    def _found(self, known: Known | None, error: str) -> None:
        if self.session.closing:
            return
        if known is None:
            event(WARNING, "verifier_unknown", f"{self.session.backend}: nobody can tell how user {self.session.user} "
                  f"is known: {error}", user=self.session.user, error=error)
            self.session.refuse("connect", "could not look up how the user is known")
            return
        self.known = known
        verifier = known.verifier or self.source.stand_in(self.session.user, known.iterations)
        self.acceptor = Acceptor(verifier, known.verifier is not None, self.end_point)
        offered = [m.encode() + b"\0" for m in scram.mechanisms(self.end_point)]
        self.session.challenge(SASL, b"".join(offered) + b"\0")

    def heard(self, body: bytes) -> None:
        """The client has answered ``challenge``."""
        try:
            if self.begun:
                self._finish(body)
            else:
                self._start(body)
        except scram.Malformed as e:
            self.session.refuse("protocol", str(e))
        except scram.BindingFailed as e:
            self.session.refuse("tls", str(e))
        except scram.Failed:
            self._tell_why()
            self.session.refuse("password", f'password authentication failed for user "{self.session.user}"')

    def _start(self, body: bytes) -> None:
        said = body
        if not self.mechanism:
            name, zero, rest = body.partition(b"\0")
            size = int.from_bytes(rest[:4], "big", signed=True)
            said = rest[4:]
            if not name or not zero or len(rest) < 4 or size < -1 or len(said) != max(size, 0):
                raise scram.Malformed("malformed SASL message")
            self.mechanism = name.decode("ascii", "replace")
            if size < 0:            # what it says first comes when it is asked for it
                self.session.challenge(SASL_CONTINUE, b"")
                return
        self.begun = True
        self.session.challenge(SASL_CONTINUE, self.acceptor.first(self.mechanism, said))

    def _finish(self, body: bytes) -> None:
        answer, self.keys = self.acceptor.final(body)
        self.session.challenge(SASL_FINAL, answer)
        self.session.proved()

    def _tell_why(self) -> None:
        why = "has sent a wrong password" if self.acceptor.known else self.known.why
        # no warning: those are shown to whoever sees the dashboard
        event(INFO, "login_failed", f"{self.session.backend}: login of {self.session.peer} failed: user "
              f"{self.session.user} {why}", backend=self.session.backend, peer=self.session.peer,
              user=self.session.user, why=why)

    # --- the server -----------------------------------------------------------------------------------

    def asked(self, code: int, data: bytes, secure: bool, local: bool) -> bool:
        """The server's authentication request, over TLS or on this machine; True: it is for the client."""
        try:
            if code == OK:
                if self.proves:
                    raise scram.Failed("it ended the authentication without having shown that it knows the verifier")
                return True
            self._answer(code, data, secure, local)
        except (scram.Malformed, scram.Failed) as e:
            self._refuse(f"cannot log in at the server: {e}")
        return False

    def _answer(self, code: int, data: bytes, secure: bool, local: bool) -> None:
        password = self.known.password
        if code == SASL and self.initiator is None:
            offered = data.rstrip(b"\0").decode("ascii", "replace").split("\0")
            self.initiator = Initiator(offered, scram.end_point(self.server_certificate) if secure else None, secure)
            self.proves = True
            first = self.initiator.first()
            self.session.answer(self.initiator.mechanism.encode() + b"\0" + len(first).to_bytes(4, "big") + first)
        elif code == SASL_CONTINUE and self.proves:
            self._prove(*self.initiator.challenged(data))
        elif code == SASL_FINAL and self.proves:
            self.initiator.finished(data)
            self.proves = False
        elif code not in (CLEARTEXT, MD5) or self.proves or (code == MD5 and len(data) != MD5_SALT_BYTES):
            raise scram.Failed(f"it asks for authentication by method {code}, which the proxy cannot answer")
        elif password is None:
            raise scram.Failed("it asks for the password itself, and the proxy knows a verifier only")
        elif code == CLEARTEXT and not (secure or local):
            raise scram.Failed("it asks for the password in clear, and the connection to it has no TLS")
        elif code == CLEARTEXT:
            self.session.answer(password.text.encode() + b"\0")
        else:
            self.session.answer(password.md5(self.session.user.encode(), data) + b"\0")

    def _prove(self, salt: bytes, iterations: int) -> None:
        password = self.known.password
        verifier = self.keys.verifier
        if (salt, iterations) == (verifier.salt, verifier.iterations):
            self._say(self.keys)
        elif password is None:
            raise scram.Failed("its verifier of the user is another one than the proxy's")
        elif (kept := password.kept_for(salt, iterations)) is not None:
            self._say(kept)
        else:
            self.source.worker.work(lambda: password.keys_for(salt, iterations), self._made)

    def _made(self, keys: Keys | None, error: str) -> None:
        if keys is None:
            self._refuse("cannot log in at the server")
        else:
            self._say(keys)

    def _say(self, keys: Keys) -> None:
        self.session.answer(self.initiator.proved(keys))

    def _refuse(self, message: str) -> None:
        if not self.session.closing:
            self.session.refuse("verifier", message, "The proxy knows users by its auth_file or auth_query, "
                                "which have to fit the server.")


