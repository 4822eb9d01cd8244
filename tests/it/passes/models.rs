//! What the passes make of real exported models: nothing of an attention is left but the operator.

use super::*;
use ortx::{Environment, ModelSource, Session, SessionOptions};
use std::collections::BTreeMap;
use std::path::Path;

/// The operators left after all passes.
fn left(path: &Path) -> BTreeMap<&'static str, usize> {
    let source = ModelSource::Path(path.to_path_buf());
    let session = Session::new(&Environment::new(), source, &SessionOptions::default()).unwrap();
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
    let minilm = crate::models::find("minilm").map(|r| r.model);
    let bench = std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache/ortx-bench/models"));
    let of = |name: &str| Some(bench.as_ref()?.join(name).join("model.onnx")).filter(|p| p.exists());
    let only = std::env::var("ORTX_CASE").unwrap_or_default();
    let all = [("minilm", minilm), ("bert_base", of("bert_base")), ("gpt2", of("gpt2")), ("vit_b_16", of("vit_b_16"))];
    for (name, path) in all.into_iter().filter(|m| m.0.contains(&only)) {
        let Some(path) = path else {
            println!("skipped: {name} is not here");
            continue;
        };
        let ops = left(&path);
        let layers = if name == "minilm" { 3 } else { 12 };
        assert_eq!(ops.get("Attention"), Some(&layers), "{name}: {ops:?}");
        assert_eq!(ops.get("Softmax"), None, "{name}: {ops:?}");
    }
}
