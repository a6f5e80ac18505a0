"""Who may call: keys and tokens that count, those that do not, and what neither log nor ledger may hold."""

import asyncio
import base64
import contextlib
import datetime as dt
import http.client
import json
import logging
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import pytest
from tests.serving.process import Server
from tests.serving.project import AT, REQUEST, make_project
from tests.serving.test_app import BODY, DECIDE, SIMULATED, Client

from retrodict import Project
from retrodict.core.clock import SimulatedClock, parse_time
from retrodict.core.errors import ConfigurationError, InputError, NotFoundError, RefusedError
from retrodict.decisions.log import read_decisions
from retrodict.registry.api_keys import token_digest
from retrodict.serving.board import Board
from retrodict.serving.callers import Callers, open_callers
from retrodict.serving.http_answer import RefusedRequestError
from retrodict.serving.routes import ROUTES
from retrodict.workspace import Workspace

AUDITS = ("/v1/audit", "/v1/decisions/{decision}", "/v1/decisions/{decision}:replay")
OPEN = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
NOW = parse_time("2024-02-20T12:00Z")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parcels")
    make_project(folder).close()
    return folder


@pytest.fixture
def project(root):
    with Project(root, actor="ana") as opened:
        for key in opened.api_keys.list():
            with contextlib.suppress(NotFoundError):
                opened.api_keys.revoke(key.name, reason="next test")
        yield opened


def bearer(token):
    return [(b"authorization", f"Bearer {token}".encode())]


def asked(project, *requests, callers=None):
    """Answers of one application to (method, path, headers), one after the other."""

    async def run():
        client = Client(project.workspace)
        client.app.callers = callers or Callers(project.workspace)
        client.app.callers.look()
        try:
            return [await client.send(method, path, BODY, headers) for method, path, headers in requests]
        finally:
            await client.close()

    return asyncio.run(run())


def paths():
    names = {"{policy}": "promise", "{service}": "any", "{table}": "parcels", "{model...}": "promise"}
    for method, pattern in ROUTES:
        path = pattern
        for brace, name in names.items():
            path = path.replace(brace, name)
        yield method, path


def test_every_route_but_the_probes_wants_a_key(project):
    """Also those that come later: the list is that of the routes."""
    answers = asked(project, *[(method, path, []) for method, path in paths()])
    for (_, path), (status, headers, body) in zip(paths(), answers, strict=True):
        assert (status == 401) == (path not in OPEN), path
        assert headers[b"cache-control"] == b"no-store"
        if status == 401:
            assert headers[b"www-authenticate"].startswith(b"Bearer")
            assert b"Authorization: Bearer" in body


def test_a_key_is_for_what_it_was_made_for(project):
    """403 names what is missing."""
    tokens = {scope: project.api_keys.issue(f"of-{scope}", scope=[scope], reason="test").token
              for scope in ("score", "read", "operate", "approve", "audit")}  # fmt: skip
    needs = {"POST": "score", "GET": "read", "DELETE": "score"}
    for scope, token in tokens.items():
        requests = [(method, path) for method, path in paths() if path not in OPEN]
        answers = asked(project, *[(method, path, bearer(token)) for method, path in requests])
        for (method, path), (status, _, body) in zip(requests, answers, strict=True):
            needed = "operate" if path.startswith("/v1/events") else needs[method]
            needed = "score" if path.startswith("/v1/jobs/") else needed
            needed = "read" if path.startswith("/v2/repository/") else needed
            needed = "approve" if path.endswith((":approve", ":reject")) else needed
            needed = "audit" if path in AUDITS else needed
            assert (status == 403) == (needed != scope), path
            if status == 403:
                assert needed.encode() in body


@pytest.mark.parametrize(
    "change",
    [
        lambda token: bearer(token[:-1]),
        lambda token: bearer(token[:-1] + ("A" if token[-1] != "A" else "B")),
        lambda token: bearer(token.upper()),
        lambda token: bearer("rtd_" + token[4:16]),
        lambda token: bearer("rtd__"),
        lambda token: bearer(""),
        lambda token: bearer("x" * 9000),
        lambda token: bearer("ü" * 40),
        lambda token: [(b"authorization", b"Basic " + token.encode())],
        lambda token: [(b"authorization", token.encode())],
        lambda token: [*bearer(token), *bearer(token)],
        lambda token: [(b"x-authorization", b"Bearer " + token.encode())],
        lambda token: [(b"cookie", b"authorization=Bearer " + token.encode())],
    ],
)
def test_what_is_not_quite_the_key_is_none(project, change, caplog):
    """And is in no log and no answer."""
    caplog.set_level(logging.DEBUG)
    token = project.api_keys.issue("shop", scope=["score"], reason="test").token
    ((status, _, body),) = asked(project, ("POST", DECIDE, SIMULATED + change(token)))
    assert status == 401
    assert token[17:-1].encode() not in body
    assert token[17:-1] not in caplog.text


def test_decisions_are_recorded_under_the_caller(project):
    """Single ones, those of a batch, and those with an id."""
    token = project.api_keys.issue("web-shop", scope=["score"], reason="test").token
    batch = json.dumps({"requests": [REQUEST, REQUEST]}).encode()

    async def run():
        client = Client(project.workspace)
        client.app.callers = Callers(project.workspace)
        client.app.callers.look()
        headers = SIMULATED + bearer(token)
        for path, body, more in [(DECIDE, BODY, []), (DECIDE, BODY, [(b"idempotency-key", b"one-of-a-caller")]),
                                 (f"{DECIDE}:batch", batch, [])]:  # fmt: skip
            status, _, answer = await client.send("POST", path, body, headers + more)
            assert status == 200, answer
        await client.close()

    asyncio.run(run())
    records = [one for one in read_decisions(project.workspace) if one.record.caller == "key:web-shop"]
    assert len(records) == 4
    assert project.decisions.get(records[0].record.id).record.caller == "key:web-shop"
    assert token not in str(records)


@pytest.mark.parametrize("many", [False, True])
def test_nobody_gets_an_answer_by_an_id_of_another_caller(project, many):
    """Though what is asked is the same; a key that was rotated is still its caller's."""
    tokens = [project.api_keys.issue(name, scope=["score"], reason="test").token for name in ("till", "branch")]
    tokens.append(project.api_keys.rotate("till", reason="test").token)
    name = f"of-one-caller-{many}"
    batch = json.dumps({"requests": [{**REQUEST, "request_id": name}]}).encode()

    async def run():
        client = Client(project.workspace)
        client.app.callers = Callers(project.workspace)
        client.app.callers.look()
        one = DECIDE, BODY, [(b"idempotency-key", name.encode())]
        path, body, more = (f"{DECIDE}:batch", batch, []) if many else one
        answers = [await client.send("POST", path, body, SIMULATED + more + bearer(token)) for token in tokens]
        await client.close()
        read = [json.loads(body) for _, _, body in answers]
        return read if not many else [answer["answers"][0] for answer in read]

    first, other, again = asyncio.run(run())
    assert "decision_id" not in other
    assert "a request id must be the caller's own" in other["error"]
    assert again["decision_id"] == first["decision_id"]


def test_a_rate_is_kept_and_shared_by_workers(project, monkeypatch):
    """Four a second on two workers are two for each; a second later there are two more."""
    token = project.api_keys.issue("busy", scope=["read"], reason="test", rate=4).token
    now = [10**9]
    monkeypatch.setattr("retrodict.serving.callers.monotonic_ns", lambda: now[0])
    workers = [2]
    callers = Callers(project.workspace, lambda: workers[0])
    callers.look()
    requests = [("GET", "/v1/policies", bearer(token))] * 4
    answers = asked(project, *requests, callers=callers)
    assert [status for status, _, _ in answers] == [200, 200, 429, 429]
    assert answers[-1][1][b"retry-after"] == b"1"
    now[0] += 10**9
    assert [status for status, _, _ in asked(project, *requests, callers=callers)] == [200, 200, 429, 429]
    project.api_keys.issue("other", scope=["read"], reason="test")
    callers.look()  # which fills no bucket anew
    assert [status for status, _, _ in asked(project, requests[0], callers=callers)] == [429]
    workers[0] = 1  # the other one went: all of the rate is here from the next look on
    callers.look()
    now[0] += 10**9
    assert [status for status, _, _ in asked(project, *requests, callers=callers)] == [200] * 4


def test_workers_that_answer_are_counted():
    """What may be is not what is; before the first answers there is one share."""
    with contextlib.closing(Board(4)) as board:
        assert board.answering() == 1
        for slot, (number, expected) in enumerate([(0, 1), (7, 2), (3, 3)]):
            board.set_connections(slot, number)
            assert board.answering() == expected
        board.set_connections(1, None)
        assert board.answering() == 2


def test_a_key_ends_by_time_by_rotation_and_by_hand(project):
    """The former one counts until its grace is over; a revoked name may have a key again."""
    clock = SimulatedClock(NOW)
    with Workspace(project.workspace.root, actor="ana", clock=clock) as workspace:
        callers = Callers(workspace)

        def status(token):
            callers.look()
            with contextlib.suppress(RefusedRequestError):
                return callers.admit(bearer(token), "score")
            return None

        from retrodict.core.durations import DAY, HOUR
        from retrodict.registry.api_keys import expire_key, issue_key, rotate_key

        clock.move_to(project.workspace.clock.now() + DAY)
        _, first = issue_key(workspace, "turning", scopes=["score"], lifetime=10 * DAY, rate=None, reason="r")
        with pytest.raises(RefusedError, match="api-keys rotate turning"):
            issue_key(workspace, "turning", scopes=["score"], lifetime=DAY, rate=None, reason="r")
        _, second = rotate_key(workspace, "turning", lifetime=20 * DAY, grace=HOUR, reason="r")
        assert [status(first), status(second)] == ["key:turning", "key:turning"]
        clock.move_to(clock.now() + HOUR)
        assert [status(first), status(second)] == [None, "key:turning"]
        clock.move_to(clock.now() + 20 * DAY)
        assert status(second) is None
        _, third = issue_key(workspace, "turning", scopes=["score"], lifetime=DAY, rate=None, reason="r")
        assert status(third) == "key:turning"
        expire_key(workspace, "turning", reason="lost")
        assert status(third) is None
        with pytest.raises(NotFoundError, match="in force"):
            expire_key(workspace, "turning", reason="lost")
        with pytest.raises(NotFoundError, match="in force"):
            rotate_key(workspace, "turning", lifetime=DAY, grace=0, reason="r")


def test_a_key_that_was_revoked_by_a_clock_that_was_ahead_has_ended(project):
    """The entry is dated ahead, and the key ends at once."""
    from retrodict.core.durations import DAY
    from retrodict.registry.api_keys import expire_key, issue_key

    now = project.workspace.clock.now()
    _, token = issue_key(project.workspace, "ahead", scopes=["score"], lifetime=90 * DAY, rate=None, reason="r")
    with Workspace(project.workspace.root, actor="ana", clock=SimulatedClock(now + 60 * DAY)) as ahead:
        expire_key(ahead, "ahead", reason="lost")
    callers = Callers(project.workspace)
    callers.look()
    with pytest.raises(Exception, match="in force"):
        callers.admit(bearer(token), "score")


def test_a_key_that_somebody_wrote_by_sql_does_not_count(project, tmp_path):
    """Scopes that were widened, and a key that was added; the audit names them."""
    new = project.api_keys.issue("honest", scope=["read"], reason="test")
    project.workspace.close()
    subprocess.run(["cp", "-r", str(project.workspace.root), str(tmp_path / "copy")], check=True)
    forged = "rtd_0123456789ab_" + "x" * 43
    with contextlib.closing(sqlite3.connect(tmp_path / "copy" / "state" / "records.db")) as records, records:
        old = records.execute("SELECT * FROM ledger_entries WHERE object_id = 'apikey:honest'").fetchone()
        names = [name for _, name, *_ in records.execute("PRAGMA table_info(ledger_entries)")]
        entry = dict(zip(names, old, strict=True))
        wider = entry["payload"].replace('["read"]', '["score"]')
        records.execute("UPDATE ledger_entries SET payload = ? WHERE sequence = ?", [wider, entry["sequence"]])
        entry["payload"] = wider.replace(new.key.id, "0123456789ab").replace(new.key.sha256, token_digest(forged))
        entry |= {"sequence": entry["sequence"] + 1000, "hash": "0" * 64}
        records.execute(f"INSERT INTO ledger_entries VALUES ({', '.join('?' * len(entry))})", list(entry.values()))
    with Project(tmp_path / "copy") as other:
        callers = Callers(other.workspace)
        callers.look()
        for token in (new.token, forged):
            with pytest.raises(Exception, match="in force"):
                callers.admit(bearer(token), "score")
        assert not other.audit().ok


@pytest.mark.parametrize("scope", ["score, read", ["score,read"], ["score", "read"]])
def test_scopes_may_stand_behind_one_another(project, scope):
    """With commas, as some write them, or one by one."""
    assert project.api_keys.issue("a", scope=scope, reason="test").key.scopes == ("read", "score")


def test_no_key_is_anywhere_but_in_its_answer(project):
    """Neither in a file of the project nor in what a notebook keeps."""
    new = project.api_keys.issue("secret", scope=["score"], reason="test")
    assert new.token in str(new)
    assert new.token not in repr(new)
    secret = new.token[17:]
    project.workspace.close()
    # By another process: who closes a file of SQLite's gives up the locks that this one has on it.
    search = ["grep", "-r", "-a", "-l", "-F", "-e", secret, str(project.workspace.root)]
    assert subprocess.run(search, capture_output=True, text=True, check=False).stdout == ""
    findings = project.audit().findings  # another test of this project was ahead of the clock
    assert [one for one in findings if one.kind != "ahead"] == []


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("Web Shop", {}, "lower-case letters"),
        ("", {}, "lower-case letters"),
        ("a" * 64, {}, "lower-case letters"),
        ("a\n", {}, "lower-case letters"),
        ("a", {"expires": "30m", "rate": -1}, r"above 0; got '0.0208 days, rate -1'\."),
        ("a", {"scope": ["read,admin"]}, "got 'admin'"),
        ("a", {"scope": ["admin"]}, "a scope must be one that there is"),
        ("a", {"scope": []}, "a scope must be one that there is"),
        ("a", {"expires": "4000d"}, "within ten years"),
        ("a", {"rate": 0.0}, "its rate must be above 0"),
        ("a", {"rate": float("nan")}, "its rate must be above 0"),
        ("a", {"reason": " "}, "must have a reason"),
    ],
)
def test_what_cannot_be_meant_is_refused(project, name, options, match):
    entries = len(project.workspace.ledger.entries())
    with pytest.raises(InputError, match=match):
        project.api_keys.issue(name, **{"scope": ["score"], "reason": "r", **options})
    assert len(project.workspace.ledger.entries()) == entries


# tokens of an issuer ------------------------------------------------------------------------------------------


class Issuer:
    """Signs tokens, and publishes its keys in a file."""

    def __init__(self, folder, root):
        from joserfc.jwk import ECKey

        self.key, self.file = ECKey.generate_key("P-256", {"kid": "a", "alg": "ES256"}), folder / "jwks.json"
        self.publish(self.key)
        lines = f'required = "network"\njwks = "{self.file}"\nissuer = "https://id.example"\naudience = "retrodict"\n'
        text = (root / "retrodict.toml").read_text().partition("[auth]")[0]
        (root / "retrodict.toml").write_text(f"{text}[auth]\n{lines}")

    def publish(self, *keys):
        self.file.write_text(json.dumps({"keys": [key.as_dict(private=False) for key in keys]}))

    def token(self, header=None, key=None, **changes):
        from joserfc import jwt

        claims = {"iss": "https://id.example", "aud": ["retrodict", "other"], "sub": "ana@bank", "scope": "score read",
                  "exp": NOW // 10**6 + 600, **changes}  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        head = {"alg": "ES256", "kid": "a", **(header or {})}
        with warnings.catch_warnings(action="ignore"):  # of what is forged
            return jwt.encode(head, claims, key or self.key, algorithms=["ES256", "RS256", "HS256", "none"])


@pytest.fixture
def issuer(root, tmp_path):
    pytest.importorskip("joserfc")
    text = (root / "retrodict.toml").read_text()
    yield Issuer(tmp_path, root)
    (root / "retrodict.toml").write_text(text)


@pytest.fixture
def admit(root, issuer):
    with Workspace(root, clock=SimulatedClock(NOW)) as workspace:
        callers = Callers(workspace)
        callers.look()

        def ask(token, scope="score"):
            return callers.admit(bearer(token), scope)

        ask.callers = callers
        yield ask


def test_a_signed_token_is_a_caller(issuer, admit):
    """By its subject; for the scopes and roles in it that there are."""
    for _ in range(2):
        assert admit(issuer.token()) == "jwt:ana@bank"
    assert admit(issuer.token(scope=None, roles=["score", "admin"])) == "jwt:ana@bank"
    with pytest.raises(Exception, match="must be for operate"):
        admit(issuer.token(), "operate")
    for scope in ("scores", "", None, 5, {"score": 1}):
        with pytest.raises(Exception, match="must be for score"):
            admit(issuer.token(scope=scope))
    for roles in ([{"score": 1}], [["score"], None, 5], {"score": 1}, "score", 7):
        with pytest.raises(Exception, match="must be for score"):
            admit(issuer.token(scope=None, roles=roles))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://id.example/"}, {"iss": None}, {"aud": "others"}, {"aud": None}, {"exp": None},
        {"exp": NOW // 10**6 - 31}, {"nbf": NOW // 10**6 + 60}, {"sub": None}, {"sub": ""}, {"sub": "a\nb"},
        {"sub": "x" * 201}, {"sub": 5}, {"exp": "never"},
    ],
)  # fmt: skip
def test_a_token_for_others_or_of_another_time_is_none(issuer, admit, changes):
    with pytest.raises(Exception, match="must be one that is in force"):
        admit(issuer.token(**changes))


def test_a_token_that_nobody_or_somebody_else_signed_is_none(issuer, admit):
    """No algorithm at all, the public key as a secret, another key, an altered body."""
    from joserfc.jwk import ECKey, OctKey

    public = json.dumps(issuer.key.as_dict(private=False)).encode()
    forged = [
        issuer.token(key=ECKey.generate_key("P-256", {"kid": "a"})),
        issuer.token({"alg": "HS256"}, OctKey.import_key(public)),
        issuer.token({"alg": "none"}, OctKey.import_key(b"x" * 32)),
    ]
    head, body, signature = issuer.token().split(".")
    forged += [f"{head}.{body}.", f"{head}.{body}A.{signature}", f"{head}..{signature}", "a.b.c", "....."]
    for token in forged:
        with pytest.raises(Exception, match="must be one that is in force"):
            admit(token)


def test_a_key_that_the_issuer_changed_is_taken_in_and_one_it_took_back_counts_no_more(issuer, admit, monkeypatch):
    from joserfc.jwk import ECKey

    monkeypatch.setattr("retrodict.serving.callers._AGAIN_S", 0.0)
    old, fresh = issuer.token(), ECKey.generate_key("P-256", {"kid": "b", "alg": "ES256"})
    new = issuer.token({"kid": "b"}, fresh)
    assert admit(old) == "jwt:ana@bank"
    issuer.publish(fresh)
    with pytest.raises(Exception, match="in force"):
        admit(new)
    admit.callers.look()
    assert admit(new) == "jwt:ana@bank"
    with pytest.raises(Exception, match="in force"):
        admit(old)
    for text in (
        "nothing",
        "[]",
        '{"keys": [{}]}',
        '{"keys": [{"kty": "x"}]}',
        '{"keys": 5}',
        '{"keys": [7]}',
        "5",
        "",
    ):
        issuer.file.write_text(text)
        with pytest.raises(RefusedRequestError):
            admit("a.b.c")
        admit.callers.look()  # a file that cannot be read takes nobody's key away
        assert admit(new) == "jwt:ana@bank"


def test_keys_that_share_a_name_all_count(issuer, admit, monkeypatch):
    """Of one kind or of several; a key for another algorithm or for encryption signs nothing."""
    from joserfc.jwk import ECKey, RSAKey

    monkeypatch.setattr("retrodict.serving.callers._AGAIN_S", 0.0)
    keys = [ECKey.generate_key("P-256", {"kid": "s"}), ECKey.generate_key("P-256", {"kid": "s"}),
            RSAKey.generate_key(2048, {"kid": "s"})]  # fmt: skip
    secret = ECKey.generate_key("P-256", {"kid": "s", "use": "enc"})
    issuer.publish(*keys, secret)
    with pytest.raises(RefusedRequestError):
        admit("a.b.c")
    admit.callers.look()
    for key, algorithm in zip(keys, ["ES256", "ES256", "RS256"], strict=True):
        assert admit(issuer.token({"kid": "s", "alg": algorithm}, key)) == "jwt:ana@bank"
    unfit = ECKey.generate_key("P-256", {"kid": "s"})
    signing = ECKey.import_key({**secret.as_dict(private=True), "use": "sig"})
    for token in (issuer.token({"kid": "s"}, unfit), issuer.token({"kid": "t"}, keys[0]),
                  issuer.token({"kid": "s"}, signing)):  # fmt: skip
        with pytest.raises(Exception, match="in force"):
            admit(token)


def test_a_token_that_is_nested_deeply_is_none(issuer, admit):
    """In its head or in its body, signed or not."""
    from joserfc import jws

    deep = b"[" * 4_000
    signed = jws.serialize_compact({"alg": "ES256", "kid": "a"}, deep, issuer.key)
    head = base64.urlsafe_b64encode(deep).rstrip(b"=").decode()
    for token in (signed, ".".join([head, *signed.split(".")[1:]])):
        with pytest.raises(RefusedRequestError) as refused:
            admit(token)
        assert refused.value.answer.status == 401


def test_keys_of_the_issuer_that_are_gone_are_shown_until_they_are_back(issuer, project, monkeypatch, caplog):
    """Those of the last reading count, which readiness and the status say, and the log at each attempt."""
    monkeypatch.setattr("retrodict.serving.callers._AGAIN_S", 0.0)
    monkeypatch.setattr("retrodict.serving.callers._FETCH_S", 0.0)
    callers = Callers(project.workspace)
    callers.look()
    text = issuer.file.read_text()
    issuer.file.unlink()
    head = bearer(issuer.token(scope="read", exp=2**40))

    def notes():
        ready, status = asked(project, ("GET", "/readyz", head), ("GET", "/v1/status", head), callers=callers)
        assert (ready[0], status[0]) == (200, 200)
        return json.loads(ready[2]).get("callers"), json.loads(status[2])["callers"]

    for count in (1, 2):
        assert all("keys of the issuer cannot be read: FileNotFoundError" in note for note in notes())
        assert caplog.text.count("those of the last reading go on to count") == count
    issuer.file.write_text(text)
    assert notes() == (None, None)


def test_tokens_without_an_audience_or_over_plain_http_are_refused(issuer, root):
    text = (root / "retrodict.toml").read_text()
    for old, new, match in [('audience = "retrodict"\n', "", "got 'no auth.audience'"),
                            ('issuer = "https://id.example"\n', "", "got 'no auth.issuer'"),
                            (f'jwks = "{issuer.file}"', 'jwks = "http://id.example/keys"', "over https")]:  # fmt: skip
        (root / "retrodict.toml").write_text(text.replace(old, new))
        with Workspace(root) as workspace, pytest.raises(ConfigurationError, match=match):
            Callers(workspace)


def test_a_file_of_keys_that_cannot_be_read_stops_the_start(issuer, root):
    """Missing or no key set: a server ran, and refused every token."""
    with socket.create_server(("0.0.0.0", 0)) as listener, Workspace(root) as workspace:
        issuer.file.write_text("{")
        with pytest.raises(ConfigurationError, match=r"jwks\.json.*leave auth\.jwks out"):
            open_callers(workspace, listener)
        issuer.file.unlink()
        with pytest.raises(ConfigurationError, match="No such file"):
            open_callers(workspace, listener)


def test_readiness_shows_details_to_whom_the_server_knows(project):
    """Any key in force; others get the part and a short reason, and so they do over the Open Inference Protocol."""
    token = project.api_keys.issue("shop", scope=["score"], reason="test").token
    place = "/srv/parcels/state: password=x"

    async def run():
        client = Client(project.workspace)
        client.app.callers = Callers(project.workspace)
        client.app.callers.look()
        app, answers = client.app, []
        app.colleagues = SimpleNamespace(missing=lambda: [place, place])
        app.not_followed, app.not_loaded, app.callers.problem = place, {"late_parcel@3": place}, place
        servants, log = app.servants, app.log
        for headers in ([], bearer("rtd_no_key"), bearer(token)):
            answers.append([await client.send("GET", "/readyz", headers=headers)])
            app.problem = place
            answers[-1] += [await client.send("GET", path, headers=headers) for path in ("/readyz", "/v2/health/ready")]
            app.problem, app.servants, app.services_problem = None, {}, place
            answers[-1] += [await client.send("GET", "/readyz", headers=headers)]
            app.servants, app.services_problem = servants, None
            app.log = SimpleNamespace(find_problem=lambda: place)
            answers[-1] += [await client.send("GET", "/readyz", headers=headers)]
            app.log = log
        app.colleagues = None
        await client.close()
        return answers

    strangers, others, friends = asyncio.run(run())
    assert [status for status, _, _ in strangers] == [status for status, _, _ in friends] == [200, *[503] * 4]
    assert [body for _, _, body in strangers] == [body for _, _, body in others]
    assert not any(place.encode() in body for _, _, body in strangers)
    assert all(place.encode() in body for _, _, body in friends)
    assert json.loads(strangers[0][2]) == {
        "status": "ready", "workers": ["a worker does not answer"] * 2, "not_followed": "the records are away",
        "not_loaded": {"late_parcel@3": "cannot be loaded"}, "callers": "keys are not followed"}  # fmt: skip
    assert json.loads(strangers[4][2]) == {"error": "the decision log cannot be written"}


# a real server ------------------------------------------------------------------------------------------------


def test_a_server_of_a_network_without_keys_does_not_start(project):
    command = [sys.executable, "-m", "retrodict", "serve", "--project", str(project.workspace.root), "--port", "0",
               "--host", "0.0.0.0"]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "a server that others can reach must know its callers" in ended.stderr
    assert "retrodict api-keys issue" in ended.stderr


def test_a_server_does_not_start_where_the_end_of_a_key_cannot_be_read(project, tmp_path):
    """The key of somebody who has left would count again."""
    project.api_keys.issue("shop", scope=["score"], reason="test")
    project.api_keys.issue("left", scope=["score"], reason="test")
    project.api_keys.revoke("left", reason="has left")
    project.workspace.close()
    root = str(tmp_path / "copy")
    subprocess.run(["cp", "-r", str(project.workspace.root), root], check=True)
    with contextlib.closing(sqlite3.connect(f"{root}/state/records.db")) as records, records:
        records.execute("UPDATE ledger_entries SET action = 'x' WHERE payload LIKE '%has left%'")
    command = [sys.executable, "-m", "retrodict", "serve", "--project", root, "--port", "0", "--host", "0.0.0.0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode != 0
    assert "keys left, shop" in ended.stderr
    assert "retrodict audit verify" in ended.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_of_a_network_takes_keys_and_lets_go_of_them(project, workers, monkeypatch):
    """Within a second, on every worker; loopback callers are asked, too, since the server cannot tell."""
    token = project.api_keys.issue("shop", scope=["score"], reason="test").token
    server = Server(project.workspace.root, "--replay", "--host", "0.0.0.0", "--workers", workers)
    try:
        assert server.decide()[0] == 401
        assert server.send("GET", "/readyz")[0] == 200
        assert server.decide(headers={**AT, "authorization": f"Bearer {token}"})[0] == 200
        url = f"http://127.0.0.1:{server.port}"
        with pytest.raises(RefusedError, match="status 401"):
            project.decisions.ask("promise", REQUEST["entities"], REQUEST["context"], url=url, at=AT["Retrodict-Time"])
        monkeypatch.setenv("RETRODICT_API_KEY", token)
        project.decisions.ask("promise", REQUEST["entities"], REQUEST["context"], url=url, at=AT["Retrodict-Time"])
        project.api_keys.revoke("shop", reason="test")
        until = time.monotonic() + 20
        statuses = [200]
        while 200 in statuses and time.monotonic() < until:
            time.sleep(0.1)
            statuses = [server.decide(headers={**AT, "authorization": f"Bearer {token}"})[0] for _ in range(8)]
        assert set(statuses) == {401}
    finally:
        log = server.stop()
    assert token not in log


def certificate(folder, name="localhost"):
    """A certificate that signs itself, and its key, as PEM files."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_callers_come_by_tls(project, tmp_path, monkeypatch):
    """A caller that trusts the certificate is answered, one that speaks no TLS is not, and hangs nobody."""
    cert, key = certificate(tmp_path)
    settings = project.workspace.root / "retrodict.toml"
    before = settings.read_text()
    settings.write_text(f'{before}[serving]\ncertificate = "{cert}"\ncertificate_key = "{key}"\n')
    try:
        server = Server(project.workspace.root, "--replay")
        try:
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert server.send("GET", "/healthz")[0] >= 400
            silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]  # no handshake
            context = ssl.create_default_context(cafile=cert)
            for body, status in [(json.dumps(REQUEST), 200), ("{", 400)] * 8:
                connection = http.client.HTTPSConnection("localhost", server.port, timeout=20, context=context)
                connection.request("POST", DECIDE, body, AT)
                answer = connection.getresponse()
                assert (answer.status, json.loads(answer.read()).keys() & {"error", "decision"} != set()) == (
                    status,
                    True,
                )
                connection.close()
            for one in silent:
                one.close()
            monkeypatch.setenv("SSL_CERT_FILE", os.fspath(cert))
            url, case = f"https://localhost:{server.port}", (REQUEST["entities"], REQUEST["context"])
            decided = project.decisions.ask("promise", *case, url=url, at=AT["Retrodict-Time"])
            assert decided.answer.decision in ("warn", "ok")
        finally:
            server.stop()
        key.write_text("no key")
        command = [sys.executable, "-m", "retrodict", "serve", "--project", str(settings.parent), "--port", "0"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "must be PEM files that belong together" in ended.stderr
    finally:
        settings.write_text(before)


def serial(port, cert):
    """Number of the certificate that a new connection is shown, which must be one of this file."""
    context = ssl.create_default_context(cafile=cert)
    plain = socket.create_connection(("localhost", port), timeout=20)
    with context.wrap_socket(plain, server_hostname="localhost") as secure:
        return secure.getpeercert()["serialNumber"]


def renewed(check):
    """What a check gives once it raises no error of TLS any more."""
    for _ in range(200):
        with contextlib.suppress(ssl.SSLError, AssertionError):
            return check()
        time.sleep(0.1)
    return check()


def test_a_renewed_certificate_needs_no_restart(tmp_path):
    """New connections of both workers and of gRPC get it, old ones go on; a broken file changes nothing but the log."""
    from tests.serving.grpc_callers import GrpcCaller, decide, grpc

    cert, key = certificate(tmp_path)
    settings = f'[serving]\ncertificate = "{cert}"\ncertificate_key = "{key}"\nworkers = 2\n'
    make_project(tmp_path, settings).close()
    server = Server(tmp_path, "--replay", "--no-consume", "--grpc-port", "0")
    try:
        first, context = serial(server.port, cert), ssl.create_default_context(cafile=cert)
        held = http.client.HTTPSConnection("localhost", server.port, timeout=20, context=context)
        held.request("GET", "/healthz")
        assert held.getresponse().read()
        fresh = tmp_path / "fresh"
        fresh.mkdir()
        for file in certificate(fresh):  # as a program that renews does: one file after the other
            os.replace(file, tmp_path / file.name)
        second = {renewed(lambda: serial(server.port, cert)) for _ in range(20)}
        second |= {serial(server.port, cert) for _ in range(20)}
        assert len(second) == 1
        assert first not in second
        held.request("GET", "/healthz")
        assert held.getresponse().status == 200
        held.close()

        def by_grpc():
            credentials = grpc.ssl_channel_credentials(cert.read_bytes())
            code = GrpcCaller(f"localhost:{server.grpc.rpartition(':')[2]}", credentials).send(
                "Decide", decide().SerializeToString()
            )[0]
            assert code == "OK"
            return code

        assert renewed(by_grpc) == "OK"
        good = cert.read_bytes()
        key.write_text("no key")
        for _ in range(30):
            assert serial(server.port, cert) in second
            time.sleep(0.1)
        assert cert.read_bytes() == good
    finally:
        log = server.stop()
    assert log.count("the certificate that was loaded before stays") == 2
    assert "must be PEM files that belong together; got" in log
