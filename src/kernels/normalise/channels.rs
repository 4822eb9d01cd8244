//! Group normalisation of (batch, channels, numbers a channel); with one channel a group it is instance normalisation,
//! with all channels in one group it is layer normalisation with a scale a channel.

use crate::base::checked;
use crate::error::Result;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::reduce::rows::{Combine, Map, Row};
use crate::kernels::simd::{F32, Kernel, dispatch};
use crate::{bail, ensure};

/// Numbers widened at once.
const TILE: usize = 512;

/// A normalisation bound to a shape. A task is one group of one batch element.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    isa: Isa,
    elem: Elem,
    batch: usize,
    groups: usize,
    channels_a_group: usize,
    space: usize,
    epsilon: f64,
}

impl GroupNorm {
    /// Over a dense array of `batch` times `channels` times `space` numbers. `groups` divides `channels`.
    pub fn new(
        isa: Isa,
        elem: Elem,
        batch: usize,
        channels: usize,
        space: usize,
        groups: usize,
        epsilon: f64,
    ) -> Result<GroupNorm> {
        if !elem.is_float() {
            bail!(Unsupported, "normalisation of {elem:?}");
        }
        ensure!(
            groups > 0 && channels.is_multiple_of(groups),
            InvalidModel,
            "{channels} channels cannot be divided into {groups} groups"
        );
        checked::product(&[batch, channels, space])?;
        Ok(GroupNorm { isa, elem, batch, groups, channels_a_group: channels / groups, space, epsilon })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        if self.channels_a_group == 0 || self.space == 0 { 0 } else { self.batch * self.groups }
    }
    /// Runs one task. `scale` and `bias` have a number of the array's type a channel, or are null.
    /// # Safety
    /// The pointers are valid for the shape given to `new`; `from` and `to` are equal or do not overlap.
    pub unsafe fn run(&self, task: usize, from: *const u8, scale: *const u8, bias: *const u8, to: *mut u8) {
        let (size, isa) = (self.elem.size(), self.isa);
        let first_channel = task % self.groups * self.channels_a_group;
        let at = task * self.channels_a_group * self.space * size;
        // SAFETY: the group lies within the array, its channels within scale and bias.
        unsafe {
            let (from, to) = (from.add(at), to.add(at));
            let len = self.channels_a_group * self.space;
            let mean = self.sum(Map::Identity, from, len, 0.0) / len as f64;
            let inverse = 1.0 / (self.sum(Map::Square, from, len, mean) / len as f64 + self.epsilon).sqrt();
            for c in 0..self.channels_a_group {
                let number = |p: *const u8, or: f64| -> f64 {
                    let at = (first_channel + c) * size;
                    if p.is_null() {
                        or
                    } else if self.elem == Elem::F64 {
                        p.add(at).cast::<f64>().read()
                    } else {
                        let mut x = 0.0f32;
                        load_strided(isa, self.elem, p.add(at), 0, &mut x, 1);
                        f64::from(x)
                    }
                };
                let (factor, bias) = (inverse * number(scale, 1.0), number(bias, 0.0));
                let at = c * self.space * size;
                self.apply(from.add(at), to.add(at), mean, factor, bias);
            }
        }
    }
    unsafe fn sum(&self, map: Map, from: *const u8, len: usize, shift: f64) -> f64 {
        let isa = self.isa;
        let total = |at: *const f32, len| dispatch(isa, Row { map, how: Combine::Sum, at, len, shift: shift as f32 });
        // SAFETY: `len` numbers from `from` on.
        unsafe {
            match self.elem {
                Elem::F32 => total(from.cast(), len),
                Elem::F64 => (0..len)
                    .map(|i| *from.cast::<f64>().add(i))
                    .map(|x| if map == Map::Square { (x - shift).powi(2) } else { x })
                    .sum(),
                _ => {
                    let mut tile = [0.0f32; TILE];
                    let mut sum = 0.0;
                    for start in (0..len).step_by(TILE) {
                        let n = TILE.min(len - start);
                        load_strided(isa, self.elem, from.add(start * self.elem.size()), 1, tile.as_mut_ptr(), n);
                        sum += total(tile.as_ptr(), n);
                    }
                    sum
                }
            }
        }
    }
    /// One channel: (x - mean) factor + bias.
    unsafe fn apply(&self, from: *const u8, to: *mut u8, mean: f64, factor: f64, bias: f64) {
        let (isa, len) = (self.isa, self.space);
        // SAFETY: `space` numbers on both sides.
        unsafe {
            let channel = |from, to: *mut f32, len| {
                dispatch(isa, Affine { from, to, len, mean: mean as f32, factor: factor as f32, bias: bias as f32 });
            };
            match self.elem {
                Elem::F32 => channel(from.cast(), to.cast(), len),
                Elem::F64 => {
                    for i in 0..len {
                        *to.cast::<f64>().add(i) = (*from.cast::<f64>().add(i) - mean) * factor + bias;
                    }
                }
                _ => {
                    let mut tile = [0.0f32; TILE];
                    for start in (0..len).step_by(TILE) {
                        let (n, at) = (TILE.min(len - start), start * self.elem.size());
                        let t = tile.as_mut_ptr();
                        load_strided(isa, self.elem, from.add(at), 1, t, n);
                        channel(t, t, n);
                        store_strided(isa, t, 1, self.elem, to.add(at), 1, n);
                    }
                }
            }
        }
    }
}

struct Affine {
    from: *const f32,
    to: *mut f32,
    len: usize,
    mean: f32,
    factor: f32,
    bias: f32,
}

impl Kernel for Affine {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let (m, k, b) = (V::splat(self.mean), V::splat(self.factor), V::splat(self.bias));
        let mut i = 0;
        // SAFETY: `GroupNorm::run`'s contract: `len` numbers on both sides.
        unsafe {
            while i + V::LANES <= self.len {
                (V::load(self.from.add(i)) - m).mul_add(k, b).store(self.to.add(i));
                i += V::LANES;
            }
            if i < self.len {
                let n = self.len - i;
                (V::load_n(self.from.add(i), n) - m).mul_add(k, b).store_n(self.to.add(i), n);
            }
        }
    }
}
