"""Holds onnxruntime against our answers for random graphs that the differential test wrote.

ORTX_GRAPHS_DUMP=/tmp/graphs cargo test --test it differential::
python scripts/compare_graphs.py /tmp/graphs

Each model also passes onnx.checker with its shape inference. onnxruntime runs without optimisation; what it has no kernel for is
counted and not compared. `bounds.txt` says how far answers may be apart.
"""

import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort


def load(path):
    return onnx.numpy_helper.to_array(onnx.load_tensor(str(path)))


def differs(got, want, bound):
    """What is wrong, or None."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{got.shape} instead of {want.dtype}{want.shape}"
    a, b = got.astype(np.float64), want.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        wrong = ~same & ~(np.abs(a - b) <= bound)
    if not wrong.any():
        return None
    at = int(np.flatnonzero(wrong)[0])
    return f"{wrong.sum()} of {a.size} elements, first {at}: {a.flat[at]} here, {b.flat[at]} there, at most {bound} apart"


def compare(folder):
    """Returns 'agrees', 'invalid: ..', 'not run: ..' or 'differs: ..'."""
    path = folder / "model.onnx"
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as e:
        return f"invalid: {e}"
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    bounds = dict(line.split() for line in (folder / "bounds.txt").read_text().splitlines())
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        return f"not run: {str(e).splitlines()[0][:150]}"
    for data in sorted(folder.glob("test_data_set_*")):
        names = [i.name for i in session.get_inputs()]
        feeds = {name: load(data / f"input_{i}.pb") for i, name in enumerate(names)}
        try:
            theirs = session.run(None, feeds)
        except Exception as e:
            return f"not run: {str(e).splitlines()[0][:150]}"
        for i, (output, want) in enumerate(zip(session.get_outputs(), theirs)):
            wrong = differs(load(data / f"output_{i}.pb"), want, float(bounds[output.name]))
            if wrong:
                return f"differs: {data.name}, {output.name}: {wrong}"
    return "agrees"


def main():
    counts = {}
    for folder in sorted(pathlib.Path(sys.argv[1]).iterdir(), key=lambda p: int(p.name)):
        said = compare(folder)
        kind = said.split(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
        if said != "agrees":
            print(f"{folder.name}: {said}", flush=True)
    print(counts)
    return "invalid" in counts or "differs" in counts


if __name__ == "__main__":
    sys.exit(main())
