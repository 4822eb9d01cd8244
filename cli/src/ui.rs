//! Text for people: aligned tables, colours, numbers with units, a spinner. Colours are stripped where the output is no
//! terminal or `NO_COLOR` is set.

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

/// Titles.
pub const TITLE: Style = Style::new().bold();
/// What matters less.
pub const DIM: Style = Style::new().dimmed();
/// Names.
pub const NAME: Style = AnsiColor::Cyan.on_default();
/// Good news.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What deserves a look.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Bad news.
pub const BAD: Style = AnsiColor::Red.on_default().bold();

/// Text in a style.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes to standard output. That nobody reads it (a closed pipe) is no failure.
pub fn print(text: &str) {
    let mut out = anstream::AutoStream::auto(std::io::stdout());
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error.
pub fn eprint(text: &str) {
    let mut out = anstream::AutoStream::auto(std::io::stderr());
    let _ = out.write_all(text.as_bytes());
}

/// A remark on standard error.
pub fn note(text: impl std::fmt::Display) {
    eprint(&format!("{} {text}\n", paint(DIM, "note:")));
}

/// What a session has to say of devices that it cannot use.
pub fn warn(session: &ortx::Session) {
    for w in session.warnings() {
        eprint(&format!("{} {w}\n", paint(WARN, "warning:")));
    }
}

/// How a column stands.
#[derive(Clone, Copy, PartialEq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows in columns as wide as they must be.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<(String, Style)>>,
}

impl Table {
    /// Columns by title; those whose title starts with `>` stand right.
    pub fn new(titles: &[&'static str]) -> Table {
        let column = |t: &&'static str| match t.strip_prefix('>') {
            Some(t) => (t, Align::Right),
            None => (*t, Align::Left),
        };
        Table { columns: titles.iter().map(column).collect(), rows: Vec::new() }
    }
    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (String, Style)>) {
        self.rows.push(cells.into_iter().collect());
    }
    /// Adds a row without colours.
    pub fn plain(&mut self, cells: impl IntoIterator<Item = String>) {
        self.row(cells.into_iter().map(|c| (c, Style::new())));
    }
    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
    /// The text, each line indented by two spaces.
    pub fn render(&self) -> String {
        let width = |i: usize| {
            let cells = self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.0.chars().count());
            cells.chain([self.columns[i].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let titles = self.columns.iter().map(|c| (c.0.to_string(), DIM));
        let mut s = String::new();
        let has_titles = self.columns.iter().any(|c| !c.0.is_empty());
        for row in has_titles.then(|| titles.collect::<Vec<_>>()).iter().chain(&self.rows) {
            for (i, (text, style)) in row.iter().enumerate() {
                let pad = " ".repeat(widths[i].saturating_sub(text.chars().count()));
                let last = i + 1 == row.len();
                let _ = match self.columns[i].1 {
                    _ if last && text.is_empty() => Ok(()),
                    Align::Right => write!(s, "  {pad}{}", paint(*style, text)),
                    Align::Left if last => write!(s, "  {}", paint(*style, text)),
                    Align::Left => write!(s, "  {}{pad}", paint(*style, text)),
                };
            }
            s.push('\n');
        }
        s
    }
}

/// `12.3 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut x, mut unit) = (n as f64, 0);
    while x >= 1000.0 && unit + 1 < UNITS.len() {
        x /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{x:.*} {}", usize::from(x < 100.0), UNITS[unit]) }
}

/// `25,557,032`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut s = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            s.push(',');
        }
        s.push(c);
    }
    s
}

/// Milliseconds with the digits that matter, and a unit.
pub fn time(ms: f64) -> String {
    match ms {
        x if x >= 10_000.0 => format!("{:.2} s", x / 1e3),
        x if x >= 100.0 => format!("{x:.1} ms"),
        x if x >= 1.0 => format!("{x:.2} ms"),
        x if x >= 0.1 => format!("{x:.3} ms"),
        x => format!("{:.2} us", x * 1e3),
    }
}

/// "1 node", "2 nodes".
pub fn plural(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n as u64), if n == 1 { "" } else { "s" })
}

/// Says on standard error what is going on, where that is a terminal; gone when dropped.
pub struct Spinner(ProgressBar);

impl Spinner {
    /// Starts at once, but shows itself only if the work takes a moment.
    pub fn start(what: impl Into<String>) -> Spinner {
        if !std::io::stderr().is_terminal() {
            return Spinner(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_message(what.into());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Spinner(bar)
    }
    /// Says something else.
    pub fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_with_units() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(213_465), "208 KiB");
        assert_eq!(bytes(102_100_000), "97.4 MiB");
        assert_eq!((count(0), count(999), count(25_557_032)), ("0".into(), "999".into(), "25,557,032".into()));
        assert_eq!(
            (time(12_345.0), time(0.0123), time(80.4)),
            ("12.35 s".into(), "12.30 us".into(), "80.40 ms".into())
        );
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let mut t = Table::new(&["name", ">size"]);
        t.plain(["a".into(), "1".into()]);
        t.plain(["longer".into(), "22".into()]);
        let plain = anstream::adapter::strip_str(&t.render()).to_string();
        assert_eq!(plain, "  name    size\n  a          1\n  longer    22\n");
    }
}
