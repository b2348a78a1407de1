"""What is written for a cluster or a host, read back by the programs that will read it: kubectl's kustomize, the schemas of the
oldest and the newest Kubernetes that kubernetes-validate knows, docker compose, Podman's quadlet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from fleets.samples import IMAGES, gfd, node, version, write
from hypothesis import given
from hypothesis import strategies as st
from resolving.samples import index

from sdrun.core.facts import CudaFacts
from sdrun.core.lock import Lock, lock_of
from sdrun.core.workload import Cluster, Workload, shares
from sdrun.errors import NoImage, UsageProblem
from sdrun.fleet.manifests import MARK, chosen, files
from sdrun.fleet.manifests import write as write_files
from sdrun.fleet.planning import plan_fleet
from sdrun.fleet.reading import read_nodes
from sdrun.launch.elsewhere import model_elsewhere, workload
from sdrun.launch.request import Request
from sdrun.render.fleet import unit_word
from sdrun.render.yamltext import flow_list, scalar

BESIDE_PYTHON = str(Path(sys.executable).parent)
TOOLS = f"registry.example/busybox@sha256:{'b' * 64}"
STRANGE = (
    'a "fox" $HOME $(HOME) 100% \\ end',
    "it's # no comment: {a} [b]",
    "ein Fuchs im Schnee, 雪",
    "- a list",
    "null",
    "1e3",
)
NODES = [
    node("l4-1", gfd()),
    node("l4-2", gfd(driver="550.90.07", style="old")),
    node("l4-3", gfd()),
    node("two", gfd(), {"nvidia.com/gpu": 2}),
    node("mig", gfd("NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "0.0", count=7, memory=9984), {"nvidia.com/gpu": 7}),
    node("b200", gfd("NVIDIA-B200", "10.0", "580.65.06", cuda="13.0", memory=183359)),
    node("gke", {"cloud.google.com/gke-accelerator": "nvidia-l4"}),
]


def program(name: str) -> str:
    found = shutil.which(name, path=f"{BESIDE_PYTHON}:{os.environ.get('PATH', os.defpath)}")
    assert found is not None, f"{name} is installed with the extra dev"
    return found


@pytest.fixture
def lock(tmp_path: Path, facts: CudaFacts) -> Lock:
    live = read_nodes(write(tmp_path, *NODES), version("550.54.14"))
    return lock_of(plan_fleet(live, index(*IMAGES), facts), tolerate=["dedicated"])


def load(kind: Any, prompts: tuple[str, ...] = (), model: str = "tiny", *engine_args: str, prompt: str = "") -> Workload:
    request = Request(model, prompt, engine_args=engine_args, serves=kind == "server")
    return workload(kind, request, model_elsewhere(model), f"/usr/bin/sd-{'server' if kind == 'server' else 'cli'}", prompts)


def kustomized(folder: Path, lock: Lock, what: Workload, cluster: Cluster) -> list[dict[str, Any]]:
    """The objects that kubectl would apply; each of them valid for the oldest and the newest release."""
    write_files(folder, files(lock.classes, what, "kustomize", cluster))
    done = subprocess.run([program("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    objects = list(yaml.safe_load_all(done.stdout))
    for release in ends():
        for one in objects:
            kubernetes_validate.validate(one, release, strict=True)
    return objects


def ends() -> tuple[str, str]:
    """The oldest and the newest release whose schemas are there."""
    schemas = [file for file in metadata.files("kubernetes-validate") or () if file.name.endswith(".json")]
    found = {part for file in schemas for part in file.parts if part.startswith("v1.")}
    releases = sorted({tuple(int(number) for number in name.split("-")[0][1:].split(".")[:2]) for name in found})
    assert releases, "kubernetes-validate has schemas by release"
    return f"{releases[0][0]}.{releases[0][1]}", f"{releases[-1][0]}.{releases[-1][1]}"


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def test_a_server_on_every_class(tmp_path: Path, lock: Lock) -> None:
    objects = kustomized(
        tmp_path / "k", lock, load("server"), Cluster(namespace="pictures", tolerate=lock.tolerate, replicas=2)
    )
    assert {one["metadata"]["namespace"] for one in objects} == {"pictures"}
    servers = of_kind(objects, "Deployment")
    assert set(servers) == {f"sdrun-server-{name}" for name in ("cc89-r550", "cc90-r550-mig-1g-10gb", "cc100-r580")}
    one = servers["sdrun-server-cc89-r550"]["spec"]
    pod = one["template"]["spec"]
    container = pod["containers"][0]
    assert one["replicas"] == 2
    assert container["image"] == f"registry.example/team/sdrun@sha256:{'3' * 64}"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["command"] == ["/usr/bin/sd-server"]
    assert container["args"][:4] == ["--listen-ip", "0.0.0.0", "--listen-port", "1234"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/v1/models", "port": "http"}
    assert {one["key"] for one in pod["tolerations"]} == {"nvidia.com/gpu", "dedicated"}
    service = of_kind(objects, "Service")["sdrun-server"]
    for server in servers.values():
        assert service["spec"]["selector"].items() <= server["spec"]["template"]["metadata"]["labels"].items()
        assert server["spec"]["selector"]["matchLabels"]["sdrun.io/class"] in server["metadata"]["name"]
    script = (tmp_path / "k" / "label-nodes.sh").read_text()
    assert "kubectl label node gke sdrun.io/class=cc89-r550 --overwrite" in script.splitlines()
    subprocess.run(["sh", "-n", str(tmp_path / "k" / "label-nodes.sh")], check=True)
    assert os.access(tmp_path / "k" / "label-nodes.sh", os.X_OK)


@pytest.mark.parametrize("kind", ["server", "job", "prompts"])
def test_nothing_runs_with_more_rights_than_it_needs(tmp_path: Path, lock: Lock, kind: Any) -> None:
    what = load(kind, ("one", "two") if kind == "prompts" else (), prompt="x" if kind == "job" else "")
    objects = kustomized(tmp_path / "k", lock, what, Cluster(tools_image=TOOLS))
    pods = [one["spec"]["template"]["spec"] for one in objects if one["kind"] in ("Deployment", "Job")]
    assert pods
    for pod in pods:
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"} & set(pod)
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
            assert "@sha256:" in container["image"]
            writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            assert writable <= {"tmp", "out", "jit", "tools"}
        models = next(volume for volume in pod["volumes"] if volume["name"] == "models")
        assert models["persistentVolumeClaim"] == {"claimName": "sdrun-models", "readOnly": True}
    policy = next(iter(of_kind(objects, "NetworkPolicy").values()))["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    assert ("ingress" in policy) == (kind == "server")


def test_compiled_code_is_kept_where_the_driver_compiles(tmp_path: Path, lock: Lock) -> None:
    servers = of_kind(kustomized(tmp_path / "k", lock, load("server"), Cluster()), "Deployment")
    pod = servers["sdrun-server-cc100-r580"]["spec"]["template"]["spec"]
    environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    assert (environment["CUDA_CACHE_DISABLE"], environment["CUDA_CACHE_PATH"]) == ("0", "/jit")
    assert {"name": "jit", "emptyDir": {"sizeLimit": "2048Mi"}} in pod["volumes"]
    assert int(environment["CUDA_CACHE_MAXSIZE"]) < 2048 << 20  # a pod that fills its volume is thrown out
    assert {"/models", "/jit"} <= {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    native = servers["sdrun-server-cc89-r550"]["spec"]["template"]["spec"]
    assert {"name": "CUDA_CACHE_DISABLE", "value": "1"} in native["containers"][0]["env"]
    assert "/jit" not in {mount["mountPath"] for mount in native["containers"][0]["volumeMounts"]}


def said_by(words: list[str]) -> list[str]:
    """Words of a container as the kubelet hands them on: `$$` is `$`, and no `$(NAME)` is left to be expanded."""
    for word in words:
        assert "$(" not in word.replace("$$", ""), word
    return [word.replace("$$", "$") for word in words]


@pytest.mark.parametrize("prompt", STRANGE)
def test_a_job_says_the_prompt_as_it_was_typed(tmp_path: Path, lock: Lock, prompt: str) -> None:
    objects = kustomized(tmp_path / "k", lock, load("job", prompt=prompt), Cluster(out_claim="pictures"))
    jobs = of_kind(objects, "Job")
    assert len(jobs) == 3
    for job in jobs.values():
        pod = job["spec"]["template"]["spec"]
        words = said_by(pod["containers"][0]["args"])
        assert words[words.index("--prompt") + 1] == prompt
        assert words[words.index("--output") + 1] == "/out/output.png"
        assert {"name": "out", "persistentVolumeClaim": {"claimName": "pictures"}} in pod["volumes"]
        (fails, ignores) = job["spec"]["podFailurePolicy"]["rules"]
        assert (fails["onExitCodes"]["values"], ignores["action"]) == ([3, 4, 5], "Ignore")


def run_picker(pod: Mapping[str, Any], index: int, prompts: Mapping[str, str], folder: Path) -> list[str]:
    """Runs the container's own command on this machine, its shell being this machine's, and tells what the engine is given."""
    container = pod["containers"][0]
    for name in ("prompts", "tools"):
        (folder / name).mkdir(parents=True)
    for number, text in prompts.items():
        (folder / "prompts" / number).write_text(text)
    busybox, engine = folder / "tools" / "busybox", folder / "engine"
    busybox.write_text('#!/bin/sh\nprogram=$1; shift; exec "$program" "$@"\n')
    engine.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    for file in (busybox, engine):
        file.chmod(0o755)
    words = said_by([*container["command"], *container["args"]])
    places = {"/tools/": f"{folder}/tools/", "/prompts/": f"{folder}/prompts/", "/usr/bin/sd-cli": str(engine)}
    for old, new in places.items():
        words = [word.replace(old, new) if number < 4 else word for number, word in enumerate(words)]
    environment = {one["name"]: one["value"] for one in container["env"]} | {
        "JOB_COMPLETION_INDEX": str(index),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    answer: list[str] = json.loads(done.stdout)
    return answer


def test_every_prompt_is_drawn_once_by_one_pod(tmp_path: Path, lock: Lock) -> None:
    objects = kustomized(tmp_path / "k", lock, load("prompts", STRANGE), Cluster(tools_image=TOOLS))
    lists = {name: one["data"] for name, one in of_kind(objects, "ConfigMap").items()}
    drawn = {}
    for name, job in of_kind(objects, "Job").items():
        pod = job["spec"]["template"]["spec"]
        (source,) = (volume["configMap"]["name"] for volume in pod["volumes"] if volume["name"] == "prompts")
        assert job["spec"]["completionMode"] == "Indexed"
        assert job["spec"]["completions"] == len(lists[source])
        for place in range(job["spec"]["completions"]):
            words = run_picker(pod, place, lists[source], tmp_path / name / str(place))
            drawn[words[words.index("--output") + 1]] = words[words.index("--prompt") + 1]
            assert "--steps" in words
    assert drawn == {f"/out/{number}.png": prompt for number, prompt in enumerate(STRANGE)}


def test_a_class_without_a_prompt_has_no_job(tmp_path: Path, lock: Lock) -> None:
    objects = kustomized(tmp_path / "k", lock, load("prompts", ("only one",)), Cluster(tools_image=TOOLS))
    assert list(of_kind(objects, "Job")) == ["sdrun-prompts-cc89-r550"]


@given(st.integers(0, 500), st.lists(st.integers(0, 50), max_size=8))
def test_shares_are_whole_in_order_and_fair(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    if not sum(weights):
        assert parts == [range(0)] * len(parts)
        return
    assert [number for part in parts for number in part] == list(range(total))
    assert all(abs(len(part) - total * weight / sum(weights)) < 1 for part, weight in zip(parts, weights, strict=True))


def test_more_excluded_nodes_than_names_fit(tmp_path: Path, facts: CudaFacts) -> None:
    nodes = [node("l4", gfd()), *(node(f"two-{number}", gfd(), {"nvidia.com/gpu": 2}) for number in range(20))]
    lock = lock_of(plan_fleet(read_nodes(write(tmp_path, *nodes)), index(*IMAGES), facts))
    objects = kustomized(tmp_path / "k", lock, load("server"), Cluster())
    pod = of_kind(objects, "Deployment")["sdrun-server-cc89-r550"]["spec"]["template"]["spec"]
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    for term in terms:
        assert {"key": "sdrun.io/exclude", "operator": "DoesNotExist"} in term["matchExpressions"]
    script = (tmp_path / "k" / "label-nodes.sh").read_text()
    assert script.count("sdrun.io/exclude=mixed-gpus --overwrite") == 20


@pytest.mark.parametrize("kind", ["server", "job"])
@pytest.mark.parametrize("name", ["cc89-r550", "cc100-r580"])
def test_docker_compose_reads_it(tmp_path: Path, lock: Lock, kind: Any, name: str) -> None:
    written = files(lock.classes, load(kind, prompt=STRANGE[0] if kind == "job" else ""), "compose", Cluster())
    path = tmp_path / "compose.yaml"
    path.write_text(written[f"{name}/compose.yaml"])
    argv = [program("docker-compose"), "-f", str(path), "config", "--format", "json"]
    places = {"SDRUN_MODELS": "/srv/models", "SDRUN_OUT": "/srv/out", "PATH": os.environ.get("PATH", "")}
    places |= {"SDRUN_JIT": "/srv/jit"} if name == "cc100-r580" else {}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=places)
    assert (done.returncode, done.stderr) == (0, "")
    engine = json.loads(done.stdout)["services"]["engine"]
    assert engine["image"].startswith("registry.example/team/sdrun@sha256:")
    assert (engine["read_only"], engine["cap_drop"], engine["init"]) == (True, ["ALL"], True)
    compiled = [volume for volume in engine["volumes"] if volume["target"] == "/jit"]
    assert [(volume["type"], volume["source"]) for volume in compiled] == [("bind", "/srv/jit")] * (name == "cc100-r580")
    assert engine["environment"]["CUDA_CACHE_DISABLE"] == ("0" if compiled else "1")
    assert ("CUDA_CACHE_MAXSIZE" in engine["environment"]) == bool(compiled)
    (device,) = engine["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
    if kind == "server":
        assert engine["ports"][0]["host_ip"] == "127.0.0.1"
    else:
        words = [word.replace("$$", "$") for word in engine["command"]]  # `config` writes them as a compose file would
        assert words[words.index("--prompt") + 1] == STRANGE[0]
        assert engine["network_mode"] == "none"
    broken = subprocess.run([*argv[:2], str(path), "config"], capture_output=True, text=True, check=False, env={"PATH": ""})
    assert broken.returncode != 0
    assert "name the folder with the models" in broken.stderr


def quadlet() -> str | None:
    """The generator: of an installed Podman from 4.4 on, or unpacked beside Python."""
    candidates = (f"{BESIDE_PYTHON}/quadlet", "/usr/libexec/podman/quadlet", "/usr/lib/podman/quadlet")
    return next((path for path in candidates if os.access(path, os.X_OK)), None)


@pytest.mark.skipif(quadlet() is None, reason="needs Podman's quadlet (tools/from-debian.sh)")
@pytest.mark.parametrize("prompt", [None, *STRANGE])
def test_quadlet_reads_it(tmp_path: Path, lock: Lock, prompt: str | None) -> None:
    kind: Any = "server" if prompt is None else "job"
    written = files(lock.classes, load(kind, prompt=prompt or ""), "quadlet", Cluster())
    units = tmp_path / "units"
    units.mkdir()
    (units / f"sdrun-{kind}.container").write_text(written[f"cc100-r580/sdrun-{kind}.container"])
    environment = {"QUADLET_UNIT_DIRS": str(units), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([quadlet() or "", "-dryrun"], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "unsupported" not in done.stderr
    assert f"sdrun-{kind}.service" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("ExecStart="))
    for word in (
        "--read-only",
        "--cap-drop all",
        "--security-opt=no-new-privileges",
        "--user 65532:65532",
        "nvidia.com/gpu=all",
    ):
        assert word in line, word
    digest = next(row for row in lock.classes if row.name == "cc100-r580").image.image.partition("sha256:")[2]
    assert f"sdrun-{kind}-jit-{digest[:12]}:/jit" in line
    assert "CUDA_CACHE_PATH=/jit" in line
    if prompt is not None:
        assert unit_word(prompt.replace("$", "$$")) in line
        assert "--network none" in line
    else:
        assert "127.0.0.1:1234:1234" in line


def test_files_with_their_hashes(lock: Lock) -> None:
    written = files(lock.classes, load("server", (), "flux"), "kustomize", Cluster())
    lines = written["models.sha256"].splitlines()
    assert lines
    for line in lines:
        digest, _, path = line.partition("  ")
        assert len(digest) == 64
        assert path.startswith("flux1-schnell-")


def test_files_of_ones_own_and_engine_arguments(lock: Lock) -> None:
    what = load("server", (), "diffusion=my.gguf,vae=ae.safetensors", "--threads", "2")
    assert what.arguments[-2:] == ("--threads", "2")
    assert "/models/diffusion/my.gguf" in what.arguments
    assert what.model_mib is None
    assert "models.sha256" not in files(lock.classes, what, "kustomize", Cluster())
    for model in ("diffusion=a/b.gguf", "colour=x", "vae=", "vae=a,vae=b"):
        with pytest.raises(UsageProblem):
            model_elsewhere(model)


def test_what_cannot_be_asked_for(tmp_path: Path, lock: Lock) -> None:
    picture = tmp_path / "mask.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UsageProblem, match="is a file of this machine"):
        load("job", (), "tiny", "--mask", str(picture), prompt="x")
    with pytest.raises(UsageProblem, match="no model is called"):
        model_elsewhere("no-such-model")
    with pytest.raises(UsageProblem, match="makes videos"):
        model_elsewhere("wan2.2-ti2v-5b")
    with pytest.raises(UsageProblem, match="needs a shell"):
        files(lock.classes, load("prompts", ("x",)), "kustomize", Cluster())
    with pytest.raises(UsageProblem, match="do not fit into a ConfigMap"):
        files(lock.classes, load("prompts", ("x" * 100_000,) * 10), "kustomize", Cluster(tools_image=TOOLS))
    for form in ("compose", "quadlet"):
        with pytest.raises(UsageProblem, match="runs no list of prompts"):
            files(lock.classes, load("prompts", ("x",)), form, Cluster(tools_image=TOOLS))  # type: ignore[arg-type]
    with pytest.raises(UsageProblem, match="the lock has no class 'cc1'"):
        chosen(lock, ["cc1"])
    with pytest.raises(NoImage, match="no node gets an image"):
        chosen(Lock("e", ()), [])
    assert [row.name for row in chosen(lock, ["cc100-r580"])] == ["cc100-r580"]


def test_a_folder_is_written_anew_only_where_it_is_ours(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "k"
    write_files(folder, {"a/b/c.yaml": "1\n", "run.sh": "2\n"})
    write_files(folder, {"a/d.yaml": "3\n"})
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [MARK, "a/d.yaml"]
    assert [entry.name for entry in folder.parent.iterdir()] == ["k"]
    (folder / MARK).unlink()
    with pytest.raises(UsageProblem, match="holds files that are not sdrun's"):
        write_files(folder, {"x": ""})
    assert (folder / "a" / "d.yaml").read_text() == "3\n"
    with pytest.raises(UsageProblem, match="cannot be written"):
        write_files(folder / "a" / "d.yaml", {"x": ""})


@pytest.mark.parametrize(
    "text",
    ["a", "null", "no", "1", "1.0", "8.9", "a b", "a:b", "a#b", "", "y", "0x1", "é", "a/b-c", "-", "\n", "sha256:1"],
)
def test_scalars_come_back_as_the_text_they_were(text: str) -> None:
    assert yaml.safe_load(f"v: {scalar(text)}")["v"] == text
    assert yaml.safe_load(f"v: {flow_list([text, 'x'])}")["v"] == [text, "x"]
    assert scalar(None) == "null"
