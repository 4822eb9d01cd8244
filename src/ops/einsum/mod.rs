//! Einsum: the equation, and the shape it gives.

mod bind;
mod cases;
mod contract;

use super::Family;
use super::infer::broadcast;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::{bail, ensure};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const FAMILY: Family =
    Family { name: "einsum", ops: OPS, cpu: bind::cpu, cases: cases::cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[OpDef { domain: "", name: "Einsum", versions: &[12, 28], parse }];

/// Most axes of all operands together: letters, and what ellipses stand for.
const MAX_RANK: usize = 64;

/// An axis' name. Those that an ellipsis stands for count from the last one, so that they broadcast as NumPy has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Label {
    Hidden(usize),
    Letter(u8),
}

/// One operand's axes in the equation: those before the ellipsis, and, where there is one, those after it.
#[derive(Clone, Debug, PartialEq)]
struct Term {
    before: Vec<u8>,
    after: Option<Vec<u8>>,
}

/// Sums of products of tensors' elements (ONNX Einsum).
#[derive(Clone, Debug, PartialEq)]
pub struct Einsum {
    terms: Vec<Term>,
    /// `None`: the axes of ellipses, then the letters that occur once, in order.
    output: Option<Term>,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let equation = cx.string_opt("equation")?.unwrap_or_default();
    let einsum = Einsum::read(&equation)?;
    let n = einsum.terms.len();
    cx.expect_inputs(n, n)?;
    Ok(Arc::new(einsum))
}

impl Term {
    fn read(text: &str) -> Result<Term> {
        let mut term = Term { before: Vec::new(), after: None };
        let mut rest = text.as_bytes();
        while let Some((&c, tail)) = rest.split_first() {
            if rest.starts_with(b"...") {
                ensure!(term.after.is_none(), InvalidModel, "two ellipses in '{text}'");
                term.after = Some(Vec::new());
                rest = &rest[3..];
                continue;
            }
            rest = tail;
            match c {
                b' ' => {}
                c if c.is_ascii_alphabetic() => term.after.as_mut().unwrap_or(&mut term.before).push(c),
                c => bail!(InvalidModel, "'{}' in the equation", char::from(c).escape_default()),
            }
        }
        let n = term.before.len() + term.after.as_ref().map_or(0, Vec::len);
        ensure!(n <= MAX_RANK, InvalidModel, "an operand of {n} axes in the equation");
        Ok(term)
    }
    fn letters(&self) -> impl Iterator<Item = u8> {
        self.before.iter().chain(self.after.iter().flatten()).copied()
    }
    /// The axes of an operand of this rank.
    fn labels(&self, rank: usize) -> Result<Vec<Label>> {
        let own = self.letters().count();
        let hidden = match (&self.after, rank.checked_sub(own)) {
            (None, Some(0)) => 0,
            (Some(_), Some(n)) => n,
            _ => bail!(InvalidModel, "an operand of {rank} axes where the equation names {own}"),
        };
        Ok(self.spread(hidden))
    }
    fn spread(&self, hidden: usize) -> Vec<Label> {
        let hidden = (0..if self.after.is_some() { hidden } else { 0 }).rev().map(Label::Hidden);
        let before = self.before.iter().map(|&c| Label::Letter(c));
        before.chain(hidden).chain(self.after.iter().flatten().map(|&c| Label::Letter(c))).collect()
    }
}

impl Einsum {
    fn read(equation: &str) -> Result<Einsum> {
        let (inputs, output) = match equation.split_once("->") {
            Some((i, o)) => (i, Some(Term::read(o)?)),
            None => (equation, None),
        };
        let terms = inputs.split(',').map(Term::read).collect::<Result<Vec<_>>>()?;
        if let Some(o) = &output {
            for (i, c) in o.letters().enumerate() {
                let letter = char::from(c);
                ensure!(
                    terms.iter().any(|t| t.letters().any(|x| x == c)),
                    InvalidModel,
                    "axis '{letter}' of the result is no operand's"
                );
                ensure!(!o.letters().take(i).any(|x| x == c), InvalidModel, "the result has axis '{letter}' twice");
            }
        }
        Ok(Einsum { terms, output })
    }
    /// The letters of two operands and of the result, where there are no more operands, no ellipses, and no letter twice in one.
    pub fn pair(&self) -> Option<[Vec<u8>; 3]> {
        let [a, b] = &self.terms[..] else { return None };
        let all = self.output_labels(0).into_iter();
        let out = all.map(|l| if let Label::Letter(c) = l { Some(c) } else { None }).collect::<Option<Vec<u8>>>()?;
        let dense = |t: &Term| t.after.is_none() && (1..t.before.len()).all(|i| !t.before[..i].contains(&t.before[i]));
        let plain = dense(a) && dense(b) && self.output.as_ref().is_none_or(|o| o.after.is_none());
        plain.then(|| [a.before.clone(), b.before.clone(), out])
    }
    /// The axes of the result, if ellipses stand for at most `hidden` axes.
    fn output_labels(&self, hidden: usize) -> Vec<Label> {
        if let Some(o) = &self.output {
            return o.spread(hidden);
        }
        let mut count: BTreeMap<u8, usize> = BTreeMap::new();
        self.terms.iter().flat_map(Term::letters).for_each(|c| *count.entry(c).or_default() += 1);
        let once = count.iter().filter(|(_, n)| **n == 1).map(|(c, _)| Label::Letter(*c));
        (0..hidden).rev().map(Label::Hidden).chain(once).collect()
    }
    /// The most axes that an ellipsis stands for, among operands of these ranks.
    fn hidden(&self, ranks: impl Iterator<Item = usize>) -> usize {
        let one = |(t, rank): (&Term, usize)| match t.after {
            Some(_) => rank.saturating_sub(t.letters().count()),
            None => 0,
        };
        self.terms.iter().zip(ranks).map(one).max().unwrap_or(0)
    }
}

impl Op for Einsum {
    fn name(&self) -> &'static str {
        "Einsum"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let mut ranks = Vec::with_capacity(self.terms.len());
        let mut sizes: BTreeMap<Label, Dim> = BTreeMap::new();
        for (i, t) in self.terms.iter().enumerate() {
            cx.expect_same_dtype(0, i)?;
            let Some(dims) = &cx.tensor(i)?.dims else { continue };
            ranks.push(dims.len());
            for (label, d) in t.labels(dims.len())?.into_iter().zip(dims) {
                match sizes.get_mut(&label) {
                    None => {
                        sizes.insert(label, d.clone());
                    }
                    Some(s) => {
                        let mut both = broadcast(std::slice::from_ref(s), std::slice::from_ref(d))?;
                        *s = both.pop().unwrap_or_default();
                    }
                }
            }
        }
        let known = ranks.len() == self.terms.len();
        if !known && (self.output.is_none() || self.output.as_ref().is_some_and(|o| o.after.is_some())) {
            return Ok(vec![Fact::any_tensor(dtype)]);
        }
        let labels = self.output_labels(if known { self.hidden(ranks.into_iter()) } else { 0 });
        Ok(vec![Fact::tensor(dtype, labels.iter().map(|l| sizes.get(l).cloned().unwrap_or_default()).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations() {
        let e = Einsum::read(" b i ... , j...b").unwrap();
        assert_eq!(e.output_labels(1), [Label::Hidden(0), Label::Letter(b'i'), Label::Letter(b'j')]);
        assert_eq!(e.terms[0].labels(3).unwrap()[2], Label::Hidden(0));
        assert!(e.terms[0].labels(1).is_err());
        for bad in ["i->ii", "i->j", "i..j", "i......", "i1", "ij->k"] {
            assert!(Einsum::read(bad).is_err(), "{bad}");
        }
        assert_eq!(Einsum::read("").unwrap().terms.len(), 1);
    }
}
