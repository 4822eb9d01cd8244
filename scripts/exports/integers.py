"""What onnxruntime makes of a quantised model, which is what is wanted of it here."""

import collections
import tempfile

import onnx
import onnxruntime as ort

# What onnxruntime computes on integers, by the name that it has here.
INTEGERS = {
    "QLinearConv": "QLinearConv", "ConvInteger": "ConvInteger", "QLinearMatMul": "QGemm", "QGemm": "QGemm",
    "MatMulIntegerToFloat": "MatMulIntegerToFloat", "DynamicQuantizeMatMul": "MatMulIntegerToFloat", "MatMulInteger": "MatMulInteger",
}


def wanted(path):
    """Operators on integers and number of nodes in what onnxruntime makes of a model."""
    with tempfile.TemporaryDirectory() as folder:
        o = ort.SessionOptions()
        o.graph_optimization_level, o.log_severity_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, 3
        o.optimized_model_filepath = f"{folder}/optimised.onnx"
        ort.InferenceSession(path, o, providers=["CPUExecutionProvider"])
        nodes = [n.op_type for n in onnx.load(o.optimized_model_filepath, load_external_data=False).graph.node]
    counts = collections.Counter(INTEGERS[n] for n in nodes if n in INTEGERS)
    return dict(wants=", ".join(f"{n} {c}" for n, c in sorted(counts.items())), most=len(nodes))
