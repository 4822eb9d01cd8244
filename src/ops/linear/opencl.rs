//! Matrix products on OpenCL devices.

use super::{MatMul, OWN, Products, batch_dims};
use crate::backend::NodeView;
use crate::backend::opencl::OpenClBindings;
use crate::backend::opencl::call;
use crate::backend::opencl::gemm::Gemm;
use crate::backend::opencl::recipe::{Arg, Recipe, Work};
use crate::ensure;
use crate::error::Result;
use crate::kernels::nd::broadcast_strides;
use crate::tensor::DType;

pub(super) fn add(b: &mut OpenClBindings) {
    b.recipe::<MatMul>(matmul);
    b.recipe::<Products>(products);
}

/// One product after the other.
fn products(op: &Products, node: &NodeView<'_>) -> Result<Recipe> {
    let mut all = Recipe::default();
    for (i, part) in op.each(node, matmul)?.into_iter().enumerate() {
        let at = |input: usize| if input == 0 { 0 } else { OWN * i + input };
        for stage in part.stages {
            let args = stage.args.into_iter().map(|a| match a {
                Arg::Input(n) => Arg::Input(at(n)),
                Arg::Turned(n, rows, columns) => Arg::Turned(at(n), rows, columns),
                Arg::Output(_) => Arg::Output(i),
                other => other,
            });
            all = all.then(stage.work, args.collect::<Vec<_>>());
        }
    }
    Ok(all)
}

fn matmul(op: &MatMul, node: &NodeView<'_>) -> Result<Recipe> {
    let (a, b, out) = (node.input(0)?, node.input(1)?, node.output(0)?);
    ensure!(a.dtype == DType::F32, Unsupported, "a matrix product of {} on OpenCL", a.dtype);
    call::activation(op.activation)?;
    let matrix = |s: &[usize], left: bool| match (s, left) {
        ([n], true) => vec![1, *n],
        ([n], false) => vec![*n, 1],
        _ => s.to_vec(),
    };
    let (sa, sb) = (matrix(&a.shape, true), matrix(&b.shape, false));
    let (ra, rb) = (sa.len(), sb.len());
    let (rows_a, columns_a) = (sa[ra - 2], sa[ra - 1]);
    let (rows_b, columns_b) = (sb[rb - 2], sb[rb - 1]);
    let (m, k) = if op.trans_a { (columns_a, rows_a) } else { (rows_a, columns_a) };
    let n = if op.trans_b { rows_b } else { columns_b };
    let mut g = Gemm {
        a: if op.trans_a { [1, columns_a] } else { [columns_a, 1] },
        b: if op.trans_b { [1, columns_b] } else { [columns_b, 1] },
        alpha: op.alpha,
        act: op.activation,
        ..Gemm::dense(m, n, k)
    };
    if !op.trans_a && sb[..rb - 2].iter().all(|d| *d == 1) {
        // One B for all: the leading axes of A are more rows.
        g.m = sa[..ra - 1].iter().product();
    } else {
        let (dims, a, b, _) = batch_dims(&sa[..ra - 2], &sb[..rb - 2])?;
        ensure!(dims[0] == 1, Unsupported, "a matrix product over four batch axes on OpenCL");
        for i in 0..3 {
            (g.batch[i], g.a_batch[i], g.b_batch[i]) = (dims[i + 1], a[i + 1] * m * k, b[i + 1] * k * n);
        }
    }
    // Constant weights that lie the wrong way round are turned once, unless too few rows would use them.
    let turn = op.trans_b && g.m > 4 && node.constant(1).is_some() && b.shape.len() == 2;
    if turn {
        g.b = [rows_b, 1];
    }
    let right = if turn { Arg::Turned(1, rows_b, columns_b) } else { Arg::Input(1) };
    let mut args = vec![Arg::Input(0), right, Arg::Output(0), Arg::Output(0), Arg::Output(0)];
    if let Some(r) = node.opt_input(3) {
        let beside =
            node.opt_input(2).is_none_or(|c| c.len() == n && c.shape.last() == Some(&n) && c.shape != out.shape);
        ensure!(beside && r.shape == out.shape, Unsupported, "a residual beside a C that is no row on OpenCL");
        g.residual = true;
        args[3] = Arg::Input(3);
    }
    if let Some(c) = node.opt_input(2).filter(|_| op.beta != 0.0) {
        if c.shape == out.shape && op.beta == 1.0 {
            g.residual = true;
            args[3] = Arg::Input(2);
        } else if c.len() == n && c.shape.last() == Some(&n) {
            (g.beta, g.bias) = (op.beta, [0, 1]);
            args[2] = Arg::Input(2);
        } else {
            let strides = broadcast_strides(&c.shape, &[g.m, n]);
            let fits = g.batch == [1; 3] && g.m * n == out.len();
            let Some(strides) = strides.filter(|_| fits) else {
                crate::bail!(Unsupported, "a matrix product with C of {:?} on OpenCL", c.shape)
            };
            (g.beta, g.bias) = (op.beta, [strides[0].unsigned_abs(), strides[1].unsigned_abs()]);
            args[2] = Arg::Input(2);
        }
    }
    Ok(Recipe::one(Work::Gemm(g), args))
}
