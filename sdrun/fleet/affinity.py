"""Where the pods of a class may land, as the terms of a Kubernetes node affinity. One of the terms must be true of a node.

A driver floor spans three labels (major, minor, revision), and Gt compares one label as a whole number, so that "at least
550.54.14" takes three terms: a later major; that major and a later minor; that major and minor and revision 14 or later.
Rules: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#operators and pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from sdrun.core.lock import LockedClass
from sdrun.fleet import gfd

CLASS_LABEL, EXCLUDE_LABEL = "sdrun.io/class", "sdrun.io/exclude"
MAX_NAMES = 16  # of nodes in one term; more are excluded by a label, which somebody must set
# Drivers differ in how much of a GPU's memory they report; a slice differs from the whole, or from the next size, by far more.
_MEMORY_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Expression:
    """One requirement on a label, or, with the key `metadata.name`, on the node's name."""

    key: str
    operator: str
    values: tuple[str, ...]


Term = tuple[Expression, ...]


def terms(row: LockedClass) -> tuple[Term, ...]:
    """The terms for `row`, in stable order: every node that meets one of them runs its image."""
    system, _, machine = row.image.platform.partition("/")
    base = (_in("kubernetes.io/os", system), _in("kubernetes.io/arch", machine.partition("/")[0]))
    found: list[Term] = []
    for selector in row.selectors:
        if selector == "class-label":
            found.append((*base, _in(CLASS_LABEL, row.name)))
            continue
        style = selector.removesuffix("-product")
        ways = product(
            [_kind(row, by_product=selector != style)], _driver(row, style), _cuda(row, style), [_memory(row)], [_excluded(row)]
        )
        found += [(*base, *(expression for part in way for expression in part)) for way in ways]
    return tuple(found)


def home(row: LockedClass) -> tuple[Term, ...]:
    """Terms for the nodes that pods of `row` should rather land on: those on the driver branches that it was planned for. A
    newer branch may run the same image, and have a better one of its own."""
    branches = sorted({str(driver.branch) for driver in row.drivers})
    styles = dict.fromkeys(way.removesuffix("-product") for way in row.selectors if way != "class-label")
    return tuple((_in(gfd.DRIVER_KEYS[style][0], *branches),) for style in styles) if branches else ()


def _in(key: str, *values: str) -> Expression:
    return Expression(key, "In", values)


def _kind(row: LockedClass, *, by_product: bool) -> Term:
    if by_product:
        return (_in(gfd.PRODUCT, *row.product_labels),)
    (capability,) = row.capabilities  # several only where an inventory says so, and then the class has its own label
    return _in(gfd.CC_MAJOR, str(capability.major)), _in(gfd.CC_MINOR, str(capability.minor))


def _driver(row: LockedClass, style: str) -> Sequence[Term]:
    return [()] if row.min_driver is None else at_least(gfd.DRIVER_KEYS[style], row.min_driver.numbers)


def _cuda(row: LockedClass, style: str) -> Sequence[Term]:
    return [()] if row.min_cuda is None else at_least(gfd.CUDA_KEYS[style], (row.min_cuda.major, row.min_cuda.minor))


def at_least(keys: Sequence[str], floor: Sequence[int]) -> list[Term]:
    """Terms of which one is true where the numbers in the labels `keys` are `floor` or later. What stands at the end of a floor
    as 0 asks for nothing: a label there may be empty."""
    wanted = list(floor)
    while len(wanted) > 1 and wanted[-1] == 0:
        wanted.pop()
    found: list[Term] = []
    for place, least in enumerate(wanted):
        last = place == len(wanted) - 1
        before = tuple(_in(key, str(value)) for key, value in zip(keys, wanted[:place], strict=False))
        found.append((*before, Expression(keys[place], "Gt", (str(least - 1 if last else least),))))
    return found


def _memory(row: LockedClass) -> Term:
    """Not on smaller slices of the same GPU than the class was planned for."""
    if row.memory_mib is None:
        return ()
    key = f"{row.resource.removesuffix('.shared')}.memory"
    return (Expression(key, "Gt", (str(int(row.memory_mib * _MEMORY_SHARE)),)),)


def _excluded(row: LockedClass) -> Term:
    if len(row.exclude) > MAX_NAMES:
        return (Expression(EXCLUDE_LABEL, "DoesNotExist", ()),)
    return tuple(Expression("metadata.name", "NotIn", (name,)) for name in row.exclude)
