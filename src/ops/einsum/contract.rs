//! The pieces of an Einsum: copies with sums, products of matrices, products element by element; each a few phases of
//! a step.

use crate::backend::StepArgs;
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::elem::{Elem, Number};
use crate::kernels::gemm::{Batch, Gemm, GemmPtrs, GemmSpec};
use crate::kernels::gemm_plain::Product;
use crate::kernels::isa::Isa;
use crate::kernels::movement::StridedCopy;
use crate::kernels::nd::{Nest, Strides};
use crate::kernels::reduce::{Reduce, ReduceKind};
use crate::ops::steps::Phases;
use crate::{bail, err};
use std::sync::Arc;

/// Where an operand is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Input(usize),
    /// At a byte offset in the workspace.
    Workspace(usize),
}

/// Where a result goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Output,
    Workspace(usize),
}

impl Source {
    fn of(self, args: &StepArgs<'_>) -> *const u8 {
        match self {
            Source::Input(i) => args.input(i),
            Source::Workspace(at) => args.workspace::<u8>().wrapping_add(at),
        }
    }
}

impl Target {
    fn of(self, args: &StepArgs<'_>) -> *mut u8 {
        match self {
            Target::Output => args.output(0),
            Target::Workspace(at) => args.workspace::<u8>().wrapping_add(at),
        }
    }
}

/// A step in the making: phases, and the workspace they share.
pub(super) struct Builder {
    isa: Isa,
    elem: Elem,
    phases: Vec<Box<dyn FnOnce(Phases) -> Phases>>,
    workspace: usize,
}

macro_rules! by_elem {
    ($elem:expr, $f:ident($($arg:expr),*)) => {
        match $elem {
            Elem::F32 => $f::<f32>($($arg),*),
            Elem::F64 => $f::<f64>($($arg),*),
            Elem::I8 => $f::<i8>($($arg),*),
            Elem::I16 => $f::<i16>($($arg),*),
            Elem::I32 => $f::<i32>($($arg),*),
            Elem::I64 => $f::<i64>($($arg),*),
            Elem::U8 => $f::<u8>($($arg),*),
            Elem::U16 => $f::<u16>($($arg),*),
            Elem::U32 => $f::<u32>($($arg),*),
            Elem::U64 => $f::<u64>($($arg),*),
            e => bail!(Unsupported, "Einsum of {e:?}"),
        }
    };
}

/// Sizes and strides of a product of matrices; the batch has at most four axes.
pub(super) struct Matrices {
    pub batch: Vec<usize>,
    pub batch_a: Vec<usize>,
    pub batch_b: Vec<usize>,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: crate::kernels::gemm::Strides,
    pub b: crate::kernels::gemm::Strides,
}

impl Builder {
    pub fn new(isa: Isa, elem: Elem) -> Builder {
        Builder { isa, elem, phases: Vec::new(), workspace: 0 }
    }
    /// Room for a dense tensor.
    pub fn room(&mut self, shape: &[usize]) -> Result<usize> {
        let at = self.workspace;
        self.take(product(&[product(shape)?, self.elem.size()])?)?;
        Ok(at)
    }
    fn take(&mut self, bytes: usize) -> Result<()> {
        let end = self.workspace.checked_add(bytes).filter(|&e| e < isize::MAX as usize - ALIGN);
        self.workspace = round_up(end.ok_or_else(|| err!(OutOfMemory, "operands pass the address space"))?, ALIGN);
        Ok(())
    }
    /// The step of all that was added.
    pub fn finish(self) -> Phases {
        self.phases.into_iter().fold(Phases::new("einsum", self.workspace), |p, f| f(p))
    }
    /// A dense copy over the axes that stay, the others summed.
    pub fn copy(
        &mut self,
        from: Source,
        shape: &[usize],
        strides: &[isize],
        summed: &[bool],
        to: Target,
    ) -> Result<()> {
        if !summed.contains(&true) {
            let kernel = StridedCopy::new(self.isa, self.elem.size(), shape, strides, &dense(shape))?;
            self.phases.push(Box::new(move |p| {
                p.then(kernel.tasks(), 0, move |args, task, _| {
                    // SAFETY: as below.
                    unsafe { kernel.run(task, from.of(args), to.of(args)) };
                    Ok(())
                })
            }));
            return Ok(());
        }
        let kernel = Reduce::new(self.isa, ReduceKind::Sum, self.elem, shape, strides, summed)?;
        self.phases.push(Box::new(move |p| {
            p.then(kernel.tasks(), 0, move |args, task, _| {
                // SAFETY: the operand has these shape and strides; the target has room for the dense result.
                unsafe { kernel.run(task, from.of(args), to.of(args)) };
                Ok(())
            })
        }));
        Ok(())
    }
    /// Products element by element; all three operands have strides.
    pub fn multiply(&mut self, from: [Source; 2], shape: &[usize], strides: [&[isize]; 3], to: Target) -> Result<()> {
        let nest = Nest::new(shape, &strides)?;
        by_elem!(self.elem, add_multiply(self, from, nest, to))
    }
    /// A product of matrices into a dense result of batch, rows, columns.
    pub fn product(&mut self, from: [Source; 2], m: &Matrices, to: Target) -> Result<()> {
        let mut batch = Batch::default();
        let skip = 4 - m.batch.len();
        let mut step = product(&[m.m, m.n])?;
        for i in (0..m.batch.len()).rev() {
            batch.dims[skip + i] = m.batch[i];
            batch.a[skip + i] = m.batch_a[i];
            batch.b[skip + i] = m.batch_b[i];
            batch.c[skip + i] = step;
            step = product(&[step, m.batch[i]])?;
        }
        let spec = GemmSpec { a: m.a, b: m.b, batch, ..GemmSpec::dense(m.m, m.n, m.k) };
        if self.elem != Elem::F32 {
            return by_elem!(self.elem, add_plain(self, from, spec, to));
        }
        let gemm = Arc::new(Gemm::new(self.isa, spec)?);
        let at = self.workspace;
        self.take(gemm.workspace_bytes())?;
        for phase in 0..gemm.phases() {
            let gemm = gemm.clone();
            self.phases.push(Box::new(move |p| {
                p.then(gemm.tasks(phase), gemm.scratch_bytes(), move |args, task, scratch| {
                    let ptrs = GemmPtrs {
                        a: from[0].of(args).cast(),
                        b: from[1].of(args).cast(),
                        c: to.of(args).cast(),
                        bias: std::ptr::null(),
                        residual: std::ptr::null(),
                    };
                    let workspace = args.workspace::<u8>().wrapping_add(at);
                    // SAFETY: operands of the shapes and strides the kernel was made from, its own part of the
                    // workspace, and the executor's contract (Step::run).
                    unsafe { gemm.run(phase, task, &ptrs, workspace, scratch) };
                    Ok(())
                })
            }));
        }
        Ok(())
    }
}

/// Elements of a task.
const GRAIN: usize = 32 * 1024;

fn add_multiply<T: Number>(b: &mut Builder, from: [Source; 2], nest: Nest, to: Target) -> Result<()> {
    b.phases.push(Box::new(move |p| {
        p.then(nest.tasks(GRAIN), 0, move |args, task, _| {
            let (x, y) = (from[0].of(args).cast::<T>(), from[1].of(args).cast::<T>());
            let z = to.of(args).cast::<T>();
            let steps = [nest.inner_stride(0), nest.inner_stride(1), nest.inner_stride(2)];
            nest.run_task(task, GRAIN, |at, n| {
                // SAFETY: the nest walks the operands' own shapes and strides.
                unsafe {
                    let (x, y, z) = (x.offset(at[0]), y.offset(at[1]), z.offset(at[2]));
                    if steps == [1, 1, 1] {
                        for i in 0..n {
                            *z.add(i) = (*x.add(i)).mul(*y.add(i));
                        }
                    } else {
                        for i in 0..n as isize {
                            *z.offset(i * steps[2]) = (*x.offset(i * steps[0])).mul(*y.offset(i * steps[1]));
                        }
                    }
                }
            });
            Ok(())
        })
    }));
    Ok(())
}

fn add_plain<T: Number>(b: &mut Builder, from: [Source; 2], s: GemmSpec, to: Target) -> Result<()> {
    let kernel = Product { n: s.n, k: s.k, a: s.a, b: s.b };
    let rows = product(&[product(&s.batch.dims)?, s.m])?;
    let (tasks, per) = crate::backend::step::split(rows, GRAIN / s.n.saturating_mul(s.k).max(1));
    b.phases.push(Box::new(move |p| {
        p.then(if rows == 0 { 0 } else { tasks }, 0, move |args, task, _| {
            for row in task * per..rows.min((task + 1) * per) {
                let (a, b) = s.batch.offsets(row / s.m);
                // SAFETY: one row of one item of the batch; the result is dense.
                unsafe {
                    let a = from[0].of(args).cast::<T>().add(a + row % s.m * s.a.row);
                    let b = from[1].of(args).cast::<T>().add(b);
                    kernel.run(1, a, b, to.of(args).cast::<T>().add(row * s.n));
                }
            }
            Ok(())
        })
    }));
    Ok(())
}

/// Strides of a dense tensor.
pub(super) fn dense(shape: &[usize]) -> Strides {
    crate::kernels::nd::dense_strides(shape)
}
