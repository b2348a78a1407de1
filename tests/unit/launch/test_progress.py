"""The engine's output, as it was recorded from a run of two pictures, in any portions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrun.launch.progress import Progress, ProgressReader, advance

RECORDED = (
    b"[INFO ] stable-diffusion.cpp:219  - loading diffusion model from '/models/diffusion/d.gguf'\n"
    b"[INFO ] model.cpp:216  - load /models/diffusion/d.gguf using gguf format\n"
    b"[INFO ] stable-diffusion.cpp:305  - Version: Ovis Image \n"
    b"\r  |=============>                                    | 49/185 - 3.34MB/s\x1b[K\n"
    b"\r  |==================================================| 185/185 - 9.35MB/s\x1b[K\n"
    b"[INFO ] model.cpp:993  - loading tensors completed, taking 0.60s (process: 0.00s)\n"
    b"[INFO ] stable-diffusion.cpp:947  - running in Flux FLOW mode\n"
    b"[WARN ] stable-diffusion.cpp:2623 - align generation request up 72x64 to 128x64 (multiple=64)\n"
    b"[INFO ] stable-diffusion.cpp:3367 - generate_image 128x64\n"
    b"[INFO ] stable-diffusion.cpp:3168 - get_learned_condition completed, taking 0.01s\n"
    b"[INFO ] stable-diffusion.cpp:3401 - generating image: 1/2 - seed 1\n"
    b"\r  |======>                                           | 1/8 - 2.00it/s\x1b[K"
    b"\r  |============>                                     | 2/8 - 1.50s/it\x1b[K"
    b"\r  |==================================================| 8/8 - 2.00it/s\x1b[K\n"
    b"[INFO ] stable-diffusion.cpp:3401 - generating image: 2/2 - seed 2\n"
    b"\r  |======>                                           | 1/8 - 95.26it/s\x1b[K\n"
    b"[INFO ] stable-diffusion.cpp:3192 - decoding 2 latents\n"
    b"[INFO ] main.cpp:441  - save result image 0 to '/out/image_1.png' (success)\n"
)


def states(portions: list[bytes]) -> list[Progress]:
    reader = ProgressReader()
    return [state for portion in portions for state in reader.feed(portion)]


def test_the_stages_in_order() -> None:
    seen = states([RECORDED])
    assert list(dict.fromkeys(state.stage for state in seen)) == ["loading", "encoding", "sampling", "decoding", "saving"]
    assert [(s.picture, s.step, s.steps) for s in seen if s.stage == "sampling" and s.steps] == [
        (1, 1, 8),
        (1, 2, 8),
        (1, 8, 8),
        (2, 1, 8),
    ]
    assert seen[-1].aligned == (128, 64)
    assert seen[-1].pictures == 2


def test_time_left() -> None:
    left = [s.seconds_left for s in states([RECORDED]) if s.stage == "sampling" and s.steps and s.picture == 1]
    assert left == [3.5, 9.0, 0.0]


def test_a_step_is_seen_before_its_line_ends() -> None:
    reader = ProgressReader()
    (state,) = reader.feed(b"\r  |====>     | 1/8 - 2.00it/s\x1b[K")
    assert (state.step, state.steps) == (1, 8)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_any_portions_lead_to_the_same_end(size: int) -> None:
    portions = [RECORDED[i : i + size] for i in range(0, len(RECORDED), size)]
    assert states(portions)[-1] == states([RECORDED])[-1]


def test_the_decoder_may_count_tiles() -> None:
    state = advance(Progress(stage="decoding"), "  |====>   | 3/9 - 1.00it/s\x1b[K")
    assert (state.stage, state.step, state.seconds_left) == ("decoding", 3, 6.0)


def test_words_of_a_prompt_are_no_progress() -> None:
    start = Progress(stage="encoding")
    assert advance(start, "decoding save result image generating image: 9/9 - seed") == start


@given(st.binary(max_size=400))
def test_garbage_never_raises(data: bytes) -> None:
    for portion in (data, b"\r | 1/0 - 0it/s\x1b[K", b"\r |=| 7/3 - 1.2.3s/it\n", data):
        states([portion, data])
