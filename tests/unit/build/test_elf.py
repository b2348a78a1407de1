"""The dynamic section of ELF files, read without running anything."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdrun.build.elf import Dynamic, is_elf, read_dynamic


def test_all_that_the_loader_reads(make_elf: Callable[..., bytes]) -> None:
    file = io.BytesIO(make_elf(("libm.so.6", "libc.so.6"), "/lib64/ld.so", "libx.so.1", "$ORIGIN/../lib:/opt/lib"))
    assert is_elf(file)
    assert read_dynamic(file) == Dynamic(
        ("libm.so.6", "libc.so.6"), "/lib64/ld.so", "libx.so.1", ("$ORIGIN/../lib", "/opt/lib")
    )


def test_static_program_needs_nothing(make_elf: Callable[..., bytes]) -> None:
    assert read_dynamic(io.BytesIO(make_elf())) == Dynamic()


def test_a_real_program() -> None:
    with Path(sys.executable).resolve().open("rb") as file:
        dynamic = read_dynamic(file)
    assert dynamic.interpreter is not None
    assert dynamic.interpreter.startswith("/lib")
    assert "libc.so.6" in dynamic.needed


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x01\x01\x01" + b"\0" * 60])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"ELF|cut off"):
        read_dynamic(io.BytesIO(content))


@given(data=st.data())
def test_damage_is_a_value_error_and_never_a_crash(make_elf: Callable[..., bytes], data: st.DataObject) -> None:
    whole = bytearray(make_elf(("libm.so.6", "libc.so.6"), "/lib64/ld.so", runpath="/opt/lib"))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(ValueError):
        read_dynamic(io.BytesIO(bytes(whole[:cut])))
