//! Damaged models through the C ABI, by the thousand: each load or run ends well, or with a status that says why; nothing
//! crashes, hangs or leaks.
//!
//! `ORTX_MUTATE` is the number of cases; `ORTX_MUTATE_SEED` the seed of the first. With both, one case is run again:
//! `ORTX_MUTATE=1 ORTX_MUTATE_SEED=1234 cargo test --test it mutate -- --nocapture`.

mod found;
mod models;
mod values;
mod wire;

use crate::alone;
use crate::capi::text;
use models::Model;
use ortx::capi::{environment::*, options::*, run::*, session::*, status::*, value::*};
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use wire::{Rng, change, damage, encode, parse};

/// How long one run may take before it is told to stop: far longer than any healthy one here.
const RUN_LIMIT: Duration = Duration::from_millis(300);
/// How long a case may take: loading, which nothing can stop, and running.
const CASE_LIMIT: Duration = Duration::from_secs(20);
/// The most address space of the process. An allocation that must not fail ends it here.
const ADDRESS_SPACE: u64 = 6 << 30;
/// What a session may take.
const MEMORY_LIMIT: u64 = 256 << 20;

#[test]
fn damaged_models_do_no_harm() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutate");
    std::fs::create_dir_all(&folder).unwrap();
    let last_words = || std::fs::read_to_string(folder.join("last")).unwrap_or_default();
    alone::alone("mutate::damaged_models_do_no_harm", || run_all(&folder), || format!("\nat {}", last_words()));
}

fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(v) => v.parse().unwrap_or_else(|_| panic!("{name}={v} is no number")),
        Err(_) => otherwise,
    }
}

/// The number of the case that is running, for the watchdog; 0 for none.
static NOW: AtomicU64 = AtomicU64::new(0);

fn run_all(folder: &Path) {
    let (first, count) = (setting("ORTX_MUTATE_SEED", 1).max(1), setting("ORTX_MUTATE", 3000));
    let limit = libc::rlimit { rlim_cur: ADDRESS_SPACE, rlim_max: ADDRESS_SPACE };
    // SAFETY: plain data, for this process, which is the test's own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    std::thread::spawn(watch);
    let (own, others) = (models::own(folder), models::others());
    let last = std::fs::File::create(folder.join("last")).unwrap();
    let mut host = Host::new(folder);
    for m in &own {
        let outcome = host.case(&mut Rng(1), &m.bytes);
        assert!(outcome.faults.is_empty() && outcome.codes.is_empty() && outcome.ran, "{}: {outcome:?}", m.name);
    }
    let (mut codes, mut loaded, mut ran, mut faults) = (BTreeMap::<String, usize>::new(), 0, 0, Vec::new());
    for seed in first..first + count {
        let mut rng = Rng(seed);
        let (bytes, said) = mutant(&own, &others, &mut rng);
        let line = format!("seed {seed}: {said}");
        last.set_len(0).unwrap();
        last.write_all_at(line.as_bytes(), 0).unwrap();
        std::fs::write(folder.join("last.onnx"), &bytes).unwrap();
        NOW.store(seed, SeqCst);
        let mut outcome = host.case(&mut rng.clone(), &bytes);
        if outcome.leaked != 0 {
            // What is made once (a table at first need) is not made again.
            outcome = host.case(&mut rng, &bytes);
        }
        NOW.store(0, SeqCst);
        loaded += usize::from(outcome.loaded);
        ran += usize::from(outcome.ran);
        outcome.codes.iter().for_each(|c| *codes.entry(c.clone()).or_default() += 1);
        if outcome.leaked != 0 {
            outcome.faults.push(format!("{} bytes leaked", outcome.leaked));
        }
        if !outcome.faults.is_empty() {
            std::fs::write(folder.join(format!("{seed}.onnx")), &bytes).unwrap();
            println!("{line}\n    {}", outcome.faults.join("\n    "));
            faults.push(seed);
        }
    }
    println!("{count} damaged models: {loaded} loaded, {ran} ran; {codes:?}");
    assert!(faults.is_empty(), "{} of {count} cases at fault, seeds {faults:?}", faults.len());
    // Damage that only ever meets the reader would test little.
    assert!(count < 1000 || loaded * 8 > count as usize && ran * 16 > count as usize, "few models loaded");
}

/// Ends the process when a case takes too long: a hang.
fn watch() {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = NOW.load(SeqCst);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if now != 0 && since.elapsed() > CASE_LIMIT {
            eprintln!("seed {now} hangs");
            std::process::abort();
        }
    }
}

/// A damaged model, and how it came to be.
fn mutant(own: &[Model], others: &[Model], rng: &mut Rng) -> (Vec<u8>, String) {
    let list = if rng.one_in(2) { own } else { others };
    let (model, donor) = (rng.pick(list), rng.pick(list));
    let mut said = format!("{}: ", model.name);
    let mut fields = parse(&model.bytes, 0).unwrap_or_default();
    let donor = if donor.bytes.len() < 20_000 { parse(&donor.bytes, 0).unwrap_or_default() } else { fields.clone() };
    let (changes, harms) = match rng.below(8) {
        0 => (0, 1),
        1 => (0, 2),
        2 => (1, 1),
        3 | 4 => (2, 0),
        5 => (4, 0),
        _ => (1, 0),
    };
    (0..changes).for_each(|_| change(&mut fields, &donor, rng, &mut said));
    let mut bytes = encode(&fields);
    (0..harms).for_each(|_| damage(&mut bytes, rng, &mut said));
    (bytes, said)
}

/// What became of one model.
#[derive(Default, Debug)]
pub struct Outcome {
    loaded: bool,
    ran: bool,
    /// Names of the codes of failed calls.
    codes: Vec<String>,
    faults: Vec<String>,
    leaked: isize,
}

impl Outcome {
    /// Takes a call's status: whether it succeeded. A failure must say what it is.
    pub fn good(&mut self, call: &str, status: *mut ortx_status) -> bool {
        if status.is_null() {
            return true;
        }
        // SAFETY: a status that a call gave us.
        unsafe {
            let (code, message) = (ortx_status_code(status), text(ortx_status_message(status)));
            if message.trim().is_empty() || !(1..=9).contains(&code) {
                self.faults.push(format!("{call}: code {code}: {}", text(ortx_status_text(status))));
            }
            self.codes.push(text(ortx::capi::info::ortx_code_name(code)));
            ortx_status_destroy(status);
        }
        false
    }
    fn fault(&mut self, what: impl Into<String>) {
        self.faults.push(what.into());
    }
}

/// How often borrowed memory came back.
static RELEASED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn released(_user: *mut c_void) {
    RELEASED.fetch_add(1, SeqCst);
}

struct Host {
    environment: *mut ortx_environment,
    inspecting: ortx::Environment,
    folder: CString,
    path: PathBuf,
}

impl Host {
    fn new(folder: &Path) -> Host {
        let mut environment = null_mut();
        // SAFETY: a place to write to.
        assert!(unsafe { ortx_environment_create(&mut environment) }.is_null());
        let name = CString::new(folder.to_str().unwrap()).unwrap();
        Host { environment, inspecting: ortx::Environment::new(), folder: name, path: folder.into() }
    }

    /// Looks into a model, loads it, runs it, and counts what stays.
    fn case(&mut self, rng: &mut Rng, bytes: &[u8]) -> Outcome {
        let mut outcome = Outcome::default();
        // Room for what the outcome itself will hold, so that only the library is counted.
        let before = alone::live();
        self.inspect(bytes, &mut outcome);
        self.load_and_run(rng, bytes, &mut outcome);
        let own = outcome.codes.iter().chain(&outcome.faults).map(|s| s.capacity()).sum::<usize>()
            + (outcome.codes.capacity() + outcome.faults.capacity()) * size_of::<String>();
        outcome.leaked = alone::live() - before - own as isize;
        outcome
    }

    fn inspect(&self, bytes: &[u8], outcome: &mut Outcome) {
        let source = ortx::ModelSource::Bytes(bytes.to_vec().into(), Some(self.path.clone()));
        let look = || drop(ortx::session::inspect(&self.inspecting, &source, Default::default()));
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(look)).is_err() {
            outcome.fault("inspect panics");
        }
    }

    fn load_and_run(&self, rng: &mut Rng, bytes: &[u8], outcome: &mut Outcome) {
        let options = ortx_session_options {
            struct_size: size_of::<ortx_session_options>(),
            threads: if rng.one_in(8) { 2 } else { 1 },
            disable_optimization: i32::from(rng.one_in(4)),
            memory_limit: MEMORY_LIMIT,
            // SAFETY: integers and pointers, for which zero is valid.
            ..unsafe { std::mem::zeroed() }
        };
        let (mut session, lend) = (null_mut(), rng.one_in(2));
        let (data, size, folder) = (bytes.as_ptr().cast(), bytes.len(), self.folder.as_ptr());
        let before = RELEASED.load(SeqCst);
        // SAFETY: the bytes live until the session and what came from it are gone.
        let status = unsafe {
            if lend {
                let release = Some(released as unsafe extern "C" fn(*mut c_void));
                let user = null_mut();
                ortx_session_create_from_borrowed_memory(
                    self.environment,
                    data,
                    size,
                    release,
                    user,
                    folder,
                    &options,
                    &mut session,
                )
            } else {
                ortx_session_create_from_memory(self.environment, data, size, folder, &options, &mut session)
            }
        };
        outcome.loaded = outcome.good("load", status);
        if outcome.loaded == session.is_null() {
            outcome.fault("the handle and the status disagree");
        }
        if outcome.loaded {
            // SAFETY: a live session.
            unsafe {
                outcome.ran = run(session, rng, outcome);
                ortx_session_destroy(session);
            }
        }
        if RELEASED.load(SeqCst) - before != usize::from(lend) {
            outcome.fault("borrowed memory did not come back once");
        }
    }
}

/// Runs a session on random inputs of its types, twice: the second time the plan is there.
unsafe fn run(session: *mut ortx_session, rng: &mut Rng, outcome: &mut Outcome) -> bool {
    let (mut ins, mut outs) = (0, 0);
    // SAFETY: live handles and pointers throughout.
    unsafe {
        assert!(ortx_session_input_count(session, &mut ins).is_null());
        assert!(ortx_session_output_count(session, &mut outs).is_null());
        let mut symbols = BTreeMap::new();
        let mut given = Vec::new();
        for i in 0..ins {
            let mut ty = null();
            assert!(ortx_session_input_type(session, i, &mut ty).is_null());
            given.extend(values::random(ty, &mut symbols, rng, outcome));
        }
        let mut ran = given.len() == ins;
        for _ in 0..2 {
            let mut results = vec![null_mut(); outs];
            let options = ortx_run_options {
                struct_size: size_of::<ortx_run_options>(),
                cancel_token: null(),
                timeout_ns: RUN_LIMIT.as_nanos() as u64,
            };
            let pointers: Vec<*const ortx_value> = given.iter().map(|v| v.cast_const()).collect();
            let (p, n) = (pointers.as_ptr(), given.len());
            let status = ortx_session_run(session, &options, null(), p, n, null(), results.as_mut_ptr(), outs);
            let good = outcome.good("run", status);
            if results.iter().any(|r| r.is_null() == good) {
                outcome.fault("outputs and the status disagree");
            }
            for r in results {
                if good {
                    values::read(r);
                }
                ortx_value_destroy(r);
            }
            ran &= good;
            if !good {
                break;
            }
        }
        given.into_iter().for_each(|v| ortx_value_destroy(v));
        ran
    }
}
