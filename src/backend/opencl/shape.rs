//! Moving elements without looking at them: strided copies, padding, gathering.

use super::call::{Call, Slot, int, ints};
use super::device::Device;
use super::driver::DeviceKind;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::nd::collapse;
use crate::{bail, ensure, err};

const SOURCE: &str = include_str!("kernels/copy.cl");

/// Elements that a work-item of a CPU moves, about.
const GRAIN: usize = 8192;

/// The OpenCL type that elements of a size are moved as.
fn moved_as(size: usize) -> Result<&'static str> {
    Ok(match size {
        1 => "uchar",
        2 => "ushort",
        4 => "uint",
        8 => "ulong",
        _ => bail!(Unsupported, "elements of {size} bytes on OpenCL"),
    })
}

fn signed(n: isize) -> Result<i32> {
    i32::try_from(n).ok().ok_or_else(|| err!(Unsupported, "a stride of {n}: OpenCL kernels count to 2^31"))
}

/// Eight numbers, the last of them `values`, those before `fill`.
fn int8(values: &[isize], fill: i32) -> Result<[i32; 8]> {
    ensure!(values.len() <= 8, Unsupported, "{} dimensions on OpenCL", values.len());
    let mut out = [fill; 8];
    for (o, v) in out.iter_mut().zip(values) {
        *o = signed(*v)?;
    }
    Ok(out)
}

fn sizes(values: &[usize]) -> Result<Vec<isize>> {
    values.iter().map(|v| int(*v).map(|v| v as isize)).collect()
}

/// A part of an array: its first element and strides, in elements.
#[derive(Clone, Debug)]
pub struct Part {
    /// The first element.
    pub start: usize,
    /// From one index to the next, by dimension.
    pub strides: Vec<isize>,
}

/// Copies elements of `size` bytes between parts of the shape `dims`. Places: from, to.
pub fn copy(device: &Device, size: usize, dims: &[usize], from: &Part, to: &Part) -> Result<Option<Call>> {
    let ranks = from.strides.len() == dims.len() && to.strides.len() == dims.len();
    ensure!(ranks, Internal, "a copy between ranks");
    if product(dims)? == 0 {
        return Ok(None);
    }
    let (mut dims, mut strides) = collapse(dims, &[&from.strides, &to.strides]);
    ensure!(dims.len() <= 8, Unsupported, "a copy over {} dimensions on OpenCL", dims.len());
    let mut slots = vec![Slot::Tensor(0, size), Slot::Tensor(1, size)];
    slots.extend([Slot::I64(from.start as i64), Slot::I64(to.start as i64)]);
    let t = moved_as(size)?;
    let cpu = device.info.kind == DeviceKind::Cpu;

    // A swap of two dimensions goes by blocks.
    let (rank, x, y) = (dims.len(), &strides[0], &strides[1]);
    if (2..=3).contains(&rank) && cpu {
        let (n, m) = (rank - 2, rank - 1);
        // y[.., n, m] = x[.., m, n]: the last dimension is contiguous in y, the one before it in x.
        if x[n] == 1 && y[m] == 1 && x[m] > 1 && y[n] > 1 && dims[n] > 1 {
            let (xp, yp) = if rank == 3 { (signed(x[0])?, signed(y[0])?) } else { (0, 0) };
            ints(&mut slots, &[dims[m], dims[n]])?;
            slots.extend([Slot::I32(signed(x[m])?), Slot::I32(signed(y[n])?), Slot::I32(xp), Slot::I32(yp)]);
            let planes = if rank == 3 { dims[0] } else { 1 };
            let grid = [dims[m].div_ceil(16), dims[n].div_ceil(16), planes];
            let kernel = device.kernel(SOURCE, &format!("-DT={t} -DRANK={rank}"), "transpose_blocks")?;
            return Ok(Some(Call::new(kernel, slots, grid, None)));
        }
    }
    // Neighbouring work-items of a GPU take neighbouring elements of the target: the last dimension should be its densest.
    if let Some(dense) = strides[1].iter().position(|s| *s == 1)
        && dense + 1 != rank
    {
        dims.swap(dense, rank - 1);
        strides.iter_mut().for_each(|s| s.swap(dense, rank - 1));
    }
    let (Some(&n), rows) = (dims.last(), product(&dims[..rank - 1])?) else { bail!(Internal, "a copy of no rank") };
    let shape = sizes(&dims)?;
    slots.extend([Slot::Int8(int8(&shape, 1)?), Slot::Int8(int8(&strides[0], 0)?), Slot::Int8(int8(&strides[1], 0)?)]);
    let (chunk, items) = if cpu { (n.min(GRAIN), (GRAIN / n).clamp(1, rows)) } else { (1, 1) };
    ints(&mut slots, &[rows, chunk, items])?;
    let kernel = device.kernel(SOURCE, &format!("-DT={t} -DRANK={rank}"), "copy_strided")?;
    Ok(Some(Call::new(kernel, slots, [n.div_ceil(chunk), rows.div_ceil(items), 1], None)))
}

/// What stands outside the input of a pad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode {
    /// A value, by its bits.
    Constant(u64),
    /// The nearest element.
    Edge,
    /// The mirror image without the edge.
    Reflect,
    /// The other end.
    Wrap,
}

/// Pads elements of `size` bytes: `before` elements in front of each dimension (a negative number cuts), `out` in all.
/// Places: from, to.
pub fn pad(
    device: &Device,
    size: usize,
    input: &[usize],
    out: &[usize],
    before: &[isize],
    mode: PadMode,
) -> Result<Option<Call>> {
    let rank = out.len().max(1);
    ensure!(input.len() == out.len() && before.len() == out.len(), Internal, "a pad between ranks");
    if product(out)? == 0 {
        return Ok(None);
    }
    let filled = matches!(mode, PadMode::Constant(_));
    ensure!(filled || product(input)? > 0, InvalidModel, "there is nothing to pad {input:?} with");
    int(product(out)?)?;
    int(product(input)?)?;
    let (mut input, mut out, mut before) = (sizes(input)?, sizes(out)?, before.to_vec());
    if out.is_empty() {
        (input, out, before) = (vec![1], vec![1], vec![0]);
    }
    let (mode, value) = match mode {
        PadMode::Constant(bits) => (0, bits),
        PadMode::Edge => (1, 0),
        PadMode::Reflect => (2, 0),
        PadMode::Wrap => (3, 0),
    };
    let n = out[rank - 1] as usize;
    let rows = out[..rank - 1].iter().product::<isize>() as usize;
    let items = (GRAIN / n).clamp(1, rows);
    let mut slots = vec![Slot::Tensor(0, size), Slot::Tensor(1, size)];
    slots.extend([Slot::Int8(int8(&input, 1)?), Slot::Int8(int8(&out, 1)?), Slot::Int8(int8(&before, 0)?)]);
    slots.extend([Slot::I32(int(rows)?), Slot::I32(mode), Slot::I64(value as i64), Slot::I32(int(items)?)]);
    let kernel = device.kernel(SOURCE, &format!("-DT={} -DRANK={rank}", moved_as(size)?), "pad")?;
    Ok(Some(Call::new(kernel, slots, [rows.div_ceil(items), 1, 1], None)))
}

/// Picks slices of an array `outer` x `axis` x `inner`, elements of `size` bytes, by indices below `axis`. Places: from, to.
pub fn gather(
    device: &Device,
    size: usize,
    [outer, axis, inner]: [usize; 3],
    indices: &[usize],
) -> Result<Option<Call>> {
    ensure!(indices.iter().all(|i| *i < axis), Internal, "an index outside its axis");
    if product(&[outer, inner, indices.len()])? == 0 {
        return Ok(None);
    }
    let table = indices.iter().map(|i| int(*i)).collect::<Result<Vec<_>>>()?;
    let mut slots = vec![Slot::Tensor(0, size), Slot::Tensor(1, size), Slot::Table(device.table(&table)?)];
    let chunk = if device.info.kind == DeviceKind::Cpu { inner.min(GRAIN) } else { 1 };
    ints(&mut slots, &[indices.len(), axis, inner, chunk])?;
    let kernel = device.kernel(SOURCE, &format!("-DT={} -DRANK=1", moved_as(size)?), "gather")?;
    Ok(Some(Call::new(kernel, slots, [inner.div_ceil(chunk), indices.len(), outer], None)))
}

/// The same by `count` indices of `index_size` bytes (`int` or `long`) that come with the run and are checked by the kernel;
/// negative ones count from the end. Places: from, indices, to, faults.
pub fn gather_checked(
    device: &Device,
    size: usize,
    [outer, axis, inner]: [usize; 3],
    count: usize,
    index_size: usize,
) -> Result<Option<Call>> {
    if product(&[outer, inner, count])? == 0 {
        return Ok(None);
    }
    let mut slots = vec![Slot::Tensor(0, size), Slot::Tensor(1, index_size), Slot::Tensor(2, size), Slot::Tensor(3, 4)];
    let chunk = if device.info.kind == DeviceKind::Cpu { inner.min(GRAIN) } else { 1 };
    ints(&mut slots, &[count, axis, inner, chunk])?;
    let index = if index_size == 8 { "long" } else { "int" };
    let options = format!("-DT={} -DRANK=1 -DI={index}", moved_as(size)?);
    let kernel = device.kernel(SOURCE, &options, "gather_checked")?;
    Ok(Some(Call::new(kernel, slots, [inner.div_ceil(chunk), count, outer], None)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, device, run};
    use super::*;
    use crate::kernels::nd::dense_strides;

    fn dense(dims: &[usize]) -> Part {
        Part { start: 0, strides: dense_strides(dims).to_vec() }
    }

    fn at(part: &Part, dims: &[usize], index: usize) -> usize {
        let (mut rest, mut at) = (index, part.start as isize);
        for (d, s) in dims.iter().zip(&part.strides).rev() {
            at += (rest % d) as isize * s;
            rest /= d;
        }
        at as usize
    }

    fn check_copy(dims: &[usize], from: &Part, len: usize, to: &Part, out: usize) {
        let Some(device) = device() else { return };
        let x = Rng(1).floats(len);
        let call = copy(device, 4, dims, from, to).unwrap().unwrap();
        let got = run(device, &[&call], &[&x], &[out]).remove(0);
        let mut want = vec![f32::NAN; out];
        for i in 0..dims.iter().product() {
            want[at(to, dims, i)] = x[at(from, dims, i)];
        }
        let same = got.iter().zip(&want).all(|(g, w)| g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan()));
        assert!(same, "{dims:?} {from:?} {to:?}: {got:?}, expected {want:?}");
    }

    #[test]
    fn copies() {
        let shape = |from: &[usize], order: &[usize]| -> (Vec<usize>, Part) {
            let strides = dense_strides(from);
            let dims = order.iter().map(|i| from[*i]).collect();
            (dims, Part { start: 0, strides: order.iter().map(|i| strides[*i]).collect() })
        };
        // Transposes.
        for (from, order) in [
            (&[33, 20][..], &[1, 0][..]),
            (&[3, 17, 40], &[0, 2, 1]),
            (&[3, 17, 5], &[2, 0, 1]),
            (&[2, 3, 4, 5], &[0, 2, 3, 1]),
            (&[2, 3, 4, 5], &[3, 2, 1, 0]),
            (&[2, 2, 2, 2, 3, 2, 2, 2], &[7, 0, 6, 1, 5, 2, 4, 3]),
        ] {
            let (dims, part) = shape(from, order);
            let n = dims.iter().product();
            check_copy(&dims, &part, n, &dense(&dims), n);
        }
        // Reversed with a step, broadcast, into the middle of a wider array.
        check_copy(&[4, 5], &Part { start: 59, strides: vec![-12, -2] }, 60, &dense(&[4, 5]), 20);
        check_copy(&[4, 5], &Part { start: 3, strides: vec![0, 1] }, 10, &dense(&[4, 5]), 20);
        check_copy(&[4, 5], &Part { start: 0, strides: vec![1, 0] }, 10, &dense(&[4, 5]), 20);
        check_copy(&[4, 5], &dense(&[4, 5]), 20, &Part { start: 2, strides: vec![9, 1] }, 36);
        check_copy(&[], &dense(&[]), 1, &dense(&[]), 1);
        check_copy(&[20000], &dense(&[20000]), 20000, &dense(&[20000]), 20000);
    }

    #[test]
    fn pads() {
        let Some(device) = device() else { return };
        let (input, before, after) = ([2usize, 3, 5], [1isize, 2, 3], [1isize, 0, 4]);
        let x = Rng(2).floats(30);
        for (mode, cut) in [
            (PadMode::Constant(u64::from(0.5f32.to_bits())), false),
            (PadMode::Constant(0), true),
            (PadMode::Edge, false),
            (PadMode::Reflect, false),
            (PadMode::Wrap, false),
        ] {
            let before = if cut { [-1, 2, -2] } else { before };
            let out: Vec<usize> = (0..3).map(|d| (input[d] as isize + before[d] + after[d]) as usize).collect();
            let source = |i: isize, n: isize| match mode {
                PadMode::Constant(_) => (0..n).contains(&i).then_some(i),
                PadMode::Edge => Some(i.clamp(0, n - 1)),
                PadMode::Reflect => {
                    let mut i = i;
                    while !(0..n).contains(&i) {
                        i = if i < 0 { -i } else { 2 * (n - 1) - i };
                    }
                    Some(i)
                }
                PadMode::Wrap => Some(i.rem_euclid(n)),
            };
            let mut want = Vec::new();
            for i in 0..out.iter().product::<usize>() {
                let index = [i / out[2] / out[1], i / out[2] % out[1], i % out[2]];
                let from: Option<Vec<_>> =
                    (0..3).map(|d| source(index[d] as isize - before[d], input[d] as isize)).collect();
                want.push(match (from, mode) {
                    (Some(f), _) => x[((f[0] * 3 + f[1]) * 5 + f[2]) as usize],
                    (None, PadMode::Constant(bits)) => f32::from_bits(bits as u32),
                    (None, _) => unreachable!(),
                });
            }
            let call = pad(device, 4, &input, &out, &before, mode).unwrap().unwrap();
            let got = run(device, &[&call], &[&x], &[want.len()]).remove(0);
            assert_eq!(got, want, "{mode:?}");
        }
    }

    #[test]
    fn gathers() {
        let Some(device) = device() else { return };
        let x = Rng(4).floats(2 * 6 * 7);
        let indices = [5, 0, 0, 3];
        let call = gather(device, 4, [2, 6, 7], &indices).unwrap().unwrap();
        let got = run(device, &[&call], &[&x], &[2 * 4 * 7]).remove(0);
        let want: Vec<f32> = (0..56).map(|i| x[(i / 28 * 6 + indices[i / 7 % 4]) * 7 + i % 7]).collect();
        assert_eq!(got, want);
        assert!(gather(device, 4, [2, 6, 7], &[6]).is_err());
    }
}
