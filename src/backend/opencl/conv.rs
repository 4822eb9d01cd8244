//! Convolutions over images, all dense with channels before rows. Places: x, w, bias, residual, y, scratch; an absent one
//! takes any place. No input may share y's memory.

use super::call::{Call, Calls, Slot, activation, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use super::gemm::{self, Gemm};
use crate::kernels::conv::ConvSpec;
use crate::{bail, base::checked::product, error::Result};

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
pub fn choose(device: &Device, c: &ConvSpec) -> Algorithm {
    let cpu = device.info.kind == DeviceKind::Cpu;
    if is_product(c) && (cpu || c.c_out / c.groups >= 16) {
        Algorithm::Gemm
    } else if cpu {
        Algorithm::Shift
    } else if c.c_out / c.groups >= 8 {
        Algorithm::Tile
    } else {
        Algorithm::Direct
    }
}

/// Whether the spec is of images: the leading one of its three spatial dimensions is unused.
pub fn is_planar(c: &ConvSpec) -> bool {
    [c.input[0], c.output[0], c.kernel[0], c.stride[0]] == [1; 4] && c.pad[0] == 0
}

fn is_product(c: &ConvSpec) -> bool {
    c.kernel == [1; 3] && c.stride == [1; 3] && c.pad == [0; 3] && c.input == c.output
}

/// Makes the calls of a convolution.
pub fn conv(device: &Device, c: &ConvSpec, algorithm: Algorithm) -> Result<Calls> {
    let sound = c.groups > 0
        && c.c_in.is_multiple_of(c.groups)
        && c.c_out.is_multiple_of(c.groups)
        && c.stride.iter().chain(&c.kernel).chain(&c.dilation).all(|n| *n > 0)
        && is_planar(c);
    if !sound {
        bail!(Internal, "an OpenCL convolution of impossible shape: {c:?}");
    }
    if product(&[c.n, c.c_out, c.output[1], c.output[2]])? == 0 {
        return Ok(Calls { calls: Vec::new(), scratch: 0 });
    }
    match algorithm {
        Algorithm::Gemm => as_gemm(device, c),
        Algorithm::Shift => shift(device, c),
        Algorithm::Tile | Algorithm::Direct => direct(device, c, algorithm),
    }
}

fn as_gemm(device: &Device, c: &ConvSpec) -> Result<Calls> {
    if !is_product(c) {
        bail!(Internal, "no matrix product: {c:?}");
    }
    let (m, k, n) = (c.c_out / c.groups, c.c_in / c.groups, c.output[1] * c.output[2]);
    let g = Gemm {
        // The innermost batch dimension is the group, so the bias needs one group, or none.
        batch: [1, c.n, c.groups],
        a_batch: [0, 0, m * k],
        b_batch: [0, c.c_in * n, k * n],
        beta: if c.bias { 1.0 } else { 0.0 },
        bias: [1, 0],
        residual: c.residual,
        act: c.activation,
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
    fn new(c: &ConvSpec, dim: usize) -> Self {
        let (kernel, stride, dilation) = (c.kernel[dim], c.stride[dim], c.dilation[dim]);
        Phases {
            count: if dilation == 1 { kernel.min(stride) } else { stride },
            length: c.output[dim] + (kernel - 1) * dilation / stride,
        }
    }
}

fn shift(device: &Device, c: &ConvSpec) -> Result<Calls> {
    let (group_in, group_out) = (c.c_in / c.groups, c.c_out / c.groups);
    let reach = |d: usize| (c.output[d] - 1) * c.stride[d] + (c.kernel[d] - 1) * c.dilation[d] + 1;
    // Read in place, the last tap of the last output must still lie in its own plane.
    let in_place = c.stride == [1; 3] && c.pad == [0; 3] && reach(1) <= c.input[1] && reach(2) <= c.input[2];
    let (y, x) = (Phases::new(c, 1), Phases::new(c, 2));
    let mut calls = Vec::new();
    let mut scratch = 0;
    let (channel, pitch) = if in_place {
        (c.input[1] * c.input[2], c.input[2])
    } else {
        let channel = product(&[y.count, x.count, y.length, x.length])?;
        let planes = c.n * c.c_in;
        scratch = product(&[planes, channel])?;
        let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(5, 4)];
        ints(&mut slots, &c.input[1..])?;
        ints(&mut slots, &c.pad[1..])?;
        ints(&mut slots, &c.stride[1..])?;
        ints(&mut slots, &[y.count, x.count, y.length, x.length])?;
        let kernel = device.kernel(SHIFT, "-DVW=1 -DMR=1 -DNV=1", "pad_phase")?;
        calls.push(Call::new(kernel, slots, [y.length, y.count * x.count, planes], Some([1, 1, 1])));
        (channel, x.length)
    };
    let mut taps = Vec::new();
    for (ky, kx) in (0..c.kernel[1]).flat_map(|ky| (0..c.kernel[2]).map(move |kx| (ky, kx))) {
        let (oy, ox) = (ky * c.dilation[1], kx * c.dilation[2]);
        let (sy, sx) = (c.stride[1], c.stride[2]);
        let plane = if in_place { 0 } else { (oy % sy * x.count + ox % sx) * y.length };
        taps.push(int((plane + oy / sy) * pitch + ox / sx)?);
    }

    let [_, out_h, out_w] = c.output;
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
    let (epilogue, act) = activation(c.activation)?;
    slots.extend(epilogue);
    // Offsets within an image of a group are ints too.
    int(product(&[group_in, channel])?)?;
    int(product(&[group_out, group_in, taps.len()])?)?;
    let kernel = device.kernel(SHIFT, &format!("-DVW={lanes} -DMR={mr} -DNV={nv}{act}"), "conv_shift")?;
    let grid = [group_out.div_ceil(mr), rows * tiles, c.n * c.groups];
    calls.push(Call::new(kernel, slots, grid, Some([1, 1, 1])));
    Ok(Calls { calls, scratch })
}

fn direct(device: &Device, c: &ConvSpec, algorithm: Algorithm) -> Result<Calls> {
    let (group_in, group_out) = (c.c_in / c.groups, c.c_out / c.groups);
    let mut slots: Vec<Slot> = (0..5).map(|i| Slot::Tensor(i, 4)).collect();
    ints(&mut slots, &[c.groups, group_in, group_out])?;
    for pair in [c.input, c.kernel, c.stride, c.dilation, c.pad, c.output] {
        ints(&mut slots, &pair[1..])?;
    }
    ints(&mut slots, &[c.bias.into(), c.residual.into()])?;
    let (epilogue, act) = activation(c.activation)?;
    slots.extend(epilogue);
    int(product(&[group_in, c.input[1], c.input[2]])?)?;
    int(product(&[group_out, group_in, c.kernel[1], c.kernel[2]])?)?;
    let size = c.output[1] * c.output[2];
    int(size)?;
    let tile = if group_out.min(size) >= 64 { 64 } else { 32 };
    let options = format!("-DTM={tile} -DTN={tile} -DTK=16{act}");
    let call = if algorithm == Algorithm::Tile {
        let kernel = device.kernel(TILE, &options, "conv_tile")?;
        let grid = [size.div_ceil(tile) * 16, group_out.div_ceil(tile) * 16, c.n * c.groups];
        Call::new(kernel, slots, grid, Some([16, 16, 1]))
    } else {
        let group = 64.min(device.info.max_group);
        let kernel = device.kernel(TILE, &options, "conv_direct")?;
        let grid = [size.div_ceil(group) * group, c.c_out, c.n];
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
    use crate::kernels::gemm::Activation;

    fn two([y, x]: [usize; 2]) -> [usize; 3] {
        [1, y, x]
    }

    fn plain(channels: [usize; 2], groups: usize, input: [usize; 2], kernel: [usize; 2]) -> ConvSpec {
        ConvSpec {
            n: 1,
            groups,
            c_in: channels[0],
            c_out: channels[1],
            input: two(input),
            output: [1, 0, 0],
            kernel: two(kernel),
            stride: [1, 1, 1],
            dilation: [1, 1, 1],
            pad: [0, 0, 0],
            bias: false,
            residual: false,
            residual_last: false,
            activation: Activation::None,
        }
    }

    /// Sets the padding in front and behind, and the output that follows.
    fn padded(mut c: ConvSpec, front: [usize; 2], behind: [usize; 2]) -> ConvSpec {
        c.pad = [0, front[0], front[1]];
        for d in 1..3 {
            let reach = (c.kernel[d] - 1) * c.dilation[d] + 1;
            c.output[d] = (c.input[d] + front[d - 1] + behind[d - 1] - reach) / c.stride[d] + 1;
        }
        c
    }

    fn naive(c: &ConvSpec, x: &[f32], w: &[f32], bias: &[f32], residual: &[f32]) -> Vec<f32> {
        let (gi, go) = (c.c_in / c.groups, c.c_out / c.groups);
        let [_, ih, iw] = c.input;
        let mut y = Vec::new();
        for (b, oc) in (0..c.n).flat_map(|b| (0..c.c_out).map(move |o| (b, o))) {
            for (oy, ox) in (0..c.output[1]).flat_map(|y| (0..c.output[2]).map(move |x| (y, x))) {
                let mut sum = if c.bias { f64::from(bias[oc]) } else { 0.0 };
                for ic in 0..gi {
                    for (ky, kx) in (0..c.kernel[1]).flat_map(|y| (0..c.kernel[2]).map(move |x| (y, x))) {
                        let iy = (oy * c.stride[1] + ky * c.dilation[1]).wrapping_sub(c.pad[1]);
                        let ix = (ox * c.stride[2] + kx * c.dilation[2]).wrapping_sub(c.pad[2]);
                        if iy < ih && ix < iw {
                            let at = ((b * c.c_in + oc / go * gi + ic) * ih + iy) * iw + ix;
                            let tap = ((oc * gi + ic) * c.kernel[1] + ky) * c.kernel[2] + kx;
                            sum += f64::from(x[at]) * f64::from(w[tap]);
                        }
                    }
                }
                if c.residual {
                    sum += f64::from(residual[y.len()]);
                }
                y.push(activated(c.activation, sum as f32));
            }
        }
        y
    }

    fn check(c: &ConvSpec) {
        let Some(device) = device() else { return };
        let mut rng = Rng(3);
        let x = rng.floats(c.n * c.c_in * c.input[1] * c.input[2]);
        let k = c.c_in / c.groups * c.kernel[1] * c.kernel[2];
        let w = rng.floats(c.c_out * k);
        let bias = rng.floats(c.c_out);
        let out = c.n * c.c_out * c.output[1] * c.output[2];
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
        check(&ConvSpec { output: [1, 4, 5], ..padded(plain([2, 6], 1, [9, 11], [3, 3]), [0, 0], [0, 0]) });
    }

    #[test]
    fn strides_and_dilations() {
        for (strides, dilations) in
            [([2, 2], [1, 1]), ([1, 2], [1, 1]), ([3, 2], [1, 1]), ([1, 1], [2, 3]), ([2, 3], [2, 2])]
        {
            let base =
                ConvSpec { stride: two(strides), dilation: two(dilations), ..plain([3, 5], 1, [15, 22], [3, 3]) };
            check(&padded(base, [1, 1], [1, 1]));
            check(&padded(ConvSpec { kernel: [1, 1, 1], ..base }, [0, 0], [0, 0]));
            check(&padded(ConvSpec { kernel: [1, 7, 2], ..base }, [3, 0], [3, 1]));
        }
    }

    #[test]
    fn groups_and_batches() {
        check(&padded(ConvSpec { n: 2, ..plain([6, 6], 6, [13, 20], [3, 3]) }, [1, 1], [1, 1]));
        check(&padded(ConvSpec { n: 2, stride: [1, 2, 2], ..plain([6, 12], 6, [13, 20], [5, 5]) }, [2, 2], [2, 2]));
        check(&padded(ConvSpec { n: 3, bias: true, ..plain([8, 12], 2, [6, 6], [3, 3]) }, [1, 1], [1, 1]));
        check(&padded(ConvSpec { n: 2, bias: true, ..plain([8, 12], 4, [5, 7], [1, 1]) }, [0, 0], [0, 0]));
        check(&padded(ConvSpec { n: 2, ..plain([8, 12], 4, [5, 7], [1, 1]) }, [0, 0], [0, 0]));
    }

    #[test]
    fn epilogues() {
        for (act, residual) in [
            (Activation::Relu, true),
            (Activation::Clip { min: 0.0, max: 6.0 }, false),
            (Activation::Swish { alpha: 1.0 }, true),
        ] {
            let base = ConvSpec { n: 2, bias: true, residual, activation: act, ..plain([5, 10], 1, [9, 9], [3, 3]) };
            check(&padded(base, [1, 1], [1, 1]));
            check(&padded(ConvSpec { kernel: [1, 1, 1], ..base }, [0, 0], [0, 0]));
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
            let c =
                ConvSpec { stride: two([stride; 2]), bias: true, ..plain(channels, groups, [size; 2], [kernel; 2]) };
            let c = padded(c, [kernel / 2; 2], [kernel / 2; 2]);
            let calls = conv(device, &c, choose(device, &c)).unwrap();
            let list: Vec<_> = calls.calls.iter().collect();
            let (input, out) = (c.c_in * size * size, c.c_out * c.output[1] * c.output[2]);
            let k = c.c_in / groups * kernel * kernel;
            let seconds = time(device, &list, &[input, c.c_out * k, c.c_out, 1, out, calls.scratch]);
            let gflops = 2e-9 * (out * k) as f64 / seconds;
            println!("{channels:?} {size} {kernel}x{kernel}/{stride}: {:.3} ms, {gflops:.0} GFLOP/s", seconds * 1e3);
        }
    }
}
