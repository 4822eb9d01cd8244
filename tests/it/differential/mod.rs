//! Random graphs, run in all the ways that must agree: optimised and not, at every ISA level, on one thread and two, with sizes that
//! are fixed or symbolic, in sessions that are new or have run before (`compare.rs` says how near they must be).
//!
//! `ORTX_GRAPHS=10000` asks for so many graphs, `ORTX_GRAPHS_SEED=7` for the first one's seed; with both at hand one graph is run
//! again: `ORTX_GRAPHS=1 ORTX_GRAPHS_SEED=123 cargo test --test it differential:: -- --nocapture`. Long runs tell on stderr how far
//! they are. `ORTX_GRAPHS_DUMP=folder` writes the graphs, their inputs and our answers, which `scripts/compare_graphs.py` holds
//! against onnxruntime's.

mod attention;
mod compare;
mod control;
mod elementwise;
mod generator;
mod idioms;
mod movement;
mod networks;
mod neural;
mod report;
mod rows;
mod shrink;

use crate::properties::draw::Draw;
use crate::properties::number;
use compare::{Subject, check};
use generator::{Gen, Id, Made};
use ortx::optimize::passes;
use std::io::{Write, stderr};
use std::time::{Duration, Instant};

/// Graphs of an ordinary run: some twenty seconds.
const GRAPHS: u64 = 300;
/// So many failing graphs are made smaller; the seeds of all are told.
const SHRUNK: usize = 5;
/// How often a long run tells how far it is.
const TOLD: Duration = Duration::from_secs(5);

/// What a graph is grown by; more often where the number is larger.
const STEPS: [(usize, fn(&mut Gen) -> Option<Id>); 31] = [
    (4, elementwise::any_unary),
    (5, elementwise::any_binary),
    (2, elementwise::integers),
    (3, elementwise::logic),
    (3, elementwise::choice),
    (3, elementwise::any_cast),
    (3, elementwise::limits),
    (4, movement::turned),
    (4, movement::shaped),
    (4, movement::parts),
    (3, movement::chosen),
    (3, movement::grown),
    (2, movement::counted),
    (1, movement::found),
    (3, neural::products),
    (2, neural::convolutions),
    (1, neural::upward),
    (2, neural::pools),
    (3, neural::reductions),
    (2, neural::orders),
    (3, neural::normalisations),
    (1, neural::recurrent),
    (1, neural::whole),
    (4, idioms::conv_block),
    (4, idioms::dense_block),
    (4, idioms::activations),
    (3, idioms::norms),
    (4, rows::rows),
    (4, idioms::chain),
    (3, idioms::redundant),
    (2, idioms::embedding),
];
/// Those that make larger things.
const LARGE_STEPS: [fn(&mut Gen) -> Option<Id>; 20] = [
    neural::dynamic,
    networks::affine,
    networks::padded_pool,
    networks::channels_last,
    networks::channels_last,
    attention::attention,
    networks::branches,
    networks::squeezed,
    networks::shuffled,
    networks::pyramid,
    networks::framed,
    networks::head,
    attention::attention,
    attention::rotary,
    attention::rotary,
    idioms::quantised,
    idioms::group_norm,
    control::branch,
    control::repeat,
    control::scan,
];

/// Adds something to a graph; nothing where what was drawn makes no sense.
fn step(g: &mut Gen) {
    if g.d.one_in(4) {
        let f = g.d.pick(&LARGE_STEPS);
        f(g);
        return;
    }
    let all: usize = STEPS.iter().map(|s| s.0).sum();
    let mut at = g.d.below(all);
    for (weight, f) in STEPS {
        if at < weight {
            f(g);
            return;
        }
        at -= weight;
    }
}

/// splitmix64's finish.
fn mixed(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The graph of a seed.
fn graph(seed: u64) -> Made {
    // Seeds that follow each other must not draw the same numbers one place on.
    let mut state = mixed(seed);
    loop {
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (mixed(state) >> 32) as u32
        };
        let choices: Vec<u32> = (0..4000).map(|_| next()).collect();
        let mut g = Gen::new(Draw::new(&choices));
        for _ in 0..1 + g.d.below(12) {
            step(&mut g);
        }
        if let Some(made) = g.finish() {
            return made;
        }
    }
}

#[test]
fn random_graphs_agree() {
    let (first, count) = (number("ORTX_GRAPHS_SEED").unwrap_or(1), number("ORTX_GRAPHS"));
    let dump = std::env::var("ORTX_GRAPHS_DUMP").ok();
    let mut totals = report::Totals::default();
    let mut failed: Vec<u64> = Vec::new();
    let (start, mut told) = (Instant::now(), Instant::now());
    for seed in first..first + count.unwrap_or(GRAPHS) {
        if count.is_some() && told.elapsed() >= TOLD {
            told = Instant::now();
            let (seconds, differ) = (start.elapsed().as_secs(), failed.len());
            // Past the test harness, which keeps what a test prints.
            let _ = writeln!(stderr(), "{} graphs, {differ} differ, {seconds} s", totals.graphs);
        }
        let subject = Subject::new(&graph(seed), seed);
        totals.count(&subject);
        match check(&subject, &[]) {
            Ok(fired) => totals.add(fired),
            Err(failure) => {
                println!("seed {seed}: {}", failure.text);
                if failed.len() < SHRUNK {
                    let (small, failure) = shrink::smallest(subject, failure);
                    report::tell(seed, &small, &failure);
                }
                failed.push(seed);
                continue;
            }
        }
        // What becomes of NaN, the standard leaves open in places.
        if let Some(folder) = dump.as_ref().filter(|_| !subject.odd) {
            report::dump(folder.as_ref(), seed, &subject);
        }
    }
    totals.print();
    assert!(failed.is_empty(), "{} of {} graphs differ, seeds {failed:?}", failed.len(), totals.graphs);
    if count.is_none() {
        // The net reaches every pass, and operators enough.
        let idle: Vec<_> = passes::all().iter().map(|p| p.name()).filter(|n| !totals.fired.contains_key(n)).collect();
        assert!(idle.is_empty(), "passes that never fired: {idle:?}");
        assert!(totals.operators.len() >= 90, "{} operators", totals.operators.len());
    }
}
