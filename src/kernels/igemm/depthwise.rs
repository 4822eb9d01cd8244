//! Depthwise integer convolution: each channel of a place has its own weights, one a tap.

use super::micro::{MAX_COLS, TileSet};
use super::post::{Along, Lines, finish};
use super::{Block, Job, Zero, finish_columns};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, I32, Kernel, dispatch};

/// The weights of all channels, packed: first the sum of each channel's as i32, then as the kernel reads them.
pub(super) struct Depthwise {
    isa: Isa,
    taps: usize,
    channels: usize,
    /// Channels, filled up to whole vectors.
    pub place: usize,
    /// Multiplies bytes, four taps at a time. Else weights are i32 less their zero points.
    quads: Option<QuadsFn>,
}

/// Taps that one instruction takes.
const QUAD: usize = 4;

/// What [`QuadsFn`] works on: `cols` channels from `n0` on.
pub(crate) struct QuadsArgs {
    pub rows: *const *const u8,
    pub padded: usize,
    pub n0: usize,
    pub m: usize,
    pub cols: usize,
    pub taps: usize,
    /// Weights of the block: `[taps / 4][4][16][4]`, where the second and third index tell the channel as [`channel_place`] does.
    pub w: *const i8,
    /// `MAX_COLS` a row.
    pub sums: *mut i32,
}
pub(crate) type QuadsFn = unsafe fn(&QuadsArgs);

/// Where a channel's four weights lie among a block's: what unpacking bytes within quarters of a register makes of 64 channels.
fn channel_place(c: usize) -> usize {
    c / 4 % 4 * 16 + c / 16 * 4 + c % 4
}

impl Depthwise {
    /// `centred`: no zero point of the weights [shifts](Zero::shifts) anything.
    pub fn new(isa: Isa, set: &TileSet, taps: usize, channels: usize, centred: bool) -> Depthwise {
        let quads = set.quads.filter(|_| centred);
        Depthwise { isa, taps, channels, place: channels.next_multiple_of(16), quads }
    }
    pub fn name(&self) -> &'static str {
        if self.quads.is_some() { "u8s8_conv_depthwise_quads" } else { "u8s8_conv_depthwise" }
    }
    /// Bytes of a block's weights where four taps are taken at a time.
    fn block_bytes(&self) -> usize {
        self.taps.div_ceil(QUAD) * QUAD * MAX_COLS
    }
    pub fn packed_bytes(&self) -> Result<usize> {
        let weights = match self.quads {
            Some(_) => product(&[self.channels.div_ceil(MAX_COLS), self.taps + QUAD, MAX_COLS])?,
            None => product(&[self.taps, self.place, 4])?,
        };
        product(&[self.place * 4 + weights, 1])
    }
    pub fn format(&self, unsigned: bool) -> String {
        format!("{} {}x{} {unsigned}", self.name(), self.taps, self.channels)
    }
    /// Packs all weights.
    /// # Safety
    /// `w` is valid for `taps` weights a channel, `zero` for the channels, `dst` for `packed_bytes`.
    pub unsafe fn pack(&self, w: *const u8, unsigned: bool, zero: Zero, dst: *mut u8) {
        let flip = if unsigned { 0x80 } else { 0 };
        // SAFETY: the caller's.
        unsafe {
            std::ptr::write_bytes(dst, 0, self.packed_bytes().unwrap_or(0));
            let (totals, weights) = (dst.cast::<i32>(), dst.add(self.place * 4));
            for c in 0..self.channels {
                let shift = zero.signed(c, unsigned);
                for tap in 0..self.taps {
                    let own = (*w.add(c * self.taps + tap) ^ flip) as i8;
                    let v = i32::from(own) - shift;
                    *totals.add(c) += v;
                    if self.quads.is_some() {
                        let block = c / MAX_COLS * self.block_bytes() + tap / QUAD * QUAD * MAX_COLS;
                        let at = block + channel_place(c % MAX_COLS) * QUAD + tap % QUAD;
                        weights.cast::<i8>().add(at).write(own);
                    } else {
                        weights.cast::<i32>().add(tap * self.place + c).write(v);
                    }
                }
            }
        }
    }
    /// Computes channels `n0..n0 + cols`, a block or less, for the rows of a job whose operands have no zero points but the left
    /// one's. `by_rows`: a place's channels of the result lie together.
    /// # Safety
    /// As for [`Columns::run`](super::Columns::run); `job.packed` is what `pack` wrote; places have room for whole vectors of
    /// 16 channels, `sums` for two times `MAX_COLS` i32 for each of `padded` rows.
    pub unsafe fn block(&self, job: &Job, n0: usize, cols: usize, sums: *mut i32, padded: usize, by_rows: bool) {
        let totals = job.packed.cast::<i32>();
        let w = job.packed.wrapping_add(self.place * 4);
        // SAFETY: the caller's.
        unsafe {
            match self.quads {
                Some(quads) => {
                    let w = w.add(n0 / MAX_COLS * self.block_bytes()).cast();
                    quads(&QuadsArgs { rows: job.rows, padded, n0, m: job.m, cols, taps: self.taps, w, sums });
                }
                None => {
                    let (w, place) = (w.cast::<i32>().add(n0), self.place);
                    let wide = Wide { rows: job.rows, padded, n0, m: job.m, cols, taps: self.taps, w, place, sums };
                    dispatch(self.isa, wide);
                }
            }
            let block = Block::new(job, n0, cols, totals.add(n0));
            if !by_rows {
                return finish_columns(self.isa, job, &block, sums, padded);
            }
            let lines = Lines {
                n: cols,
                rows: job.m,
                sums,
                sums_row: MAX_COLS,
                add: Along { at: block.add.as_ptr(), each: true },
                ..job.lines(n0, true, n0)
            };
            finish(self.isa, lines);
        }
    }
}

/// Sums of products channel by channel, for some rows.
struct Wide {
    rows: *const *const u8,
    padded: usize,
    n0: usize,
    m: usize,
    cols: usize,
    taps: usize,
    w: *const i32,
    place: usize,
    sums: *mut i32,
}

impl Kernel for Wide {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let lanes = V::I::LANES;
        for i in 0..self.m {
            let mut j = 0;
            while j < self.cols {
                // SAFETY: places and weights have room for whole vectors of 16 channels, the sums for `MAX_COLS` a row.
                unsafe {
                    let mut acc = V::I::splat(0);
                    for tap in 0..self.taps {
                        let x = V::I::load_u8((*self.rows.add(tap * self.padded + i)).add(self.n0 + j));
                        acc = acc + x * V::I::load(self.w.add(tap * self.place + j));
                    }
                    acc.store(self.sums.add(i * MAX_COLS + j));
                }
                j += lanes;
            }
        }
    }
}

/// The bytes of four taps are put together channel by channel, and multiplied and added at once.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) unsafe fn quads_512(t: &QuadsArgs) {
    use std::arch::x86_64::*;
    let mask = u64::MAX >> (64 - t.cols);
    // SAFETY: the caller's: `cols` bytes of each tap of each row, weights for all taps, room for `MAX_COLS` sums a row.
    unsafe {
        for i in 0..t.m {
            let mut acc = [_mm512_setzero_si512(); 4];
            for tap in (0..t.taps).step_by(QUAD) {
                let mut x = [_mm512_setzero_si512(); 4];
                for (k, x) in x.iter_mut().enumerate() {
                    if tap + k < t.taps {
                        *x = _mm512_maskz_loadu_epi8(mask, (*t.rows.add((tap + k) * t.padded + i)).add(t.n0).cast());
                    }
                }
                let (a, b) = (_mm512_unpacklo_epi8(x[0], x[1]), _mm512_unpackhi_epi8(x[0], x[1]));
                let (c, d) = (_mm512_unpacklo_epi8(x[2], x[3]), _mm512_unpackhi_epi8(x[2], x[3]));
                let w = t.w.add(tap * MAX_COLS);
                acc[0] = _mm512_dpbusd_epi32(acc[0], _mm512_unpacklo_epi16(a, c), _mm512_loadu_si512(w.cast()));
                acc[1] = _mm512_dpbusd_epi32(acc[1], _mm512_unpackhi_epi16(a, c), _mm512_loadu_si512(w.add(64).cast()));
                acc[2] =
                    _mm512_dpbusd_epi32(acc[2], _mm512_unpacklo_epi16(b, d), _mm512_loadu_si512(w.add(128).cast()));
                acc[3] =
                    _mm512_dpbusd_epi32(acc[3], _mm512_unpackhi_epi16(b, d), _mm512_loadu_si512(w.add(192).cast()));
            }
            // Quarters of a register become registers.
            let (a, b) = (_mm512_shuffle_i32x4::<0x44>(acc[0], acc[1]), _mm512_shuffle_i32x4::<0xee>(acc[0], acc[1]));
            let (c, d) = (_mm512_shuffle_i32x4::<0x44>(acc[2], acc[3]), _mm512_shuffle_i32x4::<0xee>(acc[2], acc[3]));
            let to = t.sums.add(i * MAX_COLS);
            _mm512_storeu_si512(to.cast(), _mm512_shuffle_i32x4::<0x88>(a, c));
            _mm512_storeu_si512(to.add(16).cast(), _mm512_shuffle_i32x4::<0xdd>(a, c));
            _mm512_storeu_si512(to.add(32).cast(), _mm512_shuffle_i32x4::<0x88>(b, d));
            _mm512_storeu_si512(to.add(48).cast(), _mm512_shuffle_i32x4::<0xdd>(b, d));
        }
    }
}
