//! Between narrow types in memory and f32 in registers.

use super::elem::{Elem, Narrow};
use super::isa::Isa;
use super::simd::{F32, Kernel, dispatch};
use half::{bf16, f16};

/// Reads `count` elements of type `elem`, `stride` elements apart, as f32. Bool and u8 become their number.
/// # Safety
/// Source and target are valid for that, and do not overlap.
pub unsafe fn load_strided(isa: Isa, elem: Elem, from: *const u8, stride: isize, to: *mut f32, count: usize) {
    if stride == 1 && elem == Elem::F32 {
        // SAFETY: the caller's contract.
        return unsafe { std::ptr::copy_nonoverlapping(from.cast::<f32>(), to, count) };
    }
    if stride == 1 && count >= 8 {
        return dispatch(isa, Load { elem, from, to, count });
    }
    for i in 0..count as isize {
        // SAFETY: the caller's contract.
        unsafe {
            let at = i * stride;
            let x = match elem {
                Elem::F32 => *from.cast::<f32>().offset(at),
                Elem::F16 => (*from.cast::<f16>().offset(at)).widen(),
                Elem::Bf16 => (*from.cast::<bf16>().offset(at)).widen(),
                _ => f32::from(*from.offset(at)),
            };
            *to.offset(i) = x;
        }
    }
}

/// Writes `count` f32, `step` apart, as elements of type `elem`, `stride` elements apart, rounded to even.
/// Bool and u8 become 1 for anything but zero.
/// # Safety
/// Source and target are valid for that, and do not overlap.
pub unsafe fn store_strided(
    isa: Isa,
    from: *const f32,
    step: isize,
    elem: Elem,
    to: *mut u8,
    stride: isize,
    count: usize,
) {
    if stride == 1 && step == 1 && elem == Elem::F32 {
        // SAFETY: the caller's contract; an output that is its own input is equal memory, hence `copy`.
        return unsafe { std::ptr::copy(from, to.cast::<f32>(), count) };
    }
    if stride == 1 && step == 1 && count >= 8 {
        return dispatch(isa, Store { elem, from, to, count });
    }
    for i in 0..count as isize {
        // SAFETY: the caller's contract.
        unsafe {
            let (x, at) = (*from.offset(i * step), i * stride);
            match elem {
                Elem::F32 => *to.cast::<f32>().offset(at) = x,
                Elem::F16 => *to.cast::<f16>().offset(at) = f16::narrow(x),
                Elem::Bf16 => *to.cast::<bf16>().offset(at) = bf16::narrow(x),
                _ => *to.offset(at) = u8::from(x != 0.0),
            }
        }
    }
}

struct Load {
    elem: Elem,
    from: *const u8,
    to: *mut f32,
    count: usize,
}

impl Kernel for Load {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        // SAFETY: `load_strided`'s contract with a stride of one.
        unsafe {
            match self.elem {
                Elem::F32 => std::ptr::copy_nonoverlapping(self.from.cast::<f32>(), self.to, self.count),
                Elem::F16 => {
                    let from = self.from.cast::<u16>();
                    let mut i = 0;
                    while i + V::LANES <= self.count {
                        V::load_f16(from.add(i)).store(self.to.add(i));
                        i += V::LANES;
                    }
                    while i < self.count {
                        *self.to.add(i) = f16::from_bits(*from.add(i)).to_f32();
                        i += 1;
                    }
                }
                Elem::Bf16 => {
                    let from = self.from.cast::<u16>();
                    for i in 0..self.count {
                        *self.to.add(i) = f32::from_bits(u32::from(*from.add(i)) << 16);
                    }
                }
                _ => {
                    for i in 0..self.count {
                        *self.to.add(i) = f32::from(*self.from.add(i));
                    }
                }
            }
        }
    }
}

struct Store {
    elem: Elem,
    from: *const f32,
    to: *mut u8,
    count: usize,
}

impl Kernel for Store {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        // SAFETY: `store_strided`'s contract with a stride and step of one.
        unsafe {
            match self.elem {
                Elem::F32 => std::ptr::copy(self.from, self.to.cast::<f32>(), self.count),
                Elem::F16 => {
                    let to = self.to.cast::<u16>();
                    let mut i = 0;
                    while i + V::LANES <= self.count {
                        V::load(self.from.add(i)).store_f16(to.add(i));
                        i += V::LANES;
                    }
                    while i < self.count {
                        *to.add(i) = f16::from_f32(*self.from.add(i)).to_bits();
                        i += 1;
                    }
                }
                Elem::Bf16 => {
                    let to = self.to.cast::<u16>();
                    for i in 0..self.count {
                        *to.add(i) = bf16_bits(*self.from.add(i));
                    }
                }
                _ => {
                    for i in 0..self.count {
                        *self.to.add(i) = u8::from(*self.from.add(i) != 0.0);
                    }
                }
            }
        }
    }
}

/// Rounds to even; a NaN stays one, and quiet. Without branches, so that the loop over it becomes vectors.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let b = x.to_bits();
    let rounded = b.wrapping_add(0x7fff + ((b >> 16) & 1));
    let quiet = b | 0x40_0000;
    ((if x.is_nan() { quiet } else { rounded }) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_as_half_does() {
        let n = 0x1_0000 + 5;
        for isa in Isa::detect().levels() {
            for elem in [Elem::F16, Elem::Bf16] {
                let bits: Vec<u16> = (0..n).map(|i| i as u16).collect();
                let mut wide = vec![0.0f32; n];
                // SAFETY: both have n elements.
                unsafe { load_strided(isa, elem, bits.as_ptr().cast(), 1, wide.as_mut_ptr(), n) };
                for (b, w) in bits.iter().zip(&wide) {
                    let want =
                        if elem == Elem::F16 { f16::from_bits(*b).to_f32() } else { bf16::from_bits(*b).to_f32() };
                    assert!(want == *w || (want.is_nan() && w.is_nan()));
                }
                let xs: Vec<f32> = (0..n).map(|i| f32::from_bits((i as u32).wrapping_mul(65_521 * 3))).collect();
                let mut narrow = vec![0u16; n];
                // SAFETY: both have n elements.
                unsafe { store_strided(isa, xs.as_ptr(), 1, elem, narrow.as_mut_ptr().cast(), 1, n) };
                for (x, b) in xs.iter().zip(&narrow) {
                    let (want, got) = match elem {
                        Elem::F16 => (f16::from_f32(*x).to_f32(), f16::from_bits(*b).to_f32()),
                        _ => (bf16::from_f32(*x).to_f32(), bf16::from_bits(*b).to_f32()),
                    };
                    assert!(
                        want.to_bits() == got.to_bits() || (want.is_nan() && got.is_nan()),
                        "{isa:?} {elem:?} {x:e}"
                    );
                }
            }
        }
    }
}
