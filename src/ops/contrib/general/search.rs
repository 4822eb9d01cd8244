//! Operators over tokens and sequences: repeated n-grams, decoding against a source, hashes, time warping, distinct numbers,
//! words made of characters.

use crate::backend::cpu::{Arg, CpuBindings, CpuCtx, EagerCtx, Values};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::alloc::refill;
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, ParseCtx};
use crate::ops::conv::expect_dim;
use crate::ops::movement::{Unique, some_of_unique};
use crate::ops::types::need_size;
use crate::tensor::{DType, Tensor, Value};
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::iter::repeat_n;
use std::sync::Arc;

/// Scores (input 1), minus infinity for tokens that would end an n-gram which the ids (input 0) have already.
#[derive(Clone, Debug, PartialEq)]
pub struct NgramRepeats {
    /// Tokens of an n-gram.
    pub size: usize,
}

/// Takes predicted tokens up to where they part from the source. Inputs: source, current tokens, place in the source,
/// predicted tokens; outputs: tokens, the next place in the source or -1.
#[derive(Clone, Debug, PartialEq)]
pub struct Bifurcation {
    /// Lengths of the suffixes that are looked for.
    pub least: usize,
    /// The longest.
    pub most: usize,
}

/// MurmurHash3 of 32 bits of each element's bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Hash {
    /// Where it begins.
    pub seed: u32,
    /// The result is uint32, not int32.
    pub positive: bool,
}

/// The cheapest path from the first to the last place of a matrix of costs, as rows and columns.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeWarping;

/// The distinct elements in the order in which they come, the place of each element among them, their counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Distinct;

/// A vector for each word of characters: a convolution along them, its hyperbolic tangent, the greatest of each filter.
/// Inputs: characters (0 ends a word), filters `[filters, 1, window, size]`, bias, vectors of the characters.
#[derive(Clone, Debug, PartialEq)]
pub struct WordEmbedding;

pub(super) fn parse_repeats(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    match usize::try_from(cx.int("ngram_size")?) {
        Ok(size) if size > 0 => Ok(Arc::new(NgramRepeats { size })),
        _ => bail!(InvalidModel, "ngram_size must be positive"),
    }
}

pub(super) fn parse_bifurcation(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 4)?;
    let size = |name: &str, default| match cx.int_or(name, default)? {
        x @ 1..=0x7fff_ffff => Ok(x as usize),
        x => bail!(InvalidModel, "{name} is {x}"),
    };
    let (least, most) = (size("min_ngram_size", 1)?, size("max_ngram_size", 3)?);
    ensure!(least <= most, InvalidModel, "n-grams of {least} to {most}");
    Ok(Arc::new(Bifurcation { least, most }))
}

pub(super) fn parse_hash(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    // Seeds are 32 bits, however they are signed.
    Ok(Arc::new(Hash { seed: cx.int_or("seed", 0)? as u32, positive: cx.flag("positive", true)? }))
}

pub(super) fn parse_warping(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(TimeWarping))
}

pub(super) fn parse_unique(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Distinct))
}

pub(super) fn parse_words(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(4, 4)?;
    Ok(Arc::new(WordEmbedding))
}

impl Op for NgramRepeats {
    fn name(&self) -> &'static str {
        "NGramRepeatBlock"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::I64])?;
        cx.expect_dtype(1, &[DType::F32])?;
        if let (Some(a), Some(b)) = (&cx.tensor(0)?.dims, &cx.tensor(1)?.dims) {
            ensure!(a.len() == 2 && b.len() == 2, InvalidModel, "ids of {a:?}, scores of {b:?}");
            expect_dim("items of ids and scores", &a[0], &b[0])?;
        }
        Ok(vec![cx.like(1, DType::F32)?])
    }
}

impl Op for Bifurcation {
    fn name(&self) -> &'static str {
        "BifurcationDetector"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        for i in 0..4 {
            if i < 3 || cx.has(i) {
                cx.expect_dtype(i, &[DType::I64])?;
            }
        }
        Ok(vec![Fact::tensor(DType::I64, vec![Dim::Unknown]), Fact::tensor(DType::I64, vec![Dim::Unknown])])
    }
}

impl Op for Hash {
    fn name(&self) -> &'static str {
        "MurmurHash3"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        use DType::*;
        cx.expect_dtype(0, &[U32, I32, U64, I64, F32, F64, String])?;
        Ok(vec![cx.like(0, if self.positive { U32 } else { I32 })?])
    }
}

impl Op for TimeWarping {
    fn name(&self) -> &'static str {
        "DynamicTimeWarping"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32])?;
        Ok(vec![Fact::tensor(DType::I32, vec![Dim::Known(2), Dim::Unknown])])
    }
}

impl Op for Distinct {
    fn name(&self) -> &'static str {
        "Unique"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        if let Some(r) = x.rank() {
            ensure!(r == 1, InvalidModel, "a list is needed, not rank {r}");
        }
        let list = |d, n| Fact::tensor(d, vec![n]);
        Ok(vec![list(x.dtype, Dim::Unknown), list(DType::I64, x.count()), list(DType::I64, Dim::Unknown)])
    }
}

impl Op for WordEmbedding {
    fn name(&self) -> &'static str {
        "WordConvEmbedding"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::I32])?;
        (1..4).try_for_each(|i| cx.expect_dtype(i, &[DType::F32]))?;
        let filters = match cx.tensor(1)?.dims.as_deref() {
            Some([n, _, _, _]) => n.clone(),
            Some(d) => bail!(InvalidModel, "filters of rank {}", d.len()),
            None => Dim::Unknown,
        };
        let Some(dims) = &cx.tensor(0)?.dims else { return Ok(vec![Fact::any_tensor(DType::F32)]) };
        let [words, _] = dims.as_slice() else { bail!(InvalidModel, "words of rank {}", dims.len()) };
        Ok(vec![Fact::tensor(DType::F32, vec![words.clone(), filters])])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<NgramRepeats>(bind_repeats);
    b.step::<WordEmbedding>(bind_words);
    b.eager::<Bifurcation>(bifurcation);
    b.step::<Hash>(bind_hash);
    b.eager::<Hash>(hash_strings);
    b.eager::<TimeWarping>(warp);
    b.eager::<Distinct>(distinct);
}

fn bind_repeats(op: &NgramRepeats, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (ids, scores, size) = (cx.input(0)?, cx.input(1)?, op.size);
    let (&[items, len], &[same, vocabulary]) = (ids.shape.as_slice(), scores.shape.as_slice()) else {
        bail!(InvalidModel, "ids of {:?}, scores of {:?}", ids.shape, scores.shape)
    };
    ensure!(items == same, InvalidModel, "{items} items of ids, {same} of scores");
    Ok(FnStep::boxed("ngram_repeat_block", items, 0, move |args, i, _| {
        // SAFETY: item i of ids and scores; a token is checked before it is written to.
        unsafe {
            let ids = std::slice::from_raw_parts(args.input::<i64>(0).add(i * len), len);
            let to = args.output::<f32>(0).add(i * vocabulary);
            std::ptr::copy(args.input::<f32>(1).add(i * vocabulary), to, vocabulary);
            let to = std::slice::from_raw_parts_mut(to, vocabulary);
            // The last tokens are a beginning; before them stand the n-grams that may have the same.
            let last = &ids[(len + 1).saturating_sub(size).min(len)..];
            for gram in ids.windows(size).filter(|g| len >= size && g[..size - 1] == *last) {
                let token = gram[size - 1];
                match usize::try_from(token).ok().and_then(|t| to.get_mut(t)) {
                    Some(score) => *score = f32::NEG_INFINITY,
                    None => bail!(Run, "token {token} of a vocabulary of {vocabulary}"),
                }
            }
        }
        Ok(())
    }))
}

fn bifurcation(op: &Bifurcation, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let list = |i: usize| match args.get(i).filter(|a| a.is_given()) {
        Some(a) => a.tensor()?.as_slice::<i64>().map(Some),
        None => Ok(None),
    };
    let need = |i: usize| list(i)?.ok_or_else(|| err!(InvalidModel, "input {i} is missing"));
    let (source, current, place) = (need(0)?, need(1)?, need(2)?);
    let Some(from) = place.first().and_then(|&p| source.get(usize::try_from(p).ok()?..)) else {
        bail!(Run, "place {place:?} of a source of {}", source.len())
    };
    let mut more: &[i64] = &[];
    if let Some(predicted) = list(3)? {
        let n = predicted.len();
        ensure!(n == from.len() + 1, Run, "{n} predicted tokens for {} of the source", from.len());
        let same = predicted.iter().zip(from).take_while(|(a, b)| a == b).count();
        more = &predicted[..=same];
    }
    let all = cx.gathered(&[current.len() + more.len()], current.iter().chain(more).copied())?;
    let tokens = all.as_slice::<i64>()?;
    let mut next = -1;
    for n in op.least..=op.most.min(tokens.len()) {
        let suffix = &tokens[tokens.len() - n..];
        let mut found = source.windows(n).enumerate().filter(|(_, w)| *w == suffix).map(|(i, _)| i);
        let Some(first) = found.next() else { break };
        next = (first + n) as i64;
        if found.next().is_none() || first + n >= source.len() {
            break;
        }
        next = -1;
    }
    let next = cx.gathered(&[1], std::iter::once(next))?;
    let mut all: Values = smallvec![Value::Tensor(all), Value::Tensor(next)];
    all.truncate(cx.outputs);
    Ok(all)
}

/// MurmurHash3_x86_32 (Appleby, public domain).
fn murmur(bytes: &[u8], seed: u32) -> u32 {
    let mixed = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (words, rest) = bytes.as_chunks::<4>();
    let mut h = words.iter().fold(seed, |h, w| {
        (h ^ mixed(u32::from_le_bytes(*w))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    if !rest.is_empty() {
        h ^= mixed(rest.iter().rev().fold(0, |k, &b| k << 8 | u32::from(b)));
    }
    h ^= bytes.len() as u32;
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

fn bind_hash(op: &Hash, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, seed) = (cx.input(0)?, op.seed);
    let (size, n) = (need_size(x.dtype, op.name())?, x.len());
    let (tasks, per) = split(n, 16 * 1024);
    Ok(FnStep::boxed("murmur_hash3", tasks, 0, move |args, task, _| {
        for i in task * per..n.min((task + 1) * per) {
            // SAFETY: element i of n. The result has 32 bits, signed or not.
            unsafe {
                let element = std::slice::from_raw_parts(args.input::<u8>(0).add(i * size), size);
                args.output::<u32>(0).add(i).write(murmur(element, seed));
            }
        }
        Ok(())
    }))
}

fn hash_strings(op: &Hash, _: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let Some(x) = args.first() else { bail!(InvalidModel, "MurmurHash3 takes one input") };
    let x = x.tensor()?;
    let all = x.as_strings()?.iter().map(|s| murmur(s.as_bytes(), op.seed));
    Ok(smallvec![Value::Tensor(match op.positive {
        true => Tensor::gathered(x.shape(), all)?,
        false => Tensor::gathered(x.shape(), all.map(|h| h as i32))?,
    })])
}

/// The cost of the cheapest path to each place, with a border before it; which way it came; the way back.
#[derive(Default)]
struct Paths {
    cost: Vec<f32>,
    way: Vec<u8>,
    path: Vec<(usize, usize)>,
}

fn warp(_: &TimeWarping, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let Some(x) = args.first() else { bail!(InvalidModel, "DynamicTimeWarping takes one input") };
    let x = x.tensor()?;
    let (rows, columns) = match *x.shape() {
        [m, n] | [1, m, n] if m > 0 && n > 0 => (m, n),
        _ => bail!(InvalidModel, "costs of shape {:?}", x.shape()),
    };
    let (from, wide) = (x.as_slice::<f32>()?, columns + 1);
    let size = product(&[rows + 1, wide])?;
    let mut lists = cx.lists::<Paths>();
    let Paths { cost, way, path } = &mut *lists;
    refill(cost, repeat_n(f32::INFINITY, size))?;
    refill(way, repeat_n(0, size))?;
    cost[0] = 0.0;
    for c in 1..=columns {
        for r in 1..=rows {
            let at = r * wide + c;
            let (both, down, right) = (cost[at - wide - 1], cost[at - wide], cost[at - 1]);
            let (least, w) = if both < down && both < right {
                (both, 0)
            } else if down < both && down < right {
                (down, 1)
            } else {
                (right, 2)
            };
            cost[at] = from[(r - 1) * columns + c - 1] + least;
            way[at] = w;
        }
    }
    let mut at = (rows, columns);
    let back = std::iter::from_fn(|| {
        let here = at;
        if here.0 == 0 || here.1 == 0 {
            return None;
        }
        at = match way[here.0 * wide + here.1] {
            0 => (here.0 - 1, here.1 - 1),
            1 => (here.0 - 1, here.1),
            _ => (here.0, here.1 - 1),
        };
        Some((here.0 - 1, here.1 - 1))
    });
    refill(path, back)?;
    let (rows, columns) = (path.iter().rev().map(|p| p.0 as i32), path.iter().rev().map(|p| p.1 as i32));
    let out = cx.gathered(&[2, path.len()], rows.chain(columns))?;
    cx.keep(lists);
    Ok(smallvec![Value::Tensor(out)])
}

fn distinct(_: &Distinct, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    ensure!((1..=3).contains(&cx.outputs), InvalidModel, "Unique has one to three outputs");
    let wanted = [true, false, cx.outputs > 1, cx.outputs > 2];
    some_of_unique(&Unique { axis: None, sorted: false }, wanted, cx, args)
}

fn bind_words(op: &WordEmbedding, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (chars, w, bias, table) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?);
    let (&[filters, one, window, size], &[count, wide]) = (w.shape.as_slice(), table.shape.as_slice()) else {
        bail!(InvalidModel, "filters of {:?}, vectors of {:?}", w.shape, table.shape)
    };
    let fits = one == 1 && size == wide && bias.len() == filters && window > 0;
    ensure!(fits, InvalidModel, "{} with filters of {:?}, vectors of {:?}", op.name(), w.shape, table.shape);
    let Some(&len) = chars.shape.last() else { bail!(InvalidModel, "words are a list of characters") };
    let words = chars.len().checked_div(len).unwrap_or(0);
    let row = product(&[window, size])?;
    let scratch = product(&[len.max(window), size, 4])?;
    let (tasks, per) = split(words, 65536 / product(&[filters, row, len.max(1)])?.max(1) + 1);
    Ok(FnStep::boxed("word_conv_embedding", tasks, scratch, move |args, task, scratch| {
        for word in task * per..words.min((task + 1) * per) {
            // SAFETY: word `word`, whose characters are checked; the scratch has room for the vectors of a word or a window.
            unsafe {
                let chars = std::slice::from_raw_parts(args.input::<i32>(0).add(word * len), len);
                let to = std::slice::from_raw_parts_mut(args.output::<f32>(0).add(word * filters), filters);
                let own = chars.iter().take_while(|&&c| c > 0).count();
                if own == 0 {
                    to.fill(0.0);
                    continue;
                }
                let own = own.max(window);
                let x = scratch.cast::<f32>();
                std::ptr::write_bytes(x, 0, len.max(window) * size);
                for (i, &c) in chars.iter().take(own).enumerate() {
                    let c = usize::try_from(c).unwrap_or(usize::MAX);
                    ensure!(c < count, Run, "character {c} of {count}");
                    std::ptr::copy_nonoverlapping(args.input::<f32>(3).add(c * size), x.add(i * size), size);
                }
                let x = std::slice::from_raw_parts(x, own * size);
                for (f, to) in to.iter_mut().enumerate() {
                    let w = std::slice::from_raw_parts(args.input::<f32>(1).add(f * row), row);
                    let sums =
                        (0..=own - window).map(|i| x[i * size..][..row].iter().zip(w).map(|(x, w)| x * w).sum::<f32>());
                    *to = (sums.fold(f32::NEG_INFINITY, f32::max) + *args.input::<f32>(2).add(f)).tanh();
                }
            }
        }
        Ok(())
    }))
}
