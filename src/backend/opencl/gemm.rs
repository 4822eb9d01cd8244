//! Matrix products.

use super::call::{Call, Slot, activation, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use crate::kernels::gemm::Activation;
use crate::{bail, base::checked::product, error::Result};

/// C = act(alpha A B + beta bias + residual), batched. Places: A, B, bias, residual, C; an absent bias or residual takes
/// any place, C's for instance. C is dense, and no input may share its memory.
#[derive(Clone, Debug)]
pub struct Gemm {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Columns of A.
    pub k: usize,
    /// Strides of A along m and k.
    pub a: [usize; 2],
    /// Strides of B along k and n.
    pub b: [usize; 2],
    /// Sizes of the batch dimensions.
    pub batch: [usize; 3],
    /// Strides of A along them.
    pub a_batch: [usize; 3],
    /// Strides of B along them.
    pub b_batch: [usize; 3],
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the bias; 0 for none.
    pub beta: f32,
    /// Strides of the bias along m and n.
    pub bias: [usize; 2],
    /// Whether a tensor of C's shape is added.
    pub residual: bool,
    /// What is applied at the end.
    pub act: Activation,
}

impl Gemm {
    /// A plain product of dense matrices.
    pub fn dense(m: usize, n: usize, k: usize) -> Self {
        Gemm {
            m,
            n,
            k,
            a: [k, 1],
            b: [n, 1],
            batch: [1; 3],
            a_batch: [0; 3],
            b_batch: [0; 3],
            alpha: 1.0,
            beta: 0.0,
            bias: [0; 2],
            residual: false,
            act: Activation::None,
        }
    }
}

/// Which kernel computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// Register blocks of rows by vectors of columns.
    Wide,
    /// Blocks of dot products.
    Dot,
    /// Tiles in local memory; takes any strides.
    Tile,
}

/// The kernel that suits the device and the strides.
pub fn choose(device: &Device, g: &Gemm) -> Algorithm {
    let lanes = lanes(device);
    if device.info.kind != DeviceKind::Cpu {
        Algorithm::Tile
    } else if g.b[1] == 1 && (g.n >= lanes || g.a[1] != 1 || g.b[0] != 1) {
        Algorithm::Wide
    } else if g.a[1] == 1 && g.b[0] == 1 {
        Algorithm::Dot
    } else {
        Algorithm::Tile
    }
}

/// Floats in the vectors of the kernels for CPUs.
pub(super) fn lanes(device: &Device) -> usize {
    if device.info.f32_lanes >= 16 { 16 } else { 8 }
}

/// Makes the call of a product.
pub fn gemm(device: &Device, g: &Gemm, algorithm: Algorithm) -> Result<Option<Call>> {
    if product(&g.batch)? == 0 || g.m == 0 || g.n == 0 {
        return Ok(None);
    }
    let lanes = lanes(device);
    let (epilogue, act) = activation(g.act)?;
    let (source, name, options, tiles, local): (_, _, _, [usize; 2], _) = match algorithm {
        Algorithm::Wide => {
            if g.b[1] != 1 {
                bail!(Internal, "the wide OpenCL product needs contiguous rows of B");
            }
            let (mr, nv, lanes) = block(device, g.m, g.n);
            let options = format!("-DVW={lanes} -DMR={mr} -DNV={nv}");
            (WIDE, "gemm_wide", options, [g.m.div_ceil(mr), g.n.div_ceil(nv * lanes)], [1, 1, 1])
        }
        Algorithm::Dot => {
            if g.a[1] != 1 || g.b[0] != 1 {
                bail!(Internal, "the dot OpenCL product needs A and B contiguous along k");
            }
            let mr = rows(g.m, 4);
            (DOT, "gemm_dot", format!("-DVW={lanes} -DMR={mr} -DNR=4"), [g.m.div_ceil(mr), g.n.div_ceil(4)], [1, 1, 1])
        }
        Algorithm::Tile => {
            let tile = if g.m.min(g.n) >= 64 { 64 } else { 32 };
            let options = format!("-DTM={tile} -DTN={tile} -DTK=16");
            (TILE, "gemm_tile", options, [g.n.div_ceil(tile) * 16, g.m.div_ceil(tile) * 16], [16, 16, 1])
        }
    };
    let mut slots: Vec<Slot> = (0..5).map(|i| Slot::Tensor(i, 4)).collect();
    ints(&mut slots, &[g.m, g.n, g.k])?;
    ints(&mut slots, &g.a)?;
    ints(&mut slots, &g.b)?;
    ints(&mut slots, &g.batch[1..])?;
    ints(&mut slots, &g.a_batch)?;
    ints(&mut slots, &g.b_batch)?;
    slots.extend([Slot::F32(g.alpha), Slot::F32(g.beta)]);
    ints(&mut slots, &g.bias)?;
    slots.push(Slot::I32(g.residual.into()));
    slots.extend(epilogue);
    let batches = product(&g.batch)?;
    int(batches)?;
    let kernel = device.kernel(source, &(options + &act), name)?;
    Ok(Some(Call::new(kernel, slots, [tiles[0], tiles[1], batches], Some(local))))
}

/// The register block that suits m rows of n columns: rows, vectors a row, floats a vector; at most n columns.
pub(super) fn block(device: &Device, m: usize, n: usize) -> (usize, usize, usize) {
    let most = lanes(device);
    let lanes = if n >= most {
        most
    } else if n >= 8 {
        8
    } else if n >= 4 {
        4
    } else {
        1
    };
    let nv = if n >= 2 * lanes { 2 } else { 1 };
    (rows(m, if most == 16 { 8 } else { 6 }), nv, lanes)
}

/// Rows of a register block: `most`, or fewer for a matrix of few rows. Few variants, since each is built once.
fn rows(m: usize, most: usize) -> usize {
    match m {
        1 => 1,
        2..=4 => 4.min(most),
        _ => most,
    }
}

const WIDE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/gemm_wide.cl"));
const DOT: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/gemm_dot.cl"));
const TILE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/gemm_tile.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, activated, assert_close, device, run};
    use super::*;

    fn naive(g: &Gemm, a: &[f32], b: &[f32], bias: &[f32], residual: &[f32]) -> Vec<f32> {
        let mut c = Vec::new();
        for batch in 0..g.batch.iter().product() {
            let index = [batch / g.batch[2] / g.batch[1], batch / g.batch[2] % g.batch[1], batch % g.batch[2]];
            let start = |s: &[usize; 3]| -> usize { index.iter().zip(s).map(|(i, s)| i * s).sum() };
            let (a, b) = (&a[start(&g.a_batch)..], &b[start(&g.b_batch)..]);
            for (m, n) in (0..g.m).flat_map(|m| (0..g.n).map(move |n| (m, n))) {
                let dot: f64 = (0..g.k)
                    .map(|k| f64::from(a[m * g.a[0] + k * g.a[1]]) * f64::from(b[k * g.b[0] + n * g.b[1]]))
                    .sum();
                let mut x = f64::from(g.alpha) * dot;
                if g.beta != 0.0 {
                    x += f64::from(g.beta * bias[m * g.bias[0] + n * g.bias[1]]);
                }
                if g.residual {
                    x += f64::from(residual[c.len()]);
                }
                c.push(activated(g.act, x as f32));
            }
        }
        c
    }

    fn check(g: &Gemm, algorithms: &[Algorithm]) {
        let Some(device) = device() else { return };
        let mut rng = Rng(7);
        let extent = |dims: &[usize], strides: &[usize]| -> usize {
            1 + dims.iter().zip(strides).map(|(d, s)| (d.max(&1) - 1) * s).sum::<usize>()
        };
        let a = rng.floats(extent(&g.batch, &g.a_batch) + extent(&[g.m, g.k], &g.a));
        let b = rng.floats(extent(&g.batch, &g.b_batch) + extent(&[g.k, g.n], &g.b));
        let bias = rng.floats(extent(&[g.m, g.n], &g.bias));
        let out = g.batch.iter().product::<usize>() * g.m * g.n;
        let residual = rng.floats(out);
        let want = naive(g, &a, &b, &bias, &residual);
        for &algorithm in algorithms {
            let call = gemm(device, g, algorithm).unwrap().unwrap();
            let got = run(device, &[&call], &[&a, &b, &bias, &residual], &[out]).remove(0);
            // Inputs are in -1..1: a sum of k products errs by some sqrt(k) roundings of values of that size.
            assert_close(&got, &want, 2e-6 * (g.k as f32).sqrt().max(1.0), &format!("{algorithm:?} {g:?}"));
        }
    }

    #[test]
    fn sizes() {
        for (m, n, k) in [
            (1, 1, 1),
            (1, 100, 37),
            (3, 17, 5),
            (5, 16, 0),
            (6, 33, 20),
            (4, 6, 9),
            (9, 2, 3),
            (17, 31, 64),
            (70, 129, 33),
        ] {
            let g = Gemm::dense(m, n, k);
            check(&g, &[Algorithm::Wide, Algorithm::Tile]);
            check(&Gemm { b: [1, k.max(1)], ..g }, &[Algorithm::Dot, Algorithm::Tile]);
        }
    }

    #[test]
    fn strides_and_batches() {
        let base = Gemm::dense(9, 40, 21);
        // A transposed; rows of B with a gap.
        check(&Gemm { a: [1, 9], b: [50, 1], ..base.clone() }, &[Algorithm::Wide, Algorithm::Tile]);
        // Both transposed.
        check(&Gemm { a: [1, 9], b: [1, 21], ..base.clone() }, &[Algorithm::Tile]);
        // B shared along the middle batch dimension.
        let batched =
            Gemm { batch: [2, 3, 2], a_batch: [6 * 189, 2 * 189, 189], b_batch: [2 * 840, 0, 840], ..base.clone() };
        check(&batched, &[Algorithm::Wide, Algorithm::Tile]);
        check(&Gemm { b: [1, 21], ..batched }, &[Algorithm::Dot, Algorithm::Tile]);
    }

    #[test]
    fn epilogues() {
        let base = Gemm { alpha: 0.7, beta: 1.5, bias: [0, 1], ..Gemm::dense(7, 50, 12) };
        for act in [
            Activation::Relu,
            Activation::Clip { min: -0.5, max: 0.75 },
            Activation::LeakyRelu { alpha: 0.1 },
            Activation::Sigmoid,
            Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Activation::HardSwish,
            Activation::Tanh,
            Activation::Swish { alpha: 1.5 },
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Elu { alpha: 0.7 },
            Activation::Mish,
        ] {
            check(&Gemm { act, ..base.clone() }, &[Algorithm::Wide]);
        }
        for bias in [[0, 1], [1, 0], [50, 1], [0, 0]] {
            let g = Gemm { bias, residual: true, act: Activation::Relu, ..base.clone() };
            check(&g, &[Algorithm::Wide, Algorithm::Tile]);
            check(&Gemm { b: [1, 12], ..g }, &[Algorithm::Dot]);
        }
    }

    #[test]
    #[ignore = "prints speeds"]
    fn speed() {
        let Some(device) = device() else { return };
        for (m, n, k) in [(512, 512, 512), (64, 3136, 576), (512, 49, 4608), (256, 196, 1024), (1, 1000, 2048)] {
            let dense = Gemm::dense(m, n, k);
            for (g, algorithm) in [
                (dense.clone(), Algorithm::Wide),
                (Gemm { b: [1, k], ..dense.clone() }, Algorithm::Dot),
                (dense, Algorithm::Tile),
            ] {
                let call = gemm(device, &g, algorithm).unwrap().unwrap();
                let time = super::super::tests::time(device, &[&call], &[m * k, n * k, 1, 1, m * n]);
                let gflops = 2e-9 * (m * n * k) as f64 / time;
                println!("{m}x{n}x{k} {algorithm:?}: {:.3} ms, {gflops:.0} GFLOP/s", time * 1e3);
            }
        }
    }
}
