"""Recipes as in type_recipes.py: sequences, control flow, strings and pictures, ai.onnx.ml, training."""

import numpy as np

from type_graphs import GRAPHS
from type_recipes import add, ints
from type_values import CODES, element, is_float
from type_values import Spec as S

# --- sequences and optionals
seq_of = {"S": lambda t: f"seq({t['T']})"}
tensor_of = {"T": lambda t: t["S"][4:-1]}
back = lambda t, x, a: x[0]
add("ConcatFromSequence", i=[[S(2, 3), S(1, 3)]], a={"axis": 0}, tie=tensor_of)
add("ConcatFromSequence", i=[[S(2, 3), S(2, 3)]], a={"axis": 1, "new_axis": 1}, tie=tensor_of)
add("SequenceAt", i=[[S(2, 3), S(1, 3)], np.array(-1)], tie=tensor_of, e=lambda t, x, a: x[0][-1])
add("SequenceConstruct", i=[S(2, 3), S(1)], tie=seq_of, e=lambda t, x, a: (x,))
add("SequenceEmpty", i=[], a=lambda t: {"dtype": CODES[element(t["S"])]}, e=lambda t, x, a: ([],))
add("SequenceErase", i=[[S(2), S(3), S(1)], np.array(1)], tie={}, e=lambda t, x, a: ([x[0][0], x[0][2]],))
add("SequenceInsert", i=[[S(2), S(3)], S(1), np.array(1)], tie=seq_of, e=lambda t, x, a: ([x[0][0], x[1], x[0][1]],))
add("SequenceLength", i=[[S(2), S(3)]], e=lambda t, x, a: np.array(2))
add("SplitToSequence", i=[S(5, 2), ints(2, 3)], tie=seq_of, e=lambda t, x, a: ([x[0][:2], x[0][2:]],))
add("Optional", i=[S(2, 3)], tie={"O": lambda t: f"optional({t['V']})"}, e=back)
add(
    "OptionalGetElement",
    i=[S(2, 3)],
    t={"O": "tensor(float)"},
    tie={"V": lambda t: t["O"].removeprefix("optional(")[: -1 if t["O"].startswith("opt") else None]},
    e=back,
)
add("OptionalHasElement", i=[S(2, 3)], e=lambda t, x, a: np.array(True))
add("Identity", i=[S(2, 3)], e=back, when=lambda t: not t["V"].startswith("tensor"))

# --- control flow: every type that can flow through
add("If", model=lambda t, rng: GRAPHS["if_model"](t["V"], rng))
add("Loop", model=lambda t, rng: GRAPHS["loop_model"](t["V"], rng))
add("Scan", model=lambda t, rng: GRAPHS["scan_model"](t["V"], rng))
add("SequenceMap", model=lambda t, rng: GRAPHS["map_model"](t["S"], t["V"], rng))
add("Gradient", model=lambda t, rng: GRAPHS["gradient_model"](t["T1"], t["T2"], rng))

# --- strings, pictures, boxes
add(
    "RegexFullMatch",
    i=[np.array(["ab", "b", ""], object)],
    a={"pattern": "a?b"},
    e=lambda t, x, a: np.array([True, True, False]),
)
add(
    "StringNormalizer",
    i=[np.array(["ab", "B", "C"], object)],
    a={"case_change_action": "UPPER", "stopwords": ["B"], "is_case_sensitive": 1},
    e=lambda t, x, a: np.array(["AB", "C"], object),
)
add("StringSplit", i=[np.array(["a b", "c"], object)], a={"delimiter": " "}, n=2)
for name, pool in (("int64", {"pool_int64s": [1, 2, 3, 1, 2]}), ("string", {"pool_strings": ["s1", "s2", "s3", "s1", "s2"]})):
    add(
        "TfIdfVectorizer",
        i=[S(values=[1, 2, 3, 1, 2])],
        a={
            "mode": "TF",
            "min_gram_length": 1,
            "max_gram_length": 2,
            "max_skip_count": 0,
            "ngram_counts": [0, 3],
            "ngram_indexes": [0, 1, 2, 3],
        }
        | pool,
        e=lambda t, x, a: np.array([2.0, 2, 1, 2]),
        when=lambda t, s=name: (element(t["T"]) == "string") == (s == "string"),
    )
add("ImageDecoder", i=[GRAPHS["picture"]()], a={"pixel_format": "RGB"}, e=lambda t, x, a: GRAPHS["pixels"]())
add(
    "NonMaxSuppression",
    i=[
        np.array([[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 2, 1, 3]]]),
        np.array([[[0.9, 0.8, 0.7]]]),
        ints(3),
        np.array([0.5]),
        np.array([0.1]),
    ],
    e=lambda t, x, a: np.array([[0, 0, 0], [0, 0, 2]]),
)

# --- ai.onnx.ml
add("ArrayFeatureExtractor", i=[S(3, 4), ints(2, 0)], e=lambda t, x, a: x[0][:, [2, 0]])
add("Binarizer", i=[S(2, 5, lo=-5, hi=5)], a={"threshold": 1.0})
add(
    "CastMap",
    i=lambda t: [{1: 2.0, 5: 3.0} if "float" in t["T1"] else {1: "2", 5: "3"}],
    a=lambda t: {"cast_to": f"TO_{dict(float='FLOAT', int64='INT64', string='STRING')[element(t['T2'])]}"},
    e=lambda t, x, a: np.array(
        [
            [f"{float(v):f}" if "float" in t["T1"] else v for v in x[0].values()]
            if "string" in t["T2"]
            else [float(v) for v in x[0].values()]
        ],
        object if "string" in t["T2"] else None,
    ),
    pairs=["T1", "T2"],
)
add(
    "CategoryMapper",
    i=lambda t: [S(values=[1, 3, 7])],
    a={"cats_int64s": [1, 2, 3], "cats_strings": ["s1", "s2", "s3"], "default_int64": -1, "default_string": "none"},
    tie={"T2": lambda t: "tensor(int64)" if "string" in t["T1"] else "tensor(string)"},
    e=lambda t, x, a: np.array([1, 3, -1]) if "string" in t["T1"] else np.array(["s1", "s3", "none"], object),
)


def dict_case(t):
    k, v = t["T1"][4:-1].split(", ")
    values = ["a", "b"] if v == "string" else [2, 3] if v == "int64" else [2.5, 3.5]
    return [dict(zip(["x", "y"] if k == "string" else [1, 5], values))]


add(
    "DictVectorizer",
    i=dict_case,
    a=lambda t: {"string_vocabulary": ["y", "z", "x"]} if "string" in t["T1"][4:10] else {"int64_vocabulary": [5, 9, 1]},
    tie={"T2": lambda t: f"tensor({t['T1'][4:-1].split(', ')[1]})"},
    e=lambda t, x, a: (
        lambda v: np.array([[v[1], "" if isinstance(v[0], str) else 0, v[0]]], object if isinstance(v[0], str) else None)
    )(list(x[0].values())),
)
add(
    "FeatureVectorizer",
    i=[S(2, 2, lo=-5, hi=5), S(2, 3, lo=-5, hi=5)],
    a={"inputdimensions": [2, 3]},
    e=lambda t, x, a: np.concatenate(x, 1),
)
add(
    "Imputer",
    i=[S(values=[[1, 2, 1], [3, 1, 2]])],
    a=lambda t: (
        {"imputed_value_floats": [5.0], "replaced_value_float": 1.0}
        if is_float(element(t["T"]))
        else {"imputed_value_int64s": [5], "replaced_value_int64": 1}
    ),
    e=lambda t, x, a: np.where(x[0] == 1, 5, x[0]),
)
add(
    "LabelEncoder",
    i=lambda t: [S(values=[1, 3, 7, 2])],
    a=lambda t: GRAPHS["labels"](element(t["T1"]), element(t["T2"])),
    e=lambda t, x, a: np.array(["s10", "s30", "s9", "s20"] if "string" in t["T2"] else [10, 30, 9, 20]),
    pairs=["T1", "T2"],
)
COEF = [0.5, -1.0, 2.0, 1.0, 0.25, -0.5, -1.0, 1.0, 1.0]
add(
    "LinearClassifier",
    i=[S(4, 3, lo=-5, hi=5)],
    a=lambda t: (
        {"coefficients": COEF, "intercepts": [0.5, 0.0, -0.25]}
        | ({"classlabels_ints": [3, 4, 5]} if "int" in t["T2"] else {"classlabels_strings": ["a", "b", "c"]})
    ),
    n=2,
)
add("LinearRegressor", i=[S(4, 3, lo=-5, hi=5)], a={"coefficients": COEF[:6], "intercepts": [0.5, 1.0], "targets": 2})
for norm in ("MAX", "L1", "L2"):
    add("Normalizer", i=[S(3, 4, lo=1, hi=5)], a={"norm": norm})
add(
    "OneHotEncoder",
    i=[S(values=[1, 3, 2])],
    a=lambda t: {"cats_strings": ["s1", "s2", "s3"]} if "string" in t["T"] else {"cats_int64s": [1, 2, 3]},
    e=lambda t, x, a: np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
)
add("Scaler", i=[S(2, 3, lo=-5, hi=5)], a={"offset": [0.5, 1.0, 2.0], "scale": [2.0, 0.5, 1.0]})
SVM = {"kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 3.0]}
add(
    "SVMRegressor",
    i=[S(3, 2, lo=-5, hi=5)],
    a=SVM | {"coefficients": [0.5, -1.0], "support_vectors": [1.0, 2.0, -1.0, 0.5], "rho": [0.25], "n_supports": 2},
)
add(
    "SVMClassifier",
    i=[S(3, 2, lo=-5, hi=5)],
    a=lambda t: (
        SVM
        | {"coefficients": [0.5, -1.0], "support_vectors": [1.0, 2.0, -1.0, 0.5], "rho": [0.125], "vectors_per_class": [1, 1]}
        | ({"classlabels_ints": [3, 4]} if "int" in t["T2"] else {"classlabels_strings": ["a", "b"]})
    ),
    n=2,
)
add(
    "TreeEnsemble",
    i=[np.array([[1.0, 2.0], [-1.0, 0.0], [3.0, -2.0]])],
    a=lambda t: GRAPHS["tree"](t["T"]),
    e=lambda t, x, a: np.array([[0.5], [1.5], [2.5]]),
)
add(
    "ZipMap",
    i=[np.array([[0.25, 0.75], [0.5, 0.5]])],
    a=lambda t: (
        {"classlabels_int64s": [3, 4]} if "int64" in t["Z" if "Z" in t else "T"] else {"classlabels_strings": ["a", "b"]}
    ),
    e=lambda t, x, a: ([dict(zip([3, 4] if "int64" in t["T"] else ["a", "b"], row)) for row in ([0.25, 0.75], [0.5, 0.5])],),
)

# --- ai.onnx.preview.training
add("Adagrad", i=[np.array(0.125), np.array(3), S(4), S(4), S(4, lo=0.5, hi=2)], n=2, a={"epsilon": 0.5})
add(
    "Momentum",
    i=[np.array(0.125), np.array(3), S(4), S(4), S(4)],
    n=2,
    a={"alpha": 0.5, "beta": 0.5, "mode": "standard", "norm_coefficient": 0.25},
)
add("Adam", i=[np.array(0.125), np.array(3), S(4), S(4), S(4), S(4, lo=0.5, hi=2)], n=3, a={"epsilon": 0.5})
