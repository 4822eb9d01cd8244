//! Convolutions over images.

use super::call::{Call, Calls, Slot, activation, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use super::gemm::{self, Gemm};
use crate::kernels::gemm::Activation;
use crate::{bail, base::checked::product, error::Result};

/// A two-dimensional convolution, `y = act(conv(x, w) + bias + residual)`, all dense with channels before rows. Places: x, w,
/// bias, residual, y, scratch; an absent one takes any place. No input may share y's memory.
#[derive(Clone, Debug)]
pub struct Conv {
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
    /// Steps of the kernel over the input.
    pub strides: [usize; 2],
    /// Distances between the kernel's taps.
    pub dilations: [usize; 2],
    /// Zeros before the first row and column; those behind follow from the output.
    pub pads: [usize; 2],
    /// Whether there is a bias, one value a channel.
    pub bias: bool,
    /// Whether a tensor of y's shape is added.
    pub residual: bool,
    /// What is applied at the end.
    pub act: Activation,
}

/// Which kernel computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// One matrix product: a kernel of one tap, without strides and padding.
    Gemm,
    /// Shifted rows in registers, for CPUs.
    Shift,
    /// Tiles in local memory, for GPUs.
    Tile,
    /// An output a work-item.
    Direct,
}

/// The kernel that suits the device and the shape.
pub fn choose(device: &Device, c: &Conv) -> Algorithm {
    let cpu = device.info.kind == DeviceKind::Cpu;
    if is_product(c) && (cpu || c.out_channels / c.groups >= 16) {
        Algorithm::Gemm
    } else if cpu {
        Algorithm::Shift
    } else if c.out_channels / c.groups >= 8 {
        Algorithm::Tile
    } else {
        Algorithm::Direct
    }
}

fn is_product(c: &Conv) -> bool {
    c.kernel == [1, 1] && c.strides == [1, 1] && c.pads == [0, 0] && c.input == c.output
}

/// Makes the calls of a convolution.
pub fn conv(device: &Device, c: &Conv, algorithm: Algorithm) -> Result<Calls> {
    let sound = c.groups > 0
        && c.in_channels.is_multiple_of(c.groups)
        && c.out_channels.is_multiple_of(c.groups)
        && c.strides.iter().chain(&c.kernel).chain(&c.dilations).all(|n| *n > 0);
    if !sound {
        bail!(Internal, "an OpenCL convolution of impossible shape: {c:?}");
    }
    if product(&[c.batch, c.out_channels, c.output[0], c.output[1]])? == 0 {
        return Ok(Calls { calls: Vec::new(), scratch: 0 });
    }
    match algorithm {
        Algorithm::Gemm => as_gemm(device, c),
        Algorithm::Shift => shift(device, c),
        Algorithm::Tile | Algorithm::Direct => direct(device, c, algorithm),
    }
}

fn as_gemm(device: &Device, c: &Conv) -> Result<Calls> {
    if !is_product(c) {
        bail!(Internal, "no matrix product: {c:?}");
    }
    let (m, k, n) = (c.out_channels / c.groups, c.in_channels / c.groups, c.output[0] * c.output[1]);
    let g = Gemm {
        // The innermost batch dimension is the group, so the bias needs one group, or none.
        batch: [1, c.batch, c.groups],
        a_batch: [0, 0, m * k],
        b_batch: [0, c.in_channels * n, k * n],
        beta: if c.bias { 1.0 } else { 0.0 },
        bias: [1, 0],
        residual: c.residual,
        act: c.act,
        ..Gemm::dense(m, n, k)
    };
    if c.bias && c.groups > 1 {
        return if device.info.kind == DeviceKind::Cpu { shift(device, c) } else { direct(device, c, Algorithm::Tile) };
    }
    let call = gemm::gemm(device, &g, gemm::choose(device, &g))?;
    Ok(Calls { calls: call.into_iter().map(|c| c.renumbered(&[1, 0, 2, 3, 4])).collect(), scratch: 0 })
}

/// One dimension of the phase layout: how many phases the taps touch, and the length that they need.
struct Phases {
    count: usize,
    length: usize,
}

impl Phases {
    fn new(c: &Conv, dim: usize) -> Self {
        let (kernel, stride, dilation) = (c.kernel[dim], c.strides[dim], c.dilations[dim]);
        Phases {
            count: if dilation == 1 { kernel.min(stride) } else { stride },
            length: c.output[dim] + (kernel - 1) * dilation / stride,
        }
    }
}

fn shift(device: &Device, c: &Conv) -> Result<Calls> {
    let (group_in, group_out) = (c.in_channels / c.groups, c.out_channels / c.groups);
    let reach = |d: usize| (c.output[d] - 1) * c.strides[d] + (c.kernel[d] - 1) * c.dilations[d] + 1;
    // Read in place, the last tap of the last output must still lie in its own plane.
    let in_place = c.strides == [1, 1] && c.pads == [0, 0] && reach(0) <= c.input[0] && reach(1) <= c.input[1];
    let (y, x) = (Phases::new(c, 0), Phases::new(c, 1));
    let mut calls = Vec::new();
    let mut scratch = 0;
    let (channel, pitch) = if in_place {
        (c.input[0] * c.input[1], c.input[1])
    } else {
        let channel = product(&[y.count, x.count, y.length, x.length])?;
        let planes = c.batch * c.in_channels;
        scratch = product(&[planes, channel])?;
        let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(5, 4)];
        ints(&mut slots, &c.input)?;
        ints(&mut slots, &c.pads)?;
        ints(&mut slots, &c.strides)?;
        ints(&mut slots, &[y.count, x.count, y.length, x.length])?;
        let kernel = device.kernel(SHIFT, "-DVW=1 -DMR=1 -DNV=1", "pad_phase")?;
        calls.push(Call::new(kernel, slots, [y.length, y.count * x.count, planes], Some([1, 1, 1])));
        (channel, x.length)
    };
    let mut taps = Vec::new();
    for (ky, kx) in (0..c.kernel[0]).flat_map(|ky| (0..c.kernel[1]).map(move |kx| (ky, kx))) {
        let (oy, ox) = (ky * c.dilations[0], kx * c.dilations[1]);
        let (sy, sx) = (c.strides[0], c.strides[1]);
        let plane = if in_place { 0 } else { (oy % sy * x.count + ox % sx) * y.length };
        taps.push(int((plane + oy / sy) * pitch + ox / sx)?);
    }

    let [out_h, out_w] = c.output;
    // The whole output as one line, or row by row: what wastes less of the vectors. Cutting at row ends costs a little.
    let (mr, nv, lanes) = gemm::block(device, group_out, out_w);
    let rows_use = out_w as f64 / (out_w.div_ceil(nv * lanes) * nv * lanes) as f64;
    let dense = pitch == out_w;
    let by_rows = !dense && rows_use + 0.05 >= out_w as f64 / pitch as f64;
    let (rows, line, wrap) = match (dense, by_rows) {
        (true, _) => (1, out_h * out_w, false),
        (_, true) => (out_h, out_w, false),
        _ => (1, (out_h - 1) * pitch + out_w, true),
    };
    let (mr, nv, lanes) = if by_rows { (mr, nv, lanes) } else { gemm::block(device, group_out, line) };
    let tiles = line.div_ceil(nv * lanes);
    let mut slots = vec![Slot::Tensor(if in_place { 0 } else { 5 }, 4)];
    slots.extend((1..5).map(|i| Slot::Tensor(i, 4)));
    slots.push(Slot::Table(device.table(&taps)?));
    ints(&mut slots, &[taps.len(), c.groups, group_in, group_out, channel, pitch, line, tiles])?;
    ints(&mut slots, &[if dense { line } else { out_w }, out_h * out_w])?;
    ints(&mut slots, &[wrap.into(), c.bias.into(), c.residual.into()])?;
    let (epilogue, act) = activation(c.act)?;
    slots.extend(epilogue);
    // Offsets within an image of a group are ints too.
    int(product(&[group_in, channel])?)?;
    int(product(&[group_out, group_in, taps.len()])?)?;
    let kernel = device.kernel(SHIFT, &format!("-DVW={lanes} -DMR={mr} -DNV={nv}{act}"), "conv_shift")?;
    let grid = [group_out.div_ceil(mr), rows * tiles, c.batch * c.groups];
    calls.push(Call::new(kernel, slots, grid, Some([1, 1, 1])));
    Ok(Calls { calls, scratch })
}

fn direct(device: &Device, c: &Conv, algorithm: Algorithm) -> Result<Calls> {
    let (group_in, group_out) = (c.in_channels / c.groups, c.out_channels / c.groups);
    let mut slots: Vec<Slot> = (0..5).map(|i| Slot::Tensor(i, 4)).collect();
    ints(&mut slots, &[c.groups, group_in, group_out])?;
    for pair in [c.input, c.kernel, c.strides, c.dilations, c.pads, c.output] {
        ints(&mut slots, &pair)?;
    }
    ints(&mut slots, &[c.bias.into(), c.residual.into()])?;
    let (epilogue, act) = activation(c.act)?;
    slots.extend(epilogue);
    int(product(&[group_in, c.input[0], c.input[1]])?)?;
    int(product(&[group_out, group_in, c.kernel[0], c.kernel[1]])?)?;
    let size = c.output[0] * c.output[1];
    int(size)?;
    let tile = if group_out.min(size) >= 64 { 64 } else { 32 };
    let options = format!("-DTM={tile} -DTN={tile} -DTK=16{act}");
    let call = if algorithm == Algorithm::Tile {
        let kernel = device.kernel(TILE, &options, "conv_tile")?;
        let grid = [size.div_ceil(tile) * 16, group_out.div_ceil(tile) * 16, c.batch * c.groups];
        Call::new(kernel, slots, grid, Some([16, 16, 1]))
    } else {
        let group = 64.min(device.info.max_group);
        let kernel = device.kernel(TILE, &options, "conv_direct")?;
        let grid = [size.div_ceil(group) * group, c.out_channels, c.batch];
        Call::new(kernel, slots, grid, Some([group, 1, 1]))
    };
    Ok(Calls { calls: vec![call], scratch: 0 })
}

const SHIFT: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/conv_shift.cl"));
const TILE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/conv_tile.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, activated, assert_close, device, run, time};
    use super::*;

    fn plain(channels: [usize; 2], groups: usize, input: [usize; 2], kernel: [usize; 2]) -> Conv {
        Conv {
            batch: 1,
            groups,
            in_channels: channels[0],
            out_channels: channels[1],
            input,
            output: [0, 0],
            kernel,
            strides: [1, 1],
            dilations: [1, 1],
            pads: [0, 0],
            bias: false,
            residual: false,
            act: Activation::None,
        }
    }

    /// Sets the padding in front and behind, and the output that follows.
    fn padded(mut c: Conv, front: [usize; 2], behind: [usize; 2]) -> Conv {
        c.pads = front;
        for d in 0..2 {
            let reach = (c.kernel[d] - 1) * c.dilations[d] + 1;
            c.output[d] = (c.input[d] + front[d] + behind[d] - reach) / c.strides[d] + 1;
        }
        c
    }

    fn naive(c: &Conv, x: &[f32], w: &[f32], bias: &[f32], residual: &[f32]) -> Vec<f32> {
        let (gi, go) = (c.in_channels / c.groups, c.out_channels / c.groups);
        let [ih, iw] = c.input;
        let mut y = Vec::new();
        for (b, oc) in (0..c.batch).flat_map(|b| (0..c.out_channels).map(move |o| (b, o))) {
            for (oy, ox) in (0..c.output[0]).flat_map(|y| (0..c.output[1]).map(move |x| (y, x))) {
                let mut sum = if c.bias { f64::from(bias[oc]) } else { 0.0 };
                for ic in 0..gi {
                    for (ky, kx) in (0..c.kernel[0]).flat_map(|y| (0..c.kernel[1]).map(move |x| (y, x))) {
                        let iy = (oy * c.strides[0] + ky * c.dilations[0]).wrapping_sub(c.pads[0]);
                        let ix = (ox * c.strides[1] + kx * c.dilations[1]).wrapping_sub(c.pads[1]);
                        if iy < ih && ix < iw {
                            let at = ((b * c.in_channels + oc / go * gi + ic) * ih + iy) * iw + ix;
                            let tap = ((oc * gi + ic) * c.kernel[0] + ky) * c.kernel[1] + kx;
                            sum += f64::from(x[at]) * f64::from(w[tap]);
                        }
                    }
                }
                if c.residual {
                    sum += f64::from(residual[y.len()]);
                }
                y.push(activated(c.act, sum as f32));
            }
        }
        y
    }

    fn check(c: &Conv) {
        let Some(device) = device() else { return };
        let mut rng = Rng(3);
        let x = rng.floats(c.batch * c.in_channels * c.input[0] * c.input[1]);
        let k = c.in_channels / c.groups * c.kernel[0] * c.kernel[1];
        let w = rng.floats(c.out_channels * k);
        let bias = rng.floats(c.out_channels);
        let out = c.batch * c.out_channels * c.output[0] * c.output[1];
        let residual = rng.floats(out);
        let want = naive(c, &x, &w, &bias, &residual);
        let product = is_product(c).then_some(Algorithm::Gemm);
        for algorithm in product.into_iter().chain([Algorithm::Shift, Algorithm::Tile, Algorithm::Direct]) {
            let calls = conv(device, c, algorithm).unwrap();
            let list: Vec<_> = calls.calls.iter().collect();
            let got = run(device, &list, &[&x, &w, &bias, &residual], &[out, calls.scratch]).remove(0);
            // Inputs are in -1..1: a sum of k products errs by some sqrt(k) roundings of values of that size.
            assert_close(&got, &want, 2e-6 * (k as f32).sqrt(), &format!("{algorithm:?} {c:?}"));
        }
    }

    #[test]
    fn kernels_and_padding() {
        check(&padded(plain([5, 9], 1, [7, 7], [1, 1]), [0, 0], [0, 0]));
        check(&padded(plain([3, 8], 1, [9, 11], [3, 3]), [0, 0], [0, 0]));
        check(&padded(plain([4, 13], 1, [14, 14], [3, 3]), [1, 1], [1, 1]));
        check(&padded(plain([2, 3], 1, [5, 70], [3, 5]), [1, 2], [1, 2]));
        check(&padded(plain([2, 3], 1, [6, 4], [5, 3]), [4, 0], [1, 2]));
        check(&padded(plain([7, 2], 1, [1, 1], [1, 1]), [0, 0], [0, 0]));
        check(&padded(plain([2, 70], 1, [1, 40], [1, 7]), [0, 3], [0, 3]));
        // An output that stops short of the input's end.
        check(&Conv { output: [4, 5], ..padded(plain([2, 6], 1, [9, 11], [3, 3]), [0, 0], [0, 0]) });
    }

    #[test]
    fn strides_and_dilations() {
        for (strides, dilations) in
            [([2, 2], [1, 1]), ([1, 2], [1, 1]), ([3, 2], [1, 1]), ([1, 1], [2, 3]), ([2, 3], [2, 2])]
        {
            let base = Conv { strides, dilations, ..plain([3, 5], 1, [15, 22], [3, 3]) };
            check(&padded(base.clone(), [1, 1], [1, 1]));
            check(&padded(Conv { kernel: [1, 1], ..base.clone() }, [0, 0], [0, 0]));
            check(&padded(Conv { kernel: [7, 2], ..base }, [3, 0], [3, 1]));
        }
    }

    #[test]
    fn groups_and_batches() {
        check(&padded(Conv { batch: 2, ..plain([6, 6], 6, [13, 20], [3, 3]) }, [1, 1], [1, 1]));
        check(&padded(Conv { batch: 2, strides: [2, 2], ..plain([6, 12], 6, [13, 20], [5, 5]) }, [2, 2], [2, 2]));
        check(&padded(Conv { batch: 3, bias: true, ..plain([8, 12], 2, [6, 6], [3, 3]) }, [1, 1], [1, 1]));
        check(&padded(Conv { batch: 2, bias: true, ..plain([8, 12], 4, [5, 7], [1, 1]) }, [0, 0], [0, 0]));
        check(&padded(Conv { batch: 2, ..plain([8, 12], 4, [5, 7], [1, 1]) }, [0, 0], [0, 0]));
    }

    #[test]
    fn epilogues() {
        for (act, residual) in [
            (Activation::Relu, true),
            (Activation::Clip { min: 0.0, max: 6.0 }, false),
            (Activation::Swish { alpha: 1.0 }, true),
        ] {
            let base = Conv { batch: 2, bias: true, residual, act, ..plain([5, 10], 1, [9, 9], [3, 3]) };
            check(&padded(base.clone(), [1, 1], [1, 1]));
            check(&padded(Conv { kernel: [1, 1], ..base }, [0, 0], [0, 0]));
        }
    }

    #[test]
    #[ignore = "prints speeds"]
    fn speed() {
        let Some(device) = device() else { return };
        for (channels, groups, size, kernel, stride) in [
            ([3, 64], 1, 224, 7, 2),
            ([64, 64], 1, 56, 1, 1),
            ([64, 64], 1, 56, 3, 1),
            ([128, 128], 1, 28, 3, 1),
            ([256, 256], 1, 14, 3, 1),
            ([512, 512], 1, 7, 3, 1),
            ([1024, 2048], 1, 14, 1, 2),
            ([2048, 512], 1, 7, 1, 1),
            ([96, 96], 96, 56, 3, 1),
        ] {
            let c = Conv { strides: [stride; 2], bias: true, ..plain(channels, groups, [size; 2], [kernel; 2]) };
            let c = padded(c, [kernel / 2; 2], [kernel / 2; 2]);
            let calls = conv(device, &c, choose(device, &c)).unwrap();
            let list: Vec<_> = calls.calls.iter().collect();
            let (input, out) = (c.in_channels * size * size, c.out_channels * c.output[0] * c.output[1]);
            let k = c.in_channels / groups * kernel * kernel;
            let seconds = time(device, &list, &[input, c.out_channels * k, c.out_channels, 1, out, calls.scratch]);
            let gflops = 2e-9 * (out * k) as f64 / seconds;
            println!("{channels:?} {size} {kernel}x{kernel}/{stride}: {:.3} ms, {gflops:.0} GFLOP/s", seconds * 1e3);
        }
    }
}
