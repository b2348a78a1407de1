"""`sdrun fleet` from the command line on: what stands on stdout, on stderr, and in the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleets.samples import gfd, node, write, write_index

from sdrun.cli import main as front


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Program = Callable[..., Done]


@pytest.fixture
def sdrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """The program in this process, in a folder of its own, with no settings of this machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("SDRUN_INDEX", "SDRUN_REGISTRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))

    def run(*arguments: str) -> Done:
        monkeypatch.setattr("sys.argv", ["sdrun", *arguments])
        code = front.main()
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    write_index(tmp_path)
    return write(tmp_path, node("l4", gfd(), cordoned=True), node("cpu"))


def test_plan(sdrun: Program, nodes: Path) -> None:
    done = sdrun("fleet", "plan", "--nodes", "nodes.json", "--index", "index.json")
    assert done.code == 0
    assert done.out.splitlines()[1].startswith("cc89-r550  -")
    assert done.err == "note: l4: cordoned: no new pods until it is uncordoned\n"
    answer = json.loads(sdrun("fleet", "plan", "--nodes", "nodes.json", "--index", "index.json", "--json").out)
    assert [row["name"] for row in answer["classes"]] == ["cc89-r550"]
    assert answer["notes"] == [{"note": "cordoned: no new pods until it is uncordoned", "nodes": ["l4"]}]


def test_from_plan_to_check(sdrun: Program, nodes: Path, tmp_path: Path) -> None:
    done = sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "fleet.lock.yaml")
    assert (done.code, done.out) == (0, "fleet.lock.yaml\n")
    assert "1 classes with 1 nodes; 1 nodes get no image" in done.err
    answer = json.loads(sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "l.yaml", "--json").out)
    assert answer["lock"] == "l.yaml"
    done = sdrun("fleet", "manifests", "fleet.lock.yaml", "-o", "k8s", "-m", "tiny", "--", "--threads", "2")
    assert (done.code, done.out) == (0, "k8s\n")
    assert "tiny:q4_0" in done.err
    assert '"--threads"' in (tmp_path / "k8s" / "base" / "server.yaml").read_text()
    done = sdrun("fleet", "check", "fleet.lock.yaml", "--nodes", "nodes.json", "--index", "index.json")
    assert (done.code, done.out) == (0, "The pins fit.\n")
    write(tmp_path, node("l4", gfd(driver="515.65.01", cuda="11.7")))
    done = sdrun("fleet", "check", "fleet.lock.yaml", "--nodes", "nodes.json", "--offline", "--json")
    assert done.code == 5
    assert [finding["id"] for finding in json.loads(done.out)["findings"]] == ["driver-too-old"]
    write(tmp_path, node("l4", gfd(cc="8.6")))
    assert sdrun("fleet", "check", "fleet.lock.yaml", "--nodes", "nodes.json").code == 4


def test_manifests_of_every_kind(sdrun: Program, nodes: Path, tmp_path: Path) -> None:
    sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "lock.yaml")
    (tmp_path / "prompts.txt").write_text("a fox\n\n a hen \n")
    base = ("fleet", "manifests", "lock.yaml", "-m", "tiny", "--no-fit", "-o")
    digest = f"busybox@sha256:{'a' * 64}"
    done = sdrun(*base, "p", "--kind", "prompts", "--prompts", "prompts.txt", "--tools-image", digest, "--json")
    assert json.loads(done.out)["files"] == sorted(json.loads(done.out)["files"])
    assert '"1": "a hen"' in (tmp_path / "p" / "overlays" / "cc89-r550" / "prompts.yaml").read_text()
    assert sdrun(*base, "c", "--format", "compose").code == 0
    assert (tmp_path / "c" / "cc89-r550" / "compose.yaml").exists()
    assert sdrun(*base, "q", "--format", "quadlet", "--kind", "job", "-p", "x").code == 0
    assert (tmp_path / "q" / "cc89-r550" / "sdrun-job.container").exists()


def test_what_memory_asks_for_stands_in_the_overlay(sdrun: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdrun.launch import fitting

    write_index(tmp_path)
    write(tmp_path, node("l4", gfd()), node("mig", gfd("NVIDIA-H100-MIG-1g.10gb", "9.0", memory=9984)))
    sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "lock.yaml")
    sdrun("fleet", "manifests", "lock.yaml", "-m", "tiny", "-o", "first")  # makes the model where it is not there yet
    sdrun("models", "pull", "tiny")

    def small(request, model, files, room, catalogue, tuned):  # type: ignore[no-untyped-def]
        needed = room.gpu < 10_000
        return fitting.Fitted(("--vae-tiling",), ("a small GPU",)) if needed else fitting.NOTHING_NEEDED

    monkeypatch.setattr(fitting, "fit_model", small)
    done = sdrun("fleet", "manifests", "lock.yaml", "-m", "tiny", "-o", "k8s")
    assert "cc90-r550-mig-1g-10gb: a small GPU" in done.err
    overlays = tmp_path / "k8s" / "overlays"
    small_gpu = (overlays / "cc90-r550-mig-1g-10gb" / "placement.yaml").read_text()
    assert '"--vae-tiling"' in small_gpu
    assert '"--diffusion-fa"' in small_gpu  # what is faster on an H100 (images/settings.yaml)
    assert "args:" not in (overlays / "cc89-r550" / "placement.yaml").read_text()


MANIFESTS = ("manifests", "lock.yaml", "-m", "tiny", "--no-fit", "-o", "k")
PROMPTS = (*MANIFESTS, "--kind", "prompts", "--prompts", "some")
WRONG = [
    (("plan", "--nodes", "nodes.json"), 2, "nothing names the published images"),
    (("plan", "--nodes", "none.json", "--index", "index.json"), 8, "none.json: cannot be read"),
    (("plan", "--nodes", "nodes.json", "--index", "none.json"), 8, "none.json"),
    (
        ("plan", "--nodes", "nodes.json", "--index", "index.json", "--assume-driver", "new"),
        2,
        "--assume-driver must be a driver",
    ),
    (("plan",), 2, "See: sdrun fleet plan --help"),
    (("manifests", "none.yaml", "-m", "tiny", "-o", "k"), 8, "none.yaml: cannot be read"),
    (("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "--kind", "cron"), 2, "--kind 'cron' is none"),
    (("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "--format", "helm"), 2, "--format 'helm' is none"),
    (("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "--kind", "job"), 2, "a job needs a prompt"),
    (("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "-p", "x"), 2, "a server takes no --prompt"),
    (
        ("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "--kind", "prompts"),
        2,
        "--kind prompts and --prompts FILE go together",
    ),
    (("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "--kind", "prompts", "--prompts", "no"), 2, "no cannot be read"),
    (("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "--kind", "prompts", "--prompts", "empty"), 2, "holds no prompt"),
    (("manifests", "lock.yaml", "-m", "no-such", "-o", "k"), 2, "no model is called"),
    (("manifests", "lock.yaml", "-m", "tiny", "-o", "k", "--class", "cc1"), 2, "the lock has no class"),
    (("lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "."), 8, "Is a directory"),
    (("lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "nodes.json"), 8, "name another file with --output"),
    (("plan", "--nodes", "nodes.json", "--registry", "No such"), 2, "--registry must be HOST[:PORT]/PATH"),
    ((*MANIFESTS, "--namespace", "My Space"), 2, "--namespace 'My Space' is no name"),
    ((*MANIFESTS, "--namespace", "n" * 64), 2, "is no name"),
    ((*MANIFESTS, "--model-claim", "models_1"), 2, "--model-claim 'models_1' is no name"),
    ((*MANIFESTS, "--out-claim", ".out"), 2, "--out-claim '.out' is no name"),
    ((*PROMPTS, "--tools-image", "busybox:latest"), 2, "busybox:latest has no digest, and a tag can move"),
    ((*PROMPTS, "--tools-image", "Busy box"), 2, "--tools-image must be HOST[:PORT]/PATH"),
]


@pytest.mark.parametrize(("arguments", "code", "said"), WRONG)
def test_what_cannot_be(sdrun: Program, nodes: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "lock.yaml")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "some").write_text("a fox\n")
    before = sorted(tmp_path.rglob("*"))
    done = sdrun("fleet", *arguments)
    assert done.code == code, done.err
    assert said in done.err
    assert "remedy:" in done.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_lock_with_nothing_but_comments_is_a_new_one(sdrun: Program, nodes: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock.yaml"
    for before in ("", "# ours alone\n"):
        lock.write_text(before)
        done = sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "lock.yaml")
        assert done.code == 0, done.err
        assert before in lock.read_text()
        assert sdrun("fleet", "check", "lock.yaml", "--nodes", "nodes.json", "--offline").code == 0


def test_a_check_that_asks_no_registry_says_so(sdrun: Program, nodes: Path) -> None:
    sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "lock.yaml")
    check = ("fleet", "check", "lock.yaml", "--nodes", "nodes.json")
    assert "no registry is named" in sdrun(*check).err
    assert "no registry is named" in sdrun(*check, "--index", "index.json").err
    assert sdrun(*check, "--offline").err == ""


@pytest.mark.parametrize("text", ["[" * 50_000, "a: &a [*a]", "schema: !own x", "engine: 2024-13-45", "? [a]\n: b"])
def test_a_lock_that_no_program_wrote(sdrun: Program, nodes: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "lock.yaml").write_text(text)
    done = sdrun("fleet", "check", "lock.yaml", "--nodes", "nodes.json", "--offline", "--json")
    assert (done.code, json.loads(done.out)["id"]) == (8, "bad-lock")


def test_what_somebody_put_beside_manifests_is_not_lost(sdrun: Program, nodes: Path, tmp_path: Path) -> None:
    sdrun("fleet", "lock", "--nodes", "nodes.json", "--index", "index.json", "-o", "lock.yaml")
    (tmp_path / "link").symlink_to("k")
    for folder in ("k", "k", "link"):
        assert sdrun(*("fleet", *MANIFESTS[:-1], folder)).code == 0
    assert (tmp_path / "link").is_symlink()
    own = tmp_path / "k" / "overlays" / "claim.yaml"
    own.write_text("ours")
    done = sdrun("fleet", *MANIFESTS)
    assert (done.code, own.read_text()) == (2, "ours")
    assert "k holds files that are not sdrun's: overlays/claim.yaml" in done.err
