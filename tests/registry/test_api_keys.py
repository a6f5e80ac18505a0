"""Keys whose entries other hands were at: a key that was ended must not count again because its end cannot be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DataError
from tests.stores.postgres_server import PASSWORD, PostgresServer

from retrodict.core.durations import DAY
from retrodict.core.errors import IntegrityError
from retrodict.registry.api_keys import expire_key, issue_key, read_keys, rotate_key
from retrodict.serving import watcher
from retrodict.serving.callers import Callers
from retrodict.workspace import Workspace

EXPIRE = "WHERE action = 'apikey.expire'"
DAMAGES = {
    "payload": f"UPDATE ledger_entries SET payload = replace(payload, 'stolen', 'stolem') {EXPIRE}",
    "action": f"UPDATE ledger_entries SET action = 'apikey.expirf' {EXPIRE}",
    "object": f"UPDATE ledger_entries SET object_id = 'note:shop' {EXPIRE}",
    "row": f"DELETE FROM ledger_entries {EXPIRE}",
    "time": f"UPDATE ledger_entries SET time = 'never' {EXPIRE}",
}


def issue(project: Workspace, name: str) -> str:
    return issue_key(project, name, scopes=["score"], lifetime=DAY, rate=None, reason="test")[1]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with closing(PostgresServer()) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PG_TEST_PASSWORD", PASSWORD)
        yield server


def alter(project: Workspace, statement: str) -> None:
    url, query = project.config["stores.records"], "?options=-csearch_path%3Dretrodict"
    if "://" in url:
        url = url.replace("postgresql:", "postgresql+psycopg:").replace("${PG_TEST_PASSWORD}", quote(PASSWORD, safe=""))
    else:
        url, query = f"sqlite:///{project.root / url}", ""
    engine = create_engine(url + query)
    try:
        with engine.begin() as records:
            assert records.execute(text(statement)).rowcount == 1
    except DataError:
        pytest.skip("the server takes no such value")
    finally:
        engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def ended(request: pytest.FixtureRequest, make_project: Callable[..., Workspace]) -> Workspace:
    """Keys in force, and one that was revoked."""
    settings = ""
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        settings = f'[stores]\nrecords = "{server.url(server.database())}"\n'
    project = make_project(settings=settings)
    for name in ("desk", "shop", "yard"):
        issue(project, name)
    expire_key(project, "shop", reason="stolen")
    issue(project, "depot")
    return project


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_key_whose_end_was_taken_away_does_not_count_again(ended: Workspace, damage: str) -> None:
    """Keys are refused until those that were issued before are ended, and others made."""
    assert [key.name for key in read_keys(ended).values() if key.expires] == ["desk", "yard", "depot"]
    alter(ended, DAMAGES[damage])
    with Workspace(ended.root, actor="ana", clock=ended.clock) as other:
        with pytest.raises(IntegrityError, match="audit verify") as caught:
            Callers(other).look()
        names = str(caught.value).partition(":")[0].removeprefix("keys ").split(", ")
        assert "shop" in names
        with pytest.raises(IntegrityError):
            rotate_key(other, "shop", lifetime=DAY, grace=0, reason="test")
        for name in names:
            expire_key(other, name, reason="the ledger was damaged")
        assert not any(key.expires for key in read_keys(other).values())
        issue(other, "desk")
        Callers(other).look()
    with Workspace(ended.root, clock=ended.clock) as fresh:
        Callers(fresh).look()


def test_what_was_damaged_before_the_keys_does_not_concern_them(ended: Workspace) -> None:
    """And a look that follows another costs what is new: the rows that were seen are not read again."""
    alter(ended, "UPDATE ledger_entries SET actor = 'bob' WHERE sequence = 1")
    with Workspace(ended.root, actor="ana", clock=ended.clock) as other:
        read_keys(other)
        alter(ended, DAMAGES["payload"])
        read_keys(other)
        issue(other, "fifth")
        assert len(read_keys(other)) == 5


def test_a_server_keeps_the_keys_that_it_had_and_says_so(ended: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a key is altered before the server has seen it; readiness shows the problem."""
    monkeypatch.setattr(watcher, "_CALLERS_S", 0.01)
    callers = Callers(ended)
    callers.look()
    expire_key(ended, "desk", reason="stolen too")
    alter(ended, "UPDATE ledger_entries SET actor = 'bob' WHERE sequence = (SELECT max(sequence) FROM ledger_entries)")

    async def follow() -> None:
        following = asyncio.create_task(watcher.keep_callers(callers))
        while callers.problem is None:  # noqa: ASYNC110  # an attribute, not an event
            await asyncio.sleep(0.01)
        following.cancel()

    asyncio.run(asyncio.wait_for(follow(), 60))
    assert "audit verify" in str(callers.problem)
    assert len(callers._keys) == 4
