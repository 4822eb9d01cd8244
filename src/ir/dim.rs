//! Axis sizes, and the integers that become axis sizes: known, symbolic, or unknown.

use std::fmt;
use std::sync::Arc;

/// A size, or a number on its way to be one (so it may be negative).
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub enum Dim {
    /// A number.
    Known(i64),
    /// A name from the model, or an expression over such names.
    Expr(Arc<Expr>),
    /// Nothing is known.
    #[default]
    Unknown,
}

/// A symbolic size. Built through [`Dim`]'s arithmetic only, which folds what is known.
#[derive(PartialEq, Eq, Hash)]
pub enum Expr {
    /// A `dim_param`.
    Symbol(Arc<str>),
    /// Left, operator, right.
    Binary(DimOp, Dim, Dim),
}

/// Arithmetic on sizes; division rounds towards minus infinity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum DimOp {
    Add,
    Sub,
    Mul,
    FloorDiv,
    Mod,
    Min,
    Max,
    /// The one of two sizes that is not 1, or both.
    Broadcast,
}

impl DimOp {
    fn eval(self, a: i64, b: i64) -> Option<i64> {
        match self {
            DimOp::Add => a.checked_add(b),
            DimOp::Sub => a.checked_sub(b),
            DimOp::Mul => a.checked_mul(b),
            DimOp::FloorDiv => (b != 0).then(|| a.checked_div_euclid(b).map(|q| floor_fix(q, a, b))).flatten(),
            DimOp::Mod => {
                (b != 0).then(|| a.checked_rem_euclid(b).map(|r| if b < 0 && r != 0 { r + b } else { r })).flatten()
            }
            DimOp::Min => Some(a.min(b)),
            DimOp::Max => Some(a.max(b)),
            DimOp::Broadcast if a == 1 || a == b => Some(b),
            DimOp::Broadcast => (b == 1).then_some(a),
        }
    }
}

/// From Euclid's quotient to the floor: they differ for negative divisors with a remainder.
fn floor_fix(q: i64, a: i64, b: i64) -> i64 {
    if b < 0 && a.rem_euclid(b) != 0 { q - 1 } else { q }
}

impl Dim {
    /// The size of a known axis.
    pub fn of(n: usize) -> Dim {
        Dim::Known(n as i64)
    }
    /// A named size.
    pub fn symbol(name: &str) -> Dim {
        Dim::Expr(Arc::new(Expr::Symbol(name.into())))
    }
    /// The number, if known.
    pub fn known(&self) -> Option<i64> {
        match self {
            Dim::Known(n) => Some(*n),
            _ => None,
        }
    }
    /// The number as a size, if known and not negative.
    pub fn size(&self) -> Option<usize> {
        self.known().and_then(|n| usize::try_from(n).ok())
    }
    /// The name, if it is a plain symbol.
    pub fn name(&self) -> Option<&str> {
        match self {
            Dim::Expr(e) => match &**e {
                Expr::Symbol(s) => Some(s),
                _ => None,
            },
            _ => None,
        }
    }
    /// Whether both are certainly the same: terms of a sum may stand in another order.
    pub fn same(&self, other: &Dim) -> bool {
        let less = || Dim::binary(DimOp::Sub, self, other);
        *self != Dim::Unknown && (self == other || self.is_sum() && other.is_sum() && less() == Dim::Known(0))
    }
    fn is_sum(&self) -> bool {
        matches!(self, Dim::Expr(e) if matches!(**e, Expr::Binary(DimOp::Add | DimOp::Sub, ..)))
    }
    /// Whether it is `other` but for numbers above 1 that limit it, as slices of a table are limited: it broadcasts to `other` then
    /// by being it, or by being 1.
    pub fn is_capped(&self, other: &Dim) -> bool {
        self.known().is_none() && self.uncapped().same(other)
    }
    /// What it is where no number above 1 limits it.
    fn uncapped(&self) -> Dim {
        let cap = |x: &Dim| x.known().is_some_and(|n| n > 1);
        match self {
            Dim::Expr(e) => match &**e {
                Expr::Binary(DimOp::Min, a, b) if cap(a) => b.uncapped(),
                Expr::Binary(DimOp::Min, a, b) if cap(b) => a.uncapped(),
                Expr::Binary(op, a, b) => Dim::binary(*op, &a.uncapped(), &b.uncapped()),
                Expr::Symbol(_) => self.clone(),
            },
            d => d.clone(),
        }
    }
    /// Whether it is certainly not 1: then it broadcasts only to itself.
    pub fn is_not_one(&self) -> bool {
        match self {
            Dim::Known(n) => *n != 1,
            Dim::Unknown => false,
            Dim::Expr(e) => match &**e {
                Expr::Binary(DimOp::Mul, _, k) => k.known().is_some_and(|k| k.abs() != 1),
                Expr::Binary(DimOp::Add, a, k) => a.is_size() && k.known().is_some_and(|k| k > 1),
                _ => false,
            },
        }
    }
    /// What two sizes broadcast to, which are taken to fit.
    pub fn broadcast(&self, b: &Dim) -> Dim {
        match (self, b) {
            (Dim::Known(1), d) | (d, Dim::Known(1)) => d.clone(),
            (a, b) if a.is_not_one() || b.is_capped(a) => a.clone(),
            (a, b) if b.is_not_one() || a.is_capped(b) || a.is_part_of(b) => b.clone(),
            (a, b) if b.is_part_of(a) => a.clone(),
            (a, b) => {
                let mut parts = Vec::new();
                [a, b].iter().for_each(|d| d.parts(&mut parts));
                if parts.len() > MOST_TERMS { Dim::Unknown } else { Dim::binary(DimOp::Broadcast, a, b) }
            }
        }
    }
    /// Whether it is one, or some, of those that were broadcast to `other`.
    fn is_part_of(&self, other: &Dim) -> bool {
        let (mut own, mut all) = (Vec::new(), Vec::new());
        self.parts(&mut own);
        other.parts(&mut all);
        own.iter().all(|x| all.iter().any(|y| x.same(y)))
    }
    /// What was broadcast to it, which is [`MOST_TERMS`] at most.
    fn parts<'d>(&'d self, to: &mut Vec<&'d Dim>) {
        match self {
            Dim::Expr(e) if matches!(**e, Expr::Binary(DimOp::Broadcast, ..)) => {
                if let Expr::Binary(_, a, b) = &**e {
                    a.parts(to);
                    b.parts(to);
                }
            }
            d => to.push(d),
        }
    }
    /// Whether it is certainly not negative: made of sizes without subtraction.
    pub fn is_size(&self) -> bool {
        match self {
            Dim::Known(n) => *n >= 0,
            Dim::Unknown => false,
            Dim::Expr(e) => match &**e {
                Expr::Symbol(_) => true,
                Expr::Binary(DimOp::Sub, ..) => false,
                Expr::Binary(DimOp::Max, a, b) => a.is_size() || b.is_size(),
                Expr::Binary(_, a, b) => a.is_size() && b.is_size(),
            },
        }
    }
    /// One operation; what overflows or divides by zero is `Unknown`.
    pub fn binary(op: DimOp, a: &Dim, b: &Dim) -> Dim {
        use Dim::*;
        match (a, b) {
            (Unknown, _) | (_, Unknown) => Unknown,
            (Known(x), Known(y)) => op.eval(*x, *y).map_or(Unknown, Known),
            (Expr(_), Expr(_)) | (Known(_), Expr(_)) if op == DimOp::Sub || op == DimOp::Add && a.known().is_none() => {
                cancelled(op, a, b).unwrap_or_else(|| Expr(Arc::new(self::Expr::Binary(op, a.clone(), b.clone()))))
            }
            _ => match (op, a, b) {
                (DimOp::Add, a, Known(0)) | (DimOp::Sub, a, Known(0)) => a.clone(),
                (DimOp::Add, Known(0), b) => b.clone(),
                (DimOp::Mul | DimOp::FloorDiv, a, Known(1)) => a.clone(),
                (DimOp::Mul, Known(1), b) => b.clone(),
                (DimOp::Mul, Known(0), _) | (DimOp::Mul, _, Known(0)) => Known(0),
                (DimOp::Min | DimOp::Max | DimOp::Broadcast, a, b) if a == b => a.clone(),
                (DimOp::Broadcast, Known(_), _) | (DimOp::Broadcast, _, Known(_)) => a.broadcast(b),
                (DimOp::Max, a, Known(..=0)) | (DimOp::Max, Known(..=0), a) if a.is_size() => a.clone(),
                // (x + 2) + 3 is x + 5, so that chains of paddings stay short.
                (DimOp::Add, Expr(e), Known(y)) => match &**e {
                    self::Expr::Binary(DimOp::Add, x, Known(k)) => {
                        Dim::binary(DimOp::Add, x, &Known(k.saturating_add(*y)))
                    }
                    _ => Expr(Arc::new(self::Expr::Binary(op, a.clone(), b.clone()))),
                },
                (DimOp::Sub, a, Known(y)) if *y != i64::MIN => Dim::binary(DimOp::Add, a, &Known(-y)),
                // 4 * (x * 8) is x * 32.
                (DimOp::Mul, Known(_), b) => Dim::binary(op, b, a),
                (DimOp::Mul, Expr(e), Known(y)) => match &**e {
                    self::Expr::Binary(DimOp::Mul, x, Known(k)) if k.checked_mul(*y).is_some() => {
                        Dim::binary(op, x, &Known(k * y))
                    }
                    _ => Expr(Arc::new(self::Expr::Binary(op, a.clone(), b.clone()))),
                },
                (DimOp::FloorDiv, a, b) if a == b => Known(1),
                (DimOp::FloorDiv, a, b) => {
                    quotient(a, b).unwrap_or_else(|| Expr(Arc::new(self::Expr::Binary(op, a.clone(), b.clone()))))
                }
                _ => Expr(Arc::new(self::Expr::Binary(op, a.clone(), b.clone()))),
            },
        }
    }
    /// Rounded-down quotient.
    pub fn floor_div(&self, b: &Dim) -> Dim {
        Dim::binary(DimOp::FloorDiv, self, b)
    }
    /// Rounded-up quotient.
    pub fn ceil_div(&self, b: &Dim) -> Dim {
        (self.clone() + b.clone() - Dim::Known(1)).floor_div(b)
    }
    /// The smaller one.
    pub fn min(&self, b: &Dim) -> Dim {
        Dim::binary(DimOp::Min, self, b)
    }
    /// The larger one.
    pub fn max(&self, b: &Dim) -> Dim {
        Dim::binary(DimOp::Max, self, b)
    }
    /// The product of sizes; 1 for none.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::Known(1), |a, d| a * d.clone())
    }
    /// The names in it, from left to right.
    pub fn symbols(&self) -> Vec<&str> {
        match self {
            Dim::Expr(e) => match &**e {
                Expr::Symbol(s) => vec![s],
                Expr::Binary(_, a, b) => [a.symbols(), b.symbols()].concat(),
            },
            _ => Vec::new(),
        }
    }
    /// The expression with each symbol replaced by `f`'s answer.
    pub fn substitute(&self, f: &dyn Fn(&str) -> Dim) -> Dim {
        match self {
            Dim::Expr(e) => match &**e {
                Expr::Symbol(s) => f(s),
                Expr::Binary(op, a, b) => Dim::binary(*op, &a.substitute(f), &b.substitute(f)),
            },
            d => d.clone(),
        }
    }
}

/// Terms that are looked at for cancelling, and how deep in a sum they may lie: models choose its length.
const MOST_TERMS: usize = 16;

/// Adds the terms of a sum to `to`, each with its sign, and its numbers to `number`. `None` where there are too many.
fn terms(d: &Dim, plus: bool, depth: usize, to: &mut Vec<(Dim, bool)>, number: &mut i64) -> Option<()> {
    match d {
        Dim::Known(n) => *number = if plus { number.checked_add(*n)? } else { number.checked_sub(*n)? },
        Dim::Unknown => return None,
        Dim::Expr(e) => match &**e {
            Expr::Binary(op @ (DimOp::Add | DimOp::Sub), a, b) => {
                let depth = depth.checked_sub(1)?;
                terms(a, plus, depth, to, number)?;
                terms(b, plus == (*op == DimOp::Add), depth, to, number)?;
            }
            _ => {
                (to.len() < MOST_TERMS).then_some(())?;
                to.push((d.clone(), plus));
            }
        },
    }
    Some(())
}

/// `a + b` or `a - b` without the terms that cancel each other, if any do; or a number less a sum, with the terms that it
/// leaves positive in front.
fn cancelled(op: DimOp, a: &Dim, b: &Dim) -> Option<Dim> {
    let (mut all, mut number) = (Vec::new(), 0);
    terms(a, true, MOST_TERMS, &mut all, &mut number)?;
    terms(b, op == DimOp::Add, MOST_TERMS, &mut all, &mut number)?;
    let before = all.len();
    let mut i = 0;
    while i < all.len() {
        let (term, plus) = &all[i];
        match all[i + 1..].iter().position(|(t, p)| p != plus && t == term) {
            Some(j) => {
                all.remove(i + 1 + j);
                all.remove(i);
            }
            None => i += 1,
        }
    }
    // What is taken from a number may turn the signs inside round.
    let turned = a.known().is_some() && all.iter().any(|t| t.1);
    if all.len() == before && !turned {
        return None;
    }
    all.sort_by_key(|t| !t.1);
    let sum = all.into_iter().fold(Dim::Known(0), |sum, (t, plus)| if plus { sum + t } else { sum - t });
    Some(sum + Dim::Known(number))
}

/// Puts the factors of a product into `to`, and its numbers into `number`. `None` where there are too many.
fn factors(d: &Dim, depth: usize, to: &mut Vec<Dim>, number: &mut i64) -> Option<()> {
    match d {
        Dim::Known(n) => *number = number.checked_mul(*n)?,
        Dim::Unknown => return None,
        Dim::Expr(e) => match &**e {
            Expr::Binary(DimOp::Mul, a, b) => {
                let depth = depth.checked_sub(1)?;
                factors(a, depth, to, number)?;
                factors(b, depth, to, number)?;
            }
            _ => {
                (to.len() < MOST_TERMS).then_some(())?;
                to.push(d.clone());
            }
        },
    }
    Some(())
}

/// `a / b` without the factors that both have, if there are any.
fn quotient(a: &Dim, b: &Dim) -> Option<Dim> {
    let ((mut up, mut n), (mut down, mut d)) = ((Vec::new(), 1), (Vec::new(), 1));
    factors(a, MOST_TERMS, &mut up, &mut n)?;
    factors(b, MOST_TERMS, &mut down, &mut d)?;
    let before = down.len();
    down.retain(|f| match up.iter().position(|x| x == f) {
        Some(i) => {
            up.remove(i);
            false
        }
        None => true,
    });
    // The larger of the two numbers, if it is a multiple of the other.
    let common = if n > 0 && d > 0 && (n % d == 0 || d % n == 0) { n.min(d) } else { 1 };
    if down.len() == before && common == 1 {
        return None;
    }
    (n, d) = (n / common, d / common);
    let up = Dim::product(&up) * Dim::Known(n);
    let down = Dim::product(&down) * Dim::Known(d);
    Some(if down == Dim::Known(1) { up } else { Dim::Expr(Arc::new(Expr::Binary(DimOp::FloorDiv, up, down))) })
}

macro_rules! operator {
    ($($tr:ident $method:ident $op:ident),*) => { $(
        impl std::ops::$tr for Dim {
            type Output = Dim;
            fn $method(self, b: Dim) -> Dim { Dim::binary(DimOp::$op, &self, &b) }
        }
    )* };
}
operator!(Add add Add, Sub sub Sub, Mul mul Mul);

impl From<usize> for Dim {
    fn from(n: usize) -> Dim {
        Dim::of(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Unknown => f.write_str("?"),
            Dim::Expr(e) => match &**e {
                Expr::Symbol(s) => f.write_str(s),
                Expr::Binary(DimOp::Min, a, b) => write!(f, "min({a}, {b})"),
                Expr::Binary(DimOp::Max, a, b) => write!(f, "max({a}, {b})"),
                Expr::Binary(DimOp::Broadcast, a, b) => write!(f, "broadcast({a}, {b})"),
                Expr::Binary(op, a, b) => {
                    let sign = match op {
                        DimOp::Add => "+",
                        DimOp::Sub => "-",
                        DimOp::Mul => "*",
                        DimOp::FloorDiv => "/",
                        _ => "%",
                    };
                    write!(f, "({a}{sign}{b})")
                }
            },
        }
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_folds_what_is_known() {
        let n = Dim::symbol("n");
        assert_eq!((n.clone() + Dim::Known(2) + Dim::Known(-2)).to_string(), "n");
        assert_eq!((n.clone() * Dim::Known(4)).floor_div(&Dim::Known(4)), n);
        assert_eq!((n.clone() * Dim::Known(4) * Dim::Known(8)).floor_div(&Dim::Known(32)), n);
        assert_eq!((Dim::Known(4) * n.clone()).floor_div(&(n.clone() * Dim::Known(2))), Dim::Known(2));
        assert_eq!((n.clone() * Dim::Known(4)).floor_div(&Dim::Known(12)).to_string(), "(n/3)");
        assert_eq!((n.clone() * Dim::Known(4)).floor_div(&Dim::Known(6)).to_string(), "((n*4)/6)");
        assert_eq!(n.clone() - n.clone(), Dim::Known(0));
        assert_eq!(Dim::Known(7).ceil_div(&Dim::Known(2)), Dim::Known(4));
        assert_eq!(Dim::Known(i64::MAX) + Dim::Known(1), Dim::Unknown);
        assert_eq!(Dim::Known(-7).floor_div(&Dim::Known(2)), Dim::Known(-4));
        assert_eq!(Dim::Known(7).floor_div(&Dim::Known(-2)), Dim::Known(-4));
        let m = Dim::symbol("m");
        assert_eq!(n.broadcast(&m).to_string(), "broadcast(n, m)");
        assert_eq!(m.broadcast(&n.broadcast(&m)), n.broadcast(&m));
        assert_eq!(n.broadcast(&m).broadcast(&m.broadcast(&n)), m.broadcast(&n));
        let many = (0..20).fold(n.clone(), |d, i| d.broadcast(&Dim::symbol(&i.to_string())));
        assert!(many.to_string().len() < 600, "{many}");
        assert_eq!(n.broadcast(&(m.clone() * Dim::Known(4))).to_string(), "(m*4)");
        assert_eq!(n.broadcast(&m).substitute(&|s| Dim::Known(if s == "n" { 1 } else { 7 })), Dim::Known(7));
        assert_eq!(n.broadcast(&m).substitute(&|s| Dim::Known(if s == "n" { 2 } else { 7 })), Dim::Unknown);
        let sum = m.clone() + n.clone() + Dim::Known(3);
        assert_eq!((sum.clone() - m.clone()).to_string(), "(n+3)");
        assert_eq!(sum.clone() - (n.clone() + m.clone()), Dim::Known(3));
        assert_eq!((m.clone() - sum) + n.clone(), Dim::Known(-3));
        assert_eq!(Dim::Known(-1) - (Dim::Known(0) - n.clone() - Dim::Known(1)), n);
        assert_eq!((Dim::Known(3) - n.clone()).to_string(), "(3-n)");
        assert_eq!((m.clone() - n.clone()).max(&Dim::Known(0)).to_string(), "max((m-n), 0)");
        assert_eq!((m.clone() + n.clone()).max(&Dim::Known(0)), m.clone() + n.clone());
        assert!(
            (m.clone() + n.clone()).same(&(n.clone() + m.clone())) && !m.same(&n) && !Dim::Unknown.same(&Dim::Unknown)
        );
        assert!(!(m.clone() + n.clone()).same(&(m.clone() - n.clone())));
        let part = (m.clone() + n.clone()).min(&Dim::Known(8)) - m.min(&Dim::Known(8));
        assert!(part.is_capped(&n) && n.min(&Dim::Known(8)).is_capped(&n) && !n.min(&Dim::Known(1)).is_capped(&n));
        assert_eq!((m.clone() - n.clone()).max(&m).symbols(), ["m", "n", "m"]);
        let e = (n.clone() + Dim::Known(1)).floor_div(&Dim::Known(2));
        assert_eq!(e.substitute(&|_| Dim::Known(9)), Dim::Known(5));
    }
}
