"""Every error text that is known from real logs maps to exactly one verdict: the list is walked through, in both directions."""

from __future__ import annotations

import pytest

from sdrun.catalog.diagnoses import BUILT_IN, diagnose_runtime, load_diagnoses
from sdrun.launch.diagnosis import LogReader, diagnose
from sdrun.runtime.protocol import Exit

ABORT = "[ERROR] ggml_extend.hpp:69   - CUDA error: {}\n.../ggml-cuda.cu:98: CUDA error\n"

# (text, exit code of the process, verdict, exit code of sdrun)
ENGINE = [
    # the guard in the image (images/guard/guard.c)
    ("sdrun guard: no-gpu: no NVIDIA driver is in reach of this container", 3, "no-gpu", 3),
    ("sdrun guard: no-code-for-capability: cu124-sm89 (sm_89) has no code for GPU 0", 4, "no-code-for-capability", 4),
    ("sdrun guard: arch-mismatch: in cu130-multi code and kernels would not fit together", 4, "arch-mismatch", 4),
    ("sdrun guard: driver-too-old: cu130-sm89 needs a driver that speaks CUDA 13.0", 5, "driver-too-old", 5),
    ("sdrun guard: ptx-newer-than-driver: cu124-multi needs a driver", 5, "ptx-newer-than-driver", 5),
    # an arch is missing: sd#554, sd#604, sd#1681, LocalAI#9156, H100 with 8.6 code, pruned cuBLAS 13
    (ABORT.format("no kernel image is available for execution on the device"), 134, "arch-missing", 9),
    (ABORT.format("invalid device function"), 134, "arch-missing", 9),
    ("ggml was not compiled with any CUDA arch <= 750", 134, "arch-missing", 9),  # lc#15589, #15593
    # host and device code disagree: sd#547, #541, #579, lc#6529, #5686, koboldcpp#1362, #610, whisper.cpp#2050
    (
        "mmq.cuh:2588: ERROR: CUDA kernel mul_mat_q has no device code compatible with CUDA arch 520. ggml-cuda.cu was "
        "compiled for: 520",
        134,
        "kernel-missing",
        9,
    ),
    (
        "fattn-mma-f16.cuh:1568: ERROR: CUDA kernel flash_attn_ext_f16 has no device code compatible with CUDA arch 750. "
        "ggml-cuda.cu was compiled for: 750,860",
        134,
        "host-device-mismatch",
        9,
    ),
    (
        "ERROR: CUDA kernel dequantize_block_q8_0_f16 has no device code compatible with CUDA arch 520.",
        134,
        "host-device-mismatch",
        9,
    ),
    ("ERROR: ggml-cuda was compiled without support for the current GPU architecture.", 134, "host-device-mismatch", 9),
    # the driver: lc#15609, #1648, #5845, ollama#16449, #16533, #7666, lc#24418, #17542
    (ABORT.format("the provided PTX was compiled with an unsupported toolchain."), 134, "ptx-newer-than-driver", 5),
    ("CUDA error 222 at ggml-cuda.cu:7788", 1, "ptx-newer-than-driver", 5),
    (ABORT.format("device kernel image is invalid"), 134, "fatbin-compression-newer-than-driver", 5),
    (ABORT.format("Loader version is insufficient for fatbin"), 134, "fatbin-compression-newer-than-driver", 5),
    (ABORT.format("CUDA driver version is insufficient for CUDA runtime version"), 134, "driver-too-old", 5),
    (ABORT.format("forward compatibility was attempted on non supported HW"), 134, "cuda-compat-on-unsupported-gpu", 5),
    (ABORT.format("system has unsupported display driver / cuda driver combination"), 134, "driver-library-mismatch", 3),
    ("Failed to initialize NVML: Driver/library version mismatch", 1, "driver-library-mismatch", 3),
    (ABORT.format("PTX JIT compilation was disabled"), 134, "jit-forbidden", 4),
    (ABORT.format("PTX JIT compiler library not found"), 134, "gpu-access-unavailable", 6),
    (ABORT.format("a PTX JIT compilation failed"), 134, "ptx-rejected", 9),
    # the GPU is not in the container, or not usable: sd#1352, lc#7822, #7774, #23522
    (
        "/usr/bin/sd-cli: error while loading shared libraries: libcuda.so.1: cannot open shared object file: No such file "
        "or directory",
        127,
        "gpu-access-unavailable",
        6,
    ),
    ("ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected", 1, "gpu-access-unavailable", 6),
    ("backend config failed: backend 'cuda0' was not found", 1, "gpu-access-unavailable", 6),
    ("ggml_cuda_init: failed to initialize CUDA: unknown error", 1, "gpu-access-unavailable", 6),
    (ABORT.format("invalid device ordinal"), 134, "gpu-not-found", 2),
    (ABORT.format("all CUDA-capable devices are busy or unavailable"), 134, "gpu-busy", 3),
    ("ggml_cuda_init: failed to initialize CUDA: system not yet initialized", 1, "fabric-manager-down", 3),
    (ABORT.format("uncorrectable ECC error encountered"), 134, "gpu-hardware-fault", 3),
    ("sd-cli: error while loading shared libraries: libgomp.so.1: cannot open shared object file", 127, "image-incomplete", 9),
    ("sd-cli: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by sd-cli)", 1, "image-incomplete", 9),
    # memory
    (
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9822.50 MiB on device 0: cudaMalloc failed: out of memory",
        1,
        "out-of-gpu-memory",
        10,
    ),
    (ABORT.format("out of memory"), 134, "out-of-gpu-memory", 10),
    ("ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 1234567", 1, "out-of-gpu-memory", 10),
    ("terminate called after throwing an instance of 'std::bad_alloc'", 134, "out-of-memory", 10),
    ("ggml_aligned_malloc: insufficient memory (attempted to allocate 9999.00 MB)", 134, "out-of-memory", 10),
    ("libgomp: Thread creation failed: Resource temporarily unavailable", 1, "thread-limit", 9),
    ("/out: No space left on device", 1, "disk-full", 10),
    # files
    ("[ERROR] model.cpp:869  - read tensor data failed: '/models/a.gguf'", 1, "model-file-damaged", 7),
    ("[ERROR] ggml_extend.hpp:385  - incomplete file '/models/a.safetensors'", 1, "model-file-damaged", 7),
    ("gguf_init_from_file_impl: failed to read tensor info", 1, "model-file-damaged", 7),
    ("[ERROR] model.cpp:299  - invalid safetensor file '/models/a.safetensors'", 1, "model-file-damaged", 7),
    ("[WARN ] model.cpp:228  - file /models/a.gguf not found", 1, "model-file-missing", 9),
    ("[WARN ] stable-diffusion.cpp:221  - loading diffusion model from '/models/a' failed", 1, "model-unknown", 9),
    ("[ERROR] stable-diffusion.cpp:299  - get sd version from file failed: '/models/a.gguf'", 1, "model-unknown", 9),
    ("[INFO ] main.cpp:706  - new_sd_ctx_t failed", 1, "model-load-failed", 9),
    ("[ERROR] model.cpp:1067 - tensor 'first_stage_model.decoder.conv_in.bias' not in model file", 1, "model-incomplete", 9),
    ("[ERROR] model.cpp:1035 - tensor 'a' has wrong shape in model file: got [1, 1, 1, 1]", 1, "model-files-mismatch", 9),
    (
        "[WARN ] conditioner.hpp:1093 - IMPORTANT NOTICE: No text encoders provided, cannot process prompts!",
        139,
        "text-encoder-missing",
        9,
    ),
    ("[ERROR] media_io.cpp:538  - load image from '/in/a.png' failed", 1, "input-image-unreadable", 2),
    ("[INFO ] main.cpp:437  - save result image 0 to '/out/a.png' (failure)", 1, "output-not-written", 9),
    # arguments
    ("[ERROR] common.cpp:290  - error: unknown argument: --bogus", 1, "engine-argument-rejected", 2),
    (
        "[ERROR] common.cpp:615  - error: the following arguments are required: model_path/diffusion_model",
        1,
        "engine-argument-rejected",
        2,
    ),
    # symptoms without a cause
    (ABORT.format("unspecified launch failure"), 134, "gpu-kernel-crashed", 9),
    (ABORT.format("an illegal memory access was encountered"), 134, "gpu-kernel-crashed", 9),
    (ABORT.format("an internal operation failed"), 134, "gpu-library-failed", 9),
    (ABORT.format("CUBLAS_STATUS_EXECUTION_FAILED"), 134, "gpu-library-failed", 9),
    (ABORT.format("something of next year"), 134, "cuda-failed", 9),
    ("ggml.c:1234: GGML_ASSERT(a->ne[0] == b->ne[0]) failed", 134, "engine-assertion", 9),
    ("ggml-cuda.cu:1760: fatal error", 134, "engine-assertion", 9),
    ("terminate called after throwing an instance of 'std::out_of_range'", 134, "engine-exception", 9),
    ("[ERROR] stable-diffusion.cpp:1696 - diffusion model compute failed", 1, "generation-failed", 9),
    ("[ERROR] main.cpp:741  - generate failed", 1, "generation-failed", 9),
    # the exit status alone
    ("", 132, "cpu-too-old", 9),
    ("", 134, "engine-aborted", 9),
    ("", 135, "bus-error", 9),
    ("", 136, "arithmetic-fault", 9),
    ("", 137, "killed", 9),
    ("", 139, "segfault", 9),
    ("", 143, "terminated", 9),
    ("", 127, "image-differs", 7),
    ("quux: it broke", 1, "engine-failed", 9),
]

RUNTIME = [
    (
        'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
        "gpu-access-unavailable",
        6,
    ),
    ('could not select device driver "cdi" with capabilities: []', "gpu-access-unavailable", 6),
    ("Error response from daemon: unknown or invalid runtime name: nvidia", "gpu-access-unavailable", 6),
    ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=7", "cdi-spec-stale", 6),
    (
        "OCI runtime create failed: nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.6, please update "
        "your driver to a newer version, or use an earlier cuda container: unknown",
        "driver-too-old",
        5,
    ),
    ("nvidia-container-cli: initialization error: nvml error: driver/library version mismatch", "driver-library-mismatch", 3),
    ("nvidia-container-cli: initialization error: load library failed: libnvidia-ml.so.1", "gpu-access-unavailable", 6),
    (
        "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
        "runtime-permission",
        6,
    ),
    ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", "runtime-down", 6),
    ("write /var/lib/docker/tmp/x: no space left on device", "disk-full", 10),
    ("manifest unknown: manifest unknown", "download-failed", 7),
    ("pull access denied for sdrun, repository does not exist or may require 'docker login'", "download-failed", 7),
    ("dial tcp: lookup registry.example: no such host", "download-failed", 7),
    ("x509: certificate has expired or is not yet valid", "download-failed", 7),
    ("filesystem layer verification failed for digest sha256:00", "download-failed", 7),
    ("No such image: sdrun:none", "image-missing", 6),
    ("standard_init_linux.go:228: exec user process caused: exec format error", "platform-mismatch", 4),
    ('exec: "sd-cli": executable file not found in $PATH: unknown', "image-differs", 7),
    ('exec: "docker-init": executable file not found in $PATH: unknown', "runtime-failed", 6),
    ("invalid reference format: repository name must be lowercase", "bad-option", 2),
    ("Bind for 127.0.0.1:1234 failed: port is already allocated", "port-in-use", 2),
    ('invalid mount config for type "bind": bind source path does not exist: /nowhere', "runtime-failed", 6),
    ("fork/exec /usr/bin/runc: cannot allocate memory", "out-of-memory", 10),
    (
        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start: unknown",
        "runtime-failed",
        6,
    ),
]


def read(text: str, code: int):
    log = LogReader()
    log.feed("stderr", text.encode())
    return diagnose(log, Exit(code, False, 1.0), True)


@pytest.mark.parametrize(("text", "code", "id", "exit_code"), ENGINE, ids=[f"{row[2]}-{i}" for i, row in enumerate(ENGINE)])
def test_an_engine_text_has_one_verdict(text: str, code: int, id: str, exit_code: int) -> None:
    verdict = read(text, code)
    assert (verdict.id, verdict.exit_code) == (id, exit_code)
    assert verdict.to_error().exit_code == exit_code
    assert verdict.to_error().id == id


@pytest.mark.parametrize(("text", "id", "exit_code"), RUNTIME, ids=[f"{row[1]}-{i}" for i, row in enumerate(RUNTIME)])
def test_a_runtime_text_has_one_verdict(text: str, id: str, exit_code: int) -> None:
    verdict = diagnose_runtime(text)
    assert (verdict.id, verdict.exit_code) == (id, exit_code)
    assert diagnose_runtime(text.encode()) == verdict


def test_every_row_of_the_table_is_reached_by_a_text_or_exit_of_these_lists() -> None:
    reached = {row[2] for row in ENGINE} | {row[1] for row in RUNTIME} | {"out-of-memory"}
    assert {cause.id for cause in load_diagnoses().causes} <= reached


def test_every_single_pattern_finds_its_own_text_and_fills_its_sentences() -> None:
    for cause in load_diagnoses().causes:
        for pattern in cause.texts:
            line = "".join(piece + "750" * (i < len(pattern.fields)) for i, piece in enumerate(pattern.pieces))
            values = pattern.match(line)
            assert values is not None
            assert set(values) == pattern.names
            verdict = read(line, cause.exits[0] if cause.exits else 1) if cause.where != "runtime" else diagnose_runtime(line)
            assert verdict is not None
            for sentence in (verdict.message, verdict.remedy):
                assert "{" not in sentence.replace('{"features": {"cdi": true}}', ""), (cause.key, sentence)


def test_unknown_runtime_text_is_left_to_the_caller() -> None:
    assert diagnose_runtime("the moon is in the wrong phase") is None


def test_sentences_are_one_line_each_and_end_where_they_should() -> None:
    for cause in load_diagnoses().causes:
        assert "\n" not in cause.message + cause.remedy
        assert cause.message.endswith("."), cause.key
        assert cause.source, cause.key
        assert not set(BUILT_IN) & {name for text in cause.texts for name in text.names}, cause.key
