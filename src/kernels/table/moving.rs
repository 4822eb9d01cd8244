//! Kernels that only move elements.

use super::{Sample, Work, floats, read, vectors};
use crate::err;
use crate::error::Result;
use crate::kernels::isa::Isa;
use crate::kernels::movement::{Gather, IndexType, StridedCopy};
use crate::kernels::nd::dense_strides;
use crate::kernels::reorder::{Direction, Reorder, blocked_len};
use std::rc::Rc;

/// Elements that stay in L2, and elements that stay nowhere near.
pub(super) const SIZES: [(&str, usize); 2] = [("L2", 48 << 10), ("far", 4 << 20)];

pub fn reorder() -> Vec<Sample> {
    let shapes = [(64, 112 * 112), (512, 49), (37, 50)];
    let both = shapes.into_iter().flat_map(|s| [(s, Direction::ToBlocked), (s, Direction::ToDense)]);
    both.map(|((channels, size), direction)| Sample {
        label: format!("{direction:?} {channels}x{size}"),
        flops: 0.0,
        bytes: 8.0 * (channels * size) as f64,
        bound: 0.0,
        ready: Box::new(move |isa| reordered(isa, direction, channels, size)),
    })
    .collect()
}

fn reordered(isa: Isa, direction: Direction, channels: usize, size: usize) -> Result<Work> {
    let there = Reorder::new(isa, direction, 1, channels, size)?;
    let len = blocked_len(1, channels, size, isa.f32_lanes())?;
    let (x, y) = (floats(len)?, Rc::new(floats(len)?));
    let out = y.clone();
    Ok(Work {
        kernel: vectors(there.name(), isa),
        tasks: there.tasks(),
        run: Box::new(move || {
            for task in 0..there.tasks() {
                // SAFETY: both are as long as the larger layout.
                unsafe { there.run(task, x.ptr().cast(), y.ptr().cast()) };
            }
            Ok(())
        }),
        // Block sizes differ with the level, so levels cannot be compared value by value: each goes back by a loop.
        output: Box::new(move || {
            let (got, c) = (read(&out, len), isa.f32_lanes());
            let plain = |ch: usize, p: usize| (ch / c * size + p) * c + ch % c;
            let at = |i: usize| plain(i / size, i % size);
            match direction {
                Direction::ToBlocked => (0..channels * size).map(|i| got[at(i)]).collect(),
                // The input was numbered by its place in the blocks.
                Direction::ToDense => {
                    let from = floats(len).map_or(Vec::new(), |b| read(&b, len));
                    (0..channels * size).map(|i| got[i] - from[at(i)]).collect()
                }
            }
        }),
    })
}

pub fn copy() -> Vec<Sample> {
    let mut all = Vec::new();
    for (place, n) in SIZES {
        let side = 1usize << (n.ilog2() / 2);
        let mut add = |label: String, size: usize, shape: Vec<usize>, from: Vec<isize>| {
            let count: usize = shape.iter().product();
            all.push(Sample {
                label: format!("{place} {label}"),
                flops: 0.0,
                bytes: (2 * count * size) as f64,
                bound: 0.0,
                ready: Box::new(move |isa| copied(isa, size, &shape, &from)),
            });
        };
        for (size, what) in [(4, "f32"), (1, "u8"), (2, "f16"), (8, "i64")] {
            add(format!("transpose {side}x{side} {what}"), size, vec![side, side], vec![1, side as isize]);
        }
        add("NCHW to NHWC, 64 channels".into(), 4, vec![n / 64, 64], vec![1, (n / 64) as isize]);
        add("NHWC to NCHW, 3 channels".into(), 4, vec![3, n / 3], vec![1, 3]);
        let t = n / 768;
        add("heads (t, 12, 64) to (12, t, 64)".into(), 4, vec![12, t, 64], vec![64, 768, 1]);
        add("heads (t, 12, 64) to (12, 64, t)".into(), 4, vec![12, 64, t], vec![64, 1, 768]);
        add("every second of f32".into(), 4, vec![n / 2], vec![2]);
    }
    all
}

fn copied(isa: Isa, size: usize, shape: &[usize], from: &[isize]) -> Result<Work> {
    let n: usize = shape.iter().product();
    let c = StridedCopy::new(isa, size, shape, from, &dense_strides(shape))?;
    // The last element read lies at the sum of the largest offsets.
    let last: usize = shape.iter().zip(from).map(|(d, s)| (d - 1) * s.unsigned_abs()).sum();
    let (a, b) = (floats(((last + 1) * size).div_ceil(4))?, Rc::new(floats((n * size).div_ceil(4))?));
    let out = b.clone();
    Ok(Work {
        kernel: vectors("copy", isa),
        tasks: c.tasks(),
        run: Box::new(move || {
            for t in 0..c.tasks() {
                // SAFETY: both buffers hold the shape.
                unsafe { c.run(t, a.ptr(), b.ptr()) };
            }
            Ok(())
        }),
        output: Box::new(move || read(&out, n * size / 4)),
    })
}

pub fn gather() -> Vec<Sample> {
    let of = |(place, n): (&str, usize)| Sample {
        label: format!("{place} rows of 384"),
        flops: 0.0,
        bytes: (2 * (n / 384) * 384 * 4) as f64,
        bound: 0.0,
        ready: Box::new(move |isa| gathered(isa, n / 384)),
    };
    SIZES.into_iter().map(of).collect()
}

fn gathered(isa: Isa, rows: usize) -> Result<Work> {
    let indices: Vec<i64> = (0..rows as i64).map(|i| i * 7919 % rows as i64).collect();
    let e = Gather::new(IndexType::I64, 1, rows, rows, 384 * 4)?;
    let (x, y) = (floats(rows * 384)?, Rc::new(floats(rows * 384)?));
    let out = y.clone();
    Ok(Work {
        kernel: vectors("gather", isa),
        tasks: e.tasks(),
        run: Box::new(move || {
            for t in 0..e.tasks() {
                // SAFETY: the buffers hold the rows.
                let done = unsafe { e.run(t, x.ptr(), indices.as_ptr().cast(), y.ptr()) };
                done.map_err(|bad| err!(Internal, "{bad:?}"))?;
            }
            Ok(())
        }),
        output: Box::new(move || read(&out, rows * 384)),
    })
}
