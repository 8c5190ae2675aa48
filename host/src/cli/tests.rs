//! The command line: what parses into which request, and what is refused with which exit code.

use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use super::*;
use crate::config::Override;
use crate::pipeline::Selection;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("telos").chain(line.split(' ').filter(|word| !word.is_empty())))
}

/// Catches argument ids that clash and defaults that do not parse, in any command.
#[test]
fn the_definitions_of_commands_are_valid() {
    Cli::command().debug_assert();
}

/// Catches a --name or --set that is dropped or reordered on its way into the request.
#[test]
fn run_turns_every_argument_into_the_request() {
    let cli = parse(
        "run exp.toml --set a.b=1 --set c=x --resume --fixed-rows --from S --name N --update-lock --unproved --json --plugins /p",
    )
    .unwrap();
    assert_eq!(cli.plugin_folders, [PathBuf::from("/p")]);
    let Command::Run(args) = cli.command else { panic!("another command") };
    let request = args.request(vec!["/p".into()]).unwrap();
    let set = |text| Override::parse(text).unwrap();
    let expected = run::RunRequest {
        file: "exp.toml".into(),
        overrides: vec![set("a.b=1"), set("c=x"), Override::text("--name", "name", "N")],
        resume: true,
        fixed_rows: true,
        selection: Selection::From("S".into()),
        seeds: None,
        jobs: None,
        pause_after: None,
        compared_by: Vec::new(),
        plugin_folders: vec!["/p".into()],
        pinning: crate::plugins::Pinning::Update,
        unproved: true,
        json: true,
        watch: None,
    };
    assert_eq!(request, expected);
}

/// Catches a wrong request that parses, or whose exit code is not 2; and help that fails.
#[test]
fn wrong_requests_exit_with_2_and_help_with_0() {
    let wrong = [
        "",
        "run",
        "runn exp.toml",
        "run exp.toml --sett a=1",
        "run exp.toml --set a",
        "run exp.toml --set .a=1",
        "run exp.toml --set a=",
        "run exp.toml --from a --only b",
        "plugins show",
        "plugins verify",
        "plugins verify candle --dtype f16",
        "plugins verify candle --option path",
        "plugins verify candle --limit 0",
        "generate model",
        "generate model --prompt x --max-tokens 0",
        "generate model --prompt x --temperature nan",
        "generate model --prompt x --temperature -1",
        "generate model --prompt x --top-p 0",
        "generate model --prompt x --dtype f16",
        "eval model",
        "eval model --data",
        "convert in",
        "convert in out --dtype f64",
        "convert in out --shard-size 5",
        "tokenizer train --vocab-size 300 --out t.json",
        "tokenizer train a.txt --vocab-size 256 --out t.json",
        "tokenizer train a.txt --vocab-size 300",
    ];
    for line in wrong {
        let error = parse(line).err().unwrap_or_else(|| panic!("accepted: telos {line}"));
        assert_eq!(error.exit_code(), 2, "telos {line}");
    }
    for line in ["--help", "--version", "run --help", "tokenizer train --help"] {
        assert_eq!(parse(line).err().map(|error| error.exit_code()), Some(0), "telos {line}");
    }
    let right = [
        "run --help-keys",
        "check exp.toml --json",
        "plugins list --json --plugins /p",
        "plugins show ce",
        "plugins verify candle --device cpu --dtype f32 --option path=generic --only norm --only session --json",
        "generate model --prompt x --temperature 0 --seed 7 --threads 2",
        "eval model --data a.txt b.txt --data c.txt --backend reference",
        "convert in.gguf out --dtype bf16 --shard-size 500MB --json",
        "tokenizer train a.txt b.txt --vocab-size 257 --out t.json",
    ];
    for line in right {
        assert!(parse(line).is_ok(), "refused: telos {line}");
    }
}

/// Catches a sampling option that is silently ignored.
#[test]
fn top_p_with_temperature_0_is_refused_as_unused() {
    let cli = parse("generate model --prompt x --temperature 0 --top-p 0.9").unwrap();
    let error = execute(cli).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.message().contains("unused"), "{error}");
}
