//! Between narrow types in memory and f32 in registers.

use super::elem::{Elem, Narrow};
use super::isa::Isa;
use super::simd::{F32, I32, Kernel, dispatch};
use half::{bf16, f16};

/// Whether [`load_strided`] reads elements of a type.
pub const fn loads(elem: Elem) -> bool {
    stores(elem) || matches!(elem, Elem::I32 | Elem::I64)
}

/// Whether [`store_strided`] writes elements of a type.
pub const fn stores(elem: Elem) -> bool {
    elem.is_f32_like() || matches!(elem, Elem::Bool | Elem::U8 | Elem::I8)
}

/// Reads `count` elements of type `elem`, `stride` elements apart, as f32. Bool and integers become their number, or
/// the nearest to it.
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
                Elem::I8 => f32::from(*from.cast::<i8>().offset(at)),
                Elem::I32 => *from.cast::<i32>().offset(at) as f32,
                Elem::I64 => *from.cast::<i64>().offset(at) as f32,
                _ => f32::from(*from.offset(at)),
            };
            *to.offset(i) = x;
        }
    }
}

/// Writes `count` f32, `step` apart, as elements of type `elem`, `stride` elements apart, rounded to even; bytes stop at their
/// bounds, of NaN they are anything. Bool becomes 1 for anything but zero.
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
                Elem::U8 => *to.offset(at) = x.round_ties_even() as u8,
                Elem::I8 => *to.cast::<i8>().offset(at) = x.round_ties_even() as i8,
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
                Elem::I8 | Elem::U8 => {
                    let (from, signed) = (self.from.cast::<i8>(), self.elem == Elem::I8);
                    let whole = self.count / V::LANES * V::LANES;
                    for i in (0..whole).step_by(V::LANES) {
                        let x = if signed { V::I::load_i8(from.add(i)) } else { V::I::load_u8(from.add(i).cast()) };
                        x.to_f32().store(self.to.add(i));
                    }
                    for i in whole..self.count {
                        let x = *from.add(i);
                        *self.to.add(i) = if signed { f32::from(x) } else { f32::from(x as u8) };
                    }
                }
                Elem::I32 => {
                    for i in 0..self.count {
                        *self.to.add(i) = *self.from.cast::<i32>().add(i) as f32;
                    }
                }
                Elem::I64 => {
                    for i in 0..self.count {
                        *self.to.add(i) = *self.from.cast::<i64>().add(i) as f32;
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
                Elem::I8 | Elem::U8 => {
                    let signed = self.elem == Elem::I8;
                    let (lo, hi) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
                    let whole = self.count / V::LANES * V::LANES;
                    for i in (0..whole).step_by(V::LANES) {
                        let x = V::load(self.from.add(i)).max(V::splat(lo)).min(V::splat(hi));
                        x.to_i32_round().store_u8(self.to.add(i));
                    }
                    for i in whole..self.count {
                        let x = (*self.from.add(i)).round_ties_even();
                        *self.to.add(i) = if signed { x as i8 as u8 } else { x as u8 };
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
    fn integers_become_the_nearest_number() {
        let wide: Vec<i64> =
            (0..40).map(|i| (i - 20) * ((1 << 24) + 1) * (1 << (i / 2))).chain([i64::MAX, i64::MIN]).collect();
        let narrow: Vec<i32> = (0..40).map(|i| (i - 20) * ((1 << 24) + 1)).chain([i32::MAX, i32::MIN]).collect();
        let want = [wide.iter().map(|&x| x as f32).collect::<Vec<_>>(), narrow.iter().map(|&x| x as f32).collect()];
        for isa in Isa::detect().levels() {
            for stride in [1usize, 2] {
                let sources = [(Elem::I64, wide.as_ptr().cast::<u8>()), (Elem::I32, narrow.as_ptr().cast())];
                for ((elem, from), want) in sources.into_iter().zip(&want) {
                    let want: Vec<f32> = want.iter().step_by(stride).copied().collect();
                    let mut got = vec![0.0; want.len()];
                    // SAFETY: as many numbers as every `stride`th of the source.
                    unsafe { load_strided(isa, elem, from, stride as isize, got.as_mut_ptr(), got.len()) };
                    assert_eq!(want, got, "{elem:?} {stride}");
                }
            }
        }
    }

    #[test]
    fn bytes_are_rounded_and_stop_at_their_bounds() {
        let n = 4 * 256 + 3;
        let xs: Vec<f32> = (0..n).map(|i| (i as f32 - 512.0) / 2.0).collect();
        for isa in Isa::detect().levels() {
            let (mut unsigned, mut signed, mut back) = (vec![0u8; n], vec![0i8; n], vec![0f32; n]);
            // SAFETY: all have n elements.
            unsafe {
                store_strided(isa, xs.as_ptr(), 1, Elem::U8, unsigned.as_mut_ptr(), 1, n);
                store_strided(isa, xs.as_ptr(), 1, Elem::I8, signed.as_mut_ptr().cast(), 1, n);
                load_strided(isa, Elem::I8, signed.as_ptr().cast(), 1, back.as_mut_ptr(), n);
            }
            for (i, x) in xs.iter().enumerate() {
                assert_eq!((unsigned[i], signed[i]), (x.round_ties_even() as u8, x.round_ties_even() as i8));
                assert_eq!(back[i], f32::from(signed[i]));
            }
        }
    }

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
