"""Optimised ONNX files as other tools see them: onnx.checker accepts each, and onnxruntime gives the same answers as for the model
that it was made of.

    python scripts/check_optimized.py ORTX MODEL.onnx...

ORTX is the `ortx` command. Inputs are made up: sizes that a model leaves open are 1, or those of io_0.npz (in__NAME) beside it.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime as ort

TYPES = {"float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_}


def made_up(session):
    rng, feeds = np.random.default_rng(0), {}
    for i in session.get_inputs():
        kind = i.type.removeprefix("tensor(").removesuffix(")")
        shape = [d if isinstance(d, int) else 1 for d in i.shape]
        dtype = TYPES.get(kind) or np.dtype(kind)
        values = rng.random(shape) if np.issubdtype(dtype, np.floating) else rng.integers(0, 2, shape)
        feeds[i.name] = values.astype(dtype)
    return feeds


def run(path, feeds):
    o = ort.SessionOptions()
    o.graph_optimization_level, o.log_severity_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 3
    session = ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
    feeds = feeds or made_up(session)
    return session.run(None, feeds), feeds


def check(ortx, model, folder):
    to = str(pathlib.Path(folder) / "optimized.onnx")
    said = subprocess.run([ortx, "optimize", model, "-o", to], capture_output=True, text=True)
    if said.returncode:
        return f"refused: {said.stderr.strip()}"
    onnx.checker.check_model(to, full_check=True)
    npz = pathlib.Path(model).parent / "io_0.npz"
    feeds = {k[4:]: v for k, v in np.load(npz).items() if k.startswith("in__")} if npz.exists() else None
    try:
        want, feeds = run(model, feeds)
    except Exception as e:
        return f"skipped: onnxruntime does not run the model itself: {str(e)[:80]}"
    got, _ = run(to, feeds)
    worst = 0.0
    for w, g in zip(want, got, strict=True):
        if not isinstance(w, np.ndarray) or w.dtype.kind not in "fiub":
            continue
        assert w.shape == g.shape and w.dtype == g.dtype, (w.shape, g.shape)
        w, g = w.astype(np.float64), g.astype(np.float64)
        if w.size:
            finite = np.isfinite(w)
            assert (np.isfinite(g) == finite).all()
            size = np.abs(w[finite]).max(initial=0) or 1
            worst = max(worst, np.abs(w[finite] - g[finite]).max(initial=0) / size)
    # The same sums in another order, where weights were folded.
    assert worst < 1e-4, f"differs by {worst}"
    return f"same answers (to {worst:.1e})"


def main():
    ortx, bad = sys.argv[1], 0
    with tempfile.TemporaryDirectory() as folder:
        for model in sys.argv[2:]:
            try:
                said = check(ortx, model, folder)
            except Exception as e:
                said, bad = f"FAILED: {type(e).__name__}: {str(e)[:300]}", bad + 1
            print(f"{model}: {said}", flush=True)
    sys.exit(bad > 0)


main()
