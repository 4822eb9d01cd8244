"""The recipes of scripts/dump_types.py: for each operator a list of small nodes whose types are then varied.

    i     inputs: Specs, arrays, or None for one that is left out (a list of Specs for a sequence)
    a     attributes; n: number of outputs; skip: outputs without a name; c: inputs that are initialisers
    t     the types of parameters that are not varied (else float, int64, ...); tie: parameters that follow from others
    pairs the parameters of which all combinations are tried; when: which assignments make sense
    o     the outputs' types where they are not the schema's parameters; e: the expected values (else type_expected, else onnx)
    check "near", "exact" (where EXACT says so), or "range:LO:HI" for random results: only type, shape and range are compared
    slack how many units of the type's precision the result may be off, where 1 is not enough: with the reason beside it
    fixed parameters that a recipe need not vary

Every field may be a function of the assignment of types.
"""

import numpy as np
import onnx

from type_expected import by_index
from type_graphs import GRAPHS
from type_values import CODES, Spec as S, element, is_float

RECIPES = {}
# Conversions and what only moves or chooses are exact.
EXACT = """
    Cast CastLike BitCast QuantizeLinear DequantizeLinear Identity Reshape Transpose Squeeze Unsqueeze Flatten Concat
    Split Slice Gather GatherElements GatherND Expand Tile Pad Trilu Unique TopK OneHot Compress CenterCropPad
    ReverseSequence TensorScatter DepthToSpace SpaceToDepth Constant ConstantOfShape EyeLike Where Max Min Relu Abs Neg
    Sign Ceil Floor Round Clip ReduceMax ReduceMin MaxPool GlobalMaxPool MaxUnpool MaxRoiPool If Loop Scan SequenceMap
    SequenceAt SequenceConstruct SequenceErase SequenceInsert SplitToSequence ConcatFromSequence Optional
    OptionalGetElement Hardmax ArrayFeatureExtractor
""".split()


def add(names, **recipe):
    for name in names.split():
        RECIPES.setdefault(name, []).append(({"check": "exact"} if name in EXACT else {}) | recipe)


def code(p):
    """An attribute from the element type of a parameter."""
    return lambda t: CODES[element(t[p])]


def of(**attrs):
    return lambda t: {k: (v(t) if callable(v) else v) for k, v in attrs.items()}


numeric = lambda p: lambda t: element(t[p]) not in ("string", "bool", "complex64", "complex128")
floating = lambda p: lambda t: is_float(element(t[p]))

# --- one input, elementwise or nearly so
X = S(3, 37)
add(
    "Abs Neg Sign BitwiseNot Not Relu Identity Shape Size Ceil Floor Round Asinh Atan Celu Cos Cosh Elu Erf Exp Gelu HardSigmoid "
    "HardSwish Hardmax LeakyRelu LogSoftmax Mish Selu Sigmoid Sin Sinh Softmax Softplus Softsign Swish Tanh ThresholdedRelu Flatten "
    "IsNaN IsInf NonZero Sum Mean Min Max LpNormalization Transpose",
    i=[X],
)
add("Acos Asin Tan", i=[S(2, 5, lo=-0.9, hi=0.9)])
add("Atanh", i=[S(2, 5, lo=-0.8, hi=0.8)])
add("Acosh", i=[S(2, 5, lo=1.1, hi=4)])
add("Log Sqrt", i=[S(2, 5, lo=0.1, hi=4)])
add("Reciprocal", i=[S(2, 5, lo=0.5, hi=3)])
add("Gelu", i=[X], a={"approximate": "tanh"})
add("Shrink", i=[S(2, 5, lo=-6, hi=6)], a={"lambd": 1.5, "bias": 1.0})
# What is no number, or infinite, or a zero with a sign.
ODD = S(values=np.resize([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0], 40))
add(
    "Abs Neg Sign Relu Ceil Floor Round Sqrt Exp Log Erf Sin Cos Tan Tanh Sigmoid Softplus Softsign Elu Selu Celu LeakyRelu Gelu Mish "
    "HardSigmoid HardSwish Swish ThresholdedRelu Reciprocal Atan Asin Acos Sinh Cosh Asinh Acosh Atanh Clip Identity",
    i=[ODD],
    when=lambda t: element(t.get("T", t.get("V"))) in ("float", "double", "float16", "bfloat16"),
)
add("IsNaN IsInf", i=[S(values=[0.5, np.nan, np.inf, -np.inf, 1.0])])
add("Clip", i=[S(3, 5), S(values=-1), S(values=1)])
add("Clip", i=[S(3, 5), None, S(values=1)])
add("Det", i=[S(2, 3, 3)])
# The type inference of onnx wants the constants of its function to be float.
add("MeanVarianceNormalization", i=[S(2, 3, 2, 2)], loose=True)
add("GlobalAveragePool GlobalLpPool GlobalMaxPool", i=[S(2, 3, 3, 4)])
add("LRN", i=[S(1, 5, 2, 2)], a={"size": 3})
add("CumSum CumProd", i=[S(2, 6, lo=-3, hi=3), np.array(1)])
add("Trilu", i=[S(3, 4), np.array(1)])
add("Dropout", i=[X])
add(
    "Dropout",
    i=[X, S(values=0.5), np.array(True)],
    n=2,
    a={"seed": 7},
    check="range:-4:4",
    e=lambda t, x, a: (x[0], x[0] > 0),
    when=lambda t: t["T"] != "tensor(float8e8m0)",
)
# Squares and sums of what went before: two operations, each rounded once by the reference's float64 alone.
add("Det LpNormalization", i=[S(1, 2, 2, lo=1, hi=3)])

# --- two or more inputs, elementwise, broadcast
AB = [S(2, 3, 37), S(3, 1)]
add("Add Sub Mul BitwiseAnd BitwiseOr BitwiseXor And Or Xor Min Max Sum Mean", i=AB)
add("Min Max Sum Mean", i=[S(2, 3), S(2, 1), S(3)])
add("Equal Greater GreaterOrEqual Less LessOrEqual", i=[S(2, 3, 4, lo=-2, hi=2, step=0.5), S(3, 1, lo=-2, hi=2, step=0.5)])
add("Equal Greater GreaterOrEqual Less LessOrEqual", i=[S(50), S(50)])
add("Div", i=[S(2, 3, 37), S(3, 1, nonzero=True)])
# What passes a type's range wraps around.
whole = lambda t: not is_float(element(t["T"])) and element(t["T"]) not in ("bool", "string")
ENDS = [S(8, 1, ends=True), S(40, ends=True)]
add("Add Sub Mul Min Max Equal Greater GreaterOrEqual Less LessOrEqual BitwiseAnd BitwiseOr BitwiseXor", i=ENDS, when=whole)
add("Div Mod", i=[S(8, 1, ends=True), S(40, ends=True, nonzero=True)], when=whole)
add("Mod", i=[S(8, 1, ends=True), S(40, ends=True, nonzero=True)], a={"fmod": 1}, when=whole)
add("Abs Neg Sign Relu BitwiseNot ReduceSum ReduceMax ReduceMin", i=[S(40, ends=True)], when=whole)
add("Div", i=[S(2, 3, 4), S(3, 1, lo=-7, hi=7, nonzero=True)])
add(
    "Mod",
    i=[S(2, 3, 4, lo=-100, hi=100, step=0.25), S(3, 1, lo=-7, hi=7, step=0.5, nonzero=True)],
    a=lambda t: {"fmod": int(is_float(element(t["T"])))},
)
add("Mod", i=[S(20), S(20, lo=-9, hi=9, nonzero=True)], a={"fmod": 1})
add("Mod", i=[S(20), S(20, lo=-9, hi=9, nonzero=True)], when=lambda t: not is_float(element(t["T"])))
add("PRelu", i=[S(2, 3, 4), S(3, 1)])
add("Pow", i=[S(2, 3, lo=1, hi=4), S(2, 3, lo=0, hi=3)], pairs=["T", "T1"])
add("BitShift", i=[S(4, 5), S(5, lo=0, hi=7)], a={"direction": "LEFT"})
add("BitShift", i=[S(4, 5), S(5, lo=0, hi=7)], a={"direction": "RIGHT"})
add("SwiGLU", i=[S(2, 5), S(2, 5)])
add("Where", i=[S(2, 3, 4), S(3, 4), S(2, 1, 1)])
add("StringConcat", i=[S(2, 3), S(3)])

# --- casts
NUM = [0.0, 1.0, 2.0, 0.5, 1.5, 3.0]


def cast_values(t):
    a, b = element(t["T1"]), element(t["T2"])
    if a == "string":
        return np.array(
            ["0", "1"]
            if b == "bool"
            else ["0", "1", "-1"]
            if b in ("int2", "int4")
            else ["0", "1", "2"]
            if not is_float(b)
            else ["0", "1.5", "2"],
            object,
        )
    if b == "string":
        return S(values=[0.0, 1.0] if a in ("bool", "int2") else [0.0, 1.0, 2.0] if not is_float(a) else [0.5, 1.0, 2.0])
    if a in ("int2", "uint2", "bool"):
        return S(values=np.resize([0.0, 1.0], 70))
    if a == "float8e8m0":
        return S(values=np.resize([0.5, 1.0, 2.0, 4.0], 70))
    if is_float(a):
        signed = not b.startswith("u") and b != "float8e8m0" and a != "float8e8m0" and b != "bool"
        return S(values=np.resize(NUM + ([-1.0, -1.5, -0.5, -2.0] if signed else []), 70))
    return S(70) if not is_float(b) else S(70, lo=-8, hi=7) if b != "float8e8m0" else S(70, lo=1, hi=7)


add("Cast", i=lambda t: [cast_values(t)], a=of(to=code("T2")), pairs=["T1", "T2"])
add("CastLike", i=lambda t: [cast_values(t), S(1)], pairs=["T1", "T2"])
BIG = lambda t: is_float(element(t["T2"])) and element(t["T1"]) in ("float", "double", "float16", "bfloat16")
for saturate in (0, 1):
    add(
        "Cast",
        i=[S(values=[1e4, -1e4, 300.0, 250.0, np.inf, -np.inf, np.nan, 7.0, 20.0])],
        a=of(to=code("T2"), saturate=saturate),
        pairs=["T1", "T2"],
        when=lambda t: BIG(t) and element(t["T2"]) != "float8e8m0" and not (element(t["T2"])[:6] in ("float4", "float6")),
    )
add("BitCast", i=[S(2, 8)], a=of(to=code("T2")), pairs=["T1", "T2"], when=lambda t: bits(t["T1"]) == bits(t["T2"]))


def bits(kind):
    t = element(kind)
    return {"float": 32, "double": 64, "bool": 8, "bfloat16": 16, "float4e2m1": 4}.get(t) or (
        8 if t[:6] in ("float8", "float6") else int("".join(filter(str.isdigit, t)))
    )


# --- quantisation: scales are powers of two, so that no rounding is in doubt
def zero(p, value=1):
    return lambda t: S(values=0 if is_float(element(t[p])) or element(t[p]) == "int32" else value)


def quantize(axis):
    def inputs(t):
        whole = element(t["T1"]) == "int32" or element(t["T2"]) == "int32"
        scale = np.array([2, 4, 1]) if whole else np.array([0.25, 0.5, 2.0])
        x = S(3, 6, lo=-9, hi=9, step=1 if whole else 0.125)
        z = zero("T3")(t)
        if axis is None:
            return [x, scale[0], z]
        return [x, scale, S(values=np.repeat(z.values, 3))]

    return inputs


for axis in (None, 0):
    # An integer of one and a float of the other would need the attribute `precision`.
    add(
        "QuantizeLinear",
        i=quantize(axis),
        a=lambda t, axis=axis: (
            ({} if axis is None else {"axis": axis}) | ({"precision": 1} if element(t["T2"]) in ("float8e8m0", "int32") else {})
        ),
        pairs=["T1", "T2", "T3"],
    )
    add(
        "DequantizeLinear",
        i=lambda t, axis=axis: (
            [S(3, 6, lo=-100, hi=100)]
            + (
                [0.5, zero("T1")(t)]
                if axis is None
                else [np.array([0.25, 0.5, 2.0]), S(values=np.repeat(zero("T1")(t).values, 3))]
            )
        ),
        a=lambda t, axis=axis: ({} if axis is None else {"axis": axis}) | {"output_dtype": CODES[element(t["T3"])]},
        pairs=["T1", "T2", "T3"],
    )
add(
    "DequantizeLinear",
    i=[S(2, 6, lo=-100, hi=100), np.array([[0.25, 0.5], [2, 1]])],
    a={"axis": 1, "block_size": 3},
    pairs=["T1", "T2"],
    tie={"T3": lambda t: "tensor(float)" if "e8m0" in t["T2"] else t["T2"]},
    when=lambda t: "e8m0" not in t["T2"],
)
add(
    "QuantizeLinear",
    i=lambda t: [
        S(2, 6, lo=-9, hi=9, step=0.5),
        np.array([[0.25, 0.5], [2, 1]]),
        S(values=np.full((2, 2), zero("T3")(t).values)),
    ],
    a={"axis": 1, "block_size": 3},
    pairs=["T1", "T3"],
    tie={"T2": lambda t: t["T1"]},
    when=lambda t: element(t["T1"]) != "int32",
)
add("DynamicQuantizeLinear", i=[S(3, 4)], n=3)
Z = lambda *p: lambda t: [S(values=0 if is_float(element(t[q])) else 2) for q in p]
add(
    "QLinearMatMul",
    i=lambda t: [S(2, 4, lo=-3, hi=3), 0.5, Z("T1")(t)[0], S(4, 3, lo=-3, hi=3), 0.25, Z("T2")(t)[0], 2.0, Z("T3")(t)[0]],
    pairs=["T1", "T2", "T3"],
    t={"TS": "tensor(float)"},
)
add(
    "QLinearMatMul",
    i=lambda t: [S(2, 4, lo=-3, hi=3), 0.5, Z("T1")(t)[0], S(4, 3, lo=-3, hi=3), 0.25, Z("T2")(t)[0], 2.0, Z("T3")(t)[0]],
    t={"T1": "tensor(int8)", "T2": "tensor(int8)", "T3": "tensor(int8)"},
)
add(
    "QLinearConv",
    i=[S(1, 2, 4, 4), 0.5, S(values=1), S(2, 2, 2, 2), 0.25, S(values=1), 16.0, S(values=1), S(2, lo=-9, hi=9)],
    pairs=["T1", "T2", "T3"],
)
add("ConvInteger", i=[S(1, 2, 4, 4), S(2, 2, 2, 2), S(values=1), S(values=2)], pairs=["T1", "T2"])
add("MatMulInteger", i=[S(2, 5), S(5, 3), S(values=1), S(values=2)], pairs=["T1", "T2"])

# --- moving data
DATA = S(2, 3, 4)
ints = lambda *v: np.array(v, np.int64)
add("CenterCropPad", i=[S(3, 5), ints(5, 4)])
add("Compress", i=[DATA, np.array([True, False, True])], a={"axis": 1})
add("Compress", i=[DATA, np.array([True, False, True, True])])
add("Concat", i=[S(2, 3), S(1, 3), S(2, 3)], a={"axis": 0})
add("Concat", i=[S(2, 3), S(2, 1)], a={"axis": -1})
add(
    "Constant",
    i=[],
    a=lambda t: {"value": GRAPHS["constant"](t["T"])},
    e=lambda t, x, a: onnx.numpy_helper.to_array(a["value"]),
)
add(
    "ConstantOfShape",
    i=[ints(2, 3)],
    a=lambda t: {"value": GRAPHS["constant"](t["T2"], 1)},
    e=lambda t, x, a: np.broadcast_to(onnx.numpy_helper.to_array(a["value"]), (2, 3)),
)
add("DepthToSpace", i=[S(1, 8, 2, 3)], a={"blocksize": 2})
add("SpaceToDepth", i=[S(1, 2, 4, 6)], a={"blocksize": 2})
add("Expand", i=[S(3, 1), ints(2, 3, 4)])
add("EyeLike", i=[S(3, 4)], a=of(dtype=code("T2"), k=1))
add("Gather", i=[DATA, ints(2, -1, 0)], a={"axis": 1})
add("Gather", i=[S(5, 2), ints(4, 0, -2)])
add("GatherElements", i=[S(3, 3), np.array([[1, 2, 0], [-1, 0, 0]])])
add("GatherND", i=[DATA, np.array([[0, 1], [1, -1]])])
add("OneHot", i=[S(values=[0, 2, 1, 5]), S(values=[4]), S(2, lo=1, hi=3)])
add("Pad", i=[S(3, 4), ints(1, 0, 2, 1), S(lo=1, hi=2)])
add("Pad", i=[S(3, 4), ints(1, 0, 2, 1)], a={"mode": "edge"})
add("Pad", i=[S(3, 4), ints(1, 1), None, ints(1)], a={"mode": "reflect"})
add("Pad", i=[S(3, 4), ints(1, 0, 2, 1)], a={"mode": "wrap"})
add("Reshape", i=[DATA, ints(3, -1)])
add("ReverseSequence", i=[S(4, 3), ints(2, 4, 1)], a={"time_axis": 0, "batch_axis": 1})
add("ScatterElements", i=[S(4, 3), np.array([[1, 0, 2], [3, 2, 0]]), S(2, 3)])
add("ScatterND", i=[S(4, 3), np.array([[1], [3]]), S(2, 3)])
for red in ("add", "mul", "min", "max"):
    add("ScatterElements", i=[S(4, 3), np.array([[1, 0, 2], [1, 2, 0]]), S(2, 3)], a={"reduction": red}, when=numeric("T"))
    add("ScatterND", i=[S(4, 3), np.array([[1], [1]]), S(2, 3)], a={"reduction": red}, when=numeric("T"))
add("Slice", i=[DATA, ints(0, -1), ints(3, -100), ints(1, 2), ints(2, -1)])
add("Split", i=[S(2, 6), ints(2, 4)], a={"axis": 1}, n=2)
add("Split", i=[S(5, 2)], a={"num_outputs": 2}, n=2)
add("Squeeze", i=[S(1, 3, 1, 2), ints(0, -2)])
add("Unsqueeze", i=[S(3, 2), ints(0, -1)])
add("TensorScatter", i=[S(2, 4, 3), S(2, 2, 3), ints(1, 2)], a={"axis": 1})
add("Tile", i=[S(2, 3), ints(2, 2)])
add("Transpose", i=[DATA], a={"perm": [2, 0, 1]})
add("TopK", i=[S(3, 6, distinct=True), ints(3)], n=2)
add("TopK", i=[S(3, 6, distinct=True), ints(2)], a={"largest": 0, "axis": 0}, n=2)
add("Unique", i=[S(3, 4, lo=-2, hi=2, step=1)], n=4)
add("Unique", i=[S(values=[[1, 0], [0, 1], [1, 0]])], a={"axis": 0}, n=4)
add("Unique", i=[S(values=[2, 1, 2, 0, 1])], a={"sorted": 0}, n=4)
add("NonZero", i=[S(3, 4, lo=-1, hi=1, step=1)])
add("Col2Im", i=[S(1, 4, 4), ints(4, 4), ints(2, 2)], a={"strides": [2, 2]})
add("Col2Im", i=[S(1, 4, 9, lo=-3, hi=3), ints(4, 4), ints(2, 2)], when=numeric("T"))
add("Resize", i=lambda t: [S(1, 1, 3, 4), None, np.array([1.0, 1.0, 2.0, 1.5])], a={"mode": "nearest"}, e=by_index("Resize"))
add(
    "Resize",
    i=lambda t: [S(1, 1, 4, 4), np.array([0, 0, 0.25, 0.0, 1, 1, 0.75, 1.0]), None, ints(1, 1, 5, 3)],
    a={"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
    when=floating("T1"),
)
for mode in ("linear", "cubic"):
    add("Resize", i=[S(1, 1, 4, 4), None, np.array([1.0, 1.0, 2.0, 0.5])], a={"mode": mode}, when=floating("T1"))
add("ArgMax ArgMin", i=[S(3, 5)], a={"axis": 1})
add("ArgMax ArgMin", i=[S(3, 5, lo=0, hi=2, step=1)], a={"axis": 0, "keepdims": 0, "select_last_index": 1})

# --- nothing at all, and one number without an axis
for x in (S(0, 5), S()):
    add(
        "Abs Neg Sign BitwiseNot Not Relu Identity Shape Size Ceil Floor Round Atan Cos Elu Erf Exp Gelu HardSwish LeakyRelu Sigmoid "
        "Softplus Tanh IsNaN IsInf Sum Max Clip Dropout",
        i=[x],
    )
    # The reference has no single number for float8e8m0; an empty word is no number.
    add("Cast", i=[S(*x.shape, lo=0, hi=3, step=0.5)], a=of(to=code("T2")), when=lambda t: "string" not in t["T1"] and "e8m0" not in t["T2"])
    add("Add Sub Mul Min BitwiseAnd BitwiseOr BitwiseXor And Or Xor Equal Greater Less", i=[x, S(1)])
    add("Where", i=[S(1, lo=0, hi=1), x, S(5)])
    add("Expand", i=[x, ints(2, 1, 1)])
    add("Reshape", i=[x, ints(-1) if x.shape == () else ints(5, 0)], a={"allowzero": 1})
    add("Unsqueeze", i=[x, ints(0)])
NONE = S(2, 0, 3)
add("NonZero", i=[S(0, 5)])
add("Transpose Softmax ReduceSum Flatten", i=[NONE])
add("Concat", i=[NONE, S(2, 2, 3)], a={"axis": 1})
add("Gather", i=[S(2, 3), np.zeros((0, 2), np.int64)])
add("GatherElements", i=[S(2, 3), np.zeros((0, 3), np.int64)])
add("Slice", i=[S(4, 3), ints(2), ints(2), ints(0)])
add("Pad", i=[NONE, ints(0, 1, 0, 0, 1, 0), S(lo=1, hi=2)])
add("Tile", i=[NONE, ints(2, 1, 2)])
add("Compress", i=[S(3, 2), np.array([False, False])], a={"axis": 0})
add("Split", i=[NONE, ints(0, 2)], a={"axis": 0}, n=2)
add("Trilu", i=[S(0, 4, 2)])
add("DepthToSpace", i=[S(0, 4, 2, 2)], a={"blocksize": 2})
add("MatMul", i=[S(2, 0), S(0, 3)])
add("Unique", i=[S(0)], n=4)
add("ScatterElements", i=[S(2, 3), np.zeros((0, 3), np.int64), S(0, 3)])
add("ScatterND", i=[S(2, 3), np.zeros((0, 1), np.int64), S(0, 3)])
add("TopK", i=[S(2, 0), ints(0)], n=2)

# --- reductions
add("ReduceMax ReduceMin ReduceSum", i=[DATA, ints(1)])
add("ReduceL1 ReduceL2 ReduceMean ReduceSumSquare", i=[S(2, 3, 4, lo=-9, hi=9), ints(1)])
add("ReduceProd", i=[S(2, 3, 4, lo=-9, hi=9), ints(2)], a={"keepdims": 0})
add("ReduceLogSum", i=[S(2, 3, 4, lo=0.25, hi=4), ints(0, 2)])
add("ReduceLogSumExp", i=[S(2, 3, 4), ints(-1)], a={"keepdims": 0})
add("ReduceMax ReduceMin ReduceSum ReduceL1 ReduceMean", i=[S(2, 3, lo=-9, hi=9)])

# --- products, convolutions, pools
add("MatMul", i=[S(2, 3, 4), S(4, 5)])
add("MatMul", i=[S(4), S(4, 3)])
add("Gemm", i=[S(4, 3), S(4, 2), S(2)], a={"transA": 1})
add("Gemm", i=[S(3, 4, lo=-9, hi=9), S(2, 4, lo=-9, hi=9), S(3, 1, lo=-9, hi=9)], a={"transB": 1, "alpha": 2.0, "beta": 3.0})
add("Einsum", i=[S(2, 3), S(3, 4)], a={"equation": "ij,jk->ik"})
add("Einsum", i=[S(3, 3)], a={"equation": "ii->i"})
add("Conv", i=[S(1, 2, 5, 5), S(3, 2, 3, 3), S(3)], a={"pads": [1, 0, 0, 1]})
add("ConvTranspose", i=[S(1, 2, 3, 3), S(2, 2, 3, 3), S(2)], a={"strides": [2, 1]})
add(
    "DeformConv",
    i=[S(1, 1, 4, 4), S(1, 1, 2, 2), S(1, 8, 3, 3, lo=-1, hi=1, step=0.25), S(1), S(1, 4, 3, 3)],
    a={"kernel_shape": [2, 2]},
)
add("AveragePool LpPool MaxPool", i=[S(1, 2, 5, 5)], a={"kernel_shape": [3, 2], "strides": [2, 1]})
add("MaxPool", i=[S(1, 2, 5, 5)], a={"kernel_shape": [2, 2], "pads": [0, 1, 1, 0]}, n=2)
add("MaxRoiPool", i=[S(1, 2, 6, 6), np.array([[0, 0, 0, 3, 3], [0, 1, 2, 5, 5]])], a={"pooled_shape": [2, 2]})
add("MaxUnpool", i=[S(1, 1, 2, 2), np.array([[[[1, 3], [8, 14]]]])], a={"kernel_shape": [2, 2], "strides": [2, 2]})
add(
    "RoiAlign",
    i=[S(1, 2, 6, 6), np.array([[0, 0, 3, 3], [1, 2, 5, 5]]), ints(0, 0)],
    a={"output_height": 2, "output_width": 2, "sampling_ratio": 2},
)
add("GridSample", i=[S(1, 1, 3, 4), S(1, 2, 3, 2, lo=-1, hi=1, step=0.25)], a={"mode": "nearest", "align_corners": 1})
add("GridSample", i=[S(1, 1, 3, 4), S(1, 2, 3, 2, lo=-1, hi=1, step=0.25)], a={"mode": "linear"}, when=floating("T1"))
add("AffineGrid", i=[S(1, 2, 3), ints(1, 1, 3, 4)])

# --- normalisation, recurrence, attention
C = [S(2, 4, 3), S(4), S(4)]
stash = lambda p: lambda t: {"stash_type": 11 if element(t[p]) == "double" else 1}
add("InstanceNormalization", i=C)
add("BatchNormalization", i=C + [S(4), S(4, lo=0.5, hi=2)])
add(
    "BatchNormalization",
    i=C + [S(4), S(4, lo=0.5, hi=2)],
    a={"training_mode": 1},
    n=3,
    tie={"T2": lambda t: t["T"], "T1": lambda t: t["T"]},
)
add("GroupNormalization", i=C, a=lambda t: {"num_groups": 2} | stash("T")(t))
# Mean and deviation are outputs of the type that the stash names.
add(
    "LayerNormalization",
    i=[S(2, 6), S(6), S(6)],
    a=lambda t: {"stash_type": CODES[element(t["U"])]},
    n=3,
    tie={"U": lambda t: "tensor(float)"},
    fixed=["U"],
    when=lambda t: t["T"] != "tensor(double)",
)
add("LayerNormalization", i=[S(2, 6), S(6), S(6)], a=stash("T"), fixed=["U"])
# The type inference of onnx calls T and V inconsistent where they differ; the schema does not.
add("RMSNormalization", i=[S(2, 6), S(6)], a=stash("T"), pairs=["T", "V"], loose=True)
for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4)):
    add(
        name,
        i=[
            S(3, 2, 2, lo=-1, hi=1),
            S(1, 3 * gates, 2, lo=-1, hi=1),
            S(1, 3 * gates, 3, lo=-1, hi=1),
            S(1, 6 * gates, lo=-1, hi=1),
        ],
        a={"hidden_size": 3},
        n=2,
    )
    add(
        name,
        i=[
            S(3, 2, 2, lo=-1, hi=1),
            S(1, 3 * gates, 2, lo=-1, hi=1),
            S(1, 3 * gates, 3, lo=-1, hi=1),
            None,
            None,
            S(1, 2, 3, lo=-1, hi=1),
        ],
        a={"hidden_size": 3},
        n=2,
        skip=(0,),
    )
add("Attention", i=[S(1, 2, 3, 4), S(1, 2, 5, 4), S(1, 2, 5, 4)])
add("Attention", i=[S(1, 2, 3, 4), S(1, 2, 5, 4), S(1, 2, 5, 4), S(3, 5, lo=-2, hi=2)])
add("FlexAttention", i=[S(1, 2, 3, 4), S(1, 2, 5, 4), S(1, 2, 5, 4)])
add(
    "LinearAttention",
    i=[S(1, 3, 8, lo=-1, hi=1), S(1, 3, 8, lo=-1, hi=1), S(1, 3, 8, lo=-1, hi=1), S(1, 2, 4, 4)],
    a={"q_num_heads": 2, "kv_num_heads": 2, "update_rule": "linear"},
    n=2,
)
add("CausalConvWithState", i=[S(1, 3, 5), S(3, 1, 3), S(3), S(1, 3, 2)], n=2)
add("RotaryEmbedding", i=[S(1, 2, 3, 4), S(5, 2, lo=-1, hi=1), S(5, 2, lo=-1, hi=1), np.array([[0, 2, 4]])])
add("NegativeLogLikelihoodLoss", i=[S(3, 4), ints(1, 0, 3), S(4, lo=0.25, hi=1)])
add("SoftmaxCrossEntropyLoss", i=[S(3, 4), ints(1, 0, 3), S(4, lo=0.25, hi=1)], n=2)

# --- signals and random numbers
add("BlackmanWindow HammingWindow HannWindow", i=[np.array(7)], a=of(output_datatype=code("T2")))
add(
    "MelWeightMatrix",
    i=[np.array(4), np.array(16), np.array(8192), np.array(0.0), np.array(4096.0)],
    a=of(output_datatype=code("T3")),
)
add("DFT", i=[S(1, 6, 1), None, ints(1).reshape(())])
add("DFT", i=[S(1, 5, 2), np.array(4), ints(1).reshape(())], a={"inverse": 1})
add("STFT", i=[S(1, 12, 1), np.array(4), S(4, lo=0.25, hi=1), np.array(4)])
add("Range", i=[S(values=1), S(values=9), S(values=2)])
same = lambda shape: lambda t, x, a: np.zeros(shape)
add("Bernoulli", i=[S(2, 5, lo=0.1, hi=0.9)], a=of(dtype=code("T2"), seed=1.0), check="range:0:1", e=same((2, 5)))
add("Multinomial", i=[S(2, 5, lo=-1, hi=1)], a=of(dtype=code("T2"), seed=1.0, sample_size=7), check="range:0:4", e=same((2, 7)))
for kind, more, check in (
    ("Normal", {"mean": 1.0, "scale": 0.5}, "range:-4:6"),
    ("Uniform", {"low": 1.0, "high": 2.0}, "range:1:2"),
):
    add(f"Random{kind}", i=[], a=of(dtype=code("T"), shape=[2, 5], **more), check=check, e=same((2, 5)))
    add(f"Random{kind}Like", i=[S(2, 5)], a=of(dtype=code("T2"), **more), check=check, e=same((2, 5)))
