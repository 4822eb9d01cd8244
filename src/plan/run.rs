//! Runs a program: finds or makes the plan of the inputs' shapes, readies a frame, and goes through the items.

use super::dynamic::{Given, fact_of_arg};
use super::frame::Frame;
use super::key::{self, Key, continuation, push_arg, push_bytes, push_shape};
use super::output::Receiver;
use super::program::Program;
use super::segment::{Item, Segment, SlotKind, StepItem, Tail};
use super::specialise::{Ready, Start, again, missing, specialise, specialise_first};
use super::template::Template;
use crate::backend::cpu::Arg;
use crate::backend::step::{Place, StepArgs, run_phases};
use crate::base::cancel::Stop;
use crate::base::parallel::Parallel;
use crate::error::{Context, Result};
use crate::ir::{Fact, Node, TensorFact, ValueId};
use crate::tensor::{Tensor, TensorView, Value};
use crate::{ensure, err};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

/// What a run uses beside the program.
pub struct RunCtx<'a> {
    /// Threads.
    pub pool: &'a dyn Parallel,
    /// Stops the run between tasks.
    pub stop: Stop<'a>,
    /// Is told the time of each item, if there is one.
    pub profile: Option<&'a Mutex<Vec<Timing>>>,
}

/// How long one item of a plan took.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The node's name; empty for copies between memories.
    pub node: Arc<str>,
    /// Its operator.
    pub op: &'static str,
    /// What ran: a kernel's name; `eager`; for a node with subgraphs, whose own items are told too, `control`.
    pub kernel: String,
    /// Nanoseconds.
    pub ns: u64,
}

impl Program {
    /// Runs the graph. There is an entry a graph input and a graph output.
    pub fn run(&self, cx: &RunCtx<'_>, inputs: &[impl Given], outputs: &mut [impl Receiver]) -> Result<()> {
        ensure!(
            inputs.len() == self.graph.inputs().len(),
            InvalidArgument,
            "{} inputs are needed, {} are given",
            self.graph.inputs().len(),
            inputs.len()
        );
        ensure!(
            outputs.len() == self.graph.outputs().len(),
            InvalidArgument,
            "{} outputs are needed, {} are given",
            self.graph.outputs().len(),
            outputs.len()
        );
        self.frames.with(self.graph.value_count(), |frame| self.run_in(frame, cx, inputs, outputs))
    }

    fn run_in(
        &self,
        frame: &mut Frame,
        cx: &RunCtx<'_>,
        inputs: &[impl Given],
        outputs: &mut [impl Receiver],
    ) -> Result<()> {
        let key = key::of_inputs(inputs, std::mem::take(&mut frame.spare_key));
        let first = frame.take_first(&key).map_or_else(|| self.segment_of(&key, inputs, cx.pool), Ok)?;
        let mut later = None;
        let mut depth = 0;
        let result = loop {
            let segment = later.as_ref().unwrap_or(&first);
            match self.run_segment(cx, frame, depth, segment, inputs, outputs) {
                Err(e) => break Err(e),
                Ok(()) => match &segment.tail {
                    None => break Ok(()),
                    Some(tail) => match self.next_segment(cx, tail, frame, depth, inputs, segment) {
                        Err(e) => break Err(e),
                        Ok(next) => later = Some(next),
                    },
                },
            }
            depth += 1;
        };
        let result = result.and_then(|()| self.dynamic_outputs(frame, inputs, outputs));
        frame.end_run(key, first);
        result
    }

    /// The plan's first segment for the shapes of these inputs; `inspect` shows it.
    pub fn first_segment(&self, inputs: &[Value], threads: &dyn Parallel) -> Result<Arc<Segment>> {
        self.segment_of(&key::of_inputs(inputs, Key::new()), inputs, threads)
    }

    fn segment_of(&self, key: &Key, inputs: &[impl Given], threads: &dyn Parallel) -> Result<Arc<Segment>> {
        if let Some(s) = self.segments.get(key) {
            return Ok(s);
        }
        let known = self.graph.inputs().iter().zip(inputs).map(|(&v, a)| fact_of_arg(&a.arg(), self.graph.fact(v)));
        self.plan_first(key.clone(), known, threads)
    }

    /// Makes the first segment ahead of the first run, if the graph itself tells the sizes of all its inputs.
    pub fn prepare(&self, threads: &dyn Parallel) -> Result<()> {
        let mut key = Key::new();
        let facts: Vec<&Fact> = self.graph.inputs().iter().map(|&v| self.graph.fact(v)).collect();
        for f in &facts {
            match (f.dtype(), f.shape()) {
                (Some(dtype), Some(shape)) => push_shape(&mut key, dtype as u64, &shape),
                _ => return Ok(()),
            }
        }
        self.plan_first(key, facts.into_iter().cloned(), threads).map(drop)
    }

    fn plan_first(&self, key: Key, inputs: impl Iterator<Item = Fact>, threads: &dyn Parallel) -> Result<Arc<Segment>> {
        let inputs: Vec<Fact> = inputs.collect();
        let short = self.templates.nearest(&key).and_then(|t| {
            let segment = again(self, &t.segment, &t.recipe, inputs.iter().cloned(), threads);
            t.note(segment.is_some());
            segment
        });
        let segment = match short {
            Some(segment) => {
                self.short.fetch_add(1, Ordering::Relaxed);
                Arc::new(segment)
            }
            None => {
                self.whole.fetch_add(1, Ordering::Relaxed);
                let facts = self.source_facts(inputs.into_iter());
                let (segment, recipe) = specialise_first(self, facts, threads)?;
                let segment = Arc::new(segment);
                if let Some(recipe) = recipe {
                    self.templates.put(Template::new(key.clone(), segment.clone(), recipe));
                }
                segment
            }
        };
        self.segments.put(key, segment.clone());
        Ok(segment)
    }

    /// By value: what is known before anything ran. Constants, and these facts of the graph's inputs.
    pub(super) fn source_facts(&self, inputs: impl Iterator<Item = Fact>) -> Vec<Fact> {
        let values = (0..self.graph.value_count()).map(|i| self.graph.value(ValueId(i as u32)));
        let mut facts: Vec<Fact> =
            values.map(|info| if info.producer.is_none() { info.fact.clone() } else { Fact::Unknown }).collect();
        for (&v, fact) in self.graph.inputs().iter().zip(inputs) {
            facts[v.index()] = fact;
        }
        facts
    }

    /// What follows a segment, planned where that was not done before for what it met.
    fn next_segment(
        &self,
        cx: &RunCtx<'_>,
        tail: &Tail,
        frame: &mut Frame,
        depth: usize,
        inputs: &[impl Given],
        segment: &Segment,
    ) -> Result<Arc<Segment>> {
        let mut key = continuation(tail.id, std::mem::take(&mut frame.later_key));
        let look = |v: ValueId| self.look(v, frame, depth, inputs, segment, tail);
        for &(v, contents) in &tail.watch {
            match look(v)? {
                Arg::Tensor(t) if contents => {
                    push_shape(&mut key, t.dtype() as u64, t.shape());
                    push_bytes(&mut key, t.bytes());
                }
                a => push_arg(&mut key, &a),
            }
        }
        if let Some(s) = self.segments.get(&key) {
            frame.later_key = key;
            return Ok(s);
        }
        let mut facts = tail.facts.clone();
        for &(v, contents) in &tail.watch {
            facts[v.index()] = match look(v)? {
                Arg::Tensor(t) if contents => {
                    let own = Tensor::from_bytes(t.dtype(), t.shape(), bytes::Bytes::copy_from_slice(t.bytes()))?;
                    Fact::Tensor(TensorFact::constant(own))
                }
                a => fact_of_arg(&a, &facts[v.index()]),
            };
        }
        let start = Start { at: tail.at, facts, ready: Ready::Before(tail.at) };
        let s = Arc::new(specialise(self, start, cx.pool)?);
        self.later.fetch_add(1, Ordering::Relaxed);
        self.segments.put(key, s.clone());
        Ok(s)
    }

    /// A value at the end of a segment.
    fn look<'a>(
        &'a self,
        v: ValueId,
        frame: &'a Frame,
        depth: usize,
        inputs: &'a [impl Given],
        segment: &Segment,
        tail: &Tail,
    ) -> Result<Arg<'a>> {
        if let Some(x) = &frame.values[v.index()] {
            return Ok(Arg::of(x));
        }
        if let Some(i) = self.graph.inputs().iter().position(|&i| i == v) {
            return Ok(inputs[i].arg());
        }
        let fact = &tail.facts[v.index()];
        let place = match segment.exports.iter().find(|e| e.0 == v) {
            Some((_, slot)) => frame.parts[depth].places[*slot as usize],
            None => frame.carried[v.index()],
        };
        let (Some(dtype), Some(shape), false) = (fact.dtype(), fact.shape(), place.addr.is_null()) else {
            return Err(missing(&self.graph.value(v).name));
        };
        // SAFETY: the slot holds a dense host tensor of this fact, written by now, alive until the run ends.
        Ok(Arg::Tensor(unsafe { TensorView::from_raw(dtype, &shape, place.addr) }))
    }

    fn run_segment(
        &self,
        cx: &RunCtx<'_>,
        frame: &mut Frame,
        depth: usize,
        segment: &Arc<Segment>,
        inputs: &[impl Given],
        outputs: &mut [impl Receiver],
    ) -> Result<()> {
        let place = || "memory for intermediate values".to_string();
        frame.lay_out(depth, segment, &self.target).context(place)?;
        let scratch = segment.scratch.checked_mul(cx.pool.width());
        let scratch =
            scratch.ok_or_else(|| err!(OutOfMemory, "the threads' scratch memory passes the address space"))?;
        frame.need_scratch(scratch).context(place)?;
        for (&(i, root), &(_, seen)) in segment.direct_outputs.iter().zip(&segment.output_slots) {
            let s = &segment.slots[seen as usize];
            let addr = outputs[i].ready(s.dtype, &s.shape).context(|| self.output_name(i))?;
            frame.parts[depth].places[root as usize] = Place { addr, space: 0 };
        }
        let part = &mut frame.parts[depth];
        for (i, slot) in segment.slots.iter().enumerate() {
            match slot.kind {
                SlotKind::Input(k) => {
                    part.places[i] = view_place(inputs[k].arg().tensor()?)?;
                }
                SlotKind::Carried(v) => {
                    let place = match &frame.values[v.index()] {
                        Some(Value::Tensor(t)) => host_place(t)?,
                        _ => frame.carried[v.index()],
                    };
                    ensure!(
                        !place.addr.is_null() || slot.bytes == 0,
                        Internal,
                        "value '{}' was not carried over",
                        self.graph.value(v).name
                    );
                    part.places[i] = place;
                }
                _ => {}
            }
        }
        for &(slot, within) in &segment.late {
            part.places[slot as usize] = part.places[within.root as usize].at(within.offset);
        }
        for item in &segment.items {
            cx.stop.check()?;
            let start = cx.profile.map(|_| std::time::Instant::now());
            match item {
                Item::Step(s) => {
                    let part = &frame.parts[depth];
                    let arena = part.arena.as_ref().map_or(std::ptr::null_mut(), |a| a.ptr());
                    let workspace = arena.wrapping_add(s.workspace);
                    let mut args = StepArgs::new(&part.places, &part.memories, &s.inputs, &s.outputs, workspace);
                    if s.space != 0 {
                        args = args.with_device_workspace(s.space, s.workspace);
                    }
                    let (scratch, each) = (frame.scratch.ptr(), segment.scratch);
                    // SAFETY: operands as bound, in places of their sizes; the frame has scratch for all threads.
                    unsafe { run_phases(&*s.step, &args, scratch, each, cx.pool, &cx.stop) }
                        .context(|| self.describe(s))?;
                    if s.space != 0 && cx.profile.is_some() {
                        // The step is only queued yet; its time is wanted.
                        self.target.backend(s.backend).sync()?;
                    }
                }
                &Item::CopyIn { backend, from, to, bytes } => {
                    let part = &frame.parts[depth];
                    let (a, b) = (part.places[from as usize], part.places[to as usize]);
                    let memory = part
                        .memories
                        .get(b.space as usize)
                        .and_then(Option::as_deref)
                        .ok_or_else(|| err!(Internal, "no device memory"))?;
                    // SAFETY: slot `from` is host memory of these bytes.
                    unsafe { self.target.backend(backend).copy_in(a.addr, memory, b.addr as usize, bytes)? };
                }
                &Item::CopyOut { backend, from, to, bytes } => {
                    let part = &frame.parts[depth];
                    let (a, b) = (part.places[from as usize], part.places[to as usize]);
                    let memory = part
                        .memories
                        .get(a.space as usize)
                        .and_then(Option::as_deref)
                        .ok_or_else(|| err!(Internal, "no device memory"))?;
                    // SAFETY: slot `to` is host memory of these bytes.
                    unsafe { self.target.backend(backend).copy_out(memory, a.addr as usize, b.addr, bytes)? };
                }
                Item::Eager(d) => self.run_eager(cx, frame, depth, segment, d, inputs)?,
                Item::Control(d) => self.run_control(cx, frame, depth, segment, d, inputs)?,
            }
            if let (Some(p), Some(t)) = (cx.profile, start) {
                let ns = t.elapsed().as_nanos() as u64;
                let (node, kernel) = self.item_names(item);
                let (node, op) = node.map_or(("".into(), ""), |n| (n.name.clone(), n.op.name()));
                let timing = Timing { node, op, kernel: kernel.to_string(), ns };
                p.lock().unwrap_or_else(PoisonError::into_inner).push(timing);
            }
        }
        let part = &frame.parts[depth];
        for &(i, slot) in &segment.copied_outputs {
            let s = &segment.slots[slot as usize];
            let addr = outputs[i].ready(s.dtype, &s.shape).context(|| self.output_name(i))?;
            let from = part.places[slot as usize].addr;
            if s.bytes > 0 {
                // SAFETY: both hold s.bytes bytes; an output never is the memory of another value.
                unsafe { std::ptr::copy(from, addr, s.bytes) };
            }
        }
        for &(v, slot) in &segment.exports {
            frame.carried[v.index()] = part.places[slot as usize];
        }
        Ok(())
    }

    fn output_name(&self, i: usize) -> String {
        format!("output '{}'", self.graph.value(self.graph.outputs()[i]).name)
    }

    fn describe(&self, s: &StepItem) -> String {
        if self.graph.has_node(s.node) { self.graph.node(s.node).describe() } else { s.step.kernel().to_string() }
    }

    /// The node behind an item, where there is one, and what runs.
    pub fn item_names<'a>(&'a self, item: &'a Item) -> (Option<&'a Node>, &'a str) {
        let node = |id| self.graph.has_node(id).then(|| self.graph.node(id));
        match item {
            Item::Step(s) => (node(s.node), s.step.kernel()),
            Item::CopyIn { .. } => (None, "copy_in"),
            Item::CopyOut { .. } => (None, "copy_out"),
            Item::Eager(d) => (node(d.node), "eager"),
            Item::Control(d) => (node(d.node), "control"),
        }
    }
}

/// Where a value's elements lie. Constants of a model file that a subgraph or a later segment gets may lie askew.
pub(super) fn host_place(t: &Tensor) -> Result<Place> {
    t.settle()?;
    Ok(Place { addr: t.data_ptr().cast_mut(), space: 0 })
}

/// The same for a look at it.
fn view_place(t: &TensorView<'_>) -> Result<Place> {
    ensure!(
        t.is_empty() || t.ptr().addr().is_multiple_of(t.dtype().align()),
        OutOfMemory,
        "no memory to align {} of a file",
        t.dtype()
    );
    Ok(Place { addr: t.ptr().cast_mut(), space: 0 })
}
