"""The values of scripts/dump_types.py: random tensors of every element type, and their messages."""

import math
import re

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Codes of element types by the names that schemas use.
CODES = {n.lower(): v for n, v in TensorProto.DataType.items() if n != "UNDEFINED"}
DTYPES = {n: helper.tensor_dtype_to_np_dtype(v) for n, v in CODES.items()}
FLOATS = {"float", "double", "float16", "bfloat16"}
NARROW = {n for n in CODES if re.match("float[468]", n)}
PACKED_INTS = {"int4", "uint4", "int2", "uint2"}


def limits(t):
    """The least and the largest value of an integer type."""
    bits, signed = int(re.search(r"\d+", t).group()), not t.startswith("u")
    return (-(2 ** (bits - 1)) if signed else 0), 2 ** (bits - signed) - 1


def element(kind):
    """The element type in a type such as seq(tensor(float))."""
    found = re.search(r"tensor\((\w+)\)", kind)
    return found.group(1) if found else None


def type_proto(kind, value=None):
    """The message of a type; with the sizes of `value` where it is an input, which the checker asks for."""
    if kind.startswith("tensor("):
        return helper.make_tensor_type_proto(CODES[element(kind)], None if value is None else np.shape(value))
    if kind.startswith("seq("):
        # Elements of one rank, whatever their sizes.
        sizes = None if value is None else np.empty([0] * np.ndim(value[0]))
        proto = helper.make_sequence_type_proto(type_proto(kind[4:-1], sizes))
        if sizes is not None:
            for d in proto.sequence_type.elem_type.tensor_type.shape.dim:
                d.ClearField("dim_value")
        return proto
    if kind.startswith("optional("):
        return helper.make_optional_type_proto(type_proto(kind[9:-1], value))
    k, v = re.fullmatch(r"map\((\w+), ?(\w+)\)", kind).groups()
    return helper.make_map_type_proto(CODES[k], helper.make_tensor_type_proto(CODES[v], []))


def loose(name, kind, value):
    """What a graph says of an output: its type and rank, but no sizes."""
    info = helper.make_value_info(name, type_proto(kind, None if kind.startswith("seq(") and not value else value))
    if kind.startswith("tensor("):
        for d in info.type.tensor_type.shape.dim:
            d.ClearField("dim_value")
    if kind.startswith("optional(") and info.type.optional_type.elem_type.HasField("tensor_type"):
        for d in info.type.optional_type.elem_type.tensor_type.shape.dim:
            d.ClearField("dim_value")
    return info


def is_float(t):
    return t in FLOATS or t in NARROW


class Spec:
    """A random tensor: its shape, the bounds of its numbers (or a wide range), and what must hold of them."""

    def __init__(self, *shape, lo=None, hi=None, values=None, nonzero=False, distinct=False, step=None, ends=False):
        self.ends = ends
        self.shape, self.lo, self.hi, self.values = shape, lo, hi, values
        self.nonzero, self.distinct, self.step = nonzero, distinct, step

    def make(self, t, rng):
        """An array of element type `t`, in its own numpy type."""
        dtype, shape = DTYPES[t], self.shape
        if self.ends:
            # The ends of an integer's range, and about zero.
            low, high = limits(t)
            few = [low, low + 1, -1 if low else 3, 1 if self.nonzero else 0, 1, 2, high - 1, high]
            few = [v or 1 for v in few] if self.nonzero else few
            return np.resize(np.array([v % (high - low + 1) for v in few], np.uint64).astype(dtype), shape)
        if self.values is not None:
            values = np.asarray(self.values)
            if t == "string":
                return np.array([f"s{v}" for v in values.reshape(-1)], object).reshape(values.shape)
            if values.dtype == object or t in ("complex64", "complex128", "bool"):
                return values.astype(dtype)
            if not is_float(t):
                low = limits(t)[0]
                values = np.where(np.asarray(values, np.float64) < low, np.abs(values), values)
            return values.astype(np.float64 if is_float(t) else np.int64).astype(dtype)
        n = math.prod(shape)
        if t == "string":
            words = np.array(["a", "b", "Ab", "é", "zz", "", "10"], object)
            if self.distinct:
                words = np.array([f"w{i:03}" for i in range(n)], object)
                rng.shuffle(words)
                return words[:n].reshape(shape)
            return words[rng.integers(0, len(words), n)].reshape(shape)
        if t == "bool":
            return rng.integers(0, 2, shape).astype(bool)
        if t in ("complex64", "complex128"):
            return (rng.integers(-8, 9, shape) / 4 + 1j * rng.integers(-8, 9, shape) / 4).astype(dtype)
        if is_float(t):
            lo, hi = (-2.0, 2.0) if self.lo is None else (self.lo, self.hi)
            if t == "float8e8m0":
                return np.exp2(rng.integers(-2, 3, shape)).astype(dtype)
            if self.distinct:
                values = np.linspace(lo, hi, n)
                rng.shuffle(values)
                return values.reshape(shape).astype(dtype)
            values = rng.uniform(lo, hi, shape)
            if self.step:
                values = np.round(values / self.step) * self.step
            if self.nonzero:
                values = np.where(np.abs(values) < 0.25, 0.5, values)
            return values.astype(dtype)
        low, high = limits(t)
        # Whole range of the type but its ends: no detour over a floating-point type keeps that exact.
        lo = low if self.lo is None else max(low, math.ceil(self.lo) if low < 0 else 0)
        hi = high if self.hi is None else min(high, math.floor(self.hi))
        if self.lo is not None and self.hi is not None and low == 0 and self.lo < 0:
            hi = min(high, math.floor(self.hi - self.lo))
        if self.distinct:
            values = rng.choice(
                np.arange(lo, hi + 1) if hi - lo < 1000 else np.arange(500) * 2 + (lo if lo else 7), n, replace=False
            )
        else:
            values = rng.integers(lo, hi, shape, endpoint=True, dtype=np.uint64 if t == "uint64" else np.int64)
        if self.nonzero:
            values = np.where(values == 0, 1, values)
        return values.reshape(shape).astype(dtype)


def make_value(spec, kind, rng):
    """A value of type `kind` from what a recipe gives: an array as it is, a Spec, a list of those for a sequence."""
    if kind.startswith("optional("):
        return make_value(spec, kind[9:-1], rng)
    if kind.startswith("seq("):
        items = spec if isinstance(spec, list) else [spec] * 2
        return [make_value(s, kind[4:-1], rng) for s in items]
    if kind.startswith("map("):
        return spec
    t = element(kind)
    if isinstance(spec, Spec):
        return spec.make(t, rng)
    array = np.asarray(spec)
    return array.astype(object) if t == "string" else array.astype(DTYPES[t])


def widen(value):
    """Floats in float64, integers of 4 and 2 bits in int64; all else as it is."""
    if isinstance(value, list):
        return [widen(v) for v in value]
    if isinstance(value, np.ndarray):
        name = helper.np_dtype_to_tensor_dtype(value.dtype) if value.dtype != object else TensorProto.STRING
        name = TensorProto.DataType.Name(name).lower()
        if is_float(name):
            return value.astype(np.float64)
        if name in PACKED_INTS:
            return value.astype(np.int64)
    return value


def shape_to(value, kind):
    """The expected value in the type that the output has."""
    if value is None or kind.startswith("map(") or "map(" in kind:
        return value
    if kind.startswith("optional("):
        return shape_to(value, kind[9:-1])
    if kind.startswith("seq("):
        return [shape_to(v, kind[4:-1]) for v in value]
    array, t = np.asarray(value), element(kind)
    if t == "string":
        # What numpy fills up with 0 is the empty string.
        words = [v if isinstance(v, str) else "" for v in array.reshape(-1)]
        return np.array(words, object).reshape(array.shape)
    if array.dtype == DTYPES[t]:
        return array
    if is_float(t) and array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        return array.astype(np.float64).astype(DTYPES[t])
    with np.errstate(all="ignore"):
        return array.astype(DTYPES[t])


def serialise(value, kind):
    if kind.startswith("optional("):
        return numpy_helper.from_optional(value, "v", None).SerializeToString() if value is not None else b""
    if kind.startswith("seq(map("):
        seq = onnx.SequenceProto(elem_type=onnx.SequenceProto.MAP)
        seq.map_values.extend(onnx.MapProto.FromString(serialise(v, kind[4:-1])) for v in value)
        return seq.SerializeToString()
    if kind.startswith("seq("):
        return numpy_helper.from_list(value, "v", None if value else onnx.SequenceProto.TENSOR).SerializeToString()
    if kind.startswith("map("):
        k, v = re.fullmatch(r"map\((\w+), ?(\w+)\)", kind).groups()
        proto = onnx.MapProto(key_type=CODES[k])
        (proto.string_keys if k == "string" else proto.keys).extend(
            [x.encode() for x in value] if k == "string" else list(value)
        )
        values = list(value.values())
        array = np.array(values, object) if v == "string" else np.array(values, DTYPES[v])
        proto.values.elem_type = onnx.SequenceProto.TENSOR
        proto.values.tensor_values.extend(numpy_helper.from_array(a) for a in [np.asarray(x, array.dtype) for x in array])
        return proto.SerializeToString()
    return numpy_helper.from_array(np.asarray(value)).SerializeToString()
