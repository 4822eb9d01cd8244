//! Normalisation of lines: by layer, by instance, by groups of channels.

use super::call::{Call, Slot, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use super::reduce::group_options;
use crate::base::checked::product;
use crate::ensure;
use crate::error::Result;

/// Lines of n elements are brought to mean 0 and variance 1 (RMS: to mean square 1), then scaled and shifted. Places: x, scale,
/// shift, y; an absent shift takes any place. y may be x.
#[derive(Clone, Debug)]
pub struct Normalise {
    /// How many lines.
    pub lines: usize,
    /// Elements of a line.
    pub n: usize,
    /// Root mean square instead of mean and variance.
    pub rms: bool,
    /// Lines after which the scales begin anew.
    pub period: usize,
    /// Scales of a line; 0 where all lines have the same.
    pub per_line: usize,
    /// Neighbours that share a scale.
    pub step: usize,
    /// Whether there is a shift beside the scale.
    pub shift: bool,
    /// Keeps the root from zero.
    pub epsilon: f32,
}

/// Makes the call.
pub fn normalise(device: &Device, c: &Normalise) -> Result<Option<Call>> {
    with(device, c, device.info.kind == DeviceKind::Cpu)
}

fn with(device: &Device, c: &Normalise, cpu: bool) -> Result<Option<Call>> {
    if c.lines == 0 || c.n == 0 {
        return Ok(None);
    }
    ensure!(c.period > 0 && c.step > 0, Internal, "a normalisation of impossible shape: {c:?}");
    int(product(&[c.lines, c.n])?)?;
    let mut slots: Vec<Slot> = (0..4).map(|i| Slot::Tensor(i, 4)).collect();
    ints(&mut slots, &[c.n, c.period, c.per_line, c.step, c.shift.into()])?;
    slots.push(Slot::F32(c.epsilon));
    let (options, g) = group_options(device, cpu);
    let rms = if c.rms { " -DRMS" } else { "" };
    let kernel = device.kernel(SOURCE, &format!("{options}{rms}"), "normalise")?;
    Ok(Some(Call::new(kernel, slots, [g, c.lines, 1], Some([g, 1, 1]))))
}

const SOURCE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/norm.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, assert_close, device, run};
    use super::*;

    #[test]
    fn normalises() {
        let Some(device) = device() else { return };
        let base =
            Normalise { lines: 6, n: 37, rms: false, period: 1, per_line: 0, step: 1, shift: true, epsilon: 1e-5 };
        let cases = [
            (base.clone(), 37),
            (Normalise { n: 3, ..base.clone() }, 3),
            (Normalise { rms: true, shift: false, ..base.clone() }, 37),
            (Normalise { step: 37, ..base.clone() }, 1),
            // Two images of three groups of two channels of 20 places.
            (Normalise { n: 40, period: 3, per_line: 2, step: 20, ..base }, 6),
        ];
        for (c, scales) in cases {
            let mut rng = Rng(17);
            let (x, scale, shift) = (rng.floats(c.lines * c.n), rng.floats(scales), rng.floats(scales));
            let mut want = Vec::new();
            for (line, x) in x.chunks(c.n).enumerate() {
                let of = |f: &dyn Fn(f64) -> f64| x.iter().map(|x| f(f64::from(*x))).sum::<f64>() / c.n as f64;
                let mean = if c.rms { 0.0 } else { of(&|x| x) };
                let factor = 1.0 / (of(&|x| (x - mean) * (x - mean)) + f64::from(c.epsilon)).sqrt();
                for (i, x) in x.iter().enumerate() {
                    let k = line % c.period * c.per_line + i / c.step;
                    let v = (f64::from(*x) - mean) * factor * f64::from(scale[k]);
                    let v = v + if c.shift { f64::from(shift[k]) } else { 0.0 };
                    want.push(v as f32);
                }
            }
            for cpu in [true, false] {
                let call = with(device, &c, cpu).unwrap().unwrap();
                let got = run(device, &[&call], &[&x, &scale, &shift], &[want.len()]).remove(0);
                // Some forty roundings of numbers of size 1.
                assert_close(&got, &want, 3e-6, &format!("{c:?} {cpu}"));
            }
        }
    }
}
