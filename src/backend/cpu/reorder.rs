//! Copies between the dense and the blocked layout.

use crate::backend::step::split;
use crate::backend::{FnStep, Layout, Operand, Step};
use crate::bail;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::reorder::{Direction, Reorder};

/// The step that copies one tensor from layout to layout.
pub(super) fn bind(isa: Isa, from: &Operand, to: &Operand) -> Result<Box<dyn Step>> {
    let (direction, c) = match (from.layout, to.layout) {
        (Layout::Dense, Layout::Blocked(c)) => (Direction::ToBlocked, c),
        (Layout::Blocked(c), Layout::Dense) => (Direction::ToDense, c),
        (a, b) => bail!(Internal, "no reorder of {} from {a:?} to {b:?}", from.dtype),
    };
    let (n, channels) = match from.shape.as_slice() {
        [n, c, ..] => (*n, *c),
        s => bail!(Internal, "a blocked layout of shape {s:?}"),
    };
    let size = product(&from.shape[2..])?;
    to.byte_len()?;
    if from.dtype.size() == Some(4) && c == isa.f32_lanes() {
        let r = Reorder::new(isa, direction, n, channels, size)?;
        return Ok(FnStep::boxed("reorder", r.tasks(), 0, move |args, task, _| {
            // SAFETY: both operands have the shape in the layouts that the reorder was made for (Step::run).
            unsafe { r.run(task, args.input(0), args.output(0)) };
            Ok(())
        }));
    }
    let p = Plain { direction, c, n, channels, size };
    match from.dtype.size() {
        Some(1) => Ok(p.step::<u8>()),
        Some(2) => Ok(p.step::<u16>()),
        Some(4) => Ok(p.step::<u32>()),
        Some(8) => Ok(p.step::<u64>()),
        _ => bail!(Unsupported, "a reorder of {}", from.dtype),
    }
}

/// A reorder of any element size.
#[derive(Clone, Copy)]
struct Plain {
    direction: Direction,
    c: usize,
    n: usize,
    channels: usize,
    size: usize,
}

impl Plain {
    fn step<T: Copy + Default + 'static>(self) -> Box<dyn Step> {
        let blocks = self.channels.div_ceil(self.c);
        let (tasks, per) = split(self.n * blocks, (16 * 1024 / (self.size * self.c).max(1)).max(1));
        FnStep::boxed("reorder", tasks, 0, move |args, task, _| {
            for i in task * per..(self.n * blocks).min((task + 1) * per) {
                // SAFETY: block i lies in both operands (Step::run).
                unsafe { self.block::<T>(i / blocks, i % blocks, args.input(0), args.output(0)) };
            }
            Ok(())
        })
    }
    /// One block of channels of one image.
    unsafe fn block<T: Copy + Default>(&self, item: usize, block: usize, src: *const T, dst: *mut T) {
        let (c, size) = (self.c, self.size);
        let lanes = c.min(self.channels - block * c);
        let dense = (item * self.channels + block * c) * size;
        let blocked = (item * self.channels.div_ceil(c) + block) * size * c;
        for place in 0..size {
            for lane in 0..c {
                let (d, b) = (dense + lane * size + place, blocked + place * c + lane);
                // SAFETY: lane and place lie in the tensor, but for the padding lanes, which only the blocked side has.
                unsafe {
                    match (self.direction, lane < lanes) {
                        (Direction::ToBlocked, true) => *dst.add(b) = *src.add(d),
                        (Direction::ToBlocked, false) => *dst.add(b) = T::default(),
                        (Direction::ToDense, true) => *dst.add(d) = *src.add(b),
                        (Direction::ToDense, false) => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::StepArgs;
    use crate::backend::step::Place;
    use crate::tensor::{DType, Tensor};

    fn run(step: &dyn Step, from: &Tensor, to: &mut Tensor) {
        let place = |addr: *mut u8| Place { addr, space: 0 };
        let places = [place(from.data_ptr().cast_mut()), place(to.data_mut_ptr().unwrap())];
        let args = StepArgs::new(&places, &[], &[0], &[1], std::ptr::null_mut());
        for task in 0..step.tasks(0) {
            // SAFETY: the operands have the sizes the step was bound for.
            unsafe { step.run(&args, 0, task, std::ptr::null_mut()).unwrap() };
        }
    }

    #[test]
    fn there_and_back() {
        for isa in Isa::detect().levels() {
            let c = isa.f32_lanes();
            for (dtype, channels) in [(DType::F32, c + 3), (DType::F16, 2 * c), (DType::U8, 5), (DType::F64, c + 1)] {
                let shape = [2, channels, 3, 7];
                let n: usize = shape.iter().product();
                let bytes: Vec<u8> = (0..n * dtype.size().unwrap()).map(|i| (i % 251) as u8).collect();
                let x = Tensor::from_bytes(dtype, &shape, bytes.clone().into()).unwrap();
                let dense = Operand::dense(dtype, &shape);
                let blocked = Operand { layout: Layout::Blocked(c), ..dense.clone() };
                let full = [2, channels.div_ceil(c) * c, 3, 7];
                let mut b = Tensor::zeroed(dtype, &full).unwrap();
                run(&*bind(isa, &dense, &blocked).unwrap(), &x, &mut b);
                let mut y = Tensor::zeroed(dtype, &shape).unwrap();
                run(&*bind(isa, &blocked, &dense).unwrap(), &b, &mut y);
                assert_eq!(y.bytes(), &bytes[..], "{dtype} {channels}");
                // Element (1, 2, 1, 4) stands at block 0, place 11, lane 2 of image 1.
                let size = dtype.size().unwrap();
                let (d, p) = (((channels + 2) * 21 + 11) * size, (full[1] * 21 + 11 * c + 2) * size);
                assert_eq!(b.bytes()[p..p + size], bytes[d..d + size]);
            }
        }
    }
}
