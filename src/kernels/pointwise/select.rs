//! Where: one of two operands by a condition, for elements of any type.

use super::GRAIN;
use crate::bail;
use crate::error::Result;
use crate::kernels::nd::Nest;

type Loop = unsafe fn(usize, [*const u8; 3], [isize; 3], *mut u8, isize);

/// # Safety
/// Pointers and strides (in elements) are valid for `n` elements.
unsafe fn choose<T: Copy>(n: usize, from: [*const u8; 3], step: [isize; 3], to: *mut u8, st: isize) {
    let [c, yes, no] = from;
    let (yes, no, to) = (yes.cast::<T>(), no.cast::<T>(), to.cast::<T>());
    for i in 0..n as isize {
        // SAFETY: the caller's contract; complex numbers are aligned as their parts, hence unaligned.
        unsafe {
            let (y, n) = (yes.offset(i * step[1]).read_unaligned(), no.offset(i * step[2]).read_unaligned());
            to.offset(i * st).write_unaligned(if *c.offset(i * step[0]) != 0 { y } else { n });
        }
    }
}

/// A selection bound to a shape and strides.
#[derive(Clone, Debug)]
pub struct Select {
    nest: Nest,
    run: Loop,
    size: isize,
}

impl Select {
    /// `yes` where the bool condition is true, else `no`; elements of `size` bytes (1, 2, 4, 8 or 16). Strides are in
    /// elements, 0 where an operand is broadcast.
    pub fn new(
        size: usize,
        shape: &[usize],
        condition: &[isize],
        yes: &[isize],
        no: &[isize],
        out: &[isize],
    ) -> Result<Select> {
        let run = match size {
            1 => choose::<u8>,
            2 => choose::<u16>,
            4 => choose::<u32>,
            8 => choose::<u64>,
            16 => choose::<[u64; 2]>,
            _ => bail!(Unsupported, "selecting among elements of {size} bytes"),
        };
        Ok(Select { nest: Nest::new(shape, &[condition, yes, no, out])?, run, size: size as isize })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.nest.tasks(GRAIN)
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the element size, shape and strides given to `new`.
    pub unsafe fn run(&self, task: usize, condition: *const u8, yes: *const u8, no: *const u8, out: *mut u8) {
        let (n, s) = (&self.nest, self.size);
        let steps = [n.inner_stride(0), n.inner_stride(1), n.inner_stride(2)];
        n.run_task(task, GRAIN, |o, count| {
            // SAFETY: the offsets lie within the operands.
            unsafe {
                let from = [condition.offset(o[0]), yes.offset(o[1] * s), no.offset(o[2] * s)];
                (self.run)(count, from, steps, out.offset(o[3] * s), n.inner_stride(3))
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_may_be_aligned_as_their_parts() {
        // Complex numbers of two f32, as they lie in a model's file.
        let words: Vec<u32> = (0..14).collect();
        let (c, mut out) = ([1u8, 0, 1], [0u32; 7]);
        let s = Select::new(8, &[3], &[1], &[1], &[1], &[1]).unwrap();
        let at = |i: usize| words[i..].as_ptr().cast::<u8>();
        // SAFETY: three elements of two words from each place.
        unsafe { s.run(0, c.as_ptr(), at(1), at(8), out[1..].as_mut_ptr().cast()) };
        assert_eq!(out, [0, 1, 2, 10, 11, 5, 6]);
    }
}
