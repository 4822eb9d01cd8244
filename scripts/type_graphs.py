"""Graphs and attributes that type_recipes.py needs and that take more than a line: bodies of control flow, trees, a picture."""

import struct
import zlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

from type_values import CODES, DTYPES, Spec, element, loose, make_value, type_proto

OPSET = 28


def info(name, kind, value=None):
    return helper.make_value_info(name, type_proto(kind, value))


def model(nodes, inputs, outputs, domains=()):
    """A case of (name, type, value) inputs and expected outputs."""
    graph = helper.make_graph(nodes, "g", [info(n, k, v) for n, k, v in inputs], [loose(n, k, v) for n, k, v in outputs])
    opsets = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid(d, 1) for d in domains]
    return (
        helper.make_model(graph, opset_imports=opsets, ir_version=onnx.IR_VERSION),
        [(v, k) for _, k, v in inputs],
        [(v, k) for _, k, v in outputs],
    )


def constant(kind, n=4):
    value = make_value(Spec(n, lo=1, hi=3), kind, np.random.default_rng(3))
    return numpy_helper.from_array(value, "c")


def pass_on(kind, a, b):
    """Nodes that hand a value of any type on; Identity has no sequences of some types."""
    if kind.startswith("tensor("):
        return [helper.make_node("Identity", [a], [b])]
    if kind.startswith("seq("):
        return [helper.make_node("OptionalGetElement", [a], [b])]
    return [helper.make_node("OptionalGetElement", [a], [b + "i"]), helper.make_node("Optional", [b + "i"], [b])]


def if_model(kind, rng):
    x, y = (make_value(Spec(n), kind, rng) for n in (3, 3))
    branch = lambda name, of: helper.make_graph(pass_on(kind, of, name), name, [], [info(name, kind)])
    node = helper.make_node("If", ["cond"], ["z"], then_branch=branch("a", "x"), else_branch=branch("b", "y"))
    take = bool(rng.integers(0, 2))
    inputs = [("cond", "tensor(bool)", np.array(take)), ("x", kind, x), ("y", kind, y)]
    return model([node], inputs, [("z", kind, x if take else y)])


def loop_model(kind, rng):
    """Two values change places at each turn; tensors are also gathered as scan outputs."""
    x, y = (make_value(Spec(3), kind, rng) for _ in range(2))
    scans = kind.startswith("tensor")
    nodes = pass_on("tensor(bool)", "c", "c_") + pass_on(kind, "p", "q_") + pass_on(kind, "q", "p_")
    outs = ["c_", "p_", "q_"] + (["s_"] if scans else [])
    if scans:
        nodes.append(helper.make_node("Identity", ["p"], ["s_"]))
    kinds = {"i": "tensor(int64)", "c": "tensor(bool)", "c_": "tensor(bool)"}
    body = helper.make_graph(
        nodes, "body", [info(n, kinds.get(n, kind)) for n in ("i", "c", "p", "q")], [info(n, kinds.get(n, kind)) for n in outs]
    )
    node = helper.make_node("Loop", ["m", "", "x", "y"], ["xx", "yy"] + (["ss"] if scans else []), body=body)
    inputs = [("m", "tensor(int64)", np.array(3)), ("x", kind, x), ("y", kind, y)]
    outputs = [("xx", kind, y), ("yy", kind, x)]
    if scans:
        outputs.append(("ss", kind, np.stack([x, y, x])))
    return model([node], inputs, outputs)


def scan_model(kind, rng):
    """The state becomes the last row; the rows come out in reverse."""
    state, rows = make_value(Spec(2), kind, rng), make_value(Spec(3, 2), kind, rng)
    # Shapes are known, as a scan's outputs of unknown rank could not be stacked by the checker.
    nodes = [helper.make_node("Identity", ["r"], ["s_"]), helper.make_node("Identity", ["s"], ["o_"])]
    t = CODES[element(kind)]
    tensor = lambda n: helper.make_tensor_value_info(n, t, [2])
    body = helper.make_graph(nodes, "body", [tensor("s"), tensor("r")], [tensor("s_"), tensor("o_")])
    node = helper.make_node("Scan", ["s0", "x"], ["s1", "y"], body=body, num_scan_inputs=1)
    return model(
        [node],
        [("s0", kind, state), ("x", kind, rows)],
        [("s1", kind, rows[-1]), ("y", kind, np.stack([state, rows[0], rows[1]]))],
    )


def map_model(seq, additional, rng):
    x, more = make_value(Spec(2), seq, rng), make_value(Spec(3), additional, rng)
    item = seq[4:-1]
    added_seq = additional.startswith("seq(")
    inner = additional[4:-1] if added_seq else additional
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("a", "a_"), ("b", "b_"))]
    body = helper.make_graph(nodes, "body", [info("a", item), info("b", inner)], [info("a_", item), info("b_", inner)])
    node = helper.make_node("SequenceMap", ["x", "m"], ["y", "z"], body=body)
    results = [("y", seq, x), ("z", f"seq({inner})", more if added_seq else [more] * len(x))]
    return model([node], [("x", seq, x), ("m", additional, more)], results)


def gradient_model(t1, t2, rng):
    """y = x * cast(w), dy/dx = cast(w): w, of any type, is what zs names."""
    x = make_value(Spec(3), t2, rng)
    ok = not any(n in t1 for n in ("string", "complex"))
    w = make_value(Spec(3, lo=0, hi=3), t1, rng)
    to = CODES[element(t2)]
    nodes = (
        [helper.make_node("Cast", ["w"], ["c"], to=to)]
        if ok
        else [helper.make_node("Shape", ["w"], ["n"]), helper.make_node("Cast", ["n"], ["c"], to=to)]
    )
    nodes += [
        helper.make_node("Mul", ["x", "c"], ["y"]),
        helper.make_node("Gradient", ["x", "w"], ["dx"], xs=["x"], zs=["w"], y="y", domain="ai.onnx.preview.training"),
    ]
    c = w if ok else np.array([3, 3, 3])
    return model(nodes, [("x", t2, x), ("w", t1, w)], [("dx", t2, c.astype(DTYPES[element(t2)]))], ["ai.onnx.preview.training"])


def labels(k, v):
    """LabelEncoder's tables 1, 2, 3 -> 10, 20, 30, else 9."""

    def table(t, numbers):
        return np.array([f"s{n}" for n in numbers], object) if t == "string" else np.array(numbers, DTYPES[t])

    tensor = lambda t, numbers: numpy_helper.from_array(table(t, numbers), "t")
    return {"keys_tensor": tensor(k, [1, 2, 3]), "values_tensor": tensor(v, [10, 20, 30]), "default_tensor": tensor(v, [9])}


def tree(kind):
    """x0 <= 2 ? (x1 <= 1 ? 1.5 : 0.5) : 2.5"""
    t = element(kind)
    array = lambda values, dtype=None: numpy_helper.from_array(np.array(values, dtype or DTYPES[t]), "t")
    return {
        "n_targets": 1,
        "tree_roots": [0],
        "nodes_modes": array([0, 0], np.uint8),
        "nodes_featureids": [0, 1],
        "nodes_splits": array([2.0, 1.0]),
        "nodes_truenodeids": [1, 0],
        "nodes_trueleafs": [0, 1],
        "nodes_falsenodeids": [2, 1],
        "nodes_falseleafs": [1, 1],
        "leaf_targetids": [0, 0, 0],
        "leaf_weights": array([1.5, 0.5, 2.5]),
        "aggregate_function": 1,
        "post_transform": 0,
    }


PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20


def picture():
    """PIXELS as a PNG."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    raw = b"".join(b"\0" + row.tobytes() for row in PIXELS)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    return np.frombuffer(png, np.uint8)


GRAPHS = {
    "constant": constant,
    "if_model": if_model,
    "loop_model": loop_model,
    "scan_model": scan_model,
    "map_model": map_model,
    "gradient_model": gradient_model,
    "labels": labels,
    "tree": tree,
    "picture": picture,
    "pixels": lambda: PIXELS,
}
