//! The `ortx` command.

mod args;
mod bench;
mod devices;
mod fail;
mod inputs;
mod inspect;
mod npy;
mod npz;
mod optimize;
mod passes;
mod plan;
mod report;
mod run;
mod testdata;
mod ui;
mod verify;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (json, result) = match cli.command {
        Command::Run(a) => (a.json, run::run(&a)),
        Command::Inspect(a) => (a.json, inspect::inspect(&a)),
        Command::Optimize(a) => (a.json, optimize::optimize(&a)),
        Command::Bench(a) => (a.json, bench::bench(&a)),
        Command::Devices(a) => (a.json, devices::devices(&a)),
    };
    match result {
        Ok(report) => {
            ui::print(&report.text(json));
            ExitCode::from(report.code)
        }
        Err(e) => {
            if json {
                ui::print(&format!("{:#}\n", e.json()));
            }
            ui::eprint(&format!("{} {}\n", ui::paint(ui::BAD, "error:"), e.message()));
            if let Some(hint) = e.advice() {
                ui::eprint(&format!(" {} {hint}\n", ui::paint(ui::WARN, "hint:")));
            }
            ExitCode::from(e.code())
        }
    }
}
