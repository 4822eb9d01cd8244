//! Graphs as text, for people and for the passes' before/after tests.

use super::{Graph, ValueId};
use std::fmt::Write;

/// One line a node: `%3 float[1,8] = Conv(%0, %1) { attributes }`. Constants stand as `#name`.
pub fn dump(g: &Graph) -> String {
    let mut s = String::new();
    let name = |v: ValueId| {
        let info = g.value(v);
        if g.is_constant(v) { format!("#{}", info.name) } else { format!("%{}", info.name) }
    };
    let list = |vs: &[ValueId]| vs.iter().map(|&v| format!("{} {}", name(v), g.fact(v))).collect::<Vec<_>>().join(", ");
    let _ = writeln!(s, "graph {} ({})", g.name, list(g.inputs()));
    for (_, n) in g.nodes() {
        let outs: Vec<_> =
            n.outputs.iter().map(|v| v.map_or("_".into(), |v| format!("{} {}", name(v), g.fact(v)))).collect();
        let ins: Vec<_> = n.inputs.iter().map(|v| v.map_or("_".into(), name)).collect();
        let _ = writeln!(s, "  {} = {}({}) {}", outs.join(", "), n.op.name(), ins.join(", "), n.op.describe());
        for sub in n.op.subgraphs() {
            for line in dump(sub).lines() {
                let _ = writeln!(s, "    | {line}");
            }
        }
    }
    let _ = writeln!(s, "  return {}", g.outputs().iter().map(|&v| name(v)).collect::<Vec<_>>().join(", "));
    s
}
