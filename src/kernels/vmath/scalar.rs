//! The functions one number at a time, computed in f64 and rounded once: what the scalar level runs, and what the vector
//! versions are tested against.

unsafe extern "C" {
    #[link_name = "erf"]
    safe fn libm_erf(x: f64) -> f64;
    #[link_name = "erfc"]
    safe fn libm_erfc(x: f64) -> f64;
    #[link_name = "atanh"]
    safe fn libm_atanh(x: f64) -> f64;
}

/// The error function in f64: the C library's.
pub fn erf64(x: f64) -> f64 {
    libm_erf(x)
}

/// `ln(1 + e^x)` in f64.
pub fn softplus64(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

/// `1 / (1 + e^-x)` in f64.
pub fn sigmoid64(x: f64) -> f64 {
    // e^-x may be Inf, which gives 0 as it should.
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

/// `x / (1 + e^(-alpha x))` in f64.
pub fn swish64(x: f64, alpha: f64) -> f64 {
    x * sigmoid64(alpha * x)
}

/// Inverse hyperbolic tangent in f64: the C library's, since std's loses two digits next to one.
pub fn atanh64(x: f64) -> f64 {
    libm_atanh(x)
}

/// What `FRAC_1_SQRT_2` lacks of 1/√2.
const FRAC_1_SQRT_2_LOW: f64 = -4.833646656726457e-17;

/// `x / 2 (1 + erf(x / √2))` in f64, by the complement: nothing cancels for negative numbers.
pub fn gelu64(x: f64) -> f64 {
    let z = -x * std::f64::consts::FRAC_1_SQRT_2;
    let c = libm_erfc(z);
    // What the quotient's rounding lost, times the slope: far out the complement hangs on it.
    let lost = (-x).mul_add(std::f64::consts::FRAC_1_SQRT_2, -z) - x * FRAC_1_SQRT_2_LOW;
    let mended = c - std::f64::consts::FRAC_2_SQRT_PI * (-z * z).exp() * lost;
    0.5 * x * if z.is_finite() { mended } else { c }
}

/// `x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³)))` in f64, by the sigmoid.
pub fn gelu_tanh64(x: f64) -> f64 {
    x * sigmoid64(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x))
}

/// `x tanh(ln(1 + e^x))` in f64.
pub fn mish64(x: f64) -> f64 {
    x * softplus64(x).tanh()
}

macro_rules! through_f64 {
    ($($(#[$doc:meta])* $name:ident = |$x:ident| $e:expr;)*) => {$(
        $(#[$doc])*
        pub fn $name($x: f32) -> f32 {
            let $x = f64::from($x);
            ($e) as f32
        }
    )*};
}
through_f64! {
    /// e^x.
    exp = |x| x.exp();
    /// 2^x.
    exp2 = |x| x.exp2();
    /// e^x - 1.
    expm1 = |x| x.exp_m1();
    /// Natural logarithm.
    log = |x| x.ln();
    /// ln(1 + x).
    log1p = |x| x.ln_1p();
    /// Hyperbolic tangent.
    tanh = |x| x.tanh();
    /// Error function.
    erf = |x| erf64(x);
    /// 1 / (1 + e^-x).
    sigmoid = |x| sigmoid64(x);
    /// ln(1 + e^x).
    softplus = |x| softplus64(x);
    /// x / 2 (1 + erf(x / √2)).
    gelu = |x| gelu64(x);
    /// x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
    gelu_tanh = |x| gelu_tanh64(x);
    /// x tanh(ln(1 + e^x)).
    mish = |x| mish64(x);
    /// Sine.
    sin = |x| x.sin();
    /// Cosine.
    cos = |x| x.cos();
    /// Tangent.
    tan = |x| x.tan();
    /// Inverse sine.
    asin = |x| x.asin();
    /// Inverse cosine.
    acos = |x| x.acos();
    /// Inverse tangent.
    atan = |x| x.atan();
    /// Hyperbolic sine.
    sinh = |x| x.sinh();
    /// Hyperbolic cosine.
    cosh = |x| x.cosh();
    /// Inverse hyperbolic sine.
    asinh = |x| asinh64(x);
    /// Inverse hyperbolic cosine.
    acosh = |x| acosh64(x);
    /// Inverse hyperbolic tangent.
    atanh = |x| atanh64(x);
}

/// Inverse hyperbolic sine in f64, without cancellation near zero.
pub fn asinh64(x: f64) -> f64 {
    let a = x.abs();
    if a > 1e150 {
        // a² would overflow.
        return (a.ln() + std::f64::consts::LN_2).copysign(x);
    }
    (a + a * a / (1.0 + (a * a + 1.0).sqrt())).ln_1p().copysign(x)
}

/// Inverse hyperbolic cosine in f64, without cancellation near one.
pub fn acosh64(x: f64) -> f64 {
    if x > 1e150 {
        return x.ln() + std::f64::consts::LN_2;
    }
    let t = x - 1.0;
    if t < 0.0 { f64::NAN } else { (t + (2.0 * t + t * t).sqrt()).ln_1p() }
}

/// `a` to the power `b`.
pub fn pow(a: f32, b: f32) -> f32 {
    f64::from(a).powf(f64::from(b)) as f32
}

/// x / (1 + e^(-alpha x)).
pub fn swish(x: f32, alpha: f32) -> f32 {
    swish64(f64::from(x), f64::from(alpha)) as f32
}

/// a b + c, the product exact.
pub fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    (f64::from(a) * f64::from(b) + f64::from(c)) as f32
}

/// The remainder with the sign of the divisor, as Python has it.
pub fn modulo(a: f32, b: f32) -> f32 {
    crate::kernels::elem::Number::modulo(a, b)
}
