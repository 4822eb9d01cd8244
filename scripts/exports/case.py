"""What the scripts here share: a case is a small model as an exporter writes it, its inputs, and what the optimiser should make of it."""

import dataclasses
import importlib.metadata as metadata
import json
import pathlib
import traceback

import numpy as np


@dataclasses.dataclass
class Case:
    """`make()` gives what the exporter takes; `wants` counts operators that must be among the plan's steps ("Attention 2, ..");
    `most` bounds the steps. Axes by name are open for the exporters that can say so."""

    name: str
    make: object
    inputs: dict
    wants: str = ""
    most: int = 0
    axes: dict = dataclasses.field(default_factory=dict)
    # Of the exporter's versions (opsets, or other names), only these.
    only: tuple = ()


def rows(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def numbers(*shape, below, seed=0):
    return np.random.default_rng(seed).integers(0, below, shape).astype(np.int64)


def export(folder, exporter, made_by, cases, versions, write, only=""):
    """Has `write(case, version, path)` make a file of each case and version (it may tell what it wants of that one); `index.json`
    beside them says what they are. With
    `only`, cases of such names are made anew, and the others stay."""
    made_by = ", ".join(f"{name} {metadata.version(name)}" for name in made_by)
    folder = pathlib.Path(folder) / exporter.replace(" ", "_")
    folder.mkdir(parents=True, exist_ok=True)
    listed, index = folder / "index.json", []
    if only and listed.exists():
        index = [e for e in json.loads(listed.read_text()) if only not in e["name"]]
    for case in (c for c in cases if only in c.name):
        for version in versions:
            if case.only and version not in case.only:
                continue
            path = folder / f"{case.name}.{version}.onnx"
            entry = dict(exporter=exporter, made_by=made_by, name=case.name, version=str(version), wants=case.wants, most=case.most)
            try:
                entry |= write(case, version, path) or {}
                np.savez(path.with_suffix(".npz"), **case.inputs)
                entry["file"] = str(path)
            except (Exception, SystemExit) as e:  # The exporter's own limits are part of the table.
                entry["failed"] = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:120] if str(e).strip() else ''}"
                (folder / f"{case.name}.{version}.log").write_text(traceback.format_exc())
            print(exporter, case.name, version, entry.get("failed", "written"), flush=True)
            index.append(entry)
    listed.write_text(json.dumps(index, indent=1))
