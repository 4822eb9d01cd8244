//! A run of a shape seen before allocates nothing: counted over the whole process, workers included.

use crate::alone;
use crate::capi::{floats, ok, session_with};
use crate::tiny::{Tiny, transformer};
use ortx::capi::{binding::*, options::*, run::*, session::*, tensor::*, types::*, value::*};
use ortx::{Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use std::ptr::{null, null_mut};

#[test]
fn a_shape_seen_before_allocates_nothing() {
    alone::alone("steady::a_shape_seen_before_allocates_nothing", count, String::new);
}

/// Runs that make plans, frames and packed weights, and start what threads start at first use.
const WARM: usize = 4;
const COUNTED: usize = 25;

fn count() {
    let digits = std::fs::read("models/digits.onnx").unwrap();
    for threads in [1, 2] {
        // A few pictures, and so many that all threads have work.
        for shapes in [[1, 5], [64, 3]] {
            let shapes = shapes.map(|n| vec![n, 1, 8, 8]);
            let what = format!("digits {shapes:?}, {threads} threads");
            let inputs = shapes.clone().map(|s| Tensor::zeroed(ortx::DType::F32, &s).unwrap());
            rust(&digits, threads, inputs, &what);
            c(&digits, threads, shapes.map(|s| floats(&s.clone().map_i64(), &vec![0.5; s.iter().product()])), &what);
        }
        let between = rows_between_programs().bytes();
        for shapes in [[[3, 40], [5, 7]], [[900, 40], [2, 3]]] {
            let inputs = shapes.map(|s| Tensor::zeroed(ortx::DType::F32, &s).unwrap());
            rust(&between, threads, inputs, &format!("rows between programs {shapes:?}, {threads} threads"));
        }
        for shapes in [[[1, 7], [2, 9]], [[4, 64], [1, 1]]] {
            let ids = |s: &[usize; 2]| (0..s[0] * s[1]).map(|i| (i * 7 % 40) as i64).collect::<Vec<_>>();
            let inputs = shapes.map(|s| Tensor::from_slice(&s, &ids(&s)).unwrap());
            let what = format!("transformer {shapes:?}, {threads} threads");
            let model = transformer().bytes();
            rust(&model, threads, inputs, &what);
            c(&model, threads, shapes.map(|s| numbers(&s.to_vec().map_i64(), &ids(&s))), &what);
        }
    }
}

/// A softmax between programs of as many operands as programs have.
fn rows_between_programs() -> Tiny {
    let mut t = Tiny::new("rows").input("x", 1, &["rows", "n"]).numbers("axes", &[1], &[1]);
    let mut last = "x".to_string();
    // Numbers of each row, which no constant folds away.
    let numbers = ["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceL1", "ReduceSumSquare", "Softmax"];
    for (i, op) in numbers.into_iter().chain(["ReduceL2", "ReduceLogSumExp", "ReduceProd"]).enumerate() {
        let (k, y) = (format!("k{i}"), format!("y{i}"));
        t = match op {
            "Softmax" => t.node(op, &[&last], &[&y]),
            _ => t.node(op, &["x", "axes"], &[&k]).node("Add", &[&last, &k], &[&y]),
        };
        last = y;
    }
    t.output(&last)
}

trait MapI64 {
    fn map_i64(self) -> Vec<i64>;
}

impl MapI64 for Vec<usize> {
    fn map_i64(self) -> Vec<i64> {
        self.into_iter().map(|n| n as i64).collect()
    }
}

pub fn numbers(shape: &[i64], data: &[i64]) -> *mut ortx_value {
    let (mut t, bytes) = (null_mut(), size_of_val(data));
    let (dtype, data) = (ORTX_DTYPE_INT64, data.as_ptr().cast());
    // SAFETY: the slices are alive during the call.
    ok(unsafe { ortx_tensor_create_from_copy(dtype, shape.as_ptr(), shape.len(), data, bytes, &mut t) });
    t
}

/// A tensor of zeros of a value's type and shape.
pub fn own(like: *mut ortx_value) -> *mut ortx_value {
    let (shape, mut t, mut dtype) = (crate::capi::shape(like), null_mut(), ORTX_DTYPE_FLOAT32);
    // SAFETY: a live handle; the shape is alive during the call.
    unsafe {
        ok(ortx_tensor_dtype(like, &mut dtype));
        ok(ortx_tensor_create(dtype, shape.as_ptr(), shape.len(), &mut t));
    }
    t
}

/// Waits until all other threads of the process sleep: a worker allocates while it starts, which may be late.
fn settle() {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    for _ in 0..1000 {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|t| t.unwrap().path());
        let asleep = |stat: &str| stat.rsplit(") ").next().is_some_and(|s| s.starts_with('S'));
        let awake = tasks
            .filter(|t| t.file_name() != own.file_name())
            .any(|t| std::fs::read_to_string(t.join("stat")).is_ok_and(|stat| !asleep(&stat)));
        if !awake {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("other threads do not come to rest");
}

/// Counts what `run` allocates once it is warm.
fn counted(what: &str, mut run: impl FnMut()) {
    (0..WARM).for_each(|_| run());
    settle();
    let (calls, live) = (alone::calls(), alone::live());
    (0..COUNTED).for_each(|_| run());
    assert_eq!(
        (alone::calls() - calls, alone::live() - live),
        (0, 0),
        "{what}: allocations and bytes in {COUNTED} runs"
    );
}

/// Two shapes in turn, with outputs handed in again.
fn rust(model: &[u8], threads: usize, inputs: [Tensor; 2], what: &str) {
    let options = SessionOptions { threads, ..SessionOptions::default() };
    let source = ModelSource::Bytes(model.to_vec().into(), None);
    let session = Session::new(&Environment::new(), source, &options).unwrap();
    let inputs = inputs.map(|t| [Value::Tensor(t)]);
    let mut outputs = [vec![None; session.outputs().len()], vec![None; session.outputs().len()]];
    counted(&format!("{what}, Rust"), || {
        for (i, o) in inputs.iter().zip(&mut outputs) {
            session.run_values(i, o, &RunOptions::default()).unwrap();
        }
    });
}

/// The same through bindings, one with memory of the host's for the output, one with its own.
fn c(model: &[u8], threads: usize, inputs: [*mut ortx_value; 2], what: &str) {
    // SAFETY: integers and pointers, for which zero is valid; live handles throughout.
    unsafe {
        let mut options: ortx_session_options = std::mem::zeroed();
        (options.struct_size, options.threads) = (size_of_val(&options), threads as i32);
        let s = session_with(model, &options).unwrap();
        let mut bindings = [null_mut(); 2];
        for (b, &x) in bindings.iter_mut().zip(&inputs) {
            ok(ortx_binding_create(s, b));
            ok(ortx_binding_set_input(*b, 0, x));
        }
        let (mut made, mut y) = (null_mut(), null_mut());
        ok(ortx_binding_run(bindings[0], null()));
        ok(ortx_binding_output(bindings[0], 0, &mut made));
        let shape = crate::capi::shape(made);
        ok(ortx_tensor_create(ORTX_DTYPE_FLOAT32, shape.as_ptr(), shape.len(), &mut y));
        ortx_value_destroy(made);
        ok(ortx_binding_set_output(bindings[0], 0, y));
        counted(&format!("{what}, C"), || bindings.iter().for_each(|&b| ok(ortx_binding_run(b, null()))));
        // By calls of their own, into tensors of the host's for both shapes.
        let mut outputs = bindings.map(|b| {
            let mut made = null_mut();
            ok(ortx_binding_output(b, 0, &mut made));
            let given = own(made);
            ortx_value_destroy(made);
            given
        });
        counted(&format!("{what}, ortx_session_run"), || {
            for (x, y) in inputs.iter().zip(&mut outputs) {
                ok(ortx_session_run(s, null(), null(), [x.cast_const()].as_ptr(), 1, null(), y, 1));
            }
        });
        bindings.iter().for_each(|&b| ortx_binding_destroy(b));
        [y, inputs[0], inputs[1], outputs[0], outputs[1]].iter().for_each(|&v| ortx_value_destroy(v));
        ortx_session_destroy(s);
    }
}
