//! Items that work on values instead of planned memory: eager operators, nodes with subgraphs, and graph outputs made by them.

use super::control::{self, recycled};
use super::frame::Frame;
use super::output::Receiver;
use super::program::Program;
use super::run::{RunCtx, host_place};
use super::segment::{DynamicItem, Segment, SlotKind};
use super::specialise::missing;
use crate::backend::cpu::{Arg, EagerCtx, Values};
use crate::backend::step::NO_VALUE;
use crate::error::{Context, Result};
use crate::ir::build::infer_op;
use crate::ir::fact::MAX_CONTENTS;
use crate::ir::{Alias, Fact, Node, TensorFact};
use crate::tensor::{DType, TensorView, Value};
use crate::{bail, ensure, err};
use smallvec::smallvec;

/// An input of a run: a value of the caller's, or what a subgraph is given. A list of either is taken as it is, for making
/// one of the other would allocate.
pub trait Given {
    /// A look at it.
    fn arg(&self) -> Arg<'_>;
}

impl Given for Value {
    fn arg(&self) -> Arg<'_> {
        Arg::of(self)
    }
}

impl Given for &Value {
    fn arg(&self) -> Arg<'_> {
        Arg::of(self)
    }
}

impl Given for Arg<'_> {
    fn arg(&self) -> Arg<'_> {
        self.clone()
    }
}

impl Program {
    /// Inputs of an eager or control item.
    fn args<'a>(
        &'a self,
        frame: &'a Frame,
        depth: usize,
        segment: &'a Segment,
        d: &DynamicItem,
        inputs: &'a [impl Given],
        list: Vec<Arg<'static>>,
    ) -> Result<Vec<Arg<'a>>> {
        let node = self.graph.node(d.node);
        let mut args = recycled(list);
        for (v, &slot) in node.inputs.iter().zip(&d.inputs) {
            let Some(v) = v else {
                args.push(Arg::Absent);
                continue;
            };
            if let Some(x) = &frame.values[v.index()] {
                args.push(Arg::of(x));
            } else if let Some(i) = self.graph.inputs().iter().position(|i| i == v) {
                args.push(inputs[i].arg());
            } else if slot != NO_VALUE {
                let s = &segment.slots[slot as usize];
                let addr = frame.parts[depth].places[slot as usize].addr;
                if let SlotKind::Constant(t) = &s.kind {
                    args.push(Arg::Tensor(t.as_view()));
                } else {
                    // SAFETY: a dense host slot of this type and shape, written by an earlier item.
                    args.push(Arg::Tensor(unsafe { TensorView::from_raw(s.dtype, &s.shape, addr) }));
                }
            } else if let Some(t) = self.graph.fact(*v).constant() {
                args.push(Arg::Tensor(t.as_view()));
            } else {
                return Err(missing(&self.graph.value(*v).name));
            }
        }
        Ok(args)
    }

    /// Runs an eager operator, or a view of what is not planned.
    pub(super) fn run_eager(
        &self,
        cx: &RunCtx<'_>,
        frame: &mut Frame,
        depth: usize,
        segment: &Segment,
        d: &DynamicItem,
        inputs: &[impl Given],
    ) -> Result<()> {
        let node = self.graph.node(d.node);
        let mut kept = frame.take_kept(d.node);
        let args = self.args(frame, depth, segment, d, inputs, std::mem::take(&mut kept.list))?;
        let results = if let Some(run) = self.target.cpu.bindings().find_eager(&*node.op) {
            let mut cx = EagerCtx::new(cx.pool, node.outputs.len(), std::mem::take(&mut kept.memory));
            let results = run(&*node.op, &mut cx, &args);
            kept.memory = cx.into_memory(results.as_deref().unwrap_or_default());
            results
        } else if node.op.alias() == Alias::View {
            dynamic_view(node, &args)
        } else {
            Err(err!(Internal, "no way to run it"))
        };
        let results = results.context(|| describe(node, &args))?;
        kept.list = recycled(args);
        frame.keep(d.node, kept);
        ensure!(results.len() >= node.outputs.len(), Internal, "{} gave {} results", node.describe(), results.len());
        results.into_iter().enumerate().try_for_each(|(k, value)| self.set(frame, depth, segment, d, k, value))
    }

    /// Runs a node with subgraphs, in memory that it kept from the last time.
    pub(super) fn run_control(
        &self,
        cx: &RunCtx<'_>,
        frame: &mut Frame,
        depth: usize,
        segment: &Segment,
        d: &DynamicItem,
        inputs: &[impl Given],
    ) -> Result<()> {
        let node = self.graph.node(d.node);
        let mut kept = frame.take_kept(d.node);
        let args = self.args(frame, depth, segment, d, inputs, std::mem::take(&mut kept.list))?;
        control::run(self, cx, d.node, &args, &mut kept).context(|| describe(node, &args))?;
        kept.list = recycled(args);
        for k in 0..node.outputs.len() {
            let value = kept.results.get(k).cloned().flatten();
            let value = value.ok_or_else(|| err!(Internal, "{} gave no result {k}", node.describe()))?;
            self.set(frame, depth, segment, d, k, value)?;
        }
        frame.keep(d.node, kept);
        Ok(())
    }

    /// Puts result `k` of an item where later ones look for it.
    fn set(
        &self,
        frame: &mut Frame,
        depth: usize,
        segment: &Segment,
        d: &DynamicItem,
        k: usize,
        value: Value,
    ) -> Result<()> {
        let node = self.graph.node(d.node);
        let Some((Some(v), &slot)) = node.outputs.get(k).zip(d.outputs.get(k)) else { return Ok(()) };
        if slot != NO_VALUE {
            let (s, t) = (&segment.slots[slot as usize], value.as_tensor()?);
            ensure!(
                t.shape() == &s.shape[..] && t.dtype() == s.dtype,
                Internal,
                "{}: {} {:?} was foreseen, it is {t:?}",
                node.describe(),
                s.dtype,
                s.shape
            );
            let place = host_place(t)?;
            let part = &mut frame.parts[depth];
            part.places[slot as usize] = place;
            let late = segment.late.iter().filter(|l| l.1.root == slot);
            late.for_each(|&(s, within)| part.places[s as usize] = place.at(within.offset));
        }
        frame.values[v.index()] = Some(value);
        Ok(())
    }

    /// Graph outputs that no segment wrote: values made on the fly, strings, sequences, inputs passed through.
    pub(super) fn dynamic_outputs(
        &self,
        frame: &Frame,
        inputs: &[impl Given],
        outputs: &mut [impl Receiver],
    ) -> Result<()> {
        for (i, &v) in self.graph.outputs().iter().enumerate() {
            if let Some(x) = &frame.values[v.index()] {
                outputs[i].give(&Arg::of(x))?;
            } else if let Some(k) = self.graph.inputs().iter().position(|&x| x == v) {
                outputs[i].give(&inputs[k].arg())?;
            } else if let Some(t) = self.graph.fact(v).constant().filter(|t| t.dtype() == DType::String) {
                outputs[i].give(&Arg::Tensor(t.as_view()))?;
            }
        }
        Ok(())
    }
}

/// A node and its arguments, for errors.
fn describe(node: &Node, args: &[Arg<'_>]) -> String {
    let facts: Vec<String> = args.iter().map(describe_arg).collect();
    format!("{} of {}", node.describe(), facts.join(", "))
}

/// What is known of a value that is there.
fn fact_of(v: &Value, declared: &Fact) -> Fact {
    match v {
        Value::Tensor(t) => Fact::sized(t.dtype(), t.shape()),
        Value::Sequence(s) => match (s.first(), declared) {
            (_, Fact::Sequence(e)) => Fact::Sequence(e.clone()),
            (Some(Value::Tensor(t)), _) => Fact::Sequence(Box::new(Fact::any_tensor(t.dtype()))),
            _ => Fact::Sequence(Box::new(Fact::Unknown)),
        },
        Value::Optional(o) => match declared {
            Fact::Optional(e) => Fact::Optional(e.clone()),
            _ => Fact::Optional(Box::new(o.as_ref().map_or(Fact::Unknown, |v| fact_of(v, &Fact::Unknown)))),
        },
        Value::Map(m) => Fact::Map(m.keys.dtype(), Box::new(fact_of(&m.values, &Fact::Unknown))),
    }
}

/// What is known of an argument.
pub fn fact_of_arg(a: &Arg<'_>, declared: &Fact) -> Fact {
    match a {
        Arg::Absent => Fact::Absent,
        Arg::Tensor(t) => Fact::sized(t.dtype(), t.shape()),
        Arg::Value(v) => fact_of(v, declared),
    }
}

/// A description of an argument, for errors.
fn describe_arg(a: &Arg<'_>) -> String {
    match a {
        Arg::Absent => "-".into(),
        Arg::Tensor(t) => format!("{}{:?}", t.dtype(), t.shape()),
        Arg::Value(v) => v.kind().into(),
    }
}

/// Views of values that have no planned place: strings, and tensors whose shape was not known.
fn dynamic_view(node: &Node, args: &[Arg<'_>]) -> Result<Values> {
    let facts: Vec<Fact> = args
        .iter()
        .map(|a| {
            Ok(match a {
                Arg::Tensor(t) if t.dtype() != DType::String && t.len() <= MAX_CONTENTS => {
                    Fact::Tensor(TensorFact::constant(t.to_tensor()?))
                }
                a => fact_of_arg(a, &Fact::Unknown),
            })
        })
        .collect::<Result<_>>()?;
    let refs: Vec<&Fact> = facts.iter().collect();
    let out = infer_op(&node.op, &refs, 1)?;
    match (&args[0], out[0].shape()) {
        (Arg::Tensor(t), Some(shape)) => Ok(smallvec![Value::Tensor(t.to_tensor()?.reshaped(&shape)?)]),
        (a, None) if matches!(a, Arg::Value(_)) => Ok(smallvec![a.to_value()?]),
        _ => bail!(Unsupported, "the shape of the result cannot be known"),
    }
}
