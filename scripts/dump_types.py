#!/usr/bin/env python3
"""Writes small cases of every operator of package onnx with every type that its newest schema allows, into the cache:

    CACHE/types/KEY/index.tsv    name, domain, operator, parameter, type, check, slack, offset,
                                 lengths of the model;inputs;outputs, types of the inputs;outputs
    CACHE/types/KEY/cases.bin    the models and values, one after another

KEY is the hash of this file and of the type_*.py beside it. A case varies one type parameter; the others keep what
the recipe says. Expected values come from onnx's reference evaluator, run in float64 for all floating-point types (on the
narrow types' exact values, rounded to the type at the end) and in the type itself for integers; where it has no answer, or a
wrong one, from type_expected.py. Every model passes onnx's checker and its strict type inference.
"""

import itertools
import os
import pathlib
import re
import sys
import warnings
import zlib

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import type_expected
import type_recipes_more  # noqa: F401  (adds to the recipes)
from type_recipes import RECIPES
from type_values import loose, make_value, serialise, shape_to, type_proto, widen

# In the order in which the key is made of them.
SCRIPTS = ["dump_types.py", "type_values.py", "type_recipes.py", "type_recipes_more.py", "type_graphs.py", "type_expected.py"]
HERE = pathlib.Path(__file__).resolve().parent
OPSETS = {"": 28, "ai.onnx.ml": 5, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1}


def key():
    h = 0xCBF29CE484222325
    for name in SCRIPTS:
        for b in (HERE / name).read_bytes():
            h = ((h ^ b) * 0x100000001B3) % 2**64
    return f"{h:016x}"


def outputs_of(schema, t, n):
    """The types of the node's `n` outputs."""
    formal = [schema.outputs[min(i, len(schema.outputs) - 1)].type_str for i in range(n)]
    return [t.get(f, f) for f in formal]


def build(recipe, schema, t, rng):
    """(model, inputs with types, expected outputs with types) of one case."""
    get = lambda field, default: (lambda v: v(t) if callable(v) else v)(recipe.get(field, default))
    if "model" in recipe:
        return recipe["model"](t, rng)
    specs, attrs, n = get("i", []), get("a", {}), get("n", 1)
    kinds = []
    for i in range(len(specs)):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)].type_str
        kinds.append(t.get(formal, formal))
    values = [None if s is None else make_value(s, k, rng) for s, k in zip(specs, kinds)]
    names = ["" if v is None else f"x{i}" for i, v in enumerate(values)]
    out_kinds = get("o", outputs_of(schema, t, n))
    skip = get("skip", ())
    outs = ["" if i in skip else f"y{i}" for i in range(n)]
    node = helper.make_node(schema.name, names, outs, domain=schema.domain, **attrs)
    edges = [(nm, k, v) for nm, k, v in zip(names, kinds, values) if v is not None]
    constants = get("c", ())
    weights = [numpy_helper.from_array(v, nm) for nm, k, v in edges if int(nm[1:]) in constants]
    fed = [(nm, k, v) for nm, k, v in edges if int(nm[1:]) not in constants]
    info = [helper.make_value_info(nm, type_proto(k, v)) for nm, k, v in fed]
    results = [(o, k) for o, k in zip(outs, out_kinds) if o]
    graph = helper.make_graph([node], "g", info, [helper.make_value_info(o, type_proto(k)) for o, k in results], weights)
    opsets = [helper.make_opsetid(d, v) for d, v in OPSETS.items() if d in ("", schema.domain)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=onnx.IR_VERSION)
    wide = [widen(v) for v in values]
    expect = recipe.get("e") or type_expected.EXPECTED.get(schema.name)
    if expect:
        wanted = expect(t, wide, attrs)
        wanted = wanted if isinstance(wanted, tuple) else (wanted,)
        wanted = [w for o, w in zip(outs, wanted) if o]
    else:
        feeds = {nm: v for nm, v in zip(names, wide) if nm and int(nm[1:]) not in constants}
        reference = onnx.ModelProto()
        reference.CopyFrom(model)
        for w in reference.graph.initializer:
            w.CopyFrom(numpy_helper.from_array(wide[int(w.name[1:])], w.name))
        wanted = ReferenceEvaluator(reference).run(None, feeds)
    wanted = [shape_to(w, k) for w, (_, k) in zip(wanted, results)]
    for (o, k), w, slot in zip(results, wanted, model.graph.output):
        slot.CopyFrom(loose(o, k, w))
    return model, [(v, k) for _, k, v in fed], list(zip(wanted, [k for _, k in results]))


def assignments(schema, recipe):
    """(parameter, type, assignment of all parameters) that a recipe is tried with."""
    allowed = {c.type_param_str: sorted(c.allowed_type_strs) for c in schema.type_constraints}
    ties = recipe.get("tie", {})
    prefer = [
        "tensor(float)",
        "tensor(int64)",
        "tensor(bool)",
        "tensor(string)",
        "tensor(uint8)",
        "seq(tensor(float))",
        "optional(tensor(float))",
    ]
    default = {p: next((x for x in prefer if x in ts), ts[0]) for p, ts in allowed.items()}
    default.update(recipe.get("t", {}))

    def whole(t):
        for p, f in ties.items():
            t[p] = f(t)
        return t

    if "pairs" in recipe:
        for combo in itertools.product(*(allowed[p] for p in recipe["pairs"])):
            t = whole({**default, **dict(zip(recipe["pairs"], combo))})
            if recipe.get("when", lambda t: True)(t) and all(x in allowed.get(p, [x]) for p, x in t.items()):
                yield recipe["pairs"][0], ",".join(combo), t
        return
    for p in allowed or {"-": ["-"]}:
        if p in ties:
            continue
        for kind in allowed.get(p, ["-"]):
            t = whole({**default, p: kind})
            if recipe.get("when", lambda t: True)(t):
                yield p, kind, t


def main():
    root = pathlib.Path(os.environ.get("ORTX_CACHE") or pathlib.Path.home() / ".cache" / "ortx") / "types" / key()
    if (root / "index.tsv").exists():
        return 0
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    only = sys.argv[1:]
    latest = {}
    for schema in defs.get_all_schemas_with_history():
        k = (schema.domain, schema.name)
        if k not in latest or latest[k].since_version < schema.since_version:
            latest[k] = schema
    rows, data, missing, broken = [], bytearray(), [], []
    for (domain, name), schema in sorted(latest.items()):
        if schema.deprecated or (only and name not in only):
            continue
        recipes = RECIPES.get(name)
        if recipes is None:
            missing.append(name)
            continue
        seen = set()
        for r, recipe in enumerate(recipes):
            for p, kind, t in assignments(schema, recipe):
                seen.update(t.items())
                short = ",".join(f"{k}" for k in [kind.replace("tensor(", "").replace(")", "").replace(", ", ":")])
                case = f"{name}.{r}.{p}.{short}"
                rng = np.random.default_rng(zlib.crc32(case.encode()))
                try:
                    model, inputs, outputs = build(recipe, schema, t, rng)
                    onnx.checker.check_model(model)
                    if not recipe.get("loose"):
                        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
                    parts = [[model.SerializeToString()]] + [[serialise(v, k) for v, k in side] for side in (inputs, outputs)]
                except Exception as e:
                    if os.environ.get("TRACE"):
                        raise
                    broken.append(f"{case}: {type(e).__name__}: {str(e)[:200]}")
                    continue
                lengths = ";".join(",".join(str(len(b)) for b in part) for part in parts)
                check, slack = recipe.get("check", "near"), recipe.get("slack", 1)
                slack = slack(t) if callable(slack) else slack
                kinds = ";".join(
                    ",".join(k.replace(", ", ":").replace(",", ":") for _, k in side) for side in (inputs, outputs)
                )
                rows.append(
                    "\t".join(map(str, [case, domain or "ai.onnx", name, p, short, check, slack, len(data), lengths, kinds]))
                )
                for part in parts:
                    for b in part:
                        data += b
        ties = set().union(*(set(r.get("tie", {})) for r in recipes))
        for c in schema.type_constraints:
            lost = [k for k in c.allowed_type_strs if (c.type_param_str, k) not in seen]
            if lost and c.type_param_str not in ties and not any(c.type_param_str in r.get("fixed", ()) for r in recipes):
                missing.append(f"{name}.{c.type_param_str}: {', '.join(sorted(lost))}")
    groups = {}
    for line in broken:
        case, message = line.split(": ", 1)
        groups.setdefault((".".join(case.split(".")[:3]), re.sub(r"tensor\(\w+\)", "T", message).strip()), []).append(
            case.split(".", 3)[3]
        )
    for (case, message), kinds in groups.items():
        print(f"{case}: {len(kinds)} ({', '.join(kinds[:4])}): {message}")
    for m in missing:
        print(f"no recipe: {m}")
    print(f"{len(rows)} cases of operators and types, {len(data)} bytes")
    if only:
        return 0
    if broken or missing:
        return 1
    root.mkdir(parents=True, exist_ok=True)
    (root / "cases.bin").write_bytes(data)
    (root / "index.tsv").write_text(
        "# name\tdomain\toperator\tparameter\ttype\tcheck\tslack\toffset\tlengths\ttypes\n" + "\n".join(rows) + "\n"
    )
    print(f"in {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
