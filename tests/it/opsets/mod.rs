//! Every version of every operator: models of one node, with what must come out. `scripts/make_opsets.py` writes
//! `tests/opsets.txt`: by formula, by the cases of the ONNX backend suite, and by asking other engines.

mod lines;

use crate::values::compare;
use lines::{Case, Want, cases, s};
use ortx::proto::onnx::{ModelProto, OperatorSetIdProto};
use ortx::session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
use ortx::tensor::DType;
use prost::Message;
use std::collections::BTreeSet;

fn bytes(case: &Case) -> Vec<u8> {
    let mut graph = case.graph.clone();
    graph.name = s("opsets");
    let import = |domain: &str, version| OperatorSetIdProto { domain: s(domain), version: Some(version) };
    let mut opset_import = vec![import(&case.domain, case.version)];
    if !case.domain.is_empty() {
        opset_import.push(import("", 21));
    }
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..Default::default() }.encode_to_vec()
}

/// Names and bytes of all models.
pub fn models() -> Vec<(String, Vec<u8>)> {
    cases().iter().map(|c| (c.name.clone(), bytes(c))).collect()
}

fn run(case: &Case, environment: &Environment) -> Result<(), String> {
    let say = |e: ortx::Error| format!("{e:#}");
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let source = ModelSource::Bytes(bytes(case).into(), None);
    let session = Session::new(environment, source, &options).map_err(say)?;
    let mut outputs = vec![None; case.outputs.len()];
    session.run_values(&case.inputs, &mut outputs, &RunOptions::default()).map_err(say)?;
    for (i, (got, want)) in outputs.iter().zip(&case.outputs).enumerate() {
        let got = got.as_ref().ok_or_else(|| format!("output {i} was not made"))?;
        match want {
            Want::Value(want) => {
                // Some ten roundings of f32 in either computation; one or two of a narrow type.
                let narrow = want.as_tensor().is_ok_and(|t| matches!(t.dtype(), DType::F16 | DType::BF16));
                let bound = if narrow { 2e-3 } else { 2e-6 };
                compare(got, want, bound, bound).map_err(|e| format!("output {i}: {e}"))?;
            }
            Want::Any(dtype, shape) => {
                let got = got.as_tensor().map_err(say)?;
                if got.dtype() != *dtype || got.shape() != shape {
                    return Err(format!("output {i}: {got:?} instead of {dtype} {shape:?}"));
                }
            }
        }
    }
    Ok(())
}

/// `ORTX_CASE`, a part of its name, runs some alone.
#[test]
fn every_version_means_what_it_meant() {
    let (environment, cases) = (Environment::new(), cases());
    let only = std::env::var("ORTX_CASE").unwrap_or_default();
    let failed: Vec<String> = (cases.iter().filter(|c| c.name.contains(&only)))
        .filter_map(|c| run(c, &environment).err().map(|e| format!("{}: {e}", c.name)))
        .collect();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cases.len(), failed.join("\n"));
}

/// Versions of operators that package onnx has as retired, so that its table of those in force does not name them.
const RETIRED: &[(&str, &str, &[i64])] = &[
    ("", "Scatter", &[9]),
    ("", "Upsample", &[1, 7, 9]),
    ("ai.onnx.ml", "TreeEnsembleClassifier", &[1, 3]),
    ("ai.onnx.ml", "TreeEnsembleRegressor", &[1, 3]),
];

/// Tested elsewhere.
const ELSEWHERE: &[(&str, &str, i64)] = &[
    // It names values of the graph that it stands in: `gradient.rs`, and the backend suite.
    ("ai.onnx.preview.training", "Gradient", 1),
];

#[test]
fn no_version_goes_untested() {
    let cases = cases();
    let have: BTreeSet<_> = cases.iter().map(|c| (&*c.domain, &*c.operator, c.version)).collect();
    let table = std::fs::read_to_string("tests/onnx_schemas.tsv").unwrap();
    let mut wanted = BTreeSet::new();
    for row in table.lines().filter(|l| !l.starts_with('#')) {
        let words: Vec<&str> = row.split('\t').collect();
        let domain = if words[0] == "ai.onnx" { "" } else { words[0] };
        wanted.extend(words[2].split(',').map(|v| (domain, words[1], v.parse::<i64>().unwrap())));
    }
    wanted.extend(RETIRED.iter().flat_map(|(d, o, all)| all.iter().map(move |&v| (*d, *o, v))));
    assert!(wanted.len() > 600, "{} versions", wanted.len());
    let untested: Vec<_> = wanted.difference(&have).filter(|v| !ELSEWHERE.contains(v)).collect();
    assert!(untested.is_empty(), "{} versions have no case: {untested:?}", untested.len());
}
