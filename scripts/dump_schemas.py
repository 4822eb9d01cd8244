#!/usr/bin/env python3
"""Rewrites tests/onnx_schemas.tsv: the operators of package onnx, which docs/operators.md compares ours with.

Run it by hand, in the venv of scripts/requirements.txt, after changing the version of onnx. A row is an operator: domain, name,
the versions at which it changed, the type parameter of its first input (or output) that has one, the inputs and the outputs that
have this parameter, and the element types that it allows in the newest version.
"""

import pathlib
import re

import onnx
from onnx import defs

TABLE = pathlib.Path(__file__).resolve().parent.parent / "tests" / "onnx_schemas.tsv"


def main():
    latest, versions = {}, {}
    for schema in defs.get_all_schemas_with_history():
        key = (schema.domain, schema.name)
        versions.setdefault(key, set()).add(schema.since_version)
        if key not in latest or latest[key].since_version < schema.since_version:
            latest[key] = schema
    rows = [f"# onnx {onnx.__version__}. Written by scripts/dump_schemas.py.", "# domain\tname\tversions\tparameter\tinputs\ttypes"]
    for key, schema in sorted(latest.items()):
        if schema.deprecated:
            continue
        allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
        edges = list(schema.inputs) + list(schema.outputs)
        # A parameter with tensors of more than one element type, else with one.
        tensors = {p: sorted({t for s in types for t in re.findall(r"tensor\((\w+)\)", s)}) for p, types in allowed.items()}
        found = [e.type_str for least in (2, 1) for e in edges if len(tensors.get(e.type_str, [])) >= least]
        parameter = found[0] if found else ""
        places = []
        for i, e in enumerate(schema.inputs):
            if e.type_str == parameter:
                places.append(f"{i}+" if e.option == defs.OpSchema.FormalParameterOption.Variadic else str(i))
        history = ",".join(map(str, sorted(versions[key])))
        rows.append("\t".join([key[0] or "ai.onnx", key[1], history, parameter, ",".join(places), ",".join(tensors.get(parameter, []))]))
    TABLE.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
