//! The command line: one file of `commands` per command, whose doc comments are its help.
//!
//! A command turns its arguments into a typed request, passes that to the library, and prints the result. It does
//! no work itself.

pub mod args;
pub mod commands;
pub mod folders;
pub mod out;
pub mod print;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::data::error::DataError;
use crate::error::Result;
use crate::runs::Breadcrumb;
use crate::runs::supervise::{self, Role};
use commands::{
    answers, chat, check, compare, convert, data, eval, generate, pairs, plugins,
    reports::{export, plot, report, runs},
    run, tokenizer,
};

/// Train language models with objectives and backends that are plugins.
///
/// Exit codes: 0 done; 1 the run failed; 2 the request was wrong; 130 interrupted, resumable.
#[derive(Debug, Parser)]
#[command(name = "telos", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// A folder to look for plugins in, before TELOS_PLUGINS (a list like PATH) and `plugins` next to this program; may
    /// be given several times.
    ///
    /// Plugins are native code and fully trusted. The current directory is never searched unless named here.
    #[arg(long = "plugins", value_name = "DIR", global = true)]
    plugin_folders: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
    Compare(compare::Compare),
    Report(report::ReportArgs),
    Plot(plot::PlotArgs),
    Runs(runs::RunsArgs),
    Export(export::Export),
    #[command(subcommand)]
    Plugins(plugins::Plugins),
    Chat(chat::Chat),
    Generate(generate::Generate),
    Pairs(pairs::Pairs),
    Answers(answers::Answers),
    Eval(eval::Eval),
    Convert(convert::Convert),
    #[command(subcommand)]
    Data(data::Data),
    #[command(subcommand)]
    Tokenizer(tokenizer::Tokenizer),
}

/// Runs the program with `args` (the first is its name) and returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are handled here too, with code 0. If the reader closed the pipe, the command
            // has not failed.
            _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let done = match supervised(&cli, args) {
        Ok(Some(code)) => return code,
        Ok(None) => {
            print::keep_stdout();
            DataError::caught(|| execute(cli))
        }
        Err(error) => Err(error),
    };
    let code = match done {
        Ok(()) => 0,
        Err(error) => {
            print::err(&error.report());
            error.exit_code()
        }
    };
    Breadcrumb::from_env().finish(code);
    ExitCode::from(code)
}

/// Runs commands that call plugins in a child process, so that anything that ends that process early is reported.
/// Otherwise returns the child's exit code.
fn supervised(cli: &Cli, args: Vec<OsString>) -> Result<Option<ExitCode>> {
    let calls_plugins = match &cli.command {
        Command::Run(run) => !run.only_explains(),
        Command::Plugins(plugins) => plugins.calls_plugins(),
        Command::Check(_)
        | Command::Compare(_)
        | Command::Chat(_)
        | Command::Generate(_)
        | Command::Pairs(_)
        | Command::Answers(_)
        | Command::Eval(_) => true,
        Command::Convert(args) => args.calls_plugins(),
        Command::Data(_)
        | Command::Report(_)
        | Command::Plot(_)
        | Command::Export(_)
        | Command::Runs(_)
        | Command::Tokenizer(_) => false,
    };
    match (calls_plugins && supervise::role()? == Role::Supervisor, &cli.command) {
        (true, Command::Compare(compare)) => compare::supervise(compare, &args).map(Some),
        (true, _) => supervise::run_supervised(&args).map(Some),
        (false, _) => {
            // Removes the file's name at once, so that nothing is left whenever the process is killed.
            _ = Breadcrumb::from_env();
            Ok(None)
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    let folders = folders::search(&cli.plugin_folders);
    match cli.command {
        Command::Run(args) => run::execute(args, folders),
        Command::Check(args) => check::execute(args, folders),
        Command::Compare(args) => compare::execute(args, folders),
        Command::Report(args) => report::execute(args),
        Command::Plot(args) => plot::execute(args),
        Command::Runs(args) => runs::execute(args),
        Command::Export(args) => export::execute(args),
        Command::Plugins(args) => plugins::execute(args, folders),
        Command::Chat(args) => chat::execute(args, folders),
        Command::Generate(args) => generate::execute(args, folders),
        Command::Pairs(args) => pairs::execute(args, folders),
        Command::Answers(args) => answers::execute(args, folders),
        Command::Eval(args) => eval::execute(args, folders),
        Command::Data(args) => data::execute(args),
        Command::Convert(args) => convert::execute(args, folders),
        Command::Tokenizer(args) => tokenizer::execute(args),
    }
}
