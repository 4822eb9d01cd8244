//! Plans for many shapes: what a new one allocates, and that the memory of all stays bounded.

use crate::alone;
use crate::tiny::{Tiny, decoder};
use ortx::base::parallel::Serial;
use ortx::{DType, Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};

fn session(model: Tiny, plan_bytes: usize) -> Session {
    let options = SessionOptions { threads: 1, plan_bytes, ..SessionOptions::default() };
    Session::new(&Environment::new(), ModelSource::Bytes(model.bytes().into(), None), &options).unwrap()
}

/// One sequence of `seq` tokens after a past of `past`.
fn feed(seq: usize, past: usize) -> [Value; 3] {
    let ids: Vec<i64> = (0..seq as i64).map(|i| i * 7 % 40).collect();
    let past = || Value::Tensor(Tensor::zeroed(DType::F32, &[1, 2, past, 8]).unwrap());
    [Value::Tensor(Tensor::from_slice(&[1, seq], &ids).unwrap()), past(), past()]
}

#[test]
fn a_new_shape_allocates_a_bounded_number_of_times() {
    alone::alone("plans::a_new_shape_allocates_a_bounded_number_of_times", new_shapes, String::new);
}

/// By step of the plan; `docs/performance.md` tells it.
const ALLOCATIONS: usize = 12;

fn new_shapes() {
    let s = session(decoder(), 64 << 20);
    let plan = |past: usize| s.program().first_segment(&feed(1, past), &Serial).unwrap();
    plan(7);
    plan(8);
    let mut most = 0;
    for past in 9..80 {
        let inputs = feed(1, past);
        let before = alone::calls();
        let segment = s.program().first_segment(&inputs, &Serial).unwrap();
        let calls = alone::calls() - before;
        most = most.max(calls);
        assert!(calls <= ALLOCATIONS * segment.items.len(), "{calls} allocations for {} steps", segment.items.len());
    }
    let steps = plan(80).items.len();
    println!("at most {most} allocations for a plan of {steps} steps");
    let (whole, short) = s.program().plans_made();
    assert!(whole == 1 && short >= 72, "{whole} from scratch, {short} from another");
}

#[test]
fn ten_thousand_shapes_leave_memory_flat() {
    alone::alone("plans::ten_thousand_shapes_leave_memory_flat", many_shapes, String::new);
}

fn many_shapes() {
    const LIMIT: usize = 2 << 20;
    let s = session(decoder(), LIMIT);
    let mut outputs = vec![None; 3];
    let mut run = |seq: usize, past: usize| {
        s.run_values(&feed(seq, past), &mut outputs, &RunOptions::default()).unwrap();
    };
    // The largest first: an arena grows to it, and stays.
    run(4, 600);
    let mut seed = 3u64;
    let mut random = |n: usize| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 33) as usize % n
    };
    let mut live = Vec::new();
    for i in 0..10_000 {
        run(1 + random(4), random(600));
        if i % 500 == 499 {
            run(4, 600);
            live.push(alone::live());
            assert!(s.program().plans_kept().1 <= LIMIT);
        }
    }
    let (kept, bytes) = s.program().plans_kept();
    println!("{kept} plans of {bytes} bytes are kept; live bytes {live:?}");
    assert!(kept > 20, "{kept} plans are kept");
    // Full after some hundred shapes. An eighth is let go at a time, and the guess of a plan's size may be out by a fifth.
    let (low, high) = (live[2..].iter().min().unwrap(), live[2..].iter().max().unwrap());
    assert!(high - low <= LIMIT as isize / 4, "live bytes go from {low} to {high}");
}

#[test]
fn what_plans_are_taken_to_have_is_honest() {
    alone::alone("plans::what_plans_are_taken_to_have_is_honest", guesses, String::new);
}

fn guesses() {
    let s = session(decoder(), 64 << 20);
    let plan = |past: usize| drop(s.program().first_segment(&feed(1, past), &Serial).unwrap());
    (0..100).for_each(plan);
    let (live, (_, bytes)) = (alone::live(), s.program().plans_kept());
    (100..400).for_each(plan);
    let (live, bytes) = (alone::live() - live, s.program().plans_kept().1 - bytes);
    println!("300 plans: {live} bytes, taken to have {bytes}");
    let ratio = bytes as f64 / live as f64;
    assert!((0.8..1.25).contains(&ratio), "300 plans have {live} bytes, {bytes} are counted");
}

/// What follows a value that only a run gives: one continuation a length, bounded as all plans are.
#[test]
fn continuations_are_kept_and_bounded() {
    let model = || {
        Tiny::new("nonzero")
            .input("x", 1, &["n"])
            .node("NonZero", &["x"], &["at"])
            .node("Transpose", &["at"], &["at1"])
            .ints("perm", &[1, 0])
            .node("GatherND", &["x", "at1"], &["y"])
            .output("y")
    };
    let run = |s: &Session, ones: usize| {
        let x: Vec<f32> = (0..200).map(|i| if i < ones { 1.0 + i as f32 } else { 0.0 }).collect();
        let mut out = [None];
        let x = Value::Tensor(Tensor::from_slice(&[200], &x).unwrap());
        s.run_values(&[x], &mut out, &RunOptions::default()).unwrap();
        let want: Vec<f32> = (0..ones).map(|i| 1.0 + i as f32).collect();
        assert_eq!(out[0].as_ref().unwrap().as_tensor().unwrap().as_slice::<f32>().unwrap(), want);
    };
    let s = session(model(), 64 << 20);
    (0..3).for_each(|_| (1..50).for_each(|n| run(&s, n)));
    // The first part, and what follows by length.
    assert_eq!(s.program().plans_kept().0, 50);
    let small = session(model(), 20_000);
    (0..3).for_each(|_| (1..50).for_each(|n| run(&small, n)));
    let (kept, bytes) = small.program().plans_kept();
    assert!((2..40).contains(&kept) && bytes <= 20_000, "{kept} plans of {bytes} bytes");
}
