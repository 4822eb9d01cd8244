//! Operands of attention as parts of dense tensors whose axes lie in any order, so that nothing need be moved for it.

use super::core::Sizes;
use crate::error::Result;
use crate::ir::Dim;
use crate::kernels::attention::Lie;
use crate::{bail, ensure};

/// What an axis counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Items of the batch.
    Batch,
    /// Heads.
    Head,
    /// Rows: queries, or keys.
    Row,
    /// Elements of a row of one head.
    Size,
    /// Nothing: one place along it is taken.
    Place,
}

/// An axis of a tensor, and the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    /// What it counts.
    pub role: Role,
    /// The first place.
    pub first: usize,
    /// How many places; none for all.
    pub count: Option<usize>,
}

/// The axes of an operand, outermost first; the last is [`Role::Size`], every other role stands at most once.
pub type View = Vec<Axis>;

/// Where queries, keys, values and the result lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Views {
    /// Queries in input 0, keys in input 1, values in input 2.
    pub operands: [View; 3],
    /// The axes of the result.
    pub result: Vec<Role>,
}

/// Batch, heads, rows, size.
type Four = [Dim; 4];

fn dims_of(view: &View, dims: &[Dim]) -> Result<Four> {
    ensure!(view.len() == dims.len(), InvalidModel, "an operand of {} axes seen as {}", dims.len(), view.len());
    let mut four = [Dim::Known(1), Dim::Known(1), Dim::Known(1), Dim::Known(1)];
    for (a, d) in view.iter().zip(dims) {
        let (first, count) = (a.first as i64, a.count.map(|n| n as i64));
        if let Some(n) = d.known() {
            let last = count.map_or(Some(n), |c| first.checked_add(c));
            ensure!(first <= n && last.is_some_and(|l| l <= n), InvalidModel, "a part outside an axis of {n}");
        }
        let taken = count.map_or_else(|| d.clone() - Dim::Known(first), Dim::Known);
        match a.role {
            Role::Batch => four[0] = taken,
            Role::Head => four[1] = taken,
            Role::Row => four[2] = taken,
            Role::Size => four[3] = taken,
            Role::Place => {}
        }
    }
    Ok(four)
}

impl Views {
    /// The sizes, but for past and present; `None` where a rank is not known.
    pub(super) fn sizes(&self, dims: &dyn Fn(usize) -> Option<Vec<Dim>>) -> Result<Option<Sizes>> {
        let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(dims) else { return Ok(None) };
        let [q, k, v] =
            [dims_of(&self.operands[0], &q)?, dims_of(&self.operands[1], &k)?, dims_of(&self.operands[2], &v)?];
        for (what, a, b) in [
            ("batches of keys and values", &k[0], &v[0]),
            ("heads of keys and values", &k[1], &v[1]),
            ("rows of keys and values", &k[2], &v[2]),
            ("sizes of queries and keys", &q[3], &k[3]),
        ] {
            if let (Some(x), Some(y)) = (a.known(), b.known()) {
                ensure!(x == y, InvalidModel, "{what} differ: {x} and {y}");
            }
        }
        let [batch, heads, rows, size] = q;
        let [kv_batch, kv_heads, fresh, _] = k;
        let [.., value_size] = v;
        Ok(Some(Sizes { kv_batch, ..Sizes::new(&batch, heads, &rows).keys(kv_heads, &fresh, size, value_size) }))
    }

    /// The axes of the result.
    pub(super) fn result_dims(&self, s: &Sizes) -> Vec<Dim> {
        let of = |r: &Role| match r {
            Role::Batch => s.batch.clone(),
            Role::Head => s.heads.clone(),
            Role::Row => s.rows.clone(),
            Role::Size => s.value_size.clone(),
            Role::Place => Dim::Known(1),
        };
        self.result.iter().map(of).collect()
    }

    /// Strides of the result, whose sizes by role are given.
    pub(super) fn result_lie(&self, size: impl Fn(Role) -> usize) -> Lie {
        let mut lie = Lie::default();
        let mut step = 1;
        for &r in self.result.iter().rev() {
            match r {
                Role::Batch => lie.batch = step,
                Role::Head => lie.head = step,
                Role::Row => lie.row = step,
                Role::Size | Role::Place => {}
            }
            step *= size(r);
        }
        lie
    }

    /// The first element and the strides of an operand in a dense tensor of that shape.
    pub(super) fn lie(&self, operand: usize, shape: &[usize]) -> Result<(usize, Lie)> {
        let view = &self.operands[operand];
        if view.len() != shape.len() || view.last().is_none_or(|a| a.role != Role::Size) {
            bail!(Internal, "a view of {} axes of {shape:?}", view.len());
        }
        let (mut offset, mut lie, mut step) = (0, Lie::default(), 1);
        for (a, &n) in view.iter().zip(shape).rev() {
            offset += a.first * step;
            match a.role {
                Role::Batch => lie.batch = step,
                Role::Head => lie.head = step,
                Role::Row => lie.row = step,
                Role::Size | Role::Place => {}
            }
            step *= n;
        }
        Ok((offset, lie))
    }
}
