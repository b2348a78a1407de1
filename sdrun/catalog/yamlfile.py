"""One YAML file, read strictly: duplicate keys are refused, every value knows its line, all faults are told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from sdrun.core.decode import Malformed
from sdrun.errors import BadConfiguration

# libyaml reads a catalogue about ten times faster than the pure Python parser; PyYAML's wheels carry it.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_DEPTH = 100  # of lists and mappings in each other: libyaml's own composer has no limit but the stack
_STRING = "tag:yaml.org,2002:str"


class YamlFile:
    """A parsed file: `data` is its value, `line(key)` the line a dotted key path such as `targets[3].archs` stands at. `text`:
    what the file holds, where that has been read already."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.path = path
        self._lines: dict[str, int] = {"": 1}
        self._faults: list[tuple[int, str]] = []
        try:
            read = path.read_text(encoding="utf-8") if text is None else text
            _check_depth(read)
            root = yaml.compose(read, Loader=_LOADER)
        except OSError as fault:
            raise BadConfiguration(
                f"{path}: cannot be read: {fault.strerror}", "Reinstall sdrun, or name another file."
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as fault:
            raise BadConfiguration(f"{path}: is not YAML: {_one_line(fault)}", "Correct the file.") from None
        self._constructor = _LOADER("")
        try:
            self.data: object = None if root is None else self._value(root, "")
        except RecursionError:  # an alias within what it stands for
            raise BadConfiguration(f"{path}: is not YAML: an alias stands for itself", "Correct the file.") from None

    def _value(self, node: yaml.Node, key: str) -> object:
        self._lines[key] = node.start_mark.line + 1
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{key}[{i}]") for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            mapping: dict[str, object] = {}
            for name_node, value_node in node.value:
                if not isinstance(name_node, yaml.ScalarNode):
                    self.fault(key, "has a list or mapping as a key")
                    continue
                name = str(name_node.value)
                path = f"{key}.{name}" if key else name
                value = self._value(value_node, path)
                self._lines[path] = name_node.start_mark.line + 1
                if name in mapping:
                    self.fault(path, "stands here a second time")
                mapping[name] = value
            return mapping
        return self._scalar(node, key)

    def _scalar(self, node: yaml.Node, key: str) -> object:
        """Its value by its own form. A tag that says otherwise is a fault, as is a date that is none."""
        own = (_STRING, self._constructor.resolve(yaml.ScalarNode, node.value, (True, False)))  # type: ignore[no-untyped-call]
        try:
            if node.tag in own:
                return self._constructor.construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError):
            pass
        self.fault(key, f"cannot be read as {node.tag.removeprefix('tag:yaml.org,2002:')[:40]}")
        return None

    def line(self, key: str) -> int:
        """The line of `key`, or of its nearest parent that the file has."""
        while key not in self._lines:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self._lines[key]

    def fault(self, key: str, reason: str) -> None:
        """Notes that the value at `key` is wrong; `finish` raises them all."""
        self._faults.append((self.line(key), f"{key}: {reason}" if key else reason))

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Turns a Malformed raised inside into a noted fault, so that the next row is still looked at."""
        try:
            yield
        except Malformed as fault:
            self.fault(fault.key, fault.reason)

    def finish(self) -> None:
        """Raises BadConfiguration listing every noted fault as `file:line: key: reason`, in file order."""
        if self._faults:
            listing = "\n".join(f"{self.path}:{line}: {text}" for line, text in sorted(set(self._faults)))
            raise BadConfiguration(listing, f"Correct {self.path.name} and run again.")


def _check_depth(text: str) -> None:
    """Raises YAMLError for what is nested deeper than any file of ours; composing it would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise yaml.YAMLError("it is nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).replace('in "<unicode string>", ', "at ").split())
