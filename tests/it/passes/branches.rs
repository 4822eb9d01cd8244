//! Control flow that is decided when the model is read.

use super::*;
use ortx::ops::control::{If, Loop};
use std::sync::Arc;

/// A graph of one operator over its inputs, the last of which are f32[3].
fn body(op: &'static str, before: Vec<(&str, Fact)>, passed: usize) -> Arc<Graph> {
    let mut d = Draft::new();
    let before: Vec<ValueId> = before.into_iter().map(|(n, f)| d.b.input(n, f)).collect();
    let x = d.b.input("inner", Fact::sized(DType::F32, &[3]));
    let y = d.op("made", op, &[x], vec![]);
    let mut outputs: Vec<ValueId> = before.into_iter().skip(1).take(passed).collect();
    outputs.push(y);
    Arc::new(d.b.finish(outputs).unwrap())
}

fn chosen(condition: Option<bool>) -> (Vec<String>, Vec<String>, PassReport) {
    let mut d = Draft::new();
    let x = d.input("x", &[3]);
    let holds = match condition {
        Some(c) => d.b.constant("holds", Tensor::scalar(c).unwrap()),
        None => {
            d.inputs.push(Value::Tensor(Tensor::scalar(true).unwrap()));
            d.b.input("holds", Fact::sized(DType::Bool, &[]))
        }
    };
    let op = If {
        then_branch: body("Exp", vec![], 0),
        else_branch: body("Neg", vec![], 0),
        then_captures: vec![1],
        else_captures: vec![1],
    };
    let y = d.b.node("y", Arc::new(op), vec![Some(holds), Some(x)], &[Some("y")]).unwrap()[0].unwrap();
    d.check("branches", vec![y])
}

#[test]
pub(super) fn one_branch_is_left() {
    let (before, after, report) = chosen(Some(true));
    assert_eq!(before, ["y = If(#holds, %x)", "| = Exp(%inner)", "| = Neg(%inner)"]);
    assert_eq!(after, ["made = Exp(%x)"]);
    assert_eq!(report.fired, 1);
    assert_eq!(chosen(Some(false)).1, ["made = Neg(%x)"]);
}

#[test]
pub(super) fn an_open_condition_stays() {
    let (before, after, report) = chosen(None);
    assert_eq!(before, after);
    assert_eq!(report.fired, 0);
}

#[test]
fn loops_that_run_once_or_never() {
    let scalar = |d| Fact::sized(d, &[]);
    for (trips, left) in
        [(1, &["made = Exp(%x)"][..]), (0, &["z = Neg(%x)"][..]), (2, &["y = Loop(#trips, #going, %x)"][..])]
    {
        let mut d = Draft::new();
        let x = d.input("x", &[3]);
        let trips = d.b.constant("trips", Tensor::scalar(trips as i64).unwrap());
        let going = d.b.constant("going", Tensor::scalar(true).unwrap());
        let body = body("Exp", vec![("i", scalar(DType::I64)), ("going", scalar(DType::Bool))], 1);
        let op = Loop { body, state: 1, scans: 0, scan_facts: vec![], captures: vec![] };
        let inputs = vec![Some(trips), Some(going), Some(x)];
        let y = d.b.node("y", Arc::new(op), inputs, &[Some("y")]).unwrap()[0].unwrap();
        let z = d.op("z", "Neg", &[y], vec![]);
        let (_, after, _) = d.check("branches", vec![z]);
        assert!(left.iter().all(|l| after.contains(&l.to_string())), "{after:?}");
    }
}
