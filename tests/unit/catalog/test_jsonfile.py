"""JSON files: every way in which one can be no document, and pipes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdrun.catalog import jsonfile
from sdrun.catalog.indexfile import read_index
from sdrun.catalog.jsonfile import Unreadable, read_json
from sdrun.errors import BadConfiguration
from sdrun.probe.hostfile import read_host_facts


@pytest.fixture
def standard_input() -> Iterator[int]:
    """The end of a pipe to write to; the other end is this process's standard input meanwhile."""
    before, (reader, writer) = os.dup(0), os.pipe()
    os.dup2(reader, 0)
    os.close(reader)
    yield writer
    os.dup2(before, 0)
    os.close(before)


def test_a_document_with_and_without_byte_order_mark(tmp_path: Path) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "x.json").write_bytes(mark + b'{"name": ["\xc3\xa9", 1]}')
        assert read_json(tmp_path / "x.json") == {"name": ["\u00e9", 1]}


def test_standard_input(standard_input: int) -> None:
    os.write(standard_input, b'{"a": ')
    os.write(standard_input, b"1}")
    os.close(standard_input)
    assert read_json("-") == {"a": 1}


def test_standard_input_that_ends_at_once(standard_input: int) -> None:
    os.close(standard_input)
    with pytest.raises(Unreadable, match="stdin:1: is not JSON"):
        read_json("-")


def test_a_pipe_that_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=('{"a": 1}',))
    writer.start()
    assert read_json(pipe) == {"a": 1}
    writer.join()


def test_a_pipe_whose_writer_takes_his_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `--host <(sdrun detect --json)`: nothing stands in the pipe yet when it is opened."""
    monkeypatch.setattr(jsonfile, "WRITER_WITHIN_MS", 1)
    reader, writer = os.pipe()
    later = threading.Timer(0.1, lambda: (os.write(writer, b'{"a": 1}'), os.close(writer)))
    later.start()
    assert read_json(f"/proc/self/fd/{reader}") == {"a": 1}
    later.join()
    os.close(reader)


def test_a_pipe_that_was_filled_while_its_writer_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"a": 1}')
    os.close(writer)

    class Blind:
        """A poll that sees nothing: what is written comes between it and the read."""

        def register(self, handle: int, events: int) -> None: ...

        def poll(self, milliseconds: int) -> list[tuple[int, int]]:
            return []

    monkeypatch.setattr(jsonfile.select, "poll", Blind)
    assert read_json(f"/proc/self/fd/{reader}") == {"a": 1}
    os.close(reader)


def test_a_pipe_that_nobody_writes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonfile, "WRITER_WITHIN_MS", 20)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="pipe: is a pipe that nobody writes to"):
        read_json(tmp_path / "pipe")


def test_a_device_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreadable, match="/dev/zero: is larger than 8 MiB"):
        read_json("/dev/zero")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", ":1: is not JSON"),
        (b"{}\n{}", ":2: is not JSON"),
        (b"\xff\xfe{\x00}\x00", "is not UTF-8 text"),
        (b"\x00\x01", ":1: is not JSON"),
        (b"[NaN]", "holds NaN"),
        (b"[-Infinity]", "holds -Infinity"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "4300"),
        (b'{"a": {"b": 1, "c": 2, "b": 1}}', "names the key 'b' twice"),
    ],
)
def test_what_is_no_document(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(Unreadable) as caught:
        read_json(tmp_path / "x.json")
    assert str(caught.value).startswith(str(tmp_path / "x.json"))
    assert said in str(caught.value)


@pytest.mark.parametrize("name", [".", "missing", "a\0b", "line\nbreak"])
def test_what_cannot_be_opened_is_named_on_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read_json(f"{tmp_path}/{name}")
    assert str(tmp_path) in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("read", "id"), [(read_index, "bad-index"), (read_host_facts, "bad-host-facts")])
def test_indexes_and_hosts_are_told_apart_by_id(tmp_path: Path, read, id) -> None:
    for text, said in (("{", "x.json:1: is not JSON"), ("{}", "x.json: schema: is missing")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(BadConfiguration) as caught:
            read(tmp_path / "x.json")
        assert (caught.value.id, caught.value.exit_code) == (id, 8)
        assert said in caught.value.message
        assert caught.value.remedy
