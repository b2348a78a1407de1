"""Where sdrun's own time goes: the command in a fresh process, with a clock around imports and around the steps that it takes.

    python bench/phases.py [RUNS] generate -m shapes -p "a red circle" --allow-cpu

Steps are functions of sdrun that are wrapped as their modules are imported; one that is there no more is left out. The time of
imports inside a step counts as imports, so the parts do not overlap.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

# module, function (or class.method), and what its time is called; nested ones count for the inner one alone
STEPS = (
    ("sdrun.runtime.connection", "connect", "connecting to the container runtime"),
    ("sdrun.runtime", "connect", "connecting to the container runtime"),
    ("sdrun.probe.overrides", "current_host", "looking at the host"),
    ("sdrun.launch.choosing", "_index", "listing images"),
    ("sdrun.launch.choosing", "_resolve", "resolving"),
    ("sdrun.launch.choosing", "_present", "checking the image"),
    ("sdrun.launch.preparing", "_model", "finding the model"),
    ("sdrun.launch.preparing", "_ready", "reading the model's headers"),
    ("sdrun.launch.preparing", "room_of", "free memory"),
    ("sdrun.launch.preparing", "fit_model", "fitting"),
    ("sdrun.launch.generate", "_judge", "judging the log"),
    ("sdrun.launch.metadata", "embed", "writing metadata"),
    ("sdrun.launch.generate", "publish", "putting the picture in its place"),
    ("sdrun.runtime.running", "run", "the container"),
)
# Runs in the measured process; the lines before it are part of the interpreter's start.
_CLOCK = r"""
import builtins, json, os, sys, time
started = time.time_ns()
steps, file, spawned = json.loads(os.environ["PHASES_STEPS"]), os.environ["PHASES_FILE"], int(os.environ["PHASES_SPAWNED"])
spent, stack, importing = {}, [], [0]
real = builtins.__import__

def wrapped(function, name):
    def step(*args, **more):
        begin = time.perf_counter()
        stack.append(0.0)
        try:
            return function(*args, **more)
        finally:
            took = time.perf_counter() - begin
            inner = stack.pop()
            spent[name] = spent.get(name, 0.0) + took - inner
            if stack:
                stack[-1] += took
    step.clocked = True
    return step

def patch():
    for module, function, name in steps:
        there = sys.modules.get(module)
        found = getattr(there, function, None) if there is not None else None
        if found is not None and not getattr(found, "clocked", False):
            setattr(there, function, wrapped(found, name))

def clocked(*args, **more):
    if importing[0]:
        return real(*args, **more)
    importing[0] = 1
    begin = time.perf_counter()
    try:
        return real(*args, **more)
    finally:
        importing[0] = 0
        took = time.perf_counter() - begin
        spent["imports"] = spent.get("imports", 0.0) + took
        if stack:
            stack[-1] += took
        patch()

builtins.__import__ = clocked
begin = time.perf_counter()
from sdrun.__main__ import leave, run
sys.argv[0] = "sdrun"
try:
    code = run()
except SystemExit as ended:
    code = ended.code
whole = time.perf_counter() - begin
spent["everything else"] = whole - sum(spent.values())
spent = {"the interpreter's start": (started - spawned) / 1e9, **spent}
with open(file, "w") as out:
    json.dump({"spent": spent, "ended": time.time_ns()}, out)
leave(code)
"""


def once(words: Sequence[str], environ: Mapping[str, str]) -> dict[str, float]:
    """Seconds by step of one run. Raises subprocess.CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "phases.json"
        begun = time.time_ns()
        own = {"PHASES_STEPS": json.dumps(STEPS), "PHASES_FILE": str(file), "PHASES_SPAWNED": str(begun)}
        argv = [sys.executable, "-c", _CLOCK, *words]
        subprocess.run(argv, check=True, env={**environ, **own}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        ended = time.time_ns()
        document = json.loads(file.read_text())
    return {**document["spent"], "the interpreter's end": (ended - document["ended"]) / 1e9, "in all": (ended - begun) / 1e9}


def measured(words: Sequence[str], environ: Mapping[str, str] = os.environ, runs: int = 5) -> dict[str, float]:
    """Medians of each step over so many runs, after one that is not counted."""
    once(words, environ)
    rows = [once(words, environ) for _ in range(runs)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: round(median(row.get(name, 0.0) for row in rows), 4) for name in names}


def main() -> None:
    """Prints the table."""
    words = sys.argv[1:]
    runs = int(words.pop(0)) if words and words[0].isdigit() else 5
    for name, seconds in sorted(measured(words, runs=runs).items(), key=lambda row: -row[1]):
        print(f"{seconds:8.3f}  {name}")


if __name__ == "__main__":
    main()
