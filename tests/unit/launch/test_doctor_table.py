"""What people see of the doctor, and how the verb ends."""

from __future__ import annotations

import json
import re
import sys

import pytest

from sdrun.cli.doctor import table
from sdrun.cli.main import main
from sdrun.launch.doctor import Check

LONG = (
    "NVIDIA H100 80GB HBM3 (9.0, 80 GiB); driver 580.159.04 (found by nvml). The GPU was warm, and it is said at some length."
)
CHECKS = (
    Check("runtime", "ok", "docker 28.5.2 answers"),
    Check("gpu-container", "warn", LONG, "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"),
    Check("disk-images", "fail", "full", "df -h " + "and so on " * 12, 10),
)


def test_columns_are_aligned_and_fit_80_columns() -> None:
    lines = list(table(CHECKS, width=80, colours=False))
    seen = [line for line in lines if not line.startswith("      fix: ")]
    assert all(len(line) <= 80 for line in seen)
    assert all(line[19:21] == "  " for line in seen)
    assert lines[0] == "ok    runtime        docker 28.5.2 answers"
    assert " ".join(line[21:].strip() for line in seen[1:-1]) == LONG


def test_a_remedy_stands_on_one_line_so_that_it_can_be_pasted() -> None:
    lines = list(table(CHECKS, width=80, colours=False))
    assert lines[-1] == f"      fix: {CHECKS[2].remedy}"


def test_colours_change_nothing_else() -> None:
    plain, coloured = (list(table(CHECKS, width=80, colours=on)) for on in (False, True))
    assert [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured] == plain
    assert coloured != plain


def test_a_name_of_every_check_fits_its_column() -> None:
    from sdrun.launch.doctor.registry import CHECKS as ITEMS

    assert max(len(item.name) for item in ITEMS) <= 13
    assert len({item.name for item in ITEMS}) == len(ITEMS)
    for item in ITEMS:
        before = [other.name for other in ITEMS[: ITEMS.index(item)]]
        assert set(item.after) <= set(before), "a check builds only on checks that stand before it"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str, **environ: str) -> tuple[int, str, str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["sdrun", *arguments])
        code = main()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("SDRUN_RUNTIME", "docker")
    monkeypatch.setenv("SDRUN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("SDRUN_STATE_DIR", str(tmp_path / "state"))


FACTS = {
    "schema": "sdrun.host/v1",
    "platform": "linux/amd64",
    "driver_version": "580.159.04",
    "cuda_driver": "13.0",
    "gpus": [],
}


@pytest.mark.usefixtures("no_runtime")
class TestVerb:
    def test_json_and_exit_code_of_the_first_failure(self, run, tmp_path) -> None:
        facts = tmp_path / "host.json"
        facts.write_text(json.dumps(FACTS))
        code, out, err = run("doctor", "--json", "--host", str(facts))
        document = json.loads(out)
        assert document["schema"] == "sdrun.doctor/v1"
        assert all(set(check) == {"name", "status", "seen", "remedy"} for check in document["checks"])
        by_name = {check["name"]: check["status"] for check in document["checks"]}
        assert (by_name["runtime"], by_name["gpu"], by_name["container"]) == ("fail", "fail", "skip")
        assert code == 6
        assert err == ""

    def test_table_on_stdout_and_count_on_stderr(self, run, tmp_path) -> None:
        facts = tmp_path / "host.json"
        facts.write_text(json.dumps(FACTS))
        code, out, err = run("doctor", "--host", str(facts))
        assert code == 6
        assert out.startswith("fail  runtime ")
        assert "\x1b" not in out
        assert "failed" in err

    @pytest.mark.parametrize("option", ["--host", "--index"])
    def test_a_bad_file_is_exit_8_naming_the_key(self, run, tmp_path, option: str) -> None:
        bad = tmp_path / "bad.json"
        bad.write_text('{"schema": "sdrun.other/v1"}')
        code, out, err = run("doctor", "--json", option, str(bad))
        assert code == 8
        assert json.loads(out)["exit_code"] == 8
        assert "schema" in err

    def test_a_bad_override_is_a_failed_check(self, run) -> None:
        code, out, _ = run("doctor", "--json", SDRUN_COMPUTE_CAPABILITY="eight")
        checks = {check["name"]: check for check in json.loads(out)["checks"]}
        assert code == 6
        assert checks["overrides"]["status"] == "fail"
        assert "SDRUN_COMPUTE_CAPABILITY" in checks["gpu"]["seen"]
