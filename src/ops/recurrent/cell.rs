//! The cells' functions.

use super::Recurrent;
use crate::bail;
use crate::error::Result;
use crate::kernels::elem::Elem;
use crate::kernels::gemm::epilogue::{self, activate};
use crate::kernels::isa::Isa;
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
    fn apply<T: Real>(self, x: T) -> T {
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

impl Activation {
    /// As the vector kernels know it.
    fn vector(self) -> Option<epilogue::Activation> {
        use epilogue::Activation as A;
        let Activation { f, alpha, beta } = self;
        Some(match f {
            ActivationFn::Relu => A::Relu,
            ActivationFn::Tanh => A::Tanh,
            ActivationFn::Sigmoid => A::Sigmoid,
            ActivationFn::LeakyRelu => A::LeakyRelu { alpha },
            ActivationFn::HardSigmoid => A::HardSigmoid { alpha, beta },
            ActivationFn::Elu => A::Elu { alpha },
            _ => return None,
        })
    }
    /// The function of each value.
    fn apply_all<T: Real>(self, isa: Isa, x: &mut [T]) {
        match self.vector() {
            // SAFETY: T is f32, and the slice is one row.
            Some(f) if T::ELEM == Elem::F32 => unsafe { activate(isa, f, x.as_mut_ptr().cast(), 1, x.len(), x.len()) },
            _ => x.iter_mut().for_each(|x| *x = self.apply(*x)),
        }
    }
}

/// What one direction does to one sequence's gates and states, a step. Slices are of the state's size, gates of so many times that.
pub(super) struct Functions<'a, T> {
    functions: &'a [Activation],
    clip: Option<T>,
    coupled: bool,
    linear_before_reset: bool,
    isa: Isa,
}

impl<'a, T: Real> Functions<'a, T> {
    pub(super) fn new(op: &'a Recurrent, dir: usize, isa: Isa) -> Self {
        let (coupled, linear_before_reset) = (op.coupled, op.linear_before_reset);
        let clip = op.clip.map(|c| T::of(f64::from(c)));
        Functions { functions: &op.activations[dir], clip, coupled, linear_before_reset, isa }
    }
    /// The function at a place in the cell's list, of clipped gates.
    fn gate(&self, f: usize, x: &mut [T]) {
        if let Some(c) = self.clip {
            x.iter_mut().for_each(|x| *x = x.most(-c).least(c));
        }
        self.functions[f].apply_all(self.isa, x);
    }
    pub(super) fn rnn(&self, gates: &mut [T], h: &mut [T]) {
        self.gate(0, gates);
        h.copy_from_slice(gates);
    }
    /// Gates in the order z, r, h: the first two, and the state after the reset.
    pub(super) fn gru_gates(&self, gates: &mut [T], h: &[T], reset: &mut [T]) {
        let gates = &mut gates[..2 * h.len()];
        self.gate(0, gates);
        for ((to, &r), &h) in reset.iter_mut().zip(&gates[h.len()..]).zip(h) {
            *to = r * h;
        }
    }
    /// The last gate, to which the state's product comes, and the new state.
    pub(super) fn gru(&self, gates: &mut [T], from_state: &[T], h: &mut [T]) {
        let n = h.len();
        let (z, rest) = gates.split_at_mut(n);
        let (r, new) = rest.split_at_mut(n);
        for j in 0..n {
            new[j] += if self.linear_before_reset { r[j] * from_state[j] } else { from_state[j] };
        }
        self.gate(1, new);
        for j in 0..n {
            h[j] = (T::ONE - z[j]) * new[j] + z[j] * h[j];
        }
    }
    /// Gates in the order i, o, f, c; peepholes in the order i, o, f.
    pub(super) fn lstm(&self, gates: &mut [T], h: &mut [T], c: &mut [T], peepholes: Option<&[T]>) {
        let n = h.len();
        let (input, rest) = gates.split_at_mut(n);
        let (output, rest) = rest.split_at_mut(n);
        let (forget, new) = rest.split_at_mut(n);
        let peep = |k: usize, gate: &mut [T], c: &[T]| {
            if let Some(p) = peepholes {
                for ((x, &p), &c) in gate.iter_mut().zip(&p[k * n..]).zip(c) {
                    *x += p * c;
                }
            }
        };
        peep(0, input, c);
        self.gate(0, input);
        if self.coupled {
            for (f, &i) in forget.iter_mut().zip(&*input) {
                *f = T::ONE - i;
            }
        } else {
            peep(2, forget, c);
            self.gate(0, forget);
        }
        self.gate(1, new);
        for j in 0..n {
            c[j] = forget[j] * c[j] + input[j] * new[j];
        }
        peep(1, output, c);
        self.gate(0, output);
        h.copy_from_slice(c);
        self.functions[2].apply_all(self.isa, h);
        for (h, &o) in h.iter_mut().zip(&*output) {
            *h = o * *h;
        }
    }
}
