//! Tensors made from little: ConstantOfShape, Range, EyeLike, OneHot, Trilu.

use super::arrange::unknown_sizes;
use super::{Bind, Moves, around, packed};
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::fact::MAX_CONTENTS;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, TensorFact};
use crate::kernels::elem::{Elem, Narrow, Number};
use crate::kernels::movement::StridedCopy;
use crate::ops::steps::Phases;
use crate::ops::types::{need_elem, need_size};
use crate::tensor::{DType, Tensor, unpack_bits};
use crate::{bail, ensure, err};
use half::{bf16, f16};
use std::fmt;
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "ConstantOfShape", versions: &[9, 20, 21, 23, 24, 25], parse: parse_constant },
    OpDef { domain: "", name: "EyeLike", versions: &[9, 22], parse: parse_eye },
    OpDef { domain: "", name: "OneHot", versions: &[9, 11, 28], parse: parse_one_hot },
    OpDef { domain: "", name: "Range", versions: &[11, 27], parse: parse_range },
    OpDef { domain: "", name: "Trilu", versions: &[14], parse: parse_trilu },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<ConstantOfShape>(|op, cx| packed::bind(op, cx, bind_constant));
    b.step::<EyeLike>(bind_eye);
    OneHot::register(b);
    b.step::<Range>(bind_range);
    Trilu::register(b);
}

/// One element everywhere, in the shape that input 0 lists.
#[derive(Clone)]
pub struct ConstantOfShape {
    /// The element: a tensor of one.
    pub value: Tensor,
}

impl fmt::Debug for ConstantOfShape {
    /// With the element's bytes, which a tensor does not print: what prints alike is taken to be alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConstantOfShape {{ value: {:?} of bytes {:x?} }}", self.value, self.value.bytes())
    }
}

fn parse_constant(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let value = match cx.tensor_opt("value")? {
        Some(t) => t,
        None => Tensor::scalar(0f32)?,
    };
    ensure!(value.len() == 1, InvalidModel, "the value has {} elements, not one", value.len());
    ensure!(value.dtype() != DType::String, InvalidModel, "the value is a string");
    Ok(Arc::new(ConstantOfShape { value }))
}

impl Op for ConstantOfShape {
    fn name(&self) -> &'static str {
        "ConstantOfShape"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = cx.list(0)?;
        let dtype = self.value.dtype();
        if let Some(r) = shape.rank() {
            ensure!(r == 1, InvalidModel, "a shape is a list, not a tensor of rank {r}");
        }
        let Some(dims) = shape.int_dims().or_else(|| unknown_sizes(shape)) else {
            return Ok(vec![Fact::any_tensor(dtype)]);
        };
        if let Some(n) = dims.iter().filter_map(Dim::known).find(|n| *n < 0) {
            bail!(InvalidModel, "the shape has size {n}");
        }
        let mut f = TensorFact::new(dtype, dims);
        let small = f.shape().and_then(|s| s.iter().try_fold(1usize, |n, &d| n.checked_mul(d)));
        if let (DType::I64, Some(n)) = (dtype, small.filter(|&n| n <= MAX_CONTENTS)) {
            f.contents = Contents::Dims(vec![Dim::Known(self.value.to_i64s()?[0]); n]);
        }
        Ok(vec![Fact::Tensor(f)])
    }
}

fn bind_constant(op: &ConstantOfShape, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let out = cx.output(0)?;
    let mut element = op.value.bytes().to_vec();
    if op.value.dtype().is_packed() {
        unpack_bits(op.value.dtype(), op.value.bytes(), 1, |_, b| element = vec![b]);
    }
    let copy = StridedCopy::new(cx.isa, need_size(out.dtype, "ConstantOfShape")?, &[out.len()], &[0], &[1])?;
    Ok(FnStep::boxed("fill", copy.tasks(), 0, move |args, task, _| {
        // SAFETY: a source of one element that stands still, a target of as many as the output has.
        unsafe { copy.run(task, element.as_ptr(), args.output(0)) };
        Ok(())
    }))
}

/// Numbers from input 0 to before input 1 in steps of input 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Range;

fn parse_range(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    Ok(Arc::new(Range))
}

/// The only element of a tensor as f64, and as i64 where it is an integer.
fn number(t: &Tensor) -> Result<(f64, Option<i64>)> {
    ensure!(t.len() == 1, InvalidModel, "a bound must be one number, it is {t:?}");
    Ok(match t.dtype() {
        DType::F32 => (f64::from(t.as_slice::<f32>()?[0]), None),
        DType::F64 => (t.as_slice::<f64>()?[0], None),
        DType::F16 => (t.as_slice::<f16>()?[0].to_f64(), None),
        DType::BF16 => (t.as_slice::<bf16>()?[0].to_f64(), None),
        _ => {
            let v = t.to_i64s()?[0];
            (v as f64, Some(v))
        }
    })
}

/// How many numbers there are.
fn range_len(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize> {
    let (start, limit, delta) = (number(start)?, number(limit)?, number(delta)?);
    ensure!(delta.0 != 0.0, InvalidModel, "steps of zero");
    if let (Some(s), Some(l), Some(d)) = (start.1, limit.1, delta.1) {
        let (gap, d) = (i128::from(l) - i128::from(s), i128::from(d));
        let n = if (gap > 0) == (d > 0) { (gap.abs() + d.abs() - 1) / d.abs() } else { 0 };
        return usize::try_from(n).map_err(|_| err!(OutOfMemory, "a range of {n} numbers"));
    }
    let n = ((limit.0 - start.0) / delta.0).ceil();
    ensure!(n.is_finite() && n < isize::MAX as f64, InvalidModel, "a range of {n} numbers");
    Ok(n.max(0.0) as usize)
}

impl Op for Range {
    fn name(&self) -> &'static str {
        "Range"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        for i in 0..3 {
            cx.expect_same_dtype(0, i)?;
            let one = cx.tensor(i)?.count().known().is_none_or(|n| n == 1);
            ensure!(one, InvalidModel, "a bound must be one number, it is {}", cx.tensor(i)?);
        }
        let constant = |i: usize| cx.fact(i).contents_tensor();
        let n = if let (Some(s), Some(l), Some(d)) = (constant(0), constant(1), constant(2)) {
            Dim::of(range_len(&s, &l, &d)?)
        } else if let (Some(s), Some(l), Some(&[1])) = (
            cx.tensor(0)?.int_dims().filter(|d| d.len() == 1),
            cx.tensor(1)?.int_dims().filter(|d| d.len() == 1),
            cx.tensor(2)?.ints().as_deref(),
        ) {
            let gap = l[0].clone() - s[0].clone();
            if s[0] == Dim::Known(0) && gap.is_size() { gap } else { gap.max(&Dim::Known(0)) }
        } else {
            Dim::Unknown
        };
        Ok(vec![Fact::tensor(dtype, vec![n])])
    }
}

/// Numbers that ranges are made of.
trait Step1: Copy + 'static {
    fn at(start: Self, delta: Self, i: usize) -> Self;
}
macro_rules! steps {
    ($($t:ty)*) => {$(
        impl Step1 for $t {
            fn at(start: Self, delta: Self, i: usize) -> Self {
                Number::add(start, Number::mul(delta, i as $t))
            }
        }
    )*};
}
steps!(f32 f64 i16 i32 i64);
macro_rules! narrow_steps {
    ($($t:ty)*) => {$(
        impl Step1 for $t {
            fn at(start: Self, delta: Self, i: usize) -> Self {
                <$t>::narrow(start.widen() + delta.widen() * i as f32)
            }
        }
    )*};
}
narrow_steps!(f16 bf16);

fn bind_range(_: &Range, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let out = cx.output(0)?;
    let n = out.len();
    Ok(match need_elem(out.dtype, "Range")? {
        Elem::F32 => range_step::<f32>(n),
        Elem::F64 => range_step::<f64>(n),
        Elem::F16 => range_step::<f16>(n),
        Elem::Bf16 => range_step::<bf16>(n),
        Elem::I16 => range_step::<i16>(n),
        Elem::I32 => range_step::<i32>(n),
        Elem::I64 => range_step::<i64>(n),
        _ => bail!(Unsupported, "Range of {}", out.dtype),
    })
}

fn range_step<T: Step1>(n: usize) -> Box<dyn Step> {
    let (tasks, per) = split(n, 32 * 1024);
    FnStep::boxed("range", tasks, 0, move |args, task, _| {
        // SAFETY: the inputs are one number each, the output has n.
        unsafe {
            let (start, delta) = (*args.input::<T>(0), *args.input::<T>(2));
            for i in task * per..((task + 1) * per).min(n) {
                args.output::<T>(0).add(i).write(T::at(start, delta, i));
            }
        }
        Ok(())
    })
}

/// A matrix of the input's shape: ones on a diagonal, zeros elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct EyeLike {
    /// The type; `None` for the input's.
    pub dtype: Option<DType>,
    /// Which diagonal: above the main one, or below where negative.
    pub k: i64,
}

fn parse_eye(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let dtype = cx.int_opt("dtype")?.map(|n| DType::from_onnx(i32::try_from(n).unwrap_or(-1))).transpose()?;
    Ok(Arc::new(EyeLike { dtype, k: cx.int_or("k", 0)? }))
}

impl Op for EyeLike {
    fn name(&self) -> &'static str {
        "EyeLike"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(r) = cx.tensor(0)?.rank() {
            ensure!(r == 2, InvalidModel, "a matrix is needed, not rank {r}");
        }
        Ok(vec![cx.like(0, self.dtype.unwrap_or(cx.dtype(0)?))?])
    }
}

/// The bytes of the number one.
fn one(d: DType) -> Result<Vec<u8>> {
    Ok(match need_elem(d, "EyeLike")? {
        Elem::F32 => 1f32.to_le_bytes().to_vec(),
        Elem::F64 => 1f64.to_le_bytes().to_vec(),
        Elem::F16 => f16::ONE.to_le_bytes().to_vec(),
        Elem::Bf16 => bf16::ONE.to_le_bytes().to_vec(),
        e => {
            let mut b = vec![0; e.size()];
            b[0] = 1;
            b
        }
    })
}

fn bind_eye(op: &EyeLike, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let out = cx.output(0)?;
    let &[rows, columns] = &out.shape[..] else { bail!(InvalidModel, "a matrix is needed") };
    let (one, k) = (one(out.dtype)?, op.k);
    let size = one.len();
    let (tasks, per) = split(rows, (64 * 1024 / (columns * size).max(1)).max(1));
    Ok(FnStep::boxed("eye", tasks, 0, move |args, task, _| {
        for r in task * per..((task + 1) * per).min(rows) {
            // SAFETY: the row lies within the output, and so does a place below `columns` in it.
            unsafe {
                let row = args.output::<u8>(0).add(r * columns * size);
                row.write_bytes(0, columns * size);
                if let Some(c) = (r as i64).checked_add(k).filter(|c| (0..columns as i64).contains(c)) {
                    std::ptr::copy_nonoverlapping(one.as_ptr(), row.add(c as usize * size), size);
                }
            }
        }
        Ok(())
    }))
}

/// Along a new axis as long as input 1 says: the second of input 2's values at the place that input 0 names, the first
/// elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct OneHot {
    /// Where the axis goes; negative counts from the end of the result.
    pub axis: i64,
}

fn parse_one_hot(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 3)?;
    Ok(Arc::new(OneHot { axis: cx.int_or("axis", -1)? }))
}

impl Op for OneHot {
    fn name(&self) -> &'static str {
        "OneHot"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (at, depth, values) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        ensure!(values.count().known().is_none_or(|n| n == 2), InvalidModel, "two values are needed, not {values}");
        let Some(d) = &at.dims else { return Ok(vec![Fact::any_tensor(values.dtype)]) };
        let n = match (depth.int_dims().filter(|d| d.len() == 1), depth.tensor()) {
            (Some(d), _) => d[0].clone(),
            (None, Some(t)) => Dim::Known(number(t)?.0 as i64),
            _ => Dim::Unknown,
        };
        ensure!(n.known().is_none_or(|n| n >= 0), InvalidModel, "a depth of {n}");
        let mut dims = d.clone();
        dims.insert(resolve_axis(self.axis, d.len() + 1)?, n);
        Ok(vec![Fact::tensor(values.dtype, dims)])
    }
}

/// Element `i` of an array of numbers, as an integer.
///
/// # Safety
/// `at` has an element `i` of type `elem`.
unsafe fn read_int(elem: Elem, at: *const u8, i: usize) -> i64 {
    // SAFETY: the caller's contract.
    unsafe {
        match elem {
            Elem::F32 => *at.cast::<f32>().add(i) as i64,
            Elem::F64 => *at.cast::<f64>().add(i) as i64,
            Elem::F16 => (*at.cast::<f16>().add(i)).to_f32() as i64,
            Elem::Bf16 => (*at.cast::<bf16>().add(i)).to_f32() as i64,
            Elem::I8 => i64::from(*at.cast::<i8>().add(i)),
            Elem::I16 => i64::from(*at.cast::<i16>().add(i)),
            Elem::I32 => i64::from(*at.cast::<i32>().add(i)),
            Elem::I64 => *at.cast::<i64>().add(i),
            Elem::U8 | Elem::Bool => i64::from(*at.add(i)),
            Elem::U16 => i64::from(*at.cast::<u16>().add(i)),
            Elem::U32 => i64::from(*at.cast::<u32>().add(i)),
            Elem::U64 => i64::try_from(*at.cast::<u64>().add(i)).unwrap_or(i64::MAX),
        }
    }
}

impl Moves for OneHot {
    const BIND: Bind<Self> = |op, cx| {
        let (at, out) = (cx.input(0)?, cx.output(0)?);
        let size = need_size(out.dtype, "OneHot")?;
        let elem = need_elem(at.dtype, "OneHot")?;
        let (outer, depth, inner) = around(&out.shape, resolve_axis(op.axis, out.shape.len())?);
        let fill = StridedCopy::new(cx.isa, size, &[out.len()], &[0], &[1])?;
        let n = if depth == 0 { 0 } else { outer * inner };
        let (tasks, per) = split(n, 16 * 1024);
        Ok(Phases::new("one_hot", 0)
            .then(fill.tasks(), 0, move |args, task, _| {
                // SAFETY: a source of one element that stands still, a target of as many as the output has.
                unsafe { fill.run(task, args.input(2), args.output(0)) };
                Ok(())
            })
            .then(tasks, 0, move |args, task, _| {
                for i in task * per..((task + 1) * per).min(n) {
                    // SAFETY: the indices have outer * inner elements, and the place was checked against the depth.
                    unsafe {
                        let k = read_int(elem, args.input(0), i);
                        let k = if k < 0 { k + depth as i64 } else { k };
                        if (0..depth as i64).contains(&k) {
                            let to = (i / inner * depth + k as usize) * inner + i % inner;
                            let on = args.input::<u8>(2).add(size);
                            std::ptr::copy_nonoverlapping(on, args.output::<u8>(0).add(to * size), size);
                        }
                    }
                }
                Ok(())
            })
            .boxed())
    };
}

/// Matrices of which one side of a diagonal (input 1, or the main one) is kept, the other zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Trilu {
    /// Whether the upper right stays.
    pub upper: bool,
}

fn parse_trilu(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 2)?;
    Ok(Arc::new(Trilu { upper: cx.flag("upper", true)? }))
}

impl Op for Trilu {
    fn name(&self) -> &'static str {
        "Trilu"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(r) = cx.tensor(0)?.rank() {
            ensure!(r >= 2, InvalidModel, "a matrix is needed, not rank {r}");
        }
        if let Some(k) = cx.opt_tensor(1)? {
            let one = k.count().known().is_none_or(|n| n == 1);
            ensure!(k.dtype == DType::I64 && one, InvalidModel, "the diagonal is one int64, not {k}");
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

impl Moves for Trilu {
    const BIND: Bind<Self> = |op, cx| {
        let x = cx.input(0)?;
        let size = need_size(x.dtype, "Trilu")?;
        let [.., rows, columns] = x.shape[..] else { bail!(InvalidModel, "a matrix is needed") };
        let (n, upper) = (x.len().checked_div(columns).unwrap_or(0), op.upper);
        let (tasks, per) = split(n, (128 * 1024 / (columns * size).max(1)).max(1));
        Ok(FnStep::boxed("trilu", tasks, 0, move |args, task, _| {
            let diagonal = args.input::<i64>(1);
            // SAFETY: input 1 is one int64 where it is given.
            let k = if diagonal.is_null() { 0 } else { unsafe { *diagonal } };
            for r in task * per..((task + 1) * per).min(n) {
                // The first column on or right of the diagonal; one further where that stays on the left.
                let edge = ((r % rows) as i64).saturating_add(k).saturating_add(i64::from(!upper));
                let edge = edge.clamp(0, columns as i64) as usize * size;
                // SAFETY: both rows have `columns` elements; they may be the same memory, hence `copy`.
                unsafe {
                    let from = args.input::<u8>(0).add(r * columns * size);
                    let to = args.output::<u8>(0).add(r * columns * size);
                    let (zero, keep) =
                        if upper { (0..edge, edge..columns * size) } else { (edge..columns * size, 0..edge) };
                    std::ptr::copy(from.add(keep.start), to.add(keep.start), keep.len());
                    to.add(zero.start).write_bytes(0, zero.len());
                }
            }
            Ok(())
        }))
    };
}
