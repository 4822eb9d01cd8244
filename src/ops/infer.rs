//! Shape rules that several families share.

use crate::bail;
use crate::error::Result;
use crate::ir::Dim;

/// Multidirectional (numpy) broadcasting of two shapes. Sizes that are not known are taken to fit.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let n = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(n).map_or(Dim::Known(1), |k| s[k].clone());
    (0..n)
        .map(|i| {
            let (x, y) = (at(a, i), at(b, i));
            Ok(match (x.known(), y.known()) {
                (Some(1), _) => y,
                (_, Some(1)) => x,
                (Some(p), Some(q)) if p == q => x,
                (Some(_), Some(_)) => bail!(InvalidModel, "shapes {a:?} and {b:?} cannot be broadcast together"),
                // A known size beats an unknown one: the other can only be 1 or the same.
                (Some(_), None) => x,
                (None, Some(_)) => y,
                (None, None) => {
                    if x.same(&y) || y.is_capped(&x) {
                        x
                    } else if x.is_capped(&y) {
                        y
                    } else {
                        Dim::Unknown
                    }
                }
            })
        })
        .collect()
}

/// Broadcasting of any number of shapes; `None` where a rank is unknown.
pub fn broadcast_all<'a>(shapes: impl IntoIterator<Item = Option<&'a Vec<Dim>>>) -> Result<Option<Vec<Dim>>> {
    let mut out = Vec::new();
    for s in shapes {
        let Some(s) = s else { return Ok(None) };
        out = broadcast(&out, s)?;
    }
    Ok(Some(out))
}
