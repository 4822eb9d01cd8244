//! Strings: StringConcat, StringNormalizer, StringSplit, RegexFullMatch, TfIdfVectorizer.

use super::Family;
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::base::alloc::{gathered, refill, reserved};
use crate::base::checked;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Dims, Tensor, Value};
use crate::{bail, ensure, err};
use regex::Regex;
use smallvec::smallvec;
use std::collections::{HashMap, HashSet};
use std::iter::repeat_n;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "strings", ops: OPS, cpu, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "RegexFullMatch", versions: &[20], parse: parse_regex },
    OpDef { domain: "", name: "StringConcat", versions: &[20], parse: parse_concat },
    OpDef { domain: "", name: "StringNormalizer", versions: &[10], parse: parse_normalizer },
    OpDef { domain: "", name: "StringSplit", versions: &[20], parse: parse_split },
    OpDef { domain: "", name: "TfIdfVectorizer", versions: &[9], parse: parse_tfidf },
];

/// Whether each string as a whole matches a pattern (ONNX RegexFullMatch-20), in RE2's syntax.
#[derive(Debug)]
pub struct RegexFullMatch(Regex);

fn parse_regex(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let pattern = cx.string_opt("pattern")?.ok_or_else(|| err!(InvalidModel, "attribute 'pattern' is missing"))?;
    let wrong = |e: regex::Error| err!(InvalidModel, "the pattern '{pattern}' is wrong: {e}");
    // Alone first: a pattern must not close the group that is put around it.
    Regex::new(&pattern).map_err(wrong)?;
    // The line break ends a comment of a verbose pattern, and only there counts for nothing.
    let whole = Regex::new(&format!("\\A(?:{pattern})\\z"));
    let whole = whole.or_else(|_| Regex::new(&format!("\\A(?:{pattern}\n)\\z"))).map_err(wrong)?;
    Ok(Arc::new(RegexFullMatch(whole)))
}

impl Op for RegexFullMatch {
    fn name(&self) -> &'static str {
        "RegexFullMatch"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::String])?;
        Ok(vec![cx.like(0, DType::Bool)?])
    }
}

fn run_regex(op: &RegexFullMatch, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let found = t.as_strings()?.iter().map(|s| op.0.is_match(s));
    Ok(smallvec![Value::Tensor(Tensor::gathered(t.shape(), found)?)])
}

/// Joins strings element by element, broadcasting (ONNX StringConcat-20).
#[derive(Debug)]
pub struct StringConcat;

/// Drops stop words and changes case (ONNX StringNormalizer-10).
#[derive(Debug)]
pub struct StringNormalizer {
    upper: Option<bool>,
    case_sensitive: bool,
    stop_words: Vec<String>,
}

/// Splits each string (ONNX StringSplit-20).
#[derive(Debug)]
pub struct StringSplit {
    /// None or empty: at white space.
    delimiter: Option<String>,
    max_split: Option<usize>,
}

/// Counts n-grams (ONNX TfIdfVectorizer-9).
#[derive(Debug)]
pub struct TfIdf {
    mode: Mode,
    min_len: usize,
    max_len: usize,
    max_skip: usize,
    weights: Option<Vec<f32>>,
    /// From n-gram to its place in the output and its place in the weights.
    grams: HashMap<Vec<Token>, (usize, usize)>,
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mode {
    Tf,
    Idf,
    TfIdf,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Token {
    Int(i64),
    Text(String),
}

fn parse_concat(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(StringConcat))
}

impl Op for StringConcat {
    fn name(&self) -> &'static str {
        "StringConcat"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::String])?;
        cx.expect_same_dtype(0, 1)?;
        let dims = super::infer::broadcast_all([cx.tensor(0)?.dims.as_ref(), cx.tensor(1)?.dims.as_ref()])?;
        Ok(vec![dims.map_or(Fact::any_tensor(DType::String), |d| Fact::tensor(DType::String, d))])
    }
}

fn run_concat(_: &StringConcat, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let (a, b) = (args[0].tensor()?, args[1].tensor()?);
    let known = |s: &[usize]| s.iter().map(|&n| Dim::of(n)).collect::<Vec<_>>();
    let shape = super::infer::broadcast(&known(a.shape()), &known(b.shape()))?;
    let shape: Vec<usize> = shape.iter().filter_map(Dim::size).collect();
    let (x, y) = (a.as_strings()?, b.as_strings()?);
    let n = checked::product(&shape)?;
    let at = |s: &[usize], flat: usize| {
        let (mut rest, mut index, mut stride) = (flat, 0, 1);
        for (k, &d) in shape.iter().enumerate().rev() {
            let i = rest % d;
            rest /= d;
            if let Some(own) = (k + s.len()).checked_sub(shape.len()) {
                index += if s[own] == 1 { 0 } else { i * stride };
                stride *= s[own];
            }
        }
        index
    };
    let joined = gathered((0..n).map(|i| format!("{}{}", x[at(a.shape(), i)], y[at(b.shape(), i)])))?;
    Ok(smallvec![Value::Tensor(Tensor::from_strings(&shape, joined)?)])
}

fn parse_normalizer(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let upper = match cx.string_or("case_change_action", "NONE")?.as_str() {
        "NONE" => None,
        "UPPER" => Some(true),
        "LOWER" => Some(false),
        x => bail!(InvalidModel, "case_change_action '{x}'"),
    };
    let case_sensitive = cx.flag("is_case_sensitive", false)?;
    Ok(Arc::new(StringNormalizer {
        upper,
        case_sensitive,
        stop_words: cx.strings_opt("stopwords")?.unwrap_or_default(),
    }))
}

impl Op for StringNormalizer {
    fn name(&self) -> &'static str {
        "StringNormalizer"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::String])?;
        Ok(vec![match &cx.tensor(0)?.dims {
            Some(d) if d.len() == 2 => Fact::tensor(DType::String, vec![d[0].clone(), Dim::Unknown]),
            Some(d) => Fact::tensor(DType::String, vec![Dim::Unknown; d.len()]),
            None => Fact::any_tensor(DType::String),
        }])
    }
}

fn run_normalizer(op: &StringNormalizer, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let rows = match t.shape() {
        [_] => false,
        [1, _] => true,
        s => bail!(Run, "StringNormalizer takes [C] or [1, C], not {s:?}"),
    };
    let fold = |s: &str| if op.case_sensitive { s.to_string() } else { s.to_lowercase() };
    let stop: HashSet<String> = op.stop_words.iter().map(|s| fold(s)).collect();
    let kept = t.as_strings()?.iter().filter(|s| !stop.contains(&fold(s)));
    let mut out = gathered(kept.map(|s| match op.upper {
        None => s.clone(),
        Some(true) => s.to_uppercase(),
        Some(false) => s.to_lowercase(),
    }))?;
    if out.is_empty() {
        // The standard asks for one empty string where nothing is left.
        out.push(String::new());
    }
    let shape = if rows { vec![1, out.len()] } else { vec![out.len()] };
    Ok(smallvec![Value::Tensor(Tensor::from_strings(&shape, out)?)])
}

fn parse_split(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let delimiter = cx.string_opt("delimiter")?.filter(|d| !d.is_empty());
    Ok(Arc::new(StringSplit { delimiter, max_split: cx.int_opt("maxsplit")?.and_then(|n| usize::try_from(n).ok()) }))
}

impl Op for StringSplit {
    fn name(&self) -> &'static str {
        "StringSplit"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::String])?;
        let dims = &cx.tensor(0)?.dims;
        Ok(match dims {
            Some(d) => {
                let parts = d.iter().cloned().chain([Dim::Unknown]).collect();
                vec![Fact::tensor(DType::String, parts), Fact::tensor(DType::I64, d.clone())]
            }
            None => vec![Fact::any_tensor(DType::String), Fact::any_tensor(DType::I64)],
        })
    }
}

fn run_split(op: &StringSplit, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let split = |s: &str| -> Vec<String> {
        match (&op.delimiter, op.max_split) {
            (Some(d), None) => s.split(d.as_str()).map(str::to_string).collect(),
            (Some(d), Some(n)) => s.splitn(n.saturating_add(1), d.as_str()).map(str::to_string).collect(),
            (None, None) => s.split_whitespace().map(str::to_string).collect(),
            (None, Some(n)) => {
                let (mut rest, mut out) = (s.trim(), Vec::new());
                while out.len() < n {
                    let Some(at) = rest.find(char::is_whitespace) else { break };
                    out.push(rest[..at].to_string());
                    rest = rest[at..].trim_start();
                }
                if !rest.is_empty() {
                    out.push(rest.to_string());
                }
                out
            }
        }
    };
    let parts: Vec<Vec<String>> =
        gathered(t.as_strings()?.iter().map(|s| if s.is_empty() { Vec::new() } else { split(s) }))?;
    let width = parts.iter().map(Vec::len).max().unwrap_or(0);
    let counts = Tensor::gathered(t.shape(), parts.iter().map(|p| p.len() as i64))?;
    let mut flat = reserved(checked::product(&[parts.len(), width])?)?;
    for p in parts {
        let full = flat.len() + width;
        flat.extend(p);
        flat.resize(full, String::new());
    }
    let shape: Vec<usize> = t.shape().iter().copied().chain([width]).collect();
    Ok(smallvec![Value::Tensor(Tensor::from_strings(&shape, flat)?), Value::Tensor(counts)])
}

fn parse_tfidf(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let mode = match cx.string_or("mode", "")?.as_str() {
        "TF" => Mode::Tf,
        "IDF" => Mode::Idf,
        "TFIDF" => Mode::TfIdf,
        x => bail!(InvalidModel, "mode '{x}'"),
    };
    let size = |x: i64| usize::try_from(x).map_err(|_| err!(InvalidModel, "a length of {x}"));
    let (min_len, max_len) = (size(cx.int("min_gram_length")?)?, size(cx.int("max_gram_length")?)?);
    ensure!(min_len >= 1 && min_len <= max_len, InvalidModel, "n-grams of {min_len} to {max_len}");
    let max_skip = size(cx.int("max_skip_count")?)?;
    let counts = cx.ints("ngram_counts")?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    let indexes = cx.ints("ngram_indexes")?.into_iter().map(size).collect::<Result<Vec<_>>>()?;
    let pool: Vec<Token> = match (cx.ints_opt("pool_int64s")?, cx.strings_opt("pool_strings")?) {
        (Some(v), _) if !v.is_empty() => v.into_iter().map(Token::Int).collect(),
        (_, Some(v)) => v.into_iter().map(Token::Text).collect(),
        _ => Vec::new(),
    };
    let mut grams = HashMap::new();
    let mut place = 0;
    for (k, &from) in counts.iter().enumerate() {
        let to = counts.get(k + 1).copied().unwrap_or(pool.len());
        let part = pool
            .get(from..to)
            .ok_or_else(|| err!(InvalidModel, "ngram_counts {counts:?} pass a pool of {}", pool.len()))?;
        for gram in part.chunks_exact(k + 1) {
            let at = *indexes.get(place).ok_or_else(|| err!(InvalidModel, "more n-grams than ngram_indexes"))?;
            grams.insert(gram.to_vec(), (at, place));
            place += 1;
        }
    }
    let width = indexes.iter().max().map_or(0, |m| m + 1);
    ensure!(width <= 1 << 28, InvalidModel, "an output of width {width}");
    Ok(Arc::new(TfIdf { mode, min_len, max_len, max_skip, weights: cx.floats_opt("weights")?, grams, width }))
}

impl Op for TfIdf {
    fn name(&self) -> &'static str {
        "TfIdfVectorizer"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::String, DType::I32, DType::I64])?;
        let w = Dim::of(self.width);
        Ok(vec![match &cx.tensor(0)?.dims {
            Some(d) if d.len() == 2 => Fact::tensor(DType::F32, vec![d[0].clone(), w]),
            Some(_) => Fact::tensor(DType::F32, vec![w]),
            None => Fact::any_tensor(DType::F32),
        }])
    }
}

fn run_tfidf(op: &TfIdf, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let mut lists = cx.lists::<(Vec<Token>, Vec<Token>, Vec<f32>)>();
    let (tokens, gram, weight) = &mut *lists;
    match t.dtype() {
        DType::String => refill(tokens, t.as_strings()?.iter().cloned().map(Token::Text))?,
        DType::I64 => refill(tokens, t.as_slice::<i64>()?.iter().copied().map(Token::Int))?,
        _ => refill(tokens, t.as_slice::<i32>()?.iter().map(|&x| Token::Int(x.into())))?,
    }
    let (rows, cols, shape): (_, _, Dims) = match t.shape() {
        [c] => (1, *c, smallvec![op.width]),
        [r, c] => (*r, *c, smallvec![*r, op.width]),
        [] => (1, 1, smallvec![op.width]),
        s => bail!(Run, "TfIdfVectorizer takes one or two axes, not {s:?}"),
    };
    let mut y = cx.tensor(DType::F32, &shape)?;
    let out = y.as_mut_slice::<f32>()?;
    out.fill(0.0);
    for r in 0..rows {
        let (line, counts) = (&tokens[r * cols..(r + 1) * cols], &mut out[r * op.width..(r + 1) * op.width]);
        refill(weight, repeat_n(1f32, op.width))?;
        for len in op.min_len..=op.max_len {
            // A single token cannot skip anything.
            for skip in 0..=(if len == 1 { 0 } else { op.max_skip }) {
                let reach = (len - 1).saturating_mul(skip + 1);
                for start in 0..cols.saturating_sub(reach) {
                    refill(gram, (0..len).map(|i| line[start + i * (skip + 1)].clone()))?;
                    if let Some(&(at, place)) = op.grams.get(&gram[..]) {
                        counts[at] += 1.0;
                        weight[at] = op.weights.as_ref().and_then(|w| w.get(place)).copied().unwrap_or(1.0);
                    }
                }
            }
        }
        for (c, w) in counts.iter_mut().zip(&*weight) {
            *c = match op.mode {
                Mode::Tf => *c,
                Mode::Idf => {
                    if *c > 0.0 {
                        *w
                    } else {
                        0.0
                    }
                }
                Mode::TfIdf => *c * w,
            };
        }
    }
    cx.keep(lists);
    Ok(smallvec![Value::Tensor(y)])
}

fn cpu(b: &mut CpuBindings) {
    b.eager::<RegexFullMatch>(run_regex);
    b.eager::<StringConcat>(run_concat);
    b.eager::<StringNormalizer>(run_normalizer);
    b.eager::<StringSplit>(run_split);
    b.eager::<TfIdf>(run_tfidf);
}
