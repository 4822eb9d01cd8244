//! QuantizeLinear and DequantizeLinear: per tensor, per axis and in blocks, of every type.

use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::backend::{Step, StepArgs};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx, TensorFact};
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::quant::linear::{Int, Params, Range, dequantize, dequantize_real, divide, quantize};
use crate::ops::conv::expect_dim;
use crate::ops::steps::Phases;
use crate::ops::types::elem;
use crate::tensor::{DType, decode_narrow, encode_narrow, unpack_bits, write_packed};
use crate::{bail, ensure};
use std::sync::Arc;

/// Which numbers share a scale and a zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grain {
    /// The axis along which they change.
    pub axis: i64,
    /// Neighbours along the axis that share; 0 where scales are for the whole tensor or for an index of the axis.
    pub block: usize,
}

/// `saturate(round(x / scale) + zero)`: inputs x, scale, optionally zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantize {
    /// What shares a scale.
    pub grain: Grain,
    /// The result's type, where no zero point tells it.
    pub to: Option<DType>,
    /// Floats past the range of 8 bits become the largest one.
    pub saturate: bool,
    /// The type in which is divided; by default the scale's.
    pub precision: Option<DType>,
}

/// `(q - zero) * scale`: inputs q, scale, optionally zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Dequantize {
    /// What shares a scale.
    pub grain: Grain,
    /// The result's type; by default the scale's.
    pub to: Option<DType>,
}

fn parse_grain(cx: &ParseCtx<'_>) -> Result<Grain> {
    let block = cx.int_or("block_size", 0)?;
    ensure!((0..=i64::from(i32::MAX)).contains(&block), InvalidModel, "block_size is {block}");
    Ok(Grain { axis: cx.int_or("axis", 1)?, block: block as usize })
}

fn parse_dtype(cx: &ParseCtx<'_>, name: &str) -> Result<Option<DType>> {
    match cx.int_or(name, 0)? {
        0 => Ok(None),
        n => DType::from_onnx(i32::try_from(n).unwrap_or(-1)).map(Some),
    }
}

pub(super) fn parse_quantize(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let precision = parse_dtype(cx, "precision")?;
    ensure!(
        precision.is_none_or(|p| matches!(p, DType::F32 | DType::F16 | DType::BF16)),
        InvalidModel,
        "precision is {precision:?}"
    );
    let (to, saturate) = (parse_dtype(cx, "output_dtype")?, cx.flag("saturate", true)?);
    Ok(Arc::new(Quantize { grain: parse_grain(cx)?, to, saturate, precision }))
}

pub(super) fn parse_dequantize(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    Ok(Arc::new(Dequantize { grain: parse_grain(cx)?, to: parse_dtype(cx, "output_dtype")? }))
}

impl Grain {
    /// Fails unless the shape of scales (or zero points) belongs to that of the numbers.
    fn check(&self, x: &TensorFact, scale: &TensorFact) -> Result<()> {
        let (Some(x), Some(s)) = (&x.dims, &scale.dims) else { return Ok(()) };
        if self.block > 0 {
            ensure!(s.len() == x.len(), InvalidModel, "scales of shape {s:?} in blocks for numbers of shape {x:?}");
            let axis = resolve_axis(self.axis, x.len())?;
            for (i, (x, s)) in x.iter().zip(s).enumerate() {
                let want = if i == axis { x.ceil_div(&Dim::of(self.block)) } else { x.clone() };
                expect_dim("numbers and scales differ", &want, s)?;
            }
            return Ok(());
        }
        match s.as_slice() {
            [] => Ok(()),
            [n] if n.known() == Some(1) => Ok(()),
            [n] => expect_dim("numbers and scales differ", &x[resolve_axis(self.axis, x.len())?], n),
            _ => bail!(InvalidModel, "scales of shape {s:?} without a block size"),
        }
    }
    /// How the numbers of a shape find their scales.
    fn map(&self, x: &[usize], scales: &[usize]) -> Result<ScaleMap> {
        let whole = ScaleMap { axis: 1, inner: product(x)?, block: 0, scales: 1 };
        if self.block == 0 && product(scales)? == 1 && scales.len() <= 1 {
            return Ok(whole);
        }
        let axis = resolve_axis(self.axis, x.len())?;
        let inner = product(&x[axis + 1..])?;
        Ok(ScaleMap { axis: x[axis], inner, block: self.block, scales: product(scales)? })
    }
}

/// Numbers in the order of memory, and which scale each has.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScaleMap {
    /// Length of the axis.
    pub axis: usize,
    /// Numbers that an index of the axis has one after another.
    pub inner: usize,
    /// Length of a block; 0 for a scale for each index of the axis.
    pub block: usize,
    /// How many scales there are.
    pub scales: usize,
}

impl ScaleMap {
    /// The run that begins with number `at`: its length, its first scale, whether each has a scale of its own.
    pub fn run(&self, at: usize) -> (usize, usize, bool) {
        let (row, i) = (at / self.inner, at % self.inner);
        let (o, a) = (row / self.axis, row % self.axis);
        match (self.scales, self.block, self.inner) {
            (1, 0, _) => (usize::MAX, 0, false),
            (_, 0, 1) => (self.axis - a, a, true),
            (_, 0, n) => (n - i, a, false),
            (_, b, 1) => ((b - a % b).min(self.axis - a), o * self.axis.div_ceil(b) + a / b, false),
            (_, b, n) => (n - i, (o * self.axis.div_ceil(b) + a / b) * n + i, true),
        }
    }
}

const QUANTISED: [DType; 15] = [
    DType::U8,
    DType::I8,
    DType::U16,
    DType::I16,
    DType::U4,
    DType::I4,
    DType::U2,
    DType::I2,
    DType::F8E4M3FN,
    DType::F8E4M3FNUZ,
    DType::F8E5M2,
    DType::F8E5M2FNUZ,
    DType::F4E2M1,
    DType::F6E2M3,
    DType::F6E3M2,
];

impl Op for Quantize {
    fn name(&self) -> &'static str {
        "QuantizeLinear"
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        2 * cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F16, DType::BF16, DType::I32])?;
        cx.expect_dtype(1, &[DType::F32, DType::F16, DType::BF16, DType::I32, DType::F8E8M0])?;
        self.grain.check(cx.tensor(0)?, cx.tensor(1)?)?;
        let mut to = self.to.unwrap_or(DType::U8);
        if let Some(z) = cx.opt_tensor(2)? {
            self.grain.check(cx.tensor(0)?, z)?;
            ensure!(
                self.to.is_none_or(|t| t == z.dtype),
                InvalidModel,
                "output_dtype is {to}, the zero point {}",
                z.dtype
            );
            to = z.dtype;
        }
        ensure!(QUANTISED.contains(&to), InvalidModel, "{to} is not a type for quantised numbers");
        Ok(vec![cx.like(0, to)?])
    }
}

impl Op for Dequantize {
    fn name(&self) -> &'static str {
        "DequantizeLinear"
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        2 * cx.elements(0)
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let q = cx.dtype(0)?;
        ensure!(QUANTISED.contains(&q) || q == DType::I32, InvalidModel, "{q} is not a type for quantised numbers");
        cx.expect_dtype(1, &[DType::F32, DType::F16, DType::BF16, DType::F8E8M0])?;
        self.grain.check(cx.tensor(0)?, cx.tensor(1)?)?;
        if let Some(z) = cx.opt_tensor(2)? {
            self.grain.check(cx.tensor(0)?, z)?;
            cx.expect_same_dtype(0, 2)?;
        }
        let to = match (self.to, cx.dtype(1)?) {
            (Some(t), _) => t,
            (None, DType::F8E8M0) => DType::F32,
            (None, t) => t,
        };
        ensure!(matches!(to, DType::F32 | DType::F16 | DType::BF16), InvalidModel, "output_dtype is {to}");
        Ok(vec![cx.like(0, to)?])
    }
}

/// Reads `n` numbers of any type as f32, from number `first` on, which begins a byte.
/// # Safety
/// They are there; `to` has room for them.
pub(super) unsafe fn load(isa: Isa, d: DType, from: *const u8, first: usize, n: usize, to: *mut f32) {
    let plain = |int: Int| {
        let (one, none) = (1.0, 0.0);
        let p = Params { scale: &one, zero: &none, each: false };
        // SAFETY: the caller's contract.
        unsafe { dequantize(isa, int, from.add(first * int.size()), n, p, to) };
    };
    match d {
        DType::U8 => plain(Int::U8),
        DType::I8 => plain(Int::I8),
        DType::U16 => plain(Int::U16),
        DType::I16 => plain(Int::I16),
        DType::I32 => plain(Int::I32),
        DType::F32 | DType::F16 | DType::BF16 => {
            // SAFETY: the caller's contract; these types have an element type of the kernels'.
            unsafe {
                let e = elem(d).unwrap_or(Elem::F32);
                load_strided(isa, e, from.add(first * e.size()), 1, to, n)
            }
        }
        _ => {
            let (bytes, per) = (d.bits() * n, 8 / d.bits().clamp(1, 8));
            // SAFETY: the caller's contract; `first` begins a byte.
            unsafe {
                let bytes = std::slice::from_raw_parts(from.add(first / per), bytes.div_ceil(8));
                unpack_bits(d, bytes, n, |i, b| *to.add(i) = decode_narrow(d, b));
            }
        }
    }
}

/// Numbers a task; a multiple of what a byte holds.
const GRAIN: usize = 32 * 1024;
/// Numbers at a time.
const CHUNK: usize = 1024;
/// Scales that each task reads for itself; more are read once, in a phase of their own.
const FEW: usize = 64;

/// Scales and zero points as f32: a part of what both operators do.
#[derive(Clone, Copy)]
struct Scales {
    isa: Isa,
    count: usize,
    scale: DType,
    zero: Option<DType>,
    /// Scales are rounded to this type.
    round: Option<Elem>,
}

impl Scales {
    fn few(&self) -> bool {
        self.count <= FEW
    }
    /// Bytes for all of them.
    fn bytes(&self) -> Result<usize> {
        product(&[self.count, 8])
    }
    /// Writes scales `first..first + n`, and their zero points `count` numbers behind them.
    unsafe fn load(&self, args: &StepArgs<'_>, first: usize, n: usize, to: *mut f32) {
        // SAFETY: both inputs have `count` numbers, `to` has room for twice as many; `first` begins a byte.
        unsafe {
            load(self.isa, self.scale, args.input(1), first, n, to.add(first));
            if let Some(e) = self.round {
                for i in first..first + n {
                    let mut bits = 0u16;
                    round_to(self.isa, e, to.add(i), 1, (&raw mut bits).cast());
                }
            }
            let zero = to.add(self.count + first);
            match self.zero {
                Some(d) => load(self.isa, d, args.input(2), first, n, zero),
                None => std::ptr::write_bytes(zero, 0, n),
            }
        }
    }
    /// A step of which a first phase reads the scales, where they are many.
    fn phases(self, name: &'static str) -> Result<Phases> {
        if self.few() {
            return Ok(Phases::new(name, 0));
        }
        let (tasks, per) = split(self.count, GRAIN);
        Ok(Phases::new(name, self.bytes()?).then(tasks, 0, move |args, task, _| {
            let first = (task * per).min(self.count);
            // SAFETY: the workspace has room for them.
            unsafe { self.load(args, first, per.min(self.count - first), args.workspace()) };
            Ok(())
        }))
    }
    /// Where a task finds them.
    unsafe fn at(&self, args: &StepArgs<'_>, scratch: *mut f32) -> *const f32 {
        if !self.few() {
            return args.workspace::<f32>().cast_const();
        }
        // SAFETY: the scratch has room for them.
        unsafe { self.load(args, 0, self.count, scratch) };
        scratch
    }
    /// Those of a run.
    fn params(&self, all: *const f32, first: usize, each: bool) -> Params {
        Params { scale: all.wrapping_add(first), zero: all.wrapping_add(self.count + first), each }
    }
}

fn scales_of(cx: &CpuCtx<'_>) -> Result<Scales> {
    let s = cx.input(1)?;
    if let Some(z) = cx.opt_input(2) {
        ensure!(z.len() == s.len(), InvalidModel, "{} scales and {} zero points", s.len(), z.len());
    }
    Ok(Scales { isa: cx.isa, count: s.len(), scale: s.dtype, zero: cx.opt_input(2).map(|z| z.dtype), round: None })
}

/// The parts of a task's scratch: a chunk's numbers, scales and zero points, its bits, and the few scales of all.
const PARTS: usize = 4 * CHUNK * 4;
const SCRATCH: usize = PARTS + FEW * 8;

/// The limits of an integer of few bits.
pub(super) fn range(d: DType) -> Option<Range> {
    if !d.is_int() || d.bits() > 16 {
        return None;
    }
    let n = (1u32 << d.bits()) as f32;
    Some(if d.is_signed() { Range { lo: -n / 2.0, hi: n / 2.0 - 1.0 } } else { Range { lo: 0.0, hi: n - 1.0 } })
}

/// Rounds numbers to a narrower type and back.
unsafe fn round_to(isa: Isa, e: Elem, x: *mut f32, n: usize, room: *mut u8) {
    // SAFETY: the caller's: n numbers, and room for their narrow bits.
    unsafe {
        store_strided(isa, x, 1, e, room, 1, n);
        load_strided(isa, e, room, 1, x, n);
    }
}

impl Scales {
    /// The scales and zero points of numbers `at..at + n`, laid out in `room` (of two chunks) unless one run has them all.
    unsafe fn of_chunk(&self, map: &ScaleMap, all: *const f32, at: usize, n: usize, room: *mut f32) -> Params {
        let (len, first, each) = map.run(at);
        if len >= n {
            return self.params(all, first, each);
        }
        let mut i = 0;
        while i < n {
            let (len, first, each) = map.run(at + i);
            let (len, p) = (len.min(n - i), self.params(all, first, each));
            // SAFETY: the map's scales are there; i + len <= n, which is a chunk at most.
            unsafe {
                for (from, to) in [(p.scale, room.add(i)), (p.zero, room.add(CHUNK + i))] {
                    match each {
                        true => std::ptr::copy_nonoverlapping(from, to, len),
                        false => std::slice::from_raw_parts_mut(to, len).fill(*from),
                    }
                }
            }
            i += len;
        }
        Params { scale: room, zero: room.wrapping_add(CHUNK), each: true }
    }
}

/// Calls `f(first, count)` for each chunk of a task's numbers.
fn chunks(n: usize, per: usize, task: usize, mut f: impl FnMut(usize, usize)) {
    let (mut at, end) = (task * per, n.min((task + 1) * per));
    while at < end {
        let count = CHUNK.min(end - at);
        f(at, count);
        at += count;
    }
}

pub(super) fn bind_quantize(op: &Quantize, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, out, isa) = (cx.input(0)?, cx.output(0)?, cx.isa);
    let (from, to, n, saturate) = (x.dtype, out.dtype, x.len(), op.saturate);
    let map = op.grain.map(&x.shape, &cx.input(1)?.shape)?;
    let mut scales = scales_of(cx)?;
    let precision = match op.precision.unwrap_or(scales.scale) {
        DType::F16 => Some(Elem::F16),
        DType::BF16 => Some(Elem::Bf16),
        _ => None,
    };
    scales.round = precision;
    let (range, per_byte) = (range(to), 8 / to.bits().clamp(1, 8));
    // A task begins at a whole byte of packed types.
    let per = split(n, GRAIN).1.next_multiple_of(CHUNK);
    Ok(scales
        .phases("quantize_linear")?
        .then(n.div_ceil(per), SCRATCH, move |args, task, scratch| {
            let x = scratch.cast::<f32>();
            // SAFETY: operands of these types and sizes (Step::run); the scratch has the parts that PARTS tells of.
            unsafe {
                let (params, bits) = (x.add(CHUNK), scratch.add(3 * CHUNK * 4));
                let all = scales.at(args, scratch.add(PARTS).cast());
                chunks(n, per, task, |at, count| {
                    load(isa, from, args.input(0), at, count, x);
                    let p = scales.of_chunk(&map, all, at, count, params);
                    if let Some(e) = precision {
                        round_to(isa, e, x, count, bits);
                    }
                    divide(isa, x, count, p);
                    if let Some(e) = precision {
                        round_to(isa, e, x, count, bits);
                    }
                    match range {
                        Some(r) if to.bits() >= 8 => {
                            return quantize(isa, x, count, p, r, args.output::<u8>(0).add(at * to.bits() / 8));
                        }
                        Some(r) => quantize(isa, x, count, p, r, bits),
                        None => {
                            // A zero point of the 8-bit floats is zero; smaller floats may have another.
                            let shifted =
                                scales.zero.is_some() && matches!(to, DType::F4E2M1 | DType::F6E2M3 | DType::F6E3M2);
                            for i in 0..count {
                                let zero = if shifted { *p.zero.add(if p.each { i } else { 0 }) } else { 0.0 };
                                *bits.add(i) = encode_narrow(to, *x.add(i) + zero, saturate);
                            }
                        }
                    }
                    let bytes = args.output::<u8>(0).add(at / per_byte);
                    let bytes = std::slice::from_raw_parts_mut(bytes, count.div_ceil(per_byte));
                    write_packed(to, bytes, count, |i| *bits.add(i));
                });
            }
            Ok(())
        })
        .boxed())
}

pub(super) fn bind_dequantize(op: &Dequantize, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (q, out, isa) = (cx.input(0)?, cx.output(0)?, cx.isa);
    let (from, n) = (q.dtype, q.len());
    let Some(to) = elem(out.dtype) else { bail!(Unsupported, "DequantizeLinear to {}", out.dtype) };
    let map = op.grain.map(&q.shape, &cx.input(1)?.shape)?;
    let scales = scales_of(cx)?;
    let int = match from {
        DType::U8 => Some(Int::U8),
        DType::I8 => Some(Int::I8),
        DType::U16 => Some(Int::U16),
        DType::I16 => Some(Int::I16),
        DType::I32 => Some(Int::I32),
        _ => None,
    };
    let per = split(n, GRAIN).1.next_multiple_of(CHUNK);
    Ok(scales
        .phases("dequantize_linear")?
        .then(n.div_ceil(per), SCRATCH, move |args, task, scratch| {
            let x = scratch.cast::<f32>();
            // SAFETY: operands of these types and sizes (Step::run); the scratch has the parts that PARTS tells of.
            unsafe {
                let params = x.add(CHUNK);
                let all = scales.at(args, scratch.add(PARTS).cast());
                chunks(n, per, task, |at, count| {
                    let p = scales.of_chunk(&map, all, at, count, params);
                    let y = args.output::<u8>(0).add(at * to.size());
                    let x = if to == Elem::F32 { y.cast::<f32>() } else { x };
                    match int {
                        Some(int) => dequantize(isa, int, args.input::<u8>(0).add(at * int.size()), count, p, x),
                        None => {
                            load(isa, from, args.input(0), at, count, x);
                            dequantize_real(isa, x, count, p);
                        }
                    }
                    if to != Elem::F32 {
                        store_strided(isa, x, 1, to, y, 1, count);
                    }
                });
            }
            Ok(())
        })
        .boxed())
}
