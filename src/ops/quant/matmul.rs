//! Products of matrices of 8-bit integers: MatMulInteger, QLinearMatMul, and the forms that runtimes added.

mod apart;

use super::dynamic::Dynamic;
use super::linear::{Dequantize, Grain, Quantize, load};
use crate::backend::cpu::CpuCtx;
use crate::backend::{Operand, Packed, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Fact, InferCtx, Op, ParseCtx, elements};
use crate::kernels::gemm::Strides;
use crate::kernels::igemm::gemm::{IntGemm, IntGemmPtrs, IntGemmSpec};
use crate::kernels::igemm::post::Out;
use crate::kernels::igemm::{Post, Zero};
use crate::kernels::isa::Isa;
use crate::ops::conv::expect_dim;
use crate::ops::linear::{MatMul, product_dims};
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

/// Where an integer product has its inputs, and what comes out.
#[derive(Clone, Debug, PartialEq)]
pub struct IntMatMul {
    /// ONNX's name.
    pub form: &'static str,
    /// The last two axes of A, and of B, are swapped.
    pub trans: [bool; 2],
    /// Scales the product.
    pub alpha: f32,
    /// The inputs.
    pub at: Inputs,
    /// What comes out; `None`: what the result's zero point is, or else f32.
    pub to: Option<DType>,
    /// A is f32, to be quantised by its extent.
    pub dynamic: bool,
}

impl IntMatMul {
    /// com.microsoft's QGemm, with its inputs in their order: A, B, each with scale and zero point, C, and those of the result.
    pub fn qgemm(trans: [bool; 2], alpha: f32) -> IntMatMul {
        let at = Inputs {
            a: 0,
            a_scale: Some(1),
            a_zero: Some(2),
            b: 3,
            b_scale: Some(4),
            b_zero: Some(5),
            int_bias: Some(6),
            y_scale: Some(7),
            y_zero: Some(8),
            bias: None,
        };
        IntMatMul { form: "QGemm", trans, alpha, at, to: None, dynamic: false }
    }
    /// com.microsoft's MatMulIntegerToFloat: A, B, their scales, their zero points, a bias.
    pub fn to_float(trans: [bool; 2]) -> IntMatMul {
        let at = Inputs {
            b: 1,
            a_scale: Some(2),
            b_scale: Some(3),
            a_zero: Some(4),
            b_zero: Some(5),
            bias: Some(6),
            ..Inputs::default()
        };
        IntMatMul { form: "MatMulIntegerToFloat", at, to: Some(DType::F32), ..sums(trans) }
    }
    /// com.microsoft's DynamicQuantizeMatMul: A of f32, B, its scale and zero point, a bias.
    pub fn of_floats(trans: [bool; 2]) -> IntMatMul {
        let at = Inputs { b: 1, b_scale: Some(2), b_zero: Some(3), bias: Some(4), ..Inputs::default() };
        IntMatMul { form: "DynamicQuantizeMatMul", at, to: Some(DType::F32), dynamic: true, ..sums(trans) }
    }
    /// Whether the integer sums are what comes out: MatMulInteger.
    pub fn is_sums(&self) -> bool {
        *self == sums(self.trans)
    }
}

/// Indices of inputs; those that a form lacks are absent.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
#[allow(missing_docs)]
pub struct Inputs {
    pub a: usize,
    pub b: usize,
    pub a_scale: Option<usize>,
    pub a_zero: Option<usize>,
    pub b_scale: Option<usize>,
    pub b_zero: Option<usize>,
    pub y_scale: Option<usize>,
    pub y_zero: Option<usize>,
    pub int_bias: Option<usize>,
    pub bias: Option<usize>,
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let op = read(cx)?;
    match op {
        Read::Product(op) if apart::needed(cx, &op) => apart::emit(cx, &op),
        Read::Product(op) => Ok(Arc::new(op)),
        Read::Float8 => float8(cx),
    }
}

/// MatMulInteger.
fn sums(trans: [bool; 2]) -> IntMatMul {
    let at = Inputs { a: 0, b: 1, a_zero: Some(2), b_zero: Some(3), ..Inputs::default() };
    IntMatMul { form: "MatMulInteger", trans, alpha: 1.0, at, to: Some(DType::I32), dynamic: false }
}

enum Read {
    Product(IntMatMul),
    Float8,
}

fn read(cx: &mut ParseCtx<'_>) -> Result<Read> {
    let plain = sums([false; 2]);
    Ok(Read::Product(match cx.op_type {
        "MatMulInteger" => {
            cx.expect_inputs(2, 4)?;
            plain
        }
        "QLinearMatMul" => {
            cx.expect_inputs(8, 8)?;
            if [0, 3, 7].iter().any(|&i| cx.input_fact(i).dtype().is_some_and(|d| d.is_float())) {
                return Ok(Read::Float8);
            }
            let at = Inputs {
                a_scale: Some(1),
                a_zero: Some(2),
                b: 3,
                b_scale: Some(4),
                b_zero: Some(5),
                y_scale: Some(6),
                y_zero: Some(7),
                ..Inputs::default()
            };
            IntMatMul { form: "QLinearMatMul", at, to: None, ..plain }
        }
        "MatMulIntegerToFloat" => {
            cx.expect_inputs(4, 7)?;
            IntMatMul::to_float(plain.trans)
        }
        "DynamicQuantizeMatMul" => {
            cx.expect_inputs(3, 5)?;
            IntMatMul::of_floats(plain.trans)
        }
        "QGemm" => {
            cx.expect_inputs(6, 9)?;
            let trans = [cx.flag("transA", false)?, cx.flag("transB", false)?];
            IntMatMul::qgemm(trans, cx.float_or("alpha", 1.0)?)
        }
        name => bail!(Internal, "{name} is not an integer product"),
    }))
}

/// A product in which there are 8-bit floats, by way of f32.
fn float8(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let grain = Grain { axis: 1, block: 0 };
    let inputs = std::mem::take(&mut cx.inputs);
    let wide = || Arc::new(Dequantize { grain, to: Some(DType::F32) });
    let a = cx.emit(wide(), inputs[0..3].to_vec())?;
    let b = cx.emit(wide(), inputs[3..6].to_vec())?;
    let y = cx.emit(Arc::new(MatMul::default()), vec![Some(a), Some(b)])?;
    cx.inputs = vec![Some(y), inputs[6], inputs[7]];
    Ok(Arc::new(Quantize { grain, to: None, saturate: true, precision: None }))
}

const INT8: [DType; 2] = [DType::U8, DType::I8];

impl Op for IntMatMul {
    fn name(&self) -> &'static str {
        self.form
    }
    fn flops(&self, cx: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        2 * elements(outputs) * cx.size(self.at.a, if self.trans[0] { -2 } else { -1 })
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let at = &self.at;
        cx.expect_dtype(at.a, if self.dynamic { &[DType::F32] } else { &INT8 })?;
        cx.expect_dtype(at.b, &INT8)?;
        for (x, zero) in [(at.a, at.a_zero), (at.b, at.b_zero)] {
            if let Some(z) = zero.filter(|&z| cx.has(z)) {
                cx.expect_same_dtype(x, z)?;
            }
        }
        for i in [at.a_scale, at.b_scale, at.y_scale, at.bias].into_iter().flatten().filter(|&i| cx.has(i)) {
            cx.expect_dtype(i, &[DType::F32, DType::F16, DType::BF16])?;
        }
        if let Some(i) = at.int_bias.filter(|&i| cx.has(i)) {
            cx.expect_dtype(i, &[DType::I32])?;
        }
        let to = match (self.to, at.y_zero.filter(|&z| cx.has(z))) {
            (None, Some(z)) => {
                cx.expect_dtype(z, &INT8)?;
                cx.dtype(z)?
            }
            (None, None) => DType::F32,
            (Some(d), _) => d,
        };
        let (Some(a), Some(b)) = (&cx.tensor(at.a)?.dims, &cx.tensor(at.b)?.dims) else {
            return Ok(vec![Fact::any_tensor(to)]);
        };
        let out = product_dims(a, b, self.trans[0], self.trans[1])?;
        let bias = at.bias.filter(|&i| cx.has(i)).map(|i| cx.tensor(i)).transpose()?;
        let bias = bias.and_then(|b| b.dims.as_ref()?.last());
        if let (Some(d), Some(n)) = (bias, out.last()) {
            expect_dim("bias and columns differ", d, n)?;
        }
        Ok(vec![Fact::tensor(to, out)])
    }
}

/// Which matrix of A and of B each matrix of the result is made from.
fn items(a: &[usize], b: &[usize]) -> Result<Vec<(usize, usize)>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    let mut list = vec![(0, 0)];
    for i in 0..rank {
        let (x, y) = (at(a, i), at(b, i));
        let n = if x == 1 { y } else { x };
        product(&[list.len().max(1), n, 16])?;
        let step = |p: usize, size: usize, j: usize| p * size + if size == 1 { 0 } else { j };
        list = list.iter().flat_map(|&(p, q)| (0..n).map(move |j| (step(p, x, j), step(q, y, j)))).collect();
    }
    Ok(list)
}

/// An input by index, if the form has it and the model gives it.
fn opt<'a>(cx: &CpuCtx<'a>, i: Option<usize>) -> Option<&'a Operand> {
    i.and_then(|i| cx.opt_input(i))
}

/// A zero point: how many there are, against those of one matrix and of all.
fn zero_kind(z: Option<&Operand>, one: usize, all: usize, what: &str) -> Result<(bool, bool)> {
    match z.map_or(1, Operand::len) {
        1 => Ok((false, false)),
        n if n == one => Ok((true, false)),
        n if n == all => Ok((true, true)),
        n => bail!(Unsupported, "{n} zero points of {what} for {one} rows or columns"),
    }
}

pub(super) fn bind(op: &IntMatMul, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let at = op.at;
    let (a, b, y) = (cx.input(at.a)?, cx.input(at.b)?, cx.output(0)?);
    let matrix = |s: &[usize], left: bool| match (s, left) {
        ([n], true) => vec![1, *n],
        ([n], false) => vec![*n, 1],
        _ => s.to_vec(),
    };
    let (sa, sb) = (matrix(&a.shape, true), matrix(&b.shape, false));
    ensure!(sa.len() >= 2 && sb.len() >= 2, InvalidModel, "a scalar is no matrix");
    let (ra, rb) = (sa.len(), sb.len());
    let (mut m, k) = if op.trans[0] { (sa[ra - 1], sa[ra - 2]) } else { (sa[ra - 2], sa[ra - 1]) };
    let n = if op.trans[1] { sb[rb - 2] } else { sb[rb - 1] };
    let (all_a, bs) = (product(&sa[..ra - 2])?, product(&sb[..rb - 2])?);
    let a_zero = zero_kind(opt(cx, at.a_zero), m, m * all_a, "rows")?;
    let b_zero = zero_kind(opt(cx, at.b_zero), n, n * bs, "columns")?;
    // Of a result without elements there may be more matrices than memory could list.
    let mut list = if y.is_empty() { Vec::new() } else { items(&sa[..ra - 2], &sb[..rb - 2])? };
    if bs == 1 && !op.trans[0] && !a_zero.0 && !list.is_empty() {
        // One B for all: the leading axes of A are more rows.
        (m, list) = (product(&[m, all_a])?, vec![(0, 0)]);
    }
    let out = match y.dtype {
        DType::I32 => Out::I32,
        DType::F32 => Out::F32,
        DType::I8 => Out::Int8 { signed: true },
        DType::U8 => Out::Int8 { signed: false },
        d => bail!(Unsupported, "{} to {d}", op.form),
    };
    let stride = |cols: usize, t: bool| if t { Strides::transposed(cols) } else { Strides::rows_of(cols) };
    let spec = IntGemmSpec {
        m,
        n,
        k,
        a: stride(sa[ra - 1], op.trans[0]),
        b: stride(sb[rb - 1], op.trans[1]),
        a_signed: a.dtype == DType::I8,
        b_unsigned: b.dtype == DType::U8,
        items: list,
        bs,
        b_constant: b.constant.is_some(),
        out,
    };
    let gemm = IntGemm::new(cx.isa, spec)?;
    let packed = match &b.constant {
        Some(t) => Some(cx.cache.packed(t, &gemm.packed_format(), gemm.packed_bytes(), |to| {
            // SAFETY: the constant has the shape the spec was made from, the memory the size that was asked for.
            unsafe { gemm.pack(t.data_ptr(), to) };
            Ok(())
        })?),
        None => None,
    };
    for (what, i) in [("a_scale", at.a_scale), ("y_scale", at.y_scale), ("y_zero_point", at.y_zero)] {
        let one = opt(cx, i).is_none_or(|s| s.len() == 1);
        ensure!(one, Unsupported, "{what} for each row of {}", op.form);
    }
    let scales = match (out, opt(cx, at.b_scale)) {
        (Out::I32, _) | (_, None) => 0,
        (_, Some(s)) if s.len() == 1 || s.len() == n => s.len(),
        (_, Some(s)) => bail!(Unsupported, "{} scales for {n} columns", s.len()),
    };
    let int_bias = match opt(cx, at.int_bias) {
        None => 0,
        Some(c) if c.len() == n && c.shape.last() == Some(&n) || c.len() == 1 => c.len(),
        Some(c) => bail!(Unsupported, "{} with C of shape {:?}", op.form, c.shape),
    };
    if let Some(bias) = opt(cx, at.bias) {
        ensure!(bias.len() == n, Unsupported, "a bias of shape {:?} for {n} columns", bias.shape);
    }
    let dtype = |i: Option<usize>| opt(cx, i).map(|o| o.dtype);
    let dynamic = op.dynamic.then(|| Dynamic::new(cx.isa, a.len()));
    // The workspace: scales, float bias, integer bias, extents, quantised A; then the product's own.
    let parts = [
        round_up(product(&[scales, 4])?, ALIGN),
        round_up(if dtype(at.bias).is_some() { product(&[n, 4])? } else { 0 }, ALIGN),
        round_up(if int_bias == 1 { product(&[n, 4])? } else { 0 }, ALIGN),
        round_up(dynamic.map_or(0, |d| d.extent_bytes()), ALIGN),
        round_up(if op.dynamic { a.len() } else { 0 }, ALIGN),
    ];
    let own = parts.iter().sum();
    product(&[own, 1])?;
    Ok(Box::new(IntMatMulStep {
        isa: cx.isa,
        alpha: op.alpha,
        at,
        gemm,
        packed,
        a_zero,
        b_zero,
        n,
        out,
        scales,
        int_bias,
        scale_dtypes: [dtype(at.a_scale), dtype(at.b_scale), dtype(at.y_scale)],
        bias_dtype: dtype(at.bias),
        y_zero: dtype(at.y_zero),
        has: [dtype(at.a_zero).is_some(), dtype(at.b_zero).is_some()],
        dynamic,
        parts,
        own,
    }))
}

struct IntMatMulStep {
    isa: Isa,
    alpha: f32,
    at: Inputs,
    gemm: IntGemm,
    packed: Option<Arc<Packed>>,
    a_zero: (bool, bool),
    b_zero: (bool, bool),
    n: usize,
    out: Out,
    /// Scales of B, and elements of the integer bias.
    scales: usize,
    int_bias: usize,
    scale_dtypes: [Option<DType>; 3],
    bias_dtype: Option<DType>,
    y_zero: Option<DType>,
    has: [bool; 2],
    dynamic: Option<Dynamic>,
    parts: [usize; 5],
    own: usize,
}

impl IntMatMulStep {
    fn part(&self, args: &StepArgs<'_>, i: usize) -> *mut u8 {
        args.workspace::<u8>().wrapping_add(self.parts[..i].iter().sum())
    }
    /// Phases before those of the product: extents, integers, scales.
    fn before(&self) -> usize {
        usize::from(self.dynamic.is_some()) * 2 + usize::from(self.out != Out::I32)
    }
    /// A scale that is one number.
    unsafe fn one(&self, args: &StepArgs<'_>, which: usize, at: Option<usize>) -> f32 {
        match (self.scale_dtypes[which], at) {
            (Some(d), Some(i)) => {
                let mut x = 0.0;
                // SAFETY: the input has one number of this type.
                unsafe { load(self.isa, d, args.input(i), 0, 1, &mut x) };
                x
            }
            _ => 1.0,
        }
    }
    /// What the sums are multiplied by, and the biases.
    unsafe fn prepare(&self, args: &StepArgs<'_>) {
        let (scale, bias) = (self.part(args, 0).cast::<f32>(), self.part(args, 1).cast::<f32>());
        // SAFETY: inputs of these types and lengths; the workspace has room for each part.
        unsafe {
            let mut a = self.one(args, 0, self.at.a_scale);
            if let Some(d) = &self.dynamic {
                a = d.scale(self.part(args, 3).cast::<(f32, f32)>()).0;
            }
            let y = self.one(args, 2, self.at.y_scale.filter(|_| self.y_zero.is_some()));
            if let (Some(d), Some(i)) = (self.scale_dtypes[1], self.at.b_scale) {
                load(self.isa, d, args.input(i), 0, self.scales, scale);
            }
            for j in 0..self.scales {
                *scale.add(j) = a * *scale.add(j) / y * self.alpha;
            }
            if let (Some(d), Some(i)) = (self.bias_dtype, self.at.bias) {
                load(self.isa, d, args.input(i), 0, self.n, bias);
            }
            if let (1, Some(i)) = (self.int_bias, self.at.int_bias) {
                let all = self.part(args, 2).cast::<i32>();
                (0..self.n).for_each(|j| *all.add(j) = *args.input::<i32>(i));
            }
        }
    }
}

impl Step for IntMatMulStep {
    fn phases(&self) -> usize {
        self.before() + self.gemm.phases()
    }
    fn tasks(&self, phase: usize) -> usize {
        match (phase.checked_sub(self.before()), &self.dynamic) {
            (Some(p), _) => self.gemm.tasks(p),
            (None, Some(d)) if phase < 2 => d.tasks,
            _ => 1,
        }
    }
    fn scratch_bytes(&self) -> usize {
        self.gemm.scratch_bytes().max(if self.dynamic.is_some() { Dynamic::SCRATCH } else { 0 })
    }
    fn workspace_bytes(&self) -> usize {
        self.own.saturating_add(self.gemm.workspace_bytes())
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let at = &self.at;
        let extents = self.part(args, 3).cast::<(f32, f32)>();
        let Some(p) = phase.checked_sub(self.before()) else {
            // SAFETY: the executor's contract (Step::run); the workspace has the parts that `bind` counted.
            unsafe {
                match (&self.dynamic, phase) {
                    (Some(d), 0) => d.measure(task, args.input(at.a), extents),
                    (Some(d), 1) => d.write(task, args.input(at.a), d.scale(extents), self.part(args, 4), scratch),
                    _ => self.prepare(args),
                }
            }
            return Ok(());
        };
        let zero = |i: Option<usize>, has: bool, each: bool| match i {
            Some(i) if has => Zero { at: args.input(i), each },
            _ => Zero::NONE,
        };
        let mut a = args.input::<u8>(at.a);
        let mut a_zero = zero(at.a_zero, self.has[0], self.a_zero.0);
        let mut dynamic_zero = 0u8;
        // SAFETY: the executor's contract; zero points and scales of the lengths that `bind` checked.
        unsafe {
            if let Some(d) = &self.dynamic {
                dynamic_zero = d.scale(extents).1 as u8;
                a = self.part(args, 4);
            }
            if self.dynamic.is_some() {
                a_zero = Zero { at: &dynamic_zero, each: false };
            }
            let y_zero = match (self.y_zero, at.y_zero) {
                (Some(DType::I8), Some(i)) => f32::from(*args.input::<i8>(i)),
                (Some(_), Some(i)) => f32::from(*args.input::<u8>(i)),
                _ => 0.0,
            };
            let int_bias = match (self.int_bias, at.int_bias) {
                (0, _) | (_, None) => std::ptr::null(),
                (1, _) if self.n != 1 => self.part(args, 2).cast::<i32>().cast_const(),
                (_, Some(i)) => args.input(i),
            };
            let post = Post {
                out: self.out,
                int_bias,
                scale: self.part(args, 0).cast::<f32>(),
                scale_each: self.scales > 1,
                bias: if self.bias_dtype.is_some() { self.part(args, 1).cast() } else { std::ptr::null() },
                zero: y_zero,
                ..Post::SUMS
            };
            let ptrs = IntGemmPtrs {
                a,
                b: self.packed.as_ref().map_or(args.input(at.b), |b| b.ptr()),
                c: args.output(0),
                a_zero,
                a_zero_items: self.a_zero.1,
                b_zero: zero(at.b_zero, self.has[1], self.b_zero.0),
                b_zero_items: self.b_zero.1,
                post,
            };
            self.gemm.run(p, task, &ptrs, args.workspace::<u8>().add(self.own), scratch);
        }
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.gemm.name()
    }
}
