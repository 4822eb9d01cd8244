"""Control flow, sequences and optionals, in each version."""

import numpy as np
import onnx.parser
import onnx.printer
from onnx import TensorProto, helper

from .lines import Const, Typed, asked, case


def f(*values):
    return np.array(values, np.float32)


def graph(text):
    return onnx.parser.parse_graph(text)


SHARED = (11, 13, 16, 19, 21, 23, 24, 25)


def branches():
    for version in (1, *SHARED):
        for cond in (True, False):
            one = graph("yes () => (float[2] a, int64 b) { a = Constant <value = float[2] {1, 2}> () b = Constant <value = int64 {7}> () }")
            two = graph("no () => (float[2] a, int64 b) { a = Constant <value = float[2] {-1, 0.5}> () b = Constant <value = int64 {-7}> () }")
            asked(f"{cond}".lower(), "If", version, [np.bool_(cond)], 2, then_branch=one, else_branch=two)
        # Branches of different shapes.
        longer = graph("no () => (float[3] a) { a = Constant <value = float[3] {-1, 0.5, 3}> () }")
        short = graph("yes () => (float[1] a) { a = Constant <value = float[1] {4}> () }")
        asked("other-shape", "If", version, [np.bool_([version % 2])], 1, then_branch=short, else_branch=longer)
    seq = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    pair = graph("yes () => (seq(float[2]) s) { a = Constant <value = float[2] {1, 2}> () s = SequenceConstruct(a, a) }")
    none = graph("no () => (seq(float[2]) s) { s = SequenceEmpty() }")
    for version in SHARED[1:]:
        case("sequence", "If", version, [np.bool_(True)], [Typed(seq, [f(1, 2), f(1, 2)])], then_branch=pair, else_branch=none)
        case("empty-sequence", "If", version, [np.bool_(False)], [Typed(seq, [])], then_branch=pair, else_branch=none)


def loops():
    body = graph("body (int64 i, bool c, float[2] s) => (bool c1, float[2] s1, float[2] y, int64 z) { c1 = Identity(c) s1 = Add(s, s) y = Neg(s) z = Identity(i) }")
    brief = graph("body (int64 i, bool c, float[2] s) => (bool c1, float[2] s1) { c1 = Not(c) s1 = Add(s, s) }")
    # What a body of opset 1 may have that onnxruntime has too.
    old = [onnx.parser.parse_graph(onnx.printer.to_text(g).replace("Add (s, s)", "Softsign (s)").replace("Neg (s)", "Softplus (s)")) for g in (body, brief)]
    new = [body, brief]
    for version in (1, *SHARED):
        body, brief = old if version == 1 else new
        s = f(1, 2)
        three, yes = np.int64(3), np.bool_(True)
        asked("counted", "Loop", version, [three, yes, s], 3, body=body)
        asked("no-condition", "Loop", version, [three, None, s], 3, body=body)
        asked("while", "Loop", version, [None, yes, s], body=brief)
        asked("for-ever-stopped", "Loop", version, [np.int64(9), yes, s], body=brief)
        asked("not-once", "Loop", version, [three, np.bool_(False), s], 3, body=body)
        asked("none", "Loop", version, [np.int64(0), None, s], 3, body=body)
        asked("sizes-of-one", "Loop", version, [np.array([2]), np.array([True]), s], [True, True, False], body=body)
    grow = graph("body (int64 i, bool c, float[n] s) => (bool c1, float[m] s1) { c1 = Identity(c) s1 = Concat <axis = 0> (s, s) }")
    for version in SHARED:
        asked("growing", "Loop", version, [np.int64(2), np.bool_(True), f(1, 2)], body=grow)


def scans():
    body = graph("body (float[2] s, float[2] x) => (float[2] s1, float[2] y) { s1 = Add(s, x) y = Identity(s1) }")
    two = graph("body (float[2] s, float[2] x, float[2] w) => (float[2] s1, float[2] y, float[2] z) { t = Mul(x, w) s1 = Add(s, t) y = Sub(s1, w) z = Neg(x) }")
    state, x = f([0, 1], [2, 3]), np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    asked("batch", "Scan", 8, [None, state, x], 2, body=body, num_scan_inputs=1)
    asked("backward", "Scan", 8, [None, state, x], 2, body=body, num_scan_inputs=1, directions=[1])
    asked("lengths", "Scan", 8, [np.array([2, 3]), state, x], 2, body=body, num_scan_inputs=1)
    asked("two-inputs", "Scan", 8, [None, state, x, x + 5], 3, body=two, num_scan_inputs=2, directions=[0, 1])
    for version in (9, *(v for v in SHARED if v != 13)):
        s, v = state[0], x[0]
        asked("plain", "Scan", version, [s, v], 2, body=body, num_scan_inputs=1)
        asked("axes", "Scan", version, [s, v.T.copy()], 2, body=body, num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1])
        asked("backward", "Scan", version, [s, v], 2, body=body, num_scan_inputs=1, scan_input_directions=[1], scan_output_directions=[1])
        asked("two-inputs", "Scan", version, [s, v, v + 5], 3, body=two, num_scan_inputs=2, scan_input_directions=[0, 1], scan_output_directions=[1, 0])
        if version > 9:
            asked("negative-axes", "Scan", version, [s, v.T.copy()], 2, body=body, num_scan_inputs=1, scan_input_axes=[-1], scan_output_axes=[-1])
    none = graph("body (float[2] x) => (float[2] y) { y = Neg(x) }")
    asked("no-state", "Scan", 8, [None, x], body=none, num_scan_inputs=1)
    asked("no-state", "Scan", 11, [x[0]], body=none, num_scan_inputs=1)
    for version in (17,):
        seq = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        each = graph("body (float[n] x) => (float[n] y) { y = Neg(x) }")
        case("lengths", "SequenceMap", version, [Typed(seq, [f(1), f(2, 3)])], [Typed(seq, [f(-1), f(-2, -3)])], body=each)
        case("nothing", "SequenceMap", version, [Typed(seq, [])], [Typed(seq, [])], body=each)


def sequences():
    floats = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    seq = lambda *v, t=floats: Typed(helper.make_sequence_type_proto(t), list(v))
    opt = lambda t, v: Typed(helper.make_optional_type_proto(t), v)
    a, b, c = f([1, 2]), f([3, 4]), f([5, 6])
    i = np.int64
    case("floats", "SequenceEmpty", 11, [], [seq()])
    case("int64", "SequenceEmpty", 11, [], [seq(t=helper.make_tensor_type_proto(TensorProto.INT64, None))], dtype=7)
    case("two", "SequenceConstruct", 11, [a, b], [seq(a, b)])
    case("ragged", "SequenceConstruct", 11, [a, f(1)], [seq(a, f(1))])
    case("first", "SequenceAt", 11, [seq(a, b), i(0)], [a])
    case("negative", "SequenceAt", 11, [seq(a, b), np.int32(-1)], [b])
    case("last", "SequenceErase", 11, [seq(a, b)], [seq(a)])
    case("negative", "SequenceErase", 11, [seq(a, b, c), i(-3)], [seq(b, c)])
    case("end", "SequenceInsert", 11, [seq(a), b], [seq(a, b)])
    case("front", "SequenceInsert", 11, [seq(a, b), c, i(0)], [seq(c, a, b)])
    case("negative", "SequenceInsert", 11, [seq(a, b), c, i(-1)], [seq(a, c, b)])
    case("two", "SequenceLength", 11, [seq(a, b)], [i(2)])
    case("none", "SequenceLength", 11, [seq()], [i(0)])
    case("axis", "ConcatFromSequence", 11, [seq(a, b)], [f([1, 2, 3, 4])], axis=-1)
    case("new-axis", "ConcatFromSequence", 11, [seq(a, b)], [np.stack([a, b], 2)], axis=2, new_axis=1)
    x = np.arange(10, dtype=np.float32).reshape(5, 2)
    for version in (11, 24):
        case("ones", "SplitToSequence", version, [x[:2]], [seq(x[:1], x[1:2])])
        case("squeezed", "SplitToSequence", version, [x[:2]], [seq(x[0], x[1])], keepdims=0)
        case("chunks", "SplitToSequence", version, [x, Const(i(2))], [seq(x[:2], x[2:4], x[4:])])
        case("sizes", "SplitToSequence", version, [x, Const(i([4, 1]))], [seq(x[:4], x[4:])], axis=0)
        case("keepdims-unused", "SplitToSequence", version, [x, Const(i([1, 1]))], [seq(x[:, :1], x[:, 1:])], axis=1, keepdims=0)
    many = helper.make_sequence_type_proto(floats)
    for version in (15, 28):
        case("none", "Optional", version, [], [opt(floats, None)], type=floats)
        case("tensor", "Optional", version, [a], [opt(floats, a)])
        case("sequence", "Optional", version, [seq(a, b)], [opt(many, [a, b])])
    for version in (15, 18, 28):
        case("some", "OptionalHasElement", version, [opt(floats, a)], [np.bool_(True)])
        case("none", "OptionalHasElement", version, [opt(floats, None)], [np.bool_(False)])
        case("some", "OptionalGetElement", version, [opt(floats, a)], [a])
        case("sequence", "OptionalGetElement", version, [opt(many, [a, b])], [seq(a, b)])
    for version in (18, 28):
        case("tensor", "OptionalHasElement", version, [a], [np.bool_(True)])
        case("nothing", "OptionalHasElement", version, [], [np.bool_(False)])
        case("tensor", "OptionalGetElement", version, [a], [a])


def make():
    for group in (branches, loops, scans, sequences):
        group()
