//! Operators of `com.microsoft` against onnxruntime's answers: `tests/contrib/*.onnx`, made by `scripts/make_contrib.py`. Each
//! holds its inputs (`in:NAME`) and answers (`out:NAME`) as initialisers.

use crate::values;
use ortx::import::tensor_from_proto;
use ortx::proto::external::External;
use ortx::proto::read;
use ortx::proto::source::Mode;
use ortx::session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
use ortx::tensor::Value;
use std::path::Path;

/// f32 sums of some tens of numbers below ten, and softmaxes of them; onnxruntime's own differ as much from f64.
const TOLERANCE: f64 = 2e-5;

fn check(path: &Path) -> Result<(), String> {
    let say = |e: ortx::Error| format!("{e:#}");
    let (model, _) = read::open_path(path, Mode::default()).map_err(say)?;
    let graph = model.graph.as_ref().ok_or("no graph")?;
    let find = |name: String| -> Result<Value, String> {
        let t = graph.initializer.iter().find(|t| t.name() == name).ok_or_else(|| format!("no {name}"))?;
        tensor_from_proto(t, &External::none()).map(Value::Tensor).map_err(say)
    };
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(&Environment::new(), ModelSource::Path(path.into()), &options).map_err(say)?;
    let inputs = session.inputs().iter().map(|i| find(format!("in:{}", i.name))).collect::<Result<Vec<_>, _>>()?;
    let mut outputs = vec![None; session.outputs().len()];
    session.run_values(&inputs, &mut outputs, &RunOptions::default()).map_err(say)?;
    for (got, io) in outputs.iter().zip(session.outputs()) {
        let got = got.as_ref().ok_or_else(|| format!("'{}' was not made", io.name))?;
        let want = find(format!("out:{}", io.name))?;
        values::compare(got, &want, TOLERANCE, TOLERANCE).map_err(|e| format!("'{}': {e}", io.name))?;
    }
    Ok(())
}

#[test]
fn contrib_operators_answer_as_onnxruntime_does() {
    let mut files: Vec<_> = std::fs::read_dir("tests/contrib").unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let name = |p: &Path| p.file_stem().unwrap().to_string_lossy().into_owned();
    let failed: Vec<_> = files.iter().filter_map(|p| check(p).err().map(|e| format!("{}: {e}", name(p)))).collect();
    assert!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), files.len(), failed.join("\n"));
    assert!(files.len() > 60);
}
