//! Pointwise programs as operators: the fused `Pointwise`, and the binding of programs to the CPU's kernel, dense or
//! blocked.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{Layout, NodeLayouts, NodeView, Operand, Step, StepArgs};
use crate::error::Result;
use crate::ir::{Alias, Fact, InferCtx, Op, elements};
use crate::kernels::convert::{loads, stores};
use crate::kernels::elem::Elem;
use crate::kernels::isa::Isa;
use crate::kernels::nd::{Dims, Strides, broadcast_strides, dense_strides};
use crate::kernels::pointwise::{Operand as KernelOperand, Pointwise as Kernel, Program, ProgramBuilder, Register};
use crate::ops::infer::broadcast_all;
use crate::ops::types::elem;
use crate::tensor::DType;
use crate::{bail, ensure};
use smallvec::SmallVec;

/// A chain of elementwise operators in one: the program's inputs are the node's, broadcast together; every output has the
/// common shape. Computed in f32, whatever number type (i64 at most) an input has, and rounded to the outputs' types at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointwise {
    /// What is computed.
    pub program: Program,
    /// The types of the outputs: f32, f16, bf16, bool, or 8-bit integers (rounded, and kept within their bounds).
    pub dtypes: Vec<DType>,
}

impl Op for Pointwise {
    fn name(&self) -> &'static str {
        "Pointwise"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0, 1, 2, 3, 4, 5, 6, 7])
    }
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        elements(&outputs[..1]) * self.program.operations() as u64
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        ensure!(
            cx.inputs.len() == self.program.inputs(),
            Internal,
            "a pointwise program got {} inputs",
            cx.inputs.len()
        );
        let shapes = (0..cx.inputs.len()).map(|i| Ok(cx.tensor(i)?.dims.as_ref())).collect::<Result<Vec<_>>>()?;
        let dims = broadcast_all(shapes)?;
        let fact = |d: &DType| dims.as_ref().map_or(Fact::any_tensor(*d), |dims| Fact::tensor(*d, dims.clone()));
        Ok(self.dtypes.iter().map(fact).collect())
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Pointwise>(|op, cx| {
        let inputs: Vec<Source<'_>> = (0..op.program.inputs()).map(|i| Source::new(cx, i)).collect::<Result<_>>()?;
        bind_program(cx, "pointwise", &inputs, |b, x| b.inline(&op.program, x))
    });
    b.layouts::<Pointwise>(|_, node, _| follow(node));
}

/// Whether the type is computed by programs.
pub fn is_programs(d: DType) -> bool {
    elem(d).is_some_and(Elem::is_f32_like)
}

/// An input of a program: a node's input, perhaps seen under another shape.
pub struct Source<'a> {
    /// Which of the node's inputs.
    pub index: usize,
    /// The operand.
    pub operand: &'a Operand,
    /// The shape it broadcasts with.
    pub shape: Dims,
}

impl<'a> Source<'a> {
    /// The node's input `index` as it is.
    pub fn new(node: &NodeView<'a>, index: usize) -> Result<Source<'a>> {
        let operand = node.input(index)?;
        Ok(Source { index, operand, shape: operand.shape.clone() })
    }
    /// The value, if it is one constant f32-like number.
    pub fn number(&self) -> Option<f32> {
        let t = self.operand.constant.as_ref().filter(|t| t.len() == 1)?;
        match t.dtype() {
            DType::F32 => t.as_slice::<f32>().ok()?.first().copied(),
            DType::F16 => Some(t.as_slice::<half::f16>().ok()?.first()?.to_f32()),
            DType::BF16 => Some(t.as_slice::<half::bf16>().ok()?.first()?.to_f32()),
            _ => None,
        }
    }
}

/// A program over operands, as the kernel that computes it.
pub struct Bound {
    /// Over the physical axes of the outputs.
    pub kernel: Kernel,
    /// The sources that it reads, by their index; constant numbers are part of it.
    pub reads: SmallVec<[usize; MAX_INPUTS]>,
    /// Lanes of the outputs that must be made zero.
    pad: Option<Pad>,
}

/// Inputs of a program at most: each is a stream that the kernel reads.
pub const MAX_INPUTS: usize = 8;

/// Binds what `write` writes over registers that hold the sources, as a step that makes all of a node's outputs.
pub fn bind_program(
    cx: &CpuCtx<'_>,
    name: &'static str,
    sources: &[Source<'_>],
    write: impl FnOnce(&mut ProgramBuilder, &[Register]) -> Result<Vec<Register>>,
) -> Result<Box<dyn Step>> {
    let outs: SmallVec<[&Operand; 2]> = cx.outputs.iter().flatten().collect();
    ensure!(outs.len() == cx.outputs.len(), Internal, "{name}: an output is not asked for");
    let bound = bind_kernel(cx.isa, name, &outs, sources, write)?;
    let sizes = outs.iter().map(|o| elem_of(name, o, stores).map(Elem::size)).collect::<Result<_>>()?;
    Ok(Box::new(ProgramStep { name, bound, sizes }))
}

/// An operand's type, if programs read it, or write it.
fn elem_of(name: &str, o: &Operand, fits: fn(Elem) -> bool) -> Result<Elem> {
    match elem(o.dtype) {
        Some(e) if fits(e) => Ok(e),
        _ => bail!(Unsupported, "{name} of {}", o.dtype),
    }
}

/// Binds what `write` writes over registers that hold the sources. Constant numbers become part of the program.
pub fn bind_kernel(
    isa: Isa,
    name: &str,
    outs: &[&Operand],
    sources: &[Source<'_>],
    write: impl FnOnce(&mut ProgramBuilder, &[Register]) -> Result<Vec<Register>>,
) -> Result<Bound> {
    let Some(out) = outs.first() else { bail!(Internal, "{name}: no output") };
    let numbers: Vec<Option<f32>> = sources.iter().map(Source::number).collect();
    let read: Vec<&Source<'_>> = sources.iter().zip(&numbers).filter(|(_, n)| n.is_none()).map(|(s, _)| s).collect();
    let mut b = ProgramBuilder::new(read.len());
    let mut next = 0;
    let registers: Vec<Register> = numbers
        .iter()
        .map(|n| match n {
            Some(x) => b.constant(*x),
            None => {
                next += 1;
                b.load(next - 1)
            }
        })
        .collect();
    let results = write(&mut b, &registers)?;
    let program = b.finish(&results)?;

    let place = Physical::of(out)?;
    let mut strides: Vec<(Elem, Strides)> = Vec::with_capacity(read.len());
    for s in &read {
        let Some(st) = place.strides(s.operand, &s.shape) else {
            bail!(Internal, "{name}: {:?} does not broadcast to {:?}", s.shape, out.shape)
        };
        strides.push((elem_of(name, s.operand, loads)?, st));
    }
    let dense = dense_strides(&place.dims);
    let inputs: Vec<_> = strides.iter().map(|(elem, s)| KernelOperand { elem: *elem, strides: s }).collect();
    let outputs = outs
        .iter()
        .map(|o| {
            ensure!(o.shape == out.shape && o.layout == out.layout, Internal, "{name}: outputs of different shapes");
            Ok(KernelOperand { elem: elem_of(name, o, stores)?, strides: &dense })
        })
        .collect::<Result<Vec<_>>>()?;
    let kernel = Kernel::new(isa, &program, &place.dims, &inputs, &outputs)?;
    // Padding lanes hold zeros in every blocked input; what the program makes of them must be zero again.
    let blocked_only = read.iter().all(|s| s.operand.layout != Layout::Dense);
    let stays_zero = blocked_only && program.evaluate(&vec![0.0; read.len()]).iter().all(|&x| x == 0.0);
    let pad = place.pad.filter(|_| !stays_zero);
    Ok(Bound { kernel, reads: read.iter().map(|s| s.index).collect(), pad })
}

/// The axes of the memory behind an operand.
struct Physical {
    dims: Dims,
    logical: Dims,
    block: Option<usize>,
    pad: Option<Pad>,
}

/// The lanes that pad the last channel block.
#[derive(Clone, Copy)]
struct Pad {
    /// How many outermost parts there are.
    outer: usize,
    /// Elements of one.
    outer_len: usize,
    /// Elements of one of its channel blocks.
    block_len: usize,
    /// Lanes of a block.
    lanes: usize,
    /// Lanes of the last block that are used.
    used: usize,
}

impl Physical {
    fn of(o: &Operand) -> Result<Physical> {
        let logical: Dims = o.shape.as_slice().into();
        let Layout::Blocked(c) = o.layout else {
            return Ok(Physical { dims: logical.clone(), logical, block: None, pad: None });
        };
        ensure!(logical.len() >= 2 && c > 0, Internal, "a blocked layout of shape {logical:?}");
        let mut dims = logical.clone();
        dims[1] = logical[1].div_ceil(c);
        dims.push(c);
        let block_len: usize = logical[2..].iter().product::<usize>() * c;
        let used = logical[1] % c;
        let pad =
            (used != 0).then_some(Pad { outer: logical[0], outer_len: block_len * dims[1], block_len, lanes: c, used });
        Ok(Physical { dims, logical, block: Some(c), pad })
    }
    /// The strides over these axes of an operand of `shape`; `None` where it does not fit.
    fn strides(&self, o: &Operand, shape: &[usize]) -> Option<Strides> {
        let Some(c) = self.block else { return broadcast_strides(shape, &self.logical) };
        let rank = self.logical.len();
        if o.layout == Layout::Blocked(c) {
            if shape.len() != rank || shape[1] != self.logical[1] {
                return None;
            }
            let mut own: Dims = shape.into();
            own[1] = shape[1].div_ceil(c);
            own.push(c);
            return broadcast_strides(&own, &self.dims);
        }
        let lead = rank.checked_sub(shape.len())?;
        let mut full: Dims = smallvec::smallvec![1; lead];
        full.extend_from_slice(shape);
        if full[1] == 1 {
            let mut s = broadcast_strides(&full, &self.logical)?;
            s.push(0);
            return Some(s);
        }
        // A list of one number a channel, without a part of a block.
        if full[1] != self.logical[1] || !full[1].is_multiple_of(c) || full[2..].iter().any(|&d| d != 1) {
            return None;
        }
        full[1] /= c;
        full.push(c);
        broadcast_strides(&full, &self.dims)
    }
}

struct ProgramStep {
    name: &'static str,
    bound: Bound,
    sizes: SmallVec<[usize; 2]>,
}

impl Step for ProgramStep {
    fn phases(&self) -> usize {
        if self.bound.pad.is_some() { 2 } else { 1 }
    }
    fn tasks(&self, phase: usize) -> usize {
        if phase == 0 { self.bound.kernel.tasks() } else { 1 }
    }
    fn scratch_bytes(&self) -> usize {
        self.bound.kernel.scratch_bytes()
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let outputs: SmallVec<[*mut u8; 2]> = (0..self.sizes.len()).map(|i| args.output(i)).collect();
        if phase == 0 {
            let inputs: SmallVec<[*const u8; MAX_INPUTS]> = self.bound.reads.iter().map(|&i| args.input(i)).collect();
            // SAFETY: the operands are those whose types, shapes and strides the kernel was made from; scratch as asked for.
            unsafe { self.bound.kernel.run(task, &inputs, &outputs, scratch) };
        } else if let Some(p) = self.bound.pad {
            for (&out, size) in outputs.iter().zip(&self.sizes) {
                for i in 0..p.outer {
                    for at in ((i + 1) * p.outer_len - p.block_len..(i + 1) * p.outer_len).step_by(p.lanes) {
                        // SAFETY: the lanes lie within the last channel block of part `i` of the output.
                        unsafe { out.add((at + p.used) * size).write_bytes(0, (p.lanes - p.used) * size) };
                    }
                }
            }
        }
        Ok(())
    }
    fn kernel(&self) -> &str {
        self.name
    }
}

/// The layouts a program wants: blocked as soon as an input of the output's shape is, if all others can follow.
pub fn follow(node: &NodeView<'_>) -> NodeLayouts {
    let Some(Some(out)) = node.outputs.first() else { return NodeLayouts::dense() };
    let mut block = None;
    for o in node.inputs.iter().flatten() {
        match o.layout {
            Layout::Blocked(c) if o.shape == out.shape => block = Some(c),
            _ => {}
        }
    }
    let Some(c) = block else { return NodeLayouts::dense() };
    let programs = |o: &Operand| is_programs(o.dtype) || o.dtype == DType::Bool;
    if !node.inputs.iter().chain(node.outputs).flatten().all(programs) {
        return NodeLayouts::dense();
    }
    let blocked = Operand { layout: Layout::Blocked(c), ..out.clone() };
    let Ok(place) = Physical::of(&blocked) else { return NodeLayouts::dense() };
    let mut layouts = NodeLayouts::dense();
    for o in node.inputs {
        let Some(o) = o else {
            layouts.inputs.push(Layout::Dense);
            continue;
        };
        let fits = |layout| place.strides(&Operand { layout, ..o.clone() }, &o.shape).is_some();
        match [o.layout, Layout::Dense, Layout::Blocked(c)].into_iter().find(|l| fits(*l)) {
            Some(l) => layouts.inputs.push(l),
            None => return NodeLayouts::dense(),
        }
    }
    layouts.outputs = node.outputs.iter().map(|_| Layout::Blocked(c)).collect();
    layouts
}

/// The operator as a program over its inputs, if it is elementwise and all its operands are of `dtype`, which is computed in
/// f32. Bounds and conditions count as inputs.
pub fn program_of(op: &dyn Op, inputs: &[&Fact], dtype: DType) -> Option<Program> {
    use super::{Binary, Clip, Unary, UnaryFn, Variadic, Where};
    let f32_like = |f: &Fact| is_programs(dtype) && f.dtype() == Some(dtype);
    if let Some(p) = op.downcast::<Pointwise>() {
        return (p.dtypes == [dtype]).then(|| p.program.clone());
    }
    let is_where = op.is::<Where>();
    let plain = |(i, f): (usize, &&Fact)| f32_like(f) || is_where && i == 0 && f.dtype() == Some(DType::Bool);
    if inputs.is_empty() || !inputs.iter().enumerate().all(plain) {
        return None;
    }
    let mut b = ProgramBuilder::new(inputs.len());
    let x: Vec<Register> = (0..inputs.len()).map(|i| b.load(i)).collect();
    let y = if let Some(u) = op.downcast::<Unary>() {
        if u.f.tests() || u.f == UnaryFn::BitwiseNot {
            return None;
        }
        u.f.write(&mut b, x[0])
    } else if let Some(f) = op.downcast::<Binary>() {
        if f.axis.is_some() || f.f.compares() || f.f == super::BinaryFn::PRelu {
            return None;
        }
        f.f.write(&mut b, x[0], x[1])?
    } else if let Some(v) = op.downcast::<Variadic>() {
        v.f.write(&mut b, &x)?
    } else if is_where {
        b.select(x[0], x[1], x[2])
    } else if op.is::<Clip>()
        && inputs.len() == 3
        && inputs[1..].iter().all(|f| f.as_tensor().and_then(|t| t.rank()) == Some(0))
    {
        let low = b.max(x[0], x[1]);
        b.min(low, x[2])
    } else {
        return None;
    };
    b.finish(&[y]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::PackedCache;
    use crate::backend::cpu::run_now;
    use crate::base::parallel::Serial;
    use crate::kernels::pointwise::UnaryOp;
    use crate::tensor::Tensor;

    /// NCHW values in blocks of `c` channels, the padding zero.
    fn block(x: &[f32], [n, ch, h, w]: [usize; 4], c: usize) -> Vec<f32> {
        let blocks = ch.div_ceil(c);
        let mut out = vec![0.0; n * blocks * h * w * c];
        for (i, v) in x.iter().enumerate() {
            let (p, k, b) = (i % (h * w), i / (h * w) % ch, i / (h * w * ch));
            out[((b * blocks + k / c) * h * w + p) * c + k % c] = *v;
        }
        out
    }

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 37 + seed * 11) % 41) as f32 / 20.0 - 1.0).collect()
    }

    /// e^(x * scale[c]) + mask[h, w] + k: nothing in it keeps the padding zero by itself.
    fn check(isa: Isa, c: usize, channels: usize) {
        let (shape, hw) = ([2, channels, 3, 5], 15);
        let x = numbers(2 * channels * hw, 1);
        let (scale, mask, k) = (numbers(channels, 2), numbers(2 * hw, 3), [0.25f32]);
        let want: Vec<f32> = (0..x.len())
            .map(|i| (x[i] * scale[i / hw % channels]).exp() + mask[i / (hw * channels) * hw + i % hw] + k[0])
            .collect();
        let layout = Layout::Blocked(c);
        let dense = |s: &[usize]| Operand::dense(DType::F32, s);
        let mut ins = [
            Some(Operand { layout, ..dense(&shape) }),
            Some(dense(&[1, channels, 1, 1])),
            Some(dense(&[2, 1, 3, 5])),
            Some(dense(&[])),
        ];
        let mut outs = [Some(dense(&shape))];
        let mut b = ProgramBuilder::new(4);
        let r: Vec<Register> = (0..4).map(|i| b.load(i)).collect();
        let (p, m) = (b.mul(r[0], r[1]), b.add(r[2], r[3]));
        let e = b.unary(UnaryOp::Exp, p);
        let y = b.add(e, m);
        let op = Pointwise { program: b.finish(&[y]).unwrap(), dtypes: vec![DType::F32] };
        let layouts = follow(&NodeView { name: "", op: &op, inputs: &ins, outputs: &outs });
        assert_eq!((layouts.input(0), layouts.output(0), layouts.input(2)), (layout, layout, Layout::Dense));
        // A list of whole blocks is read as it is, one with a part of a block is brought into blocks.
        let scale_layout = if channels.is_multiple_of(c) { Layout::Dense } else { layout };
        assert_eq!(layouts.input(1), scale_layout);
        for (i, o) in ins.iter_mut().flatten().enumerate() {
            o.layout = layouts.input(i);
        }
        outs.iter_mut().flatten().for_each(|o| o.layout = layout);
        let padded_scale = if scale_layout == layout { block(&scale, [1, channels, 1, 1], c) } else { scale };
        let flat = |v: &[f32]| Some(Tensor::from_slice(&[v.len()], v).unwrap());
        let tensors = [flat(&block(&x, shape, c)), flat(&padded_scale), flat(&mask), flat(&k)];
        let node = NodeView { name: "", op: &op, inputs: &ins, outputs: &outs };
        let cache = PackedCache::new();
        let cx = CpuCtx { node: &node, isa, cache: &cache };
        let sources: Vec<Source<'_>> = (0..4).map(|i| Source::new(&cx, i).unwrap()).collect();
        let step = bind_program(&cx, "test", &sources, |b, x| b.inline(&op.program, x)).unwrap();
        let want = block(&want, shape, c);
        let mut got = [Tensor::from_slice(&[want.len()], &vec![f32::NAN; want.len()]).unwrap()];
        run_now(&*step, &tensors, &mut got, &Serial).unwrap();
        for (w, g) in want.iter().zip(got[0].as_slice::<f32>().unwrap()) {
            // A few roundings of numbers below 8; padding exactly.
            assert!(if *w == 0.0 { *g == 0.0 } else { (w - g).abs() < 1e-5 }, "{isa:?} {c} {channels}: {w} {g}");
        }
    }

    #[test]
    fn blocked_operands_broadcast_and_padding_stays_zero() {
        for isa in Isa::detect().levels() {
            for (c, channels) in [(8, 19), (8, 16), (16, 16), (16, 5), (4, 7)] {
                check(isa, c, channels);
            }
        }
    }
}
