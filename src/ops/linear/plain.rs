//! Matrix products of f64 and integers, which wrap.

use super::MatMul;
use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::bail;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::elem::Number;
use crate::kernels::gemm::{Activation, GemmSpec};
use crate::kernels::gemm_plain::Product;
use crate::kernels::nd::broadcast_strides;

/// Binds the product that `spec` describes, but for its epilogue.
pub(super) fn bind<T: Number>(op: &MatMul, cx: &CpuCtx<'_>, spec: &GemmSpec) -> Result<Box<dyn Step>> {
    if op.activation != Activation::None {
        bail!(Internal, "a matrix product of another type than f32 with an activation");
    }
    let (spec, out) = (*spec, &cx.output(0)?.shape);
    let product_of = Product { n: spec.n, k: spec.k, a: spec.a, b: spec.b };
    let rows = product(&[product(&spec.batch.dims)?, spec.m])?;
    let (tasks, per) = split(rows, (32 * 1024 / spec.n.saturating_mul(spec.k).max(1)).max(1));
    // C over the last two axes; Gemm is of rank 2, and MatMul gets one row.
    let added = match cx.opt_input(2) {
        Some(c) if op.beta != 0.0 => match broadcast_strides(&c.shape, out) {
            Some(s) if out.len() == 2 => Some([s[0], s[1]]),
            Some(s) if c.len() == spec.n => Some([0, s.last().copied().unwrap_or(0)]),
            _ => bail!(Unsupported, "C of shape {:?} for a product of shape {out:?}", c.shape),
        },
        _ => None,
    };
    let (alpha, beta) = (f64::from(op.alpha), f64::from(op.beta));
    let scale = |x: T, by: f64| if by == 1.0 { x } else { T::from_f64(x.to_f64() * by) };
    Ok(FnStep::boxed("matmul_plain", tasks, 0, move |args, task, _| {
        let mut row = task * per;
        let end = rows.min(row + per);
        while row < end {
            let (item, i) = (row / spec.m, row % spec.m);
            let count = (spec.m - i).min(end - row);
            let (a, b) = spec.batch.offsets(item);
            // SAFETY: rows of one item of the batch; the spec was made from these operands' shapes (Step::run).
            unsafe {
                let to = args.output::<T>(0).add(row * spec.n);
                let a = args.input::<T>(0).add(a + i * spec.a.row);
                product_of.run(count, a, args.input::<T>(1).add(b), to);
                for r in 0..if alpha != 1.0 || added.is_some() { count } else { 0 } {
                    for j in 0..spec.n {
                        let at = to.add(r * spec.n + j);
                        let mut v = scale(*at, alpha);
                        if let Some([down, along]) = added {
                            let c = args.input::<T>(2).offset((row + r) as isize * down + j as isize * along);
                            v = v.add(scale(*c, beta));
                        }
                        *at = v;
                    }
                }
            }
            row += count;
        }
        Ok(())
    }))
}
