//! Copies against one element at a time, with random shapes and strides, at every level.

use super::*;
use crate::kernels::isa::Isa;
use crate::kernels::nd::random::{self, Layout};
use crate::kernels::testing::Rng;

/// Copies with the kernel and one by one; nothing else of the target may change.
fn check_copy(isa: Isa, size: usize, from: &Layout, to: &Layout) {
    let source: Vec<u8> = (0..from.span * size).map(|i| (i * 7 + i / 251) as u8).collect();
    let mut got = vec![0xAAu8; to.span * size];
    let mut want = got.clone();
    for (f, t) in from.offsets().into_iter().zip(to.offsets()) {
        want[t * size..(t + 1) * size].copy_from_slice(&source[f * size..(f + 1) * size]);
    }
    let kernel = StridedCopy::new(isa, size, &from.shape, &from.strides, &to.strides).unwrap();
    for t in 0..kernel.tasks() {
        // SAFETY: the layouts lie within their blocks.
        unsafe { kernel.run(t, source.as_ptr().add(from.offset * size), got.as_mut_ptr().add(to.offset * size)) };
    }
    assert!(got == want, "{isa:?} size {size}: {from:?} to {to:?}");
}

#[test]
fn copies_any_strides() {
    let mut rng = Rng::new(11);
    for isa in Isa::detect().levels() {
        for size in [1, 2, 4, 8, 16] {
            for _ in 0..80 {
                let shape = random::shape(&mut rng);
                let (from, to) = (random::layout(&mut rng, &shape, true), random::layout(&mut rng, &shape, false));
                check_copy(isa, size, &from, &to);
            }
        }
    }
}

#[test]
fn transposes() {
    for isa in Isa::detect().levels() {
        for (rows, columns) in [(1, 9), (3, 1000), (1000, 3), (64, 64), (65, 130), (17, 8), (200, 200), (8, 7000)] {
            for size in [1, 2, 4, 8, 16] {
                for batch in [1, 3] {
                    let shape = vec![batch, columns, rows];
                    let strides = vec![(rows * columns) as isize, 1, columns as isize];
                    let from = Layout { shape: shape.clone(), strides, offset: 0, span: batch * rows * columns };
                    let strides = vec![(rows * columns) as isize, rows as isize, 1];
                    check_copy(isa, size, &from, &Layout { shape, strides, ..from.clone() });
                }
            }
        }
    }
}

#[test]
fn refuses_what_it_cannot() {
    assert!(StridedCopy::new(Isa::SCALAR, 3, &[1], &[1], &[1]).is_err());
    assert!(StridedCopy::new(Isa::SCALAR, 4, &[1], &[1, 1], &[1]).is_err());
    assert!(StridedCopy::new(Isa::SCALAR, 4, &[usize::MAX, 3], &[0, 0], &[3, 1]).is_err());
}
