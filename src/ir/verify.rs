//! Checks a graph's form: what the builder and editor promise, and every pass must keep.

use super::Graph;
use crate::ensure;
use crate::error::Result;

/// Fails where an id is out of range, a value is used before it is made, or a producer link is wrong.
pub fn verify(g: &Graph) -> Result<()> {
    let mut made = vec![false; g.value_count()];
    for (i, m) in made.iter_mut().enumerate() {
        *m = g.values[i].producer.is_none();
    }
    for (id, node) in g.nodes() {
        for v in node.inputs.iter().flatten() {
            ensure!(v.index() < made.len(), Internal, "{} uses a value that does not exist", node.describe());
            ensure!(made[v.index()], Internal, "{} uses '{}' before it is made", node.describe(), g.value(*v).name);
        }
        for (p, v) in node.outputs.iter().enumerate() {
            let Some(v) = v else { continue };
            let link = g.values.get(v.index()).and_then(|v| v.producer);
            ensure!(
                link == Some((id, p as u32)),
                Internal,
                "output {p} of {} has a wrong producer link",
                node.describe()
            );
            made[v.index()] = true;
        }
        for sub in node.op.subgraphs() {
            verify(sub)?;
        }
    }
    for v in &g.outputs {
        let ok = made.get(v.index()).copied().unwrap_or(false);
        ensure!(ok, Internal, "an output of graph '{}' is never made", g.name);
        let v = g.value(*v);
        let has = v.producer.is_some()
            || v.fact.constant().is_some()
            || g.inputs.iter().any(|i| std::ptr::eq(g.value(*i), v));
        ensure!(
            has,
            InvalidModel,
            "output '{}' of graph '{}' is neither computed, constant, nor an input",
            v.name,
            g.name
        );
    }
    Ok(())
}
