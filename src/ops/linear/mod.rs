//! Matrix products: MatMul, Gemm.

#[cfg(feature = "opencl")]
mod opencl;
mod plain;
mod products;

pub use products::{OWN, Products};

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{Packed, Step, StepArgs};
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, elements};
use crate::kernels::gemm::epilogue::activate;
use crate::kernels::gemm::{Activation, Batch, Bias, Epilogue, Gemm as GemmKernel, GemmPtrs, GemmSpec, Strides};
use crate::kernels::isa::Isa;
use crate::ops::Family;
use crate::ops::case::{Case, CaseInput};
use crate::ops::infer::broadcast;
use crate::ops::widen::widened;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

pub(in crate::ops) const FAMILY: Family = Family {
    name: "linear",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
    ..Family::EMPTY
};

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "MatMul", versions: &[1, 9, 13], parse: parse_matmul },
    OpDef { domain: "", name: "Gemm", versions: &[1, 6, 7, 9, 11, 13], parse: parse_gemm },
];

/// The product of (stacks of) matrices: `epilogue(alpha * op(A) * op(B) + C + residual)`. Inputs A, B, and optionally C, and a
/// residual of the result's shape (f32, beside a C that is a row).
/// MatMul has no C and broadcasts the leading axes; Gemm is two-dimensional.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMul {
    /// The last two axes of A are swapped.
    pub trans_a: bool,
    /// The last two axes of B are swapped.
    pub trans_b: bool,
    /// Scales the product.
    pub alpha: f32,
    /// Scales C.
    pub beta: f32,
    /// Gemm: both operands must be matrices.
    pub gemm: bool,
    /// Applied last.
    pub activation: Activation,
}

/// A plain product.
impl Default for MatMul {
    fn default() -> Self {
        MatMul { trans_a: false, trans_b: false, alpha: 1.0, beta: 1.0, gemm: false, activation: Activation::None }
    }
}

fn parse_matmul(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(MatMul::default()))
}

fn parse_gemm(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    Ok(Arc::new(MatMul {
        trans_a: cx.flag("transA", false)?,
        trans_b: cx.flag("transB", false)?,
        alpha: cx.float_or("alpha", 1.0)?,
        beta: cx.float_or("beta", 1.0)?,
        gemm: true,
        activation: Activation::None,
    }))
}

/// A shape as a stack of matrices, and whether an axis was put in front or behind.
fn as_matrix(dims: &[Dim], left: bool) -> (Vec<Dim>, bool) {
    match (dims, left) {
        ([n], true) => (vec![Dim::Known(1), n.clone()], true),
        ([n], false) => (vec![n.clone(), Dim::Known(1)], true),
        _ => (dims.to_vec(), false),
    }
}

/// The axes of a product of stacks of matrices; a vector is a matrix of one row or column, which the result lacks.
pub(in crate::ops) fn product_dims(a: &[Dim], b: &[Dim], trans_a: bool, trans_b: bool) -> Result<Vec<Dim>> {
    ensure!(!a.is_empty() && !b.is_empty(), InvalidModel, "a scalar is no matrix");
    let ((mut a, a_vector), (mut b, b_vector)) = (as_matrix(a, true), as_matrix(b, false));
    let (ra, rb) = (a.len(), b.len());
    if trans_a {
        a.swap(ra - 1, ra - 2);
    }
    if trans_b {
        b.swap(rb - 1, rb - 2);
    }
    if let (Some(x), Some(y)) = (a[ra - 1].known(), b[rb - 2].known()) {
        ensure!(x == y, InvalidModel, "{x} columns of the left operand meet {y} rows of the right one");
    }
    let mut out = broadcast(&a[..ra - 2], &b[..rb - 2])?;
    if !a_vector {
        out.push(a[ra - 2].clone());
    }
    if !b_vector {
        out.push(b[rb - 1].clone());
    }
    Ok(out)
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        if self.gemm { "Gemm" } else { "MatMul" }
    }
    fn flops(&self, cx: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        2 * elements(outputs) * cx.size(0, if self.trans_a { -2 } else { -1 })
    }
    fn to_onnx(&self, version: u32, inputs: usize) -> Option<Spelling> {
        if self.activation != Activation::None {
            return None;
        }
        if !self.gemm {
            let plain = inputs == 2 && !self.trans_a && !self.trans_b && self.alpha == 1.0;
            return Spelling::since(1, version, "MatMul").filter(|_| plain);
        }
        let s = Spelling::since(if inputs == 2 { 11 } else { 7 }, version, "Gemm").filter(|_| inputs <= 3)?;
        let s = s.int("transA", i64::from(self.trans_a)).int("transB", i64::from(self.trans_b));
        Some(s.float("alpha", self.alpha).float("beta", self.beta))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_same_dtype(0, 1)?;
        let dtype = cx.dtype(0)?;
        let (Some(a), Some(b)) = (&cx.tensor(0)?.dims, &cx.tensor(1)?.dims) else {
            return Ok(vec![Fact::any_tensor(dtype)]);
        };
        ensure!(
            !self.gemm || a.len() == 2 && b.len() == 2,
            InvalidModel,
            "Gemm takes matrices, not ranks {} and {}",
            a.len(),
            b.len()
        );
        let out = product_dims(a, b, self.trans_a, self.trans_b)?;
        if let Some(c) = cx.opt_tensor(2)? {
            ensure!(c.dtype == dtype, InvalidModel, "C is {}, the operands are {dtype}", c.dtype);
            if let Some(c) = &c.dims {
                ensure!(c.len() <= out.len(), InvalidModel, "C of shape {c:?} cannot be added to {out:?}");
                broadcast(&out, c)?;
            }
        }
        if let Some(r) = cx.opt_tensor(3)? {
            ensure!(r.dtype == dtype, InvalidModel, "the residual is {}, the operands are {dtype}", r.dtype);
        }
        Ok(vec![Fact::tensor(dtype, out)])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<MatMul>(bind);
    b.step::<Products>(products::bind);
}

/// A bound product: the kernel, and a constant B where there is one.
struct MatMulStep {
    gemm: GemmKernel,
    packed: Option<Arc<Packed>>,
    bias: bool,
    /// The input that is added, if any.
    residual: Option<usize>,
}

impl Step for MatMulStep {
    fn phases(&self) -> usize {
        self.gemm.phases()
    }
    fn tasks(&self, phase: usize) -> usize {
        self.gemm.tasks(phase)
    }
    fn scratch_bytes(&self) -> usize {
        self.gemm.scratch_bytes()
    }
    fn reads(&self, input: usize) -> bool {
        !(input == 1 && self.packed.is_some())
    }
    fn workspace_bytes(&self) -> usize {
        self.gemm.workspace_bytes()
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let ptrs = GemmPtrs {
            a: args.input(0),
            b: self.packed.as_ref().map_or(args.input(1), |b| b.ptr().cast()),
            c: args.output(0),
            bias: if self.bias { args.input(2) } else { std::ptr::null() },
            residual: self.residual.map_or(std::ptr::null(), |i| args.input(i)),
        };
        // SAFETY: the executor's contract (Step::run); the spec was made from these operands' shapes.
        unsafe { self.gemm.run(phase, task, &ptrs, args.workspace(), scratch) };
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.gemm.name()
    }
}

fn bind(op: &MatMul, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let (a, b, out) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
    let matrix = |s: &[usize], left: bool| match (s, left) {
        ([n], true) => vec![1, *n],
        ([n], false) => vec![*n, 1],
        _ => s.to_vec(),
    };
    let (sa, sb) = (matrix(&a.shape, true), matrix(&b.shape, false));
    let (ra, rb) = (sa.len(), sb.len());
    let (m, k) = if op.trans_a { (sa[ra - 1], sa[ra - 2]) } else { (sa[ra - 2], sa[ra - 1]) };
    let n = if op.trans_b { sb[rb - 2] } else { sb[rb - 1] };
    let stride = |cols: usize, t: bool| if t { Strides::transposed(cols) } else { Strides::rows_of(cols) };
    let mut spec = GemmSpec {
        a: stride(sa[ra - 1], op.trans_a),
        b: stride(sb[rb - 1], op.trans_b),
        alpha: op.alpha,
        b_constant: cx.constant(1).is_some(),
        ..GemmSpec::dense(m, n, k)
    };
    let batch = batch_dims(&sa[..ra - 2], &sb[..rb - 2])?;
    // One B for all: the leading axes of a dense A are more rows.
    let rows: usize = sa[..ra - 1].iter().product();
    if !op.trans_a && sb[..rb - 2].iter().all(|&d| d == 1) {
        spec.m = rows;
    } else {
        spec.batch = Batch {
            dims: batch.0,
            a: batch.1.map(|s| s * m * k),
            b: batch.2.map(|s| s * k * n),
            c: batch.3.map(|s| s * m * n),
            residual: batch.3.map(|s| s * m * n),
            ..spec.batch
        };
    }
    if let Some(r) = cx.opt_input(3) {
        ensure!(a.dtype == DType::F32, Unsupported, "a matrix product of {} with a residual", a.dtype);
        ensure!(r.shape == out.shape, InvalidModel, "a residual of {:?} for {:?}", r.shape, out.shape);
        spec.epilogue.residual = true;
    }
    match a.dtype {
        DType::F32 => {}
        DType::F64 => return plain::bind::<f64>(op, cx, &spec),
        DType::I32 => return plain::bind::<i32>(op, cx, &spec),
        DType::I64 => return plain::bind::<i64>(op, cx, &spec),
        DType::U32 => return plain::bind::<u32>(op, cx, &spec),
        DType::U64 => return plain::bind::<u64>(op, cx, &spec),
        d => bail!(Unsupported, "a matrix product of {d}"),
    }
    let mut scaled = None;
    if let Some(c) = cx.opt_input(2).filter(|_| op.beta != 0.0) {
        let row = c.shape.last() == Some(&n) && c.len() == n;
        if op.beta != 1.0 || !(row || c.shape == out.shape) {
            // Rare: C scaled, or broadcast in another way. Added by a second step's worth of work in a loop.
            scaled = Some(c.clone());
        } else if row {
            spec.epilogue = Epilogue { bias: Bias::Column, ..spec.epilogue };
        } else {
            ensure!(!spec.epilogue.residual, Unsupported, "a product with a residual and a C that is no row");
            spec.epilogue.residual = true;
        }
    }
    ensure!(
        scaled.is_none() || cx.opt_input(3).is_none(),
        Unsupported,
        "a product with a residual and a C that is scaled or no row"
    );
    // What is added in a loop of its own comes before the activation.
    if scaled.is_none() {
        spec.epilogue.activation = op.activation;
    }
    let gemm = GemmKernel::new(cx.isa, spec)?;
    let packed = match cx.constant(1) {
        Some(t) => Some(cx.cache.packed(t, &gemm.packed_format(), gemm.packed_bytes(), |to| {
            // SAFETY: the constant has the shape the spec was made from, the memory the size that was asked for.
            unsafe { gemm.pack(t.data_ptr().cast(), to.cast()) };
            Ok(())
        })?),
        None => None,
    };
    let added = if cx.opt_input(3).is_some() { 3 } else { 2 };
    let (bias, residual) = (spec.epilogue.bias != Bias::None, spec.epilogue.residual.then_some(added));
    let step = MatMulStep { gemm, packed, bias, residual };
    match scaled {
        None => Ok(Box::new(step)),
        Some(c) => {
            let (isa, activation) = (cx.isa, op.activation);
            Ok(Box::new(AddScaled { step, beta: op.beta, m: out.shape[0], n, c_rows: c.shape, isa, activation }))
        }
    }
}

type BatchStrides = ([usize; 4], [usize; 4], [usize; 4], [usize; 4]);

/// Broadcast leading axes as four dims and the strides (in matrices) of A, B and the result along them.
fn batch_dims(a: &[usize], b: &[usize]) -> Result<BatchStrides> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    // Neighbouring axes that broadcast alike are merged, so that four are enough for all but odd cases.
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for i in 0..rank {
        let (x, y) = (at(a, i), at(b, i));
        match merged.last_mut() {
            Some((p, q)) if (x == y) && (*p == *q) || (x == 1 && *p == 1) || (y == 1 && *q == 1) => {
                *p *= x;
                *q *= y;
            }
            _ => merged.push((x, y)),
        }
    }
    ensure!(
        merged.len() <= 4,
        Unsupported,
        "a matrix product whose leading axes {a:?} and {b:?} broadcast in more than four ways"
    );
    while merged.len() < 4 {
        merged.insert(0, (1, 1));
    }
    let (mut dims, mut sa, mut sb, mut sc) = ([1; 4], [0; 4], [0; 4], [0; 4]);
    let (mut pa, mut pb, mut pc) = (1, 1, 1);
    for i in (0..4).rev() {
        let (x, y) = merged[i];
        dims[i] = x.max(y) * usize::from(x != 0 && y != 0);
        sa[i] = if x == 1 { 0 } else { pa };
        sb[i] = if y == 1 { 0 } else { pb };
        sc[i] = pc;
        pa *= x;
        pb *= y;
        pc *= dims[i];
    }
    Ok((dims, sa, sb, sc))
}

/// A product with a C that is scaled or broadcast in both directions: added in a last phase of one task.
struct AddScaled {
    step: MatMulStep,
    beta: f32,
    m: usize,
    n: usize,
    c_rows: crate::tensor::Dims,
    isa: Isa,
    activation: Activation,
}

impl Step for AddScaled {
    fn phases(&self) -> usize {
        self.step.phases() + 1
    }
    fn tasks(&self, phase: usize) -> usize {
        if phase < self.step.phases() { self.step.tasks(phase) } else { 1 }
    }
    fn scratch_bytes(&self) -> usize {
        self.step.scratch_bytes()
    }
    fn reads(&self, input: usize) -> bool {
        self.step.reads(input)
    }
    fn workspace_bytes(&self) -> usize {
        self.step.workspace_bytes()
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        if phase < self.step.phases() {
            // SAFETY: the caller's contract.
            return unsafe { self.step.run(args, phase, task, scratch) };
        }
        let (rows, cols) = match self.c_rows.as_slice() {
            [] => (1, 1),
            [n] => (1, *n),
            s => (s[s.len() - 2], s[s.len() - 1]),
        };
        for i in 0..self.m {
            for j in 0..self.n {
                let from = (if rows == 1 { 0 } else { i }) * cols + if cols == 1 { 0 } else { j };
                // SAFETY: inference checked that C broadcasts to [m, n]; the output has m * n values.
                unsafe { *args.output::<f32>(0).add(i * self.n + j) += self.beta * *args.input::<f32>(2).add(from) };
            }
        }
        // SAFETY: the output has m rows of n values.
        unsafe { activate(self.isa, self.activation, args.output(0), self.m, self.n, self.n) };
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.step.kernel()
    }
}

fn cases() -> Vec<Case> {
    let x = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), -1.0, 1.0);
    let of = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), 0.0, 100.0);
    let matmul = |name, a: &[usize], b: &[usize]| Case::new("MatMul", 13, name, vec![x(a), x(b)]);
    let gemm = |name, a: &[usize], b: &[usize], c: &[usize]| Case::new("Gemm", 13, name, vec![x(a), x(b), x(c)]);
    vec![
        matmul("2d", &[3, 4], &[4, 5]),
        matmul("odd", &[17, 33], &[33, 49]),
        matmul("vectors", &[7], &[7]),
        matmul("row", &[1, 64], &[64, 100]),
        matmul("batch", &[2, 3, 5, 7], &[2, 3, 7, 4]),
        matmul("shared_b", &[2, 3, 5, 7], &[7, 4]),
        matmul("broadcast", &[2, 1, 5, 7], &[3, 7, 4]),
        matmul("empty_k", &[3, 0], &[0, 4]),
        matmul("empty_m", &[0, 3], &[3, 4]),
        gemm("row_bias", &[5, 6], &[6, 7], &[7]),
        gemm("column_c", &[5, 6], &[6, 7], &[5, 1]),
        gemm("scaled", &[5, 6], &[6, 7], &[7]).attr("beta", Attr::Float(0.5)).attr("alpha", Attr::Float(2.0)),
        gemm("transposed", &[6, 5], &[7, 6], &[5, 7]).attr("transA", Attr::Int(1)).attr("transB", Attr::Int(1)),
        gemm("scalar_c", &[5, 6], &[6, 7], &[]),
        Case::new("MatMul", 13, "i32", vec![of(DType::I32, &[3, 2, 5]), of(DType::I32, &[5, 4])]).exact(),
        Case::new("Gemm", 13, "u64", vec![of(DType::U64, &[5, 3]), of(DType::U64, &[4, 5]), of(DType::U64, &[4])])
            .attr("transA", Attr::Int(1))
            .attr("transB", Attr::Int(1))
            .exact(),
        Case::new("Gemm", 13, "f64", vec![of(DType::F64, &[3, 5]), of(DType::F64, &[5, 4]), of(DType::F64, &[3, 1])])
            .attr("beta", Attr::Float(0.5)),
        // One unit of f16 in the last place, for what rounds to the other side.
        Case {
            rtol: 1e-3,
            ..Case::new("MatMul", 13, "f16", vec![of(DType::F16, &[2, 3, 5]), of(DType::F16, &[2, 5, 4])])
        },
    ]
}
