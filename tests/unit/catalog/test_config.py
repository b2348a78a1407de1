"""Settings: precedence, and every fault of a file at once."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from sdrun.catalog import config
from sdrun.core.signing import SignaturePolicy
from sdrun.errors import BadConfiguration


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(config, "SITE_FILE", tmp_path / "site.yaml")
    return {"XDG_CONFIG_HOME": str(tmp_path / "xdg"), "HOME": str(tmp_path)}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_nothing_said_is_nothing_set(environ: dict[str, str]) -> None:
    assert config.load_settings(None, environ) == config.Settings()


def test_variable_over_explicit_over_user_over_site(environ: dict[str, str], tmp_path: Path) -> None:
    write(config.SITE_FILE, 'index: "site.json"\nregistry: "site/sdrun"\nruntime: docker\n')
    write(config.user_file(environ), 'index: "user.json"\nregistry: "user/sdrun"\n')
    explicit = write(tmp_path / "mine.yaml", 'index: "mine.json"\n')
    settings = config.load_settings(explicit, environ | {"SDRUN_RUNTIME": "podman"})
    assert settings == config.Settings(index="mine.json", registry="user/sdrun", runtime="podman")


def test_an_empty_variable_says_nothing(environ: dict[str, str]) -> None:
    assert config.load_settings(None, environ | {"SDRUN_INDEX": ""}).index is None


def test_all_faults_of_a_file_with_their_lines(environ: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", "index: 12.10\nregistri: x\nruntime: docker\nruntime: podman\n")
    with pytest.raises(BadConfiguration) as caught:
        config.load_settings(path, environ)
    assert caught.value.id == "bad-config"
    assert caught.value.exit_code == 8
    lines = caught.value.message.splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in lines] == ["1", "2", "4"]
    assert "registri" in lines[1]
    assert "second time" in lines[2]


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_mapping(environ: dict[str, str], tmp_path: Path, text: str) -> None:
    with pytest.raises(BadConfiguration, match="must be a mapping"):
        config.load_settings(write(tmp_path / "bad.yaml", text), environ)


def test_unreadable_and_unparsable_files(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="cannot be read"):
        config.load_settings(tmp_path / "absent.yaml", environ)
    with pytest.raises(BadConfiguration, match="is not YAML"):
        config.load_settings(write(tmp_path / "bad.yaml", "a: [1\n"), environ)


def test_unknown_runtime(environ: dict[str, str]) -> None:
    with pytest.raises(BadConfiguration, match="docker"):
        config.load_settings(None, environ | {"SDRUN_RUNTIME": "lxc"})


def test_a_file_that_cannot_be_looked_at(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, *arguments: object, **more: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    user = write(config.user_file(environ), "runtime: docker\n")
    monkeypatch.setattr(Path, "is_file", lambda path: closed(path) if path == user else False)
    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(BadConfiguration, match="cannot be read: Permission denied") as caught:
        config.load_settings(None, environ)
    assert (caught.value.id, caught.value.exit_code) == ("bad-config", 8)
    assert "XDG_CONFIG_HOME" in caught.value.remedy


def test_a_folder_is_no_settings_file(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="Is a directory") as caught:
        config.load_settings(tmp_path, environ)
    assert "--config" in caught.value.remedy


def test_mirrors_belong_to_the_registry_of_the_files(environ: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "registry: a.example/sdrun\nmirrors: [b.example/sdrun, c.example/x]\n")
    assert config.load_settings(path, environ).mirrors == ("b.example/sdrun", "c.example/x")
    assert config.load_settings(path, environ | {"SDRUN_REGISTRY": "d.example/sdrun"}).mirrors == ()


@pytest.mark.parametrize(
    "date", ["2026-05-06", '"2026-05-06"', "2026-05-06T00:00:00Z", '"2026-05-06T00:00:00Z"', "2026-05-06T02:00:00+02:00"]
)
def test_signatures_that_are_demanded(environ: dict[str, str], tmp_path: Path, date: str) -> None:
    moment = datetime(2026, 5, 6, tzinfo=UTC)
    path = write(tmp_path / "mine.yaml", f"verify:\n  key: cosign.pub\n  not_before: {date}\n")
    expected = SignaturePolicy(key=str(tmp_path / "cosign.pub"), not_before=moment)
    assert config.load_settings(path, environ).verify == expected
    path = write(tmp_path / "mine.yaml", "verify: {identity: https://ci.example/x, issuer: https://token.example}\n")
    expected = SignaturePolicy(identity="https://ci.example/x", issuer="https://token.example")
    assert config.load_settings(path, environ).verify == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("mirrors: b.example/sdrun", "a list of repositories"),
        ("mirrors: [1]", "a list of repositories"),
        ("mirrors: []", "a list of repositories"),
        ("verify: yes", "a mapping with key"),
        ("verify: {}", "a mapping with key"),
        ("verify: {key: a, identity: b, issuer: c}", "either a key or an identity"),
        ("verify: {identity: b}", "issuer"),
        ("verify: {keys: a}", "is no part of it"),
        ("verify: {key: 1}", "must be a string"),
        ("verify: {key: a, not_before: soon}", "must be a date"),
        ("verify: {key: a, not_before: 7}", "must be a date"),
    ],
)
def test_faults_of_mirrors_and_policies(environ: dict[str, str], tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(BadConfiguration, match=why) as caught:
        config.load_settings(write(tmp_path / "bad.yaml", text), environ)
    assert (caught.value.id, caught.value.exit_code) == ("bad-config", 8)
    assert caught.value.message.startswith(f"{tmp_path / 'bad.yaml'}:1")
