"""Downloads from a hub that misbehaves: whatever happens on the way, only the right file gets into the store."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from loopback.hub import COMMIT, Fault, Hub
from loopback.pulling import Pulling
from loopback.store import hub_file, model, random_bytes
from sdrun.core.model import Licence
from sdrun.errors import SdrunError
from sdrun.models.pull import Wishes

FILE = "them/small/sub/small.gguf"
DATA = random_bytes(1_000_003)
TENTH = len(DATA) // 10


def one(sha256: str | None, **more: object) -> object:
    return model("small:q4_0", {"diffusion": hub_file(FILE, sha256, **more)})  # type: ignore[arg-type]


def refusal(pulling: Pulling, wanted: object, wishes: Wishes | None = None) -> SdrunError:
    with pytest.raises(SdrunError) as caught:
        pulling(wanted, wishes)  # type: ignore[arg-type]
    assert pulling.names.all() == []
    assert pulling.blobs.present() == []
    return caught.value


def test_a_whole_download(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    stored = pulling(one(digest, size=len(DATA)))
    file = stored.files["diffusion"]
    assert (file.name, file.bytes, file.sha256) == ("small.gguf", len(DATA), digest)
    assert (file.repository, file.path, file.revision) == ("them/small", "sub/small.gguf", COMMIT)
    assert pulling.visible() == {"small.gguf": DATA}
    assert pulling.partials == []
    assert [(r.server, r.method) for r in hub.requests] == [("hub", "HEAD"), ("hub", "GET"), ("cdn", "GET")]
    assert hub.sent[FILE] == len(DATA)
    assert pulling.said[0].startswith("small:q4_0: fetching 1.0 MB in 1 file; ")
    assert " free in " in pulling.said[0]
    assert pulling.shown[-1].done == pulling.shown[-1].total == len(DATA)
    before = len(hub.requests)
    assert pulling(one(digest)) == stored
    assert len(hub.requests) == before


@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
def test_a_connection_cut_at_every_tenth(hub: Hub, pulling: Pulling, reset: bool) -> None:
    digest = hub.put(FILE, DATA)
    hub.script(FILE, *(Fault(cut=TENTH, reset=reset) for _ in range(9)))
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}
    starts = [request.start for request in hub.got("cdn", "GET")]
    assert len(starts) == 10
    assert starts == sorted(starts)
    if not reset:  # a reset also throws away what the client had not read yet
        assert starts == [TENTH * number for number in range(10)]
        assert hub.sent[FILE] == len(DATA)


def test_a_run_that_fails_is_continued_by_the_next(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    hub.script(FILE, Fault(cut=3 * TENTH), *(Fault(cut=0) for _ in range(6)))
    fault = refusal(pulling, one(digest))
    assert (fault.id, fault.exit_code) == ("download-failed", 7)
    assert "goes on where it stopped" in fault.remedy
    assert [path.stat().st_size for path in pulling.partials] == [3 * TENTH]
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}
    assert hub.got("cdn", "GET")[-1].start == 3 * TENTH
    assert any("are there from before" in line for line in pulling.said)


def test_wrong_bytes_of_the_right_size(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    hub.script(FILE, Fault(wrong=True))
    fault = refusal(pulling, one(digest, size=len(DATA)))
    assert (fault.id, fault.exit_code) == ("hash-mismatch", 7)
    assert pulling.partials == []


def test_wrong_bytes_after_a_resume_are_fetched_again_and_that_is_said(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    hub.script(FILE, Fault(wrong=True, cut=TENTH), *(Fault(cut=0) for _ in range(6)))
    refusal(pulling, one(digest))
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}
    assert any("fetching all of it again" in line for line in pulling.said)


def test_wrong_bytes_after_a_resume_are_refused_the_second_time(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    hub.script(FILE, Fault(cut=TENTH), *(Fault(cut=0) for _ in range(6)))
    refusal(pulling, one(digest))
    hub.script(FILE, Fault(wrong=True), Fault(wrong=True))
    assert refusal(pulling, one(digest)).id == "hash-mismatch"
    assert pulling.partials == []


def test_what_the_hub_announces_is_checked_too(hub: Hub, pulling: Pulling) -> None:
    hub.put(FILE, DATA)
    hub.script(FILE, Fault(wrong=True))
    fault = refusal(pulling, one(None))
    assert fault.id == "hash-mismatch"
    assert "the hub announced" in fault.message


@pytest.mark.parametrize("more", [{"sha256": "0" * 64}, {"sha256": None, "size": len(DATA) + 1}])
def test_a_replaced_file_is_refused_before_the_first_byte(hub: Hub, pulling: Pulling, more: dict[str, object]) -> None:
    hub.put(FILE, DATA)
    fault = refusal(pulling, one(**more))  # type: ignore[arg-type]
    assert (fault.id, fault.exit_code) == ("hash-mismatch", 7)
    assert hub.got("cdn", "GET") == []


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("at_cdn", [False, True])
def test_a_server_that_asks_to_wait(hub: Hub, pulling: Pulling, status: int, at_cdn: bool) -> None:
    digest = hub.put(FILE, DATA)
    hub.script_looks(FILE, Fault(status=status, headers={"Retry-After": "7"}))
    hub.script(FILE, Fault(status=status, headers={"Retry-After": "9"}, at_cdn=at_cdn), Fault(cut=TENTH))
    hub.script(FILE, Fault(status=status, at_cdn=at_cdn))
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}
    assert pulling.waits == [7, 9, 1, 1]


def test_a_server_that_never_recovers(hub: Hub, pulling: Pulling) -> None:
    hub.put(FILE, DATA)
    hub.script_looks(FILE, *(Fault(status=503) for _ in range(6)))
    fault = refusal(pulling, one(None))
    assert (fault.id, fault.exit_code) == ("download-failed", 7)
    assert "503" in fault.message
    assert pulling.waits == [1, 2, 4, 8, 16]


def test_a_signed_address_that_has_run_out_is_asked_for_again(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    hub.script(FILE, Fault(cut=TENTH), Fault(status=403, at_cdn=True))
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=403), "refuses sub/small.gguf of them/small with 403"),
        (Fault(status=404, headers={"X-Error-Code": "EntryNotFound"}), "has no file"),
        (Fault(status=404), "no repository them/small"),
        (Fault(status=401), "no repository them/small"),
        (Fault(status=418), "with 418"),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_refusals_are_told_at_once(hub: Hub, pulling: Pulling, fault: Fault, words: str, later: bool) -> None:
    hub.put(FILE, DATA)
    (hub.script if later else hub.script_looks)(FILE, fault)
    told = refusal(pulling, one(None))
    assert (told.id, told.exit_code) == ("download-failed", 7)
    assert words in told.message
    assert f"{hub.url}/them/small" in told.remedy
    assert pulling.waits == []


def test_what_is_not_on_the_hub(hub: Hub, pulling: Pulling) -> None:
    hub.put(FILE, DATA)
    missing = model("x", {"diffusion": hub_file("them/small/other.gguf")})
    assert "has no file other.gguf" in refusal(pulling, missing).message
    missing = model("x", {"diffusion": hub_file("them/nothing/other.gguf")})
    assert "no repository them/nothing" in refusal(pulling, missing).message
    hub.commit = "f" * 40
    pinned = model("x", {"diffusion": hub_file(FILE, revision="e" * 40)})
    assert f"no revision {'e' * 40}" in refusal(pulling, pinned).message


def test_a_gated_model(hub: Hub, pulling: Pulling, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hub.put(FILE, DATA, gated=True)
    hub.tokens = {"let-me-in"}
    fault = refusal(pulling, one(digest))
    assert (fault.id, fault.exit_code) == ("model-gated", 7)
    assert f"Visit {hub.url}/them/small" in fault.remedy
    assert "HF_TOKEN" in fault.remedy
    monkeypatch.setenv("HF_TOKEN", "somebody-else")
    fault = refusal(pulling, one(digest))
    assert fault.id == "model-gated"
    assert "has not been let in" in fault.remedy
    monkeypatch.setenv("HF_TOKEN", "invalid")
    assert refusal(pulling, one(digest)).id == "token-refused"
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}


def test_a_mirror_that_does_not_say_why_it_refuses_a_gated_model(hub: Hub, pulling: Pulling) -> None:
    hub.put(FILE, DATA)
    hub.script_looks(FILE, Fault(status=403))
    assert refusal(pulling, one(None, gated=True)).id == "model-gated"


def test_the_token_stays_with_the_hub(hub: Hub, pulling: Pulling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "let-me-in")
    digest = hub.put(FILE, DATA, gated=True)
    hub.tokens = {"let-me-in"}
    pulling(one(digest))
    assert [r.headers.get("authorization") for r in hub.got("hub", "GET")] == ["Bearer let-me-in"]
    assert [r.headers.get("authorization") for r in hub.got("cdn", "GET")] == [None]


def test_a_file_kept_in_xet_comes_the_same_checked_way(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA, xet=True)
    hub.script(FILE, Fault(wrong=True))
    assert refusal(pulling, one(digest)).id == "hash-mismatch"
    pulling(one(digest))
    assert hub.sent[FILE] == 2 * len(DATA)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(no_ranges=True),
        Fault(early=1),
        Fault(early=TENTH),
        Fault(more=100),
        Fault(status=416, at_cdn=True),
        Fault(status=204),
    ],
    ids=str,
)
def test_servers_that_do_ranges_badly(hub: Hub, pulling: Pulling, fault: Fault) -> None:
    digest = hub.put(FILE, DATA)
    hub.script(FILE, Fault(cut=3 * TENTH), fault)
    if fault.status == 416:
        assert refusal(pulling, one(digest)).id == "download-failed"
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}


def test_a_partial_file_that_is_too_long_is_begun_again(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    (pulling.root / "partial").mkdir(parents=True)
    (pulling.root / "partial" / digest).write_bytes(DATA + b"more")
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}


def test_a_partial_file_that_is_all_there_is_only_checked(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    (pulling.root / "partial").mkdir(parents=True)
    (pulling.root / "partial" / digest).write_bytes(DATA)
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": DATA}
    assert hub.sent[FILE] == 0


def test_a_slow_trickle_is_fetched_to_its_end(hub: Hub, pulling: Pulling) -> None:
    small = DATA[:5000]
    digest = hub.put(FILE, small)
    hub.script(FILE, Fault(drip=1))
    pulling(one(digest))
    assert pulling.visible() == {"small.gguf": small}
    assert pulling.waits == []


def test_a_connection_that_falls_silent_is_given_up_and_resumed(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    over = threading.Event()
    hub.script(FILE, Fault(cut=TENTH, hold=over))
    pulling.more = {"HF_HUB_DOWNLOAD_TIMEOUT": "0.2"}
    pulling(one(digest))
    over.set()
    assert pulling.visible() == {"small.gguf": DATA}
    assert [request.start for request in hub.got("cdn", "GET")] == [0, TENTH]


def test_a_file_that_changes_on_the_hub_is_not_mixed(hub: Hub, pulling: Pulling) -> None:
    other = random_bytes(len(DATA), seed=1)
    hub.put(FILE, DATA, announce=False)
    hub.script(FILE, Fault(cut=TENTH), *(Fault(cut=0) for _ in range(6)))
    refusal(pulling, one(None))
    hub.put(FILE, other, announce=False)
    hub.commit = "9" * 40
    pulling(one(None))
    assert pulling.visible() == {"small.gguf": other}


def test_what_was_not_pinned_is_pinned_from_the_first_download_on(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA, announce=False)
    stored = pulling(one(None))
    assert any(digest in line and COMMIT in line and "from now on it is" in line for line in pulling.said)
    assert stored.files["diffusion"].revision == COMMIT
    pulling.names.remove("small:q4_0")
    pulling.blobs.discard(digest)
    hub.put(FILE, random_bytes(len(DATA), seed=1), announce=False)
    assert refusal(pulling, one(None)).id == "hash-mismatch"
    assert hub.got("hub", "HEAD")[-1].path == f"/them/small/resolve/{COMMIT}/sub/small.gguf"
    hub.commit = "9" * 40
    assert "no revision" in refusal(pulling, one(None)).message  # the pinned commit is gone: nothing else is taken for it
    again = pulling(one(None), Wishes(repin=True))
    assert again.files["diffusion"].sha256 != digest


def test_a_damaged_lock_file_is_not_taken_for_an_empty_one(hub: Hub, pulling: Pulling) -> None:
    hub.put(FILE, DATA)
    pulling.root.mkdir()
    pulling.names.pins_file.write_text("{")
    fault = refusal(pulling, one(None))
    assert (fault.id, fault.exit_code) == ("bad-model-pins", 8)


def test_shared_files_are_fetched_and_kept_once(hub: Hub, pulling: Pulling) -> None:
    encoder = hub.put("them/encoders/text.gguf", DATA)
    first, second = (hub.put(f"them/small/{name}.gguf", random_bytes(1000, seed)) for seed, name in enumerate("ab"))
    shared = hub_file("them/encoders/text.gguf", encoder)
    pulling(model("a", {"diffusion": hub_file("them/small/a.gguf", first), "t5xxl": shared}))
    pulling(model("b", {"diffusion": hub_file("them/small/b.gguf", second), "t5xxl": shared}))
    assert hub.sent["them/encoders/text.gguf"] == len(DATA)
    assert pulling.blobs.present() == sorted([encoder, first, second])
    assert len(pulling.names.all()) == 2


def test_several_files_side_by_side(hub: Hub, pulling: Pulling) -> None:
    """Each file's bytes stop until all four have begun: one after the other they would wait for ever."""
    names = ["diffusion", "vae", "clip_l", "t5xxl"]
    digests = {name: hub.put(f"them/small/{name}.gguf", random_bytes(200_000, seed)) for seed, name in enumerate(names)}
    over = threading.Event()
    for name in names:
        hub.script(f"them/small/{name}.gguf", Fault(cut=100_000, hold=over))
    begun = lambda: sum(hub.sent[f"them/small/{name}.gguf"] >= 100_000 for name in names)  # noqa: E731

    def release() -> None:
        while begun() < len(names) and not over.wait(0.01):
            pass
        over.set()

    watcher = threading.Thread(target=release, daemon=True)
    watcher.start()
    pulling(model("four", {name: hub_file(f"them/small/{name}.gguf", digests[name]) for name in names}))
    over.set()
    watcher.join()
    assert len(pulling.visible()) == 4
    assert {progress.total for progress in pulling.shown} == {800_000}


def test_one_file_that_fails_ends_the_others_and_keeps_what_arrived(hub: Hub, pulling: Pulling) -> None:
    good, bad = hub.put("them/small/good.gguf", DATA), hub.put("them/small/bad.gguf", DATA[::-1])
    over = threading.Event()
    hub.script("them/small/good.gguf", Fault(cut=TENTH, hold=over))
    hub.script("them/small/bad.gguf", Fault(status=403))
    files = {"diffusion": hub_file("them/small/good.gguf", good), "vae": hub_file("them/small/bad.gguf", bad)}
    assert refusal(pulling, model("two", files)).id == "download-failed"
    over.set()
    pulling(model("two", files))
    assert pulling.visible() == {"good.gguf": DATA, "bad.gguf": DATA[::-1]}


def test_too_little_disk_is_told_before_the_first_byte(hub: Hub, pulling: Pulling, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hub.put(FILE, DATA)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 50_000_000})())
    fault = refusal(pulling, one(digest))
    assert (fault.id, fault.exit_code) == ("disk-full", 10)
    assert "needs 68.1 MB" in fault.message
    assert "50.0 MB are free" in fault.message
    assert hub.got("cdn", "GET") == []


def test_offline_asks_nobody(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    assert refusal(pulling, one(digest), Wishes(offline=True)).id == "model-not-fetched"
    pulling.more = {"HF_HUB_OFFLINE": "1"}
    assert refusal(pulling, one(digest)).exit_code == 7
    assert hub.requests == []
    pulling.more = {}
    pulling(one(digest))
    pulling.more = {"HF_HUB_OFFLINE": "1"}
    pulling(one(digest))


def test_a_licence_that_asks_is_asked_once(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    licence = Licence("Own", "forbidden", "https://example.org/licence", accept=True)
    wanted = model("small:q4_0", {"diffusion": hub_file(FILE, digest)}, licence)
    fault = refusal(pulling, wanted)
    assert (fault.id, fault.exit_code) == ("licence-not-accepted", 2)
    assert "https://example.org/licence" in fault.remedy
    assert "sdrun models pull small:q4_0 --accept-licence" in fault.remedy
    assert hub.requests == []
    pulling(wanted, Wishes(accepted=True))
    pulling.blobs.discard(digest)
    pulling(wanted)


def test_an_endpoint_that_is_none(hub: Hub, pulling: Pulling) -> None:
    pulling.more = {"HF_ENDPOINT": "hub.example"}
    fault = refusal(pulling, one(None))
    assert (fault.id, fault.exit_code) == ("bad-config", 8)


def test_an_endpoint_where_nobody_listens(hub: Hub, pulling: Pulling) -> None:
    pulling.more = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    fault = refusal(pulling, one(None))
    assert (fault.id, fault.exit_code) == ("download-failed", 7)
    assert "127.0.0.1:9" in fault.message


def test_a_page_that_is_no_hub(hub: Hub, pulling: Pulling) -> None:
    """A portal that answers everything with its login page."""
    hub.put(FILE, DATA)
    hub.script_looks(FILE, Fault(status=200, headers={"Content-Type": "text/html"}))
    assert refusal(pulling, one(None, size=len(DATA))).exit_code == 7


def test_the_store_is_readable_by_others(hub: Hub, pulling: Pulling) -> None:
    digest = hub.put(FILE, DATA)
    pulling(one(digest))
    assert pulling.blobs.path(digest).stat().st_mode & 0o777 == 0o444


def test_hundred_cuts(hub: Hub, pulling: Pulling) -> None:
    """Ten files, each cut ten times; then nothing is missing and nothing was fetched twice."""
    for number in range(10):
        path, data = f"them/small/{number}.gguf", random_bytes(110_000, number)
        digest = hub.put(path, data)
        hub.script(path, *(Fault(cut=10_000) for _ in range(10)))
        pulling(model(f"m{number}", {"diffusion": hub_file(path, digest)}))
        assert hub.sent[path] == len(data)
    assert len(hub.got("cdn", "GET")) == 110
    assert pulling.visible() == {f"{number}.gguf": random_bytes(110_000, number) for number in range(10)}
    assert pulling.partials == []


def test_partial_files_are_not_in_the_way_of_names(hub: Hub, pulling: Pulling, tmp_path: Path) -> None:
    hub.put(FILE, DATA)
    hub.script(FILE, Fault(cut=TENTH), *(Fault(cut=0) for _ in range(6)))
    refusal(pulling, one(None))
    assert not list(pulling.root.rglob("small.gguf"))
