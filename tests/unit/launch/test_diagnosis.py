"""The reader and the rules: causes beat symptoms, the whole log counts, the GPU must have been used, nothing stalls it."""

from __future__ import annotations

import dataclasses
import itertools
import random
import time
import tracemalloc
from pathlib import Path

import pytest

from sdrun.catalog.diagnoses import read_diagnoses
from sdrun.core.diagnosis import Pattern, Scanner, clean
from sdrun.errors import BadConfiguration, EngineFailed
from sdrun.launch.diagnosis import LogReader, diagnose
from sdrun.runtime.protocol import Exit

TRAP = (
    b".../fattn-mma-f16.cuh:1568: ERROR: CUDA kernel flash_attn_ext_f16 has no device code compatible with CUDA arch 750. "
    b"ggml-cuda.cu was compiled for: 750,860\n"
)
DEVICE = (
    b"[INFO ] ggml_extend.hpp:63   -   Device 0: NVIDIA H100 80GB HBM3, compute capability 9.0, VMM: yes, VRAM: 81079 MiB\n"
)
FOUND = b"[INFO ] ggml_extend.hpp:63   - ggml_cuda_init: found 1 CUDA devices (Total VRAM: 81079 MiB):\n"
CUBLAS = (
    b"[ERROR] ggml_extend.hpp:69   - CUDA error: an internal operation failed\n"
    b"[ERROR] ggml_extend.hpp:69   -   current device: 0, in function ggml_cuda_op_mul_mat_cublas at .../ggml-cuda.cu:1418\n"
    b".../ggml-cuda.cu:98: CUDA error\n"
)
NO_IMAGE = (  # of code for 8.6 alone: detection and loading went well, the first kernel did not
    b"[ERROR] ggml_extend.hpp:69   - ggml_cuda_compute_forward: GET_ROWS failed\n"
    b"[ERROR] ggml_extend.hpp:69   - CUDA error: no kernel image is available for execution on the device\n"
    b"[ERROR] ggml_extend.hpp:69   -   current device: 0, in function ggml_cuda_compute_forward at .../ggml-cuda.cu:2824\n"
    b"[ERROR] ggml_extend.hpp:69   -   err\n"
    b".../ggml-cuda.cu:98: CUDA error\n"
)
SAVED = b"[INFO ] main.cpp:437  - save result image 0 to '/out/a.png' (success)\n"


def log_of(*parts: bytes, stream: str = "stdout") -> LogReader:
    log = LogReader()
    for part in parts:
        log.feed(stream, part)
    return log


def aborted(*parts: bytes):
    return diagnose(log_of(*parts), Exit(134, False, 1.0), True)


def test_the_device_line_far_above_a_cublas_error_is_the_cause() -> None:
    noise = b"[INFO ] model.cpp:1 - loading\n" * 100_000
    verdict = aborted(FOUND, DEVICE, TRAP * 224, noise, CUBLAS)
    assert verdict.id == "host-device-mismatch"
    assert "NVIDIA H100 80GB HBM3 (compute capability 9.0)" in verdict.message
    assert "7.5" in verdict.message
    assert "of 7.5, 8.6" in verdict.message
    assert "sdrun build '*-sm90'" in verdict.remedy
    assert verdict.evidence[0].encode() in TRAP


def test_a_kernel_missing_from_the_right_code_is_no_disagreement() -> None:
    trap = TRAP.replace(b"arch 750", b"arch 900").replace(b"750,860", b"900")
    verdict = aborted(FOUND, DEVICE, trap * 224, CUBLAS)
    assert verdict.id == "kernel-missing"
    assert "its kernel flash_attn_ext_f16 on NVIDIA H100 80GB HBM3" in verdict.message
    assert "code for compute capability 9.0" in verdict.message
    assert aborted(trap.replace(b": 900\n", b": 9001\n")).id == "host-device-mismatch"


def test_code_of_another_major_alone() -> None:
    loaded = b"[INFO ] stable-diffusion.cpp:856  - total params memory size = 825.61MB (VRAM 825.61MB, RAM 0.00MB)\n"
    verdict = aborted(FOUND, DEVICE, loaded, NO_IMAGE)
    assert (verdict.id, verdict.exit_code) == ("arch-missing", 9)
    assert "no code that NVIDIA H100 80GB HBM3 (compute capability 9.0) can run" in verdict.message
    assert "sdrun build '*-sm90'" in verdict.remedy


def test_the_order_in_the_log_does_not_matter() -> None:
    for parts in itertools.permutations([DEVICE, TRAP, CUBLAS]):
        assert aborted(*parts).id == "host-device-mismatch"


def test_the_cublas_error_alone_stays_a_symptom() -> None:
    assert aborted(DEVICE, CUBLAS).id == "gpu-library-failed"


def test_streams_interleaved_inside_lines_are_kept_apart() -> None:
    log = LogReader()
    log.feed("stdout", TRAP[:60])
    log.feed("stderr", CUBLAS[:30])
    log.feed("stdout", TRAP[60:])
    log.feed("stderr", CUBLAS[30:])
    assert diagnose(log, Exit(134, False, 1.0), True).id == "host-device-mismatch"


@pytest.mark.parametrize("portion", [1, 7, 4096])
def test_portions_of_any_size_give_the_same_verdict(portion: int) -> None:
    text = FOUND + DEVICE + TRAP + CUBLAS
    log = log_of(*(text[i : i + portion] for i in range(0, len(text), portion)))
    whole = log_of(text)
    end = Exit(134, False, 1.0)
    assert diagnose(log, end, True) == diagnose(whole, end, True)


def test_text_behind_the_frames_of_a_progress_bar_is_found() -> None:
    bar = b"".join(b"\r  |====>     | %d/20 - 1.23it/s\x1b[K" % i for i in range(20))
    assert aborted(DEVICE, bar + b"\r" + TRAP.rstrip()).id == "host-device-mismatch"
    log = log_of(bar + b"\n", b"last words\n")
    log.finish()
    assert log.tail == ("  |====>     | 19/20 - 1.23it/s", "last words")


def test_a_line_without_end_counts() -> None:
    assert aborted(DEVICE, b"x" * 100_000 + TRAP.rstrip()).id == "host-device-mismatch"


def test_a_text_across_the_cut_of_an_endless_line_is_found() -> None:
    for offset in range(8100, 8300, 7):
        assert (
            diagnose(log_of(b"x" * offset, TRAP.rstrip(), b"y" * 9000), Exit(1, False, 1.0), False).id == "host-device-mismatch"
        )


def test_a_truncated_text_still_tells_what_it_can() -> None:
    one_arch = TRAP.index(b",860")  # cut there it says that the code was compiled for 7.5 alone
    for cut in (cut for cut in range(len(TRAP)) if cut != one_arch):
        verdict = diagnose(log_of(TRAP[:cut]), Exit(134, False, 1.0), True)
        assert verdict.id in ("engine-aborted", "host-device-mismatch")
        assert "{" not in verdict.message
    assert aborted(TRAP[: TRAP.index(b"ggml-cuda.cu was")]).id == "host-device-mismatch"


def test_colours_and_control_characters_are_removed() -> None:
    verdict = aborted(b"\x1b[31;1m[ERROR]\x1b[0m x - CUDA error: \x1b[2Jbad\x07 thing\xff\n")
    assert verdict.message == "CUDA failed: bad  thing\ufffd."
    assert "\x1b" not in str(verdict)


def test_braces_in_the_log_are_text() -> None:
    assert aborted(b"CUDA error: {gpu} {0} {remedy.__class__}\n").message == "CUDA failed: {gpu} {0} {remedy.__class__}."


def test_unknown_text_is_shown_as_it_is() -> None:
    verdict = diagnose(log_of(b"first\n", b"quux is broken\n" * 3), Exit(1, False, 1.0), True)
    assert verdict.id == "engine-failed"
    assert verdict.tail == ("first", "quux is broken", "(the same line again)")
    error = verdict.to_error()
    assert isinstance(error, EngineFailed)
    assert error.detail == "first\nquux is broken\n(the same line again)"


def test_evidence_above_the_tail_is_shown_with_it() -> None:
    lines = b"".join(b"line %d\n" % i for i in range(100))
    detail = aborted(TRAP, lines).to_error().detail.splitlines()
    assert detail[0].encode() in TRAP
    assert detail[1] == "..."
    assert detail[-1] == "line 99"
    assert len(detail) == 22


def test_out_of_memory_kill() -> None:
    assert diagnose(log_of(b""), Exit(137, True, 1.0), False).exit_code == 10
    assert diagnose(log_of(b""), Exit(137, False, 1.0), False).id == "killed"


def test_missing_text_encoder_is_a_cause_only_of_a_crash() -> None:
    warning = b"[WARN ] conditioner.hpp:1093 - IMPORTANT NOTICE: No text encoders provided, cannot process prompts!\n"
    assert diagnose(log_of(warning), Exit(139, False, 1.0), False).id == "text-encoder-missing"
    assert diagnose(log_of(warning), Exit(0, False, 1.0), False) is None
    assert diagnose(log_of(warning, b"std::bad_alloc\n"), Exit(134, False, 1.0), False).id == "out-of-memory"


class TestProofOfTheGpu:
    good = Exit(0, False, 1.0)

    def test_named_device_is_success(self) -> None:
        log = log_of(FOUND, DEVICE, SAVED)
        assert diagnose(log, self.good, True) is None
        assert diagnose(log, self.good, "NVIDIA H100 80GB HBM3") is None
        assert [dataclasses.astuple(device) for device in log.devices] == [("0", "NVIDIA H100 80GB HBM3", "9.0")]

    def test_error_texts_of_a_run_that_ended_well_do_not_matter(self) -> None:
        assert diagnose(log_of(DEVICE, CUBLAS, SAVED), self.good, True) is None

    def test_no_device_named_is_a_failure(self) -> None:
        verdict = diagnose(log_of(SAVED), self.good, True)
        assert (verdict.id, verdict.exit_code) == ("ran-on-cpu", 9)

    def test_cpu_wanted(self) -> None:
        assert diagnose(log_of(SAVED), self.good, False) is None

    @pytest.mark.parametrize(
        "line",
        [
            b"[WARN ] util.cpp:752  - loading CPU backend\n",
            b"[INFO ] stable-diffusion.cpp:856  - total params memory size = 4.05MB (VRAM 0.00MB, RAM 4.05MB): text_encoders\n",
        ],
    )
    def test_device_found_but_not_used_is_a_failure(self, line: bytes) -> None:
        verdict = diagnose(log_of(DEVICE, line, SAVED), self.good, True)
        assert verdict.id == "ran-on-cpu"
        assert verdict.evidence[0] in line.decode()

    def test_the_reason_for_running_on_the_cpu_is_told(self) -> None:
        reason = b"CUDA driver version is insufficient for CUDA runtime version\n"
        line = b"[ERROR] ggml_extend.hpp:69 - ggml_cuda_init: failed to initialize CUDA: "
        verdict = diagnose(log_of(line + reason, SAVED), self.good, True)
        assert (verdict.id, verdict.exit_code) == ("driver-too-old", 5)

    def test_a_warning_that_does_not_explain_it_is_not_blamed(self) -> None:
        line = b"[ERROR] model.cpp:1 - incomplete file 'preview.png'\n"
        assert diagnose(log_of(line, SAVED), self.good, True).id == "ran-on-cpu"

    def test_another_gpu_than_the_chosen_one(self) -> None:
        verdict = diagnose(log_of(DEVICE, SAVED), self.good, "NVIDIA GeForce RTX 4090")
        assert verdict.id == "wrong-gpu"
        assert "H100" in verdict.message

    def test_mig_slice_of_the_chosen_gpu(self) -> None:
        line = DEVICE.replace(b"HBM3", b"HBM3 MIG 1g.10gb")
        assert diagnose(log_of(line), self.good, "NVIDIA H100 80GB HBM3") is None


class TestHostileLogs:
    """50 MB logs in linear time: the limits are an order of magnitude above what these take (2 to 3 s on a slow core)."""

    SIZE = 10_000_000

    @pytest.mark.parametrize(
        "portion",
        [
            b"[INFO ] stable-diffusion.cpp:123 - something failed with error %d in file of CUDA\n" * 400,
            b"CUBLAS_STATUS_ALLOC_FAILEX failed to allocate CUDA" * 1000,
            b"tensor 'tensor 'tensor 'tensor '" * 2000 + b"\n",
            b"unsupported dtype '",
            b"] file ] file ] file \r" * 3000,
            b"allocating allocating MiB on device on device : cudaMalloc faile\n" * 500,
            bytes(random.Random(1).randbytes(65536)),
        ],
        ids=["plain", "endless-line", "almost-a-match", "small-portions", "carriage-returns", "interleaved", "random-bytes"],
    )
    def test_time_and_memory_are_bounded(self, portion: bytes) -> None:
        def seconds(size: int) -> float:
            start = time.process_time()
            log = LogReader()
            for _ in range(size // len(portion)):
                log.feed("stdout", portion)
            assert diagnose(log, Exit(1, False, 1.0), True) is not None
            return time.process_time() - start

        assert seconds(self.SIZE) < 10

    def test_memory_does_not_grow_with_the_log(self) -> None:
        log = LogReader()
        portion = DEVICE + TRAP + b"error: invalid\n" + b"x" * 3000
        tracemalloc.start()
        for _ in range(3000):
            log.feed("stdout", portion)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2_000_000


class TestPattern:
    @pytest.mark.parametrize(
        "text", ["{what} failed here", "a{b}{c}long enough", "short", "", "stray } brace here", "a {kind:none} of it"]
    )
    def test_bad_patterns_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"must|needs|gap"):
            Pattern.parse(text)

    def test_gaps(self) -> None:
        pattern = Pattern.parse("allocating {mib} MiB on device {device}: failed")
        assert pattern.match("x allocating 9.5 MiB on device 0: failed y") == {"mib": "9.5", "device": "0"}
        assert pattern.match("allocating 9.5 MiB on device 0: worked") is None

    def test_capabilities(self) -> None:
        pattern = Pattern.parse("compiled for: {archs:capabilities}")
        assert pattern.match("compiled for: 520,860,1210") == {"archs": "5.2, 8.6, 12.1"}
        assert pattern.match("compiled for: nothing") == {"archs": "nothing"}
        assert pattern.match("compiled for: 750,8") == {"archs": "750,8"}

    def test_gaps_of_one_name_hold_the_same(self) -> None:
        pattern = Pattern.parse("runs {a:capabilities} where compiled for {a:capabilities}")
        assert pattern.match("runs 900 where compiled for 900") == {"a": "9.0"}
        assert pattern.match("runs 900 where compiled for 900,1000") is None
        assert pattern.names == {"a"}

    def test_scanner_keeps_as_many_as_asked(self) -> None:
        scanner = Scanner({"a": [Pattern.parse("number {n}")]}, keep=2)
        scanner.scan(b"number 1\nnumber 2\rnumber 3\n")
        scanner.scan(b"number 4\n")
        assert [finding.values["n"] for finding in scanner.found["a"]] == ["1", "2"]

    def test_clean(self) -> None:
        assert clean(b"\x1b[1;31ma\tb\x1b[K\xc3\xa9\xff") == "a bé\ufffd"


class TestTable:
    HEAD = "proof:\n  device: 'Device {index}: {name}, capability {capability}, V'\ncauses:\n"

    def faults(self, tmp_path: Path, rows: str, head: str = HEAD) -> str:
        path = tmp_path / "table.yaml"
        path.write_text(head + rows)
        with pytest.raises(BadConfiguration) as caught:
            read_diagnoses(path)
        return str(caught.value)

    def test_every_fault_is_told_with_its_line(self, tmp_path: Path) -> None:
        rows = (
            "- {key: a, exit_code: 9, message: m., remedy: r, source: s}\n"
            "- {key: b, exit_code: 77, exits: [1], message: m., remedy: r, source: s}\n"
            "- {key: c, exit_code: 9, texts: ['{gap} leads'], message: m., remedy: r, source: s}\n"
            "- {key: d, exit_code: 9, texts: [a long text], message: 'about {nothing}.', remedy: r, source: s}\n"
            "- {key: e, exit_code: 9, exits: [1], message: m., remedy: r, source: s, mesage: typo}\n"
            "- {key: f, exit_code: 9, exits: [1], message: m., remedy: r, source: s, where: there}\n"
            "- {key: f, exit_code: '9', exits: [1], message: m., remedy: r, source: s}\n"
        )
        told = self.faults(tmp_path, rows)
        for line, part in [
            (4, "texts"),
            (5, "77"),
            (6, "gap"),
            (7, "{nothing}"),
            (8, "mesage"),
            (9, "where"),
            (10, "exit_code"),
        ]:
            assert any(f"table.yaml:{line}: " in fault and part in fault for fault in told.splitlines()), (line, told)

    def test_two_rows_with_one_key(self, tmp_path: Path) -> None:
        row = "- {key: a, exit_code: 9, exits: [1], message: m., remedy: r, source: s}\n"
        assert "two rows have the key 'a'" in self.faults(tmp_path, row * 2)

    def test_proof_is_needed(self, tmp_path: Path) -> None:
        assert "proof" in self.faults(tmp_path, "", head="causes: []\n")
        assert "gaps" in self.faults(tmp_path, "", head="proof: {device: 'Device of some kind'}\ncauses: []\n")
