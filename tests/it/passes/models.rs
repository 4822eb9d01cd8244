//! What the passes make of real exported models: nothing of an attention is left but the operator.

use super::*;
use ortx::base::parallel::Serial;
use ortx::ir::Dim;
use ortx::plan::{Item, SlotKind};
use ortx::{Environment, ModelSource, Session, SessionOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The exported transformers that are here: name, file, layers.
fn transformers() -> Vec<(&'static str, PathBuf, usize)> {
    let bench = std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache/ortx-bench/models"));
    let of = |name: &str| Some(bench.as_ref()?.join(name).join("model.onnx")).filter(|p| p.exists());
    let minilm = crate::models::find("minilm").map(|r| r.model);
    let only = std::env::var("ORTX_CASE").unwrap_or_default();
    let all = [
        ("minilm", minilm, 3),
        ("bert_base", of("bert_base"), 12),
        ("gpt2", of("gpt2"), 12),
        ("vit_b_16", of("vit_b_16"), 12),
    ];
    let mut here = Vec::new();
    for (name, path, layers) in all.into_iter().filter(|m| m.0.contains(&only)) {
        match path {
            Some(path) => here.push((name, path, layers)),
            None => println!("skipped: {name} is not here"),
        }
    }
    here
}

fn open(path: &Path) -> Session {
    let source = ModelSource::Path(path.to_path_buf());
    Session::new(&Environment::new(), source, &SessionOptions::default()).unwrap()
}

/// The operators left after all passes.
fn left(path: &Path) -> BTreeMap<&'static str, usize> {
    let session = open(path);
    let mut all = BTreeMap::new();
    session.program().graph().nodes().for_each(|(_, n)| *all.entry(n.op.name()).or_default() += 1);
    for r in session.passes() {
        println!("{:18} {:4} {:?}", r.pass, r.fired, r.misses.iter().take(3).collect::<Vec<_>>());
    }
    println!("{}: {all:?}", path.display());
    if std::env::var_os("ORTX_DUMP").is_some() {
        println!("{}", dump::dump(session.program().graph()));
    }
    all
}

#[test]
fn attention_of_exported_models() {
    // `ORTX_MODEL=file ORTX_DUMP=1 .. -- --nocapture` shows what the passes make of any model.
    if let Some(p) = std::env::var_os("ORTX_MODEL") {
        left(Path::new(&p));
        return;
    }
    for (name, path, layers) in transformers() {
        let ops = left(&path);
        assert_eq!(ops.get("Attention"), Some(&layers), "{name}: {ops:?}");
        assert_eq!(ops.get("Softmax"), None, "{name}: {ops:?}");
    }
}

/// All arithmetic on sizes is done when the plan is made: no step makes or reads a computed list of integers.
#[test]
fn no_step_touches_a_shape() {
    for (name, path, _) in transformers() {
        let session = open(&path);
        let size = |d: &Dim| match d.to_string() {
            d if d.contains("batch") => 2,
            // Past and new tokens.
            d if d.contains("total") => 16,
            d => d.parse().unwrap_or(8),
        };
        let zeros = |f: &Fact| {
            let dims: Vec<usize> = f.as_tensor().unwrap().dims.as_ref().unwrap().iter().map(size).collect();
            Value::Tensor(Tensor::zeroed(f.dtype().unwrap(), &dims).unwrap())
        };
        let inputs: Vec<Value> = session.inputs().iter().map(|io| zeros(&io.fact)).collect();
        let plan = session.program().first_segment(&inputs, &Serial).unwrap();
        assert!(plan.tail.is_none(), "{name}: part of the plan hangs on values");
        for item in &plan.items {
            let Item::Step(step) = item else { panic!("{name}: {:?}", session.program().item_names(item)) };
            let places = step.inputs.iter().chain(&step.outputs).filter_map(|&s| plan.slots.get(s as usize));
            let lists = places.filter(|s| matches!(s.dtype, DType::I64 | DType::I32) && s.shape.len() < 2);
            let lists: Vec<_> = lists.filter(|s| matches!(s.kind, SlotKind::Arena(_) | SlotKind::Output(_))).collect();
            assert!(lists.is_empty(), "{name}: {:?} touches {lists:?}", session.program().item_names(item));
        }
    }
}
