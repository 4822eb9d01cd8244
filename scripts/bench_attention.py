#!/usr/bin/env python3
"""Times attention on one thread, in interleaved rounds: onnxruntime's fused operator, ours, and our MatMul-Softmax-MatMul chain.

    ORTX_LIBRARY=.../libortx.so bench_attention.py [WORD]

Prints the least time of each in us, GFLOP/s of ours (two products, counted whole, causal or not), and the ratio to onnxruntime.
"""

import os
import pathlib
import sys
import tempfile
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "bindings" / "python"))
import numpy as np
import onnx
import onnxruntime as ort
import ortx
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"
F, I = TensorProto.FLOAT, TensorProto.INT32
rng = np.random.default_rng(1)


def f(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def model(nodes, inputs, outputs, weights=()):
    kind = lambda n, v: helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
    graph = helper.make_graph(nodes, "g", [kind(n, v) for n, v in inputs.items()], [helper.make_empty_tensor_value_info(o) for o in outputs], list(weights))
    for o in graph.output:
        o.type.tensor_type.elem_type = F
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)], ir_version=8).SerializeToString()


def heads(name, h, rows, keys, d, past=0, batch=1, mask=False, causal=False):
    """MultiHeadAttention, and the chain that exporters write for it."""
    feeds = {"q": f(batch, rows, h * d), "k": f(batch, keys, h * d), "v": f(batch, keys, h * d)}
    ins, outs = ["q", "k", "v", "", "", ""], ["y"]
    if mask:
        feeds["m"] = np.zeros((batch, 1, 1, keys + past), np.float32) - 1
        feeds["m"] = np.broadcast_to(feeds["m"], (batch, 1, rows, keys + past)).copy()
        ins[5] = "m"
    if past:
        feeds.update(pk=f(batch, h, past, d), pv=f(batch, h, past, d))
        ins += ["pk", "pv"]
        outs += ["nk", "nv"]
    fused = model([helper.make_node("MultiHeadAttention", ins, outs, domain=MS, num_heads=h, unidirectional=int(causal))], feeds, outs)
    shape = lambda n, *s: numpy_helper.from_array(np.array(s, np.int64), n)
    nodes = []
    for x, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1] if not past else [0, 2, 1, 3]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [x, "heads"], [x + "4"]))
        nodes.append(helper.make_node("Transpose", [x + "4"], [x + "t"], perm=perm))
    k, v = "kt", "vt"
    if past:
        nodes.append(helper.make_node("Concat", ["pk", "kt"], ["nk"], axis=2))
        nodes.append(helper.make_node("Concat", ["pv", "vt"], ["nv"], axis=2))
        nodes.append(helper.make_node("Transpose", ["nk"], ["kk"], perm=[0, 1, 3, 2]))
        k, v = "kk", "nv"
    nodes.append(helper.make_node("MatMul", ["qt", k], ["s0"]))
    nodes.append(helper.make_node("Mul", ["s0", "scale"], ["s1"]))
    last = "s1"
    weights = [shape("heads", 0, 0, h, -1), shape("flat", 0, 0, -1), numpy_helper.from_array(np.float32(d**-0.5), "scale")]
    if mask:
        nodes.append(helper.make_node("Add", [last, "m"], ["s2"]))
        last = "s2"
    if causal:
        c = np.where(np.tri(rows, keys + past, keys + past - rows) > 0, 0, -1e9).astype(np.float32)
        weights.append(numpy_helper.from_array(c, "c"))
        nodes.append(helper.make_node("Add", [last, "c"], ["s3"]))
        last = "s3"
    nodes.append(helper.make_node("Softmax", [last], ["p"], axis=-1))
    nodes.append(helper.make_node("MatMul", ["p", v], ["o"]))
    nodes.append(helper.make_node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["ot", "flat"], ["y"]))
    return name, fused, model(nodes, feeds, outs, weights), feeds, 4 * batch * h * rows * (keys + past) * d


def grouped(name, h, g, rows, past, d, room=0):
    feeds = {"q": f(1, rows, h * d), "k": f(1, rows, g * d), "v": f(1, rows, g * d)}
    ins, outs = ["q", "k", "v", "", ""], ["y", "nk", "nv"]
    if past:
        feeds.update(pk=f(1, g, past + room, d), pv=f(1, g, past + room, d))
        ins[3:] = ["pk", "pv"]
    feeds["n"] = np.array([past + rows - 1], np.int32)
    total = numpy_helper.from_array(np.array([past + rows], np.int32), "t")
    node = helper.make_node("GroupQueryAttention", ins + ["n", "t"], outs, domain=MS, num_heads=h, kv_num_heads=g)
    return name, model([node], feeds, outs, [total]), None, feeds, 4 * h * rows * (past + rows) * d


def all_cases():
    yield heads("bert 12x128x128x64", 12, 128, 128, 64)
    yield heads("bert 12x128x128x64 mask", 12, 128, 128, 64, mask=True)
    yield heads("bert 12x384x384x64 mask", 12, 384, 384, 64, mask=True)
    yield heads("vit 12x197x197x64", 12, 197, 197, 64)
    yield heads("gpt2 prompt 12x512x512x64 causal", 12, 512, 512, 64, causal=True)
    yield heads("gpt2 decode 12x1x1024x64", 12, 1, 1, 64, past=1023)
    yield grouped("gqa decode 32/8x1x1024x128", 32, 8, 1, 1023, 128)
    yield grouped("gqa decode 32/8x1x1024x128 shared", 32, 8, 1, 1023, 128, room=1)
    yield grouped("gqa prompt 32/8x256x256x128", 32, 8, 256, 0, 128)


class Ours:
    """A session whose outputs stand ready."""

    def __init__(self, path):
        self.s = ortx.Session(path, threads=1)

    def run(self, feeds):
        return self.s.run(feeds)


def main():
    word = sys.argv[1] if len(sys.argv) > 1 else ""
    print(f"{'case':36} {'onnxruntime':>11} {'ours':>9} {'chain':>9}  us; GFLOP/s, ratio to onnxruntime, to the chain, difference")
    for name, fused, chain, feeds, flops in all_cases():
        if word not in name:
            continue
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        peer = ort.InferenceSession(fused, options, providers=["CPUExecutionProvider"])
        runs = [lambda: peer.run(None, feeds)]
        with tempfile.TemporaryDirectory() as t:
            for i, m in enumerate([fused, chain]):
                if m is None:
                    continue
                p = pathlib.Path(t) / f"{i}.onnx"
                p.write_bytes(m)
                runs.append(lambda s=Ours(str(p)): s.run(feeds))
            answers = [r() for r in runs]
            off = max(np.abs(a - b).max() for a, b in zip(answers[0], answers[1]))
            best = [1e9] * len(runs)
            end = time.perf_counter() + 1.5
            while time.perf_counter() < end:
                for i, r in enumerate(runs):
                    t0 = time.perf_counter()
                    r()
                    best[i] = min(best[i], time.perf_counter() - t0)
        us = [b * 1e6 for b in best]
        chain_us = f"{us[2]:9.0f}" if len(us) > 2 else " " * 9
        to_chain = f"{us[1] / us[2]:5.2f}" if len(us) > 2 else "    -"
        print(f"{name:36} {us[0]:11.0f} {us[1]:9.0f} {chain_us}  {flops / us[1] / 1e3:6.1f} {us[1] / us[0]:5.2f} {to_chain} {off:.1e}", flush=True)


if __name__ == "__main__":
    main()
