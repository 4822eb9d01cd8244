//! Scaled dot-product attention without a stored score matrix: blocks of query rows meet blocks of keys, and the softmax is
//! carried along (Dao et al. 2022). Few rows over many keys are cut along the keys as well, and merged at the end.
//!
//! Query heads that share a key/value head are rows of one problem. Which element is computed how follows from the shapes and
//! the instruction set alone.

mod block;
pub mod causal_conv;
pub mod linear;
mod plain;
pub mod rotary;
mod rows;
pub(crate) use rows::Dots;
#[cfg(test)]
mod tests;

use super::elem::Elem;
use super::gemm::micro::{TileSet, tiles};
use super::gemm::multiply::{k_block, scratch_len};
use super::gemm::task_flops;
use super::isa::Isa;
use crate::base::alloc::round_up;
use crate::base::checked::product;
use crate::error::Result;
use crate::{bail, ensure, err};
use std::ops::Range;

/// Where an operand lies: strides in elements; the last axis follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lie {
    /// From one item of the batch to the next.
    pub batch: usize,
    /// From one head to the next.
    pub head: usize,
    /// From one row to the next.
    pub row: usize,
}

impl Lie {
    /// `[batch, heads, rows, size]`, dense.
    pub fn heads_first(heads: usize, rows: usize, size: usize) -> Lie {
        Lie { batch: heads * rows * size, head: rows * size, row: size }
    }
    /// `[batch, rows, heads, size]`, dense.
    pub fn rows_first(heads: usize, rows: usize, size: usize) -> Lie {
        Lie { batch: heads * rows * size, head: size, row: heads * size }
    }
    /// The offset of a row.
    pub fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        batch * self.batch + head * self.head + row * self.row
    }
}

/// What is added to the scores, or takes their place. Strides in elements, 0 where it repeats.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    /// Bool, or a float.
    pub elem: Elem,
    /// Over batch, heads, rows.
    pub lie: Lie,
    /// Items of the batch after which it begins anew.
    pub items: usize,
    /// Along the keys: 1 or 0.
    pub col: usize,
    /// How many keys it covers; those beyond are not attended.
    pub cols: usize,
    /// What false adds, where it is of bool.
    pub fill: f32,
    /// False does not add: the fill, which is not 0, is the score, whatever that was.
    pub replaces: bool,
}

impl Mask {
    /// The offset of a row.
    fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        self.lie.at(batch % self.items, head, row)
    }
}

/// Which stage of the scores is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// The scaled products.
    Product,
    /// After the cap.
    Capped,
    /// After the masks.
    Masked,
    /// After the masks, 0 for what is masked out.
    Seen,
    /// The probabilities.
    Softmax,
}

/// What to compute.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// f32, f16, bf16 or f64; f16 and bf16 are computed in f32.
    pub elem: Elem,
    /// Items of the batch.
    pub batch: usize,
    /// Query heads: a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Query rows a head.
    pub rows: usize,
    /// Keys a head.
    pub keys: usize,
    /// Size of a query and a key.
    pub size: usize,
    /// Size of a value.
    pub value_size: usize,
    /// Queries.
    pub q: Lie,
    /// Keys.
    pub k: Lie,
    /// Values.
    pub v: Lie,
    /// The result.
    pub y: Lie,
    /// Scales the scores.
    pub scale: f64,
    /// Bounds the scores by `cap * tanh(score / cap)`; 0 for none.
    pub cap: f32,
    /// Applied to the scores one after the other.
    pub masks: [Option<Mask>; 2],
    /// A row sees no key after its own place.
    pub causal: bool,
    /// How many keys before its own place a row sees.
    pub left: Option<usize>,
    /// How many keys after its own place a row sees.
    pub right: Option<usize>,
    /// The place of row 0 among the keys, where no lengths are given. With lengths it is `length - rows`.
    pub offset: i64,
    /// A `[batch, heads, rows, keys]` output of the scores.
    pub scores: Option<Scores>,
    /// Computed in f64 whatever the type.
    pub precise: bool,
}

/// The operands of a run.
#[derive(Clone, Copy, Debug)]
pub struct AttentionPtrs {
    /// Queries.
    pub q: *const u8,
    /// Keys.
    pub k: *const u8,
    /// Values.
    pub v: *const u8,
    /// The masks.
    pub masks: [*const u8; 2],
    /// How many keys of each item of the batch are valid, or null for all.
    pub lengths: *const i64,
    /// The place of row 0 among the keys for each item of the batch; null for the rule of [`AttentionSpec::offset`].
    pub starts: *const i64,
    /// A logit a query head that takes part in the softmax without a value, in f32; or null.
    pub sinks: *const f32,
    /// The result.
    pub y: *mut u8,
    /// The scores, or null.
    pub scores: *mut u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// A row at a time, generic.
    Plain,
    /// Few rows: dot products.
    Dots,
    /// Matrix products.
    Blocked,
}

/// Where things lie in a thread's scratch, in f32.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    q: usize,
    s: usize,
    o: usize,
    top: usize,
    sum: usize,
    was: usize,
    bias: usize,
    gemm: usize,
    k: usize,
    v: usize,
    total: usize,
}

/// Attention of given shapes.
pub struct Attention {
    isa: Isa,
    set: &'static TileSet,
    spec: AttentionSpec,
    path: Path,
    /// Query heads of a key/value head.
    group: usize,
    /// Rows that share keys: those of a group's heads.
    shared_rows: usize,
    block_rows: usize,
    row_blocks: usize,
    block_keys: usize,
    /// Pieces the keys are cut into, and keys of each.
    parts: usize,
    part_keys: usize,
    /// A first phase packs keys (and widens values) into the workspace.
    packs: bool,
    /// Key/value heads of a task where they are small.
    task_items: usize,
    q_row: usize,
    s_row: usize,
    room: Room,
    /// Floats of the packed keys and of the widened values of one item.
    packed_k: usize,
    wide_v: usize,
}

/// Rows beyond which matrix products pay for packing keys.
const FEW_ROWS: usize = 8;
/// Rows and keys of a block.
const BLOCK_ROWS: usize = 64;
const BLOCK_KEYS: usize = 256;
/// Fewest keys of a part.
const PART_KEYS: usize = 512;
/// Tasks up to which keys are cut for the sake of more of them.
const FEW_TASKS: usize = 16;

impl Attention {
    /// Plans it, or says what is wrong with its sizes.
    pub fn new(isa: Isa, spec: AttentionSpec) -> Result<Attention> {
        let s = &spec;
        ensure!(s.elem.is_float(), Unsupported, "attention of {:?}", s.elem);
        ensure!(
            s.kv_heads > 0 && s.heads > 0 && s.heads.is_multiple_of(s.kv_heads),
            InvalidModel,
            "{} query heads cannot share {} key heads",
            s.heads,
            s.kv_heads
        );
        for m in s.masks.iter().flatten() {
            ensure!(m.elem == Elem::Bool || m.elem.is_float(), Unsupported, "an attention mask of {:?}", m.elem);
            ensure!(m.items > 0, Internal, "an attention mask of no items");
        }
        let set = tiles(isa);
        let group = s.heads / s.kv_heads;
        let shared_rows = product(&[group, s.rows])?;
        let items = product(&[s.batch, s.kv_heads])?;
        product(&[items, shared_rows, s.keys.max(s.value_size).max(s.size), 8])?;
        product(&[items, s.keys, s.value_size.max(s.size), 8])?;
        let narrow = matches!(s.elem, Elem::F16 | Elem::Bf16);
        let path = match shared_rows {
            _ if s.elem == Elem::F64 || s.precise => Path::Plain,
            n if n <= FEW_ROWS => Path::Dots,
            _ => Path::Blocked,
        };
        let per_row = 2usize.saturating_mul(s.keys).saturating_mul(s.size.saturating_add(s.value_size).max(1));
        let worth = task_flops(isa);
        // Blocks of even size, the largest of whole tiles.
        let most_rows = BLOCK_ROWS.next_multiple_of(set.narrow.len());
        let mut block_rows = shared_rows.div_ceil(shared_rows.div_ceil(most_rows).max(1)).max(1);
        let mut block_keys = round_up(s.keys.clamp(1, BLOCK_KEYS), set.panel);
        if s.scores.is_some() {
            // Every score of a row at once, so that the probabilities can be written.
            block_keys = round_up(s.keys.max(1), set.panel);
            block_rows = (64 * 1024 / block_keys).clamp(1, block_rows);
        }
        if path == Path::Plain {
            block_rows = (worth / 8 / per_row.max(1)).clamp(1, shared_rows.max(1));
        }
        let row_blocks = shared_rows.div_ceil(block_rows);
        let tasks = product(&[items, row_blocks])?;
        let (mut parts, mut part_keys) = (1, s.keys.max(1));
        if path != Path::Plain && s.scores.is_none() && tasks > 0 && tasks < FEW_TASKS && s.keys >= 2 * PART_KEYS {
            let wanted = FEW_TASKS.div_ceil(tasks).min(s.keys / PART_KEYS);
            part_keys = round_up(s.keys.div_ceil(wanted), set.panel);
            parts = s.keys.div_ceil(part_keys);
        }
        let packs = path == Path::Blocked && (narrow || row_blocks > 1);
        let mut task_items = 1;
        if row_blocks == 1 && parts == 1 {
            task_items = (worth / per_row.saturating_mul(shared_rows).max(1)).clamp(1, items.max(1));
        }
        let (q_row, s_row) = (round_up(s.size, 16), round_up(block_keys, 16));
        let too_large = || err!(OutOfMemory, "attention over {} keys needs more scratch than memory holds", s.keys);
        let mut room = Room::default();
        let mut take = |n: Option<usize>| -> Result<usize> {
            let at = room.total;
            let end = n.and_then(|n| n.checked_next_multiple_of(16)).and_then(|n| at.checked_add(n));
            room.total = end.filter(|&e| e < isize::MAX as usize / 8).ok_or_else(too_large)?;
            Ok(at)
        };
        let kc = k_block(s.size).max(k_block(block_keys));
        let (q, sc) = (take(block_rows.checked_mul(q_row))?, take(block_rows.checked_mul(s_row))?);
        let (o, top, sum) =
            (take(block_rows.checked_mul(s.value_size))?, take(Some(block_rows))?, take(Some(block_rows))?);
        let was = take(Some(block_rows))?;
        let (bias, gemm) = (take(s_row.checked_mul(2))?, take(scratch_len(set, block_rows, kc, false))?);
        // The dots widen a block of keys and values; packing widens a panel.
        let widened = |n: usize| if narrow && path == Path::Dots { block_keys.checked_mul(n) } else { Some(0) };
        let k = take(if packs { set.panel.checked_mul(s.size) } else { widened(s.size) })?;
        let v = take(widened(s.value_size))?;
        room = Room { q, s: sc, o, top, sum, was, bias, gemm, k, v, ..room };
        if path == Path::Plain {
            // A row of scores, and one of the result, in f64.
            room = Room { total: product(&[2, s.keys.checked_add(s.value_size).ok_or_else(too_large)?])?, ..room };
        }
        let (mut packed_k, mut wide_v) = (0, 0);
        if packs {
            packed_k = product(&[s.keys.div_ceil(set.panel), s.size, set.panel])?;
            wide_v = if narrow { product(&[s.keys, s.value_size])?.next_multiple_of(16) } else { 0 };
        }
        let plan = Attention {
            isa,
            set,
            path,
            group,
            shared_rows,
            block_rows,
            row_blocks,
            block_keys,
            parts,
            part_keys,
            packs,
            task_items,
            q_row,
            s_row,
            room,
            packed_k,
            wide_v,
            spec,
        };
        let partials = product(&[tasks, plan.parts, plan.block_rows, 2 + plan.spec.value_size])?;
        product(&[4, product(&[items, packed_k])?, 2])?;
        if product(&[items, wide_v, 8])?.checked_add(partials).is_none_or(|n| n > isize::MAX as usize / 16) {
            bail!(OutOfMemory, "attention over {} keys needs more workspace than memory holds", plan.spec.keys);
        }
        Ok(plan)
    }

    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        match self.path {
            Path::Plain => "f64_attention_rows",
            Path::Dots => "f32_attention_dots",
            Path::Blocked => "f32_attention_blocked",
        }
    }
    fn items(&self) -> usize {
        self.spec.batch * self.spec.kv_heads
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        1 + usize::from(self.packs) + usize::from(self.parts > 1)
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, phase: usize) -> usize {
        let s = &self.spec;
        if self.shared_rows == 0 || s.value_size == 0 && s.scores.is_none() {
            return 0;
        }
        match phase.checked_sub(usize::from(self.packs)) {
            None => self.items() * self.pack_tasks(),
            Some(0) if self.task_items > 1 => self.items().div_ceil(self.task_items),
            Some(0) => self.items() * self.row_blocks * self.parts,
            _ => self.items() * self.row_blocks,
        }
    }
    /// The items and the keys that a task reads and no other does; `None` where rows are so many that tasks share keys. All of them
    /// are in the first phase then.
    pub fn own_keys(&self, task: usize) -> Option<(Range<usize>, Range<usize>)> {
        if self.path != Path::Dots {
            return None;
        }
        if self.task_items > 1 {
            let first = task * self.task_items;
            return Some((first..self.items().min(first + self.task_items), 0..self.spec.keys));
        }
        let (item, part) = (task / self.parts, task % self.parts);
        Some((item..item + 1, part * self.part_keys..self.spec.keys.min((part + 1) * self.part_keys)))
    }
    /// Panels of keys that a packing task takes: some 64 KiB.
    fn pack_step(&self) -> usize {
        (16 * 1024 / (self.spec.size.max(1) * self.set.panel)).max(1)
    }
    fn pack_tasks(&self) -> usize {
        self.spec.keys.div_ceil(self.set.panel).div_ceil(self.pack_step())
    }
    /// Bytes of scratch that each thread must lend to `run`, aligned as base's buffers are.
    pub fn scratch_bytes(&self) -> usize {
        self.room.total * 4
    }
    /// Bytes of workspace shared by all phases and tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        let partials =
            if self.parts > 1 { self.items() * self.row_blocks * self.parts * self.partial_len() } else { 0 };
        (self.partials_at() + partials) * 4
    }
    /// Floats of one part of a block of rows: maximum, sum and weighted values of each row.
    fn partial_len(&self) -> usize {
        self.block_rows * (2 + self.spec.value_size)
    }
    fn partials_at(&self) -> usize {
        self.items() * (self.packed_k + self.wide_v)
    }

    /// Runs one task of a phase.
    /// # Safety
    /// The operands are valid by the spec's shapes and strides; the outputs overlap none of the inputs. `workspace` and
    /// `scratch` are valid for the bytes that `workspace_bytes` and `scratch_bytes` tell; no other task uses `scratch`
    /// meanwhile. All tasks of a phase end before those of the next begin.
    pub unsafe fn run(&self, phase: usize, task: usize, p: &AttentionPtrs, workspace: *mut u8, scratch: *mut u8) {
        let (ws, scratch) = (workspace.cast::<f32>(), scratch.cast::<f32>());
        // SAFETY: the caller's contract; tasks count items, row blocks and parts that exist.
        unsafe {
            match phase.checked_sub(usize::from(self.packs)) {
                None => self.pack(task / self.pack_tasks(), task % self.pack_tasks(), p, ws, scratch),
                Some(0) if self.task_items > 1 => {
                    let first = task * self.task_items;
                    for item in first..self.items().min(first + self.task_items) {
                        self.block(item, 0, 0, p, ws, scratch);
                    }
                }
                Some(0) => {
                    let (rest, part) = (task / self.parts, task % self.parts);
                    self.block(rest / self.row_blocks, rest % self.row_blocks, part, p, ws, scratch);
                }
                _ => self.merge(task, p, ws, scratch),
            }
        }
    }

    /// The head and the row of one of an item's rows.
    fn place(&self, item: usize, row: usize) -> (usize, usize) {
        (item % self.spec.kv_heads * self.group + row / self.spec.rows, row % self.spec.rows)
    }

    /// The keys that a row may see.
    unsafe fn visible(&self, batch: usize, row: usize, p: &AttentionPtrs) -> (usize, usize) {
        let s = &self.spec;
        let keys = s.keys as i64;
        let (mut high, mut at) = (keys, s.offset);
        if !p.lengths.is_null() {
            // SAFETY: a length an item of the batch.
            let length = unsafe { *p.lengths.add(batch) };
            (high, at) = (length.clamp(0, keys), length.saturating_sub(s.rows as i64));
        }
        if !p.starts.is_null() {
            // SAFETY: a start an item of the batch.
            at = unsafe { *p.starts.add(batch) };
        }
        at = at.saturating_add(row as i64);
        for m in s.masks.iter().flatten() {
            high = high.min(m.cols as i64);
        }
        if s.causal {
            high = high.min(at.saturating_add(1));
        }
        if let Some(n) = s.right {
            high = high.min(at.saturating_add(n as i64).saturating_add(1));
        }
        let low = s.left.map_or(0, |n| at.saturating_sub(n as i64)).clamp(0, keys);
        (low.min(high.max(0)) as usize, high.max(0) as usize)
    }
}
