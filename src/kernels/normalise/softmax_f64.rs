//! Softmax of f64, one column at a time.

use super::softmax::SoftmaxKind;
use crate::kernels::elem::Number;

/// # Safety
/// `width` columns of `axis` rows, `inner` numbers apart, are valid on both sides.
pub(super) unsafe fn strip(kind: SoftmaxKind, from: *const f64, to: *mut f64, axis: usize, inner: usize, width: usize) {
    for j in 0..width {
        // SAFETY: the caller's contract.
        let at = |i: usize| unsafe { *from.add(i * inner + j) };
        let put = |i: usize, x: f64| unsafe { *to.add(i * inner + j) = x };
        if kind == SoftmaxKind::Hard {
            let mut best = 0;
            for i in 1..axis {
                if at(i) > at(best) || (at(i).is_nan() && !at(best).is_nan()) {
                    best = i;
                }
            }
            (0..axis).for_each(|i| put(i, if i == best { 1.0 } else { 0.0 }));
            continue;
        }
        let top = (0..axis).fold(f64::NEG_INFINITY, |a, i| a.most(at(i)));
        let sum: f64 = (0..axis).map(|i| (at(i) - top).exp()).sum();
        for i in 0..axis {
            put(i, if kind == SoftmaxKind::Log { at(i) - top - sum.ln() } else { (at(i) - top).exp() / sum });
        }
    }
}
