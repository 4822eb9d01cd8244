//! Resizing images, and transposed convolution.

use super::call::{Call, Calls, Slot, activation, int, ints};
use super::conv::is_planar;
use super::device::Device;
use super::gemm::{self, Gemm};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::conv::ConvSpec;
use crate::{bail, ensure};

/// Where each output of one dimension comes from: `taps` inputs with their weights, tap after tap.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    /// Inputs an output.
    pub taps: usize,
    /// Indices of inputs.
    pub index: Vec<usize>,
    /// Their weights.
    pub weight: Vec<f32>,
}

impl Taps {
    fn outputs(&self) -> usize {
        self.index.len() / self.taps.max(1)
    }
}

/// Resizes dense planes from `input` rows and columns, of `depth` numbers a place. Both dimensions need the same number of taps;
/// a single tap's weight counts as 1. Places: x, y.
pub fn resize(
    device: &Device,
    [planes, depth]: [usize; 2],
    input: [usize; 2],
    rows: &Taps,
    columns: &Taps,
) -> Result<Option<Call>> {
    let taps = rows.taps;
    ensure!(taps > 0 && columns.taps == taps, Internal, "a resize with {taps} and {} taps", columns.taps);
    let inside = |t: &Taps, n| t.index.iter().all(|i| *i < n) && t.weight.len() == t.index.len();
    ensure!(inside(rows, input[0]) && inside(columns, input[1]), Internal, "a resize from outside its input");
    let output = [rows.outputs(), columns.outputs()];
    if product(&[planes, output[0], output[1], depth])? == 0 {
        return Ok(None);
    }
    int(product(&[input[0], input[1], depth])?)?;
    int(product(&[output[0], output[1], depth])?)?;
    let index = rows.index.iter().chain(&columns.index).map(|i| int(*i)).collect::<Result<Vec<_>>>()?;
    let weight: Vec<i32> = rows.weight.iter().chain(&columns.weight).map(|w| w.to_bits().cast_signed()).collect();
    let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(1, 4)];
    slots.extend([Slot::Table(device.table(&index)?), Slot::Table(device.table(&weight)?)]);
    ints(&mut slots, &input)?;
    ints(&mut slots, &output)?;
    let kernel = device.kernel(SOURCE, &format!("-DTAPS={taps}"), "resize")?;
    Ok(Some(Call::new(kernel, slots, [output[0], planes, depth], None)))
}

/// Makes the calls of a transposed convolution, w as input channel, output channel of the group, row, column; the output at
/// `i * stride + k * dilation - pad` receives input `i` through tap `k`. Places: x, w, bias, y, scratch; an absent bias takes any
/// place. They are a matrix product that gives each tap's share, and their sum.
pub fn conv_transpose(device: &Device, c: &ConvSpec) -> Result<Calls> {
    let sound = c.groups > 0
        && c.c_in.is_multiple_of(c.groups)
        && c.c_out.is_multiple_of(c.groups)
        && c.stride.iter().chain(&c.kernel).chain(&c.dilation).all(|n| *n > 0)
        && is_planar(c)
        && !c.residual;
    if !sound {
        bail!(Internal, "an OpenCL transposed convolution of impossible shape: {c:?}");
    }
    if product(&[c.n, c.c_out, c.output[1], c.output[2]])? == 0 {
        return Ok(Calls { calls: Vec::new(), scratch: 0 });
    }
    let (k, taps, n) = (c.c_in / c.groups, product(&c.kernel)?, product(&c.input)?);
    let m = product(&[c.c_out / c.groups, taps])?;
    let g = Gemm {
        a: [1, m],
        batch: [1, c.n, c.groups],
        a_batch: [0, 0, k * m],
        b_batch: [0, c.c_in * n, k * n],
        ..Gemm::dense(m, n, k)
    };
    let scratch = product(&[c.n, c.groups, m, n])?;
    let product_call = gemm::gemm(device, &g, gemm::choose(device, &g))?;
    let mut slots: Vec<Slot> = [4, 2, 3].into_iter().map(|i| Slot::Tensor(i, 4)).collect();
    ints(&mut slots, &[c.c_out])?;
    for pair in [c.input, c.kernel, c.stride, c.dilation, c.pad, c.output] {
        ints(&mut slots, &pair[1..])?;
    }
    ints(&mut slots, &[c.bias.into()])?;
    let (epilogue, act) = activation(c.activation)?;
    slots.extend(epilogue);
    int(product(&[taps, n])?)?;
    int(product(&c.output)?)?;
    let kernel = device.kernel(SOURCE, &format!("-DTAPS=1{act}"), "columns_to_image")?;
    let sum = Call::new(kernel, slots, [c.output[1], c.n * c.c_out, 1], None);
    let calls = product_call.map(|c| c.renumbered(&[1, 0, 4, 4, 4])).into_iter().chain([sum]).collect();
    Ok(Calls { calls, scratch })
}

const SOURCE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/resample.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, activated, assert_close, device, run};
    use super::*;
    use crate::kernels::gemm::Activation;

    #[test]
    fn resizes() {
        let Some(device) = device() else { return };
        let (planes, input, output) = (3, [5usize, 7usize], [8usize, 6usize]);
        let mut rng = Rng(21);
        for (taps, depth) in [(1, 1), (1, 3), (2, 1), (2, 5), (4, 1)] {
            let x = rng.floats(planes * 35 * depth);
            let mut make = |n: usize, out: usize| Taps {
                taps,
                index: (0..out * taps).map(|i| i * 3 % n).collect(),
                weight: (0..out * taps).map(|_| if taps == 1 { 1.0 } else { rng.float() }).collect(),
            };
            let (rows, columns) = (make(input[0], output[0]), make(input[1], output[1]));
            let mut want = Vec::new();
            for i in 0..planes * 48 * depth {
                let (p, oy, ox, k) = (i / depth / 48, i / depth / 6 % 8, i / depth % 6, i % depth);
                let mut sum = 0.0;
                for (a, b) in (0..taps).flat_map(|a| (0..taps).map(move |b| (a, b))) {
                    let (r, c) = (oy * taps + a, ox * taps + b);
                    let v = x[((p * 5 + rows.index[r]) * 7 + columns.index[c]) * depth + k];
                    sum += rows.weight[r] * columns.weight[c] * v;
                }
                want.push(sum);
            }
            let call = resize(device, [planes, depth], input, &rows, &columns).unwrap().unwrap();
            let got = run(device, &[&call], &[&x], &[want.len()]).remove(0);
            // Sums of 16 products of numbers of size 1.
            assert_close(&got, &want, 2e-6, &format!("{taps} taps, {depth} numbers a place"));
        }
    }

    fn naive(c: &ConvSpec, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let (gi, go) = (c.c_in / c.groups, c.c_out / c.groups);
        let [_, oh, ow] = c.output;
        let mut y = vec![0f64; c.n * c.c_out * oh * ow];
        for (b, ic, oc) in (0..c.n).flat_map(|b| (0..c.c_in).flat_map(move |i| (0..go).map(move |o| (b, i, o)))) {
            let plane = b * c.c_out + ic / gi * go + oc;
            for (iy, ix) in (0..c.input[1]).flat_map(|y| (0..c.input[2]).map(move |x| (y, x))) {
                for (ky, kx) in (0..c.kernel[1]).flat_map(|y| (0..c.kernel[2]).map(move |x| (y, x))) {
                    let oy = (iy * c.stride[1] + ky * c.dilation[1]).wrapping_sub(c.pad[1]);
                    let ox = (ix * c.stride[2] + kx * c.dilation[2]).wrapping_sub(c.pad[2]);
                    if oy < oh && ox < ow {
                        let v = x[((b * c.c_in + ic) * c.input[1] + iy) * c.input[2] + ix];
                        let k = w[((ic * go + oc) * c.kernel[1] + ky) * c.kernel[2] + kx];
                        y[(plane * oh + oy) * ow + ox] += f64::from(v) * f64::from(k);
                    }
                }
            }
        }
        let size = oh * ow;
        let add = |i: usize| if c.bias { bias[i / size % c.c_out] } else { 0.0 };
        y.iter().enumerate().map(|(i, v)| activated(c.activation, *v as f32 + add(i))).collect()
    }

    #[test]
    fn transposed_convolutions() {
        let Some(device) = device() else { return };
        let base = ConvSpec {
            n: 2,
            groups: 1,
            c_in: 4,
            c_out: 6,
            input: [1, 5, 9],
            output: [1, 10, 18],
            kernel: [1, 2, 2],
            stride: [1, 2, 2],
            dilation: [1, 1, 1],
            pad: [0, 0, 0],
            bias: true,
            residual: false,
            residual_last: false,
            activation: Activation::None,
        };
        for c in [
            base,
            ConvSpec { kernel: [1, 3, 3], pad: [0, 1, 1], output: [1, 10, 18], activation: Activation::Relu, ..base },
            ConvSpec { kernel: [1, 3, 2], stride: [1, 1, 3], dilation: [1, 2, 1], output: [1, 9, 26], ..base },
            ConvSpec { groups: 2, kernel: [1, 4, 4], pad: [0, 1, 1], bias: false, ..base },
            ConvSpec { input: [1, 1, 1], output: [1, 2, 2], n: 1, ..base },
        ] {
            let mut rng = Rng(31);
            let x = rng.floats(c.n * c.c_in * c.input[1] * c.input[2]);
            let w = rng.floats(c.c_in * c.c_out / c.groups * c.kernel[1] * c.kernel[2]);
            let bias = rng.floats(c.c_out);
            let want = naive(&c, &x, &w, &bias);
            let calls = conv_transpose(device, &c).unwrap();
            let list: Vec<_> = calls.calls.iter().collect();
            let got = run(device, &list, &[&x, &w, &bias], &[want.len(), calls.scratch]).remove(0);
            // Sums of some dozen products of numbers of size 1.
            assert_close(&got, &want, 3e-6, &format!("{c:?}"));
        }
    }
}
