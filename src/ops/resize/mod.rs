//! Resize and Upsample: definition and output sizes.

mod bind;
mod coordinates;
#[cfg(feature = "opencl")]
mod opencl;

pub use coordinates::{Coordinates, Method, NearestMode};

use super::Family;
use super::case::{Case, CaseInput};
use crate::backend::cpu::CpuBindings;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use half::{bf16, f16};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "resize",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
};

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Resize", versions: &[10, 11, 13, 18, 19], parse: parse_resize },
    OpDef { domain: "", name: "Upsample", versions: &[1, 7, 9, 10], parse: parse_upsample },
];

/// How output sizes keep the input's proportions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aspect {
    /// They don't.
    Stretch,
    /// One scale for all axes: the smallest.
    NotLarger,
    /// One scale for all axes: the largest.
    NotSmaller,
}

/// Resizes by interpolation. Inputs X, region of interest, scales, sizes; an empty list is like one not given.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// How a value is made from its neighbours.
    pub method: Method,
    /// Which input place an output place is.
    pub coordinates: Coordinates,
    /// Neighbours outside the input have no weight.
    pub exclude_outside: bool,
    /// The value of places outside the region's input.
    pub extrapolation: f32,
    /// Shrinking takes all input values into account.
    pub antialias: bool,
    /// The axes that roi, scales and sizes are about; none for all.
    pub axes: Option<Vec<i64>>,
    /// What sizes mean.
    pub aspect: Aspect,
}

fn parse_resize(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    if cx.version < 11 {
        cx.expect_inputs(2, 2)?;
        cx.inputs.insert(1, None);
        return Ok(Arc::new(upsample(&cx.string_or("mode", "nearest")?)?));
    }
    cx.expect_inputs(1, 4)?;
    let method = match cx.string_or("mode", "nearest")?.as_str() {
        "nearest" => Method::Nearest(match cx.string_or("nearest_mode", "round_prefer_floor")?.as_str() {
            "round_prefer_floor" => NearestMode::PreferFloor,
            "round_prefer_ceil" => NearestMode::PreferCeil,
            "floor" => NearestMode::Floor,
            "ceil" => NearestMode::Ceil,
            m => bail!(InvalidModel, "nearest_mode is '{m}'"),
        }),
        "linear" => Method::Linear,
        "cubic" => Method::Cubic { a: cx.float_or("cubic_coeff_a", -0.75)? },
        m => bail!(InvalidModel, "mode is '{m}'"),
    };
    let coordinates = match cx.string_or("coordinate_transformation_mode", "half_pixel")?.as_str() {
        "half_pixel" => Coordinates::HalfPixel,
        "half_pixel_symmetric" => Coordinates::HalfPixelSymmetric,
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        "tf_half_pixel_for_nn" => Coordinates::TfHalfPixel,
        "tf_crop_and_resize" => Coordinates::CropAndResize,
        m => bail!(InvalidModel, "coordinate_transformation_mode is '{m}'"),
    };
    let aspect = match cx.string_or("keep_aspect_ratio_policy", "stretch")?.as_str() {
        "stretch" => Aspect::Stretch,
        "not_larger" => Aspect::NotLarger,
        "not_smaller" => Aspect::NotSmaller,
        m => bail!(InvalidModel, "keep_aspect_ratio_policy is '{m}'"),
    };
    Ok(Arc::new(Resize {
        method,
        coordinates,
        exclude_outside: cx.flag("exclude_outside", false)?,
        extrapolation: cx.float_or("extrapolation_value", 0.0)?,
        antialias: cx.flag("antialias", false)?,
        axes: cx.ints_opt("axes")?,
        aspect,
    }))
}

/// Upsample, and Resize of version 10.
fn upsample(mode: &str) -> Result<Resize> {
    let method = match mode {
        "nearest" => Method::Nearest(NearestMode::Floor),
        "linear" | "bilinear" => Method::Linear,
        m => bail!(InvalidModel, "mode is '{m}'"),
    };
    Ok(Resize {
        method,
        coordinates: Coordinates::Asymmetric,
        exclude_outside: false,
        extrapolation: 0.0,
        antialias: false,
        axes: None,
        aspect: Aspect::Stretch,
    })
}

fn parse_upsample(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let scales = match cx.version {
        ..7 => Some(vec![1.0, 1.0, cx.float("height_scale")?, cx.float("width_scale")?]),
        7..9 => Some(cx.floats("scales")?),
        _ => None,
    };
    match scales {
        Some(s) => {
            cx.expect_inputs(1, 1)?;
            cx.set_constant_input(2, Tensor::from_slice(&[s.len()], &s)?);
        }
        None => {
            cx.expect_inputs(2, 2)?;
            cx.inputs.insert(1, None);
        }
    }
    Ok(Arc::new(upsample(&cx.string_or("mode", "nearest")?)?))
}

/// The numbers of a float tensor.
fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    Ok(match t.dtype() {
        DType::F32 => t.as_slice::<f32>()?.iter().map(|&x| f64::from(x)).collect(),
        DType::F64 => t.as_slice::<f64>()?.to_vec(),
        DType::F16 => t.as_slice::<f16>()?.iter().map(|x| x.to_f64()).collect(),
        DType::BF16 => t.as_slice::<bf16>()?.iter().map(|x| x.to_f64()).collect(),
        d => bail!(InvalidModel, "scales of type {d}"),
    })
}

impl Resize {
    /// The axes that lists of `n` entries are about.
    fn axes_of(&self, rank: usize, n: usize) -> Result<Vec<usize>> {
        let axes = match &self.axes {
            Some(a) => a.iter().map(|&a| resolve_axis(a, rank)).collect::<Result<Vec<_>>>()?,
            None => (0..rank).collect(),
        };
        ensure!(axes.len() == n, InvalidModel, "a list of {n} entries for {} axes", axes.len());
        Ok(axes)
    }
    /// Output size from a scale, as f32 arithmetic has it.
    fn scaled(size: i64, scale: f64) -> i64 {
        (size as f32 * scale as f32).floor() as i64
    }
    /// The scale that all axes share, from the sizes asked for.
    fn common_scale(&self, pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
        let ratios = pairs.map(|(from, to)| to / from);
        match self.aspect {
            Aspect::NotSmaller => ratios.fold(0.0, f64::max),
            _ => ratios.fold(f64::INFINITY, f64::min),
        }
    }
    /// The size under a common scale: rounded, halves up.
    fn rounded(size: f64, scale: f64) -> f64 {
        (size * scale + 0.5).floor()
    }
}

impl Op for Resize {
    fn name(&self) -> &'static str {
        "Resize"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let Some(dims) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let unknown = || Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; dims.len()])]);
        let given = |i: usize| -> Result<Option<&crate::ir::TensorFact>> {
            Ok(cx.opt_tensor(i)?.filter(|t| t.count().known() != Some(0)))
        };
        let mut out = dims.clone();
        for list in [given(2)?, given(3)?].into_iter().flatten() {
            ensure!(list.rank().is_none_or(|r| r <= 1), InvalidModel, "{list} is no list");
            if let Some(n) = list.count().size() {
                self.axes_of(dims.len(), n)?;
            }
        }
        if let Some(sizes) = given(3)? {
            let Some(want) = sizes.int_dims() else { return unknown() };
            let axes = self.axes_of(dims.len(), want.len())?;
            ensure!(want.iter().all(|d| d.known().is_none_or(|n| n >= 0)), InvalidModel, "sizes are {want:?}");
            if self.aspect == Aspect::Stretch {
                axes.iter().zip(want).for_each(|(&a, d)| out[a] = d);
            } else {
                let pairs: Option<Vec<(f64, f64)>> =
                    axes.iter().zip(&want).map(|(&a, d)| Some((dims[a].known()? as f64, d.known()? as f64))).collect();
                let scale = pairs.map(|p| self.common_scale(p.into_iter()));
                for &a in &axes {
                    out[a] = match (scale, dims[a].known()) {
                        (Some(s), Some(n)) if s.is_finite() => Dim::Known(Self::rounded(n as f64, s) as i64),
                        _ => Dim::Unknown,
                    };
                }
            }
        } else if let Some(scales) = given(2)? {
            let Some(t) = scales.tensor() else { return unknown() };
            let scales = numbers(t)?;
            ensure!(scales.iter().all(|&s| s > 0.0 && s.is_finite()), InvalidModel, "scales are {scales:?}");
            for (a, s) in self.axes_of(dims.len(), scales.len())?.into_iter().zip(scales) {
                out[a] = match dims[a].known() {
                    Some(n) => Dim::Known(Self::scaled(n, s)),
                    None if s == 1.0 => dims[a].clone(),
                    None if s.fract() == 0.0 && s < 1e6 => dims[a].clone() * Dim::Known(s as i64),
                    None => Dim::Unknown,
                };
            }
        } else if !cx.has(2) && !cx.has(3) {
            bail!(InvalidModel, "neither scales nor sizes are given");
        } else {
            bail!(InvalidModel, "scales and sizes are both empty");
        }
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Resize>(bind::bind);
    b.eager::<Resize>(bind::strings);
    b.layouts::<Resize>(bind::layouts);
}

fn cases() -> Vec<Case> {
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), 0.0, 100.0);
    let list = |v: &[f32]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let ints = |v: &[i64]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let text = |s: &str| Attr::String(s.into());
    let scales = |name, d, shape: &[usize], s: &[f32]| {
        Case::new("Resize", 19, name, vec![x(d, shape), CaseInput::Absent, list(s)])
    };
    let sizes = |name, d, shape: &[usize], s: &[i64]| {
        Case::new("Resize", 19, name, vec![x(d, shape), CaseInput::Absent, CaseInput::Absent, ints(s)])
    };
    let f = DType::F32;
    vec![
        scales("nearest_twice", f, &[1, 3, 5, 6], &[1.0, 1.0, 2.0, 2.0]).exact(),
        scales("nearest_i8", DType::I8, &[2, 3, 5], &[1.0, 0.6, 1.7]).attr("nearest_mode", text("ceil")).exact(),
        scales("linear_up", f, &[2, 3, 5, 6], &[1.0, 1.0, 2.5, 1.5]).attr("mode", text("linear")),
        scales("linear_down", f, &[1, 2, 9, 9], &[1.0, 1.0, 0.6, 0.4])
            .attr("mode", text("linear"))
            .attr("antialias", Attr::Int(1)),
        scales("linear_u8", DType::U8, &[1, 1, 4, 4], &[1.0, 1.0, 2.0, 2.0]).attr("mode", text("linear")),
        sizes("cubic", f, &[1, 2, 5, 5], &[1, 2, 8, 3])
            .attr("mode", text("cubic"))
            .attr("coordinate_transformation_mode", text("align_corners")),
        sizes("cubic_excluded", DType::F64, &[1, 1, 5, 5], &[1, 1, 9, 3])
            .attr("mode", text("cubic"))
            .attr("antialias", Attr::Int(1))
            .attr("exclude_outside", Attr::Int(1)),
        sizes("axes", f, &[1, 4, 6, 2], &[7, 9])
            .attr("axes", Attr::Ints(vec![1, -2]))
            .attr("keep_aspect_ratio_policy", text("not_larger")),
        Case::new(
            "Resize",
            19,
            "crop",
            vec![
                x(f, &[1, 1, 5, 5]),
                CaseInput::Given(
                    Tensor::from_slice(&[8], &[0f32, 0.0, 0.2, -0.5, 1.0, 1.0, 0.8, 1.5])
                        .unwrap_or_else(|_| unreachable!()),
                ),
                CaseInput::Absent,
                ints(&[1, 1, 4, 6]),
            ],
        )
        .attr("mode", text("linear"))
        .attr("coordinate_transformation_mode", text("tf_crop_and_resize"))
        .attr("extrapolation_value", Attr::Float(10.0)),
        Case::new("Upsample", 9, "linear", vec![x(f, &[1, 1, 2, 2]), list(&[1.0, 1.0, 2.0, 3.0])])
            .attr("mode", text("linear")),
    ]
}
