//! Convolution: the definition, the choice of a kernel, its binding.

#[cfg(feature = "opencl")]
mod opencl;
mod plain;
mod transpose;

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{Layout, NodeLayouts, NodeView, Operand, Packed, Step, StepArgs};
use crate::base::alloc::Buffer;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, elements};
use crate::kernels::conv::blocked::{BlockedConv, Input};
use crate::kernels::conv::dense::DenseConv;
use crate::kernels::conv::depthwise::DepthwiseConv;
use crate::kernels::conv::{ConvPtrs, ConvSpec};
use crate::kernels::gemm::Activation;
use crate::kernels::isa::Isa;
use crate::ops::Family;
use crate::ops::case::{Case, CaseInput};
use crate::ops::widen::widened;
use crate::ops::window::Window;
use crate::tensor::DType;
use crate::{bail, ensure};
use smallvec::smallvec;
use std::sync::Arc;
pub use transpose::ConvTranspose;

pub(in crate::ops) const FAMILY: Family = Family {
    name: "conv",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
};

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Conv", versions: &[1, 11, 22], parse: parse_conv },
    OpDef { domain: "", name: "ConvTranspose", versions: &[1, 11, 22], parse: transpose::parse },
];

/// `activation(conv(X, W) + B + residual)`, or `activation(conv(X, W) + B) + residual`: inputs X `[N, C, spatial...]`, W `[M, C / groups, kernel...]`, optionally
/// B `[M]`, and a residual of the output's shape where `residual` says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// How the kernel slides.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// Input 3 is added: before the activation, or after it.
    pub residual: bool,
    /// After it.
    pub residual_last: bool,
    /// Applied last.
    pub activation: Activation,
}

/// The `group` attribute.
pub(in crate::ops) fn parse_groups(cx: &ParseCtx<'_>) -> Result<usize> {
    let g = cx.int_or("group", 1)?;
    match usize::try_from(g) {
        Ok(g) if g > 0 => Ok(g),
        _ => bail!(InvalidModel, "group is {g}"),
    }
}

pub(in crate::ops) fn parse_conv(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let window = Window::parse(cx)?;
    let groups = parse_groups(cx)?;
    Ok(Arc::new(Conv { window, groups, residual: false, residual_last: false, activation: Activation::None }))
}

/// Fails where both are known and differ.
pub(in crate::ops) fn expect_dim(what: &str, a: &Dim, b: &Dim) -> Result<()> {
    if let (Some(x), Some(y)) = (a.known(), b.known()) {
        ensure!(x == y, InvalidModel, "{what}: {x} against {y}");
    }
    Ok(())
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        "Conv"
    }
    fn flops(&self, cx: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        2 * elements(outputs) * (cx.elements(1) / cx.size(1, 0).max(1))
    }
    fn to_onnx(&self, version: u32, inputs: usize) -> Option<Spelling> {
        let plain = !self.residual && self.activation == Activation::None && inputs <= 3;
        let s = Spelling::since(1, version, "Conv").filter(|_| plain)?;
        Some(self.window.spell(s).int("group", self.groups as i64))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        cx.expect_same_dtype(0, 1)?;
        let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
        if let Some(r) = x.rank().or(w.rank()) {
            ensure!(r >= 3, InvalidModel, "a convolution needs a spatial axis, the rank is {r}");
        }
        let Some(dx) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let n = dx.len() - 2;
        let kernel: Vec<Dim> = match (&w.dims, &self.window.kernel) {
            (Some(dw), _) => {
                ensure!(dw.len() == n + 2, InvalidModel, "weights {w} for an input {x}");
                if let Some(k) = &self.window.kernel {
                    ensure!(k.len() == n, InvalidModel, "kernel_shape {k:?} for an input {x}");
                    for (a, b) in k.iter().zip(&dw[2..]) {
                        expect_dim("kernel_shape and weights differ", &Dim::Known(*a), b)?;
                    }
                }
                let c = dw[1].clone() * Dim::of(self.groups);
                expect_dim("input channels and weights differ", &dx[1], &c)?;
                if let Some(m) = dw[0].known() {
                    ensure!(m % self.groups as i64 == 0, InvalidModel, "{} groups of {m} channels", self.groups);
                }
                dw[2..].to_vec()
            }
            (None, Some(k)) => k.iter().map(|&k| Dim::Known(k)).collect(),
            (None, None) => vec![Dim::Unknown; n],
        };
        let channels = w.dims.as_ref().map_or(Dim::Unknown, |d| d[0].clone());
        if let Some(b) = cx.opt_tensor(2)? {
            ensure!(b.dtype == x.dtype, InvalidModel, "the bias is {}, the input {}", b.dtype, x.dtype);
            if let Some(d) = &b.dims {
                ensure!(d.len() == 1, InvalidModel, "a bias of rank {}", d.len());
                expect_dim("bias and weights differ", &d[0], &channels)?;
            }
        }
        let mut out = vec![dx[0].clone(), channels];
        out.extend(self.window.output_dims(&dx[2..], &kernel)?);
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Conv>(bind);
    b.layouts::<Conv>(layouts);
    b.step::<ConvTranspose>(transpose::bind);
}

/// The kernels that can do a convolution.
enum Kernel {
    Dense(DenseConv),
    Blocked(BlockedConv),
    Depthwise(DepthwiseConv),
}

macro_rules! each {
    ($self:expr, $k:ident => $e:expr) => {
        match $self {
            Kernel::Dense($k) => $e,
            Kernel::Blocked($k) => $e,
            Kernel::Depthwise($k) => $e,
        }
    };
}

/// Where a kernel finds a constant operand, if not among the inputs.
struct ConvStep {
    kernel: Kernel,
    weights: Option<Arc<Packed>>,
    bias: Option<Arc<Buffer>>,
}

impl Step for ConvStep {
    fn phases(&self) -> usize {
        each!(&self.kernel, k => k.phases())
    }
    fn tasks(&self, phase: usize) -> usize {
        each!(&self.kernel, k => k.tasks(phase))
    }
    fn scratch_bytes(&self) -> usize {
        each!(&self.kernel, k => k.scratch_bytes())
    }
    fn workspace_bytes(&self) -> usize {
        each!(&self.kernel, k => k.workspace_bytes())
    }
    fn reads(&self, input: usize) -> bool {
        !(input == 1 && self.weights.is_some() || input == 2 && self.bias.is_some())
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let ptrs = ConvPtrs {
            x: args.input(0),
            w: self.weights.as_ref().map_or_else(|| args.input(1), |w| w.ptr().cast()),
            y: args.output(0),
            bias: self.bias.as_ref().map_or_else(|| args.input(2), |b| b.ptr().cast_const().cast()),
            residual: args.input(3),
        };
        // SAFETY: the executor's contract (Step::run); the spec was made from these operands' shapes.
        unsafe { each!(&self.kernel, k => k.run(phase, task, &ptrs, args.workspace(), scratch)) };
        Ok(())
    }
    fn kernel(&self) -> &str {
        each!(&self.kernel, k => k.name())
    }
}

/// The sizes of a convolution of `x` with weights `w` into `y`, with nothing fused.
pub(in crate::ops) fn sizes_of(window: &Window, groups: usize, [x, w, y]: [&Operand; 3]) -> Result<ConvSpec> {
    let g = window.geometry(&x.shape[2..], &w.shape[2..], &y.shape[2..])?;
    Ok(ConvSpec {
        n: x.shape[0],
        c_in: x.shape[1],
        c_out: y.shape[1],
        groups,
        input: g.input,
        output: g.output,
        kernel: g.kernel,
        stride: g.stride,
        dilation: g.dilation,
        pad: g.pad,
        bias: false,
        residual: false,
        residual_last: false,
        activation: Activation::None,
    })
}

fn spec_of(op: &Conv, node: &NodeView<'_>) -> Result<ConvSpec> {
    let sizes = sizes_of(&op.window, op.groups, [node.input(0)?, node.input(1)?, node.output(0)?])?;
    let bias = node.opt_input(2).is_some();
    let (residual, residual_last) = (op.residual, op.residual_last);
    Ok(ConvSpec { bias, residual, residual_last, activation: op.activation, ..sizes })
}

/// The level whose vectors hold `c` floats; which instructions it has does not matter to what kernels support.
fn level_of(c: usize) -> Isa {
    Isa::detect().levels().find(|i| i.f32_lanes() == c).unwrap_or(Isa::SCALAR)
}

/// The input's layout for a blocked result, or none where the dense kernel is the better one.
fn blocked_input(s: &ConvSpec, node: &NodeView<'_>, c: usize) -> Option<Layout> {
    let isa = level_of(c);
    let x = node.input(0).ok()?;
    let wide = |d: DType| matches!(d, DType::F32 | DType::F16 | DType::BF16);
    let whole_bias = node.opt_input(2).is_none_or(|b| b.constant.is_some()) || s.c_out.is_multiple_of(c);
    if !wide(x.dtype) || node.constant(1).is_none() || !whole_bias || s.n == 0 || s.c_in == 0 || s.c_out == 0 {
        return None;
    }
    if DepthwiseConv::supports(s) {
        // One channel would leave all lanes but one without work.
        return (s.c_in * 2 >= c).then_some(Layout::Blocked(c));
    }
    // Lanes that only carry padding must not be most of the work.
    let waste = |n: usize| n.next_multiple_of(c) as f64 / n as f64;
    if x.layout == Layout::Dense && BlockedConv::supports(isa, s, Input::Dense) && waste(s.c_out) <= 2.0 {
        return Some(Layout::Dense);
    }
    let fits = BlockedConv::supports(isa, s, Input::Blocked);
    (fits && waste(s.c_out) * waste(s.c_in) <= 2.0).then_some(Layout::Blocked(c))
}

fn layouts(op: &Conv, node: &NodeView<'_>, c: usize) -> NodeLayouts {
    let Some(input) = spec_of(op, node).ok().and_then(|s| blocked_input(&s, node, c)) else {
        return NodeLayouts::dense();
    };
    let blocked = Layout::Blocked(c);
    NodeLayouts { inputs: smallvec![input, Layout::Dense, Layout::Dense, blocked], outputs: smallvec![blocked] }
}

fn bind(op: &Conv, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let spec = spec_of(op, cx)?;
    if cx.input(0)?.dtype == DType::F64 {
        return plain::bind(spec);
    }
    let layout = (cx.input(0)?.layout, cx.output(0)?.layout);
    let kernel = match layout {
        (Layout::Dense, Layout::Dense) => Kernel::Dense(DenseConv::new(cx.isa, spec)?),
        (Layout::Dense, _) => Kernel::Blocked(BlockedConv::new(cx.isa, spec, Input::Dense)?),
        _ if DepthwiseConv::supports(&spec) => Kernel::Depthwise(DepthwiseConv::new(cx.isa, spec)?),
        _ => Kernel::Blocked(BlockedConv::new(cx.isa, spec, Input::Blocked)?),
    };
    let (mut weights, mut bias) = (None, None);
    if let Some(w) = cx.constant(1) {
        let (format, bytes) = match &kernel {
            Kernel::Dense(_) => (String::new(), 0),
            Kernel::Blocked(k) => (k.packed_format(), k.packed_bytes()),
            Kernel::Depthwise(k) => (k.packed_format(), k.packed_bytes()),
        };
        if bytes > 0 {
            weights = Some(cx.cache.packed(w, &format, bytes, |to| {
                // SAFETY: the constant has the shape the spec was made from, the memory the size that was asked for.
                unsafe {
                    match &kernel {
                        Kernel::Dense(_) => {}
                        Kernel::Blocked(k) => k.pack(w.data_ptr().cast(), to.cast()),
                        Kernel::Depthwise(k) => k.pack(w.data_ptr().cast(), to.cast()),
                    }
                }
                Ok(())
            })?);
        }
    }
    let bias_len = match &kernel {
        Kernel::Dense(_) => 0,
        Kernel::Blocked(k) => k.bias_len(),
        Kernel::Depthwise(k) => k.bias_len(),
    };
    if let Some(t) = cx.constant(2).filter(|t| t.len() < bias_len) {
        let b = Buffer::zeroed(bias_len * 4)?;
        // SAFETY: the buffer holds more values than the bias, both f32.
        unsafe { std::ptr::copy_nonoverlapping(t.data_ptr(), b.ptr(), t.byte_len()) };
        bias = Some(Arc::new(b));
    }
    Ok(Box::new(ConvStep { kernel, weights, bias }))
}

fn cases() -> Vec<Case> {
    let x = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), -1.0, 1.0);
    // Weights are constants, as in models, so that they are packed.
    let w = |shape: &[usize]| {
        crate::ops::case::random(DType::F32, shape, -1.0, 1.0, 7).map_or(CaseInput::Absent, CaseInput::Constant)
    };
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let conv = |name, inputs: Vec<CaseInput>| Case::new("Conv", 11, name, inputs);
    vec![
        conv("first_layer", vec![x(&[1, 3, 15, 17]), w(&[32, 3, 3, 3]), w(&[32])]).attr("pads", ints(&[1; 4])),
        conv("strided", vec![x(&[2, 3, 17, 16]), w(&[20, 3, 7, 7])]).attr("strides", ints(&[2; 2])),
        conv("wide", vec![x(&[1, 32, 9, 11]), w(&[48, 32, 3, 3]), w(&[48])]).attr("pads", ints(&[1; 4])),
        conv("odd_channels", vec![x(&[2, 19, 8, 8]), w(&[21, 19, 3, 3]), w(&[21])]).attr("dilations", ints(&[2; 2])),
        conv("pointwise", vec![x(&[2, 24, 5, 5]), w(&[40, 24, 1, 1]), w(&[40])]),
        conv("one_place", vec![x(&[1, 32, 1, 1]), w(&[16, 32, 1, 1]), w(&[16])]),
        conv("depthwise", vec![x(&[1, 24, 9, 9]), w(&[24, 1, 3, 3]), w(&[24])])
            .attr("group", Attr::Int(24))
            .attr("pads", ints(&[1; 4])),
        conv("groups", vec![x(&[1, 32, 6, 6]), w(&[32, 16, 3, 3])]).attr("group", Attr::Int(2)),
        conv("odd_groups", vec![x(&[1, 6, 6, 6]), w(&[9, 2, 2, 3])]).attr("group", Attr::Int(3)),
        conv("line", vec![x(&[1, 16, 50]), w(&[32, 16, 5]), w(&[32])]).attr("strides", ints(&[2])),
        conv("volume", vec![x(&[1, 4, 5, 6, 7]), w(&[8, 4, 2, 3, 3]), w(&[8])]),
        conv("same_lower", vec![x(&[1, 2, 7, 8]), w(&[3, 2, 4, 4])])
            .attr("auto_pad", Attr::String("SAME_LOWER".into())),
        conv("computed_weights", vec![x(&[1, 16, 6, 6]), x(&[16, 16, 3, 3]), x(&[16])]),
        conv("empty_batch", vec![x(&[0, 16, 6, 6]), w(&[16, 16, 3, 3])]),
        conv(
            "f64",
            vec![
                CaseInput::Random(DType::F64, vec![1, 4, 5, 5], -1.0, 1.0),
                CaseInput::Random(DType::F64, vec![6, 2, 3, 3], -1.0, 1.0),
            ],
        )
        .attr("group", Attr::Int(2)),
        Case {
            // One unit of f16 in the last place, for what rounds to the other side.
            rtol: 1e-3,
            ..conv(
                "f16",
                vec![
                    CaseInput::Random(DType::F16, vec![1, 16, 5, 5], -1.0, 1.0),
                    CaseInput::Random(DType::F16, vec![16, 16, 3, 3], -1.0, 1.0),
                ],
            )
        },
    ]
    .into_iter()
    .chain(transpose::cases())
    .collect()
}
