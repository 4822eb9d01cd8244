//! Follows an operand of attention up through what only rearranges it, to the tensor it is a part of.
//!
//! The operand is seen as axes, each with its role, over the dense memory of some value. A reshape leaves that memory as it is;
//! a transposition permutes the axes; cutting (Split, Slice, Gather of one place) makes an axis part of a longer one; repeating
//! key heads drops an axis; a number that multiplies is kept for the scale.

use super::ALL;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Dim, NodeId, ValueId};
use crate::ops::attention::{Axis, Role, View};
use crate::ops::movement::{Concat, Expand, Gather, Slice, Split, Tile, Transpose};
use crate::ops::pointwise::BinaryFn;
use crate::ops::shape::{Identity, Reshape, Squeeze, Unsqueeze};
use crate::optimize::PassCtx;
use crate::optimize::pass::Regroup;
use crate::optimize::pattern::binary;

/// An axis of the dense memory under an operand.
#[derive(Clone, Debug)]
struct Part {
    role: Role,
    /// Its whole length.
    size: Dim,
    first: usize,
    count: Option<usize>,
    /// How many of its role lie between two neighbours of it: those of the faster parts of an axis that was cut.
    step: Dim,
}

impl Part {
    fn whole(role: Role, size: Dim) -> Part {
        Part { role, size, first: 0, count: None, step: Dim::Known(1) }
    }
    fn is_one(&self) -> bool {
        self.size.known() == Some(1)
    }
    /// Whether both are whole, and one axis: `next` goes on where this one steps.
    fn is_before(&self, next: &Part) -> bool {
        let whole = self.role == next.role && self.role != Role::Place && whole(self) && whole(next);
        whole && self.step.same(&(next.step.clone() * next.size.clone()))
    }
}

/// An operand found.
#[derive(Clone, Debug)]
pub struct Operand {
    /// The tensor it is a part of.
    pub value: ValueId,
    /// The axes that have the roles, if they are not its own.
    pub axes: Option<Regroup>,
    /// The axes.
    pub view: View,
    /// What the numbers on the way multiply it with.
    pub scale: f64,
    /// Past rows before it.
    pub past: Option<Past>,
}

/// Rows that the operator puts before new ones.
#[derive(Clone, Debug)]
pub struct Past {
    /// Of batch, heads, rows, size.
    pub rows: ValueId,
    /// The value that holds both.
    pub both: ValueId,
    /// The order in which that has the operator's axes, if it is another.
    pub order: Option<Vec<usize>>,
}

impl Operand {
    /// Whether it is a whole tensor of batch, heads, rows, size, in this order.
    pub fn is_plain(&self) -> bool {
        let roles: Vec<Role> = self.view.iter().map(|a| a.role).collect();
        let whole = self.view.iter().all(|a| a.first == 0 && a.count.is_none());
        whole && roles == [Role::Batch, Role::Head, Role::Row, Role::Size]
    }
}

/// The axes of keys and values where rows come before heads.
const ROWS_FIRST: &[Role] = &[Role::Batch, Role::Row, Role::Head, Role::Size];

/// Steps followed at most.
const STEPS: usize = 32;

/// Finds what `value`, whose axes have the given roles, is a part of; with `joins`, past rows may be told from new ones, and
/// `heads` says how many heads there are where one axis has batches and heads. `None` if it cannot be given to the operator even
/// as it is.
pub fn trace(
    cx: &PassCtx<'_, '_>,
    value: ValueId,
    roles: &[Role],
    heads: Option<&Dim>,
    joins: bool,
) -> Option<Operand> {
    let mut t = Trace::new(cx, value, roles, heads)?;
    t.joins = joins;
    let mut best = t.operand();
    for _ in 0..STEPS {
        if t.step().is_none() {
            break;
        }
        best = t.operand().or(best);
    }
    best
}

/// Where the operator's result goes.
pub struct Target {
    pub value: ValueId,
    /// The axes that the operator makes; those of the value are these, regrouped, if not the same.
    pub order: Vec<Role>,
    pub regrouped: bool,
    /// The nodes on the way.
    pub through: Vec<NodeId>,
}

/// Follows a result, whose axes have the given roles, down through views and transpositions, each its only reader, as far as the
/// operator can write it as it lies there; `heads` is that of [`trace`].
pub fn follow(cx: &PassCtx<'_, '_>, value: ValueId, roles: &[Role], heads: Option<&Dim>) -> Option<Target> {
    let mut t = Trace::new(cx, value, roles, heads)?;
    let (mut best, mut through, mut moved) = (None, Vec::new(), true);
    loop {
        // Views behind it can stay where they are.
        if let Some(o) = t.operand().filter(|o| moved || o.axes.is_none()) {
            let order = o.view.iter().map(|a| a.role).collect();
            best = Some(Target { value: t.value, order, regrouped: o.axes.is_some(), through: through.clone() });
            moved = false;
        }
        let Some(node) = t.down().filter(|_| through.len() < STEPS) else { return best };
        moved |= cx.op::<Transpose>(node).is_some();
        through.push(node);
    }
}

/// Follows a value up through views and transpositions of which each is for this alone, and tells the roles of the axes that it had
/// there: several stand for rows, or for keys, if those were cut.
pub fn rearranged(cx: &PassCtx<'_, '_>, v: ValueId, roles: &[Role]) -> Option<(ValueId, Vec<Role>)> {
    let mut t = Trace::new(cx, v, roles, None)?;
    loop {
        let (_, node) = cx.made_by(t.value)?;
        if node.op.alias() != Alias::View && !node.op.is::<Transpose>() || t.value != v && !cx.used_once(t.value) {
            break;
        }
        t.step()?;
    }
    let groups = t.groups(t.value).filter(|_| t.value != v)?;
    // What was cut stands in its order.
    let mut last: Vec<&Part> = Vec::new();
    for p in groups.iter().flatten().filter(|p| !p.is_one()) {
        match last.iter_mut().find(|l| l.role == p.role) {
            Some(l) => *l = Some(p).filter(|p| l.is_before(p))?,
            None => last.push(p),
        }
    }
    let of = |g: &Vec<Part>| {
        let long = g.iter().find(|p| !p.is_one()).or(g.first());
        let role = long.map_or(Role::Head, |p| p.role);
        g.iter().all(|p| p.role == role || p.is_one()).then_some(role)
    };
    Some((t.value, groups.iter().map(of).collect::<Option<_>>()?))
}

struct Trace<'c, 'a, 'g> {
    cx: &'c PassCtx<'a, 'g>,
    value: ValueId,
    parts: Vec<Part>,
    joins: bool,
    /// The parts are the value's own axes.
    exact: bool,
    scale: f64,
    past: Option<Past>,
}

impl<'c, 'a, 'g> Trace<'c, 'a, 'g> {
    fn new(cx: &'c PassCtx<'a, 'g>, value: ValueId, roles: &[Role], heads: Option<&Dim>) -> Option<Self> {
        let dims = cx.dims(value)?;
        (dims.len() == roles.len()).then_some(())?;
        let heads = heads.filter(|_| !roles.contains(&Role::Batch));
        let part = |(&r, d): (&Role, &Dim)| match heads {
            Some(h) if r == Role::Head => vec![Part::whole(Role::Batch, d.floor_div(h)), Part::whole(r, h.clone())],
            _ => vec![Part::whole(r, d.clone())],
        };
        let mut parts: Vec<Part> = roles.iter().zip(dims).flat_map(part).collect();
        for i in (1..parts.len()).rev() {
            if parts[i].role == parts[i - 1].role {
                parts[i - 1].step = parts[i].step.clone() * parts[i].size.clone();
            }
        }
        Some(Trace { cx, value, parts, joins: false, exact: heads.is_none(), scale: 1.0, past: None })
    }

    /// The state as an operand, if the operator takes it.
    fn operand(&self) -> Option<Operand> {
        // Neighbours of one role are one axis; axes of length 1 that count nothing go.
        let mut parts: Vec<Part> = Vec::new();
        for p in &self.parts {
            if p.is_one() && (p.role == Role::Place || !self.exact && !matches!(p.role, Role::Size)) {
                continue;
            }
            match parts.last_mut() {
                Some(l) if l.is_before(p) => {
                    l.size = l.size.clone() * p.size.clone();
                    l.step = p.step.clone();
                }
                _ => parts.push(p.clone()),
            }
        }
        (parts.last()?.role == Role::Size).then_some(())?;
        for r in [Role::Batch, Role::Head, Role::Row, Role::Size] {
            (parts.iter().filter(|p| p.role == r).count() <= 1).then_some(())?;
        }
        let own = self.cx.dims(self.value)?;
        let same = parts.len() == own.len()
            && (self.exact && parts.len() == self.parts.len() || parts.iter().zip(own).all(|(p, d)| p.size.same(d)));
        let sizes: Vec<Dim> = parts.iter().map(|p| p.size.clone()).collect();
        let axes = if same { None } else { Some(Regroup::of(&sizes, own)?) };
        let view = parts.iter().map(|p| Axis { role: p.role, first: p.first, count: p.count }).collect();
        Some(Operand { value: self.value, axes, view, scale: self.scale, past: self.past.clone() })
    }

    /// One step down, through the node told.
    fn down(&mut self) -> Option<NodeId> {
        let &[user] = self.cx.edit.users(self.value) else { return None };
        let node = self.cx.node(user).filter(|n| n.inputs.first() == Some(&Some(self.value)))?;
        let to = node.outputs.first().copied().flatten().filter(|_| !self.cx.edit.is_output(self.value))?;
        self.cx.dims(to)?;
        if let Some(t) = node.op.downcast::<Transpose>() {
            let groups = self.groups(self.value)?;
            let perm = t.perm.clone().unwrap_or_else(|| (0..groups.len()).rev().collect());
            let turned: Option<Vec<Vec<Part>>> = perm.iter().map(|&p| groups.get(p).cloned()).collect();
            self.parts = turned?.concat();
        } else {
            (node.op.alias() == Alias::View).then_some(())?;
            self.exact = false;
        }
        self.value = to;
        Some(user)
    }

    /// One step up. `None` where the way ends.
    fn step(&mut self) -> Option<()> {
        let (id, place) = self.cx.graph().value(self.value).producer?;
        let node = self.cx.node(id)?;
        let x = node.inputs.first().copied().flatten()?;
        let op = &*node.op;
        let second = node.inputs.get(1).copied().flatten();
        if op.is::<Identity>() {
            self.value = x;
            return Some(());
        }
        if op.is::<Reshape>() || op.is::<Squeeze>() || op.is::<Unsqueeze>() {
            // Sizes must be known well enough to be found again.
            self.value = x;
            self.exact = false;
            return self.cx.dims(x).map(|_| ());
        }
        if let Some(f) = binary(op).filter(|_| self.past.is_none()) {
            let y = second?;
            let (from, k) = match (f, self.cx.scalar(x), self.cx.scalar(y)) {
                (BinaryFn::Mul, _, Some(k)) => (x, k),
                (BinaryFn::Mul, Some(k), _) => (y, k),
                (BinaryFn::Div, _, Some(k)) => (x, 1.0 / k),
                // Paddle adds 0 to whatever it scales; the sign of a zero does not show in a product's sum.
                (BinaryFn::Add, _, Some(0.0)) => (x, 1.0),
                _ => return None,
            };
            let rank = |v| self.cx.dims(v).map(<[Dim]>::len);
            (rank(from) == rank(self.value)).then_some(())?;
            self.value = from;
            self.scale *= k;
            return Some(());
        }
        if let Some(t) = op.downcast::<Transpose>() {
            let groups = self.groups(self.value)?;
            let perm = t.perm.clone().unwrap_or_else(|| (0..groups.len()).rev().collect());
            let mut back: Vec<Vec<Part>> = vec![Vec::new(); groups.len()];
            for (g, &p) in groups.into_iter().zip(&perm) {
                *back.get_mut(p)? = g;
            }
            self.parts = back.into_iter().flatten().collect();
            self.value = x;
            return Some(());
        }
        if let Some(c) = op.downcast::<Concat>() {
            return self.join(c.axis, x, second.filter(|_| node.inputs.len() == 2)?);
        }
        if op.is::<Expand>() || op.is::<Tile>() {
            return self.repeat(x);
        }
        let rank = self.cx.dims(x)?.len();
        let axis = |a: i64| usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok().filter(|&a| a < rank);
        let length = |a: usize| self.cx.dims(x)?.get(a)?.size();
        if let Some(s) = op.downcast::<Split>() {
            let a = axis(s.axis)?;
            // The parts' lengths are known where their axes are.
            let of = |i: usize| self.cx.dims(node.outputs.get(i).copied().flatten()?)?.get(a)?.size();
            let given = second.and_then(|v| self.cx.graph().fact(v).as_tensor()?.ints());
            let before: usize = match &given {
                Some(v) => v.iter().take(place as usize).map(|&n| usize::try_from(n).ok()).sum::<Option<usize>>()?,
                None => (0..place as usize).map(|i| of(i).or_else(|| of(place as usize))).sum::<Option<usize>>()?,
            };
            return self.cut(x, a, before, of(place as usize)?, length(a)?);
        }
        if let Some(g) = op.downcast::<Gather>() {
            let a = axis(g.axis)?;
            let at =
                second.filter(|&v| self.cx.dims(v).is_some_and(<[Dim]>::is_empty)).and_then(|v| self.cx.integer(v))?;
            let n = length(a)?;
            let at = usize::try_from(if at < 0 { at + n as i64 } else { at }).ok().filter(|&i| i < n)?;
            let mut groups = self.groups(self.value)?;
            groups.insert(a, vec![Part { first: at, count: Some(1), ..Part::whole(Role::Place, Dim::of(n)) }]);
            self.parts = groups.into_iter().flatten().collect();
            self.value = x;
            return Some(());
        }
        if op.is::<Slice>() {
            let list = |i: usize| self.cx.graph().fact(node.inputs.get(i).copied().flatten()?).as_tensor()?.ints();
            let (starts, ends) = (list(1)?, list(2)?);
            if node.inputs.get(4).copied().flatten().is_some() && list(4)?.iter().any(|&s| s != 1) {
                return None;
            }
            let axes = if node.inputs.get(3).copied().flatten().is_some() { list(3)? } else { vec![0] };
            let ([start], [_], [a]) = (&starts[..], &ends[..], &axes[..]) else { return None };
            let a = axis(*a)?;
            let (n, count) = (length(a)?, self.cx.dims(self.value)?.get(a)?.size()?);
            let start = if *start < 0 { start + n as i64 } else { *start };
            let start = usize::try_from(start.max(0)).ok()?.min(n);
            return self.cut(x, a, start, count, n);
        }
        None
    }

    /// The parts by the axes of a value over the same memory.
    fn groups(&self, value: ValueId) -> Option<Vec<Vec<Part>>> {
        let dims = self.cx.dims(value)?;
        if self.exact && dims.len() == self.parts.len() {
            return Some(self.parts.iter().map(|p| vec![p.clone()]).collect());
        }
        align(&self.parts, dims)
    }

    /// The value is `count` places from `first` on of an axis of `x` that is `n` long.
    fn cut(&mut self, x: ValueId, axis: usize, first: usize, count: usize, n: usize) -> Option<()> {
        let mut groups = self.groups(self.value)?;
        let group = groups.get_mut(axis)?;
        let Some((outer, inner)) = group.split_first_mut() else {
            *group = vec![Part { first, count: Some(1), ..Part::whole(Role::Place, Dim::of(n)) }];
            (count == 1).then_some(())?;
            self.exact = false;
            self.parts = groups.into_iter().flatten().collect();
            self.value = x;
            return Some(());
        };
        let each = Dim::product(inner.iter().map(|p| &p.size)).size().filter(|&e| e > 0)?;
        (first.is_multiple_of(each) && n.is_multiple_of(each) && count.is_multiple_of(each)).then_some(())?;
        (outer.size.size()? == count / each).then_some(())?;
        outer.count = Some(outer.count.unwrap_or(count / each));
        outer.first += first / each;
        outer.size = Dim::of(n / each);
        self.parts = groups.into_iter().flatten().collect();
        self.value = x;
        Some(())
    }

    /// The value is past rows and new ones.
    fn join(&mut self, axis: i64, past: ValueId, fresh: ValueId) -> Option<()> {
        (self.joins && self.past.is_none()).then_some(())?;
        let groups = self.groups(self.value)?;
        let fits = |(g, &r): (&Vec<Part>, &Role)| match &g[..] {
            [] => r == Role::Batch || r == Role::Head,
            g => g.iter().all(|p| p.role == r && whole(p)),
        };
        let roles = [ALL, ROWS_FIRST].into_iter().find(|r| groups.len() == 4 && groups.iter().zip(*r).all(fits))?;
        (roles.get(resolve_axis(axis, 4).ok()?) == Some(&Role::Row)).then_some(())?;
        let dims = self.cx.dims(fresh)?;
        (dims.len() == 4 && self.cx.dims(past)?.len() == 4).then_some(())?;
        let turned = (roles == ROWS_FIRST).then(|| vec![0, 2, 1, 3]);
        let rows = match &turned {
            None => past,
            // It is its own inverse.
            order => {
                let (id, t) = self.cx.maker::<Transpose>(past)?;
                (t.perm == *order).then_some(self.cx.node(id)?.inputs.first().copied()??)?
            }
        };
        self.parts = roles.iter().zip(dims).map(|(&r, d)| Part::whole(r, d.clone())).collect();
        self.exact = true;
        self.past = Some(Past { rows, both: self.value, order: turned });
        self.value = fresh;
        Some(())
    }

    /// The value repeats `x`: key heads for groups of query heads.
    fn repeat(&mut self, x: ValueId) -> Option<()> {
        let (from, to) = (self.cx.dims(x)?, self.cx.dims(self.value)?);
        let mut groups = self.groups(self.value)?;
        (from.len() == to.len()).then_some(())?;
        for (i, (a, b)) in from.iter().zip(to).enumerate() {
            if a.same(b) {
                continue;
            }
            // Each key head stands for neighbouring query heads: the faster part of the axis.
            let heads = |p: &Part| p.role == Role::Head && whole(p);
            let (g, others) = (groups.get(i)?, groups.iter().enumerate().filter(|(j, _)| *j != i));
            let mut others = others.flat_map(|(_, g)| g).filter(|p| p.role == Role::Head && !p.is_one());
            let within = Dim::product(g.iter().map(|p| &p.size));
            let faster = others.all(|p| p.step.same(&within));
            (a.known() == Some(1) && faster && !g.is_empty() && g.iter().all(heads)).then_some(())?;
            groups[i] = Vec::new();
        }
        self.parts = groups.into_iter().flatten().collect();
        self.exact = false;
        self.value = x;
        Some(())
    }
}

fn whole(p: &Part) -> bool {
    p.first == 0 && p.count.is_none()
}

/// Deals the parts out to axes of the given sizes. One of those may go by another name: it has what the others leave.
fn align(parts: &[Part], dims: &[Dim]) -> Option<Vec<Vec<Part>>> {
    let left = |i: usize| {
        let (all, mut others) = (Dim::product(parts.iter().map(|p| &p.size)), dims.to_vec());
        others[i] = Dim::Known(1);
        let rest = all.floor_div(&Dim::product(&others));
        others[i] = rest.clone();
        (rest.known() != Some(0) && all.same(&Dim::product(&others))).then(|| deal(parts, &others))?
    };
    deal(parts, dims).or_else(|| (0..dims.len()).filter(|&i| dims[i].known().is_none()).find_map(left))
}

/// Deals the parts out to axes of the given sizes, cutting one in two where it spans more.
fn deal(parts: &[Part], dims: &[Dim]) -> Option<Vec<Vec<Part>>> {
    let mut left: std::collections::VecDeque<Part> = parts.iter().cloned().collect();
    let mut out: Vec<Vec<Part>> = Vec::with_capacity(dims.len());
    for d in dims {
        let mut group: Vec<Part> = Vec::new();
        if d.known() == Some(1) {
            if left.front().is_some_and(Part::is_one) {
                group.extend(left.pop_front());
            }
            out.push(group);
            continue;
        }
        let mut size = Dim::Known(1);
        while !size.same(d) {
            let mut p = left.pop_front()?;
            let rest = p.size.floor_div(d);
            if size.known() == Some(1) && p.size.known().is_none() && !p.size.same(d) && whole(&p) {
                if (d.clone() * rest.clone()).same(&p.size) {
                    left.push_front(Part { size: rest.clone(), ..p.clone() });
                    (p.size, p.step) = (d.clone(), p.step * rest);
                }
            } else if let (Some(have), Some(want), Some(n)) = (size.known(), d.known(), p.size.known())
                && have > 0
                && have * n > want
            {
                let outer = want / have;
                (whole(&p) && outer > 0 && want % have == 0 && n % outer == 0).then_some(())?;
                let rest = Dim::Known(n / outer);
                left.push_front(Part { size: rest.clone(), ..p.clone() });
                (p.size, p.step) = (Dim::Known(outer), p.step * rest);
            }
            size = size * p.size.clone();
            group.push(p);
        }
        out.push(group);
    }
    // Ones that are left over may stand anywhere.
    if left.iter().any(|p| !p.is_one()) {
        return None;
    }
    match out.last_mut() {
        Some(l) => l.extend(left),
        None => return left.is_empty().then_some(out),
    }
    Some(out)
}
