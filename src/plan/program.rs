//! A program: a graph with the backends it runs on, and the plans made so far.

use super::Segment;
use super::frame::Frames;
use super::key::SegmentCache;
use super::template::Templates;
use crate::backend::cpu::CpuBackend;
use crate::backend::{Backend, PackedCache};
use crate::error::Result;
use crate::ir::{Graph, NodeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What programs run on.
pub struct Target {
    /// The CPU, which takes what no other backend claims.
    pub cpu: Arc<CpuBackend>,
    /// Other backends in order of preference.
    pub devices: Vec<Arc<dyn Backend>>,
    /// A node that no device takes is an error, instead of the CPU's.
    pub required: bool,
    /// Packed constants, shared by all graphs of a session.
    pub cache: PackedCache,
    /// The bytes of plans that each program keeps.
    pub plan_bytes: usize,
}

impl Target {
    /// The bytes of plans that are kept where nothing else is said: some thousand shapes of a small model, hundreds of a large.
    pub const PLAN_BYTES: usize = 64 << 20;

    /// The CPU alone.
    pub fn cpu(cpu: Arc<CpuBackend>) -> Self {
        let cache = PackedCache::new();
        Target { cpu, devices: Vec::new(), required: false, cache, plan_bytes: Self::PLAN_BYTES }
    }
    /// The backend of an index: devices in order, then the CPU.
    pub fn backend(&self, i: usize) -> &dyn Backend {
        match self.devices.get(i) {
            Some(d) => &**d,
            None => &*self.cpu,
        }
    }
    /// The CPU's index.
    pub fn cpu_index(&self) -> usize {
        self.devices.len()
    }
    /// The memory space of a backend.
    pub fn space(&self, backend: usize) -> u32 {
        if self.backend(backend).uses_host_memory() { 0 } else { backend as u32 + 1 }
    }
    /// How many spaces there can be, the host's included.
    pub fn spaces(&self) -> usize {
        self.devices.len() + 1
    }
}

/// A graph that can run. Immutable but for its caches; shared by all threads.
pub struct Program {
    pub(super) graph: Arc<Graph>,
    pub(super) target: Arc<Target>,
    /// Programs of the subgraphs, by node, in the order of `Op::subgraphs`.
    pub(super) inner: HashMap<NodeId, Vec<Program>>,
    /// For each value the position in the order of its last user; `usize::MAX` for graph outputs.
    pub(super) last_use: Vec<usize>,
    pub(super) segments: SegmentCache,
    /// How many segments with a continuation were made.
    tails: AtomicU64,
    pub(super) templates: Templates,
    /// First segments made from scratch, and from templates; segments that follow others.
    pub(super) whole: AtomicUsize,
    pub(super) short: AtomicUsize,
    pub(super) later: AtomicUsize,
    pub(super) frames: Frames,
}

impl Program {
    /// A program of a graph and, inside, of its subgraphs.
    pub fn new(graph: Arc<Graph>, target: Arc<Target>) -> Result<Program> {
        let mut inner = HashMap::new();
        let mut last_use = vec![0; graph.value_count()];
        for (pos, (id, node)) in graph.nodes().enumerate() {
            node.inputs.iter().flatten().for_each(|v| last_use[v.index()] = pos);
            let subs = node.op.subgraphs();
            if !subs.is_empty() {
                let programs = subs.into_iter().map(|g| Program::new(Arc::new(g.clone()), target.clone()));
                inner.insert(id, programs.collect::<Result<_>>()?);
            }
        }
        graph.outputs().iter().for_each(|v| last_use[v.index()] = usize::MAX);
        let segments = SegmentCache::new(target.plan_bytes);
        Ok(Program {
            graph,
            target,
            inner,
            last_use,
            segments,
            tails: Default::default(),
            templates: Default::default(),
            whole: Default::default(),
            short: Default::default(),
            later: Default::default(),
            frames: Default::default(),
        })
    }
    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
    /// What it runs on.
    pub fn target(&self) -> &Target {
        &self.target
    }
    /// What follows a segment: the continuation last used.
    pub fn after(&self, segment: &Segment) -> Option<Arc<Segment>> {
        self.segments.after(segment.tail.as_ref()?.id)
    }
    pub(super) fn new_tail(&self) -> u64 {
        self.tails.fetch_add(1, Ordering::Relaxed)
    }
    /// How many segments are kept, and the bytes that they are taken to have.
    pub fn plans_kept(&self) -> (usize, usize) {
        self.segments.size()
    }
    /// How many first segments were planned from scratch, and how many from one made before.
    pub fn plans_made(&self) -> (usize, usize) {
        (self.whole.load(Ordering::Relaxed), self.short.load(Ordering::Relaxed))
    }
    /// How many segments were planned in all, those that follow others and those of subgraphs too.
    pub fn segments_made(&self) -> usize {
        let own = [&self.whole, &self.short, &self.later].iter().map(|n| n.load(Ordering::Relaxed)).sum::<usize>();
        own + self.inner.values().flatten().map(Program::segments_made).sum::<usize>()
    }
    /// Frees the memory of idle frames.
    pub fn trim(&self) {
        self.frames.clear();
        self.inner.values().flatten().for_each(Program::trim);
    }
}
