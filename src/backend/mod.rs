//! What runs steps: the backend and step traits, and the backends.

pub mod cpu;
#[cfg(feature = "opencl")]
pub mod opencl;
pub mod packed;
pub mod step;

pub use packed::{Packed, PackedCache};
pub use step::{FnStep, Step, StepArgs};

use crate::error::Result;
use crate::ir::Op;
use crate::tensor::{DType, Dims, Tensor};
use crate::{bail, ensure};
use smallvec::SmallVec;
use std::any::Any;
use std::sync::Arc;

/// How a tensor's elements lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Row-major without gaps.
    #[default]
    Dense,
    /// Axis 1 split in blocks of `c`, which become the innermost axis: NCHW as N, C/c, H, W, c. The lanes that pad the
    /// last block are zero.
    Blocked(usize),
}

impl Layout {
    /// Bytes that a tensor takes.
    pub fn byte_len(self, dtype: DType, shape: &[usize]) -> Result<usize> {
        let mut dims: Dims = shape.into();
        if let Layout::Blocked(c) = self {
            ensure!(dims.len() >= 2 && c > 0, Internal, "a blocked layout needs two axes, the shape is {shape:?}");
            dims[1] = dims[1].div_ceil(c) * c;
        }
        dtype.byte_len(crate::base::checked::product(&dims)?)
    }
}

/// A value as a node meets it when a plan is made: everything about it is known but its elements.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Element type.
    pub dtype: DType,
    /// Axis sizes.
    pub shape: Dims,
    /// Layout in memory.
    pub layout: Layout,
    /// The elements, if the value is a constant (always dense).
    pub constant: Option<Tensor>,
}

impl Operand {
    /// A dense value.
    pub fn dense(dtype: DType, shape: &[usize]) -> Operand {
        Operand { dtype, shape: shape.into(), layout: Layout::Dense, constant: None }
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
    /// Bytes in memory.
    pub fn byte_len(&self) -> Result<usize> {
        self.layout.byte_len(self.dtype, &self.shape)
    }
}

/// A node with concrete operands, as backends see it.
pub struct NodeView<'a> {
    /// The node's name.
    pub name: &'a str,
    /// The operator.
    pub op: &'a dyn Op,
    /// Inputs; `None` where one is not given.
    pub inputs: &'a [Option<Operand>],
    /// Outputs; `None` where one is not asked for.
    pub outputs: &'a [Option<Operand>],
}

impl<'a> NodeView<'a> {
    /// An input that must be there.
    pub fn input(&self, i: usize) -> Result<&'a Operand> {
        match self.inputs.get(i) {
            Some(Some(o)) => Ok(o),
            _ => bail!(InvalidModel, "input {i} is missing"),
        }
    }
    /// An input that may be absent.
    pub fn opt_input(&self, i: usize) -> Option<&'a Operand> {
        self.inputs.get(i).and_then(Option::as_ref)
    }
    /// An output that must be asked for.
    pub fn output(&self, i: usize) -> Result<&'a Operand> {
        match self.outputs.get(i) {
            Some(Some(o)) => Ok(o),
            _ => bail!(InvalidModel, "output {i} is missing"),
        }
    }
    /// An output that may not be asked for.
    pub fn opt_output(&self, i: usize) -> Option<&'a Operand> {
        self.outputs.get(i).and_then(Option::as_ref)
    }
    /// Whether output `i` is asked for.
    pub fn has_output(&self, i: usize) -> bool {
        matches!(self.outputs.get(i), Some(Some(_)))
    }
    /// The constant at input `i`, if it is one.
    pub fn constant(&self, i: usize) -> Option<&'a Tensor> {
        self.opt_input(i)?.constant.as_ref()
    }
}

/// The layouts a node takes and gives; shorter lists mean dense.
#[derive(Clone, Debug, Default)]
pub struct NodeLayouts {
    /// By input.
    pub inputs: SmallVec<[Layout; 4]>,
    /// By output.
    pub outputs: SmallVec<[Layout; 2]>,
}

impl NodeLayouts {
    /// Everything dense.
    pub fn dense() -> Self {
        Self::default()
    }
    /// The layout wanted of input `i`.
    pub fn input(&self, i: usize) -> Layout {
        self.inputs.get(i).copied().unwrap_or_default()
    }
    /// The layout of output `i`.
    pub fn output(&self, i: usize) -> Layout {
        self.outputs.get(i).copied().unwrap_or_default()
    }
}

/// Memory of a backend's own: one allocation, addressed by byte offsets.
pub trait Memory: Any + Send + Sync {
    /// Size in bytes.
    fn len(&self) -> usize;
    /// Whether the size is zero.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// For the backend, to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A device, or the host's CPU. Thread-safe: one backend serves all sessions and runs.
pub trait Backend: Send + Sync {
    /// A short name: `cpu`, `opencl:0`.
    fn name(&self) -> &str;
    /// Whether its steps work on host memory. If so `alloc` and the copies are never called.
    fn uses_host_memory(&self) -> bool {
        false
    }
    /// Alignment in bytes of offsets in its memory.
    fn alignment(&self) -> usize {
        crate::base::alloc::ALIGN
    }
    /// Whether it can run the node; if not, why not.
    fn claims(&self, node: &NodeView<'_>) -> Result<(), String>;
    /// The layouts it wants for a node it claims, given those the inputs have now.
    fn layouts(&self, _node: &NodeView<'_>) -> NodeLayouts {
        NodeLayouts::dense()
    }
    /// Makes the step of a node it claims, whose operands now have the layouts it asked for.
    fn bind(&self, node: &NodeView<'_>, cache: &PackedCache) -> Result<Box<dyn Step>>;
    /// Makes the step that copies a tensor from one layout to another (input 0 to output 0).
    fn bind_reorder(&self, from: &Operand, to: &Operand) -> Result<Box<dyn Step>> {
        bail!(Internal, "{} has no reorder from {:?} to {:?}", self.name(), from.layout, to.layout)
    }
    /// Memory in its space.
    fn alloc(&self, bytes: usize) -> Result<Arc<dyn Memory>> {
        bail!(Internal, "{} has no memory of its own for {bytes} bytes", self.name())
    }
    /// Copies host bytes into its memory; done (or ordered before later steps) when it returns, and `src` is free again.
    ///
    /// # Safety
    /// `src` must be valid for `bytes`.
    unsafe fn copy_in(&self, _src: *const u8, _dst: &dyn Memory, _offset: usize, bytes: usize) -> Result<()> {
        bail!(Internal, "{} cannot take {bytes} bytes", self.name())
    }
    /// Copies from its memory to the host; earlier steps are finished and the bytes are there when it returns.
    ///
    /// # Safety
    /// `dst` must be valid for writing `bytes`.
    unsafe fn copy_out(&self, _src: &dyn Memory, _offset: usize, _dst: *mut u8, bytes: usize) -> Result<()> {
        bail!(Internal, "{} cannot give {bytes} bytes", self.name())
    }
    /// Waits until everything issued is finished.
    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// A device that a [`Provider`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// What options take: `opencl:0`.
    pub name: String,
    /// A line for a human.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Bytes of memory; 0 where that is not known.
    pub memory: u64,
}

/// What kind of processor a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The host's processor, or one like it.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// An FPGA or another dedicated processor.
    Accelerator,
}

/// Finds the devices of one kind, and opens them.
pub trait Provider: Send + Sync {
    /// What their names begin with: `opencl` for `opencl:0`.
    fn kind(&self) -> &str;
    /// The devices there are, in an order that stays.
    fn list(&self) -> Result<Vec<DeviceEntry>>;
    /// The name of the device that `spec` means (`opencl`, `opencl:0`, `opencl:part of its name`).
    fn resolve(&self, spec: &str) -> Result<String>;
    /// Opens a device by its name.
    fn open(&self, name: &str) -> Result<Arc<dyn Backend>>;
}
