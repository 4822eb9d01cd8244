//! Where a GEMM takes the panels of B from: packed beforehand, in place, or packed on the way.
//!
//! Packed B is `[panel][k][panel width]`, zero where columns are missing.

use crate::kernels::isa::Isa;
use crate::kernels::reorder::transpose;

/// A panel, or two, ready for a tile.
#[derive(Clone, Copy)]
pub(crate) struct Panels {
    pub b: *const f32,
    pub b_row: usize,
    pub b_panel: usize,
}

/// Gives rows `k0..k0 + kc` of `count` panels from `panel` on.
pub(crate) trait BSource {
    /// # Safety
    /// The rows and panels exist; `scratch` is valid for writing `count * kc * panel width` values.
    unsafe fn panels(&self, panel: usize, count: usize, k0: usize, kc: usize, scratch: *mut f32) -> Panels;
    /// Where those rows will be read, if that is known before and worth fetching.
    fn ahead(&self, _panel: usize, _k0: usize) -> Option<*const f32> {
        None
    }
}

/// B packed over its whole K.
pub(crate) struct Packed {
    pub b: *const f32,
    pub k: usize,
    pub width: usize,
}

impl BSource for Packed {
    unsafe fn panels(&self, panel: usize, _: usize, k0: usize, _: usize, _: *mut f32) -> Panels {
        // SAFETY: the panel exists.
        let b = unsafe { self.b.add((panel * self.k + k0) * self.width) };
        Panels { b, b_row: self.width, b_panel: self.k * self.width }
    }
    fn ahead(&self, panel: usize, k0: usize) -> Option<*const f32> {
        Some(self.b.wrapping_add((panel * self.k + k0) * self.width))
    }
}

/// B anywhere, packed a block at a time, or used in place where its rows are contiguous and `in_place` says so.
pub(crate) struct Strided {
    pub isa: Isa,
    pub b: *const f32,
    pub row: usize,
    pub col: usize,
    pub n: usize,
    pub width: usize,
    pub alpha: f32,
    pub in_place: bool,
}

impl BSource for Strided {
    unsafe fn panels(&self, panel: usize, count: usize, k0: usize, kc: usize, scratch: *mut f32) -> Panels {
        // SAFETY: the rows and panels exist, by the caller's contract.
        unsafe {
            if self.in_place && (panel + count) * self.width <= self.n {
                let b = self.b.add(k0 * self.row + panel * self.width);
                return Panels { b, b_row: self.row, b_panel: self.width };
            }
            for p in 0..count {
                self.pack(panel + p, k0, kc, scratch.add(p * kc * self.width));
            }
            Panels { b: scratch, b_row: self.width, b_panel: kc * self.width }
        }
    }
}

impl Strided {
    /// Packs rows `k0..k0 + kc` of one panel. B need not be aligned.
    /// # Safety
    /// They exist, and `dst` is valid for writing `kc * width` values.
    pub unsafe fn pack(&self, panel: usize, k0: usize, kc: usize, dst: *mut f32) {
        let (w, n0) = (self.width, panel * self.width);
        let cols = w.min(self.n - n0);
        // SAFETY: rows k0..k0 + kc and columns n0..n0 + cols exist.
        unsafe {
            let src = self.b.add(k0 * self.row + n0 * self.col);
            if cols < w {
                std::ptr::write_bytes(dst, 0, kc * w);
            }
            if self.col == 1 {
                for k in 0..kc {
                    std::ptr::copy_nonoverlapping(src.add(k * self.row).cast::<u8>(), dst.add(k * w).cast(), cols * 4);
                }
            } else if self.row == 1 {
                transpose(self.isa, src, self.col, dst, w, cols, kc);
            } else {
                for k in 0..kc {
                    for j in 0..cols {
                        *dst.add(k * w + j) = src.add(k * self.row + j * self.col).read_unaligned();
                    }
                }
            }
            if self.alpha != 1.0 {
                for i in 0..kc * w {
                    *dst.add(i) *= self.alpha;
                }
            }
        }
    }
}
