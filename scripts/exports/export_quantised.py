"""Quantises what the other scripts here wrote, as users do: with onnxruntime.quantization, statically (groups of
DequantizeLinear, operator, QuantizeLinear) and dynamically.

    python scripts/exports/export_quantised.py FOLDER [CASE]

What is wanted of a case is what onnxruntime itself makes of it: its operators on integers, and no more steps than it has nodes.
"""

import json
import logging
import os
import pathlib
import sys
import tempfile

import numpy as np
from case import Case, export
from integers import wanted
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

# By folder and version.
MODELS = {
    "torch_script.17": "conv_relu6 conv_hardswish conv_silu conv_gelu conv_mish conv_batch_relu linear_relu6 linear_gelu linear_silu "
    "linear_hardswish linear_leaky_relu norm_layer residual_layer log_softmax block_csp block_pyramid block_excite block_convnext "
    "block_shuffle block_pad block_embedding attention_sdpa attention_written attention_packed attention_sdpa_padding "
    "attention_encoder_post attention_encoder_pre",
    "transformers_script.17": "bert_eager distilbert_sdpa gpt2_eager gpt2_past_sdpa llama_sdpa opt_sdpa t5_eager whisper_sdpa vit_eager "
    "swin_eager convnext_eager segformer_eager wav2vec2_eager",
    "keras.18": "conv_batch_residual block_efficientnet block_inverted block_classifier block_separable block_transposed "
    "block_upsampled attention_mha",
    "paddle.13": "block_lcnet block_db_head attention_svtr encoder_post",
}
STATIC = {
    "u8s8": dict(activation_type=QuantType.QUInt8),
    "u8s8c": dict(activation_type=QuantType.QUInt8, per_channel=True),
    "s8s8c": dict(activation_type=QuantType.QInt8, per_channel=True),
}


class Samples(CalibrationDataReader):
    """A case's inputs, as they are and with their elements in other orders."""

    def __init__(self, inputs):
        orders = [None, 1, 2, 3]
        moved = lambda v, seed: v if seed is None else np.random.default_rng(seed).permutation(v.ravel()).reshape(v.shape)
        self.left = [{n: moved(v, seed) for n, v in inputs.items()} for seed in orders]

    def get_next(self):
        return self.left.pop() if self.left else None


def quantise(case, way, path):
    with tempfile.TemporaryDirectory() as folder:
        ready = f"{folder}/ready.onnx"
        try:
            quant_pre_process(case.make(), ready)
        except Exception:  # Symbolic shapes do not go through every model; its documentation says to leave them out then.
            quant_pre_process(case.make(), ready, skip_symbolic_shape=True)
        if way == "dynamic":
            quantize_dynamic(ready, path, weight_type=QuantType.QInt8)
        else:
            quantize_static(ready, path, Samples(case.inputs), weight_type=QuantType.QInt8, **STATIC[way])
    return wanted(path)


def cases(folder):
    for where, names in MODELS.items():
        exporter, version = where.split(".")
        listed = {e["name"]: e for e in json.loads((folder / exporter / "index.json").read_text()) if e["version"] == version}
        for name in names.split():
            path = pathlib.Path(listed[name]["file"])
            yield Case(f"{exporter.split('_')[0]}_{name}", lambda path=path: str(path), dict(np.load(path.with_suffix(".npz"))))


def main():
    folder, only = pathlib.Path(sys.argv[1]).resolve(), (sys.argv[2:] + [""])[0]
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as here:  # Files are left behind wherever this runs.
        os.chdir(here)
        export(folder, "onnxruntime quantised", ["onnxruntime"], list(cases(folder)), [*STATIC, "dynamic"], quantise, only)


main()
