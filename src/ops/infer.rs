//! Shape rules that several families share.

use crate::ensure;
use crate::error::Result;
use crate::ir::Dim;

/// Multidirectional (numpy) broadcasting of two shapes. Sizes that are not known are taken to fit.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let n = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(n).map_or(Dim::Known(1), |k| s[k].clone());
    (0..n)
        .map(|i| {
            let (x, y) = (at(a, i), at(b, i));
            if let (Some(p), Some(q)) = (x.known(), y.known()) {
                ensure!(
                    p == q || p == 1 || q == 1,
                    InvalidModel,
                    "shapes {a:?} and {b:?} cannot be broadcast together"
                );
            }
            Ok(x.broadcast(&y))
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
