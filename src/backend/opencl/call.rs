//! A kernel made ready for one shape: everything but where its tensors lie is fixed.

use super::driver::{Arg, Buffer, Kernel, Queue};
use crate::error::{Context as _, Result};
use crate::kernels::gemm::Activation;
use crate::{bail, ensure, err};
use smallvec::SmallVec;
use std::sync::Arc;

/// Where a tensor lies: a buffer and an offset in bytes.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The buffer that holds it.
    pub buffer: &'a Buffer,
    /// Its first byte there.
    pub offset: usize,
}

/// An argument of a [`Call`].
pub enum Slot {
    /// The tensor of this number in the call's list of places, with elements of so many bytes: a pointer and an offset.
    Tensor(usize, usize),
    /// A table that belongs to the call: a pointer.
    Table(Arc<Buffer>),
    /// An `int`.
    I32(i32),
    /// A `long`.
    I64(i64),
    /// A `float`.
    F32(f32),
    /// An `int8`.
    Int8([i32; 8]),
}

/// A kernel, its arguments and its grid.
pub struct Call {
    kernel: Kernel,
    slots: Vec<Slot>,
    global: [usize; 3],
    local: Option<[usize; 3]>,
}

impl Call {
    /// A call of `kernel` over `global` work-items in groups of `local`, which must divide `global`.
    pub fn new(kernel: Kernel, slots: Vec<Slot>, global: [usize; 3], local: Option<[usize; 3]>) -> Self {
        Call { kernel, slots, global, local }
    }

    /// The same call with its places numbered anew: place `i` becomes place `to[i]`.
    pub fn renumbered(mut self, to: &[usize]) -> Self {
        for slot in &mut self.slots {
            if let Slot::Tensor(index, _) = slot {
                *index = to[*index];
            }
        }
        self
    }

    /// Queues the call for tensors at `places`.
    ///
    /// # Safety
    /// The places must hold tensors of the shapes that the call was made for, not overlapping where the kernel writes.
    pub unsafe fn enqueue(&self, queue: &Queue, places: &[Place]) -> Result<()> {
        let mut args: SmallVec<[Arg; 64]> = SmallVec::new();
        for slot in &self.slots {
            match slot {
                Slot::Tensor(index, size) => {
                    let place = places.get(*index).ok_or_else(|| err!(Internal, "an OpenCL call lacks a place"))?;
                    ensure!(place.offset.is_multiple_of(*size), Internal, "a tensor at {} bytes", place.offset);
                    args.push(Arg::Buffer(place.buffer));
                    args.push(Arg::I64((place.offset / size) as i64));
                }
                Slot::Table(buffer) => args.push(Arg::Buffer(buffer)),
                Slot::I32(v) => args.push(Arg::I32(*v)),
                Slot::I64(v) => args.push(Arg::I64(*v)),
                Slot::F32(v) => args.push(Arg::F32(*v)),
                Slot::Int8(v) => args.push(Arg::Int8(*v)),
            }
        }
        // SAFETY: whoever made the call matched the slots with the kernel; the places are the caller's promise.
        unsafe { queue.launch(&self.kernel, &args, self.global, self.local, None) }
    }
}

/// An operator as calls in order, and the elements of scratch memory that it needs for its last place.
pub struct Calls {
    /// What to queue.
    pub calls: Vec<Call>,
    /// `f32` elements of scratch.
    pub scratch: usize,
}

/// A size or stride as the `int` that kernels count in.
pub fn int(n: usize) -> Result<i32> {
    i32::try_from(n).ok().ok_or_else(|| err!(Unsupported, "{n} elements: OpenCL kernels count to 2^31"))
}

/// The same for many.
pub fn ints(slots: &mut Vec<Slot>, values: &[usize]) -> Result<()> {
    for v in values {
        slots.push(Slot::I32(int(*v).context(|| "OpenCL".into())?));
    }
    Ok(())
}

/// The arguments of an epilogue that applies an activation, and the build option that it needs; the numbers are those of
/// `activate` in prelude.cl.
pub fn activation(act: Activation) -> Result<([Slot; 3], String)> {
    let (code, p, q) = match act {
        Activation::None => (0, 0.0, 0.0),
        Activation::Relu => (1, 0.0, 0.0),
        Activation::Clip { min, max } => (2, min, max),
        Activation::LeakyRelu { alpha } => (3, alpha, 0.0),
        Activation::HardSigmoid { alpha, beta } => (4, alpha, beta),
        Activation::HardSwish => (5, 0.0, 0.0),
        Activation::Sigmoid => (10, 0.0, 0.0),
        Activation::Tanh => (11, 0.0, 0.0),
        Activation::Swish { alpha } => (12, alpha, 0.0),
        Activation::Gelu => (13, 0.0, 0.0),
        Activation::GeluTanh => (14, 0.0, 0.0),
        Activation::Elu { alpha } => (15, alpha, 0.0),
        Activation::Mish => (16, 0.0, 0.0),
        #[allow(unreachable_patterns)]
        a => bail!(Unsupported, "the activation {a:?} on OpenCL"),
    };
    let option = if code < 10 { String::new() } else { format!(" -DACT={code}") };
    Ok(([Slot::I32(code), Slot::F32(p), Slot::F32(q)], option))
}
