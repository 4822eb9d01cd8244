//! The activation functions of networks, written as instructions.

use super::program::{BinaryOp, ProgramBuilder, Register, UnaryOp};

impl ProgramBuilder {
    /// The lesser of both; NaN if either is.
    pub fn min(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::Min, a, b)
    }
    /// The greater of both; NaN if either is.
    pub fn max(&mut self, a: Register, b: Register) -> Register {
        self.binary(BinaryOp::Max, a, b)
    }
    /// x * number
    pub fn scaled(&mut self, x: Register, number: f32) -> Register {
        let c = self.constant(number);
        self.mul(x, c)
    }
    /// x within the bounds that there are; the upper wins where they cross.
    pub fn clip(&mut self, x: Register, low: Option<f32>, high: Option<f32>) -> Register {
        let mut y = x;
        if let Some(low) = low {
            let c = self.constant(low);
            y = self.max(y, c);
        }
        if let Some(high) = high {
            let c = self.constant(high);
            y = self.min(y, c);
        }
        y
    }
    /// max(x, 0)
    pub fn relu(&mut self, x: Register) -> Register {
        self.unary(UnaryOp::Relu, x)
    }
    /// x where x >= 0, else `slope` x: LeakyRelu with a constant, PRelu with an input.
    pub fn prelu(&mut self, x: Register, slope: Register) -> Register {
        let zero = self.constant(0.0);
        let negative = self.binary(BinaryOp::Less, x, zero);
        let low = self.mul(x, slope);
        self.select(negative, low, x)
    }
    /// gamma (x where x > 0, else alpha (e^(x / divisor) - 1)): Elu, Selu and Celu.
    fn exponential_linear(&mut self, x: Register, alpha: f32, gamma: f32, divisor: f32) -> Register {
        let zero = self.constant(0.0);
        let positive = self.greater(x, zero);
        let (inner, factor) = if divisor == 1.0 {
            (x, (f64::from(gamma) * f64::from(alpha)) as f32)
        } else {
            let d = self.constant(divisor);
            (self.div(x, d), alpha)
        };
        let e = self.unary(UnaryOp::Expm1, inner);
        let mut low = if factor == 1.0 { e } else { self.scaled(e, factor) };
        if divisor != 1.0 && divisor == alpha {
            // Next to zero the quotient may be a denormal, which has lost bits; there e^t - 1 is t.
            let (a, small) = (self.unary(UnaryOp::Abs, inner), self.constant(f32::EPSILON / 4.0));
            let near = self.binary(BinaryOp::Less, a, small);
            low = self.select(near, x, low);
        }
        let high = if gamma == 1.0 { x } else { self.scaled(x, gamma) };
        self.select(positive, high, low)
    }
    /// x where x > 0, else alpha (e^x - 1)
    pub fn elu(&mut self, x: Register, alpha: f32) -> Register {
        self.exponential_linear(x, alpha, 1.0, 1.0)
    }
    /// gamma elu(x)
    pub fn selu(&mut self, x: Register, alpha: f32, gamma: f32) -> Register {
        self.exponential_linear(x, alpha, gamma, 1.0)
    }
    /// x where x > 0, else alpha (e^(x / alpha) - 1)
    pub fn celu(&mut self, x: Register, alpha: f32) -> Register {
        self.exponential_linear(x, alpha, 1.0, alpha)
    }
    /// max(0, min(1, alpha x + beta))
    pub fn hard_sigmoid(&mut self, x: Register, alpha: f32, beta: f32) -> Register {
        let (a, b) = (self.constant(alpha), self.constant(beta));
        let y = self.multiply_add(x, a, b);
        self.clip(y, Some(0.0), Some(1.0))
    }
    /// x hard_sigmoid(x) with slope 1/6 and centre 1/2
    pub fn hard_swish(&mut self, x: Register) -> Register {
        // x + 3 is exact where it is small: nothing cancels.
        let (three, six) = (self.constant(3.0), self.constant(6.0));
        let sum = self.add(x, three);
        let sum = self.clip(sum, Some(0.0), Some(6.0));
        let s = self.div(sum, six);
        self.mul(x, s)
    }
    /// x sigmoid(alpha x)
    pub fn swish(&mut self, x: Register, alpha: f32) -> Register {
        let a = self.constant(alpha);
        self.binary(BinaryOp::Swish, x, a)
    }
    /// ½ x (1 + erf(x / √2))
    pub fn gelu(&mut self, x: Register) -> Register {
        self.unary(UnaryOp::Gelu, x)
    }
    /// ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
    pub fn gelu_tanh(&mut self, x: Register) -> Register {
        self.unary(UnaryOp::GeluTanh, x)
    }
    /// x tanh(softplus(x))
    pub fn mish(&mut self, x: Register) -> Register {
        self.unary(UnaryOp::Mish, x)
    }
    /// x / (1 + |x|)
    pub fn softsign(&mut self, x: Register) -> Register {
        let a = self.unary(UnaryOp::Abs, x);
        let one = self.constant(1.0);
        let d = self.add(a, one);
        self.div(x, d)
    }
    /// x where x > alpha, else 0
    pub fn thresholded_relu(&mut self, x: Register, alpha: f32) -> Register {
        let (a, zero) = (self.constant(alpha), self.constant(0.0));
        let above = self.greater(x, a);
        self.select(above, x, zero)
    }
    /// Shrink: x + bias below -lambda, x - bias above lambda, else 0.
    pub fn shrink(&mut self, x: Register, lambda: f32, bias: f32) -> Register {
        let (low, high) = (self.constant(-lambda), self.constant(lambda));
        let (b, zero) = (self.constant(bias), self.constant(0.0));
        let (below, above) = (self.binary(BinaryOp::Less, x, low), self.greater(x, high));
        let (plus, minus) = (self.add(x, b), self.sub(x, b));
        let y = self.select(above, minus, zero);
        self.select(below, plus, y)
    }
}
