//! Tokenizer: strings into tokens, at separators, by a pattern, or by characters.

use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::base::alloc::reserved;
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::tensor::{DType, Tensor, Value};
use crate::{bail, ensure, err};
use regex::Regex;
use smallvec::smallvec;
use std::sync::Arc;

/// Splits each string; a new last axis has its tokens, filled up to the most that a string has.
#[derive(Debug)]
pub struct Tokenizer {
    how: How,
    /// A token of start, and one of end, are put around each string's.
    mark: bool,
    fill: String,
    /// Tokens of fewer characters are dropped.
    least: usize,
}

#[derive(Debug)]
enum How {
    Characters,
    /// Cuts out what matches, one pattern after the other.
    Separators(Vec<Pattern>),
    /// Tokens are what matches.
    Tokens(Pattern),
}

/// A pattern of which the longest match counts, among those that begin first.
#[derive(Debug)]
struct Pattern {
    first: Regex,
    /// Where the first match need not be the longest: the pattern against a text from beginning to end.
    whole: Option<Regex>,
}

impl Pattern {
    fn new(text: &str) -> Result<Pattern> {
        let wrong = |e: regex::Error| err!(InvalidModel, "the pattern '{text}' is wrong: {e}");
        let first = Regex::new(text).map_err(wrong)?;
        let whole = text.contains(['|', '?']).then(|| Regex::new(&format!("\\A(?:{text})\\z")).map_err(wrong));
        Ok(Pattern { first, whole: whole.transpose()? })
    }
    /// The next match from a place on.
    fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let m = self.first.find_at(text, from)?;
        let (start, mut end) = (m.start(), m.end());
        if let Some(whole) = &self.whole {
            let mut ends = text[end..].char_indices().rev().map(|(i, c)| end + i + c.len_utf8());
            end = ends.find(|&e| whole.is_match(&text[start..e])).unwrap_or(end);
        }
        Some((start, end))
    }
    /// All matches that are not empty.
    fn all<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let (start, end) = self.find(text, from)?;
                // After an empty one, on with the next character.
                from = if end > start { end } else { end + text[end..].chars().next()?.len_utf8() };
                if end > start {
                    return Some((start, end));
                }
            }
        })
    }
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let least = cx.int("mincharnum")?;
    let Some(least) = usize::try_from(least).ok().filter(|&n| n > 0) else {
        bail!(InvalidModel, "mincharnum is {least}")
    };
    let how = match (cx.strings_opt("separators")?, cx.string_opt("tokenexp")?) {
        (Some(s), None) if s.len() == 1 && s[0].is_empty() => How::Characters,
        (Some(s), None) => {
            ensure!(s.iter().all(|s| !s.is_empty()), InvalidModel, "an empty separator beside others");
            How::Separators(s.iter().map(|s| Pattern::new(s)).collect::<Result<_>>()?)
        }
        (None, Some(t)) if t == "." => How::Characters,
        (None, Some(t)) => {
            ensure!(!t.is_empty(), InvalidModel, "tokenexp is empty");
            How::Tokens(Pattern::new(&t)?)
        }
        _ => bail!(InvalidModel, "either separators or tokenexp must be given"),
    };
    let fill = cx.string_opt("pad_value")?.ok_or_else(|| err!(InvalidModel, "attribute 'pad_value' is missing"))?;
    Ok(Arc::new(Tokenizer { how, mark: cx.int("mark")? != 0, fill, least }))
}

impl Op for Tokenizer {
    fn name(&self) -> &'static str {
        "Tokenizer"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::String])?;
        let Some(mut dims) = cx.tensor(0)?.dims.clone() else { return Ok(vec![Fact::any_tensor(DType::String)]) };
        ensure!(matches!(dims.len(), 1 | 2), InvalidModel, "strings of rank {}", dims.len());
        dims.push(Dim::Unknown);
        Ok(vec![Fact::tensor(DType::String, dims)])
    }
}

impl Tokenizer {
    fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let long = |s: &&str| s.chars().nth(self.least - 1).is_some();
        match &self.how {
            How::Characters => text.char_indices().map(|(i, c)| &text[i..i + c.len_utf8()]).collect(),
            How::Tokens(p) => p.all(text).map(|(a, b)| &text[a..b]).filter(long).collect(),
            How::Separators(all) => {
                let mut parts = vec![text];
                for p in all {
                    let mut finer = Vec::new();
                    for part in parts {
                        let mut from = 0;
                        for (a, b) in p.all(part) {
                            finer.push(&part[from..a]);
                            from = b;
                        }
                        finer.push(&part[from..]);
                    }
                    parts = finer;
                }
                parts.into_iter().filter(long).collect()
            }
        }
    }
}

const START: &str = "\u{2}";
const END: &str = "\u{3}";

fn run(op: &Tokenizer, _: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let Some(x) = args.first() else { bail!(InvalidModel, "Tokenizer takes one input") };
    let x = x.tensor()?;
    let texts = x.as_strings()?;
    let tokens: Vec<Vec<&str>> = texts.iter().map(|t| op.split(t)).collect();
    let most = tokens.iter().map(Vec::len).max().unwrap_or(0);
    let most = if texts.is_empty() { 0 } else { most + 2 * usize::from(op.mark) };
    let mut shape = x.shape().to_vec();
    shape.push(most);
    let mut all = reserved::<String>(product(&shape)?)?;
    for t in &tokens {
        let end = all.len() + most;
        let (start, stop): (&[&str], &[&str]) = if op.mark { (&[START], &[END]) } else { (&[], &[]) };
        all.extend(start.iter().chain(t).chain(stop).map(|s| (*s).to_string()));
        all.resize(end, op.fill.clone());
    }
    Ok(smallvec![Value::Tensor(Tensor::from_strings(&shape, all)?)])
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<Tokenizer>(run);
}
