"""How a case of an operator of com.microsoft is made, and how all are written into the cache."""

import os
import pathlib
import tempfile

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"
cases = []


def random(name):
    """Numbers that depend on the name alone, so that a case added elsewhere changes no other."""
    return np.random.default_rng(sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**63)


def i32(*x):
    return np.array(x, np.int32)


def i64(*x):
    return np.array(x, np.int64)


def model_of(name, op, domain, values, names, outs, constants, attrs, hidden=()):
    info = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in values.items()
        if n not in constants
    ]
    weights = [numpy_helper.from_array(np.array(values[n], order="C"), n) for n in values if n in constants]
    node = helper.make_node(op, names, outs, name="n", domain=domain, **attrs)
    results = [helper.make_empty_tensor_value_info(n) for n in outs if n and n not in hidden]
    for r in results:
        # Of the scores onnxruntime must be told the type.
        if op in ("MultiHeadAttention", "DecoderMaskedMultiHeadAttention", "GroupQueryAttention") and r.name == "y3":
            r.CopyFrom(helper.make_tensor_value_info("y3", TensorProto.FLOAT, None))
    graph = helper.make_graph([node], name, info, results, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def answers_of(model, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def case(name, op, inputs, outputs=1, attrs=None, *, constants=(), domain=MS, rtol=2e-5, atol=2e-5, dtype=np.float32, ask=None, want=None, agree=None, hidden=(), **more):
    """A model of one node, with onnxruntime's answers.

    inputs: shapes (of random numbers of `dtype` within -1 and 1), arrays, or None; those whose index is in `constants` are
    initialisers. outputs: how many, or a list of which. ask: turns the arrays into those of a node that onnxruntime can answer
    where it cannot answer this one: a list for the same operator, or (operator, list, attributes). want: the answers computed
    from the arrays, where onnxruntime has no kernel for CPUs at all, or rounds more than we do; `agree` then says how far its
    answers may differ from these, as a share of the largest (none: it is not asked). hidden: names of outputs (y0...) that the
    node makes and the model does not give. Other keywords are attributes, as `attrs` is. Answers of 8 and 16 bit integers are
    cast to float, so that a tolerance of 1 can be given.
    """
    attrs, rng, values, names = {**(attrs or {}), **more}, random(name), {}, []
    for i, x in enumerate(inputs):
        if isinstance(x, tuple):
            x = rng.uniform(-1, 1, x).astype(dtype)
        names.append("" if x is None else f"x{i}")
        if x is not None:
            values[f"x{i}"] = x
    while names and not names[-1]:
        names.pop()
    wanted = outputs if isinstance(outputs, list) else [True] * outputs
    outs = [f"y{i}" if on else "" for i, on in enumerate(wanted)]
    fixed = {f"x{i}" for i in constants}
    model = model_of(name, op, domain, values, names, outs, fixed, attrs, hidden)
    feeds = {n: v for n, v in values.items() if n not in fixed}
    try:
        if want:
            answers = want(*values.values())
            for ours, theirs in zip(answers, answers_of(model, feeds) if agree is not None else []):
                far = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max(initial=0)
                far /= max(1.0, np.abs(ours).max(initial=0))
                assert far <= agree, f"onnxruntime is {far} away from the twin, of its largest value"
        elif ask:
            asked = ask(*values.values())
            other, arrays, others = asked if isinstance(asked, tuple) else (op, asked, attrs)
            form = {f"x{i}": np.array(v, order="C") for i, v in enumerate(arrays) if v is not None}
            given = [f"x{i}" if v is not None else "" for i, v in enumerate(arrays)]
            answers = answers_of(model_of(name, other, domain, form, given, outs, set(), others), form)
        else:
            answers = answers_of(model, feeds)
    except Exception as e:
        raise RuntimeError(f"{name}: no answer: {str(e)[:600]}") from e
    kept = [n for n in outs if n and n not in hidden]
    assert len(answers) == len(kept), f"{name}: {len(answers)} answers"
    for i, (n, v) in enumerate(zip(kept, answers)):
        if v.dtype in (np.uint8, np.int8, np.uint16, np.int16):
            model.graph.node[0].output[outs.index(n)] = f"{n}_int"
            model.graph.node.append(helper.make_node("Cast", [f"{n}_int"], [n], to=TensorProto.FLOAT))
            answers[i] = v = v.astype(np.float32)
        kind = helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        next(o for o in model.graph.output if o.name == n).CopyFrom(kind)
    cases.append((name, rtol, atol, model, list(feeds.values()), answers))


def saved(name, model, feeds, rtol=2e-5, atol=2e-5, change=None):
    """A model of the default domain as onnxruntime saves it optimised for this machine, with its answers. change: edits that model."""
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = f"{folder}/saved.onnx"
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answers = session.run(None, feeds)
        kept = onnx.load(options.optimized_model_filepath)
    cases.append((name, rtol, atol, change(kept) if change else kept, list(feeds.values()), answers))


def write(root: pathlib.Path):
    for name, _, _, model, inputs, outputs in cases:
        folder = root / name / "test_data_set_0"
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, root / name / "model.onnx")
        for side, values in [("input", inputs), ("output", outputs)]:
            for i, v in enumerate(values):
                (folder / f"{side}_{i}.pb").write_bytes(numpy_helper.from_array(np.asarray(v)).SerializeToString())
    rows = [f"{name}\t{rtol}\t{atol}\t1" for name, rtol, atol, *_ in cases]
    (root / "index.tsv").write_text("# name\trtol\tatol\tdata sets\n" + "\n".join(rows) + "\n")
    print(f"{len(cases)} cases of operators of {MS} in {root}")
