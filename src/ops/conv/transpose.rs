//! Transposed convolution: a matrix product makes columns, which are added into the image.

use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::backend::{Packed, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx, Spelling};
use crate::kernels::col2im::Col2Im;
use crate::kernels::elem::Number;
use crate::kernels::gemm::epilogue::activate;
use crate::kernels::gemm::{Activation, Batch, Gemm, GemmPtrs, GemmSpec, Strides};
use crate::kernels::gemm_plain::Product;
use crate::kernels::isa::Isa;
use crate::ops::case::{Case, CaseInput};
use crate::ops::widen::widened;
use crate::ops::window::{Pads, Window};
use crate::tensor::DType;
use crate::{bail, ensure, err};
use std::sync::Arc;

/// `activation(conv_transpose(X, W) + B)`, the transpose (gradient) of a convolution. Inputs X `[N, C, spatial...]`, W `[C, M / groups, kernel...]`,
/// optionally B `[M]`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    /// How the kernel slides over the output.
    pub window: Window,
    /// Groups of channels.
    pub groups: usize,
    /// Added to the output sizes at the end; empty for none.
    pub output_padding: Vec<i64>,
    /// The output sizes, if given; the pads follow from them.
    pub output_shape: Option<Vec<i64>>,
    /// Applied last; f32 and narrower.
    pub activation: Activation,
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 3)?;
    let output_padding = cx.ints_opt("output_padding")?.unwrap_or_default();
    let output_shape = cx.ints_opt("output_shape")?.filter(|s| !s.is_empty());
    for list in [&output_padding, output_shape.as_ref().unwrap_or(&Vec::new())] {
        let limit = 0..=i64::from(i32::MAX);
        ensure!(list.iter().all(|x| limit.contains(x)), InvalidModel, "output sizes are out of range: {list:?}");
    }
    Ok(Arc::new(ConvTranspose {
        window: Window::parse(cx)?,
        groups: super::parse_groups(cx)?,
        output_padding,
        output_shape,
        activation: Activation::None,
    }))
}

impl ConvTranspose {
    fn output_pad(&self, d: usize) -> i64 {
        self.output_padding.get(d).copied().unwrap_or(0)
    }
    /// The explicit output size along spatial axis `d` of `n`.
    fn fixed(&self, d: usize, n: usize) -> Option<i64> {
        let s = self.output_shape.as_ref()?;
        // Some models give batch and channels too.
        s.get((s.len() + d).checked_sub(n)?).copied()
    }
    /// Output sizes before padding is taken off.
    fn full(&self, d: usize, input: &Dim, kernel: &Dim) -> Dim {
        let one = Dim::Known(1);
        let reach = (kernel.clone() - one.clone()) * Dim::Known(self.window.dilation(d)) + one.clone();
        (input.clone() - one) * Dim::Known(self.window.stride(d)) + reach + Dim::Known(self.output_pad(d))
    }
    fn output_dims(&self, input: &[Dim], kernel: &[Dim]) -> Result<Vec<Dim>> {
        let n = input.len();
        self.window.output_dims(&vec![Dim::Unknown; n], kernel)?;
        ensure!(
            self.output_padding.len() <= n && self.output_shape.as_ref().is_none_or(|s| s.len() >= n),
            InvalidModel,
            "output_padding or output_shape don't belong to {n} spatial axes"
        );
        (0..n)
            .map(|d| {
                let size = match (self.fixed(d, n), &self.window.pads) {
                    (Some(x), _) => Dim::Known(x),
                    (None, Pads::Explicit(_)) => {
                        let (p0, p1) = self.window.explicit(d, n);
                        self.full(d, &input[d], &kernel[d]) - Dim::Known(p0 + p1)
                    }
                    (None, _) => input[d].clone() * Dim::Known(self.window.stride(d)),
                };
                ensure!(size.known().is_none_or(|s| s >= 0), InvalidModel, "an output of size {size}");
                Ok(size)
            })
            .collect()
    }
    /// The sizes as the kernel wants them.
    pub(super) fn columns(&self, input: &[usize], kernel: &[usize], output: &[usize]) -> Result<Col2Im> {
        let n = input.len();
        ensure!(n <= 3, Unsupported, "a transposed convolution over {n} spatial axes");
        let one = [1; 3];
        let mut c = Col2Im { places: one, image: one, kernel: one, stride: one, dilation: one, pad: [0; 3] };
        for d in 0..n {
            let to = 3 - n + d;
            c.places[to] = input[d];
            c.image[to] = output[d];
            c.kernel[to] = kernel[d];
            c.stride[to] = self.window.stride(d) as usize;
            c.dilation[to] = self.window.dilation(d) as usize;
            let derived = self.fixed(d, n).is_some() || !matches!(self.window.pads, Pads::Explicit(_));
            let pad = if derived {
                let full = self.full(d, &Dim::of(input[d]), &Dim::of(kernel[d])).known();
                let total = full.map_or(0, |f| f - output[d] as i64).max(0);
                if self.window.pads == Pads::SameUpper { total / 2 } else { total - total / 2 }
            } else {
                self.window.explicit(d, n).0
            };
            c.pad[to] = usize::try_from(pad).map_err(|_| err!(Unsupported, "negative pads"))?;
        }
        ensure!(c.fits(), InvalidModel, "a transposed convolution is out of range: {c:?}");
        Ok(c)
    }
}

impl Op for ConvTranspose {
    fn name(&self) -> &'static str {
        "ConvTranspose"
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        2 * cx.elements(0) * (cx.elements(1) / cx.size(1, 0).max(1))
    }
    fn to_onnx(&self, version: u32, inputs: usize) -> Option<Spelling> {
        let plain = self.activation == Activation::None && inputs <= 3;
        let s = Spelling::since(1, version, "ConvTranspose").filter(|_| plain)?;
        let s = self.window.spell(s).int("group", self.groups as i64);
        let lists = [("output_padding", Some(&self.output_padding)), ("output_shape", self.output_shape.as_ref())];
        let given = lists.into_iter().filter_map(|(name, list)| Some((name, list.filter(|l| !l.is_empty())?)));
        Some(given.fold(s, |s, (name, list)| s.ints(name, list.iter().copied())))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        cx.expect_same_dtype(0, 1)?;
        let (x, w) = (cx.tensor(0)?, cx.tensor(1)?);
        let Some(dx) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        ensure!(dx.len() >= 3, InvalidModel, "a convolution needs a spatial axis, the rank is {}", dx.len());
        let n = dx.len() - 2;
        let (channels, kernel) = match (&w.dims, &self.window.kernel) {
            (Some(dw), k) => {
                ensure!(dw.len() == n + 2, InvalidModel, "weights {w} for an input {x}");
                super::expect_dim("input channels and weights differ", &dx[1], &dw[0])?;
                if let Some(c) = dw[0].known() {
                    ensure!(c % self.groups as i64 == 0, InvalidModel, "{} groups of {c} channels", self.groups);
                }
                for (a, b) in k.iter().flatten().zip(&dw[2..]) {
                    super::expect_dim("kernel_shape and weights differ", &Dim::Known(*a), b)?;
                }
                (dw[1].clone() * Dim::of(self.groups), dw[2..].to_vec())
            }
            (None, Some(k)) => (Dim::Unknown, k.iter().map(|&k| Dim::Known(k)).collect()),
            (None, None) => (Dim::Unknown, vec![Dim::Unknown; n]),
        };
        if let Some(b) = cx.opt_tensor(2)? {
            ensure!(b.dtype == x.dtype, InvalidModel, "the bias is {}, the input {}", b.dtype, x.dtype);
            if let Some(d) = &b.dims {
                ensure!(d.len() == 1, InvalidModel, "a bias of rank {}", d.len());
                super::expect_dim("bias and weights differ", &d[0], &channels)?;
            }
        }
        let mut out = vec![dx[0].clone(), channels];
        out.extend(self.output_dims(&dx[2..], &kernel)?);
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

/// Two phases an image: the columns of all groups, then the images' planes.
struct TransposeStep<T> {
    columns: Col2Im,
    product: Columns,
    /// Columns are `[places, taps]` of each channel, and the product's right operand is the weights: places are few.
    by_places: bool,
    images: usize,
    groups: usize,
    c_in: usize,
    c_out: usize,
    taps: usize,
    /// Bytes of one image's columns.
    bytes: usize,
    weights: Option<Arc<Packed>>,
    bias: bool,
    isa: Isa,
    activation: Activation,
    planes: (usize, usize),
    _type: std::marker::PhantomData<T>,
}

enum Columns {
    Gemm(Gemm),
    Plain(Product, (usize, usize)),
}

pub(super) fn bind(op: &ConvTranspose, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => bind_as::<f32>(op, cx),
        DType::F64 if op.activation == Activation::None => bind_as::<f64>(op, cx),
        d => bail!(Unsupported, "a transposed convolution of {d}"),
    }
}

fn bind_as<T: Number>(op: &ConvTranspose, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, w, y) = (cx.input(0)?, cx.input(1)?, cx.output(0)?);
    let columns = op.columns(&x.shape[2..], &w.shape[2..], &y.shape[2..])?;
    let (c_in, c_out, groups) = (x.shape[1], y.shape[1], op.groups);
    ensure!(c_in.is_multiple_of(groups), InvalidModel, "{groups} groups of {c_in} channels");
    let taps = product(&columns.kernel)?;
    let places = product(&columns.places)?;
    let (m, k) = (product(&[c_out / groups, taps])?, c_in / groups);
    let bytes = product(&[c_out, taps, places, size_of::<T>()])?;
    let mut weights = None;
    // Fewer places than a product works on at a time would leave lanes without work.
    let by_places = x.dtype == DType::F32 && places <= 2 * cx.isa.f32_lanes();
    let batch = Batch { dims: [1, 1, 1, groups], c: [0, 0, 0, m * places], ..Batch::default() };
    let product = if by_places {
        let batch = Batch { a: [0, 0, 0, k * places], b: [0, 0, 0, m * k], ..batch };
        let (a, b_constant) = (Strides::transposed(places), cx.constant(1).is_some());
        let gemm = Gemm::new(cx.isa, GemmSpec { a, batch, b_constant, ..GemmSpec::dense(places, m, k) })?;
        if let Some(t) = cx.constant(1) {
            weights = Some(cx.cache.packed(t, &gemm.packed_format(), gemm.packed_bytes(), |to| {
                // SAFETY: the constant has the sizes that the product was made from, the memory the size that was asked for.
                unsafe { gemm.pack(t.data_ptr().cast(), to.cast()) };
                Ok(())
            })?);
        }
        Columns::Gemm(gemm)
    } else if x.dtype == DType::F32 {
        // The left operand is the transposed weights; a constant is turned once.
        let a = if cx.constant(1).is_some() { Strides::rows_of(k) } else { Strides::transposed(m) };
        let batch = Batch { a: [0, 0, 0, m * k], b: [0, 0, 0, k * places], ..batch };
        let gemm = Gemm::new(cx.isa, GemmSpec { a, batch, ..GemmSpec::dense(m, places, k) })?;
        if let Some(t) = cx.constant(1) {
            weights = Some(cx.cache.packed(t, &format!("conv_transpose g{groups} m{m} k{k}"), t.byte_len(), |to| {
                let (from, to) = (t.as_slice::<f32>()?, to.cast::<f32>());
                for (i, &v) in from.iter().enumerate() {
                    let (g, r, c) = (i / (m * k), i / m % k, i % m);
                    // SAFETY: a permutation of the weights' indices.
                    unsafe { *to.add((g * m + c) * k + r) = v };
                }
                Ok(())
            })?);
        }
        Columns::Gemm(gemm)
    } else {
        let p = Product { n: places, k, a: Strides::transposed(m), b: Strides::rows_of(places) };
        Columns::Plain(p, split(m, (32 * 1024 / (places * k).max(1)).max(1)))
    };
    let plane = taps.saturating_mul(places).max(1);
    Ok(Box::new(TransposeStep::<T> {
        columns,
        product,
        by_places,
        images: x.shape[0],
        groups,
        c_in,
        c_out,
        taps,
        bytes,
        weights,
        bias: cx.opt_input(2).is_some(),
        isa: cx.isa,
        activation: op.activation,
        planes: split(c_out, (32 * 1024 / plane).max(1)),
        _type: std::marker::PhantomData,
    }))
}

impl<T: Number> TransposeStep<T> {
    /// Phases of an image: those of the product, and that of the planes.
    fn per_image(&self) -> usize {
        match &self.product {
            Columns::Gemm(g) => g.phases() + 1,
            Columns::Plain(..) => 2,
        }
    }
    fn places(&self) -> usize {
        self.columns.places.iter().product()
    }
}

impl<T: Number> Step for TransposeStep<T> {
    fn phases(&self) -> usize {
        (self.images * self.per_image()).max(1)
    }
    fn tasks(&self, phase: usize) -> usize {
        let p = phase % self.per_image();
        match &self.product {
            _ if self.images == 0 => 0,
            _ if p + 1 == self.per_image() => self.planes.0,
            Columns::Gemm(g) => g.tasks(p),
            Columns::Plain(_, split) => self.groups * split.0,
        }
    }
    fn scratch_bytes(&self) -> usize {
        match &self.product {
            Columns::Gemm(g) => g.scratch_bytes(),
            Columns::Plain(..) => 0,
        }
    }
    fn workspace_bytes(&self) -> usize {
        let gemm = match &self.product {
            Columns::Gemm(g) => g.workspace_bytes(),
            Columns::Plain(..) => 0,
        };
        round_up(self.bytes, ALIGN).saturating_add(gemm)
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let (image, p) = (phase / self.per_image(), phase % self.per_image());
        let (places, taps) = (self.places(), self.taps);
        let columns = args.workspace::<T>();
        let x = args.input::<T>(0).wrapping_add(image * self.c_in * places);
        let w = self.weights.as_ref().map_or(args.input::<T>(1), |b| b.ptr().cast());
        if p + 1 == self.per_image() {
            let size = self.columns.image.iter().product::<usize>();
            for c in task * self.planes.1..self.c_out.min((task + 1) * self.planes.1) {
                // SAFETY: plane c of the image, of the bias and of the columns, which earlier phases made.
                unsafe {
                    let y = args.output::<T>(0).add((image * self.c_out + c) * size);
                    let start = if self.bias { *args.input::<T>(2).add(c) } else { T::ZERO };
                    for i in 0..size {
                        *y.add(i) = start;
                    }
                    if self.by_places {
                        let m = self.c_out / self.groups * taps;
                        let from = columns.add(c * taps / m * m * places + c * taps % m);
                        self.columns.add_places(from.cast_const(), m, y);
                    } else {
                        self.columns.add(columns.add(c * taps * places).cast_const(), y);
                    }
                    if self.activation != Activation::None {
                        // Only f32 is bound with one.
                        activate(self.isa, self.activation, y.cast(), 1, size, size);
                    }
                }
            }
            return Ok(());
        }
        match &self.product {
            Columns::Gemm(g) => {
                let (a, b): (*const f32, *const f32) = (w.cast(), x.cast());
                let (a, b) = if self.by_places { (b, a) } else { (a, b) };
                let ptrs = GemmPtrs { a, b, c: columns.cast(), bias: std::ptr::null(), residual: std::ptr::null() };
                let rest = args.workspace::<u8>().wrapping_add(round_up(self.bytes, ALIGN));
                // SAFETY: the product was made from these operands' shapes; the workspace holds columns and what it needs.
                unsafe { g.run(p, task, &ptrs, rest, scratch) };
            }
            Columns::Plain(product, (tasks, per)) => {
                let (group, t) = (task / tasks, task % tasks);
                let m = self.c_out / self.groups * taps;
                let row = t * per;
                // SAFETY: rows of the group's weights and columns.
                unsafe {
                    let a = w.add(group * m * product.k + row * product.a.row);
                    let b = x.add(group * product.k * places);
                    product.run((*per).min(m - row.min(m)), a, b, columns.add((group * m + row) * places));
                }
            }
        }
        Ok(())
    }
    fn kernel(&self) -> &str {
        "conv_transpose"
    }
}

pub(super) fn cases() -> Vec<Case> {
    let x = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), -1.0, 1.0);
    let w = |shape: &[usize]| {
        crate::ops::case::random(DType::F32, shape, -1.0, 1.0, 7).map_or(CaseInput::Absent, CaseInput::Constant)
    };
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let case = |name, inputs: Vec<CaseInput>| Case::new("ConvTranspose", 11, name, inputs);
    vec![
        case("plain", vec![x(&[2, 3, 5, 6]), w(&[3, 4, 3, 3]), w(&[4])]),
        case("strided", vec![x(&[1, 8, 5, 6]), w(&[8, 6, 4, 4]), w(&[6])])
            .attr("strides", ints(&[2, 2]))
            .attr("pads", ints(&[1, 1, 1, 1]))
            .attr("output_padding", ints(&[1, 0])),
        case("many_places", vec![x(&[2, 6, 9, 8]), w(&[6, 4, 4, 4]), w(&[8])])
            .attr("group", Attr::Int(2))
            .attr("strides", ints(&[2, 2]))
            .attr("pads", ints(&[1, 1, 1, 1])),
        case("few_places", vec![x(&[2, 6, 3, 2]), w(&[6, 4, 4, 4]), w(&[8])])
            .attr("group", Attr::Int(2))
            .attr("strides", ints(&[2, 2]))
            .attr("pads", ints(&[1, 1, 1, 1])),
        case("groups", vec![x(&[2, 6, 9]), x(&[6, 2, 5])])
            .attr("group", Attr::Int(3))
            .attr("strides", ints(&[3]))
            .attr("dilations", ints(&[2])),
        case("same", vec![x(&[1, 2, 4, 4]), w(&[2, 2, 3, 3])])
            .attr("auto_pad", Attr::String("SAME_UPPER".into()))
            .attr("strides", ints(&[2, 2])),
        case("output_shape", vec![x(&[1, 1, 3, 3]), w(&[1, 2, 3, 3])])
            .attr("strides", ints(&[3, 2]))
            .attr("output_shape", ints(&[10, 8])),
        case("empty_batch", vec![x(&[0, 2, 4, 4]), w(&[2, 2, 3, 3])]),
        case(
            "f64",
            vec![
                CaseInput::Random(DType::F64, vec![1, 2, 3, 4, 5], -1.0, 1.0),
                CaseInput::Random(DType::F64, vec![2, 3, 2, 2, 2], -1.0, 1.0),
            ],
        ),
    ]
}
