//! Linear attention: a state matrix a head that each token decays, writes and reads. The columns of a state do not meet, so a
//! task takes some of them through all tokens.

use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, dispatch};
use crate::kernels::vmath;

/// Columns of a state that a task takes.
pub const COLUMNS: usize = 32;

/// Some columns of one head's state and the tokens it meets. Rows of a token lie `*_row` numbers apart.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Recurrence {
    pub tokens: usize,
    /// Rows of the state, and columns of this task: `COLUMNS` at most.
    pub size: usize,
    pub columns: usize,
    /// Query heads that read the state.
    pub group: usize,
    pub scale: f32,
    pub q: *const f32,
    pub q_row: usize,
    pub k: *const f32,
    pub k_row: usize,
    /// At the task's first column.
    pub v: *const f32,
    pub v_row: usize,
    /// Logarithms of what is kept of each row, or of all (`decay_step` 0); or null.
    pub decay: *const f32,
    pub decay_row: usize,
    pub decay_step: usize,
    /// The rate of correction; or null for plain sums.
    pub beta: *const f32,
    pub beta_row: usize,
    /// `[size, columns]` at the task's first column; null for zeros.
    pub past: *const f32,
    /// May be null.
    pub present: *mut f32,
    pub state_row: usize,
    /// Of the group's first head, at the task's first column.
    pub out: *mut f32,
    pub out_row: usize,
    pub out_head: usize,
    /// `size * (COLUMNS + 1)` numbers.
    pub scratch: *mut f32,
}

impl Recurrence {
    /// Numbers of scratch for states of `size` rows.
    pub fn scratch_len(size: usize) -> usize {
        size * (COLUMNS + 1)
    }
    /// Runs all tokens.
    /// # Safety
    /// All operands are valid by the sizes; outputs overlap no inputs.
    pub unsafe fn run(self, isa: Isa) {
        dispatch(isa, self)
    }
}

impl Kernel for Recurrence {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let n = self.columns;
        // SAFETY: `Recurrence::run`'s contract. The state's rows in scratch are COLUMNS wide, its other columns zero.
        unsafe {
            let (state, keep) = (self.scratch, self.scratch.add(self.size * COLUMNS));
            for d in 0..self.size {
                for j in 0..COLUMNS {
                    let x = if j < n && !self.past.is_null() { *self.past.add(d * self.state_row + j) } else { 0.0 };
                    *state.add(d * COLUMNS + j) = x;
                }
            }
            for t in 0..self.tokens {
                let k = self.k.add(t * self.k_row);
                let v = self.v.add(t * self.v_row);
                if !self.decay.is_null() {
                    let g = self.decay.add(t * self.decay_row);
                    if self.decay_step == 0 {
                        let e = vmath::exp(V::splat(*g));
                        for d in (0..self.size).step_by(V::LANES) {
                            e.store_n(keep.add(d), V::LANES.min(self.size - d));
                        }
                    } else {
                        for d in (0..self.size).step_by(V::LANES) {
                            let m = V::LANES.min(self.size - d);
                            vmath::exp(V::load_n(g.add(d), m)).store_n(keep.add(d), m);
                        }
                    }
                }
                for j in (0..n).step_by(V::LANES) {
                    let m = V::LANES.min(n - j);
                    let column = state.add(j);
                    let mut fresh = V::load_n(v.add(j), m);
                    if !self.decay.is_null() {
                        for d in 0..self.size {
                            let s = column.add(d * COLUMNS);
                            (V::load(s) * V::splat(*keep.add(d))).store(s);
                        }
                    }
                    if !self.beta.is_null() {
                        let mut held = V::zero();
                        for d in 0..self.size {
                            held = V::splat(*k.add(d)).mul_add(V::load(column.add(d * COLUMNS)), held);
                        }
                        fresh = V::splat(*self.beta.add(t * self.beta_row)) * (fresh - held);
                    }
                    for d in 0..self.size {
                        let s = column.add(d * COLUMNS);
                        V::splat(*k.add(d)).mul_add(fresh, V::load(s)).store(s);
                    }
                    for h in 0..self.group {
                        let q = self.q.add(t * self.q_row + h * self.size);
                        let mut sum = V::zero();
                        for d in 0..self.size {
                            sum = V::splat(*q.add(d)).mul_add(V::load(column.add(d * COLUMNS)), sum);
                        }
                        let to = self.out.add(t * self.out_row + h * self.out_head + j);
                        (sum * V::splat(self.scale)).store_n(to, m);
                    }
                }
            }
            if !self.present.is_null() {
                for d in 0..self.size {
                    for j in 0..n {
                        *self.present.add(d * self.state_row + j) = *state.add(d * COLUMNS + j);
                    }
                }
            }
        }
    }
}
