"""images/gpus.yaml -> Products."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType

from sdrun.catalog.rows import each, fields, text_map, texts
from sdrun.catalog.yamlfile import YamlFile
from sdrun.core.capability import ComputeCapability
from sdrun.core.decode import Fields, Malformed
from sdrun.core.product import Products
from sdrun.resources import images_dir


@cache
def load_products(path: Path | None = None) -> Products:
    """Every product, cloud label and instance type; raises BadConfiguration with all faults at once."""
    file = YamlFile(path or images_dir() / "gpus.yaml")
    capabilities: dict[str, ComputeCapability] = {}
    labels: dict[str, MappingProxyType[str, str]] = {}
    kinds: list[tuple[str, str]] = []
    with file.collecting():
        top = fields(file, file.data, "", ("products", "labels", "instance_types"))
        for capability, names in each(file, top, "products", ("capability", "names"), _products):
            for name in names:
                if name.lower() in capabilities:
                    file.fault("products", f"{name} stands there twice")
                capabilities[name.lower()] = capability
        for label, values in each(file, top, "labels", ("label", "values"), lambda row: _label(row, capabilities)):
            labels[label] = MappingProxyType(values)
        for product, patterns in each(file, top, "instance_types", ("product", "types"), lambda row: _types(row, capabilities)):
            kinds += [(pattern, product) for pattern in patterns]
    file.finish()
    return Products(MappingProxyType(capabilities), MappingProxyType(labels), tuple(kinds))


def _products(row: Fields) -> tuple[ComputeCapability, tuple[str, ...]]:
    return row.parse("capability", ComputeCapability.parse), texts(row, "names")


def _label(row: Fields, known: dict[str, ComputeCapability]) -> tuple[str, dict[str, str]]:
    values = text_map(row, "values")
    for value, product in values.items():
        _known(product, known, f"{row.key('values')}.{value}")
    return row.text("label"), {value.lower(): product for value, product in values.items()}


def _types(row: Fields, known: dict[str, ComputeCapability]) -> tuple[str, tuple[str, ...]]:
    return _known(row.text("product"), known, row.key("product")), texts(row, "types")


def _known(product: str, known: dict[str, ComputeCapability], key: str) -> str:
    if product.lower() not in known:
        raise Malformed(key, f"{product} is none of the products")
    return product
