"""Users without a home folder (an id that the system does not know, and no HOME), and tildes that are nobody's."""

import pwd
from pathlib import Path

import pytest

from sdrun.catalog.config import user_file
from sdrun.errors import UsageProblem
from sdrun.launch.runlog import state_folder
from sdrun.models.store import store_root, usable
from sdrun.resources import at_home, cache_root
from sdrun.runtime.endpoints import docker_endpoints


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "SDRUN_CACHE_DIR", "SDRUN_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_a_user_without_a_home_is_told_what_to_set(homeless: pytest.MonkeyPatch) -> None:
    for folder in (cache_root, state_folder):
        with pytest.raises(UsageProblem, match="no home folder") as refused:
            folder()
        assert (refused.value.id, refused.value.remedy) == ("no-home", "Set HOME or SDRUN_CACHE_DIR.")


def test_a_cache_folder_is_all_that_is_needed(homeless: pytest.MonkeyPatch, tmp_path: Path) -> None:
    homeless.setenv("SDRUN_CACHE_DIR", "cache")
    assert (cache_root(), state_folder()) == (tmp_path / "cache", tmp_path / "cache" / "state")
    homeless.setenv("XDG_STATE_HOME", str(tmp_path / "s"))
    assert state_folder() == tmp_path / "s" / "sdrun"


def test_what_is_looked_for_at_home_is_not_there(homeless: pytest.MonkeyPatch) -> None:
    assert not user_file({}).exists()
    assert docker_endpoints({})[0].url == "unix:///var/run/docker.sock"
    tls = docker_endpoints({"DOCKER_HOST": "tcp://far", "DOCKER_TLS": "1"})[0].tls
    assert tls == Path("/.docker")


def test_a_tilde_that_is_nobodys_is_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    nobody = "~no-such-user-of-the-test/x"
    assert at_home(nobody) == Path(nobody)
    monkeypatch.setenv("SDRUN_CACHE_DIR", nobody)
    assert cache_root() == tmp_path / nobody
    assert store_root(Path("/c"), {"SDRUN_MODELS_DIR": nobody}) == tmp_path / nobody
    with pytest.raises(UsageProblem, match="does not exist"):
        usable(nobody)
