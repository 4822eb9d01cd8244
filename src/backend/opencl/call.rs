//! A kernel made ready for one shape: everything but where its tensors lie is fixed.

use super::driver::{Arg, Buffer, Kernel, Queue};
use crate::{
    ensure, err,
    error::{Context as _, Result},
};
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

/// An activation that an epilogue applies; the numbers are those of `activate` in prelude.cl.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Activation {
    /// x
    #[default]
    None,
    /// max(x, 0)
    Relu,
    /// x limited to a range
    Clip(f32, f32),
    /// x, or alpha x below zero
    LeakyRelu(f32),
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// alpha x + beta limited to 0..1
    HardSigmoid(f32, f32),
    /// x hardsigmoid(x) with alpha 1/6, beta 1/2
    HardSwish,
    /// x sigmoid(x)
    Silu,
    /// tanh(x)
    Tanh,
}

impl From<crate::kernels::gemm::Activation> for Activation {
    fn from(a: crate::kernels::gemm::Activation) -> Self {
        use crate::kernels::gemm::Activation as From;
        match a {
            From::None => Activation::None,
            From::Relu => Activation::Relu,
            From::Clip { min, max } => Activation::Clip(min, max),
            From::LeakyRelu { alpha } => Activation::LeakyRelu(alpha),
            From::HardSigmoid { alpha, beta } => Activation::HardSigmoid(alpha, beta),
            From::HardSwish => Activation::HardSwish,
        }
    }
}

impl Activation {
    /// The three arguments of an epilogue.
    pub fn slots(self) -> [Slot; 3] {
        let (code, p, q) = match self {
            Activation::None => (0, 0.0, 0.0),
            Activation::Relu => (1, 0.0, 0.0),
            Activation::Clip(low, high) => (2, low, high),
            Activation::LeakyRelu(alpha) => (3, alpha, 0.0),
            Activation::Sigmoid => (4, 0.0, 0.0),
            Activation::HardSigmoid(alpha, beta) => (5, alpha, beta),
            Activation::HardSwish => (6, 0.0, 0.0),
            Activation::Silu => (7, 0.0, 0.0),
            Activation::Tanh => (8, 0.0, 0.0),
        };
        [Slot::I32(code), Slot::F32(p), Slot::F32(q)]
    }

    /// The same on the host, for tests.
    #[cfg(test)]
    pub fn apply(self, x: f32) -> f32 {
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        match self {
            Activation::None => x,
            Activation::Relu => x.max(0.0),
            Activation::Clip(low, high) => x.clamp(low, high),
            Activation::LeakyRelu(alpha) => {
                if x < 0.0 {
                    x * alpha
                } else {
                    x
                }
            }
            Activation::Sigmoid => sigmoid(x),
            Activation::HardSigmoid(alpha, beta) => (alpha * x + beta).clamp(0.0, 1.0),
            Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Activation::Silu => x * sigmoid(x),
            Activation::Tanh => x.tanh(),
        }
    }
}
