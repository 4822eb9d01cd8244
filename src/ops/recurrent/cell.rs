//! The cells' functions.

use crate::bail;
use crate::error::Result;
use crate::kernels::real::Real;

/// Which cell.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum CellKind {
    Rnn,
    Gru,
    Lstm,
}

impl CellKind {
    /// Gates: rows of W and R in units of the state's size.
    pub fn gates(self) -> usize {
        match self {
            CellKind::Rnn => 1,
            CellKind::Gru => 3,
            CellKind::Lstm => 4,
        }
    }
    /// The functions of one direction where none are named.
    pub(super) fn functions(self) -> &'static [&'static str] {
        match self {
            CellKind::Rnn => &["Tanh"],
            CellKind::Gru => &["Sigmoid", "Tanh"],
            CellKind::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// A function that cells know.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum ActivationFn {
    Relu,
    Tanh,
    Sigmoid,
    Affine,
    LeakyRelu,
    ThresholdedRelu,
    ScaledTanh,
    HardSigmoid,
    Elu,
    Softsign,
    Softplus,
}

/// A function and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// The function.
    pub f: ActivationFn,
    /// First parameter.
    pub alpha: f32,
    /// Second parameter.
    pub beta: f32,
}

impl Activation {
    /// From its name (in any case) and the next parameters of the lists, if it has any.
    pub(super) fn parse(
        name: &str,
        alphas: &mut impl Iterator<Item = f32>,
        betas: &mut impl Iterator<Item = f32>,
    ) -> Result<Activation> {
        use ActivationFn::*;
        let (f, alpha, beta) = match name.to_ascii_lowercase().as_str() {
            "relu" => (Relu, None, None),
            "tanh" => (Tanh, None, None),
            "sigmoid" => (Sigmoid, None, None),
            "softsign" => (Softsign, None, None),
            "softplus" => (Softplus, None, None),
            "affine" => (Affine, Some(1.0), Some(0.0)),
            "leakyrelu" => (LeakyRelu, Some(0.01), None),
            "thresholdedrelu" => (ThresholdedRelu, Some(1.0), None),
            "scaledtanh" => (ScaledTanh, Some(1.0), Some(1.0)),
            "hardsigmoid" => (HardSigmoid, Some(0.2), Some(0.5)),
            "elu" => (Elu, Some(1.0), None),
            _ => bail!(InvalidModel, "there is no activation '{name}'"),
        };
        let alpha = alpha.map_or(0.0, |a| alphas.next().unwrap_or(a));
        let beta = beta.map_or(0.0, |b| betas.next().unwrap_or(b));
        Ok(Activation { f, alpha, beta })
    }
    /// The function itself.
    #[inline]
    pub(super) fn apply<T: Real>(self, x: T) -> T {
        let (a, b) = (T::of(f64::from(self.alpha)), T::of(f64::from(self.beta)));
        match self.f {
            ActivationFn::Relu => x.most(T::ZERO),
            ActivationFn::Tanh => x.tanh(),
            ActivationFn::Sigmoid => T::ONE / (T::ONE + (-x).exp()),
            ActivationFn::Affine => a * x + b,
            ActivationFn::LeakyRelu if x < T::ZERO => a * x,
            ActivationFn::ThresholdedRelu if x <= a => T::ZERO,
            ActivationFn::LeakyRelu | ActivationFn::ThresholdedRelu => x,
            ActivationFn::ScaledTanh => a * (b * x).tanh(),
            ActivationFn::HardSigmoid => (a * x + b).most(T::ZERO).least(T::ONE),
            ActivationFn::Elu if x < T::ZERO => a * (x.exp() - T::ONE),
            ActivationFn::Elu => x,
            ActivationFn::Softsign => x / (T::ONE + x.abs()),
            // log(1 + e^x) without overflow.
            ActivationFn::Softplus => x.most(T::ZERO) + ((-x.abs()).exp() + T::ONE).ln(),
        }
    }
}
