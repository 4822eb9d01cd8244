//! Integer convolution. An input of NCHW is turned so that a place's channels lie together; each output place is then a row
//! whose parts, one a tap, are read where they lie, and a product of those rows with the packed weights is the result.
//! Depthwise convolutions multiply channel by channel.

use super::gemm::task_products;
use super::micro::{GROUP, MAX_COLS, TileSet, best};
use super::post::{Along, Line, Out, finish};
use super::{Block, Columns, Job, Post, Source, Zero, along, finish_columns, row_terms};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::conv::ConvSpec;
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, I32, Kernel, dispatch};

/// What to compute: the sizes, and the kinds of bytes. Bias, residual and activation of the sizes are not looked at.
#[derive(Clone, Copy, Debug)]
pub struct IntConvSpec {
    /// The sizes.
    pub conv: ConvSpec,
    /// The input is i8, not u8.
    pub x_signed: bool,
    /// The weights are u8, not i8.
    pub w_unsigned: bool,
    /// The weights are packed once with [`IntConv::pack`], and `run` gets them packed.
    pub w_constant: bool,
    /// What is written.
    pub out: Out,
    /// Whether the input, and whether the output, are NHWC, not NCHW.
    pub last: [bool; 2],
}

/// The operands of a run.
#[derive(Clone, Copy)]
pub struct IntConvPtrs {
    /// Input.
    pub x: *const u8,
    /// Weights; packed if the spec says that they are constant.
    pub w: *const u8,
    /// Output.
    pub y: *mut u8,
    /// The input's zero point: one for all.
    pub x_zero: Zero,
    /// The weights' zero points; `each` is for output channels.
    pub w_zero: Zero,
    /// What becomes of the sums; columns are output channels.
    pub post: Post,
}

/// A convolution of given sizes.
pub struct IntConv {
    isa: Isa,
    spec: IntConvSpec,
    /// The weights of a group.
    columns: Columns,
    depthwise: bool,
    /// The input is read where it lies.
    direct: bool,
    /// Bytes of a group of channels of a place, and of all of them.
    part: usize,
    place: usize,
    task_rows: usize,
    task_strips: usize,
    tasks_m: usize,
    tasks_n: usize,
    turn_tasks: usize,
    /// Workspace: the turned input, a place of zero points, packed weights.
    workspace: [usize; 3],
    /// Scratch: pointers, terms, blocks of sums.
    scratch: [usize; 3],
}

/// Output places of a task at most.
const MOST_ROWS: usize = 48;
/// Places that a task turns.
const TURN: usize = 1024;

impl IntConv {
    /// Plans the convolution, or says what is wrong with its sizes.
    pub fn new(isa: Isa, spec: IntConvSpec) -> Result<IntConv> {
        Self::with(isa, best(isa), spec)
    }
    pub(crate) fn with(isa: Isa, set: &'static TileSet, spec: IntConvSpec) -> Result<IntConv> {
        let s = spec.conv;
        s.check()?;
        let (ci, co, taps) = (s.c_in / s.groups, s.c_out / s.groups, s.taps());
        let depthwise = ci == 1 && co == 1 && s.groups > 1;
        let columns = Columns::new(isa, set, co, ci, taps)?.padded_steps();
        // Depthwise: the channels of a place as they are.
        let part = if depthwise { 1 } else { ci.next_multiple_of(GROUP) };
        let place = if depthwise { s.c_in.next_multiple_of(16) } else { product(&[s.groups, part])? };
        let task_rows = s.out_size().clamp(1, MOST_ROWS);
        let strips = if depthwise { s.c_in.div_ceil(MAX_COLS) } else { columns.strips() };
        let steps = taps.saturating_mul(if depthwise { MAX_COLS } else { part.saturating_mul(columns.set.lanes) });
        let widest = if depthwise { 1 } else { 1 << (columns.set.tall.len() - 1) };
        let worth = task_products(isa) / if depthwise { 8 } else { 1 };
        let task_strips =
            (worth / steps.saturating_mul(task_rows).max(1)).max(1).next_multiple_of(widest).min(strips.max(1));
        let (tasks_m, tasks_n) = (s.out_size().div_ceil(task_rows), strips.div_ceil(task_strips));
        let packed = match depthwise {
            // Weights less their zero points as i32, for whole vectors of channels.
            true => product(&[taps, place, 4])?,
            false => product(&[s.groups, columns.packed_bytes()])?,
        };
        let direct = spec.last[0] && !spec.x_signed && place == s.c_in && (depthwise || part == ci);
        let turned = product(&[s.n.max(1), s.in_size().max(1), place.max(1)])?;
        let turned = if direct { 0 } else { turned };
        let own = if spec.w_constant && !depthwise { 0 } else { packed };
        let workspace = [round_up(turned, ALIGN), round_up(place, ALIGN), own];
        product(&[workspace.iter().fold(0usize, |a, b| a.saturating_add(*b)), 1])?;
        let rows = columns.padded(task_rows).max(task_rows);
        let scratch = [
            round_up(product(&[taps, rows, 8])?, ALIGN),
            round_up(rows * 4, ALIGN),
            columns.scratch_bytes(rows, true)?,
        ];
        let turn_tasks = if direct { 0 } else { s.n * s.in_size().div_ceil(TURN) };
        Ok(IntConv {
            isa,
            spec,
            columns,
            depthwise,
            direct,
            part,
            place,
            task_rows,
            task_strips,
            tasks_m,
            tasks_n,
            turn_tasks,
            workspace,
            scratch,
        })
    }
    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        if self.depthwise { "u8s8_conv_depthwise" } else { self.columns.set.name }
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        2
    }
    fn groups(&self) -> usize {
        if self.depthwise { 1 } else { self.spec.conv.groups }
    }
    /// Weights that the first phase packs: by group, or all.
    fn pack_tasks(&self) -> usize {
        if self.workspace[2] == 0 { 0 } else { self.groups() }
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, phase: usize) -> usize {
        match phase {
            0 => self.turn_tasks + 1 + self.pack_tasks(),
            _ => self.spec.conv.n * self.groups() * self.tasks_m * self.tasks_n,
        }
    }
    /// Bytes of scratch that each thread must lend to `run`.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch.iter().sum()
    }
    /// Bytes of workspace shared by all phases and tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        self.workspace.iter().sum()
    }
    /// Bytes of packed constant weights; 0 where they are read as they are.
    pub fn packed_bytes(&self) -> usize {
        if self.workspace[2] == 0 { self.spec.conv.groups * self.columns.packed_bytes() } else { 0 }
    }
    /// Names the packed format.
    pub fn packed_format(&self) -> String {
        format!("conv {} g{}", self.columns.format(&self.source(std::ptr::null(), 0)), self.spec.conv.groups)
    }
    fn source(&self, w: *const u8, group: usize) -> Source {
        let (s, taps) = (&self.spec.conv, self.columns.taps);
        let ci = s.c_in / s.groups;
        let at = w.wrapping_add(group * (s.c_out / s.groups) * ci * taps);
        Source { at, tap_stride: 1, row: taps, col: ci * taps, unsigned: self.spec.w_unsigned }
    }
    unsafe fn pack_group(&self, group: usize, w: *const u8, dst: *mut u8) {
        let to = dst.wrapping_add(group * self.columns.packed_bytes());
        // SAFETY: the caller's: weights of all groups, and room for them.
        unsafe { self.columns.pack(0..self.columns.strips(), &self.source(w, group), to) };
    }
    /// Packs constant weights.
    /// # Safety
    /// `w` is valid by the spec's sizes, `dst` for `packed_bytes`.
    pub unsafe fn pack(&self, w: *const u8, dst: *mut u8) {
        for group in 0..self.spec.conv.groups {
            // SAFETY: the caller's.
            unsafe { self.pack_group(group, w, dst) };
        }
    }

    /// Runs one task of a phase.
    /// # Safety
    /// The operands are valid by the spec's sizes; the output overlaps none of them. `workspace` and `scratch` are valid for the
    /// bytes that `workspace_bytes` and `scratch_bytes` tell; no other task uses `scratch` meanwhile. All tasks of a phase end
    /// before those of the next begin.
    pub unsafe fn run(&self, phase: usize, task: usize, p: &IntConvPtrs, workspace: *mut u8, scratch: *mut u8) {
        let packed = workspace.wrapping_add(self.workspace[0] + self.workspace[1]);
        // SAFETY: the caller's.
        unsafe {
            match (phase, task.checked_sub(self.turn_tasks)) {
                (0, None) => self.turn(task, p.x, workspace),
                (0, Some(0)) => self.border(p.x_zero, workspace.add(self.workspace[0])),
                (0, Some(_)) if self.depthwise => self.pack_depthwise(p, packed.cast()),
                (0, Some(i)) => self.pack_group(i - 1, p.w, packed),
                _ => self.places(task, p, workspace, scratch),
            }
        }
    }

    /// Turns some places of an image.
    unsafe fn turn(&self, task: usize, x: *const u8, to: *mut u8) {
        let (s, size) = (&self.spec.conv, self.spec.conv.in_size());
        let per = size.div_ceil(TURN);
        let (image, p0) = (task / per, task % per * TURN);
        let count = TURN.min(size - p0);
        let (ci, flip) = (s.c_in / s.groups, if self.spec.x_signed { 0x80 } else { 0 });
        // SAFETY: the image's places p0..p0 + count of all channels; the workspace has room for them.
        unsafe {
            let to = to.add((image * size + p0) * self.place);
            if self.spec.last[0] {
                let from = x.add((image * size + p0) * s.c_in);
                let (count, part) = if self.depthwise { (count, s.c_in) } else { (count * s.groups, ci) };
                let wide = if self.depthwise { self.place } else { self.part };
                return copy_parts(from, part, to, wide, count, flip);
            }
            let from = x.add(image * s.c_in * size + p0);
            if self.depthwise {
                turn_bytes(from, size, to, self.place, s.c_in, count, flip);
                for i in 0..count {
                    std::ptr::write_bytes(to.add(i * self.place + s.c_in), 0, self.place - s.c_in);
                }
                return;
            }
            for g in 0..s.groups {
                turn_bytes(from.add(g * ci * size), size, to.add(g * self.part), self.place, ci, count, flip);
                for i in 0..if self.part > ci { count } else { 0 } {
                    std::ptr::write_bytes(to.add(i * self.place + g * self.part + ci), 0, self.part - ci);
                }
            }
        }
    }
    /// What taps outside the input see: the zero point.
    unsafe fn border(&self, zero: Zero, to: *mut u8) {
        // SAFETY: the caller's: a zero point, and room for a place.
        unsafe {
            let zero = zero.unsigned(0, self.spec.x_signed) as u8;
            std::ptr::write_bytes(to, zero, self.place);
        }
    }
    /// Weights less their zero points, tap by tap: first the sums of each channel, then the taps.
    unsafe fn pack_depthwise(&self, p: &IntConvPtrs, to: *mut i32) {
        let (channels, taps) = (self.spec.conv.c_in, self.columns.taps);
        let flip = if self.spec.w_unsigned { 0x80 } else { 0 };
        for tap in 0..taps {
            for c in 0..self.place {
                // SAFETY: the caller's: `taps` weights a channel, a zero point for it, and room for all.
                unsafe {
                    let mut v = 0;
                    if c < channels {
                        let w = i32::from((*p.w.add(c * taps + tap) ^ flip) as i8);
                        v = w - p.w_zero.signed(c, self.spec.w_unsigned);
                    }
                    *to.add(tap * self.place + c) = v;
                }
            }
        }
    }

    /// Computes some places of some output channels.
    unsafe fn places(&self, task: usize, p: &IntConvPtrs, workspace: *mut u8, scratch: *mut u8) {
        let (s, c) = (&self.spec.conv, &self.columns);
        let per_item = self.tasks_m * self.tasks_n;
        let (item, within) = (task / per_item, task % per_item);
        let (image, group) = (item / self.groups(), item % self.groups());
        let (tn, tm) = (within / self.tasks_m, within % self.tasks_m);
        let (row0, rows) = (tm * self.task_rows, self.task_rows.min(s.out_size() - tm * self.task_rows));
        let (co, size) = (s.c_out / self.groups(), self.spec.out.size());
        let pointers = scratch.cast::<*const u8>();
        let terms = scratch.wrapping_add(self.scratch[0]).cast::<i32>();
        let sums = scratch.wrapping_add(self.scratch[0] + self.scratch[1]);
        let padded = c.padded(rows);
        let turned = if self.direct { p.x } else { workspace.cast_const() };
        let turned = turned.wrapping_add(image * s.in_size() * self.place);
        let border = workspace.wrapping_add(self.workspace[0]).cast_const();
        let own = workspace.wrapping_add(self.workspace[0] + self.workspace[1]).cast_const();
        let first = group * co;
        let mut post = p.post;
        let ahead = |at: *const f32| if at.is_null() { at } else { at.wrapping_add(first) };
        if !post.int_bias.is_null() {
            post.int_bias = post.int_bias.wrapping_add(first);
        }
        post.bias = ahead(post.bias);
        if post.scale_each {
            post.scale = ahead(post.scale);
        }
        let mut w_zero = p.w_zero;
        if w_zero.each {
            w_zero.at = w_zero.at.wrapping_add(first);
        }
        // SAFETY: the caller's operands; places row0..row0 + rows exist; the scratch has room for pointers, terms and sums.
        unsafe {
            // A group's part of the border is as any other.
            self.point((row0, rows, padded), turned.wrapping_add(group * self.part), border, pointers);
            let mut job = Job {
                rows: pointers,
                m: rows,
                terms,
                strips: 0..0,
                packed: own,
                a_zero: p.x_zero,
                a_signed: self.spec.x_signed,
                b_zero: w_zero,
                b_unsigned: self.spec.w_unsigned,
                post,
                out: p.y.add(((image * s.c_out + first) * s.out_size() + row0) * size),
                out_row: 1,
                out_col: s.out_size(),
            };
            if self.spec.last[1] {
                job.out = p.y.add(((image * s.out_size() + row0) * s.c_out + first) * size);
                (job.out_row, job.out_col) = (s.c_out, 1);
            }
            if self.depthwise {
                let end = s.c_in.min((tn + 1) * self.task_strips * MAX_COLS);
                for n0 in (tn * self.task_strips * MAX_COLS..end).step_by(MAX_COLS) {
                    let cols = MAX_COLS.min(end - n0);
                    self.depthwise_block(&job, n0, cols, own.cast(), sums.cast(), padded);
                }
                return;
            }
            if self.workspace[2] == 0 {
                job.packed = p.w;
            }
            job.packed = job.packed.add(group * c.packed_bytes());
            if w_zero.each || w_zero.signed(0, self.spec.w_unsigned) != 0 {
                row_terms(c, pointers, rows, p.x_zero, self.spec.x_signed, terms);
            }
            job.strips = tn * self.task_strips..c.strips().min((tn + 1) * self.task_strips);
            c.run(&job, sums);
        }
    }
    /// For each tap and each of `rows` output places from `row0` on a pointer to what the tap sees; the last row's again and
    /// again up to `padded` rows.
    /// # Safety
    /// `from` is valid for the image's places, `border` for one; `to` for `taps * padded` pointers.
    unsafe fn point(&self, rows: (usize, usize, usize), from: *const u8, border: *const u8, to: *mut *const u8) {
        let (s, (row0, rows, padded)) = (&self.spec.conv, rows);
        let mut at = [row0 / (s.output[1] * s.output[2]), row0 / s.output[2] % s.output[1], row0 % s.output[2]];
        for i in 0..rows {
            let start: [isize; 3] = std::array::from_fn(|d| (at[d] * s.stride[d]) as isize - s.pad[d] as isize);
            let mut tap = 0;
            for a in 0..s.kernel[0] {
                let z = start[0] + (a * s.dilation[0]) as isize;
                for b in 0..s.kernel[1] {
                    let y = start[1] + (b * s.dilation[1]) as isize;
                    let inside = (z as usize) < s.input[0] && (y as usize) < s.input[1];
                    let line = if inside { (z * s.input[1] as isize + y) * s.input[2] as isize } else { 0 };
                    for c in 0..s.kernel[2] {
                        let x = start[2] + (c * s.dilation[2]) as isize;
                        let place = (line + x) as usize;
                        let seen = inside && (x as usize) < s.input[2];
                        let p = if seen { from.wrapping_add(place.wrapping_mul(self.place)) } else { border };
                        // SAFETY: the caller's: tap < taps, i < padded.
                        unsafe { to.add(tap * padded + i).write(p) };
                        tap += 1;
                    }
                }
            }
            at[2] += 1;
            for d in [2, 1] {
                if at[d] == s.output[d] {
                    at[d] = 0;
                    at[d - 1] += 1;
                }
            }
        }
        for (tap, i) in (0..self.columns.taps).flat_map(|t| (rows..padded).map(move |i| (t, i))) {
            // SAFETY: the caller's; the row before is written.
            unsafe { to.add(tap * padded + i).write(*to.add(tap * padded + rows - 1)) };
        }
    }
    /// Channels `n0..n0 + cols` of a depthwise convolution.
    unsafe fn depthwise_block(&self, job: &Job, n0: usize, cols: usize, w: *const i32, sums: *mut i32, padded: usize) {
        let (taps, place) = (self.columns.taps, self.place);
        let w = w.wrapping_add(n0);
        // SAFETY: the caller's: pointers for all taps and rows, weights for whole vectors of channels, room for the sums.
        unsafe {
            let mut totals = [0i32; MAX_COLS];
            for tap in 0..taps {
                totals.iter_mut().take(cols).enumerate().for_each(|(j, t)| *t += *w.add(tap * place + j));
            }
            let each = Depthwise { rows: job.rows, padded, n0, m: job.m, cols, taps, w, place, sums };
            dispatch(self.isa, each);
            // The weights' zero points are in the weights already.
            let plain = Job { b_zero: Zero::NONE, b_unsigned: false, strips: 0..0, ..*job };
            let block = Block::new(&plain, n0, cols, totals.as_ptr());
            if !self.spec.last[1] {
                return finish_columns(self.isa, &plain, &block, sums, padded);
            }
            let p = &plain.post;
            for i in 0..plain.m {
                let line = Line {
                    n: cols,
                    sums: sums.add(i * MAX_COLS),
                    add: Along { at: block.add.as_ptr(), each: true },
                    x: Along { at: std::ptr::null(), each: true },
                    y: Along { at: std::ptr::null(), each: true },
                    scale: along(p.scale, p.scale_each, if p.scale_each { n0 } else { 0 }),
                    bias: along(p.bias, true, n0),
                    zero: p.zero,
                    out: p.out,
                    to: plain.out.add((i * plain.out_row + n0) * p.out.size()),
                };
                finish(self.isa, line);
            }
        }
    }
}

/// Sums of products channel by channel, for some rows.
struct Depthwise {
    rows: *const *const u8,
    padded: usize,
    n0: usize,
    m: usize,
    cols: usize,
    taps: usize,
    w: *const i32,
    place: usize,
    sums: *mut i32,
}

impl Kernel for Depthwise {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let lanes = V::I::LANES;
        for i in 0..self.m {
            let mut j = 0;
            while j < self.cols {
                // SAFETY: places and weights have room for whole vectors of 16 channels, the sums for `MAX_COLS` a row.
                unsafe {
                    let mut acc = V::I::splat(0);
                    for tap in 0..self.taps {
                        let x = V::I::load_u8((*self.rows.add(tap * self.padded + i)).add(self.n0 + j));
                        acc = acc + x * V::I::load(self.w.add(tap * self.place + j));
                    }
                    acc.store(self.sums.add(i * MAX_COLS + j));
                }
                j += lanes;
            }
        }
    }
}

/// Copies `count` parts of `part` bytes, each byte `^ flip`, to places `wide` apart that zeros fill up.
unsafe fn copy_parts(src: *const u8, part: usize, dst: *mut u8, wide: usize, count: usize, flip: u8) {
    for i in 0..count {
        // SAFETY: the caller's: as many parts on both sides, `part <= wide`.
        unsafe {
            let from = std::slice::from_raw_parts(src.add(i * part), part);
            let to = std::slice::from_raw_parts_mut(dst.add(i * wide), wide);
            to[..part].iter_mut().zip(from).for_each(|(y, x)| *y = x ^ flip);
            to[part..].fill(0);
        }
    }
}

/// Writes `dst[j * dst_row + i] = src[i * src_row + j] ^ flip` for `i < rows`, `j < cols`.
/// # Safety
/// Every such place is valid for reading in `src` and for writing in `dst`, and the two do not overlap.
pub(crate) unsafe fn turn_bytes(
    src: *const u8,
    src_row: usize,
    dst: *mut u8,
    dst_row: usize,
    rows: usize,
    cols: usize,
    flip: u8,
) {
    const SIDE: usize = 8;
    for i0 in (0..rows).step_by(SIDE) {
        for j0 in (0..cols).step_by(SIDE) {
            let (ni, nj) = (SIDE.min(rows - i0), SIDE.min(cols - j0));
            // SAFETY: the block lies within rows and cols.
            unsafe {
                let (s, d) = (src.add(i0 * src_row + j0), dst.add(j0 * dst_row + i0));
                #[cfg(target_arch = "x86_64")]
                if ni == SIDE && nj == SIDE {
                    turn_block(s, src_row, d, dst_row, flip);
                    continue;
                }
                for j in 0..nj {
                    for i in 0..ni {
                        *d.add(j * dst_row + i) = *s.add(i * src_row + j) ^ flip;
                    }
                }
            }
        }
    }
}

/// Eight by eight bytes; SSE2, which every x86-64 has.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn turn_block(s: *const u8, src_row: usize, d: *mut u8, dst_row: usize, flip: u8) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's: eight rows of eight bytes on both sides.
    unsafe {
        let row = |i: usize| _mm_loadl_epi64(s.add(i * src_row).cast());
        let pair = |i: usize| _mm_unpacklo_epi8(row(i), row(i + 1));
        let (a, b, c, e) = (pair(0), pair(2), pair(4), pair(6));
        let (lo0, hi0) = (_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b));
        let (lo1, hi1) = (_mm_unpacklo_epi16(c, e), _mm_unpackhi_epi16(c, e));
        let flip = _mm_set1_epi8(flip as i8);
        let all = [
            _mm_unpacklo_epi32(lo0, lo1),
            _mm_unpackhi_epi32(lo0, lo1),
            _mm_unpacklo_epi32(hi0, hi1),
            _mm_unpackhi_epi32(hi0, hi1),
        ];
        for (i, v) in all.into_iter().enumerate() {
            let v = _mm_xor_si128(v, flip);
            _mm_storel_epi64(d.add(2 * i * dst_row).cast(), v);
            _mm_storel_epi64(d.add((2 * i + 1) * dst_row).cast(), _mm_unpackhi_epi64(v, v));
        }
    }
}
