//! Layer and RMS normalisation of images over their channels, each place for itself: of (batch, channels, places), or with
//! blocks of channels last. f32.

use super::{GRAIN, LayerNormKind};
use crate::base::checked;
use crate::ensure;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, Mask, dispatch};

/// Places at a time: so many sums are kept in registers.
const TILE: usize = 8;
/// Numbers added up in f32 before their sum is widened.
const PART: usize = 16;

/// A normalisation bound to a shape.
#[derive(Clone, Debug)]
pub struct ChannelLayerNorm {
    isa: Isa,
    shape: Shape,
    places_a_task: usize,
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: LayerNormKind,
    batch: usize,
    channels: usize,
    space: usize,
    block: Option<usize>,
    epsilon: f64,
}

impl ChannelLayerNorm {
    /// Over `batch` times `channels` times `space` numbers; with `block`, so many channels of a place lie together, and what
    /// is left of the last block is zeros.
    pub fn new(
        isa: Isa,
        kind: LayerNormKind,
        [batch, channels, space]: [usize; 3],
        block: Option<usize>,
        epsilon: f64,
    ) -> Result<ChannelLayerNorm> {
        checked::product(&[batch, channels.next_multiple_of(block.unwrap_or(1).max(1)), space])?;
        ensure!(
            block.is_none_or(|b| b > 0 && b.is_multiple_of(isa.f32_lanes())),
            Unsupported,
            "blocks of {block:?} channels with vectors of {}",
            isa.f32_lanes()
        );
        let places_a_task = (GRAIN / channels.max(1)).next_multiple_of(TILE.max(isa.f32_lanes()));
        Ok(ChannelLayerNorm { isa, shape: Shape { kind, batch, channels, space, block, epsilon }, places_a_task })
    }
    fn tasks_an_image(&self) -> usize {
        self.shape.space.div_ceil(self.places_a_task)
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        if self.shape.channels == 0 { 0 } else { self.shape.batch * self.tasks_an_image() }
    }
    /// Runs one task. `scale` and `bias` have a number a channel, or are null.
    /// # Safety
    /// The pointers are valid for the shape given to `new`; `from` and `to` are equal or do not overlap.
    pub unsafe fn run(&self, task: usize, from: *const f32, scale: *const f32, bias: *const f32, to: *mut f32) {
        let (image, part) = (task / self.tasks_an_image(), task % self.tasks_an_image());
        let first = part * self.places_a_task;
        let last = (first + self.places_a_task).min(self.shape.space);
        let each = self.shape.channels.next_multiple_of(self.shape.block.unwrap_or(1)) * self.shape.space;
        // SAFETY: the image lies within the array.
        let (from, to) = unsafe { (from.add(image * each), to.add(image * each)) };
        dispatch(self.isa, Places { shape: self.shape, from, scale, bias, to, first, last });
    }
}

/// Places `first .. last` of one image.
struct Places {
    shape: Shape,
    from: *const f32,
    scale: *const f32,
    bias: *const f32,
    to: *mut f32,
    first: usize,
    last: usize,
}

impl Kernel for Places {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        // SAFETY: `ChannelLayerNorm::run`'s contract.
        unsafe {
            match self.shape.block {
                Some(block) => {
                    let mut at = self.first;
                    while at + TILE <= self.last {
                        self.blocked::<V, TILE>(block, at);
                        at += TILE;
                    }
                    (at..self.last).for_each(|at| self.blocked::<V, 1>(block, at));
                }
                None => {
                    for at in (self.first..self.last).step_by(V::LANES) {
                        self.dense::<V>(at, V::LANES.min(self.last - at));
                    }
                }
            }
        }
    }
}

impl Places {
    /// What to divide by, of the sum of squares.
    #[inline(always)]
    fn inverse(&self, squares: f64) -> f32 {
        (1.0 / (squares / self.shape.channels as f64 + self.shape.epsilon).sqrt()) as f32
    }

    /// `T` places from `at` on; a vector holds channels of one place.
    #[inline(always)]
    unsafe fn blocked<V: F32, const T: usize>(&self, block: usize, at: usize) {
        let Shape { kind, channels, space, .. } = self.shape;
        let vectors = channels.div_ceil(block) * (block / V::LANES);
        // Vector `v` of place `at`, and how many of its channels there are.
        let place = |v: usize| {
            let channel = v * V::LANES;
            let offset = (channel / block * space + at) * block + channel % block;
            (offset, V::LANES.min(channels.saturating_sub(channel)))
        };
        let zeros = |_| V::zero();
        let mut means = [0.0f32; T];
        let mut sums = [0.0f64; T];
        let mut part: [V; T] = std::array::from_fn(zeros);
        if kind == LayerNormKind::Layer {
            for v in 0..vectors {
                let (offset, _) = place(v);
                for (t, p) in part.iter_mut().enumerate() {
                    // SAFETY: vector `v` of place `at + t`; lanes beyond the channels are zeros.
                    *p = *p + unsafe { V::load(self.from.add(offset + t * block)) };
                }
                widen(&mut sums, &mut part, v + 1 == vectors || (v + 1) % PART == 0);
            }
            for (m, s) in means.iter_mut().zip(sums) {
                *m = (s / channels as f64) as f32;
            }
        }
        let mut squares = [0.0f64; T];
        for v in 0..vectors {
            let (offset, n) = place(v);
            for (t, p) in part.iter_mut().enumerate() {
                // SAFETY: as above.
                let mut d = unsafe { V::load(self.from.add(offset + t * block)) } - V::splat(means[t]);
                if n < V::LANES {
                    d = V::select(V::M::first(n), d, V::zero());
                }
                *p = d.mul_add(d, *p);
            }
            widen(&mut squares, &mut part, v + 1 == vectors || (v + 1) % PART == 0);
        }
        let inverse = squares.map(|s| self.inverse(s));
        for v in 0..vectors {
            let (offset, n) = place(v);
            let first = v * V::LANES;
            // SAFETY: `n` channels from `first` on.
            let list = |p: *const f32| unsafe {
                if n == V::LANES {
                    V::load(p.add(first))
                } else if n == 0 {
                    V::zero()
                } else {
                    V::load_n(p.add(first), n)
                }
            };
            let scale = if self.scale.is_null() { V::splat(1.0) } else { list(self.scale) };
            let bias = if self.bias.is_null() { V::zero() } else { list(self.bias) };
            for t in 0..T {
                // SAFETY: as above.
                unsafe {
                    let at = offset + t * block;
                    let x = V::load(self.from.add(at));
                    let mut y = (x - V::splat(means[t])) * V::splat(inverse[t]) * scale + bias;
                    if n < V::LANES {
                        y = V::select(V::M::first(n), y, V::zero());
                    }
                    y.store(self.to.add(at));
                }
            }
        }
    }

    /// `n` places from `at` on; a vector holds places of one channel.
    #[inline(always)]
    unsafe fn dense<V: F32>(&self, at: usize, n: usize) {
        let Shape { kind, channels, space, .. } = self.shape;
        // SAFETY: `n` places of channel `c`.
        let load = |c: usize| unsafe {
            let p = self.from.add(c * space + at);
            if n == V::LANES { V::load(p) } else { V::load_n(p, n) }
        };
        let (mut mean, mut sum, mut part) = (V::zero(), V::zero(), V::zero());
        let count = V::splat(1.0 / channels as f32);
        if kind == LayerNormKind::Layer {
            for c in 0..channels {
                part = part + load(c);
                if c % PART == PART - 1 {
                    (sum, part) = (sum + part, V::zero());
                }
            }
            mean = (sum + part) * count;
            (sum, part) = (V::zero(), V::zero());
        }
        for c in 0..channels {
            let d = load(c) - mean;
            part = d.mul_add(d, part);
            if c % PART == PART - 1 {
                (sum, part) = (sum + part, V::zero());
            }
        }
        let inverse = V::splat(1.0) / ((sum + part) * count + V::splat(self.shape.epsilon as f32)).sqrt();
        for c in 0..channels {
            // SAFETY: channel `c` of scale and bias; `n` places of the result.
            unsafe {
                let mut y = (load(c) - mean) * inverse;
                if !self.scale.is_null() {
                    y = y * V::splat(*self.scale.add(c));
                }
                if !self.bias.is_null() {
                    y = y + V::splat(*self.bias.add(c));
                }
                let to = self.to.add(c * space + at);
                if n == V::LANES { y.store(to) } else { y.store_n(to, n) }
            }
        }
    }
}

/// Adds parts to wide sums, where it is time to.
#[inline(always)]
fn widen<V: F32, const T: usize>(sums: &mut [f64; T], part: &mut [V; T], now: bool) {
    if now {
        for (s, p) in sums.iter_mut().zip(part) {
            *s += f64::from(p.sum());
            *p = V::zero();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    #[test]
    fn places_over_channels() {
        let mut rng = Rng::new(71);
        for isa in Isa::detect().levels() {
            let lanes = isa.f32_lanes();
            for (batch, channels, space) in
                [(1usize, 96usize, 49usize), (2, 19, 10), (1, 1, 3), (3, 40, 17), (1, 5, 0), (0, 3, 2)]
            {
                for (kind, block) in [
                    (LayerNormKind::Layer, None),
                    (LayerNormKind::Rms, None),
                    (LayerNormKind::Layer, Some(lanes)),
                    (LayerNormKind::Rms, Some(2 * lanes)),
                ] {
                    let b = block.unwrap_or(1);
                    let padded = channels.next_multiple_of(b);
                    let at = |n: usize, c: usize, p: usize| ((n * padded + c / b * b) * space) + p * b + c % b;
                    let mut x = vec![0.0f32; batch * padded * space];
                    for (n, c, p) in all(batch, channels, space) {
                        x[at(n, c, p)] = rng.float() + 3.0;
                    }
                    let (scale, bias) = (rng.floats(channels), rng.floats(channels));
                    let mut y = vec![f32::NAN; x.len()];
                    let k = ChannelLayerNorm::new(isa, kind, [batch, channels, space], block, 1e-5).unwrap();
                    for t in 0..k.tasks() {
                        // SAFETY: the arrays have the shape.
                        unsafe { k.run(t, x.as_ptr(), scale.as_ptr(), bias.as_ptr(), y.as_mut_ptr()) };
                    }
                    for (n, c, p) in all(batch, padded, space) {
                        if c >= channels {
                            assert_eq!(y[at(n, c, p)], 0.0, "what fills the last block stays zero");
                            continue;
                        }
                        let column: Vec<f64> = (0..channels).map(|c| f64::from(x[at(n, c, p)])).collect();
                        let mean = column.iter().sum::<f64>() / channels as f64;
                        let mean = if kind == LayerNormKind::Rms { 0.0 } else { mean };
                        let square = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / channels as f64;
                        let want =
                            (column[c] - mean) / (square + 1e-5).sqrt() * f64::from(scale[c]) + f64::from(bias[c]);
                        let got = f64::from(y[at(n, c, p)]);
                        // The mean is three times the deviation and more, and of one channel nothing but epsilon is
                        // left to divide by: some rounding errors of 3 over its root.
                        let most = if channels == 1 { 1e-3 } else { 2e-5 };
                        assert!(
                            (got - want).abs() <= most * (1.0 + want.abs()),
                            "{kind:?} {block:?}: {got} for {want}"
                        );
                    }
                }
            }
        }
    }

    fn all(batch: usize, channels: usize, space: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..batch).flat_map(move |n| (0..channels).flat_map(move |c| (0..space).map(move |p| (n, c, p))))
    }
}
