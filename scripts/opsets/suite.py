"""Cases of the ONNX backend suite, said in each version of their operator that has no case yet and in which they are valid."""

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

from .lines import CASES, Any, Case, Typed, opsets

# More elements than this would swell the file.
MOST = 330
# Their answers are random.
RANDOM = {"Bernoulli"}
# Another case than the smallest, which says too little.
CHOSEN = {}


def size(x):
    if isinstance(x, (list, tuple)):
        return sum(map(size, x))
    if isinstance(x, onnx.TensorProto):
        return int(np.prod(x.dims))
    return 0 if x is None else np.asarray(x).size


def since(op, version, domain):
    try:
        return onnx.defs.get_schema(op, version, domain).since_version
    except onnx.defs.SchemaError:
        return None


def type_name(kind):
    if kind.HasField("sequence_type"):
        return f"seq({type_name(kind.sequence_type.elem_type)})"
    if kind.HasField("optional_type"):
        return f"optional({type_name(kind.optional_type.elem_type)})"
    return f"tensor({onnx.TensorProto.DataType.Name(kind.tensor_type.elem_type).lower()})"


def types(op, version, domain):
    schema = onnx.defs.get_schema(op, version, domain)
    return {t for c in schema.type_constraints for t in c.allowed_type_strs}


def said_in(case, version):
    """The case in an older or newer version, or None."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    node = model.graph.node[0]
    domain = "" if node.domain == "ai.onnx" else node.domain
    if since(node.op_type, version, domain) != version or len(model.graph.node) != 1:
        return None
    del model.opset_import[:]
    model.opset_import.extend(opsets(domain, version))
    model.ir_version = 13
    try:
        onnx.checker.check_model(model)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception:  # noqa: BLE001
        return None
    schema = onnx.defs.get_schema(node.op_type, version, domain)
    kinds = {i.name: i.type for i in [*model.graph.input, *model.graph.output]}
    for edges, names in ((schema.inputs, node.input), (schema.outputs, node.output)):
        for i, name in enumerate(names):
            if name and type_name(kinds[name]) not in edges[min(i, len(edges) - 1)].types:
                return None
    (ins, outs), *_ = case.data_sets
    ins, outs = iter(ins), iter(outs)

    def typed(name, x):
        kind = kinds[name]
        if kind.HasField("tensor_type"):
            x = onnx.numpy_helper.to_array(x) if isinstance(x, onnx.TensorProto) else np.asarray(x)
            # Element types that numpy lacks come as their bits.
            want = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
            return x.view(want) if x.dtype != want and x.dtype.kind not in "OUS" and x.dtype.itemsize == np.dtype(want).itemsize else x
        return Typed(kind, x)

    inputs = [typed(n, next(ins)) if n else None for n in node.input]
    outputs = [typed(n, next(outs)) if n else None for n in node.output]
    if node.op_type in RANDOM:
        outputs = [Any(y) for y in outputs]
    c = Case(case.name.removeprefix("test_"), node.op_type, version, inputs, outputs, {}, True, domain)
    c.node.attribute.extend(node.attribute)
    return c


def make():
    have = {(c.domain, c.op, c.version) for c in CASES}
    by = {}
    for c in collect_testcases(None):
        if c.model is not None and len(c.model.graph.node) == 1:
            node = c.model.graph.node[0]
            elements = sum(size(list(v)) for v in c.data_sets[0])
            by.setdefault(("" if node.domain == "ai.onnx" else node.domain, node.op_type), []).append((elements, c))
    history = {}
    for s in onnx.defs.get_all_schemas_with_history():
        history.setdefault((s.domain, s.name), {})[s.since_version] = s.deprecated
    missing = []
    for (domain, op), known in sorted(history.items()):
        before = set()
        for version, gone in sorted(known.items()):
            if gone:
                continue
            new = types(op, version, domain) - before
            before |= types(op, version, domain)
            if (domain, op, version) in have:
                continue
            found = []
            for elements, c in by.get((domain, op), []):
                if elements > MOST or "expanded" in c.name:
                    continue
                kinds = {type_name(i.type) for i in c.model.graph.input}
                wanted = c.name.removeprefix("test_") == CHOSEN.get((op, version))
                # A type that this version brought says most.
                found.append((not wanted, not (kinds & new) if len(known) > 1 and before != new else 0, not kinds & {"tensor(float)"}, elements, c.name, c))
            for *_, c in sorted(found, key=lambda x: x[:-1]):
                if made := said_in(c, version):
                    CASES.append(made)
                    break
            else:
                missing.append(f"{domain or 'ai.onnx'} {op} {version}")
    print(f"{len(missing)} versions without a case: {', '.join(missing)}")
