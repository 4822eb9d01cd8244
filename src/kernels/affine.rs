//! y = x * factor + shift with a factor and a shift a channel: what batch normalisation comes down to.

use super::isa::Isa;
use super::simd::{F32, Kernel, dispatch};

/// One plane with one factor and shift (dense), or one block of channels with `LANES` of them (blocked).
struct Affine {
    from: *const f32,
    to: *mut f32,
    len: usize,
    factor: *const f32,
    shift: *const f32,
    blocked: bool,
}

impl Kernel for Affine {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        // SAFETY: the callers' contracts.
        unsafe {
            let (f, s) = if self.blocked {
                (V::load(self.factor), V::load(self.shift))
            } else {
                (V::splat(*self.factor), V::splat(*self.shift))
            };
            let mut i = 0;
            while i + V::LANES <= self.len {
                V::load(self.from.add(i)).mul_add(f, s).store(self.to.add(i));
                i += V::LANES;
            }
            if i < self.len {
                let n = self.len - i;
                V::load_n(self.from.add(i), n).mul_add(f, s).store_n(self.to.add(i), n);
            }
        }
    }
}

/// `to[i] = from[i] * factor + shift` for one channel.
/// # Safety
/// Both pointers are valid for `len` values, and are equal or do not overlap.
pub unsafe fn affine(isa: Isa, from: *const f32, to: *mut f32, len: usize, factor: f32, shift: f32) {
    let (factor, shift) = (&raw const factor, &raw const shift);
    dispatch(isa, Affine { from, to, len, factor, shift, blocked: false });
}

/// The same for one block of channels: `places` vectors, lane `c` of each with factor and shift `c`.
/// # Safety
/// Both pointers are valid for `places` vectors of `isa.f32_lanes()` values, and are equal or do not overlap; `factor` and
/// `shift` are valid for one vector.
pub unsafe fn affine_block(
    isa: Isa,
    from: *const f32,
    to: *mut f32,
    places: usize,
    factor: *const f32,
    shift: *const f32,
) {
    dispatch(isa, Affine { from, to, len: places * isa.f32_lanes(), factor, shift, blocked: true });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_shifts() {
        for isa in Isa::detect().levels() {
            for len in [0, 1, 7, 16, 37] {
                let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let mut y = vec![0.0; len];
                // SAFETY: both have len values.
                unsafe { affine(isa, x.as_ptr(), y.as_mut_ptr(), len, 2.0, 1.0) };
                assert!(x.iter().zip(&y).all(|(x, y)| *y == x * 2.0 + 1.0));
            }
            let c = isa.f32_lanes();
            let (f, s): (Vec<f32>, Vec<f32>) = (0..c).map(|i| (i as f32, 10.0 * i as f32)).unzip();
            let (x, mut y) = (vec![3.0f32; 4 * c], vec![0.0; 4 * c]);
            // SAFETY: four vectors each.
            unsafe { affine_block(isa, x.as_ptr(), y.as_mut_ptr(), 4, f.as_ptr(), s.as_ptr()) };
            assert!(y.iter().enumerate().all(|(i, &y)| y == 13.0 * (i % c) as f32));
        }
    }
}
