//! Reductions and softmax.

use super::call::{Call, Slot, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use super::gemm::lanes;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::nd::{collapse, dense_strides};
use crate::kernels::reduce::ReduceKind;
use crate::{bail, ensure};

/// The numbers of reduce.cl.
fn number(kind: ReduceKind) -> Result<u32> {
    Ok(match kind {
        ReduceKind::Sum => 0,
        ReduceKind::Mean => 1,
        ReduceKind::Max => 2,
        ReduceKind::Min => 3,
        ReduceKind::Prod => 4,
        ReduceKind::SumSquare => 5,
        ReduceKind::L1 => 6,
        ReduceKind::L2 => 7,
        ReduceKind::LogSum => 8,
        ReduceKind::LogSumExp => bail!(Internal, "OpenCL has no kernel for {kind:?}"),
    })
}

/// Reduces a dense array over the axes marked. Places: x, y.
pub fn reduce(device: &Device, kind: ReduceKind, dims: &[usize], axes: &[bool]) -> Result<Option<Call>> {
    with(device, kind, dims, axes, device.info.kind == DeviceKind::Cpu)
}

fn with(device: &Device, kind: ReduceKind, dims: &[usize], axes: &[bool], cpu: bool) -> Result<Option<Call>> {
    ensure!(dims.len() == axes.len(), Internal, "a reduction over axes of another rank");
    int(product(dims)?)?;
    let strides = dense_strides(dims);
    let group = |reduced: bool| {
        let picked = || axes.iter().enumerate().filter(move |(_, a)| **a == reduced).map(|(i, _)| i);
        let d: Vec<usize> = picked().map(|i| dims[i]).collect();
        let s: Vec<isize> = picked().map(|i| strides[i]).collect();
        let (d, mut s) = collapse(&d, &[&s]);
        (d, s.remove(0))
    };
    let ((kept, kept_strides), (gone, gone_strides)) = (group(false), group(true));
    let (outputs, count) = (product(&kept)?, product(&gone)?);
    if outputs == 0 {
        return Ok(None);
    }
    ensure!(count > 0, Unsupported, "a reduction of nothing on OpenCL");
    if kept.len() > 4 || gone.len() > 4 {
        bail!(Unsupported, "a reduction over {} and {} dimensions on OpenCL", kept.len(), gone.len());
    }
    let (mut shape, mut steps) = ([1; 8], [0; 8]);
    for (end, d, s) in [(4, &kept, &kept_strides), (8, &gone, &gone_strides)] {
        for (at, (d, s)) in (end - d.len()..end).zip(d.iter().zip(s)) {
            shape[at] = int(*d)?;
            steps[at] = int(s.unsigned_abs())?;
        }
    }
    let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(1, 4), Slot::Int8(shape), Slot::Int8(steps)];
    slots.push(Slot::F32(1.0 / count as f32));
    let (options, g) = group_options(device, cpu);
    let kernel = device.kernel(SOURCE, &format!("{options} -DKIND={}", number(kind)?), "reduce")?;
    Ok(Some(Call::new(kernel, slots, [g, outputs, 1], Some([g, 1, 1]))))
}

/// The options that make a work-group, and its size.
pub(super) fn group_options(device: &Device, cpu: bool) -> (String, usize) {
    let g = if cpu { 1 } else { 1 << 64.min(device.info.max_group).ilog2() };
    (format!("-DVW={} -DG={g}", if cpu { lanes(device) } else { 1 }), g)
}

/// Softmax, or its logarithm, of dense lines `outer` x `n` x `inner` along n. Places: x, y, which may be one.
pub fn softmax(device: &Device, [outer, n, inner]: [usize; 3], logarithm: bool) -> Result<Option<Call>> {
    softmax_with(device, [outer, n, inner], logarithm, device.info.kind == DeviceKind::Cpu)
}

fn softmax_with(device: &Device, [outer, n, inner]: [usize; 3], logarithm: bool, cpu: bool) -> Result<Option<Call>> {
    let size = product(&[outer, n, inner])?;
    int(size)?;
    if size == 0 {
        return Ok(None);
    }
    let mut slots = vec![Slot::Tensor(0, 4), Slot::Tensor(1, 4)];
    ints(&mut slots, &[n, inner, logarithm.into()])?;
    let (options, g) = group_options(device, cpu);
    let kernel = device.kernel(SOURCE, &format!("{options} -DKIND=0"), "softmax")?;
    Ok(Some(Call::new(kernel, slots, [g, outer * inner, 1], Some([g, 1, 1]))))
}

const SOURCE: &str = concat!(include_str!("kernels/prelude.cl"), include_str!("kernels/reduce.cl"));

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, assert_close, device, run};
    use super::*;

    fn naive(kind: ReduceKind, x: &[f32], dims: &[usize], axes: &[bool]) -> Vec<f32> {
        let outputs: usize = dims.iter().zip(axes).filter(|(_, a)| !**a).map(|(d, _)| d).product();
        let mut lists = vec![Vec::new(); outputs];
        for (i, v) in x.iter().enumerate() {
            let (mut rest, mut at, mut step) = (i, 0, 1);
            for (d, a) in dims.iter().zip(axes).rev() {
                if !a {
                    at += rest % d * step;
                    step *= d;
                }
                rest /= d;
            }
            lists[at].push(f64::from(*v));
        }
        let one = |l: Vec<f64>| {
            let nan = l.iter().any(|x| x.is_nan());
            let sum = |f: fn(f64) -> f64| l.iter().map(|x| f(*x)).sum::<f64>();
            match kind {
                ReduceKind::Sum => sum(|x| x),
                ReduceKind::Mean => sum(|x| x) / l.len() as f64,
                ReduceKind::Max | ReduceKind::Min if nan => f64::NAN,
                ReduceKind::Max => l.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                ReduceKind::Min => l.iter().copied().fold(f64::INFINITY, f64::min),
                ReduceKind::Prod => l.iter().product(),
                ReduceKind::SumSquare => sum(|x| x * x),
                ReduceKind::L1 => sum(f64::abs),
                ReduceKind::L2 => sum(|x| x * x).sqrt(),
                ReduceKind::LogSum => sum(|x| x).ln(),
                ReduceKind::LogSumExp => unreachable!("it has no kernel"),
            }
        };
        lists.into_iter().map(|l| one(l) as f32).collect()
    }

    const KINDS: [ReduceKind; 9] = [
        ReduceKind::Sum,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::Min,
        ReduceKind::Prod,
        ReduceKind::SumSquare,
        ReduceKind::L1,
        ReduceKind::L2,
        ReduceKind::LogSum,
    ];

    #[test]
    fn reductions() {
        let Some(device) = device() else { return };
        for (dims, axes) in [
            (&[5, 130][..], &[false, true][..]),
            (&[7, 33], &[true, false]),
            (&[2, 3, 5, 7], &[false, false, true, true]),
            (&[2, 3, 5, 7], &[true, false, true, false]),
            (&[2, 3, 2, 3, 2, 3, 2, 3], &[true, false, true, false, true, false, true, false]),
            (&[3, 4], &[true, true]),
            (&[3, 4], &[false, false]),
            (&[], &[]),
        ] {
            for kind in KINDS.into_iter().take(if dims.len() == 2 { 9 } else { 2 }) {
                let mut x = Rng(8).floats(dims.iter().product());
                if kind == ReduceKind::LogSum {
                    x.iter_mut().for_each(|x| *x = x.abs() + 0.1);
                }
                if matches!(kind, ReduceKind::Max | ReduceKind::Min) && x.len() > 20 {
                    x[20] = f32::NAN;
                }
                let want = naive(kind, &x, dims, axes);
                // Each kind is a program of its own, and takes a second to build: groups join all kinds alike.
                for cpu in [true, false].into_iter().take(if number(kind).unwrap() < 3 { 2 } else { 1 }) {
                    let call = with(device, kind, dims, axes, cpu).unwrap().unwrap();
                    let got = run(device, &[&call], &[&x], &[want.len()]).remove(0);
                    // Sums of at most 216 numbers of size 1: some twenty roundings at worst.
                    assert_close(&got, &want, 3e-6, &format!("{kind:?} {dims:?} {axes:?} {cpu}"));
                }
            }
        }
    }

    #[test]
    fn softmaxes() {
        let Some(device) = device() else { return };
        for shape in [[4, 100, 1], [3, 7, 5], [1, 1, 1], [2, 70, 3], [1, 16, 1]] {
            let [outer, n, inner] = shape;
            let x: Vec<f32> = Rng(12).floats(outer * n * inner).iter().map(|x| x * 20.0).collect();
            for logarithm in [false, true] {
                let mut want = vec![0.0; x.len()];
                for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                    let at = |t: usize| (o * n + t) * inner + i;
                    let m = (0..n).map(|t| x[at(t)]).fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 = (0..n).map(|t| f64::from(x[at(t)] - m).exp()).sum();
                    for t in 0..n {
                        let d = f64::from(x[at(t)] - m);
                        want[at(t)] = if logarithm { d - sum.ln() } else { d.exp() / sum } as f32;
                    }
                }
                for cpu in [true, false] {
                    let call = softmax_with(device, shape, logarithm, cpu).unwrap().unwrap();
                    let got = run(device, &[&call], &[&x], &[want.len()]).remove(0);
                    // Three ulps of exp, and the roundings of a sum of 100.
                    assert_close(&got, &want, 2e-6, &format!("{shape:?} {logarithm} {cpu}"));
                }
            }
        }
    }
}
