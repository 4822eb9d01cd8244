//! Which input places an output place is made of, and how much of each.

use crate::base::alloc::reserved;
use crate::base::checked::product;
use crate::ensure;
use crate::error::Result;
use crate::kernels::real::Real;
use crate::kernels::resample::Filter;

/// Rounding of a place to one of its neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NearestMode {
    /// The nearest, of two the left one.
    PreferFloor,
    /// The nearest, of two the right one.
    PreferCeil,
    /// The left one.
    Floor,
    /// The right one.
    Ceil,
}

/// How a value is made from its neighbours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// One of them.
    Nearest(NearestMode),
    /// Two along each axis.
    Linear,
    /// Four along each axis: Keys' kernel.
    Cubic {
        /// Its parameter.
        a: f32,
    },
}

/// ONNX's coordinate transformations.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    TfHalfPixel,
    CropAndResize,
}

/// One axis of a resize.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub input: usize,
    pub output: usize,
    pub scale: f64,
    /// Start and end of the region of interest.
    pub roi: (f64, f64),
}

impl Axis {
    /// The place of output `i` in the input.
    pub fn place(&self, how: Coordinates, i: usize) -> f64 {
        let (i, input) = (i as f64, self.input as f64);
        // What the scale makes of the input, before it is cut to a whole number.
        let length = self.scale * input;
        match how {
            Coordinates::HalfPixel => (i + 0.5) / self.scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = self.output as f64 / length;
                input / 2.0 * (1.0 - adjustment) + (i + 0.5) / self.scale - 0.5
            }
            Coordinates::PytorchHalfPixel if self.output > 1 => (i + 0.5) / self.scale - 0.5,
            Coordinates::PytorchHalfPixel => 0.0,
            Coordinates::AlignCorners if length == 1.0 => 0.0,
            Coordinates::AlignCorners => i * (input - 1.0) / (length - 1.0),
            Coordinates::Asymmetric => i / self.scale,
            Coordinates::TfHalfPixel => (i + 0.5) / self.scale,
            Coordinates::CropAndResize => {
                let (start, end) = self.roi;
                if self.output > 1 {
                    start * (input - 1.0) + i * (end - start) * (input - 1.0) / (length - 1.0)
                } else {
                    0.5 * (start + end) * (input - 1.0)
                }
            }
        }
    }
    /// Whether a place counts as outside.
    fn is_outside(&self, how: Coordinates, place: f64) -> bool {
        how == Coordinates::CropAndResize && !(0.0..=self.input as f64 - 1.0).contains(&place)
    }
    /// The nearest input place of each output place; none outside.
    pub fn nearest(&self, how: Coordinates, mode: NearestMode) -> Result<Vec<Option<usize>>> {
        let last = self.input as f64 - 1.0;
        let mut places = reserved(table(1, self.output)?)?;
        places.extend((0..self.output).map(|i| {
            let x = self.place(how, i);
            if self.is_outside(how, x) {
                return None;
            }
            let at = match mode {
                NearestMode::PreferFloor => (x - 0.5).ceil(),
                NearestMode::PreferCeil => (x + 0.5).floor(),
                NearestMode::Floor => x.floor(),
                NearestMode::Ceil => x.ceil(),
            };
            Some(at.clamp(0.0, last.max(0.0)) as usize)
        }));
        Ok(places)
    }
    /// The neighbours of each output place and their weights.
    pub fn filter<T: Real>(
        &self,
        how: Coordinates,
        kernel: &WeightKernel,
        exclude: bool,
        fill: f32,
    ) -> Result<Filter<T>> {
        // Antialiasing widens the kernel where the axis shrinks.
        let narrow = if kernel.antialias { self.scale.min(1.0) } else { 1.0 };
        let reach = if matches!(kernel.method, Method::Cubic { .. }) { 2.0 } else { 1.0 };
        let first = (-reach / narrow).floor() as i64 + 1;
        let taps = (2 - 2 * first) as usize;
        let last = self.input.saturating_sub(1) as i64;
        let entries = table(taps, self.output)?;
        let mut f = Filter {
            input: self.input,
            taps,
            index: reserved(entries)?,
            weights: reserved(entries)?,
            outside: Vec::new(),
            fill: T::of(f64::from(fill)),
        };
        let mut w = vec![0.0; taps];
        for i in 0..self.output {
            let x = self.place(how, i);
            if how == Coordinates::CropAndResize {
                f.outside.push(self.is_outside(how, x));
            }
            // The neighbour to the left; a whole number is its own right neighbour, as in the reference.
            let left = x.ceil().clamp(-1e9, 1e9) as i64 - 1;
            let ratio = x - left as f64;
            for (k, w) in w.iter_mut().enumerate() {
                let at = first + k as i64;
                *w = kernel.weight((at as f64 - ratio) * narrow);
                if exclude && !(0..=last).contains(&(left + at)) {
                    *w = 0.0;
                }
            }
            let sum: f64 = w.iter().sum();
            let scale = if (exclude || kernel.antialias) && sum != 0.0 { 1.0 / sum } else { 1.0 };
            for (k, w) in w.iter().enumerate() {
                f.index.push((left + first + k as i64).clamp(0, last) as u32);
                f.weights.push(T::of(w * scale));
            }
        }
        Ok(f)
    }
}

/// The entries of a table of `taps` neighbours for each of `places`: bounded, since it is filled when the plan is made.
fn table(taps: usize, places: usize) -> Result<usize> {
    const MOST: usize = 1 << 28;
    let entries = product(&[taps, places])?;
    ensure!(
        entries <= MOST,
        Unsupported,
        "{places} places of an axis, each made of {taps}, are more than {MOST} weights"
    );
    Ok(entries)
}

/// The weights of linear and cubic interpolation.
pub(super) struct WeightKernel {
    pub method: Method,
    pub antialias: bool,
}

impl WeightKernel {
    /// The weight of a neighbour at a distance.
    fn weight(&self, x: f64) -> f64 {
        let x = x.abs();
        match self.method {
            Method::Cubic { a } => {
                let a = f64::from(a);
                if x <= 1.0 {
                    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
                } else {
                    0.0
                }
            }
            _ => (1.0 - x).max(0.0),
        }
    }
}
