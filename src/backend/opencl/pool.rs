//! Pooling over images.

use super::call::{Call, Slot, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use crate::base::checked::product;
use crate::ensure;
use crate::error::Result;

/// What a window gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The greatest element; NaN if one is among them.
    Max,
    /// The mean of the elements inside the image.
    Mean,
    /// The mean with the padding's zeros counted.
    MeanPadded,
}

/// Two-dimensional pooling of dense planes. Places: x, y.
#[derive(Clone, Debug)]
pub struct Pool {
    /// What a window gives.
    pub kind: Kind,
    /// Images times channels.
    pub planes: usize,
    /// Rows and columns of the input.
    pub input: [usize; 2],
    /// Rows and columns of the output.
    pub output: [usize; 2],
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Steps of the window.
    pub strides: [usize; 2],
    /// Distances within the window.
    pub dilations: [usize; 2],
    /// Padding before the first row and column.
    pub pads: [usize; 2],
    /// Padding after the last ones.
    pub pads_end: [usize; 2],
}

/// Makes the call of a pooling.
pub fn pool(device: &Device, p: &Pool) -> Result<Option<Call>> {
    with(device, p, device.info.kind == DeviceKind::Cpu)
}

fn with(device: &Device, p: &Pool, rows: bool) -> Result<Option<Call>> {
    let sound = p.kernel.iter().chain(&p.strides).chain(&p.dilations).all(|n| *n > 0);
    ensure!(sound, Internal, "an OpenCL pooling of impossible shape: {p:?}");
    if product(&[p.planes, p.output[0], p.output[1]])? == 0 {
        return Ok(None);
    }
    int(product(&p.input)?)?;
    let size = product(&p.output)?;
    int(size)?;
    let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(1, 4)];
    for pair in [p.input, p.kernel, p.strides, p.dilations, p.pads, p.pads_end, p.output] {
        ints(&mut slots, &pair)?;
    }
    let options = format!("-DKIND={}", p.kind as u32);
    Ok(Some(if rows {
        let kernel = device.kernel(SOURCE, &options, "pool_rows")?;
        Call::new(kernel, slots, [p.output[0], p.planes, 1], Some([1, 1, 1]))
    } else {
        let group = 64.min(device.info.max_group);
        let kernel = device.kernel(SOURCE, &options, "pool_items")?;
        Call::new(kernel, slots, [size.div_ceil(group) * group, p.planes, 1], Some([group, 1, 1]))
    }))
}

const SOURCE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/pool.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, assert_close, device, run};
    use super::*;

    fn naive(p: &Pool, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for plane in 0..p.planes {
            for (oy, ox) in (0..p.output[0]).flat_map(|y| (0..p.output[1]).map(move |x| (y, x))) {
                let (mut inside, mut padded) = (Vec::new(), 0);
                for (ky, kx) in (0..p.kernel[0]).flat_map(|y| (0..p.kernel[1]).map(move |x| (y, x))) {
                    let iy = oy * p.strides[0] + ky * p.dilations[0];
                    let ix = ox * p.strides[1] + kx * p.dilations[1];
                    if iy < p.input[0] + p.pads[0] + p.pads_end[0] && ix < p.input[1] + p.pads[1] + p.pads_end[1] {
                        padded += 1;
                    }
                    let (iy, ix) = (iy.wrapping_sub(p.pads[0]), ix.wrapping_sub(p.pads[1]));
                    if iy < p.input[0] && ix < p.input[1] {
                        inside.push(x[(plane * p.input[0] + iy) * p.input[1] + ix]);
                    }
                }
                let sum: f32 = inside.iter().sum();
                y.push(match p.kind {
                    Kind::Max if inside.iter().any(|x| x.is_nan()) => f32::NAN,
                    Kind::Max => inside.iter().copied().fold(f32::NEG_INFINITY, f32::max),
                    Kind::Mean => sum / inside.len() as f32,
                    Kind::MeanPadded => sum / padded as f32,
                });
            }
        }
        y
    }

    #[test]
    fn windows() {
        let Some(device) = device() else { return };
        let base = Pool {
            kind: Kind::Max,
            planes: 3,
            input: [9, 13],
            output: [0, 0],
            kernel: [2, 2],
            strides: [2, 2],
            dilations: [1, 1],
            pads: [0, 0],
            pads_end: [0, 0],
        };
        // The outputs are given, so that windows may hang over the end (as `ceil_mode` makes them).
        let cases = [
            Pool { output: [4, 6], ..base.clone() },
            Pool { output: [5, 7], ..base.clone() },
            Pool { output: [9, 13], kernel: [3, 3], strides: [1, 1], pads: [1, 1], pads_end: [1, 1], ..base.clone() },
            Pool { output: [5, 7], kernel: [3, 3], pads: [1, 1], pads_end: [1, 1], ..base.clone() },
            Pool { output: [3, 4], kernel: [2, 3], strides: [3, 3], dilations: [2, 2], pads: [1, 0], ..base.clone() },
            Pool { output: [1, 1], kernel: [9, 13], ..base },
        ];
        for case in cases {
            for kind in [Kind::Max, Kind::Mean, Kind::MeanPadded] {
                let p = Pool { kind, ..case.clone() };
                let mut x = Rng(6).floats(p.planes * p.input[0] * p.input[1]);
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
