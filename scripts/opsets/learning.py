"""Classic machine learning (ai.onnx.ml), as onnxruntime answers."""

import numpy as np
from onnx import TensorProto, helper

from .lines import Typed, asked, case

rng = np.random.default_rng(5)
ML = "ai.onnx.ml"


def f(*shape):
    return (rng.integers(-16, 17, shape) / 8).astype(np.float32)


def floats(*shape):
    return [float(x) for x in f(*shape).reshape(-1)]


def text(*values):
    return np.array(values, object)


def maps(key, value, *rows):
    """A sequence of maps, or one map."""
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(value, []))
    return Typed(kind, rows[0]) if len(rows) == 1 else Typed(helper.make_sequence_type_proto(kind), list(rows))


def vectors():
    x = f(3, 2)
    asked("plain", "Binarizer", 1, [x], domain=ML, threshold=0.25)
    asked("plain", "ArrayFeatureExtractor", 1, [f(2, 4), np.array([[3, 1]])], domain=ML)
    for norm in ("MAX", "L1", "L2"):
        asked(norm, "Normalizer", 1, [np.abs(x) + 1], domain=ML, norm=norm)
    asked("each", "Scaler", 1, [x], domain=ML, offset=[0.5, -1.0], scale=[2.0, 3.0])
    asked("one", "Scaler", 1, [(x * 8).astype(np.int64)], domain=ML, offset=[0.5], scale=[2.0])
    nan = np.array([[1, np.nan], [np.nan, 4]], np.float32)
    asked("nan", "Imputer", 1, [nan], domain=ML, imputed_value_floats=[7.0, 8.0], replaced_value_float=float("nan"))
    asked("int64", "Imputer", 1, [np.array([[1, -1], [3, -1]])], domain=ML, imputed_value_int64s=[5], replaced_value_int64=-1)
    asked("int64", "OneHotEncoder", 1, [np.array([2, 9, 5])], domain=ML, cats_int64s=[5, 2, 3])
    asked("text", "OneHotEncoder", 1, [text("b", "a")], domain=ML, cats_strings=["a", "b"], zeros=0)
    asked("joined", "FeatureVectorizer", 1, [f(2, 2), f(2, 3)], domain=ML, inputdimensions=[2, 3])


def labels():
    asked("text-to-int", "CategoryMapper", 1, [text("b", "?")], domain=ML, cats_int64s=[7, 8], cats_strings=["a", "b"], default_int64=-3)
    asked("int-to-text", "CategoryMapper", 1, [np.array([8, 1])], domain=ML, cats_int64s=[7, 8], cats_strings=["a", "b"], default_string="none")
    asked("text-to-int", "LabelEncoder", 1, [text("b", "?")], domain=ML, classes_strings=["a", "b"], default_int64=-2)
    asked("int-to-text", "LabelEncoder", 1, [np.array([1, 5])], domain=ML, classes_strings=["a", "b"], default_string="none")
    for version in (2, 4):
        asked("text-to-float", "LabelEncoder", version, [text("b", "?")], domain=ML, keys_strings=["a", "b"], values_floats=[1.5, 2.5], default_float=-1.0)
        asked("int-to-text", "LabelEncoder", version, [np.array([4, 5])], domain=ML, keys_int64s=[4], values_strings=["four"], default_string="none")
        # onnxruntime's version 2 does not find NaN.
        key = float("nan") if version > 2 else 3.0
        asked("float-to-int", "LabelEncoder", version, [np.array([0.5, key], np.float32)], domain=ML, keys_floats=[0.5, key], values_int64s=[1, 2])
    key, value = TensorProto.STRING, TensorProto.FLOAT
    asked("text", "DictVectorizer", 1, [maps(key, value, {"b": 2.5, "z": 9.0})], domain=ML, string_vocabulary=["a", "b", "c"])
    asked("int64", "DictVectorizer", 1, [maps(TensorProto.INT64, value, {3: 2.5, 1: 1.5})], domain=ML, int64_vocabulary=[1, 2, 3])
    asked("dense", "CastMap", 1, [maps(TensorProto.INT64, value, {4: 2.5, 1: 1.5})], domain=ML, cast_to="TO_FLOAT", map_form="DENSE")
    asked("sparse", "CastMap", 1, [maps(TensorProto.INT64, value, {4: 2.5, 1: 1.5})], domain=ML, cast_to="TO_INT64", map_form="SPARSE", max_map=6)
    x = f(2, 2)
    rows = [{k: np.float32(v) for k, v in zip(("a", "b"), row)} for row in x]
    case("text", "ZipMap", 1, [x], [maps(key, value, *rows)], domain=ML, classlabels_strings=["a", "b"])
    rows = [{k: np.float32(v) for k, v in zip((10, 20), row)} for row in x]
    case("int64", "ZipMap", 1, [x], [maps(TensorProto.INT64, value, *rows)], domain=ML, classlabels_int64s=[10, 20])


def linear():
    x = f(3, 2)
    for after in ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"):
        asked(after, "LinearClassifier", 1, [x], 2, domain=ML, coefficients=floats(3, 2), intercepts=floats(3), classlabels_ints=[5, 6, 7], post_transform=after)
        asked(after, "LinearRegressor", 1, [x], domain=ML, coefficients=floats(2, 2), intercepts=floats(2), targets=2, post_transform=after)
    asked("two-texts", "LinearClassifier", 1, [x], 2, domain=ML, coefficients=floats(2, 2), intercepts=floats(2), classlabels_strings=["no", "yes"])
    for kernel in ("LINEAR", "RBF", "POLY", "SIGMOID"):
        shared = {"kernel_type": kernel, "kernel_params": [0.5, 0.25, 2.0], "support_vectors": floats(4, 2)}
        asked(kernel, "SVMRegressor", 1, [x], domain=ML, coefficients=floats(4), n_supports=4, rho=[0.5], **shared)
        asked(kernel, "SVMClassifier", 1, [x], 2, domain=ML, coefficients=floats(2, 4), rho=floats(3), vectors_per_class=[2, 1, 1], classlabels_ints=[0, 1, 2], **shared)
    asked("probabilities", "SVMClassifier", 1, [x], 2, domain=ML, coefficients=floats(1, 4), rho=[0.5], vectors_per_class=[2, 2], classlabels_strings=["a", "b"], prob_a=[-1.5], prob_b=[0.25], kernel_type="RBF", kernel_params=[0.5, 0.0, 3.0], support_vectors=floats(4, 2))


def trees():
    x = f(5, 2)
    # Two trees of depth one and two.
    shared = {
        "nodes_treeids": [0, 0, 0, 1, 1, 1, 1, 1],
        "nodes_nodeids": [0, 1, 2, 0, 1, 2, 3, 4],
        "nodes_featureids": [0, 0, 0, 1, 0, 0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "BRANCH_LT", "LEAF", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0, 1, 3, 0, 0, 0],
        "nodes_falsenodeids": [2, 0, 0, 2, 4, 0, 0, 0],
        "nodes_missing_value_tracks_true": [0] * 8,
    }
    values, weights = [0.25, 0.0, 0.0, -0.5, 1.0, 0.0, 0.0, 0.0], [1.5, -2.0, 0.5, 3.0, -1.0]
    leaves = {"treeids": [0, 0, 1, 1, 1], "nodeids": [1, 2, 2, 3, 4]}
    for version in (1, 3):
        # From version 3 on, the numbers may be tensors of doubles.
        forms = [("floats", x, lambda n, v: {n: v})]
        if version == 3:
            tensor = lambda n, v: {n + "_as_tensor": helper.make_tensor(n, TensorProto.DOUBLE, [len(v)], v)}
            forms.append(("doubles", x.astype(np.float64), tensor))
        for name, data, form in forms:
            for total in ("SUM", "AVERAGE", "MIN", "MAX"):
                # Every leaf has a word on both targets: onnxruntime forgets the base value of one that nobody spoke for.
                attrs = {f"target_{k}": v * 2 for k, v in leaves.items()} | {"target_ids": [0] * 5 + [1] * 5, "n_targets": 2, "aggregate_function": total}
                attrs |= form("nodes_values", values) | form("target_weights", weights + weights[::-1]) | form("base_values", [0.5, -0.5])
                asked(f"{name}-{total}", "TreeEnsembleRegressor", version, [data], domain=ML, **shared, **attrs)
            for after in ("NONE", "SOFTMAX"):
                attrs = {f"class_{k}": v for k, v in leaves.items()} | {"class_ids": [0, 1, 2, 0, 1], "classlabels_int64s": [3, 4, 5], "post_transform": after}
                attrs |= form("nodes_values", values) | form("class_weights", weights)
                asked(f"{name}-{after}", "TreeEnsembleClassifier", version, [data], 2, domain=ML, **shared, **attrs)
            attrs = {f"class_{k}": v for k, v in leaves.items()} | {"class_ids": [0] * 5, "classlabels_strings": ["no", "yes"], "post_transform": "LOGISTIC"}
            attrs |= form("nodes_values", values) | form("class_weights", weights)
            asked(f"{name}-binary", "TreeEnsembleClassifier", version, [data], 2, domain=ML, **shared, **attrs)


def make():
    for group in (vectors, labels, linear, trees):
        group()
