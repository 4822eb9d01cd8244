"""Holds ortx's optimiser against what exporters really write.

    python scripts/exports/check.py ORTX FOLDER [--only TEXT] [--table docs/exports.md]

FOLDER has what the `export_*.py` beside this file wrote. Each model is planned and run by `ortx`, optimised, and by onnxruntime as
it stands. A case is found if the operators it wants are among the plan's steps, or among what planning computes, and the steps are no
more than it allows; those that only put a picture's channels into blocks at the model's inputs and outputs aside.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime as ort

# Sums in another order, by the largest number of an output.
ROUNDING = 1e-4
# Of models that quantise between operators, by the steps of an output's scale: where sums of integers are exact and those of floats
# are not, a number on the edge between two steps falls to the other one, and takes with it what is made of it. The integer
# operators of onnxruntime move the outputs of these cases by up to 6 steps of what its float operators give.
STEPS = 4


def nodes(graph):
    """Nodes that compute something, those of inner graphs too."""
    inner = (a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH)
    return sum(n.op_type != "Constant" for n in graph.node) + sum(map(nodes, inner))


# Operators that exist only here, by what they are.
OURS = {"ChannelLayerNorm": "LayerNormalization", "DynamicQuantizeMatMul": "MatMulIntegerToFloat"}


def operator(name):
    return OURS.get(name, name)


def missing(wants, have):
    """The operators of `wants` of which there are not so many."""
    for want in filter(None, wants.split(", ")):
        name, count = want.split(" ")
        if have[name] < int(count):
            yield f"{name} {have[name]} of {count}"


def theirs(path, feeds):
    o = ort.SessionOptions()
    o.graph_optimization_level, o.log_severity_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 3
    o.intra_op_num_threads = 1
    return ort.InferenceSession(path, o, providers=["CPUExecutionProvider"]).run(None, feeds)


def step(model, output, numbers):
    """The step in which an output is quantised: its scale, or, where it ends in floats, a 255th of its extent."""
    constants = {i.name: i for i in model.graph.initializer}
    made = [n for n in model.graph.node if output in n.output and n.op_type == "DequantizeLinear"]
    scale = constants.get(made[0].input[1]) if made else None
    return float(np.ptp(numbers)) / 255 if scale is None else onnx.numpy_helper.to_array(scale).max()


def bounds(model, want):
    """How far each output may be off, by its largest number."""
    if not any(n.op_type == "QuantizeLinear" for n in model.graph.node):
        return [ROUNDING] * len(want)
    sizes = [np.abs(w).max(initial=0) or 1.0 for w in want]
    return [ROUNDING + STEPS * step(model, o.name, w) / s for o, w, s in zip(model.graph.output, want, sizes)]


def difference(want, got):
    """By the largest number of each output."""
    worst = []
    for w, g in zip(want, got, strict=True):
        if w.shape != g.shape or w.dtype != g.dtype:
            raise ValueError(f"{g.dtype}{g.shape} instead of {w.dtype}{w.shape}")
        w, g = w.astype(np.float64), g.astype(np.float64)
        finite = np.isfinite(w)
        if not (finite == np.isfinite(g)).all():
            raise ValueError("other elements are not finite")
        size = np.abs(w[finite]).max(initial=0) or 1.0
        worst.append(np.abs(w[finite] - g[finite]).max(initial=0) / size)
    return worst


def fault(ran):
    return (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[0]


def look(ortx, entry):
    said = dict(entry)
    if "file" not in entry:
        return said
    path = pathlib.Path(entry["file"])
    model = onnx.load(path)
    said["nodes"] = nodes(model.graph) + sum(n.op_type != "Constant" for f in model.functions for n in f.node)
    # Exporters may rename inputs: by place, in the type that the model has.
    given = list(np.load(path.with_suffix(".npz")).values())
    constants = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    kinds = [onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type) for i in inputs]
    feeds = {i.name: v.astype(k) for i, v, k in zip(inputs, given, kinds)}
    with tempfile.TemporaryDirectory() as folder:
        npz, out = os.path.join(folder, "in.npz"), os.path.join(folder, "out.npz")
        np.savez(npz, **feeds)
        run = lambda *a: subprocess.run([ortx, *a, "-t", "1"], capture_output=True, text=True)
        try:
            want = theirs(str(path), feeds)
        except Exception as e:
            return said | {"failed": f"onnxruntime does not run it: {str(e).splitlines()[0][:100]}"}
        ran = run("inspect", str(path), "--plan", "--passes", "--json", "--npz", npz)
        if ran.returncode:
            return said | {"error": fault(ran)}
        report = json.loads(ran.stdout)
        plan = report["plan"]
        said["steps"] = [operator(s["op"]) for g in plan["segments"] for s in g["steps"] if s["kernel"] != "reorder"]
        said["misses"] = [f"{p['pass']}: {m}" for p in report["passes"] for m in p["misses"]]
        have = collections.Counter(said["steps"])
        for name, count in plan["without_step"].items():
            have[operator(name)] += count
        wrong = list(missing(entry["wants"], have))
        if entry["most"] and len(said["steps"]) > entry["most"]:
            wrong.append(f"{len(said['steps'])} steps, not {entry['most']}")
        said["wrong"] = wrong
        ran = run("run", str(path), "--npz", npz, "--out", out)
        if ran.returncode:
            return said | {"error": fault(ran)}
        got = np.load(out)
        try:
            errors = difference(want, [got[o.name] for o in model.graph.output])
        except ValueError as e:
            return said | {"error": str(e)}
        said["error_max"] = max(errors, default=0.0)
        if any(e > most for e, most in zip(errors, bounds(model, want))):
            said["error"] = f"differs by {said['error_max']:.1e}"
    return said


def verdict(s):
    if "failed" in s:
        return f"not valid: {s['failed']}"
    return s.get("error") or ", ".join(s["wrong"]) or "found"


HEAD = """# What exporters write

Generated by `scripts/exports/check.py`: small random models as exporters really write them, and what is left of them after the
passes. A case is *found* if the operators named are among the plan's steps (an operator may have taken others in: a Conv its
BatchNormalization and activation) or among what planning computes (a product of positions, once there are sizes), there are no
more steps than told, and the outputs are those of onnxruntime without its optimisations, to 1e-4 of the largest number; of
models that quantise, to 4 steps of an output's scale.
Of those is wanted what onnxruntime makes of them: its operators on integers, in no more steps than it has nodes. Reordering of pictures'
channels at the model's borders is not counted.

```sh
python -m venv V && V/bin/pip install -r scripts/exports/requirements-torch.txt    # -tf, -paddle: each its own
V/bin/python scripts/exports/export_torch.py FOLDER                                # export_keras.py, export_paddle.py
V/bin/python scripts/exports/export_quantised.py FOLDER                            # after these three, torch's environment
python scripts/exports/check.py target/release/ortx FOLDER --table docs/exports.md
```

| exporter | of | found | refused by the exporter, or no valid ONNX |
|---|---|---|---|
"""


def table(said):
    """A summary by exporter, then a line for each case: what it came to in each version."""
    text, cases = HEAD, {}
    for s in said:
        cases.setdefault(s["exporter"], {}).setdefault(s["name"], []).append(s)
    for exporter, named in cases.items():
        all = [s for versions in named.values() for s in versions]
        valid = [s for s in all if "failed" not in s]
        found = sum(verdict(s) == "found" for s in valid)
        made_by = all[0]["made_by"]
        text += f"| {exporter} ({made_by}) | {len(valid)} | {found} | {len(all) - len(valid)} |\n"
    for exporter, named in cases.items():
        text += f"\n## {exporter}\n\n| case | wanted | opsets: nodes → steps | largest error | |\n|---|---|---|---|---|\n"
        for name, each in named.items():
            valid = [s for s in each if "failed" not in s]
            counts = ", ".join(f"{s['version']}: {s['nodes']} → {len(s.get('steps', []))}" for s in valid)
            worst = max((s.get("error_max", 0) for s in valid), default=0)
            verdicts = sorted({verdict(s) for s in valid}) or ["not exported"]
            text += f"| {name} | {each[0]['wants'] or '-'} | {counts} | {worst:.0e} | {'; '.join(verdicts)} |\n"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ortx")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--all", action="store_true", help="print what was found, too")
    parser.add_argument("--table", type=pathlib.Path)
    a = parser.parse_args()
    entries = [e for f in sorted(a.folder.glob("*/index.json")) for e in json.loads(f.read_text())]
    entries = [e for e in entries if a.only in f"{e['exporter']} {e['name']}.{e['version']}"]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda e: look(a.ortx, e), entries))
    for s in said:
        v = verdict(s)
        if a.all or v != "found" and "failed" not in s:
            count = f"{s.get('nodes', '-')} -> {len(s.get('steps', []))}"
            print(f"{s['exporter']:20} {s['name']}.{s['version']:4} {count:12} {s.get('error_max', 0):.0e}  {v}")
            if s.get("wrong"):
                print(" " * 24, " ".join(s["steps"]))
                for miss in s["misses"]:
                    print(" " * 24, miss)
    good = sum(verdict(s) == "found" for s in said)
    print(f"{good} of {sum('failed' not in s for s in said)} exported, {sum('failed' in s for s in said)} not exported")
    (a.folder / "report.json").write_text(json.dumps(said, indent=1))
    if a.table:
        a.table.write_text(table(said))
    sys.exit(any("error" in s or s.get("wrong") for s in said))


main()
