#!/usr/bin/env python3
"""Trains the digits model that the repository ships, and writes models/digits.onnx and models/digits_test.bin.

The data are the 1,797 real 8x8 handwritten digits of scikit-learn's `load_digits`, one fifth of each digit held out. The
network is that of the case study the project began with: two 3x3 'same' convolutions of 32 and 64 filters with ReLU, a
2x2 max-pool after each, a dense layer of 128 with ReLU, a dense layer of 10, softmax. Plain numpy, seeded, under a minute.

Run it in the venv of requirements-train.txt:
    "$(scripts/setup.sh venv requirements-train.txt)"/bin/python scripts/train_digits.py

digits_test.bin, little endian: 8 bytes "DIGITS01"; u32 count, height, width, levels (16: a pixel is 0..=16); then for each
image one label byte and height*width pixel bytes. The model's input is pixel / levels.
"""

import pathlib
import struct
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEED, EPOCHS, BATCH, RATE = 7, 80, 32, 2e-3
LEVELS = 16


class Conv:
    """3x3, stride 1, zero padding 1, as one matrix product over the gathered neighbourhoods."""

    def __init__(self, rng, fan_in, filters):
        self.w = rng.normal(0, np.sqrt(2 / (fan_in * 9)), (fan_in * 9, filters)).astype(np.float32)
        self.b = np.zeros(filters, np.float32)

    def forward(self, x):
        n, c, h, w = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        self.columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)
        self.shape = x.shape
        return (self.columns @ self.w + self.b).reshape(n, h, w, -1).transpose(0, 3, 1, 2)

    def backward(self, g):
        n, c, h, w = self.shape
        g = g.transpose(0, 2, 3, 1).reshape(n * h * w, -1)
        self.grads = [self.columns.T @ g, g.sum(0)]
        parts = (g @ self.w.T).reshape(n, h, w, c, 3, 3)
        out = np.zeros((n, c, h + 2, w + 2), np.float32)
        for i in range(3):
            for j in range(3):
                out[:, :, i : i + h, j : j + w] += parts[..., i, j].transpose(0, 3, 1, 2)
        return out[:, :, 1:-1, 1:-1]

    def params(self):
        return [self.w, self.b]


class Dense:
    def __init__(self, rng, fan_in, fan_out):
        self.w = rng.normal(0, np.sqrt(2 / fan_in), (fan_in, fan_out)).astype(np.float32)
        self.b = np.zeros(fan_out, np.float32)

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, g):
        self.grads = [self.x.T @ g, g.sum(0)]
        return g @ self.w.T

    def params(self):
        return [self.w, self.b]


class Relu:
    def forward(self, x):
        self.on = x > 0
        return x * self.on

    def backward(self, g):
        return g * self.on

    def params(self):
        return []


class Pool:
    """2x2 max-pool; the gradient goes to every maximum, shared where there are several."""

    def forward(self, x):
        n, c, h, w = x.shape
        self.blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        y = self.blocks.max((3, 5), keepdims=True)
        hits = self.blocks == y
        self.share = hits / hits.sum((3, 5), keepdims=True).astype(np.float32)
        return y[:, :, :, 0, :, 0]

    def backward(self, g):
        out = self.share * g[:, :, :, None, :, None]
        n, c, h, _, w, _ = out.shape
        return out.reshape(n, c, h * 2, w * 2).astype(np.float32)

    def params(self):
        return []


class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, g):
        return g.reshape(self.shape)

    def params(self):
        return []


class Dropout:
    """Active in training only, so it leaves no trace in the exported model."""

    def __init__(self, rng, share):
        self.rng, self.share, self.active = rng, share, True

    def forward(self, x):
        if not self.active:
            return x
        self.mask = (self.rng.random(x.shape) >= self.share).astype(np.float32) / (1 - self.share)
        return x * self.mask

    def backward(self, g):
        return g * self.mask

    def params(self):
        return []


def jitter(rng, images):
    """Each image moved by up to a pixel, turned by up to 12 degrees, scaled by up to 10 %, bilinearly."""
    n, _, h, w = images.shape
    angle = rng.uniform(-0.21, 0.21, n)
    scale = rng.uniform(0.9, 1.1, n)
    dy, dx = rng.uniform(-1, 1, (2, n))
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    y, x = y - (h - 1) / 2, x - (w - 1) / 2
    cos, sin = (np.cos(angle) * scale)[:, None, None], (np.sin(angle) * scale)[:, None, None]
    sy = cos * y - sin * x + (h - 1) / 2 + dy[:, None, None]
    sx = sin * y + cos * x + (w - 1) / 2 + dx[:, None, None]
    y0, x0 = np.floor(sy).astype(int), np.floor(sx).astype(int)
    fy, fx = sy - y0, sx - x0
    padded = np.pad(images[:, 0], ((0, 0), (4, 4), (4, 4)))
    at = np.arange(n)[:, None, None]

    def pick(yy, xx):
        return padded[at, np.clip(yy + 4, 0, h + 7), np.clip(xx + 4, 0, w + 7)]

    top = pick(y0, x0) * (1 - fx) + pick(y0, x0 + 1) * fx
    low = pick(y0 + 1, x0) * (1 - fx) + pick(y0 + 1, x0 + 1) * fx
    return (top * (1 - fy) + low * fy).astype(np.float32)[:, None]


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def split(rng, labels):
    """Indices to train on and to hold out: one fifth of each digit."""
    held = []
    for digit in range(10):
        where = rng.permutation(np.flatnonzero(labels == digit))
        held.extend(where[: len(where) // 5])
    held = np.sort(held)
    return np.setdiff1d(np.arange(len(labels)), held), held


def train(x, y):
    rng = np.random.default_rng(SEED)
    dropout = Dropout(rng, 0.3)
    layers = [
        Conv(rng, 1, 32), Relu(), Pool(),
        Conv(rng, 32, 64), Relu(), Pool(),
        Flatten(), Dense(rng, 256, 128), Relu(), dropout, Dense(rng, 128, 10),
    ]  # fmt: skip
    params = [p for layer in layers for p in layer.params()]
    first, second = ([np.zeros_like(p) for p in params] for _ in range(2))
    average = [p.copy() for p in params]
    steps = EPOCHS * (len(x) // BATCH)
    step, start = 0, time.time()
    for epoch in range(EPOCHS):
        order, loss = rng.permutation(len(x)), 0.0
        for k in range(len(x) // BATCH):
            at = order[k * BATCH : (k + 1) * BATCH]
            z = jitter(rng, x[at])
            for layer in layers:
                z = layer.forward(z)
            p = softmax(z)
            loss -= np.log(p[np.arange(BATCH), y[at]] + 1e-9).mean()
            # Smoothed labels: 0.95 for the digit, the rest spread.
            goal = np.full_like(p, 0.005)
            goal[np.arange(BATCH), y[at]] = 0.955
            g = (p - goal) / BATCH
            for layer in reversed(layers):
                g = layer.backward(g)
            step += 1
            rate = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            grads = [g for layer in layers if layer.params() for g in layer.grads]
            for p, m, v, g in zip(params, first, second, grads, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                p -= rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            for a, p in zip(average, params, strict=True):
                a += 0.01 * (p - a)
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3}/{EPOCHS}: loss {loss / (len(x) // BATCH):.4f}, {time.time() - start:.0f} s", flush=True)
    for p, a in zip(params, average, strict=True):
        p[...] = a
    dropout.active = False
    return layers


def export(layers, path):
    """The trained layers as an ONNX model, laid out as the common exporters do."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    convs = [layer for layer in layers if isinstance(layer, Conv)]
    denses = [layer for layer in layers if isinstance(layer, Dense)]
    weights, nodes, at = [], [], "image"

    def weight(name, array):
        weights.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=f"/{output}", **attributes))
        return output

    for i, conv in enumerate(convs, 1):
        filters = conv.w.T.reshape(conv.w.shape[1], -1, 3, 3)
        inputs = [at, weight(f"conv{i}.weight", filters), weight(f"conv{i}.bias", conv.b)]
        at = node("Conv", inputs, f"conv{i}", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], dilations=[1, 1], group=1)
        at = node("Relu", [at], f"relu{i}")
        at = node("MaxPool", [at], f"pool{i}", kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], ceil_mode=0)
    at = node("Flatten", [at], "flat", axis=1)
    for i, dense in enumerate(denses, 1):
        inputs = [at, weight(f"dense{i}.weight", dense.w.T), weight(f"dense{i}.bias", dense.b)]
        at = node("Gemm", inputs, f"dense{i}" if i == 1 else "logits", alpha=1.0, beta=1.0, transB=1)
        if i == 1:
            at = node("Relu", [at], "relu3")
    node("Softmax", [at], "probabilities", axis=1)
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        weights,
        doc_string="8x8 handwritten digits, pixels 0..1, to the probability of each digit",
    )
    model = helper.make_model(
        graph,
        ir_version=8,
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="train_digits.py",
        producer_version="1",
        domain="ortx.models",
        model_version=1,
        doc_string="Digits classifier of the ortx demo",
    )
    helper.set_model_props(model, {"classes": "0,1,2,3,4,5,6,7,8,9", "dataset": "scikit-learn load_digits", "seed": str(SEED)})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def main():
    import onnxruntime
    from onnx.reference import ReferenceEvaluator
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    images = (pixels.astype(np.float32) / LEVELS)[:, None]
    known, held = split(np.random.default_rng(SEED), labels)
    print(f"{len(known)} digits to train on, {len(held)} held out")

    layers = train(images[known], labels[known].astype(int))
    models = ROOT / "models"
    models.mkdir(exist_ok=True)
    export(layers, models / "digits.onnx")
    with open(models / "digits_test.bin", "wb") as f:
        f.write(b"DIGITS01" + struct.pack("<4I", len(held), 8, 8, LEVELS))
        for i in held:
            f.write(bytes([labels[i]]) + pixels[i].tobytes())

    # The exported file must say what the trained layers say, in two independent runtimes.
    z = images[held]
    for layer in layers:
        z = layer.forward(z)
    session = onnxruntime.InferenceSession(str(models / "digits.onnx"), providers=["CPUExecutionProvider"])
    answers = {
        "numpy": softmax(z),
        "onnx reference": ReferenceEvaluator(str(models / "digits.onnx")).run(None, {"image": images[held]})[0],
        "onnxruntime": session.run(None, {"image": images[held]})[0],
    }
    for name, p in answers.items():
        right = int((p.argmax(1) == labels[held]).sum())
        error = float(np.abs(p - answers["numpy"]).max())
        print(f"{name:15} {right}/{len(held)} right = {right / len(held):.2%}, furthest from numpy {error:.1e}")
        if right < 0.98 * len(held) or error > 1e-4:
            return "train_digits: the exported model is not good enough"
    return 0


if __name__ == "__main__":
    sys.exit(main())
