"""The cases of tests/opsets.txt: how they are collected, written, and compared with other engines.

    case NAME OPERATOR VERSION [DOMAIN]
    attr NAME KIND VALUES...          KIND is i, f, s, ints, floats, strings, tensor VALUE, type TYPE
    attr NAME graph                   then the subgraph's lines, up to `end`
    in|const VALUE | absent
    out VALUE | unused | any DTYPE SHAPE

    VALUE is DTYPE SHAPE ELEMENTS... | seq TYPE N VALUE... | optional TYPE 0 | optional TYPE 1 VALUE | map VALUE VALUE
    TYPE is DTYPE | seq(TYPE) | optional(TYPE) | map(DTYPE,TYPE)

A subgraph's lines are `input NAME TYPE DIMS` (`*` for any, `?` for one that is unknown), `init NAME VALUE`, `node OPERATOR
INPUTS OUTPUTS` (names with commas between; its attributes follow) and `output NAME`. A shape is sizes with commas, `-` for a scalar. Bool is 0 and 1; types of 8 bits and fewer are their bits as a
number; text is written as in a URL, `%` alone is the empty text. `any` fixes only the type and the shape.
"""

import os
import urllib.parse
import warnings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
warnings.filterwarnings("ignore")
import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

CASES = []
DIFFER = []


class Const:
    """An input that is a constant of the model."""

    def __init__(self, value):
        self.value = np.asarray(value)


class Any:
    """An output of which only type and shape are fixed."""

    def __init__(self, value):
        self.value = np.asarray(value)


class Typed:
    """A sequence, an optional or a map: what it holds cannot always tell its type."""

    def __init__(self, kind, value):
        self.kind, self.value = kind, value


class Case:
    def __init__(self, name, op, version, inputs, outputs, attrs, check, domain):
        self.name, self.op, self.version, self.domain, self.check = name, op, version, domain, check
        self.inputs, self.outputs = inputs, outputs
        names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
        outs = ["" if y is None else f"y{i}" for i, y in enumerate(outputs)]
        self.node = helper.make_node(op, names, outs, domain=domain, **attrs)
        self.title = f"{op}-{version}/{name}"

    def model(self):
        inputs = list(zip(self.node.input, self.inputs))
        graph = helper.make_graph(
            [self.node],
            "g",
            [helper.make_value_info(n, kind_of(x)) for n, x in inputs if n and not isinstance(x, Const)],
            [helper.make_value_info(n, kind_of(y)) for n, y in zip(self.node.output, self.outputs) if n],
            [numpy_helper.from_array(x.value, n) for n, x in inputs if isinstance(x, Const)],
        )
        return helper.make_model(graph, opset_imports=opsets(self.domain, self.version), ir_version=13 if self.version > 21 else 8)

    def feed(self):
        inputs = zip(self.node.input, self.inputs)
        return {n: x.value if isinstance(x, Typed) else np.asarray(x) for n, x in inputs if n and not isinstance(x, Const)}


def opsets(domain, version):
    return [helper.make_opsetid("", 21), helper.make_opsetid(domain, version)] if domain else [helper.make_opsetid("", version)]


def case(name, op, version, inputs, outputs, *, check=True, domain="", **attrs):
    """`check`: False where other engines are known not to follow the standard, or not to have it."""
    CASES.append(Case(name, op, version, inputs, [None if y is None else like(y, inputs) for y in outputs], attrs, check, domain))


def asked(name, op, version, inputs, outputs=1, *, domain="", trust="onnxruntime", **attrs):
    """A case whose answer is the other engines'. `outputs`: how many, or which (a list of truths); `trust`: whom, where both
    answer. The reference evaluator ignores several attributes of recurrent operators, pools and trees."""
    wanted = [True] * outputs if isinstance(outputs, int) else outputs
    c = Case(name, op, version, inputs, [np.float32(0) if w else None for w in wanted], attrs, True, domain)
    answers = {k: v for k, v in engines(c).items() if not isinstance(v, Exception)}
    if not answers:
        DIFFER.append(f"{c.title}: nobody answers: {engines(c)}")
        return
    first = answers.get(trust) or list(answers.values())[0]
    for engine, v in answers.items():
        if not all(same(a, b) for a, b in zip(v, first)):
            DIFFER.append(f"{c.title}: the engines differ: {answers}")
    found = iter(first)
    c.outputs = [next(found) if w else None for w in wanted]
    CASES.append(c)


def like(want, inputs):
    """numpy widens; the operator does not."""
    if isinstance(want, (Any, Typed)):
        return want
    want = np.asarray(want)
    first = next((x.value if isinstance(x, Const) else np.asarray(x) for x in inputs if x is not None and not isinstance(x, Typed)), None)
    return want.astype(np.float32) if want.dtype == np.float64 and first is not None and first.dtype == np.float32 else want


def kind_of(x):
    if isinstance(x, Typed):
        return x.kind
    x = np.asarray(x.value if isinstance(x, (Const, Any)) else x)
    number = TensorProto.STRING if x.dtype.kind in "OUS" else helper.np_dtype_to_tensor_dtype(x.dtype)
    return helper.make_tensor_type_proto(number, x.shape)


def word(text):
    return urllib.parse.quote(text if isinstance(text, str) else text.decode(), safe="/:()[]{}*+?!=<>'\",;^$|\\@&_-.") or "%"


def number(x):
    return repr(float(np.float32(x)) if not np.isfinite(x) else np.float32(x)).removeprefix("np.float32(").removesuffix(")")


def of_type(t):
    """ONNX's name of an element type."""
    return TensorProto.DataType.Name(t).lower()


def elements(a):
    kind = a.dtype
    if kind.kind in "OUS":
        return [word(v if isinstance(v, (str, bytes)) else str(v)) for v in a.reshape(-1)]
    if kind.kind == "b":
        return [str(int(v)) for v in a.reshape(-1)]
    if kind.kind in "iu":
        return [str(v) for v in a.reshape(-1)]
    if kind.kind == "c":
        return [p for v in a.reshape(-1) for p in (repr(float(v.real)), repr(float(v.imag)))]
    if kind in (np.float32, np.float64):
        return [repr(float(v)) for v in a.reshape(-1)]
    if kind == np.float16 or str(kind) == "bfloat16":
        return [repr(float(v)) for v in a.reshape(-1)]
    mask = {"int4": 15, "uint4": 15, "int2": 3, "uint2": 3, "float4_e2m1fn": 15}.get(str(kind), 255)
    return [str(int(v) & mask) for v in np.ascontiguousarray(a).view(np.uint8).reshape(-1)]


def value(x, kind=None):
    """The words of a value."""
    if isinstance(x, Typed):
        return value(x.value, x.kind)
    if kind is not None and kind.HasField("sequence_type"):
        inner = kind.sequence_type.elem_type
        return " ".join(["seq", type_word(inner), str(len(x)), *(value(v, inner) for v in x)])
    if kind is not None and kind.HasField("optional_type"):
        inner = kind.optional_type.elem_type
        return f"optional {type_word(inner)} 0" if x is None else f"optional {type_word(inner)} 1 {value(x, inner)}"
    if isinstance(x, dict):
        keys, of = kind.map_type.key_type, kind.map_type.value_type.tensor_type.elem_type
        array = lambda values, of: np.array(list(values), helper.tensor_dtype_to_np_dtype(of))
        return f"map {value(array(x, keys))} {value(array(x.values(), of))}"
    a = np.asarray(x)
    name = "string" if a.dtype.kind in "OUS" else of_type(helper.np_dtype_to_tensor_dtype(a.dtype))
    return " ".join([name, ",".join(map(str, a.shape)) or "-", *elements(a)])


def type_word(t):
    if t.HasField("sequence_type"):
        return f"seq({type_word(t.sequence_type.elem_type)})"
    if t.HasField("optional_type"):
        return f"optional({type_word(t.optional_type.elem_type)})"
    if t.HasField("map_type"):
        return f"map({of_type(t.map_type.key_type)},{type_word(t.map_type.value_type)})"
    return of_type(t.tensor_type.elem_type)


def input_type(info):
    t = info.type
    if not t.WhichOneof("value"):
        return "float *"
    if not t.HasField("tensor_type") or not t.tensor_type.HasField("shape"):
        return f"{type_word(t)} *"
    dims = [d.dim_param or (str(d.dim_value) if d.HasField("dim_value") else "?") for d in t.tensor_type.shape.dim]
    return f"{type_word(t)} {','.join(dims) or '-'}"


def attribute(a):
    """The lines of an attribute."""
    if a.type == AttributeProto.GRAPH:
        return [f"attr {a.name} graph", *graph(a.g), "end"]
    kind, words = {
        AttributeProto.INT: lambda: ("i", [str(a.i)]),
        AttributeProto.FLOAT: lambda: ("f", [number(a.f)]),
        AttributeProto.STRING: lambda: ("s", [word(a.s)]),
        AttributeProto.INTS: lambda: ("ints", map(str, a.ints)),
        AttributeProto.FLOATS: lambda: ("floats", map(number, a.floats)),
        AttributeProto.STRINGS: lambda: ("strings", map(word, a.strings)),
        AttributeProto.TENSOR: lambda: ("tensor", [value(numpy_helper.to_array(a.t))]),
        AttributeProto.TYPE_PROTO: lambda: ("type", [type_word(a.tp)]),
    }[a.type]()
    return [" ".join([f"attr {a.name} {kind}", *words])]


def graph(g):
    lines = [f"input {i.name} {input_type(i)}" for i in g.input]
    lines += [f"init {t.name} {value(numpy_helper.to_array(t))}" for t in g.initializer]
    for n in g.node:
        assert not n.domain
        lines.append(f"node {n.op_type} {','.join(n.input) or '-'} {','.join(n.output)}")
        for a in n.attribute:
            lines += attribute(a)
    return lines + [f"output {o.name}" for o in g.output]


def text():
    lines = []
    for c in CASES:
        lines.append(" ".join(["case", word(c.name), c.op, str(c.version), *([c.domain] if c.domain else [])]))
        for a in c.node.attribute:
            lines += attribute(a)
        for x in c.inputs:
            lines.append("absent" if x is None else f"const {value(x.value)}" if isinstance(x, Const) else f"in {value(x)}")
        for y in c.outputs:
            lines.append("unused" if y is None else f"any {' '.join(value(y.value).split(' ')[:2])}" if isinstance(y, Any) else f"out {value(y)}")
    return "\n".join(lines) + "\n"


def engines(c):
    """What onnxruntime and onnx's reference evaluator say: answers, or why not."""
    import onnxruntime as ort
    from onnx.reference import ReferenceEvaluator

    ort.set_default_logger_severity(4)
    model, feed, found = c.model(), c.feed(), {}
    for o in model.graph.output:
        if not o.type.HasField("sequence_type") and not o.type.HasField("optional_type"):
            o.ClearField("type")

    def runtime():
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        s = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        # It gives types that numpy lacks as their bits.
        numbers = [getattr(TensorProto, o.type[7:-1].upper(), None) if o.type.startswith("tensor(float8") else None for o in s.get_outputs()]
        return [y.view(helper.tensor_dtype_to_np_dtype(n)) if n else y for y, n in zip(s.run(None, feed), numbers)]

    def reference():
        with np.errstate(all="ignore"):
            return ReferenceEvaluator(model).run(None, feed)

    for name, run in (("onnxruntime", runtime), ("reference", reference)):
        try:
            found[name] = run()
        except Exception as e:  # noqa: BLE001
            found[name] = e
    return found


def same(g, w):
    if isinstance(w, Typed):
        w = w.value
    if isinstance(w, Any):
        return np.asarray(g).shape == w.value.shape and np.asarray(g).dtype == w.value.dtype
    if g is None or w is None:
        return g is None and w is None
    if isinstance(w, (list, tuple)):
        return len(g) == len(w) and all(same(a, b) for a, b in zip(g, w))
    if isinstance(w, dict):
        return list(g) == list(w) and all(same(g[k], w[k]) for k in w)
    g, w = np.asarray(g, w.dtype if isinstance(g, (int, float)) else None), np.asarray(w)
    if g.shape != w.shape or g.dtype != w.dtype and not {g.dtype.kind, w.dtype.kind} <= set("OUS"):
        return False
    if w.dtype.kind in "OUSbiu":
        return bool((g == w).all())
    if w.dtype.kind == "c":
        return np.allclose(g, w, 1e-5, 1e-5)
    coarse = {np.float16: 2e-3}.get(w.dtype.type, 1e-5 if w.dtype in (np.float32, np.float64) else 2e-2)
    return np.allclose(g.astype(np.float64), w.astype(np.float64), coarse, 1e-5, equal_nan=True)


def check(verbose):
    """Asks the other engines for every case. A case on which nobody agrees, or somebody differs, is named."""
    count = {"onnxruntime": 0, "reference": 0}
    alone = []
    for c in CASES:
        wanted, agreed = [y for y in c.outputs if y is not None], False
        for engine, got in engines(c).items():
            if isinstance(got, Exception):
                if verbose:
                    print(f"{c.title}: {engine} refuses: {str(got)[:150]}")
                continue
            if len(got) == len(wanted) and all(same(g, w) for g, w in zip(got, wanted)):
                count[engine] += 1
                agreed = True
            elif c.check or verbose:
                print(f"{c.title}: {engine} says\n{got}\nnot\n{wanted}")
        if not agreed and c.check:
            alone.append(c.title)
    print(f"{len(CASES)} cases; agreement: {count}; nobody agrees though somebody should: {alone}")
