//! The command line.

use clap::{Args, Parser, Subcommand};
use ortx::SessionOptions;
use ortx::kernels::isa::Level;
use ortx::plan::Target;
use std::path::PathBuf;

/// Runs, inspects and benches ONNX models.
#[derive(Parser, Debug)]
#[command(name = "ortx", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 a file or option did not work out; 2 wrong usage; 11 invalid argument, \
12 invalid model, 13 unsupported, 14 not found, 15 i/o error, 16 out of memory, 17 run failed, 18 cancelled, \
19 device error, 20 internal error.";

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a model once and show or save its outputs
    Run(RunArgs),
    /// Show what a model is made of, and what of it is not supported
    Inspect(InspectArgs),
    /// Write an optimised model to a file
    Optimize(OptimizeArgs),
    /// Measure how fast a model runs and how much memory it takes
    Bench(BenchArgs),
    /// List the devices that models can run on
    Devices(DevicesArgs),
}

/// `ortx run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The model file (.onnx)
    pub model: PathBuf,
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Make up the inputs that are not given
    #[arg(long)]
    pub random: bool,
    /// Write the outputs, by name, to this .npz file
    #[arg(long, short, value_name = "FILE.npz")]
    pub out: Option<PathBuf>,
    /// Compress the .npz file
    #[arg(long, requires = "out")]
    pub compress: bool,
    /// Run the model after each optimiser pass, and compare with the graph as the model has it
    #[arg(long)]
    pub verify_passes: bool,
    #[command(flatten)]
    pub session: SessionArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `ortx inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The model file (.onnx)
    pub model: PathBuf,
    /// Fail with exit code 13 if anything is not supported
    #[arg(long)]
    pub check: bool,
    /// Show the plan: steps with kernels, layouts and memory, for the given input sizes
    #[arg(long)]
    pub plan: bool,
    /// Show how often each optimiser pass fired, and why it did not where it nearly did
    #[arg(long)]
    pub passes: bool,
    /// List all nodes that have a problem, not only the first of each kind
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub inputs: InputArgs,
    #[command(flatten)]
    pub session: SessionArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `ortx optimize`.
#[derive(Args, Debug)]
pub struct OptimizeArgs {
    /// The model file (.onnx)
    pub model: PathBuf,
    /// Where to write it: an ONNX file; or, if the name ends in .ortx, a compiled model for this library and processor, with
    /// weights as the kernels want them
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// The shape of an input for which a compiled model packs its weights; NAME= may be left out where there is one input. May be
    /// repeated
    #[arg(long, value_name = "[NAME=]N,N,..", value_parser = parse_shape)]
    pub shape: Vec<Shape>,
    #[command(flatten)]
    pub session: SessionArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `ortx bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// The model file (.onnx)
    pub model: PathBuf,
    #[command(flatten)]
    pub inputs: InputArgs,
    /// Measure for about this many seconds
    #[arg(long, default_value_t = 3.0, value_name = "S", value_parser = positive)]
    pub seconds: f64,
    /// Runs before the measurement, besides the first
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub warmup: usize,
    /// Measure at least this many runs
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub min_runs: u64,
    /// Measure at most this many runs
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_runs: u64,
    /// Show the time each node takes
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub session: SessionArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `ortx devices`.
#[derive(Args, Debug)]
pub struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What the model is fed.
#[derive(Args, Debug)]
#[command(next_help_heading = "Inputs")]
pub struct InputArgs {
    /// Arrays by input name (of a sequence: NAME.0, NAME.1, ...; of a map: NAME.keys, NAME.values). May be repeated
    #[arg(long, value_name = "FILE.npz")]
    pub npz: Vec<PathBuf>,
    /// One array. May be repeated
    #[arg(long, value_name = "NAME=FILE.npy", value_parser = parse_input)]
    pub input: Vec<Input>,
    /// A data set as ONNX's own tests have them: input_0.pb, input_1.pb, ... in the model's order
    #[arg(long, value_name = "FOLDER")]
    pub test_data: Option<PathBuf>,
    /// The shape of an input that is made up; NAME= may be left out where there is one input. May be repeated
    #[arg(long, value_name = "[NAME=]N,N,..", value_parser = parse_shape)]
    pub shape: Vec<Shape>,
    /// The size of all axes of a name. May be repeated
    #[arg(long, value_name = "AXIS=N", value_parser = parse_dim)]
    pub dim: Vec<Dim>,
    /// The range of an input that is made up. Else floats are in 0..1, uint8 in 0..255, other integers 0 or 1. May be repeated
    #[arg(long, value_name = "[NAME=]LO..HI", value_parser = parse_range)]
    pub range: Vec<Range>,
    /// Seed of made-up inputs
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

/// How the session is made.
#[derive(Args, Debug)]
#[command(next_help_heading = "Session")]
pub struct SessionArgs {
    /// Threads, this one included; 0: as many as the process may use cores
    #[arg(long, short, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Device to prefer to the CPU (`ortx devices` lists them); with a ! at the end: required. May be repeated
    #[arg(long, short, value_name = "NAME")]
    pub device: Vec<String>,
    /// Highest instruction set to use: scalar, avx2, avx512
    #[arg(long, value_name = "LEVEL", value_parser = parse_isa)]
    pub isa: Option<Level>,
    /// Leave the graph as the model has it
    #[arg(long)]
    pub no_optimize: bool,
    /// Leave out an optimiser pass. May be repeated
    #[arg(long, value_name = "PASS")]
    pub without_pass: Vec<String>,
    /// The last optimiser pass to run: finds the one that changes an answer
    #[arg(long, value_name = "PASS")]
    pub stop_after: Option<String>,
    /// Keep the model compiled in this file: it is loaded if it is there and current, else made
    #[arg(long, value_name = "FILE.ortx")]
    pub cache: Option<PathBuf>,
    /// Make the compiled model anew, whatever is there
    #[arg(long)]
    pub rebuild: bool,
    /// About how many bytes the plans take that are kept for shapes seen before
    #[arg(long, default_value_t = Target::PLAN_BYTES, value_name = "N")]
    pub plan_bytes: usize,
}

impl SessionArgs {
    /// As the library takes it.
    pub fn options(&self) -> SessionOptions {
        SessionOptions {
            threads: self.threads,
            isa: self.isa,
            devices: self.device.clone(),
            optimize: !self.no_optimize,
            disabled_passes: self.without_pass.clone(),
            stop_after: self.stop_after.clone(),
            cache: self.cache.clone(),
            rebuild: self.rebuild,
            plan_bytes: self.plan_bytes,
            ..SessionOptions::default()
        }
    }
}

/// `NAME=FILE.npy`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// The input.
    pub name: String,
    /// The file.
    pub file: PathBuf,
}

/// `[NAME=]N,N,..`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// The input; the only one if left out.
    pub name: Option<String>,
    /// Axis sizes.
    pub sizes: Vec<usize>,
}

/// `AXIS=N`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dim {
    /// The name of axes.
    pub name: String,
    /// Their size.
    pub size: usize,
}

/// `[NAME=]LO..HI`.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// The input; the only one if left out.
    pub name: Option<String>,
    /// The lowest value.
    pub low: f64,
    /// The highest value.
    pub high: f64,
}

/// Splits at the last `=`, as names may hold one.
fn split(s: &str) -> (Option<String>, &str) {
    match s.rsplit_once('=') {
        Some((name, rest)) => (Some(name.to_string()), rest),
        None => (None, s),
    }
}

fn parse_input(s: &str) -> Result<Input, String> {
    // Files may hold a = too, more likely than inputs.
    let (name, file) = s.split_once('=').ok_or("NAME=FILE.npy is needed")?;
    Ok(Input { name: name.into(), file: file.into() })
}

fn parse_shape(s: &str) -> Result<Shape, String> {
    let (name, sizes) = split(s);
    let sizes = sizes.trim_matches(['[', ']', '(', ')']);
    let each = sizes.split([',', 'x']).map(str::trim).filter(|s| !s.is_empty());
    let sizes = each.map(|n| n.parse().map_err(|_| format!("'{n}' is no size"))).collect::<Result<_, _>>()?;
    Ok(Shape { name, sizes })
}

fn parse_dim(s: &str) -> Result<Dim, String> {
    match split(s) {
        (Some(name), n) => Ok(Dim { name, size: n.parse().map_err(|_| format!("'{n}' is no size"))? }),
        _ => Err("AXIS=N is needed".into()),
    }
}

fn parse_range(s: &str) -> Result<Range, String> {
    let (name, range) = split(s);
    let (low, high) = range.split_once("..").or_else(|| range.split_once(',')).ok_or("LO..HI is needed")?;
    let number = |s: &str| s.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(|| format!("'{s}' is no number"));
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(format!("{low} is above {high}"));
    }
    Ok(Range { name, low, high })
}

fn parse_isa(s: &str) -> Result<Level, String> {
    Level::from_name(s).ok_or_else(|| "the levels are scalar, avx2, avx512".into())
}

fn positive(s: &str) -> Result<f64, String> {
    s.parse::<f64>().ok().filter(|x| x.is_finite() && *x > 0.0).ok_or_else(|| "a number above 0 is needed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn names_may_hold_what_values_are_split_at() {
        assert_eq!(parse_shape("a=b=1,3").unwrap(), Shape { name: Some("a=b".into()), sizes: vec![1, 3] });
        assert_eq!(parse_shape("1x3x224x224").unwrap(), Shape { name: None, sizes: vec![1, 3, 224, 224] });
        assert_eq!(parse_shape("s=").unwrap(), Shape { name: Some("s".into()), sizes: vec![] });
        assert!(parse_shape("x=1,-3").is_err());
        let r = parse_range("ids=0..30521").unwrap();
        assert_eq!((r.name.as_deref(), r.low, r.high), (Some("ids"), 0.0, 30521.0));
        assert_eq!(parse_range("-1..1").unwrap().low, -1.0);
        assert!(parse_range("2..1").is_err());
        assert_eq!(parse_dim("batch=4").unwrap(), Dim { name: "batch".into(), size: 4 });
    }
}
