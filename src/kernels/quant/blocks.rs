//! Products with weights of 2, 4 or 8 bits, quantised in blocks along K: unpacked in registers, scaled once a block.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, I32, Kernel, dispatch};

/// The most rows that are multiplied at once, so that weights are unpacked once for them.
pub const ROWS: usize = 4;

/// `y[i][0] = sum over blocks of scale * (sum of q * x - zero * sum of x)` for one column of weights.
#[derive(Clone, Copy)]
pub struct Blocks {
    /// Rows of x, each block's numbers in the order of [`place`].
    pub x: *const f32,
    /// From one row to the next.
    pub row: usize,
    /// The sum of each block of each row; `blocks` from one row to the next.
    pub sums: *const f32,
    /// Rows; at most [`ROWS`].
    pub rows: usize,
    /// The column's bytes: `blocks` times `bytes`.
    pub q: *const u8,
    /// Blocks of a column.
    pub blocks: usize,
    /// Bytes of a block.
    pub bytes: usize,
    /// 2, 4 or 8.
    pub bits: usize,
    /// The column's scales.
    pub scales: *const f32,
    /// The column's zero points.
    pub zeros: *const f32,
}

/// Where number `k` of a block of `bytes` bytes goes among the block's numbers: those of the first bits of each byte first, then
/// those of the next. So a vector of bytes, shifted and masked, meets consecutive numbers.
pub fn place(k: usize, bytes: usize, bits: usize) -> usize {
    let per = 8 / bits;
    (k % per) * bytes + k / per
}

impl Kernel for Blocks {
    type Out = [f32; ROWS];
    #[inline(always)]
    fn run<V: F32>(self) -> [f32; ROWS] {
        match (self.bits, self.rows) {
            (8, 1) => each::<V, 8, 1>(self),
            (4, 1) => each::<V, 4, 1>(self),
            (2, 1) => each::<V, 2, 1>(self),
            (8, _) => each::<V, 8, ROWS>(self),
            (4, _) => each::<V, 4, ROWS>(self),
            _ => each::<V, 2, ROWS>(self),
        }
    }
}

#[inline(always)]
fn each<V: F32, const BITS: usize, const N: usize>(b: Blocks) -> [f32; ROWS] {
    let per = 8 / BITS;
    let mask = V::I::splat((1 << BITS) - 1);
    let mut total = [V::zero(); N];
    let mut shift = [0.0f32; N];
    for block in 0..b.blocks {
        // SAFETY: `multiply`'s contract: the block's bytes, numbers, scale and zero point are there; what is beyond `rows` reads
        // row 0 again.
        unsafe {
            let q = b.q.add(block * b.bytes);
            let x = b.x.add(block * b.bytes * per);
            let mut acc = [V::zero(); N];
            let mut j = 0;
            while j < b.bytes {
                let n = V::LANES.min(b.bytes - j);
                let mut rest = [0u8; 16];
                let mut from = q.add(j);
                if n < V::LANES {
                    std::ptr::copy_nonoverlapping(from, rest.as_mut_ptr(), n);
                    from = rest.as_ptr();
                }
                let bytes = V::I::load_u8(from);
                for s in 0..per {
                    let w = if BITS == 8 { bytes } else { bytes.shr((s * BITS) as u32) & mask }.to_f32();
                    for (i, a) in acc.iter_mut().enumerate() {
                        let p = x.add(if i < b.rows { i } else { 0 } * b.row + s * b.bytes + j);
                        let v = if n == V::LANES { V::load(p) } else { V::load_n(p, n) };
                        *a = w.mul_add(v, *a);
                    }
                }
                j += n;
            }
            let (scale, zero) = (*b.scales.add(block), *b.zeros.add(block));
            for i in 0..N {
                total[i] = V::splat(scale).mul_add(acc[i], total[i]);
                let row = if i < b.rows { i } else { 0 };
                shift[i] += scale * zero * *b.sums.add(row * b.blocks + block);
            }
        }
    }
    let mut y = [0.0; ROWS];
    for i in 0..N {
        y[i] = total[i].sum() - shift[i];
    }
    y
}

/// Multiplies rows with a column of weights.
/// # Safety
/// All pointers are valid as the fields say.
pub unsafe fn multiply(isa: Isa, b: Blocks) -> [f32; ROWS] {
    dispatch(isa, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::Rng;

    #[test]
    fn columns_agree_with_dequantised_ones() {
        let mut rng = Rng::new(21);
        for isa in Isa::detect().levels() {
            for bits in [2usize, 4, 8] {
                for (block, blocks, rows) in [(16, 1, 1), (32, 3, 4), (64, 2, 3), (16, 5, 2), (128, 2, 1)] {
                    let (bytes, k) = (block * bits / 8, block * blocks);
                    let q: Vec<u8> = (0..blocks * bytes).map(|_| rng.next() as u8).collect();
                    let x = rng.floats(rows * k);
                    let (scales, zeros) = (rng.floats(blocks), (0..blocks).map(|_| rng.below(1 << bits) as f32));
                    let zeros: Vec<f32> = zeros.collect();
                    let mut spread = vec![0.0; rows * k];
                    let mut sums = vec![0.0f32; rows * blocks];
                    let mut want = vec![0.0f64; rows];
                    let mut size = vec![0.0f64; rows];
                    for r in 0..rows {
                        for i in 0..k {
                            let (b, at) = (i / block, i % block);
                            spread[r * k + b * block + place(at, bytes, bits)] = x[r * k + i];
                            sums[r * blocks + b] += x[r * k + i];
                            let byte = q[b * bytes + at / (8 / bits)];
                            let v = (byte >> (at % (8 / bits) * bits)) as u16 & ((1 << bits) - 1);
                            let w = f64::from(scales[b]) * (f64::from(v) - f64::from(zeros[b]));
                            want[r] += w * f64::from(x[r * k + i]);
                            size[r] += f64::from(scales[b].abs()) * (f64::from(v) + f64::from(zeros[b]));
                        }
                    }
                    let b = Blocks {
                        x: spread.as_ptr(),
                        row: k,
                        sums: sums.as_ptr(),
                        rows,
                        q: q.as_ptr(),
                        blocks,
                        bytes,
                        bits,
                        scales: scales.as_ptr(),
                        zeros: zeros.as_ptr(),
                    };
                    // SAFETY: vectors of the sizes that the fields tell of.
                    let got = unsafe { multiply(isa, b) };
                    for r in 0..rows {
                        // Each of the terms is rounded a few times.
                        let tol = 1e-6 * size[r] + 1e-6;
                        assert!((f64::from(got[r]) - want[r]).abs() < tol, "{isa:?} {bits} {} {}", got[r], want[r]);
                    }
                }
            }
        }
    }
}
