"""Loading beside onnxruntime: its own optimised file, loaded without optimising again, against the model compiled by ortx.

    python scripts/bench_load.py target/release/ortx MODEL.onnx... [--rounds N] [--keep FOLDER]

Each load is a process of its own, in rounds that take turns. A file io_0.npz beside the model has inputs (in__NAME) for the first
run. Prints the least and the median of load, and of load and first run, in ms.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

PEER = """
import sys, time, json, numpy, onnxruntime as ort
model, npz, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
o = ort.SessionOptions()
o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
o.intra_op_num_threads, o.log_severity_level = threads, 3
feeds = {k[4:]: v for k, v in numpy.load(npz).items() if k.startswith("in__")} if npz else None
t = time.perf_counter()
s = ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])
load = time.perf_counter()
if feeds:
    s.run(None, feeds)
print(json.dumps({"load_ms": (load - t) * 1e3, "first_ms": (time.perf_counter() - load) * 1e3}))
"""

OPTIMISE = """
import sys, onnxruntime as ort
o = ort.SessionOptions()
o.optimized_model_filepath, o.log_severity_level = sys.argv[2], 3
ort.InferenceSession(sys.argv[1], o, providers=["CPUExecutionProvider"])
"""


def output(command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    p = argparse.ArgumentParser()
    p.add_argument("ortx")
    p.add_argument("models", nargs="+", type=pathlib.Path)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--keep", help="a folder for the files that are made")
    a = p.parse_args()
    folder = pathlib.Path(a.keep or tempfile.mkdtemp())
    folder.mkdir(exist_ok=True)
    print(f"{'model':<16}{'':>10}{'ortx':>22}{'onnxruntime':>22}{'ratio':>8}")
    for model in a.models:
        name = model.parent.name
        npz = model.parent / "io_0.npz"
        npz = str(npz) if npz.exists() else ""
        shapes = []
        if npz:
            import numpy

            for k, v in numpy.load(npz).items():
                if k.startswith("in__"):
                    shapes += ["--shape", f"{k[4:]}={','.join(map(str, v.shape))}"]
        theirs, ours = folder / f"{name}.ort.onnx", folder / f"{name}.ortx"
        if not theirs.exists():
            output([sys.executable, "-c", OPTIMISE, str(model), str(theirs)])
        output([a.ortx, "optimize", str(model), "-o", str(ours), "--rebuild", *shapes])
        bench = [a.ortx, "bench", str(ours), "--json", "--threads", str(a.threads), *shapes]
        bench += ["--warmup", "0", "--min-runs", "1", "--max-runs", "1"]
        peer = [sys.executable, "-c", PEER, str(theirs), npz, str(a.threads)]
        times = {"load": ([], []), "load + run": ([], [])}
        for _ in range(a.rounds):
            for side, command in enumerate([bench, peer]):
                got = json.loads(output(command))
                times["load"][side].append(got["load_ms"])
                times["load + run"][side].append(got["load_ms"] + got["first_ms"])
        for what, (x, y) in times.items():
            def show(t):
                return f"{min(t):8.1f} ({statistics.median(t):8.1f})"

            print(f"{name:<16}{what:>10}{show(x):>22}{show(y):>22}{min(y) / min(x):8.1f}")


main()
