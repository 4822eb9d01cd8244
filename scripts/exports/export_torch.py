"""Writes the modules of PyTorch and small random transformers with both of its exporters.

    python scripts/exports/export_torch.py FOLDER [PART [CASE]]
"""

import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore")

import torch
import torch_modules
import torch_quantised
import torch_transformers
from case import export
from integers import wanted


# The fused operators of inference are no ONNX.
torch.backends.mha.set_fastpath_enabled(False)


def tensors(case):
    return tuple(torch.from_numpy(v) for v in case.inputs.values())


def scripted(case, opset, path):
    torch.manual_seed(0)
    torch.onnx.export(
        case.make(), tensors(case), str(path), dynamo=False, opset_version=int(opset), input_names=list(case.inputs), dynamic_axes=case.axes
    )


def traced(case, opset, path):
    torch.manual_seed(0)
    shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in case.axes.get(name, {})} for name in case.inputs)
    opset, fixed = int(str(opset).removesuffix("s")), str(opset).endswith("s")
    torch.onnx.export(
        case.make(), tensors(case), str(path), dynamo=True, opset_version=opset, input_names=list(case.inputs),
        dynamic_shapes=None if fixed else shapes, verbose=False,
    )


def quantised(case, way, path):
    """By the older exporter what the older ways make, by the newer one what the newer do."""
    torch.manual_seed(0)
    model = torch_quantised.quantised(case.make(), way, tensors(case))
    newer = way in ("mobile", "x86")
    torch.onnx.export(model, tensors(case), str(path), dynamo=newer, opset_version=18 if newer else 17, input_names=list(case.inputs), verbose=False)
    return wanted(path)


def main():
    folder, part, only = (sys.argv[1:] + ["", ""])[:3]
    modules, transformers = list(torch_modules.all_cases()), list(torch_transformers.all_cases())
    parts = {
        "scripted": ("torch script", ["torch"], modules, (11, 13, 17), scripted),
        "dynamo": ("torch dynamo", ["torch", "onnxscript"], modules, (18, "20s", 23), traced),
        "quantised": ("torch quantised", ["torch"], list(torch_quantised.all_cases()), torch_quantised.WAYS, quantised),
        "transformers": ("transformers script", ["transformers", "torch"], transformers, (14, 17), scripted),
        "transformers-dynamo": ("transformers dynamo", ["transformers", "torch", "onnxscript"], transformers, (18, 23), traced),
    }
    with torch.no_grad():
        for name, how in parts.items():
            if part in ("", name):
                export(folder, *how, only)


main()
