//! Speed of what moves and maps memory, against a plain copy of as many bytes: `cargo bench --bench math [-- FILTER]`.
//! One thread; "of memcpy" compares bytes read and written a second, taken in turns with the copy.

use ortx::base::alloc::Buffer;
use ortx::kernels::elem::Elem;
use ortx::kernels::isa::Isa;
use ortx::kernels::movement::{Gather, IndexType, StridedCopy};
use ortx::kernels::nd::dense_strides;
use ortx::kernels::normalise::{GroupNorm, LayerNorm, LayerNormKind, LayerNormPointers, Softmax, SoftmaxKind};
use ortx::kernels::pointwise::{BinaryOp, Operand, Pointwise, Program, ProgramBuilder, UnaryOp};
use ortx::kernels::reduce::{ArgReduce, Reduce, ReduceKind};
use std::time::Instant;

fn floats(n: usize) -> Buffer {
    let b = Buffer::zeroed(n * 4).unwrap();
    for i in 0..n {
        // SAFETY: n floats were allocated.
        unsafe { *b.ptr().cast::<f32>().add(i) = (i % 1013) as f32 * 0.003 - 1.5 };
    }
    b
}

struct Bench {
    filter: Option<String>,
    isa: Isa,
}

impl Bench {
    /// Times `f`, which moves `bytes`, in turns with a copy that reads and writes as many.
    fn case(&self, name: &str, bytes: usize, mut f: impl FnMut()) {
        if self.filter.as_ref().is_some_and(|x| !name.contains(x.as_str())) {
            return;
        }
        let half = bytes / 2;
        let (from, to) = (floats(half.div_ceil(4)), floats(half.div_ceil(4)));
        let (mut best, mut copy) = (f64::MAX, f64::MAX);
        let start = Instant::now();
        while start.elapsed().as_secs_f64() < 0.25 {
            let t = Instant::now();
            f();
            best = best.min(t.elapsed().as_secs_f64());
            let t = Instant::now();
            // SAFETY: both buffers hold that many bytes.
            unsafe { std::ptr::copy_nonoverlapping(from.ptr(), to.ptr(), half) };
            std::hint::black_box(to.ptr());
            copy = copy.min(t.elapsed().as_secs_f64());
        }
        println!(
            "{name:44} {:9.1} us {:7.1} GB/s {:5.0} % of memcpy",
            best * 1e6,
            bytes as f64 / best / 1e9,
            copy / best * 100.0
        );
    }

    fn program(&self, name: &str, program: &Program, shape: &[usize], strides: &[&[isize]], elem: Elem) {
        let n: usize = shape.iter().product();
        let dense = dense_strides(shape);
        let inputs: Vec<Operand> = strides.iter().map(|strides| Operand { elem, strides }).collect();
        let p = Pointwise::new(self.isa, program, shape, &inputs, &[Operand { elem, strides: &dense }]).unwrap();
        let buffers: Vec<Buffer> = inputs.iter().map(|_| floats(n)).collect();
        let (out, scratch) = (floats(n), floats(p.scratch_bytes() / 4));
        let ins: Vec<*const u8> = buffers.iter().map(|b| b.ptr().cast_const()).collect();
        let full = strides.iter().filter(|s| s.iter().all(|s| *s != 0)).count();
        self.case(name, (full + 1) * n * elem.size(), || {
            for t in 0..p.tasks() {
                // SAFETY: all buffers hold the shape.
                unsafe { p.run(t, &ins, &[out.ptr()], scratch.ptr()) };
            }
        });
    }

    fn copy(&self, name: &str, size: usize, shape: &[usize], from: &[isize]) {
        let n: usize = shape.iter().product();
        let c = StridedCopy::new(self.isa, size, shape, from, &dense_strides(shape)).unwrap();
        let (a, b) = (floats(n * size / 4), floats(n * size / 4));
        self.case(name, 2 * n * size, || {
            for t in 0..c.tasks() {
                // SAFETY: both buffers hold the shape.
                unsafe { c.run(t, a.ptr(), b.ptr()) };
            }
        });
    }

    fn reduce(&self, name: &str, kind: ReduceKind, elem: Elem, shape: &[usize], axes: &[bool]) {
        let n: usize = shape.iter().product();
        let r = Reduce::new(self.isa, kind, elem, shape, &dense_strides(shape), axes).unwrap();
        let (a, b) = (floats(n), floats(n));
        self.case(name, n * elem.size(), || {
            for t in 0..r.tasks() {
                // SAFETY: both buffers hold the shape.
                unsafe { r.run(t, a.ptr(), b.ptr()) };
            }
        });
    }

    fn softmax(&self, name: &str, elem: Elem, outer: usize, axis: usize, inner: usize) {
        let n = outer * axis * inner;
        let s = Softmax::new(self.isa, SoftmaxKind::Softmax, elem, outer, axis, inner).unwrap();
        let (a, b, scratch) = (floats(n), floats(n), floats(s.scratch_bytes() / 4));
        self.case(name, 2 * n * elem.size(), || {
            for t in 0..s.tasks() {
                // SAFETY: both buffers hold the shape.
                unsafe { s.run(t, a.ptr(), b.ptr(), scratch.ptr()) };
            }
        });
    }
}

fn main() {
    let filter = std::env::args().nth(1).filter(|a| !a.starts_with("--"));
    let b = Bench { filter, isa: Isa::detect() };
    println!("{}", b.isa.level().name());
    // Half a megabyte stays in L2, 16 MB does not stay anywhere near.
    for (label, n) in [("L2", 48 << 10), ("far", 4 << 20)] {
        let one = &[1isize][..];
        for op in [
            UnaryOp::Relu,
            UnaryOp::Exp,
            UnaryOp::Log,
            UnaryOp::Tanh,
            UnaryOp::Erf,
            UnaryOp::Sigmoid,
            UnaryOp::Softplus,
            UnaryOp::Sin,
        ] {
            b.program(&format!("{label} {op:?}"), &Program::unary(op), &[n], &[one], Elem::F32);
        }
        b.program(&format!("{label} Add"), &Program::binary(BinaryOp::Add), &[n], &[one, one], Elem::F32);
        b.program(&format!("{label} Pow"), &Program::binary(BinaryOp::Pow), &[n], &[one, one], Elem::F32);
        b.program(&format!("{label} Add f16"), &Program::binary(BinaryOp::Add), &[n], &[one, one], Elem::F16);
        b.program(&format!("{label} Add bf16"), &Program::binary(BinaryOp::Add), &[n], &[one, one], Elem::Bf16);
        let mut p = ProgramBuilder::new(2);
        let (x, y) = (p.load(0), p.load(1));
        let s = p.add(x, y);
        let g = p.gelu(s);
        let gelu = p.finish(&[g]).unwrap();
        let rows = n / 768;
        b.program(&format!("{label} bias + gelu, rows of 768"), &gelu, &[rows, 768], &[&[768, 1], &[0, 1]], Elem::F32);
        let add = Program::binary(BinaryOp::Add);
        b.program(
            &format!("{label} add a channel, NCHW"),
            &add,
            &[64, n / 64],
            &[&[(n / 64) as isize, 1], &[1, 0]],
            Elem::F32,
        );
        b.program(&format!("{label} add a channel, NHWC 24"), &add, &[n / 24, 24], &[&[24, 1], &[0, 1]], Elem::F32);
        let side = 1 << (n.ilog2() / 2);
        b.copy(&format!("{label} transpose {side}x{side} f32"), 4, &[side, side], &[1, side as isize]);
        b.copy(&format!("{label} transpose {side}x{side} u8"), 1, &[side, side], &[1, side as isize]);
        b.copy(&format!("{label} transpose {side}x{side} f16"), 2, &[side, side], &[1, side as isize]);
        b.copy(&format!("{label} transpose {side}x{side} i64"), 8, &[side, side], &[1, side as isize]);
        let px = n / 64;
        b.copy(&format!("{label} NCHW to NHWC, 64 channels"), 4, &[px, 64], &[1, px as isize]);
        let px = n / 3;
        b.copy(&format!("{label} NHWC to NCHW, 3 channels"), 4, &[3, px], &[1, 3]);
        let t = n / 768;
        b.copy(&format!("{label} heads (t, 12, 64) to (12, t, 64)"), 4, &[12, t, 64], &[64, 768, 1]);
        b.copy(&format!("{label} heads (t, 12, 64) to (12, 64, t)"), 4, &[12, 64, t], &[64, 1, 768]);
        b.copy(&format!("{label} every second of f32"), 4, &[n / 2], &[2]);
        b.reduce(&format!("{label} sum all"), ReduceKind::Sum, Elem::F32, &[n], &[true]);
        b.reduce(&format!("{label} mean of rows of 768"), ReduceKind::Mean, Elem::F32, &[n / 768, 768], &[false, true]);
        b.reduce(&format!("{label} mean of 7x7"), ReduceKind::Mean, Elem::F32, &[n / 49, 49], &[false, true]);
        b.reduce(
            &format!("{label} max over rows, 256 wide"),
            ReduceKind::Max,
            Elem::F32,
            &[n / 256, 256],
            &[true, false],
        );
        b.reduce(
            &format!("{label} sum over rows, 256 wide"),
            ReduceKind::Sum,
            Elem::F32,
            &[n / 256, 256],
            &[true, false],
        );
        b.reduce(&format!("{label} sum of f16"), ReduceKind::Sum, Elem::F16, &[n], &[true]);
        b.reduce(&format!("{label} sum of i64"), ReduceKind::Sum, Elem::I64, &[n / 2], &[true]);
        b.softmax(&format!("{label} softmax rows of 128"), Elem::F32, n / 128, 128, 1);
        b.softmax(&format!("{label} softmax rows of 1000"), Elem::F32, n / 1000, 1000, 1);
        b.softmax(&format!("{label} softmax over 64 channels"), Elem::F32, 1, 64, n / 64);
        b.softmax(&format!("{label} softmax rows of 128, f16"), Elem::F16, n / 128, 128, 1);
        let (x, y, s) = (floats(n), floats(n), floats(768));
        for kind in [LayerNormKind::Layer, LayerNormKind::Rms] {
            let l = LayerNorm::new(b.isa, kind, Elem::F32, n / 768, 768, 1e-5).unwrap();
            let null = std::ptr::null_mut();
            let p = LayerNormPointers {
                from: x.ptr(),
                scale: s.ptr(),
                bias: s.ptr(),
                to: y.ptr(),
                mean: null,
                inverse: null,
            };
            b.case(&format!("{label} {kind:?} norm of rows of 768"), n * 8, || {
                for t in 0..l.tasks() {
                    // SAFETY: the buffers hold the shape; f32 needs no scratch memory.
                    unsafe { l.run(t, p, null) };
                }
            });
        }
        let g = GroupNorm::new(b.isa, Elem::F32, 1, 64, n / 64, 32, 1e-5).unwrap();
        b.case(&format!("{label} group norm, 32 groups"), n * 8, || {
            for t in 0..g.tasks() {
                // SAFETY: the buffers hold the shape.
                unsafe { g.run(t, x.ptr(), s.ptr(), s.ptr(), y.ptr()) };
            }
        });
        let indices: Vec<i64> = (0..n as i64 / 384).map(|i| i * 7919 % (n as i64 / 384)).collect();
        let e = Gather::new(IndexType::I64, 1, n / 384, indices.len(), 384 * 4).unwrap();
        b.case(&format!("{label} gather rows of 384"), 2 * indices.len() * 384 * 4, || {
            for t in 0..e.tasks() {
                // SAFETY: the buffers hold the shape.
                unsafe { e.run(t, x.ptr(), indices.as_ptr().cast(), y.ptr()).unwrap() };
            }
        });
        let a = ArgReduce::new(b.isa, Elem::F32, 1, n, 1, false, false).unwrap();
        b.case(&format!("{label} arg-max of a row"), n * 4, || {
            // SAFETY: the buffers hold the row.
            unsafe { a.run(0, x.ptr(), y.ptr().cast()) };
        });
    }
}
