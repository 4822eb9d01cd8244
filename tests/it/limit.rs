//! The memory limit of a session, from Rust and from C, alone and from several threads.

use crate::capi::{failed, fails, floats, ok, session_with};
use crate::tiny::{Tiny, message};
use ortx::capi::{memory::*, options::*, run::*, session::*, types::*, value::*};
use ortx::{DType, Environment, ErrorKind, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use std::ptr::{null, null_mut};

fn digits() -> Vec<u8> {
    std::fs::read("models/digits.onnx").unwrap()
}

fn session(limit: Option<usize>, threads: usize) -> ortx::Result<Session> {
    let options = SessionOptions { memory_limit: limit, threads, ..SessionOptions::default() };
    Session::new(&Environment::new(), ModelSource::Bytes(digits().into(), None), &options)
}

fn run(s: &Session, n: usize) -> ortx::Result<Value> {
    let mut out = [None];
    s.run_values(&[Value::Tensor(Tensor::zeroed(DType::F32, &[n, 1, 8, 8])?)], &mut out, &RunOptions::default())?;
    let [out] = out;
    Ok(out.unwrap())
}

#[test]
fn what_passes_the_limit_is_an_error_that_says_what_to_do() {
    // What one picture takes, with weights and all, and a little more.
    let free = session(None, 1).unwrap();
    drop(run(&free, 1).unwrap());
    let need = free.memory().1;
    assert!(need > 10_000, "packed weights and an arena take more than {need} bytes");

    let s = session(Some(need + 1000), 1).unwrap();
    run(&s, 1).unwrap();
    for _ in 0..3 {
        let e = run(&s, 4096).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OutOfMemory);
        let limit = format!("memory limit of {} bytes", need + 1000);
        for words in ["cannot allocate", &limit, "in use", "raise memory_limit"] {
            assert!(e.to_string().contains(words), "{e}");
        }
        // What failed took nothing with it.
        run(&s, 1).unwrap();
        assert!(s.memory().0 <= need && s.memory().1 <= need + 1000, "{:?} of {need}", s.memory());
    }
    let e = session(Some(1000), 1).and_then(|s| run(&s, 1)).unwrap_err();
    assert!(e.kind() == ErrorKind::OutOfMemory && e.to_string().contains("1000 bytes"), "{e}");
}

#[test]
fn outputs_count_while_they_live() {
    let s = session(None, 1).unwrap();
    drop(run(&s, 64).unwrap());
    let idle = s.memory().0;
    let (a, b) = (run(&s, 64).unwrap(), run(&s, 64).unwrap());
    assert_eq!(s.memory().0, idle + 2 * 64 * 10 * 4);
    drop(a);
    assert_eq!(s.memory().0, idle + 64 * 10 * 4);
    // Without its arena the session takes less; the output outlives it.
    s.trim();
    assert!(s.memory().0 < idle);
    drop(s);
    assert_eq!(b.as_tensor().unwrap().shape(), [64, 10]);
}

/// Operators that run by themselves, on strings and sequences, take from the same purse.
#[test]
fn strings_and_sequences_count() {
    let strings =
        |name| (crate::tiny::Tiny::new(name).input("a", 8, &["n", "1"]).input("b", 8, &["1", "n"]), [DType::String; 2]);
    let floats =
        |name| (crate::tiny::Tiny::new(name).input("a", 1, &["n", "1"]).input("b", 1, &["n", "1"]), [DType::F32; 2]);
    let (words, (numbers, float)) = (strings("words"), floats("numbers"));
    let joined = words.0.node("StringConcat", &["a", "b"], &["y"]).output("y");
    let several = vec!["a"; 64];
    let long =
        numbers.node("SequenceConstruct", &several, &["s"]).node("ConcatFromSequence", &["s"], &["y"]).int("axis", 0);
    for (model, [a, b], n) in [(joined, words.1, 400), (long.output("y"), float, 4000)] {
        let options = SessionOptions { memory_limit: Some(500_000), threads: 1, ..SessionOptions::default() };
        let s = Session::new(&Environment::new(), ModelSource::Bytes(model.bytes().into(), None), &options).unwrap();
        let run = |n: usize| {
            let second = if b == DType::String { [1, n] } else { [n, 1] };
            let inputs = [Tensor::zeroed(a, &[n, 1]).unwrap(), Tensor::zeroed(b, &second).unwrap()];
            let mut out = [None];
            s.run_values(&inputs.map(Value::Tensor), &mut out, &RunOptions::default())?;
            Ok::<_, ortx::Error>(out)
        };
        let kept = run(100).unwrap();
        let used = s.memory().0;
        assert_eq!(run(n).unwrap_err().kind(), ErrorKind::OutOfMemory);
        assert_eq!(s.memory().0, used, "what failed took nothing with it");
        drop(kept);
        assert!(s.memory().0 < used);
    }
}

/// Eight threads at a session with memory for two or three runs: each run succeeds or says why not, and all comes back.
#[test]
fn threads_share_the_limit() {
    let free = session(None, 2).unwrap();
    drop(run(&free, 32).unwrap());
    let (one, most) = free.memory();
    let limit = most + one;
    let s = session(Some(limit), 2).unwrap();
    let good = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    match run(&s, 32) {
                        Ok(_) => _ = good.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
                        Err(e) => assert_eq!(e.kind(), ErrorKind::OutOfMemory, "{e}"),
                    }
                }
            });
        }
    });
    assert!(good.into_inner() > 0);
    assert!(s.memory().1 <= limit);
    s.trim();
    free.trim();
    assert_eq!(s.memory().0, free.memory().0, "what is left is the weights");
}

#[test]
fn the_limit_holds_from_c() {
    let (model, mut used, mut peak) = (digits(), 7, 7);
    // SAFETY: integers and pointers, for which zero is valid; live handles and pointers throughout.
    unsafe {
        let mut options: ortx_session_options = std::mem::zeroed();
        (options.struct_size, options.threads) = (size_of_val(&options), 1);
        // The copy of the model counts, and is the first to be refused.
        options.memory_limit = 1000;
        let (code, said) = session_with(&model, &options).unwrap_err();
        assert!(code == ORTX_ERROR_OUT_OF_MEMORY && said.contains("limit of 1000 bytes"), "{said}");
        assert!(said.contains(&format!("cannot allocate {} bytes", model.len())), "{said}");

        options.memory_limit = 0;
        let s = session_with(&model, &options).unwrap();
        ok(ortx_session_memory(s, &mut used, null_mut()));
        assert!(used >= model.len() as u64);
        ortx_session_destroy(s);

        options.memory_limit = 8 << 20;
        let s = session_with(&model, &options).unwrap();
        let (small, large) = (floats(&[2, 1, 8, 8], &[0.5; 128]), floats(&[4096, 1, 8, 8], &vec![0.5; 4096 * 64]));
        let mut y = null_mut();
        ok(ortx_session_run(s, null(), null(), &small.cast_const(), 1, null(), &mut y, 1));
        ok(ortx_session_memory(s, &mut used, &mut peak));
        assert!(used <= peak && peak <= 8 << 20);
        let with_output = used;
        ortx_value_destroy(y);
        ok(ortx_session_memory(s, &mut used, &mut peak));
        assert_eq!(used, with_output - 2 * 10 * 4);
        y = null_mut();
        let status = ortx_session_run(s, null(), null(), &large.cast_const(), 1, null(), &mut y, 1);
        fails(status, ORTX_ERROR_OUT_OF_MEMORY, &["limit of 8388608 bytes", "raise memory_limit"]);
        assert!(y.is_null());
        ok(ortx_session_trim(s));
        ok(ortx_session_memory(s, &mut peak, null_mut()));
        assert!(peak < used, "trimmed: {peak} of {used}");
        let (code, said) = failed(ortx_session_memory(null(), &mut used, null_mut()));
        assert!(code == ORTX_ERROR_INVALID_ARGUMENT && said.contains("'session'") && used == 0, "{said}");
        [small, large].iter().for_each(|&v| ortx_value_destroy(v));
        ortx_session_destroy(s);
    }
}

/// A table that is only looked things up in stays in the file, however it lies there: the session has no copy of it.
#[test]
fn what_no_kernel_packs_is_not_copied() {
    let (rows, wide) = (20_000, 64);
    let data: Vec<u8> = (0..rows * wide).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let mut odd = 0;
    for pad in 0..4 {
        let table =
            message(&"t".repeat(1 + pad), &Tensor::from_bytes(DType::F32, &[rows, wide], data.clone().into()).unwrap());
        let name = table.name.clone().unwrap();
        let model = Tiny::new("lookup").initializer(table).input("ids", 7, &["n"]).output("y");
        let model = model.node("Gather", &[&name, "ids"], &["g"]).node("Relu", &["g"], &["y"]).bytes();
        let at = model.windows(12).position(|w| w == &data[..12]).unwrap();
        odd += usize::from(!at.is_multiple_of(4));
        let path = std::env::temp_dir().join(format!("ortx-lookup-{}-{pad}.onnx", std::process::id()));
        std::fs::write(&path, &model).unwrap();
        let session = Session::new(&Environment::new(), ModelSource::Path(path.clone()), &SessionOptions::default());
        let session = session.unwrap();
        let ids = Tensor::from_slice(&[2], &[7i64, 19_999]).unwrap();
        let y = session.run(&[("ids", ids)]).unwrap();
        let y = y[0].as_tensor().unwrap().as_slice::<f32>().unwrap();
        assert_eq!((y[0], y[127]), ((7 * wide) as f32, (rows * wide - 1) as f32));
        let (_, peak) = session.memory();
        assert!(peak < data.len() / 10, "{peak} bytes for a table of {}", data.len());
        std::fs::remove_file(path).unwrap();
    }
    assert!(odd > 0, "the table was aligned each time");
}
