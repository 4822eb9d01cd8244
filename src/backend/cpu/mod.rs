//! The CPU backend: looks up an operator's binding and binds it at the session's ISA level.

mod eager;
mod eval;
mod reorder;

pub use eager::{Arg, EagerCtx, EagerFn, Memory, Values};
pub use eval::{evaluate, run_now};

use super::{Backend, NodeLayouts, NodeView, Operand, PackedCache, Step};
use crate::bail;
use crate::error::Result;
use crate::ir::Op;
use crate::kernels::isa::Isa;
use std::any::TypeId;
use std::collections::HashMap;

/// What a binding sees when it makes a step.
pub struct CpuCtx<'a> {
    /// The node.
    pub node: &'a NodeView<'a>,
    /// The instructions it may use.
    pub isa: Isa,
    /// Where packed constants are kept.
    pub cache: &'a PackedCache,
}

impl<'a> std::ops::Deref for CpuCtx<'a> {
    type Target = NodeView<'a>;
    fn deref(&self) -> &NodeView<'a> {
        self.node
    }
}

type BindFn = Box<dyn Fn(&dyn Op, &CpuCtx<'_>) -> Result<Box<dyn Step>> + Send + Sync>;
type LayoutFn = Box<dyn Fn(&dyn Op, &NodeView<'_>, usize) -> NodeLayouts + Send + Sync>;

/// What the CPU can do for each operator type. Each family adds its own.
#[derive(Default)]
pub struct CpuBindings {
    steps: HashMap<TypeId, BindFn>,
    eager: HashMap<TypeId, EagerFn>,
    layouts: HashMap<TypeId, LayoutFn>,
}

impl CpuBindings {
    /// `bind` makes steps for operators of type `T` whose operands all have known shapes.
    pub fn step<T: Op>(&mut self, bind: fn(&T, &CpuCtx<'_>) -> Result<Box<dyn Step>>) {
        self.steps.insert(
            TypeId::of::<T>(),
            Box::new(move |op, cx| match op.downcast::<T>() {
                Some(op) => bind(op, cx),
                None => bail!(Internal, "a binding met another operator: {}", op.name()),
            }),
        );
    }
    /// `run` computes operators of type `T` on values: for results whose size depends on data, strings, sequences.
    pub fn eager<T: Op>(&mut self, run: fn(&T, &mut EagerCtx<'_>, &[Arg<'_>]) -> Result<Values>) {
        self.eager.insert(
            TypeId::of::<T>(),
            Box::new(move |op, cx, args| match op.downcast::<T>() {
                Some(op) => run(op, cx, args),
                None => bail!(Internal, "a binding met another operator: {}", op.name()),
            }),
        );
    }
    /// `choose` tells the layouts operators of type `T` want; its last argument is the block size.
    pub fn layouts<T: Op>(&mut self, choose: fn(&T, &NodeView<'_>, usize) -> NodeLayouts) {
        self.layouts.insert(
            TypeId::of::<T>(),
            Box::new(move |op, node, c| op.downcast::<T>().map_or_else(NodeLayouts::dense, |op| choose(op, node, c))),
        );
    }
    /// Whether a step can be bound for the operator.
    pub fn has_step(&self, op: &dyn Op) -> bool {
        self.steps.contains_key(&type_of(op))
    }
    /// The eager implementation, if there is one.
    pub fn find_eager(&self, op: &dyn Op) -> Option<&EagerFn> {
        self.eager.get(&type_of(op))
    }
}

/// The operator's own type (not that of the trait object).
fn type_of(op: &dyn Op) -> TypeId {
    let any: &dyn std::any::Any = op;
    any.type_id()
}

/// The host's processor.
pub struct CpuBackend {
    isa: Isa,
    bindings: CpuBindings,
}

impl CpuBackend {
    /// A backend at one ISA level with these bindings.
    pub fn new(isa: Isa, bindings: CpuBindings) -> Self {
        CpuBackend { isa, bindings }
    }
    /// Its bindings.
    pub fn bindings(&self) -> &CpuBindings {
        &self.bindings
    }
    /// Its ISA level.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

impl Backend for CpuBackend {
    fn name(&self) -> &str {
        "cpu"
    }
    fn uses_host_memory(&self) -> bool {
        true
    }
    fn claims(&self, node: &NodeView<'_>) -> Result<(), String> {
        if self.bindings.has_step(node.op) {
            Ok(())
        } else {
            Err(format!("the CPU has no kernel for {}", node.op.name()))
        }
    }
    fn layouts(&self, node: &NodeView<'_>) -> NodeLayouts {
        match self.bindings.layouts.get(&type_of(node.op)) {
            Some(f) => f(node.op, node, self.isa.f32_lanes()),
            None => NodeLayouts::dense(),
        }
    }
    fn bind(&self, node: &NodeView<'_>, cache: &PackedCache) -> Result<Box<dyn Step>> {
        match self.bindings.steps.get(&type_of(node.op)) {
            Some(bind) => bind(node.op, &CpuCtx { node, isa: self.isa, cache }),
            None => bail!(Unsupported, "the CPU has no kernel for {}", node.op.name()),
        }
    }
    fn bind_reorder(&self, from: &Operand, to: &Operand) -> Result<Box<dyn Step>> {
        reorder::bind(self.isa, from, to)
    }
}
