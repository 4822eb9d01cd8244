//! Pools of bytes whose channels lie together: the greatest under a window, or the mean, requantised.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, I32, Kernel, dispatch};

/// A mean's way back to integers: `round((sum - taps * zero) * scale) + out_zero`, kept within the type's bounds.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    /// Zero point of the input.
    pub zero: i32,
    /// Input scale over result scale and count.
    pub scale: f32,
    /// Zero point of the result.
    pub out_zero: f32,
    /// The result is i8, not u8.
    pub out_signed: bool,
}

/// Some channels of one output place.
pub struct Place<'a> {
    /// Where its taps begin that lie within the input: bytes from `x`.
    pub taps: &'a [usize],
    /// The first channel of the input's first place.
    pub x: *const u8,
    /// The input is i8, not u8.
    pub signed: bool,
    /// Channels.
    pub channels: usize,
    /// A mean; none for the greatest.
    pub mean: Option<Mean>,
    /// The result's first channel.
    pub y: *mut u8,
}

impl Place<'_> {
    /// # Safety
    /// Each tap is valid for `channels` bytes, and so is the result.
    pub unsafe fn run(self, isa: Isa) {
        dispatch(isa, self)
    }
    /// One vector of channels, of which `n` count.
    #[inline(always)]
    unsafe fn vector<V: F32>(&self, at: usize, n: usize) -> V::I {
        let load = |tap: usize| {
            // SAFETY: the caller's: channels at..at + n of a tap; a part of a vector is read by way of an array.
            unsafe {
                let p = self.x.add(tap + at);
                let mut part = [0u8; 16];
                let p = if n == V::LANES {
                    p
                } else {
                    std::ptr::copy_nonoverlapping(p, part.as_mut_ptr(), n);
                    part.as_ptr()
                };
                if self.signed { V::I::load_i8(p.cast()) } else { V::I::load_u8(p) }
            }
        };
        let Some(mean) = &self.mean else {
            let least = V::I::splat(if self.signed { -128 } else { 0 });
            return self.taps.iter().fold(least, |a, &tap| a.max(load(tap)));
        };
        let less = (self.taps.len() as i32).wrapping_mul(mean.zero).wrapping_neg();
        let sum = self.taps.iter().fold(V::I::splat(less), |a, &tap| a + load(tap));
        let (lo, hi) = if mean.out_signed { (-128.0, 127.0) } else { (0.0, 255.0) };
        let y = (sum.to_f32() * V::splat(mean.scale)).round() + V::splat(mean.out_zero);
        y.max(V::splat(lo)).min(V::splat(hi)).to_i32_round()
    }
}

impl Kernel for Place<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        for at in (0..self.channels).step_by(V::LANES) {
            let n = V::LANES.min(self.channels - at);
            // SAFETY: the caller's (`Place::run`): channels at..at + n.
            unsafe {
                let v = self.vector::<V>(at, n);
                if n == V::LANES {
                    v.store_u8(self.y.add(at));
                } else {
                    let mut rest = [0u8; 16];
                    v.store_u8(rest.as_mut_ptr());
                    std::ptr::copy_nonoverlapping(rest.as_ptr(), self.y.add(at), n);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    #[test]
    fn pools_of_bytes_are_exact_at_every_level() {
        let mut rng = Rng::new(31);
        for isa in Isa::detect().levels() {
            for (channels, taps) in [(1, 1), (7, 4), (16, 9), (35, 3), (64, 49), (5, 0)] {
                for flags in 0..8 {
                    let (signed, out_signed, means) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
                    let x: Vec<u8> = (0..channels * 50).map(|_| rng.next() as u8).collect();
                    let taps: Vec<usize> = (0..taps).map(|_| rng.below(50) * channels).collect();
                    let mean = Mean { zero: 3, scale: 0.75 / taps.len().max(1) as f32, out_zero: 9.0, out_signed };
                    let mut y = vec![0u8; channels];
                    let mean = means.then_some(mean);
                    let place = Place { taps: &taps, x: x.as_ptr(), signed, channels, mean, y: y.as_mut_ptr() };
                    // SAFETY: 50 places of channels, and a result of as many.
                    unsafe { place.run(isa) };
                    for (c, &got) in y.iter().enumerate() {
                        let value = |&t: &usize| match signed {
                            true => i32::from(x[t + c] as i8),
                            false => i32::from(x[t + c]),
                        };
                        let want = match mean {
                            None => taps.iter().map(value).max().unwrap_or(if signed { -128 } else { 0 }) as u8,
                            Some(m) => {
                                let sum: i32 = taps.iter().map(|t| value(t) - m.zero).sum();
                                let y = (sum as f32 * m.scale).round_ties_even() + m.out_zero;
                                if out_signed { y as i8 as u8 } else { y as u8 }
                            }
                        };
                        assert_eq!(got, want, "{isa:?} {channels} {flags}");
                    }
                }
            }
        }
    }
}
