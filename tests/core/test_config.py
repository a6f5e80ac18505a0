"""retrodict.toml: everything wrong with it is said with file, line and key."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from retrodict.core.config import SETTINGS, find_config, read_config
from retrodict.core.errors import ConfigurationError

PAGE = Path(__file__).parents[2] / "docs" / "projects.md"


def write(folder: Path, text: str) -> Path:
    path = folder / "retrodict.toml"
    path.write_text(text)
    return path


def test_a_name_is_enough(tmp_path: Path) -> None:
    """Everything else has a default, and paths start at the file."""
    config = read_config(write(tmp_path, '[project]\nname = "shop"\n'))
    assert config["serving.port"] == 8400
    assert set(config.values) == set(SETTINGS)
    assert config.path("ledger.key") == tmp_path / "state" / "ledger.key"


def test_a_home_folder_is_no_folder_called_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and checkpoints often live there."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = read_config(write(tmp_path, '[project]\nname = "shop"\n[ledger]\nkey = "~/key"\ncheckpoints = "/mnt/c"\n'))
    assert (config.path("ledger.key"), config.path("ledger.checkpoints")) == (tmp_path / "home/key", Path("/mnt/c"))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('[serving]\nprot = 1\n', 4, "'serving.prot': the key must be one of those that exist.*the key 'serving.port'"),
        ('serving.prot = 1\n', 1, "'serving.prot'"),
        ('serving = { prot = 1 }\n', 1, "'serving.prot'"),
        ('[serving]\n# prot\n\n"prot" = 1\n', 6, "'serving.prot'"),
        ('[servign]\nport = 1\n', 4, "'servign.port'.*'serving.port'"),
        ('[servign]\n', 3, "'servign': the key must be one of those"),
        ('[[serving]]\nport = 1\n', 3, "got 'serving'"),
        ('[serving]\nport = "80"\n', 4, "whole number from 0 .* to 65535; got '80'"),
        ('[serving]\nport = true\n', 4, "got True"),
        ('[serving]\nport = 65536\n', 4, "got 65536"),
        ('[ledger]\nsign_every = "61s"\n', 4, "a duration such as '1s', 1m at most; got '61s'"),
        ('[ledger]\nseal_every = "300d"\n', 4, "1h at most; got '300d'"),
        ('[ledger]\nsign_every = "0s"\n', 4, "got '0s'"),
        ('[serving]\nmax_in_flight = 0\n', 4, "1 or more; got 0"),
        ('[serving]\nhost = " "\n', 4, "a host name or an address"),
        ('[stores]\nrecords = 5\n', 4, "a file or a URL; got 'int'"),
        ('[stores.records]\nurl = "x"\n', 3, "'stores.records'"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path: Path, text: str, line: int, said: str) -> None:
    """File, line, key, rule, value and remedy."""
    body = text + '[project]\nname = "shop"\n' if line == 1 else '[project]\nname = "shop"\n' + text
    path = write(tmp_path, body)
    with pytest.raises(ConfigurationError, match=rf"^{re.escape(str(path))}:{line}, key .*{said}"):
        read_config(path)


def test_a_password_in_a_store_of_the_wrong_type_is_not_told(tmp_path: Path) -> None:
    """A URL may hold one, in a list or a table as well."""
    path = write(tmp_path, '[project]\nname = "shop"\n[stores]\nrecords = ["postgresql://me:hush@db"]\n')
    with pytest.raises(ConfigurationError, match="got 'list'") as caught:
        read_config(path)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ['"Shop"', '"a b"', '""', "5", '"a__b"'])
def test_a_name_that_cannot_stand_everywhere_is_refused(tmp_path: Path, name: str) -> None:
    """It becomes part of paths and metrics."""
    path = write(tmp_path, f"[project]\nname = {name}\n")
    with pytest.raises(ConfigurationError, match=rf"{re.escape(str(path))}:2, key 'project.name'"):
        read_config(path)


@pytest.mark.parametrize("file", ['"../definitions.py"', '"/etc/definitions.py"', '"definitions"', "3"])
def test_the_definitions_lie_inside_the_project(tmp_path: Path, file: str) -> None:
    """What runs has to be captured with it."""
    path = write(tmp_path, f'[project]\nname = "shop"\ndefinitions = {file}\n')
    with pytest.raises(
        ConfigurationError, match=r":3, key 'project.definitions': the value must be the path of a Python"
    ):
        read_config(path)


def test_a_missing_name_says_which_key(tmp_path: Path) -> None:
    """It is the only one without a default."""
    with pytest.raises(
        ConfigurationError,
        match=r"key 'project.name': a required key must be in the file; got \[\]\. Add project\.name",
    ):
        read_config(write(tmp_path, ""))


def test_what_is_not_toml_is_said_with_its_line(tmp_path: Path) -> None:
    """The line is part of the place, to click on."""
    path = write(tmp_path, '[project]\nname = "shop\n')
    with pytest.raises(ConfigurationError, match=rf"{re.escape(str(path))}:2: the file must be TOML \(.*column \d+\)"):
        read_config(path)


def test_files_that_cannot_be_read_are_told_apart(tmp_path: Path) -> None:
    """Missing, not UTF-8, a folder: three different remedies."""
    with pytest.raises(ConfigurationError, match=r"must exist.*retrodict init"):
        read_config(tmp_path / "retrodict.toml")
    (tmp_path / "latin").write_bytes("name = 'é'".encode("latin1"))
    with pytest.raises(ConfigurationError, match="Save it as UTF-8"):
        read_config(tmp_path / "latin")
    with pytest.raises(ConfigurationError, match="must be a regular one"):
        read_config(tmp_path)


def test_the_nearest_file_above_is_found(tmp_path: Path) -> None:
    """From any folder below the project."""
    path = write(tmp_path, "")
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert find_config(tmp_path / "a" / "b") == path


def test_a_folder_that_does_not_exist_is_not_looked_for_above(tmp_path: Path) -> None:
    """A slip in a name must not open the project around it."""
    write(tmp_path, "")
    with pytest.raises(ConfigurationError, match="the folder of a project must exist"):
        find_config(tmp_path / "shpo")


def test_the_page_has_every_setting_with_its_default_and_no_other() -> None:
    """One row per setting: key, default, what it is for."""
    rows = dict(re.findall(r"^\| `([a-z_.]+)` \| `?([^|]*?)`? \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    said = {key: "required" if setting.default is None else str(setting.default) for key, setting in SETTINGS.items()}
    assert rows == said


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "dangling"])
def test_what_is_no_file_is_an_error_at_once(kind: str, tmp_path: Path) -> None:
    """Neither waited for nor passed over: a folder below would otherwise act on the project above it."""
    write(tmp_path, '[project]\nname = "shop"\n')
    path = tmp_path / "below" / "retrodict.toml"
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "nothing")
    rule = "must exist" if kind == "dangling" else "must be a regular one"
    with pytest.raises(ConfigurationError, match=rule):
        read_config(find_config(path.parent))
