//! What a command has to say, for people and for machines.

use serde_json::Value;

/// An answer in both forms.
pub struct Report {
    /// Text with colours.
    pub human: String,
    /// The same for machines.
    pub json: Value,
    /// The process's exit code.
    pub code: u8,
}

impl Report {
    /// An answer of a command that went well.
    pub fn new(human: String, json: Value) -> Report {
        Report { human, json, code: 0 }
    }
    /// What to print.
    pub fn text(&self, json: bool) -> String {
        if json { format!("{:#}\n", self.json) } else { self.human.clone() }
    }
}

/// A float for JSON, which has no numbers for NaN and infinity.
pub fn number(x: f64) -> Value {
    match x {
        x if x.is_nan() => "NaN".into(),
        x if x.is_infinite() => if x > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        x => x.into(),
    }
}
