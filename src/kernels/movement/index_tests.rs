//! Gathering, scattering and padding against one element at a time.

use super::*;
use crate::kernels::elem::Elem;
use crate::kernels::testing::Rng;

fn dims(rng: &mut Rng, rank: usize) -> Vec<usize> {
    (0..rank).map(|_| 1 + rng.below(6)).collect()
}
fn strides(shape: &[usize]) -> Vec<usize> {
    crate::kernels::nd::dense_strides(shape).iter().map(|s| *s as usize).collect()
}
fn coordinates(shape: &[usize], mut i: usize) -> Vec<usize> {
    let mut c = vec![0; shape.len()];
    for k in (0..shape.len()).rev() {
        c[k] = i % shape[k];
        i /= shape[k];
    }
    c
}
/// In range, half of them counted from the end.
fn index(rng: &mut Rng, limit: usize) -> i64 {
    let i = rng.below(limit) as i64;
    if rng.below(2) == 0 { i } else { i - limit as i64 }
}
fn place(i: i64, limit: usize) -> usize {
    (if i < 0 { i + limit as i64 } else { i }) as usize
}

#[test]
fn gathers_slices() {
    let mut rng = Rng::new(41);
    for round in 0..60 {
        let (outer, axis, count, slice) =
            (rng.below(4), 1 + rng.below(9), rng.below(300), [1, 4, 8, 16, 3, 40][round % 6]);
        let data: Vec<u8> = (0..outer * axis * slice).map(|_| rng.next() as u8).collect();
        let indices: Vec<i64> = (0..count).map(|_| index(&mut rng, axis)).collect();
        let mut out = vec![0u8; outer * count * slice];
        let kernel = Gather::new(IndexType::I64, outer, axis, count, slice).unwrap();
        for t in 0..kernel.tasks() {
            // SAFETY: the arrays have these sizes.
            unsafe { kernel.run(t, data.as_ptr(), indices.as_ptr().cast(), out.as_mut_ptr()).unwrap() };
        }
        for (o, i) in (0..outer).flat_map(|o| (0..count).map(move |i| (o, i))) {
            let (to, from) = ((o * count + i) * slice, (o * axis + place(indices[i], axis)) * slice);
            assert_eq!(out[to..to + slice], data[from..from + slice]);
        }
    }
}

#[test]
fn bad_indices_are_named() {
    let data = [1u8, 2, 3];
    let mut out = [0u8; 2];
    for (bad, axis) in [(3i32, 3), (-4, 3), (i32::MIN, 3), (0, 0)] {
        let kernel = Gather::new(IndexType::I32, 1, axis, 2, 1).unwrap();
        let indices = [if axis == 0 { bad } else { 0 }, bad];
        // SAFETY: the arrays have these sizes.
        let got = unsafe { kernel.run(0, data.as_ptr(), indices.as_ptr().cast(), out.as_mut_ptr()) };
        let position = if axis == 0 { 0 } else { 1 };
        let want = BadIndex { position, index: i64::from(bad), limit: axis };
        assert_eq!(got, Err(want));
        assert!(crate::Error::from(want).message().contains(&format!("index {bad}")));
    }
    let kernel = GatherElements::new(IndexType::I64, 1, &[3], &[2], 0).unwrap();
    // SAFETY: the arrays have these sizes.
    let got = unsafe { kernel.run(0, data.as_ptr(), [0i64, i64::MAX].as_ptr().cast(), out.as_mut_ptr()) };
    assert_eq!(got, Err(BadIndex { position: 1, index: i64::MAX, limit: 3 }));
    assert!(GatherElements::new(IndexType::I64, 1, &[3, 2], &[2, 3], 0).is_err());
    assert!(GatherElements::new(IndexType::I64, 1, &[3], &[3], 1).is_err());
    let kernel = ScatterNd::new(IndexType::I64, ScatterKind::Replace, None, 1, &[3], 1, 1).unwrap();
    // SAFETY: the arrays have these sizes.
    let got = unsafe { kernel.run(0, [-4i64].as_ptr().cast(), data.as_ptr(), out.as_mut_ptr()) };
    assert!(got.is_err());
}

#[test]
fn gathers_elements() {
    let mut rng = Rng::new(42);
    for _ in 0..80 {
        let rank = 1 + rng.below(4);
        let shape = dims(&mut rng, rank);
        let axis = rng.below(rank);
        let mut by: Vec<usize> = shape.iter().map(|d| 1 + rng.below(*d)).collect();
        by[axis] = rng.below(12);
        let n: usize = by.iter().product();
        let data: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
        let indices: Vec<i32> = (0..n).map(|_| index(&mut rng, shape[axis]) as i32).collect();
        let mut out = vec![0u32; n];
        let kernel = GatherElements::new(IndexType::I32, 4, &shape, &by, axis).unwrap();
        for t in 0..kernel.tasks() {
            // SAFETY: the arrays have these shapes.
            unsafe { kernel.run(t, data.as_ptr().cast(), indices.as_ptr().cast(), out.as_mut_ptr().cast()).unwrap() };
        }
        for i in 0..n {
            let mut c = coordinates(&by, i);
            c[axis] = place(i64::from(indices[i]), shape[axis]);
            let at: usize = c.iter().zip(strides(&shape)).map(|(c, s)| c * s).sum();
            assert_eq!(out[i], data[at]);
        }
    }
}

#[test]
fn gathers_tuples() {
    let mut rng = Rng::new(43);
    for _ in 0..60 {
        let (batch, count, slice) = (1 + rng.below(3), rng.below(20), 1 + rng.below(5));
        let depth = rng.below(4);
        let limits = dims(&mut rng, depth);
        let span: usize = limits.iter().product();
        let data: Vec<u16> = (0..batch * span * slice).map(|i| i as u16).collect();
        let indices: Vec<i64> =
            (0..batch * count * limits.len()).map(|i| index(&mut rng, limits[i % limits.len()])).collect();
        let mut out = vec![0u16; batch * count * slice];
        let kernel = GatherNd::new(IndexType::I64, batch, &limits, count, slice * 2).unwrap();
        for t in 0..kernel.tasks() {
            // SAFETY: the arrays have these sizes.
            unsafe { kernel.run(t, data.as_ptr().cast(), indices.as_ptr().cast(), out.as_mut_ptr().cast()).unwrap() };
        }
        for s in 0..batch * count {
            let tuple = &indices[s * limits.len()..(s + 1) * limits.len()];
            let at = tuple.iter().zip(&limits).fold(0, |a, (i, l)| a * l + place(*i, *l));
            let from = (s / count * span + at) * slice;
            assert_eq!(out[s * slice..(s + 1) * slice], data[from..from + slice]);
        }
    }
}

const HOW: [ScatterKind; 5] =
    [ScatterKind::Replace, ScatterKind::Add, ScatterKind::Mul, ScatterKind::Max, ScatterKind::Min];

fn apply(how: ScatterKind, a: i32, x: i32) -> i32 {
    match how {
        ScatterKind::Replace => x,
        ScatterKind::Add => a.wrapping_add(x),
        ScatterKind::Mul => a.wrapping_mul(x),
        ScatterKind::Max => a.max(x),
        ScatterKind::Min => a.min(x),
    }
}

#[test]
fn scatters_elements() {
    let mut rng = Rng::new(44);
    for round in 0..150 {
        let rank = 1 + rng.below(4);
        let shape = dims(&mut rng, rank);
        let axis = rng.below(rank);
        let mut by: Vec<usize> = shape.iter().map(|d| 1 + rng.below(*d)).collect();
        by[axis] = rng.below(9);
        let n: usize = by.iter().product();
        let mut out: Vec<i32> = (0..shape.iter().product::<usize>()).map(|_| rng.next() as i32).collect();
        let mut want = out.clone();
        let indices: Vec<i64> = (0..n).map(|_| index(&mut rng, shape[axis])).collect();
        let updates: Vec<i32> = (0..n).map(|_| rng.next() as i32).collect();
        let how = HOW[round % 5];
        for i in 0..n {
            let mut c = coordinates(&by, i);
            c[axis] = place(indices[i], shape[axis]);
            let at: usize = c.iter().zip(strides(&shape)).map(|(c, s)| c * s).sum();
            want[at] = apply(how, want[at], updates[i]);
        }
        let kernel = ScatterElements::new(IndexType::I64, how, Some(Elem::I32), 4, &shape, &by, axis).unwrap();
        for t in 0..kernel.tasks() {
            // SAFETY: the arrays have these shapes.
            unsafe {
                kernel.run(t, indices.as_ptr().cast(), updates.as_ptr().cast(), out.as_mut_ptr().cast()).unwrap()
            };
        }
        assert_eq!(out, want, "{how:?} {shape:?} {by:?} {axis}");
    }
    assert!(ScatterElements::new(IndexType::I64, ScatterKind::Add, None, 16, &[1], &[1], 0).is_err());
}

#[test]
fn scatters_tuples() {
    let mut rng = Rng::new(45);
    for round in 0..100 {
        let (count, slice) = (rng.below(30), 1 + [0, 3, 200][round % 3]);
        let depth = rng.below(3);
        let limits = dims(&mut rng, depth);
        let mut out: Vec<i32> = (0..limits.iter().product::<usize>() * slice).map(|_| rng.next() as i32).collect();
        let mut want = out.clone();
        let indices: Vec<i64> = (0..count * limits.len()).map(|i| index(&mut rng, limits[i % limits.len()])).collect();
        let updates: Vec<i32> = (0..count * slice).map(|_| rng.next() as i32).collect();
        let how = HOW[round % 5];
        for t in 0..count {
            let tuple = &indices[t * limits.len()..(t + 1) * limits.len()];
            let at = tuple.iter().zip(&limits).fold(0, |a, (i, l)| a * l + place(*i, *l)) * slice;
            for i in 0..slice {
                want[at + i] = apply(how, want[at + i], updates[t * slice + i]);
            }
        }
        let kernel = ScatterNd::new(IndexType::I64, how, Some(Elem::I32), 4, &limits, count, slice).unwrap();
        for t in 0..kernel.tasks() {
            // SAFETY: the arrays have these sizes.
            unsafe {
                kernel.run(t, indices.as_ptr().cast(), updates.as_ptr().cast(), out.as_mut_ptr().cast()).unwrap()
            };
        }
        assert_eq!(out, want, "{how:?} {limits:?} {slice}");
    }
}

#[test]
fn pads() {
    let mut rng = Rng::new(46);
    for round in 0..200 {
        let mode = [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap][round % 4];
        let rank = rng.below(5);
        let shape = dims(&mut rng, rank);
        let mut pad = || -> Vec<i64> {
            shape.iter().map(|_| if rng.below(2) == 0 { 0 } else { rng.below(14) as i64 - 3 }).collect()
        };
        let (begins, ends) = (pad(), pad());
        let out_shape: Vec<i64> = (0..rank).map(|i| shape[i] as i64 + begins[i] + ends[i]).collect();
        let data: Vec<u32> = (0..shape.iter().product::<usize>() as u32).collect();
        let kernel = match Pad::new(mode, 4, &shape, &begins, &ends) {
            Ok(kernel) => kernel,
            Err(_) => {
                assert!(out_shape.iter().any(|d| *d < 0));
                continue;
            }
        };
        let out_shape: Vec<usize> = out_shape.iter().map(|d| *d as usize).collect();
        assert_eq!(kernel.shape(), out_shape);
        let mut out = vec![0u32; out_shape.iter().product()];
        for t in 0..kernel.tasks() {
            let value = 777u32;
            // SAFETY: the arrays have these shapes.
            unsafe { kernel.run(t, data.as_ptr().cast(), (&raw const value).cast(), out.as_mut_ptr().cast()) };
        }
        for (i, got) in out.iter().enumerate() {
            let mut at = Some(0);
            for (k, c) in coordinates(&out_shape, i).into_iter().enumerate() {
                let (n, mut p) = (shape[k] as i64, c as i64 - begins[k]);
                match mode {
                    PadMode::Constant if p < 0 || p >= n => at = None,
                    PadMode::Edge => p = p.clamp(0, n - 1),
                    PadMode::Wrap => p = p.rem_euclid(n),
                    // Back and forth until it is inside.
                    PadMode::Reflect if n > 1 => {
                        while p < 0 || p >= n {
                            p = if p < 0 { -p } else { 2 * (n - 1) - p };
                        }
                    }
                    PadMode::Reflect => p = 0,
                    _ => {}
                }
                at = at.map(|a| a + p as usize * strides(&shape)[k]);
            }
            assert_eq!(*got, at.map_or(777, |a| data[a]), "{mode:?} {shape:?} {begins:?} {ends:?}");
        }
    }
    assert!(Pad::new(PadMode::Edge, 4, &[0], &[1], &[1]).is_err());
    assert!(Pad::new(PadMode::Constant, 4, &[1], &[i64::MAX], &[1]).is_err());
    assert!(Pad::new(PadMode::Constant, 4, &[1], &[-2], &[0]).is_err());
}
