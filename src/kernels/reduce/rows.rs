//! Reductions of numbers in a line, with vectors: the bricks of reductions and normalisations.

use crate::kernels::simd::{F32, Kernel, Mask};
use crate::kernels::vmath::{self, least, most};

/// Numbers summed in f32 before the sum goes into an f64.
const BLOCK: usize = 4096;

/// What is done to each number before it is combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    /// Nothing.
    Identity,
    /// |x|
    Abs,
    /// (x - shift)²
    Square,
    /// e^(x - shift)
    Exp,
}

/// How numbers are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Their sum.
    Sum,
    /// Their product.
    Product,
    /// The greatest; NaN if there is one.
    Max,
    /// The least; NaN if there is one.
    Min,
}

impl Combine {
    /// What combining nothing gives.
    pub fn start(self) -> f64 {
        match self {
            Combine::Sum => 0.0,
            Combine::Product => 1.0,
            Combine::Max => f64::NEG_INFINITY,
            Combine::Min => f64::INFINITY,
        }
    }
    /// Two results in one.
    #[inline(always)]
    pub fn join(self, a: f64, b: f64) -> f64 {
        use crate::kernels::elem::Number;
        match self {
            Combine::Sum => a + b,
            Combine::Product => a * b,
            Combine::Max => a.most(b),
            Combine::Min => a.least(b),
        }
    }
}

/// One vector mapped.
#[inline(always)]
pub fn mapped<V: F32>(map: Map, x: V, shift: V) -> V {
    match map {
        Map::Identity => x,
        Map::Abs => x.abs(),
        Map::Square => {
            let d = x - shift;
            d * d
        }
        Map::Exp => vmath::exp(x - shift),
    }
}

/// Two vectors combined.
#[inline(always)]
pub fn combined<V: F32>(how: Combine, a: V, b: V) -> V {
    match how {
        Combine::Sum => a + b,
        Combine::Product => a * b,
        Combine::Max => most(a, b),
        Combine::Min => least(a, b),
    }
}

/// The lanes of a vector combined.
#[inline(always)]
fn lanes<V: F32>(how: Combine, x: V) -> f64 {
    let nan = x.is_nan().any();
    match how {
        Combine::Sum => return f64::from(x.sum()),
        Combine::Max | Combine::Min if nan => return f64::NAN,
        Combine::Max => return f64::from(x.max_lane()),
        Combine::Min => return f64::from(x.min_lane()),
        Combine::Product => {}
    }
    let a = x.to_array();
    let mut y = f64::from(a[0]);
    for &lane in &a[1..V::LANES] {
        y = how.join(y, f64::from(lane));
    }
    y
}

/// Combines `len` numbers in a line. Four vectors run side by side, so that sums err little and the adder stays busy.
/// # Safety
/// `at` is valid for reading `len` f32.
#[inline(always)]
pub unsafe fn row<V: F32>(map: Map, how: Combine, at: *const f32, len: usize, shift: f32) -> f64 {
    let mut total = how.start();
    let mut start = 0;
    while start < len {
        let n = BLOCK.min(len - start);
        // SAFETY: the block lies within the row.
        total = how.join(total, unsafe { block::<V>(map, how, at.add(start), n, shift) });
        start += n;
    }
    total
}

#[inline(always)]
unsafe fn block<V: F32>(map: Map, how: Combine, at: *const f32, len: usize, shift: f32) -> f64 {
    let neutral = V::splat(how.start() as f32);
    let s = V::splat(shift);
    let mut acc = [neutral; 4];
    let mut i = 0;
    // SAFETY: reads below `len` only.
    unsafe {
        while i + 4 * V::LANES <= len {
            for (k, a) in acc.iter_mut().enumerate() {
                *a = combined(how, *a, mapped(map, V::load(at.add(i + k * V::LANES)), s));
            }
            i += 4 * V::LANES;
        }
        while i + V::LANES <= len {
            acc[0] = combined(how, acc[0], mapped(map, V::load(at.add(i)), s));
            i += V::LANES;
        }
        if i < len {
            let x = mapped(map, V::load_n(at.add(i), len - i), s);
            acc[1] = combined(how, acc[1], V::select(V::M::first(len - i), x, neutral));
        }
    }
    lanes(how, combined(how, combined(how, acc[0], acc[1]), combined(how, acc[2], acc[3])))
}

/// The greatest of `len` numbers in a line, for callers to whom any number is right where one is NaN.
/// # Safety
/// `at` is valid for reading `len` f32.
#[inline(always)]
pub unsafe fn top<V: F32>(at: *const f32, len: usize) -> f32 {
    let mut acc = [V::splat(f32::NEG_INFINITY); 4];
    let mut i = 0;
    // SAFETY: reads below `len` only.
    unsafe {
        while i + 4 * V::LANES <= len {
            for (k, a) in acc.iter_mut().enumerate() {
                *a = a.max(V::load(at.add(i + k * V::LANES)));
            }
            i += 4 * V::LANES;
        }
        while i < len {
            let n = V::LANES.min(len - i);
            let x = V::load_n(at.add(i), n);
            acc[0] = acc[0].max(V::select(V::M::first(n), x, acc[0]));
            i += n;
        }
    }
    acc[0].max(acc[1]).max(acc[2].max(acc[3])).max_lane()
}

/// [`row`] as a kernel of its own.
pub struct Row {
    /// What is done first.
    pub map: Map,
    /// What is done then.
    pub how: Combine,
    /// The numbers.
    pub at: *const f32,
    /// How many.
    pub len: usize,
    /// What `Square` and `Exp` take off.
    pub shift: f32,
}

impl Kernel for Row {
    type Out = f64;
    #[inline(always)]
    fn run<V: F32>(self) -> f64 {
        let Row { how, at, len, shift, .. } = self;
        // Each combination its own loop: the matches inside are decided at compile time.
        // SAFETY: whoever made the Row answers for the pointer.
        unsafe {
            match (self.map, how) {
                (Map::Identity, Combine::Sum) => row::<V>(Map::Identity, Combine::Sum, at, len, shift),
                (Map::Identity, Combine::Product) => row::<V>(Map::Identity, Combine::Product, at, len, shift),
                (Map::Identity, Combine::Max) => row::<V>(Map::Identity, Combine::Max, at, len, shift),
                (Map::Identity, Combine::Min) => row::<V>(Map::Identity, Combine::Min, at, len, shift),
                (Map::Abs, _) => row::<V>(Map::Abs, Combine::Sum, at, len, shift),
                (Map::Square, _) => row::<V>(Map::Square, Combine::Sum, at, len, shift),
                (Map::Exp, _) => row::<V>(Map::Exp, Combine::Sum, at, len, shift),
            }
        }
    }
}

/// One result a row, for rows that lie `step` numbers apart: short rows share the cost of the call.
pub struct Rows {
    /// What is done first.
    pub map: Map,
    /// What is done then.
    pub how: Combine,
    /// The first row.
    pub at: *const f32,
    /// From row to row.
    pub step: isize,
    /// How many.
    pub rows: usize,
    /// How long.
    pub len: usize,
    /// The results.
    pub to: *mut f64,
}

impl Kernel for Rows {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let Rows { map, how, at, step, rows, len, to } = self;
        for i in 0..rows {
            // SAFETY: whoever made the Rows answers for the pointers.
            unsafe { *to.add(i) = Row { map, how, at: at.offset(i as isize * step), len, shift: 0.0 }.run::<V>() };
        }
    }
}

/// Rows laid on one another: `acc[j]` takes in `x[i][j]` for each of `rows` rows, `step` numbers apart.
pub struct Columns {
    /// What is done first.
    pub map: Map,
    /// What is done then.
    pub how: Combine,
    /// The first row.
    pub at: *const f32,
    /// From row to row.
    pub step: isize,
    /// How many.
    pub rows: usize,
    /// How long.
    pub len: usize,
    /// What `Square` and `Exp` take off, a number a column.
    pub shift: *const f32,
    /// The results so far, in f64.
    pub acc: *mut f64,
}

/// Rows summed in f32 before they go into f64.
const ROWS: usize = 64;

impl Columns {
    #[inline(always)]
    unsafe fn strip<V: F32>(&self, map: Map, how: Combine) {
        let mut j = 0;
        while j < self.len {
            let n = V::LANES.min(self.len - j);
            // SAFETY: the columns j .. j + n of all rows, `acc` and (where it is used) `shift`.
            unsafe {
                let shift = match map {
                    Map::Square | Map::Exp => V::load_n(self.shift.add(j), n),
                    _ => V::zero(),
                };
                let mut first = 0;
                while first < self.rows {
                    let rows = ROWS.min(self.rows - first);
                    let mut sum = V::splat(how.start() as f32);
                    if n == V::LANES {
                        for i in first..first + rows {
                            let x = V::load(self.at.offset(i as isize * self.step).add(j));
                            sum = combined(how, sum, mapped(map, x, shift));
                        }
                    } else {
                        for i in first..first + rows {
                            let x = V::load_n(self.at.offset(i as isize * self.step).add(j), n);
                            sum = combined(how, sum, mapped(map, x, shift));
                        }
                    }
                    let lanes = sum.to_array();
                    for (k, lane) in lanes[..n].iter().enumerate() {
                        let a = self.acc.add(j + k);
                        *a = how.join(*a, f64::from(*lane));
                    }
                    first += rows;
                }
            }
            j += n;
        }
    }
}

impl Kernel for Columns {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        // SAFETY: whoever made the Columns answers for the pointers.
        unsafe {
            match (self.map, self.how) {
                (Map::Identity, Combine::Sum) => self.strip::<V>(Map::Identity, Combine::Sum),
                (Map::Identity, Combine::Product) => self.strip::<V>(Map::Identity, Combine::Product),
                (Map::Identity, Combine::Max) => self.strip::<V>(Map::Identity, Combine::Max),
                (Map::Identity, Combine::Min) => self.strip::<V>(Map::Identity, Combine::Min),
                (Map::Abs, _) => self.strip::<V>(Map::Abs, Combine::Sum),
                (Map::Square, _) => self.strip::<V>(Map::Square, Combine::Sum),
                (Map::Exp, _) => self.strip::<V>(Map::Exp, Combine::Sum),
            }
        }
    }
}
