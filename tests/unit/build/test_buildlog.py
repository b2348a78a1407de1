"""Progress and error lines out of logs as Docker 20.10's BuildKit, buildx and podman write them."""

from __future__ import annotations

from sdrun.build.buildlog import BuildStep, LogReader, error_lines, output_of

LOG = """\
#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 3.98kB done
#1 DONE 0.0s

#5 [toolchain 2/2] RUN --mount=type=secret,id=ca-bundle     set -eu;     apt-get update -q
#5 sha256:8e27b01ef8d6f587d0e1d7c52344037ed8c4bfddaf79670431467e69e16fd908
#5 0.719 Get:1 bookworm InRelease [151 kB]
#8 [engine 2/3] RUN --mount=type=cache,id=sdrun-ccache,target=/ccache     cmake -G Ninja
#8 1.438 [0/2] Re-checking globbed directories...
#8 2.000 [17/68] Building CXX object CMakeFiles/stable-diffusion.dir/src/tokenizer.cpp.o
#5 2.662 Fetched 15.0 MB in 2s (7675 kB/s)
#8 224.9 [68/68] Linking CXX executable bin/sd-server
#8 DONE 224.9s
"""

FAILED = """\
#8 [engine 2/3] RUN cmake -G Ninja -S /src -B /build
#8 0.512 -- Configuring done
#8 0.700 [1/4] Building C object CMakeFiles/sd-server.dir/server.c.o
#8 0.702 FAILED: CMakeFiles/sd-cli.dir/main.c.o
#8 0.702 ccache /usr/bin/cc -O3 -DNDEBUG -o CMakeFiles/sd-cli.dir/main.c.o -c /src/main.c
#8 0.702 /src/main.c: In function 'main':
#8 0.702 /src/main.c:3:11: error: expected ';' before '}' token
#8 0.702     3 |   return 0
#8 0.702       |           ^
#8 0.702       |           ;
#8 0.702     4 | }
#8 0.710 [2/4] Linking C executable bin/sd-server
#8 0.711 ninja: build stopped: subcommand failed.
#8 ERROR: executor failed running [/bin/sh -c cmake]: exit code: 1
------
 > [engine 2/3] RUN cmake -G Ninja:
#8 0.702 /src/main.c:3:11: error: expected ';' before '}' token
------
executor failed running [/bin/sh -c cmake]: exit code: 1
"""


def steps(log: str) -> list[BuildStep]:
    reader = LogReader()
    return [step for line in log.splitlines() if (step := reader.feed(line)) is not None]


def test_steps_side_by_side() -> None:
    seen = steps(LOG)
    assert [(s.stage, s.step, s.steps, s.percent) for s in seen] == [
        ("toolchain", 2, 2, None),
        ("toolchain", 2, 2, None),
        ("engine", 2, 3, None),
        ("engine", 2, 3, 0),
        ("engine", 2, 3, 25),
        ("toolchain", 2, 2, None),
        ("engine", 2, 3, 100),
    ]
    assert seen[4].line == "Building CXX object CMakeFiles/stable-diffusion.dir/src/tokenizer.cpp.o"


def test_podman() -> None:
    seen = steps(
        "[2/3] STEP 4/7: RUN cmake -G Ninja\n[3/10] Building C object a.o\nnoise\n--> Using cache 1234\n[3/3] COMMIT sdrun:x\n"
    )
    assert [(s.step, s.steps, s.percent) for s in seen] == [(4, 7, None), (4, 7, 30)]


def test_output_without_numbers() -> None:
    assert output_of("#8 0.702 /src/main.c:3:11: error: x") == "/src/main.c:3:11: error: x"
    assert output_of("#8 DONE 1.0s") == ""
    assert output_of("plain") == "plain"


def test_the_compilers_own_words() -> None:
    lines = error_lines(FAILED.splitlines())
    assert lines[0] == "FAILED: CMakeFiles/sd-cli.dir/main.c.o"
    at = lines.index("/src/main.c:3:11: error: expected ';' before '}' token")
    assert lines[at + 1 : at + 3] == ["    3 |   return 0", "      |           ^"]
    assert lines.count("/src/main.c:3:11: error: expected ';' before '}' token") == 1
    assert not any("executor failed" in line or "Linking" in line for line in lines)


def test_without_an_error_line_the_end_is_shown() -> None:
    log = [f"#8 {i}.0 line {i}" for i in range(30)]
    assert error_lines(log) == [f"line {i}" for i in range(18, 30)]


def test_a_thousand_errors_stay_readable() -> None:
    log = [f"#8 1.0 /src/a.c:{i}:1: error: nope {i}" for i in range(1000)]
    assert len(error_lines(log)) == 40
    assert error_lines(log)[0].endswith("nope 0")


def test_empty_log() -> None:
    assert error_lines([]) == []
