//! Attention on the CPU: where its operands lie, the joining of past and new keys, and the kernel.

use super::core::{Attention, Broadcast, Cache, Packing};
use super::views::Role;
use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::backend::{Operand, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::Dim;
use crate::kernels::attention::{Attention as Kernel, AttentionPtrs, AttentionSpec, Lie, Mask};
use crate::kernels::elem::Elem;
use crate::ops::steps::Phases;
use crate::ops::types::need_elem;
use crate::ops::widen::{Side, through, unmixed};
use crate::tensor::DType;
use crate::{bail, ensure, err};
use std::ops::Range;
use std::ptr::null;
use std::sync::Arc;

/// Where an operand begins.
#[derive(Clone, Copy)]
enum From {
    Input(usize),
    Output(usize),
    /// Bytes into the workspace.
    Workspace(usize),
}

#[derive(Clone, Copy)]
struct Source {
    from: From,
    /// Elements after its beginning.
    offset: usize,
    lie: Lie,
}

impl Source {
    fn input(i: usize, offset: usize, lie: Lie) -> Source {
        Source { from: From::Input(i), offset, lie }
    }
    fn ptr(&self, args: &StepArgs<'_>, size: usize) -> *mut u8 {
        let base = match self.from {
            From::Input(i) => args.input::<u8>(i).cast_mut(),
            From::Output(i) => args.output(i),
            From::Workspace(at) => args.workspace::<u8>().wrapping_add(at),
        };
        base.wrapping_add(self.offset * size)
    }
}

/// The sizes as numbers.
#[derive(Clone, Copy)]
struct Known {
    batch: usize,
    heads: usize,
    queries: [usize; 3],
    kv_batch: usize,
    kv_heads: usize,
    rows: usize,
    fresh: usize,
    past: usize,
    keys: usize,
    size: usize,
    value_size: usize,
    heads_first: bool,
}

fn known(op: &Attention, cx: &CpuCtx<'_>, total: Option<i64>) -> Result<Known> {
    let dims = |i: usize| cx.opt_input(i).map(|o| o.shape.iter().map(|&n| Dim::of(n)).collect());
    let Some(s) = op.sizes(&dims, total.map(Dim::Known))? else { bail!(InvalidModel, "keys or values are missing") };
    let n = |d: &Dim| d.size().ok_or_else(|| err!(InvalidModel, "a size of an attention is not known"));
    let [q_batch, q_heads, q_rows] = &s.queries;
    Ok(Known {
        batch: n(&s.batch)?,
        heads: n(&s.heads)?,
        queries: [n(q_batch)?, n(q_heads)?, n(q_rows)?],
        kv_batch: n(&s.kv_batch)?,
        kv_heads: n(&s.kv_heads)?,
        rows: n(&s.rows)?,
        fresh: n(&s.fresh)?,
        past: n(&s.past)?,
        keys: n(&s.keys)?,
        size: n(&s.size)?,
        value_size: n(&s.value_size)?,
        heads_first: s.heads_first,
    })
}

/// A dense operand of 3 or 4 axes.
fn lie_of(o: &Operand, heads: usize, rows: usize, size: usize) -> Lie {
    if o.shape.len() == 4 { Lie::heads_first(heads, rows, size) } else { Lie::rows_first(heads, rows, size) }
}

fn sources(op: &Attention, cx: &CpuCtx<'_>, n: &Known) -> Result<[Source; 3]> {
    if let Some(views) = &op.views {
        let mut all = [Source::input(0, 0, Lie::default()); 3];
        for (i, to) in all.iter_mut().enumerate() {
            let (offset, lie) = views.lie(i, &cx.input(i)?.shape)?;
            *to = Source::input(i, offset, lie);
        }
        return Ok(all);
    }
    let (q, d, v) = (cx.input(0)?, n.size, n.value_size);
    Ok(match op.packing {
        Packing::Apart => [
            Source::input(0, 0, lie_of(q, n.queries[1], n.queries[2], d)),
            Source::input(1, 0, lie_of(cx.input(1)?, n.kv_heads, n.fresh, d)),
            Source::input(2, 0, lie_of(cx.input(2)?, n.kv_heads, n.fresh, v)),
        ],
        Packing::Blocks(_) => {
            let row = n.heads * d + n.kv_heads * (d + v);
            let lie = |head: usize| Lie { batch: n.rows * row, head, row };
            [
                Source::input(0, 0, lie(d)),
                Source::input(0, n.heads * d, lie(d)),
                Source::input(0, (n.heads + n.kv_heads) * d, lie(v)),
            ]
        }
        Packing::ByHead => {
            let lie = Lie { batch: n.rows * n.heads * 3 * d, head: 3 * d, row: n.heads * 3 * d };
            [Source::input(0, 0, lie), Source::input(0, d, lie), Source::input(0, 2 * d, lie)]
        }
        Packing::PairsByHead => {
            let lie = Lie { batch: n.fresh * n.kv_heads * 2 * d, head: 2 * d, row: n.kv_heads * 2 * d };
            [
                Source::input(0, 0, Lie::rows_first(n.heads, n.rows, d)),
                Source::input(1, 0, lie),
                Source::input(1, d, lie),
            ]
        }
    })
}

/// A mask that is broadcast to batch, heads, rows, keys; fewer keys than there are mean that the rest is out.
fn mask(op: &Attention, o: &Operand, n: &Known) -> Result<Mask> {
    let broadcasts = op.broadcast != Broadcast::Padded;
    ensure!(o.shape.len() <= 4, InvalidModel, "an attention mask of {} axes", o.shape.len());
    let mut shape = [1; 4];
    shape[4 - o.shape.len()..].copy_from_slice(&o.shape);
    let [b, h, r, c] = shape;
    let in_turn = op.broadcast == Broadcast::Windows && b > 0 && n.batch.is_multiple_of(b);
    let items = if in_turn { b } else { n.batch };
    for (have, full) in [(b, items), (h, n.heads), (r, n.rows)] {
        ensure!(have == 1 || have == full, InvalidModel, "a mask of shape {:?} for axes of {full}", o.shape);
    }
    ensure!(c <= n.keys, InvalidModel, "a mask over {c} keys, there are {}", n.keys);
    let stride = |size: usize, s: usize| if size == 1 { 0 } else { s };
    let lie = Lie { batch: stride(b, h * r * c), head: stride(h, r * c), row: stride(r, c) };
    let (col, cols) = if broadcasts && c == 1 { (0, n.keys) } else { (1, c) };
    ensure!(!broadcasts || cols == n.keys, InvalidModel, "a mask over {cols} keys, there are {}", n.keys);
    let elem = need_elem(o.dtype, "an attention mask")?;
    let items = items.max(1);
    Ok(Mask { elem, lie, items, col, cols, fill: op.fill, replaces: op.replaces && elem == Elem::Bool })
}

/// Keys that take part: `[batch, keys]` or `[batch, rows, keys]`; of a buffer's as many as may be valid.
fn key_mask(o: &Operand, n: &Known, fill: f32, buffer: bool) -> Result<Mask> {
    ensure!(o.dtype == DType::Bool, InvalidModel, "a key mask of {}", o.dtype);
    let cols = o.shape.last().copied().unwrap_or(0);
    let lie = match o.shape.as_slice() {
        [b, _] if *b == n.batch => Lie { batch: cols, head: 0, row: 0 },
        [b, r, _] if *b == n.batch && *r == n.rows => Lie { batch: n.rows * cols, head: 0, row: cols },
        s => bail!(InvalidModel, "a key mask of shape {s:?} for {} items of {} rows", n.batch, n.rows),
    };
    ensure!(
        cols == n.keys || buffer && cols < n.keys,
        InvalidModel,
        "a key mask of shape {:?}, there are {} keys",
        o.shape,
        n.keys
    );
    Ok(Mask { elem: Elem::Bool, lie, items: n.batch.max(1), col: 1, cols, fill, replaces: false })
}

/// Past and new rows, and where both go.
#[derive(Clone, Copy)]
struct Joined {
    /// The input, and the bytes before its first row.
    past: Option<(usize, usize)>,
    fresh: Source,
    to: Source,
    size: usize,
    /// Past rows come from the beams that input 10 tells.
    beams: bool,
}

/// What joining needs to know of all.
#[derive(Clone, Copy)]
struct Join {
    n: Known,
    /// Bytes of an element.
    size: usize,
    buffer: bool,
    /// Where the workspace has each item's beginning of the new rows, and how many of them count; none without lengths.
    starts: Option<(usize, usize)>,
    /// A buffer's rows beyond the valid ones stay as they were.
    keep: bool,
    /// Beams of an item of the batch, and keys whose beams are told.
    beams: (usize, usize),
}

pub(super) fn bind(op: &Attention, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let q = cx.input(0)?;
    // Whole numbers are added to the scores as they are.
    let scores = if q.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    if let Some(s) = through(op, cx, bind, scores, |s, d| s == Side::In(3) && d.is_int())? {
        return Ok(s);
    }
    let data = [0, 1, 2, 4, 5, 8];
    if data.iter().any(|&i| cx.opt_input(i).is_some_and(|o| o.dtype != q.dtype)) {
        return match unmixed(op, cx, bind)? {
            Some(s) => Ok(s),
            None => bail!(Unsupported, "attention over mixed types, queries of {}", q.dtype),
        };
    }
    let elem = need_elem(q.dtype, "attention")?;
    // The executor knows the total length only through the shape it gave the present.
    let total = match op.cache {
        Cache::Join => None,
        // The past's own length.
        Cache::Buffer if cx.opt_input(9).is_none() => Some(0),
        Cache::Buffer => {
            let o = cx.opt_output(1).or(cx.opt_output(2));
            let Some(o) = o else { bail!(Unsupported, "attention over a buffer without its present keys") };
            Some(o.shape[o.shape.len().saturating_sub(2)] as i64)
        }
    };
    let n = known(op, cx, total)?;
    ensure!(
        !op.stacked || n.size == n.value_size || !cx.has_output(1) && cx.opt_input(4).is_none(),
        InvalidModel,
        "keys of {} are stacked with values of {}",
        n.size,
        n.value_size
    );
    let [mut q_at, k_new, v_new] = sources(op, cx, &n)?;
    // What has 1 of more is repeated.
    let step = |have: usize, of: usize, by: usize| if have == of { by } else { 0 };
    let ([batch, heads, rows], lie) = (n.queries, q_at.lie);
    q_at.lie = Lie {
        batch: step(batch, n.batch, lie.batch),
        head: step(heads, n.heads, lie.head),
        row: step(rows, n.rows, lie.row),
    };
    let (mut k_at, mut v_at) = (k_new, v_new);
    let size = elem.size();
    let mut workspace = 0usize;
    let mut room = |bytes: usize| -> Result<usize> {
        let at = workspace;
        let end = at.checked_add(bytes).filter(|&e| e < isize::MAX as usize / 2);
        workspace = round_up(end.ok_or_else(|| err!(OutOfMemory, "keys and values exceed memory"))?, ALIGN);
        Ok(at)
    };
    let lengths = cx.opt_input(6);
    if let Some(o) = lengths {
        let fits = o.len() == n.batch || o.len() == 1;
        ensure!(fits, InvalidModel, "{} lengths for {} items", o.len(), n.batch);
        ensure!(matches!(o.dtype, DType::I64 | DType::I32), InvalidModel, "lengths of {}", o.dtype);
    }
    let lengths_at = room(product(&[n.batch, 8])?)?;
    let starts_at = room(product(&[n.batch, 8])?)?;
    let counts_at = room(product(&[n.batch, 8])?)?;
    let counts = cx.opt_input(11);
    if let Some(o) = counts {
        let fits = o.len() == n.batch && o.dtype == DType::I32 && op.cache == Cache::Buffer;
        ensure!(fits, InvalidModel, "{} counts of rows of {} for {} items", o.len(), o.dtype, n.batch);
    }
    let mut beams = (0, 0);
    if let Some(o) = cx.opt_input(10) {
        ensure!(o.dtype == DType::I32, InvalidModel, "beams of {}", o.dtype);
        beams = match o.shape.as_slice() {
            &[b, w, m] if w > 0 && b.checked_mul(w) == Some(n.batch) => (w, m),
            s => bail!(InvalidModel, "beams of shape {s:?} for {} items", n.batch),
        };
    }

    let mut joins = Vec::new();
    let has_past = cx.opt_input(4).is_some();
    for (i, at, d) in [(1, &mut k_at, n.size), (2, &mut v_at, n.value_size)] {
        // Stacked values lie behind the keys, which are as many.
        let (output, past, second) = if op.stacked { (1, 4, i - 1) } else { (i, i + 3, 0) };
        if !has_past && !cx.has_output(output) && op.cache == Cache::Join {
            continue;
        }
        let from = if cx.has_output(output) {
            From::Output(output)
        } else {
            From::Workspace(room(product(&[n.kv_batch, n.kv_heads, n.keys, d, size])?)?)
        };
        let offset = match from {
            From::Output(_) => second * n.kv_batch * n.kv_heads * n.keys * d,
            _ => 0,
        };
        let to = Source { from, offset, lie: Lie::heads_first(n.kv_heads, n.keys, d) };
        let past = has_past.then_some((past, second * n.kv_batch * n.kv_heads * n.past * d * size));
        let plain = Joined { past, fresh: *at, to, size: d, beams: false };
        if cx.has_output(output) || beams.0 == 0 {
            joins.push(plain);
        }
        let mut to = to;
        if beams.0 > 0 && has_past {
            // The present keeps the order of the past; what is attended to is another copy.
            to.from = From::Workspace(room(product(&[n.kv_batch, n.kv_heads, n.keys, d, size])?)?);
            to.offset = 0;
            joins.push(Joined { to, beams: true, ..plain });
        }
        // Without a past the new rows may as well be read where they are.
        if has_past || op.cache == Cache::Buffer {
            *at = to;
        }
    }

    let mut masks = [None, None];
    if let Some(o) = cx.opt_input(3) {
        masks[0] = Some(mask(op, o, &n)?);
    }
    if let Some(o) = cx.opt_input(7) {
        masks[1] = Some(match op.broadcast {
            Broadcast::Padded => key_mask(o, &n, op.fill, op.cache == Cache::Buffer)?,
            _ => mask(op, o, &n)?,
        });
    }
    if let Some(o) = cx.opt_input(8) {
        ensure!(o.len() == n.heads, InvalidModel, "{} sinks for {} heads", o.len(), n.heads);
        ensure!(matches!(elem, Elem::F32 | Elem::F16 | Elem::Bf16), Unsupported, "attention sinks of {}", o.dtype);
    }
    let sinks_at = room(product(&[n.heads, 4])?)?;
    let of_all = |lie: Lie| Lie { batch: step(n.kv_batch, n.batch, lie.batch), ..lie };
    let spec = AttentionSpec {
        elem,
        batch: n.batch,
        heads: n.heads,
        kv_heads: n.kv_heads,
        rows: n.rows,
        keys: n.keys,
        size: n.size,
        value_size: n.value_size,
        q: q_at.lie,
        k: of_all(k_at.lie),
        v: of_all(v_at.lie),
        y: if let Some(views) = &op.views {
            views.result_lie(|r| match r {
                Role::Batch => n.batch,
                Role::Head => n.heads,
                Role::Row => n.rows,
                Role::Size => n.value_size,
                Role::Place => 1,
            })
        } else if n.heads_first {
            Lie::heads_first(n.heads, n.rows, n.value_size)
        } else {
            Lie::rows_first(n.heads, n.rows, n.value_size)
        },
        scale: op.scale.map_or_else(|| 1.0 / (n.size.max(1) as f64).sqrt(), f64::from),
        cap: op.cap,
        masks,
        causal: op.causal,
        left: op.left,
        right: op.right,
        offset: if has_past { n.past as i64 } else { 0 },
        scores: cx.has_output(3).then_some(op.scores),
        precise: op.precise,
    };
    let kernel = Arc::new(Kernel::new(cx.isa, spec)?);
    let kernel_at = room(kernel.workspace_bytes())?;
    let mut phases = Phases::new(kernel.name(), workspace);

    let (has_lengths, has_sinks) = (lengths.is_some(), cx.opt_input(8).is_some());
    let (buffer, ends) = (op.cache == Cache::Buffer, op.rows_end);
    ensure!(has_lengths && n.fresh <= n.keys || !buffer, InvalidModel, "attention over a buffer needs lengths");
    if has_lengths || has_sinks {
        let wide = lengths.is_some_and(|o| o.dtype == DType::I64);
        let one = lengths.is_some_and(|o| o.len() == 1);
        let add = if op.lengths_past { n.fresh as i64 } else { op.lengths_add };
        let (has_counts, isa) = (counts.is_some(), cx.isa);
        phases = phases.then(1, 0, move |args, _, _| {
            let base = args.workspace::<u8>();
            // SAFETY: a length an item, a sink a head; the workspace has room for them (Step::run).
            unsafe {
                let (to, starts) = (base.add(lengths_at).cast::<i64>(), base.add(starts_at).cast::<i64>());
                for b in 0..if has_lengths { n.batch } else { 0 } {
                    let i = if one { 0 } else { b };
                    let x = if wide { *args.input::<i64>(6).add(i) } else { i64::from(*args.input::<i32>(6).add(i)) };
                    let x = x.saturating_add(add);
                    *to.add(b) = x;
                    // The part of a first prompt that an item lacks is padding after it: it begins at 0.
                    let mut count = n.fresh as i64;
                    let mut start = x.saturating_sub(n.rows as i64).max(0);
                    if has_counts {
                        count = i64::from(*args.input::<i32>(11).add(b));
                        ensure!((0..=x.min(n.fresh as i64)).contains(&count), Run, "item {b} has {count} new rows");
                        start = x - count;
                    }
                    *starts.add(b) = if buffer { start } else { n.past as i64 };
                    *base.add(counts_at).cast::<i64>().add(b) = count;
                    if buffer {
                        ensure!(
                            x >= 0 && start <= n.keys as i64 - count && start <= n.past as i64,
                            Run,
                            "item {b} has {x} keys, {count} of them new; the buffers hold {} and {}",
                            n.past,
                            n.keys
                        );
                    }
                }
                if has_sinks {
                    let to = base.add(sinks_at).cast::<f32>();
                    crate::kernels::convert::load_strided(isa, elem, args.input(8), 1, to, n.heads);
                }
            }
            Ok(())
        });
    }
    let has_starts = has_lengths && buffer;
    let join =
        Join { n, size, buffer, starts: has_starts.then_some((starts_at, counts_at)), keep: op.lengths_past, beams };
    let joins: Arc<[Joined]> = joins.into();
    // Where tasks share no keys, each joins its own first, and finds them in its caches.
    let own = n.kv_batch == n.batch && kernel.tasks(0) > 0 && kernel.own_keys(0).is_some();
    if !joins.is_empty() && !own {
        let per_head = n.keys.saturating_mul(n.size.max(n.value_size)).saturating_mul(size).max(1);
        let items = n.kv_batch * n.kv_heads;
        let (tasks, per) = split(items * joins.len(), (64 * 1024 / per_head).max(1));
        let joins = joins.clone();
        phases = phases.then(tasks, 0, move |args, task, _| {
            for i in task * per..(items * joins.len()).min((task + 1) * per) {
                // SAFETY: an item of past, new and joined rows (Step::run).
                unsafe { join.rows(&joins[i / items], args, i % items, 0..n.keys)? };
            }
            Ok(())
        });
    }
    let scratch = kernel.scratch_bytes();
    for phase in 0..kernel.phases() {
        let (kernel, joins) = (kernel.clone(), joins.clone());
        phases = phases.then(kernel.tasks(phase), scratch, move |args, task, scratch| {
            let base = args.workspace::<u8>();
            if let (Some((items, keys)), true, 0) = (kernel.own_keys(task), own, phase) {
                for (item, j) in items.flat_map(|i| joins.iter().map(move |j| (i, j))) {
                    // SAFETY: as above; no other task reads these keys.
                    unsafe { join.rows(j, args, item, keys.clone())? };
                }
            }
            let here = |on: bool, at: usize| if on { base.wrapping_add(at).cast_const() } else { null() };
            let p = AttentionPtrs {
                q: q_at.ptr(args, size),
                k: k_at.ptr(args, size),
                v: v_at.ptr(args, size),
                masks: [args.input(3), args.input(7)],
                lengths: here(has_lengths, lengths_at).cast(),
                starts: here(has_lengths && (buffer || !ends), starts_at).cast(),
                sinks: here(has_sinks, sinks_at).cast(),
                y: args.output(0),
                scores: args.output(3),
            };
            // SAFETY: the spec was made from these operands' shapes (Step::run).
            unsafe { kernel.run(phase, task, &p, base.wrapping_add(kernel_at), scratch) };
            Ok(())
        });
    }
    Ok(phases.boxed())
}

impl Join {
    /// Copies one head's past and new rows into the present, as far as they are among rows `part`.
    unsafe fn rows(&self, j: &Joined, args: &StepArgs<'_>, item: usize, part: Range<usize>) -> Result<()> {
        let n = &self.n;
        let (batch, head) = (item / n.kv_heads, item % n.kv_heads);
        let bytes = j.size * self.size;
        let clip = |r: Range<usize>| r.start.max(part.start)..r.end.min(part.end).max(r.start.max(part.start));
        // SAFETY: the caller's: rows of this head in each operand; the lengths of a buffer were checked.
        unsafe {
            let (mut start, mut count) = (n.past, n.fresh);
            if let Some((starts, counts)) = self.starts {
                let at = |from: usize| *args.workspace::<u8>().add(from).cast::<i64>().add(batch) as usize;
                (start, count) = (at(starts), at(counts));
            }
            let to = j.to.ptr(args, self.size).add(j.to.lie.at(batch, head, 0) * self.size);
            let mut filled = 0;
            if let Some((past, before)) = j.past {
                let past = args.input::<u8>(past).add(before);
                // What a buffer holds beyond its valid rows is not the model's, unless past and present are one.
                filled = if self.keep && !j.beams { n.past } else { n.past.min(start) };
                let r = clip(0..filled);
                if j.beams {
                    let (width, told) = self.beams;
                    ensure!(r.end <= told, Run, "beams are told of {told} keys, not of {}", r.end);
                    for k in r {
                        let beam = *args.input::<i32>(10).add(batch * told + k);
                        ensure!((0..width as i32).contains(&beam), Run, "key {k} of item {batch} is of beam {beam}");
                        let from = (batch / width * width + beam as usize) * n.kv_heads + head;
                        let from = past.add((from * n.past + k) * bytes);
                        std::ptr::copy_nonoverlapping(from, to.add(k * bytes), bytes);
                    }
                } else {
                    let from = past.add((item * n.past + r.start) * bytes);
                    std::ptr::copy_nonoverlapping(from, to.add(r.start * bytes), r.len() * bytes);
                }
            }
            if self.buffer {
                let r = clip(filled..n.keys);
                std::ptr::write_bytes(to.add(r.start * bytes), 0, r.len() * bytes);
            }
            let r = clip(start..start + count);
            let from = j.fresh.ptr(args, self.size);
            if r.is_empty() {
                return Ok(());
            }
            if j.fresh.lie.row == j.size {
                let from = from.add(j.fresh.lie.at(batch, head, r.start - start) * self.size);
                std::ptr::copy_nonoverlapping(from, to.add(r.start * bytes), r.len() * bytes);
            } else {
                for k in r {
                    let from = from.add(j.fresh.lie.at(batch, head, k - start) * self.size);
                    std::ptr::copy_nonoverlapping(from, to.add(k * bytes), bytes);
                }
            }
        }
        Ok(())
    }
}
