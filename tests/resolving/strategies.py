"""Hypothesis strategies for hosts, indexes and policies, as documents."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from resolving.samples import gpu, host_document, image, index_document
from sdrun.core.policy import Policy

CAPABILITIES = (
    "3.5", "5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.8", "8.9", "9.0", "9.9",
    "10.0", "10.1", "10.3", "10.7", "11.0", "12.0", "12.1", "12.5", "13.0",
)  # fmt: skip
ARCHS = (
    "50", "52", "53", "60", "61", "62", "70", "72", "75", "80", "86", "87", "88", "89", "90", "90a", "100", "100a", "100f",
    "101", "101a", "103", "103f", "107", "110", "110f", "120", "120a", "120f", "121", "121a", "130",
)  # fmt: skip
TOOLKITS = ("10.2", "11.8", "12.0", "12.4", "12.6", "12.8", "12.9", "13.0", "13.1", "13.4", "13.5", "14.0")
DRIVERS = (
    "390.157", "440.33.01", "450.51.05", "450.80.02", "470.82", "515.65.01", "525.60.13", "535.54.03", "545.23.06", "550.40.07",
    "550.54.14", "565.57.01", "570.26", "575.51.03", "580.40.01", "580.65.06", "580.159.04", "585.10", "590.44.01",
    "595.45.04", "615.71.09", "700.10",
)  # fmt: skip
NAMES = ("cu118-a", "cu124-b", "cu124-c", "cu128-d", "cu130-e", "cu130-f", "cu131-g", "x-h", "x-i")

archs = st.lists(st.sampled_from(ARCHS), max_size=3, unique=True)


@st.composite
def images(draw: st.DrawFn, host: dict[str, Any] | None = None) -> dict[str, Any]:
    """One row; of two rows for a `host` with GPUs, one holds code made for one of them, so that plans are not rare."""
    kinds = [card["compute_capability"] for card in host["gpus"]] if host else []
    fits = bool(kinds) and draw(st.booleans())
    platform = draw(st.sampled_from(("linux/amd64", "linux/amd64", "linux/amd64", "linux/arm64")))
    platform = host["platform"] if host and fits else platform
    if draw(st.integers(0, 6)) == 0:
        return image("cpu", platform=platform)
    row = image(
        draw(st.sampled_from(NAMES)), platform=platform, toolkit=draw(st.sampled_from(TOOLKITS)), zstd=draw(st.booleans())
    )
    row |= {"sass": draw(archs), "ptx": draw(archs), "image": f"r@sha256:{draw(st.integers(0, 99))}"}
    if fits:
        where, wanted = draw(st.sampled_from(("sass", "sass", "ptx"))), draw(st.sampled_from(kinds)).replace(".", "")
        row[where] = sorted({wanted, *row[where][:1]})
    return row


indexes = st.lists(images(), max_size=7).map(lambda rows: index_document(*rows))


@st.composite
def cases(draw: st.DrawFn, *, plain: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """A host and an index that has something to do with it."""
    host = draw(hosts(plain=plain))
    return host, index_document(*draw(st.lists(images(host), max_size=7)))


@st.composite
def hosts(draw: st.DrawFn, *, plain: bool = False) -> dict[str, Any]:
    """`plain`: a driver whose version is known, no Jetson, GPUs that containers can be given."""
    gpus = [
        gpu(
            draw(st.sampled_from(CAPABILITIES)),
            place,
            uuid=f"GPU-{place}{draw(st.sampled_from('ab'))}",
            memory=draw(st.sampled_from((8192, 24564, 81559))),
            mig=draw(st.sampled_from(((), (), (), (9856,), (9856, 20096)))),
        )
        for place in range(draw(st.integers(1 if plain else 0, 4)))
    ]
    facts: dict[str, Any] = {"driver_version": draw(st.sampled_from(DRIVERS))}
    if draw(st.integers(0, 3)) == 0:
        facts["cuda_driver"] = draw(st.sampled_from(("11.0", "12.2", "12.8", "13.0", "13.4")))
    facts["platform"] = draw(st.sampled_from(("linux/amd64", "linux/amd64", "linux/arm64")))
    if not plain:
        if draw(st.integers(0, 4)) == 0:
            facts["driver_version"] = None
        facts["tegra"] = draw(st.sampled_from((None, None, None, "32.7", "35.4", "36.4", "38.2", "39.0")))
        facts["wsl"] = draw(st.booleans())
        facts["runtime"] = draw(st.sampled_from(RUNTIMES))
    return host_document(*gpus, **facts)


def _runtime(*cdi: str, nvidia: bool) -> dict[str, Any]:
    devices = [f"nvidia.com/gpu={name}" for name in cdi]
    return {"name": "docker", "version": "28.5.2", "cdi_devices": devices, "nvidia_runtime": nvidia}


RUNTIMES = (
    None,
    _runtime(nvidia=False),
    _runtime(nvidia=True),
    _runtime("all", nvidia=False),
    _runtime("all", nvidia=True),
    _runtime("all", "0", "1", nvidia=False),
    _runtime("GPU-0a", "GPU-1a", "MIG-0-0", "all", nvidia=True),
)

policies = st.builds(
    Policy,
    gpu=st.sampled_from(("auto", "auto", "auto", "all", "all", "none", "0", "1", "7", "GPU-0a", "MIG-0-1", "0:0", "GPU-ffff")),
    allow_cpu=st.sampled_from((False, False, True)),
    allow_jit=st.sampled_from((True, True, False)),
    image=st.sampled_from((None, None, None, "cu124-b", "cpu", "no-such")),
    visible=st.sampled_from((None, None, None, (), ("0",), ("1", "0"), ("GPU-0a",), ("7", "0"), ("MIG-0-0",))),
    device_order=st.sampled_from(("pci-bus-id", "fastest-first")),
)

# What most people ask for: nothing hidden, nothing overridden.
usual_policies = st.builds(
    Policy,
    gpu=st.sampled_from(("auto", "auto", "all", "0")),
    allow_cpu=st.booleans(),
    allow_jit=st.sampled_from((True, True, False)),
)
