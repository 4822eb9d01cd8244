//! The input of a convolution seen as the matrix B of a product: a row a tap of a channel, a column an output place.

use super::ConvSpec;
use crate::kernels::gemm::pack::{BSource, Panels};

/// One image and group. Packs the panels that a task asks for.
pub(crate) struct Im2col<'a> {
    pub spec: &'a ConvSpec,
    /// First input channel of the group.
    pub x: *const f32,
    /// Panel width.
    pub width: usize,
}

impl BSource for Im2col<'_> {
    unsafe fn panels(&self, panel: usize, count: usize, k0: usize, kc: usize, scratch: *mut f32) -> Panels {
        for p in 0..count {
            // SAFETY: the panels and rows exist; scratch holds them.
            unsafe { self.pack(panel + p, k0, kc, scratch.add(p * kc * self.width)) };
        }
        Panels { b: scratch, b_row: self.width, b_panel: kc * self.width }
    }
}

impl Im2col<'_> {
    /// Rows `k0..k0 + kc` of one panel.
    unsafe fn pack(&self, panel: usize, k0: usize, kc: usize, dst: *mut f32) {
        let s = self.spec;
        let [_, ih, iw] = s.input;
        let [_, oh, ow] = s.output;
        let taps = s.taps();
        let (p0, p1) = (panel * self.width, s.out_size().min((panel + 1) * self.width));
        for r in 0..kc {
            let (c, tap) = ((k0 + r) / taps, (k0 + r) % taps);
            let at = [tap / (s.kernel[1] * s.kernel[2]), tap / s.kernel[2] % s.kernel[1], tap % s.kernel[2]];
            // SAFETY: rows and channels exist by the caller's contract; `source` keeps within the input.
            unsafe {
                let row = dst.add(r * self.width);
                let plane = self.x.add(c * s.in_size());
                let mut p = p0;
                while p < p1 {
                    // A run of output places in one line.
                    let (x0, line) = (p % ow, p / ow);
                    let len = (ow - x0).min(p1 - p);
                    let out = row.add(p - p0);
                    let z = source(line / oh, 0, s, at[0]);
                    let y = source(line % oh, 1, s, at[1]);
                    match (z, y) {
                        (Some(z), Some(y)) => line_run(s, plane.add((z * ih + y) * iw), x0, len, at[2], out),
                        _ => std::ptr::write_bytes(out, 0, len),
                    }
                    p += len;
                }
                std::ptr::write_bytes(row.add(p1 - p0), 0, self.width - (p1 - p0));
            }
        }
    }
}

/// The input place that an output place sees through a tap, unless it is padding.
fn source(out: usize, d: usize, s: &ConvSpec, tap: usize) -> Option<usize> {
    (out * s.stride[d] + tap * s.dilation[d]).checked_sub(s.pad[d]).filter(|&i| i < s.input[d])
}

/// `len` values of one input line as output places `x0..` see them through tap `tap`.
unsafe fn line_run(s: &ConvSpec, line: *const f32, x0: usize, len: usize, tap: usize, dst: *mut f32) {
    let (step, width) = (s.stride[2], s.input[2]);
    // Place x0 + i reads input `x0 * step + i * step + shift - pad`: those with i in lo..hi lie inside.
    let (first, pad) = (x0 * step + tap * s.dilation[2], s.pad[2]);
    let lo = pad.saturating_sub(first).div_ceil(step).min(len);
    let hi = (width + pad).saturating_sub(first).div_ceil(step).clamp(lo, len);
    // SAFETY: lo..hi are the places that lie inside the line.
    unsafe {
        std::ptr::write_bytes(dst, 0, lo);
        std::ptr::write_bytes(dst.add(hi), 0, len - hi);
        if lo == hi {
            return;
        }
        let src = line.add(first + lo * step - pad);
        if step == 1 {
            std::ptr::copy_nonoverlapping(src, dst.add(lo), hi - lo);
        } else {
            for i in 0..hi - lo {
                *dst.add(lo + i) = *src.add(i * step);
            }
        }
    }
}
