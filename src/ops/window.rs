//! The sliding window that convolutions and pools share: attributes, output sizes, paddings.

use crate::error::Result;
use crate::ir::{Dim, ParseCtx, Spelling};
use crate::{bail, ensure, err};

/// Paddings.
#[derive(Clone, Debug, PartialEq)]
pub enum Pads {
    /// All begins, then all ends; empty for none.
    Explicit(Vec<i64>),
    /// Output size is input size over stride, rounded up; the odd one goes to the end.
    SameUpper,
    /// The same, the odd one at the begin.
    SameLower,
}

/// A window that slides over the spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Sizes; none where the weights tell them.
    pub kernel: Option<Vec<i64>>,
    /// Steps; empty for ones.
    pub strides: Vec<i64>,
    /// Distances between taps; empty for ones.
    pub dilations: Vec<i64>,
    /// Paddings.
    pub pads: Pads,
    /// Output sizes are rounded up.
    pub ceil: bool,
}

/// A window over an input of known size, as three spatial axes: missing ones are in front, of size 1.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Geometry {
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    /// Before the first element.
    pub pad: [usize; 3],
    /// After the last element.
    pub pad_end: [usize; 3],
}

impl Geometry {
    /// Input elements a plane.
    pub fn in_size(&self) -> usize {
        self.input.iter().product()
    }
    /// Output elements a plane.
    pub fn out_size(&self) -> usize {
        self.output.iter().product()
    }
}

impl Window {
    /// A kernel of these sizes, step by step, without padding.
    pub fn over(sizes: &[usize]) -> Window {
        let kernel = Some(sizes.iter().map(|&s| s as i64).collect());
        Window { kernel, strides: Vec::new(), dilations: Vec::new(), pads: Pads::Explicit(Vec::new()), ceil: false }
    }
    /// Reads the attributes.
    pub fn parse(cx: &ParseCtx<'_>) -> Result<Window> {
        let ints = |name| Ok::<_, crate::Error>(cx.ints_opt(name)?.unwrap_or_default());
        let pads = match cx.string_or("auto_pad", "NOTSET")?.as_str() {
            "NOTSET" | "" => Pads::Explicit(ints("pads")?),
            "SAME_UPPER" => Pads::SameUpper,
            "SAME_LOWER" => Pads::SameLower,
            "VALID" => Pads::Explicit(Vec::new()),
            x => bail!(InvalidModel, "auto_pad is '{x}'"),
        };
        let w = Window {
            kernel: cx.ints_opt("kernel_shape")?,
            strides: ints("strides")?,
            dilations: ints("dilations")?,
            pads,
            ceil: cx.flag("ceil_mode", false)?,
        };
        for list in [&w.strides, &w.dilations, w.kernel.as_ref().unwrap_or(&Vec::new())] {
            ensure!(
                list.iter().all(|&x| (1..=i64::from(i32::MAX)).contains(&x)),
                InvalidModel,
                "kernel_shape, strides and dilations must be positive: {w:?}"
            );
        }
        if let Pads::Explicit(p) = &w.pads {
            let limit = i64::from(i32::MAX);
            ensure!(p.iter().all(|&x| (-limit..=limit).contains(&x)), InvalidModel, "pads are out of range: {p:?}");
        }
        Ok(w)
    }
    /// The attributes that tell it.
    pub fn spell(&self, s: Spelling) -> Spelling {
        let lists = [
            ("kernel_shape", self.kernel.as_deref()),
            ("strides", Some(&self.strides[..])),
            ("dilations", Some(&self.dilations[..])),
        ];
        let given = lists.into_iter().filter_map(|(name, list)| Some((name, list.filter(|l| !l.is_empty())?)));
        let s = given.fold(s, |s, (name, list)| s.ints(name, list.iter().copied()));
        let s = match &self.pads {
            Pads::Explicit(p) if p.is_empty() => s,
            Pads::Explicit(p) => s.ints("pads", p.iter().copied()),
            Pads::SameUpper => s.string("auto_pad", "SAME_UPPER"),
            Pads::SameLower => s.string("auto_pad", "SAME_LOWER"),
        };
        if self.ceil { s.int("ceil_mode", 1) } else { s }
    }
    fn check_rank(&self, n: usize) -> Result<()> {
        let fits = |len: usize| len == 0 || len == n;
        let pads = if let Pads::Explicit(p) = &self.pads { p.len() } else { 0 };
        let kernel = self.kernel.as_ref().is_none_or(|k| k.len() == n);
        ensure!(
            fits(self.strides.len()) && fits(self.dilations.len()) && (pads == 0 || pads == 2 * n) && kernel,
            InvalidModel,
            "attributes {self:?} don't belong to {n} spatial axes"
        );
        Ok(())
    }
    /// The stride along an axis.
    pub fn stride(&self, d: usize) -> i64 {
        self.strides.get(d).copied().unwrap_or(1)
    }
    /// The dilation along an axis.
    pub fn dilation(&self, d: usize) -> i64 {
        self.dilations.get(d).copied().unwrap_or(1)
    }
    /// Explicit paddings along an axis.
    pub fn explicit(&self, d: usize, rank: usize) -> (i64, i64) {
        match &self.pads {
            Pads::Explicit(p) if !p.is_empty() => (p[d], p[rank + d]),
            _ => (0, 0),
        }
    }
    /// Output sizes, from input and kernel sizes.
    pub fn output_dims(&self, input: &[Dim], kernel: &[Dim]) -> Result<Vec<Dim>> {
        let n = input.len();
        ensure!(kernel.len() == n, InvalidModel, "a kernel of {} axes over {n} spatial axes", kernel.len());
        self.check_rank(n)?;
        let one = Dim::Known(1);
        let mut out = Vec::with_capacity(n);
        for d in 0..n {
            let stride = Dim::Known(self.stride(d));
            let size = match self.pads {
                Pads::SameUpper | Pads::SameLower => input[d].ceil_div(&stride),
                Pads::Explicit(_) => {
                    let (p0, p1) = self.explicit(d, n);
                    let reach = (kernel[d].clone() - one.clone()) * Dim::Known(self.dilation(d)) + one.clone();
                    let room = input[d].clone() + (Dim::Known(p0 + p1) - reach);
                    if self.ceil {
                        let up = room.ceil_div(&stride) + one.clone();
                        match (&up, &input[d]) {
                            // The last window must begin inside the input or the padding before it.
                            (Dim::Known(o), Dim::Known(i)) if (o - 1) * self.stride(d) >= i + p0 => Dim::Known(o - 1),
                            (Dim::Known(_), _) => up,
                            // Over a symbolic size the rule above is a bound.
                            _ => {
                                let last = (input[d].clone() + Dim::Known(p0 - 1)).floor_div(&stride) + one.clone();
                                up.min(&last)
                            }
                        }
                    } else {
                        room.floor_div(&stride) + one.clone()
                    }
                }
            };
            if let Some(s) = size.known() {
                ensure!(s >= 0, InvalidModel, "the window {self:?} is larger than the input {input:?}");
            }
            out.push(size);
        }
        Ok(out)
    }
    /// The window over an input of known size; `output` is what [`Window::output_dims`] gave.
    pub fn geometry(&self, input: &[usize], kernel: &[usize], output: &[usize]) -> Result<Geometry> {
        let n = input.len();
        self.check_rank(n)?;
        if n > 3 {
            bail!(Unsupported, "a window over {n} spatial axes");
        }
        ensure!(kernel.len() == n && output.len() == n, Internal, "a window's shapes differ in rank");
        let one = [1; 3];
        let mut g =
            Geometry { input: one, output: one, kernel: one, stride: one, dilation: one, pad: [0; 3], pad_end: [0; 3] };
        let size = |x: i64| usize::try_from(x).map_err(|_| err!(Unsupported, "negative pads: {self:?}"));
        for d in 0..n {
            let to = 3 - n + d;
            g.input[to] = input[d];
            g.output[to] = output[d];
            g.kernel[to] = kernel[d];
            g.stride[to] = size(self.stride(d))?;
            g.dilation[to] = size(self.dilation(d))?;
            let (p0, p1) = match self.pads {
                Pads::Explicit(_) => self.explicit(d, n),
                _ => {
                    let reach = (kernel[d] as i64 - 1)
                        .checked_mul(self.dilation(d))
                        .and_then(|r| r.checked_add((output[d] as i64 - 1).checked_mul(self.stride(d))? + 1))
                        .ok_or_else(|| err!(InvalidModel, "the window {self:?} is out of range"))?;
                    let total = (reach - input[d] as i64).max(0);
                    let less = total / 2;
                    if self.pads == Pads::SameUpper { (less, total - less) } else { (total - less, less) }
                }
            };
            g.pad[to] = size(p0)?;
            g.pad_end[to] = size(p1)?;
        }
        Ok(g)
    }
}
