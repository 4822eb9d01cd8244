#!/usr/bin/env python3
"""Measures how far onnxruntime, and ortx where ORTX_LIBRARY names it, are from the truth: the tables of docs/numerics.md.

    python scripts/numerics.py functions [STEP]    # elementary functions, over every STEP-th (997) of f32's 2^32 numbers
    python scripts/numerics.py reductions          # sums of a million numbers, by both libraries
    python scripts/numerics.py doubles             # f64 functions against mpmath, where it is installed

Ours over all numbers and at every ISA level: cargo run --release --example ulp. Needs numpy, onnx, onnxruntime.
"""
import math
import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import numpy as np
from onnx import TensorProto, helper

OURS = os.environ.get("ORTX_LIBRARY")
HERE = os.path.dirname(os.path.abspath(__file__))


def model(nodes, inputs, opset=22, dtype=TensorProto.FLOAT):
    """A model of these nodes from `inputs` (name -> shape) to y."""
    given = [helper.make_tensor_value_info(n, dtype, s) for n, s in inputs.items()]
    graph = helper.make_graph(nodes, "g", given, [helper.make_tensor_value_info("y", dtype, None)])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def theirs(data):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)[0]


def ours(data):
    sys.path.insert(0, os.path.join(HERE, "..", "bindings", "python"))
    import ortx

    session = ortx.Session(data, denormals="keep")
    return lambda feeds: session.run(feeds)[0]


def each(f):
    return lambda x: np.fromiter(map(f, x.tolist()), np.float64, len(x))


def safe(f):
    def g(x):
        try:
            return f(x)
        except (ValueError, OverflowError):
            return math.nan

    return each(g)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


SELU = (np.float32(1.6732632), np.float32(1.050701))
ROOT = 2 * math.sqrt(2 / math.pi)


def elu(x, alpha=1.0, gamma=1.0):
    return float(gamma) * np.where(x > 0, x, float(alpha) * np.expm1(np.minimum(x, 0)))


def op(name, domain="", **attrs):
    return [helper.make_node(name, ["x"], ["y"], domain=domain, **attrs)]


def power(e):
    value = helper.make_tensor("e", TensorProto.FLOAT, [], [e])
    return [helper.make_node("Constant", [], ["e"], value=value), helper.make_node("Pow", ["x", "e"], ["y"])]


SILU = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])]
F32 = lambda x: float(np.float32(x))
FUNCTIONS = {
    "exp": (op("Exp"), np.exp),
    "log": (op("Log"), np.log),
    "sqrt": (op("Sqrt"), np.sqrt),
    "reciprocal": (op("Reciprocal"), lambda x: 1 / x),
    "tanh": (op("Tanh"), np.tanh),
    "erf": (op("Erf"), each(math.erf)),
    "sigmoid": (op("Sigmoid"), sigmoid),
    "softplus": (op("Softplus"), softplus),
    "softsign": (op("Softsign"), lambda x: x / (1 + np.abs(x))),
    "sin": (op("Sin"), np.sin),
    "cos": (op("Cos"), np.cos),
    "tan": (op("Tan"), np.tan),
    "asin": (op("Asin"), np.arcsin),
    "acos": (op("Acos"), np.arccos),
    "atan": (op("Atan"), np.arctan),
    "sinh": (op("Sinh"), np.sinh),
    "cosh": (op("Cosh"), np.cosh),
    "asinh": (op("Asinh"), np.arcsinh),
    "acosh": (op("Acosh"), np.arccosh),
    "atanh": (op("Atanh"), np.arctanh),
    "gelu": (op("Gelu"), lambda x: 0.5 * x * each(math.erfc)(-x * math.sqrt(0.5))),
    "gelu (tanh)": (op("Gelu", approximate="tanh"), lambda x: x * sigmoid(ROOT * (x + 0.044715 * x**3))),
    "quick gelu": (op("QuickGelu", "com.microsoft", alpha=1.702), lambda x: x * sigmoid(F32(1.702) * x)),
    "silu": (SILU, lambda x: x * sigmoid(x)),
    "mish": (op("Mish"), lambda x: x * np.tanh(softplus(x))),
    "elu": (op("Elu"), elu),
    "selu": (op("Selu", alpha=float(SELU[0]), gamma=float(SELU[1])), lambda x: elu(x, *SELU)),
    "celu": (op("Celu", alpha=F32(1.7)), lambda x: np.where(x > 0, x, F32(1.7) * np.expm1(np.minimum(x, 0) / F32(1.7)))),
    "hard sigmoid": (op("HardSigmoid"), lambda x: np.clip(F32(0.2) * x + 0.5, 0, 1)),
    "hard swish": (op("HardSwish"), lambda x: x * (np.clip(x + 3, 0, 6) / 6)),
    "x^2": (power(2.0), lambda x: x * x),
    "x^3": (power(3.0), lambda x: x * x * x),
    "x^0.5": (power(0.5), lambda x: np.power(x, np.full_like(x, 0.5))),
    "x^-1.7": (power(-1.7), lambda x: np.power(x, F32(-1.7))),
}
CHUNK = 1 << 20


def ulps(got, want):
    """Distances in units in the last place; NaN where only one is NaN counts as the most there is."""
    order = lambda x: np.where(x.view(np.int32) < 0, -1 - (x.view(np.int32).astype(np.int64) & 0x7FFFFFFF), x.view(np.int32))
    d = np.abs(order(got) - order(want))
    nan = np.isnan(got), np.isnan(want)
    return np.where(nan[0] | nan[1], np.where(nan[0] & nan[1], 0, 1 << 32), d)


def functions(step):
    print("| function | worst ulp |\n|---|---|")
    for name, (nodes, truth) in FUNCTIONS.items():
        run = (ours if OURS else theirs)(model(nodes, {"x": ["n"]}))
        worst = (0, 0.0, 0.0, 0.0)
        count = (1 << 32) // step
        for first in range(0, count, CHUNK):
            bits = (np.arange(first, min(first + CHUNK, count), dtype=np.uint64) * step).astype(np.uint32)
            x = bits.view(np.float32).copy()
            if first == 0:
                x[:6] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0]
            want = truth(x.astype(np.float64)).astype(np.float32)
            got = run({"x": x})
            d = ulps(got, want)
            i = int(np.argmax(d))
            if d[i] > worst[0]:
                worst = (int(d[i]), x[i], got[i], want[i])
        n, x, got, want = worst
        text = "NaN" if n >> 32 else str(n)
        print(f"| {name} | {text}" + (f" at {x:.7g}: {got:.7g} for {want:.7g} |" if n > 4 else f" at {x:.7g} |"), flush=True)


def reductions():
    n = 1_000_000
    rng = np.random.default_rng(1)
    flat = rng.random(n, dtype=np.float32)
    wide = flat.reshape(1, n)
    one = helper.make_node
    f = lambda x: x.astype(np.float64)

    def softmax(x):
        e = np.exp(f(x) - f(x).max())
        return e / e.sum()

    def layer(x):
        v = f(x)
        return (v - v.mean()) / np.sqrt(v.var() + 1e-5)

    long = np.random.default_rng(2).standard_normal(n).astype(np.float32).reshape(1, n)
    pair = {"a": flat.reshape(1, n), "b": flat[::-1].copy().reshape(n, 1)}
    column = flat.reshape(n, 1)
    cases = {
        "sum": ([one("ReduceSum", ["x"], ["y"])], {"x": flat}, lambda: f(flat).sum()),
        "sum, down a column": (
            [one("Constant", [], ["k"], value=helper.make_tensor("k", TensorProto.INT64, [1], [0])), one("ReduceSum", ["x", "k"], ["y"])],
            {"x": np.repeat(column, 8, 1)},
            lambda: np.repeat(f(flat).sum(), 8),
        ),
        "mean": ([one("ReduceMean", ["x"], ["y"])], {"x": flat}, lambda: f(flat).mean()),
        "L2": ([one("ReduceL2", ["x"], ["y"])], {"x": flat}, lambda: np.sqrt((f(flat) ** 2).sum())),
        "log-sum-exp": ([one("ReduceLogSumExp", ["x"], ["y"])], {"x": flat}, lambda: np.log(np.exp(f(flat)).sum())),
        "softmax (of the greatest)": ([one("Softmax", ["x"], ["y"])], {"x": wide}, lambda: softmax(wide)),
        "layer norm (greatest error)": (
            [one("LayerNormalization", ["x", "s"], ["y"])],
            {"x": long, "s": np.ones(n, np.float32)},
            lambda: layer(long),
        ),
        "running sum (its end)": (
            [one("Constant", [], ["k"], value=helper.make_tensor("k", TensorProto.INT64, [], [0])), one("CumSum", ["x", "k"], ["y"])],
            {"x": flat},
            lambda: np.cumsum(f(flat)),
        ),
        "product of a row and a column": ([one("MatMul", ["a", "b"], ["y"])], pair, lambda: f(pair["a"]) @ f(pair["b"])),
        "mean of a map": ([one("GlobalAveragePool", ["x"], ["y"])], {"x": flat.reshape(1, 1, 1000, 1000)}, lambda: f(flat).mean()),
    }
    print("| over a million numbers | ortx | onnxruntime |\n|---|---|---|")
    for name, (nodes, feeds, truth) in cases.items():
        data = model(nodes, {k: list(v.shape) for k, v in feeds.items()}, opset=18)
        want = np.asarray(truth())
        cells = []
        for engine in [ours] if OURS else []:
            cells.append(error(engine(data)(feeds), want))
        cells = cells or ["-"]
        cells.append(error(theirs(data)(feeds), want))
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def error(got, want):
    """The greatest error, relative to the greatest result."""
    return f"{np.max(np.abs(got.astype(np.float64).ravel() - want.ravel() if want.size > 1 else got.astype(np.float64).ravel() - want)) / np.max(np.abs(want)):.1e}"


def doubles():
    import mpmath

    mpmath.mp.prec = 120
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(-20, 20, 2000), rng.uniform(-1, 1, 2000), 10.0 ** rng.uniform(-12, 2, 2000)])
    mp = {
        "Exp": mpmath.exp, "Log": mpmath.log, "Tanh": mpmath.tanh, "Erf": mpmath.erf, "Sin": mpmath.sin, "Cos": mpmath.cos,
        "Tan": mpmath.tan, "Asin": mpmath.asin, "Acos": mpmath.acos, "Atan": mpmath.atan, "Sinh": mpmath.sinh,
        "Cosh": mpmath.cosh, "Asinh": mpmath.asinh, "Acosh": mpmath.acosh, "Atanh": mpmath.atanh,
        "Sigmoid": lambda v: 1 / (1 + mpmath.exp(-v)), "Softplus": lambda v: mpmath.log1p(mpmath.exp(v)),
        "Gelu": lambda v: v * mpmath.erfc(-v / mpmath.sqrt(2)) / 2,
        "Mish": lambda v: v * mpmath.tanh(mpmath.log1p(mpmath.exp(v))),
    }
    domains = {"Log": (0, None), "Asin": (-1, 1), "Acos": (-1, 1), "Atanh": (-1, 1), "Acosh": (1, None)}
    print("| f64 function | worst ulp |\n|---|---|")
    for name, truth in mp.items():
        low, high = domains.get(name, (None, None))
        v = x[(x > low) if low is not None else slice(None)]
        v = v[v < high] if high is not None else v
        got = (ours if OURS else theirs)(model(op(name), {"x": ["n"]}, dtype=TensorProto.DOUBLE))({"x": v})
        worst = (0.0, 0.0)
        for a, y in zip(v, got):
            want = truth(mpmath.mpf(float(a)))
            ulp = np.spacing(abs(float(want))) if want != 0 else 5e-324
            worst = max(worst, (float(abs(mpmath.mpf(float(y)) - want) / mpmath.mpf(float(ulp))), float(a)))
        print(f"| {name} | {worst[0]:.2f} at {worst[1]:.6g} |", flush=True)


if __name__ == "__main__":
    np.seterr(all="ignore")
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what == "functions":
        functions(int(sys.argv[2]) if len(sys.argv) > 2 else 997)
    elif what == "reductions":
        reductions()
    elif what == "doubles":
        doubles()
    else:
        sys.exit(__doc__)
