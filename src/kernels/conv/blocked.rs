//! Convolution on the blocked layout NCHWc, c being the floats of a vector: a direct convolution whose inner loops are those of a matrix
//! product. The first layer of a network reads plain NCHW and writes blocked.
//!
//! The last block's padding lanes are zero in every input and are written as zero.

use super::tile::{TileArgs, TileSet, tiles};
use super::{ConvPtrs, ConvSpec, even, inside};
use crate::bail;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::gemm::epilogue::{activate, add};
use crate::kernels::gemm::micro::LINE;
use crate::kernels::gemm::task_flops;
use crate::kernels::isa::Isa;
use crate::kernels::reorder::transpose_to;

/// How the input of a blocked convolution lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Plain NCHW.
    Dense,
    /// NCHWc.
    Blocked,
}

/// Bytes of weights that one pass over the places uses: they should stay in L2.
const WEIGHT_BLOCK: usize = 192 * 1024;

/// A convolution of given shapes on blocked memory.
pub struct BlockedConv {
    isa: Isa,
    set: &'static TileSet,
    spec: ConvSpec,
    input: Input,
    /// Channel block.
    c: usize,
    /// Blocks of output channels a tile covers.
    nv: usize,
    /// Output lines and places a line, input places a line; a pointwise convolution is one long line.
    lines: usize,
    width: usize,
    in_width: usize,
    tiles_per_line: usize,
    /// Of one convolution group: output channel blocks, and sets of `nv` of them.
    oc_blocks: usize,
    oc_sets: usize,
    /// Chunks: input channel blocks (or channels), kernel lines, kernel columns; steps of a chunk.
    count: [usize; 3],
    k: usize,
    /// Input channel blocks of one pass.
    pass: usize,
    /// Tiles and sets of a task.
    task_tiles: usize,
    task_sets: usize,
    tasks_t: usize,
    tasks_s: usize,
}

impl BlockedConv {
    /// Whether the blocked kernels take this shape with an input in this layout.
    pub fn supports(isa: Isa, s: &ConvSpec, input: Input) -> bool {
        let c = isa.f32_lanes();
        let flat = s.input[0] == 1 && s.output[0] == 1 && s.kernel[0] == 1 && s.pad[0] == 0;
        let whole = s.groups > 0
            && (s.groups == 1
                || ((s.c_in / s.groups).is_multiple_of(c)
                    && (s.c_out / s.groups).is_multiple_of(c)
                    && s.c_in >= s.groups));
        // A dense input's taps must follow each other, and few channels are what it is for.
        let dense = match input {
            Input::Blocked => s.kernel[2] <= MAX_COLUMNS,
            Input::Dense => s.groups == 1 && s.dilation[2] == 1 && s.c_in < c,
        };
        flat && whole && dense && s.taps() > 0
    }

    /// Plans the convolution, or says why it cannot be.
    pub fn new(isa: Isa, spec: ConvSpec, input: Input) -> Result<BlockedConv> {
        spec.check()?;
        if !Self::supports(isa, &spec, input) {
            bail!(Unsupported, "no blocked kernel for {spec:?} with {input:?} input");
        }
        let (c, set) = (isa.f32_lanes(), tiles(isa));
        let s = &spec;
        let oc_blocks = (s.c_out / s.groups).div_ceil(c);
        let blocked = input == Input::Blocked;
        let ic = s.c_in / s.groups;
        let (count, k) =
            if blocked { ([ic.div_ceil(c), s.kernel[1], s.kernel[2]], c) } else { ([ic, s.kernel[1], 1], s.kernel[2]) };
        let pointwise = blocked && s.taps() == 1 && s.stride == [1; 3] && s.pad == [0; 3] && s.input == s.output;
        let (lines, width) = if pointwise { (1, s.out_size()) } else { (s.output[1], s.output[2]) };
        let in_width = if pointwise { width } else { s.input[2] };
        product(&[s.n.max(1), s.groups, oc_blocks.max(1), c, s.out_size().max(1), 4])?;
        product(&[s.groups, oc_blocks.max(1) * c, ic.next_multiple_of(c).max(1), s.taps(), 4])?;

        let (nv, mr) = choose_tile(set, oc_blocks, width);
        let tiles_per_line = width.div_ceil(mr.max(1));
        let oc_sets = oc_blocks.div_ceil(nv);
        let chunk_bytes = count[1] * count[2] * k * nv * c * 4;
        let most = (WEIGHT_BLOCK / chunk_bytes.max(1)).max(1);
        let passes = count[0].div_ceil(most).max(1);
        let pass = count[0].div_ceil(passes).max(1);

        // Tasks: cut what there is more of, places or weights.
        let worth = task_flops(isa);
        let item = s.flops() / (s.n * s.groups).max(1);
        let target = (s.flops() / 24).clamp(worth / 2, 4 * worth);
        let pieces = even(item.div_ceil(target.max(1)).max(1));
        let all_tiles = lines * tiles_per_line;
        let (weights, places) = (ic * s.c_out / s.groups * s.taps(), ic * s.in_size());
        // Cutting the other as well reads the first again in each piece: only for the sake of a few tasks.
        let more = |split: usize| if split * s.n * s.groups < 16 { pieces.div_ceil(split) } else { 1 };
        let (split_t, split_s) = if weights > places {
            let split_s = pieces.min(oc_sets).max(1);
            (more(split_s).min(all_tiles).max(1), split_s)
        } else {
            let split_t = pieces.min(all_tiles.div_ceil(4)).max(1);
            (split_t, more(split_t).min(oc_sets).max(1))
        };
        // Whole lines to a task where lines are short.
        let mut task_tiles = all_tiles.div_ceil(split_t).max(1);
        if tiles_per_line > 1 && lines > 1 && task_tiles > tiles_per_line {
            task_tiles = task_tiles.next_multiple_of(tiles_per_line);
        }
        let task_sets = oc_sets.div_ceil(split_s).max(1);
        let (tasks_t, tasks_s) = (all_tiles.div_ceil(task_tiles), oc_sets.div_ceil(task_sets));
        Ok(BlockedConv {
            isa,
            set,
            spec,
            input,
            c,
            nv,
            lines,
            width,
            in_width,
            tiles_per_line,
            oc_blocks,
            oc_sets,
            count,
            k,
            pass,
            task_tiles,
            task_sets,
            tasks_t,
            tasks_s,
        })
    }
    /// What it was made from.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }
    /// The kernel's name in the table.
    pub fn name(&self) -> &'static str {
        self.set.name
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        1
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, _phase: usize) -> usize {
        self.spec.n * self.spec.groups * self.tasks_t * self.tasks_s
    }
    /// Lines and width of a padded band of the input, which a task with dense input copies to its scratch.
    fn band(&self) -> (usize, usize) {
        let s = &self.spec;
        let lines = (self.task_tiles - 1).div_ceil(self.tiles_per_line.max(1)) + 1;
        let lines = (lines.min(s.output[1].max(1)) - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1;
        (lines, (s.output[2].max(1) - 1) * s.stride[2] + s.kernel[2])
    }
    /// Bytes of scratch that each thread must lend to `run`.
    pub fn scratch_bytes(&self) -> usize {
        if self.input == Input::Blocked {
            return 0;
        }
        let (lines, width) = self.band();
        self.spec.c_in * lines * width * 4
    }
    /// Bytes of workspace shared by all tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        0
    }
    fn weights_of_group(&self) -> usize {
        self.oc_blocks * self.c * self.count.iter().product::<usize>() * self.k
    }
    /// Bytes of the packed weights.
    pub fn packed_bytes(&self) -> usize {
        self.spec.groups * self.weights_of_group() * 4
    }
    /// Names the packed format: equal strings mean that packed weights may be shared.
    pub fn packed_format(&self) -> String {
        let s = &self.spec;
        let (kernel, channels) = (s.kernel, [s.c_in, s.c_out, s.groups]);
        format!("conv_w f32 c{} nv{} {:?} {kernel:?} {channels:?}", self.c, self.nv, self.input)
    }
    /// Floats of the bias that `run` reads: `c_out` rounded up to whole blocks; those beyond `c_out` must be zero.
    pub fn bias_len(&self) -> usize {
        self.spec.groups * self.oc_blocks * self.c
    }

    /// Packs the weights.
    /// # Safety
    /// `w` is valid for reading the spec's weights and need not be aligned, `dst` for writing `packed_bytes`.
    pub unsafe fn pack(&self, w: *const f32, dst: *mut f32) {
        let s = &self.spec;
        let (ci, co, taps) = (s.c_in / s.groups, s.c_out / s.groups, s.taps());
        // A dense chunk is one channel, of whose taps one follows the other; in a blocked one channels are innermost.
        let chunk = if self.input == Input::Blocked { self.c } else { 1 };
        let mut to = dst;
        for g in 0..s.groups {
            for set in 0..self.oc_sets {
                let (first, wide) = (set * self.nv * self.c, self.blocks_of(set) * self.c);
                let outputs = wide.min(co - first);
                for i in 0..self.count[0] {
                    let channels = chunk.min(ci - i * chunk);
                    // SAFETY: the channels lie in the weights; as many values are written as packed_bytes counts.
                    unsafe {
                        if channels < chunk || outputs < wide {
                            std::ptr::write_bytes(to, 0, chunk * taps * wide);
                        }
                        let from = w.add(((g * co + first) * ci + i * chunk) * taps);
                        let row = |j: usize| to.add((j % taps * chunk + j / taps) * wide);
                        transpose_to(self.isa, from, ci * taps, outputs, channels * taps, row);
                        to = to.add(chunk * taps * wide);
                    }
                }
            }
        }
    }

    /// Output channel blocks of a set: the last may have fewer.
    fn blocks_of(&self, set: usize) -> usize {
        self.nv.min(self.oc_blocks - set * self.nv)
    }

    /// Runs one task.
    /// # Safety
    /// The operands are valid by the spec's shapes in their layouts, weights packed, bias of `bias_len` values; the output overlaps none
    /// of them, except that a residual that is not added last may be the output itself. `scratch` is valid for `scratch_bytes` and no other task uses it
    /// meanwhile.
    pub unsafe fn run(&self, _phase: usize, task: usize, p: &ConvPtrs, _workspace: *mut u8, scratch: *mut u8) {
        let s = &self.spec;
        let per_item = self.tasks_t * self.tasks_s;
        let (item, within) = (task / per_item, task % per_item);
        // Neighbouring tasks share weights.
        let (ts, tt) = (within / self.tasks_t, within % self.tasks_t);
        let tiles = tt * self.task_tiles..((tt + 1) * self.task_tiles).min(self.lines * self.tiles_per_line);
        let group = item % s.groups;
        let (zeros, clamp) = ([0f32; 16], s.activation.clamp());
        let out_size = s.out_size() * self.c;
        // Items run over images, then groups, as channel blocks do in memory.
        let (x, x_step, x_place, x_line, first_line) = if self.input == Input::Blocked {
            let plane = s.in_size() * self.c;
            let x = p.x.wrapping_add(item * self.count[0] * plane);
            let line = s.input[2] * self.c;
            (x, [plane, s.dilation[1] * line, s.dilation[2] * self.c], s.stride[2] * self.c, line, 0)
        } else {
            let (lines, width) = self.band();
            let first = tiles.start / self.tiles_per_line;
            let x = p.x.wrapping_add(item * s.c_in * s.in_size());
            // SAFETY: one image of the input; the scratch has room for the band.
            unsafe { self.copy_band(x, first, lines, width, scratch.cast()) };
            (scratch.cast_const().cast(), [lines * width, s.dilation[1] * width, 0], s.stride[2], width, first)
        };
        let dense = self.input == Input::Dense;
        let chunk = self.k * self.count[2];
        let mut edges = [(0, 0); MAX_COLUMNS];
        for set in ts * self.task_sets..self.oc_sets.min((ts + 1) * self.task_sets) {
            let nv = self.blocks_of(set);
            let fns = self.set.by_blocks[nv - 1];
            let set_block = group * self.oc_blocks + set * self.nv;
            let w_of_set = group * self.weights_of_group()
                + set * self.nv * self.c * self.count.iter().product::<usize>() * self.k;
            let w_step = [chunk * self.count[1] * nv * self.c, chunk * nv * self.c];
            let y_set = (item * self.oc_blocks + set * self.nv) * out_size;
            for i0 in (0..self.count[0].max(1)).step_by(self.pass) {
                let i1 = self.count[0].min(i0 + self.pass);
                let last = i1 == self.count[0];
                // What the next pass or set begins with; each tile fetches a part of it.
                let ahead = p.w.wrapping_add(w_of_set + i1 * w_step[0]);
                let part = (i1 - i0) * self.count[1] * chunk / 4 * nv * LINE;
                for (t, tile) in tiles.clone().enumerate() {
                    let (line, within) = (tile / self.tiles_per_line, tile % self.tiles_per_line);
                    let (place, mr) = place_of(self.width, self.tiles_per_line, within);
                    // Kernel lines that see the input.
                    let (mut h0, mut h1) = (0, self.count[1]);
                    let (x_at, edges) = if dense {
                        (x.wrapping_add((line - first_line) * s.stride[1] * x_line + place * x_place), std::ptr::null())
                    } else {
                        (h0, h1) = inside(line, s.stride[1], s.dilation[1], s.pad[1], s.input[1], h1);
                        let any = self.edges(place, mr, &mut edges);
                        let from = (line * s.stride[1]).wrapping_sub(s.pad[1]).wrapping_mul(x_line);
                        let at = from.wrapping_add((place * s.stride[2]).wrapping_sub(s.pad[2]).wrapping_mul(self.c));
                        (x.wrapping_add(at), if any { edges.as_ptr() } else { std::ptr::null() })
                    };
                    let y = y_set + (line * self.width + place) * self.c;
                    let some =
                        |on: bool, p: *const f32, by: usize| if on { p.wrapping_add(by) } else { std::ptr::null() };
                    let args = TileArgs {
                        x: x_at.wrapping_add(i0 * x_step[0]).wrapping_add(h0 * x_step[1]),
                        x_place,
                        count: [i1 - i0, h1 - h0, self.count[2]],
                        x_step,
                        w_step,
                        k: self.k,
                        w: p.w.wrapping_add(w_of_set + i0 * w_step[0] + h0 * w_step[1]),
                        next: ahead.wrapping_add(t * part),
                        edges,
                        zeros: zeros.as_ptr(),
                        y: p.y.wrapping_add(y),
                        y_block: out_size,
                        accumulate: i0 > 0,
                        bias: some(s.bias, p.bias, set_block * self.c),
                        residual: some(s.residual && !s.residual_last, p.residual, y),
                        clamp: if last { clamp } else { (f32::NEG_INFINITY, f32::INFINITY) },
                    };
                    // SAFETY: the tile's places, chunks and channels lie in the operands; edges keep it inside the input.
                    unsafe {
                        fns[mr - 1](&args);
                        if last {
                            self.finish(args.y, some(s.residual_last, p.residual, y), set, nv, mr);
                        }
                    }
                }
            }
        }
    }

    /// For each kernel column, the places of a tile that see the input through it; whether some do not.
    fn edges(&self, place: usize, mr: usize, edges: &mut [(usize, usize); MAX_COLUMNS]) -> bool {
        let s = &self.spec;
        let mut any = false;
        for (kw, e) in edges[..self.count[2]].iter_mut().enumerate() {
            // Place i reads column i * stride + first - pad.
            let first = place * s.stride[2] + kw * s.dilation[2];
            let lo = s.pad[2].saturating_sub(first).div_ceil(s.stride[2]).min(mr);
            let hi = (self.in_width + s.pad[2]).saturating_sub(first).div_ceil(s.stride[2]).clamp(lo, mr);
            *e = (lo, hi);
            any |= lo > 0 || hi < mr;
        }
        any
    }

    /// What the tile kernels leave: activations that are no clamp, a residual (or null) after them, and zeros in the last block's
    /// padding lanes.
    unsafe fn finish(&self, y: *mut f32, residual: *const f32, set: usize, nv: usize, mr: usize) {
        let s = &self.spec;
        let block = s.out_size() * self.c;
        if !s.activation.is_clamp() {
            // SAFETY: the tile just written.
            unsafe { activate(self.isa, s.activation, y, nv, mr * self.c, block) };
        }
        if !residual.is_null() {
            // SAFETY: as above, and the residual lies as the output does.
            unsafe { add(self.isa, residual, y, nv, mr * self.c, block) };
        }
        let used = s.c_out / s.groups - (self.oc_blocks - 1) * self.c;
        // Always: an infinite or NaN input times a zero weight is NaN, and would spread to the next layer.
        if set + 1 == self.oc_sets && used < self.c {
            for i in 0..mr {
                for l in used..self.c {
                    // SAFETY: as above.
                    unsafe { *y.add((nv - 1) * block + i * self.c + l) = 0.0 };
                }
            }
        }
    }

    /// Copies the input lines that a task with dense input reads, padded with zeros.
    unsafe fn copy_band(&self, x: *const f32, first: usize, lines: usize, width: usize, dst: *mut f32) {
        let s = &self.spec;
        let lo = s.pad[2].min(width);
        let hi = (s.input[2] + s.pad[2]).min(width).max(lo);
        for c in 0..s.c_in {
            for l in 0..lines {
                // SAFETY: line and columns lie inside the input, or are not read.
                unsafe {
                    let to = dst.add((c * lines + l) * width);
                    match (first * s.stride[1] + l).checked_sub(s.pad[1]).filter(|&i| i < s.input[1]) {
                        Some(i) => {
                            std::ptr::write_bytes(to, 0, lo);
                            std::ptr::copy_nonoverlapping(x.add(c * s.in_size() + i * s.input[2]), to.add(lo), hi - lo);
                            std::ptr::write_bytes(to.add(hi), 0, width - hi);
                        }
                        None => std::ptr::write_bytes(to, 0, width),
                    }
                }
            }
        }
    }
}

/// The widest kernel that blocked convolution takes.
const MAX_COLUMNS: usize = 64;

/// First place and places of a line's `i`-th tile: nearly equal tiles.
fn place_of(width: usize, tiles: usize, i: usize) -> (usize, usize) {
    let (low, higher) = (width / tiles, width % tiles);
    (i * low + i.min(higher), low + (i < higher) as usize)
}

/// The tile (blocks, places) with the least time on paper for a line of `width` places.
fn choose_tile(set: &TileSet, oc_blocks: usize, width: usize) -> (usize, usize) {
    let mut best = (usize::MAX, 1, 1);
    for nv in 1..=4.min(oc_blocks.max(1)) {
        let cost_of = |nv: usize| {
            let most = set.by_blocks[nv - 1].len();
            if most == 0 {
                return None;
            }
            let tiles = width.div_ceil(most).max(1);
            let mr = width.div_ceil(tiles).max(1);
            // In half cycles a step: two multiply-adds or two loads a cycle; a chain of additions takes four.
            Some((tiles * (nv * mr).max(nv + mr + 1).max(8), mr))
        };
        let Some((cost, mr)) = cost_of(nv) else { continue };
        let rest = if !oc_blocks.is_multiple_of(nv) { cost_of(oc_blocks % nv).map_or(cost, |r| r.0) } else { 0 };
        let total = oc_blocks / nv * cost + rest;
        // Ties go to the taller stack of blocks only where it reads less; prefer two.
        if total < best.0 || (total == best.0 && nv == 2) {
            best = (total, nv, mr);
        }
    }
    (best.1, best.2)
}
