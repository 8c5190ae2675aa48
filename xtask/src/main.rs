//! `cargo telos` and `cargo xtask`: build the host with every plugin of the workspace, run it, test everything.
//!
//! The list of plugins is read from the workspace, so that a new objective changes nothing here.

mod archive;
mod build;
mod cargo;
mod denominators;
mod dist;
mod errors;
mod files;
mod map;
mod minors;
mod plugins;
mod sdk;
mod test;
mod torch;

use errors::Result;
use std::{
    env,
    ffi::OsString,
    process::{Command, ExitCode},
};

const USAGE: &str = "\
usage: cargo telos ARGS...           build the host and all plugins, then run the host with ARGS
       cargo xtask torch             find or fetch libtorch, build host, plugins and the torch plugin
       cargo xtask build [--minors]  build the host, all plugins, and the plugins that only tests load;
                                     --minors adds the plugins and hosts for the test of two minor versions
       cargo xtask test [--full]     set up libtorch, build, then check format, lints, licences and the ABI, and
                                     run every test;
                                     --full adds the slow tests, the documentation, one pass of each bench, and the
                                     tests of candle and torch with each instruction set that can be forced here
       cargo xtask test --accept     replace the snapshots of texts (*.snap) and docs/objectives.md by the current texts, for review
       cargo xtask map [--graph]     check the structure of the source tree: files per folder, imports that go downwards;
                                     --graph prints the limited figures instead
       cargo xtask archive           build the plugins of every released version of the contract from its own source, and
                                     verify each with this host
       cargo xtask denominators      make docs/denominators.html: the same batches in 1, 2, 4 and 8 micro-batches
       cargo xtask dist [--out DIR] [--built DIR]
                                     build, then make a folder of stripped files that runs anywhere;
                                     --built uses the files of an earlier build (target/release) instead
";

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let command = args.next();
    let rest: Vec<OsString> = args.collect();
    let done = match command.as_ref().and_then(|c| c.to_str()) {
        Some("telos") => telos(&rest),
        Some("torch") if rest.is_empty() => torch_plugin().map(|()| ExitCode::SUCCESS),
        Some("build") if rest.is_empty() => build::everything(None).map(|_| ExitCode::SUCCESS),
        Some("build") if rest == ["--minors"] => {
            build::everything(None).and_then(|built| minors::build(&built)).map(|()| ExitCode::SUCCESS)
        }
        Some("test") if rest.is_empty() => test::run(false),
        Some("test") if rest == ["--full"] => test::run(true),
        Some("test") if rest == ["--accept"] => test::accept().map(|()| ExitCode::SUCCESS),
        Some("archive") if rest.is_empty() => archive_of_plugins().map(|()| ExitCode::SUCCESS),
        Some("denominators") if rest.is_empty() => denominators::run().map(|()| ExitCode::SUCCESS),
        Some("dist") => match dist::Request::read(&rest) {
            Some(request) => dist::run(&request).map(|()| ExitCode::SUCCESS),
            None => wrong_usage(),
        },
        Some("map") if rest.is_empty() => map::check().map(|()| ExitCode::SUCCESS),
        Some("map") if rest == ["--graph"] => map::print_figures().map(|()| ExitCode::SUCCESS),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => wrong_usage(),
    };
    done.unwrap_or_else(|why| {
        eprintln!("error: {why}");
        ExitCode::FAILURE
    })
}

fn wrong_usage() -> Result<ExitCode> {
    eprint!("{USAGE}");
    Ok(ExitCode::from(2))
}

/// Builds what is out of date, then replaces this process by the host.
fn telos(args: &[OsString]) -> Result<ExitCode> {
    let built = build::host_and_plugins(None)?;
    become_program(Command::new(built.host).args(args))
}

/// Builds the host, and checks the plugins of released versions of the contract with it.
fn archive_of_plugins() -> Result<()> {
    let built = build::host_and_plugins(None)?;
    archive::run(&built)?.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// Arranges libtorch, builds host and plugins with it, and prints its path.
fn torch_plugin() -> Result<()> {
    let libtorch = torch::Libtorch::set_up()?;
    let built = build::host_and_plugins(Some(&libtorch))?;
    println!("libtorch {}: {}", torch::VERSION, libtorch.folder.display());
    println!("the torch plugin is in {}", built.folder()?.join("plugins").display());
    Ok(())
}

/// Replaces this process, so that signals, the terminal and the exit code are the host's own.
#[cfg(unix)]
fn become_program(command: &mut Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let why = command.exec();
    Err(format!("cannot run {}: {why}", command.get_program().display()))
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().map_err(|e| format!("cannot run {}: {e}", command.get_program().display()))?;
    Ok(status.code().and_then(|c| u8::try_from(c).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
