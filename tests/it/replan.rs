//! A plan made from another one is the plan that would have been made from scratch.

use crate::tiny::{decoder, transformer};
use ortx::base::parallel::Serial;
use ortx::plan::{Item, Segment};
use ortx::{DType, Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};

fn session(model: &[u8]) -> Session {
    let options = SessionOptions { threads: 2, ..SessionOptions::default() };
    Session::new(&Environment::new(), ModelSource::Bytes(model.to_vec().into(), None), &options).unwrap()
}

fn ids(batch: usize, seq: usize) -> Value {
    let n = batch * seq;
    Value::Tensor(Tensor::from_slice(&[batch, seq], &(0..n).map(|i| (i * 7 % 40) as i64).collect::<Vec<_>>()).unwrap())
}

fn past(batch: usize, past: usize, seed: u64) -> Value {
    Value::Tensor(ortx::ops::case::random(DType::F32, &[batch, 2, past, 8], -1.0, 1.0, seed).unwrap())
}

/// Everything about a segment but the kernels' insides.
fn describe(s: &Segment) -> String {
    let items = s.items.iter().map(|i| match i {
        Item::Step(x) => {
            let (inputs, outputs) = (&x.inputs, &x.outputs);
            format!("{} {inputs:?} -> {outputs:?} at {} of {}\n", x.step.kernel(), x.workspace, x.step.phases())
        }
        _ => "other\n".into(),
    });
    let slots = s.slots.iter().map(|s| {
        let root = s.within;
        format!("{:?}{:?} {:?} {} bytes, {:?}, of {root:?}\n", s.dtype, s.shape, s.layout, s.bytes, s.kind)
    });
    let outputs = (&s.direct_outputs, &s.output_slots, &s.copied_outputs, &s.late);
    format!("{}{}{:?} {outputs:?} scratch {}", items.collect::<String>(), slots.collect::<String>(), s.arena, s.scratch)
}

/// Runs the same inputs in a session that has seen others and in a new one.
fn compare(old: &Session, model: &[u8], inputs: &[Value], what: &str) {
    let new = session(model);
    let plan = |s: &Session| describe(&s.program().first_segment(inputs, &Serial).unwrap());
    assert_eq!(plan(old), plan(&new), "{what}");
    let run = |s: &Session| {
        let mut outputs = vec![None; s.outputs().len()];
        s.run_values(inputs, &mut outputs, &RunOptions::default()).unwrap();
        outputs.into_iter().map(|v| v.unwrap().as_tensor().unwrap().bytes().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(run(old), run(&new), "{what}");
}

#[test]
fn a_growing_past_keeps_what_does_not_grow() {
    let model = decoder().bytes();
    let s = session(&model);
    let feed = |batch, seq, n| [ids(batch, seq), past(batch, n, 1), past(batch, n, 2)];
    compare(&s, &model, &feed(1, 9, 0), "the prompt");
    for n in 9..30 {
        compare(&s, &model, &feed(1, 1, n), &format!("past of {n}"));
    }
    let (whole, short) = s.program().plans_made();
    assert!(whole <= 2 && short >= 20, "{whole} plans from scratch, {short} from others");
    // Other batches, another prompt, sizes of zero, and back.
    for (batch, seq, n) in [(3, 1, 12), (3, 1, 13), (1, 5, 7), (1, 1, 0), (2, 2, 0), (1, 1, 300), (1, 9, 1), (1, 9, 2)]
    {
        compare(&s, &model, &feed(batch, seq, n), &format!("batch {batch}, {seq} tokens, past of {n}"));
    }
}

#[test]
fn sizes_that_reach_every_node_are_planned_from_scratch() {
    let model = transformer().bytes();
    let s = session(&model);
    for (batch, seq) in [(1, 3), (2, 5), (1, 4), (7, 7), (2, 6), (1, 3)] {
        compare(&s, &model, &[ids(batch, seq)], &format!("batch {batch}, {seq} tokens"));
    }
    let (whole, short) = s.program().plans_made();
    assert_eq!((whole, short), (5, 0));
}

#[test]
fn wrong_sizes_are_refused_as_from_scratch() {
    let model = decoder().bytes();
    let s = session(&model);
    let run = |s: &Session, inputs: &[Value]| {
        let mut outputs = vec![None; s.outputs().len()];
        s.run_values(inputs, &mut outputs, &RunOptions::default()).map_err(|e| e.to_string())
    };
    run(&s, &[ids(1, 1), past(1, 4, 1), past(1, 4, 2)]).unwrap();
    // The heads' pasts differ: keys and values do not match.
    let wrong = [ids(1, 1), past(1, 5, 1), past(1, 6, 2)];
    let (used, new) = (run(&s, &wrong).unwrap_err(), run(&session(&model), &wrong).unwrap_err());
    assert_eq!(used, new);
}
