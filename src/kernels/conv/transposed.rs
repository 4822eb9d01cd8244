//! Transposed convolution on plain NCHW. Output places that agree modulo the stride see the same taps of the kernel: each such class is a
//! matrix product over those taps alone, so that no product with an inserted zero is computed.

use super::{ConvPtrs, ConvSpec};
use crate::bail;
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::gemm::micro::{TileSet, tiles};
use crate::kernels::gemm::multiply::{Job, k_block, multiply, scratch_len};
use crate::kernels::gemm::pack::{BSource, Panels};
use crate::kernels::gemm::task_flops;
use crate::kernels::isa::Isa;

/// One dimension's places of a class: place `q` is output `start + q * stride`, and tap `(k, e)` of it reads input `q0 + q - e`.
#[derive(Clone, Debug)]
struct Axis {
    start: usize,
    count: usize,
    q0: isize,
    taps: Vec<(usize, isize)>,
}

/// The classes of a dimension that have places.
fn axes(s: &ConvSpec, d: usize) -> Vec<Axis> {
    let (stride, pad, out) = (s.stride[d], s.pad[d], s.output[d]);
    let mut classes = Vec::new();
    for r in 0..stride.min(out) {
        // Outputs r, r + stride... come from inputs i and taps k with i * stride + k * dilation = output + pad.
        let (residue, q0) = ((r + pad) % stride, (r + pad) / stride);
        let taps = (0..s.kernel[d])
            .filter(|k| k * s.dilation[d] % stride == residue)
            .map(|k| (k, ((k * s.dilation[d] - residue) / stride) as isize))
            .collect();
        classes.push(Axis { start: r, count: (out - r).div_ceil(stride), q0: q0 as isize, taps });
    }
    classes
}

/// A combination of one class a dimension.
struct Class {
    axis: [usize; 3],
    places: usize,
    taps: usize,
    /// Where its weights begin in a group's packed weights.
    weights: usize,
    /// Where its tasks begin among an item's.
    first_task: usize,
    task_rows: usize,
    task_panels: usize,
    tasks_m: usize,
}

/// A transposed convolution of given shapes. The spec reads thus: weights are `[c_in, c_out / groups, kernel...]`, and the output at
/// `i * stride + k * dilation - pad` receives input `i` through tap `k`. No residual.
pub struct TransposedConv {
    isa: Isa,
    set: &'static TileSet,
    spec: ConvSpec,
    constant: bool,
    axes: [Vec<Axis>; 3],
    classes: Vec<Class>,
    item_tasks: usize,
    group_weights: usize,
    c_len: usize,
    scratch: usize,
}

impl TransposedConv {
    /// Plans it, or says what is wrong with its sizes. `constant`: the weights never change and `run` gets them packed.
    pub fn new(isa: Isa, spec: ConvSpec, constant: bool) -> Result<TransposedConv> {
        spec.check()?;
        if spec.residual {
            bail!(Unsupported, "a transposed convolution with a residual");
        }
        let set = tiles(isa);
        let (ci, co) = (spec.c_in / spec.groups, spec.c_out / spec.groups);
        product(&[spec.c_in.max(1), co.max(1), spec.taps().max(1), 4])?;
        let axes: [Vec<Axis>; 3] = std::array::from_fn(|d| axes(&spec, d));
        let (mut classes, mut group_weights, mut item_tasks) = (Vec::new(), 0, 0);
        let (mut c_len, mut scratch) = (0, 0);
        let worth = task_flops(isa);
        for (d, a0) in axes[0].iter().enumerate() {
            for (h, a1) in axes[1].iter().enumerate() {
                for (w, a2) in axes[2].iter().enumerate() {
                    let places = a0.count * a1.count * a2.count;
                    let taps = a0.taps.len() * a1.taps.len() * a2.taps.len();
                    let panels = places.div_ceil(set.panel);
                    let k = ci * taps;
                    let flops = [co, k.max(8), places].iter().fold(2usize, |a, b| a.saturating_mul(*b));
                    let pieces = flops.div_ceil(4 * worth).max(1);
                    let split_n = pieces.min(panels).max(1);
                    let split_m = pieces.div_ceil(split_n).min(co.div_ceil(32)).max(1);
                    let (task_rows, task_panels) = (co.div_ceil(split_m).max(1), panels.div_ceil(split_n).max(1));
                    let (tasks_m, tasks_n) = (co.div_ceil(task_rows), panels.div_ceil(task_panels));
                    let Some(more) = scratch_len(set, 0, k_block(k), false) else {
                        bail!(InvalidModel, "a transposed convolution's kernel of {k} weights is out of range");
                    };
                    scratch = scratch.max(more);
                    c_len = c_len.max(product(&[task_rows, task_panels, set.panel, 4])? / 4);
                    classes.push(Class {
                        axis: [d, h, w],
                        places,
                        taps,
                        weights: group_weights,
                        first_task: item_tasks,
                        task_rows,
                        task_panels,
                        tasks_m,
                    });
                    group_weights += co * k;
                    item_tasks += tasks_m * tasks_n;
                }
            }
        }
        Ok(TransposedConv { isa, set, spec, constant, axes, classes, item_tasks, group_weights, c_len, scratch })
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
        1 + !self.constant as usize
    }
    fn packs(&self, phase: usize) -> bool {
        !self.constant && phase == 0
    }
    /// Independent tasks of a phase.
    pub fn tasks(&self, phase: usize) -> usize {
        if self.packs(phase) { self.spec.groups } else { self.spec.n * self.spec.groups * self.item_tasks }
    }
    /// Bytes of scratch that each thread must lend to `run`.
    pub fn scratch_bytes(&self) -> usize {
        (self.c_len.next_multiple_of(16) + self.scratch) * 4
    }
    /// Bytes of workspace shared by all phases and tasks of a run.
    pub fn workspace_bytes(&self) -> usize {
        if self.constant { 0 } else { self.spec.groups * self.group_weights * 4 }
    }
    /// Bytes of the packed weights; 0 if they are not constant.
    pub fn packed_bytes(&self) -> usize {
        if self.constant { self.spec.groups * self.group_weights * 4 } else { 0 }
    }
    /// Names the packed format: equal strings mean that packed weights may be shared.
    pub fn packed_format(&self) -> String {
        let s = &self.spec;
        // Which classes there are and in what order also follows from padding and output size.
        let first: Vec<usize> = self.classes.iter().map(|c| c.weights).collect();
        let channels = [s.c_in, s.c_out, s.groups];
        format!(
            "conv_transpose_w f32 {channels:?} {:?} {:?} {:?} {:?} {first:?}",
            s.kernel, s.stride, s.dilation, s.pad
        )
    }
    /// Packs the weights: by group, class, output channel, input channel, tap.
    /// # Safety
    /// `w` is valid for reading the spec's weights, `dst` for writing `packed_bytes`.
    pub unsafe fn pack(&self, w: *const f32, dst: *mut f32) {
        for g in 0..self.spec.groups {
            // SAFETY: the caller's.
            unsafe { self.pack_group(g, w, dst) };
        }
    }

    unsafe fn pack_group(&self, g: usize, w: *const f32, dst: *mut f32) {
        let s = &self.spec;
        let (ci, co) = (s.c_in / s.groups, s.c_out / s.groups);
        let mut to = dst.wrapping_add(g * self.group_weights);
        for class in &self.classes {
            let [a0, a1, a2] = self.axes_of(class);
            for oc in 0..co {
                for ic in 0..ci {
                    let from = ((g * ci + ic) * co + oc) * s.taps();
                    for &(kd, _) in &a0.taps {
                        for &(kh, _) in &a1.taps {
                            for &(kw, _) in &a2.taps {
                                // SAFETY: the tap lies in the weights; a group's classes fill group_weights.
                                unsafe {
                                    *to = *w.add(from + (kd * s.kernel[1] + kh) * s.kernel[2] + kw);
                                    to = to.add(1);
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn axes_of(&self, class: &Class) -> [&Axis; 3] {
        std::array::from_fn(|d| &self.axes[d][class.axis[d]])
    }

    /// Runs one task of a phase.
    /// # Safety
    /// The operands are valid by the spec's shapes, weights packed if they are constant; the output overlaps none of them. `workspace` and
    /// `scratch` are valid for the bytes that `workspace_bytes` and `scratch_bytes` tell; no other task uses `scratch` meanwhile. All
    /// tasks of a phase end before those of the next begin.
    pub unsafe fn run(&self, phase: usize, task: usize, ptrs: &ConvPtrs, workspace: *mut u8, scratch: *mut u8) {
        if self.packs(phase) {
            // SAFETY: the workspace has room for all groups.
            return unsafe { self.pack_group(task, ptrs.w, workspace.cast()) };
        }
        let s = &self.spec;
        let (item, within) = (task / self.item_tasks, task % self.item_tasks);
        let at = self.classes.partition_point(|c| c.first_task <= within) - 1;
        let class = &self.classes[at];
        let (tn, tm) = ((within - class.first_task) / class.tasks_m, (within - class.first_task) % class.tasks_m);
        let (ci, co, group) = (s.c_in / s.groups, s.c_out / s.groups, item % s.groups);
        let (k, row0) = (ci * class.taps, tm * class.task_rows);
        let rows = class.task_rows.min(co - row0);
        let p0 = tn * class.task_panels;
        let p1 = class.places.div_ceil(self.set.panel).min(p0 + class.task_panels);
        let (n0, n1) = (p0 * self.set.panel, class.places.min(p1 * self.set.panel));
        let c = scratch.cast::<f32>();
        let c_row = n1 - n0;
        let w = if self.constant { ptrs.w } else { workspace.cast_const().cast() };
        let bias = group * co + row0;
        let job = Job {
            isa: self.isa,
            set: self.set,
            m: rows,
            n: class.places,
            k,
            kc: k_block(k),
            a: w.wrapping_add(group * self.group_weights + class.weights + row0 * k),
            a_row: k,
            a_col: 1,
            c: c.wrapping_sub(n0),
            c_row,
            bias_col: std::ptr::null(),
            bias_row: if s.bias { ptrs.bias.wrapping_add(bias) } else { std::ptr::null() },
            residual: std::ptr::null(),
            residual_row: 0,
            activation: s.activation,
            panels: p0..p1,
        };
        let axes = self.axes_of(class);
        let b = ClassInput {
            spec: s,
            axes,
            taps: class.taps,
            places: class.places,
            x: ptrs.x.wrapping_add(item * ci * s.in_size()),
            width: self.set.panel,
        };
        // SAFETY: rows and panels lie in the class; the scratch holds the task's part of C, then what multiply needs.
        unsafe { multiply(&job, &b, c.add(self.c_len.next_multiple_of(16))) };
        let y = ptrs.y.wrapping_add((item * co + row0) * s.out_size());
        let [a0, a1, a2] = axes;
        for r in 0..rows {
            let mut p = n0;
            while p < n1 {
                // A run of places in one line.
                let (x0, line) = (p % a2.count, p / a2.count);
                let len = (a2.count - x0).min(n1 - p);
                let od = a0.start + line / a1.count * s.stride[0];
                let oh = a1.start + line % a1.count * s.stride[1];
                let ow = a2.start + x0 * s.stride[2];
                let to = y.wrapping_add(r * s.out_size() + (od * s.output[1] + oh) * s.output[2] + ow);
                // SAFETY: the class's places lie in the output, the task's in C.
                unsafe {
                    let from = c.add(r * c_row + p - n0);
                    if s.stride[2] == 1 {
                        std::ptr::copy_nonoverlapping(from, to, len);
                    } else {
                        for i in 0..len {
                            *to.add(i * s.stride[2]) = *from.add(i);
                        }
                    }
                }
                p += len;
            }
        }
    }
}

/// A class's input as a matrix: a row a tap of a channel, a column a place.
struct ClassInput<'a> {
    spec: &'a ConvSpec,
    axes: [&'a Axis; 3],
    taps: usize,
    places: usize,
    x: *const f32,
    width: usize,
}

impl BSource for ClassInput<'_> {
    unsafe fn panels(&self, panel: usize, count: usize, k0: usize, kc: usize, scratch: *mut f32) -> Panels {
        for p in 0..count {
            // SAFETY: the panels and rows exist; scratch holds them.
            unsafe { self.pack(panel + p, k0, kc, scratch.add(p * kc * self.width)) };
        }
        Panels { b: scratch, b_row: self.width, b_panel: kc * self.width }
    }
}

impl ClassInput<'_> {
    unsafe fn pack(&self, panel: usize, k0: usize, kc: usize, dst: *mut f32) {
        let (s, [a0, a1, a2]) = (self.spec, self.axes);
        let [id, ih, iw] = s.input;
        let (p0, p1) = (panel * self.width, self.places.min((panel + 1) * self.width));
        let inside = |i: isize, size: usize| (i >= 0 && i < size as isize).then_some(i as usize);
        for r in 0..kc {
            let (c, tap) = ((k0 + r) / self.taps, (k0 + r) % self.taps);
            let (_, ed) = a0.taps[tap / (a1.taps.len() * a2.taps.len())];
            let (_, eh) = a1.taps[tap / a2.taps.len() % a1.taps.len()];
            let (_, ew) = a2.taps[tap % a2.taps.len()];
            // SAFETY: the panel's row lies in dst; `lo..hi` are the places whose input exists.
            unsafe {
                let row = dst.add(r * self.width);
                let plane = self.x.add(c * s.in_size());
                let mut p = p0;
                while p < p1 {
                    let (x0, line) = (p % a2.count, p / a2.count);
                    let len = (a2.count - x0).min(p1 - p);
                    let out = row.add(p - p0);
                    let d = inside(a0.q0 + (line / a1.count) as isize - ed, id);
                    let h = inside(a1.q0 + (line % a1.count) as isize - eh, ih);
                    // Place i of the run reads column first + i.
                    let first = a2.q0 + x0 as isize - ew;
                    let lo = (-first).clamp(0, len as isize) as usize;
                    let hi = (iw as isize - first).clamp(lo as isize, len as isize) as usize;
                    match (d, h) {
                        (Some(d), Some(h)) if lo < hi => {
                            let from = plane.add((d * ih + h) * iw).offset(first + lo as isize);
                            std::ptr::write_bytes(out, 0, lo);
                            std::ptr::copy_nonoverlapping(from, out.add(lo), hi - lo);
                            std::ptr::write_bytes(out.add(hi), 0, len - hi);
                        }
                        _ => std::ptr::write_bytes(out, 0, len),
                    }
                    p += len;
                }
                std::ptr::write_bytes(row.add(p1 - p0), 0, self.width - (p1 - p0));
            }
        }
    }
}
