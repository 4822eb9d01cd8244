//! Cases of `ai.onnx.ml` operators. Expected values are onnxruntime 1.32's.

use super::ML;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::Tensor;

pub(super) fn cases() -> Vec<Case> {
    made().unwrap_or_default()
}

fn floats(v: &[f32]) -> Attr {
    Attr::Floats(v.to_vec())
}

fn ints(v: &[i64]) -> Attr {
    Attr::Ints(v.to_vec())
}

fn text(s: &str) -> Attr {
    Attr::String(s.as_bytes().to_vec())
}

fn case(op: &'static str, name: &'static str, x: Tensor, expect: Vec<Tensor>, attrs: &[(&'static str, Attr)]) -> Case {
    let outputs = vec![true; expect.len()];
    let c = Case { domain: ML, outputs, expect, ..Case::new(op, 1, name, vec![CaseInput::Given(x)]) };
    attrs.iter().fold(c, |c, (n, a)| c.attr(n, a.clone()))
}

/// Two trees, the second with a root and an inner node; their leaves are nodes 1 and 2, and 2, 3 and 4.
fn trees(labels: &str) -> Vec<(&'static str, Attr)> {
    let modes = ["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "BRANCH_LT", "LEAF", "LEAF", "LEAF"];
    let (of_trees, of_nodes) = (ints(&[0, 0, 1, 1, 1]), ints(&[1, 2, 2, 3, 4]));
    let mut all = vec![
        ("nodes_treeids", ints(&[0, 0, 0, 1, 1, 1, 1, 1])),
        ("nodes_nodeids", ints(&[0, 1, 2, 0, 1, 2, 3, 4])),
        ("nodes_featureids", ints(&[0, 0, 0, 1, 0, 0, 0, 0])),
        ("nodes_modes", Attr::Strings(modes.iter().map(|m| m.as_bytes().to_vec()).collect())),
        ("nodes_values", floats(&[1.5, 0.0, 0.0, 0.75, 2.0, 0.0, 0.0, 0.0])),
        ("nodes_truenodeids", ints(&[1, 0, 0, 1, 3, 0, 0, 0])),
        ("nodes_falsenodeids", ints(&[2, 0, 0, 2, 4, 0, 0, 0])),
    ];
    all.extend(match labels {
        "class" => [("class_treeids", of_trees), ("class_nodeids", of_nodes)],
        _ => [("target_treeids", of_trees), ("target_nodeids", of_nodes)],
    });
    all
}

fn made() -> Result<Vec<Case>> {
    let t = |shape: &[usize], v: &[f32]| Tensor::from_slice(shape, v);
    let labels = |v: &[i64]| Tensor::from_slice(&[v.len()], v);
    let x = t(&[3, 2], &[1.0, 2.0, 3.0, -1.0, 0.25, 0.5])?;
    let with = |base: Vec<(&'static str, Attr)>, more: &[(&'static str, Attr)]| [base, more.to_vec()].concat();
    let weights = floats(&[1.0, 2.0, -3.0, 4.0, 0.5]);
    let mut all = Vec::new();

    for (name, how, y) in [
        ("sum", "SUM", [1.5, 3.5, -2.5, 1.5, -1.5, 0.0]),
        ("average", "AVERAGE", [1.0, 1.5, -1.0, 0.5, -0.5, 0.0]),
        ("least", "MIN", [1.5, 3.5, -2.5, 1.5, -2.5, 0.0]),
        ("greatest", "MAX", [1.5, 3.5, -2.5, 1.5, 1.5, 0.0]),
    ] {
        let attrs = with(
            trees("target"),
            &[
                ("n_targets", Attr::Int(2)),
                ("aggregate_function", text(how)),
                ("base_values", floats(&[0.5, -0.5])),
                ("target_ids", ints(&[0, 1, 0, 1, 0])),
                ("target_weights", weights.clone()),
            ],
        );
        all.push(case("TreeEnsembleRegressor", name, x.clone(), vec![t(&[3, 2], &y)?], &attrs));
    }
    let classes = |ids: &[i64], of: &[i64], weights: &Attr, post: &str| {
        with(
            trees("class"),
            &[
                ("classlabels_int64s", ints(of)),
                ("class_ids", ints(ids)),
                ("class_weights", weights.clone()),
                ("post_transform", text(post)),
            ],
        )
    };
    let softmax = [
        0.046_612_62,
        0.936_239_54,
        0.017_147_826,
        0.118_499_65,
        0.875_600_6,
        0.005_899_75,
        0.721_399_2,
        0.265_387_95,
        0.013_212_888,
    ];
    let small = floats(&[0.1, 0.2, 0.3, 0.4, 0.05]);
    let tree = "TreeEnsembleClassifier";
    let three = |post: &str| classes(&[0, 1, 2, 1, 0], &[10, 20, 30], &weights, post);
    let two = |class: i64, w: &Attr, post: &str| classes(&[class; 5], &[10, 20], w, post);
    all.push(case(tree, "softmax", x.clone(), vec![labels(&[20, 20, 10])?, t(&[3, 3], &softmax)?], &three("SOFTMAX")));
    for (name, y, label, attrs) in [
        ("one_score", [-5.0, 5.0, 1.0, -1.0, 2.0, -2.0], [20, 10, 10], two(0, &weights, "NONE")),
        ("second_class", [0.0, 5.0, 0.0, -1.0, 0.0, -2.0], [20, 10, 10], two(1, &weights, "NONE")),
        ("probability", [0.5, 0.5, 0.5, 0.5, 0.6, 0.4], [10, 10, 10], two(0, &small, "NONE")),
        (
            "logistic",
            [0.377_540_65, 0.622_459_35, 0.377_540_65, 0.622_459_35, 0.401_312_35, 0.598_687_65],
            [10, 10, 10],
            two(0, &small, "LOGISTIC"),
        ),
    ] {
        all.push(case(tree, name, x.clone(), vec![labels(&label)?, t(&[3, 2], &y)?], &attrs));
    }

    let vectors = floats(&[1.0, 2.0, 0.0, 1.0, -1.0, 0.5, 2.0, -1.0]);
    for (name, kernel, one, many) in [
        ("linear", "LINEAR", [4.125, 6.0, 1.125], [4.125, 1.65, 0.5, 0.75, 5.1, 0.15, 1.125, 0.225, 0.5]),
        (
            "poly",
            "POLY",
            [6.968_75, 11.765_625, 0.828_125],
            [6.921_875, 2.378_125, 0.431_25, 1.218_75, 10.478_125, -6.7, 0.781_25, 0.076_562_51, 0.431_25],
        ),
        (
            "rbf",
            "RBF",
            [0.957_098, 0.580_676_9, 0.109_504_48],
            [
                0.952_044_5,
                0.128_629_36,
                0.466_548_98,
                0.125_778_94,
                0.205_649_72,
                0.257_311_5,
                0.056_846_216,
                0.047_245_5,
                0.151_432_26,
            ],
        ),
        (
            "sigmoid",
            "SIGMOID",
            [0.937_636_6, 1.405_492, 0.842_765_7],
            [
                0.753_947_6,
                0.400_903_7,
                0.230_589_48,
                0.656_321_3,
                0.640_731_8,
                0.734_046,
                0.659_076_75,
                0.237_284_12,
                0.230_589_48,
            ],
        ),
    ] {
        let shared = [
            ("kernel_type", text(kernel)),
            ("kernel_params", floats(&[0.5, 0.25, 2.0])),
            ("support_vectors", vectors.clone()),
        ];
        let mine = [
            ("n_supports", Attr::Int(4)),
            ("coefficients", floats(&[1.0, -0.5, 0.25, 0.75])),
            ("rho", floats(&[0.125])),
        ];
        let attrs = with(shared.to_vec(), &mine);
        all.push(case("SVMRegressor", name, x.clone(), vec![t(&[3, 1], &one)?], &attrs));
        let mine = [
            ("vectors_per_class", ints(&[2, 1, 1])),
            ("classlabels_ints", ints(&[7, 8, 9])),
            ("coefficients", floats(&[1.0, -0.5, 0.25, 0.75, 0.3, 0.2, -0.7, -0.4])),
            ("rho", floats(&[0.125, -0.25, 0.5])),
        ];
        let attrs = with(shared.to_vec(), &mine);
        all.push(case("SVMClassifier", name, x.clone(), vec![labels(&[7, 7, 7])?, t(&[3, 3], &many)?], &attrs));
        if name == "rbf" {
            let prob = [("prob_a", floats(&[-1.0, -0.5, -0.75])), ("prob_b", floats(&[0.1, 0.2, -0.1]))];
            let y = [
                0.409_266_95,
                0.277_025_25,
                0.313_707_9,
                0.327_965_26,
                0.361_869_66,
                0.310_164_93,
                0.310_930_7,
                0.362_522_75,
                0.326_546_73,
            ];
            let attrs = with(attrs, &prob);
            all.push(case(
                "SVMClassifier",
                "probabilities",
                x.clone(),
                vec![labels(&[7, 7, 7])?, t(&[3, 3], &y)?],
                &attrs,
            ));
        }
    }
    let linear = [
        ("coefficients", floats(&[0.5, 0.25, -0.5, 1.0, 0.1, 0.2])),
        ("rho", floats(&[0.25])),
        ("classlabels_ints", ints(&[1, 2, 3])),
    ];
    let y = t(&[3, 3], &[1.25, 1.75, 0.75, 1.5, -2.25, 0.35, 0.5, 0.625, 0.375])?;
    all.push(case("SVMClassifier", "by_class", x.clone(), vec![labels(&[2, 1, 2])?, y], &linear));

    let many = Tensor::from_slice(&[2, 2], &[1i64, 5, 7, 0])?;
    let y = t(&[2, 2, 3], &[0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])?;
    all.push(case("OneHotEncoder", "plain", many, vec![y], &[("cats_int64s", ints(&[5, 1, 0]))]));
    let holes = t(&[2, 2], &[1.0, f32::NAN, f32::NAN, 2.0])?;
    let fill = [("imputed_value_floats", floats(&[5.0, 6.0])), ("replaced_value_float", Attr::Float(f32::NAN))];
    all.push(case("Imputer", "nan", holes, vec![t(&[2, 2], &[1.0, 6.0, 5.0, 2.0])?], &fill));
    let wider = t(&[2, 3], &[1.0, 2.0, 0.0, 3.0, 4.0, 0.0])?;
    let table = t(&[2, 2], &[1.0, 2.0, 3.0, 4.0])?;
    all.push(case("FeatureVectorizer", "wider", table, vec![wider], &[("inputdimensions", ints(&[3]))]));
    let names = Attr::Strings(vec![b"a".to_vec(), b"b".to_vec()]);
    let map = [("cats_int64s", ints(&[1, 3])), ("cats_strings", names)];
    let words = Tensor::from_strings(&[3], vec!["b".into(), "a".into(), "_Unused".into()])?;
    all.push(case("CategoryMapper", "to_strings", Tensor::from_slice(&[3], &[3i64, 1, 9])?, vec![words], &map));
    Ok(all)
}
