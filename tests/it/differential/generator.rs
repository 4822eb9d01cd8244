//! What a random graph is drawn with: its values, of which range and error are known, and the scopes they live in.
//!
//! Every value carries bounds, computed as in interval arithmetic: the exact result lies in `low..=high`, and whatever order a
//! correct evaluation takes, its answer lies within `error` of the exact result. Operators that jump (comparisons, rounding,
//! indices) are only given values without error, and nothing is drawn that would let a range or an error grow far. So two
//! evaluations may differ by twice the error, and by no more.

use crate::properties::draw::{Draw, epsilon};
use crate::properties::reference;
use crate::tiny::Tiny;
use ortx::DType::{self, F16, F32, F64};
use ortx::Tensor;
use std::collections::BTreeSet;

/// How many sets of sizes and data a graph is run with.
pub const SETS: usize = 3;
/// A size, for each set.
pub type Size = [usize; SETS];
/// A value's place in the list.
pub type Id = usize;

/// A value of the graph.
#[derive(Clone, Debug)]
pub struct Val {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<Size>,
    pub low: f64,
    pub high: f64,
    pub error: f64,
    /// The sizes are upper bounds: they hang on data.
    pub loose: bool,
    pub constant: Option<Tensor>,
    /// Which scope made it.
    pub scope: usize,
}

impl Val {
    pub fn rank(&self) -> usize {
        self.dims.len()
    }
    /// The largest magnitude.
    pub fn most(&self) -> f64 {
        self.low.abs().max(self.high.abs())
    }
    pub fn exact(&self) -> bool {
        self.error == 0.0
    }
    pub fn is_float(&self) -> bool {
        self.dtype.is_float()
    }
    /// No set has it empty.
    pub fn full(&self) -> bool {
        self.dims.iter().all(|d| d.iter().all(|&n| n > 0))
    }
    /// Elements, the most of any set.
    pub fn count(&self) -> usize {
        count(&self.dims)
    }
    /// Its sizes as a model declares them, where no name is given.
    fn declared(&self) -> Vec<String> {
        self.dims.iter().map(|s| if fixed(s) && !self.loose { s[0].to_string() } else { "?".into() }).collect()
    }
    /// A value with other bounds.
    pub fn bounds(mut self, low: f64, high: f64, error: f64) -> Val {
        (self.low, self.high, self.error) = (low, high, error);
        self
    }
    pub fn of(mut self, dtype: DType) -> Val {
        self.dtype = dtype;
        self
    }
    pub fn sized(mut self, dims: Vec<Size>) -> Val {
        self.dims = dims;
        self
    }
}

pub fn texts(all: &[String]) -> Vec<&str> {
    all.iter().map(|s| &**s).collect()
}
pub fn fixed(s: &Size) -> bool {
    s.iter().all(|n| *n == s[0])
}
pub fn count(dims: &[Size]) -> usize {
    (0..SETS).map(|k| dims.iter().map(|d| d[k]).product()).max().unwrap_or(0)
}
pub fn sizes(of: &[usize]) -> Vec<Size> {
    of.iter().map(|&n| [n; SETS]).collect()
}
/// A size made of others, set by set.
pub fn each(f: impl Fn(usize) -> usize) -> Size {
    std::array::from_fn(f)
}
/// What both shapes are broadcast to.
pub fn broadcast(a: &[Size], b: &[Size]) -> Option<Vec<Size>> {
    let rank = a.len().max(b.len());
    let at = |s: &[Size], i: usize, k: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank][k] };
    let fits = (0..rank)
        .all(|i| (0..SETS).all(|k| matches!((at(a, i, k), at(b, i, k)), (x, y) if x == y || x == 1 || y == 1)));
    let one = |x: usize, y: usize| if x == 1 { y } else { x };
    fits.then(|| (0..rank).map(|i| each(|k| one(at(a, i, k), at(b, i, k)))).collect())
}

/// An attribute.
pub enum A {
    I(i64),
    F(f32),
    Is(Vec<i64>),
    S(&'static str),
    G(Tiny),
    T(Tensor),
}
pub type Attrs = Vec<(&'static str, A)>;

#[derive(Default)]
struct Scope {
    graph: Tiny,
    /// Values that anyone may use.
    pool: Vec<Id>,
}

/// A graph on its way.
pub struct Gen<'a> {
    pub d: Draw<'a>,
    pub vals: Vec<Val>,
    scopes: Vec<Scope>,
    feeds: Vec<Id>,
    used: BTreeSet<Id>,
    kept: BTreeSet<Id>,
    symbols: Vec<Size>,
    /// No value has more elements.
    largest: usize,
    /// Numbers that are none are fed: only what says what becomes of them is drawn.
    pub odd: bool,
    /// Inside an idiom: what it makes in between is its own, but for perturbations.
    closed: usize,
    /// Names made so far.
    names: usize,
}

/// A finished graph.
pub struct Made {
    pub graph: Tiny,
    pub inputs: Vec<Val>,
    pub odd: bool,
    /// All there are, those of inner graphs too.
    pub values: Vec<Val>,
}

impl<'a> Gen<'a> {
    pub fn new(mut d: Draw<'a>) -> Gen<'a> {
        let dynamic = d.below(3) > 0;
        let odd = d.one_in(10);
        // Now and then large enough that threads share the work.
        let largest = if d.one_in(24) { 60_000 } else { 6000 };
        let symbols = if dynamic { (0..1 + d.below(2)).map(|_| each_drawn(&mut d)).collect() } else { Vec::new() };
        Gen {
            d,
            vals: Vec::new(),
            scopes: vec![Scope { graph: Tiny::new("random"), pool: Vec::new() }],
            feeds: Vec::new(),
            used: BTreeSet::new(),
            kept: BTreeSet::new(),
            symbols,
            odd,
            largest,
            closed: 0,
            names: 0,
        }
    }
    pub fn depth(&self) -> usize {
        self.scopes.len() - 1
    }
    fn fresh(&mut self, letter: char) -> String {
        self.names += 1;
        format!("{letter}{}", self.names)
    }
    pub fn val(&self, id: Id) -> &Val {
        &self.vals[id]
    }
    /// A copy, to make another from.
    pub fn get(&self, id: Id) -> Val {
        Val { constant: None, ..self.vals[id].clone() }
    }
    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("the outermost never closes")
    }
    fn push(&mut self, v: Val, seen: bool) -> Id {
        self.vals.push(v);
        let id = self.vals.len() - 1;
        if seen {
            self.scope().pool.push(id);
        }
        id
    }

    // Sizes.

    /// A size of an input: fixed, or one of the graph's symbols.
    pub fn size(&mut self) -> Size {
        if !self.symbols.is_empty() && self.d.below(3) == 0 {
            let at = self.d.below(self.symbols.len());
            return self.symbols[at];
        }
        let large = self.largest > 6000 && self.d.flag();
        [self.d.size() * if large { 4 } else { 1 }; SETS]
    }
    /// A size that is not zero in any set, and not above `most`.
    pub fn full_size(&mut self, most: usize) -> Size {
        let (s, most) = (self.size(), if self.largest > 6000 { 3 * most } else { most });
        each(|k| s[k].clamp(1, most))
    }
    pub fn shape(&mut self, low: usize, high: usize) -> Vec<Size> {
        let rank = self.d.within(low as i64, high as i64) as usize;
        let mut dims: Vec<Size> = (0..rank).map(|_| self.size()).collect();
        while count(&dims) > self.largest {
            let most = dims.iter_mut().max_by_key(|d| d.iter().max().copied()).expect("a large one");
            *most = each(|k| most[k] / 2);
        }
        dims
    }
    pub fn fits(&self, dims: &[Size]) -> Option<()> {
        let all = dims.iter().all(|d| d.iter().all(|&n| n <= self.largest));
        (all && count(dims) <= self.largest).then_some(())
    }

    // Values.

    fn blank(&self, dtype: DType, dims: &[Size]) -> Val {
        Val {
            name: String::new(),
            dtype,
            dims: dims.to_vec(),
            low: 0.0,
            high: 0.0,
            error: 0.0,
            loose: false,
            constant: None,
            scope: self.depth(),
        }
    }
    /// An input of the model.
    pub fn feed(&mut self, dtype: DType, dims: &[Size], low: f64, high: f64) -> Id {
        // What is drawn between numbers of the type does not leave them when it is rounded.
        let own = |x: f64| if dtype == F16 { half::f16::from_f64(x).to_f64() } else { x };
        let mut v = self.blank(dtype, dims).bounds(own(low), own(high), 0.0);
        (v.name, v.scope) = (self.fresh('x'), 0);
        self.vals.push(v);
        let id = self.vals.len() - 1;
        self.scopes[0].pool.push(id);
        self.feeds.push(id);
        id
    }
    /// A constant; integers and numbers that an operator needs to know are never drawn otherwise.
    pub fn constant(&mut self, t: Tensor) -> Id {
        let name = self.fresh('c');
        let all = ortx::ops::case::to_f64s(&t).unwrap_or_default();
        let (low, high) = all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &x| (l.min(x), h.max(x)));
        let (low, high) = if all.is_empty() { (0.0, 0.0) } else { (low, high) };
        let mut v = self.blank(t.dtype(), &sizes(t.shape())).bounds(low, high, 0.0);
        (v.name, v.constant) = (name.clone(), Some(t.clone()));
        let node = self.d.one_in(12);
        let scope = self.scope();
        let g = std::mem::take(&mut scope.graph);
        scope.graph = if node {
            g.node("Constant", &[], &[&name]).value("value", &t)
        } else {
            g.initializer(crate::tiny::message(&name, &t))
        };
        self.push(v, false)
    }
    pub fn ints(&mut self, of: &[i64]) -> Id {
        self.constant(Tensor::from_slice(&[of.len()], of).unwrap())
    }
    pub fn int(&mut self, n: i64) -> Id {
        self.constant(Tensor::scalar(n).unwrap())
    }
    /// One number to go with a float; inside an idiom another one now and then.
    pub fn number(&mut self, with: Id, x: f64) -> Id {
        let x = if self.closed > 0 && self.d.one_in(30) { x * 1.25 } else { x };
        let v = self.get(with);
        let shape: &[usize] = if v.rank() > 0 && self.d.one_in(3) { &[1] } else { &[] };
        self.constant(reference::tensor(v.dtype, shape, &[x]))
    }
    /// Numbers between -bound and bound: a constant mostly, an input where it may be.
    pub fn weights(&mut self, dtype: DType, shape: &[usize], bound: f64) -> Id {
        // Never NaN: whether a border of zeros meets a weight, is the kernel's affair.
        if self.d.one_in(12) && !self.odd {
            return self.feed(dtype, &sizes(shape), -bound, bound);
        }
        // The same weights in several places.
        if self.d.one_in(6) {
            let fits = |v: &Val| {
                let t = v.constant.as_ref().filter(|_| v.scope == 0);
                t.is_some_and(|t| t.dtype() == dtype && t.shape() == shape) && v.most() <= bound
            };
            if let Some(at) = self.vals.iter().rposition(fits) {
                return at;
            }
        }
        let t = self.d.values(dtype, shape, -bound, bound);
        self.constant(t)
    }
    /// Constant numbers in a range.
    pub fn spread(&mut self, dtype: DType, shape: &[usize], low: f64, high: f64) -> Id {
        let t = self.d.values(dtype, shape, low, high);
        self.constant(t)
    }

    /// One of the values at hand, of late rather than of old.
    pub fn pick(&mut self, ok: impl Fn(&Val) -> bool) -> Option<Id> {
        let all: Vec<Id> =
            self.scopes.iter().flat_map(|s| s.pool.iter().copied()).filter(|&v| ok(&self.vals[v])).collect();
        (!all.is_empty()).then(|| {
            let back = self.d.below(all.len()).min(self.d.below(all.len()));
            all[all.len() - 1 - back]
        })
    }
    /// A tame float, or a new input.
    pub fn float(&mut self, ok: impl Fn(&Val) -> bool) -> Option<Id> {
        self.pick(|v| tame(v) && v.is_float() && ok(v))
    }
    /// The same of f32, f16 or f64 with a rank between both; an input is made where there is none.
    pub fn operand(&mut self, low: usize, high: usize, ok: impl Fn(&Val) -> bool) -> Option<Id> {
        let fits = |v: &Val| v.rank() >= low && v.rank() <= high && ok(v);
        if let (false, Some(v)) = (self.d.one_in(8), self.float(fits)) {
            return Some(v);
        }
        let dtype = self.float_type();
        let dims = self.shape(low, high);
        let made = self.blank(dtype, &dims).bounds(-2.0, 2.0, 0.0);
        if ok(&made) {
            return Some(self.feed(dtype, &dims, -2.0, 2.0));
        }
        let dims: Vec<Size> = dims.iter().map(|d| each(|k| d[k].max(1))).collect();
        let made = self.blank(dtype, &dims).bounds(-2.0, 2.0, 0.0);
        (ok(&made) && self.fits(&dims).is_some()).then(|| self.feed(dtype, &dims, -2.0, 2.0))
    }
    pub fn float_type(&mut self) -> DType {
        self.d.pick(&[F32, F32, F32, F32, F32, F32, F32, F16, F64])
    }
    /// A constant, or a value at hand, that is broadcast to `x` (or with it) and of its type.
    pub fn partner(&mut self, x: Id) -> Option<Id> {
        let v = self.get(x);
        if self.d.below(3) == 0 || !v.is_float() {
            let (dtype, dims, largest) = (v.dtype, v.dims.clone(), self.largest);
            let found = self.pick(|w| {
                w.dtype == dtype && tame(w) && broadcast(&w.dims, &dims).is_some_and(|d| count(&d) <= largest)
            });
            if let Some(id) = found {
                return Some(id);
            }
        }
        let keep = self.d.below(v.rank() + 1);
        let shape: Option<Vec<usize>> =
            v.dims[keep..].iter().map(|s| if !fixed(s) || self.d.one_in(4) { Some(1) } else { Some(s[0]) }).collect();
        let t = self.d.values(v.dtype, &shape?, -2.0, 2.0);
        Some(self.constant(t))
    }

    // Nodes.

    /// Adds a node. `outputs` tell what it makes.
    pub fn node(&mut self, op: &str, inputs: &[Option<Id>], attrs: Attrs, outputs: Vec<Val>) -> Option<Vec<Id>> {
        for v in &outputs {
            self.fits(&v.dims)?;
        }
        self.used.extend(inputs.iter().flatten());
        let names: Vec<String> = outputs.iter().map(|_| self.fresh('v')).collect();
        let takes: Vec<&str> = inputs.iter().map(|v| v.map_or("", |v| &*self.vals[v].name)).collect();
        let gives: Vec<&str> = names.iter().map(|n| &**n).collect();
        let mut g = std::mem::take(&mut self.scopes.last_mut().expect("one is open").graph).node(op, &takes, &gives);
        for (name, a) in attrs {
            g = match a {
                A::I(n) => g.int(name, n),
                A::F(x) => g.float(name, x),
                A::Is(v) => g.ints(name, &v),
                A::S(s) => g.text(name, s),
                A::G(body) => g.graph(name, body),
                A::T(t) => g.value(name, &t),
            };
        }
        let loose = inputs.iter().flatten().any(|&v| self.vals[v].loose);
        let depth = self.depth();
        let scope = self.scope();
        scope.graph = g;
        let shown = self.closed == 0;
        let mut made = Vec::new();
        for (v, name) in outputs.into_iter().zip(names) {
            let v = Val { name, loose: v.loose || loose, scope: depth, constant: None, ..v };
            // Values of an idiom that others see make near-misses.
            let other = !shown && self.d.one_in(40);
            let seen = (shown || other) && !v.loose;
            let id = self.push(v, seen);
            if other {
                self.kept.insert(id);
            }
            made.push(id);
        }
        Some(made)
    }
    /// The same for one output; inside an idiom something that does nothing may follow.
    pub fn one(&mut self, op: &str, inputs: &[Id], attrs: Attrs, output: Val) -> Option<Id> {
        let inputs: Vec<Option<Id>> = inputs.iter().map(|&v| Some(v)).collect();
        let id = self.node(op, &inputs, attrs, vec![output])?[0];
        if self.closed > 0 && self.d.one_in(60) {
            let v = self.get(id);
            return Some(self.node("Identity", &[Some(id)], vec![], vec![v])?[0]);
        }
        Some(id)
    }
    /// What analysis knows better than intervals do.
    pub fn refine(&mut self, id: Id, low: f64, high: f64, error: f64) -> Id {
        let v = &mut self.vals[id];
        (v.low, v.high, v.error) = (v.low.max(low), v.high.min(high), v.error.min(error));
        id
    }
    /// Makes a value an output of the model as well, where it can be.
    pub fn keep(&mut self, id: Id) {
        self.kept.insert(id);
    }
    /// A value whose sizes are known although they were made from some that hang on data.
    pub fn settle(&mut self, id: Id) -> Option<Id> {
        self.vals[id].loose = false;
        Some(id)
    }
    /// Runs `f` as an idiom: only what it returns is seen by others.
    pub fn idiom(&mut self, f: impl FnOnce(&mut Self) -> Option<Id>) -> Option<Id> {
        self.closed += 1;
        let made = f(self);
        self.closed -= 1;
        if let Some(id) = made
            && !self.vals[id].loose
            && self.closed == 0
        {
            self.scope().pool.push(id);
        }
        made
    }

    // Scopes.

    /// Makes an inner graph: `f` returns its outputs. Values of the scopes around can be used, and are captured.
    pub fn body(
        &mut self,
        inputs: &[Val],
        f: impl FnOnce(&mut Self, &[Id]) -> Option<Vec<Id>>,
    ) -> Option<(Tiny, Vec<Val>)> {
        let name = self.fresh('g');
        let closed = std::mem::take(&mut self.closed);
        self.scopes.push(Scope { graph: Tiny::new(&name), pool: Vec::new() });
        let ids: Vec<Id> = inputs
            .iter()
            .map(|v| {
                let name = self.fresh('i');
                let dims = v.declared();
                let g = std::mem::take(&mut self.scope().graph);
                self.scope().graph = g.input(&name, v.dtype as i32, &texts(&dims));
                let v = Val { name, constant: None, scope: self.depth(), ..v.clone() };
                self.push(v, true)
            })
            .collect();
        let made = f(self, &ids);
        self.closed = closed;
        let depth = self.depth();
        // An output must be made by the graph itself, and be one output only.
        let made = made.and_then(|list| {
            let mut outs = Vec::new();
            for id in list {
                let own = self.vals[id].scope == depth && !ids.contains(&id) && !outs.contains(&id);
                let own = own && self.vals[id].constant.is_none();
                let v = self.get(id);
                outs.push(if own { id } else { self.node("Identity", &[Some(id)], vec![], vec![v])?[0] });
            }
            Some(outs)
        });
        let mut scope = self.scopes.pop().expect("pushed above");
        let outs = made?;
        for &id in &outs {
            let v = &self.vals[id];
            scope.graph = scope.graph.output_of(&v.name, v.dtype as i32, &texts(&v.declared()));
        }
        Some((scope.graph, outs.into_iter().map(|id| self.get(id)).collect()))
    }

    /// Ends the graph. Its outputs are the values that nobody uses, but for some, and some that are used.
    pub fn finish(mut self) -> Option<Made> {
        let mut graph = std::mem::take(&mut self.scopes[0].graph);
        let made: BTreeSet<&str> = graph.0.node.iter().flat_map(|n| n.output.iter().map(|s| &**s)).collect();
        let own: Vec<Id> = (0..self.vals.len())
            .filter(|&id| {
                self.vals[id].scope == 0 && self.vals[id].constant.is_none() && made.contains(&*self.vals[id].name)
            })
            .collect();
        let mut outs = Vec::new();
        for &id in &own {
            let chosen = match (self.kept.contains(&id), self.used.contains(&id)) {
                (true, _) => true,
                (_, false) => !self.d.one_in(16),
                _ => self.d.one_in(12),
            };
            if chosen {
                outs.push(id);
            }
        }
        if outs.is_empty() {
            outs.push(*own.last()?);
        }
        for &id in &outs {
            let v = &self.vals[id];
            graph = graph.output_of(&v.name, v.dtype as i32, &texts(&v.declared()));
        }
        let inputs = self.feeds.iter().map(|&id| self.vals[id].clone()).collect();
        Some(Made { graph, inputs, odd: self.odd, values: self.vals })
    }
}

fn each_drawn(d: &mut Draw) -> Size {
    let mut s = [0; SETS];
    s.iter_mut().for_each(|n| *n = d.size().min(40));
    s
}

/// What may be worked on: neither large nor blurred, so that no bound becomes vain.
pub fn tame(v: &Val) -> bool {
    let most = match v.dtype {
        F32 => 1e-3,
        F64 => 1e-9,
        F16 => 0.06,
        _ => 0.0,
    };
    v.most() <= 32.0 && v.error <= most && !v.loose
}

/// So many roundings of the type, for a result of such magnitude. The least normal number is for what is flushed to zero.
pub fn rounding(dtype: DType, times: f64, most: f64) -> f64 {
    let least = match dtype {
        F32 => 2e-38,
        F64 => 4e-308,
        F16 => 1.3e-4,
        _ => 0.0,
    };
    epsilon(dtype, times) * most + least
}
