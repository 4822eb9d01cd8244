//! Resizing images, and transposed convolution.

use super::call::{Call, Calls, Slot, activation, int, ints};
use super::device::Device;
use super::gemm::{self, Gemm};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::gemm::Activation;
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

/// Resizes dense planes from `input` rows and columns. Both dimensions need the same number of taps; a single tap's weight
/// counts as 1. Places: x, y.
pub fn resize(device: &Device, planes: usize, input: [usize; 2], rows: &Taps, columns: &Taps) -> Result<Option<Call>> {
    let taps = rows.taps;
    ensure!(taps > 0 && columns.taps == taps, Internal, "a resize with {taps} and {} taps", columns.taps);
    let inside = |t: &Taps, n| t.index.iter().all(|i| *i < n) && t.weight.len() == t.index.len();
    ensure!(inside(rows, input[0]) && inside(columns, input[1]), Internal, "a resize from outside its input");
    let output = [rows.outputs(), columns.outputs()];
    if product(&[planes, output[0], output[1]])? == 0 {
        return Ok(None);
    }
    int(product(&input)?)?;
    int(product(&output)?)?;
    let index = rows.index.iter().chain(&columns.index).map(|i| int(*i)).collect::<Result<Vec<_>>>()?;
    let weight: Vec<i32> = rows.weight.iter().chain(&columns.weight).map(|w| w.to_bits().cast_signed()).collect();
    let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(1, 4)];
    slots.extend([Slot::Table(device.table(&index)?), Slot::Table(device.table(&weight)?)]);
    ints(&mut slots, &input)?;
    ints(&mut slots, &output)?;
    let kernel = device.kernel(SOURCE, &format!("-DTAPS={taps}"), "resize")?;
    Ok(Some(Call::new(kernel, slots, [output[0], planes, 1], None)))
}

/// A two-dimensional transposed convolution, `y = act(conv_transpose(x, w) + bias)`, w as input channel, output channel of the
/// group, row, column. Places: x, w, bias, y, scratch; an absent bias takes any place.
#[derive(Clone, Debug)]
pub struct ConvTranspose {
    /// Images.
    pub batch: usize,
    /// Groups of channels that do not mix.
    pub groups: usize,
    /// Input channels, of all groups together.
    pub in_channels: usize,
    /// Output channels, of all groups together.
    pub out_channels: usize,
    /// Rows and columns of the input.
    pub input: [usize; 2],
    /// Rows and columns of the output.
    pub output: [usize; 2],
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Distances of the inputs in the output.
    pub strides: [usize; 2],
    /// Distances between the kernel's taps.
    pub dilations: [usize; 2],
    /// Rows and columns cut off in front.
    pub pads: [usize; 2],
    /// Whether there is a bias, one value a channel.
    pub bias: bool,
    /// What is applied at the end.
    pub act: Activation,
}

/// Makes the calls: a matrix product that gives each tap's share, and their sum.
pub fn conv_transpose(device: &Device, c: &ConvTranspose) -> Result<Calls> {
    let sound = c.groups > 0
        && c.in_channels.is_multiple_of(c.groups)
        && c.out_channels.is_multiple_of(c.groups)
        && c.strides.iter().chain(&c.kernel).chain(&c.dilations).all(|n| *n > 0);
    if !sound {
        bail!(Internal, "an OpenCL transposed convolution of impossible shape: {c:?}");
    }
    if product(&[c.batch, c.out_channels, c.output[0], c.output[1]])? == 0 {
        return Ok(Calls { calls: Vec::new(), scratch: 0 });
    }
    let (k, taps, n) = (c.in_channels / c.groups, product(&c.kernel)?, product(&c.input)?);
    let m = product(&[c.out_channels / c.groups, taps])?;
    let g = Gemm {
        a: [1, m],
        batch: [1, c.batch, c.groups],
        a_batch: [0, 0, k * m],
        b_batch: [0, c.in_channels * n, k * n],
        ..Gemm::dense(m, n, k)
    };
    let scratch = product(&[c.batch, c.groups, m, n])?;
    let product_call = gemm::gemm(device, &g, gemm::choose(device, &g))?;
    let mut slots: Vec<Slot> = [4, 2, 3].into_iter().map(|i| Slot::Tensor(i, 4)).collect();
    ints(&mut slots, &[c.out_channels])?;
    for pair in [c.input, c.kernel, c.strides, c.dilations, c.pads, c.output] {
        ints(&mut slots, &pair)?;
    }
    ints(&mut slots, &[c.bias.into()])?;
    let (epilogue, act) = activation(c.act)?;
    slots.extend(epilogue);
    int(product(&[taps, n])?)?;
    int(product(&c.output)?)?;
    let kernel = device.kernel(SOURCE, &format!("-DTAPS=1{act}"), "columns_to_image")?;
    let sum = Call::new(kernel, slots, [c.output[0], c.batch * c.out_channels, 1], None);
    let calls = product_call.map(|c| c.renumbered(&[1, 0, 4, 4, 4])).into_iter().chain([sum]).collect();
    Ok(Calls { calls, scratch })
}

const SOURCE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/resample.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, activated, assert_close, device, run};
    use super::*;

    #[test]
    fn resizes() {
        let Some(device) = device() else { return };
        let (planes, input, output) = (3, [5usize, 7usize], [8usize, 6usize]);
        let mut rng = Rng(21);
        let x = rng.floats(planes * 35);
        for taps in [1, 2, 4] {
            let mut make = |n: usize, out: usize| Taps {
                taps,
                index: (0..out * taps).map(|i| i * 3 % n).collect(),
                weight: (0..out * taps).map(|_| if taps == 1 { 1.0 } else { rng.float() }).collect(),
            };
            let (rows, columns) = (make(input[0], output[0]), make(input[1], output[1]));
            let mut want = Vec::new();
            for (p, oy, ox) in (0..planes).flat_map(|p| (0..8).flat_map(move |y| (0..6).map(move |x| (p, y, x)))) {
                let mut sum = 0.0;
                for (a, b) in (0..taps).flat_map(|a| (0..taps).map(move |b| (a, b))) {
                    let (r, c) = (oy * taps + a, ox * taps + b);
                    let v = x[(p * 5 + rows.index[r]) * 7 + columns.index[c]];
                    sum += rows.weight[r] * columns.weight[c] * v;
                }
                want.push(sum);
            }
            let call = resize(device, planes, input, &rows, &columns).unwrap().unwrap();
            let got = run(device, &[&call], &[&x], &[want.len()]).remove(0);
            // Sums of 16 products of numbers of size 1.
            assert_close(&got, &want, 2e-6, &format!("{taps} taps"));
        }
    }

    fn naive(c: &ConvTranspose, x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
        let (gi, go) = (c.in_channels / c.groups, c.out_channels / c.groups);
        let [oh, ow] = c.output;
        let mut y = vec![0f64; c.batch * c.out_channels * oh * ow];
        for (b, ic, oc) in
            (0..c.batch).flat_map(|b| (0..c.in_channels).flat_map(move |i| (0..go).map(move |o| (b, i, o))))
        {
            let plane = b * c.out_channels + ic / gi * go + oc;
            for (iy, ix) in (0..c.input[0]).flat_map(|y| (0..c.input[1]).map(move |x| (y, x))) {
                for (ky, kx) in (0..c.kernel[0]).flat_map(|y| (0..c.kernel[1]).map(move |x| (y, x))) {
                    let oy = (iy * c.strides[0] + ky * c.dilations[0]).wrapping_sub(c.pads[0]);
                    let ox = (ix * c.strides[1] + kx * c.dilations[1]).wrapping_sub(c.pads[1]);
                    if oy < oh && ox < ow {
                        let v = x[((b * c.in_channels + ic) * c.input[0] + iy) * c.input[1] + ix];
                        let k = w[((ic * go + oc) * c.kernel[0] + ky) * c.kernel[1] + kx];
                        y[(plane * oh + oy) * ow + ox] += f64::from(v) * f64::from(k);
                    }
                }
            }
        }
        let size = oh * ow;
        let add = |i: usize| if c.bias { bias[i / size % c.out_channels] } else { 0.0 };
        y.iter().enumerate().map(|(i, v)| activated(c.act, *v as f32 + add(i))).collect()
    }

    #[test]
    fn transposed_convolutions() {
        let Some(device) = device() else { return };
        let base = ConvTranspose {
            batch: 2,
            groups: 1,
            in_channels: 4,
            out_channels: 6,
            input: [5, 9],
            output: [10, 18],
            kernel: [2, 2],
            strides: [2, 2],
            dilations: [1, 1],
            pads: [0, 0],
            bias: true,
            act: Activation::None,
        };
        for c in [
            base.clone(),
            ConvTranspose { kernel: [3, 3], pads: [1, 1], output: [10, 18], act: Activation::Relu, ..base.clone() },
            ConvTranspose { kernel: [3, 2], strides: [1, 3], dilations: [2, 1], output: [9, 26], ..base.clone() },
            ConvTranspose { groups: 2, kernel: [4, 4], pads: [1, 1], bias: false, ..base.clone() },
            ConvTranspose { input: [1, 1], output: [2, 2], batch: 1, ..base },
        ] {
            let mut rng = Rng(31);
            let x = rng.floats(c.batch * c.in_channels * c.input[0] * c.input[1]);
            let w = rng.floats(c.in_channels * c.out_channels / c.groups * c.kernel[0] * c.kernel[1]);
            let bias = rng.floats(c.out_channels);
            let want = naive(&c, &x, &w, &bias);
            let calls = conv_transpose(device, &c).unwrap();
            let list: Vec<_> = calls.calls.iter().collect();
            let got = run(device, &list, &[&x, &w, &bias], &[want.len(), calls.scratch]).remove(0);
            // Sums of some dozen products of numbers of size 1.
            assert_close(&got, &want, 3e-6, &format!("{c:?}"));
        }
    }
}
