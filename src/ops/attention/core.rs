//! The canonical attention operator: what ONNX's Attention and the contrib operators of its kind become.

use super::views::Views;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op};
use crate::kernels::attention::Scores;
use crate::ops::infer::broadcast;
use crate::ops::norm::FLOATS;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

/// How queries, keys and values are found in inputs 0 to 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Each in its own: `[batch, rows, heads * size]` or `[batch, heads, rows, size]`.
    Apart,
    /// All in input 0, one block after another: `[batch, rows, q | k | v]`. The hidden sizes, where they are not alike.
    Blocks(Option<[usize; 3]>),
    /// All in input 0: `[batch, rows, heads, 3, size]`.
    ByHead,
    /// Keys and values in input 1: `[batch, rows, heads, 2, size]`.
    PairsByHead,
}

/// How past keys and values meet new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// The new ones follow the past ones.
    Join,
    /// The past ones are a buffer, and the new ones go where each item's valid length ends. Input 9 holds the largest length.
    Buffer,
}

/// How masks (and, where they broadcast both ways, queries and keys) meet in batches, heads and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    /// Masks repeat over the scores; those that are shorter along the keys leave the rest out, as ONNX's Attention has it.
    Padded,
    /// Masks repeat over the scores, along the keys too.
    Within,
    /// The same, and masks of fewer items begin anew with every so many: windows of images.
    Windows,
    /// As products and sums do: whatever has 1 is repeated for the others, queries, keys and values too.
    Mutual,
}

/// `softmax(cap(scale * Q K') + masks) V`, by heads.
///
/// Inputs: 0 Q, 1 K, 2 V; 3 mask (bool or float, broadcast to batch, heads, rows, keys); 4, 5 past keys and values; 6 valid
/// keys of each item of the batch; 7 keys that take part: bool `[batch, keys]` or `[batch, rows, keys]`, unless `broadcast` is `Padded` a second
/// mask like 3, applied after it; 8 a logit a head that
/// only takes part in the sum; 9 the largest total length; 10 which beam each past key is of: `[batch / beams, beams, keys]`,
/// i32; 11 how many of each item's new rows are valid, i32. Outputs: 0 Y, 1, 2 present keys and values, 3 scores.
///
/// Types up to f32 are computed in f32, f64 in f64, and all in f64 where `precise` says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads; needed where Q has 3 axes.
    pub heads: Option<usize>,
    /// Key and value heads; needed where K has 3 axes.
    pub kv_heads: Option<usize>,
    /// Where Q, K and V are.
    pub packing: Packing,
    /// A row sees no key after its own place.
    pub causal: bool,
    /// Keys before its own place that a row sees.
    pub left: Option<usize>,
    /// Keys after its own place that a row sees.
    pub right: Option<usize>,
    /// Scales the scores; 1 / sqrt(size) where not given.
    pub scale: Option<f32>,
    /// Bounds the scores; 0 for none.
    pub cap: f32,
    /// The stage of the scores that output 3 gets.
    pub scores: Scores,
    /// What false adds in a mask of bool.
    pub fill: f32,
    /// False in a mask of bool does not add: `fill`, which is not 0 then, takes the score's place, be it NaN.
    pub replaces: bool,
    /// What is added to input 6 to give lengths.
    pub lengths_add: i64,
    /// Input 6 counts past keys; the new ones are added. The rest of a buffer is kept.
    pub lengths_past: bool,
    /// Everything is computed in f64.
    pub precise: bool,
    /// With lengths the rows are the last of the valid keys, not those after the past.
    pub rows_end: bool,
    /// How the past joins.
    pub cache: Cache,
    /// Past keys and values are one input 4, present ones one output 1: `[2, batch, heads, keys, size]`.
    pub stacked: bool,
    /// Where the operands and the result lie, where that is not said by `packing`.
    pub views: Option<Arc<Views>>,
    /// How masks meet the scores.
    pub broadcast: Broadcast,
}

/// ONNX's defaults.
impl Default for Attention {
    fn default() -> Attention {
        Attention {
            heads: None,
            kv_heads: None,
            packing: Packing::Apart,
            causal: false,
            left: None,
            right: None,
            scale: None,
            cap: 0.0,
            scores: Scores::Product,
            fill: f32::NEG_INFINITY,
            replaces: false,
            lengths_add: 0,
            lengths_past: false,
            precise: false,
            rows_end: true,
            cache: Cache::Join,
            stacked: false,
            views: None,
            broadcast: Broadcast::Padded,
        }
    }
}

/// The sizes of one application.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub batch: Dim,
    pub heads: Dim,
    /// Batches, heads and rows of the queries, where they may be fewer than those of the result.
    pub queries: [Dim; 3],
    pub kv_batch: Dim,
    pub kv_heads: Dim,
    pub rows: Dim,
    /// New keys.
    pub fresh: Dim,
    /// Past keys (the buffer's, where it is one).
    pub past: Dim,
    /// Keys of the present.
    pub keys: Dim,
    pub size: Dim,
    pub value_size: Dim,
    /// Y has 4 axes, heads before rows.
    pub heads_first: bool,
}

impl Attention {
    /// The input that is the mask.
    pub const MASK: usize = 3;
    /// The input that is a mask applied after that.
    pub const SECOND_MASK: usize = 7;
    /// From the inputs' axes; `None` where an input that matters has no known rank.
    pub fn sizes(&self, dims: &dyn Fn(usize) -> Option<Vec<Dim>>, total: Option<Dim>) -> Result<Option<Sizes>> {
        let heads = |n: Option<usize>, what: &str| match n {
            Some(n) if n > 0 => Ok(Dim::of(n)),
            _ => bail!(InvalidModel, "the number of {what} heads must be given and positive"),
        };
        if let Some(views) = &self.views {
            let Some(mut s) = views.sizes(dims)? else { return Ok(None) };
            self.all_sizes(&mut s, dims, total)?;
            return Ok(Some(s));
        }
        let Some(q) = dims(0) else { return Ok(None) };
        let (h, g) = (|| heads(self.heads, "query"), || heads(self.kv_heads, "key"));
        let mut s = match (self.packing, q.as_slice()) {
            (Packing::Blocks(hidden), [b, r, all]) => {
                let (h, g) = (h()?, g()?);
                let (size, value_size) = match hidden {
                    Some([n, k, v]) => {
                        ensure!(n == k, InvalidModel, "queries of {n} meet keys of {k}");
                        (Dim::of(n).floor_div(&h), Dim::of(v).floor_div(&g))
                    }
                    None => {
                        let d = all.floor_div(&(h.clone() + g.clone() + g.clone()));
                        (d.clone(), d)
                    }
                };
                divides(all, &(h.clone() * size.clone() + g.clone() * (size.clone() + value_size.clone())))?;
                Sizes::new(b, h, r).keys(g, r, size, value_size)
            }
            (Packing::ByHead, [b, r, h, three, d]) => {
                divides(three, &Dim::Known(3))?;
                Sizes::new(b, h.clone(), r).keys(h.clone(), r, d.clone(), d.clone())
            }
            (Packing::Apart | Packing::PairsByHead, [b, r, all]) => {
                let h = h()?;
                let size = all.floor_div(&h);
                divides(all, &(h.clone() * size.clone()))?;
                Sizes { size, ..Sizes::new(b, h, r) }
            }
            (Packing::Apart, [b, h, r, d]) => {
                Sizes { size: d.clone(), heads_first: true, ..Sizes::new(b, h.clone(), r) }
            }
            _ => bail!(InvalidModel, "queries of {} axes", q.len()),
        };
        match self.packing {
            Packing::Apart => {
                let (Some(k), Some(v)) = (dims(1), dims(2)) else { return Ok(None) };
                let of = |x: &[Dim]| -> Result<(Dim, Dim, Dim)> {
                    Ok(match x {
                        [_, l, all] => {
                            let g = g()?;
                            let size = all.floor_div(&g);
                            divides(all, &(g.clone() * size.clone()))?;
                            (g, l.clone(), size)
                        }
                        [_, g, l, d] => (g.clone(), l.clone(), d.clone()),
                        _ => bail!(InvalidModel, "keys or values of {} axes", x.len()),
                    })
                };
                let ((g, l, d), (g2, l2, value_size)) = (of(&k)?, of(&v)?);
                agree("heads of keys and values", &g, &g2)?;
                agree("rows of keys and values", &l, &l2)?;
                agree("sizes of queries and keys", &s.size, &d)?;
                agree("batches of keys and values", &k[0], &v[0])?;
                s = Sizes { kv_batch: k[0].clone(), ..s.keys(g, &l, d, value_size) };
            }
            Packing::PairsByHead => {
                let Some(k) = dims(1) else { return Ok(None) };
                let [b, l, g, two, d] = k.as_slice() else { bail!(InvalidModel, "packed keys of {} axes", k.len()) };
                divides(two, &Dim::Known(2))?;
                agree("sizes of queries and keys", &s.size, d)?;
                s = Sizes { kv_batch: b.clone(), ..s.keys(g.clone(), l, d.clone(), d.clone()) };
            }
            _ => {}
        }
        self.all_sizes(&mut s, dims, total)?;
        Ok(Some(s))
    }

    /// Adds past and present to the sizes, and what masks make of them.
    fn all_sizes(&self, s: &mut Sizes, dims: &dyn Fn(usize) -> Option<Vec<Dim>>, total: Option<Dim>) -> Result<()> {
        if let Some(past) = dims(4) {
            let past = match (self.stacked, past.as_slice()) {
                (true, [two, rest @ ..]) => {
                    divides(two, &Dim::Known(2))?;
                    rest
                }
                (_, all) => all,
            };
            let [b, g, p, d] = past else { bail!(InvalidModel, "past keys of {} axes", past.len()) };
            agree("batches", &s.kv_batch, b)?;
            agree("heads of past and new keys", &s.kv_heads, g)?;
            agree("sizes of past and new keys", &s.size, d)?;
            s.past = p.clone();
            if let Some(v) = dims(5) {
                let [b, g, q, d] = v.as_slice() else { bail!(InvalidModel, "past values of {} axes", v.len()) };
                agree("batches", &s.kv_batch, b)?;
                agree("heads of past and new values", &s.kv_heads, g)?;
                agree("rows of past keys and values", p, q)?;
                agree("sizes of past and new values", &s.value_size, d)?;
            }
        }
        s.keys = match self.cache {
            Cache::Join => s.past.clone() + s.fresh.clone(),
            Cache::Buffer => total.map_or(Dim::Unknown, |t| s.past.max(&t)),
        };
        if let (Some(h), Some(g)) = (s.heads.known(), s.kv_heads.known()) {
            ensure!(g > 0 && h % g == 0, InvalidModel, "{h} query heads cannot share {g} key heads");
        }
        s.queries = [s.batch.clone(), s.heads.clone(), s.rows.clone()];
        if self.broadcast != Broadcast::Mutual {
            return agree("batches", &s.batch, &s.kv_batch);
        }
        let mut all = broadcast(&s.queries, &[s.kv_batch.clone(), Dim::Known(1), Dim::Known(1)])?;
        for mask in [Attention::MASK, Attention::SECOND_MASK].into_iter().filter_map(dims) {
            let Some((_, over)) = mask.split_last() else { continue };
            ensure!(over.len() <= 3, InvalidModel, "an attention mask of {} axes", mask.len());
            all = broadcast(&all, over)?;
        }
        if let [batch, heads, rows] = &all[..] {
            (s.batch, s.heads, s.rows) = (batch.clone(), heads.clone(), rows.clone());
        }
        Ok(())
    }
}

impl Sizes {
    pub(super) fn new(batch: &Dim, heads: Dim, rows: &Dim) -> Sizes {
        Sizes {
            queries: [batch.clone(), heads.clone(), rows.clone()],
            kv_batch: batch.clone(),
            batch: batch.clone(),
            heads,
            rows: rows.clone(),
            kv_heads: Dim::Unknown,
            fresh: Dim::Unknown,
            past: Dim::Known(0),
            keys: Dim::Unknown,
            size: Dim::Unknown,
            value_size: Dim::Unknown,
            heads_first: false,
        }
    }
    pub(super) fn keys(self, kv_heads: Dim, fresh: &Dim, size: Dim, value_size: Dim) -> Sizes {
        Sizes { kv_heads, fresh: fresh.clone(), size, value_size, ..self }
    }
}

/// Fails where both are known and differ.
fn agree(what: &str, a: &Dim, b: &Dim) -> Result<()> {
    if let (Some(x), Some(y)) = (a.known(), b.known()) {
        ensure!(x == y, InvalidModel, "{what} differ: {x} and {y}");
    }
    Ok(())
}

/// Fails where a size is known not to be made of the parts it should be.
fn divides(all: &Dim, parts: &Dim) -> Result<()> {
    if let (Some(x), Some(y)) = (all.known(), parts.known()) {
        ensure!(x == y, InvalidModel, "an axis of {x} does not hold its heads, which make {y}");
    }
    Ok(())
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }
    fn flops(&self, cx: &InferCtx<'_>, _: &[Fact]) -> u64 {
        let dims = |i: usize| cx.fact(i).as_tensor()?.dims.clone();
        let Ok(Some(s)) = self.sizes(&dims, None) else { return 0 };
        let of = |d: &Dim| d.known().map_or(0, |n| n.unsigned_abs());
        2 * of(&s.batch) * of(&s.heads) * of(&s.rows) * of(&s.keys) * (of(&s.size) + of(&s.value_size))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &FLOATS)?;
        let q = cx.dtype(0)?;
        let mut types = [q; 3];
        if self.packing == Packing::Apart || self.packing == Packing::PairsByHead {
            cx.expect_dtype(1, &FLOATS)?;
            types[1] = cx.dtype(1)?;
            types[2] = if self.packing == Packing::Apart { cx.dtype(2)? } else { types[1] };
        }
        ensure!(self.stacked || cx.has(4) == cx.has(5), InvalidModel, "past keys and values must be given together");
        for (i, of) in [(4, 1), (5, 2)] {
            if let Some(t) = cx.opt_tensor(i)? {
                ensure!(t.dtype == types[of], InvalidModel, "input {i} is {}, the new ones are {}", t.dtype, types[of]);
            }
        }
        if let Some(m) = cx.opt_tensor(3)? {
            let whole = m.dtype.is_int() && !m.dtype.is_packed();
            let known = m.dtype == DType::Bool || FLOATS.contains(&m.dtype) || whole;
            ensure!(known, Unsupported, "an attention mask of {}", m.dtype);
        }
        let total = match self.cache {
            Cache::Buffer if !cx.has(9) => Some(Dim::Known(0)),
            Cache::Buffer => cx.opt_tensor(9)?.and_then(|t| t.int_dims()).and_then(|d| d.first().cloned()),
            Cache::Join => None,
        };
        let dims = |i: usize| cx.fact(i).as_tensor().and_then(|t| t.dims.clone());
        let Some(s) = self.sizes(&dims, total)? else {
            return Ok([q, types[1], types[2], q].map(Fact::any_tensor).to_vec());
        };
        let y = if let Some(views) = &self.views {
            views.result_dims(&s)
        } else if s.heads_first {
            vec![s.batch.clone(), s.heads.clone(), s.rows.clone(), s.value_size.clone()]
        } else {
            vec![s.batch.clone(), s.rows.clone(), s.heads.clone() * s.value_size.clone()]
        };
        let keys = if cx.has(4) && dims(4).is_none() { Dim::Unknown } else { s.keys.clone() };
        let present = |d: &Dim| vec![s.kv_batch.clone(), s.kv_heads.clone(), keys.clone(), d.clone()];
        if self.stacked {
            let mut both = present(&s.size);
            both.insert(0, Dim::Known(2));
            return Ok(vec![Fact::tensor(q, y), Fact::tensor(q, both)]);
        }
        Ok(vec![
            Fact::tensor(q, y),
            Fact::tensor(types[1], present(&s.size)),
            Fact::tensor(types[2], present(&s.value_size)),
            Fact::tensor(q, vec![s.batch.clone(), s.heads.clone(), s.rows.clone(), keys.clone()]),
        ])
    }
}
