//! Computes nodes whose inputs are all constants.

use crate::backend::cpu::evaluate;
use crate::error::Result;
use crate::ir::build::infer_node;
use crate::ir::fact::MAX_CONTENTS;
use crate::ir::{Dim, Fact, Graph, NodeId, ValueId};
use crate::ops::quant::{Dequantize, Quantize};
use crate::optimize::{Pass, PassCtx};
use crate::tensor::{DType, Tensor};

/// Constant folding. Bounded, so that a model of a few bytes cannot grow to gigabytes when it is loaded: a result larger than
/// [`SMALL`], than twice its inputs, and of more elements than any of them stays a node; and all of them together may not add
/// more than [`room`] says.
pub struct Fold;

/// Results up to this size in bytes are folded as long as there is room.
const SMALL: usize = 64 << 10;

/// Bytes that folding may add to a model: what eight times its constants take (of bytes that become f32, and some more), and
/// a number that small models never reach.
pub(in crate::optimize) fn room(graph: &Graph) -> usize {
    let ids = (0..graph.value_count()).map(|i| ValueId(i as u32)).filter(|&v| graph.is_constant(v));
    let own = ids.filter_map(|v| graph.fact(v).constant());
    let own = own.map(Tensor::byte_len).fold(0, usize::saturating_add);
    own.saturating_mul(8).saturating_add(64 << 20)
}

impl Pass for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            fold(cx, id)?;
        }
        Ok(())
    }
}

/// What groups of a quantised model read: scales, zero points, integers of weights. It runs before the groups are looked for, and
/// leaves DequantizeLinear to them.
pub struct FoldScales;

impl Pass for FoldScales {
    fn name(&self) -> &'static str {
        "fold_scales"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        if !cx.graph().nodes().any(|(_, n)| n.op.is::<Quantize>()) {
            return Ok(());
        }
        let before = std::mem::replace(&mut cx.keep_groups, true);
        let folded = Fold.run(cx);
        cx.keep_groups = before;
        folded
    }
}

/// Computes one node, if its inputs are constants.
pub(super) fn fold(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let node = cx.graph().node(id);
    let kept = cx.keep_groups && node.op.is::<Dequantize>();
    if kept || !node.op.is_deterministic() || !node.op.subgraphs().is_empty() {
        return Ok(());
    }
    let contents = |v: &ValueId| cx.graph().fact(*v).contents_tensor();
    // An output may be known without its inputs being so (a Shape of fixed sizes).
    let known: Option<Vec<Tensor>> = node.outputs.iter().flatten().map(contents).collect();
    let (node, tensors) = match known {
        Some(t) => (node.clone(), t),
        None => {
            let given = |v: &Option<ValueId>| v.as_ref().map_or(Some(None), |v| contents(v).map(Some));
            let inputs: Option<Vec<Option<Tensor>>> = node.inputs.iter().map(given).collect();
            let Some(inputs) = inputs else { return refine(cx, id) };
            // Inputs that were not known before may tell the sizes.
            refine(cx, id)?;
            let node = cx.graph().node(id).clone();
            let facts: Vec<Fact> =
                node.outputs.iter().map(|v| v.map_or(Fact::Absent, |v| cx.graph().fact(v).clone())).collect();
            if !facts.iter().all(|f| f.is_absent() || f.shape().is_some()) {
                return Ok(());
            }
            let size = |f: &Fact| match (f.dtype(), f.shape()) {
                (Some(d), Some(s)) => {
                    let n = crate::base::checked::product(&s).unwrap_or(usize::MAX);
                    if d == DType::String { n.saturating_mul(32) } else { d.byte_len(n).unwrap_or(usize::MAX) }
                }
                _ => 0,
            };
            let out: usize = facts.iter().map(size).fold(0, usize::saturating_add);
            let into: usize = inputs.iter().flatten().map(Tensor::byte_len).sum();
            let most = inputs.iter().flatten().map(Tensor::len).max().unwrap_or(0);
            let count = |f: &Fact| f.shape().map_or(0, |s| crate::base::checked::product(&s).unwrap_or(usize::MAX));
            let longer = facts.iter().map(count).any(|n| n > most);
            if out > SMALL && out > 2 * into && longer {
                cx.miss(id, || format!("its constant result would take {out} bytes, its inputs take {into}"));
                return Ok(());
            }
            // What only this node reads goes.
            let alone = |v: &Option<ValueId>| v.is_some_and(|v| cx.used_once(v));
            let freed = node.inputs.iter().zip(&inputs).filter(|(v, _)| alone(v));
            let freed = freed.filter_map(|(_, t)| t.as_ref()).map(Tensor::byte_len).fold(0, usize::saturating_add);
            let added = out.saturating_sub(freed);
            if added > *cx.room {
                let left = *cx.room;
                cx.miss(id, || {
                    format!("its constant result would add {added} bytes to the model, which may grow by {left}")
                });
                return Ok(());
            }
            // Outputs nobody asked for are computed all the same: kernels want to know their shapes.
            if node.outputs.iter().any(Option::is_none) {
                return Ok(());
            }
            // What fails here fails again when it is run, if it ever is: then with the inputs of that run in the message.
            let aligned: Result<Vec<_>> = inputs.iter().map(|t| t.as_ref().map(Tensor::aligned).transpose()).collect();
            match evaluate(cx.cpu, cx.threads, &node.name, &*node.op, &aligned?, &facts) {
                Ok(Some(t)) => {
                    inputs.iter().flatten().for_each(Tensor::release);
                    *cx.room -= added;
                    (node, t)
                }
                Ok(None) | Err(_) => return Ok(()),
            }
        }
    };
    for (v, t) in node.outputs.iter().flatten().zip(tensors) {
        cx.edit.set_constant(*v, t);
    }
    cx.fired();
    Ok(())
}

/// How many sizes, or small integers, are not known at all; `None` where not even their number is.
fn gaps(f: &Fact) -> Option<usize> {
    let t = f.as_tensor()?;
    let unknown = |d: &[Dim]| d.iter().filter(|d| **d == Dim::Unknown).count();
    let sizes = unknown(t.dims.as_ref()?);
    if !t.dtype.is_int() || t.dims.as_ref()?.len() > 1 || t.tensor().is_some() {
        return Some(sizes);
    }
    // Integers that no one knows are as many gaps as there can be numbers in a fact.
    Some(sizes + t.int_dims().map_or(MAX_CONTENTS, |d| unknown(&d)))
}

/// Infers anew what is not known of a node's results: its inputs may have become constants.
fn refine(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let node = cx.graph().node(id);
    let open = |f: &Fact| f.as_tensor().is_some() && gaps(f) != Some(0);
    if !node.outputs.iter().flatten().any(|&v| open(cx.graph().fact(v))) {
        return Ok(());
    }
    let Ok(new) = infer_node(cx.graph(), node, node.outputs.len()) else { return Ok(()) };
    for (v, new) in node.outputs.clone().into_iter().zip(new) {
        let Some(v) = v else { continue };
        let old = cx.graph().fact(v);
        let same_rank = match (old.as_tensor(), new.as_tensor()) {
            (Some(a), Some(b)) => a.dtype == b.dtype && (a.rank().is_none() || a.rank() == b.rank()),
            _ => false,
        };
        let better = match (gaps(old), gaps(&new)) {
            (Some(a), Some(b)) => b < a,
            (a, b) => a.is_none() && b.is_some(),
        };
        if same_rank && better {
            cx.edit.set_fact(v, new);
        }
    }
    Ok(())
}
