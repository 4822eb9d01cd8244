"""Networks that PyTorch quantises itself: by its older way (modules that hold integers, "fx"), with training in mind ("qat"), and by
its newer way, in the manner of mobile ("mobile": 8 bits with sign) and x86 processors ("x86")."""

import torch
import torch.ao.quantization as quantization
from case import Case, rows
from torch import nn
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx
from torch.ao.quantization.quantize_pt2e import convert_pt2e, prepare_pt2e
from torch.ao.quantization.quantizer import x86_inductor_quantizer as x86
from torch.ao.quantization.quantizer import xnnpack_quantizer as mobile

PICTURE = {"x": rows(2, 3, 16, 16)}
WAYS = ("fx", "qat", "mobile", "x86")


class Residual(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.activation, self.last = activation, nn.Linear(8, 5)

    def forward(self, x):
        x = self.first(x)
        x = self.activation(x + self.depthwise(x))
        return self.last(x.mean((2, 3)))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.ReLU())
        self.pool, self.last = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x):
        x = self.stem(x)
        return self.last(self.pool(torch.cat([self.left(x), self.right(x)], 1)))


def all_cases():
    yield Case("residual", lambda: Residual(nn.ReLU()), PICTURE)
    yield Case("residual_relu6", lambda: Residual(nn.ReLU6()), PICTURE)
    yield Case("residual_hardswish", lambda: Residual(nn.Hardswish()), PICTURE)
    yield Case("branches", Branches, PICTURE)
    yield Case("layers", lambda: nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8), nn.LayerNorm(8)), {"x": rows(4, 16)})


def quantised(model, way, inputs):
    """A model with quantisation by what the inputs have it compute."""
    if way in ("mobile", "x86"):
        if way == "mobile":
            quantizer = mobile.XNNPACKQuantizer().set_global(mobile.get_symmetric_quantization_config(is_per_channel=True))
        else:
            quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
        model = prepare_pt2e(torch.export.export(model.eval(), inputs).module(), quantizer)
        model(*inputs)
        return convert_pt2e(model)
    torch.backends.quantized.engine = "fbgemm"
    if way == "fx":
        model = prepare_fx(model.eval(), quantization.get_default_qconfig_mapping("fbgemm"), inputs)
        model(*inputs)
        return convert_fx(model)
    # The fused observers of version 1 have no form in ONNX.
    model = prepare_qat_fx(model.train(), quantization.get_default_qat_qconfig_mapping("fbgemm", version=0), inputs)
    model(*inputs)
    return model.eval().apply(quantization.disable_observer)
