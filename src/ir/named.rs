//! Sizes as files name them. Exporters that trace sizes write expressions over other names ("past + rows", "(height - 1)//2 + 1"),
//! which tell how axes hang together; what is no such expression is a name of its own.

use super::dim::{Dim, DimOp};

/// Beyond this a name is just a name; it bounds the depth of parentheses, too.
const LONGEST: usize = 256;

impl Dim {
    /// The size that a file's text stands for.
    pub fn named(text: &str) -> Dim {
        let mut reader = Reader { rest: text.trim_start() };
        let read = if text.len() > LONGEST { None } else { reader.sum() };
        match read {
            Some(d @ Dim::Expr(_)) if reader.rest.is_empty() => d,
            _ => Dim::symbol(text),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Whether `token` comes next; it is passed then.
    fn take(&mut self, token: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }
    /// Letters, digits, underscores and the like; maybe none.
    fn word(&mut self) -> &'a str {
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':');
        let (word, rest) = self.rest.split_at(self.rest.find(|c| !inside(c)).unwrap_or(self.rest.len()));
        self.rest = rest.trim_start();
        word
    }
    fn sum(&mut self) -> Option<Dim> {
        let mut sum = if self.take("-") { Dim::Known(0) - self.product()? } else { self.product()? };
        loop {
            sum = match () {
                () if self.take("+") => sum + self.product()?,
                () if self.take("-") => sum - self.product()?,
                () => return Some(sum),
            };
        }
    }
    fn product(&mut self) -> Option<Dim> {
        let mut product = self.factor()?;
        loop {
            // A power is no product.
            product = match () {
                () if self.rest.starts_with("**") => return None,
                () if self.take("*") => product * self.factor()?,
                () if self.take("//") => product.floor_div(&self.factor()?),
                () => return Some(product),
            };
        }
    }
    fn factor(&mut self) -> Option<Dim> {
        if self.take("(") {
            let inside = self.sum()?;
            return self.take(")").then_some(inside);
        }
        let word = self.word();
        let op = match word {
            "" => return None,
            "Max" | "max" => DimOp::Max,
            "Min" | "min" => DimOp::Min,
            _ if word.starts_with(|c: char| c.is_ascii_digit()) => return word.parse().ok().map(Dim::Known),
            _ => return Some(Dim::symbol(word)),
        };
        if !self.take("(") {
            return None;
        }
        let mut bound = self.sum()?;
        while self.take(",") {
            bound = Dim::binary(op, &bound, &self.sum()?);
        }
        self.take(")").then_some(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_hang_together_and_names_stay_names() {
        let [past, rows] = ["past", "rows"].map(Dim::symbol);
        assert_eq!(Dim::named("past + rows") - past.clone(), rows);
        assert!(Dim::named("rows + past").same(&(past.clone() + rows.clone())));
        assert_eq!(Dim::named("-past + rows"), Dim::Known(0) - past.clone() + rows.clone());
        assert_eq!(
            Dim::named("((rows - 1)//2) + 1"),
            (rows.clone() - Dim::Known(1)).floor_div(&Dim::Known(2)) + Dim::Known(1)
        );
        assert_eq!(Dim::named("Max(1, past, rows)"), Dim::Known(1).max(&past).max(&rows));
        // What Display writes.
        let shown = (past.clone() + rows.clone()) * Dim::Known(3).min(&past);
        assert_eq!(Dim::named(&shown.to_string()), shown);
        let deep = format!("{}n{}", "(".repeat(9999), ")".repeat(9999));
        for name in [
            "batch",
            "batch size",
            "s72**2 + 1",
            "a/2",
            "-1",
            "1",
            "past +",
            "(a",
            "a)",
            "?",
            "a b",
            "f(a)",
            "3a + 1",
            "",
            &deep,
        ] {
            assert_eq!(Dim::named(name), Dim::symbol(name), "{name}");
        }
    }
}
