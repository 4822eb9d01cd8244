//! Products of attention in which batches and heads are one axis, until views tell them apart.

use super::Between;
use super::mask::{self, Mask};
use crate::error::Result;
use crate::ir::{Alias, Dim, ValueId};
use crate::optimize::PassCtx;
use crate::optimize::pass::{Regroup, same_shape};

/// How one of the products, or both, have three axes for four.
pub struct Cut {
    pub heads: Dim,
}

/// The heads, if a view puts batches and heads into one axis, or tells them apart.
pub fn heads(cx: &PassCtx<'_, '_>, x: ValueId, view: ValueId) -> Option<Dim> {
    let (a, b) = (cx.dims(x)?, cx.dims(view)?);
    let (one, two) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let ([lead, rows @ ..], true) = (one, one.len() == 3) else { return None };
    // A view has as many elements: what is before as many rows, cut or not, is one number in two, or in three.
    let mut cuts = (2..4).filter_map(|n| two.split_at_checked(n));
    let as_many = |own: &[Dim]| own.len() > 2 && Dim::product(own).same(&Dim::product(rows));
    let (two, _) = cuts.find(|(_, own)| same_shape(Some(own), Some(rows)) || as_many(own))?;
    let (heads, batch) = two.split_last()?;
    let told = heads.known().is_some_and(|h| h > 0) || (Dim::product(batch) * heads.clone()).same(lead);
    told.then(|| heads.clone())
}

impl Cut {
    /// From the axes of the first product and of the second, whose result is `out`.
    pub fn of(cx: &PassCtx<'_, '_>, b: &Between, out: ValueId, [scores, made]: [&[Dim]; 2]) -> Option<Cut> {
        let between = || b.heads.first().cloned();
        let heads = match (scores.len(), made.len()) {
            (3, 4) => between(),
            (3, 3) => Cut::after(cx, out).or_else(between),
            (4, 3) => Cut::after(cx, out),
            _ => None,
        };
        heads.map(|heads| Cut { heads })
    }

    /// By the views that follow the second product.
    fn after(cx: &PassCtx<'_, '_>, out: ValueId) -> Option<Dim> {
        let mut v = out;
        for _ in 0..4 {
            let &[user] = cx.edit.users(v) else { return None };
            let node = cx.node(user).filter(|n| n.op.alias() == Alias::View && n.inputs.first() == Some(&Some(v)))?;
            v = node.outputs.first().copied().flatten()?;
            if let Some(heads) = heads(cx, out, v) {
                return Some(heads);
            }
        }
        None
    }

    /// The axes of what has three of them, or four.
    pub fn four(&self, d: &[Dim]) -> Vec<Dim> {
        match d {
            [lead, rows @ ..] if rows.len() == 2 => [&[lead.floor_div(&self.heads), self.heads.clone()], rows].concat(),
            d => d.to_vec(),
        }
    }

    /// Whether an operand of three axes meets others only of as many batches and heads.
    pub fn binds(&self, cx: &PassCtx<'_, '_>, x: ValueId) -> bool {
        matches!(cx.dims(x), Some([lead, _, _]) if lead.is_not_one() && self.heads.is_not_one())
    }

    /// Whether a mask may go to scores of four axes, be it for those or for three. Where its batches are left open, there must be no
    /// others that the result may have, or a way for them.
    pub fn fits(&self, cx: &PassCtx<'_, '_>, (m, to): &(Mask, ValueId), open: bool) -> bool {
        let Some(to) = cx.dims(*to).filter(|d| d.len() == 3 || d.len() == 4) else { return false };
        match mask::meets(cx, m.value(), to, to.len()) {
            Some(false) => to.len() == 4 || self.heads.known().is_some_and(|h| h > 0),
            Some(true) => to.len() == 4 && open,
            None => false,
        }
    }

    /// Gives a mask of scores of three axes the four that they have here.
    pub fn mask(&self, cx: &mut PassCtx<'_, '_>, m: &mut Mask, to: ValueId) -> Result<()> {
        let v = m.value();
        let three = |d: &&[Dim]| d.len() == 3 && d[0].known() != Some(1);
        let of_three = cx.dims(to).is_some_and(|d| d.len() == 3);
        let Some(d) = cx.dims(v).filter(three).filter(|_| of_three).map(<[Dim]>::to_vec) else { return Ok(()) };
        if let Some(axes) = Regroup::of(&self.four(&d), &d) {
            *m = m.with(axes.of_value(cx, v)?);
        }
        Ok(())
    }
}
