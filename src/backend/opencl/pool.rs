//! Pooling over dense images. Places: x, y.

use super::call::{Call, Slot, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::pool::{Kind, PoolSpec};
use crate::{bail, ensure};

/// Whether the spec is of images: the leading one of its three spatial dimensions is unused.
pub fn is_planar(p: &PoolSpec) -> bool {
    [p.input[0], p.output[0], p.kernel[0], p.stride[0]] == [1; 4] && [p.pad[0], p.pad_end[0]] == [0; 2]
}

/// Makes the call of a pooling.
pub fn pool(device: &Device, p: &PoolSpec) -> Result<Option<Call>> {
    with(device, p, device.info.kind == DeviceKind::Cpu)
}

fn with(device: &Device, p: &PoolSpec, rows: bool) -> Result<Option<Call>> {
    let sound = p.kernel.iter().chain(&p.stride).chain(&p.dilation).all(|n| *n > 0) && is_planar(p);
    ensure!(sound, Internal, "an OpenCL pooling of impossible shape: {p:?}");
    if product(&[p.n, p.channels, p.output[1], p.output[2]])? == 0 {
        return Ok(None);
    }
    int(product(&p.input)?)?;
    let planes = product(&[p.n, p.channels])?;
    let size = product(&p.output)?;
    int(size)?;
    let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(1, 4)];
    for pair in [p.input, p.kernel, p.stride, p.dilation, p.pad, p.pad_end, p.output] {
        ints(&mut slots, &pair[1..])?;
    }
    // The numbers of pool.cl.
    let kind = match p.kind {
        Kind::Max => 0,
        Kind::Average { include_pad } => 1 + u32::from(include_pad),
        Kind::Lp { .. } => bail!(Unsupported, "a pool of norms on OpenCL"),
    };
    let options = format!("-DKIND={kind}");
    Ok(Some(if rows {
        let kernel = device.kernel(SOURCE, &options, "pool_rows")?;
        Call::new(kernel, slots, [p.output[1], planes, 1], Some([1, 1, 1]))
    } else {
        let group = 64.min(device.info.max_group);
        let kernel = device.kernel(SOURCE, &options, "pool_items")?;
        Call::new(kernel, slots, [size.div_ceil(group) * group, planes, 1], Some([group, 1, 1]))
    }))
}

const SOURCE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/pool.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, assert_close, device, run};
    use super::*;

    fn naive(p: &PoolSpec, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for plane in 0..p.n * p.channels {
            for (oy, ox) in (0..p.output[1]).flat_map(|y| (0..p.output[2]).map(move |x| (y, x))) {
                let (mut inside, mut padded) = (Vec::new(), 0);
                for (ky, kx) in (0..p.kernel[1]).flat_map(|y| (0..p.kernel[2]).map(move |x| (y, x))) {
                    let iy = oy * p.stride[1] + ky * p.dilation[1];
                    let ix = ox * p.stride[2] + kx * p.dilation[2];
                    if iy < p.input[1] + p.pad[1] + p.pad_end[1] && ix < p.input[2] + p.pad[2] + p.pad_end[2] {
                        padded += 1;
                    }
                    let (iy, ix) = (iy.wrapping_sub(p.pad[1]), ix.wrapping_sub(p.pad[2]));
                    if iy < p.input[1] && ix < p.input[2] {
                        inside.push(x[(plane * p.input[1] + iy) * p.input[2] + ix]);
                    }
                }
                let sum: f32 = inside.iter().sum();
                y.push(match p.kind {
                    Kind::Max if inside.iter().any(|x| x.is_nan()) => f32::NAN,
                    Kind::Max => inside.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                    Kind::Average { include_pad: false } => sum / inside.len() as f32,
                    Kind::Lp { .. } => unreachable!(),
                    Kind::Average { .. } => sum / padded as f32,
                });
            }
        }
        y
    }

    #[test]
    fn windows() {
        let Some(device) = device() else { return };
        let base = PoolSpec {
            kind: Kind::Max,
            n: 1,
            channels: 3,
            input: [1, 9, 13],
            output: [1, 0, 0],
            kernel: [1, 2, 2],
            stride: [1, 2, 2],
            dilation: [1, 1, 1],
            pad: [0, 0, 0],
            pad_end: [0, 0, 0],
        };
        // The outputs are given, so that windows may hang over the end (as `ceil_mode` makes them).
        let cases = [
            PoolSpec { output: [1, 4, 6], ..base },
            PoolSpec { output: [1, 5, 7], ..base },
            PoolSpec {
                output: [1, 9, 13],
                kernel: [1, 3, 3],
                stride: [1, 1, 1],
                pad: [0, 1, 1],
                pad_end: [0, 1, 1],
                ..base
            },
            PoolSpec { output: [1, 5, 7], kernel: [1, 3, 3], pad: [0, 1, 1], pad_end: [0, 1, 1], ..base },
            PoolSpec {
                output: [1, 3, 4],
                kernel: [1, 2, 3],
                stride: [1, 3, 3],
                dilation: [1, 2, 2],
                pad: [0, 1, 0],
                ..base
            },
            PoolSpec { output: [1, 1, 1], kernel: [1, 9, 13], ..base },
        ];
        for case in cases {
            for kind in [Kind::Max, Kind::Average { include_pad: false }, Kind::Average { include_pad: true }] {
                let p = PoolSpec { kind, ..case };
                let mut x = Rng(6).floats(p.n * p.channels * p.input[1] * p.input[2]);
                x[40] = f32::NAN;
                let want = naive(&p, &x);
                for rows in [true, false] {
                    let call = with(device, &p, rows).unwrap().unwrap();
                    let got = run(device, &[&call], &[&x], &[want.len()]).remove(0);
                    // Sums of up to 117 numbers in -1..1.
                    assert_close(&got, &want, 1e-6, &format!("{p:?}"));
                }
            }
        }
    }
}
