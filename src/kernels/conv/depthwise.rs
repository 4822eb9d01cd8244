//! Depthwise convolution (as many groups as channels) on the blocked layout: a vector holds one place's channels.

use super::{ConvPtrs, ConvSpec, even};
use crate::bail;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::gemm::epilogue::{activate, add};
use crate::kernels::gemm::micro::unroll;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, Mask, dispatch};

/// Places computed together, so that each weight is read once for all of them.
const PLACES: usize = 8;

/// A depthwise convolution of given shapes on blocked memory.
pub struct DepthwiseConv {
    isa: Isa,
    spec: ConvSpec,
    c: usize,
    blocks: usize,
    /// Channel blocks and output lines of a task; only one of them is cut.
    task_blocks: usize,
    task_lines: usize,
}

impl DepthwiseConv {
    /// Whether this kernel takes the shape.
    pub fn supports(s: &ConvSpec) -> bool {
        let flat = s.input[0] == 1 && s.output[0] == 1 && s.kernel[0] == 1 && s.pad[0] == 0;
        flat && s.groups == s.c_in && s.c_in == s.c_out && s.groups > 0 && s.taps() > 0
    }
    /// Plans the convolution, or says why it cannot be.
    pub fn new(isa: Isa, spec: ConvSpec) -> Result<DepthwiseConv> {
        spec.check()?;
        if !Self::supports(&spec) {
            bail!(Unsupported, "no depthwise kernel for {spec:?}");
        }
        let c = isa.f32_lanes();
        let blocks = spec.c_in.div_ceil(c);
        product(&[spec.n.max(1), blocks, c, spec.in_size().max(1), 4])?;
        product(&[spec.n.max(1), blocks, c, spec.out_size().max(1), 4])?;
        product(&[blocks, c, spec.taps(), 4])?;
        // 5 to 40 us a task, of equal size: a vector step takes about half a nanosecond.
        let block = spec.out_size().saturating_mul(spec.taps()).max(1);
        let (items, lines) = (blocks * spec.n.max(1), spec.output[1].max(1));
        let total = block.saturating_mul(items);
        let target = (total / 24).clamp(10_000, 80_000);
        let (task_blocks, task_lines) = if block > target {
            (1, lines.div_ceil(even(block.div_ceil(target))))
        } else {
            (items.div_ceil(even(total.div_ceil(target))).max(1), lines)
        };
        Ok(DepthwiseConv { isa, spec, c, blocks, task_blocks, task_lines })
    }
    /// What it was made from.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }
    /// The kernel's name in the table.
    pub fn name(&self) -> &'static str {
        "f32_depthwise"
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        1
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, _phase: usize) -> usize {
        (self.spec.n * self.blocks).div_ceil(self.task_blocks) * self.spec.output[1].div_ceil(self.task_lines)
    }
    /// Bytes of scratch that each thread must lend to `run`.
    pub fn scratch_bytes(&self) -> usize {
        0
    }
    /// Bytes of workspace shared by all tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        0
    }
    /// Bytes of the packed weights.
    pub fn packed_bytes(&self) -> usize {
        self.blocks * self.c * self.spec.taps() * 4
    }
    /// Names the packed format: equal strings mean that packed weights may be shared.
    pub fn packed_format(&self) -> String {
        format!("depthwise_w f32 c{} {} {:?}", self.c, self.spec.c_in, self.spec.kernel)
    }
    /// Floats of the bias that `run` reads: channels rounded up to whole blocks; those beyond must be zero.
    pub fn bias_len(&self) -> usize {
        self.blocks * self.c
    }
    /// Packs the weights: `[block][tap][c]`.
    /// # Safety
    /// `w` is valid for reading the spec's weights and need not be aligned, `dst` for writing `packed_bytes`.
    pub unsafe fn pack(&self, w: *const f32, dst: *mut f32) {
        let taps = self.spec.taps();
        for ch in 0..self.blocks * self.c {
            for t in 0..taps {
                // SAFETY: channels beyond the last are not read.
                unsafe {
                    let v = if ch < self.spec.c_in { w.add(ch * taps + t).read_unaligned() } else { 0.0 };
                    *dst.add((ch / self.c * taps + t) * self.c + ch % self.c) = v;
                }
            }
        }
    }
    /// Runs one task.
    /// # Safety
    /// The operands are valid by the spec's shapes, blocked, weights packed, bias of `bias_len` values; the output overlaps none of them,
    /// except that a residual that is not added last may be the output itself.
    pub unsafe fn run(&self, _phase: usize, task: usize, p: &ConvPtrs, _workspace: *mut u8, _scratch: *mut u8) {
        let split = self.spec.output[1].div_ceil(self.task_lines);
        let (first, l0) = (task / split * self.task_blocks, task % split * self.task_lines);
        let l1 = self.spec.output[1].min(l0 + self.task_lines);
        for item in first..(self.spec.n * self.blocks).min(first + self.task_blocks) {
            dispatch(self.isa, Lines { isa: self.isa, s: &self.spec, item, blocks: self.blocks, lines: (l0, l1), p });
        }
    }
}

/// Lines of one channel block of one image.
struct Lines<'a> {
    isa: Isa,
    s: &'a ConvSpec,
    item: usize,
    blocks: usize,
    lines: (usize, usize),
    p: &'a ConvPtrs,
}

impl Kernel for Lines<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Lines { isa, s, item, blocks, lines, p } = self;
        let block = item % blocks;
        let x = p.x.wrapping_add(item * s.in_size() * V::LANES);
        let w = p.w.wrapping_add(block * s.taps() * V::LANES);
        let out = item * s.out_size() * V::LANES;
        let used = V::LANES.min(s.c_in - block * V::LANES);
        // SAFETY: the block has LANES biases.
        let bias = if s.bias { unsafe { V::load(p.bias.add(block * V::LANES)) } } else { V::zero() };
        let (sw, dw, pad) = (s.stride[2], s.dilation[2], s.pad[2]);
        // Places whose taps all lie inside the line.
        let lo = pad.div_ceil(sw).min(s.output[2]);
        let hi = match (s.input[2] + pad).checked_sub((s.kernel[2] - 1) * dw + 1) {
            Some(last) => (last / sw + 1).clamp(lo, s.output[2]),
            None => lo,
        };
        let (lo_v, hi_v) = s.activation.clamp();
        let (lo_v, hi_v) = (V::splat(lo_v), V::splat(hi_v));
        for line in lines.0..lines.1 {
            let (h0, h1) = super::inside(line, s.stride[1], s.dilation[1], s.pad[1], s.input[1], s.kernel[1]);
            let row = |h: usize| {
                let at = (line * s.stride[1] + h * s.dilation[1]).wrapping_sub(s.pad[1]);
                x.wrapping_add(at * s.input[2] * V::LANES)
            };
            let mut ow = 0;
            while ow < s.output[2] {
                let o = out + (line * s.output[2] + ow) * V::LANES;
                let places = if ow >= lo && ow + PLACES <= hi { PLACES } else { 1 };
                let mut acc = [bias; PLACES];
                // SAFETY: lines h0..h1 exist, and so do the columns: all taps of inner places, the checked ones of the others.
                unsafe {
                    if places == PLACES {
                        for h in h0..h1 {
                            let mut at = row(h).wrapping_add((ow * sw).wrapping_sub(pad).wrapping_mul(V::LANES));
                            let mut wt = w.add(h * s.kernel[2] * V::LANES);
                            for _ in 0..s.kernel[2] {
                                let wv = V::load(wt);
                                unroll!(PLACES, i, {
                                    acc[i] = V::load(at.add(i * sw * V::LANES)).mul_add(wv, acc[i]);
                                });
                                at = at.wrapping_add(dw * V::LANES);
                                wt = wt.wrapping_add(V::LANES);
                            }
                        }
                    } else {
                        let (w0, w1) = super::inside(ow, sw, dw, pad, s.input[2], s.kernel[2]);
                        for h in h0..h1 {
                            for k in w0..w1 {
                                let at = row(h).add((ow * sw + k * dw - pad) * V::LANES);
                                let wv = V::load(w.add((h * s.kernel[2] + k) * V::LANES));
                                acc[0] = V::load(at).mul_add(wv, acc[0]);
                            }
                        }
                    }
                    for (i, a) in acc.iter().enumerate().take(places) {
                        let mut v = *a;
                        let residual = if s.residual { V::load(p.residual.add(o + i * V::LANES)) } else { V::zero() };
                        if s.residual && !s.residual_last {
                            v = v + residual;
                        }
                        v = hi_v.min(lo_v.max(v));
                        if s.residual_last && s.activation.is_clamp() {
                            v = v + residual;
                        }
                        if used < V::LANES {
                            v = V::select(V::M::first(used), v, V::zero());
                        }
                        v.store(p.y.add(o + i * V::LANES));
                    }
                }
                ow += places;
            }
            if !s.activation.is_clamp() {
                let y = p.y.wrapping_add(out + line * s.output[2] * V::LANES);
                // SAFETY: the line just written.
                unsafe {
                    activate(isa, s.activation, y, 1, s.output[2] * V::LANES, 0);
                    if s.residual_last {
                        add(isa, p.residual.add(out + line * s.output[2] * V::LANES), y, 1, s.output[2] * V::LANES, 0);
                    }
                    for i in 0..s.output[2] * V::LANES {
                        if i % V::LANES >= used {
                            *y.add(i) = 0.0;
                        }
                    }
                }
            }
        }
    }
}
