"""images/runtimes.yaml: which container runtimes read layers packed with zstd."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrun.catalog import runtimes
from sdrun.catalog.runtimes import readable_here, zstd_layers_from
from sdrun.core.host import RuntimeFacts
from sdrun.core.index import Index, IndexImage
from sdrun.errors import BadConfiguration

OLD = RuntimeFacts("docker", "20.10.24")


def test_the_shipped_file() -> None:
    assert zstd_layers_from() == {"docker": (23, 0), "podman": (4, 3)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema: other\nruntimes: []\n", "schema"),
        ('schema: sdrun.runtimes/v1\nruntimes: [{name: docker, zstd_layers_from: "new"}]\n', "must be a version"),
        ("schema: sdrun.runtimes/v1\nruntimes: [{name: docker}]\n", "zstd_layers_from"),
        (
            'schema: sdrun.runtimes/v1\nruntimes: [{name: a, zstd_layers_from: "1"}, {name: a, zstd_layers_from: "2"}]\n',
            "names a twice",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "runtimes.yaml").write_text(text)
    with pytest.raises(BadConfiguration, match=said):
        zstd_layers_from(tmp_path / "runtimes.yaml")


def test_nothing_is_looked_up_for_images_that_anybody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "zstd_layers_from", lambda: pytest.fail("looked up"))
    index = Index("e", (IndexImage("cpu", "x@sha256:1", "linux/amd64", None, layers="gzip"),))
    assert readable_here(index, OLD) is index


def test_an_old_runtime_gets_gzip() -> None:
    index = Index("e", (IndexImage("cpu", "x@sha256:1", "linux/amd64", None, layers="zstd", gzip="x@sha256:2"),))
    assert readable_here(index, OLD).images[0].image == "x@sha256:2"
    assert readable_here(index, RuntimeFacts("docker", "28.5.2")) == index
