//! Integer convolution. An input of NCHW is turned so that a place's channels lie together; each output place is then a row
//! whose parts, one a tap, are read where they lie, and a product of those rows with the packed weights is the result. Where the
//! input is copied anyway and there is one group, its lines get room for what lies outside, and the taps along a line are one part.
//! Depthwise convolutions multiply channel by channel.

use super::depthwise::Depthwise;
use super::gemm::task_products;
use super::micro::{GROUP, MAX_COLS, TileSet, best};
use super::post::{Out, Residual};
use super::turn::{copy_parts, turn_bytes};
use super::{Columns, Job, Post, Source, Zero, row_terms};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::conv::ConvSpec;
use crate::kernels::isa::Isa;

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
    /// All zero points of the weights are in the middle of their type: 0 for i8, 128 for u8.
    pub w_centred: bool,
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
    /// What becomes of the sums; columns are output channels. A residual lies as the output does.
    pub post: Post,
}

/// A convolution of given sizes.
pub struct IntConv {
    spec: IntConvSpec,
    /// The weights of a group.
    columns: Columns,
    depthwise: Option<Depthwise>,
    /// The input is read where it lies.
    direct: bool,
    /// Places of a line of the copied input whose taps are one part; 0 where each tap is.
    line: usize,
    /// Bytes of a group of channels of a place, and of all of them.
    part: usize,
    place: usize,
    task_rows: usize,
    task_strips: usize,
    tasks_m: usize,
    tasks_n: usize,
    turn_tasks: usize,
    packed_bytes: usize,
    /// Workspace: the turned input, a part of zero points, packed weights.
    workspace: [usize; 3],
    /// Scratch: pointers, terms, blocks of sums.
    scratch: [usize; 3],
}

/// Output places of a task, about: at least so many, and at most, where there are few products for each.
const ROWS: [usize; 2] = [48, 512];
/// Products that make a task of more than the fewest places.
const ROW_PRODUCTS: usize = 1_000_000;
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
        // Depthwise: the channels of a place as they are.
        let part = if depthwise { 1 } else { ci.next_multiple_of(GROUP) };
        let place = if depthwise { s.c_in.next_multiple_of(16) } else { product(&[s.groups, part])? };
        let direct = spec.last[0] && !spec.x_signed && place == s.c_in;
        let reach = s.output[2].saturating_sub(1).saturating_mul(s.stride[2]).saturating_add(s.kernel[2]);
        let merged = !direct && !depthwise && s.groups == 1 && s.dilation[2] == 1 && reach <= 2 * s.input[2] + 64;
        let line = if merged { reach } else { 0 };
        let (part, place) = if merged { (s.kernel[2] * ci, ci) } else { (part, place) };
        let columns = match merged {
            true => Columns::new(isa, set, co, part, s.kernel[0] * s.kernel[1])?,
            false => Columns::new(isa, set, co, ci, taps)?,
        };
        let columns = columns.padded_steps();
        let depthwise = depthwise.then(|| Depthwise::new(isa, set, taps, s.c_in, spec.w_centred));
        let strips = if depthwise.is_some() { s.c_in.div_ceil(MAX_COLS) } else { columns.strips() };
        let steps = match depthwise {
            Some(_) => taps.saturating_mul(MAX_COLS),
            None => columns.taps.saturating_mul(columns.k).saturating_mul(columns.set.lanes),
        };
        // Results that go by way of the scratch should stay in L1.
        let most = if depthwise.is_some() || !spec.last[1] { ROWS[0] } else { ROWS[1] };
        let rows = (ROW_PRODUCTS / steps.saturating_mul(strips).max(1)).clamp(ROWS[0], most);
        // As many in each task, in whole tiles: no task is left with a row or two.
        let tasks_m = ((s.out_size() + rows / 2) / rows).max(1);
        let task_rows = s.out_size().div_ceil(tasks_m).next_multiple_of(set.rows).clamp(1, s.out_size().max(1));
        let tasks_m = s.out_size().div_ceil(task_rows);
        let widest = if depthwise.is_some() { 1 } else { 1 << (columns.set.tall.len() - 1) };
        let worth = task_products(isa) / if depthwise.is_some() { 8 } else { 1 };
        let task_strips =
            (worth / steps.saturating_mul(task_rows).max(1)).max(1).next_multiple_of(widest).min(strips.max(1));
        let tasks_n = strips.div_ceil(task_strips);
        let packed_bytes = match &depthwise {
            Some(d) => d.packed_bytes()?,
            None => product(&[s.groups, columns.packed_bytes()])?,
        };
        let turned = match (direct, merged) {
            (true, _) => 0,
            // The last part is read in whole groups.
            (_, true) => product(&[s.n.max(1), s.input[0], s.input[1], line, place])?.saturating_add(GROUP),
            _ => product(&[s.n.max(1), s.in_size().max(1), place.max(1)])?,
        };
        let constant = spec.w_constant && (depthwise.is_none() || spec.w_centred);
        let own = if constant { 0 } else { packed_bytes };
        let workspace = [round_up(turned, ALIGN), round_up(place.max(columns.k), ALIGN), own];
        product(&[workspace.iter().fold(0usize, |a, b| a.saturating_add(*b)), 1])?;
        let rows = columns.padded(task_rows).max(task_rows);
        let by_rows = depthwise.is_none() && spec.last[1];
        let scratch = [
            round_up(product(&[taps, rows, 8])?, ALIGN),
            round_up(rows * 4, ALIGN),
            columns.scratch_bytes(rows, !by_rows)?,
        ];
        let mut conv = IntConv {
            spec,
            columns,
            depthwise,
            direct,
            line,
            part,
            place,
            task_rows,
            task_strips,
            tasks_m,
            tasks_n,
            turn_tasks: 0,
            packed_bytes,
            workspace,
            scratch,
        };
        conv.turn_tasks = if direct { 0 } else { s.n * conv.turn_count().div_ceil(conv.turn_step()) };
        Ok(conv)
    }
    /// The kernel's name.
    pub fn name(&self) -> &'static str {
        self.depthwise.as_ref().map_or(self.columns.set.name, Depthwise::name)
    }
    /// Phases, to be run one after the other.
    pub fn phases(&self) -> usize {
        2
    }
    fn groups(&self) -> usize {
        if self.depthwise.is_some() { 1 } else { self.spec.conv.groups }
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
        if self.workspace[2] == 0 { self.packed_bytes } else { 0 }
    }
    /// Names the packed format.
    pub fn packed_format(&self) -> String {
        match &self.depthwise {
            Some(d) => d.format(self.spec.w_unsigned),
            None => {
                format!("conv {} g{}", self.columns.format(&self.source(std::ptr::null(), 0)), self.spec.conv.groups)
            }
        }
    }
    fn source(&self, w: *const u8, group: usize) -> Source {
        let (s, taps) = (&self.spec.conv, self.spec.conv.taps());
        let ci = s.c_in / s.groups;
        let at = w.wrapping_add(group * (s.c_out / s.groups) * ci * taps);
        let tap_stride = if self.line > 0 { s.kernel[2] } else { 1 };
        Source {
            at,
            tap_stride,
            row: taps,
            run: ci.max(1),
            run_stride: 1,
            col: ci * taps,
            unsigned: self.spec.w_unsigned,
        }
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
        if let Some(d) = &self.depthwise {
            // SAFETY: the caller's. The weights' zero points are in the middle.
            return unsafe { d.pack(w, self.spec.w_unsigned, self.centre(), dst) };
        }
        for group in 0..self.spec.conv.groups {
            // SAFETY: the caller's.
            unsafe { self.pack_group(group, w, dst) };
        }
    }

    /// A zero point in the middle of the weights' type.
    fn centre(&self) -> Zero {
        if self.spec.w_unsigned { Zero { at: &128, each: false } } else { Zero::NONE }
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
                (0, None) => self.turn(task, p, workspace),
                (0, Some(0)) => {
                    let (zero, border) = (self.outside(p.x_zero), workspace.add(self.workspace[0]));
                    std::ptr::write_bytes(border, zero, self.workspace[1]);
                }
                (0, Some(i)) => match &self.depthwise {
                    Some(d) => d.pack(p.w, self.spec.w_unsigned, p.w_zero, packed),
                    None => self.pack_group(i - 1, p.w, packed),
                },
                _ => self.places(task, p, workspace, scratch),
            }
        }
    }

    /// What is turned at a time: places, or lines where there is room around them; and how many a task turns.
    fn turn_count(&self) -> usize {
        if self.line > 0 { self.spec.conv.input[0] * self.spec.conv.input[1] } else { self.spec.conv.in_size() }
    }
    fn turn_step(&self) -> usize {
        if self.line > 0 { TURN.div_ceil(self.line.max(1)) } else { TURN }
    }
    /// What taps outside the input see.
    unsafe fn outside(&self, x_zero: Zero) -> u8 {
        // SAFETY: the caller's: a zero point.
        unsafe { x_zero.unsigned(0, self.spec.x_signed) as u8 }
    }
    /// Turns some places or lines of an image.
    unsafe fn turn(&self, task: usize, p: &IntConvPtrs, to: *mut u8) {
        let (s, size) = (&self.spec.conv, self.spec.conv.in_size());
        let per = self.turn_count().div_ceil(self.turn_step());
        let (image, p0) = (task / per, task % per * self.turn_step());
        let count = self.turn_step().min(self.turn_count() - p0);
        let (ci, flip) = (s.c_in / s.groups, if self.spec.x_signed { 0x80 } else { 0 });
        let x = p.x.wrapping_add(image * s.c_in * size);
        // SAFETY: the image's places or lines p0..p0 + count of all channels; the workspace has room for them.
        unsafe {
            if self.line > 0 {
                let (outside, room) = (self.outside(p.x_zero), self.line * ci);
                let before = s.pad[2].min(self.line);
                let seen = s.input[2].min(self.line - before);
                for line in p0..p0 + count {
                    let to = to.add((image * self.turn_count() + line) * room);
                    std::ptr::write_bytes(to, outside, before * ci);
                    let at = to.add(before * ci);
                    if self.spec.last[0] {
                        copy_parts(x.add(line * s.input[2] * ci), seen * ci, at, seen * ci, 1, flip);
                    } else {
                        turn_bytes(x.add(line * s.input[2]), size, at, ci, ci, seen, flip);
                    }
                    std::ptr::write_bytes(at.add(seen * ci), outside, room - (before + seen) * ci);
                }
                return;
            }
            let to = to.add((image * size + p0) * self.place);
            if self.spec.last[0] {
                let from = x.add(p0 * s.c_in);
                let (count, part, wide) = match self.depthwise {
                    Some(_) => (count, s.c_in, self.place),
                    None => (count * s.groups, ci, self.part),
                };
                return copy_parts(from, part, to, wide, count, flip);
            }
            let from = x.add(p0);
            if self.depthwise.is_some() {
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
        let image_bytes =
            if self.line > 0 { self.turn_count() * self.line * self.place } else { s.in_size() * self.place };
        let turned = turned.wrapping_add(image * image_bytes);
        let border = workspace.wrapping_add(self.workspace[0]).cast_const();
        let own = workspace.wrapping_add(self.workspace[0] + self.workspace[1]).cast_const();
        let packed = if self.workspace[2] == 0 { p.w } else { own };
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
            // Depthwise weights are packed without their zero points.
            let shifted = self.depthwise.is_none() && w_zero.shifts(co, self.spec.w_unsigned);
            let mut at = (image * s.c_out + first) * s.out_size() + row0;
            let (mut out_row, mut out_col) = (1, s.out_size());
            if self.spec.last[1] {
                at = (image * s.out_size() + row0) * s.c_out + first;
                (out_row, out_col) = (s.c_out, 1);
            }
            post.residual = post.residual.map(|r| Residual { at: r.at.wrapping_add(at), ..r });
            let job = Job {
                rows: pointers,
                m: rows,
                terms,
                strips: tn * self.task_strips..c.strips().min((tn + 1) * self.task_strips),
                packed: packed.wrapping_add(group * c.packed_bytes()),
                a_zero: p.x_zero,
                a_signed: self.spec.x_signed,
                b_zero: if shifted { w_zero } else { Zero::NONE },
                b_unsigned: self.spec.w_unsigned && shifted,
                post,
                out: p.y.add(at * size),
                out_row,
                out_col,
            };
            if let Some(d) = &self.depthwise {
                let end = s.c_in.min((tn + 1) * self.task_strips * MAX_COLS);
                for n0 in (tn * self.task_strips * MAX_COLS..end).step_by(MAX_COLS) {
                    d.block(&job, n0, MAX_COLS.min(end - n0), sums.cast(), padded, self.spec.last[1]);
                }
                return;
            }
            if shifted {
                row_terms(c, pointers, rows, p.x_zero, self.spec.x_signed, terms);
            }
            c.run(&job, sums);
        }
    }
    /// For each part of a row, one a tap, and each of `rows` output places from `row0` on a pointer to what is seen there; the last
    /// row's again and again up to `padded` rows.
    /// # Safety
    /// `from` is valid for the image's places, `border` for one; `to` for `padded` pointers a part.
    unsafe fn point(&self, rows: (usize, usize, usize), from: *const u8, border: *const u8, to: *mut *const u8) {
        let (s, (row0, rows, padded)) = (&self.spec.conv, rows);
        let mut i = 0;
        while i < rows {
            let o = row0 + i;
            let at = [o / (s.output[1] * s.output[2]), o / s.output[2] % s.output[1], o % s.output[2]];
            let count = (s.output[2] - at[2]).min(rows - i);
            // SAFETY: the caller's: places i..i + count are of one line.
            unsafe { self.point_line((at, count, padded), from, border, to.add(i)) };
            i += count;
        }
        for (tap, i) in (0..self.columns.taps).flat_map(|t| (rows..padded).map(move |i| (t, i))) {
            // SAFETY: the caller's; the row before is written.
            unsafe { to.add(tap * padded + i).write(*to.add(tap * padded + rows - 1)) };
        }
    }
    /// [`IntConv::point`] for `count` output places of one line.
    unsafe fn point_line(
        &self,
        (at, count, padded): ([usize; 3], usize, usize),
        from: *const u8,
        border: *const u8,
        to: *mut *const u8,
    ) {
        let s = &self.spec.conv;
        let start: [isize; 3] = std::array::from_fn(|d| (at[d] * s.stride[d]) as isize - s.pad[d] as isize);
        let (merged, wide) = (self.line > 0, s.input[2] as isize);
        let (columns, room) = if merged { (1, self.line) } else { (s.kernel[2], s.input[2]) };
        let step = s.stride[2].wrapping_mul(self.place);
        let mut tap = 0;
        for a in 0..s.kernel[0] {
            let z = start[0] + (a * s.dilation[0]) as isize;
            for b in 0..s.kernel[1] {
                let y = start[1] + (b * s.dilation[1]) as isize;
                let inside = (z as usize) < s.input[0] && (y as usize) < s.input[1];
                let line = if inside { (z as usize * s.input[1] + y as usize) * room } else { 0 };
                for c in 0..columns {
                    // Of a line with room around it all is there, from the first place seen on.
                    let x =
                        if merged { (at[2] * s.stride[2]) as isize } else { start[2] + (c * s.dilation[2]) as isize };
                    let before = x.min(0).unsigned_abs().div_ceil(s.stride[2]).min(count);
                    let upto = ((wide - x).max(0) as usize).div_ceil(s.stride[2]);
                    let seen = match (inside, merged) {
                        (false, _) => 0..0,
                        (_, true) => 0..count,
                        _ => before..upto.clamp(before, count),
                    };
                    let first = from.wrapping_add(line.wrapping_add_signed(x).wrapping_mul(self.place));
                    // SAFETY: the caller's: a pointer for each of the places and parts.
                    let to = unsafe { std::slice::from_raw_parts_mut(to.add(tap * padded), count) };
                    to[..seen.start].fill(border);
                    to[seen.end..].fill(border);
                    for i in seen {
                        to[i] = first.wrapping_add(i.wrapping_mul(step));
                    }
                    tap += 1;
                }
            }
        }
    }
}
