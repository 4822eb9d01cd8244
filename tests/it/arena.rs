//! How much working memory plans take: at most a tenth more than what is alive at one time.

use crate::models;
use crate::tiny::transformer;
use crate::values::read_set;
use ortx::base::parallel::Serial;
use ortx::{DType, Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};

/// Arena over the largest live set, at most.
const RATIO: f64 = 1.10;

fn check(name: &str, source: ModelSource, inputs: &[Value]) {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let session = Session::new(&Environment::new(), source, &options).unwrap();
    let program = session.program();
    // What follows a first segment is planned by a run.
    let mut outputs = vec![None; session.outputs().len()];
    session.run_values(inputs, &mut outputs, &RunOptions::default()).unwrap();
    let mut next = Some(program.first_segment(inputs, &Serial).unwrap());
    while let Some(segment) = next {
        let (arena, needed) = (segment.arena.first().copied().unwrap_or(0), segment.needed());
        println!("{name}: an arena of {arena} bytes, {} alive, {} workspace", needed.live, needed.workspace);
        assert!(arena as f64 <= RATIO * needed.live as f64, "{name}: an arena of {arena}, {} alive", needed.live);
        next = program.after(&segment);
    }
}

#[test]
fn arenas_are_close_to_what_is_alive() {
    for batch in [1, 7, 64] {
        let x = Value::Tensor(Tensor::zeroed(DType::F32, &[batch, 1, 8, 8]).unwrap());
        check("digits", ModelSource::Path("models/digits.onnx".into()), &[x]);
        let ids = Value::Tensor(Tensor::zeroed(DType::I64, &[batch, 5]).unwrap());
        check("transformer", ModelSource::Bytes(transformer().bytes().into(), None), &[ids]);
    }
    for name in models::NAMES {
        let Some(m) = models::find(name) else { continue };
        let (inputs, _) = read_set(&m.model, &m.data.join("test_data_set_0")).unwrap();
        check(name, ModelSource::Path(m.model), &inputs);
    }
}
