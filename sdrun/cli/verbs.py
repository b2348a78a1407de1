"""The verbs and what `sdrun --help` says of each. A verb's module is imported only when that verb runs: building every verb's
options costs more than the empty program that start-up is measured against."""

from __future__ import annotations

PANELS = ("Run", "Look", "Build", "Deploy")

# verb -> (help panel, one line). The module is sdrun.cli.<verb>; it offers `command`, a function typer can call.
VERBS: dict[str, tuple[str, str]] = {
    "generate": ("Run", "Draw a picture in a container and print its path."),
    "serve": ("Run", "Run the engine's HTTP server in a container until it is stopped."),
    "show": ("Look", "Print how a picture was made, or draw it again."),
    "models": ("Look", "The model catalogue and the local store: ls, show, pull, verify, import, rm."),
    "resolve": ("Look", "Say which image this host runs, or what to change. Pure: same inputs, same answer."),
    "detect": ("Look", "Print what was found out about this host's GPUs, driver and container runtime."),
    "doctor": ("Look", "Check everything a run needs; each finding with its remedy."),
    "selftest": ("Look", "Draw recorded pictures again: does the engine compute right, and if not, which kernels are off?"),
    "targets": ("Build", "List what can be built."),
    "render": ("Build", "Write the Dockerfiles of targets."),
    "build": ("Build", "Build engine images and prove what they hold."),
    "verify": ("Build", "Read an image back and compare it with what its labels say."),
    "publish": ("Build", "Push proven images by digest, tag them for good, and write the index."),
    "index": ("Look", "List what a registry has published, with what each image really contains."),
    "matrix": ("Build", "Print the targets as a CI matrix or a bake file."),
    "fleet": ("Deploy", "Node pools to pinned images and Kubernetes objects: plan, lock, manifests, check."),
    "inspect": ("Build", "List the GPU code a file or image carries and the GPUs it runs on."),
}
